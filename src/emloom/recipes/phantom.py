"""The demo: a piece of synthetic tissue, learned and segmented in minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.train import TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.segmentspec import AscentSpec, SegmentSpec
from emloom.testing.phantom import PhantomSpec

PHANTOM = PhantomSpec(shape=(112, 208, 208), seed=1, neurite_nm=110.0, noise=16.0)
"""The tissue of the demo: 0.9 x 1.7 x 1.7 micrometres at 8 nm, thin neurites, a noisy microscope."""

_HELD_OUT = (40, 80, 80)


def demo(data: str = "demo/phantom", seed: int = 0, steps: int = 180) -> NeuronsJob:
    """Return the job of `emloom demo`; `data` is a folder written by `emloom phantom`."""
    folder = Path(data).resolve()
    return NeuronsJob(
        name="demo",
        data=(
            StackSpec(
                raw=f"{folder}/raw.zarr",
                labels=f"{folder}/labels.zarr",
                validation=(
                    BoxSpec(start=(0, 128, 0), shape=_HELD_OUT),
                    BoxSpec(start=(72, 0, 128), shape=_HELD_OUT),
                ),
                test=(BoxSpec(start=(0, 0, 128), shape=_HELD_OUT), BoxSpec(start=(72, 128, 0), shape=_HELD_OUT)),
                gap_nm=160.0,
            ),
        ),
        objective=NeuronsObjective(lsd_sigma_nm=48.0, lsd_downsample=(2, 2, 2)),
        network=UNetSpec.lean(isotropic=True),
        training=TrainingSpec(steps=steps, seed=seed, crop_shape_vox=(40, 48, 48), validate_every=60),
        segmentation=SegmentSpec(fragments=AscentSpec()),
    )
