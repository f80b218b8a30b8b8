"""The page of `emloom repair`: what stands for bad sections, how torn ones were mended, and what is invented."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from emloom.geometry.planar import Chain, Pieces, PlanarMap
from emloom.geometry.stackmap import StackMap
from emloom.io.open import open_volume
from emloom.io.stackmaps import read_stackmap
from emloom.io.volume import Volume
from emloom.tasks.alignreport import SUMMARY as ALIGNED
from emloom.tasks.alignreport import name_of
from emloom.tasks.badsections import NAMED
from emloom.tasks.beforeafter import SIDE_PX, Pair, Window, from_the_side, motion, read_nearest, read_window, seen
from emloom.tasks.sectiontable import SectionTable, read_sections, read_summary
from emloom.view.alignfigures import before_after
from emloom.view.figures import Figure
from emloom.view.repairfigures import replaced_section, torn_section
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict

SUMMARY, PAGE, INVENTED = "repair.json", "report.html", "invented.zarr"
DRAWN = 3
"""Sections that are drawn, of those that were replaced and of those that were mended."""
LISTED = 40
"""Rows of a table on the page; all are in sections.csv."""
REPLACED, MENDED, LEFT, MEASURED = ("replaced", "between"), "mended", "left", ("measured", "")
_WIDE = 4096  # pixels of a section that are drawn, at most
_STATES = {
    "replaced": "a copy of the nearer neighbour stands for it",
    "between": "interpolated between its neighbours, along the flow between them",
    "mended": "torn: its parts were moved together, the gap was filled",
    "left": "bad, but left as it is",
}


@dataclass(frozen=True)
class _Found:
    """What lies in the folder."""

    folder: Path
    summary: Mapping[str, Any]
    table: SectionTable
    pair: Pair
    moves: StackMap
    invented: Volume

    @property
    def states(self) -> tuple[str, ...]:
        """What was done with each section."""
        return self.table.words("state")

    def of(self, *states: str) -> list[int]:
        """Return the sections in some states."""
        return [z for z, state in enumerate(self.states) if state in states]

    @property
    def marked(self) -> NDArray[np.bool_]:
        """Sections that are not as they were."""
        return np.array([state not in MEASURED for state in self.states])


def write_repair_report(folder: str | Path) -> Path:
    """Write `report.html` into a folder of `emloom repair`, from what lies there and the stack; return its path.

    Raises:
        InputError: the job of the folder has not ended, or the stack that was repaired is no longer there.
    """
    found = _read(Path(folder).absolute())
    path = found.folder / "provenance.json"
    provenance = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    raw = str(found.summary["raw"])
    report = Report(
        title=f"Repair of {name_of(raw)}",
        subtitle=raw,
        done="Bad sections were replaced by what their neighbours say, torn ones put together.",
        verdict=_verdict(found),
        scores=_scores(found),
        sections=[
            _summary(found),
            _side(found),
            *_replaced(found),
            *_mended(found),
            *_moving(found),
            *_listed(found),
        ],
        provenance=provenance,
    )
    report.write(found.folder / PAGE)
    return found.folder / PAGE


def _read(folder: Path) -> _Found:
    summary = read_summary(folder / SUMMARY)
    after = open_volume(folder / "raw.zarr")
    stack = str(summary["raw"])
    if (Path(stack) / ALIGNED).is_file():
        stack = str(Path(stack) / "raw.zarr")
    before = open_volume(stack, voxel_size_nm=after.info.grid.voxel_size_nm)
    n = after.info.shape[0]
    return _Found(
        folder,
        summary,
        read_sections(folder, n),
        Pair(before, after, tuple(range(n))),
        read_stackmap(folder / "map"),
        open_volume(folder / INVENTED),
    )


def _scores(found: _Found) -> list[Score]:
    left = len(found.of(LEFT))
    scores = [
        Score("sections", found.table.n),
        Score("replaced", len(found.of(*REPLACED)), "sections made of their neighbours"),
        Score("mended", len(found.of(MENDED)), "torn sections put together"),
        Score("left as they are", left, "bad, and nothing to be made of", "warning" if left else "plain"),
    ]
    share = found.summary.get("invented_share")
    if share is not None:
        scores.append(Score("not measured, %", 100 * float(share), "of all voxels; see invented.zarr"))
    return scores


def _verdict(found: _Found) -> Verdict:
    n, changed, left = found.table.n, int(found.marked.sum()), len(found.of(LEFT))
    if left:
        return Verdict(
            f"{left} of {n} sections are bad, and nothing could be made of them: segments break there.", "warning"
        )
    if not changed:
        return Verdict(f"None of {n} sections had to be repaired.", "good")
    return Verdict(
        f"{changed} of {n} sections were repaired, none is left bad; what was made up is marked.", "good"
    )


def _summary(found: _Found) -> Section:
    n = int(found.marked.sum())
    text = f"{n} of {found.table.n} sections are not as they were." if n else "Nothing had to be repaired."
    text += (
        f"\n\nWhat is invented looks like tissue, and is none: {INVENTED} says where. Give this folder as a mask, "
        "and training and evaluation leave it out. Predictions go back to the raw with emloom align invert --by "
        "this folder; what was invented in a gap has no place there, and is dropped."
    )
    text += "".join(f"\n\nNote: {note}" for note in found.summary.get("notes", []))
    rows: list[list[Cell]] = [
        [state, len(zs), words] for state, words in _STATES.items() if (zs := found.of(state))
    ]
    return Section(
        "What was done", text, [], [Table(["state", "sections", "what it means"], rows)] if rows else []
    )


def _side(found: _Found) -> Section:
    marked = np.flatnonzero(found.marked)
    around = int(marked[len(marked) // 2]) if marked.size else None
    sections = seen(found.pair, around)
    caption = (
        f"Sections {sections.start} to {sections.stop - 1}. Orange at the left edge: what was repaired. Membranes "
        "should run through such a section as through any other; where they do not, believe the mark."
    )
    planes = from_the_side(found.pair, found.marked, around)
    figure = before_after(planes, caption=caption)
    return Section("From the side", "The stack cut along z, before and after.", [figure])


def _spread(sections: Sequence[int]) -> list[int]:
    """Return some of many, evenly spread."""
    at = np.unique(np.linspace(0, len(sections) - 1, min(DRAWN, len(sections))).round().astype(int))
    return [sections[k] for k in at.tolist()]


def _window(found: _Found, around: tuple[int, int] | None = None) -> tuple[Window, int]:
    """Return the part of a section that is drawn, all of it if it is small, and by how much it is reduced."""
    extent = found.pair.after.info.shape[1:]
    shape = tuple(min(n, _WIDE) for n in extent)
    middle = around or found.pair.middle()
    start = [int(np.clip(c - n // 2, 0, m - n)) for c, n, m in zip(middle, shape, extent, strict=True)]
    return Window((start[0], start[1]), (shape[0], shape[1])), max(1, -(-max(shape) // SIDE_PX))


def _replaced(found: _Found) -> list[Section]:
    sections = found.of(*REPLACED)
    if not sections:
        return []
    figures = [_replacement(found, z) for z in _spread(sections)]
    text = f"{len(sections)} section{'s were' if len(sections) > 1 else ' was'} made of the neighbours" + (
        f"; {len(figures)} of them:" if len(sections) > len(figures) else "."
    )
    return [Section("Replaced sections", text, figures)]


def _replacement(found: _Found, z: int) -> Figure:
    window, factor = _window(found)
    before, after = (found.table.numbers(name)[z] for name in ("before", "after"))
    around = [int(v) for v in (before, after) if np.isfinite(v) and v >= 0]
    shown = {f"z = {k}": k for k in around if k < z}
    shown |= {f"bad: z = {z}": z}
    shown |= {f"z = {k}": k for k in around if k > z}
    images = read_window(found.pair.before, list(shown.values()), window, (factor, factor))
    made = read_window(found.pair.after, [z], window, (factor, factor))[0]
    _, dy, dx = found.pair.spacing_nm
    state, reason = found.states[z], _why(found, z)
    note = found.table.words("note")[z]
    caption = (
        f"Section {z} ({reason or 'bad'}): {_STATES[state]}.{_sentence(note)} Compare with its neighbours: cells "
        "may be slightly blurred, but should be neither doubled nor lost."
    )
    return replaced_section(
        list(zip(shown, images, strict=True)), (f"z = {z}: invented", made), (dy * factor, dx * factor),
        caption=caption,
    )  # fmt: skip


def _why(found: _Found, z: int) -> str:
    """Return the reason of a section in words: several names of defects, or what a person or an alignment said."""
    reason = found.table.words("reason")[z]
    return "named by a person" if reason == NAMED else reason.replace("_", " ")


def _sentence(note: str) -> str:
    return f" {note[:1].upper()}{note[1:]}." if note else ""


def _mended(found: _Found) -> list[Section]:
    sections = found.of(MENDED)
    if not sections:
        return []
    drawn = _spread(sections)
    figures = [figure for z in drawn for figure in _mending(found, z)]
    text = (
        "Torn sections: their parts were moved to where the neighbours say, and the gap between them was filled"
        + (f"; {len(drawn)} of {len(sections)}:" if len(sections) > len(drawn) else ".")
    )
    return [Section("Torn sections", text, figures)]


def _mending(found: _Found, z: int) -> list[Figure]:
    """Return pictures of a torn section: all of it, and where that is reduced, a part of its gap as it is."""
    parts = parts_of(found.moves.layers[-1].map(z))
    window, factor = _window(found, None if parts is None else crack_of(parts))
    caption = (
        f"Section {z}.{_sentence(found.table.words('note')[z])} Cells that the crack cut in two should meet again "
        "across the gap; inside of the outline nothing was measured."
    )
    invented = read_nearest(found.invented, z, window, factor) > 0
    figures = [_torn(found, z, (window, factor), parts, caption)]
    if factor > 1 and invented.any():
        centre = [a + n // 2 for a, n in zip(window.start, window.shape, strict=True)]
        pixels = np.argwhere(invented) * factor + np.array(window.start)
        y, x = pixels[int(np.argmin(np.abs(pixels - centre).sum(axis=1)))].tolist()
        shape = tuple(min(SIDE_PX, n) for n in window.shape)
        near = Window((y - shape[0] // 2, x - shape[1] // 2), (shape[0], shape[1]))
        caption = f"Section {z}, a part of the gap at full resolution: follow membranes across the outline."
        figures.append(_torn(found, z, (near, 1), None, caption))
    return figures


def _torn(
    found: _Found, z: int, where: tuple[Window, int], parts: NDArray[np.uint8] | None, caption: str
) -> Figure:
    window, factor = where
    before, after = (image[0] for image in found.pair.read([z], window, (factor, factor)))
    small = None if parts is None else _cut(parts, window, factor)
    _, dy, dx = found.pair.spacing_nm
    invented = read_nearest(found.invented, z, window, factor) > 0
    return torn_section(
        before, small, after, invented, (dy * factor, dx * factor), name=f"z = {z}", caption=caption
    )


def parts_of(move: PlanarMap) -> NDArray[np.uint8] | None:
    """Return the parts, uint8 [Y, X], that a map of a torn section begins with; None where it knows of none."""
    first = move.maps[0] if isinstance(move, Chain) else move
    return first.parts if isinstance(first, Pieces) else None


def crack_of(parts: NDArray[np.uint8]) -> tuple[int, int]:
    """Return a pixel (y, x) on the crack: amid the places that lie nearest to both of its first two parts."""
    step = max(1, max(parts.shape) // 256)
    coarse = parts[::step, ::step]
    if not ((coarse == 1).any() and (coarse == 2).any()):
        return parts.shape[0] // 2, parts.shape[1] // 2
    away = ndi.distance_transform_edt(coarse != 1) + ndi.distance_transform_edt(coarse != 2)
    y, x = np.nonzero(away <= away.min() + 1)
    return int(np.median(y)) * step, int(np.median(x)) * step


def _cut(parts: NDArray[np.uint8], window: Window, factor: int) -> NDArray[np.uint8]:
    """Return a window of parts, every n-th pixel, 0 outside."""
    y, x = (np.arange(a, a + n, factor) for a, n in zip(window.start, window.shape, strict=True))
    rows, columns = parts.shape
    out: NDArray[np.uint8] = np.where(
        ((y >= 0) & (y < rows))[:, None] & ((x >= 0) & (x < columns)),
        parts[np.ix_(np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1))],
        np.uint8(0),
    )
    return out


def _moving(found: _Found) -> list[Section]:
    sections = found.of(*REPLACED, MENDED)
    if not sections:
        return []
    z = sections[len(sections) // 2]
    caption = (
        "On the left a repaired section flashes; on the right it should pass unnoticed. If it does not, it is "
        "still better left to the mask than taken for tissue."
    )
    figure, shown = motion(found.pair, z, caption=caption)
    text = f"Sections {shown.start} to {shown.stop - 1}, around section {z}, one after the other."
    return [Section("Section after section", text, [figure])]


def _listed(found: _Found) -> list[Section]:
    sections = np.flatnonzero(found.marked).tolist()
    if not sections:
        return []
    before, after, invented, flow = (
        found.table.numbers(name) for name in ("before", "after", "invented", "flow_px")
    )
    notes = found.table.words("note")
    rows: list[list[Cell]] = [
        [
            z,
            found.states[z],
            _why(found, z),
            _section(before[z]),
            _section(after[z]),
            100 * float(invented[z]) if np.isfinite(invented[z]) else None,
            float(flow[z]) if np.isfinite(flow[z]) else None,
            notes[z],
        ]
        for z in sections[:LISTED]
    ]
    columns = ["section", "state", "why", "before", "after", "not measured (%)", "flow (px)", "note"]
    more = f"; {len(sections) - LISTED} more are in {found.table.path.name}" if len(sections) > LISTED else ""
    caption = (
        "what is not as it was, the sections it was made of, and how far these lie apart: where the "
        f"flow is long, look twice{more}"
    )
    return [Section("All repaired sections", "", [], [Table(columns, rows, caption)])]


def _section(value: float) -> Cell:
    return int(value) if np.isfinite(value) and value >= 0 else None
