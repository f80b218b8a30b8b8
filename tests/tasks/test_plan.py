"""`emloom plan`: a job file that parses back, proves itself on the labels, and says why."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.synapses import SynapseTable
from emloom.io.synapsetable import write_synapse_table
from emloom.nn.model import ModelSpec, build, save
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.unet import UNetSpec
from emloom.tasks.check import check
from emloom.tasks.data import held_out, open_stack
from emloom.tasks.job import NeuronsJob
from emloom.tasks.pipelinespec import PipelineJob, TrainedHere, TrainedModel
from emloom.tasks.plan import Plan, PlanSpec, plan, plan_into
from emloom.tasks.plantold import chosen_rows
from emloom.tasks.synapsejob import CleftsJob, PartnersJob
from tests.tasks.planned import GPU, MACHINE, tissue, write

CUBES = (10.0, 10.0, 10.0)
SECTIONS = (40.0, 6.0, 6.0)


def neurons_of(made: Plan) -> NeuronsJob:
    assert made.job.neurons is not None
    assert isinstance(made.job.neurons.source, TrainedHere)
    assert isinstance(made.job.neurons.source.job, NeuronsJob)
    return made.job.neurons.source.job


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan")


@pytest.fixture(scope="module")
def cubes(folder: Path) -> Path:
    raw, labels = tissue((56, 128, 128), CUBES)
    return write(folder / "cubes.h5", CUBES, raw=raw, labels=labels)


@pytest.fixture(scope="module")
def made(cubes: Path, folder: Path) -> Plan:
    return plan_into(PlanSpec(raw=f"{cubes}/raw", labels=f"{cubes}/labels"), folder / "a.yaml", machine=MACHINE)


# ---- the file ---------------------------------------------------------------------------------------------------


def test_the_file_is_the_value_and_says_why(made: Plan, folder: Path) -> None:
    text = (folder / "a.yaml").read_text()
    assert PipelineJob.from_yaml(text) == made.job
    for path, note in made.notes.items():
        if path:
            assert f"# {note[:30]}" in text, path
    job = neurons_of(made)
    assert f"lsd_sigma_nm: {job.objective.lsd_sigma_nm}" in text
    assert text.index("kind: pipeline") < text.index("raw:") < text.index("neurons:")


def test_every_choice_has_a_reason(made: Plan) -> None:
    job = ("neurons", "source", "job")
    for path in (
        (*job, "objective", "neighborhood"),
        (*job, "objective", "lsd_sigma_nm"),
        (*job, "objective", "grow_boundary_vox"),
        (*job, "network", "features"),
        (*job, "preprocessing", "low"),
        (*job, "training", "steps"),
        (*job, "training", "crop_shape_vox"),
        (*job, "data", 0, "validation"),
        (*job, "data", 0, "gap_nm"),
        ("qc",),
        ("raw",),
    ):
        assert made.notes[path]


def test_the_job_passes_its_check(made: Plan) -> None:
    job = neurons_of(made)
    quick = job.model_copy(update={"training": job.training.model_copy(update={"crop_shape_vox": (16, 16, 16)})})
    findings = check(quick)
    assert not [finding for finding in findings if finding.level == "error"]
    split = next(finding for finding in findings if finding.what == "split")
    assert split.level == "ok"
    oracle = [finding for finding in findings if finding.what == "oracle"]
    assert len(oracle) == len(job.data[0].validation)
    assert made.told.lost_bits is not None
    assert made.told.lost_bits < 0.5


def test_the_same_data_give_the_same_file(made: Plan, cubes: Path, folder: Path) -> None:
    again = plan(PlanSpec(raw=f"{cubes}/raw", labels=f"{cubes}/labels"), MACHINE, folder / "a.yaml")
    assert again.text() == made.text()
    assert again.to_dict() == made.to_dict()


def test_held_out_boxes_are_apart_and_training_has_room(made: Plan) -> None:
    job = neurons_of(made)
    stack = open_stack(job.data[0])  # refuses boxes that meet, leave the raw or come closer than the gap
    boxes = [item.box for item in held_out(job.data)]
    assert len(boxes) >= 2
    assert sum(box.size for box in boxes) < stack.raw.info.box.size / 2


def test_a_file_is_never_overwritten_by_accident(made: Plan, cubes: Path, folder: Path) -> None:
    spec = PlanSpec(raw=f"{cubes}/raw")
    with pytest.raises(InputError, match="already exists"):
        plan_into(spec, folder / "a.yaml", machine=MACHINE)


def test_what_is_told(made: Plan) -> None:
    text = made.told.to_text(list(chosen_rows(made.job)))
    for word in ("found", "chosen", "costs (estimates)", "100.00% of the raw", "next: emloom run"):
        assert word in text


# ---- what is chosen ---------------------------------------------------------------------------------------------


def test_a_gpu_and_a_budget_make_it_larger(cubes: Path, made: Plan) -> None:
    spec = PlanSpec(raw=f"{cubes}/raw", labels=f"{cubes}/labels", budget_minutes=1)
    small, large = neurons_of(plan(spec, MACHINE)), neurons_of(plan(spec, GPU))
    assert small.training.steps < neurons_of(made).training.steps
    assert isinstance(small.network, UNetSpec)
    assert isinstance(large.network, UNetSpec)
    assert large.network.features > small.network.features
    assert large.training.batch_size > small.training.batch_size


def test_sections_are_flat(folder: Path) -> None:
    raw, labels = tissue((16, 192, 192), SECTIONS)
    path = write(folder / "flat.h5", SECTIONS, raw=raw, labels=labels)
    found = plan(PlanSpec(raw=f"{path}/raw", labels=f"{path}/labels"), MACHINE)
    job = neurons_of(found)
    assert job.segmentation.fragments.per_section  # type: ignore[union-attr]
    assert job.evaluation.border_in_plane
    assert job.network == UNetSpec.lean(isotropic=False)
    assert all(box.shape[0] == 16 for box in job.data[0].validation)  # too few sections to be cut
    assert max(-z for z, _, _ in job.objective.neighborhood) * 40 <= 120
    assert job.training.augment.intensity.section_jitter > 0


def test_labels_of_a_part_are_put_on_the_grid_of_the_raw(folder: Path) -> None:
    raw, labels = tissue((64, 150, 150), CUBES)
    path, part = folder / "part.h5", Box((5, 10, 12), (56, 128, 128))
    write(path, CUBES, raw=raw, labels=labels[part.slices()])
    with h5py.File(path, "a") as file:
        file["labels"].attrs["offset"] = tuple(10.0 * n for n in part.start)
    made = plan_into(PlanSpec(raw=f"{path}/raw", labels=f"{path}/labels"), folder / "part.yaml", machine=MACHINE)
    stack = open_stack(neurons_of(made).data[0])
    assert stack.spec.region is not None
    assert stack.spec.region.box == part
    assert np.array_equal(stack.labels.read(part), labels[part.slices()])
    assert stack.mask is not None
    assert stack.mask.read(stack.raw.info.box).sum() == part.size
    for item in held_out([stack.spec]):
        assert part.contains(item.box)
    assert PipelineJob.load(folder / "part.yaml") == made.job


def test_moved_sections_ask_for_alignment_and_lost_ones_for_repair(folder: Path) -> None:
    raw, _ = tissue((20, 160, 160), (10.0, 10.0, 10.0), seed=3)
    raw[7] = np.roll(raw[7], 14, axis=1)
    raw[13] = 0
    path = write(folder / "bad.h5", CUBES, raw=raw)
    found = plan(PlanSpec(raw=f"{path}/raw"), MACHINE)
    assert found.job.qc is not None
    assert found.job.align is not None
    assert found.job.repair is not None
    assert "section 13 blank" in found.notes["repair",]
    assert "7" in found.notes["align",]


# ---- without labels of neurons ----------------------------------------------------------------------------------


def test_without_labels_sections_are_looked_at_and_the_rest_is_shown(cubes: Path) -> None:
    found = plan(PlanSpec(raw=f"{cubes}/raw"), MACHINE)
    assert found.job.neurons is None
    assert found.job.qc is not None
    assert "no labels were given" in found.told.hints[0]
    commented = [line[2:] for line in found.text().splitlines() if line.startswith("# ")]
    block = "\n".join([*commented[commented.index("neurons:") :][:3]])
    whole = "\n".join(line for line in found.text().splitlines() if not line.startswith("#"))
    assert PipelineJob.from_yaml(f"{whole}\n{block}\n").neurons is not None


def test_a_container_with_one_raw_is_enough(folder: Path) -> None:
    raw, labels = tissue((20, 64, 64), CUBES)
    path = folder / "cremi.h5"
    with h5py.File(path, "w") as file:
        for name, array in (("volumes/raw", raw), ("volumes/labels/neuron_ids", labels)):
            file[name] = array
            file[name].attrs["resolution"] = CUBES
    found = plan(PlanSpec(raw=str(path)), MACHINE)
    assert found.job.raw == f"{path}/volumes/raw"
    assert "volumes/labels/neuron_ids may be some" in found.told.hints[0]


def test_a_model_must_fit_and_then_segments(cubes: Path, folder: Path) -> None:
    for size, name in ((CUBES, "fits"), (SECTIONS, "foreign")):
        spec = ModelSpec(
            objective=NeuronsObjective(), network=UNetSpec(features=(4,), factors=()), voxel_size_nm=size
        )
        (folder / name / "train").mkdir(parents=True)
        save(folder / name / "train" / "model.safetensors", spec, build(spec).state_dict(), {})
    (folder / "fits" / "evaluate").mkdir()
    (folder / "fits" / "evaluate" / "scores.json").write_text('{"threshold": 0.62}')
    model = folder / "fits" / "train" / "model.safetensors"
    found = plan(PlanSpec(raw=f"{cubes}/raw", labels=f"{cubes}/labels", model=str(model)), MACHINE)
    assert found.job.neurons is not None
    assert found.job.neurons.source == TrainedModel(model=str(model))
    assert found.job.neurons.threshold == 0.62
    assert found.job.truth is not None  # labels are for scoring
    assert PipelineJob.from_yaml(found.text()) == found.job
    other = PlanSpec(raw=f"{cubes}/raw", model=str(folder / "foreign" / "train" / "model.safetensors"))
    with pytest.raises(InputError, match="resample the volume or train a model"):
        plan(other, MACHINE)


# ---- synapses ---------------------------------------------------------------------------------------------------


def test_clefts_and_partners(cubes: Path, folder: Path) -> None:
    rng = np.random.default_rng(0)
    clefts = np.zeros((56, 128, 128), np.uint32)
    points = rng.integers((4, 4, 4), (50, 120, 120), (60, 3))
    for number, (z, y, x) in enumerate(points, start=1):
        clefts[z : z + 3, y : y + 4, x : x + 4] = number
    path = write(folder / "clefts.h5", CUBES, clefts=clefts)
    spec = PlanSpec(raw=f"{cubes}/raw", labels=f"{cubes}/labels", synapses=f"{path}/clefts")
    found = plan(spec, MACHINE)
    assert found.job.synapses is not None
    assert isinstance(found.job.synapses.source, TrainedHere)
    assert isinstance(found.job.synapses.source.job, CleftsJob)
    assert PipelineJob.from_yaml(found.text()) == found.job
    ids, nm = np.arange(1, len(points) + 1), points * 10.0 + 5.0
    none = np.zeros(len(ids), np.uint64)
    table = SynapseTable(ids, ids, nm, nm + 40.0, none, none, none.astype(np.int64), np.ones(len(ids), np.float32))
    write_synapse_table(folder / "synapses.parquet", table, {}, overwrite=False)
    found = plan(spec.model_copy(update={"synapses": str(folder / "synapses.parquet")}), MACHINE)
    assert found.job.synapses is not None
    assert isinstance(found.job.synapses.source, TrainedHere)
    assert isinstance(found.job.synapses.source.job, PartnersJob)
    assert PipelineJob.from_yaml(found.text()) == found.job


# ---- bad input --------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named_with_the_way_out(cubes: Path, folder: Path) -> None:
    raw, labels = tissue((20, 64, 64), CUBES)
    nameless = write(folder / "nameless.h5", None, raw=raw)
    with pytest.raises(InputError, match="--voxel-size"):
        plan(PlanSpec(raw=f"{nameless}/raw"), MACHINE)
    blank = write(folder / "blank.h5", CUBES, raw=np.zeros((8, 40, 40), np.uint8))
    with pytest.raises(InputError, match="there is nothing"):
        plan(PlanSpec(raw=f"{blank}/raw"), MACHINE)
    other = write(folder / "other.h5", (20.0, 20.0, 20.0), labels=labels)
    with pytest.raises(InputError, match="resample"):
        plan(PlanSpec(raw=f"{cubes}/raw", labels=f"{other}/labels"), MACHINE)
    small = write(folder / "small.h5", CUBES, raw=raw, labels=labels)
    with pytest.raises(InputError, match="too small"):
        plan(PlanSpec(raw=f"{small}/raw", labels=f"{small}/labels"), MACHINE)


# ---- real data --------------------------------------------------------------------------------------------------

REAL = {
    "fib25": ("fib25/trvol2_250.h5/volumes/raw", "fib25/trvol2_250.h5/volumes/labels/neuron_ids", True),
    "snemi3d": (
        "snemi3d/crop512_z00-29.h5/volumes/raw",
        "snemi3d/crop512_z00-29.h5/volumes/labels/neuron_ids",
        True,
    ),
    "isbi": (
        "isbi2012_cardona/train_z00-19.h5/volumes/raw",
        "isbi2012_cardona/train_z00-19.h5/volumes/labels/neuron_ids",
        True,
    ),
    "gala": ("gala_fib/train.h5/raw", "gala_fib/train.h5/neuron_ids", True),
    "golden": ("lsd_golden_fib25/crop.h5/raw", "lsd_golden_fib25/crop.h5/labels", True),
    "vnc": (
        "vnc_sstem/stack1_z00-14.h5/volumes/raw",
        "vnc_sstem/stack1_z00-14.h5/volumes/labels/classes",
        False,
    ),
    "epfl": (
        "epfl_hippocampus/train_z000-019.h5/volumes/raw",
        "epfl_hippocampus/train_z000-019.h5/volumes/labels/PSD",
        False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(REAL))
def test_real_stacks_are_planned(name: str, real_data: Path, tmp_path: Path) -> None:
    raw, labels, dense = REAL[name]
    spec = PlanSpec(raw=f"{real_data}/{raw}", labels=f"{real_data}/{labels}")
    made = plan_into(spec, tmp_path / "job.yaml", machine=MACHINE)
    assert PipelineJob.load(tmp_path / "job.yaml") == made.job
    assert (made.job.neurons is not None) == dense
    if dense:
        open_stack(neurons_of(made).data[0])
        assert made.told.lost_bits is not None
        assert made.told.lost_bits < 1.0
    else:
        assert "semantic" in made.told.hints[0]
