"""The mean field of a fully connected CRF: against its definition, its energy, its symmetries, and known traps."""

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.crf import Field, mean_field
from emloom.ops.pairsums import Kernel
from tests.ops.test_pairsums import WIDTH, by_pairs, textured

SHAPE = (6, 9, 10)


def potts(n, penalty=1.0):
    return tuple(tuple(penalty * (i != j) for j in range(n)) for i in range(n))


def guesses(n, shape=SHAPE, seed=0, sharpness=1.0):
    p = np.exp(sharpness * np.random.default_rng(seed).standard_normal((n, *shape)))
    return (p / p.sum(0)).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def by_definition(p, raw, field, known):
    """Compute everything in float64 from the formulas."""
    n = len(p)
    unary = -np.log(np.maximum(p.astype(np.float64), field.floor)) / field.temperature
    q, energy = softmax(-unary), []
    for _ in range(field.iterations):
        values = np.zeros((*raw.shape, WIDTH))
        values[..., :n] = np.moveaxis(q, 0, -1)
        s = sum(by_pairs(kernel, raw, known, values) for kernel in field.kernels)
        message = np.tensordot(np.array(field.penalties), np.moveaxis(s[..., :n], -1, 0), 1)
        energy.append(float(((q * (unary + np.log(q) + 0.5 * message)).sum(0) * known).sum()))
        q = np.where(known, field.damping * q + (1 - field.damping) * softmax(-unary - message), q)
    return q, energy


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_is_what_the_formulas_say(n, masked):
    penalties = tuple(tuple(0.0 if i == j else 1.0 + i + j for j in range(n)) for i in range(n))
    kernels = (Kernel((1, 2, 2), 1.5), Kernel((1, 1, 1), 2.0, 25))
    field = Field(kernels, penalties, temperature=1.3, iterations=4, damping=0.3, tolerance=0)
    raw, p = textured(SHAPE), guesses(n)
    known = np.random.default_rng(3).random(SHAPE) < (0.7 if masked else 2)
    found = mean_field(p, raw, field, mask_ZYX=known if masked else None)
    q, energy = by_definition(p, raw, field, known)
    np.testing.assert_allclose(found.probabilities, q, atol=2e-3)
    np.testing.assert_allclose(found.energy, energy, rtol=1e-4)
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)


def test_without_weight_it_is_the_softmax_of_the_unaries():
    p = guesses(3)
    field = Field((Kernel((1, 1, 1), 0.0),), potts(3), temperature=2.0)
    found = mean_field(p, textured(SHAPE), field).probabilities
    np.testing.assert_allclose(found, np.sqrt(p) / np.sqrt(p).sum(0), atol=2e-6)


def test_masked_voxels_keep_their_unaries_whatever_they_hold_and_others_do_not_hear_them():
    p, raw = guesses(3), textured(SHAPE).astype(np.float32)
    known = np.random.default_rng(3).random(SHAPE) < 0.6
    field = Field((Kernel((2, 2, 2), 3.0), Kernel((3, 3, 3), 3.0, 20)), potts(3))
    one = mean_field(p, raw, field, mask_ZYX=known)
    other_p, other_raw = p.copy(), raw.copy()
    other_p[:, ~known] = guesses(3, seed=5)[:, ~known]
    other_raw[~known] = np.nan
    two = mean_field(other_p, other_raw, field, mask_ZYX=known)
    np.testing.assert_array_equal(one.probabilities[:, known], two.probabilities[:, known])
    np.testing.assert_allclose(two.probabilities[:, ~known], other_p[:, ~known], atol=2e-6)
    assert one.energy == two.energy


def test_classes_may_be_named_in_any_order():
    p, raw, order = guesses(4), textured(SHAPE), [2, 0, 3, 1]
    penalties = np.array([[0, 1, 5, 2], [1, 0, 3, 1], [5, 3, 0, 7], [2, 1, 7, 0.0]])
    kernels = (Kernel((1, 1, 1)), Kernel((2, 2, 2), 1, 30))
    one = mean_field(p, raw, Field(kernels, tuple(map(tuple, penalties))))
    two = mean_field(p[order], raw, Field(kernels, tuple(map(tuple, penalties[order][:, order]))))
    np.testing.assert_allclose(one.probabilities[order], two.probabilities, atol=1e-5)


ORIGINAL = (
    (0, 1, 100, 1, 1, 100),
    (1, 0, 100, 10, 0.5, 100),
    (100, 100, 0, 5, 100, 100),
    (1, 10, 5, 0, 100, 100),
    (1, 0.5, 100, 100, 0, 100),
    (100, 100, 100, 100, 100, 0),
)


