"""The masks of a pipeline: what quality control, alignment and repair say, on the grid where it is needed.

::

    carry    qc of the raw ──map of align──► align-qc/      codes of defects, and 1 where a section does not reach
    mask     repair/invented.zarr ─────────► mask.zarr      1 where neurons are segmented: measured, or filled in
    counted  invented, or align-qc ◄─map── on the raw       1 where results are scored: measured, and in the boxes

A section that repair filled in is there so that neurons go through it: they are segmented there. A synapse in it
is no evidence, and truth is not scored where nothing was seen.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box, Vec, blocks
from emloom.geometry.grid import Vec3
from emloom.geometry.planar import IDENTITY, Shift
from emloom.geometry.stackmap import StackMap
from emloom.io.files import write_text_atomic
from emloom.io.open import create_volume, open_volume
from emloom.io.stackmaps import map_folder, read_stackmap
from emloom.io.tables import read_table, write_csv, write_table
from emloom.io.volume import Volume, VolumeInfo
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.data import BoxSpec
from emloom.tasks.lattice import chunk_within, common_box
from emloom.tasks.movescene import MoveScene
from emloom.tasks.qcmap import SECTIONS
from emloom.tasks.qcmask import INVENTED_VOLUME, MASK, OUTSIDE, SUMMARY, open_avoid, source_of
from emloom.tasks.qcspec import CODES
from emloom.tasks.repairspec import GAP

OnBlock = Callable[[str, int, int], None]
CELL: Vec = (64, 512, 512)


class MaskJob(Spec):
    """Make one of the masks of a pipeline."""

    what: Literal["carry", "mask", "counted"]
    output: str
    bad: str | None = None
    """Folder of qc, align or repair that says what is not to be believed."""
    by: str | None = None
    """Folder of align or repair, whose map leads from the raw to where `bad` lies, or (carry) will lie."""
    raw: str | None = None
    """The raw, for its grid: where results are counted."""
    voxel_size_nm: Vec3 | None = None
    boxes: tuple[BoxSpec, ...] = ()
    """Where results are counted; none: everywhere."""


def is_moving(stackmap: StackMap) -> bool:
    """Whether a map moves anything: another grid, other homes, or a section that does not stay where it is."""
    if stackmap.source != stackmap.target:
        return True
    return any(_moves(stackmap, z) for z in range(stackmap.target.shape[0]))


def _moves(stackmap: StackMap, z: int) -> bool:
    plain = stackmap.map(z) if stackmap.home(z) == z else None
    return not (isinstance(plain, Shift) and plain == IDENTITY)


def make_mask(
    job: MaskJob, executor: Executor | None = None, on_block: OnBlock | None = None, discard: bool = False
) -> Path:
    """Make a mask in a container, or a folder, that appears when it is whole; go on where a crash stopped.

    Raises:
        InputError: an input is missing or unfinished, or the output belongs to another job.
    """
    space = Workspace(job.output)
    paths = {"bad": source_of(job.bad), "by": None if job.by is None else str(map_folder(job.by)), "raw": job.raw}
    inputs = space.claim("mask", job, paths, discard)
    if space.finished:
        return space.output
    folder = space.folder.absolute()
    work = _Paint(job, folder)
    info = work.info()
    if not work.place.exists():
        create_volume(work.place, info)
    key = key_of("mask", job.model_dump(mode="json", exclude={"output"}), inputs)
    tell = None if on_block is None else (lambda done, total: on_block(job.what, done, total))
    report = run_stage(
        Stage("mask", key, blocks(info.box, CELL), work), folder, executor or Serial(), progress=tell
    )
    if job.what == "carry":
        _carry_tables(job, folder)
    write_provenance(folder / "provenance.json", job.to_dict(), inputs, {"mask": report.seconds})
    space.finish()
    return space.output


@dataclass(frozen=True)
class _Paint:
    """Makes one block of a mask; a small value that travels to workers."""

    job: MaskJob
    folder: Path

    @property
    def place(self) -> Path:
        """The volume."""
        return self.folder / (MASK if self.job.what == "carry" else "mask")

    def info(self) -> VolumeInfo:
        """What the mask says about itself."""
        return self._frame().with_(
            dtype=np.dtype(np.uint8), kind="mask", chunks=chunk_within(CELL), source=self.job.output, channels=None
        )

    def _frame(self) -> VolumeInfo:
        job = self.job
        if job.what == "carry":
            return open_volume(Path(str(job.by)) / OUTSIDE).info
        if job.what == "mask":
            return open_avoid(str(job.bad)).info
        return open_volume(str(job.raw), voxel_size_nm=job.voxel_size_nm, kind="raw").info

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write a block's voxels."""
        make = {"carry": self._carried, "mask": self._through, "counted": self._counted}[self.job.what]
        values = make(block.write).astype(np.uint8)
        open_volume(self.place, writable=True).write(block.write, values)
        return [Output.voxels(self.place.name, block.write, values)]

    def _carried(self, box: Box) -> NDArray[Any]:
        scene = MoveScene.of(open_avoid(str(self.job.bad)), read_stackmap(str(self.job.by)), "nearest")
        codes: NDArray[Any] = scene.read(box)
        codes[open_volume(Path(str(self.job.by)) / OUTSIDE).read(box) != 0] = CODES["outside"]
        return codes

    def _through(self, box: Box) -> NDArray[Any]:
        codes: NDArray[Any] = open_volume(Path(str(self.job.bad)) / INVENTED_VOLUME).read(box)
        return np.asarray(codes <= GAP)

    def _counted(self, box: Box) -> NDArray[Any]:
        good = np.ones(box.shape, bool)
        if self.job.bad is not None:
            good &= self._bad(box) == 0
        if self.job.boxes:
            inside = np.zeros(box.shape, bool)
            for spec in self.job.boxes:
                part = spec.box.intersect(box)
                if not part.is_empty:
                    inside[part.slices(box.start)] = True
            good &= inside
        return good

    def _bad(self, box: Box) -> NDArray[Any]:
        avoid = open_avoid(str(self.job.bad))
        if self.job.by is not None:
            scene = MoveScene.of(avoid, read_stackmap(self.job.by).inverse(), "nearest", fill=1)
            moved: NDArray[Any] = scene.read(box)
            return moved
        raw: Volume = open_volume(str(self.job.raw), voxel_size_nm=self.job.voxel_size_nm, kind="raw")
        return np.asarray(avoid.read(box.shift(common_box(raw, avoid).start)))


def _carry_tables(job: MaskJob, folder: Path) -> None:
    """Put beside a carried mask what makes it a folder of `emloom qc`: one row per section, and the summary."""
    before = Path(str(job.bad))
    table = dict(read_table(before / SECTIONS).columns)
    moved = read_stackmap(str(job.by))
    homes = [moved.home(z) for z in range(moved.target.shape[0])]
    rows = np.array([home for home in homes if home is not None], np.int64)
    columns = {name: np.asarray(values)[rows] for name, values in table.items()}
    columns["z"] = np.array([z for z, home in enumerate(homes) if home is not None], np.int64)
    (folder / SECTIONS).parent.mkdir(parents=True, exist_ok=True)
    write_table(folder / SECTIONS, columns)
    write_csv(folder / "sections.csv", columns)
    summary = json.loads((before / SUMMARY).read_text(encoding="utf-8"))
    summary["carried_by"] = str(job.by)
    shutil.rmtree(folder / "report", ignore_errors=True)
    write_text_atomic(folder / SUMMARY, json.dumps(summary, indent=2))
