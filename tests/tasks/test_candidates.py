"""Which patches of a map somebody should look at: by slow and obvious versions, however the map is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels, joined
from emloom.io.open import create_volume
from emloom.io.volume import ArrayVolume, VolumeInfo
from emloom.tasks import scoredmaps
from emloom.tasks.candidates import Question, Spread, candidates
from emloom.tasks.scoredmaps import ScoredMap, decoded, labels_of_map, logit, open_map, score_texts
from tests.tasks.labelling import GRID, SHAPE, lattice, noise, table, write_map

LOGITS = np.random.default_rng(3).normal(0, 3, (6, 10, 12))
RAW = noise().info


def scored(logits: np.ndarray = LOGITS) -> ScoredMap:
    grid = lattice().map_grid(GRID)
    return ScoredMap(ArrayVolume(logits, grid, "logits"), lattice(), RAW)


def inside() -> np.ndarray:
    """Return the places of the map whose patches lie in the volume, [N, 3]."""
    every = np.argwhere(np.ones(LOGITS.shape, bool))
    starts = lattice().starts_of(every)
    kept = (starts >= 0).all(axis=1) & (starts + SHAPE <= RAW.shape).all(axis=1)
    assert 0 < kept.sum() < len(every)
    return every[kept]


def slow(question: Question, priority: np.ndarray, places: np.ndarray) -> list[list[int]]:
    """Return the starts that are chosen, by the words of the module: blocks, then across, then dealt."""
    starts = lattice().starts_of(places)
    distance = np.array(question.spread.distance(SHAPE))
    block = np.maximum(1, np.array(question.spread.block_vox) // np.array(lattice().stride))
    order = sorted(range(len(starts)), key=lambda k: (-priority[k], *starts[k]))
    groups = {k: tuple(places[k] // block) for k in order}

    def near(a: int, b: int) -> bool:
        return bool((np.abs(starts[a] - starts[b]) < distance).all())

    local: list[int] = []
    for k in order:
        if not any(near(k, j) for j in local if groups[j] == groups[k]):
            local.append(k)
    kept: list[int] = []
    for k in local:
        if not any(near(k, j) for j in kept):
            kept.append(k)
    taken: list[int] = []
    seen: dict[tuple[int, ...], int] = {}
    turns = []
    for k in kept:
        turns.append(seen.get(groups[k], 0))
        seen[groups[k]] = turns[-1] + 1
    limit = question.spread.per_block
    ranked = sorted(range(len(kept)), key=lambda i: (turns[i], i))
    ranked = [i for i in ranked if limit is None or turns[i] < limit]
    taken = sorted(ranked[: question.count])
    return [starts[kept[i]].tolist() for i in taken]


SPREADS = [
    Spread(block_vox=(1, 16, 16)),
    Spread(block_vox=(2, 16, 24), apart_vox=(2, 5, 9), per_block=3),
    Spread(block_vox=(1, 1024, 1024), apart_vox=(1, 1, 1)),
]


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("how", ["uncertain", "positive"])
@pytest.mark.parametrize("at_once", [1, 50, 10_000])
def test_candidates_are_what_the_words_say(
    how: str, spread: Spread, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoredmaps, "_MOST_VOXELS", at_once)
    question = Question(how=how, count=20, threshold=0.7, spread=spread)
    places = inside()
    above = LOGITS[tuple(places.T)] - np.log(0.7 / 0.3)
    if how == "positive":
        places, above = places[above >= 0], above[above >= 0]
    found = candidates(scored(), question)
    expected = slow(question, above if how == "positive" else -np.abs(above), places)
    assert found.starts.tolist() == expected
    assert len(expected) > 10
    assert found.logits.tolist() == LOGITS[tuple(lattice().indices(found.starts).T)].tolist()
    assert found.places.tolist() == lattice().indices(found.starts).tolist()


@pytest.mark.parametrize("at_once", [1, 10_000])
def test_random_candidates_are_the_same_however_the_map_is_read(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = Question(how="random", count=15, seed=4, spread=SPREADS[0])
    before = candidates(scored(), question).starts.tolist()
    monkeypatch.setattr(scoredmaps, "_MOST_VOXELS", at_once)
    assert candidates(scored(-LOGITS), question).starts.tolist() == before
    other = candidates(scored(), Question(how="random", count=15, seed=5, spread=SPREADS[0]))
    assert other.starts.tolist() != before


def test_a_blob_is_one_candidate_and_every_section_gives_some() -> None:
    logits = np.full((6, 10, 12), -4.0)
    logits[2, 3:7, 3:7] = 9.0
    logits[:, 8, 9] = 3.0
    question = Question(how="positive", count=4, spread=Spread(apart_vox=(1, 8, 8)))
    found = candidates(scored(logits), question)
    assert (found.logits[0], found.starts[0, 0]) == (9.0, 2)
    assert len(set(found.starts[:, 0].tolist())) == 4


def test_what_is_labelled_is_not_asked_again() -> None:
    question = Question(how="positive", count=None, threshold=0.2, spread=Spread(apart_vox=(1, 1, 1)))
    everything = {tuple(s) for s in candidates(scored(), question).starts.tolist()}
    yes, no = (2, 16, 16), (4, 8, 24)
    both = joined([table([yes, no], [[1, -1], [0, -1]], "a"), table([(0, 0, 0)], [[1, 1]], "a")])
    labels = joined([both, table([(0, 0, 0)], [[0, 1]], "b")])  # of which they say different things
    found = {tuple(s) for s in candidates(scored(), question, labels).starts.tolist()}
    gone = everything - found

    def shares(a: tuple[int, ...], b: tuple[int, ...], reach: int) -> bool:
        return a[0] == b[0] and abs(a[1] - b[1]) < reach and abs(a[2] - b[2]) < reach

    # Of a positive all that overlaps it, of a negative what is half of it; what nobody knows excludes nothing.
    assert gone == {s for s in everything if shares(s, yes, 8) or shares(s, no, 4)}
    assert gone
    assert found <= everything


def test_the_most_wrong_contradict_the_labels_most() -> None:
    places = inside()[::7]
    starts = [(z, y, x) for z, y, x in lattice().starts_of(places).tolist()]
    truth = [[int(k % 2), -1] for k in range(len(starts))]
    above = LOGITS[tuple(places.T)]
    loss = np.where(np.array(truth)[:, 0] == 1, -above, above)
    question = Question(how="wrong", count=None, spread=Spread(apart_vox=(1, 1, 1)))
    found = candidates(scored(), question, table(starts, truth))
    expected = [starts[k] for k in np.argsort(-loss, kind="stable") if loss[k] > 0]
    assert [tuple(s) for s in found.starts.tolist()] == expected
    with pytest.raises(InputError, match="give a table"):
        candidates(scored(), question)


def test_a_map_says_what_it_thinks_of_patches_near_its_own() -> None:
    place = (2, 3, 4)
    z, y, x = lattice().starts_of(np.array([place]))[0].tolist()
    near, far = (z, y + 1, x - 2), (5, 500, 500)
    labels = labels_of_map(scored(), table([near, far]), 0.5)
    assert labels.labels.tolist() == [[int(LOGITS[place] >= 0)], [-1]]
    assert labels.classes == ("debris",)
    assert float(labels.columns["score"][0]) == pytest.approx(1 / (1 + np.exp(-LOGITS[place])), abs=1e-6)
    assert labels.columns["score"][1] == ""


def test_values_become_logits() -> None:
    def info(dtype: str, kind: str) -> VolumeInfo:
        return VolumeInfo((1, 1, 3), np.dtype(dtype), GRID, kind=kind)  # type: ignore[arg-type]

    coded = np.array([[[0, 128, 255]]], np.uint8)
    known = decoded(coded, info("uint8", "logits"))[0, 0].tolist()
    assert np.isnan(known[0])
    assert known[1:] == [0, 15.875]
    p = decoded(coded, info("uint8", "probabilities"))
    assert p[0, 0, 1] == pytest.approx(np.log(128 / 127))
    assert np.isfinite(p).all()
    floats = decoded(np.array([[[np.nan, 2.5, np.inf]]]), info("float64", "logits"))[0, 0].tolist()
    assert np.isnan(floats[0])
    assert floats[1:] == [2.5, 1e6]
    assert decoded(np.array([[[0.25, 0.5, 1]]]), info("float64", "probabilities"))[0, 0, 0] == logit(0.25)
    assert score_texts(np.array([0.0, -50, 50, 1e6])).tolist() == ["0.500000", "0.000000", "1.000000", "1.000000"]
    with pytest.raises(InputError, match="between 0 and 1"):
        logit(1.0)


def test_a_map_on_the_disk_is_opened(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.zarr", LOGITS)
    found = open_map(str(path), RAW, SHAPE)
    assert found.lattice == Lattice(SHAPE, (1, 4, 4), (0, -2, -2))
    everything = found.read(Box.whole(LOGITS.shape))
    assert everything.places.tolist() == inside().tolist()
    np.testing.assert_allclose(everything.logits, LOGITS[tuple(inside().T)], atol=1 / 16)
    with pytest.raises(InputError, match="no map of patches"):
        open_map(str(path), RAW, (1, 7, 8))


def test_labels_of_other_patches_are_refused() -> None:
    other = PatchLabels(GRID, (1, 4, 4), np.zeros((1, 3), np.int64), ("debris",), np.ones((1, 1), np.int8))
    with pytest.raises(InputError, match="give labels of this volume"):
        candidates(scored(), Question(how="positive"), other)


def test_what_is_not_known_is_no_candidate() -> None:
    logits = np.full((6, 10, 12), np.nan)
    logits[3, 4, 5] = -2.0
    found = candidates(scored(logits), Question(how="uncertain"))
    assert found.places.tolist() == [[3, 4, 5]]
    unknown = tuple(lattice().starts_of(np.array([[3, 4, 6]]))[0].tolist())
    assert labels_of_map(scored(logits), table([unknown]), 0.5).labels.tolist() == [[-1]]
    assert len(candidates(scored(logits), Question(how="wrong"), table([unknown], [[1, 1]])).starts) == 0


def test_a_map_with_channels_is_refused(tmp_path: Path) -> None:
    info = VolumeInfo((6, 10, 12), np.dtype(np.uint8), lattice().map_grid(GRID), 2, kind="logits")
    create_volume(tmp_path / "map.zarr", info)
    with pytest.raises(InputError, match="of one class"):
        open_map(str(tmp_path / "map.zarr"), RAW, SHAPE)
