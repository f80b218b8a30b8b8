"""The laws of the three shapes: one number of parameters, what skips and pooling do, and which tiles fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.level_autoencoders import (
    AtrousAutoencoderSpec,
    FCNAutoencoderSpec,
    LevelAutoencoder,
    UNetAutoencoderSpec,
)
from emloom.nn.pooling import pool
from emloom.nn.tilesize import TileRule

SHAPES = [FCNAutoencoderSpec, AtrousAutoencoderSpec, UNetAutoencoderSpec]
each_shape = pytest.mark.parametrize("shape", SHAPES)
POOLINGS = ["max", "average", "stride", "blurpool"]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net_of(spec: object) -> LevelAutoencoder:
    """A net with biases that are not zero."""
    torch.manual_seed(1)
    net = LevelAutoencoder(spec)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter += 0.1 * torch.randn_like(parameter)
    return net.eval()


def parameters(spec: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in LevelAutoencoder(spec).parameters())


# ---- the number of parameters -----------------------------------------------------------------------------------


@each_shape
@pytest.mark.parametrize(("width", "count"), [(4, 109_413), (8, 436_713), (16, 1_744_977), (32, 6_976_161)])
def test_nets_of_images_have_the_published_parameters(shape, width, count):
    assert parameters(shape.of(width)) == shape.of(width).parameters == count


def test_the_default_is_eight_maps_and_five_levels():
    for shape in SHAPES:
        assert shape() == shape.of(8)


levels = st.integers(2, 4)


@st.composite
def shapes(draw):
    n = draw(levels)
    factor = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))
    kernel = st.tuples(*[st.sampled_from([1, 3])] * 3)
    return {
        "features": tuple(draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))),
        "factors": tuple(draw(st.lists(factor, min_size=n - 1, max_size=n - 1))),
        "kernels": tuple(tuple(draw(st.lists(kernel, min_size=1, max_size=2))) for _ in range(n)),
        "in_channels": draw(st.integers(1, 2)),
        "padding": draw(st.sampled_from(["zeros", "reflect"])),
    }


@settings(deadline=None, max_examples=25)
@given(fields=shapes(), more=st.tuples(*[st.integers(0, 1)] * 3))
def test_any_three_of_one_spec_have_as_many_parameters_and_keep_the_shape_of_tiles_that_fit(fields, more):
    specs = [shape.from_dict(fields) for shape in SHAPES]
    assert {parameters(spec) for spec in specs} == {specs[0].parameters}
    for spec in specs:
        net = net_of(spec)
        tile = [a + k * s for a, k, s in zip(net.rule.first, more, net.rule.step, strict=True)]
        x = noise(1, spec.in_channels, *tile)
        with torch.inference_mode():
            assert net(x).shape == x.shape


@settings(deadline=None, max_examples=25)
@given(fields=shapes(), merge=st.sampled_from(["add", "concatenate"]), data=st.data())
def test_the_number_of_parameters_follows_from_the_spec(fields, merge, data):
    switch = st.lists(st.booleans(), min_size=len(fields["factors"]), max_size=len(fields["factors"]))
    spec = UNetAutoencoderSpec.from_dict({**fields, "merge": merge, "skips": tuple(data.draw(switch))})
    assert parameters(spec) == spec.parameters
    x = noise(1, spec.in_channels, *net_of(spec).rule.first)
    assert net_of(spec)(x).shape == x.shape


@pytest.mark.parametrize("width", [4, 8, 16, 32])
@pytest.mark.parametrize("flat_levels", [0, 2, 5])
def test_concatenated_skips_at_the_same_number_of_parameters(width, flat_levels):
    added = UNetAutoencoderSpec.of(width, flat_levels=flat_levels, skip_dropout=0.25)
    joined = added.concatenated()
    assert joined.merge == "concatenate"
    assert joined.skip_dropout == 0.25
    assert abs(parameters(joined) / parameters(added) - 1) < 0.01
    assert all(a <= b for a, b in zip(joined.features, added.features, strict=True))


def test_levels_too_thin_to_match_are_refused():
    with pytest.raises(InputError, match="give the levels more maps"):
        UNetAutoencoderSpec.of(1, levels=2).concatenated()


# ---- shapes -----------------------------------------------------------------------------------------------------


@each_shape
def test_a_net_of_images_sees_every_section_by_itself(shape):
    net = net_of(shape.of(2, levels=3))
    x = noise(1, 1, 3, 16, 16)
    with torch.inference_mode():
        together = net(x)
        for z in range(3):
            torch.testing.assert_close(net(x[:, :, z : z + 1]), together[:, :, z : z + 1], rtol=1e-5, atol=1e-5)


@each_shape
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_a_net_of_images_is_the_planar_net_it_stands_for(shape, padding):
    """Against plain two-dimensional layers with the same weights, written down as the definition says it."""
    net = net_of(shape.of(2, levels=3, padding=padding))
    mode = "constant" if padding == "zeros" else "reflect"
    dilated = shape is AtrousAutoencoderSpec

    def convs(block: nn.Module, x: Tensor, d: int) -> Tensor:
        for conv in (part for part in block if isinstance(part, nn.Conv3d)):
            x = nn.functional.pad(x, [d] * 4, mode=mode)
            x = nn.functional.conv2d(x, conv.weight[:, :, 0], conv.bias, dilation=d)
            x = torch.where(x > 0, x, 0.1 * x)
        return x

    seen, x = [], noise(2, 1, 1, 16, 16)
    y = x[:, :, 0]
    for level in range(3):
        if level and not dilated:
            y = nn.functional.max_pool2d(y, 2)
        y = convs(net.left[level], y, 2**level if dilated else 1)
        seen.append(y)
    for level in (1, 0):
        lift = net.lift[level]
        if dilated:
            d = 2**level
            y = nn.functional.pad(y, [d // 2, d - d // 2] * 2, mode=mode)
            y = nn.functional.conv2d(y, lift.weight[:, :, 0], lift.bias, dilation=d)
        else:
            y = nn.functional.conv_transpose2d(y, lift.weight[:, :, 0], lift.bias, stride=2)
        if shape is UNetAutoencoderSpec:
            y = y + seen[level]
        y = convs(net.right[level], y, 2**level if dilated else 1)
    y = nn.functional.conv2d(y, net.out.weight[:, :, 0], net.out.bias)
    torch.testing.assert_close(net(x)[:, :, 0], y, rtol=0, atol=1e-5)


def felt_by_one_voxel(net: LevelAutoencoder, shape: Vec) -> Tensor:
    """Where the gradient of the middle voxel's answer is not zero, ``[k, 3]`` relative to it."""
    for parameter in net.parameters():  # positive weights: nothing cancels
        parameter.data = parameter.data.abs() + 0.01
    x = noise(1, 1, *shape).abs().requires_grad_()
    middle = [n // 2 for n in shape]
    net(x)[0, 0, *middle].backward()
    assert x.grad is not None
    return (x.grad[0, 0] != 0).nonzero() - torch.tensor(middle)


@pytest.mark.parametrize(("flat_levels", "reach_z"), [(3, 0), (0, None)])
def test_the_atrous_net_looks_as_far_as_its_dilations(flat_levels, reach_z):
    net = net_of(AtrousAutoencoderSpec.of(1, levels=3, flat_levels=flat_levels))
    # Twice 1 + 2 + 4 down, twice 2 + 1 up, and the lifts: 2 spread over 1 + 1, 1 over 0 + 1.
    below, above = 14 + 6 + 1 + 0, 14 + 6 + 1 + 1
    z = 1 if reach_z == 0 else 45
    felt = felt_by_one_voxel(net, (z, 45, 45))
    expected = torch.tensor([[-below] * 3, [above] * 3])
    if reach_z == 0:
        expected[:, 0] = 0
    assert torch.equal(torch.stack([felt.amin(0), felt.amax(0)]), expected)


@each_shape
@pytest.mark.parametrize("options", [{}, {"padding": "reflect"}, {"flat_levels": 1}])
def test_every_parameter_learns_and_the_signal_stays_alive(shape, options):
    torch.manual_seed(0)
    net = LevelAutoencoder(shape.of(8, levels=3, **options))
    x = noise(2, 1, 8, 16, 16)
    answer = net(x)
    # Sums of skips double the power at each level; nothing vanishes or explodes.
    assert 0.1 < float(answer.detach().std()) < 10
    (answer - x).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_weights_start_as_he_et_al_say_and_biases_at_zero():
    torch.manual_seed(0)
    net = LevelAutoencoder(UNetAutoencoderSpec.of(32, levels=3))
    conv, lift = net.left[2][2], net.lift[1]
    assert float(conv.weight.detach().std()) == pytest.approx((2 / 1.01 / (128 * 9)) ** 0.5, rel=0.02)
    assert float(lift.weight.detach().std()) == pytest.approx((1 / 128) ** 0.5, rel=0.02)
    assert all(not p.any() for name, p in net.named_parameters() if name.endswith("bias"))


# ---- skips ------------------------------------------------------------------------------------------------------


def test_a_skip_that_is_off_is_not_used():
    x = noise(1, 1, 1, 16, 16)
    full = UNetAutoencoderSpec.of(2, levels=4)
    assert full.keeping(1).skips == (False, True, False)
    assert full.dropping(1).skips == (True, False, True)
    for spec in (full, full.keeping(0), full.dropping(0), full.keeping(2)):
        net = net_of(spec)
        with torch.inference_mode():
            levels = net.encode(x)
            answer = net.decode(levels)
            for level in range(3):
                other = [t + 1 if i == level else t for i, t in enumerate(levels)]
                assert torch.equal(net.decode(other), answer) == (not spec.has_skip[level])


def test_without_skips_a_u_net_is_the_fcn():
    net = net_of(UNetAutoencoderSpec.of(2, levels=3, skips=(False, False)))
    fcn = net_of(FCNAutoencoderSpec.of(2, levels=3))
    fcn.load_state_dict(net.state_dict())
    x = noise(1, 1, 1, 8, 8)
    assert torch.equal(net(x), fcn(x))
    assert torch.equal(fcn.latent(x), fcn.encode(x)[-1])
    assert fcn.latent(x).shape == (1, 8, 1, 2, 2)


@pytest.mark.parametrize("merge", ["add", "concatenate"])
def test_skips_drop_out_per_sample_while_training_only(merge):
    share, n = 0.4, 4000
    net = net_of(UNetAutoencoderSpec.of(1, levels=2, skip_dropout=share, merge=merge))
    x, skip = torch.zeros(n, 1, 1, 2, 2), torch.ones(n, 1, 1, 2, 2)
    torch.testing.assert_close(net._merged(0, x, skip)[:, -1:], skip)
    torch.manual_seed(0)
    left = net.train()._merged(0, x, skip)[:, -1:].flatten(1)
    assert torch.equal(left, left[:, :1].expand_as(left))  # a whole sample at a time
    assert left.unique().tolist() == pytest.approx([0, 1 / (1 - share)])
    assert float((left[:, 0] == 0).float().mean()) == pytest.approx(
        share, abs=4 * (share * (1 - share) / n) ** 0.5
    )


# ---- pooling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("shape", [FCNAutoencoderSpec, UNetAutoencoderSpec])
def test_pooling_has_no_weights_and_fits_the_same_tiles(how, shape):
    spec = shape.of(2, levels=3, flat_levels=1, pooling=how)
    assert parameters(spec) == shape.of(2, levels=3, flat_levels=1).parameters
    net = net_of(spec)
    x = noise(1, 1, *net.rule.first)
    assert [tuple(t.shape[2:]) for t in net.encode(x)] == [(2, 4, 4), (2, 2, 2), (1, 1, 1)]
    assert net(x).shape == x.shape


def test_poolings_differ():
    x = noise(1, 1, 1, 16, 16)
    answers = [net_of(FCNAutoencoderSpec.of(2, levels=3, pooling=how))(x) for how in POOLINGS]
    assert all(not torch.allclose(a, b) for i, a in enumerate(answers) for b in answers[:i])


@settings(deadline=None, max_examples=20)
@given(factor=st.tuples(*[st.integers(1, 4)] * 3), seed=st.integers(0, 99))
def test_blurpool_is_three_boxes_in_a_row_around_the_window(factor, seed):
    x = noise(1, 2, *(4 * f for f in factor), seed=seed).double()
    blurred = x.numpy()
    for axis, f in enumerate(factor, start=2):
        weights = np.convolve(np.convolve(np.ones(f), np.ones(f)), np.ones(f)) / f**3
        wide = np.pad(blurred, [(f - 1, f - 1) if a == axis else (0, 0) for a in range(5)], mode="edge")
        along = np.apply_along_axis(lambda v, w=weights: np.convolve(v, w, mode="valid"), axis, wide)
        blurred = along.take(range(0, along.shape[axis], f), axis=axis)
    np.testing.assert_allclose(pool(x, factor, "blurpool").numpy(), blurred, atol=1e-12)


def test_blurpool_keeps_means_and_places():
    ramp = torch.arange(16.0).expand(1, 1, 1, 4, 16)
    assert torch.equal(pool(torch.ones(1, 1, 2, 4, 4), (1, 2, 2), "blurpool"), torch.ones(1, 1, 2, 2, 2))
    # As the mean of each window of a ramp is the place of its middle, so is the blurred value: no shift by half.
    inner = (..., slice(1, -1))
    expected = pool(ramp, (1, 2, 2), "average")[inner]
    torch.testing.assert_close(pool(ramp, (1, 2, 2), "blurpool")[inner], expected)


def test_blurpool_takes_the_finest_detail_away():
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 1, 1, 4, 16)
    assert float(pool(stripes, (1, 2, 2), "max").min()) == 1.0
    torch.testing.assert_close(pool(stripes, (1, 2, 2), "blurpool")[..., 1:-1], torch.full((1, 1, 1, 2, 6), 0.5))


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [FCNAutoencoderSpec, UNetAutoencoderSpec])
def test_tiles_that_pooling_does_not_divide_are_refused(shape):
    net = net_of(shape.of(1))
    assert net.rule.nearest((1, 500, 250)) == (1, 496, 256)
    with pytest.raises(InputError, match=r"\(1, 100, 64\).*\(1, 96, 64\) and \(1, 112, 64\)"):
        net(noise(1, 1, 1, 100, 64))


