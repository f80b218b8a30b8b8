"""Clefts: where the contact of a synapse is.

* **labels** — cleft ids, or a mask of clefts: which cleft a voxel belongs to plays no part. Unknown voxels (a mask
  of the stack; CREMI's INVALID) teach nothing.
* **targets** — ``mask``: 1 in clefts, 0 elsewhere. ``distance``: ``tanh(d / scale)``, d being the distance to the
  border of clefts in nm, positive inside (Heinrich et al., MICCAI 2018, arXiv:1805.02718); near the end of what is
  known, where a cleft might lie just outside, it teaches nothing.
* **head** — ``clefts``, one channel. Of ``distance`` the network says ``2 sigmoid(x) - 1 = tanh(x / 2)``, so that
  what is stored, ``255 sigmoid(x)``, is ``(t + 1) / 2 * 255``: 127.5 is the border, either way.
* **loss** — of ``mask`` any that reads each channel as a probability, by default balanced cross entropy; of
  ``distance`` a squared error in which inside and outside weigh the same.
* **decode** — a threshold, and the rules of `emloom.ops` for components.
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
from emloom.nn.channels import Channels, Scalars
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
from emloom.ops.distances import SATURATION, boundary_distance, context_vox, sted
from emloom.ops.synapse_targets import cleft_mask
from emloom.spec import Spec

CLEFTS = "clefts"
"""Name of the head."""


class CleftsObjective(Spec):
    """Learn where synaptic clefts are."""

    needs_labels: ClassVar[bool] = True

    kind: Literal["clefts"] = "clefts"
    variant: Literal["mask", "distance"] = "mask"
    """A mask of clefts, or the signed distance to their border, through tanh."""
    mask_loss: LossSpec = Bce()
    """Of `mask`, e.g. `{kind: tversky}`."""
    distance_loss: Regression = Regression(output="signed", balance="threshold")
    """Of `distance`; its output is `signed`."""
    scale_nm: float = Field(default=50.0, gt=0)
    """Of `distance`: where the tangent turns."""
    border_nm: float = Field(default=0.0, ge=0)
    """Of `mask`: background at a distance d from a cleft weighs tanh(d / border), for hand-drawn borders are not
    exact; 0: all weighs the same."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not reads_probabilities(self.mask_loss):
            raise ValueError(
                f"mask_loss {self.mask_loss.kind!r} does not read each channel as a probability of its own: use "
                "e.g. bce, focal, dice, tversky or a sum of such"
            )
        if self.distance_loss.output != "signed":
            raise ValueError(
                f"distance_loss has the output {self.distance_loss.output!r}: distances have a sign, and what is "
                "stored is read as signed; set output to signed"
            )
        return self

    @property
    def heads(self) -> dict[str, int]:
        """Output name -> number of channels."""
        return {CLEFTS: 1}

    @property
    def channels(self) -> dict[str, Channels]:
        """What the channels mean when the tissue is turned: distances and masks know no direction."""
        return {CLEFTS: Scalars(1)}

    def context_vox(self, grid: Grid) -> Vec:
        """Return how far (z, y, x) beyond a voxel its target looks."""
        scale = self.scale_nm if self.variant == "distance" else self.border_nm
        return context_vox(grid.voxel_size_nm, SATURATION * scale) if scale > 0 else (0, 0, 0)

    def targets(self, labels_ZYX: NDArray[Any], known_ZYX: NDArray[np.uint8], inner: Box, grid: Grid) -> Targets:
        """Return target and weight of the head on the voxels of `inner`, each ``[1, Z, Y, X]``.

        Args:
            labels_ZYX: cleft ids with context around `inner`, 0 is background.
            known_ZYX: 0 where nobody looked.
            inner: the voxels to compute, in voxels of `labels_ZYX`.
            grid: voxel size of the labels.
        """
        size = grid.voxel_size_nm
        if self.variant == "distance":
            target, weight = sted(labels_ZYX, size, self.scale_nm, instances=False, box=inner, mask_ZYX=known_ZYX)
            return {CLEFTS: (target[None], weight[None])}
        at = inner.slices()
        mask, known = cleft_mask(labels_ZYX[at], mask_ZYX=known_ZYX[at])
        if self.border_nm == 0:
            return {CLEFTS: (mask[None], known[None])}
        # Beyond what is known no cleft is taken to be: the distance is the one to the clefts in sight.
        far = SATURATION * self.border_nm
        away, _ = boundary_distance(labels_ZYX, size, far, instances=False, box=inner)
        near = np.where(mask != 0, np.float32(1), np.tanh(away / np.float32(self.border_nm)))
        return {CLEFTS: (mask[None], (near * known)[None])}

    def surround_vox(self, grid: Grid) -> Vec:
        """Return how far beyond the input it wants to see the raw: nowhere."""
        return (0, 0, 0)

    def sample(self, made: Rendered, grid: Grid) -> Sample:
        """Return (raw ``[1, Z, Y, X]``, target of the head) of a crop."""
        targets = self.targets(made.labels, made.known, made.output, grid)
        return torch.from_numpy(made.raw[None]), to_tensors(targets)

    def loss(self, answers: Answers, targets: TargetTensors, step: int = 0) -> tuple[Tensor, Answers]:
        """Return the total loss and its parts; logits and targets are ``[N, 1, Z, Y, X]``."""
        levels = levels_of(answers, CLEFTS)
        if self.variant == "mask":
            # Clefts are thin: by majority they would vanish from coarser levels.
            total = deep_supervision(self.mask_loss, levels, *targets[CLEFTS], "max")
        else:
            total = deep_supervision(self.distance_loss, levels, *targets[CLEFTS], "mean")
        return total, {CLEFTS: total.detach()}

    def look(self, network: nn.Module, seen: Sequence[Validated]) -> dict[str, Tensor]:
        """Return raw, truth and prediction of the first sample."""
        first = seen[0]
        target = first.targets[CLEFTS][0][0]
        truth = target if self.variant == "mask" else (target + 1) / 2
        answer = torch.sigmoid(first.answers[CLEFTS][0])
        return {"raw": grey(first.raw[0]), "clefts/truth": truth, "clefts/prediction": answer}
