"""Data-source files of genEM3: both forms, and the mistakes that were made with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.lattice import Lattice
from emloom.io.patchjson import (
    PatchSource,
    patches_of_sources,
    read_sources,
    renumbered,
    sources_of_patches,
    write_sources,
)
from tests.geometry.patchmaking import random_labels
from tests.geometry.strategies import vectors

LATTICE = Lattice((1, 140, 140), (1, 140, 140))
SIZE = (35, 32, 32)

numbers = st.none() | st.floats(-1e3, 1e3)
boxes = st.builds(Box, vectors(-50, 50), vectors(1, 50))
one_source = st.builds(
    PatchSource,
    st.just(""),
    st.sampled_from(["color/1", "/elsewhere/color/8-8-1"]),
    boxes,
    numbers,
    numbers,
    st.lists(st.sampled_from([0.0, 1.0]), max_size=2).map(tuple),
    st.none() | st.just("target/1"),
    st.none() | boxes,
    st.none() | st.booleans(),
)


@pytest.mark.parametrize("short", [True, False])
@given(sources=st.lists(one_source, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_what_is_written_is_read_back(tmp_path: Path, short: bool, sources: list[PatchSource]) -> None:
    numbered = renumbered(sources)
    path = tmp_path / "sources.json"
    write_sources(path, numbered, short=short, overwrite=True)
    assert read_sources(path) == numbered


def test_the_short_form_says_once_what_all_share(tmp_path: Path) -> None:
    sources = [
        PatchSource(str(k), "color/1", Box((k, 0, 0), (1, 140, 140)), 148.0, 36.0, (1.0,)) for k in range(3)
    ]
    write_sources(tmp_path / "a.json", sources)
    tree = json.loads((tmp_path / "a.json").read_text())
    assert tree["shared_properties"] == {
        "input_path": "color/1",
        "input_mean": 148.0,
        "input_std": 36.0,
        "target_class": 1.0,
    }
    assert tree["datasource_1"] == {"id": "1", "input_bbox": [0, 0, 1, 140, 140, 1]}


def written(tmp_path: Path, **values: Any) -> Path:
    source = {"id": "7", "input_path": "color/1", "input_bbox": [10, 20, 30, 140, 140, 1], **values}
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"datasource_7": source}))
    return path


def test_the_text_nan_is_no_value(tmp_path: Path) -> None:
    """It passed for one: 'NaN' is true, and so every absent field was taken as given."""
    absent = {"input_mean": "NaN", "input_std": float("nan"), "target_path": "NaN", "target_bbox": "NaN"}
    (source,) = read_sources(written(tmp_path, **absent, target_class="NaN", target_binary="NaN"))
    assert source == PatchSource("7", "color/1", Box((30, 20, 10), (1, 140, 140)))


def test_boxes_larger_than_a_patch_hold_a_lattice(tmp_path: Path) -> None:
    """With other extents along y than along x, which the originals' numbering of cubes mixed up."""
    (source,) = read_sources(written(tmp_path, input_bbox=[1, 2, 3, 140 * 3 + 10, 140 * 2, 4], target_class=0.0))
    found = patches_of_sources([source], LATTICE, voxel_size_nm=SIZE)
    assert found.starts.tolist() == [
        [3 + z, 2 + y, 1 + x] for z in range(4) for y in (0, 140) for x in (0, 140, 280)
    ]
    dense = patches_of_sources([source], Lattice((1, 140, 140), (1, 35, 35)), voxel_size_nm=SIZE)
    assert len(dense) == 4 * 5 * 9
    assert (dense.classes, set(dense.labels.reshape(-1).tolist())) == (("debris",), {0})


