"""What files say about themselves, and whether their statements agree.

Every format tells its story in other words (OME-NGFF, CREMI, funlib, ImageJ). A `Statement` is one such story in
our words; a statement may be silent (None) about anything, and two statements about one array must agree. `Found`
is what a file holds: everything that is known, what is missing, and what is wrong.

Nothing is guessed: a number without a known unit is a missing number. Two conventions fill silence, because the
formats themselves define them: in CREMI and funlib metadata lengths without a unit are nm, and a
4-dimensional array whose axes are not named is channels first (``czyx``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from typing import Any, Literal, get_args

import numpy as np
from pydantic import ValidationError

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Grid, Vec
from emloom.geometry.box import as_vec
from emloom.geometry.grid import Vec3, as_nm
from emloom.io.volume import Kind, VolumeInfo
from emloom.spec import Spec

OWN_KEY = "emloom"
KINDS: tuple[str, ...] = get_args(Kind)
_OWN_VERSION = 1

#: Length units as files spell them -> nm.
_NM_PER = {
    "angstrom": 0.1,
    "picometer": 1e-3,
    "nanometer": 1.0,
    "micrometer": 1e3,
    "millimeter": 1e6,
    "centimeter": 1e7,
    "meter": 1e9,
    "inch": 2.54e7,
}
_AXES = {"t": "t", "time": "t", "c": "c", "channel": "c", "channels": "c", "z": "z", "y": "y", "x": "x"}
_ALIASES = {
    "a": "angstrom",
    "å": "angstrom",
    "pm": "picometer",
    "nm": "nanometer",
    "um": "micrometer",
    "\u00b5m": "micrometer",
    "\u03bcm": "micrometer",
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "in": "inch",
}


def nm_per(unit: object) -> float | None:
    """Return how many nm one unit of length is, or None where the unit is unknown."""
    if not isinstance(unit, str):
        return None
    word = unit.strip().lower().replace("\\u00b5", "\u00b5").replace("metre", "meter")
    for spelling in (word, word.removesuffix("s")):
        name = _ALIASES.get(spelling, spelling)
        if name in _NM_PER:
            return _NM_PER[name]
    return None


@dataclass(frozen=True)
class Statement:
    """What one piece of metadata says; None is silence.

    Attributes:
        axes: names of the axes, slowest first, one letter each, e.g. ``zyx``.
        voxel_size_nm: (z, y, x) in nm.
        offset_nm: world position (z, y, x) of the corner of voxel (0, 0, 0), in nm.
        kind: what the values mean.
        neighborhood: one ZYX voxel offset per channel.
        why_missing: why the voxel size is missing although something was stated, for messages.
        problems: statements that contradict each other or make no sense.
    """

    axes: str | None = None
    voxel_size_nm: Vec3 | None = None
    offset_nm: Vec3 | None = None
    kind: Kind | None = None
    neighborhood: tuple[Vec, ...] | None = None
    why_missing: str | None = None
    problems: tuple[str, ...] = ()

    def agree(self, other: Statement, ours: str, theirs: str) -> Statement:
        """Return this statement, completed by another; a disagreement between the two is a problem."""
        values: dict[str, Any] = {}
        problems = [*self.problems, *other.problems]
        for name in ("axes", "voxel_size_nm", "offset_nm", "kind", "neighborhood"):
            a, b = getattr(self, name), getattr(other, name)
            values[name] = b if a is None else a
            if a is not None and b is not None and not self._same(name, a, b):
                problems.append(f"{ours} says {_plain(name)} {a}, {theirs} says {b}: correct one of them")
        why = None if values["voxel_size_nm"] else (self.why_missing or other.why_missing)
        return replace(self, **values, why_missing=why, problems=tuple(problems))

    def _same(self, name: str, a: Any, b: Any) -> bool:
        if name == "voxel_size_nm":
            return all(isclose(p, q, rel_tol=1e-6) for p, q in zip(a, b, strict=True))
        if name == "offset_nm":
            size = self.voxel_size_nm or (1.0, 1.0, 1.0)
            return all(abs(p - q) <= 1e-6 * max(s, abs(p)) for p, q, s in zip(a, b, size, strict=True))
        return bool(a == b)


@dataclass(frozen=True)
class Found:
    """One array in a file or folder: all that is known about it, and what is not.

    Attributes:
        path: where it is; opens with `open_volume`.
        format: ``zarr2``, ``zarr3``, ``hdf5``, ``tiff``, ``sections``.
        axes: names of the axes in stored order; only ``zyx`` and ``czyx`` open as a volume.
        shape: extents along `axes`.
        dtype: element type, native byte order.
        chunks: voxels (z, y, x) of the smallest unit that is written alone (the shard where there are shards).
        voxel_size_nm: (z, y, x), None where missing.
        offset_nm: (z, y, x), None where missing (it is then taken as 0, 0, 0).
        kind: what the values mean, None where not stated.
        neighborhood: one ZYX offset per channel, None where not stated.
        missing: what a volume needs or should have and the file does not say.
        problems: why this array cannot be opened as a volume.
        notes: observations that deserve a look but stop nothing.
        squeezed: positions of axes of extent 1 that are left out of `axes` and `shape`.
        levels: paths of its coarser levels, finer ones first; each opens as a volume.
    """

    path: str
    format: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: Vec | None = None
    voxel_size_nm: Vec3 | None = None
    offset_nm: Vec3 | None = None
    kind: Kind | None = None
    neighborhood: tuple[Vec, ...] | None = None
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    squeezed: tuple[int, ...] = ()
    levels: tuple[str, ...] = ()


def found(path: str, form: str, array: ArrayFacts, said: Statement, notes: Sequence[str] = ()) -> Found:
    """Return what an array and its metadata amount to."""
    axes, squeezed, problems = _settle_axes(array.shape, said.axes, array.droppable)
    keep = [i for i in range(len(array.shape)) if i not in squeezed]
    shape = tuple(array.shape[i] for i in keep)
    spatial = None if array.chunks is None else [array.chunks[i] for i in keep][-3:]
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        problems.append(
            f"holds {array.dtype} values: a volume holds integers, real numbers or booleans of up to 64 bits"
        )
    if 0 in shape:
        problems.append(f"is empty: its shape is {shape}")
    return Found(
        path=path,
        format=form,
        axes=axes,
        shape=shape,
        dtype=array.dtype.newbyteorder("="),
        chunks=None if spatial is None or len(spatial) != 3 else (spatial[0], spatial[1], spatial[2]),
        voxel_size_nm=said.voxel_size_nm,
        offset_nm=said.offset_nm,
        kind=said.kind,
        neighborhood=said.neighborhood,
        missing=_missing(said),
        problems=(*problems, *said.problems),
        notes=tuple(notes),
        squeezed=squeezed,
    )


@dataclass(frozen=True)
class ArrayFacts:
    """An array as its file stores it; `droppable` names the axes that may go when their extent is 1."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None = None
    droppable: str = ""


