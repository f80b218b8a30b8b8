"""The convolutional variational autoencoder: a distribution of latents for every patch.

Kingma & Welling 2014 (arXiv:1312.6114), on the latent of a `MultiResolutionAutoencoder`, which two convolutions
with kernels of one voxel turn into the mean and the log-variance of independent normal distributions::

    x ── encoder ──┬── mu ────────────────── z = mu + exp(logvar / 2) * eps ── decoder ── reconstruction
                   └── logvar ──────────────┘            eps ~ N(0, 1)

``loss = reconstruction error + weight * KL``, with a weight that grows from 0 (`kl_weight`), for else the quickest
way down is to say nothing: mu = 0, logvar = 0. The weights of logvar start at 0, so that all variances start at 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.nn.layers import draw_weights
from emloom.nn.multires_autoencoder import MultiResolutionAutoencoder, MultiResolutionSpec
from emloom.nn.tilesize import TileRule
from emloom.spec import Spec


class VariationalSpec(Spec):
    """The shape of a variational autoencoder."""

    kind: Literal["variational_autoencoder"] = "variational_autoencoder"
    network: MultiResolutionSpec = Field(default_factory=MultiResolutionSpec)
    """The autoencoder whose latent becomes a distribution, with skips or without."""


class Posterior(NamedTuple):
    """Independent normal distributions of latents.

    Attributes:
        mu: means, ``[N, n_latent, Z, Y', X']``.
        logvar: logarithms of the variances, of the same shape.
    """

    mu: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return a draw, ``mu + exp(logvar / 2) * eps``, through which gradients reach mu and logvar.

        Args:
            generator: of eps; it is drawn on the generator's device. None: torch's global generator.
        """
        return self.mu + torch.exp(self.logvar / 2) * _normal(self.mu, generator)

    def divergence(self) -> Tensor:
        """Return the Kullback-Leibler divergence to N(0, 1) of every sample, ``[N]``, in nats, never negative.

        Summed over latents: ``(mu^2 + exp(logvar) - 1 - logvar) / 2``.
        """
        mu, logvar = self.mu.float(), self.logvar.float()
        return (mu.square() + torch.expm1(logvar) - logvar).flatten(1).sum(dim=1) / 2


class VariationalAnswer(NamedTuple):
    """What a variational autoencoder says about a batch.

    Attributes:
        reconstruction: of the shape of the input.
        posterior: of the latents.
    """

    reconstruction: Tensor
    posterior: Posterior


class VariationalAutoencoder(nn.Module):
    """A variational autoencoder: float ``[N, C, Z, Y, X]`` to a reconstruction and a distribution of latents.

    Args:
        spec: the shape of the net.
    """

    def __init__(self, spec: VariationalSpec) -> None:
        super().__init__()
        self.spec = spec
        self.net = MultiResolutionAutoencoder(spec.network)
        n = spec.network.n_latent
        self.mu, self.logvar = nn.Conv3d(n, n, 1), nn.Conv3d(n, n, 1)
        draw_weights(self.mu, 1)
        nn.init.zeros_(self.logvar.weight)
        assert self.logvar.bias is not None
        nn.init.zeros_(self.logvar.bias)

    @property
    def rule(self) -> TileRule:
        """Which tiles fit: those of the autoencoder."""
        return self.net.rule

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> VariationalAnswer:
        """Return the reconstruction from a draw while training, from the mean in ``eval`` mode, and the posterior.

        Args:
            x: ``[N, C, Z, Y, X]``.
            generator: of the draw; None: torch's global generator.

        Raises:
            InputError: the tile does not fit, see `rule`.
        """
        self.rule.check(x.shape[2:])
        posterior = self.posterior(x)
        latent = posterior.sample(generator) if self.training else posterior.mu
        return VariationalAnswer(self.net.decode(latent), posterior)

    def posterior(self, x: Tensor) -> Posterior:
        """Return the distribution of the latents; raises `InputError` where the tile does not fit the encoder."""
        latent = self.net.latent(x)
        return Posterior(self.mu(latent), self.logvar(latent))

    def latent(self, x: Tensor) -> Tensor:
        """Return the mean of the latents; raises `InputError` where the tile does not fit the encoder."""
        return self.posterior(x).mu

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction from latents; raises `InputError` as `MultiResolutionDecoder` does."""
        return self.net.decode(latent)

    def imagine(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `count` patches ``[count, C, 1, patch, patch]`` decoded from draws of the prior, N(0, 1).

        In ``eval`` mode, that is: in training, batch norm would make the patches depend on each other.

        Args:
            count: how many.
            generator: of the draws; None: torch's global generator.

        Raises:
            InputError: `count` is less than 1.
        """
        if count < 1:
            raise InputError(f"{count} patches cannot be drawn: ask for at least 1")
        like = self.mu.weight.new_empty(count, self.spec.network.n_latent, 1, 1, 1)
        return self.decode(_normal(like, generator))


def kl_weight(step: int, warmup: int, final: float = 1.0) -> float:
    """Return the weight of the divergence in a step's loss: from 0 in a straight line to `final`, then constant.

    Args:
        step: steps done, from 0.
        warmup: steps until the weight is `final`; 0: at once.
        final: the weight then.

    Raises:
        InputError: a step, the warm-up or the weight is negative.
    """
    if step < 0 or warmup < 0 or final < 0:
        raise InputError(
            f"step {step}, warm-up {warmup} and final weight {final} of a schedule cannot be negative"
        )
    return final if step >= warmup else final * step / warmup


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return draws of N(0, 1) made on the generator's device: a seed gives the same wherever `like` lives."""
    if generator is None:
        return torch.randn_like(like)
    return torch.randn(like.shape, dtype=like.dtype, device=generator.device, generator=generator).to(like.device)
