"""The page of detected synapses: who is shown, what is right, where marks lie, and lines in neuroglancer."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.synapses import SynapseTable
from emloom.io.open import create_volume, open_volume
from emloom.io.synapsetable import SYNAPSES, write_synapse_table
from emloom.io.volume import VolumeInfo
from emloom.tasks.synapsegallery import Backdrop, detection_tile, spread
from emloom.tasks.synapsejudged import judge
from emloom.tasks.synapselines import STATE, by_score, lines_of
from emloom.tasks.synapsepage import SHOWN, write_synapses_page
from emloom.view.marked import CROSS_RGB, RING_RGB
from emloom.view.partnerlines import PartnerLines

GRID = Grid((40.0, 4.0, 4.0), (400.0, 40.0, 80.0))
SHAPE = (8, 200, 240)
HALF = 100  # neuron 1 lies above this row, neuron 2 below


def table(n: int, seed: int = 0) -> SynapseTable:
    """Return contacts from neuron 1 to neuron 2, every second pair of rows a polyad."""
    rng = np.random.default_rng(seed)
    polyads = np.arange(n) // 2 + 1
    heads = np.stack([rng.integers(0, 8, n), rng.integers(60, HALF, n), rng.integers(5, 235, n)], axis=1) + 0.5
    ends = np.stack([rng.integers(0, 8, n), rng.integers(HALF, 140, n), rng.integers(5, 235, n)], axis=1) + 0.5
    size, offset = np.array(GRID.voxel_size_nm), np.array(GRID.offset_nm)
    return SynapseTable(
        np.arange(1, n + 1),
        polyads,
        heads[polyads - 1] * size + offset,
        ends * size + offset,
        np.full(n, 1),
        np.full(n, 2),
        rng.integers(10, 90, n),
        rng.permutation(n).astype(np.float32) / max(n, 1),
    )


def volume(path: Path, array, kind: str, grid: Grid = GRID) -> str:
    info = VolumeInfo(array.shape, array.dtype, grid, kind=kind)
    create_volume(path, info).write(info.box, array)
    return str(path)


def neurons() -> np.ndarray:
    ids = np.ones(SHAPE, np.uint64)
    ids[:, HALF:] = 2
    return ids


def folder_of(tmp_path: Path, detected: SynapseTable) -> Path:
    folder = tmp_path / "syn"
    folder.mkdir()
    write_synapse_table(folder / SYNAPSES, detected)
    words = {"written": "2026-01-01", "environment": {"emloom": "9.9"}, "spec": {"threshold": 0.5}}
    (folder / "provenance.json").write_text(json.dumps(words))
    return folder


class Outline(HTMLParser):
    """Headings, pictures, and rows of tables of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.pictures: list[str] = []
        self.cells: list[str] = []
        self.scripts = 0
        self._in = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs) -> None:
        self._in = tag
        self.scripts += tag == "script"
        if tag == "img":
            self.pictures.append(dict(attrs)["alt"])

    def handle_endtag(self, tag) -> None:
        self._in = ""

    def handle_data(self, data) -> None:
        if self._in in ("h1", "h2"):
            self.headings.append(data.strip())
        if self._in == "td":
            self.cells.append(data.strip())


def test_a_page_with_truth(tmp_path: Path) -> None:
    truth = table(40)
    found = truth.rows(np.arange(6, 40))
    rng = np.random.default_rng(3)
    raw = volume(tmp_path / "raw.zarr", rng.integers(80, 170, SHAPE).astype(np.uint8), "raw")
    seg = volume(tmp_path / "seg.zarr", neurons(), "labels")
    write_synapse_table(tmp_path / "truth.csv", truth)
    folder = folder_of(tmp_path, found)
    page = write_synapses_page(folder, raw, seg, str(tmp_path / "truth.csv"))
    seen = Outline(page)
    assert page == folder / "report.html"
    assert seen.headings[:1] == ["Synapses of raw.zarr"]
    wanted = [
        "Detections",
        "Missed synapses",
        "How sure they are",
        "Threshold of the score",
        "Numbers",
        "In neuroglancer",
    ]
    assert [h for h in seen.headings if h in wanted] == wanted
    assert seen.scripts == 1
    # Best, median, worst; missed; histogram, kept, sweep.
    assert len(seen.pictures) == 7
    assert seen.pictures[0].startswith("Best detections")
    assert sum("right" in cell for cell in seen.cells) == 3 * SHOWN
    text = page.read_text()
    assert f"{3 * SHOWN} of 34 contacts" in text
    assert "6 of 40 true contacts have no match" in text
    assert f"emloom view raw={raw} neurons={seg} --synapses {folder}" in text
    assert "All are in synapses.parquet" in text