def _settle_axes(
    shape: tuple[int, ...], named: str | None, droppable: str
) -> tuple[str, tuple[int, ...], list[str]]:
    """Return (axes without those dropped, positions dropped, problems)."""
    if named is None:
        named = {3: "zyx", 4: "czyx"}.get(len(shape), "?" * len(shape))
    if len(named) != len(shape):
        return (
            "?" * len(shape),
            (),
            [f"names {len(named)} axes ({named}) but has {len(shape)} dimensions: correct one"],
        )
    squeezed = tuple(i for i, (a, n) in enumerate(zip(named, shape, strict=True)) if n == 1 and a in droppable)
    axes = "".join(a for i, a in enumerate(named) if i not in squeezed)
    if axes in ("zyx", "czyx"):
        return axes, squeezed, []
    if not axes.strip("?"):
        return axes, squeezed, [f"has {len(shape)} dimensions: a volume has 3 (zyx) or 4 (czyx)"]
    rule = "a volume is zyx or czyx, and nothing is transposed silently: store it in that order"
    return axes, squeezed, [f"has axes {','.join(axes)}: {rule}"]


def _missing(said: Statement) -> tuple[str, ...]:
    missing = []
    if said.voxel_size_nm is None:
        missing.append("voxel size" + (f" ({said.why_missing})" if said.why_missing else ""))
    if said.offset_nm is None:
        missing.append("offset (taken as 0,0,0 nm)")
    if said.kind is None:
        missing.append("kind")
    if said.kind == "affinities" and said.neighborhood is None:
        missing.append("neighborhood")
    return tuple(missing)


class _Own(Spec):
    """The `emloom` attribute: the whole grid, exactly, beside whatever the format itself can say."""

    version: Literal[1]
    axes: Literal["zyx", "czyx"]
    voxel_size_nm: Vec3
    offset_nm: Vec3
    kind: Kind | None = None
    neighborhood: tuple[Vec, ...] | None = None


