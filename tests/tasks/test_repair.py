"""Repaired stacks: what was good is kept to the bit, what was made says so, blocks and crashes leave no trace."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.planar import IDENTITY, Pieces, Shift
from emloom.geometry.stackmap import Frame, StackMap
from emloom.io.open import create_volume, open_volume
from emloom.io.stackmaps import read_stackmap, write_stackmap
from emloom.io.volume import VolumeInfo
from emloom.ops.interpolate import between, nearest_between
from emloom.ops.opticalflow import flow_between
from emloom.run.cluster import executor_of
from emloom.tasks.qc import quality_control
from emloom.tasks.qcmask import open_avoid
from emloom.tasks.qcspec import QcSpec
from emloom.tasks.repair import repair
from emloom.tasks.repairfill import read_flow
from emloom.tasks.repairspec import BETWEEN, BEYOND, GAP, LEFT, MEASURED, REPLACED, RepairJob
from emloom.tasks.resume import result_status, retry

GRID = Grid((40.0, 5.0, 5.0), (400.0, 50.0, 0.0))
SHAPE = (11, 96, 110)
BLANK = (0, 4, 7, 8)
VOLUMES = ("raw.zarr", "invented.zarr", "labels.zarr")
CELL = (5, 96, 64)


def tissue(shape: tuple[int, ...] = SHAPE) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Return a stack whose structures drift from section to section, and ids of its regions."""
    rng = np.random.default_rng(4)
    smooth = sum(
        image / image.std() for image in (gaussian_filter(rng.normal(size=shape), (s / 2, s, s)) for s in (3, 6))
    )
    raw = np.clip(128 + 32 * smooth + rng.normal(0, 3, shape), 1, 254).astype(np.uint8)
    ids = (np.digitize(gaussian_filter(rng.normal(size=shape), (2, 8, 8)), [-0.02, 0, 0.02]) + 2**40).astype(
        np.uint64
    )
    return raw, ids


def store(path: Path, array: NDArray[Any], kind: Any = "raw", grid: Grid = GRID) -> str:
    z, y, x = array.shape
    info = VolumeInfo((z, y, x), array.dtype, grid, kind=kind)
    create_volume(path, info).write(info.box, array)
    return str(path)


def voxels(path: Path | str) -> NDArray[Any]:
    volume = open_volume(path)
    return volume.read(volume.info.box)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sections.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack with four blank sections, labels, and its quality control."""
    folder = tmp_path_factory.mktemp("stack")
    raw, ids = tissue()
    store(folder / "whole.zarr", raw)
    raw[list(BLANK)] = 0
    store(folder / "raw.zarr", raw)
    store(folder / "ids.zarr", ids, "labels")
    quality_control(
        QcSpec(raw=str(folder / "raw.zarr"), output=str(folder / "qc"), tile_vox=16, masked=("blank",))
    )
    return folder


@pytest.fixture(autouse=True, scope="module")
def without_pages() -> Iterator[None]:
    """Leave out the pages: they have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emloom.tasks.repair.write_repair_report", lambda folder: folder)
        yield


def job(stack: Path, output: Path, **more: Any) -> RepairJob:
    words: dict[str, Any] = {
        "raw": f"{stack}/raw.zarr",
        "qc": f"{stack}/qc",
        "output": str(output),
        "labels": f"{stack}/ids.zarr",
        "cell_shape_vox": CELL,
    }
    return RepairJob.from_dict(words | more)


