"""Near interfaces: against every pair of voxels and MONAI, by blocks, and where labels are unknown."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from itertools import product
from math import isnan, nan
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.metrics.classify import confusion
from emloom.metrics.counts import add
from emloom.metrics.interfaces import (
    BoundaryTable,
    Near,
    band_confusions,
    boundary_scores,
    boundary_table,
    interface_band,
    mean_boundary_f1,
)

Array = NDArray[Any]
C = 3
SPACING = (40.0, 8.0, 6.0)
seeds = st.integers(0, 10**6)
reaches = st.sampled_from([Near(d, SPACING, plane) for d in (6.0, 10.0, 17.0, 41.0) for plane in (False, True)])
laws = settings(deadline=None, max_examples=30)


@pytest.fixture(scope="module")
def monai() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.metrics")


def random_pair(seed: int, shape: tuple[int, int, int] = (4, 7, 8)) -> tuple[Array, Array]:
    """Return patchy truth with ignored voxels, and a prediction that resembles it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, C, tuple(-(-n // 2) for n in shape))
    truth = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)[: shape[0], : shape[1], : shape[2]].astype(np.uint8)
    predicted = np.where(rng.random(shape) < 0.8, truth, rng.integers(0, C, shape)).astype(np.uint8)
    truth[rng.random(shape) < 0.1] = 255
    return truth, predicted


def slow_near(points: Array, others: Array, near: Near) -> int:
    """Return how many points have one of the others near: every pair is looked at."""
    spacing = np.array(near.spacing_nm)
    found = 0
    for p in points:
        gap = (others - p) * spacing
        if near.in_plane:
            gap = gap[others[:, 0] == p[0]]
        found += bool((np.sqrt((gap**2).sum(axis=1)) <= near.distance_nm * (1 + 1e-9)).any())
    return found


def slow_boundary(labels: Array, known: Array, label: int, in_plane: bool) -> Array:
    """Return the places of the boundary of a class: every voxel and neighbour is looked at."""
    steps = [s for s in product((-1, 0, 1), repeat=3) if np.abs(s).sum() == 1 and not (in_plane and s[0])]
    found = []
    for p in product(*map(range, labels.shape)):
        if known[p] and labels[p] == label:
            for step in steps:
                q = tuple(np.add(p, step))
                inside = all(0 <= i < n for i, n in zip(q, labels.shape, strict=True))
                if inside and known[q] and labels[q] != label:
                    found.append(p)
                    break
    return np.array(found).reshape(-1, 3)


# ---- against other implementations -----------------------------------------------------------------------


@given(seeds, reaches)
@laws
def test_the_band_is_that_of_all_pairs(seed: int, near: Near) -> None:
    truth, _ = random_pair(seed)
    band = interface_band(truth, near)
    assert not band[truth == 255].any()
    for label in range(C):
        mine = truth == label
        others = np.argwhere((truth != label) & (truth != 255))
        assert np.count_nonzero(band & mine) == slow_near(np.argwhere(mine), others, near)


@given(seeds, reaches)
@laws
def test_boundaries_are_those_of_all_pairs(seed: int, near: Near) -> None:
    truth, predicted = random_pair(seed)
    counts = boundary_table(truth, predicted, C, near).counts
    for label in range(C):
        t, p = (slow_boundary(a, truth != 255, label, near.in_plane) for a in (truth, predicted))
        assert counts[label].tolist() == [len(t), slow_near(t, p, near), len(p), slow_near(p, t, near)]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MONAI, about MONAI
@pytest.mark.parametrize("seed", range(6))
def test_surface_dice_is_that_of_monai(seed: int, monai: ModuleType) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = (np.zeros((8, 12, 14), np.uint8) for _ in range(2))
    # Objects stay clear of the faces, which MONAI takes for a boundary.
    truth[1:-1, 1:-1, 1:-1] = rng.integers(0, 2, (3, 5, 6)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    predicted[2:-1, 2:-1, 1:-1] = truth[1:-2, 1:-2, 1:-1]
    near = Near(9.5, SPACING)
    mine = boundary_scores(boundary_table(truth, predicted, 2, near))[1]
    t, p = (torch.from_numpy(np.stack([1 - a, a])[None]) for a in (truth, predicted))
    theirs = monai.compute_surface_dice(p, t, [9.5], spacing=SPACING)
    assert mine.surface_dice == pytest.approx(float(theirs[0, 0]), abs=1e-6)
    assert 0 < mine.surface_dice < 1


# ---- by hand -----------------------------------------------------------------------------------------------


def test_a_shifted_edge_is_met_within_its_shift() -> None:
    truth, predicted = (np.zeros((1, 5, 20), np.uint8) for _ in range(2))
    truth[..., 10:] = 1
    predicted[..., 13:] = 1  # 3 voxels of 6 nm
    missed = boundary_scores(boundary_table(truth, predicted, 2, Near(17.9, SPACING)))
    met = boundary_scores(boundary_table(truth, predicted, 2, Near(18.0, SPACING)))
    assert [(s.precision, s.recall, s.f1, s.surface_dice) for s in missed] == [(0, 0, 0, 0)] * 2
    assert [(s.precision, s.recall, s.f1, s.surface_dice) for s in met] == [(1, 1, 1, 1)] * 2
    assert (met[0].n_truth, met[0].n_predicted) == (5, 5)


def test_a_band_by_hand() -> None:
    truth = np.zeros((3, 4, 10), np.uint8)
    truth[:, :, 5:] = 1
    truth[2] = 2
    # 40 nm to the next section: out of reach; 12 nm are two voxels on each side.
    band = interface_band(truth, Near(12.0, SPACING))
    assert np.array_equal(np.flatnonzero(band[0, 0]), [3, 4, 5, 6])
    assert not band[2].any()
    assert interface_band(truth, Near(40.0, SPACING))[1:].all()
    assert not interface_band(truth, Near(40.0, SPACING, in_plane=True))[2].any()
    assert np.array_equal(np.flatnonzero(interface_band(truth, Near(6.0, SPACING))[0, 0]), [4, 5])


def test_a_seam_of_ignored_voxels_is_looked_across() -> None:
    truth = np.array([[[0, 0, 0, 255, 1, 1, 1]]], np.uint8)
    assert np.flatnonzero(interface_band(truth, Near(12.0, SPACING))).tolist() == [2, 4]
    assert not interface_band(truth, Near(6.0, SPACING)).any()


# ---- laws --------------------------------------------------------------------------------------------------


@given(seeds, reaches, st.booleans())
@laws
def test_near_and_far_are_all(seed: int, near: Near, masked: bool) -> None:
    truth, predicted = random_pair(seed)
    mask = np.random.default_rng(seed).random(truth.shape) < 0.8 if masked else None
    band = band_confusions(truth, predicted, C, near, mask=mask)
    assert add([band.near, band.far]) == confusion(truth, predicted, C, mask=mask)


@given(seeds, reaches, st.integers(1, 11), st.integers(1, 13))
@laws
def test_blockwise_equals_whole(seed: int, near: Near, y: int, x: int) -> None:
    truth, predicted = random_pair(seed, (5, 12, 14))
    whole = Box.whole(truth.shape)
    tables, bands = [], []
    for z0, z1 in ((0, 2), (2, 5)):
        for y0, y1 in ((0, y), (y, 12)):
            for x0, x1 in ((0, x), (x, 14)):
                write = Box((z0, y0, x0), (z1 - z0, y1 - y0, x1 - x0))
                read = write.grow(near.context_vox).intersect(whole)
                parts = truth[read.slices()], predicted[read.slices()]
                box = Box(tuple(np.subtract(write.start, read.start).tolist()), write.shape)
                tables.append(boundary_table(*parts, C, near, box=box))
                bands.append(band_confusions(*parts, C, near, box=box))
    assert add(tables) == boundary_table(truth, predicted, C, near)
    assert add(b.near for b in bands) == band_confusions(truth, predicted, C, near).near


@given(seeds, reaches)
@laws
def test_what_is_predicted_where_nothing_counts_does_not_matter(seed: int, near: Near) -> None:
    truth, predicted = random_pair(seed)
    mask = np.random.default_rng(seed).random(truth.shape) < 0.8
    known = mask & (truth != 255)
    other = np.where(known, predicted, 77).astype(np.uint8)
    hidden = np.where(known, truth, 255).astype(np.uint8)
    expected = boundary_table(truth, predicted, C, near, mask=mask)
    assert boundary_table(hidden, other, C, near) == expected
    assert (
        band_confusions(hidden, other, C, near).near == band_confusions(truth, predicted, C, near, mask=mask).near
    )


@given(seeds, reaches)
@laws
def test_perfection_and_symmetry(seed: int, near: Near) -> None:
    truth, predicted = random_pair(seed)
    assert mean_boundary_f1(boundary_table(truth, truth, C, near)) == 1
    known = truth != 255
    forth = boundary_table(truth, predicted, C, near)
    back = boundary_table(np.where(known, predicted, 255), np.where(known, truth, 0), C, near)
    assert np.array_equal(back.counts, forth.counts[:, [2, 3, 0, 1]])
    wider = Near(near.distance_nm + 10, SPACING, near.in_plane)
    assert (boundary_table(truth, predicted, C, wider).counts >= forth.counts).all()


# ---- nothing there, bad input ------------------------------------------------------------------------------


def test_absent_boundaries_are_nan_or_0() -> None:
    truth, predicted = (np.zeros((1, 4, 4), np.uint8) for _ in range(2))
    predicted[0, 1, 1] = 1
    zero, one, two = boundary_scores(boundary_table(truth, predicted, 3, Near(10.0, SPACING)))
    assert (one.precision, one.recall, one.f1, one.n_truth, one.n_predicted) == (0, 0, 0, 0, 1)
    assert zero.reason == "class 0 has a boundary on one side only: 0/0 counts as 0"
    assert isnan(two.f1)
    assert "class 2 has no boundary" in two.reason
    assert mean_boundary_f1(boundary_table(truth, predicted, 3, Near(10.0, SPACING))) == 0
    assert isnan(mean_boundary_f1(boundary_table(truth, truth, 3, Near(10.0, SPACING))))
    nothing = np.full((2, 3, 4), 255, np.uint8)
    assert isnan(mean_boundary_f1(boundary_table(nothing, nothing, 2, Near(10.0, SPACING))))
    assert band_confusions(nothing, nothing, 2, Near(10.0, SPACING)).near.n_voxels == 0
    assert json.dumps(asdict(one))


def test_bad_input_is_named() -> None:
    zeros = np.zeros((2, 3, 4), np.uint8)
    for distance, spacing in ((0.0, SPACING), (nan, SPACING), (1.0, (0, 1, 1))):
        with pytest.raises(InputError, match="give lengths above 0"):
            Near(distance, spacing)
    near = Near(10.0, SPACING)
    with pytest.raises(InputError, match=r"one section is \[1, Y, X\]"):
        interface_band(zeros[0], near)
    with pytest.raises(InputError, match="leaves the labels"):
        boundary_table(zeros, zeros, 2, near, box=Box((0, 0, 0), (3, 3, 4)))
    for function in (boundary_table, band_confusions):
        with pytest.raises(InputError, match="crop to one box"):
            function(zeros, np.zeros((2, 3, 5), np.uint8), 2, near, box=Box((0, 0, 0), (1, 1, 1)))
        with pytest.raises(InputError, match="prediction holds class 2"):
            function(zeros, zeros + np.uint8(2), 2, near)
    with pytest.raises(InputError, match="give bool"):
        interface_band(zeros, near, mask=zeros)
    with pytest.raises(InputError, match=r"\[classes, 4\]"):
        BoundaryTable(np.zeros((2, 3), np.int64))
