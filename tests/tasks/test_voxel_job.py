"""A semantic job with a centre-voxel network, from check to scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from emloom.tasks.check import check_semantic
from emloom.tasks.semantic import STAGES
from tests.tasks.test_semantic import did, job, scores, write_stack

TRAINING = {
    "steps": 60,
    "crop_shape_vox": [1, 10, 10],
    "batch_size": 3,
    "optimizer": {"learning_rate": 0.01},
    "validate_every": 30,
    "augment": {"noise": 0.0, "intensity": {"contrast": [1, 1], "brightness": [0, 0], "gamma": [1, 1]}},
}


def test_stripes_are_told_apart_voxel_by_voxel(tmp_path: Path) -> None:
    network = {"kind": "voxel_net", "backbone": "3_layer@8", "odd": True}
    made = job(write_stack(tmp_path / "stack.h5"), network=network, training=TRAINING)
    assert did(made, tmp_path / "out") == list(STAGES)
    assert min(row["iou"] for row in scores(tmp_path / "out")["classes"]) > 0.8


@pytest.mark.parametrize("backbone", ["4_conv_ln@32", "4_conv_resnet@16"])
def test_the_check_answers_for_single_voxels(tmp_path: Path, backbone: str) -> None:
    network = {"kind": "voxel_net", "backbone": backbone}
    made = job(
        write_stack(tmp_path / "stack.h5"), network=network, training=TRAINING | {"crop_shape_vox": [1, 1, 1]}
    )
    found = {finding.what: finding for finding in check_semantic(made)}
    assert found["parity"].level == "ok"
    assert found["cost"].level == "ok"
