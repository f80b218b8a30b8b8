"""The demo: a phantom with planted damage goes the whole way, from the raw stack to a connectome that is known.

::

    phantom of TISSUE   folder `data/tissue`: labelled; two networks learn on it, one neurons and one clefts
    phantom of WHOLE    cut and damaged as DAMAGE says, folder `data/stack`: sections shifted, one lost, one
                        blurred, one torn; nobody learns on it
    connectome(data)    qc, align, repair, train, predict, segment, synapses, connectome; scored against the truth

There are twenty times as many synapses as in neuropil, each with one post site, so that a small volume teaches
enough in minutes. The network learns where clefts are, not which side sends: edges have no direction.
"""

from __future__ import annotations

from pathlib import Path

from emloom.io.files import staged
from emloom.nn.losses import Bce
from emloom.nn.objectives.clefts import CleftsObjective
from emloom.nn.strategies import Foreground
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.recipes.phantom import demo
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.pipelinespec import (
    AlignStage,
    NeuronsStage,
    PipelineJob,
    QcStage,
    RepairStage,
    SynapsesStage,
    TrainedHere,
    TruthSpec,
)
from emloom.tasks.synapsejob import CleftsJob
from emloom.testing.damage import Damaged, write_damaged
from emloom.testing.damagespec import BadSections, CrackDamage, DamageSpec, ShiftDamage
from emloom.testing.phantom import Phantom, PhantomSpec, SynapsesSpec, write_phantom

_SYNAPSES = SynapsesSpec(per_um3=40.0, polyads=0.0)
TISSUE = PhantomSpec(shape=(112, 208, 208), seed=1, neurite_nm=110.0, noise=16.0, synapses=_SYNAPSES)
"""The tissue that is learned: 0.9 x 1.7 x 1.7 micrometres at 8 nm."""
WHOLE = PhantomSpec(shape=(80, 208, 208), seed=2, neurite_nm=110.0, noise=16.0, synapses=_SYNAPSES)
"""Another tissue, before it was damaged."""
DAMAGE = DamageSpec(
    seed=1,
    margin_px=-16,
    shift=ShiftDamage(jitter_px=3.0, walk_px=0.5, whole=True),
    cracks=CrackDamage(sections=(56,)),
    bad=BadSections(sections=(24, 40), kinds=("black", "blurred")),
)
"""What became of it: a stack of 80 x 176 x 176 voxels."""

_VALIDATION = (BoxSpec(start=(0, 0, 0), shape=(112, 64, 80)),)
_TEST = (BoxSpec(start=(0, 144, 128), shape=(112, 64, 80)),)


def write_data(folder: str | Path) -> Path:
    """Write the tissue and the damaged stack; return the folder. What is there already is kept."""
    place = Path(folder)
    if not (place / "tissue").exists():
        with staged(place / "tissue") as path:
            write_phantom(TISSUE, path)
    if not (place / "stack").exists():
        with staged(place / "stack") as path:
            write_damaged(Damaged(Phantom(WHOLE), DAMAGE), path)
    return place


def clefts(data: str = "demo/phantom", seed: int = 0, steps: int = 320) -> CleftsJob:
    """Return the job that learns clefts on the tissue."""
    tissue = Path(data).resolve() / "tissue"
    stack = StackSpec(raw=f"{tissue}/raw.zarr", labels=f"{tissue}/clefts.zarr", validation=_VALIDATION, test=_TEST)
    return CleftsJob(
        name="clefts of the demo",
        data=(stack,),
        objective=CleftsObjective(mask_loss=Bce(rarest=0.05)),
        network=UNetSpec(features=(12, 24, 48), stem=(2, 2, 2)),
        training=TrainingSpec(
            steps=steps,
            seed=seed,
            crop_shape_vox=(48, 48, 48),
            validate_every=80,
            optimizer=OptimizerSpec(learning_rate=4e-3),
            sampling=Foreground(around="labels"),
        ),
    )


def connectome(data: str = "demo/phantom", seed: int = 0, steps: int = 150) -> PipelineJob:
    """Return the pipeline of `emloom demo`; `data` is a folder written by `write_data`."""
    folder = Path(data).resolve()
    stack = folder / "stack"
    return PipelineJob(
        name="demo",
        raw=f"{stack}/raw.zarr",
        qc=QcStage(),
        align=AlignStage(),
        repair=RepairStage(),
        neurons=NeuronsStage(source=TrainedHere(job=demo(str(folder / "tissue"), seed, steps))),
        synapses=SynapsesStage(source=TrainedHere(job=clefts(str(folder), seed))),
        truth=TruthSpec(labels=f"{stack}/labels.zarr", synapses=f"{stack}/synapses.parquet"),
    )
