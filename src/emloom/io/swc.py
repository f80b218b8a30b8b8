"""SWC, one reconstructed neuron per text file: ``id type x y z radius parent``, a parent of -1 at a root.

The format does not say in which unit its numbers are: micrometres, nanometres and voxels are all in use (the
hemibrain's files are in voxels of 8 nm, and say so nowhere). It is never guessed: whoever reads states it.
(Cannon et al., J. Neuroscience Methods 1998, doi:10.1016/S0165-0270(98)00091-0)

As a `Tracing`, the type of a node is its attribute ``type`` (0 undefined, 1 soma, 2 axon, 3 dendrite, 4 apical
dendrite, 5 fork, 6 end), what stands behind a ``#`` in its line is its comment, and whole lines of comment are
kept too: ``<meta name="swc" content="...">`` before the first node and ``swc-after`` behind the last, the
attribute ``swc-before`` of the node they precede. An edge points from parent to child. What is read is written
back as it was spelled, line by line; only blanks between numbers are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from emloom.errors import InputError
from emloom.geometry.columns import Columns, as_texts
from emloom.geometry.elements import Element
from emloom.geometry.grid import Vec3, as_nm
from emloom.geometry.skeletons import Skeletons, joined
from emloom.geometry.tracings import Marks, Others, Tracing

HEAD, AFTER, BEFORE = "swc", "swc-after", "swc-before"
"""Names under which lines of comment are kept."""
_COLUMNS = "id type x y z radius parent"
_ROOT = -1


def read_swc(paths: str | Path | Sequence[str | Path], *, unit_nm: float | Sequence[float]) -> Skeletons:
    """Read neurons from SWC files, one skeleton per file.

    Args:
        paths: a file, several files, or a folder of `.swc` files (taken in the order of their names).
        unit_nm: how many nm one unit of the file is: 1000 for micrometres, 8 for voxels of 8 nm; or three numbers
            (z, y, x) for voxels that are no cubes.

    Returns:
        the skeletons, named by file. Where every file is called by a whole number (``1734350788.swc``), that is
        its id; else they are numbered 1, 2, ... in order. A file with several roots is one skeleton in pieces.

    Raises:
        InputError: there is no such file, a line has other than 7 numbers, a node id stands twice, a parent does
            not exist, or the unit is not positive.
    """
    listed = read_swc_tracings(paths, unit_nm=unit_nm)
    source = listed[0].source if len(listed) == 1 else f"{len(listed)} SWC files"
    return joined([tracing.skeletons for tracing in listed], source=source)


def read_swc_tracings(
    paths: str | Path | Sequence[str | Path], *, unit_nm: float | Sequence[float]
) -> list[Tracing]:
    """Read SWC files with everything they hold, one tracing of one tree for each.

    Args:
        paths: as `read_swc`.
        unit_nm: as `read_swc`; it is the voxel size of the tracings. Radii are in the same unit; where it is three
            numbers, in that of x.

    Returns:
        tracings, whose trees are numbered and named as `read_swc` says.

    Raises:
        InputError: as `read_swc`.
    """
    unit = swc_unit(unit_nm)
    files = _files(paths)
    stems = [file.stem for file in files]
    # isdecimal, and a number that reads back as written: "007" and "７" are names.
    numbered = all(s.isdecimal() and str(int(s)) == s and int(s) < 2**64 for s in stems)
    ids = [int(s) for s in stems] if numbered else list(range(1, len(files) + 1))
    return [_read(file, number, unit) for file, number in zip(files, ids, strict=True)]


def swc_unit(unit_nm: float | Sequence[float]) -> Vec3:
    """Return nm per unit of a file as (z, y, x).

    Raises:
        InputError: it is not positive, or neither one number nor three.
    """
    unit = as_nm(unit_nm if isinstance(unit_nm, Sequence) else (unit_nm,) * 3, "SWC unit")
    if min(unit) <= 0:
        raise InputError(f"SWC unit {unit} nm is not positive: give nm per unit, 1000 for micrometres")
    return unit


def _files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    listed = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    files: list[Path] = []
    for path in listed:
        found = sorted(p for p in path.iterdir() if p.suffix.lower() == ".swc") if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise InputError(f"{path} is no SWC file and no folder of them: give files that end with .swc")
        files += found
    if not files:
        raise InputError("no SWC file was given: give at least one")
    return files


@dataclass
class _Lines:
    """What the lines of a file say, in order."""

    nodes: list[tuple[int, float, float, float, int]] = field(default_factory=list)
    spelled: list[list[str]] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    before: dict[int, str] = field(default_factory=dict)
    comments: dict[int, str] = field(default_factory=dict)

    def add(self, line: str, where: str) -> None:
        numbers, mark, comment = line.partition("#")
        text = numbers.split()
        if text:
            self._add_node(text, where)
            if mark:
                self.comments[len(self.nodes) - 1] = comment.strip()
        elif mark:
            (self.waiting if self.nodes else self.head).append(comment)

    def _add_node(self, text: list[str], where: str) -> None:
        if self.waiting:
            self.before[len(self.nodes)] = "\n".join(self.waiting)
            self.waiting = []
        self.nodes.append(_row(text, where))
        self.spelled.append(text)


def _read(path: Path, skeleton: int, unit: Vec3) -> Tracing:
    lines = _Lines()
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="surrogateescape").split("\n"), 1):
        lines.add(line, f"{path}, line {number}")
    rows = lines.nodes
    at = {row[0]: k for k, row in enumerate(rows)}
    edges = []
    for k, row in enumerate(rows):
        if row[4] == _ROOT:
            continue
        if row[4] not in at:
            raise InputError(f"{path}: node {row[0]} has the parent {row[4]}, which does not exist: a root has -1")
        edges.append((at[row[4]], k))
    xyz = np.array([row[1:4] for row in rows], np.float64).reshape(-1, 3)
    skeletons = Skeletons(
        np.array([skeleton], np.uint64),
        np.zeros(len(rows), np.int64),
        np.array([row[0] for row in rows], np.uint64),
        xyz[:, ::-1] * np.array(unit),
        np.array(edges, np.int64).reshape(-1, 2),
        (path.stem,),
        str(path),
    )
    return Tracing(
        skeletons,
        unit,
        _columns(lines),
        Columns(1),
        Columns(len(edges)),
        Marks.of(list(lines.comments), content=lines.comments.values()),
        others=Others(
            (
                *(Element.of("meta", {"name": HEAD, "content": text}) for text in lines.head),
                *(Element.of("meta", {"name": AFTER, "content": text}) for text in lines.waiting),
            )
        ),
        radius_unit_nm=unit[2],
    )


def _columns(lines: _Lines) -> Columns:
    names = ("type", "x", "y", "z", "radius")
    texts = {name: as_texts([text[k] for text in lines.spelled]) for k, name in enumerate(names, 1)}
    n = len(lines.nodes)
    texts[BEFORE] = as_texts([lines.before.get(k) for k in range(n)])
    return Columns(n, texts)


def _row(text: list[str], where: str) -> tuple[int, float, float, float, int]:
    try:
        if len(text) != 7:
            raise ValueError(f"{len(text)} values")
        if any("_" in text[k] for k in (0, 2, 3, 4, 5, 6)):
            raise ValueError("1_0 is no number")  # but ten to Python
        node, parent = int(text[0]), int(text[6])
        x, y, z, _ = (float(v) for v in text[2:6])
    except ValueError as problem:
        raise InputError(f"{where} reads {' '.join(text)!r} ({problem}): give 7 numbers, {_COLUMNS}") from None
    if node < 0 or node >= 2**64:
        raise InputError(f"{where} has the node id {node}: ids are whole numbers, at least 0")
    return node, x, y, z, parent
