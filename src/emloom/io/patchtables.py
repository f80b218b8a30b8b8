"""Tables of labelled patches, as CSV for people and as JSON for programs; both hold all there is.

::

    # emloom patches {"voxel_size_nm": [35.0, 32.0, 32.0], "offset_nm": [0.0, 0.0, 0.0], "patch_vox": [1, 140,
    140], #                 "classes": ["debris", "myelin"], "annotators": ["A", "B"]}          (one line in the
    file) z,y,x,debris,myelin,annotator,tissue
    3567,20935,24926,yes,unsure,A,neuropil

``z, y, x`` is the first voxel of the patch. A label is ``yes``, ``no`` or ``unsure``; ``1``, ``0``, ``true``,
``false`` and an empty cell (unsure) are read as well. All further columns are text about the row.

A table made elsewhere has no such first line: say voxel size, patch and classes when reading it. It may state the
patch in columns ``depth, height, width`` instead, the same in every row.

Law: what is written is read back, in every array, name and float. Files are written whole or not
at all.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError, did_you_mean
from emloom.geometry.box import Vec, as_vec
from emloom.geometry.grid import Grid
from emloom.geometry.patches import NO, UNKNOWN, YES, PatchLabels
from emloom.io.files import explained, write_text_atomic

HEAD = "# emloom patches "
PLACE = ("z", "y", "x")
EXTENT = ("depth", "height", "width")
ANNOTATOR = "annotator"
_WORDS = {YES: "yes", NO: "no", UNKNOWN: "unsure"}
_LABELS = {
    **dict.fromkeys(("yes", "1", "true"), YES),
    **dict.fromkeys(("no", "0", "false"), NO),
    **dict.fromkeys(("unsure", "unknown", "-1", ""), UNKNOWN),
}
_RESERVED = {*PLACE, *EXTENT, ANNOTATOR}

Facts = Mapping[str, Any]
Row = Mapping[str, str]


def read_patches(
    path: str | Path,
    *,
    voxel_size_nm: Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
) -> PatchLabels:
    """Read labelled patches from a ``.csv`` or ``.json`` file.

    Args:
        path: the table; see the module.
        voxel_size_nm: size of a voxel (z, y, x) in nm, where the table does not state it.
        shape: voxels (z, y, x) of a patch, where the table does not state it.
        classes: which columns are labels, the one that is looked for first, where the table does not state it.

    Raises:
        InputError: there is no such file, it is no table of patches, something is missing, contradicts itself or
            what was given, or a cell is no label or no whole number.
    """
    path = Path(path)
    facts, rows = _read_json(path) if path.suffix.lower() == ".json" else _read_csv(path)
    given = {"voxel_size_nm": voxel_size_nm, "patch_vox": shape, "classes": classes}
    return _labels(_agreed(facts, given, str(path)), rows, str(path))


def write_patches(path: str | Path, labels: PatchLabels, *, overwrite: bool = False) -> None:
    """Write labelled patches as ``.csv`` or ``.json``, in one step.

    Raises:
        InputError: the file exists, its ending is another one, a class or column has a reserved name, or the disk
            refuses.
    """
    path = Path(path)
    clash = (_RESERVED & {*labels.classes, *labels.columns}) | ({*labels.classes} & {*labels.columns})
    if clash:
        raise InputError(
            f"{path}: {', '.join(sorted(clash))} would name two columns: rename the class or the column"
        )
    if path.suffix.lower() == ".json":
        text = json.dumps({**_facts(labels), "patches": _json_rows(labels)}, indent=1) + "\n"
    elif path.suffix.lower() == ".csv":
        text = _csv_text(labels)
    else:
        raise InputError(f"{path} is neither .csv nor .json: a table of patches is one of them")
    write_text_atomic(path, text, overwrite=overwrite)


def _facts(labels: PatchLabels) -> dict[str, Any]:
    return {
        "voxel_size_nm": list(labels.grid.voxel_size_nm),
        "offset_nm": list(labels.grid.offset_nm),
        "patch_vox": list(labels.shape),
        "classes": list(labels.classes),
        "annotators": list(labels.annotators),
        "columns": list(labels.columns),
    }


def _csv_text(labels: PatchLabels) -> str:
    text = io.StringIO()
    text.write(HEAD + json.dumps(_facts(labels)) + "\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*PLACE, *labels.classes, ANNOTATOR, *labels.columns])
    words = [[_WORDS[v] for v in row] for row in labels.labels.tolist()]
    by = [labels.annotators[k] for k in labels.annotator.tolist()]
    further = [values.tolist() for values in labels.columns.values()]
    for start, said, who, *texts in zip(labels.starts.tolist(), words, by, *further, strict=True):
        writer.writerow([*start, *said, who, *texts])
    return text.getvalue()


def _json_rows(labels: PatchLabels) -> list[dict[str, Any]]:
    further = {name: values.tolist() for name, values in labels.columns.items()}
    return [
        {
            "start": start,
            "labels": {name: _WORDS[v] for name, v in zip(labels.classes, said, strict=True)},
            ANNOTATOR: labels.annotators[who],
            **{name: values[row] for name, values in further.items()},
        }
        for row, (start, said, who) in enumerate(
            zip(labels.starts.tolist(), labels.labels.tolist(), labels.annotator.tolist(), strict=True)
        )
    ]


def _read_csv(path: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    text = read_text(path)
    facts: dict[str, Any] = {}
    if text.startswith(HEAD):
        first, _, text = text.partition("\n")
        facts = parsed_json(first[len(HEAD) :], f"{path}, line 1")
    return facts, csv_rows(text, str(path))


def csv_rows(text: str, source: str) -> list[dict[str, str]]:
    """Return the rows of a CSV text with a header line, by column name.

    Raises:
        InputError: there is no header, a column name stands twice, or a row has another number of cells.
    """
    lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line and not line[0].startswith("#")]
    if not lines:
        raise InputError(f"{source} is empty: a table of patches begins with a line of column names")
    head = lines[0]
    twice = sorted({name for name in head if head.count(name) > 1})
    if twice:
        raise InputError(f"{source} has two columns named {', '.join(twice)}: rename one")
    for number, cells in enumerate(lines[1:], 1):
        if len(cells) != len(head):
            raise InputError(
                f"{source}, row {number} has {len(cells)} cells under {len(head)} column names: mend the row"
            )
    return [dict(zip(head, cells, strict=True)) for cells in lines[1:]]


def _read_json(path: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    tree = parsed_json(read_text(path), str(path))
    listed = tree.pop("patches", None)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise InputError(f'{path} holds no list "patches" of objects: it is no table of patches')
    rows = []
    for number, entry in enumerate(listed):
        start, said = entry.pop("start", None), entry.pop("labels", {})
        if not isinstance(start, list) or len(start) != 3 or not isinstance(said, dict):
            raise InputError(
                f'{path}, patch {number} has "start" {start!r} and "labels" {said!r}: give [z, y, x] and an '
                'object of "yes", "no" or "unsure" by class'
            )
        rows.append(
            {
                **dict(zip(PLACE, map(str, start), strict=True)),
                **{name: str(value) for name, value in said.items()},
                **{name: str(value) for name, value in entry.items()},
            }
        )
    return tree, rows


def read_text(path: Path) -> str:
    """Return a UTF-8 text file; raises `InputError` where there is none, or it is no text."""
    if not path.is_file():
        raise InputError(f"{path} is not a file: give a table of patches")
    with explained(path, "read"):
        try:
            return path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise InputError(f"{path} is not UTF-8 text ({problem}): save it as UTF-8") from problem


def parsed_json(text: str, source: str) -> dict[str, Any]:
    """Return a JSON object; raises `InputError` where the text is none, or names a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise InputError(
                f"{source} has the key {next(n for n in names if names.count(n) > 1)!r} twice: keep one"
            )
        return found

    try:
        tree = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{source} is not readable as JSON ({problem}): mend or export it again") from problem
    if not isinstance(tree, dict):
        raise InputError(f"{source} is no JSON object but a {type(tree).__name__}: it is no table of patches")
    return tree


