"""Averages over orientations: equal to the plain sum of turned predictions, seamless, in the memory of one."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.io.volume import ArrayVolume, read_padded
from emloom.nn.averaging import Averager, Averaging, RunningMean
from emloom.nn.channels import Affinities, Channels, Descriptors, Scalars, restore
from emloom.nn.heads import MultiHead
from emloom.nn.orientations import Orientation, orientations
from emloom.nn.predict import Predictor, choose_tile, predict
from emloom.ops.affinities import neighborhood
from tests.nn.test_predict import SPECS, net_of, normalise, steps, wake

GRID = Grid((20.0, 8.0, 8.0))
OFFSETS = neighborhood(1, (0, 3, 3))
CHANNELS: dict[str, Channels] = {"affinities": Affinities(OFFSETS), "lsds": Descriptors()}


def net(name: str) -> MultiHead:
    made = wake(MultiHead(SPECS[name], {"affinities": len(OFFSETS), "lsds": 10}))
    assert isinstance(made, MultiHead)
    return made


def raw_volume(shape: Vec = (9, 14, 11)) -> ArrayVolume:
    return ArrayVolume(np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8), GRID, "raw")


def answer(
    predictor: Predictor,
    raw: ArrayVolume,
    averaging: Averaging | None,
    box: Box | None = None,
    tile: Vec | None = None,
) -> dict[str, np.ndarray]:
    box = box or raw.info.box
    outputs = {
        name: ArrayVolume(np.full((n, *box.shape), 77, np.uint8), raw.info.grid.crop(box))
        for name, n in predictor.net.channels.items()
    }
    predict(predictor, raw, outputs, box=box, tile_shape=tile, averaging=averaging)
    return {name: output.array for name, output in outputs.items()}


def average_of(which: int | tuple[int, ...], channels: dict[str, Channels] = CHANNELS) -> Averaging:
    return Averaging(orientations(which), channels)


def slowly(predictor: Predictor, raw: ArrayVolume, which: int | tuple[int, ...]) -> dict[str, np.ndarray]:
    """Turn the whole volume, predict, turn back, and average in float64: sixteen buffers."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for turned in orientations(which):
        block = ArrayVolume(np.ascontiguousarray(turned.forward(raw.array)), raw.info.grid, "raw")
        # As many voxels as the lattice wants, mirrored at the faces: what is mirrored is symmetric itself.
        for name, values in answer(predictor, block, None).items():
            found.setdefault(name, []).append(restore(values, CHANNELS[name], turned))
    out = {}
    for name, parts in found.items():
        total = sum(values.astype(np.float64) * known for values, known in parts)
        count = np.maximum(sum(known.astype(int) for _, known in parts), 1)
        out[name] = np.floor(total / count + 0.5).astype(np.uint8)
    return out


# The lattice of these is a whole number of times in the volume, so that turned volumes lie on it as well.
@pytest.mark.parametrize(("name", "shape"), [("same", (8, 14, 10)), ("stem", (8, 16, 12)), ("valid", (8, 10, 14))])
@pytest.mark.parametrize("which", [4, 8, 16, (1, 6, 15)])
def test_the_average_is_that_of_turned_whole_volumes(name, shape, which):
    predictor = Predictor(net(name), normalise)
    raw = raw_volume(shape)
    fast, slow = answer(predictor, raw, average_of(which)), slowly(predictor, raw, which)
    for head, values in fast.items():
        assert steps(values, slow[head]) <= 1
        assert values.std() > 5
    single = answer(predictor, raw, None)
    assert steps(fast["affinities"], single["affinities"]) > 5


