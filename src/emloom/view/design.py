"""The one design of every page: its colours, its script, and what its Content-Security-Policy lets through.

Colours have two values, for a light and for a dark page; which of them holds is what the system prefers until a
person chooses (`data-theme` on the root element, set by the script and remembered). They are written here, once:
reports and the labelling page take the same style sheet, and tests compute contrast ratios from it.

A page is one file. Its script is inside, and the policy names the script's hash: nothing else can run, whatever
text gets onto the page.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

COLOURS: dict[str, tuple[str, str]] = {
    "ground": ("#fbfbfa", "#14171b"),
    "surface": ("#ffffff", "#1b1f24"),
    "ink": ("#1d2127", "#e4e7ea"),
    "soft": ("#59616c", "#a3acb6"),
    "line": ("#dcdfe3", "#363d45"),
    "accent": ("#0d6680", "#63c3dc"),
    "accent-soft": ("#e6f2f5", "#16303a"),
    "good": ("#0a6f4d", "#4fcf9f"),
    "good-soft": ("#e5f4ee", "#132e25"),
    "warning": ("#855408", "#e2b04c"),
    "warning-soft": ("#fbf1dd", "#332813"),
    "bad": ("#a93419", "#f08a6c"),
    "bad-soft": ("#fbeae5", "#3a1d15"),
    "card": ("#ffffff", "#f1f3f5"),
    "on": ("#ffffff", "#14171b"),
}
"""Name -> (on a light page, on a dark one). `card` lies below every picture: light in both, for ink is dark."""

_LIGHT, _DARK = 0, 1


def colours_css() -> str:
    """Return the colours as CSS variables: the system's choice, a person's choice, and those of paper."""
    light, dark = _variables(_LIGHT), _variables(_DARK)
    return (
        f":root {{\n  color-scheme: light dark;\n{light}}}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme='light']) {{\n{dark}}} }}\n"
        f":root[data-theme='light'] {{ color-scheme: light; }}\n"
        f":root[data-theme='dark'] {{\n  color-scheme: dark;\n{dark}}}\n"
        f"@media print {{ :root:root:root {{\n  color-scheme: light;\n{light}}} }}\n"
    )


def _variables(which: int) -> str:
    return "".join(f"  --{name}: {values[which]};\n" for name, values in COLOURS.items())


def part(name: str) -> str:
    """Return a file of the templates as text."""
    return files("emloom.view").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def page_script() -> str:
    """Return the script of a report."""
    return part("theme.js") + part("report.js")


@cache
def policy() -> str:
    """Return the Content-Security-Policy of a report: pictures inside it, its own styles, its own script."""
    digest = b64encode(sha256(page_script().encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
