"""Tables of labelled patches for property tests, and what it means that two are the same."""

from __future__ import annotations

import numpy as np

from emloom.geometry import Grid, Vec
from emloom.geometry.patches import PatchLabels

WORDS = ("", "neuropil", "soma, large", 'a "quoted" one', "two\nlines", "ümlaut", " spaced ", "#hash")


def random_labels(
    seed: int, n: int = 40, *, span: int = 6, annotators: int = 3, shape: Vec = (1, 4, 4)
) -> PatchLabels:
    """Return up to `n` rows, several of one patch by different annotators, with unknowns and text."""
    rng = np.random.default_rng(seed)
    rows = np.unique(
        np.column_stack([rng.integers(-span, span, (n, 3)), rng.integers(0, annotators, n)]), axis=0
    ).astype(np.int64)
    rows = rows[rng.permutation(len(rows))]
    return PatchLabels(
        Grid((35.0, 0.1 + 0.2, 32.0), (1e-3, -7.25, 1e6)),
        shape,
        rows[:, :3].copy(),
        ("debris", "myelin"),
        rng.integers(-1, 2, (len(rows), 2)).astype(np.int8),
        tuple("ABCDEFG"[:annotators]),
        rows[:, 3].copy(),
        {"tissue": rng.choice(WORDS, len(rows)), "box": rng.choice(["top", "bottom"], len(rows))},
    )


def assert_same(a: PatchLabels, b: PatchLabels) -> None:
    assert (a.grid, a.shape, a.classes, a.annotators) == (b.grid, b.shape, b.classes, b.annotators)
    for name in ("starts", "labels", "annotator"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert {k: v.tolist() for k, v in a.columns.items()} == {k: v.tolist() for k, v in b.columns.items()}
