# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`Decoder`: scores against one forward, the end of the positions, stop strings, assistants, odd tokenizers."""

import logging
import re
from copy import deepcopy
from functools import partial

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from small_models import make_model
from small_stock_models import make_stock
from tokenizers import normalizers, processors
from transformers import GenerationConfig

from hf_xformer.checkpoints.conversion import convert_model
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.errors import ArgumentError


# With their characters and the special tokens, the 53 of the models.
SYMBOLS = [f"s{number}" for number in range(38)]
TEXTS = ["s1 s2 s3 s4", "s9", "s7 s7 s30 s31 s32 s33", "s37 s2"]
ENDS = [1, *range(5, 53, 6)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((" ".join(SYMBOLS),), "symbol")


@pytest.fixture
def model():
    made = make_model()
    made.generation_config.update(eos_token_id=ENDS, max_new_tokens=8)
    return made


def brute_force(model, source: list[int], sequence: list[int], prompt: int) -> float:
    """The sum of a text's log-softmax in one forward without a cache."""
    logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([sequence[:-1]])).logits[0]
    steps = logits.log_softmax(-1).gather(-1, torch.tensor(sequence[1:])[:, None])[:, 0]
    return steps[prompt - 1 :].sum().item()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_new_tokens": 3},
        {"eos_token_id": 20},
        {"generation_config": GenerationConfig(eos_token_id=[20, 21], max_new_tokens=6)},
        {"num_beams": 3, "num_return_sequences": 3},
        {"num_beams": 3, "length_penalty": 2.0, "forced_bos_token_id": 7},
        {"do_sample": True, "num_return_sequences": 3},
        {"decoder_input_ids": torch.tensor([[2, 6, 7]]), "batch_size": 1},
        {"stop_strings": [f"s{n}" for n in range(10, 30)]},
        {"stop_strings": [f"s{n}" for n in range(10, 30)], "num_beams": 3},
        {"assistant_model": "itself"},
    ],
    ids=lambda options: "-".join(options) or "greedy",
)
def test_scores_are_those_of_one_forward_up_to_the_models_own_end_tokens(options, model, tokenizer, monkeypatch):
    if "assistant_model" in options:
        options = {"assistant_model": make_model()}
    decoder, seen = Decoder(model, tokenizer, tokenizer, scores=True, **options), []
    generate = decoder.generate
    monkeypatch.setattr(decoder, "generate", lambda sources: seen.append([sources]) or generate(sources))
    scores = decoder.scores_of
    monkeypatch.setattr(decoder, "scores_of", lambda output, width: seen[-1].append(output) or scores(output, width))
    torch.manual_seed(0)
    found = dict(zip(TEXTS, decoder.decode(TEXTS), strict=True))
    of = {tuple(tokenizer(text)["input_ids"]): hypotheses for text, hypotheses in found.items()}
    prompt = options["decoder_input_ids"].shape[1] if "decoder_input_ids" in options else 1
    for sources, output in seen:
        rows = output.sequences.view(len(sources), -1, output.sequences.shape[1]).tolist()
        for source, sequences in zip(sources, rows, strict=True):
            for sequence, hypothesis in zip(sequences, of[tuple(source)], strict=True):
                ends = decoder.config.eos_token_id
                ends = ends if isinstance(ends, list) else [ends]
                last = next(
                    (i for i, token in enumerate(sequence[prompt:], prompt) if token in ends), len(sequence) - 1
                )
                while sequence[last] == 0 and "stop_strings" in options:
                    last -= 1
                expected = brute_force(model, source, sequence[: last + 1], prompt)
                assert hypothesis.score == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("scheme", ["learned", "sinusoidal"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("length", [{"max_new_tokens": 40}, {"max_length": 40}], ids=["new", "whole"])
def test_a_text_that_runs_out_of_positions_ends_there_and_costs_no_other_its_result(length, beams, scheme, tokenizer):
    model = make_model(position_embedding_type=scheme, max_position_embeddings=8)
    model.generation_config.update(eos_token_id=ENDS, **length)
    said: list[str] = []
    decoder = Decoder(model, tokenizer, tokenizer, num_beams=beams, say=said.append)
    report = decoder.new_report()
    decoded = [best.text.split() for best, *_ in decoder.decode(TEXTS, report=report)]
    model.generation_config = GenerationConfig(eos_token_id=ENDS, pad_token_id=0, decoder_start_token_id=2)
    within = Decoder(model, tokenizer, tokenizer, num_beams=beams, max_new_tokens=8)
    assert decoded == [best.text.split() for best, *_ in within.decode(TEXTS)]
    options = {"num_beams": beams, "max_new_tokens": 8}
    alone = [model.generate(**tokenizer(text, return_tensors="pt"), **options)[0, 1:].tolist() for text in TEXTS]
    unended = sum(not set(tokens) & set(ENDS) for tokens in alone)
    assert report.unended.count == unended
    assert [line.startswith("ended at the model's 8 positions") for line in said] == [True] * bool(unended)


def test_a_text_without_tokens_and_the_configs_own_number_of_hypotheses(model, tokenizer):
    """A tokenizer that adds no end token makes nothing of an unknown text that is dropped."""
    model.generation_config.update(num_beams=3, num_return_sequences=2)
    bare = deepcopy(tokenizer)
    bare.backend_tokenizer.normalizer = normalizers.Replace("\u0301", "")
    bare.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    assert bare("\u0301")["input_ids"] == []
    whole = list(Decoder(model, bare, tokenizer).decode([TEXTS[0], "", TEXTS[1]]))
    assert [len(each) for each in whole] == [2, 2, 2] and [each.text for each in whole[1]] == ["", ""]
    assert list(Decoder(model, bare, tokenizer).decode([TEXTS[0], "\u0301", TEXTS[1]])) == whole


def test_padding_is_masked_whatever_inputs_a_tokenizer_names(model, tokenizer):
    bare = deepcopy(tokenizer)
    bare.model_input_names = ["input_ids"]
    decoded, expected = (list(Decoder(model, each, tokenizer).decode(TEXTS)) for each in (bare, tokenizer))
    assert decoded == expected


def test_sources_longer_than_the_training_are_kept_cut_or_refused_and_always_said(model, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "model_max_length", 4)
    texts, said = [*TEXTS, "s3 " * 30], []
    decoder = partial(Decoder, model, tokenizer, tokenizer, max_new_tokens=8)
    kept = list(decoder(say=said.append).decode(texts, kind="line"))
    (line,) = said
    what = "3 sources are longer than the 4 tokens that the model's tokenizer records: lines 1, 3, 5;"
    assert line.startswith(f"decoded whole: {what} the first has 5 tokens: 's1 s2 s3 s4'")
    monkeypatch.setattr(tokenizer, "model_max_length", 10**30)
    assert kept == list(decoder(say=said.append).decode(texts)) and len(said) == 1
    short = list(decoder(max_source_length=4, say=said.append).decode(texts))
    assert short[0] == next(decoder().decode(["s1 s2 s3"]))
    assert said[1].startswith("cut to 4 tokens: 3 sources are longer than the 4 tokens asked for: sources 1, 3, 5;")
    with pytest.raises(ArgumentError, match="3 sources are longer than the 4 tokens asked for: sources 1, 3, 5"):
        next(Decoder(model, tokenizer, tokenizer, max_source_length=4, overlong="error").decode(texts))
    with pytest.raises(ArgumentError, match="overlong: 'drop' is none of its choices"):
        Decoder(model, tokenizer, tokenizer, overlong="drop")


@pytest.mark.parametrize("overlong", ["truncate", "error"])
def test_without_a_recorded_length_there_is_nothing_to_go_by(overlong, model, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "model_max_length", 10**30)
    with pytest.raises(ArgumentError, match=f"overlong {overlong}: .* records no length .*: give max_source_length"):
        Decoder(model, tokenizer, tokenizer, overlong=overlong)
    Decoder(model, tokenizer, tokenizer, overlong=overlong, max_source_length=9)
    learned = make_model(position_embedding_type="learned", max_position_embeddings=8)
    assert Decoder(learned, tokenizer, tokenizer, overlong=overlong).lengths.limit == 8


@pytest.mark.parametrize("own", [{"max_length": 9}, {"max_new_tokens": 8}], ids=str)
def test_texts_that_the_models_own_length_cuts_off_are_said(own, model, tokenizer):
    said: list[str] = []
    tokens = {"eos_token_id": [1, *range(5, 30)], "pad_token_id": 0, "decoder_start_token_id": 2}
    model.generation_config = GenerationConfig(**own, **tokens)
    texts = list(Decoder(model, tokenizer, tokenizer, say=said.append).decode(TEXTS))
    count = sum(not best.ended for best, *_ in texts)
    assert 0 < count < len(TEXTS)
    (line,) = said
    assert line.startswith("cut off at the generation config's greatest length, without an end token: ")
    assert f"{count} source" in line
    asked = Decoder(model, tokenizer, tokenizer, max_new_tokens=8, say=said.append)
    assert list(asked.decode(TEXTS)) == texts and len(said) == 1


def test_what_the_tokenizer_does_not_know_of_a_source_is_said(model, tokenizer):
    said: list[str] = []
    decoder = Decoder(model, tokenizer, tokenizer, say=said.append, max_new_tokens=3)
    list(decoder.decode(["s1 s2", "s3", ""]))
    assert said == []
    list(decoder.decode(["s1 s2", "X s2 Y", "s3", "Ä"], kind="line"))
    assert said == ["read with unknown tokens in place of text: 2, lines 2, 4; the first has 2 of 4: 'X s2 Y'"]


def test_tokens_that_the_tokenizer_lacks_are_lost_and_said(tokenizer):
    """A model's vocabulary may be larger, padded to a multiple."""
    model, said = make_model(vocab_size=len(tokenizer) + 8), []
    told = {"forced_bos_token_id": len(tokenizer) + 3, "max_new_tokens": 2}
    ((best,),) = Decoder(model, tokenizer, tokenizer, say=said.append, **told).decode(["s1"], kind="line")
    assert best.unknown >= 1 and len(best.text.split()) == 2 - best.unknown
    assert said[0].startswith("texts without their unknown tokens: 1, of line 1")


def test_a_text_that_lost_unknown_tokens_is_said(model, tokenizer):
    said: list[str] = []
    told = {"forced_bos_token_id": tokenizer.unk_token_id, "max_new_tokens": 2}
    decoder = Decoder(model, tokenizer, tokenizer, say=said.append, **told)
    ((best,), (nothing,)) = decoder.decode(["s1", ""], kind="line")
    assert best.unknown in (1, 2) and len(best.text.split()) == 2 - best.unknown and nothing.unknown == 0
    lost = f"the first lost {best.unknown} and became {best.text!r}: 's1'"
    assert said == [f"texts without their unknown tokens: 1, of line 1; {lost}"]


def test_texts_that_minimum_bayes_risk_has_chosen_are_counted_and_no_other(model, tokenizer):
    candidates = {"do_sample": True, "num_return_sequences": 8, "mbr": "chrf", "max_new_tokens": 4}
    decoder = Decoder(model, tokenizer, tokenizer, **candidates)
    decoder.seed, report = 0, decoder.new_report()
    chosen = [best for best, *_ in decoder.decode(TEXTS * 9, report=report)]
    assert report.without_end == sum(not best.ended for best in chosen) and 0 < report.without_end < len(chosen)


def test_a_decoder_says_of_each_call_what_that_call_did(model, tokenizer):
    said: list[str] = []
    options = {"max_source_length": 4, "max_new_tokens": 8}
    decoder = Decoder(model, tokenizer, tokenizer, overlong="keep", say=said.append, **options)
    for _ in range(2):
        list(decoder.decode([TEXTS[0]]))
    assert len(said) == 2 and said[0] == said[1] and "1 source is longer" in said[0]
    list(decoder.decode(["s1"]))
    assert len(said) == 2
    refusing = Decoder(model, tokenizer, tokenizer, max_source_length=4, overlong="error")
    with pytest.raises(ArgumentError, match="1 source is longer"):
        next(refusing.decode([TEXTS[0]]))
    assert len(list(refusing.decode(["s1"]))) == 1


def test_a_list_with_a_long_source_is_refused_before_any_is_decoded(model, tokenizer, monkeypatch):
    decoder = Decoder(model, tokenizer, tokenizer, max_source_length=4, overlong="error")
    decoder.read_ahead = 1
    monkeypatch.setattr(decoder, "generate", lambda sources: pytest.fail("decoded"))
    with pytest.raises(ArgumentError, match="2 sources are longer than the 4 tokens asked for: sources 3, 4"):
        next(decoder.decode(["s1", "", *[TEXTS[0]] * 2]))


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("pad", [None, "end"])
def test_padding_by_the_end_token_changes_no_score(pad, beams, model, tokenizer):
    model.generation_config.update(max_length=12, eos_token_id=None, pad_token_id=0)
    texts = [*TEXTS, *(f"s{n} s{n + 1} s5" for n in range(12))]
    tokens = [model.generate(**tokenizer(text, return_tensors="pt"))[0, 1:].tolist() for text in texts]
    # Tokens that stand neither first nor everywhere, and a text that others have.
    ends = sorted({token for row in tokens for token in row[1:4]})[:4]
    strings = [tokenizer.decode([tokens[1][0]]).strip() or "s4", "nowhere"]
    for end in ends:
        options = {"eos_token_id": end, "scores": True, "num_beams": beams, "stop_strings": strings}
        model.generation_config.pad_token_id = 0
        plain = list(Decoder(model, tokenizer, tokenizer, **options).decode(texts))
        model.generation_config.pad_token_id = end if pad else None
        for (found,), (wanted,) in zip(
            Decoder(model, tokenizer, tokenizer, **options).decode(texts), plain, strict=True
        ):
            assert found.score == pytest.approx(wanted.score, abs=1e-4)


@pytest.mark.parametrize("draft", [{"assistant_model": "itself"}, {"prompt_lookup_num_tokens": 2}], ids=list)
def test_beams_with_drafts_are_refused_and_not_passed_over(draft, model, tokenizer):
    with pytest.raises(ArgumentError, match=f"{next(iter(draft))} does not go with num_beams 3"):
        Decoder(model, tokenizer, tokenizer, num_beams=3, **draft)
    model.generation_config.num_beams = 4
    with pytest.raises(ArgumentError, match="does not go with num_beams 4: drafts need num_beams 1"):
        Decoder(model, tokenizer, tokenizer, **draft)


def test_several_texts_of_a_draft_and_two_ways_of_drafting_are_refused_before_decoding(model, tokenizer):
    lookup = {"prompt_lookup_num_tokens": 2}
    with pytest.raises(ArgumentError, match="prompt_lookup_num_tokens does not go with num_return_sequences 2"):
        Decoder(model, tokenizer, tokenizer, do_sample=True, num_return_sequences=2, **lookup)
    with pytest.raises(ArgumentError, match="assistant_model does not go with prompt_lookup_num_tokens: leave one"):
        Decoder(model, tokenizer, tokenizer, assistant_model=model, **lookup)


def test_an_assistant_by_its_name_drafts_and_changes_nothing_but_with_other_tokens_is_refused(
    model, tokenizer, tmp_path
):
    plain = list(Decoder(model, tokenizer, tokenizer).decode(TEXTS))
    make_model(decoder_layers=1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert list(Decoder(model, tokenizer, tokenizer, assistant_model=str(tmp_path)).decode(TEXTS)) == plain
    train_tokenizer((" ".join(SYMBOLS[::-1][:9]),), "symbol").save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match="its source tokens are not those of"):
        Decoder(model, tokenizer, tokenizer, assistant_model=str(tmp_path))


def test_an_assistant_of_fewer_positions_and_caches_that_cannot_be_are_refused_and_a_static_one_of_its_own_is_not_used(
    model, tokenizer, tmp_path
):
    plain = list(Decoder(model, tokenizer, tokenizer).decode(TEXTS))
    tokenizer.save_pretrained(tmp_path)
    short = make_model(position_embedding_type="learned", max_position_embeddings=6)
    short.save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match="it has positions for 6 tokens, and the model for any number"):
        Decoder(model, tokenizer, tokenizer, assistant_model=str(tmp_path))
    own = make_model(decoder_layers=1)
    own.generation_config.cache_implementation = "static"
    own.save_pretrained(tmp_path)
    assert list(Decoder(model, tokenizer, tokenizer, assistant_model=str(tmp_path)).decode(TEXTS)) == plain
    for options, said in (
        ({"cache_implementation": "offloaded"}, "this is a CPU"),
        ({"assistant_early_exit": 1}, "is for models"),
    ):
        with pytest.raises(ArgumentError, match=said):
            Decoder(model, tokenizer, tokenizer, **options)


@pytest.mark.parametrize("prefixes", [None, ["s3 s4", "", "s9", "s5"]], ids=["", "prefixes"])
@pytest.mark.parametrize("change", [lambda model: model, convert_model], ids=["of a stock model", "of ours"])
def test_a_stock_assistant_reads_what_it_has_not_read_yet(change, prefixes, tokenizer):
    """The library has it read the whole text behind its own cache, without a mask of the text."""
    assistant = make_stock("BART")
    model = change(deepcopy(assistant))
    model.generation_config.update(
        eos_token_id=None, max_new_tokens=12, num_assistant_tokens=3, num_assistant_tokens_schedule="constant"
    )
    read = []
    assistant.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    plain = list(Decoder(model, tokenizer, tokenizer).decode(TEXTS, prefixes=prefixes))
    drafted = Decoder(model, tokenizer, tokenizer, assistant_model=assistant)
    assert list(drafted.decode(TEXTS, prefixes=prefixes)) == plain
    assert max(read) <= (2 if prefixes is None else 3) and sum(read) < len(TEXTS) * (12 + 3)


@pytest.mark.slow
def test_an_assistant_does_not_write_beyond_a_stop_string(tokenizer):
    model = make_model()
    model.generation_config.update(eos_token_id=[1], max_length=14)
    for stops in (["s7"], ["s7", "s9"], ["s30 "]):
        options = {"stop_strings": stops, "scores": True}
        plain = list(Decoder(model, tokenizer, tokenizer, **options).decode(TEXTS))
        for draft in ({"assistant_model": make_model()}, {"prompt_lookup_num_tokens": 2}):
            drafted = list(Decoder(model, tokenizer, tokenizer, **draft, **options).decode(TEXTS))
            assert [best.text for best, *_ in drafted] == [best.text for best, *_ in plain]
            wanted = pytest.approx([best.score for best, *_ in plain], abs=1e-4)
            assert [best.score for best, *_ in drafted] == wanted


@pytest.mark.parametrize(
    "option",
    [{"guidance_scale": 1.5}, {"penalty_alpha": 0.6}, {"num_beam_groups": 2}, {"force_words_ids": [[5]]}],
    ids="-".join,
)
@pytest.mark.parametrize("where", ["options", "config"])
def test_options_that_no_encoder_decoder_has_are_refused_when_a_model_is_loaded(where, option, model, tokenizer):
    ((name, value),) = option.items()
    if where == "config":
        model.generation_config.update(**option)
    with pytest.raises(ArgumentError, match=f"{name} .*{re.escape(str(value))} is .*: leave it out"):
        Decoder(model, tokenizer, tokenizer, **(option if where == "options" else {}))
    model.generation_config.update(guidance_scale=1, penalty_alpha=0, num_beam_groups=1, force_words_ids=None)
    Decoder(model, tokenizer, tokenizer)


@pytest.mark.parametrize("stops", [[""], "", ["s7", ""], [7]], ids=repr)
def test_a_stop_string_that_is_empty_or_no_string_is_refused(stops, model, tokenizer):
    with pytest.raises(ArgumentError, match="stop_strings has"):
        Decoder(model, tokenizer, tokenizer, stop_strings=stops)


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"do_sample": True}], ids=["greedy", "beams", "samples"])
@pytest.mark.parametrize(("given", "own"), [("max_new_tokens", "max_length"), ("max_length", "max_new_tokens")])
def test_a_length_that_is_given_takes_the_place_of_the_checkpoints_without_a_word(
    given, own, more, model, tokenizer, caplog
):
    lengths = {"max_new_tokens": 3, "max_length": 4}  # which counts the start token
    model.generation_config.update(suppress_tokens=[0, 1, 2, 3], eos_token_id=1, max_length=None)
    model.generation_config.update(**{own: lengths[own] + 4})
    logging.getLogger("transformers").addHandler(caplog.handler)
    decoder = Decoder(model, tokenizer, tokenizer, batch_size=1, **{given: lengths[given]}, **more)
    assert [len(best.text.split()) for best, *_ in decoder.decode(TEXTS)] == [3] * len(TEXTS)
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert not caplog.messages


