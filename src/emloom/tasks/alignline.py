"""An alignment while it is made: its stages, and what is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block
from emloom.geometry.planar import PlanarMap
from emloom.run.executor import Executor
from emloom.run.stage import Output
from emloom.tasks.alignsource import Source
from emloom.tasks.alignspec import AlignJob
from emloom.tasks.scorestages import Stages

F64 = NDArray[np.float64]
Table = dict[str, NDArray[Any]]
OnBlock = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Found:
    """An alignment.

    Attributes:
        maps: per section of the raw, in its pixels, to the common frame.
        table: one row per section: columns of `sections.csv`.
        notes: what a person should know, in sentences.
        facts: plain values for `align.json`.
    """

    maps: Sequence[PlanarMap]
    table: Table
    notes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """The stages of one alignment.

    Attributes:
        job: what is asked.
        source: the stack.
        folder: where the result grows.
        key: hash of everything that the first stage depends on.
        executor: where blocks run.
        on_block: called with (stage, blocks done, blocks in all).
        stays: the section that stays, once it is known that the one asked for cannot.
    """

    job: AlignJob
    source: Source
    folder: Path
    key: str
    executor: Executor
    on_block: OnBlock | None
    stays: int | None = None

    def run(self, name: str, key: str, cells: list[Block], work: Callable[[Block], Sequence[Output]]) -> None:
        """Do the blocks of a stage that are not done yet."""
        tell = self.on_block
        stages = Stages(self.folder, self.executor, None if tell is None else (lambda *n: tell(name, *n)))
        stages.run(name, key, cells, work)

    @property
    def reference(self) -> int:
        """The section that stays."""
        if self.stays is not None:
            return self.stays
        n, chosen = self.source.frame.shape[0], self.job.links.reference
        if chosen is not None and chosen >= n:
            raise InputError(f"the reference section {chosen} does not exist: {self.job.raw} has 0 to {n - 1}")
        return n // 2 if chosen is None else chosen
