# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a training will take: counted like the model itself, divided as the launch configurations say."""

import shlex

import pytest
import torch
from small_runs import ROOT, refused

from hf_xformer import XformerConfig, XformerForSeq2SeqLM
from hf_xformer.commands import estimate
from hf_xformer.data.tokenizers import train_tokenizer
from hf_xformer.errors import ArgumentError
from hf_xformer.training.estimation import Batch, count, memory, read_launch, run_without_memory
from hf_xformer.training.recipe import parse_overrides


CONFIGS = sorted((ROOT / "configs/accelerate").glob("*.yaml"))
BATCH = Batch(rows=7, source=88, target=56)


@pytest.mark.slow
def test_a_source_may_be_longer_than_the_decoders_positions(capsys):
    """Rotary positions that change with the length end in a decoder's cache, and nowhere in an encoder."""
    rope = ROOT / "configs/model/modern-base.json"
    change = "max_position_embeddings=64,rope_parameters={rope_type: dynamic, rope_theta: 10000.0, factor: 2.0}"
    options = ["--config_name", str(rope), "--config_overrides", change, "--max_source_length", "256"]
    estimate.main([*options, "--max_target_length", "64"])
    with pytest.raises(SystemExit):
        estimate.main([*options, "--max_target_length", "65"])
    assert "--max_target_length 65 is beyond the model's `max_position_embeddings` of 64" in capsys.readouterr().err


RECIPE = """
config_name: configs/model/tiny.json
config_overrides: {d_model: 32, rope_parameters: {rope_theta: 5000.0}}
max_source_length: 32
max_tokens: 1024
bf16: true
lora_rank: 8
"""


