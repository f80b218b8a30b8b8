"""Tracings are read into nanometres, and what is wrong with a file is said."""

from __future__ import annotations

import zipfile
from collections import Counter
from math import dist, fsum
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.nml import read_nml
from emloom.io.skeletons import read_skeletons
from emloom.io.swc import read_swc
from emloom.ops.skeletons import findings

SCALE = '<parameters><scale x="10" y="20" z="30"/></parameters>'
TREE = (
    '<thing id="4" name="axon"><nodes><node id="7" x="1" y="2" z="3"/><node id="9" x="4.5" y="2" z="3"/></nodes>'
    '<edges><edge source="9" target="7"/></edges></thing>'
)


def nml(folder: Path, inside: str, name: str = "a.nml") -> Path:
    path = folder / name
    path.write_text(f"<things>{inside}</things>", encoding="utf-8")
    return path


def test_an_nml_is_read_in_nanometres(tmp_path: Path) -> None:
    empty = '<thing id="5" name="empty"><nodes/><edges/></thing>'
    skeletons = read_nml(
        nml(tmp_path, SCALE + TREE + empty + '<comments><comment node="7" content="?"/></comments>')
    )
    assert skeletons.ids.tolist() == [4, 5]
    assert skeletons.names == ("axon", "empty")
    assert skeletons.node_ids.tolist() == [7, 9]
    assert skeletons.positions_nm.tolist() == [[90, 40, 10], [90, 40, 45]]
    assert skeletons.edges.tolist() == [[1, 0]]
    assert skeletons.lengths_nm.tolist() == [35, 0]


def test_the_scale_may_be_in_another_unit_or_given(tmp_path: Path) -> None:
    micrometres = SCALE.replace('z="30"', 'z="30" unit="micrometer"')
    assert read_nml(nml(tmp_path, micrometres + TREE)).positions_nm[0].tolist() == [90e3, 40e3, 10e3]
    bare = nml(tmp_path, TREE)
    with pytest.raises(InputError, match="states no scale: give"):
        read_nml(bare)
    assert read_nml(bare, voxel_size_nm=(30, 20, 10)).positions_nm[0].tolist() == [90, 40, 10]
    with pytest.raises(InputError, match=r"has the scale \(30.0, 20.0, 10.0\) nm .* but \(10.0, 20.0, 30.0\)"):
        read_nml(nml(tmp_path, SCALE + TREE), voxel_size_nm=(10, 20, 30))


@pytest.mark.parametrize("ending", [".zip", ".nmx"])
def test_archives_are_read_whole(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"all{ending}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b.nml", f"<things>{SCALE}{TREE}</things>")
        archive.writestr("sub/a.nml", f"<things>{SCALE}{TREE}{TREE.replace('4', '6')}</things>")
        archive.writestr("data_Volume.zip", b"\x00\x01")
    both = read_skeletons(path)
    assert both.ids.tolist() == [1, 2, 3]
    assert both.names == ("b.nml: axon", "a.nml: axon", "a.nml: axon")
    assert both.node_ids.tolist() == [7, 9] * 3
    assert both.lengths_nm.tolist() == [35, 35, 55]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b.nml", f"<things>{SCALE}{TREE}</things>")
    assert read_skeletons(path).ids.tolist() == [4]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(InputError, match=r"holds no \.nml file"):
        read_skeletons(path)


@pytest.mark.parametrize("at", [40, 60, -30])
def test_a_damaged_archive_is_an_error_of_the_user(tmp_path: Path, at: int) -> None:
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.nml", f"<things>{SCALE}{TREE}</things>")
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_nml(path)


def test_an_edge_finds_the_nodes_of_its_own_tree(tmp_path: Path) -> None:
    other = TREE.replace('thing id="4"', 'thing id="5"').replace('x="1"', 'x="2"')
    skeletons = read_nml(nml(tmp_path, SCALE + TREE + other))
    assert skeletons.edges.tolist() == [[1, 0], [3, 2]]


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE things [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    f'<things>{SCALE}<thing id="1" name="&b;"/></things>'
)
LEAK = '<!DOCTYPE things [<!ENTITY a SYSTEM "file:///etc/hostname">]><things><thing id="1" name="&a;"/></things>'


@pytest.mark.fault(
    "tracings",
    "an NML names an external DTD",
    "error: declares a document type; no request is made",
)
@pytest.mark.parametrize("text", [BOMB, LEAK, '<!DOCTYPE things SYSTEM "http://127.0.0.1/x.dtd"><things/>'])
def test_nothing_expands_and_nothing_is_fetched(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.nml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="declares a document type"):
        read_nml(path)


@pytest.mark.fault(
    "tracings",
    "an NML has edges to nowhere, a node or tree twice, NaN, a size of 0, an unknown unit",
    "error: names tree, node and line",
)
@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (SCALE + TREE.replace('target="7"', 'target="8"'), "tree 4 has an edge 9 to 8, but no node 8"),
        (SCALE + TREE.replace('id="9"', 'id="7"').replace('"9"', '"7"'), "node 7 of skeleton 4 stands twice"),
        (SCALE + TREE + TREE, "skeleton id 4 stands twice"),
        (SCALE + TREE.replace('x="1"', 'x="nan"'), "node 7 of skeleton 4 lies at"),
        (SCALE + TREE.replace('x="1"', 'x="one"'), "line 1: <node> has x='one': give a number"),
        (SCALE + TREE.replace(' z="3"', "", 1), "<node> has z=None"),
        (SCALE + TREE.replace('node id="7"', 'node id="-7"'), "<node> has id='-7': give a whole number"),
        (SCALE.replace("30", "0") + TREE, "voxels have a positive size"),
        (SCALE.replace('z="30"', 'z="30" unit="nanometre"') + TREE, "did you mean 'nanometer'"),
        (SCALE + TREE[:-5], "not readable as XML"),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path: Path, inside: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_nml(nml(tmp_path, inside))


