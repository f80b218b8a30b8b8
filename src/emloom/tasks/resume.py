"""`emloom status` and `emloom retry`: how far a blockwise result came, whether it is still whole, and going on.

A result knows its job (`emloom.run.workspace`), so its folder is all that a command needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from emloom.errors import InputError
from emloom.nn.engine import Engine
from emloom.nn.hardware import Hardware
from emloom.run.executor import Executor
from emloom.run.verify import Damage, StageStatus, forget, status, verify
from emloom.run.workspace import Workspace
from emloom.tasks.classify import ClassifyJob, classify
from emloom.tasks.combinemasks import combine_masks
from emloom.tasks.combinespec import CombineJob
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import SegmentJob

OnBlock = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ResultStatus:
    """How far a result came.

    Attributes:
        kind: of job: "predict", "segment", "classify", ...
        folder: where it is now.
        finished: whether it is whole and has its final name.
        stages: those that were begun, in order.
        damages: what is not as it was written; empty where nobody looked.
    """

    kind: str
    folder: Path
    finished: bool
    stages: list[StageStatus]
    damages: list[Damage]

    @property
    def is_well(self) -> bool:
        """Whether nothing failed and nothing is damaged."""
        return not self.damages and not any(stage.failed for stage in self.stages)


def result_status(
    output: str | Path,
    look: bool = False,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
) -> ResultStatus:
    """Return how far a result came.

    Args:
        output: the result, under its final name or its unfinished one.
        look: read everything again that was written, and compare it with the hashes in the markers.
        executor: where to read.
        on_block: called with (stage, blocks compared, blocks in all).

    Raises:
        InputError: there is no such result, or emloom has not made it block by block.
    """
    space = Workspace(output)
    kind = str(space.record()["kind"])
    stages = status(space.folder)
    damages: list[Damage] = []
    for stage in stages if look else ():

        def tell(done: int, total: int, name: str = stage.name) -> None:
            if on_block is not None:
                on_block(name, done, total)

        damages += verify(space.folder, stage, executor, tell)
    return ResultStatus(kind, space.folder, space.finished, stages, damages)


def retry(
    output: str | Path,
    look: bool = False,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
) -> Path:
    """Make what is missing of a result: blocks that failed, were not reached, or (with `look`) are damaged.

    Args:
        output: the result, under its final name or its unfinished one.
        look: first compare everything with the hashes in the markers, and make again what differs.
        executor: where blocks run.
        on_block: called with (stage, blocks done, blocks in all).

    Returns:
        Path of the result.

    Raises:
        InputError: there is no such result, an input has changed since, or blocks failed again.
    """
    space = Workspace(output)
    record = space.record()
    if look:
        for stage in status(space.folder):
            damaged = {damage.index for damage in verify(space.folder, stage, executor)}
            forget(space.folder, stage, damaged)
    # The folder may have been moved: it goes on where it is now.
    words = {**record["job"], "output": str(space.output)}
    if record["kind"] == "segment":
        job = SegmentJob.from_dict(words, f"the job of {space.folder}")
        return segment(job, executor, on_block, repair=True)
    if record["kind"] == "predict":
        engine = Engine.of(Hardware().torch_device, record["how"]["backend"], record["how"]["precision"])
        predict = PredictJob.from_dict(words, f"the job of {space.folder}")
        advance = None if on_block is None else (lambda done, total: on_block("predict", done, total))
        predict_volume(predict, engine, advance, executor, repair=True)
        return space.output
    if record["kind"] == "combine-masks":
        masks = CombineJob.from_dict(words, f"the job of {space.folder}")
        combine_masks(masks, None if on_block is None else partial(on_block, "combine"), executor, repair=True)
        return space.output
    if record["kind"] == "classify":
        classified = ClassifyJob.from_dict(words, f"the job of {space.folder}")
        tell = None if on_block is None else (lambda done, total: on_block("classify", done, total))
        classify(classified, tell, executor, again=True)
        return space.output
    raise InputError(f"{space.folder} holds a job of kind {record['kind']!r}, which this emloom does not know")
