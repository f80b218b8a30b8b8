"""SWC, one reconstructed neuron per text file: ``id type x y z radius parent``, a parent of -1 at a root.

The format does not say in which unit its numbers are: micrometres, nanometres and voxels are all in use (the
hemibrain's files are in voxels of 8 nm, and say so nowhere). It is never guessed: whoever reads states it.
(Cannon et al., J. Neuroscience Methods 1998, doi:10.1016/S0165-0270(98)00091-0)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emloom.errors import InputError
from emloom.geometry.grid import Vec3, as_nm
from emloom.geometry.skeletons import Skeletons, joined

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
    unit = _unit(unit_nm)
    files = _files(paths)
    stems = [file.stem for file in files]
    # isdecimal, and a number that reads back as written: "007" and "７" are names.
    numbered = all(s.isdecimal() and str(int(s)) == s and int(s) < 2**64 for s in stems)
    ids = [int(s) for s in stems] if numbered else list(range(1, len(files) + 1))
    return joined(
        [_read(file, number, unit) for file, number in zip(files, ids, strict=True)],
        source=str(files[0]) if len(files) == 1 else f"{len(files)} SWC files",
    )


def _unit(unit_nm: float | Sequence[float]) -> Vec3:
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


def _read(path: Path, skeleton: int, unit: Vec3) -> Skeletons:
    rows: list[tuple[int, float, float, float, int]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        text = line.partition("#")[0].split()
        if text:
            rows.append(_row(text, f"{path}, line {number}"))
    at = {row[0]: k for k, row in enumerate(rows)}
    edges = []
    for k, row in enumerate(rows):
        if row[4] == _ROOT:
            continue
        if row[4] not in at:
            raise InputError(f"{path}: node {row[0]} has the parent {row[4]}, which does not exist: a root has -1")
        edges.append((at[row[4]], k))
    xyz = np.array([row[1:4] for row in rows], np.float64).reshape(-1, 3)
    return Skeletons(
        np.array([skeleton], np.uint64),
        np.zeros(len(rows), np.int64),
        np.array([row[0] for row in rows], np.uint64),
        xyz[:, ::-1] * np.array(unit),
        np.array(edges, np.int64).reshape(-1, 2),
        (path.stem,),
        str(path),
    )


def _row(text: list[str], where: str) -> tuple[int, float, float, float, int]:
    try:
        if len(text) != 7:
            raise ValueError(f"{len(text)} values")
        node, parent = int(text[0]), int(text[6])
        x, y, z = (float(v) for v in text[2:5])
    except ValueError as problem:
        raise InputError(f"{where} reads {' '.join(text)!r} ({problem}): give 7 numbers, {_COLUMNS}") from None
    if node < 0 or node >= 2**64:
        raise InputError(f"{where} has the node id {node}: ids are whole numbers, at least 0")
    return node, x, y, z, parent