def test_a_recipe_is_counted_as_the_command_line_that_is_printed(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    args = estimate.read_options([str(tmp_path / "recipe.yaml"), "--max_source_length", "64"])
    command, left = capsys.readouterr().out.splitlines()
    printed = estimate.read_options([*shlex.split(command)[2:], "--max_source_length", "64"])
    assert vars(args) | {"recipe": None} == vars(printed)
    assert (args.max_source_length, args.max_target_length, args.per_device_train_batch_size) == (64, 256, 4)
    assert (args.config_name, args.mixed_precision) == ("configs/model/tiny.json", "bf16") and "lora_rank" in left
    tokenizer = train_tokenizer(["A B C"], "symbol")
    for name, said in (
        ("none", "configuration: none: "),
        (str(tmp_path / "tokenizer"), f'"vocab_size": {len(tokenizer)}'),
    ):
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        (tmp_path / "recipe.yaml").write_text(f"{RECIPE}\ntokenizer_name: {name}")
        estimate.read_options([str(tmp_path / "recipe.yaml")])
        assert said in capsys.readouterr().out
    args = estimate.read_options([str(tmp_path / "recipe.yaml"), "--config_overrides", "dropout=0.2"])
    assert {"vocab_size": len(tokenizer), "dropout": 0.2}.items() <= parse_overrides(args.config_overrides).items()
    capsys.readouterr()
    (tmp_path / "recipe.yaml").write_text(f"{RECIPE}\nema_decay: 0.99\noptim: adamw_torch\nr_drop: 1.0")
    assert estimate.read_options([str(tmp_path / "recipe.yaml")]).per_device_train_batch_size == 8
    said = capsys.readouterr().out
    assert "optim" not in said and "counts no averages of ema_decay" in said
    (tmp_path / "recipe.yaml").write_text(f"{RECIPE}\noptim: adamw_bnb_8bit")
    estimate.read_options([str(tmp_path / "recipe.yaml")])
    assert "lora_rank, optim may take less" in capsys.readouterr().out
    (tmp_path / "recipe.yaml").write_text("seed: 1")
    assert "recipe.yaml: names no model" in refused(estimate, [tmp_path / "recipe.yaml"], capsys)


@pytest.mark.slow
def test_a_recipe_is_estimated(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    launch = str(ROOT / "configs/accelerate/cpu.yaml")
    estimate.main([str(tmp_path / "recipe.yaml"), "--accelerate_config", launch])
    assert "4 rows of 32 source and 256 target tokens a device and step" in capsys.readouterr().out


@pytest.fixture(scope="module")
def config():
    sizes = {"d_model": 64, "encoder_layers": 4, "decoder_layers": 3, "encoder_ffn_dim": 56, "decoder_ffn_dim": 48}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 2}
    types = {"encoder_layer_types": ["chunked_attention"] * 4, "block_size": 8}
    return XformerConfig(vocab_size=70, **sizes, **heads, **types)


@pytest.fixture(scope="module")
def counted(config):
    return count(config, BATCH, "float32")


@pytest.mark.slow
def test_what_is_counted_on_few_layers_is_what_all_of_them_take(config, counted):
    flops, _, highest = run_without_memory(config, BATCH, "float32")
    assert counted.flops == pytest.approx(3 * flops, rel=1e-3)  # every second layer has half a block more
    assert counted.activations == pytest.approx(highest, rel=1e-2)
    assert counted.parameters == XformerForSeq2SeqLM(config).num_parameters()


MIXED = {
    "full last": {"encoder_layer_types": ["chunked_attention"] * 3 + ["full_attention"]},
    "full first": {"encoder_layer_types": ["full_attention"] + ["chunked_attention"] * 3},
    "blocks first": {"encoder_layer_types": ["chunked_attention"] + ["full_attention"] * 3},
    "three types": {
        "encoder_layer_types": ["chunked_attention", "sliding_attention", "full_attention"] + ["sliding_attention"]
    },
    "decoder": {"decoder_layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("types", MIXED.values(), ids=MIXED)
def test_layers_of_several_types_count_as_what_they_are(types, config):
    config = XformerConfig(**{**config.to_dict(), **types})
    batch = Batch(rows=1, source=512, target=256)
    counted, (flops, _, highest) = count(config, batch, "float32"), run_without_memory(config, batch, "float32")
    assert counted.flops == pytest.approx(3 * flops, rel=5e-3)
    assert counted.activations == pytest.approx(highest, rel=3e-2)


@pytest.mark.slow
def test_activations_are_those_that_autograd_keeps(config):
    """Counted once more by torch's own hooks, on a model that has memory."""
    config = XformerConfig(**{**config.to_dict(), "dropout": 0.0, "encoder_layer_types": None})
    model = XformerForSeq2SeqLM(config).train()
    weights = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    source, target = (torch.ones(BATCH.rows, length, dtype=torch.long) for length in (BATCH.source, BATCH.target))
    mask = source.clone()
    mask[0, -1] = 0  # a batch without padding needs no masks; nobody counts on one
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=source, attention_mask=mask, labels=target).loss
    _, kept, highest = run_without_memory(config, BATCH, "float32")
    # The loss has its gradients at hand: of the decoder's output and of the output layer.
    at_hand = 4 * config.d_model * (BATCH.rows * BATCH.target + config.vocab_size)
    assert loss.isfinite() and kept == pytest.approx(sum(storages.values()) + at_hand, rel=0.05)
    assert kept <= highest < 1.5 * kept


@pytest.mark.slow
def test_the_arithmetic_is_six_products_a_weight_and_token(config):
    """Twice forward and four times backward, of the tokens that meet the weight; attention itself is little here."""
    config = XformerConfig(**{**config.to_dict(), "encoder_layer_types": None, "d_model": 256, "vocab_size": 3000})
    batch = Batch(rows=2, source=9, target=7)
    model = XformerForSeq2SeqLM(config).model
    of_encoder, of_decoder = (
        sum(each.numel() for name, each in stack.layers.named_parameters() if each.ndim == 2 and "cross" not in name)
        for stack in (model.encoder, model.decoder)
    )
    across = {name: each.numel() for name, each in model.decoder.layers.named_parameters() if "cross" in name}
    of_memory = sum(size for name, size in across.items() if "k_proj" in name or "v_proj" in name)
    of_target = sum(size for name, size in across.items() if "q_proj" in name or "o_proj" in name)
    by_source, by_target = of_encoder + of_memory, of_decoder + of_target + config.vocab_size * config.d_model
    expected = 6 * batch.rows * (batch.source * by_source + batch.target * by_target)
    assert count(config, batch, "float32").flops == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_half_precision_and_checkpointing_take_less(config, counted):
    mixed, half = (count(config, BATCH, arithmetic) for arithmetic in ("autocast", "bfloat16"))
    assert half.activations < mixed.activations < counted.activations and half.parameters == counted.parameters
    assert counted.checkpointed < counted.activations


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_launch_configuration_can_be_estimated(path, counted):
    launch = read_launch(path, processes=2)
    taken = memory(launch, counted, checkpointing=False)
    assert taken.total > counted.activations
    assert (taken.host > 0) == ("offload" in path.stem)


def test_sharding_further_takes_less_on_each_device(counted):
    taken = {
        name: memory(read_launch(ROOT / f"configs/accelerate/{name}.yaml", 8, half=True), counted, False)
        for name in ("multi-gpu", "zero1", "zero2")
    }
    states = {name: each.weights + each.gradients + each.optimizer for name, each in taken.items()}
    buckets = {"zero1": 50e6, "zero2": 2 * 50e6}
    for name, elements in buckets.items():
        states[name] -= 2 * elements
    assert states["multi-gpu"] > states["zero1"] > states["zero2"]
    assert states["multi-gpu"] == (8 + 4 + 8) * counted.parameters


@pytest.mark.slow
def test_the_command_prints_a_line_a_configuration_and_days(capsys):
    options = ["--config_name", str(ROOT / "configs/model/tiny.json"), "--num_processes", "4"]
    options += ["--train_tokens", "1e16", "--max_source_length", "64", "--max_target_length", "32"]
    files = [str(ROOT / f"configs/accelerate/{name}.yaml") for name in ("gpu-bf16", "zero3")]
    estimate.main([*options, "--device_memory", "0.001", "--accelerate_config", *files])
    output = capsys.readouterr().out
    assert "gpu-bf16                 1" in output and "zero3                    4" in output
    assert output.count("over 0.001") == 2 and "on 4 devices" in output and "days" in output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config_name", "nowhere/model.json"], "nowhere/model.json"),
        (
            ["--config_name", "configs/model/tiny.json", "--utilisation", "40"],
            "--utilisation: must be a number above 0 and at most 1, got 40",
        ),
        (["--config_name", "configs/model/tiny.json", "--max_source_length", "0"], "--max_source_length"),
        (["--config_name", "configs/model/tiny.json", "--accelerate_config", "Makefile"], "Makefile"),
    ],
)
def test_the_command_names_what_it_cannot_take(options, words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        estimate.main(options)
    assert words in capsys.readouterr().err


def test_a_file_that_is_no_launch_configuration_is_named(tmp_path):
    (tmp_path / "odd.yaml").write_text("distributed_type: TPU\n")
    with pytest.raises(ArgumentError, match="odd.yaml"):
        read_launch(tmp_path / "odd.yaml")
