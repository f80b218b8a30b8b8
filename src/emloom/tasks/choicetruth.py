"""Which choices of a segmentation are wrong, where the truth is known: to judge the doubts, never to make them.

A fragment belongs to the true object that covers most of its known voxels. A merge is wrong where most of its
contacts, of fragments whose objects are known, are between two objects; a gap where most are inside one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import blocks
from emloom.io.open import open_volume
from emloom.io.tables import read_table
from emloom.metrics.contingency import Contingency, add, contingency
from emloom.tasks.lattice import common_box
from emloom.tasks.overlaptable import CELL, SPECIAL

Ids = NDArray[np.uint64]
Bits = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class JudgedChoices:
    """What the truth says of each of D choices.

    Attributes:
        known: bool [D], the truth says something about it.
        wrong: bool [D], it is wrong; False where unknown.
    """

    known: Bits
    wrong: Bits


def judged_choices(folder: str | Path, segmentation: str | Path, truth: str) -> JudgedChoices:
    """Return which choices in a folder of `emloom confidence` are wrong.

    Args:
        folder: of the confidence.
        segmentation: that was looked at.
        truth: volume of true ids; 0 is unknown. It covers the segmentation.

    Raises:
        InputError: a file is missing, or the grids differ.
    """
    choices, edges = (read_table(Path(folder) / f"{name}.parquet") for name in ("choices", "doubts"))
    ids, objects = largest_objects(_overlap(Path(segmentation) / "fragments", truth))
    one, other = (_objects_of(edges[end], ids, objects) for end in "uv")
    told = (one > 0) & (other > 0)
    n, choice = len(choices), edges["choice"]
    alike, apart = np.zeros(n, np.int64), np.zeros(n, np.int64)
    np.add.at(alike, choice, edges["n"] * (told & (one == other)))
    np.add.at(apart, choice, edges["n"] * (told & (one != other)))
    known = alike != apart
    return JudgedChoices(known, known & ((alike > apart) != choices["merged"]))


def largest_objects(table: Contingency) -> tuple[Ids, Ids]:
    """Return every fragment with a known voxel, and the true object that covers most; of equals the smaller id."""
    order = np.lexsort((table.truth_ids, -table.counts, table.segment_ids))
    ids = table.segment_ids[order]
    first = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]][: len(ids)])
    return ids[first], table.truth_ids[order[first]]


def _objects_of(fragments: Ids, ids: Ids, objects: Ids) -> Ids:
    if not len(ids):
        return np.zeros(len(fragments), np.uint64)
    place = np.minimum(np.searchsorted(ids, fragments), len(ids) - 1)
    return np.where(ids[place] == fragments, objects[place], np.uint64(0))


def _overlap(fragments: Path, truth: str) -> Contingency:
    found, true = open_volume(fragments), open_volume(truth, kind="labels")
    start = common_box(found, true).start
    return add(
        contingency(
            true.read(cell.write.shift(start)).astype(np.uint64),
            found.read(cell.write),
            ignore_truth=(0, *SPECIAL),
        ).without(segments=[0])
        for cell in blocks(found.info.box, CELL)
    )
