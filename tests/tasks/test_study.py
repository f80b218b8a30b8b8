"""Studies of autoencoders: arms, seeds and ablations, summed up, gone on with, and refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from emloom.errors import InputError
from emloom.nn.hardware import Hardware
from emloom.nn.level_autoencoders import FCNAutoencoderSpec
from emloom.nn.model import load
from emloom.nn.objectives.reconstruction import HiddenBlocks, ReconstructionObjective
from emloom.tasks.study import AblationSpec, ArmSpec, ReconstructionStudy, run_study, summed_up
from tests.tasks.micrographs import NET, image, job, write

HERE = Hardware("cpu", 1, 0)
MASKED = ReconstructionObjective(corruption=HiddenBlocks(block_vox=(1, 8, 8)))


def study(raw: str, **more: Any) -> ReconstructionStudy:
    given: dict[str, Any] = {
        "name": "two shapes",
        "job": job(raw),
        "arms": {
            "unet": ArmSpec(network=NET),
            "fcn": ArmSpec(network=FCNAutoencoderSpec.of(width=2, levels=3), steps=2, objective=MASKED),
        },
        "ablations": {"cut": AblationSpec(of="unet", skips=(False, True))},
        "seeds": (0, 5),
        **more,
    }
    return ReconstructionStudy(**given)


class Count:
    """Counts runs."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def stage(self, name: str, skipped: bool) -> None:
        """Say nothing."""

    def step(self, progress: Any) -> None:
        """Say nothing."""

    def advance(self, name: str, done: int, total: int) -> None:
        self.seen.append((name, done, total))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReconstructionStudy, Path]:
    folder = tmp_path_factory.mktemp("study")
    made = study(write(folder / "raw.zarr", image()))
    count = Count()
    assert run_study(made, folder / "out", HERE, count) == folder / "out" / "report.html"
    assert count.seen == [("runs", n, 6) for n in range(1, 7)]
    return made, folder / "out"


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_run_is_what_its_arm_says(done: tuple[ReconstructionStudy, Path]) -> None:
    made, out = done
    jobs = {f"{run.arm}-{run.seed}": run.job for run in made.runs(out.absolute())}
    assert list(jobs) == ["unet-0", "unet-5", "fcn-0", "fcn-5", "cut-0", "cut-5"]
    assert (jobs["fcn-5"].training.steps, jobs["fcn-5"].training.seed) == (2, 5)
    assert jobs["fcn-0"].objective == MASKED
    assert jobs["unet-5"].objective == ReconstructionObjective()
    assert jobs["cut-5"].weights == str(out / "runs" / "unet-5" / "train" / "model.safetensors")
    spec, _, _ = load(out / "runs" / "cut-5" / "train" / "model.safetensors")
    assert spec.network == NET.keeping(1)


def test_the_summary_is_that_of_the_runs(done: tuple[ReconstructionStudy, Path]) -> None:
    _, out = done
    every, summary = rows_of(out / "scores.csv"), rows_of(out / "summary.csv")
    assert [(row["arm"], row["seed"]) for row in every][:2] == [("unet", "0"), ("unet", "5")]
    assert [row["arm"] for row in summary] == ["unet", "fcn", "cut"]
    for row in summary:
        own = [float(each["psnr_db"]) for each in every if each["arm"] == row["arm"]]
        assert float(row["psnr_db"]) == pytest.approx(fmean(own), rel=1e-12)
        assert float(row["psnr_db_low"]) <= min(own)  # t of two replicates is 12.7: wider than the two
        assert float(row["psnr_db_high"]) >= max(own)
    page = (out / "report.html").read_text()
    assert "two shapes" in page
    assert "power kept (ratio)" in page


def test_a_study_goes_on_where_it_stopped(done: tuple[ReconstructionStudy, Path]) -> None:
    made, out = done
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/markers/*.json")}
    (out / "summary.csv").unlink()
    run_study(made, out, HERE)
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/markers/*.json")} == before
    assert len(rows_of(out / "summary.csv")) == 3


def test_another_study_is_refused_before_anything_is_touched(done: tuple[ReconstructionStudy, Path]) -> None:
    made, out = done
    with pytest.raises(InputError, match="another study"):
        run_study(made.model_copy(update={"seeds": (1,)}), out, HERE)
    assert ReconstructionStudy.load(out / "study.yaml") == made


@pytest.mark.slow
def test_processes_change_nothing(done: tuple[ReconstructionStudy, Path], tmp_path: Path) -> None:
    made, out = done
    few = made.model_copy(update={"arms": {"unet": made.arms["unet"]}})
    run_study(few, tmp_path / "out", HERE, workers=2)
    for name in ("unet-0", "cut-5"):
        scores = [
            json.loads((each / "runs" / name / "evaluate" / "scores.json").read_text())["rows"]
            for each in (out, tmp_path / "out")
        ]
        assert scores[0] == scores[1]


def test_a_failing_run_is_an_error(tmp_path: Path) -> None:
    made = study(write(tmp_path / "raw.zarr", image()))
    broken = made.model_copy(
        update={
            "job": made.job.model_copy(update={"data": (made.job.data[0].model_copy(update={"raw": "no.zarr"}),)})
        }
    )
    with pytest.raises(InputError, match=r"no\.zarr"):
        run_study(broken, tmp_path / "out", HERE)
    assert not (tmp_path / "out" / "summary.csv").exists()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"seeds": (1, 1)}, "name one twice"),
        ({"seeds": ()}, "at least 1"),
        ({"job": job("raw").model_copy(update={"weights": "w.safetensors"}).to_dict()}, "leave out its `weights`"),
        ({"ablations": {"unet": {"of": "unet", "skips": [True, True]}}}, "a name of its own"),
        ({"ablations": {"cut": {"of": "vae", "skips": [True, True]}}}, "there are unet, fcn"),
        ({"ablations": {"cut": {"of": "fcn", "skips": [True, True]}}}, "has no skips"),
        ({"ablations": {"cut": {"of": "unet", "skips": [True]}}}, "must switch each"),
        ({"arms": {"a/b": {"network": {"kind": "fcn_autoencoder"}}}}, "choose another"),
    ],
)
def test_studies_that_make_no_sense_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        ReconstructionStudy.from_dict(study("raw").to_dict() | changes)


def test_what_a_run_lacks_has_no_mean() -> None:
    rows = [{"arm": "a", "seed": n, "test": "t", "psnr_db": value} for n, value in enumerate((30.0, None))]
    (found,) = summed_up(rows)
    assert found.values["psnr_db"].reason == "a replicate has no finite value"
