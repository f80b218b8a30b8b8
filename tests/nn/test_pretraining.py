"""Learning from raw alone, and taking it along: hidden centres, masked U-Nets, what is taken over."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.augment import AugmentSpec
from emloom.nn.checkpoint import load_training_state
from emloom.nn.corrupt import centre_mask, drop_out
from emloom.nn.crops import TrainingVolume
from emloom.nn.hardware import Hardware
from emloom.nn.model import ModelSpec, build, load, save
from emloom.nn.objectives.base import Rendered, Validated
from emloom.nn.objectives.reconstruction import HiddenBlocks, HiddenCentre, ReconstructionObjective
from emloom.nn.objectives.semantic import SemanticClass, SemanticObjective
from emloom.nn.plan import SamplePlan
from emloom.nn.preprocess import Preprocessing
from emloom.nn.samples import CropShape, SampleMaker, TrainingSamples
from emloom.nn.train import TrainingData, TrainingSpec, train
from emloom.nn.transfer import StartSpec, start_from
from emloom.nn.unet import UNetSpec
from emloom.nn.validation import Checks
from emloom.nn.voxel_autoencoder import VoxelAutoencoderSpec
from emloom.nn.voxelnets import VoxelNet, VoxelNetSpec

GRID = Grid((5.0, 5.0, 5.0))
HERE = Hardware("cpu", 1, 0)
UNET = UNetSpec(features=(4, 6), factors=((2, 2, 2),))
CLASSES = SemanticObjective(classes=(SemanticClass(name="a", ids=(1,)), SemanticClass(name="b", ids=(2,))))


def rendered(shape: tuple[int, int, int], output: tuple[int, int, int], seed: int = 0) -> Rendered:
    raw = np.random.default_rng(7).uniform(0.1, 1, shape).astype(np.float32)
    nothing = np.zeros(output, np.uint8)
    return Rendered(raw, raw, nothing, nothing, Box.whole(output), seed)


# ---- a hidden centre --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", range(5))
@pytest.mark.parametrize("centre", [1, 3])
@pytest.mark.parametrize("side", [13, 31])
def test_what_is_hidden_is_exactly_in_the_middle(pad: int, centre: int, side: int) -> None:
    # The original hid voxels 15..19 instead of 14..18 for pad 2: what was asked for lay off its centre.
    corruption = HiddenCentre(centre_vox=centre, pad_vox=pad, dropout=0)
    objective = ReconstructionObjective(corruption=corruption)
    made = rendered((side,) * 3, (centre,) * 3)
    shown, targets = objective.sample(made, GRID)
    hidden = (shown[0] == 0).numpy()  # no voxel of the raw is 0
    assert hidden.sum() == (centre + 2 * pad) ** 3
    for axis in range(3):
        np.testing.assert_array_equal(hidden, np.flip(hidden, axis))
    assert hidden[(side // 2,) * 3]
    np.testing.assert_array_equal(shown[0].numpy()[~hidden], made.raw[~hidden])
    wanted, weight = targets["reconstruction"]
    lo, hi = (side - centre) // 2, (side + centre) // 2
    np.testing.assert_array_equal(wanted[0].numpy(), made.raw[lo:hi, lo:hi, lo:hi])
    assert weight.shape == wanted.shape
    assert bool((weight == 1).all())


def test_of_a_section_a_square_is_hidden() -> None:
    for pad in range(4):
        made = rendered((1, 9, 11), (1, 1, 1))
        shown, targets = ReconstructionObjective(corruption=HiddenCentre(pad_vox=pad, dropout=0)).sample(
            made, GRID
        )
        expected = np.zeros((1, 9, 11), np.bool_)
        expected[0, 4 - pad : 5 + pad, 5 - pad : 6 + pad] = True
        np.testing.assert_array_equal((shown[0] == 0).numpy(), expected)
        assert targets["reconstruction"][0].item() == made.raw[0, 4, 5]


def test_nothing_of_what_is_asked_for_reaches_the_input() -> None:
    objective = ReconstructionObjective(corruption=HiddenCentre(pad_vox=1))
    made = rendered((9, 9, 9), (1, 1, 1), seed=4)
    other = made.raw.copy()
    other[3:6, 3:6, 3:6] = 0.9
    changed = Rendered(other, other, made.labels, made.known, made.output, made.seed)
    a, b = objective.sample(made, GRID), objective.sample(changed, GRID)
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[1]["reconstruction"][0], b[1]["reconstruction"][0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**63 - 1), st.floats(0, 0.9))
def test_dropout_is_torchs_and_a_function_of_the_seed(seed: int, share: float) -> None:
    x = torch.rand(1, 1, 12, 12, 12) + 0.5
    made = drop_out(x, share, torch.Generator().manual_seed(seed))
    assert torch.equal(made, drop_out(x, share, torch.Generator().manual_seed(seed)))
    kept = made != 0
    torch.testing.assert_close(made[kept], x[kept] / (1 - share))
    assert abs(float(kept.float().mean()) - (1 - share)) < 5 * (share * (1 - share) / x.numel()) ** 0.5 + 1e-9


def test_dropout_has_the_moments_of_torchs() -> None:
    x = torch.full((1, 1, 60, 60, 60), 0.7)
    torch.manual_seed(0)
    theirs = nn.functional.dropout(x, 0.3)
    ours = drop_out(x, 0.3, torch.Generator().manual_seed(0))
    assert set(ours.unique().tolist()) == set(theirs.unique().tolist())
    assert float(ours.mean()) == pytest.approx(0.7, abs=0.005)


def test_a_cube_that_has_no_middle_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot lie in the very middle .* hide 4 or 2"):
        centre_mask((1, 1, 32, 32, 32), 3)
    with pytest.raises(InputError, match="leave some of the tile"):
        centre_mask((1, 1, 5, 9, 9), 5)
    for shape in ((1, 1, 1, 3, 9), (1, 1, 1, 1, 1)):
        with pytest.raises(InputError, match="leave some of the tile"):
            centre_mask(shape, 3)
    with pytest.raises(InputError, match=r"set crop_shape_vox to \(1, 1, 1\)"):
        ReconstructionObjective(corruption=HiddenCentre()).sample(rendered((9, 9, 9), (3, 3, 3)), GRID)
    with pytest.raises(InputError, match="share 1 of dropped"):
        drop_out(torch.zeros(1), 1, torch.Generator())


def test_a_masked_autoencoder_is_compared_everywhere() -> None:
    objective = ReconstructionObjective(corruption=HiddenCentre(centre_vox=2, pad_vox=1, dropout=0, counts="all"))
    made = rendered((8, 8, 8), (8, 8, 8))
    shown, targets = objective.sample(made, GRID)
    hidden = shown[0] == 0
    assert int(hidden.sum()) == 4**3
    assert bool(hidden[2:6, 2:6, 2:6].all())
    np.testing.assert_array_equal(targets["reconstruction"][0][0].numpy(), made.raw)
    assert bool((targets["reconstruction"][1] == 1).all())


def test_targets_are_of_the_voxels_a_valid_net_answers_for() -> None:
    valid = UNET.model_copy(update={"padding": "valid"})
    objective = ReconstructionObjective(corruption=HiddenBlocks(fraction=0.5, block_vox=(2, 2, 2)))
    spec = ModelSpec(objective=objective, network=valid, voxel_size_nm=GRID.voxel_size_nm)
    net = build(spec)
    shape = net.input_shape((4, 4, 4))
    volume = tissue()
    maker = SampleMaker(spec, [volume], CropShape(shape, net.output_shape(shape)))
    sample = maker.make(SamplePlan(source=0, start=(20, 20, 20)), seed=3)
    answers = net(sample[0][None])
    target, weight = (each[None] for each in sample[1]["reconstruction"])
    assert answers["reconstruction"].shape == target.shape
    z, y, x = target.shape[2:]
    there = volume.raw.read(Box((20, 20, 20), (z, y, x)))
    np.testing.assert_allclose(target[0, 0].numpy(), spec.preprocessing(there), atol=1e-6)
    loss, _ = objective.loss(answers, {"reconstruction": (target, weight)})
    assert bool(torch.isfinite(loss))


# ---- where windows are drawn ------------------------------------------------------------------------------------


def tissue(shape: tuple[int, int, int] = (48, 48, 48), held: tuple[Box, ...] = ()) -> TrainingVolume:
    raw = np.random.default_rng(1).integers(60, 190, shape).astype(np.uint8)
    volume = ArrayVolume(raw, GRID, "raw")
    return TrainingVolume(volume, None, Box.whole(shape), held)


DRAWING = TrainingSpec(steps=1, crop_shape_vox=(1, 1, 1), augment=AugmentSpec.none(), precision="32-true")


def starts(volume: TrainingVolume, count: int, seed: int = 0) -> NDArray[np.int64]:
    spec = ModelSpec(objective=ReconstructionObjective(), network=UNET, voxel_size_nm=GRID.voxel_size_nm)
    maker = SampleMaker(spec, [volume], CropShape((9, 9, 9), (1, 1, 1)))
    samples = TrainingSamples(maker, DRAWING.model_copy(update={"seed": seed}), count)
    return np.array([samples.plan(index).start for index in range(count)], np.int64)


def test_voxels_are_drawn_uniformly_over_the_volume_and_never_in_a_row() -> None:
    # The original drew 20,000 voxels of the first 8,192 in raster order: a few rows at a corner of the volume.
    places = starts(tissue((64, 64, 64)), 4000)
    octants = (places >= 32) @ np.array([4, 2, 1])
    counts = np.bincount(octants, minlength=8)
    chi_square = float((((counts - 500.0) ** 2) / 500).sum())
    assert chi_square < 24.3  # 7 degrees of freedom, p = 0.001
    flat = np.ravel_multi_index(places.T, (64, 64, 64))
    assert np.unique(flat).size > 0.98 * flat.size  # birthdays: 4000^2 / 2 / 64^3 = 30 pairs are expected
    assert int((np.abs(np.diff(flat)) == 1).sum()) < 5
    assert abs(float(np.corrcoef(flat[:-1], flat[1:])[0, 1])) < 0.07
    for period in (8, 64, 1000):
        assert int((flat[period:] == flat[:-period]).sum()) < 5


def test_all_allowed_voxels_and_no_others_are_drawn() -> None:
    held = Box((0, 0, 0), (3, 3, 6))
    places = starts(tissue((3, 6, 6), (held,)), 1500)
    drawn = np.zeros((3, 6, 6), int)
    np.add.at(drawn, tuple(places.T), 1)
    assert not drawn[held.slices()].any()
    rest = drawn[:, 3:]
    assert int((rest > 0).sum()) == 54
    expected = 1500 / 54
    assert float(((rest - expected) ** 2 / expected).sum()) < 90.6  # 53 degrees of freedom, p = 0.001


def test_the_same_bytes_in_any_order_and_process() -> None:
    spec = ModelSpec(
        objective=ReconstructionObjective(corruption=HiddenCentre(pad_vox=1)),
        network=UNET,
        voxel_size_nm=GRID.voxel_size_nm,
    )
    maker = SampleMaker(spec, [tissue()], CropShape((9, 9, 9), (1, 1, 1)))
    samples = TrainingSamples(maker, DRAWING, 20)
    forwards = [samples[index] for index in range(20)]
    sent = pickle.loads(pickle.dumps(samples))  # as a worker gets them
    for index in (19, 3, 7):
        shown, targets = sent[index]
        assert torch.equal(shown, forwards[index][0])
        assert torch.equal(targets["reconstruction"][0], forwards[index][1]["reconstruction"][0])


# ---- what is taken along ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net that learned from raw for some steps."""
    spec = ModelSpec(
        objective=ReconstructionObjective(corruption=HiddenBlocks(fraction=0.5, block_vox=(2, 2, 2))),
        network=UNET,
        voxel_size_nm=GRID.voxel_size_nm,
    )
    held = Box((0, 0, 0), (8, 16, 16))
    training = TrainingSpec(
        steps=4, crop_shape_vox=(8, 16, 16), validate_every=2, augment=AugmentSpec.none(), precision="32-true"
    )
    data = TrainingData([tissue(held=(held,))], [(0, held)])
    return train(spec, training, data, tmp_path_factory.mktemp("raw"), HERE)


