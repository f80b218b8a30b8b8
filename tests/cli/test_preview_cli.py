"""`emloom augment-preview` and `augment-effects` write pictures, and say what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import imageio.v3 as iio
import pytest

from emloom.cli.main import main
from emloom.nn.augment import AugmentSpec
from tests.tasks.artifacts import augmented
from tests.tasks.cubes import write_stack


def emloom(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = 0
    before, sys.argv = sys.argv, ["emloom", *map(str, words)]
    try:
        main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    finally:
        sys.argv = before
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture
def job(tmp_path: Path) -> Path:
    stack = write_stack(tmp_path / "stack.h5")
    augmented(stack, AugmentSpec(), crop=(8, 12, 12)).dump(tmp_path / "job.yaml")
    return tmp_path / "job.yaml"


def test_a_sheet_is_drawn_dumped_and_drawn_again(
    capsys: pytest.CaptureFixture[str], job: Path, tmp_path: Path
) -> None:
    first, plans, second = tmp_path / "a.png", tmp_path / "plans.yaml", tmp_path / "b.png"
    code, text, _ = emloom(capsys, "augment-preview", job, "-o", first, "--count", 2, "--seed", 5, "--dump", plans)
    assert code == 0
    assert f"{first}: 2 samples drawn" in text
    assert f"{plans}: 2 plans written" in text
    assert iio.imread(first).shape[0] > 100
    code, text, _ = emloom(capsys, "augment-preview", job, "-o", second, "--replay", plans)
    assert code == 0
    assert "all 2 samples are bit for bit what they were" in text
    assert first.read_bytes() == second.read_bytes()


def test_a_changed_digest_is_warned_of(capsys: pytest.CaptureFixture[str], job: Path, tmp_path: Path) -> None:
    plans = tmp_path / "plans.yaml"
    assert emloom(capsys, "augment-preview", job, "-o", tmp_path / "a.png", "--count", 1, "--dump", plans)[0] == 0
    text = plans.read_text()
    old = next(line for line in text.splitlines() if "digest:" in line).split()[-1]
    plans.write_text(text.replace(old, "f" * 64))
    code, _, error = emloom(capsys, "augment-preview", job, "-o", tmp_path / "b.png", "--replay", plans)
    assert code == 0
    assert "sample 0 is not what it was" in error


def test_every_effect_is_drawn(capsys: pytest.CaptureFixture[str], job: Path, tmp_path: Path) -> None:
    code, text, _ = emloom(capsys, "augment-effects", job, "-o", tmp_path / "e.png")
    assert code == 0
    assert "every effect drawn" in text
    assert iio.imread(tmp_path / "e.png").shape[1] > 300


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("augment-preview", "{job}", "-o", "{tmp}/a.jpg"), "end in .png"),
        (("augment-effects", "{job}", "-o", "{tmp}/a.txt"), "end in .png"),
        (("augment-preview", "{job}", "-o", "{tmp}/there.png"), "already exists"),
        (("augment-preview", "{job}", "-o", "{tmp}/a.png", "--dump", "{tmp}/there.png"), "already exists"),
        (("augment-preview", "{job}", "-o", "{tmp}/a.png", "--replay", "{tmp}/no.yaml"), "cannot read"),
        (("augment-preview", "{job}", "-o", "{tmp}/a.png", "--replay", "{job}"), "unknown key"),
        (("augment-preview", "{job}", "-o", "{tmp}/a.png", "--replay", "x", "--seed", "1"), "leave out"),
        (("augment-preview", "{job}", "-o", "{tmp}/a.png", "--count", "0"), "count"),
    ],
)
def test_bad_arguments_are_explained_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], job: Path, tmp_path: Path, words: tuple[str, ...], rule: str
) -> None:
    (tmp_path / "there.png").write_bytes(b"mine")
    code, _, error = emloom(capsys, *(w.format(job=job, tmp=tmp_path) for w in words))
    assert code == 2
    assert rule in error
    assert (tmp_path / "there.png").read_bytes() == b"mine"
    assert {p.name for p in tmp_path.iterdir()} == {"stack.h5", "job.yaml", "there.png"}
