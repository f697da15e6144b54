# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Prefixes and lists of allowed texts, against the stock `generate()` on one source at a time and all texts tried."""

import pytest
import torch
from small_models import make_model
from transformers import GenerationConfig, MarianConfig, MarianMTModel

from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.errors import ArgumentError


SYMBOLS = [f"s{number}" for number in range(38)]
TEXTS = ["s1 s2 s3 s4", "s9", "s7 s7 s30 s31 s32 s33", "s37 s2", "s5 s5", ""]
PREFIXES = ["s3 s4", "", "s30", "s1", "s8 s9", "s1"]
ALLOWED = ["s1", "s1 s2", "s1 s2 s3", "s4 s5", "s4 s6", "s30 s31 s32"]
ENDS = [1, *range(5, 53, 6)]
LOOPS = [{}, {"num_beams": 3}]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol")


@pytest.fixture(params=["own", "stock"])
def model(request):
    if request.param == "own":
        made = make_model()
    else:
        torch.manual_seed(0)
        sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
        sizes |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "init_std": 0.4}
        special = {"vocab_size": 53, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2}
        made = MarianMTModel(MarianConfig(**sizes, **special, max_position_embeddings=32)).eval()
    special = {"pad_token_id": 0, "decoder_start_token_id": 2, "bos_token_id": None, "forced_eos_token_id": None}
    made.generation_config = GenerationConfig(eos_token_id=ENDS, max_new_tokens=7, **special)
    return made


def alone(model, tokenizer, text: str, **options) -> torch.Tensor:
    """One source by the library's own loop."""
    return model.generate(**tokenizer(text, return_tensors="pt"), **options)


def log_probability(model, tokenizer, text: str, tokens: list[int], prompt: int) -> float:
    """That of the tokens behind a prompt, in one forward."""
    logits = model(**tokenizer(text, return_tensors="pt"), decoder_input_ids=torch.tensor([tokens[:-1]])).logits[0]
    steps = logits.log_softmax(-1).gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]
    return steps[prompt - 1 :].sum().item()


@pytest.mark.parametrize("options", LOOPS, ids=["greedy", "beams"])
def test_each_text_goes_on_from_its_own_prefix(options, model, tokenizer):
    decoder = Decoder(model, tokenizer, tokenizer, scores=True, **options)
    found = [best for best, *_ in decoder.decode(TEXTS, prefixes=PREFIXES)]
    assert found[-1].text == ""  # whose source is empty
    for text, prefix, best in zip(TEXTS[:-1], PREFIXES, found, strict=False):
        prompt = [2, *tokenizer(prefix, add_special_tokens=False)["input_ids"]]
        (tokens,) = alone(model, tokenizer, text, decoder_input_ids=torch.tensor([prompt]), **options).tolist()
        assert best.text == tokenizer.decode(tokens, skip_special_tokens=True) and best.text.startswith(prefix)
        end = next((i for i, token in enumerate(tokens) if i >= len(prompt) and token in ENDS), len(tokens) - 1)
        wanted = log_probability(model, tokenizer, text, tokens[: end + 1], len(prompt))
        assert best.score == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("options", LOOPS, ids=["greedy", "beams"])
def test_only_allowed_texts_come_out_as_the_library_finds_them(options, model, tokenizer):
    model.generation_config.eos_token_id = 1
    ids = [[2, *tokenizer(text)["input_ids"]] for text in ALLOWED]

    def may_follow(batch: int, tokens: torch.Tensor) -> list[int]:
        known = [each for each in ids if each[: len(tokens)] == tokens.tolist()]
        return [each[len(tokens)] for each in known if len(each) > len(tokens)] or [0, 1]

    found = [best.text for best, *_ in Decoder(model, tokenizer, tokenizer, allowed=ALLOWED, **options).decode(TEXTS)]
    for text, best in zip(TEXTS[:-1], found, strict=False):
        (tokens,) = alone(model, tokenizer, text, prefix_allowed_tokens_fn=may_follow, **options).tolist()
        assert best == tokenizer.decode(tokens, skip_special_tokens=True) and best in ALLOWED


def test_beams_for_all_allowed_texts_find_the_likeliest_by_token(model, tokenizer):
    model.generation_config.eos_token_id = 1
    decoder = Decoder(model, tokenizer, tokenizer, allowed=ALLOWED, num_beams=6, num_return_sequences=6, scores=True)
    for text, row in zip(TEXTS[:-1], decoder.decode(TEXTS[:-1]), strict=True):
        wanted = {}
        for each in ALLOWED:
            tokens = [2, *tokenizer(each)["input_ids"]]
            wanted[each] = log_probability(model, tokenizer, text, tokens, 1) / (len(tokens) - 1)
        assert [each.text for each in row] == sorted(ALLOWED, key=lambda each: -wanted[each])
        assert [each.score for each in row] == pytest.approx(
            [wanted[each.text] * (len(each.text.split()) + 1) for each in row], abs=1e-3
        )


