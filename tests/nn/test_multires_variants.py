"""The laws of multi-resolution autoencoders with other levels: the published ones, and any."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.nn.multires_autoencoder import MultiResolutionAutoencoder, MultiResolutionSpec

LINEAR = {"n_latent": 192, "skip": False, "plain": ("latent",)}
ONE_EACH = {
    "f": 32,
    "n_latent": 196,
    "skip": False,
    "convolutions": (1, 1, 1, 1, 0),
    "plain": ("first", "latent"),
    "slope": 0,
}
WIDE = ONE_EACH | {"f": 8, "n_latent": 5000, "window": 17}
WIDER = WIDE | {"n_latent": 10_000}
WIDE_THREE = WIDE | {"convolutions": (1, 1, 1, 0), "plain": ("latent",), "window": 36}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net_of(spec: MultiResolutionSpec) -> MultiResolutionAutoencoder:
    """A net whose statistics and biases are not those of the start."""
    torch.manual_seed(2)
    net = MultiResolutionAutoencoder(spec)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.running_mean += 0.3 * torch.randn_like(part.running_mean)
                part.running_var *= 0.5 + torch.rand_like(part.running_var)
            if getattr(part, "bias", None) is not None:
                part.bias += 0.1 * torch.randn_like(part.bias)
    return net.eval()


def numbers(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


def conv(n_in: int, n_out: int, norm: bool = True) -> int:
    return (9 * n_in + 1) * n_out + 2 * n_out * norm


def linear(n_in: int, n_out: int) -> int:
    return (n_in + 1) * n_out


# ---- the published variants -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "patch", "sizes", "encoder", "decoder"),
    [
        (LINEAR, 140, (136, 64, 28, 10, 1), 1_229_808, 1_229_105),
        (
            ONE_EACH,
            46,
            (44, 20, 8, 2, 1),
            conv(1, 32, norm=False) + conv(32, 64) + conv(64, 128) + conv(128, 256) + linear(256, 196),
            linear(196, 256) + conv(256, 128) + conv(128, 64) + conv(64, 32) + conv(32, 1, norm=False),
        ),
        (
            WIDE,
            302,
            (300, 148, 72, 34, 17),
            conv(1, 8, norm=False) + conv(8, 16) + conv(16, 32) + conv(32, 64) + linear(17**2 * 64, 5000),
            linear(5000, 17**2 * 64) + conv(64, 32) + conv(32, 16) + conv(16, 8) + conv(8, 1, norm=False),
        ),
        (WIDER, 302, (300, 148, 72, 34, 17), 184_994_608, 185_002_929),
        (
            WIDE_THREE,
            302,
            (300, 148, 72, 36),
            conv(1, 8) + conv(8, 16) + conv(16, 32) + linear(36**2 * 32, 5000),
            linear(5000, 36**2 * 32) + conv(32, 16) + conv(16, 8) + conv(8, 1, norm=False),
        ),
    ],
)
def test_published_variants_have_their_patches_and_as_many_parameters(fields, patch, sizes, encoder, decoder):
    spec = MultiResolutionSpec.from_dict(fields)
    assert spec.patch == patch
    assert spec.sizes == sizes
    with torch.device("meta"):
        net, x = MultiResolutionAutoencoder(spec).eval(), torch.empty(1, 1, 1, patch, patch)
    assert (numbers(net.encoder), numbers(net.decoder)) == (encoder, decoder)
    assert net.latent(x).shape == (1, spec.n_latent, 1, 1, 1)
    assert net(x).shape == x.shape


def test_layers_are_named_by_level_and_place():
    with torch.device("meta"):
        net = MultiResolutionAutoencoder(MultiResolutionSpec.from_dict(WIDE_THREE))
    assert list(net.encoder.layers) == ["conv11", "conv21", "conv31", "latent"]
    assert list(net.decoder.layers) == ["latent", "convt31", "convt21", "convt11"]


def test_a_net_is_the_planar_net_it_stands_for():
    """Against plain layers of the 46 x 46 variant, one after the other: poolings, ReLU, which have a norm."""
    net = net_of(MultiResolutionSpec.from_dict(ONE_EACH | {"f": 2, "n_latent": 5}))
    x = noise(3, 1, 1, 46, 46)
    layers, relu = net.encoder.layers, nn.functional.relu
    y = x
    for level in range(1, 5):
        conv_, *norm = [p for p in layers[f"conv{level}1"] if not isinstance(p, nn.LeakyReLU)]
        assert len(norm) == (level > 1)
        y = conv_(y)
        y = nn.functional.max_pool3d(relu(norm[0](y) if norm else y), (1, 2, 2))
    weight = layers["latent"][0]
    y = relu(nn.functional.linear(y.flatten(1), weight.weight.flatten(1), weight.bias))
    torch.testing.assert_close(net.latent(x).flatten(1), y)
    layers = net.decoder.layers
    y = relu(nn.functional.linear(y, layers["latent"][0].weight[:, :, 0, 0, 0].T, layers["latent"][0].bias))
    y = y[:, :, None, None, None]
    for level in (4, 3, 2, 1):
        y = layers[f"convt{level}1"](nn.functional.interpolate(y, scale_factor=(1, 2, 2)))
    torch.testing.assert_close(net(x), y)


# ---- any levels -------------------------------------------------------------------------------------------------


@st.composite
def specs(draw: st.DrawFn) -> MultiResolutionSpec:
    levels = draw(st.integers(2, 4))
    counts = [
        *draw(st.lists(st.integers(1, 2), min_size=levels - 1, max_size=levels - 1)),
        draw(st.integers(0, 2)),
    ]
    fields = {
        "f": draw(st.integers(1, 2)),
        "n_latent": 3,
        "skip": levels == 4 and draw(st.booleans()),
        "batch_norm": draw(st.booleans()),
        "plain": tuple(draw(st.sets(st.sampled_from(["first", "latent"])))),
        "slope": draw(st.sampled_from([0, 0.01])),
        "convolutions": tuple(counts),
        "window": draw(st.integers(1, 3)),
        "in_channels": draw(st.integers(1, 2)),
    }
    return MultiResolutionSpec.from_dict(fields)


@settings(deadline=None, max_examples=40)
@given(spec=specs(), ny=st.integers(1, 3), nx=st.integers(1, 3))
def test_latents_of_a_tile_are_those_of_its_patches(spec, ny, nx):
    net = net_of(spec)
    size = [spec.patch + spec.stride * (n - 1) for n in (ny, nx)]
    tile = noise(2, spec.in_channels, 1, *size)
    with torch.inference_mode():
        latents = net.latent(tile)
        assert latents.shape == (2, 3, 1, ny, nx)
        for j in range(ny):
            for i in range(nx):
                y, x = spec.stride * j, spec.stride * i
                patch = tile[..., y : y + spec.patch, x : x + spec.patch]
                there = latents[..., j : j + 1, i : i + 1]
                torch.testing.assert_close(net.latent(patch), there, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(spec=specs(), ny=st.integers(1, 3))
def test_decoders_give_the_size_back_or_take_one_patch(spec, ny):
    net = net_of(spec)
    tile = noise(1, spec.in_channels, 2, spec.patch + spec.stride * (ny - 1), spec.patch)
    with torch.inference_mode():
        if ny > 1 and (spec.skip or spec.window > 1):
            assert not net.rule.fits(tile.shape[2:])
            with pytest.raises(InputError, match="one position at a time"):
                net.decode(net.latent(tile))
        else:
            assert net(tile).shape == tile.shape


@settings(deadline=None, max_examples=30)
@given(spec=specs())
def test_a_latent_depends_on_its_whole_patch(spec):
    assume(spec.slope)  # what ReLU silences has no gradient
    net = net_of(spec)
    x = noise(1, spec.in_channels, 1, spec.patch, spec.patch).requires_grad_()
    for parameter in net.parameters():  # nothing cancels
        parameter.data = parameter.data.abs() + 0.1
    net.latent(x).sum().backward()
    felt = (x.grad[0, :, 0] != 0).any(dim=0)
    # A maximum is of one voxel in four: the outermost lattice cells, not every voxel, must be seen.
    edge = spec.stride
    assert all(bool(part.any()) for part in (felt[:edge], felt[-edge:], felt[:, :edge], felt[:, -edge:]))


@settings(deadline=None, max_examples=30)
@given(spec=specs())
def test_one_patch_trains_a_net_or_is_refused_by_name(spec):
    net = net_of(spec).train()
    x = noise(1, spec.in_channels, 1, spec.patch, spec.patch)
    if spec.needs_several:
        with pytest.raises(InputError, match="train with more patches"):
            net(x)
    else:
        assert net(x).shape == x.shape
    assert net(x.expand(2, -1, -1, -1, -1)).shape[0] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"convolutions": ()}, "2 to 9 levels"),
        ({"convolutions": (2,)}, "2 to 9 levels"),
        ({"convolutions": (2, 0, 2, 2)}, "only the deepest may have 0"),
        ({"convolutions": (2, 2, 2, -1)}, "only the deepest may have 0"),
        ({"convolutions": (2, 2, 2, 10)}, "each with 1 to 9"),
        ({"convolutions": (2, 2, 2)}, "at least 4 levels"),
        ({"window": 0}, "window"),
        ({"slope": 1}, "slope"),
        ({"plain": ("last",)}, "plain"),
    ],
)
def test_impossible_levels_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        MultiResolutionSpec.from_dict(change)
