"""Targets of neurons: what is unknown teaches nothing, least of all a boundary."""

from __future__ import annotations

import numpy as np
import pytest

from emloom.geometry import Box, Grid, Vec
from emloom.io.volume import ArrayVolume
from emloom.nn.crops import TrainingVolume
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.plan import SamplePlan
from emloom.nn.samples import CropShape, SampleMaker
from tests.nn.tissue import tiny_model

GRID = Grid((10.0, 10.0, 10.0))


@pytest.mark.parametrize("start", [(0, 0, 0), (8, 12, 12), (4, 0, 12)])
def test_the_end_of_the_volume_is_no_boundary(start: Vec) -> None:
    """One object fills the volume: wherever a crop lies, every valid pair is inside it."""
    shape = (16, 20, 20)
    one = TrainingVolume(
        ArrayVolume(np.full(shape, 9, np.uint8), GRID),
        ArrayVolume(np.ones(shape, np.uint64), GRID),
        Box.whole(shape),
    )
    maker = SampleMaker(tiny_model(), [one], CropShape((8, 8, 8), (8, 8, 8)))
    _, targets = maker.make(SamplePlan(source=0, start=start))
    target, valid = targets["affinities"]
    assert (target[valid > 0] == 1).all()
    outside = [int((np.array(start) == 0)[axis]) for axis in range(3)]  # pairs reach towards smaller coordinates
    assert [int((valid[axis] == 0).sum()) for axis in range(3)] == [64 * n for n in outside]


def test_boundaries_grow_between_objects_and_not_towards_what_is_unknown() -> None:
    labels = np.ones((1, 5, 12), np.uint64)
    labels[..., 6:] = 2
    known = np.ones(labels.shape, np.uint8)
    labels[..., 10:], known[..., 10:] = 0, 0
    objective = NeuronsObjective(variant="affinities", neighborhood=((0, 0, -1),), grow_boundary_vox=1)
    target, valid = objective.targets(labels, known, Box.whole(labels.shape), GRID)["affinities"]
    assert target[0, 0, 2, 1:10].tolist() == [1, 1, 1, 1, 0, 0, 0, 1, 1]
    assert valid[0, 0, 2].tolist() == [0] + [1] * 9 + [0, 0]
