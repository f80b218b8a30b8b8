"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

import emloom
from emloom.spec import Spec

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = (
    "torch",
    "lightning_fabric",
    "numba",
    "tensorstore",
    "matplotlib",
    "pyarrow",
    "scipy",
    "tensorboard",
    "duckdb",
)


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nsys.stdout.write(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return {name.partition(".")[0] for name in run.stdout.split()}


@pytest.mark.parametrize("module", ["emloom", "emloom.spec", "emloom.geometry", "emloom.cli.main"])
def test_the_start_is_light(module: str) -> None:
    heavy = loaded_by(f"import {module}") & set(HEAVY)
    assert not heavy, f"import {module} loads {sorted(heavy)}: import it where it is used"


def test_help_is_light() -> None:
    loaded = loaded_by(
        "import contextlib, io, sys\nfrom emloom.cli.main import main\nsys.argv = ['emloom', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    try:\n        main()\n    except SystemExit as done:\n        assert not done.code\n"
        "assert 'Usage' in out.getvalue(), out.getvalue()"
    )
    assert not loaded & set(HEAVY)


def test_importing_configures_no_logging() -> None:
    run = "import emloom.cli.main, logging, sys\nsys.exit(len(logging.getLogger().handlers))"
    assert subprocess.run([sys.executable, "-c", run], check=False, cwd=ROOT).returncode == 0


# ---- every Spec -----------------------------------------------------------------------------------------------


def all_specs() -> Iterator[type[Spec]]:
    for found in pkgutil.walk_packages(emloom.__path__, "emloom."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    pending = list(Spec.__subclasses__())
    while pending:
        spec = pending.pop()
        pending += spec.__subclasses__()
        if spec.__module__.startswith("emloom."):
            yield spec


def parts(annotation: Any) -> Iterator[Any]:
    yield get_origin(annotation) or annotation
    for part in get_args(annotation):
        yield from parts(part)


def test_every_spec_is_small_explained_and_frozen() -> None:
    specs = list(all_specs())
    assert specs
    for spec in specs:
        name = f"{spec.__module__}.{spec.__name__}"
        assert len(spec.model_fields) <= 10, f"{name} has more than 10 fields: nest a Spec"
        assert spec.__doc__, f"{name} has no docstring"
        for field, info in spec.model_fields.items():
            wrong = {list, set, frozenset} & {p for p in parts(info.annotation) if isinstance(p, type)}
            # A list inside a frozen value can still change; a set has no order, so its hash differs per process.
            assert not wrong, f"{name}.{field} holds {wrong}: use a tuple"


# ---- every file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_file_has_one_screenful_of_concepts_and_says_which(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, "split it: a file has at most 400 lines"
    assert ast.get_docstring(ast.parse(text)), "a module says what it is for"


def test_the_tests_mirror_the_package() -> None:
    packages = {path.parent.name for path in SOURCES if path.parent.parent.name == "emloom"}
    tested = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    strangers = tested - packages
    assert not strangers, f"tests/{sorted(strangers)} test no package of src/emloom"
