"""Pictures of a connectome: its adjacency matrix, and how contacts and partners are distributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.view.figures import BLUE, INK, VERMILION, WIDTH_IN, Figure, add_legend, new_canvas, plot_axes, png_of

Counts = NDArray[np.int64]
_NAMED = 40  # neurons whose ids fit beside a matrix
# Legible on a light and a dark ground, and for people who do not see red or green.
_INKS = LinearSegmentedColormap.from_list("contacts", [f"{BLUE}60", BLUE, VERMILION])
_STYLES = ((BLUE, "-", "o"), (VERMILION, "--", "s"))


def adjacency_figure(matrix: Counts, ids: Sequence[int], caption: str = "", directed: bool = True) -> Figure:
    """Return the matrix of contacts: from the neuron of the row to the neuron of the column.

    Pale blue is one contact, orange the most, in between on a logarithmic scale.

    Args:
        matrix: int64 [k, k].
        ids: of the neurons, in order; written beside the matrix where there are few.
        caption: printed below.
        directed: whether the row's neuron is known to send; otherwise the axes do not say so.

    Raises:
        InputError: there is no neuron, or the matrix has another shape.
    """
    k = len(ids)
    if not k or matrix.shape != (k, k):
        raise InputError(
            f"a matrix of {matrix.shape} for {k} neurons cannot be drawn: one row and column for each"
        )
    canvas = new_canvas(WIDTH_IN * 0.78, WIDTH_IN * 0.68)
    across, down = ("post neuron (receives)", "pre neuron (sends)") if directed else ("one neuron", "the other")
    ax = plot_axes(canvas, across, down)
    ax.grid(visible=False)
    most = int(matrix.max())
    # Zero is the ground: no contact is no ink.
    shown = np.ma.masked_equal(matrix, 0)
    norm = LogNorm(1, max(most, 2))
    image = ax.imshow(shown, cmap=_INKS, norm=norm, interpolation="nearest", aspect="equal")
    for spine in ax.spines.values():
        spine.set_visible(True)
    _name_neurons(ax, ids)
    bar = canvas.colorbar(image, ax=ax, shrink=0.7, pad=0.02)
    bar.set_label("contacts", color=INK, fontsize=11)
    ticks = [t for p in range(12) for t in (10**p, 2 * 10**p, 5 * 10**p) if t <= max(most, 2)]
    bar.ax.yaxis.set_major_locator(FixedLocator(ticks if len(ticks) < 9 else ticks[::3]))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(which="both", colors=INK, labelsize=10)
    bar.outline.set_edgecolor(INK)
    filled = int(np.count_nonzero(matrix))
    alt = f"Adjacency matrix of {k} neurons: {filled} of {k * k} fields have contacts, at most {most}."
    return Figure(png_of(canvas), alt, caption)


def distributions_figure(weights: Counts, partners: Mapping[str, Counts], caption: str = "") -> Figure:
    """Return how many edges have at least so many contacts, and how many neurons at least so many partners.

    Args:
        weights: int64 [m], contacts of each edge.
        partners: by name (at most two), partners of each neuron.
        caption: printed below.

    Raises:
        InputError: there is no edge.
    """
    if not len(weights):
        raise InputError("there is no edge, so nothing is distributed")
    canvas = new_canvas(WIDTH_IN, 3.8)
    parts = canvas.add_gridspec(1, 2)
    left = plot_axes(canvas, "contacts", "edges with at least so many", parts[0])
    right = plot_axes(canvas, "partners", "neurons with at least so many", parts[1])
    _descent(left, weights, 0, None)
    words = [
        f"{len(weights)} edges, {float(np.median(weights)):g} contacts in the median, at most {weights.max()}"
    ]
    for k, (name, counts) in enumerate(partners.items()):
        some = counts[counts > 0]
        _descent(right, some, k, name)
        words.append(f"{name}: {len(some)} neurons, at most {int(some.max(initial=0))}")
    add_legend(right)
    return Figure(png_of(canvas), f"Distributions. {'; '.join(words)}.", caption)


def _descent(ax: Axes, values: Counts, style: int, label: str | None) -> None:
    """Draw how many values reach each value."""
    present, counts = np.unique(values, return_counts=True)
    colour, line, mark = _STYLES[style]
    reach = np.cumsum(counts[::-1])[::-1]
    ax.plot(present, reach, color=colour, ls=line, lw=1.8, marker=mark, ms=4, label=label)
    for axis, top in ((ax.xaxis, present.max(initial=1)), (ax.yaxis, reach.max(initial=1))):
        _scale(ax, axis is ax.xaxis, int(top))


def _scale(ax: Axes, along_x: bool, top: int) -> None:
    """Choose a logarithmic scale where there is something to see on one, and whole numbers in any case."""
    axis = ax.xaxis if along_x else ax.yaxis
    if top >= 20:
        (ax.set_xscale if along_x else ax.set_yscale)("log")
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return
    axis.set_major_locator(MaxNLocator(integer=True))
    if not along_x:
        ax.set_ylim(bottom=0)


def _name_neurons(ax: Axes, ids: Sequence[int]) -> None:
    if len(ids) > _NAMED:
        ax.set_xticks([])
        ax.set_yticks([])
        return
    names = [str(i) for i in ids]
    ax.set_xticks(range(len(ids)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(ids)), names, fontsize=8)
