"""`emloom combine-masks`: masks of one class each become one volume of classes, block by block.

::

    masks, known ─► out.zarr/classes       uint8 ids of classes, 0 is undefined (`ops.combine`)
                 ─► out.zarr/counts/       what every block holds: values of the masks, voxels of the classes
                         │ all blocks done: is there anything wrong with any mask?
                         ▼
                    out.zarr/classes.yaml  names and ids, as the `classes` of a semantic job
                    out.zarr/counts.json   how much there is of each

The band looks beyond a block, so a block reads as much more; the result does not depend on the blocks. What is
wrong with the masks is found in the one pass that reads them, and said all at once; nothing is left behind then.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block, Vec, blocks
from emloom.io.files import write_text_atomic
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.ops.combine import UNDEFINED, Codes, between_classes, first_of
from emloom.run.blockjournal import name_of
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.tasks.combinespec import CombineJob, MaskSpec
from emloom.tasks.lattice import chunk_within

FORMAT = 1
CLASSES, COUNTS, NAMES = "classes", "counts", "classes.yaml"
CELL: Vec = (64, 512, 512)
_MOST_VALUES = 4096  # different values counted of one volume; more is no mask

OnBlock = Callable[[int, int], None]


@dataclass(frozen=True)
class Combined:
    """What became of the masks.

    Attributes:
        path: of the classes.
        ids: of every class by name, in order of priority.
        painted: voxels inside each mask, by the name of its class.
        counts: voxels of every class by name, without the band.
        undefined: voxels of no class.
    """

    path: str
    ids: Mapping[str, int]
    painted: Mapping[str, int]
    counts: Mapping[str, int]
    undefined: int

    @property
    def voxels(self) -> int:
        """All voxels."""
        return sum(self.counts.values()) + self.undefined

    def share(self, name: str) -> float:
        """Return the share of all voxels that a class has."""
        return self.counts[name] / self.voxels

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rows = [
            {"name": name, "id": i, "painted": self.painted.get(name), "voxels": self.counts[name]}
            for name, i in self.ids.items()
        ]
        return {"classes": rows, "undefined": self.undefined, "voxels": self.voxels}

    def to_text(self) -> str:
        """Return a table for a terminal."""
        lines = [f"{'id':>3}  {'class':<24} {'painted':>9} {'left':>9}"]
        for name, i in self.ids.items():
            painted = f"{self.painted[name] / self.voxels:9.2%}" if name in self.painted else f"{'-':>9}"
            lines.append(f"{i:>3}  {name:<24} {painted} {self.share(name):9.2%}")
        lines.append(f"{UNDEFINED:>3}  {'undefined':<24} {'-':>9} {self.undefined / self.voxels:9.2%}")
        return "\n".join([*lines, f"{self.path}: {self.voxels} voxels"])


def combine_masks(
    job: CombineJob,
    on_block: OnBlock | None = None,
    executor: Executor | None = None,
    discard: bool = False,
    repair: bool = False,
) -> Combined:
    """Combine masks into a container that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to combine.
        on_block: called with (blocks done, blocks in all).
        executor: where blocks run; default in this process.
        discard: delete the unfinished or finished result of another job in the output's place.
        repair: go on with a finished result, too: blocks whose markers were removed are made again.

    Raises:
        InputError: volumes are missing, hold no integers or lie on different grids; a mask is empty, holds values
            that nobody explained, or nothing is left of it; the output exists or belongs to another job. All that
            is wrong with the volumes is said at once, and then all that is wrong with what they hold.
    """
    started = time.perf_counter()
    info = _checked(job)
    space = Workspace(job.output)
    inputs = space.claim("combine-masks", job, job.paths, discard)
    if not space.finished or repair:
        folder = space.folder.absolute()
        if not (folder / CLASSES).exists():
            create_volume(folder / CLASSES, info)
        margin = job.band.reach_vox
        halo = (0 if job.band.in_plane else margin, margin, margin)
        key = key_of(FORMAT, job.model_dump(mode="json", exclude={"output"}), inputs)
        todo = blocks(info.box, CELL, halo)
        stage = Stage("combine", key, todo, CombineBlock(job, folder))
        run_stage(stage, folder, executor or Serial(), progress=on_block)
        _settle(space, job, _totals(folder, todo))
        seconds = {"combine": time.perf_counter() - started}
        write_provenance(folder / "provenance.json", job.to_dict(), inputs, seconds)
        space.finish()
    return _read(space.folder, job)


# ---- volumes --------------------------------------------------------------------------------------------------


def _checked(job: CombineJob) -> VolumeInfo:
    """Return what the classes are to be; raises `InputError` with all that is wrong with the volumes."""
    problems, volumes = [], {}
    for what, path in job.paths.items():
        try:
            volumes[what] = _open(job, path)
        except InputError as problem:
            problems.append(f"{what}: {problem}")
    for what, volume in volumes.items():
        if volume.info.channels is not None or volume.info.dtype.kind not in "bui":
            problems.append(
                f"{what}: {volume.info.source} holds {volume.info.dtype} ({volume.info.axes}): a mask is one "
                "array of integers, z, y, x"
            )
    infos = [(what, volume.info) for what, volume in volumes.items()]
    for what, info in infos[1:]:
        first, one = infos[0]
        if info.shape != one.shape or not info.grid.matches(one.grid):
            problems.append(
                f"{what}: {info.source} has {_place(info)}, the {first} {_place(one)}: masks cover the same "
                "voxels; crop or resample one of them"
            )
    _refuse(problems, "these volumes cannot be combined")
    one = infos[0][1]
    return VolumeInfo(one.shape, np.dtype(np.uint8), one.grid, kind="labels", chunks=chunk_within(CELL))


def _place(info: VolumeInfo) -> str:
    return f"{info.shape} voxels of {info.grid.voxel_size_nm} nm at {info.grid.offset_nm} nm"


def _open(job: CombineJob, path: str) -> Volume:
    return open_volume(path, voxel_size_nm=job.voxel_size_nm)


def _refuse(problems: Sequence[str], what: str) -> None:
    if problems:
        raise InputError(f"{what}:" + "".join(f"\n  * {problem}" for problem in problems))


# ---- blocks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CombineBlock:
    """Combines one block; a small value that travels to workers.

    Attributes:
        job: what is combined.
        folder: container of the output.
    """

    job: CombineJob
    folder: Path

    def __call__(self, block: Block) -> list[Output]:
        """Write the classes of a block, and what its masks hold."""
        job = self.job
        info = open_volume(self.folder / CLASSES).info
        seen = block.read.intersect(info.box)
        inner = block.write.slices(seen.start)
        read = {path: _open(job, path).read(seen) for path in job.paths.values()}
        masks = [inside(each, read[each.mask]) for each in job.classes]
        codes = _combined(job, masks, read)[inner]
        open_volume(self.folder / CLASSES, writable=True).write(block.write, codes)
        words = {
            "painted": [int(np.count_nonzero(mask[inner])) for mask in masks],
            "counts": _histogram(codes),
            "values": {path: _histogram(array[inner]) for path, array in read.items() if path != job.known},
        }
        place = _counts(block)
        (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.folder / place, json.dumps(words))
        return [Output.voxels(CLASSES, block.write, codes), Output.file(self.folder, place)]


def inside(spec: MaskSpec, array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where the values of a volume mean that a voxel is of the class."""
    if spec.values is not None:
        return np.isin(array, spec.values)
    found: NDArray[np.bool_] = array > (spec.above or 0)
    return found


