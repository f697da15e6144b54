# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What the verbs' command lines share: the parser, and the options of decoding."""

import argparse
from typing import NoReturn

import torch
from accelerate import PartialState
from transformers import set_seed

from ..checkpoints.loading import load_model, load_tokenizers, position_limit
from ..checkpoints.vocabulary import check_vocabulary
from ..decoding.decoder import Decoder
from ..errors import ArgumentError


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose mistakes on the command line are input errors."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{message} (see --help)")


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """The options of `generate()` that the commands share; what is not given is left to the checkpoint's own."""
    group = parser.add_argument_group("decoding")
    group.add_argument("--batch_size", type=int, default=64, help="sources at a time (default 64)")
    group.add_argument("--num_beams", type=int, help="beams; 1 is greedy")
    group.add_argument("--length_penalty", type=float, help="above 0 prefers longer texts (beam search)")
    group.add_argument("--max_new_tokens", type=int, help="longest target, in tokens")
    group.add_argument("--do_sample", action="store_true", default=None, help="sample instead of taking the best")
    group.add_argument("--temperature", type=float, help="flattens (above 1) or sharpens the distribution")
    group.add_argument("--top_k", type=int, help="sample from the so many likeliest tokens")
    group.add_argument("--top_p", type=float, help="sample from the likeliest tokens of this total probability")
    group.add_argument("--seed", type=int, default=0, help="for sampling (default 0)")
    group.add_argument("--revision", help="branch, tag or commit of a checkpoint on the Hub")
    group.add_argument("--device", help="cpu, cuda, cuda:1, mps; the accelerator if there is one by default")
    dtypes = ["auto", "float32", "bfloat16", "float16"]
    group.add_argument("--dtype", choices=dtypes, default="auto", help="of the weights (default: as they were saved)")


GENERATE_OPTIONS = (
    "num_beams",
    "length_penalty",
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "num_return_sequences",
)


def make_decoder(args: argparse.Namespace) -> Decoder:
    """The decoder that `args.checkpoint` and the parsed options of [`add_decoding_options`] ask for."""
    for name in ("temperature", "top_k", "top_p"):
        if getattr(args, name) is not None and not args.do_sample:
            raise ArgumentError(f"--{name} is for sampling: it needs --do_sample")
    set_seed(args.seed)
    device = choose_device(args.device)
    hub = {"revision": args.revision} if args.revision is not None else {}
    source, target = load_tokenizers(args.checkpoint, **hub)
    model = load_model(args.checkpoint, dtype=args.dtype, **hub)
    check_vocabulary(model.config, source, target)
    options = {name: getattr(args, name, None) for name in GENERATE_OPTIONS}
    return Decoder(
        model.to(device),  # type: ignore[arg-type]  # the library's wrapper loses `self`
        source,
        target,
        batch_size=args.batch_size,
        max_source_length=position_limit(model.config),
        scores=getattr(args, "scores", False),
        **{name: value for name, value in options.items() if value is not None},
    )


def choose_device(name: str | None) -> torch.device:
    if name is None:
        return PartialState().default_device
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"--device {name}: {str(error).splitlines()[0]}") from error
