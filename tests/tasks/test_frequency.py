"""`emloom frequency`: the numbers of the whole in any blocks, limits, and errors before anything is read."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.frequency import fidelity
from emloom.metrics.noise import neighbours, noise_sigma
from emloom.metrics.spectra import spectra
from emloom.tasks import frequencyblocks
from emloom.tasks.frequency import measure_frequencies
from emloom.tasks.frequencyreport import write_frequency_report
from emloom.tasks.frequencyspec import FrequencySpec, LimitSpec, WaveletSpec

GRID = Grid((40.0, 4.0, 4.0))
THREE = WaveletSpec(levels=3)


def write(path: Path, values, grid=GRID) -> str:
    info = VolumeInfo(values.shape, values.dtype, grid, kind="raw", chunks=(4, 16, 16))
    create_volume(path, info).write(info.box, values)
    return str(path)


def image(seed, shape=(5, 48, 64)) -> np.ndarray:
    """Blobs under noise, uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (shape[0], shape[1] // 8, shape[2] // 8))
    return np.clip(np.kron(coarse, np.ones((1, 8, 8))) + rng.normal(0, 8, shape), 0, 255).astype(np.uint8)


def noisy(values, sigma=20.0) -> np.ndarray:
    rng = np.random.default_rng(99)
    return np.clip(values + rng.normal(0, sigma, values.shape), 0, 255).astype(np.uint8)


def spec_of(tmp_path: Path, x, *outputs, **more) -> FrequencySpec:
    paths = tuple(write(tmp_path / f"y{k}.zarr", y) for k, y in enumerate(outputs))
    more = {"wavelet": THREE, "resamples": 50, **more}
    return FrequencySpec(
        reference=write(tmp_path / "x.zarr", x), outputs=paths, output=str(tmp_path / "out"), **more
    )


def same(a: float, b: float) -> bool:
    return a == b or (np.isnan(a) and np.isnan(b))


@pytest.mark.parametrize("edge", [(16, 1024), (2, 32), (3, 24)])
def test_any_blocks_give_the_numbers_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edge: tuple[int, int]
) -> None:
    monkeypatch.setattr(frequencyblocks, "_SECTIONS", edge[0])
    monkeypatch.setattr(frequencyblocks, "_EDGE", edge[1])
    x = image(0)
    y = noisy(x)
    (kept,) = measure_frequencies(spec_of(tmp_path, x, y, seed=3, rings=7)).outputs
    decomposition = THREE.decomposition(GRID.voxel_size_nm)
    whole = spectra(x, y, decomposition, GRID.voxel_size_nm)
    assert kept.table.exact
    np.testing.assert_array_equal(kept.table.sums, whole.sums)
    np.testing.assert_array_equal(kept.table.tiles, whole.tiles)
    assert kept.bands == fidelity(whole, np.random.default_rng(3), resamples=50)
    adjacent = neighbours(x, decomposition, GRID.voxel_size_nm)
    sums = adjacent.totals(adjacent.columns(1))
    assert kept.targets[0].by_neighbours == pytest.approx(max(0, sums[2] / np.sqrt(sums[0] * sums[1])))
    energy = whole.totals(whole.columns(1))[0]
    assert kept.targets[0].noise_share == pytest.approx(x.size * 3 / 4 * noise_sigma(x) ** 2 / energy)
    assert kept.rings is not None
    assert (kept.rings.correlation > -1).all()


def test_rings_do_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = image(1)
    first = measure_frequencies(spec_of(tmp_path / "a", x, noisy(x), rings=9)).outputs[0].rings
    monkeypatch.setattr(frequencyblocks, "_SECTIONS", 2)
    monkeypatch.setattr(frequencyblocks, "_EDGE", 24)
    second = measure_frequencies(spec_of(tmp_path / "b", x, noisy(x), rings=9)).outputs[0].rings
    np.testing.assert_array_equal(first.correlation, second.correlation)
    assert measure_frequencies(spec_of(tmp_path / "c", x, x, rings=0)).outputs[0].rings is None


