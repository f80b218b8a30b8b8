"""Neuroglancer precomputed through TensorStore: a folder with an ``info``, x first.

https://github.com/google/neuroglancer, "precomputed". Lists in ``info`` are x, y, z, and are turned here::

    seg.precomputed/info                      type, data_type, num_channels, scales: [{key, size, resolution, ...}]
    seg.precomputed/8_8_40/0-64_0-64_0-64     chunk, named by its voxels x, y, z; the folder is the scale's `key`

The volume is its finest scale; ``seg.precomputed/16_16_40`` opens a coarser one by its key. Lengths are nm, and::

    offset_nm = voxel_offset * resolution          whole voxels: another offset cannot be said, and is refused

`type: segmentation` says that values are labels; `type: image` says nothing about them. Our own attribute stands
beside the scales, where neuroglancer ignores it, and is about the finest scale; a coarser one has its own, in its
entry. A chunk that is missing is zero.

Read: raw, compressed_segmentation, png, jpeg, each also sharded, and chunks packed as ``.gz`` files, as
cloud-volume writes them to local disks. Written: raw, and compressed_segmentation for labels of 32 and 64 bits.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import tensorstore

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.box import as_vec
from emloom.geometry.grid import TOLERANCE_VOX
from emloom.io.files import write_text_atomic
from emloom.io.metadata import OWN_KEY, ArrayFacts, Found, Statement, found, own_attribute, read_own
from emloom.io.nodes import load_json
from emloom.io.places import Place, above, exists, inner_name, kvstore, place_of, read_bytes, stays_inside
from emloom.io.remote import as_created, draft_of, is_taken, new_folder
from emloom.io.tensors import StoreVolume, dtype_of, kept_axes, open_store, told
from emloom.io.volume import Array, VolumeInfo, check_box

DEFAULT_CHUNKS: Vec = (64, 64, 64)
DRIVER = "neuroglancer_precomputed"
_ENCODINGS = ("raw", "compressed_segmentation", "png", "jpeg")
_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
_ORDER = (3, 2, 1, 0)
_MEMORY = {"driver": "memory", "path": "unpacked/"}
_PACKED = (".gz", ".br", ".zstd", ".xz", ".bz2")
_WAYS_OUT = {
    "bool": "store it as uint8",
    "int64": "store ids as uint64, or values that fit as int32",
    "float64": "store it as float32, which loses digits, or write .zarr, which does not",
}


@dataclass(frozen=True)
class PrecomputedVolume:
    """One scale of a precomputed volume on a local disk, where chunks may be packed as ``.gz`` files.

    Attributes:
        store: the volume as TensorStore reads it, which does not see packed chunks.
        key: folder of the chunks inside `store.array`.
        start: `voxel_offset` of the scale, (z, y, x).
    """

    store: StoreVolume
    key: str
    start: Vec

    @property
    def folder(self) -> Path:
        """Where the chunks are."""
        return Path(str(self.store.array)) / self.key

    @property
    def info(self) -> VolumeInfo:
        """What the volume says about itself."""
        return self.store.info

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`; a damaged chunk, or one packed in an unknown way, is an `InputError`."""
        check_box(self.info, box)
        names = self._chunks(box)
        packed = [name for name in names if self._packing(name)]
        if not packed:
            return self.store.read(box)
        own = tensorstore.Context()
        memory = tensorstore.KvStore.open(_MEMORY, context=own).result()
        memory.write("info", read_bytes(self.store.array / "info") or b"").result()
        for name in names:
            content = self._unpacked(name)
            if content is not None:
                memory.write(f"{self.key}/{name}", content).result()
        spec = {"driver": DRIVER, "kvstore": _MEMORY, "scale_index": self.store.scale}
        opened = told(tensorstore.open(spec, open=True, context=own), self.info.source)
        values: Array = told(self.store.view_of(opened)[..., *box.slices()].read(), self.info.source)
        return values

    def write(self, box: Box, array: Array) -> None:
        """Replace the voxels of `box`; raises `InputError` where a packed chunk would then be there twice."""
        packed = [name for name in self._chunks(box) if self._packing(name)] if self.store.writable else []
        if packed:
            raise InputError(
                f"{self.info.source} has packed chunks ({packed[0]}): unpack them before writing to it"
            )
        self.store.write(box, array)

    def _chunks(self, box: Box) -> list[str]:
        """Return the names of the chunk files a box touches."""
        chunks, shape = self.info.chunks or self.info.shape, self.info.shape
        if box.is_empty:
            return []
        counts = [range(a // c, (b - 1) // c + 1) for a, b, c in zip(box.start, box.stop, chunks, strict=True)]
        names = []
        for index in product(*counts):
            low = [i * c for i, c in zip(index, chunks, strict=True)]
            high = [min(a + c, n) for a, c, n in zip(low, chunks, shape, strict=True)]
            faces = [f"{o + a}-{o + b}" for o, a, b in zip(self.start, low, high, strict=True)]
            names.append("_".join(reversed(faces)))
        return names

    def _packing(self, name: str) -> str | None:
        if (self.folder / name).exists():
            return None
        return next((suffix for suffix in _PACKED if (self.folder / (name + suffix)).exists()), None)

    def _unpacked(self, name: str) -> bytes | None:
        packing = self._packing(name)
        path = self.folder / (name + (packing or ""))
        if packing not in (None, ".gz"):
            raise InputError(f"{path} is packed in a way emloom does not read: unpack it, or pack it with gzip")
        if packing is None:
            return path.read_bytes() if path.exists() else None
        try:
            return gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error) as problem:
            raise InputError(f"{path} is damaged ({problem}): copy it again") from problem


def is_precomputed(folder: Place) -> bool:
    """Whether a folder of any name is a precomputed volume."""
    if not exists(folder / "info"):
        return False
    try:
        info = load_json(folder / "info") or {}
    except InputError:  # "info" is a common name: what is not JSON is another's
        return False
    return info.get("@type") == "neuroglancer_multiscale_volume" or {"scales", "type"} <= set(info)


def find(container: Place, inner: str) -> list[Found]:
    """Return the volume of a folder, or the scale with the key `inner`.

    Raises:
        InputError: no ``info`` there, or it is damaged, or there is no such scale.
    """
    info = load_json(container / "info")
    if info is None:
        raise InputError(f"{container} holds no precomputed volume (no info file): is it another format?")
    try:
        index = _scale_index(container, info, inner)
        said, axes = _said(info, index, index == _finest(info))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"{container}/info is malformed ({problem!r}): write it anew") from problem
    store = open_store(container, DRIVER, index)
    shape, chunks = _turned(store.shape), _turned(store.chunk_layout.write_chunk.shape)
    if axes == "zyx":
        shape, chunks = shape[1:], chunks[1:]
    path = str(container / inner if inner else container)
    notes = ["its chunks are jpeg: values are not those of the microscope"]
    facts = ArrayFacts(shape, dtype_of(store), chunks)
    hit = found(path, "precomputed", facts, said, notes if info["scales"][index].get("encoding") == "jpeg" else [])
    return [hit if inner else replace(hit, levels=tuple(f"{container}/{key}" for key in keys_by_size(info)[1:]))]


