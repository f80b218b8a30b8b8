"""`emloom check` of painted pieces: what is painted where, what is rare, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emloom.tasks.check import check_semantic
from emloom.tasks.checktraining import Finding
from emloom.tasks.data import StackSpec, open_stack
from emloom.tasks.semantic import SemanticJob
from emloom.tasks.sparsecheck import check_sparse
from tests.tasks.painting import CLASSES, job, painted, plane, save, truth, write_planes, write_raw


def findings(folder: Path, labels: dict[str, Any]) -> list[Finding]:
    pieces = [{**piece, "image": str(folder / piece["image"])} for piece in labels["pieces"]]
    asked = job(f"{folder}/raw.h5/raw", {**labels, "pieces": pieces})
    spec = StackSpec.model_validate(asked["data"][0])
    return list(check_sparse(open_stack(spec, SemanticJob.from_dict(asked).objective.classes)))


def texts(found: list[Finding], what: str) -> list[str]:
    return [f"{each.level}: {each.text}" for each in found if each.what == what]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_raw(tmp_path)
    return tmp_path


def test_every_piece_is_counted_and_undefined_interfaces_are_warned_of(folder: Path) -> None:
    found = findings(folder, write_planes(folder))
    said = texts(found, "labels")
    assert len(said) == 6
    image = painted()[6]
    counts = ", ".join(f"{name} {int((image == value).sum()):,}" for name, value in CLASSES.items())
    assert said[0] == f"ok: xy (training): {counts}; undefined {(image == 0).mean():.1%} of 2,688 voxels"
    assert said[3].startswith("ok: val (validation): ")
    assert said[4].startswith("ok: t1 (test): ")
    (interfaces,) = texts(found, "interfaces")
    assert interfaces.startswith("warning: 100% of the voxels at interfaces between classes are undefined")
    assert "scores will be optimistic" in interfaces


def test_planes_that_are_painted_up_to_their_interfaces_are_fine(folder: Path) -> None:
    labels = write_planes(folder)
    for piece in labels["pieces"]:
        z, y, x = (slice(None),) * 3
        at = {"xy": (6, y, x), "xz": (z, 4, x), "yz": (z, y, 8), "val": (34, slice(8, None), slice(12, None))}
        at |= {"t1": (20, slice(20, None), slice(20, None)), "t2": (slice(14, 28), 28, slice(20, None))}
        save(folder / piece["image"], truth()[at[piece["name"]]])
    assert texts(findings(folder, labels), "interfaces")[0].startswith("ok: 0% of the voxels at interfaces")


def test_rare_and_missing_classes_are_named(folder: Path) -> None:
    labels = write_planes(folder)
    for name, where in (("xy", (6,)), ("xz", (slice(None), 4)), ("yz", (slice(None), slice(None), 8))):
        values = painted()[where]
        values[values == CLASSES["bright"]] = 0
        if name == "xy":
            values[0, :3] = CLASSES["bright"]
        save(folder / f"{name}.png", values)
    labels["overlaps"] = "unknown"
    said = texts(findings(folder, labels), "classes")
    assert said[0].startswith("warning: ")
    assert "rare are bright (3): paint more of them first" in said[0]
    values = np.array(painted()[6])
    values[values == CLASSES["bright"]] = 0
    save(folder / "xy.png", values)
    assert texts(findings(folder, labels), "classes") == [
        "error: no piece that is learned from has a voxel of bright: hold out fewer pieces"
    ]


def test_contradictions_are_a_warning_where_they_are_unknown(folder: Path) -> None:
    labels = write_planes(folder)
    other = painted()[:, 4]
    other[6, other[6] == CLASSES["dark"]] = CLASSES["bright"]
    save(folder / "xz.png", other)
    labels["overlaps"] = "unknown"
    n = int((painted()[6, 4] == CLASSES["dark"]).sum())
    assert n > 0
    assert f"warning: xy and xz contradict each other at {n} voxels, which count as unknown" in texts(
        findings(folder, labels), "labels"
    )


def test_a_whole_job_passes_the_check(folder: Path) -> None:
    labels = write_planes(folder)
    labels["pieces"].append(plane("more", save(folder / "m.png", painted()[30]), "z", 30))
    pieces = [{**piece, "image": str(folder / piece["image"])} for piece in labels["pieces"]]
    found = check_semantic(SemanticJob.from_dict(job(f"{folder}/raw.h5/raw", {**labels, "pieces": pieces})))
    assert not [each.text for each in found if each.level == "error"]
    assert {each.what for each in found} >= {
        "labels",
        "classes",
        "interfaces",
        "split",
        "sampling",
        "parity",
        "cost",
    }
