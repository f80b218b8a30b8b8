"""How the layers of `emloom view` are drawn, and where it looks first.

Raw data get a contrast range from what lies around the first look (the darkest and the brightest hundredth of a
window), predictions are colours that let the raw through, defects have one colour for each kind. The first look is
at the synapse of the highest score, else at the largest neuron, else at the middle of the first volume, or, where
that is blank, at the nearest place that is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.synapses import SynapseTable
from emloom.io.tables import read_table
from emloom.io.volume import Volume, VolumeInfo
from emloom.tasks.qcspec import CODES
from emloom.tasks.repairspec import INVENTED
from emloom.tasks.synapselines import by_score
from emloom.tasks.viewfolder import Role
from emloom.view.colours import distinct_ids, id_colours
from emloom.view.ngllayers import MASK, PLAIN, Look, grey, heat

_WINDOW = 384  # voxels along y and x that decide the contrast
_PATCH = 48
_MOST_SELECTED = 6
_OPACITY = 0.45
_CANDIDATES = (0.5, 0.25, 0.75, 0.1, 0.9)


def look_of(volume: Volume, role: Role | None, at: Vec | None) -> Look:
    """Return how a volume is drawn.

    Args:
        volume: to be shown.
        role: in the folder it was found in; None: what its kind says.
        at: voxel (z, y, x) of this volume around which contrast is chosen; None: its middle.
    """
    info = volume.info
    if info.kind == "labels" and info.channels is None:
        return _labels_look(role)
    if info.channels is not None:
        return Look(opacity=_OPACITY, visible=role is None or info.kind != "affinities")
    if role == "mask" or (role is None and info.kind == "mask"):
        return _mask_look(info, role)
    if role == "invented":
        return _mask_look(info, role)
    if role == "confidence":
        return Look(shader=heat(info.dtype, "#56b4e9"))
    if role == "prediction" or info.kind in ("probabilities", "affinities", "logits", "lsds"):
        return Look(shader=heat(info.dtype))
    return Look(shader=grey(*contrast(volume, at)))


def _labels_look(role: Role | None) -> Look:
    if role in ("defects", "invented"):
        codes = sorted(CODES.values()) if role == "defects" else sorted(INVENTED)[1:]
        return Look(colours=dict(zip(codes, _hex(len(codes)), strict=True)))
    return Look(visible=False) if role == "hidden labels" else PLAIN


def _mask_look(info: VolumeInfo, role: Role | None) -> Look:
    whole = info.dtype.kind in "ub"
    return Look(shader=MASK if whole and info.dtype.itemsize <= 4 else None, visible=role != "mask")


def _hex(count: int) -> list[str]:
    colours = id_colours(distinct_ids(count))
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours.tolist()]


def contrast(volume: Volume, at: Vec | None) -> tuple[float, float]:
    """Return the grey levels (low, high) of which one in a hundred is darker, and one is brighter, in a window."""
    info = volume.info
    at = at or _middle(info.shape)
    start = [max(0, min(a - w // 2, n - w)) for a, w, n in zip(at, (1, _WINDOW, _WINDOW), info.shape, strict=True)]
    stop = [min(a + w, n) for a, w, n in zip(start, (1, _WINDOW, _WINDOW), info.shape, strict=True)]
    values = np.asarray(volume.read(Box.of(start, stop)), np.float64).ravel()
    # What is 0 is often not recorded; it would take all contrast from what is.
    seen = values[np.isfinite(values) & (values != 0)]
    if not seen.size:
        return (0.0, 255.0) if info.dtype == np.uint8 else (0.0, 1.0)
    low, high = np.percentile(seen, [1, 99]).tolist()
    return float(low), float(high)


def first_look(volumes: Sequence[tuple[str, Volume]], table: SynapseTable | None, neurons: Path | None) -> Vec:
    """Return the voxel of the first volume to look at first; see the module.

    Raises:
        InputError: a volume cannot be read.
    """
    info = volumes[0][1].info
    places = (*_of_synapses(table), *_of_neurons(neurons, volumes))
    for place in places:
        voxel = tuple(int(v) for v in np.floor(info.grid.to_voxel(place)))
        if all(0 <= v < n for v, n in zip(voxel, info.shape, strict=True)):
            return (voxel[0], voxel[1], voxel[2])
    return _not_blank(volumes[0][1])


def _of_synapses(table: SynapseTable | None) -> Iterator[tuple[float, ...]]:
    if table is not None and len(table):
        best = by_score(table)[0]
        yield tuple(((table.pre_nm[best] + table.post_nm[best]) / 2).tolist())


def _of_neurons(folder: Path | None, volumes: Sequence[tuple[str, Volume]]) -> Iterator[tuple[float, ...]]:
    """Yield a place inside the largest neuron: a node of its skeleton, or a voxel of the largest label."""
    if folder is not None and (folder / "skeletons").is_dir() and (largest := largest_neurons(folder)):
        from emloom.io.precomputedskeletons import read_precomputed_skeleton

        try:
            nodes, _, radii = read_precomputed_skeleton(folder / "skeletons", largest[0])
        except InputError:
            return
        if len(nodes):
            yield tuple(nodes[int(np.argmax(radii))].tolist())


def largest_neurons(folder: Path, most: int = _MOST_SELECTED) -> tuple[int, ...]:
    """Return the ids of the largest neurons of an export, largest first; empty where it has no table."""
    if not (folder / "neurons.parquet").is_file():
        return ()
    table = read_table(folder / "neurons.parquet")
    order = np.lexsort((table["id"], -table["voxels"]))[:most]
    return tuple(table["id"][order].tolist())


def _middle(shape: Vec) -> Vec:
    return (shape[0] // 2, shape[1] // 2, shape[2] // 2)


def _not_blank(volume: Volume) -> Vec:
    """Return the place nearest to the middle where values differ; the middle where all is blank."""
    shape = volume.info.shape
    places = sorted(product(_CANDIDATES, repeat=3), key=lambda parts: sum((part - 0.5) ** 2 for part in parts))
    for parts in places:
        at = tuple(min(n - 1, int(part * n)) for part, n in zip(parts, shape, strict=True))
        if np.ptp(_patch(volume, (at[0], at[1], at[2]))) > 0:
            return (at[0], at[1], at[2])
    return _middle(shape)


def _patch(volume: Volume, at: Vec) -> NDArray[np.float64]:
    shape = volume.info.shape
    start = [max(0, min(a - w // 2, n - w)) for a, w, n in zip(at, (1, _PATCH, _PATCH), shape, strict=True)]
    stop = [min(a + w, n) for a, w, n in zip(start, (1, _PATCH, _PATCH), shape, strict=True)]
    return np.asarray(volume.read(Box.of(start, stop)), np.float64)
