"""Bootstrap by block: against scipy, determinism, and how often the interval holds the truth."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from emloom.errors import InputError
from emloom.metrics.bootstrap import Interval, bootstrap
from emloom.metrics.classify import Confusion, confusion_scores
from emloom.metrics.contingency import Contingency, disjoint_union
from emloom.metrics.counts import add
from emloom.metrics.curves import average_precision
from emloom.metrics.overlap import overlap_scores
from emloom.metrics.ranking import score_histogram

VOXELS = 500


def accuracy(table: Confusion) -> float:
    return float(np.trace(table.counts) / table.counts.sum())


def blocks_of(rng: np.random.Generator, n: int) -> list[Confusion]:
    """Return blocks whose voxels share their luck: accuracy varies by block, with a mean of 0.8."""
    right = rng.binomial(VOXELS, rng.beta(8, 2, n))
    return [Confusion(np.array([[k, VOXELS - k], [0, 0]], np.int64)) for k in right]


def seeded(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_seed_gives_the_same_interval() -> None:
    blocks = blocks_of(seeded(0), 12)
    first = bootstrap(blocks, accuracy, add, seeded(5))
    assert bootstrap(blocks, accuracy, add, seeded(5)) == first
    assert bootstrap(blocks, accuracy, add, seeded(6)) != first
    assert first.value == accuracy(add(blocks))
    assert first.low < first.value < first.high
    assert json.dumps(asdict(first))


def test_the_interval_is_that_of_scipy() -> None:
    rng = seeded(1)
    right, wrong = rng.integers(10, 60, 25), rng.integers(1, 30, 25)
    blocks = [Confusion(np.array([[r, w], [0, 0]], np.int64)) for r, w in zip(right, wrong, strict=True)]
    mine = bootstrap(blocks, accuracy, add, seeded(2), resamples=6000, level=0.9)

    def ratio(r: Any, w: Any, axis: int = -1) -> Any:
        return r.sum(axis=axis) / (r + w).sum(axis=axis)

    theirs = scipy.stats.bootstrap(
        (right, wrong),
        ratio,
        paired=True,
        n_resamples=6000,
        confidence_level=0.9,
        method="percentile",
        rng=seeded(3),
    ).confidence_interval
    spread = theirs.high - theirs.low
    assert mine.low == pytest.approx(theirs.low, abs=0.05 * spread)
    assert mine.high == pytest.approx(theirs.high, abs=0.05 * spread)


def test_equal_blocks_leave_no_doubt() -> None:
    block = Confusion(np.array([[8, 2], [1, 9]], np.int64))
    found = bootstrap([block] * 7, lambda t: confusion_scores(t).macro.f1, add, seeded(0), resamples=50)
    assert found.low == found.value == found.high


def test_a_higher_level_is_wider() -> None:
    blocks = blocks_of(seeded(3), 20)
    narrow, wide = (bootstrap(blocks, accuracy, add, seeded(1), level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_blocks_hold_the_truth_and_voxels_do_not() -> None:
    """Of 95 % intervals over blocks nearly 95 % hold the true accuracy; of those over voxels, few."""
    rng = seeded(4)
    trials, held_by_blocks, held_by_voxels = 150, 0, 0
    for _ in range(trials):
        blocks = blocks_of(rng, 40)
        found = bootstrap(blocks, accuracy, add, rng, resamples=200)
        held_by_blocks += found.low <= 0.8 <= found.high
        # Resampling n voxels, of which a part is right, draws a binomial number of right ones.
        n = 40 * VOXELS
        low, high = np.quantile(rng.binomial(n, found.value, 200) / n, [0.025, 0.975])
        held_by_voxels += low <= 0.8 <= high
    assert held_by_blocks / trials >= 0.88
    assert held_by_voxels / trials <= 0.4


def test_any_table_and_any_score() -> None:
    rng = seeded(6)
    histograms = []
    for _ in range(10):
        scores = rng.integers(0, 256, 200).astype(np.uint8)
        histograms.append(score_histogram(scores, rng.random(200) < scores / 255))
    found = bootstrap(histograms, lambda t: average_precision(t.ranking()), add, seeded(0), resamples=200)
    assert found.low < found.value < found.high < 1

    tables = [Contingency.from_rows([1, 1], [1, 2], [50, 50 - k]) for k in range(0, 50, 10)]
    voi = bootstrap(tables, lambda t: overlap_scores(t).voi_split, disjoint_union, seeded(0), resamples=100)
    assert voi.low < voi.value < voi.high <= 1


def test_two_methods_are_compared_on_the_same_blocks() -> None:
    rng = seeded(8)
    luck = rng.beta(8, 2, 30)
    # The second is right 2 % more often, on every block.
    pairs = [
        tuple(
            Confusion(np.array([[k, VOXELS - k], [0, 0]], np.int64))
            for k in (int(VOXELS * p * 0.98), int(VOXELS * p))
        )
        for p in luck
    ]
    first, second = ([pair[k] for pair in pairs] for k in (0, 1))
    difference = bootstrap(
        pairs,
        lambda both: accuracy(both[1]) - accuracy(both[0]),
        lambda drawn: tuple(add(pair[k] for pair in drawn) for k in (0, 1)),
        seeded(0),
        resamples=300,
    )
    assert 0 < difference.low < difference.high < 0.03
    # Their own intervals overlap and say nothing.
    a, b = (bootstrap(blocks, accuracy, add, seeded(0), resamples=300) for blocks in (first, second))
    assert b.low < a.high


def test_what_the_page_shows_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics-classify.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)[0]
    rng = seeded(9)
    truth = rng.integers(0, 6, (8, 10, 10))
    here: dict[str, Any] = {"truth": truth, "predicted": np.where(rng.random(truth.shape) < 0.7, truth, 0)}
    exec(shown, here)
    assert 0 < here["scores"].macro.f1 < 1


# ---- nothing there, bad input ------------------------------------------------------------------------------


def test_undefined_resamples_are_counted() -> None:
    nothing, something = Confusion(np.zeros((2, 2), np.int64)), Confusion(np.array([[3, 1], [0, 0]], np.int64))
    some = bootstrap([nothing, something], lambda t: confusion_scores(t).accuracy, add, seeded(0), resamples=400)
    assert (some.low, some.value, some.high) == (0.75, 0.75, 0.75)
    assert 60 < some.n_undefined < 140  # one in four draws the empty block twice
    assert f"{some.n_undefined} of 400 resamples" in some.reason
    none = bootstrap([nothing, nothing], lambda t: confusion_scores(t).accuracy, add, seeded(0), resamples=10)
    assert isnan(none.value)
    assert isnan(none.low)
    assert none.reason == "the score is undefined in every resample"


def test_one_block_says_nothing() -> None:
    found = bootstrap(blocks_of(seeded(0), 1), accuracy, add, seeded(0))
    assert isnan(found.low)
    assert isnan(found.high)
    assert found.value > 0
    assert found.reason == "one block says nothing about how blocks differ"


def test_bad_input_is_named() -> None:
    blocks = blocks_of(seeded(0), 3)
    with pytest.raises(InputError, match="no block to resample"):
        bootstrap([], accuracy, add, seeded(0))
    for options in ({"resamples": 0}, {"level": 0.0}, {"level": 1.0}, {"level": nan}):
        with pytest.raises(InputError, match=r"a level such as 0\.95"):
            bootstrap(blocks, accuracy, add, seeded(0), **options)  # type: ignore[arg-type]


def test_intervals_are_values() -> None:
    assert Interval(1, 0, 2, 0.95, 3, 10, 0, "") == Interval(1, 0, 2, 0.95, 3, 10, 0, "")
