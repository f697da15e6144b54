# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes and command lines: which wins, and what is said of a mistake in either."""

import json
import re

import pytest
from small_runs import refused

from hf_xformer.commands import train
from hf_xformer.errors import ArgumentError
from hf_xformer.training.recipe import parse_overrides, parse_run


RECIPE = {
    "learning_rat: 1": "recipe.yaml: unknown option 'learning_rat'; did you mean learning_rate?",
    "12: 1": "recipe.yaml: unknown option 12; --help lists those that there are",
    "seed: 2.5": "recipe.yaml: seed: expected integer, got 2.5",
    "seed: '2.5'": "recipe.yaml: seed: expected integer, got 2.5",
    "seed: ''": "recipe.yaml: seed: expected integer, got ''",
    "learning_rate: fast": "recipe.yaml: learning_rate: expected number, got 'fast'",
    "streaming: 1": "recipe.yaml: streaming: expected true or false, got 1",
    "run_name: 12": "recipe.yaml: run_name: expected text, got 12; write it as a text: '12'",
    "metrics: [per, 1]": "recipe.yaml: metrics: expected a list of texts, got ['per', 1]",
    "eval_strategy: step": "recipe.yaml: eval_strategy: 'step' is none of its choices; did you mean steps?",
    "overlong: keep": "recipe.yaml: overlong: 'keep' is none of its choices; there are truncate, drop",
    "parallelism_config: {tp_size: 2}": "recipe.yaml: parallelism_config: expected an object of Python's, got {'tp_",
    "- seed": "recipe.yaml: expected lines of 'option: value', got ['seed']",
    "seed: [": "recipe.yaml: not a readable YAML file: ",
}


