"""What the tools around N5 say about an array in its ``attributes.json``, and which of it is believed.

Lists follow `dimensions` (x first) unless they carry names of their own::

    axes: ["x", "y", "z", "c"]                           neuroglancer: names of the dimensions
    resolution, offset: [x, y, z], units: [...]          neuroglancer, funlib: lengths, believed with known units
    pixelResolution: {"unit": "um", "dimensions": [...]} n5-viewer: edge of a voxel of the finest level ...
    downsamplingFactors: [2, 2, 1]                       ... times this; of a group, a list per level (or `scales`)
    transform: {axes, scale, translate, units}           CellMap (COSEM): by name; translate is a voxel's *centre*
    multiscales[0].datasets: [{path, transform}]         the same, on the group, for each level

Not believed: a number without a unit; `resolution` of a level that also states `downsamplingFactors` (tools differ
on whether to multiply); four dimensions without `axes`, because channels are first for some tools and last for
others (webKnossos says it in its ``datasource-properties.json``, which is read). Factors move no corner, so levels
share their offset. Attributes of the two groups around an array hold for it where its own are silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.grid import Vec3, as_nm
from emloom.io.metadata import Statement, axis_letters, nm_per
from emloom.io.nodes import load_json
from emloom.io.places import Place, above
from emloom.io.volume import VolumeInfo

LEVEL = "s{}"
_DATASOURCE = "datasource-properties.json"
_KEEPS = ("xyz", "xyzc", "cxyz", "xyzct", "cxyzt")

Attributes = Mapping[str, Any]


def attributes_of_volume(info: VolumeInfo) -> dict[str, Any]:
    """Return the attributes by which neuroglancer, n5-viewer and CellMap's tools place a volume."""
    letters = "xyz" if info.channels is None else "xyzc"
    return {**lengths_of(info.grid, letters), "transform": transform_of(info.grid)}


def lengths_of(grid: Grid, letters: str) -> dict[str, Any]:
    """Return what neuroglancer and n5-viewer are told of a grid; `letters` are the stored axes, fastest first."""
    return {
        "axes": list(letters),
        "resolution": by_letter(grid.voxel_size_nm, letters, 1.0),
        "offset": by_letter(grid.offset_nm, letters, 0.0),
        "units": by_letter(("nm", "nm", "nm"), letters, ""),
        "pixelResolution": {"unit": "nm", "dimensions": list(reversed(grid.voxel_size_nm))},
    }


def transform_of(grid: Grid) -> dict[str, Any]:
    """Return what CellMap's tools are told of a grid."""
    return {
        "axes": list("zyx"),
        "scale": list(grid.voxel_size_nm),
        "translate": list(grid.centre((0, 0, 0))),
        "units": ["nm"] * 3,
    }


def by_letter(values_zyx: Sequence[Any], letters: str, other: Any) -> list[Any]:
    """Return values for z, y, x in the order of the stored axes; axes that are not of space get `other`."""
    known = dict(zip("zyx", values_zyx, strict=True))
    return [known.get(letter, other) for letter in letters]


def array_axes(
    array: Place, rank: int, own: Attributes, groups: Sequence[Attributes]
) -> tuple[str, tuple[int, ...], str | None]:
    """Return (letters of the stored axes, stored axes in the order ``[t][c]zyx``, problem or None)."""
    names = next((a["axes"] for a in (own, *groups) if isinstance(a.get("axes"), list)), None)
    letters = axis_letters(names)
    if letters is None and rank == 3:
        letters = "xyz"
    if letters is None and rank == 4:
        letters = _webknossos_axes(array, own)
    backwards = tuple(reversed(range(rank)))
    if letters is None:
        rule = "N5 does not say whether channels are first or last: add axes, e.g. ['x', 'y', 'z', 'c']"
        return "?" * rank, backwards, f"has {rank} dimensions without 'axes', and {rule}"
    if len(letters) != rank:
        return letters, backwards, f"names {len(letters)} axes ({letters}) but has {rank} dimensions"
    if letters not in _KEEPS:
        rule = "emloom reads N5 whose dimensions are x, y, z with channels before or after them: store it so"
        return letters, backwards, f"has the axes {','.join(letters)}, fastest first: {rule}"
    order = tuple(letters.index(letter) for letter in "tczyx" if letter in letters)
    return letters, order, None


