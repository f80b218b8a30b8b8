"""`datasource-properties.json`: what a webKnossos dataset says about its layers.

https://docs.webknossos.org (data formats). Lengths and positions are x, y, z there and are turned into z, y, x
here and nowhere else::

    scale         nm (or a stated unit) per voxel of magnification 1
    boundingBox   of a layer: topLeft, width, height, depth, in voxels of magnification 1
    mags          factors of the magnifications a layer has, each in a folder of its own

A voxel of magnification ``m`` fills ``m`` voxels of magnification 1 along each axis, counted from the origin of
the world, not from the corner of the layer. So a box of magnification 1 becomes, outwards to whole voxels
(`Box.coarsen`)::

    start_m = floor(start / m)      stop_m = ceil(stop / m)      offset_nm = start_m * m * scale

Everything is read tolerantly: what is wrong is kept as `problems` of the layer or the magnification it concerns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec
from emloom.geometry.grid import Vec3
from emloom.io.metadata import OWN_KEY, nm_per, problem_tuple
from emloom.io.nodes import load_json
from emloom.io.places import stays_inside

PROPERTIES = "datasource-properties.json"
_FLOATS = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class Mag:
    """One magnification of a layer.

    Attributes:
        factor: voxels of magnification 1 per voxel, (z, y, x).
        folder: where its values are; None where the path leads out of the dataset.
        axis_order: letter -> position of the axis in the stored array, None where not stated.
        own: the `emloom` attribute, None where there is none.
        problems: why it cannot be opened.
    """

    factor: Vec
    folder: Path | None
    axis_order: Mapping[str, Any] | None = None
    own: Any = None
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name webKnossos gives it: ``1``, or ``2-2-1`` (x-y-z)."""
        return mag_name(self.factor)


