# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The JSON schema of recipes and the table of options: complete, and at one with what training takes."""

import dataclasses
import json

import jsonschema
import pytest
from small_runs import ROOT
from transformers import Seq2SeqTrainingArguments

from hf_xformer.commands import train
from hf_xformer.errors import ArgumentError
from hf_xformer.training import schema
from hf_xformer.training.arguments import DataArguments, ModelArguments
from hf_xformer.training.recipe import read_recipe
from hf_xformer.yaml_files import read_yaml


RECIPES = sorted((ROOT / "configs/train").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    found = json.loads(json.dumps(schema.json_schema()))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_the_command_prints_the_schema(capsys, validator):
    with pytest.raises(SystemExit) as stop:
        train.main(["--schema"])
    assert not stop.value.code and json.loads(capsys.readouterr().out) == validator.schema


def test_every_option_is_there_with_help_and_the_default_of_its_dataclass(validator):
    properties = validator.schema["properties"]
    classes = (ModelArguments, DataArguments, Seq2SeqTrainingArguments)
    declared = {each.name: each for arguments in classes for each in dataclasses.fields(arguments) if each.init}
    assert properties.keys() == declared.keys()
    assert [name for name, option in properties.items() if not option["description"]] == []
    for name, each in declared.items():
        if isinstance(each.default, (bool, int, float, str)) and not hasattr(each.default, "value"):
            assert properties[name]["default"] == each.default
    # Not this machine's.
    assert properties["use_cpu"]["default"] is False and properties["output_dir"]["default"] is None


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_our_recipes_are_valid(recipe, validator):
    validator.validate(read_yaml(recipe.read_text()))


VALUES = {
    "max_steps: 300": True,
    "max_steps: 1e5": True,
    "max_steps: 2.5": False,
    "max_steps: true": False,
    "max_steps: [300]": False,
    "max_steps: null": True,
    "max_step: 300": False,
    "learning_rate: 1": True,
    "learning_rate: 2.0e-3": True,
    "learning_rate: fast": False,
    "packing: true": True,
    "packing: 1": False,
    "packing: yes": False,
    "overlong: drop": True,
    "overlong: keep": False,
    "save_strategy: no": True,
    "save_strategy: never": False,
    "lr_scheduler_type: cosine": True,
    "lr_scheduler_type: cosin": False,
    "metrics: per": True,
    "metrics: [per, wer]": True,
    "metrics: [1]": False,
    "metrics: {per: 1}": False,
    "source_column: [a, b]": False,
    "source_column: 3": False,
    "config_overrides: {dropout: 0.0, rope_parameters: {rope_theta: 5e3}}": True,
    "config_overrides: dropout=0.0": True,
    "lr_scheduler_kwargs: {min_lr: 1e-5}": True,
    "resume_from_checkpoint: false": True,
    "resume_from_checkpoint: runs/mine/checkpoint-5": True,
    "report_to: [tensorboard]": True,
    "report_to: none": True,
}


@pytest.mark.parametrize(("line", "is_valid"), VALUES.items(), ids=VALUES)
def test_an_editor_and_training_agree_on_what_a_recipe_may_say(line, is_valid, validator, tmp_path):
    assert validator.is_valid(read_yaml(line)) is is_valid
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(line)
    if is_valid:
        read_recipe(recipe)
    else:
        with pytest.raises(ArgumentError, match=r"recipe\.yaml: .*" + line.partition(":")[0]):
            read_recipe(recipe)


def test_the_table_has_a_row_of_texts_for_every_option():
    rows = schema.options_table()
    assert [row.name for row in rows] == list(schema.options())
    assert all(isinstance(text, str) for row in rows for text in row)
    by_name = {name: (group, kind, default) for group, name, kind, default, _ in rows}
    assert by_name["max_source_length"] == ("data", "integer", "256")
    assert by_name["overlong"] == ("data", "one of truncate, drop", "truncate")
    assert by_name["config_overrides"] == ("model", "mapping or text", "")
    assert by_name["learning_rate"] == ("training", "number", "5e-05")
    assert by_name["streaming"] == ("data", "true or false", "false")
