"""Damage with a known truth: any stack seen through the misfortunes of serial sections.

::

    undamaged --bend--> --turn, squeeze--> --shift--> on the canvas --tear--> --fail--> damaged
        ^                                                                                  |
        '------------------------------------- truth --------------------------------------'

    phantom = Phantom(PhantomSpec.sections((32, 320, 320)))
    damaged = Damaged(phantom, DamageSpec.serial(32, margin_px=-32))
    damaged.raw, damaged.labels     volumes, computed section by section when they are read
    damaged.truth                   `StackMap` from the damaged stack to the undamaged one: what an alignment
                                    should find, up to one map common to all sections
    damaged.clefts, damaged.synapses()      of a phantom that has any
    damaged.bad, damaged.cracked    which sections failed, and how; which are torn

Raw is interpolated (cubic splines), labels are the nearest and 0 where there is no tissue; whole shifts copy.
Every section is still there, also a lost one: its labels are those of the tissue that should have been seen. A
fold displaces tissue beside it, which truth and labels do not know: it stands for a section better left out.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.stackmap import Frame, Layer, StackMap
from emloom.geometry.synapses import SynapseTable
from emloom.io.open import create_volume
from emloom.io.stackmaps import write_stackmap
from emloom.io.synapsetable import SYNAPSES, write_synapse_table
from emloom.io.volume import Volume, VolumeInfo, check_box
from emloom.ops import faults, tears
from emloom.ops.textures import noise_image, places
from emloom.testing.damagemaps import BAD, FAULT, Geometry, canvas, draw
from emloom.testing.damagespec import LOST, DamageSpec, Kind
from emloom.testing.phantom import Phantom

Array = NDArray[Any]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_HELD = 3
_FILM = 0.85


class Damaged:
    """A stack and what became of it; see the module.

    Args:
        whole: a phantom, or raw: uint8.
        spec: what happens.
        labels: of raw, on the same grid; a phantom has its own.

    Attributes:
        spec: what happened.
        raw: uint8 volume, read-only.
        labels: volume of the labels' dtype, read-only; None without labels.
        clefts: uint64 volume, read-only; None without a phantom that grows synapses.
        truth: from the damaged stack to the undamaged one.

    Raises:
        InputError: raw is not uint8 of one channel, labels are on another grid, a section does not exist, or no
            picture is left within the margin.
    """

    def __init__(self, whole: Phantom | Volume, spec: DamageSpec, labels: Volume | None = None) -> None:
        raw = whole.raw if isinstance(whole, Phantom) else whole
        labels = whole.labels if isinstance(whole, Phantom) else labels
        _check(raw, labels, spec)
        self.spec, self._raw = spec, raw
        self._grown = whole if isinstance(whole, Phantom) and whole.spec.synapses.per_um3 > 0 else None
        before = Frame(raw.info.shape, raw.info.grid)
        self._geometry = Geometry(spec, before, canvas(before, spec.margin_px))
        self.truth = StackMap((Layer(self.frame, before, tuple(range(len(self._geometry))), self._geometry),))
        self.raw: Volume = _DamagedVolume(self, raw, self._info(raw, "raw"))
        self.labels: Volume | None = labels and _DamagedVolume(self, labels, self._info(labels, "labels"))
        clefts = self._grown.clefts if self._grown else None
        self.clefts: Volume | None = clefts and _DamagedVolume(self, clefts, self._info(clefts, "labels"))

    @property
    def frame(self) -> Frame:
        """Shape and grid of the damaged stack."""
        return self._geometry.after

    @cached_property
    def bad(self) -> dict[int, Kind]:
        """Sections that failed, in order, and how."""
        return dict(sorted(_bad(self.spec, self.frame.shape[0]).items()))

    @property
    def cracked(self) -> tuple[int, ...]:
        """Sections that are torn."""
        return tuple(sorted(set(self.spec.cracks.sections)))

    @property
    def good(self) -> tuple[int, ...]:
        """Sections that are neither bad nor torn."""
        return tuple(z for z in range(self.frame.shape[0]) if z not in self.bad and z not in self.cracked)

    def synapses(self) -> SynapseTable:
        """Return the true synapses whose sites are still in their neurites' picture; sizes are those before.

        Raises:
            InputError: the stack is no phantom with synapses.
        """
        if self._grown is None or self.labels is None:
            raise InputError(
                f"synapses of {self._raw.info.source} are not known: damage a phantom that grows them"
            )
        table, there = self._grown.synapses(), self.truth.inverse()
        pre, post = there.moved(table.pre_nm), there.moved(table.post_nm)
        keep = self._shows(pre, table.pre_segments) & self._shows(post, table.post_segments)
        return replace(table.rows(keep), pre_nm=pre[keep], post_nm=post[keep], source="damaged synapses")

    def _shows(self, points_nm: F64, segments: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Whether a place is in the picture, and its voxel in the segment."""
        out = np.zeros(len(points_nm), bool)
        assert self.labels is not None
        for i in np.argsort(points_nm[:, 0], kind="stable"):  # section by section
            if np.isfinite(points_nm[i]).all():
                box = Box(self.frame.grid.containing(points_nm[i]), (1, 1, 1))
                out[i] = self.frame.box.contains(box) and self.labels.read(box)[0, 0, 0] == segments[i]
        return out

    def _info(self, volume: Volume, what: Literal["raw", "labels"]) -> VolumeInfo:
        frame, name = self.frame, f"damaged {volume.info.source}"
        return replace(volume.info, shape=frame.shape, grid=frame.grid, kind=what, source=name, chunks=None)

    def _section(self, volume: Volume, z: int) -> Array:
        there = self._geometry.sources(z)
        y, x = volume.info.shape[1:]
        section: Array = volume.read(Box((z, 0, 0), (1, y, x)))[0]
        return self._picture(section, there, z) if volume is self._raw else _nearest(section, there)

    def _gap(self, shape: tuple[int, ...], spacing: tuple[float, float], seed: int) -> F32:
        if self.spec.cracks.shows == "black":
            return np.full(shape, -1.0, np.float32)
        film = _FILM + 0.05 * noise_image(shape, spacing, (200.0, 200.0), 4, places(seed, 1)[0])
        return np.asarray(film + _noise(seed, shape, 5.0), np.float32)

    def _picture(self, section: Array, there: F64, z: int) -> Array:
        inside = _inside(there, section.shape)
        torn = np.isnan(there[..., 0])
        at = np.nan_to_num(np.moveaxis(there, -1, 0), nan=0.5) - 0.5
        grey = ndimage.map_coordinates(section.astype(np.float32), at, order=3, mode="mirror") / 127.5 - 1
        size = self.frame.grid.voxel_size_nm
        spacing = (size[1], size[2])
        seed = _seed(self.spec, FAULT, z)
        if torn.any():
            grey = np.where(torn, self._gap(torn.shape, spacing, seed), grey)
        outside = np.float32(self.spec.outside / 127.5 - 1)
        grey = np.where(inside | torn, grey, outside).astype(np.float32)
        kind = self.bad.get(z)
        if kind is not None:
            failed = _fail(grey, kind, spacing, seed)
            grey = failed if kind in LOST else np.where(inside | torn, failed, outside)
        return np.asarray(np.clip(np.rint((grey + 1) * 127.5), 0, 255), np.uint8)


