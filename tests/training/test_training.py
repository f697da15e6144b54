# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Training by the command's own `main`: what it learns, writes, refuses."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import make_batch, make_model
from small_runs import SMALL, nightly, refused, weights
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    EvalPrediction,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from hf_xformer import XformerConfig
from hf_xformer.checkpoints.loading import load_config
from hf_xformer.commands import train
from hf_xformer.data.pairs import PairTokenizer
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError
from hf_xformer.hub.curves import plot_curves
from hf_xformer.training.evaluation import GenerationMetrics


def test_a_run_writes_everything_and_loads_back_through_the_auto_classes(task, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "plot_curves", plot_curves)
    out = tmp_path / "run"
    evaluation = {"validation_file": task.validation, "eval_strategy": "steps", "eval_steps": 3, "metrics": "per"}
    best = {"load_best_model_at_end": "true", "metric_for_best_model": "per"}
    saving = {"save_strategy": "steps", "save_steps": 3}
    train.main(task.options(out, **evaluation, **best, **saving))
    written = {
        "config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "train_results.json",
        "eval_results.json", "trainer_state.json", "README.md", "curves.png",
    }  # fmt: skip
    assert written <= set(os.listdir(out))
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG") and (out / "curves.png").stat().st_size > 5000
    results = json.loads((out / "eval_results.json").read_text())
    assert {"eval_loss", "eval_per"} <= set(results)
    state = json.loads((out / "trainer_state.json").read_text())
    assert state["best_metric"] == min(entry["eval_per"] for entry in state["log_history"] if "eval_per" in entry)
    card = (out / "README.md").read_text()
    assert f"{results['eval_per']:.4g}" in card and "curves.png" in card
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.max_length == 13
    model.generate(**tokenizer(["A B C"], return_tensors="pt"))


@pytest.mark.slow
def test_the_stock_trainer_learns_the_task(task, tmp_path):
    overrides = "d_model=64,encoder_ffn_dim=128,decoder_ffn_dim=128,dropout=0.0,initializer_range=0.1"
    more = {"max_steps": 140, "learning_rate": 5e-3, "per_device_train_batch_size": 32, "logging_steps": 70}
    more |= {"validation_file": task.train, "max_eval_samples": 40, "metrics": "exact_match"}
    train.main(task.options(tmp_path, config_overrides=overrides, **more))
    assert json.loads((tmp_path / "eval_results.json").read_text())["eval_exact_match"] > 90


