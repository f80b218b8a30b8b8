"""Sparse labels as a volume: what a few painted pieces say of any voxel, computed when it is read.

Every painted voxel says which classes are possible there: one, or several where a piece did not look for some.
Elsewhere, and where a piece is undefined, all classes are possible, which is **unknown**, never background. What
pieces say together is what all of them allow::

    piece a   {membrane}   {membrane}             {cytoplasm, vesicle}   all
    piece b   all          {membrane, synapse}    {vesicle}              all
    together  {membrane}   {membrane}             {vesicle}              all: unknown

So the order of pieces means nothing, and nothing at all can be possible only where pieces contradict each other;
there the voxel is unknown, too. Whoever reads ids gets::

    an id of the class      where one class is possible
    a set of classes        where several are (`emloom.ops.classsets`), by their numbers in the job
    0, and known 0          where nobody knows, where pieces disagree, and where a class that is not learned may be

Pieces are found by their boxes: reading a box costs what is painted in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.tiling import cells
from emloom.io.volume import Volume, VolumeInfo, borrow, check_box
from emloom.ops.classsets import MOST_IN_SETS, set_label

Codes = NDArray[np.uint16]
Voxels = NDArray[np.int64]
ALL = 0
"""Code of a voxel of which nothing is known."""
NONE = 1
"""Code of a voxel at which pieces contradict each other."""
_READ = 128


class Palette:
    """Which sets of classes are painted, as codes, and what two of them leave possible.

    Args:
        sets: the sets of class numbers that pieces paint, in any order.
        n_classes: how many classes there are; the set of all is unknown.

    Attributes:
        sets: what each code stands for.
        meet: uint16 [n, n], code of the classes that two codes both allow.
    """

    def __init__(self, sets: Iterator[frozenset[int]] | Sequence[frozenset[int]], n_classes: int) -> None:
        whole = frozenset(range(n_classes))
        found = dict.fromkeys([whole, frozenset[int](), *sets])
        while True:  # until whatever two sets leave possible is one of them
            more = {a & b for a in found for b in found} - found.keys()
            if not more:
                break
            found |= dict.fromkeys(sorted(more, key=sorted))
        self.sets = tuple(found)
        self._codes = {each: code for code, each in enumerate(self.sets)}
        self.meet: Codes = np.array([[self._codes[a & b] for b in self.sets] for a in self.sets], np.uint16)

    def code(self, possible: frozenset[int]) -> int:
        """Return the code of a set."""
        return self._codes[possible]


class Piece(Protocol):
    """Something painted: codes within a box."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def box(self) -> Box:
        """Where it is, in voxels of the raw; it says nothing elsewhere."""

    @property
    def size(self) -> int:
        """How many voxels it has at most."""

    def codes(self, box: Box) -> Codes:
        """Return the codes of a box that lies in its own."""

    def told(self) -> tuple[Voxels, Codes]:
        """Return its voxels of which something is known, int64 [n, 3], and their codes."""


@dataclass(frozen=True, eq=False)
class DensePiece:
    """A painted box: a plane, a block.

    Attributes:
        name: what it is called.
        start: its first voxel.
        array: uint16 ZYX, its codes.
    """

    name: str
    start: tuple[int, int, int]
    array: Codes

    @property
    def box(self) -> Box:
        """Where it is."""
        z, y, x = self.array.shape
        return Box(self.start, (z, y, x))

    def codes(self, box: Box) -> Codes:
        """Return the codes of a box that lies in its own."""
        return self.array[box.slices(self.start)]

    @property
    def size(self) -> int:
        """How many voxels it has."""
        return self.array.size

    def told(self) -> tuple[Voxels, Codes]:
        """Return its voxels of which something is known, and their codes."""
        return np.argwhere(self.array != ALL) + self.start, self.array[self.array != ALL]


@dataclass(frozen=True, eq=False)
class VoxelPiece:
    """Painted voxels: points, scribbles, an oblique plane.

    Attributes:
        name: what it is called.
        voxels: int64 [n, 3], n >= 1, each once, ascending in z.
        values: uint16 [n], their codes.
    """

    name: str
    voxels: Voxels
    values: Codes

    @cached_property
    def box(self) -> Box:
        """The smallest box around them."""
        return Box.of(self.voxels.min(axis=0).tolist(), (self.voxels.max(axis=0) + 1).tolist())

    def codes(self, box: Box) -> Codes:
        """Return the codes of a box that lies in its own."""
        out = np.full(box.shape, ALL, np.uint16)
        low, high = np.searchsorted(self.voxels[:, 0], [box.start[0], box.stop[0]])
        voxels = self.voxels[low:high]
        inside = ((voxels >= box.start) & (voxels < box.stop)).all(axis=1)
        z, y, x = (voxels[inside] - box.start).T
        out[z, y, x] = self.values[low:high][inside]
        return out

    @property
    def size(self) -> int:
        """How many voxels it has."""
        return len(self.voxels)

    def told(self) -> tuple[Voxels, Codes]:
        """Return its voxels of which something is known, and their codes."""
        return self.voxels[self.values != ALL], self.values[self.values != ALL]


