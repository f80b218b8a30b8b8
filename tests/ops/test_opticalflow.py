"""Flow between sections: known ones are found, nothing stays, and what was left out of real stacks is filled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.registration import optical_flow_ilk, optical_flow_tvl1

from emloom.errors import InputError
from emloom.geometry.planar import Field
from emloom.io.open import open_volume
from emloom.ops.interpolate import between, nearest_between
from emloom.ops.opticalflow import FlowSettings, flow_between

Grey = NDArray[np.uint8]


def texture(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    """Return membranes and grain of a few pixels."""
    rng = np.random.default_rng(seed)
    fine, coarse = (gaussian_filter(rng.normal(size=shape), s) for s in (2.5, 9))
    image = fine / fine.std() + coarse / coarse.std()
    return np.clip(128 + 35 * image, 0, 255)


def waves(shape: tuple[int, int], size: float, length: float) -> NDArray[np.float64]:
    """Return a smooth displacement [2, Y, X] at pixel centres."""
    y, x = np.indices(shape) + 0.5
    return size * np.stack([np.sin(2 * np.pi * x / length), np.cos(2 * np.pi * (y + x / 2) / length)])


def pair(shape: tuple[int, int], v: NDArray[np.float64], at: float, seed: int = 0) -> tuple[Grey, Grey]:
    """Return two sections between which the places p of a middle one move by v(p)."""
    image = texture(shape, seed)
    yx = np.indices(shape).astype(np.float64)
    out = []
    for step in (-at, 1 - at):
        # section(p + step v(p)) = image(p); the inverse by fixed point.
        p = yx.copy()
        for _ in range(30):
            p = yx - step * np.stack([map_coordinates(c, p, order=1, mode="nearest") for c in v])
        out.append(np.rint(map_coordinates(image, p, order=3, mode="nearest")).clip(0, 255).astype(np.uint8))
    return out[0], out[1]


def at_pixels(flow: Field, shape: tuple[int, int]) -> NDArray[np.float64]:
    places = np.indices(shape).reshape(2, -1).T + 0.5
    return flow.at(places).T.reshape(2, *shape)


@pytest.mark.parametrize("at", [0.0, 0.25, 0.5, 1.0])
def test_a_known_flow_is_found(at: float) -> None:
    shape = (256, 230)
    v = waves(shape, 4.0, 200.0)
    before, after = pair(shape, v, at)
    found = at_pixels(flow_between(before, after, at), shape)
    error = np.linalg.norm(found - v, axis=0)[16:-16, 16:-16]
    assert np.median(error) < 0.3
    assert np.percentile(error, 95) < 0.8


@given(st.integers(-16, 16), st.integers(-16, 16))
@settings(max_examples=8)
def test_a_whole_shift_is_found(dy: int, dx: int) -> None:
    image = np.rint(texture((260, 260), 5)).astype(np.uint8)
    before, after = image[30:-30, 30:-30], image[30 - dy : 230 - dy, 30 - dx : 230 - dx]
    found = at_pixels(flow_between(before, after), (200, 200))[:, 40:-40, 40:-40]
    assert np.abs(np.median(found, axis=(1, 2)) - (dy, dx)).max() < 0.05


def test_staining_and_light_do_not_move() -> None:
    shape = (200, 200)
    v = waves(shape, 3.0, 180.0)
    before, after = pair(shape, v, 0.5)
    fade = np.linspace(0.5, 1.0, 200)
    other = np.rint(after * fade * 0.8 + 20).astype(np.uint8)
    plain, faded = (at_pixels(flow_between(before, b), shape) for b in (after, other))
    assert np.median(np.linalg.norm(plain - faded, axis=0)) < 0.2


def test_the_same_section_does_not_move_and_constant_ones_neither() -> None:
    image = np.rint(texture((120, 90))).astype(np.uint8)
    assert np.abs(flow_between(image, image).displacement).max() < 1e-5
    blank = np.zeros_like(image)
    for one, other in ((blank, blank), (image, blank), (blank + 7, blank + 9)):
        assert np.abs(flow_between(one, other).displacement).max() == 0


def test_swapping_the_sections_turns_the_flow_round() -> None:
    before, after = pair((150, 170), waves((150, 170), 4.0, 150.0), 0.5)
    one, back = flow_between(before, after, 0.25), flow_between(after, before, 0.75)
    np.testing.assert_allclose(one.displacement, -back.displacement, atol=0.02)


def test_what_is_masked_is_not_looked_at() -> None:
    shape = (200, 200)
    v = waves(shape, 3.0, 250.0)
    before, after = pair(shape, v, 0.5)
    mask = np.ones(shape, np.uint8)
    mask[80:120, 60:140] = 0
    noise = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    dirty = np.where(mask != 0, before, noise)
    found = [flow_between(d, after, usable=(mask, None)) for d in (dirty, np.where(mask != 0, before, 255))]
    # To the rounding of sums: what lies beneath plays no part, whatever it is.
    np.testing.assert_allclose(found[0].displacement, found[1].displacement, atol=1e-3)
    error = np.linalg.norm(at_pixels(found[0], shape) - v, axis=0)[16:-16, 16:-16]
    assert np.percentile(error, 95) < 1.5
    nothing = flow_between(before, after, usable=(np.zeros_like(mask), mask))
    assert np.abs(nothing.displacement).max() == 0


def test_the_same_bits_again_and_at_any_type() -> None:
    before, after = pair((100, 130), waves((100, 130), 2.0, 100.0), 0.5)
    first = flow_between(before, after)
    assert first == flow_between(before, after) == flow_between(before.astype(np.float64), after.astype(np.uint16))
    assert first.spacing == (8.0, 8.0)
    assert first.displacement.shape == (2, 13, 17)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 5), (17, 300)])
def test_small_sections_have_a_flow_too(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert np.isfinite(flow_between(image, image[::-1]).displacement).all()


def test_bad_input() -> None:
    a = np.zeros((10, 10), np.uint8)
    with pytest.raises(InputError, match="one shape"):
        flow_between(a, a[:5])
    with pytest.raises(InputError, match=r"0 \(the first\) to 1"):
        flow_between(a, a, 1.5)
    with pytest.raises(InputError, match="window of a flow"):
        FlowSettings(window=0)


# Correlation of a band of grey values with the section left out, averaged: nearest copy, plain mean, flow.
# Measured once: isbi2012 0.18 0.24 0.30, vnc_sstem 0.28 0.40 0.45, snemi3d 0.52 0.64 0.67;
# IoU of the ids: isbi2012 0.591 (copied) 0.622 (flow), snemi3d 0.808 0.822.
REAL = {
    "isbi2012_cardona/train_z00-19.h5": (3, 9, 15),
    "vnc_sstem/stack1_z00-14.h5": (4, 10),
    "snemi3d/crop512_z00-29.h5": (5, 15, 25),
}


def band(section: NDArray[np.generic]) -> NDArray[np.float64]:
    image = section.astype(np.float64)
    return (gaussian_filter(image, 1.5) - gaussian_filter(image, 16))[8:-8, 8:-8]


def likeness(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(np.corrcoef(band(a).ravel(), band(b).ravel())[0, 1])


def iou(found: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the IoU of the ids of a section with themselves, weighted by size."""
    total = weight = 0.0
    for one in np.unique(truth[truth > 0]):
        a, b = found == one, truth == one
        total += b.sum() * (a & b).sum() / (a | b).sum()
        weight += b.sum()
    return total / weight


