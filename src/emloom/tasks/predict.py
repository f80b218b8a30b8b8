"""Raw to what a trained model says about it, at any size, block by block.

Blocks are whole chunks of the output. Each is predicted through the tiles of one lattice of absolute raw voxels
(`emloom.nn.predict`), so its bits do not depend on which block, worker or run computes it::

    raw          |<- tile ->|<- tile ->|<- tile ->|      tiles: multiples of the network's lattice
    output          [c c|c c|c c|c c|c c]                chunks of the output: a part of a tile

A job writes beside its output, in `<name>.unfinished<suffix>`, and goes on there after a crash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec, blocks
from emloom.geometry.grid import Vec3
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.nn.engine import Engine
from emloom.nn.forest import Forest, require_reach
from emloom.nn.model import ModelSpec, load
from emloom.nn.patchnet import PatchNet
from emloom.nn.predict import Predictor, predict, tile_for
from emloom.nn.samples import require_voxel_size
from emloom.nn.shipped import ModelPath
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.machine import cores
from emloom.run.perworker import once, worker_number
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.data import BoxSpec
from emloom.tasks.heads import averaging, blank, codings, output_info, stored_heads
from emloom.tasks.lattice import chunk_within, on_grid_of
from emloom.tasks.qcmask import source_of

OnBlock = Callable[[int, int], None]
Orientations = Literal[1, 4, 8, 16]

_MANY_TILES = 64  # a box off the lattice of tiles is predicted in one block up to here, see `_block_shape`


class PredictJob(Spec):
    """Predict a volume, or a box of it (`emloom predict`)."""

    raw: str
    model: ModelPath
    """Checkpoint: a `model.safetensors` written by training, or the name of one that comes with emloom."""
    output: str
    """Container (`.zarr`) to be made, one volume per head: `affinities` (and `lsds`), `classes`, ..."""
    box: BoxSpec | None = None
    """Only these voxels; default: all."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the raw does not state it."""
    keep_lsds: bool = False
    """Also store the auxiliary descriptors: ten more bytes per voxel."""
    tile_shape_vox: Vec | None = None
    """Voxels per tile; default: as many as fit comfortably in memory."""
    orientations: Orientations = 1
    """Predictions averaged (test-time augmentation): 4 mirrors in the section, 8 all, 16 and transposed."""
    mask: str | None = None
    """Predict only where this is not zero (same grid as the raw), or where `emloom qc`, whose folder this may be,
    found nothing; elsewhere 0. Blocks without any are skipped."""
    any_voxel_size: bool = False
    """Predict although the model was made for another voxel size: to see what a model does with foreign data."""


@dataclass(frozen=True)
class PredictBlock:
    """Predicts one block; a small value that travels to workers, which load the network once.

    Attributes:
        job: what is predicted.
        folder: container of the outputs.
        engine: what computes.
        tile: voxels per tile.
        model_mark: fingerprint of the model; a process keeps a network until another is asked for.
    """

    job: PredictJob
    folder: Path
    engine: Engine
    tile: Vec
    model_mark: str

    def __call__(self, block: Block) -> list[Output]:
        """Predict and write the block's voxels in every output."""
        scene = Scene.of(self.job)
        dtype = scene.raw.info.dtype.str
        spec, predictor = once(
            ("predictor", self.model_mark, self.engine, dtype), lambda: self._load(scene.raw.info)
        )
        box = block.write.shift(scene.box.start)
        wanted = None if scene.mask is None else scene.mask.read(box) != 0
        names = stored_heads(spec, self.job.keep_lsds)
        answers = {name: blank(output_info(spec, name, scene.raw.info, box)) for name in names}
        if wanted is None or wanted.any():
            average = averaging(spec, self.job.orientations)
            predict(predictor, scene.raw, answers, box=box, tile_shape=self.tile, averaging=average)
        written = []
        for name, answer in answers.items():
            if wanted is not None:
                answer.array[...] *= wanted.astype(answer.array.dtype)
            open_volume(self.folder / name, writable=True).write(block.write, answer.array)
            written.append(Output.voxels(name, block.write, answer.array))
        return written

    def _load(self, raw: VolumeInfo) -> tuple[ModelSpec, Predictor]:
        return load_predictor(self.job.model, raw, self.engine.for_worker(worker_number()))


