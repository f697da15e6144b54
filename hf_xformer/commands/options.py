# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs have: the parser, types of values, files and folders to write, decoding."""

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import set_seed  # the library's own would import PEFT, which takes a second or more
from transformers import GenerationConfig

from ..checkpoints.quantization import QUANTIZATIONS
from ..data.bad_rows import POLICIES, SHORTEST, BadRows, Unwanted
from ..data.formats import TABLE_READERS, format_of, numbered_lines
from ..data.rows import Columns
from ..data.templates import language_fields
from ..decoding.decoder import Decoder
from ..decoding.lengths import OVERLONG
from ..decoding.options import BEAMS, search_of
from ..decoding.scoring import COMET_MODEL, Scoring
from ..errors import ArgumentError, blame, refuse_misspelt, wrong_choice
from ..files import kept_path
from ..hub.privacy import public_path


# Options of the verbs that read texts which mean something only where there are targets.
OF_TARGETS = ("target_column", "max_length_ratio", "separate", "target_tokenizer", "against_target_column")


class Parser(argparse.ArgumentParser):
    """
    The command line of a verb. Its mistakes are input errors, which name the option as it was typed.

    Args:
        verb: Such as "generate".
        description: The docstring of the verb's module, printed as it stands.
        options: As `ArgumentParser` has them.
    """

    def __init__(self, verb: str, description: str | None, **options: Any):
        super().__init__(
            prog=f"hf-xformer {verb}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        words = list(sys.argv[1:] if args is None else args)
        refuse_misspelt(words, self._option_string_actions)
        return super().parse_args(words, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, wrong_choice(value, action.choices))

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


def whole_number(least: int = 1, most: int = 2**31 - 1) -> Callable[[str], int]:
    """Returns the type of an option that takes the whole numbers from `least` to `most`."""

    def parse(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {word!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, got {word}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be {most:,} or less, got {word}")
        return value

    return parse


def number(above: float = -float("inf"), most: float = float("inf")) -> Callable[[str], float]:
    """Returns the type of an option that takes finite numbers above one and up to another."""

    def parse(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, got {word!r}") from None
        if not above < value <= most or abs(value) == float("inf"):
            bounds = [f"above {above:g}"] * (above > -float("inf")) + [f"at most {most:g}"] * (most < float("inf"))
            raise argparse.ArgumentTypeError(f"must be a number {' and '.join(bounds)}".rstrip() + f", got {word}")
        return value

    return parse


def add_checkpoint(parser: argparse.ArgumentParser, text: str = "folder or Hub name", **options: Any) -> None:
    parser.add_argument("checkpoint", help=text, **options)
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run code that comes with a checkpoint: read it first (default: refuse it)",
    )


def add_revision(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--revision", help="branch, tag or commit of a checkpoint on the Hub")


def add_columns(
    parser: argparse._ActionsContainer, target: bool = True, policy: bool = True, ratio: bool = True
) -> None:
    """
    Adds the names of a table's columns, and what bad rows are.

    Args:
        target: Whether there is a column of targets.
        policy: Whether the user decides what becomes of bad rows, or the verb itself.
        ratio: Whether a pair of unlike lengths may be a bad row, as it may in training data.
    """
    for side in ("source", "target")[: 1 + target]:
        parser.add_argument(
            f"--{side}_column",
            default=side,
            help=f"the {side}'s column; a.b reaches into an object, and a template, such as '<2{{lang}}> {{{side}}}', "
            f"joins columns (default {side})",
        )
    if policy:
        parser.add_argument(
            "--on_bad_row",
            choices=POLICIES,
            default="error",
            help="a row that is empty or no pair of texts is an error, or is left out and counted (default error)",
        )
    if target and ratio:
        parser.add_argument(
            "--max_length_ratio",
            type=number(above=1),
            metavar="R",
            help=f"a pair is a bad row if one side has more than R times the characters of the other, of which fewer "
            f"than {SHORTEST} count as {SHORTEST} (default: any lengths)",
        )


def add_one_column(parser: argparse._ActionsContainer) -> None:
    """Adds the option for plain text."""
    parser.add_argument(
        "--one_column",
        action="store_true",
        help="read texts without targets, for a recipe's objective: --source_column of tables, or one plain-text file",
    )


def check_one_column(args: argparse.Namespace) -> None:
    """Raises ArgumentError for options of targets where there are none."""
    for option in OF_TARGETS if args.one_column else ():
        if getattr(args, option, None) not in (None, False, "target"):
            raise ArgumentError(f"--{option} does nothing with --one_column, which has no targets: leave one out")


def columns_of(args: argparse.Namespace) -> Columns:
    """Returns the columns that are read."""
    return Columns(args.source_column, None if args.one_column else args.target_column)


def bad_rows_of(args: argparse.Namespace, policy: str | None = None) -> BadRows:
    """
    Returns what the options of [`add_columns`] and [`add_one_column`] make of bad rows.

    Args:
        policy: The verb's own, if the user does not decide.
    """
    other = Unwanted(args.target_column, "--one_column") if getattr(args, "one_column", False) else None
    return BadRows(policy or args.on_bad_row, getattr(args, "max_length_ratio", None), other)


def add_overwrite(parser: argparse._ActionsContainer, text: str) -> None:
    parser.add_argument("--overwrite", action="store_true", help=text)


def check_output_file(
    option: str, path: Path | None, inputs: Iterable[str | Path] = (), outputs: Iterable[Path | None] = ()
) -> None:
    """
    Refuses a file that cannot be written, whatever it will hold, or that would take the place of another of this run.

    Args:
        inputs: Files of data, folders of them, and whatever else is read; names that are no path do no harm.
        outputs: The other files that are written.

    Raises:
        ArgumentError: It cannot be written there.
    """
    if path is None:
        return
    if path.is_dir():
        raise ArgumentError(f"{option} {path}: this is a folder, and a file is wanted")
    if not path.parent.is_dir():
        raise ArgumentError(f"{option} {path}: there is no folder {path.parent} to write it into")
    taken = {path.resolve(), kept_path(path).resolve()}
    for given in map(Path, inputs):
        if given.resolve() in taken:
            raise ArgumentError(f"{option} {path} would overwrite the input {given}: give another name")
        if given.is_dir() and given.resolve() == path.resolve().parent and format_of(path) in TABLE_READERS:
            raise ArgumentError(f"{option} {path} would be one of the files in the input {given}: give another")
    if any(other is not None and other.resolve() in taken for other in outputs):
        raise ArgumentError(f"{option} {path}: another output has this name already")


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of all verbs that decode; those of `generate()` default to the checkpoint's."""
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--batch_size",
        type=whole_number(),
        help="sources at a time (default: by their tokens, 8,192 times beams on a CPU, on an accelerator 131,072 or "
        "what its memory holds)",
    )
    group.add_argument("--num_beams", type=whole_number(), help="beams; 1 is greedy")
    group.add_argument("--length_penalty", type=number(-50, 50), help="above 0 prefers longer texts (beam search)")
    group.add_argument("--max_new_tokens", type=whole_number(), help="longest target, in tokens")
    group.add_argument(
        "--max_source_length",
        type=whole_number(),
        help="most tokens of a source that is not overlong (default: those of the longest one in the training, as the "
        "tokenizer records it)",
    )
    group.add_argument(
        "--overlong",
        choices=OVERLONG,
        help="longer sources: keep them whole as far as the model has positions, truncate them, or refuse them as an "
        "error (default keep, or truncate with --max_source_length); they are counted and said",
    )
    add_languages(group)
    group.add_argument(
        "--stop_strings", nargs="+", metavar="TEXT", help="end a text behind the first of these that it has"
    )
    group.add_argument(
        "--allowed", type=Path, metavar="FILE", help="the only texts that there can be, one a line: labels, commands"
    )
    group.add_argument("--assistant_model", help="smaller checkpoint with the same tokens, which drafts texts")
    group.add_argument(
        "--prompt_lookup_num_tokens",
        type=whole_number(),
        metavar="N",
        help="draft so many tokens from where the last ones stand in the source, for texts that copy from it",
    )
    add_sampling_options(group)
    add_revision(group)
    group.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the accelerator, if there is one)")
    dtypes, saved = ["auto", "float32", "bfloat16", "float16"], "as saved, or float32 where that is slow"
    group.add_argument("--dtype", choices=dtypes, default="auto", help=f"type of the weights (default: {saved})")
    group.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        help="round the weights to 8 or 4 bits as they are loaded (default: no); on a GPU by bitsandbytes",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the steps of decoding: up to a minute once, then faster; for thousands of texts",
    )


def add_languages(parser: argparse._ActionsContainer) -> None:
    """Adds the languages of the texts."""
    for role, whose in (("src_lang", "sources"), ("tgt_lang", "targets")):
        parser.add_argument(f"--{role}", help=f"language of the {whose}, for a model that has tokens for languages")


def add_sampling_options(group: argparse._ActionsContainer) -> None:
    """Adds how texts are sampled, and how one of several is chosen."""
    group.add_argument("--do_sample", action="store_true", default=None, help="sample instead of taking the best")
    group.add_argument("--temperature", type=number(above=0), help="flattens (above 1) or sharpens the distribution")
    group.add_argument(
        "--top_k", type=whole_number(0), help="sample from this many of the likeliest tokens; 0 for all (default 50)"
    )
    group.add_argument(
        "--top_p", type=number(above=0, most=1), help="sample from the likeliest tokens of this total probability"
    )
    group.add_argument(
        "--epsilon_cutoff", type=number(above=0, most=1), help="sample from tokens of at least this probability"
    )
    group.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="for sampling (default 0)")
    group.add_argument(
        "--mbr",
        nargs="?",
        const="chrf",
        metavar="METRIC",
        help="of several candidates take the one that is most like all of them by this metric (minimum Bayes risk "
        "decoding; chrf if none is named): samples, or the texts of the beams",
    )
    group.add_argument(
        "--num_return_sequences",
        type=whole_number(2),
        metavar="N",
        help="candidates of --mbr, such as 32 samples (default: as many as beams)",
    )


