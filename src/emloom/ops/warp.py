"""Sections resampled where a map says they come from: raw linearly, labels by the nearest pixel, parts apart.

A pixel of the target shows something if the pixel of the source in which it lies (`pull`) exists; that is the same
for raw and for labels. Everything else is `fill`. Raw is interpolated between the centres of the four pixels
around; beyond the outermost centres the border goes on. ::

    linear    unsigned integers: rounded, half to even; floats stay
    nearest   the id of the pixel in which the place lies, of any type and size, never another number
    shifted   whole shifts: a copy, to the bit

Of a torn section no two parts, and no part and the gap, are mixed: weights are those of the neighbours that belong
to the place's own part. Where parts came to lie on each other, the first of them is shown, alone: nothing is ever
added up. On the way back, what lay beneath has no pixel that shows it: `fill`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.planar import PlanarMap, Shift
from emloom.ops.pull import F64, I64, YX, extent, pull, traced

__all__ = ["Window", "linear", "mirrored", "moved_section", "nearest", "pixels_needed", "pull", "shifted"]

Image = NDArray[Any]
Method = Literal["linear", "nearest"]
_NO_PARTS = (np.zeros((0, 0), np.int64), np.zeros((0, 0), np.int64))


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels of a section.

    Attributes:
        start: first pixel (y, x).
        shape: number of pixels (y, x).
    """

    start: YX
    shape: YX

    @property
    def stop(self) -> YX:
        """First pixel (y, x) after it."""
        return (self.start[0] + self.shape[0], self.start[1] + self.shape[1])


def moved_section(
    image: Image,
    origin_yx: YX,
    move: PlanarMap,
    window: Window,
    method: Method,
    *,
    fill: float = 0,
    mirror: Window | None = None,
) -> Image:
    """Return a window of the target of a map.

    Args:
        image: ``[C,]YX`` of the source, which holds at least `pixels_needed`, as far as there are any.
        origin_yx: pixel of the source at which it begins.
        move: source to target.
        window: of the target.
        method: linear for grey values and probabilities, nearest for ids.
        fill: of what shows nothing.
        mirror: all pixels that the source has; the source goes on beyond its border, mirrored as ``np.pad`` does
            with `symmetric`. None: there is nothing.

    Returns:
        ``[C,]YX``, dtype of the image.

    Raises:
        InputError: ids of 64 bits, or booleans, are to be interpolated.
    """
    if isinstance(move, Shift) and move.is_whole:
        return shifted(image, origin_yx, move, window, fill=fill, mirror=mirror)
    coords, own = traced(move, window.start, window.shape)
    height, width = image.shape[-2:]
    there = None if own is None else traced(move, origin_yx, (height, width), back=False).parts
    parts = None if own is None or there is None else (there, own)
    if mirror is not None:
        unfolded, coords = coords, mirrored(coords, mirror)
        if parts is not None:  # a mirror image is of the part that it mirrors
            shown = nearest(parts[0], coords, origin_yx=origin_yx)
            parts = (parts[0], np.where((unfolded == coords).all(0), parts[1], shown))
    resample = linear if method == "linear" else nearest
    return resample(image, coords, fill=fill, origin_yx=origin_yx, parts=parts)


def pixels_needed(move: PlanarMap, window: Window, mirror: Window | None = None) -> Window | None:
    """Return pixels of the source that `moved_section` may look at; they may leave it. None: none."""
    found = extent(move, window.start, window.shape)
    if found is None:
        return None
    low, high = np.floor(found[0]) - 1, np.floor(found[1]) + 2  # a neighbour on each side
    if mirror is not None:
        low, high = _folded(low, high, mirror)
    (y, x), (y1, x1) = low.astype(int).tolist(), high.astype(int).tolist()
    return Window((y, x), (y1 - y, x1 - x))


