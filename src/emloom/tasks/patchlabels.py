"""What is done with tables of labelled patches: convert, split, look for leaks, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import UNKNOWN, YES, PatchLabels, joined, require_same_patches
from emloom.io.evaluationboxes import write_evaluation_box
from emloom.io.files import staged
from emloom.io.open import open_volume
from emloom.io.patchjson import sources_of_patches, write_sources
from emloom.io.patchopen import PatchReading, open_patches
from emloom.io.patchtables import write_patches
from emloom.io.tables import write_csv
from emloom.metrics.agreement import (
    Agreement,
    Differences,
    agreement,
    common_rows,
    differences,
    pairwise_agreement,
)
from emloom.ops.patchsplits import NO_SPLIT, SPLITS, BlockSplit, leaks, split_by_blocks
from emloom.tasks.patchvolumes import patches_of_volume

BOX = "box"

_LABELS = (".csv", ".json", ".nml", ".zip", ".nmx")


@dataclass(frozen=True)
class Split:
    """A table cut into splits.

    Attributes:
        parts: name -> its patches.
        left_out: patches of the gap between splits.
    """

    parts: Mapping[str, PatchLabels]
    left_out: PatchLabels


@dataclass(frozen=True)
class Compared:
    """Two tables beside each other.

    Attributes:
        differences: patch by patch.
        agreement: of what both know, in the first class of the first.
    """

    differences: Differences
    agreement: Agreement


def open_labels(path: str, how: PatchReading, classes: Mapping[str, str], *, least: float = 0.05) -> PatchLabels:
    """Open labels of patches, or make them from a volume of labels.

    Args:
        path: a file of labels, or a volume.
        how: what it may not say about itself.
        classes: name -> what means it: ids (``1,2``) in a volume, a pattern of names in a tracing; else empty.
        least: part of a patch, of a volume, from which on it is *yes*.

    Raises:
        InputError: as `open_patches` and `patches_of_volume`.
    """
    names = tuple(classes) or None
    if Path(path).suffix.lower() in _LABELS:
        return open_patches(path, replace(how, classes=names, patterns=dict(classes) or None))
    if how.shape is None or not classes:
        raise InputError(
            f"{path} is a volume: say how large a patch is (--patch 1,140,140) and which ids are a class (--class "
            "artifact=1,2; without ids all but 0)"
        )
    meant = {name: _ids(words, name) for name, words in classes.items()}
    volume = open_volume(path, voxel_size_nm=how.voxel_size_nm, kind="labels")
    return patches_of_volume(volume, Lattice(how.shape, how.stride or how.shape), meant, least=least)


def save_labels(path: str, labels: PatchLabels, *, image: str | None = None, data_set: str = "") -> None:
    """Write labels by the ending of a path.

    Args:
        path: ``.csv`` or ``.json`` (a table), ``.nml`` (an evaluation box).
        labels: what to write.
        image: write a data source of genEM3 about this image instead; ``.json``.
        data_set: what webKnossos calls the data set that an evaluation box is of.

    Raises:
        InputError: the file exists, its ending is another one, or the form cannot say what the labels say.
    """
    ending = Path(path).suffix.lower()
    if image is not None:
        if ending != ".json":
            raise InputError(f"{path} is to be a data source of genEM3, which is JSON: let it end in .json")
        write_sources(path, sources_of_patches(labels, image))
    elif ending == ".nml":
        write_evaluation_box(path, labels, data_set=data_set)
    else:
        write_patches(path, labels)


def split_labels(labels: PatchLabels, how: BlockSplit) -> Split:
    """Return labels cut into train, val and test, as many as there are fractions.

    Raises:
        InputError: there are more than three fractions, or as `split_by_blocks`.
    """
    if len(how.fractions) > len(SPLITS):
        raise InputError(f"{len(how.fractions)} fractions of splits: give up to three, for {', '.join(SPLITS)}")
    positive = labels.labels[:, 0] == YES
    of_patch = split_by_blocks(labels.starts, labels.shape, positive, how)
    parts = {name: labels.taken(of_patch == k) for k, name in enumerate(SPLITS[: len(how.fractions)])}
    return Split(parts, labels.taken(of_patch == NO_SPLIT))


def write_split(folder: str, split: Split) -> None:
    """Write the parts of a split as `train.csv`, `val.csv`, ..., and what is in none as `gap.csv`.

    Raises:
        InputError: the folder exists, or the disk refuses.
    """
    with staged(folder) as temporary:
        temporary.mkdir()
        for name, part in {**split.parts, "gap": split.left_out}.items():
            write_patches(temporary / f"{name}.csv", part)


def leak_columns(
    parts: Mapping[str, PatchLabels], *, iou: float = 1 / 3, sections: int = 1
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the pairs of patches of different tables that show the same tissue, as columns of a table.

    Args:
        parts: name -> the patches of one split.
        iou: pairs of at least this overlap in the plane; 1 / 3 is half of a patch.
        sections: pairs of at most this distance in z.

    Raises:
        InputError: there is only one table, their grids or shapes differ, or as `leaks`.
    """
    tables = [table.consensus() for table in parts.values()]
    if len(tables) < 2:
        raise InputError(f"{len(tables)} tables cannot leak into one another: give two or more")
    for other in tables[1:]:
        require_same_patches(tables[0], other)
    starts = np.concatenate([table.starts for table in tables])
    of_patch = np.repeat(np.arange(len(tables)), [len(table) for table in tables]).astype(np.int8)
    found = leaks(starts, tables[0].shape, of_patch, iou=iou, sections=sections)
    names = np.array(list(parts), np.str_)
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for side, which in enumerate(("first", "second")):
        rows = found.rows[:, side]
        columns |= {which: names[of_patch[rows]]}
        columns |= {f"{which}_{axis}": starts[rows, k] for k, axis in enumerate("zyx")}
    return {**columns, "iou": found.iou, "sections": found.sections}


