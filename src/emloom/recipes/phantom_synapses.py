"""Synapses of a phantom: learned on one tissue in minutes, found in another, whose connectome is known.

::

    emloom phantom of TRAINING  ──  folder `data`: raw.zarr, labels.zarr, clefts.zarr, synapses.parquet
    sites(data), vectors(data), proximity(data), polarity(data), clefts(data)     one job for each way to learn
    emloom phantom of HELD_OUT  ──  `emloom synapses`, `emloom connectome`, scored against its own table

Two thirds of the synapses of these tissues are polyads or crowded; there are five times as many as in neuropil, so
that a small volume teaches enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emloom.nn.losses import Bce
from emloom.nn.objectives.clefts import CleftsObjective
from emloom.nn.objectives.partners import PartnersObjective
from emloom.nn.strategies import Foreground
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.synapsedata import SynapseStackSpec
from emloom.tasks.synapsejob import CleftsJob, PartnersJob
from emloom.testing.phantom import PhantomSpec, SynapsesSpec

TRAINING = PhantomSpec(shape=(160, 288, 288), seed=1, synapses=SynapsesSpec(per_um3=20.0))
"""The tissue that is learned: 1.3 x 2.3 x 2.3 micrometres at 8 nm, 79 pre sites with 151 post sites."""
HELD_OUT = PhantomSpec(shape=(128, 224, 224), seed=2, synapses=SynapsesSpec(per_um3=20.0))
"""Another tissue: 32 pre sites with 56 post sites."""

_VALIDATION = (BoxSpec(start=(0, 0, 0), shape=(160, 80, 80)),)
_TEST = (BoxSpec(start=(0, 208, 208), shape=(160, 80, 80)),)
_RADIUS_NM = 56.0
_NETWORK = UNetSpec(features=(16, 32, 64), stem=(2, 2, 2))
_LOSS = Bce(rarest=0.02)


def _training(seed: int, steps: int, around: str) -> TrainingSpec:
    sampling = Foreground.from_dict({"around": around, "probability": 0.9})
    return TrainingSpec(
        steps=steps,
        seed=seed,
        crop_shape_vox=(48, 48, 48),
        validate_every=max(1, steps // 6),
        optimizer=OptimizerSpec(learning_rate=2e-3),
        sampling=sampling,
    )


def _partners(variant: str, data: str, seed: int, steps: int, **objective: Any) -> PartnersJob:
    folder = Path(data).resolve()
    stack = SynapseStackSpec(
        raw=f"{folder}/raw.zarr",
        synapses=f"{folder}/synapses.parquet",
        neurons=f"{folder}/labels.zarr",
        validation=_VALIDATION,
        test=_TEST,
    )
    spec = {"variant": variant, "pre_radius_nm": _RADIUS_NM, "post_radius_nm": _RADIUS_NM, **objective}
    return PartnersJob(
        name=f"phantom-{variant}",
        data=(stack,),
        objective=PartnersObjective.from_dict({"mask_loss": _LOSS.to_dict(), **spec}),
        network=_NETWORK,
        training=_training(seed, steps, "sites"),
    )


def sites(data: str = "phantom-synapses", seed: int = 0, steps: int = 1200) -> PartnersJob:
    """Return the job that learns pre and post balls; `data` is a folder of a phantom with synapses."""
    return _partners("sites", data, seed, steps)


def vectors(data: str = "phantom-synapses", seed: int = 0, steps: int = 1200) -> PartnersJob:
    """Return the job that learns post balls and the way to their pre site."""
    return _partners("vectors", data, seed, steps, vector_scale_nm=200.0)


def proximity(data: str = "phantom-synapses", seed: int = 0, steps: int = 1200) -> PartnersJob:
    """Return the job that learns a signed proximity."""
    return _partners("proximity", data, seed, steps, proximity_scale_nm=24.0)


def polarity(data: str = "phantom-synapses", seed: int = 0, steps: int = 1200) -> PartnersJob:
    """Return the job that learns pre, post and either."""
    return _partners("polarity", data, seed, steps)


def clefts(data: str = "phantom-synapses", seed: int = 0, steps: int = 800) -> CleftsJob:
    """Return the job that learns a mask of clefts."""
    folder = Path(data).resolve()
    stack = StackSpec(raw=f"{folder}/raw.zarr", labels=f"{folder}/clefts.zarr", validation=_VALIDATION, test=_TEST)
    return CleftsJob(
        name="phantom-clefts",
        data=(stack,),
        objective=CleftsObjective(mask_loss=_LOSS),
        network=_NETWORK,
        training=_training(seed, steps, "labels"),
    )
