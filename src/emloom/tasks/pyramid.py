"""`emloom pyramid out.zarr/raw`: coarser levels beside the finest, so that viewers need not read it all.

Level k + 1 is level k downsampled: the mean of images, the majority of labels and masks (`ops.downsample`). The
work runs cell by cell in bounded memory, cells aligned to the chunks (shards) of the level that is written, and
the result does not depend on the cells or on how many run at once.

Nothing that exists is touched until everything new is whole::

    out.zarr/.pyramid.partial/   the levels being made, and a marker for every finished cell
         │ all cells done: levels get their names
         ▼
    out.zarr/1/, out.zarr/2/     not levels yet
         │ one atomic write of the metadata
         ▼
    multiscales: 0, 1, 2

Whenever it is killed, the image is what it was before, and the same command goes on from the last finished cell.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec, cells
from emloom.geometry.grid import Vec3
from emloom.io.files import explained
from emloom.io.levels import Image, create_level, drop_levels, image_of_volume, level_names, list_levels
from emloom.io.nodes import is_store
from emloom.io.open import open_volume
from emloom.io.tensors import StoreVolume
from emloom.io.volume import Kind, Volume, VolumeInfo
from emloom.ops.downsample import coarse_shape, downsample_majority, downsample_mean
from emloom.run.journal import Journal, key_of
from emloom.run.machine import cores
from emloom.run.provenance import fingerprint
from emloom.spec import Spec
from emloom.tasks.info import bounded_cell

Progress = Callable[[int, int], None]

#: Default pyramids end where no extent is above this: one more level would save nobody time.
SMALL_ENOUGH_VOX = 128
#: Fine voxels held by one thread at a time.
FINE_BYTES = 64 * 2**20
_BUILD = ".pyramid.partial"
_ALL_DONE = "all"
_SUB_STEP = 64


class PyramidSpec(Spec):
    """Add coarser levels to an OME-NGFF image."""

    image: str
    """The image: `out.zarr`, or `out.zarr/raw` inside a container."""
    levels: int | None = Field(default=None, ge=1, le=20)
    """How many coarser levels; default: until no extent is above 128 voxels."""
    factors: Vec | None = None
    """Fine voxels (z, y, x) per coarse voxel, for every level; default: whatever makes voxels most isotropic."""
    kind: Kind | None = None
    """What the values mean, where the image does not say: labels and masks by majority, all others by mean."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm; needed where the image does not state it, which then is stated for all its levels."""
    offset_nm: Vec3 | None = None
    """World position (z, y, x) in nm of the corner of the first voxel; 0 where nobody states it."""
    replace: bool = False
    """Make the levels anew where the image has some."""


@dataclass(frozen=True)
class Level:
    """One coarser level.

    Attributes:
        name: its path inside the image.
        shape: voxels z, y, x.
        grid: its voxel size; the offset is that of the finest level.
        factors: voxels (z, y, x) of the level before per voxel.
    """

    name: str
    shape: Vec
    grid: Grid
    factors: Vec


def default_factors(shape: Vec, voxel_size_nm: Vec3) -> Vec:
    """Return the factors (1 or 2 per axis) that bring voxels closest to cubes.

    An axis is left alone where its voxels are already more than sqrt(2) times longer than the shortest, because
    doubling the others brings them closer, and where its extent is 1.
    """
    shortest = min(s for s, n in zip(voxel_size_nm, shape, strict=True) if n > 1) if max(shape) > 1 else 0.0
    z, y, x = (2 if n > 1 and s <= sqrt(2) * shortest else 1 for n, s in zip(shape, voxel_size_nm, strict=True))
    return (z, y, x)


def plan(image: Image, spec: PyramidSpec) -> list[Level]:
    """Return the levels to be made, finest first.

    Raises:
        InputError: the factors change nothing, or more levels are asked for than the image can be halved.
    """
    if spec.factors is not None and (min(spec.factors) < 1 or max(spec.factors) < 2):
        raise InputError(f"factors {spec.factors} make no level coarser: give whole numbers z, y, x like 1,2,2")
    shape, grid = image.finest.info.shape, image.finest.info.grid
    steps: list[tuple[Vec, Grid, Vec]] = []
    while (spec.levels is None and max(shape) > SMALL_ENOUGH_VOX) or len(steps) < (spec.levels or 0):
        factors = spec.factors or default_factors(shape, grid.voxel_size_nm)
        coarse = coarse_shape(shape, factors)
        if coarse == shape:
            if spec.levels is None:
                break
            raise InputError(f"{image.folder} has only {len(steps)} coarser levels: ask for no more")
        z, y, x = (s * f for s, f in zip(grid.voxel_size_nm, factors, strict=True))
        shape, grid = coarse, Grid((z, y, x), grid.offset_nm)
        steps.append((shape, grid, factors))
    return [Level(name, *step) for name, step in zip(level_names(image, len(steps)), steps, strict=True)]