def _turned(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(values[i] for i in _ORDER)


def keys_by_size(info: Mapping[str, Any]) -> list[str]:
    """Return the keys of the scales, finest first."""
    scales = sorted(info["scales"], key=lambda scale: prod(float(v) for v in scale["resolution"]))
    return [str(scale["key"]) for scale in scales]


def _finest(info: Mapping[str, Any]) -> int:
    return [str(scale["key"]) for scale in info["scales"]].index(keys_by_size(info)[0])


def _scale_index(container: Place, info: Mapping[str, Any], inner: str) -> int:
    """Return which scale a name inside the folder is; "" is the finest."""
    keys = [str(scale["key"]) for scale in info["scales"]]
    if not keys:
        raise InputError(f"{container}/info lists no scale: write it anew")
    if inner and inner not in keys:
        raise InputError(
            f"{container} has no scale {inner!r}{did_you_mean(inner, keys)} (it has: {', '.join(keys)})"
        )
    return keys.index(inner) if inner else _finest(info)


def _said(info: Mapping[str, Any], index: int, is_finest: bool) -> tuple[Statement, str]:
    """Return (what the info says about a scale, its axes).

    Raises:
        InputError: an element type or encoding is unknown, so nothing can be read.
    """
    scale = info["scales"][index]
    key = scale["key"]
    for what, value, valid in (
        ("encoding", scale.get("encoding"), _ENCODINGS),
        ("data_type", str(info.get("data_type")).lower(), _DTYPES),
        ("type", info.get("type"), ("image", "segmentation")),
    ):
        if value not in valid:
            hint = did_you_mean(str(value), valid)
            rule = f"emloom reads {', '.join(valid)}"
            raise InputError(f"scale {key!r} of a precomputed volume has the {what} {value!r}{hint}: {rule}")
    if not stays_inside(str(key)):
        raise InputError(
            f"scale {key!r} of a precomputed volume leads out of its folder: correct the key in its info"
        )
    size = [float(v) for v in reversed(scale["resolution"])]
    start = as_vec(list(reversed(scale.get("voxel_offset", [0, 0, 0]))))
    own = read_own((info if is_finest else scale).get(OWN_KEY))
    channels = int(info["num_channels"])
    axes = "czyx" if channels != 1 or own.axes == "czyx" else "zyx"
    if min(size) <= 0:
        return Statement(
            axes=axes, problems=(f"its resolution {size} (nm, z,y,x) is not positive: correct it",)
        ), axes
    z, y, x = (a * s for a, s in zip(start, size, strict=True))
    kind: Any = "labels" if info["type"] == "segmentation" else None
    stated = Statement(axes, (size[0], size[1], size[2]), (z, y, x), None if own.kind == "mask" else kind)
    return own.agree(stated, f"the {OWN_KEY!r} attribute", "info"), axes


def open_found(hit: Found, info: VolumeInfo, writable: bool) -> StoreVolume | PrecomputedVolume:
    """Return the volume of a scale that `find` found."""
    place = place_of(hit.path)
    container = next((p for p in (place, *above(place, 99)) if is_precomputed(p)), None)
    if container is None:
        raise InputError(f"{hit.path} is no longer there: somebody moved it")
    about = load_json(container / "info") or {}
    index = _scale_index(container, about, inner_name(container, place))
    scale = about["scales"][index]
    if writable and scale.get("sharding"):
        raise InputError(f"{hit.path} is sharded, and sharded precomputed volumes are only read: write a new one")
    axes = kept_axes(_ORDER if hit.axes == "czyx" else _ORDER[1:], hit.squeezed)
    volume = StoreVolume(info, container, DRIVER, axes, writable, index)
    if scale.get("sharding") or not isinstance(container, Path):
        return volume
    start = as_vec(list(reversed(scale.get("voxel_offset", [0, 0, 0]))))
    return PrecomputedVolume(volume, str(scale["key"]), start)


def create(path: Place, inner: str, info: VolumeInfo, *, overwrite: bool = False) -> StoreVolume:
    """Create an empty (all zero) volume of one scale, ready to be written block by block.

    Args:
        path: the folder, e.g. ``seg.precomputed``.
        inner: must be "": a folder is one volume.
        info: shape, dtype, grid, kind; `info.chunks` defaults to 64x64x64.
        overwrite: replace an existing volume.

    Raises:
        InputError: the path exists, the format cannot hold this volume, or the disk refuses.
    """
    if inner:
        raise InputError(f"{path} is one volume and has no {inner!r} inside: write to {path}")
    chunks = as_vec(info.chunks or DEFAULT_CHUNKS)
    if min(chunks) < 1:
        raise InputError(f"chunk shape {chunks} has an extent below 1 voxel")
    if info.dtype.name not in _DTYPES:
        advice = _WAYS_OUT.get(info.dtype.name, f"convert it to one of {', '.join(_DTYPES)}")
        raise InputError(f"precomputed stores no {info.dtype}: {advice}")
    scale = {**_place(info.grid, path), "size": list(reversed(info.shape)), "chunk_size": list(reversed(chunks))}
    scale |= _encoding(info)
    if overwrite and is_taken(path) and not is_precomputed(draft_of(path)):
        raise InputError(f"{path} is not a precomputed volume and is not overwritten: choose another name")
    is_ids = info.kind in ("labels", "mask") and info.dtype.kind == "u"
    about = {
        "type": "segmentation" if is_ids else "image",
        "data_type": info.dtype.name,
        "num_channels": 1 if info.channels is None else info.channels,
    }
    with new_folder(path, overwrite=overwrite) as temporary:
        spec = {"driver": DRIVER, "kvstore": kvstore(temporary), "multiscale_metadata": about}
        told(tensorstore.open({**spec, "scale_metadata": scale}, create=True), path)
        whole = {**(load_json(temporary / "info") or {}), OWN_KEY: own_attribute(info)}
        write_text_atomic(temporary / "info", json.dumps(whole, indent=2))
    target = as_created(path)
    created = info.with_(chunks=chunks, source=str(target))
    return StoreVolume(created, target, DRIVER, _ORDER if info.channels else _ORDER[1:], True, 0)


def _place(grid: Grid, path: Place) -> dict[str, Any]:
    """Return key, resolution and voxel offset of a grid; raises where its offset is no whole number of voxels."""
    voxels = [o / s for o, s in zip(grid.offset_nm, grid.voxel_size_nm, strict=True)]
    start = [round(v) for v in voxels]
    if any(abs(a - v) > TOLERANCE_VOX * max(1.0, abs(v)) for a, v in zip(start, voxels, strict=True)):
        raise InputError(
            f"{path}: the offset {grid.offset_nm} nm is {tuple(voxels)} voxels of {grid.voxel_size_nm} nm (z, y, "
            "x), and precomputed places a volume by whole voxels: write .zarr or .n5, which keep any offset, or "
            "state an offset on the voxel lattice"
        )
    size = list(reversed(grid.voxel_size_nm))
    return {"key": scale_key(grid), "resolution": size, "voxel_offset": list(reversed(start))}


def scale_key(grid: Grid) -> str:
    """Return the usual key of a scale: its voxel size, x_y_z."""
    return "_".join(re.sub(r"\.0$", "", repr(v)) for v in reversed(grid.voxel_size_nm))


def _encoding(info: VolumeInfo) -> dict[str, Any]:
    if info.kind == "labels" and info.dtype.name in ("uint32", "uint64"):
        return {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [8, 8, 8]}
    return {"encoding": "raw"}
