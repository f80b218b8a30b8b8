"""The real sets open as what they are; docs/formats-real-sets.md lists axes, shape, voxel size and offset."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emloom.io.open import inspect

PAGE = Path(__file__).parents[2] / "docs" / "formats-real-sets.md"
ROW = re.compile(
    r"^\| `(?P<path>[^`]+)` \| (?P<axes>\w+) \| (?P<what>[^|]+) \| (?P<nm>[^|]+) \| (?P<at>[^|]+) \|$", re.M
)


def numbers(text: str) -> tuple[float, ...] | None:
    return None if text.strip() == "not stated" else tuple(float(word) for word in text.split(","))


ROWS = [row.groupdict() for row in ROW.finditer(PAGE.read_text())]


def test_the_page_lists_the_sets() -> None:
    assert len(ROWS) >= 30
    assert len({row["path"].split("/")[0] for row in ROWS}) >= 9


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["path"])
def test_a_set_opens_as_the_page_says(row: dict[str, str], real_data: Path) -> None:
    path = real_data / row["path"]
    hit = next(h for h in inspect(path) if Path(h.path) == path)
    assert not hit.problems
    shape, dtype = row["what"].split()
    assert (hit.axes, hit.shape, hit.dtype.name) == (row["axes"], tuple(map(int, shape.split("×"))), dtype)
    for stated, listed in ((hit.voxel_size_nm, numbers(row["nm"])), (hit.offset_nm, numbers(row["at"]))):
        assert stated == (None if listed is None else pytest.approx(listed))
