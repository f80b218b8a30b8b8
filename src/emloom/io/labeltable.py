"""Labelled points and lines: CSV or Parquet with the columns z, y, x and class, or trees named after their class.

::

    z,y,x,class            z,y,x,class,line
    120,400,512,membrane   120,400,512,membrane,1
    121,90,77,2            120,404,540,membrane,1     the same line goes on, in the order of the rows
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from emloom.errors import InputError, did_you_mean
from emloom.geometry.skeletons import Floats, Rows
from emloom.io.files import explained
from emloom.io.nml import read_nml_tracings
from emloom.io.tables import read_table

_AXES = ("z", "y", "x")
_CLASS, _LINE = "class", "line"


@dataclass(frozen=True)
class Points:
    """Labelled points.

    Attributes:
        positions: float64 [n, 3], (z, y, x), in the unit of the table.
        classes: what the table calls the class of each.
    """

    positions: Floats
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Lines:
    """Labelled lines.

    Attributes:
        positions: float64 [n, 3], (z, y, x), in the unit of the table; of trees in nm.
        segments: int64 [m, 2], points that a line connects; a single point is connected with itself.
        classes: [n] what the table calls the class of each point's line.
    """

    positions: Floats
    segments: Rows
    classes: tuple[str, ...]


def read_label_points(path: str | Path) -> Points:
    """Read labelled points.

    Raises:
        InputError: the file is missing, damaged or empty, a column is missing, or a coordinate not finite.
    """
    columns = _columns(Path(path), (*_AXES, _CLASS))
    return Points(_positions(columns, str(path)), tuple(columns[_CLASS]))


def read_label_lines(path: str | Path) -> Lines:
    """Read labelled lines; raises `InputError` as `read_label_points`, and where a line has two classes."""
    columns = _columns(Path(path), (*_AXES, _CLASS, _LINE))
    positions, classes = _positions(columns, str(path)), columns[_CLASS]
    rows_of: dict[str, list[int]] = {}
    for row, line in enumerate(columns[_LINE]):
        rows_of.setdefault(line, []).append(row)
    segments = []
    for line, rows in rows_of.items():
        mixed = sorted({classes[row] for row in rows})
        if len(mixed) > 1:
            raise InputError(f"{path}: line {line} is of {' and '.join(mixed)}: a line has one class")
        segments += [*pairwise(rows)] or [(rows[0], rows[0])]
    return Lines(positions, np.array(segments, np.int64).reshape(-1, 2), tuple(classes))


def read_label_trees(path: str | Path, voxel_size_nm: Sequence[float]) -> Lines:
    """Read the trees of an NML file, or of an archive of some, as lines of the class that each is named after.

    Args:
        path: `.nml`, `.nmx` or `.zip`.
        voxel_size_nm: (z, y, x) that the tracing must have.

    Raises:
        InputError: the file is missing or damaged, holds no node, or was traced at another voxel size.
    """
    positions, segments, classes = [np.zeros((0, 3))], [np.zeros((0, 2), np.int64)], list[str]()
    for tracing in read_nml_tracings(path).values():
        pairs = zip(tracing.voxel_size_nm, voxel_size_nm, strict=True)
        if any(abs(a - b) > 0.01 * b for a, b in pairs):
            raise InputError(
                f"{path} was traced at {tracing.voxel_size_nm} nm, and the raw has {tuple(voxel_size_nm)} nm (z, "
                "y, x): trace on the raw that is learned from"
            )
        skeletons = tracing.skeletons
        alone = np.setdiff1d(np.arange(len(skeletons.node_ids)), skeletons.links)
        links = np.concatenate([skeletons.links, np.stack([alone, alone], axis=1)]) + len(classes)
        positions.append(skeletons.positions_nm)
        segments.append(links.astype(np.int64))
        names = skeletons.names or ("",) * len(skeletons.ids)
        classes += [names[tree] for tree in skeletons.skeletons.tolist()]
    if not classes:
        raise InputError(f"{path} holds no node: draw some, each tree named after its class")
    return Lines(np.concatenate(positions), np.concatenate(segments), tuple(classes))


def _columns(path: Path, wanted: Sequence[str]) -> dict[str, list[str]]:
    if path.suffix.lower() == ".parquet":
        table = read_table(path)
        found = {name: [_text(value) for value in column.tolist()] for name, column in table.columns.items()}
    else:
        found = _csv(path)
    for name in wanted:
        if name not in found:
            raise InputError(
                f"{path} has no column {name!r}{did_you_mean(name, found)} (it has: {', '.join(found)}; it needs "
                f"{', '.join(wanted)})"
            )
    if not found[wanted[0]]:
        raise InputError(f"{path} has no rows: label some points")
    return found


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _csv(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    with explained(path, "read"), path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            rows = [row for row in reader if row]
        except (csv.Error, UnicodeDecodeError) as problem:
            raise InputError(f"{path} is no CSV table: {problem}") from None
    header = [name.strip() for name in rows[0]] if rows else []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InputError(f"{path}: row {number} has {len(row)} cells, and the header {len(header)}")
    return {name: [row[k].strip() for row in rows[1:]] for k, name in enumerate(header)}


def _positions(columns: dict[str, list[str]], path: str) -> Floats:
    positions = np.array([[_number(text) for text in columns[axis]] for axis in _AXES]).T
    wrong = ~np.isfinite(positions).all(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        cells = ", ".join(columns[axis][row] or "nothing" for axis in _AXES)
        raise InputError(
            f"{path}: {int(wrong.sum()):,} of {len(positions):,} points have no finite z, y, x; the first is row "
            f"{row + 2} ({cells}): correct or remove them"
        )
    return np.ascontiguousarray(positions)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
