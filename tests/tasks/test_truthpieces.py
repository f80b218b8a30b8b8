"""The truth in pieces: those of the whole, whatever the blocks, with CREMI's special ids kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.contingency import contingency
from emloom.metrics.cremi import TRANSPARENT
from emloom.metrics.overlap import overlap_scores
from emloom.ops.labels import split_disconnected
from emloom.run.executor import Serial
from emloom.tasks import overlaptable, truthpieces
from emloom.tasks.scorespec import EvaluateSpec
from emloom.tasks.scorestages import Stages
from emloom.tasks.scoring import evaluate
from emloom.tasks.truthpieces import smallest_names, truth_in_pieces

GRID = Grid((40.0, 8.0, 8.0))


def write(path: Path, ids) -> str:
    info = VolumeInfo(ids.shape, ids.dtype, GRID, kind="labels", chunks=(4, 8, 8))
    create_volume(path, info).write(info.box, ids)
    return str(path)


def same_partition(a, b) -> bool:
    """Whether two labellings are equal up to the names."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(a)) == len(np.unique(b))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    cell=st.sampled_from([(64, 64, 64), (4, 4, 4), (3, 5, 2), (1, 12, 3)]),
    values=st.integers(1, 4),
)
def test_pieces_are_those_of_the_whole(tmp_path_factory, seed, shape, cell, values) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, values + 1, shape).astype(np.uint64) * np.uint64(10**12)
    truth[rng.random(shape) < 0.1] = TRANSPARENT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truthpieces, "CELL", cell)
        path = truth_in_pieces(write(folder / "t.zarr", truth), Stages(folder, Serial(), None), "print")
    found = open_volume(path, kind="labels").read(open_volume(path, kind="labels").info.box)
    special = truth == TRANSPARENT
    assert (found[special] == TRANSPARENT).all()
    expected = split_disconnected(np.where(special, np.uint64(0), truth))
    assert ((found == 0) == (truth == 0)).all()
    assert same_partition(np.where(special, np.uint64(0), found), expected)


def test_a_spiral_over_many_blocks_is_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.zeros((1, 16, 16), np.uint64)
    for ring in range(0, 8, 2):
        truth[0, ring, max(0, ring - 2) : 16 - ring] = truth[0, ring : 16 - ring, 15 - ring] = 5
        truth[0, 15 - ring, ring : 16 - ring] = truth[0, ring + 2 : 16 - ring, ring] = 5
    assert split_disconnected(truth).max() == 1
    monkeypatch.setattr(truthpieces, "CELL", (1, 3, 3))
    path = truth_in_pieces(write(tmp_path / "t.zarr", truth), Stages(tmp_path, Serial(), None), "print")
    found = open_volume(path, kind="labels").read(open_volume(path, kind="labels").info.box)
    assert set(np.unique(found)) == {0, 1 + int(np.flatnonzero(truth.ravel())[0])}


def test_names_follow_chains_to_the_smallest() -> None:
    a, b = (np.array(column, np.uint64) for column in ([9, 5, 20, 30], [5, 7, 21, 20]))
    keys, values = smallest_names(a, b)
    assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == {7: 5, 9: 5, 21: 20, 30: 20}
    none = np.zeros(0, np.uint64)
    assert [len(column) for column in smallest_names(none, none)] == [0, 0]


def test_objects_in_pieces_count_as_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    truth = np.kron(rng.integers(0, 3, (3, 4, 4)), np.ones((3, 5, 5), int)).astype(np.uint64)
    truth[:, 7] = TRANSPARENT
    found = rng.integers(0, 9, truth.shape).astype(np.uint64)
    for module in (truthpieces, overlaptable):
        monkeypatch.setattr(module, "CELL", (4, 8, 8))
    spec = EvaluateSpec(
        segmentation=write(tmp_path / "s.zarr", found),
        truth=write(tmp_path / "t.zarr", truth),
        output=str(tmp_path / "out"),
        metrics=("voi", "inner"),
        split_truth=True,
    )
    result = evaluate(spec)
    pieces = split_disconnected(np.where(truth == TRANSPARENT, np.uint64(0), truth))
    expected = overlap_scores(contingency(pieces, found))
    assert (result.row["voi_split"], result.row["voi_merge"]) == (expected.voi_split, expected.voi_merge)
    assert result.row["n_truth"] == expected.n_truth
    # Another truth under the same output: nothing of the first is left.
    other = evaluate(spec.model_copy(update={"truth": write(tmp_path / "t2.zarr", np.full_like(truth, 3))}))
    assert other.row["n_truth"] == 1
