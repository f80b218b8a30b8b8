"""Tables of translations: what is read is what stands there, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.sectionshift import SectionShift, box_within
from emloom.geometry.stackmap import Frame
from emloom.io.open import open_volume
from emloom.io.shifttable import read_shift_table


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trans.txt"
    path.write_text(text, encoding="utf-8")
    return path


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.floats(-1e5, 1e5)] * 2), max_size=8),
    between=st.sampled_from([",", ", ", " ", "\t", ";", "  ,  "]),
    names=st.booleans(),
    order=st.sampled_from(["dx,dy", "dy,dx"]),
)
def test_numbers_come_back_to_the_bit(tmp_path_factory, rows, between, names, order) -> None:
    table = [(0.0, 0.0), *rows]
    lines = [order.replace(",", between)] * names + [f"{a!r}{between}{b!r}" for a, b in table]
    path = written(tmp_path_factory.mktemp("t"), "\n".join(lines) + "\n")
    yx = np.array(table)[:, ::-1] if order == "dx,dy" else np.array(table)
    read = read_shift_table(path, order=order, sections=len(table))
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read, yx)


def test_comments_names_and_a_mark_of_byte_order(tmp_path: Path) -> None:
    text = "\ufeff# by hand\n% MATLAB\n\nshift_x (px), shift_y (px)\n0,0 # first\n1.5,-2 % second\n"
    np.testing.assert_array_equal(read_shift_table(written(tmp_path, text)), [[0, 0], [-2, 1.5]])


def test_where_sections_go_becomes_steps(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(-500, 500, (30, 2))
    path = written(tmp_path, "\n".join(f"{x} {y}" for x, y in rows))
    steps = read_shift_table(path, meaning="absolute")
    np.testing.assert_array_equal(np.cumsum(steps, axis=0), (rows - rows[0])[:, ::-1])


@pytest.mark.fault(
    "tables",
    "a table of shifts is empty, has semicolons and decimal commas, NaN, too many rows or columns",
    "error: names the line and what to write",
)
@pytest.mark.parametrize(
    ("text", "how", "words"),
    [
        ("", {}, "holds no row"),
        ("dx,dy\n", {}, "holds no row"),
        ("0,0\n1,2,3\n", {}, "line 2 reads '1 2 3': give two numbers"),
        ("0;0\n1,5;2,5\n", {}, "decimal point"),
        ("0,0\n1\n", {}, "line 2"),
        ("0,0\n1,x\n", {}, "line 2 reads '1 x'"),
        ("0,0\nnan,1\n", {}, "not finite"),
        ("0,0\n1,inf\n", {}, "not finite"),
        ("1,0\n1,2\n", {}, "must be 0,0"),
        ("dy,dx\n0,0\n", {}, "names the columns dy, dx, and dx,dy"),
        ("dx,dy\n0,0\n", {"order": "dy,dx"}, "state the order"),
        ("z,dx,dy\n0,0,0\n", {}, "leave only those two columns"),
        ("0,0\n1,2\n", {"sections": 4}, "has 2 rows and the stack 4 sections: give one row"),
        ("0,0\n1,2\n", {"sections": 3}, "0,0, seems to be missing"),
        ("0,0\n", {"order": "x,y"}, "dx,dy or dy,dx"),
        ("0,0\n", {"meaning": "both"}, "relative or absolute"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, how: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_shift_table(written(tmp_path, text), **how)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the table"):
        read_shift_table(tmp_path / "absent.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="cannot read the table"):
        read_shift_table(tmp_path / "image.csv")


@pytest.mark.parametrize(("offset", "start"), [((1520.0, 3644.0, 3644.0), 38), ((1480.0, 3644.0, 3644.0), 37)])
def test_the_box_of_padded_cremi_files_is_read_from_the_file(
    tmp_path: Path, offset: tuple[float, float, float], start: int
) -> None:
    """The original knew by heart that labels begin in section 38 of A and 37 of all others."""
    with h5py.File(tmp_path / "padded.h5", "w") as file:
        for name, shape in (("raw", (200, 3072, 3072)), ("labels/neuron_ids", (125, 1250, 1250))):
            data = file.create_dataset(f"volumes/{name}", shape, "u1" if name == "raw" else "u8", chunks=True)
            data.attrs["resolution"] = (40.0, 4.0, 4.0)
        data.attrs["offset"] = offset
    raw, labels = (
        open_volume(tmp_path / "padded.h5" / "volumes" / name).info for name in ("raw", "labels/neuron_ids")
    )
    frame = Frame(raw.shape, raw.grid)
    box = box_within(frame, Frame(labels.shape, labels.grid))
    assert box == Box((start, 911, 911), (125, 1250, 1250))
    shift = SectionShift.of(np.zeros((153, 2)), frame, box, margin_vox=200, margin_sections=14)
    assert shift.shape == (153, 1650, 1650)
    assert shift.first == start - 14
