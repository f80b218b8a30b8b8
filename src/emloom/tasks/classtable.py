"""Tables of classes in volumes of any size: counted block by block, the same numbers as at once.

::

    truth, prediction ─► classes/z_y_x.parquet: unit, table, row, column, voxels ─► `Units` ─► sums

A file holds what one block adds to every table, rows that are not 0 only. Tables are kept apart by *unit*, which
is what the bootstrap draws: a block, or a z section (then a block writes one table for each of its sections).

==========  ==================  ===================================================================================
table       shape               holds
==========  ==================  ===================================================================================
all         [C, C]              voxels of a true class (row) that were called another; or, where a band is counted,
near, far   [C, C]              the same near true interfaces, and away from them
boundary    [C, 4]              boundary voxels per class, and the matched ones (`metrics.interfaces`)
score_c     [2, levels]         negatives and positives per level of the probability of class c
top         [2, levels]         wrong and right voxels per level of the highest probability
enclosure   [rules, 12]         faces of enclosed classes (`metrics.enclosure`)
==========  ==================  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec, blocks
from emloom.io.open import open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import Volume, borrow
from emloom.metrics.calibration import top_label
from emloom.metrics.classbook import ClassEvidence
from emloom.metrics.classify import Confusion, confusion
from emloom.metrics.counts import CountTable, known_voxels
from emloom.metrics.enclosure import EnclosureTable, enclosure_table
from emloom.metrics.interfaces import BandConfusions, BoundaryTable, Near, band_confusions, boundary_table
from emloom.metrics.ranking import Ranking, ScoreHistogram, quantised, score_histogram
from emloom.ops.enclosure import Enclosure
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.lattice import common_box
from emloom.tasks.qcmask import open_usable, source_of

Array = NDArray[Any]
Extra = Literal["band", "boundary", "scores", "enclosure"]

_ROUNDING = 1e-6  # a float32 softmax may exceed 1 by this


@dataclass(frozen=True)
class Judged:
    """What is judged, and how.

    Attributes:
        truth: path of the true classes.
        predicted: path of the prediction; its box lies in that of the truth.
        mask: path of a volume that is not 0 where voxels count.
        ignore: values of the truth that do not count.
        n_classes: how many classes there are.
        channels: probabilities per voxel; 0: the prediction holds classes.
        levels: steps of probabilities.
        threshold: of a single probability, from which on a voxel is called class 1.
        near: how near is near.
        extra: which tables are counted beside the confusion matrix.
        by_section: whether sections, not blocks, are units.
        cell: voxels of a block.
        rules: what encloses what.
    """

    truth: str
    predicted: str
    mask: str | None
    ignore: tuple[int, ...]
    n_classes: int
    channels: int = 0
    levels: int = 256
    threshold: float = 0.5
    near: Near | None = None
    extra: tuple[Extra, ...] = ()
    by_section: bool = False
    cell: Vec = (32, 256, 256)
    rules: tuple[Enclosure, ...] = ()

    @property
    def paths(self) -> dict[str, str]:
        """The inputs by name."""
        given = {"truth": self.truth, "predicted": self.predicted, "mask": source_of(self.mask)}
        return {name: path for name, path in given.items() if path is not None}

    @property
    def ranked(self) -> tuple[int, ...]:
        """Classes whose probabilities are counted: class 1, or all."""
        if "scores" not in self.extra:
            return ()
        return (1,) if self.channels == 1 else tuple(range(self.channels))

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """The shape of every table by name."""
        n = self.n_classes
        of_confusion = ("near", "far") if "band" in self.extra else ("all",)
        shapes = dict.fromkeys(of_confusion, (n, n))
        if "boundary" in self.extra:
            shapes["boundary"] = (n, 4)
        shapes |= {f"score_{label}": (2, self.levels) for label in self.ranked}
        if len(self.ranked) > 1:
            shapes["top"] = (2, self.levels)
        if self.rules:
            shapes["enclosure"] = (len(self.rules), 12)
        return shapes

    @property
    def context_vox(self) -> Vec:
        """Voxels around a box that its tables depend on."""
        least = 1 if self.rules else 0  # a face belongs to its lower voxel
        z, y, x = (0, 0, 0) if self.near is None else self.near.context_vox
        return (max(z, least), max(y, least), max(x, least))

    def volumes(self) -> tuple[Volume, Volume, Volume | None]:
        """Open truth, prediction and mask."""
        mask = None if self.mask is None else open_usable(self.mask)
        return open_volume(self.truth), open_volume(self.predicted), mask

    def cells(self) -> list[Block]:
        """Return the blocks of the prediction."""
        return blocks(open_volume(self.predicted).info.box, self.cell)


@dataclass(frozen=True)
class _Seen:
    """A box of voxels: what is true there, what was called, and how sure that was; `levels` [C, Z, Y, X]."""

    box: Box
    truth: Array
    known: NDArray[np.bool_]
    usable: NDArray[np.bool_] | None
    called: Array
    levels: Array | None
    top: tuple[Array, Array] | None


@dataclass(frozen=True)
class CountClasses:
    """Counts the tables of one block.

    Attributes:
        judged: what and how.
        folder: where the tables go.
    """

    judged: Judged
    folder: Path

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write one file."""
        seen = self._read(block.write)
        names = list(self.judged.shapes)
        rows = []
        for unit, piece in self._units(block.write):
            for name, table in self._count(seen, piece):
                at = np.nonzero(table.counts)
                same = np.ones(len(at[0]), np.int64)
                rows.append(np.stack([unit * same, names.index(name) * same, *at, table.counts[at]]))
        columns = np.concatenate(rows, axis=1)
        path = table_file(self.folder, block.index)
        keys = ("unit", "table", "row", "column", "voxels")
        write_table(path, dict(zip(keys, columns, strict=True)))
        return [Output.file(self.folder, str(path.relative_to(self.folder)))]

    def _units(self, box: Box) -> Iterator[tuple[int, Box]]:
        if not self.judged.by_section:
            yield box.start[0], box
            return
        _, y, x = box.start
        for z in range(box.start[0], box.stop[0]):
            yield z, Box((z, y, x), (1, *box.shape[1:]))

    def _read(self, box: Box) -> _Seen:
        how = self.judged
        seen = box.grow(how.context_vox).intersect(open_volume(how.predicted).info.box)
        ids, known, usable, found = _voxels(how, seen)
        if not how.channels:
            return _Seen(seen, ids, known, usable, found, None, None)
        if how.rules and how.channels > 1:
            # A voxel without any share has no class that could touch another.
            usable = np.asarray(found.any(axis=0) & (True if usable is None else usable))
        levels = _levels(found, how.levels)
        called = _called(how, levels if how.channels == 1 else found)  # rounding an integer again changes nothing
        if how.channels == 1:
            return _Seen(seen, ids, known, usable, called, levels, None)
        sure, right = top_label(found, ids, ignore=(), mask=known)
        return _Seen(seen, ids, known, usable, called, levels, (_levels(sure, how.levels), right))

    def _count(self, seen: _Seen, box: Box) -> Iterator[tuple[str, CountTable]]:
        """Yield the tables of a box, each with its name."""
        how, own = self.judged, box.slices(seen.box.start)
        truth, known, called = seen.truth[own], seen.known[own], seen.called[own]
        if "band" not in how.extra:
            yield "all", confusion(truth, called, how.n_classes, ignore=(), mask=known)
        if how.near is not None:
            yield from self._interfaces(seen, box)
        if how.rules:
            at = box.shift((-seen.box.start[0], -seen.box.start[1], -seen.box.start[2]))
            pair = (seen.truth, seen.called, how.rules)
            yield "enclosure", enclosure_table(*pair, known=seen.known, usable=seen.usable, box=at)
        if seen.levels is None:
            return
        for label in how.ranked:
            levels = seen.levels[0 if how.channels == 1 else label][own]
            yield f"score_{label}", score_histogram(levels, truth, positive=label, ignore=(), mask=known)
        if seen.top is not None and "top" in how.shapes:
            sure, right = seen.top
            yield "top", score_histogram(sure[own], right[own])

    def _interfaces(self, seen: _Seen, box: Box) -> Iterator[tuple[str, CountTable]]:
        how = self.judged
        assert how.near is not None
        around = box.grow(how.near.context_vox).intersect(seen.box)
        at = around.slices(seen.box.start)
        pair = (seen.truth[at], seen.called[at], how.n_classes, how.near)
        inner = box.shift((-around.start[0], -around.start[1], -around.start[2]))
        if "band" in how.extra:
            band = band_confusions(*pair, ignore=(), mask=seen.known[at], box=inner)
            yield "near", band.near
            yield "far", band.far
        if "boundary" in how.extra:
            yield "boundary", boundary_table(*pair, ignore=(), mask=seen.known[at], box=inner)


