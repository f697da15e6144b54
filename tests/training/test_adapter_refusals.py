# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Bad `--peft_config`s, and adapters that fit neither the model nor the other options: one line, nothing written."""

import json
from pathlib import Path

import pytest
from small_adapters import adapter_options
from small_models import VARIANTS, make_model
from small_runs import refused
from transformers import AutoTokenizer, BartConfig, MarianConfig, PegasusConfig

from hf_xformer.commands import train
from hf_xformer.errors import ArgumentError
from hf_xformer.training.adapters import make_adapter
from hf_xformer.training.arguments import CHECKPOINTING, ModelArguments


LORA, ADALORA, IA3 = ({"peft_type": kind} for kind in ("LORA", "ADALORA", "IA3"))
PREFIX, PROMPTS = ({"peft_type": f"{kind}_TUNING", "num_virtual_tokens": 3} for kind in ("PREFIX", "PROMPT"))
BLOCKS = {**VARIANTS["rope-pre-blocks"], "decoder_layer_types": ["sliding_attention"] * 3}
BAD = [
    ("IA3", "--peft_config 'IA3': expected a mapping such as {peft_type: IA3}"),
    ("{}", "--peft_config peft_type: there are LORA, ADALORA"),
    ("{peft_type: ", "--peft_config: line 1"),
    ({"r": 2}, "--peft_config peft_type: there are LORA, ADALORA"),
    ({"peft_type": "ADALOAR"}, "'ADALOAR' is none of its choices; did you mean ADALORA?"),
    ({"peft_type": ["LORA"]}, "['LORA'] is none of its choices"),
    ({**LORA, "lora_alhpa": 2}, "--peft_config lora_alhpa: unknown for LORA; did you mean lora_alpha?"),
    ({**IA3, "r": 4}, "--peft_config r: unknown for IA3; IA3Config of PEFT has exclude_modules"),
    ({**LORA, "r": 0}, "--peft_config r must be 1 or more, got 0"),
    ({**LORA, "r": "many"}, "--peft_config r: expected integer, got 'many'"),
    ({**LORA, "r": 2**62}, "--peft_config: "),
    ({**LORA, "lora_dropout": 1}, "--peft_config lora_dropout must be in [0, 1), got 1"),
    ({**LORA, "target_modules": ["queries"]}, "--peft_config target_modules queries: "),
    ({**LORA, "target_modules": "("}, "--peft_config target_modules (: missing )"),
    ({**LORA, "target_modules": ["lm_head"]}, "lm_head shares its weight"),
    ({**LORA, "exclude_modules": ["q_proj", "v_proj"]}, "--peft_config: No modules were targeted"),
    ({**LORA, "layers_to_transform": [7]}, "--peft_config: Target modules"),
    ({**LORA, "init_lora_weights": "pissa"}, "init_lora_weights pissa: take true, gaussian or orthogonal"),
    ({**LORA, "bias": "all"}, "--peft_config bias: a run trains and saves adapters alone"),
    ({**IA3, "modules_to_save": ["lm_head"]}, "--peft_config modules_to_save: a run trains and saves adapters alone"),
    ({**LORA, "task_type": "CAUSAL_LM"}, "--peft_config task_type: the run sets it"),
    ({**ADALORA, "init_r": 2}, "--peft_config init_r 2: ranks become fewer, down to target_r 8"),
    ({**ADALORA, "total_step": 6, "tinit": 3, "tfinal": 3}, "don't allow for a budgeting phase"),
    ({**ADALORA, "total_step": 60, "deltaT": 4}, "--peft_config deltaT 4: between two allocations PEFT trains ranks"),
    ({"peft_type": "P_TUNING"}, "--peft_config: P_TUNING needs num_virtual_tokens"),
    ({"peft_type": "P_TUNING", "num_virtual_tokens": 3, "encoder_dropout": 0.5}, "does nothing without encoder_rep"),
    (
        {"peft_type": "P_TUNING", "num_virtual_tokens": 3, "encoder_dropout": 0.5}
        | {"encoder_reparameterization_type": "LSTM"},
        "has PEFT save prompts as dropout has left them",
    ),
    ({**PREFIX, "token_dim": 7}, "--peft_config token_dim: it follows from the model"),
    ({**PREFIX, "num_virtual_tokens": 2**50}, "--peft_config: "),
    ({**PROMPTS, "num_layers": 7}, "--peft_config num_layers: it follows from the model"),
    ({**PROMPTS, "num_transformer_submodules": 1}, "an encoder-decoder has 2"),
    ({**PROMPTS, "prompt_tuning_init": "WORDS"}, "'WORDS' is none of its choices"),
    (
        {**PROMPTS, "prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": "A"},
        "prompt_tuning_init_text does nothing with prompt_tuning_init RANDOM",
    ),
]
# Adapters, options beside them, and what is said.
UNFIT = {
    "two ways": (IA3, {"lora_rank": 2}, "--lora_rank and --peft_config: both say which adapters"),
    "option of the other": (IA3, {"lora_alpha": 2}, "--lora_alpha 2 does nothing without --lora_rank"),
    "epochs": (ADALORA, {"max_steps": None, "num_train_epochs": 2}, "ADALORA needs to know how long the run is"),
    "averages": (ADALORA, {"max_steps": 800, "ema_decay": 0.9}, "--ema_decay: an average has the ranks"),
    "packed prefixes": (PREFIX, {"packing": "true", "max_tokens": 40}, "--packing: prefix tuning puts 3 tokens"),
    "packed prompts": (PROMPTS, {"packing": "true", "max_tokens": 40}, "--packing: prompt tuning puts 3 tokens"),
    "long target": (PREFIX, {"max_target_length": 18}, "--max_target_length 18 and 3 of --peft_config"),
    "long source": (PROMPTS, {"max_source_length": 18}, "--max_source_length 18 and 3 of --peft_config"),
    "no cache": (PREFIX, {CHECKPOINTING: "true"}, f"--{CHECKPOINTING}: it computes layers without"),
    "blocks": (PREFIX, {}, "prefix tuning needs full attention in the decoder"),
}


