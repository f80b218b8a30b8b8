"""The coarser levels of an N5 volume: arrays ``s1``, ``s2``, ... beside the finest, which is ``s0``.

::

    out.n5/raw/attributes.json       downsamplingFactors [[1, 1, 1], [2, 2, 1]], multiscales: which levels it has
    out.n5/raw/s0/                   the finest level, never touched
    out.n5/raw/s1/attributes.json    downsamplingFactors [2, 2, 1], pixelResolution of s0, transform of s1

Where ``out.n5/raw`` is itself an array, levels have no place beside it: it is refused, and nothing is moved.

The tools around N5 learn of levels in three ways, and all are written: n5-viewer from the `downsamplingFactors` of
each, with the `pixelResolution` of the finest; neuroglancer and Paintera from the list on the group; CellMap's
tools from the `transform` of each and the group's `multiscales`. No level states a `resolution`: whether factors
multiply it, tools disagree. A group that lists its levels has those and no more, whatever other folders it holds;
so the list, written in one step, makes levels appear. BigDataViewer's list is not here but in its setup's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.io.files import explained, write_text_atomic
from emloom.io.levels import Level, delete_levels
from emloom.io.metadata import OWN_KEY, own_attribute
from emloom.io.n5 import ATTRIBUTES, attributes_at, level_names
from emloom.io.n5words import LEVEL, by_letter, lengths_of, transform_of
from emloom.io.places import children
from emloom.io.tensors import StoreVolume
from emloom.io.volume import Volume

_FINEST = LEVEL.format(0)
_STORED = ("dimensions", "blockSize", "dataType", "compression")
#: Words of a group that hold for all arrays in it.
_PLACING = ("axes", "resolution", "offset", "units", "pixelResolution", "transform")


@dataclass(frozen=True)
class N5Image:
    """A group of levels on disk; see `emloom.io.levels.Image`."""

    folder: Path
    finest: StoreVolume
    levels: list[str]
    start: Vec = (0, 0, 0)
    chunks_on_world: bool = False

    @property
    def array(self) -> Path:
        """Folder of the finest level."""
        return self.folder / _FINEST

    def name_of(self, number: int, total: Vec, grid: Grid) -> str:
        """Return the name of a coarser level."""
        return LEVEL.format(number)

    @property
    def _letters(self) -> str:
        """Letters of the stored axes, fastest first."""
        named = dict(zip(self.finest.axes, self.finest.info.axes, strict=True))
        return "".join(named[i] for i in range(len(named)))

    def create(self, folder: Path, levels: Sequence[Level]) -> list[Volume]:
        """Make arrays of zeros stored like the finest level; existing metadata are written anew."""
        return [self._create(level.place_in(folder), level) for level in levels]

    def _create(self, folder: Path, level: Level) -> StoreVolume:
        finest, letters, info = attributes_at(self.array), self._letters, level.info(self.finest.info)
        attributes: dict[str, Any] = {name: finest[name] for name in _STORED}
        extents = dict(zip(info.axes, info.array_shape, strict=True))
        attributes["dimensions"] = [extents[letter] for letter in letters]
        attributes |= {
            "axes": list(letters),
            "pixelResolution": lengths_of(self.finest.info.grid, letters)["pixelResolution"],
            "downsamplingFactors": by_letter(level.total, letters, 1),
            "transform": transform_of(level.grid),
            OWN_KEY: own_attribute(info),
        }
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_text_atomic(folder / ATTRIBUTES, json.dumps(attributes, indent=2))
        created = info.with_(chunks=self.finest.info.chunks, source=str(folder))
        return StoreVolume(created, folder, "n5", self.finest.axes, writable=True)

    def withdraw(self) -> None:
        """Say that the group has its finest level alone, also where it said nothing; then delete the others."""
        self.announce([], None)
        delete_levels(self)

    def announce(self, levels: Sequence[Level], method: str | None) -> None:
        """Replace what the group says about its levels, in one step; everything else it says stays."""
        said, letters, grid = attributes_at(self.folder), self._letters, self.finest.info.grid
        factors = [by_letter(total, letters, 1) for total in ((1, 1, 1), *(level.total for level in levels))]
        grids = {_FINEST: grid, **{level.name: level.grid for level in levels}}
        datasets = [{"path": name, "transform": transform_of(at)} for name, at in grids.items()]
        old = said.get("multiscales") or [{}]
        made = {} if method is None else {"type": method}
        kept = {k: v for k, v in old[0].items() if k != "type"}
        new = {"downsamplingFactors": factors, "multiscales": [{**kept, "datasets": datasets, **made}, *old[1:]]}
        if "scales" in said:
            new["scales"] = factors
        # What a group says about places also holds for strangers in it: say it where there are none.
        alone = set(children(self.folder) or []) <= {*grids, *self.levels}
        placing = lengths_of(grid, letters) if alone and not any(word in said for word in _PLACING) else {}
        write_text_atomic(self.folder / ATTRIBUTES, json.dumps({**said, **placing, **new}, indent=2))


def image_of_n5(volume: StoreVolume) -> N5Image:
    """Return the group of levels whose ``s0`` a volume is; the group and its ``s0`` both name it.

    Raises:
        InputError: the volume is a coarser level, or an array by itself, or it leaves out axes of its array.
    """
    source, array = volume.info.source, volume.array
    assert isinstance(array, Path), "a local volume has local blocks"
    names = level_names(array.parent)
    if array.name != _FINEST and array.name in names:
        raise InputError(f"{source} is one level of {array.parent}: name that")
    if array.name != _FINEST:
        raise InputError(
            f"{source} is an N5 array by itself, and levels are arrays s0, s1, ... side by side in a group: "
            f"make it the s0 of a group (emloom export {source} NEW.n5/{array.stem}/s0), and name the group"
        )
    if len(volume.axes) != len(attributes_at(array)["dimensions"]):
        raise InputError(f"{source} has axes of extent 1 beside {volume.info.axes}: `emloom import` it first")
    return N5Image(array.parent, volume, names)
