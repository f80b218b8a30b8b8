"""A phantom whose affinities are true but in a few planted places, and its segmentation on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Vec
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.ops.affinities import neighborhood
from emloom.ops.contacts import contact_sums, contacts_of
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import AscentSpec, SegmentJob, SegmentSpec
from emloom.testing.phantom import Phantom, PhantomSpec

OFFSETS = neighborhood(1)
SHAPE: Vec = (48, 56, 56)
THRESHOLD = 0.5


@dataclass(frozen=True)
class Planted:
    """What was planted.

    Attributes:
        labels: the truth.
        affinities: uint8 [3, Z, Y, X].
        merged: pairs of neurites across whose membrane affinities say "the same".
        split: the neurite through which a wall of low affinities was drawn, and its section.
    """

    labels: NDArray[np.uint64]
    affinities: NDArray[np.uint8]
    merged: tuple[tuple[int, int], ...]
    split: tuple[int, int]
    phantom: Phantom


@cache
def planted(seed: int = 3) -> Planted:
    """Grow the phantom, and plant two merges and one split."""
    phantom = Phantom(PhantomSpec(shape=SHAPE, seed=seed, neurite_nm=70.0))
    labels = phantom.labels.read(phantom.labels.info.box)
    rng = np.random.default_rng(seed)
    affinities = np.zeros((len(OFFSETS), *SHAPE), np.float64)
    for channel, offset in enumerate(OFFSETS):
        there = np.roll(labels, [-v for v in offset], (0, 1, 2))
        affinities[channel] = np.where(labels == there, 0.9, 0.08)
    sums = contact_sums(contacts := contacts_of(labels, OFFSETS), {})
    pairs = np.argsort(-sums["n"], kind="stable")
    merged: list[tuple[int, int]] = []
    for row in pairs.tolist():
        pair = (int(sums["u"][row]), int(sums["v"][row]))
        if all(end not in other for end in pair for other in merged):
            merged.append(pair)
        if len(merged) == 2:
            break
    for u, v in merged:
        rows = (contacts.u == u) & (contacts.v == v)
        affinities[(contacts.channel[rows], *contacts.p[rows].T)] = 0.56
    taken = {end for pair in merged for end in pair}
    z = SHAPE[0] // 2
    area = {int(k): int((labels[z] == k).sum()) for k in np.unique(labels[z])}
    through = max(
        (k for k in area if k not in taken and min((labels[:z] == k).sum(), (labels[z:] == k).sum()) > 500),
        key=lambda k: area[k],
    )
    wall = (labels[z] == through) & (labels[z - 1] == through)
    assert OFFSETS[0] == (-1, 0, 0)
    affinities[0, z][wall] = 0.44
    noisy = np.clip(affinities + rng.normal(0, 0.02, affinities.shape), 0, 1)
    stored = np.rint(255 * noisy).astype(np.uint8)
    return Planted(labels, stored, tuple(merged), (through, z), phantom)


def write_planted(folder: Path, made: Planted, cell: Vec = (32, 32, 32)) -> tuple[str, str, str]:
    """Write truth, affinities and the segmentation; return their paths."""
    grid = made.phantom.labels.info.grid
    info = VolumeInfo(SHAPE, np.dtype(np.uint8), grid, len(OFFSETS), (16, 16, 16), "affinities", OFFSETS)
    affinities, truth = folder / "pred.zarr" / "affinities", folder / "truth.zarr"
    create_volume(affinities, info).write(info.box, made.affinities)
    labels = VolumeInfo(SHAPE, np.dtype(np.uint64), grid, kind="labels")
    create_volume(truth, labels).write(labels.box, made.labels)
    raw = VolumeInfo(SHAPE, np.dtype(np.uint8), grid, kind="raw")
    create_volume(folder / "raw.zarr", raw).write(raw.box, made.phantom.raw.read(raw.box))
    spec = SegmentSpec(
        fragments=AscentSpec(smoothing_vox=(0, 0, 0), least_affinity=0.7),
        thresholds=(0.2, 0.5),
        cell_shape_vox=cell,
    )
    output = str(folder / "seg.zarr")
    segment(SegmentJob(affinities=str(affinities), output=output, threshold=THRESHOLD, segmentation=spec))
    return str(truth), str(affinities), output
