"""What `emloom align` finds out about a stack: where every section goes, how well that fits, and what it was told.

Each model begins with the one before: translations, then affine maps, then meshes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block
from emloom.geometry.canvas import laid_out
from emloom.geometry.planar import Affine, PlanarMap, Shift, chain
from emloom.geometry.sectionshift import SectionShift, away_from_zero, box_within
from emloom.geometry.stackmap import Frame, StackMap
from emloom.io.files import write_bytes_atomic
from emloom.io.open import open_volume
from emloom.io.shifttable import read_shift_table
from emloom.ops.doubtfulsections import doubts
from emloom.ops.elasticmesh import Elasticity
from emloom.ops.sectionaffines import AffineStack, SectionAffines, section_affines
from emloom.ops.sectiondrift import without_drift
from emloom.ops.sectionpositions import Positions, solve_positions
from emloom.ops.shiftlinks import Links
from emloom.run.executor import Executor
from emloom.run.journal import key_of
from emloom.run.stage import Output
from emloom.tasks import alignflows, alignlinks, alignmesh
from emloom.tasks.alignsource import Source
from emloom.tasks.alignspec import AffineModel, AlignJob, ElasticModel, ShiftModel, TableModel
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
    """

    job: AlignJob
    source: Source
    folder: Path
    key: str
    executor: Executor
    on_block: OnBlock | None

    def run(self, name: str, key: str, cells: list[Block], work: Callable[[Block], Sequence[Output]]) -> None:
        """Do the blocks of a stage that are not done yet."""
        tell = self.on_block
        stages = Stages(self.folder, self.executor, None if tell is None else (lambda *n: tell(name, *n)))
        stages.run(name, key, cells, work)

    @property
    def reference(self) -> int:
        """The section that stays."""
        n, chosen = self.source.frame.shape[0], self.job.links.reference
        if chosen is not None and chosen >= n:
            raise InputError(f"the reference section {chosen} does not exist: {self.job.raw} has 0 to {n - 1}")
        return n // 2 if chosen is None else chosen


def find(line: Line) -> tuple[Found, StackMap]:
    """Return an alignment, and the map of the stack that it is.

    Raises:
        InputError: a table does not fit the stack, or no two sections resemble each other.
    """
    model = line.job.model
    if isinstance(model, TableModel):
        return _from_table(line, model)
    found, positions = _shifts(line, model)
    if isinstance(model, AffineModel | ElasticModel):
        affine = model.affine if isinstance(model, ElasticModel) else model
        found = _affines(line, affine, found, positions)
    if isinstance(model, ElasticModel):
        found = _meshes(line, model, found)
    return found, laid_out(line.source.frame, found.maps, keep=line.job.canvas == "keep")


# ---- tables ---------------------------------------------------------------------------------------------------


def _from_table(line: Line, model: TableModel) -> tuple[Found, StackMap]:
    raw = line.source.frame
    box = raw.box
    if model.box_of is not None:
        info = open_volume(model.box_of).info
        box = box_within(raw, Frame(info.shape, info.grid))
    rows = box.shape[0] + 2 * model.margin_sections
    steps = read_shift_table(model.path, order=model.order, meaning=model.meaning, sections=rows)
    shift = SectionShift.of(
        steps,
        raw,
        box,
        reference=line.job.links.reference,
        margin_vox=model.margin_vox,
        margin_sections=model.margin_sections,
    )
    n = len(steps)
    table = _rows(n, -shift.r.astype(np.float64)) | {"home": shift.first + np.arange(n)}
    notes = ("Where sections go was taken from a table; it was not compared with the pictures.",)
    return Found((), table, notes, {"table": shift.to_plain(), "reference": shift.reference}), shift.stackmap()


def _rows(n: int, shift: F64) -> Table:
    nothing = np.full(n, np.nan)
    return {
        "z": np.arange(n),
        "home": np.arange(n),
        "bad": np.zeros(n, np.int64),
        "reason": np.full(n, "", object),
        "shift_y": shift[:, 0],
        "shift_x": shift[:, 1],
        "links": np.zeros(n, np.int64),
        "residual_px": nothing,
        "residual_p95_px": nothing,
        "confidence": nothing,
    }