def read_words(array: Place, letters: str, own: Attributes, groups: Sequence[Attributes]) -> Statement:
    """Return what the attributes of an array and of the groups around it say about it.

    Args:
        array: folder of the array; its name may be that of a level (``s1``).
        letters: its stored axes, see `array_axes`.
        own: its attributes.
        groups: attributes of the groups around it, nearest first.
    """
    if own.get("isLabelMultiset"):
        return Statement(problems=("holds label multisets, not ids: export it as uint64 labels first",))
    named = "".join(letter for letter in "tczyx" if letter in letters)
    said = Statement(axes=named or None)
    try:
        said = _agreed(said, _transforms(array, own, groups))
        said = _agreed(said, _measures(array, letters, own, groups))
        if said.voxel_size_nm is None:
            said = _agreed(said, {_DATASOURCE: _webknossos_grid(array)})
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        return Statement(problems=(f"its N5 attributes are malformed ({problem!r}): rewrite them",))
    if said.voxel_size_nm is not None and min(said.voxel_size_nm) <= 0:
        wrong = f"its N5 voxel size {said.voxel_size_nm} is not positive: correct it"
        return Statement(axes=said.axes, problems=(*said.problems, wrong))
    return said


def _agreed(said: Statement, others: Mapping[str, Statement]) -> Statement:
    for name, other in others.items():
        said = said.agree(other, "its other attributes", name)
    return said


# ---- lists in the order of `dimensions` ------------------------------------------------------------------------


def _measures(array: Place, letters: str, own: Attributes, groups: Sequence[Attributes]) -> dict[str, Statement]:
    factors = _factors(array, letters, own, groups)
    words: dict[str, Statement] = {}
    for name, reader in (("resolution", _resolution), ("pixelResolution", _pixel_resolution)):
        index = next((i for i, a in enumerate((own, *groups)) if a.get(name) is not None), None)
        if index is not None:
            words[name] = reader((own, *groups)[index], letters, factors, index == 0)
    return words


def _resolution(a: Attributes, letters: str, factors: Vec3 | None, is_own: bool) -> Statement:
    units = a.get("units")
    known = None if units is None else _nm_per_unit(units, letters)
    if known is None:
        why = "its resolution has no units" if units is None else f"its units {units} are unknown"
        return Statement(why_missing=f"{why}: N5 defines none")
    size = _times(_spatial(a["resolution"], letters, "resolution"), known)
    offset = a.get("offset")
    place = None if offset is None else _times(_spatial(offset, letters, "offset"), known)
    if is_own and factors not in (None, (1.0, 1.0, 1.0)) and "downsamplingFactors" in a:
        why = "it states both resolution and downsamplingFactors, and tools differ on whether to multiply"
        return Statement(offset_nm=place, why_missing=why)
    if not is_own:
        if factors is None:
            return Statement(offset_nm=place, why_missing="its downsamplingFactors are not stated")
        size = _times(size, factors)
    return Statement(voxel_size_nm=size, offset_nm=place)


def _pixel_resolution(a: Attributes, letters: str, factors: Vec3 | None, is_own: bool) -> Statement:
    value = a["pixelResolution"]
    unit = value.get("unit") if isinstance(value, Mapping) else None
    per = nm_per(unit)
    if per is None:
        return Statement(why_missing=f"its pixelResolution has the unit {unit!r}")
    if factors is None and not is_own:
        return Statement(why_missing="its downsamplingFactors are not stated")
    if is_own and "downsamplingFactors" not in a and factors not in (None, (1.0, 1.0, 1.0)):
        why = "its own pixelResolution and the group's downsamplingFactors: tools differ on whether to multiply"
        return Statement(why_missing=why)
    size = _spatial(value["dimensions"], letters, "pixelResolution")
    return Statement(voxel_size_nm=_times(size, _times(factors or (1.0, 1.0, 1.0), (per, per, per))))


def _factors(array: Place, letters: str, own: Attributes, groups: Sequence[Attributes]) -> Vec3 | None:
    """Return by how much a level is coarser than the finest (z, y, x); None where that is not stated."""
    digits = array.name.removeprefix("s")
    level = int(digits) if array.name != digits and digits.isdecimal() else None
    group = groups[0] if groups else {}
    listed = group.get("downsamplingFactors") or group.get("scales")
    if level is not None and listed is not None:
        return _spatial(listed[level], letters, "downsamplingFactors")
    if own.get("downsamplingFactors") is not None:
        return _spatial(own["downsamplingFactors"], letters, "downsamplingFactors")
    return (1.0, 1.0, 1.0) if not level else None


