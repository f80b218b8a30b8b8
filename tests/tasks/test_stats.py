"""`emloom stats`: against NumPy on the whole array, whatever the cells."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.io.tables import read_table
from emloom.tasks import info as info_task
from emloom.tasks.stats import PERCENTS, StatsSpec, stats


def stored(folder: Path, array: NDArray[Any], chunks: tuple[int, ...] | None = None) -> str:
    with h5py.File(folder / "in.h5", "w") as h5:
        h5.create_dataset("a", data=array, chunks=chunks)
        h5["a"].attrs["resolution"] = [40.0, 4.0, 5.0]
    return f"{folder}/in.h5/a"


def nearest_rank(array: NDArray[Any], percent: float) -> Any:
    return np.percentile(array, percent, method="inverted_cdf")


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("shape", [(7, 20, 30), (2, 7, 20, 30)])
def test_small_integers_are_measured_exactly(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    array[..., 3, :, :] = 0
    report = stats(StatsSpec(source=stored(tmp_path, array)))
    got, wide = report.to_dict(), array.astype(np.float64)
    assert got["range"] == [array.min(), array.max()]
    assert got["mean"] == pytest.approx(wide.mean(), rel=1e-12, abs=1e-9)
    assert got["std"] == pytest.approx(wide.std(), rel=1e-12)
    assert got["zeros"] == (array == 0).mean()
    assert got["percentiles"] == {f"{p:g}": nearest_rank(array, p) for p in PERCENTS}
    values, counts = np.unique(array, return_counts=True)
    assert got["histogram"] == {"values": values.tolist(), "counts": counts.tolist()}
    by_section = tuple(axis for axis in range(array.ndim) if axis != array.ndim - 3)
    np.testing.assert_allclose(report.table["mean"], wide.mean(by_section), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(report.table["contrast"], wide.std(by_section), rtol=1e-12)
    np.testing.assert_array_equal(report.table["zeros"], (array == 0).mean(by_section))
    assert json.loads(json.dumps(got)) == got


@settings(deadline=None, max_examples=15)
@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.integers(1, 12),
    st.sampled_from(["raw", "labels", "mask"]),
)
def test_cells_do_not_matter_for_integers(
    tmp_path_factory: pytest.TempPathFactory, shape: Any, chunks: Any, log_bytes: int, kind: str
) -> None:
    array = np.random.default_rng(1).integers(0, 9, shape, dtype=np.uint16)
    folder = tmp_path_factory.mktemp("stats")
    path = stored(folder, array, tuple(min(c, n) for c, n in zip(chunks, shape, strict=True)))
    whole = stats(StatsSpec(source=path, kind=kind)).to_dict()
    before, info_task.CELL_BYTES = info_task.CELL_BYTES, 2**log_bytes
    try:
        assert stats(StatsSpec(source=path, kind=kind)).to_dict() == whole
    finally:
        info_task.CELL_BYTES = before


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint32", "int64"])
def test_wide_values_are_measured_to_a_bin(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    array = (np.random.default_rng(0).normal(1e6, 50, (6, 30, 40))).astype(dtype)
    array[2] = 0
    if dtype.startswith("float"):
        array[0, 0, :3] = np.nan, np.inf, -np.inf
    monkeypatch.setattr(info_task, "CELL_BYTES", 4096)
    seen: list[tuple[int, int]] = []
    report = stats(StatsSpec(source=stored(tmp_path, array, (2, 16, 16))), lambda *step: seen.append(step))
    got = report.to_dict()
    good = array[np.isfinite(array)].astype(np.float64)
    assert got.get("not_finite", 0) == array.size - good.size
    assert got["range"] == [good.min(), good.max()]
    assert (got["mean"], got["std"]) == pytest.approx((good.mean(), good.std()), rel=1e-9)
    assert sum(got["histogram"]["counts"]) == good.size
    width = (good.max() - good.min()) / 1024
    for p in PERCENTS:
        assert abs(got["percentiles"][f"{p:g}"] - nearest_rank(good, p)) <= width * 1.001
    np.testing.assert_allclose(report.table["contrast"][1], array[1].astype(np.float64).std(), rtol=1e-6)
    assert seen[-1][0] == seen[-1][1] == len(seen)


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.sampled_from(["uint32", "int32", "uint64", "int64"]),
    st.sampled_from(["all", "narrow"]),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_wide_integers_are_measured_exactly_whatever_the_cells(
    tmp_path_factory: pytest.TempPathFactory, shape: Any, dtype: str, spread: str, log_bytes: int, seed: int
) -> None:
    """Against Python's integers; 2^63 + 1 and 2^63 are the same float64, and are told apart."""
    limits, rng = np.iinfo(dtype), np.random.default_rng(seed)
    low = limits.min if spread == "all" else max(limits.max - 9, 0)
    array = rng.integers(low, limits.max, shape, dtype=dtype, endpoint=True)
    path = stored(tmp_path_factory.mktemp("stats"), array, tuple(min(2, n) for n in shape))
    before, info_task.CELL_BYTES = info_task.CELL_BYTES, 2**log_bytes
    try:
        report = stats(StatsSpec(source=path, kind="raw"))
    finally:
        info_task.CELL_BYTES = before
    got = report.to_dict()
    for values, mean, std in (
        (array, got["mean"], got["std"]),
        *zip(array, report.table["mean"], report.table["contrast"], strict=True),
    ):
        numbers = [Fraction(int(v)) for v in values.ravel()]
        centre = sum(numbers) / len(numbers)
        assert mean == float(centre)
        assert std == pytest.approx(math.sqrt(sum((v - centre) ** 2 for v in numbers) / len(numbers)), rel=1e-12)
    assert got["range"] == [int(array.min()), int(array.max())]
    edges, counts = got["histogram"]["edges"], got["histogram"]["counts"]
    placed = [sum(a <= int(v) < b for v in array.ravel()) for a, b in pairwise(edges)]
    assert (placed, sum(counts)) == (counts, array.size)
    for p in PERCENTS:
        exact, told = int(nearest_rank(array.astype(object), p)), got["percentiles"][f"{p:g}"]
        assert 0 <= told - exact < edges[1] - edges[0]
    assert json.loads(json.dumps(got)) == got


