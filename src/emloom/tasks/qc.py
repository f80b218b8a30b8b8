"""`emloom qc`: find bad sections and bad regions of a stack, without any training, at any size.

::

    measure      raw            -> measure/                         once per voxel
    sections     measure        -> sections/, sections.parquet, sections.csv
    map.zarr     measure, flags -> map.zarr/code, map.zarr/score    one voxel per tile
    mask.zarr    map            -> mask.zarr                        on the grid of the raw
    qc.json      last of all: before it is there, nobody takes the mask for whole (`emloom.tasks.qcmask`)

Every stage goes on where it was interrupted. Other rules judge again what was measured, without reading the raw.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.io.files import explained, write_text_atomic
from emloom.io.tables import write_csv, write_table
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import fingerprint, write_provenance
from emloom.tasks.lattice import on_grid_of
from emloom.tasks.qcmap import MAP, SECTIONS, USUAL, CountTiles, JudgeTiles, Tiles, limits_of
from emloom.tasks.qcmask import MASK, SUMMARY
from emloom.tasks.qcmeasure import STAGE as MEASURE
from emloom.tasks.qcmeasure import Measure, make_tiles
from emloom.tasks.qcpaint import PaintMask
from emloom.tasks.qcpatch import Stack
from emloom.tasks.qcrules import Flag, judge, not_judged
from emloom.tasks.qcsections import STAGE as ADD_UP
from emloom.tasks.qcsections import AddUp, read_sections
from emloom.tasks.qcspec import CODES, Defect, QcSpec
from emloom.tasks.scorestages import Stages

OnBlock = Callable[[str, int, int], None]
FORMAT = 1
WHOLE: tuple[Defect, ...] = (
    "blank", "blurred", "unlike", "duplicate", "saturated", "low_contrast", "dark", "bright", "shifted", "stripes",
)  # fmt: skip
"""Defects of a section that are defects of all its tiles."""


@dataclass(frozen=True)
class QcReport:
    """What was found.

    Attributes:
        stack: what was looked at.
        table: one row per section: columns of `qcsections`, and `code`, `severity`, `bad_tiles`, `defects`.
        flags: of sections, in order of z, worst defect first.
        notes: which rules could not be applied, and why.
        tiles: how many tiles have each defect.
        masked: voxels, beside those outside of the tissue, of the mask that are not 0.
    """

    stack: Stack
    table: dict[str, NDArray[Any]]
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
    tiles: dict[str, int]
    masked: int

    @property
    def n_bad(self) -> int:
        """Sections with a flag."""
        return len({flag.z for flag in self.flags})

    def worst(self) -> list[tuple[int, list[Flag]]]:
        """Return the sections with flags, worst first: by their worst defect, then by how far it goes."""
        by_z: dict[int, list[Flag]] = {}
        for flag in self.flags:
            by_z.setdefault(flag.z, []).append(flag)
        return sorted(by_z.items(), key=lambda item: (CODES[item[1][0].defect], -item[1][0].severity, item[0]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        info = self.stack.info
        defects: Counter[str] = Counter(flag.defect for flag in self.flags)
        flags = [{**asdict(f), "severity": f.severity} for f in self.flags]
        for flag in flags:
            flag.update({k: None for k, v in flag.items() if isinstance(v, float) and not isfinite(v)})
        return {
            "raw": self.stack.raw,
            "shape": list(info.shape),
            "tile_vox": self.stack.tile_vox,
            "n_bad_sections": self.n_bad,
            "defects": dict(defects),
            "flags": flags,
            "notes": list(self.notes),
            "tiles": self.tiles,
            "masked_voxels": self.masked,
            "masked_share": self.masked / info.box.size,
            "codes": CODES,
        }


def quality_control(spec: QcSpec, executor: Executor | None = None, on_block: OnBlock | None = None) -> QcReport:
    """Find bad sections and bad regions; write everything but the page (`emloom.tasks.qcreport`).

    Args:
        spec: what to do; nothing outside of ``spec.output`` is written.
        executor: where blocks run; default in this process.
        on_block: called with (stage, blocks done, blocks in all).

    Raises:
        InputError: the raw does not open, has channels or holds floating point, or a mask is on another grid.
    """
    started = time.perf_counter()
    rules = spec.rules
    stack = Stack(spec.raw, spec.voxel_size_nm, spec.tile_vox, rules.band_nm)
    tissue = None if spec.mask is None else on_grid_of(stack.volume, spec.mask)
    folder = Path(spec.output).absolute()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMMARY).unlink(missing_ok=True)
    inputs = {"raw": fingerprint(spec.raw)}
    if tissue is not None and spec.mask is not None:
        inputs["mask"] = fingerprint(spec.mask)
    if spec.artifacts is not None:
        inputs["artifacts"] = fingerprint(spec.artifacts.path)
    line = _Line(spec, stack, folder, executor or Serial(), on_block)
    measured = key_of(FORMAT, inputs["raw"], asdict(stack))
    table = line.measure(measured)
    flags, notes = judge(table, rules), not_judged(table)
    table = _with_flags(table, flags)
    write_table(folder / SECTIONS, table)
    counts = line.paint(measured, key_of(measured, rules.to_dict(), inputs))
    table["bad_tiles"] = np.zeros(len(table["z"]), np.int64)
    np.add.at(table["bad_tiles"], counts["z"], counts["tiles"] * (counts["code"] > 0))
    write_table(folder / SECTIONS, table)
    write_csv(folder / "sections.csv", table)
    report = QcReport(stack, table, tuple(flags), tuple(notes), *_totals(counts, spec.masked))
    seconds = {"qc": time.perf_counter() - started}
    write_provenance(folder / "provenance.json", spec.to_dict(), inputs, seconds)
    write_text_atomic(folder / SUMMARY, json.dumps(report.to_dict(), indent=2, allow_nan=False))
    return report


@dataclass(frozen=True)
class _Line:
    """The stages of one run."""

    spec: QcSpec
    stack: Stack
    folder: Path
    executor: Executor
    on_block: OnBlock | None

    def stages(self, name: str) -> Stages:
        """Return what runs a stage, and says how far it is."""
        tell = self.on_block
        return Stages(self.folder, self.executor, None if tell is None else (lambda *n: tell(name, *n)))

    def measure(self, key: str) -> dict[str, NDArray[Any]]:
        """Measure the stack; return one row per section."""
        self.stages(MEASURE).clear(MEASURE, key)
        make_tiles(self.stack, self.folder)
        self.stages(MEASURE).run(MEASURE, key, self.stack.cells(), Measure(self.stack, self.folder))
        add_up = AddUp(self.stack, self.folder)
        self.stages(ADD_UP).run(ADD_UP, key, add_up.cells(), add_up)
        return read_sections(self.folder, add_up.cells())

    def paint(self, measured: str, key: str) -> dict[str, NDArray[np.int64]]:
        """Make the map and the mask; return how many tiles have which code."""
        spec, tiles = self.spec, Tiles(self.stack, self.folder)
        self.stages(USUAL).run(USUAL, measured, tiles.cells(), CountTiles(tiles))
        judge_tiles = JudgeTiles(tiles, limits_of(tiles, spec.rules), spec.artifacts)
        self.stages(MAP).clear(MAP, key)
        judge_tiles.make()
        self.stages(MAP).run(MAP, key, tiles.cells(), judge_tiles)
        mask = PaintMask(self.stack, self.folder, spec.masked, spec.mask)
        key = key_of(key, spec.masked)
        self.stages(MASK).clear(MASK, key)
        mask.make()
        self.stages(MASK).run(MASK, key, mask.cells(), mask)
        return judge_tiles.read()


def _with_flags(table: dict[str, NDArray[Any]], flags: list[Flag]) -> dict[str, NDArray[Any]]:
    """Return the table with the names of all defects, and the code and severity of those of whole sections."""
    n = len(table["z"])
    names: list[list[str]] = [[] for _ in range(n)]
    code, severity = np.zeros(n, np.int64), np.zeros(n)
    for flag in flags:  # worst first
        names[flag.z].append(flag.defect)
        if flag.defect in WHOLE and not code[flag.z]:
            code[flag.z], severity[flag.z] = CODES[flag.defect], flag.severity
    words = np.array([" ".join(dict.fromkeys(found)) for found in names])
    return {**table, "defects": words, "code": code, "severity": severity}


def _totals(counts: dict[str, NDArray[np.int64]], masked: tuple[Defect, ...]) -> tuple[dict[str, int], int]:
    tiles = {name: int(counts["tiles"][counts["code"] == code].sum()) for name, code in CODES.items()}
    hidden = np.isin(counts["code"], [CODES[name] for name in masked])
    return {name: n for name, n in tiles.items() if n}, int(counts["voxels"][hidden].sum())
