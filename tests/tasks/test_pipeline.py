"""The whole way: done once, skipped then; only what a change concerns is done again; a crash loses nothing."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.open import open_volume
from emloom.io.synapsetable import read_synapse_table
from emloom.run.cluster import executor_of
from emloom.tasks import pipeline as pipeline_module
from emloom.tasks.anyjob import Where, carry_out, check_job, load_any_job
from emloom.tasks.pipeline import FAILURE, StageFailedError, run
from emloom.tasks.pipelinedry import dry_run
from emloom.tasks.pipelinespec import PipelineJob
from emloom.tasks.scorefiles import read_rows
from emloom.tasks.synapsescores import ALL as ALL_BOXES
from emloom.tasks.viewfolder import holding_of
from tests.tasks.pipelines import (
    BAD,
    HERE,
    neurons_job,
    partners_job,
    pipeline,
    train_models,
    write_stack,
    write_tissue,
)
from tests.tasks.test_neurons import Watcher

Models = tuple[Path, Path]
ALL = [
    "check", "qc", "align", "carry", "repair", "mask", "predict", "segment", "confidence",
    "predict-synapses", "synapses", "connectome", "restore", "evaluate", "report",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def stack(home: Path) -> Path:
    return write_stack(home / "stack")


@pytest.fixture(scope="module")
def models(home: Path) -> Models:
    return train_models(home / "models", write_tissue(home / "tissue"))


@pytest.fixture(scope="module")
def done(home: Path, stack: Path, models: Models) -> Path:
    """A finished pipeline; tests work on copies of it."""
    run(pipeline(stack, models, truth=None), home / "out", HERE)
    return home / "out"


def ran(job: PipelineJob, folder: Path, **options: object) -> list[str]:
    watcher = Watcher()
    run(job, folder, HERE, watcher, **options)  # type: ignore[arg-type]
    return [name for name in watcher.ran if ":" not in name]


def _with(job: PipelineJob, section: str, **changes: object) -> PipelineJob:
    plain = job.to_dict()
    plain[section] |= changes
    return PipelineJob.from_dict(plain)


def volumes(folder: Path) -> dict[str, str]:
    """Hashes of every volume of a pipeline, and of its tables."""
    names = (
        "qc/mask.zarr", "align/raw.zarr", "align-qc/mask.zarr", "repair/raw.zarr", "repair/invented.zarr",
        "mask.zarr/mask", "predict.zarr/affinities", "segment.zarr/segmentation", "confidence/confidence.zarr",
        "predict-synapses.zarr/sites", "restored/segmentation.zarr/segmentation",
    )  # fmt: skip
    out = {}
    for name in names:
        volume = open_volume(folder / name)
        out[name] = hashlib.sha256(np.ascontiguousarray(volume.read(volume.info.box)).tobytes()).hexdigest()
    for name in ("synapses", "restored", "connectome"):
        table = read_synapse_table(folder / name)
        columns = (table.ids, table.pre_nm, table.post_nm, table.pre_segments, table.post_segments, table.scores)
        out[f"{name} table"] = hashlib.sha256(b"".join(c.tobytes() for c in columns)).hexdigest()
    out["look here"] = hashlib.sha256((folder / "confidence/look_here.csv").read_bytes()).hexdigest()
    edges = json.loads((folder / "connectome" / "provenance.json").read_text())["left_out"]
    return out | {"left out": edges}


def test_the_whole_way_is_done_in_order_and_then_skipped(stack: Path, models: Models, done: Path) -> None:
    job = pipeline(stack, models, truth=None)
    before = {p: p.stat().st_mtime_ns for p in done.rglob("*") if p.is_file()}
    assert ran(job, done) == []
    assert before == {p: p.stat().st_mtime_ns for p in before}
    page = (done / "report.html").read_text()
    for link in ("qc/report.html", "align/report.html", "repair/report.html", "connectome/report.html"):
        assert f'href="{link}"' in page
        assert (done / link).is_file()
    said = json.loads((done / "provenance.json").read_text())
    assert list(said["seconds"])[:4] == ["check", "qc", "align", "carry"]
    assert PipelineJob.load(done / "job.yaml") == job


def test_results_come_back_to_the_grid_of_the_raw(stack: Path, done: Path) -> None:
    raw = open_volume(stack / "raw.zarr").info
    ids = open_volume(done / "restored/segmentation.zarr/segmentation")
    assert (ids.info.shape, ids.info.grid) == (raw.shape, raw.grid)
    found, back = read_synapse_table(done / "synapses"), read_synapse_table(done / "restored")
    lost = json.loads((done / "restored/restored.json").read_text())
    assert lost["moved"]
    assert len(back) == len(found) - lost["lost"]
    # A site lies in the same segment before and after.
    values = ids.read(ids.info.box)
    at = [tuple(ids.info.grid.containing(p)) for p in back.pre_nm]
    same = [values[v] == s for v, s in zip(at, back.pre_segments, strict=True)]
    assert np.mean(same) > 0.95


def test_masks_are_obeyed(done: Path) -> None:
    codes = open_volume(done / "repair/invented.zarr")
    invented = codes.read(codes.info.box)
    assert (invented[BAD] == 2).sum() > 0.5 * invented[BAD].size  # the lost section was filled in
    segments = open_volume(done / "segment.zarr/segmentation").read(codes.info.box)
    sites = open_volume(done / "predict-synapses.zarr/sites").read(codes.info.box)
    assert (segments[invented > 3] == 0).all()  # left, or outside
    assert (segments[BAD][invented[BAD] == 2] > 0).mean() > 0.5  # neurons go through what was filled in
    assert (sites[:, invented != 0] == 0).all()  # synapses do not
    table = read_synapse_table(done / "synapses")
    for side in (table.pre_nm, table.post_nm):
        assert all(invented[tuple(codes.info.grid.containing(p))] == 0 for p in side)
    carried = open_volume(done / "align-qc/mask.zarr").read(codes.info.box)
    outside = open_volume(done / "align/outside.zarr").read(codes.info.box)
    assert (carried[outside != 0] == 1).all()
    assert (carried[BAD][outside[BAD] == 0] == 2).all()


def test_a_view_of_it_shows_one_frame(done: Path) -> None:
    """What was moved lies on the grid that was segmented: quality control, too."""
    holding = holding_of(done)
    by_name = {part.name: Path(part.path) for part in holding.parts}
    assert by_name["raw"] == done / "repair/raw.zarr"
    assert by_name["qc"] == done / "align-qc/mask.zarr"
    assert by_name["confidence"] == done / "confidence/confidence.zarr"
    raw = open_volume(by_name["raw"]).info
    for name in ("segmentation", "qc", "invented", "outside"):
        info = open_volume(by_name[name]).info
        assert (info.shape, info.grid) == (raw.shape, raw.grid), name
    assert holding.synapses == done / "connectome"


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "out", copy_function=shutil.copy2))


def test_another_threshold_makes_the_region_graph_never_again(
    stack: Path, models: Models, done: Path, copy: Path
) -> None:
    job = pipeline(stack, models, truth=None)
    graph = {p: p.stat().st_mtime_ns for p in (copy / "segment.zarr/graph/edges").rglob("*.parquet")}
    assert graph
    changed = _with(job, "neurons", threshold=0.4)
    found = dry_run(changed, copy)
    assert next(s for s in found.stages if s.stage == "segment").text == "changed: neurons.threshold 0.5 -> 0.4"
    after = [n for n in ALL if n in ("segment", "confidence", "synapses", "connectome", "restore", "report")]
    # The copy lies elsewhere: its container is of another path, so it is made whole here first.
    assert ran(changed, copy) == after
    assert [s.stage for s in found.stages if s.will_run] == after
    graph = {p: p.stat().st_mtime_ns for p in (copy / "segment.zarr/graph/edges").rglob("*.parquet")}
    assert ran(job, copy) == after
    assert graph == {p: p.stat().st_mtime_ns for p in graph}
    assert volumes(copy) == volumes(done)


def test_other_rules_make_again_what_depends_on_them(stack: Path, models: Models, copy: Path) -> None:
    changed = _with(pipeline(stack, models, truth=None), "qc", masked=("blank", "crack"))
    assert ran(changed, copy) == [n for n in ALL if n not in ("check", "evaluate")]
    assert "qc.masked" in json.dumps(dry_run(pipeline(stack, models, truth=None), copy).to_dict())


def test_another_decoder_predicts_nothing_again(stack: Path, models: Models, copy: Path) -> None:
    job = pipeline(stack, models, truth=None)
    changed = _with(job, "synapses", graph={"minimum_weight": 2})
    assert ran(changed, copy) == ["connectome", "report"]
    changed = _with(changed, "synapses", clean={"min_score": 0.2})
    assert ran(changed, copy) == ["synapses", "connectome", "restore", "report"]


def test_what_was_removed_is_made_again_only_where_it_is_needed(stack: Path, models: Models, copy: Path) -> None:
    job = pipeline(stack, models, truth=None)
    shutil.rmtree(copy / "predict-synapses.zarr")
    assert ran(job, copy) == []
    changed = _with(job, "synapses", clean={"min_score": 0.3})
    assert ran(changed, copy) == ["predict-synapses", "synapses", "connectome", "restore", "report"]


def test_truth_is_scored_on_the_grid_of_the_raw(stack: Path, models: Models, copy: Path) -> None:
    truth = {"labels": f"{stack}/labels.zarr", "boxes": [{"start": [0, 0, 0], "shape": [40, 112, 56]}]}
    assert ran(pipeline(stack, models, truth=truth), copy) == ["check", "evaluate", "report"]
    mask = open_volume(copy / "evaluate/mask.zarr/mask")
    counted = mask.read(mask.info.box)
    assert mask.info.shape == open_volume(stack / "raw.zarr").info.shape
    assert not counted[BAD].any()
    assert not counted[:, :, 56:].any()
    assert counted[:BAD, 20:90, :56].mean() > 0.9
    row = json.loads((copy / "evaluate/neurons/scores.json").read_text())["rows"][0]
    assert 0 < row["n_voxels"] <= counted.sum()
    assert "Against the truth" in (copy / "report.html").read_text()


def test_where_nothing_moved_nothing_is_copied(tmp_path: Path, models: Models) -> None:
    still = write_stack(tmp_path / "still", shifted=False)
    job = pipeline(still, models, align=None, synapses=None, truth=None)
    run(job, tmp_path / "out", HERE)
    assert json.loads((tmp_path / "out/restored/restored.json").read_text()) == {"moved": False}
    assert not (tmp_path / "out/restored/segmentation.zarr").exists()


def test_only_stages_that_are_asked_for(tmp_path: Path, stack: Path) -> None:
    job = PipelineJob.from_dict({"name": "look", "raw": f"{stack}/raw.zarr"})
    assert ran(job, tmp_path / "out") == ["check", "qc", "report"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "check.json", "job.yaml", "markers", "provenance.json", "qc", "report.html"
    }  # fmt: skip


def test_a_dry_run_writes_nothing(tmp_path: Path, stack: Path, models: Models) -> None:
    found = dry_run(pipeline(stack, models), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [s.stage for s in found.stages] == ALL
    assert all(s.will_run and s.text == "new" for s in found.stages)
    assert found.disk_bytes > 40 * 112 * 112
    assert json.loads(json.dumps(found.to_dict()))["fits"]


def test_a_small_disk_is_refused_before_anything_is_written(
    tmp_path: Path, stack: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emloom.tasks.pipelinedry.free_bytes", lambda _: 1000)
    with pytest.raises(InputError, match=r"about [\d.]+ MiB .* 1000 B are free .* larger disk"):
        run(pipeline(stack, models), tmp_path / "out", HERE)
    assert not (tmp_path / "out").exists()


def test_folders_of_others_are_refused(tmp_path: Path, stack: Path, models: Models, copy: Path) -> None:
    job = pipeline(stack, models, truth=None)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="no pipeline made"):
        run(job, tmp_path / "mine", HERE, overwrite=True)
    other = shutil.copytree(stack, tmp_path / "other")
    with pytest.raises(InputError, match="another stack"):
        run(pipeline(other, models, truth=None), copy, HERE)
    neurons_job(stack).dump(tmp_path / "mine/job.yaml")
    with pytest.raises(InputError, match="kind 'neurons'"):
        run(job, tmp_path / "mine", HERE)
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"


def test_what_cannot_be_is_found_before(tmp_path: Path, stack: Path, models: Models) -> None:
    job = pipeline(stack, models, repair={"sections": {"bad": [77]}}, qc=None, align=None)
    words = [f.to_text() for f in check_job(job)]
    assert any("section 77 does not exist" in text for text in words)
    swapped = pipeline(stack, (models[1], models[0]))
    errors = [f for f in check_job(swapped) if f.level == "error"]
    assert {f.what for f in errors} == {"neurons", "synapses"}
    with pytest.raises(StageFailedError, match="stage check failed: neurons: "):
        run(swapped, tmp_path / "out", HERE)
    with pytest.raises(InputError, match="does not exist"):
        run(pipeline(tmp_path, models), tmp_path / "out", HERE)
    with pytest.raises(InputError, match="synapses need the segments"):
        pipeline(stack, models, neurons=None)
    with pytest.raises(InputError, match="give one"):
        pipeline(stack, models, neurons={"source": {"kind": "model", "model": "m"}})


@pytest.mark.parametrize("stage", ["carry", "segment", "restore"])
def test_a_failure_is_one_line_and_the_next_run_goes_on(
    stack: Path, models: Models, done: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    job = pipeline(stack, models, truth=None)
    (copy / "markers" / f"{stage}.json").unlink()

    def broken(_: object) -> None:
        raise RuntimeError("the disk\nis tired")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline_module._Run, stage, broken)
        with pytest.raises(StageFailedError) as caught:
            run(job, copy, HERE)
    said = str(caught.value)
    assert said.startswith(f"stage {stage} failed: RuntimeError: the disk is tired")
    assert "\n" not in said
    assert "Traceback" in (copy / FAILURE).read_text()
    assert stage in ran(job, copy)
    assert not (copy / FAILURE).exists()
    assert volumes(copy) == volumes(done)


def test_an_interrupt_leaves_everything_resumable(
    stack: Path, models: Models, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = pipeline(stack, models, truth=None)

    class Stopper(Watcher):
        def advance(self, name: str, done: int, total: int) -> None:
            if name.startswith("segment") and done:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, tmp_path / "out", HERE, Stopper())
    states = {s.stage: s for s in dry_run(job, tmp_path / "out").stages}
    assert states["predict"].state == "done"
    assert states["segment"].text == "interrupted: goes on"
    assert ran(job, tmp_path / "out") == [n for n in ALL[ALL.index("segment") :] if n != "evaluate"]
    assert volumes(tmp_path / "out") == volumes(done)


@pytest.mark.slow
def test_more_workers_give_the_same(stack: Path, models: Models, done: Path, tmp_path: Path) -> None:
    with executor_of(2, None) as executor:
        run(pipeline(stack, models, truth=None), tmp_path / "out", HERE, executor=executor)
    assert volumes(tmp_path / "out") == volumes(done)


@pytest.mark.slow
def test_a_training_chooses_the_threshold_and_is_never_lost(
    home: Path, stack: Path, models: Models, tmp_path: Path
) -> None:
    def job(seed: int = 0, thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)) -> PipelineJob:
        inner = neurons_job(home / "tissue", steps=4)
        inner = inner.model_copy(
            update={
                "training": inner.training.model_copy(update={"seed": seed}),
                "segmentation": inner.segmentation.model_copy(update={"thresholds": thresholds}),
            }
        )
        source = {"kind": "train", "job": inner.to_dict()}
        return PipelineJob.from_dict({"name": "t", "raw": f"{stack}/raw.zarr", "neurons": {"source": source}})

    out = tmp_path / "out"
    assert ran(job(), out) == ["check", "qc", "neurons", "predict", "segment", "confidence", "report"]
    chosen = json.loads((out / "neurons/evaluate/scores.json").read_text())["threshold"]
    assert json.loads((out / "segment.zarr/provenance.json").read_text())["spec"]["threshold"] == chosen
    weights = (out / "neurons/train/model.safetensors").stat().st_mtime_ns
    # What validation chooses from may change: the training stays.
    assert "neurons" in ran(job(thresholds=(0.4, 0.6)), out)
    assert (out / "neurons/train/model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(InputError, match=r"would be lost \(neurons.source.job.training.seed 0 -> 1"):
        run(job(seed=1, thresholds=(0.4, 0.6)), out, HERE)
    assert (out / "neurons/train/model.safetensors").stat().st_mtime_ns == weights
    assert "neurons" in ran(job(seed=1, thresholds=(0.4, 0.6)), out, overwrite=True)
    assert (out / "neurons/train/model.safetensors").stat().st_mtime_ns != weights


def test_synapses_can_be_learned_on_the_way(home: Path, stack: Path, models: Models, tmp_path: Path) -> None:
    def job(seed: int = 0) -> PipelineJob:
        inner = partners_job(home / "tissue", steps=6)
        inner = inner.model_copy(update={"training": inner.training.model_copy(update={"seed": seed})})
        source = {"kind": "train", "job": inner.to_dict()}
        return pipeline(stack, models, align=None, repair=None, synapses={"source": source}, truth=None)

    out = tmp_path / "out"
    stages = ran(job(), out)
    assert stages.index("synapses-model") < stages.index("predict-synapses") < stages.index("synapses")
    rows = [row for row in read_rows(out / "synapses-model/evaluate") if row["box"] == ALL_BOXES]
    chosen = {row["channel"]: row["threshold"] for row in rows}
    decoder = json.loads((out / "synapses/provenance.json").read_text())["spec"]["decoder"]
    assert decoder["kind"] == "sites"
    assert {side: decoder[side]["threshold"] for side in ("pre", "post")} == chosen
    assert ran(job(), out) == []
    weights = (out / "synapses-model/train/model.safetensors").stat().st_mtime_ns
    with pytest.raises(InputError, match=r"would be lost \(synapses.source.job.training.seed 0 -> 1"):
        run(job(seed=1), out, HERE)
    assert (out / "synapses-model/train/model.safetensors").stat().st_mtime_ns == weights


def test_it_is_a_kind_of_job(tmp_path: Path, stack: Path, models: Models, copy: Path) -> None:
    job = pipeline(stack, models, truth=None)
    job.dump(tmp_path / "job.yaml")
    read = load_any_job(tmp_path / "job.yaml")
    assert read == job
    assert carry_out(read, copy, Where(HERE)) == copy / "report.html"
    with pytest.raises(InputError, match="is a pipeline"):
        carry_out(read, copy, Where(HERE), only_train=True)


def test_the_example_of_the_guide_is_a_pipeline(tmp_path: Path, stack: Path, models: Models) -> None:
    page = (Path(__file__).parents[2] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    text = page.split("```yaml\n")[1].split("```")[0]
    names = {"stack.zarr": "raw.zarr", "neurons.zarr": "labels.zarr", "synapses.parquet": "synapses.parquet"}
    for said, there in names.items():
        text = text.replace(f": {said}", f": {stack}/{there}")
    text = text.replace("neurons.safetensors", str(models[0])).replace("synapses.safetensors", str(models[1]))
    (tmp_path / "job.yaml").write_text(text)
    job = load_any_job(tmp_path / "job.yaml")
    assert isinstance(job, PipelineJob)
    assert [s.stage for s in dry_run(job, tmp_path / "out").stages] == ALL
    assert not [f for f in check_job(job) if f.level == "error"]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(
    stack: Path, models: Models, done: Path, tmp_path: Path
) -> None:
    """24 times ``kill -9`` over the whole way, each time going on; a run that ends first is begun anew."""
    job, draw = pipeline(stack, models, truth=None), random.Random(7)
    job.dump(tmp_path / "job.yaml")
    out, reached = tmp_path / "out", []
    command = [sys.executable, "-m", "emloom", "-q", "run", str(tmp_path / "job.yaml"), "-o", str(out)]
    started = time.monotonic()
    subprocess.run([*command[:-1], str(tmp_path / "whole"), "--device", "cpu"], check=True, capture_output=True)
    longest = time.monotonic() - started
    while len(reached) < 24:
        child = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        # Starting takes seconds: most blows fall after that.
        time.sleep(draw.uniform(0.2 * longest, longest))
        child.kill()
        said = child.communicate()[1].decode()
        if child.returncode == -signal.SIGKILL:
            reached.append(len(list((out / "markers").glob("*.json"))))
        else:
            assert child.returncode == 0, said
            shutil.rmtree(out)
    assert len(set(reached)) >= 6, f"blows fell at the same few stages: {reached}"
    run(job, out, HERE)
    assert volumes(out) == volumes(done)
