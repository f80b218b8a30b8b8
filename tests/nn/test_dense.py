"""Dense conversion: at every voxel the number of its patch, and a refusal with all reasons where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.nn.dense import agreement, densify, problems
from emloom.nn.unet import UNet, UNetSpec
from emloom.nn.voxelbackbones import BackboneName, names
from emloom.nn.voxelnets import VoxelNet, VoxelNetSpec
from emloom.nn.voxelparts import ChannelNorm, Concat, Residual, Scale
from tests.marks import first_fast

with torch.device("meta"):
    CONVERTIBLE = [name for name in names() if VoxelNet(VoxelNetSpec(backbone=name), {"a": 1}).convertible]
SMALL = [name for name in CONVERTIBLE if not name.startswith("4_conv_resnet") and name != "dilated_no_pool@32"]
LARGE = [name for name in CONVERTIBLE if name not in SMALL]  # minutes in float64

MODES = ("atrous", "fragments")


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, and random statistics of batch norms, as after a training."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm3d | ChannelNorm):
            part.weight.data = torch.randn(part.weight.shape, generator=generator) * 0.3 + 1
            part.bias.data = torch.randn(part.bias.shape, generator=generator)
        if isinstance(part, nn.BatchNorm3d):
            part.running_mean = torch.randn(part.num_features, generator=generator)
            part.running_var = torch.rand(part.num_features, generator=generator) + 0.5
        if isinstance(part, nn.Conv3d):
            fan_in = part.weight[0].numel()
            part.weight.data = torch.randn(part.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
    return module.eval()


def voxel_net(
    name: BackboneName, odd: bool = False, dtype: torch.dtype = torch.float64, planar: bool = False
) -> VoxelNet:
    net = shaken(VoxelNet(VoxelNetSpec(backbone=name, odd=odd, planar=planar), {"classes": 6}))
    assert isinstance(net, VoxelNet)
    return net.to(dtype)


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def patchwise(net: Callable[[Tensor], Tensor], x: Tensor, window: tuple[int, ...]) -> Tensor:
    """What the network says about every patch, cut out one by one and shown to torch alone."""
    z, y, w = (n - k + 1 for n, k in zip(x.shape[2:], window, strict=True))
    at = [(i, j, k) for i in range(z) for j in range(y) for k in range(w)]
    a, b, c = window
    patches = torch.cat([x[:1, :, i : i + a, j : j + b, k : k + c] for i, j, k in at])
    return net(patches).reshape(z, y, w, -1).movedim(-1, 0)[None]


def far(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the spread of the answers."""
    return float((a - b).abs().max() / b.std().clamp(min=1e-30))


def terms(net: VoxelNet, x: Tensor) -> float:
    """The size of what the head adds up, to which the rounding of a sum is in proportion."""
    window = x[:, :, *(slice(n) for n in net.window)]
    head = net.heads.get_submodule("classes")
    features = net.backbone(window).abs()
    return float((features * head.get_parameter("weight").abs()).sum(dim=(1, 2, 3, 4)).max())


def seen(net: VoxelNet, x: Tensor) -> Tensor:
    """The input without the last voxel where windows are even."""
    return x[:, :, *(slice(n - (k + 1) % 2) for n, k in zip(x.shape[2:], net.window, strict=True))]


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_every_backbone_answers_densely_what_its_patches_say(name: BackboneName, odd: bool) -> None:
    net = voxel_net(name, odd)
    shape = (2, 2, 1) if name == "dilated@64" else (2, 3, 2)
    x = noise(1, 1, *net.input_shape(shape))
    with torch.inference_mode():
        expected = patchwise(net.patch_network("classes"), seen(net, x), net.window)
        assert expected.shape[2:] == shape
        for net.mode in MODES:
            assert far(net(x)["classes"], expected) < 1e-10
        net, x = net.float(), x.float()
        expected = patchwise(net.patch_network("classes"), seen(net, x), net.window)
        for net.mode in MODES:
            assert float((net(x)["classes"] - expected).abs().max()) <= 1e-6 * terms(net, x)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", CONVERTIBLE)
