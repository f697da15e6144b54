# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The page answers a text with texts and a picture, or with a line; a checkpoint's options do not stop it."""

import socket
import sys

import pytest
import torch
from small_models import make_model
from small_runs import refused
from torch.testing import assert_close
from transformers import AutoTokenizer

from hf_xformer.commands import demo
from hf_xformer.demo.answers import Answers


@pytest.fixture(scope="module")
def checkpoint(task, tmp_path_factory):
    """A checkpoint whose generation config asks for drafts, which do not go with beams."""
    folder = tmp_path_factory.mktemp("runs") / "drafts"
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer, model_max_length=12)
    model = make_model(vocab_size=len(tokenizer))
    model.generation_config.update(max_length=9, prompt_lookup_num_tokens=2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def answers(checkpoint, said):
    return Answers(str(checkpoint), 4, 3, said.append)


@pytest.mark.slow
def test_drafts_are_left_out_where_there_are_beams_and_kept_where_there_are_none(answers, said, checkpoint):
    (line,) = said
    assert line.endswith("prompt_lookup_num_tokens 2 of its generation config is left out: drafts need --num_beams 1")
    assert len(answers.answer("A B C").hypotheses) == 3
    greedy = Answers(str(checkpoint), 1, 1, said.append)
    assert greedy.decoder.is_assisted and len(said) == 1
    model = make_model(vocab_size=len(greedy.decoder.target))
    tokens = model.generate(**greedy.decoder.source("A B C", return_tensors="pt"), max_length=9)
    text = greedy.decoder.target.decode(tokens[0], skip_special_tokens=True)
    assert [each.text for each in greedy.answer("A B C").hypotheses] == [text]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "There is no text."),
        (" \n\t", "There is no text."),
        ("A " * 12, "The text has 13 tokens, and 12 are the most here."),
    ],
)
def test_a_text_that_is_empty_or_too_long_is_a_line(answers, text, line):
    answer = answers.answer(text)
    assert answer.lines == [line] and not answer.hypotheses and answer.picture is None
    assert len(answers.answer("A " * 11).hypotheses) == 3


def test_the_picture_is_of_the_attention_to_the_best_text(answers):
    answer = answers.answer("A B C")
    axes, *_ = answer.picture.axes
    assert [each.get_text() for each in axes.get_xticklabels()] == ["A", "B", "C", "</s>"]
    best = answers.decoder.target(answer.hypotheses[0].text, return_tensors="pt")["input_ids"]
    source = answers.decoder.source("A B C", return_tensors="pt")
    model = make_model(vocab_size=len(answers.decoder.target))
    model.set_attn_implementation("eager")
    attentions = model(**source, labels=best, output_attentions=True).cross_attentions
    drawn = torch.tensor(axes.images[0].get_array())
    assert_close(drawn, torch.stack(attentions).mean(dim=(0, 1, 2)), atol=1e-5, rtol=1e-4, check_dtype=False)


def test_an_error_is_a_line_and_its_traceback_is_printed(answers, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(answers.decoder, "options", {**answers.decoder.options, "min_length": "few"})
        (line,) = answers.answer("A B").lines
    assert line.startswith("Decoding failed: ") and "Traceback" not in line
    assert "Traceback" in capsys.readouterr().err
    # The page goes on, and without a picture too.
    monkeypatch.setattr("hf_xformer.decoding.attention_maps.PICTURE_TOKENS", 2)
    answer = answers.answer("A B C")
    assert answer.lines[-1:] == ["No picture: the source has 4 tokens; a picture has room for 2"]
    assert len(answer.hypotheses) == 3 and answer.picture is None


def test_what_cannot_be_served_is_refused_before_the_model_is_loaded(capsys, monkeypatch):
    nowhere = "no/such/checkpoint"
    line = refused(demo, [nowhere, "--num_beams", 2, "--n_best", 3], capsys)
    assert "--n_best 3 needs as many --num_beams, and there are 2" in line
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--host 127.0.0.1 --port {port}: Address already in use" in refused(
            demo, [nowhere, "--port", port], capsys
        )
    # An address for documents, which no machine has.
    assert "--host 192.0.2.1 --port 7860: " in refused(demo, [nowhere, "--host", "192.0.2.1"], capsys)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "hf-xformer demo needs gradio: pip install 'hf-xformer[demo]'" in refused(demo, [nowhere], capsys)
