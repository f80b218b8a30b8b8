"""Blockwise segmentation: the same bits as in memory, for any cells (G2), groups, workers, interruptions."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import cc3d
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Block, Grid
from emloom.io import graphstore
from emloom.ops.affinities import neighborhood
from emloom.ops.fragments import name_pieces
from emloom.ops.mutex import Mutex, mutex_fragments
from emloom.ops.regions import region_graph
from emloom.run.cluster import executor_of
from emloom.run.executor import Executor
from emloom.run.runner import BlocksFailedError
from emloom.tasks import segmentblocks
from emloom.tasks.graphfiles import load_graph, load_nodes
from emloom.tasks.memoryplan import PROCESS_BYTES, memory_plan
from emloom.tasks.segment import Segmented, grow_tree, load_segmented
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import (
    AscentSpec,
    FragmentSpec,
    LinkageSpec,
    MaxLinkage,
    MeanLinkage,
    MutexLinkage,
    MutexSpec,
    QuantileLinkage,
    SeededSpec,
    SegmentJob,
    SegmentSpec,
)
from tests.marks import first_fast
from tests.tasks.weaving import GRID, OFFSETS, few_values, same, voxels, write_affinities, write_mask

SHAPE = (70, 50, 65)
T = 0.6
LINKAGES: tuple[LinkageSpec, ...] = (MeanLinkage(), QuantileLinkage(quantile=50), MaxLinkage())


@pytest.fixture(scope="module")
def affinities(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_affinities(tmp_path_factory.mktemp("few") / "pred.zarr", few_values(SHAPE, 0))


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Executor]:
    with executor_of(2) as executor:
        yield executor


def job(affinities: str, output: Path, spec: SegmentSpec, **more: object) -> SegmentJob:
    return SegmentJob(affinities=affinities, output=str(output), threshold=T, segmentation=spec, **more)


def in_memory(affinities: str, spec: SegmentSpec, mask: str | None = None) -> Segmented:
    mask_ZYX = None if mask is None else voxels(Path(mask))
    return grow_tree(voxels(Path(affinities)), OFFSETS, GRID, spec, mask_ZYX)


def equals(out: Path, whole: Segmented) -> bool:
    found = load_segmented(out)
    columns = ("score_num", "score_den", "a", "b")
    return (
        np.array_equal(found.fragments, whole.fragments)
        and all(np.array_equal(getattr(found.tree, c), getattr(whole.tree, c)) for c in columns)
        and np.array_equal(voxels(out / "segmentation"), whole.at(T))
        and not (out / "graph" / "points").exists()
    )


@pytest.mark.parametrize("linkage", first_fast(LINKAGES), ids=lambda linkage: linkage.kind)
def test_ascending_fragments_do_not_depend_on_cells(linkage: LinkageSpec, affinities: str, tmp_path: Path) -> None:
    """G2, with affinities of four distinct values, for trees grown at once and in parts."""
    spec = SegmentSpec(fragments=AscentSpec(), linkage=linkage, thresholds=(0.3, T))
    whole = in_memory(affinities, spec)
    assert len(whole.tree) > 100
    for n, (cell, at_once) in enumerate(product(((32,) * 3, (48,) * 3, (64,) * 3, (19, 50, 33)), (True, False))):
        cells = spec.model_copy(update={"cell_shape_vox": cell})
        out = segment(job(affinities, tmp_path / f"{n}.zarr", cells), graph_bytes=None if at_once else 0)
        assert equals(out, whole), (cell, at_once)
        assert (out / "graph" / "octree").exists() != at_once


@pytest.mark.parametrize("per_section", [False, True])
def test_ascending_fragments_in_a_mask_that_touches_faces(
    per_section: bool, affinities: str, tmp_path: Path
) -> None:
    mask_ZYX = np.zeros(SHAPE, np.uint8)
    mask_ZYX[:, 3:48, :33] = 1
    mask_ZYX[20:40, 10:20, :] = 7
    mask = write_mask(tmp_path / "mask.zarr", mask_ZYX)
    fragments = AscentSpec(per_section=per_section, background=0.2, least_affinity=0.1, smoothing_vox=(1, 2, 0))
    spec = SegmentSpec(fragments=fragments, thresholds=(T,), cell_shape_vox=(32, 32, 32))
    out = segment(job(affinities, tmp_path / "out.zarr", spec, mask=mask), graph_bytes=0)
    whole = in_memory(affinities, spec, mask)
    assert equals(out, whole)
    assert not whole.fragments[mask_ZYX == 0].any()
    assert whole.fragments.any()


@pytest.mark.parametrize("per_section", first_fast([False, True]))
def test_seeded_fragments_depend_on_cells_alone(
    per_section: bool, affinities: str, tmp_path: Path, two_workers: Executor
) -> None:
    """G1: in memory, one after the other, and on two workers, the same cells give the same bits."""
    fragments = SeededSpec(seed_distance_vox=4, per_section=per_section, halo_vox=8, min_size_vox=5)
    spec = SegmentSpec(fragments=fragments, thresholds=(0.3, T), cell_shape_vox=(32, 32, 32))
    whole = in_memory(affinities, spec)
    for name, executor, graph_bytes in (("serial", None, None), ("parts", None, 0), ("dask", two_workers, 0)):
        out = segment(job(affinities, tmp_path / f"{name}.zarr", spec), executor, graph_bytes=graph_bytes)
        assert equals(out, whole), name
        assert (out / "graph" / "octree").exists() == (graph_bytes == 0)


@pytest.mark.parametrize("per_section", first_fast([True, False]))
def test_mutex_fragments_depend_on_cells_alone(per_section: bool, tmp_path: Path, two_workers: Executor) -> None:
    """G1, and long channels change nothing in the graph."""
    offsets = neighborhood(1, 5)
    values = np.concatenate([few_values(SHAPE, 0), few_values(SHAPE, 1)])
    source = write_affinities(tmp_path / "pred.zarr", values, offsets)
    fragments = MutexSpec(
        per_section=per_section, halo_vox=8, min_size_vox=5, bias=0.1, repulsive_stride_vox=(1, 2, 2)
    )
    spec = SegmentSpec(fragments=fragments, thresholds=(0.3, T), cell_shape_vox=(32, 32, 32))
    mask_ZYX = np.zeros(SHAPE, np.uint8)
    mask_ZYX[:, 3:48, :60] = 1
    mask = write_mask(tmp_path / "mask.zarr", mask_ZYX)
    whole = grow_tree(values, offsets, GRID, spec, mask_ZYX)
    for name, executor, graph_bytes in (("serial", None, None), ("dask", two_workers, 0)):
        out = segment(job(source, tmp_path / f"{name}.zarr", spec, mask=mask), executor, graph_bytes=graph_bytes)
        assert equals(out, whole), name
    assert np.array_equal(name_pieces(whole.fragments), whole.fragments)
    # One cell by hand: what its halo shows, cropped.
    low, high = (32, 64) if per_section else (24, 70)
    cell = mutex_fragments(
        values[:, low:high, :40, :40],
        offsets,
        Mutex(26, (1, 2, 2), per_section),
        mask_ZYX=mask_ZYX[low:high, :40, :40],
        origin=(low, 0, 0),
        total_shape=SHAPE,
    )
    cropped = name_pieces(cell[32 - low : 64 - low, :32, :32], (32, 0, 0), SHAPE, min_size=5)
    assert np.array_equal(cropped, whole.fragments[32:64, :32, :32])


def test_two_workers_find_what_one_does(affinities: str, tmp_path: Path, two_workers: Executor) -> None:
    spec = SegmentSpec(fragments=AscentSpec(), thresholds=(T,), cell_shape_vox=(32, 32, 32))
    out = segment(job(affinities, tmp_path / "dask.zarr", spec), two_workers)
    assert equals(out, in_memory(affinities, spec))


def test_fragments_and_edges_are_what_they_say(affinities: str, tmp_path: Path) -> None:
    spec = SegmentSpec(
        fragments=SeededSpec(seed_distance_vox=4, halo_vox=8), thresholds=(T,), cell_shape_vox=(32, 32, 32)
    )
    out = segment(job(affinities, tmp_path / "out.zarr", spec))
    fragments = voxels(out / "fragments")
    pieces = cc3d.connected_components(fragments, connectivity=6, out_dtype=np.uint32)
    assert int(pieces.max()) == len(np.unique(fragments[fragments > 0]))
    graph, nodes = load_graph(out), load_nodes(out)
    assert graph == region_graph(fragments, voxels(Path(affinities)), OFFSETS)
    cut = 0
    for axis in range(3):
        a, b = (np.take(fragments, np.arange(*r), axis) for r in ((1, SHAPE[axis]), (0, SHAPE[axis] - 1)))
        cut += int(((a != b) & (a > 0) & (b > 0)).sum())
    assert int(graph.n.sum()) == cut
    ids, sizes = np.unique(fragments[fragments > 0], return_counts=True)
    assert np.array_equal(nodes["id"], ids)
    assert np.array_equal(nodes["size"], sizes)


def test_a_second_run_does_nothing(affinities: str, tmp_path: Path) -> None:
    spec = SegmentSpec(fragments=AscentSpec(), thresholds=(T,), cell_shape_vox=(32, 32, 32))
    out = segment(job(affinities, tmp_path / "out.zarr", spec))
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    told: list[str] = []
    assert segment(job(affinities, out, spec), on_block=lambda name, *_: told.append(name)) == out
    assert told == []
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}


def test_interrupted_anywhere_it_goes_on_and_ends_the_same(affinities: str, tmp_path: Path) -> None:
    """Twenty interruptions, each at a random block of what was left."""
    spec = SegmentSpec(fragments=AscentSpec(), thresholds=(T,), cell_shape_vox=(32, 32, 32))
    clean = segment(job(affinities, tmp_path / "clean.zarr", spec))
    rng = np.random.default_rng(0)
    unlucky = job(affinities, tmp_path / "unlucky.zarr", spec)
    interruptions = 0
    for _ in range(20):
        left = int(rng.integers(1, 5))

        def impatient(name: str, done: int, total: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        try:
            segment(unlucky, on_block=impatient)
        except KeyboardInterrupt:
            interruptions += 1
            assert not Path(unlucky.output).exists()
    assert interruptions >= 10
    assert same(segment(unlucky), clean)


def test_a_poisoned_block_is_listed_and_the_others_are_done(
    affinities: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SegmentSpec(fragments=SeededSpec(halo_vox=8), thresholds=(T,), cell_shape_vox=(32, 32, 32))
    spoiled = job(affinities, tmp_path / "out.zarr", spec)
    honest = segmentblocks.CutFragments.__call__

    def poisoned(self: segmentblocks.CutFragments, block: Block) -> list[object]:
        if block.index == (1, 0, 1):
            raise ZeroDivisionError("a bug")
        return list(honest(self, block))

    with monkeypatch.context() as patch:
        patch.setattr(segmentblocks.CutFragments, "__call__", poisoned)
        with pytest.raises(BlocksFailedError, match=r"1 of 18 blocks of stage 'fragments' failed[\s\S]*1_0_1"):
            segment(spoiled)
    assert not Path(spoiled.output).exists()
    assert equals(segment(spoiled), in_memory(affinities, spec))


def test_other_parameters_and_changed_inputs_are_refused(affinities: str, tmp_path: Path) -> None:
    source = write_affinities(tmp_path / "pred.zarr", voxels(Path(affinities))[:, :20])
    spec = SegmentSpec(fragments=AscentSpec(), thresholds=(T,), cell_shape_vox=(32, 32, 32))
    out = segment(job(source, tmp_path / "out.zarr", spec))
    other = spec.model_copy(update={"linkage": MaxLinkage()})
    with pytest.raises(InputError, match=r"another job \(segmentation\.linkage\.kind was .mean., is .max.\)"):
        segment(job(source, out, other))
    assert segment(job(source, out, other), discard=True) == out
    assert equals(out, grow_tree(voxels(Path(source)), OFFSETS, GRID, other))
    write_affinities(tmp_path / "new.zarr", 255 - voxels(Path(source)))
    (tmp_path / "pred.zarr").rename(tmp_path / "old.zarr")
    (tmp_path / "new.zarr").rename(tmp_path / "pred.zarr")
    with pytest.raises(InputError, match="has changed since"):
        segment(job(source, out, other))


def test_look_up_tables_and_small_segments(affinities: str, tmp_path: Path) -> None:
    spec = SegmentSpec(fragments=AscentSpec(), thresholds=(0.3, T), cell_shape_vox=(32, 32, 32))
    out = segment(job(affinities, tmp_path / "out.zarr", spec, luts=(0.57, 0.3), min_segment_vox=40))
    whole = in_memory(affinities, spec)
    names = sorted(p.name for p in (out / "graph" / "luts" / "mean").iterdir())
    assert names == ["0.3.parquet", "0.57.parquet", "0.6.parquet"]
    fragment, segments = graphstore.read_lut(graphstore.lut_file(out, "mean", 0.57))
    ended, onto = whole.tree.table(0.57)
    assert np.array_equal(fragment, ended)
    assert np.array_equal(segments, onto)
    ids, sizes = np.unique(whole.at(T), return_counts=True)
    small = ids[sizes < 40]
    assert 0 < len(small) < len(ids) - 2
    assert np.array_equal(voxels(out / "segmentation"), np.where(np.isin(whole.at(T), small), 0, whole.at(T)))


def test_bad_inputs_are_named(affinities: str, tmp_path: Path) -> None:
    spec = SegmentSpec(thresholds=(T,))
    shifted = write_mask(tmp_path / "shifted.zarr", np.ones(SHAPE, np.uint8), Grid((20.0, 10.0, 10.0)))
    small = write_mask(tmp_path / "small.zarr", np.ones((3, 3, 3), np.uint8))
    for mask in (shifted, small):
        with pytest.raises(InputError, match="is not on the grid of"):
            segment(job(affinities, tmp_path / "out.zarr", spec, mask=mask))
    with pytest.raises(InputError, match="needs uint8 affinities"):
        segment(job(shifted, tmp_path / "out.zarr", spec))
    assert not list(tmp_path.glob("out*"))


def driver(segment_job: SegmentJob, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a segmentation in a process of its own; it prints the most memory it held."""
    segment_job.dump(folder / "job.yaml")
    command = [sys.executable, str(Path(__file__).with_name("measured.py")), str(folder / "job.yaml"), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.fault(
    "processes",
    "`emloom segment` is killed at random while it works",
    "it goes on, and ends with the same bits",
)
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_it_goes_on_and_ends_the_same(kills: int, affinities: str, tmp_path: Path) -> None:
    spec = SegmentSpec(fragments=AscentSpec(), thresholds=(T,), cell_shape_vox=(20, 20, 20))
    clean = segment(job(affinities, tmp_path / "clean.zarr", spec))
    unlucky, rng, died = job(affinities, tmp_path / "unlucky.zarr", spec), np.random.default_rng(kills), 0
    while died < kills and not Path(unlucky.output).exists():
        before = len(list(tmp_path.glob("unlucky.unfinished.zarr/run/*/*/done/*")))
        with driver(unlucky, tmp_path) as process:
            # Start-up takes seconds: wait until it works, so that kills hit the work.
            while process.poll() is None:
                done = len(list(tmp_path.glob("unlucky.unfinished.zarr/run/*/*/done/*")))
                if done > before + rng.integers(1, 8):
                    break
                time.sleep(0.002)
            died += process.poll() is None
            process.kill()
        assert not Path(unlucky.output).exists() or process.returncode == 0
    assert died >= 1
    assert same(segment(unlucky), clean)


KINDS = (AscentSpec(), SeededSpec(halo_vox=16), MutexSpec(halo_vox=16))


@pytest.mark.parametrize("kind", first_fast(KINDS), ids=lambda kind: kind.kind)
def test_memory_stays_below_what_was_said_before(kind: FragmentSpec, tmp_path: Path) -> None:
    """Cells bound it: 27 of them take less than the whole volume would."""
    values = few_values((144, 144, 144), 3, values=16)
    far = isinstance(kind, MutexSpec)
    offsets = neighborhood(1, 4) if far else OFFSETS
    source = write_affinities(tmp_path / "pred.zarr", np.concatenate([values, values]) if far else values, offsets)
    spec = SegmentSpec(fragments=kind, thresholds=(T,), cell_shape_vox=(48, 48, 48))
    bounded = job(source, tmp_path / "out.zarr", spec)
    graph_bytes = 16 * 2**20
    with driver(bounded, tmp_path, str(graph_bytes)) as process:
        said, _ = process.communicate()
    peak = int(said)
    plan = memory_plan(bounded)
    assert plan.cells == 27
    assert peak < plan.worker_bytes + graph_bytes
    whole = memory_plan(
        job(source, tmp_path / "x.zarr", spec.model_copy(update={"cell_shape_vox": (144, 144, 144)}))
    )
    assert peak - PROCESS_BYTES < (whole.worker_bytes - PROCESS_BYTES) / 2


def test_the_mutex_watershed_of_the_graph(tmp_path: Path, two_workers: Executor) -> None:
    """Cells, then one pass over the graph: the same bits in memory, here and on two workers (G1)."""
    offsets = neighborhood(1, 4)
    source = write_affinities(tmp_path / "pred.zarr", np.tile(few_values((40, 50, 40), 4), (2, 1, 1, 1)), offsets)
    spec = SegmentSpec(
        fragments=MutexSpec(halo_vox=8), linkage=MutexLinkage(), thresholds=(0.0, T), cell_shape_vox=(20, 32, 32)
    )
    whole = grow_tree(voxels(Path(source)), offsets, GRID, spec)
    assert 0 < whole.tree.count(T) < len(whole.tree)
    for n, executor in enumerate((None, two_workers)):
        assert equals(segment(job(source, tmp_path / f"{n}.zarr", spec), executor), whole)
    mean = grow_tree(voxels(Path(source)), offsets, GRID, spec.model_copy(update={"linkage": MeanLinkage()}))
    assert len(np.unique(mean.at(0.0))) < len(np.unique(whole.at(0.0)))  # some merges are forbidden
    with pytest.raises(InputError, match="use a machine with more memory"):
        segment(job(source, tmp_path / "large.zarr", spec), graph_bytes=0)
    near = write_affinities(tmp_path / "near.zarr", few_values((20, 20, 20), 5))
    with pytest.raises(InputError, match="train a network that predicts some"):
        segment(job(near, tmp_path / "near-seg.zarr", spec))