def test_another_depth_keeps_the_type_of_layers_that_are_all_alike_and_asks_for_types_of_others(tmp_path, repository):
    long = load_config(str(repository / "configs/model/long.json"), {"encoder_layers": 2, "decoder_layers": 3})
    assert (long.encoder_layer_types, long.decoder_layer_types) == (
        ["chunked_attention"] * 2,
        ["sliding_attention"] * 3,
    )
    XformerConfig(encoder_layer_types=["full_attention"] * 5 + ["chunked_attention"]).save_pretrained(tmp_path)
    with pytest.raises(
        ArgumentError, match=r"encoder_layers=4: .* names the types of 6 layers; give encoder_layer_types"
    ):
        load_config(str(tmp_path), {"encoder_layers": 4})
    types = ["chunked_attention", "full_attention"]
    config = load_config(str(tmp_path), {"encoder_layers": 2, "encoder_layer_types": types})
    assert config.encoder_layer_types == types


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_file": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"source_column": "src"}, "train.jsonl:1: no field 'src': there are 'source', 'target'; "),
        ({"config_overrides": "d_modle=8"}, "no field d_modle; did you mean d_model?"),
        ({"config_overrides": "d_model=-8"}, "`d_model` must be positive, got -8"),
        ({"config_overrides": "dropout=5.0"}, "got 5.0"),
        ({"config_overrides": "num_global_tokens=-3"}, "`num_global_tokens` must not be negative, got -3"),
        ({"config_overrides": "vocab_size=5"}, "has 12 tokens, more than the model's `vocab_size` of 5"),
        ({"config_overrides": "position_embedding_type=learned,max_position_embeddings=10"}, "of 10"),
        ({"config_name": "no-such.json"}, "no-such.json"),
        ({"tokenizer_name": "/no/such/tokenizer"}, "/no/such/tokenizer"),
        ({"tokenizer_name": None}, "--tokenizer_name"),
        ({"metrics": "bleu"}, "'bleu'"),
        ({"overlong": "keep"}, "keep"),
        ({"learning_rate": "fast"}, "fast"),
        ({"no_such_option": "1"}, "--no_such_option"),
        ({"streaming": "true", "max_steps": "-1"}, "--max_steps"),
        ({"eval_strategy": "epoch"}, "--validation_file"),
        ({"model_name_or_path": "somewhere"}, "--model_name_or_path"),
        ({"resume_from_checkpoint": "nowhere"}, "nowhere"),
        ({"max_target_length": "1"}, "--max_target_length"),
        ({"max_train_samples": "-1"}, "--max_train_samples"),
        ({"max_steps": "-1", "num_train_epochs": "-1"}, "--num_train_epochs"),
        ({"per_device_train_batch_size": "0"}, "--per_device_train_batch_size"),
        ({"label_smoothing_factor": "3"}, "--label_smoothing_factor"),
        ({"learning_rate": "-1"}, "--learning_rate"),
        ({"report_to": "foo"}, "foo"),
        ({"attn_implementation": "flash_attention_2"}, "FlashAttention2"),
        ({"attn_implementation": "flex_attention"}, "sdpa can"),
        ({"config_overrides": "decoder_start_token_id=55"}, "got 55"),
        ({"train_sampling_strategy": "group_by_length"}, "--group_by_length"),
        ({"accelerator_config": '{"dispatch_batches": true}'}, "dispatch_batches"),
        ({"dataloader_persistent_workers": "true"}, "--dataloader_persistent_workers"),
        ({"metric_for_best_model": "bleu"}, "bleu"),
        ({"metrics": "per"}, "--validation_file"),
        ({"streaming": "true", "train_sampling_strategy": "sequential"}, "--train_sampling_strategy"),
        ({"max_tokens": "11"}, "--max_tokens 11 has no room for --max_source_length 12"),
        ({"packing": "true", "train_sampling_strategy": "sequential"}, "--train_sampling_strategy"),
        ({"packing": "true", "torch_compile": "true"}, "give --max_tokens"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_options_are_one_line_and_nothing_is_written(changes, said, task, tmp_path, capsys):
    out = tmp_path / "run"
    assert said in refused(train, task.options(out, **changes), capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ('{"source": "A", "target": "B"}\n{"source": "A"\n', "train.jsonl:2"),
        ('{"source": "A", "target": "B"}\n{"source": "A"}\n', "train.jsonl:2: no field 'target'"),
        ('{"source": "A A A A A A A A A A A A A A A", "target": "B"}\n', "no training pair is left"),
    ],
    ids=["empty", "not-json", "no-field", "all-too-long"],
)
def test_bad_data_is_one_line_with_its_place(text, said, task, tmp_path, capsys):
    data = tmp_path / "train.jsonl"
    data.write_text(text)
    assert said in refused(train, task.options(tmp_path / "run", train_file=data, overlong="drop"), capsys)


@pytest.mark.slow
def test_a_recipe_is_overridden_by_the_command_line_and_refuses_unknown_keys(task, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    words = task.options(tmp_path / "run")
    lines = [f"{name.removeprefix('--')}: {value}" for name, value in zip(words[::2], words[1::2], strict=True)]
    # `1e-4` is a string to YAML and a number to us.
    recipe.write_text("\n".join(lines).replace("learning_rate: 0.01", "learning_rate: 1e-4"))
    train.main([str(recipe), "--max_steps", "2"])
    state = json.loads((tmp_path / "run/trainer_state.json").read_text())
    assert state["global_step"] == 2
    assert state["log_history"][0]["learning_rate"] < 1e-4
    for wrong, said in {
        "overlong: keep": "recipe.yaml: overlong: 'keep' is none of its choices; there are truncate, drop",
        "seed: 2.5": "recipe.yaml: seed: expected integer, got 2.5",
        "learning_rat: 1": "unknown option 'learning_rat'",
        "max_steps: 7": "'max_steps' stands there twice",
        "source_column: [a, b]": "recipe.yaml: source_column: expected text, got ['a', 'b']",
    }.items():
        recipe.write_text("\n".join([*lines, wrong]))
        assert said in refused(train, [str(recipe)], capsys)


def test_an_unknown_field_in_a_configuration_file_is_refused(task, tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "xformer", "d_modle": 7}))
    assert "no field d_modle" in refused(train, task.options(tmp_path / "run", config_name=config), capsys)


