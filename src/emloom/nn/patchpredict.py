"""Prediction of patches: a trained classifier over a lattice of a volume of any size, tile by tile.

Tiles lie on the lattice that the volume's map has (`emloom.geometry.lattice`), every one with the same number of
patches and, where it leaves the volume, mirrored voxels around: what is said of a patch depends on the raw alone,
not on the block, worker or run that says it::

    map voxel           |  0  |  1  |  2  |  3  |      one per `step` voxels of a section, all of it covered
    patch of voxel 1    [───────╳───────]              centred on it

The first tile begins with the lattice, so on one machine a map has the same bits for any division into blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.lattice import Lattice
from emloom.io.volume import Volume, VolumeInfo, read_padded
from emloom.nn.backends import evaluating
from emloom.nn.patchnet import PatchNet
from emloom.nn.preprocess import Preprocessing

_TILE = 1024  # voxels along y and x that the patches of a tile are spread over, about

Logits = NDArray[np.float32]


def lattice_over(patch: Vec, step: int) -> Lattice:
    """Return the lattice of patches whose map covers a volume, one patch per `step` voxels along y and x.

    Where patch and step differ by an odd number, the map begins half a voxel before the volume.
    """
    origin = [(step - n) // 2 for n in patch[1:]]
    return Lattice(patch, (1, step, step), (0, origin[0], origin[1]))


def map_shape(shape: Vec, lattice: Lattice) -> Vec:
    """Return the voxels of a map that covers a volume of a shape."""
    z, y, x = (-(-n // step) for n, step in zip(shape, lattice.stride, strict=True))
    return (z, y, x)


class PatchPredictor:
    """A classifier of patches ready to answer: raw voxels in, logits out.

    It owns evaluation: every call runs in ``eval`` and ``inference_mode``, in float32, and makes sure that no part
    of the network is in training: the fault that made a detector of 98 % precision one of 7 %.

    Args:
        net: the network; it is moved to the device.
        preprocessing: that of the checkpoint.
        step: voxels along y and x from patch to patch.
        device: a torch device.
    """

    def __init__(self, net: PatchNet, preprocessing: Preprocessing, step: int = 32, device: str = "cpu") -> None:
        self.net = net.to(device)
        self.preprocessing = preprocessing
        self.lattice = lattice_over(net.spec.patch, step)
        self.device = torch.device(device)
        self.longest = max(1, _TILE // step)
        """Patches along y and x of one tile, at most."""

    def tile(self, raw: VolumeInfo) -> tuple[int, int]:
        """Return the patches along y and x of a tile of a volume."""
        _, rows, columns = map_shape(raw.shape, self.lattice)
        return min(self.longest, rows), min(self.longest, columns)

    def map(self, raw: Volume, box: Box) -> Logits:
        """Return the logits of all patches of a box of the map, float32 ``[C, Z, Y, X]``.

        Args:
            raw: ``zyx`` volume.
            box: voxels of the map.

        Raises:
            InputError: the raw holds NaN or infinite values, or the network answers with them.
        """
        (channels,) = self.net.channels.values()
        out = np.empty((channels, *box.shape), np.float32)
        rows, columns = self.tile(raw.info)
        tiles = [
            (j, i)
            for j in range(box.start[1] // rows, -(-box.stop[1] // rows))
            for i in range(box.start[2] // columns, -(-box.stop[2] // columns))
        ]
        for j, i in tiles:
            tile = Box((box.start[0], j * rows, i * columns), (box.shape[0], rows, columns))
            part = tile.intersect(box)
            out[:, *part.slices(box.start)] = self._tile(raw, tile)[:, *part.slices(tile.start)]
        return out

    def patches(self, raw: Volume, starts: NDArray[np.int64]) -> Logits:
        """Return the logits of single patches, float32 ``[N, C]``: the slow way, against which maps are checked.

        Args:
            raw: ``zyx`` volume.
            starts: int64 [N, 3], first voxel of every patch; patches may leave the volume, which is mirrored.
        """
        answers = [self._one(raw, (int(z), int(y), int(x))) for z, y, x in starts]
        (channels,) = self.net.channels.values()
        return np.stack(answers) if answers else np.zeros((0, channels), np.float32)

    def _one(self, raw: Volume, start: Vec) -> Logits:
        patch = Box(start, self.net.spec.patch)
        seen = self._normalised(read_padded(raw, patch.grow((self.net.spec.sections // 2, 0, 0))))
        with evaluating(self.net), torch.inference_mode(), _exact():
            answer = self.net(seen[None, None])[self.net.head]
        return _finite(answer.flatten().float().cpu().numpy())

    def _tile(self, raw: Volume, tile: Box) -> Logits:
        """Return the logits of a tile; sections are answered one by one, so that none changes another."""
        first = self.lattice.starts_of(np.array([tile.start]))[0].tolist()
        extents = zip(tile.shape, self.lattice.stride, self.lattice.shape, strict=True)
        extent = [step * (n - 1) + size for n, step, size in extents]
        reach, step = self.net.spec.sections // 2, self.lattice.stride[1]
        box = Box((first[0], first[1], first[2]), (extent[0], extent[1], extent[2])).grow((reach, 0, 0))
        seen = self._normalised(read_padded(raw, box))
        with evaluating(self.net), torch.inference_mode(), _exact():
            require_evaluating(self.net)
            sections = [self.net.dense(seen[z : z + 2 * reach + 1], step) for z in range(tile.shape[0])]
        return _finite(torch.cat(sections, dim=1).float().cpu().numpy())

    def _normalised(self, raw_ZYX: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.preprocessing(raw_ZYX))).to(self.device)


def require_evaluating(net: torch.nn.Module) -> None:
    """Raise `RuntimeError` where a part of a network is in training: it would answer by its batch."""
    wrong = [name or "the network" for name, part in net.named_modules() if part.training]
    if wrong:
        raise RuntimeError(f"{wrong[0]} is in training while it predicts: call eval()")


def _exact() -> Any:
    """Return a context in which a GPU multiplies in full float32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _finite(logits: Logits) -> Logits:
    if not np.isfinite(logits).all():
        raise InputError(
            "the network answers with NaN or infinity: its weights diverged; use an earlier checkpoint"
        )
    return logits
