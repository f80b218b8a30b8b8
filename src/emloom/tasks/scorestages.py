"""Stages of an evaluation: what is made block by block in its folder, and made again only for another job."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emloom.geometry import Block
from emloom.run.blockjournal import ROOT
from emloom.run.executor import Executor
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage

OnBlock = Callable[[int, int], None]


@dataclass(frozen=True)
class Stages:
    """Runs the stages of one evaluation.

    Attributes:
        folder: of the evaluation.
        executor: where blocks run.
        on_block: called with (blocks done, blocks in all) of the stage that runs.
    """

    folder: Path
    executor: Executor
    on_block: OnBlock | None

    def run(self, name: str, key: str, cells: list[Block], work: Callable[[Block], Sequence[Output]]) -> None:
        """Do the blocks of a stage that are not done yet; its outputs lie in ``folder / name``."""
        self.clear(name, key)
        run_stage(Stage(name, key, cells, work), self.folder, self.executor, progress=self.on_block)

    def clear(self, name: str, key: str) -> None:
        """Remove what a stage left for another job: it is cheap to make again, and of no use for this one."""
        journal = self.folder / ROOT / name
        if journal.exists() and not (journal / key).exists():
            shutil.rmtree(journal)
            shutil.rmtree(self.folder / name, ignore_errors=True)
