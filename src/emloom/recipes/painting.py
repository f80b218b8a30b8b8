"""What recipes of painted slices share: slices that are cut from a volume of classes, as if somebody had painted.

A set in which everything is painted says how good one becomes with little: a few slices of it are written as
images, some blocks are held out, and `labels.yaml` names them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import imageio.v3 as iio
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.io.files import staged
from emloom.io.open import create_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.nn.losses import ClassDice, CrossEntropy, FocalCrossEntropy, LossSpec, LossSum
from emloom.nn.objectives.semantic import SemanticClass, SemanticObjective
from emloom.tasks.sparsespec import BlockPiece, PieceSpec, PlanePiece, SparseLabels

Loss = Literal["ce", "focal", "ce_dice"]

LOSSES: dict[Loss, LossSpec] = {
    "ce": CrossEntropy(),
    "focal": FocalCrossEntropy(gamma=2.0),
    "ce_dice": LossSum(parts=(CrossEntropy(), ClassDice())),
}
"""What can be made small, by name."""

LABELS = "labels.yaml"


class Slice(NamedTuple):
    """One painted slice, one voxel thick along its axis."""

    axis: Literal["z", "y", "x"]
    at: int
    box: Box

    @property
    def name(self) -> str:
        """Of its piece and its image."""
        return f"{self.axis}{self.at:03d}"


def learned(classes: Sequence[str], loss: Loss) -> SemanticObjective:
    """Return what is learned: classes that are painted as 1, 2, ... in their order."""
    named = tuple(SemanticClass(name=name, ids=(number,)) for number, name in enumerate(classes, start=1))
    return SemanticObjective(classes=named, class_loss=LOSSES[loss])


def write_pieces(classes: Volume, slices: Iterable[Slice], blocks: Mapping[str, Box], where: Path) -> Path:
    """Write slices as images, blocks as volumes, and `labels.yaml`, which names them; return its path.

    Args:
        classes: uint8 ids, 0 is undefined.
        slices: each is named after its axis and place.
        blocks: by name.
        where: an existing folder.
    """
    pieces: list[PieceSpec] = []
    for each in slices:
        axis = "zyx".index(each.axis)
        rows, columns = (each.box.start[i] for i in range(3) if i != axis)
        iio.imwrite(where / f"{each.name}.png", classes.read(each.box).squeeze(axis))
        pieces.append(
            PlanePiece(
                kind="plane",
                name=each.name,
                image=f"{each.name}.png",
                axis=each.axis,
                at=each.at,
                start=(rows, columns),
            )
        )
    for name, box in blocks.items():
        write_box(where / f"{name}.zarr", classes.info, box, classes.read(box))
        pieces.append(BlockPiece(kind="block", name=name, labels=f"{name}.zarr"))
    SparseLabels(pieces=tuple(pieces)).dump(where / LABELS)
    return where / LABELS


def write_box(target: Path, info: VolumeInfo, box: Box, array: NDArray[Any]) -> None:
    """Write the voxels of a box of a volume as a volume of their own, which knows where it lies."""
    made = info.with_(shape=box.shape, grid=info.grid.crop(box), chunks=None)
    with staged(target, overwrite=True) as folder:
        create_volume(folder, made).write(made.box, array)
