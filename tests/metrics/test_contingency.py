"""The overlap table is exact, additive, and follows a LUT without a voxel pass."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.contingency import Contingency, add, contingency, disjoint_union

# Few distinct values make long runs and repeated pairs; large ones catch a loss of the upper bits.
IDS = [0, 1, 2, 3, 2**32, 2**32 + 1, 2**63 + 5, 2**64 - 1]


def pair(seed: int, shape: tuple[int, ...] = (5, 6, 7), ids: list[int] = IDS) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    values = np.array(ids, np.uint64)
    truth, segmentation = (values[rng.integers(0, len(ids), shape)] for _ in range(2))
    return np.repeat(truth, 3, axis=-1), np.repeat(segmentation, 2, axis=-1).repeat(2, axis=-1)[
        ..., : 3 * shape[-1]
    ]


def rows(table: Contingency) -> dict[tuple[int, int], int]:
    columns = (table.truth_ids.tolist(), table.segment_ids.tolist(), table.counts.tolist())
    return {(t, s): n for t, s, n in zip(*columns, strict=True)}


@given(st.integers(0, 10**6), st.booleans(), st.sets(st.sampled_from(IDS), max_size=3))
@settings(deadline=None, max_examples=60)
def test_counts_what_a_counter_counts(seed: int, masked: bool, ignored: set[int]) -> None:
    truth, segmentation = pair(seed)
    mask = np.random.default_rng(seed).random(truth.shape) < 0.6 if masked else None
    keep = np.ones(truth.shape, bool) if mask is None else mask
    expected = Counter(
        (t, s)
        for t, s, k in zip(truth.flat, segmentation.flat, keep.flat, strict=True)
        if k and int(t) not in ignored
    )
    table = contingency(truth, segmentation, mask=mask, ignore_truth=ignored)
    assert rows(table) == {(int(t), int(s)): n for (t, s), n in expected.items()}
    assert table.n_voxels == sum(expected.values())


def test_many_pairs_grow_the_table() -> None:
    rng = np.random.default_rng(0)
    truth, segmentation = rng.integers(1, 300, (2, 90_000)).astype(np.uint64) << np.uint64(40)
    key = truth + (segmentation >> np.uint64(40))
    _, counts = np.unique(key, return_counts=True)
    table = contingency(truth, segmentation)
    assert len(table.counts) > 50_000
    np.testing.assert_array_equal(table.counts, counts)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_every_unsigned_type_and_layout_gives_the_same_table(dtype: type) -> None:
    truth, segmentation = pair(3, ids=[0, 1, 2, 200])
    expected = contingency(truth, segmentation)
    assert contingency(truth.astype(dtype), segmentation) == expected
    fortran, flipped = np.asfortranarray(truth.astype(dtype)), segmentation[::-1]
    assert contingency(fortran, segmentation) == expected
    assert contingency(fortran[::-1], flipped) == expected


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_sum_of_blocks_is_the_whole(seed: int, cut_z: int, cut_y: int) -> None:
    truth, segmentation = pair(seed)
    pieces = [(slice(a, b), slice(c, d)) for a, b in ((0, cut_z), (cut_z, 5)) for c, d in ((0, cut_y), (cut_y, 6))]
    tables = [contingency(truth[p], segmentation[p]) for p in pieces]
    assert add(tables) == contingency(truth, segmentation) == add(reversed(tables))


def test_the_sum_of_nothing_is_the_empty_table() -> None:
    assert add([]).n_voxels == 0
    assert add([]) == contingency(np.zeros((2, 2, 2), np.uint64), np.ones((2, 2, 2), np.uint64))


@given(st.integers(0, 10**6), st.dictionaries(st.sampled_from(IDS), st.sampled_from(IDS)))
@settings(deadline=None, max_examples=60)
def test_relabelled_is_the_table_of_the_relabelled_voxels(seed: int, lut: dict[int, int]) -> None:
    truth, fragments = pair(seed)
    segments = np.array([lut.get(int(f), int(f)) for f in fragments.flat], np.uint64).reshape(fragments.shape)
    table = contingency(truth, fragments)
    keys, values = (np.array(list(column), np.uint64) for column in (lut.keys(), lut.values()))
    assert table.relabelled(keys, values) == contingency(truth, segments)


def test_without_is_the_table_of_the_other_voxels() -> None:
    truth, segmentation = pair(1)
    table = contingency(truth, segmentation)
    expected = contingency(truth, segmentation, mask=segmentation != 2, ignore_truth=(0, 1))
    assert table.without(truth=[1], segments=[2]) == expected != table


def test_a_disjoint_union_is_the_sum_after_giving_every_table_ids_of_its_own() -> None:
    tables = [contingency(*pair(seed, ids=[0, 1, 2, 200])) for seed in (1, 2, 3)]
    apart = add(
        Contingency.from_rows(t.truth_ids + np.uint64(1000 * k), t.segment_ids + np.uint64(1000 * k), t.counts)
        for k, t in enumerate(tables)
    )
    union = disjoint_union(tables)
    for sizes in (Contingency.truth_sizes, Contingency.segment_sizes):
        np.testing.assert_array_equal(np.sort(sizes(union)[1]), np.sort(sizes(apart)[1]))
    np.testing.assert_array_equal(np.sort(union.counts), np.sort(apart.counts))
    assert len(add(tables).counts) < len(union.counts)
    assert disjoint_union([]).n_voxels == 0


def test_sizes_are_the_marginals() -> None:
    truth, segmentation = pair(2)
    table = contingency(truth, segmentation, ignore_truth=())
    for sizes, array in ((table.truth_sizes(), truth), (table.segment_sizes(), segmentation)):
        ids, counts = np.unique(array, return_counts=True)
        np.testing.assert_array_equal(sizes[0], ids)
        np.testing.assert_array_equal(sizes[1], counts)


def test_a_table_is_a_value() -> None:
    table = Contingency.from_rows([2, 1, 2], [5, 5, 5], [1, 2, 3])
    assert rows(table) == {(1, 5): 2, (2, 5): 4}
    with pytest.raises(ValueError, match="read-only"):
        table.counts[0] = 9


@pytest.mark.parametrize(
    ("truth", "segmentation", "mask", "message"),
    [
        (np.zeros(3, np.int64), np.zeros(3, np.uint64), None, "truth has dtype int64"),
        (np.zeros(3, np.uint8), np.zeros(3, np.float32), None, "segmentation has dtype float32"),
        (np.zeros(3, np.uint8), np.zeros(4, np.uint8), None, r"truth is \(3,\) but segmentation is \(4,\)"),
        (np.zeros(3, np.uint8), np.zeros(3, np.uint8), np.zeros(3, np.uint8), "mask is uint8"),
        (np.zeros(3, np.uint8), np.zeros(3, np.uint8), np.zeros(4, bool), "mask is bool"),
    ],
)
def test_wrong_arrays_are_refused(truth: Any, segmentation: Any, mask: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        contingency(truth, segmentation, mask=mask)


def test_wrong_tables_and_luts_are_refused() -> None:
    table = Contingency.from_rows([1, 2], [1, 2], [1, 1])
    with pytest.raises(InputError, match="fragment 7 occurs twice"):
        table.relabelled([7, 1, 7], [1, 1, 2])
    with pytest.raises(InputError, match="2 keys but 1 values"):
        table.relabelled([7, 1], [1])
    with pytest.raises(InputError, match="hold -1"):
        Contingency.from_rows([1], [-1], [1])
    with pytest.raises(InputError, match="have dtype float64"):
        Contingency.from_rows([1], [1], [1.5])
    u = np.array([2, 1], np.uint64)
    with pytest.raises(InputError, match="not unique and sorted"):
        Contingency(u, u, np.ones(2, np.int64))
    with pytest.raises(InputError, match="a count is 0"):
        Contingency(u[::-1], u[::-1], np.zeros(2, np.int64))
    with pytest.raises(InputError, match="counts is float64"):
        Contingency(u[::-1], u[::-1], np.ones(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_any_number_of_threads_counts_the_same(threads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, segmentation = (np.repeat(array, 5, axis=0) for array in pair(3))
    whole = contingency(truth, segmentation, threads=1)
    monkeypatch.setattr("emloom.metrics.contingency._SLAB_VOXELS", truth[0].size)  # a slab per section
    assert contingency(truth, segmentation, threads=threads) == whole
