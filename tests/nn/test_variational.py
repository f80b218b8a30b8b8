"""The laws of the variational autoencoder: draws, their distribution, and its divergence from the prior."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from emloom.errors import InputError
from emloom.nn.multires_autoencoder import MultiResolutionSpec
from emloom.nn.variational import Posterior, VariationalAutoencoder, VariationalSpec, kl_weight

variants = pytest.mark.parametrize("skip", [True, False])


def net_of(skip: bool, n_latent: int = 6) -> VariationalAutoencoder:
    """A net whose variances are not all 1."""
    torch.manual_seed(4)
    network = MultiResolutionSpec(f=1, n_latent=n_latent, skip=skip)
    net = VariationalAutoencoder(VariationalSpec(network=network))
    with torch.no_grad():
        net.logvar.weight += 0.3 * torch.randn_like(net.logvar.weight)
        net.logvar.bias -= 1
    return net.eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_draws_have_the_mean_and_the_variance_they_are_said_to_have():
    n = 40_000
    mu, logvar = torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([-4.0, 0.0, 1.5])
    posterior = Posterior(mu.expand(n, 3), logvar.expand(n, 3))
    z = posterior.sample(torch.Generator().manual_seed(0))
    sigma = torch.exp(logvar / 2)
    assert bool(((z.mean(0) - mu).abs() < 4 * sigma / n**0.5).all())
    assert bool(((z.var(0) / logvar.exp() - 1).abs() < 4 * (2 / n) ** 0.5).all())
    assert abs(float(torch.corrcoef(z.T)[0, 1])) < 4 / n**0.5


def test_gradients_pass_through_a_draw():
    mu, logvar = torch.zeros(2, 3, requires_grad=True), torch.full((2, 3), -1.0, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    z = Posterior(mu, logvar).sample(generator)
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones(2, 3))
    torch.testing.assert_close(logvar.grad, (z - mu).detach() / 2)  # d/dl exp(l / 2) eps


@given(seed=st.integers(0, 999))
def test_the_divergence_is_that_of_torch(seed):
    mu, logvar = noise(3, 2, 1, 2, 2, seed=seed), 2 * noise(3, 2, 1, 2, 2, seed=seed + 1000)
    expected = kl_divergence(Normal(mu, torch.exp(logvar / 2)), Normal(0.0, 1.0)).flatten(1).sum(1)
    found = Posterior(mu, logvar).divergence()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert float(found.min()) >= 0


def test_the_divergence_by_hand():
    # (mu^2 + v - 1 - ln v) / 2, added: mu 2, v 1 gives 2; mu 0, v e gives (e - 2) / 2.
    posterior = Posterior(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    assert posterior.divergence().tolist() == pytest.approx([2 + (torch.e - 2) / 2, 0.0])


@variants
def test_it_answers_from_the_mean_unless_it_trains(skip):
    net, x = net_of(skip), noise(2, 1, 1, 140, 140)
    answer = net(x)
    torch.testing.assert_close(answer.reconstruction, net.decode(answer.posterior.mu))
    torch.testing.assert_close(net.latent(x), answer.posterior.mu)
    assert torch.equal(net(x).reconstruction, answer.reconstruction)
    assert answer.posterior.logvar.std() > 0.01
    net.train()
    first, again, other = (net(x, torch.Generator().manual_seed(seed)).reconstruction for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    torch.manual_seed(0)
    assert not torch.allclose(net(x).reconstruction, net(x).reconstruction)


@variants
def test_distributions_of_a_tile_are_those_of_its_patches(skip):
    net, tile = net_of(skip), noise(1, 1, 1, 156, 140)
    whole = net.posterior(tile)
    below = net.posterior(tile[..., 16:, :])
    for all_of_it, part in zip(whole, below, strict=True):
        assert all_of_it.shape == (1, 6, 1, 2, 1)
        torch.testing.assert_close(all_of_it[..., 1:, :], part, rtol=1e-4, atol=1e-5)


@variants
def test_every_parameter_learns(skip):
    torch.manual_seed(0)
    net = VariationalAutoencoder(VariationalSpec(network=MultiResolutionSpec(f=2, n_latent=16, skip=skip)))
    x = noise(4, 1, 1, 140, 140)
    answer = net(x)
    assert not answer.posterior.logvar.any()  # all variances start at 1
    loss = (answer.reconstruction - x).square().mean() + answer.posterior.divergence().mean()
    loss.backward()
    weights = [(n, p) for n, p in net.named_parameters() if n.endswith("weight")]
    assert not [name for name, p in weights if float(p.grad.abs().sum()) == 0]


@variants
def test_patches_are_drawn_from_the_prior(skip):
    net = net_of(skip)
    drawn = net.imagine(3, torch.Generator().manual_seed(5))
    assert drawn.shape == (3, 1, 1, 140, 140)
    z = torch.randn(3, 6, 1, 1, 1, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(drawn, net.decode(z))
    torch.manual_seed(0)
    assert not torch.allclose(net.imagine(3), drawn)
    with pytest.raises(InputError, match="at least 1"):
        net.imagine(0)


@given(step=st.integers(0, 300), warmup=st.integers(0, 200), final=st.floats(0, 10))
def test_the_weight_grows_in_a_straight_line_and_stays(step, warmup, final):
    weight = kl_weight(step, warmup, final)
    assert weight == pytest.approx(final * (min(step / warmup, 1) if warmup else 1))
    assert weight <= kl_weight(step + 1, warmup, final) <= final


def test_the_weight_starts_at_nothing():
    assert [kl_weight(step, 4, 0.5) for step in (0, 1, 2, 4, 99)] == [0, 0.125, 0.25, 0.5, 0.5]
    for wrong in ((-1, 4, 1.0), (0, -4, 1.0), (0, 4, -1.0)):
        with pytest.raises(InputError, match="cannot be negative"):
            kl_weight(*wrong)
