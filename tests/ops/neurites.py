"""Random skeletons for tests of measures, and the graph a skeleton is, for networkx."""

from __future__ import annotations

from math import dist

import networkx as nx
import numpy as np

from emloom.geometry.skeletons import Skeletons


def any_skeletons(seed: int, most: int = 16) -> Skeletons:
    """Return skeletons with cycles, pieces, repeated edges, self-loops and coincident nodes, nodes shuffled."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(1, 4)), int(rng.integers(1, most + 1))
    whose = rng.integers(0, k, n)
    edges = rng.integers(0, n, (int(rng.integers(0, 2 * n)), 2))
    edges = edges[whose[edges[:, 0]] == whose[edges[:, 1]]]
    crooked = rng.normal(0, 100, (n, 3)) if rng.random() < 0.5 else rng.integers(0, 4, (n, 3)) * 10.0
    return Skeletons(
        rng.choice(10**6, k, replace=False).astype(np.uint64),
        whose.astype(np.int64),
        rng.permutation(n).astype(np.uint64),
        crooked,
        edges.astype(np.int64),
    )


def neurites(seed: int, *, trees: int = 3, most: int = 60, cycles: int = 0) -> Skeletons:
    """Return trees that grow mostly at their tips, with some more edges per tree that close cycles."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(1, trees + 1):
        n = int(rng.integers(1, most + 1))
        parents = [max(0, k - 1 - int(rng.geometric(0.7) - 1)) for k in range(1, n)]
        positions = np.zeros((n, 3))
        for k, parent in enumerate(parents, 1):
            positions[k] = positions[parent] + rng.normal(0, 50, 3)
        edges = [(parent, k) for k, parent in enumerate(parents, 1)]
        extra = rng.integers(0, n, (cycles, 2)).tolist()
        order = rng.permutation(n)
        shuffled = np.argsort(order)[np.array(edges + extra, np.int64).reshape(-1, 2)]
        made.append((number, positions[order], shuffled))
    return Skeletons.from_trees(made)


def as_graph(skeletons: Skeletons) -> nx.Graph:
    """Return the simple graph of all nodes, with lengths: the slow and obvious way, from `edges`."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(skeletons.node_ids)))
    at = skeletons.positions_nm.tolist()
    graph.add_edges_from((a, b, {"nm": dist(at[a], at[b])}) for a, b in skeletons.edges.tolist() if a != b)
    return graph


def nodes_of(skeletons: Skeletons, row: int) -> list[int]:
    """Return the nodes of one skeleton."""
    found: list[int] = np.flatnonzero(skeletons.skeletons == row).tolist()
    return found
