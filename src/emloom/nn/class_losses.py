"""Losses that read the channels as classes which exclude each other: a softmax, p.

The target says for every voxel which classes it may be: one (one-hot), or any of a set S of candidates, because
nobody looked for some of them ("this section lacks class k" must not teach "no k"; `emloom.ops.classsets`). All
that such a voxel says is that the probability of S is 1::

    P = sum over S of p = sigmoid(m)      m = logsumexp over S of x - logsumexp over the others of x

A voxel counts if its weight is above 0 and S is neither empty nor all classes. On what stands at any other voxel,
NaN included, neither the loss nor its gradient depends by one bit.

What holds of sets: no gradient lowers the logit of a candidate; cross entropy and focal loss of a set are no
larger than of any of its members (for Dice, a ratio of sums, that cannot be said).
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from emloom.errors import InputError
from emloom.nn.masked import Per, Smooth, group_axes, known_groups, mean_over, one_weight, precise
from emloom.nn.voxel_losses import check_classes
from emloom.spec import Spec

ClassWeights = tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]


# Masks are floats of 0 and 1 here, and what is masked out is lowered by this instead of replaced: measured on a
# processor, `where` takes ten times as long as a product, and the exponential of infinity fifty times.
_FAR = 1e30


class Candidates(NamedTuple):
    """What voxels may be; `candidates_of` makes it.

    Attributes:
        x: logits ``[N, C, Z, Y, X]``, 0 where nothing is said.
        among: 1 for candidates, else 0, the same shape; in every voxel at least one is and one is not.
        weight: ``[N, 1, Z, Y, X]``, 0 where nothing is said.
    """

    x: Tensor
    among: Tensor
    weight: Tensor


def says_something(target: Tensor, weight: Tensor) -> Tensor:
    """Return where a target of candidates says anything: bool ``[N, 1, Z, Y, X]``.

    Args:
        target: ``[N, C, Z, Y, X]``, above 0.5 for candidates.
        weight: ``[N, 1, Z, Y, X]``, 0 is unknown.
    """
    number = (target > 0.5).float().sum(dim=1, keepdim=True)
    return (weight > 0) & (number > 0) & (number < target.shape[1])


def candidates_of(logits: Tensor, target: Tensor, weight: Tensor) -> Candidates:
    """Return logits, candidates and one weight per voxel; a voxel is known if all its channels are.

    Raises:
        ValueError: target and logits differ in shape.
    """
    voxel, x = one_weight(weight), precise(logits, target)
    says = says_something(target, voxel)
    heard = says.to(x.dtype)
    among = (target > 0.5).to(x.dtype) * heard
    among[:, :1] += 1 - heard  # one stands in where nothing is said, so that no sum is over nothing
    x = torch.where(says.expand_as(x).contiguous(), x, 0.0)
    return Candidates(x, among, torch.where(says, voxel.to(x.dtype), 0.0))


def _margin(given: Candidates) -> Tensor:
    """Return m, the log odds that a voxel is one of its candidates, ``[N, 1, Z, Y, X]``."""
    x, among, _ = given
    others = 1 - among
    with torch.no_grad():  # the largest of either side, which makes the exponentials safe and cancels out of m
        top_in = (x - _FAR * others).amax(dim=1, keepdim=True)
        top_out = (x - _FAR * among).amax(dim=1, keepdim=True)
        top = among * top_in + others * top_out
    e = torch.exp(x - top)
    inside, outside = ((e * part).sum(dim=1, keepdim=True) for part in (among, others))
    return (top_in + torch.log(inside)) - (top_out + torch.log(outside))


def _importance(given: Candidates, class_weights: ClassWeights | None) -> Tensor:
    """Return the class weight of every voxel that says something, 0 elsewhere: of a set, that of its lightest."""
    x, among, weight = given
    says = (weight > 0).to(x.dtype)
    if class_weights is None:
        return says
    check_classes(class_weights, x.shape[1])
    classes = _per_class(torch.tensor(class_weights, dtype=x.dtype, device=x.device), x.ndim)
    return says * (classes + _FAR * (1 - among)).amin(dim=1, keepdim=True)


def _weighted_mean(given: Candidates, importance: Tensor, loss: Tensor) -> Tensor:
    total = importance.sum()
    return (given.weight * importance * loss).sum() / torch.where(total > 0, total, 1.0)


def _per_class(values: Tensor, ndim: int) -> Tensor:
    return values.reshape(1, -1, *[1] * (ndim - 2))


class CrossEntropy(Spec):
    """Cross entropy of a softmax over classes, ``-log P``, normalised by the class weights::

        L = sum(w k (-log P)) / sum(k)        w the weight of a voxel, k that of its class

    P is the probability of the class, or of all candidates together. A set weighs as the lightest of its members:
    where a voxel is rare or common, it is most likely common.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    class_weights: ClassWeights | None = None
    """One per class, not negative; None weighs all the same."""

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss; target 1 for candidates, a voxel is known if all its channels are.

        Raises:
            InputError: there are more or fewer class weights than channels.
        """
        given = candidates_of(logits, target, weight)
        return _weighted_mean(
            given, _importance(given, self.class_weights), -functional.logsigmoid(_margin(given))
        )


class FocalCrossEntropy(Spec):
    """Cross entropy in which easy voxels count little, ``-(1 - P)^g log P``, normalised as `CrossEntropy` is.

    Lin et al. 2017 (arXiv:1708.02002), for classes that exclude each other; gamma = 0 is `CrossEntropy`.
    """

    kind: Literal["focal_cross_entropy"] = "focal_cross_entropy"
    gamma: float = Field(default=2.0, ge=0)
    class_weights: ClassWeights | None = None
    """One per class, not negative; None weighs all the same."""

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss; target 1 for candidates, a voxel is known if all its channels are.

        Raises:
            InputError: there are more or fewer class weights than channels.
        """
        given = candidates_of(logits, target, weight)
        m = _margin(given)
        hard = torch.exp(self.gamma * functional.logsigmoid(-m))
        return _weighted_mean(given, _importance(given, self.class_weights), -hard * functional.logsigmoid(m))


