"""NML files loaded and saved: emloom against the webknossos package.

    make peers
    python benchmarks/skeleton.py

Two files: the evaluation box of genEM3 (1 425 trees, 8 550 nodes; without the real data, trees of that kind), and
one tree of 100 000 nodes with all the attributes that webKnossos writes. CPU seconds of one thread, interleaved,
medians of 5.

Before a time counts: trees, names, nodes with their positions and edges are equal as both load them, as both load
what emloom saved, and as emloom loads what webknossos saved. emloom also keeps what the peer drops: radii of full
precision, times, elements nobody knows; its files say the same as those it read, attribute by attribute.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import Peer

from emloom.geometry.elements import Element
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Tracing, differences
from emloom.io.nml import read_nml_tracing, write_nml

Arrays = dict[str, NDArray[Any]]
ROUNDS = 5
NODES = 100_000
SCALE = (32.0, 11.24, 11.24)


def attributed(skeletons: Skeletons) -> Tracing:
    """Return a tracing with the attributes that webKnossos gives to every node and tree."""
    rng = np.random.default_rng(1)
    bare = Tracing.of(skeletons, SCALE)
    nodes = bare.nodes.replaced("radius", [112.399994] * bare.nodes.n)
    for name, values in {
        "rotX": rng.choice([0.0, 90.0], bare.nodes.n),
        "rotY": rng.choice([0.0, 270.0], bare.nodes.n),
        "rotZ": np.zeros(bare.nodes.n),
        "inVp": rng.integers(0, 3, bare.nodes.n),
        "inMag": rng.integers(0, 3, bare.nodes.n),
        "bitDepth": np.full(bare.nodes.n, 8),
        "interpolation": np.full(bare.nodes.n, True),
        "time": 1_486_471_855_369 + np.arange(bare.nodes.n) * 731,
    }.items():
        nodes = nodes.replaced(name, values)
    trees = bare.trees
    for part in "rgba":
        trees = trees.replaced(f"color.{part}", [1.0] * trees.n)
    experiment = Element.of("experiment", {"name": "benchmark"})
    return replace(bare, nodes=nodes, trees=trees, parameters=(experiment,))


def branching(n: int) -> Tracing:
    """Return one tree: a random walk of whole voxels, every fiftieth node somewhere on the path before."""
    rng = np.random.default_rng(0)
    parents = np.arange(n) - 1
    branch = np.arange(50, n, 50)
    parents[branch] = rng.integers(0, branch)
    steps = rng.integers(-20, 21, (n, 3))
    voxels = np.zeros((n, 3), np.int64)
    for row in range(1, n):
        voxels[row] = voxels[parents[row]] + steps[row]
    voxels -= voxels.min(axis=0)
    edges = np.stack([parents[1:], np.arange(1, n)], axis=1)
    return attributed(Skeletons.from_trees([(1, voxels * np.array(SCALE), edges)], names=("long",)))


def patches() -> Tracing:
    """Return 1 425 trees of 6 nodes, for want of the real ones."""
    rng = np.random.default_rng(0)
    edges = [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [1, 3], [2, 4], [3, 5]]
    corners = rng.integers(0, 20_000, (1425, 1, 3)) + rng.integers(0, 140, (1425, 6, 3))
    trees = [(k + 1, corner * np.array(SCALE), edges) for k, corner in enumerate(corners)]
    skeletons = Skeletons.from_trees(trees, names=[f"patch{k:04d}" for k in range(1425)])
    unique = replace(skeletons, node_ids=np.arange(1, 1 + len(skeletons.node_ids), dtype=np.uint64))
    return attributed(unique)


def files(folder: Path) -> dict[str, Path]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    real = Path(os.environ.get("EMLOOM_DATA", default)) / "artifacts" / "genEM3_boxes" / "test_bottom.nml"
    if not real.is_file():
        real = folder / "patches.nml"
        write_nml(real, patches())
    long = folder / "long.nml"
    write_nml(long, branching(NODES))
    return {"1 425 trees": real.resolve(), "100 000 nodes": long}


def facts(tracing: Tracing) -> Arrays:
    """Return what the peer script returns too."""
    s = tracing.skeletons
    voxels = np.rint(s.positions_nm / np.array(tracing.voxel_size_nm)).astype(np.int64)[:, ::-1]
    ids = s.ids[s.skeletons].astype(np.int64), s.node_ids.astype(np.int64)
    ends = np.sort(s.node_ids[s.edges].astype(np.int64), axis=1)
    return {
        "trees": s.ids.astype(np.int64),
        "names": np.array(s.names),
        "nodes": np.column_stack([*ids, voxels]),
        "edges": np.column_stack([s.ids[s.skeletons[s.edges[:, 0]]].astype(np.int64), ends]),
    }


def require_equal(ours: Arrays, theirs: Arrays, what: str) -> None:
    order = np.argsort(ours["trees"]), np.argsort(theirs["trees"])
    for name in ("trees", "names"):
        np.testing.assert_array_equal(ours[name][order[0]], theirs[name][order[1]], what)
    for name in ("nodes", "edges"):
        rows = [np.unique(each[name], axis=0) for each in (ours, theirs)]
        np.testing.assert_array_equal(*rows, what)
        assert len(rows[0]) == len(ours[name]) == len(theirs[name]), f"{what}: {name} stand twice"


def theirs_of(path: Path) -> Arrays:
    with Peer("webknossos_tracings.py", {}, home="webknossos", what="load", path=str(path)) as peer:
        peer.seconds()
        return peer.results()


def clocked(action: Callable[[], Any]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def measured(path: Path, folder: Path) -> dict[str, tuple[float, float]]:
    """Return (emloom, webknossos) CPU seconds of load and save, after checking that both agree."""
    ours, other = folder / "ours.nml", folder / "theirs.nml"
    tracing = read_nml_tracing(path)
    options = {"home": "webknossos", "path": str(path), "out": str(other)}
    with (
        Peer("webknossos_tracings.py", {}, what="load", **options) as loader,
        Peer("webknossos_tracings.py", {}, what="save", **options) as saver,
    ):
        seconds: dict[str, tuple[list[float], list[float]]] = {"load": ([], []), "save": ([], [])}
        for _ in range(ROUNDS):
            seconds["load"][0].append(clocked(lambda: read_nml_tracing(path)))
            seconds["load"][1].append(loader.seconds())
            seconds["save"][0].append(clocked(lambda: write_nml(ours, tracing, overwrite=True)))
            seconds["save"][1].append(saver.seconds())
        require_equal(facts(tracing), loader.results(), f"{path.name}, loaded by both")
    require_equal(facts(tracing), theirs_of(ours), f"{path.name}, saved by emloom, loaded by webknossos")
    require_equal(facts(tracing), facts(read_nml_tracing(other)), f"{path.name}, saved by webknossos")
    assert differences(read_nml_tracing(ours), tracing) == ()
    return {name: (median(mine), median(their)) for name, (mine, their) in seconds.items()}


def main() -> None:
    ratios = []
    print(f"{'CPU seconds':<24}{'emloom':>10}{'webknossos':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, path in files(folder).items():
            for step, (ours, theirs) in measured(path, folder).items():
                ratios.append(theirs / ours)
                print(f"{what + ', ' + step:<24}{ours:>10.3f}{theirs:>12.3f}{ratios[-1]:>8.1f}", flush=True)
    print("trees, names, nodes and edges are equal, in either direction")
    print(f"RATIO skeleton {exp(sum(map(log, ratios)) / len(ratios)):.1f}")


if __name__ == "__main__":
    main()
