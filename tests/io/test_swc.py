"""SWC files come back line by line, and other tracings are brought into their form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.elements import Group
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Tracing, differences
from emloom.io.swc import read_swc_tracings
from emloom.io.swcwriter import swc_losses, write_swc
from emloom.io.tracings import read_tracings, write_tracing

SWC = """# made by hand
#  in two lines
1 1 10 20.50 30 1.5 -1
5 2 13 24 30 1 1 # a fork
# between
#
2 3 13 24 42.125 .75 5
9 0 0 0 0 1e1 -1
#end
"""


def one(path: Path, unit_nm: float = 8) -> Tracing:
    (tracing,) = read_tracings(path, unit_nm=unit_nm).values()
    return tracing


def text_of(tracing: Tracing, folder: Path, **options: object) -> str:
    path = folder / "out.swc"
    write_swc(path, tracing, overwrite=True, **options)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def test_types_radii_and_comments_are_read(tmp_path: Path) -> None:
    (tmp_path / "12.swc").write_text(SWC)
    t = one(tmp_path / "12.swc")
    assert t.nodes["type"].tolist() == ["1", "2", "3", "0"]
    assert t.radii_nm.tolist() == [12, 8, 6, 80]
    assert t.skeletons.edges.tolist() == [[0, 1], [1, 2]]
    assert t.comments.rows.tolist() == [1]
    assert t.comment_texts() == ("a fork",)
    assert swc_losses(t) == ()


def test_a_file_comes_back_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "12.swc").write_text(SWC)
    t = one(tmp_path / "12.swc")
    assert text_of(t, tmp_path, unit_nm=8) == SWC
    (tmp_path / "latin.swc").write_bytes(b"# M\xfcller\n1 0 0 0 0 1 -1\n")
    write_swc(tmp_path / "latin2.swc", one(tmp_path / "latin.swc"), unit_nm=8)
    assert (tmp_path / "latin2.swc").read_bytes() == b"# M\xfcller\n1 0 0 0 0 1 -1\n"


def test_another_unit_writes_other_numbers_of_the_same_places(tmp_path: Path) -> None:
    (tmp_path / "12.swc").write_text(SWC)
    t = one(tmp_path / "12.swc")
    (tmp_path / "12.swc").write_text(text_of(t, tmp_path, unit_nm=1000))
    again = one(tmp_path / "12.swc", unit_nm=1000)
    assert np.allclose(again.skeletons.positions_nm, t.skeletons.positions_nm, rtol=1e-15)
    assert np.allclose(again.radii_nm, t.radii_nm, rtol=1e-15)
    assert again.nodes["type"].tolist() == t.nodes["type"].tolist()


def test_swc_survives_a_journey_through_nml(tmp_path: Path) -> None:
    (tmp_path / "12.swc").write_text(SWC)
    t = one(tmp_path / "12.swc")
    write_tracing(tmp_path / "a.nml", t)
    (again,) = read_tracings(tmp_path / "a.nml").values()
    assert differences(again, t) == ()
    lines = text_of(again, tmp_path, unit_nm=8).splitlines()
    assert [line for line in lines if line[0] == "#"] == [line for line in SWC.splitlines() if line[0] == "#"]
    for new, old in zip(lines, SWC.splitlines(), strict=True):
        if old[0] != "#":
            assert [float(v) for v in new.partition("#")[0].split()] == [
                float(v) for v in old.partition("#")[0].split()
            ]


@st.composite
def forests(draw: st.DrawFn) -> Tracing:
    """One skeleton of trees, its nodes in any order and its edges in any direction."""
    n = draw(st.integers(1, 8))
    parents = [draw(st.integers(-1, k - 1)) for k in range(n)]
    order = draw(st.permutations(range(n)))
    pairs = [(order[k], order[p]) for k, p in enumerate(parents) if p >= 0]
    flipped = [pair[::-1] if draw(st.booleans()) else pair for pair in pairs]
    positions = draw(st.lists(st.tuples(*[st.integers(0, 99)] * 3), min_size=n, max_size=n))
    tracing = Tracing.of(Skeletons.from_trees([(1, positions, flipped)]), (1, 1, 1))
    return replace(tracing, nodes=tracing.nodes.replaced("radius", [float(k) for k in range(n)]))


@settings(max_examples=50)
@given(forests())
def test_any_forest_keeps_its_nodes_and_links(tmp_path_factory: pytest.TempPathFactory, tracing: Tracing) -> None:
    folder = tmp_path_factory.mktemp("swc")
    lines = [line.split() for line in text_of(tracing, folder, unit_nm=2).splitlines() if line[0] != "#"]
    seen = {"-1"}
    for line in lines:  # parents stand before their children
        assert line[6] in seen
        seen.add(line[0])
    again = one(folder / "out.swc", unit_nm=2)

    def facts(t: Tracing) -> tuple[object, ...]:
        s = t.skeletons
        ids = s.node_ids.tolist()
        links = {frozenset((ids[a], ids[b])) for a, b in s.links.tolist()}
        return dict(zip(ids, zip(s.positions_nm.tolist(), t.radii_nm.tolist(), strict=True), strict=True)), links

    assert facts(again) == facts(tracing)


def test_an_edge_leads_from_the_parent_where_every_node_has_one(tmp_path: Path) -> None:
    skeletons = Skeletons.from_trees([(1, [[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[2, 1], [1, 0]])])
    lines = text_of(Tracing.of(skeletons, (1, 1, 1)), tmp_path, unit_nm=1, radius_nm=5).splitlines()
    assert lines == [
        "# unit: (1.0, 1.0, 1.0) nm (z, y, x)",
        "# id type x y z radius parent",
        "3 0 0 0 2 5 -1",
        "2 0 0 0 1 5 3",
        "1 0 0 0 0 5 2",
    ]


def test_several_trees_are_a_folder_of_files(tmp_path: Path) -> None:
    skeletons = Skeletons.from_trees([(7, [[0, 0, 0], [1, 2, 3]], [[0, 1]]), (9, [[4, 4, 4]], [])])
    tracing = Tracing.of(skeletons, (1, 1, 1))
    write_tracing(tmp_path / "out", tracing, unit_nm=1, radius_nm=0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["7.swc", "9.swc"]
    again = read_tracings(tmp_path / "out", unit_nm=1)
    assert list(again) == ["7.swc", "9.swc"]
    assert again["7.swc"].skeletons.positions_nm.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert [t.skeletons.ids.tolist() for t in again.values()] == [[7], [9]]


CYCLE = Skeletons.from_trees([(7, [[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1], [1, 2], [2, 0]])])
TWO = Skeletons.from_trees([(7, [[0, 0, 0]], []), (9, [[0, 0, 0]], [])])


@pytest.mark.fault(
    "tracings",
    "a tracing with a cycle, or two trees, is written to one SWC",
    "error: tree 7 has a cycle; no file is left",
)
@pytest.mark.parametrize(
    ("skeletons", "options", "message"),
    [
        (CYCLE, {"radius_nm": 1}, "tree 7 has a cycle"),
        (TWO, {"radius_nm": 1}, "would hold 2 trees: an SWC file holds one"),
        (TWO.restricted(np.zeros(2, bool)), {}, "would hold 0 trees"),
        (TWO.restricted(np.array([True, False])), {}, "1 nodes have no radius, node 1 the first"),
    ],
)
def test_what_swc_cannot_hold_is_refused(
    tmp_path: Path, skeletons: Skeletons, options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_swc(tmp_path / "a.swc", Tracing.of(skeletons, (1, 1, 1)), unit_nm=1, **options)
    assert list(tmp_path.iterdir()) == []


def test_losses_are_said_in_words(tmp_path: Path) -> None:
    bare = Tracing.of(TWO.restricted(np.array([True, False])), (1, 1, 1))
    assert swc_losses(bare) == ()
    rich = replace(
        bare,
        nodes=bare.nodes.replaced("radius", [1]).replaced("inVp", ["1"]),
        trees=bare.trees.replaced("color.r", [0.5]),
        groups=(Group(1),),
        comments=Marks.of([0, 0], content=["a\nb", "c"]),
        branchpoints=Marks.of([0]),
    )
    assert swc_losses(rich) == (
        "1 attributes of nodes",
        "1 attributes of trees",
        "1 line breaks in comments",
        "1 second comments of a node",
        "1 branch points",
        "1 groups",
    )
    assert text_of(rich, tmp_path, unit_nm=1).splitlines()[-1] == "1 0 0 0 0 1 -1 # a b; c"


def test_endings_and_units_are_minded(tmp_path: Path) -> None:
    tracing = Tracing.of(TWO, (1, 1, 1))
    with pytest.raises(InputError, match="is written in voxels and may lack radii"):
        write_tracing(tmp_path / "a.nml", tracing, unit_nm=1)
    with pytest.raises(InputError, match="SWC does not say its unit"):
        write_tracing(tmp_path / "a", tracing)
    with pytest.raises(InputError, match="is no name of a tracing"):
        write_tracing(tmp_path / "a.txt", tracing)
    with pytest.raises(InputError, match="is no tracing"):
        read_tracings(tmp_path / "a.txt")
    (tmp_path / "b.swc").write_text(SWC)
    with pytest.raises(InputError, match="give unit_nm, not voxel_size_nm"):
        read_tracings(tmp_path / "b.swc", voxel_size_nm=(1, 1, 1))
    (read,) = read_swc_tracings(tmp_path / "b.swc", unit_nm=1)
    typed = replace(read, nodes=read.nodes.replaced("type", ["soma"] * 4))
    with pytest.raises(InputError, match="has type='soma'"):
        text_of(typed, tmp_path, unit_nm=1)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["1734350788", "1734350908"])
def test_real_neurons_come_back_letter_by_letter(real_data: Path, tmp_path: Path, name: str) -> None:
    path = real_data / "skeletons" / "hemibrain" / f"{name}.swc"
    tracing = one(path)
    assert text_of(tracing, tmp_path, unit_nm=8) == path.read_text()
    write_tracing(tmp_path / "a.nmx", tracing)
    (again,) = read_tracings(tmp_path / "a.nmx").values()
    assert differences(again, tracing) == ()
