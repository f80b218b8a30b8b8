"""Jobs that learn clefts and partners: from files to scores, and what they refuse."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.synapses import SynapseTable
from emloom.io.cremi import INVALID, TRANSPARENT
from emloom.io.open import create_volume, open_volume
from emloom.io.synapsetable import read_synapse_table, write_synapse_table
from emloom.io.volume import VolumeInfo
from emloom.nn.hardware import Hardware
from emloom.nn.sampling import CropSampler
from emloom.nn.strategies import Foreground, Rejection
from emloom.recipes import phantom_synapses
from emloom.tasks.anyjob import Where, carry_out, check_job, load_any_job
from emloom.tasks.checktraining import Finding
from emloom.tasks.data import StackSpec, check_boxes, open_stack
from emloom.tasks.synapsejob import CleftsJob, PartnersJob, open_stacks
from emloom.tasks.synapses import read_result
from tests.tasks.synaptic import GRID, tissue, write_tissue

WHERE = Where(Hardware("cpu", workers=0))
SPLIT = {
    "validation": [{"start": [0, 0, 0], "shape": [24, 32, 32]}],
    "test": [{"start": [24, 0, 0], "shape": [24, 32, 32]}],
}
OBJECTIVE = {"pre_radius_nm": 25, "post_radius_nm": 25, "vector_scale_nm": 100}
SMALL = {"crop_shape_vox": [12, 16, 16]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tissue(tmp_path_factory.mktemp("tissue"), tissue())


def partners(folder: Path, steps: int = 3, **more: Any) -> dict[str, Any]:
    data = {"raw": f"{folder}/raw.zarr", "synapses": f"{folder}/synapses.parquet", **SPLIT}
    data |= {"neurons": f"{folder}/neurons.zarr", **more.pop("data", {})}
    return {
        "kind": "partners",
        "name": "tiny",
        "data": [data],
        "objective": {**OBJECTIVE, **more.pop("objective", {})},
        "network": {"kind": "unet", "features": [6, 12], "factors": [[2, 2, 2]]},
        "training": {"steps": steps, "validate_every": steps, **SMALL, **more.pop("training", {})},
        **more,
    }  # fmt: skip


def clefts(folder: Path, labels: str, steps: int = 3, **more: Any) -> dict[str, Any]:
    data = {"raw": f"{folder}/raw.zarr", "labels": labels, **SPLIT}
    return {**partners(folder, steps), "kind": "clefts", "data": [data], "objective": more}


@pytest.fixture(scope="module")
def job(folder: Path) -> PartnersJob:
    path = folder / "job.yaml"
    path.write_text(json.dumps(partners(folder, 100, objective={"variant": "sites"}, orientations=4)))
    job = load_any_job(path)
    assert isinstance(job, PartnersJob)
    return job


@pytest.fixture(scope="module")
def trained(job: PartnersJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that was carried out: a network trained for seconds on a part of the tissue."""
    return carry_out(job, tmp_path_factory.mktemp("trained") / "out", WHERE).parent


def test_partners_from_files_to_scores(job: PartnersJob, trained: Path) -> None:
    """Trained for seconds, it finds sites far better than chance, in a box it never saw."""
    assert isinstance(job.training.sampling, Foreground)
    assert job.training.sampling.around == "sites"
    assert "average precision, pre" in (trained / "report.html").read_text()
    words = json.loads((trained / "evaluate/scores.json").read_text())
    rows = {row["channel"]: row for row in words["rows"] if row["box"] == "s0_test_0"}
    assert rows.keys() == {"pre", "post"}
    for row in rows.values():
        assert row["average_precision"] > 5 * row["positive_voxels"] / row["voxels"]
    stored = open_volume(trained / "predict/s0_test_0.zarr/sites")
    assert (stored.info.dtype, stored.info.channels, stored.info.kind) == (np.uint8, 2, "probabilities")
    assert stored.info.shape == (24, 32, 32)
    before = (trained / "train/model.safetensors").stat().st_mtime_ns
    carry_out(job, trained, WHERE)
    assert (trained / "train/model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("variant", "heads"),
    [("vectors", {"post": 1, "vectors": 3}), ("proximity", {"proximity": 1}), ("polarity", {"polarity": 3})],
)
def test_every_variant_stores_its_heads(tmp_path: Path, folder: Path, variant: str, heads: dict[str, int]) -> None:
    objective = {"variant": variant, "proximity_scale_nm": 15}
    job = PartnersJob.from_dict(partners(folder, objective=objective, orientations=4))
    carry_out(job, tmp_path / "out", WHERE)
    for head, channels in heads.items():
        info = open_volume(tmp_path / f"out/predict/s0_test_0.zarr/{head}").info
        assert (info.dtype, info.channels) == (np.uint8, channels)
    words = json.loads((tmp_path / "out/evaluate/scores.json").read_text())
    assert all(row["positive_voxels"] > 0 for row in words["rows"])
    assert ("vector_errors" in words) == (variant == "vectors")
    if variant == "vectors":
        assert words["vector_errors"]["s0_test_0"]["n"] > 0


