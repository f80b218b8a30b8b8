"""What the classes of a volume are called.

Beside a volume of classes or of their probabilities, in its container, lies `classes.yaml`::

    names: [cytoplasm, membrane, mitochondrion]      class 0 first

Where there is none, the model that `provenance.json` there names is asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from emloom.errors import InputError
from emloom.io.files import write_text_atomic
from emloom.nn.checkpoint import load_checkpoint
from emloom.nn.model import ModelSpec
from emloom.nn.objectives.semantic import SemanticObjective

NAMES = "classes.yaml"


def class_names(path: str, count: int, given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the classes of a volume; their numbers where nobody knows.

    Args:
        path: of the volume, in its container.
        count: how many classes there are.
        given: names that overrule what is known.

    Raises:
        InputError: there is another number of names, or one stands twice.
    """
    names = tuple(given) or _known(Path(path).parent)
    if not names:
        return tuple(str(number) for number in range(count))
    if len(names) != count or len(set(names)) < count:
        raise InputError(
            f"{path} has {count} classes, and {len(names)} names: {', '.join(names)}: give each class one name of "
            "its own, class 0 first (--names)"
        )
    return names


def write_names(folder: Path, names: Sequence[str]) -> None:
    """Write the names of the classes into a container."""
    write_text_atomic(folder / NAMES, yaml.safe_dump({"names": list(names)}, sort_keys=False, allow_unicode=True))


def provenance_of(path: str) -> dict[str, Any]:
    """Return what made a volume, as its container says; empty where it says nothing."""
    try:
        record: dict[str, Any] = json.loads((Path(path).parent / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _known(folder: Path) -> tuple[str, ...]:
    said = folder / NAMES
    if said.is_file():
        try:
            return tuple(str(name) for name in yaml.safe_load(said.read_text(encoding="utf-8"))["names"])
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as problem:
            raise InputError(f"{said} is damaged ({problem!r}): write `names: [...]`, or give --names") from None
    model = provenance_of(str(folder / "classes")).get("spec", {}).get("model")
    if model is None or not Path(model).is_file():
        return ()
    objective = ModelSpec.from_yaml(load_checkpoint(Path(model))[1], f"the spec inside {model}").objective
    return objective.names if isinstance(objective, SemanticObjective) else ()