def test_planar_nets_answer_densely_what_their_patches_say(name: BackboneName, odd: bool) -> None:
    net = voxel_net(name, odd, planar=True)
    x = noise(1, 1, *net.input_shape((2, 1, 2) if name in LARGE else (3, 3, 2)))
    with torch.inference_mode():
        expected = patchwise(net.patch_network("classes"), seen(net, x), net.window)
        for net.mode in MODES:
            found = net(x)["classes"]
            assert found.shape == expected.shape
            assert far(found, expected) < 1e-10
            assert far(net(x[:, :, 1:2])["classes"], found[:, :, 1:2]) < 1e-10  # no other section is seen


@pytest.mark.parametrize("name", first_fast(LARGE))
def test_large_windows_too(name: BackboneName) -> None:
    net = voxel_net(name, dtype=torch.float32)
    x = noise(1, 1, *net.input_shape((1, 1, 2)), dtype=torch.float32)
    with torch.inference_mode():
        expected = patchwise(net.patch_network("classes"), seen(net, x), net.window)
        for net.mode in MODES:
            assert float((net(x)["classes"] - expected).abs().max()) <= 1e-6 * terms(net, x)


@pytest.mark.slow
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", LARGE)
def test_large_windows_in_float64(name: BackboneName, odd: bool) -> None:
    net = voxel_net(name, odd)
    x = noise(1, 1, *net.input_shape((1, 2, 2)))
    with torch.inference_mode():
        expected = patchwise(net.patch_network("classes"), seen(net, x), net.window)
        for net.mode in MODES:
            assert far(net(x)["classes"], expected) < 1e-10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["4_conv@32", "4_conv_ln@32", "res_valid", "dilated@32", "dilated_16@16"])
def test_a_section_at_native_stride_is_the_section_of_a_block(name: BackboneName, mode: str) -> None:
    net = voxel_net(name)
    net.mode = mode  # type: ignore[assignment]
    x = noise(1, 1, *net.input_shape((2, 3, 3)))
    with torch.inference_mode():
        block = net(x)["classes"]
        z, y, w = (n + 2 * c for n, c in zip((1, 1, 1), net.context, strict=True))
        assert far(net(x[:, :, :z])["classes"], block[:, :, :1]) < 1e-10
        assert far(net(x[:, :, :, 1 : 1 + y])["classes"], block[:, :, :, 1:2]) < 1e-10
        assert far(net(x[:, :, 1:, :, 2 : 2 + w])["classes"], block[:, :, 1:, :, 2:]) < 1e-10
        assert far(net(x[:, :, :z, 2 : 2 + y, 1 : 1 + w])["classes"], block[:, :, :1, 2:, 1:2]) < 1e-10


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["3_layer@8", "4_conv@32", "4_conv_ln@32", "dilated_16@16"])
def test_masked_dense_gradients_are_those_of_the_labelled_patches(
    name: BackboneName, mode: str, planar: bool
) -> None:
    net = voxel_net(name, planar=planar)  # batch norm is in eval
    net.mode = mode  # type: ignore[assignment]
    x = noise(1, 1, *net.input_shape((2, 3, 3)))
    labelled = [(0, 0, 1), (1, 2, 0), (1, 1, 1), (0, 2, 2)]
    weight = noise(6)
    dense = net(x)["classes"]
    sum((dense[0, :, *at] * weight).square().sum() for at in labelled).backward()  # type: ignore[union-attr]
    found = [p.grad for p in net.parameters()]
    net.zero_grad()
    network = net.patch_network("classes")
    for at in labelled:
        patch = x[:, :, *(slice(i, i + n) for i, n in zip(at, net.window, strict=True))]
        (network(patch).flatten() * weight).square().sum().backward()
    for got, p in zip(found, net.parameters(), strict=True):
        assert got is not None
        assert p.grad is not None
        scale = p.grad.abs().max()
        assert scale > 0
        assert float((got - p.grad).abs().max() / scale) < 1e-9


