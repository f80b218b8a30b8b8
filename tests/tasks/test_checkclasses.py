"""What `emloom check` says of the labels of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from emloom.geometry import Box, Grid
from emloom.io.open import open_volume
from emloom.io.volume import ArrayVolume
from emloom.nn.crops import TrainingVolume
from emloom.nn.objectives.semantic import SemanticObjective
from emloom.ops.classsets import set_label
from emloom.tasks import checkclasses
from emloom.tasks.check import check_semantic
from emloom.tasks.checkclasses import census, class_findings
from emloom.tasks.semantic import SemanticJob, open_stacks, training_volumes
from tests.tasks import painting
from tests.tasks.test_semantic import job, write_stack

GRID = Grid((10.0, 10.0, 10.0))
SHAPE = (4, 12, 12)


def objective(**named: list[int]) -> SemanticObjective:
    return SemanticObjective.from_dict({"classes": [{"name": name, "ids": ids} for name, ids in named.items()]})


def volume(labels: np.ndarray, **more: object) -> TrainingVolume:
    raw = ArrayVolume(np.zeros(labels.shape, np.uint8), GRID)
    return TrainingVolume(raw, ArrayVolume(labels, GRID, "labels"), raw.info.box, **more)


def test_only_what_training_may_see_is_counted(monkeypatch):
    monkeypatch.setattr(checkclasses, "_CELL", (3, 5, 7))
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 3, 9], np.uint64), SHAPE)
    labels[1] = np.where(labels[1] == 3, set_label([0, 1]), labels[1])
    known = np.random.default_rng(1).random(SHAPE) < 0.7
    held = Box((0, 0, 0), (4, 5, 6))
    seen = known.copy()
    seen[held.slices()] = False
    mask = ArrayVolume(known.astype(np.uint8), GRID)
    found = census(objective(a=[1], b=[2, 3], c=[4]), [volume(labels, mask=mask, held_out=(held,))])
    assert found.voxels.tolist() == [(labels[seen] == 1).sum(), np.isin(labels[seen], [2, 3]).sum(), 0]
    assert found.sets == (labels[seen] == set_label([0, 1])).sum() > 0
    assert found.unnamed == {0: (labels[seen] == 0).sum(), 9: (labels[seen] == 9).sum()}


def test_classes_without_labels_and_labels_without_class_are_named():
    labels = np.full(SHAPE, 1, np.uint8)
    labels[0], labels[1, 0, :3] = 0, (17, 18, 18)
    absent, unnamed, shares = class_findings(objective(a=[1], b=[5, 6], c=[7]), [volume(labels)])
    assert (absent.level, unnamed.level, shares.level) == ("error", "warning", "ok")
    assert "no voxel of b (5, 6); c (7) in array" in absent.text
    assert "labels of no class, besides 0, are 0.52% of the voxels: 18 (0.35%), 17 (0.17%)" in unnamed.text
    assert "class_weights" not in shares.text


def test_sets_of_classes_that_are_not_there_are_an_error():
    labels = np.full(SHAPE, set_label([0, 4]), np.uint64)
    (finding,) = class_findings(objective(a=[1], b=[2]), [volume(labels)])
    assert finding.level == "error"
    assert "set of the classes (0, 4), and there are 2" in finding.text


def test_of_a_large_volume_the_middle_is_looked_at(monkeypatch):
    monkeypatch.setattr(checkclasses, "_MOST_VOXELS", 100)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 6, 6], labels[0, 0, 0] = 1, 2
    absent, shares = class_findings(objective(a=[1], b=[2]), [volume(labels)])
    assert absent.level == "warning"
    assert shares.text.startswith("in the middle, 1 voxels of known class: a 100.00%")


def test_painted_planes_are_counted_wherever_they_lie(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(checkclasses, "_MOST_VOXELS", 100)  # planes are found without a look at the rest
    monkeypatch.setattr(checkclasses, "_CELL", (8, 16, 16))
    raw, labels = painting.write_raw(tmp_path), tmp_path / "labels.yaml"
    labels.write_text(yaml.safe_dump(painting.write_planes(tmp_path)))
    made = SemanticJob.from_dict(painting.job(raw, str(labels)))
    (drawn,) = training_volumes(made, open_stacks(made))
    found = census(made.objective, [drawn])
    painted, seen = painting.painted(), np.zeros(painting.SHAPE, bool)
    seen[6] = seen[:, 4] = seen[:, :, 8] = True
    assert not any(held.meets(Box.whole(painting.SHAPE)) and seen[held.slices()].any() for held in drawn.hidden)
    for held in drawn.held_out:
        seen[held.intersect(Box.whole(painting.SHAPE)).slices()] = False
    assert found.voxels.tolist() == [(painted[seen] == value).sum() for value in painting.CLASSES.values()]
    assert found.whole
    assert not any(found.unnamed)


def test_check_lists_the_shares_and_weights_of_a_job(tmp_path: Path):
    said = [finding.text for finding in check_semantic(job(write_stack(tmp_path / "stack.h5")))]
    assert not any("labels of no class" in text for text in said)  # they lie in a test box
    (shares,) = (text for text in said if "voxels of known class" in text)
    assert "dark 3" in shares
    assert "class_weights: [" in shares


@pytest.mark.parametrize("named", [{"inside": [255], "mito": [191]}])
def test_real_labels_with_more_values_than_classes(real_data, named):
    path = real_data / "vnc_sstem" / "stack1_z00-14.h5" / "volumes"
    raw, labels = (open_volume(path / name) for name in ("raw", "labels/classes"))
    region = Box((0, 0, 0), (2, 1024, 1024))
    unnamed, shares = class_findings(objective(**named), [TrainingVolume(raw, labels, region)])
    assert "labels of no class" in unnamed.text
    assert "128 (" in unnamed.text
    assert "inside 9" in shares.text
