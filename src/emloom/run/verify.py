"""Is what the markers say still true? And: how far did a run come?

A marker holds the hashes of what its block wrote. `verify` reads every output again, as a later stage would, and
compares; `forget` removes the markers of what is damaged, so that the next run makes it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emloom.geometry import Box, Vec
from emloom.io.open import open_volume
from emloom.run.blockjournal import BlockJournal, Failure, journals, name_of
from emloom.run.executor import Executor, Serial
from emloom.run.stage import Output, array_hash, file_hash


class Keyed(Protocol):
    """What names a stage of a folder: a `Stage`, or a `StageStatus`."""

    @property
    def name(self) -> str:
        """Name of the stage."""

    @property
    def key(self) -> str:
        """Hash of what decides its outputs."""


@dataclass(frozen=True)
class Damage:
    """Something that is not as its marker says.

    Attributes:
        index: the block.
        place: the output, or the marker itself, as a path.
        reason: what is wrong with it.
    """

    index: Vec
    place: str
    reason: str

    def __str__(self) -> str:
        return f"block {name_of(self.index)}: {self.place}: {self.reason}"


@dataclass(frozen=True)
class StageStatus:
    """How far a stage came.

    Attributes:
        name: of the stage.
        key: hash of what decides its outputs.
        total: blocks in all; None where its plan cannot be read.
        done: blocks with a marker.
        failures: blocks that failed last time and are not done, in z, y, x order.
        started: seconds since 1970; None where its plan cannot be read.
    """

    name: str
    key: str
    total: int | None
    done: int
    failures: tuple[Failure, ...]
    started: float | None

    @property
    def failed(self) -> int:
        """How many blocks failed last time and are not done."""
        return len(self.failures)

    @property
    def is_done(self) -> bool:
        """Whether every block is."""
        return self.done == self.total


def status(folder: str | Path) -> list[StageStatus]:
    """Return how far each stage of a run came, in the order they were started; empty for a folder without any."""
    found = []
    for journal in journals(folder):
        plan = journal.plan()
        total, started = (None, None) if plan is None else (plan.blocks, plan.started)
        counted = StageStatus(
            journal.stage, journal.key, total, len(journal.marked()), tuple(journal.failures()), started
        )
        found.append(counted)
    return found


def verify(
    folder: str | Path,
    stage: Keyed,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Damage]:
    """Read everything again that the blocks of a stage wrote, and compare it with their markers.

    Args:
        folder: output folder of the run.
        stage: which stage; only its name and key are looked at.
        executor: where to read (default: here).
        progress: called with (blocks compared, blocks in all).

    Returns:
        What is damaged, in order of blocks; a block may have several damages.
    """
    journal = BlockJournal(Path(folder), stage.name, stage.key)
    marked = sorted(journal.marked())
    found: list[Damage] = []
    with closing((Serial() if executor is None else executor).map(_Check(journal), marked)) as attempts:
        for count, attempt in enumerate(attempts, 1):
            if attempt.result is None:
                found.append(Damage(attempt.item, str(journal.home), f"could not be read: {attempt.error}"))
            else:
                found += attempt.result
            if progress is not None:
                progress(count, len(marked))
    return sorted(found, key=lambda damage: (damage.index, damage.place))


def forget(folder: str | Path, stage: Keyed, blocks: Iterable[Vec]) -> None:
    """Remove the markers of some blocks, so that the next run does them again."""
    BlockJournal(Path(folder), stage.name, stage.key).forget(list(blocks))


@dataclass(frozen=True)
class _Check:
    """Compares the outputs of one block with its marker."""

    journal: BlockJournal

    def __call__(self, index: Vec) -> list[Damage]:
        marker = self.journal.marker(index)
        if marker is None:
            return [Damage(index, str(self.journal.marker_path(index)), "the marker is damaged")]
        checked = ((output, self._problem(output)) for output in marker.outputs)
        return [Damage(index, output.place, problem) for output, problem in checked if problem is not None]

    def _problem(self, output: Output) -> str | None:
        path = output.place if "://" in output.place else str(self.journal.folder / output.place)
        try:
            now = file_hash(path) if output.box is None else _box_hash(path, Box(*output.box))
        except Exception as problem:  # noqa: BLE001 (damaged data may make a reader raise anything)
            return f"cannot be read: {problem}"
        if now == output.xxh64:
            return None
        where = "the file" if output.box is None else str(Box(*output.box))
        return f"{where} is not what was written (hash {now}, written {output.xxh64})"


def _box_hash(path: str, box: Box) -> str:
    return array_hash(open_volume(path).read(box))
