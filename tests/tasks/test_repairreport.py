"""The page of a repair: what was invented is shown, outlined and said; small for any stack, and it opens."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry.planar import IDENTITY, Chain, Pieces, Shift
from emloom.tasks import repairreport
from emloom.tasks.beforeafter import Window, read_nearest
from emloom.tasks.repair import repair
from emloom.tasks.repairreport import crack_of, parts_of, write_repair_report
from emloom.tasks.repairspec import RepairJob
from emloom.view.repairfigures import torn_section
from tests.browser import chromium_or_skip
from tests.driving import driven
from tests.tasks.aligned import store, write_rows
from tests.tasks.repaired import repaired_folder
from tests.tasks.test_alignreport import tissue

SHAPE = (12, 150, 170)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done") / "fixed"
    repaired_folder(folder, tissue(SHAPE), left=(10,))
    write_repair_report(folder)
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "fixed"))


def test_the_page_says_what_was_done(done: Path) -> None:
    page = (done / "report.html").read_text()
    for words in (
        "Repair of raw.zarr",
        "3 of 12 sections are not as they were.",
        "Note: sections were looked for",
        "Section 3 (blank): interpolated between its neighbours",
        "z = 7, torn: before, its 2 parts, in place, and filled; 2.9 % of what is shown is invented.",
        "Sections side by side: z = 2; bad: z = 3; z = 4; z = 3: invented; what is invented is outlined.",
        "invented.zarr says where",
        "left as it is",
        "data:image/gif;base64,",
        "16.912",  # per cent: two sections, and a gap
    ):
        assert words in page, words
    assert len(page) < 4_000_000


def test_a_real_repair_has_its_page(tmp_path: Path) -> None:
    raw = tissue((6, 96, 96))
    raw[2] = 0
    store(tmp_path / "raw.zarr", raw)
    job = {
        "raw": str(tmp_path / "raw.zarr"),
        "output": str(tmp_path / "fixed"),
        "sections": {"bad": [2], "look": False},
    }
    page = write_repair_report(repair(RepairJob.from_dict(job, "job"))).read_text()
    assert "Section 2 (named by a person): interpolated between its neighbours" in page
    assert ">16.667<" in page  # per cent: one of six
    assert "Everything needed to run this again" in page


def test_nothing_to_repair_is_said(tmp_path: Path) -> None:
    repaired_folder(tmp_path / "fixed", tissue(SHAPE), missing=(), cracked=())
    page = write_repair_report(tmp_path / "fixed").read_text()
    assert "Nothing had to be repaired." in page
    for heading in ("Replaced sections", "Torn sections", "Section after section", "All repaired sections"):
        assert heading not in page


def test_a_folder_of_an_alignment_is_its_raw(folder: Path, tmp_path: Path) -> None:
    summary = json.loads((folder / "repair.json").read_text())
    aligned = tmp_path / "aligned"
    aligned.mkdir()
    shutil.copytree(summary["raw"], aligned / "raw.zarr")
    (aligned / "align.json").write_text("{}")
    (folder / "repair.json").write_text(json.dumps(summary | {"raw": str(aligned)}))
    assert "torn: before, its 2 parts" in write_repair_report(folder).read_text()


def test_of_many_sections_some_are_drawn_and_the_table_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairreport, "LISTED", 4)
    repaired_folder(tmp_path / "fixed", tissue((30, 60, 60)), missing=tuple(range(1, 29, 3)), cracked=())
    page = write_repair_report(tmp_path / "fixed").read_text()
    assert "10 sections were made of the neighbours; 3 of them:" in page
    assert "6 more are in sections.csv" in page
    assert page.count("what is invented is outlined") == 3


def test_large_sections_are_reduced_and_their_gap_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairreport, "SIDE_PX", 60)
    monkeypatch.setattr(repairreport, "_WIDE", 120)
    seen: list[tuple[tuple[int, ...], bool, float]] = []

    def noted(before: Any, parts: Any, after: Any, invented: Any, spacing: Any, **how: Any) -> Any:
        seen.append((before.shape, parts is None, float(spacing[0])))
        assert invented.any()
        assert not invented.all()
        return torn_section(before, parts, after, invented, spacing, **how)

    monkeypatch.setattr(repairreport, "torn_section", noted)
    repaired_folder(tmp_path / "fixed", tissue(SHAPE), missing=())
    write_repair_report(tmp_path / "fixed")
    assert seen == [((60, 60), False, 16.0), ((60, 60), True, 8.0)]


def test_columns_that_are_not_there_are_left_out(folder: Path) -> None:
    with (folder / "sections.csv").open(newline="") as file:
        rows = [{k: row[k] for k in ("z", "home", "state")} for row in csv.DictReader(file)]
    write_rows(folder / "sections.csv", rows)
    summary = json.loads((folder / "repair.json").read_text())
    (folder / "repair.json").write_text(json.dumps({"raw": summary["raw"]}))
    page = write_repair_report(folder).read_text()
    assert "Section 3 (bad)" in page
    assert "not measured, %" not in page


def test_two_runs_write_the_same_page(folder: Path) -> None:
    before = (folder / "report.html").read_bytes()
    write_repair_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_parts_and_cracks_are_found() -> None:
    parts = np.zeros((300, 400), np.uint8)
    rows, columns = np.indices(parts.shape)
    crack = 150 + rows // 3
    parts[columns < crack - 6], parts[columns > crack + 6] = 1, 2
    y, x = crack_of(parts)
    assert parts[y, x] == 0
    assert abs(x - 150 - y // 3) <= 6
    assert crack_of(np.ones((30, 40), np.uint8)) == (15, 20)
    pieces = Pieces(parts, (Shift(0, 1), Shift(0, -1)))
    assert parts_of(pieces) is parts
    assert parts_of(Chain((pieces, Shift(0.5, 0.5)))) is parts
    assert parts_of(IDENTITY) is None


def test_codes_are_never_mixed(done: Path) -> None:
    found = repairreport._read(done)
    whole = found.invented.read(found.invented.info.box)[7]
    np.testing.assert_array_equal(read_nearest(found.invented, 7, Window((0, 0), SHAPE[1:]), 3), whole[::3, ::3])
    outside = read_nearest(found.invented, 7, Window((-6, 165), (12, 9)), 3)
    assert outside.shape == (4, 3)
    np.testing.assert_array_equal(outside[2:, :2], whole[0:6:3, 165:170:3])
    assert not outside[:2].any()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: (f / "repair.json").unlink(), "has not ended"),
        (lambda f: (f / "sections.csv").unlink(), "run the job of this folder again"),
        (lambda f: shutil.rmtree(f / "invented.zarr"), "invented.zarr"),
    ],
)
def test_folders_that_are_not_whole(folder: Path, harm: Any, words: str) -> None:
    harm(folder)
    with pytest.raises(InputError, match=words):
        write_repair_report(folder)


def test_the_page_opens_and_every_picture_is_drawn(done: Path, tmp_path: Path) -> None:
    with driven(chromium_or_skip(), tmp_path / "profile") as browser:
        browser.call("Page.navigate", url=(done / "report.html").as_uri())
        browser.wait("document.readyState === 'complete' && document.images.length")
        assert browser.complaints == []
        sizes = browser.value("[...document.images].map(i => [i.naturalWidth, i.naturalHeight, i.alt.length])")
        assert len(sizes) == 4
        assert min(min(one) for one in sizes) > 20
        for width in (1300, 420):
            browser.size(width, 900)
            assert browser.value("document.documentElement.scrollWidth <= window.innerWidth")