def test_from_pretrained_finds_both_tokenizers(tokenizer, tmp_path):
    target = train_tokenizer(("u v w x y z",), "symbol")
    model = make_model(vocab_size=len(target), encoder_vocab_size=len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    target.save_pretrained(tmp_path / "target_tokenizer")
    decoder = Decoder.from_pretrained(str(tmp_path), device="cpu", max_new_tokens=6)
    expected = list(Decoder(model, tokenizer, target, max_new_tokens=6).decode(TEXTS))
    decoded = list(decoder.decode(TEXTS))
    assert decoded == expected and set(" ".join(best.text for best, *_ in decoded).split()) <= set("uvwxyz")


@pytest.mark.parametrize(
    "option",
    [{"encoder_no_repeat_ngram_size": 1}, {"encoder_repetition_penalty": 1.5}, {"assistant_model": "itself"}],
    ids="-".join,
)
def test_options_that_a_learned_prompt_would_pass_over_are_refused(option, model, tokenizer):
    adapted = get_peft_model(model, PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4)).eval()
    with pytest.raises(ArgumentError, match=f"{next(iter(option))}.* does not go with prompt tuning"):
        Decoder(adapted, tokenizer, tokenizer, **option)
    Decoder(adapted, tokenizer, tokenizer, encoder_no_repeat_ngram_size=0)


