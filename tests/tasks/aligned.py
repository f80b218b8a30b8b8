"""A folder as `emloom align` leaves it but for its page, of a stack whose sections were moved by known pixels."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Grid
from emloom.geometry.canvas import laid_out
from emloom.geometry.planar import PlanarMap, Shift
from emloom.geometry.stackmap import Frame, StackMap
from emloom.io.open import create_volume
from emloom.io.stackmaps import write_stackmap
from emloom.io.volume import VolumeInfo

GRID = Grid((40.0, 8.0, 8.0), (120.0, 16.0, 24.0))


def store(path: Path, array: NDArray[Any], grid: Grid = GRID, kind: str = "raw") -> None:
    depth, *rest = array.shape
    chunks = (min(depth, 8), *(min(n, 64) for n in rest))
    info = VolumeInfo(array.shape, array.dtype, grid, kind=kind, chunks=chunks)  # type: ignore[arg-type]
    create_volume(path, info).write(info.box, array)


def moved(section: NDArray[Any], map_: PlanarMap, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a section where a map takes it, by nearest pixels; slow and obvious."""
    y, x = np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij")
    there = np.floor(map_.inverse()(np.column_stack([y.ravel(), x.ravel()]))).astype(int)
    inside = ((there >= 0) & (there < section.shape)).all(axis=1)
    out = np.zeros(shape, section.dtype)
    out.ravel()[inside] = section[tuple(there[inside].T)]
    return out


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def aligned_folder(
    folder: Path,
    tissue: NDArray[Any],
    planted: NDArray[Any],
    *,
    bad: tuple[int, ...] = (),
    more: dict[str, list[float]] | None = None,
    maps: list[PlanarMap] | None = None,
    grid: Grid = GRID,
) -> StackMap:
    """Write raw.zarr of the damaged stack beside the folder, and what is in the folder.

    Args:
        folder: to be made.
        tissue: as it lay before the damage.
        planted: (y, x) pixels by which sections of the raw were moved, [Z, 2].
        bad: sections without contents.
        more: further columns of the table.
        maps: of the sections, instead of the shifts back.
        grid: of the raw.
    """
    folder.mkdir(parents=True)
    raw = np.stack([moved(s, Shift(*t), s.shape) for s, t in zip(tissue, planted.tolist(), strict=True)])
    raw[list(bad)] = 0
    store(folder.parent / "raw.zarr", raw, grid)
    found = laid_out(Frame(raw.shape, grid), maps or [Shift(-y, -x) for y, x in planted.tolist()])
    after = np.stack([moved(raw[z], found.map(z), found.target.shape[1:]) for z in range(len(raw))])
    store(folder / "raw.zarr", after, found.target.grid)
    write_stackmap(folder / "map", found)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for z, (y, x) in enumerate(planted.tolist()):
        known = z not in bad
        rows.append({
            "z": z, "home": z, "bad": int(not known), "reason": "" if known else "blank",
            "shift_y": -y, "shift_x": -x, "links": 6 if known else 0,
            "residual_px": round(float(rng.uniform(0.05, 0.4)), 3) if known else "",
            "residual_p95_px": round(float(rng.uniform(0.4, 0.9)), 3) if known else "",
            "confidence": 0.9 if known else "",
            **{name: values[z] for name, values in (more or {}).items()},
        })  # fmt: skip
    write_rows(folder / "sections.csv", rows)
    summary = {
        "raw": str(folder.parent / "raw.zarr"),
        "model": {"kind": "shift", "subpixel": False},
        "reference": len(raw) // 2,
        "drift": 40,
        "notes": [f"section {z} is blank: it lies where its neighbours are" for z in bad],
        "shape_before": list(raw.shape),
        "shape_after": list(after.shape),
        "seconds": 12.4,
    }
    (folder / "align.json").write_text(json.dumps(summary))
    return found
