# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a run's options come to: decided once, told to the Trainer and to people, and the options left as they were."""

import copy
import json

import pytest
import torch

from hf_xformer import XformerConfig
from hf_xformer.checkpoints import number_formats
from hf_xformer.commands import train
from hf_xformer.training.plan import choose_attention, describe_slow_formats, make_plan, trainer_arguments
from hf_xformer.training.recipe import parse_run


OPTIONS = {
    "padded": ({}, "grouped", {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 8}),
    "drawn": ({"group_by_length": "false"}, "drawn", {"train_sampling_strategy": "random"}),
    "sequential": ({"train_sampling_strategy": "sequential"}, "drawn", {"train_sampling_strategy": "sequential"}),
    "packed": ({"packing": "true"}, "planned", {"per_device_train_batch_size": 1}),
    "tokens": ({"max_tokens": 40}, "planned", {"per_device_train_batch_size": 1, "eval_strategy": "no"}),
    "streamed": ({"streaming": "true"}, "grouped", {"per_device_train_batch_size": 1}),
    "pushed": ({"push_to_hub": "true"}, "grouped", {"push_to_hub": False}),
}


@pytest.mark.parametrize(("more", "batches", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_the_trainer_is_told_the_plan_and_the_options_stay_as_they_were(more, batches, expected, task, tmp_path):
    arguments = parse_run(task.options(tmp_path, **more), "")
    before = copy.deepcopy([each.to_dict() if hasattr(each, "to_dict") else vars(each) for each in arguments])
    plan = make_plan(*arguments)
    given = trainer_arguments(arguments[2], plan)
    assert plan.batches == batches
    assert {name: getattr(given, name) for name in expected} == expected
    assert given.accelerator_config.dispatch_batches is (False if more == {"streaming": "true"} else None)
    assert [each.to_dict() if hasattr(each, "to_dict") else vars(each) for each in arguments] == before


BATCHES = {
    "8 pairs per step (1 process, no accumulation)": {},
    "1 pair per step (1 process, no accumulation)": {"per_device_train_batch_size": 1},
    "32 pairs per step (1 process, 4 batches accumulated, packed)": {
        **{"gradient_accumulation_steps": 4, "packing": "true"}
    },
    "at most 2,048 source and 2,048 target tokens per step (1 process, no accumulation)": {"max_tokens": 2048},
}


@pytest.mark.parametrize(("said", "more"), BATCHES.items(), ids=BATCHES)
def test_the_batch_is_said_in_words(said, more, task, tmp_path):
    assert make_plan(*parse_run(task.options(tmp_path, **more), "")).batch == said


GENERATING = {"metrics": "per", "max_target_length": 99}
EVALUATIONS = {
    "8 rows of like length": (8, None, {}),
    "9 rows of like length": (9, None, {"per_device_eval_batch_size": 9, "max_tokens": 2048, **GENERATING}),
    "at most 2,048 source and 2,048 target tokens": (None, 2048, {"max_tokens": 2048}),
    "at most 2,048 source and 2,048 target tokens, and 20 rows with up to 100 generated tokens,": (
        *(20, 2048, {"max_tokens": 2048, **GENERATING}),
    ),
    "at most 2,048 source and 2,048 target tokens, and 4 rows with up to 100 generated tokens in each of 5 beams,": (
        *(4, 2048, {"max_tokens": 2048, "generation_num_beams": 5, **GENERATING}),
    ),
    "at most 1,000 source and 1,000 target tokens, and 1 row with up to 1,500 generated tokens,": (
        *(1, 1000, {"eval_max_tokens": 1000, "generation_max_length": 1500, **GENERATING}),
    ),
}


@pytest.mark.parametrize(("said", "expected"), EVALUATIONS.items(), ids=EVALUATIONS)
def test_no_evaluation_generates_more_tokens_at_a_time_than_its_batch_may_have(said, expected, task, tmp_path):
    rows, tokens, more = expected
    plan = make_plan(*parse_run(task.options(tmp_path, validation_file=task.validation, **more), ""))
    assert (plan.eval_batch, plan.eval_rows, plan.eval_tokens) == (said, rows, tokens)


@pytest.mark.parametrize("name", ["model_name_or_path", "generation_config"])
def test_the_beams_of_an_evaluation_may_be_in_a_file(name, task, tmp_path):
    (tmp_path / "generation_config.json").write_text('{"num_beams": 5}')
    more = {name: tmp_path, "max_tokens": 2048, "validation_file": task.validation, **GENERATING}
    if name == "model_name_or_path":
        more |= {"config_name": None, "config_overrides": None}
    assert make_plan(*parse_run(task.options(tmp_path / "run", **more), "")).eval_rows == 4


ATTENTIONS = {
    "half precision on a GPU": ({"bf16": "true"}, "cuda", {}, "varlen"),
    "half precision on a CPU": ({"bf16": "true"}, "cpu", {}, "eager"),
    "single precision": ({}, "cuda", {}, None),
    "dropout": ({"bf16": "true"}, "cuda", {"attention_dropout": 0.1}, None),
    "relative positions": ({"bf16": "true"}, "cuda", {"position_embedding_type": "relative"}, None),
    "packed": ({"bf16": "true", "packing": "true"}, "cuda", {}, "varlen"),
    "packed and compiled": ({"bf16": "true", "packing": "true", "torch_compile": "true"}, "cuda", {}, "varlen"),
    "packed, compiled, with global tokens": (
        {"bf16": "true", "packing": "true", "torch_compile": "true"},
        "cuda",
        {"num_global_tokens": 1, "encoder_layer_types": ["chunked_attention"] * 6},
        None,
    ),
    "chosen": ({"bf16": "true", "attn_implementation": "sdpa"}, "cuda", {}, "sdpa"),
}


@pytest.mark.parametrize(("more", "device", "fields", "expected"), ATTENTIONS.values(), ids=ATTENTIONS)
def test_a_run_has_the_best_attention_that_trains_its_model(
    more, device, fields, expected, task, tmp_path, monkeypatch, varlen
):
    arguments = parse_run(task.options(tmp_path, **more), "")
    monkeypatch.setattr(type(arguments[2]), "device", torch.device(device))
    assert make_plan(*arguments, config=XformerConfig(**fields)).attn_implementation == expected


def test_metrics_are_of_generated_text_where_there_is_an_evaluation(task, tmp_path):
    metrics = {"metrics": "per", "validation_file": task.validation}
    arguments = parse_run(task.options(tmp_path, **metrics), "")
    plan = make_plan(*arguments)
    assert plan.evaluates and plan.predict_with_generate and not arguments[2].predict_with_generate
    assert not make_plan(*parse_run(task.options(tmp_path), "")).evaluates


@pytest.mark.slow
def test_the_start_and_the_record_say_what_was_decided(task, tmp_path, capsys):
    train.main(task.options(tmp_path, bf16="true", packing="true"))
    said = capsys.readouterr().out
    assert "8 pairs per step (1 process, no accumulation, packed)" in said
    assert "eager attention: the fastest for short texts in bfloat16 on a CPU" in said
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["batch"] == record["decisions"]["batch"] and record["batch"] in said
    assert record["decisions"]["attn_implementation"] == "eager" and record["decisions"]["batches"] == "planned"


SLOW = "this CPU takes 31 times as long for products in bfloat16 as in float32"
LINES = {
    "neither": ({}, "no", []),
    "bf16": ({"bf16": "true"}, "no", [f"--bf16: {SLOW}; the run is faster without it"]),
    "launcher": (
        *({}, "bf16"),
        [f"mixed_precision bf16 of the launch configuration: {SLOW}; the run is faster without it"],
    ),
    "evaluation": (
        *({"bf16_full_eval": "true"}, "no"),
        [f"--bf16_full_eval: {SLOW}; evaluations are faster without it"],
    ),
    "muon": ({"optim": "muon"}, "no", [f"--optim muon orthogonalises in float32, not in bfloat16: {SLOW}"]),
}


@pytest.mark.parametrize(("more", "launched", "lines"), LINES.values(), ids=LINES)
def test_a_run_says_where_its_processor_is_slow(more, launched, lines, task, tmp_path, slow_formats, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    arguments = parse_run(task.options(tmp_path, **more), "")
    assert [*describe_slow_formats(arguments[2])] == lines
    assert choose_attention(None, *arguments[1:]) is None
    monkeypatch.setattr(number_formats, "slowdown", lambda dtype: 0.5)
    assert not [*describe_slow_formats(arguments[2])]
