"""The connectome of phantoms, found by trained networks: the table of docs/synapses-training.md.

    python studies/phantom_connectome.py OUT [TRAINING_SEED]

Learns synapses on one phantom (`emloom.recipes.phantom_synapses`: `found`, then `sites` twice), chooses thresholds
and the least size of sites on a second, and scores the connectome of three more against their own tables, between
their true neurites. Half an hour on one core; goes on where it was interrupted.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np

from emloom.geometry.synapses import SynapseTable
from emloom.io.synapsetable import read_synapse_table
from emloom.metrics.connections import ConnectionScores, Connectome, connection_scores
from emloom.nn.engine import Engine
from emloom.nn.hardware import Hardware
from emloom.recipes.phantom_synapses import HELD_OUT, TRAINING, found, sites
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.synapsedecoders import EvidenceSpec, SitesDecoder, SynapsesJob
from emloom.tasks.synapsejob import run
from emloom.tasks.synapses import find_synapses
from emloom.testing.phantom import PhantomSpec, write_phantom

CHOSEN_ON, SCORED_ON = 2, (3, 4, 5)
STEPS = (1600, 1200)
"""Of `sites`, each from where the one before ended: the learning rate rises and falls again."""
PRE, POST, SIZES = (0.4, 0.5, 0.6), (0.1, 0.15, 0.2, 0.3), (150, 250, 400)
"""Thresholds of pre and of post sites, and least sizes, of which one each is chosen."""
LARGEST_NM = 200.0
"""From pre to post site; those of phantoms are closer."""


def main(out: Path, seed: int = 0) -> None:
    model = trained(out, seed)
    choices = {how: scores_of(out, model, CHOSEN_ON, how) for how in product(PRE, POST, SIZES)}
    best = max(choices, key=lambda how: choices[how].edge_weight_f1)
    print(f"thresholds {best[0]} (pre), {best[1]} (post), least size {best[2]} voxels, chosen on seed {CHOSEN_ON}")
    names = ("tissue", "precision", "recall", "edge-weight F1", "F1 of connections", "true contacts")
    print(f"| {' | '.join(names)} |\n" + "|---" * len(names) + "|")
    for tissue in (CHOSEN_ON, *SCORED_ON):
        s = choices[best] if tissue == CHOSEN_ON else scores_of(out, model, tissue, best)
        cells = (s.synapse_precision, s.synapse_recall, s.edge_weight_f1, s.f1)
        print(
            f"| seed {tissue} | " + " | ".join(f"{v:.3f}" for v in cells) + f" | {s.true_synapses} |", flush=True
        )


def trained(out: Path, seed: int) -> Path:
    """Train on one phantom; return the model."""
    data, hardware = str(grown(out, TRAINING)), Hardware("cpu", 1, 0)
    folder = out / f"found-{seed}"
    run(found(data, seed), folder, hardware, until="train")
    for number, steps in enumerate(STEPS):
        start = str(folder / "train" / "model.safetensors")
        folder = out / f"sites-{seed}-{number}"
        run(sites(data, seed, steps, start), folder, hardware, until="train")
    return folder / "train" / "model.safetensors"


def grown(out: Path, spec: PhantomSpec) -> Path:
    """Grow a phantom, unless it is there; return its folder."""
    folder = out / f"phantom-{spec.seed}"
    if not (folder / "synapses.parquet").exists():
        write_phantom(spec, folder)
    return folder


def scores_of(out: Path, model: Path, tissue: int, how: tuple[float, float, int]) -> ConnectionScores:
    """Return the scores of the connectome of a phantom that the network never saw."""
    folder = grown(out, HELD_OUT.model_copy(update={"seed": tissue}))
    prediction = out / f"prediction-{model.parts[-3]}-{tissue}.zarr"
    if not (prediction / "provenance.json").exists():
        job = PredictJob(raw=f"{folder}/raw.zarr", model=str(model), output=str(prediction), orientations=8)
        predict_volume(job, Engine())
    pre, post = (EvidenceSpec(threshold=threshold, min_size_vox=how[2]) for threshold in how[:2])
    output = out / f"synapses-{model.parts[-3]}-{tissue}-{how[0]:g}-{how[1]:g}-{how[2]}"
    find_synapses(
        SynapsesJob(
            prediction=str(prediction),
            segmentation=f"{folder}/labels.zarr",
            output=str(output),
            decoder=SitesDecoder(pre=pre, post=post, max_distance_nm=LARGEST_NM),
        )
    )
    true, seen = (edges(read_synapse_table(path)) for path in (folder / "synapses.parquet", output))
    return connection_scores(true, seen)


def edges(table: SynapseTable) -> Connectome:
    """Return the edges of a table, every contact counting once."""
    known = (table.pre_segments != 0) & (table.post_segments != 0)
    return Connectome.from_rows(np.asarray(table.pre_segments[known]), np.asarray(table.post_segments[known]))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:]))
