# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Plants one fault at a time in a copy of the package and shows which test catches it.

    python tests/mutants.py [words of a fault]

A fault that no test catches, or a line that is no longer there to be made faulty, is an error.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple


ROOT = Path(__file__).resolve().parent.parent
MODEL, CORE = "tests/models/test_modeling_xformer.py", "tests/models/test_attention_xformer.py"
ATTENTION, GENERATION = "tests/conformance/test_own_attention.py", "tests/conformance/test_own_generation.py"
OUTPUTS, TRAINING = "tests/conformance/test_own_generation_outputs.py", "tests/conformance/test_own_training.py"
CONFIG, STOCK = "tests/models/test_configuration_xformer.py", "tests/checkpoints/test_conversion.py"
PACKING, OUTPUT = "tests/models/test_packing_xformer.py", "tests/models/test_output_xformer.py"
BLOCKS, WINDOWS = "tests/models/test_blocks_xformer.py", "tests/conformance/test_own_generation_blocks.py"


class Mutant(NamedTuple):
    """A fault: in place of `line`, which stands once in the files that travel with the weights, `faulty`."""

    fault: str
    line: str
    faulty: str
    tests: tuple[str, ...] = (MODEL, ATTENTION)
    # Of those tests only the ones with these words in their names, so that a fault takes seconds.
    words: str = ""


