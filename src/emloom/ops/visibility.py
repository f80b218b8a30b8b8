"""Where a change to a section can be seen: the honest mask of a synthetic artifact.

A label should say what can be known from the picture. With sd the standard deviation around a voxel, and sigma the
noise of the detector::

    noticed(p)  =  |after - before| > max(0.08, 0.6 sd_before, 2.5 sigma)           sd within 400 nm
    faded(p)    =  (sd_after^2 + sigma^2) < 0.4 (sd_before^2 + sigma^2)             sd within 150 nm
    visible(p)  =  noticed(p), or: half of the voxels within 100 nm changed at all, and a third of these
                   are noticed or faded

A voxel alone must stand out from the tissue around it; the last rule closes areas in which the picture changed as
a whole though voxels happen to be alike, as in a blur or a displacement, and leaves a line as thin as it is.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.ops.textures import F32, F64, Spacing

Bits = NDArray[np.bool_]

LEAST_CHANGE = 0.08
_OF_CONTRAST = 0.6
_OF_NOISE = 2.5
_CONTRAST_NM = 400.0
FADED_NM = 150.0
_FADED = 0.4
AROUND_NM = 100.0
_LEAST_TRACE = 0.02
_CHANGED, _SEEN = 0.5, 1 / 3


def noise_of(section_YX: F32) -> float:
    """Return the standard deviation of a section's noise, a little too large where tissue is fine.

    Second differences along both axes leave little of tissue (Immerkaer 1996, doi:10.1006/cviu.1996.0060); their
    median, instead of his mean, leaves less.
    """
    if min(section_YX.shape) < 3:
        return 0.0
    along = section_YX[:, 2:] - 2 * section_YX[:, 1:-1] + section_YX[:, :-2]
    both = np.abs(along[2:] - 2 * along[1:-1] + along[:-2])
    return float(np.median(both)) / (0.6745 * 6.0)


def noticed(before_YX: F32, after_YX: F32, spacing_nm: Spacing, sigma: float) -> Bits:
    """Return which voxels changed noticeably, bool ``[Y, X]``.

    Args:
        before_YX: the clean section, float32.
        after_YX: the same with an artifact, without its grain.
        spacing_nm: voxel size (y, x).
        sigma: standard deviation of the noise that either will carry.
    """
    contrast = np.sqrt(variance(before_YX, _half(_CONTRAST_NM, spacing_nm)))
    least = max(LEAST_CHANGE, _OF_NOISE * sigma)
    return np.asarray(np.abs(after_YX - before_YX) > np.maximum(least, _OF_CONTRAST * contrast))


def visible(before_YX: F32, after_YX: F32, spacing_nm: Spacing, sigma: float) -> Bits:
    """Return where the change can be seen, bool ``[Y, X]``; contains `noticed`. Arguments as there."""
    seen = noticed(before_YX, after_YX, spacing_nm, sigma)
    near = _half(FADED_NM, spacing_nm)
    before, after = variance(before_YX, near), variance(after_YX, near)
    faded = after + sigma**2 < _FADED * (before + sigma**2)
    faded &= before > np.square(LEAST_CHANGE)  # where nothing was to be seen, nothing is lost
    around = _half(AROUND_NM, spacing_nm)
    changed = box_mean(np.abs(after_YX - before_YX) > _LEAST_TRACE, around)
    area = (changed >= _CHANGED) & (box_mean(seen | faded, around) >= _SEEN * changed)
    return np.asarray(seen | area)


def _half(reach_nm: float, spacing_nm: Spacing) -> tuple[int, int]:
    y, x = (max(1, round(reach_nm / s)) for s in spacing_nm)
    return y, x


def variance(image_YX: F32, half_vox: tuple[int, int]) -> F64:
    """Return the variance in a window of ``2 half + 1`` voxels, cut at the borders, float64 ``[Y, X]``."""
    centred = image_YX - image_YX.mean(dtype=np.float64)
    mean, square = box_mean(centred, half_vox), box_mean(np.square(centred), half_vox)
    return np.maximum(square - np.square(mean), 0.0)


def box_mean(image_YX: NDArray[np.bool_] | F32 | F64, half_vox: tuple[int, int]) -> F64:
    """Return the mean in a window of ``2 half + 1`` voxels, cut at the image's borders, float64 ``[Y, X]``."""
    return _box_mean(np.asarray(image_YX, np.float64), half_vox[0], half_vox[1])  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _box_mean(image, half_y, half_x):  # type: ignore[no-untyped-def]
    height, width = image.shape
    total = np.zeros((height + 1, width + 1))  # of everything above and left
    for y in range(height):
        row = 0.0
        for x in range(width):
            row += image[y, x]
            total[y + 1, x + 1] = total[y, x + 1] + row
    out = np.empty((height, width))
    for y in range(height):
        a, b = max(0, y - half_y), min(height, y + half_y + 1)
        for x in range(width):
            c, d = max(0, x - half_x), min(width, x + half_x + 1)
            inside = total[b, d] - total[a, d] - total[b, c] + total[a, c]
            out[y, x] = inside / ((b - a) * (d - c))
    return out
