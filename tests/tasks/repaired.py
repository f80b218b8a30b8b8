"""A folder as `emloom repair` leaves it but for its page: a section that was missing, one that was torn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Grid
from emloom.geometry.planar import IDENTITY, Pieces, Shift
from emloom.geometry.stackmap import Frame, StackMap
from emloom.io.stackmaps import write_stackmap
from tests.tasks.aligned import GRID, store, write_rows

OPEN_PX, LEFT_PX, RIGHT_PX = 16, 6, 5


def torn(section: NDArray[Any], at: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return a section whose halves were pulled apart around column `at`, and its parts."""
    half = OPEN_PX // 2
    out, parts = np.zeros_like(section), np.zeros(section.shape, np.uint8)
    out[:, : at - half], parts[:, : at - half] = section[:, half:at], 1
    out[:, at + half :], parts[:, at + half :] = section[:, at : -half or None], 2
    return out, parts


def repaired_folder(
    folder: Path,
    tissue: NDArray[Any],
    *,
    missing: tuple[int, ...] = (3,),
    cracked: tuple[int, ...] = (7,),
    left: tuple[int, ...] = (),
    grid: Grid = GRID,
) -> None:
    """Write raw.zarr of the damaged stack beside the folder, and what is in the folder."""
    folder.mkdir(parents=True)
    n, _, columns = tissue.shape
    at = columns // 2
    raw, after, invented = tissue.copy(), tissue.copy(), np.zeros(tissue.shape, np.uint8)
    maps: list[Any] = [IDENTITY] * n
    table = [
        {
            "z": z,
            "home": z,
            "state": "measured",
            "reason": "",
            "before": -1,
            "after": -1,
            "note": "",
            "invented": 0.0,
        }
        for z in range(n)
    ]
    for z in (*missing, *left):
        raw[z], invented[z] = 0, 2 if z in missing else 4
        around = (z - 1) % n, (z + 1) % n
        after[z] = np.rint((tissue[around[0]].astype(float) + tissue[around[1]]) / 2) if z in missing else 0
        state = "between" if z in missing else "left"
        table[z] |= {
            "state": state, "reason": "blank", "before": around[0], "after": around[1], "invented": 1.0,
            "note": "" if z in missing else "one of 4 in a row, more than 3: left as it is",
        }  # fmt: skip
    for z in cracked:
        raw[z], parts = torn(tissue[z], at)
        maps[z] = Pieces(parts, (Shift(0, LEFT_PX), Shift(0, -RIGHT_PX)))
        gap = np.s_[at - OPEN_PX // 2 + LEFT_PX : at + OPEN_PX // 2 - RIGHT_PX]
        after[z], invented[z] = 0, 0
        after[z][:, LEFT_PX : gap.start] = raw[z][:, : gap.start - LEFT_PX]
        after[z][:, gap.stop : columns - RIGHT_PX] = raw[z][:, gap.stop + RIGHT_PX :]
        after[z][:, gap], invented[z][:, gap] = tissue[z - 1][:, gap], 3
        share = float((invented[z] > 0).mean())
        table[z] |= {"state": "mended", "reason": "crack", "before": z - 1, "after": z + 1, "invented": share}
    store(folder.parent / "raw.zarr", raw, grid)
    store(folder / "raw.zarr", after, grid)
    store(folder / "invented.zarr", invented, grid)
    write_stackmap(folder / "map", StackMap.of(Frame(raw.shape, grid), Frame(raw.shape, grid), maps))
    write_rows(folder / "sections.csv", table)
    summary = {
        "raw": str(folder.parent / "raw.zarr"),
        "invented_share": float((invented > 0).mean()),
        "notes": ["sections were looked for in the stack itself: no qc was given"],
    }
    (folder / "repair.json").write_text(json.dumps(summary))