MUTANTS = (
    # Who attends to whom
    Mutant(
        "the encoder ignores the source mask",
        "create_bidirectional_mask(self.config, keys.tokens, keys.attention_mask, and_mask_function=condition)",
        "create_bidirectional_mask(self.config, keys.tokens, None, and_mask_function=condition)",
        words="padding or marian",
    ),
    Mutant(
        "cross-attention ignores the source mask",
        "memory_rows = self.rows(memory, encoder_attention_mask, encoder_segment_ids)",
        "memory_rows = self.rows(memory, None, encoder_segment_ids)",
        words="padding or marian",
    ),
    Mutant(
        "the decoder is not causal in prefill under sdpa",
        'XformerSelfAttention(config, layer_idx, "decoder", is_causal=True)',
        'XformerSelfAttention(config, layer_idx, "decoder", is_causal=False)',
    ),
    Mutant(
        "the decoder ignores the padding of its prefix",
        "make(self.config, tokens, mask, cache, and_mask_function",
        "make(self.config, tokens, None, cache, and_mask_function",
        words="padding",
    ),
    Mutant(
        "the encoder is causal",
        'XformerSelfAttention(config, layer_idx, "encoder", is_causal=False)',
        'XformerSelfAttention(config, layer_idx, "encoder", is_causal=True)',
        words="padding",
    ),
    Mutant(
        "FlashAttention cuts the target with the source's mask",
        "if not isinstance(mask, torch.Tensor) or mask.ndim != 2:",
        "if True:",
        (CORE,),
    ),
    # Blocks and windows
    Mutant(
        "blocks: the rest of a row attends to nothing",
        "x = pattern.to_rows(x, self.length)",
        "x = pattern.to_rows(x, self.length)\n"
        "        x = x * (torch.arange(self.length) < self.length // pattern.size * pattern.size)[:, None, None]",
        (BLOCKS,),
    ),
    Mutant("blocks: the shift is ignored", "before = -self.shift % self.size", "before = 0", (BLOCKS,)),
    Mutant("blocks: every layer is shifted", "for i in blocks[1::2] if", "for i in blocks if", (BLOCKS,)),
    Mutant(
        "blocks: global tokens are their own block's keys a second time",
        "self.keys(attended & ~is_leading, attended)",
        "self.keys(attended, attended)",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: global queries stay in their block",
        "x = torch.cat((leading, x[:, pattern.global_tokens :]), dim=1)",
        "pass",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: global queries attend to padding",
        "bidirectional_mask(config, x, rows, length, attended, queries)",
        "bidirectional_mask(config, x, rows, length, None, queries)",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: padding is attended to",
        "attended = x.new_ones(x.shape[:2], dtype=torch.bool) if attended is None else attended",
        "attended = x.new_ones(x.shape[:2], dtype=torch.bool)",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: padding on the left stays there",
        "if is_tracing(attended) or (attended[:, 1:] > attended[:, :-1]).any():",
        "if False:",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: the order of the tokens is not restored", "reorder(x, self.inverse)", "reorder(x, None)", (BLOCKS,)
    ),
    Mutant(
        "blocks: those of the decoder are not causal",
        "return create_causal_mask(config, blocks.flatten(0, 1), None, None)",
        "return create_bidirectional_mask(config, blocks.flatten(0, 1), None)",
        (BLOCKS,),
    ),
    Mutant(
        "blocks: weights of global queries are those within their block",
        "weights.unflatten(0, (x.shape[0], -1)) * is_local",
        "weights.unflatten(0, (x.shape[0], -1))",
        (ATTENTION,),
    ),
    Mutant(
        "windows: the encoder's begins one token late",
        "WindowPattern(size, -size, size, leading)",
        "WindowPattern(size, 1 - size, size, leading)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the encoder's ends one token early",
        "WindowPattern(size, -size, size, leading)",
        "WindowPattern(size, -size, size - 1, leading)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the decoder's begins one token early",
        "WindowPattern(size, 1 - size, 0)",
        "WindowPattern(size, -size, 0)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the decoder's begins one token late",
        "WindowPattern(size, 1 - size, 0)",
        "WindowPattern(size, 2 - size, 0)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the decoder's ends one token late",
        "WindowPattern(size, 1 - size, 0)",
        "WindowPattern(size, 1 - size, 1)",
        (BLOCKS,),
    ),
    Mutant(
        "windows: the encoder's of FlashAttention are one token short",
        'size = config.block_size + (stack == "encoder")',
        "size = config.block_size",
        (CORE,),
        words="flash",
    ),
    Mutant(
        "windows: the decoder's of FlashAttention are one token long",
        'size = config.block_size + (stack == "encoder")',
        "size = config.block_size + 1",
        (CORE,),
        words="flash",
    ),
    Mutant(
        "windows: there are none behind a cache",
        "LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING[pattern]",
        "LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING[FULL]",
        (WINDOWS,),
    ),
    Mutant(
        "windows: later tokens are cut into blocks without those in the cache",
        "not (cache.is_compileable or cache.get_seq_length())",
        "not cache.is_compileable",
        (WINDOWS,),
    ),
    Mutant(
        "windows: a cross-attention cache that forgets is taken",
        "if any(cache.cross_attention_cache.is_sliding):",
        "if False:",
        (WINDOWS,),
    ),
    # Attention
    Mutant(
        "eager attention scales twice", "q @ k.transpose(-1, -2) * scaling", "q @ k.transpose(-1, -2) * scaling**2"
    ),
    Mutant(
        "scores are divided by the head's width, not by its root",
        "config.attention_multiplier or self.head_dim**-0.5",
        "config.attention_multiplier or 1 / self.head_dim",
    ),
    Mutant("the attention multiplier is ignored", "config.attention_multiplier or ", "", (CORE, CONFIG)),
    Mutant(
        "grouped heads are repeated and not interleaved",
        "(y.unsqueeze(2).expand(-1, -1, module.num_key_value_groups, -1, -1).flatten(1, 2) for y in (k, v))",
        "(y.repeat(1, module.num_key_value_groups, 1, 1) for y in (k, v))",
    ),
    Mutant(
        "dropout of attention is active in evaluation",
        "self.dropout if self.training else 0.0",
        "self.dropout",
        words="dropout",
    ),
    Mutant(
        "queries are not normed",
        "q, k = self.q_norm(q), self.k_norm(k)",
        "k = self.k_norm(k)",
        (CORE,),
    ),
    Mutant(
        "queries and keys are normed after the rotation",
        """        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
""",
        """        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        q, k = self.q_norm(q), self.k_norm(k)
""",
        words="qwen3",
    ),
    # Positions
    Mutant(
        "padding counts as a position",
        "return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)",
        "return torch.ones_like(attention_mask).cumsum(dim=-1) - 1",
        words="padding",
    ),
    Mutant(
        "positions restart at 0 with a cache",
        "ids = torch.arange(length, device=self.tokens.device)[None] + past",
        "ids = torch.arange(length, device=self.tokens.device)[None]",
    ),
    Mutant(
        "rotary positions turn neighbours, not halves",
        "a, b = x.chunk(2, dim=-1)",
        "a, b = x[..., ::2], x[..., 1::2]",
        (STOCK,),
    ),
    Mutant(
        "rotary positions turn the second half the wrong way",
        "torch.addcmul(b * cos, a, sin))",
        "torch.addcmul(b * cos, a, -sin))",
        (STOCK,),
    ),
    Mutant(
        "only queries are rotated", "rotate(q, *rotation), rotate(k, *rotation)", "rotate(q, *rotation), k", (STOCK,)
    ),
    Mutant(
        "the decoder's relative positions tell two directions apart",
        'self.directions = 2 if stack == "encoder" else 1',
        "self.directions = 2",
        (CORE,),
    ),
    Mutant(
        "relative positions restart at 0 with a cache",
        "queries = torch.arange(at.queries, device=x.device) + at.past",
        "queries = torch.arange(at.queries, device=x.device)",
    ),
    Mutant(
        "relative distances run from the key to the query",
        "distance = torch.arange(at.keys, device=x.device) - queries[:, None]",
        "distance = queries[:, None] - torch.arange(at.keys, device=x.device)",
        (STOCK,),
    ),
    Mutant(
        "sinusoids are not recomputed after loading",
        "if isinstance(module, XformerSinusoidalPositions):",
        "if False:",
        words="buffers",
    ),
    # Caches
    Mutant(
        "the cross-attention cache is never marked as filled",
        "cache.is_updated[self.layer_idx] = True",
        "cache.is_updated[self.layer_idx] = False",
        (GENERATION,),
    ),
    Mutant(
        "all layers read the first layer's cross-attention cache",
        "cache.cross_attention_cache.layers[self.layer_idx]",
        "cache.cross_attention_cache.layers[0]",
    ),
    Mutant(
        "the cross-attention cache has the decoder's windows",
        "isinstance(cache, EncoderDecoderCache) and any(cache.cross_attention_cache.is_sliding)",
        "False",
        words="cache",
    ),
    Mutant(
        "positions of a padded prefix are forgotten by compiled steps",
        'kwargs["decoder_position_ids"] = count_positions(decoder_attention_mask)',
        "pass",
        (GENERATION,),
        words="prefix",
    ),
    # Layers and stacks
    Mutant(
        "the residual of a pre-norm layer is normed",
        """        y = self.feed_forward(self.feed_forward_norm(x))
        x = self.feed_forward_residual(x, y)
        return x


class""",
        """        x = self.feed_forward_norm(x)
        x = self.feed_forward_residual(x, self.feed_forward(x))
        return x


class""",
        (MODEL, STOCK),
        words="m2m100",
    ),
    Mutant(
        "a post-norm layer norms its sublayer alone",
        "return self.norm(x + self.dropout(y))",
        "return x + self.norm(self.dropout(y))",
    ),
    Mutant(
        "the epsilon of the norms is the library's",
        "eps=config.norm_eps)\n",
        "eps=1e-5)\n",
        (CONFIG,),
        words="norm_eps",
    ),
    Mutant(
        "the gate of the feed-forward is not activated",
        "self.act(self.gate_proj(x)) * self.up_proj(x)",
        "self.gate_proj(x) * self.act(self.up_proj(x))",
        (STOCK,),
    ),
    Mutant(
        "given embeddings are not scaled",
        "return (self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds) * self.embed_scale",
        "return self.embed_tokens(input_ids) * self.embed_scale if inputs_embeds is None else inputs_embeds",
        words="embeds",
    ),
    Mutant(
        "the decoder's output is not scaled down",
        "config.d_model**-0.5 if config.scale_decoder_outputs else 1.0",
        "1.0",
        (CONFIG, STOCK),
        words="scale_decoder_outputs",
    ),
    Mutant(
        "under checkpointing the memory gets no gradient",
        "x, memory, masks[pattern], memory_mask, rotation, bias, **",
        "x, memory=memory, mask=masks[pattern], memory_mask=memory_mask, rotation=rotation, position_bias=bias, **",
        words="checkpointing",
    ),
    Mutant(
        "under checkpointing a layer writes to the cache",
        "rotation, bias, **{CACHE: cache}, **kwargs)",
        "rotation, bias, cache, **kwargs)",
        ("tests/models/test_naming_xformer.py",),
    ),
    # Output layer and loss
    Mutant(
        "the output layer is not tied",
        '_tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}',
        "_tied_weights_keys = {}",
        words="share",
    ),
    Mutant(
        "the stacks have an embedding each",
        "shared = None if config.encoder_vocab_size else self.encoder.embed_tokens",
        "shared = None",
        words="share",
    ),
    Mutant(
        "the labels are shifted twice",
        "self.loss_function = cross_entropy",
        'self.loss_type = "ForCausalLM"',
        words="loss",
    ),
    Mutant(
        "num_items_in_batch is ignored",
        "return total / (num_items_in_batch.to(total.device)",
        "return total / (labels != IGNORED).sum() if True else (num_items_in_batch.to(total.device)",
        (OUTPUT, TRAINING),
        words="loss",
    ),
    Mutant(
        "targets start with the end token",
        "shift_right(labels, segment_ids, self.config.decoder_start_token_id)",
        "shift_right(labels, segment_ids, self.config.eos_token_id)",
    ),
    Mutant(
        "one logit more than asked for is kept",
        "slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)",
        "slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep + (logits_to_keep != 0))",
        words="logits_to_keep",
    ),
    Mutant(
        "an argument that is None hides the config's value",
        "for name, value in kwargs.items() if value is not None}",
        "for name, value in kwargs.items()}",
        words="none",
    ),
    Mutant(
        "a chunk of the loss forgets what is added for the chunks before",
        "loss += losses.masked_fill(~counts, 0.0).sum()",
        "loss = losses.masked_fill(~counts, 0.0).sum()",
        (OUTPUT,),
        words="torchs",
    ),
    Mutant(
        "the gradient of a smoothed label is that of a sharp one",
        "grad.scatter_add_(1, own, grad.new_full(own.shape, smoothing - 1))",
        "grad.scatter_add_(1, own, grad.new_full(own.shape, -1.0))",
        (OUTPUT,),
        words="torchs",
    ),
    Mutant(
        "tokens without a label have a gradient",
        "grad *= counts",
        "grad *= 1",
        (OUTPUT,),
        words="torchs",
    ),
    Mutant(
        "labels are smoothed in evaluation too",
        "smoothing = self.config.label_smoothing if self.training else 0.0",
        "smoothing = self.config.label_smoothing",
        (OUTPUT,),
        words="evaluation",
    ),
    Mutant(
        "a resized output layer computes all logits",
        "        return old_lm_head",
        "        return resized",
        (OUTPUT,),
        words="resized",
    ),
    # Packed rows
    Mutant(
        "positions count through a packed row",
        "return places - (first_of_segments(self.ids) * places).cummax(dim=1).values",
        "return places + 0 * self.ids",
        (PACKING,),
        words="padded",
    ),
    Mutant(
        "padding behind a segment is attended to",
        "attended = None if attended.all() else attended.to(device)",
        "attended = None",
        (PACKING,),
        words="padded",
    ),
    Mutant(
        "a group's results are taken for another's",
        "        done += index.numel()",
        "        done += 0",
        (PACKING,),
        words="groups",
    ),
    Mutant(
        "a packed row's targets have one start token",
        "return torch.where(first_of_segments(segment_ids), start, shifted)",
        "return shifted",
        (PACKING,),
        words="shifted or padded",
    ),
    Mutant(
        "in a graph segments see each other",
        "return (own == keys.ids[row, key]) | (own == 0)",
        "return own == own",
        (PACKING,),
        words="graph",
    ),
    Mutant(
        "relative positions of packed rows are those of the longest row",
        "bias[..., : group.queries.shape[1], : group.keys.shape[1]]",
        "bias[..., -group.queries.shape[1] :, : group.keys.shape[1]]",
        (PACKING,),
        words="relative",
    ),
    Mutant(
        "the norm's gradient has a part along its input",
        "along = (product @ weight).div_(-normed.shape[-1])",
        "along = (product @ weight).div_(1e9)",
        ("tests/models/test_sublayers_xformer.py",),
    ),
)


