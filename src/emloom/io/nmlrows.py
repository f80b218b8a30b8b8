"""Attributes of many elements, one after the other, gathered into columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from emloom.errors import InputError
from emloom.geometry.columns import Columns, as_texts, stacked

MOST_ATTRIBUTES = 200
"""Different attributes of nodes, trees or edges: each is a column, with a place for every row."""
# So few that their texts are still in the processor's cache when they become columns.
_AT_ONCE = 1 << 10
Values = dict[str, str]


class AttributeRows:
    """Attributes of many elements, gathered into columns a batch at a time to save memory."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.batch: list[Values] = []
        self.parts: list[Columns] = []

    def add(self, values: Values) -> None:
        """Take the attributes of the next element."""
        self.batch.append(values)
        if len(self.batch) == _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Make columns of what was taken since the last time."""
        shapes = dict.fromkeys(map(tuple, self.batch))  # names of attributes in their order
        names: dict[str, None] = {}
        for shape in shapes:
            names |= dict.fromkeys(shape)
            refuse_many(names, self.source)
        columns: Iterable[Sequence[str | None]]
        if len(shapes) == 1:  # as nearly always
            columns = zip(*map(dict.values, self.batch), strict=True)
        else:
            columns = ([values.get(name) for values in self.batch] for name in names)
        texts = {name: as_texts(_shared(column)) for name, column in zip(names, columns, strict=True)}
        self.parts.append(Columns(len(self.batch), texts))
        self.batch = []

    def columns(self) -> Columns:
        """Return the attributes of all elements.

        Raises:
            InputError: there are more than `MOST_ATTRIBUTES` different ones.
        """
        self.flush()
        refuse_many(dict.fromkeys(name for part in self.parts for name in part.texts), self.source)
        return self.parts[0] if len(self.parts) == 1 else stacked(self.parts)


def refuse_many(names: dict[str, None], source: str) -> None:
    """Raise `InputError` where there are more than `MOST_ATTRIBUTES` names."""
    if len(names) > MOST_ATTRIBUTES:
        raise InputError(
            f"the elements of {source} have more than {MOST_ATTRIBUTES} different attributes, {list(names)[-1]!r} "
            "the last: no tracing has; export it again"
        )


def _shared(column: Sequence[str | None]) -> Sequence[str | None]:
    """Return the column with equal texts as one object, where many are equal."""
    some = column[:: 1 + len(column) // 1000]
    if 4 * len(set(some)) > len(some):
        return column
    one_of = {text: text for text in column}
    return [one_of[text] for text in column]
