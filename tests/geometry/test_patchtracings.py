"""Patches as loops: they come back from where they went, with the answers in their names."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.patches import PatchLabels
from emloom.geometry.patchtracings import answer_in, names_of, question, said, starts_of, tracing_of
from emloom.io.nml import read_nml_tracing, write_nml

SIZES = st.floats(0.5, 100, allow_nan=False)
GRIDS = st.builds(
    Grid, st.tuples(SIZES, SIZES, SIZES), st.tuples(*[st.integers(-50, 50).map(lambda n: n * 7.5)] * 3)
)


def patches(
    starts: list[tuple[int, int, int]], shape: tuple[int, int, int] = (1, 140, 140), grid: Grid | None = None
) -> PatchLabels:
    labels = np.array([[k % 3 - 1, (k + 1) % 3 - 1] for k in range(len(starts))], np.int8).reshape(-1, 2)
    array = np.array(starts, np.int64).reshape(-1, 3)
    return PatchLabels(grid or Grid((35, 32, 32)), shape, array, ("debris", "myelin"), labels)


@given(
    st.lists(st.tuples(*[st.integers(-1000, 100_000)] * 3), max_size=8, unique=True),
    st.tuples(st.integers(1, 5), st.integers(1, 200), st.integers(1, 200)),
    GRIDS,
)
def test_patches_come_back(starts: list[tuple[int, int, int]], shape: tuple[int, int, int], grid: Grid) -> None:
    before = patches(starts, shape, grid)
    tracing = tracing_of(before, names_of(before))
    found = starts_of(tracing, np.arange(len(before)), grid, shape)
    assert found.tolist() == before.starts.tolist()
    for row, name in enumerate(tracing.skeletons.names):
        answers = answer_in(name, before.classes)
        known = {c: int(v) for c, v in zip(before.classes, before.labels[row], strict=True) if v != -1}
        assert answers == known


@given(st.lists(st.tuples(*[st.integers(-1000, 100_000)] * 3), min_size=1, max_size=5, unique=True), GRIDS)
def test_loops_are_closed_and_around_the_patch(starts: list[tuple[int, int, int]], grid: Grid) -> None:
    before = patches(starts, (3, 14, 10), grid)
    skeletons = tracing_of(before, names_of(before)).skeletons
    graph = nx.Graph(skeletons.edges.tolist())
    pieces = list(nx.connected_components(graph))
    assert len(pieces) == len(before)
    assert all(degree == 2 for _, degree in graph.degree)
    assert len(np.unique(skeletons.node_ids)) == 4 * len(before)
    for row, box in enumerate(before.boxes()):
        own = skeletons.positions_nm[skeletons.skeletons == row]
        low = grid.to_world((box.start[0] + 1, *box.start[1:]))
        high = grid.to_world((box.start[0] + 1, *box.stop[1:]))
        np.testing.assert_allclose(own.min(axis=0), low, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(own.max(axis=0), high, rtol=1e-12, atol=1e-9)


def test_a_file_holds_it_all(tmp_path: Path) -> None:
    before = patches([(3567, 20935, 24926), (3, 0, 0), (5, 7, 9)])
    write_nml(
        tmp_path / "a.nml",
        tracing_of(before, names_of(before), groups=["a", "", "a"], comments=["one", "", "three"]),
    )
    tracing = read_nml_tracing(tmp_path / "a.nml")
    assert starts_of(tracing, np.arange(3), before.grid, before.shape).tolist() == before.starts.tolist()
    assert tracing.skeletons.names[1] == "patch 2, debris: no, myelin: yes"
    assert [group.name for group in tracing.groups] == ["a"]
    assert tracing.tree_groups == (1, None, 1)
    assert tracing.comments.rows.tolist() == [0, 8]
    assert np.isfinite(tracing.colours).all()
    assert tracing.colours[2].tolist() != tracing.colours[1].tolist()


def test_an_opinion_is_read() -> None:
    name = question("debris", True, [("A", 1), ("B", 0)])
    assert name == "A: debris, B: clean, your opinion:"
    assert answer_in(name, ("debris", "myelin")) == {}
    assert answer_in(f"{name} clean", ("debris", "myelin")) == {"debris": 0}
    other = question("myelin", False, [("A", 1), ("B", 0), ("C", -1)])
    assert other == "A: myelin, B: no myelin, C: unsure, your opinion on myelin:"
    assert answer_in(f"{other} Yes ", ("debris", "myelin")) == {"myelin": 1}


@pytest.mark.parametrize("name", ["debris", "myelin"])
@pytest.mark.parametrize("label", [1, 0, -1])
def test_what_is_said_is_understood(name: str, label: int) -> None:
    classes = ("debris", "myelin")
    word = said(label, name, name == "debris")
    assert answer_in(f"{question(name, name == 'debris', [('A', 1)])} {word}", classes) == {name: label}
    assert answer_in(f"patch 3, {name}: {word}", classes) == {name: label}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("A: debris, your opinion: perhaps", "say yes, no or unsure"),
        ("A: folds, your opinion on fold: yes", "is about 'fold'"),
        ("A: myelin, your opinion on myelin: clean", "say yes, no or unsure"),
        ("patch 1, debris: maybe", "say yes, no or unsure"),
    ],
)
def test_what_is_not_understood_is_told(name: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        answer_in(name, ("debris", "myelin"))


def test_other_trees_say_nothing() -> None:
    for name in ("axon 7", "", "patch 7", "patch 7, debris: ?, myelin: x", "note: debris, perhaps"):
        assert answer_in(name, ("debris", "myelin")) == {}


def test_a_loop_that_somebody_changed_is_told() -> None:
    before = patches([(3, 10, 10)])
    tracing = tracing_of(before, names_of(before))
    with pytest.raises(InputError, match="move its nodes back"):
        starts_of(tracing, np.array([0]), before.grid, (1, 140, 210))


def test_a_class_that_no_name_can_hold_is_refused() -> None:
    wrong = PatchLabels(
        Grid((1, 1, 1)), (1, 2, 2), np.zeros((1, 3), np.int64), ("a: b",), np.ones((1, 1), np.int8)
    )
    with pytest.raises(InputError, match="without comma and colon"):
        names_of(wrong)
