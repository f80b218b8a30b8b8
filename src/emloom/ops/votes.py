"""What lies under a component: which segments, how many voxels of each, and what predictions say there.

A component is asked by itself, or together with everything within a distance of it (a cleft reaches the neurons
beside it only so). One row, a *vote*, per component and segment::

    component segment first n z_sum y_sum x_sum evidence_sum sum_0 .. place distance2 peak value_0 .. usable

`place` is the voxel that stands for the segment in the component: the one nearest the component's centroid
(``centre``), or the one of highest evidence (``peak``), then the nearest; where that ties, the first in raster
order. The centroid is known from whole-number sums, so every cell measures with the same one, and the best of the
cells is the best of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.geometry.grid import Vec3
from emloom.ops.cellparts import Columns
from emloom.ops.labels import Bits, Ids
from emloom.ops.runs import I32, I64

F64 = NDArray[np.float64]
Location = Literal["centre", "peak"]
SUMMED = ("n", "z_sum", "y_sum", "x_sum", "evidence_sum")


@dataclass(frozen=True, eq=False)
class Under:
    """What lies in a cell.

    Attributes:
        box: the cell, in voxels of the whole volume.
        total_shape: of that.
        segments: uint64 [Z, Y, X], ids.
        evidence: uint8 [Z, Y, X], what the components were cut from; 0 where there is none.
        channels: uint8 [C, Z, Y, X], whatever is to be summed.
        usable: uint8 [Z, Y, X], 0 where a site is not to be believed; None: everywhere is fine.
    """

    box: Box
    total_shape: Vec
    segments: Ids
    evidence: Bits
    channels: Bits
    usable: Bits | None = None


def centroids(components: Columns) -> F64:
    """Return the centroids of components, float64 [N, 3], in voxels: 0 is the centre of the first voxel."""
    n = np.maximum(components["n"], 1)
    return np.stack([components[f"{axis}_sum"] / n for axis in "zyx"], axis=1)


def spread_runs(rows: I32, components: I64, box: Box, spacing_nm: Vec3, reach_nm: float) -> tuple[I32, I64]:
    """Return runs of all voxels of a box within a distance of a component, component by component.

    Args:
        rows: int32 [R, 4], runs of components, in the box and around it.
        components: int64 [R], the component of each.
        box: what is asked for.
        spacing_nm: voxel size (z, y, x).
        reach_nm: distance between centres of voxels; 0: the components themselves.
    """
    order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0], components))
    rows, components = rows[order], components[order]
    offsets = _offsets(spacing_nm, reach_nm)
    start, stop = np.array(box.start, np.int64), np.array(box.stop, np.int64)
    if len(offsets) == 1:
        inside = _clipped(rows, start, stop)
        good = inside[:, 2] < inside[:, 3]
        return inside[good], components[good]
    return _spread(rows, components, offsets, start, stop)


def _offsets(spacing_nm: Vec3, reach_nm: float) -> I64:
    """Return the rows (dz, dy) within reach, and how many voxels along x lie within it there."""
    (sz, sy, sx), within = spacing_nm, reach_nm * (1 + 1e-9)
    found = []
    for dz in range(-int(within // sz), int(within // sz) + 1):
        for dy in range(-int(within // sy), int(within // sy) + 1):
            left = within**2 - (dz * sz) ** 2 - (dy * sy) ** 2
            if left >= 0:
                found.append((dz, dy, int(left**0.5 // sx)))
    return np.array(found, np.int64)


def votes(
    rows: I32, components: I64, centroids_N3: F64, under: Under, spacing_nm: Vec3, location: Location = "centre"
) -> Columns:
    """Return the votes of a cell.

    Args:
        rows: int32 [R, 4], runs inside the cell, component by component (`spread_runs`).
        components: int64 [R], the component of each.
        centroids_N3: of all components, see `centroids`.
        under: what lies in the cell.
        spacing_nm: voxel size (z, y, x).
        location: which voxel stands for the component.
    """
    n_channels = len(under.channels)
    size = _count_pieces(rows, under.segments, np.array(under.box.start, np.int64))
    whole = np.zeros((size, len(SUMMED) + n_channels), np.int64)
    keys, near = np.zeros((size, 4), np.int64), np.zeros(size, np.float64)  # component, first, place, peak
    owners = np.zeros(size, np.uint64)
    geometry = np.array([under.box.start, under.total_shape], np.int64)
    dense = under.segments, under.evidence, under.channels
    spacing = np.array(spacing_nm, np.float64)
    n = _vote(
        rows, components, centroids_N3, geometry, spacing, dense, location == "peak", keys, owners, near, whole
    )
    keys, whole = keys[:n], whole[:n]
    table: Columns = {"component": keys[:, 0], "segment": owners[:n], "first": keys[:, 1]}
    table |= {name: whole[:, k] for k, name in enumerate(SUMMED)}
    table |= {f"sum_{c}": whole[:, len(SUMMED) + c] for c in range(n_channels)}
    table |= {"place": keys[:, 2], "distance2": near[:n], "peak": keys[:, 3]}
    at = tuple(
        p - s for p, s in zip(np.unravel_index(keys[:, 2], under.total_shape), under.box.start, strict=True)
    )
    table |= {f"value_{c}": under.channels[c][at].astype(np.int64) for c in range(n_channels)}
    usable = np.ones(n, np.int64) if under.usable is None else (under.usable[at] != 0).astype(np.int64)
    return {name: np.ascontiguousarray(column) for name, column in (table | {"usable": usable}).items()}


def merge_votes(tables: Sequence[Columns], location: Location = "centre") -> Columns:
    """Return the votes of all cells: one row per component and segment, by component and first voxel."""
    full = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    order = np.lexsort((full["segment"], full["component"]))
    full = {name: column[order] for name, column in full.items()}
    component, segment = full["component"], full["segment"]
    new = np.ones(len(component), np.bool_)
    new[1:] = (component[1:] != component[:-1]) | (segment[1:] != segment[:-1])
    starts, group = np.flatnonzero(new), np.cumsum(new) - 1
    if not len(starts):
        return full
    height = -full["peak"] if location == "peak" else np.zeros_like(full["peak"])
    ranked = np.lexsort((full["place"], full["distance2"], height, group))
    best = ranked[starts]  # of every group: it has as many rows as before
    merged: Columns = {}
    for name, column in full.items():
        if name in SUMMED or name.startswith("sum_"):
            merged[name] = np.add.reduceat(column, starts)
        elif name == "first":
            merged[name] = np.minimum.reduceat(column, starts)
        elif name in ("component", "segment"):
            merged[name] = column[starts]
        else:
            merged[name] = column[best]
    order = np.lexsort((merged["first"], merged["component"]))
    return {name: column[order] for name, column in merged.items()}


@njit(cache=True, nogil=True)
def _clipped(rows: I32, start: I64, stop: I64) -> I32:
    out = rows.copy()
    for i in range(len(rows)):
        out[i, 2], out[i, 3] = max(rows[i, 2], start[2]), min(rows[i, 3], stop[2])
        if rows[i, 0] < start[0] or rows[i, 0] >= stop[0] or rows[i, 1] < start[1] or rows[i, 1] >= stop[1]:
            out[i, 3] = out[i, 2]
    return out


@njit(cache=True, nogil=True)
def _spread(rows: I32, components: I64, offsets: I64, start: I64, stop: I64) -> tuple[I32, I64]:
    found = np.empty((256, 4), np.int32)
    of_run = np.empty(256, np.int64)
    n, a = 0, 0
    far = np.array([np.abs(offsets[:, 0]).max(), np.abs(offsets[:, 1]).max(), offsets[:, 2].max()])
    while a < len(rows):
        b = a
        while b < len(rows) and components[b] == components[a]:
            b += 1
        low, high = np.empty(3, np.int64), np.empty(3, np.int64)
        for k in range(3):
            low[k] = max(start[k], np.int64(rows[a:b, k].min()) - far[k])
            last = rows[a:b, k].max() + 1 if k < 2 else rows[a:b, 3].max()
            high[k] = min(stop[k], np.int64(last) + far[k])
        if (low < high).all():
            window = np.zeros((high[0] - low[0], high[1] - low[1], high[2] - low[2]), np.bool_)
            _paint(rows[a:b], offsets, low, window)
            n_before = n
            found, n = _append_runs(window, low, found, n)
            while len(of_run) < len(found):
                of_run = np.concatenate((of_run, of_run))
            of_run[n_before:n] = components[a]
        a = b
    return found[:n].copy(), of_run[:n].copy()


@njit(cache=True, nogil=True)
def _paint(rows: I32, offsets: I64, low: I64, window: NDArray[np.bool_]) -> None:
    """Set what lies within reach of runs."""
    for i in range(len(rows)):
        for k in range(len(offsets)):
            z, y = rows[i, 0] + offsets[k, 0] - low[0], rows[i, 1] + offsets[k, 1] - low[1]
            if 0 <= z < window.shape[0] and 0 <= y < window.shape[1]:
                x0 = max(0, rows[i, 2] - offsets[k, 2] - low[2])
                x1 = min(window.shape[2], rows[i, 3] + offsets[k, 2] - low[2])
                if x0 < x1:
                    window[z, y, x0:x1] = True


@njit(cache=True, nogil=True)
def _append_runs(window: NDArray[np.bool_], low: I64, found: I32, n: int) -> tuple[I32, int]:
    """Append the runs of a window to those found, which grow where they must."""
    for z in range(window.shape[0]):
        for y in range(window.shape[1]):
            x = 0
            while x < window.shape[2]:
                if not window[z, y, x]:
                    x += 1
                    continue
                x0 = x
                while x < window.shape[2] and window[z, y, x]:
                    x += 1
                if n == len(found):
                    found = np.concatenate((found, found))
                found[n, 0], found[n, 1] = z + low[0], y + low[1]
                found[n, 2], found[n, 3] = x0 + low[2], x + low[2]
                n += 1
    return found, n


@njit(cache=True, nogil=True)
def _count_pieces(rows: I32, segments: Ids, start: I64) -> int:
    """Return into how many pieces of one segment the runs fall: as many votes there are at most."""
    n = 0
    for i in range(len(rows)):
        ids = segments[rows[i, 0] - start[0], rows[i, 1] - start[1]]
        first = rows[i, 2] - start[2]
        for x in range(first, rows[i, 3] - start[2]):
            n += x == first or ids[x] != ids[x - 1]
    return n


@njit(cache=True, nogil=True)
def _vote(  # noqa: PLR0913 (a kernel takes arrays, not objects)
    rows: I32,
    components: I64,
    centroids_N3: F64,
    geometry: I64,
    spacing: F64,
    dense: tuple[Ids, Bits, Bits],
    by_peak: bool,
    keys: I64,
    owners: Ids,
    near: F64,
    whole: I64,
) -> int:
    segments, evidence, channels = dense
    start, shape = geometry[0], geometry[1]
    n, of_component, row = 0, 0, 0
    for i in range(len(rows)):
        component = components[i]
        if i == 0 or components[i - 1] != component:
            of_component = n  # the first vote of this component
            row = n
        z, y = np.int64(rows[i, 0]), np.int64(rows[i, 1])
        lz, ly = z - start[0], y - start[1]
        away = ((z - centroids_N3[component, 0]) * spacing[0]) ** 2
        away += ((y - centroids_N3[component, 1]) * spacing[1]) ** 2
        for x in range(np.int64(rows[i, 2]), np.int64(rows[i, 3])):
            lx = x - start[2]
            owner = segments[lz, ly, lx]
            if row == n or owners[row] != owner:
                row = of_component
                while row < n and owners[row] != owner:
                    row += 1
            place = (z * shape[1] + y) * shape[2] + x
            value = np.int64(evidence[lz, ly, lx])
            distance = away + ((x - centroids_N3[component, 2]) * spacing[2]) ** 2
            if row == n:
                n += 1
                owners[row] = owner
                keys[row, 0], keys[row, 1] = component, place
                keys[row, 2], keys[row, 3], near[row] = place, value, distance
            higher, level = value > keys[row, 3], value == keys[row, 3]
            if (distance < near[row] and (level or not by_peak)) or (by_peak and higher):
                keys[row, 2], keys[row, 3], near[row] = place, value, distance
            keys[row, 1] = min(keys[row, 1], place)
            into = whole[row]
            into[0] += 1
            into[1] += z
            into[2] += y
            into[3] += x
            into[4] += value
            for c in range(len(channels)):
                into[5 + c] += channels[c, lz, ly, lx]
    return n
