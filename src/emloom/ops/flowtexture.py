"""Sections made ready to be compared patch by patch: texture of even contrast, and which pixels were measured.

::

    band       mean over a few pixels - mean over many: no noise, no shading
    contrast   divided by its root mean square over a neighbourhood, so that no vessel outvotes a neuropil
    mask       means are those of measured pixels only; what was not measured is 0, neither bright nor dark
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry.planar import PlanarMap, Shift

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BLANK = 9  # pixels: no tissue is of one grey value over a square that large
_SOFT = 2  # pixels: where a section was moved before, its rim is mixed with what lies around
_STRONG = 4.0  # standard deviations: what is stronger is debris
_LATTICE = 16  # pixels between places at which a map is asked
_FAINT = 1e-3


@dataclass(frozen=True, eq=False)
class Texture:
    """A section ready to be compared.

    Attributes:
        values: float32 [Y, X], 0 where not measured.
        mask: bool [Y, X], which pixels were measured.
        factor: full-resolution pixels per pixel, along y and x.
    """

    values: F32
    mask: Mask
    factor: int = 1


def texture(
    image_YX: NDArray[Any],
    mask_YX: Mask | None = None,
    *,
    factor: int = 1,
    fine: float = 1.5,
    coarse: float = 12.0,
) -> Texture:
    """Return a section ready to be compared.

    Args:
        image_YX: grey values of any number type.
        mask_YX: which pixels were measured; None: all but wide areas of one grey value.
        factor: how many times smaller than full resolution the image is.
        fine: standard deviation of the mean that takes out noise, pixels of the image.
        coarse: that of the mean that is taken off.

    Raises:
        InputError: the image is not one of numbers, a measured pixel is not finite, or the mask has another shape.
    """
    image = np.asarray(image_YX)
    if image.ndim != 2 or 0 in image.shape or image.dtype.kind not in "buif":
        raise InputError(f"a section of {image.dtype} {image.shape} cannot be compared: give numbers [Y, X]")
    if factor < 1 or not 0 < fine < coarse:
        raise InputError(
            f"a band from {fine} to {coarse} px of an image {factor} times smaller: the factor is at least 1, and "
            "the fine scale is below the coarse one"
        )
    mask = measured(image) if mask_YX is None else np.asarray(mask_YX, bool)
    if mask.shape != image.shape:
        raise InputError(f"a mask of {mask.shape} pixels does not belong to a section of {image.shape}")
    if image.dtype.kind == "f" and not np.isfinite(image[mask]).all():
        raise InputError("a section has measured pixels that are not finite: leave them out of its mask")
    values = np.where(mask, image, 0).astype(np.float32)
    if mask.any():
        values -= np.float32(values.sum(dtype=np.float64) / np.count_nonzero(mask))
        values *= mask
    full = bool(mask.all())
    band = _mean(values, mask, fine, full) - _mean(values, mask, coarse, full)
    band *= mask
    spread = np.sqrt(np.maximum(_mean(np.square(band), mask, 2 * coarse, full), 0))
    floor = max(0.1 * float(np.sqrt(np.mean(np.square(band[mask])))) if mask.any() else 0.0, 1e-12)
    band /= np.maximum(spread, np.float32(floor))
    np.clip(band, -_STRONG, _STRONG, out=band)
    return Texture(band, mask, factor)


def measured(image_YX: NDArray[Any]) -> Mask:
    """Return which pixels are finite and in no square of one grey value: no border, gap, or blank strip."""
    image = np.asarray(image_YX)
    finite = np.isfinite(image) if image.dtype.kind == "f" else np.ones(image.shape, bool)
    filled = np.where(finite, image, 0)
    flat = ndimage.maximum_filter(filled, _BLANK, mode="nearest") == ndimage.minimum_filter(
        filled, _BLANK, mode="nearest"
    )
    if flat.any():
        flat = ndimage.maximum_filter(flat, _BLANK + 2 * _SOFT, mode="constant")
    out: Mask = finite & ~flat
    return out


def _mean(values: F32, mask: Mask, sigma: float, full: bool) -> F32:
    """Return the mean of measured pixels around every pixel."""
    mean = _smooth(values, sigma)
    if not full:
        mean /= np.maximum(_smooth(mask.astype(np.float32), sigma), np.float32(_FAINT))
    return mean


def _smooth(values: F32, sigma: float) -> F32:
    """Return a Gaussian mean; a wide one as three box means (Wells 1986), whose cost is that of none."""
    if sigma < 3:
        out: F32 = ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=3.0)
        return out
    width = 2 * round((np.sqrt(4 * sigma**2 + 1) - 1) / 2) + 1
    out = values
    for _ in range(3):
        out = ndimage.uniform_filter(out, width, mode="nearest")
    return out


def brought(b: Texture, start: PlanarMap, shape: tuple[int, ...], rim: int) -> tuple[F32, Mask]:
    """Return section b as seen from section a: at every place of a what is at `start` of it.

    Args:
        b: the section.
        start: from places of a to places of b.
        shape: pixels of a.
        rim: how many pixels more, all round.

    Returns:
        values and mask, [Y + 2 rim, X + 2 rim]; linear between pixels, not measured where one of them is not.
    """
    y, x = (n + 2 * rim for n in shape)
    if isinstance(start, Shift):
        move = (round(start.y / b.factor) - rim, round(start.x / b.factor) - rim)
        return _copied(b, move, (y, x))
    lattice = [np.arange(0, n + _LATTICE, _LATTICE, dtype=float) for n in (y, x)]
    at = np.stack(np.meshgrid(*lattice, indexing="ij"), -1).reshape(-1, 2) - rim + 0.5
    nodes = (start(at * b.factor) / b.factor - 0.5).reshape(len(lattice[0]), len(lattice[1]), 2)
    values, mask = np.zeros((y, x), np.float32), np.zeros((y, x), np.bool_)
    _sample(b.values, b.mask, nodes, values, mask)
    return values, mask


def _copied(b: Texture, move: tuple[int, int], shape: tuple[int, int]) -> tuple[F32, Mask]:
    values, mask = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    spans = [(max(0, -m), min(n, extent - m)) for m, n, extent in zip(move, shape, b.values.shape, strict=True)]
    if all(low < high for low, high in spans):
        here = tuple(slice(low, high) for low, high in spans)
        there = tuple(slice(low + m, high + m) for (low, high), m in zip(spans, move, strict=True))
        values[here], mask[here] = b.values[there], b.mask[there]
    return values, mask


@njit(cache=True, nogil=True)
def _sample(image: F32, known: Mask, nodes: F64, values: F32, mask: Mask) -> None:
    """Fill in an image and its mask at positions that are linear between nodes `_LATTICE` pixels apart."""
    rows, columns = image.shape
    for y in range(values.shape[0]):
        j, fy = y // _LATTICE, (y % _LATTICE) / _LATTICE
        for x in range(values.shape[1]):
            i, fx = x // _LATTICE, (x % _LATTICE) / _LATTICE
            p = np.empty(2)
            for axis in range(2):
                high = nodes[j, i, axis] * (1 - fx) + nodes[j, i + 1, axis] * fx
                low = nodes[j + 1, i, axis] * (1 - fx) + nodes[j + 1, i + 1, axis] * fx
                p[axis] = high * (1 - fy) + low * fy
            if not (p[0] >= 0 and p[1] >= 0 and p[0] < rows - 1 and p[1] < columns - 1):
                continue
            v, u = int(p[0]), int(p[1])
            if not (known[v, u] and known[v, u + 1] and known[v + 1, u] and known[v + 1, u + 1]):
                continue
            gy, gx = p[0] - v, p[1] - u
            top = image[v, u] * (1 - gx) + image[v, u + 1] * gx
            bottom = image[v + 1, u] * (1 - gx) + image[v + 1, u + 1] * gx
            values[y, x], mask[y, x] = top * (1 - gy) + bottom * gy, True
