"""The coarser magnifications of a webKnossos layer: wkw folders beside the finest, listed in its JSON file last.

::

    dataset/color/1/         the finest magnification, never touched
    dataset/color/2-2-1/     two voxels along x and y are one, x-y-z

Voxels of a magnification are counted from the origin of the world, so one at the rim of a layer may lie in it only
in part; it is the mean (or the majority) of the voxels that the layer has (see `emloom.io.levels` and, for the
box, `datasource`). Magnifications are powers of 2, which is all that webKnossos knows. Cube files are those of the
finest, at most 256 voxels wide, so that memory stays bounded. Cubes of zeros are left out, as in all wkw.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.io.datasource import PROPERTIES, Layer, load, mag_name, read
from emloom.io.files import explained, write_text_atomic
from emloom.io.levels import Level, delete_levels
from emloom.io.newlayer import factor_of, listed_mags, mag_entry
from emloom.io.volume import Volume
from emloom.io.webknossos import dataset_around
from emloom.io.wkw import HEADER, LZ4, Header, WkwVolume, write_header

_LARGEST_CUBE = 256


@dataclass(frozen=True)
class WkwImage:
    """A layer on disk; see `emloom.io.levels.Image`."""

    root: Path
    layer: Layer
    finest: WkwVolume
    chunks_on_world: bool = True

    @property
    def folder(self) -> Path:
        """Folder of the layer."""
        return self.root / self.layer.name

    @property
    def array(self) -> Path:
        """Folder of the finest magnification."""
        return self.finest.folder

    @property
    def levels(self) -> list[str]:
        """Folders of the magnifications, finest first."""
        return [os.path.relpath(mag.folder or self.folder / mag.name, self.folder) for mag in self.layer.mags]

    @property
    def start(self) -> Vec:
        """First voxel of the layer in its finest magnification."""
        return self.finest.start

    def _factor(self, total: Vec) -> Vec:
        z, y, x = (a * b for a, b in zip(self.layer.mags[0].factor, total, strict=True))
        return (z, y, x)

    def name_of(self, number: int, total: Vec, grid: Grid) -> str:
        """Return the folder of a magnification."""
        factor = self._factor(total)
        if any(f & (f - 1) for f in factor):
            raise InputError(
                f"{self.folder}: magnification {mag_name(factor)} (x-y-z) is none, because webKnossos has powers "
                "of 2: give factors of 1, 2, 4, ..."
            )
        return mag_name(factor)

    @property
    def _header(self) -> Header:
        own = self.finest.header
        return replace(own, cube_len=max(own.block_len, min(own.cube_len, _LARGEST_CUBE)), block_type=LZ4)

    def create(self, folder: Path, levels: Sequence[Level]) -> list[Volume]:
        """Make magnifications without cubes; those there already keep their cubes."""
        made: list[Volume] = []
        for level in levels:
            place = level.place_in(folder)
            with explained(place):
                if not (place / HEADER).is_file():
                    shutil.rmtree(place, ignore_errors=True)
                    write_header(place, self._header)
            info = level.info(self.finest.info).with_(chunks=self._header.cube, source=str(place))
            made.append(WkwVolume(info, place, level.box.start, self._header, True))
        return made

    def withdraw(self) -> None:
        """Take all magnifications but the finest off the list, then delete those in the layer's folder."""
        if len(self.layer.mags) > 1:
            self.announce([], None)
            delete_levels(self)

    def announce(self, levels: Sequence[Level], method: str | None) -> None:
        """Replace the list of the layer's magnifications, in one step; everything else it says stays."""
        data = copy.deepcopy(load(self.root))
        entry = next(e for e in data["dataLayers"] if e.get("name") == self.layer.name)
        listed, key = listed_mags(entry)
        finest = [e for e in entry[listed] if factor_of(e) == self.layer.mags[0].factor]
        new = [
            mag_entry(key, self._factor(level.total), self._header.cube_len, level.info(self.finest.info))
            for level in levels
        ]
        entry[listed] = [*finest, *new]
        write_text_atomic(self.root / PROPERTIES, json.dumps(data, indent=2))


def image_of_wkw(volume: WkwVolume) -> WkwImage:
    """Return the layer whose finest magnification a volume is.

    Raises:
        InputError: the volume is another magnification, or no dataset lists it, or the layer states no box.
    """
    source = volume.info.source
    root = dataset_around(volume.folder)
    layers = [] if root is None else read(root).layers
    layer = next((x for x in layers if any(mag.folder == volume.folder for mag in x.mags)), None)
    if root is None or layer is None:
        raise InputError(
            f"{source} is a wkw folder in no dataset, so nobody would know of its levels: `emloom export` it"
            " to .wkw first"
        )
    if layer.mags[0].folder != volume.folder:
        raise InputError(f"{source} is one magnification of {root / layer.name}: name that")
    if layer.box is None or layer.box.coarsen(layer.mags[0].factor) != Box(volume.start, volume.info.shape):
        raise InputError(f"{root / layer.name} has no boundingBox, so its magnifications have no box: add it")
    return WkwImage(root, layer, volume)
