"""What a learned detector found, put into the map of quality control.

A detector says on a lattice of its own, one voxel per patch, with voxel size and offset that say where patches
lie: coded logits (`emloom artifacts predict`), what was found in them (`clean`, a mask), or probabilities. Tiles
of the map ask what it says at their centres; to `JudgeTiles` the answer is one more rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import open_volume
from emloom.io.volume import Kind
from emloom.ops.logits import decode_probabilities
from emloom.tasks.qcspec import ArtifactsSpec

F64 = NDArray[np.float64]


def probabilities_at(artifacts: ArtifactsSpec, tiles: Grid, box: Box) -> F64:
    """Return what a learned detector says at the centre of every tile of a box; 0 where it says nothing.

    Args:
        artifacts: its map.
        tiles: grid of the tiles.
        box: of tiles.

    Raises:
        InputError: its map has channels, or is neither floating nor uint8.
    """
    volume = open_volume(artifacts.path)
    info = volume.info
    if info.channels is not None or not (info.dtype.kind == "f" or info.dtype == np.uint8):
        raise InputError(
            f"{artifacts.path} holds {info.dtype} {info.axes}: give one channel of probabilities, floats of 0 to "
            "1 or uint8 of 0 to 255"
        )
    places, inside = [], []
    for axis in range(3):
        centres = (
            tiles.offset_nm[axis]
            + (np.arange(box.shape[axis]) + box.start[axis] + 0.5) * tiles.voxel_size_nm[axis]
        )
        at = np.floor((centres - info.grid.offset_nm[axis]) / info.grid.voxel_size_nm[axis] + 1e-6).astype(
            np.int64
        )
        inside.append((at >= 0) & (at < info.shape[axis]))
        places.append(np.clip(at, 0, info.shape[axis] - 1))
    low, high = [int(p.min()) for p in places], [int(p.max()) + 1 for p in places]
    values = _probabilities(volume.read(Box.of(low, high)), info.kind)
    out: F64 = values[np.ix_(*(p - a for p, a in zip(places, low, strict=True)))]
    return np.where(np.einsum("i,j,k->ijk", *inside) > 0, np.nan_to_num(out), 0.0)


def _probabilities(values: NDArray[Any], kind: Kind | None) -> F64:
    """Return stored values as probabilities, NaN where nothing is known."""
    if kind == "logits":
        return decode_probabilities(values).astype(np.float64)
    if kind == "mask":
        return np.asarray(values != 0, np.float64)
    return np.asarray(values, np.float64) / (1 if values.dtype.kind == "f" else 255)
