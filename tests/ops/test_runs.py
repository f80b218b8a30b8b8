"""Components as runs are those of scipy and cc3d; joined over any cells they are those of the whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box, Vec, blocks
from emloom.ops.cellparts import CellParts, LayerRule, cell_parts
from emloom.ops.joining import ANY, Joined, SizeRule, join
from emloom.ops.runs import Connectivity, Linked, Runs, find_runs, link_runs
from emloom.ops.votes import Under, centroids, merge_votes, spread_runs, votes

SHAPE = (7, 19, 21)
SPACING = (3.0, 1.0, 1.0)
Bits = NDArray[np.uint8]
cells_ = st.tuples(*(st.integers(1, n + 1) for n in SHAPE))
connectivities = st.sampled_from(get_args(Connectivity))


def noise(seed: int, n_ids: int = 3) -> tuple[Bits, NDArray[np.uint64]]:
    """Return evidence with some correlation, and segments of several voxels."""
    rng = np.random.default_rng(seed)
    grey = ndimage.gaussian_filter(rng.random(SHAPE), 0.7)
    grey = (grey - grey.min()) / np.ptp(grey)
    coarse = rng.integers(0, n_ids, (4, 7, 7)).repeat(2, 0).repeat(3, 1).repeat(3, 2)
    return np.rint(255 * grey).astype(np.uint8), coarse[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(np.uint64)


def painted(runs: Runs, linked: Linked) -> NDArray[np.int64]:
    """Return the labels as a volume, 0 for background."""
    out = np.zeros(SHAPE, np.int64)
    for (z, y, start, stop), label in zip(runs.rows, linked.labels, strict=True):
        assert not out[z, y, start:stop].any()
        out[z, y, start:stop] = label + 1
    return out


@given(st.integers(0, 10**6), st.integers(100, 200), connectivities)
@settings(max_examples=15, deadline=None)
def test_components_are_those_of_scipy_in_the_same_order(seed: int, threshold: int, connectivity: Any) -> None:
    evidence, _ = noise(seed)
    runs = find_runs(evidence, threshold)
    found = painted(runs, link_runs(runs, connectivity))
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    assert np.array_equal(found, ndimage.label(evidence >= threshold, structure)[0])


@given(st.integers(0, 10**6), connectivities, st.booleans())
@settings(max_examples=15, deadline=None)
def test_split_components_lie_in_one_segment(seed: int, connectivity: Any, keep: bool) -> None:
    evidence, segments = noise(seed)
    runs = find_runs(evidence, 120, segments, keep_background=keep)
    found = painted(runs, link_runs(runs, connectivity))
    wanted = (segments + np.uint64(1)) * (evidence >= 120) * ((segments != 0) | keep)
    theirs = cc3d.connected_components(wanted.astype(np.uint32), connectivity=connectivity)
    assert np.array_equal(found != 0, theirs != 0)
    assert (
        len(np.unique(np.stack([found, theirs]).reshape(2, -1), axis=1).T) == found.max() + 1 == theirs.max() + 1
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0}, "every voxel would count"),
        ({"threshold": 256}, "not within 1 and 255"),
        ({"evidence_ZYX": np.zeros((2, 2), np.uint8)}, r"give uint8 \[Z, Y, X\]"),
        ({"evidence_ZYX": np.zeros((2, 2, 2), np.int64)}, "int64"),
        ({"segments_ZYX": np.zeros((2, 2, 3), np.uint64)}, "same voxels"),
    ],
)
def test_bad_evidence_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_runs(**{"evidence_ZYX": np.zeros((2, 2, 2), np.uint8), "threshold": 9} | change)


def test_another_connectivity_is_refused() -> None:
    with pytest.raises(InputError, match="connectivity 8"):
        link_runs(find_runs(np.zeros((1, 1, 1), np.uint8), 1), 8)


# ---- cells ----------------------------------------------------------------------------------------------------


def cut(
    layers: list[tuple[Bits, LayerRule]], segments: NDArray[np.uint64], sizes: SizeRule, cell: Vec
) -> tuple[list[CellParts], Joined]:
    cells = []
    for block in blocks(Box.whole(SHAPE), cell):
        at = block.write.slices()
        cells.append(cell_parts([(e[at], rule) for e, rule in layers], segments[at], block.write, SHAPE))
    return cells, join(cells, [(rule, sizes) for _, rule in layers], SHAPE)


def labelled(cells: list[CellParts], joined: Joined) -> NDArray[np.int64]:
    """Return the component of every voxel, layer by layer; -1 for none."""
    out = np.full((2, *SHAPE), -1)
    for cell, numbers in zip(cells, joined.of_part, strict=True):
        for (z, y, start, stop), part in zip(cell.rows, cell.run_parts, strict=True):
            out[cell.parts["layer"][part], z, y, start:stop] = numbers[part]
    return out


@given(st.integers(0, 10**6), cells_, connectivities, st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_cells_give_the_components_of_the_whole(
    seed: int, cell: Vec, connectivity: Any, split: bool, per_section: bool
) -> None:
    evidence, segments = noise(seed)
    rule = LayerRule(140, connectivity, split, keep_background=bool(seed % 2), per_section=per_section)
    sizes = SizeRule(1 + seed % 3, 400, 1 + seed % 2, (2, 25) if per_section else None)
    layers = [(evidence, rule), (np.uint8(255) - evidence, rule)]
    whole, expected = cut(layers, segments, sizes, SHAPE)
    cells, joined = cut(layers, segments, sizes, cell)
    for name, column in expected.components.items():
        assert np.array_equal(joined.components[name], column), name
    assert joined.dropped == expected.dropped
    assert np.array_equal(labelled(cells, joined), labelled(whole, expected))


@given(st.integers(0, 10**6), connectivities)
@settings(max_examples=30, deadline=None)
def test_whole_numbers_describe_components(seed: int, connectivity: Any) -> None:
    evidence, segments = noise(seed)
    rule = LayerRule(150, connectivity)
    cells, joined = cut([(evidence, rule)], segments, SizeRule(2), (3, 8, 6))
    labels = labelled(cells, joined)[0]
    known = joined.components
    assert (np.diff(known["first"]) > 0).all()
    for component in range(len(known["n"])):
        at = np.nonzero(labels == component)
        assert known["n"][component] == len(at[0])
        assert [known[f"{axis}_sum"][component] for axis in "zyx"] == [index.sum() for index in at]
        assert [known[f"{axis}_low"][component] for axis in "zyx"] == [index.min() for index in at]
        assert [known[f"{axis}_high"][component] for axis in "zyx"] == [index.max() + 1 for index in at]
        assert known["evidence_sum"][component] == evidence[at].sum(dtype=np.int64)
        assert known["peak"][component] == evidence[at].max()
        assert known["first"][component] == np.ravel_multi_index([index[0] for index in at], SHAPE)


def test_areas_decide_before_sections_are_joined() -> None:
    """A bridge of one voxel is dropped by its area, so what it joined falls apart (VESICLE's order of rules)."""
    evidence = np.zeros(SHAPE, np.uint8)
    evidence[0, 2:5, 2:5] = evidence[2, 2:5, 2:5] = 200
    evidence[1, 3, 3] = 200
    segments = np.zeros(SHAPE, np.uint64)
    for areas, n in ((None, 1), ((2, 9), 2), ((1, 8), 1), ((10, 99), 0)):
        rule = LayerRule(128, 6, per_section=areas is not None)
        _, joined = cut([(evidence, rule)], segments, SizeRule(area_vox=areas), (1, 4, 4))
        assert len(joined.components["n"]) == n, areas
    assert joined.dropped == 0  # of components: sections were dropped before any was made


@pytest.mark.parametrize(("sizes", "kept"), [(SizeRule(3), 1), (SizeRule(1, 2), 1), (SizeRule(min_sections=2), 1)])
def test_sizes_and_sections_are_looked_at_across_cells(sizes: SizeRule, kept: int) -> None:
    evidence = np.zeros(SHAPE, np.uint8)
    evidence[2:5, 6, 6] = 255  # in three cells of one section
    evidence[0, 0, 0:2] = 255
    _, joined = cut([(evidence, LayerRule(1))], np.zeros(SHAPE, np.uint64), sizes, (1, 1, 1))
    assert len(joined.components["n"]) == kept
    assert joined.dropped == 1


# ---- votes ----------------------------------------------------------------------------------------------------


def take_votes(seed: int, cell: Vec, reach_nm: float, location: Any) -> tuple[Joined, dict[str, NDArray[Any]]]:
    evidence, segments = noise(seed)
    channels = np.stack([evidence // 2, evidence // 3])
    cells, joined = cut([(evidence, LayerRule(170))], segments, SizeRule(2), cell)
    rows = np.concatenate([each.rows for each in cells])
    numbers = np.concatenate([of[each.run_parts] for each, of in zip(cells, joined.of_part, strict=True)])
    tables = []
    for block in blocks(Box.whole(SHAPE), cell):
        at = block.write.slices()
        mine = spread_runs(rows[numbers >= 0], numbers[numbers >= 0], block.write, SPACING, reach_nm)
        dense = (
            segments[at].copy(),
            evidence[at].copy(),
            channels[:, *at].copy(),
            (segments[at] != 1).astype(np.uint8),
        )
        under = Under(block.write, SHAPE, *dense)
        tables.append(votes(*mine, centroids(joined.components), under, SPACING, location))
    return joined, merge_votes(tables, location)


@given(st.integers(0, 10**6), cells_, st.sampled_from([0.0, 2.0, 3.5]), st.sampled_from(["centre", "peak"]))
@settings(max_examples=15, deadline=None)
def test_votes_of_any_cells_are_those_of_the_whole(seed: int, cell: Vec, reach_nm: float, location: Any) -> None:
    _, expected = take_votes(seed, SHAPE, reach_nm, location)
    _, found = take_votes(seed, cell, reach_nm, location)
    assert expected.keys() == found.keys()
    for name, column in expected.items():
        assert np.array_equal(found[name], column), name


@pytest.mark.parametrize("reach_nm", [0.0, 2.0, 3.5])
def test_votes_count_what_lies_within_reach(reach_nm: float) -> None:
    evidence, segments = noise(5)
    joined, found = take_votes(5, (3, 8, 9), reach_nm, "centre")
    labels, n = ndimage.label(evidence >= 170)
    kept = [i for i in range(1, n + 1) if (labels == i).sum() >= 2]
    assert len(kept) == len(joined.components["n"]) > 3
    for component, label in enumerate(kept):
        near = ndimage.distance_transform_edt(labels != label, sampling=SPACING) <= reach_nm
        middle = np.array(ndimage.center_of_mass(labels == label))
        for segment in np.unique(segments[near]):
            at = np.argwhere(near & (segments == segment))
            row = np.flatnonzero((found["component"] == component) & (found["segment"] == segment))
            assert len(row) == 1
            assert found["n"][row[0]] == len(at)
            assert found["sum_1"][row[0]] == (evidence // 3)[tuple(at.T)].sum(dtype=np.int64)
            away = (((at - middle) * SPACING) ** 2).sum(axis=1)
            assert found["distance2"][row[0]] == pytest.approx(away.min())
            assert found["usable"][row[0]] == (segment != 1)


def test_the_place_of_highest_evidence_wins_over_the_nearest() -> None:
    _, centre = take_votes(8, (2, 5, 5), 0.0, "centre")
    _, peak = take_votes(8, (2, 5, 5), 0.0, "peak")
    assert (peak["peak"] >= centre["peak"]).all()
    assert (peak["distance2"] >= centre["distance2"]).all()
    assert (peak["peak"] > centre["peak"]).any()
    assert all(a <= b for a, b in pairwise(peak["component"]))
    assert ANY > 2**60
