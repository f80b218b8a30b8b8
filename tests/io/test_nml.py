"""What an NML file holds is read, and written back: nothing is lost, nothing is spelled anew without need."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings

from emloom.errors import InputError
from emloom.geometry.box import Box
from emloom.geometry.elements import Element, Group
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Tracing, differences
from emloom.io.nml import read_nml, read_nml_tracing, read_nml_tracings, write_nml, write_nmls
from emloom.io.nmlreader import parse
from emloom.io.nmlwriter import nml_lines
from tests.geometry.tracing_strategies import tracings

# Every part of the format, written by hand.
EVERYTHING = """<?xml version="1.0" encoding="utf-8"?>
<things version="3">
  <meta name="writer" content="a hand" />
  <parameters>
    <experiment name="MyDataset" organization="o &amp; o" description="line 1&#10;line 2" />
    <scale x="11.24" y="11.24" z="32.0" unit="nanometer" />
    <offset x="1" y="2" z="3" />
    <time ms="1487095186549" />
    <editPosition x="35575" y="37845" z="655" />
    <editRotation xRot="0.0" yRot="90.0" zRot="0.0" />
    <zoomLevel zoom="1.5759572281292873" />
    <activeNode id="9" />
    <userBoundingBox id="0" name="b" isVisible="true" color.r="0.75" color.g="1" color.b="0" color.a="1.0" \
topLeftX="28672" topLeftY="24576" topLeftZ="5120" width="1024" height="512" depth="256" />
    <taskBoundingBox topLeftX="0" topLeftY="0" topLeftZ="0" width="1" height="2" depth="3" />
    <additionalAxes><additionalAxis name="t" index="0" start="0" end="10" /></additionalAxes>
  </parameters>
  <thing id="4" name="axon" groupId="3" color.r="1.0" color.g="0" color.b="0.25" color.a="1" isVisible="false" \
edgesAreVisible="true" type="AGGLOMERATE">
    <nodes>
      <node id="7" radius="112.399994" x="37484" y="43509" z="230" rotX="1" rotY="2" rotZ="3.5" inVp="1" \
inMag="0" bitDepth="8" interpolation="false" time="1486471855369" additionalCoordinate-t="4" />
      <node id="9" x="1.50" y="-2" z="3e2" />
      <node id="3" x="0.1" y="0.2" z="0.3" radius="1"><flag kind="?">why</flag></node>
    </nodes>
    <edges>
      <edge source="9" target="7" />
      <edge source="9" target="3" weight="0.5" />
    </edges>
    <metadata><metadataEntry key="type" stringValue="soma" /></metadata>
  </thing>
  <thing id="2">
    <nodes>
    </nodes>
    <edges>
    </edges>
  </thing>
  <branchpoints>
    <branchpoint id="9" time="129" />
  </branchpoints>
  <comments>
    <comment node="3" content="&quot;tip&quot; &lt;b1&gt;" />
    <comment node="7" content="soma" />
    <comment node="99" content="of a node that was deleted" />
  </comments>
  <groups>
    <group id="1" name="all" isExpanded="false">
      <group id="3" name="axons" />
    </group>
    <group id="2" name="" />
  </groups>
  <volume id="0" name="Volume" location="data_Volume.zip" fallbackLayer="seg" />
