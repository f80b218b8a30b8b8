"""Curves for reports: scores against thresholds, splits against merges, losses against steps.

They use the palette of Okabe and Ito (2008) and differ in line style and marker as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
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


class Scores(Protocol):
    """The two kinds of error of a segmentation, in bits."""

    @property
    def voi_split(self) -> float:
        """H(segments | truth)."""

    @property
    def voi_merge(self) -> float:
        """H(truth | segments)."""


class ScoredThreshold(Protocol):
    """One point of a threshold sweep."""

    @property
    def threshold(self) -> float:
        """Agglomeration threshold."""

    @property
    def scores(self) -> Scores:
        """Scores at that threshold."""


def threshold_curve(
    points: Sequence[ScoredThreshold], chosen: float | None = None, *, caption: str = ""
) -> Figure:
    """Return split, merge and summed variation of information against the agglomeration threshold.

    Args:
        points: sweep, any order.
        chosen: threshold to mark.
        caption: printed below.

    Raises:
        InputError: there is no point.
    """
    if not points:
        raise InputError("there is no threshold to draw: sweep at least one")
    ordered = sorted(points, key=lambda p: p.threshold)
    x = [p.threshold for p in ordered]
    split = [p.scores.voi_split for p in ordered]
    merge = [p.scores.voi_merge for p in ordered]
    total = [a + b for a, b in zip(split, merge, strict=True)]
    canvas = new_canvas(WIDTH_IN, 3.6)
    ax = plot_axes(canvas, "agglomeration threshold", "variation of information (bits)")
    ax.plot(x, total, color=BLUE, lw=2.4, marker="o", ms=4, label="sum")
    ax.plot(x, split, color=VERMILION, lw=1.8, ls="--", marker="^", ms=4, label="split errors")
    ax.plot(x, merge, color=GREEN, lw=1.8, ls=":", marker="s", ms=3.5, label="merge errors")
    ax.set_ylim(bottom=0)
    best = min(range(len(x)), key=total.__getitem__)
    alt = (
        f"Variation of information for {len(x)} thresholds from {x[0]:g} to {x[-1]:g}; the sum is lowest, "
        f"{total[best]:.3f} bits, at {x[best]:g}."
    )
    add_legend(ax)
    return Figure(png_of(canvas), alt + _mark_chosen(ax, chosen), caption)


def run_length_curve(
    points: Sequence[tuple[float, float]], most_um: float, chosen: float | None = None, *, caption: str = ""
) -> Figure:
    """Return the expected run length against the agglomeration threshold.

    Args:
        points: (threshold, expected run length in µm), any order.
        most_um: that of a perfect segmentation.
        chosen: threshold to mark.
        caption: printed below.

    Raises:
        InputError: there is no point.
    """
    if not points:
        raise InputError("there is no threshold to draw: sweep at least one")
    x, y = zip(*sorted(points), strict=True)
    canvas = new_canvas(WIDTH_IN, 3.6)
    ax = plot_axes(canvas, "agglomeration threshold", "expected run length (µm)")
    ax.plot(x, y, color=BLUE, lw=2.4, marker="o", ms=4, label="this segmentation")
    ax.axhline(most_um, color=GREEN, lw=1.8, ls="--", label="a perfect one")
    ax.set_ylim(bottom=0)
    best = max(range(len(x)), key=y.__getitem__)
    alt = (
        f"Expected run length for {len(x)} thresholds from {x[0]:g} to {x[-1]:g}; the longest is "
        f"{y[best]:.3f} µm, at {x[best]:g}; that of a perfect segmentation is {most_um:.3f} µm."
    )
    add_legend(ax)
    return Figure(png_of(canvas), alt + _mark_chosen(ax, chosen), caption)


def _mark_chosen(ax: Axes, chosen: float | None) -> str:
    """Mark the threshold that was chosen, if there is one; return the words for it."""
    if chosen is None:
        return ""
    ax.axvline(chosen, color=INK, lw=1.2, zorder=1)
    ax.annotate(
        f" chosen: {chosen:g} ", (chosen, 1), xycoords=("data", "axes fraction"), xytext=(0, 4),
        textcoords="offset points", ha="center", va="bottom", color=INK, fontsize=10,
    )  # fmt: skip
    return f" Chosen: {chosen:g}."


@dataclass(frozen=True)
class Trade:
    """The split and merge errors of one result.

    Attributes:
        name: of the result.
        split: VOI split, bits.
        merge: VOI merge, bits.
        sweep: (split, merge) at other thresholds, in their order; empty where there is none.
    """

    name: str
    split: float
    merge: float
    sweep: Sequence[tuple[float, float]] = ()


def split_merge_plot(results: Sequence[Trade], *, caption: str = "") -> Figure:
    """Return VOI split against VOI merge of several results: nearer to the lower left is better.

    Raises:
        InputError: there is no result.
    """
    if not results:
        raise InputError("there is no result to draw: give at least one")
    canvas = new_canvas(WIDTH_IN, 5.0)
    ax = plot_axes(canvas, "VOI merge (bits)", "VOI split (bits)")
    styles = ((BLUE, "-", "o"), (VERMILION, "--", "^"), (GREEN, ":", "s"), (INK, "-.", "D"))
    for index, result in enumerate(results):
        colour, line, marker = styles[index % len(styles)]
        if result.sweep:
            split, merge = zip(*result.sweep, strict=True)
            ax.plot(merge, split, color=colour, lw=1.6, ls=line)
        label = f"{result.name}: {result.split + result.merge:.3f}"
        ax.plot([result.merge], [result.split], color=colour, ls="", marker=marker, ms=9, label=label)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    add_legend(ax)
    words = "; ".join(f"{r.name}: split {r.split:.3f}, merge {r.merge:.3f} bits" for r in results)
    return Figure(png_of(canvas), f"Split against merge errors. {words}.", caption)


def training_curves(
    steps: Sequence[float],
    losses: Sequence[float],
    validation: Sequence[tuple[float, float]] = (),
    *,
    caption: str = "",
) -> Figure:
    """Return the training loss, smoothed and as it was, and the validation loss against the step.

    Args:
        steps: optimiser step of each loss.
        losses: training loss.
        validation: (step, loss) pairs.
        caption: printed below.

    Raises:
        InputError: steps and losses differ in length, or there is none.
    """
    if len(steps) != len(losses) or len(steps) == 0:
        raise InputError(f"there are {len(steps)} steps and {len(losses)} losses: give one loss per step")
    canvas = new_canvas(WIDTH_IN, 3.4)
    ax = plot_axes(canvas, "training step", "loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    smooth = _smoothed(np.asarray(losses, np.float64), max(1, len(losses) // 40))
    ax.plot(steps, losses, color=BLUE, lw=0.8, alpha=0.35)
    ax.plot(steps, smooth, color=BLUE, lw=2.2, label="training, smoothed")
    alt = f"Training loss over {steps[-1]:g} steps, from {smooth[0]:.4g} to {smooth[-1]:.4g} (smoothed)."
    if validation:
        ax.plot(
            *zip(*validation, strict=True), color=VERMILION, lw=1.8, ls="--", marker="^", ms=5, label="validation"
        )
        best_step, best = min(validation, key=lambda pair: pair[1])
        alt += f" Validation is lowest, {best:.4g}, at step {best_step:g}."
    if min(losses) > 0 and smooth.max() > 20 * smooth.min():
        ax.set_yscale("log")
    add_legend(ax)
    return Figure(png_of(canvas), alt, caption)


def _smoothed(values: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """Return the centred moving average over at most `2 half + 1` values, shorter at the ends."""
    sums = np.r_[0.0, np.cumsum(values)]
    at = np.arange(values.size)
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, values.size)
    mean: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return mean


def update_curve(energy: Sequence[float], *, caption: str = "") -> Figure:
    """Return the energy of an optimisation before each of its updates.

    Raises:
        InputError: there is none.
    """
    if not len(energy):
        raise InputError("there is no energy to draw: give one or more")
    canvas = new_canvas(WIDTH_IN, 3.0)
    ax = plot_axes(canvas, "updates made", "energy (nats)")
    ax.plot(range(len(energy)), energy, color=BLUE, lw=1.8, marker="o", ms=5)
    alt = f"Energy over {len(energy)} updates, from {energy[0]:.6g} to {energy[-1]:.6g}."
    return Figure(png_of(canvas), alt, caption)
