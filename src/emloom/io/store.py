"""zarr 2, zarr 3 and OME-NGFF through TensorStore.

Written layout (OME-NGFF 0.5 on zarr 3, or 0.4 on zarr 2): a volume is an image group with one level, ``0``::

    out.zarr/      group: multiscales + the `emloom` attribute         (or out.zarr/raw/ inside a container)
    out.zarr/0/    array, axes [c,]zyx

so that neuroglancer, napari and ome-zarr open the same path that emloom opens. A chunk holds *all* channels of its
voxels: a `Volume` reads and writes whole channels stacks, so one block is one file per chunk, written in one
step, and never a read-modify-write between workers that hold different channels.

Chunks are compressed with zstd, or on request with blosc (lz4 of shuffled bytes: faster, larger). zarr 3 chunks
also carry a crc32c, so a damaged chunk is an error and not a picture. zarr 2 has no checksum: there only damage
that breaks the compressed frame is seen (a truncated file always is).

Remote containers (see `places`) are read as local ones are, but not listed: there a group holds what its
consolidated metadata name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Vec
from emloom.geometry.box import as_vec
from emloom.io.files import final_name
from emloom.io.metadata import (
    OWN_KEY,
    ArrayFacts,
    Found,
    Statement,
    axis_letters,
    found,
    own_attribute,
    read_own,
    read_plain,
)
from emloom.io.ngff import image_attributes, read_image
from emloom.io.nodes import (
    MARKERS,
    Node,
    ensure_groups,
    image_around,
    is_unlisted,
    levels_said,
    names_in,
    node_at,
    write_group,
)
from emloom.io.places import Place, Remote, is_folder, kvstore, place_of
from emloom.io.remote import as_created, draft_of, finished, is_taken, names_below, new_folder
from emloom.io.tensors import StoreVolume, dtype_of, kept_axes, open_store, told
from emloom.io.volume import VolumeInfo

DEFAULT_CHUNKS: Vec = (64, 64, 64)
ENCODINGS = ("zstd", "blosc")
_ZSTD_LEVEL = 3
_BLOSC = {"cname": "lz4", "clevel": 5, "blocksize": 0}


def find(container: Place, inner: str) -> list[Found]:
    """Return every array below a container, or the one at an inner path.

    Raises:
        InputError: nothing there, or its metadata are unreadable.
    """
    start = container / inner if inner else container
    if not is_folder(start):
        names = [str(f.path).removeprefix(f"{container}/") for f in find(container, "")]
        valid = f" (it holds: {', '.join(names)})" if names else ""
        raise InputError(f"{container} holds no {inner!r}{did_you_mean(inner, names)}{valid}")
    hits = list(_walk(start))
    if not hits:
        rule = "is it another format?"
        if isinstance(start, Remote):
            rule = "remote addresses are not listed, so name the array itself, with all parts of its path"
        raise InputError(f"{start} holds no zarr array (no zarr.json or .zarray below it): {rule}")
    return hits


def open_found(hit: Found, info: VolumeInfo, writable: bool) -> StoreVolume:
    """Return the volume of an array that `find` found."""
    node = node_at(place_of(hit.path))
    if node is None:
        raise InputError(f"{hit.path} is no longer a zarr array: somebody moved it")
    array = node.folder / node.levels[0] if node.levels else node.folder
    axes = kept_axes(tuple(range(len(hit.shape) + len(hit.squeezed))), hit.squeezed)
    volume = StoreVolume(info, array, _driver(node), axes, writable)
    volume.view()  # unreadable metadata are reported now, not at the first block
    return volume


def create(
    path: Place,
    inner: str,
    info: VolumeInfo,
    *,
    overwrite: bool = False,
    zarr_format: int = 3,
    shards: Vec | None = None,
    encoding: str | None = None,
) -> StoreVolume:
    """Create an empty (all zero) volume, ready to be written block by block.

    Args:
        path: the container, e.g. ``out.zarr``.
        inner: name inside it, "" for the container itself.
        info: shape, dtype, grid, kind; `info.chunks` defaults to 64x64x64.
        overwrite: replace an existing volume.
        zarr_format: 3 (OME-NGFF 0.5) or 2 (OME-NGFF 0.4).
        shards: voxels (z, y, x) per shard file, a multiple of the chunk; zarr 3 only. The volume's
            `info.chunks` is then the shard, because that is what two writers must not share.
        encoding: ``zstd`` (default) or ``blosc``.

    Raises:
        InputError: the path exists, the encoding is unknown, shards and chunks do not fit, or the disk refuses.
    """
    chunks = as_vec(info.chunks or DEFAULT_CHUNKS)
    _check_layout(info, chunks, shards, zarr_format)
    compressor = _compressor(encoding or ENCODINGS[0], zarr_format, info.dtype)
    target = path / inner if inner else path
    attributes = {
        **image_attributes(info, Path(final_name(target.name)).stem, zarr_format),
        OWN_KEY: own_attribute(info),
    }
    if overwrite and is_taken(target):
        _refuse_loss(draft_of(target))
    if inner:
        ensure_groups(path, inner, zarr_format)
    with new_folder(target, overwrite=overwrite) as temporary:
        write_group(temporary, attributes, zarr_format)
        spec = _array_spec(info, chunks, shards, zarr_format, compressor)
        told(tensorstore.open({**spec, "kvstore": kvstore(temporary / "0")}, create=True), target)
    target = as_created(target)
    created = info.with_(chunks=shards or chunks, source=str(target))
    driver = "zarr3" if zarr_format == 3 else "zarr"
    return StoreVolume(created, target / "0", driver, tuple(range(len(info.axes))), writable=True)


def _refuse_loss(target: Place) -> None:
    """Raise where overwriting a volume would take with it anything but that volume."""
    node = node_at(target) if is_folder(target) else None
    shown = finished(target)
    # A removal that was stopped may have taken the levels in a bucket and left what lists them.
    levels = [] if node is None else levels_said(node) if isinstance(target, Remote) else node.levels
    if node is None or not (node.is_array or levels):
        raise InputError(f"{shown} is not a zarr volume and is not overwritten: choose another name or remove it")
    if isinstance(target, Remote):
        others = [str(place) for place in _below(replace(target, unfinished=False), levels)]
    else:
        others = [hit.path for hit in _walk(target) if Path(hit.path) != target]
    if others:
        raise InputError(f"overwriting {shown} would delete {', '.join(others)} inside it: move them first")


def _below(target: Remote, levels: list[str]) -> Iterator[Remote]:
    """Yield the volumes inside a volume in a bucket."""
    folders = {name.rpartition("/")[0] for name in names_below(target) if name.endswith(MARKERS)}
    for name in sorted(folders - {"", *levels}):
        node = node_at(target / name)
        if node is not None and (node.levels or (node.is_array and image_around(node)[0] is None)):
            yield target / name


def _check_layout(info: VolumeInfo, chunks: Vec, shards: Vec | None, zarr_format: int) -> None:
    if zarr_format not in (2, 3):
        raise InputError(f"zarr format {zarr_format} does not exist: use 3 or 2")
    if min(chunks) < 1:
        raise InputError(f"chunk shape {chunks} has an extent below 1 voxel")
    if shards is None:
        return
    if zarr_format == 2:
        raise InputError("zarr 2 has no shards: use zarr 3, or leave them out")
    if any(s < 1 or s % c for s, c in zip(shards, chunks, strict=True)):
        raise InputError(
            f"shards {shards} are no multiple of the chunks {chunks}: choose a multiple along each axis"
        )


def _compressor(encoding: str, zarr_format: int, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the metadata of a compressor, in the words of zarr 2 or 3."""
    if encoding not in ENCODINGS:
        raise InputError(f"encoding {encoding!r} is unknown: zarr chunks are {' or '.join(ENCODINGS)}")
    blosc = encoding == "blosc"
    if zarr_format == 2:
        return {"id": "blosc", **_BLOSC, "shuffle": 1} if blosc else {"id": "zstd", "level": _ZSTD_LEVEL}
    shuffled = {**_BLOSC, "shuffle": "shuffle", "typesize": dtype.itemsize}
    return {"name": encoding, "configuration": shuffled if blosc else {"level": _ZSTD_LEVEL}}


