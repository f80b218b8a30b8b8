"""What `emloom evaluate` is asked to do, and what a path given to it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from emloom.errors import InputError
from emloom.metrics.contingency import Contingency, Ids
from emloom.metrics.runlength import RunLengthRule
from emloom.ops.agglomerate import MergeTree
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.graphfiles import load_tree
from emloom.tasks.segmentblocks import Site, read_final_lut
from emloom.tasks.segmentspec import SegmentJob


class BorderSpec(Spec):
    """What the metric `inner` leaves out."""

    width_vox: Annotated[int, Field(ge=0)] = 1
    in_plane: bool = False
    """See borders within sections only: for anisotropic stacks."""


class SkeletonsSpec(Spec):
    """True tracings."""

    path: str
    """NML, SWC, or a folder of SWC files."""
    unit_nm: float | None = None
    """nm per unit of SWC; NML states it."""
    outside: Literal["error", "omit"] = "error"
    """Whether nodes outside of the segmentation are an error, or count as in no segment."""
    no_merge: str | None = None
    """Volume, non-zero where no traced neurite is: a segment that enters it merges."""
    rule: RunLengthRule = RunLengthRule()


class EvaluateSpec(Spec):
    """Score one segmentation against its truth (`emloom evaluate`)."""

    segmentation: str
    """Labels, or a container that `emloom segment` wrote: then its fragments are counted, for every threshold."""
    truth: str | None = None
    """True labels; None where only tracings are known."""
    output: str
    metrics: tuple[str, ...] = ("voi", "arand", "rand", "inner")
    """Names of `emloom.metrics.book`."""
    mask: str | None = None
    """Non-zero where voxels count; or a folder of `emloom qc`: they do where it found nothing."""
    raw: str | None = None
    """Raw volume, to be drawn below the errors."""
    border: BorderSpec = BorderSpec()
    split_truth: bool = False
    """Count the disconnected pieces of a true object as different objects."""
    thresholds: Annotated[int, Field(ge=0, le=10_000)] = 100
    """How many thresholds of a merge tree are scored, evenly spaced from its floor to 1."""
    skeletons: SkeletonsSpec | None = None
    """True tracings, for the metrics of run lengths and edges."""


@dataclass(frozen=True)
class Subject:
    """What is scored.

    Attributes:
        labels: path of the volume that is counted: segments, or fragments.
        tree: of fragments.
        threshold: of the segmentation; None where it is not one of a tree.
        lut: (fragments, segments) of the segmentation; None where segments are counted.
    """

    labels: str
    tree: MergeTree | None = None
    threshold: float | None = None
    lut: tuple[Ids, Ids] | None = None

    def of(self, table: Contingency) -> Contingency:
        """Return the table of the segmentation, from the one that was counted."""
        return table if self.lut is None else table.relabelled(*self.lut)


def subject_of(path: str) -> Subject:
    """Return what a path stands for: a container of `emloom segment` with its tree, or plain labels.

    Raises:
        InputError: the container is not finished, or was never cut at a threshold.
    """
    if not (Path(path) / "fragments").is_dir():
        return Subject(path)
    space = Workspace(path)
    if not space.finished:
        raise InputError(f"{path} is not finished: `emloom retry {path}` goes on with it")
    job = SegmentJob.from_dict({**space.record()["job"], "output": path}, f"the job of {path}")
    fragments, tree = str(Path(path) / "fragments"), load_tree(path)
    if job.threshold is None:
        raise InputError(
            f"{path} was made without a threshold, so there is no segmentation: give --threshold there"
        )
    lut = read_final_lut(Site(job, Path(path)), job.threshold)
    return Subject(fragments, tree, job.threshold, lut)