def classifier(features: tuple[int, ...] = (4, 6)) -> nn.Module:
    torch.manual_seed(1)
    network = UNET.model_copy(update={"features": features})
    return build(ModelSpec(objective=CLASSES, network=network, voxel_size_nm=GRID.voxel_size_nm))


def test_a_unet_learns_from_raw_and_is_taken_along(pretrained: Path) -> None:
    net, fresh = classifier(), dict(classifier().state_dict())
    taken = start_from(StartSpec(model=str(pretrained), only=("unet\\.",)), net)
    source = load(pretrained)[1].state_dict()
    for name, tensor in net.state_dict().items():
        if name.startswith("unet."):
            assert name in taken
            assert torch.equal(tensor, source[name])
        else:
            assert torch.equal(tensor, fresh[name])
    assert any(not torch.equal(fresh[name], source[name]) for name in taken)


def test_other_grey_values_than_those_learned_from_are_said(
    pretrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ModelSpec(objective=CLASSES, network=UNET, voxel_size_nm=GRID.voxel_size_nm)
    start = StartSpec(model=str(pretrained))
    start_from(start, classifier(), model)
    assert not caplog.records
    start_from(start, classifier(), model.model_copy(update={"preprocessing": Preprocessing(low=10, high=99)}))
    (said,) = caplog.messages
    assert "low=0.0 high=255.0" in said
    assert "low=10.0 high=99.0" in said
    caplog.clear()
    start_from(start, classifier(), model.model_copy(update={"voxel_size_nm": (40.0, 4.0, 4.0)}))
    assert "voxel size nm" in caplog.messages[0]


def test_a_backbone_that_fits_in_part_only_is_refused(pretrained: Path) -> None:
    with pytest.raises(InputError, match=r"of the \d+ weights that `only` asks for .* here and .* there"):
        start_from(StartSpec(model=str(pretrained), only=("unet\\.",)), classifier((4, 8)))
    with pytest.raises(InputError, match=r"only 'backbone\\\\.' matches no weight: names are unet"):
        start_from(StartSpec(model=str(pretrained), only=("backbone\\.",)), classifier())
    with pytest.raises(ValueError, match="only '\\(' is no regular expression"):
        StartSpec(only=("(",))


# ---- centre-voxel networks --------------------------------------------------------------------------------------

VOXELS = VoxelNetSpec(backbone="3_layer@8")
WINDOWS = TrainingSpec(
    steps=4,
    batch_size=4,
    crop_shape_vox=(1, 1, 1),
    validate_every=2,
    augment=AugmentSpec.none(),
    precision="32-true",
)
CHECKED = Box((0, 0, 0), (1, 4, 4))


def labelled() -> TrainingVolume:
    raw = tissue((24, 24, 24)).raw
    classes = np.where(raw.read(raw.info.box) < 125, 1, 2).astype(np.uint8)
    return TrainingVolume(raw, ArrayVolume(classes, GRID, "labels"), raw.info.box, (CHECKED,))


@pytest.fixture(scope="module")
def regressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A centre-voxel network that guessed hidden centres for some steps."""
    objective = ReconstructionObjective(corruption=HiddenCentre(pad_vox=1))
    spec = ModelSpec(objective=objective, network=VOXELS, voxel_size_nm=GRID.voxel_size_nm)
    data = TrainingData([tissue(held=(CHECKED,))], [(0, CHECKED)])
    return train(spec, WINDOWS, data, tmp_path_factory.mktemp("centre"), HERE)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder around the same backbone, as it is drawn."""
    network = VoxelAutoencoderSpec(encoder=VOXELS, patch_vox=8, n_latent=4, maps=(4, 4, 4))
    spec = ModelSpec(objective=ReconstructionObjective(), network=network, voxel_size_nm=GRID.voxel_size_nm)
    torch.manual_seed(9)
    path = tmp_path_factory.mktemp("encoded") / "model.safetensors"
    save(path, spec, build(spec).state_dict(), {})
    return path


@pytest.mark.parametrize("source", ["regressed", "encoded"])
def test_the_backbone_of_a_voxel_net_is_taken_along(source: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(source)
    spec = ModelSpec(objective=CLASSES, network=VOXELS, voxel_size_nm=GRID.voxel_size_nm)
    torch.manual_seed(1)
    net = build(spec)
    fresh = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    taken = start_from(StartSpec(model=str(path), only=("backbone",)), net)
    theirs = {name.removeprefix("net."): tensor for name, tensor in load(path)[1].state_dict().items()}
    assert set(taken) == {name for name in fresh if name.startswith("backbone.")}
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, theirs[name] if name in taken else fresh[name])
    assert not torch.equal(fresh["backbone.0.weight"], theirs["backbone.0.weight"])


def test_a_frozen_backbone_stays_as_it_was_pretrained(regressed: Path, tmp_path: Path) -> None:
    spec = ModelSpec(objective=CLASSES, network=VOXELS, voxel_size_nm=GRID.voxel_size_nm)
    start = StartSpec(model=str(regressed), only=("backbone",), frozen=("backbone",))
    data = TrainingData([labelled()], [(0, CHECKED)])
    train(spec, WINDOWS.model_copy(update={"start": start}), data, tmp_path, HERE)
    theirs = load(regressed)[1].state_dict()
    after = load_training_state(tmp_path / "state.safetensors")["network"]
    kept = [name for name in after if name.startswith("backbone.")]
    assert any(name.endswith("running_mean") for name in kept)
    assert all(torch.equal(after[name], theirs[name]) for name in kept)  # weights, and statistics of norms
    torch.manual_seed(WINDOWS.seed)
    fresh = build(spec).state_dict()
    assert not torch.equal(after["heads.classes.weight"], fresh["heads.classes.weight"])


def test_centre_regression_learns_what_a_centre_looks_like(tmp_path: Path) -> None:
    z, y, x = np.indices((32, 32, 32))
    raw = ArrayVolume((128 + 60 * np.sin(z / 2) * np.sin(y / 2 + x / 3)).astype(np.uint8), GRID, "raw")
    volume = TrainingVolume(raw, None, raw.info.box, (CHECKED,))
    objective = ReconstructionObjective(corruption=HiddenCentre(pad_vox=1, dropout=0.1))
    spec = ModelSpec(objective=objective, network=VOXELS, voxel_size_nm=GRID.voxel_size_nm)
    losses: list[float] = []
    training = WINDOWS.model_copy(update={"steps": 60, "batch_size": 32, "validate_every": 60})
    data = TrainingData([volume], [(0, CHECKED)])
    path = train(spec, training, data, tmp_path, HERE, lambda done: losses.append(done.loss))
    power = float(np.var(spec.preprocessing(raw.read(raw.info.box))))
    assert np.mean(losses[-10:]) < 0.4 * power  # of what the best constant leaves
    net = load(path)[1].eval()
    seen = torch.rand(1, 1, 9, 9, 9)
    with torch.no_grad():
        one = Validated(
            seen, net(seen), {"reconstruction": (torch.ones(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1))}
        )
    (picture,) = objective.look(net, [one, one]).values()
    assert picture.shape == (1, 1, 2 * 9, 3 * 9)
    assert float(picture[0, 0, 4, 2 * 9 + 4]) == 1  # the truth, in the middle of the third


@pytest.mark.parametrize(("centre", "count"), [(1, 1024), (3, 1024)])
def test_hidden_centres_are_validated_window_by_window(centre: int, count: int) -> None:
    # Dense crops, on which centre-voxel networks are validated otherwise, have one middle only.
    objective = ReconstructionObjective(corruption=HiddenCentre(centre_vox=centre, dropout=0.2))
    spec = ModelSpec(objective=objective, network=VOXELS, voxel_size_nm=GRID.voxel_size_nm)
    network = build(spec)
    assert isinstance(network, VoxelNet)
    maker = SampleMaker(spec, [tissue()], CropShape(network.input_shape((centre,) * 3), (centre,) * 3))
    box = Box((4, 6, 8), (4, 20, 20))
    batches = list(Checks.of(maker, network, [(0, box)]).samples)
    middles = torch.cat(
        [targets["reconstruction"][0][:, 0, centre // 2, centre // 2, centre // 2] for _, targets in batches]
    )
    assert len(middles) == count
    again = list(Checks.of(maker, network, [(0, box)]).samples)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, again, strict=True))
    # They are voxels of the box: 1024 of its 1600, without repetition.
    there = spec.preprocessing(tissue().raw.read(box))
    grey, most = np.unique(there, return_counts=True)
    drawn, often = np.unique(middles.numpy(), return_counts=True)
    assert (often <= most[np.searchsorted(grey, drawn)]).all()
