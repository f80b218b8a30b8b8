"""Painting the map of defects onto the grid of the raw: the mask that later stages obey.

Chunks without a defect are not stored, so the mask of a clean stack of any size takes no room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emloom.geometry import Block, blocks
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.run.stage import Output
from emloom.tasks.qcmap import MAP
from emloom.tasks.qcmask import MASK
from emloom.tasks.qcpatch import DEPTH, Stack
from emloom.tasks.qcspec import CODES, Defect


@dataclass(frozen=True)
class PaintMask:
    """Paints one block of the mask.

    Attributes:
        stack: what was measured.
        folder: of the result.
        masked: defects that are painted.
        tissue: path of a mask that is 0 where nothing is looked at.
    """

    stack: Stack
    folder: Path
    masked: tuple[Defect, ...]
    tissue: str | None

    def cells(self) -> list[Block]:
        """Return the blocks."""
        return blocks(self.stack.info.box, (DEPTH, self.stack.patch_vox, self.stack.patch_vox))

    def make(self) -> None:
        """Make the mask, empty, where it is not there yet."""
        if not (self.folder / MASK).exists():
            info, side = self.stack.info, self.stack.patch_vox // 4
            words = VolumeInfo(info.shape, np.dtype(np.uint8), info.grid, kind="mask", chunks=(DEPTH, side, side))
            create_volume(self.folder / MASK, words)

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write a block of the mask."""
        box, side = block.write, self.stack.tile_vox
        code = open_volume(self.folder / MAP / "code").read(self.stack.lattice(box))
        kept = np.zeros(256, np.uint8)
        for name in self.masked:
            kept[CODES[name]] = CODES[name]
        array = kept[code].repeat(side, 1).repeat(side, 2)[:, : box.shape[1], : box.shape[2]]
        if self.tissue is not None:
            outside = open_volume(self.tissue, kind="mask").read(box) == 0
            array = np.where(outside, np.uint8(CODES["outside"]), array)
        array = np.ascontiguousarray(array)
        if array.any():
            open_volume(self.folder / MASK, writable=True).write(box, array)
        return [Output.voxels(MASK, box, array)]
