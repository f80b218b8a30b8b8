"""`emloom qc`: planted defects are found under their names, clean sections are left alone, later stages obey."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.tables import read_table
from emloom.io.volume import Kind, VolumeInfo
from emloom.run.cluster import executor_of
from emloom.tasks import qcpatch
from emloom.tasks.qc import QcReport, quality_control
from emloom.tasks.qcmask import is_qc, open_usable
from emloom.tasks.qcreport import write_qc_report
from emloom.tasks.qcspec import CODES, DEFECTS, NAMES, QcSpec
from emloom.testing.phantom import Phantom, PhantomSpec
from tests.planted import PLANTS, Plant, blurred, crack, fold, missing, unlike

SECTIONS = PhantomSpec(
    shape=(15, 512, 512), voxel_size_nm=(25.0, 5.0, 5.0), neurite_nm=300.0, noise=9.0, section_jitter=3.0, seed=6
)
GRID = Grid(SECTIONS.voxel_size_nm, (80.0, 8.0, 12.0))
Z = 7
MOST_FALSE_TILES = 0.02  # phantoms are less even than tissue: of 11 840 tiles of real stacks none is flagged


def stored(path: Path, array: NDArray[Any], grid: Grid = GRID, kind: Kind = "raw") -> str:
    info = VolumeInfo(array.shape, array.dtype, grid, kind=kind, chunks=(8, 64, 64))
    create_volume(path, info).write(info.box, array)
    return str(path)


@pytest.fixture(scope="session")
def tissue() -> NDArray[np.uint8]:
    """A stack with room around it, so that what is moved comes from somewhere."""
    raw = Phantom(SECTIONS).raw
    return raw.read(raw.info.box)


def looked_at(folder: Path, array: NDArray[Any], grid: Grid = GRID, **more: Any) -> QcReport:
    raw = str(folder / "raw.zarr")
    if not Path(raw).exists():
        stored(folder / "raw.zarr", array, grid)
    return quality_control(QcSpec.from_dict({"raw": raw, "output": str(folder / "qc"), **more}, "qc"))


def flags_of(found: QcReport) -> dict[int, list[str]]:
    return {z: [flag.defect for flag in flags] for z, flags in found.worst()}


def read(folder: Path, name: str) -> NDArray[Any]:
    volume = open_volume(folder / "qc" / name)
    return volume.read(volume.info.box)


def everything(folder: Path) -> dict[str, bytes]:
    """Return what a run wrote, but for times."""
    files = [
        p for p in (folder / "qc").rglob("*") if p.is_file() and "run" not in p.relative_to(folder / "qc").parts
    ]
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in files
        if p.name not in ("provenance.json", "report.html")
    }


# ---- what is found ----


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_defect_is_found_under_its_name_and_nothing_else(
    plant: Plant, tissue: NDArray[np.uint8], tmp_path: Path
) -> None:
    array = tissue.copy()
    plant(array, Z, np.random.default_rng(2))
    found = looked_at(tmp_path, array)
    assert PLANTS[plant] in flags_of(found)[Z]
    assert set(flags_of(found)) == {Z}
    flag = next(flag for flag in found.flags if flag.defect == PLANTS[plant])
    assert flag.severity >= 1
    code = read(tmp_path, "map.zarr/code")
    # Of several the worst is written; a jump is between sections.
    assert (code[Z] == min(CODES[flag.defect] for flag in found.flags)).any() or PLANTS[plant] == "jump"
    assert np.count_nonzero(np.delete(code, Z, axis=0)) <= MOST_FALSE_TILES * code.size


@pytest.mark.parametrize("spec", [
    PhantomSpec.sections((12, 384, 384), seed=11), PhantomSpec.sections((12, 384, 384), seed=12),
    PhantomSpec.isotropic((24, 256, 256), seed=13),
], ids=str)  # fmt: skip
def test_clean_sections_are_left_alone(spec: PhantomSpec, tmp_path: Path) -> None:
    raw = Phantom(spec).raw
    found = looked_at(tmp_path, raw.read(raw.info.box), raw.info.grid)
    assert not found.flags
    assert not found.notes
    assert sum(found.tiles.values()) <= MOST_FALSE_TILES * read(tmp_path, "map.zarr/code").size
    assert found.masked == np.count_nonzero(read(tmp_path, "mask.zarr"))


def test_neighbours_of_bad_sections_are_judged_across_them(tissue: NDArray[np.uint8], tmp_path: Path) -> None:
    array, rng = tissue.copy(), np.random.default_rng(0)
    for z in (3, 4, 8):
        missing(array, z, rng)
    unlike(array, 10, rng)
    unlike(array, 0, rng)
    assert flags_of(looked_at(tmp_path, array)) == {
        3: ["blank"],
        4: ["blank"],
        8: ["blank"],
        10: ["unlike"],
        0: ["unlike"],
    }


def test_a_bad_place_is_found_in_its_tiles(tissue: NDArray[np.uint8], tmp_path: Path) -> None:
    array, rng = tissue.copy(), np.random.default_rng(0)
    place, soft = np.s_[Z, 128:320, 64:256], tissue.copy()
    blurred(soft, Z, rng)
    array[place] = soft[place]
    array[11, 128:256, 128:256] = 77
    found = looked_at(tmp_path, array)
    code, score = read(tmp_path, "map.zarr/code"), read(tmp_path, "map.zarr/score")
    inside = np.zeros(code.shape, np.bool_)
    inside[Z, 2:5, 1:4] = True
    assert np.count_nonzero(code[inside] == CODES["blurred"]) >= 4
    np.testing.assert_array_equal(code[11, 2:4, 2:4], CODES["blank"])
    np.testing.assert_array_equal(score[code > 0] >= 128, True)
    inside[11, 2:4, 2:4] = True
    assert np.count_nonzero(code[~inside]) <= MOST_FALSE_TILES * code.size
    mask, info = read(tmp_path, "mask.zarr"), open_volume(tmp_path / "qc" / "mask.zarr").info
    np.testing.assert_array_equal(mask[11, 128:256, 128:256], CODES["blank"])
    assert (info.shape, info.grid, info.kind) == (array.shape, GRID, "mask")
    assert found.masked == np.count_nonzero(mask)
    assert open_volume(tmp_path / "qc" / "map.zarr" / "code").info.grid == Grid(
        (25.0, 320.0, 320.0), GRID.offset_nm
    )


@pytest.mark.parametrize(("times", "more"), [(64, 512), (16, 30_000)])
def test_grey_scales_do_not_matter(times: int, more: int, tissue: NDArray[np.uint8], tmp_path: Path) -> None:
    array, rng = tissue.copy(), np.random.default_rng(4)
    for plant, z in ((missing, 3), (fold, 5), (crack, 8), (blurred, 10), (unlike, 12)):
        plant(array, z, rng)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    wide = array.astype(np.uint16) * np.uint16(times) + np.uint16(more)
    one, other = looked_at(tmp_path / "a", array), looked_at(tmp_path / "b", wide)
    assert flags_of(one) == flags_of(other)
    assert set(flags_of(one)) == {3, 5, 8, 10, 12}
    np.testing.assert_array_equal(read(tmp_path / "a", "map.zarr/code"), read(tmp_path / "b", "map.zarr/code"))


# ---- blocks, interruptions ----


def damaged(tissue: NDArray[np.uint8]) -> NDArray[np.uint8]:
    array, rng = tissue[:, :430, :490].copy(), np.random.default_rng(4)
    for plant, z in ((missing, 3), (fold, 6), (crack, 9), (blurred, 12)):
        plant(array, z, rng)
    return array


def test_blocks_along_z_do_not_matter(
    tissue: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qcpatch, "PATCH", 256)
    stored(tmp_path / "raw.zarr", damaged(tissue))
    expected: dict[str, Any] = {}
    for depth in (64, 4, 5):
        for module in ("qcpatch", "qcsections", "qcmap", "qcpaint"):
            monkeypatch.setattr(f"emloom.tasks.{module}.DEPTH", depth)
        found = quality_control(QcSpec(raw=str(tmp_path / "raw.zarr"), output=str(tmp_path / str(depth))))
        got = {"flags": [str(flag) for flag in found.flags], "tiles": found.tiles, "masked": found.masked}
        for name in ("measure/tiles.zarr", "map.zarr/code", "map.zarr/score", "mask.zarr"):
            volume = open_volume(tmp_path / str(depth) / name)
            got[name] = volume.read(volume.info.box)
        expected = expected or got
        np.testing.assert_equal(got, expected)
    assert all(name in str(expected["flags"]) for name in ("blank", "crack", "blurred"))


def test_sums_of_patches_are_those_of_the_section(
    tissue: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = damaged(tissue)
    one = looked_at(tmp_path, array).table
    monkeypatch.setattr(qcpatch, "PATCH", 128)
    other = quality_control(QcSpec(raw=str(tmp_path / "raw.zarr"), output=str(tmp_path / "small"))).table
    for name in ("void", "saturated", "median", "contrast", "sharpness", "differing"):
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    known = [section[np.repeat(np.repeat(w, 4, 0), 4, 1)[: section.shape[0], : section.shape[1]] == 0]
             for section, w in ((s, qcpatch.sections.void_windows(s)) for s in array)]  # fmt: skip
    expected = [np.percentile(k, 50, method="inverted_cdf") if k.size else np.nan for k in known]
    np.testing.assert_array_equal(one["median"], expected)


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    tissue: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("qcpatch", "qcsections", "qcmap", "qcpaint"):
        monkeypatch.setattr(f"emloom.tasks.{module}.DEPTH", 4)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    spec = {"raw": stored(tmp_path / "raw.zarr", damaged(tissue))}
    quality_control(QcSpec(**spec, output=str(tmp_path / "a" / "qc")))
    stages: list[str] = []
    for _ in range(40):
        before: dict[str, int] = {}

        def tell(stage: str, done: int, total: int, before: dict[str, int] = before) -> None:
            stages.append(stage)
            if done > before.setdefault(stage, done) and done < total:
                raise KeyboardInterrupt

        assert not is_qc(str(tmp_path / "b" / "qc")) or not (tmp_path / "b" / "qc" / "qc.json").exists()
        try:
            quality_control(QcSpec(**spec, output=str(tmp_path / "b" / "qc")), on_block=tell)
            break
        except KeyboardInterrupt:
            continue
    assert {"measure", "sections", "usual", "map.zarr", "mask.zarr"} <= set(stages)
    assert len(stages) > 20
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


def test_other_rules_judge_what_was_measured(tissue: NDArray[np.uint8], tmp_path: Path) -> None:
    array = damaged(tissue)
    looked_at(tmp_path, array)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "qc" / "measure").rglob("*")}
    found = looked_at(tmp_path, array, rules={"loss": 0.01}, masked=["crack"])
    assert "blurred" not in {flag.defect for flag in found.flags}
    assert set(np.unique(read(tmp_path, "mask.zarr"))) == {0, CODES["crack"]}
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "qc" / "measure").rglob("*")}


def test_workers_find_the_same(tissue: NDArray[np.uint8], tmp_path: Path) -> None:
    spec = {"raw": stored(tmp_path / "raw.zarr", damaged(tissue))}
    one = quality_control(QcSpec(**spec, output=str(tmp_path / "one")))
    with executor_of(2) as executor:
        two = quality_control(QcSpec(**spec, output=str(tmp_path / "two")), executor)
    assert str(one.flags) == str(two.flags)
    for name in ("sections.parquet", "sections.csv", "qc.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert pickle.loads(pickle.dumps(one.stack)) == one.stack
    assert len(pickle.dumps(one.stack)) < 1000, "what is open does not travel"


# ---- what is written ----


def test_tables_page_and_summary_tell_the_same(tissue: NDArray[np.uint8], tmp_path: Path) -> None:
    found = looked_at(tmp_path, damaged(tissue))
    summary = json.loads((tmp_path / "qc" / "qc.json").read_text())
    assert summary["defects"] == dict.fromkeys(("blank", "fold", "crack", "blurred"), 1)
    assert [f["z"] for f in summary["flags"]] == [3, 6, 9, 12]
    table = read_table(tmp_path / "qc" / "sections.parquet")
    assert table["defects"].tolist() == [
        "",
        "",
        "",
        "blank",
        "",
        "",
        "fold",
        "",
        "",
        "crack",
        "",
        "",
        "blurred",
        "",
        "",
    ]
    code = read(tmp_path, "map.zarr/code")
    np.testing.assert_array_equal(table["bad_tiles"], np.count_nonzero(code, axis=(1, 2)))
    assert (tmp_path / "qc" / "sections.csv").read_text().count("\n") == 16
    spec = QcSpec(raw=str(tmp_path / "raw.zarr"), output=str(tmp_path / "qc"))
    page = write_qc_report(spec, found).read_text(encoding="utf-8")
    for words in ("Section 12. blurred: sharpness", "of 15", "Worst sections", "fold"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("<script") == 1


def test_codes_are_one_to_one() -> None:
    assert sorted(NAMES) == list(range(1, len(DEFECTS) + 1))


def test_what_is_outside_and_what_a_detector_says_go_into_the_mask(
    tissue: NDArray[np.uint8], tmp_path: Path
) -> None:
    inside = np.zeros(tissue.shape, np.uint8)
    inside[:, 20:300, :350] = 1
    # Patches of 96 voxels, the first of which begins 10 voxels inside the stack.
    says = np.zeros((15, 3, 3), np.uint8)
    says[4, 1, 2] = 200
    start = GRID.to_world((0, 10, 10))
    extra = {
        "mask": stored(tmp_path / "inside.zarr", inside, kind="mask"),
        "artifacts": {
            "path": stored(tmp_path / "says.zarr", says, Grid((25.0, 480.0, 480.0), start), "probabilities")
        },
    }
    looked_at(tmp_path, tissue, **extra)
    mask, code = read(tmp_path, "mask.zarr"), read(tmp_path, "map.zarr/code")
    np.testing.assert_array_equal(mask == CODES["outside"], inside == 0)
    centres = np.arange(8) * 64 + 32
    y, x = (((centres - 10) // 96 == k) & (centres >= 10) for k in (1, 2))
    np.testing.assert_array_equal(code[4] == CODES["artifact"], np.outer(y, x))
    np.testing.assert_array_equal(mask[4, 20:300, :350] == CODES["artifact"], (
        np.repeat(np.repeat(np.outer(y, x), 64, 0), 64, 1)[20:300, :350]
    ))  # fmt: skip


# ---- input that does not fit ----


def test_one_section_says_what_was_not_looked_for(tissue: NDArray[np.uint8], tmp_path: Path) -> None:
    array = tissue[:1].copy()
    crack(array, 0, np.random.default_rng(0))
    found = looked_at(tmp_path, array)
    assert flags_of(found) == {0: ["crack"]}
    assert found.notes[0].startswith("1 section: rules that compare sections need 3")
    write_qc_report(QcSpec(raw=str(tmp_path / "raw.zarr"), output=str(tmp_path / "qc")), found)


def test_nothing_but_one_value_is_blank(tmp_path: Path) -> None:
    found = looked_at(tmp_path, np.full((4, 70, 90), 9, np.uint8))
    assert flags_of(found) == {z: ["blank"] for z in range(4)}
    assert read(tmp_path, "mask.zarr").min() == CODES["blank"]
    write_qc_report(QcSpec(raw=str(tmp_path / "raw.zarr"), output=str(tmp_path / "qc")), found)


def test_sections_that_have_nothing_in_common_are_not_all_flagged(tmp_path: Path) -> None:
    found = looked_at(tmp_path, np.random.default_rng(0).integers(0, 256, (9, 130, 130), np.uint8))
    assert "align the stack first" in found.notes[0]
    assert not {"unlike", "jump", "shifted"} & {flag.defect for flag in found.flags}


@pytest.mark.parametrize("shape", [(3, 5, 7), (4, 65, 129), (3, 2, 300), (5, 1, 1)])
def test_odd_shapes_are_looked_at(shape: tuple[int, int, int], tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 4000, shape).astype(np.int16)
    found = looked_at(tmp_path, array)
    assert read(tmp_path, "mask.zarr").shape == shape
    write_qc_report(QcSpec(raw=str(tmp_path / "raw.zarr"), output=str(tmp_path / "qc")), found)


def test_what_cannot_be_counted_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float32: quality control counts grey values of 8 or 16 bits"):
        looked_at(tmp_path, np.zeros((3, 20, 20), np.float32))
    info = VolumeInfo((3, 20, 20), np.dtype(np.uint8), GRID, channels=2, kind="raw")
    create_volume(tmp_path / "two.zarr", info)
    with pytest.raises(InputError, match="has 2 channels"):
        quality_control(QcSpec(raw=str(tmp_path / "two.zarr"), output=str(tmp_path / "qc")))
    assert not (tmp_path / "qc").exists()
    grey = stored(tmp_path / "grey.zarr", np.zeros((3, 20, 20), np.uint8))
    mask = stored(tmp_path / "m.zarr", np.zeros((3, 20, 21), np.uint8), kind="mask")
    with pytest.raises(InputError, match="is not on the grid"):
        quality_control(QcSpec(raw=grey, output=str(tmp_path / "qc"), mask=mask))


def test_an_unfinished_mask_is_not_taken_for_whole(tissue: NDArray[np.uint8], tmp_path: Path) -> None:
    looked_at(tmp_path, damaged(tissue))
    folder = str(tmp_path / "qc")
    usable, mask = open_usable(folder), read(tmp_path, "mask.zarr")
    np.testing.assert_array_equal(usable.read(usable.info.box), mask == 0)
    box = Box((2, 30, 40), (9, 100, 200))
    np.testing.assert_array_equal(usable.read(box), mask[box.slices()] == 0)
    (tmp_path / "qc" / "qc.json").unlink()
    with pytest.raises(InputError, match="not finished: run the same `emloom qc` again"):
        open_usable(folder)
