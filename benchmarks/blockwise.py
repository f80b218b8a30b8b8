"""Segmentation block by block: what it costs beside the same work in memory, and what a second process gains.

    python benchmarks/blockwise.py [voxels per side of a cell] [rounds]

256 x 256 x 512 voxels of blurred and noisy affinities (`inputs`), stored as zarr. For both kinds of fragments:

* **memory**: read the affinities, `tasks.segment.grow_tree`, write fragments and segmentation to zarr in the
  layout that blockwise work gives them;
* **tables**: what memory does not do and blockwise work does: edges and nodes measured and written, here at once;
* **blockwise**: `tasks.segmenting.segment`, in this process;
* **2 workers**: the same on two processes, whose start is measured apart: they have done a small job before the
  clock runs. They grow the tree over an octree, as one process does with graphs that memory cannot hold.

Fragments, segmentation and merge tree must be the same bits in all of them. Every process computes on one thread.
The overhead is in CPU seconds, which other work on the machine disturbs less, the speed-up in wall-clock seconds;
best of the rounds, interleaved; the page cache is warm. A table says what blockwise work costs per voxel, for
sizing clusters (`docs/blockwise.md`). The ratio is the speed-up with two workers over one process, with seeded
fragments; with ascent fragments, the default, the tree, which one worker grows, takes a third of the time.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from inputs import blurred_affinities, phantom_labels
from numpy.typing import NDArray

from emloom.geometry import Grid, Vec, cells
from emloom.io.graphstore import GraphInfo
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.ops.agglomerate import MergeTree
from emloom.ops.nodes import node_table
from emloom.ops.regions import region_graph
from emloom.run.cluster import executor_of
from emloom.run.executor import Executor, Serial
from emloom.tasks.graphfiles import load_graph, load_tree, save_cell, save_tree
from emloom.tasks.lattice import chunk_within
from emloom.tasks.segment import grow_tree
from emloom.tasks.segmenting import OnBlock, segment
from emloom.tasks.segmentspec import AscentSpec, FragmentSpec, SeededSpec, SegmentJob, SegmentSpec

CELL = int(sys.argv[1]) if len(sys.argv) > 1 else 256
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
SHAPE = (256, 256, 512)
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
    for _, box in cells(info.box, (64, 256, 512)):
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


def tables_of(affinities: Path, output: Path, kind: FragmentSpec) -> Callable[[], object]:
    """Return what measures the fragments below `output` and writes edges and nodes; it has all it needs."""
    source, fragments = open_volume(affinities), open_volume(output / "fragments")
    ids = fragments.read(fragments.info.box)
    graph = region_graph(ids, source.read(source.info.box), NEAR)
    info = GraphInfo(GRID, spec_of(kind).cell)
    return lambda: save_cell(output, (0, 0, 0), graph, node_table(ids), info)


def blockwise(
    affinities: Path,
    output: Path,
    kind: FragmentSpec,
    executor: Executor,
    on_block: OnBlock | None = None,
) -> None:
    job = SegmentJob(
        affinities=str(affinities), output=str(output), threshold=THRESHOLD, segmentation=spec_of(kind)
    )
    segment(job, executor, on_block)


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
    """Runs the contestants, and keeps the best wall-clock and CPU seconds of each."""

    def __init__(self, folder: Path, affinities: Path) -> None:
        self.folder, self.affinities = folder, affinities
        self.wall: dict[tuple[str, str], float] = {}
        self.cpu: dict[tuple[str, str], float] = {}
        self.stages: dict[tuple[str, str], float] = {}

    def output(self, kind: FragmentSpec, name: str) -> Path:
        return self.folder / f"{name}-{kind.kind}.zarr"

    def run(self, kind: FragmentSpec, name: str, work: Callable[[Path], None]) -> Path:
        """Run once; a better time than before replaces it."""
        output, key = self.output(kind, name), (kind.kind, name)
        shutil.rmtree(output, ignore_errors=True)
        os.sync()  # or what the contestant before has written slows this one down
        self._time(key, lambda: work(output))
        return output

    def round(self, kind: FragmentSpec, workers: Executor) -> None:
        """Run every contestant once, and compare what they made."""
        source = self.affinities
        first = self.run(kind, "memory", lambda out: in_memory(source, out, kind))
        outputs = [
            self.run(kind, "blockwise", self._in_this_process(kind)),
            self.run(kind, "2 workers", lambda out: blockwise(source, out, kind, workers)),
        ]
        expected = arrays_of(first)
        for output in outputs:
            require_same(expected, output)
        self._time((kind.kind, "tables"), tables_of(source, first, kind))

    def _in_this_process(self, kind: FragmentSpec) -> Callable[[Path], None]:
        """Return the work of blockwise segmentation, which also notes the CPU seconds of its stages."""
        told: dict[str, list[float]] = {}

        def note(stage: str, done: int, total: int) -> None:
            told.setdefault(stage, []).append(time.process_time())

        def work(output: Path) -> None:
            blockwise(self.affinities, output, kind, Serial(), on_block=note)
            for stage, times in told.items():
                seconds = times[-1] - times[0]
                self.stages[kind.kind, stage] = min(seconds, self.stages.get((kind.kind, stage), seconds))

        return work

    def _time(self, key: tuple[str, str], work: Callable[[], object]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.wall[key] = min(wall, self.wall.get(key, wall))
        self.cpu[key] = min(cpu, self.cpu.get(key, cpu))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report(bench: Bench, started_s: float) -> float:
    """Print times and costs; return the speed-up of the first kind of fragments."""
    print(
        f"{SHAPE}, cells of {CELL}^3; best of {ROUNDS}; load {os.getloadavg()[0]:.1f}; all results the same bits"
    )
    names = ("memory", "tables", "blockwise", "2 workers")
    print(f"{'':22}" + "".join(f"{name:>11}" for name in names))
    gains = []
    for kind in KINDS:
        for what, found, shown in (("CPU s", bench.cpu, names[:3]), ("wall s", bench.wall, names)):
            print(f"{kind.kind + ', ' + what:22}" + "".join(f"{found[kind.kind, name]:11.2f}" for name in shown))
        memory, written, serial = (bench.cpu[kind.kind, name] for name in names[:3])
        print(f"  overhead {serial / memory - 1:.1%}; {serial / (memory + written) - 1:.1%} of memory with tables")
        alone, two = (bench.wall[kind.kind, name] for name in names[2:])
        gains.append(alone / two)
        print(
            f"  speed-up with 2 workers {gains[-1]:.2f}, with their start ({started_s:.1f} s) "
            f"{alone / (two + started_s):.2f}"
        )
    for kind in KINDS:
        stages = {stage: seconds for (name, stage), seconds in bench.stages.items() if name == kind.kind}
        cost(bench.output(kind, "blockwise"), kind, stages | {"all": bench.cpu[kind.kind, "blockwise"]})
    return gains[0]


def cost(output: Path, kind: FragmentSpec, seconds: dict[str, float]) -> None:
    """Print what a finished segmentation took and takes, per Gvoxel, and for a cubic millimetre at 8 nm."""
    voxels = float(np.prod(SHAPE))
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
            tables_of(small, warm_up.output(kind, "memory"), kind)()
            warm_up.run(kind, "blockwise", partial(blockwise, small, kind=kind, executor=Serial()))
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
