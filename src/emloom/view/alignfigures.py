"""Pictures of alignment: stacks from the side before and after, where sections went, and how well they fit.

From the side, a membrane that runs through many sections is a line; a section that lies wrong breaks it. Numbers
of a method can be good while it follows its own mistakes: this picture cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.view.colours import RGB
from emloom.view.figures import (
    BLUE,
    GREEN,
    INK,
    VERMILION,
    WIDTH_IN,
    Figure,
    Tile,
    add_legend,
    new_canvas,
    plot_axes,
    png_of,
)
from emloom.view.mosaic import mosaic

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

MARK_RGB = (217, 96, 15)
"""Of what is bad or invented; VERMILION."""
_MARK_PX = 4
_MOST_POINTS = 3000
_ARROWS = 24


@dataclass(frozen=True)
class Plane:
    """A stack seen from one side, before and after.

    Attributes:
        title: which side, and where.
        before: [Z, W], 0 where there is nothing.
        after: of the same sections and the same place, likewise.
        spacing_nm: size of a pixel along z and along the other axis.
        bad: bool [Z], sections to be marked at the left edge.
    """

    title: str
    before: NDArray[Any]
    after: NDArray[Any]
    spacing_nm: tuple[float, float]
    bad: Bools


def stretched(images: Sequence[NDArray[Any]]) -> list[RGB]:
    """Return images as uint8 in one scale of greys, between the 0.5 and 99.5 percentiles of what is not 0."""
    known = np.concatenate([image[image != 0].ravel() for image in images])
    low, high = np.percentile(known, (0.5, 99.5)) if known.size else (0.0, 1.0)
    scale = 255.0 / max(float(high) - float(low), 1e-12)
    return [
        np.clip(np.rint((image.astype(np.float64) - low) * scale), 0, 255).astype(np.uint8) for image in images
    ]


def in_colour(image: RGB) -> RGB:
    """Return a grey picture as [Y, X, 3]; one in colour as it is."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def before_after(planes: Sequence[Plane], *, caption: str = "") -> Figure:
    """Return stacks from the side, before on the left and after on the right, in one scale of greys.

    Raises:
        InputError: there is no plane, or before and after differ in shape.
    """
    if not planes:
        raise InputError("there is nothing to compare: give a plane")
    for plane in planes:
        if plane.before.shape != plane.after.shape or plane.bad.shape != plane.before.shape[:1]:
            raise InputError(
                f"{plane.title}: before is {plane.before.shape}, after {plane.after.shape}, marks "
                f"{plane.bad.shape}: give the same sections and place"
            )
    greys = stretched([image for plane in planes for image in (plane.before, plane.after)])
    tiles = []
    for k, plane in enumerate(planes):
        for side, image in zip(("before", "after"), greys[2 * k : 2 * k + 2], strict=True):
            shown = in_colour(image).copy()
            shown[plane.bad, :_MARK_PX] = MARK_RGB
            tiles.append(Tile(f"{side}: {plane.title}", shown, plane.spacing_nm))
    marked = any(bool(plane.bad.any()) for plane in planes)
    alt = f"The stack from the side, before and after: {'; '.join(plane.title for plane in planes)}."
    return mosaic(tiles, columns=2, alt=alt, caption=caption, exact=[MARK_RGB] if marked else ())


def shift_curves(z: NDArray[np.int64], shift_yx: F64, bad: Bools, *, caption: str = "") -> Figure:
    """Return where sections were moved, along y and x, in pixels.

    Args:
        z: numbers of the sections, [Z].
        shift_yx: float64 [Z, 2], NaN where there is none.
        bad: bool [Z], marked.
        caption: printed below.
    """
    canvas = new_canvas(WIDTH_IN, 2.7)
    ax = plot_axes(canvas, "section", "moved by (px)")
    for axis, (name, colour) in enumerate((("along y", BLUE), ("along x", GREEN))):
        _line(ax, z, shift_yx[:, axis], colour, name)
    _mark(ax, z, bad)
    add_legend(ax)
    far = np.hypot(*shift_yx.T)
    largest = float(np.nanmax(far)) if np.isfinite(far).any() else 0.0
    n = int(bad.sum())
    alt = f"Shifts of {len(z)} sections along z: up to {largest:.1f} pixels; {n} {'is' if n == 1 else 'are'} bad."
    return Figure(png_of(canvas), alt, caption)


def residual_plot(z: NDArray[np.int64], median: F64, p95: F64, bad: Bools, *, caption: str = "") -> Figure:
    """Return how far sections still lie from where their neighbours say: along z, and how often.

    Args:
        z: numbers of the sections, [Z].
        median: float64 [Z], pixels, over the links of a section; NaN where it has none.
        p95: 95th percentiles, likewise.
        bad: bool [Z], marked.
        caption: printed below.
    """
    canvas = new_canvas(WIDTH_IN, 2.7)
    grid = canvas.add_gridspec(1, 2, width_ratios=[3, 1])
    ax = plot_axes(canvas, "section", "residual (px)", grid[0])
    _line(ax, z, p95, GREEN, "95th percentile")
    _line(ax, z, median, BLUE, "median")
    _mark(ax, z, bad)
    ax.set_ylim(0, 1.35 * ax.get_ylim()[1])  # the legend has room above
    add_legend(ax)
    counts = plot_axes(canvas, "median residual (px)", "sections", grid[1])
    known = median[np.isfinite(median)]
    if known.size:
        counts.hist(known, bins=min(30, max(5, int(np.sqrt(known.size)))), color=BLUE)
    middle = f"{float(np.median(known)):.2f} pixels, at most {float(known.max()):.2f}" if known.size else "unknown"
    alt = f"Residuals of {len(z)} sections along z and as a histogram: median over sections {middle}."
    return Figure(png_of(canvas), alt, caption)


