"""Expected run length of 10 000 skeleton nodes at 50 thresholds: emloom against a networkx version.

    python benchmarks/erl.py

Truth: 200 branched skeletons of 50 nodes. Fragments: their paths cut into pieces of some 4 nodes, a few in
background, with 64-bit ids. Thresholds: ever more neighbouring fragments join, and among them more and more of
different skeletons. The peer does what funlib.evaluate documents, on a networkx graph with dictionaries per node
(funlib.evaluate itself needs graph-tool, which no wheel brings); edge lengths and the dictionaries node -> segment
are prepared and not timed. Both give ERL and the links per class at every threshold; the counts must be equal, the
ERL to 1e-9. One thread, CPU seconds, interleaved after a warm-up, medians of 9.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from emloom.geometry.skeletons import Skeletons
from emloom.metrics.runlength import EDGE_CLASSES, erl_sweep

SKELETONS, NODES, THRESHOLDS, ROUNDS = 200, 50, 50, 9
Ids = NDArray[np.uint64]
Result = tuple[float, tuple[int, ...]]


def truth(rng: np.random.Generator) -> Skeletons:
    trees = []
    for number in range(1, SKELETONS + 1):
        parent = np.maximum(np.arange(1, NODES) - rng.choice([1, 1, 1, 1, 1, 6], NODES - 1), 0)
        positions = np.zeros((NODES, 3))
        for child, of in enumerate(parent, 1):
            positions[child] = positions[of] + rng.normal(0, 100, 3)
        trees.append((number, positions, np.stack([parent, np.arange(1, NODES)], 1)))
    return Skeletons.from_trees(trees)


def joins(skeletons: Skeletons, rng: np.random.Generator) -> tuple[Ids, list[tuple[float, Ids, Ids]]]:
    """Return the fragment of every node, and a LUT per threshold."""
    n = len(skeletons.node_ids)
    a, b = skeletons.links.T
    kept = rng.random(len(a)) < 0.75
    graph = coo_matrix((np.ones(kept.sum()), (a[kept], b[kept])), shape=(n, n))
    number = connected_components(graph, directed=False)[1]
    ids = np.unique(rng.integers(1, 2**60, 2 * n).astype(np.uint64))
    ids = np.sort(rng.choice(ids, number.max() + 1, replace=False))
    fragments = ids[number]
    fragments[rng.random(n) < 0.02] = 0
    right = number[skeletons.links[~kept]]
    wrong = rng.integers(0, len(ids), (SKELETONS // 2, 2))
    luts = []
    for step in range(THRESHOLDS):
        part = (step + 1) / THRESHOLDS
        pairs = np.concatenate([right[: int(part * len(right))], wrong[: int(part**3 * len(wrong))]])
        joined = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(ids), len(ids)))
        group = connected_components(joined, directed=False)[1]
        first = np.unique(group, return_index=True)[1]
        luts.append((part, ids, ids[first][group]))
    return fragments, luts


def emloom(skeletons: Skeletons, fragments: Ids, luts: list[Any]) -> list[Result]:
    return [(point.scores.erl_nm, point.scores.edges) for point in erl_sweep(skeletons, fragments, luts)]


def as_graph(skeletons: Skeletons) -> nx.Graph:
    graph = nx.Graph()
    for node, row in enumerate(skeletons.skeletons.tolist()):
        graph.add_node(node, skeleton=int(skeletons.ids[row]))
    for (a, b), length in zip(skeletons.links.tolist(), skeletons.link_lengths_nm.tolist(), strict=True):
        graph.add_edge(a, b, length=length)
    return graph


def by_graph(graph: nx.Graph, lengths: dict[int, float], segment: dict[int, int]) -> Result:
    met = defaultdict(set)
    for node, data in graph.nodes(data=True):
        met[segment[node]].add(data["skeleton"])
    merging = {s for s, skeletons in met.items() if len(skeletons) > 1}
    counts = dict.fromkeys(EDGE_CLASSES, 0)
    correct: dict[tuple[int, int], list[float]] = defaultdict(list)
    for a, b, data in graph.edges(data=True):
        if segment[a] == 0 or segment[b] == 0:
            counts["omitted"] += 1
        elif segment[a] != segment[b]:
            counts["split"] += 1
        elif segment[a] in merging:
            counts["merged"] += 1
        else:
            counts["correct"] += 1
            correct[graph.nodes[a]["skeleton"], segment[a]].append(data["length"])
    total = sum(lengths.values())
    erl = 0.0
    for (skeleton, _), parts in correct.items():
        length = lengths[skeleton]
        erl += length / total * sum(parts) * (sum(parts) / length)
    return erl, tuple(counts.values())


def clocked(call: Callable[[], list[Result]]) -> tuple[float, list[Result]]:
    start = time.process_time()
    out = call()
    return time.process_time() - start, out


def main() -> None:
    rng = np.random.default_rng(0)
    skeletons = truth(rng)
    fragments, luts = joins(skeletons, rng)
    graph = as_graph(skeletons)
    lengths = dict(zip(skeletons.ids.tolist(), skeletons.lengths_nm.tolist(), strict=True))
    tables = []
    for _, keys, values in luts:
        lut = {0: 0, **dict(zip(keys.tolist(), values.tolist(), strict=True))}
        tables.append({node: lut[f] for node, f in enumerate(fragments.tolist())})
    calls: dict[str, Callable[[], list[Result]]] = {
        "emloom": lambda: emloom(skeletons, fragments, luts),
        "networkx": lambda: [by_graph(graph, lengths, table) for table in tables],
    }
    emloom(skeletons, fragments, luts[:1])  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, list[Result]] = {}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            took, results[name] = clocked(call)
            seconds[name].append(took)
    for ours, theirs in zip(results["emloom"], results["networkx"], strict=True):
        if ours[1] != theirs[1]:
            raise SystemExit(f"links per class differ: {ours[1]} and {theirs[1]}")
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-9)
    erls = [erl for erl, _ in results["emloom"]]
    print(
        f"{len(skeletons.node_ids)} nodes, {len(skeletons.links)} links, {len(np.unique(fragments))} fragments, "
        f"{len(luts)} thresholds; ERL {erls[0]:.0f} nm at the first, {max(erls):.0f} at best, {erls[-1]:.0f} at "
        f"the last; links per class and ERL equal; medians of {ROUNDS}"
    )
    ours_s = median(seconds["emloom"])
    for name, values in seconds.items():
        print(f"{name:<12}{median(values):8.3f} CPU s   {median(values) / ours_s:6.1f}x")
    print(f"RATIO erl {median(seconds['networkx']) / ours_s:.1f}")


if __name__ == "__main__":
    main()