def test_what_is_no_tracing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        read_nml(tmp_path / "none.nml")
    (tmp_path / "b.nml").write_text("<html/>")
    with pytest.raises(InputError, match="root element is not <things>"):
        read_nml(tmp_path / "b.nml")
    with pytest.raises(InputError, match=r"c\.txt is no tracing: give \.nml"):
        read_skeletons(tmp_path / "c.txt")
    with pytest.raises(InputError, match="states its own scale"):
        read_skeletons(nml(tmp_path, SCALE + TREE), unit_nm=8)


# ---- SWC ------------------------------------------------------------------------------------------------------

SWC = "# made by hand\n1 0 10 20 30 1.5 -1\n\n5 2 13 24 30 1 1 # a comment\n2 2 13 24 42 1 5\n"


def test_an_swc_is_read_in_the_unit_that_is_stated(tmp_path: Path) -> None:
    (tmp_path / "12.swc").write_text(SWC)
    one = read_swc(tmp_path / "12.swc", unit_nm=2)
    assert one.ids.tolist() == [12]
    assert one.node_ids.tolist() == [1, 5, 2]
    assert one.positions_nm[0].tolist() == [60, 40, 20]
    assert one.lengths_nm.tolist() == [34]
    assert read_skeletons(tmp_path / "12.swc", unit_nm=(30, 4, 4)).positions_nm[0].tolist() == [900, 80, 40]
    (tmp_path / "neuron.swc").write_text(SWC.replace("42", "43") + "9 0 0 0 0 1 -1\n8 0 1 0 0 1 9\n")
    both = read_skeletons(tmp_path, unit_nm=1)
    assert (both.ids.tolist(), both.names) == ([1, 2], ("12", "neuron"))
    assert [(f.skeleton, f.kind, f.count) for f in findings(both)] == [(2, "pieces", 2)]
    with pytest.raises(InputError, match="SWC does not say its unit: give unit_nm"):
        read_skeletons(tmp_path / "12.swc")


@pytest.mark.fault(
    "tracings",
    "an SWC has a dangling parent, a node twice, 6 columns, infinity",
    "error: node 1 has the parent 4, which does not exist: a root has -1",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 10 20 30 1\n", r"line 1 reads '1 0 10 20 30 1' \(6 values\): give 7 numbers"),
        ("1 0 10 20 x 1 -1\n", "line 1 reads .*give 7 numbers"),
        ("1 0 0 0 0 1 -1\n1 0 1 0 0 1 1\n", "node 1 of skeleton 1 stands twice"),
        ("1 0 0 0 0 1 4\n", "node 1 has the parent 4, which does not exist"),
        ("1 0 0 0 inf 1 -1\n", "node 1 of skeleton 1 lies at"),
        ("-3 0 0 0 0 1 -1\n", "node id -3"),
    ],
)
def test_wrong_swc_files_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.swc").write_text(text)
    with pytest.raises(InputError, match=message):
        read_swc(tmp_path / "a.swc", unit_nm=1)


def test_a_wrong_unit_or_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of them"):
        read_swc(tmp_path, unit_nm=1)
    with pytest.raises(InputError, match="no SWC file was given"):
        read_swc([], unit_nm=1)
    (tmp_path / "a.swc").write_text(SWC)
    with pytest.raises(InputError, match="is not positive"):
        read_swc(tmp_path, unit_nm=0)


# ---- real files -----------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["01_ref", "02_ref", "CC_err"])
def test_real_tracings_have_the_lengths_of_their_elements(real_data: Path, name: str) -> None:
    path = real_data / "skeletons" / "wkskel" / f"{name}.nml"
    skeletons = read_nml(path)
    root = ElementTree.parse(path).getroot()
    things = root.findall("thing")
    assert skeletons.ids.tolist() == [int(thing.attrib["id"]) for thing in things]
    for row, thing in enumerate(things):
        at = {
            node.attrib["id"]: tuple(
                float(node.attrib[a]) * s for a, s in zip("xyz", (11.24, 11.24, 32), strict=True)
            )
            for node in thing.iter("node")
        }
        parts = [dist(at[edge.attrib["source"]], at[edge.attrib["target"]]) for edge in thing.iter("edge")]
        assert skeletons.lengths_nm[row] == pytest.approx(fsum(parts), rel=1e-12)
    kinds = Counter(finding.kind for finding in findings(skeletons))
    assert kinds == ({"pieces": 1} if name == "CC_err" else {})


@pytest.mark.real_data
def test_real_neurons_are_trees_and_hold_their_synapses(real_data: Path) -> None:
    folder = real_data / "skeletons" / "hemibrain"
    skeletons = read_skeletons(folder, unit_nm=8)
    assert skeletons.ids.tolist() == [1734350788, 1734350908]
    assert findings(skeletons) == []
    for row, skeleton in enumerate(skeletons.ids.tolist()):
        table = np.genfromtxt(
            folder / f"{skeleton}_synapses.csv",
            delimiter=",",
            skip_header=1,
            usecols=(1, 3, 4, 5),
            dtype=np.float64,
        )
        at = dict(
            zip(
                skeletons.node_ids[skeletons.skeletons == row].tolist(),
                skeletons.positions_nm[skeletons.skeletons == row].tolist(),
                strict=True,
            )
        )
        away = [dist(at[int(node)], (8 * z, 8 * y, 8 * x)) for node, x, y, z in table.tolist()]
        # The table names the node nearest to each synapse: a wrong axis order or unit would be far off.
        assert np.median(away) < 1500
