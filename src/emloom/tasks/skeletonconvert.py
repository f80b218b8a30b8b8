"""`emloom skeleton convert`: from one format of tracings to another, and on the way a box, fewer nodes, or more.

In this order: the trees that are wanted, what lies in the box, resampled, simplified. What a format cannot hold is
told, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path, PurePosixPath

from pydantic import field_validator

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.geometry.tracings import Tracing
from emloom.io.files import refuse_existing, staged
from emloom.io.nml import write_nmls
from emloom.io.swcwriter import swc_losses
from emloom.io.tracings import write_tracing
from emloom.ops.tracingmerge import merged
from emloom.ops.tracingredraw import clipped_tracing, resampled_tracing, simplified_tracing
from emloom.spec import Spec
from emloom.tasks.tracingsource import TracingSource, tracings_of

_ARCHIVES = (".zip", ".nmx")
_NML = (".nml", *_ARCHIVES)


class ConvertTracingSpec(Spec):
    """Write tracings in another format, or parts of them."""

    source: TracingSource
    """What to read."""
    target: str
    """`.nml`, `.zip`, `.nmx`, `.swc` for one tree, or a folder for an SWC file of each; must not exist."""
    to_unit_nm: float | None = None
    """nm per unit of the SWC to be written; required there."""
    to_voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm: voxels in which an NML file counts; required where the source is SWC, and only there."""
    radius_nm: float | None = None
    """Radius of nodes that have none, which SWC does not allow."""
    box_nm: tuple[Vec3, Vec3] | None = None
    """Start and stop (z, y, x): what lies there, cut at the faces."""
    resample_nm: float | None = None
    """Nodes at most so far apart along paths."""
    simplify_nm: float | None = None
    """Leave out nodes that lie so near to a straight line between others."""

    @field_validator("to_unit_nm", "resample_nm")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError("a length is positive")
        return value


@dataclass(frozen=True)
class ConvertedTracing:
    """What was written.

    Attributes:
        target: where.
        trees: how many.
        nodes: how many, before and after.
        length_nm: path length, before and after.
        notes: what the format could not hold, in words.
    """

    target: str
    trees: int
    nodes: tuple[int, int]
    length_nm: tuple[float, float]
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Return lines for a person."""
        (n, m), (a, b) = self.nodes, self.length_nm
        nodes = f"{m} nodes" if n == m else f"{m} nodes (of {n})"
        path = f"{b / 1000:.6g} µm" if a == b else f"{b / 1000:.6g} µm (of {a / 1000:.6g})"
        return "\n".join([f"{self.target}: {self.trees} trees, {nodes}, {path}", *(f"  {n}" for n in self.notes)])


def convert_tracing(spec: ConvertTracingSpec) -> ConvertedTracing:
    """Read tracings, take the parts that are wanted, and write them.

    Several files, of an archive or a folder, become one archive of as many, or are merged into one.

    Raises:
        InputError: the target exists, nothing is left to be written, or as the readers and writers. Nothing is
            left behind.
    """
    _require_units(spec)
    refuse_existing(spec.target)
    found = tracings_of(spec.source)
    made = {name: _in_voxels(_parts(tracing, spec), spec.to_voxel_size_nm) for name, tracing in found.items()}
    if not any(len(tracing.skeletons.node_ids) for tracing in made.values()):
        raise InputError(f"{spec.source.path}: nothing of it is left to be written: check the box, in nm, z, y, x")
    notes = _write({name: tracing for name, tracing in made.items() if len(tracing.skeletons.ids)}, spec)
    return ConvertedTracing(
        spec.target,
        sum(len(tracing.skeletons.ids) for tracing in made.values()),
        (_nodes(found.values()), _nodes(made.values())),
        (_length(found.values()), _length(made.values())),
        notes,
    )


def _require_units(spec: ConvertTracingSpec) -> None:
    target, from_swc = spec.target, spec.source.is_swc
    to_nml = Path(target).suffix.lower() in _NML
    if to_nml and spec.to_unit_nm is not None:
        raise InputError(f"{target} is written in voxels and says their size: leave out the unit of SWC")
    if not to_nml and spec.to_unit_nm is None:
        raise InputError(f"{target} is SWC, which does not say its unit: choose it, 1000 nm for micrometres")
    if spec.to_voxel_size_nm is not None and not (to_nml and from_swc):
        raise InputError(
            f"{target}: voxels of {spec.to_voxel_size_nm} nm are for NML that is made from SWC: leave them out"
        )
    if spec.to_voxel_size_nm is None and to_nml and from_swc:
        raise InputError(
            f"{target} counts in voxels, and SWC does not know their size: give it, (z, y, x) like 30,8,8 nm"
        )


def _parts(tracing: Tracing, spec: ConvertTracingSpec) -> Tracing:
    if spec.box_nm is not None:
        tracing = clipped_tracing(tracing, *spec.box_nm)
    if spec.resample_nm is not None:
        tracing = resampled_tracing(tracing, spec.resample_nm)
    return tracing if spec.simplify_nm is None else simplified_tracing(tracing, spec.simplify_nm)


def _in_voxels(tracing: Tracing, size: Vec3 | None) -> Tracing:
    return tracing if size is None else replace(tracing, voxel_size_nm=size)


def _write(made: Mapping[str, Tracing], spec: ConvertTracingSpec) -> tuple[str, ...]:
    """Write what the format can hold, and return what it cannot, in words."""
    path = Path(spec.target)
    ending = path.suffix.lower()
    if ending in _ARCHIVES and len(made) > 1:
        write_nmls(path, {str(PurePosixPath(name).with_suffix(".nml")): tracing for name, tracing in made.items()})
        return ()
    if not ending and len(made) > 1 and all(len(tracing.skeletons.ids) == 1 for tracing in made.values()):
        return _write_files(path, made, spec)
    one = merged(made.values()) if len(made) > 1 else next(iter(made.values()))
    notes: tuple[str, ...] = ()
    if ending not in _NML:
        notes = tuple(f"lost in SWC: {loss}" for loss in swc_losses(one))
    elif ending not in _ARCHIVES and one.attachments:
        notes = (f"left out: {len(one.attachments)} files beside the tracing, which an archive, .zip, can hold",)
        one = one.without_attachments()
    write_tracing(path, one, unit_nm=spec.to_unit_nm, radius_nm=spec.radius_nm)
    return notes


def _write_files(path: Path, made: Mapping[str, Tracing], spec: ConvertTracingSpec) -> tuple[str, ...]:
    """Write a folder of SWC files that are called as the files they come from."""
    notes: list[str] = []
    with staged(path) as folder:
        folder.mkdir()
        for name, tracing in made.items():
            notes += [f"lost in SWC: {loss} of {name}" for loss in swc_losses(tracing)]
            file = folder / PurePosixPath(name).with_suffix(".swc").name
            write_tracing(file, tracing, unit_nm=spec.to_unit_nm, radius_nm=spec.radius_nm)
    return tuple(notes)


def _nodes(tracings: Iterable[Tracing]) -> int:
    return sum(len(tracing.skeletons.node_ids) for tracing in tracings)


def _length(tracings: Iterable[Tracing]) -> float:
    return fsum(length for tracing in tracings for length in tracing.skeletons.lengths_nm.tolist())