def _nm_per_unit(units: Sequence[Any], letters: str) -> Vec3 | None:
    """Return nm per unit along z, y, x; None where a unit is unknown."""
    listed = list(units)
    per = [nm_per(listed[i]) for i in _positions(listed, letters)]
    z, y, x = per
    return None if z is None or y is None or x is None else (z, y, x)


def _positions(values: Sequence[Any], letters: str) -> list[int]:
    """Return where z, y and x are in a list that follows all dimensions, or x, y, z alone."""
    if len(values) == 3 or "?" in letters:
        return [2, 1, 0]
    if len(values) != len(letters):
        raise ValueError(f"{values} has {len(values)} values for the {len(letters)} dimensions {letters}")
    return [letters.index(letter) for letter in "zyx"]


def _spatial(values: Any, letters: str, what: str) -> Vec3:
    listed = list(values)
    return as_nm([listed[i] for i in _positions(listed, letters)], what)


def _times(a: Vec3, b: Vec3) -> Vec3:
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])


# ---- lists with names of their own: CellMap ---------------------------------------------------------------------


def _transforms(array: Place, own: Attributes, groups: Sequence[Attributes]) -> dict[str, Statement]:
    words = {}
    if own.get("transform") is not None:
        words["transform"] = _transform(own["transform"])
    for group in groups[:1]:
        images = group.get("multiscales")
        levels = images[0]["datasets"] if isinstance(images, Sequence) and images else []
        for level in levels:
            if str(level["path"]).strip("/") == array.name and level.get("transform") is not None:
                words["multiscales"] = _transform(level["transform"])
    return words


def _transform(transform: Attributes) -> Statement:
    names = axis_letters(transform["axes"]) or ""
    units = transform.get("units") or [None] * len(names)
    at = [names.index(letter) for letter in "zyx"]
    per = [nm_per(units[i]) for i in at]
    if None in per:
        return Statement(why_missing=f"the units {transform.get('units')} of its transform are missing or unknown")
    factors = as_nm([f for f in per if f is not None], "units")
    size = _times(as_nm([transform["scale"][i] for i in at], "scale"), factors)
    shift = transform.get("translate")
    if shift is None:
        return Statement(voxel_size_nm=size)
    centre = _times(as_nm([shift[i] for i in at], "translate"), factors)
    return Statement(
        voxel_size_nm=size, offset_nm=as_nm([c - s / 2 for c, s in zip(centre, size, strict=True)], "x")
    )


# ---- webKnossos -------------------------------------------------------------------------------------------------


def _webknossos_layer(array: Place) -> tuple[Attributes, Attributes, Attributes] | None:
    """Return (dataset, layer, mag) of the webKnossos dataset that lists an array; None where there is none."""
    for folder in above(array, 3):
        dataset = load_json(folder / _DATASOURCE)
        if dataset is None:
            continue
        for layer in dataset.get("dataLayers") or []:
            for mag in layer.get("mags") or []:
                path = str(mag.get("path") or f"{layer.get('name')}/{mag.get('mag')}").removeprefix("./")
                if folder / path == array:
                    return dataset, layer, mag
    return None


def _webknossos_axes(array: Place, own: Attributes) -> str | None:
    """Return the axes of an array in a webKnossos dataset: stated, or channels first where their number agrees."""
    known = _webknossos_layer(array)
    if known is None:
        return None
    _, layer, mag = known
    order = mag.get("axisOrder")
    if isinstance(order, Mapping):
        letters = "".join(sorted(order, key=lambda name: int(order[name])))
        return axis_letters(list(letters))
    return "cxyz" if layer.get("numChannels") == own["dimensions"][0] else None


def _webknossos_grid(array: Place) -> Statement:
    """Return the voxel size of an array in a webKnossos dataset; its `scale` is nm unless it names a unit."""
    known = _webknossos_layer(array)
    if known is None:
        return Statement()
    dataset, _, mag = known
    scale = dataset["scale"]
    per = nm_per(scale.get("unit")) if isinstance(scale, Mapping) else 1.0
    if per is None:
        return Statement(why_missing=f"its webKnossos scale {scale} has no known unit")
    edge = list(scale["factor"] if isinstance(scale, Mapping) else scale)
    step = mag["mag"] if isinstance(mag["mag"], list) else [mag["mag"]] * 3
    if len(edge) != 3 or len(step) != 3:
        raise InputError(f"{_DATASOURCE}: scale {scale} and mag {step} are not three numbers each")
    z, y, x = (float(a) * float(b) * per for a, b in zip(reversed(edge), reversed(step), strict=True))
    return Statement(voxel_size_nm=(z, y, x), offset_nm=(0.0, 0.0, 0.0))
