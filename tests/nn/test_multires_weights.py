"""Weights of two-dimensional nets: what a net says with them is what they said, with axes exchanged."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.nn.multires_autoencoder import MultiResolutionAutoencoder, MultiResolutionSpec
from emloom.nn.multires_weights import load_planar


def layer(conv: nn.Module, n: int, norm: bool, slope: float, *before: nn.Module) -> nn.Sequential:
    return nn.Sequential(*before, conv, *([nn.BatchNorm2d(n)] if norm else []), nn.LeakyReLU(slope))


class Deep(nn.Module):
    """Two convolutions a level, f = 1; with skips, or a linear layer that makes the latent."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        self.epoch = nn.Parameter(torch.tensor(3), requires_grad=False)
        self.skip = skip
        maps, aside = [1, 2, 4, 8, 16], [0, 0, 2 * skip, 4 * skip, 0]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        n_in = 1
        for m, a in zip(maps, aside, strict=True):
            self.encoder.append(layer(nn.Conv2d(n_in, m, 3), m, True, 0.01))
            self.encoder.append(layer(nn.Conv2d(m, m + a, 3), m + a, True, 0.01))
            n_in = m
        flat = 16 + skip * (400 + 1568)
        make = nn.Conv2d(flat, 5, 1) if skip else nn.Linear(16, 5)
        unfold = nn.ConvTranspose2d(5, flat, 1) if skip else nn.Linear(5, 16)
        self.encoder.append(layer(make, 5, skip, 0.01))
        self.decoder.append(layer(unfold, flat, skip, 0.01))
        for level in (4, 3, 2, 1, 0):
            m = maps[level]
            self.decoder.append(layer(nn.ConvTranspose2d(m + aside[level], m, 3), m, True, 0.01))
            out = maps[level - 1]
            last = nn.Sequential(nn.ConvTranspose2d(1, 1, 3))
            self.decoder.append(layer(nn.ConvTranspose2d(m, out, 3), out, True, 0.01) if level else last)

    def latent(self, x: Tensor) -> Tensor:
        seen = {}
        for level, m in enumerate([1, 2, 4, 8, 16]):
            x = self.encoder[2 * level + 1](self.encoder[2 * level](x))
            seen[level], x = x[:, m:], x[:, :m]
            x = nn.functional.max_pool2d(x, 2) if level < 4 else x
        if not self.skip:
            return self.encoder[10](x.flatten(1))
        flat = torch.cat([x.flatten(1), seen[3].flatten(1), seen[2].flatten(1)], dim=1)
        return self.encoder[10](flat[:, :, None, None]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.latent(x)
        y = self.decoder[0](y[:, :, None, None]).flatten(1) if self.skip else self.decoder[0](y)
        y, skip4, skip3 = y.split([16, 400, 1568], dim=1) if self.skip else (y, None, None)
        y = y[:, :, None, None]
        for index, level in enumerate((4, 3, 2, 1, 0)):
            y = y if level == 4 else nn.functional.interpolate(y, scale_factor=2)
            if self.skip and level == 3:
                y = torch.cat([y, skip4.reshape(-1, 4, 10, 10)], dim=1)
            if self.skip and level == 2:
                y = torch.cat([y, skip3.reshape(-1, 2, 28, 28)], dim=1)
            y = self.decoder[2 * index + 2](self.decoder[2 * index + 1](y))
        return y


class Flat(nn.Module):
    """One convolution a level, three or four of them, and linear layers of flattened windows."""

    def __init__(self, window: int, levels: int) -> None:
        super().__init__()
        maps = [1, *(2 * 2**level for level in range(levels))]
        n = maps[-1] * window**2
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(*layer(nn.Conv2d(a, b, 3), b, i > 0, 0), nn.MaxPool2d(2))
                for i, (a, b) in enumerate(pairwise(maps))
            ),
            nn.Flatten(),
            nn.Sequential(nn.Linear(n, 5), nn.ReLU()),
        )
        self.decoder = nn.Sequential(
            nn.Sequential(nn.Linear(5, n), nn.ReLU()),
            nn.Unflatten(1, (maps[-1], window, window)),
            *(
                layer(nn.ConvTranspose2d(b, a, 3), a, True, 0, nn.Upsample(scale_factor=2))
                for a, b in zip(maps[-2:0:-1], maps[:1:-1], strict=True)
            ),
            nn.Sequential(nn.Upsample(scale_factor=2), nn.ConvTranspose2d(2, 1, 3)),
        )

    def latent(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


ONE_EACH = {"f": 2, "skip": False, "slope": 0, "plain": ("first", "latent")}
NETS = {
    "skip": (lambda: Deep(True), {"f": 1}),
    "linear latent": (lambda: Deep(False), {"f": 1, "skip": False, "plain": ("latent",)}),
    "four levels": (lambda: Flat(1, 4), ONE_EACH | {"convolutions": (1, 1, 1, 1, 0)}),
    "window": (lambda: Flat(3, 3), ONE_EACH | {"convolutions": (1, 1, 1, 0), "window": 3}),
}
each_net = pytest.mark.parametrize("name", list(NETS))


def pair(name: str) -> tuple[nn.Module, MultiResolutionAutoencoder]:
    """The planar net, with statistics and biases not those of the start, and an untrained one of its shape."""
    make, fields = NETS[name]
    torch.manual_seed(3)
    planar = make()
    for part in planar.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean += 0.1 * torch.randn_like(part.running_mean)
            part.running_var *= 0.5 + torch.rand_like(part.running_var)
            part.weight.data += 0.1 * torch.randn_like(part.weight)
            nn.init.normal_(part.bias, std=0.1)
        elif isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):  # signals that stay alive
            first = isinstance(part, nn.ConvTranspose2d)
            nn.init.normal_(part.weight, std=(2 / part.weight.transpose(0, int(first))[0].numel()) ** 0.5)
    net = MultiResolutionAutoencoder(MultiResolutionSpec(n_latent=5, **fields))
    return planar.double().eval(), net.double().eval()