def test_the_atrous_net_takes_any_tile():
    net = net_of(AtrousAutoencoderSpec.of(1, levels=3))
    assert net(noise(1, 1, 1, 7, 11)).shape == (1, 1, 1, 7, 11)


@pytest.mark.parametrize(
    ("shape", "first"),
    [(FCNAutoencoderSpec, (1, 8, 8)), (AtrousAutoencoderSpec, (1, 5, 5)), (UNetAutoencoderSpec, (1, 8, 8))],
)
def test_mirrored_padding_needs_voxels_to_mirror(shape, first, monkeypatch):
    net = net_of(shape.of(1, levels=3, padding="reflect"))
    assert net.rule.first == first
    net(noise(1, 1, *first))
    smaller = [n - s for n, s in zip(first, net.rule.step, strict=True)]
    with pytest.raises(InputError, match="does not fit"):
        net(noise(1, 1, 1, *smaller[1:]))
    monkeypatch.setattr(TileRule, "check", lambda rule, shape: None)
    with pytest.raises(RuntimeError, match="Padding size"):  # torch would refuse, too: the rule is not too strict
        net(noise(1, 1, 1, *smaller[1:]))


@pytest.mark.parametrize(
    ("shape", "change", "words"),
    [
        (FCNAutoencoderSpec, {"features": (4,)}, "at least two levels"),
        (FCNAutoencoderSpec, {"features": (4, 0, 4, 4, 4)}, "at least 1 map"),
        (FCNAutoencoderSpec, {"factors": ((1, 2, 2),)}, "5 levels of features need 4 downsampling factors"),
        (FCNAutoencoderSpec, {"kernels": (((1, 2, 3),),) * 5}, "must be odd"),
        (FCNAutoencoderSpec, {"kernels": (((1, 3, 3),),) * 4}, "each of 5 levels"),
        (FCNAutoencoderSpec, {"factors": ((1, 0, 2),) * 4}, "at least 1 along every axis"),
        (FCNAutoencoderSpec, {"pooling": "stride", "factors": ((2, 2, 2),) * 4}, "never look at some voxels"),
        (FCNAutoencoderSpec, {"pooling": "blur_pool"}, "did you mean 'blurpool'"),
        (FCNAutoencoderSpec, {"skips": (True,) * 4}, "unknown key"),
        (AtrousAutoencoderSpec, {"pooling": "max"}, "unknown key"),
        (UNetAutoencoderSpec, {"skips": (True,) * 5}, "5 levels have 4 skips"),
        (UNetAutoencoderSpec, {"skip_dropout": 1.0}, "skip_dropout"),
    ],
)
def test_impossible_nets_are_refused(shape, change, words):
    with pytest.raises(InputError, match=words):
        shape.from_dict(change)


def test_only_skips_that_there_are_can_be_chosen():
    for level in (-1, 4):
        with pytest.raises(InputError, match="levels 0 to 3"):
            UNetAutoencoderSpec().keeping(level)
