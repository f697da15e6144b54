# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Exports an Xformer checkpoint to an engine that decodes faster than PyTorch, on a CPU most of all.

  hf-xformer export runs/de-en runs/de-en-ct2
  hf-xformer export runs/de-en runs/de-en-int8 --quantization int8
  hf-xformer export runs/de-en runs/de-en-onnx --engine onnx

The engine ctranslate2 makes a model for `ctranslate2.Translator`, with the tokens of the checkpoint's tokenizers as
its vocabularies: the source's makes the tokens that it takes, and the target's reads those that it gives. Its
`decoding.json` holds the arguments of `translate_batch` that correspond to the checkpoint's generation config. What
CTranslate2 cannot compute is refused: blocks and windows, the rope types dynamic and longrope, some activations.

The engine onnx makes encoder_model.onnx and decoder_model_merged.onnx, whose inputs and outputs have the names of
optimum's exports, beside the tokenizers, the configuration and the generation config. It has all options of the model
but some activations, and weights of float32 and int8.

Each export is compared with its checkpoint before it gets its name.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.export import DEFAULT_ENGINE, ENGINES, QUANTIZATIONS, export_checkpoint
from ..errors import one_line_errors
from .options import Parser, add_checkpoint, add_overwrite


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("export", __doc__)
    add_checkpoint(parser, "folder or Hub name of an Xformer checkpoint")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument(
        "--engine", choices=ENGINES, default=DEFAULT_ENGINE, help=f"engine to export to (default {DEFAULT_ENGINE})"
    )
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        help="type of the weights (default: their own if the engine has it, else float32)",
    )
    add_overwrite(parser, "replace an earlier export")
    args = parser.parse_args(argv)
    export = export_checkpoint(**vars(args))
    for note in export.notes:
        print(note, file=sys.stderr)
    if export.inexact:
        print(
            f"warning: this CPU computes {export.compute_type} inexactly: log-probabilities differ by "
            f"{export.difference:.1e}, and in exact arithmetic by {export.rounding:.1e}. Set CT2_USE_MKL=1 in the "
            "environment of CTranslate2, or give its Translator compute_type='float32'",
            file=sys.stderr,
        )
    print(
        f"{args.out}: {export.quantization}; log-probabilities of random tokens differ from the checkpoint's by at "
        f"most {export.difference:.1e}, computed in {export.compute_type}"
    )
