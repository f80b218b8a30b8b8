"""Segmentation block by block: what it costs beside the same work in memory, and what a second process gains.

    python benchmarks/blockwise.py [voxels per side of a cell] [rounds]

256 x 512 x 512 voxels of blurred and noisy affinities (`inputs`), stored as zarr. For both kinds of fragments:

* **memory**: read the affinities, `tasks.segment.grow_tree`, write fragments and segmentation to zarr in the
  layout that blockwise work gives them;
* **blockwise**: `tasks.segmenting.segment`, in this process; **2 workers**: the same on two processes, whose start
  is measured apart: they have done a small job before the clock runs.

Fragments, segmentation and merge tree must be the same bits in all three. Every process computes on one thread.
Wall-clock seconds, best of the rounds, interleaved; the page cache is warm. A table says what blockwise work costs
per voxel, for sizing clusters (`docs/blockwise.md`). The ratio is the speed-up with two workers over one process,
the smaller one of the two kinds of fragments.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from inputs import blurred_affinities, phantom_labels
from numpy.typing import NDArray

from emloom.geometry import Grid, Vec, cells
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.ops.agglomerate import MergeTree
from emloom.run.cluster import executor_of
from emloom.run.executor import Executor, Serial
from emloom.tasks.graphfiles import load_graph, load_tree, save_tree
from emloom.tasks.lattice import chunk_within
from emloom.tasks.segment import grow_tree
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import AscentSpec, FragmentSpec, SeededSpec, SegmentJob, SegmentSpec

CELL = int(sys.argv[1]) if len(sys.argv) > 1 else 256
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
SHAPE = (256, 512, 512)
SMALL = (32, 64, 64)
NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
GRID = Grid((8.0, 8.0, 8.0))
THRESHOLD = 0.5
KINDS: tuple[FragmentSpec, ...] = (SeededSpec(), AscentSpec())
CUBIC_MILLIMETRE = 1e18 / 8.0**3
"""Voxels of 8 nm."""


def store(folder: Path, shape: Vec) -> Path:
    """Store affinities of a phantom; return their path."""
    path = folder / f"affinities-{shape[0]}.zarr"
    values = blurred_affinities(phantom_labels(shape), NEAR)
    info = VolumeInfo(shape, np.dtype(np.uint8), GRID, channels=3, kind="affinities", neighborhood=NEAR)
    volume = create_volume(path, info)
    for _, box in cells(info.box, (64, 512, 512)):
        volume.write(box, values[(slice(None), *box.slices())])
    return path


def spec_of(kind: FragmentSpec) -> SegmentSpec:
    return SegmentSpec(fragments=kind, thresholds=(THRESHOLD,), cell_shape_vox=(CELL,) * 3)


def in_memory(affinities: Path, output: Path, kind: FragmentSpec) -> None:
    spec, source = spec_of(kind), open_volume(affinities)
    grown = grow_tree(source.read(source.info.box), NEAR, GRID, spec)
    info = VolumeInfo(source.info.shape, np.dtype(np.uint64), GRID, kind="labels", chunks=chunk_within(spec.cell))
    for name, ids in (("fragments", grown.fragments), ("segmentation", grown.at(THRESHOLD))):
        create_volume(output / name, info).write(info.box, ids)
    save_tree(output, grown.tree)


def blockwise(affinities: Path, output: Path, kind: FragmentSpec, executor: Executor) -> None:
    job = SegmentJob(
        affinities=str(affinities), output=str(output), threshold=THRESHOLD, segmentation=spec_of(kind)
    )
    segment(job, executor)


def arrays_of(output: Path) -> dict[str, NDArray[Any]]:
    found = {}
    for name in ("fragments", "segmentation"):
        volume = open_volume(output / name)
        found[name] = volume.read(volume.info.box)
    tree: MergeTree = load_tree(output)
    return found | {name: getattr(tree, name) for name in ("a", "b", "score_num", "score_den")}


def require_same(expected: dict[str, NDArray[Any]], output: Path) -> None:
    for name, array in arrays_of(output).items():
        if not np.array_equal(array, expected[name]):
            raise SystemExit(f"{name} of {output.stem} are not those made in memory")


class Bench:
    """Runs the contestants, keeps the best wall-clock seconds of each, and the results of the last round."""

    def __init__(self, folder: Path, affinities: Path) -> None:
        self.folder, self.affinities = folder, affinities
        self.best: dict[tuple[str, str], float] = {}

    def output(self, kind: FragmentSpec, name: str) -> Path:
        return self.folder / f"{name}-{kind.kind}.zarr"

    def run(self, kind: FragmentSpec, name: str, work: Callable[[Path], None]) -> Path:
        """Run once; a better time than before replaces it."""
        output = self.output(kind, name)
        shutil.rmtree(output, ignore_errors=True)
        os.sync()  # or what the contestant before has written slows this one down
        start = time.perf_counter()
        work(output)
        seconds = time.perf_counter() - start
        self.best[kind.kind, name] = min(seconds, self.best.get((kind.kind, name), seconds))
        return output

    def round(self, kind: FragmentSpec, workers: Executor) -> None:
        """Run every contestant once, and compare what they made."""
        outputs = [
            self.run(kind, "memory", lambda out: in_memory(self.affinities, out, kind)),
            self.run(kind, "blockwise", lambda out: blockwise(self.affinities, out, kind, Serial())),
            self.run(kind, "2 workers", lambda out: blockwise(self.affinities, out, kind, workers)),
        ]
        expected = arrays_of(outputs[0])
        for output in outputs[1:]:
            require_same(expected, output)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report(bench: Bench, started_s: float) -> float:
    """Print times and costs; return the smaller speed-up."""
    print(f"{SHAPE}, cells of {CELL}^3; wall-clock seconds, best of {ROUNDS}; all results the same bits")
    print(f"{'fragments':12}{'memory':>9}{'blockwise':>11}{'overhead':>10}{'2 workers':>11}{'speed-up':>10}")
    gains = []
    for kind in KINDS:
        memory, serial, two = (bench.best[kind.kind, name] for name in ("memory", "blockwise", "2 workers"))
        gains.append(serial / two)
        print(
            f"{kind.kind:12}{memory:9.2f}{serial:11.2f}{serial / memory - 1:10.1%}{two:11.2f}{gains[-1]:9.2f}x"
            f"   with start-up of {started_s:.1f} s {serial / (two + started_s):.2f}x"
        )
    for kind in KINDS:
        cost(bench.output(kind, "blockwise"), kind)
    return min(gains)


def cost(output: Path, kind: FragmentSpec) -> None:
    """Print what a finished segmentation took and takes, per Gvoxel, and for a cubic millimetre at 8 nm."""
    voxels = float(np.prod(SHAPE))
    seconds = json.loads((output / "provenance.json").read_text())["seconds"]
    graph = load_graph(output)
    fragments = len(np.unique(np.concatenate([graph.u, graph.v])))
    sizes = {name: size_of(output / name) / voxels for name in ("fragments", "segmentation", "graph", "run")}
    print(f"{kind.kind} fragments, blockwise{'':15}{'per Gvoxel':>12}{'per mm^3 (8 nm)':>20}")
    for name, value in (("fragments", fragments), ("edges", len(graph))):
        print(f"  {name:38}{value / voxels * 1e9:12.3g}{value / voxels * CUBIC_MILLIMETRE:20.3g}")
    for name, size in sizes.items():
        print(f"  {name + ', GB stored':38}{size:12.3f}{size * CUBIC_MILLIMETRE / 1e9:20.3g}")
    for name, value in seconds.items():
        hours = value / voxels * CUBIC_MILLIMETRE / 3600
        print(f"  {name + ', core-seconds (mm^3: core-hours)':38}{value / voxels * 1e9:12.1f}{hours:20.3g}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="emloom-blockwise-") as name:
        folder = Path(name)
        small, large = store(folder, SMALL), store(folder, SHAPE)
        warm_up = Bench(folder / "small", small)
        for kind in KINDS:  # compile here, so that workers find it compiled
            warm_up.run(kind, "memory", lambda out, kind=kind: in_memory(small, out, kind))
            warm_up.run(kind, "blockwise", lambda out, kind=kind: blockwise(small, out, kind, Serial()))
        bench, start = Bench(folder, large), time.perf_counter()
        with executor_of(2) as workers:
            # Small cells, so that both workers get some.
            for kind in KINDS:
                out = warm_up.output(kind, "2 workers")
                spec = spec_of(kind).model_copy(update={"cell_shape_vox": (16, 16, 16)})
                job = SegmentJob(affinities=str(small), output=str(out), threshold=THRESHOLD, segmentation=spec)
                segment(job, workers)
            started_s = time.perf_counter() - start
            for _ in range(ROUNDS):
                for kind in KINDS:
                    bench.round(kind, workers)
        gain = report(bench, started_s)
    print(f"RATIO blockwise {gain:.2f}")


if __name__ == "__main__":
    main()