@dataclass(frozen=True)
class Layer:
    """One layer of a dataset.

    Attributes:
        name: its name, which is also its folder.
        data_format: ``wkw``, ``zarr``, ``zarr3``, ``n5``, ``neuroglancerPrecomputed``.
        category: ``color`` or ``segmentation``; "" where not stated.
        element_class: type of a voxel, all channels together (``uint24`` is three uint8); "" where not stated.
        channels: values per voxel, None where not stated.
        box: in voxels of magnification 1, (z, y, x); None where there is none.
        mags: its magnifications, finest first.
        problems: why no magnification of it can be opened.
    """

    name: str
    data_format: str
    category: str
    element_class: str
    channels: int | None
    box: Box | None
    mags: tuple[Mag, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Datasource:
    """A webKnossos dataset.

    Attributes:
        root: its folder.
        scale_nm: (z, y, x) of a voxel of magnification 1; None where missing or wrong.
        layers: in the order of the file.
        problems: why no layer can be opened.
    """

    root: Path
    scale_nm: Vec3 | None
    layers: tuple[Layer, ...]
    problems: tuple[str, ...] = ()


def load(root: Path) -> dict[str, Any]:
    """Return the properties of a dataset as they are in the file.

    Raises:
        InputError: no readable JSON mapping.
    """
    path = root / PROPERTIES
    data = load_json(path)
    if data is None:
        raise InputError(f"{path} does not exist: {root} is no webKnossos dataset")
    return data


def read(root: Path) -> Datasource:
    """Return what the properties of a dataset say.

    Raises:
        InputError: the file is unreadable, or lists no layers.
    """
    data = load(root)
    layers = data.get("dataLayers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise InputError(f"{root / PROPERTIES} lists no layers (dataLayers): the file is damaged; copy it again")
    scale, problem = _scale(data.get("scale"))
    problems = problem_tuple(problem and f"{problem} in {PROPERTIES}")
    return Datasource(root, scale, tuple(_layer(root, layer) for layer in layers), problems)


def mag_name(factor: Vec) -> str:
    """Return the name of a magnification's folder: ``2``, or ``2-2-1`` (x-y-z) where the factors differ."""
    return str(factor[0]) if len(set(factor)) == 1 else "-".join(map(str, factor[::-1]))


def mag_factor(name: str) -> Vec | None:
    """Return the factor (z, y, x) a folder's name says, None where it is no magnification's name."""
    parts = name.split("-")
    if len(parts) not in (1, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        return None
    x, y, z = (int(part) for part in parts * (3 // len(parts)))
    return (z, y, x)


def element_class(dtype: np.dtype[Any], channels: int) -> str:
    """Return the name of a voxel's type, all channels together, as webKnossos spells it."""
    if dtype.kind == "f":
        return {"float32": "float", "float64": "double"}[dtype.name]
    return f"{dtype.name.rstrip('0123456789')}{dtype.itemsize * 8 * channels}"


def fits_class(name: str, dtype: np.dtype[Any], channels: int) -> bool:
    """Whether stored values may be called by an element class; the class of one channel is accepted, too."""
    if not name:
        return True
    plain = _FLOATS.get(name, name)
    whole = f"{dtype.name.rstrip('0123456789')}{dtype.itemsize * 8 * channels}"
    return plain in (whole, dtype.name)


def _scale(value: Any) -> tuple[Vec3 | None, str | None]:
    """Return (nm per voxel (z, y, x), None) or (None, problem)."""
    unit: Any = "nanometer"
    if isinstance(value, Mapping):
        value, unit = value.get("factor"), value.get("unit")
    if value is None:
        return None, "scale is missing: add the voxel size x, y, z in nm"
    nm = nm_per(unit)
    if nm is None:
        return None, f"scale has the unknown unit {unit!r}: use nanometer or another unit of length"
    if not _is_vector(value) or not all(isfinite(v) and v > 0 for v in value):
        return None, f"scale {value!r} is not three positive numbers: correct it (x, y, z)"
    x, y, z = (float(v) * nm for v in value)
    return (z, y, x), None


def _layer(root: Path, data: Mapping[str, Any]) -> Layer:
    name = data.get("name")
    problems = []
    if not isinstance(name, str) or not name:
        name, problem = "?", f"a layer has the name {name!r}: a name is a text; correct it"
        problems.append(problem)
    box, problem_of_box = _box(data.get("boundingBox"))
    extra = data.get("additionalAxes")
    if isinstance(extra, list) and extra:
        problems.append(
            f"has additional axes {[a.get('name') for a in extra if isinstance(a, dict)]}: not a volume"
        )
    if isinstance(name, str) and ("/" in name or not stays_inside(name)):
        problems.append(f"the layer name {name!r} leads out of its folder: a layer is a folder of the dataset")
    mags, problems_of_mags = _mags(root, name, data.get("mags", data.get("wkwResolutions")))
    channels = data.get("numChannels")
    return Layer(
        name=name,
        data_format=str(data.get("dataFormat", "")),
        category=str(data.get("category", "")),
        element_class=str(data.get("elementClass", "")),
        channels=channels if isinstance(channels, int) else None,
        box=box,
        mags=mags,
        problems=(*problems, *problem_tuple(problem_of_box), *problems_of_mags),
    )


def _box(value: Any) -> tuple[Box | None, str | None]:
    """Return (box in voxels z, y, x or None, problem or None)."""
    if value is None:
        return None, None
    try:
        start = _whole(value["topLeft"], 0)
        shape = _whole([value[side] for side in ("width", "height", "depth")], 1)
    except (KeyError, TypeError):
        start, shape = None, None
    if start is None or shape is None:
        rule = "topLeft is three voxels of at least 0, width, height and depth at least 1"
        return None, f"its boundingBox is {json.dumps(value)}: {rule}; correct it"
    return Box(start, shape), None


def _mags(root: Path, layer: str, listed: Any) -> tuple[tuple[Mag, ...], list[str]]:
    """Return (magnifications, finest first; problems of those that cannot be told)."""
    if not isinstance(listed, list) or not listed:
        return (), [f"the layer {layer!r} lists no magnification: add one"]
    mags: dict[Vec, Mag] = {}
    problems = []
    for entry in listed:
        value = entry.get("mag", entry.get("resolution")) if isinstance(entry, Mapping) else None
        factor = _whole([value] * 3 if isinstance(value, int) else value, 1)
        if factor is None:
            problems.append(
                f"magnification {value!r} is not three whole numbers of at least 1 (x, y, z): correct it"
            )
            continue
        if factor in mags:
            problems.append(f"magnification {mag_name(factor)} is listed twice: remove one entry")
        mags[factor] = _mag(root, layer, factor, entry)
    finest_first = sorted(mags, key=lambda factor: (prod(factor), factor))
    return tuple(mags[factor] for factor in finest_first), problems


def _mag(root: Path, layer: str, factor: Vec, entry: Mapping[str, Any]) -> Mag:
    stated = entry.get("path")
    names = [mag_name(factor), "-".join(map(str, factor[::-1]))]
    paths = [f"{layer}/{name}" for name in names] if stated is None else [str(stated)]
    inside = [root / path for path in paths if stays_inside(path)]
    if not inside:
        rule = "a path stays inside the dataset's folder; correct it, or open what it names itself"
        return Mag(factor, None, problems=(f"its path {paths[0]!r} leads out of the dataset: {rule}",))
    folder = next((path for path in inside if path.is_dir()), inside[0])
    lost = f"its folder {folder} does not exist: copy it again or remove the entry"
    problems = () if folder.is_dir() else (lost,)
    return Mag(factor, folder, entry.get("axisOrder"), entry.get(OWN_KEY), problems)


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) for v in value)


def _whole(value: Any, low: int) -> Vec | None:
    """Return three whole numbers x, y, z as (z, y, x), None where they are not that or one is below `low`."""
    if not _is_vector(value) or any(not isfinite(v) or v < low or v != int(v) for v in value):
        return None
    return as_vec(value[::-1])
