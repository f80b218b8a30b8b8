"""Components of one cell, as whole numbers that add up: a component of the volume is the sum of its parts.

A *layer* is one kind of evidence (pre sites, post sites, clefts); parts of different layers have nothing to do
with each other. What a cell says of itself::

    parts   one row per part: layer, segment, first voxel, number of voxels, sums of coordinates and of evidence,
            the highest evidence, the box around it
    runs    its voxels, as intervals along x (`emloom.ops.runs`), and the part each belongs to
    rim     its voxels on the faces of the cell, which may touch parts of other cells
    edges   parts of neighbouring sections that touch; only of layers whose components are first those of sections

Voxels are named by their place in the whole volume, ``(z * Y + y) * X + x``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.ops.labels import Bits, Ids
from emloom.ops.runs import I32, I64, Connectivity, Runs, find_runs, link_runs

Columns = dict[str, NDArray[Any]]
PART_COLUMNS = (
    ("layer", np.int64),
    ("segment", np.uint64),
    ("first", np.int64),
    ("n", np.int64),
    ("z_sum", np.int64),
    ("y_sum", np.int64),
    ("x_sum", np.int64),
    ("evidence_sum", np.int64),
    ("peak", np.int64),
    *((f"{axis}_{end}", np.int64) for end in ("low", "high") for axis in "zyx"),
)
"""Name and type of what is known of a part; `low` is its first voxel along an axis, `high` one past the last."""
_SUMS = tuple(name for name, _ in PART_COLUMNS[3:])


@dataclass(frozen=True)
class LayerRule:
    """How evidence becomes components.

    Attributes:
        threshold: from here on, 1 to 255, a voxel counts.
        connectivity: 6, 18 or 26.
        split: a component lies in one segment.
        keep_background: of split components: those in segment 0 are kept.
        per_section: components are first those of sections, which are joined when their areas are known.
    """

    threshold: int
    connectivity: Connectivity = 6
    split: bool = False
    keep_background: bool = False
    per_section: bool = False


@dataclass(frozen=True, eq=False)
class CellParts:
    """What a cell says of its components.

    Attributes:
        parts: columns of `PART_COLUMNS`.
        rows: int32 [R, 4], runs z, y, first x, one past the last, in voxels of the whole volume; in raster order
            within a layer.
        run_parts: int32 [R], the part of each run.
        rim_places: int64 [M], voxels on faces of the cell.
        rim_parts: int32 [M].
        edges: int32 [E, 2], parts that touch.
    """

    parts: Columns
    rows: I32
    run_parts: I32
    rim_places: I64
    rim_parts: I32
    edges: I32

    @property
    def n(self) -> int:
        """How many parts there are."""
        return len(self.parts["layer"])


def cell_parts(
    layers: Sequence[tuple[Bits, LayerRule]], segments_ZYX: Ids | None, box: Box, total_shape: Vec
) -> CellParts:
    """Return the components of a cell.

    Args:
        layers: evidence uint8 [Z, Y, X] of the cell and the rule for it, one per layer.
        segments_ZYX: ids [Z, Y, X] of the cell; None where no layer is split by them.
        box: where the cell lies.
        total_shape: shape of the whole volume.

    Raises:
        InputError: see `emloom.ops.runs`.
    """
    made, n = [], 0
    for number, (evidence, rule) in enumerate(layers):
        ids = segments_ZYX if rule.split else None
        runs = find_runs(evidence, rule.threshold, ids, keep_background=rule.keep_background)
        made.append(_layer_parts(number, np.ascontiguousarray(evidence), rule, runs, box, total_shape, n))
        n += made[-1].n
    return _together(made)


def _layer_parts(
    layer: int, evidence: Bits, rule: LayerRule, runs: Runs, box: Box, total_shape: Vec, n_before: int
) -> CellParts:
    linked = link_runs(runs, rule.connectivity, per_section=rule.per_section)
    rows = runs.rows + np.array([*box.start, box.start[2]], np.int32)
    sums = np.zeros((linked.n, len(_SUMS)), np.int64)
    firsts, owners = np.full(linked.n, -1, np.int64), np.zeros(linked.n, np.uint64)
    shape = np.array(total_shape, np.int64)
    _measure(rows, linked.labels, runs.segments, evidence, np.array(box.start), shape, sums, firsts, owners)
    parts: Columns = {"layer": np.full(linked.n, layer, np.int64), "segment": owners, "first": firsts}
    parts |= {name: np.ascontiguousarray(sums[:, k]) for k, name in enumerate(_SUMS)}
    # Faces of the volume touch nothing: they are moved out of the way.
    open_low = np.array([-1 if start == 0 else start for start in box.start], np.int64)
    open_high = np.array(
        [-1 if stop == size else stop - 1 for stop, size in zip(box.stop, total_shape, strict=True)], np.int64
    )
    places, of_part = _rim(rows, linked.labels, shape, open_low, open_high)
    plus = np.int32(n_before)
    return CellParts(parts, rows, linked.labels + plus, places, of_part + plus, linked.edges + plus)


def _together(made: Sequence[CellParts]) -> CellParts:
    if not made:
        raise ValueError("no layer, no parts")
    parts = {name: np.concatenate([each.parts[name] for each in made]) for name, _ in PART_COLUMNS}
    arrays = {
        field.name: np.concatenate([getattr(each, field.name) for each in made])
        for field in fields(CellParts)
        if field.name != "parts"
    }
    return CellParts(parts, **arrays)


@njit(cache=True, nogil=True)
def _measure(  # noqa: PLR0913 (a kernel takes arrays, not objects)
    rows: I32,
    labels: I32,
    of_run: Ids,
    evidence: Bits,
    start: I64,
    shape: I64,
    sums: I64,
    firsts: I64,
    owners: Ids,
) -> None:
    for i in range(len(rows)):
        z, y, x0, x1 = np.int64(rows[i, 0]), np.int64(rows[i, 1]), np.int64(rows[i, 2]), np.int64(rows[i, 3])
        part, n = labels[i], x1 - x0
        total, top = np.int64(0), np.int64(0)
        row = evidence[z - start[0], y - start[1]]
        for x in range(x0 - start[2], x1 - start[2]):
            value = np.int64(row[x])
            total += value
            top = max(top, value)
        into = sums[part]
        if firsts[part] < 0:
            firsts[part] = (z * shape[1] + y) * shape[2] + x0
            owners[part] = of_run[i]
            into[6], into[7], into[8], into[9], into[10], into[11] = z, y, x0, z + 1, y + 1, x1
        into[0] += n
        into[1] += n * z
        into[2] += n * y
        into[3] += (x0 + x1 - 1) * n // 2
        into[4] += total
        into[5] = max(into[5], top)
        into[6], into[9] = min(into[6], z), max(into[9], z + 1)
        into[7], into[10] = min(into[7], y), max(into[10], y + 1)
        into[8], into[11] = min(into[8], x0), max(into[11], x1)


@njit(cache=True, nogil=True)
def _rim(rows: I32, labels: I32, shape: I64, low: I64, high: I64) -> tuple[I64, I32]:
    """Return the voxels that lie on an open face of the cell, and their parts."""
    n = 0
    places, parts = np.empty(0, np.int64), np.empty(0, np.int32)
    for write in range(2):
        if write:
            places, parts = np.empty(n, np.int64), np.empty(n, np.int32)
            n = 0
        for i in range(len(rows)):
            z, y, x0, x1 = np.int64(rows[i, 0]), np.int64(rows[i, 1]), np.int64(rows[i, 2]), np.int64(rows[i, 3])
            whole = z == low[0] or z == high[0] or y == low[1] or y == high[1]
            begin = (z * shape[1] + y) * shape[2]
            for x in range(x0, x1):
                if not (whole or x == low[2] or x == high[2]):
                    continue
                if write:
                    places[n], parts[n] = begin + x, labels[i]
                n += 1
    return places, parts
