"""Writing a repaired stack block by block: sections that were kept, those that were made, and which is which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box
from emloom.io.files import write_text_atomic
from emloom.io.open import create_volume, open_volume
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.lattice import chunk_within
from emloom.tasks.qcmask import INVENTED_VOLUME
from emloom.tasks.repairfill import made_array
from emloom.tasks.repairscene import RepairScene
from emloom.tasks.repairspec import BEYOND, INVENTED, LEFT, MEASURED

RAW, LABELS, COUNTS = "raw.zarr", "labels.zarr", "counts"


@dataclass(frozen=True)
class WriteCell:
    """Writes one block of the output.

    Attributes:
        scene: the inputs.
        folder: of the result.
        made: sections that were made.
    """

    scene: RepairScene
    folder: Path
    made: frozenset[int]

    def make(self) -> None:
        """Make the volumes, empty, where they are not there yet."""
        chunks = chunk_within(self.scene.job.cell_shape_vox)
        raw = self.scene.info.with_(chunks=chunks, kind="raw", source="raw")
        infos = {RAW: raw, INVENTED_VOLUME: raw.with_(dtype=np.dtype(np.uint8), kind="mask")}
        if self.scene.labels is not None:
            infos[LABELS] = raw.with_(dtype=self.scene.labels.info.dtype, kind="labels")
        for name, info in infos.items():
            if not (self.folder / name).exists():
                create_volume(self.folder / name, info)

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the voxels of a block, and per section how many have which code."""
        box = block.write
        arrays = {RAW: self._with(self.scene.raw.read(box), box, "grey")}
        arrays[INVENTED_VOLUME] = self._with(self._kept(box), box, "invented")
        if self.scene.labels is not None:
            arrays[LABELS] = self._with(self.scene.labels.read(box), box, "labels")
        out = []
        for name, array in arrays.items():
            open_volume(self.folder / name, writable=True).write(box, array)
            out.append(Output.voxels(name, box, array))
        counts = [np.bincount(s.ravel(), minlength=len(INVENTED)).tolist() for s in arrays[INVENTED_VOLUME]]
        place = f"{COUNTS}/{name_of(block.index)}.json"
        write_text_atomic(self.folder / place, json.dumps({"z": box.start[0], "counts": counts}))
        return [*out, Output.file(self.folder, place)]

    def _with(self, array: NDArray[Any], box: Box, what: str) -> NDArray[Any]:
        """Put the sections that were made into a block."""
        _, rows, columns = box.slices()
        for k in range(box.shape[0]):
            if box.start[0] + k in self.made:
                array[k] = made_array(self.folder, box.start[0] + k, what)[rows, columns]
        return array

    def _kept(self, box: Box) -> NDArray[np.uint8]:
        """Return codes of sections that are kept: what quality control calls bad in them stays so."""
        found = self.scene.codes(box)
        codes = np.zeros(box.shape, np.uint8)
        if found is not None:
            codes[found != 0] = LEFT
        for z in self.scene.job.sections.good:
            if box.start[0] <= z < box.stop[0]:
                codes[z - box.start[0]] = MEASURED
        codes[~self.scene.reached(box)] = BEYOND
        return codes


def read_counts(folder: Path, blocks: Sequence[Block], n: int) -> NDArray[np.int64]:
    """Return how many voxels of every section have which code, int64 [Z, codes]."""
    out = np.zeros((n, len(INVENTED)), np.int64)
    for block in blocks:
        told = json.loads((folder / COUNTS / f"{name_of(block.index)}.json").read_text(encoding="utf-8"))
        counts = np.array(told["counts"], np.int64)
        out[told["z"] : told["z"] + len(counts)] += counts
    return out
