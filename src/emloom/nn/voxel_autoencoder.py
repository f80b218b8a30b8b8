"""An autoencoder around a centre-voxel backbone: a window of voxels as one vector, so that the backbone learns.

::

    x [N, 1, P, P, P] ── backbone ── [N, F, k, k, k] ── flat ──┬── mean ──┬── z ── decoder ── [N, 1, P, P, P]
                                                               └── logvar ┘

The decoder ``upsample`` starts from z as the channels of one position and doubles it until it is a window, each
time by repetition and two convolutions (kernel 3, batch norm, GELU); a last convolution makes the grey value.
``linear`` is one matrix from z to the voxels of the window.

*Variational* (Kingma & Welling 2014, arXiv:1312.6114), z is drawn, ``mean + exp(logvar / 2) * eps``, see
`emloom.nn.variational.Posterior`; else z is the mean, and there is no logvar. A corruption `hidden_centre` with
``counts: all`` makes it a masked one. What is to be kept of it is the backbone, whose weights have the names of
those of a `voxel_net`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.nn.layers import draw_weights
from emloom.nn.tilesize import TileRule
from emloom.nn.variational import Posterior, VariationalAnswer
from emloom.nn.voxelnets import VoxelNetSpec
from emloom.spec import Spec

_MAPS = (256, 128, 64, 32, 16)


class VoxelAutoencoderSpec(Spec):
    """The shape of an autoencoder around a centre-voxel backbone."""

    kind: Literal["voxel_autoencoder"] = "voxel_autoencoder"
    encoder: VoxelNetSpec = VoxelNetSpec()
    """The net whose backbone is to learn."""
    patch_vox: int = Field(default=32, ge=2)
    """Side of the window: of `upsample`, a power of 2."""
    n_latent: int = Field(default=512, ge=1)
    """Numbers that stand for a window."""
    variational: bool = True
    """Whether latents are distributions."""
    decoder: Literal["upsample", "linear"] = "upsample"
    maps: tuple[int, ...] = _MAPS
    """Of `upsample`: maps after each doubling."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.encoder.planar:
            raise ValueError(
                f"the window is a cube of {self.patch_vox} voxels, and a planar {self.encoder.backbone} looks at "
                "single sections: leave `planar` out, or let the planar net learn from a `hidden_centre` by itself"
            )
        if self.decoder == "upsample" and (2 ** len(self.maps) != self.patch_vox or min(self.maps, default=0) < 1):
            raise ValueError(
                f"{len(self.maps)} doublings, to maps {self.maps}, make a window of {2 ** len(self.maps)} voxels, "
                f"not of {self.patch_vox}: name one number of maps, at least 1, for each doubling, "
                "e.g. 256, 128, 32, 16 for a window of 16, or use the linear decoder"
            )
        return self


class Upsample(nn.Sequential):
    """One position of `n_in` channels to a window: ``[N, n_in, 1, 1, 1]`` -> ``[N, channels, P, P, P]``.

    Args:
        n_in: channels of the position.
        maps: after each doubling.
        channels: of the answer.
    """

    def __init__(self, n_in: int, maps: tuple[int, ...], channels: int = 1) -> None:
        layers: list[nn.Module] = []
        before = n_in
        for n in maps:
            layers += [nn.Upsample(scale_factor=2), *_unit(before, n), *_unit(n, n)]
            before = n
        last = nn.Conv3d(before, channels, 3, padding=1)
        draw_weights(last, 1)
        super().__init__(*layers, last)


class VoxelAutoencoder(nn.Module):
    """An autoencoder of windows, variational or not.

    Args:
        spec: its shape.

    Raises:
        InputError: the window is too small for the backbone.
    """

    def __init__(self, spec: VoxelAutoencoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = spec.encoder.build_backbone(1)
        side = spec.patch_vox
        features = _features(self.backbone, side)
        self.mean = _linear(features, spec.n_latent)
        if spec.variational:
            self.logvar = nn.Linear(features, spec.n_latent)
            nn.init.zeros_(self.logvar.weight)  # all variances start at 1
            nn.init.zeros_(self.logvar.bias)
        if spec.decoder == "upsample":
            self.decoder: nn.Module = Upsample(spec.n_latent, spec.maps)
        else:
            window = nn.Unflatten(1, (1, side, side, side))
            self.decoder = nn.Sequential(nn.Flatten(), _linear(spec.n_latent, side**3), window)

    @property
    def rule(self) -> TileRule:
        """Which tiles fit: the window."""
        side = self.spec.patch_vox
        return TileRule((side, side, side), (0, 0, 0))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor | VariationalAnswer:
        """Return the reconstruction, and the posterior of a variational net: from a draw while training.

        Args:
            x: ``[N, 1, P, P, P]``.
            generator: of the draw; None: torch's global generator.

        Raises:
            InputError: the tile is no window.
        """
        if not self.spec.variational:
            return self.decode(self.latent(x))
        posterior = self.posterior(x)
        return VariationalAnswer(
            self.decode(posterior.sample(generator) if self.training else posterior.mu), posterior
        )

    def posterior(self, x: Tensor) -> Posterior:
        """Return the distribution of the latents, each ``[N, n_latent, 1, 1, 1]``; of a variational net."""
        features = self._flat(x)
        return Posterior(_position(self.mean(features)), _position(self.logvar(features)))

    def latent(self, x: Tensor) -> Tensor:
        """Return the (mean of the) latents, ``[N, n_latent, 1, 1, 1]``; raises `InputError` as ``forward``."""
        return _position(self.mean(self._flat(x)))

    def decode(self, latent: Tensor) -> Tensor:
        """Return windows ``[N, 1, P, P, P]`` of latents ``[N, n_latent, 1, 1, 1]``."""
        out: Tensor = self.decoder(latent)
        return out

    def imagine(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return windows ``[count, 1, P, P, P]`` decoded from draws of N(0, 1); in ``eval`` mode.

        Args:
            count: how many, at least 1.
            generator: of the draws, made on its device; None: torch's global generator.
        """
        like = self.mean.weight.new_zeros(count, self.spec.n_latent, 1, 1, 1)
        return self.decode(Posterior(like, like).sample(generator))

    def _flat(self, x: Tensor) -> Tensor:
        self.rule.check(x.shape[2:])
        features: Tensor = self.backbone(x)
        return features.flatten(1)


def _unit(n_in: int, n_out: int) -> list[nn.Module]:
    conv = nn.Conv3d(n_in, n_out, 3, padding=1)
    draw_weights(conv, 0)
    return [conv, nn.BatchNorm3d(n_out), nn.GELU()]


def _linear(n_in: int, n_out: int) -> nn.Linear:
    matrix = nn.Linear(n_in, n_out)
    nn.init.normal_(matrix.weight, std=n_in**-0.5)
    nn.init.zeros_(matrix.bias)
    return matrix


def _position(numbers: Tensor) -> Tensor:
    return numbers[..., None, None, None]


def _features(backbone: nn.Module, side: int) -> int:
    """Return how many numbers a backbone makes of a window, without computing any."""
    try:
        with torch.no_grad():
            made = deepcopy(backbone).to("meta")(torch.empty(2, 1, side, side, side, device="meta"))
    except RuntimeError:
        raise InputError(
            f"a window of {side} voxels is smaller than what the backbone sees: choose a larger patch_vox"
        ) from None
    return int(made[0].numel())
