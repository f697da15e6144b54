# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""In place of transformers' `tests/utils/test_configuration_utils.py`."""

# Keywords that every config takes, none of them at its default.
config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["AnArchitecture"],
    "problem_type": "regression",
    "num_labels": 3,
    "id2label": {0: "zero", 1: "one", 2: "two"},
    "label2id": {"zero": 0, "one": 1, "two": 2},
}
