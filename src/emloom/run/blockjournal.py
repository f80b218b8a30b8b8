"""Which blocks of a stage are done, and which failed: files that tell it, with no server to lose them.

Everything a stage remembers lies in one folder per stage and key::

    OUT/run/<stage>/<key>/plan.json            how many blocks there are, who started it and when
                          done/z_y_x.json      a block that is whole: what it wrote, with hashes; written last
                          failed/z_y_x.json    the last failure of a block, and its traceback; gone once done

A marker is written beside its place, flushed and renamed, after the outputs it speaks of: a crash at any moment
leaves a block with a marker and all of its outputs, or without a marker, and then it runs again.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import emloom
from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.io.files import write_text_atomic
from emloom.run.stage import Output

ROOT = "run"
_NAME = re.compile(r"^(-?\d+)_(-?\d+)_(-?\d+)\.json$")
_LEFTOVER = re.compile(r"^\..*\.partial-[0-9a-f]{8}\.json$")
_LEFTOVER_AGE_S = 3600.0  # a younger one may be of a worker that is writing it now
_READERS = 16  # markers on a network disk are read side by side: each one waits for the server


@dataclass(frozen=True)
class BlockMarker:
    """The record of a block that is whole.

    Attributes:
        index: its lattice position.
        outputs: what it wrote.
        seconds: how long that took.
        host: the machine that wrote it.
        version: of emloom.
    """

    index: Vec
    outputs: tuple[Output, ...]
    seconds: float
    host: str
    version: str


@dataclass(frozen=True)
class Failure:
    """The last failure of a block.

    Attributes:
        index: its lattice position.
        error: type and message, in one paragraph.
        attempts: how often it was tried in that run.
        host: the machine where it failed.
        traceback: of the failure; empty where there is none, for example of a worker that was killed.
    """

    index: Vec
    error: str
    attempts: int
    host: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Plan:
    """What a stage set out to do: number of blocks, emloom's version, seconds since 1970."""

    stage: str
    key: str
    blocks: int
    version: str
    started: float