def _combined(job: CombineJob, masks: list[NDArray[np.bool_]], read: Mapping[str, NDArray[Any]]) -> Codes:
    ids = job.ids
    rest = UNDEFINED if job.rest is None else ids[job.rest.name]
    codes = first_of(masks, [ids[each.name] for each in job.classes], rest)
    for path in {each.mask for each in job.classes if each.values is not None} if job.undefined else ():
        covered = np.logical_or.reduce(masks)
        codes[np.isin(read[path], job.undefined) & ~covered] = UNDEFINED
    if job.known is not None:
        codes[read[job.known] == 0] = UNDEFINED
    codes[between_classes(codes, job.band.reach_vox, in_plane=job.band.in_plane)] = UNDEFINED
    return codes


def _histogram(array: NDArray[Any]) -> list[tuple[int, int]]:
    if array.dtype.itemsize == 1:
        tally = np.bincount(array.reshape(-1).view(np.uint8), minlength=256)
        if array.dtype.kind != "i":
            return [(int(v), int(tally[v])) for v in np.flatnonzero(tally)]
    values, counts = np.unique(array, return_counts=True)
    return [(int(v), int(n)) for v, n in zip(values[:_MOST_VALUES], counts[:_MOST_VALUES], strict=True)]


def _counts(block: Block) -> str:
    return f"{COUNTS}/{name_of(block.index)}.json"


