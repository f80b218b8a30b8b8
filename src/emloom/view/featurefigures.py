"""Pictures about features of voxels: which of them matter."""

from __future__ import annotations

from collections.abc import Sequence

from emloom.errors import InputError
from emloom.view.figures import BLUE, VERMILION, WIDTH_IN, Figure, new_canvas, plot_axes, png_of


def importance_plot(
    names: Sequence[str], shares: Sequence[float], lost: Sequence[float], *, caption: str = ""
) -> Figure:
    """Return two rows of bars per feature side by side: its share in the splits, and what is lost without it.

    Args:
        names: of the features, the first on top.
        shares: part of the impurity that each feature's splits took away.
        lost: recall that is lost where a feature is shuffled; may be below 0, by chance.
        caption: printed below.

    Raises:
        InputError: there is no feature, or numbers are missing.
    """
    if not names or not len(names) == len(shares) == len(lost):
        raise InputError(f"{len(names)} features have {len(shares)} and {len(lost)} numbers: give two for each")
    canvas = new_canvas(WIDTH_IN, 0.24 * len(names) + 0.9)
    grid = canvas.add_gridspec(1, 2)
    places = range(len(names))
    left = plot_axes(canvas, "share in the splits", "", grid[0])
    left.barh(places, shares, color=BLUE, height=0.7)
    left.set_yticks(places, labels=names)
    right = plot_axes(canvas, "mean recall lost where it is shuffled", "", grid[1])
    right.barh(places, lost, color=VERMILION, height=0.7)
    right.set_yticks(places, labels=[""] * len(names))
    for ax in (left, right):
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
    told = "; ".join(
        f"{name} {share:.3f}, {loss:.3f}" for name, share, loss in zip(names, shares, lost, strict=True)
    )
    return Figure(png_of(canvas), f"Features, their share in the splits, and the recall lost. {told}.", caption)
