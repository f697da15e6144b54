# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A text's hypotheses depend on it alone: not on its companions, their lengths, their number or their order."""

from itertools import product
from random import Random

import pytest
from small_models import make_model
from small_runs import nightly

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder


# With their characters and the special tokens, the 53 of the models.
SYMBOLS = [f"s{number}" for number in range(38)]
ROPE = {"rope_theta": 10000.0, "factor": 4.0}
ORIGINAL = {"original_max_position_embeddings": 16}
SCHEMES = {
    "none": {"position_embedding_type": "none"},
    "sinusoidal": {"position_embedding_type": "sinusoidal"},
    "learned": {"position_embedding_type": "learned"},
    "relative": {"position_embedding_type": "relative", "relative_attention_num_buckets": 8},
    "relative-per-layer": {"position_embedding_type": "relative", "relative_attention_per_layer": True},
    "rope": {},
    "rope-linear": {"rope_parameters": {"rope_type": "linear", **ROPE}},
    "rope-yarn": {"rope_parameters": {"rope_type": "yarn", **ROPE, **ORIGINAL}},
    "rope-llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            **ROPE,
            **ORIGINAL,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        }
    },
}
LAYERS = {
    "full": {},
    "blocks": {
        "encoder_layer_types": ["chunked_attention", "sliding_attention"],
        "decoder_layer_types": ["sliding_attention", "full_attention", "chunked_attention"],
        "block_size": 3,
        "num_global_tokens": 2,
    },
}
# So many that texts end early and late.
ENDS = [1, *range(5, 53, 6)]
FEW = [("rope", "blocks", 4, True), ("learned", "full", 1, True), ("relative", "full", 4, False)]
# Relative positions go with full attention only.
REFUSED = [(scheme, "blocks") for scheme in ("relative", "relative-per-layer")]
ALL = [each for each in product(SCHEMES, LAYERS, (1, 4), (True, False)) if each[:2] not in REFUSED]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol")


def texts(count: int, longest: int, seed: int) -> list[str]:
    random = Random(seed)
    return [" ".join(random.choices(SYMBOLS, k=random.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize(("scheme", "layers", "beams", "cache"), [*FEW, *nightly(*ALL)])
def test_texts_alone_and_in_company_give_the_same_tokens_and_scores(scheme, layers, beams, cache, tokenizer):
    model = make_model(**SCHEMES[scheme], **LAYERS[layers])
    model.generation_config.eos_token_id = ENDS
    options = {"num_beams": beams, "num_return_sequences": beams, "use_cache": bool(cache), "max_new_tokens": 12}
    chosen = texts(4, 9, seed=1)
    alone = [next(Decoder(model, tokenizer, tokenizer, scores=True, **options).decode([text])) for text in chosen]
    assert len({each[0].score for each in alone}) == len(alone)
    for size, longest in ((7, 3), (32, 40)):
        mixed = [*chosen, "", chosen[0], *texts(size - 6, longest, seed=2)]
        order = Random(3).sample(range(size), size)
        decoder = Decoder(model, tokenizer, tokenizer, batch_size=size, scores=True, **options)
        decoded = dict(zip(order, decoder.decode([mixed[i] for i in order]), strict=True))
        assert [each.text for each in decoded[4]] == [""] * beams
        for place, hypotheses in [*enumerate(alone), (5, alone[0])]:
            assert [each.text for each in decoded[place]] == [each.text for each in hypotheses]
            scores = [each.score for each in hypotheses]
            assert [each.score for each in decoded[place]] == pytest.approx(scores, abs=2e-4)