def _array_spec(
    info: VolumeInfo, chunks: Vec, shards: Vec | None, zarr_format: int, compressor: dict[str, Any]
) -> dict[str, Any]:
    channels = () if info.channels is None else (info.channels,)
    shape = list(info.array_shape)
    if zarr_format == 2:
        dtype = info.dtype.newbyteorder("<").str
        metadata: dict[str, Any] = {"shape": shape, "chunks": [*channels, *chunks], "dtype": dtype, "order": "C"}
        fill = False if info.dtype == np.dtype(bool) else 0
        metadata |= {"compressor": compressor, "dimension_separator": "/", "fill_value": fill}
        return {"driver": "zarr", "metadata": metadata}
    codecs: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        compressor,
        {"name": "crc32c"},
    ]
    if shards is not None:
        inner = {"chunk_shape": [*channels, *chunks], "codecs": codecs}
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    grid = {"name": "regular", "configuration": {"chunk_shape": [*channels, *(shards or chunks)]}}
    metadata = {"shape": shape, "data_type": info.dtype.name, "chunk_grid": grid, "codecs": codecs}
    metadata["dimension_names"] = list(info.axes)
    return {"driver": "zarr3", "metadata": metadata}


def _walk(folder: Place) -> Iterator[Found]:
    """Yield the arrays at and below a folder; an image counts once, as its finest level."""
    node = node_at(folder)
    if node is not None and (node.is_array or node.levels):
        yield _found(node)
    if node is not None and node.is_array:
        return
    own_levels = [] if node is None else node.levels
    for name in names_in(folder, node):
        if name not in own_levels and not ("/" in name and _is_level(folder / name)):
            yield from _walk(folder / name)


