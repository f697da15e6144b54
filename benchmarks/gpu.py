# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Training, decoding, long texts and large vocabularies on a GPU, ours against stock BART, T5 and T5Gemma of one shape.

  python benchmarks/gpu.py                                  # all cases: some ten minutes on an H100
  python benchmarks/gpu.py --only train_base --seconds 130
  python benchmarks/gpu.py --table                          # of the figures that are stored
  python benchmarks/gpu.py --device cpu --tiny              # every line, in no size that means anything

All models of a case are measured in one process, one after another, warm, and seconds are medians. The first call,
which compiles, is timed apart. Stock models are compiled by the layer, which takes seconds and loses little; --whole
compiles them as one graph like ours, which takes minutes. Model-FLOPs utilisation is the operations that the pairs
need (`training_flops` in benchmarks/gpu_cases.py) against the card's dense bfloat16 peak.

Writes benchmarks/results/gpu_CASE.json after each row, with --tiny build/gpu-check/results. What failed, ran out of
memory or was not reached in --seconds is a row with its reason. The status is not zero if one of ours failed.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from gpu_cases import CASES, OURS, Measurement, Setting
from measuring import RESULTS, ROOT, write_results


TINY_RESULTS = ROOT / "build/gpu-check/results"
OUT_OF_MEMORY = "out of memory"
NOT_RUN = "not run"
COLUMNS = {
    "useful_tokens_per_second": "useful tokens/s",
    "tokens_per_second": "tokens/s",
    "model_flops_utilisation": "model-FLOPs utilisation",
    "seconds": "seconds",
    "first_step_seconds": "first step, s",
    "graphs": "graphs",
    "first_call_seconds": "first call, s",
    "peak_mib": "peak MiB",
    "logits_mib": "logits, MiB",
    "attention": "attention",
}


class Sheet:
    """The rows of a case, written to its file whenever there is a new one."""

    def __init__(self, case: str, setting: Setting, seconds: float | None):
        self.case, self.setting, self.rows = case, setting, []
        self.end = None if seconds is None else time.monotonic() + seconds

    def add(self, measurement: Measurement) -> None:
        """Measures a row, or takes down why there is none."""
        figures = self.figures(measurement)
        self.rows.append({"name": measurement.name, **figures})
        print(f"  {measurement.name:60}{short(figures)}", flush=True)
        about = {"device": str(self.setting.device), "command": " ".join(sys.argv), "card": None}
        if self.setting.device.type == "cuda":
            about["card"] = torch.cuda.get_device_name()
        write_results(f"gpu_{self.case}", self.rows, folder_of(self.setting.tiny), **about)

    def figures(self, measurement: Measurement) -> dict:
        if self.end is not None and (left := self.end - time.monotonic()) < measurement.seconds:
            return {"failed": f"{NOT_RUN}: {max(0, left):.0f} s left of the case's"}
        try:
            return measurement.run()
        except torch.OutOfMemoryError:
            return {"failed": OUT_OF_MEMORY}
        except Exception as error:  # whatever it is, the others are still to be measured
            line = (str(error).splitlines() or [""])[0]
            return {"failed": f"{type(error).__name__}: {line}"}
        finally:
            torch.compiler.reset()
            gc.collect()
            if self.setting.device.type == "cuda":
                torch.cuda.empty_cache()

    def faults(self) -> list[str]:
        """Returns the names of our rows that failed, but not for lack of memory or time."""
        failed = [row for row in self.rows if row["name"].startswith(OURS) and "failed" in row]
        return [row["name"] for row in failed if not row["failed"].startswith((OUT_OF_MEMORY, NOT_RUN))]


def short(figures: dict) -> str:
    if "failed" in figures:
        return figures["failed"]
    return "  ".join(
        f"{title} {shown(figures[key])}" for key, title in COLUMNS.items() if figures.get(key) is not None
    )


def shown(figure: float | str) -> str:
    return figure if isinstance(figure, str) else f"{figure:,}"


def folder_of(tiny: bool) -> Path:
    return TINY_RESULTS if tiny else RESULTS


def table(folder: Path, cases: Iterable[str] = CASES) -> str:
    """Returns the stored figures of cases as Markdown tables, each with the machine that gave it."""
    parts = []
    for case in cases:
        path = folder / f"gpu_{case}.json"
        if not path.exists():
            continue
        stored = json.loads(path.read_text())
        keys = [key for key in COLUMNS if any(row.get(key) is not None for row in stored["rows"])]
        lines = [f"| {case} | {' | '.join(COLUMNS[key] for key in keys)} |", "|---" * (len(keys) + 1) + "|"]
        for row in stored["rows"]:
            cells = [shown(row[key]) if row.get(key) is not None else "" for key in keys]
            if "failed" in row:
                cells[0] = row["failed"].replace("|", "/")
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
        machine = stored["machine"]
        about = [machine["card"] or machine["device"], f"torch {machine['torch']}"]
        about += [f"transformers {machine['transformers']}", machine["date"], f"`python {machine['command']}`"]
        parts.append("\n".join([*lines, "", ", ".join(about)]))
    return "\n\n".join(parts) or f"no figures are stored in {folder}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="run every line in the smallest size")
    parser.add_argument("--only", choices=CASES, help="measure one case")
    parser.add_argument("--seconds", type=float, help="of a case, after which nothing new is begun (default: no end)")
    parser.add_argument("--whole", action="store_true", help="compile stock models as one graph too")
    parser.add_argument("--table", action="store_true", help="print the stored figures in Markdown, measure nothing")
    args = parser.parse_args()
    if args.table:
        print(table(folder_of(args.tiny)))
        return
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU; --device cpu --tiny rehearses on the CPU")
    setting = Setting(torch.device(args.device), args.tiny, args.whole)
    faults, rows = [], []
    cases = [args.only] if args.only else list(CASES)
    for case in cases:
        print(case, flush=True)
        sheet = Sheet(case, setting, args.seconds)
        for measurement in CASES[case](setting):
            sheet.add(measurement)
        faults += sheet.faults()
        rows += sheet.rows
    print(f"\n{table(folder_of(args.tiny), cases)}\n")
    print(f"{len(rows)} rows, {sum('failed' in row for row in rows)} of them failed or not run")
    if faults:
        raise SystemExit(f"error: {'; '.join(faults)}: see above")


if __name__ == "__main__":
    main()
