"""Crops are drawn by the law that the documentation states, within bounds, and the same in every process."""

from __future__ import annotations

import logging
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.cremi import read_annotations, write_annotations
from emloom.io.open import open_volume
from emloom.io.volume import ArrayVolume, cached
from emloom.nn.crops import TrainingVolume
from emloom.nn.sampling import CropSampler
from emloom.nn.strategies import Balanced, Foreground, Rejection, SamplingSpec, Uniform
from tests.nn.lots import GRID, Counting, Virtual, foreground_ids, law, require_law, rng_of, volume_of

CROP = (3, 4, 5)
SPECS: dict[str, SamplingSpec] = {
    "uniform": Uniform(),
    "object": Foreground(probability=0.7),
    "voxel": Foreground(probability=1.0, choose="voxel"),
    "some ids": Foreground(probability=0.5, ids=(2, 9)),
    "sites": Foreground(around="sites", probability=0.8),
    "balanced": Balanced(),
    "shares": Balanced(classes=(2, 9, 0), shares=(0.5, 0.2, 0.1)),
    "centred": Balanced(place="centre"),
    "centred objects": Foreground(probability=0.6, place="centre"),
    "rejection": Rejection(least_vox=6, tolerate=0.2),
    "strict rejection": Rejection(least_share=0.15, least_vox=0, tolerate=0.0),
}


