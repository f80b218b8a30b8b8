"""Surfaces of labels: the same for any cut, closed, of the right volume; as another implementation makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, blocks
from emloom.ops import bioimage
from emloom.ops.meshes import (
    LARGEST_VOX,
    Mesh,
    label_triangles,
    packed,
    simplified,
    smoothed,
    unpacked,
    welded,
)
from emloom.testing.phantom import Phantom, PhantomSpec

pytest.importorskip("bioimage_cpp", reason="the extra emloom[meshes] is not installed")
GRID = Grid((30.0, 6.0, 4.0), (60.0, -12.0, 8.0))


def triangles(labels: np.ndarray, cell: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the triangles of all blocks, in the order of the blocks."""
    around = np.pad(labels, 1)
    ids, corners = [], []
    for block in blocks(Box.whole(labels.shape), cell):
        start = [a - 1 if a == 0 else a for a in block.write.start]
        part = around[tuple(slice(a + 1, b + 2) for a, b in zip(start, block.write.stop, strict=True))]
        found = label_triangles(part, (start[0], start[1], start[2]))
        ids.append(found[0])
        corners.append(found[1])
    return np.concatenate(ids), np.concatenate(corners)


def mesh_of(labels: np.ndarray, cell: tuple[int, int, int], segment: int, grid: Grid = GRID) -> Mesh:
    ids, corners = triangles(labels, cell)
    return welded(corners[ids == segment], grid)


def ball(radius: float, n: int) -> np.ndarray:
    zyx = np.indices((n, n, n)) - (n - 1) / 2
    return ((zyx**2).sum(axis=0) <= radius**2).astype(np.uint64)


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.tuples(*[st.integers(1, 8)] * 3),
)
def test_any_cut_gives_the_same_closed_surfaces(
    seed: int, shape: tuple[int, int, int], cell: tuple[int, int, int]
) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 3, 2**62, 2**63 - 1], np.uint64), shape)
    for segment in np.unique(labels[labels != 0]).tolist():
        whole, cut = mesh_of(labels, shape, segment), mesh_of(labels, cell, segment)
        np.testing.assert_array_equal(whole.vertices_nm, cut.vertices_nm)
        np.testing.assert_array_equal(whole.faces, cut.faces)
        assert whole.is_closed
        # Corners of voxels are cut off, and nothing else.
        voxels = np.count_nonzero(labels == segment) * 30 * 6 * 4
        assert voxels / 6 - 1e-6 <= whole.volume_nm3 <= voxels * 1.5


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    phantom = Phantom(PhantomSpec(shape=(32, 48, 56), seed=1, neurite_nm=90.0))
    return np.asarray(phantom.labels.read(phantom.labels.info.box))


def test_neurons_keep_their_volume_until_they_are_simple(tissue: np.ndarray) -> None:
    ids, counts = np.unique(tissue, return_counts=True)
    assert len(ids) > 2
    for segment, count in zip(ids.tolist(), counts.tolist(), strict=True):
        whole = mesh_of(tissue, (32, 48, 56), segment)
        cut = mesh_of(tissue, (20, 64, 33), segment)
        np.testing.assert_array_equal(whole.vertices_nm, cut.vertices_nm)
        np.testing.assert_array_equal(whole.faces, cut.faces)
        soft = smoothed(whole, 5)
        few = simplified(soft, 0.2)
        assert len(few.faces) <= 0.25 * len(whole.faces)
        for mesh, bound in ((whole, 0.01), (soft, 0.02), (few, 0.03)):
            assert mesh.is_closed
            assert mesh.volume_nm3 / (count * 30 * 6 * 4) == pytest.approx(1, abs=bound)


def test_a_ball_has_the_area_and_place_of_a_ball() -> None:
    whole = mesh_of(ball(12.0, 30), (30, 30, 30), 1, Grid((2.0, 2.0, 2.0), (100.0, 200.0, 300.0)))
    mesh = smoothed(whole, 20)
    assert mesh.volume_nm3 == pytest.approx(4 / 3 * np.pi * 24**3, rel=0.02)
    assert mesh.area_nm2 == pytest.approx(4 * np.pi * 24**2, rel=0.05)
    assert whole.area_nm2 > mesh.area_nm2  # the staircase is gone
    # The middle of 30 voxels of 2 nm is 30 nm behind their corner.
    np.testing.assert_allclose(mesh.vertices_nm.mean(axis=0), [130, 230, 330], atol=1e-3)
    away = np.linalg.norm(mesh.vertices_nm - [130, 230, 330], axis=1)
    assert away.min() > 22
    assert away.max() < 26


def test_surfaces_are_those_of_scikit_image(tissue: np.ndarray) -> None:
    measure = pytest.importorskip("skimage.measure")
    for segment in np.unique(tissue).tolist()[:4]:
        mesh = mesh_of(tissue, (16, 48, 56), segment, Grid((1.0, 1.0, 1.0)))
        mask = np.pad(tissue == segment, 1).astype(np.float32)
        vertices, faces, _, _ = measure.marching_cubes(mask, 0.5, allow_degenerate=False)
        theirs = Mesh(vertices.astype(np.float64) - 0.5, faces.astype(np.int64))
        assert len(mesh.faces) == len(theirs.faces)
        np.testing.assert_array_equal(np.unique(mesh.vertices_nm, axis=0), np.unique(theirs.vertices_nm, axis=0))
        assert mesh.volume_nm3 == pytest.approx(theirs.volume_nm3)
        assert mesh.area_nm2 == pytest.approx(theirs.area_nm2)


def test_only_what_is_wanted_is_made(tissue: np.ndarray) -> None:
    ids = np.unique(tissue)
    found, _ = label_triangles(tissue, (0, 0, 0), ids[[1, 2]])
    assert set(found.tolist()) == set(ids[[1, 2]].tolist())
    none, corners = label_triangles(tissue, (0, 0, 0), np.array([2**40], np.uint64))
    assert (len(none), corners.shape) == (0, (0, 3))
    assert welded(corners, GRID).volume_nm3 == 0


@given(st.lists(st.tuples(*[st.integers(-1, 2 * LARGEST_VOX)] * 3), min_size=1))
def test_a_corner_is_one_number(places: list[tuple[int, int, int]]) -> None:
    doubled = np.array(places, np.int64)
    codes = packed(doubled)
    assert codes.min() >= 0
    np.testing.assert_array_equal(unpacked(codes), doubled)


def test_what_cannot_be_said_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="make meshes of a coarser level"):
        label_triangles(np.ones((2, 2, 2), np.uint64), (0, 0, LARGEST_VOX))

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setattr(bioimage, "import_module", absent)
    with pytest.raises(InputError, match=r"bioimage_cpp: pip install 'emloom\[meshes\]'"):
        bioimage.require_extra()