</things>
"""
SECTIONS = ("meta", "parameters", "thing", "branchpoints", "comments", "groups", "volume")


def said(root: ElementTree.Element) -> tuple[Any, ...]:
    """What a document says, by another reader: elements, attributes, texts; empty containers say nothing."""
    children = list(root)
    if root.tag == "things":
        # The order of unlike elements says nothing, and a container may be cut in two.
        children.sort(key=lambda child: SECTIONS.index(child.tag) if child.tag in SECTIONS else -1)
    parts: list[Any] = []
    for child in children:
        inside = said(child)
        if inside[1:] == ((), "", ()) and child.tag in ("branchpoints", "comments", "groups", "nodes", "edges"):
            continue
        if parts and child.tag == parts[-1][0] in ("branchpoints", "comments") and not inside[1]:
            parts[-1] = (*parts[-1][:3], parts[-1][3] + inside[3])
        else:
            parts.append(inside)
    return root.tag, tuple(sorted(root.items())), (root.text or "").strip(), tuple(parts)


def said_by(text: str) -> tuple[Any, ...]:
    return said(ElementTree.fromstring(text))


def written(tracing: Tracing) -> str:
    return "".join(nml_lines(tracing))


def read(text: str, **given: Any) -> Tracing:
    return parse([text.encode("utf-8")], "a.nml", given.get("voxel_size_nm"))


def test_everything_is_read() -> None:
    t = read(EVERYTHING)
    assert t.skeletons.ids.tolist() == [4, 2]
    assert t.skeletons.names == ("axon", "")
    assert t.skeletons.positions_nm[1].tolist() == [300 * 32.0, -2 * 11.24, 1.5 * 11.24]
    assert t.skeletons.edges.tolist() == [[1, 0], [1, 2]]
    assert t.voxel_size_nm == (32.0, 11.24, 11.24)
    assert t.radii_nm[[0, 2]].tolist() == [112.399994, 1]
    assert np.isnan(t.radii_nm[1])
    assert t.nodes.numbers("time")[0] == 1486471855369
    assert t.nodes["additionalCoordinate-t"].tolist() == ["4", None, None]
    assert t.colours[0].tolist() == [1, 0, 0.25, 1]
    assert t.tree_groups == (3, None)
    assert t.trees["isVisible"].tolist() == ["false", None]
    assert t.edges.numbers("weight").tolist()[1] == 0.5
    assert dict(zip(t.comments.rows.tolist(), t.comment_texts(), strict=True)) == {2: '"tip" <b1>', 0: "soma"}
    assert t.branchpoints.rows.tolist() == [1]
    assert t.branchpoints.columns["time"].tolist() == ["129"]
    assert t.groups == (Group(1, "all", None, (("isExpanded", "false"),)), Group(3, "axons", 1), Group(2))
    assert [(box.box, box.kind, box.name) for box in t.boxes] == [
        (Box((5120, 24576, 28672), (256, 512, 1024)), "user", "b"),
        (Box((0, 0, 0), (3, 2, 1)), "task", ""),
    ]
    assert t.active_node == 1
    experiment = t.parameter("experiment")
    assert experiment is not None
    assert experiment.get("description") == "line 1\nline 2"
    assert t.others.trees[0][0].children == (Element.of("metadataEntry", {"key": "type", "stringValue": "soma"}),)
    assert [element.tag for element in t.others.document] == ["things", "meta", "volume", "comments"]


def test_everything_is_written_as_it_was_spelled() -> None:
    text = written(read(EVERYTHING))
    assert said_by(text) == said_by(EVERYTHING)
    assert written(read(text)) == text


def test_what_is_not_understood_is_kept_where_it_stood() -> None:
    text = EVERYTHING.replace("<nodes>", '<nodes count="3"><odd a="1"/>', 1)
    text = text.replace("<groups>", '<groups version="2">').replace("<comments>", "<comments><odd/>")
    t = read(text)
    assert t.others.trees[0][0] == Element.of("nodes", {"count": "3"})
    again = read(written(t))
    assert differences(t, again) == ()
    assert Element("nodes", (), (Element.of("odd", {"a": "1"}),)) in again.others.trees[0]
    assert Element.of("groups", {"version": "2"}) in again.others.document
    assert Element("comments", (), (Element("odd"),)) in again.others.document


@settings(max_examples=40)
@given(tracings())
def test_a_random_tracing_comes_back_bit_for_bit(tracing: Tracing) -> None:
    again = read(written(tracing))
    assert differences(tracing, again) == ()
    assert said_by(written(again)) == said_by(written(tracing))


@settings(max_examples=40)
@given(tracings())
def test_a_moved_node_is_written_where_it_is(tracing: Tracing) -> None:
    s = tracing.skeletons
    moved = replace(tracing, skeletons=replace(s, positions_nm=s.positions_nm + 1.25), parameters=())
    again = read(written(moved))
    assert again.voxel_size_nm == tracing.voxel_size_nm
    # A position that no coordinate gives may be off by the rounding of one multiplication.
    ulp = np.spacing(np.abs(moved.skeletons.positions_nm))
    assert (np.abs(again.skeletons.positions_nm - moved.skeletons.positions_nm) <= ulp).all()


def test_whole_coordinates_are_written_whole_and_none_is_cut() -> None:
    positions = np.array([[32.0 * 230, 11.24 * 43509, 11.24 * 37484], [16, 11.24 * 0.25, 0]])
    skeletons = Skeletons.from_trees([(1, positions, [[0, 1]])])
    lines = written(Tracing.of(skeletons, (32, 11.24, 11.24)))
    assert '<node id="1" x="37484" y="43509" z="230" />' in lines
    assert '<node id="2" x="0" y="0.25" z="0.5" />' in lines
    assert '<scale x="11.24" y="11.24" z="32" unit="nanometer" />' in lines


def test_radii_follow_the_unit_of_the_scale() -> None:
    t = read(EVERYTHING.replace('unit="nanometer"', 'unit="micrometer"'))
    assert t.radii_nm[2] == 1000
    in_nm = read(written(replace(t, parameters=())))
    assert in_nm.radii_nm[2] == 1000
    assert 'unit="nanometer"' in written(in_nm)


def test_a_file_without_a_scale_gets_the_one_it_was_read_with() -> None:
    bare = EVERYTHING.replace('<scale x="11.24" y="11.24" z="32.0" unit="nanometer" />', "")
    t = read(bare, voxel_size_nm=(32.0, 11.24, 11.24))
    assert differences(t, read(EVERYTHING)) == ()
    assert differences(t, read(written(t))) == ()


def test_a_comment_on_one_of_two_nodes_of_an_id_is_kept_and_not_guessed() -> None:
    tree = '<thing id="{0}"><nodes><node id="7" x="0" y="0" z="0"/></nodes></thing>'
    text = (
        '<things><parameters><scale x="1" y="1" z="1"/></parameters>'
        + tree.format(1)
        + tree.format(2)
        + '<comments><comment node="7" content="?"/></comments></things>'
    )
    t = read(text)
    assert t.comments.rows.size == 0
    assert said_by(written(t)) == said_by(text)
    with pytest.raises(InputError, match="on node 7, an id that stands in several trees"):
        written(replace(t, comments=Marks.of([0], content=["?"])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comments": Marks.of([0], content=["\x00"])}, r"holds the character '\\x00', which XML cannot"),
        ({"groups": (Group(1, "\ud800"),)}, "which XML cannot"),
        ({"parameters": (Element("a b"),)}, "'a b' cannot be the name"),
        ({"comments": Marks.of([0], node=["3"])}, "the column 'node' is written from the ids"),
    ],
)
def test_what_xml_cannot_hold_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        written(replace(read(EVERYTHING), **change))


# ---- files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    path = tmp_path / "all.nml"
    path.write_text(EVERYTHING, encoding="utf-8")
    return path


def test_a_file_is_written_whole_and_replaces_only_where_asked(everything: Path) -> None:
    t = read_nml_tracing(everything)
    with pytest.raises(InputError, match="already exists"):
        write_nml(everything, t)
    broken = replace(t, groups=(Group(1, "\x01"),))
    with pytest.raises(InputError, match="which XML cannot"):
        write_nml(everything, broken, overwrite=True)
    assert everything.read_text(encoding="utf-8") == EVERYTHING
    write_nml(everything, t, overwrite=True)
    assert differences(read_nml_tracing(everything), t) == ()
    assert [path.name for path in everything.parent.iterdir()] == ["all.nml"]
    with pytest.raises(InputError, match=r"a\.txt is no name of an NML file"):
        write_nml(everything.with_name("a.txt"), t)


@pytest.mark.parametrize(
    ("name", "inside"), [("a.zip", "a.nml"), ("a.nmx", "a.nml"), ("a.k.zip", "annotation.xml")]
)
def test_an_archive_of_one(everything: Path, name: str, inside: str) -> None:
    t = read_nml_tracing(everything)
    path = everything.with_name(name)
    write_nml(path, t)
    first = path.read_bytes()
    assert zipfile.ZipFile(path).namelist() == [inside]
    again = read_nml_tracing(path)
    assert differences(again, t) == ()
    assert again.source == f"{path}/{inside}"
    write_nml(path, again, overwrite=True)
    assert path.read_bytes() == first


def test_an_archive_of_several(everything: Path) -> None:
    t = read_nml_tracing(everything)
    other = replace(t, groups=())
    path = everything.with_name("both.nmx")
    write_nmls(path, {"b.nml": t, "sub/a.nml": other})
    both = read_nml_tracings(path)
    assert list(both) == ["b.nml", "sub/a.nml"]
    assert differences(both["b.nml"], t) == ()
    assert differences(both["sub/a.nml"], other) == ()
    assert read_nml(path).names == ("b.nml: axon", "b.nml: ", "a.nml: axon", "a.nml: ")
    with pytest.raises(InputError, match=r"holds 2 tracings, b\.nml, sub/a\.nml"):
        read_nml_tracing(path)
    with pytest.raises(InputError, match=r"end it with \.nml"):
        write_nmls(path, {"b.txt": t}, overwrite=True)
    with pytest.raises(InputError, match="would hold no tracing"):
        write_nmls(path, {}, overwrite=True)
    with pytest.raises(InputError, match="is no archive"):
        write_nmls(everything, {"b.nml": t}, overwrite=True)


@pytest.fixture
def volumetric(everything: Path) -> Path:
    path = everything.with_name("volumetric.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("all.nml", EVERYTHING)
        archive.writestr("data_Volume.zip", b"voxels" * 100, zipfile.ZIP_DEFLATED)
        archive.writestr("__MACOSX/._all.nml", b"\x00\x05\x16\x07")
    return path


def test_volume_layers_travel_with_the_tracing(volumetric: Path) -> None:
    t = read_nml_tracing(volumetric)
    assert [(a.name, a.n_bytes) for a in t.attachments] == [("data_Volume.zip", 600)]
    for target in (volumetric.with_name("copy.zip"), volumetric):
        write_nml(target, t, overwrite=True)
        assert zipfile.ZipFile(target).read("data_Volume.zip") == b"voxels" * 100
    assert differences(read_nml_tracing(volumetric), t) == ()


def test_volume_layers_are_never_lost_silently(volumetric: Path) -> None:
    t = read_nml_tracing(volumetric)
    out = volumetric.with_name("out.nml")
    with pytest.raises(
        InputError, match=r"came with 1 other files, such as data_Volume\.zip, which an \.nml cannot"
    ):
        write_nml(out, t)
    write_nml(out, t.without_attachments())
    assert "volume" not in [e.tag for e in read_nml_tracing(out).others.document]
    changed = volumetric.read_bytes()
    volumetric.unlink()
    with pytest.raises(InputError, match="is not there any more"):
        write_nml(volumetric.with_name("copy.zip"), t)
    volumetric.write_bytes(changed)
    with zipfile.ZipFile(volumetric, "w") as archive:
        archive.writestr("data_Volume.zip", b"other")
    with pytest.raises(InputError, match="has changed since it was read"):
        write_nml(volumetric.with_name("copy.zip"), t)
    assert not volumetric.with_name("copy.zip").exists()


def test_a_damaged_volume_layer_leaves_no_archive(volumetric: Path) -> None:
    t = read_nml_tracing(volumetric)
    content = bytearray(volumetric.read_bytes())
    content[content.index(b"data_Volume.zip", content.index(b"</things>")) + 20] ^= 0xFF  # inside its packed bytes
    volumetric.write_bytes(content)
    with pytest.raises(InputError, match="cannot unpack"):
        write_nml(volumetric.with_name("copy.zip"), t)
    assert not volumetric.with_name("copy.zip").exists()


def test_a_full_disk_is_not_the_fault_of_the_archive(volumetric: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = read_nml_tracing(volumetric)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zipfile._ZipWriteFile.write", full)
    with pytest.raises(InputError, match=r"cannot write .*copy\.zip: the disk is full"):
        write_nml(volumetric.with_name("copy.zip"), replace(t, skeletons=t.skeletons))


# ---- real files -----------------------------------------------------------------------------------------------


def real_files(folder: Path) -> Iterator[Path]:
    for part in ("skeletons/wkskel", "webknossos/nmls", "artifacts"):
        yield from sorted((folder / part).rglob("*.nml"))


@pytest.mark.real_data
def test_real_files_say_the_same_after_a_round_trip(real_data: Path, tmp_path: Path) -> None:
    files = list(real_files(real_data))
    assert len(files) >= 10
    for path in files:
        t = read_nml_tracing(path)
        out, packed = tmp_path / "out.nml", tmp_path / "out.nmx"
        write_nml(out, t, overwrite=True)
        write_nml(packed, t, overwrite=True)
        assert said(ElementTree.parse(out).getroot()) == said(ElementTree.parse(path).getroot()), path.name
        assert differences(read_nml_tracing(out), t) == ()
        assert differences(read_nml_tracing(packed), t) == ()


@pytest.mark.real_data
def test_real_files_hold_what_was_counted_in_them(real_data: Path) -> None:
    counted = {
        path.stem: (len(t.skeletons.ids), len(t.skeletons.node_ids), len(t.comments.rows), len(t.groups))
        for path in real_files(real_data)
        for t in [read_nml_tracing(path)]
    }
    assert counted["01_ref"][:2] == (7, 1719)
    assert counted["02_ref"] == (3, 170, 7, 2)
    assert counted["CC_err"][:3] == (1, 129, 2)
    assert counted["test_bottom"][:2] == (1425, 8550)
    assert counted["artefact_trainingData"][:2] == (600, 600)
