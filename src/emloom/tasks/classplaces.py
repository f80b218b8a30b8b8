"""Where classes are mistaken most: the largest connected pieces of one class that were called one other.

No piece is larger than the confusion it belongs to, and the tables say how many voxels of each confusion a block
holds. So blocks are searched from the one that can hold the largest piece, and as soon as ten pieces are larger
than anything that is left can be, no other block is read::

    most voxels of one confusion, by block      900   700   650 | 120    80     3
    tenth largest piece so far                    -    90   130 |

Pieces are joined through faces, and end at the faces of their block: one that lies in two blocks counts as two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box, Vec
from emloom.geometry.box import add
from emloom.io.open import open_volume
from emloom.tasks.classtable import Judged, classes_in

WORST = 10
"""Largest pieces that are listed and drawn."""

SEARCHED = 100
"""Blocks that are read to find them, at most: an evaluation of any size reads no more after counting."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Connected voxels of one true class that were called another.

    Attributes:
        truth: the true class.
        called: the class that was predicted.
        voxels: how many.
        box: bounding box, in voxels of the prediction.
        inside: bool [Z, Y, X] of that box, where the piece is.
        at: the voxel of the piece whose centre is nearest to its centre of mass, in nm.
        first: its first voxel in z, y, x order.
    """

    truth: int
    called: int
    voxels: int
    box: Box
    inside: NDArray[np.bool_]
    at: Vec
    first: Vec

    @property
    def rank(self) -> tuple[int, Vec]:
        """What pieces are sorted by: the largest first, of equals the one that begins first."""
        return -self.voxels, self.first


@dataclass(frozen=True)
class Largest:
    """The largest pieces of a volume.

    Attributes:
        pieces: `WORST` at most, largest first; those larger than `left` are the largest of all blocks.
        searched: how many blocks were read.
        confused: how many blocks hold an error.
        left: voxels that a piece may have in blocks that were not read and could matter; 0: the list is exact.
    """

    pieces: tuple[Piece, ...]
    searched: int
    confused: int
    left: int


def largest_pieces(
    judged: Judged, cells: Sequence[Block], most_confused: NDArray[np.int64], *, limit: int = SEARCHED
) -> Largest:
    """Return the largest pieces of all blocks, reading few of them.

    Args:
        judged: what was counted, and how.
        cells: its blocks.
        most_confused: int64 [blocks], voxels of the confusion that each holds most of.
        limit: how many blocks are read at most.
    """
    order = np.argsort(-most_confused, kind="stable")[: np.count_nonzero(most_confused)].tolist()
    best: list[Piece] = []
    for searched, place in enumerate(order):
        could_be = int(most_confused[place])
        if len(best) == WORST and could_be < best[-1].voxels:
            return Largest(tuple(best), searched, len(order), 0)
        if searched == limit:
            return Largest(tuple(best), searched, len(order), could_be)
        found = pieces_in(judged, cells[place].write)
        best = sorted([*best, *found], key=lambda piece: piece.rank)[:WORST]
    return Largest(tuple(best), len(order), len(order), 0)


def pieces_in(judged: Judged, box: Box) -> list[Piece]:
    """Return the `WORST` largest pieces of a box of the prediction, largest first.

    Voxels that do not count belong to none.
    """
    truth, known, called = classes_in(judged, box)
    # With at most 255 classes a kind of confusion fits 16 bits; what does not count may hold anything.
    kinds = truth.astype(np.uint16) * np.uint16(judged.n_classes) + called.astype(np.uint16) + np.uint16(1)
    kinds[~known | (truth == called)] = 0
    labels = cc3d.connected_components(kinds, connectivity=6, out_dtype=np.uint32).ravel()
    voxels = np.flatnonzero(labels)
    owners = labels[voxels]
    sizes = np.bincount(owners)
    first = np.zeros(len(sizes), np.int64)
    first[owners[::-1]] = voxels[::-1]
    chosen = [label for label in np.lexsort((first, -sizes))[:WORST].tolist() if sizes[label]]
    spacing = np.array(open_volume(judged.predicted).info.grid.voxel_size_nm)
    pieces = []
    for label in chosen:
        truth_id, called_id = divmod(int(kinds.ravel()[first[label]]) - 1, judged.n_classes)
        places = np.stack(np.unravel_index(voxels[owners == label], box.shape), axis=1)
        pieces.append(_piece(truth_id, called_id, places, box.start, spacing))
    return pieces


def _piece(truth: int, called: int, places: NDArray[np.int64], start: Vec, spacing: NDArray[Any]) -> Piece:
    """Return the piece of some voxels [N, 3] of a block."""
    low, high = places.min(axis=0), places.max(axis=0) + 1
    # Relative to the piece itself, so that rounding is the same in every block it may lie in.
    own = places - low
    inside = np.zeros(high - low, np.bool_)
    inside[tuple(own.T)] = True
    nearest = np.argmin((((own - own.mean(axis=0)) * spacing) ** 2).sum(axis=1))
    box = Box.of(low.tolist(), high.tolist()).shift(start)
    at, first = (add(_vec(place), start) for place in (places[nearest], places[0]))
    return Piece(truth, called, len(places), box, inside, at, first)


def _vec(place: NDArray[np.int64]) -> Vec:
    z, y, x = place.tolist()
    return (z, y, x)
