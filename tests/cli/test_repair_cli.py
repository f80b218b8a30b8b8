"""`emloom repair` from the command line: what is said, what is made, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.io.open import open_volume
from tests.tasks.test_repair import store, tissue, voxels

RUN = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack with a blank section, and its labels."""
    folder = tmp_path_factory.mktemp("cli")
    raw, ids = tissue((7, 80, 90))
    raw[3] = 0
    store(folder / "raw.zarr", raw)
    store(folder / "ids.zarr", ids, "labels")
    return folder


def run(*words: object) -> str:
    result = RUN.invoke(app, ["-q", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_one_command_repairs_and_says_so(folder: Path) -> None:
    out = folder / "fixed"
    labels = ("--labels", folder / "ids.zarr", "--bad", "0", "--good", "5")
    said = run("repair", folder / "raw.zarr", "-o", out, *labels)
    assert "1 between, 5 measured, 1 replaced" in said
    assert "section 0: no whole section on both sides: a copy of the one after" in said
    assert "28.57% of the voxels are not measured" in said
    assert "report.html" in said
    assert (out / "report.html").stat().st_size > 10_000
    raw, ids = voxels(folder / "raw.zarr"), voxels(folder / "ids.zarr")
    np.testing.assert_array_equal(voxels(out / "raw.zarr")[0], raw[1])
    np.testing.assert_array_equal(voxels(out / "labels.zarr")[0], ids[1])
    # The same again is done already; another job is refused; results go back.
    assert run("repair", folder / "raw.zarr", "-o", out, *labels) == said
    with pytest.raises(InputError, match="belongs to another job"):
        run("repair", folder / "raw.zarr", "-o", out, "--fill", "nearest")
    run("align", "invert", out / "labels.zarr", "--by", out, "-o", folder / "back.zarr", "--to", "labels")
    back = next(folder.glob("back.zarr/*/zarr.json")).parent
    np.testing.assert_array_equal(voxels(back), voxels(out / "labels.zarr"))


def test_only_what_is_named_is_marked(folder: Path) -> None:
    out = folder / "marked"
    said = run("repair", folder / "raw.zarr", "-o", out, "--no-look", "--bad", "3", "--fill", "mask")
    assert "1 left, 6 measured" in said
    codes = open_volume(out / "invented.zarr")
    found = codes.read(codes.info.box)
    assert found[3].all()
    assert not np.delete(found, 3, 0).any()


def test_bad_input(folder: Path, tmp_path: Path) -> None:
    for words, match in (
        (("--bad", "x"), "--bad x is no list of sections"),
        (("--bad", "7"), "section 7 is named bad, and there are 7"),
        (("--fill", "magic"), "fill"),
        (("--qc", folder / "ids.zarr"), "no folder of `emloom qc`"),
    ):
        with pytest.raises(InputError, match=match):
            run("repair", folder / "raw.zarr", "-o", tmp_path / "o", *words)
