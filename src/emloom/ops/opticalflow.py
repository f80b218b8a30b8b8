"""Dense flow between two sections: where every place of the section between them lies in the one and in the other.

Windowed least squares that are solved again and again, coarse to fine (Lucas & Kanade 1981; Le Besnerais &
Champagnat 2005, doi:10.1109/ICIP.2005.1529706), made for electron micrographs:

* of grey values only a band counts, scaled to the contrast around, so staining and illumination are left out;
* the flow is a lattice of nodes, a cell of pixels apart: sums over cells are smoothed and solved, pixels are not;
* it may be asked for *between* the sections, in the frame of a section that is missing (`at`)::

      before   p - at v(p)            residual  r(p) = after(p + (1 - at) v) - before(p - at v)
      missing  p                      at = 0: from the places of `before`, as flows are usually given
      after    p + (1 - at) v(p)      at = 0.5: halfway, the same work for both

* residuals that stay large (a vesicle that only one section has) weigh less and less (Cauchy's weights);
* a node whose window says little goes where the flow around it, or the coarser one, puts it.

One thread, no draws: the same sections give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from emloom.errors import InputError
from emloom.geometry.planar import Field

F32 = NDArray[np.float32]

_COARSEST_PX = 24  # a level has at least that many pixels along its shorter side
_TINY = 1e-6


@dataclass(frozen=True)
class FlowSettings:
    """How flow is looked for; lengths are pixels of the binned sections.

    The defaults are those that filled left-out sections of three real stacks best (see the tests).

    Attributes:
        bin: pixels along y and x that are averaged first.
        cell: binned pixels between nodes.
        window: standard deviation of the window whose pixels move together.
        fine: standard deviation of the smoothing that takes noise out.
        coarse: and of the one whose result is taken away.
        levels: of the pyramid, at most; each halves the one before.
        rounds: of solving per level.
        stiffness: how much a node follows the smoothed flow around it.
        outlier: residual, in local standard deviations, at which a pixel weighs half.

    Raises:
        InputError: a number is not positive.
    """

    bin: int = 2
    cell: int = 4
    window: float = 5.0
    fine: float = 2.0
    coarse: float = 12.0
    levels: int = 5
    rounds: int = 4
    stiffness: float = 0.02
    outlier: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"{name} of a flow is {value}: it must be positive")


USUAL = FlowSettings()


def flow_between(
    before_YX: NDArray[Any],
    after_YX: NDArray[Any],
    at: float = 0.5,
    *,
    usable: tuple[NDArray[Any] | None, NDArray[Any] | None] = (None, None),
    settings: FlowSettings = USUAL,
) -> Field:
    """Return the displacement from one section to another, at the places of a section between them.

    Args:
        before_YX: a section, any real type.
        after_YX: another one of the same shape.
        at: where between them its places lie: 0 at `before`, 1 at `after`.
        usable: not 0 where pixels of `before`, of `after`, show tissue; None: all do. What is beneath is not
            looked at, and the flow there goes on as it does around.
        settings: how it is looked for.

    Returns:
        The displacement v in pixels, nodes at the centres of cells of ``bin * cell`` pixels.

    Raises:
        InputError: shapes differ, are not [Y, X], or `at` is not within 0 and 1.
    """
    if before_YX.ndim != 2 or before_YX.shape != after_YX.shape:
        raise InputError(
            f"flow between sections of {before_YX.shape} and {after_YX.shape}: give two [Y, X] of one shape"
        )
    if not 0 <= at <= 1:
        raise InputError(f"flow at {at} between two sections: give 0 (the first) to 1 (the second)")
    bands = [
        _band(_binned(section, mask, settings.bin), settings)
        for section, mask in zip((before_YX, after_YX), usable, strict=True)
    ]
    levels = _pyramid(bands, settings.levels)
    v = np.zeros((2, *_nodes(levels[-1][0][0].shape, settings.cell)), np.float32)
    for k in reversed(range(len(levels))):
        shape = _nodes(levels[k][0][0].shape, settings.cell)
        if k < len(levels) - 1:
            v = _finer(v, shape)
        for _ in range(settings.rounds):
            v = _round(levels[k], v, at, settings)
    side = float(settings.bin * settings.cell)
    return Field(v * np.float32(settings.bin), (side, side), (side / 2, side / 2))


def _binned(section_YX: NDArray[Any], usable: NDArray[Any] | None, n: int) -> tuple[F32, F32]:
    """Return means of n x n pixels, and which part of them is usable; the border goes on."""
    grey = np.asarray(section_YX, np.float32)
    seen = np.ones(grey.shape, np.float32) if usable is None else (np.asarray(usable) != 0).astype(np.float32)
    rest = [(0, -extent % n) for extent in grey.shape]
    grey, seen = np.pad(grey * seen, rest, mode="edge"), np.pad(seen, rest, mode="edge")
    share = _halves(seen, n)
    mean: F32 = (_halves(grey, n) / np.maximum(share, _TINY)).astype(np.float32, copy=False)
    return mean, share


def _halves(image_YX: F32, n: int) -> F32:
    y, x = image_YX.shape
    means: F32 = image_YX.reshape(y // n, n, x // n, n).mean((1, 3), dtype=np.float32)
    return means


def _band(binned: tuple[F32, F32], settings: FlowSettings) -> tuple[F32, F32]:
    """Return a band of grey values in local standard deviations, and where it is usable: not where all is even."""
    grey, seen = binned
    fine = _smoothed(grey, seen, settings.fine)
    band = (fine - _smoothed(grey, seen, settings.coarse)) * (seen > 0.5)
    spread = np.sqrt(_smoothed(band * band, seen, 2 * settings.coarse))
    usual = float(np.median(spread[seen > 0.5])) if (seen > 0.5).any() else 0.0
    out: F32 = (band / np.maximum(spread, max(usual / 4, _TINY))).astype(np.float32, copy=False)
    return out, ((seen > 0.5) & (spread > max(usual / 20, _TINY))).astype(np.float32)


def _smoothed(grey_YX: F32, seen_YX: F32, sigma: float) -> F32:
    """Return a Gaussian mean of what is seen."""
    if seen_YX.min(initial=1) > 0.5:
        plain: F32 = gaussian_filter(grey_YX, sigma, mode="nearest", truncate=3.0)
        return plain
    total = gaussian_filter(grey_YX * seen_YX, sigma, mode="nearest", truncate=3.0)
    weight = gaussian_filter(seen_YX, sigma, mode="nearest", truncate=3.0)
    mean: F32 = (total / np.maximum(weight, _TINY)).astype(np.float32, copy=False)
    return mean


Level = tuple[tuple[F32, F32], tuple[F32, F32]]


def _pyramid(bands: list[tuple[F32, F32]], most: int) -> list[Level]:
    """Return both bands and where they are usable, finest first, every level half of the one before."""
    levels: list[Level] = [(bands[0], bands[1])]
    while len(levels) < most and min(levels[-1][0][0].shape) >= 2 * _COARSEST_PX:
        coarser = []
        for band, seen in levels[-1]:
            soft = gaussian_filter(band, 0.7, mode="nearest", truncate=3.0)
            rest = [(0, extent % 2) for extent in band.shape]
            half = _halves(np.pad(soft, rest, mode="edge"), 2)
            share = _halves(np.pad(seen, rest, mode="edge"), 2)
            coarser.append((half, (share > 0.5).astype(np.float32)))
        levels.append((coarser[0], coarser[1]))
    return levels


def _nodes(shape: tuple[int, ...], cell: int) -> tuple[int, int]:
    y, x = (max(1, -(-extent // cell)) for extent in shape)
    return (y, x)


def _finer(v_2JI: F32, shape: tuple[int, int]) -> F32:
    """Return a flow of half the resolution at the nodes of the finer level, in its pixels."""
    out = np.empty((2, *shape), np.float32)
    _resample(v_2JI, out)
    return out * np.float32(2)


@njit(cache=True, nogil=True)
def _resample(v, out):  # type: ignore[no-untyped-def]
    for j in range(out.shape[1]):
        for i in range(out.shape[2]):
            out[0, j, i], out[1, j, i] = _at(v, (j + 0.5) / 2 - 0.5, (i + 0.5) / 2 - 0.5)


def _round(level: Level, v_2JI: F32, at: float, settings: FlowSettings) -> F32:
    """Return the flow after solving once."""
    (a, seen_a), (b, seen_b) = level
    warped = np.empty((3, *a.shape), np.float32)
    _warp((a, seen_a), (b, seen_b), v_2JI, (np.float32(at), settings.cell), warped)
    sums = np.zeros((5, *v_2JI.shape[1:]), np.float32)
    ways = (np.float32(at), settings.cell, np.float32(1 / settings.outlier**2))
    _add_up(warped, ways, sums)
    sigma = settings.window / settings.cell
    for channel in sums:
        gaussian_filter(channel, sigma, mode="constant", truncate=3.0, output=channel)
    around = np.stack([gaussian_filter(part, sigma, mode="nearest", truncate=3.0) for part in v_2JI])
    # A usable window of a band with a spread of 1 has gradients of about 1 / fine^2 per pixel.
    hold = np.float32(settings.stiffness * settings.cell**2)
    return _solved(sums, v_2JI, around, hold)


def _solved(sums: F32, v: F32, around: F32, hold: np.float32) -> F32:
    yy, yx, xx, y, x = sums
    yy, xx = yy + hold, xx + hold
    y, x = y + hold * (around[0] - v[0]), x + hold * (around[1] - v[1])
    det = yy * xx - yx * yx
    out: F32 = v + np.stack([(xx * y - yx * x) / det, (yy * x - yx * y) / det])
    return out


@njit(cache=True, nogil=True)
def _at(v, j, i):  # type: ignore[no-untyped-def]
    """Return both components between nodes (j, i); beyond the border that of the border."""
    rows, columns = v.shape[1], v.shape[2]
    j = min(max(j, 0.0), rows - 1.0)
    i = min(max(i, 0.0), columns - 1.0)
    j0, i0 = int(j), int(i)
    j1, i1 = min(j0 + 1, rows - 1), min(i0 + 1, columns - 1)
    f, g = np.float32(j - j0), np.float32(i - i0)
    a, b = (np.float32(1) - f) * (np.float32(1) - g), (np.float32(1) - f) * g
    c, d = f * (np.float32(1) - g), f * g
    y = a * v[0, j0, i0] + b * v[0, j0, i1] + c * v[0, j1, i0] + d * v[0, j1, i1]
    x = a * v[1, j0, i0] + b * v[1, j0, i1] + c * v[1, j1, i0] + d * v[1, j1, i1]
    return y, x


@njit(cache=True, nogil=True)
def _sample(image, seen, y, x):  # type: ignore[no-untyped-def]
    """Return the value between pixel centres, and whether it can be used: inside, and seen."""
    rows, columns = image.shape
    inside = y > -0.5 and x > -0.5 and y < rows - 0.5 and x < columns - 0.5
    y = min(max(y, np.float32(0)), np.float32(rows - 1))
    x = min(max(x, np.float32(0)), np.float32(columns - 1))
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
    f, g = np.float32(y - y0), np.float32(x - x0)
    low = (np.float32(1) - g) * image[y0, x0] + g * image[y0, x1]
    high = (np.float32(1) - g) * image[y1, x0] + g * image[y1, x1]
    good = inside and seen[y0, x0] * seen[y0, x1] * seen[y1, x0] * seen[y1, x1] > 0
    return (np.float32(1) - f) * low + f * high, np.float32(1) if good else np.float32(0)


@njit(cache=True, nogil=True)
def _warp(before, after, v, ways, out):  # type: ignore[no-untyped-def]
    """Write both sections as they are seen from between, and where both are usable."""
    at, cell = ways
    rest = np.float32(1) - at
    for i in range(out.shape[1]):
        for k in range(out.shape[2]):
            y, x = _at(v, (i + 0.5) / cell - 0.5, (k + 0.5) / cell - 0.5)
            a, one = _sample(before[0], before[1], np.float32(i) - at * y, np.float32(k) - at * x)
            b, other = _sample(after[0], after[1], np.float32(i) + rest * y, np.float32(k) + rest * x)
            out[0, i, k], out[1, i, k], out[2, i, k] = a, b, one * other


@njit(cache=True, nogil=True)
def _add_up(warped, ways, sums):  # type: ignore[no-untyped-def]
    """Add up, per cell, the normal equations of ``r + g dv = 0``."""
    at, cell, sharp = ways
    rest = np.float32(1) - at
    rows, columns = warped.shape[1], warped.shape[2]
    half = np.float32(0.5)
    for i in range(1, rows - 1):
        for k in range(1, columns - 1):
            if warped[2, i, k] == 0:
                continue
            gy = half * (
                at * (warped[0, i + 1, k] - warped[0, i - 1, k])
                + rest * (warped[1, i + 1, k] - warped[1, i - 1, k])
            )
            gx = half * (
                at * (warped[0, i, k + 1] - warped[0, i, k - 1])
                + rest * (warped[1, i, k + 1] - warped[1, i, k - 1])
            )
            r = warped[1, i, k] - warped[0, i, k]
            w = np.float32(1) / (np.float32(1) + r * r * sharp)
            j, m = i // cell, k // cell
            sums[0, j, m] += w * gy * gy
            sums[1, j, m] += w * gy * gx
            sums[2, j, m] += w * gx * gx
            sums[3, j, m] -= w * gy * r
            sums[4, j, m] -= w * gx * r
