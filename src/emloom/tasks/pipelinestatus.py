"""How the stages of a pipeline stand: what is done, what would be done again, and which change is to blame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from emloom.io.files import write_text_atomic
from emloom.run.journal import Journal
from emloom.tasks.pipelinestages import PLACES, Stage

State = Literal["done", "new", "interrupted", "changed", "after"]


@dataclass(frozen=True)
class Standing:
    """How a stage stands.

    Attributes:
        stage: which.
        state: done; never done; cut short; done for other parameters or inputs; done, but not what it takes from.
        why: for a person: ``neurons.threshold 0.5 -> 0.6``, ``after segment``.
        seconds: how long it took, where it was done.
        removed: whether it was done, but what it made is not there any more.
    """

    stage: Stage
    state: State
    why: str
    seconds: float | None
    removed: bool = False

    @property
    def is_done(self) -> bool:
        """Whether its result may be used."""
        return self.state == "done"


@dataclass(frozen=True)
class Record:
    """What the folder of a pipeline remembers of its stages."""

    folder: Path

    @cached_property
    def journal(self) -> Journal:
        """The markers."""
        return Journal(self.folder)

    def save(self, stage: Stage, keys: Mapping[str, str]) -> None:
        """Write what went into a stage; before its marker."""
        path = self.folder / "markers" / f"{stage.name}.what.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(stage.what(keys), indent=1))

    def what(self, name: str) -> dict[str, Any] | None:
        """Return what went into a stage when it was done last; None where nobody knows."""
        try:
            text = (self.folder / "markers" / f"{name}.what.json").read_text(encoding="utf-8")
            what: dict[str, Any] = json.loads(text)
            return what
        except (OSError, ValueError):
            return None

    def standings(self, stages: Sequence[Stage]) -> list[Standing]:
        """Return how every stage stands; raises `InputError` where a marker is damaged."""
        keys = {stage.name: stage.key for stage in stages}
        return [self._standing(stage, keys) for stage in stages]

    def _standing(self, stage: Stage, keys: Mapping[str, str]) -> Standing:
        marker = self.journal.marker(stage.name)
        there = self._is_there(stage.name)
        if marker is None:
            begun = there or self._is_begun(stage.name)
            return Standing(stage, "interrupted" if begun else "new", "goes on" if begun else "", None)
        if marker.key == stage.key:
            return Standing(stage, "done", "" if there else "its result was removed", marker.seconds, not there)
        before = self.what(stage.name)
        if before is None or before["key"] != marker.key:
            return Standing(stage, "changed", "nobody knows what it was made from", marker.seconds)
        changes = differences(before, stage.what(keys))
        if changes:
            return Standing(stage, "changed", "; ".join(changes), marker.seconds)
        again = [n for n in stage.after if before["after"].get(n) != keys[n]]
        again += [n for n in before["after"] if n not in stage.after]
        return Standing(stage, "after", "after " + ", ".join(again), marker.seconds)

    def _is_there(self, name: str) -> bool:
        return (self.folder / PLACES[name]).exists()

    def _is_begun(self, name: str) -> bool:
        place = Path(PLACES[name])
        return (self.folder / f"{place.stem}.unfinished{place.suffix}").exists()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two records of a stage, for a person; other stages are not looked at."""
    out = list(_different(before["parameters"], now["parameters"], ""))
    old, new = before["inputs"], now["inputs"]
    for name in sorted({*old, *new}):
        if name not in new:
            out.append(f"input {name} is not asked for any more")
        elif name not in old:
            out.append(f"input {name} is new")
        elif old[name][0] != new[name][0]:
            out.append(f"{name} {old[name][0]} -> {new[name][0]}")
        elif old[name][1] != new[name][1]:
            out.append(f"input {name} has changed since: {new[name][0]}")
    return out


def _different(before: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from _different(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path} {_short(before)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def to_do(standings: Sequence[Standing]) -> set[str]:
    """Return the stages that have to be done: those that are not, and those whose removed result these need."""
    todo = {standing.stage.name for standing in standings if not standing.is_done}
    for standing in reversed(standings):
        needed = any(standing.stage.name in s.stage.after for s in standings if s.stage.name in todo - {"report"})
        if standing.removed and needed:
            todo.add(standing.stage.name)
    return todo
