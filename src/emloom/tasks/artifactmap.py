"""Raw to a map of artifacts, at any size, block by block: one voxel per patch of a lattice that covers the volume.

::

    map.zarr/<class>      uint8, logits coded as `emloom.ops.logits` says, one volume per class of the model;
                          voxel size and offset say where its patches lie (`Lattice.of_map`)

A block is a slab of sections of some tiles. A map is resumable and bit-identical for any division, as every other
prediction is (`emloom.tasks.predict`); a dense map takes `step_vox`^2 times less room than its raw.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Block, blocks
from emloom.geometry.grid import Vec3
from emloom.geometry.lattice import Lattice
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.nn.model import ModelSpec, load
from emloom.nn.objectives.artifacts import ArtifactsObjective
from emloom.nn.patchnet import PatchNet
from emloom.nn.patchpredict import PatchPredictor, map_shape
from emloom.nn.samples import require_voxel_size
from emloom.ops.logits import encode_logits
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.perworker import once
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.lattice import chunk_within
from emloom.tasks.predict import OnBlock

_SLAB = 8  # sections of one block


class MapJob(Spec):
    """Predict the artifacts of a volume (`emloom artifacts predict`)."""

    raw: str
    model: str
    """Checkpoint of a classifier of patches."""
    output: str
    """Container (`.zarr`) to be made, with one volume per class."""
    step_vox: int = Field(default=32, ge=1)
    """Voxels along y and x from patch to patch. Multiples of the encoder's stride (16) are many times faster."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the raw does not state it."""
    any_voxel_size: bool = False
    """Predict although the model was made for another voxel size."""


@dataclass(frozen=True)
class MapBlock:
    """Predicts one block of a map; a small value that travels to workers, which load the network once.

    Attributes:
        job: what is predicted.
        folder: container of the output.
        device: a torch device.
        model_mark: fingerprint of the model.
    """

    job: MapJob
    folder: Path
    device: str
    model_mark: str

    def __call__(self, block: Block) -> list[Output]:
        """Predict and write the block's voxels of the map."""
        key = ("patch predictor", self.model_mark, self.device, self.job.step_vox)
        spec, predictor = once(key, lambda: patch_predictor(self.job.model, self.job.step_vox, self.device))
        coded = encode_logits(predictor.map(open_raw(self.job), block.write))
        written = []
        for name, of_class in zip(class_names(spec), coded, strict=True):
            open_volume(self.folder / name, writable=True).write(block.write, of_class)
            written.append(Output.voxels(name, block.write, of_class))
        return written


def predict_map(
    job: MapJob,
    device: str = "cpu",
    on_block: OnBlock | None = None,
    executor: Executor | None = None,
    discard: bool = False,
) -> str:
    """Predict a map that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to predict.
        device: a torch device.
        on_block: called with (blocks done, blocks in all).
        executor: where blocks run; default in this process.
        discard: delete the unfinished or finished result of another job in the output's place.

    Returns:
        Path of the map of the first class.

    Raises:
        InputError: an input is missing or damaged, the model is no classifier of patches or was made for another
            voxel size, or the output exists or belongs to another job.
    """
    started = time.perf_counter()
    raw = open_raw(job)
    spec, predictor = patch_predictor(job.model, job.step_vox, device)
    if not job.any_voxel_size:
        require_voxel_size(spec, raw.info.grid.voxel_size_nm, raw.info.source)
    info = map_info(predictor.lattice, raw.info)
    shape = (min(_SLAB, info.shape[0]), *predictor.tile(raw.info))
    space = Workspace(job.output)
    inputs = space.claim("map", job, {"raw": job.raw, "model": job.model}, discard, {})
    if not space.finished:
        for name in class_names(spec):
            if not (space.folder / name).exists():
                create_volume(space.folder / name, info.with_(chunks=chunk_within(shape)))
        key = key_of("map", job.model_dump(mode="json", exclude={"output"}), inputs)
        work = MapBlock(job, space.folder.absolute(), device, inputs["model"])
        stage = Stage("map", key, blocks(info.box, shape), work)
        run_stage(stage, space.folder, executor or Serial(), progress=on_block)
        seconds = {"map": time.perf_counter() - started}
        write_provenance(space.folder / "provenance.json", job.to_dict(), inputs, seconds, {"computed_by": device})
        space.finish()
    return str(Path(job.output) / class_names(spec)[0])


def patch_predictor(path: str | Path, step: int, device: str = "cpu") -> tuple[ModelSpec, PatchPredictor]:
    """Return the spec of a checkpoint and the predictor of its patches.

    Raises:
        InputError: the checkpoint is damaged, or no classifier of patches.
    """
    spec, net, _ = load(Path(path))
    if not isinstance(net, PatchNet):
        raise InputError(
            f"{path} learned {spec.objective.kind!r}, not artifacts: name a classifier of patches, or use "
            "`emloom predict`"
        )
    return spec, PatchPredictor(net, spec.preprocessing, step, device)


def open_raw(job: MapJob) -> Volume:
    """Open the raw of a job; raises `InputError` where it is missing, or holds channels."""
    raw = open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw")
    if raw.info.channels is not None:
        raise InputError(f"{job.raw} is {raw.info.axes}: artifacts are found in a zyx volume of raw")
    return raw


def class_names(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of the classes of a classifier of patches; the first is what is looked for."""
    assert isinstance(spec.objective, ArtifactsObjective)  # of a classifier of patches
    return spec.objective.names


def map_info(lattice: Lattice, raw: VolumeInfo) -> VolumeInfo:
    """Return what the map of a raw volume says about itself."""
    return VolumeInfo(map_shape(raw.shape, lattice), np.dtype(np.uint8), lattice.map_grid(raw.grid), kind="logits")
