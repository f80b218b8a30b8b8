"""`emloom align`: lay the sections of a stack on each other; any size, block by block.

::

    links/, flows/, meshes/     what was measured of pairs of sections   (`alignlinks`, `alignflows`, `alignmesh`)
    map/                        where every section goes: a stack map    (`alignfound`, `io.stackmaps`)
    raw.zarr                    the stack, moved; mirrored where a section does not reach
    outside.zarr                1 where it does not, else 0: the folder is a mask
    sections.csv, sections.parquet, align.json, report.html, provenance.json

Columns of sections.csv: `z` in the result, `home` in the raw; `bad` 1 and `reason` where a section could not be
placed by what it shows; `shift_y`, `shift_x` (px) of its middle; `links` that were believed, `residual_px` and
`residual_p95_px` between what they say and what was done, `confidence` (deviations of the correlation; strangers
have 3 to 4.5); of affine maps `scale`, `rotation_deg`, `shear`; of meshes `bend_px`, the largest displacement.

The folder appears when it is whole. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from emloom.geometry import Block, blocks
from emloom.geometry.stackmap import StackMap
from emloom.io.files import write_text_atomic
from emloom.io.open import create_volume, open_volume
from emloom.io.room import require_room
from emloom.io.stackmaps import read_stackmap, write_stackmap
from emloom.io.tables import write_csv, write_table
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.stage import Output
from emloom.run.workspace import Workspace
from emloom.tasks.alignfound import find
from emloom.tasks.alignline import Found, Line, OnBlock
from emloom.tasks.alignreport import write_align_report
from emloom.tasks.alignsource import Source
from emloom.tasks.alignspec import AlignJob, TableModel
from emloom.tasks.lattice import chunk_within
from emloom.tasks.movescene import Footprint, MoveScene
from emloom.tasks.movestack import require_fits
from emloom.tasks.qcmask import ALIGNED, OUTSIDE, source_of

FORMAT = 2
RAW, MAP = "raw.zarr", "map"


@dataclass(frozen=True)
class Render:
    """Makes one block of the aligned raw; a small value that travels to workers.

    Attributes:
        source: the stack.
        folder: of the result, with its map.
        outside: grey value where a section does not reach; `symmetric`: it is mirrored there.
    """

    source: Source
    folder: Path
    outside: int | str

    def __call__(self, block: Block) -> list[Output]:
        """Write the block's voxels."""
        mirror = isinstance(self.outside, str)
        fill = 0 if isinstance(self.outside, str) else self.outside
        stackmap = read_stackmap(self.folder / MAP)
        scene = MoveScene.of(self.source.volume, stackmap, "linear", fill=fill, symmetric=mirror)
        beyond = Footprint(stackmap).read(block.write) ^ 1
        outputs = []
        for name, values in ((RAW, scene.read(block.write)), (OUTSIDE, beyond)):
            open_volume(self.folder / name, writable=True).write(block.write, values)
            outputs.append(Output.voxels(name, block.write, values))
        return outputs


def align(
    job: AlignJob,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
    discard: bool = False,
    repair: bool = False,
) -> Path:
    """Align a stack into a folder that appears when it is whole; go on where a crash stopped.

    Args:
        job: what to align, and how.
        executor: where blocks run; default in this process.
        on_block: called with (stage, blocks done, blocks in all).
        discard: delete the unfinished or finished result of another job in the output's place.
        repair: go on with a finished result, too: blocks whose markers were removed are made again.

    Returns:
        Path of the report.

    Raises:
        InputError: the raw does not open, has channels, one section or oblong pixels; a table does not fit it; no
            two sections resemble each other; the output exists or belongs to another job.
    """
    started = time.perf_counter()
    source = Source(job.raw, job.voxel_size_nm, job.qc)
    info = source.volume.info
    _ = source.mask
    if not isinstance(job.outside, str):
        require_fits(job.outside, info)
    space = Workspace(job.output)
    table = job.model if isinstance(job.model, TableModel) else None
    paths = {
        "raw": job.raw,
        "qc": source_of(job.qc),
        "table": table.path if table else None,
        "box_of": table.box_of if table else None,
    }
    if not space.folder.exists():
        seen = info.with_(dtype=np.dtype(np.uint8), kind="mask")
        require_room(space.draft, [info.with_(kind="raw"), seen], "align a part of it (emloom crop)")
    inputs = space.claim("align", job, paths, discard)
    if space.finished and not repair:
        return space.output / "report.html"
    folder = space.folder.absolute()
    key = key_of(FORMAT, job.model_dump(mode="json", exclude={"output"}), inputs)
    line = Line(job, source, folder, key, executor or Serial(), on_block)
    found, stackmap = find(line)
    write_stackmap(folder / MAP, stackmap, {"raw": job.raw, "inputs": inputs, **job.to_dict()["model"]})
    target = stackmap.target
    chunks = chunk_within(job.cell_shape_vox)
    out = info.with_(shape=target.shape, grid=target.grid, chunks=chunks, kind="raw", source=job.output)
    for name, what in ((RAW, out), (OUTSIDE, out.with_(dtype=np.dtype(np.uint8), kind="mask"))):
        if not (folder / name).exists():
            create_volume(folder / name, what)
    work = Render(source, folder, job.outside)
    line.run("render", key_of(key, asdict(work) | {"folder": None}), blocks(target.box, job.cell_shape_vox), work)
    write_table(folder / "sections.parquet", found.table)
    write_csv(folder / "sections.csv", found.table)
    seconds = time.perf_counter() - started
    write_provenance(folder / "provenance.json", job.to_dict(), inputs, {"align": seconds})
    write_text_atomic(folder / ALIGNED, json.dumps(_summary(job, found, stackmap, seconds), indent=2))
    write_align_report(folder)
    space.finish()
    return space.output / "report.html"


def _summary(job: AlignJob, found: Found, stackmap: StackMap, seconds: float) -> dict[str, Any]:
    table = found.table
    residual, p95 = (_median(table[name]) for name in ("residual_px", "residual_p95_px"))
    shift = np.hypot(table["shift_y"], table["shift_x"])
    return {
        "raw": str(Path(job.raw).absolute()) if "://" not in job.raw else job.raw,
        "voxel_size_nm": job.voxel_size_nm,
        "model": job.model.kind,
        "drift": job.links.drift_sections,
        "notes": list(found.notes),
        "shape_before": list(stackmap.source.shape),
        "shape_after": list(stackmap.target.shape),
        "n_bad": int(table["bad"].sum()),
        "residual_px": residual,
        "residual_p95_px": p95,
        "largest_shift_px": float(shift.max()),
        "seconds": seconds,
        **found.facts,
    }


def _median(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    middle = float(np.median(known)) if known.size else float("nan")
    return middle if isfinite(middle) else None
