"""Features of patches: one path for all, the same alone, in company and on a tile; and files of detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.lattice import Lattice
from emloom.io.volume import ArrayVolume, read_padded
from emloom.nn.anomaly import DeviationSpec, LinearProbeSpec, MemoryBankSpec, NeighboursSpec
from emloom.nn.autoencoders import AnyAutoencoderSpec
from emloom.nn.level_autoencoders import AtrousAutoencoderSpec, FCNAutoencoderSpec, UNetAutoencoderSpec
from emloom.nn.model import ModelSpec, Network, build, save
from emloom.nn.multires_autoencoder import MultiResolutionSpec
from emloom.nn.objectives.artifacts import ArtifactsObjective
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.objectives.reconstruction import ReconstructionObjective
from emloom.nn.patchdetector import (
    BaselineSpec,
    DetectorSpec,
    fit_detector,
    load_detector,
    model_mark,
    save_detector,
)
from emloom.nn.patchfeatures import (
    ErrorFeatures,
    FeatureSpec,
    LatentFeatures,
    LevelFeatures,
    PatchFeatures,
    PixelFeatures,
    pixel_statistics,
)
from emloom.nn.patchnet import PatchNetSpec
from emloom.nn.preprocess import Preprocessing
from emloom.nn.variational import VariationalSpec

GRID = Grid((40.0, 4.0, 4.0))
# Levels of 28, 12 and 4 voxels: a patch of 32, latents every 4.
PLAIN = MultiResolutionSpec(f=2, n_latent=5, skip=False, convolutions=(2, 1, 1), window=4)
SKIPS = MultiResolutionSpec(f=2, n_latent=5, convolutions=(1, 1, 1, 1), window=2)
MODELS: dict[str, tuple[AnyAutoencoderSpec | PatchNetSpec, Vec]] = {
    "plain": (PLAIN, (1, PLAIN.patch, PLAIN.patch)),
    "skips": (SKIPS, (1, SKIPS.patch, SKIPS.patch)),
    "variational": (VariationalSpec(network=PLAIN), (1, PLAIN.patch, PLAIN.patch)),
    "classifier": (PatchNetSpec.light(sections=3, f=2), (1, 140, 140)),
    "fcn": (FCNAutoencoderSpec.of(width=2, levels=3), (1, 20, 18)),
    "unet3d": (UNetAutoencoderSpec.of(width=2, levels=3, flat_levels=1), (2, 16, 12)),
    "atrous": (AtrousAutoencoderSpec.of(width=2, levels=3), (1, 11, 12)),
}
each_model = pytest.mark.parametrize("name", MODELS)


def model(name: str) -> tuple[ModelSpec, Network]:
    network, _ = MODELS[name]
    objective = ArtifactsObjective(presume_clean=True) if name == "classifier" else ReconstructionObjective()
    spec = ModelSpec(
        objective=objective,
        network=network,
        preprocessing=Preprocessing(low=20, high=220),
        voxel_size_nm=GRID.voxel_size_nm,
    )
    torch.manual_seed(1)
    net = build(spec)
    for part in net.modules():  # statistics of a norm that was trained
        if isinstance(part, torch.nn.BatchNorm3d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
    return spec, net


def raw(shape: Vec = (4, 200, 210)) -> ArrayVolume:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return ArrayVolume(values, GRID, kind="raw")


def features(name: str, spec: FeatureSpec) -> PatchFeatures:
    return PatchFeatures(spec, MODELS[name][1], model(name))


STARTS = np.array([[1, 3, 7], [0, 40, 21], [3, -9, 60], [2, 55, 70], [1, 3, 7]], np.int64)
SPECS: list[FeatureSpec] = [LatentFeatures(), LevelFeatures(levels=(1, 3), cells=2), ErrorFeatures()]


# ---- company, order, tiles ------------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize("spec", SPECS, ids=[spec.kind for spec in SPECS])
def test_company_and_order_change_no_bit(name: str, spec: FeatureSpec) -> None:
    if name == "classifier" and spec.kind == "error":
        pytest.skip("a classifier reconstructs nothing")
    made = features(name, spec)
    together = made.of(raw(), STARTS)
    assert together.dtype == np.float32
    assert together.ndim == 3
    np.testing.assert_array_equal(made.of(raw(), STARTS[::-1]), together[::-1])
    np.testing.assert_array_equal(made.of(raw(), STARTS[2:3]), together[2:3])
    np.testing.assert_array_equal(together[0], together[4])
    assert len(np.unique(together.reshape(5, -1), axis=0)) == 4


@each_model
@pytest.mark.parametrize("spec", SPECS, ids=[spec.kind for spec in SPECS])
@pytest.mark.parametrize("step", [(16, 32), (6, 5)])
def test_a_tile_of_patches_has_the_features_of_each(name: str, spec: FeatureSpec, step: tuple[int, int]) -> None:
    if name == "classifier" and spec.kind == "error":
        pytest.skip("a classifier reconstructs nothing")
    made = features(name, spec)
    lattice = Lattice(MODELS[name][1], (1, *step), (0, -3, 2))
    indices = Box((1, 0, 1), (2, 3, 2))
    dense = made.of_lattice(raw(), lattice, indices)
    alone = made.of(raw(), lattice.starts(indices))
    assert dense.shape == alone.shape
    np.testing.assert_allclose(dense, alone, atol=2e-6 * max(1.0, float(np.abs(alone).max())))


def test_large_boxes_of_a_lattice_are_cut_into_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    made = features("plain", LatentFeatures())
    lattice = Lattice(MODELS["plain"][1], (1, 4, 8))
    indices = Box((0, 0, 0), (1, 9, 5))
    whole = made.of_lattice(raw(), lattice, indices)
    monkeypatch.setattr("emloom.nn.patchfeatures._TILE", 16)
    np.testing.assert_allclose(made.of_lattice(raw(), lattice, indices), whole, atol=1e-6)


@each_model
def test_a_network_left_in_training_says_the_same(name: str) -> None:
    spec, network = model(name)
    made = PatchFeatures(LatentFeatures(), MODELS[name][1], (spec, network.eval()))
    expected = made.of(raw(), STARTS)
    network.train()
    np.testing.assert_array_equal(made.of(raw(), STARTS), expected)
    assert all(part.training for part in network.modules())


# ---- what they are --------------------------------------------------------------------------------------------


def seen(name: str, start: np.ndarray, margin: int = 0) -> torch.Tensor:
    z, y, x = start.tolist()
    box = Box((z, y, x), MODELS[name][1]).grow((margin, 0, 0))
    return torch.from_numpy(Preprocessing(low=20, high=220)(read_padded(raw(), box)))[None, None]


def test_latents_are_those_of_the_networks() -> None:
    with torch.inference_mode():
        for name in ("plain", "skips", "variational"):
            _, network = model(name)
            network.eval()
            expected = network.latent(seen(name, STARTS[1])).flatten()
            found = features(name, LatentFeatures()).of(raw(), STARTS)[1, 0]
            np.testing.assert_allclose(found, expected, atol=1e-6)
        _, network = model("classifier")
        expected = network.eval().latents(seen("classifier", STARTS[1], 1)).flatten()
        found = features("classifier", LatentFeatures()).of(raw(), STARTS)[1, 0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_levels_are_those_of_a_large_section() -> None:
    # Away from faces, positions of a patch on the lattice are those of the whole.
    _, network = model("fcn")
    whole = torch.from_numpy(Preprocessing(low=20, high=220)(raw((1, 200, 208)).array))[None, None]
    with torch.inference_mode():
        levels = network.net.encode(whole)
    made = features("fcn", LevelFeatures(levels=(1, 2, 3), cells=1))
    found = made.of(raw((1, 200, 208)), np.array([[0, 80, 84]], np.int64))[0, 0]
    expected = [
        level[0, :, 0, 80 // s : -(-100 // s), 84 // s : 84 // s - (-18 // s)].mean(dim=(1, 2))
        for level, s in zip(levels, (1, 2, 4), strict=True)
    ]
    np.testing.assert_allclose(found, torch.cat(expected), atol=1e-6)


def test_cells_are_those_of_the_patch() -> None:
    values = np.zeros((1, 60, 60), np.uint8)
    values[0, 20:36, 20:36] = 255  # one of 2 x 2 cells
    volume = ArrayVolume(values, GRID, kind="raw")
    made = PatchFeatures(LevelFeatures(levels=(1,), cells=2), (1, 32, 32), model("fcn"))
    cells = made.of(volume, np.array([[0, 20, 20]], np.int64))[0]
    apart = np.abs(cells - cells[3]).max(axis=1)
    assert apart[0] > 5 * max(apart[1], apart[2])


@settings(max_examples=10)
@given(high_pass=st.sampled_from([None, 6.0, 40.0]), seed=st.integers(0, 100))
def test_errors_are_mean_squares(high_pass: float | None, seed: int) -> None:
    start = np.random.default_rng(seed).integers(0, 60, (1, 3)) % np.array([4, 99, 99])
    with torch.inference_mode():
        for name in ("plain", "fcn"):
            _, network = model(name)
            x = seen(name, start[0])[0, 0].numpy()
            found = features(name, ErrorFeatures(high_pass_nm=high_pass)).of(raw(), start)[0, 0, 0]
            if name == "plain":
                back = network.eval()(torch.from_numpy(x)[None, None])["reconstruction"][0, 0].numpy()
                if high_pass is None:
                    assert found == pytest.approx(np.mean((back - x) ** 2), rel=1e-5)
                else:
                    assert found < np.mean((back - x) ** 2) * 1.05
            assert found > 0


def test_a_difference_that_is_the_same_everywhere_is_no_high_frequency() -> None:
    spec, network = model("fcn")
    with torch.no_grad():  # answers 3 everywhere
        network.net.out.weight.zero_()
        network.net.out.bias.fill_(3.0)
    grey = ArrayVolume(np.full((1, 64, 64), 120, np.uint8), GRID, kind="raw")
    at = np.array([[0, 8, 8]], np.int64)
    shape = MODELS["fcn"][1]
    all_of_it = PatchFeatures(ErrorFeatures(), shape, (spec, network)).of(grey, at)
    fine = PatchFeatures(ErrorFeatures(high_pass_nm=20), shape, (spec, network)).of(grey, at)
    assert all_of_it[0, 0, 0] == pytest.approx(9.0)
    assert fine[0, 0, 0] < 1e-9


def test_statistics_of_pixels() -> None:
    patch = np.random.default_rng(0).normal(0.2, 0.5, (1, 40, 50)).astype(np.float32)
    found = pixel_statistics(patch)
    assert found.shape == (16,)
    assert found[:2] == pytest.approx([patch.mean(), patch.std()], rel=1e-6)
    assert found[5] == pytest.approx(np.median(patch), abs=1e-6)
    np.testing.assert_allclose(pixel_statistics(patch + 1)[2:9], found[2:9] + 1, atol=1e-5)
    np.testing.assert_allclose(pixel_statistics(2 * patch)[9:], 2 * found[9:], rtol=1e-5, atol=1e-6)
    blank = pixel_statistics(np.full((1, 9, 9), 0.25, np.float32))
    np.testing.assert_allclose(blank, [0.25, 0, *[0.25] * 7, *[0] * 5, 0.25, 0.25], atol=1e-7)


# ---- detectors and their files --------------------------------------------------------------------------------

BASELINES = [
    BaselineSpec(features=PixelFeatures(), scorer=LinearProbeSpec()),
    BaselineSpec(features=LatentFeatures(), scorer=LinearProbeSpec()),
    BaselineSpec(features=LatentFeatures(), scorer=NeighboursSpec(k=3)),
    BaselineSpec(features=LevelFeatures(), scorer=MemoryBankSpec(items=9)),
    BaselineSpec(features=ErrorFeatures(), scorer=DeviationSpec(sides="both")),
]
LABELS = np.array([0, 1, 0, 1, -1], np.int8)


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda spec: spec.name)
def test_a_detector_is_read_back_bit_for_bit(baseline: BaselineSpec, tmp_path: Path) -> None:
    spec, network = model("fcn")
    save(tmp_path / "model.safetensors", spec, network.state_dict(), {})
    mark = None if isinstance(baseline.features, PixelFeatures) else model_mark(spec, network)
    made = PatchFeatures(baseline.features, MODELS["fcn"][1], (spec, network))
    about = DetectorSpec(
        baseline=baseline,
        shape=MODELS["fcn"][1],
        voxel_size_nm=GRID.voxel_size_nm,
        preprocessing=spec.preprocessing,
        encoder=mark,
        threshold=0.25,
    )
    fitted = fit_detector(made, made.of(raw(), STARTS), LABELS, about)
    path = tmp_path / "detector.safetensors"
    save_detector(path, fitted)
    assert path.stat().st_size < 1 << 16
    back = load_detector(path, tmp_path / "model.safetensors")
    assert back.spec == fitted.spec
    np.testing.assert_array_equal(back.scores(raw(), STARTS), fitted.scores(raw(), STARTS))


def test_maps_of_the_memory_bank(tmp_path: Path) -> None:
    spec, network = model("fcn")
    baseline = BaselineSpec(features=LevelFeatures(levels=(2,), cells=3), scorer=MemoryBankSpec(neighbours=1))
    made = PatchFeatures(baseline.features, MODELS["fcn"][1], (spec, network))
    about = DetectorSpec(
        baseline=baseline,
        shape=MODELS["fcn"][1],
        voxel_size_nm=GRID.voxel_size_nm,
        preprocessing=spec.preprocessing,
        encoder="x",
    )
    detector = fit_detector(made, made.of(raw(), STARTS), LABELS, about)
    maps = detector.anomaly_maps(raw(), STARTS)
    assert maps.shape == (5, 3, 3)
    np.testing.assert_array_equal(maps[LABELS == 0], 0)
    np.testing.assert_array_equal(maps.max(axis=(1, 2)), detector.scores(raw(), STARTS))


def test_another_model_is_refused(tmp_path: Path) -> None:
    spec, network = model("fcn")
    baseline = BASELINES[1]
    made = PatchFeatures(baseline.features, MODELS["fcn"][1], (spec, network))
    about = DetectorSpec(
        baseline=baseline,
        shape=MODELS["fcn"][1],
        voxel_size_nm=GRID.voxel_size_nm,
        preprocessing=spec.preprocessing,
        encoder=model_mark(spec, network),
    )
    path = tmp_path / "detector.safetensors"
    save_detector(path, fit_detector(made, made.of(raw(), STARTS), LABELS, about))
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-6
    save(tmp_path / "other.safetensors", spec, network.state_dict(), {})
    with pytest.raises(InputError, match="features of another model"):
        load_detector(path, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="name the checkpoint"):
        load_detector(path)
    with pytest.raises(InputError, match="not a fitted detector"):
        load_detector(tmp_path / "other.safetensors")
    coarse = ArrayVolume(raw().array, Grid((40.0, 8.0, 8.0)), kind="raw")
    with pytest.raises(InputError, match="the detector was fitted on"):
        fit_detector(made, made.of(raw(), STARTS), LABELS, about).scores(coarse, STARTS)
    with pytest.raises(InputError, match="has no map"):
        fit_detector(made, made.of(raw(), STARTS), LABELS, about).anomaly_maps(raw(), STARTS)


# ---- what is refused ------------------------------------------------------------------------------------------


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(InputError, match="those of a model"):
        PatchFeatures(LatentFeatures(), (1, 8, 8))
    with pytest.raises(InputError, match="the model knows"):
        PatchFeatures(LatentFeatures(), (1, 8, 8), model("plain"))
    with pytest.raises(InputError, match="has levels 1 to 3"):
        PatchFeatures(LevelFeatures(levels=(4,)), (1, 8, 8), model("fcn"))
    with pytest.raises(InputError, match="gives nothing back"):
        features("classifier", ErrorFeatures()).of(raw(), STARTS)
    with pytest.raises(InputError, match="no patch"):
        features("fcn", LatentFeatures()).of(raw(), STARTS[:0])
    with pytest.raises(InputError, match="of patches of"):
        features("fcn", LatentFeatures()).of_lattice(raw(), Lattice((1, 8, 8), (1, 8, 8)), Box.whole((1, 1, 1)))
    colour = ArrayVolume(np.zeros((3, 2, 99, 99), np.uint8), GRID)
    with pytest.raises(InputError, match="czyx"):
        PatchFeatures(PixelFeatures(), (1, 8, 8)).of(colour, STARTS[:1])
    spec = ModelSpec(objective=NeuronsObjective(), voxel_size_nm=GRID.voxel_size_nm)
    with pytest.raises(InputError, match="learned 'neurons'"):
        PatchFeatures(LatentFeatures(), (1, 8, 8), (spec, build(spec)))


def test_errors_are_for_deviations_alone() -> None:
    for wrong in (
        {"features": {"kind": "error"}, "scorer": {"kind": "linear_probe"}},
        {"features": {"kind": "latent"}, "scorer": {"kind": "deviation"}},
    ):
        with pytest.raises(InputError, match="a deviation is that of one number"):
            BaselineSpec.from_dict(wrong)
