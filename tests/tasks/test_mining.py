"""Hard negatives: found where nobody looked, judged by people, and taken into the labels as they were judged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.patchtables import read_patches, write_patches
from emloom.tasks.labelsession import LabelSession, extended_queue
from emloom.tasks.mining import MineSpec, adopt_mined, mine
from tests.tasks.labelling import CLASSES, SHAPE, lattice, table, write_map, write_noise
from tests.tasks.test_disagreeing import renamed

LOGITS = np.random.default_rng(8).normal(1, 3, (6, 10, 12))
KNOWN = [(2, 16, 16), (3, 0, 0)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_noise(tmp_path / "raw.zarr")
    write_map(tmp_path / "map.zarr", LOGITS)
    write_patches(tmp_path / "labels.csv", table(KNOWN, [[1, 0], [0, 1]], "ada", tissue=["soma", "axon"]))
    spec = MineSpec(
        raw=str(tmp_path / "raw.zarr"),
        output=str(tmp_path / "round1"),
        labels=str(tmp_path / "labels.csv"),
        per_block=2,
        block_vox=(3, 16, 48),
        margin_vox=2,
    )
    calls: list[str] = []

    def predict() -> str:
        calls.append("once")
        return str(tmp_path / "map.zarr")

    mine(spec, predict)
    assert calls == ["once"]
    return tmp_path


def test_every_block_gives_a_few_that_nobody_knows(folder: Path) -> None:
    found = read_patches(folder / "round1" / "candidates.csv")
    places = lattice().indices(found.starts)
    per_block = Counter(tuple(p) for p in (places // [3, 4, 12]).tolist())
    assert max(per_block.values()) == 2
    assert len(per_block) == 6
    assert all(float(p) >= 0.5 for p in found.columns["score"])
    for start in found.starts.tolist():
        assert not (start[0] == 2 and abs(start[1] - 16) < 8 and abs(start[2] - 16) < 8)
        assert not (start[0] == 3 and abs(start[1]) < 4 and abs(start[2]) < 4)


def answered(folder: Path, words: dict[int, tuple[str, str]]) -> list[tuple[int, ...]]:
    """Answer some candidates, as the page does."""
    path = folder / "round1" / "answers.csv"
    queue = extended_queue(path, read_patches(folder / "round1" / "candidates.csv"))
    session = LabelSession(path, queue, "bob")
    for index, (debris, myelin) in words.items():
        session.answer(index, "debris", debris)
        session.answer(index, "myelin", myelin)
    return [session.starts[index] for index in words]


def test_answers_join_the_labels_as_they_were_given(folder: Path) -> None:
    starts = answered(folder, {0: ("no", "yes"), 2: ("yes", "unsure"), 3: ("unsure", "no"), 5: ("no", "no")})
    found = adopt_mined(folder / "round1", folder / "labels.csv")
    n = len(read_patches(folder / "round1" / "candidates.csv"))
    assert (found.negatives, found.positives, found.unsure, found.open) == (2, 1, 1, n - 4)
    labels = read_patches(folder / "labels.csv")
    assert labels.by("ada").labels.tolist() == [[1, 0], [0, 1]]
    assert labels.by("ada").columns["tissue"].tolist() == ["soma", "axon"]
    assert labels.by("bob").starts.tolist() == [list(start) for start in starts]
    assert labels.by("bob").labels.tolist() == [[0, 1], [1, -1], [-1, 0], [0, 0]]
    before = (folder / "labels.csv").read_bytes()
    adopt_mined(folder / "round1", folder / "labels.csv")
    assert (folder / "labels.csv").read_bytes() == before


def test_the_next_round_asks_other_questions(folder: Path) -> None:
    first = read_patches(folder / "round1" / "candidates.csv")
    answered(folder, dict.fromkeys(range(len(first)), ("no", "no")))
    adopt_mined(folder / "round1", folder / "labels.csv")
    spec = MineSpec(
        raw=str(folder / "raw.zarr"),
        output=str(folder / "round2"),
        labels=str(folder / "labels.csv"),
        patch_vox=SHAPE,
    )
    second = mine(spec, lambda: str(folder / "map.zarr")).patches
    assert len(second)
    assert not {tuple(s) for s in first.starts.tolist()} & {tuple(s) for s in second.starts.tolist()}


def test_answers_in_the_tracing_are_taken_where_somebody_is_named(folder: Path) -> None:
    def answer(k: int, name: str) -> str:
        return name.replace("debris: ?", "debris: no") if k < 3 else name

    renamed(folder / "round1" / "candidates.nml", answer)
    found = adopt_mined(folder / "round1", folder / "labels.csv", "eve")
    assert (found.negatives, found.positives, found.unsure) == (3, 0, 0)
    assert read_patches(folder / "labels.csv").by("eve").labels.tolist() == [[0, -1]] * 3


def test_a_first_table_is_made(folder: Path) -> None:
    answered(folder, {0: ("no", "no")})
    adopt_mined(folder / "round1", folder / "new.csv")
    assert read_patches(folder / "new.csv").of("debris").tolist() == [0]


def test_what_cannot_be_is_told(folder: Path) -> None:
    with pytest.raises(InputError, match="answer the candidates"):
        adopt_mined(folder / "round1", folder / "labels.csv")
    write_patches(folder / "round1" / "answers.csv", table(KNOWN, [[1], [0]], "bob", classes=("fold",)))
    with pytest.raises(InputError, match="does not ask"):
        adopt_mined(folder / "round1", folder / "labels.csv")
    assert read_patches(folder / "labels.csv").classes == CLASSES
