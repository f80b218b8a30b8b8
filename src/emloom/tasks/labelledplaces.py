"""What is labelled already: where, and how many voxels of every class.

Of `labels.yaml`, planes and blocks are read; of a volume, the bounding box of what is labelled in each of its
blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from emloom.errors import InputError
from emloom.geometry import Box, Vec, cells
from emloom.io.checks import require_labels
from emloom.io.open import open_volume
from emloom.io.volume import ArrayVolume, Volume
from emloom.ops.decide import UNDECIDED
from emloom.tasks.lattice import start_in
from emloom.tasks.slicecounts import in_plane

_READ = (32, 128, 128)


@dataclass(frozen=True)
class Labelled:
    """What is labelled.

    Attributes:
        boxes: that hold it, in voxels of the prediction; they may lie outside it.
        voxels: labelled voxels of every class.
        values: what stands for every class in the labels.
    """

    boxes: tuple[Box, ...]
    voxels: tuple[int, ...]
    values: tuple[int, ...]


def labelled_places(path: str | None, predicted: Volume, raw: Volume, names: Sequence[str]) -> Labelled:
    """Return what is labelled.

    Args:
        path: a `labels.yaml` of pieces, or a volume of labels: class 0 is 0, and 255 is unknown; None: nothing.
        predicted: the probabilities.
        raw: the raw volume; pieces are placed on it.
        names: of the classes.

    Raises:
        InputError: it cannot be read, or is of another grid, or of other classes.
    """
    first = tuple(range(1, len(names) + 1))  # 0 is undefined
    if path is None:
        return Labelled((), (0,) * len(names), first)
    if Path(path).suffix.lower() in (".yaml", ".yml"):
        return _Pieces(Path(path), predicted, raw, names).read()
    volume = open_volume(path, kind="labels")
    require_labels(volume)
    values = {number: number for number in range(len(names))}
    start = start_in(volume, predicted)
    boxes, voxels = _boxes(volume, start, values, (UNDECIDED,))
    return Labelled(boxes, tuple(voxels.tolist()), first)


@dataclass(frozen=True)
class _Pieces:
    """A file of pieces."""

    path: Path
    predicted: Volume
    raw: Volume
    names: Sequence[str]

    def read(self) -> Labelled:
        words = self._words()
        classes = self._classes(words.get("classes"))
        boxes: list[Box] = []
        voxels = np.zeros(len(self.names), np.int64)
        z, y, x = start_in(self.raw, self.predicted)
        for place, piece in enumerate(words["pieces"], start=1):
            try:
                volume, start = self._volume(piece)
                undefined = tuple(piece.get("undefined", (0,)))
            except (KeyError, TypeError, ValueError, OSError) as problem:
                raise InputError(f"{self.path}: piece {place} cannot be read: {problem!r}") from None
            found, counts = _boxes(volume, (start[0] + z, start[1] + y, start[2] + x), classes, undefined)
            boxes += found
            voxels += counts
        values = {number: value for value, number in reversed(classes.items())}
        return Labelled(tuple(boxes), tuple(voxels.tolist()), tuple(values[k] for k in range(len(self.names))))

    def _words(self) -> dict[str, Any]:
        try:
            words = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
            raise InputError(f"{self.path} cannot be read: {problem}") from None
        if not isinstance(words, dict) or not isinstance(words.get("pieces"), list):
            raise InputError(f"{self.path} has no `pieces`: give a labels.yaml, or a volume of labels")
        return words

    def _classes(self, said: Any) -> dict[int, int]:
        """Return value -> number of its class."""
        if said is None:
            return {number + 1: number for number in range(len(self.names))}
        missing = [name for name in self.names if name not in said]
        if missing:
            raise InputError(
                f"{self.path} has no value for {', '.join(missing)} (it has: {', '.join(said)}): name classes as "
                "the model does, or name those of the model as the labels do (--names)"
            )
        return {
            int(value): self.names.index(name)
            for name, values in said.items()
            if name in self.names
            for value in (values if isinstance(values, list) else [values])
        }

    def _volume(self, piece: Mapping[str, Any]) -> tuple[Volume, Vec]:
        """Return the labels of a piece, and their first voxel in the raw."""
        if piece["kind"] == "plane":
            with Image.open(self.path.parent / piece["image"]) as image:
                painted = np.asarray(image)
            axis = "zyx".index(piece.get("axis", "z"))
            painted = painted.T if piece.get("transpose") else painted
            rows, columns = piece.get("start", (0, 0))
            start = [0, 0, 0]
            start[axis] = piece["at"]
            start[in_plane(axis)[0]], start[in_plane(axis)[1]] = rows, columns
            return ArrayVolume(np.expand_dims(painted, axis), self.raw.info.grid), (start[0], start[1], start[2])
        if piece["kind"] == "block":
            volume = open_volume(str(self.path.parent / piece["labels"]), kind="labels")
            z, y, x = piece.get("start") or start_in(volume, self.raw)
            return volume, (z, y, x)
        raise InputError(f"{self.path}: pieces of kind {piece['kind']!r} are not looked at yet: leave them out")


def _boxes(
    volume: Volume, start: Vec, classes: Mapping[int, int], undefined: Sequence[int]
) -> tuple[tuple[Box, ...], NDArray[np.int64]]:
    """Return the bounding boxes of what is labelled in every block, shifted, and the voxels of every class."""
    counts = np.zeros(max(classes.values()) + 1, np.int64)  # every class has a value
    found = []
    for _, part in cells(volume.info.box, _READ):
        labels = volume.read(part)
        values, where, n = np.unique(labels, return_inverse=True, return_counts=True)
        for value, many in zip(values.tolist(), n.tolist(), strict=True):
            if value in classes and value not in undefined:
                counts[classes[value]] += many
        known = np.isin(values, list(set(classes) - set(undefined)))[where].reshape(labels.shape)
        at = np.argwhere(known)
        if len(at):
            low, high = at.min(axis=0) + part.start, at.max(axis=0) + 1 + part.start
            found.append(Box.of(low.tolist(), high.tolist()).shift(start))
    return tuple(found), counts
