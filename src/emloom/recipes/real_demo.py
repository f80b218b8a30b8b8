"""The demo on real tissue: neurons of fly medulla by a network that comes with emloom, scored on unseen boxes.

FIB-25 (Takemura et al. 2015, doi:10.1073/pnas.1509820112, CC BY), a cube of 250 voxels at 10 nm. The network
`fib25-lean` learned on a part of it; what is scored are the two boxes that neither its training nor the choice of
its threshold came near (`emloom.recipes.fib25`). The set comes from EMLOOM_DATA, or is downloaded::

    training_sample2/grayscale_maps.h5   raw         voxels
    training_sample2/groundtruth.h5      stack       supervoxels
                                         transforms  [N, 2]: supervoxel, body
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.datasets import dataset, fetch
from emloom.io.download import Progress
from emloom.io.files import staged
from emloom.io.open import create_volume
from emloom.io.volume import Kind, VolumeInfo
from emloom.ops.labels import apply_lut
from emloom.recipes.fib25 import TEST, stack
from emloom.tasks.pipelinespec import NeuronsStage, PipelineJob, QcStage, TrainedModel, TruthSpec

MODEL = "fib25-lean"
THRESHOLD = 0.24
"""Affinity at which merging stops, as the network's validation boxes chose (see its card)."""
_SIZE_NM = (10.0, 10.0, 10.0)
_FILES = ("training_sample2_grayscale_maps.h5", "training_sample2_groundtruth.h5")


def job(folder: str, data: str | None = None, progress: Progress | None = None) -> PipelineJob:
    """Return the pipeline of `emloom demo --real`.

    Args:
        folder: of the demo; a downloaded set is converted into it.
        data: folder of the data sets; default: see `emloom.recipes.paths`.
        progress: told about a download: bytes received, bytes in all.

    Raises:
        InputError: the set is not here and cannot be downloaded.
    """
    try:
        split = stack(data)
        raw, labels = split.raw, str(split.labels)
    except InputError:
        if data is not None:
            raise
        tissue = Path(folder) / "tissue"
        if not tissue.exists():
            download(tissue, progress)
        raw, labels = f"{tissue.absolute()}/raw.zarr", f"{tissue.absolute()}/labels.zarr"
    return PipelineJob(
        name="FIB-25, fly medulla",
        raw=raw,
        qc=QcStage(),
        neurons=NeuronsStage(source=TrainedModel(model=MODEL), threshold=THRESHOLD),
        truth=TruthSpec(labels=labels, boxes=TEST),
    )


def download(tissue: Path, progress: Progress | None = None) -> None:
    """Fetch the two files of the cube, and write them as volumes: ``raw.zarr``, ``labels.zarr``."""
    entry = dataset("fib25")
    here = fetch(replace(entry, files=tuple(f for f in entry.files if f.name in _FILES)), progress).folder
    convert(here / _FILES[0], here / _FILES[1], tissue)


def convert(grey: Path, truth: Path, tissue: Path) -> None:
    """Write the published files as volumes that say where they are.

    Args:
        grey: file with ``raw``, uint8 [Z, Y, X].
        truth: file with ``stack``, supervoxels [Z, Y, X], and ``transforms``, [N, 2]: supervoxel, body.
        tissue: folder to be made.

    Raises:
        InputError: a file does not hold that.
    """
    try:
        with h5py.File(grey) as one, h5py.File(truth) as other:
            raw, supervoxels, table = one["raw"][()], other["stack"][()], other["transforms"][()]
    except (OSError, KeyError) as problem:
        raise InputError(f"{grey} and {truth} are not the published files of FIB-25: {problem}") from None
    if raw.dtype != np.uint8 or raw.ndim != 3 or raw.shape != supervoxels.shape or table.shape[1:] != (2,):
        raise InputError(
            f"{grey} holds {raw.dtype} {raw.shape}, {truth} {supervoxels.shape} and a table of {table.shape}: "
            "expected uint8 voxels, supervoxels of the same shape and a table of two columns"
        )
    order = np.argsort(table[:, 0])
    keys, values = table[order, 0].astype(np.uint64), table[order, 1].astype(np.uint64)
    labels = apply_lut(supervoxels.astype(np.uint64), keys, values)
    with staged(tissue) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        volumes: tuple[tuple[Kind, NDArray[Any]], ...] = (("raw", raw), ("labels", labels))
        for kind, voxels in volumes:
            info = VolumeInfo(voxels.shape, voxels.dtype, Grid(_SIZE_NM), kind=kind)
            create_volume(folder / f"{kind}.zarr", info).write(info.box, voxels)
