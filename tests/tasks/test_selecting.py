"""What a person gets of candidates: table, tracing, sheets and page; the margin of pictures is nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry.patchtracings import answer_in, starts_of
from emloom.io.nml import read_nml_tracing
from emloom.io.open import create_volume, open_volume
from emloom.io.patchtables import read_patches, write_patches
from emloom.io.volume import VolumeInfo
from emloom.tasks import patchsheets
from emloom.tasks.selecting import SelectSpec, select
from tests.tasks.labelling import CLASSES, SHAPE, lattice, table, write_map, write_noise

LOGITS = np.random.default_rng(3).normal(0, 3, (6, 10, 12))


def spec(folder: Path, **changes: Any) -> SelectSpec:
    if not (folder / "raw.zarr").exists():
        write_noise(folder / "raw.zarr")
        write_map(folder / "map.zarr", LOGITS)
    given = {
        "map": str(folder / "map.zarr"),
        "raw": str(folder / "raw.zarr"),
        "output": str(folder / "out"),
        "question": {"how": "positive", "count": 7},
        "patch_vox": SHAPE,
        "margin_vox": 3,
        "classes": CLASSES,
    }
    return SelectSpec.from_dict(given | changes)


def test_the_folder_holds_the_same_patches_in_every_form(tmp_path: Path) -> None:
    found = select(spec(tmp_path))
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"candidates.csv", "candidates.nml", "index.html", "sheet.png"}
    on_disk = read_patches(out / "candidates.csv")
    assert on_disk.starts.tolist() == found.patches.starts.tolist()
    assert len(on_disk) == 7
    assert (on_disk.labels == -1).all()
    assert on_disk.classes == CLASSES
    scores = [float(text) for text in on_disk.columns["score"]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 0.5
    tracing = read_nml_tracing(out / "candidates.nml")
    assert starts_of(tracing, np.arange(7), on_disk.grid, on_disk.shape).tolist() == on_disk.starts.tolist()
    assert tracing.skeletons.names[2] == "patch 3, debris: ?, myelin: ?"
    page = (out / "index.html").read_text()
    assert page.count("data:image/png") == 1
    for start in on_disk.starts.tolist():
        assert re.search(r"<td[^>]*>\s*" + r"</td>\s*<td[^>]*>\s*".join(map(str, start)), page)


@pytest.mark.parametrize("margin", [0, 3, 35])
def test_the_margin_of_pictures_is_in_pictures_only(tmp_path: Path, margin: int) -> None:
    """In genEM3 the 35 px shown around a patch of 140 leaked into the boxes of its data sources."""
    select(spec(tmp_path, margin_vox=margin))
    found = read_patches(tmp_path / "out" / "candidates.csv")
    assert found.shape == SHAPE
    skeletons = read_nml_tracing(tmp_path / "out" / "candidates.nml").skeletons
    for row, box in enumerate(found.boxes()):
        own = skeletons.positions_nm[skeletons.skeletons == row]
        np.testing.assert_allclose(own.min(axis=0), found.grid.to_world(box.start))
        np.testing.assert_allclose(np.ptp(own, axis=0), [0, 8 * 32, 8 * 32])
    other = tmp_path / "other"
    other.mkdir()
    select(spec(other, margin_vox=margin + 1))
    for name in ("candidates.csv", "candidates.nml"):
        assert (tmp_path / "out" / name).read_bytes() == (other / "out" / name).read_bytes()
    sizes = [iio.imread(folder / "out" / "sheet.png").shape for folder in (tmp_path, other)]
    if margin == 35:
        assert sizes[0] != sizes[1]


def test_contradictions_are_questions(tmp_path: Path) -> None:
    places = np.argwhere(np.ones(LOGITS.shape, bool))[200:700:9]
    starts = [
        (z, y, x) for z, y, x in lattice().starts_of(places).tolist() if min(y, x) >= 0 and y <= 32 and x <= 40
    ]
    labels = table(starts, [[k % 2, -1] for k in range(len(starts))], "ada")
    write_patches(tmp_path / "labels.csv", labels)
    question = {"how": "wrong", "count": 5}
    changes = {"labels": str(tmp_path / "labels.csv"), "question": question, "patch_vox": None, "classes": ()}
    found = select(spec(tmp_path, **changes))
    names = read_nml_tracing(tmp_path / "out" / "candidates.nml").skeletons.names
    known = {tuple(s): int(v) for s, v in zip(labels.starts.tolist(), labels.of("debris"), strict=True)}
    for name, start, p in zip(names, found.patches.starts.tolist(), found.patches.columns["score"], strict=True):
        truth = known[tuple(start)]
        words = ["clean", "debris"]
        assert name == f"ada: {words[truth]}, model: {words[1 - truth]}, your opinion:"
        assert (float(p) >= 0.5) == (truth == 0)
        assert answer_in(name, CLASSES) == {}
    assert found.patches.classes == CLASSES


def test_many_candidates_fill_several_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchsheets, "_PER_SHEET", 3)
    select(spec(tmp_path))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [f"sheet-{k}.png" for k in (1, 2, 3)]


def test_what_cannot_be_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    info = VolumeInfo((6, 40, 48), np.dtype(np.uint8), open_volume(spec(tmp_path).raw).info.grid, 2, kind="raw")
    create_volume(tmp_path / "two.zarr", info)
    write_patches(tmp_path / "labels.csv", table([(0, 0, 0)], [[1, 0]]))
    for changes, rule in (
        ({"output": str(tmp_path / "there")}, "already exists"),
        ({"map": str(tmp_path / "raw.zarr")}, "holds logits or probabilities"),
        ({"raw": str(tmp_path / "two.zarr")}, "2 channels"),
        ({"question": {"how": "positive", "threshold": 0.9999999}}, "no patch to look at"),
        ({"question": {"how": "wrong"}}, "give a table"),
        ({"labels": str(tmp_path / "labels.csv"), "patch_vox": (1, 4, 4)}, "leave that out"),
        ({"question": {"how": "wrng"}}, "how"),
        ({"question": {"how": "random", "threshold": 1}}, "threshold"),
    ):
        with pytest.raises(InputError, match=rule):
            select(spec(tmp_path, **changes))
    assert not (tmp_path / "out").exists()