@pytest.mark.parametrize("path", REAL)
def test_a_real_section_left_out_is_filled_best_along_the_flow(path: str, real_data: Path) -> None:
    raw = open_volume(f"{real_data}/{path}/volumes/raw")
    grey = raw.read(raw.info.box)[:, :512, :512]
    scores = {"nearest": 0.0, "mean": 0.0, "flow": 0.0}
    for z in REAL[path]:
        a, b = grey[z - 1], grey[z + 1]
        scores["nearest"] += likeness(a, grey[z])
        scores["mean"] += likeness((a.astype(float) + b) / 2, grey[z])
        scores["flow"] += likeness(between(a, b, flow_between(a, b)), grey[z])
    assert scores["flow"] > scores["mean"] + 0.02 * len(REAL[path])
    assert scores["mean"] > scores["nearest"]


@pytest.mark.parametrize("path", [path for path in REAL if "vnc" not in path])
def test_ids_of_a_real_section_are_filled_better_along_the_flow(path: str, real_data: Path) -> None:
    raw, labels = (open_volume(f"{real_data}/{path}/volumes/{v}") for v in ("raw", "labels/neuron_ids"))
    grey, ids = raw.read(raw.info.box), labels.read(labels.info.box)
    copied, moved = [], []
    for z in REAL[path]:
        flow = flow_between(grey[z - 1], grey[z + 1])
        copied.append(iou(ids[z - 1], ids[z]))
        moved.append(iou(nearest_between(ids[z - 1], ids[z + 1], flow), ids[z]))
    assert np.mean(moved) > np.mean(copied) + 0.005


@pytest.mark.parametrize("path", ["isbi2012_cardona/train_z00-19.h5", "snemi3d/crop512_z00-29.h5"])
def test_real_sections_are_filled_as_well_as_by_the_flows_of_scikit_image(path: str, real_data: Path) -> None:
    raw = open_volume(f"{real_data}/{path}/volumes/raw")
    grey = raw.read(raw.info.box)[:, :384, :384]
    own, peers = 0.0, {"ilk": 0.0, "tvl1": 0.0}
    for z in REAL[path]:
        a, b = grey[z - 1], grey[z + 1]
        own += likeness(between(a, b, flow_between(a, b)), grey[z])
        halves = [band_of_half(s) for s in (a, b)]
        flows = {
            "ilk": optical_flow_ilk(*halves, radius=12, gaussian=True),
            "tvl1": optical_flow_tvl1(*halves, attachment=5),
        }
        for name, u in flows.items():
            peers[name] += likeness(between(a, b, halfway(u)), grey[z])
    assert own > max(peers.values()) - 0.005 * len(REAL[path])


def band_of_half(section: Grey) -> NDArray[np.float32]:
    """Return what flows are looked for in: a band of the section at half its resolution, of spread 1."""
    y, x = section.shape
    half = section.reshape(y // 2, 2, x // 2, 2).mean((1, 3))
    fine = gaussian_filter(half, 1) - gaussian_filter(half, 12)
    return (fine / fine.std()).astype(np.float32)


def halfway(u: NDArray[np.float32]) -> Field:
    """Return a flow given at the places of the first section, at those halfway."""
    yx, v = np.indices(u.shape[1:]).astype(np.float32), u
    for _ in range(3):
        v = np.stack([map_coordinates(c, yx - v / 2, order=1, mode="nearest") for c in u])
    return Field((2 * v).astype(np.float32), (2.0, 2.0), (1.0, 1.0))
