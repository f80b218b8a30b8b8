"""`emloom run`: from files to a report; what is done is skipped; nothing of another job is reused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from emloom.errors import InputError
from emloom.io.open import open_volume
from emloom.nn.hardware import Hardware
from emloom.nn.model import load
from emloom.run.cluster import executor_of
from emloom.tasks.neurons import STAGES, run
from emloom.tasks.segment import grow_tree, load_segmented
from tests.tasks.cubes import job, write_stack

HERE = Hardware("cpu", 1, 0)


class Watcher:
    """Remembers which stages ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def stage(self, name: str, skipped: bool) -> None:
        if not skipped:
            self.ran.append(name)

    def step(self, progress: object) -> None:
        pass

    def advance(self, name: str, done: int, total: int) -> None:
        pass


def ran(*arguments: object, **named: object) -> list[str]:
    watcher = Watcher()
    run(*arguments, HERE, watcher, **named)  # type: ignore[arg-type]
    return watcher.ran


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    stack = write_stack(folder / "stack.h5")
    assert ran(job(stack), folder / "out") == list(STAGES)
    return stack, folder / "out"


def test_cells_with_clear_walls_are_found(finished: tuple[Path, Path]) -> None:
    rows = json.loads((finished[1] / "evaluate" / "scores.json").read_text())["rows"]
    test = {row["method"]: row for row in rows if row["part"] == "test"}
    assert test["emloom"]["voi_sum"] < 0.5
    assert test["given: itself"]["voi_sum"] == 0.0
    assert "watershed on smoothed raw" in test
    assert {row["part"] for row in rows} == {"test", "validation"}


def test_the_segmentation_is_that_of_the_chosen_threshold(finished: tuple[Path, Path]) -> None:
    out = finished[1]
    threshold = json.loads((out / "evaluate" / "scores.json").read_text())["threshold"]
    stored = open_volume(out / "evaluate" / "s0_test_0.zarr" / "segmentation")
    again = load_segmented(out / "segment" / "s0_test_0.zarr").at(threshold)
    assert np.array_equal(stored.read(stored.info.box), again)
    assert stored.info.grid.offset_nm == (0.0, 240.0, 0.0)


def test_a_second_run_does_nothing(finished: tuple[Path, Path]) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished[1].rglob("*") if p.is_file() and p.name != "job.yaml"}
    assert ran(job(finished[0]), finished[1]) == []
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_another_job_in_the_same_folder_is_refused_untouched(finished: tuple[Path, Path]) -> None:
    stack, out = finished
    changed = job(stack)
    changed = changed.model_copy(update={"training": changed.training.model_copy(update={"seed": 7})})
    before = (out / "job.yaml").read_bytes()
    with pytest.raises(InputError, match="another job"):
        run(changed, out, HERE)
    assert (out / "job.yaml").read_bytes() == before


def test_overwrite_runs_only_what_depends_on_the_change(finished: tuple[Path, Path]) -> None:
    stack, out = finished
    changed = job(stack)
    segmentation = changed.segmentation.model_copy(update={"thresholds": (0.4, 0.5)})
    changed = changed.model_copy(update={"segmentation": segmentation})
    assert ran(changed, out, overwrite=True) == ["segment", "evaluate", "report"]
    assert ran(job(stack), out, overwrite=True) == ["segment", "evaluate", "report"]


def test_the_report_tells_the_story(finished: tuple[Path, Path]) -> None:
    page = (finished[1] / "report.html").read_text()
    for text in ("cubes", "VOI split", "inner VOI", "watershed on smoothed raw", "data:image/png"):
        assert text in page
    provenance = json.loads((finished[1] / "provenance.json").read_text())
    assert set(provenance["seconds"]) == set(STAGES[:-1])


def test_an_interrupted_run_goes_on(finished: tuple[Path, Path], tmp_path: Path) -> None:
    class Impatient(Watcher):
        def advance(self, name: str, done: int, total: int) -> None:
            if name == "segment":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job(finished[0]), tmp_path / "out", HERE, Impatient())
    assert ran(job(finished[0]), tmp_path / "out") == ["segment", "evaluate", "report"]
    scores = [(folder / "evaluate" / "scores.csv").read_bytes() for folder in (finished[1], tmp_path / "out")]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_workers_give_the_same_scores(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """From one training: predicted and segmented by two workers, scored alike; and as in memory."""
    shutil.copytree(finished[1], tmp_path / "out")
    for stage in STAGES[1:]:
        (tmp_path / "out" / "markers" / f"{stage}.json").unlink()
        if stage != "report":
            shutil.rmtree(tmp_path / "out" / stage)
    with executor_of(2) as two:
        run(job(finished[0]), tmp_path / "out", HERE, executor=two)
    scores = [(folder / "evaluate" / "scores.csv").read_bytes() for folder in (finished[1], tmp_path / "out")]
    assert scores[0] == scores[1]
    affinities = open_volume(tmp_path / "out" / "predict" / "s0_test_0.zarr" / "affinities")
    assert affinities.info.neighborhood is not None
    whole = grow_tree(
        affinities.read(affinities.info.box),
        affinities.info.neighborhood,
        affinities.info.grid,
        job(finished[0]).segmentation,
    )
    found = load_segmented(tmp_path / "out" / "segment" / "s0_test_0.zarr")
    assert np.array_equal(found.fragments, whole.fragments)
    assert np.array_equal(found.at(0.5), whole.at(0.5))


def test_training_only(finished: tuple[Path, Path], tmp_path: Path) -> None:
    assert ran(job(finished[0]), tmp_path / "out", until="train") == ["train"]
    models = [folder / "train" / "model.safetensors" for folder in (finished[1], tmp_path / "out")]
    first, second = (load(model)[1].state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_overwrite_replaces_an_interrupted_training_of_another_job(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    class Impatient(Watcher):
        def step(self, progress: object) -> None:
            raise KeyboardInterrupt

    first = job(finished[0])
    other = first.model_copy(update={"training": first.training.model_copy(update={"seed": 7, "steps": 2})})
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path, HERE, Impatient())
    with pytest.raises(InputError, match="another job"):
        run(other, tmp_path, HERE)
    with pytest.raises(KeyboardInterrupt):  # the refused job left its name behind, the first may still go on
        run(first, tmp_path, HERE, Impatient())
    assert ran(other, tmp_path, overwrite=True, until="train") == ["train"]
