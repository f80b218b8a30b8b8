"""`emloom repair`: bad sections replaced, torn ones put together, and a record of every voxel that is invented.

::

    qc/             raw            -> where nobody gave one: bad sections and regions (`emloom.tasks.qc`)
    fills/ filled/  raw, qc        -> every section that is made, and the flow it was made along (`repairfill`)
    raw.zarr        raw, filled    -> the repaired stack
    invented.zarr   filled, qc     -> uint8 on its grid: 0 measured, else `repairspec.INVENTED`
    labels.zarr     labels, filled -> where labels were given: ids kept
    map/            StackMap from the original raw: the map of `emloom align`, where it came first, and pieces
    sections.csv    one row per section, see below
    repair.json     last of all data: before it is there, nobody takes the folder for whole (`emloom.tasks.qcmask`)
    report.html     pictures of it (`emloom.tasks.repairreport`)

A section that was replaced keeps itself as its home in the map: predictions on it go back to the bad one.

Columns of `sections.csv`:

========== ==================================================================================================
z          section
state      measured, replaced (a copy of a neighbour), between (interpolated), mended (put together), left (bad,
           and nothing was done)
bad        1 where it is not measured, or mended
reason     words: defects of `emloom qc`, `crack`, `named` by a person, or what the alignment said; empty: good
before     the section before that it was made of, -1: none; and `after`
t          where it lies between them, 0 to 1; NaN where it was not made of two
invented   part of its voxels that is not measured (`invented.zarr` is not 0)
parts      of a torn section; 0: it was not torn
gap        part of the section that was a gap
flow_px    median length of the flow between its neighbours, pixels; NaN: none was needed
note       what a person should know
========== ==================================================================================================

`repair.json` holds `raw`, `shape`, `states` (how many sections of each), `codes` (what `invented.zarr` means),
`invented_voxels` (by code), `invented_share`, `bad` (sections with bad 1) and `notes`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import blocks
from emloom.geometry.planar import IDENTITY
from emloom.geometry.stackmap import StackMap
from emloom.io.files import write_text_atomic
from emloom.io.room import require_room
from emloom.io.stackmaps import read_stackmap, write_stackmap
from emloom.io.tables import write_csv
from emloom.ops.tornparts import parts_of
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Stage
from emloom.run.workspace import Workspace
from emloom.tasks.badsections import Fill, find, listed_in, plan
from emloom.tasks.qc import quality_control
from emloom.tasks.qcmask import REPAIRED, source_of
from emloom.tasks.qcspec import QcSpec
from emloom.tasks.repairfill import MakeSection, Section, read_made, read_move
from emloom.tasks.repairreport import write_repair_report
from emloom.tasks.repairscene import RepairScene, aligned_folder, raw_of
from emloom.tasks.repairspec import INVENTED, MEASURED, RepairJob
from emloom.tasks.repairwrite import WriteCell, read_counts

OnBlock = Callable[[str, int, int], None]
"""Called with (stage, blocks done, blocks in all)."""
_LEAST_GAP = 0.01  # share of a section of one part; less are islands of its rim
MAKE, WRITE, QC = "fills", "repair", "qc"
FORMAT = 2


def repair(
    job: RepairJob,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
    discard: bool = False,
    again: bool = False,
) -> Path:
    """Repair a stack into a folder that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to repair.
        executor: where blocks run; default in this process.
        on_block: called with (stage, blocks done, blocks in all).
        discard: delete the unfinished or finished result of another job in the output's place.
        again: go on with a finished result, too: blocks whose markers were removed are made again.

    Returns:
        The folder.

    Raises:
        InputError: an input is missing or on another grid; sections are named that do not exist; no section is
            good; the output exists or belongs to another job.
    """
    started = time.perf_counter()
    given = RepairScene(job, job.qc)
    require_inputs(given)
    space = Workspace(job.output)
    paths = {"raw": raw_of(job.raw), "qc": source_of(job.qc), "labels": job.labels, "aligned": _map_of(job)}
    if not space.folder.exists():
        invented = given.info.with_(dtype=np.dtype(np.uint8), kind="mask")
        require_room(space.draft, [given.info.with_(kind="raw"), invented], "repair a part of it (emloom crop)")
    inputs = space.claim("repair", job, paths, discard)
    if again or not space.finished:
        run = _Run(job, space.folder.absolute(), executor or Serial(), on_block)
        scene = run.scene()
        fills = planned(scene)
        run.make(scene, fills, inputs)
        seconds = {"repair": time.perf_counter() - started}
        write_provenance(run.folder / "provenance.json", job.to_dict(), inputs, seconds)
        write_repair_report(run.folder)
        space.finish()
    return space.output


def require_inputs(scene: RepairScene) -> None:
    """Open everything, before anything is made; raises `InputError` as `repair`."""
    _ = scene.labels
    if scene.qc is not None or not scene.job.sections.look:
        planned(scene)
    else:
        find(scene.info.shape[0], scene.job.sections, {})
    if scene.qc is None and scene.job.sections.look and scene.info.dtype.kind == "f":
        raise InputError(
            f"{scene.info.source} holds {scene.info.dtype}, in which nothing is looked for: name sections "
            "and pass --no-look, or scale the stack to uint16"
        )


def planned(scene: RepairScene) -> tuple[Fill, ...]:
    """Return what is done with sections that are not kept; raises `InputError` as `repair`."""
    job, aligned = scene.job, aligned_folder(scene.job.raw)
    listed = {} if aligned is None else listed_in(aligned / "sections.csv")
    defects = {z: _without_false_crack(scene, z, names) for z, names in scene.defects().items()}
    found = find(scene.info.shape[0], job.sections, defects, listed)
    return plan(found, job.fill, job.longest_run)


def _without_false_crack(scene: RepairScene, z: int, names: Iterable[str]) -> list[str]:
    """Return defects of a section, without a crack that its picture does not show: a canvas has empty rims."""
    listed = list(names)
    if "crack" not in listed:
        return listed
    try:
        parts = parts_of(scene.grey(z))
    except InputError:  # nothing of it is tissue
        return [name for name in listed if name != "crack"]
    is_torn = parts.count > 1 or float(parts.gap.mean()) > _LEAST_GAP
    return listed if is_torn else [name for name in listed if name != "crack"]


def _map_of(job: RepairJob) -> str | None:
    folder = aligned_folder(job.raw)
    return None if folder is None else str(folder / "map")


@dataclass(frozen=True)
class _Run:
    """The stages of one run."""

    job: RepairJob
    folder: Path
    executor: Executor
    on_block: OnBlock | None

    def stage(self, stage: Stage[Any]) -> None:
        """Run a stage, and say how far it is."""
        tell = None if self.on_block is None else partial(self.on_block, stage.name)
        run_stage(stage, self.folder, self.executor, progress=tell)

    def scene(self) -> RepairScene:
        """Return the inputs with what quality control says, which is asked where nobody gave it."""
        qc = self.job.qc
        if qc is None and self.job.sections.look:
            qc = str(self.folder / QC)
            spec = QcSpec(raw=raw_of(self.job.raw), output=qc, voxel_size_nm=self.job.voxel_size_nm)
            quality_control(spec, self.executor, self.on_block)
        return RepairScene(self.job, qc)

    def make(self, scene: RepairScene, fills: tuple[Fill, ...], inputs: dict[str, str]) -> None:
        """Make sections, volumes, map and tables; `repair.json` last."""
        words = self.job.model_dump(mode="json", exclude={"output"})
        key = key_of(FORMAT, words, inputs, [fill.to_dict() for fill in fills])
        for name in ("fills", "filled", "counts"):
            (self.folder / name).mkdir(exist_ok=True)
        if fills:
            units = [Section(fill) for fill in fills]
            self.stage(Stage(MAKE, key, units, MakeSection(scene, self.folder), bounded=False))
        write = WriteCell(scene, self.folder, frozenset(fill.z for fill in fills))
        write.make()
        cells = blocks(scene.info.box, self.job.cell_shape_vox)
        self.stage(Stage(WRITE, key, cells, write))
        made = {fill.z: read_made(self.folder, fill.z) for fill in fills}
        counts = read_counts(self.folder, cells, scene.info.shape[0])
        self._map(scene, made)
        kept = _notes_on_kept(scene, made)
        write_csv(self.folder / "sections.csv", table_of(made, counts, kept))
        summary = summary_of(self.job, scene, made, counts, kept)
        write_text_atomic(self.folder / REPAIRED, json.dumps(summary, indent=2, allow_nan=False))

    def _map(self, scene: RepairScene, made: dict[int, dict[str, Any]]) -> None:
        n = scene.info.shape[0]
        maps = [read_move(self.folder, made[z]) if z in made else IDENTITY for z in range(n)]
        own = StackMap.of(scene.frame, scene.frame, maps)
        aligned = aligned_folder(self.job.raw)
        whole = own if aligned is None else read_stackmap(aligned).then(own)
        how = {"made_by": "emloom repair", "raw": self.job.raw}
        write_stackmap(self.folder / "map", whole, how)


def _notes_on_kept(scene: RepairScene, made: dict[int, dict[str, Any]]) -> dict[int, str]:
    """Return a note on every section in which a crack was found that is not closed."""
    text = "quality control sees a crack, but no parts with a gap between: left, and what is masked stays masked"
    good = scene.job.sections.good
    return {
        z: text for z, names in scene.defects().items() if "crack" in names and z not in made and z not in good
    }


def table_of(
    made: dict[int, dict[str, Any]], counts: NDArray[np.int64], kept: dict[int, str]
) -> dict[str, NDArray[Any]]:
    """Return the columns of `sections.csv`; see the module."""
    rows = []
    for z, count in enumerate(counts):
        words = made.get(z, {"state": "measured"})
        two = min(words.get("before", -1), words.get("after", -1)) >= 0 and words["state"] in ("between", "mended")
        rows.append(
            {
                "z": z,
                "state": words["state"],
                "bad": int(words["state"] not in ("measured", "mended")),
                "reason": words.get("reason", ""),
                "before": words.get("before", -1),
                "after": words.get("after", -1),
                "t": words["t"] if two else nan,
                "invented": 1 - count[MEASURED] / count.sum(),
                "parts": words.get("parts", 0),
                "gap": words.get("gap", 0.0),
                "flow_px": words.get("flow_px", nan),
                "note": words.get("note", kept.get(z, "")),
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def summary_of(
    job: RepairJob,
    scene: RepairScene,
    made: dict[int, dict[str, Any]],
    counts: NDArray[np.int64],
    kept: dict[int, str],
) -> dict[str, Any]:
    """Return what `repair.json` holds; see the module."""
    states = Counter(words["state"] for words in made.values())
    notes = kept | {z: words["note"] for z, words in made.items()}
    states["measured"] += scene.info.shape[0] - len(made)
    totals = counts.sum(0)
    return {
        "format": FORMAT,
        "raw": job.raw,
        "shape": list(scene.info.shape),
        "states": {name: n for name, n in sorted(states.items()) if n},
        "codes": {str(code): text for code, text in INVENTED.items()},
        "invented_voxels": {str(code): int(n) for code, n in enumerate(totals) if code != MEASURED and n},
        "invented_share": float(1 - totals[MEASURED] / totals.sum()),
        "bad": [z for z, words in made.items() if words["state"] not in ("mended", "measured")],
        "notes": [f"section {z}: {note}" for z, note in sorted(notes.items()) if note],
    }