@dataclass(frozen=True, eq=False)
class VolumePiece:
    """A placed volume of labels, read where it lies.

    Attributes:
        name: what it is called.
        start: voxel of the raw at which its first voxel lies.
        volume: the labels.
        known: its labels, ascending, other than unknown ones.
        values: uint16, their codes.
    """

    name: str
    start: tuple[int, int, int]
    volume: Volume
    known: NDArray[Any]
    values: Codes

    @property
    def box(self) -> Box:
        """Where it is."""
        return Box(self.start, self.volume.info.shape)

    def codes(self, box: Box) -> Codes:
        """Return the codes of a box that lies in its own."""
        labels = borrow(self.volume, box.shift([-v for v in self.start]))
        if not len(self.known):
            return np.full(box.shape, ALL, np.uint16)
        at = np.minimum(np.searchsorted(self.known, labels), len(self.known) - 1)
        return np.where(self.known[at] == labels, self.values[at], np.uint16(ALL))

    @property
    def size(self) -> int:
        """How many voxels it has."""
        return self.box.size

    def told(self) -> tuple[Voxels, Codes]:
        """Return its voxels of which something is known, and their codes; reads all of it."""
        return DensePiece(self.name, self.start, self.codes(self.box)).told()


@dataclass(frozen=True, eq=False)
class PaintedVolume:
    """What pieces say together; see the module.

    Attributes:
        pieces: what is painted.
        palette: of their codes.
        ids: class of the palette -> (number, id) among the learned ones; classes that are not learned are absent.
        raw: of the volume that is labelled.
    """

    pieces: tuple[Piece, ...]
    palette: Palette
    ids: Mapping[int, tuple[int, int]]
    raw: VolumeInfo
    info: VolumeInfo = field(init=False)
    _table: NDArray[Any] = field(init=False)
    _is_known: NDArray[np.bool_] = field(init=False)
    _low: NDArray[np.int64] = field(init=False)
    _high: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        ids = [None, None, *(self._id_of(possible) for possible in self.palette.sets[NONE + 1 :])]
        table = np.array([number or 0 for number in ids], np.uint64)
        table = table.astype(np.min_scalar_type(table.max()))
        info = self.raw.with_(dtype=table.dtype, kind="labels", chunks=None, source=f"labels of {self.raw.source}")
        object.__setattr__(self, "info", info)
        object.__setattr__(self, "_table", table)
        object.__setattr__(self, "_is_known", np.array([number is not None for number in ids]))
        low = np.array([piece.box.start for piece in self.pieces], np.int64).reshape(-1, 3)
        object.__setattr__(self, "_low", low)
        shapes = np.array([piece.box.shape for piece in self.pieces], np.int64).reshape(-1, 3)
        object.__setattr__(self, "_high", low + shapes)

    def _id_of(self, possible: frozenset[int]) -> int | None:
        """Return the id of a set of classes; None where it says nothing of the learned ones."""
        if not possible <= self.ids.keys():
            return None
        numbers = {self.ids[each][0]: self.ids[each][1] for each in possible}
        if len(numbers) == 1:
            return next(iter(numbers.values()))
        if max(numbers, default=0) >= MOST_IN_SETS:
            raise InputError(
                f"class number {max(numbers)} may be hidden in another, and only the first {MOST_IN_SETS} can: "
                "name it earlier in the objective"
            )
        return set_label(numbers)

    @property
    def known(self) -> KnownVolume:
        """Where something is known."""
        return KnownVolume(self)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the ids of a box; 0 where nothing is known."""
        ids: NDArray[Any] = self._table[self.codes(box)]
        return ids

    def read_known(self, box: Box) -> NDArray[np.uint8]:
        """Return uint8 ZYX: 1 where something is known, else 0."""
        known: NDArray[np.uint8] = self._is_known[self.codes(box)].view(np.uint8)
        return known

    def codes(self, box: Box) -> Codes:
        """Return what all pieces together leave possible in a box."""
        check_box(self.info, box)
        out = np.full(box.shape, ALL, np.uint16)
        for number in self._near(box):
            piece = self.pieces[number]
            inside = piece.box.intersect(box)
            at = inside.slices(box.start)
            out[at] = self.palette.meet[out[at], piece.codes(inside)]
        return out

    def voxels(self) -> tuple[Voxels, NDArray[Any]]:
        """Return all voxels of which something is known, int64 [n, 3] in z, y, x order, and their ids."""
        told = [piece.told() for piece in self.pieces]
        places = [np.ravel_multi_index(tuple(voxels.T), self.info.shape) for voxels, _ in told]
        every = np.sort(np.concatenate([np.zeros(0, np.int64), *places]))
        every = every[np.diff(every, prepend=-1) > 0]  # 20 times as fast as numpy 2.4's unique, which hashes
        out = np.full(len(every), ALL, np.uint16)
        for (_, codes), place in zip(told, places, strict=True):
            at = np.searchsorted(every, place)
            out[at] = self.palette.meet[out[at], codes]
        known = self._is_known[out]
        return np.stack(np.unravel_index(every[known], self.info.shape), axis=1), self._table[out[known]]

    def occupied(self, box: Box) -> bool:
        """Whether any piece reaches into a box; where none does, nothing is known."""
        return len(self._near(box)) > 0

    def write(self, box: Box, array: NDArray[Any]) -> None:
        """Refuse: pieces are painted elsewhere."""
        raise InputError(f"{self.info.source} are painted pieces, which are read-only: change the pieces")

    def conflicts(self) -> dict[tuple[str, str], int]:
        """Return how many voxels each two pieces contradict each other at; pairs that agree are left out."""
        found = {}
        for second, b in enumerate(self.pieces):
            for a in (self.pieces[first] for first in self._near(b.box) if first < second):
                common = a.box.intersect(b.box)
                count = sum(
                    int(np.count_nonzero(self._clash(a.codes(box), b.codes(box))))
                    for _, box in cells(common, _READ)
                )
                if count:
                    found[a.name, b.name] = count
        return found

    def _clash(self, a: Codes, b: Codes) -> NDArray[np.bool_]:
        clash: NDArray[np.bool_] = self.palette.meet[a, b] == NONE
        return clash

    def _near(self, box: Box) -> list[int]:
        near: list[int] = np.flatnonzero(((self._low < box.stop) & (self._high > box.start)).all(axis=1)).tolist()
        return near


@dataclass(frozen=True, eq=False)
class KnownVolume:
    """Where a `PaintedVolume` knows something, as a mask."""

    painted: PaintedVolume

    @property
    def info(self) -> VolumeInfo:
        """Of the labels, as a mask."""
        return self.painted.info.with_(dtype=np.dtype(np.uint8), kind="mask")

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return uint8 ZYX: 1 where something is known, else 0."""
        return self.painted.read_known(box)

    def occupied(self, box: Box) -> bool:
        """Whether any piece reaches into a box."""
        return self.painted.occupied(box)

    def write(self, box: Box, array: NDArray[Any]) -> None:
        """Refuse, as the labels do."""
        self.painted.write(box, array)


