"""The laws of the multi-resolution autoencoder: the published layers, and patches that agree with tiles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.nn.cost import multiply_adds
from emloom.nn.latent_classifier import LatentClassifier, LatentClassifierSpec
from emloom.nn.multires_autoencoder import MultiResolutionAutoencoder, MultiResolutionSpec

# layer: maps in, maps out, voxels along y and x after it, multiply-adds in millions, parameters of the convolution
ENCODER = {
    "conv11": (1, 16, 138, 2.742, 160),
    "conv12": (16, 16, 136, 42.615, 2_320),
    "conv21": (16, 32, 66, 20.072, 4_640),
    "conv22": (32, 32, 64, 37.749, 9_248),
    "conv31": (32, 64, 30, 16.589, 18_496),
    "conv32": (64, 96, 28, 43.352, 55_392),
    "conv41": (64, 128, 12, 10.617, 73_856),
    "conv42": (128, 192, 10, 22.118, 221_376),
    "conv51": (128, 256, 3, 2.654, 295_168),
    "conv52": (256, 256, 1, 0.590, 590_080),
    "latent": (31_744, 2048, 1, 65.012, 65_013_760),
}
# layer: maps in, maps out, voxels along y and x after it
DECODER = {
    "latent": (2048, 31_744, 1),
    "convt52": (256, 256, 3),
    "convt51": (256, 128, 5),
    "convt42": (192, 128, 12),
    "convt41": (128, 64, 14),
    "convt32": (96, 64, 30),
    "convt31": (64, 32, 32),
    "convt22": (32, 32, 66),
    "convt21": (32, 16, 68),
    "convt12": (16, 16, 138),
    "convt11": (16, 1, 140),
}
SMALL = {"f": 1, "n_latent": 5}
variants = pytest.mark.parametrize("skip", [True, False])
norms = pytest.mark.parametrize("batch_norm", [True, False])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def on_meta(spec: MultiResolutionSpec) -> MultiResolutionAutoencoder:
    with torch.device("meta"):
        return MultiResolutionAutoencoder(spec).eval()


def net_of(**fields: object) -> MultiResolutionAutoencoder:
    """A net whose statistics and biases are not those of the start."""
    torch.manual_seed(2)
    net = MultiResolutionAutoencoder(MultiResolutionSpec(**SMALL, **fields))
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.running_mean += 0.3 * torch.randn_like(part.running_mean)
                part.running_var *= 0.5 + torch.rand_like(part.running_var)
            if getattr(part, "bias", None) is not None:
                part.bias += 0.1 * torch.randn_like(part.bias)
    return net.eval()


def conv_of(layer: nn.Module) -> nn.Module:
    return next(p for p in layer.modules() if isinstance(p, nn.Conv3d | nn.ConvTranspose3d))


def numbers(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


def shapes_of(part: nn.Module, shown: Tensor) -> dict[str, tuple[int, ...]]:
    seen: dict[str, tuple[int, ...]] = {}
    for name, layer in part.layers.items():
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: tuple(out.shape)}))
    part(shown)
    return seen


# ---- the published layers ---------------------------------------------------------------------------------------


def test_the_encoder_is_that_of_the_table():
    encoder = on_meta(MultiResolutionSpec()).encoder
    x = torch.empty(1, 1, 1, 140, 140, device="meta")
    costs = multiply_adds(encoder, x)
    shapes = shapes_of(encoder, x)
    assert list(shapes) == list(ENCODER)
    for name, (n_in, n_out, size, cost, count) in ENCODER.items():
        conv = conv_of(encoder.layers[name])
        assert (conv.in_channels, conv.out_channels) == (n_in, n_out)
        assert shapes[name] == (1, n_out, 1, size, size)
        assert numbers(conv) == count
        assert costs[f"layers.{name}.0"] / 1e6 == pytest.approx(cost, abs=6e-4)
    assert sum(costs.values()) / 1e6 == pytest.approx(264.1, abs=0.05)


def test_the_decoder_mirrors_it():
    decoder = on_meta(MultiResolutionSpec()).decoder
    shapes = shapes_of(decoder, torch.empty(1, 2048, 1, 1, 1, device="meta"))
    assert list(shapes) == list(DECODER)
    for name, (n_in, n_out, size) in DECODER.items():
        conv = conv_of(decoder.layers[name])
        assert (conv.in_channels, conv.out_channels) == (n_in, n_out)
        assert shapes[name] == (1, n_out, 1, size, size)
    last = decoder.layers["convt11"]
    assert isinstance(last, nn.ConvTranspose3d)  # linear: no norm, no activation


@pytest.mark.parametrize(
    ("fields", "encoder", "decoder"),
    [
        ({}, 66_290_768, 66_378_801),
        ({"batch_norm": False}, 66_284_496, 66_313_841),
        ({"skip": False}, 1_710_896, 1_704_753),
        ({"skip": False, "batch_norm": False}, 1_704_816, 1_702_769),
    ],
)
def test_the_nets_have_the_published_parameters(fields, encoder, decoder):
    net = on_meta(MultiResolutionSpec(**fields))
    assert (numbers(net.encoder), numbers(net.decoder)) == (encoder, decoder)


def test_the_basic_encoder_costs_what_is_published():
    net = on_meta(MultiResolutionSpec(skip=False))
    costs = multiply_adds(net.encoder, torch.empty(1, 1, 1, 140, 140, device="meta"))
    assert sum(costs.values()) / 1e6 == pytest.approx(177.8, abs=0.05)


def test_classifiers_have_the_published_sizes():
    with torch.device("meta"):
        linear = LatentClassifier(LatentClassifierSpec())
        deep = LatentClassifier(LatentClassifierSpec.three_layers())
        latent = torch.empty(1, 2048, 1, 1, 1)
    assert numbers(linear) == 4_098
    assert multiply_adds(deep, latent) == {
        "layers.0": 2048 * 256,
        "layers.2": 256 * 24,
        "layers.4": 24 * 2,
    }
    assert sum(multiply_adds(deep, latent).values()) / 1e6 == pytest.approx(0.53, abs=0.005)


# ---- what the skips are -----------------------------------------------------------------------------------------


@norms
def test_the_latent_is_made_of_flattened_maps_in_the_listed_order(batch_norm):
    """Against the layers run one after the other on planes, as the table says it."""
    net = net_of(skip=True, batch_norm=batch_norm)
    x = noise(2, 1, 1, 140, 140)
    layers = net.encoder.layers
    pool = nn.MaxPool2d(2)

    def run(name: str, y: Tensor) -> Tensor:
        return layers[name](y[:, :, None])[:, :, 0]

    y = x[:, :, 0]
    for level in (1, 2):
        y = pool(run(f"conv{level}2", run(f"conv{level}1", y)))
    y, skip3 = run("conv32", run("conv31", y)).split([4, 2], dim=1)
    y, skip4 = run("conv42", run("conv41", pool(y))).split([8, 4], dim=1)
    y = run("conv52", run("conv51", pool(y)))
    flat = torch.cat([y.flatten(1), skip4.flatten(1), skip3.flatten(1)], dim=1)
    assert flat.shape == (2, 16 + 400 + 1568)
    expected = run("latent", flat[:, :, None, None])
    torch.testing.assert_close(net.latent(x)[:, :, 0], expected)

    layers = net.decoder.layers
    up = nn.Upsample(scale_factor=2, mode="nearest")
    y, skip4, skip3 = run("latent", expected).flatten(1).split([16, 400, 1568], dim=1)
    y = run("convt51", run("convt52", y[:, :, None, None]))
    y = run("convt41", run("convt42", torch.cat([up(y), skip4.reshape(2, 4, 10, 10)], dim=1)))
    y = run("convt31", run("convt32", torch.cat([up(y), skip3.reshape(2, 2, 28, 28)], dim=1)))
    for level in (2, 1):
        y = run(f"convt{level}1", run(f"convt{level}2", up(y)))
    torch.testing.assert_close(net(x)[:, :, 0], y)


def test_nothing_passes_around_the_latent():
    net = net_of(skip=True)
    x = noise(1, 1, 1, 140, 140)
    assert torch.equal(net(x), net.decode(net.latent(x)))
    assert torch.autograd.grad(net.decode(net.latent(x).detach()).sum(), net.decoder.parameters())


# ---- patches and tiles ------------------------------------------------------------------------------------------


@variants
@norms
@torch.inference_mode()
def test_latents_of_a_tile_are_those_of_its_patches(skip, batch_norm):
    net = net_of(skip=skip, batch_norm=batch_norm)
    tile = noise(2, 1, 2, 140 + 16, 140 + 32)
    latents = net.latent(tile)
    assert latents.shape == (2, 5, 2, 2, 3)
    for j in range(2):
        for i in range(3):
            patch = tile[..., 16 * j : 16 * j + 140, 16 * i : 16 * i + 140]
            here = latents[..., j : j + 1, i : i + 1]
            torch.testing.assert_close(net.latent(patch), here, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(latents[..., 0, 0], latents[..., 1, 2], atol=1e-3)


@variants
@torch.inference_mode()
def test_sections_are_independent(skip):
    net = net_of(skip=skip)
    x = noise(1, 1, 3, 140, 140)
    whole = net(x)
    assert whole.shape == x.shape
    for z in range(3):
        torch.testing.assert_close(net(x[:, :, z : z + 1]), whole[:, :, z : z + 1], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_without_skips_a_tile_is_reconstructed_at_once():
    net = net_of(skip=False)
    tile = noise(1, 1, 1, 156, 172)
    assert net(tile).shape == tile.shape
    # Where only one latent is seen, a tile says what the patch says.
    latents = net.latent(tile)
    corner = (..., slice(0, 16), slice(0, 16))
    torch.testing.assert_close(net.decode(latents)[corner], net.decode(latents[..., :1, :1])[corner])


@torch.inference_mode()
def test_a_classifier_gives_a_map_of_logits_for_the_latents_of_a_tile():
    torch.manual_seed(0)
    head = LatentClassifier(LatentClassifierSpec(n_latent=5, hidden=(4,), n_out=3))
    latents = noise(1, 5, 2, 3, 4)
    out = head(latents)
    assert out.shape == (1, 3, 2, 3, 4)
    torch.testing.assert_close(head(latents[..., 1:2, 2:3]), out[..., 1:2, 2:3])
    assert bool((out > 0).any())  # logarithms of probabilities would all be negative
    assert not torch.allclose(out.exp().sum(1), torch.ones(1, 2, 3, 4), atol=0.1)


@variants
@norms
def test_every_parameter_learns(skip, batch_norm):
    torch.manual_seed(0)
    net = MultiResolutionAutoencoder(MultiResolutionSpec(f=2, n_latent=16, skip=skip, batch_norm=batch_norm))
    x = noise(4, 1, 1, 140, 140)
    (net(x) - x).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    weights = [(n, p) for n, p in net.named_parameters() if n.endswith("weight")]
    assert not [name for name, p in weights if float(p.grad.abs().sum()) == 0]


@norms
def test_the_signal_stays_alive_at_the_start(batch_norm):
    torch.manual_seed(0)
    net = MultiResolutionAutoencoder(MultiResolutionSpec(f=4, n_latent=64, batch_norm=batch_norm))
    x = noise(4, 1, 1, 140, 140)
    assert 0.05 < float(net.latent(x).detach().std()) < 10
    assert 0.01 < float(net(x).detach().std()) < 10


# ---- what is refused --------------------------------------------------------------------------------------------


def test_tiles_that_do_not_give_whole_latents_are_refused():
    net = net_of(skip=False)
    with pytest.raises(InputError, match=r"\(1, 140, 140\) and \(1, 156, 140\)"):
        net(noise(1, 1, 1, 150, 140))
    with pytest.raises(InputError, match=r"use \(1, 140, 140\)"):
        net.latent(noise(1, 1, 1, 124, 124))


def test_batch_norm_does_not_learn_from_one_patch():
    one = noise(1, 1, 1, 140, 140)
    with pytest.raises(InputError, match="train with more patches"):
        net_of(skip=False).train()(one)
    assert net_of(skip=False, batch_norm=False).train()(one).shape == one.shape
    assert net_of(skip=False).train()(one.expand(2, -1, -1, -1, -1)).shape == (2, 1, 1, 140, 140)


def test_a_net_with_skips_reconstructs_patches_only():
    net = net_of(skip=True)
    with pytest.raises(InputError, match=r"use \(1, 140, 140\)"):
        net(noise(1, 1, 1, 156, 140))
    with pytest.raises(InputError, match="one position at a time"):
        net.decode(net.latent(noise(1, 1, 1, 156, 140)))


@pytest.mark.parametrize("change", [{"f": 0}, {"n_latent": 0}, {"in_channels": 0}])
def test_impossible_nets_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        MultiResolutionSpec.from_dict(change)


def test_a_classifier_without_units_is_refused():
    with pytest.raises(InputError, match="at least 1 unit"):
        LatentClassifierSpec.from_dict({"hidden": (256, 0)})
