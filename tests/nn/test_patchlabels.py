"""Labelled patches as training sees them: painted around their centres, drawn by class, turned into targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.patches import PatchLabels
from emloom.io.volume import ArrayVolume
from emloom.nn.augment import AugmentSpec
from emloom.nn.crops import TrainingVolume
from emloom.nn.draw import Frame, Streams, draw_plan
from emloom.nn.objectives.artifacts import ARTIFACTS, ArtifactsObjective, PatchClass
from emloom.nn.objectives.base import Rendered, Validated
from emloom.nn.patchsampling import PatchSampler, sampler_of
from emloom.nn.patchvolume import MOST_CLASSES, PatchVolume, codes_of_labels, labels_of_codes
from emloom.nn.planting import PlantSpec
from emloom.nn.strategies import Patches, Uniform

GRID = Grid((40.0, 4.0, 4.0), (0.0, 0.0, 0.0))
PATCH: Vec = (1, 6, 8)


def raw_of(*shape: int) -> ArrayVolume:
    return ArrayVolume(np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8), GRID, kind="raw")


def labels_of(
    starts: object, said: object, classes: tuple[str, ...] = ("artifact",), shape: Vec = PATCH
) -> PatchLabels:
    array = np.array(said, np.int8).reshape(-1, len(classes))
    return PatchLabels(GRID, shape, np.array(starts, np.int64).reshape(-1, 3), classes, array)


# ---- codes ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=MOST_CLASSES))
def test_a_code_holds_all_labels(said: list[int]) -> None:
    code = codes_of_labels(np.array([said], np.int8))
    assert code.dtype == np.uint16
    assert labels_of_codes(int(code[0]), len(said)).tolist() == said
    assert (code[0] == 0) == all(each == -1 for each in said)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_voxel_has_the_code_of_the_nearest_patch(data: st.DataObject) -> None:
    raw = raw_of(3, 20, 24)
    n = data.draw(st.integers(0, 6))
    starts = data.draw(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 14), st.integers(0, 16)),
            min_size=n,
            max_size=n,
            unique=True,
        )
    )
    patches = labels_of(starts, [data.draw(st.integers(0, 1)) for _ in range(n)])
    jitter = tuple(data.draw(st.integers(0, most)) for most in (1, 4, 4))
    volume = PatchVolume(patches, raw.info, (jitter[0], jitter[1], jitter[2]))
    whole = volume.read(raw.info.box)
    codes = codes_of_labels(patches.labels)
    for z, y, x in np.ndindex(*raw.info.shape):
        apart = np.abs(patches.centres - np.array([z, y, x]))
        reached = (apart <= np.array(jitter)).all(axis=1)
        away = np.where(reached, apart.max(axis=1, initial=0), 10**6)
        expected = codes[int(np.argmin(away))] if reached.any() else 0
        assert whole[z, y, x] == expected
    box = Box.of((0, 3, 5), (2, 17, 20))
    assert np.array_equal(volume.read(box), whole[box.slices()])


@pytest.mark.parametrize(
    ("patches", "says"),
    [
        (labels_of([[0, 15, 0]], [1]), "leaves"),
        (labels_of([[0, -1, 0]], [1]), "leaves"),
        (
            PatchLabels(
                GRID,
                PATCH,
                np.zeros((2, 3), np.int64),
                ("a",),
                np.ones((2, 1), np.int8),
                ("A", "B"),
                np.array([0, 1]),
            ),
            "consensus",
        ),
        (labels_of([[0, 0, 0]], [[1] * 11], tuple("abcdefghijk")), "11 classes"),
        (
            PatchLabels(
                Grid((40, 5, 5), (0, 0, 0)), PATCH, np.zeros((1, 3), np.int64), ("a",), np.ones((1, 1), np.int8)
            ),
            "give the labels of this volume",
        ),
    ],
)
def test_labels_of_another_volume_are_refused(patches: PatchLabels, says: str) -> None:
    with pytest.raises(InputError, match=says):
        PatchVolume(patches, raw_of(3, 20, 24).info)


# ---- sampling -------------------------------------------------------------------------------------------------


def volume_of(patches: PatchLabels, jitter: Vec = (0, 2, 2), **more: object) -> TrainingVolume:
    raw = raw_of(3, 40, 60)
    return TrainingVolume(raw, PatchVolume(patches, raw.info, jitter), raw.info.box, **more)  # type: ignore[arg-type]


MANY = labels_of(
    [[z, y, x] for z in range(3) for y in (2, 20) for x in (3, 20, 37)], [int(k % 5 == 0) for k in range(18)]
)


def draws(sampler: PatchSampler, count: int, at: float = 0.0) -> list[tuple[str, Vec]]:
    found = [sampler.draw(np.random.default_rng([7, k]), at) for k in range(count)]
    return [(draw.reason, draw.start) for draw in found]


def test_classes_are_drawn_by_their_shares_beside_where_they_were_labelled() -> None:
    spec = Patches(positive=0.3, jitter_vox=(0, 2, 2))
    sampler = sampler_of([volume_of(MANY)], spec, PATCH)
    assert isinstance(sampler, PatchSampler)
    found = draws(sampler, 2000)
    share = np.mean([reason == "yes" for reason, _ in found])
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)
    visited = set()
    for reason, start in found:
        near = np.flatnonzero((np.abs(MANY.starts - np.array(start)) <= np.array([0, 2, 2])).all(axis=1))
        assert [MANY.labels[row, 0] for row in near] == [1 if reason == "yes" else 0]
        visited.add((int(near[0]), start))
    assert {row for row, _ in visited} == set(range(len(MANY)))
    assert len({start for row, start in visited if row == 0}) > 15  # wiggled: of 25 places


def test_the_share_goes_where_the_schedule_says() -> None:
    sampler = sampler_of(
        [volume_of(MANY)], Patches(positive=0.9, positive_at_end=0.1, jitter_vox=(0, 0, 0)), PATCH
    )
    assert isinstance(sampler, PatchSampler)
    for at, expected in ((0.0, 0.9), (0.5, 0.5), (1.0, 0.1)):
        share = np.mean([reason == "yes" for reason, _ in draws(sampler, 1000, at)])
        assert abs(share - expected) < 0.07


def test_no_patch_near_a_held_out_box_is_drawn() -> None:
    held = Box.of((0, 0, 15), (3, 40, 60))
    sampler = sampler_of([volume_of(MANY, held_out=(held,))], Patches(jitter_vox=(0, 2, 2)), PATCH)
    assert isinstance(sampler, PatchSampler)
    for _, start in draws(sampler, 300):
        assert not Box(start, PATCH).meets(held)
        assert start[2] <= 15 - PATCH[2]


def test_a_label_is_not_taken_to_where_another_one_holds() -> None:
    beside = labels_of([[0, 10, 10], [0, 10, 14]], [1, 0])
    sampler = sampler_of([volume_of(beside, (0, 4, 4))], Patches(jitter_vox=(0, 4, 4)), PATCH)
    assert isinstance(sampler, PatchSampler)
    for reason, start in draws(sampler, 300):
        far = np.abs(beside.starts - np.array(start)).max(axis=1)
        assert far[0 if reason == "yes" else 1] <= far[1 if reason == "yes" else 0]


def test_a_volume_without_labelled_patches_says_so() -> None:
    raw = raw_of(3, 40, 60)
    painted = ArrayVolume(np.zeros(raw.info.shape, np.uint8), GRID, kind="labels")
    with pytest.raises(InputError, match="no labelled patches"):
        sampler_of([TrainingVolume(raw, painted, raw.info.box)], Patches(), PATCH)
    with pytest.raises(InputError, match=r"labels patches of \(1, 6, 8\) voxels"):
        sampler_of([volume_of(MANY)], Patches(), (1, 8, 8))
    clean = labels_of([[0, 2, 3]], [0])
    with pytest.raises(InputError, match="no patch says 'yes' of 'artifact'"):
        sampler_of([volume_of(clean)], Patches(), PATCH)
    assert type(sampler_of([volume_of(MANY)], Uniform(), PATCH)) is not PatchSampler


def test_patches_are_seen_in_all_eight_orientations() -> None:
    frame = Frame((1, 6, 6), (1, 0, 0), GRID.voxel_size_nm)
    seen = set()
    for index in range(400):
        plan = draw_plan(AugmentSpec(noise=0.0), Streams(0, 0, index), 0, (0, 0, 0), frame)
        seen.add((plan.flips[1:], plan.order))
    assert len(seen) == 8  # four mirrors, each transposed or not: true mirrors, not only rotations
    picture = np.arange(36).reshape(1, 6, 6)
    shown = {picture.transpose(order)[:, :: -1 if y else 1, :: -1 if x else 1].tobytes() for (y, x), order in seen}
    assert len(shown) == 8


# ---- targets --------------------------------------------------------------------------------------------------


PAINTED = ArtifactsObjective(
    classes=(PatchClass(name="artifact", ids=(3, 4)), PatchClass(name="myelin", ids=(9,))), yes_share=0.1
)


def painted(**of: int) -> NDArray[np.uint8]:
    out = np.zeros(100, np.uint8)
    first = 0
    for name, count in of.items():
        out[first : first + count] = int(name.removeprefix("id"))
        first += count
    return out.reshape(1, 10, 10)


KNOWN = np.ones((1, 10, 10), np.uint8)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (painted(), [0, 0]),
        (painted(id3=10), [1, 0]),
        (painted(id3=5, id4=5), [1, 0]),
        (painted(id3=9), [-1, 0]),
        (painted(id3=1, id9=50), [-1, 1]),
        (painted(id7=100), [0, 0]),
    ],
)
def test_painted_voxels_say_yes_no_or_unsure(labels: NDArray[np.uint8], said: list[int]) -> None:
    assert PAINTED.said_of(labels, KNOWN).tolist() == said


def test_what_is_not_known_is_not_clean() -> None:
    known = KNOWN.copy()
    known[0, 0, 0] = 0
    assert PAINTED.said_of(painted(), known).tolist() == [-1, -1]
    assert PAINTED.said_of(painted(id3=50), known).tolist() == [1, -1]
    presumed = PAINTED.model_copy(update={"presume_clean": True})
    assert presumed.said_of(painted(), known).tolist() == [0, -1]
    assert presumed.said_of(painted(id3=5), KNOWN).tolist() == [-1, 0]  # unsure stays unsure


def test_a_patch_has_the_label_of_its_centre() -> None:
    objective = ArtifactsObjective(classes=(PatchClass(name="a"), PatchClass(name="b")), labels="patches")
    codes = np.zeros((1, 6, 8), np.uint16)
    codes[0, 3, 4] = codes_of_labels(np.array([[1, 0]], np.int8))[0]
    assert objective.said_of(codes, np.ones(codes.shape, np.uint8)).tolist() == [1, 0]
    assert objective.said_of(codes, np.zeros(codes.shape, np.uint8)).tolist() == [-1, -1]


PATCH_140: Vec = (1, 140, 140)


def rendered(raw: NDArray[np.float32], seed: int = 0) -> Rendered:
    nothing = np.zeros(PATCH_140, np.uint8)
    return Rendered(raw, raw, nothing, nothing, Box.whole(PATCH_140), seed)


PLANTING = ArtifactsObjective(
    presume_clean=True, plant=PlantSpec(probability=0.7, neighbours=0.5, noise=0.0, shift_nm=(8.0, 60.0))
)
AROUND = PLANTING.surround_vox(GRID)[1]  # what a shift may bring in
TISSUE = np.random.default_rng(5).normal(0, 0.25, (3, 140 + 2 * AROUND, 140 + 2 * AROUND)).astype(np.float32)


def test_planted_artifacts_are_the_answer_and_those_of_neighbours_are_not() -> None:
    said = {-1: 0, 0: 0, 1: 0}
    for seed in range(120):
        made = rendered(TISSUE.copy(), seed)
        raw, targets = PLANTING.sample(made, GRID)
        target, known = targets[ARTIFACTS]
        assert raw.shape == (1, 3, 140, 140)
        assert target.shape == known.shape == (1, 1, 1, 1)
        patch = TISSUE[:, AROUND:-AROUND, AROUND:-AROUND]
        changed = (raw[0].numpy() != patch).any(axis=(1, 2))
        if target.item() == 1:
            assert changed[1]
        if not changed[1]:
            assert (target.item(), known.item()) == (0, 1)
        said[int(target.item()) if known.item() else -1] += 1
        again, _ = PLANTING.sample(made, GRID)
        assert torch.equal(raw, again)
        assert np.array_equal(made.raw, TISSUE)  # what was given is left alone
    assert said[1] > 30
    assert said[0] > 40


def test_the_loss_is_that_of_what_is_known() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]]).reshape(2, 2, 1, 1, 1)
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 2, 1, 1, 1)
    known = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).reshape(2, 2, 1, 1, 1)
    total, parts = PAINTED.loss({ARTIFACTS: logits}, {ARTIFACTS: (target, known)})
    first = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(0.5))) / 2
    second = np.log1p(np.exp(-1.0))
    assert parts["artifact"].item() == pytest.approx(first, rel=1e-6)
    assert parts["myelin"].item() == pytest.approx(second, rel=1e-6)
    assert total.item() == pytest.approx(first + 0.3 * second, rel=1e-6)
    nothing, _ = PAINTED.loss({ARTIFACTS: logits}, {ARTIFACTS: (target, 0 * known)})
    assert nothing.item() == 0


def test_pictures_are_framed_by_truth_and_answer() -> None:
    raw, targets = PLANTING.sample(rendered(TISSUE.copy(), 3), GRID)
    batch = {name: (t[None], w[None]) for name, (t, w) in targets.items()}
    seen = Validated(raw[None], {ARTIFACTS: torch.full((1, 1, 1, 1, 1), 4.0)}, batch)
    (picture,) = PLANTING.look(torch.nn.Identity(), [seen, seen]).values()
    assert picture.shape == (3, 1, 156, 312)
    assert picture[:, 0, 6, 50].tolist() == pytest.approx([0.9, 0.1, 0.1])  # answered yes


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"classes": (PatchClass(name="a", ids=(1,)), PatchClass(name="a", ids=(2,)))}, "share a name"),
        ({"classes": (PatchClass(name="a", ids=(1,)),), "no_share": 0.5}, "would be both"),
        ({}, "names no label ids"),
    ],
)
def test_an_objective_that_cannot_be_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ArtifactsObjective(**given)  # type: ignore[arg-type]
