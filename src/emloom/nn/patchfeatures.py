"""Features of patches: what a detector that is not trained end to end looks at.

One function computes them for fitting and for prediction, with the checkpoint's preprocessing, in ``eval`` and
``inference_mode`` (law 5). Of each of N patches P positions, of each D numbers, float32 ``[N, P, D]``::

    pixels    [N, 1, 16]          statistics of the grey values; needs no model: what any model has to beat
    latent    [N, 1, D]           what the encoder reduces a patch to
    levels    [N, cells^2, D]     maps of some levels of the encoder, averaged over cells of the patch
    error     [N, 1, 1]           mean squared error of the reconstruction, or of its high frequencies

Patches are computed one by one, so their numbers do not depend on company or order, bit for bit. Those of a
lattice whose step is a multiple of the encoder's stride can share a tile (`PatchFeatures.of_lattice`), many
times faster and the same up to rounding. Patches may leave the volume, which is mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from emloom.errors import InputError
from emloom.geometry import Box, Vec, cells
from emloom.geometry.lattice import Lattice
from emloom.io.volume import Volume, read_padded
from emloom.nn.backends import evaluating
from emloom.nn.model import ModelSpec, Network
from emloom.nn.patchencoders import LevelMap, PatchEncoder, patch_encoder
from emloom.nn.patchpredict import require_evaluating
from emloom.nn.preprocess import Preprocessing
from emloom.spec import Spec

F32 = NDArray[np.float32]
Progress = Callable[[int, int], None]

_TILE = 1024  # voxels along y and x that the patches of a tile are spread over, about
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_SCALES = (1.0, 2.0, 4.0)  # voxels, of the blurs whose differences are measured


class PixelFeatures(Spec):
    """Statistics of the grey values of a patch.

    Mean, standard deviation, seven quantiles; mean size of the differences along y and x; standard deviation of
    what blurs of 1, 2 and 4 voxels take away and leave, and the largest and smallest of the strongest blur.
    """

    kind: Literal["pixels"] = "pixels"


class LatentFeatures(Spec):
    """The latent: of a patch net its vector; of a net of levels mean and largest of the deepest maps."""

    kind: Literal["latent"] = "latent"


class LevelFeatures(Spec):
    """Maps of levels, each averaged over cells."""

    kind: Literal["levels"] = "levels"
    levels: tuple[int, ...] = Field(default=(2, 3), min_length=1)
    """Which, the first is at full resolution; middle ones see texture, not a net's own task."""
    cells: int = Field(default=4, ge=1)
    """Cells along y and x of a patch: positions are its square."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.levels) < 1 or len(set(self.levels)) < len(self.levels):
            raise ValueError(f"levels {self.levels} are counted from 1, each once")
        return self


class ErrorFeatures(Spec):
    """What an autoencoder does not give back of a patch, on the scale of its preprocessing."""

    kind: Literal["error"] = "error"
    high_pass_nm: float | None = Field(default=None, gt=0)
    """Count only differences finer than about this: less a Gaussian blur of this standard deviation, within
    sections. None: all."""


FeatureSpec = Annotated[
    PixelFeatures | LatentFeatures | LevelFeatures | ErrorFeatures, Field(discriminator="kind")
]
"""What is looked at."""


class PatchFeatures:
    """Features of patches of one shape; see the module.

    Args:
        spec: which.
        shape: voxels (z, y, x) of a patch.
        model: spec and network of a checkpoint; None: only `pixels` can be computed.
        preprocessing: of pixels without a model.
        device: a torch device; the network is moved there.

    Raises:
        InputError: the features need a model, or another one, or levels that it does not have.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        shape: Vec,
        model: tuple[ModelSpec, Network] | None = None,
        preprocessing: Preprocessing | None = None,
        device: str = "cpu",
    ) -> None:
        self.spec, self.shape, self.device = spec, shape, torch.device(device)
        self.preprocessing = model[0].preprocessing if model else preprocessing or Preprocessing()
        self._network: Network | None = None
        self._encoder: PatchEncoder | None = None
        if isinstance(spec, PixelFeatures):
            return
        if model is None:
            raise InputError(f"features {spec.kind!r} are those of a model: name its checkpoint, or take `pixels`")
        self._network = model[1].to(self.device)
        self._encoder = patch_encoder(*model, shape)
        if isinstance(spec, LevelFeatures) and max(spec.levels) > self._encoder.n_levels:
            raise InputError(
                f"level {max(spec.levels)} is asked for, and the encoder has levels 1 to "
                f"{self._encoder.n_levels}: name some of them"
            )

    def of(self, raw: Volume, starts: NDArray[np.int64], progress: Progress | None = None) -> F32:
        """Return the features of patches, float32 [N, P, D].

        Args:
            raw: ``zyx`` volume.
            starts: int64 [N, 3], first voxel (z, y, x) of every patch.
            progress: called after every patch with (done, in all).

        Raises:
            InputError: there is no patch, the volume has channels, or it holds NaN or infinity.
        """
        if not len(starts):
            raise InputError("there is no patch to compute features of: give at least one")
        rows = []
        with self._ready():
            for done, (z, y, x) in enumerate(starts.tolist(), start=1):
                rows.append(self._tile(raw, Box((z, y, x), self.shape), self.shape[1:]))
                if progress is not None:
                    progress(done, len(starts))
        return _finite(np.concatenate(rows))

    def of_lattice(self, raw: Volume, lattice: Lattice, indices: Box) -> F32:
        """Return the features of a box of patches of a lattice, float32 [N, P, D], in the order of
        `Lattice.starts`.

        Raises:
            InputError: as `of`, or the lattice is of patches of another shape.
        """
        if lattice.shape != self.shape:
            raise InputError(f"the lattice is of patches of {lattice.shape} voxels, the features of {self.shape}")
        step = lattice.stride[1:]
        shared = self._encoder is not None and not isinstance(self.spec, ErrorFeatures)
        if not shared or any(n % m for n, m in zip(step, self._stride(), strict=True)):
            return self.of(raw, lattice.starts(indices))
        if indices.is_empty:
            raise InputError(f"{indices} holds no patch to compute features of: give at least one")
        parts: list[tuple[Box, F32]] = []
        with self._ready():
            for _, cell in cells(indices, (1, max(1, _TILE // step[0]), max(1, _TILE // step[1]))):
                parts.append((cell, self._tile(raw, _tile_of(lattice, cell), step)))
        found = np.empty((*indices.shape, *parts[0][1].shape[1:]), np.float32)
        for cell, rows in parts:
            found[cell.slices(indices.start)] = rows.reshape(*cell.shape, *rows.shape[1:])
        return _finite(found.reshape(-1, *found.shape[3:]))

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Hold the network, if there is one, in ``eval``, in float32, without gradients."""
        if self._network is None:
            yield
            return
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with evaluating(self._network), torch.inference_mode(), exact:
            require_evaluating(self._network)
            yield

    def _stride(self) -> tuple[int, int]:
        return (1, 1) if self._encoder is None else self._encoder.stride

    def _tile(self, raw: Volume, tile: Box, step: tuple[int, int]) -> F32:
        """Return the features of the patches of a tile, row by row, [N, P, D]."""
        if raw.info.channels is not None:
            raise InputError(f"{raw.info.source} is {raw.info.axes}: patches are those of a zyx volume of raw")
        spec, encoder = self.spec, self._encoder
        seen = self.preprocessing(read_padded(raw, tile if encoder is None else encoder.to_read(tile)))
        if isinstance(spec, PixelFeatures) or encoder is None:
            return pixel_statistics(seen)[None, None]
        shown = torch.from_numpy(np.ascontiguousarray(seen)).to(self.device)
        if isinstance(spec, ErrorFeatures):
            back = encoder.reconstruction(shown, tile.shape).float().cpu().numpy()
            inside = self.preprocessing(read_padded(raw, tile))
            return _error(back - inside, spec.high_pass_nm, raw.info.grid.voxel_size_nm)
        if isinstance(spec, LatentFeatures):
            found = encoder.latents(shown, tile.shape, step)[:, :, None]
        else:
            levels = encoder.levels(shown, tile.shape)
            found = torch.cat([_cells(levels[n - 1], step, spec.cells) for n in spec.levels], dim=3)
        rows: F32 = found.flatten(0, 1).float().cpu().numpy()
        return rows


def pixel_statistics(patch_ZYX: F32) -> F32:
    """Return the statistics of `PixelFeatures`, float32 [16], of grey values of one patch."""
    x = patch_ZYX.astype(np.float64)
    found = [x.mean(), x.std(), *np.quantile(x, _QUANTILES)]
    found += [np.abs(np.diff(x, axis=axis)).mean() if x.shape[axis] > 1 else 0.0 for axis in (1, 2)]
    left = x
    for scale in _SCALES:
        blurred = ndimage.gaussian_filter(x, (0, scale, scale))
        found.append((left - blurred).std())
        left = blurred
    return np.array([*found, left.max(), left.min()], np.float32)


def _cells(level: LevelMap, step: tuple[int, int], cells: int) -> Tensor:
    """Return means over cells, ``[Y', X', cells^2, C]``."""
    windows = level.windows(step).mean(dim=3)
    pooled = functional.adaptive_avg_pool2d(windows.flatten(0, 1), cells).flatten(2)
    return pooled.transpose(1, 2).reshape(*windows.shape[:2], cells**2, -1)


def _error(difference_ZYX: F32, high_pass_nm: float | None, voxel_size_nm: tuple[float, float, float]) -> F32:
    """Return the mean square, [1, 1, 1]."""
    difference = difference_ZYX.astype(np.float64)
    if high_pass_nm is not None:
        sigma = (0.0, high_pass_nm / voxel_size_nm[1], high_pass_nm / voxel_size_nm[2])
        difference = difference - ndimage.gaussian_filter(difference, sigma)
    return np.full((1, 1, 1), np.square(difference).mean(), np.float32)


def _tile_of(lattice: Lattice, cell: Box) -> Box:
    """Return the voxels of the patches of a box of indices in one section."""
    z, y, x = lattice.starts_of(np.array([cell.start]))[0].tolist()
    extents = zip(lattice.stride[1:], cell.shape[1:], lattice.shape[1:], strict=True)
    rows, columns = (step * (n - 1) + size for step, n, size in extents)
    return Box((z, y, x), (lattice.shape[0], rows, columns))


def _finite(features: NDArray[Any]) -> F32:
    if not np.isfinite(features).all():
        raise InputError(
            "the network answers with NaN or infinity: its weights diverged; use an earlier checkpoint"
        )
    return features.astype(np.float32, copy=False)
