"""Cutting, resampling and simplifying keep path, ends, branches and cycles, and say where nodes come from."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.skeletons import Floats, Skeletons
from emloom.ops.skeletonclip import clipped, crosses, inside
from emloom.ops.skeletoncycles import cycle_counts, pieces
from emloom.ops.skeletongraph import branch_nodes, degrees, end_nodes
from emloom.ops.skeletonpaths import stretches
from emloom.ops.skeletonredraw import Redrawn, fresh_ids
from emloom.ops.skeletonresample import resampled, simplified
from tests.ops.neurites import any_skeletons, neurites

seeds = st.integers(0, 10**6)


def require_traced_back(old: Skeletons, made: Redrawn) -> None:
    """Every node says where it comes from: an old node is the same, a new one lies on its link."""
    new = made.skeletons
    a, b = made.between.T
    np.testing.assert_array_equal(new.ids[new.skeletons], old.ids[old.skeletons[a]])
    at = old.positions_nm[a] + made.part[:, None] * (old.positions_nm[b] - old.positions_nm[a])
    np.testing.assert_allclose(new.positions_nm, at, atol=1e-9)
    is_old = made.is_old
    np.testing.assert_array_equal(new.positions_nm[is_old], old.positions_nm[a[is_old]])
    np.testing.assert_array_equal(new.node_ids[is_old], old.node_ids[a[is_old]])
    assert len(set(a[is_old].tolist())) == is_old.sum()
    assert ((made.part >= 0) & (made.part <= 1)).all()
    links = {tuple(link) for link in old.links.tolist()}
    assert {tuple(sorted(pair)) for pair in made.between[~is_old].tolist()} <= links
    fresh = new.node_ids[~is_old].tolist()
    assert len(set(fresh)) == len(fresh)
    assert not set(fresh) & set(old.node_ids.tolist())
    assert (np.diff(new.skeletons) >= 0).all()


# ---- cut at a box ---------------------------------------------------------------------------------------------


@given(seeds, st.booleans())
@settings(max_examples=40)
def test_boxes_that_tile_space_share_out_the_path(seed: int, lattice: bool) -> None:
    skeletons = any_skeletons(seed) if lattice else neurites(seed, cycles=2)
    rng = np.random.default_rng(seed)
    low, high = skeletons.positions_nm.min(axis=0) - 5, skeletons.positions_nm.max(axis=0) + 5
    cuts = []
    for axis in range(3):
        inner = sorted([10.0, 20.0] if lattice else rng.uniform(low[axis], high[axis], 2).tolist())
        cuts.append([float(low[axis]), *[c for c in inner if low[axis] < c < high[axis]], float(high[axis])])
    total = dict.fromkeys(skeletons.ids.tolist(), 0.0)
    seen = np.zeros(len(skeletons.node_ids), np.int64)
    for corners in product(*(list(pairwise(faces)) for faces in cuts)):
        start, stop = [a for a, _ in corners], [b for _, b in corners]
        made = clipped(skeletons, start, stop)
        require_traced_back(skeletons, made)
        part = made.skeletons
        assert ((part.positions_nm >= start) & (part.positions_nm <= stop)).all()
        cut = part.positions_nm[~made.is_old]
        assert ((cut == start) | (cut == stop)).any(axis=1).all()
        nodes = inside(skeletons, start, stop)
        seen += nodes
        assert set(made.between[made.is_old, 0].tolist()) >= set(np.flatnonzero(nodes).tolist())
        touched = crosses(skeletons, start, stop)
        assert set(part.ids.tolist()) == set(skeletons.ids[touched].tolist())
        for number, length in zip(part.ids.tolist(), part.lengths_nm.tolist(), strict=True):
            total[number] += length
    assert (seen == 1).all()
    np.testing.assert_allclose(list(total.values()), skeletons.lengths_nm, rtol=1e-9, atol=1e-6)


@given(seeds)
def test_a_box_around_everything_cuts_nothing(seed: int) -> None:
    skeletons = any_skeletons(seed)
    made = clipped(skeletons, [-1e6] * 3, [1e6] * 3)
    assert made.is_old.all()
    rows = made.between[:, 0]
    assert sorted(rows.tolist()) == list(range(len(skeletons.node_ids)))
    back = np.sort(rows[made.skeletons.links], axis=1)
    assert sorted(map(tuple, back.tolist())) == [tuple(link) for link in skeletons.links.tolist()]


def test_a_path_through_a_box_gets_a_node_on_either_face() -> None:
    through = Skeletons.from_trees(
        [(5, [[0, 0, 0], [0, 0, 100]], [(0, 1)]), (6, [[9, 9, 9]], [])], names=("a", "b")
    )
    made = clipped(through, (-1, -1, 20), (1, 1, 50))
    assert made.skeletons.positions_nm.tolist() == [[0, 0, 20], [0, 0, 50]]
    assert made.skeletons.names == ("a",)
    assert made.part.tolist() == [0.2, 0.5]
    assert made.carried(np.array([10.0, 20, 7])).tolist() == [12, 15]
    assert clipped(through, (0, 0, 0), (0, 0, 0)).skeletons.ids.size == 0
    # On the upper face is outside, on the lower one inside.
    assert clipped(through, (-1, -1, 0), (0, 1, 9)).skeletons.ids.size == 0
    assert clipped(through, (0, -1, 0), (1, 1, 9)).skeletons.lengths_nm.tolist() == [9]


# ---- resample -------------------------------------------------------------------------------------------------


@given(seeds, st.floats(1, 300), st.booleans())
def test_resampled_paths_keep_ends_branches_and_cycles(seed: int, spacing: float, some_kept: bool) -> None:
    skeletons = any_skeletons(seed) if seed % 3 == 0 else neurites(seed, cycles=seed % 3)
    keep = np.random.default_rng(seed).random(len(skeletons.node_ids)) < (0.2 if some_kept else 0)
    made = resampled(skeletons, spacing, keep=keep)
    require_traced_back(skeletons, made)
    require_same_shape(skeletons, made, keep)
    new = made.skeletons
    assert (new.lengths_nm <= skeletons.lengths_nm * (1 + 1e-9) + 1e-6).all()
    assert (new.link_lengths_nm <= spacing * (1 + 1e-6) + 1e-9).all()
    before, after = stretches(skeletons, keep=keep), stretches(new, keep=kept_in(made, keep))
    assert len(before) == len(after)
    # As many nodes as the length asks for, no more.
    lengths = [path_length(skeletons.positions_nm[before[k]]) for k in range(len(before))]
    least = sum(max(1, int(np.ceil(length / spacing - 1e-6))) for length in lengths)
    assert len(new.links) <= least + 2 * cycle_counts(skeletons).sum()


def test_steps_are_equal_along_the_old_path() -> None:
    corner = Skeletons.from_trees(
        [(1, [[0, 0, 0], [0, 0, 30], [0, 40, 30], [0, 40, 30]], [(0, 1), (1, 2), (2, 3)])]
    )
    made = resampled(corner, 20)
    assert made.skeletons.positions_nm.tolist() == [
        [0, 0, 0], [0, 40, 30], [0, 0, 17.5], [0, 5, 30], [0, 22.5, 30]
    ]  # fmt: skip
    assert made.between.tolist() == [[0, 0], [3, 3], [0, 1], [1, 2], [1, 2]]
    assert made.skeletons.node_ids.tolist() == [1, 4, 5, 6, 7]
    assert len(resampled(corner, 70).skeletons.links) == 1
    assert resampled(corner, 70, keep=np.array([False, True, False, False])).skeletons.lengths_nm.tolist() == [70]


def test_a_ring_stays_a_ring() -> None:
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = np.stack([0 * angle, 100 * np.sin(angle), 100 * np.cos(angle)], axis=1)
    ring = Skeletons.from_trees([(1, circle, [(k, (k + 1) % 60) for k in range(60)])])
    for made in (resampled(ring, 1e6), simplified(ring, 1e6)):
        assert degrees(made.skeletons).tolist() == [2, 2, 2]
        assert made.skeletons.lengths_nm[0] > 390
    both = Skeletons.from_trees([(1, circle, [(k, (k + 1) % 60) for k in range(60)] + [(0, 30)])])
    for made in (resampled(both, 1e6), simplified(both, 1e6)):
        assert cycle_counts(made.skeletons).tolist() == [2]
        assert sorted(degrees(made.skeletons).tolist()) == [2, 2, 3, 3]


# ---- simplify -------------------------------------------------------------------------------------------------


@given(seeds, st.floats(0, 150), st.booleans())
def test_simplified_paths_stay_within_the_tolerance(seed: int, tolerance: float, some_kept: bool) -> None:
    skeletons = any_skeletons(seed) if seed % 3 == 0 else neurites(seed, cycles=seed % 3)
    keep = np.random.default_rng(seed).random(len(skeletons.node_ids)) < (0.2 if some_kept else 0)
    made = simplified(skeletons, tolerance, keep=keep)
    require_traced_back(skeletons, made)
    require_same_shape(skeletons, made, keep)
    assert made.is_old.all()
    stays = np.zeros(len(skeletons.node_ids), bool)
    stays[made.between[:, 0]] = True
    parts = stretches(skeletons, keep=keep)
    for k in range(len(parts)):
        path = parts[k]
        kept = np.flatnonzero(stays[path])
        for low, high in pairwise(kept):
            away = [from_segment(*skeletons.positions_nm[path[[m, low, high]]]) for m in range(low + 1, high)]
            assert max(away, default=0.0) <= tolerance + 1e-9
        if parts.joints[k, 0] != parts.joints[k, 1] and not cycle_counts(skeletons).any():
            assert kept.tolist() == slow_simplified(skeletons.positions_nm[path], tolerance)
    again = simplified(made.skeletons, tolerance, keep=kept_in(made, keep))
    assert len(again.skeletons.node_ids) == len(made.skeletons.node_ids)


def test_straight_paths_need_no_nodes_between() -> None:
    line = [[0, 0, 10 * k] for k in range(8)] + [[0, 30, 70]]
    straight = Skeletons.from_trees([(1, line, [(k, k + 1) for k in range(8)])])
    assert simplified(straight, 0).between[:, 0].tolist() == [0, 7, 8]
    kept = simplified(straight, 0, keep=np.arange(9) == 3)
    assert kept.skeletons.edges.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert simplified(straight, 30).between[:, 0].tolist() == [0, 8]


# ---- what is refused ------------------------------------------------------------------------------------------

nothing = Skeletons.from_trees([])
full = Skeletons(
    np.ones(1, np.uint64), np.zeros(2, np.int64), np.array([1, 2**64 - 1], np.uint64), np.eye(2, 3),
    np.array([[0, 1]]), source="a.nml",
)  # fmt: skip


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: resampled(full, 0), "a spacing of 0 nm: give a positive length"),
        (lambda: resampled(full, np.nan), "a spacing of nan nm"),
        (lambda: resampled(full, 0.1), "a.nml has a node of id 18446744073709551615: no higher ids"),
        (lambda: simplified(full, -1), "a tolerance of -1 nm"),
        (lambda: simplified(full, 1, keep=np.ones(5, bool)), "one boolean for each of 2 nodes"),
        (lambda: clipped(full, (0, 0, 5), (1, 1, 1)), "ends before it starts: swap them"),
        (lambda: inside(full, (0, 0), (1, 1, 1)), "give three"),
    ],
)
def test_what_makes_no_sense_is_refused(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()


def test_nothing_stays_nothing() -> None:
    for made in (clipped(nothing, (0, 0, 0), (1, 1, 1)), resampled(nothing, 1), simplified(nothing, 1)):
        assert made.skeletons.node_ids.size == made.between.size == 0
    assert fresh_ids(nothing, 2).tolist() == [1, 2]


# ---- slow and obvious -----------------------------------------------------------------------------------------


def require_same_shape(old: Skeletons, made: Redrawn, keep: np.ndarray) -> None:
    """Ends, branches, kept nodes, pieces and cycles are what they were."""
    new, rows = made.skeletons, made.between[:, 0]
    assert set(rows[end_nodes(new)].tolist()) == set(end_nodes(old).tolist())
    assert set(rows[branch_nodes(new)].tolist()) == set(branch_nodes(old).tolist())
    stays = set(rows[made.is_old].tolist())
    assert stays >= set(np.flatnonzero((degrees(old) != 2) | keep).tolist())
    whole = np.isin(old.ids, new.ids)
    assert pieces(new).tolist() == pieces(old)[whole].tolist()
    assert cycle_counts(new).tolist() == cycle_counts(old)[whole].tolist()
    np.testing.assert_array_equal(degrees(new)[made.is_old], degrees(old)[rows[made.is_old]])


def kept_in(made: Redrawn, keep: np.ndarray) -> np.ndarray:
    kept: np.ndarray = made.is_old & keep[made.between[:, 0]]
    return kept


def path_length(positions: Floats) -> float:
    return sum(float(np.linalg.norm(b - a)) for a, b in pairwise(positions))


def from_segment(point: Floats, start: Floats, stop: Floats) -> float:
    step = stop - start
    squared = float(step @ step)
    along = min(1.0, max(0.0, float((point - start) @ step) / squared)) if squared else 0.0
    return float(np.linalg.norm(point - start - along * step))


def slow_simplified(positions: Floats, tolerance: float) -> list[int]:
    """Return which nodes stay, by the recursion of the textbook."""
    last = len(positions) - 1
    away = [from_segment(p, positions[0], positions[-1]) for p in positions[1:-1]]
    if not away or max(away) <= tolerance:
        return [0, last]
    middle = 1 + int(np.argmax(away))
    before = slow_simplified(positions[: middle + 1], tolerance)
    return before[:-1] + [middle + k for k in slow_simplified(positions[middle:], tolerance)]


@given(seeds, st.floats(1, 300))
def test_edges_lead_from_parent_to_child_still(seed: int, length: float) -> None:
    old = neurites(seed)  # edges lead from the first node of each tree on
    parents = np.full(len(old.node_ids), -1)
    parents[old.edges[:, 1]] = old.edges[:, 0]
    roots = parents == -1
    middle = float(np.median(old.positions_nm[:, 0]))
    for made in (
        resampled(old, length, keep=roots),
        simplified(old, length, keep=roots),
        clipped(old, (middle, -1e6, -1e6), (1e6, 1e6, 1e6)),
    ):
        new = made.skeletons
        assert (np.bincount(new.edges[:, 1], minlength=len(new.node_ids)) <= 1).all()
        above = np.full(len(new.node_ids), -1)
        above[new.edges[:, 1]] = new.edges[:, 0]
        for child in np.flatnonzero((above >= 0) & made.is_old).tolist():
            node = int(made.between[child, 0])
            up = int(above[child])
            while not made.is_old[up] and above[up] >= 0:
                up = int(above[up])
            ancestors = {node}
            while parents[node] >= 0:
                node = int(parents[node])
                ancestors.add(node)
            assert int(made.between[up, 0]) in ancestors
