"""The table of measures says what a graph library says; times count gaps and no breaks."""

from __future__ import annotations

from itertools import pairwise
from math import dist, inf, isnan, nan
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.io.skeletons import read_skeletons
from emloom.ops.skeletonmeasure import BREAK_MS, measures, speeds_um_per_min, tracing_times_ms
from tests.ops.neurites import any_skeletons, as_graph, neurites, nodes_of

seeds = st.integers(0, 10**6)


@given(seeds, st.booleans())
def test_measures_are_those_of_a_graph(seed: int, odd: bool) -> None:
    skeletons = any_skeletons(seed) if odd else neurites(seed)
    whole, table = as_graph(skeletons), measures(skeletons)
    assert {len(column) for column in table.values()} == {len(skeletons.ids)}
    for row, number in enumerate(skeletons.ids.tolist()):
        nodes = nodes_of(skeletons, row)
        graph = whole.subgraph(nodes)
        got = {name: column[row] for name, column in table.items()}
        counts = (got["skeleton"], got["nodes"], got["links"], got["pieces"], got["cycles"])
        assert counts == (
            number,
            len(nodes),
            graph.number_of_edges(),
            nx.number_connected_components(graph),
            len(nx.cycle_basis(graph)),
        )
        degree = [graph.degree(node) for node in nodes]
        assert (got["ends"], got["branches"]) == (degree.count(1), sum(d > 2 for d in degree))
        assert got["length_nm"] == pytest.approx(graph.size(weight="nm"), rel=1e-12)
        far = (max(nx.single_source_dijkstra_path_length(graph, n, weight="nm").values()) for n in nodes)
        assert got["longest_nm"] == pytest.approx(max(far, default=0), rel=1e-11, abs=1e-9)
        assert isnan(got["tortuosity"]) if got["longest_nm"] == 0 else got["tortuosity"] >= 1


def test_tortuosity_is_path_over_straight_distance() -> None:
    corner = [[0, 0, 0], [0, 0, 30], [0, 40, 30]]
    loop = [[0, 0, 0], [0, 0, 10], [0, 0, 0]]
    trees = [(1, corner, [(0, 1), (1, 2)]), (2, loop, [(0, 1), (1, 2)]), (3, [[1, 2, 3]], [])]
    table = measures(Skeletons.from_trees(trees, names=["a", "b", "c"]))
    assert table["tortuosity"].tolist()[:2] == [70 / 50, inf]
    assert isnan(table["tortuosity"][2])
    assert table["name"].tolist() == ["a", "b", "c"]
    assert [table[f"{axis}_max_nm"][0] for axis in "zyx"] == [0, 40, 30]


@given(seeds, st.floats(1e3, 1e7))
def test_tracing_time_is_the_sum_of_gaps_that_are_no_breaks(seed: int, break_ms: float) -> None:
    skeletons = any_skeletons(seed)
    rng = np.random.default_rng(seed)
    times = rng.integers(1, 10**7, len(skeletons.node_ids)).astype(np.float64)
    times[rng.random(len(times)) < 0.3] = rng.choice([0.0, nan])
    found = tracing_times_ms(skeletons, times, break_ms=break_ms)
    for row in range(len(skeletons.ids)):
        known = sorted(t for t in times[nodes_of(skeletons, row)].tolist() if t > 0)
        if len(known) < 2:
            assert isnan(found[row])
        else:
            assert found[row] == pytest.approx(sum(b - a for a, b in pairwise(known) if b - a <= break_ms))


def test_speed_is_path_over_time() -> None:
    positions = [[0, 0, 0], [0, 0, 3000], [0, 4000, 3000], [0, 4000, 3000]]
    tree = Skeletons.from_trees([(1, positions, [(0, 1), (1, 2), (2, 3)]), (2, positions[:2], [(0, 1)])])
    times = np.array([1e12, 1e12 + 60_000, 1e12 + 120_000, 1e12 + 120_000 + 2 * BREAK_MS, 5, 5])
    assert tracing_times_ms(tree, times).tolist() == [120_000, 0]
    speeds = speeds_um_per_min(tree, times)
    assert speeds[0] == 7 / 2
    assert isnan(speeds[1])
    with pytest.raises(InputError, match=r"times have shape \(2,\): give one for each of 6 nodes"):
        tracing_times_ms(tree, times[:2])
    with pytest.raises(InputError, match="a break of 0 ms"):
        tracing_times_ms(tree, times, break_ms=0)


def test_nothing_has_an_empty_table() -> None:
    table = measures(Skeletons.from_trees([]))
    assert all(len(column) == 0 for column in table.values())


# ---- real tracings --------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["01_ref.nml", "02_ref.nml", "CC_err.nml"])
def test_lengths_equal_the_formula_of_the_webknossos_example(real_data: Path, name: str) -> None:
    """Sum over edges of the distance of their nodes, coordinates scaled to nm, from the XML itself."""
    path = real_data / "skeletons" / "wkskel" / name
    root = ElementTree.parse(path).getroot()
    scale = root.find("parameters/scale")
    assert scale is not None
    expected = []
    for tree in root.iter("thing"):
        at = {
            node.get("id"): [float(node.get(axis, "nan")) * float(scale.get(axis, "nan")) for axis in "xyz"]
            for node in tree.iter("node")
        }
        expected.append(sum(dist(at[e.get("source")], at[e.get("target")]) for e in tree.iter("edge")))
    found = measures(read_skeletons(path))["length_nm"]
    assert len(expected) == {"01_ref.nml": 7, "02_ref.nml": 3, "CC_err.nml": 1}[name]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.real_data
def test_a_real_neuron_is_measured_as_its_file_says(real_data: Path) -> None:
    path = real_data / "skeletons" / "hemibrain" / "1734350908.swc"
    rows = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    at = {row[0]: [8 * float(v) for v in row[2:5]] for row in rows}
    children: dict[str, int] = {}
    for row in rows:
        children[row[6]] = children.get(row[6], 0) + 1
    table = {name: column[0] for name, column in measures(read_skeletons(path, unit_nm=8)).items()}
    length = sum(dist(at[row[0]], at[row[6]]) for row in rows if row[6] in at)
    assert table["length_nm"] == pytest.approx(length, rel=1e-12)
    degree = [children.get(row[0], 0) + (row[6] in at) for row in rows]
    assert (table["nodes"], table["ends"]) == (len(rows), degree.count(1))
    assert table["branches"] == sum(d > 2 for d in degree)
