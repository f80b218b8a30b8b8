"""Masks of single classes become one volume of classes, the same in one block and in many."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from scipy import ndimage
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.nn.objectives.semantic import SemanticObjective
from emloom.run.verify import status
from emloom.tasks import combinemasks
from emloom.tasks.combinemasks import combine_masks
from emloom.tasks.combinespec import CombineJob
from emloom.tasks.resume import result_status, retry

SHAPE = (5, 40, 36)


def smooth(seed: int, share: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), (2, 4, 4))
    return noise > np.quantile(noise, 1 - share)


MITO = smooth(0, 0.5)
RIM = MITO & ~ndimage.binary_erosion(MITO, np.ones((1, 9, 9)), border_value=1)
WALL = smooth(1, 0.2)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    path = tmp_path / "masks.h5"
    blurred = ndimage.uniform_filter(255.0 * WALL, (1, 3, 3)).astype(np.uint8)
    arrays = {
        "mito": MITO.astype(np.uint8) * 255,
        "rim": RIM.astype(np.uint8),
        "wall": WALL.astype(np.uint8) * 255,
        "blurred": blurred,
        "empty": np.zeros(SHAPE, np.uint8),
        "classes": np.select([RIM, MITO, WALL], [96, 191, 32], 255).astype(np.uint8),
        "known": (np.indices(SHAPE)[2] > 8).astype(np.uint8),
        "floats": WALL.astype(np.float32),
        "short": WALL[:4].astype(np.uint8),
    }
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
            file[name].attrs["resolution"] = (40.0, 5.0, 5.0)
        file["coarse"] = WALL.astype(np.uint8)
        file["coarse"].attrs["resolution"] = (40.0, 8.0, 8.0)
    return path


def job(masks: Path, **changes: Any) -> CombineJob:
    names = ("rim", "mito", "wall")
    said: dict[str, Any] = {
        "classes": [{"name": name, "mask": str(masks / name)} for name in names],
        "rest": {"name": "cytoplasm"},
        "output": str(masks.parent / "out.zarr"),
    }
    return CombineJob.from_dict(said | changes)


def whole(path: str) -> np.ndarray:
    volume = open_volume(path)
    return volume.read(volume.info.box)


def expected(reach: int, in_plane: bool = True) -> np.ndarray:
    """Written another way: the largest and the smallest class within the reach differ."""
    codes = np.where(RIM, 1, np.where(MITO, 2, np.where(WALL, 3, 4))).astype(np.uint8)
    z, y, x = np.indices((2 * reach + 1,) * 3) - reach
    ball = (z**2 + y**2 + x**2 <= reach**2) & ((z == 0) | (not in_plane))
    low, high = (
        f(codes, footprint=ball, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    return np.where(low == high, codes, 0)


# ---- what comes out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [(64, 512, 512), (3, 16, 20)])
@pytest.mark.parametrize("band", [{}, {"reach_vox": 0}, {"reach_vox": 2}, {"reach_vox": 2, "in_plane": False}])
def test_blocks_give_what_the_whole_gives(masks, cell, band, monkeypatch):
    monkeypatch.setattr(combinemasks, "CELL", cell)
    found = combine_masks(job(masks, band=band))
    codes = expected(band.get("reach_vox", 1), band.get("in_plane", True))
    assert np.array_equal(whole(found.path), codes)
    assert found.counts == {name: int((codes == i).sum()) for name, i in found.ids.items()}
    assert found.undefined == int((codes == 0).sum())
    assert found.voxels == codes.size
    assert found.painted == {"rim": int(RIM.sum()), "mito": int(MITO.sum()), "wall": int(WALL.sum())}
    info = open_volume(found.path).info
    assert (info.kind, info.dtype, info.grid.voxel_size_nm) == ("labels", np.uint8, (40.0, 5.0, 5.0))


def test_names_and_ids_are_the_classes_of_a_semantic_job(masks):
    classes = [
        {"name": "wall", "mask": str(masks / "wall"), "id": 9},
        {"name": "rim", "mask": str(masks / "rim"), "id": 2},
    ]
    said = job(masks, classes=classes, rest={"name": "cytoplasm", "id": 1})
    found = combine_masks(said)
    words = yaml.safe_load((Path(found.path).parent / "classes.yaml").read_text())
    objective = SemanticObjective.from_dict(words)
    assert objective.names == ("cytoplasm", "rim", "wall")
    assert objective == SemanticObjective.from_dict({"classes": said.objective_classes})
    codes = whole(found.path)
    assert np.array_equal(objective.of_labels(codes), np.select([codes == i for i in (1, 2, 9)], [0, 1, 2], 255))


def test_smoothed_masks_are_cut_where_one_says(masks):
    classes = [{"name": "wall", "mask": str(masks / "blurred"), "above": 127}]
    found = combine_masks(job(masks, classes=classes, rest=None, band={"reach_vox": 0}))
    blurred = whole(str(masks / "blurred"))
    assert np.array_equal(whole(found.path), blurred > 127)


def test_without_a_rest_what_no_mask_covers_is_undefined_and_has_no_band(masks):
    found = combine_masks(job(masks, rest=None))
    codes = whole(found.path)
    assert (codes[~(MITO | WALL)] == 0).all()
    alone = WALL & ~ndimage.binary_dilation(MITO, np.ones((1, 3, 3)))
    assert (codes[alone] == 3).all()


def test_where_nobody_looked_is_undefined(masks):
    found = combine_masks(job(masks, known=str(masks / "known"), band={"reach_vox": 0}))
    known = whole(str(masks / "known")) != 0
    assert np.array_equal(whole(found.path), np.where(known, expected(0), 0))


def test_one_volume_may_hold_several_classes(masks):
    path = str(masks / "classes")
    classes = [
        {"name": "mito", "mask": path, "values": [96, 191]},
        {"name": "cell", "mask": path, "values": [255]},
    ]
    with pytest.raises(InputError, match=r"classes holds 32 \(.*%.*which no class lists: add them"):
        combine_masks(job(masks, classes=classes, rest=None))
    found = combine_masks(job(masks, classes=classes, rest=None, undefined=(32,)))
    codes = whole(found.path)
    assert (codes[WALL & ~MITO] == 0).all()
    assert set(np.unique(codes[MITO])) == {0, 1}
    plain = combine_masks(
        job(masks, classes=classes, rest=None, undefined=(32,), band={"reach_vox": 0}), discard=True
    )
    assert np.array_equal(whole(plain.path), np.where(MITO, 1, np.where(WALL, 0, 2)))


def test_unknown_values_are_not_of_the_rest(masks):
    classes = [{"name": "mito", "mask": str(masks / "classes"), "values": [96, 191]}]
    with pytest.raises(InputError, match="cytoplasm: no voxel is left"):
        combine_masks(job(masks, classes=classes, undefined=(32, 255)))
    classes.append({"name": "wall", "mask": str(masks / "wall")})
    found = combine_masks(job(masks, classes=classes, rest=None, undefined=(32, 255), band={"reach_vox": 0}))
    assert np.array_equal(whole(found.path), np.where(MITO, 1, np.where(WALL, 2, 0)))  # a mask may know better


# ---- crashes --------------------------------------------------------------------------------------------------


def test_it_goes_on_where_it_was_killed(masks, monkeypatch):
    monkeypatch.setattr(combinemasks, "CELL", (3, 16, 20))
    done: list[int] = []

    def killed(n: int, _: int) -> None:
        done.append(n)
        if n == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        combine_masks(job(masks), killed)
    assert not (masks.parent / "out.zarr").exists()
    began: list[int] = []
    found = combine_masks(job(masks), lambda n, _: began.append(n))
    assert began[0] == 7
    assert np.array_equal(whole(found.path), expected(1))
    assert combine_masks(job(masks), lambda *_: pytest.fail("it is done already")) == found
    with pytest.raises(InputError, match="belongs to another job"):
        combine_masks(job(masks, band={"reach_vox": 2}))
    assert combine_masks(job(masks, band={"reach_vox": 2}), discard=True).undefined > found.undefined


def test_damage_is_found_and_made_good(masks, monkeypatch):
    monkeypatch.setattr(combinemasks, "CELL", (3, 16, 20))
    found = combine_masks(job(masks))
    folder = Path(found.path).parent
    open_volume(found.path, writable=True).write(Box((0, 0, 0), (1, 1, 1)), np.full((1, 1, 1), 77, np.uint8))
    assert len(result_status(folder, look=True).damages) == 1
    retry(folder, look=True)
    assert np.array_equal(whole(found.path), expected(1))
    assert all(stage.done == stage.total for stage in status(folder))


# ---- what is refused ------------------------------------------------------------------------------------------


def test_all_volumes_that_do_not_fit_are_named_at_once(masks):
    names = ("wall", "short", "coarse", "floats", "missing")
    classes = [{"name": name, "mask": str(masks / name)} for name in names]
    with pytest.raises(InputError) as caught:
        combine_masks(job(masks, classes=classes))
    text = str(caught.value)
    assert text.count("\n  * ") == 4
    for said in (
        r"mask of short: .*\(4, 40, 36\) voxels",
        r"mask of coarse: .*8\.0.* crop or resample",
        "mask of floats: .*float32.* integers",
        "mask of missing: ",
    ):
        assert re.search(said, text), said
    assert not list(masks.parent.glob("out*"))


def test_all_masks_that_cannot_be_are_named_at_once_and_nothing_is_left(masks):
    classes = [
        {"name": "wall", "mask": str(masks / "blurred")},
        {"name": "nothing", "mask": str(masks / "empty")},
        {"name": "mito", "mask": str(masks / "mito")},
        {"name": "rim", "mask": str(masks / "rim")},
    ]
    with pytest.raises(InputError) as caught:
        combine_masks(job(masks, classes=classes))
    text = str(caught.value)
    assert text.count("\n  * ") == 3
    assert "blurred holds 28, 56, 85" in text
    assert "say `above: 127`" in text
    assert "nothing: no voxel of" in text
    assert f"rim: of {RIM.sum()} voxels none is left" in text
    assert not list(masks.parent.glob("out*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rest": {"name": "rim"}}, "the name rim"),
        ({"rest": {"name": "x", "id": 2}}, "the id 2"),
        ({"rest": {"name": "x", "id": 0}}, "greater than or equal to 1"),
        ({"classes": [{"name": "a", "mask": "a", "above": 1, "values": [2]}]}, "keep one"),
        ({"classes": [{"name": "a", "mask": "a", "values": [2]}], "undefined": [2]}, "of a class and undefined"),
        ({"band": {"reach_vox": -1}}, "greater than or equal to 0"),
    ],
)
def test_jobs_that_make_no_sense(masks, changes, message):
    with pytest.raises(InputError, match=message):
        job(masks, **changes)


# ---- the command ----------------------------------------------------------------------------------------------


def test_the_command_takes_masks_by_name_in_order_of_priority(masks, tmp_path):
    run = CliRunner()
    named = [f"{name}={masks / name}" for name in ("rim", "mito", "wall")]
    args = ["combine-masks", *named, "--rest", "cytoplasm", "-o", str(tmp_path / "a.zarr")]
    said = run.invoke(app, [*args, "--band", "2", "--3d"])
    assert said.exit_code == 0, said.output
    assert np.array_equal(whole(str(tmp_path / "a.zarr/classes")), expected(2, in_plane=False))
    counts = json.loads((tmp_path / "a.zarr/counts.json").read_text())
    assert sum(row["voxels"] for row in counts["classes"]) + counts["undefined"] == counts["voxels"]
    settings = tmp_path / "how.yaml"
    settings.write_text(job(masks).to_yaml())
    said = run.invoke(app, ["combine-masks", "--settings", str(settings), "-o", str(tmp_path / "b.zarr")])
    assert said.exit_code == 0, said.output
    assert np.array_equal(whole(str(tmp_path / "b.zarr/classes")), expected(1))
    for wrong, message in (
        (["wall"], "write name=path"),
        (["--above", "3", "--settings", str(settings)], "say `above: 127`"),
    ):
        failed = run.invoke(app, ["combine-masks", *wrong, "-o", str(tmp_path / "c.zarr")])
        assert message in str(failed.exception)


# ---- real masks -----------------------------------------------------------------------------------------------


def test_six_classes_of_the_hippocampus(real_data, tmp_path):
    labels = real_data / "epfl_hippocampus" / "train_z000-019.h5" / "volumes" / "labels"
    names = {
        "synapse": "PSD",
        "vesicle": "vesicles",
        "mito membrane": "mitochondrial_boundaries",
        "mito": "mitochondrion",
        "membrane": "membranes",
    }
    classes = [{"name": name, "mask": str(labels / path)} for name, path in names.items()]
    said = {"classes": classes, "rest": {"name": "cytoplasm"}, "output": str(tmp_path / "six.zarr")}
    found = combine_masks(CombineJob.from_dict(said))
    codes = whole(found.path)
    mito, rim, psd = (whole(str(labels / names[name])) != 0 for name in ("mito", "mito membrane", "synapse"))
    assert not (codes[psd] > 1).any()
    assert (mito & ~rim)[codes == 4].all()
    assert 0.10 < found.undefined / found.voxels < 0.16
    assert (
        found.counts["cytoplasm"] > found.counts["membrane"] > found.counts["mito"] > found.counts["synapse"] > 0
    )
