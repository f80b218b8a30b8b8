"""`emloom align apply` and `emloom align invert`: volumes to where a stack map leads, and back, block by block.

::

    original raw ──── apply: raw, labels drawn on the original ────►  aligned, repaired
                 ◄─── invert: predictions, segmentations, masks ────

What is whole shifts is copied: ``invert(apply(x)) == x`` to the bit wherever x did not leave the canvas. All else
is interpolated once, whatever the number of maps one after the other: linear for grey values and probabilities,
the nearest voxel's id for labels. Affinities and descriptors are refused: they are about neighbours of a voxel,
and the map moves those by themselves; segment, and move the labels.

Blocks know nothing of each other and read what their voxels need: the same bits for any cells, workers, order of
blocks, crash or resume.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec, blocks
from emloom.geometry.grid import Vec3
from emloom.io.files import write_text_atomic
from emloom.io.open import create_volume, open_volume
from emloom.io.room import require_room
from emloom.io.stackmaps import map_folder, read_stackmap
from emloom.io.volume import Kind, Volume, VolumeInfo
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.lattice import chunk_within, start_between
from emloom.tasks.movescene import MoveScene, frame_info

OnBlock = Callable[[int, int], None]
"""Called with (blocks done, blocks in all)."""
Direction = Literal["apply", "invert"]
SYMMETRIC = "symmetric"


class MoveJob(Spec):
    """Move a volume through a stack map (`emloom align apply`, `emloom align invert`)."""

    source: str
    """The volume; it may cover a part of where the map begins, on its voxels."""
    by: str
    """Folder of `emloom align` or `emloom repair`, or of a map."""
    output: str
    """Container (`.zarr`) to be made, with one volume."""
    direction: Direction = "apply"
    """From the original to the aligned, or back."""
    what: Literal["volume", "labels"] = "volume"
    """Grey values and probabilities are interpolated, ids are those of the nearest voxel."""
    like: str | None = None
    """A volume of which the output takes the box; default: all of where the map leads."""
    outside: int | float | Literal["symmetric"] = 0
    """Value of what shows nothing; `symmetric`: a raw that is applied goes on as its mirror image."""
    cell_shape_vox: Vec = (64, 512, 512)
    """Voxels of a block; it bounds the memory."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x), only where the volume does not state it."""
    kind: Kind | None = None
    """What the values mean, only where the volume does not say."""


@dataclass(frozen=True)
class MoveBlock:
    """Makes one block of the output; a small value that travels to workers.

    Attributes:
        job: what is moved.
        folder: container of the output.
        name: of the volume in it.
        start: voxel of the map's target at which the output begins.
    """

    job: MoveJob
    folder: Path
    name: str
    start: Vec

    def __call__(self, block: Block) -> list[Output]:
        """Write the block's voxels."""
        values = scene_of(self.job).read(block.write.shift(self.start))
        open_volume(self.folder / self.name, writable=True).write(block.write, values)
        return [Output.voxels(self.name, block.write, values)]


def move_volume(
    job: MoveJob,
    on_block: OnBlock | None = None,
    executor: Executor | None = None,
    discard: bool = False,
    repair: bool = False,
) -> Path:
    """Move a volume into a container that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to move.
        on_block: called with (blocks done, blocks in all).
        executor: where blocks run; default in this process.
        discard: delete the unfinished or finished result of another job in the output's place.
        repair: go on with a finished result, too: blocks whose markers were removed are made again.

    Returns:
        Path of the volume that was written.

    Raises:
        InputError: an input is missing; the values are not of the sort that `what` says, or are about neighbours;
            the volume has other voxels than the map, or none where it begins; the output exists or belongs to
            another job.
    """
    started = time.perf_counter()
    scene = scene_of(job)
    info, start = output_of(job, scene)
    name = name_of(job.source, scene.volume.info)
    space = Workspace(job.output)
    paths = {"source": job.source, "by": str(map_folder(job.by)), "like": job.like}
    if not space.folder.exists():
        require_room(space.draft, [info], "move a part of it (emloom crop)")
    inputs = space.claim("move", job, paths, discard)
    if repair or not space.finished:
        if not (space.folder / name).exists():
            create_volume(space.folder / name, info)
        key = key_of("move", job.model_dump(mode="json", exclude={"output"}), inputs)
        work = MoveBlock(job, space.folder.absolute(), name, start)
        cells = blocks(info.box, job.cell_shape_vox)
        run_stage(Stage("move", key, cells, work), space.folder, executor or Serial(), progress=on_block)
        _carry_names(job.source, scene.volume.info, space.folder)
        seconds = {"move": time.perf_counter() - started}
        write_provenance(space.folder / "provenance.json", job.to_dict(), inputs, seconds)
        space.finish()
    return space.output / name


