"""`emloom import in out.zarr`: copy a volume into another format, checked on the way and read back at the end.

The copy runs cell by cell, aligned to the chunks of the target, in bounded memory. After the last cell the target
is opened anew and every cell is read back and compared with a hash of what was read from the source; only then
does it appear under its name. Values are never changed, with one exception that is reported: labels stored as
signed integers become unsigned when none is negative.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box, Vec, cells
from emloom.geometry.grid import Vec3
from emloom.io.checks import require_finite, require_ids
from emloom.io.open import inspect, open_volume, staged_volume
from emloom.io.room import require_room
from emloom.io.volume import Array, Kind, Volume, VolumeInfo
from emloom.spec import Spec
from emloom.tasks.info import bounded_cell

Progress = Callable[[int, int], None]


class ConvertSpec(Spec):
    """Copy one volume into another format."""

    source: str
    """What to read: a file, a folder or pattern of sections, or an array inside a container."""
    target: str
    """Where to write: `out.zarr`, `out.zarr/name` or `out.h5/volumes/raw`; must not exist."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm; needed where the source does not state it, and must agree where it does."""
    offset_nm: Vec3 | None = None
    """World position (z, y, x) in nm of the corner of the first voxel; 0 where nobody states it."""
    kind: Kind | None = None
    """What the values mean; decides which values are refused."""
    neighborhood: tuple[Vec, ...] | None = None
    """For affinities, one ZYX voxel offset per channel."""
    chunk_vox: Vec = (64, 64, 64)
    """Voxels (z, y, x) per chunk of the target."""
    shard_vox: Vec | None = None
    """Voxels per shard file, a multiple of the chunk; fewer, larger files for volumes of many chunks."""
    zarr_format: Literal[2, 3] = 3
    """zarr format of a `.zarr` target; 2 only for tools that cannot read 3."""
    encoding: str | None = None
    """How chunks are compressed, where the target has a choice: `zstd` or `blosc` for `.zarr`."""


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did.

    Attributes:
        source: what was read.
        target: what exists now.
        info: of the target.
        n_cells: number of cells copied, each verified by reading it back.
        changes: what differs from the source, besides its place.
        notes: observations that deserve a look.
    """

    source: str
    target: str
    info: VolumeInfo
    n_cells: int
    changes: tuple[str, ...]
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Return a short paragraph for a person."""
        shape = " x ".join(map(str, self.info.array_shape))
        verified = f"{self.n_cells} {'cell' if self.n_cells == 1 else 'cells'} verified by read-back"
        head = f"{self.source} -> {self.target}: {shape} {self.info.dtype}, {verified}"
        return "\n".join([head, *(f"  {text}" for text in (*self.changes, *self.notes))])


def convert(spec: ConvertSpec, progress: Progress | None = None, box: Box | None = None) -> ConvertReport:
    """Copy a volume, or a box of it, into another format and verify the copy.

    Args:
        spec: what to copy where.
        progress: called with (cells done, cells in all); writing and verifying count separately.
        box: the voxels to copy; the offset of the copy is the corner of the box. Default: all.

    Raises:
        InputError: the box is empty or leaves the volume; the source is unreadable, incomplete or holds values
            that its kind forbids (NaN in floating data; negative, floating or huge labels); the target exists; the
            disk refuses. Nothing is left behind.
    """
    source = open_volume(
        spec.source,
        voxel_size_nm=spec.voxel_size_nm,
        offset_nm=spec.offset_nm,
        kind=spec.kind,
        neighborhood=spec.neighborhood,
    )
    region = source.info.box if box is None else _inside(box, source.info)
    wanted, changes = _target_info(source.info, region, spec)
    require_room(spec.target, [wanted], "copy a part of it (emloom crop)")
    tell = progress or (lambda done, total: None)
    layout: dict[str, Any] = {"zarr_format": spec.zarr_format, "shards": spec.shard_vox, "encoding": spec.encoding}
    with staged_volume(spec.target, wanted, **layout) as target:
        # What the format writes in one piece: a shard, a cube file, a chunk.
        cell = bounded_cell(target, target.info.chunks or spec.chunk_vox)
        boxes = [part for _, part in cells(wanted.box, cell)]
        hashes = []
        for done, part in enumerate(boxes, start=1):
            place = part.shift(region.start)
            array = _checked(source.read(place), place, source.info)
            hashes.append(_hash(array))
            target.write(part, array)
            tell(done, 2 * len(boxes))
        copy = _verify(target, boxes, hashes, lambda done: tell(len(boxes) + done, 2 * len(boxes)))
    info = copy.with_(source=spec.target)
    return ConvertReport(spec.source, spec.target, info, len(boxes), changes, _notes(source.info))


def _inside(box: Box, info: VolumeInfo) -> Box:
    if box.is_empty or not info.box.contains(box):
        raise InputError(f"{box} is empty or leaves {info.source}, which is {info.box}: choose a box inside it")
    return box


def _target_info(info: VolumeInfo, region: Box, spec: ConvertSpec) -> tuple[VolumeInfo, tuple[str, ...]]:
    wanted = info.with_(chunks=spec.chunk_vox, shape=region.shape, grid=info.grid.crop(region))
    if info.kind != "labels" or info.dtype.kind == "u":
        return wanted, ()
    if info.channels is None and info.dtype.kind == "i":
        unsigned = np.dtype(f"u{info.dtype.itemsize}")
        return wanted.with_(dtype=unsigned), (f"labels were {info.dtype}, stored as {unsigned}: none is negative",)
    require_ids(np.zeros(0, info.dtype), info.source)
    return wanted, ()


def _checked(array: Array, box: Box, info: VolumeInfo) -> Array:
    if info.kind == "labels":
        return require_ids(array, info.source)
    require_finite(array, box, info.source)
    return array


def _verify(target: Volume, boxes: list[Box], hashes: list[bytes], tell: Callable[[int], None]) -> VolumeInfo:
    copy = open_volume(target.info.source)
    if copy.info != target.info.with_(source=copy.info.source):
        raise InputError(f"{copy.info.source} reads back as {copy.info}, not as it was written: {target.info}")
    for done, (box, expected) in enumerate(zip(boxes, hashes, strict=True), start=1):
        if _hash(copy.read(box)) != expected:
            raise InputError(
                f"{box} of {copy.info.source} does not read back as it was written: the disk or memory is faulty; "
                "nothing was kept"
            )
        tell(done)
    return copy.info


def _hash(array: Array) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).digest()


def _notes(source: VolumeInfo) -> tuple[str, ...]:
    notes = [note for hit in inspect(source.source) if hit.path == source.source for note in hit.notes]
    unknown = [] if source.kind else ["kind is not stated: pass --kind raw, labels, mask, ..."]
    return (*notes, *unknown)