@dataclass(frozen=True)
class BlockJournal:
    """The memory of one stage under one key. A value that travels to workers; opening it costs nothing.

    Attributes:
        folder: the output folder of the run.
        stage: name of the stage.
        key: hash of what decides its outputs.
    """

    folder: Path
    stage: str
    key: str

    @property
    def home(self) -> Path:
        """Folder of everything this journal writes."""
        return self.folder / ROOT / self.stage / self.key

    @property
    def failed_folder(self) -> Path:
        """Folder of the failures, with their tracebacks."""
        return self.home / "failed"

    def marker_path(self, index: Vec) -> Path:
        """Path of a block's marker."""
        return self._path(self._done, index)

    def start(self, n_blocks: int) -> None:
        """Write the plan, and remove what writers that were killed long ago left behind.

        Raises:
            InputError: the folder holds this stage under another key, or the disk refuses.
        """
        others = [j for j in journals(self.folder) if j.stage == self.stage and j.key != self.key]
        if others:
            raise InputError(
                f"{self.folder} holds stage {self.stage!r} of another job (its parameters or inputs changed; key "
                f"{others[0].key} there, {self.key} now): choose another output folder, or pass --overwrite to "
                "run this stage and all after it again"
            )
        plan = self.plan()
        if plan is None or plan.blocks != n_blocks:
            plan = Plan(self.stage, self.key, n_blocks, emloom.__version__, time.time())
            write_text_atomic(self.home / "plan.json", json.dumps(asdict(plan)))
        for folder in (self._done, self.failed_folder):
            _sweep(folder)

    def plan(self) -> Plan | None:
        """Return the plan; None where there is none that can be read."""
        try:
            return Plan(**json.loads((self.home / "plan.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def marked(self) -> set[Vec]:
        """Return the blocks that have a marker, from one listing of the folder; none of them is opened."""
        return set(_listed(self._done))

    def done(self) -> dict[Vec, BlockMarker]:
        """Return the markers of blocks that are done; a damaged marker counts as none."""
        listed = list(_listed(self._done))
        shares = [listed[first::_READERS] for first in range(_READERS)]
        with ThreadPoolExecutor(_READERS) as pool:
            read = chain.from_iterable(pool.map(self._markers, shares))
            return {marker.index: marker for marker in read if marker is not None}

    def _markers(self, indices: Sequence[Vec]) -> list[BlockMarker | None]:
        return [self.marker(index) for index in indices]

    def marker(self, index: Vec) -> BlockMarker | None:
        """Return the marker of a block; None where it is missing, damaged, or of something else."""
        try:
            plain = json.loads(self.marker_path(index).read_text(encoding="utf-8"))
            outputs = tuple(Output.from_dict(output) for output in plain["outputs"])
            names = (plain["stage"], plain["key"], tuple(plain["block"]))
            marker = BlockMarker(
                index, outputs, float(plain["seconds"]), str(plain["host"]), str(plain["version"])
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return marker if names == (self.stage, self.key, index) else None

    def mark(self, index: Vec, outputs: Sequence[Output], seconds: float) -> None:
        """Say that a block is whole; the last thing that is written for it.

        Raises:
            InputError: the disk is full, read-only or not permitted.
        """
        marker = {
            **self._names(index),
            "outputs": [output.to_dict() for output in outputs],
            "seconds": round(seconds, 3),
            "host": socket.gethostname(),
            "version": emloom.__version__,
        }
        write_text_atomic(self.marker_path(index), json.dumps(marker))
        with suppress(OSError):
            self._path(self.failed_folder, index).unlink(missing_ok=True)

    def note(self, failure: Failure) -> bool:
        """Write down a failure; returns whether the disk took it."""
        plain = {**self._names(failure.index), **asdict(failure)}
        del plain["index"]
        try:
            write_text_atomic(self._path(self.failed_folder, failure.index), json.dumps(plain, indent=2))
        except (OSError, InputError):
            return False
        return True

    def failures(self) -> list[Failure]:
        """Return the failures of blocks without a marker, in z, y, x order."""
        marked = self.marked()
        found = [self.failure(index) for index in sorted(_listed(self.failed_folder)) if index not in marked]
        return [failure for failure in found if failure is not None]

    def failure(self, index: Vec) -> Failure | None:
        """Return the last failure of a block; None where there is none."""
        try:
            plain = json.loads(self._path(self.failed_folder, index).read_text(encoding="utf-8"))
            return Failure(index, plain["error"], plain["attempts"], plain["host"], plain["traceback"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as problem:
            return Failure(index, f"its record is damaged ({problem})", 0)

    def forget(self, indices: Sequence[Vec]) -> None:
        """Remove the markers of some blocks, so that they run again."""
        for index in indices:
            self.marker_path(index).unlink(missing_ok=True)

    @property
    def _done(self) -> Path:
        return self.home / "done"

    def _path(self, folder: Path, index: Vec) -> Path:
        return folder / f"{name_of(index)}.json"

    def _names(self, index: Vec) -> dict[str, Any]:
        return {"stage": self.stage, "key": self.key, "block": list(index)}


def name_of(index: Vec) -> str:
    """Return the name of a block in files and messages, ``z_y_x``."""
    return "_".join(map(str, index))


def journals(folder: str | Path) -> list[BlockJournal]:
    """Return every stage and key that a run's folder remembers, in the order they were started."""
    root = Path(folder) / ROOT
    found = [BlockJournal(Path(folder), p.parent.parent.name, p.parent.name) for p in root.glob("*/*/plan.json")]
    plans: Mapping[BlockJournal, Plan | None] = {journal: journal.plan() for journal in found}

    def order(journal: BlockJournal) -> tuple[float, str, str]:
        plan = plans[journal]
        return (plan.started if plan else 0.0, journal.stage, journal.key)

    return sorted(found, key=order)


def _listed(folder: Path) -> Iterator[Vec]:
    """Yield the blocks named by the files of a folder, in one pass and without looking at any file."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if match := _NAME.match(entry.name):
                z, y, x = map(int, match.groups())
                yield (z, y, x)


def _sweep(folder: Path) -> None:
    with suppress(OSError), os.scandir(folder) as entries:
        old = [
            e.path
            for e in entries
            if _LEFTOVER.match(e.name) and time.time() - e.stat().st_mtime > _LEFTOVER_AGE_S
        ]
        for path in old:
            Path(path).unlink(missing_ok=True)
