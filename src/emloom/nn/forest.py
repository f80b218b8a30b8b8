"""A random forest where prediction expects a network: features of voxels in, shares of classes out.

It computes on the processor, whatever the device, and stores ``floor(255 * share + 0.5)``: the same bits for any
tile, since neither features nor trees look at more than `context`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.box import as_vec
from emloom.geometry.grid import Vec3
from emloom.io.volume import VolumeInfo
from emloom.nn.forestspec import ForestSpec
from emloom.ops.forest import Trees, check_trees, class_shares, no_trees
from emloom.ops.threads import Threads
from emloom.ops.voxelfeatures import FeatureSet

F32 = NDArray[np.float32]

_TREES = "tree_"  # before the names of the tables of the trees
_BESIDE = "importances"


class Forest(nn.Module):
    """A forest with the properties of a `DenseNet`; untrained it has no tree, and refuses to answer.

    Args:
        spec: what it looks at.
        head: name of its answer.
        n_classes: channels of its answer.
        voxel_size_nm: (z, y, x) of the raw.

    Raises:
        InputError: the features do not exist at this voxel size.
    """

    importances: Tensor

    def __init__(self, spec: ForestSpec, head: str, n_classes: int, voxel_size_nm: Vec3) -> None:
        super().__init__()
        self.features: FeatureSet = spec.features.of(voxel_size_nm)
        self.channels: Mapping[str, int] = {head: n_classes}
        self.trees = no_trees(n_classes)
        self._remember(self.trees, np.zeros(len(self.features.names), np.float32))

    @property
    def lattice(self) -> Vec:
        """Tiles are multiples of this, for the sake of round shapes."""
        return (1, 16, 16)

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that an answer needs to see around it."""
        return self.features.reach_vox

    @property
    def tile_dependent(self) -> bool:
        """No answer depends on the tile around it."""
        return False

    def output_shape(self, input_shape: Sequence[int]) -> Vec:
        """Return the voxels that are inside of the context; raises `InputError` where there are none."""
        shape = as_vec([n - 2 * c for n, c in zip(input_shape, self.context, strict=True)])
        if min(shape) < 1:
            raise InputError(f"{tuple(input_shape)} voxels have none that is {self.context} from every face")
        return shape

    def input_shape(self, min_output_shape: Sequence[int]) -> Vec:
        """Return the input (z, y, x) of this output."""
        return as_vec([n + 2 * c for n, c in zip(min_output_shape, self.context, strict=True)])

    def peak_bytes(self, input_shape: Sequence[int]) -> int:
        """Return an estimate of the memory that one tile takes in prediction."""
        shape = as_vec([n - 2 * c for n, c in zip(input_shape[-3:], self.context, strict=True)])
        (classes,) = self.channels.values()
        return self.features.peak_bytes(shape) + 12 * classes * shape[0] * shape[1] * shape[2]

    def grow(self, trees: Trees, importances: F32) -> None:
        """Take over trees that were grown on its features, and how much each feature mattered.

        Raises:
            InputError: the trees are broken, or of other features or classes.
        """
        (classes,) = self.channels.values()
        check_trees(trees, len(self.features.names), classes)
        if importances.shape != (len(self.features.names),):
            raise InputError(
                f"{importances.shape} importances of {len(self.features.names)} features: train again"
            )
        self.trees = trees
        self._remember(trees, importances)

    def shares(self, raw_ZYX: F32, threads: int = 1) -> F32:
        """Return the shares of the classes, float32 [K, Z, Y, X], of normalised raw without its outer `context`.

        Raises:
            InputError: it was not trained, or there is nothing inside of the context.
        """
        if not len(self.trees.roots):
            raise InputError("the forest has no tree yet: train it first")
        with Threads(threads) as crew:
            try:
                features = self.features.compute(raw_ZYX, crew)
            except ValueError as problem:
                raise InputError(str(problem)) from None
            found = class_shares(features.reshape(len(features), -1), self.trees, crew)
        return found.reshape(len(found), *features.shape[1:])

    def interior(self, x: Tensor) -> dict[str, Tensor]:
        """Return logarithms of shares ``[N, K, Z, Y, X]``, of which a softmax gives the shares."""
        (head,) = self.channels
        with np.errstate(divide="ignore"):
            found = [np.log(self.shares(one[0].cpu().numpy())) for one in x]
        return {head: torch.from_numpy(np.stack(found))}

    def _remember(self, trees: Trees, importances: F32) -> None:
        named = {_TREES + name: table for name, table in trees._asdict().items()}
        for name, array in {**named, _BESIDE: importances}.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Take over trees of whatever number, which torch's own way of loading would refuse."""
        missing, errors = rest[2], rest[4]
        names = [*(_TREES + name for name in Trees._fields), _BESIDE]
        missing += [name for name in names if prefix + name not in state_dict]
        if missing:
            return
        *tables, importances = (state_dict[prefix + name].numpy() for name in names)
        try:
            self.grow(Trees(*tables), importances)
        except InputError as problem:
            errors.append(str(problem))


def require_reach(forest: Forest, raw: VolumeInfo) -> None:
    """Raise `InputError` where features look further than a volume is long: at nothing but its mirror images."""
    for axis, reach, extent in zip("zyx", forest.context, raw.shape, strict=True):
        if reach >= extent:
            raise InputError(
                f"the features reach {reach} voxels along {axis}, and {raw.source} has {extent}: train with "
                "smaller sigmas (features.sigmas_nm), or within sections (features.dimensions: 2)"
            )


class ForestBackend:
    """Computes stored values of normalised raw with a forest.

    Args:
        forest: the forest.
        threads: of the processor, at most.
    """

    def __init__(self, forest: Forest, threads: int) -> None:
        self.name = "forest"
        self._forest, self._threads = forest, threads

    def __call__(self, x: Tensor) -> dict[str, NDArray[Any]]:
        """Return uint8 shares ``[K, Z, Y, X]`` by head of float32 ``[1, 1, Z, Y, X]``."""
        (head,) = self._forest.channels
        shares = self._forest.shares(x[0, 0].numpy(), self._threads)
        return {head: np.floor(shares * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)}