@dataclass(frozen=True)
class Units:
    """The tables of every unit in which a voxel counts.

    Attributes:
        judged: what was counted.
        counts: int64 [units, rows, columns that occur] by table.
        columns: which columns those are, by table.
        classes: those that means are over.
        most_confused: int64 [blocks], voxels of the confusion that a block holds most of, 0 where all is right.
    """

    judged: Judged
    counts: Mapping[str, NDArray[np.int64]]
    columns: Mapping[str, NDArray[np.int64]]
    classes: tuple[int, ...] | None
    most_confused: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many units there are."""
        return len(next(iter(self.counts.values())))

    def evidence(self, times: NDArray[np.int64] | None = None) -> ClassEvidence:
        """Return the sum of the tables, each unit taken so many times (int64 [units]; None: once)."""
        how = self.judged
        tables = {}
        for name, shape in how.shapes.items():
            tables[name] = np.zeros(shape, np.int64)
            counts = self.counts[name]
            tables[name][:, self.columns[name]] = (
                counts.sum(axis=0) if times is None else np.tensordot(times, counts, 1)
            )
        band = BandConfusions(Confusion(tables["near"]), Confusion(tables["far"])) if "near" in tables else None
        rankings = {label: _ranking(tables[f"score_{label}"]) for label in how.ranked}
        top = _ranking(tables["top"]) if "top" in tables else rankings.get(1)
        return ClassEvidence(
            confusion=Confusion(tables["all"] if band is None else tables["near"] + tables["far"]),
            band=band,
            boundary=BoundaryTable(tables["boundary"]) if "boundary" in tables else None,
            rankings=rankings,
            top=top,
            classes=self.classes,
            enclosure=EnclosureTable(tables["enclosure"]) if "enclosure" in tables else None,
        )


def classes_in(how: Judged, box: Box) -> tuple[Array, NDArray[np.bool_], Array]:
    """Return the true classes of a box of the prediction, where they count, and what was called, all [Z, Y, X].

    These are the voxels that tables count. Where nothing counts, either class may be anything.

    Raises:
        InputError: a value that counts is no probability.
    """
    truth, known, _, found = _voxels(how, box)
    return truth, known, _called(how, found)


def table_file(folder: Path, index: Vec) -> Path:
    """Return the file of a block's tables."""
    return folder / "classes" / f"{name_of(index)}.parquet"


