"""Tilings: every voxel once, on one lattice, whatever box is processed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings

from emloom.errors import InputError
from emloom.geometry import Box, Fit, Vec, blocks, cells
from tests.geometry.strategies import boxes, vectors, voxels

few = settings(deadline=None, max_examples=60)


@few
@given(boxes(), vectors(1, 4), vectors(0, 3))
def test_write_boxes_tile_the_total_box_exactly_once(total: Box, cell: Vec, halo: Vec) -> None:
    written = Counter(v for block in blocks(total, cell, halo) for v in voxels(block.write))
    assert set(written) == voxels(total)
    assert set(written.values()) <= {1}


@few
@given(boxes(), vectors(1, 4))
def test_cells_sit_on_the_global_lattice(total: Box, cell: Vec) -> None:
    for index, box in cells(total, cell, "overhang"):
        assert box == Box(tuple(i * c for i, c in zip(index, cell, strict=True)), cell)  # type: ignore[arg-type]
        assert box.meets(total)


@few
@given(boxes(), boxes(), vectors(1, 4))
def test_two_jobs_agree_on_where_a_cell_lies(a: Box, b: Box, cell: Vec) -> None:
    first, second = dict(cells(a, cell, "overhang")), dict(cells(b, cell, "overhang"))
    assert all(first[index] == second[index] for index in first.keys() & second.keys())
    shared = dict(cells(a.intersect(b), cell))
    clipped = {index: box.intersect(b) for index, box in cells(a, cell) if box.meets(b)}
    assert shared == clipped


@few
@given(boxes(), vectors(1, 4), vectors(0, 3))
def test_a_block_reads_its_write_box_and_the_halo(total: Box, cell: Vec, halo: Vec) -> None:
    for block in blocks(total, cell, halo):
        assert block.read.contains(block.write)
        assert block.read == block.write.grow(halo)
        assert block.index == tuple(a // c for a, c in zip(block.write.start, cell, strict=True))


@few
@given(boxes(), vectors(1, 4))
def test_the_fits_differ_only_in_cells_that_stick_out(total: Box, cell: Vec) -> None:
    shrink, over, valid = (dict(cells(total, cell, fit)) for fit in ("shrink", "overhang", "valid"))
    assert shrink.keys() == over.keys()
    assert all(shrink[index] == box.intersect(total) for index, box in over.items())
    assert valid == {index: box for index, box in over.items() if total.contains(box)}


@few
@given(boxes(), vectors(1, 4))
def test_a_total_box_on_the_lattice_has_no_partial_cells(total: Box, cell: Vec) -> None:
    snapped = total.snap(cell)
    expected = blocks(snapped, cell)
    for fit in ("overhang", "valid"):
        assert blocks(snapped, cell, fit=fit) == expected


@few
@given(boxes(), vectors(1, 4))
def test_order_is_z_then_y_then_x(total: Box, cell: Vec) -> None:
    order = [block.index for block in blocks(total, cell)]
    assert order == sorted(order)


@pytest.mark.parametrize("fit", ["shrink", "overhang", "valid"])
def test_an_empty_box_has_no_blocks(fit: Fit) -> None:
    assert blocks(Box((3, 3, 3), (4, 0, 4)), 2, fit=fit) == []


def test_impossible_tilings_are_refused_before_the_first_cell() -> None:
    total = Box.whole((4, 4, 4))
    with pytest.raises(InputError, match="below 1 voxel"):
        cells(total, (1, 0, 1))
    with pytest.raises(InputError, match="'shrnk' is unknown"):
        cells(total, 2, "shrnk")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"halo .* is negative"):
        blocks(total, 2, halo=-1)
