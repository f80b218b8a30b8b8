"""The page of `emloom align`: the stack from the side before and after, where sections went, how well they fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.stackmap import StackMap
from emloom.io.open import open_volume
from emloom.io.stackmaps import read_stackmap
from emloom.tasks.beforeafter import Pair, from_the_side, is_reduced, motion, seen
from emloom.tasks.sectiontable import SectionTable, read_sections, read_summary
from emloom.view.alignfigures import (
    before_after,
    end_to_end,
    field_plot,
    largest_step,
    residual_plot,
    shift_curves,
)
from emloom.view.qcfigures import Series, series_plot
from emloom.view.report import Cell, Report, Score, Section, Table, Tone, Verdict

SUMMARY, PAGE = "align.json", "report.html"
LISTED = 20
"""Rows of a table on the page; all are in sections.csv."""
_LATTICE = 24
_FEW_LINKS = 3
_SHAPES = {
    "scale": "scale",
    "rotation_deg": "rotation (degrees)",
    "shear": "shear",
    "bend_px": "largest displacement of the mesh (px)",
}
_LOOK_SIDE = (
    "Look along a membrane, from the top to the bottom. It should run through as a line; a step is a section that "
    "still lies wrong, a slow bend may be the tissue itself."
)
_P95_PX = (1.0, 3.0)  # good up to, to be looked at up to
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class _Found:
    """What lies in the folder."""

    folder: Path
    summary: Mapping[str, Any]
    table: SectionTable
    pair: Pair
    moves: StackMap
    bad: NDArray[np.bool_]
    shift_yx: F64
    residual: F64
    residual_p95: F64

    @property
    def z(self) -> NDArray[np.int64]:
        """Numbers of the sections."""
        return np.arange(self.table.n)


def write_align_report(folder: str | Path) -> Path:
    """Write `report.html` into a folder of `emloom align`, from what lies there and the raw; return its path.

    Only what is drawn is read: a few rows of some hundred sections, and parts of a few sections.

    Raises:
        InputError: the job of the folder has not ended, or the raw is no longer there.
    """
    found = _read(Path(folder).absolute())
    path = found.folder / "provenance.json"
    provenance = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    report = Report(
        title=f"Alignment of {name_of(str(found.summary['raw']))}",
        subtitle=str(found.summary["raw"]),
        done="Every section was laid on those around it.",
        verdict=_verdict(found),
        scores=_scores(found),
        sections=[
            _summary(found),
            _side(found),
            _motion(found),
            _went(found),
            *_bent(found),
            *_fit(found),
            *_bad(found),
        ],
        provenance=provenance,
    )
    report.write(found.folder / PAGE)
    return found.folder / PAGE


def name_of(path: str) -> str:
    """Return the name of the file or folder that holds a volume."""
    parts = Path(path).parts
    return next((part for part in parts if Path(part).suffix and part != ".."), parts[-1])


def _read(folder: Path) -> _Found:
    summary = read_summary(folder / SUMMARY)
    after = open_volume(folder / "raw.zarr")
    before = open_volume(summary["raw"], voxel_size_nm=after.info.grid.voxel_size_nm)
    table = read_sections(folder, after.info.shape[0])
    return _Found(
        folder,
        summary,
        table,
        Pair(before, after, tuple(table.homes())),
        read_stackmap(folder / "map"),
        table.flags("bad"),
        np.column_stack([table.numbers("shift_y"), table.numbers("shift_x")]),
        table.numbers("residual_px"),
        table.numbers("residual_p95_px"),
    )


def _scores(found: _Found) -> list[Score]:
    far = np.hypot(*found.shift_yx.T)
    scores = [
        Score("sections", found.table.n, _size(found.pair.after.info.shape[1:])),
        Score(
            "bad sections", int(found.bad.sum()), "placed by their neighbours", _tone(found.bad.mean(), 0.0, 0.1)
        ),
    ]
    if np.isfinite(found.residual).any():
        links = found.table.numbers("links")[~found.bad]
        few = float(np.nanmedian(links)) if np.isfinite(links).any() else 0.0
        median, p95 = (float(np.nanmedian(v)) for v in (found.residual, found.residual_p95))
        scores += [
            Score("residual, median, px", f"{median:.2f}", "over sections", _tone(median, 0.5, 1.5)),
            Score("residual, p95, px", f"{p95:.2f}", "95th percentile of a section", _tone(p95, *_P95_PX)),
            Score(
                "links of a section",
                f"{few:g}",
                "median; with one or two, residuals prove little",
                "warning" if few < _FEW_LINKS else "plain",
            ),
        ]
    scale = found.table.numbers("scale")
    if np.isfinite(scale).any():
        low, high = float(np.nanmin(scale)), float(np.nanmax(scale))
        off = max(abs(low - 1), abs(high - 1))
        scores.append(Score("scale", f"{low:.3f} to {high:.3f}", "of sections", _tone(off, 0.02, 0.05)))
    largest = f"{np.nanmax(far):.1f}" if np.isfinite(far).any() else None
    ends = end_to_end(found.shift_yx)
    scores.append(Score("largest shift, px", largest, "of a section"))
    scores.append(
        Score("end to end, px", f"{ends:.1f}" if np.isfinite(ends) else None, "last section to the first")
    )
    return scores


def _verdict(found: _Found) -> Verdict:
    n, bad = found.table.n, int(found.bad.sum())
    away = f" {bad} of {n} sections are bad and lie where their neighbours are." if bad else ""
    if not np.isfinite(found.residual).any():
        return Verdict(f"The {n} sections were moved; how well they fit was not measured.{away}")
    p95 = float(np.nanmedian(found.residual_p95))
    tone = _tone(p95, *_P95_PX)
    says = {
        "good": "they fit",
        "warning": "look at the membranes from the side before you go on",
        "bad": "they do not fit: do not go on before you know why",
        "plain": "look at them",
    }[tone]
    return Verdict(f"95 % of the places of a section lie within {p95:.2f} px of their match: {says}.{away}", tone)


def _tone(value: float, good: float, fair: float) -> Tone:
    if not np.isfinite(value):
        return "plain"
    return "good" if value <= good else "warning" if value <= fair else "bad"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape) + " voxels (y, x)"


def _summary(found: _Found) -> Section:
    summary = found.summary
    model = summary.get("model", "shift")
    kind = model["kind"] if isinstance(model, Mapping) else model
    before, after = found.pair.before.info.shape, found.pair.after.info.shape
    text = (
        f"{before[0]} sections of {_size(before[1:])} became {after[0]} of {_size(after[1:])}. "
        f"Model: {kind}. The section of reference is {summary.get('reference', 'none')}: it stays where it is."
    )
    if summary.get("drift") is not None:
        text += f" Movements over more than {summary['drift']} sections were left as they are in the raw."
    if summary.get("seconds") is not None:
        text += f" It took {float(summary['seconds']):.0f} s."
    text += (
        "\n\nNothing here is final: map/ leads from the raw to the result and back. Labels and points are moved "
        "along with emloom align apply, and predictions are brought back to the raw with emloom align invert."
    )
    text += "".join(f"\n\nNote: {note}" for note in summary.get("notes", []))
    return Section("What was done", text)


def _side(found: _Found) -> Section:
    caption = f"{_range(seen(found.pair))}. {_LOOK_SIDE}{_marks(found)}"
    figures = [before_after(from_the_side(found.pair, found.bad), caption=caption)]
    if is_reduced(found.pair):
        z = largest_step(found.shift_yx)
        caption = (
            f"{_range(seen(found.pair, z))} at full resolution, around section {z}, which was moved most relative "
            "to the one before it: membranes should cross it without a step."
        )
        figures.append(before_after(from_the_side(found.pair, found.bad, z), caption=caption))
    text = (
        "The stack cut along z, at the same place of the world before and after; each row of blocks is a section."
    )
    return Section("From the side", text, figures)


def _range(sections: range) -> str:
    return f"Sections {sections.start} to {sections.stop - 1}"


def _marks(found: _Found) -> str:
    return " Orange at the left edge: bad sections." if found.bad.any() else ""


def _motion(found: _Found) -> Section:
    caption = (
        "Rest your eyes on one membrane: on the right it should breathe, as cells change from section to section, "
        "and not jump."
    )
    figure, shown = motion(found.pair, largest_step(found.shift_yx), caption=caption)
    text = f"{_range(shown)}, where they were moved most, one after the other."
    return Section("Section after section", text, [figure])


def _went(found: _Found) -> Section:
    if found.table.n < 2:
        return Section("Where sections went", "There is one section only.")
    caption = (
        "How far each section was moved. Jumps are sections that lay wrong in the raw; a long slope is drift of "
        "the microscope, or tissue that runs obliquely and was straightened: compare with the view from the side."
    )
    figures = [shift_curves(found.z, found.shift_yx, found.bad, caption=caption)]
    series = [
        Series(title, values, np.full(found.table.n, np.nan), found.bad & np.isfinite(values))
        for name, title in _SHAPES.items()
        if np.isfinite(values := found.table.numbers(name)).any()
    ]
    if series:
        caption = "How each section was deformed; bad sections are orange. Neighbours should be alike."
        figures.append(series_plot(found.z, series, caption=caption))
    return Section("Where sections went", "", figures)


def _bent(found: _Found) -> list[Section]:
    """Return the section that was bent most: what is left of its map beside the shift."""
    amounts = [found.table.numbers(name) for name in ("bend_px", "rotation_deg", "scale")]
    known = next((np.abs(v - (np.nanmedian(v))) for v in amounts if np.isfinite(v).any()), None)
    if known is None or not np.nanmax(known) > 0:
        return []
    z = int(np.nanargmax(known))
    if found.moves.home(z) is None:
        return []
    extent = found.moves.source.shape[1:]
    step = max(extent) / _LATTICE
    y, x = ((np.arange(n) + 0.5) * size / n for size in extent for n in [max(1, round(size / step))])
    places = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
    u = (found.moves.map(z)(places) - places).T.reshape(2, len(y), len(x))
    u = u - np.nanmedian(u.reshape(2, -1), axis=1)[:, None, None]
    figure = field_plot(
        u,
        (float(extent[0]), float(extent[1])),
        f"section {z}, beside its shift",
        caption=(
            "Smooth colours are a section that was stretched or turned; an island of another colour is a fold, or "
            "a place where the match failed: look there."
        ),
    )
    return [Section("How sections are bent", f"Section {z} was bent most.", [figure])]


def _fit(found: _Found) -> list[Section]:
    residual = found.residual
    if not np.isfinite(residual).any():
        return []
    figure = residual_plot(
        found.z,
        residual,
        found.residual_p95,
        found.bad,
        caption=(
            "How far sections still lie from where the sections that they were compared with say: below one pixel "
            "is good. A single peak is a bad section, a broad one a place where the tissue changes quickly."
        ),
    )
    worst = [
        int(z) for z in np.argsort(-np.nan_to_num(residual, nan=-1), kind="stable") if np.isfinite(residual[z])
    ]
    columns = [
        "section",
        "moved y (px)",
        "moved x (px)",
        "links",
        "residual (px)",
        "95th percentile",
        "confidence",
    ]
    names = ("shift_y", "shift_x", "links", "residual_px", "residual_p95_px", "confidence")
    values = [found.table.numbers(name) for name in names]
    rows: list[list[Cell]] = [
        [z, *(_cell(v[z], name) for v, name in zip(values, names, strict=True))] for z in worst[:LISTED]
    ]
    caption = "worst first" + (
        f"; {len(worst) - LISTED} more are in {found.table.path.name}" if len(worst) > LISTED else ""
    )
    return [Section("How well they fit", "", [figure], [Table(columns, rows, caption)])]


def _cell(value: float, name: str) -> Cell:
    if not np.isfinite(value):
        return None
    return int(value) if name == "links" else float(value) + 0.0  # no minus before a zero


def _bad(found: _Found) -> list[Section]:
    """Return which sections are bad, and which are placed but come with a warning."""
    reasons = found.table.words("reason")
    at = [z for z in range(found.table.n) if found.bad[z] or reasons[z]]
    if not at:
        return []
    rows: list[list[Cell]] = [
        [z, found.pair.homes[z], "bad" if found.bad[z] else "doubtful", reasons[z].replace("_", " ")]
        for z in at[:LISTED]
    ]
    caption = f"{len(at) - LISTED} more are in {found.table.path.name}" if len(at) > LISTED else ""
    text = (
        "Nothing was concluded from bad sections; they lie where their neighbours are: see emloom repair to "
        "replace them. Doubtful ones were placed by what little there is: look at them."
    )
    tables = [Table(["section", "of the raw", "state", "why"], rows, caption)]
    return [Section("Bad and doubtful sections", text, [], tables)]
