"""N5 through TensorStore: folders of blocks with an ``attributes.json``, x first.

https://github.com/saalfeldlab/n5. The first dimension varies fastest, so every list in an ``attributes.json`` is
the other way round than in emloom, and is turned here::

    out.n5/attributes.json          {"n5": "2.0.0"}
    out.n5/raw/attributes.json      {"dimensions": [x, y, z], "blockSize": ..., "dataType": "uint8", ...}
    out.n5/raw/0/0/0                block: mode, number of dimensions, sizes, then voxels; all big-endian

N5 itself gives no place, unit or axis; each tool has its own words for them. `n5words` tells which are believed.
A group whose ``s0`` is an array is one volume in several levels, and stands for ``s0`` (see `n5levels`). A block
that was never written is zero; N5 has no checksum, so only damage that breaks the compression is seen.

Written: gzip, which every reader of N5 has; channels last in `dimensions`, which is slowest, so ``[c,]zyx``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import Any

import tensorstore

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Vec
from emloom.geometry.box import as_vec
from emloom.io.files import write_text_atomic
from emloom.io.metadata import OWN_KEY, ArrayFacts, Found, Statement, found, own_attribute, read_own
from emloom.io.n5words import LEVEL, array_axes, attributes_of_volume, read_words
from emloom.io.nodes import load_json
from emloom.io.places import Place, Remote, above, children, exists, is_folder, kvstore, place_of
from emloom.io.remote import as_created, draft_of, finished, is_taken, make_folder, new_folder, write_metadata
from emloom.io.tensors import StoreVolume, dtype_of, kept_axes, open_store, told
from emloom.io.volume import VolumeInfo

DEFAULT_CHUNKS: Vec = (64, 64, 64)
_VERSION = "2.0.0"
_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")
ATTRIBUTES = "attributes.json"


def is_n5(folder: Place) -> bool:
    """Whether a folder of any name is an N5 container or array."""
    if not exists(folder / ATTRIBUTES):
        return False
    attributes = load_json(folder / ATTRIBUTES) or {}
    return "n5" in attributes or _is_array(attributes)


def _is_array(attributes: Mapping[str, Any]) -> bool:
    return "dimensions" in attributes and "dataType" in attributes


def attributes_at(folder: Place) -> dict[str, Any]:
    """Return the attributes of a folder; none where it has no such file."""
    return load_json(folder / ATTRIBUTES) or {}


@dataclass(frozen=True)
class _Levels:
    """An array and what its metadata are spread over: its own attributes and those of the groups around it."""

    array: Place
    attributes: Mapping[str, Any]
    groups: tuple[Mapping[str, Any], ...]


def find(container: Place, inner: str) -> list[Found]:
    """Return every array below a container, or the one at an inner path; a group of levels counts once.

    Raises:
        InputError: nothing there, or its metadata are unreadable.
    """
    start = container / inner if inner else container
    if not is_folder(start):
        names = [hit.path.removeprefix(f"{container}/") for hit in find(container, "")]
        valid = f" (it holds: {', '.join(names)})" if names else ""
        raise InputError(f"{container} holds no {inner!r}{did_you_mean(inner, names)}{valid}")
    hits = [_found(place) for place in _walk(start)]
    if not hits:
        rule = "is it another format?"
        if isinstance(start, Remote):
            rule = "remote addresses are not listed, so name the array itself, with all parts of its path"
        raise InputError(f"{start} holds no N5 array (no {ATTRIBUTES} with dimensions below it): {rule}")
    return hits


def _walk(folder: Place) -> Iterator[Place]:
    """Yield the arrays at and below a folder; a group of levels stands for all of them."""
    if _is_array(attributes_at(folder)) or _is_array(attributes_at(folder / LEVEL.format(0))):
        yield folder
        return
    for name in children(folder) or []:
        yield from _walk(folder / name)


def _levels(place: Place) -> _Levels:
    array = place if _is_array(attributes_at(place)) else place / LEVEL.format(0)
    around = above(array, 2)
    if array.suffix == ".n5" or not around:
        around = []
    elif around[0].suffix == ".n5":
        around = around[:1]
    return _Levels(array, attributes_at(array), tuple(attributes_at(folder) for folder in around))


def _found(place: Place) -> Found:
    here = _levels(place)
    store = open_store(here.array, "n5")
    letters, order, problem = array_axes(here.array, store.rank, here.attributes, here.groups)
    own = read_own(here.attributes.get(OWN_KEY))
    if problem is None:
        words = read_words(here.array, letters, here.attributes, here.groups)
    else:
        words = Statement(axes=letters[::-1], problems=(problem,))
    said = own.agree(words, f"the {OWN_KEY!r} attribute", "N5")
    chunks = store.chunk_layout.write_chunk.shape
    turned = tuple(store.shape[i] for i in order)
    facts = ArrayFacts(turned, dtype_of(store), tuple(chunks[i] for i in order), "" if own.axes else "tc")
    coarser = [] if here.array == place else level_names(place)[1:]
    return replace(found(str(place), "n5", facts, said), levels=tuple(str(place / name) for name in coarser))


def level_names(group: Place) -> list[str]:
    """Return the names of the levels in a group, finest first: as many as it lists, else all there are."""
    said = attributes_at(group)
    listed = said.get("downsamplingFactors") or said.get("scales")
    names = (LEVEL.format(k) for k in (range(len(listed)) if isinstance(listed, list) else count()))
    return list(takewhile(lambda name: _is_array(attributes_at(group / name)), names))


def open_found(hit: Found, info: VolumeInfo, writable: bool) -> StoreVolume:
    """Return the volume of an array that `find` found."""
    here = _levels(place_of(hit.path))
    _, order, _ = array_axes(here.array, len(hit.shape) + len(hit.squeezed), here.attributes, here.groups)
    return StoreVolume(info, here.array, "n5", kept_axes(order, hit.squeezed), writable)


def create(path: Place, inner: str, info: VolumeInfo, *, overwrite: bool = False) -> StoreVolume:
    """Create an empty (all zero) array, ready to be written block by block.

    Args:
        path: the container, e.g. ``out.n5``.
        inner: name inside it, "" for the container itself.
        info: shape, dtype, grid, kind; `info.chunks` defaults to 64x64x64.
        overwrite: replace an existing array.

    Raises:
        InputError: the path exists, N5 has no such element type, or the disk refuses.
    """
    chunks = as_vec(info.chunks or DEFAULT_CHUNKS)
    if info.dtype.name not in _DTYPES:
        raise InputError(
            f"N5 stores no {info.dtype}: convert it to {', '.join(_DTYPES)} (a mask to uint8), or write .zarr"
        )
    if min(chunks) < 1:
        raise InputError(f"chunk shape {chunks} has an extent below 1 voxel")
    target = path / inner if inner else path
    if overwrite and is_taken(target) and not _is_array(attributes_at(draft_of(target))):
        raise InputError(f"{target} is not an N5 array and is not overwritten: choose another name or remove it")
    if inner:
        ensure_container(path, inner)
    with new_folder(target, overwrite=overwrite) as temporary:
        told(tensorstore.open(_array_spec(temporary, info, chunks), create=True), target)
        attributes = {**attributes_at(temporary), **attributes_of_volume(info), OWN_KEY: own_attribute(info)}
        if not inner:
            attributes = {"n5": _VERSION, **attributes}
        write_text_atomic(temporary / ATTRIBUTES, json.dumps(attributes, indent=2))
    target = as_created(target)
    created = info.with_(chunks=chunks, source=str(target))
    return StoreVolume(created, target, "n5", tuple(reversed(range(len(info.axes)))), writable=True)


def _array_spec(folder: Place, info: VolumeInfo, chunks: Vec) -> dict[str, Any]:
    channels = () if info.channels is None else (info.channels,)
    metadata = {
        "dimensions": list(reversed(info.array_shape)),
        "blockSize": list(reversed([*channels, *chunks])),
        "dataType": info.dtype.name,
        "compression": {"type": "gzip", "level": 1},
    }
    return {"driver": "n5", "kvstore": kvstore(folder), "metadata": metadata}


def ensure_container(container: Place, inner: str) -> None:
    """Make the container; raise where an array lies above the new one, because blocks and arrays would mix.

    Above an array that is unfinished it is only checked, and made when the array is finished.
    """
    path = finished(container)
    target = path / inner
    for folder in [path, *(parent for parent in target.parents if path in parent.parents)]:
        if _is_array(attributes_at(folder)):
            raise InputError(f"{folder} is an array, not a group: choose another name inside {path}")
    if path == container and not exists(path / ATTRIBUTES):
        make_folder(path)
        write_metadata(path / ATTRIBUTES, json.dumps({"n5": _VERSION}))
