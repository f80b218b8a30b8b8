"""What the shell offers behind an option or argument: names that exist, found without importing anything heavy.

`emloom --install-completion` sets it up for bash, zsh and fish.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from pathlib import Path


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Return a function that offers those of some words that begin as what is typed."""

    def offer(incomplete: str) -> list[str]:
        return _beginning(words, incomplete)

    return offer


def recipes(incomplete: str) -> list[str]:
    """Offer the recipes that come with emloom, and job files here."""
    files = [] if ":" in incomplete else [str(path) for path in _job_files(incomplete)]
    return [*files, *_beginning(recipe_names(), incomplete)]


def recipe_names() -> list[str]:
    """Return every recipe as ``emloom.recipes.module:function``, read from the source without running it."""
    folder = Path(__file__).parents[1] / "recipes"
    return [
        f"emloom.recipes.{path.stem}:{function.name}"
        for path in sorted(folder.glob("[a-z]*.py"))
        for function in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(function, ast.FunctionDef) and _returns_job(function)
    ]


def datasets(incomplete: str) -> list[str]:
    """Offer the names of public data sets."""
    from emloom.io.registry import REGISTRY

    return _beginning(REGISTRY, incomplete)


def kinds(incomplete: str) -> list[str]:
    """Offer what the values of a volume may mean."""
    from typing import get_args

    from emloom.io.volume import Kind

    return _beginning(get_args(Kind), incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def _job_files(incomplete: str) -> list[Path]:
    folder = Path(incomplete).parent if incomplete and not incomplete.endswith("/") else Path(incomplete or ".")
    try:
        found = sorted(
            path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.name[0] != "."
        )
    except OSError:
        return []
    return [path for path in found if str(path).startswith(incomplete)]


def _returns_job(function: ast.FunctionDef) -> bool:
    made = ast.unparse(function.returns) if function.returns is not None else ""
    return not function.name.startswith("_") and made.endswith(("Job", "Study")) and made != "CombineJob"
