# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Runs whose pairs chance makes while training: the same for a seed, whatever stops them, and said in the record."""

import json
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from small_runs import Task, nightly, refused, refused_unread, weights
from transformers import AutoTokenizer

from hf_xformer.commands import tokenizer, train
from hf_xformer.data.pairs import PairTokenizer
from hf_xformer.data.reading import load_rows
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError
from hf_xformer.training.arguments import DataArguments
from hf_xformer.training.chance import evaluated_objective, make_encoder, recorded_chance, say_chance


SENTENCE = "the quick brown fox jumps over a lazy dog while seven wizards quickly boxed jumping foxes at night"
SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "save_total_limit": None}
NOISE = {"bpe_dropout": 0.3, "source_word_dropout": 0.2, "case_noise": 0.2}


@dataclass(frozen=True)
class Texts:
    """Texts without targets, pairs of them, and a tokenizer of subwords with sentinels and a mask."""

    folder: Path
    task: Task

    def options(self, output_dir: Path, **more) -> list[str]:
        given = {
            "tokenizer_name": self.folder / "tokenizer",
            "train_file": self.folder / "texts.txt",
            "max_source_length": 24,
            "max_target_length": 24,
            **SAVING,
        }
        return self.task.options(output_dir, **{**given, **more})


@pytest.fixture(scope="module")
def texts(task, tmp_path_factory) -> Texts:
    folder = tmp_path_factory.mktemp("texts")
    words = SENTENCE.split()
    lines = [" ".join(words[(start + step * 3) % len(words)] for step in range(3 + start % 9)) for start in range(60)]
    (folder / "texts.txt").write_text("".join(f"{line}.\n" for line in lines))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    pairs = [{"source": line, "target": line.upper()} for line in lines]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    options = {"sentinels": 20, "mask_token": True, "added_tokens": ["[NLU]", "[S2S]", "[NLG]"]}
    train_tokenizer([*lines, *(line.upper() for line in lines)], "bpe", 400, **options).save_pretrained(
        folder / "tokenizer"
    )
    return Texts(folder, task)


RUNS = {
    "span corruption, packed": {"objective": "span_corruption", "packing": "true", "max_tokens": 64},
    "noise": {"train_file": "pairs.jsonl", **NOISE},
}
MORE_RUNS = {
    "denoising of a stream": {"objective": "denoising", "streaming": "true", "bpe_dropout": 0.1},
    "ul2": {"objective": "ul2", "max_tokens": 64},
    "workers": {"objective": "prefix_lm", "dataloader_num_workers": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RUNS, *nightly(*MORE_RUNS)])
def test_a_resumed_run_ends_as_an_unbroken_one(name, texts, tmp_path):
    options = {**RUNS, **MORE_RUNS}[name]
    if "train_file" in options:
        options = {**options, "train_file": texts.folder / options["train_file"]}
    train.main(texts.options(tmp_path / "unbroken", **options))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/checkpoint-6")
    train.main(texts.options(tmp_path / "resumed", **options))
    assert torch.equal(weights(tmp_path / "unbroken"), weights(tmp_path / "resumed"))
    train.main(texts.options(tmp_path / "other", **options, data_seed=1, save_strategy="no"))
    assert not torch.equal(weights(tmp_path / "unbroken"), weights(tmp_path / "other"))


@pytest.mark.slow
def test_the_record_and_the_card_say_the_objective_and_the_tokenizer_stays_as_it_was(texts, tmp_path, capsys):
    options = {
        "objective": '{"name": "span_corruption", "noise_density": 0.3}',
        "bpe_dropout": 0.1,
        "validation_file": texts.folder / "texts.txt",
        "eval_strategy": "steps",
        "eval_steps": 6,
        "learning_rate": 0,
    }
    train.main(texts.options(tmp_path, **options, max_steps=12, save_steps=12))
    record = json.loads((tmp_path / "run.json").read_text())
    words = "span_corruption (noise_density 0.3, mean_span 3)"
    assert record["objective"] == words and record["noise"] == {"bpe_dropout": 0.1}
    card = (tmp_path / "README.md").read_text()
    assert f"| objective | `{words}` |" in card and "| noise | bpe_dropout 0.1 |" in card
    said = capsys.readouterr().out
    assert f"--objective {words}, for example: '" in said and "<extra_id_0>" in said
    # The weights stay as they are, and so do an evaluation's pairs.
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert len(losses) == 2 and losses[0] == losses[1]
    own, given = (
        AutoTokenizer.from_pretrained(each).backend_tokenizer.to_str()
        for each in (tmp_path, texts.folder / "tokenizer")
    )
    assert own == given and json.loads(own)["model"]["dropout"] is None