def scene_of(job: MoveJob) -> MoveScene:
    """Open the inputs of a job; raises `InputError` as `move_volume`."""
    volume = open_volume(job.source, voxel_size_nm=job.voxel_size_nm, kind=job.kind)
    require_movable(volume.info, job.what)
    stackmap = read_stackmap(job.by)
    if job.direction == "invert":
        stackmap = stackmap.inverse()
    symmetric = job.outside == SYMMETRIC
    if symmetric and (job.direction, job.what) != ("apply", "volume"):
        raise InputError(
            f"symmetric padding is for a raw that is applied, not to {job.direction} {job.what}: choose a value "
            "for what lies outside, say 0"
        )
    fill = 0 if job.outside == SYMMETRIC else job.outside
    assert not isinstance(fill, str)
    require_fits(fill, volume.info)
    method: Literal["linear", "nearest"] = "nearest" if job.what == "labels" else "linear"
    return MoveScene.of(volume, stackmap, method, fill=fill, symmetric=symmetric)


def require_movable(info: VolumeInfo, what: str) -> None:
    """Raise `InputError` where values are not of the sort that `what`, volume or labels, says."""
    if info.kind in ("affinities", "lsds"):
        raise InputError(
            f"{info.source} holds {info.kind}, which are about the neighbours of a voxel, and a map moves those "
            "by themselves: segment first, and move the labels"
        )
    if what == "labels":
        if info.kind in ("raw", "probabilities", "logits") or info.dtype.kind not in "uib":
            raise InputError(
                f"{info.source} holds {info.kind or 'values'} of {info.dtype}, and labels are ids: move it as a "
                "volume (--to volume)"
            )
    elif info.kind in ("labels", "mask"):
        raise InputError(
            f"{info.source} holds {info.kind}, and between two ids there is nothing to interpolate: move it as "
            "labels (--to labels)"
        )
    elif info.dtype.kind == "b" or (info.kind is None and info.dtype.kind in "ui" and info.dtype.itemsize > 1):
        raise InputError(
            f"{info.source} holds {info.dtype} and does not say what it is: ids must not be interpolated; move it "
            "as labels (--to labels), or say that it is raw (--kind raw)"
        )
    elif info.dtype.kind in "ui" and info.dtype.itemsize > 4:
        raise InputError(
            f"{info.source} holds {info.dtype}, too many digits to interpolate: convert it to float32"
        )


def output_of(job: MoveJob, scene: MoveScene) -> tuple[VolumeInfo, Vec]:
    """Return what the output says about itself, and the voxel of the map's target at which it begins.

    Raises:
        InputError: `like` has other voxels than the target, or lies outside it.
    """
    target = frame_info(scene.stackmap.target, "the frame to which the map leads")
    box = target.box
    if job.like is not None:
        like: Volume = open_volume(job.like)
        box = Box(start_between(like.info, target), like.info.shape)
        if not box.meets(target.box):
            raise InputError(f"{job.like} covers {box} of {target.source}, which is only {target.box}")
    chunks = chunk_within(job.cell_shape_vox)
    own = scene.volume.info
    kind = own.kind or ("labels" if job.what == "labels" else None)
    info = own.with_(shape=box.shape, grid=target.grid.crop(box), chunks=chunks, kind=kind, source=job.output)
    return info, box.start


def name_of(source: str, info: VolumeInfo) -> str:
    """Return what the output is called in its container: as the source in its own, or what it is."""
    last = Path(source.rstrip("/")).name
    return info.kind or "volume" if "." in last or "*" in last else last


def _carry_names(source: str, info: VolumeInfo, folder: Path) -> None:
    """Write down what the classes of a volume are called, where its container knows, be they ids or channels."""
    from emloom.tasks.classnames import (
        NAMES,
        class_names,
        write_names,
    )  # knows models, which take seconds to import

    beside = Path(source).parent / NAMES
    if beside.is_file():
        write_text_atomic(folder / NAMES, beside.read_text(encoding="utf-8"))
    elif info.kind == "probabilities" and info.channels is not None:
        try:
            names = class_names(source, info.channels)
        except InputError:  # of other channels than these: then they are not theirs
            return
        if names != tuple(map(str, range(info.channels))):
            write_names(folder, names)


def require_fits(fill: Any, info: VolumeInfo) -> None:
    """Raise `InputError` where a volume has no such value."""
    with np.errstate(all="ignore"):
        try:
            fits = info.dtype.kind == "f" or info.dtype.type(fill) == fill
        except (OverflowError, ValueError):
            fits = False
    if not fits:
        raise InputError(f"{info.source} stores {info.dtype}, which has no value {fill}: choose another --outside")