def _agreed(facts: dict[str, Any], given: Facts, source: str) -> dict[str, Any]:
    """Return the facts of a table with those given; they must not contradict each other."""
    for name in ("classes", "annotators", "columns"):
        named = facts.get(name, [])
        if not isinstance(named, list) or not all(isinstance(word, str) for word in named):
            raise InputError(f"{source} states {name} {named!r}: give a list of names")
    for name, value in given.items():
        if value is None:
            continue
        value = list(value)
        if name in facts and list(facts[name]) != value:
            raise InputError(f"{source} states {name} {facts[name]}, but {value} was given: leave it out")
        facts[name] = value
    return facts


def _labels(facts: Facts, rows: list[dict[str, str]], source: str) -> PatchLabels:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns = columns or [*facts.get("classes", []), *facts.get("columns", [])]
    voxel_size = facts.get("voxel_size_nm")
    if voxel_size is None:
        raise InputError(f"{source} states no voxel size: give voxel_size_nm, (z, y, x) in nm")
    missing = [name for name in PLACE if rows and name not in columns]
    if missing:
        raise InputError(f"{source} has no column {', '.join(missing)}: the first voxel of a patch is z, y, x")
    classes = _classes(facts, columns, source)
    by = [row.get(ANNOTATOR, "") for row in rows]
    annotators = tuple(facts.get("annotators") or dict.fromkeys(by) or ("",))
    strangers = sorted(set(by) - set(annotators))
    if strangers:
        raise InputError(
            f"{source}: {', '.join(map(repr, strangers))} judged, but is none of {annotators}: add the name"
        )
    texts = [name for name in columns if name not in {*_RESERVED, *classes}]
    return PatchLabels(
        Grid(voxel_size, facts.get("offset_nm", (0.0, 0.0, 0.0))),
        _shape(facts, rows, source),
        np.array(
            [[whole(row, name, k, source) for name in PLACE] for k, row in enumerate(rows)], np.int64
        ).reshape(-1, 3),
        classes,
        np.array(
            [[label(row, name, k, source) for name in classes] for k, row in enumerate(rows)], np.int8
        ).reshape(-1, len(classes)),
        annotators,
        np.array([annotators.index(name) for name in by], np.int64),
        {name: np.array([row.get(name, "") for row in rows], np.str_) for name in texts},
        source,
    )


