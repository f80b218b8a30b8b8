"""What is painted in one piece, as codes on the grid of the raw: one function for each kind of piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.tiling import cells
from emloom.io.checks import require_labels
from emloom.io.labelimage import pixel_size_nm, read_label_image
from emloom.io.labeltable import Lines, read_label_lines, read_label_points, read_label_trees
from emloom.io.open import open_volume
from emloom.io.volume import VolumeInfo, cached
from emloom.nn.painted import ALL, Codes, DensePiece, VolumePiece, VoxelPiece, voxel_piece
from emloom.nn.painted import Piece as Painted
from emloom.ops.scribbles import voxels_along
from emloom.tasks.sparsespec import (
    BlockPiece,
    ObliquePiece,
    Piece,
    PlanePiece,
    PointsPiece,
    ScribblesPiece,
    resolved,
)

_READ = 128
_UNKNOWN = -1
_SOFT_VALUES, _SOFT_SHARE = 3, 0.25
_PARALLEL = 1e-6


class ForeignError(Exception):
    """Values that stand for no class.

    Attributes:
        counts: value -> voxels, in the order of the values.
        soft: whether they look like mixtures of classes along edges.
    """

    def __init__(self, counts: Mapping[Any, int], soft: bool) -> None:
        super().__init__(str(counts))
        self.counts = counts
        self.soft = soft


@dataclass(frozen=True)
class Values:
    """What a painted value or name stands for.

    Attributes:
        numbers: value -> number of its class.
        names: name -> number of its class.
        undefined: values that mean that nobody knows.
    """

    numbers: Mapping[int, int]
    names: Mapping[str, int]
    undefined: frozenset[int]

    def classes(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Return value -> number of its class, -1 for undefined ones; or raise `ForeignError`."""
        foreign = {v: n for v, n in counts.items() if v not in self.numbers and v not in self.undefined}
        if foreign:
            share = sum(foreign.values()) / sum(counts.values())
            raise ForeignError(foreign, len(foreign) >= _SOFT_VALUES and share < _SOFT_SHARE)
        return {value: self.numbers.get(value, _UNKNOWN) for value in counts}

    def of_texts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of the class of every name or value, -1 for undefined ones."""
        found: dict[str, int] = {}
        foreign = Counter[str]()
        for text, count in Counter(texts).items():
            number = self.names.get(text)
            if number is None and text.isdecimal():
                number = _UNKNOWN if int(text) in self.undefined else self.numbers.get(int(text))
            if number is None:
                foreign[text + did_you_mean(text, self.names)] += count
            else:
                found[text] = number
        if foreign:
            raise ForeignError(foreign, soft=False)
        return np.array([found[text] for text in texts], np.int64)


@dataclass(frozen=True)
class Drawing:
    """Where pieces are drawn.

    Attributes:
        raw: of the volume that they label.
        folder: their paths are relative to.
    """

    raw: VolumeInfo
    folder: Path

    @property
    def grid(self) -> Grid:
        """Of the raw."""
        return self.raw.grid

    def path(self, piece: Piece) -> str:
        """Return the path of a piece's file."""
        return resolved(piece.file, self.folder)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A drawn piece.

    Attributes:
        piece: its codes.
        counts: int64 [classes], voxels painted as each.
        undefined: voxels of which nobody knows; of points and lines those that contradict themselves.
    """

    piece: Painted
    counts: NDArray[np.int64]
    undefined: int


def draw(piece: Piece, where: Drawing, values: Values, codes: Codes) -> Drawn:
    """Return what is painted in a piece.

    Args:
        piece: of any kind.
        where: the raw.
        values: what values stand for.
        codes: uint16 [classes], the code of a voxel painted as each class.

    Raises:
        InputError: the file is unreadable, or does not fit the raw.
        ForeignError: a value stands for no class.
    """
    if isinstance(piece, PlanePiece):
        image = _image(piece, where)
        start = _plane_start(piece, image.shape, where)
        numbers = _numbers(image, values)
        return _dense(piece.name, start, np.expand_dims(numbers, "zyx".index(piece.axis)), codes)
    if isinstance(piece, BlockPiece):
        return _block(piece, where, values, codes)
    if isinstance(piece, ObliquePiece):
        voxels, numbers = _oblique(piece, where, values)
    elif isinstance(piece, PointsPiece):
        voxels, numbers = _points(piece, where, values)
    else:
        assert isinstance(piece, ScribblesPiece)
        voxels, numbers = _scribbles(piece, where, values)
    return _voxels(piece.name, voxels, numbers, codes)


def _dense(name: str, start: Vec, numbers: NDArray[np.int64], codes: Codes) -> Drawn:
    counts = np.bincount(numbers.reshape(-1) + 1, minlength=len(codes) + 1)
    table = np.append(codes, np.uint16(ALL))  # the last is also number -1
    return Drawn(DensePiece(name, start, table[numbers]), counts[1:], int(counts[0]))


def _voxels(name: str, voxels: NDArray[np.int64], numbers: NDArray[np.int64], codes: Codes) -> Drawn:
    told = numbers != _UNKNOWN
    if not told.any():
        raise InputError(f"nothing is painted: all {len(told):,} entries are undefined")
    # Numbers from 1 while they are compared: several classes may have one code.
    piece = voxel_piece(name, voxels[told], (numbers[told] + 1).astype(np.uint16))
    counts = np.bincount(piece.values, minlength=len(codes) + 1)
    table = np.concatenate([np.array([ALL], np.uint16), codes])
    return Drawn(VoxelPiece(name, piece.voxels, table[piece.values]), counts[1:], int(counts[0]))


def _numbers(painted: NDArray[Any], values: Values) -> NDArray[np.int64]:
    found, where, counts = np.unique(painted, return_inverse=True, return_counts=True)
    classes = values.classes(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    return np.array(list(classes.values()), np.int64)[where].reshape(painted.shape)


# ---- images -------------------------------------------------------------------------------------------------


def _image(piece: PlanePiece, where: Drawing) -> NDArray[Any]:
    path = where.path(piece)
    image, stated = read_label_image(path), pixel_size_nm(path)
    rows, columns = _plane_axes(piece)
    if piece.transpose:
        image, stated = image.T, None if stated is None else (stated[1], stated[0])
    size = (where.grid.voxel_size_nm[rows], where.grid.voxel_size_nm[columns])
    if stated is not None and any(abs(a - b) > 0.01 * b for a, b in zip(stated, size, strict=True)):
        raise InputError(
            f"{path} states pixels of {stated} nm, and those of {where.raw.source} in this plane are {size} nm: "
            "paint on, or resample to, the grid of the raw"
        )
    return image


def _plane_axes(piece: PlanePiece) -> tuple[int, int]:
    rows, columns = (axis for axis in range(3) if "zyx"[axis] != piece.axis)
    return rows, columns


def _plane_start(piece: PlanePiece, shape: tuple[int, ...], where: Drawing) -> Vec:
    normal, (rows, columns) = "zyx".index(piece.axis), _plane_axes(piece)
    start, extent = [0, 0, 0], [1, 1, 1]
    start[normal] = piece.at
    start[rows], start[columns] = piece.start
    extent[rows], extent[columns] = shape
    box = Box((start[0], start[1], start[2]), (extent[0], extent[1], extent[2]))
    if where.raw.box.contains(box):
        return box.start
    text = (
        f"{where.path(piece)} is {shape[0]} x {shape[1]} pixels ({'zyx'[rows]}, {'zyx'[columns]}), which makes it "
        f"{box}, and {where.raw.source} is {where.raw.box} (z, y, x): correct axis, at or start"
    )
    extent[rows], extent[columns] = extent[columns], extent[rows]
    if where.raw.box.contains(Box(box.start, (extent[0], extent[1], extent[2]))):
        text += "; transposed it would fit (transpose: true)"
    raise InputError(text)


def _oblique(piece: ObliquePiece, where: Drawing, values: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    normal = np.cross(piece.row_nm, piece.column_nm)
    if np.linalg.norm(normal) <= _PARALLEL * np.linalg.norm(piece.row_nm) * np.linalg.norm(piece.column_nm):
        raise InputError(
            f"row_nm {piece.row_nm} and column_nm {piece.column_nm} span no plane: give two directions (z, y, x)"
        )
    numbers = _numbers(read_label_image(where.path(piece)), values)
    row, column = np.nonzero(numbers != _UNKNOWN)
    steps = row[:, None] * np.array(piece.row_nm) + column[:, None] * np.array(piece.column_nm)
    return _inside(np.array(piece.origin_nm) + steps, where, "pixels"), numbers[row, column]


# ---- points and lines -----------------------------------------------------------------------------------------


def _inside(positions_nm: NDArray[np.float64], where: Drawing, what: str) -> NDArray[np.int64]:
    """Return the voxel of every position, or raise `InputError` where some lie outside."""
    voxels = voxels_containing(where.grid, positions_nm)
    outside = ((voxels < 0) | (voxels >= where.raw.shape)).any(axis=1)
    if outside.any():
        first = positions_nm[int(np.argmax(outside))].tolist()
        raise InputError(
            f"{int(outside.sum()):,} of {len(voxels):,} {what} lie outside {where.raw.source}, {where.raw.box} of "
            f"{where.grid.voxel_size_nm} nm from {where.grid.offset_nm} nm; the first at "
            f"{[round(v, 3) for v in first]} nm (z, y, x): look at the units and the order of the axes"
        )
    return voxels


def _world(positions: NDArray[np.float64], units: str, grid: Grid) -> NDArray[np.float64]:
    """Return positions in nm; a voxel's own position is its centre."""
    if units == "nm":
        return positions
    world: NDArray[np.float64] = (positions + 0.5) * np.array(grid.voxel_size_nm) + np.array(grid.offset_nm)
    return world


