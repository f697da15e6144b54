# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`generate` and `evaluate` on a small checkpoint: order, scores, formats, refusals."""

import io
import json
import shutil

import pytest
import torch
from sacrebleu.metrics import CHRF
from safetensors.torch import load_file, save_file
from small_models import make_model
from transformers import AutoTokenizer

from hf_xformer.checkpoints.loading import load_model, load_tokenizers
from hf_xformer.commands import evaluate, generate
from hf_xformer.decoding.decoder import Decoder
from hf_xformer.decoding.hypotheses import Hypothesis
from hf_xformer.decoding.metrics import compute_metrics
from hf_xformer.files import AVERAGES


SOURCES = ["A B C", "D", "", "H G F E D C B A", "B B"]


@pytest.fixture(scope="module")
def checkpoint(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    model = make_model(vocab_size=len(tokenizer), position_embedding_type="sinusoidal", max_position_embeddings=12)
    model.generation_config.max_length = 11
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "input.txt"
    path.write_text("".join(f"{source}\n" for source in SOURCES))
    return path


def alone(checkpoint, source: str, **options):
    """One source by the stock `generate()` and no padding."""
    model, (tokenizer, _) = load_model(str(checkpoint)), load_tokenizers(str(checkpoint))
    output = model.generate(**tokenizer(source, return_tensors="pt"), **options)
    return model, tokenizer, output


@pytest.mark.slow
def test_lines_come_back_in_order_as_if_decoded_alone(checkpoint, lines, capsys):
    generate.main([str(checkpoint), "--input", str(lines), "--batch_size", "2"])
    printed = capsys.readouterr().out.split("\n")[:-1]
    for source, text in zip(SOURCES, printed, strict=True):
        _, tokenizer, output = alone(checkpoint, source)
        assert text == (tokenizer.decode(output[0], skip_special_tokens=True) if source else "")


def test_standard_input_and_an_output_file(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfA B C\r\nD\r\n")))
    generate.main([str(checkpoint), "--output", str(tmp_path / "out.jsonl"), "--format", "jsonl"])
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == ["A B C", "D"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb\r", "\x0ba\x0c\x1c\x1d\x1e", "\x85\u2028a\u2029", "a\tb\\nc", ""])
def test_a_line_gives_a_line_whatever_the_texts_hold(text, checkpoint, tmp_path, monkeypatch, capsys):
    path = tmp_path / "input.txt"
    path.write_bytes("A\nB\rC\r\n\u2028D\x85\n\x0cE".encode())
    monkeypatch.setattr(Decoder, "generate", lambda self, sources: [([Hypothesis(text)] * 2, False) for _ in sources])
    generate.main([str(checkpoint), "--input", str(path), "--num_beams", "2", "--n_best", "2"])
    printed, said = capsys.readouterr()
    assert printed.splitlines() == printed.split("\n")[:-1] and len(printed.splitlines()) == 4 * 2
    assert printed.splitlines()[0] == (text if text.isprintable() or "\t" in text else repr(text)[1:-1])
    is_broken = len(text.splitlines()) > 1
    escaped = repr(text)[1:-1]
    assert (
        f"line breaks in 8 texts are escaped: lines 1, 2, 3, 4; the first is '{escaped}': 'A'" in said
    ) == is_broken
    generate.main([str(checkpoint), "--input", str(path), "--format", "jsonl"])
    rows = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
    assert [row["source"] for row in rows] == ["A", "B\rC", "\u2028D\x85", "\x0cE"]
    assert {each["text"] for row in rows for each in row["hypotheses"]} == {text}


def test_overlong_sources_are_refused_by_their_line_before_any_is_decoded(checkpoint, tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text("A B\n" + "A " * 30 + "\n")
    with pytest.raises(SystemExit):
        generate.main([str(checkpoint), "--input", str(path), "--overlong", "error"])
    printed, said = capsys.readouterr()
    assert "1 source is longer than the 12 tokens that the model has positions for: line 2; the first has 31" in said
    assert printed == ""


@pytest.mark.slow
def test_overlong_sources_of_a_file_are_refused_before_earlier_lines_are_printed_and_a_stream_says_so(
    checkpoint, tmp_path, monkeypatch, capsys
):
    text = "A B\n" * 9 + "A " * 30 + "\n"
    path = tmp_path / "long.txt"
    path.write_text(text)
    monkeypatch.setattr("hf_xformer.decoding.decoder.LAST_WINDOW", 1)
    options = ["--overlong", "error", "--max_source_length", "8"]
    for words in (["--input", str(path)], []):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        with pytest.raises(SystemExit):
            generate.main([str(checkpoint), *options, *words])
        printed, said = capsys.readouterr()
        assert "1 source is longer than the 8 tokens asked for: line 10" in said
        assert printed.count("\n") == (0 if words else 9)
        assert ("standard input is read as it comes" in said) == (not words)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 3}], ids=["greedy", "beams"])
def test_scores_are_the_log_probabilities_up_to_the_end_token(options, checkpoint):
    sources = [source for source in SOURCES if source]
    model, (tokenizer, _) = load_model(str(checkpoint)), load_tokenizers(str(checkpoint))
    for source, hypotheses in zip(
        sources, Decoder(model, tokenizer, tokenizer, scores=True, **options).decode(sources), strict=True
    ):
        _, _, sequences = alone(checkpoint, source, **options)
        for hypothesis, sequence in zip(hypotheses, sequences, strict=True):
            end = (sequence == tokenizer.eos_token_id).nonzero()
            sequence = sequence[: end[0] + 1] if len(end) else sequence
            logits = model(**tokenizer(source, return_tensors="pt"), decoder_input_ids=sequence[None, :-1]).logits[0]
            expected = logits.log_softmax(-1).gather(-1, sequence[1:, None]).sum()
            assert hypothesis.score == pytest.approx(expected.item(), abs=1e-3)


def test_n_best_prints_so_many_lines_a_source_with_scores(checkpoint, lines, capsys):
    options = [str(checkpoint), "--input", str(lines), "--num_beams", "4", "--n_best", "2"]
    generate.main([*options, "--format", "jsonl"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["source"], len(row["hypotheses"])) for row in rows] == [(source, 2) for source in SOURCES]
    generate.main([*options, "--scores"])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 * len(SOURCES)
    assert all(float(line.split("\t")[0]) <= 0 for line in printed)


def test_the_beams_of_the_checkpoint_count_for_n_best(checkpoint, lines, tmp_path, capsys):
    folder = shutil.copytree(checkpoint, tmp_path / "beams")
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"num_beams": 4}))
    generate.main([str(folder), "--input", str(lines), "--n_best", "3"])
    assert len(capsys.readouterr().out.splitlines()) == 3 * len(SOURCES)


