"""Partner pairs that are wrong: missed of the truth, invented of the result; the list of them as a table."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emloom.metrics.partnerpairs import PartnerPairs
from emloom.metrics.partners import PartnerScores
from emloom.tasks.partnersource import Synapses
from emloom.tasks.synapsesites import Placed

Wrong = Literal["missed", "invented"]
WRONG: tuple[Wrong, ...] = ("missed", "invented")


@dataclass(frozen=True, eq=False)
class WrongPairs:
    """Partner pairs that are missed (of the truth) or invented (of the result), row by row.

    Attributes:
        rows: int64 [k], among all pairs of their file.
        sites: uint64 [k, 2], ids of the (pre, post) sites.
        pairs: their positions.
        segments: uint64 [k, 2], true segments of the (pre, post) sites.
        nearest_nm: float64 [k], root mean square of the distances of both sites to those of the nearest pair of
            the other side, whatever its segments; NaN where there is none.
    """

    rows: NDArray[np.int64]
    sites: NDArray[np.uint64]
    pairs: PartnerPairs
    segments: NDArray[np.uint64]
    nearest_nm: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)


def wrong_pairs(
    truth: Synapses, found: Synapses, placed: tuple[Placed, Placed], scores: PartnerScores
) -> dict[Wrong, WrongPairs]:
    """Return the pairs of either side without a match."""
    return {
        "missed": _chosen(truth, placed[0], scores.missed, found.pairs),
        "invented": _chosen(found, placed[1], scores.invented, truth.pairs),
    }


def _chosen(side: Synapses, placed: Placed, rows: NDArray[np.int64], others: PartnerPairs) -> WrongPairs:
    chosen = side.pairs.rows(rows)
    return WrongPairs(rows, side.sites[rows], chosen, placed.segments[rows], _nearest(chosen, others))


def _nearest(pairs: PartnerPairs, others: PartnerPairs) -> NDArray[np.float64]:
    from scipy.spatial import cKDTree  # not at import: scipy takes its time

    if not (len(pairs) and len(others)):
        return np.full(len(pairs), nan)
    mine, theirs = (np.hstack([p.pre_nm, p.post_nm]) for p in (pairs, others))
    distances: NDArray[np.float64] = cKDTree(theirs).query(mine)[0] / np.sqrt(2.0)
    return distances


def columns_of(wrong: WrongPairs) -> dict[str, NDArray[Any]]:
    """Return the columns of a list of wrong pairs, with positions as their file stores them."""
    columns: dict[str, NDArray[Any]] = {"row": wrong.rows}
    for side, (name, points) in enumerate(zip(("pre", "post"), wrong.pairs.stored(), strict=True)):
        columns[f"{name}_id"] = wrong.sites[:, side]
        columns |= {f"{name}_{axis}_nm": points[:, k] for k, axis in enumerate("zyx")}
        columns[f"{name}_segment"] = wrong.segments[:, side]
    empty = [None if np.isnan(v) else v for v in wrong.nearest_nm.tolist()]
    return columns | {"nearest_nm": np.array(empty, object)}
