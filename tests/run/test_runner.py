"""Blocks run exactly as often as they must, and what is left over is told."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emloom
from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.run import blockjournal
from emloom.run.blockjournal import BlockJournal, journals
from emloom.run.executor import Serial
from emloom.run.runner import MOST_FAILURES_IN_A_ROW, BlocksFailedError, WorkerVersionError, run_stage
from emloom.run.verify import status, verify
from tests.run.painting import Mischief, calls, outcome, paint_stage, painted

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The outcome of a run in which nothing happened."""
    folder = tmp_path_factory.mktemp("clean")
    run_stage(paint_stage(folder), folder, Serial())
    return outcome(folder)


def test_a_stage_does_every_block_once(tmp_path: Path) -> None:
    stage, seen = paint_stage(tmp_path), []
    report = run_stage(stage, tmp_path, Serial(), progress=lambda done, total: seen.append((done, total)))
    assert (report.done, report.skipped, report.ran) == (18, 0, 18)
    assert seen == [(done, 18) for done in range(19)]
    assert Counter(calls(tmp_path)) == Counter("_".join(map(str, block.index)) for block in stage.blocks)
    whole = Box.whole((8, 12, 12))
    assert (open_volume(tmp_path / "painted.zarr").read(whole) == painted(whole, 0)).all()


def test_a_second_run_executes_nothing_and_changes_nothing(tmp_path: Path, clean: dict[str, str]) -> None:
    run_stage(paint_stage(tmp_path), tmp_path, Serial())
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    seen: list[tuple[int, int]] = []
    report = run_stage(
        paint_stage(tmp_path), tmp_path, Serial(), progress=lambda done, total: seen.append((done, total))
    )
    assert (report.done, report.skipped, report.ran) == (18, 18, 0)
    assert seen == [(18, 18)]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times
    assert outcome(tmp_path) == clean


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_blocks_may_be_forgotten(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("forgotten")
    stage = paint_stage(folder, (4, 8, 12))
    run_stage(stage, folder, Serial())
    before = outcome(folder)
    indices = [block.index for block in stage.blocks]
    lost = data.draw(st.lists(st.sampled_from(indices), unique=True))
    journal = BlockJournal(folder, stage.name, stage.key)
    journal.forget(lost)
    assert journal.marked() == set(indices) - set(lost)
    assert run_stage(stage, folder, Serial()).ran == len(lost)
    assert outcome(folder) == before


@pytest.mark.fault(
    "processes",
    "markers of blocks are empty, cut off, or of another job",
    "they count as none: those blocks run again",
)
def test_a_damaged_marker_is_none(tmp_path: Path, clean: dict[str, str]) -> None:
    stage = paint_stage(tmp_path)
    run_stage(stage, tmp_path, Serial())
    journal = BlockJournal(tmp_path, stage.name, stage.key)
    whole = journal.marker_path((0, 0, 0)).read_text()
    other = {**json.loads(whole), "key": "other"}
    no_outputs = {k: v for k, v in json.loads(whole).items() if k != "outputs"}
    for number, text in enumerate(["", whole[:40], "[]", json.dumps(other), json.dumps(no_outputs)]):
        journal.marker_path((0, number % 3, number % 2)).write_text(text)
    assert run_stage(stage, tmp_path, Serial()).ran == 5
    assert outcome(tmp_path) == clean


# ---- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "processes",
    "one block raises each time it is tried",
    "error: 1 of 18 blocks failed, with the traceback's place; the others are done and stay so",
)
def test_a_poisoned_block_is_listed_and_the_others_are_done(tmp_path: Path, clean: dict[str, str]) -> None:
    stage = paint_stage(tmp_path, mischief={(0, 1, 2): "raise", (1, 0, 0): "once"})
    with pytest.raises(BlocksFailedError) as caught:
        run_stage(stage, tmp_path, Serial())
    message = str(caught.value)
    assert message.startswith("1 of 18 blocks of stage 'paint' failed:\n  0_1_2  RuntimeError: poisoned\n")
    assert message.endswith("then the same command runs the others")
    assert Counter(calls(tmp_path))["0_1_2"] == 3  # once, and two retries
    assert Counter(calls(tmp_path))["1_0_0"] == 2
    assert sum(Counter(calls(tmp_path)).values()) == 16 + 3 + 2
    failed = BlockJournal(tmp_path, stage.name, stage.key).failed_folder
    assert str(failed) in message
    record = json.loads((failed / "0_1_2.json").read_text())
    assert record["attempts"] == 3
    assert "raise problem()\nRuntimeError: poisoned" in record["traceback"]
    assert [p.name for p in failed.iterdir()] == ["0_1_2.json"]  # 1_0_0 succeeded later
    (stage_now,) = status(tmp_path)
    assert (stage_now.total, stage_now.done, stage_now.failed) == (18, 17, 1)
    assert not stage_now.is_done

    assert run_stage(paint_stage(tmp_path), tmp_path, Serial()).ran == 1  # the cause is mended
    assert outcome(tmp_path) == clean
    assert not list(failed.iterdir())
    assert status(tmp_path)[0].is_done


@pytest.mark.parametrize(
    ("mischief", "words"),
    [("disk full", "the disk is full"), ("too large", "the file would be larger"), ("input", "raw.zarr is empty")],
)
def test_what_a_person_must_mend_is_said_and_not_tried_again(
    tmp_path: Path, mischief: Mischief, words: str, clean: dict[str, str]
) -> None:
    with pytest.raises(BlocksFailedError, match=words) as caught:
        run_stage(paint_stage(tmp_path, mischief={(1, 1, 1): mischief}), tmp_path, Serial())
    assert [failure.index for failure in caught.value.failures] == [(1, 1, 1)]
    assert Counter(calls(tmp_path))["1_1_1"] == 1
    (stage,) = journals(tmp_path)
    assert len(stage.marked()) == 17
    run_stage(paint_stage(tmp_path), tmp_path, Serial())
    assert outcome(tmp_path) == clean


