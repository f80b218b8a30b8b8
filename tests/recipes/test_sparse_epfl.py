"""Nine slices of the hippocampus: they show the classes of the set, and never what is scored."""

from __future__ import annotations

from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest

from emloom.io.open import open_volume
from emloom.nn.sampling import CropSampler
from emloom.nn.strategies import Balanced
from emloom.recipes import sparse_epfl as recipe
from emloom.tasks.semantic import open_stacks, training_volumes

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("sparse_epfl")
    recipe.stack(str(where), str(real_data))
    return str(where)


def test_classes_are_those_of_the_masks_by_priority(folder: str, real_data: Path) -> None:
    classes = open_volume(f"{folder}/labels/classes.zarr/classes")
    found = classes.read(classes.info.box)
    with h5py.File(real_data / "epfl_hippocampus" / "train_z000-019.h5") as file:
        mask = {name: file[f"volumes/labels/{name}"][:] != 0 for name in file["volumes/labels"]}
    interior = mask["mitochondrion"] & ~mask["mitochondrial_boundaries"]
    assert not np.any((found == 3) & ~interior)
    assert not np.any((found == 5) & ~mask["PSD"])
    assert not np.any((found == 6) & (mask["PSD"] | ~mask["vesicles"]))
    painted = np.any([mask[name] for name in mask if name != "axon"], axis=0)
    assert not np.any((found == 1) & painted)
    shares = [float((found == number).mean()) for number in range(7)]
    assert shares == pytest.approx([0.1331, 0.5593, 0.1888, 0.0577, 0.0293, 0.0042, 0.0276], abs=2e-4)


def test_slices_are_cut_from_the_classes(folder: str) -> None:
    classes = open_volume(f"{folder}/labels/classes.zarr/classes")
    assert sorted(each.axis for each in recipe.SLICES) == ["x"] * 3 + ["y"] * 3 + ["z"] * 3
    for each in recipe.SLICES:
        image = iio.imread(f"{folder}/labels/{each.name}.png")
        assert np.array_equal(image, classes.read(each.box).squeeze("zyx".index(each.axis)))


def test_painted_and_held_out_lie_where_the_recipe_says(folder: str, real_data: Path) -> None:
    job = recipe.quick("unet", folder=folder, data=str(real_data))
    (stack,) = open_stacks(job)
    known = stack.labelled.mask
    assert known is not None
    seen = known.read(stack.raw.info.box) != 0
    classes = open_volume(f"{folder}/labels/classes.zarr/classes").read(stack.raw.info.box)
    expected = np.zeros(seen.shape, bool)
    for box in [each.box for each in recipe.SLICES] + [
        box for part in ("validation", "test") for box in stack.spec.boxes(part)
    ]:
        expected[box.slices()] = True
    assert np.array_equal(seen, expected & (classes != 0))


@pytest.mark.parametrize("net", ["4_conv", "unet", "4_conv_resnet"])
def test_crops_hold_every_class_and_keep_off_what_is_held_out(
    folder: str, real_data: Path, net: recipe.Net
) -> None:
    job = recipe.quick(net, folder=folder, data=str(real_data))
    stacks = open_stacks(job)
    (volume,) = training_volumes(job, stacks)
    sampler = CropSampler([volume], job.training.sampling, job.training.crop_shape_vox)
    assert isinstance(job.training.sampling, Balanced)
    assert sampler.classes == (1, 2, 3, 4, 5, 6)
    rng = np.random.default_rng(0)
    for _ in range(30):
        start = sampler.draw(rng).start
        stop = [a + n for a, n in zip(start, job.training.crop_shape_vox, strict=True)]
        assert stop[2] + 64 <= 640, "320 nm off the columns of validation and test, half a window included"


def test_a_crf_is_tuned_on_validation_only(folder: str, tmp_path: Path) -> None:
    labels = Path(folder) / "labels"
    truth = open_volume(recipe.write_truth(labels, tmp_path / "truth.zarr", recipe.TUNED_ON))
    painted = open_volume(labels / "classes.zarr" / "classes")
    assert truth.info.grid.matches(painted.info.grid.crop(recipe.TUNED_ON))
    # Undefined, 0, is 255; the first class, painted as 1, is 0.
    assert np.array_equal(truth.read(truth.info.box), painted.read(recipe.TUNED_ON) - np.uint8(1))
    assert not any(recipe.TUNED_ON.meets(each.box) for each in recipe.SLICES)
    assert recipe.TUNED_ON.stop[1] + 64 <= 320, "the test block begins at row 320"


@pytest.mark.parametrize("pretext", ["centre", "masked_blocks"])
def test_pretraining_sees_the_training_region_only(real_data: Path, pretext: recipe.Pretext) -> None:
    net: recipe.Net = "unet" if pretext == "masked_blocks" else "4_conv"
    job = recipe.pretraining(pretext, net, data=str(real_data))
    (stack,) = job.data
    assert stack.region is not None
    assert stack.region.box.stop[2] + stack.gap_nm / 5 + 16 <= 640
