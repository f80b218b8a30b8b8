"""Objects made of patches: one scratch over seven patches is one artifact, found or missed as a whole.

Convention: patches that are called positive are one object where they lie in one section and are neighbours on
their lattice, diagonals included (8-connected). The same rule makes objects of the truth and of the prediction, so
both are counted in one unit::

    recall     part of the true objects that share a patch with a found one
    precision  part of the found objects that share a patch with a true one          F1  their harmonic mean

Found objects of which nobody knows a single patch do not count. A found object that covers a whole section has
every true object of it: read these scores beside those of patches.

Sections are counted likewise: a section is positive where a patch of it is, and negative where all its patches
are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from emloom.errors import InputError
from emloom.geometry.patches import NO, UNKNOWN, YES, Labels
from emloom.geometry.skeletons import Floats, Rows

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ObjectScores:
    """Objects found and missed; see the module.

    Attributes:
        n_truth: true objects.
        n_hit: those of them that were found.
        n_found: found objects that count.
        n_right: those of them that are true.
        reason: why a score is NaN; else empty.
    """

    n_truth: int
    n_hit: int
    n_found: int
    n_right: int
    reason: str

    @property
    def precision(self) -> float:
        """Part of the found objects that is true; 0 where nothing is found but something is there."""
        return self.n_right / self.n_found if self.n_found else (0.0 if self.n_truth else nan)

    @property
    def recall(self) -> float:
        """Part of the true objects that is found; 0 where nothing is there but something is found."""
        return self.n_hit / self.n_truth if self.n_truth else (0.0 if self.n_found else nan)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else both


def patch_objects(starts: Rows, positive: Mask, stride: tuple[int, int]) -> Rows:
    """Return the object of each patch: 1, 2, ... in the order of their first patch, 0 for none.

    Args:
        starts: int64 [N, 3], first voxel (z, y, x).
        positive: bool [N], patches that belong to an object.
        stride: voxels (y, x) from one patch to the next: positive patches of one section that are at most so far
            apart are neighbours.

    Raises:
        InputError: a stride is below 1.
    """
    if min(stride) < 1:
        raise InputError(f"stride {stride} (y, x) of patches: give at least 1 voxel")
    rows = np.flatnonzero(positive)
    of_patch = np.zeros(len(starts), np.int64)
    if not rows.size:
        return of_patch
    # Sections are two units apart, so that none is a neighbour; neighbours in y and x are at most 1.
    scaled = starts[rows] * np.array([2.0, 1 / stride[0], 1 / stride[1]])
    pairs = cKDTree(scaled).query_pairs(1 + 1e-6, p=np.inf, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(rows.size, rows.size))
    _, component = connected_components(links, directed=False)
    _, first, number = np.unique(component, return_index=True, return_inverse=True)
    of_patch[rows] = np.argsort(np.argsort(first))[number] + 1
    return of_patch


def object_scores(found: Rows, truth: Rows, known: Mask) -> ObjectScores:
    """Return how many objects were found and are true.

    Args:
        found: int64 [N], found object of each patch, 0 for none: `patch_objects`.
        truth: int64 [N], true object of each patch.
        known: bool [N], patches somebody knows about.
    """
    shared = (found > 0) & (truth > 0)
    counted = np.unique(found[(found > 0) & known]).size
    n_truth = np.unique(truth[truth > 0]).size
    return ObjectScores(
        n_truth=n_truth,
        n_hit=np.unique(truth[shared]).size,
        n_found=counted,
        n_right=np.unique(found[shared]).size,
        reason="" if n_truth or counted else "there is no object, neither true nor found",
    )


def of_sections(sections: Rows, scores: Floats, truth: Labels) -> tuple[Rows, Floats, Labels]:
    """Return the highest score of each section, and whether it holds a positive.

    Args:
        sections: int64 [N], section of each patch.
        scores: float64 [N].
        truth: int8 [N], 1, 0 or -1.

    Returns:
        the sections [S], sorted; their highest score; 1 where a patch is positive, 0 where all are negative,
        else -1.
    """
    distinct, at = np.unique(sections, return_inverse=True)
    highest = np.full(distinct.size, -np.inf)
    np.maximum.at(highest, at, scores)
    says = [np.bincount(at[truth == word], minlength=distinct.size) > 0 for word in (YES, UNKNOWN)]
    return distinct, highest, np.where(says[0], YES, np.where(says[1], UNKNOWN, NO)).astype(np.int8)


def inferred_stride(starts: Rows, source: str = "patches") -> tuple[int, int]:
    """Return the step (y, x) of patches on a lattice: the least one between patches of a section.

    A section of one row or column says nothing about the other axis; a table of such sections has the step 1
    there.

    Raises:
        InputError: in some section, a patch lies beside the lattice of that step.
    """
    y, x = (_step(starts[:, 0], starts[:, axis], source, name) for axis, name in ((1, "y"), (2, "x")))
    return y, x


def _step(sections: Rows, places: Rows, source: str, axis: str) -> int:
    pairs = np.unique(np.column_stack([sections, places]), axis=0)
    steps = np.diff(pairs[:, 1])[np.diff(pairs[:, 0]) == 0]
    if not steps.size:
        return 1
    step = int(steps.min())
    if (steps % step).any():
        raise InputError(
            f"{source}: patches lie {step} but also {int(steps[steps % step > 0][0])} voxels apart along {axis} "
            "in one section: they are on no lattice; state the stride that makes two of them neighbours"
        )
    return step
