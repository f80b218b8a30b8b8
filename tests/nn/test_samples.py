"""From a plan to a sample: the same bytes everywhere, nothing of what is held out, room for every rotation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.augment import AffineSpec, AugmentSpec, DefectSpec, ElasticSpec, SectionsSpec
from emloom.nn.crops import TrainingVolume
from emloom.nn.plan import SamplePlan
from emloom.nn.samples import CropShape, SampleMaker, TrainingSamples
from emloom.nn.train import TrainingSpec
from tests.nn.tissue import cubes, tiny_model

CROP = CropShape((12, 16, 16), (12, 16, 16))
STRONG = AugmentSpec(
    affine=AffineSpec(rotation_deg=(0, 360), scale=(0.95, 1.05)),
    elastic=ElasticSpec(spacing_nm=(80, 80, 80), sigma_nm=(5, 5, 5)),
    sections=SectionsSpec(slip=0.1, shift=0.1, largest_nm=20),
    defects=DefectSpec(missing=0.1, fold=0.1),
)


def samples_of(volume: TrainingVolume, augment: AugmentSpec = STRONG, seed: int = 0) -> TrainingSamples:
    return TrainingSamples(
        SampleMaker(tiny_model(), [volume], CROP), TrainingSpec(steps=8, seed=seed, augment=augment), 8
    )


def bytes_of(sample: Any) -> bytes:
    raw, targets = sample
    return b"".join([raw.numpy().tobytes(), *(t.numpy().tobytes() for pair in targets.values() for t in pair)])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_workers_do_not_change_a_byte() -> None:
    """Bug 7 of the originals: workers shared the state of one generator."""
    samples = samples_of(cubes((32, 64, 64)))
    wanted = [bytes_of(samples[i]) for i in range(len(samples))]
    assert len(set(wanted)) == len(wanted)
    assert wanted[::-1] == [bytes_of(samples[i]) for i in reversed(range(len(samples)))]
    loader = DataLoader(samples, batch_size=None, num_workers=4, multiprocessing_context="spawn")
    assert [bytes_of(sample) for sample in loader] == wanted


def test_a_dumped_plan_makes_the_sample_again() -> None:
    samples = samples_of(cubes((32, 64, 64)))
    for i in range(4):
        plan = SamplePlan.from_yaml(samples.plan(i).to_yaml())
        assert bytes_of(samples.maker.make(plan)) == bytes_of(samples[i])


def test_held_out_labels_are_never_known() -> None:
    """However far a deformed sample reaches, what it learns from lies outside the held-out boxes."""
    plain = cubes((32, 64, 64))
    held = Box((0, 24, 24), (32, 16, 16))
    labels = plain.labels.read(plain.labels.info.box)
    labels[held.slices()] += 10**6
    volume = replace(
        plain, labels=ArrayVolume(labels, plain.raw.info.grid, "labels"), held_out=(held,), hidden=(held,)
    )
    samples = TrainingSamples(
        SampleMaker(tiny_model(), [volume], CROP), TrainingSpec(steps=40, augment=STRONG), 40
    )
    seen = 0
    for i in range(40):
        made = samples.maker.render(samples.plan(i))
        inside = made.labels >= 10**6
        seen += int(inside.sum())
        assert not made.known[inside].any()
    assert seen > 0, "no sample reached the held-out box: the test tests nothing"
    assert samples.maker.render(SamplePlan(source=0, start=held.start), held_out=True).known.any()


def test_a_plain_sample_is_the_preprocessed_volume() -> None:
    volume = cubes((32, 64, 64))
    maker = SampleMaker(tiny_model(), [volume], CROP)
    raw, _ = maker.make(SamplePlan(source=0, start=(5, 6, 7)))
    wanted = maker.model.preprocessing(volume.raw.read(Box((5, 6, 7), CROP.input)))
    assert torch.equal(raw[0], torch.from_numpy(wanted))


def test_a_volume_without_room_for_a_rotation_is_an_error() -> None:
    with pytest.raises(InputError, match=r"can need \(.*\) voxels .* has \(20, 20\)"):
        samples_of(cubes((32, 20, 20)))
    samples_of(cubes((32, 20, 20)), AugmentSpec())


def test_raw_that_is_not_a_number_is_an_error() -> None:
    plain = cubes((32, 64, 64))
    raw = plain.raw.read(plain.raw.info.box).astype(np.float32)
    raw[10, 10, 10] = np.nan
    volume = replace(plain, raw=ArrayVolume(raw, Grid((10, 10, 10)), "raw"))
    with pytest.raises(InputError, match="NaN"):
        SampleMaker(tiny_model(), [volume], CROP).make(SamplePlan(source=0, start=(5, 6, 7)))
