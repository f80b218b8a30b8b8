"""Labels of patches are checked; consensus and lattices obey their laws."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels, joined
from tests.geometry.patchmaking import assert_same, random_labels
from tests.geometry.strategies import boxes, grids, vectors

GRID = Grid((35, 32, 32))


def table(places: list[Vec], said: list[list[int]], **more: object) -> PatchLabels:
    labels = PatchLabels(
        GRID,
        (1, 4, 4),
        np.array(places, np.int64).reshape(-1, 3),
        ("debris",),
        np.array(said, np.int8).reshape(-1, 1),
    )
    return replace(labels, **more)  # type: ignore[arg-type]


@given(st.integers(0, 10**6))
def test_consensus_is_what_all_who_know_say(seed: int) -> None:
    labels = random_labels(seed)
    said: dict[tuple[int, ...], list[set[int]]] = defaultdict(lambda: [set(), set()])
    for start, row in zip(labels.starts.tolist(), labels.labels.tolist(), strict=True):
        for c, value in enumerate(row):
            said[tuple(start)][c] |= {value} - {-1}
    agreed = labels.consensus()
    assert [tuple(s) for s in agreed.starts.tolist()] == list(said)
    expected = [[next(iter(v)) if len(v) == 1 else -1 for v in row] for row in said.values()]
    assert agreed.labels.tolist() == expected
    assert_same(agreed.consensus(), agreed)


@given(st.integers(0, 10**6), st.randoms())
def test_consensus_does_not_depend_on_the_order_of_rows(seed: int, random: object) -> None:
    labels = random_labels(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    one, two = labels.consensus(), labels.taken(order).consensus()
    a, b = (np.lexsort(part.starts.T) for part in (one, two))
    assert_same(one.taken(a), two.taken(b))


@given(st.integers(0, 10**6))
def test_the_last_word_counts_where_it_is_given(seed: int) -> None:
    labels = random_labels(seed)
    last = {
        tuple(s): row
        for s, row in zip(labels.by("B").starts.tolist(), labels.by("B").labels.tolist(), strict=True)
    }
    plain = labels.consensus().labels.tolist()
    final = labels.consensus(final="B")
    for start, row, before in zip(final.starts.tolist(), final.labels.tolist(), plain, strict=True):
        word = last.get(tuple(start), [-1, -1])
        assert row == [w if w >= 0 else b for w, b in zip(word, before, strict=True)]


@given(st.integers(0, 10**6), st.integers(0, 40))
def test_what_is_cut_joins_again(seed: int, at: int) -> None:
    labels = random_labels(seed)
    rows = np.arange(len(labels))
    again = joined([labels.taken(rows[:at]), labels.taken(rows[at:])], source=labels.source)
    assert_same(again, labels)
    assert_same(joined([labels, labels]), labels)


@given(st.integers(0, 10**6), boxes(max_extent=12))
def test_restricted_keeps_whole_patches_only(seed: int, box: Box) -> None:
    labels = random_labels(seed)
    kept = labels.restricted(box)
    expected = [row for row, patch in enumerate(labels.boxes()) if box.contains(patch)]
    assert_same(kept, labels.taken(np.array(expected, np.int64)))


def test_joining_fills_what_a_table_does_not_say() -> None:
    a = table([(0, 0, 0)], [[1]], columns={"tissue": np.array(["soma"])}, annotators=("A",))
    b = replace(
        table([(0, 0, 0), (1, 0, 0)], [[0], [1]]),
        classes=("debris", "myelin"),
        labels=np.array([[0, 1], [1, -1]], np.int8),
        annotators=("B",),
    )
    both = joined([a, b])
    assert both.labels.tolist() == [[1, -1], [0, 1], [1, -1]]
    assert both.columns["tissue"].tolist() == ["soma", "", ""]
    assert both.annotators == ("A", "B")
    assert both.consensus().labels.tolist() == [[-1, 1], [1, -1]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.array([[2], [0]], np.int8)}, "row 0 has 2 for debris"),
        ({"labels": np.zeros((2, 1), np.int64)}, "labels is int64"),
        ({"starts": np.zeros((2, 3), np.int64)}, "rows 0 and 1 are the same patch"),
        ({"starts": np.zeros((3, 3), np.int64)}, r"give \[N, 3\]"),
        ({"classes": ("",)}, "class without a name"),
        ({"classes": ()}, "give"),
        ({"annotator": np.array([0, 1], np.int64)}, "by annotator number 1"),
        ({"annotators": ("A", "A"), "annotator": np.array([0, 1], np.int64)}, "name each once"),
        ({"columns": {"tissue": np.array(["one"])}}, "one text for each of 2"),
        ({"shape": (0, 4, 4)}, "at least 1"),
    ],
)
def test_what_contradicts_itself_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        table([(0, 0, 0), (1, 0, 0)], [[1], [0]], **change)


def test_tables_of_other_patches_do_not_join() -> None:
    one = table([(0, 0, 0)], [[1]])
    with pytest.raises(InputError, match="bring them to one grid"):
        joined([one, replace(one, shape=(1, 5, 5))])
    with pytest.raises(InputError, match="looks for 'debris'"):
        joined([one, replace(one, classes=("myelin",))])
    with pytest.raises(InputError, match="same patch"):
        joined([one, replace(one, labels=np.array([[0]], np.int8))])


lattices = st.builds(Lattice, vectors(1, 5), vectors(1, 4), vectors(-9, 9))


@given(lattices, boxes(max_extent=12))
def test_a_lattice_lists_the_patches_inside_a_box(lattice: Lattice, box: Box) -> None:
    found = lattice.starts(lattice.inside(box)).tolist()
    places = [
        [o + k * s for k in range(-40, 40) if a <= o + k * s and o + k * s + n <= b]
        for a, b, o, s, n in zip(box.start, box.stop, lattice.origin, lattice.stride, lattice.shape, strict=True)
    ]
    every = [list(place) for place in product(*places)]
    assert found == every
    assert np.array_equal(
        lattice.starts_of(lattice.indices(np.array(found, np.int64))), np.array(found).reshape(-1, 3)
    )


@given(lattices, grids(), vectors(-5, 5))
def test_a_map_says_which_lattice_it_is_of(lattice: Lattice, grid: Grid, first: Vec) -> None:
    at = lattice.map_grid(grid, first)
    again = Lattice.of_map(at, grid, lattice.shape)
    assert again == replace(lattice, origin=tuple(lattice.starts_of(np.array([first]))[0].tolist()))
    patch = Box(again.origin, lattice.shape)
    middle = grid.to_world([(a + b) / 2 for a, b in zip(patch.start, patch.stop, strict=True)])
    assert np.allclose(at.centre((0, 0, 0)), middle, rtol=1e-9, atol=1e-6)


def test_a_patch_beside_the_lattice_is_named() -> None:
    lattice = Lattice((1, 140, 140), (1, 35, 35), (0, 10, 10))
    with pytest.raises(InputError, match=r"\[0, 10, 46\]"):
        lattice.indices(np.array([[0, 10, 45], [0, 10, 46]]))
    with pytest.raises(InputError, match="is no map of patches"):
        Lattice.of_map(Grid((35, 32 * 35, 32 * 35), (0, 16, 0)), GRID, (1, 140, 140))
