"""`emloom proofread apply`: decisions of a person become a corrected segmentation.

::

    decisions (CSV, Parquet, NML) + SEG -> decide -> lut.parquet        fragment, segment: those that change
                                                     decisions.parquet  all that was decided, table by table
                                   [segmentation] -> segmentation.zarr  voxels, cell by cell

A corrected segmentation can be proofread again: its own decisions are applied first, table by table, then the new
ones. What a decision does is told in `emloom.ops.proofreading`; fragments, graph and thus ids stay those that
`emloom segment` made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block, Box, blocks
from emloom.geometry.decisions import Decision, Side
from emloom.io.decisions import read_decisions
from emloom.io.open import create_volume, open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import Volume, VolumeInfo
from emloom.ops.labels import apply_lut
from emloom.ops.proofreading import Held, HeldTogetherError, apply_decisions
from emloom.ops.regions import RegionGraph
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.perworker import once
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.graphfiles import load_graph, load_nodes
from emloom.tasks.lattice import chunk_within
from emloom.tasks.lookexport import decisions_in
from emloom.tasks.segmentblocks import Site, read_final_lut
from emloom.tasks.segmentspec import SegmentJob

FORMAT = 1
KIND = "proofread"
LUT = "lut.parquet"
DECISIONS = "decisions.parquet"
VOLUME = "segmentation.zarr"

Ids = NDArray[np.uint64]
Columns = dict[str, NDArray[Any]]
OnBlock = Callable[[str, int, int], None]
_TRACINGS = (".nml", ".zip", ".nmx")


class ProofreadJob(Spec):
    """Apply decisions to a segmentation (`emloom proofread apply`)."""

    segmentation: str
    """What `emloom segment` wrote, cut at a threshold; or a folder of an earlier proofreading of it."""
    decisions: str
    """Table (.csv, .parquet), or tracing with answers (.nml, .zip)."""
    output: str
    """Folder to be made."""
    render: bool = True
    """Also write the voxels; without them there is the look-up table alone."""


@dataclass(frozen=True)
class Applied:
    """A decision, on fragments.

    Attributes:
        decision: as it was read.
        pair: the fragments of both sides.
        batch: which table it came from, counted from 1.
    """

    decision: Decision
    pair: tuple[int, int]
    batch: int


def proofread(
    job: ProofreadJob,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
    discard: bool = False,
    again: bool = False,
) -> Path:
    """Apply decisions, or go on where an earlier call stopped.

    Args:
        job: what to do.
        executor: where voxels are written; default in this process.
        on_block: called with (stage, blocks done, blocks in all).
        discard: delete what another job left in the output's place.
        again: go on with a finished result, too.

    Returns:
        Path of the folder.

    Raises:
        InputError: a point lies in background or outside, an id is unknown, decisions contradict each other, a
            split is of two segments, nothing was decided, or the output exists or belongs to another job.
    """
    started = time.perf_counter()
    space, executor = Workspace(job.output), executor or Serial()
    base, earlier = _history(job.segmentation)
    tables = _decide(job, base, earlier)  # before anything is touched: mistakes are found here
    graph = str(Path(base.output) / "graph")
    paths = {"segmentation": job.segmentation if earlier else graph, "decisions": job.decisions}
    inputs = space.claim(KIND, job, paths, discard)
    if space.finished and not again:
        return space.output
    folder = space.folder.absolute()
    info = open_volume(Path(base.output) / "fragments").info
    cell = base.segmentation.cell
    key = key_of(FORMAT, job.decisions, job.segmentation, inputs)
    one = [Block((0, 0, 0), info.box, info.box)]
    run_stage(Stage("decide", key, one, WriteTables(folder, tables), False), folder, Serial())
    stages: list[Stage[Any]] = []
    if job.render:
        if not (folder / VOLUME).exists():
            ids = VolumeInfo(info.shape, np.dtype(np.uint64), info.grid, kind="labels", chunks=chunk_within(cell))
            create_volume(folder / VOLUME, ids)
        stages.append(Stage("segmentation", key, blocks(info.box, cell), Render(base.output, folder, key)))
    seconds: dict[str, float] = {}
    for stage in stages:

        def tell(done: int, total: int, name: str = stage.name) -> None:
            if on_block is not None:
                on_block(name, done, total)

        seconds[stage.name] = run_stage(stage, folder, executor, progress=tell).seconds
    seconds["all"] = time.perf_counter() - started
    write_provenance(folder / "provenance.json", job.to_dict(), inputs, seconds)
    space.finish()
    return space.output


def _history(path: str) -> tuple[SegmentJob, list[Path]]:
    """Return the job of the segmentation under a chain of proofreadings, and their folders, the first first."""
    folders: list[Path] = []
    while True:
        space = Workspace(path)
        if not space.finished:
            raise InputError(f"{path} is not finished, or not there: `emloom retry {path}` goes on with it")
        record = space.record()
        if record["kind"] != KIND:
            break
        folders.insert(0, Path(path))
        path = str(record["job"]["segmentation"])
    if record["kind"] != "segment":
        raise InputError(f"{path} was made by `emloom {record['kind']}`: give what `emloom segment` wrote")
    job = SegmentJob.from_dict({**record["job"], "output": path}, f"the job of {path}")
    if job.threshold is None:
        raise InputError(
            f"{path} was made without a threshold, so there is no segmentation: give --threshold there"
        )
    return job, folders


def load_decisions(path: str) -> list[Decision]:
    """Read decisions from a table or a tracing; raises `InputError` where it holds none."""
    found = decisions_in(path) if Path(path).suffix.lower() in _TRACINGS else read_decisions(path)
    if not found:
        raise InputError(f"{path} decides nothing: write merge, split or ok in its rows, or behind its questions")
    return found


def _decide(job: ProofreadJob, base: SegmentJob, earlier: Sequence[Path]) -> dict[str, Columns]:
    """Return the look-up table and the list of all decisions; raises `InputError` where they contradict."""
    folder = Path(base.output)
    ids, graph = load_nodes(folder)["id"], load_graph(folder)
    before = segments_of(base, ids)
    held, history = Held.of(ids, np.where(before == 0, ids, before)), list[Applied]()
    for number, done in enumerate(earlier, 1):
        batch = _read_applied(done / DECISIONS, number)
        held, history = _applied(held, graph, batch), [*history, *batch]
    look = _Fragments(ids, open_volume(folder / "fragments"))
    decided = [
        Applied(d, (look.under(d.a, d.row, "a"), look.under(d.b, d.row, "b")), len(earlier) + 1)
        for d in load_decisions(job.decisions)
    ]
    _refuse_conflicts(decided, held)
    after = _with_dropped(_applied(held, graph, decided).segments(), before)
    changed = after != ids
    lut = {"fragment": ids[changed], "segment": after[changed]}
    return {LUT: lut, DECISIONS: _columns([*history, *decided])}


@dataclass(frozen=True)
class WriteTables:
    """Writes what was decided."""

    folder: Path
    tables: dict[str, Columns]

    def __call__(self, block: Block) -> list[Output]:
        """Write the look-up table and the list of decisions."""
        for name, columns in self.tables.items():
            write_table(self.folder / name, columns)
        return [Output.file(self.folder, name) for name in self.tables]


def segments_of(base: SegmentJob, ids: Ids) -> Ids:
    """Return the segment of each fragment as `emloom segment` left it, 0 where it was dropped."""
    assert base.threshold is not None
    return _looked_up(ids, *read_final_lut(Site(base, Path(base.output)), base.threshold))


def _looked_up(ids: Ids, fragment: Ids, segment: Ids) -> Ids:
    if not len(fragment):
        return ids.copy()
    place = np.minimum(np.searchsorted(fragment, ids), len(fragment) - 1)
    return np.where(fragment[place] == ids, segment[place], ids)


def _with_dropped(after: Ids, before: Ids) -> Ids:
    """Return segments without those of which every fragment was dropped for its size before."""
    kept = np.unique(after[before != 0])
    return np.where(np.isin(after, kept), after, np.uint64(0))


@dataclass(frozen=True)
class _Fragments:
    """Tells which fragment a side of a decision means."""

    ids: Ids
    volume: Volume

    def under(self, side: Side, row: str, name: str) -> int:
        """Return the fragment; raises `InputError` where there is none."""
        if isinstance(side, int):
            at = int(np.searchsorted(self.ids, np.uint64(side)))
            if at == len(self.ids) or int(self.ids[at]) != side:
                raise InputError(f"{row}: {name} is {side}, which is no fragment or segment: check the id")
            return side
        info = self.volume.info
        voxel = info.grid.containing(side)
        place = f"{row}: point {name} at {side} nm is voxel {voxel}"
        if not info.box.contains(Box(voxel, (1, 1, 1))):
            raise InputError(
                f"{place}, outside of the segmentation, which has {info.shape}: check unit and offset"
            )
        found = int(self.volume.read(Box(voxel, (1, 1, 1)))[0, 0, 0])
        if not found:
            raise InputError(f"{place}, which is background: move the point into the segment that is meant")
        return found


def _refuse_conflicts(decided: Sequence[Applied], held: Held) -> None:
    """Raise `InputError` where two rows decide differently about one pair, or one about nothing."""
    segment = dict(zip(held.ids.tolist(), held.segments().tolist(), strict=True))
    known: dict[tuple[int, int], Applied] = {}
    for each in decided:
        a, b = each.pair
        if each.decision.verb == "split" and segment[a] != segment[b]:
            raise InputError(
                f"{each.decision.row}: fragments {a} and {b} are split, but lie in two segments, {segment[a]} and "
                f"{segment[b]}, already: remove the row"
            )
        if each.decision.verb != "ok" and a == b:
            raise InputError(
                f"{each.decision.row}: both sides lie in fragment {a}, which is never cut: put the points on "
                "either side of a contact of two fragments, or segment with smaller ones"
            )
        first = known.setdefault((min(a, b), max(a, b)), each)
        if first.decision.verb != each.decision.verb:
            raise InputError(
                f"{first.decision.row} says {first.decision.verb} of fragments {a} and {b}, {each.decision.row} "
                f"says {each.decision.verb}: keep one"
            )


def _applied(held: Held, graph: RegionGraph, batch: Sequence[Applied]) -> Held:
    pairs = {verb: [each.pair for each in batch if each.decision.verb == verb] for verb in ("merge", "split")}
    try:
        return apply_decisions(held, graph, pairs["merge"], pairs["split"])
    except HeldTogetherError as problem:
        rows = [
            e.decision.row for e in batch if e.decision.verb == "split" and sorted(e.pair) == list(problem.pair)
        ]
        merges = [e.decision.row for e in batch if e.decision.verb == "merge"]
        raise InputError(
            f"{rows[0]} splits fragments {problem.pair[0]} and {problem.pair[1]}, which merges of the same table "
            f"({'; '.join(merges[:5])}) hold together: remove one of them"
        ) from None


def _columns(decided: Sequence[Applied]) -> dict[str, NDArray[Any]]:
    return {
        "batch": np.array([e.batch for e in decided], np.int64),
        "decision": np.array([e.decision.verb for e in decided], np.str_),
        "a": np.array([e.pair[0] for e in decided], np.uint64),
        "b": np.array([e.pair[1] for e in decided], np.uint64),
        "row": np.array([e.decision.row for e in decided], np.str_),
    }


def _read_applied(path: Path, batch: int) -> list[Applied]:
    """Return the decisions of one table, as an earlier proofreading recorded them."""
    table = read_table(path)
    rows = np.flatnonzero(table["batch"] == batch)
    found = []
    for row in rows.tolist():
        a, b = int(table["a"][row]), int(table["b"][row])
        verb: Any = str(table["decision"][row])
        found.append(Applied(Decision(verb, a, b, str(table["row"][row])), (a, b), batch))
    return found


@dataclass(frozen=True)
class Render:
    """Turns the fragments of a cell into corrected segments."""

    base: str
    folder: Path
    key: str

    def __call__(self, block: Block) -> list[Output]:
        """Write the voxels of the cell."""
        table = once(("proofread", str(self.folder), self.key), lambda: read_table(self.folder / LUT))
        fragments = open_volume(Path(self.base) / "fragments").read(block.write)
        ids = apply_lut(fragments, table["fragment"], table["segment"])
        open_volume(self.folder / VOLUME, writable=True).write(block.write, ids)
        return [Output.voxels(VOLUME, block.write, ids)]


def corrected_lut(path: str | Path) -> tuple[Ids, Ids]:
    """Return (fragments that change, their segments) of a proofreading."""
    table = read_table(Path(path) / LUT)
    return table["fragment"], table["segment"]


def summary_of(path: str | Path) -> str:
    """Return how many decisions a proofreading holds, in words."""
    verbs = read_table(Path(path) / DECISIONS)["decision"].tolist()
    return ", ".join(f"{verbs.count(verb)} {verb}" for verb in ("merge", "split", "ok") if verb in verbs)
