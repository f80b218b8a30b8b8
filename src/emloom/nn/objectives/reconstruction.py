"""Reconstruction: a network gives back what it is shown, or what it was before it was spoiled.

* **input and target** — the target is the crop as the tissue is: turned, deformed and toned by augmentation,
  before anything *spoiled* it. What augmentation spoils (noise, blur, artifacts, lost sections), the network so
  learns to undo; without such effects it learns to give back its input. `corruption` spoils more, in validation
  too: blocks that are hidden (He et al. 2022, arXiv:2111.06377), a hidden centre, normal noise, or the counting
  noise of a smaller dose (Vincent et al. 2008, doi:10.1145/1390156.1390294).
* **head** — `reconstruction`, one channel, linear, in the units of preprocessing: -1 is `low`, +1 is `high`.
* **loss** — the mean over voxels of the squared (or absolute) difference; of hidden blocks only, where blocks are
  hidden, for the rest could be copied. A variational network adds ``weight * KL / voxels``, with a weight that
  grows from 0: with squared differences that is the negative evidence lower bound of voxels with normal noise of
  variance ``weight / 2``, up to a constant factor.
* **decode** — the answer is a grey value: prediction stores it in the type of the raw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.nn import corrupt
from emloom.nn.latents import principal_components
from emloom.nn.masked import aligned, masked_mean
from emloom.nn.objectives.base import Answers, Rendered, Sample, TargetTensors, Validated
from emloom.nn.reconstruct import RECONSTRUCTION, Reconstructor
from emloom.nn.reshape import crop
from emloom.nn.variational import Posterior, VariationalAutoencoder, kl_weight
from emloom.nn.voxel_autoencoder import VoxelAutoencoder
from emloom.spec import Spec

_IMAGINED = 16
_PRIOR_SEED = 0  # the same draws at every validation, to see them change
_COLOURS = 3


class HiddenBlocks(Spec):
    """Blocks of the input are hidden, and only they count."""

    kind: Literal["masked"] = "masked"
    fraction: float = Field(default=0.5, gt=0, lt=1)
    """Share of the blocks."""
    block_vox: Vec = (1, 16, 16)
    """Shape (z, y, x) of a block."""

    def __call__(self, clean: Tensor, shown: Tensor, generator: torch.Generator) -> corrupt.Corrupted:
        """Return the input with blocks hidden."""
        return corrupt.hide(shown, corrupt.block_mask(clean.shape, self.fraction, self.block_vox, generator))


class HiddenCentre(Spec):
    """The centre of the input is hidden, and guessed from what surrounds it: for nets that answer for a centre.

    Of the rest, some voxels are dropped as by `torch.nn.functional.dropout`: they are 0, here the grey between
    `low` and `high`, the others are divided by ``1 - dropout``. In validation, too, but not in prediction.
    """

    kind: Literal["hidden_centre"] = "hidden_centre"
    centre_vox: int = Field(default=1, ge=1)
    """Side of the cube that is asked for, exactly in the middle of the input."""
    pad_vox: int = Field(default=0, ge=0)
    """Voxels around it on each side that are hidden, too: the more, the less is a neighbour's copy."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the voxels that are dropped."""
    counts: Literal["centre", "all"] = "centre"
    """What is compared with the truth: the cube, or everything the network answers for (a masked autoencoder)."""

    def __call__(self, clean: Tensor, shown: Tensor, generator: torch.Generator) -> corrupt.Corrupted:
        """Return the input without its centre; raises `InputError` where the cube has no place in the middle."""
        hidden = corrupt.centre_mask(clean.shape, self.centre_vox + 2 * self.pad_vox)
        seen = corrupt.drop_out(corrupt.hide(shown, hidden).x, self.dropout, generator)
        if self.counts == "all":
            return corrupt.Corrupted(seen, torch.ones_like(clean))
        return corrupt.Corrupted(seen, corrupt.centre_mask(clean.shape, self.centre_vox).float())

    def require(self, shown: Sequence[int], answered: Sequence[int]) -> None:
        """Raise `InputError` where a net that answers for less than it is shown answers for more than the cube."""
        wanted = (self.centre_vox,) * 3
        if self.counts == "centre" and tuple(answered) not in (wanted, tuple(shown)):
            raise InputError(
                f"a hidden centre of {self.centre_vox} voxels is all that is asked for, and the network answers "
                f"for {tuple(answered)} of every sample: set crop_shape_vox to {wanted}"
            )


