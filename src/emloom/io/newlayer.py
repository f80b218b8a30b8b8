"""A new layer, or a new magnification of a layer, in a webKnossos dataset that emloom writes.

A path is ``out.wkw``, ``out.wkw/layer`` or ``out.wkw/layer/magnification``; without a layer it is ``segmentation``
for labels and masks, else ``color``; without a magnification it is 1. Everything is written as wkw (LZ4).

The dataset has one scale, the voxel size of magnification 1, and counts voxels from the origin of the world. So a
volume fits only where its offset is a whole number of its voxels and not negative, and where its voxel size is the
scale times its magnification; all else is refused, never rounded::

    scale = voxel size / magnification        start = offset / voxel size        box of layer = box * magnification

The magnification's folder is made first, the entry in the JSON file last: a crash between the two leaves a folder
that no dataset names.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.grid import TOLERANCE_VOX, Vec3
from emloom.io.datasource import PROPERTIES, Layer, element_class, load, mag_factor, mag_name, read
from emloom.io.files import explained, final_name, refuse_existing, staged, write_text_atomic
from emloom.io.metadata import OWN_KEY, own_attribute
from emloom.io.volume import VolumeInfo
from emloom.io.wkw import LIMIT_VOX, Header, WkwVolume, check_type, cube_len_for, write_header

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class _Plan:
    """Where a new magnification goes.

    Attributes:
        container: the dataset's folder.
        layer: name of the layer.
        factor: its magnification, (z, y, x).
        scale_nm: voxel size of magnification 1, (z, y, x).
        box: of the volume, in voxels of the magnification.
        header: of its cube files.
        info: of the volume.
    """

    container: Path
    layer: str
    factor: Vec
    scale_nm: Vec3
    box: Box
    header: Header
    info: VolumeInfo

    @property
    def place(self) -> str:
        return f"{self.layer}/{mag_name(self.factor)}"

    @property
    def layer_box(self) -> Box:
        """The box in voxels of magnification 1."""
        low = [a * f for a, f in zip(self.box.start, self.factor, strict=True)]
        return Box.of(low, [a + n * f for a, n, f in zip(low, self.box.shape, self.factor, strict=True)])

    @property
    def category(self) -> str:
        return _category(self.info)


def create(path: Path, inner: str, info: VolumeInfo, *, overwrite: bool = False) -> WkwVolume:
    """Create an empty (all zero) magnification, ready to be written block by block.

    Args:
        path: the dataset's folder, e.g. ``out.wkw``; made where it does not exist.
        inner: ``layer`` or ``layer/magnification``; see the module.
        info: shape, dtype, grid, kind; a cube file holds at least a chunk of it, and `info.chunks` of the volume
            is the cube, which two writers should not share.
        overwrite: replace an existing magnification.

    Raises:
        InputError: the magnification exists, the dataset cannot hold such a volume, or the disk refuses.
    """
    plan = _plan(path, inner, info)
    if path.exists():
        if not inner and not overwrite:
            refuse_existing(path)
        properties = _extended(plan, overwrite=overwrite)
        with staged(path / plan.place, overwrite=overwrite) as temporary:
            write_header(temporary, plan.header)
        write_text_atomic(path / PROPERTIES, json.dumps(properties, indent=2))
    else:
        with staged(path) as temporary:
            write_header(temporary / plan.place, plan.header)
            (temporary / PROPERTIES).write_text(json.dumps(_new_dataset(plan), indent=2), encoding="utf-8")
    source = f"{path}/{inner if inner == plan.layer else plan.place}"
    folder = path / plan.place
    return WkwVolume(info.with_(chunks=plan.header.cube, source=source), folder, plan.box.start, plan.header, True)


@contextmanager
def staged_addition(container: Path, inner: str, info: VolumeInfo) -> Iterator[Path]:
    """Build a new magnification in a dataset of its own and move it into an existing one when the block ends well.

    Yields:
        The path to create it at.

    Raises:
        InputError: the magnification exists, or the dataset cannot hold such a volume.
    """
    plan = _plan(container, inner, info)
    _extended(plan, overwrite=False)  # what would be refused at the end is refused now
    aside = container.with_name(f".{container.stem}.partial-{uuid.uuid4().hex[:8]}{container.suffix}")
    target = container / plan.place
    try:
        yield aside / plan.place
        properties = _extended(plan, overwrite=False)
        with explained(target):
            target.parent.mkdir(exist_ok=True)
            (aside / plan.place).rename(target)
        write_text_atomic(container / PROPERTIES, json.dumps(properties, indent=2))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _plan(container: Path, inner: str, info: VolumeInfo) -> _Plan:
    whole = f"{container}/{inner}" if inner else str(container)
    layer, _, mag = inner.partition("/")
    layer = layer or _category(info)
    factor = mag_factor(mag) if mag else (1, 1, 1)
    if not _NAME.fullmatch(layer):
        raise InputError(f"{whole}: {layer!r} is no name of a layer: use letters, digits, '_', '-' and '.'")
    if factor is None:
        raise InputError(f"{whole}: {mag!r} is no magnification: write 1, 2 or 2-2-1 (x-y-z)")
    channels = 1 if info.channels is None else info.channels
    check_type(info.dtype, channels, whole)
    z, y, x = (s / f for s, f in zip(info.grid.voxel_size_nm, factor, strict=True))
    header = Header(info.dtype.newbyteorder("="), channels, cube_len_for(info))
    return _Plan(container, layer, factor, (z, y, x), Box(_start(info, whole), info.shape), header, info)


def _category(info: VolumeInfo) -> str:
    return "segmentation" if info.kind in ("labels", "mask") and info.dtype.kind in "ui" else "color"


def _start(info: VolumeInfo, name: str) -> Vec:
    """Return the offset in voxels; refuse one that is no whole number of them."""
    position = [o / s for o, s in zip(info.grid.offset_nm, info.grid.voxel_size_nm, strict=True)]
    z, y, x = (round(p) for p in position)
    start = (z, y, x)
    if any(abs(p - a) > TOLERANCE_VOX * max(1.0, abs(p)) for p, a in zip(position, start, strict=True)):
        raise InputError(
            f"{name}: the offset {info.grid.offset_nm} nm is {tuple(position)} voxels, and webKnossos places "
            "layers at whole voxels: crop or shift the volume to whole voxels, or write to .zarr"
        )
    stop = max(a + n for a, n in zip(start, info.shape, strict=True))
    if min(start) < 0 or stop > LIMIT_VOX:
        raise InputError(
            f"{name}: the offset {info.grid.offset_nm} nm is voxel {start} (z, y, x), and wkw has voxels 0 to "
            f"{LIMIT_VOX - 1}: give another offset, or write to .zarr"
        )
    return start


def _new_dataset(plan: _Plan) -> dict[str, Any]:
    return {
        "version": 1,
        "id": {"name": Path(final_name(plan.container)).stem, "team": ""},
        "scale": {"factor": list(plan.scale_nm[::-1]), "unit": "nanometer"},
        "dataLayers": [_new_layer(plan)],
    }


def _new_layer(plan: _Plan) -> dict[str, Any]:
    x, y, z = plan.layer_box.shape[::-1]
    return {
        "name": plan.layer,
        "category": plan.category,
        "boundingBox": {"topLeft": list(plan.layer_box.start[::-1]), "width": x, "height": y, "depth": z},
        "elementClass": element_class(plan.header.dtype, plan.header.channels),
        "dataFormat": "wkw",
        "numChannels": plan.header.channels,
        "wkwResolutions": [mag_entry("resolution", plan.factor, plan.header.cube_len, plan.info)],
    }


def mag_entry(key: str, factor: Vec, cube_len: int, info: VolumeInfo) -> dict[str, Any]:
    """Return the entry of a magnification in a list whose entries call their factors `key`; see `listed_mags`."""
    return {key: list(factor[::-1]), "cubeLength": cube_len, OWN_KEY: own_attribute(info)}


def _extended(plan: _Plan, *, overwrite: bool) -> dict[str, Any]:
    """Return the properties of the dataset with the new magnification in them.

    Raises:
        InputError: it has that magnification already, or cannot hold the volume.
    """
    if not (plan.container / PROPERTIES).is_file():
        raise InputError(f"{plan.container} exists and is no webKnossos dataset: choose another name or remove it")
    source, data = read(plan.container), copy.deepcopy(load(plan.container))
    if source.problems or source.scale_nm is None:
        raise InputError(f"{plan.container}: {'; '.join(source.problems)}")
    if not all(isclose(a, b, rel_tol=TOLERANCE_VOX) for a, b in zip(source.scale_nm, plan.scale_nm, strict=True)):
        raise InputError(
            f"{plan.container}/{plan.place} would have the scale {plan.scale_nm} nm, the dataset has "
            f"{source.scale_nm} (z, y, x), and a dataset has one: name the magnification (e.g. color/2-2-1), or "
            "write a new dataset"
        )
    at = next((i for i, layer in enumerate(source.layers) if layer.name == plan.layer), None)
    if at is None:
        data["dataLayers"].append(_new_layer(plan))
        return data
    layer, entry = source.layers[at], data["dataLayers"][at]
    if any(mag.factor == plan.factor for mag in layer.mags):
        if not overwrite:
            refuse_existing(plan.container / plan.place)
            raise InputError(
                f"{plan.container}/{plan.place} is listed already: choose another name or overwrite it"
            )
        if len(layer.mags) == 1:
            data["dataLayers"][at] = _new_layer(plan)
            return data
    _require_fit(plan, layer)
    listed, key = listed_mags(entry)
    kept = [e for e in entry[listed] if factor_of(e) != plan.factor]
    entry[listed] = [*kept, mag_entry(key, plan.factor, plan.header.cube_len, plan.info)]
    return data


def listed_mags(layer: dict[str, Any]) -> tuple[str, str]:
    """Return (name of the list of a layer's magnifications, name of the factors in it), new or old spelling."""
    return ("mags", "mag") if "mags" in layer else ("wkwResolutions", "resolution")


def factor_of(entry: dict[str, Any]) -> Vec:
    """Return the factors (z, y, x) of an entry of that list."""
    value: Any = entry.get("mag", entry.get("resolution"))
    x, y, z = (value, value, value) if isinstance(value, int) else value
    return (z, y, x)


def _require_fit(plan: _Plan, layer: Layer) -> None:
    """Raise `InputError` unless the volume is the same layer in another magnification."""
    ours = (element_class(plan.header.dtype, plan.header.channels), plan.category, "wkw")
    theirs = (layer.element_class, layer.category, layer.data_format)
    if layer.problems or ours != theirs:
        raise InputError(
            f"{plan.container}/{plan.layer} holds {', '.join(theirs)}, the new magnification {', '.join(ours)}: "
            "all magnifications of a layer hold the same; choose another layer"
        )
    if layer.box is not None and layer.box.coarsen(plan.factor) != plan.box:
        raise InputError(
            f"{plan.container}/{plan.layer} is {layer.box.coarsen(plan.factor)} in magnification "
            f"{mag_name(plan.factor)}, the new one {plan.box} (z, y, x): all magnifications of a layer fill its "
            "box, counted from the origin of the world; choose another layer"
        )
