"""Bugs of the systems emloom replaces, each as the law it broke.

Others have a home of their own: sources changed in place, global generators, folds (`test_render`), shared worker
state (`test_samples`), Dice of nothing, exploding class weights (`test_loss_laws`, `test_loss_formulas`), the
prefix of parallel wrappers (`test_resunet`), endless rejection (`test_sampling`), crops that are not square
(`test_orientations`), ids that collide (`tests/ops/test_affinities`), partners joined by row
(`tests/ops/test_synapse_targets`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from emloom.geometry import Box
from emloom.io.volume import ArrayVolume
from emloom.nn.augment import AffineSpec, AugmentSpec, ElasticSpec, SectionsSpec
from emloom.nn.draw import Frame, Streams, draw_plan
from emloom.nn.render import Geometry
from emloom.nn.samples import CropShape, SampleMaker, TrainingSamples
from emloom.nn.train import TrainingSpec
from tests.nn.tissue import GRID, cubes, tiny_model

CROP = CropShape((8, 16, 16), (8, 16, 16))
SHAPE = (16, 48, 48)


def samples(augment: AugmentSpec) -> TrainingSamples:
    """Return samples of a volume whose grey values lie between 100 and 200."""
    plain = cubes(SHAPE)
    raw = np.random.default_rng(0).integers(100, 201, SHAPE).astype(np.uint8)
    volume = replace(plain, raw=ArrayVolume(raw, GRID, "raw"), held_out=())
    maker = SampleMaker(tiny_model(variant="affinities"), [volume], CROP)
    return TrainingSamples(maker, TrainingSpec(steps=30, augment=augment), 30)


def geometry_only(**effects: object) -> AugmentSpec:
    return AugmentSpec.none().model_copy(update=effects)


def test_raw_is_interpolated_and_mirrored_where_the_volume_ends() -> None:
    """Bug 2: raw was resampled with order 0, and what lay outside became -1 / 256."""
    tilted = samples(geometry_only(affine=AffineSpec(rotation_deg=(30, 60))))
    seen = np.concatenate([tilted[i][0].numpy().ravel() for i in range(30)])
    assert seen.min() >= 100 * 2 / 255 - 1 - 1e-6
    assert seen.max() <= 200 * 2 / 255 - 1 + 1e-6
    grey = (seen + 1) * 127.5
    assert (np.abs(grey - np.round(grey)) > 0.05).mean() > 0.5, "values between grey values: interpolated"


def test_every_sample_draws_its_own_orientation() -> None:
    """Bug 6: the orientation was drawn once, when the augmentation was made."""
    turned = samples(AugmentSpec())
    drawn = {(turned.plan(i).flips, turned.plan(i).order) for i in range(30)}
    assert len(drawn) > 8


def test_displacement_is_measured_along_the_axis_it_is_asked_for() -> None:
    """Bugs 3 and 4: z and y were displaced and x never, or everything by less than a voxel."""
    frame = Frame((8, 64, 64), (0, 0, 0), (40.0, 4.0, 4.0))
    voxels = np.indices(frame.output).reshape(3, -1).T[::13]
    for axis in (1, 2):
        sigma = [0.0, 0.0, 0.0]
        sigma[axis] = 12.0
        elastic = ElasticSpec(spacing_nm=(160, 160, 160), sigma_nm=(sigma[0], sigma[1], sigma[2]))
        moved = []
        for index in range(25):
            plan = draw_plan(geometry_only(elastic=elastic), Streams(0, 0, index), 0, (0, 0, 0), frame)
            moved.append(Geometry.of(plan, frame).to_volume(voxels) - voxels)
        rms = np.sqrt(np.mean(np.square(moved), axis=(0, 1)))
        assert abs(rms[axis] - 3.0) < 0.4
        assert np.delete(rms, axis).max() < 1e-9


def test_control_points_are_spaced_along_the_axis_that_is_named() -> None:
    """Bug D17: a spacing meant as z, y, x was read as x, y, z."""
    frame = Frame((4, 96, 96), (0, 0, 0), (4.0, 4.0, 4.0))
    elastic = ElasticSpec(spacing_nm=(400, 400, 40), sigma_nm=(0, 0, 8))
    plan = draw_plan(geometry_only(elastic=elastic), Streams(0, 0, 0), 0, (0, 0, 0), frame)
    voxels = np.indices(frame.output).reshape(3, -1).T
    x = (Geometry.of(plan, frame).to_volume(voxels) - voxels)[:, 2].reshape(frame.output)
    along_y, along_x = np.abs(np.diff(x, axis=1)).mean(), np.abs(np.diff(x, axis=2)).mean()
    assert along_x > 4 * along_y


def test_misaligned_sections_take_their_labels_along() -> None:
    """PyTC moved blocks of sections by up to 17 pixels, and not their labels."""
    plain = cubes(SHAPE)
    labels = plain.labels.read(Box.whole(SHAPE))
    raw = (labels % 251).astype(np.uint8)
    volume = replace(plain, raw=ArrayVolume(raw, GRID, "raw"), held_out=())
    maker = SampleMaker(tiny_model(variant="affinities"), [volume], CROP)
    shaken = geometry_only(sections=SectionsSpec(slip=0.4, shift=0.4, largest_nm=60))
    training = TrainingSamples(maker, TrainingSpec(steps=20, augment=shaken), 20)
    moved = 0
    for i in range(20):
        made = training.maker.render(training.plan(i))
        seen = made.labels[made.output.slices()]
        known = made.known[made.output.slices()] > 0
        assert np.array_equal(np.rint((made.raw + 1) * 127.5)[known], (seen % 251)[known])
        moved += int(any(step != (0, 0) for step in training.plan(i).moves.raw))  # type: ignore[union-attr]
    assert moved > 10