def tissue(seed: int = 0, shape: Vec = (8, 9, 11), **more: Any) -> TrainingVolume:
    """Three objects of very different size, one of them in a corner; two held-out boxes."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    labels[2:6, 3:8, 4:9] = 2
    labels[0, 0, 0] = 9
    labels[-1, -2:, -1] = 9
    labels[rng.random(shape) < 0.05] = 4
    held_out = (Box((3, 0, 0), (2, 3, 4)), Box((0, 7, 8), (2, 5, 9)))
    sites = np.array([GRID.centre(v) for v in [(0, 0, 0), (4, 5, 5), (7, 8, 10), (4, 1, 1), (99, 0, 0)]])
    return volume_of(labels, held_out=held_out, sites_nm=sites, **more)


def masked(seed: int = 0) -> TrainingVolume:
    rng = np.random.default_rng(seed)
    shape = (8, 9, 11)
    mask = np.ones(shape, np.uint8)
    mask[:, :, 8:] = 0
    avoid = (rng.random(shape) < 0.08).astype(np.uint8)
    avoid[:3, :4, :5] = 0  # object 9 has one crop only
    return tissue(seed, shape, mask=mask, avoid=avoid)


@pytest.mark.parametrize("name", SPECS)
def test_draws_follow_the_exact_law(name: str) -> None:
    sampler = CropSampler([tissue()], SPECS[name], CROP)
    require_law(sampler, law(sampler))


@pytest.mark.parametrize("name", SPECS)
def test_with_masks_the_law_is_the_same_given_that_a_crop_is_suitable(name: str) -> None:
    sampler = CropSampler([masked()], SPECS[name], CROP)
    require_law(sampler, law(sampler))


@pytest.mark.parametrize("name", SPECS)
def test_volumes_are_drawn_by_weight_among_those_that_have_what_is_wanted(name: str) -> None:
    poor = volume_of(np.full((5, 6, 6), 2, np.uint16), weight=3.0, sites_nm=np.array([GRID.centre((2, 2, 2))]))
    never = volume_of(np.ones((5, 6, 6), np.uint16), weight=0.0)
    sampler = CropSampler([tissue(), poor, never], SPECS[name], CROP)
    expected = law(sampler)
    require_law(sampler, expected)
    share = sum(p for (source, _), p in expected.items() if source == 1)
    if name in ("uniform", "object", "rejection"):
        assert share == pytest.approx(0.75)
    assert not any(source == 2 for source, _ in expected)


@given(
    st.integers(0, 10_000),
    st.sampled_from(sorted(SPECS)),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_a_crop_lies_in_the_region_off_what_is_held_out_and_obeys_every_rule(
    seed: int, name: str, crop: Vec, with_masks: bool
) -> None:
    volume = masked(seed) if with_masks else tissue(seed)
    volume = replace(volume, region=Box((0, 0, 0), (7, 9, 10)))
    try:
        sampler = CropSampler([volume], SPECS[name], crop)
    except InputError:
        return
    for index in range(25):
        draw = sampler.draw(rng_of(seed, 0, index))
        box = Box(draw.start, crop)
        assert volume.allows(box)
        assert 1 <= draw.tries <= sampler.spec.tries
        if volume.mask is not None and volume.avoid is not None:
            assert (volume.mask.read(box) != 0).mean() >= 0.5
            assert (volume.avoid.read(box) != 0).mean() <= 0.1
        if draw.reason == "suitable":
            least = 6 if name == "rejection" else 0.15 * box.size
            assert (foreground_ids(volume, None)[box.slices()] != 0).sum() >= least
        if draw.reason.startswith("class"):
            assert int(draw.reason.split()[1]) in volume.labels.read(box)


@pytest.mark.parametrize("name", SPECS)
def test_a_pickled_sampler_draws_the_same(name: str) -> None:
    sampler = CropSampler([masked()], SPECS[name], CROP)
    twin = pickle.loads(pickle.dumps(sampler))
    again = CropSampler([masked()], SPECS[name], CROP)
    for index in reversed(range(30)):
        draw = sampler.draw(rng_of(7, 0, index))
        assert twin.draw(rng_of(7, 0, index)) == draw
        assert again.draw(rng_of(7, 0, index)) == draw


def test_a_sampler_is_cheap_to_send_and_draws_by_reading_little() -> None:
    shape, crop = (200, 1000, 1000), (24, 128, 128)
    labels, raw = Counting(Virtual(shape)), Counting(Virtual(shape))
    volume = TrainingVolume(raw, labels, Box.whole(shape), (Box((50, 50, 50), (100, 100, 100)),))
    sampler = CropSampler([volume], Foreground(), crop)
    assert len(pickle.dumps(sampler)) < 300_000
    assert labels.voxels <= np.prod(shape)
    labels.reads = labels.voxels = 0
    for index in range(40):
        sampler.draw(rng_of(0, 0, index))
    assert labels.reads <= 40
    assert labels.voxels <= 40 * 32**3
    assert raw.reads == 0


def test_uniform_draws_read_no_labels() -> None:
    labels = Counting(ArrayVolume(np.ones((30, 40, 50), np.uint8), GRID))
    sampler = CropSampler([replace(tissue(shape=(30, 40, 50)), labels=labels)], Uniform(), CROP)
    for index in range(20):
        sampler.draw(rng_of(0, 0, index))
    assert labels.reads == 0


def test_rejection_stops_and_then_uses_a_crop_known_to_be_good() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((40, 40, 40), np.uint8)
    for corner in rng.integers(0, 38, (40, 3)):  # dust everywhere, so that no part can be left out
        labels[tuple(corner)] = 1
    labels[20:22, 20:22, 20:22] = 1
    counting = Counting(ArrayVolume(labels, GRID))
    volume = replace(volume_of(labels), labels=counting)
    spec = Rejection(least_vox=8, tolerate=1e-9, tries=3)
    sampler = CropSampler([volume], spec, (2, 2, 2))
    counting.reads = 0
    draws = [sampler.draw(rng_of(0, 0, index)) for index in range(50)]
    assert counting.reads <= 50 * 3
    assert {d.reason for d in draws} <= {"suitable", "fallback"}
    assert any(d.reason == "fallback" and d.tries == 3 for d in draws)
    assert {d.start for d in draws} == {(20, 20, 20)}


def test_tolerated_crops_are_as_frequent_as_stated() -> None:
    volume = tissue()
    spec = Rejection(least_vox=12, tolerate=0.05, tries=10_000)
    sampler = CropSampler([volume], spec, CROP)
    fg = foreground_ids(volume, None) != 0
    starts = sampler.allowed(0)
    good = np.mean([fg[Box(starts.at(i), CROP).slices()].sum() >= 12 for i in range(starts.count)])
    expected = 0.05 * (1 - good) / (good + 0.05 * (1 - good))
    draws = [sampler.draw(rng_of(1, 0, i)) for i in range(4000)]
    share = np.mean([d.reason == "tolerated" for d in draws])
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000)
    mean_tries = 1 / (good + 0.05 * (1 - good))
    assert np.mean([d.tries for d in draws]) == pytest.approx(mean_tries, rel=0.1)


def test_sites_of_a_cremi_file_are_in_their_crops(tmp_path: Path) -> None:
    voxels = [(1, 1, 1), (20, 30, 40), (39, 39, 49), (5, 35, 2)]
    sites = Annotations(
        np.arange(4, dtype=np.uint64),
        (PRE, POST, PRE, POST),
        np.array([GRID.centre(v) for v in voxels]),  # type: ignore[arg-type]
    )
    write_annotations(tmp_path / "sites.h5", sites, offset_nm=(40.0, 400.0, 4000.0))
    located = read_annotations(tmp_path / "sites.h5").locations_nm
    volume = volume_of(np.zeros((40, 40, 50), np.uint8), sites_nm=located)
    sampler = CropSampler([volume], Foreground(around="sites", probability=1.0), CROP)
    held = [
        [
            i
            for i, v in enumerate(voxels)
            if Box(sampler.draw(rng_of(0, 0, n)).start, CROP).contains(Box(v, (1, 1, 1)))
        ]
        for n in range(200)
    ]
    assert all(len(found) == 1 for found in held)
    assert {found[0] for found in held} == {0, 1, 2, 3}


def test_a_table_that_must_be_coarse_and_voxel_reads_give_the_same_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emloom.nn.voxelindex._CELL", 3)
    monkeypatch.setattr("emloom.nn.voxelindex._READ", 6)
    sampler = CropSampler([masked()], SPECS["object"], CROP)
    require_law(sampler, law(sampler))


def test_the_job_files_of_the_page_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text(encoding="utf-8")
    kinds = []
    for text in re.findall(r"^```yaml\n(.*?)^```", page, re.S | re.M):
        block = yaml.safe_load(text)
        spec = block["training"]["sampling"] if "training" in block else block
        kinds.append(TypeAdapter(SamplingSpec).validate_python(spec).kind)
    assert kinds == ["foreground", "uniform", "foreground", "balanced", "rejection", "patches"]


# ---- what cannot be is said before training -----------------------------------------------------------------


def error_of(volumes: list[TrainingVolume], spec: SamplingSpec, crop: Vec = CROP) -> str:
    with pytest.raises(InputError) as problem:
        CropSampler(volumes, spec, crop)
    return str(problem.value)


ONES = np.ones((8, 9, 11), np.uint16)


def test_a_crop_that_fits_nowhere() -> None:
    assert "larger than the training region" in error_of([volume_of(ONES)], Uniform(), (9, 1, 1))
    wall = volume_of(ONES, held_out=(Box((3, 0, 0), (2, 9, 11)),))
    assert "avoids the held-out boxes" in error_of([wall], Uniform(), (5, 4, 4))
    assert "leaves raw" in error_of([volume_of(ONES, region=Box((0, 0, 0), (8, 9, 12)))], Uniform())
    assert "below 1 voxel" in error_of([volume_of(ONES)], Uniform(), (0, 1, 1))


@pytest.mark.parametrize(
    "spec", [Uniform(), Foreground(), Balanced(), Rejection(least_vox=1)], ids=lambda s: s.kind
)
def test_a_mask_that_excludes_everything(spec: SamplingSpec) -> None:
    message = error_of([volume_of(ONES, mask=np.zeros(ONES.shape, np.uint8))], spec)
    assert "min_known" in message or "mask" in message or "known voxel" in message
    message = error_of([volume_of(ONES, avoid=ONES)], spec)
    assert "max_avoided" in message


def test_a_class_or_foreground_that_does_not_exist() -> None:
    zeros = np.zeros_like(ONES)
    assert "class 3 has no known voxel" in error_of([volume_of(ONES)], Balanced(classes=(1, 3)))
    assert "no foreground voxel can lie" in error_of([volume_of(zeros)], Foreground())
    assert "no site can lie" in error_of([volume_of(ONES)], Foreground(around="sites"))
    assert "holds at least 2 foreground" in error_of([volume_of(zeros)], Rejection(least_vox=2))
    assert "more than the 60 voxels of a crop" in error_of([volume_of(ONES)], Rejection())
    hidden = zeros.copy()
    hidden[4, 4, 4] = 1  # lies where no crop may go
    volume = volume_of(hidden, held_out=(Box((4, 4, 4), (1, 1, 1)),))
    assert "no foreground voxel can lie" in error_of([volume], Foreground(), (2, 2, 2))
    assert "no crop" in error_of([volume], Rejection(least_vox=1), (2, 2, 2))


def test_instance_labels_are_no_classes() -> None:
    labels = np.arange(1000, dtype=np.uint32).reshape(10, 10, 10)
    assert "use `foreground` for instance labels" in error_of([volume_of(labels)], Balanced())


def test_weights_that_are_none() -> None:
    for weights in ((-1.0, 1.0), (0.0, 0.0), (float("nan"), 1.0)):
        assert "weights of volumes" in error_of([volume_of(ONES, weight=w) for w in weights], Uniform())


def test_sites_that_are_not_numbers() -> None:
    volume = volume_of(ONES, sites_nm=np.full((1, 3), np.nan))
    assert "not finite" in error_of([volume], Foreground(around="sites"))


def test_volumes_without_a_suitable_crop_of_a_class_are_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    avoid = np.zeros_like(ONES)
    avoid[:, :, :5] = 1
    labels = ONES.copy()
    labels[0, 0, 0] = 2
    spoilt, fine = volume_of(labels, avoid=avoid), volume_of(labels)
    with caplog.at_level(logging.WARNING):
        sampler = CropSampler([spoilt, fine], Balanced(classes=(2,)), CROP)
    assert "around class 2" in caplog.text
    assert {sampler.draw(rng_of(0, 0, i)).source for i in range(20)} == {1}
    assert "around a voxel of class 2" in error_of([spoilt], Balanced(classes=(2,)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "foreground", "probability": 1.2}, "less than or equal to 1"),
        ({"kind": "rejection", "tolerate": -0.1}, "greater than or equal to 0"),
        ({"kind": "uniform", "min_known": 2}, "less than or equal to 1"),
        ({"kind": "uniform", "tries": 0}, "greater than 0"),
        ({"kind": "balanced", "classes": [1, 2], "shares": [0.7, 0.4]}, "at most 1"),
        ({"kind": "balanced", "classes": [1, 2], "shares": [1.2, -0.4]}, "at least 0"),
        ({"kind": "balanced", "classes": [1, 2], "shares": [0.7]}, "as many classes"),
        ({"kind": "balanced", "shares": [0.7]}, "as many classes"),
        ({"kind": "balanced", "classes": [1, 1]}, "twice"),
        ({"kind": "foreground", "ids": []}, "at least 1 item"),
        ({"kind": "best"}, "does not match any of the expected tags"),
    ],
)
def test_probabilities_that_are_none(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(SamplingSpec).validate_python(given)


def test_shares_may_sum_to_one_as_floats_do() -> None:
    assert Balanced(classes=(0, 1, 2), shares=(0.1, 0.2, 0.7)).shares == (0.1, 0.2, 0.7)


# ---- real data ----------------------------------------------------------------------------------------------


def opened(path: Path, labels: str, **more: str) -> TrainingVolume:
    raw = cached(open_volume(f"{path}/volumes/raw"))
    others = {k: cached(open_volume(f"{path}/volumes/labels/{name}")) for k, name in more.items()}
    held_out = (Box((0, 0, 0), (raw.info.shape[0], 128, 128)),)
    truth = cached(open_volume(f"{path}/volumes/labels/{labels}"))
    return TrainingVolume(raw, truth, raw.info.box, held_out, **others)  # type: ignore[arg-type]


def drawn_labels(sampler: CropSampler, count: int) -> list[np.ndarray]:
    starts = [sampler.draw(rng_of(0, 0, i)).start for i in range(count)]
    assert all(sampler.volumes[0].allows(Box(s, sampler.crop_shape)) for s in starts)
    return [sampler.volumes[0].labels.read(Box(s, sampler.crop_shape)) for s in starts]


@pytest.mark.real_data
def test_synapses_of_isbi_are_found_and_artefacts_avoided(real_data: Path) -> None:
    path = real_data / "isbi2012_cardona" / "train_z00-19.h5"
    volume = opened(path, "synapse_ids", avoid="noise_ids")
    crop = (6, 64, 64)
    uniform = CropSampler([volume], Uniform(max_avoided=0.0), crop)
    around = CropSampler([volume], Foreground(probability=1.0, max_avoided=0.0), crop)
    few = np.mean([(ids != 0).any() for ids in drawn_labels(uniform, 200)])
    assert few < 0.9
    assert all((ids != 0).any() for ids in drawn_labels(around, 200))
    assert volume.avoid is not None
    for index in range(100):
        assert not volume.avoid.read(Box(around.draw(rng_of(1, 0, index)).start, crop)).any()
    least = int(0.02 * np.prod(crop))
    strict = CropSampler([volume], Rejection(least_vox=least, tolerate=0.0), crop)
    assert all((ids != 0).sum() >= least for ids in drawn_labels(strict, 50))


@pytest.mark.real_data
@pytest.mark.parametrize(
    "where", [("snemi3d", "crop512_z00-29.h5"), ("fib25", "trvol2_250.h5")], ids=lambda w: w[0]
)
def test_small_neurons_are_drawn_as_often_as_large_ones(real_data: Path, where: tuple[str, str]) -> None:
    volume = opened(real_data / where[0] / where[1], "neuron_ids")
    ids, sizes = np.unique(volume.labels.read(volume.labels.info.box), return_counts=True)
    small = ids[(ids != 0) & (sizes <= np.median(sizes))]
    crop = (1, 1, 1)  # the crop is the voxel itself
    shares = {}
    for choose in ("object", "voxel"):
        spec = Foreground.from_dict({"probability": 1.0, "choose": choose})
        drawn = np.concatenate([a.ravel() for a in drawn_labels(CropSampler([volume], spec, crop), 400)])
        assert (drawn != 0).all()
        shares[choose] = np.isin(drawn, small).mean()
    assert 0.35 < shares["object"] < 0.6  # some lie in the held-out corner
    assert shares["voxel"] < 0.15
