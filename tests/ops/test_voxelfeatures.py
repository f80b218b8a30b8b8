"""Features of voxels: analytic cases, symmetries, other libraries, and blockwise == whole."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import feature, filters

from emloom.geometry.grid import Vec3
from emloom.ops.scalespace import eigenvalues, half_gaussian, radius_of, smooth
from emloom.ops.threads import Threads
from emloom.ops.voxelfeatures import FAMILIES, FeatureSet, MultiScale, Original8

ISOTROPIC: Vec3 = (5.0, 5.0, 5.0)
THICK: Vec3 = (40.0, 5.0, 5.0)
SETS: list[FeatureSet] = [
    MultiScale((4.0, 9.0), ISOTROPIC, 3),
    MultiScale((4.0, 9.0), ISOTROPIC, 2),
    MultiScale((5.0, 20.0, 30.0), THICK, 3),
    MultiScale((5.0,), ISOTROPIC, 3, ("hessian", "gaussian")),
    MultiScale((5.0, 8.0), ISOTROPIC, 3, ("structure",)),
    MultiScale((), ISOTROPIC, 3, ("intensity",)),
    Original8(),
]
IDS = ["3d", "2d", "thick", "hessian", "structure", "intensity", "original_8"]


def noise(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def around(features: FeatureSet, inside: tuple[int, int, int], seed: int = 0) -> Any:
    return noise(tuple(n + 2 * r for n, r in zip(inside, features.reach_vox, strict=True)), seed)


def named(features: FeatureSet, raw: Any) -> dict[str, Any]:
    return dict(zip(features.names, features.compute(raw), strict=True))


@pytest.mark.parametrize("features", SETS, ids=IDS)
def test_names_are_different_and_say_how_many(features: FeatureSet) -> None:
    found = features.compute(around(features, (2, 3, 4)))
    assert found.shape == (len(features.names), 2, 3, 4)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert len(set(features.names)) == len(features.names)
    assert {n for group in features.groups.values() for n in group} == set(range(len(features.names)))


@pytest.mark.parametrize("features", SETS, ids=IDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_part_is_what_it_is_of_the_whole_to_the_bit(features: FeatureSet, threads: int) -> None:
    raw, r = around(features, (5, 9, 21)), features.reach_vox
    whole = features.compute(raw)
    with Threads(threads) as crew:
        for start, stop in (((0, 0, 0), (2, 9, 21)), ((1, 3, 4), (5, 4, 12)), ((4, 8, 20), (5, 9, 21))):
            z, y, x = (slice(a, b + 2 * n) for a, b, n in zip(start, stop, r, strict=True))
            part = features.compute(np.ascontiguousarray(raw[z, y, x]), crew)
            inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
            assert np.array_equal(part, whole[:, *inside])


@pytest.mark.parametrize("features", SETS, ids=IDS)
def test_the_reach_is_exact(features: FeatureSet) -> None:
    """A voxel as far as the reach matters on every axis that is reached along; none further in is looked past."""
    raw = around(features, (1, 1, 1))
    before = features.compute(raw)
    for axis, reach in enumerate(features.reach_vox):
        if not reach:
            continue
        changed = raw.copy()
        face = [slice(None)] * 3
        face[axis] = slice(0, 1)
        changed[tuple(face)] += 1e4
        assert (features.compute(changed) != before).any(), axis
    for reach, n in zip(features.reach_vox, raw.shape, strict=True):
        assert n == 2 * reach + 1
    if max(features.reach_vox):
        short = raw[tuple(slice(0, -1) if r else slice(None) for r in features.reach_vox)]
        with pytest.raises(ValueError, match="reach"):
            features.compute(np.ascontiguousarray(short))


@settings(max_examples=12, deadline=None)
@given(which=st.sampled_from(range(len(SETS))), by=st.tuples(*[st.integers(0, 3)] * 3), seed=st.integers(0, 99))
def test_moving_the_image_moves_the_features(which: int, by: tuple[int, int, int], seed: int) -> None:
    features = SETS[which]
    raw = around(features, (5, 6, 6), seed)
    z, y, x = by
    moved = features.compute(np.ascontiguousarray(raw[min(z, 2) :, y:, x:]))
    assert np.array_equal(moved, features.compute(raw)[:, min(z, 2) :, y:, x:])


@pytest.mark.parametrize("features", SETS[:-1], ids=IDS[:-1])
@pytest.mark.parametrize("turn", [lambda a: np.rot90(a, axes=(-2, -1)), lambda a: a[..., ::-1], lambda a: a.mT])
def test_turning_the_section_turns_the_features(features: FeatureSet, turn: Any) -> None:
    raw = around(features, (3, 8, 8))
    one, other = features.compute(np.ascontiguousarray(turn(raw))), turn(features.compute(raw))
    assert np.abs(one - other).max() < 1e-4


def test_turning_an_isotropic_volume_out_of_the_section_turns_the_features() -> None:
    features = MultiScale((5.0, 9.0), ISOTROPIC, 3)
    raw = around(features, (6, 6, 6))
    turned = features.compute(np.ascontiguousarray(np.rot90(raw, axes=(0, 2))))
    assert np.abs(turned - np.rot90(features.compute(raw), axes=(1, 3))).max() < 1e-4


def blob(shape: tuple[int, int, int], voxel: Vec3, sigma_nm: float) -> Any:
    """A Gaussian of height 1 in the middle."""
    at = [(np.arange(n) - n // 2) * size for n, size in zip(shape, voxel, strict=True)]
    z, y, x = np.meshgrid(*at, indexing="ij")
    return np.exp(-(z * z + y * y + x * x) / (2 * sigma_nm**2)).astype(np.float32)


@pytest.mark.parametrize("voxel", [ISOTROPIC, (10.0, 5.0, 4.0)])
def test_a_gaussian_blob_has_the_curvature_of_the_formula(voxel: Vec3) -> None:
    """Smoothed by t a blob of width u, u^2 = s^2 + t^2: of height (s / u)^3, and as curved as -1 / u^2 of that."""
    s, t = 40.0, 30.0
    features = MultiScale((t,), voxel, 3)
    raw = blob(tuple(2 * r + 1 for r in features.reach_vox), voxel, s)  # type: ignore[arg-type]
    at = {name: float(value[0, 0, 0]) for name, value in named(features, raw).items()}
    height = (s * s / (s * s + t * t)) ** 1.5
    curve = -height * t * t / (s * s + t * t)
    assert at["gaussian 30 nm"] == pytest.approx(height, rel=0.02)
    assert at["laplacian 30 nm"] == pytest.approx(3 * curve, rel=0.04)
    for rank in (1, 2, 3):
        assert at[f"hessian 30 nm {rank}"] == pytest.approx(curve, rel=0.04)
    assert at["gradient 30 nm"] == pytest.approx(0, abs=1e-6)


def test_a_blob_within_a_section_has_two_curvatures() -> None:
    s, t = 40.0, 30.0
    features = MultiScale((t,), ISOTROPIC, 2)
    raw = blob(tuple(2 * r + 1 for r in features.reach_vox), ISOTROPIC, s)  # type: ignore[arg-type]
    at = {name: float(value[0, 0, 0]) for name, value in named(features, raw).items()}
    curve = -(s * s / (s * s + t * t)) * t * t / (s * s + t * t)
    assert at["laplacian 30 nm"] == pytest.approx(2 * curve, rel=0.04)
    assert at["hessian 30 nm 1"] == pytest.approx(at["hessian 30 nm 2"], rel=1e-3)
    assert not any("3" in name.split()[-1] for name in features.names if name.startswith("hessian"))


@pytest.mark.parametrize("voxel", [ISOTROPIC, (10.0, 5.0, 5.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_edge_has_the_gradient_of_the_formula(axis: int, voxel: Vec3) -> None:
    """Of a step of 1, smoothed by t, the slope is 1 / (t sqrt(2 pi)): per sigma, 0.399. It has one direction."""
    t = 60.0
    features = MultiScale((t,), voxel, 3)
    shape = [2 * r + 1 for r in features.reach_vox]
    position = np.arange(shape[axis]) - shape[axis] // 2
    step = np.where(position > 0, 1.0, np.where(position < 0, 0.0, 0.5)).astype(np.float32)
    raw = np.ascontiguousarray(
        np.broadcast_to(np.expand_dims(step, [a for a in range(3) if a != axis]), shape), np.float32
    )
    at = {name: float(value[0, 0, 0]) for name, value in named(features, raw).items()}
    slope = 1 / np.sqrt(2 * np.pi)
    assert at["gradient 60 nm"] == pytest.approx(slope, rel=0.02)
    # The square of a slope of width t, smoothed by t / 2: of width t / sqrt(2), so lower by sqrt(2 / 3).
    assert at["structure 60 nm 1"] == pytest.approx(slope**2 * np.sqrt(2 / 3), rel=0.03)
    assert max(at["structure 60 nm 2"], at["structure 60 nm 3"]) < 1e-6
    assert at["laplacian 60 nm"] == pytest.approx(0, abs=1e-4)


def test_thick_sections_are_mixed_only_where_a_scale_is_coarse_enough() -> None:
    features = MultiScale((5.0, 27.9, 28.0, 60.0), THICK, 3)
    assert [scale.flat for scale in features.scales] == [True, True, False, False]
    assert "gaussian 27.9 nm 2d" in features.names
    assert "gaussian 28 nm" in features.names
    flat, raw = MultiScale((5.0, 27.9), THICK, 3), around(MultiScale((27.9,), THICK, 2), (3, 4, 4))
    alone = flat.compute(np.ascontiguousarray(raw[1:2]))
    assert np.array_equal(flat.compute(raw)[:, 1:2], alone)


def test_a_constant_image_has_nothing_but_its_grey_value() -> None:
    features = MultiScale((5.0, 9.0), ISOTROPIC, 3)
    raw = np.full([2 * r + 2 for r in features.reach_vox], 0.75, np.float32)
    for name, value in named(features, raw).items():
        level = 0.75 if name.split()[0] in ("intensity", "gaussian") else 0.0
        assert np.abs(value - level).max() < 2e-6, name


# ---- other libraries ------------------------------------------------------------------------------------------


def inside(whole: Any, features: FeatureSet) -> Any:
    return whole[..., *(slice(r, n - r) for r, n in zip(features.reach_vox, whole.shape[-3:], strict=True))]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_smoothing_is_that_of_scikit_image(dimensions: Literal[2, 3]) -> None:
    sigma = (0.0 if dimensions == 2 else 1.5, 1.5, 1.5)
    features = MultiScale((7.5, 12.0), ISOTROPIC, dimensions, ("gaussian", "difference"))
    raw = around(features, (4, 12, 12))
    found = named(features, raw)
    fine = filters.gaussian(raw, sigma, truncate=3, preserve_range=True)
    coarse = filters.gaussian(raw, [1.6 * s for s in sigma], truncate=3, preserve_range=True)
    assert np.abs(found["gaussian 7.5 nm"] - inside(fine, features)).max() < 1e-6
    assert np.abs(found["difference 7.5 nm"] - inside(fine - coarse, features)).max() < 1e-6


def test_eigenvalues_are_those_of_scikit_image_and_numpy() -> None:
    features = MultiScale((10.0,), ISOTROPIC, 3)
    raw = around(features, (4, 6, 6))
    found = named(features, raw)
    smoothed = ndimage.gaussian_filter(raw.astype(np.float64), 2.0, truncate=3)
    first = [2.0 * np.gradient(smoothed, axis=axis) for axis in range(3)]
    assert found["gradient 10 nm"] == pytest.approx(inside(np.sqrt(sum(g * g for g in first)), features), abs=1e-5)
    second = {}
    for a in range(3):
        for b in range(a, 3):
            if a == b:  # the compact difference, which np.gradient twice is not
                second[a, b] = 4.0 * (np.roll(smoothed, 1, a) - 2 * smoothed + np.roll(smoothed, -1, a))
            else:
                second[a, b] = 4.0 * np.gradient(np.gradient(smoothed, axis=a), axis=b)
    upper = [second[0, 0], second[0, 1], second[0, 2], second[1, 1], second[1, 2], second[2, 2]]
    expected = inside(feature.hessian_matrix_eigvals(upper), features)
    trace = inside(second[0, 0] + second[1, 1] + second[2, 2], features)
    assert found["laplacian 10 nm"] == pytest.approx(trace, abs=2e-5)
    tensor = [
        ndimage.gaussian_filter(first[a] * first[b], 1.0, truncate=3)
        for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    ]
    outer = inside(feature.structure_tensor_eigenvalues(tensor), features)
    for rank in range(3):
        assert found[f"hessian 10 nm {rank + 1}"] == pytest.approx(expected[rank], abs=2e-5)
        assert found[f"structure 10 nm {rank + 1}"] == pytest.approx(outer[rank], abs=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.sampled_from(["any", "equal", "flat", "zero"]))
def test_closed_forms_agree_with_lapack(seed: int, n: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(n, n)) * 10.0 ** random.integers(-4, 4)
    matrix = {"any": matrix + matrix.T, "equal": np.eye(n) * matrix[0, 0], "zero": matrix * 0}.get(
        kind, np.outer(matrix[0], matrix[0])
    )
    matrix = matrix.astype(np.float32)
    rows, columns = ((0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)) if n == 3 else ((0, 1, 0), (0, 1, 1))
    out = np.empty((n, 1, 1, 1), np.float32)
    eigenvalues(np.ascontiguousarray(matrix[rows, columns][:, None, None, None]), out, Threads())
    expected = np.linalg.eigvalsh(matrix.astype(np.float64))[::-1]
    assert out.ravel() == pytest.approx(expected, abs=2e-7 * max(1e-30, np.abs(expected).max()))
    assert (np.diff(out.ravel()) <= 0).all()


@given(st.floats(0.3, 12))
def test_a_kernel_sums_to_one_and_falls(sigma: float) -> None:
    half = half_gaussian(sigma)
    assert len(half) == radius_of(sigma) + 1
    assert 2 * half.sum(dtype=np.float64) - half[0] == pytest.approx(1, abs=1e-6)
    assert (np.diff(half) < 0).all()


def test_smoothing_along_one_axis_leaves_the_others() -> None:
    raw = noise((9, 4, 5))
    found = smooth(raw, (1.0, 0.0, 0.0), Threads())
    assert found.shape == (3, 4, 5)
    assert found == pytest.approx(ndimage.gaussian_filter1d(raw, 1.0, axis=0, truncate=3)[3:-3], abs=1e-6)


# ---- a published baseline -------------------------------------------------------------------------------------


def test_original_features_are_of_the_image_not_of_a_column_of_its_pixels() -> None:
    """Defect 8 of the original: of an image reshaped to (N, 1) one derivative is 0, the other in raster order."""
    raw = noise((3, 12, 14))
    found = named(Original8(), raw)
    assert all(value.std() > 0.1 for value in found.values())
    for z in range(3):
        assert found["sobel x"][z] == pytest.approx(ndimage.sobel(raw[z], axis=1)[1:-1, 1:-1])
        assert found["sobel y"][z] == pytest.approx(ndimage.sobel(raw[z], axis=0)[1:-1, 1:-1])
    assert found["prewitt"] == pytest.approx(np.hypot(found["prewitt y"], found["prewitt x"]))
    column = raw[0].reshape(-1, 1)
    assert not ndimage.sobel(column, axis=1).any()  # what the original computed
    ramp = np.broadcast_to(np.arange(14, dtype=np.float32), (1, 12, 14))
    along = named(Original8(), np.ascontiguousarray(ramp))
    assert (along["sobel x"] == 8).all()
    assert not along["sobel y"].any()
    assert not along["laplace"].any()
    turned = named(Original8(), np.ascontiguousarray(raw.mT))
    assert turned["sobel y"] == pytest.approx(found["sobel x"].mT, abs=1e-6)


@pytest.mark.parametrize(
    ("sigmas", "wanted"),
    [((9.0, 4.0), FAMILIES), ((4.0, 4.0), FAMILIES), ((), FAMILIES), ((1.0,), FAMILIES), ((4.0,), ())],
)
def test_sets_that_make_no_sense_are_refused(sigmas: tuple[float, ...], wanted: Any) -> None:
    with pytest.raises(ValueError, match="sigma"):
        MultiScale(sigmas, ISOTROPIC, 3, wanted)


def test_memory_is_bounded_by_what_it_says() -> None:
    import tracemalloc

    features = MultiScale((5.0, 15.0), ISOTROPIC, 3)
    raw = around(features, (24, 48, 48))
    features.compute(raw)
    tracemalloc.start()
    features.compute(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + raw.nbytes <= features.peak_bytes((24, 48, 48))
