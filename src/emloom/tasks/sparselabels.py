"""Open sparse labels: read every piece, place it on the raw, and say everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Grid
from emloom.io.volume import VolumeInfo
from emloom.nn.objectives.semantic import SemanticClass
from emloom.nn.painted import PaintedVolume, Palette
from emloom.nn.painted import Piece as Painted
from emloom.tasks.sparsepieces import Drawing, ForeignError, Values, draw
from emloom.tasks.sparsespec import Piece, SparseLabels, sparse_labels

_LISTED = 6


@dataclass(frozen=True)
class Classes:
    """What values stand for, in one set of sparse labels.

    Attributes:
        names: of the classes, by number.
        values: value -> number of its class.
        learned: number -> (number, id) among the classes that are learned.
        declared: the numbers of the classes that the labels themselves declare.
    """

    names: tuple[str, ...]
    values: Mapping[int, int]
    learned: Mapping[int, tuple[int, int]]
    declared: range

    @classmethod
    def of(cls, spec: SparseLabels, objective: Sequence[SemanticClass]) -> Classes:
        """Return the classes of labels, and of the objective where the labels have none of its ids.

        Raises:
            InputError: a value stands for two classes, or a class of one name has other values in the objective.
        """
        by_id = {number: (k, each) for k, each in enumerate(objective) for number in each.ids}
        own = {each.name: each.ids for each in objective} if spec.classes is None else _many(spec.classes)
        names, values, learned = list(own), dict[int, int](), dict[int, tuple[int, int]]()
        for number, (name, ids) in enumerate(own.items()):
            for value in ids:
                if value in values:
                    raise InputError(
                        f"value {value} stands for {names[values[value]]!r} and {name!r}: for one only"
                    )
                values[value] = number
            _require_agreement(name, ids, objective)
            found = {by_id[value][0] for value in ids if value in by_id}
            if len(found) > 1 or (found and any(value not in by_id for value in ids)):
                raise InputError(
                    f"the values of {name!r} are of several classes of the objective: tell them apart"
                )
            for k in found:
                learned[number] = (k, objective[k].ids[0])
        declared = range(len(names))
        for k, each in enumerate(objective):
            if not any(number == k for number, _ in learned.values()):
                learned[len(names)] = (k, each.ids[0])
                names.append(each.name)
        return cls(tuple(names), values, learned, declared)

    def number(self, name: str) -> int:
        """Return the number of a class; raises `InputError` where there is none of that name."""
        if name not in self.names:
            raise InputError(
                f"{name!r} is no class{did_you_mean(name, self.names)} (classes: {', '.join(self.names)})"
            )
        return self.names.index(name)


def _many(classes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: ids if isinstance(ids, tuple) else (ids,) for name, ids in classes.items()}


def _require_agreement(name: str, ids: Sequence[int], objective: Sequence[SemanticClass]) -> None:
    same = [each for each in objective if each.name == name]
    if same and not set(ids) <= set(same[0].ids):
        raise InputError(
            f"{name!r} is {', '.join(map(str, ids))} here and {', '.join(map(str, same[0].ids))} in the "
            "objective: give it the same values"
        )


@dataclass(frozen=True, eq=False)
class OpenedPiece:
    """A piece, and what is painted in it.

    Attributes:
        spec: what was asked for.
        painted: its codes.
        counts: int64 [classes], voxels painted as each.
        undefined: voxels of it that nobody knows.
    """

    spec: Piece
    painted: Painted
    counts: NDArray[np.int64]
    undefined: int


@dataclass(frozen=True, eq=False)
class Sparse:
    """Opened sparse labels.

    Attributes:
        spec: what was asked for.
        source: where that stands.
        classes: what values stand for.
        pieces: in their order.
        volume: the labels.
        conflicts: voxels at which two pieces, by name, contradict each other.
    """

    spec: SparseLabels
    source: str
    classes: Classes
    pieces: tuple[OpenedPiece, ...]
    volume: PaintedVolume
    conflicts: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def boxes(self, names: Sequence[str]) -> tuple[Box, ...]:
        """Return the boxes of pieces, by their names or those of their groups.

        Raises:
            InputError: there is no such piece or group, or a group is not held out as a whole.
        """
        known = dict.fromkeys(
            each for piece in self.pieces for each in (piece.spec.name, piece.spec.group) if each
        )
        for name in names:
            if name not in known:
                raise InputError(
                    f"{name!r} is no piece or group of {self.source}{did_you_mean(name, known)} (there are: "
                    f"{', '.join(known)})"
                )
        chosen = [piece for piece in self.pieces if {piece.spec.name, piece.spec.group} & set(names)]
        here = {piece.spec.name for piece in chosen}
        groups = {piece.spec.group for piece in chosen} - {None}
        for piece in self.pieces:
            if piece.spec.group in groups and piece.spec.name not in here:
                raise InputError(
                    f"the piece {piece.spec.name!r} of group {piece.spec.group!r} is not held out with the others "
                    "of its group: hold out the group, by its name"
                )
        return tuple(piece.painted.box for piece in chosen)


def open_sparse(labels: str | SparseLabels, raw: VolumeInfo, objective: Sequence[SemanticClass]) -> Sparse:
    """Read pieces and place them on a raw volume.

    Args:
        labels: pieces, or the path of a `labels.yaml`.
        raw: of the volume that they label.
        objective: the classes that are learned; ids of the result are theirs.

    Raises:
        InputError: names everything that is wrong, piece by piece.
    """
    spec, folder, source = sparse_labels(labels)
    problems = list(_twice(spec))
    if spec.voxel_size_nm is not None and not raw.grid.matches(_resized(raw, spec.voxel_size_nm)):
        problems.append(
            f"painted at a voxel size of {spec.voxel_size_nm} nm, and {raw.source} has {raw.grid.voxel_size_nm} "
            "nm (z, y, x): paint on, or resample to, the grid of the raw"
        )
    try:
        classes = Classes.of(spec, objective)
    except InputError as problem:
        raise _all_wrong(source, [*problems, str(problem)]) from None
    possible = [_possible(piece, classes, problems) for piece in spec.pieces]
    palette = Palette([each for sets in possible for each in sets], len(classes.names))
    drawing = Drawing(raw, folder)
    opened: list[OpenedPiece] = []
    for piece, sets in zip(spec.pieces, possible, strict=True):
        try:
            opened.append(_opened(piece, classes, drawing, palette, sets))
        except InputError as problem:
            problems.append(f"{piece.name}: {problem}")
    if len(opened) == len(spec.pieces):
        problems += _absent(opened, classes)
    volume = PaintedVolume(tuple(piece.painted for piece in opened), palette, classes.learned, raw)
    conflicts = volume.conflicts()
    if spec.overlaps == "error":
        problems += _contradictions(conflicts)
    if problems:
        raise _all_wrong(source, problems)
    return Sparse(spec, source, classes, tuple(opened), volume, conflicts)


def _resized(raw: VolumeInfo, voxel_size_nm: Sequence[float]) -> Grid:
    z, y, x = voxel_size_nm
    return Grid((z, y, x), raw.grid.offset_nm)


def _all_wrong(source: str, problems: Sequence[str]) -> InputError:
    head = f"{source} has {len(problems)} problem{'s' if len(problems) > 1 else ''}:"
    return InputError("\n".join([head, *(f"  {problem}" for problem in problems)]))


def _twice(spec: SparseLabels) -> Iterator[str]:
    names = [piece.name for piece in spec.pieces]
    groups = {piece.group for piece in spec.pieces}
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"{names.count(name)} pieces are called {name!r}: name each differently"
        if name in groups:
            yield f"{name!r} is a piece and a group: name one of them differently"


def _possible(piece: Piece, classes: Classes, problems: list[str]) -> list[frozenset[int]]:
    """Return, for each class, which classes a voxel painted so may have."""
    sets = [{k} for k in range(len(classes.names))]
    try:
        for name, hosts in piece.hidden.items():
            for host in classes.names if hosts is None else hosts:
                sets[classes.number(host)].add(classes.number(name))
    except InputError as problem:
        problems.append(f"{piece.name}: lacks: {problem}")
    return [frozenset(each) for each in sets]


def _opened(
    piece: Piece, classes: Classes, drawing: Drawing, palette: Palette, sets: Sequence[frozenset[int]]
) -> OpenedPiece:
    both = sorted(set(piece.undefined) & classes.values.keys())
    if both:
        name = classes.names[classes.values[both[0]]]
        raise InputError(f"value {both[0]} is undefined and {name!r}: set `undefined` to values of no class")
    codes = np.array([palette.code(each) for each in sets], np.uint16)
    values = Values(classes.values, {name: k for k, name in enumerate(classes.names)}, frozenset(piece.undefined))
    counts = np.zeros(len(classes.names), np.int64)
    try:
        drawn = draw(piece, drawing, values, codes)
    except ForeignError as foreign:
        raise InputError(_foreign(foreign, piece, classes)) from None
    counts += drawn.counts
    lacking = [name for name in piece.lacks if counts[classes.number(name)]]
    if lacking:
        count = int(counts[classes.number(lacking[0])])
        raise InputError(
            f"{lacking[0]!r} is painted at {count:,} voxels, and lacks says that nobody looked for it"
        )
    if not counts.any():
        raise InputError(f"nothing is painted: all {drawn.undefined:,} voxels are undefined")
    return OpenedPiece(piece, drawn.piece, counts, drawn.undefined)


def _foreign(foreign: ForeignError, piece: Piece, classes: Classes) -> str:
    listed = [f"{value} ({count:,})" for value, count in list(foreign.counts.items())[:_LISTED]]
    more = f" and {len(foreign.counts) - _LISTED} more" if len(foreign.counts) > _LISTED else ""
    known = ", ".join(f"{value} {classes.names[k]}" for value, k in sorted(classes.values.items()))
    undefined = ", ".join(map(str, piece.undefined)) or "none"
    text = (
        f"the values {', '.join(listed)}{more} (voxels) are of no class (classes: {known}; undefined: "
        f"{undefined}): correct them, add classes, or list them as undefined"
    )
    if foreign.soft:
        text += (
            ". So many rare values are edges that a soft brush or resizing has mixed: paint with a hard one, and "
            "resize without interpolation"
        )
    return text


def _absent(pieces: Sequence[OpenedPiece], classes: Classes) -> Iterator[str]:
    total = np.sum([piece.counts for piece in pieces], axis=0)
    for number in classes.declared:
        name = classes.names[number]
        if not total[number] and not all(name in piece.spec.lacks for piece in pieces):
            yield (
                f"class {name!r} has no voxel in any piece: paint some, leave it out, or let every piece say that "
                "it lacks it"
            )


def _contradictions(conflicts: Mapping[tuple[str, str], int]) -> Iterator[str]:
    for (a, b), count in conflicts.items():
        yield (
            f"{a} and {b} contradict each other at {count:,} voxels: correct one, or take such voxels as unknown "
            "(overlaps: unknown)"
        )
