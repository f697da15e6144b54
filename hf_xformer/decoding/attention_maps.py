# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Heat maps of a model's cross-attention, as PNG files."""

from importlib import util
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ArgumentError


# Of either side, that a heat map can show so that its names are read.
PICTURE_TOKENS = 100


def can_plot() -> bool:
    return util.find_spec("matplotlib") is not None


@torch.no_grad()
def cross_attention(
    model: PreTrainedModel,
    source: PreTrainedTokenizerBase,
    target: PreTrainedTokenizerBase,
    source_text: str,
    target_text: str | None = None,
    layer: int | None = None,
    head: int | None = None,
) -> tuple[torch.Tensor, list[str], list[str]]:
    """
    How much each token of a target looks at each of its source, in the step that makes it.

    Args:
        model: Loaded with `attn_implementation="eager"`, which returns weights.
        target_text: What the model is made to say; by default what it says.
        layer, head: Of the decoder, from 1; by default the mean of all of them.

    Returns:
        Weights (T, S), each row a distribution, and the tokens of both sides.

    Raises:
        ArgumentError: There is no such layer or head, or a side is too long to be looked at.
    """
    model.eval()
    encoded = source(source_text, return_tensors="pt").to(model.device)
    if target_text is None:
        room = PICTURE_TOKENS + 1  # for the start token
        length = min(model.generation_config.max_length or room, room)
        options = {"num_beams": 1, "do_sample": False, "max_length": length}
        labels = model.generate(**encoded, **options)[:, 1:]  # type: ignore[operator]
    else:
        labels = target(text_target=target_text, return_tensors="pt")["input_ids"].to(model.device)
    for side, ids in (("source", encoded["input_ids"]), ("target", labels)):
        if ids.shape[1] > PICTURE_TOKENS:
            raise ArgumentError(f"the {side} has {ids.shape[1]} tokens; a picture has room for {PICTURE_TOKENS}")
    attentions = model(**encoded, labels=labels, output_attentions=True).cross_attentions
    weights = torch.stack(attentions)[:, 0].float().cpu()  # (layers, H, T, S)
    for name, number, count in (("layer", layer, weights.shape[0]), ("head", head, weights.shape[1])):
        if number is not None and not 1 <= number <= count:
            raise ArgumentError(f"--{name} {number}: the decoder has {count} {name}s, counted from 1")
    chosen = weights[slice(None) if layer is None else slice(layer - 1, layer)]
    chosen = chosen[:, slice(None) if head is None else slice(head - 1, head)]
    return chosen.mean(dim=(0, 1)), pieces(source, encoded["input_ids"][0]), pieces(target, labels[0])


def pieces(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor) -> list[str]:
    """
    Each token as a reader knows it: spaces as "␣"; bytes that are no letter by themselves stay in the vocabulary's
    spelling.
    """
    decoded = tokenizer.batch_decode([[i] for i in ids.tolist()])
    return [
        (text.strip() or "␣") if text and "\N{REPLACEMENT CHARACTER}" not in text else token
        for text, token in zip(decoded, tokenizer.convert_ids_to_tokens(ids.tolist()), strict=True)
    ]


def plot_attention(weights: torch.Tensor, source: list[str], target: list[str], path: Path, title: str = "") -> None:
    """
    Args:
        weights: (T, S), one row a token of the target.
        source, target: The tokens' names, S and T of them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 0.32 * len(source), 1.5 + 0.32 * len(target)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(weights.numpy(), cmap="viridis", vmin=0, aspect="auto")
    # A dollar sign would begin a formula.
    axes.set_xticks(range(len(source)), [name.replace("$", r"\$") for name in source], rotation=90)
    axes.set_yticks(range(len(target)), [name.replace("$", r"\$") for name in target])
    axes.set(xlabel="source", ylabel="target", title=title)
    figure.colorbar(image, label="attention")
    figure.savefig(path, dpi=120)
