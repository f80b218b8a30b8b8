"""A tiny damaged stack with synapses on disk, two models that learned it for seconds, and pipelines over it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from emloom.geometry import cells
from emloom.io.open import create_volume
from emloom.io.synapsetable import write_synapse_table
from emloom.nn.augment import AugmentSpec, IntensitySpec
from emloom.nn.hardware import Hardware
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.objectives.partners import PartnersObjective
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.ops.affinities import neighborhood
from emloom.tasks import neurons, synapsejob
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.pipelinespec import PipelineJob
from emloom.tasks.segmentspec import SegmentSpec
from emloom.tasks.synapsedata import SynapseStackSpec
from emloom.tasks.synapsejob import PartnersJob
from emloom.testing.damage import Damaged
from emloom.testing.damagespec import BadSections, DamageSpec, ShiftDamage
from emloom.testing.phantom import Phantom, PhantomSpec, write_phantom

HERE = Hardware("cpu", 1, 0)
BAD = 18
SPEC = PhantomSpec(shape=(40, 128, 128), seed=0, neurite_nm=80.0, synapses={"per_um3": 40.0})  # type: ignore[arg-type]


@cache
def damaged(shifted: bool = True) -> Damaged:
    """The tissue with a lost section, and sections that were moved."""
    shift = ShiftDamage(jitter_px=2.0, whole=True) if shifted else ShiftDamage()
    spec = DamageSpec(seed=3, margin_px=-8, shift=shift, bad=BadSections(sections=(BAD,), kinds=("black",)))
    return Damaged(Phantom(SPEC), spec)


def write_stack(folder: Path, shifted: bool = True) -> Path:
    """Write `raw.zarr`, `labels.zarr`, `clefts.zarr` and `synapses.parquet` of the damaged stack."""
    folder.mkdir(parents=True)
    stack = damaged(shifted)
    assert stack.labels is not None
    assert stack.clefts is not None
    for name, volume in (("raw", stack.raw), ("labels", stack.labels), ("clefts", stack.clefts)):
        out = create_volume(folder / f"{name}.zarr", volume.info)
        for _, box in cells(volume.info.box, (40, 128, 128)):
            out.write(box, volume.read(box))
    write_synapse_table(folder / "synapses.parquet", stack.synapses())
    return folder


def write_tissue(folder: Path) -> Path:
    """Write the whole tissue, on which networks learn."""
    write_phantom(SPEC, folder)
    return folder


_TEST, _VALIDATION = BoxSpec(start=(0, 0, 0), shape=(40, 32, 128)), BoxSpec(start=(0, 96, 0), shape=(40, 32, 128))
_NETWORK = UNetSpec(features=(6, 12), factors=((2, 2, 2),))


def neurons_job(tissue: Path, steps: int = 30) -> NeuronsJob:
    """A job that takes seconds."""
    return NeuronsJob(
        name="tiny",
        data=(
            StackSpec(
                raw=f"{tissue}/raw.zarr", labels=f"{tissue}/labels.zarr", validation=(_VALIDATION,), test=(_TEST,)
            ),
        ),
        objective=NeuronsObjective(variant="affinities", neighborhood=neighborhood(1)),
        network=_NETWORK,
        training=TrainingSpec(
            steps=steps,
            crop_shape_vox=(16, 16, 16),
            optimizer=OptimizerSpec(learning_rate=0.02),
            validate_every=steps,
            augment=AugmentSpec(noise=0.0, intensity=IntensitySpec(gamma=(1.0, 1.0))),
        ),
        segmentation=SegmentSpec(thresholds=(0.3, 0.5, 0.7), cell_shape_vox=(32, 64, 64)),
    )


def partners_job(tissue: Path, steps: int = 20) -> PartnersJob:
    """A job that takes seconds, and learns little."""
    return PartnersJob(
        name="tiny",
        data=(
            SynapseStackSpec(
                raw=f"{tissue}/raw.zarr",
                synapses=f"{tissue}/synapses.parquet",
                neurons=f"{tissue}/labels.zarr",
                validation=(_VALIDATION,),
                test=(_TEST,),
            ),
        ),
        objective=PartnersObjective(pre_radius_nm=40.0, post_radius_nm=40.0),
        network=_NETWORK,
        training=TrainingSpec(steps=steps, crop_shape_vox=(16, 24, 24), validate_every=steps),
    )


def train_models(folder: Path, tissue: Path) -> tuple[Path, Path]:
    """Train both, and return their checkpoints."""
    neurons.run(neurons_job(tissue), folder / "neurons", HERE, until="train")
    synapsejob.run(partners_job(tissue), folder / "partners", HERE, until="train")
    return tuple(folder / name / "train" / "model.safetensors" for name in ("neurons", "partners"))  # type: ignore[return-value]


def pipeline(stack: Path, models: tuple[Path, Path], **changes: Any) -> PipelineJob:
    """The whole way over the stack with models that exist; `changes` replace sections of the file."""
    sites = {"threshold": 0.4, "min_size_vox": 5}
    plain: dict[str, Any] = {
        "name": "tiny",
        "raw": f"{stack}/raw.zarr",
        "qc": {},
        "align": {},
        "repair": {},
        "neurons": {
            "source": {"kind": "model", "model": str(models[0])},
            "segmentation": {"cell_shape_vox": [32, 64, 64]},
            "threshold": 0.5,
        },
        "synapses": {
            "source": {"kind": "model", "model": str(models[1])},
            "decoder": {"kind": "sites", "pre": sites, "post": sites},
        },
        "truth": {"labels": f"{stack}/labels.zarr", "synapses": f"{stack}/synapses.parquet"},
        **changes,
    }
    return PipelineJob.from_dict(plain)
