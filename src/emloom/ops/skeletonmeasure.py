"""Everything that is measured of each skeleton, as the columns of a table; and how fast somebody traced it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.skeletons import Floats, Rows, Skeletons
from emloom.ops.skeletoncycles import cycle_counts, pieces
from emloom.ops.skeletongraph import branch_nodes, end_nodes
from emloom.ops.skeletonpaths import longest_paths
from emloom.ops.skeletonplaces import boxes_nm

BREAK_MS = 5 * 60 * 1000.0
"""A gap between two nodes that is longer is a break, not tracing: five minutes."""


def measures(skeletons: Skeletons) -> dict[str, NDArray[Any]]:
    """Return one column per measure, K rows in the order of `ids`.

    Columns: `skeleton` (id) and `name`; counts of `nodes`, `links`, `pieces`, `cycles`, `ends` and `branches`;
    `length_nm`, the path length; `longest_nm`, the longest path (`emloom.ops.skeletonpaths`), and `tortuosity`,
    that path over the straight distance between its ends (at least 1; NaN without a path, infinite where it comes
    back to where it began); the box around all nodes, `z_min_nm` to `x_max_nm` (NaN without nodes).
    """
    k = len(skeletons.ids)
    paths = longest_paths(skeletons)
    ends = end_nodes(skeletons)
    columns: dict[str, NDArray[Any]] = {
        "skeleton": skeletons.ids,
        "name": np.array(skeletons.names, np.str_),
        "nodes": _count(skeletons.skeletons, k),
        "links": _count(skeletons.link_skeletons, k),
        "pieces": pieces(skeletons),
        "cycles": cycle_counts(skeletons),
        "ends": _count(skeletons.skeletons[ends], k),
        "branches": _count(skeletons.skeletons[branch_nodes(skeletons)], k),
        "length_nm": skeletons.lengths_nm,
        "longest_nm": np.array([path.length_nm for path in paths], np.float64),
        "tortuosity": np.array(
            [tortuosity(skeletons.positions_nm[p.rows], p.length_nm) for p in paths], np.float64
        ),
    }
    boxes = boxes_nm(skeletons)
    for side, word in enumerate(("min", "max")):
        for axis, name in enumerate("zyx"):
            columns[f"{name}_{word}_nm"] = boxes[:, side, axis]
    return columns


def tortuosity(positions_nm: Floats, length_nm: float) -> float:
    """Return a path's length over the straight distance between its ends; NaN where it has no length."""
    if not length_nm:
        return float("nan")
    straight = float(np.linalg.norm(positions_nm[-1] - positions_nm[0]))
    # Rounding may leave a straight path a hair shorter than itself.
    return max(1.0, length_nm / straight) if straight else float("inf")


def tracing_times_ms(skeletons: Skeletons, times_ms: Floats, *, break_ms: float = BREAK_MS) -> Floats:
    """Return how long each skeleton was traced: the gaps between its nodes in the order they were set.

    A gap longer than a break counts nothing. Somebody who goes to and fro between two trees within a break counts
    for both.

    Args:
        skeletons: N nodes.
        times_ms: float64 [N], when each node was set, in ms since any moment; NaN or 0 where that is not known.
        break_ms: the longest gap that is still tracing.

    Returns:
        float64 [K] in ms; NaN where fewer than two nodes have a time.

    Raises:
        InputError: there is not one time per node, or the break is not positive.
    """
    if times_ms.shape != skeletons.node_ids.shape:
        raise InputError(
            f"times have shape {times_ms.shape}: give one for each of {len(skeletons.node_ids)} nodes"
        )
    if not break_ms > 0:
        raise InputError(f"a break of {break_ms} ms: give a positive time")
    k = len(skeletons.ids)
    known = np.flatnonzero(np.isfinite(times_ms) & (times_ms != 0))
    known = known[np.lexsort((times_ms[known], skeletons.skeletons[known]))]
    gaps, whose = np.diff(times_ms[known]), skeletons.skeletons[known]
    counts = (whose[1:] == whose[:-1]) & (gaps <= break_ms)
    sums = np.bincount(whose[1:][counts], weights=gaps[counts], minlength=k)
    return np.where(_count(whose, k) >= 2, sums, np.nan)


def speeds_um_per_min(skeletons: Skeletons, times_ms: Floats, *, break_ms: float = BREAK_MS) -> Floats:
    """Return float64 [K], path in µm over minutes of tracing; NaN where that time is unknown or 0; see above."""
    spent = tracing_times_ms(skeletons, times_ms, break_ms=break_ms)
    spent = np.where(spent > 0, spent, np.nan)
    speeds: Floats = skeletons.lengths_nm / 1000.0 / (spent / 60_000.0)
    return speeds


def _count(rows: Rows, k: int) -> Rows:
    return np.bincount(rows, minlength=k).astype(np.int64)
