"""What `emloom plan` sees of labels: what they are of, how wide it is, and what a 0 means.

::

    ids ─► pieces per id     many: classes or masks, not objects
        ─► ends of objects   along rows: is there another object within 60 nm, glued to it or behind a membrane?
                             hardly any: single objects in unlabelled tissue
        ─► zeros             far from any object: unlabelled, not a membrane
        ─► widths            twice the largest distance to the border, object by object: the median

Labels of at most 32 Mvoxel are looked at whole; of larger ones up to eight boxes of 2 Mvoxel, and where they
begin and
end is felt for on a lattice of small probes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import edt
import fastremap
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.io.volume import Volume
from emloom.ops.labels import require_labels_array
from emloom.tasks.planlook import WHOLE_VOX, is_flat, sample_boxes

Kind = Literal["neurons", "classes", "mask", "objects", "nothing"]

NEAR_NM = 60.0
"""Objects with no more than this between them are neighbours: two membranes and what is between."""
FAR_NM = 40.0
"""A label 0 further than this from any object is no membrane."""
MANY_PIECES = 8.0
SPARSE = 0.75
LONELY = 0.3
_PIECE_VOX, _WIDE_VOX, _PROBE = 50, 300, 8
_PROBES = 10


@dataclass(frozen=True)
class LabelsLook:
    """What is known of labels.

    Attributes:
        box: where they are, voxels of the labels.
        read_vox: voxels that were looked at.
        ids: different ids in the sample, beside 0.
        pieces: connected pieces of at least 50 voxels.
        zeros: share of voxels that are 0.
        far_zeros: share of these further than 40 nm (within sections) from any object.
        neighbours: share of the ends of objects with another within 60 nm.
        glued: share of those without any background between.
        width_nm: median width of objects; of flat stacks, of their profiles in sections. 0: none was measured.
    """

    box: Box
    read_vox: int
    ids: int
    pieces: int
    zeros: float
    far_zeros: float
    neighbours: float
    glued: float
    width_nm: float

    @property
    def kind(self) -> Kind:
        """What the labels are of."""
        if self.ids == 0:
            return "nothing"
        if self.pieces > MANY_PIECES * self.ids:
            return "classes" if self.ids > 1 else "mask"
        if self.ids == 1:
            return "mask"
        if self.zeros > SPARSE or self.neighbours < LONELY:
            return "objects"
        return "neurons"


def look_at_labels(volume: Volume) -> LabelsLook:
    """Look at a sample of labels (any unsigned integers ZYX).

    Raises:
        InputError: an id is too large.
    """
    whole, size = volume.info.box, volume.info.grid.voxel_size_nm
    flat = is_flat(size)
    box = extent(volume)
    boxes = [] if box.is_empty else sample_boxes(box, flat, 2)
    parts = [_look(require_labels_array(volume.read(each)), size, flat) for each in boxes]
    if not parts:
        return LabelsLook(whole, whole.size, 0, 0, 1.0, 1.0, 0.0, 0.0, 0.0)
    n = np.array([part.counts for part in parts], np.int64).sum(axis=0)
    voxels, zeros, far, near, glued, ends, pieces = (int(v) for v in n)
    ids = np.unique(np.concatenate([part.ids for part in parts])).size
    widths = np.concatenate([part.widths for part in parts])
    return LabelsLook(
        box,
        voxels,
        ids,
        pieces,
        zeros / voxels,
        far / zeros if zeros else 0.0,
        near / ends if ends else 0.0,
        glued / near if near else 0.0,
        float(np.median(widths)) if widths.size else 0.0,
    )


def extent(volume: Volume) -> Box:
    """Return the smallest box that holds all labels but 0; of large volumes, to a probe's distance; or an "
    "empty one."""
    info = volume.info
    if info.box.size <= WHOLE_VOX:
        return _hull(volume.read(info.box) != 0)
    side = [min(_PROBE, n) for n in info.shape]
    steps = [max(1, (n - s) // (_PROBES - 1)) for n, s in zip(info.shape, side, strict=True)]
    counts = [min(_PROBES, (n - s) // step + 1) for n, s, step in zip(info.shape, side, steps, strict=True)]
    hit = np.zeros(counts, np.bool_)
    for index in np.ndindex(*counts):
        start = [i * step for i, step in zip(index, steps, strict=True)]
        probe = Box((start[0], start[1], start[2]), (side[0], side[1], side[2]))
        hit[index] = volume.read(probe).any()
    found = _hull(hit)
    if found.is_empty:
        return found
    start = [0 if s == 0 else s * step for s, step in zip(found.start, steps, strict=True)]
    stop = [
        n if last == count else (last - 1) * step + s
        for n, last, count, step, s in zip(info.shape, found.stop, counts, steps, side, strict=True)
    ]
    return Box.of(start, stop)


def _hull(filled: NDArray[np.bool_]) -> Box:
    sides = []
    for axis in range(3):
        at = np.flatnonzero(filled.any(axis=tuple(a for a in range(3) if a != axis)))
        sides.append((int(at[0]), int(at[-1]) + 1) if at.size else (0, 0))
    return Box.of([a for a, _ in sides], [b for _, b in sides])


@dataclass(frozen=True)
class _Part:
    ids: NDArray[np.uint64]
    widths: NDArray[np.float64]
    counts: tuple[int, ...]


def _look(ids: NDArray[np.uint64], size: Vec3, flat: bool) -> _Part:
    dense, _ = fastremap.renumber(ids, preserve_zero=True)
    zero = dense == 0
    pieces = cc3d.connected_components(dense, connectivity=6)
    n_pieces = int((np.bincount(pieces.ravel())[1:] >= _PIECE_VOX).sum())
    ends = [_ends(dense, NEAR_NM / size[2]), _ends(dense.transpose(0, 2, 1), NEAR_NM / size[1])]
    near, glued, total = (sum(each[k] for each in ends) for k in range(3))
    found = fastremap.unique(ids)
    counts = (ids.size, int(zero.sum()), _far(zero, size), near, glued, total, n_pieces)
    return _Part(found[found != 0], _widths(dense, size, flat), counts)


def _far(zero: NDArray[np.bool_], size: Vec3) -> int:
    """Count the voxels of 0 further than `FAR_NM` from any other within their section."""
    far = 0
    for section in zero:
        if section.all():
            far += section.size
        elif section.any():
            far += int((ndimage.distance_transform_edt(section, sampling=size[1:]) > FAR_NM).sum())
    return far


def _ends(ids: NDArray[Any], reach: float) -> tuple[int, int, int]:
    """Return of the ends of objects along rows how many have another near, how many are glued to it, and all."""
    rows = ids.reshape(-1, ids.shape[-1])
    y, x = np.nonzero(rows[:, 1:] != rows[:, :-1])
    before, after = rows[y, x], rows[y, x + 1]
    glued = int(((before != 0) & (after != 0)).sum())
    into = np.flatnonzero((before != 0) & (after == 0))
    into = into[into + 1 < y.size]
    into = into[y[into + 1] == y[into]]  # the gap ends in the same row
    length, beyond = x[into + 1] - x[into], after[into + 1]
    across = int(((length <= reach) & (beyond != before[into])).sum())
    return glued + across, glued, glued + into.size


def _widths(dense: NDArray[Any], size: Vec3, flat: bool) -> NDArray[np.float64]:
    """Return twice the largest distance to the border of every object, or of flat stacks of every profile."""
    if not flat:
        return _widths_of(dense, edt.edt(np.ascontiguousarray(dense), anisotropy=size, black_border=False))
    found = []
    for section in dense:
        profiles = cc3d.connected_components(np.ascontiguousarray(section), connectivity=4)
        distance = edt.edt(np.ascontiguousarray(section), anisotropy=size[1:], black_border=False)
        found.append(_widths_of(profiles, distance))
    return np.concatenate(found)


def _widths_of(objects: NDArray[Any], distance: NDArray[np.float32]) -> NDArray[np.float64]:
    counts = np.bincount(objects.ravel())
    deepest = np.zeros(counts.size, np.float32)
    np.maximum.at(deepest, objects.ravel(), distance.ravel())
    kept = (counts >= _WIDE_VOX // (10 if objects.ndim == 2 else 1)) & np.isfinite(deepest)
    kept[:1] = False
    return 2.0 * deepest[kept].astype(np.float64)
