"""Recipes find data under EMLOOM_DATA first, then in the cache of downloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from emloom.errors import InputError
from emloom.recipes.paths import data_file


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data", "cache"):
        (tmp_path / name / "cremi_a").mkdir(parents=True)
        monkeypatch.setenv(f"EMLOOM_{name.upper()}", str(tmp_path / name))


def test_emloom_data_comes_before_the_cache(tmp_path: Path) -> None:
    (tmp_path / "cache" / "cremi_a" / "raw.h5").touch()
    assert data_file("cremi_a/raw.h5") == tmp_path / "cache" / "cremi_a" / "raw.h5"
    (tmp_path / "data" / "cremi_a" / "raw.h5").touch()
    assert data_file("cremi_a/raw.h5") == tmp_path / "data" / "cremi_a" / "raw.h5"


def test_a_folder_given_by_name_is_the_only_place(tmp_path: Path) -> None:
    (tmp_path / "cache" / "cremi_a" / "raw.h5").touch()
    with pytest.raises(InputError, match=r"mine/cremi_a/raw\.h5 was not found"):
        data_file("cremi_a/raw.h5", str(tmp_path / "mine"))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("cremi_a/sample_A_20160501.hdf", "; or run `emloom data fetch cremi_a`"),
        ("snemi3d/crop512_z00-29.h5", "(the public set it was cut from: `emloom data fetch snemi3d`)"),
        ("unknown/raw.h5", "pass data=FOLDER"),
    ],
)
def test_what_is_missing_names_the_way(name: str, way: str) -> None:
    with pytest.raises(InputError) as caught:
        data_file(name)
    assert str(caught.value).endswith(way)
