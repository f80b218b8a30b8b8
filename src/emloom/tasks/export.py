"""`emloom export in out --to precomputed`: a volume in the format of another tool, verified by reading it back.

The copy itself is `convert`; here is the table that says what each tool expects. A format is chosen by name, or by
the suffix of the target; a target without suffix gets the one of its format, so that every tool recognises it::

    emloom export raw.zarr out --to n5            ->  out.n5
    emloom export raw.zarr out.h5                 ->  out.h5/volumes/raw
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.io.open import FORMATS, open_volume
from emloom.io.places import Place, above, place_of
from emloom.io.volume import Kind, VolumeInfo
from emloom.spec import Spec
from emloom.tasks.convert import ConvertReport, ConvertSpec, Progress, convert

Target = Literal["zarr", "zarr2", "n5", "precomputed", "wkw", "hdf5", "tiff"]


@dataclass(frozen=True)
class Export:
    """What a tool's format is called on disk, and how it likes its data.

    Attributes:
        suffixes: of the container; the first is given to a target without one.
        options: fields of `ConvertSpec` that differ from its defaults.
        names: kind -> name inside the container, for formats whose container is not itself a volume.
    """

    suffixes: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[Kind | None, str] = field(default_factory=dict)


_CREMI: Mapping[Kind | None, str] = {"raw": "volumes/raw", "labels": "volumes/labels/neuron_ids"}

#: Name of a format -> how to write it. A wkw cube file holds many blocks of 32 voxels, so its "chunk" is large.
EXPORTS: dict[Target, Export] = {
    "zarr": Export((".zarr",)),
    "zarr2": Export((".zarr",), {"zarr_format": 2}),
    "n5": Export((".n5",)),
    "precomputed": Export((".precomputed",)),
    "wkw": Export((".wkw",), {"chunk_vox": (256, 256, 256)}),
    "hdf5": Export((".h5", ".hdf5", ".hdf"), {}, _CREMI),
    "tiff": Export((".tif", ".tiff")),
}


class ExportSpec(Spec):
    """Write a volume in the format of another tool."""

    source: str
    """What to read."""
    target: str
    """Where to write; must not exist. A missing suffix is added."""
    to: Target | None = None
    """The format; default: what the suffix of the target says."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm; needed where the source does not state it, and must agree where it does."""
    offset_nm: Vec3 | None = None
    """World position (z, y, x) in nm of the corner of the first voxel; 0 where nobody states it."""
    kind: Kind | None = None
    """What the values mean, where the source does not say."""
    chunk_vox: Vec | None = None
    """Voxels (z, y, x) per chunk; default: what the format likes."""
    shard_vox: Vec | None = None
    """Voxels per shard file, a multiple of the chunk; for formats that have shards."""
    encoding: str | None = None
    """How chunks are compressed, where the format has a choice."""


def export(spec: ExportSpec, progress: Progress | None = None) -> ConvertReport:
    """Copy a volume into the format asked for, and verify the copy; `report.target` says where it is.

    Raises:
        InputError: the format is unknown or only read, the target's suffix is another format's, or whatever
            `convert` refuses. Nothing is left behind.
    """
    to = spec.to or _by_suffix(spec.target)
    info = open_volume(
        spec.source, voxel_size_nm=spec.voxel_size_nm, offset_nm=spec.offset_nm, kind=spec.kind
    ).info
    fields = ("source", "voxel_size_nm", "offset_nm", "kind")
    given = {name: getattr(spec, name) for name in ("chunk_vox", "shard_vox", "encoding")}
    options = {
        **EXPORTS[to].options,
        **{name: value for name, value in given.items() if value is not None},
        **{name: getattr(spec, name) for name in fields},
        "target": target_path(spec.target, to, info),
    }
    return convert(ConvertSpec(**options), progress)


def target_path(target: str, to: Target, info: VolumeInfo) -> str:
    """Return the full path of an export: with the suffix of its format and, where it needs one, an inner name.

    Raises:
        InputError: this emloom cannot write the format, or the path says another one.
    """
    wanted = EXPORTS[to]
    form = FORMATS.get(wanted.suffixes[0])
    if form is None or form.create is None:
        can = ", ".join(name for name in EXPORTS if _writable(name))
        raise InputError(f"this emloom does not write {to} ({wanted.suffixes[0]}): choose one of {can}")
    place = place_of(target)
    around: list[Place] = [*reversed(above(place, 99)), place]
    said = next((p for p in around if p.suffix.lower() in _all_suffixes()), None)
    if said is None:
        said = place = place.parent / (place.name + wanted.suffixes[0])
    elif said.suffix.lower() not in wanted.suffixes:
        raise InputError(f"{target} ends in {said.suffix}, which is not {to}: leave --to out, or the suffix")
    if said == place and wanted.names:
        place = place / wanted.names.get(info.kind, info.kind or "data")
    return str(place)


def _by_suffix(target: str) -> Target:
    whole = place_of(target)
    places: list[Place] = [whole, *above(whole, 99)]
    for place in places:
        for name, wanted in EXPORTS.items():
            if place.suffix.lower() in wanted.suffixes:
                return name
    raise InputError(f"{target} does not say its format: pass --to {', '.join(get_args(Target))}")


def _writable(name: Target) -> bool:
    form = FORMATS.get(EXPORTS[name].suffixes[0])
    return form is not None and form.create is not None


def _all_suffixes() -> set[str]:
    return {suffix for wanted in EXPORTS.values() for suffix in wanted.suffixes}
