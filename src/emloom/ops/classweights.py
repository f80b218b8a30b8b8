"""Weights of classes from how many voxels each has, for the `class_weights` of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from emloom.errors import InputError

Scheme = Literal["inverse", "root"]


def class_weights_of(
    voxels: Sequence[int], scheme: Scheme = "inverse", *, rarest: float = 0.001
) -> tuple[float, ...]:
    """Return a weight for every class, 1 for the commonest.

    With f the share of a class among all labelled voxels::

        inverse   f_max / f          every class counts the same in a sum over voxels
        root      sqrt(f_max / f)    half way between that and no weights

    Args:
        voxels: labelled voxels of every class.
        scheme: how.
        rarest: no class is taken for rarer than this share, which bounds the weights.

    Raises:
        InputError: a class has no voxel, or `rarest` is not in (0, 1].
    """
    if not voxels or min(voxels) < 1:
        raise InputError(f"classes of {list(voxels)} voxels: a class without voxels has no weight; leave it out")
    if not 0 < rarest <= 1:
        raise InputError(f"rarest is {rarest}: give a share above 0, at most 1")
    power = 1.0 if scheme == "inverse" else 0.5
    shares = [max(count / sum(voxels), rarest) for count in voxels]
    return tuple((max(shares) / share) ** power for share in shares)
