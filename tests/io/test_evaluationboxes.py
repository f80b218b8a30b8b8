"""Evaluation boxes: written as the originals', read as they were meant, and all that can be mistyped."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.geometry.tracings import Tracing
from emloom.io.evaluationboxes import (
    box_of_labels,
    is_evaluation_box,
    labels_of_box,
    read_evaluation_box,
    write_evaluation_box,
)
from emloom.io.nml import read_nml_tracing, write_nml
from emloom.io.patchtracings import patches_of_nodes

GRID = Grid((35, 32, 32))


def a_box(seed: int, known: bool = False) -> PatchLabels:
    rng = np.random.default_rng(seed)
    lattice = Lattice((1, int(rng.integers(2, 9)), int(rng.integers(2, 9))), (1, 3, 4), (10, 20, 30))
    starts = lattice.starts(Box.whole(rng.integers(1, 4, 3).tolist()))
    starts = starts[rng.permutation(len(starts))]
    words = rng.integers(0 if known else -1, 2, (len(starts), 1)).astype(np.int8)
    return PatchLabels(GRID, lattice.shape, starts, ("artifact",), words)


def by_place(labels: PatchLabels) -> dict[tuple[int, ...], int]:
    return dict(zip(map(tuple, labels.starts.tolist()), labels.labels[:, 0].tolist(), strict=True))


@given(st.integers(0, 10**6), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_what_is_written_is_read_back(tmp_path: Path, seed: int, known: bool) -> None:
    labels = a_box(seed, known)
    write_evaluation_box(tmp_path / "box.nml", labels, overwrite=True)
    again = read_evaluation_box(tmp_path / "box.nml")
    assert by_place(again) == by_place(labels)
    assert (again.shape, again.grid) == (labels.shape, labels.grid)


@pytest.mark.real_data
def test_the_bottom_box_of_the_originals(real_data: Path) -> None:
    """75 true and 17 missed positives were counted in it, of 1425 patches: 92 positives."""
    path = real_data / "artifacts" / "genEM3_boxes" / "test_bottom.nml"
    labels = read_evaluation_box(path)
    assert (len(labels), labels.shape) == (1425, (1, 140, 140))
    assert int((labels.labels == 1).sum()) == 92 == 75 + 17
    assert int((labels.labels == 0).sum()) == 1333 == 760 + 573
    assert int((labels.columns["explicit"] == "yes").sum()) == 67
    assert labels.annotators == ("Florian Drawitsch",)
    lattice = Lattice((1, 140, 140), (1, 35, 35), (5603, 24926, 29022))
    assert set(map(tuple, labels.starts.tolist())) == set(
        map(tuple, lattice.starts(Box.whole((57, 5, 5))).tolist())
    )


@pytest.mark.real_data
def test_a_box_is_written_as_the_originals_wrote_it(real_data: Path) -> None:
    theirs = read_nml_tracing(real_data / "artifacts" / "genEM3_boxes" / "test_bottom.nml")
    ours = box_of_labels(labels_of_box(theirs))
    assert ours.skeletons.names == theirs.skeletons.names
    assert [(g.id, g.name, g.parent) for g in ours.groups] == [(g.id, g.name, g.parent) for g in theirs.groups]
    assert ours.tree_groups == theirs.tree_groups

    def nodes(tracing: Tracing) -> dict[int, list[float]]:
        s = tracing.skeletons
        return dict(zip(s.node_ids.tolist(), s.positions_nm.tolist(), strict=True))

    def edges(tracing: Tracing) -> set[tuple[int, ...]]:
        s = tracing.skeletons
        return {tuple(sorted(pair)) for pair in s.node_ids[s.edges].tolist()}

    assert nodes(ours) == nodes(theirs)
    assert edges(ours) == edges(theirs)


def renamed(tracing: Tracing, row: int, name: str) -> Tracing:
    names = list(tracing.skeletons.names)
    names[row] = name
    return replace(tracing, skeletons=replace(tracing.skeletons, names=tuple(names)))


def test_a_label_of_a_tree_overrides_that_of_its_section_and_x_inherits() -> None:
    lattice = Lattice((1, 4, 4), (1, 2, 2))
    starts = lattice.starts(Box.whole((2, 1, 2)))
    tracing = box_of_labels(PatchLabels(GRID, (1, 4, 4), starts, ("artifact",), np.full((4, 1), -1, np.int8)))
    assert tracing.skeletons.names == ("patch00.00:X", "patch00.00:X", "patch00.01:X", "patch00.01:X")
    tracing = replace(tracing, groups=(replace(tracing.groups[0], name="plane000:1"), tracing.groups[1]))
    tracing = renamed(renamed(tracing, 2, "patch00.01:0"), 3, "patch00.01: 1 ")
    said = by_place(labels_of_box(tracing))
    assert said == {(0, 0, 0): 1, (0, 0, 2): 0, (1, 0, 0): -1, (1, 0, 2): 1}
    assert labels_of_box(tracing).columns["explicit"].tolist() == ["no", "no", "yes", "yes"]


def test_what_was_mistyped_or_moved_is_named(tmp_path: Path) -> None:
    labels = a_box(3)
    tracing = box_of_labels(labels)
    assert is_evaluation_box(tracing)
    for name, words in (
        ("patch00.00:l", "ends in 'l'"),
        ("patch00.00", "is not called like"),
        ("note", "'note' is not"),
    ):
        with pytest.raises(InputError, match=words):
            labels_of_box(renamed(tracing, 0, name))
    with pytest.raises(InputError, match="ends in '2'"):
        labels_of_box(
            replace(tracing, groups=(replace(tracing.groups[0], name="plane000:2"), *tracing.groups[1:]))
        )
    with pytest.raises(InputError, match="in no group of a section"):
        labels_of_box(replace(tracing, trees=tracing.trees.replaced("groupId", None)))
    moved = tracing.skeletons.positions_nm.copy()
    moved[0] += (0, 32, 0)
    with pytest.raises(InputError, match="a node was moved"):
        labels_of_box(replace(tracing, skeletons=replace(tracing.skeletons, positions_nm=moved)))
    write_nml(tmp_path / "t.nml", tracing)
    with pytest.raises(InputError, match="already exists"):
        write_evaluation_box(tmp_path / "t.nml", labels)
    for wrong, words in (
        (replace(labels, shape=(2, 4, 4)), "each in one section"),
        (replace(labels, grid=Grid((35, 32, 32), (0, 0, 5))), "offset"),
        (labels.taken(np.zeros(0, np.int64)), "has 0 patches"),
    ):
        with pytest.raises(InputError, match=words):
            box_of_labels(wrong)


NODES = """<things>
  <meta name="username" content="Somebody"/>
  <parameters><scale x="32.0" y="32.0" z="35.0"/></parameters>
  <thing id="1" name="Fold 1" groupId="1"><nodes><node id="1" x="200" y="300" z="5"/></nodes><edges/></thing>
  <thing id="2" name="002" groupId="2"><nodes><node id="2" x="201" y="300" z="5"/></nodes><edges/></thing>
  <thing id="3" name="003"><nodes><node id="3" x="202" y="300" z="5"/>{more}</nodes><edges/></thing>
  <groups><group id="1" name="circular"/><group id="2" name="clean"/></groups>