@pytest.mark.slow
def test_another_runs_folder_is_refused_and_left_alone(task, tmp_path, capsys):
    train.main(task.options(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    line = refused(train, task.options(tmp_path, config_overrides="d_model=32"), capsys)
    assert "d_model=16" in line and "32" in line
    train_tokenizer(["A B C D E F G Z"], "symbol").save_pretrained(tmp_path / "other")
    options = task.options(tmp_path, tokenizer_name=tmp_path / "other")
    assert "another tokenizer" in refused(train, options, capsys)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.slow
def test_a_checkpoint_that_was_cut_off_is_passed_over(task, tmp_path, capsys):
    options = task.options(tmp_path, save_strategy="steps", save_steps=3)
    train.main(options)
    (tmp_path / "checkpoint-6/trainer_state.json").write_text('{"global_st')
    capsys.readouterr()
    train.main(options)
    said = capsys.readouterr().out
    assert "passing over" in said and f"resuming from {tmp_path / 'checkpoint-3'}" in said


@pytest.mark.slow
def test_starting_anew_moves_the_earlier_checkpoints_aside(task, tmp_path, capsys):
    options = task.options(tmp_path, save_strategy="steps", save_steps=3)
    train.main(options)
    train.main([*options, "--resume_from_checkpoint", "false"])
    assert sorted(path.name for path in (tmp_path / "previous-1").iterdir()) == ["checkpoint-3", "checkpoint-6"]
    assert (tmp_path / "checkpoint-6").is_dir()


@pytest.mark.slow
def test_training_goes_on_from_an_existing_model(task, tmp_path):
    train.main(task.options(tmp_path / "first"))
    existing = {"config_name": None, "config_overrides": None, "tokenizer_name": None}
    train.main(task.options(tmp_path / "second", model_name_or_path=tmp_path / "first", **existing))
    losses = [
        json.loads((tmp_path / run / "trainer_state.json").read_text())["log_history"][0]["loss"]
        for run in ("first", "second")
    ]
    assert losses[1] < losses[0]


def test_a_source_tokenizer_that_would_change_the_models_start_token_is_refused(task, tmp_path, capsys):
    source, target = tmp_path / "tokenizer", tmp_path / "tokenizer/target_tokenizer"
    tokenizer = train_tokenizer(["A B C D E F G H"], "symbol")
    tokenizer.bos_token = "C"
    tokenizer.save_pretrained(source)
    train_tokenizer(["H G F E D C B A Z"], "symbol").save_pretrained(target)
    said = refused(train, task.options(tmp_path / "run", tokenizer_name=source), capsys)
    assert "the source tokenizer" in said and "`bos_token_id`" in said


@pytest.mark.slow
@pytest.mark.parametrize(("overlong", "kept"), [("truncate", 160), ("drop", None)])
def test_overlong_rows_are_counted_aloud(overlong, kept, task, tmp_path, capsys):
    rows = [json.loads(line) for line in Path(task.train).read_text().splitlines()]
    overlong_rows = sum(len(row["source"].split()) + 1 > 6 for row in rows)
    train.main(task.options(tmp_path, max_source_length=6, max_target_length=6, overlong=overlong))
    verb = {"truncate": "truncated", "drop": "dropped"}[overlong]
    line = f"160 training pairs; {verb}: {overlong_rows} longer than 6 source or 6 target tokens"
    assert line in capsys.readouterr().out


def test_truncated_texts_keep_their_end_token(task):
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    rows = PairTokenizer(tokenizer, tokenizer, 4, 3)({"source": ["A B C D E"], "target": [["C D E", "E"]]})
    assert tokenizer.convert_ids_to_tokens(rows["input_ids"][0]) == ["A", "B", "C", "</s>"]
    assert tokenizer.convert_ids_to_tokens(rows["labels"][0]) == ["C", "D", "</s>"]
    assert rows["overlong"] == [True] and rows["length"] == [4]


def test_metrics_do_not_meet_minus_100_nor_count_repeated_rows(task):
    """Three rows padded with -100, and the first of them repeated to fill the last batch."""
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    answers = ["A", "D", "F E D", "A"]
    ids = [[2, *tokenizer(answer)["input_ids"]] for answer in answers]
    predictions = np.array([row + [-100] * (9 - len(row)) for row in ids])
    references = [["B A", "A"], ["C"], ["F E D"]]
    scores = GenerationMetrics(["exact_match", "sacrebleu"], tokenizer, references, np.arange(3))(
        EvalPrediction(predictions=predictions, label_ids=predictions)
    )
    assert scores["exact_match"] == pytest.approx(100 * 2 / 3)
    assert "sacrebleu_signature" not in scores


@pytest.mark.slow
def test_a_finished_run_that_is_started_again_trains_no_further(task, tmp_path, capsys):
    """It ends in the middle of an epoch, where the Trainer by itself would take one more step."""
    evaluation = {"validation_file": task.validation, "metrics": "per", "lr_scheduler_type": "constant"}
    for length in ({"max_steps": 6}, {"max_steps": -1, "num_train_epochs": 0.7}):
        out = tmp_path / str(length)
        options = task.options(out, save_strategy="steps", save_steps=3, **evaluation, **length)
        train.main(options)
        kept = [out / name for name in ("model.safetensors", "train_results.json")]
        before = [path.read_bytes() for path in kept]
        (out / "eval_results.json").unlink()
        train.main(options)
        assert [path.read_bytes() for path in kept] == before
        assert (out / "eval_results.json").exists()
        assert "is the end of this run" in capsys.readouterr().out


@pytest.mark.slow
def test_overrides_win_over_the_tokenizers_tokens(task, tmp_path):
    overrides = f"{SMALL},vocab_size=20,decoder_start_token_id=0,norm_eps=1e-5"
    overrides += ",rope_parameters={rope_theta: 5e3, rope_type: default}"
    train.main(task.options(tmp_path, config_overrides=overrides))
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["vocab_size"], config["decoder_start_token_id"], config["norm_eps"]) == (20, 0, 1e-5)
    assert config["rope_parameters"]["rope_theta"] == 5000


@pytest.mark.slow
def test_training_is_in_full_precision_from_a_half_precision_checkpoint(task, tmp_path):
    train.main(task.options(tmp_path / "first"))
    half = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "first", dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "first")
    existing = {"config_name": None, "config_overrides": None, "tokenizer_name": None}
    train.main(task.options(tmp_path / "second", model_name_or_path=tmp_path / "first", **existing))
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "second", dtype="auto").dtype == torch.float32