@pytest.fixture(scope="module")
def fixed(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repair(job(stack, tmp_path_factory.mktemp("out") / "fixed"))


def test_what_is_made_is_what_the_record_says(stack: Path, fixed: Path) -> None:
    raw, ids, seen = (voxels(stack / n) for n in ("raw.zarr", "ids.zarr", "whole.zarr"))
    grey, codes, labels = (voxels(fixed / n) for n in ("raw.zarr", "invented.zarr", "labels.zarr"))
    flow = {
        z: flow_between(raw[a], raw[b], t) for z, a, b, t in ((4, 3, 5, 0.5), (7, 6, 9, 1 / 3), (8, 6, 9, 2 / 3))
    }
    np.testing.assert_array_equal(grey[0], raw[1])
    assert (codes[0] == REPLACED).all()
    for z, a, b, t in ((4, 3, 5, 0.5), (7, 6, 9, 1 / 3), (8, 6, 9, 2 / 3)):
        found, before, after, at = read_flow(fixed, z)
        assert (before, after, at) == (a, b, pytest.approx(t))
        assert found == flow[z]
        np.testing.assert_array_equal(grey[z], between(raw[a], raw[b], found, at))
        np.testing.assert_array_equal(labels[z], nearest_between(ids[a], ids[b], found, at))
        assert (codes[z] == BETWEEN).mean() > 0.999
        assert (
            np.corrcoef(grey[z].ravel(), seen[z].ravel())[0, 1]
            > np.corrcoef(raw[a].ravel(), seen[z].ravel())[0, 1]
        )
    whole = [z for z in range(SHAPE[0]) if z not in BLANK]
    np.testing.assert_array_equal(grey[whole], raw[whole])
    np.testing.assert_array_equal(labels[whole], ids[whole])
    assert not codes[whole].any()
    assert (labels[0] == ids[1]).all()


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack with a torn section, whose right part moved, repaired with its labels."""
    folder = tmp_path_factory.mktemp("torn")
    raw, ids = tissue((3, 360, 460))
    store(folder / "whole.zarr", raw)
    store(folder / "whole_ids.zarr", ids, "labels")
    for section in (raw[1], ids[1]):
        section[:-6, 225:-9] = section[6:, 234:]
        section[-6:, 225:] = section[:, -9:] = 0
        section[:, 210:225] = 0
    store(folder / "raw.zarr", raw)
    store(folder / "ids.zarr", ids, "labels")
    repair(job(folder, folder / "fixed", qc=None, sections={"look": False, "cracked": [1]}))
    return folder


def test_a_torn_section_is_put_together_and_its_gap_filled(torn: Path) -> None:
    raw, ids = (voxels(torn / n)[1] for n in ("whole.zarr", "whole_ids.zarr"))
    grey, codes, labels = (voxels(torn / "fixed" / n)[1] for n in VOLUMES)
    gap = codes == GAP
    assert gap[20:-20, 213:231].mean() > 0.95
    assert not gap[:, :180].any()
    assert not gap[20:-20, 265:440].any()
    assert np.corrcoef(grey[20:-20, 211:233].ravel(), raw[20:-20, 211:233].ravel())[0, 1] > 0.6
    inner = np.zeros_like(gap)
    inner[20:-20, 20:-20] = codes[20:-20, 20:-20] == MEASURED
    assert inner.mean() > 0.6
    assert np.abs(grey[inner].astype(float) - raw[inner]).mean() < 5
    assert (labels == ids)[inner].mean() > 0.97
    assert (labels == ids)[20:-20, 211:233].mean() > 0.7
    (row,) = (row for row in rows(torn / "fixed") if row["state"] != "measured")
    assert (row["z"], row["state"], row["bad"], row["reason"], row["parts"]) == ("1", "mended", "0", "crack", "2")
    assert 0.05 < float(row["gap"]) < 0.15
    assert float(row["invented"]) == pytest.approx((codes != 0).mean())


def test_what_was_measured_goes_back_and_a_gap_has_no_source(torn: Path) -> None:
    move = read_stackmap(torn / "fixed").map(1)
    assert isinstance(move, Pieces)
    np.testing.assert_allclose(move(np.array([[100.5, 60.5]])), [[100.5, 60.5]], atol=0.7)
    np.testing.assert_allclose(move(np.array([[100.5, 340.5]])), [[106.5, 349.5]], atol=0.7)
    middle = np.stack(np.meshgrid(np.arange(30, 330), np.arange(217, 227), indexing="ij"), -1).reshape(-1, 2) + 0.5
    assert np.isnan(move.inverse()(middle)).all()


def test_a_section_in_which_no_crack_is_found_stays_as_it_is(tmp_path: Path) -> None:
    raw, _ = tissue((3, 96, 110))
    path = store(tmp_path / "raw.zarr", raw)
    out = repair(RepairJob(raw=path, output=str(tmp_path / "o"), sections={"look": False, "cracked": (1,)}))
    np.testing.assert_array_equal(voxels(out / "raw.zarr"), raw)
    assert not voxels(out / "invented.zarr").any()
    assert read_stackmap(out).map(1) == IDENTITY
    row = rows(out)[1]
    assert (row["state"], row["bad"]) == ("measured", "0")
    assert "no crack was found" in row["note"]
    assert json.loads((out / "repair.json").read_text())["states"] == {"measured": 3}


def test_a_crack_too_short_to_close_is_left_masked_and_told(tmp_path: Path) -> None:
    raw, _ = tissue((5, 360, 460))
    raw[2, :126, 210:220] = 0
    path = store(tmp_path / "raw.zarr", raw)
    out = repair(RepairJob(raw=path, output=str(tmp_path / "o")))
    assert "crack" in rows(out / "qc")[2]["defects"]
    row = rows(out)[2]
    assert (row["state"], row["bad"]) == ("measured", "0")
    assert "sees a crack" in row["note"]
    assert (voxels(out / "invented.zarr")[2, 5:120, 212:219] == LEFT).mean() > 0.9
    (note,) = json.loads((out / "repair.json").read_text())["notes"]
    assert note.startswith("section 2: quality control sees a crack")


def test_what_cannot_be_put_together_is_left_and_its_void_is_marked(tmp_path: Path) -> None:
    raw, _ = tissue((3, 150, 200))
    raw[1] = np.random.default_rng(1).integers(1, 255, raw[1].shape)
    raw[1, :, 90:110] = 0
    path = store(tmp_path / "raw.zarr", raw)
    out = repair(RepairJob(raw=path, output=str(tmp_path / "o"), sections={"look": False, "cracked": (1,)}))
    np.testing.assert_array_equal(voxels(out / "raw.zarr"), raw)
    codes = voxels(out / "invented.zarr")
    assert (codes[1, :, 92:108] == LEFT).all()
    assert not codes[1, :, :80].any()
    assert not codes[[0, 2]].any()
    assert rows(out)[1]["state"] == "left"
    assert rows(out)[1]["note"].startswith("not mended: 2 parts")


def test_the_map_keeps_replaced_sections_at_home(stack: Path, fixed: Path) -> None:
    stackmap = read_stackmap(fixed)
    assert stackmap.source == stackmap.target == Frame(SHAPE, GRID)
    for z in range(SHAPE[0]):
        assert stackmap.home(z) == z
        assert stackmap.map(z) == IDENTITY


def test_the_tables_say_what_was_done(fixed: Path) -> None:
    table = rows(fixed)
    codes = voxels(fixed / "invented.zarr")
    assert [int(row["z"]) for row in table] == list(range(SHAPE[0]))
    states = {int(row["z"]): row["state"] for row in table if row["state"] != "measured"}
    assert states == {0: "replaced", 4: "between", 7: "between", 8: "between"}
    assert [int(row["bad"]) for row in table] == [int(z in BLANK) for z in range(SHAPE[0])]
    assert [row["reason"] for row in table if row["bad"] == "1"] == ["blank"] * 4
    for row in table:
        assert float(row["invented"]) == pytest.approx((codes[int(row["z"])] != 0).mean())
    summary = json.loads((fixed / "repair.json").read_text())
    assert summary["states"] == {"between": 3, "measured": 7, "replaced": 1}
    assert summary["invented_voxels"] == {
        str(c): int((codes == c).sum()) for c in (1, 2, 3, 4) if (codes == c).any()
    }
    assert summary["bad"] == list(BLANK)
    assert any("section 0: no whole section on both sides" in note for note in summary["notes"])
    assert (fixed / "provenance.json").is_file()


@pytest.mark.parametrize("cell", [(64, 512, 512), (4, 40, 110)])
def test_blocks_leave_no_trace(cell: tuple[int, int, int], stack: Path, fixed: Path, tmp_path: Path) -> None:
    other = repair(job(stack, tmp_path / "o", cell_shape_vox=cell))
    for name in VOLUMES:
        np.testing.assert_array_equal(voxels(other / name), voxels(fixed / name))
    assert rows(other) == rows(fixed)


def test_workers_leave_no_trace(stack: Path, fixed: Path, tmp_path: Path) -> None:
    with executor_of(2, None, 600) as executor:
        other = repair(job(stack, tmp_path / "o"), executor)
    for name in VOLUMES:
        np.testing.assert_array_equal(voxels(other / name), voxels(fixed / name))


@pytest.mark.parametrize(("stage", "at"), [("fills", 2), ("repair", 4)])
def test_a_crash_leaves_no_trace(stage: str, at: int, stack: Path, fixed: Path, tmp_path: Path) -> None:
    def killed(name: str, done: int, _: int) -> None:
        if (name, done) == (stage, at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(job(stack, tmp_path / "o"), on_block=killed)
    assert not (tmp_path / "o").exists()
    if stage == "repair":
        with pytest.raises(InputError, match="not finished"):
            open_avoid(str(tmp_path / "o.unfinished"))
    assert retry(tmp_path / "o") == tmp_path / "o"
    for name in VOLUMES:
        np.testing.assert_array_equal(voxels(tmp_path / "o" / name), voxels(fixed / name))
    assert result_status(tmp_path / "o", look=True).is_well


def test_damage_is_found_and_made_again(stack: Path, tmp_path: Path) -> None:
    out = repair(job(stack, tmp_path / "o"))
    before = voxels(out / "raw.zarr")
    volume = open_volume(out / "raw.zarr", writable=True)
    volume.write(volume.info.box, np.zeros_like(before))
    assert not result_status(out, look=True).is_well
    retry(out, look=True)
    np.testing.assert_array_equal(voxels(out / "raw.zarr"), before)


def test_sections_may_be_copied_or_only_marked(stack: Path, tmp_path: Path) -> None:
    raw, ids = voxels(stack / "raw.zarr"), voxels(stack / "ids.zarr")
    out = repair(job(stack, tmp_path / "nearest", fill="nearest", sections={}))
    grey, codes, labels = (voxels(out / n) for n in VOLUMES)
    for z, good in ((0, 1), (4, 3), (7, 6), (8, 9)):
        np.testing.assert_array_equal(grey[z], raw[good])
        np.testing.assert_array_equal(labels[z], ids[good])
        assert (codes[z] == REPLACED).all()
    out = repair(job(stack, tmp_path / "mask", fill="mask", sections={}))
    grey, codes, labels = (voxels(out / n) for n in VOLUMES)
    for z in BLANK:
        np.testing.assert_array_equal(grey[z], raw[z])
        assert (codes[z] == LEFT).all()
        assert (labels[z] == ids[z]).all()


def test_without_a_folder_of_qc_it_is_made(stack: Path, fixed: Path, tmp_path: Path) -> None:
    out = repair(job(stack, tmp_path / "o", qc=None, labels=None))
    assert (out / "qc" / "qc.json").is_file()
    assert not (out / "labels.zarr").exists()
    whole = [z for z in range(SHAPE[0]) if z not in BLANK]
    np.testing.assert_array_equal(voxels(out / "raw.zarr")[whole], voxels(fixed / "raw.zarr")[whole])
    assert [row["state"] for row in rows(out)] == [row["state"] for row in rows(fixed)]
    # Nobody looks: only what is named is repaired.
    out = repair(job(stack, tmp_path / "n", qc=None, labels=None, sections={"look": False, "bad": [4]}))
    codes = voxels(out / "invented.zarr")
    assert not (out / "qc").exists()
    assert (codes[4] == BETWEEN).mean() > 0.999
    assert not np.delete(codes, 4, 0).any()


def test_a_person_has_the_last_word(stack: Path, tmp_path: Path) -> None:
    raw = voxels(stack / "raw.zarr")
    out = repair(job(stack, tmp_path / "o", sections={"bad": [2], "good": [4, 7, 8]}))
    grey, codes = voxels(out / "raw.zarr"), voxels(out / "invented.zarr")
    assert (codes[2] == BETWEEN).mean() > 0.999
    for z in (4, 7, 8):
        np.testing.assert_array_equal(grey[z], raw[z])
        assert not codes[z].any()


def test_what_is_bad_in_a_good_section_stays_marked(stack: Path, tmp_path: Path) -> None:
    raw = voxels(stack / "whole.zarr")
    raw[5, 32:64, 48:80] = 0
    path = store(tmp_path / "raw.zarr", raw)
    quality_control(QcSpec(raw=path, output=str(tmp_path / "qc"), tile_vox=16))
    out = repair(RepairJob(raw=path, qc=str(tmp_path / "qc"), output=str(tmp_path / "o"), sections={"bad": (6,)}))
    grey, codes = voxels(out / "raw.zarr"), voxels(out / "invented.zarr")
    assert (codes[5, 32:64, 48:80] == LEFT).all()
    np.testing.assert_array_equal(grey[5], raw[5])
    # The neighbour is made of the other one there.
    assert grey[6, 40:56, 56:72].min() > 0
    assert (codes[6] == BETWEEN).all()


def test_the_map_of_an_alignment_goes_first(stack: Path, tmp_path: Path) -> None:
    raw = voxels(stack / "raw.zarr")
    store(tmp_path / "aligned" / "raw.zarr", raw)
    beyond = np.zeros(SHAPE, np.uint8)
    beyond[:, :, :9] = 1
    store(tmp_path / "aligned" / "outside.zarr", beyond, "mask")
    source = Frame((13, 100, 100), Grid((40.0, 5.0, 5.0), (0.0, 0.0, 0.0)))
    maps = [Shift(z, -z) for z in range(SHAPE[0])]
    aligned = StackMap.of(source, Frame(SHAPE, GRID), maps, range(1, 12))
    write_stackmap(tmp_path / "aligned" / "map", aligned)
    bad = "".join(f"{z},{int(z == 2)},no overlap\n" for z in range(SHAPE[0]))
    (tmp_path / "aligned" / "sections.csv").write_text(f"z,bad,reason\n{bad}", encoding="utf-8")
    words = {"raw": str(tmp_path / "aligned"), "labels": None}
    with pytest.raises(InputError, match=r"emloom align.* again"):
        repair(job(stack, tmp_path / "o", **words))
    (tmp_path / "aligned" / "align.json").write_text("{}", encoding="utf-8")
    out = repair(job(stack, tmp_path / "o", **words))
    whole = read_stackmap(out)
    assert whole.source == source
    assert whole.target == Frame(SHAPE, GRID)
    points = source.grid.to_world((5.5, 40.0, 50.0))
    np.testing.assert_allclose(whole.moved([points]), aligned.moved([points]))
    assert [int(row["z"]) for row in rows(out) if row["reason"] == "no overlap"] == [2]
    kept = [int(row["z"]) for row in rows(out) if row["state"] == "measured"]
    assert kept
    assert (voxels(out / "invented.zarr")[kept][:, :, :9] == BEYOND).all()
    assert not (voxels(out / "invented.zarr")[:, :, 9:] == BEYOND).any()
    with pytest.raises(InputError, match="repaired already"):
        repair(job(stack, tmp_path / "p", raw=str(out), labels=None))


def test_bad_input(stack: Path, tmp_path: Path) -> None:
    def refused(match: str, **more: Any) -> None:
        with pytest.raises(InputError, match=match):
            repair(job(stack, tmp_path / "o", **more))
        assert not (tmp_path / "o").exists()

    refused("section 11 is named bad", sections={"bad": [11]})
    refused("named good, and bad", sections={"bad": [2], "good": [2]})
    refused("does not exist", raw=f"{tmp_path}/absent.zarr")
    refused("no folder of `emloom qc`", qc=str(stack / "ids.zarr"))
    raw, ids = tissue((3, 40, 40))
    small = store(tmp_path / "small.zarr", ids, "labels")
    refused("not on the grid", labels=small)
    refused("labels are zyx ids", labels=store(tmp_path / "float.zarr", np.zeros(SHAPE, np.float32), "labels"))
    refused("only", raw=store(tmp_path / "wide.zarr", np.zeros((11, 140, 150), np.uint8)), labels=None)
    floats = store(tmp_path / "f.zarr", raw.astype(np.float32))
    refused("pass --no-look", raw=floats, qc=None, labels=None, sections={})
    one = store(tmp_path / "one.zarr", raw[:1])
    refused("all 1 sections", raw=one, qc=None, labels=None, sections={"bad": [0], "look": False})
    blank = store(tmp_path / "blank.zarr", np.zeros((4, 64, 64), np.uint8))
    with pytest.raises(InputError, match="all 4 sections"):
        repair(job(stack, tmp_path / "p", raw=blank, qc=None, labels=None, sections={}))


def test_a_single_good_section_and_floats_stay_as_they_are(tmp_path: Path) -> None:
    raw = tissue((3, 40, 40))[0].astype(np.float32)
    path = store(tmp_path / "f.zarr", raw)
    out = repair(RepairJob(raw=path, output=str(tmp_path / "o"), sections={"look": False, "bad": (1,)}))
    found = voxels(out / "raw.zarr")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[[0, 2]], raw[[0, 2]])
    assert raw.min() <= found[1].min()
    assert found[1].max() <= raw.max()
    path = store(tmp_path / "one.zarr", np.rint(raw[:1]).astype(np.uint8))
    out = repair(RepairJob(raw=path, output=str(tmp_path / "p")))
    np.testing.assert_array_equal(voxels(out / "raw.zarr"), voxels(path))
    assert not voxels(out / "invented.zarr").any()
