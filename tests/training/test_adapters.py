# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA by a recipe's option: what is trained and written, resumed, loaded, merged, refused."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_adapters import (
    EVALUATION,
    EXISTING,
    SAVING,
    WEIGHTS,
    adapter_options,
    adapter_weights,
    files,
    logits,
    train_adapter,
    train_and_keep,
    train_base,
)
from small_runs import launch, nightly, output_of, refused, run
from small_stock_models import make_stock
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_xformer.checkpoints.loading import load_model
from hf_xformer.commands import average, evaluate, merge, train
from hf_xformer.files import AVERAGES
from hf_xformer.training import option_checks
from hf_xformer.training.launch import OPTIMIZER_SHARDED, TENSOR_PARALLEL, WHOLE


@pytest.fixture(scope="module")
def base(task, tmp_path_factory) -> Path:
    return train_base(task, tmp_path_factory.mktemp("base") / "run")


@pytest.fixture
def options(task, base):
    return partial(adapter_options, task, base)


@pytest.fixture(scope="module")
def adapter(task, base, tmp_path_factory) -> Path:
    return train_adapter(task, base, tmp_path_factory.mktemp("adapter") / "run")


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_a_run_trains_adapters_alone_and_writes_them_with_all_that_they_need(options, base, tmp_path, capsys):
    before = files(base)
    train.main(options(tmp_path / "run", **EVALUATION, **SAVING))
    # Queries and values of three attentions, by two factors each, between 16 features and 4.
    assert "LoRA of rank 4 trains 768 of 6,448 parameters (12 %)" in capsys.readouterr().out
    written = {
        "adapter_config.json", WEIGHTS, "generation_config.json", "tokenizer.json", "train_results.json",
        "eval_results.json", "trainer_state.json", "README.md", "curves.png",
    }  # fmt: skip
    assert written <= set(os.listdir(tmp_path / "run"))
    for folder in (tmp_path / "run", tmp_path / "run/checkpoint-6"):
        assert {WEIGHTS, "adapter_config.json", "generation_config.json", "tokenizer.json"} <= set(os.listdir(folder))
        assert not {"config.json", "model.safetensors"} & set(os.listdir(folder))
        assert sum(each.numel() for each in adapter_weights(folder).values()) == 768
    assert_equal(adapter_weights(tmp_path / "run"), adapter_weights(tmp_path / "run/checkpoint-6"))
    assert files(base) == before
    text = (tmp_path / "run/README.md").read_text()  # ours, not PEFT's
    assert f"(LoRA) of 768 of them to\n{base.name}, which it needs" in text and "[to fill in: limits]" in text