def test_one_text_is_a_text_and_what_is_none_is_refused(model, tokenizer):
    decoder = Decoder(model, tokenizer, tokenizer)
    assert list(decoder.decode(TEXTS[0])) == list(decoder.decode(TEXTS[:1]))
    for texts in ([None], iter(["s1", None]), ["s1", 7]):
        with pytest.raises(ArgumentError, match=r"source \d is (None|7), and a text is wanted"):
            list(decoder.decode(texts))


@pytest.mark.parametrize("beams", [1, 3])
def test_a_stop_string_in_the_prefix_does_not_end_a_text(beams, model, tokenizer):
    options = {"num_beams": beams, "eos_token_id": 1}
    whole = "s5 s6" + " 8" * 8
    for stops, text in ((None, whole), (["s5"], whole), *([(["6", "8"], "s5 s6 8")] if beams == 1 else [])):
        decoder = Decoder(model, tokenizer, tokenizer, stop_strings=stops, **options)
        ((found, *_),) = decoder.decode(["s9"], prefixes=["s5 s6"])
        assert found.text == text


@pytest.mark.parametrize("kind", ["own", "stock"])
@pytest.mark.parametrize("beams", [2, 4])
def test_a_text_that_a_string_has_ended_is_as_long_beside_longer_ones(beams, kind, model, tokenizer):
    """The library fills beams with the end token where padding has the number 0."""
    if kind == "stock":
        model = make_stock("T5")
        model.generation_config.update(bad_words_ids=None, max_new_tokens=8)
    options = {"num_beams": beams, "scores": True, "eos_token_id": 1, "no_repeat_ngram_size": 2}
    decoder = Decoder(model, tokenizer, tokenizer, stop_strings=["s21", "s30"], **options)
    together = [best for best, *_ in decoder.decode(TEXTS)]
    alone = [next(iter(decoder.decode([text])))[0] for text in TEXTS]
    assert [each.length for each in together] == [each.length for each in alone]
    assert len({each.length for each in together}) > 1


def test_an_option_that_would_cut_the_sources_mask_is_refused(model, tokenizer):
    with pytest.raises(ArgumentError, match="prefill_chunk_size 4 "):
        Decoder(model, tokenizer, tokenizer, prefill_chunk_size=4)
