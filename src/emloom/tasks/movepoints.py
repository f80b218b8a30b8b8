"""`emloom align apply|invert --to points`: tables, tracings, synaptic sites to where a stack map leads, and back.

What is understood are the positions; ids, names, attributes, comments, partners and the order of rows stay. Points
at whole voxels, or at their centres, that move by whole voxels arrive at exactly the position of the voxel there,
to the bit, and so come back.

A point may have no place where the map leads: its section is not shown, or it lies in the gap of a torn section or
outside the stack. Such points are **never dropped in silence**: they are counted, and written as they were, with
the reason, into ``NAME.lost.csv`` beside the output ``NAME.csv``. What the output itself does is said by `lost`:

    drop    it does not hold them. A tracing keeps the rest of its trees, without the edges that led there.
    keep    tables only: it holds them in their rows, with empty coordinates (NaN in Parquet), so that rows stay
            the same rows.

A point that leaves the canvas has a place, and is not lost. Boxes and the camera of an NML file are not moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from emloom.errors import InputError
from emloom.geometry.grid import TOLERANCE_VOX, Grid, Vec3
from emloom.geometry.stackmap import StackMap
from emloom.geometry.tracings import Tracing
from emloom.io.annotations import Annotations
from emloom.io.cremi import read_annotations, write_annotations
from emloom.io.files import refuse_existing, staged
from emloom.io.nml import write_nmls
from emloom.io.pointtables import read_point_table, write_rows
from emloom.io.stackmaps import read_stackmap
from emloom.io.tracings import read_tracings, write_tracing
from emloom.ops.tracingparts import keep_nodes
from emloom.spec import Spec

F64 = NDArray[np.float64]
TABLES = (".csv", ".parquet")
NMLS = (".nml", ".zip", ".nmx")
CREMI = (".h5", ".hdf5", ".hdf")
SWC = ".swc"
POINTS = (*TABLES, *NMLS, SWC)
"""Endings of names that hold points and nothing else."""
_ARCHIVES = (".zip", ".nmx")
_HALF = 0.5


class MovePointsJob(Spec):
    """Move points through a stack map (`emloom align apply|invert --to points`)."""

    source: str
    """`.csv` or `.parquet` with columns z, y, x; `.nml`, `.zip`, `.nmx`, `.swc`, a folder of SWC; CREMI `.h5`."""
    by: str
    """Folder of `emloom align` or `emloom repair`, or of a map."""
    output: str
    """File of the same format."""
    direction: Literal["apply", "invert"] = "apply"
    """From the original to the aligned, or back."""
    unit_nm: float | Vec3 | None = None
    """nm per unit of CSV and Parquet (default 1) and of SWC (required), one number or (z, y, x)."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x), only for an NML file that does not state its scale."""
    lost: Literal["drop", "keep"] = "drop"
    """Whether the output holds points that have no place; see the module."""

    @field_validator("unit_nm")
    @classmethod
    def _positive(cls, unit: float | Vec3 | None) -> float | Vec3 | None:
        if unit is not None and min(unit if isinstance(unit, tuple) else (unit,)) <= 0:
            raise ValueError("a unit is a positive length: 1000 for micrometres")
        return unit

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        before, after = _format(self.source), _format(self.output)
        if before != after:
            raise ValueError(f"{self.source} is {before}, {self.output} {after}: points are moved, not converted")
        if self.lost == "keep" and before != "a table":
            raise ValueError(f"{self.source} is {before}: only tables can keep points that have no place")
        return self


@dataclass(frozen=True)
class MovedPoints:
    """What was moved.

    Attributes:
        output: where.
        total: how many points there were.
        lost: how many have no place, by reason.
        lost_path: the table of those, None where there are none.
    """

    output: str
    total: int
    lost: Mapping[str, int]
    lost_path: str | None

    def to_text(self) -> str:
        """Return lines for a person."""
        away = sum(self.lost.values())
        lines = [f"{self.output}: {self.total - away} of {self.total} points moved"]
        lines += [f"  {count} lost: {reason}" for reason, count in self.lost.items()]
        return "\n".join(lines + ([f"  as they were: {self.lost_path}"] if away else []))


def move_points(job: MovePointsJob, *, overwrite: bool = False) -> MovedPoints:
    """Move points; what has no place is told.

    Args:
        job: what to move.
        overwrite: replace the output, and the table of what was lost.

    Raises:
        InputError: an input is missing or damaged, the unit is missing or superfluous, no point has a place, or
            the output exists.
    """
    if not overwrite:
        for path in (job.output, lost_name(job.output)):
            refuse_existing(path)
    stackmap = read_stackmap(job.by)
    move = _Move(stackmap if job.direction == "apply" else stackmap.inverse(), job, overwrite)
    by_format = {"a table": _move_table, "CREMI": _move_annotations}
    return by_format.get(_format(job.source), _move_tracings)(move)