@pytest.fixture(scope="module")
def bases(task, tmp_path_factory) -> dict[str, Path]:
    """Models of which one has positions for twenty tokens, and one blocks in its decoder."""
    tokenizer = AutoTokenizer.from_pretrained(task.tokenizer)
    found = {}
    for name, fields in {
        "learned": {**VARIANTS["learned-pre"], "max_position_embeddings": 20},
        "blocks": BLOCKS,
    }.items():
        found[name] = tmp_path_factory.mktemp("base") / name
        make_model(**{**fields, "vocab_size": len(tokenizer)}).save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


@pytest.mark.parametrize(("content", "said"), BAD, ids=lambda each: str(each)[:60])
def test_bad_adapters_are_one_line(content, said, task, bases, tmp_path, capsys):
    text = content if isinstance(content, str) else json.dumps(content)
    more = {"lora_rank": None, "peft_config": text, "max_steps": 800}
    assert said in refused(train, adapter_options(task, bases["learned"], tmp_path / "run", **more), capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", UNFIT)
def test_adapters_that_do_not_fit_are_one_line(case, task, bases, tmp_path, capsys):
    content, more, said = UNFIT[case]
    base = bases["blocks" if case == "blocks" else "learned"]
    more = {"lora_rank": None, "peft_config": json.dumps(content), **more}
    assert said in refused(train, adapter_options(task, base, tmp_path / "run", **more), capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_prompt_takes_positions_of_the_source_alone_and_a_prefix_those_of_the_target(task, bases, tmp_path):
    for content, side in ((PROMPTS, "source"), (PREFIX, "target")):
        other = {"source": "target", "target": "source"}[side]
        lengths = {f"max_{side}_length": 17, f"max_{other}_length": 20}
        more = {"lora_rank": None, "peft_config": json.dumps(content), "max_steps": 1, **lengths}
        train.main(adapter_options(task, bases["learned"], tmp_path / side, **more))


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "P_TUNING"])
@pytest.mark.parametrize("config", [MarianConfig, PegasusConfig, BartConfig])
def test_prompts_of_a_model_that_scales_embeddings_itself_are_refused(config, kind):
    """PEFT looks the embeddings up, and such a model then reads them without their scale; BART's table has it."""
    stacks = {f"{stack}_{name}": 2 for stack in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    stock = config(vocab_size=12, d_model=16, scale_embedding=True, pad_token_id=0, **stacks)
    adapter = {"peft_type": kind, "num_virtual_tokens": 3} | ({"encoder_hidden_size": 8} if kind == "P_TUNING" else {})
    model_args = ModelArguments(model_name_or_path="x", peft_config=adapter)
    if config is BartConfig:
        assert make_adapter(model_args, stock) is not None
        return
    with pytest.raises(
        ArgumentError, match="PEFT leaves out the factor of 4 by which .* scales embeddings: train LoRA"
    ):
        make_adapter(model_args, stock)
