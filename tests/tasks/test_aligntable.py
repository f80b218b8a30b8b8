"""A table of translations through the whole of `emloom align` and back: the published arithmetic, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import open_volume
from emloom.tasks.align import align
from emloom.tasks.alignspec import AlignJob
from emloom.tasks.movestack import MoveJob, move_volume
from tests.geometry.test_sectionshift import literal_labels, literal_raw, table_of
from tests.tasks.aligned import store

GRID = Grid((40.0, 4.0, 4.0))
RAW, LABELS, START = (15, 307, 309), (9, 125, 127), (3, 91, 90)
MARGINS = (2, 20)


def read(path: Path) -> NDArray[Any]:
    volume = open_volume(path)
    return volume.read(volume.info.box)


def job(folder: Path, **how: Any) -> AlignJob:
    model = {"kind": "table", "path": str(folder / "trans.txt"), "box_of": str(folder / "labels.zarr")}
    model |= {"margin_sections": MARGINS[0], "margin_vox": MARGINS[1], **how}
    words = {
        "raw": str(folder / "raw.zarr"), "output": str(folder / "aligned"), "model": model,
        "outside": "symmetric", "cell_shape_vox": (4, 100, 100),
    }  # fmt: skip
    return AlignJob.from_dict(words, "job")


def prepare(folder: Path, name: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Store a raw, labels inside of it by their offset, and a table; return them, the table as (dx, dy)."""
    rng = np.random.default_rng(3)
    raw = rng.integers(0, 256, RAW, dtype=np.uint8)
    labels = rng.integers(0, 2**60, LABELS, dtype=np.uint64)
    table = table_of(name, LABELS[0] + 2 * MARGINS[0], 0.1)[:, ::-1]
    store(folder / "raw.zarr", raw, GRID)
    store(folder / "labels.zarr", labels, Grid(GRID.voxel_size_nm, GRID.to_world(START)), "labels")
    lines = [f"{dx!r},{dy!r}" for dx, dy in table.tolist()]
    (folder / "trans.txt").write_text("\n".join(["0,0", *lines[1:]]))
    return raw, labels, table


@pytest.mark.parametrize("name", ["A", "B+"])
def test_published_arithmetic_there_and_back(tmp_path: Path, name: str) -> None:
    raw, labels, table = prepare(tmp_path, name)
    page = align(job(tmp_path))
    reference = len(table) // 2
    expected = literal_raw(raw, table, Box(START, LABELS), reference, MARGINS)
    np.testing.assert_array_equal(read(tmp_path / "aligned" / "raw.zarr"), expected)
    for direction, source, output, more in (
        ("apply", "labels.zarr", "there.zarr", {}),
        ("invert", "there.zarr", "back.zarr", {"like": str(tmp_path / "labels.zarr")}),
    ):
        words = {
            "source": str(tmp_path / source), "output": str(tmp_path / output), "direction": direction,
            "by": str(tmp_path / "aligned"), "what": "labels", **more,
        }  # fmt: skip
        move_volume(MoveJob.from_dict(words, "job"))
    np.testing.assert_array_equal(
        read(tmp_path / "there.zarr"), literal_labels(labels, table, reference, MARGINS)[0]
    )
    np.testing.assert_array_equal(read(tmp_path / "back.zarr"), labels)
    assert "it was not compared with the pictures" in page.read_text()
    summary = json.loads((tmp_path / "aligned" / "align.json").read_text())
    assert summary["table"]["margin_vox"] == 20


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"margin_sections": 1}, "13 rows and the stack 11 sections"),
        ({"order": "dy,dx", "path": "named.txt"}, "names the columns dx, dy"),
        ({"margin_sections": 4}, "13 rows and the stack 17 sections"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, how: dict[str, Any], words: str) -> None:
    prepare(tmp_path, "A")
    (tmp_path / "named.txt").write_text("dx,dy\n" + (tmp_path / "trans.txt").read_text())
    if "path" in how:
        how = how | {"path": str(tmp_path / how["path"])}
    with pytest.raises(InputError, match=words):
        align(job(tmp_path, **how))