def test_clefts_from_cremi_keep_what_is_invalid_unknown(tmp_path: Path, folder: Path) -> None:
    """`syn(syn > 1e10) = 0` made INVALID background; it must neither teach nor count."""
    labels = tissue().clefts.copy()
    stored = np.where(labels == 0, np.uint64(TRANSPARENT), labels)
    stored[30:40, 20:30] = INVALID
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as h5:
        h5["volumes/labels/clefts"] = stored
        h5["volumes/labels/clefts"].attrs.update(resolution=GRID.voxel_size_nm, offset=GRID.offset_nm)
    job = CleftsJob.from_dict(clefts(folder, f"{path}/volumes/labels/clefts"))
    (stack,) = open_stacks(job)
    known = np.ones(labels.shape, np.uint8)
    known[30:40, 20:30] = 0
    assert stack.mask is not None
    assert np.array_equal(stack.mask.read(stack.mask.info.box), known)
    assert np.array_equal(stack.labels.read(stack.labels.info.box), np.where(known, labels, 0))
    carry_out(job, tmp_path / "out", WHERE)
    words = json.loads((tmp_path / "out/evaluate/scores.json").read_text())
    assert [row["voxels"] for row in words["rows"]] == [int(known[24:, :32, :32].sum())] * 2
    assert words["cremi"]["s0_test_0"]["cremi_score_nm"] is not None


def test_the_distance_variant_runs(tmp_path: Path, folder: Path) -> None:
    spec = clefts(folder, f"{folder}/clefts.zarr", variant="distance", scale_nm=10.0)
    carry_out(CleftsJob.from_dict(spec), tmp_path / "out", WHERE)
    info = open_volume(tmp_path / "out/predict/s0_test_0.zarr/clefts").info
    assert (info.dtype, info.channels) == (np.uint8, 1)


def test_check_says_what_it_found(folder: Path) -> None:
    for spec in (partners(folder), clefts(folder, f"{folder}/clefts.zarr")):
        kinds = {"partners": PartnersJob, "clefts": CleftsJob}
        found = check_job(kinds[spec["kind"]].from_dict(spec))
        assert {"voxel size", "split", "room", "sampling", "parity", "cost"} <= {f.what for f in found}
        assert not [f for f in found if f.level == "error"]
    texts = [f.text for f in check_job(PartnersJob.from_dict(partners(folder)))]
    assert any("53 contacts of 40 pre sites" in text for text in texts)
    bare = check_job(PartnersJob.from_dict(partners(folder, data={"neurons": None})))
    assert any(f.level == "warning" and "reach into other neurons" in f.text for f in bare)


@pytest.mark.parametrize("variant", ["sites", "vectors", "proximity"])
def test_check_decodes_perfect_targets(folder: Path, variant: str) -> None:
    def decoded(**objective: Any) -> Finding:
        spec = partners(folder, objective={"variant": variant, "proximity_scale_nm": 12, **objective})
        (finding,) = [f for f in check_job(PartnersJob.from_dict(spec)) if f.what == "decoded"]
        return finding

    good = decoded(post_radius_nm=15)
    assert good.level == "ok", good.text
    told = re.search(r"of (\d+) contacts .* bring back (\d+)", good.text)
    assert told is not None
    true, both = (int(number) for number in told.groups())
    assert true > 30
    assert both > 0.9 * true
    merged = decoded(post_radius_nm=25)  # the two post sites of a polyad are 40 nm apart
    assert merged.level == "warning", merged.text


def test_the_jobs_of_the_page_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "synapses-training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.S | re.M)
    jobs = [cls.from_yaml(text) for cls, text in zip((PartnersJob, CleftsJob), blocks, strict=True)]
    for job in jobs:
        assert type(job).from_yaml(job.to_yaml()) == job


def test_the_recipes_learn_from_the_phantom_and_leave_room() -> None:
    """One for every variant, on boxes of the tissue that is learned."""
    names = ["sites", "vectors", "proximity", "polarity"]
    jobs = [getattr(phantom_synapses, name)(data="tissue", seed=3) for name in names]
    assert [job.objective.variant for job in jobs] == names
    others = [phantom_synapses.found(data="tissue", seed=3), phantom_synapses.clefts(data="tissue", seed=3)]
    for job in [*jobs, *others]:
        (stack,) = job.data
        assert job.training.seed == 3
        assert str(stack.raw).endswith("tissue/raw.zarr")
        check_boxes(stack, Box.whole(phantom_synapses.TRAINING.shape), phantom_synapses.TRAINING.voxel_size_nm)
    assert phantom_synapses.TRAINING.seed != phantom_synapses.HELD_OUT.seed


