"""Questions to a connectome: the same answers as numpy and networkx give, and nothing beyond it can be read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.synapsetable import write_synapse_table
from emloom.tasks.connectome import ConnectomeJob, connectome
from emloom.tasks.connectomegraph import to_networkx
from emloom.tasks.connectomequery import MOST_STEPS, ConnectomeQuery
from tests.tasks.drawnsynapses import between, drawn


def made(folder: Path, table) -> Path:
    write_synapse_table(folder / "s.parquet", table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emloom.tasks.connectome.write_connectome_report", lambda *_: None)
        return connectome(ConnectomeJob(synapses=str(folder / "s.parquet"), output=str(folder / "graph"))).folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("query"), drawn(5, n=120, segments=30))


def rows(columns) -> list[tuple]:
    return list(zip(*(column.tolist() for column in columns.values()), strict=True))


def test_the_strongest_edges_come_first(folder: Path) -> None:
    graph = to_networkx(folder)
    want = sorted(((-d["weight"], a, b) for a, b, d in graph.edges(data=True)))
    with ConnectomeQuery(folder) as query:
        found = query.strongest(7)
        assert [(-n, a, b) for a, b, n, *_ in rows(found)] == want[:7]
        assert list(found) == ["pre", "post", "count", "size_vox", "mean_score", "max_score"]
        least = query.strongest(1000, 2)
    assert len(least["pre"]) == sum(d["weight"] >= 2 for *_, d in graph.edges(data=True))


@pytest.mark.parametrize("side", ["out", "in"])
def test_partners_of_a_neuron(folder: Path, side) -> None:
    graph = to_networkx(folder)
    neuron = max(graph, key=graph.degree)
    edges = graph.out_edges(neuron, data=True) if side == "out" else graph.in_edges(neuron, data=True)
    want = {(b if side == "out" else a): d["weight"] for a, b, d in edges}
    with ConnectomeQuery(folder) as query:
        found = query.partners(neuron, side)
    assert dict(zip(found["partner"].tolist(), found["count"].tolist(), strict=True)) == want
    assert found["partner"].tolist() == sorted(want, key=lambda i: (-want[i], i))
    assert found["fraction"].sum() == pytest.approx(1)


def test_the_contacts_of_an_edge(folder: Path) -> None:
    with ConnectomeQuery(folder) as query:
        (pre, post, count, *_), *_ = rows(query.strongest(1))
        found = query.between(pre, post)
    table = drawn(5, n=120, segments=30)
    want = (table.pre_segments == pre) & (table.post_segments == post)
    assert sorted(found["id"].tolist()) == sorted(table.ids[want].tolist())
    assert len(found["id"]) == count
    assert found["score"].tolist() == sorted(found["score"].tolist(), reverse=True)


def test_a_path_is_as_short_as_that_of_networkx(folder: Path) -> None:
    graph = to_networkx(folder)
    neurons = sorted(graph)
    reached = 0
    with ConnectomeQuery(folder) as query:
        for start, end in zip(neurons, np.roll(neurons, 7).tolist(), strict=True):
            found = rows(query.path(start, end))
            if not nx.has_path(graph, start, end):
                assert found == []
                continue
            reached += 1
            assert len(found) == nx.shortest_path_length(graph, start, end)
            assert [found[0][0], found[-1][1]] == [start, end]
            assert all(a[1] == b[0] for a, b in pairwise(found))
            assert all(graph.edges[a, b]["weight"] == n for a, b, n in found)
    assert reached > 5


def test_a_path_of_edges_that_are_strong_enough(tmp_path: Path) -> None:
    # 1 to 4 directly once, by 2 twice each, by 3 thrice each.
    weak, two, three = [(1, 4)], [(1, 2), (2, 4)] * 2, [(1, 3), (3, 4)] * 3
    with ConnectomeQuery(made(tmp_path, between(weak + two + three))) as query:
        assert rows(query.path(1, 4)) == [(1, 4, 1)]
        assert rows(query.path(1, 4, 2)) == [(1, 3, 3), (3, 4, 3)]
        assert rows(query.path(1, 4, 4)) == []
        assert rows(query.path(4, 1)) == []


def test_paths_beyond_the_limit_are_not_sought(tmp_path: Path) -> None:
    chain = [(i, i + 1) for i in range(1, MOST_STEPS + 3)]
    with ConnectomeQuery(made(tmp_path, between(chain))) as query:
        assert len(rows(query.path(1, MOST_STEPS + 1))) == MOST_STEPS
        with pytest.raises(InputError, match=f"no path of {MOST_STEPS} edges"):
            query.path(1, MOST_STEPS + 2)


def test_sql_on_three_views(folder: Path) -> None:
    with ConnectomeQuery(folder) as query:
        total = query.sql("SELECT sum(count) AS n FROM edges")["n"].tolist()
        assert query.sql("SELECT count(*) AS n FROM synapses WHERE left_out = ''")["n"].tolist() == total
        joined = query.sql(
            "SELECT neurons.id, outputs, sum(count) AS n FROM neurons JOIN edges ON pre = neurons.id GROUP BY ALL"
        )
        assert joined["outputs"].tolist() == joined["n"].tolist()


def test_nothing_else_can_be_asked(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with ConnectomeQuery(folder) as query:
        for text, message in (
            (f"SELECT * FROM '{tmp_path / 'secret.csv'}'", "the SQL fails"),
            ("DROP VIEW edges", "give one SELECT"),
            ("SELECT 1; SELECT 2", "give one SELECT"),
            ("SELEC 1", "is not understood"),
            ("SELECT nothing FROM edges", "nothing"),
        ):
            with pytest.raises(InputError, match=message):
                query.sql(text)
        for ask in (lambda: query.partners(10**6), lambda: query.path(1, 0), lambda: query.between(2**63, 1)):
            with pytest.raises(InputError, match="has no neuron"):
                ask()
        (pre, *_), *_ = rows(query.strongest(1))
        with pytest.raises(InputError, match="given for both"):
            query.path(pre, pre)
        with pytest.raises(InputError, match="at least 1"):
            query.strongest(0)
    with pytest.raises(InputError, match=r"holds no synapses\.parquet"):
        ConnectomeQuery(tmp_path)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    folder = made(tmp_path, between([(1, 2)]))
    (folder / "edges.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        ConnectomeQuery(folder)