def _line(ax: Axes, z: NDArray[np.int64], values: F64, colour: str, name: str) -> None:
    step = max(1, -(-len(z) // _MOST_POINTS))
    ax.plot(z[::step], values[::step], color=colour, lw=1.4, marker="." if len(z) < 80 else None, ms=4, label=name)
    ax.set_xlim(z[0] - 0.5, z[-1] + 0.5)


def _mark(ax: Axes, z: NDArray[np.int64], bad: Bools) -> None:
    """Mark bad sections: a band as wide as the section, and a point on the axis, however thin the band."""
    at = np.flatnonzero(bad)[:_MOST_POINTS]
    for k in at.tolist():
        ax.axvspan(z[k] - 0.5, z[k] + 0.5, color=VERMILION, alpha=0.16, lw=0)
    if at.size:
        ax.plot(
            z[at], np.zeros(at.size), color=VERMILION, ls="", marker="o", ms=5, label="bad section", clip_on=False,
            transform=ax.get_xaxis_transform(),
        )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def flow_colours(displacement: F64, most: float) -> RGB:
    """Return displacements as colours: hue is the direction, white is none, full colour is `most` or more.

    Args:
        displacement: [2, J, I], along y and x.
        most: what is shown in full colour, positive.

    Returns:
        uint8 [J, I, 3].
    """
    y, x = displacement
    far = np.clip(np.hypot(y, x) / most, 0, 1)
    hue = np.mod(np.arctan2(y, x) / (2 * np.pi), 1.0)
    colours = hsv_to_rgb(np.stack([hue, 0.72 * far, 1 - 0.06 * far], axis=-1))
    out: RGB = np.rint(255 * colours).astype(np.uint8)
    return out


def field_plot(displacement: F64, extent_px: tuple[float, float], title: str, *, caption: str = "") -> Figure:
    """Return how a section is bent: direction as hue, length as strength of colour, and as arrows; and the key.

    Args:
        displacement: float64 [2, J, I], along y and x, pixels; of places evenly spread over the section. NaN:
            nothing is known.
        extent_px: of the section along (y, x).
        title: printed above.
        caption: printed below.

    Raises:
        InputError: it is not of that form.
    """
    u = np.asarray(displacement, np.float64)
    if u.ndim != 3 or len(u) != 2 or 0 in u.shape:
        raise InputError(f"displacements of shape {u.shape}: give [2, J, I]")
    far = np.hypot(*u)
    most = float(np.nanmax(far)) if np.isfinite(far).any() else 0.0
    canvas = new_canvas(WIDTH_IN, 4.2)
    grid = canvas.add_gridspec(1, 2, width_ratios=[3.2, 1])
    ax = plot_axes(canvas, "x (px)", "y (px)", grid[0])
    rows, columns = extent_px
    ax.set_title(title, fontsize=10, color=INK, loc="left")
    colours = flow_colours(np.nan_to_num(u), max(most, 1e-9))
    ax.imshow(colours, extent=(0, columns, rows, 0), interpolation="nearest")
    step = max(1, -(-max(u.shape[1:]) // _ARROWS))
    j, i = (np.arange(min(step // 2, n - 1), n, step) for n in u.shape[1:])
    y, x = (j + 0.5) * rows / u.shape[1], (i + 0.5) * columns / u.shape[2]
    shown = u[:, j][:, :, i]
    cell = min(rows / len(j), columns / len(i))
    # The longest arrow is about as long as arrows are apart.
    ax.quiver(
        x, y, shown[1], shown[0], color="#30363d", angles="xy", scale_units="xy",
        scale=max(most, 1e-9) / (1.1 * cell), width=0.0022, headwidth=4.5,
    )  # fmt: skip
    ax.grid(visible=False)
    _draw_key(plot_axes(canvas, "", "", grid[1]), most)
    alt = f"{title}: displacements as colours and arrows, up to {most:.2f} pixels."
    return Figure(png_of(canvas), alt, caption)


def _draw_key(ax: Axes, most: float) -> None:
    side = np.linspace(-1, 1, 121)
    y, x = np.meshgrid(side, side, indexing="ij")
    wheel = flow_colours(np.stack([y, x]), 1.0)
    inside = (np.hypot(y, x) <= 1)[..., None]
    ax.imshow(np.concatenate([wheel, np.where(inside, 255, 0).astype(np.uint8)], axis=2), extent=(-1, 1, 1, -1))
    ax.set_axis_off()
    ax.set_title(f"to where; rim: {most:.2f} px", fontsize=9.5, color=INK)


def largest_step(shift_yx: F64) -> int:
    """Return the section (its place in the table) that moves most relative to the one before; 0: none does."""
    steps = np.hypot(*np.diff(shift_yx, axis=0).T)
    return int(np.nanargmax(steps)) + 1 if np.isfinite(steps).any() and np.nanmax(steps) > 0 else 0


def end_to_end(shift_yx: F64) -> float:
    """Return by how many pixels the last section that has a shift was moved relative to the first; NaN: none."""
    known = shift_yx[np.isfinite(shift_yx).all(axis=1)]
    return hypot(*(known[-1] - known[0]).tolist()) if len(known) else float("nan")
