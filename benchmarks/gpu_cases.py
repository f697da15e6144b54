# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The cases of benchmarks/gpu.py: what is measured, of ours and of stock models with the same shape."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from accelerate.utils import send_to_device
from costs import peak_mib, seconds_in_turn, wait_for_device
from peers import STOCK, Padding, Shape, loss_of, padded, xformer
from torch import nn
from torch._dynamo.utils import counters
from train_step import draw_pairs
from transformers import CompileConfig

from hf_xformer.data.collators import DataCollatorForPackedSeq2Seq
from hf_xformer.models import why_not_varlen
from hf_xformer.training.throughput import peak_flops


OURS = "hf-xformer"
PEERS = ("BART", "T5", "T5Gemma")
MAKERS: dict[str, Callable[..., nn.Module]] = {OURS: xformer, **{name: STOCK[name] for name in PEERS}}

# Twelve and twelve layers, width 768, gated feed-forward of 2048: 248 M with an output layer of its own, as nanoT5's.
SHAPES = {"base": Shape(12, 768, 12, 3072, 32_000, 1024), "large": Shape(12, 1024, 16, 4096, 32_000, 1024)}
TINY = Shape(2, 64, 4, 96, 256, 1024)


@dataclass(frozen=True)
class Setting:
    """Where the cases are measured and how large they are."""

    device: torch.device
    tiny: bool
    whole: bool = False  # stock models are compiled whole and not by the layer

    @property
    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def make(self, name: str, shape: Shape, **overrides) -> nn.Module:
        """Returns a model of random weights, drawn on the device."""
        with self.device:
            model = MAKERS[name](shape, **overrides)
        return model.to(self.device)


@dataclass(frozen=True)
class Measurement:
    """One row of a case: its name, the function that measures it, and the seconds that it needs at least."""

    name: str
    run: Callable[[], dict]
    seconds: float = 5.0


def training_flops(shape: Shape, pairs: list[dict]) -> float:
    """
    Returns the operations of a training step that its pairs need, padding and recomputation left out.

    Six a weight and token, as in Kaplan et al. 2020: two forward, four backward. Source tokens meet the encoder's
    weights and the decoder's projections of the memory, target tokens the rest of the decoder and the output layer.
    Attention adds, forward, 4 d a query and key that it may see (scores and mixed values; the causal half of the
    decoder's own), and twice that backward.
    """
    d, layers = shape.d_model, shape.layers
    feed_forward = 2 * d * shape.ffn  # the gated one has as many weights
    of_source = layers * (4 * d * d + feed_forward + 2 * d * d)
    of_target = layers * (4 * d * d + 2 * d * d + feed_forward) + d * shape.vocabulary
    total = 0.0
    for pair in pairs:
        source, target = len(pair["input_ids"]), len(pair["labels"])
        seen = source * source + target * source + target * target / 2
        total += 6 * (of_source * source + of_target * target) + 12 * d * layers * seen
    return total