def test_crops_are_drawn_by_synapse(folder: Path) -> None:
    """By an index of the table's sites, or by refusing crops with too little of them."""
    (stack,) = open_stacks(PartnersJob.from_dict(partners(folder)))
    volume, shape = stack.labelled, (8, 12, 12)
    rng = np.random.default_rng(0)
    voxels = volume.site_voxels()
    sampler = CropSampler([volume], Foreground(around="sites", probability=1.0), shape)
    for _ in range(30):
        box = Box(sampler.draw(rng).start, shape)
        assert ((voxels >= box.start) & (voxels < box.stop)).all(axis=1).any()
    sampler = CropSampler([volume], Rejection(least_vox=30, tolerate=0.0), shape)
    for _ in range(10):
        assert np.count_nonzero(stack.labels.read(Box(sampler.draw(rng).start, shape))) >= 30
    marked = StackSpec.from_dict(
        {"raw": f"{folder}/raw.zarr", "labels": f"{folder}/clefts.zarr",
         "marks": {"sites": f"{folder}/synapses.parquet"}, **SPLIT}
    )  # fmt: skip
    assert len(open_stack(marked).labelled.site_voxels()) == len(np.unique(voxels, axis=0))


def test_what_no_one_can_learn_from(tmp_path: Path, folder: Path) -> None:
    def refused(**more: Any) -> str:
        with pytest.raises(InputError) as problem:
            carry_out(PartnersJob.from_dict(partners(folder, **more)), tmp_path / "out", WHERE)
        return str(problem.value)

    write_synapse_table(tmp_path / "none.parquet", SynapseTable.empty())
    assert "holds no synapse" in refused(data={"synapses": f"{tmp_path}/none.parquet"})
    assert "does not exist" in refused(data={"synapses": f"{tmp_path}/missing.csv"})
    other = VolumeInfo((48, 64, 60), np.dtype(np.uint64), GRID, kind="labels")
    create_volume(tmp_path / "other.zarr", other)
    assert "crop or convert" in refused(data={"neurons": f"{tmp_path}/other.zarr"})
    assert "less than half a voxel" in refused(objective={"pre_radius_nm": 4})
    empty = {"validation": [{"start": [0, 0, 0], "shape": [4, 64, 64]}], "test": []}
    small = {"crop_shape_vox": [4, 16, 16]}
    assert "no validation box holds a voxel of 'pre'" in refused(data=empty, training=small)
    table = tissue().table
    write_synapse_table(tmp_path / "away.csv", table.rows(np.array([0])).__class__(
        table.ids[:1], table.polyads[:1], table.pre_nm[:1], table.post_nm[:1] + 5000.0, table.pre_segments[:1],
        table.post_segments[:1], table.sizes_vox[:1], table.scores[:1]))  # fmt: skip
    assert "sites lie outside" in refused(data={"synapses": f"{tmp_path}/away.csv"})
    omitted = {"synapses": f"{tmp_path}/away.csv", "outside": "omit"}
    assert "holds no synapse" in refused(data=omitted)


def test_a_model_finds_synapses_in_one_command(tmp_path: Path, folder: Path, trained: Path) -> None:
    """As prediction first and synapses then do; and what it finds is mostly true."""
    raw, neurons, model = f"{folder}/raw.zarr", f"{folder}/neurons.zarr", f"{trained}/train/model.safetensors"
    settings = tmp_path / "settings.yaml"
    site = "{threshold: 0.6, min_size_vox: 20}"
    settings.write_text(f"decoder: {{kind: sites, pre: {site}, post: {site}, max_distance_nm: 200}}\n")
    end = ["--segmentation", neurons, "--settings", str(settings), "-o"]
    at_once = ["synapses", raw, "--model", model, *end, str(tmp_path / "once")]
    first = ["predict", raw, "--model", model, "-o", str(tmp_path / "pred.zarr")]
    then = ["synapses", "--prediction", str(tmp_path / "pred.zarr"), *end, str(tmp_path / "then")]
    for words in (at_once, first, then):
        said = CliRunner().invoke(app, words)
        assert said.exit_code == 0, said.output
    (found, counted), (again, recounted) = (read_result(tmp_path / name) for name in ("once", "then"))
    assert counted == recounted
    for field in (each for each in fields(found) if each.name != "source"):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(again, field.name))
    true = read_synapse_table(folder / "synapses.parquet")
    near = cdist(true.post_nm, found.post_nm) <= 60.0
    assert near.any(axis=0).mean() > 0.9  # by chance a quarter: 53 balls of 60 nm in this tissue
    assert near.any(axis=1).mean() > 0.8


def test_a_model_of_another_voxel_size_is_refused(tmp_path: Path, folder: Path) -> None:
    spec = partners(folder)
    other = {**spec["data"][0], "raw": f"{tmp_path}/raw.zarr"}
    raw = tissue().raw
    info = VolumeInfo(raw.shape, raw.dtype, Grid((20.0, 10.0, 10.0), GRID.offset_nm), kind="raw")
    create_volume(tmp_path / "raw.zarr", info).write(info.box, raw)
    with pytest.raises(InputError, match="voxel size"):
        carry_out(PartnersJob.from_dict({**spec, "data": [spec["data"][0], other]}), tmp_path / "out", WHERE)
