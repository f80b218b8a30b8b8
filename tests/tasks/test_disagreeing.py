"""Where two disagree a third is asked, and has the last word; from table to tracing and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry.patches import joined
from emloom.geometry.patchtracings import starts_of
from emloom.io.nml import read_nml_tracing, write_nml
from emloom.io.patchtables import read_patches, write_patches
from emloom.tasks.disagreeing import AdoptSpec, DisagreeSpec, adopt, disagree, outline, said_in, with_answers
from tests.tasks.labelling import SHAPE, lattice, table, write_map, write_noise

STARTS = [(k, 4 * k, 40 - 8 * k) for k in range(5)]
ADA = [[1, 1], [1, 0], [0, 1], [-1, 0], [0, 0]]
BOB = [[1, 1], [0, 0], [1, 0], [1, 0], [0, -1]]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    write_patches(tmp_path / "ada.csv", table(STARTS, ADA, "ada"))
    write_patches(tmp_path / "bob.csv", table(STARTS[::-1], BOB[::-1], "bob"))
    return tmp_path


def spec(folder: Path, **changes: Any) -> DisagreeSpec:
    given = {"first": str(folder / "ada.csv"), "second": str(folder / "bob.csv"), "output": str(folder / "asked")}
    return DisagreeSpec.from_dict(given | changes)


def adoption(given: dict[str, Any]) -> AdoptSpec:
    plain = {k: [str(v) for v in value] if isinstance(value, list) else str(value) for k, value in given.items()}
    return AdoptSpec.from_dict(plain)


def renamed(path: Path, answer: Callable[[int, str], str]) -> None:
    """Answer in the names of trees, as somebody does in a viewer."""
    tracing = read_nml_tracing(path)
    names = tuple(answer(k, name) for k, name in enumerate(tracing.skeletons.names))
    write_nml(path, replace(tracing, skeletons=replace(tracing.skeletons, names=names)), overwrite=True)


def test_every_disagreement_is_asked_about_once(tables: Path) -> None:
    found = disagree(spec(tables))
    tracing = read_nml_tracing(tables / "asked" / "candidates.nml")
    starts = starts_of(tracing, np.arange(3), found.patches.grid, SHAPE).tolist()
    assert list(zip(map(tuple, starts), tracing.skeletons.names, strict=True)) == [
        (STARTS[1], "ada: debris, bob: clean, your opinion:"),
        (STARTS[2], "ada: clean, bob: debris, your opinion:"),
        (STARTS[2], "ada: myelin, bob: no myelin, your opinion on myelin:"),
    ]
    both = read_patches(tables / "asked" / "candidates.csv")
    assert both.by("ada").starts.tolist() == both.by("bob").starts.tolist() == [list(s) for s in STARTS[1:3]]
    assert found.agreements["debris"].n_disagreements == 2
    assert not (tables / "asked" / "index.html").exists()


def test_the_unsure_are_asked_about_if_wanted(tables: Path) -> None:
    found = disagree(spec(tables, unsure=True))
    names = read_nml_tracing(tables / "asked" / "candidates.nml").skeletons.names
    assert "ada: unsure, bob: debris, your opinion:" in names
    assert "ada: no myelin, bob: unsure, your opinion on myelin:" in names
    assert len(names) == 5
    assert len(found.patches) == 8


def test_a_third_has_the_last_word(tables: Path) -> None:
    disagree(spec(tables))
    path = tables / "asked" / "candidates.nml"
    renamed(path, lambda k, name: f"{name} {['clean', 'yes', ''][k]}".strip())
    given = {
        "tracing": str(path),
        "labels": [str(tables / "ada.csv"), str(tables / "bob.csv")],
        "output": str(tables / "all.csv"),
        "annotator": "eve",
    }
    found = adopt(AdoptSpec.from_dict(given))
    assert (found.answers, found.open) == (2, 1)
    everything = read_patches(tables / "all.csv")
    assert everything.by("ada").labels.tolist() == ADA
    assert everything.by("bob").labels.tolist() == BOB[::-1]
    assert everything.by("eve").starts.tolist() == [list(s) for s in STARTS[1:3]]
    assert everything.by("eve").labels.tolist() == [[0, -1], [1, -1]]
    final = adopt(AdoptSpec.from_dict(given | {"output": str(tables / "final.csv"), "consensus": True})).labels
    assert final.starts.tolist() == [list(s) for s in STARTS]
    assert final.labels.tolist() == [[1, 1], [0, 0], [1, -1], [1, 0], [0, 0]]
    again = adopt(
        AdoptSpec.from_dict(given | {"labels": [str(tables / "all.csv")], "output": str(tables / "again.csv")})
    )
    assert said_in(again.labels.by("eve")) == said_in(everything.by("eve"))
    assert len(again.labels) == len(everything)


def test_a_later_word_replaces_an_earlier_one_and_nothing_else() -> None:
    before = joined([table(STARTS, ADA, "ada", tissue=list("abcde")), table(STARTS[:1], [[0, 0]], "bob")])
    after = with_answers(before, {STARTS[0]: {"debris": 0}, (9, 9, 9): {"myelin": -1}}, "ada")
    ada = after.by("ada")
    said = zip(ada.starts.tolist(), ada.labels.tolist(), ada.columns["tissue"], strict=True)
    rows = {tuple(start): (labels, tissue) for start, labels, tissue in said}
    assert rows[STARTS[0]] == ([0, 1], "a")
    assert rows[9, 9, 9] == ([-1, -1], "")
    assert [rows[s][0] for s in STARTS[1:]] == ADA[1:]
    assert said_in(ada)[9, 9, 9] == {"myelin": -1}
    assert after.by("bob").labels.tolist() == [[0, 0]]


def test_a_model_is_asked_too(tables: Path) -> None:
    logits = np.full((6, 10, 12), -3.0)
    place = lattice().indices(np.array([[3, 10, 14]]))[0]
    logits[tuple(place)] = 5.0
    write_map(tables / "map.zarr", logits)
    write_noise(tables / "raw.zarr")
    starts = [(3, 11, 13), (2, 16, 16)]
    write_patches(tables / "ada.csv", table(starts, [[0, 1], [0, 1]], "ada"), overwrite=True)
    changes = {"second": str(tables / "map.zarr"), "raw": str(tables / "raw.zarr")}
    found = disagree(spec(tables, **changes))
    assert found.patches.annotators == ("ada", "model")
    tracing = read_nml_tracing(tables / "asked" / "candidates.nml")
    assert tracing.skeletons.names == ("ada: clean, model: debris, your opinion:",)
    assert starts_of(tracing, np.arange(1), found.patches.grid, SHAPE).tolist() == [[3, 11, 13]]
    assert (tables / "asked" / "index.html").exists()
    assert (tables / "asked" / "sheet.png").exists()
    with pytest.raises(InputError, match="--raw"):
        disagree(spec(tables, second=str(tables / "map.zarr"), output=str(tables / "b")))


def test_annotators_of_one_table_are_compared(tables: Path) -> None:
    both = joined([table(STARTS, ADA, "ada"), table(STARTS, BOB, "bob")])
    write_patches(tables / "both.csv", both)
    found = disagree(spec(tables, first=str(tables / "both.csv"), second=None))
    assert found.patches.annotators == ("ada", "bob")
    write_patches(tables / "three.csv", joined([both, table(STARTS, ADA, "eve")]))
    with pytest.raises(InputError, match="name two"):
        disagree(spec(tables, first=str(tables / "three.csv"), second=None, output=str(tables / "b")))
    named = {"first": str(tables / "three.csv"), "second": None, "output": str(tables / "b")}
    assert disagree(spec(tables, **named, names=["eve", "bob"])).patches.annotators == ("eve", "bob")


def test_what_cannot_be_is_told(tables: Path) -> None:
    write_patches(tables / "same.csv", table(STARTS, ADA, "eve"))
    write_patches(tables / "elsewhere.csv", table([(0, 30, 30)], [[1, 1]], "eve"))
    for changes, rule in (
        ({"second": str(tables / "same.csv")}, "nobody needs to be asked"),
        ({"second": str(tables / "elsewhere.csv")}, "nothing to compare"),
        ({"second": str(tables / "ada.csv")}, "both are called"),
        ({"names": ["ada", "bbo"]}, "did you mean"),
        ({"second": None}, "name two"),
    ):
        with pytest.raises(InputError, match=rule):
            disagree(spec(tables, **changes))
    assert not (tables / "asked").exists()


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["{}", "{}", "{}"], "holds no answer"),
        (["{} perhaps", "{}", "{}"], "say yes, no or unsure"),
        (["{}", "{} yes", "bob: clean, your opinion: no"], "answers twice"),
    ],
)
def test_answers_that_cannot_be_taken_are_told(tables: Path, names: list[str], rule: str) -> None:
    disagree(spec(tables))
    path = tables / "asked" / "candidates.nml"
    renamed(path, lambda k, name: names[k].format(name))
    given = {"tracing": path, "labels": [tables / "ada.csv"], "output": tables / "x.csv", "annotator": "e"}
    with pytest.raises(InputError, match=rule):
        adopt(adoption(given))
    assert not (tables / "x.csv").exists()


def test_an_outline_is_read_as_it_was_said(tables: Path) -> None:
    assert outline(tables / "ada.csv", tables / "ada.nml") == 5
    tracing = read_nml_tracing(tables / "ada.nml")
    assert [group.name for group in tracing.groups] == ["debris: yes", "debris: no", "debris: unknown"]
    write_patches(tables / "bare.csv", table([]))
    given = {"tracing": tables / "ada.nml", "labels": [tables / "bare.csv"], "output": tables / "x.csv"}
    found = adopt(adoption(given | {"annotator": "ada"})).labels
    assert said_in(found.by("ada")) == said_in(read_patches(tables / "ada.csv"))
