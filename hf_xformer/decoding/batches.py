# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Sources that are decoded at a time: how many are read ahead, and how many fit a batch."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedConfig


T = TypeVar("T")

# Texts that are read ahead and sorted by length: few at first, so that the first results come soon, and then many, so
# that those of a batch have equal lengths, which need no padding.
FIRST_WINDOW, LAST_WINDOW = 64, 4096
# Source tokens of a batch, times beams, by which a processor is busy.
CPU_TOKENS, ACCELERATOR_TOKENS = 8192, 131072
SHORTEST = 16  # tokens that a source counts at least, because its target and the logits take memory too
# Share of an accelerator's free memory that a batch may take by the estimate below, and how many times as long as its
# source a target may be for that.
SHARE, LONGER = 0.5, 2
# Words of a driver, of the system and of torch's allocators, beside those that accelerate knows.
OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "std::bad_alloc")


def windows(items: Iterable[T], last: int = LAST_WINDOW, first: int = FIRST_WINDOW) -> Iterator[list[T]]:
    """Yields items in lists, each twice as long as the one before, from the first size up to the last."""
    items, size = iter(items), min(first, last)
    while window := list(islice(items, size)):
        yield window
        size = min(2 * size, last)


class BatchSize:
    """
    Decides how many sources are decoded at a time.

    Args:
        sources: This many, whatever their lengths; None to count tokens.
        beams: Rows of the decoder for each source.
        device: Where they are decoded.
        bounded: Whether the memory that is free bounds tokens too.
    """

    def __init__(self, sources: int | None, beams: int, device: torch.device, bounded: bool = True):
        self.sources, self.beams, self.device = sources, beams, device
        self.is_bounded, self.is_halved = bounded and sources is None and device.type != "cpu", False
        self.tokens = CPU_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS

    def __call__(self, length: int, most: int | None = None) -> int:
        """Returns how many sources of a length (in tokens) share a batch, but no more than `most`."""
        count = self.tokens // (max(length, SHORTEST) * self.beams) if self.sources is None else self.sources
        return max(1, count if most is None else min(count, most))

    def halve(self, count: int, length: int) -> None:
        """Lowers the size: so many sources of a length did not fit the memory."""
        self.is_halved = True
        if self.sources is None:
            self.tokens = count * max(length, SHORTEST) * self.beams // 2
        else:
            self.sources = max(1, count // 2)

    def batches(self, lengths: dict[int, int], config: PreTrainedConfig, targets: int | None) -> list[list[int]]:
        """
        Returns the sources of each batch, by their numbers; the batch of the first source is the first.

        Args:
            lengths: Tokens of each source.
            targets: Most tokens of a target, if that is known.
        """
        order = sorted(lengths, key=lambda number: lengths[number], reverse=True)
        batches, start = [], 0
        while start < len(order):
            longest = lengths[order[start]]
            count = self(longest, self.fitting(longest, config, targets))
            batches.append(order[start : start + count])
            start += count
        return sorted(batches, key=min)

    def fitting(self, length: int, config: PreTrainedConfig, targets: int | None) -> int | None:
        """Returns how many sources of a length fit the memory that is free; None if that is not known or not asked."""
        if not self.is_bounded:
            return None
        try:
            free = torch.accelerator.get_memory_info(self.device)[0]
            free += torch.accelerator.memory_reserved(self.device) - torch.accelerator.memory_allocated(self.device)
        except (AttributeError, NotImplementedError, RuntimeError):  # an accelerator that does not tell
            return None
        target = LONGER * length + SHORTEST  # few are longer than that
        return int(SHARE * free) // bytes_of(config, length, min(targets or target, target), self.beams)


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether memory has ended: an allocator's that says so, the driver's, or Python's own."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)
    return known or any(words in str(error) for words in OUT_OF_MEMORY)


def bytes_of(config: PreTrainedConfig, source: int, target: int, beams: int) -> int:
    """Returns an upper estimate of the memory that one source takes while it is decoded, in single precision."""
    width, layers = getattr(config, "hidden_size", 1024), getattr(config, "num_hidden_layers", 24)
    keys = 2 * layers * width * (source + target)
    states = 16 * width * source
    logits = 4 * getattr(config, "vocab_size", 2**16)
    return 4 * (states + beams * (keys + logits))
