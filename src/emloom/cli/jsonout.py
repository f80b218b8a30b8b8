"""What a command answers: lines for a person, or with `--json` one JSON value on stdout and nothing else there.

Progress, plans and warnings go to stderr in either case. What is not a number (nan, infinity) is null, which is
what JSON has; paths stand as they were given. The exit status says the same with and without `--json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path, PurePath
from typing import Any

import typer

Text = str | Iterable[str] | Callable[[], str]


def answer(as_json: bool, value: Any, text: Text) -> None:
    """Print the result of a command.

    Args:
        as_json: whether a program reads it.
        value: the result: plain values, or a report with `to_dict`, or a dataclass; nested as you like.
        text: the same for a person: lines, or a function that returns them.
    """
    if as_json:
        typer.echo(json.dumps(plain(value), indent=2, allow_nan=False))
        return
    said = text() if callable(text) else text
    typer.echo(said if isinstance(said, str) else "\n".join(said))


def answer_file(as_json: bool, path: Path, text: Text) -> None:
    """Print the result of a command that has written it as a JSON file: the file, or lines for a person."""
    answer(as_json, json.loads(path.read_text(encoding="utf-8")) if as_json else None, text)


def plain(value: Any) -> Any:
    """Return a value as JSON has it; raises `TypeError` for what it cannot hold."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return _composed(value)


def _composed(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "tolist"):  # arrays and numbers of numpy, without importing it
        return plain(value.tolist())
    if hasattr(value, "newbyteorder"):  # the type of an array's elements
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [plain(each) for each in value]
    raise TypeError(f"{type(value).__name__} is not something that JSON can hold")