@pytest.mark.parametrize(("text", "said"), RECIPE.items(), ids=RECIPE)
def test_a_mistake_in_a_recipe_is_said_with_file_option_and_value(text, said, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(text)
    assert f"error: {tmp_path}/{said}" in refused(train, [tmp_path / "recipe.yaml"], capsys)


COMMAND_LINE = {
    "--learning_rat 1": "--learning_rat: unknown option; did you mean --learning_rate?",
    "--learning_rat=1": "--learning_rat: unknown option; did you mean --learning_rate?",
    "--xyzzy 1": "--xyzzy: unknown option; --help lists those that there are",
    "--learning_rate fast": "--learning_rate: invalid float value: 'fast'",
    "--learning-rate=fast": "--learning-rate: invalid float value: 'fast'",
    "--learning_rate": "--learning_rate: expected one argument",
    "--overlong keep": "--overlong: 'keep' is none of its choices; there are truncate, drop",
    "--eval_strategy step": "--eval_strategy: 'step' is none of its choices; did you mean steps?",
    "--lr_scheduler_kwargs {": "--lr_scheduler_kwargs: line 1, column 2: ",
    '--lr_scheduler_kwargs {"a":1,"a":2}': "--lr_scheduler_kwargs: line 1, column 8: 'a' stands there twice",
    '--objective {"name":"copy","name":"ul2"}': "--objective: line 1, column 16: 'name' stands there twice",
    "--objective {name:copy}": "--objective: line 1, column 2: 'name:copy': YAML wants a space behind the colon",
    '--objective {"name":{"a":[{b:1}]}}': "--objective: line 1, column 16: 'b:1': YAML wants a space behind the colon",
    "--liger_kernel_config {rope:false}": "--liger_kernel_config: line 1, column 2: 'rope:false': YAML wants a space",
    "--liger_kernel_config rope": "--liger_kernel_config: expected mapping, got 'rope'",
    "--lr_scheduler_kwargs [1]": "--lr_scheduler_kwargs: expected a mapping, such as '{name: 1}', got '[1]'",
    "--deepspeed none.json": "--deepspeed: none.json: there is no such file",
    "--fsdp_config none.json": "--fsdp_config: none.json: there is no such file",
    "--optim_args a=1,a=2": "--optim_args: 'a' stands there twice",
    '--optim_args {"betas":[0.9,1]}': "--optim_args betas: expected a number or a word, got [0.9, 1]",
    "--seed 1 recipe.yaml": "recipe.yaml: neither an option nor an option's value; a recipe comes first",
    "--tf32 true": "options of the Trainer: --tf32 requires Ampere",
    "--warmup_steps -1": "options of the Trainer: ",
    "--load_best_model_at_end true --save_strategy epoch": "- Save strategy: SaveStrategy.EPOCH",
    '--accelerator_config {"foo":1}': "options of the Trainer: AcceleratorConfig.__init__() got an unexpected",
}


@pytest.mark.parametrize(("words", "said"), COMMAND_LINE.items(), ids=COMMAND_LINE)
def test_a_mistake_on_the_command_line_names_the_option_as_it_was_typed(words, said, tmp_path, capsys):
    line = refused(train, [*words.split(" "), "--output_dir", tmp_path], capsys)
    assert said in line and (line.startswith(f"error: {said}") or said.startswith("- "))


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_the_default(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "max_steps: 7\nlearning_rate: 1\nwarmup_steps: 20\ngroup_by_length: false\nmetrics: per\nseed: null\n"
        "config_overrides: {dropout: 0.0, norm_type: layernorm}\nsave_strategy: no\nuse_cpu: true\n"
    )
    words = ["--max_steps", "2", "--metrics", "wer", "cer", "--output_dir", str(tmp_path)]
    model_args, data_args, training_args = parse_run([str(recipe), *words], "")
    assert (training_args.max_steps, training_args.learning_rate, training_args.warmup_steps) == (2, 1.0, 20.0)
    assert isinstance(training_args.learning_rate, float)
    assert (data_args.group_by_length, data_args.metrics, data_args.overlong) == (False, ["wer", "cer"], "truncate")
    assert training_args.seed == 42 and training_args.save_strategy == "no"
    assert parse_overrides(model_args.config_overrides) == {"dropout": 0.0, "norm_type": "layernorm"}


def test_a_number_or_truth_value_in_quotes_is_one(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: '5'\nlearning_rate: '1e-4'\npacking: 'True'\nsource_column: '3'\nuse_cpu: 'true'\n")
    _, data_args, training_args = parse_run([str(recipe), "--output_dir", str(tmp_path)], "")
    assert (training_args.seed, training_args.learning_rate) == (5, 1e-4)
    assert (data_args.packing, data_args.source_column) == (True, "3")


def test_overrides_are_one_whether_written_as_text_mapping_or_json():
    expected = {"d_model": 256, "norm_type": "layernorm", "rope_parameters": {"rope_theta": 5000.0}}
    text = "d_model=256,norm_type=layernorm,rope_parameters={rope_theta: 5e3}"
    assert parse_overrides(text) == parse_overrides(expected) == expected
    assert parse_overrides('{"d_model": 256}') == {"d_model": 256}
    assert parse_overrides(json.dumps({"mark": "\U0001f600"})) == {"mark": "\U0001f600"}
    assert parse_overrides(None) == parse_overrides("") == {}


@pytest.mark.parametrize("text", ["{d_model:256}", "{rope_parameters: {a: [{b:1}]}}", "rope_parameters={b:1}"])
def test_overrides_without_a_space_behind_the_colon_are_refused(text):
    with pytest.raises(ArgumentError, match=r"--config_overrides: line 1, .*YAML wants a space behind the colon"):
        parse_overrides(text)


MAPPINGS = {
    "objective": {"name": "span_corruption", "noise_density": 0.3},
    "peft_config": {"peft_type": "IA3", "target_modules": ["q_proj"]},
    "liger_kernel_config": {"rope": False},
    "lr_scheduler_kwargs": {"num_cycles": 2, "power": 1e-4},
    "accelerator_config": {"split_batches": True},
    "config_overrides": {"norm_type": "layernorm", "mark": "\U0001f600", "rope_parameters": {"rope_theta": 5000.0}},
}


@pytest.mark.parametrize(("name", "content"), MAPPINGS.items(), ids=MAPPINGS)
def test_a_mapping_on_the_command_line_is_that_of_a_recipe_in_yaml_or_json(name, content, tmp_path):
    yaml = re.sub(r'"(\w+)"', r"\1", json.dumps(content))
    (tmp_path / "recipe.yaml").write_text(f"{name}: {yaml}\n")
    read = []
    for words in ([str(tmp_path / "recipe.yaml")], [f"--{name}", yaml], [f"--{name}", json.dumps(content)]):
        of_run = parse_run([*words, "--output_dir", str(tmp_path), "--use_cpu", "true"], "")
        read.append(next(getattr(each, name) for each in of_run if hasattr(each, name)))
    assert read[0] == read[1] == read[2]
    assert read[0] == content or getattr(read[0], "split_batches", False)


def test_the_help_shows_defaults_and_the_schema(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_run(["--help"], "What it does.")
    shown = " ".join(capsys.readouterr().out.split())
    assert not stop.value.code and "What it does." in shown and "print a JSON schema of recipes" in shown
    assert "Longest source" in shown and "(default: 256)" in shown