# ---- totals ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Totals:
    """What all blocks hold: voxels inside each mask, voxels of each id, voxels of each value of each volume."""

    painted: list[int]
    counts: Counter[int]
    values: dict[str, Counter[int]]


def _totals(folder: Path, todo: Sequence[Block]) -> _Totals:
    painted: Counter[int] = Counter()
    counts: Counter[int] = Counter()
    values: dict[str, Counter[int]] = {}
    for block in todo:
        words = json.loads((folder / _counts(block)).read_text(encoding="utf-8"))
        painted.update(dict(enumerate(words["painted"])))
        counts.update(dict(words["counts"]))
        for path, pairs in words["values"].items():
            values.setdefault(path, Counter()).update(dict(pairs))
    return _Totals([painted[place] for place in sorted(painted)], counts, values)


def _settle(space: Workspace, job: CombineJob, totals: _Totals) -> None:
    """Write names and counts, or leave nothing behind and raise `InputError` with all that is wrong."""
    problems = [*_unexplained(job, totals), *_missing(job, totals)]
    if problems:
        space.discard()
    _refuse(problems, "these masks cannot be combined")
    names = {each.name: n for each, n in zip(job.classes, totals.painted, strict=True)}
    counts = {name: totals.counts[i] for name, i in job.ids.items()}
    found = Combined(str(space.output / CLASSES), job.ids, names, counts, totals.counts[UNDEFINED])
    write_text_atomic(space.folder / f"{COUNTS}.json", json.dumps(found.to_dict(), indent=2))
    listed = yaml.safe_dump({"classes": job.objective_classes}, sort_keys=False, allow_unicode=True)
    write_text_atomic(space.folder / NAMES, listed)


def _unexplained(job: CombineJob, totals: _Totals) -> Iterator[str]:
    """Say which values nobody explained."""
    listed: dict[str, set[int]] = {}
    for each in job.classes:
        if each.values is not None:
            listed.setdefault(each.mask, set(job.undefined)).update(each.values)
    for each in job.classes:
        held = totals.values[each.mask]
        one = 255 if 255 in held else 1
        strange = sorted(set(held) - {0, one})
        if each.above is None and each.values is None and strange:
            yield (
                f"{each.name}: {each.mask} holds {_some(strange, held)} besides 0 and {one}: if its edges were "
                "smoothed say `above: 127`; if it holds several classes, which `values` are inside"
            )
    for path, values in listed.items():
        strange = sorted(set(totals.values[path]) - values)
        if strange and not any(each.mask == path and each.above is not None for each in job.classes):
            yield (
                f"{path} holds {_some(strange, totals.values[path])}, which no class lists: add them to the "
                "`values` of a class, or to `undefined`"
            )


def _some(values: Sequence[int], held: Mapping[int, int]) -> str:
    share = sum(held[v] for v in values) / sum(held.values())
    named = ", ".join(map(str, values[:5])) + (f", ... ({len(values)} values)" if len(values) > 5 else "")
    return f"{named} ({share:.2%} of the voxels)"


def _missing(job: CombineJob, totals: _Totals) -> Iterator[str]:
    """Say which classes have no voxel."""
    for each, painted in zip(job.classes, totals.painted, strict=True):
        if not painted:
            yield f"{each.name}: no voxel of {each.mask} is inside: leave the class out, or correct the mask"
        elif not totals.counts[job.ids[each.name]]:
            yield (
                f"{each.name}: of {painted} voxels none is left: classes before it, the band or what is not known "
                "cover them all; put it further up, or make the band narrower"
            )
    if job.rest is not None and not totals.counts[job.ids[job.rest.name]]:
        yield f"{job.rest.name}: no voxel is left for it: leave `rest` out"


def _read(folder: Path, job: CombineJob) -> Combined:
    words = json.loads((folder / f"{COUNTS}.json").read_text(encoding="utf-8"))
    rows = words["classes"]
    painted = {row["name"]: row["painted"] for row in rows if row["painted"] is not None}
    counts = {row["name"]: row["voxels"] for row in rows}
    path = str(Path(job.output) / CLASSES)
    return Combined(path, {row["name"]: row["id"] for row in rows}, painted, counts, words["undefined"])