def test_one_step_does_not_depend_on_gradient_accumulation(tmp_path):
    """Rows of unequal lengths: a mean of means would weigh the tokens of short rows more."""
    batch = make_batch()
    rows = [{name: tensor[i % 3] for name, tensor in batch.items()} for i in range(12)]
    updates = {}
    for accumulation in (1, 4):
        model = make_model(dropout=0.0)
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        arguments = Seq2SeqTrainingArguments(
            output_dir=tmp_path, max_steps=1, per_device_train_batch_size=12 // accumulation, use_cpu=True,
            gradient_accumulation_steps=accumulation, optim="sgd", learning_rate=1.0, lr_scheduler_type="constant",
            max_grad_norm=0.0, save_strategy="no", report_to="none", disable_tqdm=True,
            train_sampling_strategy="sequential",
        )  # fmt: skip
        Seq2SeqTrainer(model, arguments, train_dataset=rows).train()
        updates[accumulation] = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before
    assert updates[1].norm() > 0.01
    assert abs(updates[4].norm() / updates[1].norm() - 1) < 0.01
    torch.testing.assert_close(updates[4], updates[1], atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_label_smoothing_trains_on_the_smoothed_loss(task, tmp_path):
    losses = []
    for smoothing in (0.0, 0.5):
        out = tmp_path / str(smoothing)
        train.main(task.options(out, max_steps=1, logging_steps=1, label_smoothing_factor=smoothing))
        losses.append(json.loads((out / "trainer_state.json").read_text())["log_history"][0]["loss"])
    # Of an untrained model all tokens are about equally likely: smoothing moves the loss a little, and not to zero.
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.2)


def first_loss(folder: Path) -> float:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"][0]["loss"]