@pytest.mark.parametrize("name", ["same", "stem", "aniso", "valid"])
@pytest.mark.parametrize("which", [8, 16])
def test_tiles_agree_with_one_big_tile(name, which):
    predictor = Predictor(net(name), normalise)
    raw = raw_volume((7, 11, 8))
    averaging = average_of(which)
    lattice = Averager(predictor, averaging, raw, ("affinities", "lsds")).lattice
    big = tuple(-(-n // step) * step for n, step in zip(raw.info.shape, lattice, strict=True))
    whole = answer(predictor, raw, averaging, tile=big)
    small = answer(predictor, raw, averaging, tile=(4, lattice[1] * (6 // lattice[1]), lattice[2]))
    box = Box((2, 3, 4), (5, 8, 3))
    part = answer(predictor, raw, averaging, box)
    for head, values in whole.items():
        assert steps(small[head], values) <= 1
        assert steps(part[head], values[:, *box.slices()]) <= 1


class Local(nn.Module):
    """Affinities that are exactly what they are: of two voxels, whatever the orientation."""

    channels = {"affinities": len(OFFSETS), "bright": 1}  # noqa: RUF012
    lattice = (1, 2, 4)
    context = (4, 3, 5)
    tile_dependent = False

    def peak_bytes(self, input_shape: Vec) -> int:
        return 0

    def interior(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        z, y, w = (n - 2 * c for n, c in zip(x.shape[2:], self.context, strict=True))
        assert all(n % step == 0 for n, step in zip((z, y, w), self.lattice, strict=True))
        a, b, c = self.context

        def at(dz: int, dy: int, dx: int) -> torch.Tensor:
            return x[:, :, a + dz : a + dz + z, b + dy : b + dy + y, c + dx : c + dx + w]

        pairs = [at(0, 0, 0) * at(*offset) for offset in OFFSETS]
        return {"affinities": torch.cat(pairs, 1), "bright": at(0, 0, 0).clone()}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 15), min_size=1, unique=True),
    st.tuples(*[st.integers(4, 9)] * 3),
    st.tuples(*[st.integers(1, 2)] * 3),
)
def test_the_average_of_an_equivariant_network_is_its_prediction(rules, shape, times):
    predictor = Predictor(Local(), normalise)
    raw = raw_volume(shape)
    channels: dict[str, Channels] = {"affinities": Affinities(OFFSETS), "bright": Scalars(1)}
    tile = (times[0], 4 * times[1], 4 * times[2])
    averaged = answer(predictor, raw, average_of(tuple(rules), channels), tile=tile)
    once = answer(predictor, raw, None)
    assert np.array_equal(averaged["bright"], once["bright"])
    for channel, offset in enumerate(OFFSETS):
        inside = raw.info.box.shift([-v for v in offset]).intersect(raw.info.box).slices()
        assert np.array_equal(averaged["affinities"][channel][inside], once["affinities"][channel][inside])


def test_one_orientation_is_the_plain_prediction():
    predictor = Predictor(net("same"), normalise)
    raw = raw_volume()
    once, averaged = answer(predictor, raw, None), answer(predictor, raw, average_of(1))
    assert all(np.array_equal(once[name], averaged[name]) for name in once)


def test_networks_in_a_row_are_averaged_like_one():
    predictor = Predictor(net_of("chain"), normalise)
    raw = raw_volume((6, 12, 12))
    channels: dict[str, Channels] = {"affinities": Affinities(neighborhood(1)), "lsds": Scalars(2)}
    whole = answer(predictor, raw, average_of(16, channels), tile=(6, 12, 12))
    parts = answer(predictor, raw, average_of(16, channels), tile=(6, 6, 6))
    assert all(steps(whole[name], parts[name]) <= 1 for name in whole)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 16), st.integers(1, 5)), elements=st.integers(0, 255)))
def test_the_running_mean_is_the_rounded_mean_in_any_order(values):
    n, size = values.shape
    means = []
    for order in (range(n), reversed(range(n))):
        running = RunningMean((1, 1, 1, size))
        for index in order:
            running.add(0, (slice(0, 1), slice(0, 1), slice(0, size)), values[index][None, None])
        means.append(running.mean()[0, 0, 0])
    assert np.array_equal(means[0], means[1])
    assert np.array_equal(means[0], np.floor(values.astype(float).mean(0) + 0.5).astype(np.uint8))


