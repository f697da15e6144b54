# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Results of `evaluate`, and the card that shows them, tell how the texts came about and of which model they are."""

import json
import shutil
from pathlib import Path

import pytest
from small_models import make_model
from small_runs import refused
from transformers import AutoTokenizer

from hf_xformer.commands import evaluate
from hf_xformer.hub.card import how_decoded


UNLIKE = {"per", "per_signature", "date", "decoding_seconds"}  # in two runs of one command


@pytest.fixture(scope="module")
def checkpoint(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    model = make_model(vocab_size=len(tokenizer))
    model.generation_config.update(max_length=9, min_length=3, suppress_tokens=[4])
    for saved in (model, tokenizer):
        saved.save_pretrained(folder)
    return folder


@pytest.fixture
def test_file(task, tmp_path):
    rows = [json.loads(line) for line in Path(task.validation).read_text().splitlines()[:5]]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row | {"copy": row["target"]}) + "\n" for row in rows))
    return path


def results(checkpoint, test_file, *words) -> dict:
    out = test_file.with_name("results.json")
    command = [str(checkpoint), "--test_file", str(test_file), "--metrics", "per", "--output_file", str(out)]
    evaluate.main([*command, *map(str, words)])
    return json.loads(out.read_text())


SAMPLED = ("--do_sample", "--top_k", 0)


@pytest.mark.parametrize(
    "words",
    [
        ("--num_beams", 2),
        SAMPLED,
        (*SAMPLED, "--seed", 1),
        (*SAMPLED, "--seed", 1, "--batch_size", 3),
        ("--dtype", "bfloat16"),
        ("--target_column", "copy"),
        ("--max_source_length", 3),
        ("--quantization", "int8"),
        ("--max_samples", 3),
        ("--unicode_form", "none"),
    ],
)
def test_results_of_other_options_are_told_apart(words, checkpoint, test_file):
    plain, found, again = (results(checkpoint, test_file, *each) for each in ((), words, words))
    plain, found, again = ({name: each[name] for name in each if name not in UNLIKE} for each in (plain, found, again))
    assert found == again != plain
    if "--seed" in words:
        seeds = words.index("--seed")
        less = results(checkpoint, test_file, *words[:seeds], *(("--seed", 1) if "--batch_size" in words else ()))
        assert less["decoding"] != found["decoding"]


def test_the_checkpoints_own_way_to_decode_is_in_the_results(checkpoint, test_file, tmp_path):
    assert results(checkpoint, test_file)["decoding"] == {"min_length": 3, "suppress_tokens": [4]}
    folder = shutil.copytree(checkpoint, tmp_path / "sampling")
    path = folder / "generation_config.json"
    own = {"do_sample": True, "temperature": 0.3, "top_k": 3, "min_length": None, "suppress_tokens": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    given = {"do_sample": True, "temperature": 0.3, "top_k": 3, "seed": 0}
    assert results(folder, test_file)["decoding"] == given


def test_texts_without_an_end_are_counted_whoever_gave_the_length(checkpoint, test_file, capsys):
    found = results(checkpoint, test_file)
    assert found["texts_cut_off"] == 5 and found["longest_text"] == 8  # a random model ends no text
    assert "cut off at the generation config's greatest length" in capsys.readouterr().err
    found = results(checkpoint, test_file, "--max_new_tokens", 4)
    assert found["texts_cut_off"] == 5 and found["longest_text"] == 4
    allowed = test_file.with_name("allowed.txt")
    allowed.write_text("C D C D\nD C D C\n")  # of which each ends
    assert results(checkpoint, test_file, "--allowed", allowed)["texts_cut_off"] == 0


def test_a_card_gets_no_scores_of_another_model(checkpoint, test_file, tmp_path, capsys):
    own, other = (shutil.copytree(checkpoint, tmp_path / name) for name in ("own", "other"))
    words = ["--test_file", test_file, "--metrics", "per", "--output_file", own / "test_results.json"]
    evaluate.main([str(other), *map(str, words)])  # a folder without a card
    (own / "run.json").write_text("{}")
    for systems, of in (([other], str(other)), ([own, other], "several systems")):
        line = refused(evaluate, [*systems, *words], capsys)
        assert f"the card of {own} shows these scores as its own, and they are of {of}" in line
    evaluate.main([str(own), *map(str, words)])
    assert json.loads((own / "test_results.json").read_text())["checkpoint"] == "own"


def test_a_card_says_what_was_decoded_and_how(checkpoint, test_file, tmp_path):
    predictions = tmp_path / "texts.jsonl"
    more = ("--num_beams", 2, "--quantization", "int8", "--max_source_length", 3, "--predictions_file", predictions)
    said = how_decoded(results(checkpoint, test_file, *more))
    assert said.startswith("The test set was decoded with num_beams 2, min_length 3, ")
    assert ", with weights in int8; " in said and said.endswith(" of 5 texts ended without an end token.")
    assert " of 5 sources were cut; " in said
    evaluate.main([str(predictions), "--metrics", "per", "--output_file", str(tmp_path / "scored.json")])
    scored = json.loads((tmp_path / "scored.json").read_text())
    assert how_decoded(scored) == "The texts were read from texts.jsonl: how they were decoded is not on record."


def test_groups_that_are_split_otherwise_have_a_signature_of_their_own(checkpoint, tmp_path):
    test_file = tmp_path / "test.jsonl"
    rows = [("A B", "der Hund läuft", "de")] * 3 + [("C D", "狗在跑步", "zh")]
    rows = [dict(zip(("source", "target", "lang"), row, strict=True)) for row in rows]
    test_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = results(checkpoint, test_file, "--by", "lang", "--metrics", "sacrebleu", "ter", "chrf")
    said = {"sacrebleu": {"de": "tok:13a", "zh": "tok:zh"}, "ter": {"de": "asian:no", "zh": "asian:yes"}}
    for metric, of_groups in said.items():
        for group, part in of_groups.items():
            assert part in found.get(f"{metric}_{group}_signature", found[f"{metric}_signature"])
    assert not {"sacrebleu_de_signature", "chrf_zh_signature"} & found.keys()
