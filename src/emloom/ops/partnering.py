"""Who talks to whom: from candidates, pairs of a pre and a post site with a cost, to synapses.

``nearest``     every post site to the pre site of least cost; a pre site may have many: a polyad
``one_to_one``  at most one partner each: the least cost in all, where leaving two sites alone costs `alone`

Both are optimal over the whole volume. Candidates fall into groups that share no site, which are solved one by
one: the sum is the same, and the largest matrix is that of the largest group. Where costs tie, ``nearest`` takes
the site with the smaller number, which is the first in raster order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from emloom.ops.labels import Ids
from emloom.ops.runs import I64

F64 = NDArray[np.float64]


def near_pairs(pre_nm: F64, post_nm: F64, most_nm: float) -> tuple[I64, F64]:
    """Return the pairs (pre, post) no further apart than `most_nm`, sorted, int64 [P, 2], and their distances."""
    if not len(pre_nm) or not len(post_nm):
        return np.zeros((0, 2), np.int64), np.zeros(0)
    # A hair wider than asked for; the distance that decides is computed here, the same on every machine.
    lists = cKDTree(pre_nm).query_ball_tree(cKDTree(post_nm), most_nm * (1 + 1e-9) + 1e-9)
    counts = np.array([len(each) for each in lists], np.int64)
    pre = np.repeat(np.arange(len(pre_nm)), counts)
    post = np.array([j for each in lists for j in each], np.int64)
    distances = distance_nm(pre_nm[pre], post_nm[post])
    near = distances <= most_nm
    pairs = np.stack([pre[near], post[near]], axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], distances[near][order]


def distance_nm(a: F64, b: F64) -> F64:
    """Return the distances of points, row by row."""
    d = a - b
    return np.sqrt(d[:, 0] ** 2 + d[:, 1] ** 2 + d[:, 2] ** 2)


def nearest(pairs: I64, costs: F64, more_costs: F64 | None = None) -> I64:
    """Return which candidates are chosen where every post site takes the cheapest, in order of post sites.

    Args:
        pairs: int64 [P, 2], pre and post sites.
        costs: float64 [P].
        more_costs: decide where costs tie.
    """
    more = np.zeros_like(costs) if more_costs is None else more_costs
    order = np.lexsort((pairs[:, 0], more, costs, pairs[:, 1]))
    _, first = np.unique(pairs[order, 1], return_index=True)
    chosen: I64 = order[first]
    return chosen


def one_to_one(pairs: I64, costs: F64, alone: float) -> I64:
    """Return which candidates are chosen where a site has one partner at most, in order of post sites.

    Minimises the sum of the costs of chosen candidates plus `alone` for every pre site without a partner.

    Args:
        pairs: int64 [P, 2], pre and post sites, each pair once.
        costs: float64 [P], each at most `alone`.
        alone: what a pre site without a partner costs.
    """
    if not len(pairs):
        return np.zeros(0, np.int64)
    pres, a = np.unique(pairs[:, 0], return_inverse=True)
    posts, b = np.unique(pairs[:, 1], return_inverse=True)
    n = len(pres) + len(posts)
    links = coo_array((np.ones(len(pairs), np.int8), (a, b + len(pres))), shape=(n, n))
    group: I64 = connected_components(links, directed=False)[1][a]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) > 0])
    chosen = [mine[_solve(a[mine], b[mine], costs[mine], alone)] for mine in np.split(order, starts[1:])]
    found = np.concatenate(chosen)
    by_post: I64 = found[np.argsort(pairs[found, 1], kind="stable")]
    return by_post


def _solve(a: I64, b: I64, costs: F64, alone: float) -> I64:
    """Return which candidates of one group are chosen."""
    if len(a) == 1:
        return np.zeros(1, np.int64)
    pres, i = np.unique(a, return_inverse=True)
    posts, j = np.unique(b, return_inverse=True)
    # Each pre site may also take a place of its own, which costs `alone`; what is no candidate is never worth it.
    matrix = np.full((len(pres), len(posts) + len(pres)), 2 * alone * (len(pres) + 1) + 1)
    matrix[np.arange(len(pres)), len(posts) + np.arange(len(pres))] = alone
    matrix[i, j] = costs
    number = np.full(matrix.shape, -1, np.int64)
    number[i, j] = np.arange(len(a))
    found: I64 = number[linear_sum_assignment(matrix)]
    return found[found >= 0]


def group_sites(points_nm: F64, segments: Ids, within_nm: float) -> I64:
    """Return which sites are one and the same: those of one segment in a chain of steps of at most `within_nm`.

    Returns:
        int64 [n], the group of each, numbered in order of its first site.
    """
    n = len(points_nm)
    if not n:
        return np.zeros(0, np.int64)
    pairs, _ = near_pairs(points_nm, points_nm, within_nm)
    pairs = pairs[segments[pairs[:, 0]] == segments[pairs[:, 1]]]
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    group = connected_components(links, directed=False)[1]
    _, first, which = np.unique(group, return_index=True, return_inverse=True)
    found: I64 = np.argsort(np.argsort(first))[which]
    return found


def medoids(points_nm: F64, groups: I64) -> I64:
    """Return, per group, the point nearest to the mean of its points; of points as near, the first."""
    n = int(groups.max()) + 1 if len(groups) else 0
    sums, counts = np.zeros((n, 3)), np.bincount(groups, minlength=n)
    np.add.at(sums, groups, points_nm)
    away = distance_nm(points_nm, (sums / counts[:, None])[groups])
    order = np.lexsort((np.arange(len(groups)), away, groups))
    found: I64 = order[np.unique(groups[order], return_index=True)[1]]
    return found
