"""Links between sections of a stack, and the positions that fit them best.

A link (i, j, d) says that what is at q in section i is at q + d in section j. With ``p[z]`` the shift to apply to
section z, ``p[i] = d + p[j]`` for a link that is right. The equations are banded, as links join sections that are
near; those of the reference, whose position is 0, may reach across any distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import solveh_banded
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_WIDEST = 512


@dataclass(frozen=True, eq=False)
class Links:
    """Displacements between sections; L of them.

    Attributes:
        first: int64 [L], sections.
        second: int64 [L], sections; never the same as first.
        shift: float64 [L, 2], (dy, dx): what is at q in the first is at q + shift in the second.
        error: float64 [L], standard errors, pixels; only their ratios matter where links disagree.
    """

    first: I64
    second: I64
    shift: F64
    error: F64

    def __len__(self) -> int:
        return len(self.first)

    def where(self, which: NDArray[np.bool_]) -> Links:
        """Return some of them."""
        return Links(self.first[which], self.second[which], self.shift[which], self.error[which])

    def upward(self) -> Links:
        """Return the same links, all leading to higher sections."""
        back = self.first > self.second
        return Links(
            np.where(back, self.second, self.first),
            np.where(back, self.first, self.second),
            np.where(back[:, None], -self.shift, self.shift),
            self.error,
        )

    @classmethod
    def of(cls, links: Sequence[tuple[int, int, tuple[float, float], float]]) -> Links:
        """Return links from (first, second, (dy, dx), error)."""
        return cls(
            np.array([one[0] for one in links], np.int64),
            np.array([one[1] for one in links], np.int64),
            np.array([one[2] for one in links], np.float64).reshape(-1, 2),
            np.array([one[3] for one in links], np.float64),
        )


def misfit(shift: F64, links: Links) -> F64:
    """Return by how much (y, x) links miss what positions say."""
    out: F64 = shift[links.second] - shift[links.first] + links.shift
    return out


def parts(count: int, links: Links) -> I64:
    """Return of each of `count` sections to which part it belongs, parts being what links join; numbers from 0."""
    return np.asarray(connected_components(_graph(count, links), directed=False)[1], np.int64)


def fit(count: int, links: Links, weight: F64, reference: int) -> F64:
    """Return the positions that fit best, by weighted least squares.

    Args:
        count: sections in the stack, Z.
        links: L links that lead upward.
        weight: float64 [L], positive.
        reference: section at (0, 0); so is one section of every other part.

    Returns:
        float64 [Z, 2], (y, x).
    """
    lag = links.second - links.first
    free = (links.first != reference) & (links.second != reference)
    diagonal = np.bincount(links.first, weight, count) + np.bincount(links.second, weight, count)
    pull = weight[:, None] * links.shift
    right = np.stack(
        [np.bincount(links.first, p, count) - np.bincount(links.second, p, count) for p in pull.T], axis=1
    )
    part = parts(count, links)
    anchors = np.unique(part, return_index=True)[1]
    anchors = np.append(anchors[part[anchors] != part[reference]], reference)
    diagonal[anchors] += weight.max()
    diagonal[reference], right[reference] = 1.0, 0.0
    width = int(lag[free].max(initial=0))
    if width > _WIDEST:
        return _fit_sparse(np.asarray(diagonal, np.float64), right, links, np.where(free, weight, 0))
    bands = np.zeros((width + 1, count))
    bands[0] = diagonal
    np.subtract.at(bands, (lag[free], links.first[free]), weight[free])
    out: F64 = solveh_banded(bands, right, lower=True, check_finite=False)
    return out


def _fit_sparse(diagonal: F64, right: F64, links: Links, weight: F64) -> F64:
    count = len(diagonal)
    half = sparse.coo_matrix((-weight, (links.first, links.second)), (count, count))
    matrix = sparse.csc_matrix(half + half.T + sparse.diags(diagonal))
    return np.asarray(splu(matrix).solve(right), np.float64)


def _graph(count: int, links: Links) -> sparse.coo_matrix:
    return sparse.coo_matrix((np.ones(len(links.first)), (links.first, links.second)), (count, count))


__all__ = ["Links", "fit", "misfit", "parts"]