def shifted(
    image: Image, origin_yx: YX, move: Shift, window: Window, *, fill: float = 0, mirror: Window | None = None
) -> Image:
    """Return a window of the target of a whole shift: a copy; see `moved_section`."""
    first = (window.start[0] - int(move.y) - origin_yx[0], window.start[1] - int(move.x) - origin_yx[1])
    rows, columns = (np.arange(a, a + n) for a, n in zip(first, window.shape, strict=True))
    if mirror is not None:
        rows, columns = (
            np.floor(_reflected(at + zero + 0.5, low, size)).astype(np.int64) - zero
            for at, zero, low, size in zip((rows, columns), origin_yx, mirror.start, mirror.shape, strict=True)
        )
        return np.ascontiguousarray(image[..., rows[:, None], columns])
    out = np.full((*image.shape[:-2], *window.shape), fill, image.dtype)
    y, x = (
        slice(max(0, -a), max(0, min(n, have - a)))
        for a, n, have in zip(first, window.shape, image.shape[-2:], strict=True)
    )
    out[..., y, x] = image[..., _moved(y, first[0]), _moved(x, first[1])]
    return out


def mirrored(coords: F64, source: Window) -> F64:
    """Return places [2, Y, X] folded back into a source that goes on beyond its border as its mirror image."""
    return np.stack([_reflected(at, a, n) for at, a, n in zip(coords, source.start, source.shape, strict=True)])


def linear(
    image: Image,
    coords: F64,
    *,
    fill: float = 0,
    origin_yx: YX = (0, 0),
    parts: tuple[I64, I64] | None = None,
) -> Image:
    """Return values at places, interpolated between pixel centres.

    Args:
        image: ``[C,]YX``, integers of up to 32 bits, or floats.
        coords: float64 [2, Y, X], places; NaN: none.
        fill: where there is none, or it lies in no pixel of the image.
        origin_yx: place of the image's first corner.
        parts: the part of a torn section in which every pixel of the image lies, and every place; see `traced`.

    Raises:
        InputError: integers of 64 bits, or booleans: ids and masks have no values in between.
    """
    if image.dtype.kind == "b" or image.dtype in (np.uint64, np.int64):
        raise InputError(
            f"{image.dtype} values are ids or a mask, between which nothing lies: move them as labels"
        )
    if image.dtype == np.float16:  # which the compiler does not know
        return _resampled(_linear, image.astype(np.float32), coords, fill, origin_yx, parts).astype(np.float16)
    return _resampled(_linear, image, coords, fill, origin_yx, parts)


def nearest(
    labels: Image,
    coords: F64,
    *,
    fill: float = 0,
    origin_yx: YX = (0, 0),
    parts: tuple[I64, I64] | None = None,
) -> Image:
    """Return ids at places: that of the pixel in which a place lies; arguments as of `linear`, any dtype."""
    return _resampled(_nearest, labels, coords, fill, origin_yx, parts)


def _resampled(
    kernel: Any, image: Image, coords: F64, fill: float, origin_yx: YX, parts: tuple[I64, I64] | None
) -> Image:
    source = np.ascontiguousarray(image if image.ndim == 3 else image[None])
    out = np.full((len(source), *coords.shape[1:]), fill, image.dtype)
    if 0 not in source.shape:
        there, own = (np.ascontiguousarray(p) for p in (_NO_PARTS if parts is None else parts))
        origin = np.array(origin_yx, np.float64)
        kernel(source, np.ascontiguousarray(coords), origin, (there, own), out, image.dtype.kind != "f")
    return out.reshape(*image.shape[:-2], *coords.shape[1:])


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, max(part.start, part.stop) + by)


def _reflected(at: NDArray[Any], low: int, size: int) -> F64:
    folded = np.mod(at - low, 2.0 * size)
    folded = np.minimum(folded, 2.0 * size - folded)
    inside: F64 = np.minimum(folded, np.nextafter(float(size), 0.0)) + low
    return np.minimum(inside, np.nextafter(float(low + size), -np.inf))


