"""`emloom connectome`: from synapses and a segmentation to neurons and the edges between them.

::

    OUT/synapses.parquet    the contacts, of the segments of this segmentation; `left_out`: why one makes no edge
        edges.parquet       pre, post, count, size_vox, mean_score, max_score
        neurons.parquet     id, voxels, pre_sites, outputs, inputs, partners_out, partners_in
        provenance.json     what was done, to what
        report.html         the page

Sites are looked up anew, so that another segmentation, or a look-up table from segments to segments, gives another
connectome without detecting anything again. No contact is ever dropped: one that makes no edge stays in its row,
with the reason (`ops.connectome`), and is counted.

Neurons are all segments of the segmentation, with or without synapses; their voxels are counted block by block, on
any number of workers, and a crash costs the blocks in flight.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.grid import Vec3
from emloom.io.checks import require_labels
from emloom.io.open import open_volume
from emloom.io.synapsetable import FINGERPRINT, SEGMENTATION, SYNAPSES
from emloom.io.tables import read_table
from emloom.io.volume import Volume
from emloom.ops.connectome import Rules
from emloom.run.executor import Executor, Serial
from emloom.run.provenance import write_provenance
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.connectomegraph import EDGES, NEURONS, OFFSET, VOXEL_SIZE, Graph, graph_of, write_graph
from emloom.tasks.connectomereport import write_connectome_report
from emloom.tasks.connectomesource import (
    Lut,
    SiteSegments,
    read_lut_file,
    segments_at,
    segments_said,
)
from emloom.tasks.connectomevoxels import count_voxels, mapped_voxels
from emloom.tasks.scorespec import subject_of
from emloom.tasks.synapsesource import SynapseSource, read_source

OnBlock = Callable[[str, int, int], None]
Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]
Extent = Annotated[int, Field(ge=1)]


class ConnectomeJob(Spec):
    """Make the connectome of synapses and a segmentation (`emloom connectome`)."""

    synapses: str
    """Folder of `emloom synapses`, table (`.parquet`, `.csv`), CREMI file, or tracing (`.nml`)."""
    output: str
    """Folder to be made."""
    segmentation: str | None = None
    """Labels, or a container of `emloom segment`; None: segments are those of the table."""
    segments: Literal["sites", "table"] = "sites"
    """Where segments come from: looked up under the sites, or as the table says (always without labels)."""
    lut: str | None = None
    """Look-up table from segments to neurons (`OUT.zarr/graph/luts/...parquet`), applied last."""
    autapses: bool = True
    """Whether contacts of a neuron with itself make an edge."""
    minimum_score: float = Field(default=0.0, ge=0, le=1)
    """Least score of a contact."""
    minimum_weight: int = Field(default=1, ge=1)
    """Least number of contacts of an edge."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm, only for a CREMI file without volumes, or a tracing without scale."""
    block_vox: tuple[Extent, Extent, Extent] = (128, 512, 512)
    """Voxels (z, y, x) that are counted at once."""


@dataclass(frozen=True)
class ConnectomeReport:
    """What was made.

    Attributes:
        folder: with the tables and the page.
        contacts: in the table.
        used: of them make edges.
        left_out: how many do not, by reason.
        edges: between neurons.
        neurons: with or without synapses.
        connected: neurons with an edge.
        notes: what a person should know.
    """

    folder: Path
    contacts: int
    used: int
    left_out: Mapping[str, int]
    edges: int
    neurons: int
    connected: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.__dict__, "folder": str(self.folder), "left_out": dict(self.left_out)}

    def to_text(self) -> str:
        """Return lines for a person."""
        lines = [
            f"{self.folder}: {self.edges} edges of {self.used} contacts between {self.connected} neurons "
            f"({self.neurons} segments)"
        ]
        lines += [f"  {count} contacts left out: {reason}" for reason, count in self.left_out.items() if count]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def connectome(
    job: ConnectomeJob,
    on_block: OnBlock | None = None,
    executor: Executor | None = None,
    discard: bool = False,
    again: bool = False,
) -> ConnectomeReport:
    """Make a connectome in a folder that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to make.
        on_block: called with (stage, blocks done, blocks in all).
        executor: where blocks run; default in this process.
        discard: delete the result of another job in the output's place.
        again: go on with a finished result, too: blocks whose markers were removed are made again.

    Raises:
        InputError: an input is missing, damaged or of the wrong kind; no site lies in the segmentation; the table
            names a segment that it lacks (with `segments="table"`); the output exists or belongs to another job.
    """
    started = time.perf_counter()
    source = read_source(job.synapses, job.voxel_size_nm)
    subject = None if job.segmentation is None else subject_of(job.segmentation)
    volume = None if subject is None else open_volume(subject.labels, kind="labels")
    if volume is not None:
        require_labels(volume)
    tree = [] if subject is None or subject.lut is None else [subject.lut]
    luts = tree, [] if job.lut is None else [read_lut_file(job.lut)]
    found = _found(job, source, volume)
    space = Workspace(job.output)
    paths = {"synapses": job.synapses, "segmentation": job.segmentation, "lut": job.lut}
    inputs = space.claim("connectome", job, paths, discard)
    if again or not space.finished:
        counted = (np.zeros(0, np.uint64), np.zeros(0, np.int64))
        if subject is not None:
            tell = None if on_block is None else partial(on_block, "voxels")
            where = (space.folder.absolute(), executor or Serial())
            counted = count_voxels(subject.labels, job.block_vox, inputs["segmentation"], *where, tell)
        words = _words(job, source, volume, inputs.get("segmentation"))
        graph = _graph(job, source, found, luts, counted, words)
        write_graph(graph, space.folder)
        seconds = {"connectome": time.perf_counter() - started}
        more = {"left_out": json.dumps(graph.reasons), "notes": json.dumps(graph.notes)}
        provenance = write_provenance(space.folder / "provenance.json", job.to_dict(), inputs, seconds, more)
        write_connectome_report(graph, space.folder, provenance)
        space.finish()
    return _reported(space.output)


