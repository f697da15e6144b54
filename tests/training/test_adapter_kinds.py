# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""PEFT's six kinds of adapters by a recipe: each trains, resumes, loads and decodes, or is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, LoraConfig, get_peft_model
from small_adapters import (
    EVALUATION,
    SAVING,
    WEIGHTS,
    adapter_options,
    adapter_weights,
    logits,
    train_and_keep,
    train_base,
)
from small_models import make_model
from small_runs import nightly, refused
from small_tokenizers import letters
from torch.testing import assert_close
from transformers import AutoTokenizer, Seq2SeqTrainingArguments

from hf_xformer.checkpoints.loading import load_model
from hf_xformer.commands import evaluate, generate, info, merge, train
from hf_xformer.files import WHOLE_ADAPTER
from hf_xformer.training.arguments import DataArguments
from hf_xformer.training.evaluation import fit_generation


KINDS = {
    "LORA": {"r": 2, "use_rslora": True},
    "ADALORA": {"init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 2},
    "IA3": {},
    "PREFIX_TUNING": {"num_virtual_tokens": 3},
    "PROMPT_TUNING": {"num_virtual_tokens": 3},
    "P_TUNING": {"num_virtual_tokens": 3, "encoder_hidden_size": 8},
    "projected": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3, "prefix_projection": True},
}
MERGED = ("LORA", "ADALORA", "IA3")


@pytest.fixture(scope="module")
def base(task, tmp_path_factory) -> Path:
    return train_base(task, tmp_path_factory.mktemp("base") / "run")


@pytest.fixture
def options(task, base):
    def of(folder: Path, kind: str, **more) -> list[str]:
        chosen = json.dumps({"peft_type": kind, **KINDS[kind]})
        return adapter_options(
            task, base, folder, **{"lora_rank": None, "peft_config": chosen, "learning_rate": 0.05, **more}
        )

    return of


def assert_verbs_read(run: Path, base: Path, kind: str, capsys) -> None:
    (run / "texts.txt").write_text("A B C\nD\n")
    generate.main([str(run), "--input", str(run / "texts.txt"), "--output", str(run / "out.txt")])
    model, tokenizer = load_model(str(run)).eval(), AutoTokenizer.from_pretrained(run)
    tokens = model.generate(**tokenizer(["A B C", "D"], padding=True, return_tensors="pt"), do_sample=False)
    expected = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert (run / "out.txt").read_text().splitlines() == [text.strip() for text in expected]
    capsys.readouterr()
    info.main([str(run)])
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["model"] == f"{base.resolve()} (xformer)"
    assert ("hf-xformer merge" in said["merging"]) == (kind in MERGED)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_saves_loads_and_decodes_as_it_was_trained(
    kind, options, task, base, tmp_path, monkeypatch, capsys
):
    more = {"max_steps": 8, **EVALUATION, **SAVING}
    trained = train_and_keep(monkeypatch, options(tmp_path / "run", kind, **more))
    expected = logits(trained)
    assert (expected - logits(load_model(str(base)))).abs().max() > 1e-2
    for model in (load_model(str(tmp_path / "run")), AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "run")):
        assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    results = json.loads((tmp_path / "run/eval_results.json").read_text())
    arguments = ["--test_file", task.validation, "--metrics", "per", "--output_file", str(tmp_path / "scores.json")]
    evaluate.main([str(tmp_path / "run"), *arguments])
    assert json.loads((tmp_path / "scores.json").read_text())["per"] == pytest.approx(results["eval_per"], abs=1e-3)
    assert_verbs_read(tmp_path / "run", base, kind, capsys)
    if kind in MERGED:
        merge.main([str(tmp_path / "run"), str(tmp_path / "merged")])
        assert_close(logits(load_model(str(tmp_path / "merged"))), expected, atol=1e-5, rtol=1e-5)
    else:
        line = refused(merge, [tmp_path / "run", tmp_path / "merged"], capsys)
        assert "not an adapter that can be merged" in line
    assert (tmp_path / f"run/checkpoint-8/{WHOLE_ADAPTER}").exists() == (kind in ("ADALORA", "P_TUNING", "projected"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "LORA"])
@pytest.mark.parametrize("best", [False, *nightly(True)])
def test_a_stopped_run_of_every_kind_ends_with_the_adapters_of_an_unbroken_one(best, kind, options, tmp_path, capsys):
    more = {"max_steps": 9, **EVALUATION, **SAVING}
    if best:
        more |= {"load_best_model_at_end": "true", "metric_for_best_model": "per", "greater_is_better": "false"}
    train.main(options(tmp_path / "unbroken", kind, **more))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    for step in (6, 9):
        shutil.rmtree(tmp_path / f"broken/checkpoint-{step}")
    (tmp_path / "broken" / WEIGHTS).unlink()
    state = tmp_path / "broken/checkpoint-3/trainer_state.json"
    state.write_text(state.read_text().replace("unbroken", "broken"))
    capsys.readouterr()
    train.main(options(tmp_path / "broken", kind, **more))
    assert f"resuming from {tmp_path}/broken/checkpoint-3" in capsys.readouterr().out
    one, two = (adapter_weights(tmp_path / name) for name in ("unbroken", "broken"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    (tmp_path / "broken" / WEIGHTS).unlink()
    train.main(options(tmp_path / "broken", kind, **more))
    assert "is the end of this run" in capsys.readouterr().out
    two = adapter_weights(tmp_path / "broken")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_runs_generation_config_reaches_the_base_which_decodes(tmp_path):
    """An attribute that is set on PEFT's model stays there."""
    path = tmp_path / "generation.json"
    path.write_text('{"num_beams": 3, "do_sample": true}')
    model = make_model()
    model.generation_config.update(num_beams=2, no_repeat_ngram_size=3)
    special = {name: getattr(model.generation_config, name) for name in ("decoder_start_token_id", "eos_token_id")}
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q_proj"]))
    args = Seq2SeqTrainingArguments(tmp_path / "run", generation_config=path)
    fit_generation(adapted, letters(), DataArguments(max_target_length=10), args, print)
    config = adapted.get_base_model().generation_config
    assert (config.num_beams, config.do_sample, config.max_length) == (3, False, 11)
    # The file's fields alone are taken over.
    assert config.no_repeat_ngram_size == 3 and {name: getattr(config, name) for name in special} == special
    assert adapted.generation_config is config
