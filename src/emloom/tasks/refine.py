"""Probabilities of classes and their raw to better probabilities, block by block, by a fully connected CRF.

A cell of the volume is refined together with a halo, of which nothing is kept::

    read   ┌──────────────────┐      halo "exact": (iterations + 1) times the reach of the widest kernel
           │ halo  ┌──────┐   │      halo None:    3 standard deviations of the widest kernel
           │       │ cell │   │
           │       └──────┘   │

What that gives:

* the same bits for any number of workers, order of blocks, crash or resume, always;
* with the exact halo, the result of the whole volume at once, but for the rounding to a step of the stored uint8;
  it is affordable where sigmas are a few voxels;
* with another halo, an approximation that depends on the cells: messages from beyond the halo are not heard, and
  those from within are of voxels that have not heard all of theirs.

Grids stand at absolute voxels of the raw (`emloom.ops.bilateralgrid`). Every block makes all iterations: none
stops earlier than its neighbour.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Bounds

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec, blocks
from emloom.geometry.box import add
from emloom.geometry.grid import Vec3
from emloom.io.files import write_text_atomic
from emloom.io.open import create_volume, open_volume
from emloom.io.room import require_room
from emloom.io.volume import Volume
from emloom.ops.crf import FLOOR, Field, mean_field
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.classnames import names_of
from emloom.tasks.crfspec import CrfSpec
from emloom.tasks.lattice import chunk_within, common_box, on_grid_of
from emloom.tasks.predict import OnBlock
from emloom.tasks.qcmask import source_of
from emloom.tasks.refinereport import Told, write_refine_report

Nm = Annotated[float, Bounds(ge=0)]

CLASSES = "classes"
_SIGMAS = 3.0
_SAMPLES = 32  # boxes of the raw that its spread is measured in
_SAMPLE_VOX = 64


class RefineJob(Spec):
    """Refine probabilities of classes by a fully connected CRF (`emloom refine`)."""

    predicted: str
    """Probabilities, one channel per class, as `emloom predict` stores them."""
    raw: str
    """The raw they were predicted from; it may be larger."""
    output: str
    """Container (`.zarr`) to be made, with the volume `classes`."""
    crf: CrfSpec
    names: tuple[str, ...] = ()
    """Of the classes, in the order of the channels; default: as the model that predicted them calls them."""
    mask: str | None = None
    """Voxels where this is 0, or where `emloom qc` found something, keep their probabilities and send nothing."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x) of the raw, only where it does not state it."""
    cell_shape_vox: Vec = (64, 128, 128)
    """Voxels of a block without its halo."""
    halo_nm: Nm | tuple[Nm, Nm, Nm] | Literal["exact"] | None = None
    """Context around a block, one length or (z, y, x); default 3 standard deviations; `exact`: see the docs."""


@dataclass(frozen=True)
class Scene:
    """The opened inputs of a job.

    Attributes:
        predicted: the probabilities.
        raw: the raw.
        mask: not 0 where voxels count, on the grid of the probabilities; None: all do.
        start: voxel of the raw at which the probabilities begin.
    """

    predicted: Volume
    raw: Volume
    mask: Volume | None
    start: Vec

    @classmethod
    def of(cls, predicted: str, raw: str, mask: str | None, voxel_size_nm: Vec3 | None = None) -> Scene:
        """Open inputs; raises `InputError` where they are no probabilities of classes, or off the raw's grid."""
        shares = open_volume(predicted)
        info = shares.info
        if info.channels is None or info.channels < 2 or info.kind in ("affinities", "lsds", "logits"):
            raise InputError(
                f"{predicted} is {info.axes} of {info.kind or 'unknown'} values: give probabilities of two "
                "classes or more, one channel each, e.g. pred.zarr/classes"
            )
        if info.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            raise InputError(f"{predicted} stores {info.dtype}: probabilities are uint8, uint16 or floats")
        grey = open_volume(raw, voxel_size_nm=voxel_size_nm, kind="raw")
        if grey.info.channels is not None:
            raise InputError(f"{raw} is {grey.info.axes}: a CRF looks at a zyx volume of raw")
        box = common_box(shares, grey)
        return cls(shares, grey, None if mask is None else on_grid_of(shares, mask), box.start)

    @property
    def floor(self) -> float:
        """The least probability: half a step where steps are stored, for 0 means anything below that."""
        return floor_of(self.predicted.info.dtype)

    def shares(self, box: Box) -> NDArray[np.float32]:
        """Return probabilities of a box, float32 [L, Z, Y, X] within 0 and 1."""
        return as_shares(self.predicted.read(box))

    def grey(self, box: Box) -> NDArray[Any]:
        """Return the raw of a box of the probabilities."""
        return self.raw.read(box.shift(self.start))