def test_the_lines_of_a_table_are_decoded_and_that_is_said(checkpoint, tmp_path, capsys):
    table = tmp_path / "rows.jsonl"
    table.write_text('{"source": "A"}\n')
    generate.main([str(checkpoint), "--input", str(table)])
    assert f"{table}: the lines of this .jsonl file were decoded as they stand" in capsys.readouterr().err


def test_sampling_is_repeatable_by_its_seed(checkpoint, lines, capsys):
    printed = []
    for seed in ("1", "1", "2"):
        generate.main([str(checkpoint), "--input", str(lines), "--do_sample", "--seed", seed])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


def test_sources_beyond_the_positions_are_cut_and_counted(checkpoint, tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text("A B\n" + "A " * 30 + "\n")
    generate.main([str(checkpoint), "--input", str(path)])
    said = capsys.readouterr().err
    assert (
        "cut to 12 tokens: 1 source is longer than the 12 tokens that the model has positions for: line 2; the first"
        in said
    )


def test_evaluation_equals_metrics_of_the_decoded_texts(task, checkpoint, tmp_path, capsys):
    out, predictions = tmp_path / "results.json", tmp_path / "predictions.jsonl"
    evaluate.main(
        [str(checkpoint), "--test_file", task.validation, "--metrics", "per", "wer", "sacrebleu"]
        + ["--output_file", str(out), "--predictions_file", str(predictions), "--show", "3"]
    )
    results = json.loads(out.read_text())
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    expected = compute_metrics(["per", "wer"], [r["prediction"] for r in rows], [r["references"] for r in rows])
    assert {name: results[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert results["samples"] == len(rows) == 21 and results["sacrebleu_signature"].startswith("nrefs:1")
    printed = capsys.readouterr().out
    assert all(row["source"] in printed for row in rows[::7])


@pytest.mark.parametrize(
    ("own", "words", "recorded"),
    [
        ({"length_penalty": 0.5, "early_stopping": True}, [], {}),
        ({"num_beams": 3, "length_penalty": 0.5}, [], {"num_beams": 3, "length_penalty": 0.5}),
        (
            {"num_beams": 3, "length_penalty": 0.5},
            ["--length_penalty", "1.0"],
            {"num_beams": 3, "length_penalty": 1.0},
        ),
        ({"no_repeat_ngram_size": 2}, ["--num_beams", "2"], {"no_repeat_ngram_size": 2, "num_beams": 2}),
    ],
)
def test_the_results_of_an_evaluation_have_the_checkpoints_own_search(
    own, words, recorded, checkpoint, task, tmp_path
):
    folder, out = tmp_path / "checkpoint", tmp_path / "results.json"
    shutil.copytree(checkpoint, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    evaluate.main(
        [str(folder), "--test_file", task.validation, "--metrics", "per", "--max_samples", "2", *words]
        + ["--output_file", str(out)]
    )
    assert json.loads(out.read_text())["decoding"] == recorded


@pytest.mark.parametrize("name", ["run", "run/checkpoint-5"])
def test_a_test_set_that_the_run_has_seen_is_said(name, checkpoint, task, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    shutil.copytree(checkpoint, folder)
    for file in ("train", "validation", "test"):
        shutil.copy(task.validation, f"{file}.jsonl")
    record = {"trained_on": "more.jsonl, train.jsonl", "evaluated_on": "validation.jsonl", "evaluated_sets": {}}
    mixed = {"trained_on": "a (more.jsonl), 9 tokens; b (train.jsonl), 9 tokens"}
    if name == "run":  # a record of a mixture lists its files and folders
        record |= mixed | {"train_files": ["more.jsonl", "train.jsonl", "words"]}
        shutil.copytree(tmp_path, tmp_path / "words", ignore=lambda *_: ["run", "words"])
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    seen_in = {"train": "trained on", "validation": "may have been chosen by", "test": None}
    for name, seen in (
        seen_in | ({"words/test": "trained on words/test.jsonl"} if "train_files" in record else {})
    ).items():
        evaluate.main([str(folder), "--test_file", f"{name}.jsonl", "--metrics", "per", "--max_samples", "2"])
        lines = [line for line in capsys.readouterr().err.splitlines() if "no test of unseen texts" in line]
        assert len(lines) == (seen is not None) and all(seen in line for line in lines)
        assert all(f"{name}.jsonl" in line for line in lines)


def test_averages_beside_the_weights_of_a_step_are_said_and_not_decoded_with(checkpoint, lines, tmp_path, capsys):
    folder = tmp_path / "checkpoint-5"
    shutil.copytree(checkpoint, folder)
    printed = {}
    for name in ("without", "with"):
        generate.main([str(folder), "--input", str(lines)])
        printed[name], said = capsys.readouterr()
        assert ("its weights are those of the step, not the averages" in said) == (name == "with")
        averages = {key: torch.zeros_like(each) for key, each in load_file(folder / "model.safetensors").items()}
        save_file(averages, folder / AVERAGES)
    assert printed["with"] == printed["without"]


def test_the_results_of_an_evaluation_have_the_bad_rows_that_it_left_out(checkpoint, tmp_path, capsys):
    data, whole, out = tmp_path / "test.jsonl", tmp_path / "whole.jsonl", tmp_path / "results.json"
    good = ['{"source": "A B", "target": "B A"}', '{"source": "C", "target": ["C", "D"]}']
    whole.write_text("\n".join(good))
    bad = ['{"source": "", "target": "A"}', '{"source": "A"}', '{"source": " "}']
    data.write_text("\n".join([good[0], *bad, good[1]]))
    words = ["--metrics", "per", "--output_file", str(out), "--on_bad_row", "skip", "--test_file"]
    results = []
    for file in (data, whole):
        evaluate.main([str(checkpoint), *words, str(file)])
        results.append(json.loads(out.read_text()))
    assert results[0].pop("bad_rows_left_out") == {"empty source": 2, "no field 'target'": 1}
    said = f"left out 3 bad rows of 5 (--on_bad_row skip): 2 empty source, 1 no field 'target'; the first: {data}:2: "
    assert said in capsys.readouterr().err
    for each in results:
        del each["decoding_seconds"], each["date"]
    assert {**results[0], "test_file": None} == {**results[1], "test_file": None} and results[0]["samples"] == 2


def test_predictions_are_kept_if_a_metric_fails_and_compare_with_their_checkpoint(
    task, checkpoint, tmp_path, monkeypatch, capsys
):
    predictions, out = tmp_path / "predictions.jsonl", tmp_path / "results.json"
    words = ["--test_file", task.validation, "--metrics", "per"]
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(evaluate, "compute_metrics", lambda *args: exec("raise RuntimeError"))
        evaluate.main([str(checkpoint), *words, "--predictions_file", str(predictions)])
    evaluate.main([str(checkpoint), str(predictions), *words, "--output_file", str(out)])
    (_, same) = json.loads(out.read_text())["significance"]["per"]
    assert (same["difference"], same["p_value"]) == (0, 1)


def test_a_line_of_another_file_tells_each_text_what_it_begins_with_and_holds(checkpoint, lines, tmp_path, capsys):
    prefixes, words = tmp_path / "prefixes.txt", tmp_path / "words.txt"
    prefixes.write_text("H G\n\nA\nB\nC\n")
    words.write_text("E\tD D\n\n\nC\n\n")
    generate.main([str(checkpoint), "--input", str(lines), "--num_beams", "6"])
    plain = capsys.readouterr().out.split("\n")
    told = ["--prefix", str(prefixes), "--force_words", str(words), "--num_beams", "6"]
    generate.main([str(checkpoint), "--input", str(lines), *told])
    printed = capsys.readouterr().out.split("\n")
    assert printed[0].startswith("H G") and "D D" in printed[0] and "E" in printed[0]
    assert printed[1:3] == plain[1:3]  # neither is told anything: the third source is empty
    assert printed[3].startswith("B") and "C" in printed[3] and printed[4].startswith("C")
    prefixes.write_text("H G\n")
    with pytest.raises(SystemExit):
        generate.main([str(checkpoint), "--input", str(lines), *told])
    assert f"--prefix {prefixes} has 1 lines, and --input {lines} 5" in capsys.readouterr().err


def test_candidates_are_printed_with_their_utilities_the_highest_first(checkpoint, lines, capsys):
    options = ["--do_sample", "--top_k", "0", "--num_return_sequences", "8", "--mbr", "--n_best", "8"]
    generate.main([str(checkpoint), "--input", str(lines), *options, "--format", "jsonl"])
    rows = [json.loads(line)["hypotheses"] for line in capsys.readouterr().out.splitlines()]
    assert all(len(row) == 8 and all(each.keys() == {"text", "utility"} for each in row) for row in rows)
    for row in rows:
        utilities = [each["utility"] for each in row]
        wanted = [sum(CHRF().sentence_score(a["text"], [b["text"]]).score for b in row) / 8 for a in row]
        assert utilities == pytest.approx(wanted, abs=1e-6) and utilities == sorted(utilities, reverse=True)
    generate.main([str(checkpoint), "--input", str(lines), "--num_beams", "4", "--mbr", "exact_match"])
    assert len(capsys.readouterr().out.splitlines()) == len(SOURCES)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/no/such/checkpoint"], "/no/such/checkpoint"),
        (["{checkpoint}", "--input", "/no/such/file"], "/no/such/file"),
        (["{checkpoint}", "--n_best", "3"], "num_beams"),
        (
            ["{checkpoint}", "--num_beams", "2", "--length_penalty", "1000"],
            "above -50 and at most 50",
        ),
        (["{checkpoint}", "--batch_size", "0"], "--batch_size"),
        (["{checkpoint}", "--num_beam", "3"], "--num_beam"),
        (["{checkpoint}", "--dtype", "float3"], "float3"),
        (["{checkpoint}", "--top_k", "3"], "--do_sample"),
        (["{checkpoint}", "--device", "warp"], "warp"),
        (["{checkpoint}", "--do_sample", "--temperature", "0"], "--temperature: must be a number above 0, got 0"),
        (["{checkpoint}", "--do_sample", "--top_p", "3"], "--top_p: must be a number above 0 and at most 1, got 3"),
        (["{checkpoint}", "--do_sample", "--top_k", "-1"], "--top_k: must be 0 or more, got -1"),
        (["{checkpoint}", "--max_new_tokens", "-4"], "--max_new_tokens: must be 1 or more, got -4"),
    ],
)
def test_bad_options_are_one_line(argv, said, checkpoint, capsys):
    with pytest.raises(SystemExit) as stop:
        generate.main([word.format(checkpoint=checkpoint) for word in argv])
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and said in line and captured.out == ""


def test_an_error_leaves_an_earlier_output_alone(checkpoint, tmp_path, capsys):
    output = tmp_path / "out.txt"
    output.write_text("precious")
    with pytest.raises(SystemExit):
        generate.main([str(checkpoint), "--input", "/no/such/file", "--output", str(output)])
    assert output.read_text() == "precious"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("bug")])
def test_what_was_decoded_before_an_error_is_kept_and_said(error, checkpoint, lines, tmp_path, monkeypatch, capsys):
    decode, output = Decoder.decode, tmp_path / "out.txt"

    def stopped(self, sources, **options):
        decoded = decode(self, sources, **options)
        yield from (next(decoded) for _ in range(3))
        raise error

    generate.main([str(checkpoint), "--input", str(lines), "--output", str(output)])
    whole = output.read_text().splitlines()
    assert len(whole) == len(SOURCES)
    output.write_text("precious")
    monkeypatch.setattr(Decoder, "decode", stopped)
    with pytest.raises(SystemExit if isinstance(error, KeyboardInterrupt) else RuntimeError):
        generate.main([str(checkpoint), "--input", str(lines), "--output", str(output)])
    assert output.read_text() == "precious"
    assert (tmp_path / "out.txt.partial").read_text().splitlines() == whole[:3]
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "partial" in line]
    assert said == f"{output} is not finished: {output}.partial holds what was written"


