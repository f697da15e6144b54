# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The data of pretraining, from small Python files, and its two recipes on them, the second from the first's model."""

import json
from pathlib import Path

import pytest
import torch
from small_runs import load_script, weights

from hf_xformer.commands import tokenizer, train


NOUNS = ("file", "folder", "server", "Unicode string", "list of names", "process", "thread", "matrix")
VERBS = ("Return", "Open", "Close", "Delete", "Rename", "Copy", "Print", "Compare")
MODULE = '''"""Short. Utilities for files (and folders) of every kind, on all systems."""
class Writer:
    """Write 3 rows to a file at once.

    Can a row be written twice? Yes, it can be written twice.
    """
    def close(self):
        """close the file and return nothing at all."""
        return "Not a documentation string, and left out."
'''


@pytest.fixture(scope="module")
def prepare():
    return load_script("prepare_docstrings")


def write_modules(folder: Path) -> None:
    (folder / "site-packages").mkdir(parents=True)
    (folder / "module.py").write_text(MODULE)
    (folder / "site-packages" / "other.py").write_text('"""Nothing of this file is to be read."""')
    (folder / "broken.py").write_text('def f(:\n"""Nothing of this one can be read."""')
    functions = [
        f'def f{number}():\n    """{verb} the {noun}, or the {other}, if it is there."""\n'
        for number, (verb, noun, other) in enumerate((v, n, o) for v in VERBS for n in NOUNS for o in NOUNS)
    ]
    (folder / "functions.py").write_text("".join(functions))


def test_sentences_are_those_of_documentation_strings_each_once(prepare, tmp_path):
    write_modules(tmp_path)
    found = prepare.sentences_of([tmp_path, tmp_path])
    assert len(found) == len(set(found)) == 8 * 8 * 8 + 3
    expected = {
        "Utilities for files (and folders) of every kind, on all systems.",
        "Can a row be written twice?",
        "Yes, it can be written twice.",
    }
    assert {each for each in found if "if it is there" not in each} == expected


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("Return None, or the server's name.", "return none or the server's name"),
        ("Utilities (for files): a-b, 'c'?", "utilities for files a-b c"),
    ],
)
def test_a_source_is_its_target_without_case_and_punctuation(prepare, sentence, source):
    assert prepare.spoilt(sentence) == source


@pytest.mark.slow
def test_both_recipes_run_and_no_sentence_is_in_two_files(prepare, tmp_path, monkeypatch, capsys):
    write_modules(tmp_path / "modules")
    monkeypatch.setattr(prepare, "SHARES", {"validation": range(50), "test": range(50, 100), "train": range(100, 300)})
    data = tmp_path / "data/docstrings"
    words = ["--output_dir", str(data), "--source", str(tmp_path / "modules")]
    prepare.main(words)
    texts = (data / "text.txt").read_text().splitlines()
    targets = [
        json.loads(line)["target"]
        for split in ("train", "validation", "test")
        for line in (data / f"{split}.jsonl").read_text().splitlines()
    ]
    assert len(texts) + len(targets) == len({*texts, *targets}) == 8 * 8 * 8 + 3
    prepare.main(words)
    assert "already holds" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        prepare.main(words[:2])
    assert "would be made without options" in capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    words = f"--train_file {data / 'text.txt'} --one_column --vocab_size 400 --mask_token"
    tokenizer.main([*words.split(), "--output_dir", str(data / "tokenizer")])
    small = ["--use_cpu", "true", "--disable_tqdm", "true", "--max_steps", "3", "--warmup_steps", "1"]
    train.main(["configs/train/pretrain.yaml", *small, "--max_tokens", "256"])
    pretrained = weights(tmp_path / "runs/pretrain")
    train.main(["configs/train/finetune.yaml", *small, "--max_eval_samples", "8", "--learning_rate", "1e-6"])
    finetuned = weights(tmp_path / "runs/finetune")
    # It has gone on from there: a small step away.
    assert 0 < (pretrained - finetuned).abs().max() < 1e-4
    assert torch.isfinite(finetuned).all()
    assert {"eval_cer", "eval_exact_match"} <= json.loads(
        (tmp_path / "runs/finetune/eval_results.json").read_text()
    ).keys()
