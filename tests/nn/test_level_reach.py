"""The laws of tiles: what a net of levels answers in a tile depends on its context, on nothing further out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from emloom.geometry import Vec
from emloom.nn.level_autoencoders import (
    AtrousAutoencoderSpec,
    FCNAutoencoderSpec,
    LevelAutoencoder,
    LevelSpec,
    UNetAutoencoderSpec,
)

SHAPES = [FCNAutoencoderSpec, AtrousAutoencoderSpec, UNetAutoencoderSpec]
POOLINGS = ["max", "average", "stride", "blurpool"]
_MOST_VOXELS = 40_000


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net_of(spec: LevelSpec, seed: int = 1) -> LevelAutoencoder:
    torch.manual_seed(seed)
    return LevelAutoencoder(spec).eval()


def positive(net: LevelAutoencoder) -> LevelAutoencoder:
    """The net with weights of which nothing cancels, none of them small."""
    for parameter in net.parameters():
        parameter.data = parameter.data.abs() + 0.1
    return net


@st.composite
def specs(draw: st.DrawFn, poolings: list[str] = POOLINGS) -> LevelSpec:
    """A small net of any shape, flat or not, with kernels of up to five voxels and factors of up to three."""
    n, flat = draw(st.integers(2, 3)), draw(st.booleans())
    sizes = st.tuples(*[st.sampled_from([1])] * flat, *[st.sampled_from([1, 3, 5])] * (3 - flat))
    factor = st.tuples(*[st.just(1)] * flat, *[st.integers(1, 3)] * (3 - flat))
    fields = {
        "features": tuple(draw(st.lists(st.integers(1, 2), min_size=n, max_size=n))),
        "factors": tuple(draw(st.lists(factor, min_size=n - 1, max_size=n - 1))),
        "kernels": tuple(tuple(draw(st.lists(sizes, min_size=1, max_size=2))) for _ in range(n)),
        "padding": draw(st.sampled_from(["zeros", "reflect"])),
    }
    shape = draw(st.sampled_from(SHAPES))
    if shape is not AtrousAutoencoderSpec:
        fields["pooling"] = draw(st.sampled_from(poolings))
        strides = zip(fields["factors"], fields["kernels"][1:], strict=True)
        assume(
            fields["pooling"] != "stride" or all(f <= k for a, b in strides for f, k in zip(a, b[0], strict=True))
        )
    if shape is UNetAutoencoderSpec:
        fields["skips"] = tuple(draw(st.lists(st.booleans(), min_size=n - 1, max_size=n - 1)))
        fields["merge"] = draw(st.sampled_from(["add", "concatenate"]))
    return shape.from_dict(fields)


def around(net: LevelAutoencoder, cells: Vec = (1, 1, 1)) -> tuple[Vec, Vec, Vec]:
    """Start and stop of a tile of some cells, and the shape of a volume: its context and one more cell around."""
    axes = list(zip(net.lattice, net.context, cells, strict=True))
    start = tuple(c + s for s, c, _ in axes)
    stop = tuple(a + s * k for a, (s, _, k) in zip(start, axes, strict=True))
    shape = tuple(b + c + s for b, (s, c, _) in zip(stop, axes, strict=True))
    assume(all(n >= least for n, least in zip(shape, net.rule.first, strict=True)))
    assume(torch.Size(shape).numel() <= _MOST_VOXELS)
    return start, stop, shape


def cut(start: Vec, stop: Vec) -> tuple[slice, ...]:
    return (slice(None), slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))


def grown(start: Vec, stop: Vec, margin: Vec) -> tuple[slice, ...]:
    low = tuple(a - m for a, m in zip(start, margin, strict=True))
    return cut(low, tuple(b + m for b, m in zip(stop, margin, strict=True)))


@settings(deadline=None, max_examples=40)
@given(spec=specs(), cells=st.tuples(*[st.integers(1, 2)] * 3), seed=st.integers(0, 99))
def test_voxels_beyond_the_context_change_nothing(spec, cells, seed):
    net = net_of(spec, seed)
    start, stop, shape = around(net, cells)
    x = noise(1, 1, *shape, seed=seed)
    other = 10 * noise(1, 1, *shape, seed=seed + 1)
    inner = grown(start, stop, net.context)
    other[inner] = x[inner]
    assert not torch.equal(other, x)
    with torch.inference_mode():
        a, b = net(x)[cut(start, stop)], net(other)[cut(start, stop)]
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(spec=specs(), cells=st.tuples(*[st.integers(1, 2)] * 3), seed=st.integers(0, 99))
def test_a_tile_grown_by_its_context_says_what_the_whole_says(spec, cells, seed):
    net = net_of(spec, seed)
    start, stop, shape = around(net, cells)
    tile = grown(start, stop, net.context)
    x = noise(1, 1, *shape, seed=seed)
    assume(net.rule.fits(x[tile].shape[2:]))  # all but what is too small to be mirrored
    inside = tuple(slice(c, c + b - a) for c, a, b in zip(net.context, start, stop, strict=True))
    with torch.inference_mode():
        torch.testing.assert_close(net(x[tile])[:, :, *inside], net(x)[cut(start, stop)], rtol=0, atol=1e-5)


# Steps of three that look one voxel to each side: above, the skip reaches further than what is below it.
STEPS = {
    "features": (1, 1),
    "factors": ((1, 1, 3),),
    "kernels": (((1, 1, 5), (1, 1, 3)), ((1, 1, 3),)),
    "pooling": "stride",
}


def test_a_skip_may_reach_further_than_steps():
    assert FCNAutoencoderSpec.from_dict(STEPS).reach(2) == (4 + 3, 2 + 3)
    assert UNetAutoencoderSpec.from_dict(STEPS).reach(2) == (4 + 3, 3 + 3)


@settings(deadline=None, max_examples=40)
@example(spec=FCNAutoencoderSpec.from_dict(STEPS), seed=0)
@example(spec=UNetAutoencoderSpec.from_dict(STEPS), seed=0)
@given(spec=specs(["average", "stride", "blurpool"]), seed=st.integers(0, 99))
def test_the_reach_is_exactly_as_far_as_gradients_get(spec, seed):
    net = positive(net_of(spec, seed)).double()
    start, stop, shape = around(net)
    x = noise(1, 1, *shape, seed=seed).abs().double().requires_grad_()
    net(x)[cut(start, stop)].sum().backward()
    felt = (x.grad[0, 0] != 0).nonzero()
    for axis in range(3):
        below, above = spec.reach(axis)
        assert int(felt[:, axis].min()) == start[axis] - below
        last = int(felt[:, axis].max())
        # Steps may leave out the last voxels of the tile itself.
        ends_inside = above == 0 and getattr(spec, "pooling", None) == "stride"
        assert last < stop[axis] if ends_inside else last == stop[axis] + above - 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flat_levels", [None, 1])
def test_the_context_is_no_cell_larger_than_it_must_be(shape, flat_levels):
    """With weights as they are drawn, the outermost cells of the context reach the answer, along every axis."""
    levels = 5 if flat_levels is None else 3
    net = net_of(shape.of(2, levels=levels, flat_levels=flat_levels))
    start = net.context
    stop = tuple(a + s for a, s in zip(start, net.lattice, strict=True))
    wide = tuple(b + c for b, c in zip(stop, net.context, strict=True))
    x = noise(1, 1, *wide).requires_grad_()
    net(x)[cut(start, stop)].square().sum().backward()
    for axis, (context, step) in enumerate(zip(net.context, net.lattice, strict=True)):
        if context:
            lines = x.grad[0, 0].abs().amax(dim=[a for a in range(3) if a != axis])
            assert float(lines[:step].max() + lines[-step:].max()) > 0


@pytest.mark.parametrize("how", POOLINGS)
def test_context_and_lattice_of_the_default(how):
    spec = UNetAutoencoderSpec(pooling=how)
    assert spec.lattice == (1, 16, 16)
    # From the answer back, in voxels of the level: 2, 1 + 2, 2 + 2, 2 + 2, 2 + 2 at the deepest; then, four times,
    # twice as many and 2 more; blurred, a further 1 each time. With steps, n becomes 2 n + 3, above 2 n + 2.
    below = {"max": 94, "average": 94, "blurpool": 94 + 15, "stride": 79}[how]
    above = below - 15 if how == "stride" else below
    assert spec.reach(1) == (below, above)
    assert spec.context == (0, *[-(-below // 16) * 16] * 2)
    assert LevelAutoencoder(spec).context == spec.context
    assert LevelAutoencoder(spec).lattice == spec.lattice


def test_the_atrous_net_has_every_lattice():
    spec = AtrousAutoencoderSpec.of(1, levels=3)
    assert spec.lattice == (1, 1, 1)
    assert spec.reach(1) == (21, 22)
    assert spec.context == (0, 22, 22)


def test_a_net_with_no_kernel_beyond_a_voxel_needs_no_context():
    spec = FCNAutoencoderSpec(features=(1, 2), factors=((1, 2, 2),), kernels=(((1, 1, 1),),) * 2)
    assert spec.context == (0, 0, 0)
