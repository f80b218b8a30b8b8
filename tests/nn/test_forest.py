"""A forest as a model: its file, where it computes, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn import forestfit
from emloom.nn.coding import Shares
from emloom.nn.engine import Engine
from emloom.nn.forest import Forest, ForestBackend
from emloom.nn.forestfit import fit_forest, losses_by_group
from emloom.nn.forestspec import ForestSpec, IntensitySpec, MultiScaleSpec, Original8Spec
from emloom.nn.model import ModelSpec, build, load, save
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.objectives.semantic import SemanticClass, SemanticObjective
from emloom.nn.patchdetector import load_detector
from emloom.nn.predict import Predictor, predict
from emloom.nn.transfer import StartSpec, start_from
from emloom.nn.unet import UNetSpec
from emloom.ops.forest import class_shares

OBJECTIVE = SemanticObjective(classes=tuple(SemanticClass(name=n, ids=(i,)) for i, n in enumerate("abc")))
VOXEL = (20.0, 5.0, 5.0)
FEATURES = [MultiScaleSpec(sigmas_nm=(5.0, 15.0)), MultiScaleSpec(sigmas_nm=(5.0,), dimensions=2), Original8Spec()]


def trained(features: Any = FEATURES[0], seed: int = 0) -> tuple[ModelSpec, Forest]:
    spec = ModelSpec(
        objective=OBJECTIVE, network=ForestSpec(features=features, trees=7, seed=seed), voxel_size_nm=VOXEL
    )
    forest = build(spec)
    assert isinstance(forest, Forest)
    random = np.random.default_rng(seed)
    rows = random.normal(size=(300, len(forest.features.names))).astype(np.float32)
    assert isinstance(spec.network, ForestSpec)
    forest.grow(*fit_forest(spec.network, rows, random.integers(0, 3, 300).astype(np.uint8), 3, 1))
    return spec, forest


def raw_volume(shape: tuple[int, int, int] = (7, 40, 45)) -> ArrayVolume:
    return ArrayVolume(np.random.default_rng(3).integers(0, 255, shape, np.uint8), Grid(VOXEL))


def test_a_file_brings_back_the_same_forest_and_nothing_is_pickled(tmp_path: Path) -> None:
    spec, forest = trained()
    save(tmp_path / "model.safetensors", spec, forest.state_dict(), {})
    again, loaded, _ = load(tmp_path / "model.safetensors")
    assert again == spec
    assert isinstance(loaded, Forest)
    raw = np.random.default_rng(0).normal(size=loaded.input_shape((2, 5, 6))).astype(np.float32)
    assert np.array_equal(forest.shares(raw), loaded.shares(raw, 2))
    assert torch.equal(forest.importances, loaded.importances)
    assert forest.importances.sum() == pytest.approx(1, abs=1e-5)
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert set(file.keys()) == {
            *(f"tree_{name}" for name in ("roots", "feature", "threshold", "children", "shares")),
            "importances",
        }


@pytest.mark.parametrize("features", FEATURES, ids=lambda spec: spec.kind)
@pytest.mark.parametrize(
    "engine", [Engine(), Engine("cuda", "auto", "bf16", threads=2), Engine(backend="openvino")]
)
def test_tiles_agree_with_the_whole_to_the_bit_wherever_it_computes(features: Any, engine: Engine) -> None:
    spec, forest = trained(features)
    raw = raw_volume()
    predictor = Predictor(forest, spec.preprocessing, engine, {"classes": Shares()})
    assert isinstance(predictor.backend, ForestBackend)
    assert predictor.backend.name == "forest"
    found = []
    for tile in ((7, 48, 48), (2, 16, 32)):
        out = ArrayVolume(np.zeros((3, 7, 40, 45), np.uint8), raw.grid)
        predict(predictor, raw, {"classes": out}, tile_shape=tile)
        found.append(out.array)
    assert np.array_equal(*found)
    assert np.abs(found[0].astype(int).sum(axis=0) - 255).max() <= 2
    part = ArrayVolume(np.zeros((3, 3, 7, 9), np.uint8), raw.grid.crop(Box((2, 30, 33), (3, 7, 9))))
    predict(predictor, raw, {"classes": part}, box=Box((2, 30, 33), (3, 7, 9)))
    assert np.array_equal(part.array, found[0][:, 2:5, 30:37, 33:42])


def test_what_is_stored_is_the_share_in_255ths() -> None:
    spec, forest = trained(Original8Spec())
    raw = spec.preprocessing(np.random.default_rng(0).integers(0, 255, (1, 12, 12), np.uint8))
    stored = ForestBackend(forest, 1)(torch.from_numpy(raw)[None, None])["classes"]
    features = forest.features.compute(raw)
    shares = class_shares(features.reshape(8, -1), forest.trees).reshape(stored.shape)
    assert np.abs(stored - 255.0 * shares).max() <= 0.5001
    logits = forest.interior(torch.from_numpy(raw)[None, None])["classes"][0]
    assert logits.softmax(dim=0).numpy() == pytest.approx(shares, abs=1e-6)


def test_the_same_seed_grows_the_same_forest_with_any_threads() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    classes = (rows[:, 0] > 0).astype(np.uint8)
    spec = ForestSpec(trees=5)
    one, other = fit_forest(spec, rows, classes, 2, 1), fit_forest(spec, rows, classes, 2, 2)
    assert all(np.array_equal(a, b) for a, b in zip(one[0], other[0], strict=True))
    different = fit_forest(spec.model_copy(update={"seed": 1}), rows, classes, 2, 1)
    assert not np.array_equal(one[0].threshold, different[0].threshold)


def test_a_rare_class_weighs_as_much_as_a_common_one() -> None:
    """Of two classes that nothing tells apart each has about half, though one is ten times as common."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(4400, 2)).astype(np.float32)
    classes = (np.arange(4400) < 400).astype(np.uint8)
    trees, _ = fit_forest(ForestSpec(trees=20, leaf=200), rows, classes, 2, 1)
    assert class_shares(np.ascontiguousarray(rows.T), trees)[1].mean() == pytest.approx(0.5, abs=0.05)