def is_blank(volume: Volume, box: Box) -> bool:
    """Whether a box of labels need not be read, as nothing is painted there."""
    return isinstance(volume, PaintedVolume | KnownVolume) and not volume.occupied(box)


def require_knowable(volume: Volume, share: float, shape: Vec) -> None:
    """Raise `InputError` where no crop of painted pieces can have so large a share of its voxels known."""
    if not isinstance(volume, KnownVolume):
        return
    sizes = [prod(min(n, s) for n, s in zip(p.box.shape, shape, strict=True)) for p in volume.painted.pieces]
    if sum(sizes) < share * prod(shape):
        raise InputError(
            f"min_known {share:g} asks for crops of which {share:.0%} is known, and of a crop of {shape} voxels "
            f"(z, y, x) the {len(sizes)} painted pieces of {volume.painted.raw.source} cover {max(sizes):,}, or "
            f"{max(sizes) / prod(shape):.1%}, at best: set min_known to 0, the default for painted pieces, or use "
            "crops as thin as these"
        )


def voxel_piece(name: str, voxels: Voxels, values: Codes) -> VoxelPiece:
    """Return a piece of voxels in any order; one that stands there with several values is unknown.

    Args:
        name: what it is called.
        voxels: int64 [n, 3], n >= 1.
        values: uint16 [n], codes.
    """
    unique, first, where = np.unique(voxels, axis=0, return_index=True, return_inverse=True)
    where = where.reshape(-1)
    out = values[first]
    out[where[values != out[where]]] = ALL
    return VoxelPiece(name, unique, out)