def test_what_was_kept_is_no_input_for_the_same_output(checkpoint, lines, capsys):
    kept = lines.rename(lines.with_name("out.txt.partial"))
    before = kept.read_text()
    with pytest.raises(SystemExit):
        generate.main([str(checkpoint), "--input", str(kept), "--output", str(kept.with_suffix(""))])
    assert "would overwrite the input" in capsys.readouterr().err and kept.read_text() == before


def test_a_missing_weight_is_refused_by_its_name(checkpoint, tmp_path, capsys):
    for path in checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.encoder.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SystemExit):
        generate.main([str(tmp_path)])
    assert "1 missing keys, such as model.encoder.norm.weight" in capsys.readouterr().err


def test_input_that_is_not_utf_8_is_refused(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    with pytest.raises(SystemExit):
        generate.main([str(checkpoint)])
    assert "error: standard input" in capsys.readouterr().err


def test_a_tokenizer_larger_than_the_model_is_refused(checkpoint, tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_tokens(["Y", "Z"])
    load_model(str(checkpoint)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SystemExit):
        generate.main([str(tmp_path)])
    assert "has 14 tokens, more than the model's `vocab_size` of 12" in capsys.readouterr().err


def test_the_decoder_holds_a_window_and_not_the_whole_input(checkpoint):
    """An endless input must give its first results."""

    def endless():
        while True:
            yield "A B"

    model, (source, target) = load_model(str(checkpoint)), load_tokenizers(str(checkpoint))
    decoder = Decoder(model, source, target, batch_size=2)
    decoder.batches_ahead = 3
    results = decoder.decode(endless())
    assert next(results) == next(results)
    assert torch.is_grad_enabled()