def add_n_best(parser: argparse._ActionsContainer, what: str) -> None:
    parser.add_argument("--n_best", type=whole_number(), default=1, help=f"{what} (default 1)")


def add_comet(group: argparse._ActionsContainer) -> None:
    """Adds where COMET is."""
    group.add_argument("--comet_model", default=COMET_MODEL, help=f"Hub name or checkpoint (default {COMET_MODEL})")
    group.add_argument("--comet_python", help="python of the environment that unbabel-comet is installed in")


def check_n_best(args: argparse.Namespace, config: GenerationConfig | None = None) -> None:
    """
    Refuses more hypotheses than there are beams, samples or candidates; raises ArgumentError.

    Args:
        config: The decoder's; None before the checkpoint loads, which may have beams or sample by itself.
    """
    count, samples, beams = args.n_best, args.do_sample, args.num_beams
    candidates = args.num_return_sequences or beams
    if config is not None:
        samples, beams, candidates = config.do_sample, config.num_beams or 1, config.num_return_sequences or 1
    if args.mbr is None and not samples and beams is not None and count > beams:
        raise ArgumentError(f"--n_best {count} needs as many --num_beams, or --do_sample")
    if args.mbr is not None and candidates is not None and count > candidates:
        raise ArgumentError(
            f"--n_best {count}: --mbr has {candidates} candidates, of --num_return_sequences or --num_beams"
        )


