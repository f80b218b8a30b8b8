"""Files that are made to harm, or merely absurd, are refused with a reason, while they are read."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zipfile
from pathlib import Path

import pytest

from emloom.errors import InputError
from emloom.io import nmlarchive, nmlreader
from emloom.io.nml import read_nml_tracing, read_nml_tracings, write_nmls

SCALE = '<parameters><scale x="10" y="20" z="30"/></parameters>'
NODE = '<node id="{}" x="1" y="2" z="3"/>'


def document(inside: str, n_nodes: int = 1) -> str:
    nodes = "".join(NODE.format(number) for number in range(n_nodes))
    return f'<things>{SCALE}<thing id="1"><nodes>{nodes}</nodes><edges/></thing>{inside}</things>'


def saved(folder: Path, text: str) -> Path:
    path = folder / "a.nml"
    path.write_text(text, encoding="utf-8")
    return path


def packed(folder: Path, *names: str, text: str = "") -> Path:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        for name in names:
            archive.writestr(name, text or document(""))
    return path


BOMB = '<!DOCTYPE things [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + document('<meta name="&b;"/>')
LEAK = '<!DOCTYPE things [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + document('<meta name="&a;"/>')


@pytest.mark.fault(
    "tracings",
    "an NML declares entities (a billion laughs, a file of the disk), also inside an archive",
    "error: declares a document type: nothing expands, nothing is fetched",
)
@pytest.mark.parametrize("text", [BOMB, LEAK])
def test_entities_are_refused_in_archives_too(tmp_path: Path, text: str) -> None:
    for path in (saved(tmp_path, text), packed(tmp_path, "b.nml", text=text)):
        with pytest.raises(InputError, match="declares a document type"):
            read_nml_tracing(path)


def test_an_entity_nobody_declared_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not readable as XML"):
        read_nml_tracing(saved(tmp_path, document('<meta name="&b;"/>')))


@pytest.mark.fault(
    "tracings",
    "one attribute of an NML is megabytes long",
    "error: an element is larger than ...",
)
def test_an_attribute_may_be_a_letter_but_no_library(tmp_path: Path) -> None:
    letter = "x" * 500_000
    path = saved(tmp_path, document(f'<comments><comment node="0" content="{letter}"/></comments>'))
    assert read_nml_tracing(path).comment_texts() == (letter,)
    library = "x" * (nmlreader.LARGEST_ELEMENT + (1 << 20))
    for inside in (f'<meta name="{library}"/>', f"<meta>{library}</meta>", f"<!-- {library} -->"):
        with pytest.raises(InputError, match="an element is larger than"):
            read_nml_tracing(saved(tmp_path, document(inside)))


@pytest.mark.fault(
    "tracings",
    "groups of an NML are nested 5000 deep",
    "error: nested deeper than 100",
)
@pytest.mark.parametrize("tag", ["group", "what"])
def test_groups_nest_but_not_forever(tmp_path: Path, tag: str) -> None:
    def nested(depth: int) -> str:
        opening = "".join(f'<{tag} id="{number}">' for number in range(depth))
        return document(f"<groups>{opening}{f'</{tag}>' * depth}</groups>")

    assert read_nml_tracing(saved(tmp_path, nested(nmlreader.DEEPEST - 2)))
    with pytest.raises(InputError, match="nested deeper than 100"):
        read_nml_tracing(saved(tmp_path, nested(5000)))


@pytest.mark.fault(
    "tracings",
    "an NML has more nodes than memory",
    "error: has more than ... nodes: split it",
)
def test_absurd_numbers_of_nodes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmlreader, "MOST_NODES", 5)
    assert len(read_nml_tracing(saved(tmp_path, document("", 5))).skeletons.node_ids) == 5
    with pytest.raises(InputError, match="has more than 5 nodes: split it"):
        read_nml_tracing(saved(tmp_path, document("", 6)))


@pytest.mark.fault(
    "tracings",
    "ids and coordinates of an NML have 5000 digits",
    "error: names node, line and value, shortened",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (document("").replace('x="1"', f'x="{"9" * 5000}"'), "node 0 of skeleton 1 lies at"),
        (document("").replace('node id="0"', f'node id="{"9" * 30}"'), "give a whole number"),
        (
            document("").replace('node id="0"', f'node id="{"9" * 10_000}"'),
            r"id='9{57}\.\.\.': give a whole number",
        ),
        (document("hello"), "line 1: the text 'hello' stands inside <things>, but NML has attributes only"),
        (document("").replace("<nodes>", "").replace("</nodes>", ""), "a <node> stands in <thing>, not in"),
        (document("<groups><group/></groups>"), "<group> has id=None: give a whole number"),
    ],
)
def test_absurd_values_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_nml_tracing(saved(tmp_path, text))


def test_attributes_are_many_but_not_one_for_each_node(tmp_path: Path) -> None:
    # A column for each name and a row for each node would be a square.
    inside = "".join(f'<node id="{k + 1}" x="0" y="0" z="0" a{k}="1"/>' for k in range(5000))
    with pytest.raises(InputError, match="have more than 200 different attributes"):
        read_nml_tracing(saved(tmp_path, document("").replace("<nodes>", f"<nodes>{inside}")))
    edges = "".join(f'<edge source="0" target="0" a{k}="1"/>' for k in range(5000))
    with pytest.raises(InputError, match="have more than 200 different attributes"):
        read_nml_tracing(saved(tmp_path, document("").replace("<edges/>", f"<edges>{edges}</edges>")))


@pytest.mark.parametrize("where", ["</nodes>", "</thing>", "</node>", "</group>", "<edges/>"])
def test_many_strange_elements_take_no_longer_each(tmp_path: Path, where: str) -> None:
    # 200,000 in one place: a list that is copied for each would not end.
    text = document('<groups><group id="1"></group></groups>').replace('z="3"/>', 'z="3"></node>')
    assert where in text
    t = read_nml_tracing(saved(tmp_path, text.replace(where, "<a/>" * 200_000 + where, 1)))
    found = [*t.groups[0].others, *t.others.trees.get(0, ()), *t.others.nodes.get(0, ())]
    assert len(found) == 200_000


# ---- archives -------------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "tracings",
    "a zip bomb: little that unpacks to much",
    "error: unpacks to far more than a tracing does; counted while it unpacks",
)
def test_what_comes_out_of_an_archive_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path, "b.nml", text=document("<a/>" * 500_000))
    assert path.stat().st_size * 200 < 2_000_000
    assert len(read_nml_tracing(path).others.document) == 500_000  # so little always may
    monkeypatch.setattr(nmlarchive, "ALWAYS", 1 << 16)
    with pytest.raises(InputError, match="unpacks to far more than a tracing does"):
        read_nml_tracing(path)


def test_many_files_share_one_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path, *(f"{number}.nml" for number in range(20)), text=document("<a/>" * 500))
    size = len(document("<a/>" * 500))
    monkeypatch.setattr(nmlarchive, "LARGEST", 20 * size)
    assert len(read_nml_tracings(path)) == 20
    monkeypatch.setattr(nmlarchive, "LARGEST", 19 * size)
    with pytest.raises(InputError, match=r"a\.zip/9\.nml unpacks to far more"):
        read_nml_tracings(path)


@pytest.mark.fault(
    "tracings",
    "an archive lies about the size of what it holds",
    "error: what comes out is counted, not what is declared",
)
@pytest.mark.parametrize("declared", [10, 0, 0xFFFFFFF0])
def test_a_size_that_lies_is_no_way_in(tmp_path: Path, declared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmlarchive, "ALWAYS", 1 << 16)
    path = packed(tmp_path, "b.nml", text=document("<a/>" * 500_000))
    content = bytearray(path.read_bytes())
    central = content.rfind(b"PK\x01\x02")
    for at in (22, central + 24):  # the size unpacked, in the local and in the central header
        struct.pack_into("<I", content, at, declared)
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_nml_tracing(path)


@pytest.mark.fault(
    "tracings",
    "names in an archive lead out: ../b.nml, /b.nml, C:/b.nml",
    "error: leads out of the folder; nothing is written",
)
@pytest.mark.parametrize(
    "name", ["../b.nml", "/b.nml", "a/../../b.nml", "C:/b.nml", "..\\b.nml", "a\\..\\b.nml", "..", "b.nml/.."]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path, "good.nml", name)
    with pytest.raises(InputError, match="leads out of the folder"):
        read_nml_tracings(path)
    good = read_nml_tracing(packed(tmp_path, "good.nml"))
    with pytest.raises(InputError, match="leads out of the folder"):
        write_nmls(tmp_path / "out.zip", {name: good})
    assert not (tmp_path / "out.zip").exists()


def test_a_name_with_two_dots_in_it_leads_nowhere(tmp_path: Path) -> None:
    assert list(read_nml_tracings(packed(tmp_path, "a..b/c..nml"))) == ["a..b/c..nml"]


@pytest.mark.fault(
    "tracings",
    "an archive holds a name twice",
    "error: holds two files called 'b.nml'",
)
def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds two files called 'b\.nml'"):
        read_nml_tracings(packed(tmp_path, "b.nml", "b.nml"))


@pytest.mark.fault(
    "tracings",
    "an archive holds more files than anybody traces",
    "error: holds 3 files: at most 2",
)
def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmlarchive, "MOST_MEMBERS", 2)
    with pytest.raises(InputError, match="holds 3 files: at most 2"):
        read_nml_tracings(packed(tmp_path, "1.nml", "2.nml", "3.nml"))


@pytest.mark.fault(
    "tracings",
    "any byte of an archive is flipped",
    "an error, or the tracing as it was",
)
@pytest.mark.parametrize("at", range(0, 160, 3))
def test_any_damage_is_an_error_of_the_user_or_none(tmp_path: Path, at: int) -> None:
    path = packed(tmp_path, "b.nml")
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 0xFF
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert len(read_nml_tracings(path)) == 1
