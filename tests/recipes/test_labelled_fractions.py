"""The study of labelled fractions: labels are nested, known where they should be, never near what is scored."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.io.open import open_volume
from emloom.nn.crops import possible_starts
from emloom.nn.sampling import CropSampler
from emloom.recipes.labelled_fractions import NETS, PERCENTS, full, quick, squares
from emloom.tasks.data import open_stack
from emloom.tasks.semantic import SemanticJob

SHAPE = (5, 256, 192)


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.integers(0, 99))
def test_a_smaller_share_is_a_part_of_a_larger_one(a: float, b: float, seed: int) -> None:
    few, many = (squares(SHAPE, share, seed) for share in sorted((a, b)))
    assert (few <= many).all()
    wanted = max(1, round(min(a, b) * 60))  # 5 x 4 x 3 squares
    assert few.sum() == wanted * 64 * 64
    tiles = few.reshape(5, 4, 64, 3, 64)
    assert (tiles.min(axis=(2, 4)) == tiles.max(axis=(2, 4))).all()


def test_everything_is_everything_and_seeds_differ() -> None:
    assert squares(SHAPE, 1.0, 0).all()
    assert not np.array_equal(squares(SHAPE, 0.2, 0), squares(SHAPE, 0.2, 1))


@pytest.fixture
def studied(real_data: Path, tmp_path: Path) -> tuple[str, str]:
    return str(tmp_path), str(real_data)


@pytest.mark.real_data
def test_labels_are_those_of_the_set(studied: tuple[str, str]) -> None:
    folder, data = studied
    stack = open_stack(quick("fcn", 5, 1, folder, data).data[0])
    ids = stack.labels.read(stack.labels.info.box)
    with h5py.File(Path(data) / "epfl_hippocampus" / "train_z000-019.h5") as file:
        painted = {name: file[f"volumes/labels/{name}"][:] != 0 for name in file["volumes/labels"]}
    mitochondria = painted["mitochondrion"] | painted["mitochondrial_boundaries"]
    assert np.array_equal(ids == 3, mitochondria)
    assert np.array_equal(ids == 2, painted["membranes"] & ~mitochondria)
    assert set(np.unique(ids)) == {1, 2, 3}


@pytest.mark.real_data
@pytest.mark.parametrize("percent", PERCENTS)
def test_the_share_is_known_and_every_crop_holds_some(studied: tuple[str, str], percent: int) -> None:
    job = quick("unet", percent, 0, *studied)
    stack = open_stack(job.data[0])
    assert stack.mask is not None
    known = stack.mask.read(stack.mask.info.box)
    assert known[:, :, :576].mean() == pytest.approx(percent / 100, rel=0.02)
    assert known[:, :, 640:].all()
    volume = stack.labelled
    assert possible_starts(volume, (1, 128, 128)) > 5000
    sampler = CropSampler([volume], job.training.sampling, (1, 128, 128))
    rng = np.random.default_rng(0)
    for _ in range(30):
        z, y, x = sampler.draw(rng).start
        assert known[z, y : y + 128, x : x + 128].any()
        assert x + 128 <= 576


@pytest.mark.real_data
def test_jobs_differ_in_what_is_compared_and_nothing_else(studied: tuple[str, str]) -> None:
    def rest(job: SemanticJob) -> dict[str, object]:
        return {name: value for name, value in job.to_dict().items() if name not in ("name", "network")}

    for recipe in (quick, full):
        jobs = [recipe(net, 5, 2, *studied) for net in NETS]
        assert rest(jobs[0]) == rest(jobs[1]) == rest(jobs[2])
        assert len({job.network.parameters for job in jobs}) == 1  # type: ignore[union-attr]
    masks = [quick("unet", percent, 2, *studied).data[0].marks.mask for percent in (1, 5)]
    few, more = (open_volume(str(mask)) for mask in masks)
    assert (few.read(few.info.box) <= more.read(more.info.box)).all()
