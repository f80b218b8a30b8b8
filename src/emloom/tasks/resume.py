"""`emloom status` and `emloom retry`: how far a blockwise result came, whether it is still whole, and going on.

A result knows its job (`emloom.run.workspace`), so its folder is all that a command needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from emloom.errors import InputError
from emloom.nn.engine import Engine
from emloom.nn.hardware import Hardware
from emloom.run.executor import Executor, Serial
from emloom.run.verify import Damage, StageStatus, forget, status, verify
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.align import align
from emloom.tasks.alignspec import AlignJob
from emloom.tasks.classify import ClassifyJob, classify
from emloom.tasks.combinemasks import combine_masks
from emloom.tasks.combinespec import CombineJob
from emloom.tasks.confidence import confidence
from emloom.tasks.confidencespec import ConfidenceJob
from emloom.tasks.connectome import ConnectomeJob, connectome
from emloom.tasks.movestack import MoveJob, move_volume
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.proofreading import ProofreadJob, proofread
from emloom.tasks.refine import RefineJob, refine
from emloom.tasks.repair import repair
from emloom.tasks.repairspec import RepairJob
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import SegmentJob
from emloom.tasks.suggestslices import SuggestJob, suggest_slices
from emloom.tasks.synapsedecoders import SynapsesJob
from emloom.tasks.synapses import find_synapses

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
    kind = record["kind"]
    if kind not in _AGAIN:
        raise InputError(f"{space.folder} holds a job of kind {kind!r}, which this emloom does not know")
    # The folder may have been moved: it goes on where it is now.
    words = {**record["job"], "output": str(space.output)}
    job = _AGAIN[kind].spec.from_dict(words, f"the job of {space.folder}")
    _AGAIN[kind].carry_out(job, executor or Serial(), on_block, record["how"])
    return space.output


class _Again(NamedTuple):
    """A kind of job whose blocks can be made again."""

    spec: type[Spec]
    carry_out: Callable[[Any, Executor, OnBlock | None, Mapping[str, Any]], object]


def _named(on_block: OnBlock | None, stage: str) -> Callable[[int, int], None] | None:
    return None if on_block is None else partial(on_block, stage)


def _predict(job: PredictJob, run: Executor, tell: OnBlock | None, how: Mapping[str, Any]) -> object:
    engine = Engine.of(Hardware().torch_device, how["backend"], how["precision"])
    return predict_volume(job, engine, _named(tell, "predict"), run, repair=True)


_AGAIN = {
    "align": _Again(AlignJob, lambda job, run, tell, _: align(job, run, tell, repair=True)),
    "predict": _Again(PredictJob, _predict),
    "segment": _Again(SegmentJob, lambda job, run, tell, _: segment(job, run, tell, repair=True)),
    "combine-masks": _Again(
        CombineJob, lambda job, run, tell, _: combine_masks(job, _named(tell, "combine"), run, repair=True)
    ),
    "classify": _Again(
        ClassifyJob, lambda job, run, tell, _: classify(job, _named(tell, "classify"), run, again=True)
    ),
    "confidence": _Again(ConfidenceJob, lambda job, run, tell, _: confidence(job, run, tell, again=True)),
    "connectome": _Again(ConnectomeJob, lambda job, run, tell, _: connectome(job, tell, run, again=True)),
    "move": _Again(MoveJob, lambda job, run, tell, _: move_volume(job, _named(tell, "move"), run, repair=True)),
    "proofread": _Again(ProofreadJob, lambda job, run, tell, _: proofread(job, run, tell, again=True)),
    "refine": _Again(RefineJob, lambda job, run, tell, _: refine(job, run, _named(tell, "refine"), repair=True)),
    "repair": _Again(RepairJob, lambda job, run, tell, _: repair(job, run, tell, again=True)),
    "suggest": _Again(
        SuggestJob, lambda job, run, tell, _: suggest_slices(job, _named(tell, "suggest"), run, again=True)
    ),
    "synapses": _Again(SynapsesJob, lambda job, run, tell, _: find_synapses(job, run, tell, again=True)),
}
