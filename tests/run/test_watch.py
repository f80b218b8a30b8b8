"""A block that hangs costs its worker, not the run."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from emloom.errors import InputError
from emloom.run.cluster import Dask
from emloom.run.executor import Serial
from emloom.run.runner import BlocksFailedError, run_stage
from emloom.run.watch import ended_after
from tests.run.painting import outcome, paint_stage


def test_what_ends_in_time_is_left_alone() -> None:
    for limit_s in (None, 60.0):
        with ended_after(limit_s, lambda _: pytest.fail("it was in time")):
            pass


def test_a_process_that_hangs_leaves_word_of_where_and_ends() -> None:
    script = """
        import time
        from emloom.run.watch import ended_after

        def hang():
            time.sleep(100)

        with ended_after(0.2, lambda stack: print(stack, flush=True)):
            hang()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 75
    assert "in hang" in ended.stdout


@pytest.mark.fault(
    "workers",
    "a block hangs",
    "its worker is ended after --block-minutes; the block is listed with where it hung, the others are done",
)
def test_a_block_that_hangs_is_listed_with_its_stack_and_the_others_are_done(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "hanging"
    whole.mkdir()
    folder.mkdir()
    run_stage(paint_stage(whole), whole, Serial())
    stage = paint_stage(folder, mischief={(1, 0, 1): "sleep"})
    with Dask(workers=2, limit_s=2.0) as two, pytest.raises(BlocksFailedError) as caught:
        run_stage(stage, folder, two, retries=0)
    (failure,) = caught.value.failures
    assert failure.index == (1, 0, 1)
    assert "took longer than 0.0333333 minutes" in failure.error
    assert "--block-minutes" in failure.error
    (path,) = (folder / "run").rglob("failed/1_0_1.json")
    assert "painting.py" in json.loads(path.read_text())["traceback"]
    assert run_stage(paint_stage(folder), folder, Serial()).ran == 1
    assert outcome(folder) == outcome(whole)


def test_a_stage_without_a_largest_block_has_no_limit(tmp_path: Path) -> None:
    stage = paint_stage(tmp_path, (4, 4, 4), pause_s=1.0)
    patient = type(stage)(stage.name, stage.key, stage.blocks, stage.work, bounded=False)
    with Dask(workers=1, limit_s=0.3) as one:
        assert run_stage(patient, tmp_path, one).ran == 1


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="a limit of 0 s lets no block end"):
        Dask(workers=2, limit_s=0)
