"""The laws of the U-Net: shapes, reach, equivariance, and the three ways to run one set of weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.heads import MultiHead
from emloom.nn.layers import Conv
from emloom.nn.reshape import crop, depth_to_space, space_to_depth
from emloom.nn.unet import UNet, UNetSpec

TINY = (2, 3)
ONE = ((3, 3, 3),)
NETS = {
    "same": UNetSpec(features=(3, 4, 5), factors=((2, 2, 2), (2, 2, 2)), kernels=(ONE, ONE, ONE)),
    "stem": UNetSpec(features=TINY, factors=((1, 2, 2),), stem=(1, 2, 2)),
    "thirds": UNetSpec(features=TINY, factors=((3, 2, 3),), kernels=(((1, 3, 5),), ONE)),
    "residual": UNetSpec(features=TINY, factors=((2, 2, 2),), residual=True, upsample="transposed"),
    "valid": UNetSpec(features=TINY, factors=((2, 2, 2),), padding="valid", upsample="transposed"),
    "valid_thirds": UNetSpec(
        features=(2, 3, 4), factors=((3, 1, 2), (3, 2, 2)), kernels=(ONE, ONE, ONE), padding="valid", residual=True
    ),
    "flat": UNetSpec(features=(3,), factors=()),
    "batch": UNetSpec(features=TINY, factors=((2, 2, 2),), norm="batch"),
}
each_net = pytest.mark.parametrize("name", NETS)


def net_of(name: str, in_channels: int = 1) -> MultiHead:
    """A net whose answers vary: biases that are not zero, heads that are not near zero."""
    torch.manual_seed(3)
    net = MultiHead(NETS[name], {"a": 2}, in_channels)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net.eval()


def noise(shape: Vec, seed: int = 0, channels: int = 1) -> Tensor:
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(seed))


def grown(shape: Vec, margin: Vec) -> Vec:
    z, y, x = (n + 2 * m for n, m in zip(shape, margin, strict=True))
    return (z, y, x)


@torch.inference_mode()
def interior(net: MultiHead, x: Tensor) -> Tensor:
    return net.interior(x)["a"]


@pytest.mark.parametrize(
    ("spec", "shown", "answered", "millions"),
    [
        (UNetSpec.mtlsd(), (196, 196, 196), (72, 72, 72), 155.2),
        (UNetSpec.mtlsd(), (328, 328, 328), (204, 204, 204), 155.2),
        (UNetSpec.mtlsd(isotropic=False), (132, 268, 268), (72, 144, 144), 155.1),
        (
            UNetSpec.mtlsd().model_copy(update={"factors": ((1, 2, 2), (2, 2, 2), (2, 2, 2))}),
            (96, 212, 212),
            (48, 120, 120),
            112.4,
        ),
    ],
)
def test_the_published_network_has_the_published_shapes_and_parameters(spec, shown, answered, millions):
    with torch.device("meta"):
        net = MultiHead(spec, {"lsds": 10, "affinities": 3})
        out = net(torch.empty(1, 1, *shown))
    assert net.output_shape(shown) == answered
    assert out["lsds"].shape == (1, 10, *answered)
    assert out["affinities"].shape == (1, 3, *answered)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("isotropic", [True, False])
def test_the_lean_network_is_lean(isotropic):
    with torch.device("meta"):
        net = MultiHead(UNetSpec.lean(isotropic), {"lsds": 10, "affinities": 3})
        out = net(torch.empty(1, 1, 64, 64, 64))
    assert out["affinities"].shape == (1, 3, 64, 64, 64)
    assert 1e6 < sum(p.numel() for p in net.parameters()) < 1.5e6


@settings(deadline=None, max_examples=20)
@given(
    factor=st.tuples(*[st.integers(1, 3)] * 3),
    cells=st.tuples(*[st.integers(1, 3)] * 3),
    channels=st.integers(1, 3),
)
def test_space_to_depth_and_back_is_the_identity(factor, cells, channels):
    shape = tuple(f * n for f, n in zip(factor, cells, strict=True))
    x = torch.arange(2 * channels * shape[0] * shape[1] * shape[2]).reshape(2, channels, *shape)
    folded = space_to_depth(x, factor)
    assert folded.shape[2:] == torch.Size(cells)
    assert torch.equal(depth_to_space(folded, factor), x)
    # The stated order of channels: the last voxel of the first cell.
    last = (factor[0] * factor[1] * factor[2]) - 1
    assert torch.equal(folded[:, last, 0, 0, 0], x[:, 0, factor[0] - 1, factor[1] - 1, factor[2] - 1])


@each_net
def test_shapes_are_as_announced(name):
    net = net_of(name)
    for cells in ((1, 1, 1), (2, 1, 3)):
        wanted = tuple(n * c for n, c in zip(net.lattice, cells, strict=True))
        shown = net.input_shape(wanted)
        assert net.output_shape(shown) == wanted
        assert net(noise(shown))["a"].shape[2:] == wanted
        assert interior(net, noise(grown(wanted, net.context))).shape[2:] == wanted


@each_net
def test_interior_is_forward_without_the_context(name):
    net = net_of(name)
    x = noise(grown(net.lattice, net.context))
    if net.padding == "same":
        with torch.inference_mode():
            expected = crop(net(x)["a"], net.context)
    else:
        with torch.inference_mode():
            expected = net(x)["a"]
    assert expected.std() > 1e-3
    torch.testing.assert_close(interior(net, x), expected, rtol=0, atol=1e-5)


@each_net
def test_two_tiles_agree_with_one(name):
    net = net_of(name)
    step = net.lattice
    x = noise(grown((2 * step[0], step[1], 2 * step[2]), net.context))
    whole = interior(net, x)
    for z in (0, 1):
        for w in (0, 1):
            part = x[:, :, z * step[0] :, :, w * step[2] :]
            part = part[:, :, : x.shape[2] - step[0], :, : x.shape[4] - step[2]]
            here = whole[:, :, z * step[0] : (z + 1) * step[0], :, w * step[2] : (w + 1) * step[2]]
            torch.testing.assert_close(interior(net, part), here, rtol=0, atol=1e-5)


@each_net
def test_nothing_beyond_the_context_is_felt_and_everything_within_the_announced_input_is_needed(name):
    """The gradient of the answer reaches every face of the voxels the plan says it needs, and none beyond."""
    torch.manual_seed(0)
    net = net_of(name)
    for parameter in net.parameters():  # positive weights: no ReLU or cancellation hides a path
        parameter.data = parameter.data.abs() + 0.01
    x = noise(grown(net.lattice, net.context)).abs().requires_grad_()
    net.interior(x)["a"].sum().backward()
    assert x.grad is not None
    felt = (x.grad[0, 0] != 0).nonzero()
    centre_low, centre_high = net.context, tuple(c + n for c, n in zip(net.context, net.lattice, strict=True))
    for axis in range(3):
        assert felt[:, axis].min() <= centre_low[axis]
        assert felt[:, axis].max() >= centre_high[axis] - 1
        # `same` rounds the reach up to the lattice, so less than one lattice step of it is unused.
        assert felt[:, axis].min() < max(net.lattice[axis], 1) * (2 if net.padding == "valid" else 1)


@pytest.mark.parametrize("name", ["same", "valid"])
def test_a_shape_that_does_not_fit_names_the_next_that_does(name):
    net = net_of(name)
    good = net.input_shape(tuple(2 * n for n in net.lattice))
    bad = (good[0] - 1, good[1], good[2])
    with pytest.raises(InputError, match=str(good).replace("(", r"\(").replace(")", r"\)")):
        net(noise(bad))


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_normalising_nets_say_that_they_depend_on_the_tile(norm):
    spec = UNetSpec(features=TINY, factors=((2, 2, 2),), norm=norm)
    net = UNet(spec)
    assert net.tile_dependent
    assert not UNet(UNetSpec.lean()).tile_dependent
    x = noise(grown((4, 4, 4), net.context))
    torch.testing.assert_close(net.interior(x), crop(net(x), net.context))


def test_standardised_filters_forget_the_scale_and_offset_of_their_weights():
    conv = Conv(3, 5, (3, 3, 3), standardised=True)
    torch.manual_seed(0)
    x = torch.randn(1, 3, 6, 6, 6)
    with torch.no_grad():
        before = conv(x)
        conv.weight.mul_(7.0).add_(0.3)
        torch.testing.assert_close(conv(x), before, rtol=1e-3, atol=1e-3)
        conv.gain.mul_(2.0)
        torch.testing.assert_close(conv(x), 2 * before, rtol=1e-3, atol=1e-3)
    wide = Conv(64, 64, (3, 3, 3), standardised=True)
    y = wide(torch.relu(torch.randn(1, 64, 8, 8, 8)))  # ReLU of unit noise has variance 1/2 - 1/(2 pi)
    assert float(y.detach().var()) == pytest.approx(1 - 1 / math.pi, rel=0.1)
    assert not UNet(UNetSpec.lean()).tile_dependent


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": (4, 8)}, "2 levels of features need 1 downsampling"),
        ({"stem": (0, 1, 1)}, "at least 1"),
        ({"kernels": (ONE, ONE, ((2, 3, 3),))}, "odd"),
        ({"kernels": (ONE,)}, "each of 3 levels"),
        ({"features": (4, 0, 4)}, "at least 1 map"),
    ],
)
def test_impossible_nets_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        UNetSpec.from_dict(change)


@pytest.mark.parametrize("spec", [UNetSpec.lean(False), UNetSpec.mtlsd(False)])
def test_specs_survive_yaml(spec):
    assert UNetSpec.from_yaml(spec.to_yaml()) == spec


def test_he_initialisation_keeps_the_signal_alive():
    torch.manual_seed(0)
    net = UNet(UNetSpec(features=(8, 16, 32), factors=((2, 2, 2), (2, 2, 2)), upsample="transposed"))
    with torch.inference_mode():
        out = net(noise((16, 16, 16)))
    assert 0.1 < out.std() < 10
