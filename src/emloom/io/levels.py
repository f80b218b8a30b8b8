"""The coarser levels of an OME-NGFF image: made beside the finest, stored as it is, listed last.

::

    out.zarr/       group: `multiscales` lists 0, 1, 2        a level is a level only when it is listed here
    out.zarr/0/     the finest level, never touched
    out.zarr/1/     shares its corner with level 0:  offset_1 = offset_0,  voxel_size_1 = factor * voxel_size_0

All levels share the *corner* of their first voxel; its *centre*, which OME-NGFF calls translation, therefore moves
by half a voxel of each level (see `emloom.io.ngff`). A coarser level copies the metadata of the finest array: same
zarr version, chunks, shards and codecs. An `emloom` attribute on the array repeats its grid and kind exactly.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.files import explained, write_text_atomic
from emloom.io.metadata import OWN_KEY, own_attribute
from emloom.io.ngff import image_attributes
from emloom.io.nodes import Node, image_around, node_at, write_group
from emloom.io.tensors import StoreVolume
from emloom.io.volume import Volume, VolumeInfo

_LAST_NUMBER = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True)
class Image:
    """An OME-NGFF image on disk.

    Attributes:
        group: the folder that lists the levels, and its metadata.
        folder: the folder of the group.
        finest: the finest level, as a volume.
        array: the folder of that level.
    """

    group: Node
    folder: Path
    finest: StoreVolume
    array: Path

    @property
    def levels(self) -> list[str]:
        """Paths of the levels below the folder, finest first."""
        return self.group.levels


def image_of_volume(volume: Volume) -> Image:
    """Return the image whose finest level a volume is.

    Raises:
        InputError: the volume is no OME-NGFF image (another format, a bare array, a coarser level), or it leaves
            out axes of its array.
    """
    source = volume.info.source
    if not isinstance(volume, StoreVolume) or "://" in source or (node := node_at(Path(source))) is None:
        raise InputError(f"{source} is no OME-NGFF image on a disk: `emloom import` it to .zarr first")
    group, _ = image_around(node)
    if group is None:
        raise InputError(f"{source} is a bare array, not an OME-NGFF image: `emloom import` it to .zarr first")
    if group.folder != node.folder:
        raise InputError(f"{source} is one level of the image {group.folder}: name the image")
    array = node_at(volume.array)
    if array is None or len(volume.axes) != len(array.metadata["shape"]):
        raise InputError(f"{source} has axes of extent 1 beside {volume.info.axes}: `emloom import` it first")
    assert isinstance(group.folder, Path), "nodes of a local path are local"
    assert isinstance(volume.array, Path), "nodes of a local path are local"
    return Image(group, group.folder, volume, volume.array)


def level_names(image: Image, n: int) -> list[str]:
    """Return the names of n coarser levels: counted on from the finest (0 -> 1, 2; s0 -> s1, s2)."""
    finest = image.levels[0]
    counted = _LAST_NUMBER.match(finest)
    if counted is None:
        return [f"{finest}_{k}" for k in range(1, n + 1)]
    return [f"{counted[1]}{int(counted[2]) + k}" for k in range(1, n + 1)]


def create_level(image: Image, folder: Path, info: VolumeInfo) -> StoreVolume:
    """Make an empty (all zero) array stored like the finest level; existing metadata are written anew.

    Args:
        image: whose finest level is the example.
        folder: the folder of the new array.
        info: shape and grid of the level, and its kind where the values are still of that kind.
    """
    metadata = {**_array_metadata(image), "shape": list(info.array_shape)}
    attributes = {OWN_KEY: own_attribute(info)}
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if image.group.zarr_format == 3:
            write_text_atomic(folder / "zarr.json", json.dumps({**metadata, "attributes": attributes}, indent=2))
        else:
            write_text_atomic(folder / ".zattrs", json.dumps(attributes, indent=2))
            write_text_atomic(folder / ".zarray", json.dumps(metadata, indent=2))
    created = info.with_(chunks=image.finest.info.chunks, source=str(folder))
    return StoreVolume(created, folder, image.finest.driver, image.finest.axes, writable=True)


def _array_metadata(image: Image) -> Mapping[str, Any]:
    node = node_at(image.array)
    if node is None:
        raise InputError(f"{image.array} is no longer a zarr array: somebody moved it")
    return node.metadata


def list_levels(image: Image, levels: Mapping[str, Grid], method: str | None = None) -> None:
    """Replace what the image says about its levels, in one step; everything else it says stays.

    Args:
        image: the image; its finest level stays the finest.
        levels: path -> grid, finest first.
        method: how coarser levels were made, kept as the `type` of the image.
    """
    group, name = image.group, str((image.group.image or {}).get("name") or image.folder.stem)
    ome = group.attributes.get("ome")
    around = ome if isinstance(ome, Mapping) else {}
    old = (around or group.attributes)["multiscales"]
    kept = {k: v for k, v in old[0].items() if k not in ("coordinateTransformations", "type")}
    made = {} if method is None else {"type": method}
    new = image_attributes(image.finest.info, name, group.zarr_format, levels)
    images = (new["ome"] if group.zarr_format == 3 else new)["multiscales"]
    listed = [{**kept, **images[0], **made}, *old[1:]]
    others = {k: v for k, v in group.attributes.items() if k not in ("ome", "multiscales")}
    if group.zarr_format == 3:
        attributes = {**others, "ome": {**around, **new["ome"], "multiscales": listed}}
    else:
        attributes = {**others, **{k: v for k, v in around.items() if k != "version"}, "multiscales": listed}
    write_group(image.folder, attributes, group.zarr_format)
    _forget_consolidated(image.folder)


def _forget_consolidated(image: Path) -> None:
    """Remove copies of the old metadata that zarr keeps in groups above; they are made anew on demand."""
    for folder in (image, *image.parents):
        node = node_at(folder)
        if node is None:
            return
        (folder / ".zmetadata").unlink(missing_ok=True)
        if "consolidated_metadata" in node.metadata:
            write_group(folder, node.attributes, node.zarr_format)


def drop_levels(image: Image, levels: Mapping[str, Grid]) -> None:
    """Take all levels but the finest off the list, then delete those of them that lie inside the image."""
    old = image.levels[1:]
    list_levels(image, levels)
    for name in old:
        folder = (image.folder / name).resolve()
        if image.folder.resolve() in folder.parents and folder != image.array.resolve():
            shutil.rmtree(folder, ignore_errors=True)
