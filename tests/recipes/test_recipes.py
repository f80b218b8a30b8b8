"""Every recipe opens its data and leaves room for its training crops."""

from __future__ import annotations

from pathlib import Path

import pytest

from emloom.nn.crops import possible_starts
from emloom.recipes import artifacts, fib25, isbi2012, snemi3d
from emloom.tasks.artifactjob import open_tissue
from emloom.tasks.data import open_stack


@pytest.mark.real_data
@pytest.mark.parametrize("recipe", [fib25.quick, fib25.full, snemi3d.quick, snemi3d.full, isbi2012.quick])
def test_a_recipe_has_many_training_crops(real_data: Path, recipe: object) -> None:
    job = recipe(data=str(real_data))  # type: ignore[operator]
    for spec in job.data:
        assert possible_starts(open_stack(spec).labelled, job.training.crop_shape_vox) > 1000


@pytest.mark.real_data
@pytest.mark.parametrize("recipe", [artifacts.quick, artifacts.flattened, artifacts.full])
def test_a_recipe_of_artifacts_has_many_places_of_clean_tissue(real_data: Path, recipe: object) -> None:
    job = recipe(data=str(real_data))  # type: ignore[operator]
    (spec,) = job.data
    assert possible_starts(open_tissue(spec, job).training, job.training.crop_shape_vox) > 1_000_000
