"""Whatever is damaged after it was marked is found, and made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emloom.geometry import Box
from emloom.geometry.box import Vec
from emloom.io.open import open_volume
from emloom.run.blockjournal import BlockJournal, Failure
from emloom.run.executor import Serial
from emloom.run.runner import run_stage
from emloom.run.verify import forget, status, verify
from tests.run.painting import outcome, paint_stage

BLOCK: Vec = (1, 0, 2)
BOX = Box((4, 0, 8), (4, 4, 4))


def chunk(folder: Path) -> Path:
    return folder / "painted.zarr" / "0" / "c" / "1" / "0" / "2"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_a_voxel(folder: Path) -> None:
    volume = open_volume(folder / "painted.zarr", writable=True)
    array = volume.read(BOX)
    array[1, 2, 3] += 1
    volume.write(BOX, array)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit of a chunk": (lambda folder: flip(chunk(folder)), "painted.zarr"),
    "a chunk cut short": (
        lambda folder: chunk(folder).write_bytes(chunk(folder).read_bytes()[:-9]),
        "painted.zarr",
    ),
    "no chunk": (lambda folder: chunk(folder).unlink(), "painted.zarr"),
    "a voxel": (change_a_voxel, "painted.zarr"),
    "a file": (lambda folder: (folder / "parts" / "1_0_2.txt").write_text("1\n"), "parts/1_0_2.txt"),
    "no file": (lambda folder: (folder / "parts" / "1_0_2.txt").unlink(), "parts/1_0_2.txt"),
}


def test_what_is_whole_is_whole(tmp_path: Path) -> None:
    stage = paint_stage(tmp_path)
    run_stage(stage, tmp_path, Serial())
    seen: list[tuple[int, int]] = []
    assert verify(tmp_path, stage, progress=lambda done, total: seen.append((done, total))) == []
    assert seen == [(n, 18) for n in range(1, 19)]


@pytest.mark.fault(
    "processes",
    "voxels, tables or files of a finished block are damaged or lost",
    "`emloom verify` names the block, `emloom retry` makes it again: same bits",
)
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_made_anew(tmp_path: Path, name: str) -> None:
    stage = paint_stage(tmp_path)
    run_stage(stage, tmp_path, Serial())
    before = outcome(tmp_path)
    damage, place = DAMAGES[name]
    damage(tmp_path)
    (found,) = verify(tmp_path, stage)
    assert (found.index, found.place) == (BLOCK, place)
    assert str(found).startswith(f"block 1_0_2: {place}: ")
    assert run_stage(stage, tmp_path, Serial()).ran == 0  # a marker is believed until somebody looks
    forget(tmp_path, stage, [found.index])
    assert run_stage(stage, tmp_path, Serial()).ran == 1
    assert verify(tmp_path, stage) == []
    assert outcome(tmp_path) == before


def test_a_damaged_marker_is_found(tmp_path: Path) -> None:
    stage = paint_stage(tmp_path)
    run_stage(stage, tmp_path, Serial())
    flipped, cut = (BlockJournal(tmp_path, stage.name, stage.key).marker_path(i) for i in (BLOCK, (0, 0, 0)))
    plain = json.loads(flipped.read_text())
    plain["outputs"][0]["xxh64"] = "0" * 16
    flipped.write_text(json.dumps(plain))
    cut.write_text(cut.read_text()[:20])
    first, second = verify(tmp_path, stage)
    assert (first.index, first.place, first.reason) == ((0, 0, 0), str(cut), "the marker is damaged")
    assert (second.index, second.place) == (BLOCK, "painted.zarr")


def test_a_lost_volume_is_damage_of_every_block(tmp_path: Path) -> None:
    stage = paint_stage(tmp_path)
    run_stage(stage, tmp_path, Serial())
    (tmp_path / "painted.zarr").rename(tmp_path / "gone")
    found = verify(tmp_path, stage)
    assert [damage.index for damage in found] == [block.index for block in stage.blocks]
    assert all("cannot be read" in damage.reason for damage in found)


def test_status_tells_of_each_stage_in_the_order_they_began(tmp_path: Path) -> None:
    assert status(tmp_path) == []
    for name, n_blocks in (("second", 3), ("first", 2)):
        BlockJournal(tmp_path, name, "k").start(n_blocks)
    journal = BlockJournal(tmp_path, "second", "k")
    journal.mark((0, 0, 0), [], 0.1)
    assert journal.note(Failure((0, 0, 0), "old news", 1))  # a marker says more than a failure
    assert journal.note(Failure((0, -1, 2), "RuntimeError: broken", 3, "host", "Traceback"))
    second, first = status(tmp_path)
    assert (second.name, second.total, second.done, second.failed) == ("second", 3, 1, 1)
    assert second.failures == (Failure((0, -1, 2), "RuntimeError: broken", 3, "host", "Traceback"),)
    assert (first.name, first.total, first.done, first.failed, first.is_done) == ("first", 2, 0, 0, False)


def test_a_status_names_a_stage_for_verification(tmp_path: Path) -> None:
    run_stage(paint_stage(tmp_path), tmp_path, Serial())
    chunk(tmp_path).unlink()
    (stage,) = status(tmp_path)
    assert [damage.index for damage in verify(tmp_path, stage)] == [BLOCK]


def test_a_damaged_plan_or_failure_stops_nobody(tmp_path: Path) -> None:
    stage = paint_stage(tmp_path)
    run_stage(stage, tmp_path, Serial())
    journal = BlockJournal(tmp_path, stage.name, stage.key)
    (journal.home / "plan.json").write_text("{")
    journal.failed_folder.mkdir(exist_ok=True)
    (journal.failed_folder / "9_9_9.json").write_text("[]")
    (found,) = status(tmp_path)
    assert (found.total, found.done, found.is_done) == (None, 18, False)
    assert found.failures[0].error.startswith("its record is damaged")
    run_stage(stage, tmp_path, Serial())
    assert status(tmp_path)[0].is_done


def test_leftovers_of_killed_writers_go_once_they_are_old(tmp_path: Path) -> None:
    import os
    import time

    stage = paint_stage(tmp_path)
    run_stage(stage, tmp_path, Serial())
    done = BlockJournal(tmp_path, stage.name, stage.key).marker_path((0, 0, 0)).parent
    old, young, foreign = (
        done / n for n in (".0_0_0.partial-00000000.json", ".0_0_1.partial-00000000.json", "notes")
    )
    for path in (old, young, foreign):
        path.touch()
    for path in (old, foreign):
        os.utime(path, (time.time() - 7200,) * 2)
    assert run_stage(stage, tmp_path, Serial()).ran == 0
    assert (old.exists(), young.exists(), foreign.exists()) == (False, True, True)
