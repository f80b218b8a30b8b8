"""Autoencoders around centre-voxel backbones: their sizes, that what is drawn is drawn right, tiles, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.augment import AugmentSpec
from emloom.nn.autoencoders import autoencoder
from emloom.nn.crops import TrainingVolume
from emloom.nn.hardware import Hardware
from emloom.nn.model import ModelSpec, build, load
from emloom.nn.objectives.base import Validated
from emloom.nn.objectives.reconstruction import DivergenceSpec, HiddenCentre, ReconstructionObjective
from emloom.nn.reconstruct import Reconstructor
from emloom.nn.train import TrainingData, TrainingSpec, train
from emloom.nn.variational import Posterior, VariationalAnswer
from emloom.nn.voxel_autoencoder import Upsample, VoxelAutoencoder, VoxelAutoencoderSpec
from emloom.nn.voxelnets import VoxelNetSpec

GRID = Grid((5.0, 5.0, 5.0))
SMALL: dict[str, Any] = {
    "encoder": VoxelNetSpec(backbone="3_layer@8"),
    "patch_vox": 8,
    "n_latent": 6,
    "maps": (8, 6, 4),
}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("maps", "parameters"), [((256, 128, 64, 32, 16), 7_074_385), ((256, 128, 32, 16), 6_797_521)]
)
def test_decoders_have_the_original_sizes(maps: tuple[int, ...], parameters: int) -> None:
    with torch.device("meta"):
        net = Upsample(512, maps)
        assert net(torch.empty(2, 512, 1, 1, 1)).shape == (2, 1, *(2 ** len(maps),) * 3)
    assert count(net) == parameters


@pytest.mark.parametrize(
    ("backbone", "patch", "features"),
    [
        ("4_conv@32", 32, 128),
        ("4_conv_resnet@32", 32, 128 * 8),  # padded: 2 positions along each axis are left
        ("4_conv_resnet@16", 16, 128),
        ("dilated@32", 32, 64),
    ],
)
def test_any_backbone_encodes_a_window(backbone: Any, patch: int, features: int) -> None:
    maps = (256, 128, 64, 32, 16) if patch == 32 else (256, 128, 32, 16)
    encoder = VoxelNetSpec(backbone=backbone)
    with torch.device("meta"):
        net = VoxelAutoencoder(VoxelAutoencoderSpec(encoder=encoder, patch_vox=patch, maps=maps))
        plain = VoxelAutoencoder(
            VoxelAutoencoderSpec(encoder=encoder, patch_vox=patch, decoder="linear", variational=False)
        )
        assert plain(torch.empty(2, 1, patch, patch, patch)).shape == (2, 1, patch, patch, patch)
    own = count(encoder.build_backbone())
    decoder = 7_074_385 if patch == 32 else 6_797_521
    assert count(net) == own + 2 * (features * 512 + 512) + decoder
    assert count(plain) == own + (features * 512 + 512) + (512 + 1) * patch**3


def test_latents_are_drawn_with_the_standard_deviation_of_the_posterior() -> None:
    # The original drew mean + eps * logvar: where logvar is 0, a variance of 1, it drew nothing at all.
    torch.manual_seed(0)
    net = VoxelAutoencoder(VoxelAutoencoderSpec(**SMALL))
    nn.init.normal_(net.logvar.weight, std=0.3)
    net.decoder = nn.Identity()
    net.eval()
    net.training = True  # it draws, while norms stay as they are
    with torch.no_grad():
        answer = net(torch.rand(1, 1, 8, 8, 8).expand(3000, 1, 8, 8, 8), torch.Generator().manual_seed(1))
    assert isinstance(answer, VariationalAnswer)
    z, (mu, logvar) = answer.reconstruction, answer.posterior
    spread = torch.exp(logvar[0] / 2)
    assert float(spread.std()) > 0.05  # they differ, so the law says something
    torch.testing.assert_close(z.std(0), spread, atol=0, rtol=0.06)
    torch.testing.assert_close((z.mean(0) - mu[0]) / spread, torch.zeros_like(spread), atol=0.08, rtol=0)


def test_without_training_the_mean_is_decoded_and_weights_start_at_the_prior() -> None:
    net = VoxelAutoencoder(VoxelAutoencoderSpec(**SMALL)).eval()
    x = torch.rand(3, 1, 8, 8, 8)
    with torch.no_grad():
        answer = net(x)
        assert isinstance(answer, VariationalAnswer)
        torch.testing.assert_close(answer.reconstruction, net.decode(net.latent(x)))
        assert bool((answer.posterior.logvar == 0).all())
        expected = answer.posterior.mu.square().flatten(1).sum(1) / 2
    torch.testing.assert_close(Posterior(*answer.posterior).divergence(), expected)


def test_tiles_are_reconstructed_window_by_window() -> None:
    spec = ModelSpec(
        objective=ReconstructionObjective(),
        network=VoxelAutoencoderSpec(**SMALL),
        voxel_size_nm=GRID.voxel_size_nm,
    )
    net = build(spec).eval()
    assert isinstance(net, Reconstructor)
    assert net.lattice == (8, 8, 8)
    x = torch.rand(1, 1, 16, 8, 24)
    with torch.no_grad():
        whole = net.interior(x)["reconstruction"]
        for z in (0, 8):
            for w in (0, 8, 16):
                at = (..., slice(z, z + 8), slice(None), slice(w, w + 8))
                torch.testing.assert_close(whole[at], net(x[at])["reconstruction"], atol=1e-5, rtol=1e-4)
        with pytest.raises(InputError, match="8"):
            net(x)


def test_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="make a window of 8 voxels, not of 32"):
        VoxelAutoencoderSpec(maps=(8, 6, 4))
    with pytest.raises(ValueError, match="a planar 3_layer@8 looks at single sections: leave `planar` out"):
        VoxelAutoencoderSpec(encoder=VoxelNetSpec(backbone="3_layer@8", planar=True))
    with pytest.raises(InputError, match="smaller than what the backbone sees"):
        autoencoder(VoxelAutoencoderSpec(**SMALL | {"encoder": VoxelNetSpec(backbone="4_conv@32")}))


def test_a_masked_variational_autoencoder_learns_and_comes_back(tmp_path: Path) -> None:
    z, y, x = np.indices((24, 40, 40))
    raw = np.where(np.hypot((y + z) % 12 - 6, x % 12 - 6) < 4, 70, 170).astype(np.uint8)
    held = Box((0, 0, 0), (8, 16, 16))
    volume = TrainingVolume(ArrayVolume(raw, GRID, "raw"), None, Box.whole(raw.shape), (held,))
    objective = ReconstructionObjective(
        corruption=HiddenCentre(centre_vox=2, pad_vox=0, dropout=0, counts="all"),
        divergence=DivergenceSpec(weight=0.01, warmup_steps=10),
    )
    spec = ModelSpec(objective=objective, network=VoxelAutoencoderSpec(**SMALL), voxel_size_nm=GRID.voxel_size_nm)
    training = TrainingSpec(
        steps=60,
        batch_size=4,
        crop_shape_vox=(8, 8, 8),
        validate_every=30,
        augment=AugmentSpec.none(),
        precision="32-true",
    )
    losses: list[float] = []
    path = train(
        spec,
        training,
        TrainingData([volume], [(0, held)]),
        tmp_path,
        Hardware("cpu", 1, 0),
        lambda done: losses.append(done.loss),
    )
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    net = load(path)[1].eval()
    window = torch.rand(2, 1, 8, 8, 8)
    with torch.no_grad():
        answers = net(window)
        pictures = objective.look(net, [Validated(window, answers, {"reconstruction": (window, window)})])
    assert set(answers) == {"reconstruction", "mu", "logvar"}
    assert pictures["prior"].shape == (1, 1, 4 * 8, 4 * 8)
