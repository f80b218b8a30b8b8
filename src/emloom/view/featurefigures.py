"""Pictures about features of voxels: which of them matter."""

from __future__ import annotations

from collections.abc import Mapping

from emloom.errors import InputError
from emloom.view.figures import BLUE, VERMILION, WIDTH_IN, Figure, new_canvas, plot_axes, png_of


def importance_plot(shares: Mapping[str, float], lost: Mapping[str, float], *, caption: str = "") -> Figure:
    """Return two rows of bars side by side: the share of features in the splits, and what is lost without a group.

    Args:
        shares: part of the impurity that each feature's splits took away, the first on top.
        lost: recall that is lost where a group of features is shuffled; may be below 0, by chance.
        caption: printed below.

    Raises:
        InputError: there is no feature, or no group.
    """
    if not shares or not lost:
        raise InputError(f"{len(shares)} features in {len(lost)} groups: there is nothing to draw")
    canvas = new_canvas(WIDTH_IN, 0.24 * max(len(shares), len(lost)) + 0.9)
    grid = canvas.add_gridspec(1, 2)
    sides = ((shares, "share in the splits", BLUE), (lost, "mean recall lost without it", VERMILION))
    for column, (bars, words, colour) in enumerate(sides):
        ax = plot_axes(canvas, words, "", grid[column])
        ax.barh(range(len(bars)), list(bars.values()), color=colour, height=0.7)
        ax.set_yticks(range(len(bars)), labels=list(bars))
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
    told = "; ".join(f"{name} {share:.3f}" for name, share in shares.items())
    without = "; ".join(f"{name} {loss:.3f}" for name, loss in lost.items())
    return Figure(png_of(canvas), f"Share of features: {told}. Recall lost without: {without}.", caption)