def test_a_page_without_anything_but_the_table(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, table(5))
    page = write_synapses_page(folder, None, None, None)
    seen = Outline(page)
    assert "There are no pictures, as neither raw nor segmentation is known." in page.read_text()
    assert len(seen.pictures) == 2  # histogram and counts
    assert "Threshold of the score" not in seen.headings
    assert "Missed synapses" not in seen.headings
    assert "5 of 5 contacts by their score, from the highest to the lowest." in page.read_text()


def test_nothing_detected_is_a_page(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, SynapseTable.empty())
    seg = volume(tmp_path / "seg.zarr", neurons(), "labels")
    write_synapse_table(tmp_path / "truth.parquet", table(3))
    page = write_synapses_page(folder, None, seg, str(tmp_path / "truth.parquet")).read_text()
    assert "No synapse was detected" in page
    assert "3 of 3 true contacts have no match" in page
    assert json.loads((folder / STATE).read_text())["layers"][0]["annotations"] == []


def test_what_is_judged_is_what_matches(tmp_path: Path) -> None:
    truth = table(10)
    seg = volume(tmp_path / "seg.zarr", neurons(), "labels")
    write_synapse_table(tmp_path / "truth.parquet", truth)
    judged, remarks = judge(truth.rows(np.arange(4, 10)), str(tmp_path / "truth.parquet"), seg)
    assert judged is not None
    assert not remarks
    assert judged.right.all()
    assert judged.missed.ids.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(judged.missed.pre_nm, truth.pre_nm[:4])
    # A truth that reaches beyond the neurons is cut, and it is said.
    small = volume(tmp_path / "small.zarr", neurons()[:4], "labels")
    judged, remarks = judge(truth, str(tmp_path / "truth.parquet"), small)
    assert judged is not None
    inside = (truth.pre_nm[:, 0] < 560) & (truth.post_nm[:, 0] < 560)
    assert (judged.n_true, int(judged.right.sum())) == (inside.sum(), inside.sum())
    assert f"{10 - inside.sum()} of 10 true contacts have a site outside" in remarks[0]
    assert judge(truth, str(tmp_path / "truth.parquet"), None)[1][0].startswith("Nothing is judged")
    assert judge(truth, None, seg) == (None, [])


def test_marks_and_outlines_lie_where_they_should(tmp_path: Path) -> None:
    one = table(1)
    raw = open_volume(volume(tmp_path / "raw.zarr", np.zeros(SHAPE, np.uint8), "raw"))
    seg = open_volume(volume(tmp_path / "seg.zarr", neurons(), "labels"))
    middle = GRID.to_voxel(((one.pre_nm[0] + one.post_nm[0]) / 2).tolist())
    tile = detection_tile(Backdrop(raw, None), one, 0, "t")
    assert tile is not None
    ys, xs = np.nonzero((tile.image == RING_RGB).all(axis=2))
    pixel = tile.spacing_nm
    # The ring's centre is as far from the picture's middle column as the site is from the middle of the pair.
    window = [np.floor(middle[k]) - 112 if np.floor(middle[k]) > 112 else 0 for k in (1, 2)]
    pre = np.array(GRID.to_voxel(one.pre_nm[0].tolist()))
    centre = np.array([(ys.min() + ys.max() + 1) / 2 * pixel[0], (xs.min() + xs.max() + 1) / 2 * pixel[1]])
    assert np.abs(centre - (pre[1:] - window) * 4).max() <= 4
    outlined = detection_tile(Backdrop(raw, seg), one, 0, "t")
    assert outlined is not None
    rows = np.nonzero((outlined.image[:, 0] == CROSS_RGB).all(axis=1))[0]
    assert abs((rows.min() + 0.5) * pixel[0] - (HALF - window[0]) * 4) <= 4
    far = table(1)
    far = SynapseTable(
        far.ids, far.polyads, far.pre_nm + 1e5, far.post_nm + 1e5, far.pre_segments, far.post_segments,
        far.sizes_vox, far.scores,
    )  # fmt: skip
    assert detection_tile(Backdrop(raw, seg), far, 0, "t") is None


