# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`Decoder(..., compile=True)` and `--compile`: the texts of plain decoding; what has no graph is refused by name."""

import pytest
import torch
from small_models import make_model
from small_stock_models import make_stock

from hf_xformer.commands.generate import main as generate
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.errors import ArgumentError


SYMBOLS = [f"s{number}" for number in range(38)]
TEXTS = ["s1 s2 s3 s4", "s9", "", "s7 s7 s30 s31 s32 s33", "s37 s2", "s4 s4 s4"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol")


@pytest.fixture
def model():
    made = make_model()
    made.generation_config.update(eos_token_id=[1, *range(5, 53, 6)], max_length=30)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_texts_and_scores_are_those_of_plain_decoding(model, tokenizer, options):
    options |= {"batch_size": 3, "scores": True}
    expected = list(Decoder(model, tokenizer, tokenizer, **options).decode(TEXTS))
    with torch.compiler.set_stance("force_eager"):
        found = list(Decoder(model, tokenizer, tokenizer, compile=True, **options).decode(TEXTS))
    assert model.compiled_decoding.steps
    for ours, theirs in zip(found, expected, strict=True):
        assert [each.text for each in ours] == [each.text for each in theirs]
        assert [each.score for each in ours] == pytest.approx([each.score for each in theirs], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens does not go with compile"),
        ({"output_attentions": True}, "output_attentions does not go with compile"),
        ({"use_cache": False}, "use_cache=False does not go with compile"),
        ({"cache_implementation": "dynamic"}, "cache_implementation dynamic does not go with compile"),
        ({"device": "meta"}, "compile: the device is meta"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_go_with_it_is_refused_before_anything_is_loaded(options, line):
    with pytest.raises(ArgumentError, match=line):
        Decoder.from_pretrained("no-such-folder", **{"device": "cpu", "compile": True, **options})


def test_models_that_cannot_be_compiled_are_refused_by_name(model, tokenizer):
    with pytest.raises(ArgumentError, match="MarianMTModel is none"):
        Decoder(make_stock("Marian, shared vocabulary"), tokenizer, tokenizer, compile=True)
    model.set_attn_implementation("flex_attention")
    with pytest.raises(ArgumentError, match='attn_implementation="flex_attention"'):
        Decoder(model, tokenizer, tokenizer, compile=True)


def test_the_command_takes_it(capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit):
        generate(["no-such-folder", "--device", "cpu", "--compile"])
    assert "compile: there is no C++ compiler no-such-compiler" in capsys.readouterr().err