class GaussianNoise(Spec):
    """Independent normal noise is added to the input."""

    kind: Literal["gaussian"] = "gaussian"
    sigma: float = Field(gt=0)
    """Its standard deviation, in the units of preprocessing: half the range from `low` to `high` is 1."""

    def __call__(self, clean: Tensor, shown: Tensor, generator: torch.Generator) -> corrupt.Corrupted:
        """Return the noisy input."""
        return corrupt.add_gaussian(shown, self.sigma, generator)


class PoissonNoise(Spec):
    """The input is shown as fewer electrons would show it; `low` of the preprocessing is no electron at all."""

    kind: Literal["poisson"] = "poisson"
    quanta: float = Field(gt=0)
    """Expected electrons of a voxel with the grey value `high`."""

    def __call__(self, clean: Tensor, shown: Tensor, generator: torch.Generator) -> corrupt.Corrupted:
        """Return the noisy input; what is darker than `low` counts as `low`."""
        noisy, weight = corrupt.add_poisson((shown * 0.5 + 0.5).clamp(min=0), self.quanta, generator)
        return corrupt.Corrupted(noisy * 2 - 1, weight)


Corruption = Annotated[HiddenBlocks | HiddenCentre | GaussianNoise | PoissonNoise, Field(discriminator="kind")]


class DivergenceSpec(Spec):
    """How a variational network's loss weighs the divergence of its latents from N(0, 1)."""

    weight: float = Field(default=0.1, ge=0)
    """Twice the variance of the noise that voxels are taken to have, in the units of preprocessing."""
    warmup_steps: int = Field(default=1000, ge=0)
    """Steps until the weight is reached, from 0, in a straight line."""


