# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Heat maps of a model's cross-attention, as PNG files."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..checkpoints.vocabulary import check_decoder_start
from ..data.encoding import TextEncoder
from ..data.pictures import save_picture
from ..errors import ArgumentError
from .languages import Languages
from .lengths import longest_target, room


if TYPE_CHECKING:  # an extra
    from matplotlib.figure import Figure

# Tokens of either side whose names can still be read in a heat map.
PICTURE_TOKENS = 100


@torch.no_grad()
def cross_attention(
    model: PreTrainedModel,
    source: PreTrainedTokenizerBase,
    target: PreTrainedTokenizerBase,
    source_text: str,
    target_text: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    languages: Languages | None = None,
) -> tuple[torch.Tensor, list[str], list[str]]:
    """
    Returns the attention of each target token to each source token, in the step that generates it.

    Args:
        model: Loaded with `attn_implementation="eager"`, which returns weights.
        source, target: Tokenizers.
        target_text: Text to be forced on the model; by default the one that it decodes, greedily.
        layer, head: Numbers in the decoder, from 1; by default the mean over all.
        languages: Those of the texts; none by default.

    Returns:
        Weights (T, S), each row a distribution, and the tokens of both sides.

    Raises:
        ArgumentError: There is no such layer or head, or a side has too many tokens for a picture or for
            the model.
    """
    check_decoder_start(model.config)
    model.eval()
    languages = languages or Languages(source, target)
    input_ids = encode(TextEncoder(source), languages(source_text), model.device)
    most = check_room(model, "source", input_ids)
    if target_text is None:
        length = min(longest_target(model.generation_config) or most, most)
        # The start token counts towards the length.
        options = {"num_beams": 1, "do_sample": False, "max_length": length + 1, "max_new_tokens": None}
        options |= {"num_return_sequences": 1, "return_dict_in_generate": False}  # whatever the checkpoint has
        options |= languages.options
        labels = model.generate(input_ids, **options)[:, 1:]  # type: ignore[operator]
    else:
        labels = encode(TextEncoder(target, target=True), languages.begin(target_text), model.device)
    check_room(model, "target", labels)
    start = languages.options.get("decoder_start_token_id", model.generation_config.decoder_start_token_id)
    if start is None:
        start = model.config.decoder_start_token_id
    before = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], dim=1)
    attentions = model(input_ids, decoder_input_ids=before, output_attentions=True).cross_attentions
    weights = torch.stack(attentions)[:, 0].float().cpu()  # (layers, H, T, S)
    for name, number, count in (("layer", layer, weights.shape[0]), ("head", head, weights.shape[1])):
        if number is not None and not 1 <= number <= count:
            raise ArgumentError(f"--{name} {number}: the decoder has {count} {name}s, counted from 1")
    chosen = weights[slice(None) if layer is None else slice(layer - 1, layer)]
    chosen = chosen[:, slice(None) if head is None else slice(head - 1, head)]
    return chosen.mean(dim=(0, 1)), pieces(source, input_ids[0]), pieces(target, labels[0])


def encode(encoder: TextEncoder, text: str, device: torch.device) -> torch.Tensor:
    """Returns a text's tokens (1, T)."""
    (encoded,) = encoder([text])
    return torch.tensor([encoded.ids], dtype=torch.long, device=device)


def check_room(model: PreTrainedModel, side: str, ids: torch.Tensor) -> int:
    """
    Returns how many tokens a side may have.

    Raises:
        ArgumentError: It has more.
    """
    limit = room(model, "encoder" if side == "source" else "decoder")
    most, whose = PICTURE_TOKENS, "a picture has room"
    if limit is not None and limit < most:
        most, whose = limit, "the model has positions"
    if ids.shape[1] > most:
        raise ArgumentError(f"the {side} has {ids.shape[1]} tokens; {whose} for {most}")
    return most


def pieces(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor) -> list[str]:
    """
    Returns each token as a reader knows it: a space as "␣"; a byte that is only part of a letter as in the vocabulary.
    """
    decoded = tokenizer.batch_decode([[i] for i in ids.tolist()])
    return [
        (text.strip() or "␣") if text and "\N{REPLACEMENT CHARACTER}" not in text else token
        for text, token in zip(decoded, tokenizer.convert_ids_to_tokens(ids.tolist()), strict=True)
    ]


def draw_attention(weights: torch.Tensor, source: list[str], target: list[str], title: str = "") -> "Figure":
    """
    Returns attention weights as a heat map.

    Args:
        weights: (T, S), a row for each token of the target.
        source, target: The tokens' names, S and T of them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 0.32 * len(source), 1.5 + 0.32 * len(target)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(weights.numpy(), cmap="viridis", vmin=0, aspect="auto")
    # A plain dollar sign would begin a formula.
    axes.set_xticks(range(len(source)), [name.replace("$", r"\$") for name in source], rotation=90)
    axes.set_yticks(range(len(target)), [name.replace("$", r"\$") for name in target])
    axes.set(xlabel="source", ylabel="target", title=title)
    figure.colorbar(image, label="attention")
    return figure


def plot_attention(weights: torch.Tensor, source: list[str], target: list[str], path: Path, title: str = "") -> None:
    """
    Writes the heat map of [`draw_attention`], as PNG or in another format by the file's extension.

    Raises:
        ArgumentError: There is no such format.
    """
    save_picture(draw_attention(weights, source, target, title), path)
