"""Images made comparable between sections, at every level of a pyramid.

What is finer than a few pixels is noise, what is coarser than two dozen is staining and illumination; both go, and
the contrast of what is left is made even. All of it with masks: what lies outside adds nothing to what is inside
(normalised convolution; Knutsson & Westin 1993, doi:10.1109/CVPR.1993.341081). ::

    n_s = G_s(image mask) / G_s(mask)        d = n_1.5 - n_10        level = d / sqrt(G_20(d^2 mask) / G_20(mask))

A level of factor f has pixels f times as long; place p of the section is place ``p / f`` of the level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bool = NDArray[np.bool_]
F32 = NDArray[np.float32]

_FINE, _COARSE, _EVEN = 1.5, 10.0, 20.0
_LARGE = 768  # pixels of the longer side
_RIM = 2  # pixels of a mask's border whose surroundings are half unknown


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a pyramid.

    Attributes:
        factor: pixels of the section along the side of a pixel.
        image: float32 [Y, X], mean about 0 and spread about 1 within the mask, 0 outside.
        mask: where it counts.
    """

    factor: int
    image: F32
    mask: Bool


def finest_of(shape: tuple[int, ...]) -> int:
    """Return the factor of the finest level worth looking at: in large images that of a few pixels says it all."""
    return 1 if max(shape) <= _LARGE else 2


def levels_of(image_YX: NDArray[Any], mask_YX: Bool, finest: int = 1, least_side: int = 64) -> tuple[Level, ...]:
    """Return the levels of an image, finest first.

    Args:
        image_YX: grey values of any real type.
        mask_YX: where they mean something.
        finest: factor of the first level, 1 or 2.
        least_side: pixels of the shorter side of the mask's bounding box at the coarsest level, at least, where
            the image has as many; the coarsest factor is 16.
    """
    image, share = image_YX.astype(np.float32), mask_YX.astype(np.float32)
    box = _extent(mask_YX)
    out, factor = [], 1
    if finest == 1:
        out.append(_level(1, image, share))
    while factor < finest or (factor < 16 and box // (2 * factor) >= least_side):
        factor *= 2
        image, share = _halved(image, share)
        out.append(_level(factor, image, share))
    return tuple(out)


def _extent(mask: Bool) -> int:
    """Return the shorter side of the bounding box of a mask."""
    if not mask.any():
        return 0
    return min(int(np.ptp(np.flatnonzero(mask.any(axis)))) + 1 for axis in (0, 1))


def _halved(image: F32, share: F32) -> tuple[F32, F32]:
    """Return the means of 2 x 2 pixels inside the mask, and their share; a last odd row or column is dropped."""
    y, x = (n // 2 for n in image.shape)
    four = (image * share)[: 2 * y, : 2 * x].reshape(y, 2, x, 2).sum(axis=(1, 3))
    weight = share[: 2 * y, : 2 * x].reshape(y, 2, x, 2).sum(axis=(1, 3))
    return four / np.maximum(weight, np.float32(1e-6)), weight / np.float32(4)


def _level(factor: int, image: F32, share: F32) -> Level:
    mask = share >= 0.5
    inside = ndimage.minimum_filter(mask, 2 * _RIM + 1, mode="nearest")
    if not inside.any():
        return Level(factor, np.zeros_like(image), inside)
    weight = mask.astype(np.float32)
    middle = np.float32(image[mask].mean())
    values = (image - middle) * weight
    fine, coarse = (_smooth(values, s) / np.maximum(_smooth(weight, s), 1e-3) for s in (_FINE, _COARSE))
    detail = ((fine - coarse) * weight).astype(np.float32)
    power = _smooth(detail * detail, _EVEN) / np.maximum(_smooth(weight, _EVEN), 1e-3)
    usual = float(np.sqrt(np.median(power[inside])))
    even = detail / np.maximum(np.sqrt(np.maximum(power, 0)), max(0.2 * usual, 1e-6))
    return Level(factor, np.where(inside, even, 0).astype(np.float32), inside)


def _smooth(image: F32, sigma: float) -> F32:
    """Return an image blurred; beyond its border there is nothing."""
    if sigma > 3:  # two boxes are as good, and faster
        size = 2 * round(np.sqrt(6 * sigma**2 + 1) / 2) + 1
        once = ndimage.uniform_filter(image, size, mode="constant")
        return ndimage.uniform_filter(once, size, mode="constant")  # type: ignore[no-any-return]
    return ndimage.gaussian_filter(image, sigma, mode="constant", truncate=3.0)  # type: ignore[no-any-return]
