"""Tracings as the commands `emloom skeleton ...` are given them: a file, its unit, and which trees."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.geometry.tracings import Tracing
from emloom.io.tracings import read_tracings
from emloom.ops.tracingparts import keep_trees_named
from emloom.spec import Spec


class TracingSource(Spec):
    """Where tracings are."""

    path: str
    """`.nml`, `.zip`, `.nmx`, `.swc`, or a folder of SWC files."""
    unit_nm: float | Vec3 | None = None
    """nm per unit of SWC, one number or (z, y, x): 1000 for micrometres. Required there, for NML there is none."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm, where an NML file does not state its scale."""
    trees: str | None = None
    """Regular expression: only trees whose name holds a match."""

    @field_validator("unit_nm")
    @classmethod
    def _positive(cls, unit: float | Vec3 | None) -> float | Vec3 | None:
        if unit is not None and min(unit if isinstance(unit, tuple) else (unit,)) <= 0:
            raise ValueError("a unit is a positive length: 1000 for micrometres")
        return unit

    @property
    def is_swc(self) -> bool:
        """Whether it is an SWC file or a folder of them."""
        path = Path(self.path)
        return path.suffix.lower() == ".swc" or path.is_dir()


def tracings_of(source: TracingSource) -> dict[str, Tracing]:
    """Return the tracings by the names of their files, only the trees that are wanted.

    Raises:
        InputError: as `read_tracings`, `trees` is no regular expression, or no tree in any file has such a name.
    """
    found = read_tracings(source.path, unit_nm=source.unit_nm, voxel_size_nm=source.voxel_size_nm)
    if source.trees is None:
        return found
    chosen = {name: keep_trees_named(tracing, source.trees) for name, tracing in found.items()}
    left = {name: tracing for name, tracing in chosen.items() if len(tracing.skeletons.ids)}
    if not left:
        names = [name for tracing in found.values() for name in tracing.skeletons.names]
        shown = ", ".join(map(repr, names[:5])) + (" ..." if len(names) > 5 else "")
        raise InputError(
            f"{source.path}: no name of {len(names)} trees matches {source.trees!r}; they are {shown}"
        )
    return left
