"""Starting from weights that were learned for something else; frozen weights, and norms, stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.checkpoint import load_training_state
from emloom.nn.crops import TrainingVolume
from emloom.nn.hardware import Hardware
from emloom.nn.model import ModelSpec, build, load, save
from emloom.nn.multires_autoencoder import MultiResolutionSpec
from emloom.nn.objectives.artifacts import ArtifactsObjective
from emloom.nn.objectives.reconstruction import ReconstructionObjective
from emloom.nn.patchnet import PatchNet, PatchNetSpec
from emloom.nn.planting import PlantSpec
from emloom.nn.train import TrainingData, TrainingSpec, train
from emloom.nn.transfer import StartSpec, start_from, to_training

SIZE = (40.0, 4.0, 4.0)
SHAPE = MultiResolutionSpec(f=2, n_latent=12, convolutions=(1, 1, 1, 1, 0))


@pytest.fixture
def autoencoder(tmp_path: Path) -> Path:
    """A checkpoint of an autoencoder whose norms have seen something."""
    spec = ModelSpec(objective=ReconstructionObjective(), network=SHAPE, voxel_size_nm=SIZE)
    torch.manual_seed(3)
    net = build(spec)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm3d):
            part.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
    save(tmp_path / "autoencoder.safetensors", spec, net.state_dict(), {})
    return tmp_path / "autoencoder.safetensors"


def classifier(sections: int = 1) -> PatchNet:
    spec = PatchNetSpec(encoder=SHAPE.model_copy(update={"in_channels": sections}), hidden=(), sections=sections)
    torch.manual_seed(0)
    return PatchNet(spec, "artifacts", 1)


def test_an_encoder_is_taken_over(autoencoder: Path) -> None:
    net = classifier()
    taken = start_from(StartSpec(model=str(autoencoder)), net)
    assert all(name.startswith("encoder.") for name in taken)
    assert set(taken) == {name for name in net.state_dict() if name.startswith("encoder.")}
    _, source, _ = load(autoencoder)
    x = torch.randn(2, 1, 1, 46, 46)
    source.eval()
    net.eval()
    with torch.no_grad():
        assert torch.allclose(net.latents(x), source.net.encoder(x).flatten(1), atol=1e-5)  # type: ignore[union-attr,operator]


def test_neighbouring_sections_change_nothing_at_first(autoencoder: Path) -> None:
    one, three = classifier(), classifier(3)
    start_from(StartSpec(model=str(autoencoder)), one)
    start_from(StartSpec(model=str(autoencoder)), three)
    x = torch.randn(2, 1, 3, 46, 46)
    one.eval()
    three.eval()
    with torch.no_grad():
        assert torch.allclose(three.latents(x), one.latents(x[:, :, 1:2]), atol=1e-6)


def test_weights_that_fit_nowhere_are_an_error(autoencoder: Path) -> None:
    with pytest.raises(InputError, match=r"none of the weights .* fits"):
        start_from(StartSpec(model=str(autoencoder), prefixes={}), classifier())
    with pytest.raises(InputError, match="matches no weight"):
        start_from(StartSpec(frozen=("encode[xyz]",)), classifier())
    with pytest.raises(ValueError, match="no regular expression"):
        StartSpec(frozen=("(",))


def test_frozen_parts_stay_in_eval() -> None:
    net = classifier()
    start_from(StartSpec(frozen=(r"encoder\.layers\.conv",)), net)
    to_training(net)
    conv, latent = net.encoder.layers["conv11"], net.encoder.layers["latent"]
    assert not conv[1].training  # type: ignore[index]
    assert latent[1].training  # type: ignore[index]
    assert net.training


def test_frozen_weights_and_statistics_are_the_same_after_training(tmp_path: Path, autoencoder: Path) -> None:
    raw = ArrayVolume(
        np.random.default_rng(0).integers(60, 190, (4, 120, 120)).astype(np.uint8),
        Grid(SIZE, (0, 0, 0)),
        kind="raw",
    )
    model = ModelSpec(
        objective=ArtifactsObjective(presume_clean=True, plant=PlantSpec()),
        network=classifier().spec,
        voxel_size_nm=SIZE,
    )
    training = TrainingSpec(
        steps=3,
        batch_size=2,
        crop_shape_vox=(1, 46, 46),
        validate_every=3,
        start=StartSpec(model=str(autoencoder), frozen=(r"encoder\.layers\.conv",)),
    )
    volume = TrainingVolume(raw, None, raw.info.box, (Box.of((3, 0, 0), (4, 120, 120)),))
    data = TrainingData([volume], [(0, Box.of((3, 0, 0), (4, 46, 46)))])
    train(model, training, data, tmp_path / "out", Hardware("cpu", 1, 0))
    after = load_training_state(tmp_path / "out" / "state.safetensors")["network"]
    before = classifier()
    start_from(StartSpec(model=str(autoencoder)), before)
    changed = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after[name])}
    assert not any(name.startswith("encoder.layers.conv") for name in changed)
    assert any(name.startswith("encoder.layers.latent") for name in changed)
    assert any(name.startswith("classifier.") for name in changed)
