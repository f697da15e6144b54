# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures: whether they can be drawn, their files, and histograms of lengths."""

from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArgumentError
from ..files import write_whole


if TYPE_CHECKING:  # pictures of attention do without datasets, which statistics need
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .statistics import Lengths, Side

# In a histogram.
BARS = 60


def can_plot() -> bool:
    """Returns True if matplotlib, an extra, is installed."""
    return util.find_spec("matplotlib") is not None


def picture_format(path: Path) -> str:
    """
    Returns the format of a picture, by the ending of its file.

    Raises:
        ArgumentError: There is no such format, or matplotlib is not installed.
    """
    if not can_plot():
        raise ArgumentError("pictures need matplotlib: pip install 'hf-xformer[plot]'")
    from matplotlib.figure import Figure

    form = path.suffix[1:] or "png"
    if form not in Figure().canvas.get_supported_filetypes():
        raise ArgumentError(f"{path}: cannot draw a picture of type {form!r}; png, pdf and svg are possible")
    return form


def save_picture(figure: "Figure", path: Path) -> None:
    """Writes a picture whole; raises ArgumentError as [`picture_format`] does."""
    form = picture_format(path)
    write_whole(path, lambda unfinished: figure.savefig(unfinished, dpi=120, format=form))


def plot_lengths(sides: "dict[str, Side]", limits: dict[str, int], path: Path) -> None:
    """
    Draws histograms: a row for each unit of length, a column for each side.

    Args:
        sides: Statistics by "source" and "target".
        limits: Longest text of a side, in the last of the units; a line is drawn there.
        path: File to write, PNG or another format by its extension.
    """
    from matplotlib.figure import Figure

    units, counted = list(sides["source"].lengths), "pairs" if len(sides) > 1 else "texts"
    figure = Figure(figsize=(10, 1 + 2.4 * len(units)), layout="constrained")
    for row, unit in zip(figure.subplots(len(units), len(sides), squeeze=False), units, strict=True):
        for axes, side in zip(row, sides, strict=True):
            lengths = sides[side].lengths[unit]
            draw_histogram(axes, lengths)
            axes.set(xlabel=f"{side}, {unit}", ylabel=counted if axes is row[0] else "")
            axes.axvline(
                lengths.percentile(50), color="black", linestyle=":", label=f"median {lengths.percentile(50)}"
            )
            if unit == units[-1] and side in limits:
                axes.axvline(limits[side] + 0.5, color="C3", linestyle="--", label=f"max_{side}_length {limits[side]}")
            axes.legend(fontsize="small")
    save_picture(figure, path)


def draw_histogram(axes: "Axes", lengths: "Lengths") -> None:
    from matplotlib.ticker import MaxNLocator

    bins = lengths.bins(BARS)
    width = bins[0][1] + 1 - bins[0][0] if len(bins) > 1 else 1
    axes.bar([first - 0.5 for first, _, _ in bins], [count for *_, count in bins], width=width, align="edge")
    if bins and bins[-1][1] >= bins[-1][0] + width:  # it has all that are longer
        axes.plot([], " ", label=f"the last bar: {bins[-1][0]:,} to {lengths.largest:,}")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