# ---- any network of the parts ---------------------------------------------------------------------------------

sizes = st.integers(1, 3)
vectors = st.tuples(sizes, sizes, sizes)


@st.composite
def parts(draw: st.DrawFn, maps: int, depth: int = 0) -> tuple[list[nn.Module], int]:
    """A part that can be converted, and how many maps it ends in."""
    kinds = ["conv", "max", "average", "norm", "activation"] + (["residual", "concat"] if depth == 0 else [])
    kind = draw(st.sampled_from(kinds))
    strides = vectors if depth == 0 else st.just((1, 1, 1))
    if kind == "conv":
        out = draw(sizes)
        conv = nn.Conv3d(maps, out, draw(vectors), draw(strides), dilation=draw(vectors), bias=draw(st.booleans()))
        return [conv], out
    if kind == "max":
        return [nn.MaxPool3d(draw(vectors), draw(strides), dilation=draw(vectors))], maps
    if kind == "average":
        return [nn.AvgPool3d(draw(vectors), draw(strides))], maps
    if kind == "norm":
        return [draw(st.sampled_from([nn.BatchNorm3d, ChannelNorm]))(maps), Scale(maps, 0.5)], maps
    if kind == "activation":
        return [
            draw(st.sampled_from([nn.GELU(), nn.PReLU(), nn.LeakyReLU(0.1), nn.Dropout(0.5), nn.Tanh()]))
        ], maps
    branches = [draw(bodies(maps, maps if kind == "residual" else None)) for _ in range(draw(st.integers(1, 3)))]
    if kind == "residual":
        return [Residual(branches[0][0])], maps
    return [Concat(*(branch for branch, _ in branches))], sum(out for _, out in branches)


@st.composite
def bodies(draw: st.DrawFn, maps: int, ends: int | None) -> tuple[nn.Sequential, int]:
    """A branch without strides."""
    found, out = draw(parts(maps, depth=1))
    if ends is not None and out != ends:
        found, out = [*found, nn.Conv3d(out, ends, draw(vectors))], ends
    return nn.Sequential(*found), out


@st.composite
def networks(draw: st.DrawFn) -> nn.Sequential:
    layers: list[nn.Module] = []
    maps = 2
    for _ in range(draw(st.integers(1, 5))):
        more, maps = draw(parts(maps))
        layers += more
    return nn.Sequential(*layers)


@settings(max_examples=60, deadline=None)
@given(networks(), st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)), st.integers(0, 99))
def test_any_network_of_the_parts_is_converted_exactly(
    network: nn.Sequential, wanted: tuple[int, int, int], seed: int
) -> None:
    net = shaken(network, seed).double()
    assert problems(net) == []
    window = densify(net).window
    if max(window) > 40:
        return
    x = noise(1, 2, *(n + k - 1 for n, k in zip(wanted, window, strict=True)), seed=seed)
    with torch.inference_mode():
        expected = patchwise(net, x, window)
        for mode in ("atrous", "fragments"):
            found = densify(net, mode)(x)
            assert found.shape == expected.shape
            assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_batches_are_answered_sample_by_sample() -> None:
    net = shaken(nn.Sequential(nn.Conv3d(1, 3, 3), nn.MaxPool3d(2), nn.Conv3d(3, 2, 2))).double()
    x = noise(3, 1, 8, 9, 10)
    with torch.inference_mode():
        for mode in ("atrous", "fragments"):
            dense = densify(net, mode)
            assert far(dense(x), torch.cat([dense(x[i : i + 1]) for i in range(3)])) < 1e-10


# ---- what cannot be converted ---------------------------------------------------------------------------------


