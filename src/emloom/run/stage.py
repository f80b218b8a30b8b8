"""A stage: one pure function over many blocks, and what each of them writes.

Stages are separated by barriers; the blocks of one stage know nothing of each other. A block's function

* reads whatever it likes that no block of its stage writes,
* writes whole chunks (and whole shards) of volumes, and files of its own, below the output folder,
* gives the same bytes whenever and wherever it runs, however often.

So a block may run twice, or half and then again on another machine: only time is lost. What it wrote is described
by `Output`, with hashes; the runner records that in the block's marker, and `emloom.run.verify` compares it later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import index as whole
from os import PathLike
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from emloom.geometry import Box, Vec

_PIECE_BYTES = 1 << 20


class Indexed(Protocol):
    """Anything with a place of its own on a lattice, for example a `geometry.tiling.Block`."""

    @property
    def index(self) -> Vec:
        """Lattice position (z, y, x); the name of the block in its stage."""


B = TypeVar("B", bound=Indexed)


@dataclass(frozen=True)
class Output:
    """What a block wrote, and how to read it again.

    Attributes:
        place: path of a volume or file, relative to the output folder (or an address, ``s3://...``).
        box: (start, shape) in voxels of the volume at `place`; None: `place` is a file that the block wrote alone.
        xxh64: hash of the array (`array_hash`) or of the file (`file_hash`).
    """

    place: str
    box: tuple[Vec, Vec] | None
    xxh64: str

    @classmethod
    def voxels(cls, place: str, box: Box, array_CZYX: NDArray[Any]) -> Self:
        """Describe an array, ``[C,]ZYX``, that was written to a box of a volume."""
        return cls(place, (box.start, box.shape), array_hash(array_CZYX))

    @classmethod
    def file(cls, folder: str | PathLike[str], place: str) -> Self:
        """Describe a file that was written below `folder`."""
        return cls(place, None, file_hash(Path(folder) / place))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Return the output that a marker describes.

        Raises:
            ValueError, TypeError, KeyError: it describes none.
        """
        box = plain["box"]
        if box is not None:
            start, shape = box
            box = (_vec(start), _vec(shape))
        return cls(str(plain["place"]), box, str(plain["xxh64"]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"place": self.place, "box": self.box, "xxh64": self.xxh64}


@dataclass(frozen=True)
class Stage(Generic[B]):
    """One function over many blocks, with a barrier before and after.

    Attributes:
        name: names the folder of its markers and the stage in messages: letters, digits, ``-``, ``_`` and ``.``.
        key: hash of everything that decides its outputs: parameters, fingerprints of the inputs, keys of the
            stages before it, version of the format (`journal.key_of`). Blocks of another key are never reused.
        blocks: the units of work; every `index` occurs once.
        work: writes one block and says what it wrote; picklable (a module-level function, or a frozen dataclass
            with ``__call__``) and small, since it travels with every block; pure and idempotent, see the module.
        bounded: blocks have a largest size, so that one which takes very long hangs (`watch.LIMIT_S`).

    Raises:
        ValueError: the name is no plain word, or two blocks have the same index.
    """

    name: str
    key: str
    blocks: Sequence[B]
    work: Callable[[B], Sequence[Output]]
    bounded: bool = True

    def __post_init__(self) -> None:
        for what, word in (("name", self.name), ("key", self.key)):
            if (
                not word
                or word.startswith(".")
                or not word.replace("-", "").replace("_", "").replace(".", "").isalnum()
            ):
                raise ValueError(f"the {what} {word!r} of a stage is no plain word: use letters, digits, - and _")
        if len({block.index for block in self.blocks}) != len(self.blocks):
            raise ValueError(f"two blocks of stage {self.name!r} have the same index: their markers would be one")


def _vec(values: Sequence[int]) -> Vec:
    z, y, x = values  # a million markers are read at once: no more checks than JSON leaves necessary
    return (whole(z), whole(y), whole(x))


def array_hash(array: NDArray[Any]) -> str:
    """Return the xxh64 of an array's dtype, shape and C-order bytes, as 16 hexadecimal digits."""
    digest = xxhash.xxh64(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def file_hash(path: str | PathLike[str]) -> str:
    """Return the xxh64 of a file's bytes, as 16 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = xxhash.xxh64()
    with Path(path).open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