@each_net
@pytest.mark.parametrize("axes", ["xy", "yx"])
@torch.inference_mode()
def test_a_net_says_what_the_planar_one_says(name, axes):
    planar, net = pair(name)
    load_planar(net, planar.state_dict(), axes=axes)
    x = torch.randn(2, 1, net.spec.patch, net.spec.patch, dtype=torch.double)
    as_here = x.transpose(2, 3) if axes == "xy" else x
    latent, answer = planar.latent(x), planar(x)
    torch.testing.assert_close(net.latent(as_here[:, :, None]).flatten(1), latent, rtol=1e-9, atol=1e-10)
    found = net(as_here[:, :, None])[:, :, 0]
    torch.testing.assert_close(found.transpose(2, 3) if axes == "xy" else found, answer, rtol=1e-9, atol=1e-10)
    assert float(answer.std(dim=(1, 2, 3)).min()) > 0.01
    other = net(as_here.mT[:, :, None])  # turned, but the weights are not
    assert not torch.allclose(other[:, :, 0].mT, found, atol=1e-3)


@torch.inference_mode()
def test_an_encoder_alone_and_arrays_do_as_well():
    planar, net = pair("skip")
    arrays = {name: tensor.numpy() for name, tensor in planar.encoder.state_dict().items()}
    load_planar(net.encoder, arrays)
    x = torch.randn(1, 1, 140, 140, dtype=torch.double)
    expected = planar.latent(x)
    torch.testing.assert_close(net.latent(x.mT[:, :, None]).flatten(1), expected, rtol=1e-9, atol=1e-10)


def test_what_does_not_fit_is_refused_by_name_and_changes_nothing():
    planar, net = pair("linear latent")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = planar.state_dict()
    reordered = OrderedDict(sorted(state.items()))
    short = OrderedDict(list(state.items())[:-1])
    wide = OrderedDict(state, **{"encoder.1.0.weight": np.zeros((1, 2, 3, 3), np.float32)})
    cases = [
        (reordered, r"decoder.0.0.bias of shape \(16,\) comes where encoder.layers.conv11.0.weight of shape"),
        (short, "fewer than the .* decoder.layers.convt11.bias has no partner"),
        (OrderedDict(state, extra=torch.zeros(2)), "more than the .* extra has no partner"),
        (wide, r"encoder.1.0.weight of shape \(1, 2, 3, 3\) comes where encoder.layers.conv12.0.weight"),
        (pair("skip")[0].state_dict(), "comes where"),
    ]
    for weights, words in cases:
        with pytest.raises(InputError, match=words):
            load_planar(net, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
