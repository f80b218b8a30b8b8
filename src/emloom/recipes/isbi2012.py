"""ISBI-2012: serial-section TEM of the fly nerve cord, 20 sections of 512 x 512 with neurite ids (Cardona 2010).

Sections are twelve times thicker than a pixel and imperfectly aligned: the hardest of the three sets in 3D. The
data are free for making and testing non-commercial segmentation software; do not publish weights trained on them.
"""

from __future__ import annotations

from emloom.nn.augment import AugmentSpec, IntensitySpec
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.train import TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.recipes.paths import data_file
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.evaluate import EvaluationSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.segmentspec import QuantileLinkage, SeededSpec, SegmentSpec

NEIGHBORHOOD = (
    (-1, 0, 0),
    (0, -1, 0),
    (0, 0, -1),
    (-2, 0, 0),
    (0, -5, 0),
    (0, 0, -5),
    (0, -15, 0),
    (0, 0, -15),
)
"""Short and long offsets; along z no further than two sections, where neurites can still be followed."""

_TEST = (20, 144, 144)
_VALIDATION = (20, 128, 128)


def stack(data: str | None = None) -> StackSpec:
    """Return the labelled stack and its split; `data` is the folder of the data sets."""
    file = data_file("isbi2012_cardona/train_z00-19.h5", data)
    return StackSpec(
        raw=f"{file}/volumes/raw",
        labels=f"{file}/volumes/labels/neuron_ids",
        validation=(
            BoxSpec(start=(0, 0, 384), shape=_VALIDATION),
            BoxSpec(start=(0, 384, 0), shape=_VALIDATION),
        ),
        test=(BoxSpec(start=(0, 0, 0), shape=_TEST), BoxSpec(start=(0, 368, 368), shape=_TEST)),
        gap_nm=260.0,
    )


def quick(seed: int = 0, data: str | None = None, steps: int = 700) -> NeuronsJob:
    """Return the two-core variant: a lean anisotropic network, about eight minutes."""
    return NeuronsJob(
        name="isbi2012-quick",
        data=(stack(data),),
        objective=NeuronsObjective(
            neighborhood=NEIGHBORHOOD, lsd_sigma_nm=60.0, lsd_downsample=(1, 2, 2), grow_boundary_vox=0
        ),
        network=UNetSpec.lean(isotropic=False),
        training=TrainingSpec(
            steps=steps,
            seed=seed,
            crop_shape_vox=(12, 96, 96),
            augment=AugmentSpec(intensity=IntensitySpec(section_jitter=0.1)),
        ),
        segmentation=SegmentSpec(
            fragments=SeededSpec(per_section=True, seed_distance_vox=10), linkage=QuantileLinkage(quantile=50)
        ),
        evaluation=EvaluationSpec(border_in_plane=True),
    )


def neurons(seed: int = 0, data: str | None = None) -> NeuronsJob:
    """Return the variant for a GPU: the same network, wider, and a long training."""
    job = quick(seed, data)
    return job.model_copy(
        update={
            "name": "isbi2012-neurons",
            "network": job.network.model_copy(update={"features": (48, 96, 192)}),
            "training": job.training.model_copy(
                update={"steps": 20_000, "batch_size": 4, "validate_every": 1000, "precision": "bf16-mixed"}
            ),
        }
    )