def pyramid(spec: PyramidSpec, progress: Progress | None = None, workers: int | None = None) -> list[Level]:
    """Make the coarser levels of an image and list them in its metadata.

    Args:
        spec: which image and which levels.
        progress: called with (cells done, cells in all).
        workers: threads; default: one per processor. The result is the same for any number.

    Returns:
        The levels made; none where the image is small enough already.

    Raises:
        InputError: no OME-NGFF image; it has levels already; its kind is unknown or its voxel size missing; data
            are damaged; the disk refuses. The image stays as it was; what was finished is kept for the next try.
    """
    volume = open_volume(spec.image, voxel_size_nm=spec.voxel_size_nm, offset_nm=spec.offset_nm, kind=spec.kind)
    image = image_of_volume(volume)
    downsample = _method(volume.info)
    if len(image.levels) > 1 and not spec.replace:
        raise InputError(
            f"{image.folder} has {len(image.levels)} levels already ({', '.join(image.levels)}): pass --replace "
            "to make the coarser ones anew"
        )
    levels = plan(image, spec)
    if not levels:
        return []
    job = spec.model_copy(update={"replace": False})
    build = _Build(image, levels, key_of(job.to_dict(), fingerprint(image.array)))
    build.begin()
    with explained(image.folder):
        if not build.journal.is_done(_ALL_DONE, build.key):
            with build.journal.record(_ALL_DONE, build.key):
                _make(build, downsample, progress or (lambda done, total: None), workers or cores().usable)
        build.publish("majority" if downsample is downsample_majority else "mean")
    return levels


def _method(info: VolumeInfo) -> Callable[[NDArray[Any], Vec], NDArray[Any]]:
    if info.kind is None:
        raise InputError(
            f"{info.source} does not say what its values mean: pass --kind raw (mean) or --kind labels (majority)"
        )
    return downsample_majority if info.kind in ("labels", "mask") else downsample_mean


@dataclass(frozen=True)
class _Build:
    """Levels under construction in a hidden folder of the image."""

    image: Image
    levels: list[Level]
    key: str

    @property
    def folder(self) -> Path:
        return self.image.folder / _BUILD

    @property
    def journal(self) -> Journal:
        return Journal(self.folder)

    def at(self, level: Level) -> Path:
        return self.folder / level.name.replace("/", "_")

    def begin(self) -> None:
        """Make the folder, or keep what an interrupted run of the very same job left in it.

        Raises:
            InputError: something that is no level lies where a level shall be.
        """
        kept = (self.folder / f"{self.key}.job").is_file()
        if kept and self.journal.is_done(_ALL_DONE, self.key):
            return
        for level in self.levels:
            if is_store(self.image.folder / level.name) and level.name not in self.image.levels:
                raise InputError(
                    f"{self.image.folder / level.name} is there, but no level: move or delete it first"
                )
        if not kept:
            with explained(self.image.folder):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
                (self.folder / f"{self.key}.job").touch()

    def publish(self, method: str) -> None:
        """Give the levels their names, then list them; goes on wherever it was killed."""
        finest = {self.image.levels[0]: self.image.finest.info.grid}
        named = {level.name: level.grid for level in self.levels}
        pending = [level for level in self.levels if self.at(level).exists()]
        if len(self.image.levels) > 1 and len(pending) == len(self.levels):
            drop_levels(self.image, finest)
        for level in pending:
            target = self.image.folder / level.name
            if target.exists():
                shutil.rmtree(target)
            self.at(level).rename(target)
        list_levels(self.image, {**finest, **named}, method)
        shutil.rmtree(self.folder, ignore_errors=True)


def _make(build: _Build, downsample: Any, tell: Progress, workers: int) -> None:
    """Fill every level, one after the other, because each is read by the next."""
    plans = []
    fine: StoreVolume = build.image.finest
    for level in build.levels:
        coarse = create_level(build.image, build.at(level), _level_info(build.image.finest.info, level))
        plans.append((level, fine, coarse, [box for _, box in _cells_of(fine, coarse, level.factors)]))
        fine = coarse
    total, done = sum(len(boxes) for *_, boxes in plans), 0
    for level, fine, coarse, boxes in plans:
        work = partial(_cell, build, level, fine, coarse, downsample)
        for _ in _in_threads(work, boxes, workers):
            done += 1
            tell(done, total)


def _level_info(finest: VolumeInfo, level: Level) -> VolumeInfo:
    info = finest.with_(shape=level.shape, grid=level.grid)
    # The mean of affinities over (p, p + offset) is about no pair of coarse voxels: such a level states no kind.
    return info.with_(kind=None, neighborhood=None) if finest.neighborhood is not None else info


def _cells_of(fine: Volume, coarse: Volume, factors: Vec) -> Iterator[tuple[Vec, Box]]:
    budget = FINE_BYTES // prod(factors)
    return cells(coarse.info.box, bounded_cell(coarse, coarse.info.chunks or (_SUB_STEP,) * 3, budget))


def _cell(build: _Build, level: Level, fine: Volume, coarse: Volume, downsample: Any, box: Box) -> None:
    """Downsample one cell; a large one (a shard) is read in parts and still written in one step."""
    stage = f"{level.name.replace('/', '_')}-" + "-".join(map(str, (*box.start, *box.shape)))
    if build.journal.is_done(stage, build.key):
        return
    with build.journal.record(stage, build.key):
        out = np.empty(coarse.info.shape_of(box), coarse.info.dtype)
        z, y, x = (min(n, _SUB_STEP) for n in box.shape)
        step = bounded_cell(coarse, (z, y, x), FINE_BYTES // prod(level.factors))
        for _, part in cells(Box.whole(box.shape), step):
            here = part.shift(box.start)
            source = Box.of(
                *(tuple(v * f for v, f in zip(at, level.factors, strict=True)) for at in (here.start, here.stop))
            )
            out[..., *part.slices()] = downsample(fine.read(source.intersect(fine.info.box)), level.factors)
        coarse.write(box, out)


def _in_threads(work: Callable[[Box], None], boxes: list[Box], workers: int) -> Iterator[None]:
    """Yield once per finished box; the first failure stops the boxes that have not begun, and is raised."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        pending: set[Future[None]] = {pool.submit(work, box) for box in boxes}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                    yield
        finally:
            for future in pending:
                future.cancel()
