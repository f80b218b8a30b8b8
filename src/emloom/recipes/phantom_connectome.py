"""The demo: a phantom with planted damage goes the whole way, from the raw stack to a connectome that is known.

::

    phantom of TISSUE   folder `data/tissue`: labelled; a network learns neurons on it
    phantom of WHOLE    cut and damaged as DAMAGE says, folder `data/stack`: sections shifted, one lost, one
                        blurred, one torn; nobody learns on it
    connectome(data)    qc, align, repair, train, predict, segment, synapses, connectome; scored against the truth

Synapses are found by a network that comes with emloom, `phantom-sites`, which learned on another phantom (see its
card): learning them takes longer than a demo may. There are ten times as many synapses as in neuropil, and half of
the pre sites have several post sites.
"""

from __future__ import annotations

from pathlib import Path

from emloom.io.files import staged
from emloom.recipes.phantom import demo
from emloom.tasks.pipelinespec import (
    AlignStage,
    NeuronsStage,
    PipelineJob,
    QcStage,
    RepairStage,
    SynapsesStage,
    TrainedHere,
    TrainedModel,
    TruthSpec,
)
from emloom.tasks.synapsedecoders import EvidenceSpec, SitesDecoder
from emloom.testing.damage import Damaged, write_damaged
from emloom.testing.damagespec import BadSections, CrackDamage, DamageSpec, ShiftDamage
from emloom.testing.phantom import Phantom, PhantomSpec, SynapsesSpec, write_phantom

_SYNAPSES = SynapsesSpec(per_um3=20.0)
TISSUE = PhantomSpec(shape=(112, 208, 208), seed=1, neurite_nm=110.0, noise=16.0, synapses=_SYNAPSES)
"""The tissue that is learned: 0.9 x 1.7 x 1.7 micrometres at 8 nm."""
WHOLE = PhantomSpec(shape=(80, 208, 208), seed=5, neurite_nm=110.0, noise=16.0, synapses=_SYNAPSES)
"""Another tissue, before it was damaged."""
DAMAGE = DamageSpec(
    seed=1,
    margin_px=-16,
    shift=ShiftDamage(jitter_px=3.0, walk_px=0.5, whole=True),
    cracks=CrackDamage(sections=(56,)),
    bad=BadSections(sections=(24, 40), kinds=("black", "blurred")),
)
"""What became of it: a stack of 80 x 176 x 176 voxels."""

DECODER = SitesDecoder(
    pre=EvidenceSpec(threshold=0.5, min_size_vox=250),
    post=EvidenceSpec(threshold=0.3, min_size_vox=250),
    max_distance_nm=200.0,
)
"""How sites become synapses; chosen on phantoms of seeds 2 and 3."""


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


def connectome(data: str = "demo/phantom", seed: int = 0, steps: int = 200) -> PipelineJob:
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
        synapses=SynapsesStage(source=TrainedModel(model="phantom-sites"), orientations=8, decoder=DECODER),
        truth=TruthSpec(labels=f"{stack}/labels.zarr", synapses=f"{stack}/synapses.parquet"),
    )
