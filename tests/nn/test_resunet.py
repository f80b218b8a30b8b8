"""The laws of the residual U-Net: published sizes, reach, tiles that agree, and what depends on a tile."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.heads import AutoContext, DenseNet, MultiHead
from emloom.nn.model import ModelSpec, build, load, save
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.parts import DilatedCentre, SmoothLift, SqueezeExcitation
from emloom.nn.predict import Predictor
from emloom.nn.reshape import crop
from emloom.nn.resunet import ResUNet, ResUNetSpec
from emloom.nn.supervision import levels_of
from emloom.nn.unet import UNetSpec

SMALL = {"features": (2, 3, 4), "flat_levels": 1}
NETS = {
    "weight": ResUNetSpec(**SMALL),
    "none": ResUNetSpec(**SMALL, norm="none"),
    "batch": ResUNetSpec(**SMALL, norm="batch"),
    "elu": ResUNetSpec(**SMALL, activation="elu"),
    "nearest": ResUNetSpec(**SMALL, upsample="nearest"),
    "isotropic": ResUNetSpec(features=(2, 3), flat_levels=0),
    "flat": ResUNetSpec(features=(2, 3, 3), flat_levels=3),
    "multi_dilation": ResUNetSpec(features=(2, 3), flat_levels=1, block="multi_dilation", activation="elu"),
    "centre": ResUNetSpec(features=(2, 3), flat_levels=1, centre=(1, 2, 4)),
    "supervised": ResUNetSpec(**SMALL, supervision=1),
}
TILED = {
    "group": ResUNetSpec(**SMALL, norm="group"),
    "instance": ResUNetSpec(**SMALL, norm="instance"),
    "squeeze": ResUNetSpec(**SMALL, squeeze=8),
}
each_net = pytest.mark.parametrize("name", NETS)


def net_of(spec: ResUNetSpec, in_channels: int = 1) -> MultiHead:
    """A net whose answers vary: biases that are not zero, heads not near zero, statistics not of the start."""
    torch.manual_seed(3)
    net = MultiHead(spec, {"a": 2}, in_channels)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for part in net.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.running_mean += 0.3 * torch.randn_like(part.running_mean)
                part.running_var *= 0.5 + torch.rand_like(part.running_var)
    return net.eval()


def noise(shape: Vec, seed: int = 0, channels: int = 1) -> Tensor:
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(seed))


def grown(shape: Vec, margin: Vec) -> Vec:
    z, y, x = (n + 2 * m for n, m in zip(shape, margin, strict=True))
    return (z, y, x)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@torch.inference_mode()
def interior(net: MultiHead, x: Tensor) -> Tensor:
    return net.interior(x)["a"]


@pytest.mark.parametrize(
    ("spec", "count", "context"),
    [
        (ResUNetSpec.published(), 5_940_801, (16, 176, 176)),
        (ResUNetSpec.plus(), 4_821_505, (24, 368, 368)),
        (ResUNetSpec.linked().model_copy(update={"norm": "batch"}), 6_886_341, (16, 416, 416)),
    ],
)
def test_the_published_nets_have_the_published_parameters(spec, count, context):
    with torch.device("meta"):
        net = MultiHead(spec, {"cleft": 1})
        out = net(torch.empty(1, 1, 24, 256, 256))
    assert parameters(net) == count
    assert out["cleft"].shape == (1, 1, 24, 256, 256)
    assert net.lattice == (2, 16, 16)
    assert net.context == context
    assert ResUNetSpec.from_yaml(spec.to_yaml()) == spec


@each_net
def test_it_is_what_prediction_needs(name):
    net = net_of(NETS[name])
    assert isinstance(net, DenseNet)
    assert not net.tile_dependent
    assert net.padding == "same"
    for cells in ((1, 1, 1), (2, 1, 3)):
        wanted = tuple(n * c for n, c in zip(net.lattice, cells, strict=True))
        assert net.input_shape(wanted) == net.output_shape(wanted) == wanted
        assert net(noise(wanted))["a"].shape == (1, 2, *wanted)
        shown = grown(wanted, net.context)
        assert interior(net, noise(shown)).shape == (1, 2, *wanted)
        assert net.peak_bytes(shown) >= 4 * max(NETS[name].features[0], 2) * shown[0] * shown[1] * shown[2]
    with pytest.raises(InputError, match="the next input that fits"):
        net(noise((wanted[0], wanted[1], wanted[2] + 1)))


@each_net
def test_interior_is_forward_without_the_context(name):
    net = net_of(NETS[name])
    x = noise(grown(net.lattice, net.context))
    with torch.inference_mode():
        expected = crop(net(x)["a"], net.context)
    assert expected.std() > 1e-3
    torch.testing.assert_close(interior(net, x), expected, rtol=0, atol=2e-5)


@each_net
def test_two_tiles_agree_with_one(name):
    net = net_of(NETS[name])
    step = net.lattice
    x = noise(grown((2 * step[0], step[1], 2 * step[2]), net.context))
    whole = interior(net, x)
    for z in (0, 1):
        for w in (0, 1):
            part = x[:, :, z * step[0] :, :, w * step[2] :]
            part = part[:, :, : x.shape[2] - step[0], :, : x.shape[4] - step[2]]
            here = whole[:, :, z * step[0] : (z + 1) * step[0], :, w * step[2] : (w + 1) * step[2]]
            torch.testing.assert_close(interior(net, part), here, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["weight", "batch", "multi_dilation"])
def test_stored_tiles_differ_by_one_step_at_most(name):
    """What is written to disk: uint8, so at most 1/255."""
    net = net_of(NETS[name])
    predictor = Predictor(net, lambda raw: raw)
    step = net.lattice
    x = noise(grown((step[0], step[1], 2 * step[2]), net.context))[0, 0].numpy()
    whole = predictor(x)["a"].astype(int)
    for w in (0, 1):
        part = predictor(x[:, :, w * step[2] : x.shape[2] - (1 - w) * step[2]])["a"].astype(int)
        assert abs(part - whole[:, :, :, w * step[2] : (w + 1) * step[2]]).max() <= 1


@each_net
def test_nothing_beyond_the_context_is_felt_and_the_announced_margin_is_needed(name):
    """The gradient of one cell reaches exactly as far as the plan says: no less, or tiles would be wasteful."""
    net = net_of(NETS[name])
    for parameter in net.parameters():  # positive weights: no ReLU or cancellation hides a path
        parameter.data = parameter.data.abs() + 0.01
    for part in net.modules():
        if hasattr(part, "_filters"):
            part._filters = lambda part=part: part.weight  # standardised filters have mean 0: they would cancel
        if isinstance(part, nn.BatchNorm3d):
            part.running_mean.zero_()
    x = noise(grown(net.lattice, net.context)).abs().requires_grad_()
    net(x)["a"][:, :, *(slice(c, c + n) for c, n in zip(net.context, net.lattice, strict=True))].sum().backward()
    assert x.grad is not None
    felt = (x.grad[0, 0] != 0).nonzero()
    backbone = net.unet
    assert isinstance(backbone, ResUNet)
    for axis in range(3):
        reach = net.context[axis] - int(felt[:, axis].min())
        assert reach == backbone._margin[axis]
        assert int(felt[:, axis].max()) == net.context[axis] + net.lattice[axis] - 1 + reach


@pytest.mark.parametrize("name", TILED)
def test_nets_that_look_at_the_whole_tile_say_so(name):
    net = net_of(TILED[name])
    assert net.tile_dependent
    x = noise(grown((2, 4, 4), net.context))
    with torch.inference_mode():
        expected = crop(net(x)["a"], net.context)
    torch.testing.assert_close(interior(net, x), expected, rtol=0, atol=2e-5)
    # And they are right to say so: what lies beyond the context of the first cell moves the answer there.
    x = noise(grown((2, 4, 36), net.context))
    far = x.clone()
    far[..., -16:] += 100
    first = (..., slice(0, 4))
    assert not torch.allclose(interior(net, far)[first], interior(net, x)[first], atol=1e-3)


@pytest.mark.parametrize("name", [*NETS, *TILED])
def test_every_parameter_learns(name):
    net = net_of((NETS | TILED)[name]).train()
    out = net(noise(tuple(4 * n for n in net.lattice)))
    sum(answer.square().mean() for answer in out.values()).backward()
    silent = [key for key, p in net.named_parameters() if p.grad is None or float(p.grad.abs().sum()) == 0]
    # A bias in front of a norm would be subtracted again: there is none. What is left must learn.
    assert not silent
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


@pytest.mark.parametrize("block", ["residual", "multi_dilation"])
@pytest.mark.parametrize("norm", ["weight", "batch", "group"])
def test_the_signal_stays_alive_at_the_start(block, norm):
    torch.manual_seed(0)
    net = ResUNet(ResUNetSpec(features=(8, 16, 16, 16), flat_levels=2, block=block, norm=norm))
    with torch.no_grad():
        out = net(noise((8, 32, 32)))
    assert 0.1 < float(out.std()) < 10


def test_supervised_levels_answer_in_training_only():
    spec = ResUNetSpec(features=(2, 3, 4, 5), flat_levels=2, supervision=2)
    net = net_of(spec).train()
    x = noise((4, 16, 16))
    levels = levels_of(net(x), "a")
    assert [tuple(level.shape[2:]) for level in levels] == [(4, 16, 16), (4, 8, 8), (4, 4, 4)]
    top = net(x)["a"]
    net.eval()
    assert set(net(x)) == {"a"}
    torch.testing.assert_close(net(x)["a"], top)
    assert set(net.interior(noise(grown((2, 8, 8), net.context)))) == {"a"}


def test_nearest_upsampling_runs():
    """Bug 25 of the original: `mode="nearest"` with `align_corners` raises, so its second net never ran."""
    net = ResUNet(ResUNetSpec.plus().model_copy(update={"features": (2, 3, 3, 4, 4), "upsample": "nearest"}))
    assert net.eval()(noise((2, 16, 16))).shape == (1, 2, 2, 16, 16)
    x = noise((2, 3, 4))
    lifted = SmoothLift((1, 2, 3), "nearest")(x)
    assert torch.equal(lifted, x.repeat_interleave(2, 3).repeat_interleave(3, 4))


def test_multi_dilation_blocks_are_dilated():
    """Bug 25 of the original: its "dilation" block had no dilation."""
    net = ResUNet(ResUNetSpec.plus())
    branches = [[layer.conv.dilation for layer in branch] for branch in net.left[0].branches]
    assert branches == [[(1, d, d) for d in (1, 2, 4, 8)[:n]] for n in (1, 2, 3, 4)]
    assert net.left[0].margin == (1, 16, 16)
    assert all(len(net.left[level].branches) == 1 for level in (3, 4))


@settings(deadline=None, max_examples=20)
@given(
    factor=st.tuples(*[st.integers(1, 4)] * 3),
    cells=st.tuples(*[st.integers(1, 4)] * 3),
    how=st.sampled_from(["trilinear", "nearest"]),
    margin=st.tuples(*[st.integers(0, 5)] * 3),
)
def test_the_coarse_margin_of_a_lift_is_what_it_needs(factor, cells, how, margin):
    lift = SmoothLift(factor, how)
    below = lift.margin_below(margin)
    wide = tuple(n + 4 for n in below)
    x = noise(grown(cells, wide)).double()
    fine = tuple(n * f for n, f in zip(wide, factor, strict=True))
    whole = crop(lift(x), tuple(a - b for a, b in zip(fine, margin, strict=True)))
    inner = lift(crop(x, (4, 4, 4)))
    cut = tuple(n * f - m for n, f, m in zip(below, factor, margin, strict=True))
    torch.testing.assert_close(crop(inner, cut), whole, rtol=0, atol=1e-6)


def test_a_dilated_centre_is_the_sum_of_its_stages():
    torch.manual_seed(0)
    centre = DilatedCentre(3, (1, 3, 3), (1, 2, 4), "none", "relu")
    x = noise((2, 20, 20), channels=3)
    total, stage = x, x
    for layer, d in zip(centre.stages, (1, 2, 4), strict=True):
        stage = functional.relu(
            functional.conv3d(stage, layer.conv.weight, layer.conv.bias, padding=(0, d, d), dilation=(1, d, d))
        )
        total = total + stage
    torch.testing.assert_close(centre(x, True), total)
    assert centre.margin == (0, 7, 7)
    torch.testing.assert_close(centre(x, False), crop(total, centre.margin))


def test_squeeze_and_excitation_scales_maps_by_a_number():
    part = SqueezeExcitation(16, 8, "relu")
    assert part.down.out_features == 4  # 16 / 8 is less than the least
    assert SqueezeExcitation(64, 8, "relu").down.out_features == 8
    x = noise((2, 3, 4), channels=16)
    scale = part(x) / x
    torch.testing.assert_close(scale, scale[:, :, :1, :1, :1].expand_as(x))
    assert 0 < float(scale.min().detach()) < float(scale.max().detach()) < 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": (4,)}, "at least two levels"),
        ({"features": (4, 0)}, "at least 1 map"),
        ({"flat_levels": 6}, "have at most all flat"),
        ({"centre": (0,)}, "at least 1"),
        ({"supervision": 4}, "3 decoder levels below full resolution"),
        ({"block": "residul"}, "did you mean 'residual'"),
    ],
)
def test_impossible_nets_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        ResUNetSpec.from_dict(change)


# --- models and checkpoints ----------------------------------------------------------------------------------


def model(network: object, variant: str = "affinities") -> ModelSpec:
    objective = NeuronsObjective(variant=variant, neighborhood=((1, 0, 0), (0, 1, 0)))
    return ModelSpec(objective=objective, network=network, voxel_size_nm=(40, 4, 4))


@pytest.mark.parametrize("name", ["weight", "batch", "supervised", "multi_dilation"])
def test_a_checkpoint_brings_back_the_net(tmp_path, name):
    spec = model(NETS[name])
    torch.manual_seed(0)
    net = build(spec)
    net.train()(noise(tuple(4 * n for n in net.lattice)))  # batch statistics move
    net.eval()
    save(tmp_path / "m", spec, net.state_dict(), {"step": "1"})
    found, again, _ = load(tmp_path / "m")
    assert found == spec
    x = noise(tuple(4 * n for n in net.lattice))
    assert torch.equal(again.eval()(x)["affinities"], net(x)["affinities"])


def test_weights_of_a_wrapped_net_load(tmp_path):
    """Bug 21 of the original: the prefix `module.` of a parallel wrapper made checkpoints unreadable."""
    spec = model(NETS["weight"])
    net = build(spec)
    wrapped = {f"module.{key}": value for key, value in net.state_dict().items()}
    save(tmp_path / "m", spec, wrapped, {})
    _, again, _ = load(tmp_path / "m")
    for key, value in again.state_dict().items():
        assert torch.equal(value, net.state_dict()[key])


def test_jobs_without_a_kind_of_network_mean_a_unet():
    """Checkpoints and job files from before there were two kinds stay valid, under the same hash."""
    old = model(UNetSpec(features=(2, 3), factors=((1, 2, 2),)))
    data = old.to_dict()
    del data["network"]["kind"]
    assert ModelSpec.from_dict(data) == old
    assert ModelSpec.from_dict(data).content_hash() == old.content_hash()
    assert ModelSpec(voxel_size_nm=(8, 8, 8)).network == UNetSpec()
    new = model(ResUNetSpec())
    assert ModelSpec.from_yaml(new.to_yaml()) == new
    with pytest.raises(InputError, match=r"network\.kind: 'res_unett' is not valid; did you mean 'res_unet'"):
        ModelSpec.from_dict({**data, "network": {"kind": "res_unett"}})
    with pytest.raises(InputError, match=r"network\.fetures: unknown key; did you mean 'features'"):
        ModelSpec.from_dict({**data, "network": {"fetures": [2]}})


def test_auto_context_of_residual_nets_tiles():
    spec = model(ResUNetSpec(features=(2, 3), flat_levels=1), "acrlsd")
    torch.manual_seed(0)
    net = build(spec).eval()
    assert isinstance(net, AutoContext)
    step = net.lattice
    x = noise(grown((step[0], step[1], 2 * step[2]), net.context))
    with torch.inference_mode():
        whole = net.interior(x)["affinities"]
        torch.testing.assert_close(whole, crop(net(x)["affinities"], net.context), rtol=0, atol=2e-5)
        tile = net.interior(x[..., step[2] :])["affinities"]
    torch.testing.assert_close(tile, whole[..., step[2] :], rtol=0, atol=2e-5)
