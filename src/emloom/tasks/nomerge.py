"""Voxels of segments in a region that they must not enter: counted block by block, for the run lengths.

The region is what no traced neurite is: other tissue, a lumen, the nuclei of glia. Without it, a merge with
something that nobody traced goes unseen (`emloom.metrics.runlength`). Counted against *fragments*, one pass serves
every threshold: ``table.relabelled(*lut)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emloom.geometry import Block
from emloom.io.checks import require_labels
from emloom.io.open import open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import Volume, borrow
from emloom.metrics.contingency import Contingency, add, contingency
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.lattice import common_box


@dataclass(frozen=True)
class CountNoMerge:
    """Counts the voxels of every segment of one block that lie in the region.

    Attributes:
        labels: path of the segments or fragments.
        mask: path of a volume that is not 0 in the region; the labels' box lies in its box.
        folder: where the tables go.
    """

    labels: str
    mask: str
    folder: Path

    def volumes(self) -> tuple[Volume, Volume]:
        """Open labels and mask."""
        return open_volume(self.labels, kind="labels"), open_volume(self.mask, kind="mask")

    def check(self) -> None:
        """Raise `InputError` where the labels are none, or do not lie on the grid of the mask."""
        labels, mask = self.volumes()
        require_labels(labels)
        common_box(labels, mask)

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the table of a block."""
        labels, mask = self.volumes()
        region = borrow(mask, block.write.shift(common_box(labels, mask).start)) != 0
        table = add([])
        if region.any():
            table = contingency(region.astype(np.uint8), borrow(labels, block.write)).without(segments=[0])
        path = self._file(block)
        write_table(path, {"segment": table.segment_ids, "voxels": table.counts})
        return [Output.file(self.folder, str(path.relative_to(self.folder)))]

    def read(self, blocks: Iterable[Block]) -> Contingency:
        """Return the table of all blocks: truth 1, the region, and the segments in it."""
        tables = [read_table(self._file(block)) for block in blocks]
        segments, voxels = (np.concatenate([table[name] for table in tables]) for name in ("segment", "voxels"))
        return Contingency.from_rows(np.ones(len(segments), np.uint64), segments, voxels)

    def _file(self, block: Block) -> Path:
        return self.folder / "no-merge" / f"{name_of(block.index)}.parquet"
