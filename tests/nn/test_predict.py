"""Prediction: tiles agree with the whole, no shell is lost, and the module's mode does not matter."""

from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.io.volume import ArrayVolume, read_padded
from emloom.nn.engine import Engine
from emloom.nn.heads import AutoContext, MultiHead
from emloom.nn.predict import Predictor, choose_tile, predict
from emloom.nn.unet import UNetSpec

ONE = ((3, 3, 3),)
FLAT = ((1, 3, 3),)
SPECS = {
    "same": UNetSpec(features=(3, 4), factors=((2, 2, 2),), kernels=(ONE, ONE)),
    "stem": UNetSpec(features=(3, 4), factors=((2, 2, 2),), kernels=(ONE, ONE), stem=(1, 2, 2)),
    "aniso": UNetSpec(features=(3, 4), factors=((1, 3, 2),), kernels=(FLAT, ONE)),
    "valid": UNetSpec(
        features=(3, 4), factors=((2, 2, 2),), kernels=(ONE, ONE), padding="valid", upsample="transposed"
    ),
}
GRID = Grid((29.5, 6.25, 6.25), (1000.5, -30.0, 17.0))
SHAPE = (11, 21, 18)


def wake(net: nn.Module) -> nn.Module:
    """Give random weights that spread the answers over all of 0..255."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * (1.5 / parameter[0].numel() ** 0.5))
    return net


def net_of(name: str) -> nn.Module:
    if name != "chain":
        return wake(MultiHead(SPECS[name], {"affinities": 3, "lsds": 2}))
    first = MultiHead(SPECS["same"], {"lsds": 2})
    heads = {"affinities": 3, "lsds": 2}
    return wake(AutoContext(first, MultiHead(SPECS["aniso"], heads, in_channels=3), include_raw=True))


def normalise(raw: np.ndarray) -> np.ndarray:
    return (raw.astype(np.float32) - 127) / np.float32(40)


def predictor_of(name: str) -> Predictor:
    return Predictor(net_of(name), normalise)


def raw_volume(shape: Vec = SHAPE, dtype: str = "uint8") -> ArrayVolume:
    return ArrayVolume(np.random.default_rng(0).integers(0, 256, shape).astype(dtype), GRID, "raw")


def empty(predictor: Predictor, raw: ArrayVolume, box: Box) -> dict[str, ArrayVolume]:
    return {
        name: ArrayVolume(np.full((n, *box.shape), 77, np.uint8), raw.info.grid.crop(box))
        for name, n in predictor.net.channels.items()
    }


def answer(predictor: Predictor, raw: ArrayVolume, box: Box | None = None, tile: Vec | None = None) -> np.ndarray:
    box = box or raw.info.box
    outputs = empty(predictor, raw, box)
    predict(predictor, raw, outputs, box=box, tile_shape=tile)
    return np.concatenate([outputs[name].array for name in sorted(outputs)])


def steps(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("name", [*SPECS, "chain"])
def test_tiles_agree_with_one_big_tile(name):
    predictor = predictor_of(name)
    raw = raw_volume()
    big = tuple(-(-n // step) * step for n, step in zip(SHAPE, predictor.net.lattice, strict=True))
    whole = answer(predictor, raw, tile=big)
    assert whole.std() > 10
    step = predictor.net.lattice
    for times in ((3, 2, 5), (1, 4, 3)):
        tile = tuple(n * k for n, k in zip(step, times, strict=True))
        assert steps(answer(predictor, raw, tile=tile), whole) <= 1
    for box in (Box((3, 5, 1), (4, 9, 16)), Box((10, 0, 17), (1, 21, 1))):
        assert steps(answer(predictor, raw, box), whole[:, *box.slices()]) <= 1


@pytest.mark.parametrize("name", [*SPECS, "chain"])
def test_moving_the_data_by_the_lattice_moves_the_answer(name):
    """A volume whose voxel 0 is voxel (one lattice step) of another gives the same answers, away from the cut."""
    predictor = predictor_of(name)
    step, margin = predictor.net.lattice, predictor.net.context
    shape = tuple(3 * n + 2 * m for n, m in zip(step, margin, strict=True))
    raw = raw_volume(shape)
    z, y, x = step
    moved = ArrayVolume(raw.array[z:, y:, x:].copy(), GRID)
    centre = Box(tuple(-(-m // n) * n for n, m in zip(step, margin, strict=True)), step)
    there = answer(predictor, moved, centre, tile=step)
    here = answer(predictor, raw, centre.shift(step), tile=step)
    assert steps(there, here) <= 1


def test_no_shell_is_lost_and_the_faces_are_mirrored():
    predictor = predictor_of("same")
    raw = raw_volume((5, 7, 6))
    out = answer(predictor, raw)
    step, margin = predictor.net.lattice, predictor.net.context
    tile = Box((0, 0, 0), tuple(-(-n // s) * s for n, s in zip((5, 7, 6), step, strict=True)))
    seen = read_padded(raw, tile.grow(margin))
    again = predictor(seen)
    expected = np.concatenate([again[name] for name in sorted(again)])[:, :5, :7, :6]
    assert steps(out, expected) <= 1
    assert len(np.unique(out[:, 0])) > 10
    assert len(np.unique(out[:, :, :, -1])) > 10


def test_the_stored_value_is_the_rounded_probability():
    predictor = predictor_of("same")
    seen = raw_volume(
        tuple(2 * n + 2 * c for n, c in zip(predictor.net.lattice, predictor.net.context, strict=True))
    )
    with torch.inference_mode():
        logits = predictor.net.interior(torch.from_numpy(normalise(seen.array))[None, None])
    out = predictor(seen.array)
    for name, values in out.items():
        assert values.dtype == np.uint8
        assert np.array_equal(values, np.rint(255 * torch.sigmoid(logits[name][0]).numpy()).astype(np.uint8))


class Moody(nn.Module):
    """A net that answers differently in training, and counts."""

    channels = {"a": 1}  # noqa: RUF012
    lattice = (1, 1, 1)
    context = (0, 0, 0)
    tile_dependent = False

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Dropout(0.5).eval()
        self.drop = nn.Dropout(0.5)
        self.bn = nn.BatchNorm3d(1)

    def peak_bytes(self, input_shape: Vec) -> int:
        return 0

    def interior(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        assert torch.is_inference_mode_enabled()
        return {"a": self.bn(self.drop(self.frozen(x)))}


def test_a_module_in_training_answers_as_in_eval_and_stays_in_training():
    net = Moody().train()
    net.frozen.eval()
    raw = raw_volume().array
    first = Predictor(net, normalise)(raw)["a"]
    assert (net.training, net.drop.training, net.frozen.training) == (True, True, False)
    assert net.bn.num_batches_tracked.item() == 0
    net.eval()
    assert np.array_equal(Predictor(net, normalise)(raw)["a"], first)
    assert not net.drop.training


def test_an_output_may_be_larger_than_the_box_and_only_the_box_is_written():
    predictor = predictor_of("aniso")
    raw = raw_volume()
    region = Box((1, 2, 3), (9, 18, 14))
    outputs = empty(predictor, raw, region)
    del outputs["lsds"]
    box = Box((4, 6, 5), (3, 5, 7))
    predict(predictor, raw, outputs, box=box)
    written = outputs["affinities"].array
    inside = written[:, *box.slices(region.start)].copy()
    assert steps(inside, answer(predictor, raw, box)[:3]) <= 1
    written[:, *box.slices(region.start)] = 77
    assert (written == 77).all()


def test_the_bits_of_a_tile_do_not_depend_on_the_box_it_was_asked_for():
    predictor = predictor_of("stem")
    raw = raw_volume()
    tile = (4, 8, 8)
    whole = answer(predictor, raw, tile=tile)
    for box in (Box((0, 0, 0), (5, 9, 9)), Box((6, 3, 2), (5, 18, 16))):
        assert np.array_equal(answer(predictor, raw, box, tile), whole[:, *box.slices()])


def test_progress_counts_every_tile():
    seen: list[tuple[int, int]] = []
    predictor = predictor_of("same")
    raw = raw_volume((4, 8, 8))
    predict(
        predictor,
        raw,
        empty(predictor, raw, raw.info.box),
        tile_shape=(2, 4, 8),
        progress=lambda *done: seen.append(done),
    )
    assert seen == [(k, 4) for k in range(1, 5)]


@pytest.mark.fault(
    "values",
    "a network is given raw with a NaN in it",
    "error: names the place, instead of a NaN in every output around it",
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_raw_that_is_not_finite_is_refused_with_its_place(value):
    predictor = predictor_of("same")
    raw = raw_volume(dtype="float32")
    raw.array[5, 6, 7] = value
    with pytest.raises(InputError, match=r"array, around box \[.*1 values that are NaN or infinite"):
        answer(predictor, raw, Box((5, 6, 7), (1, 1, 1)), predictor.net.lattice)


@pytest.mark.fault(
    "models",
    "the weights of a model have become NaN",
    "error: 'lsds' with NaN: its weights diverged",
)
def test_diverged_weights_are_refused():
    net = net_of("same")
    net.heads["lsds"].bias.data[0] = torch.nan
    with pytest.raises(InputError, match="'lsds' with NaN: its weights diverged"):
        answer(Predictor(net, normalise), raw_volume())


def test_outputs_that_do_not_fit_are_refused():
    predictor = predictor_of("same")
    raw = raw_volume()
    grid = raw.info.grid

    def attempt(
        name: str = "affinities", shape: tuple[int, ...] = (3, *SHAPE), dtype: str = "uint8", at: Grid = grid
    ):
        predict(predictor, raw, {name: ArrayVolume(np.zeros(shape, dtype), at)})

    with pytest.raises(InputError, match="did you mean 'affinities'"):
        attempt("affinity")
    with pytest.raises(InputError, match="needs uint8 with 3"):
        attempt(dtype="float32")
    with pytest.raises(InputError, match="needs uint8 with 3"):
        attempt(shape=(2, *SHAPE))
    with pytest.raises(InputError, match="voxels are not those"):
        attempt(at=Grid((30, 6.25, 6.25), GRID.offset_nm))
    with pytest.raises(InputError, match="voxels are not those"):
        attempt(at=Grid(GRID.voxel_size_nm, (1001.5, -30.0, 17.0)))
    with pytest.raises(InputError, match="make it cover"):
        attempt(shape=(3, 11, 20, 18))
    with pytest.raises(InputError, match=r"multiple of \(2, 2, 2\)"):
        predict(predictor, raw, {}, tile_shape=(4, 3, 4))
    with pytest.raises(InputError, match="of a zyx volume in it"):
        predict(predictor, raw, {}, box=Box((0, 0, 0), (12, 1, 1)))


def test_a_net_that_normalises_over_its_tile_warns(caplog):
    net = MultiHead(SPECS["same"].model_copy(update={"norm": "instance"}), {"a": 1})
    raw = raw_volume()
    with caplog.at_level(logging.WARNING):
        answer(Predictor(net, normalise), raw, tile=(12, 22, 18))
        assert not caplog.records
        answer(Predictor(net, normalise), raw, tile=(6, 22, 18))
    assert "2 tiles will not agree" in caplog.text


def test_bf16_is_close_to_float32():
    raw = raw_volume()
    exact = answer(predictor_of("same"), raw)
    rough = answer(Predictor(net_of("same"), normalise, Engine(precision="bf16")), raw)
    assert 0 < steps(rough, exact) <= 16


def test_the_chosen_tile_is_on_the_lattice_within_the_budget_and_no_worse_than_its_neighbours():
    net = MultiHead(UNetSpec.lean(), {"affinities": 9})
    box = Box((0, 0, 0), (250, 520, 300))
    tiles = [choose_tile(net, box, budget << 20) for budget in (1, 512, 1024, 4096)]
    assert tiles[0] == net.lattice
    for tile, budget in zip(tiles[1:], (512, 1024, 4096), strict=True):
        seen = [n + 2 * c for n, c in zip(tile, net.context, strict=True)]
        assert all(n % step == 0 for n, step in zip(tile, net.lattice, strict=True))
        assert net.peak_bytes(seen) <= budget << 20

    def work(tile: Vec) -> float:
        total = 1
        for n, size, margin in zip(tile, box.shape, net.context, strict=True):
            total *= -(-size // n) * (n + 2 * margin)
        return total

    assert all(work(b) < work(a) for a, b in pairwise(tiles))


def test_the_default_tile_covers_a_small_volume_at_once():
    net = MultiHead(SPECS["same"], {"a": 1})
    assert choose_tile(net, Box.whole(SHAPE)) == (12, 22, 18)