@pytest.mark.slow
def test_another_objective_is_another_recipe_and_other_spelling_is_not(texts, tmp_path, capsys):
    train.main(texts.options(tmp_path, objective="span_corruption", max_steps=3))
    same = '{"name": "span_corruption", "mean_span": 3}'
    train.main(
        texts.options(tmp_path, objective=same, max_steps=4, lr_scheduler_type="constant", change_recipe="true")
    )
    capsys.readouterr()
    going_on = {"lr_scheduler_type": "constant", "max_steps": 5}
    for changed, name in (
        ({"objective": "copy"}, "objective"),
        ({"objective": same, "bpe_dropout": 0.1}, "bpe_dropout"),
    ):
        said = refused(train, texts.options(tmp_path, **going_on, **changed), capsys)
        assert name in said and "--change_recipe" in said


REFUSED = {
    "without steps": (
        {"objective": "copy", "max_steps": None},
        "--objective makes other pairs in every pass, of which nobody knows the number: give --max_steps",
    ),
    "dropout without steps": ({"bpe_dropout": 0.1, "max_steps": None}, "--bpe_dropout makes other pairs"),
    "no such objective": ({"objective": "span_curruption"}, "--objective: name 'span_curruption' is none of its"),
    "noise of both kinds": (
        {"objective": "copy", "case_noise": 0.1},
        "--case_noise does nothing with --objective copy",
    ),
    "metrics": (
        {"objective": "copy", "metrics": "per", "validation_file": "nowhere.txt"},
        "--metrics does nothing with --objective copy, which has no targets",
    ),
    "long texts": ({"objective": "copy", "overlong": "drop"}, "--overlong drop does nothing with --objective copy"),
    "two ways to split": ({"bpe_dropout": 0.1, "unigram_sampling": 0.1}, "--bpe_dropout and --unigram_sampling"),
    "a share": ({"source_word_dropout": 1}, "--source_word_dropout must be in [0, 1), got 1"),
    "epochs": ({"case_noise": 0.1, "save_strategy": "epoch"}, "--save_strategy epoch: --case_noise has no epochs"),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED.values(), ids=REFUSED)
def test_an_option_is_refused_before_the_data_are_read(changes, said, task, tmp_path, capsys):
    assert refused_unread(task, tmp_path / "run", capsys, **changes).startswith(f"error: {said}")


def test_an_objective_is_refused_on_pairs_and_pairs_are_wanted_without_one(texts, tmp_path, capsys):
    load_rows([texts.folder / "pairs.jsonl"]).to_parquet(tmp_path / "pairs.parquet")  # of which columns are read alone
    places = {texts.folder / "pairs.jsonl": "pairs.jsonl:1", tmp_path / "pairs.parquet": "pairs.parquet, row 1"}
    for (path, place), more in product(places.items(), ({}, {"streaming": "true"})):
        said = refused(train, texts.options(tmp_path, objective="copy", train_file=path, **more), capsys)
        assert f"{place}: a target in 'target': " in said and "--objective is for texts without targets" in said
    said = refused(train, texts.options(tmp_path), capsys)
    assert "texts.txt: unknown extension" in said and "a recipe's `objective`" in said


@pytest.mark.slow
def test_an_objective_may_be_for_the_targets_of_pairs(texts, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"source": "A", "target": f"the cat {n}"}) + "\n" for n in range(40)))
    options = {"objective": "copy", "train_file": path, "validation_file": path, "source_column": "target"}
    for name, more in {"memory": {}, "stream": {"streaming": "true"}}.items():
        words = {**options, **more, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 1, "save_strategy": "no"}
        train.main(texts.options(tmp_path / name, **words))
        assert json.loads((tmp_path / name / "run.json").read_text())["steps"] == 1


UNFIT = {
    "no merges": ({"bpe_dropout": 0.1}, "--bpe_dropout 0.1: the source tokenizer"),
    "no sentinels": ({"objective": "ul2"}, "hf-xformer tokenizer --sentinels 100 makes one"),
    "no room": ({"objective": '{"name": "span_corruption", "sentinels": "A{}"}'}, "has no sentinel 'A0'"),
}


