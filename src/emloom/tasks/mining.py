"""`emloom artifacts mine`: what a detector finds and should not, block by block, to be judged and learned from.

The loop that turns a detector of 0.98 on its own patches into one that holds up in the wild::

    predict (dense)  ->  mine (surest positives of every block, outside of known ones)  ->  annotate  ->  adopt
         ^                                                                                                |
         +------------------------------------------- retrain <-----------------------------------------+

A candidate is a patch that the model calls positive, that overlaps no patch known to be one, and that nobody has
judged. Most are false positives; those that are not are artifacts that were missing among the labels. So nothing
is presumed: `adopt_mined` takes over what somebody answered, yes as yes and no as no, and leaves the rest alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.geometry.patches import NO, UNKNOWN, YES, PatchLabels, require_same_patches
from emloom.io.patchtables import read_patches, write_patches
from emloom.spec import Spec
from emloom.tasks.candidates import Question, Spread
from emloom.tasks.disagreeing import answers_of, said_in, with_answers
from emloom.tasks.labelsession import locked
from emloom.tasks.patchsheets import TABLE, TRACING
from emloom.tasks.selecting import Selection, SelectSpec, select
from emloom.view.patchview import MARGIN

ANSWERS = "answers.csv"
"""Name, in a folder of candidates, of the table in which somebody answered them."""


class MineSpec(Spec):
    """Find what a detector calls positive and nobody else does."""

    raw: str
    """The volume."""
    output: str
    """Folder to be made."""
    labels: str | None = None
    """Table of what is known."""
    per_block: int = Field(default=10, ge=1)
    """Candidates of one block, at most."""
    block_vox: Vec = (16, 1024, 1024)
    """Blocks of the volume (z, y, x)."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability from which the model calls a patch positive."""
    patch_vox: Vec | None = None
    """Voxels (z, y, x) of a patch; none: as the labels say, or 1, 140, 140."""
    classes: tuple[str, ...] = ()
    """What is asked of the patches; none: as the labels say, or `artifact`."""
    margin_vox: int = Field(default=MARGIN, ge=0, le=512)
    """Voxels of tissue shown around a patch; they belong to the pictures alone."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm, where the volume does not state it."""


@dataclass(frozen=True)
class Mined:
    """What answers brought.

    Attributes:
        labels: the table as written.
        negatives: candidates answered no: hard negatives.
        positives: answered yes: artifacts that no label knew.
        unsure: answered, but neither.
        open: not answered.
    """

    labels: PatchLabels
    negatives: int
    positives: int
    unsure: int
    open: int


def mine(spec: MineSpec, predict: Callable[[], str]) -> Selection:
    """Write the candidates of a volume; see the module.

    Args:
        spec: which.
        predict: returns the path of the map; called once.

    Raises:
        InputError: as `emloom.tasks.selecting.select`.
    """
    spread = Spread(block_vox=spec.block_vox, per_block=spec.per_block)
    question = Question(how="positive", count=None, threshold=spec.threshold, spread=spread)
    shared = spec.model_dump(exclude={"per_block", "block_vox", "threshold"})
    return select(SelectSpec(map=predict(), question=question, **shared))


def adopt_mined(folder: str | Path, labels: str | Path, annotator: str | None = None) -> Mined:
    """Take what somebody answered about candidates into the table of labels, in one step; again changes nothing.

    Answers are those of ``answers.csv`` in the folder, as `emloom artifacts annotate` leaves them, or, where an
    annotator is named, those in the names of the tracing's trees.

    Raises:
        InputError: the folder holds no answers, or they contradict what the same annotator said before.
    """
    folder, path = Path(folder), Path(labels)
    asked = read_patches(folder / TABLE)
    with locked(path):
        before = read_patches(path) if path.exists() else None
        given = _answered(folder, asked, annotator)
        merged = given if before is None else _merged(before, given)
        write_patches(path, merged, overwrite=True)
    verdict = given.consensus().labels[:, 0]
    no, yes, unsure = (int((verdict == value).sum()) for value in (NO, YES, UNKNOWN))
    return Mined(merged, no, yes, unsure, len(asked) - len(verdict))


def _answered(folder: Path, asked: PatchLabels, annotator: str | None) -> PatchLabels:
    table = folder / ANSWERS
    if annotator is not None:
        answers, _ = answers_of(folder / TRACING, asked)
        return with_answers(asked.taken(np.zeros(0, np.int64)), answers, annotator).by(annotator)
    if not table.exists():
        raise InputError(
            f"{table} does not exist: answer the candidates, `emloom artifacts annotate RAW {table} --candidates "
            f"{folder / TABLE}`, or do so in {folder / TRACING}, and say by whom"
        )
    return read_patches(table)


def _merged(before: PatchLabels, given: PatchLabels) -> PatchLabels:
    """Return the labels with the answers of each annotator, which replace what the same one said before."""
    require_same_patches(before, given)
    strangers = [name for name in given.classes if name not in before.classes]
    if strangers:
        raise InputError(
            f"{given.source} answers {', '.join(strangers)}, which {before.source} does not ask: it asks "
            f"{', '.join(before.classes)}"
        )
    for name in given.annotators:
        before = with_answers(before, said_in(given.by(name)), name)
    return before
