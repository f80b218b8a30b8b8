"""What the classes of a volume are called.

Beside a volume of classes or of their probabilities, in its container, lies `classes.yaml`::

    names: [cytoplasm, membrane, mitochondrion]      class 0 first

or, beside masks that were combined, the `classes` of a semantic job, each with its name and ids.
Where there is none, `provenance.json` there is asked for names, then the model that it names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from emloom.errors import InputError
from emloom.io.files import write_text_atomic
from emloom.io.open import open_volume
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


def names_of(predicted: str, given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the classes of a volume of probabilities, for what speaks of classes by name.

    Args:
        predicted: the volume, with a channel per class.
        given: names that overrule what is known.

    Raises:
        InputError: nobody says what they are called, there is another number of names, or one stands twice.
    """
    count = open_volume(predicted).info.channels
    if not given and not _known(Path(predicted).parent):
        raise InputError(
            f"nothing beside {predicted} says what its {count} classes are called: pass --names a,b,c"
        )
    return class_names(predicted, count or 1, given)


def class_values(path: str, names: Sequence[str]) -> tuple[int, ...]:
    """Return the values that stand for the classes where people paint: those that the model learned from.

    1, 2, 3, .. where nobody knows them, or one is 0 (undefined there) or does not fit an 8-bit image.
    """
    objective = _objective(Path(path).parent)
    known = {} if objective is None else {each.name: each.ids[0] for each in objective.classes}
    values = [known.get(name, 0) for name in names]
    if all(0 < value < 256 for value in values):
        return tuple(values)
    return tuple(range(1, len(names) + 1))


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
            words = yaml.safe_load(said.read_text(encoding="utf-8"))
            names = words["names"] if "names" in words else [each["name"] for each in words["classes"]]
            return tuple(str(name) for name in names)
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as problem:
            raise InputError(f"{said} is damaged ({problem!r}): write `names: [...]`, or give --names") from None
    said_names = provenance_of(str(folder / "classes")).get("spec", {}).get("names")
    if said_names:
        return tuple(str(name) for name in said_names)
    objective = _objective(folder)
    return () if objective is None else objective.names


def _objective(folder: Path) -> SemanticObjective | None:
    """Return what the model of a container learned; None where it names none, or one that is gone.

    Of probabilities that were refined, it is the model of those they were made from.
    """
    spec = provenance_of(str(folder / "classes")).get("spec", {})
    model, before = spec.get("model"), spec.get("predicted")
    if model is None and before is not None and Path(before).parent != folder:
        return _objective(Path(before).parent)
    if model is None or not Path(model).is_file():
        return None
    objective = ModelSpec.from_yaml(load_checkpoint(Path(model))[1], f"the spec inside {model}").objective
    return objective if isinstance(objective, SemanticObjective) else None
