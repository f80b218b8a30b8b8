"""Raw to affinities with a trained model, at any size, tile by tile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.grid import Vec3
from emloom.io.files import staged
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import Kind, Volume, VolumeInfo
from emloom.nn.averaging import Averaging
from emloom.nn.channels import Affinities, Channels, Descriptors
from emloom.nn.engine import Engine
from emloom.nn.model import ModelSpec, load
from emloom.nn.orientations import orientations
from emloom.nn.predict import Predictor, predict
from emloom.nn.samples import require_voxel_size
from emloom.run.machine import cores
from emloom.run.provenance import fingerprint, write_provenance
from emloom.spec import Spec
from emloom.tasks.data import BoxSpec

OnTile = Callable[[int, int], None]
Orientations = Literal[1, 4, 8, 16]


class PredictJob(Spec):
    """Predict a volume, or a box of it (`emloom predict`)."""

    raw: str
    model: str
    """Checkpoint: a `model.safetensors` written by training."""
    output: str
    """Container (`.zarr`) to be made, with one volume per head: `affinities`, and `lsds` if kept."""
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


def load_predictor(path: str | Path, engine: Engine | None = None) -> tuple[ModelSpec, Predictor]:
    """Return the spec of a checkpoint and the predictor that runs it, on the cores this process may use.

    Raises:
        InputError: the checkpoint is damaged, or the engine is not installed.
    """
    spec, network, _ = load(Path(path))
    engine = engine or Engine()
    if engine.threads is None:
        engine = replace(engine, threads=cores().usable)
    return spec, Predictor(network, spec.preprocessing, engine)


def averaging(spec: ModelSpec, which: int) -> Averaging | None:
    """Return the average over a named set of orientations for the heads of a model; None for a single one."""
    if which == 1:
        return None
    known: dict[str, Channels] = {"affinities": Affinities(spec.objective.neighborhood), "lsds": Descriptors()}
    return Averaging(orientations(which), known)


def predict_volume(job: PredictJob, engine: Engine | None = None, on_tile: OnTile = lambda *_: None) -> str:
    """Predict into a new container that appears only when it is whole.

    Returns:
        What computed it, and why where that was timed.

    Raises:
        InputError: an input is missing or damaged, the voxel size is not the model's, the orientations do not fit,
            or the output exists.
    """
    started = time.perf_counter()
    raw = open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw")
    spec, predictor = load_predictor(job.model, engine)
    box = raw.info.box if job.box is None else job.box.box
    if box.is_empty or not raw.info.box.contains(box):
        raise InputError(f"{box} is empty or leaves {job.raw}, which is {raw.info.box}: choose a box inside it")
    with staged(job.output) as folder:
        outputs = make_outputs(spec, raw, box, folder, job.keep_lsds)
        predict(
            predictor,
            raw,
            outputs,
            box=box,
            tile_shape=job.tile_shape_vox,
            averaging=averaging(spec, job.orientations),
            progress=on_tile,
        )
        seconds = {"predict": time.perf_counter() - started}
        inputs = {path: fingerprint(path) for path in (job.raw, job.model)}
        by = {"computed_by": predictor.backend.name}
        write_provenance(folder / "provenance.json", job.to_dict(), inputs, seconds, by)
    return predictor.backend.name


def make_outputs(
    spec: ModelSpec, raw: Volume, box: Box, folder: Path, keep_lsds: bool = False
) -> Mapping[str, Volume]:
    """Make one empty uint8 volume per head for a box of `raw`; refuses a raw of another voxel size."""
    require_voxel_size(spec, raw.info.grid.voxel_size_nm, raw.info.source)
    return {
        name: create_volume(folder / name, output_info(spec, name, raw.info, box))
        for name in spec.objective.heads
        if keep_lsds or name != "lsds"
    }


def output_info(spec: ModelSpec, head: str, raw: VolumeInfo, box: Box) -> VolumeInfo:
    """Return what a predicted volume says about itself."""
    kind: Kind = "affinities" if head == "affinities" else "lsds"
    more: dict[str, Any] = {"neighborhood": spec.objective.neighborhood} if head == "affinities" else {}
    channels = spec.objective.heads[head]
    return VolumeInfo(box.shape, np.dtype(np.uint8), raw.grid.crop(box), channels, kind=kind, **more)