def test_only_a_group_that_matters_is_missed_where_it_is_shuffled() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(600, 4)).astype(np.float32)
    rows[:, 1] = rows[:, 0]  # says the same: one of them is hardly missed
    classes = (rows[:, 0] > 0).astype(np.uint8)
    trees, shares = fit_forest(ForestSpec(trees=20), rows, classes, 2, 1)
    groups = {"first": [0], "second": [1], "both": [0, 1], "others": [2, 3]}
    before = rows.copy()
    recall, lost = losses_by_group(trees, rows, classes, groups, 0)
    assert recall > 0.97
    assert lost["both"] > 0.4
    assert min(lost["first"], lost["second"]) < 0.3
    assert abs(lost["others"]) < 0.05
    assert shares[:2].sum() > 0.8
    assert np.array_equal(rows, before)


# ---- what is refused ------------------------------------------------------------------------------------------


def test_an_untrained_forest_does_not_answer() -> None:
    forest = build(ModelSpec(objective=OBJECTIVE, network=ForestSpec(), voxel_size_nm=VOXEL))
    assert isinstance(forest, Forest)
    with pytest.raises(InputError, match="train it first"):
        forest.shares(np.zeros(forest.input_shape((1, 1, 1)), np.float32))


@pytest.mark.parametrize("change", ["missing", "feature", "importances", "classes"])
def test_a_damaged_file_is_refused(change: str, tmp_path: Path) -> None:
    spec, forest = trained()
    state = dict(forest.state_dict())
    if change == "missing":
        del state["tree_children"]
    elif change == "feature":
        state["tree_feature"] = state["tree_feature"] + 1000
    elif change == "importances":
        state["importances"] = state["importances"][:-1]
    else:
        state["tree_shares"] = state["tree_shares"][:, :2]
    save(tmp_path / "model.safetensors", spec, state, {})
    with pytest.raises(InputError, match=r"model\.safetensors do not fit"):
        load(tmp_path / "model.safetensors")


def test_a_net_and_a_forest_are_not_taken_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "forest.safetensors"
    spec, forest = trained()
    save(path, spec, forest.state_dict(), {})
    net_spec = ModelSpec(objective=OBJECTIVE, network=UNetSpec.lean(), voxel_size_nm=VOXEL)
    net = build(net_spec)
    with pytest.raises(InputError, match="weights"):  # the start of a training
        start_from(StartSpec(model=str(path)), net)
    with pytest.raises(InputError, match="not a fitted detector"):
        load_detector(path)
    save(tmp_path / "net.safetensors", spec, net.state_dict(), {})
    with pytest.raises(InputError, match="do not fit the network"):
        load(tmp_path / "net.safetensors")
    save(tmp_path / "other.safetensors", net_spec, forest.state_dict(), {})
    with pytest.raises(InputError, match="do not fit the network"):
        load(tmp_path / "other.safetensors")


def test_a_forest_learns_classes_only() -> None:
    with pytest.raises(ValueError, match="'neurons' cannot learn with the network 'forest'"):
        ModelSpec(objective=NeuronsObjective(), network=ForestSpec(), voxel_size_nm=VOXEL)


def test_without_scikit_learn_training_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forestfit, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'emloom\[forest\]'"):
        trained()


def test_sigmas_that_do_not_fit_the_voxels_are_named() -> None:
    with pytest.raises(InputError, match="sigma 1 nm is below half a voxel"):
        MultiScaleSpec(sigmas_nm=(1.0, 5.0)).of(VOXEL)
    with pytest.raises(InputError, match="ascending"):
        MultiScaleSpec(sigmas_nm=(5.0, 3.0)).of(VOXEL)
    with pytest.raises(ValueError, match="name each once"):
        MultiScaleSpec(families=("gaussian", "gaussian"))
    assert IntensitySpec().of(VOXEL).names == ("intensity",)
    assert MultiScaleSpec().of(VOXEL).names[1] == "gaussian 3.5 nm 2d"
