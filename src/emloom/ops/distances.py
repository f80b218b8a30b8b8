"""Distances to the boundary of objects, in nm, as far as a cap.

Distances are between centres of voxels: d(p) is how far the nearest voxel of another kind lies. What counts as
another kind is a choice::

    instances     any other id, background included: touching objects are separated
    semantic      background, seen from an object, and any object, seen from background

    signed distance   +d inside objects, -d in background      never 0: the boundary lies between voxels
    STED              tanh(signed distance / scale)            (Heinrich et al., MICCAI 2018, arXiv:1805.02718)

Beyond the array, and where a mask is 0, nothing is known: that is not background. Every function therefore also
returns a weight: 1 where the value is certain, because no voxel outside the array is nearer than it and no
masked one as near; else 0. Values end at a cap, so that a voxel depends on `context_vox` around it and no more: a
crop with that context gives the values and weights of the whole. Where nothing else is in reach (no object at all,
or nothing but one) the value is the cap, and certain where the array reaches that far; scipy's transform invents
distances there.

Exact Euclidean transform of all ids at once by `edt` (Silversmith 2018, doi:10.5281/zenodo.5660574), one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.grid import TOLERANCE_VOX, Vec3, as_nm
from emloom.ops.labels import require_labels_array, require_mask_array

Array = NDArray[Any]
F32 = NDArray[np.float32]
Bits = NDArray[np.uint8]

SATURATION = 5.0
"""Scales after which a STED no longer grows: tanh(5) = 0.9999."""
_TIE = 1e-5  # distances this close, relative to each other, are equal: they are float32


def context_vox(spacing_nm: Sequence[float], cap_nm: float) -> Vec:
    """Return how many voxels (z, y, x) around a box its distances up to a cap depend on.

    Raises:
        InputError: spacing or cap is not positive.
    """
    spacing, cap = _checked(spacing_nm, cap_nm)
    z, y, x = (floor(cap / s + TOLERANCE_VOX) for s in spacing)
    return (z, y, x)


def boundary_distance(
    labels_ZYX: Array,
    spacing_nm: Sequence[float],
    cap_nm: float,
    *,
    instances: bool = True,
    box: Box | None = None,
    mask_ZYX: Array | None = None,
) -> tuple[F32, Bits]:
    """Return the distance to the boundary, inside objects and in background; see `signed_distance`.

    Returns:
        distance float32 [Z, Y, X] of `box` in nm, above 0 and at most `cap_nm` (0 where masked out); and weight
        uint8 [Z, Y, X]: 1 where it is certain.

    Raises:
        InputError: as `signed_distance`.
    """
    signed, weight = signed_distance(
        labels_ZYX, spacing_nm, cap_nm, instances=instances, box=box, mask_ZYX=mask_ZYX
    )
    return np.abs(signed, out=signed), weight


def signed_distance(
    labels_ZYX: Array,
    spacing_nm: Sequence[float],
    cap_nm: float,
    *,
    instances: bool = True,
    box: Box | None = None,
    mask_ZYX: Array | None = None,
) -> tuple[F32, Bits]:
    """Return the distance to the boundary, positive inside objects and negative in background.

    Args:
        labels_ZYX: ids, any unsigned integer; 0 is background.
        spacing_nm: voxel size (z, y, x) in nm.
        cap_nm: distances end here.
        instances: objects that touch are separated by a boundary; else all ids are one object.
        box: voxels to describe; the rest of the array is context. Default: all.
        mask_ZYX: 0 where labels are unknown; None: all known.

    Returns:
        distance float32 [Z, Y, X] of `box` in nm, within -cap and cap (0 where masked out); and weight uint8
        [Z, Y, X]: 1 where it is certain; see the module.

    Raises:
        InputError: labels are signed or floating, a length is not positive, or `box` leaves the array.
    """
    spacing, cap = _checked(spacing_nm, cap_nm)
    require_labels_array(labels_ZYX[:0])
    mask = require_mask_array(mask_ZYX, labels_ZYX.shape)
    whole = Box.whole(labels_ZYX.shape)
    box = whole if box is None else box
    if not whole.contains(box):
        raise InputError(f"{box} leaves the labels, which are {whole}: choose a box inside them")
    if box.is_empty:
        return np.zeros(box.shape, np.float32), np.zeros(box.shape, np.uint8)
    seen = box.grow(context_vox(spacing, cap)).intersect(whole)
    ids = require_labels_array(labels_ZYX[seen.slices()])
    # edt measures inside every number but 0: background becomes one, what is unknown takes its place.
    kinds = ids + np.uint64(1) if instances else (ids != 0).view(np.uint8) + np.uint8(1)
    inner = box.slices(seen.start)
    known = None
    if mask.size:
        known = mask[seen.slices()]
        kinds[known == 0] = 0
    value = np.minimum(_transform(kinds, spacing)[inner], np.float32(cap))
    weight = value <= (1 + _TIE) * _depth(box, whole, spacing)
    if known is not None:
        to_unknown = _transform(known, spacing)[inner]
        weight &= (value < (1 - _TIE) * to_unknown) | (to_unknown >= (1 - _TIE) * cap)
        weight &= known[inner] != 0
    np.negative(value, out=value, where=ids[inner] == 0)
    return value, weight.view(np.uint8)


def sted(
    labels_ZYX: Array,
    spacing_nm: Sequence[float],
    scale_nm: float = 50.0,
    *,
    instances: bool = True,
    box: Box | None = None,
    mask_ZYX: Array | None = None,
) -> tuple[F32, Bits]:
    """Return ``tanh(signed distance / scale)``; Heinrich et al., MICCAI 2018 (arXiv:1805.02718).

    The distance ends at `SATURATION` scales: a box needs ``context_vox(spacing_nm, SATURATION * scale_nm)``.

    Args:
        labels_ZYX: ids, any unsigned integer; 0 is background.
        spacing_nm: voxel size (z, y, x) in nm.
        scale_nm: where the tangent turns; Heinrich et al. choose 50 nm for clefts.
        instances: objects that touch are separated by a boundary; else all ids are one object.
        box: voxels to describe; the rest of the array is context. Default: all.
        mask_ZYX: 0 where labels are unknown; None: all known.

    Returns:
        float32 [Z, Y, X] of `box` within -1 and 1, and weight uint8 [Z, Y, X]: 1 where it is certain.

    Raises:
        InputError: as `signed_distance`, or the scale is not positive.
    """
    _checked(spacing_nm, scale_nm, "scale")
    signed, weight = signed_distance(
        labels_ZYX, spacing_nm, SATURATION * scale_nm, instances=instances, box=box, mask_ZYX=mask_ZYX
    )
    return np.tanh(signed / np.float32(scale_nm)), weight


def _checked(spacing_nm: Sequence[float], length_nm: float, what: str = "cap") -> tuple[Vec3, float]:
    spacing, length = as_nm(spacing_nm, "voxel size"), float(length_nm)
    if min(spacing) <= 0:
        raise InputError(f"voxel size {spacing} is not positive: give z, y, x in nm, each above 0")
    if not (isfinite(length) and length > 0):
        raise InputError(f"{what} {length_nm} nm is not a length: give a finite number of nm above 0")
    return spacing, length


def _transform(kinds: Array, spacing: Vec3) -> F32:
    """Return the distance to the nearest voxel of another number; infinite where there is none, 0 at 0."""
    distance: F32 = edt.edt(np.ascontiguousarray(kinds), anisotropy=spacing, black_border=False, parallel=1)
    return distance


def _depth(box: Box, whole: Box, spacing: Vec3) -> F32:
    """Return how far the nearest voxel outside the array lies from every voxel of the box, in nm."""
    depths = []
    for start, stop, end, s in zip(box.start, box.stop, whole.stop, spacing, strict=True):
        at = np.arange(start, stop)
        depths.append((np.minimum(at + 1, end - at) * s).astype(np.float32))
    z, y, x = depths
    return np.minimum(np.minimum(z[:, None, None], y[:, None]), x)