def _folded(low: F64, high: F64, source: Window) -> tuple[F64, F64]:
    """Return the interval of pixels that one of a mirrored source becomes."""
    ends = []
    for a, b, n in zip(low - source.start, high - source.start, source.shape, strict=True):
        first, last = max(a, 0), min(b, n)
        if a < 0:
            first, last = 0, max(last, min(n, -a))
        if b > n:
            first, last = min(first, max(0, 2 * n - b)), n
        ends.append((0, n) if a < -n or b > 2 * n else (first, last))
    out = np.array(ends, np.float64).T + source.start
    return out[0], out[1]


# ---- kernels --------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _is_in(image: Any, y: float, x: float) -> bool:
    return bool(y >= 0 and x >= 0 and y < image.shape[1] and x < image.shape[2])


@njit(cache=True, nogil=True, inline="always")
def _around(at: float, size: int) -> tuple[int, int, float]:
    """Return the two pixels whose centres are around a place, within the image, and the weight of the second."""
    low = int(np.floor(at - 0.5))
    return max(low, 0), min(low + 1, size - 1), at - 0.5 - low


@njit(cache=True, nogil=True, inline="always")
def _weight(there: Any, part: int, y: int, x: int, weight: float) -> float:
    return weight if there[y, x] == part else 0.0


@njit(cache=True, nogil=True, inline="always")
def _times(weight: float, value: Any) -> Any:
    # What has no weight is not looked at: it may be NaN.
    return weight * value if weight > 0 else 0.0


@njit(cache=True, nogil=True)
def _linear(image: Any, coords: Any, origin: Any, parts: Any, out: Any, whole: bool) -> None:
    there, own = parts
    torn = own.size > 0
    for i in range(coords.shape[1]):
        for j in range(coords.shape[2]):
            y, x = coords[0, i, j] - origin[0], coords[1, i, j] - origin[1]
            if not _is_in(image, y, x):
                continue
            y0, y1, v = _around(y, image.shape[1])
            x0, x1, h = _around(x, image.shape[2])
            a, b, c, d, total = (1.0 - v) * (1.0 - h), (1.0 - v) * h, v * (1.0 - h), v * h, 1.0
            if torn:
                k = own[i, j]
                a, b = _weight(there, k, y0, x0, a), _weight(there, k, y0, x1, b)
                c, d = _weight(there, k, y1, x0, c), _weight(there, k, y1, x1, d)
                total = a + b + c + d
                if total == 0:
                    continue
            for n in range(image.shape[0]):
                value = _times(a, image[n, y0, x0]) + _times(b, image[n, y0, x1])
                value += _times(c, image[n, y1, x0]) + _times(d, image[n, y1, x1])
                value = value / total if torn else value
                out[n, i, j] = np.rint(value) if whole else value


@njit(cache=True, nogil=True)
def _nearest(image: Any, coords: Any, origin: Any, parts: Any, out: Any, whole: bool) -> None:
    there, own = parts
    torn = own.size > 0
    for i in range(coords.shape[1]):
        for j in range(coords.shape[2]):
            y, x = coords[0, i, j] - origin[0], coords[1, i, j] - origin[1]
            if not _is_in(image, y, x):
                continue
            at_y, at_x = int(y), int(x)
            if torn and there[at_y, at_x] != own[i, j]:
                at_y, at_x = _of_part(there, own[i, j], y, x)
                if at_y < 0:
                    continue
            for channel in range(image.shape[0]):
                out[channel, i, j] = image[channel, at_y, at_x]


@njit(cache=True, nogil=True)
def _of_part(there: Any, part: int, y: float, x: float) -> tuple[int, int]:
    """Return which of the four pixels around a place belongs to its part and weighs most; (-1, -1): none."""
    y0, y1, v = _around(y, there.shape[0])
    x0, x1, h = _around(x, there.shape[1])
    most, at_y, at_x = 0.0, -1, -1
    for yy, wy in ((y0, 1.0 - v), (y1, v)):
        for xx, wx in ((x0, 1.0 - h), (x1, h)):
            if there[yy, xx] == part and wy * wx > most:
                most, at_y, at_x = wy * wx, yy, xx
    return at_y, at_x