</things>"""


def test_trees_of_one_node_mark_the_centre_of_a_patch(tmp_path: Path) -> None:
    path = tmp_path / "nodes.nml"
    path.write_text(NODES.format(more=""))
    tracing = read_nml_tracing(path)
    found = patches_of_nodes(tracing, (1, 140, 141))
    assert found.starts.tolist() == [[5, 230, 130], [5, 230, 131], [5, 230, 132]]
    assert found.centres.tolist() == [[5, 300, 200], [5, 300, 201], [5, 300, 202]]
    assert found.labels.tolist() == [[1]] * 3
    assert found.annotators == ("Somebody",)
    assert found.columns["group"].tolist() == ["circular", "clean", ""]
    several = patches_of_nodes(tracing, (1, 140, 140), classes={"fold": "^fold", "clean": "^clean$"}, unmatched=0)
    assert several.labels.tolist() == [[1, 0], [0, 1], [0, 0]]
    with pytest.raises(InputError, match="is none"):
        patches_of_nodes(tracing, (1, 140, 140), classes={"fold": "("})
    with pytest.raises(InputError, match="cannot mean 1"):
        patches_of_nodes(tracing, (1, 140, 140), unmatched=1)
    path.write_text(NODES.format(more='<node id="4" x="1" y="1" z="1"/>'))
    with pytest.raises(InputError, match=re.escape("tree 3 '003' has 2 nodes")):
        patches_of_nodes(read_nml_tracing(path), (1, 140, 140))


@pytest.mark.real_data
def test_the_training_positives_of_the_originals(real_data: Path) -> None:
    """600 trees of one node each, on 518 sections; some say in their name what they are."""
    path = real_data / "artifacts" / "genEM3_annotations" / "artefact_trainingData.nml"
    found = patches_of_nodes(
        read_nml_tracing(path), (1, 140, 140), classes={"artifact": "", "scratch": "scrat?s?ch"}
    )
    assert len(found) == 600
    assert len(np.unique(found.starts[:, 0])) == 518
    assert int((found.of("scratch") == 1).sum()) == 7
