"""Comments, branch points and names are found and edited."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Tracing, differences
from emloom.ops.tracingtext import (
    add_branchpoints,
    comments,
    delete_branchpoints,
    delete_comments,
    delete_nodes_with_comment,
    nodes_with_comment,
    rename_trees,
    replace_comments,
    set_comments,
    unique_comments,
)
from tests.geometry.tracing_strategies import TEXTS, tracings
from tests.ops.tracingfacts import check_whole, written


def path() -> Tracing:
    """Nodes 0 - 1 - 2 - 3, with a branch 1 - 4."""
    points = [[0, 0, k] for k in range(4)] + [[0, 5, 1]]
    skeletons = Skeletons.from_trees([(1, points, [[0, 1], [1, 2], [2, 3], [1, 4]])], names=("axon 1",))
    return replace(
        Tracing.of(skeletons, (1, 1, 1)),
        comments=Marks.of([3, 1, 0, 1], content=["end", "b1", "end", "b2"]),
        branchpoints=Marks.of([1, 2], time=["12", "13"]),
    )


def test_comments_are_found() -> None:
    t = path()
    assert comments(t) == [(3, "end"), (1, "b1"), (0, "end"), (1, "b2")]
    assert comments(t, r"\Ab\d") == [(1, "b1"), (1, "b2")]
    assert unique_comments(t) == {"b1": 1, "b2": 1, "end": 2}
    assert nodes_with_comment(t, "b").tolist() == [1]
    assert nodes_with_comment(t, "", degree=1).tolist() == [0, 3]
    assert nodes_with_comment(t, "", degree=3).tolist() == [1]
    assert nodes_with_comment(t, "nothing").tolist() == []
    with pytest.raises(InputError, match="no regular expression"):
        comments(t, "[")


def test_comments_are_set_replaced_and_deleted() -> None:
    t = path()
    assert comments(set_comments(t, {1: "one", 2: "two"})) == [(3, "end"), (0, "end"), (1, "one"), (2, "two")]
    assert comments(replace_comments(t, r"b(\d)", r"branch \1"))[1] == (1, "branch 1")
    assert comments(delete_comments(t, "end")) == [(1, "b1"), (1, "b2")]
    assert comments(delete_comments(t)) == []
    with pytest.raises(InputError, match="cannot replace"):
        replace_comments(t, "b", r"\7")
    with pytest.raises(InputError, match="no row 5"):
        set_comments(t, {5: "?"})
    assert comments(t) == comments(path())


def test_nodes_are_deleted_by_their_comments() -> None:
    assert len(delete_nodes_with_comment(path(), "b1").skeletons.links) == 1
    closed = delete_nodes_with_comment(path(), "b1", close_gaps=True)
    assert (len(closed.skeletons.node_ids), len(closed.skeletons.links)) == (4, 3)
    assert closed.comment_texts() == ("end", "end")
    assert closed.branchpoints.rows.tolist() == [1]


def test_branch_points_are_added_once_and_deleted() -> None:
    t = add_branchpoints(path(), [2, 4, 4])
    assert t.branchpoints.rows.tolist() == [1, 2, 4]
    assert t.branchpoints.columns["time"].tolist() == ["12", "13", None]
    assert delete_branchpoints(t, [1, 0]).branchpoints.rows.tolist() == [2, 4]
    assert delete_branchpoints(t).branchpoints.rows.tolist() == []
    with pytest.raises(InputError, match="no row 9"):
        add_branchpoints(t, [9])


def test_trees_are_renamed() -> None:
    assert rename_trees(path(), r"axon (\d)", r"cell \1").skeletons.names == ("cell 1",)
    check_whole(rename_trees(path(), "a", "&"))


@settings(max_examples=40)
@given(tracings(), st.data())
def test_set_comments_are_there_and_the_others_too(t: Tracing, data: st.DataObject) -> None:
    n = len(t.skeletons.node_ids)
    new = data.draw(st.dictionaries(st.integers(0, n - 1), TEXTS)) if n else {}
    before = written(t)
    after = set_comments(t, new)
    check_whole(after)
    assert dict(pair for pair in comments(after) if pair[0] in new) == new
    assert [pair for pair in comments(after) if pair[0] not in new] == [p for p in comments(t) if p[0] not in new]
    assert written(t) == before
    assert differences(set_comments(after, {}), after) == ()
    marked = add_branchpoints(t, np.arange(n))
    assert set(marked.branchpoints.rows.tolist()) == set(range(n))
    assert delete_branchpoints(marked, np.arange(n)).branchpoints.rows.size == 0
