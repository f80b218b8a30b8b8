"""`emloom pyramid out.zarr/raw`: coarser levels beside the finest, so that viewers need not read it all.

Level k + 1 is level k downsampled: the mean of images, the majority of labels and masks (`ops.downsample`). The
work runs cell by cell in bounded memory, cells aligned to the chunks (shards) of the level that is written, and
the result does not depend on the cells or on how many run at once. What a level is called and where it lies, the
format says (`io.levels`).

Nothing that exists is touched until everything new is whole::

    out.zarr/.pyramid.partial/   the levels being made, and a marker for every finished cell
         │ all cells done: levels get their names
         ▼
    out.zarr/1/, out.zarr/2/     not levels yet
         │ one atomic write of the metadata
         ▼
    multiscales: 0, 1, 2         (in other formats the scales of `info`, the attributes of the group, the mags)

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
from emloom.geometry.box import sub
from emloom.geometry.grid import Vec3
from emloom.io.files import explained
from emloom.io.images import image_of
from emloom.io.levels import Image, Level
from emloom.io.open import open_volume
from emloom.io.room import require_room
from emloom.io.volume import Kind, Volume, VolumeInfo
from emloom.ops.downsample import downsample_majority, downsample_mean, in_phase
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
    """Add coarser levels to a volume in zarr (OME-NGFF), N5, precomputed or wkw."""

    image: str
    """The volume: `out.zarr/raw`, `out.n5/raw` (the group of `s0`), `out.precomputed`, `out.wkw/color`."""
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
    grid, box, total = image.finest.info.grid, Box(image.start, image.finest.info.shape), (1, 1, 1)
    levels: list[Level] = []
    while (spec.levels is None and max(box.shape) > SMALL_ENOUGH_VOX) or len(levels) < (spec.levels or 0):
        factors = spec.factors or default_factors(box.shape, grid.voxel_size_nm)
        coarse = box.coarsen(factors)
        if coarse == box:
            if spec.levels is None:
                break
            raise InputError(f"{image.folder} has only {len(levels)} coarser levels: ask for no more")
        phase, total = sub(box.start, _times(coarse.start, factors)), _times(total, factors)
        grid, box = _coarse_grid(grid, factors, phase), coarse
        levels.append(Level(image.name_of(len(levels) + 1, total, grid), box, grid, factors, total, phase))
    return levels


def _times(a: Vec, b: Vec) -> Vec:
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])


def _coarse_grid(grid: Grid, factors: Vec, phase: Vec) -> Grid:
    z, y, x = (s * f for s, f in zip(grid.voxel_size_nm, factors, strict=True))
    return Grid((z, y, x), grid.to_world([-p for p in phase]))


def pyramid(spec: PyramidSpec, progress: Progress | None = None, workers: int | None = None) -> list[Level]:
    """Make the coarser levels of an image and list them in its metadata.

    Args:
        spec: which image and which levels.
        progress: called with (cells done, cells in all).
        workers: threads; default: one per processor. The result is the same for any number.

    Returns:
        The levels made; none where the image is small enough already.

    Raises:
        InputError: a format without levels, or it is a level itself; it has levels already; its kind is unknown or
            its voxel size missing; data are damaged; the disk refuses. The image stays as it was; what was
            finished is kept for the next try.
    """
    volume = open_volume(spec.image, voxel_size_nm=spec.voxel_size_nm, offset_nm=spec.offset_nm, kind=spec.kind)
    image = image_of(volume)
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
        return level.place_in(self.folder)

    def begin(self) -> None:
        """Make the folder, or keep what an interrupted run of the very same job left in it.

        Raises:
            InputError: something that is no level lies where a level shall be, or the levels do not fit the disk.
        """
        kept = (self.folder / f"{self.key}.job").is_file()
        if kept and self.journal.is_done(_ALL_DONE, self.key):
            return
        for level in self.levels:
            if (self.image.folder / level.name).exists() and level.name not in self.image.levels:
                raise InputError(
                    f"{self.image.folder / level.name} is there, but no level: move or delete it first"
                )
        if not kept:
            coarser = [self.image.finest.info.with_(shape=level.box.shape) for level in self.levels]
            require_room(self.folder, coarser, "make fewer levels (--levels)")
            with explained(self.image.folder):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
                (self.folder / f"{self.key}.job").touch()

    def publish(self, method: str) -> None:
        """Give the levels their names, then list them; goes on wherever it was killed."""
        pending = [level for level in self.levels if self.at(level).exists()]
        if len(pending) == len(self.levels):
            self.image.withdraw()
        for level in pending:
            target = self.image.folder / level.name
            if target.exists():
                shutil.rmtree(target)
            self.at(level).rename(target)
        self.image.announce(self.levels, method)
        shutil.rmtree(self.folder, ignore_errors=True)


def _make(build: _Build, downsample: Any, tell: Progress, workers: int) -> None:
    """Fill every level, one after the other, because each is read by the next."""
    made = build.image.create(build.folder, build.levels)
    plans = []
    for level, fine, coarse in zip(build.levels, [build.image.finest, *made], made, strict=False):
        plans.append((level, fine, coarse, list(_cells_of(build.image, level, coarse))))
    total, done = sum(len(boxes) for *_, boxes in plans), 0
    for level, fine, coarse, boxes in plans:
        work = partial(_cell, build, level, fine, coarse, downsample)
        for _ in _in_threads(work, boxes, workers):
            done += 1
            tell(done, total)


def _cells_of(image: Image, level: Level, coarse: Volume) -> Iterator[Box]:
    budget = FINE_BYTES // prod(level.factors)
    origin = level.box.start if image.chunks_on_world else (0, 0, 0)
    step = bounded_cell(coarse, coarse.info.chunks or (_SUB_STEP,) * 3, budget)
    return (box.shift(sub((0, 0, 0), origin)) for _, box in cells(coarse.info.box.shift(origin), step))


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
            low, high = (sub(_times(at, level.factors), level.phase) for at in (here.start, here.stop))
            source = Box.of(low, high).intersect(fine.info.box)
            # The first window of all may begin before the finer level does.
            phase = sub(source.start, low)
            out[..., *part.slices()] = in_phase(downsample, fine.read(source), level.factors, phase)
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
