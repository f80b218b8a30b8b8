"""Maps of artifacts as scored patches: where each patch of a map lies, and the logit that a model gave it.

A map has one voxel per patch of a lattice (`emloom.geometry.lattice`). Its values are logits (floats, or uint8
coded as `emloom.ops.logits` says) or probabilities (floats, or uint8 where 255 is 1). Everything here is in
**logits**: they order as probabilities do, and differ where those are all but 0 or 1.

Only patches that lie wholly in the volume count: those that reach beyond were answered from mirrored voxels, and
nobody can label them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec, blocks
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import NO, UNKNOWN, YES, PatchLabels
from emloom.io.open import open_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.ops.logits import decode_logits

Rows = NDArray[np.int64]
Logits = NDArray[np.float64]

MODEL = "model"
"""Name of a map among annotators."""

SCORE = "score"
"""Column that holds the probability a model gave a patch."""

_MOST_VOXELS = 1 << 22  # of a map, read at once
_SMALLEST, _LARGEST = 1e-12, 1e6
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class ScoredPatches:
    """Patches with what a model says of them.

    Attributes:
        starts: int64 [N, 3], first voxels (z, y, x).
        logits: float64 [N].
        places: int64 [N, 3], voxels of the map.
    """

    starts: Rows
    logits: Logits
    places: Rows

    def taken(self, rows: NDArray[Any]) -> ScoredPatches:
        """Return some rows: a boolean for each, or the numbers of those to take, in their order."""
        return ScoredPatches(self.starts[rows], self.logits[rows], self.places[rows])


@dataclass(frozen=True, eq=False)
class ScoredMap:
    """A map over a volume.

    Attributes:
        volume: one voxel per patch, zyx.
        lattice: its patches; patch (0, 0, 0) is the first voxel.
        raw: of the volume that the patches are of.
    """

    volume: Volume
    lattice: Lattice
    raw: VolumeInfo

    def boxes(self, block: Vec) -> Iterator[Box]:
        """Yield boxes of the map that hold whole blocks of so many voxels (z, y, x) of the map, counted from 0."""
        shape = self.volume.info.shape
        times = [1, 1, 1]
        for axis in (2, 1, 0):
            room = _MOST_VOXELS // max(1, prod(b * k for b, k in zip(block, times, strict=True)))
            times[axis] = max(1, min(room, -(-shape[axis] // block[axis])))
        step = (block[0] * times[0], block[1] * times[1], block[2] * times[2])
        yield from (one.write for one in blocks(self.volume.info.box, step))

    def read(self, box: Box) -> ScoredPatches:
        """Return the patches of a box of the map that lie in the volume and are known, in z, y, x order."""
        there = self.lattice.inside(self.raw.box).intersect(box)
        values = self._logits(there).reshape(-1)
        starts = self.lattice.starts(there)
        return ScoredPatches(starts, values, self.lattice.indices(starts)).taken(np.isfinite(values))

    def at(self, starts_N3: Rows) -> tuple[Logits, NDArray[np.bool_]]:
        """Return the logit of the map's patch nearest to each patch, float64 [N], and whether there is one near.

        Near is at most half a step of the map away along every axis; the logit of the others is NaN.
        """
        starts = np.asarray(starts_N3, np.int64).reshape(-1, 3)
        stride = np.array(self.lattice.stride)
        steps = (starts - np.array(self.lattice.origin)) / stride
        places = np.floor(steps + 0.5).astype(np.int64)
        near = ((places >= 0) & (places < np.array(self.volume.info.shape))).all(axis=1)
        logits = np.full(len(starts), np.nan)
        for z in np.unique(places[near, 0]).tolist():
            rows = np.flatnonzero(near & (places[:, 0] == z))
            low, high = places[rows].min(axis=0), places[rows].max(axis=0) + 1
            found = self._logits(Box.of(low.tolist(), high.tolist()))
            at = places[rows] - low
            logits[rows] = found[at[:, 0], at[:, 1], at[:, 2]]
        return logits, np.isfinite(logits)

    def _logits(self, box: Box) -> Logits:
        return decoded(self.volume.read(box), self.volume.info)


def open_map(path: str, raw: VolumeInfo, patch_vox: Vec) -> ScoredMap:
    """Open a map of a volume.

    Args:
        path: of the map.
        raw: of the volume that its patches are of.
        patch_vox: voxels (z, y, x) of a patch.

    Raises:
        InputError: its voxels are no patches of this shape of this volume, its values are neither logits nor
            probabilities, or it has channels.
    """
    volume = open_volume(path)
    info = volume.info
    if info.channels is not None:
        raise InputError(f"{path} has {info.channels} channels: a map is of one class, such as map.zarr/artifact")
    if info.kind not in ("logits", "probabilities") or not (info.dtype.kind == "f" or info.dtype == np.uint8):
        raise InputError(
            f"{path} holds {info.dtype} of kind {info.kind!r}: a map holds logits or probabilities, float or "
            "uint8; make one with `emloom artifacts predict`"
        )
    return ScoredMap(volume, Lattice.of_map(info.grid, raw.grid, patch_vox), raw)


def decoded(values: NDArray[Any], info: VolumeInfo) -> Logits:
    """Return the values of a map as logits, float64; NaN where nothing is known.

    Probabilities are kept away from 0 and 1, logits within a million.
    """
    if info.kind == "logits":
        logits = decode_logits(values) if info.dtype == np.uint8 else values
        return np.asarray(np.clip(logits.astype(np.float64), -_LARGEST, _LARGEST), np.float64)
    p = values / 255.0 if info.dtype == np.uint8 else values.astype(np.float64)
    p = np.clip(p, _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(p) - np.log1p(-p), np.float64)


def logit(p: float) -> float:
    """Return the logit of a probability.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if not 0 < p < 1:
        raise InputError(f"threshold {p} is not between 0 and 1: give a probability, such as 0.5")
    return log(p) - log(1 - p)


def score_texts(logits_N: Logits) -> NDArray[np.str_]:
    """Return logits as probabilities, [N] texts of six decimals."""
    p = 1 / (1 + np.exp(-np.clip(logits_N, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)))
    texts: NDArray[np.str_] = np.array([f"{value:.6f}" for value in p.tolist()], np.str_).reshape(-1)
    return texts


def labels_of_map(scored: ScoredMap, patches: PatchLabels, threshold: float) -> PatchLabels:
    """Return what a map says of patches, as labels of the first class by an annotator called `model`.

    A patch is yes where its probability is at least the threshold, and unknown where the map has none near it.
    """
    logits, near = scored.at(patches.starts)
    said = np.full((len(patches), 1), UNKNOWN, np.int8)
    said[near, 0] = np.where(logits[near] >= logit(threshold), YES, NO)
    scores = np.full(len(patches), "", object)
    scores[near] = score_texts(logits[near])
    return PatchLabels(
        patches.grid,
        patches.shape,
        patches.starts,
        patches.classes[:1],
        said,
        (MODEL,),
        columns={SCORE: np.array(scores.tolist(), np.str_)},
        source=scored.volume.info.source,
    )


def spelled(sizes: Sequence[int]) -> str:
    """Return ``1 x 140 x 140``."""
    return " x ".join(map(str, sizes))
