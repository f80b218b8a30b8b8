"""Statistics of batch norms are those of the data they were measured on again."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.nn.model import ModelSpec, build, load, save
from emloom.nn.multires_autoencoder import MultiResolutionSpec
from emloom.nn.normstatistics import measure_again
from emloom.nn.objectives.artifacts import ArtifactsObjective
from emloom.nn.patchnet import PatchNetSpec


def test_all_batches_count_alike_and_weights_stay() -> None:
    net = nn.Sequential(nn.Conv3d(1, 3, 1), nn.BatchNorm3d(3))
    batches = [torch.randn(4, 1, 1, 5, 5) * (k + 1) + k for k in range(3)]
    weights = {name: p.clone() for name, p in net.named_parameters()}
    assert measure_again(net, batches) == 1
    with torch.no_grad():
        seen = [net[0](batch) for batch in batches]
    mean = torch.stack([x.mean(dim=(0, 2, 3, 4)) for x in seen]).mean(dim=0)
    variance = torch.stack([x.var(dim=(0, 2, 3, 4)) for x in seen]).mean(dim=0)
    assert torch.allclose(net[1].running_mean, mean, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(net[1].running_var, variance, rtol=1e-4)  # type: ignore[arg-type]
    assert not net.training
    assert net[1].momentum == 0.1
    assert all(torch.equal(p, weights[name]) for name, p in net.named_parameters())


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(InputError, match="no batch norm"):
        measure_again(nn.Conv3d(1, 1, 1), [])
    with pytest.raises(InputError, match="no batch was given"):
        measure_again(nn.BatchNorm3d(1), [])


def test_a_detector_is_adapted_to_another_contrast(tmp_path: Path) -> None:
    encoder = MultiResolutionSpec(f=2, n_latent=8, convolutions=(1, 1, 1, 1, 0))
    spec = ModelSpec(
        objective=ArtifactsObjective(presume_clean=True),
        network=PatchNetSpec(encoder=encoder, hidden=()),
        voxel_size_nm=(40.0, 4.0, 4.0),
    )
    torch.manual_seed(0)
    save(tmp_path / "model.safetensors", spec, build(spec).state_dict(), {"step": "3"})
    raw = np.random.default_rng(0).normal(60, 9, (3, 90, 90)).clip(0, 255).astype(np.uint8)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("raw", data=raw).attrs["resolution"] = (40.0, 4.0, 4.0)
    args = ["artifacts", "recalibrate", str(tmp_path / "model.safetensors"), f"{tmp_path}/raw.h5/raw"]
    args += ["-o", str(tmp_path / "new.safetensors"), "--samples", "64"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    _, before, _ = load(tmp_path / "model.safetensors")
    _, after, info = load(tmp_path / "new.safetensors")
    assert info["step"] == "3"
    old, new = before.state_dict(), after.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed
    assert all("running_" in name or "num_batches" in name for name in changed)
    again = CliRunner().invoke(app, args)
    assert again.exit_code != 0