def test_equals_keep_all_and_files_say_what_was_found(tmp_path: Path) -> None:
    x = image(2)
    found = measure_frequencies(spec_of(tmp_path, x, x, noisy(x), names=("same", "noisy")))
    same_, noisier = found.outputs
    assert {(band.ratio.value, band.coherence.value, band.error.value) for band in same_.bands} == {(1, 1, 0)}
    assert noisier.levels[0].ratio.value > 2
    assert noisier.levels[0].coherence.value < 0.7
    said = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert said["outputs"]["same"]["exact"]
    assert said["passed"]
    with (tmp_path / "out" / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["output"], row["level"], row["orientation"]) for row in rows[:4]] == [
        ("same", "1", name) for name in ("all", "x", "y", "yx")
    ]
    assert float(rows[0]["wavelength_nm"]) == 8


def test_a_part_is_compared_with_its_place(tmp_path: Path) -> None:
    x = image(3, (6, 64, 64))
    part = x[2:5, 8:45, 16:]
    grid = Grid(GRID.voxel_size_nm, (80.0, 32.0, 64.0))
    spec = FrequencySpec(
        reference=write(tmp_path / "x.zarr", x),
        outputs=(write(tmp_path / "part.zarr", part, grid),),
        output=str(tmp_path / "out"),
        wavelet=THREE,
        resamples=20,
    )
    (kept,) = measure_frequencies(spec).outputs
    assert kept.levels[0].ratio.value == 1
    assert kept.compared.box.shape == (3, 32, 48)
    assert kept.left_out == pytest.approx(1 - 32 / 37)


def test_limits_are_kept_or_broken(tmp_path: Path) -> None:
    x = image(4)
    limits = (LimitSpec(statistic="coherence", at_least=0.9), LimitSpec(statistic="ratio", at_most=9, to_nm=8))
    spec = spec_of(tmp_path, x, noisy(x), gate=limits)
    found = measure_frequencies(spec)
    assert not found.passed
    verdicts = found.outputs[0].verdicts
    assert [(v.limit.statistic, v.level) for v in verdicts] == [
        ("coherence", 1), ("coherence", 2), ("coherence", 3), ("ratio", 1)
    ]  # fmt: skip
    assert [v.kept for v in verdicts][::3] == [False, True]
    page = write_frequency_report(spec, found).read_text(encoding="utf-8")
    assert "limits are broken" in page
    assert page.count("data:image/png") >= 5


def test_constant_images_have_reasons_and_keep_no_limit(tmp_path: Path) -> None:
    x = np.full((2, 16, 16), 7, np.uint8)
    spec = spec_of(tmp_path, x, x, gate=(LimitSpec(statistic="ratio", at_least=0),))
    found = measure_frequencies(spec)
    assert not found.passed
    said = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert said["rows"][0]["ratio"] is None
    assert "constant" in said["outputs"]["y0.zarr"]["undefined"]["level 1, ratio"]
    assert "no power" in write_frequency_report(spec, found).read_text(encoding="utf-8")


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_other_numbers_are_compared_too(tmp_path: Path, dtype) -> None:
    x = (image(5).astype(np.float64) * 3 - 100 * (dtype == np.int16)).astype(dtype)
    spec = spec_of(tmp_path, x, x)
    found = measure_frequencies(spec)
    assert found.outputs[0].levels[2].coherence.value == 1
    assert bool(found.outputs[0].unknown) == (dtype == np.float32)
    if dtype == np.float32:
        assert "up to 16 bits" in write_frequency_report(spec, found).read_text(encoding="utf-8")


