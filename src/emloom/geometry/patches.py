"""Labels of patches: what people said about boxes of one shape, say whether each holds an artifact.

Convention: a patch is the box of `shape` voxels that begins at its `start` (z, y, x), in voxels of `grid`. Its
**centre voxel** is ``start + shape // 2``, which is where tracings mark it. One row is what one annotator says of
one patch, for every class::

    starts  [N, 3]         labels  [N, C]     1 yes   0 no   -1 nobody knows, or unsure
    annotator [N]          columns {"tissue": [N] texts, "box": [N] texts, ...}

The first class is what is looked for; others are auxiliary (myelin, vessel) and say what else is there. A patch
that several people judged has a row for each; `consensus` makes them one, in which a disagreement is unknown::

    consensus(p) has each patch once      consensus(consensus(p)) == consensus(p), up to the annotator's name
    consensus does not depend on the order of annotators
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError, did_you_mean
from emloom.geometry.box import Box, Vec, as_vec
from emloom.geometry.grid import Grid
from emloom.geometry.skeletons import Floats, Rows

Labels = NDArray[np.int8]
Texts = NDArray[np.str_]

YES, NO, UNKNOWN = 1, 0, -1
CONSENSUS = "consensus"


@dataclass(frozen=True, eq=False)
class PatchLabels:
    """What was said about patches of one volume; see the module.

    Attributes:
        grid: voxel size and offset of the volume.
        shape: voxels (z, y, x) of every patch.
        starts: int64 [N, 3], first voxel (z, y, x) of every patch.
        classes: C names; the first is what is looked for.
        labels: int8 [N, C]; 1 yes, 0 no, -1 unknown or unsure.
        annotators: names of those who judged; one without a name where nothing is said.
        annotator: int64 [N], who judged, as a row of `annotators`; all the first where nothing is said.
        columns: further text about every row, [N] each: "tissue", "box".
        source: path shown in messages.

    Raises:
        InputError: lengths or types disagree, a label is another number, a name stands twice, or one annotator
            judges one patch twice.
    """

    grid: Grid
    shape: Vec
    starts: Rows
    classes: tuple[str, ...]
    labels: Labels
    annotators: tuple[str, ...] = ("",)
    annotator: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    columns: Mapping[str, Texts] = field(default_factory=dict)
    source: str = "patches"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_vec(self.shape))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "annotators", tuple(self.annotators))
        if not np.size(self.annotator) and len(self.annotators) == 1:
            object.__setattr__(self, "annotator", np.zeros(len(self.starts), np.int64))
        for name, dtype, ndim in (("starts", np.int64, 2), ("labels", np.int8, 2), ("annotator", np.int64, 1)):
            self._freeze(name, np.dtype(dtype), ndim)
        columns = {name: _frozen(np.asarray(values, np.str_)) for name, values in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        self._check_lengths()
        self._check_values()
        self._check_repeats()

    def _freeze(self, name: str, dtype: np.dtype[Any], ndim: int) -> None:
        array = np.asarray(getattr(self, name))
        if array.dtype != dtype or array.ndim != ndim:
            raise InputError(
                f"{self.source}: {name} is {array.dtype} of {array.ndim} dimensions: give {dtype} of {ndim}"
            )
        object.__setattr__(self, name, _frozen(array))

    def _check_lengths(self) -> None:
        n, c = len(self.starts), len(self.classes)
        if self.starts.shape != (n, 3) or self.labels.shape != (n, c) or self.annotator.shape != (n,):
            raise InputError(
                f"{self.source} has starts {self.starts.shape}, labels {self.labels.shape} and annotators "
                f"{self.annotator.shape} of {c} classes: give [N, 3], [N, {c}] and [N]"
            )
        for name, values in self.columns.items():
            if values.shape != (n,):
                raise InputError(
                    f"{self.source}: column {name!r} is {values.shape}: give one text for each of {n} rows"
                )
        if min(self.shape) < 1:
            raise InputError(f"{self.source} has patches of {self.shape} voxels: give at least 1 along z, y, x")

    def _check_values(self) -> None:
        for what, names in (("class", self.classes), ("annotator", self.annotators)):
            if not names or len(set(names)) < len(names):
                raise InputError(
                    f"{self.source} names {what} {', '.join(names) or '(none)'}: name each once, one at least"
                )
        if not all(self.classes):
            raise InputError(f"{self.source} has a class without a name: say what was judged, such as artifact")
        strange = np.argwhere((self.labels < UNKNOWN) | (self.labels > YES))
        if strange.size:
            row, at = strange[0].tolist()
            raise InputError(
                f"{self.source}: row {row} has {self.labels[row, at]} for {self.classes[at]}: a label is 1 "
                "(yes), 0 (no) or -1 (unknown)"
            )
        outside = np.flatnonzero((self.annotator < 0) | (self.annotator >= len(self.annotators)))
        if outside.size:
            raise InputError(
                f"{self.source}: row {outside[0]} is by annotator number {self.annotator[outside[0]]}, but there "
                f"are {len(self.annotators)}, counted from 0"
            )

    def _check_repeats(self) -> None:
        keys = np.column_stack([self.annotator, self.starts])
        order = np.lexsort(keys.T[::-1])
        same = np.flatnonzero((keys[order][1:] == keys[order][:-1]).all(axis=1))
        if same.size:
            first, second = sorted(order[same[0] : same[0] + 2].tolist())
            raise InputError(
                f"{self.source}: rows {first} and {second} are the same patch, at {self.starts[first].tolist()} "
                f"(z, y, x), by the same annotator {self.annotators[self.annotator[first]]!r}: one says one "
                "thing of one patch; remove one row, or name two annotators"
            )

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def centres(self) -> Rows:
        """int64 [N, 3]: the centre voxel of every patch, ``start + shape // 2``."""
        middle: Rows = self.starts + np.array(self.shape) // 2
        return middle

    @property
    def centres_nm(self) -> Floats:
        """float64 [N, 3]: the geometric centre of every patch in nm, world coordinates."""
        middle = self.starts + np.array(self.shape) / 2
        at: Floats = middle * np.array(self.grid.voxel_size_nm) + np.array(self.grid.offset_nm)
        return at

    def boxes(self) -> list[Box]:
        """Return the voxels of every patch, in the order of rows."""
        return [Box((z, y, x), self.shape) for z, y, x in self.starts.tolist()]

    def of(self, name: str) -> Labels:
        """Return the labels of a class, int8 [N].

        Raises:
            InputError: there is no such class.
        """
        if name not in self.classes:
            raise InputError(
                f"{self.source} has no class {name!r}{did_you_mean(name, self.classes)}: it has "
                f"{', '.join(self.classes)}"
            )
        column: Labels = self.labels[:, self.classes.index(name)]
        return column

    def taken(self, rows: NDArray[Any]) -> PatchLabels:
        """Return some rows: a boolean for each, or the numbers of those to take, in their order."""
        return replace(
            self,
            starts=self.starts[rows],
            labels=self.labels[rows],
            annotator=self.annotator[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
        )

    def restricted(self, box: Box) -> PatchLabels:
        """Return the patches that lie wholly in a box of voxels."""
        inside = (self.starts >= np.array(box.start)) & (self.starts + np.array(self.shape) <= np.array(box.stop))
        return self.taken(inside.all(axis=1))

    def by(self, name: str) -> PatchLabels:
        """Return what one annotator said.

        Raises:
            InputError: there is no such annotator.
        """
        if name not in self.annotators:
            raise InputError(
                f"{self.source} has no annotator {name!r}{did_you_mean(name, self.annotators)}: it has "
                f"{', '.join(map(repr, self.annotators))}"
            )
        own = self.taken(self.annotator == self.annotators.index(name))
        return replace(own, annotators=(name,), annotator=np.zeros(len(own), np.int64))

    def consensus(self, final: str | None = None) -> PatchLabels:
        """Return every patch once, in the order of its first row, with what all who know say.

        A class is unknown where those who know disagree. Text that differs between rows is left empty.

        Args:
            final: annotator whose word is the last: where they know, nobody else counts. An adjudicator.

        Raises:
            InputError: there is no such annotator.
        """
        distinct, first, patch = np.unique(self.starts, axis=0, return_index=True, return_inverse=True)
        patch = patch.reshape(-1)
        labels = _agreed(self.labels, patch, len(distinct))
        if final is not None:
            last = self.by(final)
            rows = patch[self.annotator == self.annotators.index(final)]
            labels[rows] = np.where(last.labels == UNKNOWN, labels[rows], last.labels)
        order = np.argsort(first, kind="stable")
        return replace(
            self,
            starts=self.starts[first[order]],
            labels=labels[order],
            annotators=(CONSENSUS,),
            annotator=np.zeros(len(distinct), np.int64),
            columns={name: _shared(values, patch, len(distinct))[order] for name, values in self.columns.items()},
        )


def joined(parts: Iterable[PatchLabels], *, source: str = "patches") -> PatchLabels:
    """Return the rows of several tables as one; what a table does not say is unknown, or empty text.

    A row that says what an earlier one said (patch, annotator and labels) is dropped.

    Raises:
        InputError: there is no table, grids or shapes of patches differ, tables look for different things, or one
            annotator says two things of one patch.
    """
    listed = list(parts)
    if not listed:
        raise InputError("there is no table of patches to join: give at least one")
    first = listed[0]
    for part in listed[1:]:
        _require_alike(first, part)
    classes = tuple(dict.fromkeys(name for part in listed for name in part.classes))
    annotators = tuple(dict.fromkeys(name for part in listed for name in part.annotators))
    columns = dict.fromkeys(name for part in listed for name in part.columns)
    starts = np.concatenate([part.starts for part in listed])
    labels = np.concatenate([_with_classes(part, classes) for part in listed])
    by = np.concatenate([_numbers(part.annotators, annotators)[part.annotator] for part in listed])
    kept = _first_of_each(np.column_stack([starts, by, labels]))
    return PatchLabels(
        first.grid,
        first.shape,
        starts[kept],
        classes,
        labels[kept],
        annotators,
        by[kept],
        {name: np.concatenate([_texts(part, name) for part in listed])[kept] for name in columns},
        source,
    )


def require_same_patches(a: PatchLabels, b: PatchLabels) -> None:
    """Raise `InputError` where two tables are of different grids or shapes of patches."""
    if a.shape != b.shape or not a.grid.matches(b.grid):
        raise InputError(
            f"{a.source} has patches of {a.shape} voxels of {a.grid.voxel_size_nm} nm at {a.grid.offset_nm} nm, "
            f"{b.source} of {b.shape} voxels of {b.grid.voxel_size_nm} nm at {b.grid.offset_nm} nm: bring them "
            "to one grid and one shape"
        )


def _require_alike(a: PatchLabels, b: PatchLabels) -> None:
    require_same_patches(a, b)
    if a.classes[0] != b.classes[0]:
        raise InputError(
            f"{a.source} looks for {a.classes[0]!r}, {b.source} for {b.classes[0]!r}: the first class is what is "
            "looked for; rename it, or reorder the classes"
        )


def _agreed(labels: Labels, patch: Rows, n: int) -> Labels:
    """Return [n, C]: yes or no where all who know say so, else unknown."""
    said = np.zeros((2, n, labels.shape[1]), np.int64)
    for answer in (NO, YES):
        np.add.at(said[answer], patch, labels == answer)
    agreed: Labels = np.where(
        said[YES] == 0, np.where(said[NO] > 0, NO, UNKNOWN), np.where(said[NO] > 0, UNKNOWN, YES)
    )
    return agreed.astype(np.int8)


def _shared(values: Texts, patch: Rows, n: int) -> Texts:
    """Return [n] texts: the one that all rows of a patch have, empty where they differ."""
    first = np.zeros(n, np.int64)
    first[patch[::-1]] = np.arange(len(patch))[::-1]
    differs = np.zeros(n, np.bool_)
    differs[patch[values != values[first][patch]]] = True
    texts: Texts = np.where(differs, "", values[first] if len(values) else np.zeros(n, np.str_))
    return texts


def _with_classes(part: PatchLabels, classes: Sequence[str]) -> Labels:
    labels = np.full((len(part), len(classes)), UNKNOWN, np.int8)
    labels[:, _numbers(part.classes, classes)] = part.labels
    return labels


def _texts(part: PatchLabels, name: str) -> Texts:
    return part.columns.get(name, np.zeros(len(part), np.str_))


def _numbers(names: Sequence[str], among: Sequence[str]) -> Rows:
    return np.array([among.index(name) for name in names], np.int64)


def _first_of_each(rows: NDArray[np.int64]) -> Rows:
    _, first = np.unique(rows, axis=0, return_index=True)
    kept: Rows = np.sort(first)
    return kept


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    frozen = array.view()
    frozen.flags.writeable = False
    return frozen
