"""What the classes of stored probabilities are called: as said, or as their own records say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.io.open import open_volume


def names_of(predicted: str, given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the classes of a volume of probabilities, in the order of its channels.

    Args:
        predicted: the volume.
        given: names that somebody says; () to look into its records: those of the model that predicted it, or of
            what it was refined from.

    Raises:
        InputError: names are not given and not recorded, are not as many as channels, or one stands twice.
    """
    names = tuple(given) or _recorded(predicted)
    channels = open_volume(predicted).info.channels
    if not names:
        raise InputError(
            f"nothing beside {predicted} says what its {channels} classes are called: pass --names a,b,c"
        )
    if len(names) != channels or len(set(names)) < len(names):
        raise InputError(
            f"{predicted} has {channels} channels, and the names are {', '.join(names)}: name every class, each "
            "differently, in the order of the channels"
        )
    return names


def _recorded(predicted: str) -> tuple[str, ...]:
    record = Path(predicted).parent / "provenance.json"
    try:
        spec: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))["spec"]
    except (OSError, ValueError, TypeError, KeyError):
        return ()
    if spec.get("names"):
        return tuple(str(name) for name in spec["names"])
    model = spec.get("model")
    return _learned(Path(model)) if isinstance(model, str) and Path(model).is_file() else ()


def _learned(model: Path) -> tuple[str, ...]:
    from emloom.nn.model import load
    from emloom.nn.objectives.semantic import SemanticObjective

    objective = load(model)[0].objective
    return objective.names if isinstance(objective, SemanticObjective) else ()