@dataclass(frozen=True)
class _DamagedVolume:
    """One face of a damaged stack as a read-only volume; keeps the sections it read last."""

    whole: Damaged
    of: Volume
    info: VolumeInfo
    held: dict[int, Array] = field(default_factory=dict, compare=False, repr=False)

    def read(self, box: Box) -> Array:
        """Compute the voxels of `box`; raises `InputError` where it leaves the volume."""
        check_box(self.info, box)
        out = np.empty(box.shape, self.info.dtype)
        _, rows, columns = box.slices()
        for i in range(box.shape[0]) if not box.is_empty else ():
            out[i] = self._section(box.start[0] + i)[rows, columns]
        return out

    def _section(self, z: int) -> Array:
        if z not in self.held:
            while len(self.held) >= _HELD:
                del self.held[next(iter(self.held))]
            self.held[z] = self.whole._section(self.of, z)
        return self.held[z]

    def write(self, box: Box, array: Array) -> None:
        """Raise `InputError`: damage is computed, not stored."""
        raise InputError(f"{self.info.source} is computed and read-only: store it with write_damaged")


def _inside(there: F64, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.asarray(((there >= 0) & (there < np.array(shape))).all(-1))


def _nearest(section: Array, there: F64) -> Array:
    inside = _inside(there, section.shape)
    out = np.zeros(inside.shape, section.dtype)
    out[inside] = section[tuple(np.floor(there[inside]).astype(np.int64).T)]
    return out


# ---- failing --------------------------------------------------------------------------------------------------


def _bad(spec: DamageSpec, depth: int) -> dict[int, Kind]:
    how = spec.bad
    named = list(how.sections)
    closed = {z + step for z in named for step in (-1, 0, 1)} | set(spec.cracks.sections) | {0, depth - 1}
    random = draw(spec, BAD, 0)
    for z in random.permutation(depth).tolist()[: depth if how.fraction else 0]:
        if len(named) - len(how.sections) >= round(how.fraction * depth):
            break
        if z not in closed:
            named.append(z)
            closed |= {z - 1, z, z + 1}
    return {z: how.kinds[i % len(how.kinds)] for i, z in enumerate(named)}


def _fail(grey: F32, kind: Kind, spacing: tuple[float, float], seed: int) -> F32:
    whole = faults.Area()
    match kind:
        case "black":
            return np.full_like(grey, -1.0)
        case "constant":
            return np.full_like(grey, 0.0)
        case "blank":
            film = faults.missing(grey, faults.Missing(whole, 0.5, 0.15, seed), spacing).image
            return film + _noise(seed, grey.shape, 6.0)
        case "faint":
            return faults.faint(grey, faults.Faint(whole, 0.12, 0.3, seed), spacing).image
        case "blurred":
            sigma = 8 * spacing[0], 8 * spacing[1]
            return faults.blur(grey, faults.Blur(whole, sigma, seed), spacing).image
        case "noisy":
            return grey + _noise(seed, grey.shape, 70.0)
        case "folded":
            return tears.fold(grey, _fold(grey.shape, spacing, seed), spacing).image


def _fold(shape: tuple[int, ...], spacing: tuple[float, float], seed: int) -> tears.Fold:
    size = shape[0] * spacing[0], shape[1] * spacing[1]
    width, angle = 0.08 * min(size), np.random.Generator(np.random.Philox(seed)).uniform(0.0, np.pi)
    course = tears.Course((size[0] / 2, size[1] / 2), angle, 0.0, 0.03 * min(size), max(size) / 3, 3 * max(size))
    return tears.Fold(course, width, width, 2 * width, 1.0, -0.2, seed)


def _noise(seed: int, shape: tuple[int, ...], grey_levels: float) -> F32:
    random = np.random.Generator(np.random.Philox(seed))
    return (random.standard_normal(shape, np.float32) * np.float32(grey_levels / 127.5)).astype(np.float32)


def _seed(spec: DamageSpec, topic: int, z: int) -> int:
    return int(draw(spec, topic, z).integers(2**31))


# ---- checks and files -----------------------------------------------------------------------------------------


def _check(raw: Volume, labels: Volume | None, spec: DamageSpec) -> None:
    info = raw.info
    if info.dtype != np.uint8 or info.channels is not None:
        raise InputError(f"{info.source} is {info.axes} of {info.dtype}: only zyx raw of uint8 can be damaged")
    if labels is not None and (labels.info.shape != info.shape or not labels.info.grid.matches(info.grid)):
        raise InputError(f"{labels.info.source} is not on the grid of {info.source}: give labels of this raw")
    depth, *plane = info.shape
    for z in (*spec.cracks.sections, *spec.bad.sections):
        if not 0 <= z < depth:
            raise InputError(f"section {z} cannot be damaged: {info.source} has sections 0 to {depth - 1}")
    if min(plane) + 2 * spec.margin_px < 1:
        raise InputError(f"a margin of {spec.margin_px} px leaves nothing of {plane} px: give a smaller one")


def write_damaged(damaged: Damaged, folder: str | Path) -> tuple[Volume, Volume | None]:
    """Store a damaged stack in a folder.

    Args:
        damaged: the stack.
        folder: receives `raw.zarr`, `labels.zarr` if there are labels, `clefts.zarr` and `synapses.parquet` if
            there are synapses, `damage.yaml` (the spec), `sections.csv` (which failed, which are torn) and
            `truth`, the map to the undamaged stack; created.

    Returns:
        the stored raw and labels.

    Raises:
        InputError: something of that name is there already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    raw = _store(damaged.raw, folder / "raw.zarr")
    labels = damaged.labels and _store(damaged.labels, folder / "labels.zarr")
    if damaged.clefts:
        _store(damaged.clefts, folder / "clefts.zarr")
        write_synapse_table(folder / SYNAPSES, damaged.synapses(), {"segments": "labels.zarr"}, overwrite=False)
    with (folder / "sections.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("section", "bad", "torn"))
        for z in range(damaged.frame.shape[0]):
            table.writerow((z, damaged.bad.get(z, ""), int(z in damaged.cracked)))
    damaged.spec.dump(folder / "damage.yaml")
    write_stackmap(folder / "truth", damaged.truth, {"made by": "planted damage", "seed": damaged.spec.seed})
    return raw, labels


def _store(volume: Volume, path: Path) -> Volume:
    out = create_volume(path, volume.info)
    z, y, x = volume.info.shape
    for first in range(0, z, _HELD):
        box = Box((first, 0, 0), (min(_HELD, z - first), y, x))
        out.write(box, volume.read(box))
    return out


__all__ = ["DamageSpec", "Damaged", "write_damaged"]