# ---- translations ---------------------------------------------------------------------------------------------


def _shifts(line: Line, model: ShiftModel | AffineModel | ElasticModel) -> tuple[Found, Positions]:
    how, source = line.job.links, line.source
    n = source.frame.shape[0]
    cells = alignlinks.link_blocks(source)
    work = alignlinks.LinkBlock(source, line.folder, how.lags, line.reference, how.to_reference)
    line.run(alignlinks.STAGE, key_of(line.key, asdict(work) | {"folder": None}), cells, work)
    table, sections = alignlinks.read_links(line.folder, cells)
    known = table["known"] == 1
    if not known.any():
        raise InputError(
            f"no two sections of {line.job.raw} resemble each other more than chance: sections must be those "
            "along z, and neighbours overlap; look at `emloom qc`"
        )
    shift = np.stack([table["dy"], table["dx"]], 1)[known]
    links = Links(table["first"][known], table["second"][known], shift, table["error"][known])
    positions = solve_positions(n, links, line.reference)
    if how.drift_sections is not None:
        slow = without_drift(positions.shift, how.drift_sections, line.reference, positions.cuts)
        positions = replace(positions, shift=slow)
    moved = positions.shift
    whole = isinstance(model, ShiftModel) and not model.subpixel
    if whole:
        moved = away_from_zero(moved).astype(np.float64)
    rows = _rows(n, moved)
    rows |= _fit_of(n, links, positions, table["sigmas"][known])
    rows |= _reasons(positions, doubts(sections, links, table["correlation"][known]))
    maps = [Shift(*p) for p in moved.tolist()]
    return Found(maps, rows, _notes(positions, line.reference), {"reference": line.reference}), positions


def _fit_of(n: int, links: Links, positions: Positions, sigmas: F64) -> Table:
    """Return per section how well the links that are believed are met, and how clear they are."""
    believed = positions.weight > 0.1
    p95, clear = np.full(n, np.nan), np.full(n, np.nan)
    ends = np.concatenate([links.first[believed], links.second[believed]])
    left, height = (np.tile(values[believed], 2) for values in (positions.residual, sigmas))
    order = np.argsort(ends, kind="stable")
    at, first = np.unique(ends[order], return_index=True)
    for z, some in zip(at.tolist(), np.split(order, first[1:]), strict=False):
        p95[z], clear[z] = np.percentile(left[some], 95), np.median(height[some])
    return {
        "links": positions.links,
        "residual_px": positions.median,
        "residual_p95_px": p95,
        "confidence": clear,
    }


def _reasons(positions: Positions, doubted: Sequence[str]) -> Table:
    """Return which sections are bad, as far as this shows, and what a person should know of each."""
    reason, bad = np.full(len(doubted), "", object), np.zeros(len(doubted), np.int64)
    for z, (state, doubt) in enumerate(zip(positions.state, doubted, strict=True)):
        bad[z] = state == "between" or bool(doubt)
        words = [doubt] if doubt else []
        if state == "between":
            words.append("put between its neighbours")
        elif state == "apart":
            words.append("no link joins it to the part of the reference, against which it was not moved")
        reason[z] = "; ".join(words)
    return {"bad": bad, "reason": reason}


def _notes(positions: Positions, reference: int) -> tuple[str, ...]:
    notes = [
        f"The stack falls apart between sections {z} and {z + 1}: no link joins them, they were left as they are."
        for z in positions.cuts
    ]
    if positions.state[reference] != "linked":
        notes.append(f"The reference section {reference} resembles no other: its neighbours stay where they are.")
    return tuple(notes)


# ---- affine maps ----------------------------------------------------------------------------------------------