def test_a_prefix_and_allowed_texts_go_together(model, tokenizer):
    model.generation_config.eos_token_id = 1
    decoder = Decoder(model, tokenizer, tokenizer, allowed=ALLOWED)
    found = [best.text for best, *_ in decoder.decode(TEXTS[:3], prefixes=["s1 s2 s3", "s4", "s30"])]
    assert found[0] == "s1 s2 s3" and found[1] in ("s4 s5", "s4 s6") and found[2] == "s30 s31 s32"
    for prefix in ("s9", "s2", "s1 s2 s3 s4"):  # which would leave the allowed texts behind
        with pytest.raises(ArgumentError, match=f"prefix of source 1.* begins none of the allowed texts: '{prefix}'"):
            list(decoder.decode(TEXTS[:1], prefixes=[prefix]))


def test_what_leaves_no_text_or_not_one_prefix_a_source_is_refused(model, tokenizer):
    decoder = Decoder(model, tokenizer, tokenizer)
    for prefixes, said in (
        (["s1"] * 5, "source 6 has none: give one for each source"),
        (["s1"] * 7, "there are more of them"),
        ([7] * 6, "prefix of source 1 is 7, and a text is wanted"),
    ):
        with pytest.raises(ArgumentError, match=said):
            list(decoder.decode(TEXTS, prefixes=prefixes))
    prompted = Decoder(model, tokenizer, tokenizer, decoder_input_ids=torch.tensor([[2, 7]]))
    with pytest.raises(ArgumentError, match="prefixes do not go with decoder_input_ids"):
        list(prompted.decode(TEXTS, prefixes=PREFIXES))
    model.generation_config.update(max_new_tokens=None, max_length=4)
    with pytest.raises(
        ArgumentError, match="prefix of line 1 has 3 tokens, and max_length 4 leaves none .* 's1 s2 s3'"
    ):
        list(Decoder(model, tokenizer, tokenizer).decode(["s1"], kind="line", prefixes=["s1 s2 s3"]))
    for options, said in (
        ({"allowed": []}, "there is no text"),
        ({"allowed": ["s1", " "]}, "allowed text 2 is empty"),
        ({"allowed": ["s1", "s1 s2 s3 s4"]}, "allowed text 2 has 4 tokens, and the longest text 3"),
        ({"allowed": ["s1", "s2"], "num_beams": 3, "num_return_sequences": 3}, "3 hypotheses .* 2 texts are allowed"),
    ):
        with pytest.raises(ArgumentError, match=said):
            Decoder(model, tokenizer, tokenizer, **options)


@pytest.mark.parametrize("options", [*LOOPS, {"do_sample": True}], ids=str)
def test_a_list_that_the_generation_config_forbids_is_refused_and_gives_no_other_text(options, model, tokenizer):
    model.generation_config.min_length = 6
    with pytest.raises(ArgumentError, match="such as min_length, forbids how texts go on behind 's1'"):
        list(Decoder(model, tokenizer, tokenizer, allowed=["s1"], **options).decode(TEXTS))


def test_a_list_that_cannot_be_followed_or_written_as_it_stands_is_said(model, tokenizer):
    said: list[str] = []
    with pytest.raises(ArgumentError, match="allowed does not go with decoder_input_ids"):
        Decoder(model, tokenizer, tokenizer, allowed=["s1"], decoder_input_ids=torch.tensor([[2, 7]]))
    decoder = Decoder(model, tokenizer, tokenizer, allowed=["s1 s2", "s1  s2", "s3"], say=said.append)
    assert decoder.targets.allowed.count == 2
    assert said == [
        "allowed texts that the target's tokenizer changes: 1, text 2; the first has 's1  s2' as 's1 s2': 's1  s2'"
    ]


def test_a_prefix_that_leaves_no_position_is_refused(tokenizer):
    learned = make_model(position_embedding_type="learned", max_position_embeddings=8)
    decoder = Decoder(learned, tokenizer, tokenizer, max_new_tokens=3)
    assert list(decoder.decode(["s1"], prefixes=["s1 " * 7]))
    with pytest.raises(ArgumentError, match="prefix of source 1 has 8 tokens, and the model 8 positions: "):
        list(decoder.decode(["s1"], prefixes=["s1 " * 8]))


def test_a_prefix_that_the_tokenizer_changes_is_said(model, tokenizer):
    said: list[str] = []
    decoder = Decoder(model, tokenizer, tokenizer, say=said.append, max_new_tokens=7)
    list(decoder.decode(TEXTS, kind="line", prefixes=["s1", "s1  s2", "Haus s1", "", "", ""]))
    (line,) = said
    assert line.startswith("prefixes that the target's tokenizer changes: ") and "lines 2, 3" in line