def test_penalties_of_100_do_not_swing_when_damped():
    p, raw = guesses(6, (8, 16, 16), sharpness=2.0), textured((8, 16, 16))
    kernels = (Kernel((1, 1, 1)), Kernel((3, 3, 3), 1.0, 25))
    found = mean_field(p, raw, Field(kernels, ORIGINAL, iterations=40, tolerance=0))
    assert not found.rises, found.energy
    assert found.change[-1] < 0.05, found.change


def test_a_field_that_swings_is_seen_and_damping_mends_it():
    # Two classes that repel themselves would be 2-cycles; a class that is free to both sides swings with them.
    p = guesses(3, sharpness=0.1)
    penalties = ((0, 100, 0), (100, 0, 0), (0, 0, 0))
    wild = mean_field(
        p, textured(SHAPE), Field((Kernel((3, 3, 3)),), penalties, damping=0, iterations=20, tolerance=0)
    )
    calm = mean_field(
        p, textured(SHAPE), Field((Kernel((3, 3, 3)),), penalties, damping=0.9, iterations=60, tolerance=0)
    )
    assert not calm.rises
    assert calm.energy[-1] <= wild.energy[-1] + 1e-3 * abs(wild.energy[-1])


def test_the_energy_falls_and_it_stops_when_nothing_moves():
    p, raw = guesses(5, (10, 14, 14)), textured((10, 14, 14))
    kernels = (Kernel((1, 1, 1), 2.0), Kernel((3, 3, 3), 4.0, 20))
    found = mean_field(p, raw, Field(kernels, potts(5), iterations=100, tolerance=1e-3))
    assert not found.rises
    assert len(found.change) < 100
    assert found.change[-1] < 1e-3


def test_what_is_counted_is_the_box_only_and_boxes_add_up():
    p, raw = guesses(3), textured(SHAPE)
    field = Field((Kernel((1, 1, 1)),), potts(3), iterations=3, tolerance=0)
    whole = mean_field(p, raw, field)
    parts = [Box((0, 0, 0), (6, 9, 4)), Box((0, 0, 4), (6, 9, 6))]
    sums = np.sum([mean_field(p, raw, field, counted=part).energy for part in parts], axis=0)
    np.testing.assert_allclose(sums, whole.energy, rtol=1e-6)


def test_entries_of_the_matrix_are_penalties():
    """The field's libraries disagree on the sign; here what is dearer happens less."""
    p, raw = guesses(3, sharpness=0.3), textured(SHAPE)

    def touching(penalty):
        mu = ((0, 1, penalty), (1, 0, 1), (penalty, 1, 0))
        classes = mean_field(p, raw, Field((Kernel((1, 1, 1), 3.0),), mu)).probabilities.argmax(0)
        pairs = [(classes[:, :, 1:], classes[:, :, :-1]), (classes[:, 1:], classes[:, :-1])]
        return sum(((a == 0) & (b == 2)).sum() + ((a == 2) & (b == 0)).sum() for a, b in pairs)

    assert touching(8.0) < touching(1.0)


def test_an_edge_of_the_raw_stops_a_bilateral_message():
    """A voxel on its own side believes its side, though a spatial kernel would make it follow the other."""
    raw = np.zeros((5, 12, 12), np.uint8)
    raw[:, :, 6:] = 200
    p = np.full((2, *raw.shape), 0.5, np.float32)
    p[0, :, :, :6], p[1, :, :, :6] = 0.9, 0.1
    p[0, :, :, 6:], p[1, :, :, 6:] = 0.45, 0.55
    strong = {"penalties": potts(2), "iterations": 30}
    seen = mean_field(p, raw, Field((Kernel((4, 4, 4), 3.0, 20),), **strong)).probabilities
    blind = mean_field(p, raw, Field((Kernel((4, 4, 4), 3.0),), **strong)).probabilities
    assert (seen.argmax(0) == (raw > 0)).all()
    assert (blind.argmax(0)[:, :, 6] == 0).all()


def test_bad_input_is_told():
    p, raw, field = guesses(3), textured(SHAPE), Field((Kernel((1, 1, 1)),), potts(3))
    with pytest.raises(InputError, match="penalties of 3 classes"):
        mean_field(p[:2], raw, field)
    with pytest.raises(InputError, match="within 0 and 1"):
        mean_field(p * 255, raw, field)
    with pytest.raises(InputError, match="mask"):
        mean_field(p, raw, field, mask_ZYX=raw[1:])
    with pytest.raises(InputError, match="NaN"):
        mean_field(p, np.full(SHAPE, np.nan), field)
    with pytest.raises(InputError, match="symmetric"):
        Field((Kernel((1, 1, 1)),), ((0, 1), (2, 0)))
    with pytest.raises(InputError, match="0 or more"):
        Field((Kernel((1, 1, 1)),), ((0, -1), (-1, 0)))
    with pytest.raises(InputError, match=r"temperature 0.*damping 1.*no kernel"):
        Field((), potts(2), temperature=0, damping=1)