def test_sixteen_orientations_need_the_memory_of_one():
    class Cheap(Local):
        channels = {"bright": 30}  # noqa: RUF012
        context = (0, 0, 0)
        lattice = (1, 1, 1)

        def interior(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"bright": x.expand(-1, 30, -1, -1, -1).clone()}

    raw = raw_volume((32, 48, 40))
    stored = 30 * raw.array.size
    peaks = []
    for which in (4, 16):
        averager = Averager(
            Predictor(Cheap(), normalise), average_of(which, {"bright": Scalars(30)}), raw, ("bright",)
        )
        tracemalloc.start()
        averager.answer(raw.info.box)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.02 * peaks[0]
    # Sum (2), count (1) and mean (1), and a channel or two on the way; torch's own memory is not seen here.
    assert peaks[1] < 5 * stored


def test_a_chosen_tile_leaves_room_for_the_reach_and_lies_on_both_lattices():
    predictor = Predictor(net("aniso"), normalise)
    averager = Averager(predictor, average_of(16), raw_volume(), ("affinities",))
    assert predictor.net.lattice == (1, 3, 2)
    assert averager.lattice == (1, 6, 6)
    tile = choose_tile(averager, Box((0, 0, 0), (20, 60, 60)), 1 << 20)
    assert all(n % step == 0 for n, step in zip(tile, averager.lattice, strict=True))
    assert averager.context[1] == averager.context[2] == max(predictor.net.context[1:]) + 3


def test_offsets_may_be_longer_than_the_volume():
    predictor = Predictor(net("same"), normalise)
    raw = raw_volume((1, 2, 3))
    far: dict[str, Channels] = {"affinities": Affinities(neighborhood(1, (0, 7, 7))), "lsds": Descriptors()}
    averaged, once = answer(predictor, raw, average_of(16, far)), answer(predictor, raw, None)
    assert averaged["affinities"].shape == once["affinities"].shape
    part = answer(predictor, raw, average_of(16, far), Box((0, 1, 0), (1, 1, 2)))
    assert steps(part["affinities"], averaged["affinities"][:, :, 1:2, :2]) <= 1


def test_what_cannot_be_averaged_is_refused():
    predictor = Predictor(net("same"), normalise)
    stretched = ArrayVolume(raw_volume().array, Grid((20.0, 8.0, 4.0)), "raw")
    answer(predictor, stretched, average_of(8))
    with pytest.raises(InputError, match=r"8 x 4 nm .* without transposition \(--tta 8\)"):
        answer(predictor, stretched, average_of(16))
    with pytest.raises(InputError, match="over no orientation"):
        Averaging((), CHANNELS)
    with pytest.raises(InputError, match="what the channels of lsds mean is unknown"):
        answer(predictor, raw_volume(), average_of(4, {"affinities": Affinities(OFFSETS)}))
    open_ended = {"affinities": Affinities((*OFFSETS[:5], (1, 1, 1))), "lsds": Descriptors()}
    with pytest.raises(InputError, match=r"needs affinities of the offsets \(1, -1, 1\)"):
        answer(predictor, raw_volume(), average_of(4, open_ended))


def test_pairs_that_leave_the_volume_count_for_nothing():
    """Where only a mirrored prediction could speak of a pair that leaves the volume, 0 is stored."""
    predictor = Predictor(Local(), normalise)
    raw = raw_volume((5, 6, 7))
    channels: dict[str, Channels] = {"affinities": Affinities(OFFSETS), "bright": Scalars(1)}
    mirrored = answer(predictor, raw, Averaging((Orientation.of(8),), channels))["affinities"]
    assert (mirrored[0, 0] == 0).all()
    assert mirrored[0, 1:].std() > 5
    once = answer(predictor, raw, None)["affinities"]
    assert np.array_equal(answer(predictor, raw, average_of(8, channels))["affinities"][0, 0], once[0, 0])
    assert read_padded(raw, Box((-1, 0, 0), (1, 1, 1)))[0, 0, 0] == raw.array[1, 0, 0]
