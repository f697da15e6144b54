# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Averages the weights of several checkpoints into one model, which is often better than any of them.

  hf-xformer average runs/de-en --last 5 --output_dir runs/de-en-averaged
  hf-xformer average runs/a/checkpoint-900 runs/a/checkpoint-1000 --output_dir runs/a-averaged

From one run's folder it takes the last checkpoints, without a best one of long before, which the run has kept beside
them; several folders are all averaged. Tokenizer and generation config are the last checkpoint's. In a run with
--ema_decay, which keeps an average of its own during training, the weights themselves are averaged.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ..checkpoints.averaging import average_checkpoints
from ..checkpoints.loading import check_local, load_tokenizers
from ..checkpoints.saving import save_checkpoint
from ..checkpoints.vocabulary import other_tokens
from ..errors import ArgumentError, one_line_errors
from ..files import (
    AVERAGED,
    TRAINER_STATE,
    check_output_folder,
    checkpoints_of,
    doubled,
    read_json,
    step_of,
    write_json,
)
from ..hub.privacy import public_path
from ..training.resume import whole
from ..version import __version__
from .options import Parser, add_trust, whole_number


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("average", __doc__)
    parser.add_argument("checkpoints", nargs="+", help="a run's folder, or the folders to average")
    parser.add_argument("--last", type=whole_number(2), help="checkpoints of a run to average (default 5)")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write")
    add_trust(parser)
    args = parser.parse_args(argv)
    names = choose(args.checkpoints, args.last)
    check_output_folder(args.output_dir, "--output_dir", in_use="give another")
    tokenizers = load_tokenizers(names[-1], trust_remote_code=args.trust_remote_code)
    for name in names[:-1]:
        if side := other_tokens(load_tokenizers(name, trust_remote_code=args.trust_remote_code), tokenizers):
            raise ArgumentError(
                f"{name}: its {side} tokens are not those of {names[-1]}: no average has a meaning for them"
            )
    # The last one first, whose generation config the result takes over.
    model = average_checkpoints(names[::-1], args.trust_remote_code)
    save_checkpoint(args.output_dir, model, *tokenizers)
    write_json(args.output_dir / AVERAGED, {"checkpoints": list(map(public_path, names)), "hf_xformer": __version__})
    averaged = ", ".join(Path(name).name for name in names)
    print(f"{args.output_dir}: the average of {len(names)} checkpoints: {averaged}")


def choose(names: list[str], last: int | None) -> list[str]:
    """Returns the checkpoints to average, in the order of their steps; of a run those that were saved whole."""
    if len(names) > 1:
        if last is not None:
            raise ArgumentError(
                f"--last {last} is for the folder of one run: of {len(names)} folders all are averaged"
            )
        if (twice := doubled(names)) is not None:
            raise ArgumentError(f"{twice}: named twice, it would count twice in the average: name each once")
        return names
    last = 5 if last is None else last
    check_local(Path(names[0]))
    saved = checkpoints_of(Path(names[0]))
    found = [str(path) for path in saved if whole(path)]
    if cut_off := [str(path) for path in saved if str(path) not in found]:
        print(f"passing over {len(cut_off)} of {len(saved)} checkpoints, which are not whole, such as {cut_off[-1]}")
    if is_apart(found):
        print(f"passing over {found.pop(0)}, the best one: those between it and the last ones are gone")
    if len(found) < last:
        raise ArgumentError(
            f"{names[0]}: {len(found)} checkpoints, --last {last} wants more: give less, or train with a larger "
            "--save_total_limit"
        )
    return found[-last:]


def is_apart(checkpoints: list[str]) -> bool:
    """
    Returns whether the first of a run's checkpoints is its best one, kept where those behind it have been deleted.

    Args:
        checkpoints: In the order of their steps.
    """
    if len(checkpoints) < 3:  # of two nobody knows how far apart they were saved
        return False
    steps = [step_of(Path(each)) or 0 for each in checkpoints]
    best = read_json(Path(checkpoints[-1], TRAINER_STATE)).get("best_model_checkpoint")
    first, *others = (later - earlier for earlier, later in pairwise(steps))
    return best is not None and step_of(Path(best)) == steps[0] and first > max(others)
