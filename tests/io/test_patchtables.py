"""Tables of labelled patches: what is written is read back; foreign tables say what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.io.patchtables import read_patches, write_patches
from tests.geometry.patchmaking import WORDS, assert_same, random_labels

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5) | st.sampled_from(WORDS)


@pytest.mark.parametrize("ending", [".csv", ".json"])
@given(seed=st.integers(0, 10**6), n=st.sampled_from([0, 1, 30]), texts=st.lists(TEXT, min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path: Path, ending: str, seed: int, n: int, texts: list[str]) -> None:
    labels = random_labels(seed, n)
    labels = replace(labels, columns={**labels.columns, "note, free": np.resize(np.array(texts), len(labels))})
    path = tmp_path / f"labels{ending}"
    write_patches(path, labels, overwrite=True)
    assert_same(read_patches(path), labels)


GIVEN: dict[str, object] = {"voxel_size_nm": (1, 1, 1), "classes": ["d"]}


def foreign(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "foreign.csv"
    path.write_text(text)
    return path


def test_a_table_made_elsewhere_is_read_with_what_it_does_not_state(tmp_path: Path) -> None:
    path = foreign(tmp_path, "x,y,z,depth,height,width,debris,who\r\n3,2,1,1,4,4,TRUE,me\r\n4,2,1,1,4,4,,you\r\n")
    labels = read_patches(path, voxel_size_nm=(35, 32, 32), classes=["debris"])
    assert labels.starts.tolist() == [[1, 2, 3], [1, 2, 4]]
    assert labels.shape == (1, 4, 4)
    assert labels.labels.tolist() == [[1], [-1]]
    assert labels.columns["who"].tolist() == ["me", "you"]


@pytest.mark.parametrize(
    ("text", "given_", "words"),
    [
        ("z,y,x,debris\n1,2,3,yes\n", {}, "no voxel size"),
        ("z,y,x,debris\n1,2,3,yes\n", {"voxel_size_nm": (1, 1, 1)}, "classes, some of debris"),
        ("z,y,x,debris\n1,2,3,yes\n", {"voxel_size_nm": (1, 1, 1), "classes": ["debri"]}, "did you mean 'debris'"),
        ("z,y,x,d\n1,2,3,yes\n", GIVEN, "does not say how large"),
        ("z,y,x,depth,height,width,d\n1,2,3,1,4,4,yes\n1,2,9,1,4,5,no\n", {**GIVEN}, "one shape"),
        ("z,y,x,d\n1,2,3,maybe\n", {**GIVEN, "shape": (1, 4, 4)}, "row 1 has d='maybe'"),
        ("z,y,x,d\n1,2,3.5,no\n", {**GIVEN, "shape": (1, 4, 4)}, "row 1 has x='3.5'"),
        ("z,y,x,d\n1,2,3\n", {}, "row 1 has 3 cells under 4"),
        ("z,y,y,d\n1,2,3,no\n", {}, "two columns named y"),
        ("", {}, "is empty"),
        ("z,y,d\n1,2,no\n", GIVEN, "no column x"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    tmp_path: Path, text: str, given_: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_patches(foreign(tmp_path, text), **given_)  # type: ignore[arg-type]


def test_contradictions_reserved_names_and_other_endings_are_refused(tmp_path: Path) -> None:
    labels = random_labels(0)
    write_patches(tmp_path / "a.csv", labels)
    with pytest.raises(InputError, match="already exists"):
        write_patches(tmp_path / "a.csv", labels)
    with pytest.raises(InputError, match="leave it out"):
        read_patches(tmp_path / "a.csv", shape=(1, 5, 5))
    assert_same(read_patches(tmp_path / "a.csv", shape=labels.shape), labels)
    with pytest.raises(InputError, match="rename the class"):
        write_patches(tmp_path / "b.csv", replace(labels, classes=("debris", "x")))
    with pytest.raises(InputError, match=r"neither .csv nor .json"):
        write_patches(tmp_path / "b.txt", labels)
    for text in ("{", "[]", '{"patches": 1}', '{"a": 1, "a": 2}', '{"patches": [{"start": 3}]}'):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(InputError):
            read_patches(tmp_path / "b.json")


def test_text_that_only_a_later_patch_has_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"voxel_size_nm": [35, 32, 32], "patch_vox": [1, 4, 4], "classes": ["debris"], "patches": ['
        '{"start": [0, 0, 0], "labels": {"debris": "yes"}},'
        '{"start": [1, 0, 0], "labels": {}, "annotator": "A", "tissue": "soma"}]}'
    )
    labels = read_patches(tmp_path / "a.json")
    assert labels.labels.tolist() == [[1], [-1]]
    assert labels.columns["tissue"].tolist() == ["", "soma"]
    assert labels.annotators == ("", "A")
