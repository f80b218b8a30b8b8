"""Synapses from whatever file holds them: the same table, the same voxels, and no guess."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.skeletons import Skeletons, voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.geometry.tracings import Marks, Tracing
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.cremi import write_annotations
from emloom.io.nml import write_nml
from emloom.io.synapsetable import write_synapse_table
from emloom.io.volume import ArrayVolume
from emloom.ops.polyads import polyads_of, sides_of
from emloom.tasks.synapsedata import site_labels, within
from emloom.tasks.synapsesource import first_rows, read_any_sites, read_any_synapses, segments_at
from tests.tasks.synaptic import GRID, tissue

SIZE = GRID.voxel_size_nm
OFFSET = np.array(GRID.offset_nm)


@pytest.fixture(scope="module")
def grown():
    return tissue(n=12)


def same(found: SynapseTable, wanted: SynapseTable) -> None:
    """Whether two tables hold the same contacts between the same sites, whatever their ids and order."""

    def contacts(table: SynapseTable) -> list[tuple[float, ...]]:
        rows = np.concatenate(
            [table.pre_nm, table.post_nm, table.pre_segments[:, None], table.post_segments[:, None]], axis=1
        )
        return sorted(map(tuple, np.round(rows, 3).tolist()))

    assert contacts(found) == contacts(wanted)
    groups = [sorted(np.bincount(np.unique(t.polyads, return_inverse=True)[1]).tolist()) for t in (found, wanted)]
    assert groups[0] == groups[1]


def cremi_file(path: Path, table: SynapseTable, seed: int, resolution: bool = True) -> Path:
    """Write a table as CREMI has it: sites shuffled, partners by id and in an order of their own."""
    rng = np.random.default_rng(seed)
    head = first_rows(table.polyads)
    ids = rng.permutation(np.arange(100, 100 + len(head) + len(table))).astype(np.uint64)
    pre_ids, post_ids = ids[: len(head)], ids[len(head) :]
    of_row = pre_ids[np.searchsorted(table.polyads[head], table.polyads)]
    at = np.concatenate([table.pre_nm[head], table.post_nm]) - np.array(SIZE) / 2
    types = np.array([PRE] * len(head) + [POST] * len(table))
    order = rng.permutation(len(ids))
    partners = np.stack([of_row, post_ids], axis=1)[rng.permutation(len(table))]
    sites = Annotations(ids[order], tuple(types[order].tolist()), at[order], partners)
    write_annotations(path, sites, offset_nm=(10.0, 20.0, 30.0))
    if resolution:
        with h5py.File(path, "r+") as h5:
            h5["volumes/raw"] = np.zeros((2, 2, 2), np.uint8)
            h5["volumes/raw"].attrs["resolution"] = SIZE
    return path


def nml_file(path: Path, table: SynapseTable) -> Path:
    """Write every polyad as a tree: a pre node, a nameless one, post nodes; and one tree that is no synapse."""
    positions, trees, edges, rows, words = [], [], [], [], []
    polyads = np.unique(table.polyads)
    for tree, polyad in enumerate(polyads):
        mine = np.flatnonzero(table.polyads == polyad)
        first = len(positions)
        positions += [table.pre_nm[mine[0]], table.pre_nm[mine[0]] + 5, *table.post_nm[mine]]
        trees += [tree] * (2 + len(mine))
        edges += [(first, first + 1), *((first + 1, first + 2 + k) for k in range(len(mine)))]
        rows += [first, *(first + 2 + k for k in range(len(mine)))]
        words += ["Presynaptic", *(f"post {k}" for k in range(len(mine)))]
    positions += [np.zeros(3)]
    trees += [len(polyads)]
    skeletons = Skeletons(
        ids=np.arange(1, len(polyads) + 2, dtype=np.uint64),
        skeletons=np.array(trees, np.int64),
        node_ids=np.arange(1, len(trees) + 1, dtype=np.uint64),
        positions_nm=np.array(positions),
        edges=np.array(edges, np.int64),
    )
    write_nml(path, replace(Tracing.of(skeletons, SIZE), comments=Marks.of(rows, content=words)))
    return path


def test_partners_are_joined_by_id_in_any_order(tmp_path: Path, grown) -> None:
    """The original took rows 2 i and 2 i + 1 of the locations for partners: a third of sample C was lost."""
    neurons = ArrayVolume(grown.neurons, GRID)
    for seed in range(3):
        path = cremi_file(tmp_path / f"{seed}.h5", grown.table, seed)
        same(read_any_synapses(path, neurons), grown.table)


def test_half_a_voxel_is_added_to_what_cremi_says(tmp_path: Path, grown) -> None:
    path = cremi_file(tmp_path / "a.h5", grown.table, 0)
    voxels = voxels_containing(GRID, read_any_synapses(path).pre_nm)
    assert set(map(tuple, voxels.tolist())) == set(
        map(tuple, voxels_containing(GRID, grown.table.pre_nm).tolist())
    )
    assert len(read_any_sites(path)) == len(first_rows(grown.table.polyads)) + len(grown.table)
    bare = cremi_file(tmp_path / "b.h5", grown.table, 0, resolution=False)
    with pytest.raises(InputError, match="no volume that states a voxel size"):
        read_any_synapses(bare)
    same(read_any_synapses(bare, ArrayVolume(grown.neurons, GRID)), grown.table)
    assert len(read_any_synapses(bare, voxel_size_nm=SIZE)) == len(grown.table)


def test_a_tracing_holds_the_same_synapses(tmp_path: Path, grown) -> None:
    path = nml_file(tmp_path / "a.nml", grown.table)
    found = read_any_synapses(path, ArrayVolume(grown.neurons, GRID))
    same(found, grown.table)
    assert len(read_any_sites(path)) == len(first_rows(grown.table.polyads)) + len(grown.table)


@pytest.mark.parametrize(
    ("words", "problem"),
    [(("pre", "note"), "1 nodes commented 'pre' and 0"), (("x", "Post"), "0 nodes commented 'pre' and 1"),
     (("pre", "pre 2"), "2 nodes commented 'pre'")],
)  # fmt: skip
def test_half_a_synapse_in_a_tracing_is_an_error(tmp_path: Path, words, problem: str) -> None:
    two = Skeletons(
        ids=np.array([4], np.uint64),
        skeletons=np.zeros(2, np.int64),
        node_ids=np.array([1, 2], np.uint64),
        positions_nm=np.zeros((2, 3)),
        edges=np.array([[0, 1]]),
    )
    write_nml(tmp_path / "a.nml", replace(Tracing.of(two, SIZE), comments=Marks.of([0, 1], content=words)))
    with pytest.raises(InputError, match=problem):
        read_any_synapses(tmp_path / "a.nml")


def test_tables_keep_their_segments_unless_neurons_are_given(tmp_path: Path, grown) -> None:
    for name in ("t.parquet", "t.csv"):
        write_synapse_table(tmp_path / name, grown.table)
        same(read_any_synapses(tmp_path / name), grown.table)
    others = ArrayVolume(grown.neurons + np.uint64(10), GRID)
    found = read_any_synapses(tmp_path / "t.parquet", others)
    assert np.array_equal(found.pre_segments, grown.table.pre_segments + np.uint64(10))
    with pytest.raises(InputError, match="is no file of synapses"):
        read_any_synapses(tmp_path / "t.txt")


def test_segments_outside_are_zero(grown) -> None:
    points = np.array([OFFSET - 1, OFFSET, GRID.to_world(grown.neurons.shape)])
    assert segments_at(ArrayVolume(grown.neurons, GRID), points).tolist() == [0, 1, 0]


# ---- balls as a volume -----------------------------------------------------------------------------------------


def labels_of(grown, radius: float = 35.0, table: SynapseTable | None = None):
    raw, neurons = ArrayVolume(grown.raw, GRID), ArrayVolume(grown.neurons, GRID)
    return site_labels(grown.table if table is None else table, raw.info, neurons, radius, radius)


def test_every_box_of_the_labels_is_that_of_the_whole(grown) -> None:
    labels = labels_of(grown)
    whole = labels.read(labels.info.box)
    rng = np.random.default_rng(0)
    for _ in range(12):
        start = rng.integers(0, np.array(labels.info.shape) - 1)
        box = Box(tuple(start.tolist()), tuple((rng.integers(1, 20, 3)).tolist())).intersect(labels.info.box)
        assert np.array_equal(labels.read(box), whole[box.slices()])
    assert labels.read(Box((3, 3, 3), (0, 4, 4))).shape == (0, 4, 4)


def test_sites_lie_in_their_balls_and_balls_in_their_neurons(grown) -> None:
    labels, table = labels_of(grown), grown.table
    whole = labels.read(labels.info.box)
    pre, post = (voxels_containing(GRID, p) for p in (table.pre_nm, table.post_nm))
    assert np.array_equal(polyads_of(whole)[tuple(pre.T)], table.polyads)
    assert np.array_equal(polyads_of(whole)[tuple(post.T)], table.polyads)
    assert not sides_of(whole)[tuple(pre.T)].any()
    assert sides_of(whole)[tuple(post.T)].all()
    for polyad in np.unique(table.polyads):
        rows = table.polyads == polyad
        held = np.unique(grown.neurons[(polyads_of(whole) == polyad) & (sides_of(whole) == 0)])
        assert held.tolist() == [table.pre_segments[rows][0]]
    with pytest.raises(InputError, match="change the table"):
        labels.write(labels.info.box, whole)


def test_rows_of_the_table_may_stand_in_any_order(grown) -> None:
    order = np.random.default_rng(1).permutation(len(grown.table))
    a, b = labels_of(grown), labels_of(grown, table=grown.table.rows(order))
    assert np.array_equal(a.read(a.info.box), b.read(b.info.box))


def test_what_no_labels_can_be_drawn_of(grown) -> None:
    with pytest.raises(InputError, match="holds no synapse"):
        labels_of(grown, table=SynapseTable.empty())
    with pytest.raises(InputError, match="less than half a voxel"):
        labels_of(grown, radius=4.0)
    away = replace(grown.table, post_nm=grown.table.post_nm + np.array([0.0, 0.0, 400.0]))
    with pytest.raises(InputError, match="sites lie outside array"):
        labels_of(grown, table=away)
    kept = within(away, ArrayVolume(grown.raw, GRID).info)
    assert 0 < len(kept) < len(away)
    labels_of(grown, table=kept)
    huge = replace(grown.table, polyads=grown.table.polyads + np.uint64(2**55))
    with pytest.raises(InputError, match="number the polyads anew"):
        labels_of(grown, table=huge)


def test_a_site_in_the_background_is_not_clipped() -> None:
    grid = Grid((10.0, 10.0, 10.0))
    neurons = np.ones((9, 9, 18), np.uint64)
    neurons[:, :, 4], neurons[:, :, 9:] = 0, 2
    one = np.ones(1)
    table = SynapseTable(
        one.astype(np.uint64), one.astype(np.uint64), np.array([grid.centre((4, 4, 4))]),
        np.array([grid.centre((4, 4, 12))]), np.zeros(1, np.uint64), np.zeros(1, np.uint64), np.zeros(1, np.int64),
        one.astype(np.float32),
    )  # fmt: skip
    volume = ArrayVolume(neurons, grid)
    whole = site_labels(table, volume.info, volume, 30.0, 40.0).read(volume.info.box)
    assert np.flatnonzero(whole[4, 4] == 256).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert np.flatnonzero(whole[4, 4] == 257).tolist() == [9, 10, 11, 12, 13, 14, 15, 16]