def test_the_margin_that_was_shown_is_cut_off(tmp_path: Path) -> None:
    """Boxes came back from annotation with 35 px around the patch, and were trained on shifted by them."""
    path = written(tmp_path, input_bbox=[10 - 35, 20 - 35, 30, 210, 210, 1], target_class=[1.0, 0.0])
    found = patches_of_sources(read_sources(path), LATTICE, voxel_size_nm=SIZE, margin_vox=(0, 35, 35))
    assert found.starts.tolist() == [[30, 20, 10]]
    assert found.labels.tolist() == [[1, 0]]
    with pytest.raises(InputError, match="does not hold a patch"):
        patches_of_sources(read_sources(path), LATTICE, voxel_size_nm=SIZE, margin_vox=(0, 36, 36))


def test_one_target_among_pairs_leaves_the_other_unknown() -> None:
    a = PatchSource("0", "c", Box((0, 0, 0), (1, 140, 140)), target=(1.0,))
    b = PatchSource("1", "c", Box((1, 0, 0), (1, 140, 140)), target=(0.0, 1.0))
    found = patches_of_sources([a, b], LATTICE, voxel_size_nm=SIZE)
    assert found.classes == ("debris", "myelin")
    assert found.labels.tolist() == [[1, -1], [0, 1]]
    assert found.columns["source"].tolist() == ["0", "1"]
    twice = patches_of_sources([a, replace(a, id="9"), b], LATTICE, voxel_size_nm=SIZE)
    assert twice.columns["source"].tolist() == ["0", "1"]


@given(st.integers(0, 10**6))
def test_patches_become_sources_and_patches_again(seed: int) -> None:
    labels = random_labels(seed).consensus()
    known = labels.taken((labels.labels >= 0).all(axis=1))
    if not len(known):
        return
    again = patches_of_sources(
        sources_of_patches(known, "color/1"), Lattice(known.shape, (1, 1, 1)), voxel_size_nm=SIZE
    )
    assert np.array_equal(again.starts, known.starts)
    assert np.array_equal(again.labels, known.labels)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"input_bbox": [1, 2, 3]}, "give \\[x, y, z"),
        ({"input_bbox": [1, 2, 3, 4.5, 5, 6]}, "whole number"),
        ({"input_bbox": "NaN"}, "no input_bbox"),
        ({"target_class": "debris"}, "give a number"),
        ({"target_binary": 2}, "target_binary=2"),
        ({"input_mean": "148"}, "mean or standard"),
        ({"colour": 1}, "has colour"),
    ],
)
def test_values_of_another_kind_are_refused(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_sources(written(tmp_path, **values))


def test_what_makes_no_labels_is_refused(tmp_path: Path) -> None:
    a = PatchSource("0", "c", Box((0, 0, 0), (1, 140, 140)), target=(1.0,))
    for others, words in (
        ([replace(a, id="1", target=(0.0,))], "sources 0 and 1 say different"),
        ([replace(a, id="1", image="d")], "2 images"),
        ([replace(a, id="1", target=(0.5,))], r"target \[0.5\]"),
        ([replace(a, id="1", by_class=False, target_path="t")], "image of targets"),
        ([replace(a, id="1", target=(0.0, 0.0, 1.0))], "3 targets"),
        ([replace(a, id="1", box=Box((0, 0, 0), (1, 100, 140)))], "does not hold"),
    ):
        with pytest.raises(InputError, match=words):
            patches_of_sources([a, *others], LATTICE, voxel_size_nm=SIZE)
    twice = random_labels(1, span=1)
    with pytest.raises(InputError, match="has a patch twice"):
        sources_of_patches(replace(twice, labels=np.ones((len(twice), 2), np.int8)), "c")
    with pytest.raises(InputError, match="says yes or no"):
        sources_of_patches(random_labels(1).consensus(), "c")
    with pytest.raises(InputError, match="two sources have one id"):
        write_sources(tmp_path / "x.json", [a, a])
    (tmp_path / "y.json").write_text('{"datasource_0": {"id": "1"}, "other": {}}')
    with pytest.raises(InputError, match="no data-source file"):
        read_sources(tmp_path / "y.json")