def _is_level(folder: Place) -> bool:
    """Whether a node is an array that an image above it lists, and that therefore counts with the image."""
    node = node_at(folder)
    return node is not None and node.is_array and image_around(node)[0] is not None


def _found(node: Node) -> Found:
    array, said, droppable = node, Statement(), ""
    image, level = image_around(node)
    if image is not None and image.image is not None:
        array = node_at(image.folder / level) or node
        said = read_own((image if level == image.levels[0] else array).attributes.get(OWN_KEY))
        said = said.agree(read_image(image.image, level), f"the {OWN_KEY!r} attribute", "OME-NGFF")
        droppable = "t" if OWN_KEY in image.attributes else "tc"
    elif is_unlisted(node):
        said = Statement(problems=("the OME-NGFF metadata above it describe no array that exists: correct them",))
    said = said.agree(read_own(array.attributes.get(OWN_KEY)), "the image", f"the array's {OWN_KEY!r} attribute")
    said = said.agree(read_plain(array.attributes), "the image", "the array's attributes")
    names = Statement(axes=axis_letters(array.metadata.get("dimension_names")))
    said = said.agree(names, "the metadata", "dimension_names")
    hit = found(str(node.folder), f"zarr{node.zarr_format}", _facts(array, droppable), said)
    return replace(hit, levels=tuple(str(node.folder / name) for name in node.levels[1:]))


def _facts(node: Node, droppable: str) -> ArrayFacts:
    store = open_store(node.folder, _driver(node))
    chunks = store.chunk_layout.write_chunk.shape
    return ArrayFacts(tuple(store.shape), dtype_of(store), None if chunks is None else tuple(chunks), droppable)


def _driver(node: Node) -> str:
    return "zarr3" if node.zarr_format == 3 else "zarr"
