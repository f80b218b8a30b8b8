"""The page of an alignment: what it shows is what lies in the folder, small for any stack, and it opens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage as ndi

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.planar import Field, Shift
from emloom.io.open import open_volume
from emloom.io.volume import ArrayVolume, VolumeInfo
from emloom.tasks import alignreport, beforeafter
from emloom.tasks.alignreport import write_align_report
from emloom.tasks.beforeafter import SIDE_PX, Pair, Window, from_the_side, is_reduced, read_window, seen
from emloom.view.alignfigures import largest_step
from tests.browser import chromium_or_skip
from tests.driving import DrivenPage, driven
from tests.tasks.aligned import GRID, aligned_folder

N = 12
RNG = np.random.default_rng(0)
PLANTED = np.cumsum(RNG.integers(-4, 5, (N, 2)), axis=0)


def tissue(shape: tuple[int, int, int] = (N, 150, 170)) -> NDArray[np.uint8]:
    smooth = ndi.gaussian_filter(np.random.default_rng(1).normal(size=shape), (1.5, 3, 3))
    return np.clip(128 + 40 * smooth / smooth.std(), 1, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done") / "aligned"
    aligned_folder(folder, tissue(), PLANTED, bad=(4,))
    write_align_report(folder)
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "aligned"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrivenPage]:
    with driven(chromium_or_skip(), tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


# ---- what is read ----------------------------------------------------------------------------------------------


def volume(array: NDArray[Any], offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> ArrayVolume:
    return ArrayVolume(array, Grid((40.0, 8.0, 8.0), offset))


def test_a_window_is_what_stands_there_and_nothing_outside() -> None:
    array = RNG.integers(1, 256, (6, 20, 30), dtype=np.uint8)
    found = read_window(volume(array), [4, 5, None, 0, 9], Window((-3, 25), (10, 12)))
    padded = np.pad(array, ((0, 0), (3, 20), (0, 20)))
    np.testing.assert_array_equal(found[[0, 1, 3]], padded[[4, 5, 0], 0:10, 25:37])
    assert not found[[2, 4]].any()
    half = read_window(volume(array), [2], Window((0, 0), (20, 30)), (20, 30))
    assert half.shape == (1, 1, 1)
    assert abs(int(half[0, 0, 0]) - array[2].mean()) <= 0.5


def test_before_and_after_are_one_place_of_the_world() -> None:
    before = volume(RNG.integers(1, 256, (6, 20, 30), dtype=np.uint8), (0.0, 16.0, 0.0))
    after = volume(RNG.integers(1, 256, (5, 26, 40), dtype=np.uint8), (40.0, 0.0, -24.0))
    pair = Pair(before, after, (1, 2, None, 4, 5))
    one, other = pair.read([0, 2, 3], Window((8, 9), (4, 5)))
    np.testing.assert_array_equal(other, after.read(Box((0, 8, 9), (5, 4, 5)))[[0, 2, 3]])
    np.testing.assert_array_equal(one[[0, 2]], before.read(Box((0, 6, 6), (6, 4, 5)))[[1, 4]])
    assert not one[1].any()
    assert pair.middle() == (12, 18)  # of y 2 to 22 and x 3 to 33


def test_the_side_of_a_small_stack_is_every_voxel_of_a_row() -> None:
    array = RNG.integers(1, 256, (9, 30, 50), dtype=np.uint8)
    pair = Pair(volume(array), volume(array), tuple(range(9)))
    bad = np.arange(9) == 3
    xz, yz = from_the_side(pair, bad)
    assert xz.spacing_nm == yz.spacing_nm == (40.0, 8.0)
    # 12 nm across a view are 2 rows of 8 nm.
    assert np.abs(xz.after.astype(int) - array[:, 14:16].mean(axis=1)).max() <= 0.5
    assert np.abs(yz.after.astype(int) - array[:, :, 24:26].mean(axis=2)).max() <= 0.5
    assert (xz.title, yz.title) == ("xz, y = 15", "yz, x = 25")
    assert xz.bad.tolist() == bad.tolist()
    assert not is_reduced(pair)


@pytest.mark.parametrize(
    ("depth", "around", "first", "n"), [(9, None, 0, 9), (900, None, 258, 384), (900, 890, 823, 77)]
)
def test_which_sections_are_seen(depth: int, around: int | None, first: int, n: int) -> None:
    array = np.zeros((depth, 4, 4), np.uint8)
    pair = Pair(volume(array), volume(array), tuple(range(depth)))
    assert seen(pair, around) == range(first, first + n)


class Counted:
    """A volume that notes how much is read at once, of any shape, without holding it."""

    def __init__(self, shape: tuple[int, int, int], grid: Grid = GRID) -> None:
        self.info = VolumeInfo(shape, np.dtype(np.uint8), grid)
        self.boxes: list[Box] = []

    def read(self, box: Box) -> NDArray[np.uint8]:
        self.boxes.append(box)
        return np.ones(box.shape, np.uint8)


def test_of_an_enormous_stack_little_is_read() -> None:
    one, other = Counted((20_000, 60_000, 80_000)), Counted((20_000, 61_000, 82_000))
    pair = Pair(one, other, tuple(range(20_000)))  # type: ignore[arg-type]
    assert is_reduced(pair)
    for around in (None, 17):
        planes = from_the_side(pair, np.zeros(20_000, np.bool_), around)
        assert all(max(p.after.shape) <= SIDE_PX for p in planes)
    for read in (one, other):
        assert max(prod(box.shape) for box in read.boxes) <= beforeafter._AT_ONCE_VOX
        assert sum(prod(box.shape) for box in read.boxes) <= 3e7


# ---- what is shown ---------------------------------------------------------------------------------------------


def test_the_page_says_what_the_folder_holds(done: Path) -> None:
    page = (done / "report.html").read_text()
    for words in (
        "12 sections of 150 x 170 voxels",
        "Model: shift",
        "section of reference is 6",
        "Note: section 4 is blank",
        "Movements over more than 40 sections were left",
        "It took 12 s.",
        "run through as a line",
        "data:image/gif;base64,",
        "1 is bad",
        "worst first",
        "Orange at the left edge",
    ):
        assert words in page, words
    far = np.hypot(*PLANTED.T).max()
    assert f">{far:.1f}<" in page
    assert f">{np.hypot(*(PLANTED[-1] - PLANTED[0])):.1f}<" in page
    assert "How sections are bent" not in page
    assert len(page) < 4_000_000


def test_after_is_aligned_and_before_is_not(done: Path) -> None:
    found = alignreport._read(done)
    for plane in from_the_side(found.pair, found.bad):
        image = {side: getattr(plane, side)[:, 60:-60].astype(float) for side in ("before", "after")}
        good = [z for z in range(N - 1) if 4 not in (z, z + 1)]
        alike = {
            side: np.mean([np.corrcoef(rows[z], rows[z + 1])[0, 1] for z in good]) for side, rows in image.items()
        }
        assert alike["after"] > alike["before"] + 0.2
        assert alike["after"] > 0.6


def test_deformed_sections_are_drawn(tmp_path: Path) -> None:
    u = np.zeros((2, 4, 4), np.float32)
    u[0, 1, 1] = 3.0
    planted = np.zeros((N, 2), int)
    maps: list[Any] = [Shift()] * N
    maps[7] = Field(u, (50.0, 50.0))
    more = {
        "scale": [0.93] + [1.0] * (N - 1),
        "rotation_deg": [0.1] * N,
        "bend_px": [3.0 if z == 7 else 0.0 for z in range(N)],
    }
    aligned_folder(tmp_path / "aligned", tissue(), planted, maps=maps, more=more)
    page = write_align_report(tmp_path / "aligned").read_text()
    assert "Section 7 was bent most." in page
    assert "rotation (degrees)" in page
    assert "0.930 to 1.000" in page
    assert "up to 2." in page  # of 3 pixels at a node between the places that are drawn


def test_a_table_without_residuals_makes_a_page_without(folder: Path) -> None:
    lines = (folder / "sections.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    keep = [k for k, name in enumerate(rows[0]) if name in ("z", "home", "bad", "reason", "shift_y", "shift_x")]
    (folder / "sections.csv").write_text("\n".join(",".join(row[k] for k in keep) for row in rows))
    page = write_align_report(folder).read_text()
    assert "How well they fit" not in page
    assert "Where sections went" in page


def test_sections_with_a_warning_are_listed(folder: Path) -> None:
    text = (folder / "sections.csv").read_text()
    (folder / "sections.csv").write_text(text.replace("9,9,0,,", "9,9,0,joined by no link,"))
    page = write_align_report(folder).read_text()
    assert page.count(">doubtful<") == 1
    assert page.count(">bad<") == 1
    assert "joined by no link" in page


def test_few_links_are_warned_of(folder: Path) -> None:
    """A section with one link has no residual worth the name: it lies exactly where that link says."""
    page = (folder / "report.html").read_text()
    card = page[page.index("links of a section") :][:200]
    assert "warning" not in card
    text = (folder / "sections.csv").read_text()
    (folder / "sections.csv").write_text(text.replace(",6,", ",1,"))
    page = write_align_report(folder).read_text()
    assert "warning" in page[page.index("links of a section") :][:200]


def test_provenance_is_shown(folder: Path) -> None:
    record = {"written": "2026-01-01", "environment": {"emloom": "9.9"}, "spec": {"raw": "here"}}
    (folder / "provenance.json").write_text(json.dumps(record))
    page = write_align_report(folder).read_text()
    assert "2026-01-01</time> · emloom 9.9" in page
    assert "Everything needed to run this again" in page


def test_two_runs_write_the_same_page(folder: Path) -> None:
    before = (folder / "report.html").read_bytes()
    write_align_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_the_motion_is_where_sections_jump(done: Path) -> None:
    z = largest_step(-PLANTED.astype(float))
    start = int(np.clip(z - 4, 0, N - 8))
    assert f"Sections {start} to {start + 7}, where they were moved most" in (done / "report.html").read_text()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: (f / "align.json").unlink(), "has not ended"),
        (lambda f: (f / "align.json").write_text("{"), "cannot read"),
        (lambda f: (f / "align.json").write_text("[]"), "no summary"),
        (lambda f: (f / "sections.csv").unlink(), "run the job of this folder again"),
        (lambda f: (f / "sections.csv").write_text("z,home\n0,0\n"), "has 1 rows, and the result 12 sections"),
        (lambda f: (f / "sections.csv").write_text("z,home\n" + "0,a\n" * 12), "no number"),
        (lambda f: (f / "align.json").write_text('{"raw": "/nowhere.zarr"}'), "nowhere"),
    ],
)
def test_folders_that_are_not_whole(folder: Path, harm: Any, words: str) -> None:
    harm(folder)
    with pytest.raises(InputError, match=words):
        write_align_report(folder)


def test_the_page_opens_and_every_picture_is_drawn(browser: DrivenPage, done: Path) -> None:
    browser.call("Page.navigate", url=(done / "report.html").as_uri())
    browser.wait("document.readyState === 'complete' && document.images.length")
    assert browser.complaints == []
    sizes = browser.value("[...document.images].map(i => [i.naturalWidth, i.naturalHeight, i.alt.length])")
    assert len(sizes) == 4
    assert min(min(one) for one in sizes) > 20
    assert browser.value("document.querySelector('picture img').currentSrc.slice(0, 15)") == "data:image/gif;"
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth")
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    browser.wait("document.querySelector('picture img').currentSrc.startsWith('data:image/png;')")


def test_raw_is_opened_with_the_voxel_size_of_the_result(folder: Path, tmp_path: Path) -> None:
    """A stack of images states none."""
    raw = open_volume(json.loads((folder / "align.json").read_text())["raw"])
    np.save(tmp_path / "bare.npy", raw.read(raw.info.box))
    summary = json.loads((folder / "align.json").read_text()) | {"raw": str(tmp_path / "bare.npy")}
    (folder / "align.json").write_text(json.dumps(summary))
    assert "Alignment of bare.npy" in write_align_report(folder).read_text()
