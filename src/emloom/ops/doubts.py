"""How likely each choice of a segmentation is wrong, judged without the truth: 0 (sure) to 255 (surely wrong).

A choice (`emloom.ops.mergechoices`) has a margin: how far its score lies from the threshold, on the side that was
chosen. Where another prediction is known, its score lies elsewhere, perhaps beyond the threshold; then the margin
is the mean of the two::

            apart                 threshold             merged
    0 ────────x───────────────────────|──────────x─────────────── 1       x  score          margin = distance
                                                                            negative where the other prediction
    chance of being wrong = 1 / (1 + exp(margin / SCALE))                   would have chosen otherwise

At the threshold nothing speaks for either side, hence one half. A margin in favour of a choice counts by the
part of the contact that lies in good data: of one that lies in bad data altogether, the affinities say nothing.

`SCALE` is chosen by hand. It hardly changes which place comes first, but how many errors are expected; what came
of both on held-out boxes is in `docs/confidence.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Vec
from emloom.ops.contacts import Contacts
from emloom.ops.mergechoices import Choices

Counts = NDArray[np.int64]
Doubts = NDArray[np.uint8]

SCALE = 0.06
"""Affinity by which the odds of a choice fall to 1 / e."""
THIN = 0.3
"""A neck: contacts below this times the 2/3 power of the voxels of the smaller side. A cube's face has 1."""
GIANT = 0.25
"""A segment of more than this part of all segmented voxels is called a giant."""
_FACES = (("z0", 0), ("z1", 0), ("y0", 1), ("y1", 1), ("x0", 2), ("x1", 2))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of each of D choices beside its score.

    Attributes:
        total: int64 [D], sum of the affinities (0 to 255) of its contacts.
        total_second: int64 [D], the same of another prediction; None without one.
        bad: int64 [D], its contacts of which a voxel is bad data.
    """

    total: Counts
    total_second: Counts | None
    bad: Counts


def second_scores(choices: Choices, evidence: Evidence) -> NDArray[np.float64] | None:
    """Return the score of each choice in the other prediction: moved as far as the mean moves, 0 to 1."""
    if evidence.total_second is None:
        return None
    moved = (evidence.total_second - evidence.total) / (255 * choices.contacts)
    return np.clip(choices.scores + moved, 0.0, 1.0)


def doubts_of(choices: Choices, threshold: float, evidence: Evidence) -> Doubts:
    """Return the doubt in every choice, uint8 [D]; see the module."""
    side = np.where(choices.merged, 1.0, -1.0)
    margin = side * (choices.scores - threshold)
    second = second_scores(choices, evidence)
    if second is not None:
        margin = (margin + side * (second - threshold)) / 2
    seen = 1 - evidence.bad / choices.contacts
    chance = 1 / (1 + np.exp(np.clip(np.where(margin > 0, margin * seen, margin) / SCALE, -50, 50)))
    return np.rint(255 * chance).astype(np.uint8)


def tile_worst(contacts: Contacts, doubts: Doubts, tile: Vec, start: Vec, shape: Vec) -> Doubts:
    """Return the largest doubt among the contacts in every tile, uint8 [Z, Y, X] tiles; 0 where there is none.

    Args:
        contacts: K of them, all in the tiles.
        doubts: uint8 [K].
        tile: voxels of a tile (z, y, x).
        start: the first tile, counted in tiles.
        shape: how many tiles.
    """
    worst = np.zeros(shape, np.uint8)
    z, y, x = (contacts.p // np.array(tile) - np.array(start)).T
    np.maximum.at(worst, (z, y, x), doubts)
    return worst


def tile_counts(marked_ZYX: NDArray[Any], tile: Vec) -> Counts:
    """Return how many voxels are not 0 in every tile of an array that begins with one, int64 [Z, Y, X] tiles."""
    counts = (np.asarray(marked_ZYX) != 0).astype(np.int64)
    for axis, size in enumerate(tile):
        counts = np.add.reduceat(counts, np.arange(0, counts.shape[axis], size), axis=axis)
    found: Counts = counts
    return found


def is_neck(choices: Choices) -> NDArray[np.bool_]:
    """Return which merges joined two bodies by a contact much smaller than the face of either."""
    smaller = np.minimum(choices.size_a, choices.size_b).astype(np.float64)
    thin: NDArray[np.bool_] = choices.merged & (choices.contacts < THIN * smaller ** (2 / 3))
    return thin


def segment_table(
    choices: Choices,
    doubts: Doubts,
    nodes: Mapping[str, NDArray[Any]],
    segments: NDArray[np.uint64],
    shape: Vec,
    rim: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """Return what is odd about every segment, a row for each, by id.

    Args:
        choices: those of the segmentation.
        doubts: in each of them.
        nodes: statistics of all fragments (`ops.nodes`), by id.
        segments: uint64 [fragments], the segment of each; 0 where it was dropped.
        shape: of the volume.
        rim: bool [fragments], whether each touches a place that the sections do not reach.

    Returns:
        `segment`, `voxels`, `fragments`, `faces` (how many faces of the volume it touches, one more where the
        sections end before), `orphan` (none),
        `ends` (one), `giant`, `against` (contacts inside it that its fragments alone would not have merged),
        `necks`, `confidence` (255 less the largest doubt in a choice about it), and its bounding box z0 .. x1.
    """
    kept = np.flatnonzero(segments != 0)
    ids, row = np.unique(segments[kept], return_inverse=True)
    k = len(ids)
    table: dict[str, NDArray[Any]] = {"segment": ids, "voxels": np.zeros(k, np.int64)}
    np.add.at(table["voxels"], row, nodes["size"][kept])
    table["fragments"] = np.bincount(row, minlength=k).astype(np.int64)
    box = {name: np.full(k, np.iinfo(np.int64).max if name[1] == "0" else 0) for name, _ in _FACES}
    for name, values in box.items():
        (np.minimum if name[1] == "0" else np.maximum).at(values, row, nodes[name][kept])
    faces = np.zeros(k, np.int64)
    for name, axis in _FACES:
        faces += box[name] == (0 if name[1] == "0" else shape[axis])
    faces += np.bincount(row, weights=rim[kept], minlength=k) > 0
    table |= {"faces": faces, "orphan": faces == 0, "ends": faces == 1}
    table["giant"] = table["voxels"] > GIANT * max(1, int(table["voxels"].sum()))
    inside = np.searchsorted(ids, choices.segment_a)
    against, necks = np.zeros(k, np.int64), np.zeros(k, np.int64)
    np.add.at(against, inside[choices.merged], choices.against[choices.merged])
    np.add.at(necks, inside, is_neck(choices))
    worst = np.zeros(k, np.uint8)
    for side in (choices.segment_a, choices.segment_b):
        np.maximum.at(worst, np.searchsorted(ids, side), doubts)
    return table | {"against": against, "necks": necks, "confidence": 255 - worst, **box}
