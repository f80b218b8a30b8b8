"""Where a change to a section can be seen: the honest mask of a synthetic artifact.

A label should say what can be known from the picture. A voxel changed *noticeably* where it changed by more than the
tissue around it varies in part, and more than the detector's noise::

    noticed(p) = |after - before| > max(0.06, 0.5 sd(before, 400 nm around p), 2.5 sigma)
    visible(p) = noticed(p)  or  a quarter of the voxels within 60 nm (at least 3 voxels) are noticed

The second line closes the areas in which a picture changed as a whole though some voxels happen to be alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.ops.textures import F32

LEAST_CHANGE = 0.06
_OF_CONTRAST = 0.5
_OF_NOISE = 2.5
_CONTRAST_NM = 800.0
_AROUND_NM = 120.0
_SHARE = 0.25


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


def noticed(before_YX: F32, after_YX: F32, spacing_nm: tuple[float, float], sigma: float) -> NDArray[np.bool_]:
    """Return which voxels changed noticeably, bool ``[Y, X]``.

    Args:
        before_YX: the clean section, float32.
        after_YX: the same with an artifact, without its grain.
        spacing_nm: voxel size (y, x).
        sigma: standard deviation of the noise that either will carry.
    """
    size = [2 * max(1, round(0.5 * _CONTRAST_NM / s)) + 1 for s in spacing_nm]
    mean = ndimage.uniform_filter(before_YX, size, mode="reflect")
    square = ndimage.uniform_filter(np.square(before_YX), size, mode="reflect")
    contrast = np.sqrt(np.maximum(square - np.square(mean), 0.0))
    least = max(LEAST_CHANGE, _OF_NOISE * sigma)
    return np.asarray(np.abs(after_YX - before_YX) > np.maximum(least, _OF_CONTRAST * contrast))


def visible(before_YX: F32, after_YX: F32, spacing_nm: tuple[float, float], sigma: float) -> NDArray[np.bool_]:
    """Return where the change can be seen, bool ``[Y, X]``; contains `noticed`. Arguments as there."""
    seen = noticed(before_YX, after_YX, spacing_nm, sigma)
    size = [2 * max(1, round(0.5 * _AROUND_NM / s)) + 1 for s in spacing_nm]
    share = ndimage.uniform_filter(seen.astype(np.float32), size, mode="reflect")
    return np.asarray(seen | (share >= _SHARE))
