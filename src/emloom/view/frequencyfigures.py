"""Pictures about spatial frequencies: what is kept per level, where the power is, rings, and maps of tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.view.figures import BLUE, GREEN, INK, VERMILION, WIDTH_IN, Figure, new_canvas, plot_axes, png_of

F64 = NDArray[np.float64]

_COLOURS = (BLUE, VERMILION, GREEN, "#b0559b", "#8a7a1d", INK)
_LINES, _MARKS = ("-", "--", ":", "-."), "o^sDvP"
_LEAST = 1e-3  # ratios below are drawn at the lower edge


class Estimate(Protocol):
    """A value with its interval."""

    @property
    def value(self) -> float:
        """The value; NaN where it is not defined."""

    @property
    def low(self) -> float:
        """Lower end."""

    @property
    def high(self) -> float:
        """Upper end."""


@dataclass(frozen=True)
class KeptLine:
    """What one output keeps, finest level first.

    Attributes:
        name: in the legend.
        wavelengths_nm: of the levels.
        ratios: power of the output over that of the reference.
        coherences: of their coefficients.
    """

    name: str
    wavelengths_nm: Sequence[float]
    ratios: Sequence[Estimate]
    coherences: Sequence[Estimate]


def fidelity_plot(
    lines: Sequence[KeptLine], targets: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, caption: str = ""
) -> Figure:
    """Return the ratio of power and the coherence of every level against its wavelength, with intervals.

    Args:
        lines: one per output.
        targets: (wavelengths in nm, ratios) of an ideal denoiser by name, drawn beside the ratios.
        caption: printed below.

    Raises:
        InputError: there is no line.
    """
    if not lines:
        raise InputError("there is no output to draw: give at least one")
    canvas = new_canvas(WIDTH_IN, 4.4)
    grid = canvas.add_gridspec(1, 2)
    left = plot_axes(canvas, "wavelength (nm)", "power kept (ratio)", grid[0])
    right = plot_axes(canvas, "wavelength (nm)", "coherence", grid[1])
    for index, line in enumerate(lines):
        _draw(left, index, line.name, line.wavelengths_nm, line.ratios, _LEAST)
        _draw(right, index, line.name, line.wavelengths_nm, line.coherences, -1.0)
    for style, (name, (x, y)) in zip((":", "-."), targets.items(), strict=False):
        left.plot(x, np.maximum(y, _LEAST), color=INK, lw=1.4, ls=style, label=name)
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ticks = sorted({nm for line in lines for nm in line.wavelengths_nm})
        ax.set_xticks(ticks, [f"{nm:g}" for nm in ticks])
        ax.minorticks_off()
        ax.axhline(1, color=INK, lw=0.9)
    left.set_yscale("log")
    drawn = [e.value for line in lines for e in line.ratios if e.value > 0]
    left.set_ylim(bottom=max(_LEAST, min([0.5, *drawn]) / 2))
    known = [e.value for line in lines for e in line.coherences if isfinite(e.value)]
    right.set_ylim(min([0.0, *known]), 1.05)
    _legend_above(left, 2)
    words = "; ".join(
        f"{line.name}: at {line.wavelengths_nm[0]:g} nm ratio {line.ratios[0].value:.2f}, coherence "
        f"{line.coherences[0].value:.2f}, at {line.wavelengths_nm[-1]:g} nm {line.ratios[-1].value:.2f} and "
        f"{line.coherences[-1].value:.2f}"
        for line in lines
    )
    return Figure(png_of(canvas), f"Power kept and coherence against wavelength. {words}.", caption)


def share_plot(
    wavelengths_nm: Sequence[float], shares: Mapping[str, Sequence[float]], *, caption: str = ""
) -> Figure:
    """Return bars: the part of the power, without DC, that every level holds, of the reference and each output.

    Args:
        wavelengths_nm: of the levels.
        shares: by name, one number per level.
        caption: printed below.

    Raises:
        InputError: there is no bar.
    """
    if not shares:
        raise InputError("there is no share to draw: give those of the reference at least")
    canvas = new_canvas(WIDTH_IN, 3.4)
    ax = plot_axes(canvas, "wavelength (nm)", "share of power")
    at, width = np.arange(len(wavelengths_nm)), 0.8 / len(shares)
    colours = (INK, *_COLOURS[:-1])
    for index, (name, values) in enumerate(shares.items()):
        place = at + (index - (len(shares) - 1) / 2) * width
        ax.bar(place, np.nan_to_num(values), width * 0.92, color=colours[index % len(colours)], label=name)
    ax.set_xticks(at, [f"{nm:g}" for nm in wavelengths_nm])
    ax.grid(visible=False, axis="x")
    _legend_above(ax, 4)
    most = {name: int(np.argmax(np.nan_to_num(values))) for name, values in shares.items()}
    words = "; ".join(f"{name}: most at {wavelengths_nm[k]:g} nm" for name, k in most.items())
    return Figure(png_of(canvas), f"Share of power per wavelength. {words}.", caption)


def ring_plot(
    curves: Mapping[str, tuple[F64, F64]], half_bit: tuple[F64, F64], fixed: float, *, caption: str = ""
) -> Figure:
    """Return the correlation of Fourier rings, or shells, against frequency.

    Args:
        curves: (frequencies per nm, correlations) by name.
        half_bit: (frequencies per nm, threshold).
        fixed: threshold at all frequencies.
        caption: printed below.

    Raises:
        InputError: there is no curve.
    """
    if not curves:
        raise InputError("there is no curve to draw: give one per output")
    canvas = new_canvas(WIDTH_IN, 3.4)
    ax = plot_axes(canvas, "frequency (1/nm)", "ring correlation")
    for index, (name, (x, y)) in enumerate(curves.items()):
        ax.plot(x, y, lw=2.0, color=_COLOURS[index % len(_COLOURS)], ls=_LINES[index % len(_LINES)], label=name)
    ax.plot(*half_bit, color=INK, lw=1.1, ls=":", label="half a bit")
    ax.axhline(fixed, color=INK, lw=1.1, ls="-.", label=f"{fixed:g}")
    ax.set_ylim(-0.1, 1.05)
    _legend_above(ax, 4)
    return Figure(png_of(canvas), f"Fourier ring correlation of {', '.join(curves)} with the reference.", caption)


def tile_map(
    maps: Mapping[str, F64], marked: NDArray[np.bool_], spacing_nm: tuple[float, float], *, caption: str = ""
) -> Figure:
    """Return values of tiles in their places, one map beside the other.

    Args:
        maps: float64 [Y, X] by name, drawn from 0 to 1 or more; NaN is left blank.
        marked: bool [Y, X], tiles that are framed.
        spacing_nm: size of a tile along (rows, columns).
        caption: printed below.

    Raises:
        InputError: there is no map.
    """
    if not maps:
        raise InputError("there is no map to draw: give at least one")
    rows, columns = marked.shape
    height = WIDTH_IN / len(maps) * rows * spacing_nm[0] / (columns * spacing_nm[1])
    canvas = new_canvas(WIDTH_IN, min(9.0, max(1.6, height)) + 0.7)
    grid = canvas.add_gridspec(1, len(maps))
    for index, (name, values) in enumerate(maps.items()):
        ax = plot_axes(canvas, "", "", grid[index])
        most = max(1.0, float(np.nanmax(values, initial=0.0)))
        image = ax.imshow(values, cmap="cividis", vmin=min(0.0, float(np.nanmin(values, initial=0.0))), vmax=most,
                          aspect=spacing_nm[0] / spacing_nm[1])  # fmt: skip
        ax.set_title(name, fontsize=10, color=INK, loc="left")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
        bar = canvas.colorbar(image, ax=ax, shrink=0.8)
        bar.ax.tick_params(colors=INK, labelsize=9)
        for y, x in np.argwhere(marked):
            ax.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=VERMILION, lw=2.0))
    alt = f"Maps of {', '.join(maps)}, tile by tile; {int(marked.sum())} of {marked.size} tiles are framed."
    return Figure(png_of(canvas), alt, caption)


def _draw(ax: Axes, index: int, name: str, x: Sequence[float], y: Sequence[Estimate], least: float) -> None:
    colour = _COLOURS[index % len(_COLOURS)]
    value, low, high = (np.array([getattr(e, end) for e in y], float) for end in ("value", "low", "high"))
    ax.fill_between(x, np.maximum(low, least), np.maximum(high, least), color=colour, alpha=0.22, lw=0)
    ax.plot(
        x,
        np.maximum(value, least),
        color=colour,
        ls=_LINES[index % len(_LINES)],
        marker=_MARKS[index % len(_MARKS)],
        lw=2.0,
        ms=5,
        label=name,
    )


def _legend_above(ax: Axes, columns: int) -> None:
    legend = ax.legend(
        frameon=False, fontsize=9.5, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns
    )
    legend.set_zorder(5)
