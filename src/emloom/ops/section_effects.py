"""What happens to the grey values of a sample after they were gathered: blur, faint and lost sections, noise.

All functions change a float32 array of theirs in place; grey values are about [-1, 1]. Nothing here draws: the
numbers are a plan's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

F32 = NDArray[np.float32]

_TRUNCATE_SIGMAS = 3.0
_NOISE_TABLE = 1 << 17
_NOISE_KEY = 20170531  # any constant: the table is the same everywhere


def tone_table(
    contrast: NDArray[Any], brightness: NDArray[Any], gamma: NDArray[Any], mean: float, size: int
) -> F32:
    """Return the grey-value tables of sections, float32 ``[Z, size + 1]`` over [-1, 1].

    ``n -> clip01(((n - mean) * contrast + mean + brightness + 1) / 2) ^ gamma * 2 - 1``.

    Args:
        contrast: ``[Z]`` factor around the mean.
        brightness: ``[Z]`` added.
        gamma: ``[Z]`` exponent on [0, 1].
        mean: grey value that contrast leaves alone.
        size: intervals of a table.
    """
    n = np.linspace(-1.0, 1.0, size + 1)
    moved = (n - mean) * np.asarray(contrast)[:, None] + mean + np.asarray(brightness)[:, None]
    unit = np.clip(moved * 0.5 + 0.5, 0.0, 1.0)
    table: F32 = (unit ** np.asarray(gamma)[:, None] * 2.0 - 1.0).astype(np.float32)
    return table


def blur(section_YX: F32, sigma_vox: tuple[float, float]) -> None:
    """Blur a section by a Gaussian, mirrored at its edges."""
    section_YX[:] = ndimage.gaussian_filter(section_YX, sigma_vox, mode="reflect", truncate=_TRUNCATE_SIGMAS)


def motion_blur(section_YX: F32, step_vox: tuple[float, float]) -> None:
    """Average a section along a line of the length and direction of `step_vox` (y, x), mirrored at its edges."""
    count = max(2, int(np.ceil(np.hypot(*step_vox))) + 1)
    total = np.zeros_like(section_YX)
    for t in np.linspace(-0.5, 0.5, count):
        total += ndimage.shift(section_YX, (step_vox[0] * t, step_vox[1] * t), order=1, mode="reflect")
    section_YX[:] = total / np.float32(count)


def lower_contrast(section_YX: F32, scale: float) -> None:
    """Draw grey values towards their mean: ``mean + (n - mean) * scale``."""
    mean = section_YX.mean()
    section_YX[:] = mean + (section_YX - mean) * np.float32(scale)


def blend(section_YX: F32, image_YX: F32, alpha_YX: F32) -> None:
    """Blend an image over a section: ``n * (1 - alpha) + image * alpha``."""
    section_YX += (image_YX - section_YX) * alpha_YX


def shade_line(
    section_YX: F32, start: tuple[int, int], normal: tuple[float, float], c: float, width_vox: float
) -> None:
    """Paint the band of a fold, at most half a width from the line ``normal . p = c``, black with soft edges.

    Args:
        section_YX: the section.
        start: frame voxel (y, x) at which it begins.
        normal: unit vector (y, x).
        c: distance of the line from the frame's first voxel.
        width_vox: width of the band.
    """
    if width_vox <= 0:
        return
    y = (np.arange(section_YX.shape[0]) + start[0])[:, None] * normal[0]
    x = (np.arange(section_YX.shape[1]) + start[1]) * normal[1]
    cover = np.clip(width_vox / 2 + 0.5 - np.abs(y + x - c), 0.0, 1.0).astype(np.float32)
    blend(section_YX, np.full_like(section_YX, -1.0), cover)


def add_noise(raw_ZYX: F32, sigma: float, seed: int) -> None:
    """Add Gaussian noise: every row takes a stretch, from a random place on, of one long table of normals.

    Ten times faster than drawing a number per voxel. Within a row values are independent; two rows share values
    only where their stretches of the table happen to meet.
    """
    rows = raw_ZYX.reshape(-1, raw_ZYX.shape[-1])
    rng = np.random.Generator(np.random.Philox(seed))
    starts = rng.integers(_NOISE_TABLE, size=len(rows))
    _add_rows(rows, _normals(), starts, np.float32(sigma))


@cache
def _normals() -> F32:
    return np.random.Generator(np.random.Philox(_NOISE_KEY)).standard_normal(_NOISE_TABLE, dtype=np.float32)


@njit(cache=True, nogil=True)
def _add_rows(rows, table, starts, sigma):  # type: ignore[no-untyped-def]
    for i in range(rows.shape[0]):
        at, x = starts[i], 0
        while x < rows.shape[1]:
            n = min(rows.shape[1] - x, table.size - at)
            for k in range(n):
                rows[i, x + k] += sigma * table[at + k]
            x += n
            at = 0