@pytest.mark.slow
def test_adapters_and_their_base_may_be_moved(options, task, base, adapter, tmp_path, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(base, old / "base")
    shutil.copytree(adapter, old / "run")
    for path in (old / "run").rglob("adapter_config.json"):
        path.write_text(path.read_text().replace(str(base), str(old / "base")))
    old.rename(new)
    evaluation = [new / "run", "--test_file", task.validation, "--metrics", "per", "--max_samples", "1"]
    assert f"{old}/base: there is no such file or folder" in refused(evaluate, evaluation, capsys)
    more = {"max_steps": 33, "change_recipe": True, "model_name_or_path": new / "base", **SAVING}
    train.main(options(new / "run", **more))
    said = capsys.readouterr().out
    assert f"{old}/base, which is no more; {new}/base is taken" in said and "resuming from" in said
    evaluate.main(list(map(str, evaluation)))
    assert not old.exists()


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.slow
def test_adapters_learn_another_task(task, tmp_path):
    """From spelling words backwards to spelling them with the next letter for each."""
    overrides = "d_model=64,encoder_ffn_dim=128,decoder_ffn_dim=128,dropout=0.0,initializer_range=0.1"
    more = {"max_steps": 140, "learning_rate": 5e-3, "per_device_train_batch_size": 32, "metrics": "exact_match"}
    train.main(
        task.options(
            tmp_path / "base", config_overrides=overrides, validation_file=task.train, max_eval_samples=40, **more
        )
    )
    rows = [json.loads(line) for line in Path(task.train).read_text().splitlines()]
    turned = tmp_path / "turned.jsonl"
    letters = str.maketrans("ABCDEFGH", "BCDEFGHA")
    turned.write_text("".join(json.dumps({**row, "target": row["target"].translate(letters)}) + "\n" for row in rows))
    lora = {"model_name_or_path": tmp_path / "base", "lora_rank": 8, "lora_target_modules": "all-linear", **EXISTING}
    lora |= {"train_file": turned, "validation_file": turned, "max_eval_samples": 40}
    train.main(task.options(tmp_path / "lora", **{**more, **lora}))
    before = tmp_path / "before.json"
    metrics = ["--metrics", "exact_match", "--output_file", str(before)]
    evaluate.main([str(tmp_path / "base"), "--test_file", str(turned), *metrics])
    assert json.loads(before.read_text())["exact_match"] < 10
    assert json.loads((tmp_path / "lora/eval_results.json").read_text())["eval_exact_match"] > 90


@pytest.mark.slow
def test_how_a_run_decodes_is_kept_beside_its_adapters(options, base, tmp_path):
    train.main(options(tmp_path, max_target_length=10, **SAVING))
    assert load_model(str(base)).generation_config.max_length == 13
    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        assert load_model(str(folder)).generation_config.max_length == 11


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BART", "T5", "Pegasus"])
def test_adapters_of_a_stock_model_get_the_layers_that_peft_has_for_it(name, task, tmp_path, capsys):
    AutoTokenizer.from_pretrained(task.tokenizer).save_pretrained(tmp_path / "stock")
    stock = make_stock(name)
    stock.save_pretrained(tmp_path / "stock")
    options = task.options(tmp_path / "run", model_name_or_path=tmp_path / "stock", lora_rank=2, **EXISTING)
    if name == "Pegasus":
        said = refused(train, options, capsys)
        assert "PEFT knows no layers for a model of type 'pegasus': give --lora_target_modules" in said
        options += ["--lora_target_modules", "q_proj", "v_proj"]
    train.main(options)
    merge.main([str(tmp_path / "run"), str(tmp_path / "merged")])
    apart, merged = (logits(load_model(str(tmp_path / name))) for name in ("run", "merged"))
    assert_close(merged, apart, atol=1e-5, rtol=1e-5)
    assert (apart - logits(stock)).abs().max() > 1e-3


@pytest.mark.slow
def test_a_half_precision_model_is_trained_and_merged_in_full_precision(options, base, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path / "half")
    AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    trained = train_and_keep(monkeypatch, options(tmp_path / "run", model_name_or_path=tmp_path / "half"))
    assert {each.dtype for each in trained.parameters()} == {torch.float32}
    merge.main([str(tmp_path / "run"), str(tmp_path / "merged")])
    assert_close(logits(load_model(str(tmp_path / "merged"), dtype="auto")), logits(trained), atol=1e-5, rtol=1e-5)
    merge.main([str(tmp_path / "run"), str(tmp_path / "short"), "--dtype", "bfloat16"])
    assert load_model(str(tmp_path / "short"), dtype="auto").dtype == torch.bfloat16


RESUMED = {
    "dropout": {"lora_dropout": 0.3},
    "packed": {"packing": "true", "max_tokens": 40},
    "averages": {"ema_decay": 0.9},
    "bf16": {"bf16": "true"},
    "best": {"load_best_model_at_end": "true", "metric_for_best_model": "per", "greater_is_better": "false"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(options, id=name, marks=pytest.mark.nightly if name == "bf16" else [])
        for name, options in RESUMED.items()
    ],
)
def test_a_stopped_run_ends_with_the_adapters_of_an_unbroken_one(more, options, tmp_path, capsys):
    more = {"max_steps": 9, **EVALUATION, **SAVING, **more}
    train.main(options(tmp_path / "unbroken", **more))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    for step in (6, 9):
        shutil.rmtree(tmp_path / f"broken/checkpoint-{step}")
    (tmp_path / "broken" / WEIGHTS).unlink()
    state = tmp_path / "broken/checkpoint-3/trainer_state.json"  # whose paths are those of the other folder
    state.write_text(state.read_text().replace("unbroken", "broken"))
    capsys.readouterr()
    train.main(options(tmp_path / "broken", **more))
    assert f"resuming from {tmp_path}/broken/checkpoint-3" in capsys.readouterr().out
    assert_equal(adapter_weights(tmp_path / "broken"), adapter_weights(tmp_path / "unbroken"))
    one, two = ((tmp_path / name / "eval_results.json").read_text() for name in ("broken", "unbroken"))
    assert json.loads(one)["eval_loss"] == json.loads(two)["eval_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.5}, RESUMED["best"]], ids=["plain", "averages", "best"])
def test_a_finished_run_that_is_started_again_only_evaluates(more, options, tmp_path, capsys):
    more = {**EVALUATION, **SAVING, "learning_rate": 0.1, "config_overrides": "label_smoothing=0.2", **more}
    train.main(options(tmp_path, **more))
    before, results = adapter_weights(tmp_path), json.loads((tmp_path / "eval_results.json").read_text())
    for name in (WEIGHTS, "eval_results.json"):
        (tmp_path / name).unlink()
    train.main(options(tmp_path, **more))
    assert "is the end of this run; evaluating it again" in capsys.readouterr().out
    assert_equal(adapter_weights(tmp_path), before)
    again = json.loads((tmp_path / "eval_results.json").read_text())
    assert (again["eval_loss"], again["eval_per"]) == (results["eval_loss"], results["eval_per"])
    load_model(str(tmp_path))


@pytest.mark.slow
def test_the_best_checkpoints_adapters_are_what_a_run_ends_with(options, tmp_path):
    # Nothing is ever right, and the first checkpoint as good as any.
    more = {"load_best_model_at_end": "true", "metric_for_best_model": "exact_match", "metrics": "exact_match"}
    train.main(options(tmp_path, **{**EVALUATION, **SAVING, "max_steps": 9, **more}))
    best = Path(json.loads((tmp_path / "trainer_state.json").read_text())["best_model_checkpoint"])
    assert best.name != "checkpoint-9"
    assert_equal(adapter_weights(tmp_path), adapter_weights(best))


@pytest.mark.slow
def test_averages_are_of_the_adapters_after_every_step(options, tmp_path):
    train.main(options(tmp_path / "plain", save_strategy="steps", save_steps=1))
    train.main(options(tmp_path / "averaged", ema_decay=0.5, **SAVING))
    train.main(options(tmp_path / "start", max_steps=1, learning_rate=0.0))
    expected = adapter_weights(tmp_path / "start")
    for step in range(1, 7):
        decay = min(0.5, (1 + step) / (10 + step))
        now = adapter_weights(tmp_path / f"plain/checkpoint-{step}")
        expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in now}
    found = adapter_weights(tmp_path / "averaged")
    for name in expected:
        assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)
    assert len(load_file(tmp_path / "averaged/checkpoint-6" / AVERAGES)) == len(expected) == 12


