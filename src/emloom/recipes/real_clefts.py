"""Synapses of three real stacks, each in four folds: every quarter is tested by a network that never saw it.

    set     tissue                                       voxels              what is labelled            objects
    isbi    fly nerve cord, serial sections  50 x 4 x 4   20 x 512 x 512     vesicles, densities, both       16
    vnc     the same, another animal     47.5 x 4.6 x 4.6 15 x 1024 x 1024   dark densities                  46
    epfl    rat hippocampus, FIB-SEM          5 x 5 x 5   20 x 768 x 1024    postsynaptic densities          11

Sections show nearly the same tissue as the next, so a stack is split within the plane, through all sections::

    ┌──────────┬──────────┐
    │   test   │          │    the other folds test the other quarters; a validation box in what is left chooses
    │          │ training │    the checkpoint, the threshold and the least size. No crop of a training comes nearer
    ├──────────┘    ┌─────┤    than 32 pixels (128 to 160 nm) to either, nor does what its network sees
    │   training    │ val │
    └───────────────┴─────┘

Quarters are put together again before anything is scored (`emloom.recipes.cleftfolds`), so no synapse is counted
twice because it lies on the border of two.

**Objects** are connected voxels (26 neighbours) of what is labelled: of `isbi` a whole synapse, from the cloud of
vesicles to the densities opposite, for that is what was drawn, and one is drawn in up to eight ids.

Licences: `isbi` is free for making and testing non-commercial segmentation software (cite Cardona et al. 2010);
`vnc` is CC BY-NC-SA 3.0 (Gerhard et al. 2013, doi:10.6084/m9.figshare.856713); of `epfl` (Lucchi et al. 2013,
doi:10.1109/CVPR.2013.253) the images come without an explicit licence. Publish no weights that learned from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emloom.geometry import Vec
from emloom.nn.augment import AffineSpec, AugmentSpec, ElasticSpec, IntensitySpec
from emloom.nn.networks import BackboneSpec
from emloom.nn.objectives.clefts import CleftsObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.strategies import Foreground
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.recipes.paths import data_file
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.synapsejob import CleftsJob

SetName = Literal["isbi", "vnc", "epfl"]
Variant = Literal["mask", "distance"]

FOLDS = 4
GAP_VOX = 32
"""In the plane."""


def _lean(isotropic: bool) -> UNetSpec:
    """Return a net of 0.4 M parameters that works on pixels of 16 to 20 nm.

    It is told all of every 4 x 4 pixels (space to depth) and answers for each of them; a crop of the same cost is
    four times as wide as at 8 to 10 nm, and a synapse needs its surroundings to be told from a membrane.
    """
    net = UNetSpec.lean(isotropic)
    return net.model_copy(update={"features": (16, 32, 64), "stem": (net.stem[0], 4, 4)})


@dataclass(frozen=True)
class CleftSet:
    """A labelled stack.

    Attributes:
        file: below the folder of the data.
        labels: name of the volume of synapses.
        shape: voxels (z, y, x).
        pixel_nm: in the plane.
        validation: of each fold, where (y, x) its validation box starts.
        held_shape: rows and columns of a validation box.
        network: what learns.
        crop_vox: of one sample.
        grey: how raw is scaled: first and last percentile.
        blob_nm: width of the dark blobs that the baseline looks for.
    """

    file: str
    labels: str
    shape: Vec
    pixel_nm: float
    validation: tuple[tuple[int, int], ...]
    held_shape: tuple[int, int]
    network: BackboneSpec
    crop_vox: Vec
    grey: tuple[float, float]
    blob_nm: float


SETS: dict[SetName, CleftSet] = {
    "isbi": CleftSet(
        file="isbi2012_cardona/train_z00-19.h5",
        labels="synapse_ids",
        shape=(20, 512, 512),
        pixel_nm=4.0,
        validation=((128, 384), (320, 384), (128, 384), (64, 128)),
        held_shape=(128, 128),
        network=_lean(isotropic=False),
        crop_vox=(8, 128, 128),
        grey=(31.0, 207.0),
        blob_nm=40.0,
    ),
    "vnc": CleftSet(
        file="vnc_sstem/stack1_z00-14.h5",
        labels="synapse",
        shape=(15, 1024, 1024),
        pixel_nm=4.6,
        validation=((768, 128), (256, 128), (512, 640), (256, 128)),
        held_shape=(256, 256),
        network=_lean(isotropic=False),
        crop_vox=(8, 192, 192),
        grey=(13.0, 216.0),
        blob_nm=30.0,
    ),
    "epfl": CleftSet(
        file="epfl_hippocampus/train_z000-019.h5",
        labels="PSD",
        shape=(20, 768, 1024),
        pixel_nm=5.0,
        validation=((96, 640), (480, 0), (0, 384), (0, 384)),
        held_shape=(192, 256),
        network=_lean(isotropic=True),
        crop_vox=(16, 128, 128),
        grey=(78.0, 197.0),
        blob_nm=20.0,
    ),
}
"""The stacks by name. Validation boxes were placed by looking at labels alone: those with about a sixth of the
synapses outside of the tested quarter."""


def stack(name: SetName, fold: int, data: str | None = None) -> StackSpec:
    """Return a stack with the split of a fold.

    Args:
        name: one of `SETS`.
        fold: 0 to 3, the quarter that is tested: upper left, upper right, lower left, lower right.
        data: the folder of the data sets.

    Raises:
        InputError: the data are not found.
    """
    this = SETS[name]
    file = data_file(this.file, data)
    depth = this.shape[0]
    start = this.validation[fold]
    return StackSpec(
        raw=f"{file}/volumes/raw",
        labels=f"{file}/volumes/labels/{this.labels}",
        test=(quarter(this, fold),),
        validation=(BoxSpec(start=(0, *start), shape=(depth, *this.held_shape)),),
        gap_nm=GAP_VOX * this.pixel_nm,
    )


def quarter(this: CleftSet, fold: int) -> BoxSpec:
    """Return the box that a fold tests."""
    depth, rows, columns = this.shape[0], this.shape[1] // 2, this.shape[2] // 2
    row, column = divmod(fold, 2)
    return BoxSpec(start=(0, row * rows, column * columns), shape=(depth, rows, columns))


def quick(
    name: SetName,
    fold: int = 0,
    seed: int = 0,
    data: str | None = None,
    steps: int = 1000,
    variant: Variant = "mask",
) -> CleftsJob:
    """Return the variant for processors: one crop a step, a fifth to two fifths of a second each on a core.

    Args:
        name: one of `SETS`.
        fold: 0 to 3.
        seed: of weights and crops.
        data: the folder of the data sets.
        steps: weight updates.
        variant: what the network says of a voxel.
    """
    return _job(name, fold, data, variant, _training(name, steps, 1, seed))


def full(
    name: SetName,
    fold: int = 0,
    seed: int = 0,
    data: str | None = None,
    steps: int = 5000,
    variant: Variant = "mask",
) -> CleftsJob:
    """Return the variant for a GPU: eight crops a step; see `quick`."""
    return _job(name, fold, data, variant, _training(name, steps, 8, seed))


def _job(name: SetName, fold: int, data: str | None, variant: Variant, training: TrainingSpec) -> CleftsJob:
    this = SETS[name]
    low, high = this.grey
    return CleftsJob(
        name=f"clefts {name} {variant} fold {fold} seed {training.seed}",
        data=(stack(name, fold, data),),
        objective=CleftsObjective(variant=variant),
        network=this.network,
        preprocessing=Preprocessing(low=low, high=high),
        training=training,
        orientations=8,
    )


def _training(name: SetName, steps: int, batch: int, seed: int) -> TrainingSpec:
    jitter = 0.0 if name == "epfl" else 0.05
    return TrainingSpec(
        steps=steps,
        crop_shape_vox=SETS[name].crop_vox,
        batch_size=batch,
        optimizer=OptimizerSpec(learning_rate=2e-3),
        validate_every=max(1, steps // 3),
        seed=seed,
        sampling=Foreground(probability=0.7),
        augment=AugmentSpec(
            affine=AffineSpec(rotation_deg=(0.0, 360.0), scale=(0.85, 1.18)),
            elastic=ElasticSpec(spacing_nm=(160.0, 160.0, 160.0), sigma_nm=(0.0, 12.0, 12.0)),
            intensity=IntensitySpec(
                contrast=(0.8, 1.2), brightness=(-0.12, 0.12), gamma=(0.75, 1.35), section_jitter=jitter
            ),
        ),
        precision="32-true",
    )
