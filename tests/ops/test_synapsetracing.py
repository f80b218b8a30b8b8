"""Contacts as trees and back; trees that people make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.columns import Columns
from emloom.geometry.elements import Group
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.synapses import SynapseTable
from emloom.geometry.tracings import Marks, Tracing
from emloom.io.nml import read_nml_tracing, write_nml
from emloom.io.synapsetable import to_columns
from emloom.ops.synapsetracing import synapses_of, tracing_of
from tests.tasks.drawnsynapses import drawn

SIZE = (40.0, 4.0, 4.0)


def partition(polyads: np.ndarray) -> list[int]:
    """Return the first row of the polyad of every row."""
    _, first, which = np.unique(polyads, return_index=True, return_inverse=True)
    return first[which].tolist()


def require_same(a: SynapseTable, b: SynapseTable, rounding_nm: float = 0.0) -> None:
    before, after = to_columns(a), to_columns(b)
    assert partition(before.pop("polyad")) == partition(after.pop("polyad"))
    for name, column in before.items():
        np.testing.assert_allclose(after[name], column, rtol=0, atol=rounding_nm if name.endswith("_nm") else 0)


@given(st.integers(0, 10**6))
def test_there_and_back(seed: int) -> None:
    table = drawn(seed, n=20)
    require_same(table, synapses_of(tracing_of(table, SIZE)))


def test_through_a_file(tmp_path: Path) -> None:
    table = drawn(7)
    write_nml(tmp_path / "s.nml", tracing_of(table, SIZE))
    read = read_nml_tracing(tmp_path / "s.nml")
    assert [group.id for group in read.groups] == np.unique(table.polyads).tolist()
    assert read.comment_texts()[:2] == ("pre", "post")
    require_same(table, synapses_of(read), 1e-9)  # the file counts in voxels


def test_no_contact_is_a_tracing_without_trees(tmp_path: Path) -> None:
    write_nml(tmp_path / "s.nml", tracing_of(SynapseTable.empty(), SIZE))
    assert len(synapses_of(read_nml_tracing(tmp_path / "s.nml"))) == 0


def by_hand(trees: list[tuple[int, list[str]]], groups: list[int | None] | None = None) -> Tracing:
    """Return trees of (id, comment of each node): their nodes lie in a row, all pre nodes at the origin."""
    parts = []
    for number, words in trees:
        places = [[0.0, 0.0, 0.0 if w.lower().startswith("pre") else 10.0 * k] for k, w in enumerate(words)]
        parts.append((number, np.array(places), [[k, k + 1] for k in range(len(words) - 1)]))
    s = Skeletons.from_trees(parts)
    texts = [w for _, words in trees for w in words]
    rows = [row for row, text in enumerate(texts) if text]
    listed = tuple(Group(g) for g in sorted({g for g in groups or [] if g is not None}))
    columns = Columns(len(trees))
    if groups is not None:
        columns = columns.replaced("groupId", [None if g is None else str(g) for g in groups])
    return Tracing(
        s, SIZE, Columns(len(s.node_ids)), columns, Columns(len(s.edges)),
        comments=Marks.of(rows, content=[texts[row] for row in rows]), groups=listed,
    )  # fmt: skip


def test_a_tree_of_one_pre_and_several_posts_is_a_polyad() -> None:
    trees = [(5, ["Pre ", "", "POST", "post 2"]), (9, ["", "a note"]), (8, ["post", "presynaptic"])]
    found = synapses_of(by_hand(trees))
    assert found.ids.tolist() == [1, 2, 3]
    assert partition(found.polyads) == [0, 0, 2]
    assert found.post_nm[:, 2].tolist() == [20.0, 30.0, 0.0]
    assert found.scores.tolist() == [1, 1, 1]


def test_a_group_is_a_polyad_only_where_pre_sites_are_one() -> None:
    trees = [(1, ["pre", "post"]), (2, ["pre", "post"]), (3, ["pre", "post"])]
    assert partition(synapses_of(by_hand(trees, [4, 4, None])).polyads) == [0, 0, 2]
    assert partition(synapses_of(by_hand(trees)).polyads) == [0, 1, 2]


@pytest.mark.parametrize("words", [["pre", "pre", "post"], ["pre", ""], ["post", "post"]])
def test_half_a_contact_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match="tree 3 has"):
        synapses_of(by_hand([(3, words)]))
