"""Two processes do not work in one folder, and a lock never outlives its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emloom.errors import InputError
from emloom.run import alone
from emloom.run.alone import LOCK, work_alone
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.steps import Plan, Step

HOLD = """
import sys
from pathlib import Path
from emloom.run.alone import work_alone
work_alone(Path(sys.argv[1]))
sys.stdout.write("held\\n")
sys.stdout.flush()
sys.stdin.read()
"""


class Job(Spec):
    """What is done."""

    output: str
    """Where."""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.fault(
    "processes",
    "a second process is started on the output of a running job",
    "error: another process (4711 on host) is at work in out.unfinished.zarr/run: wait for it, stop it, or choose "
    "another output; the first goes on undisturbed",
)
@pytest.mark.fault(
    "processes",
    "the process that held an output is killed (`kill -9`)",
    "the system takes its lock back: the next run goes on at once",
)
def test_one_of_two_processes_wins_and_its_death_lets_the_other_in(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out.zarr")
    (space.draft / "run").mkdir(parents=True)
    other = holder(space.draft / "run")
    try:
        with pytest.raises(
            InputError, match=rf"another process \({other.pid} on .*wait for it, stop it, or choose"
        ):
            space.claim("test", Job(output="out.zarr"), {})
        assert not (space.draft / "run" / "job.json").exists()
    finally:
        ended(other)
    assert space.claim("test", Job(output="out.zarr"), {}) == {}
    # The same process may ask again: its parts share the folder.
    assert Workspace(tmp_path / "out.zarr").claim("test", Job(output="out.zarr"), {}) == {}


@pytest.mark.fault(
    "processes",
    "`--overwrite` is asked for while another process works in the folder of a job",
    "error: another process is at work in it; nothing is deleted",
)
def test_the_folder_of_a_job_is_not_taken_from_another_process(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    other = holder(tmp_path)
    made: list[str] = []
    plan = Plan(Job(output="x"), tmp_path, [Step("report", "key", lambda: made.append("report"))], frozenset())
    try:
        for overwrite in (False, True):
            with pytest.raises(InputError, match="is at work in"):
                plan.carry_out(_Silent(), overwrite=overwrite)
        assert not made
        assert {path.name for path in tmp_path.iterdir()} == {"train", LOCK}
    finally:
        ended(other)
    plan.carry_out(_Silent())
    assert made == ["report"]


class _Silent:
    def stage(self, name: str, skipped: bool) -> None: ...
    def step(self, progress: object) -> None: ...
    def advance(self, name: str, done: int, total: int) -> None: ...


@pytest.mark.fault(
    "processes",
    "the file system of the output has no locks",
    "nothing is refused: the job runs, and whoever starts it twice is not warned",
)
def test_without_locks_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(alone.fcntl, "lockf", none)
    work_alone(tmp_path)
