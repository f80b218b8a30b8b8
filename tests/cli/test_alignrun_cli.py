"""`emloom align RAW` from the command line: what is said, what is made, what is refused."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.open import create_volume, open_volume
from emloom.testing.phantom import Phantom, PhantomSpec

RUN = CliRunner()
SHIFTS = ((0, 0), (3, -2), (-4, 5), (2, 2), (0, 0), (-1, -3), (5, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack of displaced sections."""
    folder = tmp_path_factory.mktemp("cli")
    raw = Phantom(PhantomSpec(shape=(7, 200, 220), voxel_size_nm=(24.0, 8.0, 8.0), seed=2)).raw
    array = raw.read(raw.info.box)
    moved = np.stack([np.roll(s, by, (0, 1)) for s, by in zip(array, SHIFTS, strict=True)])[:, 8:-8, 8:-8]
    info = raw.info.with_(shape=moved.shape, chunks=(7, 64, 64))
    create_volume(folder / "raw.zarr", info).write(info.box, moved)
    return folder


def run(*words: object) -> str:
    result = RUN.invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_one_command_aligns_says_what_is_left_and_goes_on(folder: Path) -> None:
    out = folder / "aligned"
    said = run("align", folder / "raw.zarr", "-o", out, "--reference", "0")
    assert "7 sections laid on each other (shift)" in said
    assert "median 0." in said
    assert f"report: {out / 'report.html'}" in said
    aligned = open_volume(out / "raw.zarr")
    whole = aligned.read(aligned.info.box).astype(float)
    inner = whole[:, 30:150, 30:150]
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairwise(inner)]
    raw = open_volume(folder / "raw.zarr")
    before = raw.read(Box((0, 30, 30), (7, 120, 120))).astype(float)
    was = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairwise(before)]
    assert min(alike) > max(was)
    found = json.loads(run("align", folder / "raw.zarr", "-o", out, "--reference", "0", "--json"))
    assert found["reference"] == 0
    assert "align, finished" in run("status", out)


def test_a_table_says_where_sections_go(folder: Path) -> None:
    steps = np.diff(-np.array(SHIFTS), axis=0, prepend=np.zeros((1, 2), int))
    (folder / "table.csv").write_text("dx,dy\n" + "\n".join(f"{x},{y}" for y, x in steps))
    out = folder / "by_table"
    table = ("--table", folder / "table.csv", "--outside", "symmetric")
    assert "(table)" in run("align", folder / "raw.zarr", "-o", out, *table)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--table", "t.csv", "--model", "affine"), "pass one"),
        (("--outside", "grey"), "no grey value"),
        (("--model", "rigid"), "rigid"),
        (("--qc", "nowhere"), "nowhere"),
        (("--reference", "70"), "70 does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, words: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run("align", folder / "raw.zarr", "-o", folder / "refused", *words)
    assert not (folder / "refused").exists()


def test_a_model_with_settings(folder: Path) -> None:
    (folder / "how.yaml").write_text("model: {kind: affine, patch_nm: 500, step_nm: 200}\ncanvas: keep\n")
    out = folder / "affine"
    assert "(affine)" in run("align", folder / "raw.zarr", "-o", out, "--settings", folder / "how.yaml")
    assert open_volume(out / "raw.zarr").info.shape == open_volume(folder / "raw.zarr").info.shape
