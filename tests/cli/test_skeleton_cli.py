"""`emloom skeleton`: what a person types, and what comes back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emloom.io.skeletons import read_skeletons
from tests.cli.test_cli import emloom
from tests.tasks.tracings import write_nml

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def nml(tmp_path: Path) -> str:
    """A path of 800 nm along x, and one of 400 nm along z."""
    return write_nml(tmp_path / "t.nml", [[(0, 0, 0), (50, 0, 0), (100, 0, 0)], [(0, 0, 0), (0, 0, 10)]])


def test_every_command_explains_itself_with_examples(capsys: Capture) -> None:
    code, text, _ = emloom(capsys, "skeleton", "--help")
    assert code == 0
    for name in ("info", "measure", "convert", "plot"):
        assert f"  {name}" in text
        code, text_of, _ = emloom(capsys, "skeleton", name, "--help")
        assert (code, "Examples:" in text_of) == (0, True)


def test_info_and_measure_print_text_or_json(capsys: Capture, nml: str, tmp_path: Path) -> None:
    code, out, _ = emloom(capsys, "skeleton", "info", nml)
    assert (code, "2 with 5 nodes, 4 ends, 0 branches" in out, "1.2 µm in all" in out) == (0, True, True)
    code, out, _ = emloom(capsys, "skeleton", "info", nml, "--json")
    assert json.loads(out)[0]["length_nm"] == 1200
    table, nodes = str(tmp_path / "t.csv"), str(tmp_path / "n.parquet")
    code, out, _ = emloom(capsys, "skeleton", "measure", nml, "-o", table, "--nodes", nodes)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == [
        "skeleton", "name", "nodes", "ends", "branches", "cycles", "length_um", "longest_um", "tortuosity",
    ]  # fmt: skip
    assert lines[1].split() == ["1", "t", "3", "2", "0", "0", "0.8", "0.8", "1"]
    assert lines[3:] == [f"{table}: 2 rows", f"{nodes}: 5 rows"]
    code, out, _ = emloom(capsys, "skeleton", "measure", nml, "--json")
    assert [row["length_nm"] for row in json.loads(out)] == [800, 400]


def test_convert_there_and_back(capsys: Capture, nml: str, tmp_path: Path) -> None:
    folder, swc, back = (str(tmp_path / name) for name in ("swc", "2.swc", "back.nml"))
    code, out, _ = emloom(capsys, "skeleton", "convert", nml, folder, "--unit", "1000", "--resample", "100")
    assert (code, out.splitlines()[0]) == (0, f"{folder}: 2 trees, 14 nodes (of 5), 1.2 µm")
    words = ("--unit", "1000", "--to-unit", "4")
    code, out, _ = emloom(capsys, "skeleton", "convert", f"{folder}/2.swc", swc, *words)
    assert code == 0
    words = ("--unit", "4", "--voxel-size", "40,8,8", "--simplify", "1")
    code, out, err = emloom(capsys, "skeleton", "convert", swc, back, *words)
    assert (code, err, out.splitlines()[0]) == (0, "", f"{back}: 1 trees, 2 nodes (of 5), 0.4 µm")
    np.testing.assert_allclose(read_skeletons(back).positions_nm, [[0, 0, 0], [400, 0, 0]], atol=1e-9)


def test_a_box_cuts_and_names_choose(capsys: Capture, nml: str, tmp_path: Path) -> None:
    target = str(tmp_path / "part.zip")
    words = ("--box", "-1:1,-1:1,200:500", "--trees", "^t$")
    code, out, _ = emloom(capsys, "skeleton", "convert", nml, target, *words)
    assert (code, out.strip()) == (0, f"{target}: 1 trees, 3 nodes (of 5), 0.3 µm (of 1.2)")
    assert sorted(read_skeletons(target).positions_nm[:, 2].tolist()) == pytest.approx([200, 400, 500])


def test_plot_writes_a_picture(capsys: Capture, nml: str, tmp_path: Path) -> None:
    target = tmp_path / "t.svg"
    words = ("--view", "xz", "--axes", "vx", "--marks", "--colours", "ids")
    code, out, _ = emloom(capsys, "skeleton", "plot", nml, "-o", str(target), *words)
    assert (code, out.strip()) == (0, f"{target}: 2 trees, 5 nodes")
    assert "x (voxels)" in target.read_text()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("info", "nowhere.nml"), "nowhere.nml is not a file"),
        (("info", "{nml}", "--unit", "8"), "states its own scale: leave out the unit"),
        (("info", "{nml}", "--unit", "eight"), "unit 'eight' is no number"),
        (("measure", "{nml}", "-o", "t.doc"), "t.doc is no table"),
        (("convert", "{nml}", "out.swc"), "SWC, which does not say its unit"),
        (("convert", "{nml}", "out.swc", "--unit", "30,8,8"), "one unit for all axes"),
        (("convert", "{nml}", "out.nml", "--box", "1:2,3"), "box '1:2,3' is not understood"),
        (("plot", "{nml}", "-o", "t.png", "--view", "zz"), "view"),
    ],
)
def test_mistakes_are_told(
    capsys: Capture, nml: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], rule: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, _, err = emloom(capsys, "skeleton", *(word.replace("{nml}", nml) for word in words))
    assert (code, rule in err) == (2, True), err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.real_data
def test_real_tracings_through_the_command_line(capsys: Capture, real_data: Path, tmp_path: Path) -> None:
    nml, swc = real_data / "skeletons/wkskel/01_ref.nml", real_data / "skeletons/hemibrain/1734350908.swc"
    code, out, _ = emloom(capsys, "skeleton", "info", str(nml))
    assert (code, "7 with 1719 nodes" in out, "820.687 µm in all" in out, "comments     37" in out) == (
        0,
        *[True] * 3,
    )
    code, out, _ = emloom(
        capsys, "skeleton", "convert", str(swc), str(tmp_path / "n.nml"), "--unit", "8", "--voxel-size", "8,8,8"
    )
    assert code == 0
    code, out, _ = emloom(capsys, "skeleton", "measure", str(tmp_path / "n.nml"), "--json")
    (row,) = json.loads(out)
    assert (row["nodes"], row["ends"], row["branches"], row["cycles"]) == (4847, 762, 735, 0)
    assert row["length_nm"] == pytest.approx(float(read_skeletons(swc, unit_nm=8).lengths_nm[0]), rel=1e-9)