def moved_points(stackmap: StackMap, points_nm: F64, unit_nm: Vec3 = (1.0, 1.0, 1.0)) -> F64:
    """Return where points lie in a map's target: as `StackMap.moved`, and exact where voxels move by whole voxels.

    Args:
        stackmap: where they go.
        points_nm: [N, 3], (z, y, x) in units.
        unit_nm: nm per unit.

    Returns:
        float64 [N, 3] in units; NaN where a point has no place. A coordinate at the face or the centre of a voxel
        that arrives at one is the position that the target's grid gives it, to the bit.
    """
    points = np.asarray(points_nm, np.float64).reshape(-1, 3)
    unit = np.array(unit_nm)
    known = points * unit
    out = _snapped(known, stackmap.moved(known), stackmap.source.grid, stackmap.target.grid) / unit
    same = Grid((1.0, 1.0, 1.0))
    return out if unit.tolist() == [1.0, 1.0, 1.0] else _snapped(points, out, same, same)


def lost_name(output: str) -> str:
    """Return the path of the table of lost points."""
    path = Path(output)
    return str(path.with_name(f"{path.stem}.lost.csv"))


def _snapped(before: F64, after: F64, source: Grid, target: Grid) -> F64:
    """Put coordinates back onto half voxels that rounding, and nothing else, took off them."""
    first, last = np.array(source.offset_nm), np.array(target.offset_nm)
    step, steps = np.array(source.voxel_size_nm), np.array(target.voxel_size_nm)
    halves = np.rint((before - first) / step / _HALF) * _HALF
    there = np.rint((after - last) / steps / _HALF) * _HALF
    exact = last + there * steps
    with np.errstate(invalid="ignore"):
        near = (first + halves * step == before) & (np.abs(after - exact) <= TOLERANCE_VOX * _HALF * steps)
    out: F64 = np.where(near, exact, after)
    return out


def _format(path: str) -> str:
    ending = Path(path).suffix.lower()
    for endings, name in ((TABLES, "a table"), (NMLS, "NML"), (CREMI, "CREMI")):
        if ending in endings:
            return name
    if ending in ("", SWC):
        return "SWC"
    raise ValueError(f"{path} holds no points: give .csv, .parquet, .nml, .zip, .nmx, .swc or a CREMI .h5")


@dataclass(frozen=True)
class _Move:
    stackmap: StackMap
    job: MovePointsJob
    overwrite: bool

    @property
    def unit(self) -> Vec3:
        """Nm per unit of a table, or SWC."""
        unit = self.job.unit_nm
        return unit if isinstance(unit, tuple) else (unit or 1.0,) * 3

    def refuse_unit(self, what: str) -> None:
        """Raise `InputError` where a unit was given for what has its own."""
        if self.job.unit_nm is not None:
            raise InputError(f"{self.job.source} is {what}, in nm: leave out the unit of {self.job.unit_nm} nm")

    def reasons(self, points_nm: F64, moved: F64) -> list[str]:
        """Return why each of the points that have no place has none."""
        source = self.stackmap.source
        zero, size = source.grid.offset_nm[0], source.grid.voxel_size_nm[0]
        out = []
        for z in np.floor((points_nm[np.isnan(moved[:, 0]), 0] - zero) / size + TOLERANCE_VOX).tolist():
            if not 0 <= z < source.shape[0]:
                out.append("outside the stack")
            elif self.stackmap.guest(int(z)) is None:
                out.append("its section is not shown")
            else:
                out.append("in a gap of its section")
        return out

    def tell(self, total: int, header: list[str], rows: list[list[str]], reasons: list[str]) -> MovedPoints:
        """Write what was lost; a table of an earlier run is removed."""
        path = lost_name(self.job.output)
        if rows:
            told = [[*row, reason] for row, reason in zip(rows, reasons, strict=True)]
            write_rows(path, [*header, "reason"], told, overwrite=self.overwrite)
        elif self.overwrite:
            Path(path).unlink(missing_ok=True)
        return MovedPoints(self.job.output, total, Counter(reasons), path if rows else None)

    def require_some(self, total: int, reasons: list[str]) -> None:
        """Raise `InputError` where not one of the points has a place."""
        if total and len(reasons) == total:
            why = ", ".join(f"{count} {reason}" for reason, count in Counter(reasons).items())
            raise InputError(
                f"{self.job.source}: none of {total} points has a place where the map leads ({why}): check the "
                "unit, the order z, y, x, and whether they are to be applied or inverted"
            )


