"""What `emloom align` finds out about a stack: where every section goes, how well that fits, and what it was told.

Each model begins with the one before: translations, then affine maps, then meshes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from emloom.errors import InputError
from emloom.geometry.canvas import laid_out
from emloom.geometry.planar import Shift
from emloom.geometry.sectionshift import SectionShift, away_from_zero, box_within
from emloom.geometry.stackmap import Frame, StackMap
from emloom.io.open import open_volume
from emloom.io.shifttable import read_shift_table
from emloom.ops.doubtfulsections import doubts
from emloom.ops.sectiondrift import without_drift
from emloom.ops.sectionpositions import Positions, solve_positions
from emloom.ops.sectionshifts import known_links
from emloom.ops.shiftlinks import Links
from emloom.run.journal import key_of
from emloom.tasks import alignlinks
from emloom.tasks.alignbend import bent
from emloom.tasks.alignline import F64, Found, Line, Table
from emloom.tasks.alignspec import AffineModel, ElasticModel, ShiftModel, TableModel


def find(line: Line) -> tuple[Found, StackMap]:
    """Return an alignment, and the map of the stack that it is.

    Raises:
        InputError: a table does not fit the stack, or no two sections resemble each other.
    """
    model = line.job.model
    if isinstance(model, TableModel):
        return _from_table(line, model)
    line, found, positions = _shifts(line, model)
    if not isinstance(model, ShiftModel):
        found = bent(line, model, found, positions)
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


def _shifts(line: Line, model: ShiftModel | AffineModel | ElasticModel) -> tuple[Line, Found, Positions]:
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
    pairs, found = alignlinks.links_of(table)
    links, correlation = known_links(pairs, found)
    positions = solve_positions(n, links, line.reference)
    line, positions = _from_a_good_one(line, links, positions)
    if how.drift_sections is not None:
        slow = without_drift(positions.shift, how.drift_sections, line.reference, positions.cuts)
        positions = replace(positions, shift=slow)
    moved = positions.shift
    whole = isinstance(model, ShiftModel) and not model.subpixel
    if whole:
        moved = away_from_zero(moved).astype(np.float64)
    rows = _rows(n, moved)
    rows |= _fit_of(n, links, positions, table["sigmas"][known])
    poor = doubts(sections, links, correlation, alike=False)
    rows |= _reasons(positions, poor, doubts(sections, links, correlation))
    maps = [Shift(*p) for p in moved.tolist()]
    notes = _notes(positions, line.reference, line.job.links.reference)
    return line, Found(maps, rows, notes, {"reference": line.reference}), positions


def _fit_of(n: int, links: Links, positions: Positions, sigmas: F64) -> Table:
    """Return per section how well the links that are believed are met, and how clear they are."""
    believed = positions.believed
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


def _reasons(positions: Positions, poor: Sequence[str], doubted: Sequence[str]) -> Table:
    """Return which sections are bad, as far as this shows, and what a person should know of each.

    A section is bad where its picture is poor, or nothing says where it lies. That it resembles its neighbours
    less than others do is told, but tissue may do that: `emloom qc` judges it.
    """
    reason, bad = np.full(len(doubted), "", object), np.zeros(len(doubted), np.int64)
    for z, (state, doubt) in enumerate(zip(positions.state, doubted, strict=True)):
        bad[z] = state == "between" or bool(poor[z])
        words = [doubt] if doubt else []
        if state == "between":
            words.append("put between its neighbours")
        elif state == "apart":
            words.append("no link joins it to the part of the reference, against which it was not moved")
        reason[z] = "; ".join(words)
    return {"bad": bad, "reason": reason}


def _from_a_good_one(line: Line, links: Links, positions: Positions) -> tuple[Line, Positions]:
    """Return a line whose reference is linked to others: the nearest such section; and positions from there."""
    good = np.flatnonzero([state != "between" for state in positions.state])
    if line.reference in good or not good.size:
        return line, positions
    nearest = int(good[np.argmin(np.abs(good - line.reference))])
    return replace(line, stays=nearest), solve_positions(len(positions.state), links, nearest)


def _notes(positions: Positions, reference: int, asked: int | None) -> tuple[str, ...]:
    notes = [
        f"The stack falls apart between sections {a} and {b}: no link joins them, they were left as they are."
        for a, b in positions.partings()
    ]
    if asked is not None and asked != reference:
        notes.append(f"Section {asked} resembles no other, so section {reference} was the reference instead.")
    return tuple(notes)