def test_volumes_are_decomposed_in_three_dimensions(tmp_path: Path) -> None:
    x = image(6, (8, 32, 32))
    wavelet = WaveletSpec(levels=3, volume=True, name="db2")
    spec = FrequencySpec(
        reference=write(tmp_path / "x.zarr", x, Grid((8.0, 8.0, 8.0))),
        outputs=(write(tmp_path / "y.zarr", noisy(x), Grid((8.0, 8.0, 8.0))),),
        output=str(tmp_path / "out"),
        wavelet=wavelet,
        resamples=20,
    )
    (kept,) = measure_frequencies(spec).outputs
    assert kept.compared.decomposition.tile_vox == (8, 8, 8)
    assert {band.orientation for band in kept.bands} >= {"all", "zyx", "z"}
    assert frequencyblocks.ring_dimensions(kept.compared.decomposition) == 3
    assert np.isnan(kept.targets[0].by_neighbours)


def test_what_was_counted_is_counted_again_for_another_question_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = image(7)
    spec = spec_of(tmp_path, x, noisy(x))
    first = measure_frequencies(spec)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    assert measure_frequencies(spec).rows == first.rows
    assert files == {path: path.stat().st_mtime_ns for path in files}
    other = measure_frequencies(spec.model_copy(update={"wavelet": WaveletSpec(levels=2)}))
    assert {row["level"] for row in other.rows} == {1, 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wavelet": WaveletSpec(levels=7)}, r"less than a tile of .*at most 5"),
        ({"wavelet": WaveletSpec(levels=3, name="bior2.2")}, "not orthogonal"),
        ({"wavelet": WaveletSpec(levels=3, tile_vox=(12, 8))}, "cannot be halved 3 times"),
        ({"wavelet": WaveletSpec(levels=3, tile_vox=(8,))}, "has 1 extents: give 2"),
        ({"names": ("a", "b")}, "2 names for 1 outputs"),
        ({"names": ("reference",)}, "called 'reference'"),
        ({"gate": (LimitSpec(statistic="ratio", at_most=1, from_nm=1000),)}, "no level has a wavelength"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path, changes, message: str) -> None:
    spec = spec_of(tmp_path, image(8), image(8)).model_copy(update=changes)
    with pytest.raises(InputError, match=message):
        measure_frequencies(spec)
    assert not (tmp_path / "out").exists()


def test_other_grids_and_empty_limits_are_refused(tmp_path: Path) -> None:
    x = image(9)
    spec = spec_of(tmp_path, x, x)
    moved = write(tmp_path / "moved.zarr", x, Grid((40.0, 5.0, 4.0)))
    with pytest.raises(InputError, match="not on the voxel grid"):
        measure_frequencies(spec.model_copy(update={"outputs": (moved,)}))
    with pytest.raises(InputError, match="limits nothing"):
        LimitSpec.from_dict({"statistic": "ratio"}, "gate")


def test_a_hole_in_the_data_is_named_with_the_way_on(tmp_path: Path) -> None:
    x = image(10).astype(np.float32)
    y = x.copy()
    y[3, 17, 40] = np.nan
    with pytest.raises(InputError, match=r"tile \(3, 2, 5\).*holds NaN") as caught:
        measure_frequencies(spec_of(tmp_path, x, y))
    assert "then the same command runs the others" in str(caught.value)
    assert not (tmp_path / "out" / "scores.json").exists()


def test_small_tiles_are_framed_amid_their_neighbours(tmp_path: Path) -> None:
    x = image(11)
    spec = spec_of(tmp_path, x, noisy(x))
    page = write_frequency_report(spec, measure_frequencies(spec)).read_text(encoding="utf-8")
    pictures = [Image.open(io.BytesIO(base64.b64decode(code))) for code in re.findall(r"base64,([\w+/=]+)", page)]
    drawn = [np.asarray(picture.convert("RGBA"))[..., :3] for picture in pictures if picture.mode == "P"]
    assert len(drawn) == 3
    for picture in drawn:
        # Three images of 48 x 64 voxels, each enlarged by whole factors, with the border of a tile of 8 x 8 on it.
        zoom = (picture.shape[1] - 16) // 3 // 64
        border = 3 * 28 * zoom**2
        # A scale bar may cover a part of it.
        assert 0.5 * border < (picture == (217, 96, 15)).all(axis=2).sum() <= border