def _affines(line: Line, model: AffineModel, found: Found, positions: Positions) -> Found:
    source, sizes = line.source, alignflows.Sizes.of(model, line.source)
    start = positions.shift.copy()
    seen = start.copy()
    seen[[state == "between" for state in positions.state]] = np.nan
    _save(line.folder / alignflows.POSITIONS, seen)
    cells = alignlinks.link_blocks(source)
    work = alignflows.FlowBlock(source, line.folder, line.job.links.lags, sizes)
    key = key_of(line.key, asdict(work) | {"folder": None}, seen.tolist())
    line.run(alignflows.STAGE, key, cells, work)
    links = [alignflows.thinned(link) for link in alignflows.read_flows(line.folder, cells)()]
    how = AffineStack(line.reference, model.rigid_sections)
    solved = section_affines(len(start), links, start, how)
    return _with_affines(found, solved)


def _with_affines(found: Found, solved: SectionAffines) -> Found:
    n = len(solved.maps)
    p95 = np.full(n, np.nan)
    used = np.zeros(n, np.int64)
    for fit in solved.links:
        for z in (fit.first, fit.second) if fit.used else ():
            p95[z], used[z] = np.fmax(p95[z], fit.p95_px), used[z] + 1
    matrices = np.array([one.matrix for one in solved.maps])
    table = found.table | {
        "shift_y": matrices[:, 0, 2],
        "shift_x": matrices[:, 1, 2],
        "links": used,
        "residual_px": solved.residual_px,
        "residual_p95_px": p95,
        **_shape_of(matrices[:, :, :2]),
    }
    lost = ~solved.linked & (table["bad"] == 0)
    table["bad"] = np.where(solved.linked, table["bad"], 1)
    table["reason"] = np.where(
        lost, "its patches agree with no other section: put between its neighbours", table["reason"]
    )
    return replace(found, maps=solved.maps, table=table)


def _shape_of(linear: F64) -> Table:
    """Return scale, rotation and shear of linear maps [Z, 2, 2] on (y, x)."""
    scale = np.sqrt(np.linalg.det(linear))
    turn = np.arctan2(linear[:, 1, 0] - linear[:, 0, 1], linear[:, 0, 0] + linear[:, 1, 1])
    c, s = np.cos(turn), np.sin(turn)
    rest = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], 1) @ linear / scale[:, None, None]
    shear = np.hypot(rest[:, 0, 0] - rest[:, 1, 1], rest[:, 0, 1] + rest[:, 1, 0]) / 2
    return {"scale": scale, "rotation_deg": np.degrees(turn), "shear": shear}


# ---- meshes ---------------------------------------------------------------------------------------------------


def _meshes(line: Line, model: ElasticModel, found: Found) -> Found:
    source = line.source
    _, rows, columns = source.frame.shape
    spacing = model.spacing_nm / source.frame.grid.voxel_size_nm[1]
    affines = [one for one in found.maps if isinstance(one, Affine)]
    _save(line.folder / alignmesh.AFFINES, np.array([one.matrix for one in affines]))
    cells = alignlinks.link_blocks(source)
    how = Elasticity(stiffness=model.stiffness, anchor=model.anchor)
    key = key_of(line.key, model.to_dict(), [one.matrix.tolist() for one in affines])
    for number in range(1, model.rounds + 1):
        work = alignmesh.RelaxBlock(line.folder, number, (rows, columns), spacing, how, tuple(cells))
        line.run(f"mesh-{number:03d}", key, cells, work)
    meshes = alignmesh.read_meshes(line.folder, model.rounds, cells, range(len(affines)))
    maps = [chain(mesh, affine) for (mesh, _), affine in zip(meshes, affines, strict=True)]
    facts = [said for _, said in meshes]
    table = found.table | {
        "residual_px": np.array([one["residual_px"] for one in facts]),
        "residual_p95_px": np.array([one["p95_px"] for one in facts]),
        "bend_px": np.array([float(np.hypot(*mesh.displacement).max()) for mesh, _ in meshes]),
    }
    stiff = [z for z, one in enumerate(facts) if one["stiffened"] > 1]
    notes = found.notes
    if stiff:
        listed = ", ".join(map(str, stiff[:10])) + (" ..." if len(stiff) > 10 else "")
        notes += (f"The meshes of {len(stiff)} sections would have folded and were made stiffer: {listed}.",)
    return replace(found, maps=maps, table=table, notes=notes)


def _save(path: Path, array: NDArray[Any]) -> None:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes_atomic(path, stream.getvalue())
