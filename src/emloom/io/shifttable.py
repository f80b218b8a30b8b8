"""Tables of translations that others made: text, two numbers per section.

::

    # dx, dy of section z relative to section z - 1            comments: # and %, whole lines or behind numbers
    dx,dy                                                      a line of names: may be left out
    0,0
    -1.25,3.5                                                  comma, semicolon, tab or blanks between numbers

Pixels, by which a section is *moved* (not by which its contents lie wrong: those have the opposite sign). What the
file does not say is never guessed: the order of the columns and whether rows are relative to the section before or
to the stack are the reader's to state; a line of names must agree with what is stated.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.io.files import explained

F64 = NDArray[np.float64]
Order = Literal["dx,dy", "dy,dx"]
Meaning = Literal["relative", "absolute"]

_COMMENT = re.compile(r"[#%].*")
_BETWEEN = re.compile(r"\s*[,;]\s*")
_AXIS = re.compile(
    r"[^a-z]*(?:d|delta|shift|trans|translation)?[^a-z]*([xy])[^a-z]*(?:px|pixels?|vox|voxels?)?[^a-z]*"
)


def read_shift_table(
    path: str | Path, *, order: Order = "dx,dy", meaning: Meaning = "relative", sections: int | None = None
) -> F64:
    """Read a table of translations.

    Args:
        path: text file; see the module.
        order: of the columns; that of published tables by default.
        meaning: `relative`: a row moves its section relative to the section before, and the first is 0, 0;
            `absolute`: a row says where its section goes.
        sections: how many the table must have.

    Returns:
        float64 [Z, 2], (y, x) pixels relative to the section before, as `geometry.sectionshift` takes them; the
        first row is 0. Steps of an absolute table are differences, exact for whole numbers.

    Raises:
        InputError: there is no such file or no row in it, a row is not two finite numbers, the first is not 0
            where it should be, the line of names contradicts the order, or the number of rows is not `sections`.
    """
    _require_option("order", order, ("dx,dy", "dy,dx"))
    _require_option("meaning", meaning, ("relative", "absolute"))
    table = _numbers(Path(path), order)
    if sections is not None and len(table) != sections:
        hint = "; the first row, 0,0, seems to be missing" if len(table) == sections - 1 else ""
        raise InputError(
            f"{path} has {len(table)} rows and the stack {sections} sections{hint}: give one row per section, or "
            "the stack (and margins) that the table was made for"
        )
    yx = table[:, ::-1] if order == "dx,dy" else table
    if meaning == "absolute":
        return np.diff(yx, axis=0, prepend=yx[:1])
    if yx[0].any():
        raise InputError(
            f"{path}: the first row is {table[0, 0]:g}, {table[0, 1]:g}, and nothing is before the first section: "
            "it must be 0,0; where rows say where sections go, pass that the table is absolute"
        )
    return np.ascontiguousarray(yx)


def _require_option(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"the {what} {value!r} of a table is unknown: give {' or '.join(known)}")


def _numbers(path: Path, order: Order) -> F64:
    try:
        with explained(path, "read"):
            text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"cannot read the table {path}: {problem}") from None
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = _COMMENT.sub("", line).strip()
        if not bare:
            continue
        words = _BETWEEN.split(bare) if _BETWEEN.search(bare) else bare.split()
        if not rows and not any(_is_number(word) for word in words):
            _require_names(words, order, f"{path}, line {number}")
        else:
            rows.append(_row(words, f"{path}, line {number}"))
    if not rows:
        raise InputError(f"{path} holds no row of numbers: give {order}, one row per section")
    return np.array(rows)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _row(words: list[str], where: str) -> list[float]:
    if len(words) != 2 or not all(_is_number(word) for word in words):
        raise InputError(
            f"{where} reads {' '.join(words)!r}: give two numbers (with a decimal point), the translation along x "
            "and y, and nothing else"
        )
    values = [float(word) for word in words]
    if not np.isfinite(values).all():
        raise InputError(f"{where} reads {' '.join(words)!r}, which is not finite: give 0 where nothing is known")
    return values


def _require_names(words: list[str], order: Order, where: str) -> None:
    """Raise where a line of names tells of other columns, or another order, than what is stated."""
    found = [match.group(1) for word in words if (match := _AXIS.fullmatch(word.lower()))]
    if len(words) == 2 and len(found) != 2:
        return  # names of two columns that tell no axis: nothing contradicts
    if found != [name[1] for name in order.split(",")] or len(words) != 2:
        raise InputError(
            f"{where} names the columns {', '.join(words)}, and {order} were to be read: state the order of the "
            "file, and leave only those two columns in it"
        )
