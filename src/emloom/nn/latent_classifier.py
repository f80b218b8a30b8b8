"""Classes of a patch from its latent: what the artifact finder puts on a trained encoder.

All kernels are one voxel, so a classifier of patches gives a map of classes for the latents of a larger tile. It
answers with logits, one per class: `softmax` them for classes that exclude each other, `sigmoid` for those that do
not. Nothing here knows which loss follows.
"""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field, model_validator
from torch import Tensor, nn

from emloom.nn.layers import draw_weights
from emloom.spec import Spec

_SLOPE = 0.01  # of the leaky ReLU


class LatentClassifierSpec(Spec):
    """The shape of a classifier of latents."""

    n_latent: int = Field(default=2048, ge=1)
    """Numbers per position of the latent."""
    hidden: tuple[int, ...] = ()
    """Units of the layers between, e.g. (256, 24); none: a linear classifier."""
    n_out: int = Field(default=2, ge=1)
    """Classes."""

    @model_validator(mode="after")
    def _check(self) -> LatentClassifierSpec:
        if any(n < 1 for n in self.hidden):
            raise ValueError(f"hidden layers {self.hidden} need at least 1 unit each")
        return self

    @classmethod
    def three_layers(cls, n_out: int = 2) -> LatentClassifierSpec:
        """Return 2048 -> 256 -> 24 -> n_out, 0.53 M multiplications per patch."""
        return cls(hidden=(256, 24), n_out=n_out)


class LatentClassifier(nn.Module):
    """Convolutions of one voxel: ``[N, n_latent, Z, Y, X]`` -> logits ``[N, n_out, Z, Y, X]``.

    Args:
        spec: the shape of the classifier.
    """

    def __init__(self, spec: LatentClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        sizes = (spec.n_latent, *spec.hidden, spec.n_out)
        layers: list[nn.Module] = []
        for index, (n_in, n_out) in enumerate(pairwise(sizes)):
            last = index == len(spec.hidden)
            conv = nn.Conv3d(n_in, n_out, 1)
            draw_weights(conv, 1 if last else _SLOPE)
            layers += [conv] if last else [conv, nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the logits."""
        out: Tensor = self.layers(latent)
        return out