@pytest.mark.slow
def test_a_step_on_packed_rows_is_one_on_padded_rows(task, tmp_path):
    """All rows at once, so that both have the same; several batches would be other ones."""
    whole = {"max_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 160}
    sgd = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    train.main(task.options(tmp_path / "padded", **whole, **sgd))
    train.main(task.options(tmp_path / "packed", packing="true", **whole, **sgd))
    assert first_loss(tmp_path / "packed") == pytest.approx(first_loss(tmp_path / "padded"), abs=1e-6)
    torch.testing.assert_close(weights(tmp_path / "packed"), weights(tmp_path / "padded"), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 40},
        {"packing": "true", "max_tokens": 40},
        {"packing": "true", "label_smoothing_factor": 0.1},
        {"packing": "true", "gradient_checkpointing": "true", "dataloader_num_workers": 1},
        {
            "packing": "true",
            "config_overrides": SMALL + ",encoder_layer_types=[chunked_attention],block_size=3,label_smoothing=0.1",
        },
        *nightly({"packing": "true"}, {"packing": "true", "bf16": "true"}),
    ],
    ids=lambda options: ",".join(options),
)
def test_epochs_of_planned_batches_evaluate_generate_and_end(options, task, tmp_path, capsys):
    evaluation = {"validation_file": task.validation, "eval_strategy": "epoch", "metrics": "per"}
    train.main(task.options(tmp_path, max_steps=-1, num_train_epochs=2, max_train_samples=80, **evaluation, **options))
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    (batches,) = re.findall(r"([\d,]+) batches, on average", capsys.readouterr().out)
    assert state["global_step"] == 2 * int(batches) and state["epoch"] == 2
    assert "eval_per" in json.loads((tmp_path / "eval_results.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert losses[-1] < losses[0]
    size = "at most 40 source and 40 target tokens" if "max_tokens" in options else "8 pairs"
    assert size in (tmp_path / "README.md").read_text()


@pytest.mark.slow
def test_a_packed_run_that_stopped_in_mid_epoch_goes_on_with_the_batches_of_an_unbroken_one(task, tmp_path):
    options = {"packing": "true", "max_steps": 45, "save_strategy": "steps", "save_steps": 9, "max_tokens": 64}
    train.main(task.options(tmp_path / "unbroken", **options))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    for step in (18, 27, 36, 45):
        shutil.rmtree(tmp_path / f"broken/checkpoint-{step}")
    epoch = json.loads((tmp_path / "broken/checkpoint-9/trainer_state.json").read_text())["epoch"]
    assert 0 < epoch < 1 < json.loads((tmp_path / "unbroken/trainer_state.json").read_text())["epoch"]
    train.main(task.options(tmp_path / "broken", **options))
    assert torch.equal(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"))


@pytest.mark.slow
def test_packed_rows_are_compiled_once(task, tmp_path):
    """By the Trainer's switch, over two epochs; "aot_eager" traces all and generates no code, which takes long."""
    torch.compiler.reset()
    options = {"packing": "true", "max_tokens": 40, "torch_compile": "true", "torch_compile_backend": "aot_eager"}
    with torch._dynamo.config.patch(error_on_recompile=True):
        train.main(task.options(tmp_path, max_steps=-1, num_train_epochs=2, **options))
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["log_history"][-2]["loss"] < state["log_history"][0]["loss"]
    torch.compiler.reset()


def test_another_kind_of_model_is_not_packed(task, tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    tokenizer.save_pretrained(tmp_path / "bart")
    sizes = {f"{stack}_{name}": 1 for stack in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
    config = BartConfig(vocab_size=len(tokenizer), d_model=8, **sizes, **special, forced_eos_token_id=None)
    BartForConditionalGeneration(config).save_pretrained(tmp_path / "bart")
    existing = {"config_name": None, "config_overrides": None, "tokenizer_name": None}
    options = task.options(tmp_path / "run", packing="true", model_name_or_path=tmp_path / "bart", **existing)
    assert "a model of type 'bart' would mix the pairs" in refused(train, options, capsys)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [({"bf16": "true"}, "eager"), ({"bf16": "true", "attn_implementation": "sdpa"}, "sdpa"), ({}, "sdpa")],
    ids=["bf16", "asked", "float32"],
)
def test_short_texts_in_bfloat16_on_a_cpu_get_eager_attention(options, chosen, task, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(train, "make_trainer", lambda run, *args: made.append(run.model) or exit(0))
    with pytest.raises(SystemExit):
        train.main(task.options(tmp_path, **options))
    assert made[0].config._attn_implementation == chosen


@pytest.mark.slow
def test_a_dataset_folder_and_tensorboard(task, tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text((task.folder / f"{split}.jsonl").read_text())
    out = tmp_path / "run"
    options = task.options(out, train_file=None, dataset_name=folder, eval_strategy="steps", eval_steps=3)
    train.main([*options, "--report_to", "tensorboard"])
    assert (out / "eval_results.json").exists()
    assert list(out.rglob("events.out.tfevents.*"))