def _classes(facts: Facts, columns: list[str], source: str) -> tuple[str, ...]:
    free = [name for name in columns if name not in _RESERVED]
    if "classes" not in facts:
        raise InputError(
            f"{source} does not say which columns are labels: give classes, some of {', '.join(free) or '(none)'}"
        )
    classes = tuple(facts["classes"])
    for name in classes:
        if name not in free:
            raise InputError(
                f"{source} has no column {name!r}{did_you_mean(name, free)}: it has {', '.join(free)}"
            )
    return classes


def _shape(facts: Facts, rows: list[dict[str, str]], source: str) -> Vec:
    found = {
        tuple(whole(row, name, k, source) for name in EXTENT) for k, row in enumerate(rows) if EXTENT[0] in row
    }
    if "patch_vox" in facts:
        found.add(as_vec(facts["patch_vox"]))
    if not found:
        raise InputError(f"{source} does not say how large a patch is: give its shape, voxels (z, y, x)")
    if len(found) > 1:
        raise InputError(
            f"{source} has patches of {sorted(found)} voxels: all patches of a table have one shape; split the "
            "table, or leave out the shape that was given"
        )
    return as_vec(found.pop())


def whole(row: Row, name: str, number: int, source: str) -> int:
    """Return a cell as a whole number; raises `InputError` where it is none."""
    try:
        return int(row[name])
    except (KeyError, ValueError):
        raise InputError(f"{source}, row {number + 1} has {name}={row.get(name)!r}: give a whole number") from None


def label(row: Row, name: str, number: int, source: str) -> int:
    """Return a cell as a label: 1, 0 or -1; raises `InputError` where it is none."""
    word = row.get(name, "")
    if word.strip().lower() not in _LABELS:
        raise InputError(f"{source}, row {number + 1} has {name}={word!r}: give yes, no or unsure")
    return _LABELS[word.strip().lower()]
