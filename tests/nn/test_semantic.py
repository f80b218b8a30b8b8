"""Semantic segmentation: what is named is learned, what is not teaches nothing, and what is stored decodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume, VolumeInfo
from emloom.nn.augment import AffineSpec, AugmentSpec, ElasticSpec
from emloom.nn.coding import Probability, Shares
from emloom.nn.crops import TrainingVolume
from emloom.nn.level_autoencoders import (
    AtrousAutoencoderSpec,
    FCNAutoencoderSpec,
    LevelAutoencoder,
    UNetAutoencoderSpec,
)
from emloom.nn.losses import CrossEntropy, Dice, LossSum, WassersteinDice
from emloom.nn.model import ModelSpec, build, load, save
from emloom.nn.multires_autoencoder import MultiResolutionSpec
from emloom.nn.objectives.base import Rendered, Validated
from emloom.nn.objectives.semantic import CLASSES, UNKNOWN, SemanticClass, SemanticObjective
from emloom.nn.predict import Predictor, predict
from emloom.nn.resunet import ResUNetSpec
from emloom.nn.samples import CropShape, SampleMaker, TrainingSamples
from emloom.nn.train import TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.ops.classsets import set_label
from emloom.tasks.heads import averaging, codings, output_info, stored_heads

GRID = Grid((10.0, 10.0, 10.0))
TINY = {"width": 3, "levels": 3}
NETWORKS = {
    "fcn": FCNAutoencoderSpec.of(**TINY),
    "atrous": AtrousAutoencoderSpec.of(**TINY),
    "unet": UNetAutoencoderSpec.of(**TINY),
    "volumes": UNetAutoencoderSpec.of(**TINY, flat_levels=1),
    "backbone": UNetSpec(features=(4, 6), factors=((2, 2, 2),)),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def objective(**changes: object) -> SemanticObjective:
    named = [("outside", (0, 7)), ("wall", (300,)), ("cell", (2, 2**62 - 1))]
    classes = [{"name": name, "ids": ids} for name, ids in named]
    return SemanticObjective.from_dict({"classes": classes, **changes})


def model(name: str) -> ModelSpec:
    return ModelSpec(objective=objective(), network=NETWORKS[name], voxel_size_nm=GRID.voxel_size_nm)


def rendered(labels: np.ndarray, known: np.ndarray | None = None) -> Rendered:
    raw = np.zeros(labels.shape, np.float32)
    known = np.ones(labels.shape, np.uint8) if known is None else known
    return Rendered(raw, raw, labels, known, Box.whole(labels.shape))


# ---- targets --------------------------------------------------------------------------------------------------


@given(st.sampled_from(["u1", "u2", "u4", "u8", "i4"]), st.data())
def test_labels_become_the_class_that_names_them(dtype: str, data: st.DataObject) -> None:
    possible = [i for i in (0, 1, 2, 7, 44, 300, 2**62 - 1, 2**63, 2**64 - 1) if i <= np.iinfo(dtype).max]
    labels = data.draw(arrays(dtype, (2, 3, 4), elements=st.sampled_from(possible)))
    said = objective()
    table = {i: number for number, each in enumerate(said.classes) for i in each.ids}
    slow = [table.get(int(label), UNKNOWN) for label in labels.ravel()]
    assert said.of_labels(labels).ravel().tolist() == slow
    assert said.teaches(labels).ravel().tolist() == [number != UNKNOWN for number in slow]


def test_what_no_class_names_or_the_mask_hides_teaches_nothing() -> None:
    labels = np.array([0, 1, 2, 300, 300, 7], np.uint16).reshape(1, 1, 6)
    known = np.array([1, 1, 1, 1, 0, 1], np.uint8).reshape(1, 1, 6)
    said = objective()
    _, targets = said.sample(rendered(labels, known), GRID)
    target, weight = targets[CLASSES]
    assert weight.flatten().tolist() == [1, 0, 1, 1, 0, 1]
    assert target[:, 0, 0].argmax(0)[weight.flatten() > 0].tolist() == [0, 2, 1, 0]
    logits = torch.randn(1, 3, 1, 1, 6, requires_grad=True)
    total, _ = said.loss({CLASSES: logits}, {CLASSES: (target[None], weight[None])})
    (gradient,) = torch.autograd.grad(total, logits)
    assert (gradient.abs().sum(1).flatten() > 0).tolist() == [True, False, True, True, False, True]


@given(arrays(np.uint8, (2, 4, 4), elements=st.sampled_from([0, 2, 7])), st.floats(1, 50))
def test_truth_becomes_targets_becomes_truth(labels: np.ndarray, certain: float) -> None:
    said = objective()
    _, targets = said.sample(rendered(labels), GRID)
    stored = Shares()(certain * targets[CLASSES][0], CLASSES)
    assert np.array_equal(stored.argmax(0), said.of_labels(labels))


def test_the_loss_is_the_cross_entropy_of_the_true_class() -> None:
    labels = np.array([0, 2, 300, 1], np.uint16).reshape(1, 2, 2)
    said = objective()
    _, targets = said.sample(rendered(labels), GRID)
    logits = torch.randn(1, 3, 1, 2, 2, dtype=torch.float64)
    total, parts = said.loss({CLASSES: logits}, {name: (t[None], w[None]) for name, (t, w) in targets.items()})
    classes = torch.tensor([[0, 2, 1, -100]])
    expected = torch.nn.functional.cross_entropy(logits.flatten(2), classes)
    assert float(total) == pytest.approx(float(expected))
    assert float(parts[CLASSES]) == pytest.approx(float(expected))


def test_coarser_answers_are_asked_for_the_majority() -> None:
    said = objective()
    net = ResUNetSpec(features=(4, 6, 8), flat_levels=3, supervision=1)
    network = build(ModelSpec(objective=said, network=net, voxel_size_nm=GRID.voxel_size_nm))
    shape = network.input_shape((4, 16, 16))
    answers = network(torch.randn(1, 1, *shape))
    assert len(answers) == 2
    labels = np.random.default_rng(0).choice(np.array([0, 2, 300], np.uint16), answers[CLASSES].shape[2:])
    _, targets = said.sample(rendered(labels), GRID)
    total, _ = said.loss(answers, {name: (t[None], w[None]) for name, (t, w) in targets.items()})
    alone, _ = said.loss(
        {CLASSES: answers[CLASSES]}, {name: (t[None], w[None]) for name, (t, w) in targets.items()}
    )
    assert float(total.detach()) > float(alone.detach()) > 0


# ---- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": [{"name": "a", "ids": [1]}]}, "at least 2 items"),
        ({"classes": [{"name": "a", "ids": [1]}, {"name": "a", "ids": [2]}]}, "share a name"),
        ({"classes": [{"name": "a", "ids": [1]}, {"name": "b", "ids": [2, 1]}]}, "label 1 is named twice"),
        ({"classes": [{"name": "a", "ids": [1, 1]}, {"name": "b", "ids": [2]}]}, "label 1 is named twice"),
        ({"classes": [{"name": "a", "ids": []}, {"name": "b", "ids": [2]}]}, "ids"),
        ({"classes": [{"name": "a", "ids": [-1]}, {"name": "b", "ids": [2]}]}, "greater than or equal to 0"),
        (
            {"classes": [{"name": "a", "ids": [2**62]}, {"name": "b", "ids": [2]}]},
            "no id of a class.* sets of classes",
        ),
        ({"class_loss": Dice()}, "'dice' takes each channel for a probability of its own"),
        (
            {"class_loss": LossSum(parts=(CrossEntropy(), Dice()))},
            "use cross_entropy, focal_cross_entropy, class_dice",
        ),
        ({"class_loss": CrossEntropy(class_weights=(1, 2))}, "about 2 classes, and 3 are named"),
        ({"class_loss": WassersteinDice(distances=((0, 1), (1, 0)))}, "about 2 classes, and 3 are named"),
    ],
)
def test_objectives_that_make_no_sense(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        objective(**changes)


def test_sums_of_losses_of_classes_are_allowed() -> None:
    distances = ((0, 1, 1), (1, 0, 0.5), (1, 0.5, 0))
    parts = (CrossEntropy(class_weights=(1, 2, 3)), WassersteinDice(distances=distances))
    assert objective(class_loss=LossSum(parts=parts)).class_loss.kind == "sum"


def test_a_volume_without_labels_is_refused() -> None:
    raw = ArrayVolume(np.zeros((8, 16, 16), np.uint8), GRID)
    volume = TrainingVolume(raw, None, raw.info.box)
    with pytest.raises(InputError, match=r"has no labels, and the objective 'semantic' learns from labels"):
        SampleMaker(model("unet"), [volume], CropShape((4, 8, 8), (4, 8, 8)))


def test_nets_of_patches_cannot_tell_classes_apart() -> None:
    with pytest.raises(InputError, match=r"'semantic' cannot learn with the network 'multi_resolution"):
        ModelSpec.from_dict(
            {
                "objective": objective().to_dict(),
                "network": MultiResolutionSpec().to_dict(),
                "voxel_size_nm": [10, 10, 10],
            }
        )


# ---- networks and stored numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [FCNAutoencoderSpec, AtrousAutoencoderSpec, UNetAutoencoderSpec])
def test_shapes_differ_by_nothing_but_their_answer(spec: type[UNetAutoencoderSpec]) -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    net = spec.of(width=4)
    assert count(LevelAutoencoder(net)) == net.parameters == 109_413
    assert count(LevelAutoencoder(net, 3)) == 109_413 + 2 * (4 + 1)


@each_network
def test_every_network_answers_and_comes_back_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    spec = model(name)
    network = build(spec)
    x = torch.randn(1, 1, *network.input_shape((4, 16, 16)))
    answer = network.eval()(x)[CLASSES]
    assert answer.shape == (1, 3, *network.output_shape(x.shape[2:]))
    save(tmp_path / "m.safetensors", spec, network.state_dict(), {})
    again, same, _ = load(tmp_path / "m.safetensors")
    assert again == spec
    assert torch.equal(same.eval()(x)[CLASSES], answer)


@each_network
def test_tiles_agree_with_one_big_tile(name: str) -> None:
    spec = model(name)
    torch.manual_seed(0)
    network = build(spec)
    with torch.no_grad():  # untrained answers are nearly even: make them differ
        for parameter in network.parameters():
            parameter.mul_(1.5)
    raw = ArrayVolume(np.random.default_rng(0).integers(0, 256, (5, 43, 38), np.uint8), GRID, "raw")
    predictor = Predictor(network, spec.preprocessing, codings=codings(spec, raw.info))

    def answer(tile: tuple[int, int, int]) -> np.ndarray:
        out = ArrayVolume(np.full((3, *raw.info.shape), 9, np.uint8), GRID)
        predict(predictor, raw, {CLASSES: out}, tile_shape=tile)
        return out.array

    step = predictor.net.lattice
    big = tuple(-(-n // s) * s for n, s in zip(raw.info.shape, step, strict=True))
    whole = answer(big)
    assert whole.std() > 5
    assert abs(whole.astype(int).sum(axis=0) - 255).max() <= 2  # rounding of three shares
    for times in ((1, 2, 3), (2, 3, 1)):
        tile = tuple(s * k for s, k in zip(step, times, strict=True))
        assert np.abs(answer(tile).astype(int) - whole).max() <= 1


@given(arrays(np.float32, (3, 1, 2, 2), elements=st.floats(-80, 80, width=32)))
def test_shares_are_a_softmax_in_bytes(answer: np.ndarray) -> None:
    exact = np.exp(answer.astype(np.float64) - answer.max(axis=0))
    exact *= 255 / exact.sum(axis=0)
    assert np.abs(Shares()(torch.from_numpy(answer), CLASSES) - exact).max() <= 0.5 + 1e-3


def test_two_classes_store_what_a_single_probability_would() -> None:
    x = torch.linspace(-9, 9, 101).reshape(1, 1, 1, -1)
    both = Shares()(torch.cat([x, torch.zeros_like(x)]), CLASSES)
    assert np.abs(both[:1].astype(int) - Probability()(x.clone(), CLASSES)).max() <= 1


def test_a_network_that_diverged_is_named() -> None:
    with pytest.raises(InputError, match="'classes' with NaN"):
        Shares()(torch.full((2, 1, 1, 1), torch.nan), CLASSES)


def test_what_is_stored_says_what_it_is() -> None:
    spec = model("unet")
    raw = VolumeInfo((4, 8, 8), np.dtype(np.uint16), GRID, kind="raw")
    assert stored_heads(spec, keep_lsds=False) == (CLASSES,)
    info = output_info(spec, CLASSES, raw, Box((0, 4, 4), (4, 4, 4)))
    assert (info.kind, info.channels, info.dtype) == ("probabilities", 3, np.uint8)
    assert info.grid.offset_nm == (0.0, 40.0, 40.0)
    with pytest.raises(InputError, match="'semantic' are not averaged"):
        averaging(spec, 4)


# ---- pictures -------------------------------------------------------------------------------------------------


def test_pictures_show_classes_in_their_colours_and_the_unknown_in_black() -> None:
    said = objective()
    labels = np.array([[0, 1], [2, 300]], np.uint16)[None]
    _, targets = said.sample(rendered(labels), GRID)
    shown = {name: (t[None], w[None]) for name, (t, w) in targets.items()}
    one = Validated(torch.zeros(1, 1, 1, 4, 4), {CLASSES: 9 * shown[CLASSES][0]}, shown)  # a net without padding
    picture = said.look(torch.nn.Identity(), [one, one])["input | truth | prediction"]
    assert picture.shape == (3, 1, 4, 6)
    assert ((picture >= 0) & (picture <= 1)).all()
    truth, called = picture[:, 0, :2, 2:4], picture[:, 0, :2, 4:]
    assert truth[:, 0, 1].tolist() == [0, 0, 0]
    known = torch.tensor([[True, False], [True, True]])
    assert torch.equal(truth[:, known], called[:, known])
    assert len({tuple(colour.tolist()) for colour in truth[:, known].T}) == 3


def test_of_a_set_no_colour_is_shown_as_the_truth() -> None:
    said = objective()
    labels = np.array([[[set_label([0, 1]), set_label([2])]]], np.uint64)
    _, targets = said.sample(rendered(labels), GRID)
    shown = {name: (t[None], w[None]) for name, (t, w) in targets.items()}
    one = Validated(torch.zeros(1, 1, 1, 1, 2), {CLASSES: 9 * shown[CLASSES][0]}, shown)
    truth = said.look(torch.nn.Identity(), [one])["input | truth | prediction"][:, 0, 0, 2:4]
    assert truth.sum(dim=0).bool().tolist() == [False, True]


def test_a_class_has_a_name_and_ids() -> None:
    assert objective().names == ("outside", "wall", "cell")
    assert objective().heads == {CLASSES: 3}
    assert SemanticClass(name="x", ids=(2**62 - 1,)).ids == (2**62 - 1,)


# ---- sets of candidate classes --------------------------------------------------------------------------------

CANDIDATES = st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=12, max_size=12)


@given(CANDIDATES, st.sampled_from([np.int64, np.uint64]), arrays(np.uint8, (2, 2, 3), elements=st.integers(0, 1)))
def test_a_set_teaches_what_the_voxel_may_be_and_is_not_scored(sets, dtype, known) -> None:
    said = objective()
    labels = np.array([set_label(one) for one in sets], dtype).reshape(2, 2, 3)
    alone = [min(one) if len(one) == 1 else UNKNOWN for one in sets]
    assert said.of_labels(labels).ravel().tolist() == alone
    assert said.teaches(labels).ravel().tolist() == [len(one) < 3 for one in sets]
    target, weight = said.targets(labels, known)
    for one, shown, says, here in zip(sets, target.reshape(3, -1).T, weight.ravel(), known.ravel(), strict=True):
        assert says == (here and len(one) < 3)
        assert set(np.flatnonzero(shown)) == (one if says else set())


def test_a_set_of_one_class_is_its_id() -> None:
    said = objective()
    ids = np.array([[[0, 300, 2]]], np.uint64)
    sets = np.array([[[set_label([c]) for c in range(3)]]], np.uint64)
    everywhere = np.ones(ids.shape, np.uint8)
    for a, b in zip(said.targets(ids, everywhere), said.targets(sets, everywhere), strict=True):
        assert np.array_equal(a, b)


def test_sets_of_other_classes_are_refused_unless_hidden() -> None:
    said = objective()
    labels = np.array([[[0, set_label([1, 3])]]], np.uint64)
    with pytest.raises(InputError, match=r"set of the classes \(1, 3\), and there are 3"):
        said.of_labels(labels)
    with pytest.raises(InputError, match=r"set of the classes \(1, 3\), and there are 3"):
        said.targets(labels, np.ones(labels.shape, np.uint8))
    _, known = said.targets(labels, np.array([[[1, 0]]], np.uint8))
    assert known.tolist() == [[[1, 0]]]
    many = SemanticObjective.from_dict({"classes": [{"name": str(i), "ids": [i]} for i in range(63)]})
    with pytest.raises(InputError, match="sets tell 62 apart"):
        many.of_labels(labels)


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_deformed_samples_hold_the_sets_that_were_painted(dtype: type) -> None:
    """Labels beyond 2**53 must never pass through a float."""
    painted = np.array([0, 300, 2, 5, *map(set_label, ([0, 1], [1, 2], [0, 2], [0, 1, 2]))], dtype)
    labels = np.random.default_rng(0).choice(painted, (20, 40, 40))
    raw = ArrayVolume(np.zeros(labels.shape, np.uint8), GRID)
    volume = TrainingVolume(raw, ArrayVolume(labels, GRID, "labels"), raw.info.box)
    shape = (8, 16, 16)
    augment = AugmentSpec(affine=AffineSpec(rotation_deg=(0, 360)), elastic=ElasticSpec(spacing_nm=(80, 80, 80)))
    maker = SampleMaker(model("fcn"), [volume], CropShape(shape, shape))
    samples = TrainingSamples(maker, TrainingSpec(steps=4, augment=augment), 4)
    allowed = {tuple(map(int, np.isin(range(3), said))) for said in ([0], [1], [2], [0, 1], [1, 2], [0, 2], [])}
    for i in range(4):
        assert np.isin(maker.render(samples.plan(i)).labels, painted).all()
        target, weight = samples[i][1][CLASSES]
        seen = {tuple(map(int, column)) for column in target.flatten(1).T.tolist()}
        assert seen == allowed
        assert torch.equal(weight[0] > 0, target.sum(dim=0) > 0)
