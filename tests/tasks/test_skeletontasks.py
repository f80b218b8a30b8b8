"""Tracings as commands treat them: tables that say what there is, conversions that lose nothing in silence."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.elements import Attachment
from emloom.geometry.tracings import Tracing, differences
from emloom.io.nml import write_nmls
from emloom.io.open import create_volume
from emloom.io.tables import read_table
from emloom.io.tracings import read_tracings, write_tracing
from emloom.io.volume import VolumeInfo
from emloom.ops.skeletonmeasure import measures
from emloom.tasks.skeletonconvert import ConvertTracingSpec, convert_tracing
from emloom.tasks.skeletoninfo import skeleton_info
from emloom.tasks.skeletonmeasure import MeasureSpec, measure
from emloom.tasks.skeletonplot import PlotSpec, plot
from emloom.tasks.tracingsource import TracingSource
from tests.ops.neurites import neurites
from tests.ops.test_tracingredraw import tracing_of

GRID = Grid((30.0, 8.0, 8.0), (-600.0, -300.0, -300.0))


def source(path: Path | str, **more: Any) -> TracingSource:
    return TracingSource(path=str(path), **more)


def only(path: Path, **more: Any) -> Tracing:
    (tracing,) = read_tracings(path, **more).values()
    return tracing


@pytest.fixture(scope="module")
def nml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trees, called axon, dendrite and nothing."""
    skeletons = neurites(4, most=40)
    ids = np.arange(1, len(skeletons.node_ids) + 1).astype(np.uint64)  # each once in the file
    named = type(skeletons)(
        skeletons.ids, skeletons.skeletons, ids, skeletons.positions_nm, skeletons.edges,
        ("axon", "dendrite", ""), "t.nml",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tracing") / "t.nml"
    write_tracing(path, tracing_of(named, 4))
    return path


# ---- info -----------------------------------------------------------------------------------------------------


def test_info_says_what_a_tracing_holds(nml: Path) -> None:
    (found,) = skeleton_info(source(nml))
    skeletons = only(nml).skeletons
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["file"], told["trees"], told["nodes"]) == ("t.nml", 3, len(skeletons.node_ids))
    assert told["length_nm"] == pytest.approx(skeletons.lengths_nm.sum())
    assert told["groups"] == [{"id": 3, "name": "axons", "parent": None, "trees": 3}]
    assert (told["comments"], told["branchpoints"], told["findings"]) == (3, 1, [])
    text = found.to_text()
    assert "voxel size   30, 8, 8 nm (z, y, x)" in text
    assert "group        3 'axons': 3 trees" in text
    assert "comments     3" in text


def test_info_shows_a_few_oddities_and_counts_the_rest(tmp_path: Path) -> None:
    rings = [(k, np.eye(3), [(0, 1), (1, 2), (2, 0)]) for k in range(1, 21)]
    write_tracing(tmp_path / "r.nml", Tracing.of(neurites(1).from_trees(rings), (1, 1, 1)))
    (found,) = skeleton_info(source(tmp_path / "r.nml"))
    assert len(found.to_dict()["findings"]) == 20
    lines = found.to_text().splitlines()
    assert lines[-1].strip() == "... 12 more: --json lists all"
    assert lines[-2].startswith("  finding      skeleton 8 has 1 independent cycles")


def test_an_empty_tracing_is_no_trouble(tmp_path: Path) -> None:
    write_tracing(tmp_path / "e.nml", Tracing.of(neurites(1).from_trees([]), (1, 1, 1)))
    (found,) = skeleton_info(source(tmp_path / "e.nml"))
    assert found.to_dict()["box_nm"] is None
    assert "0 with 0 nodes" in found.to_text()
    assert measure(MeasureSpec(source=source(tmp_path / "e.nml"))).rows() == []


# ---- measure --------------------------------------------------------------------------------------------------