def read_units(folder: Path, judged: Judged, classes: tuple[int, ...] | None, cells: Iterable[Block]) -> Units:
    """Return the tables of all units, in order; of those in which no voxel counts there are none."""
    parts, most = [np.zeros((5, 0), np.int64)], []
    for place, cell in enumerate(cells):
        table = read_table(table_file(folder, cell.index))
        unit = table["unit"] if judged.by_section else np.full(len(table), place)
        parts.append(np.stack([unit, *(table[key] for key in ("table", "row", "column", "voxels"))]))
        most.append(_most_confused(judged, parts[-1]))
    rows = np.concatenate(parts, axis=1)
    units = np.unique(rows[0])
    counts, columns = {}, {}
    for number, (name, shape) in enumerate(judged.shapes.items()):
        unit, _, row, column, voxels = rows[:, rows[1] == number]
        columns[name], at = np.unique(column, return_inverse=True)
        counts[name] = np.zeros((len(units), shape[0], len(columns[name])), np.int64)
        np.add.at(counts[name], (np.searchsorted(units, unit), row, at), voxels)
    return Units(judged, counts, columns, classes, np.array(most, np.int64))


def joined(parts: Sequence[Units]) -> Units:
    """Return the units of several predictions as those of one; all were counted alike."""
    first = parts[0]
    counts, columns = {}, {}
    for name in first.judged.shapes:
        columns[name] = np.unique(np.concatenate([part.columns[name] for part in parts]))
        counts[name] = np.concatenate([_spread(part, name, columns[name]) for part in parts])
    most = np.concatenate([part.most_confused for part in parts])
    return Units(first.judged, counts, columns, first.classes, most)