def check_comet(args: argparse.Namespace) -> None:
    """Refuses --comet_model and --comet_python without --mbr comet; raises ArgumentError."""
    for name in () if args.mbr == "comet" else ("comet_python", "comet_model"):
        if getattr(args, name) not in (None, COMET_MODEL):
            raise ArgumentError(f"--{name} is for --mbr comet, which is missing")


GENERATE_OPTIONS = (
    *("num_beams", "length_penalty", "max_new_tokens", "stop_strings", "assistant_model", "prompt_lookup_num_tokens"),
    *("do_sample", "temperature", "top_k", "top_p", "epsilon_cutoff", "num_return_sequences", "mbr"),
    *("src_lang", "tgt_lang"),
)


def generate_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `generate()`, and of what becomes of its texts, that were given."""
    return {name: value for name in GENERATE_OPTIONS if (value := getattr(args, name, None)) is not None}


def record_of_decoding(args: argparse.Namespace, decoder: Decoder) -> dict[str, Any]:
    """Returns how a decoder decides on its texts: by the options that were given, and by those of the checkpoint."""
    allowed = getattr(args, "allowed", None)
    useless = BEAMS if (decoder.config.num_beams or 1) == 1 else ()
    given = {name: value for name, value in generate_options(args).items() if name not in useless}
    of_metric = {"comet": "comet_model", "sacrebleu": "sacrebleu_tokenize"}.get(args.mbr, "")
    given |= {of_metric: value} if (value := getattr(args, of_metric, None)) is not None else {}
    kept = search_of(decoder.config) | given | ({} if allowed is None else {"allowed": public_path(allowed)})
    if decoder.config.do_sample:  # samples follow from the seed and the batches
        kept |= {"seed": args.seed} | ({"batch_size": args.batch_size} if args.batch_size else {})
    return kept


def record_of_loading(args: argparse.Namespace, decoder: Decoder) -> dict[str, Any]:
    """Returns how a decoder's model was loaded and what it computes on."""
    model, given = decoder.model, {name: getattr(args, name) for name in ("revision", "quantization", "compile")}
    given["base_commit" if hasattr(model, "peft_config") else "commit"] = getattr(model.config, "_commit_hash", None)
    kept = {"dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type}
    return kept | {name: value for name, value in given.items() if value}


def length_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of sources' lengths that were given."""
    names = ("max_source_length", "overlong")
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def make_decoder(args: argparse.Namespace, count: int | None = None) -> Decoder:
    """
    Returns the decoder that `args.checkpoint` and the options of [`add_decoding_options`] ask for.

    Args:
        count: Hypotheses for a source, where they are no candidates of minimum Bayes risk decoding.

    Raises:
        ArgumentError: Options do not go together, or the checkpoint does not load.
    """
    for name in ("temperature", "top_k", "top_p", "epsilon_cutoff"):
        if getattr(args, name) is not None and not args.do_sample:
            raise ArgumentError(f"--{name} is for sampling: it needs --do_sample")
    for option in ("source_column", "target_column"):
        column = getattr(args, option, None) or ""
        if (args.src_lang or args.tgt_lang) and language_fields(column):
            raise ArgumentError(f"--{option} {column} has languages already: leave --tgt_lang out")
    options = generate_options(args)
    if args.mbr is not None:
        options["mbr"] = chosen_risk(args)
    elif args.num_return_sequences is not None:
        raise ArgumentError("--num_return_sequences: these are candidates of --mbr, which is missing")
    elif count is not None:
        options["num_return_sequences"] = count
    if args.allowed is not None:
        options["allowed"] = [line for _, line in numbered_lines(args.allowed, "--allowed")]
    set_seed(args.seed)
    return Decoder.from_pretrained(
        args.checkpoint,
        device=choose_device(args.device),
        dtype=args.dtype,
        quantization=args.quantization,
        trust_remote_code=args.trust_remote_code,
        revision=args.revision,
        batch_size=args.batch_size,
        max_source_length=args.max_source_length,
        overlong=args.overlong,
        scores=getattr(args, "scores", False),
        say=partial(print, file=sys.stderr),
        compile=args.compile,
        **options,
    )


def chosen_risk(args: argparse.Namespace) -> Any:
    """Returns the minimum Bayes risk decoding that options ask for, which compares texts as metrics do."""
    from ..decoding.mbr import MinimumBayesRisk  # metrics take seconds to import

    names = [field.name for field in fields(Scoring)]
    scoring = Scoring(**{name: getattr(args, name) for name in names if hasattr(args, name)})
    return MinimumBayesRisk(args.mbr, scoring)


def choose_device(name: str | None) -> torch.device:
    """
    Returns the device of that name, or the accelerator, or the CPU.

    Raises:
        ArgumentError: This machine does not have it.
    """
    if name is None:
        return PartialState().default_device
    with blame(f"--device {name}", RuntimeError, AssertionError):
        device = torch.empty(0, device=name).device
    if device.type == "meta":
        raise ArgumentError("--device meta: it holds no numbers, so nothing can be computed there")
    return device