@pytest.mark.fault(
    "disk",
    "the disk fills up after a block was written and before its marker",
    "error: 8 of 18 blocks failed: the disk is full; a later run does those 8",
)
def test_no_marker_where_the_disk_is_full_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up in the eleventh block, after its outputs and before its marker."""
    stage, write, markers = paint_stage(tmp_path), blockjournal.write_text_atomic, []

    def filling(path: Path, text: str) -> None:
        markers.append(path)
        if len(markers) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    journal = BlockJournal(tmp_path, stage.name, stage.key)
    journal.start(18)
    monkeypatch.setattr(blockjournal, "write_text_atomic", filling)
    with pytest.raises(BlocksFailedError, match="8 of 18 blocks") as caught:
        run_stage(stage, tmp_path, Serial())
    assert "the disk is full: free some space or choose another disk" in str(caught.value)
    assert len(journal.marked()) == 10
    assert journal.failures() == []  # no room for them either; the error lists them all the same
    monkeypatch.undo()
    assert verify(tmp_path, stage) == []
    assert run_stage(stage, tmp_path, Serial()).ran == 8


def test_a_stage_that_only_fails_stops_early(tmp_path: Path) -> None:
    shape = (16, 16, 16)  # 64 blocks
    everywhere: dict[tuple[int, int, int], Mischief] = {
        block.index: "raise" for block in paint_stage(tmp_path, shape).blocks
    }
    with pytest.raises(BlocksFailedError, match="20 failures in a row; 44 blocks were not tried") as caught:
        run_stage(paint_stage(tmp_path, shape, mischief=everywhere), tmp_path, Serial())
    assert len(calls(tmp_path)) == MOST_FAILURES_IN_A_ROW
    assert caught.value.untried == 44
    assert str(caught.value).count("RuntimeError: poisoned") == 10
    assert "... and 10 more" in str(caught.value)
    assert run_stage(paint_stage(tmp_path, shape), tmp_path, Serial()).ran == 64


def test_another_key_reuses_nothing_and_never_mixes(tmp_path: Path) -> None:
    first, second = paint_stage(tmp_path), paint_stage(tmp_path, seed=1)
    assert first.key != second.key
    run_stage(first, tmp_path, Serial())
    before = outcome(tmp_path)
    with pytest.raises(InputError, match=r"holds stage 'paint' of another job.*--overwrite"):
        run_stage(second, tmp_path, Serial())
    assert outcome(tmp_path) == before
    shutil.rmtree(tmp_path / "run")  # as a workspace does that is told to discard another job
    assert run_stage(second, tmp_path, Serial()).ran == 18
    assert [status.key for status in status(tmp_path)] == [second.key]
    whole = Box.whole((8, 12, 12))
    assert (open_volume(tmp_path / "painted.zarr").read(whole) == painted(whole, 1)).all()


def test_a_worker_with_another_emloom_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(Serial):
        """Workers whose emloom is another."""

        def map(self, function, items):  # type: ignore[no-untyped-def]
            monkeypatch.setattr(emloom, "__version__", "0.0.1")
            yield from super().map(function, items)

    with pytest.raises(WorkerVersionError, match=rf"emloom 0\.0\.1, this command emloom {emloom.__version__}"):
        run_stage(paint_stage(tmp_path), tmp_path, Elsewhere())
    assert calls(tmp_path) == []


# ---- kill -9 ----------------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "processes",
    "a process is killed between the voxels of a block and its marker",
    "the block runs again: same bits",
)
def test_killed_between_array_and_marker_a_block_runs_again(tmp_path: Path, clean: dict[str, str]) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from emloom.run.blockjournal import BlockJournal\n"
        "from tests.run.crashing import paint\n"
        "mark = BlockJournal.mark\n"
        "def killed(self, index, *more):\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if index == (0, 2, 1) else mark(self, index, *more)\n"
        "BlockJournal.mark = killed\n"
        "paint(Path(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False, cwd=ROOT).returncode == -9
    assert calls(tmp_path)[-1] == "0_2_1"
    box = Box((0, 8, 4), (4, 4, 4))
    assert (open_volume(tmp_path / "painted.zarr").read(box) == painted(box, 0)).all()  # the array is there
    assert (0, 2, 1) not in journals(tmp_path)[0].marked()
    assert run_stage(paint_stage(tmp_path), tmp_path, Serial()).ran == 18 - 7
    assert Counter(calls(tmp_path))["0_2_1"] == 2
    assert outcome(tmp_path) == clean


@pytest.mark.fault(
    "processes",
    "the driver of a blockwise job is killed 25 times at random",
    "it goes on each time, and ends with the same bits",
)
@pytest.mark.parametrize("seed", range(2))
def test_the_driver_may_be_killed_at_any_time(tmp_path: Path, seed: int, clean: dict[str, str]) -> None:
    run = [sys.executable, "-m", "tests.run.crashing", tmp_path, str(seed), "25"]
    told = subprocess.run(run, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    assert json.loads(told)["killed"] == 25
    folders = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert folders
    for folder in folders:
        stage = paint_stage(folder)
        assert verify(folder, stage) == []  # nothing has a marker that is not whole
        run_stage(stage, folder, Serial())
        assert outcome(folder) == clean
