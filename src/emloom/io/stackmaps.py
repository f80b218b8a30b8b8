"""Maps of stacks on disk: one folder, read section by section.

::

    map/map.json         format and version; per layer its frames, homes and, per section, the map as plain values;
                         provenance
    map/fields/*.npy     displacements, float32 [2, J, I]; one file per array, equal arrays share one
    map/parts/*.npz      parts of torn sections, uint8 [Y, X], compressed

Laws: ``read_stackmap(write_stackmap(folder, m))`` has the frames, homes and maps of m; nothing of another folder
is referred to, so a composition of maps that were read from several folders is whole where it was written; the
folder appears with everything in it, or not at all.

A map that was read holds no array until a section is asked for, and then those of a few sections: it may have
thousands of sections, and travels to workers as the plain values.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.grid import Grid
from emloom.geometry.planar import PlanarMap, from_plain
from emloom.geometry.stackmap import Frame, Layer, StackMap
from emloom.io.files import explained, staged

FORMAT = "emloom stack map"
VERSION = 1
NAME = "map.json"
_KEPT = 4  # maps of sections with arrays that a reader keeps
_ARRAY = re.compile(r"^(fields/[\w-]+\.npy|parts/[\w-]+\.npz)$")
_WAY_OUT = "align or repair again, or copy the folder again"


class FolderMaps:
    """The maps of the sections of one layer, read as they are asked for; see `geometry.stackmap.Maps`.

    Args:
        folder: of `map.json`.
        plain: per section what `PlanarMap.to_plain` gave, None where there is no map.
    """

    def __init__(self, folder: str | Path, plain: tuple[dict[str, Any] | None, ...]) -> None:
        self.folder, self.plain = Path(folder), plain
        self._forget()

    def __len__(self) -> int:
        """Return the number of sections."""
        return len(self.plain)

    def __getitem__(self, z: int, /) -> PlanarMap:
        """Return the map of a section.

        Raises:
            InputError: it has none, or its arrays are missing or damaged.
        """
        plain = self.plain[z]
        if plain is None:
            raise InputError(f"{self.folder / NAME} has no map of section {z}: nothing is shown there")
        with self._lock:
            if z in self._maps:
                self._maps.move_to_end(z)
                return self._maps[z]
        found = from_plain(plain, lambda name: _load(self.folder, name))
        with self._lock:
            self._maps[z] = found
            if len(self._maps) > _KEPT:
                self._maps.popitem(last=False)
        return found

    def _forget(self) -> None:
        self._lock, self._maps = Lock(), OrderedDict[int, PlanarMap]()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "plain": self.plain}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.folder, self.plain = state["folder"], state["plain"]
        self._forget()


def write_stackmap(
    folder: str | Path,
    stackmap: StackMap,
    provenance: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = True,
) -> Path:
    """Write a map with all its arrays, whole or not at all.

    Args:
        folder: to be made, by custom ``map`` beside the volume that the map leads to.
        stackmap: what is written; arrays that it read from another folder are copied.
        provenance: plain values that say how it was found; kept as they are.
        overwrite: replace the folder, which then must hold a map.

    Returns:
        The path of `map.json`.

    Raises:
        InputError: the folder exists and holds no map or must not be replaced, or the disk refuses.
    """
    target = Path(folder)
    if target.exists() and not (target / NAME).is_file() and any(target.iterdir()):
        raise InputError(f"{target} exists and holds no {NAME}: choose another folder, or remove it")
    with staged(target, overwrite=overwrite) as temporary:
        temporary.mkdir()
        arrays = _Arrays(temporary)
        layers = [_plain_of(layer, number, arrays) for number, layer in enumerate(stackmap.layers)]
        record = {"format": FORMAT, "version": VERSION, "layers": layers, "provenance": dict(provenance or {})}
        (temporary / NAME).write_text(_text_of(record), encoding="utf-8")
    return target / NAME


def read_stackmap(folder: str | Path) -> StackMap:
    """Read a map; its arrays are read when a section is asked for.

    Args:
        folder: what `write_stackmap` wrote, or the folder (of `emloom align`, `emloom repair`) with ``map`` in it.

    Raises:
        InputError: there is none, it is damaged, or a newer emloom wrote it.
    """
    place = map_folder(folder)
    path = place / NAME
    record = _record(path)
    try:
        return StackMap(tuple(_layer_of(plain, place) for plain in record["layers"]))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise InputError(f"{path} is damaged ({problem}): {_WAY_OUT}") from None


def map_folder(folder: str | Path) -> Path:
    """Return the folder with `map.json`, the one given or ``map`` in it; raises `InputError` where neither has."""
    given = Path(folder)
    for place in (given, given / "map"):
        if (place / NAME).is_file():
            return place
    if not given.exists():
        raise InputError(f"{given} does not exist: name a folder that `emloom align` or `emloom repair` made")
    raise InputError(
        f"{given} holds neither {NAME} nor map/{NAME}: name a folder that `emloom align` or `emloom repair` made"
    )


def read_map_provenance(folder: str | Path) -> dict[str, Any]:
    """Return what was said about how a map was found; raises `InputError` as `read_stackmap`."""
    said = _record(map_folder(folder) / NAME).get("provenance")
    return dict(said) if isinstance(said, dict) else {}


# ---- plain values ---------------------------------------------------------------------------------------------


def _plain_of(layer: Layer, number: int, arrays: _Arrays) -> dict[str, Any]:
    maps: list[dict[str, Any] | None] = []
    for z, home in enumerate(layer.homes):
        arrays.prefix = f"{number}-{z:05d}"
        maps.append(None if home is None else layer.maps[z].to_plain(arrays.keep))
    return {
        "source": _plain_frame(layer.source),
        "target": _plain_frame(layer.target),
        "turned": layer.turned,
        "homes": [None if home is None else int(home) for home in layer.homes],
        "maps": maps,
    }


def _plain_frame(frame: Frame) -> dict[str, Any]:
    return {
        "shape": list(frame.shape),
        "voxel_size_nm": list(frame.grid.voxel_size_nm),
        "offset_nm": list(frame.grid.offset_nm),
    }


def _text_of(record: Mapping[str, Any]) -> str:
    """Return JSON with one line per section: thousands of them stay readable, and differences of two maps too."""
    head = {name: value for name, value in record.items() if name != "layers"}
    layers = []
    for layer in record["layers"]:
        lines = ",\n    ".join(json.dumps(one) for one in layer["maps"])
        rest = json.dumps({name: value for name, value in layer.items() if name != "maps"})
        layers.append(f'  {rest[:-1]}, "maps": [\n    {lines}\n  ]}}')
    joined = ",\n".join(layers)
    return f'{json.dumps(head)[:-1]}, "layers": [\n{joined}\n]}}\n'


def _layer_of(plain: Mapping[str, Any], folder: Path) -> Layer:
    homes = tuple(home if home is None else int(home) for home in plain["homes"])
    maps = tuple(plain["maps"])
    if any((home is None) != (one is None) for home, one in zip(homes, maps, strict=True)):
        raise ValueError("a section has a home and no map, or a map and no home")
    source, target = _frame_of(plain["source"]), _frame_of(plain["target"])
    return Layer(source, target, homes, FolderMaps(folder, maps), bool(plain["turned"]))


def _frame_of(plain: Mapping[str, Any]) -> Frame:
    return Frame(tuple(plain["shape"]), Grid(tuple(plain["voxel_size_nm"]), tuple(plain["offset_nm"])))


def _record(path: Path) -> dict[str, Any]:
    with explained(path, "read"):
        text = path.read_bytes()
    try:
        record = json.loads(text)
        form, version = record["format"], int(record["version"])
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise InputError(f"{path} is damaged ({problem!r}): {_WAY_OUT}") from None
    if form != FORMAT:
        raise InputError(f"{path} is {form!r}, not {FORMAT!r}: name a folder of `emloom align` or `emloom repair`")
    if version > VERSION:
        raise InputError(
            f"{path} is of version {version}, and this emloom reads up to {VERSION}: update emloom to read it"
        )
    return dict(record)


# ---- arrays ---------------------------------------------------------------------------------------------------


class _Arrays:
    """Writes arrays below a folder, equal ones once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.prefix = folder, ""
        self._names: dict[str, str] = {}

    def keep(self, array: NDArray[Any]) -> str:
        """Write an array, unless an equal one was; return its name."""
        values = np.ascontiguousarray(array)
        mark = xxhash.xxh3_128_hexdigest(values.reshape(-1).view(np.uint8).data) + f"{values.dtype}{values.shape}"
        if mark not in self._names:
            self._names[mark] = self._write(values)
        return self._names[mark]

    def _write(self, values: NDArray[Any]) -> str:
        stem = f"{self.prefix}-{len(self._names)}"
        kind, ending = ("parts", "npz") if values.dtype == np.uint8 else ("fields", "npy")
        name = f"{kind}/{stem}.{ending}"
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        if kind == "parts":
            np.savez_compressed(path, parts=values)
        else:
            np.save(path, values, allow_pickle=False)
        return name


def _load(folder: Path, name: str) -> NDArray[Any]:
    if not isinstance(name, str) or not _ARRAY.match(name):
        raise InputError(f"{folder / NAME} names the array {name!r}, which is none of its own: {_WAY_OUT}")
    path = folder / name
    try:
        with path.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            array: NDArray[Any] = found["parts"] if path.suffix == ".npz" else found
    except FileNotFoundError:
        raise InputError(f"{path} is missing, and {folder / NAME} names it: {_WAY_OUT}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as problem:
        raise InputError(f"{path} is damaged ({problem}): {_WAY_OUT}") from None
    array.flags.writeable = False
    return array
