"""The recipe of nine planes: labels are the set's, what is scored is not trained on, crops hold known voxels."""

from __future__ import annotations

from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
from scipy import ndimage

from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.nn.forestspec import MultiScaleSpec
from emloom.nn.model import build
from emloom.nn.objectives.semantic import CLASSES as HEAD
from emloom.nn.samples import SampleMaker, TrainingSamples
from emloom.nn.train import crop_shape
from emloom.nn.voxelnets import VoxelNet
from emloom.recipes import sparse_vnc as recipe
from emloom.tasks.anyjob import load_any_job
from emloom.tasks.data import Stack, gap_vox, open_stack

pytestmark = pytest.mark.real_data

VOXEL_NM = (47.5, 4.6, 4.6)
NETS: list[recipe.Net] = ["4_conv", "4_conv_ln", "dilated", "unet"]


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("sparse_vnc")
    recipe.stack(str(where), str(real_data))
    return where


@pytest.fixture(scope="module")
def stack(folder: Path, real_data: Path) -> Stack:
    return open_stack(recipe.stack(str(folder), str(real_data)), recipe.objective().classes)


@pytest.fixture(scope="module")
def drawn(real_data: Path) -> np.ndarray:
    with h5py.File(real_data / "vnc_sstem/stack1_z00-14.h5") as file:
        return np.asarray(file["volumes/labels/classes"])


def expected(drawn: np.ndarray) -> np.ndarray:
    """Classes of whole sections, one by one: undefined where one of the four neighbours is of another class."""
    known = {value: i for i, name in enumerate(recipe.CLASSES, start=1) for value in recipe.VALUES[name]}
    assert set(np.unique(drawn).tolist()) == set(known)
    table = np.zeros(256, np.uint8)
    for value, number in known.items():
        table[value] = number
    out = table[drawn]
    cross = ndimage.generate_binary_structure(2, 1)[None]
    same = ndimage.grey_dilation(out, footprint=cross) == ndimage.grey_erosion(out, footprint=cross)
    return np.where(same, out, 0)


def test_every_painted_pixel_is_of_the_class_that_was_drawn(folder: Path, drawn: np.ndarray) -> None:
    truth = expected(drawn)
    for each in recipe.SLICES:
        image = iio.imread(folder / "labels" / f"{each.name}.png")
        np.testing.assert_array_equal(image, truth[each.box.slices()][0])
    volume = open_volume(folder / "labels" / "classes.zarr" / "classes")
    np.testing.assert_array_equal(volume.read(volume.info.box), truth)


def test_planes_hold_every_class_and_so_does_what_is_held_out(stack: Stack) -> None:
    assert stack.sparse is not None
    pieces = {piece.spec.name: piece for piece in stack.sparse.pieces}
    assert sum(piece.spec.name.startswith("z") for piece in stack.sparse.pieces) == 9 == len(pieces) - 2
    painted = sum(piece.counts for name, piece in pieces.items() if name.startswith("z"))
    assert painted.shape == (len(recipe.CLASSES),)
    for counts in (painted, pieces["validation"].counts, pieces["test"].counts):
        assert counts.min() > 500
    assert all(0.05 < piece.undefined / piece.painted.box.size < 0.2 for piece in pieces.values())


def test_what_is_scored_is_apart_in_the_section_and_across(stack: Stack) -> None:
    held = [Box(box.start, box.shape) for part in ("validation", "test") for box in stack.spec.boxes(part)]
    assert [(box.start[0], box.stop[0]) for box in held] == [(10, 11), (12, 15)]
    assert stack.spec.region is not None
    region = stack.spec.region.box
    assert all(region.contains(each.box) for each in recipe.SLICES)
    sections = [z for box in (region, *held) for z in range(box.start[0], box.stop[0])]
    assert len(set(sections)) == len(sections)
    gap = gap_vox(stack.spec, VOXEL_NM)
    assert gap[0] == 1
    everything = [region, *held]
    for i, a in enumerate(everything):
        for b in everything[i + 1 :]:
            assert not a.grow((1, 0, 0)).meets(b)
            assert not a.grow((99, 32, 32)).meets(b)  # more than a window and a gap, whatever the sections


@pytest.mark.parametrize("net", NETS)
def test_crops_hold_known_voxels_and_see_nothing_that_is_scored(
    net: recipe.Net, stack: Stack, folder: Path, real_data: Path
) -> None:
    job = recipe.quick(net, folder=str(folder), data=str(real_data))
    spec = job.model(VOXEL_NM)
    network = build(spec)
    shape = crop_shape(network, job.training.crop_shape_vox)
    if isinstance(network, VoxelNet):
        assert network.window[0] == 1
        assert network.convertible
    samples = TrainingSamples(
        SampleMaker(spec, [stack.labelled_off(shape.margin)], shape), job.training, 8 if net == "unet" else 40
    )
    wanted = set(range(1, len(recipe.CLASSES) + 1))
    seen = set()
    for index in range(len(samples)):
        plan = samples.plan(index)
        box = Box(plan.start, job.training.crop_shape_vox).grow(shape.margin)
        assert not any(box.meets(held) for held in stack.held_pieces)
        _, targets = samples[index]
        target, weight = targets[HEAD]
        assert float(weight.sum()) > 0
        seen |= {int(c) + 1 for c in target[:, weight[0] > 0].amax(dim=1).nonzero().flatten()}
    assert seen == wanted


@pytest.mark.parametrize("make", [recipe.quick, recipe.full])
@pytest.mark.parametrize("net", NETS)
def test_jobs_come_back_from_their_files(
    make: object, net: recipe.Net, folder: Path, real_data: Path, tmp_path: Path
) -> None:
    job = make(net, "ce_dice", 3, str(folder), str(real_data), 5)  # type: ignore[operator]
    job.dump(tmp_path / "job.yaml")
    assert load_any_job(tmp_path / "job.yaml") == job


def test_the_forest_looks_within_sections(folder: Path, real_data: Path, tmp_path: Path) -> None:
    job = recipe.forest(folder=str(folder), data=str(real_data))
    job.dump(tmp_path / "job.yaml")
    assert load_any_job(tmp_path / "job.yaml") == job
    assert job.forest.features == recipe.features("multiscale") == MultiScaleSpec(dimensions=2)
    assert build(job.model(VOXEL_NM)).context[0] == 0
