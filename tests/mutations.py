# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
The judge of what loading makes of a checkpoint with a random fault in a file.

A fault must leave the model as it was or be refused in one line. Left out is what nobody can notice, because a file
has no checksum: another value that a field can have too (`rope_theta` 20,000 for 10,000), two tensors of one shape
that change places, a flipped bit among the finite numbers of a tensor.
"""

import json
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from small_models import SIZES, VARIANTS, make_batch, make_model
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from hf_xformer.checkpoints.loading import load_model
from hf_xformer.errors import ArgumentError


SECONDS = 20  # of the processor, for one example; most take a tenth of one
MEMORY = 2**31  # more than any of these models needs by far
HEAD_WIDTH = SIZES["d_model"] // SIZES["encoder_attention_heads"]
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
KINDS = {
    **VARIANTS,
    "own source vocabulary": {"encoder_vocab_size": 61},
    "rope linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
    "rope yarn": {"rope_parameters": YARN},
}
GENERATION = {
    "max_length": 9,
    "num_beams": 2,
    "length_penalty": 0.8,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "decoder_start_token_id": 2,
}


class Different(AssertionError):
    """Loading a changed file gave another model, another type, a traceback, or no end."""


@dataclass(frozen=True)
class Original:
    """A checkpoint as it was saved, and what its model computes."""

    folder: Path
    logits: torch.Tensor
    tokens: list
    dtype: torch.dtype

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def copy(self, folder: Path, changed: dict[str, bytes | None]) -> Path:
        """Links the files into an empty folder, but those that are changed; None leaves a file out."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for path in self.folder.iterdir():
            if path.name not in changed and not path.name.endswith(".py"):
                (folder / path.name).symlink_to(path)
        for name, content in changed.items():
            if content is not None:
                (folder / name).write_bytes(content)
        return folder


def logits_of(model) -> torch.Tensor:
    batch = make_batch()
    with torch.no_grad():
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=batch["labels"].clamp(min=3),
        )
    return output[0].float() if isinstance(output, tuple) else output.logits.float()


def tokens_of(model) -> list:
    batch = make_batch()
    output = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return (output if isinstance(output, torch.Tensor) else output.sequences).tolist()


@cache
def original(kind: str, dtype: torch.dtype = torch.float32, shards: bool = False) -> Original:
    """Saves a model of a kind once in a process."""
    folder = Path(mkdtemp(prefix="mutations-"))
    model = make_model(**KINDS[kind]).to(dtype)
    model.generation_config = GenerationConfig(**GENERATION)
    model.save_pretrained(folder, **({"max_shard_size": "20KB"} if shards else {}))
    return Original(folder, logits_of(model), tokens_of(model), dtype)


@contextmanager
def limits() -> Iterator[None]:
    """Ends what takes seconds or gigabytes too many."""

    def stop(number, frame):
        raise Different(f"no end after {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def through_ours(folder: Path) -> Any:
    """Loads as every command does; None if it is refused as a command would print it."""
    try:
        with limits():
            return load_model(str(folder))
    except ArgumentError as error:
        if "\n" in str(error) or str(folder) not in str(error) or len(str(error)) > 600:
            raise Different(f"not one line that names the folder: {error}") from error
        if any(word in str(error) for word in ("allocate memory", "no end after")):
            raise Different(f"refused too late: {error}") from error
        return None
    except Exception as error:
        raise Different(f"{type(error).__name__}: {error}") from error


def through_the_library(folder: Path) -> Any:
    """
    Loads as users without our commands do; None if it is refused.

    What the library refuses itself may be of any type; an error of our code must say that a value is wrong.
    """
    try:
        with limits():
            return AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=False)
    except Different:
        raise
    except Exception as error:
        own = any("hf_xformer" in frame.filename for frame in traceback.extract_tb(error.__traceback__))
        if own and not isinstance(error, (ValueError, OSError, ImportError, StrictDataclassError)):
            raise Different(f"{type(error).__name__}: {error}") from error
        if "allocate memory" in str(error) or isinstance(error, MemoryError):
            raise Different(f"refused too late: {error}") from error
        return None


def judge(before: Original, folder: Path, load: Callable[[Path], Any] = through_ours, decode: bool = False) -> str:
    """
    Returns "same" or "refused" for a folder with a changed file.

    Args:
        decode: Compare decoded tokens too.

    Raises:
        Different: It is neither.
    """
    model = load(folder)
    if model is None:
        return "refused"
    try:
        with limits():
            if model.dtype != before.dtype or any(each.dtype != before.dtype for each in model.parameters()):
                raise Different(f"weights of {model.dtype}, not of {before.dtype}")
            logits = logits_of(model.eval())
            tokens = tokens_of(model) if decode else before.tokens
    except Different:
        raise
    except Exception as error:
        raise Different(f"loaded, and then {type(error).__name__}: {error}") from error
    if logits.shape != before.logits.shape or not torch.allclose(logits, before.logits, atol=1e-4, rtol=1e-4):
        raise Different("another model")
    if tokens != before.tokens:
        raise Different("the same model decodes otherwise")
    return "same"
