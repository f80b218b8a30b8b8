"""`emloom align apply|invert`: what a person types, and what comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from emloom.cli.align import _RunByDefault
from emloom.geometry import Grid
from emloom.geometry.planar import Shift
from emloom.geometry.stackmap import Frame, StackMap
from emloom.io.open import create_volume, open_volume
from emloom.io.stackmaps import write_stackmap
from emloom.io.volume import VolumeInfo
from tests.cli.test_cli import emloom

Capture = pytest.CaptureFixture[str]
GRID = Grid((40.0, 4.0, 4.0))
IDS = np.random.default_rng(0).integers(2**60, 2**62, (3, 20, 24), np.uint64)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source, target = Frame((3, 20, 24), GRID), Frame((3, 26, 30), GRID)
    write_stackmap(
        tmp_path / "aligned" / "map", StackMap.of(source, target, [Shift(2, 3), Shift(0, 6), Shift(6, 0)])
    )
    raw = (IDS % 251).astype(np.uint8)
    for name, array, kind in (("seg.zarr", IDS, "labels"), ("raw.zarr", raw, "raw"), ("bare.zarr", IDS, None)):
        info = VolumeInfo((3, 20, 24), array.dtype, GRID, kind=kind)
        create_volume(tmp_path / name, info).write(info.box, array)
    (tmp_path / "at.csv").write_text("id,z,y,x\na,0,0,0\nb,90,8,8\nc,900,8,8\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: str) -> np.ndarray:
    volume = open_volume(path)
    return volume.read(volume.info.box)


def test_every_command_explains_itself_with_examples(capsys: Capture) -> None:
    code, text, _ = emloom(capsys, "align", "--help")
    assert code == 0
    for name in ("apply", "invert"):
        assert f"  {name}" in text
        code, text_of, _ = emloom(capsys, "align", name, "--help")
        assert (code, "Examples:" in text_of) == (0, True)


def test_labels_go_there_and_back(capsys: Capture, here: Path) -> None:
    words = ("--by", "aligned", "--to", "labels", "--cell", "2,16,16")
    code, out, _ = emloom(capsys, "align", "apply", "seg.zarr", *words, "-o", "there.zarr")
    assert (code, out.strip()) == (0, "there.zarr/labels: written")
    assert read("there.zarr").shape == (3, 26, 30)
    code, out, _ = emloom(capsys, "align", "invert", "there.zarr", *words, "-o", "back.zarr")
    assert (code, np.array_equal(read("back.zarr"), IDS)) == (0, True)
    code, out, _ = emloom(capsys, "status", "back.zarr", "--verify")
    assert (code, out.splitlines()[0]) == (0, "back.zarr: move, finished")


def test_options_of_volumes(capsys: Capture, here: Path) -> None:
    words = ("--by", "aligned", "-o", "out.zarr", "--overwrite")
    code, _, _ = emloom(capsys, "align", "apply", "raw.zarr", *words, "--outside", "symmetric")
    padded = np.pad(read("raw.zarr")[0], ((2, 4), (3, 3)), mode="symmetric")
    assert (code, np.array_equal(read("out.zarr")[0], padded)) == (0, True)
    code, _, _ = emloom(capsys, "align", "apply", "raw.zarr", *words, "--outside", "9", "--like", "raw.zarr")
    found = read("out.zarr")
    assert (code, found.shape, np.unique(found[0, :2]).tolist()) == (0, (3, 20, 24), [9])
    most = str(2**64 - 1)
    labels = ("--by", "aligned", "-o", "most.zarr", "--to", "labels", "--kind", "labels", "--outside", most)
    code, _, _ = emloom(capsys, "align", "apply", "bare.zarr", *labels)
    assert (code, int(read("most.zarr").max())) == (0, 2**64 - 1)


def test_points_that_are_lost_are_told(capsys: Capture, here: Path) -> None:
    words = ("--by", "aligned", "--to", "points")
    code, out, _ = emloom(capsys, "align", "apply", "at.csv", *words, "-o", "there.csv", "--lost", "keep")
    assert code == 0
    assert out.splitlines() == [
        "there.csv: 2 of 3 points moved", "  1 lost: outside the stack", "  as they were: there.lost.csv",
    ]  # fmt: skip
    assert (here / "there.csv").read_text() == "id,z,y,x\na,0,8,12\nb,90,32,8\nc,,,\n"
    (here / "voxels.csv").write_text("z,y,x\n1,2,2\n")
    code, _, _ = emloom(capsys, "align", "apply", "voxels.csv", *words, "-o", "v.csv", "--unit", "40,4,4")
    assert (code, (here / "v.csv").read_text()) == (0, "z,y,x\n1,2,8\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("seg.zarr -o out.zarr", "move it as labels (--to labels)"),
        ("raw.zarr --to labels -o out.zarr", "move it as a volume (--to volume)"),
        ("raw.zarr --to points -o out.csv", "is a volume, and --to says points"),
        ("at.csv -o out.csv", "holds points, and --to says volume"),
        ("raw.zarr --to label -o out.zarr", "did you mean 'labels'"),
        ("at.csv --to points -o out.csv --like raw.zarr", "--like raw.zarr means nothing with --to points"),
        ("raw.zarr -o out.zarr --unit 4", "--unit 4 means nothing with --to volume"),
        ("raw.zarr -o out.zarr --outside blue", "give a number, or the word symmetric"),
        ("raw.zarr -o out.zarr --cell 4,4", "not three numbers"),
        ("raw.zarr -o out.zarr --kind grey", "kind"),
        ("at.csv --to points -o out.csv --lost hide", "valid: 'drop' or 'keep'"),
    ],
)
def test_contradictions_are_one_paragraph(capsys: Capture, here: Path, words: str, problem: str) -> None:
    code, out, err = emloom(capsys, "align", "apply", *words.split(), "--by", "aligned")
    assert (code, out, err.startswith("error: ")) == (2, "", True)
    assert problem in err
    assert not list(here.glob("out*"))


def test_a_first_word_that_is_no_command_means_run() -> None:
    group, ran = typer.Typer(cls=_RunByDefault, no_args_is_help=True), []

    @group.command("run")
    def run(raw: str, output: str = typer.Option(..., "-o")) -> None:
        ran.append((raw, output))

    @group.command("apply")
    def apply(raw: str) -> None:
        ran.append((raw, "applied"))

    for words in (["raw.zarr", "-o", "a"], ["-o", "a", "raw.zarr"], ["run", "raw.zarr", "-o", "a"]):
        assert CliRunner().invoke(group, words).exit_code == 0
    assert ran == [("raw.zarr", "a")] * 3
    assert CliRunner().invoke(group, ["apply", "raw.zarr"]).exit_code == 0
    assert ran[-1] == ("raw.zarr", "applied")
    command = typer.main.get_command(group)
    with command.make_context("align", ["raw.zarr", "-o", "a"]) as context:
        assert command.resolve_command(context, ["raw.zarr", "-o", "a"])[::2] == ("run", ["raw.zarr", "-o", "a"])  # type: ignore[attr-defined]
    assert "run" in CliRunner().invoke(group, ["--help"]).output
    assert "run" in CliRunner().invoke(group, []).output
