"""What a block of the region graph reads around its cell: all that its pairs reach, and nothing more."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from emloom.geometry import Box, Vec
from emloom.tasks.graphfiles import load_graph
from emloom.tasks.segment import grow_tree
from emloom.tasks.segmentblocks import with_neighbours
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import AscentSpec, SegmentJob, SegmentSpec
from tests.tasks.weaving import GRID, few_values, tree_of, voxels, write_affinities

SIGNS = list(product((-1, 1), repeat=3))


def near(signs: tuple[int, int, int]) -> tuple[Vec, ...]:
    z, y, x = signs
    return ((z, 0, 0), (0, y, 0), (0, 0, x))


@pytest.mark.parametrize("signs", SIGNS)
def test_partners_of_all_pairs_are_inside_and_every_layer_has_one(signs):
    cell, offsets = Box((4, 8, 12), (4, 8, 12)), near(signs)
    shifted = [cell.shift(offset) for offset in offsets]
    found = with_neighbours(cell, (*offsets, (0, 0, -9)))
    assert all(found.contains(box) for box in (cell, *shifted))
    hull_start = np.min([box.start for box in (cell, *shifted)], axis=0)
    hull_stop = np.max([box.stop for box in (cell, *shifted)], axis=0)
    assert (found.start, found.stop) == (tuple(hull_start), tuple(hull_stop))


def test_both_sides_are_read_where_both_directions_have_a_channel():
    offsets = (*near((-1, -1, -1)), *near((1, 1, 1)))
    assert with_neighbours(Box((4, 4, 4), (4, 4, 4)), offsets) == Box((3, 3, 3), (6, 6, 6))


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("graph_bytes", [None, 1])
def test_direction_of_the_offsets_does_not_matter_for_being_equal(tmp_path: Path, signs, graph_bytes):
    values, offsets = few_values((24, 30, 26), 3), near(signs)
    spec = SegmentSpec(fragments=AscentSpec(), thresholds=(0.3,), cell_shape_vox=(16, 16, 16))
    source = write_affinities(tmp_path / "pred.zarr", values, offsets)
    job = SegmentJob(affinities=source, output=str(tmp_path / "seg.zarr"), threshold=0.6, segmentation=spec)
    out = segment(job, graph_bytes=graph_bytes)
    whole = grow_tree(values, offsets, GRID, spec)
    columns = [getattr(whole.tree, name) for name in ("score_num", "score_den", "a", "b")]
    assert np.array_equal(voxels(out / "fragments"), whole.fragments)
    assert np.array_equal(voxels(out / "segmentation"), whole.at(0.6))
    assert all(np.array_equal(a, b) for a, b in zip(tree_of(out), columns, strict=True))
    assert len(load_graph(out)) > 10