def test_a_padded_network_is_refused_with_every_reason_and_the_way_out() -> None:
    net = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.InstanceNorm3d(4),
        Residual(nn.Conv3d(4, 4, 3, padding="same"), nn.MaxPool3d(2, stride=2)),
        nn.BatchNorm3d(4),
        nn.MaxPool3d(3, 2, padding=1, ceil_mode=True),
        Concat(nn.GroupNorm(2, 4), nn.BatchNorm3d(4, track_running_stats=False)),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    with pytest.raises(InputError) as caught:
        densify(net)
    text = str(caught.value)
    for reason in (
        r"0: Conv3d pads the faces of a patch (padding (1, 1, 1))",
        "1: InstanceNorm3d normalises over the patch",
        "2.body.0: Conv3d pads the faces",
        "3: BatchNorm3d is in training mode",
        "4: MaxPool3d pads the faces",
        "4: MaxPool3d rounds up (ceil_mode)",
        "5.branches.0: GroupNorm normalises over the patch",
        "5.branches.1: BatchNorm3d without running statistics",
        "6: AdaptiveAvgPool3d pools to a fixed size",
        "7: Flatten mixes positions",
        "8: Linear reads the last axis",
        "patch by patch",
    ):
        assert reason in text
    assert len(text.splitlines()) == 1 + 11 + 1


@pytest.mark.parametrize("name", [name for name in names() if name not in CONVERTIBLE])
def test_every_padded_backbone_names_its_padding(name: BackboneName) -> None:
    with torch.device("meta"):
        net = VoxelNet(VoxelNetSpec(backbone=name), {"classes": 2})
    padded = sum(isinstance(part, nn.Conv3d) and any(part.padding) for part in net.backbone.modules())
    assert len(net.reasons) == padded > 0


class Doubled(nn.Conv3d):
    """A convolution that answers otherwise than its name says."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="UNet is none of the parts"):
        densify(UNet(UNetSpec(features=(4, 6), factors=((2, 2, 2),))).eval())
    with pytest.raises(InputError, match="0: Doubled is none of the parts"):
        densify(nn.Sequential(Doubled(1, 1, 3)))
    hooked = nn.Sequential(nn.Conv3d(1, 1, 3))
    hooked[0].register_forward_hook(lambda module, args, out: out + 1)
    with pytest.raises(InputError, match="has forward hooks"):
        densify(hooked)
    with pytest.raises(InputError, match="Residual has a stride inside"):
        densify(nn.Sequential(Residual(nn.Conv3d(1, 1, 1, stride=2))))
    with pytest.raises(InputError, match=r"holds at least one window, \(5, 3, 3\) voxels"):
        densify(nn.Sequential(nn.Conv3d(1, 1, (5, 3, 3))))(torch.zeros(1, 1, 4, 9, 9))
    late = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2)).eval()
    dense = densify(late)
    with pytest.raises(InputError, match="training mode"):
        dense.train()(torch.zeros(1, 1, 9, 9, 9))


def test_an_approximate_conversion_says_so_and_is_measured(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    padded = voxel_net("4_conv_resnet@16", dtype=torch.float32).patch_network("classes")
    x = noise(1, 1, 18, 20, 19, dtype=torch.float32)
    with pytest.raises(InputError, match="pads"):
        densify(padded)
    dense = densify(padded, "approx")
    assert not dense.exact
    assert "an approximate conversion" in caplog.text
    assert dense.window == (16, 16, 16)
    with torch.no_grad():
        spread = patchwise(padded, x, dense.window)
        padded[1].bias -= spread.mean(dim=(0, 2, 3, 4))  # no class is likelier than another on the whole
        expected = patchwise(padded, x, dense.window).argmax(dim=1)
        same = (dense(x).argmax(dim=1) == expected).float().mean()
    assert 0 < same < 1
    assert agreement(padded, x, patches=10_000).share == pytest.approx(float(same))
    found = agreement(padded, x, patches=40)
    assert found.patches == 40
    assert 0 < found.standard_error < 0.1


def test_of_a_network_without_padding_the_approximation_is_exact() -> None:
    net = voxel_net("3_layer@8", dtype=torch.float32).patch_network("classes")
    dense = densify(net, "approx")
    assert dense.exact
    assert agreement(net, noise(1, 1, 10, 10, 10, dtype=torch.float32), patches=27).share == 1.0
