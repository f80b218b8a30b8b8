"""Answers of the region graph are those of the arrays it came from, for any cells."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.graphstore import block_file, block_files, lut_file, merges_file, read_lut
from emloom.ops.labels import apply_lut
from emloom.ops.nodes import node_table
from emloom.tasks.graph import GraphQuery
from emloom.tasks.graphfiles import load_graph, load_nodes, load_tree, save_lut
from tests.tasks.graphs import FLOOR, GRID, Whole, whole, write_graph

CELLS = [(18, 30, 34), (8, 16, 16), (5, 9, 40)]
THRESHOLDS = [None, FLOOR, 0.5, 0.57, 1.0]


@pytest.fixture(scope="module")
def memory() -> Whole:
    return whole()[0]


@pytest.fixture(scope="module", params=CELLS, ids=str)
def container(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph's") / "seg.zarr"
    return write_graph(folder, *whole(), request.param)


@pytest.fixture(scope="module")
def query(container: Path):
    with GraphQuery(container, memory_gb=1, threads=1) as graph:
        yield graph


def test_cells_add_up_to_the_whole(container: Path, memory: Whole) -> None:
    assert load_graph(container) == memory.graph
    nodes, expected = load_nodes(container), node_table(memory.fragments)
    assert {name: column.tolist() for name, column in nodes.items()} == {
        name: column.tolist() for name, column in expected.items()
    }
    tree = load_tree(container)
    assert tree.floor == FLOOR
    for name in ("score_num", "score_den", "a", "b"):
        np.testing.assert_array_equal(getattr(tree, name), getattr(memory.tree, name))


def test_luts_are_the_segmentation(container: Path, memory: Whole) -> None:
    path = save_lut(container, "mean", 0.57, load_tree(container))
    assert path == lut_file(container, "mean", 0.57)
    np.testing.assert_array_equal(apply_lut(memory.fragments, *read_lut(path)), memory.segments(0.57))
    with pytest.raises(InputError, match="outside"):
        save_lut(container, "mean", FLOOR - 0.01, load_tree(container))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_largest_are_those_of_the_segmentation(query: GraphQuery, memory: Whole, threshold: float | None) -> None:
    segments = memory.segments(threshold)
    table = node_table(segments)
    order = np.lexsort((table["id"], -table["size"]))
    found = query.largest(10**6, threshold)
    np.testing.assert_array_equal(found["segment"], table["id"][order])
    np.testing.assert_array_equal(found["voxels"], table["size"][order])
    for name in ("z0", "y0", "x0", "z1", "y1", "x1"):
        np.testing.assert_array_equal(found[name], table[name][order])
    np.testing.assert_allclose(found["volume_um3"], table["size"][order] * 40 * 8 * 8 / 1e9)
    one = np.argwhere(segments == found["segment"][0]).mean(0)
    assert [found[f"{axis}_nm"][0] for axis in "zyx"] == pytest.approx(GRID.to_world((one + 0.5).tolist()))
    inside = segments == found["segment"][0]
    assert found["fragments"][0] == len(np.unique(memory.fragments[inside]))
    few = query.largest(3, threshold)
    assert {name: column.tolist() for name, column in few.items()} == {
        name: column[:3].tolist() for name, column in found.items()
    }


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_neighbours_are_the_pooled_contacts(query: GraphQuery, memory: Whole, threshold: float | None) -> None:
    graph = memory.graph.take(memory.graph.contacts > 0)
    u, v = graph.u, graph.v
    if threshold is not None:
        u, v = memory.tree.lut(u, threshold), memory.tree.lut(v, threshold)
    for segment in query.largest(4, threshold)["segment"].tolist():
        expected: dict[int, list[int]] = {}
        for k in range(len(graph)):
            if segment in (int(u[k]), int(v[k])) and u[k] != v[k]:
                row = expected.setdefault(int(v[k] if int(u[k]) == segment else u[k]), [0, 0, 0, 0])
                row[:] = [
                    row[0] + int(graph.n[k]),
                    row[1] + int(graph.total[k]),
                    max(row[2], int(graph.peak[k])),
                    row[3] + int(graph.contacts[k]),
                ]
        found = query.neighbours(segment, threshold)
        columns = [found[name].tolist() for name in ("neighbour", "n", "total", "peak", "contacts")]
        assert list(zip(*columns, strict=True)) == sorted(
            ((name, *row) for name, row in expected.items()), key=lambda row: (-row[4], row[0])
        )
        np.testing.assert_allclose(found["mean"], found["total"] / found["n"] / 255)
        # What would score the threshold has merged.
        assert threshold is None or np.all(found["mean"] < threshold)


def test_pairs_that_never_touch_are_no_neighbours(query: GraphQuery, memory: Whole) -> None:
    apart = memory.graph.take(memory.graph.contacts == 0)
    assert len(apart)
    u, v = int(apart.u[0]), int(apart.v[0])
    assert v not in query.neighbours(u)["neighbour"]
    assert len(query.sql(f"SELECT n FROM edges WHERE u = {u} AND v = {v}")["n"]) == 1


@pytest.mark.parametrize(
    "box",
    [Box.of((0, 0, 0), (18, 30, 34)), Box.of((3, 5, 6), (9, 12, 17)), Box.of((5, 5, 5), (7, 7, 7))],
    ids=str,
)
def test_edges_in_a_box_are_those_between_bounding_boxes_that_meet_it(
    query: GraphQuery, memory: Whole, box: Box
) -> None:
    nodes = node_table(memory.fragments)
    met = {
        int(nodes["id"][k])
        for k in range(len(nodes["id"]))
        if box.meets(Box.of([nodes[f"{axis}0"][k] for axis in "zyx"], [nodes[f"{axis}1"][k] for axis in "zyx"]))
    }
    keep = np.array([int(u) in met and int(v) in met for u, v in zip(memory.graph.u, memory.graph.v, strict=True)])
    expected, found = memory.graph.take(keep), query.edges_in(box)
    assert len(expected)
    for name in ("u", "v", "n", "total", "peak", "contacts"):
        assert found[name].dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(found[name], getattr(expected, name))
    np.testing.assert_allclose(found["mean"], expected.total / expected.n / 255)


def test_a_box_beyond_the_volume_holds_nothing(query: GraphQuery) -> None:
    for box in (Box.of((0, 0, 34), (18, 30, 99)), Box.of((-9, -9, -9), (0, 0, 0)), Box.whole((0, 9, 9))):
        found = query.edges_in(box)
        assert found["u"].dtype == np.uint64
        assert {len(column) for column in found.values()} == {0}


def test_sql_sees_whole_edges_and_nodes(query: GraphQuery, memory: Whole) -> None:
    graph, nodes = memory.graph, node_table(memory.fragments)
    edges = query.sql("SELECT * FROM edges ORDER BY u, v")
    np.testing.assert_array_equal(edges["u"], graph.u)
    np.testing.assert_array_equal(edges["total"], graph.total)
    found = query.sql("FROM nodes ORDER BY id")
    for name, column in nodes.items():
        assert found[name].tolist() == column.tolist()
    assert query.sql("SELECT count(*) AS n FROM merges WHERE score >= 0.5")["n"] == memory.tree.count(0.5)
    parts = query.sql("SELECT sum(n) AS n, count(*) AS rows FROM edge_parts")
    assert parts["n"].dtype == np.int64
    assert parts["n"][0] == graph.n.sum()
    assert parts["rows"][0] >= len(graph)


def test_sql_knows_the_lut_of_a_threshold(query: GraphQuery, memory: Whole) -> None:
    text = "SELECT count(DISTINCT coalesce(segment, id)) AS n FROM nodes LEFT JOIN lut ON fragment = id"
    for threshold in THRESHOLDS:
        segments = np.unique(memory.segments(threshold))
        assert query.sql(text, threshold)["n"] == np.count_nonzero(segments)


def test_values_of_any_type_come_back(query: GraphQuery) -> None:
    found = query.sql(
        "SELECT NULL AS a, 'x' AS b, [1, 2] AS c, true AS d, 1.5::DECIMAL(4, 2) AS e, 2::DECIMAL(38) AS f"
    )
    assert [column.tolist()[0] for column in found.values()][:4] == [None, "x", [1, 2], True]
    assert float(found["e"][0]) == 1.5
    assert found["f"].dtype == np.int64
    wide = query.sql("SELECT (2::DECIMAL(38)) * 9223372036854775807 AS w")["w"]
    assert wide.tolist() == [2**64 - 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELCT 1", "not understood"),
        ("", "the SQL is nothing"),
        ("SELECT 1; SELECT 2", "SELECT, SELECT: give one"),
        ("DROP VIEW edges", "the SQL is DROP"),
        ("COPY edges TO 'stolen.parquet'", "the SQL is COPY"),
        ("CREATE TABLE t AS SELECT 1", "the SQL is CREATE"),
        ("SET memory_limit = '1GB'", "the SQL is SET"),
        ("INSTALL httpfs", "the SQL is LOAD"),
        ("SELECT * FROM read_csv('/etc/passwd')", "the SQL fails"),
        ("SELECT * FROM glob('/*')", "the SQL fails"),
        ("SELECT nothing FROM edges", "the SQL fails.*nothing"),
        ("SELECT u AS a, v AS a FROM edges", "two columns are called 'a'"),
    ],
)
def test_sql_reads_this_graph_and_nothing_else(query: GraphQuery, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        query.sql(text)


def test_questions_without_an_answer_say_why(query: GraphQuery, memory: Whole) -> None:
    ended = int(memory.tree.b[0])
    goes_on = int(memory.tree.lut(np.array([ended], np.uint64), 0.5)[0])
    for segment in (0, -1, 2**63, 2**70, 10**9):
        with pytest.raises(InputError, match=f"no segment {segment}"):
            query.neighbours(segment)
    with pytest.raises(InputError, match=f"{ended} is a fragment of segment {goes_on} at threshold 0.5"):
        query.neighbours(ended, 0.5)
    for threshold in (FLOOR - 0.01, 1.01):
        with pytest.raises(InputError, match="outside"):
            query.largest(1, threshold)
    with pytest.raises(InputError, match="0 largest"):
        query.largest(0)


def test_what_exceeds_the_memory_is_spilled_and_removed(
    container: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    text = "SELECT count(*) AS n FROM (SELECT (a * 7919) % 3000017 AS x FROM range(3000000) t(a) GROUP BY x)"
    with GraphQuery(container, memory_gb=0.02, threads=1) as graph:
        assert list(tmp_path.iterdir()) == []
        assert graph.sql(text)["n"] == 3_000_000
        assert len(list(tmp_path.iterdir())) == 1
        with pytest.raises(InputError, match="memory is short"):
            graph.sql("SELECT list(a) AS x FROM range(100000000) t(a)")
    assert list(tmp_path.iterdir()) == []


def test_containers_without_a_graph_say_so(tmp_path: Path, container: Path) -> None:
    with pytest.raises(InputError, match="has no region graph"):
        GraphQuery(tmp_path)
    with pytest.raises(InputError, match="GB"):
        GraphQuery(container, memory_gb=0)
    with pytest.raises(InputError, match="threads"):
        GraphQuery(container, threads=0)
    copy = shutil.copytree(container, tmp_path / "copy.zarr")
    merges_file(copy).unlink()
    with GraphQuery(copy) as graph:
        assert len(graph.largest(1)["segment"]) == 1
        with pytest.raises(InputError, match="never agglomerated"):
            graph.largest(1, 0.5)
    last = list(block_files(copy, "edges").values())[-1]
    last.write_bytes(last.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"cannot be read|not a readable"), GraphQuery(copy) as graph:
        graph.edges_in(Box.whole((18, 30, 34)))
    shutil.rmtree(block_file(copy, "nodes", (0, 0, 0)).parent)
    with pytest.raises(InputError, match="no region graph"):
        GraphQuery(copy)
