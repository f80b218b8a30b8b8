"""Slices to label next: counted in any blocks, chosen where planted, exported so that they can be painted."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.geometry import Box, Grid, blocks
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.ops.decide import decide
from emloom.tasks.labelledplaces import labelled_places
from emloom.tasks.resume import retry
from emloom.tasks.slicecounts import CountSlices, Lattice, in_plane, read_windows, slices_file
from emloom.tasks.suggestslices import SuggestJob, suggest_slices

SHAPE = (40, 48, 56)
GRID = Grid((8.0, 4.0, 4.0), (80.0, 40.0, 0.0))
NAMES = ("cytoplasm", "membrane", "synapse")
PLANTED = Box((10, 24, 8), (8, 16, 16))
SIZE = 16


def write(folder: Path, shares: NDArray[np.uint8]) -> str:
    z, y, x = shares.shape[1:]
    info = VolumeInfo((z, y, x), np.dtype(np.uint8), GRID, len(shares), kind="probabilities")
    create_volume(folder / "pred.zarr" / "classes", info).write(info.box, shares)
    (folder / "pred.zarr" / "classes.yaml").write_text(yaml.safe_dump({"names": list(NAMES)}))
    return str(folder / "pred.zarr" / "classes")


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[str, str]:
    """Return probabilities with a doubtful region, and a raw volume that begins before them."""
    rng = np.random.default_rng(6)
    shares = np.zeros((3, *SHAPE), np.uint8)
    sure = rng.integers(0, 2, (5, 6, 7)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    for label in range(3):
        shares[label][sure == label] = 240
    shares[2] += 15
    region = (slice(None), *PLANTED.slices())
    shares[region] = np.array([70, 90, 95], np.uint8)[:, None, None, None]
    raw = rng.integers(0, 255, (60, 70, 60), np.uint8)
    info = VolumeInfo(raw.shape, np.dtype(np.uint8), Grid((8.0, 4.0, 4.0)), kind="raw")
    create_volume(tmp_path / "raw.zarr" / "raw", info).write(info.box, raw)
    return write(tmp_path, shares), str(tmp_path / "raw.zarr" / "raw")


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "slices.csv").read_text().splitlines()))


@given(st.integers(0, 2**32), st.tuples(*[st.integers(7, 40)] * 3), st.sampled_from([1, 3]))
@settings(max_examples=12, deadline=None)
def test_windows_hold_what_a_loop_counts(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cell: tuple[int, int, int], step: int
) -> None:
    folder = tmp_path_factory.mktemp("windows")
    rng = np.random.default_rng(seed)
    shape = (9, 23, 17)
    shares = rng.integers(0, 256, (3, *shape), np.uint8)
    shares[:, :, 14:, :] *= rng.integers(0, 2, (3, *shape), np.uint8)[:, :, 14:, :]  # partly not predicted
    shares[:, 4] = 0
    path = write(folder, shares)
    lattice = Lattice(shape, 9, step, (0, 1, 2))
    work = CountSlices(path, lattice, folder)
    cells = blocks(Box.whole(shape), cell)
    for block in cells:
        work(block)
    found = read_windows([slices_file(folder, block.index) for block in cells], lattice, 3)
    labels, confidence = decide(shares)
    expected = 0
    for axis in range(3):
        rows, columns = in_plane(axis)
        for plane in range((step - 1) // 2, shape[axis], step):
            for row in starts(shape[rows]):
                for column in starts(shape[columns]):
                    start, extent = [0, 0, 0], [9, 9, 9]
                    start[axis], start[rows], start[columns], extent[axis] = plane, row, column, 1
                    at = Box(tuple(start), tuple(extent)).slices()
                    if 2 * (labels[at] < 255).sum() < 81:
                        continue
                    assert found.start[expected].tolist() == start
                    assert found.voxels[expected].tolist() == [(labels[at] == k).sum() for k in range(3)]
                    doubt = [(255.0 - confidence[at][labels[at] == k]).sum() / 255 for k in range(3)]
                    assert found.uncertain[expected].tolist() == pytest.approx(doubt)
                    expected += 1
    assert len(found) == expected


def starts(length: int) -> list[int]:
    return sorted({*range(0, length - 9 + 1, 4), length - 9})


def test_the_planted_region_comes_first_and_its_files_can_be_painted(
    inputs: tuple[str, str], tmp_path: Path
) -> None:
    path, raw = inputs
    out = tmp_path / "next"
    args = [
        "suggest-slices",
        path,
        "--raw",
        raw,
        "-o",
        str(out),
        "--size",
        str(SIZE),
        "--count",
        "3",
        "--step",
        "1",
    ]
    said = CliRunner().invoke(app, args)
    assert said.exit_code == 0, said.exception
    rows = rows_of(out)
    assert len(rows) == 3
    assert "mainly for synapse" in rows[0]["reason"]
    assert "mean confidence 0.02 in 256 voxels, none labelled so far" in rows[0]["reason"]
    assert rows[0]["reason"] in said.stdout
    pieces = yaml.safe_load((out / "labels.yaml").read_text())
    assert "\n\n" not in (out / "labels.yaml").read_text()
    assert pieces["classes"] == {"cytoplasm": 1, "membrane": 2, "synapse": 3}
    raw_array = open_volume(raw).read(open_volume(raw).info.box)
    shares = open_volume(path).read(open_volume(path).info.box)
    planted = PLANTED.shift((10, 10, 0))
    for rank, (piece, row) in enumerate(zip(pieces["pieces"], rows, strict=True), start=1):
        axis = "zyx".index(piece["axis"])
        start, shape = [0, 0, 0], [SIZE] * 3
        start[axis], shape[axis] = piece["at"], 1
        start[in_plane(axis)[0]], start[in_plane(axis)[1]] = piece["start"]
        box = Box(tuple(start), tuple(shape))
        assert (row["axis"], int(row["at"])) == (piece["axis"], piece["at"])
        with Image.open(out / f"slice_{rank}_raw.png") as image:
            assert np.array_equal(np.asarray(image), raw_array[box.slices()].squeeze(axis))
        with Image.open(out / piece["image"]) as image:
            assert image.mode == "P"
            own = box.shift((-10, -10, 0)).slices()
            assert np.array_equal(np.asarray(image), shares[:, *own].argmax(axis=0).squeeze(axis) + 1)
        if rank == 1:
            assert box.intersect(planted).size == box.size
    assert (out / "report.html").read_text().count("<img") == 3
    said_before = (out / "slices.csv").read_text()
    next((out / "counts").iterdir()).unlink()  # damaged: counted again
    retry(out, look=True)
    assert (out / "slices.csv").read_text() == said_before


def test_what_is_labelled_is_not_suggested_again(inputs: tuple[str, str], tmp_path: Path) -> None:
    path, raw = inputs
    base = {"probabilities": path, "raw": raw, "window": {"size_vox": SIZE, "count": 2, "step_vox": 1}}
    first = suggest_slices(SuggestJob.from_dict({**base, "output": str(tmp_path / "a")}))
    assert yaml.safe_load((first / "labels.yaml").read_text())["classes"] == {"synapse": 3}
    assert "none of them: cytoplasm: 1, membrane: 2" in (first / "labels.yaml").read_text()
    again = {**base, "output": str(tmp_path / "b"), "labels": str(first / "labels.yaml")}
    second = suggest_slices(SuggestJob.from_dict(again))
    places = [(row["axis"], row["at"], row["start_row"], row["start_column"]) for row in rows_of(first)]
    assert not {(r["axis"], r["at"], r["start_row"], r["start_column"]) for r in rows_of(second)} & set(places)
    all_of_it = suggest_slices(
        SuggestJob.from_dict({**base, "output": str(tmp_path / "c"), "window": {**base["window"], "count": 4}})
    )
    # Correcting nothing, what was suggested counts as it did when it was chosen.
    assert [r["score"] for r in rows_of(all_of_it)[2:]] == [r["score"] for r in rows_of(second)]


def test_labels_count_from_pieces_and_from_volumes(inputs: tuple[str, str], tmp_path: Path) -> None:
    path, raw = inputs
    shares, ground = open_volume(path), open_volume(raw)
    painted = np.zeros((6, 5), np.uint8)
    painted[1:3, 2:4], painted[3, 2] = 7, 4
    Image.fromarray(painted).save(tmp_path / "xz.png")
    piece = {"kind": "plane", "name": "a", "image": "xz.png", "axis": "y", "at": 20, "start": [30, 9]}
    clicks = {"kind": "points", "name": "b", "table": "clicks.csv", "units": "voxels"}
    words = {"classes": {"membrane": 7, "cytoplasm": [3, 4], "synapse": 9}, "pieces": [piece, clicks]}
    (tmp_path / "clicks.csv").write_text("z,y,x,class\n12,11,3,synapse\n13,11,3,9\n50,11,3,membrane\n")
    (tmp_path / "labels.yaml").write_text(yaml.safe_dump(words))
    found = labelled_places(str(tmp_path / "labels.yaml"), shares, ground, NAMES)
    assert found.voxels == (1, 5, 2)
    plane, *points = found.boxes
    assert plane == Box((20, 10, 9), (6, 1, 5))
    assert points == [Box((2, 1, 3), (2, 1, 1)), Box((40, 1, 3), (1, 1, 1))]
    assert found.values == (3, 7, 9)
    labels = np.full(SHAPE, 255, np.uint8)
    labels[3, 4:6, 7:9] = 2
    info = VolumeInfo(SHAPE, np.dtype(np.uint8), GRID, kind="labels")
    create_volume(tmp_path / "l.zarr" / "labels", info).write(info.box, labels)
    found = labelled_places(str(tmp_path / "l.zarr" / "labels"), shares, ground, NAMES)
    assert found.voxels == (0, 0, 4)
    assert found.boxes == (Box((3, 4, 7), (1, 2, 2)),)


def test_bad_input_is_named(inputs: tuple[str, str], tmp_path: Path) -> None:
    path, raw = inputs
    base = {"probabilities": path, "raw": raw, "output": str(tmp_path / "o"), "window": {"size_vox": SIZE}}
    (tmp_path / "few.yaml").write_text(
        "classes: {nucleus: 1}\npieces: [{kind: plane, name: a, image: a.png, at: 3}]\n"
    )
    for more, words in (
        ({"window": {"size_vox": 64}, "labels": "nowhere.yaml", "raw": None}, r"(?s)--raw.*do not fit.*no labels"),
        ({"labels": str(tmp_path / "few.yaml")}, "labels nucleus, and the classes are"),
        ({"raw": None}, "--raw"),
        ({"strategy": "best"}, "'best' is not valid"),
        ({"window": {"size_vox": 44}, "axis": "z", "names": ["a", "b"]}, "3 classes, and 2 names"),
    ):
        with pytest.raises(InputError, match=words):
            suggest_slices(SuggestJob.from_dict({**base, **more}))
    assert not (tmp_path / "o").exists()
