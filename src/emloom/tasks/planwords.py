"""A job file with the reason beside every choice, and what a plan says to a person.

The file holds what was chosen and what has no default; everything else has its default. It says the same as the
value: ``PipelineJob.from_yaml(annotated(job, notes)) == job``. Notes are keyed by the path of what they explain::

    ("neurons", "source", "job", "objective", "lsd_sigma_nm"): "half the median width of your neurites, 126 nm"
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from emloom.spec import Spec

Path = tuple[str | int, ...]
_WIDTH = 112
_PER_LINE = 6
_FIRST = ("kind", "name", "raw", "labels", "synapses", "neurons")
"""What a person looks for first."""


class Notes(dict[Path, str]):
    """Reasons by path."""

    def below(self, *prefix: str | int) -> Notes:
        """Return the same notes, further down."""
        return Notes({(*prefix, *path): text for path, text in self.items()})


def annotated(job: Spec, notes: Mapping[Path, str], head: Sequence[str] = (), tail: Sequence[str] = ()) -> str:
    """Return a job file.

    Args:
        job: what it says.
        notes: reasons; a field with one is written even where it has its default.
        head: comment lines above everything, without their `#`.
        tail: comment lines below.
    """
    lines = [*_comment(head), *_fields(job, notes, (), 0)]
    if tail:
        lines += ["", *_comment(tail)]
    return "\n".join(lines) + "\n"


def _comment(lines: Sequence[str]) -> list[str]:
    return [f"# {part}".rstrip() for line in lines for part in _wrapped(line)]


def _wrapped(line: str) -> list[str]:
    return [line] if len(line) <= _WIDTH else textwrap.wrap(line, _WIDTH)


def _fields(spec: Spec, notes: Mapping[Path, str], path: Path, depth: int) -> Iterator[str]:
    """Yield the lines of the fields of a value."""
    plain, known = spec.to_dict(), type(spec).model_fields
    for name in sorted(known, key=lambda each: _FIRST.index(each) if each in _FIRST else len(_FIRST)):
        field = known[name]
        value = getattr(spec, name)
        here = (*path, name)
        noted = any(each[: len(here)] == here for each in notes)
        default = not field.is_required() and value == field.get_default(call_default_factory=True)
        if not default or noted or name == "kind":
            yield from _field(name, value, plain[name], notes, here, depth)


def _field(name: str, value: Any, plain: Any, notes: Mapping[Path, str], path: Path, depth: int) -> Iterator[str]:
    pad = " " * depth
    note = notes.get(path)
    if note is not None:
        yield from (f"{pad}# {line}" for line in textwrap.wrap(note, _WIDTH - depth - 2))
    if isinstance(value, Spec):
        inside = list(_fields(value, notes, path, depth + 2))
        yield f"{pad}{name}:" if inside else f"{pad}{name}: {{}}"
        yield from inside
    elif isinstance(value, tuple) and value and isinstance(value[0], Spec):
        yield f"{pad}{name}:"
        for number, item in enumerate(value):
            yield from _item(item, plain[number], notes, (*path, number), depth + 2)
    else:
        yield from _leaf(f"{pad}{name}: ", plain)


def _item(item: Spec, plain: Any, notes: Mapping[Path, str], path: Path, depth: int) -> Iterator[str]:
    """Yield the lines of one item of a list: on one line, if all its fields are short."""
    pad = " " * depth
    note = notes.get(path)
    if note is not None:
        yield from (f"{pad}# {line}" for line in textwrap.wrap(note, _WIDTH - depth - 2))
    if all(not isinstance(getattr(item, name), Spec) for name in type(item).model_fields) and len(plain) <= 3:
        yield f"{pad}- {_flow(plain)}"
        return
    lines = list(_fields(item, notes, path, depth + 2))
    first = next(k for k, line in enumerate(lines) if not line.lstrip().startswith("#"))
    # The dash stands before the first key; comments above that key stand above the dash.
    for line in lines[:first]:
        yield line[2:]
    yield f"{pad}- {lines[first].lstrip()}"
    yield from lines[first + 1 :]


def _leaf(start: str, plain: Any) -> Iterator[str]:
    """Yield a plain value; lists of lists are broken into several lines."""
    if not (isinstance(plain, list) and len(plain) > _PER_LINE and isinstance(plain[0], list)):
        yield start + _flow(plain)
        return
    pad = " " * (len(start) - len(start.lstrip()) + 2)
    rows = [plain[k : k + _PER_LINE] for k in range(0, len(plain), _PER_LINE)]
    yield f"{start}["
    for row in rows:
        yield pad + ", ".join(_flow(each) for each in row) + ","
    yield f"{pad}]"


def _flow(plain: Any) -> str:
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def columns(rows: Sequence[tuple[str, str]], width: int = 14) -> list[str]:
    """Return lines of words and what is said of them, long ones wrapped below themselves."""
    out = []
    for word, text in rows:
        wrapped = textwrap.wrap(text, 100) or [""]
        out.append(f"  {word:<{width}}{wrapped[0]}")
        out += [" " * (width + 2) + line for line in wrapped[1:]]
    return out
