# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA by a recipe's option: what is trained and written, resumed, loaded, merged, refused."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM
from safetensors.torch import load_file, save_file
from small_runs import launch, output_of, refused, run
from small_stock_models import make_stock
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_xformer.checkpoints import adapters as stored_adapters
from hf_xformer.checkpoints.loading import load_model
from hf_xformer.commands import average, evaluate, generate, merge, train
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.files import AVERAGES
from hf_xformer.training import adapters, checks
from hf_xformer.training.arguments import ModelArguments
from hf_xformer.training.launch import OPTIMIZER_SHARDED, TENSOR_PARALLEL, WHOLE


WEIGHTS = "adapter_model.safetensors"
EXISTING = {"config_name": None, "config_overrides": None, "tokenizer_name": None}
EVALUATION = {"eval_strategy": "steps", "eval_steps": 3, "metrics": "per"}
SAVING = {"save_strategy": "steps", "save_steps": 3}
# With one padded source.
BATCH = {
    "input_ids": torch.tensor([[4, 5, 6, 7, 1], [8, 9, 1, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "decoder_input_ids": torch.tensor([[2, 7, 6, 5], [2, 9, 8, 1]]),
}


@pytest.fixture(scope="module")
def base(task, tmp_path_factory) -> Path:
    """The output folder of a run over all weights, which others go on from."""
    folder = tmp_path_factory.mktemp("base") / "run"
    train.main(task.options(folder, max_steps=40))
    return folder


@pytest.fixture
def options(task, base):
    """The command line of a run of a few seconds that trains adapters."""

    def make(output_dir, **more) -> list[str]:
        evaluated = {"validation_file": task.validation} if {"metrics", "eval_strategy"} & more.keys() else {}
        return task.options(
            output_dir, **{**EXISTING, "model_name_or_path": base, "lora_rank": 4, **evaluated, **more}
        )

    return make


@pytest.fixture(scope="module")
def adapter(task, base, tmp_path_factory) -> Path:
    """The output folder of such a run, for tests that only read it."""
    folder = tmp_path_factory.mktemp("adapter") / "run"
    more = {"validation_file": task.validation, "max_steps": 30, **EVALUATION, **SAVING}
    train.main(task.options(folder, **EXISTING, model_name_or_path=base, lora_rank=4, **more))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def adapter_weights(folder: Path, name: str = WEIGHTS) -> dict[str, torch.Tensor]:
    return load_file(folder / name)


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(**BATCH).logits


def train_and_keep(monkeypatch, options: list[str]):
    """Runs, and returns the model that was trained."""
    made, make = [], train.make_trainer
    monkeypatch.setattr(train, "make_trainer", lambda *args: made.append(make(*args)) or made[-1])
    train.main(options)
    return made[0].model


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


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.slow
def test_adapters_learn_another_task(task, tmp_path):
    """From spelling words backwards to spelling them with the next letter for each."""
    overrides = "d_model=64,encoder_ffn_dim=128,decoder_ffn_dim=128,dropout=0.0,initializer_range=0.1"
    more = {"max_steps": 200, "learning_rate": 5e-3, "per_device_train_batch_size": 32, "metrics": "exact_match"}
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


def test_an_adapter_finds_its_model_from_another_folder(options, base, tmp_path, monkeypatch):
    monkeypatch.chdir(base.parent)
    train.main(options(tmp_path / "run", model_name_or_path=base.name))
    monkeypatch.chdir(tmp_path)
    written = json.loads((tmp_path / "run/adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(base.resolve())
    assert torch.equal(logits(load_model("run")), logits(AutoPeftModelForSeq2SeqLM.from_pretrained("run")))


LAYERS = {"default": {}, "all-linear": {"lora_target_modules": "all-linear"}}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_every_way_of_loading_gives_the_logits_of_the_trained_model(layers, options, base, tmp_path, monkeypatch):
    trained = train_and_keep(monkeypatch, options(tmp_path / "run", **layers))
    expected = logits(trained)
    assert (logits(load_model(str(base))) - expected).abs().max() > 1e-2
    for load in (AutoPeftModelForSeq2SeqLM, AutoModelForSeq2SeqLM):
        assert torch.equal(logits(load.from_pretrained(tmp_path / "run")), expected)
    assert torch.equal(logits(load_model(str(tmp_path / "run"))), expected)
    merge.main([str(tmp_path / "run"), str(tmp_path / "merged")])
    merged = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged")
    assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    assert merged.state_dict().keys() == load_model(str(base)).state_dict().keys()


def test_two_vocabularies_and_their_tokenizers_come_along(task, tmp_path, monkeypatch):
    source = tmp_path / "tokenizer"
    train_tokenizer(["A B C D E F G H"], "symbol").save_pretrained(source)
    train_tokenizer(["H G F E D C B A Z"], "symbol").save_pretrained(source / "target_tokenizer")
    train.main(task.options(tmp_path / "base", tokenizer_name=source))
    run = {"model_name_or_path": tmp_path / "base", "lora_rank": 2, **SAVING, **EXISTING}
    expected = logits(train_and_keep(monkeypatch, task.options(tmp_path / "run", **run)))
    merge.main([str(tmp_path / "run"), str(tmp_path / "merged")])
    for folder in ("run", "run/checkpoint-3", "merged"):
        assert len(AutoTokenizer.from_pretrained(tmp_path / folder / "target_tokenizer")) == 13
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged").config.tie_word_embeddings
    for folder in ("run", "merged"):
        assert_close(logits(load_model(str(tmp_path / folder))), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "run")), expected)


def test_adapters_decode_as_in_training_and_merged_as_apart(task, adapter, tmp_path, capsys):
    merge.main([str(adapter), str(tmp_path / "merged")])
    words = tmp_path / "words.txt"
    words.write_text("A B C\nH G F E D C B A A\n")
    said = []
    for folder in (adapter, tmp_path / "merged"):
        results = tmp_path / "results.json"
        evaluate.main([str(folder), "--test_file", task.validation, "--metrics", "per", "--output_file", str(results)])
        expected = json.loads((adapter / "eval_results.json").read_text())["eval_per"]
        assert json.loads(results.read_text())["per"] == pytest.approx(expected, abs=1e-3)
        capsys.readouterr()
        generate.main([str(folder), "--input", str(words), "--num_beams", "3", "--n_best", "2"])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and len(said[0].splitlines()) == 4
    # The run's, whose targets are shorter than the base model's may be.
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged").generation_config.max_length == 13


def test_how_a_run_decodes_is_kept_beside_its_adapters(options, base, tmp_path):
    train.main(options(tmp_path, max_target_length=10, **SAVING))
    assert load_model(str(base)).generation_config.max_length == 13
    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        assert load_model(str(folder)).generation_config.max_length == 11


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


def test_merging_leaves_the_output_layer_tied_where_the_source_has_an_embedding_of_its_own(tmp_path):
    stock = make_stock("Marian, separate vocabularies")
    stock.save_pretrained(tmp_path / "stock")
    chosen = {"lora_rank": 2, "lora_target_modules": ["q_proj"]}
    lora = adapters.make_lora(ModelArguments(model_name_or_path=str(tmp_path / "stock"), **chosen), stock.config)
    merged = stored_adapters.merge_adapter(adapters.add_lora(stock, lora, None, print), "")
    expected = logits(merged)
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(load_model(str(tmp_path / "merged"))), expected)


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


@pytest.mark.parametrize("more", RESUMED.values(), ids=RESUMED)
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


def test_the_best_checkpoints_adapters_are_what_a_run_ends_with(options, tmp_path):
    more = {"load_best_model_at_end": "true", "metric_for_best_model": "loss", "greater_is_better": "true"}
    train.main(options(tmp_path, **{**EVALUATION, **SAVING, "max_steps": 9, **more}))
    best = Path(json.loads((tmp_path / "trainer_state.json").read_text())["best_model_checkpoint"])
    assert best.name != "checkpoint-9"
    assert_equal(adapter_weights(tmp_path), adapter_weights(best))


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
    {"packing": "true"},
    {"max_tokens": 40},
    {"packing": "true", "max_tokens": 40, "bf16": "true"},
    {"label_smoothing_factor": 0.1},
    {"gradient_accumulation_steps": 2, "group_by_length": "false"},
    {"lora_alpha": 4, "lora_dropout": 0.2, "lora_target_modules": "gate_proj"},
]


@pytest.mark.parametrize("more", COMBINATIONS, ids=",".join)
def test_adapters_train_with_the_other_options_of_a_recipe(more, options, tmp_path):
    train.main(options(tmp_path, max_steps=40, max_train_samples=8, **EVALUATION, **more))
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


@pytest.mark.parametrize("reentrant", ["true", "false"])
def test_checkpointed_activations_train_the_same_adapters(reentrant, options, tmp_path):
    train.main(options(tmp_path / "plain"))
    kwargs = f'{{"use_reentrant": {reentrant}}}'
    train.main(options(tmp_path / "run", gradient_checkpointing="true", gradient_checkpointing_kwargs=kwargs))
    one, two = (adapter_weights(tmp_path / name) for name in ("plain", "run"))
    for name in one:
        assert_close(two[name], one[name], atol=1e-5, rtol=1e-4)


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
    monkeypatch.setattr(checks, "layout", lambda args: layout)
    assert f"--lora_rank is not possible under {layout}" in refused(train, options(tmp_path / "run"), capsys)
    for possible in (WHOLE, OPTIMIZER_SHARDED):
        monkeypatch.setattr(checks, "layout", lambda args, possible=possible: possible)
        train.main(options(tmp_path / possible, max_steps=1))


def test_without_peft_one_line_says_how_to_install_it(options, adapter, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stored_adapters, "find_spec", lambda name: None)
    advice = "needs PEFT: pip install 'hf-xformer[peft]'"
    # Before the data are read.
    assert f"--lora_rank 4 {advice}" in refused(train, options(tmp_path / "run", train_file="nowhere"), capsys)
    for command, more in ((generate, []), (merge, [tmp_path / "merged"])):
        assert f"{adapter}, an adapter, {advice}" in refused(command, [adapter, *more], capsys)
    assert not (tmp_path / "merged").exists()


OTHERS = {
    "rank": ({"lora_rank": 2}, "lora_rank=4, this one has 2"),
    "alpha": ({"lora_alpha": 8}, "lora_alpha=16, this one has 8"),
    "dropout": ({"lora_dropout": 0.1}, "lora_dropout=0.0, this one has 0.1"),
    "layers": ({"lora_target_modules": "q_proj"}, "lora_target_modules=['q_proj', 'v_proj'], this one has ['q_proj']"),
    "all weights": ({"lora_rank": None}, "holds a run with --lora_rank, this one is without"),
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
    assert "holds a run without --lora_rank, this one is with" in line


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


def broken(adapter: Path, folder: Path) -> dict[str, torch.Tensor]:
    """A copy of an adapter, and its weights."""
    shutil.copytree(adapter, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    return adapter_weights(folder)


def test_a_weight_that_does_not_fit_is_refused_with_its_name(task, adapter, tmp_path, capsys):
    weights = broken(adapter, tmp_path / "broken")
    name = sorted(weights)[3]
    for problem, changed in {
        "missing": {each: weights[each] for each in weights if each != name},
        "unexpected": {**weights, name.replace("layers.0", "layers.7"): weights[name].clone()},
        "mismatched": {**weights, name: weights[name][:, :-1].contiguous()},
    }.items():
        save_file(changed, tmp_path / "broken" / WEIGHTS)
        for command, more in {generate: ["--input", task.train], merge: [tmp_path / "merged"]}.items():
            line = refused(command, [tmp_path / "broken", *more], capsys)
            assert f"{tmp_path}/broken: 1 {problem} weights of the adapter, such as " in line
            assert name.replace("layers.0", "layers.7") in line if problem == "unexpected" else name in line
    (tmp_path / "broken" / WEIGHTS).write_bytes(b"no tensors")
    assert f"{tmp_path}/broken: cannot load an adapter" in refused(generate, [tmp_path / "broken"], capsys)
    (tmp_path / "broken" / WEIGHTS).unlink()
    assert f"{tmp_path}/broken: cannot load an adapter" in refused(generate, [tmp_path / "broken"], capsys)
    assert not (tmp_path / "merged").exists()


def test_a_resumed_run_misses_a_weight_of_its_checkpoint(options, tmp_path, capsys):
    train.main(options(tmp_path, **SAVING))
    shutil.rmtree(tmp_path / "checkpoint-6")
    weights = adapter_weights(tmp_path / "checkpoint-3")
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, tmp_path / "checkpoint-3" / WEIGHTS)
    line = refused(train, options(tmp_path, **SAVING), capsys)
    assert "checkpoint-3: 1 missing weights of the adapter" in line and name in line


def test_an_adapter_whose_model_is_gone_or_not_whole_is_refused(base, adapter, tmp_path, capsys):
    shutil.copytree(base, tmp_path / "base")
    broken(adapter, tmp_path / "broken")
    path = tmp_path / "broken/adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "base")}))
    load_model(str(tmp_path / "broken"))
    weights = load_file(tmp_path / "base/model.safetensors")
    name = next(name for name in weights if name.endswith("o_proj.weight"))
    save_file({each: weights[each] for each in weights if each != name}, tmp_path / "base/model.safetensors")
    line = refused(generate, [tmp_path / "broken"], capsys)
    why = f"the model that it is an adapter of, as its adapter_config.json says: {tmp_path}/base: 1 missing"
    assert f"{tmp_path}/broken: {why}" in line and name in line
    shutil.rmtree(tmp_path / "base")
    line = refused(generate, [tmp_path / "broken"], capsys)
    assert f"{tmp_path}/broken" in line and f"{tmp_path}/base: there is no such file or folder" in line
    path.write_text(json.dumps({**config, "base_model_name_or_path": None}))
    assert "does not say which model it is an adapter of" in refused(generate, [tmp_path / "broken"], capsys)
    path.write_text(json.dumps(config))
    shutil.copy(base / "config.json", tmp_path / "broken")
    assert "holds both a model and an adapter" in refused(generate, [tmp_path / "broken"], capsys)


def test_what_cannot_be_merged_is_refused_and_nothing_overwritten(base, adapter, tmp_path, capsys):
    assert f"{base}: not an adapter" in refused(merge, [base, tmp_path / "out"], capsys)
    assert "nowhere" in refused(merge, [tmp_path / "nowhere", tmp_path / "out"], capsys)
    for taken in (adapter, base):
        before = files(taken)
        assert f"would overwrite {taken}" in refused(merge, [adapter, taken, "--overwrite"], capsys)
        assert files(taken) == before
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    assert "--overwrite writes into it all the same" in refused(merge, [adapter, tmp_path / "out"], capsys)
    assert os.listdir(tmp_path / "out") == ["notes.txt"]
    merge.main([str(adapter), str(tmp_path / "out"), "--overwrite"])
    load_model(str(tmp_path / "out"))
    assert "not a folder" in refused(merge, [adapter, tmp_path / "out/notes.txt"], capsys)


def test_a_merged_model_trains_on(options, adapter, tmp_path):
    merge.main([str(adapter), str(tmp_path / "merged")])
    train.main(options(tmp_path / "all", model_name_or_path=tmp_path / "merged", lora_rank=None))
    train.main(options(tmp_path / "again", model_name_or_path=tmp_path / "merged"))


@pytest.mark.distributed
@pytest.mark.parametrize("mode", ["cpu-2proc", "zero2"])
def test_two_processes_train_the_adapters_of_one_and_resume_to_the_bit(mode, options, tmp_path):
    # 21 rows in batches of 4 of two processes: both the last batch and the last process come out short.
    more = {"learning_rate": 1e-3, "max_steps": 9, "per_device_eval_batch_size": 4, **EVALUATION, **SAVING}
    train.main(options(tmp_path / "one", **{**more, "per_device_train_batch_size": 16}))
    assert "LoRA of rank 4 trains 768" in run(options(tmp_path / "two", **more), mode)
    one, two = (adapter_weights(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        assert_close(two[name], one[name], atol=1e-5, rtol=0)
    results = [json.loads((tmp_path / name / "eval_results.json").read_text())["eval_per"] for name in ("one", "two")]
    assert results[0] == pytest.approx(results[1], abs=1e-6)
    shutil.copytree(tmp_path / "two", tmp_path / "broken")
    for step in (6, 9):
        shutil.rmtree(tmp_path / f"broken/checkpoint-{step}")
    assert "resuming from" in run(options(tmp_path / "broken", **more), mode)
    assert_equal(adapter_weights(tmp_path / "broken"), two)
    (tmp_path / "two" / WEIGHTS).unlink()
    assert "is the end of this run" in run(options(tmp_path / "two", **more), mode)
    assert_equal(adapter_weights(tmp_path / "two"), two)
    assert torch.equal(logits(load_model(str(tmp_path / "two"))), logits(load_model(str(tmp_path / "broken"))))


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("mode", "more"),
    [("cpu-2proc", {"ema_decay": 0.9}), ("zero2", {"ema_decay": 0.9}), ("zero2", {"bf16": "true"})],
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
@pytest.mark.parametrize("mode", ["zero3", "tp2"])
def test_two_processes_that_divide_the_weights_are_refused(mode, options, tmp_path):
    process = launch(options(tmp_path / "run"), mode)
    output = output_of(process)
    assert process.returncode != 0 and not (tmp_path / "run").exists()
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "--lora_rank is not possible under" in line
