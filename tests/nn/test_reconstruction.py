"""The objective reconstruction: what is shown, what counts, what is learned; resume == uninterrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.augment import AugmentSpec
from emloom.nn.autoencoders import AnyAutoencoderSpec
from emloom.nn.crops import TrainingVolume
from emloom.nn.hardware import Hardware
from emloom.nn.level_autoencoders import AtrousAutoencoderSpec, FCNAutoencoderSpec, UNetAutoencoderSpec
from emloom.nn.model import ModelSpec, build, load
from emloom.nn.multires_autoencoder import MultiResolutionSpec
from emloom.nn.objectives.base import Rendered, Validated
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.objectives.reconstruction import (
    DivergenceSpec,
    GaussianNoise,
    HiddenBlocks,
    PoissonNoise,
    ReconstructionObjective,
)
from emloom.nn.patchnet import PatchNetSpec
from emloom.nn.plan import Noise, SamplePlan
from emloom.nn.preprocess import Preprocessing
from emloom.nn.resunet import ResUNetSpec
from emloom.nn.samples import CropShape, SampleMaker, TrainingSamples
from emloom.nn.strategies import Foreground
from emloom.nn.train import OptimizerSpec, Progress, TrainingData, TrainingSpec, train
from emloom.nn.unet import UNetSpec
from emloom.nn.variational import Posterior, VariationalSpec

GRID = Grid((10.0, 5.0, 5.0))
HERE = Hardware("cpu", 1, 0)
SMALL = UNetAutoencoderSpec.of(width=2, levels=3)
TINY_PATCHES = MultiResolutionSpec(f=1, n_latent=4, skip=False, batch_norm=False)
ONE = Box((0, 0, 0), (1, 16, 16))


def micrograph(shape: tuple[int, int, int] = (6, 64, 64)) -> TrainingVolume:
    """Discs on a slope, with a little noise; nobody labelled it."""
    z, y, x = np.indices(shape)
    discs = np.hypot((y + 3 * z) % 16 - 8, x % 16 - 8) < 5
    raw = np.where(discs, 70, 170) + y // 4 + np.random.default_rng(0).integers(0, 9, shape)
    volume = ArrayVolume(raw.astype(np.uint8), GRID, "raw")
    return TrainingVolume(volume, None, Box.whole(shape), (Box((4, 0, 0), (2, *shape[1:])),))


def model(network: AnyAutoencoderSpec = SMALL, **objective: Any) -> ModelSpec:
    return ModelSpec(
        objective=ReconstructionObjective(**objective), network=network, voxel_size_nm=GRID.voxel_size_nm
    )


def rendered(seed: int = 0, values: Any = None) -> Rendered:
    raw = np.random.default_rng(7).uniform(-1, 1, ONE.shape).astype(np.float32) if values is None else values
    return Rendered(raw, raw, np.zeros(ONE.shape, np.uint8), np.zeros(ONE.shape, np.uint8), ONE, seed)


TRAINING = TrainingSpec(
    steps=6,
    crop_shape_vox=(1, 16, 16),
    batch_size=2,
    validate_every=2,
    augment=AugmentSpec.none(),
    precision="32-true",
)
VALIDATION = [(0, Box((4, 0, 0), (2, 32, 32)))]


def run(folder: Path, spec: ModelSpec, training: TrainingSpec = TRAINING, on_step: Any = lambda _: None) -> Path:
    return train(spec, training, TrainingData([micrograph()], VALIDATION), folder, HERE, on_step)


# ---- what is shown, and what counts -----------------------------------------------------------------------------


def test_without_corruption_the_input_is_the_target() -> None:
    shown, targets = ReconstructionObjective().sample(rendered(), GRID)
    clean, weight = targets["reconstruction"]
    assert torch.equal(shown, clean)
    assert torch.equal(weight, torch.ones_like(weight))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**63 - 1), st.sampled_from(["masked", "gaussian", "poisson"]))
def test_a_corrupted_sample_is_a_function_of_its_seed_alone(seed: int, kind: str) -> None:
    corruption = {
        "masked": HiddenBlocks(fraction=0.5, block_vox=(1, 4, 4)),
        "gaussian": GaussianNoise(sigma=0.3),
        "poisson": PoissonNoise(quanta=40),
    }[kind]
    objective = ReconstructionObjective(corruption=corruption)
    made = rendered(seed)
    before = made.raw.copy()
    a, b = objective.sample(made, GRID), objective.sample(made, GRID)
    assert torch.equal(a[0], b[0])
    np.testing.assert_array_equal(made.raw, before)
    clean, weight = a[1]["reconstruction"]
    np.testing.assert_array_equal(clean[0].numpy(), before)
    other, _ = objective.sample(rendered(seed ^ 1), GRID)
    assert not torch.equal(a[0], other)
    if kind == "masked":
        assert float(weight.mean()) == 0.5
        assert torch.equal(a[0][weight == 0], clean[weight == 0])
        assert bool((a[0][weight == 1] == 0).all())
    else:
        assert float(weight.min()) == 1


def test_counting_noise_has_the_variance_of_counts() -> None:
    values = np.full(ONE.shape, 0.5, np.float32)  # three quarters of the range from low to high
    objective = ReconstructionObjective(corruption=PoissonNoise(quanta=100))
    shown = torch.stack([objective.sample(rendered(seed, values), GRID)[0] for seed in range(200)]).double()
    assert float(shown.mean()) == pytest.approx(0.5, abs=0.005)
    # A value v in [0, 1] has variance v / quanta; the range of preprocessing is 2.
    assert float(shown.var()) == pytest.approx(4 * 0.75 / 100, rel=0.03)


def test_what_augmentation_spoils_is_not_in_the_target() -> None:
    maker = SampleMaker(model(), [micrograph()], CropShape((1, 16, 16), (1, 16, 16)))
    plan = SamplePlan(source=0, start=(0, 0, 0), noise=Noise(sigma=0.2, seed=3))
    shown, targets = maker.make(plan)
    plain, _ = maker.make(plan.model_copy(update={"noise": None}))
    assert not torch.equal(shown, plain)
    assert torch.equal(targets["reconstruction"][0], plain)


# ---- the loss ---------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["squared", "absolute"]))
def test_only_what_has_weight_counts(seed: int, kind: str) -> None:
    g = torch.Generator().manual_seed(seed)
    y, x = torch.randn(2, 1, 1, 8, 8, generator=g), torch.randn(2, 1, 1, 8, 8, generator=g)
    w = (torch.rand(2, 1, 1, 8, 8, generator=g) < 0.3).float()
    objective = ReconstructionObjective(loss_kind=kind)  # type: ignore[arg-type]
    total, parts = objective.loss({"reconstruction": y}, {"reconstruction": (x, w)})
    chosen = (y - x)[w > 0]
    wanted = (chosen**2 if kind == "squared" else chosen.abs()).mean() if len(chosen) else torch.tensor(0.0)
    assert float(total) == pytest.approx(float(wanted), rel=1e-5, abs=1e-7)
    assert parts["reconstruction"] == total
    spoiled = torch.where(w > 0, y, torch.full_like(y, float("nan")))
    assert objective.loss({"reconstruction": spoiled}, {"reconstruction": (x, w)})[0] == total


def test_the_divergence_grows_in_a_straight_line_and_is_per_voxel() -> None:
    objective = ReconstructionObjective(divergence=DivergenceSpec(weight=0.4, warmup_steps=10))
    x = torch.zeros(3, 1, 1, 4, 4)
    mu, logvar = torch.randn(3, 5, 1, 1, 1), torch.randn(3, 5, 1, 1, 1)
    answers = {"reconstruction": x, "mu": mu, "logvar": logvar}
    targets = {"reconstruction": (x, torch.ones_like(x))}
    expected = Posterior(mu, logvar).divergence().mean() / 16
    for step, weight in ((0, 0.0), (5, 0.2), (10, 0.4), (99, 0.4)):
        total, parts = objective.loss(answers, targets, step)
        assert float(total) == pytest.approx(weight * float(expected), rel=1e-6)
        assert float(parts["divergence"]) == pytest.approx(float(expected))


# ---- training ---------------------------------------------------------------------------------------------------


class Stop(KeyboardInterrupt):
    """Ctrl-C at a chosen step."""


@pytest.mark.parametrize(
    ("network", "crop"),
    [
        (UNetAutoencoderSpec.of(width=2, levels=3, skip_dropout=0.5), (1, 16, 16)),
        (VariationalSpec(network=TINY_PATCHES), (1, 140, 140)),
    ],
    ids=["skip dropout", "variational"],
)
def test_networks_that_draw_resume_bit_for_bit(
    network: AnyAutoencoderSpec, crop: tuple[int, int, int], tmp_path: Path
) -> None:
    # Law: resume == uninterrupted, for nets that draw in their forward pass, too.
    training = TRAINING.model_copy(update={"crop_shape_vox": crop, "steps": 4})
    volume = micrograph((6, 144, 144))
    data = TrainingData([volume], [(0, Box((4, 0, 0), (2, 144, 144)))])

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise Stop

    spec = model(network, corruption=GaussianNoise(sigma=0.2))
    whole = train(spec, training, data, tmp_path / "whole", HERE)
    torch.manual_seed(12345)
    before = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        train(spec, training, data, tmp_path / "cut", HERE, stop)
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's randomness is its own
    resumed = train(spec, training, data, tmp_path / "cut", HERE)
    a, b = (dict(load(path)[1].state_dict()) for path in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns_to_reconstruct(tmp_path: Path) -> None:
    seen: list[float] = []
    training = TRAINING.model_copy(
        update={"steps": 120, "validate_every": 40, "optimizer": OptimizerSpec(learning_rate=1e-2)}
    )
    run(tmp_path, model(), training, lambda p: seen.append(p.validation) if p.validation is not None else None)
    assert seen[-1] < 0.75 * seen[0]


def test_training_refuses_a_tile_that_does_not_pool_and_names_the_next_size(tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"crop_shape_vox": (1, 30, 32)})
    with pytest.raises(InputError, match=r"\(1, 28, 32\) and \(1, 32, 32\)"):
        run(tmp_path, model(), training)
    assert not (tmp_path / "state.safetensors").exists()


def test_volumes_without_labels_teach_neurons_nothing() -> None:
    spec = ModelSpec(
        objective=NeuronsObjective(),
        network=UNetSpec(features=(4, 6), factors=((2, 2, 2),)),
        voxel_size_nm=GRID.voxel_size_nm,
    )
    with pytest.raises(InputError, match="has no labels"):
        SampleMaker(spec, [micrograph()], CropShape((1, 16, 16), (1, 16, 16)))


def test_without_labels_crops_cannot_be_chosen_by_them() -> None:
    maker = SampleMaker(model(), [micrograph()], CropShape((1, 16, 16), (1, 16, 16)))
    with pytest.raises(InputError, match="no labels to choose crops by"):
        TrainingSamples(maker, TRAINING.model_copy(update={"sampling": Foreground()}), 4)


@pytest.mark.parametrize(
    ("objective", "network", "word"),
    [
        (NeuronsObjective(), SMALL, "a backbone"),
        (ReconstructionObjective(), PatchNetSpec(), "an autoencoder"),
        (ReconstructionObjective(), ResUNetSpec(supervision=1), "set its supervision to 0"),
    ],
)
def test_objectives_and_networks_that_do_not_fit_are_refused(objective: Any, network: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ModelSpec(objective=objective, network=network, voxel_size_nm=GRID.voxel_size_nm)


# ---- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "shape", "names"),
    [
        (SMALL, (1, 16, 16), {"input | output | difference", "latents"}),
        (
            FCNAutoencoderSpec.of(width=2, levels=3, flat_levels=0),
            (8, 16, 16),
            {"input | output | difference", "latents"},
        ),
        (AtrousAutoencoderSpec.of(width=2, levels=2), (1, 16, 16), {"input | output | difference", "latents"}),
        (
            VariationalSpec(network=TINY_PATCHES),
            (1, 140, 140),
            {"input | output | difference", "latents", "prior"},
        ),
    ],
    ids=["images", "volumes", "atrous", "variational"],
)
def test_pictures_of_a_validation(network: AnyAutoencoderSpec, shape: tuple[int, ...], names: set[str]) -> None:
    net = build(model(network)).eval()
    torch.manual_seed(0)
    seen = []
    with torch.no_grad():
        for _ in range(3):
            x = torch.rand(1, 1, *shape) * 2 - 1
            seen.append(Validated(x, net(x), {"reconstruction": (x, torch.ones_like(x))}))
        pictures = ReconstructionObjective().look(net, seen)
    assert set(pictures) == names
    for picture in pictures.values():
        assert picture.ndim == 4
        assert float(picture.min()) >= 0
        assert float(picture.max()) <= 1
    panel = pictures["input | output | difference"]
    assert panel.shape == (1, 1, 3 * shape[1], 3 * shape[2])
    middle = seen[1].raw[0, 0, shape[0] // 2]
    low, high = torch.quantile(middle, torch.tensor([0.005, 0.995])).tolist()
    drawn = ((middle - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(panel[0, 0, shape[1] : 2 * shape[1], : shape[2]], drawn)


# ---- what checkpoints hold --------------------------------------------------------------------------------------


def test_a_checkpoint_gives_the_network_back(tmp_path: Path) -> None:
    path = run(
        tmp_path, model(loss_kind="absolute").model_copy(update={"preprocessing": Preprocessing(low=50, high=200)})
    )
    spec, network, _ = load(path)
    assert spec.objective == ReconstructionObjective(loss_kind="absolute")
    assert spec.network == SMALL
    x = torch.rand(1, 1, 1, 16, 16)
    again = load(path)[1]
    torch.testing.assert_close(
        network.eval()(x)["reconstruction"], again.eval()(x)["reconstruction"], rtol=0, atol=0
    )
