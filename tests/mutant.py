# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A planted fault, and the tests that may catch it."""

from typing import NamedTuple


MODEL, CORE = "tests/models/test_modeling_xformer.py", "tests/models/test_attention_xformer.py"
ATTENTION, GENERATION = "tests/conformance/test_own_attention.py", "tests/conformance/test_own_generation.py"
OUTPUTS, TRAINING = "tests/conformance/test_own_generation_outputs.py", "tests/conformance/test_own_training.py"
CONFIG, STOCK = "tests/models/test_configuration_xformer.py", "tests/checkpoints/test_conversion.py"
PACKING, OUTPUT = "tests/models/test_packing_xformer.py", "tests/models/test_output_xformer.py"
LAYOUT = "tests/models/test_layout_xformer.py"
BLOCKS, WINDOWS = "tests/models/test_blocks_xformer.py", "tests/conformance/test_own_generation_blocks.py"
CACHE, FUSING = "tests/models/test_cache_xformer.py", "tests/models/test_fusing_xformer.py"
VARLEN, POSITIONS = "tests/models/test_varlen_xformer.py", "tests/models/test_positions_xformer.py"


class Mutant(NamedTuple):
    """A fault: in place of `line`, which stands once in the files that travel with the weights, `faulty`."""

    fault: str
    line: str
    faulty: str
    tests: tuple[str, ...] = (MODEL, ATTENTION)
    # Of those tests only the ones with these words in their names, so that a fault takes seconds.
    words: str = ""
