"""Figures about scores of detections: precision, recall and F-beta over thresholds; how many are kept; histogram.

They use the palette of Okabe and Ito (2008) and differ in line style and marker as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

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

_BINS = 25
_MARKED = 30  # points of a line that are still told apart


class Swept(Protocol):
    """One point of a sweep."""

    @property
    def threshold(self) -> float:
        """Detections of at least this score are kept."""

    @property
    def precision(self) -> float:
        """0 to 1."""

    @property
    def recall(self) -> float:
        """0 to 1."""

    @property
    def fbeta(self) -> float:
        """0 to 1."""


def sweep_plot(points: Sequence[Swept], best: int, beta: float = 1.0, *, caption: str = "") -> Figure:
    """Return precision, recall and F-beta against the threshold of a score.

    Args:
        points: lowest threshold first.
        best: number of the point to mark.
        beta: of the F-beta, for its name.
        caption: printed below.

    Raises:
        InputError: there is no point.
    """
    if not points:
        raise InputError("there is no threshold to draw: sweep at least one")
    x = [p.threshold for p in points]
    name = f"F{beta:g}"
    canvas = new_canvas(WIDTH_IN, 3.6)
    ax = plot_axes(canvas, "threshold of the score", "precision, recall, " + name)
    every = max(1, len(x) // _MARKED)
    ax.plot(x, [p.fbeta for p in points], color=BLUE, lw=2.4, marker="o", ms=4, markevery=every, label=name)
    lines = (("precision", VERMILION, "--", "^"), ("recall", GREEN, ":", "s"))
    for what, colour, style, marker in lines:
        y = [getattr(p, what) for p in points]
        ax.plot(x, y, color=colour, lw=1.8, ls=style, marker=marker, ms=3.5, markevery=every, label=what)
    chosen = points[best]
    ax.axvline(chosen.threshold, color=INK, lw=1.2, zorder=1)
    ax.annotate(
        f" best: {chosen.threshold:.3g} ", (chosen.threshold, 1), xycoords=("data", "axes fraction"),
        xytext=(0, 4), textcoords="offset points", ha="center", va="bottom", color=INK, fontsize=10,
    )  # fmt: skip
    ax.set_ylim(-0.02, 1.02)
    add_legend(ax)
    alt = (
        f"Precision, recall and {name} for {len(x)} thresholds from {x[0]:.3g} to {x[-1]:.3g}; {name} is highest, "
        f"{chosen.fbeta:.3f}, at {chosen.threshold:.3g}, with precision {chosen.precision:.3f} and recall "
        f"{chosen.recall:.3f}."
    )
    return Figure(png_of(canvas), alt, caption)


def kept_plot(scores: ArrayLike, *, caption: str = "") -> Figure:
    """Return how many detections are kept by each threshold of their score.

    Raises:
        InputError: there is no score.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    if not ordered.size:
        raise InputError("there is no score to draw: nothing was detected")
    canvas = new_canvas(WIDTH_IN, 3.0)
    ax = plot_axes(canvas, "threshold of the score", "detections kept")
    distinct, first = np.unique(ordered, return_index=True)
    ax.step([0.0, *distinct], [ordered.size, *(ordered.size - first)], where="pre", color=BLUE, lw=2.4)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    middle = float(np.median(ordered))
    alt = (
        f"Detections kept by a threshold of their score: all {ordered.size} up to {ordered[0]:.3g}, half of them "
        f"at {middle:.3g}, none above {ordered[-1]:.3g}."
    )
    return Figure(png_of(canvas), alt, caption)


def score_histogram(scores: ArrayLike, right: ArrayLike | None = None, *, caption: str = "") -> Figure:
    """Return the histogram of scores from 0 to 1; where it is known, of right and wrong detections apart.

    Args:
        scores: [n].
        right: bool [n], whether each is right; None where nobody knows.
        caption: printed below.

    Raises:
        InputError: there is no score.
    """
    values = np.asarray(scores, np.float64)
    if not values.size:
        raise InputError("there is no score to draw: nothing was detected")
    canvas = new_canvas(WIDTH_IN, 3.0)
    ax = plot_axes(canvas, "score", "detections")
    edges = np.linspace(0, 1, _BINS + 1).tolist()
    alt = f"Histogram of {values.size} scores from {values.min():.3g} to {values.max():.3g}"
    if right is None:
        ax.hist(values, edges, color=BLUE)
    else:
        good = np.asarray(right, bool)
        ax.hist(
            [values[good], values[~good]], edges, stacked=True, color=[BLUE, VERMILION], hatch=["", "//"],
            label=[f"right: {int(good.sum())}", f"wrong: {int((~good).sum())}"],
        )  # fmt: skip
        add_legend(ax)
        alt += f": {int(good.sum())} right, {int((~good).sum())} wrong"
    ax.set_xlim(0, 1)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return Figure(png_of(canvas), alt + ".", caption)
