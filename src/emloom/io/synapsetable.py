"""Tables of synapses on disk: Parquet, one row per contact, and CSV for other programs to write.

Law: ``read_synapse_table(path) == table`` after ``write_synapse_table(path, table)``, row by row and bit by bit.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from emloom.errors import InputError
from emloom.geometry.synapses import SynapseTable
from emloom.io.files import explained
from emloom.io.tables import Column, read_table, words_of, write_csv, write_table

SYNAPSES = "synapses.parquet"
"""Name of the table in a folder of `emloom synapses`."""
SEGMENTATION = "segmentation"
"""Word of a Parquet file: of which segmentation its segments are, a path."""
FINGERPRINT = "segmentation_fingerprint"
"""Word of a Parquet file: the fingerprint of that segmentation."""
ORIENTED = "oriented"
"""Word of a Parquet file: "no" where it is not known which side of a contact is pre."""


def write_synapse_table(
    path: str | Path, table: SynapseTable, metadata: Mapping[str, str] | None = None, *, overwrite: bool = True
) -> None:
    """Write a table as `.parquet` or `.csv`, in one step.

    Args:
        path: the file.
        table: what to write.
        metadata: words to keep with a Parquet file, e.g. which segmentation the segments are of.
        overwrite: replace an existing file.

    Raises:
        InputError: the ending is another, or the disk refuses.
    """
    columns = to_columns(table)
    if _ending(path) == ".csv":
        write_csv(path, columns, overwrite=overwrite)
    else:
        write_table(path, columns, {"units": "nm", **(metadata or {})}, overwrite=overwrite)


def read_synapse_table(path: str | Path) -> SynapseTable:
    """Read a table of synapses: `.parquet`, `.csv`, or a folder of `emloom synapses` that holds one.

    Raises:
        InputError: the file is missing or damaged, or as `of_columns`.
    """
    file = _file_of(path)
    columns = _read_csv(file) if _ending(file) == ".csv" else dict(read_table(file).columns)
    return of_columns(columns, str(file))


def words_of_table(path: str | Path) -> Mapping[str, str]:
    """Return the words that were kept with a table: `SEGMENTATION` and the like; none with CSV.

    Raises:
        InputError: as `read_synapse_table`.
    """
    file = _file_of(path)
    return {} if _ending(file) == ".csv" else words_of(file)


def _file_of(path: str | Path) -> Path:
    file = Path(path)
    if not file.exists() and not file.suffix:
        raise InputError(f"{path} does not exist: give a folder of emloom synapses, or a table, .parquet or .csv")
    if not file.is_dir():
        return file
    if not (file / SYNAPSES).is_file():
        raise InputError(f"{path} holds no {SYNAPSES}: give a folder of emloom synapses, or the table itself")
    return file / SYNAPSES


def to_columns(table: SynapseTable) -> dict[str, Column]:
    """Return the columns by which tables are stored: `id`, `polyad`, `pre_z_nm` .., `score`."""
    columns: dict[str, Column] = {"id": table.ids, "polyad": table.polyads}
    for side, points in (("pre", table.pre_nm), ("post", table.post_nm)):
        columns |= {f"{side}_{axis}_nm": points[:, k] for k, axis in enumerate("zyx")}
    columns |= {"pre_segment": table.pre_segments, "post_segment": table.post_segments}
    return columns | {"size_vox": table.sizes_vox, "score": table.scores}


def of_columns(columns: Mapping[str, Column], source: str) -> SynapseTable:
    """Return the table that was stored as such columns; inverse of `to_columns`.

    Columns a person may not have are made up: `polyad` (every contact its own), segments (0), `size_vox` (0) and
    `score` (1).

    Raises:
        InputError: a column that is needed is missing, or as `SynapseTable`.
    """
    needed = ["id", *(f"{side}_{axis}_nm" for side in ("pre", "post") for axis in "zyx")]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(
            f"{source} has no column {missing[0]!r}: a table of synapses needs {', '.join(needed)} (it has: "
            f"{', '.join(columns)})"
        )
    n = len(columns["id"])
    made_up = {
        "polyad": columns["id"],
        "pre_segment": np.zeros(n, np.uint64),
        "post_segment": np.zeros(n, np.uint64),
        "size_vox": np.zeros(n, np.int64),
        "score": np.ones(n, np.float32),
    }
    got = {**made_up, **columns}
    sides = {
        f"{side}_nm": np.stack([np.asarray(got[f"{side}_{axis}_nm"], np.float64) for axis in "zyx"], axis=1)
        for side in ("pre", "post")
    }
    return SynapseTable(
        got["id"], got["polyad"], sides["pre_nm"], sides["post_nm"], got["pre_segment"], got["post_segment"],
        got["size_vox"], got["score"], source,
    )  # fmt: skip


def _ending(path: str | Path) -> str:
    ending = Path(path).suffix.lower()
    if ending not in (".parquet", ".csv"):
        raise InputError(f"{path} is no table of synapses: give .parquet or .csv")
    return ending


def _read_csv(path: Path) -> dict[str, Column]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: it should be a table of synapses (CSV)")
    with explained(path, "read"):
        try:
            rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True))
        except (UnicodeDecodeError, csv.Error) as problem:
            raise InputError(f"{path} is no CSV text ({problem}): write it as UTF-8") from problem
    if not rows:
        raise InputError(f"{path} is empty: the first line of a table names its columns")
    names = [name.strip() for name in rows[0]]
    cells = [row for row in rows[1:] if row]
    uneven = [number for number, row in enumerate(cells, start=2) if len(row) != len(names)]
    if uneven:
        raise InputError(f"{path}: row {uneven[0]} has not as many cells as the {len(names)} columns: mend it")
    return {name: _numbers(path, name, [row[k] for row in cells]) for k, name in enumerate(names)}


def _numbers(path: Path, name: str, texts: list[str]) -> Column:
    whole = not (name.endswith("_nm") or name == "score")
    known = whole and name in ("id", "polyad", "pre_segment", "post_segment", "size_vox")
    if not known and whole:
        return np.array(texts, dtype=object)  # a column of someone else's
    try:
        return np.array([int(t) for t in texts], np.uint64) if whole else np.array([float(t) for t in texts])
    except (ValueError, OverflowError) as problem:
        raise InputError(
            f"{path}: a cell of column {name!r} is no number it can hold ({problem}): mend it"
        ) from problem