def _found(job: ConnectomeJob, source: SynapseSource, volume: Volume | None) -> SiteSegments:
    if volume is not None and job.segments == "sites":
        return segments_at(source.table, volume)
    said = segments_said(source.table)
    if volume is None:
        return said
    # Positions may lie outside although segments are known: such contacts are told as well.
    return SiteSegments(said.pre, said.post, segments_at(source.table, volume).outside)


def _graph(
    job: ConnectomeJob,
    source: SynapseSource,
    found: SiteSegments,
    luts: tuple[list[Lut], list[Lut]],
    counted: tuple[Ids, Counts],
    words: Mapping[str, str],
) -> Graph:
    tree, own = luts
    looked_up = job.segmentation is not None and job.segments == "sites"
    # Segments of a table are already those of the merge tree.
    here = found.mapped(tree) if looked_up else found
    segments = mapped_voxels(*counted, tree)
    if job.segmentation is not None and not looked_up:
        _require_known(job, here, segments[0])
    rules = Rules(job.autapses, job.minimum_score, job.minimum_weight)
    notes = (
        *source.notes,
        *_notes(job, source, here, words.get(FINGERPRINT, "")),
        *(_moved(source, here) if looked_up else ()),
    )
    return graph_of(source.table, here.mapped(own), mapped_voxels(*segments, own), rules, notes, words)


def _notes(job: ConnectomeJob, source: SynapseSource, found: SiteSegments, mark: str) -> list[str]:
    notes = [] if len(source.table) else [f"{source.table.source} holds no synapse: the graph has no edge"]
    this = job.segmentation
    if this is not None and source.is_of(this, mark) is False:
        taken = "looked up anew" if job.segments == "sites" else "taken as they are"
        notes.append(f"the table says that its segments are of {source.words[SEGMENTATION]}; they were {taken}")
    if this is None and len(source.table) and not (found.pre.any() or found.post.any()):
        notes.append("the table has no segments, and no segmentation was given: the graph has no edge")
    return notes


def _moved(source: SynapseSource, found: SiteSegments) -> list[str]:
    before = np.concatenate([source.table.pre_segments, source.table.post_segments])
    differ = np.count_nonzero((before != np.concatenate([found.pre, found.post])) & (before != 0))
    return [f"{differ} of {before.size} sites lie in another segment than the table says"] if differ else []


def _require_known(job: ConnectomeJob, mapped: SiteSegments, known: Ids) -> None:
    used = np.unique(np.concatenate([mapped.pre, mapped.post]))
    strange = np.setdiff1d(used[used != 0], known)
    if strange.size:
        raise InputError(
            f"{job.synapses} names segment {strange[0]}, which {job.segmentation} lacks ({strange.size} "
            f"of {np.count_nonzero(used)} segments): it is of another; let segments be looked up under "
            "the sites instead (leave out --keep-segments)"
        )


def _words(job: ConnectomeJob, source: SynapseSource, volume: Volume | None, mark: str | None) -> dict[str, str]:
    """Return what the tables say about themselves: what the source said, unless this job knows better."""
    words = {**source.words, "units": "nm"}
    if job.segmentation is not None:
        words |= {SEGMENTATION: str(Path(job.segmentation).resolve()), FINGERPRINT: mark or ""}
    if job.lut is not None:
        # Mapped segments are those of no volume.
        words.pop(FINGERPRINT, None)
        words[SEGMENTATION] = f"{words.get(SEGMENTATION, 'unknown')} mapped by {Path(job.lut).resolve()}"
    grid = None if volume is None else volume.info.grid
    if grid is None and job.voxel_size_nm is not None:
        grid = Grid(job.voxel_size_nm)
    if grid is not None:
        words |= {VOXEL_SIZE: json.dumps(grid.voxel_size_nm), OFFSET: json.dumps(grid.offset_nm)}
    return words


def _reported(folder: Path) -> ConnectomeReport:
    """Return what a finished folder holds; read from it, so that a second call says the same."""
    record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    reasons = json.loads(record["left_out"])
    neurons, edges = read_table(folder / NEURONS), read_table(folder / EDGES)
    contacts = len(read_table(folder / SYNAPSES))
    connected = int(np.count_nonzero(neurons["partners_out"] + neurons["partners_in"]))
    used = contacts - sum(reasons.values())
    notes = tuple(json.loads(record["notes"]))
    return ConnectomeReport(folder, contacts, used, reasons, len(edges), len(neurons), connected, notes)
