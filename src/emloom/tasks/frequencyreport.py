"""The page of `emloom frequency`: what is kept per wavelength, where content was replaced, and how it looks."""

from __future__ import annotations

import json
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.metrics.fourier import FIXED_THRESHOLD
from emloom.metrics.frequency import LocalMap, local_map
from emloom.tasks.frequency import FrequencyReport, Kept
from emloom.tasks.frequencyspec import FrequencySpec
from emloom.view.colours import grey
from emloom.view.figures import Figure, Tile
from emloom.view.frequencyfigures import KeptLine, fidelity_plot, ring_plot, share_plot, tile_map
from emloom.view.mosaic import mosaic
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict

SHOWN = 3
"""Tiles of each output that are drawn."""

_AROUND = 192  # voxels along the sides of a picture: smaller tiles are shown amid their neighbours
_FRAME_RGB = (217, 96, 15)


def write_frequency_report(spec: FrequencySpec, found: FrequencyReport) -> Path:
    """Write `report.html` into the folder of a comparison; return its path."""
    folder = Path(spec.output).absolute()
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    sections = [_levels(found), _power(found)]
    if any(kept.verdicts for kept in found.outputs):
        sections.insert(0, _gate(found))
    if any(kept.rings is not None for kept in found.outputs):
        sections.append(_rings(found))
    sections += [_places(kept) for kept in found.outputs]
    report = Report(
        title=f"What is kept of {Path(spec.reference).name}",
        subtitle=spec.reference,
        done=f"How much of {Path(spec.reference).name} is kept was measured, wavelength by wavelength.",
        verdict=_verdict(found),
        scores=[_card(kept) for kept in found.outputs[:4]],
        sections=sections,
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _verdict(found: FrequencyReport) -> Verdict:
    limits = [verdict for kept in found.outputs for verdict in kept.verdicts]
    broken = sum(not verdict.kept for verdict in limits)
    if limits and broken:
        return Verdict(f"{broken} of {len(limits)} limits are broken.", "bad")
    if limits:
        return Verdict(f"All {len(limits)} limits are kept.", "good")
    fine = [(kept.name, _card(kept).value) for kept in found.outputs]
    known = ", ".join(
        f"{value:g} nm ({name})" for name, value in fine if isinstance(value, float) and isfinite(value)
    )
    if not known:
        return Verdict("At no wavelength does the reference explain half of what was given back.", "warning")
    return Verdict(f"At least half comes through down to {known}. No limit was asked for.")


def _card(kept: Kept) -> Score:
    """Return the finest wavelength down to which at least half of the output's power is the reference's."""
    fine = None
    for band in reversed(kept.levels):
        if not band.coherence.value**2 >= 0.5:
            break
        fine = band
    note = "finest wavelength of which the reference explains at least half; lower is finer"
    return Score(f"{kept.name}, nm", float("nan") if fine is None else fine.wavelength_nm, note)


def _levels(found: FrequencyReport) -> Section:
    first = found.outputs[0]
    lines = [
        KeptLine(
            kept.name,
            [band.wavelength_nm for band in kept.levels],
            [band.ratio for band in kept.levels],
            [band.coherence for band in kept.levels],
        )
        for kept in found.outputs
    ]
    wavelengths = [target.wavelength_nm for target in first.targets]
    targets = {}
    if first.targets:
        targets["all but noise"] = (wavelengths, [t.by_noise for t in first.targets])
        if not any(isnan(t.by_neighbours) for t in first.targets):
            targets["as adjacent sections"] = (wavelengths, [t.by_neighbours for t in first.targets])
    text = (
        "The ratio is the power of the output over that of the reference, level by level of a wavelet "
        "transform; the "
        "coherence tells whether it is the same structure. Power alone cannot tell structure from noise: read "
        "both. "
        "Bands are 95 % intervals over tiles."
    )
    text += (
        "\n\nAn ideal denoiser keeps the ratios that are drawn in grey: all power but that of white noise as "
        "strong "
        "as the finest diagonal differences say, or what adjacent sections share, which is a lower bound."
        if first.targets
        else f"\n\nNo targets are drawn: {first.unknown}."
    )
    rows: list[list[Cell]] = [
        [
            kept.name,
            band.level,
            band.wavelength_nm,
            _said(band.ratio),
            _said(band.coherence),
            band.median_ratio.value,
            band.error.value,
        ]
        for kept in found.outputs
        for band in kept.levels
    ]
    columns = ["output", "level", "nm", "ratio", "coherence", "median ratio", "relative error"]
    reasons = {f"{k.name}: {why}" for k in found.outputs for b in k.levels for why in (b.ratio.reason,) if why}
    text += "".join(f"\n\n{reason}." for reason in sorted(reasons))
    caption = "Lines at the lower edge are below 0.001."
    return Section(
        "What is kept",
        text,
        [fidelity_plot(lines, targets, caption=caption)],
        [Table(columns, rows, "with 95 % intervals; orientations are in scores.csv")],
    )


def _power(found: FrequencyReport) -> Section:
    first = found.outputs[0]
    shares = {"reference": [band.share_x.value for band in first.levels]}
    shares |= {kept.name: [band.share_y.value for band in kept.levels] for kept in found.outputs}
    text = "Shares of the power of all levels, the mean grey level left out: it would drown everything."
    return Section("Where the power is", text, [share_plot([b.wavelength_nm for b in first.levels], shares)])


def _gate(found: FrequencyReport) -> Section:
    rows: list[list[Cell]] = [
        [
            kept.name,
            v.limit.statistic,
            v.wavelength_nm,
            v.value,
            "–" if v.limit.at_least is None else f"{v.limit.at_least:g}",
            "–" if v.limit.at_most is None else f"{v.limit.at_most:g}",
            "kept" if v.kept else "BROKEN",
        ]
        for kept in found.outputs
        for v in kept.verdicts
    ]
    broken = sum(not v.kept for kept in found.outputs for v in kept.verdicts)
    text = "Every limit is kept." if found.passed else f"{broken} of {len(rows)} limits are broken."
    columns = ["output", "statistic", "nm", "value", "at least", "at most", ""]
    return Section("Limits", text, [], [Table(columns, rows, "limits that were asked for")])


def _rings(found: FrequencyReport) -> Section:
    known = {kept.name: kept.rings for kept in found.outputs if kept.rings is not None}
    curves = {name: (rings.frequency_per_nm, rings.correlation) for name, rings in known.items()}
    first = next(iter(known.values()))
    rows: list[list[Cell]] = [
        [name, _or_none(r.resolution_nm), _or_none(r.resolution_half_bit_nm), r.reason]
        for name, r in known.items()
    ]
    text = (
        "Correlation of Fourier rings (shells of volumes) of some tiles, a cross-check of the coherence above. "
        "The "
        "noise of the reference that an output kept correlates, too: this is not the resolution of the microscope."
    )
    columns = ["output", f"falls below {FIXED_THRESHOLD:g} at (nm)", "below half a bit at (nm)", ""]
    half_bit = (first.frequency_per_nm, first.half_bit)
    return Section(
        "Fourier rings", text, [ring_plot(curves, half_bit, FIXED_THRESHOLD)], [Table(columns, rows, "resolution")]
    )


def _places(kept: Kept) -> Section:
    """Return maps of the level whose content was replaced most, and its worst tiles."""
    maps = {band.level: local_map(kept.table, band.level) for band in kept.levels}
    level = max(maps, key=lambda number: (int(maps[number].hallucinated().sum()), -number))
    shown, replaced = maps[level], int(maps[level].hallucinated().sum())
    wavelength = kept.levels[level - 1].wavelength_nm
    worst = _worst(shown)
    title = f"Where {kept.name} differs"
    if not worst:
        return Section(title, "The reference has no power in any tile: there is nothing to compare.")
    z = worst[0][0] - shown.first_tile[0]
    marked = shown.hallucinated()[z]
    tile_vox = kept.compared.decomposition.tile_vox
    _, dy, dx = (s * t for s, t in zip(kept.table.voxel_size_nm, tile_vox, strict=True))
    text = (
        f"At {wavelength:g} nm {replaced} of {shown.ratio_ZYX.size} tiles hold about as much power as the "
        "reference "
        "(ratio 0.7 to 1.4) of which less than half is explained by it (coherence below 0.7): content was "
        "replaced, "
        "be it structure or noise. Of all levels this one has most such tiles."
        if replaced
        else f"No tile of any level holds the right power with other content. At {wavelength:g} nm:"
    )
    text += f"\n\nThe map is of the tiles at z = {worst[0][0] * tile_vox[0]}."
    figures = [
        tile_map(
            {"ratio": shown.ratio_ZYX[z], "coherence": shown.coherence_ZYX[z], "invented": shown.invented_ZYX[z]},
            marked,
            (dy, dx),
            caption="Invented: power that no multiple of the reference explains, over the reference's.",
        )
    ]
    figures += [_tile(kept, tile, level, value) for *tile, value in worst[:SHOWN]]
    return Section(title, text, figures)


def _worst(shown: LocalMap) -> list[tuple[int, int, int, float]]:
    """Return the tiles (z, y, x in the lattice) with most invention, and how much; most first."""
    values = np.where(np.isnan(shown.invented_ZYX), -1.0, shown.invented_ZYX)
    order = np.argsort(-values, axis=None, kind="stable")[:SHOWN]
    places = np.stack(np.unravel_index(order, values.shape), axis=1) + np.array(shown.first_tile)
    found = [(int(z), int(y), int(x), float(v)) for (z, y, x), v in zip(places, values.flat[order], strict=True)]
    return [row for row in found if row[3] >= 0]


def _tile(kept: Kept, tile: list[int], level: int, invented: float) -> Figure:
    """Return the reference, the output and their difference in the middle section of a tile, and around it."""
    shape = kept.compared.decomposition.tile_vox
    z, y, x = (i * n for i, n in zip(tile, shape, strict=True))
    reference, output = kept.compared.volumes()
    place = Box((z + shape[0] // 2, y, x), (1, shape[1], shape[2]))
    around = [0, *(max(0, (_AROUND - n) // 2) for n in shape[1:])]
    box = place.grow((around[0], around[1], around[2])).intersect(output.info.box)
    a, b = reference.read(box.shift(kept.compared.within.start))[0], output.read(box)[0]
    spacing = kept.table.voxel_size_nm[1:]
    low, high = (float(v) for v in np.percentile(a, (0.5, 99.5)))
    images = {
        "reference": _shaded(a, low, high),
        kept.name: _shaded(b, low, high),
        "difference": grey(b.astype(np.float64) - a),
    }
    frame = place.slices(box.start)[1:] if box != place else None
    tiles = [Tile(name, _framed(image, frame), spacing) for name, image in images.items()]
    words = (
        f"Tile at z = {box.start[0]}, y = {y}, x = {x}: at level {level} {invented:.2f} of the reference's "
        "power is "
        "invented. Grey values of both are stretched alike, those of the difference by themselves."
    )
    return mosaic(tiles, columns=3, alt=words, caption=words, exact=(_FRAME_RGB,))


def _framed(image_YX: NDArray[np.uint8], frame: tuple[slice, ...] | None) -> NDArray[np.uint8]:
    """Return a grey image in colour, with a line around a part of it; None: there is no line to draw."""
    out = np.repeat(image_YX[..., None], 3, axis=2)
    if frame is not None:
        line = np.zeros(image_YX.shape, np.bool_)
        line[frame] = True
        inside = np.zeros_like(line)
        inside[tuple(slice(part.start + 1, part.stop - 1) for part in frame)] = True
        out[line & ~inside] = _FRAME_RGB
    return out


def _shaded(section: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (section.astype(np.float64) - low) * (255.0 / max(high - low, 1e-12))
    shaded: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return shaded


def _said(interval: Any) -> str:
    if isnan(interval.value):
        return "–"
    if isnan(interval.low):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f}–{interval.high:.3f})"


def _or_none(value: float) -> float | None:
    return None if isnan(value) else value