def _move_table(move: _Move) -> MovedPoints:
    job = move.job
    if Path(job.source).suffix.lower() != Path(job.output).suffix.lower():
        raise InputError(f"{job.source} and {job.output} are tables of two formats: end both alike")
    table = read_point_table(job.source)
    before = table.positions
    moved = moved_points(move.stackmap, before, move.unit)
    gone = np.isnan(moved[:, 0])
    reasons = move.reasons(before * np.array(move.unit), moved)
    move.require_some(len(before), reasons)
    table.with_positions(moved, ~gone | (job.lost == "keep")).write(job.output, overwrite=move.overwrite)
    header, rows = table.texts()
    lost = [[str(row + 1), *rows[row]] for row in np.flatnonzero(gone).tolist()]
    return move.tell(len(before), ["row", *header], lost, reasons)


def _move_annotations(move: _Move) -> MovedPoints:
    move.refuse_unit("CREMI")
    sites = read_annotations(move.job.source)
    moved = moved_points(move.stackmap, sites.locations_nm)
    gone = np.isnan(moved[:, 0])
    reasons = move.reasons(sites.locations_nm, moved)
    move.require_some(len(moved), reasons)
    partners = ~np.isin(sites.partners, sites.ids[gone]).any(axis=1)
    commented = ~np.isin(sites.comment_ids, sites.ids[gone])
    made = Annotations(
        sites.ids[~gone],
        tuple(word for word, away in zip(sites.types, gone, strict=True) if not away),
        moved[~gone],
        sites.partners[partners],
        sites.comment_ids[commented],
        tuple(text for text, kept in zip(sites.comments, commented, strict=True) if kept),
        move.job.output,
    )
    with staged(move.job.output, overwrite=move.overwrite) as temporary:
        write_annotations(temporary, made)
    lost = [
        [str(sites.ids[row]), sites.types[row], *_numbers(sites.locations_nm[row])]
        for row in np.flatnonzero(gone).tolist()
    ]
    return move.tell(len(moved), ["id", "type", "z", "y", "x"], lost, reasons)


def _move_tracings(move: _Move) -> MovedPoints:
    job = move.job
    if _format(job.source) == "SWC" and not (Path(job.source).suffix or Path(job.source).is_dir()):
        raise InputError(f"{job.source} does not exist: give a file of points, or a folder of SWC files")
    found = read_tracings(job.source, unit_nm=job.unit_nm, voxel_size_nm=job.voxel_size_nm)
    made: dict[str, Tracing] = {}
    lost: list[list[str]] = []
    reasons: list[str] = []
    total = 0
    for name, tracing in found.items():
        nodes = tracing.skeletons
        moved = moved_points(move.stackmap, nodes.positions_nm)
        gone = np.isnan(moved[:, 0])
        reasons += move.reasons(nodes.positions_nm, moved)
        for row in np.flatnonzero(gone).tolist():
            ids = [str(nodes.ids[nodes.skeletons[row]]), str(nodes.node_ids[row])]
            lost.append([name, *ids, *_numbers(nodes.positions_nm[row])])
        kept = keep_nodes(tracing, ~gone)
        made[name] = replace(kept, skeletons=replace(kept.skeletons, positions_nm=moved[~gone]))
        total += len(nodes.node_ids)
    move.require_some(total, reasons)
    _write_tracings(move, made)
    return move.tell(total, ["file", "tree", "node", "z", "y", "x"], lost, reasons)


def _write_tracings(move: _Move, made: Mapping[str, Tracing]) -> None:
    """Write as many files as there were, in the place of the one, the archive or the folder."""
    path = Path(move.job.output)
    if path.suffix.lower() in _ARCHIVES and len(made) > 1:
        named = {str(PurePosixPath(name).with_suffix(".nml")): tracing for name, tracing in made.items()}
        write_nmls(path, named, overwrite=move.overwrite)
    elif path.suffix:
        if len(made) > 1:
            raise InputError(f"{move.job.source} holds {len(made)} files: write a folder, or an archive, .zip")
        (one,) = made.values()
        write_tracing(path, one, unit_nm=move.job.unit_nm, overwrite=move.overwrite)
    else:
        with staged(path, overwrite=move.overwrite) as folder:
            folder.mkdir()
            # A file of which nothing is left is not written: its nodes are all in the table of what was lost.
            for name, tracing in ((name, one) for name, one in made.items() if len(one.skeletons.ids)):
                write_tracing(folder / PurePosixPath(name).name, tracing, unit_nm=move.job.unit_nm)


def _numbers(position: F64) -> list[str]:
    return [repr(value) for value in position.tolist()]