class Outcome(NamedTuple):
    mutant: Mutant
    caught_by: str | None
    seconds: float


def copy_repository(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("hf_xformer", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)


def plant(mutant: Mutant, folder: Path) -> None:
    files = {path: path.read_text() for path in sorted((folder / "hf_xformer/models").glob("*_xformer.py"))}
    places = [path for path, text in files.items() for _ in range(text.count(mutant.line))]
    if len(places) != 1:
        raise SystemExit(f"error: {mutant.fault!r} is stale: its line stands {len(places)} times in the package")
    source = files[places[0]].replace(mutant.line, mutant.faulty)
    compile(source, places[0].name, "exec")
    places[0].write_text(source)


def run_tests(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def try_mutant(mutant: Mutant) -> Outcome:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy_repository(Path(folder))
        plant(mutant, Path(folder))
        # FlexAttention takes longest and has the others' masks and scores.
        words = f"not flex and ({mutant.words})" if mutant.words else "not flex"
        result = run_tests(Path(folder), "-x", "-rf", "-k", words, *mutant.tests)
    seconds = time.monotonic() - start
    if result.returncode == 0:
        return Outcome(mutant, None, seconds)
    failed = re.search(r"^FAILED (\S+::.+?)(?: - .*)?$", result.stdout, re.MULTILINE)
    if not failed:
        raise SystemExit(f"error: {mutant.fault!r} keeps the tests from running:\n{result.stdout}{result.stderr}")
    return Outcome(mutant, failed[1], seconds)


def tests_that_always_fail(tests: Iterable[str]) -> str:
    """What a test reports that fails without any fault, and so catches none."""
    with tempfile.TemporaryDirectory() as folder:
        copy_repository(Path(folder))
        result = run_tests(Path(folder), *sorted(set(tests)))
    return result.stdout if result.returncode else ""


def main(words: list[str]) -> int:
    start = time.monotonic()
    mutants = [mutant for mutant in MUTANTS if " ".join(words) in mutant.fault]
    width = max(len(mutant.fault) for mutant in mutants)
    outcomes = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(try_mutant, mutants):
            outcomes.append(outcome)
            caught_by = (outcome.caught_by or "SURVIVED").removeprefix("tests/")
            print(f"{outcome.mutant.fault:{width}}  {outcome.seconds:4.0f} s  {caught_by}", flush=True)
    survivors = [outcome for outcome in outcomes if outcome.caught_by is None]
    print(f"{len(outcomes)} faults, {len(survivors)} survived, {time.monotonic() - start:.0f} s")
    if broken := tests_that_always_fail(outcome.caught_by for outcome in outcomes if outcome.caught_by):
        print(f"error: tests fail without any fault\n{broken}")
    return 1 if survivors or broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
