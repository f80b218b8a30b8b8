"""Partners: who sends, who receives, and who belongs to whom.

* **labels** — one volume of polyads, ``polyad * 256 + side`` (`emloom.ops.polyads`): a ball around every pre site
  (side 0) and around each of its post sites, clipped to its neuron. Targets are computed from it *after*
  augmentation: geometry moves balls, and never makes a pre site a post site.
* **targets and heads** — four variants; every channel is stored as ``255 sigmoid(x)``:

  ========== ========== === =====================================================================================
  variant    head            what it says
  ========== ========== === =====================================================================================
  sites      sites       2   pre, post: probabilities of being in such a ball (SimpSyn; Mohinta et al. 2025,
                             arXiv:2509.17041)
  vectors    post        1   probability of being in a post ball (Synful; Buhmann et al. 2021,
                             doi:10.1038/s41592-021-01183-7)
             vectors     3   z, y, x: from the voxel to the middle of its pre ball, in units of `vector_scale_nm`,
                             -1 to 1
  proximity  proximity   1   ``exp(-(d / scale)^2)`` of the nearer side, positive pre, negative post (EMSynConn;
                             Parag et al. 2018, arXiv:1807.02739)
  polarity   polarity    3   pre, post, pre or post: probabilities (polarity2instance; Lin et al., ECCV 2020)
  ========== ========== === =====================================================================================

  Signed numbers t (vectors, proximity) are learned as ``2 sigmoid(x) - 1 = tanh(x / 2)``, so that what is stored
  is ``(t + 1) / 2 * 255``, and 127.5 is 0.
* **what is not known** — vectors are asked for in post balls only, and there where the pre ball is in sight, whole
  and within reach; proximity only where no site beyond the end of what is known could be nearer.
* **loss** — of probabilities any that reads them; of signed numbers a `Regression`.
* **decode** — peaks of balls to sites, sites to partners by vector, contact or nearness: `emloom.tasks.synapses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from emloom.geometry import Box, Grid, Vec
from emloom.nn.channels import Channels, Scalars, Vectors
from emloom.nn.losses import Bce, LossSpec, Regression, reads_probabilities
from emloom.nn.objectives.base import (
    Answers,
    Rendered,
    Sample,
    Targets,
    TargetTensors,
    Validated,
    grey,
    to_tensors,
)
from emloom.nn.supervision import deep_supervision, levels_of
from emloom.ops.distances import context_vox
from emloom.ops.polarity import PROXIMITY_ENDS, polarity_target, signed_proximity
from emloom.ops.polyads import polarity_labels_of, side_masks, ways_to_pre
from emloom.spec import Spec

SITES, POST, VECTORS, PROXIMITY, POLARITY = "sites", "post", "vectors", "proximity", "polarity"
"""Names of the heads."""

_HEADS: dict[str, dict[str, int]] = {
    "sites": {SITES: 2},
    "vectors": {POST: 1, VECTORS: 3},
    "proximity": {PROXIMITY: 1},
    "polarity": {POLARITY: 3},
}
SIGNED = (VECTORS, PROXIMITY)
"""Heads whose numbers have a sign."""


class PartnersObjective(Spec):
    """Learn where pre and post sites are, and which belong together."""

    needs_labels: ClassVar[bool] = True

    kind: Literal["partners"] = "partners"
    variant: Literal["sites", "vectors", "proximity", "polarity"] = "sites"
    """What is learned of the sites; see the module."""
    pre_radius_nm: float = Field(default=50.0, gt=0)
    """Of the ball around a pre site."""
    post_radius_nm: float = Field(default=50.0, gt=0)
    """Of the ball around a post site."""
    vector_scale_nm: float = Field(default=250.0, gt=0)
    """Of `vectors`: the longest way along an axis that can be told, stored as 1."""
    proximity_scale_nm: float = Field(default=40.0, gt=0)
    """Of `proximity`: distance from a ball at which proximity falls to 1 / e."""
    mask_loss: LossSpec = Bce()
    """Of probabilities, e.g. `{kind: tversky}`. Balanced: balls are a hundredth of the voxels."""
    vector_loss: Regression = Regression(output="signed", error="smooth")
    """Of `vectors`; its output is `signed`."""
    proximity_loss: Regression = Regression(output="signed", balance="proximity")
    """Of `proximity`; its output is `signed`."""
    vector_weight: float = Field(default=10.0, ge=0)
    """Weight of the vectors' loss relative to that of the post mask."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not reads_probabilities(self.mask_loss):
            raise ValueError(
                f"mask_loss {self.mask_loss.kind!r} does not read each channel as a probability of its own: use "
                "e.g. bce, focal, dice, tversky or a sum of such"
            )
        for name, loss in (("vector_loss", self.vector_loss), ("proximity_loss", self.proximity_loss)):
            if loss.output != "signed":
                raise ValueError(
                    f"{name} has the output {loss.output!r}: vectors and proximities have a sign, and what is "
                    "stored is read as signed; set output to signed"
                )
        return self

    @property
    def heads(self) -> dict[str, int]:
        """Output name -> number of channels."""
        return dict(_HEADS[self.variant])

    @property
    def channels(self) -> dict[str, Channels]:
        """What the channels mean when the tissue is turned: only vectors turn with it; pre stays pre."""
        return {name: Vectors() if name == VECTORS else Scalars(count) for name, count in self.heads.items()}

    def context_vox(self, grid: Grid) -> Vec:
        """Return how far (z, y, x) beyond a voxel its targets look."""
        if self.variant == "proximity":
            return context_vox(grid.voxel_size_nm, PROXIMITY_ENDS * self.proximity_scale_nm)
        if self.variant != "vectors":
            return (0, 0, 0)
        # A ball whose middle is within reach ends a diameter further, and must be seen to end.
        z, y, x = grid.voxels(self.vector_scale_nm + 2 * self.pre_radius_nm)
        return (z + 1, y + 1, x + 1)

    def targets(self, labels_ZYX: NDArray[Any], known_ZYX: NDArray[np.uint8], inner: Box, grid: Grid) -> Targets:
        """Return target and weight of every head on the voxels of `inner`; see the module.

        Args:
            labels_ZYX: polyads and sides (`emloom.ops.polyads`) with context around `inner`.
            known_ZYX: 0 where nobody looked for sites.
            inner: the voxels to compute, in voxels of `labels_ZYX`.
            grid: voxel size of the labels.
        """
        at, size = inner.slices(), grid.voxel_size_nm
        known = (known_ZYX[at] != 0).view(np.uint8)[None]
        if self.variant == "proximity":
            sides = polarity_labels_of(labels_ZYX)
            proximity, certain = signed_proximity(sides, size, self.proximity_scale_nm, mask_ZYX=known_ZYX)
            return {PROXIMITY: (proximity[at][None], certain[at][None])}
        if self.variant == "polarity":
            masks, weight = polarity_target(polarity_labels_of(labels_ZYX[at]), mask_ZYX=known_ZYX[at])
            return {POLARITY: (masks, weight[None])}
        sites = side_masks(labels_ZYX[at], mask_ZYX=known_ZYX[at])
        if self.variant == "sites":
            return {SITES: (sites, known)}
        ways, told = ways_to_pre(labels_ZYX, inner, size, self.vector_scale_nm, mask_ZYX=known_ZYX)
        return {
            POST: (sites[1:], known),
            VECTORS: (ways / np.float32(self.vector_scale_nm), told[None]),
        }

    def surround_vox(self, grid: Grid) -> Vec:
        """Return how far beyond the input it wants to see the raw: nowhere."""
        return (0, 0, 0)

    def sample(self, made: Rendered, grid: Grid) -> Sample:
        """Return (raw ``[1, Z, Y, X]``, targets by head) of a crop."""
        targets = self.targets(made.labels, made.known, made.output, grid)
        return torch.from_numpy(made.raw[None]), to_tensors(targets)

    def loss(self, answers: Answers, targets: TargetTensors, step: int = 0) -> tuple[Tensor, Answers]:
        """Return the total loss and its parts; logits and targets are ``[N, C, Z, Y, X]``."""
        parts = {name: self._loss_of(name, answers, targets) for name in self.heads}
        total = torch.stack([part * self._weight_of(name) for name, part in parts.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def look(self, network: nn.Module, seen: Sequence[Validated]) -> dict[str, Tensor]:
        """Return raw, truth and prediction of the first sample, signed numbers with 0 in the middle."""
        first = seen[0]
        panel = {"raw": grey(first.raw[0])}
        for name in self.heads:
            target = first.targets[name][0][0]
            truth = (target + 1) / 2 if name in SIGNED else target
            panel |= {f"{name}/truth": truth, f"{name}/prediction": torch.sigmoid(first.answers[name][0])}
        return panel

    def _loss_of(self, name: str, answers: Answers, targets: TargetTensors) -> Tensor:
        levels = levels_of(answers, name)
        if name not in SIGNED:
            # Balls are small: by majority they would vanish from coarser levels.
            return deep_supervision(self.mask_loss, levels, *targets[name], "max")
        loss = self.vector_loss if name == VECTORS else self.proximity_loss
        return deep_supervision(loss, levels, *targets[name], "mean")

    def _weight_of(self, name: str) -> float:
        return self.vector_weight if name == VECTORS else 1.0