def as_shares(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return stored probabilities as float32 within 0 and 1."""
    most = np.float32(np.iinfo(stored.dtype).max) if stored.dtype.kind == "u" else np.float32(1)
    return stored.astype(np.float32) / most


def floor_of(dtype: np.dtype[Any]) -> float:
    """Return the least probability that stored ones stand for."""
    return FLOOR if dtype.kind == "f" else max(FLOOR, 0.5 / np.iinfo(dtype).max)


@dataclass(frozen=True)
class RefineBlock:
    """Refines one block; a small value that travels to workers.

    Attributes:
        job: what is refined.
        folder: container of the output.
        field: the parameters, in voxels.
        threads: how many work on a block.
    """

    job: RefineJob
    folder: Path
    field: Field
    threads: int

    def __call__(self, block: Block) -> list[Output]:
        """Refine and write the block's voxels; and beside them what changed."""
        scene = Scene.of(self.job.predicted, self.job.raw, self.job.mask, self.job.voxel_size_nm)
        read = block.read.intersect(scene.predicted.info.box)
        inner = block.write.shift(tuple(-s for s in read.start))
        before = scene.shares(read)
        mask = None if scene.mask is None else scene.mask.read(read)
        found = mean_field(
            before,
            scene.grey(read),
            self.field,
            mask_ZYX=mask,
            start=add(scene.start, read.start),
            counted=inner,
            threads=self.threads,
        )
        inside = (slice(None), *inner.slices())
        after = found.probabilities[inside]
        if mask is not None:  # what is not refined stays as it was, to the bit
            after = np.where(mask[inner.slices()] != 0, after, before[inside])
        stored = np.rint(after * 255).astype(np.uint8)
        open_volume(self.folder / CLASSES, writable=True).write(block.write, stored)
        n = len(stored)
        pairs = before[inside].argmax(0).astype(np.int64) * n + stored.argmax(0)
        told = Told(found.energy, np.bincount(pairs.ravel(), minlength=n * n).reshape(n, n).tolist())
        place = f"told/{'_'.join(map(str, block.index))}.json"
        write_text_atomic(self.folder / place, json.dumps(asdict(told)))
        return [Output.voxels(CLASSES, block.write, stored), Output.file(self.folder, place)]


def refine(
    job: RefineJob,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
    discard: bool = False,
    threads: int = 1,
    repair: bool = False,
) -> Path:
    """Refine block by block into a container that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to refine.
        executor: where blocks run; default in this process.
        on_block: called with (blocks done, blocks in all).
        discard: delete the unfinished or finished result of another job in the output's place.
        threads: how many work on a block; the bits do not depend on it.
        repair: go on with a finished result, too: blocks whose markers were removed are made again.

    Returns:
        Path of the report.

    Raises:
        InputError: an input is missing, no probabilities or off the other's grid, a pair names an unknown class, a
            bilateral kernel sees no edges, or the output exists or belongs to another job.
    """
    started = time.perf_counter()
    scene = Scene.of(job.predicted, job.raw, job.mask, job.voxel_size_nm)
    info = scene.predicted.info
    names = names_of(job.predicted, job.names)
    job.crf.penalties(names)  # before anything is read
    box = info.box
    field = job.crf.field(names, info.grid.voxel_size_nm, spread_of(scene), floor=scene.floor)
    space = Workspace(job.output)
    paths = {"predicted": job.predicted, "raw": job.raw, "mask": source_of(job.mask)}
    out = info.with_(dtype=np.dtype(np.uint8), kind="probabilities", chunks=chunk_within(job.cell_shape_vox))
    if not space.folder.exists():
        require_room(space.draft, [out], "refine a part of it (emloom crop)")
    inputs = space.claim("refine", job, paths, discard)
    if repair or not space.finished:
        if not (space.folder / CLASSES).exists():
            create_volume(space.folder / CLASSES, out)
        (space.folder / "told").mkdir(exist_ok=True)
        halo = halo_vox(job, field, info.grid.voxel_size_nm)
        key = key_of("refine", job.model_dump(mode="json", exclude={"output"}), inputs, asdict(field))
        work = RefineBlock(job, space.folder.absolute(), field, threads)
        cells = blocks(box, job.cell_shape_vox, halo)
        run_stage(Stage("refine", key, cells, work), space.folder, executor or Serial(), progress=on_block)
        seconds = {"refine": time.perf_counter() - started}
        spec = job.to_dict() | {"names": list(names)}
        record = write_provenance(space.folder / "provenance.json", spec, inputs, seconds)
        refined = open_volume(space.folder / CLASSES)
        write_refine_report(space.folder, names, (scene.grey, scene.predicted, refined), halo, record)
        space.finish()
    return space.output / "report.html"


def halo_vox(job: RefineJob, field: Field, voxel_size_nm: Vec3) -> Vec:
    """Return the voxels (z, y, x) that are read around a cell."""
    if job.halo_nm == "exact":
        reach = [max(kernel.reach_vox[a] for kernel in field.kernels) for a in range(3)]
        # An update hears as far as the reach, and a kernel's normalisation at the far end hears once further.
        z, y, x = ((field.iterations + 1) * r for r in reach)
    elif job.halo_nm is None:
        z, y, x = (int(np.ceil(_SIGMAS * max(k.sigma_vox[a] for k in field.kernels))) for a in range(3))
    else:
        nm = job.halo_nm if isinstance(job.halo_nm, tuple) else (job.halo_nm,) * 3
        z, y, x = (int(np.ceil(length / size)) for length, size in zip(nm, voxel_size_nm, strict=True))
    return (z, y, x)


def spread_of(scene: Scene) -> float:
    """Return the standard deviation of the raw in up to 32 evenly spread boxes of 64 voxels' edge."""
    cells = blocks(scene.predicted.info.box, _SAMPLE_VOX)
    chosen = [cells[i] for i in sorted({round(v) for v in np.linspace(0, len(cells) - 1, _SAMPLES)})]
    return spread((scene.grey(block.write) for block in chosen), scene.raw.info.source)


def spread(pieces: Any, source: str) -> float:
    """Return the standard deviation of all finite values; raises `InputError` where there is none."""
    count, total, squares = 0, 0.0, 0.0
    for piece in pieces:
        values = piece[np.isfinite(piece)].astype(np.float64)
        count, total, squares = count + values.size, total + values.sum(), squares + (values**2).sum()
    if not count:
        raise InputError(f"{source} holds no finite value: check the raw")
    return float(np.sqrt(max(squares / count - (total / count) ** 2, 0.0)))
