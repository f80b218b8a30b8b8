"""Contingency tables of volumes of any size: counted block by block, the same numbers as at once.

::

    truth, segmentation (or fragments) ─► overlap/<rule>/z_y_x.parquet: truth, segment, voxels ─► sum: one table

Counts are exact integers and add up in any order. Counted against *fragments*, one pass over the voxels serves
every threshold: a look-up table merges columns (`Contingency.relabelled`).

A rule says which voxels count:

========  =====================================================================================================
known     truth is known: not 0, none of CREMI's special ids; in the mask
inner     of those, further than `border_vox` from a border of the truth
cremi     as CREMI counts: all but TRANSPARENT, further than 25 nm from borders in the section (`metrics.cremi`)
whole     all in the mask, background included: for matching, where a segment on background is an error
========  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Vec, blocks
from emloom.io.checks import require_labels
from emloom.io.open import open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import Volume, borrow
from emloom.metrics.contingency import Contingency, add, contingency
from emloom.metrics.cremi import BORDER_NM, TRANSPARENT, cremi_border_mask
from emloom.metrics.overlap import border_mask
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.lattice import common_box
from emloom.tasks.qcmask import open_usable, source_of

Rule = Literal["known", "inner", "cremi", "whole"]

SPECIAL = (TRANSPARENT, TRANSPARENT - 1, TRANSPARENT - 2)
"""CREMI's ids for unlabelled, ignored and outside."""

CELL: Vec = (128, 512, 512)
"""Voxels counted at once: some 0.7 GB with labels of 64 bits."""


@dataclass(frozen=True)
class Compared:
    """What is compared, and how.

    Attributes:
        truth: path of the true ids.
        segmentation: path of the segments or fragments; its box lies in that of the truth.
        mask: path of a volume that is not 0 where voxels count.
        border_vox: width of the border that the rule `inner` leaves out, in voxels.
        border_in_plane: whether that border is seen within sections only.
        rules: which tables are counted.
    """

    truth: str
    segmentation: str
    mask: str | None = None
    border_vox: int = 1
    border_in_plane: bool = False
    rules: tuple[Rule, ...] = ("known",)

    @property
    def paths(self) -> dict[str, str | None]:
        """The inputs by name."""
        return {"truth": self.truth, "segmentation": self.segmentation, "mask": source_of(self.mask)}

    @property
    def n_voxels(self) -> int:
        """Voxels of the segmentation."""
        return prod(open_volume(self.segmentation, kind="labels").info.shape)

    def volumes(self) -> tuple[Volume, Volume, Volume | None]:
        """Open truth, segmentation and mask."""
        truth, found = (open_volume(path, kind="labels") for path in (self.truth, self.segmentation))
        for volume in (truth, found):
            require_labels(volume)
        return truth, found, None if self.mask is None else open_usable(self.mask)

    def check(self) -> None:
        """Raise `InputError` where volumes hold no labels, or do not lie on one grid."""
        truth, found, mask = self.volumes()
        common_box(found, truth)
        if mask is not None:
            common_box(found, mask)

    def cells(self) -> list[Block]:
        """Return the blocks of the segmentation."""
        return blocks(open_volume(self.segmentation, kind="labels").info.box, CELL)


@dataclass(frozen=True)
class CountOverlap:
    """Counts the pairs of (truth object, segment) in one block.

    Attributes:
        compared: what and how.
        folder: where the tables go.
        threads: to count with; None: all there are.
    """

    compared: Compared
    folder: Path
    threads: int | None = 1

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write one table per rule."""
        truth, found, mask = self.compared.volumes()
        box = block.write.shift(common_box(found, truth).start)
        segments = borrow(found, block.write)
        usable = np.ones(box.shape, bool)
        if mask is not None:
            usable = borrow(mask, block.write.shift(common_box(found, mask).start)) != 0
        # A border further away than the halo is too far to matter; at the faces of the volume there is none.
        seen = box.grow(self._halo(truth)).intersect(truth.info.box)
        around, own = borrow(truth, seen), box.slices(seen.start)
        objects = np.ascontiguousarray(around[own])
        outputs = []
        for rule in self.compared.rules:
            counted = usable & self._away_from_border(truth, around, rule)[own]
            ignored = {"cremi": (TRANSPARENT,), "whole": ()}.get(rule, (0, *SPECIAL))
            table = contingency(objects, segments, mask=counted, ignore_truth=ignored, threads=self.threads)
            path = table_file(self.folder, rule, block.index)
            write_table(path, {"truth": table.truth_ids, "segment": table.segment_ids, "voxels": table.counts})
            outputs.append(Output.file(self.folder, str(path.relative_to(self.folder))))
        return outputs

    def _halo(self, truth: Volume) -> Vec:
        """Return how far borders are felt by the rules, in voxels (z, y, x)."""
        how = self.compared
        inner = how.border_vox if "inner" in how.rules else 0
        cremi = ceil(BORDER_NM / truth.info.grid.voxel_size_nm[1]) + 1 if "cremi" in how.rules else 0
        return (0 if how.border_in_plane else inner, max(inner, cremi), max(inner, cremi))

    def _away_from_border(self, truth: Volume, objects_ZYX: NDArray[Any], rule: Rule) -> NDArray[np.bool_]:
        how = self.compared
        if rule == "inner" and how.border_vox:
            return border_mask(objects_ZYX, how.border_vox, how.border_in_plane)
        if rule == "cremi":
            return cremi_border_mask(objects_ZYX, truth.info.grid.voxel_size_nm[1])
        return np.ones(objects_ZYX.shape, bool)


def table_file(folder: Path, rule: Rule, index: Vec) -> Path:
    """Return the file of a block's table."""
    return folder / "overlap" / rule / f"{name_of(index)}.parquet"


def read_overlap(folder: Path, rule: Rule, cells: Iterable[Block]) -> Contingency:
    """Return the table of all blocks."""
    return add(_read(table_file(folder, rule, cell.index)) for cell in cells)


def _read(path: Path) -> Contingency:
    table = read_table(path)
    return Contingency(table["truth"], table["segment"], table["voxels"])
