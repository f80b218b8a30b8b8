"""Which shape of network segments best, and how many labels it needs: membranes and mitochondria of EPFL.

Three nets of the same number of parameters (`emloom.nn.level_autoencoders`) learn background, membranes and
mitochondria from 1, 5, 20 or 100 % of the labelled training voxels. `studies/labelled_fractions.py` runs all jobs
of these recipes and compares them.

**Split.** At 5 nm neighbouring sections show nearly the same tissue (coherence 0.93 at features of 40 nm and
more), so sections cannot be held out: the split is within the plane, through all sections::

    x  0              576   640          1024
       ┌───────────────┬─────┬────────────┐ y 0
       │               │     │ validation │
       │   training    │ gap ├────────────┤ 256     gap: 64 voxels, 320 nm, everywhere
       │               │     ├────────────┤ 320
       │               │     │    test    │
       └───────────────┴─────┴────────────┘ 768

**Labels.** Known are whole squares of 64 x 64 voxels in single sections, drawn with the seed; those of a smaller
share are among those of a larger one. All nets learn from the same ones, for as many steps, and every crop holds
known voxels.

The raw is from EPFL's hippocampus set (cite Lucchi et al. 2013, doi:10.1109/CVPR.2013.253). Its images come
without an explicit licence: publish nothing that shows them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.io.files import staged
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.nn.augment import AugmentSpec, IntensitySpec
from emloom.nn.level_autoencoders import (
    AtrousAutoencoderSpec,
    FCNAutoencoderSpec,
    LevelSpec,
    UNetAutoencoderSpec,
)
from emloom.nn.objectives.semantic import SemanticClass, SemanticObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.strategies import Foreground
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.recipes.paths import data_file
from emloom.tasks.classspec import BootstrapSpec
from emloom.tasks.data import BoxSpec, MarksSpec, StackSpec
from emloom.tasks.semantic import SemanticJob, SemanticScoring

Net = Literal["fcn", "atrous", "unet"]
PERCENTS = (1, 5, 20, 100)
"""Shares of the training voxels whose labels are known."""

_SHAPES: dict[Net, type[LevelSpec]] = {
    "fcn": FCNAutoencoderSpec,
    "atrous": AtrousAutoencoderSpec,
    "unet": UNetAutoencoderSpec,
}
NETS: tuple[Net, ...] = tuple(_SHAPES)
"""The shapes that are compared."""

_SHAPE = (20, 768, 1024)
_TRAINING = BoxSpec(start=(0, 0, 0), shape=(20, 768, 576))
_VALIDATION = (BoxSpec(start=(3, 0, 640), shape=(1, 256, 384)), BoxSpec(start=(16, 0, 640), shape=(1, 256, 384)))
_TEST = (BoxSpec(start=(8, 320, 640), shape=(4, 448, 384)),)
_GAP_NM = 320.0
_SQUARE = 64
GREY = Preprocessing(low=78.0, high=197.0)
"""First and last percentile of the raw."""
AUGMENT = AugmentSpec(intensity=IntensitySpec(contrast=(0.9, 1.1), brightness=(-0.05, 0.05), gamma=(0.9, 1.1)))
"""Mirrored and transposed, with slight changes of contrast."""
SCORING = SemanticScoring(bootstrap=BootstrapSpec(block_vox=(4, 112, 96), resamples=500))
"""Intervals over 16 parts of the test box."""
_BACKGROUND, _MEMBRANE, _MITOCHONDRION = 1, 2, 3


def quick(
    net: Net = "unet",
    percent: int = 100,
    seed: int = 0,
    folder: str = "labelled_fractions",
    data: str | None = None,
    steps: int = 1000,
) -> SemanticJob:
    """Return the variant for processors: 109,000 weights, trained in a minute on one core (`atrous`: three).

    Args:
        net: `fcn`, `atrous` or `unet`.
        percent: share of the labels, one of `PERCENTS`.
        seed: of labels, weights and crops.
        folder: where labels are prepared, and found again.
        data: the folder of the data sets.
        steps: weight updates.
    """
    training = TrainingSpec(
        steps=steps,
        crop_shape_vox=(1, 128, 128),
        optimizer=OptimizerSpec(learning_rate=3e-3),
        validate_every=max(1, steps // 4),
        seed=seed,
        sampling=around_known(),
        augment=AUGMENT,
        precision="32-true",
    )
    return _job("quick", (net, 4), stack(percent, seed, folder, data), training, f"{percent} % seed {seed}")


def full(
    net: Net = "unet",
    percent: int = 100,
    seed: int = 0,
    folder: str = "labelled_fractions",
    data: str | None = None,
) -> SemanticJob:
    """Return the variant for a GPU: 1.7 million parameters, larger crops, a long training; see `quick`."""
    training = TrainingSpec(
        steps=20_000,
        crop_shape_vox=(1, 192, 192),
        batch_size=16,
        optimizer=OptimizerSpec(learning_rate=1e-3),
        validate_every=1000,
        seed=seed,
        sampling=around_known(),
        augment=AUGMENT,
        precision="bf16-mixed",
    )
    return _job("full", (net, 16), stack(percent, seed, folder, data), training, f"{percent} % seed {seed}")


def stack(percent: int, seed: int, folder: str, data: str | None = None) -> StackSpec:
    """Return the stack with a share of its labels known; labels and masks are prepared where they are not yet.

    Raises:
        InputError: the data are not found.
    """
    file = data_file("epfl_hippocampus/train_z000-019.h5", data)
    where = Path(folder).absolute() / "labels"
    labels, mask = where / "classes.zarr", where / f"known_{percent}_{seed}.zarr"
    if not labels.exists():
        write_classes(file, labels)
    if not mask.exists():
        write_known(labels, mask, percent / 100, seed)
    return StackSpec(
        raw=f"{file}/volumes/raw",
        labels=str(labels),
        marks=MarksSpec(mask=str(mask)),
        region=_TRAINING,
        validation=_VALIDATION,
        test=_TEST,
        gap_nm=_GAP_NM,
    )


def write_classes(file: Path, target: Path) -> None:
    """Write one volume of classes: 1 background, 2 membrane, 3 mitochondrion with its boundary.

    Where a voxel is painted as both, in 0.01 % of the volume, it is mitochondrion.
    """
    volumes = {
        name: open_volume(f"{file}/volumes/labels/{name}")
        for name in ("membranes", "mitochondrion", "mitochondrial_boundaries")
    }
    info = volumes["membranes"].info
    painted = {name: volume.read(info.box) != 0 for name, volume in volumes.items()}
    classes = np.where(painted["membranes"], np.uint8(_MEMBRANE), np.uint8(_BACKGROUND))
    classes[painted["mitochondrion"] | painted["mitochondrial_boundaries"]] = _MITOCHONDRION
    _write(target, VolumeInfo(info.shape, classes.dtype, info.grid, kind="labels"), classes)


def write_known(labels: Path, target: Path, share: float, seed: int) -> None:
    """Write a mask: 1 in the drawn squares of the training region, and everywhere outside of it."""
    info = open_volume(labels).info
    mask = np.ones(info.shape, np.uint8)
    mask[_TRAINING.box.slices()] = squares(_TRAINING.box.shape, share, seed)
    _write(target, VolumeInfo(info.shape, mask.dtype, info.grid, kind="mask"), mask)


def squares(shape: tuple[int, int, int], share: float, seed: int) -> NDArray[np.uint8]:
    """Return a mask of squares of 64 x 64 voxels in single sections that make up a share of the voxels.

    Squares lie on a grid, in an order that the seed draws: a smaller share is a part of a larger one.

    Args:
        shape: voxels (z, y, x), in the section multiples of 64.
        share: 0 to 1; rounded to whole squares, at least one.
        seed: of the order.
    """
    grid = (shape[0], shape[1] // _SQUARE, shape[2] // _SQUARE)
    order = np.random.default_rng(seed).permutation(int(np.prod(grid)))
    chosen = np.zeros(len(order), np.uint8)
    chosen[order[: max(1, round(share * len(order)))]] = 1
    return chosen.reshape(grid).repeat(_SQUARE, axis=1).repeat(_SQUARE, axis=2)


def _job(variant: str, shape: tuple[Net, int], stack: StackSpec, training: TrainingSpec, what: str) -> SemanticJob:
    net, width = shape
    return SemanticJob(
        name=f"{variant} {net} {what}",
        data=(stack,),
        objective=SemanticObjective(
            classes=(
                SemanticClass(name="background", ids=(_BACKGROUND,)),
                SemanticClass(name="membrane", ids=(_MEMBRANE,)),
                SemanticClass(name="mitochondrion", ids=(_MITOCHONDRION,)),
            )
        ),
        network=_SHAPES[net].of(width=width),
        preprocessing=GREY,
        training=training,
        scoring=SCORING,
    )


def around_known() -> Foreground:
    """Return the sampling of crops that hold voxels whose labels are known."""
    # Every class has a label that is not 0, so the foreground is whatever is known.
    return Foreground(probability=1.0, choose="voxel", min_known=0.0)


def _write(target: Path, info: VolumeInfo, array: NDArray[np.uint8]) -> None:
    with staged(target) as folder:
        create_volume(folder, info).write(Box.whole(info.shape), array)
