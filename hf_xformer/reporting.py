# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""What a finished run leaves for people: a picture of its curves and a model card."""

import json
from importlib import resources, util
from pathlib import Path

import accelerate
import datasets
import torch
import transformers
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import Trainer

from .arguments import DataArguments, ModelArguments


# Logged with every evaluation and no measure of quality.
TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time")


def plot_curves(log_history: list[dict], path: Path) -> bool:
    """Draws training and validation loss, and every validation metric, over the optimizer's steps, as a PNG."""
    if util.find_spec("matplotlib") is None:
        print(f"{path.name} is not drawn: pip install 'hf-xformer[plot]'")
        return False
    from matplotlib.figure import Figure

    curves = collect_curves(log_history)
    figure = Figure(figsize=(4.5 * len(curves), 3.5), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for label, points in lines.items():
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 40 else "")
        axes.set(title=title, xlabel="optimizer steps")
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend()
    figure.savefig(path, dpi=120)
    return True


def collect_curves(log_history: list[dict]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """`{panel: {line: [(step, value), ...]}}`, the losses in one panel and each metric in its own."""
    curves = {"loss": {}}
    for entry in log_history:
        for name, value in entry.items():
            metric = name.removeprefix("eval_")
            if name == "loss":
                curves["loss"].setdefault("training", []).append((entry["step"], value))
            elif name == "eval_loss":
                curves["loss"].setdefault("validation", []).append((entry["step"], value))
            elif name != metric and metric not in TIMINGS:
                curves.setdefault(metric, {}).setdefault("validation", []).append((entry["step"], value))
    return curves


def write_model_card(
    output_dir: Path, trainer: Trainer, model_args: ModelArguments, data_args: DataArguments, batch: str
) -> ModelCard:
    """Fills the template from the run's own JSON files and saves it as README.md beside the weights."""
    results = {
        name: json.loads(path.read_text()) if (path := output_dir / f"{name}_results.json").exists() else {}
        for name in ("train", "eval")
    }
    trained_on, evaluated_on = (
        data_args.dataset_name or ", ".join(files or []) for files in (data_args.train_file, data_args.validation_file)
    )
    scores = {
        name.removeprefix("eval_"): value
        for name, value in results["eval"].items()
        if name.startswith("eval_") and name.removeprefix("eval_") not in (*TIMINGS, "samples")
    }
    card_data = ModelCardData(
        library_name="transformers",
        tags=["hf-xformer", "encoder-decoder", "seq2seq"],
        model_name=output_dir.name,
        eval_results=[
            EvalResult(
                task_type="text2text-generation",
                dataset_type=Path(evaluated_on).name,
                dataset_name=evaluated_on,
                dataset_split=data_args.validation_split,
                metric_type=name,
                metric_value=round(value, 4),
            )
            for name, value in scores.items()
        ],
    )
    card = ModelCard.from_template(
        card_data,
        template_str=resources.files("hf_xformer").joinpath("model_card_template.md").read_text(encoding="utf-8"),
        name=output_dir.name,
        parameters=f"{trainer.model.num_parameters():,}",
        config=trainer.model.config,
        folder=output_dir,
        trained_on=trained_on,
        evaluated_on=evaluated_on,
        start=model_args.model_name_or_path,
        scores={name: f"{value:.4g}" for name, value in scores.items()},
        steps=f"{trainer.state.global_step:,}",
        minutes=f"{results['train'].get('train_runtime', 0.0) / 60:.1f}",
        arguments=trainer.args,
        batch=batch,
        has_curves=(output_dir / "curves.png").exists(),
        versions={module.__name__: module.__version__ for module in (transformers, torch, accelerate, datasets)},
    )
    card.save(output_dir / "README.md")
    return card
