# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Errors after training has begun: one line for those that users can mend, with the traceback in a file."""

import errno
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from transformers.integrations import integration_utils

from ..decoding.batches import is_out_of_memory
from ..errors import DataError, InputError, one_line
from ..files import ERROR_LOG, checkpoints_of
from .arguments import CHECKPOINTING
from .resume import whole


# In messages of torch and safetensors about files that they cannot write.
NOT_WRITTEN = re.compile(
    r"inline_container|PytorchStreamWriter|file write failed|iostream error|I/O error|cannot be opened"
)
# Errors of a disk, or a share of it, that is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# DeepSpeed's, when fp16 overflows at every step.
NO_LOSS_SCALE = "loss scale already at minimum"
# What torch puts before an error of a data loader's worker, whose own message is the last line.
OF_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")


@contextmanager
def one_line_failures(output_dir: str | Path, has_bar: bool = False) -> Iterator[None]:
    """
    Turns errors of a training that its user can mend into `error: ...` on stderr and exit status 2: of the data, out
    of memory, a disk that is full, a tracker's network.

    The traceback is in ERROR_LOG in the run's folder, which the line names. An error of ours keeps its traceback.

    The first process of a machine speaks for all that meet the same error; each speaks for itself about a row of data,
    memory, the disk or the network.

    Args:
        output_dir: The run's folder.
        has_bar: Whether a progress bar may stand in the line that is printed to.
    """
    folder = Path(output_dir)
    log = folder / log_name()
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        line = explain(error, folder)
        if line is None:
            raise
        if os.environ.get("HF_XFORMER_DEBUG") == "1":
            traceback.print_exc()
        where = f"; traceback: {log}" if write_log(log) else "; HF_XFORMER_DEBUG=1 prints the traceback"
        is_first = os.environ.get("LOCAL_RANK", "0") == "0"
        # Processes share out a stream, and the rows of one are not another's.
        if is_first or isinstance(error, DataError) or not isinstance(error, InputError):
            # The bar is the first one's.
            print(("\n" if has_bar and is_first else "") + f"error: {line}{where}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
    with suppress(OSError):
        log.unlink(missing_ok=True)


def log_name() -> str:
    """Returns the name of this process's file of tracebacks."""
    rank = os.environ.get("RANK", "0")
    return ERROR_LOG if rank == "0" else f"rank-{rank}-{ERROR_LOG}"


def write_log(path: Path) -> bool:
    """Writes the traceback of the error that is being handled; returns whether that could be done."""
    try:
        path.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return False
    return True


def explain(error: Exception, output_dir: Path) -> str | None:
    """Returns an error that a user can mend as one line, with what to do; None for any other."""
    message = one_line(error)
    if isinstance(error, InputError):
        if OF_A_WORKER.search(message):
            message = str(error).strip().splitlines()[-1].partition(": ")[2]
        return message
    if (tracker := tracker_of(error)) is not None:
        return (
            f"--report_to {tracker}: {type(error).__name__}: {message:.300}: start the same command again, or with "
            "--report_to none; the run resumes from its last whole checkpoint"
        )
    if is_out_of_memory(error):
        return (
            f"out of memory: {message.partition(' If reserved but unallocated')[0]:.300}: lower --max_tokens or "
            "--per_device_train_batch_size and raise --gradient_accumulation_steps, or give "
            f"--{CHECKPOINTING} true; hf-xformer estimate counts the memory"
        )
    if isinstance(error, RuntimeError | SafetensorError) and NOT_WRITTEN.search(message):
        return f"{output_dir}: a file cannot be written: {message:.300}{going_on(output_dir, is_full=True)}"
    if isinstance(error, OSError):
        return f"{message}{going_on(output_dir, is_full=error.errno in FULL)}"
    if NO_LOSS_SCALE in message:
        return f"fp16's loss scale has sunk to nothing: give a lower --learning_rate, or --bf16 for --fp16: {message}"
    return None


def tracker_of(error: Exception) -> str | None:
    """Returns the name of the tracker whose callback an error came through; None if it came through none."""
    names = {kind: name for name, kind in integration_utils.INTEGRATION_TO_CALLBACK.items()}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = names.get(type(frame.f_locals.get("self")))
        if name is not None and frame.f_globals.get("__name__") == integration_utils.__name__:
            return name
    return None


def going_on(output_dir: Path, is_full: bool) -> str:
    """
    Returns how a run goes on and where, as the end of a sentence.

    Args:
        is_full: The disk may be full: say how much room it has.
    """
    with suppress(OSError):
        kept = next((path for path in reversed(checkpoints_of(output_dir)) if whole(path)), None)
        free = f" ({shutil.disk_usage(output_dir).free / 2**20:,.0f} MiB are free in {output_dir})" if is_full else ""
        again = f"{'make room and ' * is_full}start the same command again"
        return f"{free}; {kept} is whole and is kept: {again}, which resumes there" if kept else f"{free}; {again}"
    return ""
