# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Small models with uneven weights, and CTranslate2's translators of their exports, from ids to ids."""

import json
from itertools import takewhile

import torch
from small_models import VANILLA, VARIANTS, make_model

from hf_xformer.checkpoints.engines import log_probabilities


LENGTHS = (11, 8, 5)  # of the sources
END, START = 1, 2
TEXT_SIDES = ("source", "target")
RELATIVE = VARIANTS["relative-pre"]


def rope(rope_type: str, **more) -> dict:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 1000.0, **more}}


SCALED = {"factor": 4.0, "original_max_position_embeddings": 16}
YARN = rope("yarn", **SCALED)
# What all engines compute.
EXPORTED = {
    **{name: fields for name, fields in VARIANTS.items() if name != "rope-pre-blocks"},
    "sandwich": {**VANILLA, "norm_position": "sandwich"},
    "relative-sandwich-qk-norm": {**RELATIVE, "norm_position": "sandwich", "qk_norm": True},
    "relative-per-layer": {**RELATIVE, "relative_attention_per_layer": True},
    "relative-odd": {**RELATIVE, "relative_attention_num_buckets": 9, "num_key_value_heads": 2},
    "none-gqa-post": {"position_embedding_type": "none", "norm_position": "post", "num_key_value_heads": 2},
    "sinusoidal-gqa-qk-norm": {**VANILLA, "num_key_value_heads": 2, "qk_norm": True},
    "one-key-value-head": {"num_key_value_heads": 1, "head_dim": 12},
    "heads-differ": {"encoder_attention_heads": 8, "num_key_value_heads": 2},
    "embedding-norm": {"layernorm_embedding": True},
    "learned-embedding-norm": {**VARIANTS["learned-pre"], "layernorm_embedding": True},
    "biases": {"use_bias": True, "use_final_logits_bias": True, "scale_embedding": False},
    "large-eps": {"norm_eps": 1e-2},
    "attention-multiplier": {"attention_multiplier": 0.7},
    "two-vocabularies": {"encoder_vocab_size": 61},
    "two-vocabularies-untied": {"encoder_vocab_size": 61, "tie_word_embeddings": False},
    "theta": rope("default"),
    "linear": rope("linear", factor=4.0),
    "llama3": rope("llama3", **SCALED, low_freq_factor=1.0, high_freq_factor=4.0),
    "yarn": {**YARN, "head_dim": 12},
    "plain-feed-forward": {"gated_ffn": False, "activation_function": "gelu"},
}


def make_uneven_model(**fields):
    """As `make_model`, with norms and biases that are not ones and zeros."""
    model = make_model(**fields)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter += 0.3 * torch.randn_like(parameter)
    return model


class Translator:
    """CTranslate2 from ids to ids, in exact arithmetic by default, which is the same on every CPU."""

    def __init__(self, folder, compute_type="float32"):
        import ctranslate2  # an extra

        self.translator = ctranslate2.Translator(str(folder), intra_threads=1, compute_type=compute_type)
        shared = folder / "shared_vocabulary.json"
        files = [shared] * 2 if shared.exists() else [folder / f"{side}_vocabulary.json" for side in TEXT_SIDES]
        self.source, self.target = (json.loads(file.read_text()) for file in files)
        self.options = json.loads((folder / "decoding.json").read_text())

    def translate(self, sources: list[list[int]], **options) -> list[list[int]]:
        batch = [[self.source[i] for i in ids] for ids in sources]
        results = self.translator.translate_batch(batch, **{**self.options, **options})
        return [[self.target.index(token) for token in result.hypotheses[0]] for result in results]

    def score(self, sources: list[list[int]], targets: list[list[int]]) -> list[torch.Tensor]:
        batch = [[self.source[i] for i in ids] for ids in sources]
        targets = [[self.target[i] for i in ids] for ids in targets]
        results = self.translator.score_batch(batch, targets, max_input_length=0)
        return [torch.tensor(result.log_probs) for result in results]


def make_rows(size: int, lengths=LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(4, size, (length,), generator=generator).tolist() for length in lengths]


def generate(model, sources: list[list[int]], **options) -> list[list[int]]:
    """What `generate()` makes of each source, up to the end token."""
    batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in sources], batch_first=True)
    lengths = torch.tensor([[len(ids)] for ids in sources])
    mask = (torch.arange(batch.shape[1]) < lengths).long()
    rows = model.generate(batch, attention_mask=mask, **options)[:, 1:].tolist()
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return [list(takewhile(lambda token: token not in ends, ids)) for ids in rows]


def worst(model, translator, sources, targets) -> float:
    """Largest difference of log-probabilities, the sources being one ragged batch in CTranslate2 and single here."""
    expected = [log_probabilities(model, s, [START, *t, END]) for s, t in zip(sources, targets, strict=True)]
    return max(
        (mine - theirs).abs().max().item()
        for mine, theirs in zip(expected, translator.score(sources, targets), strict=True)
    )