@pytest.mark.parametrize("value", [0.0, 7.5, np.nan])
def test_constant_and_empty_floats(tmp_path: Path, value: float) -> None:
    got = stats(StatsSpec(source=stored(tmp_path, np.full((2, 3, 4), value, np.float32)))).to_dict()
    if np.isnan(value):
        assert (got["range"], got["not_finite"]) == (None, 24)
    else:
        assert (got["range"], got["std"], got["histogram"]["counts"]) == ([value, value], 0, [24])


def test_labels_are_counted(tmp_path: Path) -> None:
    array = np.zeros((4, 10, 10), np.uint64)
    array[1, :3, :3], array[2, 0, 0], array[3] = 2**64 - 1, 7, 5
    report = stats(StatsSpec(source=stored(tmp_path, array), kind="labels", output=f"{tmp_path}/sizes.parquet"))
    got = report.to_dict()
    assert (got["ids"], got["zeros"], got["median_voxels"]) == (3, 290 / 400, 9)
    assert (got["smallest"]["id"], got["smallest"]["voxels"]) == (7, 1)
    assert got["largest"] == {"id": 5, "voxels": 100, "volume_um3": pytest.approx(100 * 800e-9)}
    assert got["sections"]["zeros"] == [1, 0.91, 0.99, 0]
    assert "largest        id: 5  voxels: 100  µm³: 8e-05" in report.to_text()
    table = read_table(tmp_path / "sizes.parquet").columns
    assert dict(zip(table["id"].tolist(), table["voxels"].tolist(), strict=True)) == {5: 100, 7: 1, 2**64 - 1: 9}


def test_labels_without_any_id(tmp_path: Path) -> None:
    got = stats(StatsSpec(source=stored(tmp_path, np.zeros((2, 3, 4), np.uint8)), kind="labels")).to_dict()
    assert (got["ids"], got["zeros"], "largest" in got) == (0, 1, False)


def test_the_table_of_sections_as_csv(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = stored(tmp_path, array)
    stats(StatsSpec(source=path, output=f"{tmp_path}/t.csv"))
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "z,mean,contrast,zeros"
    assert [float(v) for v in lines[2].split(",")] == pytest.approx([1, array[1].mean(), array[1].std(), 0])
    with pytest.raises(InputError, match="already exists"):
        stats(StatsSpec(source=path, output=f"{tmp_path}/t.csv"))
    with pytest.raises(InputError, match=r"name it \.parquet or \.csv"):
        stats(StatsSpec(source=path, output=f"{tmp_path}/t.txt"))


def test_masks_are_measured(tmp_path: Path) -> None:
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = True
    got = stats(StatsSpec(source=stored(tmp_path, mask))).to_dict()
    assert (got["mean"], got["zeros"], got["range"]) == (1 / 8, 7 / 8, [0, 1])


@pytest.mark.real_data
def test_fib25(real_data: Path) -> None:
    path = f"{real_data}/fib25/trvol2_250.h5"
    with h5py.File(path) as h5:
        raw, ids = h5["volumes/raw"][:], h5["volumes/labels/neuron_ids"][:]
    got = stats(StatsSpec(source=f"{path}/volumes/raw")).to_dict()
    assert got["percentiles"]["50"] == nearest_rank(raw, 50)
    assert got["mean"] == pytest.approx(raw.astype(np.float64).mean(), rel=1e-12)
    counted = stats(StatsSpec(source=f"{path}/volumes/labels/neuron_ids")).to_dict()
    assert counted["ids"] == np.count_nonzero(np.unique(ids))
