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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.io.files import explained, write_text_atomic
from emloom.io.levels import Level, delete_levels
from emloom.io.metadata import OWN_KEY, own_attribute
from emloom.io.ngff import image_attributes
from emloom.io.nodes import Node, image_around, node_at, write_group
from emloom.io.tensors import StoreVolume
from emloom.io.volume import Volume

_LAST_NUMBER = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True)
class ZarrImage:
    """An OME-NGFF image on disk; see `emloom.io.levels.Image`.

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
    start: Vec = (0, 0, 0)
    chunks_on_world: bool = False

    @property
    def levels(self) -> list[str]:
        """Paths of the levels below the folder, finest first."""
        return self.group.levels

    def name_of(self, number: int, total: Vec, grid: Grid) -> str:
        """Return the name of a coarser level: counted on from the finest (0 -> 1, 2; s0 -> s1, s2)."""
        counted = _LAST_NUMBER.match(self.levels[0])
        return f"{counted[1]}{int(counted[2]) + number}" if counted else f"{self.levels[0]}_{number}"

    def create(self, folder: Path, levels: Sequence[Level]) -> list[Volume]:
        """Make arrays of zeros stored like the finest level; existing metadata are written anew."""
        return [self._create(level.place_in(folder), level) for level in levels]

    def _create(self, folder: Path, level: Level) -> StoreVolume:
        node, info = node_at(self.array), level.info(self.finest.info)
        if node is None:
            raise InputError(f"{self.array} is no longer a zarr array: somebody moved it")
        metadata = {**node.metadata, "shape": list(info.array_shape)}
        attributes = {OWN_KEY: own_attribute(info)}
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if self.group.zarr_format == 3:
                whole = {**metadata, "attributes": attributes}
                write_text_atomic(folder / "zarr.json", json.dumps(whole, indent=2))
            else:
                write_text_atomic(folder / ".zattrs", json.dumps(attributes, indent=2))
                write_text_atomic(folder / ".zarray", json.dumps(metadata, indent=2))
        created = info.with_(chunks=self.finest.info.chunks, source=str(folder))
        return StoreVolume(created, folder, self.finest.driver, self.finest.axes, writable=True)

    def withdraw(self) -> None:
        """Take all levels but the finest off the list, then delete those of them that lie inside the image."""
        if len(self.levels) > 1:
            self.announce([], None)
            delete_levels(self)

    def announce(self, levels: Sequence[Level], method: str | None) -> None:
        """Replace what the image says about its levels, in one step; everything else it says stays."""
        group, name = self.group, str((self.group.image or {}).get("name") or self.folder.stem)
        grids = {self.levels[0]: self.finest.info.grid, **{level.name: level.grid for level in levels}}
        ome = group.attributes.get("ome")
        around = ome if isinstance(ome, Mapping) else {}
        old = (around or group.attributes)["multiscales"]
        kept = {k: v for k, v in old[0].items() if k not in ("coordinateTransformations", "type")}
        made = {} if method is None else {"type": method}
        new = image_attributes(self.finest.info, name, group.zarr_format, grids)
        images = (new["ome"] if group.zarr_format == 3 else new)["multiscales"]
        listed = [{**kept, **images[0], **made}, *old[1:]]
        attributes: dict[str, Any] = {k: v for k, v in group.attributes.items() if k not in ("ome", "multiscales")}
        if group.zarr_format == 3:
            attributes |= {"ome": {**around, **new["ome"], "multiscales": listed}}
        else:
            attributes |= {**{k: v for k, v in around.items() if k != "version"}, "multiscales": listed}
        write_group(self.folder, attributes, group.zarr_format)
        _forget_consolidated(self.folder)


def image_of_zarr(volume: StoreVolume) -> ZarrImage:
    """Return the image whose finest level a volume is.

    Raises:
        InputError: the volume is a bare array or a coarser level, or it leaves out axes of its array.
    """
    source = volume.info.source
    node = node_at(Path(source))
    if node is None:
        raise InputError(f"{source} is no longer a zarr array: somebody moved it")
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
    return ZarrImage(group, group.folder, volume, volume.array)


def _forget_consolidated(image: Path) -> None:
    """Remove copies of the old metadata that zarr keeps in groups above; they are made anew on demand."""
    for folder in (image, *image.parents):
        node = node_at(folder)
        if node is None:
            return
        (folder / ".zmetadata").unlink(missing_ok=True)
        if "consolidated_metadata" in node.metadata:
            write_group(folder, node.attributes, node.zarr_format)