@pytest.mark.parametrize(("changes", "said"), UNFIT.values(), ids=UNFIT)
def test_a_tokenizer_that_does_not_fit_is_refused_by_name(changes, said, texts, tmp_path, capsys):
    file = texts.folder / ("texts.txt" if "objective" in changes else "pairs.jsonl")
    options = texts.options(tmp_path, tokenizer_name=texts.task.tokenizer, train_file=file, **changes)
    assert said in refused(train, options, capsys)


def test_a_tokenizer_with_sentinels_is_trained_on_texts_alone(texts, tmp_path, capsys):
    for name, file in (("text", "texts.txt"), ("table", "texts.jsonl")):
        line = f"--train_file {texts.folder / file} --one_column --sentinels 3 --mask_token --vocab_size 300"
        tokenizer.main([*line.split(), "--source_column", "text", "--output_dir", str(tmp_path / name)])
        made = AutoTokenizer.from_pretrained(tmp_path / name)
        assert len(made) == 300 and made.mask_token == "<mask>"
        ids = made("a <extra_id_2> dog")["input_ids"]
        assert made.convert_tokens_to_ids("<extra_id_2>") in ids
        assert made.decode(ids, skip_special_tokens=True) == "a  dog"
    line = f"--train_file {texts.folder / 'texts.txt'} --one_column --separate --output_dir {tmp_path / 'x'}"
    assert "--separate does nothing with --one_column" in refused(tokenizer, line.split(), capsys)


def test_an_evaluation_of_texts_has_no_noise():
    source = train_tokenizer([SENTENCE] * 4, "bpe", 400)
    rows = Dataset.from_dict({"source": [SENTENCE] * 20})
    options = DataArguments(objective="copy", bpe_dropout=0.5)
    pairs = evaluated_objective(rows, options, PairTokenizer(source, source, 99, 99))
    assert pairs["input_ids"] == [source(SENTENCE)["input_ids"]] * 20


def test_a_language_is_not_left_out_as_a_word():
    tokenizer = train_tokenizer(["a b"], "symbol", added_tokens=["<2de>"])
    tokenize = PairTokenizer(tokenizer, tokenizer, 9, 9)
    for column in ("source", "<2{target_lang}> {source}", "news: {source}"):
        make_encoder(DataArguments(source_word_dropout=0.1, source_column=column), tokenize, print)
    options = DataArguments(source_word_dropout=0.1, source_column="to {target_lang}: {source}")
    with pytest.raises(ArgumentError, match="--source_word_dropout would leave out the language '{target_lang}:'"):
        make_encoder(options, tokenize, print)


def test_what_changes_nothing_is_said():
    tokenizer = train_tokenizer(["何 か 言 A a"], "char", sentinels=9)
    tokenize = PairTokenizer(tokenizer, tokenizer, 30, 30)

    def said(texts: list[str], **options) -> list[str]:
        lines: list[str] = []
        data_args = DataArguments(max_source_length=30, max_target_length=30, **options)
        rows = [{"source": text, "target": text} for text in texts]
        say_chance(data_args, rows, tokenize, make_encoder(data_args, tokenize, lines.append), lines.append)
        return [line for line in lines if "does nothing" in line or "one span" in line]

    noise = {"source_word_dropout": 0.1, "case_noise": 0.1}
    words, case = said(["何か言", "何か", "a A"], **noise)
    assert words == "--source_word_dropout does nothing to 2 of the first 3 sources, which have a single word"
    assert case == "--case_noise does nothing to 2 of the first 3 sources, which have no letters of two cases"
    assert said(["a A", "a A", "何か"], **noise) == []
    short = ["a" * 20, "a" * 29]
    assert said(short, objective="span_corruption") == [
        "--objective: 2 of 2 pairs have one span, which ends their text; random_roll: true has it anywhere"
    ]
    assert said(short, objective={"name": "span_corruption", "random_roll": True}) == []


def test_a_power_of_zero_is_sampling_and_no_dropout_is_none():
    assert DataArguments(unigram_sampling=0).endless == "--unigram_sampling"
    assert recorded_chance(DataArguments(unigram_sampling=0.0))["noise"] == {"unigram_sampling": 0.0}
    assert DataArguments(bpe_dropout=0, case_noise=0.0, source_word_dropout=0).endless is None
