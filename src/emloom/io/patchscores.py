"""Scores of patches on disk: tables with a column of probabilities, and maps with a voxel for every patch.

A **table** has the columns ``z, y, x`` (first voxel of a patch) and ``prob``; what it says about grid and patch,
as tables of labels do (`emloom.io.patchtables`), must agree with the truth it is judged by, and what it does not
say is that of the truth.

The **tables of genEM3** have the columns ``tree_idx, x, y, z, xi, yi, class, explicit, cluster_id, prob``, and
hold truth and score of a patch together. Their ``x, y, z`` is the *centre* voxel, ``start + shape // 2``. ``xi``
counts along y and ``yi`` along x.

A **map** is a volume of low resolution: the centre of a voxel is the centre of a patch
(`emloom.geometry.lattice`). Floats are probabilities, NaN where there is none; uint8 and uint16 are levels, 0 to
255 or 65 535.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.geometry.patchscores import PatchScores
from emloom.geometry.skeletons import Floats, Rows
from emloom.io.files import write_text_atomic
from emloom.io.open import open_volume
from emloom.io.patchtables import HEAD, PLACE, Row, csv_rows, label, parsed_json, read_text, whole
from emloom.io.volume import Array, Volume

SCORE = "prob"
_GENEM3 = ("tree_idx", "xi", "yi", "class", "explicit")

Decode = Callable[[Array], Floats]


def read_scores(
    path: str | Path, truth: PatchLabels, *, column: str = SCORE, decode: Decode | None = None
) -> PatchScores:
    """Read the scores of the patches that a truth is about.

    Args:
        path: a ``.csv`` table, or a volume that is a map; see the module.
        truth: says which patches these are, where the table does not, and where to read the map.
        column: of the table.
        decode: from the values of a map to probabilities; None: `as_probabilities`.

    Raises:
        InputError: there is nothing to read, a score is none, the table is of other patches, or the map's voxels
            are no patches of the truth.
    """
    if Path(path).suffix.lower() != ".csv":
        return scores_of_map(open_volume(path), truth, decode or as_probabilities)
    facts, rows = _table(Path(path))
    grid = (
        Grid(facts["voxel_size_nm"], facts.get("offset_nm", (0, 0, 0))) if "voxel_size_nm" in facts else truth.grid
    )
    shape = tuple(facts["patch_vox"]) if "patch_vox" in facts else truth.shape
    if rows and column not in rows[0]:
        raise InputError(
            f"{path} has no column {column!r}{did_you_mean(column, rows[0])}: it has {', '.join(rows[0])}"
        )
    scores = np.array([_number(row, column, k, str(path)) for k, row in enumerate(rows)], np.float64)
    return PatchScores(grid, shape, _starts(rows, shape, str(path)), scores, str(path))


def is_genem3_table(path: str | Path) -> bool:
    """Return whether a table is one of genEM3, by its columns."""
    head = read_text(Path(path)).partition("\n")[0].split(",")
    return all(name in head for name in _GENEM3)


def read_genem3_labels(
    path: str | Path, *, voxel_size_nm: Sequence[float], shape: Vec, name: str = "debris"
) -> PatchLabels:
    """Read the truth in a table of genEM3.

    Args:
        path: the table; see the module.
        voxel_size_nm: (z, y, x) in nm, which it does not state.
        shape: voxels (z, y, x) of a patch, which it does not state either.
        name: what its labels are about.

    Raises:
        InputError: a column is missing, or a cell is no label or no whole number.
    """
    _, rows = _table(Path(path))
    source = str(path)
    words = np.array([label(row, "class", k, source) for k, row in enumerate(rows)], np.int8)
    explicit = np.where([label(row, "explicit", k, source) == 1 for k, row in enumerate(rows)], "yes", "no")
    return PatchLabels(
        Grid((voxel_size_nm[0], voxel_size_nm[1], voxel_size_nm[2])),
        shape,
        _starts(rows, shape, source),
        (name,),
        words.reshape(-1, 1),
        columns={"explicit": explicit},
        source=source,
    )


def write_scores(path: str | Path, scores: PatchScores, *, overwrite: bool = False) -> None:
    """Write scores as a table, in one step; `read_scores` reads them back, every bit.

    Raises:
        InputError: the file exists, does not end in .csv, or the disk refuses.
    """
    if Path(path).suffix.lower() != ".csv":
        raise InputError(f"{path} does not end in .csv: scores of patches are written as a table")
    facts = {
        "voxel_size_nm": list(scores.grid.voxel_size_nm),
        "offset_nm": list(scores.grid.offset_nm),
        "patch_vox": list(scores.shape),
    }
    text = io.StringIO()
    text.write(HEAD + json.dumps(facts) + "\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*PLACE, SCORE])
    writer.writerows(
        [*at, value] for at, value in zip(scores.starts.tolist(), scores.scores.tolist(), strict=True)
    )
    write_text_atomic(path, text.getvalue(), overwrite=overwrite)


def scores_of_map(volume: Volume, truth: PatchLabels, decode: Decode) -> PatchScores:
    """Return the values of a map at the patches of a truth; those outside of it, or without a value, are left out.

    Args:
        volume: one voxel per patch, ``zyx`` or one channel.
        truth: the patches.
        decode: from stored values to probabilities, NaN where there is none.

    Raises:
        InputError: the map has several channels, its voxels are no patches of this shape, or a patch lies between
            them.
    """
    info = volume.info
    if info.channels not in (None, 1):
        raise InputError(f"{info.source} has {info.channels} channels: give a map of one class")
    lattice = Lattice.of_map(info.grid, truth.grid, truth.shape)
    index = lattice.indices(truth.starts)
    inside = ((index >= 0) & (index < np.array(info.shape))).all(axis=1)
    starts, index = truth.starts[inside], index[inside]
    distinct, first = np.unique(starts, axis=0, return_index=True)
    scores = _gathered(volume, index[first], decode)
    present = ~np.isnan(scores)
    return PatchScores(truth.grid, truth.shape, distinct[present], scores[present], info.source)


def as_probabilities(values: Array) -> Floats:
    """Return stored values as probabilities: levels of uint8 or uint16 as part of the highest, floats as they are.

    Raises:
        InputError: values are of another type.
    """
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    if values.dtype not in (np.uint8, np.uint16):
        raise InputError(f"a map of {values.dtype} holds no probabilities: give floats, uint8 or uint16")
    levels: Floats = values / np.float64(np.iinfo(values.dtype).max)
    return levels


def _gathered(volume: Volume, index: Rows, decode: Decode) -> Floats:
    """Return the values at voxels [N, 3] of a map, read section by section."""
    scores = np.full(len(index), np.nan)
    for z in np.unique(index[:, 0]).tolist():
        rows = np.flatnonzero(index[:, 0] == z)
        low, high = index[rows].min(axis=0), index[rows].max(axis=0) + 1
        values = decode(volume.read(Box.of(low.tolist(), high.tolist())))
        at = index[rows] - low
        scores[rows] = values.reshape(values.shape[-3:])[at[:, 0], at[:, 1], at[:, 2]]
    return scores


def _table(path: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    text = read_text(path)
    if not text.startswith(HEAD):
        return {}, csv_rows(text, str(path))
    first, _, text = text.partition("\n")
    return parsed_json(first[len(HEAD) :], f"{path}, line 1"), csv_rows(text, str(path))


def _starts(rows: list[dict[str, str]], shape: Vec, source: str) -> Rows:
    places = np.array([[whole(row, axis, k, source) for axis in PLACE] for k, row in enumerate(rows)], np.int64)
    starts: Rows = places.reshape(-1, 3)
    if rows and all(name in rows[0] for name in _GENEM3):
        starts = starts - np.array(shape) // 2
    return starts


def _number(row: Row, column: str, number: int, source: str) -> float:
    try:
        return float(row[column])
    except ValueError:
        raise InputError(f"{source}, row {number + 1} has {column}={row[column]!r}: give a number") from None
