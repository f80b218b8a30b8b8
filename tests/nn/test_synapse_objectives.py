"""Objectives of synapses: what is known teaches, what is turned stays true, and what is stored reads back."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.averaging import Averager, Averaging
from emloom.nn.channels import restore
from emloom.nn.coding import Probability
from emloom.nn.objectives.base import to_tensors
from emloom.nn.objectives.clefts import CLEFTS, CleftsObjective
from emloom.nn.objectives.partners import SIGNED, VECTORS, PartnersObjective
from emloom.nn.orientations import Orientation, orientations
from emloom.ops.distances import SATURATION
from emloom.ops.polyads import encode
from emloom.ops.synapse_targets import draw_balls

U64 = np.uint64
GRID = Grid((20.0, 10.0, 10.0))
VARIANTS = ("sites", "vectors", "proximity", "polarity")
SMALL = {"vector_scale_nm": 120.0, "proximity_scale_nm": 20.0, "pre_radius_nm": 25.0, "post_radius_nm": 25.0}


def polyads(shape=(14, 30, 30), seed: int = 0, n: int = 4):
    """Draw polyads: a pre ball, and two post balls near it."""
    rng = np.random.default_rng(seed)
    values, voxels = [], []
    for polyad in range(1, n + 1):
        pre = rng.integers((2, 4, 4), np.array(shape) - (2, 4, 4))
        for side in range(3):
            values.append(polyad * 256 + side)
            voxels.append(pre if side == 0 else pre + rng.integers((-2, -5, -5), (3, 6, 6)))
    n_sites = len(values)
    return draw_balls(
        np.array(values, U64),
        np.array(voxels),
        np.zeros(n_sites, U64),
        np.full(n_sites, 25.0),
        GRID.voxel_size_nm,
        None,
        shape,
    )


def stored(target: np.ndarray, name: str) -> np.ndarray:
    """Return what a network that answers the target stores."""
    p = torch.from_numpy(np.asarray(target, np.float32))
    p = (p + 1) / 2 if name in SIGNED else p
    return Probability()(torch.logit(p, eps=1e-6), name)


def test_what_is_stored_reads_back() -> None:
    """Signed numbers: 2 sigmoid(x) - 1 = tanh(x / 2), so 127.5 is 0; the ends are 0 and 255."""
    x = torch.linspace(-5, 5, 11)
    bytes_ = Probability()(x.reshape(1, 1, 1, -1).clone(), "proximity").ravel()
    np.testing.assert_allclose(bytes_ / 127.5 - 1, torch.tanh(x / 2), atol=0.5 / 127.5 + 1e-6)
    assert stored(np.array([[[[-1.0, 1.0]]]]), "proximity").ravel().tolist() == [0, 255]
    assert PartnersObjective().vector_loss.output == PartnersObjective().proximity_loss.output == "signed"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_perfect_network_averaged_over_sixteen_orientations_is_the_target(variant: str) -> None:
    objective = PartnersObjective.from_dict({"variant": variant, **SMALL})
    labels = polyads()
    known = np.ones(labels.shape, np.uint8)
    box = Box.whole(labels.shape)
    target = {n: stored(t, n) for n, (t, _) in objective.targets(labels, known, box, GRID).items()}

    class Perfect:
        """Answers every turned block with the target of its turned labels, which it finds by their raw."""

        class net:  # noqa: N801
            lattice, context, tile_dependent = (1, 1, 1), (0, 0, 0), False

        def __call__(self, raw):
            for turned in orientations(16):
                seen = np.ascontiguousarray(turned.forward(labels))
                if seen.shape == raw.shape and np.array_equal(seen, raw):
                    known = np.ones(seen.shape, np.uint8)
                    found = objective.targets(seen, known, Box.whole(seen.shape), GRID)
                    return {name: stored(t, name) for name, (t, _) in found.items()}
            raise AssertionError("not turned tissue")

    raw = ArrayVolume(labels, GRID)
    averager = Averager(Perfect(), Averaging(orientations(16), objective.channels), raw, tuple(objective.heads))
    found = averager.answer(box)
    assert found.keys() == objective.heads.keys()
    for name in target:
        off = np.abs(found[name].astype(int) - target[name].astype(int))
        assert off.max() <= (1 if name in SIGNED else 0), name
        assert found[name].std() > 1


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=8)
@given(seed=st.integers(0, 999), rule=st.integers(0, 15))
def test_turned_labels_give_the_turned_target(variant: str, seed: int, rule: int) -> None:
    """And what an answer about turned tissue says, turned back by the channels, is the target of the tissue."""
    objective = PartnersObjective.from_dict({"variant": variant, **SMALL})
    labels, turned = polyads(seed=seed), Orientation.of(rule)
    seen = np.ascontiguousarray(turned.forward(labels))
    known = np.ones(labels.shape, np.uint8)
    plain = objective.targets(labels, known, Box.whole(labels.shape), GRID)
    moved = objective.targets(seen, np.ascontiguousarray(turned.forward(known)), Box.whole(seen.shape), GRID)
    for name, (target, weight) in plain.items():
        answer, weights = moved[name]
        assert np.array_equal(turned.backward(np.asarray(weights)), np.asarray(weight))
        answer = (answer + 1) / 2 if name in SIGNED else np.asarray(answer, np.float32)
        back, _ = restore(answer, objective.channels[name], turned)
        back = 2 * back - 1 if name in SIGNED else back
        np.testing.assert_allclose(back, target, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_crop_with_its_context_gives_the_targets_of_the_whole(variant: str) -> None:
    objective = PartnersObjective.from_dict({"variant": variant, **SMALL, "vector_scale_nm": 60.0})
    labels = polyads((40, 60, 60), n=30)
    known = np.ones(labels.shape, np.uint8)
    whole = objective.targets(labels, known, Box.whole(labels.shape), GRID)
    reach = objective.context_vox(GRID)
    box = Box((14, 20, 22), (12, 18, 16))
    seen = box.grow(reach)
    assert Box.whole(labels.shape).contains(seen)
    inner = Box(reach, box.shape)
    part = objective.targets(labels[seen.slices()], known[seen.slices()], inner, GRID)
    for name, (target, weight) in part.items():
        at = (slice(None), *box.slices())
        np.testing.assert_allclose(target, np.asarray(whole[name][0])[at], atol=1e-5)
        assert np.array_equal(weight, np.asarray(whole[name][1])[at])
        assert np.asarray(weight).any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_unknown_voxels_teach_nothing(variant: str) -> None:
    objective = PartnersObjective.from_dict({"variant": variant, **SMALL})
    labels = polyads()
    known = np.ones(labels.shape, np.uint8)
    known[:, :15] = 0
    box = Box.whole(labels.shape)
    answers = {n: torch.randn(1, c, *box.shape, requires_grad=True) for n, c in objective.heads.items()}
    found = to_tensors(objective.targets(labels, known, box, GRID))
    targets = {name: (t[None], w[None]) for name, (t, w) in found.items()}
    total, parts = objective.loss(answers, targets)
    total.backward()
    assert parts.keys() == objective.heads.keys()
    for answer in answers.values():
        assert not answer.grad[:, :, :, :15].any()
        assert answer.grad[:, :, :, 15:].any()


def test_the_truth_has_the_smallest_loss() -> None:
    labels = polyads()
    known, box = np.ones(labels.shape, np.uint8), Box.whole(labels.shape)
    for variant, noise in product(VARIANTS, (0.2, 1.0)):
        objective = PartnersObjective.from_dict({"variant": variant, **SMALL})
        found = to_tensors(objective.targets(labels, known, box, GRID))
        targets = {name: (t[None], w[None]) for name, (t, w) in found.items()}
        torch.manual_seed(0)
        perfect = {
            name: torch.logit((t + 1) / 2 if name in SIGNED else t, eps=1e-4) for name, (t, _) in targets.items()
        }
        worse = {name: x + noise * 4 * torch.randn_like(x) for name, x in perfect.items()}
        assert objective.loss(perfect, targets)[0] < objective.loss(worse, targets)[0]


def test_vectors_beyond_reach_are_not_asked_for() -> None:
    labels = np.zeros((5, 5, 60), U64)
    labels[2, 2, 5], labels[2, 2, 15], labels[2, 2, 45] = encode(np.full(3, 1, U64), np.array([0, 1, 2]))
    objective = PartnersObjective.from_dict({**SMALL, "variant": "vectors"})
    known = np.ones(labels.shape, np.uint8)
    target, weight = objective.targets(labels, known, Box.whole(labels.shape), GRID)[VECTORS]
    assert np.argwhere(weight[0]).tolist() == [[2, 2, 15]]
    assert target[:, 2, 2, 15].tolist() == pytest.approx([0, 0, -100 / 120])


# ---- clefts ----------------------------------------------------------------------------------------------------


def test_ids_of_clefts_play_no_part() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((10, 20, 20)) < 0.05
    known, box = np.ones(mask.shape, np.uint8), Box((2, 4, 4), (6, 12, 12))
    for variant in ("mask", "distance"):
        objective = CleftsObjective.from_dict({"variant": variant, "scale_nm": 10.0})
        results = [
            objective.targets((mask * ids).astype(U64), known, box, GRID)[CLEFTS]
            for ids in (1, rng.integers(1, 10**9, mask.shape))
        ]
        assert np.array_equal(results[0][0], results[1][0])
        assert np.array_equal(results[0][1], results[1][1])


def test_distances_are_positive_inside_and_known_near_what_is_known() -> None:
    labels = np.zeros((1, 1, 200), U64)
    labels[..., 100:104] = 7
    objective = CleftsObjective.from_dict({"variant": "distance", "scale_nm": 50.0})
    target, weight = objective.targets(labels, np.ones(labels.shape, np.uint8), Box.whole(labels.shape), GRID)[
        CLEFTS
    ]
    d = target[0, 0, 0]
    assert d[99] == pytest.approx(-np.tanh(10 / 50))
    assert d[100] == pytest.approx(np.tanh(10 / 50))
    assert d[101] == pytest.approx(np.tanh(20 / 50))
    assert d[:70].max() < -0.99
    # One row: a cleft might lie just beside it, 10 nm away.
    assert np.flatnonzero(weight[0, 0, 0]).tolist() == [99, 100, 103, 104]
    thick = np.repeat(np.repeat(labels, 41, 0), 81, 1)
    _, weight = objective.targets(thick, np.ones(thick.shape, np.uint8), Box.whole(thick.shape), GRID)[CLEFTS]
    assert weight[0, 20, 40, 80:120].all()


def test_invalid_voxels_of_clefts_teach_nothing() -> None:
    """The original set everything above 1e10 to background; what INVALID says is that nobody knows."""
    labels = np.zeros((6, 12, 12), U64)
    labels[2:4, 4:8, 4:8] = 3
    known = np.ones(labels.shape, np.uint8)
    known[:, :, 9:] = 0
    box = Box.whole(labels.shape)
    target, weight = CleftsObjective().targets(labels, known, box, GRID)[CLEFTS]
    assert np.array_equal(weight[0], known)
    assert target.sum() == 32
    _, weight = CleftsObjective(border_nm=30.0).targets(labels, known, box, GRID)[CLEFTS]
    assert not weight[0][known == 0].any()


def test_background_beside_a_cleft_weighs_little() -> None:
    """w = tanh(D / S) for background, 1 in clefts (the distance weight for negatives)."""
    labels = np.zeros((1, 1, 40), U64)
    labels[..., 20] = 1
    objective = CleftsObjective(border_nm=25.0)
    _, weight = objective.targets(labels, np.ones(labels.shape, np.uint8), Box.whole(labels.shape), GRID)[CLEFTS]
    away = np.abs(np.arange(40) - 20) * 10.0
    expected = np.where(away == 0, 1, np.tanh(np.minimum(away, SATURATION * 25.0) / 25.0))
    np.testing.assert_allclose(weight[0, 0, 0], expected, rtol=1e-5)


def test_empty_crops_have_a_finite_loss() -> None:
    """Dice with nothing to smooth was 0 / 0 in the original."""
    box = Box.whole((8, 8, 8))
    empty, known = np.zeros(box.shape, U64), np.ones(box.shape, np.uint8)
    both = {"kind": "sum", "parts": [{"kind": "bce", "balance": None}, {"kind": "dice"}]}
    partners = [
        PartnersObjective.from_dict({"variant": v, "mask_loss": loss})
        for v in VARIANTS
        for loss in (both, {"kind": "bce"})
    ]
    for objective in (*partners, CleftsObjective(), CleftsObjective.from_dict({"mask_loss": both})):
        found = to_tensors(objective.targets(empty, known, box, GRID))
        targets = {name: (t[None], w[None]) for name, (t, w) in found.items()}
        answers = {
            n: torch.full((1, c, *box.shape), -200.0, requires_grad=True) for n, c in objective.heads.items()
        }
        total, _ = objective.loss(answers, targets)
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(a.grad).all() for a in answers.values())


@pytest.mark.parametrize(
    ("spec", "given_", "words"),
    [
        (CleftsObjective, {"mask_loss": {"kind": "cross_entropy"}}, "does not read each channel"),
        (CleftsObjective, {"distance_loss": {"kind": "regression"}}, "set output to signed"),
        (PartnersObjective, {"mask_loss": {"kind": "vectors"}}, "does not read each channel"),
        (PartnersObjective, {"vector_loss": {"kind": "regression", "output": "linear"}}, "set output to signed"),
        (PartnersObjective, {"variant": "votes"}, "vectors"),
        (PartnersObjective, {"pre_radius_nm": 0}, "greater than 0"),
    ],
)
def test_what_cannot_be_learned(spec, given_, words: str) -> None:
    with pytest.raises(InputError, match=words):
        spec.from_dict(given_)
