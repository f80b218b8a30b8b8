"""Patches and dense maps give the same numbers; what a map says depends on nothing but the raw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.lattice import Lattice
from emloom.io.volume import ArrayVolume
from emloom.nn import patchparity, patchpredict
from emloom.nn.model import ModelSpec, build
from emloom.nn.multires_autoencoder import MultiResolutionEncoder, MultiResolutionSpec
from emloom.nn.objectives.artifacts import ArtifactsObjective
from emloom.nn.patchnet import PatchNet, PatchNetSpec
from emloom.nn.patchparity import check_patches
from emloom.nn.patchpredict import PatchPredictor, lattice_over, map_shape
from emloom.nn.pooled_encoder import PooledEncoder, PooledEncoderSpec
from emloom.nn.preprocess import Preprocessing

SKIPS = PatchNetSpec(encoder=MultiResolutionSpec(f=2, n_latent=24), hidden=(8,))
LIGHT = PatchNetSpec.light(sections=3, f=4)
SHALLOW = PatchNetSpec(
    encoder=MultiResolutionSpec(f=2, n_latent=8, convolutions=(1, 1, 1), skip=False, batch_norm=False), hidden=()
)
GRID = Grid((40.0, 4.0, 4.0), (0.0, 0.0, 0.0))


def net_of(spec: PatchNetSpec, seed: int = 0) -> PatchNet:
    torch.manual_seed(seed)
    net = PatchNet(spec, "artifacts", 2)
    for part in net.modules():  # norms that do something
        if isinstance(part, nn.BatchNorm3d):
            part.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return net.eval()


def raw_of(*shape: int, seed: int = 0) -> ArrayVolume:
    noise = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return ArrayVolume(noise, GRID, kind="raw")


def patchwise(net: PatchNet, sections: torch.Tensor, step: int, batch: int) -> torch.Tensor:
    """Return the slow obvious answer, ``[C, Z, Y, X]``."""
    depth, size = net.spec.sections, net.spec.encoder.patch
    rows, columns = ((n - size) // step + 1 for n in sections.shape[1:])
    patches = torch.stack(
        [
            sections[z : z + depth, step * j : step * j + size, step * i : step * i + size]
            for z in range(len(sections) - depth + 1)
            for j in range(rows)
            for i in range(columns)
        ]
    )
    with torch.inference_mode():
        answers = torch.cat([net(part[:, None])["artifacts"] for part in patches.split(batch)])
    return answers.flatten(1).T.reshape(2, -1, rows, columns)


@pytest.mark.parametrize("spec", [SKIPS, LIGHT, SHALLOW], ids=["skips", "light", "shallow"])
@pytest.mark.parametrize("step", [16, 32, 48])
def test_strides_of_the_encoder_are_answered_as_patches(spec: PatchNetSpec, step: int) -> None:
    net = net_of(spec)
    size = spec.encoder.patch
    sections = torch.randn(spec.sections + 1, size + 2 * step + 5, size + step)
    with torch.inference_mode():
        dense = net.dense(sections, step)
    slow = patchwise(net, sections, step, batch=4)
    assert dense.shape == slow.shape == (2, 2, 3, 2)
    assert (dense.sigmoid() - slow.sigmoid()).abs().max() <= 1e-6


@pytest.mark.parametrize("spec", [SKIPS, LIGHT], ids=["skips", "light"])
def test_in_double_precision_hardly_anything_differs(spec: PatchNetSpec) -> None:
    net = net_of(spec).double()
    sections = torch.randn(spec.sections, 140 + 64, 140 + 32, dtype=torch.float64)
    with torch.inference_mode():
        assert (net.dense(sections, 32) - patchwise(net, sections, 32, batch=3)).abs().max() <= 1e-12


@pytest.mark.parametrize("spec", [SKIPS, LIGHT, SHALLOW], ids=["skips", "light", "shallow"])
@pytest.mark.parametrize("step", [35, 28, 7])
def test_any_other_step_shares_the_first_levels(spec: PatchNetSpec, step: int) -> None:
    net = net_of(spec)
    size = spec.encoder.patch
    sections = torch.randn(spec.sections + 1, size + 2 * step, size + 3 * step + 3)
    with torch.inference_mode():
        dense = net.dense(sections, step)
    slow = patchwise(net, sections, step, batch=12)
    assert dense.shape == slow.shape == (2, 2, 3, 4)
    assert (dense.sigmoid() - slow.sigmoid()).abs().max() <= 1e-6


def test_step_35_is_shared_bit_for_bit() -> None:
    net = net_of(SKIPS)
    sections = torch.randn(1, 140 + 35 * 3, 140 + 35 * 2)
    with torch.inference_mode():
        dense = net.dense(sections, 35)
    assert torch.equal(dense, patchwise(net, sections, 35, batch=12))


def test_the_original_has_its_layers() -> None:
    with torch.device("meta"):
        net = PatchNet(PatchNetSpec.original(), "artifacts", 2)
    shapes = {
        name: tuple(part.weight.shape) for name, part in net.encoder.layers.named_modules() if name.endswith(".0")
    }  # type: ignore[union-attr,arg-type]
    assert shapes["conv11.0"] == (16, 1, 1, 3, 3)
    assert shapes["conv32.0"] == (96, 64, 1, 3, 3)
    assert shapes["conv42.0"] == (192, 128, 1, 3, 3)
    assert shapes["latent.0"] == (2048, 31744, 1, 1, 1)
    convolutions = [part for part in net.encoder.modules() if isinstance(part, nn.Conv3d)]
    weights = [sum(p.numel() for p in part.parameters()) for part in convolutions]
    table = [160, 2320, 4640, 9248, 18496, 55392, 73856, 221376, 295168, 590080, 65013760]
    assert weights == table
    heads = [
        sum(p.numel() for p in part.parameters()) for part in net.classifier.layers if isinstance(part, nn.Conv3d)
    ]
    assert heads == [2048 * 256 + 256, 256 * 24 + 24, 24 * 2 + 2]


def test_the_light_encoder_weighs_a_fortieth() -> None:
    light = PooledEncoder(PooledEncoderSpec())
    with torch.device("meta"):
        original = MultiResolutionEncoder(MultiResolutionSpec())
    assert sum(p.numel() for p in light.parameters()) * 40 < sum(p.numel() for p in original.parameters())


def test_a_bright_spot_anywhere_reaches_the_light_latent() -> None:
    encoder = PooledEncoder(PooledEncoderSpec()).eval()
    x = torch.zeros(1, 1, 1, 140, 140, requires_grad=True)
    encoder(x + 0.1 * torch.randn_like(x)).sum().backward()
    assert x.grad is not None
    assert (x.grad[0, 0, 0, 4:-4, 4:-4] != 0).float().mean() > 0.95


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sections": 2}, "no middle one"),
        ({"sections": 3}, "in_channels"),
        ({"hidden": (0,)}, "at least 1 unit"),
        ({"encoder": PooledEncoderSpec.model_construct(cells=2)}, ""),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes: dict[str, object], says: str) -> None:
    if not says:
        with pytest.raises(ValueError, match="do not divide"):
            PooledEncoderSpec(cells=3)
        return
    with pytest.raises(ValueError, match=says):
        PatchNetSpec(**changes)  # type: ignore[arg-type]


def test_a_crop_that_is_no_patch_is_refused() -> None:
    net = net_of(SKIPS)
    with pytest.raises(InputError, match=r"\(64, 64, 64\) voxels is no patch"):
        net.input_shape((64, 64, 64))
    with pytest.raises(InputError, match="a patch needs"):
        net.dense(torch.zeros(1, 139, 200), 32)


# ---- maps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [16, 32, 35])
def test_a_map_covers_its_volume_and_says_where_its_patches_lie(step: int) -> None:
    lattice = lattice_over((1, 140, 140), step)
    shape = map_shape((3, 300, 257), lattice)
    assert shape == (3, -(-300 // step), -(-257 // step))
    grid = lattice.map_grid(GRID)
    assert Lattice.of_map(grid, GRID, (1, 140, 140)) == lattice
    if step % 2 == 0:
        assert grid.offset_nm == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("spec", [LIGHT, SKIPS], ids=["light", "skips"])
def test_a_map_says_what_single_patches_say_also_at_the_border(spec: PatchNetSpec) -> None:
    net, raw = net_of(spec), raw_of(2, 200, 180)
    predictor = PatchPredictor(net, Preprocessing(), step=32)
    whole = Box.whole(map_shape(raw.info.shape, predictor.lattice))
    found = predictor.map(raw, whole)
    slow = predictor.patches(raw, predictor.lattice.starts(whole)).T.reshape(found.shape)
    assert np.abs(1 / (1 + np.exp(-found)) - 1 / (1 + np.exp(-slow))).max() <= 1e-6


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_any_part_of_a_map_has_the_bits_of_the_whole(data: st.DataObject) -> None:
    predictor = PatchPredictor(net_of(LIGHT), Preprocessing(), step=32)
    predictor.longest = 3
    raw = raw_of(3, 210, 250)
    whole = Box.whole(map_shape(raw.info.shape, predictor.lattice))
    low = [data.draw(st.integers(0, n - 1)) for n in whole.shape]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, whole.shape, strict=True)]
    part = Box.of(low, high)
    assert np.array_equal(predictor.map(raw, part), predictor.map(raw, whole)[:, *part.slices()])


def test_prediction_evaluates_whatever_mode_the_network_is_in() -> None:
    net, raw = net_of(SKIPS), raw_of(1, 180, 180)
    box = Box.whole((1, 2, 2))
    expected = PatchPredictor(net, Preprocessing(), step=32).map(raw, box)
    net.train()
    net.classifier.eval()
    found = PatchPredictor(net, Preprocessing(), step=32).map(raw, box)
    assert np.array_equal(found, expected)
    assert net.training
    assert not net.classifier.training  # modes are left as they were


def test_a_network_that_diverged_is_named() -> None:
    net = net_of(LIGHT)
    with torch.no_grad():
        next(net.classifier.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="diverged"):
        PatchPredictor(net, Preprocessing()).map(raw_of(1, 150, 150), Box.whole((1, 1, 1)))


# ---- parity: the lesson of 0.98 -> 0.07 ---------------------------------------------------------------------


def model_of(spec: PatchNetSpec) -> ModelSpec:
    return ModelSpec(
        objective=ArtifactsObjective(presume_clean=True), network=spec, voxel_size_nm=GRID.voxel_size_nm
    )


@pytest.mark.parametrize("spec", [LIGHT, SKIPS], ids=["light", "skips"])
def test_training_and_prediction_agree(spec: PatchNetSpec) -> None:
    model = model_of(spec)
    net = build(model)
    assert isinstance(net, PatchNet)
    found = check_patches(model, net, raw_of(4, 300, 300), samples=9)
    assert found.patches == 9
    assert found.holds, found.differences
    assert found.worst[1] <= 1e-6


@contextlib.contextmanager
def in_training(net: nn.Module) -> Iterator[None]:
    """The fault of the original: nobody called eval()."""
    net.train()
    yield


@pytest.fixture
def _forgotten_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchpredict, "evaluating", in_training)
    monkeypatch.setattr(patchpredict, "require_evaluating", lambda net: None)


@pytest.mark.usefixtures("_forgotten_eval")
def test_a_model_left_in_train_mode_is_caught() -> None:
    model = model_of(SKIPS)
    torch.manual_seed(0)
    net = build(model)
    assert isinstance(net, PatchNet)
    found = check_patches(model, net, raw_of(4, 300, 300), samples=9)
    assert not found.holds
    assert found.worst[0].startswith("prediction")
    assert found.worst[1] > 100 * patchparity.LARGEST


def test_a_part_that_is_still_in_training_is_refused() -> None:
    net = net_of(LIGHT)
    net.classifier.train()
    with pytest.raises(RuntimeError, match="classifier is in training"):
        patchpredict.require_evaluating(net)


def test_a_volume_smaller_than_a_patch_has_no_parity() -> None:
    model = model_of(LIGHT)
    net = build(model)
    assert isinstance(net, PatchNet)
    with pytest.raises(InputError, match="holds no patch"):
        check_patches(model, net, raw_of(2, 100, 300))
