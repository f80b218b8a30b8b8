"""Local shape descriptors: what the object around a voxel looks like, in ten numbers.

Sheridan et al., Nature Methods 2023 (doi:10.1038/s41592-022-01711-z).

Around voxel ``x`` of object ``l``, with a Gaussian window ``w`` (standard deviation sigma, cut off at 3 sigma,
sum 1) and the object's indicator ``m`` (zero outside the array), the moments are::

    M_abc(x) = sum over d of  w(d) dz^a dy^b dx^c m(x + d)        d = position relative to x, nm

    size      n    = M_000                         part of the window inside the object
    offset    mu_i = M_i / n                       centre of mass relative to x
    variance  V_i  = max(M_ii / n - mu_i^2, 1e-3 nm^2)
    pearson   r_ij = (M_ij / n - mu_i mu_j) / sqrt(V_i V_j)

    channels  0:3  mu / sigma / 2 + 1/2  (z y x)      3:6  V / sigma^2  (z y x)
              6:9  r / 2 + 1/2  (zy zx yx)            9    n             all clipped to [0, 1]

The window is a product, so the moments are three sweeps of one-dimensional sums over each object's own
bounding box: along x 3 sums, then y 6, then z 10 (not 30 passes over the volume per object). Positions are
relative throughout: nothing cancels, and a crop with 3 sigma of context gives the same bits as the whole.

With ``downsample`` f, objects are seen on the strided grid ``labels[::f]``, anchored at the array's first voxel,
and each descriptor serves the f voxels it stands for. An object with no strided voxel in the window has no
descriptor there: target 0 and weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec, sub
from emloom.geometry.grid import Vec3, as_nm
from emloom.ops import moments
from emloom.ops.labels import require_labels_array, require_mask_array

Array = NDArray[Any]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bits = NDArray[np.uint8]

CUT_OFF_SIGMAS = 3.0
SMALLEST_VARIANCE_NM2 = 1e-3


def context_vox(
    spacing_nm: Sequence[float], sigma_nm: float | Sequence[float] = 80.0, downsample: int | Sequence[int] = 1
) -> Vec:
    """Return how many voxels (z, y, x) around a box its descriptors depend on.

    Raises:
        InputError: spacing, sigma or downsample is not positive.
    """
    spacing, sigma, factor = checked(spacing_nm, sigma_nm, downsample)
    z, y, x = (radius_vox(s * f, g) * f for s, g, f in zip(spacing, sigma, factor, strict=True))
    return (z, y, x)


def local_shape_descriptors(
    labels_ZYX: Array,
    spacing_nm: Sequence[float],
    sigma_nm: float | Sequence[float] = 80.0,
    *,
    downsample: int | Sequence[int] = (1, 1, 1),
    box: Box | None = None,
    mask_ZYX: Array | None = None,
) -> tuple[F32, Bits]:
    """Gaussian-weighted size, offset and covariance of the object around each voxel.

    Sheridan et al., Nature Methods 2023 (doi:10.1038/s41592-022-01711-z); see the module for the formulae. For a
    single section, choose a sigma along z below a sixth of the voxel size: the window is then flat.

    Args:
        labels_ZYX: instance ids, any unsigned integer; 0 is background.
        spacing_nm: voxel size (z, y, x) in nm.
        sigma_nm: standard deviation of the window in nm, or one per axis (z, y, x).
        downsample: see objects on every f-th voxel only, per axis (z, y, x).
        box: voxels to describe; the rest of the array is context. Default: all.
        mask_ZYX: 0 where labels are unknown; None: all known.

    Returns:
        descriptors float32 [10, Z, Y, X] in [0, 1] of `box`; channels: offset zyx, variance zyx, correlation
        zy zx yx, size; 0 on background. And weight uint8 [Z, Y, X]: 1 where the descriptor is defined and known.

    Raises:
        InputError: labels are signed or floating, a length is not positive, or `box` leaves the array.
    """
    spacing, sigma, factor = checked(spacing_nm, sigma_nm, downsample)
    require_labels_array(labels_ZYX[:0])
    box = Box.whole(labels_ZYX.shape) if box is None else box
    mask = require_mask_array(mask_ZYX, labels_ZYX.shape)
    seen = seen_box(box, Box.whole(labels_ZYX.shape), context_vox(spacing, sigma, factor), factor)
    # Full resolution is needed inside the box only; the context is seen on the strided grid.
    z, y, x = seen.slices()
    coarse = require_labels_array(labels_ZYX[z, y, x][:: factor[0], :: factor[1], :: factor[2]])
    fine = require_labels_array(labels_ZYX[box.slices()])
    record_of = np.zeros(box.shape, np.int32)
    values = np.empty((moments.N_CHANNELS, fine.size + 1), np.float32)
    present = fastremap.unique(fine) if fine.size else np.zeros(0, np.uint64)
    present = present[present != 0]
    windows = [window(s * f, g) for s, f, g in zip(spacing, factor, sigma, strict=True)]
    floors = np.array([SMALLEST_VARIANCE_NM2 / s**2 for s in sigma])
    frame = np.array([factor, sub(box.start, seen.start)], np.int64)
    scene = (*moments.runs(coarse, present), moments.number(fine, present), frame)
    tiles = moments.tiles(scene, coarse.shape, len(present), np.array([w.shape[1] // 2 for w in windows]))
    trio = (windows[0], windows[1], _running(windows[2]))
    moments.describe(scene, coarse.shape[1], tiles, trio, floors, (record_of, values))
    lsds = np.empty((moments.N_CHANNELS, *box.shape), np.float32)
    moments.spread(record_of, values, lsds)
    weight = (record_of > 0).view(np.uint8)
    if mask.size:
        weight &= mask[box.slices()]
    return lsds, weight


def checked(
    spacing_nm: Sequence[float], sigma_nm: float | Sequence[float], downsample: int | Sequence[int]
) -> tuple[Vec3, Vec3, Vec]:
    """Return spacing, sigma and downsample per axis; raises `InputError` where one is not positive."""
    spacing = as_nm(spacing_nm, "voxel size")
    sigma = as_nm([sigma_nm] * 3 if isinstance(sigma_nm, int | float) else sigma_nm, "sigma")
    factor = as_vec(downsample)
    for name, value in (("voxel size", spacing), ("sigma", sigma), ("downsample", factor)):
        if min(value) <= 0:
            raise InputError(f"{name} {value} is not positive: give z, y, x, each above 0")
    return spacing, sigma, factor


def seen_box(box: Box, whole: Box, context: Vec, factor: Vec) -> Box:
    """Return the voxels a box depends on, aligned to the strided grid of the whole array.

    Raises:
        InputError: the box leaves the array.
    """
    if not whole.contains(box):
        raise InputError(f"{box} leaves the labels, which are {whole}: choose a box inside them")
    return box if box.is_empty else box.snap(factor).grow(context).intersect(whole)


def radius_vox(step_nm: float, sigma_nm: float) -> int:
    """Return how many voxels of the strided grid the window reaches to each side."""
    return int(CUT_OFF_SIGMAS * sigma_nm / step_nm + 0.5)


def window(step_nm: float, sigma_nm: float) -> F64:
    """Return w(d), w(d) d, w(d) d^2 for all d of the window, [3, 2r + 1]; d in units of sigma."""
    radius = radius_vox(step_nm, sigma_nm)
    d = np.arange(-radius, radius + 1) * (step_nm / sigma_nm)
    w = np.exp(-0.5 * d**2)
    w /= w.sum()
    return np.stack([w, w * d, w * d**2])


def _running(window: F64) -> F64:
    """Return running sums [3, 2r + 2]: the sum over a run of voxels is the difference of two entries."""
    return np.concatenate([np.zeros((3, 1)), np.cumsum(window, axis=1)], axis=1)