def own_attribute(info: VolumeInfo) -> dict[str, Any]:
    """Return the `emloom` attribute of a volume as plain JSON types."""
    own = _Own(
        version=_OWN_VERSION,
        axes="zyx" if info.channels is None else "czyx",
        voxel_size_nm=info.grid.voxel_size_nm,
        offset_nm=info.grid.offset_nm,
        kind=info.kind,
        neighborhood=info.neighborhood,
    )
    return own.to_dict()


def read_own(data: Any) -> Statement:
    """Return what an `emloom` attribute says; silence where there is none."""
    if data is None:
        return Statement()
    try:
        own = _Own.model_validate(data)
        Grid(own.voxel_size_nm, own.offset_nm)
    except (ValidationError, InputError) as problem:
        first = str(problem).splitlines()[0]
        return Statement(problems=(f"its {OWN_KEY!r} attribute is not valid ({first}): rewrite it",))
    return Statement(own.axes, own.voxel_size_nm, own.offset_nm, own.kind, own.neighborhood)


def read_plain(attributes: Mapping[str, Any]) -> Statement:
    """Return what CREMI and funlib attributes say.

    `resolution` or `voxel_size` and `offset` are (z, y, x) lengths, in nm unless `units` says otherwise;
    `axis_names` names the axes, a channel axis as ``c`` or ``c^``.
    """
    said = Statement(axes=axis_letters(attributes.get("axis_names")))
    factors = _unit_factors(attributes.get("units"))
    why = f"unit {attributes.get('units')!r} is unknown" if factors is None else None
    for name in ("resolution", "voxel_size"):
        size, problem = _lengths(attributes.get(name), factors, name)
        if size is not None and min(size) <= 0:
            size, problem = None, f"its {name} {size} is not positive: correct it"
        said = said.agree(Statement(voxel_size_nm=size, problems=problem_tuple(problem)), "resolution", name)
    offset, problem = _lengths(attributes.get("offset"), factors, "offset")
    problems = (*said.problems, *problem_tuple(problem))
    return replace(said, offset_nm=offset, why_missing=why, problems=problems)


def said_by_caller(
    voxel_size_nm: Sequence[float] | None,
    offset_nm: Sequence[float] | None,
    kind: Kind | None,
    neighborhood: Sequence[Sequence[int]] | None,
) -> Statement:
    """Return what the caller of `open_volume` says; raises `InputError` where it is no grid, kind or offset."""
    if kind is not None and kind not in KINDS:
        raise InputError(f"kind {kind!r} is unknown: use one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    size = None if voxel_size_nm is None else Grid(as_nm(voxel_size_nm, "voxel size")).voxel_size_nm
    offset = None if offset_nm is None else as_nm(offset_nm, "offset")
    offsets: tuple[Vec, ...] | None = None if neighborhood is None else tuple(as_vec(v) for v in neighborhood)
    return Statement(voxel_size_nm=size, offset_nm=offset, kind=kind, neighborhood=offsets)


def problem_tuple(problem: str | None) -> tuple[str, ...]:
    """Return the problem as a tuple of one, or of none."""
    return () if problem is None else (problem,)


def axis_letters(names: Any) -> str | None:
    """Return axis names as one letter each, ``?`` where a name is unknown; None where no name is known."""
    if names is None or isinstance(names, str) or not isinstance(names, Sequence | np.ndarray):
        return None
    words = [n.decode() if isinstance(n, bytes) else str(n) for n in names]
    letters = "".join(_AXES.get(word.lower().rstrip("^"), "?") for word in words)
    return letters if letters.strip("?") else None


def _unit_factors(units: Any) -> Vec3 | None:
    """Return nm per unit along z, y, x; None where a unit is unknown."""
    if units is None:
        return (1.0, 1.0, 1.0)
    listed = list(units)[-3:] if isinstance(units, Sequence | np.ndarray) and np.ndim(units) else [units] * 3
    known = [nm_per(u.decode() if isinstance(u, bytes) else u) for u in listed]
    if len(known) != 3 or None in known:
        return None
    z, y, x = (f for f in known if f is not None)
    return (z, y, x)


def _lengths(value: Any, factors: Vec3 | None, what: str) -> tuple[Vec3 | None, str | None]:
    """Return (nm or None, problem or None) of three lengths."""
    if value is None or factors is None:
        return None, None
    if np.iscomplexobj(value):
        return None, f"its attribute {what} {value!r} is not three real numbers: give z, y, x in nm"
    try:
        z, y, x = as_nm(value, what)
    except InputError as problem:
        return None, f"its attribute {problem}"
    return (z * factors[0], y * factors[1], x * factors[2]), None


def _plain(name: str) -> str:
    return name.removesuffix("_nm").replace("_", " ")
