# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Runs an ONNX export by onnxruntime: greedy decoding and log-probabilities, from token ids to token ids.

Shapes: B batch, S source, T target, V vocabulary, G key and value heads, K head width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import CONFIG, GENERATION_CONFIG, read_json
from ..models import XformerConfig
from .engines import DEFAULT_LENGTH
from .lengths import position_limit
from .onnx_graphs import PAST, PRESENT, SIDES
from .onnx_nodes import load_extra


ENCODER, DECODER = "encoder_model.onnx", "decoder_model_merged.onnx"


class OnnxModel:
    """
    The two graphs of an export, ready to decode on a CPU.

    Args:
        folder: That `hf-xformer export --engine onnx` has written.
        threads: Of one operator; by default one for each core.
    """

    def __init__(self, folder: str | Path, threads: int = 0):
        runtime, folder = load_extra("onnxruntime"), Path(folder)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self.make = runtime.OrtValue.ortvalue_from_numpy
        self.encoder, self.decoder = (
            runtime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, DECODER)
        )
        self.config = XformerConfig.from_dict(read_json(folder / CONFIG))
        self.generation = {**self.config.to_dict(), **read_json(folder / GENERATION_CONFIG)}
        self.past = {each.name: each.shape for each in self.decoder.get_inputs() if each.name.startswith(PAST)}

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Any:
        """Returns the memory of sources (B, S)."""
        values = {"input_ids": self.make(input_ids), "attention_mask": self.make(attention_mask)}
        (memory,) = self.encoder.run_with_ort_values(None, values)
        return memory

    def step(
        self, tokens: np.ndarray, attention_mask: np.ndarray, memory: Any, past: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Returns the logits of tokens (B, T), and the keys and values up to them.

        Args:
            past: Keys and values up to the tokens before these; None in the first call.
        """
        is_first, rows = past is None, len(tokens)
        if past is None:
            past = {name: self.make(empty(rows, shape)) for name, shape in self.past.items()}
        inputs = {
            "input_ids": self.make(tokens),
            "encoder_attention_mask": self.make(attention_mask),
            "encoder_hidden_states": memory if is_first else self.make(empty(rows, [rows, 0, memory.shape()[2]], 1)),
            "use_cache_branch": self.make(np.array([not is_first])),
        }
        # The source's keys and values stay as they are.
        taken = [name for name in self.past if is_first or f".{SIDES[0]}." in name]
        names = ["logits", *(name.replace(PAST, PRESENT, 1) for name in taken)]
        logits, *values = self.decoder.run_with_ort_values(names, {**inputs, **past})
        return logits.numpy(), {**past, **dict(zip(taken, values, strict=True))}

    def generate(self, sources: Sequence[Sequence[int]], max_new_tokens: int | None = None) -> list[list[int]]:
        """
        Decodes sources greedily, all in one batch, as `generate()` does.

        Args:
            sources: Token ids of each, the end token included.
            max_new_tokens: Longest target; by default as the generation config says.

        Returns:
            Token ids of each target, without start and end tokens.
        """
        input_ids, attention_mask = padded(sources, self.generation["pad_token_id"] or 0)
        memory, past = self.encode(input_ids, attention_mask), None
        ends = self.generation["eos_token_id"]
        ends = ends if isinstance(ends, list) else [ends]
        tokens = np.full((len(sources), 1), self.generation["decoder_start_token_id"])
        written: list[list[int]] = [[] for _ in sources]
        unfinished = set(range(len(sources)))
        for _ in range(self.longest() if max_new_tokens is None else max_new_tokens):
            logits, past = self.step(tokens, attention_mask, memory, past)
            tokens = logits[:, -1:].argmax(axis=-1)  # (B, 1)
            unfinished -= {row for row in unfinished if tokens[row, 0] in ends}
            if not unfinished:
                break
            for row in unfinished:
                written[row].append(int(tokens[row, 0]))
        return written

    def longest(self) -> int:
        """Returns the most tokens of a target, after its start token, by the generation config and the positions."""
        most, limit = self.generation.get("max_new_tokens"), position_limit(self.config, "decoder")
        if most is None:
            length = self.generation.get("max_length")
            most = DEFAULT_LENGTH if length is None else length - 1
        return most if limit is None else min(most, limit)

    def log_probabilities(self, source: Sequence[int], target: Sequence[int]) -> np.ndarray:
        """
        Returns the log-probabilities of a target's tokens after its start token, given the source: (T - 1,).

        The first token goes in alone and the rest at once, so that both kinds of calls are made.
        """
        input_ids, attention_mask = padded([source], 0)
        memory, ids = self.encode(input_ids, attention_mask), np.array([target])
        first, past = self.step(ids[:, :1], attention_mask, memory)
        rest, _ = self.step(ids[:, 1:-1], attention_mask, memory, past)
        logits = np.concatenate((first, rest), axis=1)[0].astype(np.float64)  # (T - 1, V)
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(logits, ids[0, 1:, None], axis=1)[:, 0]
        return chosen - np.log(np.exp(logits).sum(axis=-1))


def padded(rows: Sequence[Sequence[int]], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows of token ids, (B, S), padded behind, and their mask."""
    lengths = np.array([len(row) for row in rows])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = np.full(mask.shape, padding)
    ids[mask.astype(bool)] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return ids, mask


def empty(rows: int, shape: Sequence[Any], axis: int = 2) -> np.ndarray:
    """Returns an array of no elements, of a declared shape but for the number of rows and the empty axis."""
    return np.zeros([0 if i == axis else rows if i == 0 else size for i, size in enumerate(shape)], np.float32)
