"""FIB-25: isotropic FIB-SEM of the fly medulla, a 250^3 crop with dense neuron ids (CC BY).

Held out are four blocks in corners, two to choose the checkpoint and the threshold, two to score once; training
keeps 260 nm (the reach of the descriptors) from all of them. The corner at z 170, y 0, x 150 is no place to
validate: a quarter of it is sheets of glia, which no threshold segments and which pull the choice towards merging
everything.
"""

from __future__ import annotations

from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.recipes.paths import data_file
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.segmentspec import AscentSpec, SegmentSpec

_HELD_OUT = (80, 100, 100)
TEST = (BoxSpec(start=(0, 0, 150), shape=_HELD_OUT), BoxSpec(start=(170, 150, 0), shape=_HELD_OUT))
"""Scored once: no training of these recipes came near, nor the choice of a threshold."""


def stack(data: str | None = None) -> StackSpec:
    """Return the labelled stack and its split; `data` is the folder of the data sets."""
    file = data_file("fib25/trvol2_250.h5", data)
    return StackSpec(
        raw=f"{file}/volumes/raw",
        labels=f"{file}/volumes/labels/neuron_ids",
        validation=(BoxSpec(start=(0, 150, 0), shape=_HELD_OUT), BoxSpec(start=(170, 0, 0), shape=_HELD_OUT)),
        test=TEST,
        gap_nm=260.0,
        references={
            "oversegmentation": f"{file}/volumes/labels/oversegmentation",
            "FFN": f"{file}/volumes/labels/ffn_seg",
        },
    )


def quick(seed: int = 0, data: str | None = None, steps: int = 1000) -> NeuronsJob:
    """Return the two-core variant: a lean network, about ten minutes in float32, two with bf16 units."""
    return NeuronsJob(
        name="fib25-quick",
        data=(stack(data),),
        objective=NeuronsObjective(lsd_downsample=(2, 2, 2)),
        network=UNetSpec.lean(isotropic=True),
        training=TrainingSpec(steps=steps, seed=seed, crop_shape_vox=(64, 64, 64), validate_every=200),
        segmentation=SegmentSpec(fragments=AscentSpec()),
    )


def full(seed: int = 0, data: str | None = None) -> NeuronsJob:
    """Return the variant for a GPU: the network of Sheridan et al. 2023 and its long training."""
    return NeuronsJob(
        name="fib25-full",
        data=(stack(data),),
        objective=NeuronsObjective(),
        network=UNetSpec.mtlsd(isotropic=True),
        training=TrainingSpec(
            steps=100_000,
            seed=seed,
            crop_shape_vox=(72, 72, 72),
            optimizer=OptimizerSpec(learning_rate=5e-5),
            validate_every=2000,
            precision="bf16-mixed",
        ),
        segmentation=SegmentSpec(fragments=AscentSpec()),
    )
