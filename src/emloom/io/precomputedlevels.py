"""The coarser scales of a Neuroglancer precomputed volume: chunks in their own folders, listed in ``info`` last.

A scale is placed by whole voxels of its own size, so coarse voxels lie on the lattice of the world and a scale
holds those that touch the volume (see `emloom.io.levels`)::

    voxel_offset [250, 0, 3], size [41, 34, 20]        factors 2, 2, 1 (x, y, z)
    voxel_offset [125, 0, 3], size [21, 17, 20]        its last voxel along x is half inside

A new scale has the key ``x_y_z`` of its voxel size, and the chunks and the encoding of the finest, but jpeg
becomes raw: an image should not lose a little more at every level. It is not sharded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.geometry.box import as_vec
from emloom.io.files import write_text_atomic
from emloom.io.levels import Level, delete_levels
from emloom.io.metadata import OWN_KEY, own_attribute
from emloom.io.nodes import load_json
from emloom.io.precomputed import DRIVER, PrecomputedVolume, keys_by_size, scale_key
from emloom.io.tensors import StoreVolume
from emloom.io.volume import Volume

#: What a new scale takes over from the finest one.
_COPIED = ("chunk_sizes", "encoding", "compressed_segmentation_block_size", "png_level")


@dataclass(frozen=True)
class PrecomputedImage:
    """A precomputed volume on disk; see `emloom.io.levels.Image`."""

    folder: Path
    finest: StoreVolume | PrecomputedVolume
    about: Mapping[str, Any]
    chunks_on_world: bool = False

    @property
    def levels(self) -> list[str]:
        """Keys of the scales, finest first."""
        return keys_by_size(self.about)

    @property
    def array(self) -> Path:
        """Folder of the chunks of the finest scale."""
        return self.folder / self.levels[0]

    @property
    def start(self) -> Vec:
        """The `voxel_offset` of the finest scale, z, y, x."""
        return as_vec(list(reversed(self._scale.get("voxel_offset", [0, 0, 0]))))

    @property
    def _scale(self) -> Mapping[str, Any]:
        scale: Mapping[str, Any] = next(s for s in self.about["scales"] if s["key"] == self.levels[0])
        return scale

    def name_of(self, number: int, total: Vec, grid: Grid) -> str:
        """Return the key of a scale: its voxel size, x_y_z."""
        key = scale_key(grid)
        if key == self.levels[0]:
            raise InputError(
                f"{self.folder} calls its finest scale {key!r}, which is the name of a coarser one: name it "
                f"{scale_key(self.finest.info.grid)!r}, in info and its folder"
            )
        return key

    def create(self, folder: Path, levels: Sequence[Level]) -> list[Volume]:
        """Make scales of zeros below an ``info`` of their own; an existing one is written anew."""
        about = {**self.about, "scales": [self._described(level) for level in levels]}
        write_text_atomic(folder / "info", json.dumps(about, indent=2))
        axes = (self.finest.store if isinstance(self.finest, PrecomputedVolume) else self.finest).axes
        made: list[Volume] = []
        for index, level in enumerate(levels):
            info = level.info(self.finest.info).with_(source=str(level.place_in(folder)))
            made.append(StoreVolume(info, folder, DRIVER, axes, True, index))
        return made

    def _described(self, level: Level) -> dict[str, Any]:
        """Return what ``info`` says about a scale."""
        copied = {name: self._scale[name] for name in _COPIED if name in self._scale}
        copied["chunk_sizes"] = copied["chunk_sizes"][:1]
        if copied["encoding"] == "jpeg":
            copied["encoding"] = "raw"
        place = {
            "key": level.name,
            "resolution": list(reversed(level.grid.voxel_size_nm)),
            "voxel_offset": list(reversed(level.box.start)),
            "size": list(reversed(level.shape)),
        }
        return {**place, **copied, OWN_KEY: own_attribute(level.info(self.finest.info))}

    def withdraw(self) -> None:
        """Take all scales but the finest off the list, then delete their chunks."""
        if len(self.levels) > 1:
            self.announce([], None)
            delete_levels(self)

    def announce(self, levels: Sequence[Level], method: str | None) -> None:
        """Replace the scales in ``info``, in one step; everything else it says stays."""
        about = load_json(self.folder / "info") or {}
        scales = [self._scale, *(self._described(level) for level in levels)]
        write_text_atomic(self.folder / "info", json.dumps({**about, "scales": scales}, indent=2))


def image_of_precomputed(volume: StoreVolume | PrecomputedVolume) -> PrecomputedImage:
    """Return the image whose finest scale a volume is.

    Raises:
        InputError: the volume is a coarser scale.
    """
    store = volume.store if isinstance(volume, PrecomputedVolume) else volume
    assert isinstance(store.array, Path), "a local volume has local chunks"
    about = load_json(store.array / "info") or {}
    keys = keys_by_size(about)
    if about["scales"][store.scale]["key"] != keys[0]:
        raise InputError(f"{volume.info.source} is one scale of {store.array}: name that")
    return PrecomputedImage(store.array, volume, about)
