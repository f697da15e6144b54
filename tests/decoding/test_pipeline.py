# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`pipeline("seq2seq")` says what the decoder behind `hf-xformer generate` says, one text or many."""

import shutil

import pytest
from small_models import make_model
from transformers import AutoTokenizer, pipeline

import hf_xformer
from hf_xformer.checkpoints.loading import load_model, load_tokenizers
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.errors import ArgumentError


TEXTS = ["A B C D E F", "", "H", "C C A"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, task) -> str:
    """A model with a vocabulary for each side."""
    folder = tmp_path_factory.mktemp("checkpoint")
    AutoTokenizer.from_pretrained(task.tokenizer).save_pretrained(folder)
    target = train_tokenizer(("u v w x y z",), "symbol")
    target.save_pretrained(folder / "target_tokenizer")
    source, _ = load_tokenizers(str(folder))
    make_model(vocab_size=len(target), encoder_vocab_size=len(source)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def decode(checkpoint):
    return pipeline("seq2seq", model=checkpoint, max_new_tokens=5)


def expected(checkpoint: str, **options) -> list[list[tuple]]:
    decoder = Decoder(load_model(checkpoint), *load_tokenizers(checkpoint), scores=True, max_new_tokens=5, **options)
    return [[(each.text, each.score) for each in hypotheses] for hypotheses in decoder.decode(TEXTS)]


def test_a_text_gives_its_hypothesis_in_the_targets_vocabulary(decode, checkpoint):
    assert isinstance(decode, hf_xformer.Seq2SeqPipeline)
    (best,) = decode(TEXTS[0])
    assert best == {"generated_text": expected(checkpoint)[0][0][0]}
    assert set(best["generated_text"].split()) <= set("uvwxyz")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_many_texts_in_batches_of_any_size_give_their_n_best_with_scores(batch_size, decode, checkpoint):
    options = {"num_beams": 3, "num_return_sequences": 2}
    got = decode(TEXTS, batch_size=batch_size, return_scores=True, **options)
    for hypotheses, wanted in zip(got, expected(checkpoint, **options), strict=True):
        assert [each["generated_text"] for each in hypotheses] == [text for text, _ in wanted]
        assert [each["score"] for each in hypotheses] == pytest.approx([score for _, score in wanted], abs=1e-4)


def test_candidates_come_with_their_utility(decode, checkpoint):
    options = {"num_beams": 4, "mbr": "exact_match"}
    decoder = Decoder(load_model(checkpoint), *load_tokenizers(checkpoint), max_new_tokens=5, **options)
    wanted = [[(each.text, each.utility) for each in row] for row in decoder.decode(TEXTS)]
    found = decode(TEXTS, **options)
    for row, known in zip(found, wanted, strict=True):
        assert [each["generated_text"] for each in row] == [text for text, _ in known]
        assert [each["utility"] for each in row] == pytest.approx([utility for _, utility in known], abs=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_long_text_is_named_by_its_number_in_the_call(batch_size, decode, caplog):
    options = {"batch_size": batch_size, "max_source_length": 3, "overlong": "keep"}
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("WARNING", "hf_xformer"):
            decode(TEXTS, **options)
        named = [message.partition(": text")[2][:6] for message in caplog.messages if "decoded whole" in message]
        assert [name.strip("s ").partition(";")[0] for name in named] == ["1", "4"]


def test_a_generator_is_decoded_as_it_comes(decode):
    drawn = []

    def texts():
        for text in TEXTS:
            drawn.append(text)
            yield text

    outputs = decode(texts(), batch_size=2)
    next(iter(outputs))
    assert len(drawn) < len(TEXTS)


def test_what_is_no_text_and_an_option_that_there_is_not_are_refused(decode):
    with pytest.raises(ValueError, match="expected a text or a list of texts, got 3"):
        decode([3])
    with pytest.raises(ValueError, match="num_beems"):
        decode("A", num_beems=3)


@pytest.mark.slow
def test_objects_in_place_of_names_stop_strings_and_an_assistant(decode, checkpoint, tmp_path):
    model, (source, target) = load_model(checkpoint), load_tokenizers(checkpoint)
    source.name_or_path = ""
    given = pipeline("seq2seq", model=model, tokenizer=source, target_tokenizer=target, max_new_tokens=5)
    assert given(TEXTS) == decode(TEXTS) == decode(TEXTS, assistant_model=checkpoint)
    with pytest.raises(ArgumentError, match="its target_tokenizer is missing"):
        pipeline("seq2seq", model=model, tokenizer=source)
    always = pipeline("seq2seq", model=checkpoint, max_new_tokens=5, assistant_model=checkpoint)
    assert always(TEXTS) == decode(TEXTS)
    text, words = next((text, words) for text in "ABCDEFGH" if (words := decode(text)[0]["generated_text"].split()))
    (stopped,) = decode(text, stop_strings=words[-1])
    assert stopped["generated_text"].split() == words[: words.index(words[-1]) + 1]
    own = train_tokenizer(("A B C D",), "symbol")
    made = pipeline("seq2seq", model=make_model(vocab_size=len(own)), tokenizer=own, max_new_tokens=5)
    assert len(made(["A", ""], batch_size=2)) == 2
    with pytest.raises(ArgumentError, match="more than the model's"):
        pipeline("seq2seq", model=make_model(vocab_size=len(own) - 1), tokenizer=own)


def test_a_checkpoint_whose_targets_tokenizer_is_missing_is_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "target_tokenizer")
    with pytest.raises(ArgumentError, match="its target_tokenizer is missing"):
        pipeline("seq2seq", model=str(tmp_path))
    _, target = load_tokenizers(checkpoint)
    given = pipeline("seq2seq", model=str(tmp_path), target_tokenizer=target, max_new_tokens=5)
    assert given(TEXTS[0])[0]["generated_text"] == expected(checkpoint)[0][0][0]


def test_no_texts_give_no_results(decode):
    assert decode([]) == []