class ReconstructionObjective(Spec):
    """Learn to give back what is shown."""

    needs_labels: ClassVar[bool] = False

    kind: Literal["reconstruction"] = "reconstruction"
    loss_kind: Literal["squared", "absolute"] = "squared"
    """Difference that is averaged over voxels."""
    corruption: Corruption | None = None
    """What makes the input harder than the target."""
    divergence: DivergenceSpec = DivergenceSpec()
    """Of variational networks; others have none."""

    @property
    def heads(self) -> dict[str, int]:
        """Output name -> number of channels."""
        return {RECONSTRUCTION: 1}

    def context_vox(self, grid: Grid) -> Vec:
        """Return how far beyond a voxel its target looks: nowhere."""
        return (0, 0, 0)

    def surround_vox(self, grid: Grid) -> Vec:
        """Return how far beyond the input it wants to see the raw: nowhere."""
        return (0, 0, 0)

    def sample(self, made: Rendered, grid: Grid) -> Sample:
        """Return (input ``[1, Z, Y, X]``, the target of the output and where it counts)."""
        shown, clean = (torch.from_numpy(each[None, None]) for each in (made.raw, made.clean))
        weight = torch.ones_like(clean)
        if isinstance(self.corruption, HiddenCentre):
            self.corruption.require(made.raw.shape, made.output.shape)
        if self.corruption is not None:
            generator = torch.Generator().manual_seed(made.seed)
            shown, weight = self.corruption(clean, shown, generator)
        # Nets without padding answer for less than they are shown.
        margin = _vec((n - o) // 2 for n, o in zip(made.raw.shape, made.output.shape, strict=True))
        return shown[0], {RECONSTRUCTION: (crop(clean, margin)[0], crop(weight, margin)[0])}

    def loss(self, answers: Answers, targets: TargetTensors, step: int = 0) -> tuple[Tensor, Answers]:
        """Return the total loss and its parts; everything is ``[N, 1, Z, Y, X]``."""
        target, weight = targets[RECONSTRUCTION]
        y, x, w = aligned(answers[RECONSTRUCTION], target, weight)
        difference = (y - x).square() if self.loss_kind == "squared" else (y - x).abs()
        total = masked_mean(w * difference, w)
        parts = {RECONSTRUCTION: total.detach()}
        if "mu" in answers:
            divergence = Posterior(answers["mu"], answers["logvar"]).divergence().mean() / prod(target.shape[1:])
            parts["divergence"] = divergence.detach()
            how = self.divergence
            total = total + kl_weight(step, how.warmup_steps, how.weight) * divergence
        return total, parts

    def look(self, network: nn.Module, seen: Sequence[Validated]) -> dict[str, Tensor]:
        """Return what was shown, given back and different; of autoencoders also latents, and draws of the prior.

        Of nets that answer for less than they are shown: the input, with the answer in its place, and the truth.
        """
        whole = seen[0].raw.shape[2:] == seen[0].targets[RECONSTRUCTION][0].shape[2:]
        name, side_by_side = (
            ("input | output | difference", _side_by_side) if whole else ("input | answer | truth", _in_place)
        )
        pictures = {name: torch.cat([side_by_side(one) for one in seen], dim=-2)}
        if not isinstance(network, Reconstructor):
            return pictures
        latents = torch.cat([network.latent(one.raw) for one in seen])
        pictures |= _latents_in_colours(latents)
        if "mu" in seen[0].answers and isinstance(network.net, VariationalAutoencoder | VoxelAutoencoder):
            generator = torch.Generator().manual_seed(_PRIOR_SEED)
            drawn = network.net.imagine(_IMAGINED, generator)
            target = seen[0].targets[RECONSTRUCTION][0]
            middle = drawn.shape[2] // 2
            drawn = drawn[:, :, middle : middle + 1].float().cpu()
            pictures["prior"] = _contact(_drawn(drawn, *_span(target[0].cpu())))
        return pictures


def _side_by_side(one: Validated) -> Tensor:
    """Return ``[1, 1, Y, 3 X]`` of the middle section of the first sample; no difference is a grey of 0.5."""
    answer = one.answers[RECONSTRUCTION].float()
    middle = answer.shape[2] // 2
    shown, given, clean = (
        each[0, :1, middle : middle + 1].cpu() for each in (one.raw, answer, one.targets[RECONSTRUCTION][0])
    )
    low, high = _span(clean)
    change = (given - clean) / (high - low)
    return torch.cat([_drawn(shown, low, high), _drawn(given, low, high), (change + 0.5).clamp(0, 1)], dim=-1)


def _in_place(one: Validated) -> Tensor:
    """Return ``[1, 1, Y, 3 X]`` of a sample's middle section: as shown, with the answer in it, with the truth."""
    shown = one.raw[:1, :1].float().cpu()
    low, high = _span(shown)
    pictures = [shown]
    for there in (one.answers[RECONSTRUCTION], one.targets[RECONSTRUCTION][0]):
        filled = shown.clone()
        margin = ((n - m) // 2 for n, m in zip(shown.shape[2:], there.shape[2:], strict=True))
        crop(filled, _vec(margin)).copy_(there[:1, :1])
        pictures.append(filled)
    middle = shown.shape[2] // 2
    return torch.cat([_drawn(each[0, :, middle : middle + 1], low, high) for each in pictures], dim=-1)


def _span(clean: Tensor) -> tuple[float, float]:
    """Return the values that are drawn black and white: all but the most extreme of what should have come out."""
    low, high = torch.quantile(clean.flatten(), torch.tensor([0.005, 0.995])).tolist()
    return low, max(high, low + 1e-6)


def _drawn(values: Tensor, low: float, high: float) -> Tensor:
    return ((values - low) / (high - low)).clamp(0, 1)


def _latents_in_colours(latents: Tensor) -> dict[str, Tensor]:
    """Return the first three principal components of latents as colours, every latent a square.

    Latents of one sample lie as they do in the tile, samples below each other; nothing where there are too few.
    """
    n, channels, z, y, x = latents.shape
    middle = latents[:, :, z // 2].float().cpu()
    flat = middle.permute(0, 2, 3, 1).reshape(-1, channels)
    count = min(_COLOURS, len(flat), channels)
    if len(flat) < 2 or count < _COLOURS:
        return {}
    scores = torch.from_numpy(principal_components(flat.numpy(), count).project(flat.numpy())).float()
    low, high = scores.amin(dim=0), scores.amax(dim=0)
    colours = (scores - low) / (high - low).clamp(min=1e-12)
    picture = colours.reshape(n * y, x, count).permute(2, 0, 1)[:, None]
    side = max(1, 128 // max(x, 1))
    return {"latents": picture.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)}


def _contact(pictures: Tensor) -> Tensor:
    """Return ``[N, 1, 1, Y, X]`` as one picture ``[1, 1, rows * Y, columns * X]``, four in a row."""
    columns = min(4, len(pictures))
    rows = [torch.cat(list(pictures[i : i + columns].cpu()), dim=-1) for i in range(0, len(pictures), columns)]
    return torch.cat([row for row in rows if row.shape == rows[0].shape], dim=-2)


def _vec(values: Iterable[int]) -> Vec:
    z, y, x = values
    return (z, y, x)
