"""Synapses of a phantom: learned on one tissue in minutes, found in another, whose connectome is known.

::

    phantom of TRAINING   folder `data`: raw.zarr, labels.zarr, clefts.zarr, synapses.parquet
    found(data)           first a network that sees where synapses are: small crops, a balanced loss
    sites(data, start=..) then one that tells pre from post: large crops, every voxel counts alike; and once more
    phantom of HELD_OUT   `emloom synapses`, `emloom connectome`, scored against its own table

`vectors`, `proximity`, `polarity` and `clefts` are the other ways to learn. There are ten times as many synapses
as in neuropil, so that a small volume teaches enough, and half of the pre sites have several post sites.

Why two steps: a loss that lets a rare positive weigh 49 times a negative finds synapses at once, but then a voxel
on the wrong side of the membrane costs nothing; and from a crop as wide as a synapse nobody can tell its sides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emloom.geometry import Vec
from emloom.nn.losses import Bce, Dice, LossSpec, LossSum
from emloom.nn.objectives.clefts import CleftsObjective
from emloom.nn.objectives.partners import PartnersObjective
from emloom.nn.strategies import Foreground
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.transfer import StartSpec
from emloom.nn.unet import UNetSpec
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.synapsedata import SynapseStackSpec
from emloom.tasks.synapsejob import CleftsJob, PartnersJob
from emloom.testing.phantom import PhantomSpec, SynapsesSpec

TRAINING = PhantomSpec(shape=(160, 288, 288), seed=1, synapses=SynapsesSpec(per_um3=20.0))
"""The tissue that is learned: 1.3 x 2.3 x 2.3 micrometres at 8 nm, 79 pre sites with 151 post sites."""
HELD_OUT = PhantomSpec(shape=(128, 224, 224), seed=2, synapses=SynapsesSpec(per_um3=20.0))
"""Another tissue: 32 pre sites with 56 post sites."""

DATA = "phantom-synapses"
"""Where the tissue lies."""

_VALIDATION = (BoxSpec(start=(0, 0, 0), shape=(160, 80, 80)),)
_TEST = (BoxSpec(start=(0, 208, 208), shape=(160, 80, 80)),)
_RADIUS_NM = 56.0
_NETWORK = UNetSpec(features=(16, 32, 64), stem=(2, 2, 2))
_BALANCED = Bce(rarest=0.02)
_ALIKE = LossSum(parts=(Bce(balance=None), Dice()), weights=(4.0, 1.0))
_SMALL, _LARGE = (48, 48, 48), (80, 80, 80)


def _training(seed: int, steps: int, crop: Vec, start: str | None, around: str = "sites") -> TrainingSpec:
    return TrainingSpec(
        steps=steps,
        seed=seed,
        crop_shape_vox=crop,
        validate_every=max(1, steps // 6),
        optimizer=OptimizerSpec(learning_rate=2e-3 if crop == _SMALL else 4e-3),
        sampling=Foreground.from_dict({"around": around}),
        start=None if start is None else StartSpec(model=start),
    )


def _stack(data: str) -> SynapseStackSpec:
    folder = Path(data).resolve()
    return SynapseStackSpec(
        raw=f"{folder}/raw.zarr",
        synapses=f"{folder}/synapses.parquet",
        neurons=f"{folder}/labels.zarr",
        validation=_VALIDATION,
        test=_TEST,
    )


def _partners(
    name: str, data: str, training: TrainingSpec, loss: LossSpec = _ALIKE, **objective: Any
) -> PartnersJob:
    spec = {"pre_radius_nm": _RADIUS_NM, "post_radius_nm": _RADIUS_NM, "mask_loss": loss.to_dict(), **objective}
    return PartnersJob(
        name=f"phantom-{name}",
        data=(_stack(data),),
        objective=PartnersObjective.from_dict(spec),
        network=_NETWORK,
        training=training,
    )


def found(data: str = DATA, seed: int = 0, steps: int = 400) -> PartnersJob:
    """Return the job that learns where synapses are, from which the others start; `data` is a phantom's folder."""
    return _partners("found", data, _training(seed, steps, _SMALL, None), _BALANCED)


def sites(data: str = DATA, seed: int = 0, steps: int = 1600, start: str | None = None) -> PartnersJob:
    """Return the job that learns pre and post balls; `start` is the model of `found`."""
    return _partners("sites", data, _training(seed, steps, _LARGE, start))


def vectors(data: str = DATA, seed: int = 0, steps: int = 1600, start: str | None = None) -> PartnersJob:
    """Return the job that learns post balls and the way to their pre site."""
    training = _training(seed, steps, _LARGE, start)
    return _partners("vectors", data, training, variant="vectors", vector_scale_nm=200.0)


def proximity(data: str = DATA, seed: int = 0, steps: int = 1600, start: str | None = None) -> PartnersJob:
    """Return the job that learns a signed proximity."""
    training = _training(seed, steps, _LARGE, start)
    return _partners("proximity", data, training, variant="proximity", proximity_scale_nm=24.0)


def polarity(data: str = DATA, seed: int = 0, steps: int = 1600, start: str | None = None) -> PartnersJob:
    """Return the job that learns pre, post and either."""
    return _partners("polarity", data, _training(seed, steps, _LARGE, start), variant="polarity")


def clefts(data: str = DATA, seed: int = 0, steps: int = 400) -> CleftsJob:
    """Return the job that learns a mask of clefts, which needs no sides."""
    folder = Path(data).resolve()
    stack = StackSpec(raw=f"{folder}/raw.zarr", labels=f"{folder}/clefts.zarr", validation=_VALIDATION, test=_TEST)
    return CleftsJob(
        name="phantom-clefts",
        data=(stack,),
        objective=CleftsObjective(mask_loss=_BALANCED),
        network=_NETWORK,
        training=_training(seed, steps, _SMALL, None, "labels"),
    )
