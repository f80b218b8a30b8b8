"""Tables as text, for people who look at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SHOWN = 50


def text_table(columns: Sequence[str], rows: Sequence[dict[str, Any]], *, all_of_it: str = "--csv FILE") -> str:
    """Return columns as text, right-aligned under their names, at most 50 rows.

    Args:
        columns: their names, also where there is no row.
        rows: values by name.
        all_of_it: what to type to get the rows that are not shown.
    """
    texts = [list(columns), *([_cell(row[name]) for name in columns] for row in rows[:_SHOWN])]
    widths = [max(len(line[k]) for line in texts) for k in range(len(columns))]
    lines = ["  ".join(f"{text:>{width}}" for text, width in zip(line, widths, strict=True)) for line in texts]
    if len(rows) > _SHOWN:
        lines.append(f"... {len(rows) - _SHOWN} more rows: {all_of_it} writes them all")
    return "\n".join(lines) if rows else f"{lines[0]}\nno rows"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) and abs(value) < 1000 else _long(value)


def _long(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
