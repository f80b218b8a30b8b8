"""Synapses of CREMI files: half a voxel, one pre site for a polyad, nothing counted twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emloom.geometry import Grid
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.cremi import read_annotations, write_annotations
from emloom.io.cremisynapses import annotations_of, repeated, table_of, unpaired
from emloom.io.synapsetable import to_columns
from emloom.metrics.partnerpairs import PartnerPairs, site_voxels
from tests.tasks.drawnsynapses import GRID, drawn

SIZE = GRID.voxel_size_nm


def sites(partners: list[list[int]]) -> Annotations:
    ids = np.array([30, 10, 20, 40, 50], np.uint64)
    types = (PRE, POST, POST, POST, PRE)
    places = np.arange(15.0).reshape(5, 3) * 8
    return Annotations(ids, types, places, np.array(partners, np.uint64).reshape(-1, 2))


@given(st.integers(0, 10**6))
def test_there_and_back(seed: int) -> None:
    table = drawn(seed, n=20)
    found = table_of(annotations_of(table, SIZE), SIZE)
    np.testing.assert_allclose(found.pre_nm, table.pre_nm, atol=1e-9)
    np.testing.assert_allclose(found.post_nm, table.post_nm, atol=1e-9)
    same = table.polyads[:, None] == table.polyads
    assert np.array_equal(found.polyads[:, None] == found.polyads, same)


@given(st.integers(0, 10**6))
def test_both_rules_look_up_the_same_voxel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid(SIZE, (0.0, 0.0, 0.0))
    ids = np.arange(1, 9, dtype=np.uint64)
    # CREMI's positions are whole nm, often just between two voxels.
    places = rng.integers(0, 4000, (8, 3)).astype(float)
    words = Annotations(ids, (PRE, POST) * 4, places, ids.reshape(-1, 2))
    table = table_of(words, SIZE)
    pairs = PartnerPairs(places[::2], places[1::2])
    voxels, _ = site_voxels(pairs, (2000, 2000, 2000), grid)
    assert np.array_equal(voxels_containing(grid, table.pre_nm), voxels[:, 0])
    assert np.array_equal(voxels_containing(grid, table.post_nm), voxels[:, 1])


def test_a_pre_site_is_stored_once_for_all_its_partners(tmp_path: Path) -> None:
    table = drawn(3)
    write_annotations(tmp_path / "a.h5", annotations_of(table, SIZE))
    read = read_annotations(tmp_path / "a.h5")
    polyads = len(np.unique(table.polyads))
    assert read.types.count(PRE) == polyads
    assert len(read.ids) == polyads + len(table)
    assert len(np.unique(read.partners[:, 0])) == polyads


def test_partners_are_joined_by_ids_and_counted_once() -> None:
    words = sites([[50, 40], [30, 20], [50, 40], [30, 10]])
    table = table_of(words, SIZE)
    assert table.ids.tolist() == [1, 2, 3]
    assert table.polyads.tolist() == [1, 2, 2]
    assert (table.pre_nm - np.array(SIZE) / 2)[:, 0].tolist() == [96.0, 0.0, 0.0]
    assert (table.post_nm - np.array(SIZE) / 2)[:, 0].tolist() == [72.0, 48.0, 24.0]
    assert (repeated(words), unpaired(words)) == (1, 0)
    assert unpaired(sites([[30, 10]])) == 3


def test_without_partners_there_is_no_contact(tmp_path: Path) -> None:
    table = table_of(sites([]), SIZE)
    assert len(table) == 0
    write_annotations(tmp_path / "a.h5", annotations_of(SynapseTable.empty(), SIZE))
    again = table_of(read_annotations(tmp_path / "a.h5"), SIZE)
    assert {name: column.shape for name, column in to_columns(again).items()} == {
        name: column.shape for name, column in to_columns(table).items()
    }
