"""SNEMI3D: serial-section SEM of mouse cortex, a 30 x 512 x 512 crop of the training stack (ODC-By).

Sections are five times thicker than a pixel, so the network pools within sections first and fragments grow in
them, one section at a time. Held out are four columns through all sections, apart from each other and rich in
neurites (a soma fills the lower left: a box there would choose a threshold that merges everything).
"""

from __future__ import annotations

from emloom.nn.augment import AugmentSpec, IntensitySpec
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.recipes.paths import data_file
from emloom.tasks.data import BoxSpec, MarksSpec, StackSpec
from emloom.tasks.evaluate import EvaluationSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.segmentspec import AscentSpec, QuantileLinkage, SegmentSpec

NEIGHBORHOOD = (
    (-1, 0, 0),
    (0, -1, 0),
    (0, 0, -1),
    (-2, 0, 0),
    (0, -4, 0),
    (0, 0, -4),
    (-3, 0, 0),
    (0, -12, 0),
    (0, 0, -12),
)
"""Short and long offsets of about the same reach in nm along every axis."""

_TEST = (30, 144, 144)
_VALIDATION = (30, 128, 128)


def stack(data: str | None = None) -> StackSpec:
    """Return the labelled stack and its split; `data` is the folder of the data sets."""
    file = data_file("snemi3d/crop512_z00-29.h5", data)
    return StackSpec(
        raw=f"{file}/volumes/raw",
        labels=f"{file}/volumes/labels/neuron_ids",
        validation=(
            BoxSpec(start=(0, 0, 384), shape=_VALIDATION),
            BoxSpec(start=(0, 200, 0), shape=_VALIDATION),
        ),
        test=(BoxSpec(start=(0, 0, 0), shape=_TEST), BoxSpec(start=(0, 368, 368), shape=_TEST)),
        gap_nm=210.0,
        # Besides membranes, 0 also covers myelin and whole neurites that nobody painted.
        marks=MarksSpec(background_vox=(0, 5, 5)),
        references={"FFN": f"{file}/volumes/labels/ffn_seg"},
    )


def quick(seed: int = 0, data: str | None = None, steps: int = 1000) -> NeuronsJob:
    """Return the two-core variant: a lean anisotropic network, nine minutes in float32, three with bf16 units."""
    return NeuronsJob(
        name="snemi3d-quick",
        data=(stack(data),),
        objective=_objective(),
        network=UNetSpec.lean(isotropic=False),
        training=TrainingSpec(
            steps=steps,
            seed=seed,
            crop_shape_vox=(14, 96, 96),
            validate_every=200,
            augment=AugmentSpec(intensity=IntensitySpec(section_jitter=0.1)),
        ),
        segmentation=_segmentation(),
        evaluation=EvaluationSpec(border_in_plane=True),
    )


def full(seed: int = 0, data: str | None = None) -> NeuronsJob:
    """Return the variant for a GPU: the anisotropic network of Sheridan et al. 2023 and its long training."""
    return NeuronsJob(
        name="snemi3d-full",
        data=(stack(data),),
        objective=_objective(),
        network=UNetSpec.mtlsd(isotropic=False),
        training=TrainingSpec(
            steps=100_000,
            seed=seed,
            crop_shape_vox=(12, 144, 144),
            optimizer=OptimizerSpec(learning_rate=5e-5),
            validate_every=2000,
            precision="bf16-mixed",
            augment=AugmentSpec(intensity=IntensitySpec(section_jitter=0.1)),
        ),
        segmentation=_segmentation(),
        evaluation=EvaluationSpec(border_in_plane=True),
    )


def _objective() -> NeuronsObjective:
    # The truth leaves membranes at 0 already: there is no boundary to grow.
    return NeuronsObjective(
        neighborhood=NEIGHBORHOOD, lsd_sigma_nm=60.0, lsd_downsample=(1, 2, 2), grow_boundary_vox=0
    )


def _segmentation() -> SegmentSpec:
    return SegmentSpec(fragments=AscentSpec(per_section=True), linkage=QuantileLinkage(quantile=50))
