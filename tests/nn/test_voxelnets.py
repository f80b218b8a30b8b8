"""Centre-voxel networks: the published sizes, and one answer however it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn import voxelnets
from emloom.nn.augment import AugmentSpec
from emloom.nn.coding import Shares
from emloom.nn.crops import TrainingVolume
from emloom.nn.densewalk import triple
from emloom.nn.model import ModelSpec, build, load, save
from emloom.nn.objectives.semantic import CLASSES, SemanticObjective
from emloom.nn.predict import Predictor, choose_tile, predict
from emloom.nn.preprocess import Preprocessing
from emloom.nn.samples import SampleMaker, TrainingSamples
from emloom.nn.train import TrainingSpec, crop_shape
from emloom.nn.voxelbackbones import BackboneName, names
from emloom.nn.voxelnets import VoxelNet, VoxelNetSpec
from emloom.nn.voxelparts import ChannelNorm
from tests.nn.test_dense import shaken
from tests.nn.tissue import GRID

SIZES = {  # parameters of backbone and head with 6 classes, edge of the window, stride
    "3_layer@8": (69_888, 390, 8, 2),
    "4_conv@32": (291_456, 774, 30, 8),
    "4_conv_ln@32": (291_456, 774, 30, 8),
    "4_conv_resnet@32": (1_454_016, 6_150, 32, 16),
    "4_conv_resnet@16": (1_454_016, 774, 16, 16),
    "4_conv_resnet_ln@32": (1_454_016, 6_150, 32, 16),
    "4_conv_resnet_ln@16": (1_454_016, 774, 16, 16),
    "4_conv_resnet_valid@32": (1_454_016, 6_150, 118, 16),
    "4_conv_resnet_valid@16": (1_454_016, 774, 102, 16),
    "4_conv_resnet_ln_valid@32": (1_454_016, 6_150, 118, 16),
    "4_conv_resnet_ln_valid@16": (1_454_016, 774, 102, 16),
    "res_valid": (191_296, 774, 30, 4),
    "dilated@32": (106_176, 390, 30, 4),
    "dilated@64": (106_176, 279_942, 62, 4),
    "dilated_16@16": (106_176, 390, 16, 2),
    "dilated_no_pool@32": (106_176, 4_088_838, 32, 1),
    "convnext@32": (31_315_872, 4_614, 32, 32),
    "convnext@16": (31_310_496, 4_614, 16, 16),
    "convnext_dilated@32": (95_343_520, 49_158, 32, 1),
}


def model(network: VoxelNetSpec) -> ModelSpec:
    classes = [{"name": "dark", "ids": [0]}, {"name": "bright", "ids": [1]}]
    objective = SemanticObjective.from_dict({"classes": classes})
    return ModelSpec(objective=objective, network=network, voxel_size_nm=GRID.voxel_size_nm)


def count(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


@pytest.mark.parametrize("name", names())
def test_sizes_are_the_published_ones(name: BackboneName) -> None:
    with torch.device("meta"):
        net = VoxelNet(VoxelNetSpec(backbone=name), {"classes": 6})
    found = (count(net.backbone), count(net.heads), net.window[0], net.reach.stride[0])
    assert found == SIZES[name]


@pytest.mark.parametrize("name", names())
def test_planar_nets_are_one_voxel_thick_in_every_layer(name: BackboneName) -> None:
    with torch.device("meta"):
        cubes, planes = (
            VoxelNet(VoxelNetSpec(backbone=name, planar=planar), {"classes": 6}) for planar in (False, True)
        )
    layers = list(zip(cubes.modules(), planes.modules(), strict=True))
    fewer = 0
    for cube, plane in layers:
        assert type(cube) is type(plane)
        if isinstance(cube, nn.Conv3d):
            assert isinstance(plane, nn.Conv3d)
            fewer += cube.weight.numel() - cube.weight.numel() // cube.kernel_size[0]
        if isinstance(cube, nn.Conv3d | nn.MaxPool3d | nn.AvgPool3d):
            assert isinstance(plane, nn.Conv3d | nn.MaxPool3d | nn.AvgPool3d)
            for of_cube, of_plane, thin in (
                (triple(cube.kernel_size), triple(plane.kernel_size), 1),
                (triple(cube.stride), triple(plane.stride), 1),
                (triple(cube.padding), triple(plane.padding), 0),  # type: ignore[arg-type]
                (triple(getattr(cube, "dilation", 1)), triple(getattr(plane, "dilation", 1)), 1),
            ):
                assert of_plane == (thin, *of_cube[1:])
    assert count(planes) == count(cubes) - fewer
    assert planes.window == (1, *cubes.window[1:])
    assert planes.context == (0, *cubes.context[1:])
    assert planes.reach.stride == (1, *cubes.reach.stride[1:])
    assert planes.reasons == cubes.reasons or not planes.convertible
    assert planes.macs((1, 30, 30)) < cubes.macs((1, 30, 30))
    assert planes.macs((4, 30, 30)) == 4 * planes.macs((1, 30, 30))


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", ["3_layer@8", "4_conv@32", "4_conv_ln@32", "res_valid", "dilated@32"])
def test_a_planar_net_is_the_net_of_tissue_that_does_not_change_along_z(name: BackboneName, odd: bool) -> None:
    torch.manual_seed(0)
    cubes, planes = (
        shaken(VoxelNet(VoxelNetSpec(backbone=name, odd=odd, planar=planar), {"classes": 3})).double()
        for planar in (False, True)
    )
    weights = {key: w.sum(2, keepdim=True) if w.dim() == 5 else w for key, w in cubes.state_dict().items()}
    planes.load_state_dict(weights)
    x = torch.randn(1, 1, *planes.input_shape((1, 2, 3)), dtype=torch.float64)
    with torch.inference_mode():
        tall = x.expand(-1, -1, cubes.input_shape((1, 1, 1))[0], -1, -1)
        torch.testing.assert_close(planes(x)["classes"], cubes(tall)["classes"])


@pytest.mark.parametrize("name", [name for name in names() if not name.startswith("convnext")])
def test_the_odd_twin_has_the_same_weights_and_a_voxel_in_the_middle(name: BackboneName) -> None:
    with torch.device("meta"):
        even, odd = (VoxelNet(VoxelNetSpec(backbone=name, odd=twin), {"classes": 6}) for twin in (False, True))
    # Without a pooling, the head is the odd part.
    more = -1 if name == "dilated_no_pool@32" else 1
    assert odd.window == tuple(n + more for n in even.window)
    assert [p.shape for p in even.backbone.parameters()] == [p.shape for p in odd.backbone.parameters()]
    assert all(n == 2 * c + 1 for n, c in zip(odd.window, odd.context, strict=True))
    assert all(n == 2 * c for n, c in zip(even.window, even.context, strict=True))


def test_a_net_without_a_pooling_has_no_odd_twin() -> None:
    with pytest.raises(InputError, match="convnext@16 has no pooling at full resolution"):
        VoxelNetSpec.from_dict({"backbone": "convnext@16", "odd": True})


@pytest.mark.parametrize("name", ["4_conv_resnet", "4_conv_resnet_ln"])
@pytest.mark.parametrize("patch", ["16", "32"])
def test_valid_twins_take_the_weights_of_the_padded_nets(name: str, patch: str) -> None:
    padded, valid = (
        build(model(VoxelNetSpec.from_dict({"backbone": f"{name}{kind}@{patch}"}))) for kind in ("", "_valid")
    )
    valid.load_state_dict(padded.state_dict())


def test_activations_and_convolutions_are_those_of_the_code_not_of_its_report() -> None:
    # The original's report says ReLU, and one 3^3 convolution in the dilated branch: its code has two.
    for name in ("3_layer@8", "dilated@32", "dilated_16@16", "dilated_no_pool@32"):
        parts = list(VoxelNetSpec(backbone=name).build_backbone().modules())
        assert {part.negative_slope for part in parts if isinstance(part, nn.LeakyReLU)} == {0.01}
        assert not any(isinstance(part, nn.GELU | nn.ReLU) for part in parts)
    for name in ("4_conv@32", "4_conv_ln@32", "4_conv_resnet@16", "res_valid"):
        parts = list(VoxelNetSpec(backbone=name).build_backbone().modules())
        assert not any(isinstance(part, nn.LeakyReLU | nn.ReLU) for part in parts)
        assert all(part.bias is not None for part in parts if isinstance(part, nn.Conv3d))
    kernels = [
        (part.kernel_size[0], part.dilation[0])
        for part in VoxelNetSpec(backbone="dilated@32").build_backbone().modules()
        if isinstance(part, nn.Conv3d)
    ]
    assert kernels == [(3, 1), (3, 3), (3, 3), (5, 3)]


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", ["3_layer@8", "4_conv@32", "dilated@32", "dilated_16@16", "4_conv_resnet@16"])
def test_an_answer_sees_its_window_and_nothing_else(name: BackboneName, odd: bool, planar: bool) -> None:
    torch.manual_seed(0)
    net = VoxelNet(VoxelNetSpec(backbone=name, odd=odd, planar=planar), {"classes": 2}).double().eval()
    x = torch.randn(1, 1, *net.input_shape((1, 1, 1)), dtype=torch.float64, requires_grad=True)
    net(x)["classes"].sum().backward()
    assert x.grad is not None
    for axis in range(2, 5):
        looked_at = x.grad.abs().amax(dim=[d for d in range(5) if d != axis]).nonzero().flatten().tolist()
        first, last = looked_at[0], looked_at[-1]
        assert (first, last) == (0, net.window[axis - 2] - 1)
        # The labelled voxel is in the middle, exactly or half a voxel off: never 1.5, as in the original.
        exact = odd or (planar and axis == 2)
        assert net.context[axis - 2] - (first + last) / 2 == (0 if exact else 0.5)


AUGMENTED = AugmentSpec.none().model_copy(update={"flip": True, "transpose": True})


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("crop", [(1, 1, 1), (3, 3, 3)])
@pytest.mark.parametrize("odd", [False, True])
def test_flips_and_turns_keep_every_label_on_its_voxel(
    odd: bool, crop: tuple[int, int, int], planar: bool
) -> None:
    # Regression: flips moved the labelled voxel of even patches by one, and images and labels could flip apart.
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (20, 20, 20)).astype(np.uint8)
    grid = Grid((50.0, 4.0, 4.0)) if planar else GRID
    volume = TrainingVolume(
        ArrayVolume(raw, grid, "raw"), ArrayVolume(raw // 128, grid, "labels"), Box.whole(raw.shape)
    )
    network = VoxelNetSpec(backbone="3_layer@8", odd=odd, planar=planar)
    spec = model(network).model_copy(update={"voxel_size_nm": grid.voxel_size_nm})
    net = build(spec)
    assert isinstance(net, VoxelNet)
    shape = crop_shape(net, crop)
    how = TrainingSpec(steps=1, augment=AUGMENTED, crop_shape_vox=crop)
    samples = TrainingSamples(SampleMaker(spec, [volume], shape), how, 40)
    for index in range(40):
        x, targets = samples[index]
        target, weight = targets[CLASSES]
        assert float(weight.min()) == 1
        patches = net.patches(x[None])  # of every answer, and for even windows one position more
        z, y, w = (n // 2 for n in net.window)
        labelled = patches[: crop[0], : crop[1], : crop[2], 0, z, y, w]
        assert torch.equal(labelled > spec.preprocessing(np.array([127.5], np.float32))[0], target[1] == 1)
    plans = [samples.plan(index) for index in range(40)]
    assert len({(plan.flips, plan.order) for plan in plans}) > (10 if planar else 20)  # of 16 and 48


def test_weights_and_spec_travel_together(tmp_path: Path) -> None:
    spec = model(VoxelNetSpec(backbone="4_conv@32", odd=True))
    torch.manual_seed(0)
    net = build(spec)
    shaken(net)
    save(tmp_path / "model.safetensors", spec, net.state_dict(), {})
    again, loaded, _ = load(tmp_path / "model.safetensors")
    assert again == spec
    x = torch.randn(1, 1, *net.input_shape((1, 2, 2)))
    with torch.inference_mode():
        assert torch.equal(net.eval()(x)["classes"], loaded.eval()(x)["classes"])


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("name", ["3_layer@8", "dilated_16@16", "4_conv_ln@32", "4_conv_resnet@16"])
def test_blocks_and_sections_agree_with_the_whole(name: BackboneName, planar: bool) -> None:
    torch.manual_seed(0)
    net = shaken(VoxelNet(VoxelNetSpec(backbone=name, planar=planar), {"classes": 3}))
    shape = (3, 5, 6) if name == "4_conv_resnet@16" else (7, 9, 8)
    raw = ArrayVolume(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8), GRID, "raw")
    predictor = Predictor(net, Preprocessing(), codings={"classes": Shares()})

    def answer(tile: tuple[int, int, int]) -> np.ndarray:
        out = ArrayVolume(np.zeros((3, *shape), np.uint8), GRID)
        predict(predictor, raw, {"classes": out}, tile_shape=tile)
        return out.array.astype(int)

    whole = answer(shape)
    assert whole.std() > 10
    for tile in ((1, *shape[1:]), (2, 3, 5), (shape[0], 1, 4)):
        assert np.abs(answer(tile) - whole).max() <= 1
    chosen = choose_tile(net, Box.whole(shape))
    needed = (1, *shape[1:]) if planar else shape  # small enough for one tile; sections are no cheaper together
    assert all(n >= m for n, m in zip(chosen, needed, strict=True))


def test_padded_nets_answer_in_batches_what_their_patches_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxelnets, "_PATCH_FLOATS", 1 << 18)  # a few patches at a time
    torch.manual_seed(0)
    net = shaken(VoxelNet(VoxelNetSpec(backbone="4_conv_resnet@16"), {"a": 2, "b": 1}))
    x = torch.randn(2, 1, *net.input_shape((2, 3, 1)))
    with torch.inference_mode():
        found = net.interior(x)
        for name in ("a", "b"):
            network = net.patch_network(name)
            for n in range(2):
                patches = net.patches(x[n : n + 1])[:2, :3, :1].flatten(0, 2)
                expected = network(patches).reshape(2, 3, 1, -1).movedim(-1, 0)
                assert torch.allclose(found[name][n], expected, atol=1e-5)


def test_what_answers_patch_by_patch_is_not_compiled() -> None:
    net = VoxelNet(VoxelNetSpec(backbone="4_conv_resnet@16"), {"a": 2}).eval()
    with pytest.raises(RuntimeError, match="patch by patch, which cannot be compiled"):
        torch.export.export(net, (torch.zeros(1, 1, *net.input_shape((1, 1, 2))),))


@pytest.mark.parametrize("planar", [False, True])
def test_memory_is_estimated_from_above(planar: bool) -> None:
    for name in ("4_conv_ln@32", "dilated@32"):
        net = VoxelNet(VoxelNetSpec.from_dict({"backbone": name, "planar": planar}), {"classes": 6}).eval()
        largest = 0

        def look(module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            nonlocal largest
            largest = max(largest, 4 * (args[0].numel() + out.numel()))

        for part in net.backbone.modules():
            if isinstance(part, nn.BatchNorm3d | ChannelNorm | nn.GELU | nn.LeakyReLU):
                part.register_forward_hook(look)
        shape = net.input_shape((4, 9, 11))
        with torch.inference_mode():
            net(torch.zeros(1, 1, *shape))
        assert largest <= net.peak_bytes(shape) <= 3 * largest


def test_multiply_accumulates_are_the_published_ones() -> None:
    """Of a 425^2 section and a 128^3 block, in 10^12; the source gives two to three digits."""
    published = {
        "3_layer@8": (0.031, 0.152),
        "4_conv@32": (0.159, 0.710),
        "dilated@32": (0.057, 0.243),
        "dilated@64": (0.478, 1.05),
        "dilated_16@16": (0.055, 0.233),
        "dilated_no_pool@32": (1.215, 8.93),
        "res_valid": (0.165, 0.48),
    }
    for name, (section, block) in published.items():
        with torch.device("meta"):
            net = VoxelNet(VoxelNetSpec.from_dict({"backbone": name}), {"classes": 6})
        assert net.macs((1, 425, 425)) / 1e12 == pytest.approx(section, abs=0.0006)
        assert net.macs((128, 128, 128)) / 1e12 == pytest.approx(block, rel=0.01)


def test_a_network_needs_a_head_and_an_objective_that_classifies() -> None:
    with pytest.raises(InputError, match="at least one output"):
        VoxelNet(VoxelNetSpec(), {})
    with pytest.raises(InputError, match="cannot learn with the network 'voxel_net'"):
        ModelSpec.from_dict({"network": {"kind": "voxel_net"}, "voxel_size_nm": [1, 1, 1]})
    with pytest.raises(InputError, match="did you mean '4_conv@32'"):
        VoxelNetSpec.from_dict({"backbone": "4_conv"})