def _spread(part: Units, name: str, columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the counts of a table with columns that include its own."""
    counts = part.counts[name]
    out = np.zeros((*counts.shape[:2], len(columns)), np.int64)
    out[..., np.searchsorted(columns, part.columns[name])] = counts
    return out


def _most_confused(how: Judged, rows: NDArray[np.int64]) -> int:
    """Return the voxels of the most frequent confusion in the rows of a block."""
    confusions = [number for number, name in enumerate(how.shapes) if name in ("all", "near", "far")]
    _, _, truth, called, voxels = rows[:, np.isin(rows[1], confusions) & (rows[2] != rows[3])]
    counts = np.zeros((how.n_classes, how.n_classes), np.int64)
    np.add.at(counts, (truth, called), voxels)
    return int(counts.max())


def _voxels(how: Judged, box: Box) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_] | None, Array]:
    """Return the true classes, where they count, the mask, and the prediction: classes, or shares [C, Z, Y, X]."""
    truth, predicted, mask = how.volumes()
    ids = borrow(truth, box.shift(common_box(predicted, truth).start))
    usable = None if mask is None else borrow(mask, box.shift(common_box(predicted, mask).start)) != 0
    known = known_voxels(ids, how.ignore, usable)
    found = borrow(predicted, box)
    if how.channels:
        asked = known
        if how.rules:  # the prediction is looked at wherever the mask allows
            asked = np.ones(box.shape, np.bool_) if usable is None else usable
        found = _probabilities(found.reshape(how.channels, *box.shape), asked, predicted.info.source)
    return ids, known, usable, found


def _called(how: Judged, found: Array) -> Array:
    """Return the class of every voxel: of the highest probability, of equals the first; of one, by threshold."""
    if not how.channels:
        return found
    if how.channels == 1:
        called: Array = (_levels(found[0], how.levels) / (how.levels - 1) >= how.threshold).astype(np.uint8)
        return called
    highest: Array = found.argmax(axis=0)
    return highest


def _ranking(counts: NDArray[np.int64]) -> Ranking:
    return ScoreHistogram(counts).ranking()


def _probabilities(found_CZYX: Array, known: NDArray[np.bool_], source: str) -> Array:
    """Return the probabilities, 0 where nothing counts: a NaN there matters to nothing."""
    kept: Array = np.where(known, found_CZYX, found_CZYX.dtype.type(0))
    if kept.dtype.kind != "f":
        return kept
    if not ((kept >= 0) & (kept <= 1 + _ROUNDING)).all():
        raise InputError(
            f"{source} holds values that are no probabilities (NaN, below 0 or above 1) where the truth is known: "
            "apply a sigmoid or softmax to logits, or mask voxels without a prediction"
        )
    return np.clip(kept, None, kept.dtype.type(1))


def _levels(probabilities: Array, levels: int) -> Array:
    if probabilities.dtype.kind != "f":
        return probabilities
    return quantised(probabilities, np.uint8 if levels == 256 else np.uint16)
