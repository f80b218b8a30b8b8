"""A volume: a chunked array that knows where it is.

Every format opens as an object with this protocol. Axes are ``zyx`` or ``czyx``; boxes are ZYX voxels of the
volume (voxel (0, 0, 0) is its first voxel, whatever its world offset); a read returns every channel.

What travels with the array (`VolumeInfo`): shape, dtype, voxel size and offset in nm, what the values mean
(`kind`), and for affinities the neighborhood, one ZYX offset per channel: channel ``c`` at voxel ``p`` is about
the pair ``(p, p + neighborhood[c])``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.box import as_vec

Array = NDArray[Any]
Kind = Literal["raw", "labels", "mask", "affinities", "lsds", "probabilities", "logits"]


@dataclass(frozen=True)
class VolumeInfo:
    """What a volume says about itself.

    Attributes:
        shape: voxels along z, y, x.
        dtype: element type.
        grid: voxel size and offset in nm.
        channels: number of channels of a ``czyx`` volume, None for ``zyx``.
        chunks: voxels per chunk along z, y, x, None where the format has none.
        kind: what the values mean, None where unknown.
        neighborhood: for affinities, one ZYX voxel offset per channel.
        source: path shown in messages.

    Raises:
        InputError: an extent is not a whole number, `kind` is unknown, or offsets and channels disagree.
    """

    shape: Vec
    dtype: np.dtype[Any]
    grid: Grid
    channels: int | None = None
    chunks: Vec | None = None
    kind: Kind | None = None
    neighborhood: tuple[Vec, ...] | None = None
    source: str = "array"

    def __post_init__(self) -> None:
        # Metadata arrives as JSON lists and numpy integers; exact tuples make the value hashable and comparable.
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        object.__setattr__(self, "shape", self.box.shape)
        if self.chunks is not None:
            object.__setattr__(self, "chunks", as_vec(self.chunks))
        if self.kind is not None and self.kind not in get_args(Kind):
            hint = did_you_mean(str(self.kind), get_args(Kind))
            raise InputError(
                f"{self.source} has the unknown kind {self.kind!r}{hint}: use {', '.join(get_args(Kind))}"
            )
        if self.neighborhood is not None:
            object.__setattr__(self, "neighborhood", tuple(as_vec(offset) for offset in self.neighborhood))
        self._check_offsets()

    def _check_offsets(self) -> None:
        if self.neighborhood is not None and len(self.neighborhood) != self.channels:
            raise InputError(
                f"{self.source} has {self.channels} channels but a neighborhood of {len(self.neighborhood)} "
                "offsets: affinities need one ZYX offset per channel"
            )
        if self.kind == "affinities" and self.neighborhood is None:
            raise InputError(f"{self.source} holds affinities without offsets: state one ZYX offset per channel")

    @property
    def axes(self) -> str:
        """`zyx` or `czyx`."""
        return "zyx" if self.channels is None else "czyx"

    @property
    def box(self) -> Box:
        """The whole volume."""
        return Box.whole(self.shape)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Shape of the whole array, channels first."""
        return self.shape_of(self.box)

    def shape_of(self, box: Box) -> tuple[int, ...]:
        """Shape of the array that fills `box`, channels first."""
        return box.shape if self.channels is None else (self.channels, *box.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array, uncompressed."""
        return prod(self.array_shape) * self.dtype.itemsize

    def with_(self, **changes: Any) -> VolumeInfo:
        """Return a copy with some attributes replaced."""
        return replace(self, **changes)


@runtime_checkable
class Volume(Protocol):
    """An array on some medium, read and written by boxes."""

    @property
    def info(self) -> VolumeInfo:
        """What the volume says about itself."""

    def read(self, box: Box) -> Array:
        """Return the voxels of `box` as a fresh ``[C,]ZYX``; raises `InputError` where it leaves the volume.

        An empty box whose faces lie in the volume gives an empty array of the box's shape.
        """

    def write(self, box: Box, array: Array) -> None:
        """Replace the voxels of `box`; raises `InputError` for a wrong shape, dtype, or read-only volume."""


@dataclass(frozen=True, eq=False)
class ArrayVolume:
    """A volume in memory; compared and hashed by identity, as arrays are.

    Args:
        array: ``[C,]ZYX``; not copied.
        grid: voxel size and offset in nm.
        kind: what the values mean.
        neighborhood: for affinities, one ZYX offset per channel.

    Raises:
        InputError: the array is not 3- or 4-dimensional, or offsets and channels disagree.
    """

    array: Array
    grid: Grid
    kind: Kind | None = None
    neighborhood: tuple[Vec, ...] | None = None
    source: str = "array"

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4):
            raise InputError(f"{self.source} has {self.array.ndim} dimensions: a volume is zyx or czyx")
        _ = self.info

    @cached_property
    def info(self) -> VolumeInfo:
        """What the volume says about itself."""
        z, y, x = self.array.shape[-3:]
        channels = self.array.shape[0] if self.array.ndim == 4 else None
        return VolumeInfo(
            (z, y, x), self.array.dtype, self.grid, channels, None, self.kind, self.neighborhood, self.source
        )

    def read(self, box: Box) -> Array:
        """Return a copy of the voxels of `box`."""
        check_box(self.info, box)
        # C order, whatever the order of the array behind: kernels may rely on it.
        return self.array[..., *box.slices()].copy(order="C")

    def view(self, box: Box) -> Array:
        """Return the voxels of `box` where they lie, read-only."""
        check_box(self.info, box)
        view = self.array[..., *box.slices()]
        view.flags.writeable = False
        return view

    def write(self, box: Box, array: Array) -> None:
        """Replace the voxels of `box`."""
        check_write(self.info, box, array)
        if not self.array.flags.writeable:
            raise InputError(f"{self.source} is read-only: write to a new volume")
        self.array[..., *box.slices()] = array


def check_box(info: VolumeInfo, box: Box) -> None:
    """Raise `InputError` unless `box` lies in the volume; the faces of an empty box must lie in it too.

    (`Box.contains` asks about voxels, and an empty box has none. But array indices beyond the end would clip its
    other extents, each format in its own way.)
    """
    if any(a < 0 or b > n for a, b, n in zip(box.start, box.stop, info.shape, strict=True)):
        raise InputError(f"{box} leaves {info.source}, which is {info.box}: choose a box inside it")


def check_write(info: VolumeInfo, box: Box, array: Array) -> None:
    """Raise `InputError` unless `array` may be written to `box`: inside, same dtype, same shape."""
    check_box(info, box)
    if array.dtype != info.dtype:
        raise InputError(
            f"{info.source} stores {info.dtype}, got {array.dtype}: convert explicitly before writing"
        )
    expected = info.shape_of(box)
    if array.shape != expected:
        raise InputError(f"{info.source}: {box} needs an array of shape {expected}, got {array.shape}")


def borrow(volume: Volume, box: Box) -> Array:
    """Return the voxels of `box` to look at, not to keep: a read-only view, not copied, of a volume in memory."""
    # Not of a subclass: it may read in another way.
    return volume.view(box) if type(volume) is ArrayVolume else volume.read(box)


def read_padded(volume: Volume, box: Box) -> Array:
    """Return the voxels of `box`, mirrored at the faces of the volume where the box leaves it.

    The reflection does not repeat the border voxel (numpy's ``reflect``) and continues periodically, so any
    margin works and the value at a voxel does not depend on which box asked for it::

        volume                 a b c d
        read from -5 to 9   b c d c b|a b c d|c b a b c

    Raises:
        InputError: the volume holds no voxel, so there is nothing to mirror.
    """
    if box.is_empty:
        return np.empty(volume.info.shape_of(box), volume.info.dtype)
    if volume.info.box.contains(box):
        return volume.read(box)
    shape = volume.info.shape
    if 0 in shape:
        raise InputError(f"{volume.info.source} holds no voxel (shape {shape}): nothing to pad {box} from")
    index = [_mirror(np.arange(a, a + n), size) for a, n, size in zip(box.start, box.shape, shape, strict=True)]
    low = [int(i.min()) for i in index]
    high = [int(i.max()) + 1 for i in index]
    inside = borrow(volume, Box.of(low, high))
    z, y, x = (i - a for i, a in zip(index, low, strict=True))
    return np.ascontiguousarray(inside[..., z[:, None, None], y[:, None], x])


def _mirror(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    mirrored: NDArray[np.int64] = np.minimum(folded, period - folded)
    return mirrored


def cached(volume: Volume, limit_bytes: int = 1 << 30) -> Volume:
    """Return the volume read into memory (read-only), or the volume itself where it is larger than the limit."""
    info = volume.info
    if isinstance(volume, ArrayVolume) or info.nbytes > limit_bytes:
        return volume
    array = volume.read(info.box)
    array.flags.writeable = False
    return ArrayVolume(array, info.grid, info.kind, info.neighborhood, info.source)
