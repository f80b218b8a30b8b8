"""Where a section shows no tissue: what a program filled in, and what looks through a tear, dark or bright.

::

    filled in     windows of 4 x 4 pixels of one value, and pixels of that value beside them
    seen through  smooth, and darker or brighter than tissue nearby ever is; and what goes on from there alike

*Smooth* is a spread of less than half of the usual one, taken over small windows, after the noise of single pixels
was averaged out. *Nearby* is a mean of textured windows over an eighth of the section, so that vignetting makes no
corner dark. The border runs where the grey value is halfway between that of the void and that of tissue nearby.
Everything is relative to the section at hand; grey values of any type will do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.ops.sections import VOID_VOX, void_windows

Bool = NDArray[np.bool_]
F32 = NDArray[np.float32]

_WINDOW = 9
_SMOOTH = 0.5  # of the usual spread
_AWAY = 2.6  # standard deviations of the means of windows
_ALIKE = 0.1  # of the difference between the film and tissue nearby
_REACH = 6  # pixels from what is surely void to its border
_COARSE = 8


def void_of(section_YX: NDArray[Any], above: float | None = None) -> Bool:
    """Return where a section shows no tissue.

    Args:
        section_YX: grey values of any real type.
        above: grey value that all tissue is above, where that is known; otherwise it is found out.

    Raises:
        InputError: the section is no plane, or not finite.
    """
    _check(section_YX)
    if above is not None:
        known: Bool = section_YX <= above
        return known
    flat = filled_in(section_YX)
    if flat.all():
        return flat
    image = section_YX.astype(np.float32)
    through, usual = _seen_through(image, flat)
    return flat | _grown(ndimage.uniform_filter(image, 3), through, usual, _REACH)


def filled_in(section_YX: NDArray[Any]) -> Bool:
    """Return windows of one value, the pixels of the same value beside them, and those that were blended with it.

    Raises:
        InputError: the section is no plane, or not finite.
    """
    _check(section_YX)
    flat = _flat(section_YX)
    if flat.all() or not flat.any():
        return flat
    image = section_YX.astype(np.float32)
    tissue = np.float32(np.median(image[~flat]))
    return _grown(image, flat, np.full_like(image, tissue), 2)


def _check(section_YX: NDArray[Any]) -> None:
    if section_YX.ndim != 2 or 0 in section_YX.shape:
        raise InputError(f"a section of shape {section_YX.shape} is no plane: give grey values [Y, X]")
    if section_YX.dtype.kind == "f" and not np.isfinite(section_YX).all():
        raise InputError("the section has grey values that are not finite: give numbers")


def _flat(section_YX: NDArray[Any]) -> Bool:
    """Return windows of one value and the pixels of the same value beside them."""
    windows = void_windows(section_YX)
    if not windows.any():
        return np.zeros(section_YX.shape, np.bool_)
    wide = windows.repeat(VOID_VOX, 0).repeat(VOID_VOX, 1)[: section_YX.shape[0], : section_YX.shape[1]]
    values = section_YX.astype(np.float64)
    size = 2 * VOID_VOX + 1
    low = ndimage.minimum_filter(np.where(wide, values, np.inf), size, mode="nearest")
    high = ndimage.maximum_filter(np.where(wide, values, -np.inf), size, mode="nearest")
    out: Bool = wide | (values == low) | (values == high)
    return out


def _seen_through(image: F32, flat: Bool) -> tuple[Bool, F32]:
    """Return what is smooth and far from the grey value of tissue nearby, and that grey value."""
    fine = ndimage.uniform_filter(image, 3)
    mean = ndimage.uniform_filter(fine, _WINDOW)
    centred = fine - np.float32(image[~flat].mean())
    offset = ndimage.uniform_filter(centred, _WINDOW)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(centred * centred, _WINDOW) - offset * offset, 0))
    beside = ~ndimage.maximum_filter(flat, _WINDOW)
    if not beside.any():
        return np.zeros_like(flat), mean
    usual_spread = float(np.median(spread[beside]))
    textured = beside & (spread > _SMOOTH * usual_spread)
    if not textured.any():
        return np.zeros_like(flat), np.full_like(image, np.median(image[~flat]))
    nearby = _nearby(mean, textured)
    away = mean - nearby
    low, high = np.percentile(away[textured], (25, 75))
    scale = max(float(high - low) / 1.349, 1e-6)
    smooth: Bool = spread < _SMOOTH * usual_spread
    return _followed(smooth & (np.abs(away) > _AWAY * scale), smooth, mean, nearby), nearby


def _followed(sure: Bool, smooth: Bool, mean: F32, nearby: F32) -> Bool:
    """Return what is surely seen through, and what is smooth, of the same grey value and joined to it.

    The film behind a tear has one grey value, also where tissue beside it is nearly as bright.
    """
    out = sure.copy()
    for side in (1, -1):
        seed = sure & (side * (mean - nearby) > 0)
        if seed.any():
            level = np.float32(np.median(mean[seed]))
            alike = smooth & (np.abs(mean - level) < _ALIKE * side * (level - nearby))
            out |= ndimage.binary_propagation(seed & alike, structure=np.ones((3, 3), np.bool_), mask=alike)
    return out


def _nearby(mean: F32, textured: Bool) -> F32:
    """Return the mean of textured windows nearby, for every pixel."""
    y, x = mean.shape
    cells = mean[::_COARSE, ::_COARSE]
    weight = textured[::_COARSE, ::_COARSE].astype(np.float32)
    sigma = max(cells.shape) / 8
    middle = np.float32(np.median(mean[textured]))
    blurred = ndimage.gaussian_filter((cells - middle) * weight, sigma)
    share = ndimage.gaussian_filter(weight, sigma)
    smooth = middle + blurred / np.maximum(share, 1e-3)
    out: F32 = smooth.repeat(_COARSE, 0).repeat(_COARSE, 1)[:y, :x].astype(np.float32)
    return out


def _grown(image: F32, seed: Bool, usual: F32, reach: int) -> Bool:
    """Return a region grown to where the grey value is halfway to that of tissue nearby."""
    if not seed.any():
        return seed
    share = ndimage.uniform_filter(seed.astype(np.float32), 2 * reach + 1)
    total = ndimage.uniform_filter(np.where(seed, image, np.float32(0)), 2 * reach + 1)
    near = share > 0.5 / (2 * reach + 1) ** 2
    level = total / np.maximum(share, 1e-6)
    out: Bool = seed | (near & (np.abs(image - level) < 0.5 * np.abs(usual - level)))
    return out
