"""Validation: every known voxel counts once, whatever the crops; boxes without any are an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.volume import ArrayVolume
from emloom.nn import validation
from emloom.nn.crops import TrainingVolume
from emloom.nn.hardware import Hardware
from emloom.nn.model import ModelSpec, build, load
from emloom.nn.objectives.semantic import CLASSES, SemanticObjective
from emloom.nn.samples import SampleMaker
from emloom.nn.train import TrainingData, TrainingSpec, crop_shape, train
from emloom.nn.validation import Checks, known_voxels
from emloom.nn.voxelnets import VoxelNet
from tests.nn.tissue import GRID, cubes

BOX = Box((8, 8, 4), (12, 9, 32))
FABRIC = Fabric(accelerator="cpu", devices=1)


def model(backbone: str = "3_layer@8") -> ModelSpec:
    classes = [{"name": "wall", "ids": [0]}, {"name": "cell", "ids": [1]}]
    return ModelSpec(
        objective=SemanticObjective.from_dict({"classes": classes}),
        network={"kind": "voxel_net", "backbone": backbone},
        voxel_size_nm=GRID.voxel_size_nm,
    )


def painted(rows: slice = slice(10, 12)) -> TrainingVolume:
    """Walls and cells, painted on some rows of one section of `BOX`; everything else is 7, which is no class."""
    whole = cubes()
    raw = whole.raw.read(whole.raw.info.box)
    labels = np.full(raw.shape, 7, np.uint8)
    labels[11, rows, :] = raw[11, rows, :] > 120
    return TrainingVolume(whole.raw, ArrayVolume(labels, GRID, "labels"), whole.region)


def checks(volume: TrainingVolume, spec: ModelSpec, crop: tuple[int, int, int] = (1, 1, 1)) -> Checks:
    torch.manual_seed(0)
    network = build(spec).eval()
    return Checks.of(SampleMaker(spec, [volume], crop_shape(network, crop)), network, [(0, BOX)])


def test_dense_crops_and_patches_of_one_net_validate_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, volume = model(), painted()
    torch.manual_seed(0)
    network = build(spec).eval()
    maker = SampleMaker(spec, [volume], crop_shape(network, (1, 1, 1)))
    dense = Checks.of(maker, network, [(0, BOX)])
    assert len(dense.samples) < 4  # not one batch per voxel
    a, _ = dense.run(FABRIC, network, spec.objective, 0)
    monkeypatch.setattr(VoxelNet, "convertible", False)
    patches = Checks.of(maker, network, [(0, BOX)])
    counted = sum(known_voxels(targets) for _, targets in patches.samples)
    assert counted == 2 * BOX.shape[2]  # all known voxels of the box, none twice
    b, seen = patches.run(FABRIC, network, spec.objective, 0)
    assert a == pytest.approx(b, rel=1e-5)
    assert seen[0].raw.shape[1:] == (1, 9, 9, 9)


def test_the_loss_is_the_mean_over_known_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_DENSE", 1)
    spec = model()
    some = checks(painted(slice(10, 15)), spec, (4, 3, 16))
    assert len(some.samples) == 3 * 2  # which know one, three and one row; the others of the box none
    network = build(spec).eval()
    loss, _ = some.run(FABRIC, network, spec.objective, 0)
    losses, count = 0.0, 0
    with torch.no_grad():
        for raw, targets in some.samples:
            target, weight = targets[CLASSES]
            logs = torch.log_softmax(network(raw)[CLASSES], dim=1)
            losses -= float((logs * target * weight).sum())
            count += int(weight[:, 0].sum())
    assert count == 5 * BOX.shape[2]
    assert loss == pytest.approx(losses / count, rel=1e-5)


def test_patches_are_a_bounded_sample_that_never_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "PATCHES", 20)
    monkeypatch.setattr(VoxelNet, "convertible", False)
    first, second = (checks(painted(), model()) for _ in range(2))
    places = [
        [plan.start for part in each.samples.dataset.datasets for plan in part.plans] for each in (first, second)
    ]
    assert places[0] == places[1]
    assert len(set(places[0])) == 20
    assert all(z == 11 and y in (10, 11) and BOX.start[2] <= x < BOX.stop[2] for z, y, x in places[0])
    assert np.ptp([x for _, _, x in places[0]]) > 15  # from all over the box


def test_boxes_without_a_known_voxel_are_an_error(tmp_path: Path) -> None:
    volume = painted(slice(30, 32))  # outside of the box
    for backbone in ("3_layer@8", "4_conv_resnet@16"):
        with pytest.raises(InputError, match="no voxel has a known class"):
            checks(volume, model(backbone))
    spec = TrainingSpec(steps=1, crop_shape_vox=(1, 1, 1))
    with pytest.raises(InputError, match="no voxel has a known class"):
        train(model(), spec, TrainingData([volume], [(0, BOX)]), tmp_path, Hardware("cpu", 1, 0))


@pytest.mark.parametrize("crop", [(1, 1, 1), (1, 6, 6)])
def test_a_voxel_net_trains_on_patches_and_on_dense_crops(tmp_path: Path, crop: tuple[int, int, int]) -> None:
    volume = cubes()
    raw = volume.raw.read(volume.raw.info.box)
    labelled = TrainingVolume(
        volume.raw, ArrayVolume((raw > 120).astype(np.uint8), GRID, "labels"), volume.region, volume.held_out
    )
    size = 64 if crop == (1, 1, 1) else 4
    spec = TrainingSpec(steps=60, crop_shape_vox=crop, batch_size=size, validate_every=20)
    losses: list[float] = []

    def on_step(progress: object) -> None:
        if (found := getattr(progress, "validation", None)) is not None:
            losses.append(found)

    data = TrainingData([labelled], [(0, Box((8, 8, 8), (8, 8, 8)))])
    kept = train(model(), spec, data, tmp_path, Hardware("cpu", 1, 0), on_step)
    assert losses[-1] < 0.3 < losses[0]  # two classes told apart by their grey value
    assert load(kept)[0] == model()
