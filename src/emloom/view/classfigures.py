"""Pictures about predicted classes: confusion matrix, precision and recall, ROC, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.view.figures import (
    BLUE,
    GREEN,
    INK,
    VERMILION,
    WIDTH_IN,
    Figure,
    add_legend,
    new_canvas,
    plot_axes,
    png_of,
)

_SHARES = LinearSegmentedColormap.from_list("shares", ["#eef3f7", "#9cc4e0", "#0d5a92"])
_DARK, _LIGHT = "#14202b", "#ffffff"
_COLOURS = (BLUE, VERMILION, GREEN, "#b0559b", "#8a7a1d")
_LINES = ("-", "--", ":", "-.")  # as many as make 20 different pairs
_MOST_POINTS = 4000


class ReliabilityRow(Protocol):
    """One bin of a reliability table."""

    @property
    def n(self) -> int:
        """Voxels."""

    @property
    def confidence(self) -> float:
        """Mean probability."""

    @property
    def accuracy(self) -> float:
        """Part that is positive, or right."""


@dataclass(frozen=True)
class RankCurve:
    """One class, or one result, on precision-recall or ROC axes.

    Attributes:
        name: in the legend.
        across: recall, or false-positive rate; never decreasing.
        up: precision, or true-positive rate.
        score: the area, printed in the legend.
        mark: (across, up) of the threshold applied; None for none.
    """

    name: str
    across: NDArray[np.float64]
    up: NDArray[np.float64]
    score: float
    mark: tuple[float, float] | None = None


def confusion_plot(counts: NDArray[np.int64], names: Sequence[str], *, caption: str = "") -> Figure:
    """Return a confusion matrix: each row, a true class, as shares of its voxels.

    Args:
        counts: [C, C], rows truth, columns prediction.
        names: of the classes.
        caption: printed below.

    Raises:
        InputError: the counts are not square, or names are missing.
    """
    if counts.ndim != 2 or counts.shape != (len(names), len(names)) or not len(names):
        raise InputError(
            f"a confusion matrix of {counts.shape} has {len(names)} names: give one per row and column"
        )
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    n = len(names)
    # As wide as the page, which gives every picture its full width; the matrix keeps to the middle of it.
    canvas = new_canvas(WIDTH_IN, min(WIDTH_IN, max(2.6, 0.5 * n + 1.4)))
    ax = plot_axes(canvas, "predicted", "truth")
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    # Cells have a ground of their own, so that their numbers read on a light and on a dark page.
    ax.imshow(np.nan_to_num(shares), cmap=_SHARES, vmin=0, vmax=1, aspect="equal")
    ax.set_xticks(range(n), labels=names, rotation=45 if max(map(len, names)) > 6 else 0)
    ax.set_yticks(range(n), labels=names)
    ax.tick_params(length=0)
    if n <= 16:
        for row, column in np.ndindex(n, n):
            _write_share(ax, (row, column), float(shares[row, column]))
    right = "; ".join(
        f"{name} {shares[i, i]:.1%}" if totals[i, 0] else f"{name} does not occur" for i, name in enumerate(names)
    )
    return Figure(png_of(canvas), f"Confusion matrix; part of each true class that is right: {right}.", caption)


def ranking_plot(
    points: Sequence[RankCurve], rates: Sequence[RankCurve], *, prevalence: float | None = None, caption: str = ""
) -> Figure:
    """Return precision against recall, in steps as average precision takes them, and next to it the ROC curve.

    Args:
        points: one per class or result, recall across.
        rates: the same, false-positive rate across.
        prevalence: the precision that chance gives, drawn as a line; None for several classes.
        caption: printed below.

    Raises:
        InputError: there is no curve.
    """
    if not points and not rates:
        raise InputError("there is no curve to draw: give one per class or result")
    canvas = new_canvas(WIDTH_IN, 4.6)
    grid = canvas.add_gridspec(1, 2)
    ax = plot_axes(canvas, "recall", "precision", grid[0])
    for index, each in enumerate(points):
        _draw(ax, index, each, f"{each.name}: AP {each.score:.3f}", drawstyle="steps-pre")
    if prevalence is not None:
        ax.axhline(prevalence, color=INK, lw=1.2, ls=":", label=f"chance: {prevalence:.3f}")
    roc = plot_axes(canvas, "false-positive rate", "true-positive rate", grid[1])
    for index, each in enumerate(rates):
        _draw(roc, index, _from_nothing(each), f"{each.name}: AUC {each.score:.3f}")
    roc.plot([0, 1], [0, 1], color=INK, lw=1.2, ls=":", label="chance")
    for axes, drawn in ((ax, points), (roc, rates)):
        axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02))
        if drawn:
            _legend_above(axes)
    precise = "; ".join(f"{each.name}: AP {each.score:.3f}" for each in points)
    told = "; ".join(f"{each.name}: AUC {each.score:.3f}" for each in rates)
    alt = f"Precision against recall. {precise}. True-positive against false-positive rate. {told}."
    return Figure(png_of(canvas), alt, caption)


def reliability_plot(
    rows: Sequence[ReliabilityRow], xlabel: str, ylabel: str, *, caption: str = "", unit: str = "voxels"
) -> Figure:
    """Return frequency against probability, over how many voxels have that probability.

    Args:
        rows: bins that hold voxels, lowest probability first.
        xlabel: what the probability is of.
        ylabel: what the frequency is of.
        caption: printed below.
        unit: what was counted, in the plural.

    Raises:
        InputError: there is no bin.
    """
    if not rows:
        raise InputError("there is no bin to draw: no voxel counts")
    canvas = new_canvas(WIDTH_IN, 5.4)
    grid = canvas.add_gridspec(2, 1, height_ratios=[3, 1])
    ax = plot_axes(canvas, xlabel, ylabel, grid[0])
    below = plot_axes(canvas, xlabel, unit, grid[1])
    x, y = [row.confidence for row in rows], [row.accuracy for row in rows]
    ax.plot([0, 1], [0, 1], color=INK, lw=1.2, ls=":", label="calibrated")
    ax.vlines(x, x, y, color=VERMILION, lw=1.6, label="gap")
    ax.plot(x, y, color=BLUE, lw=2.0, marker="o", ms=5, label="found")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="")
    # Most voxels are easy: only a logarithm shows the others.
    below.vlines(x, 0.5, [row.n for row in rows], color=BLUE, lw=5)
    below.set(xlim=(0, 1), yscale="log", ylim=(0.5, 3 * max(row.n for row in rows)))
    add_legend(ax)
    widest = max(rows, key=lambda row: abs(row.accuracy - row.confidence))
    alt = (
        f"Reliability of {sum(row.n for row in rows)} {unit} in {len(rows)} bins; the largest gap is at a mean "
        f"probability of {widest.confidence:.3f}, where the frequency is {widest.accuracy:.3f}."
    )
    return Figure(png_of(canvas), alt, caption)


def _write_share(ax: Axes, at: tuple[int, int], share: float) -> None:
    row, column = at
    ink = _LIGHT if isfinite(share) and share > 0.78 else _DARK
    if not isfinite(share):
        text = "–"
    elif 0 < share < 0.0005:
        text = "<0.1"
    else:
        text = f"{100 * share:.1f}"
    ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)


def _draw(ax: Axes, index: int, each: RankCurve, label: str, **style: Any) -> None:
    colour, line = _COLOURS[index % len(_COLOURS)], _LINES[index % len(_LINES)]
    x, y = _thinned(each)
    ax.plot(x, y, color=colour, ls=line, lw=2.0, label=label, **style)
    if each.mark is not None:
        across, up = each.mark
        ax.plot([across], [up], color=colour, ls="", marker="o", ms=8, mfc="none", mew=2)


def _from_nothing(each: RankCurve) -> RankCurve:
    """Return a ROC curve from where nothing is called positive."""
    return replace(each, across=np.r_[0.0, each.across], up=np.r_[0.0, each.up])


def _legend_above(ax: Axes) -> None:
    """Put the legend above the axes, where it covers no curve, however many there are."""
    ax.legend(
        frameon=False, fontsize=9.5, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2
    )


def _thinned(drawn: RankCurve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a curve of few enough points for a picture, first and last among them."""
    n = len(drawn.across)
    kept = np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(np.int64))
    return drawn.across[kept], drawn.up[kept]