COMBINATIONS = [
    {"packing": "true", "max_tokens": 40, "bf16": "true"},
    {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2, "group_by_length": "false"},
    {"lora_alpha": 4, "lora_dropout": 0.2, "lora_target_modules": "gate_proj"},
    *nightly({"packing": "true"}, {"max_tokens": 40}),
]


@pytest.mark.slow
@pytest.mark.parametrize("more", COMBINATIONS, ids=",".join)
def test_adapters_train_with_the_other_options_of_a_recipe(more, options, tmp_path):
    train.main(options(tmp_path, max_steps=30, max_train_samples=8, **{**EVALUATION, "eval_steps": 15}, **more))
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]
    assert "eval_per" in json.loads((tmp_path / "eval_results.json").read_text())
    assert all(each.abs().max() > 0 for each in adapter_weights(tmp_path).values())


def test_a_step_on_packed_rows_is_one_on_padded_rows(options, tmp_path):
    whole = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 160}
    sgd = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    train.main(options(tmp_path / "padded", **whole, **sgd))
    train.main(options(tmp_path / "packed", packing="true", **{**whole, "num_train_epochs": 2}, **sgd))
    one, two = (adapter_weights(tmp_path / name) for name in ("padded", "packed"))
    for name in one:
        assert_close(two[name], one[name], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_checkpointed_activations_train_the_same_adapters(options, tmp_path):
    train.main(options(tmp_path / "plain"))
    plain = adapter_weights(tmp_path / "plain")
    for reentrant in ("true", "false"):
        more = {"gradient_checkpointing_kwargs": f'{{"use_reentrant": {reentrant}}}'}
        train.main(options(tmp_path / reentrant, gradient_checkpointing="true", **more))
        found = adapter_weights(tmp_path / reentrant)
        for name in plain:
            assert_close(found[name], plain[name], atol=1e-5, rtol=1e-4)


@pytest.mark.nightly
def test_packed_rows_are_compiled_once(options, tmp_path):
    """ "aot_eager" traces all and generates no code, which takes long."""
    torch.compiler.reset()
    more = {"packing": "true", "max_tokens": 40, "torch_compile": "true", "torch_compile_backend": "aot_eager"}
    with torch._dynamo.config.patch(error_on_recompile=True):
        train.main(options(tmp_path, **more))
    torch.compiler.reset()
    load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_rank": "0"}, "--lora_rank must be 1 or more, got 0"),
        ({"lora_rank": "many"}, "invalid int value: 'many'"),
        ({"lora_alpha": "-1"}, "--lora_alpha must be 1 or more, got -1"),
        ({"lora_dropout": "1.5"}, "--lora_dropout must be in [0, 1), got 1.5"),
        ({"lora_rank": None, "lora_dropout": "0.1"}, "--lora_dropout 0.1 does nothing without --lora_rank"),
        ({"lora_rank": None, "lora_target_modules": "q_proj"}, "--lora_target_modules ['q_proj'] does nothing"),
        ({"lora_target_modules": "queries"}, "--lora_target_modules queries: "),
        ({"lora_target_modules": "embed_tokens"}, "embed_tokens shares its weight"),
        ({"lora_target_modules": "lm_head"}, "lm_head shares its weight"),
        ({"lora_target_modules": "self_attention"}, "--lora_target_modules self_attention: "),
        ({"model_name_or_path": "/no/such/model"}, "/no/such/model: there is no such"),
        ({"model_name_or_path": "no-such-model"}, "no-such-model"),
        ({"train_file": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else "",
)
def test_bad_options_are_one_line_and_nothing_is_written(changes, said, options, tmp_path, capsys):
    assert said in refused(train, options(tmp_path / "run", **changes), capsys)
    assert not (tmp_path / "run").exists()


def test_one_of_several_layers_that_the_model_does_not_have_is_named(options, tmp_path, capsys):
    wanted = [*options(tmp_path / "run"), "--lora_target_modules", "q_proj", "query"]
    assert "--lora_target_modules query: the model has no layer of that name" in refused(train, wanted, capsys)


def test_adapters_of_a_new_model_are_refused_with_the_reason(task, tmp_path, capsys):
    said = refused(train, task.options(tmp_path / "run", lora_rank=8), capsys)
    assert "--lora_rank 8 would leave the weights of a new model at random" in said and "--model_name_or_path" in said


@pytest.mark.parametrize("layout", [TENSOR_PARALLEL, "FSDP", "DeepSpeed ZeRO-3"])
def test_weights_that_are_divided_are_refused(layout, options, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(option_checks, "layout", lambda args: layout)
    assert f"--lora_rank is not possible under {layout}" in refused(train, options(tmp_path / "run"), capsys)


@pytest.mark.parametrize("layout", [WHOLE, OPTIMIZER_SHARDED])
def test_weights_that_are_whole_are_not_refused(layout, options, tmp_path, monkeypatch):
    monkeypatch.setattr(option_checks, "layout", lambda args: layout)
    monkeypatch.setattr(train, "make_trainer", lambda *args: exit(0))
    with pytest.raises(SystemExit) as stop:
        train.main(options(tmp_path / "run"))
    assert stop.value.code == 0


OTHERS = {
    "rank": ({"lora_rank": 2}, "lora_rank=4, this one has 2"),
    "alpha": ({"lora_alpha": 8}, "lora_alpha=16, this one has 8"),
    "dropout": ({"lora_dropout": 0.1}, "lora_dropout=0.0, this one has 0.1"),
    "layers": ({"lora_target_modules": "q_proj"}, "lora_target_modules=['q_proj', 'v_proj'], this one has ['q_proj']"),
    "all weights": ({"lora_rank": None}, "holds a run with an adapter, this one is without"),
}


@pytest.mark.parametrize(("changes", "said"), OTHERS.values(), ids=OTHERS)
def test_another_runs_folder_is_refused_and_left_alone(changes, said, options, adapter, tmp_path, capsys):
    before = files(adapter)
    line = refused(train, options(adapter, resume_from_checkpoint="false", **changes), capsys)
    assert f"--output_dir {adapter}: " in line and said in line
    line = refused(
        train, options(tmp_path / "run", resume_from_checkpoint=adapter / "checkpoint-3", **changes), capsys
    )
    assert f"--resume_from_checkpoint {adapter}/checkpoint-3: " in line and said in line
    assert files(adapter) == before and (adapter / "checkpoint-30").exists() and not (tmp_path / "run").exists()


def test_adapters_of_another_model_and_whole_models_are_refused(options, base, adapter, tmp_path, capsys):
    shutil.copytree(base, tmp_path / "base")
    line = refused(train, options(adapter, model_name_or_path=tmp_path / "base"), capsys)
    assert f"model_name_or_path='{base.resolve()}', this one has '{(tmp_path / 'base').resolve()}'" in line
    line = refused(train, options(tmp_path / "base"), capsys)
    assert "holds a run without an adapter, this one is with" in line


@pytest.mark.slow
def test_the_same_layers_in_other_words_are_the_same_run(options, tmp_path, capsys):
    train.main(options(tmp_path, max_steps=3, **SAVING))
    (tmp_path / "recipe.yaml").write_text("lora_target_modules: [v_proj, q_proj]\nlora_alpha: 16\n")
    train.main([str(tmp_path / "recipe.yaml"), *options(tmp_path, max_steps=3, **SAVING)])
    assert "is the end of this run" in capsys.readouterr().out


def test_an_adapter_is_no_model_to_train_or_average(options, adapter, tmp_path, capsys):
    for rank in (4, None):
        line = refused(train, options(tmp_path / "run", model_name_or_path=adapter, lora_rank=rank), capsys)
        assert f"--model_name_or_path {adapter}: an adapter; hf-xformer merge" in line
    line = refused(average, [adapter, "--last", 2, "--output_dir", tmp_path / "mean"], capsys)
    assert "checkpoint-30: an adapter; hf-xformer merge" in line
    assert not (tmp_path / "run").exists() and not (tmp_path / "mean").exists()


@pytest.mark.slow
def test_a_resumed_run_misses_a_weight_of_its_checkpoint(options, tmp_path, capsys):
    train.main(options(tmp_path, **SAVING))
    shutil.rmtree(tmp_path / "checkpoint-6")
    weights = adapter_weights(tmp_path / "checkpoint-3")
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, tmp_path / "checkpoint-3" / WEIGHTS)
    line = refused(train, options(tmp_path, **SAVING), capsys)
    assert f"checkpoint-3: {WEIGHTS}: not the weights of this run's model: missing: {name}" in line


@pytest.mark.slow
def test_a_merged_model_trains_on(options, adapter, tmp_path):
    merge.main([str(adapter), str(tmp_path / "merged")])
    train.main(options(tmp_path / "all", model_name_or_path=tmp_path / "merged", lora_rank=None))
    train.main(options(tmp_path / "again", model_name_or_path=tmp_path / "merged"))


@pytest.mark.distributed
@pytest.mark.parametrize("mode", ["cpu-2proc", *nightly("zero2")])
def test_two_processes_train_the_adapters_of_one_and_resume_to_the_bit(mode, options, tmp_path):
    # 21 rows in batches of 4 of two processes: both the last batch and the last process come out short.
    more = {"learning_rate": 1e-3, "per_device_eval_batch_size": 4, **EVALUATION, **SAVING}
    train.main(options(tmp_path / "one", **{**more, "per_device_train_batch_size": 16}))
    assert "LoRA of rank 4 trains 768" in run(options(tmp_path / "two", **more), mode)
    one, two = (adapter_weights(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        assert_close(two[name], one[name], atol=1e-5, rtol=0)
    results = [json.loads((tmp_path / name / "eval_results.json").read_text())["eval_per"] for name in ("one", "two")]
    assert results[0] == pytest.approx(results[1], abs=1e-6)
    shutil.copytree(tmp_path / "two", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken/checkpoint-6")
    assert "resuming from" in run(options(tmp_path / "broken", **more), mode)
    assert_equal(adapter_weights(tmp_path / "broken"), two)
    (tmp_path / "two" / WEIGHTS).unlink()
    assert "is the end of this run" in run(options(tmp_path / "two", **more), mode)
    assert_equal(adapter_weights(tmp_path / "two"), two)
    assert torch.equal(logits(load_model(str(tmp_path / "two"))), logits(load_model(str(tmp_path / "broken"))))


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("mode", "more"),
    [("cpu-2proc", {"ema_decay": 0.9}), *nightly(("zero2", {"ema_decay": 0.9}), ("zero2", {"bf16": "true"}))],
    ids=["cpu-2proc-averages", "zero2-averages", "zero2-bf16"],
)
def test_two_processes_average_and_round_as_one(mode, more, options, tmp_path):
    steps = {"learning_rate": 1e-3, **EVALUATION, **SAVING}
    train.main(options(tmp_path / "one", **{**steps, **more, "per_device_train_batch_size": 16}))
    run(options(tmp_path / "two", **steps, **more), mode)
    tolerance = 2e-3 if "bf16" in more else 1e-5
    one, two = (adapter_weights(tmp_path / name) for name in ("one", "two"))
    for name in one:
        assert_close(two[name].float(), one[name], atol=tolerance, rtol=2**-8 if "bf16" in more else 0)


@pytest.mark.distributed
@pytest.mark.parametrize("mode", ["zero3", *nightly("tp2")])
def test_two_processes_that_divide_the_weights_are_refused(mode, options, tmp_path):
    process = launch(options(tmp_path / "run"), mode)
    output = output_of(process)
    assert process.returncode != 0 and not (tmp_path / "run").exists()
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "--lora_rank is not possible under" in line