def batches_of(pairs: list[dict]) -> dict[str, dict]:
    """Returns pairs as a padded batch, as a packed row of as many tokens as they have, and as one of a fixed size."""
    longest = max(sum(len(pair[side]) for pair in pairs) for side in ("input_ids", "labels"))
    fixed = DataCollatorForPackedSeq2Seq(Padding(), row_length=-(-longest // 64) * 64, fixed=True)
    return {"padded": padded(pairs), "packed": DataCollatorForPackedSeq2Seq(Padding())(pairs), "fixed": fixed(pairs)}


def training(shape_name: str, setting: Setting) -> Iterator[Measurement]:
    """
    Training steps: forward, backward, AdamW (fused); float32 weights under bfloat16 autocast, dropout 0.1.

    Ours have on a GPU the attention that the train command chooses there. Packed rows have the usual layout; one of a
    fixed size where they are compiled.
    """
    shape = TINY if setting.tiny else SHAPES[shape_name]
    count, shortest, longest = (6, 4, 24) if setting.tiny else (32, 16, 512)
    torch.manual_seed(0)
    pairs = draw_pairs(count // 2, shortest, longest, shape.vocabulary)
    # Each there and back: both sides have as many tokens, and a row that fits one fits the other.
    pairs += [{"input_ids": pair["labels"], "labels": pair["input_ids"]} for pair in pairs]
    batches = batches_of(pairs)
    work = {
        "tokens": sum(len(text) for pair in pairs for text in pair.values()),
        "flops": training_flops(shape, pairs),
    }

    def measured(name: str, layout: str, compiled: str = "") -> Measurement:
        batch = batches["fixed" if layout == "packed" and compiled else layout]
        measure = partial(train, setting, name, shape, batch, work, compiled)
        seconds = {"": 5.0, "layers": 15.0, "whole": 75.0}[compiled]
        words = [name, layout, *({"layers": ["compiled by the layer"], "whole": ["compiled"]}.get(compiled, []))]
        return Measurement(", ".join(words), measure, 0.0 if setting.tiny else seconds)

    yield measured(OURS, "packed")
    yield measured(OURS, "padded")
    yield from (measured(name, "padded") for name in PEERS)
    yield measured(OURS, "packed", "whole")
    yield from (measured(name, "padded", "whole" if setting.whole else "layers") for name in PEERS)


def train(setting: Setting, name: str, shape: Shape, batch: dict, work: dict, compiled: str) -> dict:
    """Returns useful tokens a second, operations a second and memory of a model's training steps."""
    model = setting.make(name, shape).train()
    if name == OURS and why_not_varlen(model.config) is None:
        model.set_attn_implementation("varlen")
    for config in (model.config, getattr(model.config, "decoder", None)):
        if hasattr(config, "use_cache"):
            config.use_cache = False
    parameters = sum(each.numel() for each in model.parameters())
    slots = batch["input_ids"].numel() + batch["labels"].numel()
    batch = send_to_device(batch, setting.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    compile_training(model, compiled, setting)

    def step():
        with setting.autocast:
            loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    counters.clear()
    first = timed(step)
    seconds = seconds_in_turn({name: step}, 1 if setting.tiny else 10)[name]
    rate = work["flops"] / seconds
    card = peak_flops(torch.cuda.get_device_name()) if setting.device.type == "cuda" else None
    return {
        "useful_tokens_per_second": round(work["tokens"] / seconds, 1),
        "model_tflops": round(rate / 1e12, 3),
        "model_flops_utilisation": card and round(rate / card, 4),
        "seconds": round(seconds, 5),
        "first_step_seconds": round(first, 2),
        "graphs": counters["stats"]["unique_graphs"] if compiled else None,
        "peak_mib": round(peak_mib(step)),
        "parameters": parameters,
        "useful_tokens": work["tokens"],
        "padding": round(1 - work["tokens"] / slots, 4),
        "attention": model.config._attn_implementation,
    }


def compile_training(model: nn.Module, compiled: str, setting: Setting) -> None:
    """Compiles a model in place, whole or each layer of its stacks; on a CPU it is traced, not made into code."""
    options = {} if setting.device.type == "cuda" else {"backend": "eager"}
    if compiled == "whole":
        model.compile(**options)
    elif compiled:
        layers = [each for each in model.modules() if isinstance(each, nn.ModuleList) and len(each) > 1]
        # T5 has lists of sublayers within a layer.
        inner = {id(each) for stack in layers for layer in stack for each in layer.modules()}
        for layer in (layer for stack in layers if id(stack) not in inner for layer in stack):
            layer.compile(**options)


def decoding(setting: Setting) -> Iterator[Measurement]:
    """Greedy search and beams: bfloat16 weights, as many new tokens in every row, a growing or a static cache."""
    shape = TINY if setting.tiny else Shape(6, 512, 8, 2048, 32_000)
    length, new = (8, 4) if setting.tiny else (128, 64)
    ways = {
        "greedy, batch 1": (1, 1),
        "greedy, batch 128": (4 if setting.tiny else 128, 1),
        "4 beams, batch 8": (8, 4),
    }

    def measured(name: str, way: str, is_compiled: bool) -> Measurement:
        words = f"{name}, {way}, {'compiled, static cache' if is_compiled else 'eager'}"
        measure = partial(decode, setting, name, shape, (*ways[way], length, new), is_compiled)
        return Measurement(words, measure, 0.0 if setting.tiny else 20.0 if is_compiled else 3.0)

    for way in ways:
        yield from (measured(name, way, False) for name in MAKERS)
    for way in ways:
        yield measured(OURS, way, True)
    for way in list(ways)[:1] if setting.tiny else ways:
        yield from (measured(name, way, True) for name in PEERS)


def decode(setting: Setting, name: str, shape: Shape, sizes: tuple[int, int, int, int], is_compiled: bool) -> dict:
    """Returns new tokens a second; those of several beams count once."""
    rows, beams, length, new = sizes
    model = setting.make(name, shape).to(torch.bfloat16).eval()
    torch.manual_seed(0)
    ids = torch.randint(3, shape.vocabulary, (rows, length), device=setting.device)
    options = {"max_new_tokens": new, "min_new_tokens": new, "num_beams": beams, "do_sample": False}
    if is_compiled:
        options["cache_implementation"] = "static"
        backend = {} if setting.device.type == "cuda" else {"backend": "eager", "mode": None}
        if beams > 1:  # the library does not compile those by itself
            model.forward = torch.compile(model.forward, dynamic=False, **backend)
            options["disable_compile"] = True
        else:
            options["compile_config"] = CompileConfig(**backend)
            options["compile_config"]._compile_all_devices = True

    def generate() -> None:
        tokens = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        assert tokens.shape == (rows, new + 1)

    counters.clear()
    first = timed(generate)
    seconds = seconds_in_turn({name: generate}, 1 if setting.tiny else 3)[name]
    return {
        "tokens_per_second": round(rows * new / seconds, 1),
        "seconds": round(seconds, 4),
        "first_call_seconds": round(first, 2),
        "graphs": counters["stats"]["unique_graphs"] if is_compiled else None,
        "peak_mib": round(peak_mib(generate)),
        "attention": model.config._attn_implementation,
    }


def encoder(setting: Setting) -> Iterator[Measurement]:
    """Forward and backward of encoders over one long text without padding, bfloat16 autocast."""
    lengths, block = ((64, 128), 16) if setting.tiny else ((16_384, 65_536), 256)
    for length in lengths:
        shape = dataclasses.replace(TINY if setting.tiny else Shape(6, 512, 8, 2048, 32_000), positions=length)
        types = {"encoder_layer_types": ["chunked_attention"] * shape.layers, "block_size": block}
        for name, overrides in {f"{OURS}, blocks": types, f"{OURS}, full": {}, **dict.fromkeys(PEERS, {})}.items():
            measure = partial(encode, setting, name.partition(",")[0], shape, overrides)
            yield Measurement(f"{name}, {length:,} tokens", measure, 0.0 if setting.tiny else 3.0)


def encode(setting: Setting, name: str, shape: Shape, overrides: dict) -> dict:
    """Returns tokens a second and memory of an encoder."""
    stack = setting.make(name, shape, **overrides).train().get_encoder()
    ids = torch.randint(3, shape.vocabulary, (1, shape.positions), device=setting.device)

    def run():
        stack.zero_grad()
        with setting.autocast:
            x = stack(input_ids=ids).last_hidden_state
        x.float().square().mean().backward()

    seconds = seconds_in_turn({name: run}, 1 if setting.tiny else 3)[name]
    return {
        "tokens_per_second": round(shape.positions / seconds, 1),
        "seconds": round(seconds, 4),
        "peak_mib": round(peak_mib(run)),
        "attention": stack.config._attn_implementation,
    }


def large_vocabulary(setting: Setting) -> Iterator[Measurement]:
    """Forward and backward of a model with 250,000 entries: the loss without logits, with them, and stock models."""
    sizes = (4096, 512) if setting.tiny else (250_000, 8192)
    shape = dataclasses.replace(TINY if setting.tiny else Shape(3, 512, 8, 2048, 0), vocabulary=sizes[0])
    rows = {f"{OURS}, without logits": False, f"{OURS}, with logits": True, **dict.fromkeys(PEERS)}
    for name, output_logits in rows.items():
        options = {} if output_logits is None else {"output_logits": output_logits}
        measure = partial(lose, setting, name.partition(",")[0], shape, sizes[1], options)
        yield Measurement(name, measure, 0.0 if setting.tiny else 3.0)


def lose(setting: Setting, name: str, shape: Shape, tokens: int, options: dict) -> dict:
    """Returns seconds and memory of a loss and its gradients on so many target tokens, in rows of 64."""
    model = setting.make(name, shape).train()
    ids = torch.randint(3, shape.vocabulary, (tokens // 64, 64), device=setting.device)

    def run():
        model.zero_grad()
        with setting.autocast:
            loss = loss_of(model, {"input_ids": ids, "labels": ids, **options})
        loss.backward()

    seconds = seconds_in_turn({name: run}, 1 if setting.tiny else 3)[name]
    return {
        "seconds": round(seconds, 4),
        "peak_mib": round(peak_mib(run)),
        "logits_mib": round(4 * tokens * shape.vocabulary / 2**20),
        "target_tokens": tokens,
        "attention": model.config._attn_implementation,
    }


def timed(run: Callable) -> float:
    wait_for_device()
    start = time.perf_counter()
    run()
    wait_for_device()
    return time.perf_counter() - start


CASES: dict[str, Callable[[Setting], Iterator[Measurement]]] = {
    "train_base": partial(training, "base"),
    "train_large": partial(training, "large"),
    "decode": decoding,
    "encoder": encoder,
    "loss": large_vocabulary,
}
