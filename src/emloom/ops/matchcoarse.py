"""Where an image lies on another, as far as can be seen from afar: turned and scaled a little, then shifted.

For each of a few turns and scales the correlation of the overlap is computed for all shifts at once, with masks
(Padfield 2012, doi:10.1109/TIP.2011.2181402; means are 0 at a `Level`)::

    c(t) = sum a(p) b(p + t) / sqrt(sum a(p)^2 m_b(p + t)  sum m_a(p) b(p + t)^2)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from emloom.geometry.planar import Affine
from emloom.ops.matchlevels import Level

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

TURNS = (-0.06, 0.0, 0.06)
"""Radians that are tried."""
SCALES = (0.95, 1.0, 1.05)
"""Scales that are tried."""
_ROOM = 1.16  # so much larger may it become


@dataclass(frozen=True)
class Guess:
    """A map from afar.

    Attributes:
        affine: from places of one section to places of the other.
        score: correlation of the overlap, -1 to 1.
    """

    affine: Affine
    score: float


def guesses(a: Level, b: Level, start: Affine, reach_px: float, least_overlap: float) -> list[Guess]:
    """Return one map for each turn and scale, best first; none where the masks cannot overlap.

    Args:
        a: level of the section that is mapped.
        b: level of the other, of the same factor.
        start: map about which is searched.
        reach_px: pixels of the section that the middle of `a` may go away from it.
        least_overlap: share of `a` that comes to lie on the mask of `b`, at least.
    """
    if not a.mask.any() or not b.mask.any():
        return []
    low, high = (np.array([f(p) for p in np.nonzero(a.mask)]) for f in (np.min, np.max))
    middle = (low + high + 1) / 2
    canvas = tuple(int(n) for n in np.ceil(_ROOM * (high - low + 1)) + 2)
    shape = tuple(fft.next_fast_len(n + m, real=True) for n, m in zip(canvas, b.mask.shape, strict=True))
    sight = _Sight(middle, canvas, shape, [fft.rfft2(v, s=shape) for v in _three(b.image, b.mask)])
    aim = (start(middle[None] * a.factor) / a.factor)[0]
    found = []
    for turn, scale in product(TURNS, SCALES):
        matrix = _turned(turn, scale) @ start.matrix[:, :2]
        score, place = _best(_seen(a, matrix, sight), sight, (aim, reach_px / a.factor), least_overlap)
        if score > -1:
            t = (place - matrix @ middle) * a.factor
            found.append(Guess(Affine.of(np.column_stack([matrix, t])), score))
    return sorted(found, key=lambda guess: -guess.score)


@dataclass(frozen=True, eq=False)
class _Sight:
    """What all candidates share: the middle of `a`, the canvas on which it is drawn, and transforms of `b`."""

    middle: F64
    canvas: tuple[int, ...]
    shape: tuple[int, ...]
    other: list[NDArray[np.complex64]]


def _turned(angle: float, scale: float) -> F64:
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    return np.array([[c, -s], [s, c]])


def _three(image: F32, mask: NDArray[np.bool_]) -> tuple[F32, F32, F32]:
    return image, image * image, mask.astype(np.float32)


def _seen(a: Level, matrix: F64, sight: _Sight) -> tuple[F32, F32, F32]:
    """Return the image mapped, its middle in that of the canvas, its square, and its mask."""
    back = np.linalg.inv(matrix)
    offset = sight.middle - back @ (np.array(sight.canvas) / 2) + (back.sum(axis=1) - 1) / 2
    how = {"matrix": back, "offset": offset, "output_shape": sight.canvas, "order": 1}
    mask = ndimage.affine_transform(a.mask.astype(np.float32), **how) > 0.5
    return _three(np.where(mask, ndimage.affine_transform(a.image, **how), np.float32(0)), mask)


def _best(seen: tuple[F32, F32, F32], sight: _Sight, aim: tuple[F64, float], least: float) -> tuple[float, F64]:
    """Return the best correlation, and where the middle lies then; -1 where nothing overlaps enough."""
    image, square, mask = (np.conj(fft.rfft2(v, s=sight.shape)) for v in seen)
    b_image, b_square, b_mask = sight.other
    over = fft.irfft2(mask * b_mask, s=sight.shape)
    power = fft.irfft2(square * b_mask, s=sight.shape) * fft.irfft2(mask * b_square, s=sight.shape)
    score = fft.irfft2(image * b_image, s=sight.shape) / np.sqrt(np.maximum(power, 1e-3))
    lags = [np.arange(n) - n * (np.arange(n) >= n - c + 1) for n, c in zip(sight.shape, sight.canvas, strict=True)]
    y, x = (lag + c / 2 for lag, c in zip(lags, sight.canvas, strict=True))
    far = np.hypot(y[:, None] - aim[0][0], x[None, :] - aim[0][1]) > aim[1]
    score[far | (over < least * seen[2].sum())] = -1
    at = np.unravel_index(int(np.argmax(score)), score.shape)
    return float(score[at]), np.array([y[at[0]], x[at[1]]])