class ClassDice(Spec):
    """Soft Dice of every class over a softmax, ``1 - (2 I + s) / (P + T + s)``, and the mean over the classes::

        I = sum(w p t)      P = sum(w p)      T = sum(w t)       over the voxels that are known to be of the class
                                                                 (t = 1) or known not to be (t = 0)

    A voxel with a set of candidates is known not to be any of the others, and no more: for its candidates it does
    not count. A class of which nothing is known in the whole group takes no part in the mean. One that is known to
    be absent does: every voxel called so costs, calling none costs nothing. With few labels let `per` be `batch`.
    """

    kind: Literal["class_dice"] = "class_dice"
    smooth: Smooth = 1.0
    per: Per = "batch"
    class_weights: ClassWeights | None = None
    """Importance of each class, not negative, 0 leaves one out; None weighs all the same."""

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss; target 1 for candidates, a voxel is known if all its channels are.

        Raises:
            InputError: there are more or fewer class weights than channels.
        """
        x, among, voxel = candidates_of(logits, target, weight)
        if self.class_weights is not None:
            check_classes(self.class_weights, x.shape[1])
        alone = (among.sum(dim=1, keepdim=True) == 1).to(x.dtype)
        w = voxel * torch.maximum(alone, 1 - among)
        p = torch.softmax(x, dim=1)
        axes = group_axes(x.ndim, self.per)
        above, below = (each.sum(dim=axes, keepdim=True) for each in (2 * w * p * among, w * (p + among)))
        loss = 1 - (above + self.smooth) / (below + self.smooth)
        return mean_over(loss, known_groups(w, self.per), self.class_weights)


class WassersteinDice(Spec):
    """Dice over a softmax that knows which classes are alike: confusing near classes costs less.

    Fidon et al. 2017 (doi:10.1007/978-3-319-75238-9_6). With M the distances between classes, of which class 0 is
    the background, and g the true class of a voxel, its error is ``d = sum_l M[g, l] p_l``, and::

        L = 1 - (2 A + s) / (2 A + E + s)      A = sum(w M[g, 0] (1 - d))      E = sum(w d)

    The original multiplies (M[g, 0] - d); for distances to the background of 1 that is the same. Of a set of
    candidates the nearest counts, ``M[S, l] = min over g in S of M[g, l]``: what it costs to move all of p into S.
    """

    kind: Literal["wasserstein_dice"] = "wasserstein_dice"
    distances: tuple[tuple[float, ...], ...] = Field(min_length=2)
    """Symmetric matrix of class distances in [0, 1], 0 on the diagonal."""
    smooth: Smooth = 1.0
    per: Per = "sample"

    @model_validator(mode="after")
    def _check(self) -> Self:
        size = len(self.distances)
        if any(len(row) != size for row in self.distances):
            raise ValueError(f"distances must be a square matrix, {size} rows of {size} numbers")
        for i, row in enumerate(self.distances):
            if row[i] != 0 or any(row[j] != self.distances[j][i] or not 0 <= row[j] <= 1 for j in range(size)):
                raise ValueError("distances must be symmetric, in [0, 1] and 0 on the diagonal")
        return self

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss; target 1 for candidates, a voxel is known if all its channels are.

        Raises:
            InputError: there are more or fewer classes than channels.
        """
        if len(self.distances) != logits.shape[1]:
            raise InputError(f"distances of {len(self.distances)} classes for {logits.shape[1]} channels")
        x, among, voxel = candidates_of(logits, target, weight)
        cost = self._cost(x, among)
        error = (cost * torch.softmax(x, dim=1)).sum(dim=1, keepdim=True)
        axes = group_axes(x.ndim, self.per)
        hit = 2 * (voxel * cost[:, :1] * (1 - error)).sum(dim=axes, keepdim=True)
        missed = (voxel * error).sum(dim=axes, keepdim=True)
        loss = 1 - (hit + self.smooth) / (hit + missed + self.smooth)
        return mean_over(loss, known_groups(voxel, self.per))

    def _cost(self, x: Tensor, among: Tensor) -> Tensor:
        """Return M[S, l] at channel l, the shape of `x`."""
        cost = torch.full_like(x, torch.inf)
        for g, row in enumerate(self.distances):
            distance = _per_class(torch.tensor(row, dtype=x.dtype, device=x.device), x.ndim)
            cost = torch.minimum(cost, distance + _FAR * (1 - among[:, g : g + 1]))
        return cost