def test_tables_hold_the_measures(nml: Path, tmp_path: Path) -> None:
    expected = measures(only(nml).skeletons)
    for ending in ("csv", "parquet", "json"):
        trees, nodes = tmp_path / f"trees.{ending}", tmp_path / f"nodes.{ending}"
        measure(MeasureSpec(source=source(nml), output=str(trees), nodes=str(nodes)))
        rows = rows_in(trees)
        assert [float(row["length_nm"]) for row in rows] == expected["length_nm"].tolist()
        assert [row["name"] for row in rows] == ["axon", "dendrite", ""]
        assert [row["group"] for row in rows] == ["axons"] * 3
        assert sum(int(row["comments"]) for row in rows) == 3
        assert all(row["minutes"] in ("", None) or isnan(row["minutes"]) for row in rows)
        listed = rows_in(nodes)
        assert [int(row["node"]) for row in listed] == only(nml).skeletons.node_ids.tolist()
        at = [[float(row[f"{axis}_nm"]) for axis in "zyx"] for row in listed]
        np.testing.assert_array_equal(at, only(nml).skeletons.positions_nm)


def rows_in(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        rows: list[dict[str, Any]] = json.loads(path.read_text())
        return rows
    if path.suffix == ".csv":
        with path.open() as file:
            return list(csv.DictReader(file))
    columns = {name: column.tolist() for name, column in read_table(path).columns.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_segments_under_nodes_are_those_of_the_voxels(nml: Path, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (30, 60, 60)).astype(np.uint64)
    info = VolumeInfo(labels.shape, labels.dtype, GRID, kind="labels", chunks=(8, 16, 16))
    create_volume(tmp_path / "seg.zarr", info).write(info.box, labels)
    spec = MeasureSpec(source=source(nml), segmentation=str(tmp_path / "seg.zarr"))
    found = measure(spec)
    skeletons = only(nml).skeletons
    under = []
    for position in skeletons.positions_nm.tolist():
        voxel = GRID.containing(position)
        inside = all(0 <= v < n for v, n in zip(voxel, labels.shape, strict=True))
        under.append(int(labels[voxel]) if inside else None)
    assert None in under
    assert found.nodes["segment"].tolist() == [v or 0 for v in under]
    assert found.nodes["outside"].tolist() == [v is None for v in under]
    for row, tree in enumerate(found.rows()):
        own = [v for v, k in zip(under, skeletons.skeletons, strict=True) if k == row]
        some = [v for v in own if v]
        assert tree["segments"] == len(set(some))
        assert (tree["in_background"], tree["outside"]) == (own.count(0), own.count(None))
        most = max((some.count(v) for v in some), default=0)
        assert tree["main_share"] == most / len(own)
        assert (some.count(tree["main_segment"]) if some else tree["main_segment"]) == most


def test_several_files_are_told_apart(nml: Path, tmp_path: Path) -> None:
    write_nmls(tmp_path / "two.zip", {"a.nml": only(nml), "b.nml": only(nml)})
    found = measure(MeasureSpec(source=source(tmp_path / "two.zip", trees="axon|dendrite")))
    assert [(row["file"], row["name"]) for row in found.rows()] == [
        ("a.nml", "axon"), ("a.nml", "dendrite"), ("b.nml", "axon"), ("b.nml", "dendrite"),
    ]  # fmt: skip
    assert set(found.nodes["file"].tolist()) == {"a.nml", "b.nml"}
    assert len(skeleton_info(source(tmp_path / "two.zip"))) == 2
    drawn = plot(PlotSpec(source=source(tmp_path / "two.zip"), output=str(tmp_path / "two.svg"), unit="vx"))
    assert drawn.trees == 6
    other = replace(only(nml), voxel_size_nm=(1.0, 1.0, 1.0))
    write_nmls(tmp_path / "sizes.zip", {"a.nml": only(nml), "b.nml": other})
    with pytest.raises(InputError, match="has voxels of 2 sizes: draw it in um or nm"):
        plot(PlotSpec(source=source(tmp_path / "sizes.zip"), output=str(tmp_path / "s.svg"), unit="vx"))
    for number in (5, 9):
        (tmp_path / f"{number}.swc").write_text("1 0 0 0 0 1 -1\n2 0 0 0 9 1 1\n")
    drawn = plot(PlotSpec(source=source(tmp_path, unit_nm=8.0), output=str(tmp_path / "swc.svg")))
    assert (drawn.trees, drawn.nodes) == (2, 4)
    assert "<!-- 9 -->" in (tmp_path / "swc.svg").read_text()  # in the legend


# ---- convert --------------------------------------------------------------------------------------------------


def converted(tmp_path: Path, nml: Path, name: str, **more: Any) -> Any:
    return convert_tracing(ConvertTracingSpec(source=source(nml), target=str(tmp_path / name), **more))


@pytest.mark.parametrize("ending", ["nml", "zip", "nmx"])
def test_what_nml_holds_stays(nml: Path, tmp_path: Path, ending: str) -> None:
    made = converted(tmp_path, nml, f"out.{ending}")
    assert differences(only(nml), only(tmp_path / f"out.{ending}")) == ()
    assert (made.trees, made.notes) == (3, ())
    assert made.length_nm[0] == made.length_nm[1]


def test_to_swc_and_back(nml: Path, tmp_path: Path) -> None:
    made = converted(tmp_path, nml, "swc", to_unit_nm=1000.0)
    assert "lost in SWC: 1 groups" in made.notes
    assert "lost in SWC: 1 groups" in made.to_text()
    old = only(nml).skeletons
    files = read_tracings(tmp_path / "swc", unit_nm=1000)
    assert sorted(files) == [f"{number}.swc" for number in sorted(old.ids.tolist())]
    for number, length in zip(old.ids.tolist(), old.lengths_nm.tolist(), strict=True):
        assert files[f"{number}.swc"].skeletons.lengths_nm[0] == pytest.approx(length, rel=1e-9)
    # A folder of SWC becomes a folder of the same names, one NML, or an archive of several.
    folder = source(tmp_path / "swc", unit_nm=1000.0)
    again = convert_tracing(
        ConvertTracingSpec(source=folder, target=str(tmp_path / "again"), to_unit_nm=8.0, resample_nm=40.0)
    )
    assert sorted(read_tracings(tmp_path / "again", unit_nm=8)) == sorted(files)
    assert again.nodes[0] == len(old.node_ids)
    for name in ("one.nml", "all.zip"):
        convert_tracing(
            ConvertTracingSpec(source=folder, target=str(tmp_path / name), to_voxel_size_nm=(30.0, 8.0, 8.0))
        )
        back = read_tracings(tmp_path / name)
        assert len(back) == (1 if name == "one.nml" else 3)
        total = sum(tracing.skeletons.lengths_nm.sum() for tracing in back.values())
        assert total == pytest.approx(old.lengths_nm.sum(), rel=1e-9)
        assert {tracing.voxel_size_nm for tracing in back.values()} == {(30.0, 8.0, 8.0)}


def test_a_box_and_a_spacing(nml: Path, tmp_path: Path) -> None:
    low, high = (-100.0, -150.0, -1e5), (1e5, 150.0, 1e5)
    made = converted(tmp_path, nml, "part.nml", box_nm=(low, high), resample_nm=20.0, simplify_nm=1.0)
    part = only(tmp_path / "part.nml").skeletons
    assert ((part.positions_nm >= np.array(low) - 1e-6) & (part.positions_nm <= np.array(high) + 1e-6)).all()
    assert made.nodes == (len(only(nml).skeletons.node_ids), len(part.node_ids))
    assert made.length_nm[1] == pytest.approx(part.lengths_nm.sum())
    assert 0 < made.length_nm[1] < made.length_nm[0]
    assert "(of " in made.to_text()


def test_files_beside_a_tracing_are_left_out_aloud(nml: Path, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"voxels")
    old = only(nml)
    write_nmls(tmp_path / "vol.zip", {"t.nml": old})
    with zipfile.ZipFile(tmp_path / "vol.zip", "a") as archive:
        archive.writestr("data.zip", b"voxels")
    beside = only(tmp_path / "vol.zip")
    assert [type(each) for each in beside.attachments] == [Attachment]
    made = converted(tmp_path, tmp_path / "vol.zip", "bare.nml")
    assert made.notes == ("left out: 1 files beside the tracing, which an archive, .zip, can hold",)
    assert converted(tmp_path, tmp_path / "vol.zip", "whole.zip").notes == ()
    assert len(only(tmp_path / "whole.zip").attachments) == 1
    told = skeleton_info(source(tmp_path / "vol.zip"))[0]
    assert "1 other files beside it in the archive: data.zip" in told.to_text()
    assert told.to_dict()["attachments"] == ["data.zip"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": "a.nml", "to_unit_nm": 1.0}, "written in voxels and says their size: leave out the unit"),
        ({"target": "a.swc"}, "SWC, which does not say its unit: choose it"),
        ({"target": "a.nml", "to_voxel_size_nm": (1, 1, 1)}, "for NML that is made from SWC: leave them out"),
        ({"target": "a.nml", "box_nm": ((9e9,) * 3, (9.1e9,) * 3)}, "nothing of it is left to be written"),
        ({"target": "a.gif", "to_unit_nm": 1.0}, "no name of a tracing"),
    ],
)
def test_what_cannot_be_converted_is_said(nml: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    target = tmp_path / given.pop("target")
    with pytest.raises(InputError, match=message):
        convert_tracing(ConvertTracingSpec(source=source(nml), target=str(target), **given))
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_and_swc_needs_voxels_for_nml(nml: Path, tmp_path: Path) -> None:
    (tmp_path / "a.swc").write_text("1 0 0 0 0 1 -1\n2 0 0 0 9 1 1\n")
    spec = ConvertTracingSpec(source=source(tmp_path / "a.swc", unit_nm=8.0), target=str(tmp_path / "b.nml"))
    with pytest.raises(InputError, match="counts in voxels, and SWC does not know their size"):
        convert_tracing(spec)
    asked: list[Callable[[], object]] = [
        lambda: converted(tmp_path, nml, "a.swc", to_unit_nm=1.0),
        lambda: measure(MeasureSpec(source=source(nml), output=str(nml.with_suffix(".csv")))),
        lambda: plot(PlotSpec(source=source(nml), output=str(nml.with_suffix(".png")))),
    ]
    nml.with_suffix(".csv").touch()
    nml.with_suffix(".png").touch()
    for ask in asked:
        with pytest.raises(InputError, match="exists"):
            ask()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "a.swc", "unit_nm": 0}, "a unit is a positive length"),
        ({"path": "a.swc", "unit_nm": (1, -1, 1)}, "a unit is a positive length"),
    ],
)
def test_units_are_positive(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TracingSource.from_dict(data)


def test_wrong_endings_and_names_are_said_before_anything_is_read(nml: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.xls is no table: end it with .csv, .parquet, .json"):
        measure(MeasureSpec(source=source("nowhere.nml"), output="a.xls"))
    with pytest.raises(InputError, match=r"a.gif is no picture: end it with .png, .svg, .pdf"):
        plot(PlotSpec(source=source("nowhere.nml"), output="a.gif"))
    with pytest.raises(InputError, match="no name of 3 trees matches 'glia'; they are 'axon', 'dendrite', ''"):
        skeleton_info(source(nml, trees="glia"))
    with pytest.raises(InputError, match=r"'\(' is no regular expression"):
        skeleton_info(source(nml, trees="("))
    with pytest.raises(InputError, match="a length is positive"):
        ConvertTracingSpec.from_dict({"source": {"path": "a"}, "target": "b", "resample_nm": 0})


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "skeletons.md").read_text(encoding="utf-8")
    (code,) = [text for text in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M) if "spanning_" in text]
    names: dict[str, Any] = {}
    exec(compile(code, "skeletons.md", "exec"), names)
    assert capsys.readouterr().out.endswith(" True\n")
    assert names["picture"].startswith(b"\x89PNG")


# ---- plot -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["all", "3d"])
def test_a_picture_is_written(nml: Path, tmp_path: Path, view: Any) -> None:
    spec = PlotSpec(source=source(nml), output=str(tmp_path / "t.png"), view=view, marks=True, unit="vx")
    assert plot(spec).nodes == len(only(nml).skeletons.node_ids)
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["t.png"]
