"""The laws of harder inputs: how much is hidden, what noise has which moments, and what the loss then counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from emloom.errors import InputError
from emloom.nn.corrupt import add_gaussian, add_poisson, block_mask, hide, masked_error


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


blocks = st.tuples(*[st.integers(1, 4)] * 3)


@given(cells=blocks, block=blocks, fraction=st.floats(0, 1), seed=st.integers(0, 99))
def test_whole_blocks_are_hidden_as_many_as_asked_for(cells, block, fraction, seed):
    zyx = tuple(n * side for n, side in zip(cells, block, strict=True))
    mask = block_mask((2, 3, *zyx), fraction, block, seeded(seed))
    assert mask.shape == (2, 1, *zyx)
    assert mask.dtype == torch.bool
    split = mask.reshape(2, cells[0], block[0], cells[1], block[1], cells[2], block[2])
    each = split.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
    assert torch.equal(each.all(-1), each.any(-1))
    total = cells[0] * cells[1] * cells[2]
    assert each.all(-1).flatten(1).sum(1).tolist() == [round(fraction * total)] * 2
    assert torch.equal(mask, block_mask((2, 3, *zyx), fraction, block, seeded(seed)))


def test_blocks_are_cut_at_the_faces():
    mask = block_mask((1, 1, 1, 5, 7), 1.0, (2, 4, 4), seeded())
    assert mask.shape == (1, 1, 1, 5, 7)
    assert bool(mask.all())


def test_every_block_is_hidden_as_often_and_samples_differ():
    n, fraction = 4000, 0.25
    mask = block_mask((n, 1, 1, 4, 4), fraction, (1, 2, 2), seeded())
    share = mask[:, 0, 0, ::2, ::2].float().mean(0)
    assert float((share - fraction).abs().max()) < 4 * (fraction * (1 - fraction) / n) ** 0.5
    assert len({tuple(row) for row in mask.flatten(1).tolist()}) == 4


def test_what_is_hidden_cannot_be_seen_and_is_all_that_counts():
    x = noise(2, 3, 2, 8, 8)
    mask = block_mask(x.shape, 0.5, (1, 4, 4), seeded())
    before = x.clone()
    shown, weight = hide(x, mask, fill=7.0)
    assert torch.equal(x, before)
    assert torch.equal(shown, torch.where(mask, 7.0, x))
    assert torch.equal(weight, mask.float())
    other, _ = hide(torch.where(mask, x + 1, x), mask, fill=7.0)
    assert torch.equal(other, shown)
    answer = noise(2, 3, 2, 8, 8, seed=1)
    error = masked_error(answer, x, weight)
    inside = mask.expand_as(x)
    torch.testing.assert_close(error, (answer - x)[inside].square().mean())
    assert torch.equal(masked_error(torch.where(mask, answer, torch.nan), x, weight), error)
    assert float(masked_error(answer, x, torch.zeros_like(weight))) == 0


def test_gaussian_noise_has_its_standard_deviation():
    x = noise(1, 1, 16, 50, 50)
    n = x.numel()
    shown, weight = add_gaussian(x, 0.3, seeded())
    added = shown - x
    assert abs(float(added.mean())) < 4 * 0.3 / n**0.5
    assert float(added.std()) == pytest.approx(0.3, rel=4 * (1 / (2 * n)) ** 0.5)
    assert torch.equal(weight, torch.ones(1, 1, 16, 50, 50))
    assert torch.equal(add_gaussian(x, 0.3, seeded()).x, shown)
    assert torch.equal(add_gaussian(x, 0.0, seeded()).x, x)


@pytest.mark.parametrize("quanta", [5.0, 200.0])
def test_poisson_noise_keeps_the_mean_and_is_stronger_where_it_is_bright(quanta):
    n = 40_000
    for value in (0.0, 0.2, 0.9):
        x = torch.full((1, 2, 1, 100, 200), value)
        shown, weight = add_poisson(x, quanta, seeded())
        assert weight.shape == (1, 1, 1, 100, 200)
        assert bool((weight == 1).all())
        spread = (value / quanta) ** 0.5
        assert abs(float(shown.mean()) - value) <= 4 * spread / n**0.5
        assert float(shown.std()) == pytest.approx(spread, rel=0.05)
        counts = shown * quanta
        torch.testing.assert_close(counts, counts.round())
    assert torch.equal(add_poisson(x, quanta, seeded()).x, shown)


def test_what_makes_no_sense_is_refused():
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            block_mask((1, 1, 1, 4, 4), fraction, (1, 2, 2), seeded())
    with pytest.raises(InputError, match="at least 1 along every axis"):
        block_mask((1, 1, 1, 4, 4), 0.5, (1, 0, 2), seeded())
    with pytest.raises(InputError, match="standard deviation of -1"):
        add_gaussian(torch.zeros(1, 1, 1, 2, 2), -1.0, seeded())
    with pytest.raises(InputError, match="must be positive"):
        add_poisson(torch.zeros(1, 1, 1, 2, 2), 0.0, seeded())
    for value in (-0.5, float("nan")):
        with pytest.raises(InputError, match="before scaling"):
            add_poisson(torch.full((1, 1, 1, 2, 2), value), 10.0, seeded())