def test_who_is_shown() -> None:
    order = np.arange(100)
    groups = spread(order, 8)
    assert groups["best"] == list(range(8))
    assert groups["median"] == list(range(46, 54))
    assert groups["worst"] == list(range(92, 100))
    assert spread(order[:24], 8) == {"all": list(range(24))}
    t = table(9)
    assert t.scores[by_score(t)].tolist() == sorted(t.scores.tolist(), reverse=True)


def test_lines_are_those_of_the_highest_scores(tmp_path: Path) -> None:
    t = table(30)
    lines = lines_of(t, most=5)
    best = set(t.ids[by_score(t)[:5]].tolist())
    assert {int(i) for i in lines.ids} == best
    folder = folder_of(tmp_path, t)
    write_synapses_page(folder, None, None, None)
    state = json.loads((folder / STATE).read_text())
    assert state["dimensions"] == {axis: [1e-9, "m"] for axis in "zyx"}
    (layer,) = state["layers"]
    assert len(layer["annotations"]) == 30
    first = layer["annotations"][0]
    assert first["type"] == "line"
    assert (first["pointA"], first["pointB"]) == (t.pre_nm[0].tolist(), t.post_nm[0].tolist())
    assert re.fullmatch(r"1 -> 2, score 0\.\d{3}, \d+ voxels", first["description"])
    with pytest.raises(InputError, match="give one of each"):
        PartnerLines("synapses", ["1"], np.zeros((1, 3)), np.zeros((2, 3)), [""])


def test_neuroglancer_reads_the_state(tmp_path: Path) -> None:
    """The package's own parser takes the state, and the viewer shows the lines over a volume."""
    neuroglancer = pytest.importorskip("neuroglancer")
    from emloom.view.neuroglancer import serve

    t = table(4)
    folder = folder_of(tmp_path, t)
    write_synapses_page(folder, None, None, None)
    state = neuroglancer.ViewerState(json.loads((folder / STATE).read_text()))
    annotations = state.layers["synapses"].annotations
    assert [a.id for a in annotations] == ["1", "2", "3", "4"]
    np.testing.assert_allclose(annotations[2].pointA, t.pre_nm[2])
    raw = open_volume(volume(tmp_path / "raw.zarr", np.zeros(SHAPE, np.uint8), "raw"))
    with serve([("raw", raw)], lines=[lines_of(t)]) as viewer:
        layers = viewer.viewer.state.to_json()["layers"]
        assert [layer["name"] for layer in layers] == ["raw", "synapses"]
        assert len(layers[1]["annotations"]) == 4
    with pytest.raises(InputError, match="give every layer a name of its own"):
        serve([("synapses", raw)], lines=[lines_of(t)])


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_synapses_page(tmp_path / "none", None, None, None)
    folder = folder_of(tmp_path, table(3))
    (folder / "provenance.json").write_text("{broken")
    with pytest.raises(InputError, match="is damaged"):
        write_synapses_page(folder, None, None, None)
    (folder / "provenance.json").unlink()
    with pytest.raises(InputError, match=r"provenance\.json does not exist: give a folder of emloom synapses"):
        write_synapses_page(folder, None, None, None)
    folder = folder_of(tmp_path / "again", table(3)) if (tmp_path / "again").mkdir() is None else folder
    coarse = Grid((40.0, 8.0, 8.0), (400.0, 40.0, 80.0))
    raw = volume(tmp_path / "raw.zarr", np.zeros(SHAPE, np.uint8), "raw")
    seg = volume(tmp_path / "coarse.zarr", neurons(), "labels", coarse)
    assert "Neurons are not outlined" in write_synapses_page(folder, raw, seg, None).read_text()
