"""Attributes as columns: one text per row and attribute, or none.

Formats of tracings have an open set of attributes, spelled in many ways (``1``, ``1.0``, ``112.399994``). A column
keeps the text as it was written, so that what emloom does not touch is written back letter by letter, and reads it
as numbers where somebody asks::

    texts      {"radius": ["1.5", None, "112.399994"], "inVp": ["0", "0", None]}
    numbers    [1.5, nan, 112.399994]

None is an attribute that the row does not have. Columns never change: every operation returns new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError

Texts = NDArray[np.object_]
_LARGEST_WHOLE = 2.0**53  # above, floats skip whole numbers


@dataclass(frozen=True, eq=False)
class Columns:
    """The attributes of `n` rows; see the module.

    Attributes:
        n: number of rows.
        texts: name of the attribute -> `n` texts, None where the row has no such attribute.

    Raises:
        InputError: a column has another length, or holds something else than texts and None.
    """

    n: int
    texts: Mapping[str, Texts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frozen = {name: _frozen(name, column, self.n) for name, column in self.texts.items()}
        object.__setattr__(self, "texts", {k: v for k, v in frozen.items() if v is not None})

    @classmethod
    def _of_checked(cls, n: int, texts: Mapping[str, Texts]) -> Columns:
        """Return columns of texts that were checked before: to look at each again takes as long as to read it."""
        made = object.__new__(cls)
        object.__setattr__(made, "n", n)
        object.__setattr__(made, "texts", texts)
        return made

    def __contains__(self, name: str) -> bool:
        return name in self.texts

    def __getitem__(self, name: str) -> Texts:
        """Return the texts of an attribute, [n]; all None where no row has it."""
        if name in self.texts:
            return self.texts[name]
        return np.full(self.n, None, object)

    def numbers(self, name: str, what: str = "row") -> NDArray[np.float64]:
        """Return an attribute as numbers, float64 [n]; NaN where a row does not have it.

        Raises:
            InputError: a text is no number.
        """
        if name not in self.texts:
            return np.full(self.n, np.nan)
        column = self.texts[name]
        try:
            return np.array([np.nan if text is None else float(text) for text in column], np.float64)
        except ValueError:
            row = next(k for k, text in enumerate(column) if text is not None and not _is_number(text))
            raise InputError(
                f"{what} {row} has {name}={column[row]!r}: give a number, or remove the attribute"
            ) from None

    def take(self, rows: ArrayLike) -> Columns:
        """Return the rows of the given numbers, in that order."""
        at = np.asarray(rows, np.int64)
        parts = {name: _read_only(column[at]) for name, column in self.texts.items()}
        kept = {name: column for name, column in parts.items() if any(text is not None for text in column)}
        return Columns._of_checked(len(at), kept)

    def replaced(self, name: str, values: Sequence[Any] | NDArray[Any] | None) -> Columns:
        """Return these columns with one set to other values, or without it (None).

        Args:
            name: the attribute.
            values: one per row: a text, a number (written by `number_text`; NaN is none), or None.
        """
        texts = dict(self.texts)
        texts.pop(name, None)
        if values is not None:
            listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
            texts |= Columns(self.n, {name: as_texts([_as_text(value) for value in listed])}).texts
        return Columns._of_checked(self.n, texts)

    def equals(self, other: Columns) -> bool:
        """Whether both have the same rows; a column that is None everywhere is no column."""
        if self.n != other.n or self.texts.keys() != other.texts.keys():
            return False
        return all(bool((column == other.texts[name]).all()) for name, column in self.texts.items())


def stacked(parts: Iterable[Columns]) -> Columns:
    """Return the rows of several tables below each other; an attribute that one lacks is None there."""
    listed = list(parts)
    names = dict.fromkeys(name for part in listed for name in part.texts)
    return Columns._of_checked(
        sum(part.n for part in listed),
        {name: _read_only(np.concatenate([part[name] for part in listed])) for name in names},
    )


def as_texts(values: Sequence[str | None]) -> Texts:
    """Return texts, or None, as an array of objects [n]."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


def number_text(value: float) -> str:
    """Return the shortest text that reads back as the same number: whole ones without a point, none truncated.

    Raises:
        InputError: the number is not finite.
    """
    number = float(value)
    if not isfinite(number):
        raise InputError(f"{number} cannot be written: give a finite number")
    if number.is_integer() and abs(number) <= _LARGEST_WHOLE and not (number == 0 and str(number)[0] == "-"):
        return str(int(number))
    return repr(number)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    return None if np.isnan(value) else number_text(value)


def _frozen(name: str, column: Texts, n: int) -> Texts | None:
    if column.dtype != object or column.shape != (n,):
        raise InputError(
            f"the column {name!r} is {column.dtype} {column.shape}: give {n} texts or None, as an array of objects"
        )
    kinds = set(map(type, column.tolist()))
    if not kinds <= {str, type(None)}:
        raise InputError(
            f"the column {name!r} holds {sorted(kind.__name__ for kind in kinds)}: give texts or None"
        )
    if str not in kinds:
        return None
    return _read_only(column)


def _read_only(column: Texts) -> Texts:
    frozen = column.view()
    frozen.flags.writeable = False
    return frozen


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