@dataclass(frozen=True)
class Scene:
    """The opened inputs of a job: raw, the box of it that is predicted, and the mask."""

    raw: Volume
    box: Box
    mask: Volume | None

    @classmethod
    def of(cls, job: PredictJob) -> Scene:
        """Open the inputs of a job.

        Raises:
            InputError: one is missing or damaged, the box leaves the raw, or the mask is on another grid.
        """
        raw = open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw")
        box = raw.info.box if job.box is None else job.box.box
        if box.is_empty or not raw.info.box.contains(box):
            raise InputError(
                f"{box} is empty or leaves {job.raw}, which is {raw.info.box}: choose a box inside it"
            )
        return cls(raw, box, None if job.mask is None else on_grid_of(raw, job.mask))


def predict_volume(
    job: PredictJob,
    engine: Engine | None = None,
    on_block: OnBlock | None = None,
    executor: Executor | None = None,
    discard: bool = False,
    repair: bool = False,
) -> str:
    """Predict block by block into a container that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to predict.
        engine: what computes.
        on_block: called with (blocks done, blocks in all).
        executor: where blocks run; default in this process.
        discard: delete the unfinished or finished result of another job in the output's place.
        repair: go on with a finished result, too: blocks whose markers were removed are made again.

    Returns:
        What computed it, and why where that was timed.

    Raises:
        InputError: an input is missing or damaged, the voxel size is not the model's, the orientations do not fit,
            the output exists, or belongs to another job.
    """
    started = time.perf_counter()
    engine = engine or Engine()
    scene = Scene.of(job)
    spec, predictor = load_predictor(job.model, scene.raw.info, engine)
    if not job.any_voxel_size:
        require_voxel_size(spec, scene.raw.info.grid.voxel_size_nm, scene.raw.info.source)
    names = stored_heads(spec, job.keep_lsds)
    average = averaging(spec, job.orientations)
    tile = tile_for(predictor, scene.raw, names, scene.box, average, job.tile_shape_vox)
    shape = block_shape(scene.box, tile)
    space = Workspace(job.output)
    paths = {"raw": job.raw, "model": job.model, "mask": source_of(job.mask)}
    how = {"backend": engine.backend, "precision": engine.precision}
    inputs = space.claim("predict", job, paths, discard, how)
    if repair or not space.finished:
        for name in names:
            info = output_info(spec, name, scene.raw.info, scene.box).with_(chunks=chunk_within(shape))
            if not (space.folder / name).exists():
                create_volume(space.folder / name, info)
        stage = Stage(
            "predict",
            key_of("predict", _science(job), inputs, tile, how),
            blocks(Box.whole(scene.box.shape), shape),
            PredictBlock(job, space.folder.absolute(), engine, tile, inputs["model"]),
        )
        run_stage(stage, space.folder, executor or Serial(), progress=on_block)
        seconds = {"predict": time.perf_counter() - started}
        by = {"computed_by": predictor.backend.name}
        write_provenance(space.folder / "provenance.json", job.to_dict(), inputs, seconds, by)
        space.finish()
    return predictor.backend.name


def block_shape(box: Box, tile: Vec) -> Vec:
    """Return the voxels of an output that one block predicts.

    A box that starts on the lattice of tiles has one tile per block. Another has blocks that cut tiles: where
    there are many, of four tiles along each axis, so that few are predicted twice.
    """
    if not any(start % length for start, length in zip(box.start, tile, strict=True)):
        return tile
    if prod(-(-n // t) for n, t in zip(box.shape, tile, strict=True)) <= _MANY_TILES:
        z, y, x = (-(-n // t) * t for n, t in zip(box.shape, tile, strict=True))
        return (z, y, x)
    return (4 * tile[0], 4 * tile[1], 4 * tile[2])


def load_predictor(path: str | Path, raw: VolumeInfo, engine: Engine | None = None) -> tuple[ModelSpec, Predictor]:
    """Return the spec of a checkpoint and the predictor that runs it on a raw, on the cores this process may use.

    Raises:
        InputError: the checkpoint is damaged, the engine is not installed, or the raw is smaller than the reach of
            a forest's features.
    """
    spec, network, _ = load(Path(path))
    if isinstance(network, PatchNet):
        raise InputError(f"{path} finds artifacts patch by patch: map them with `emloom artifacts predict`")
    if isinstance(network, Forest):
        require_reach(network, raw)
    engine = engine or Engine()
    if engine.threads is None:
        engine = replace(engine, threads=cores().usable)
    return spec, Predictor(network, spec.preprocessing, engine, codings(spec, raw))


def _science(job: PredictJob) -> Mapping[str, Any]:
    # What is not said is left out, so that keys of earlier versions still hold.
    silent = set() if job.any_voxel_size else {"any_voxel_size"}
    return job.model_dump(mode="json", exclude={"output", *silent})
