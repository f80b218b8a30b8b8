"""From the tables of patches to one row per section: whole numbers added up, then divided once.

A section's *row* holds what rules look at:

===========  ==============================================================================================
void         part of it that was never recorded
saturated    part of it, beside void, with the smallest or largest value of its type
median       grey level; `contrast` is the distance of its 5th and 95th percentiles, both beside void
sharpness    fine over coarse structure, without noise; of tiles without void (`emloom.ops.sections`)
stripes      logarithm (base 2) of the strength of lines along rows over that of lines along columns
crack        part of it; and `fold`; `seams`: tiles that one crosses
like_next    correlation with the next section after the shift that helps most; `like_next_but_one`
shift_y      of the next section, nm; and `shift_x`: medians over patches
differing    part of the voxels that differ from those of the next section
===========  ==============================================================================================

NaN where something is not defined, say without a next section.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box, blocks
from emloom.io.open import open_volume
from emloom.io.tables import read_table, write_table
from emloom.ops.histogram import percentile
from emloom.ops.sections import level_values
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.qcmeasure import table_path, tiles_path
from emloom.tasks.qcpatch import CHANNELS, DEPTH, Stack

STAGE = "sections"
F64 = NDArray[np.float64]
COLUMNS = (
    "void", "saturated", "median", "contrast", "sharpness", "stripes", "crack", "fold", "seams",
    "like_next", "like_next_but_one", "shift_y", "shift_x", "differing",
)  # fmt: skip


@dataclass(frozen=True)
class AddUp:
    """Adds up the patches of some sections.

    Attributes:
        stack: what was measured.
        folder: of the result.
    """

    stack: Stack
    folder: Path

    def cells(self) -> list[Block]:
        """Return the blocks: whole sections."""
        _, y, x = self.stack.info.shape
        return blocks(self.stack.info.box, (DEPTH, y, x))

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the rows of some sections."""
        box = block.write
        parts = [cell.index for cell in blocks(box, (DEPTH, self.stack.patch_vox, self.stack.patch_vox))]
        where = range(box.start[0], box.stop[0])
        sums = _summed([read_table(table_path(self.folder, index)).columns for index in parts], where)
        counts = [read_table(table_path(self.folder, index, "levels")).columns for index in parts]
        levels = _levels(counts, where, level_values(self.stack.info.dtype).size)
        patches = [read_table(table_path(self.folder, index, "patches")).columns for index in parts]
        pairs = {name: np.concatenate([table[name] for table in patches]) for name in patches[0]}
        rows = [
            self._row(z, sums[z], levels[z], {name: v[pairs["z"] == z] for name, v in pairs.items()})
            for z in where
        ]
        path = self.folder / STAGE / f"{name_of(block.index)}.parquet"
        table = {name: np.array([row[name] for row in rows], np.float64) for name in COLUMNS}
        write_table(path, {"z": np.array(where), **table})
        return [Output.file(self.folder, str(path.relative_to(self.folder)))]

    def _row(
        self, z: int, sums: dict[str, int], levels: NDArray[np.int64], pairs: dict[str, Any]
    ) -> dict[str, float]:
        n, seen = sums["n"], int(levels.sum())
        row = dict.fromkeys(COLUMNS, nan) | {"void": sums["void"] / n}
        if seen:
            values = level_values(self.stack.info.dtype)
            low, middle, high = (int(percentile(values, levels, p)) for p in (5, 50, 95))
            row |= {"median": float(middle), "contrast": float(high - low)}
            row["saturated"] = int(levels[0] + levels[-1]) / n
        row["sharpness"] = _sharpness(sums)
        _, rows, columns = self.stack.info.shape
        if sums["row_steps"] and sums["column_steps"]:
            row["stripes"] = log2(sums["row_steps"] / sums["column_steps"] * (rows / columns))
        if sums["differing"] >= 0:
            row["differing"] = sums["differing"] / n
        return row | self._of_tiles(z) | _of_pairs(pairs, self.stack)

    def _of_tiles(self, z: int) -> dict[str, float]:
        lattice = self.stack.lattice(self.stack.info.box).shape
        tiles = open_volume(tiles_path(self.folder)).read(Box((z, 0, 0), (1, *lattice[1:])))
        words = {name: tiles[CHANNELS.index(name)].astype(np.float64) for name in ("crack", "fold", "seam")}
        return {
            "crack": float(words["crack"].mean()),
            "fold": float(words["fold"].mean()),
            "seams": float(words["seam"].sum()),
        }


def _sharpness(sums: dict[str, int]) -> float:
    if min(sums[f"pairs_{k}"] for k in (1, 2, 8)) == 0:
        return nan
    one, two, eight = (sums[f"steps_{k}"] / sums[f"pairs_{k}"] for k in (1, 2, 8))
    return (two - one) / (eight - one) if eight > one else nan


def _of_pairs(pairs: dict[str, Any], stack: Stack) -> dict[str, float]:
    out = {}
    for lag, name in ((1, "like_next"), (2, "like_next_but_one")):
        here = (pairs["lag"] == lag) & np.isfinite(pairs["after"])
        if here.any():
            out[name] = float(np.average(pairs["after"][here], weights=pairs["cells"][here]))
        if lag == 1 and here.any():
            out["shift_y"] = float(np.median(pairs["y"][here])) * stack.cell_nm
            out["shift_x"] = float(np.median(pairs["x"][here])) * stack.cell_nm
    return out


def _summed(tables: list[Any], where: range) -> dict[int, dict[str, int]]:
    out: dict[int, dict[str, int]] = {z: {} for z in where}
    for table in tables:
        for k, z in enumerate(table["z"].tolist()):
            for name in table:
                if name != "z":
                    # Python's integers: a section may be as large as it likes.
                    out[z][name] = out[z].get(name, 0) + int(table[name][k])
    return out


def _levels(tables: list[Any], where: range, n: int) -> dict[int, NDArray[np.int64]]:
    out = {z: np.zeros(n, np.int64) for z in where}
    for table in tables:
        for z in where:
            here = table["z"] == z
            out[z][table["level"][here]] += table["count"][here]
    return out


def read_sections(folder: Path, cells: Sequence[Block]) -> dict[str, F64]:
    """Return the rows of all sections, as columns."""
    tables = [read_table(folder / STAGE / f"{name_of(cell.index)}.parquet") for cell in cells]
    return {name: np.concatenate([table[name] for table in tables]) for name in ("z", *COLUMNS)}