def leak_summary(parts: Mapping[str, PatchLabels], columns: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Return how many pairs leak, and how many patches of each table are in one."""
    leaking = {
        name: {
            tuple(place)
            for which in ("first", "second")
            for place in np.column_stack([columns[f"{which}_{axis}"] for axis in "zyx"])[
                columns[which] == name
            ].tolist()
        }
        for name in parts
    }
    sizes = {name: len(part.consensus()) for name, part in parts.items()}
    counts = {name: {"leaking": len(places), "patches": sizes[name]} for name, places in leaking.items()}
    return {"pairs": len(columns["iou"]), "tables": counts}


def compare_labels(first: PatchLabels, second: PatchLabels) -> Compared:
    """Compare two tables, each after its consensus.

    Raises:
        InputError: grids or shapes of patches differ, or no class is in both.
    """
    a, b = first.consensus(), second.consensus()
    found = differences(a, b)
    name = next(name for name in a.classes if name in b.classes)
    rows_a, rows_b = common_rows(a.starts, b.starts)
    names = (Path(first.source).name, Path(second.source).name)
    return Compared(found, agreement(a.of(name)[rows_a], b.of(name)[rows_b], names=names))


def compare_annotators(labels: PatchLabels) -> list[Agreement]:
    """Return the agreement of all pairs of annotators of one table.

    Raises:
        InputError: no patch was judged by two.
    """
    found = pairwise_agreement(labels)
    if not found:
        raise InputError(
            f"{labels.source} has no patch that two annotators judged: give two tables, or one with both in it"
        )
    return found


def join_labels(tables: Sequence[PatchLabels]) -> PatchLabels:
    """Return several tables as one, with the name of its file in the column "box" where a table has no such
    column.

    Raises:
        InputError: as `joined`.
    """
    if len(tables) == 1:
        return tables[0]
    named = [
        table
        if BOX in table.columns
        else replace(
            table, columns={**table.columns, BOX: np.array([Path(table.source).stem] * len(table), np.str_)}
        )
        for table in tables
    ]
    return joined(named, source=" + ".join(table.source for table in tables))


def blank_labels(grid: Grid, lattice: Lattice, box: Box, name: str = "artifact") -> PatchLabels:
    """Return all patches of a lattice inside a box, none of them labelled yet.

    Raises:
        InputError: no patch fits.
    """
    indices = lattice.inside(box)
    if indices.is_empty:
        raise InputError(f"no patch of {lattice.shape} voxels (z, y, x) lies in {box}: give a larger box")
    starts = lattice.starts(indices)
    return PatchLabels(grid, lattice.shape, starts, (name,), np.full((len(starts), 1), UNKNOWN, np.int8))


def write_columns(path: str, columns: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write columns as CSV to a new file; raises `InputError` where it exists."""
    write_csv(path, columns, overwrite=False)


def _ids(words: str, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words.split(",") if word.strip())
    except ValueError:
        raise InputError(f"class {name} is to be the ids {words!r}: give whole numbers, say {name}=1,2") from None
