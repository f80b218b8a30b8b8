"""The comparison of pretraining: arms differ in the start alone, and nothing sees what is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.nn.model import build
from emloom.nn.train import crop_shape
from emloom.recipes.pretraining import SCHEMES, Arm, Net, Scheme, Where, differences, full, multiply_adds, quick
from emloom.tasks.data import open_stack
from emloom.tasks.reconstructionjob import ReconstructionJob, open_raw_stack, require_unseen
from emloom.tasks.semantic import SemanticJob

ARMS: list[tuple[Net, Scheme]] = [(net, scheme) for net in SCHEMES for scheme in SCHEMES[net]]


@pytest.fixture(scope="module")
def where(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Where:
    return Where(tmp_path_factory.mktemp("pretraining"), str(real_data))


def seen_by(job: ReconstructionJob | SemanticJob) -> Box:
    """What the inputs of all training crops can hold."""
    crop = crop_shape(build(job.model((5.0, 5.0, 5.0))), job.training.crop_shape_vox)
    (stack,) = job.data
    assert stack.region is not None
    return stack.region.box.grow(crop.margin)


@pytest.mark.real_data
@pytest.mark.parametrize(("net", "scheme"), ARMS)
def test_arms_differ_in_the_start_alone(net: Net, scheme: Scheme, where: Where) -> None:
    arm, plain = quick(net, scheme, 1, where), quick(net, "none", 1, where)
    assert plain.training.training.start is None
    factor = 2 if scheme == "longer" else 1
    assert arm.training.training.steps == factor * plain.training.training.steps
    free = {"start": None, "steps": 600, "validate_every": 150}
    bare = arm.training.model_copy(
        update={"name": plain.name, "training": arm.training.training.model_copy(update=free)}
    )
    assert bare == plain.training
    if arm.pretraining is None:
        assert scheme in ("none", "longer")
        return
    start = arm.training.training.start
    assert start is not None
    assert start.model == str(where.folder / "jobs" / f"{arm.name}_raw" / "train" / "model.safetensors")
    assert arm.pretraining.training.seed == 1
    assert arm.pretraining.training.steps == plain.training.training.steps


@pytest.mark.real_data
@pytest.mark.parametrize(("net", "scheme"), [arm for arm in ARMS if arm[1] not in ("none", "longer")])
def test_pretraining_never_sees_what_is_scored(net: Net, scheme: Scheme, where: Where) -> None:
    for recipe in (quick, full):
        arm = recipe(net, scheme, 0, where)
        assert arm.pretraining is not None
        (raw,), (labelled,) = arm.pretraining.data, arm.training.data
        assert (raw.test, raw.region, raw.gap_nm) == (labelled.test, labelled.region, labelled.gap_nm)
        crop = crop_shape(build(arm.pretraining.model((5.0, 5.0, 5.0))), arm.pretraining.training.crop_shape_vox)
        stack = open_raw_stack(raw)
        require_unseen(stack, crop)
        for job in (arm.pretraining, arm.training):
            assert not any(seen_by(job).meets(box) for box in labelled.boxes("test"))


@pytest.mark.real_data
def test_labels_can_be_others(where: Where) -> None:
    arm = quick("voxel", "centre", 0, where)
    labels = arm.training.data[0].labels
    six = Where(where.folder, where.data, 20, labels, ("a", "b", "c", "d", "e", "f"))
    job = quick("voxel", "centre", 0, six).training
    assert job.objective.names == six.classes
    assert job.data[0].labels == labels
    stack = open_stack(job.data[0])
    assert stack.mask is not None
    region = job.data[0].region
    assert region is not None
    assert float((stack.mask.read(region.box) != 0).mean()) == pytest.approx(0.2, abs=0.005)


@pytest.mark.real_data
def test_the_extra_computing_is_stated(where: Where) -> None:
    def cost(arm: Arm) -> tuple[int, int]:
        return 0 if arm.pretraining is None else multiply_adds(arm.pretraining), multiply_adds(arm.training)

    costs = {(net, scheme): cost(quick(net, scheme, 0, where)) for net, scheme in ARMS}
    for net in SCHEMES:
        alone = costs[net, "none"][1]
        assert costs[net, "longer"] == (0, 2 * alone)
        assert costs[net, "none"] == (0, alone)
    # One channel less or more in the head is all that differs.
    assert costs["voxel", "centre"][0] == pytest.approx(costs["voxel", "centre"][1], rel=1e-4)
    assert costs["unet", "blocks"][0] == pytest.approx(costs["unet", "blocks"][1], rel=0.01)
    assert costs["voxel", "vae"] == costs["voxel", "masked_vae"]
    assert costs["voxel", "vae"][0] > costs["voxel", "centre"][0]
    # 9.00 million per patch, the published figure.
    assert costs["voxel", "none"][1] / 600 / 64 == pytest.approx(9.0e6, rel=0.02)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'unet' is not pretrained by 'vae': choose one of none, longer, blocks"):
        quick("unet", "vae", 0, Where(tmp_path))
    with pytest.raises(InputError, match=r"no seed of 'centre' \(1\)"):
        differences({("none", 0): 0.5, ("centre", 1): 0.6})


def test_differences_are_between_equal_seeds() -> None:
    # Seeds differ by 0.1 to 0.3, a scheme gains 0.02 with each: paired, that is sure; unpaired it would not be.
    base = {0: 0.3, 1: 0.4, 2: 0.6}
    scores: dict[tuple[Scheme, int], float] = {("none", seed): value for seed, value in base.items()}
    scores |= {("centre", seed): value + 0.02 + 0.001 * seed for seed, value in base.items()}
    means = differences(scores)
    mean, gain = means["centre"]
    assert mean.value == pytest.approx(np.mean(list(base.values())) + 0.021)
    assert mean.low < means["none"][0].value < mean.high
    assert gain.value == pytest.approx(0.021)
    assert gain.low > 0.018
    assert means["none"][1].value == 0