def _points(piece: PointsPiece, where: Drawing, values: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    points = read_label_points(where.path(piece))
    world = _world(points.positions, piece.units, where.grid)
    return _inside(world, where, "points"), values.of_texts(points.classes)


def _scribbles(
    piece: ScribblesPiece, where: Drawing, values: Values
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lines = _lines(piece, where)
    _inside(lines.positions, where, "points of lines")
    numbers = values.of_texts(lines.classes)
    voxels, owners = voxels_along(lines.positions, lines.segments, where.grid, where.raw.box, piece.radius_nm)
    return voxels, numbers[owners]


def _lines(piece: ScribblesPiece, where: Drawing) -> Lines:
    path = where.path(piece)
    if Path(path).suffix.lower() in (".nml", ".nmx", ".zip"):
        return read_label_trees(path, where.grid.voxel_size_nm)
    lines = read_label_lines(path)
    return Lines(_world(lines.positions, piece.units, where.grid), lines.segments, lines.classes)


# ---- blocks -----------------------------------------------------------------------------------------------------


def _block(piece: BlockPiece, where: Drawing, values: Values, codes: Codes) -> Drawn:
    path = where.path(piece)
    given = None if piece.start is None else where.grid.voxel_size_nm
    volume = open_volume(path, voxel_size_nm=given, kind="labels")
    require_labels(volume)
    start = _block_start(piece, volume.info, where)
    box = Box(start, volume.info.shape)
    if not where.raw.box.contains(box):
        raise InputError(f"{path} lies at {box}, and {where.raw.source} is {where.raw.box} (z, y, x): move it")
    counts = Counter[int]()
    for _, part in cells(volume.info.box, _READ):
        found, n = np.unique(volume.read(part), return_counts=True)
        counts.update(dict(zip(found.tolist(), n.tolist(), strict=True)))
    classes = values.classes(dict(sorted(counts.items())))
    per_class = np.zeros(len(codes), np.int64)
    for value, number in classes.items():
        if number != _UNKNOWN:
            per_class[number] += counts[value]
    known = [value for value, number in classes.items() if number != _UNKNOWN]
    told = np.array([codes[classes[value]] for value in known], np.uint16)
    labels = np.array(known, volume.info.dtype)
    drawn = VolumePiece(piece.name, start, cached(volume), labels, told)
    return Drawn(drawn, per_class, sum(counts.values()) - int(per_class.sum()))


def _block_start(piece: BlockPiece, info: VolumeInfo, where: Drawing) -> Vec:
    if piece.start is not None:
        return piece.start
    if not Grid(info.grid.voxel_size_nm, where.grid.offset_nm).matches(where.grid):
        raise InputError(
            f"{info.source} has a voxel size of {info.grid.voxel_size_nm} nm, and {where.raw.source} "
            f"{where.grid.voxel_size_nm} nm (z, y, x): resample it to the grid of the raw"
        )
    at = where.grid.to_voxel(info.grid.offset_nm)
    if any(abs(v - round(v)) > 1e-3 for v in at):
        raise InputError(
            f"{info.source} starts at {info.grid.offset_nm} nm, which is voxel {[round(v, 3) for v in at]} (z, y, "
            f"x) of {where.raw.source}, between voxels: correct its offset, or give `start`"
        )
    return (round(at[0]), round(at[1]), round(at[2]))
