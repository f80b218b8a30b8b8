"""The page of `emloom qc`: the worst sections as pictures, why they are, and where defects are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.ops.downsample import downsample_mean
from emloom.ops.outliers import running_median
from emloom.tasks.qc import QcReport
from emloom.tasks.qcmap import MAP
from emloom.tasks.qcmask import MASK
from emloom.tasks.qcrules import Flag
from emloom.tasks.qcspec import DEFECTS, NAMES, Defect, QcSpec
from emloom.view.colours import grey
from emloom.view.figures import Figure, Tile
from emloom.view.mosaic import mosaic
from emloom.view.qcfigures import Projection, Series, coloured, defect_map, series_plot
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict

SHOWN = 12
"""Worst sections that are drawn."""
PLACES = 4
"""Sections that are drawn for their tiles."""
LISTED = 200
"""Flags that are listed; all are in sections.csv and qc.json."""
_WIDE = 384  # pixels along the side of a picture, about
_WINDOW = 4096  # voxels of a section that are drawn, at most: of a larger one, the part around its worst tile
_LONGEST = 400  # pixels of a map

_PLOTTED: dict[str, tuple[str, tuple[Defect, ...]]] = {
    "median": ("median grey value", ("dark", "bright")),
    "contrast": ("contrast (grey values)", ("low_contrast",)),
    "sharpness": ("sharpness", ("blurred",)),
    "like_next": ("correlation with the next section", ("unlike", "jump", "duplicate")),
    "shift": ("shift to the next section (nm)", ("shifted", "jump")),
    "void": ("void (part)", ("blank",)),
    "bands": ("cracks and folds (part)", ("crack", "fold")),
    "saturated": ("saturated (part)", ("saturated",)),
    "stripes": ("lines along rows over along columns (log2)", ("stripes",)),
}


def write_qc_report(spec: QcSpec, found: QcReport) -> Path:
    """Write `report.html` into the folder of a quality control; return its path."""
    folder = Path(spec.output).absolute()
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    info = found.stack.info
    worst = found.worst()
    report = Report(
        title=f"Quality of {_name_of(spec.raw)}",
        subtitle=spec.raw,
        done="Every section was measured and held against those around it.",
        verdict=_verdict(found),
        scores=[
            Score(
                "sections that stand out", found.n_bad, f"of {info.shape[0]}", "warning" if found.n_bad else "good"
            ),
            Score("masked, %", 100 * found.masked / info.box.size, "of all voxels: left out by later stages"),
            Score("tiles with a defect", sum(found.tiles.values()), f"of {_n_tiles(found)}"),
        ],
        sections=[
            _summary(spec, found),
            _worst(folder, found, worst[:SHOWN]),
            *_places(folder, found),
            _along_z(spec, found),
            _where(folder, found),
            _flags(found, worst),
        ],
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _verdict(found: QcReport) -> Verdict:
    n, share = found.stack.info.shape[0], found.masked / found.stack.info.box.size
    left_out = f"later stages leave out {share:.2%} of all voxels"
    if not found.n_bad:
        return Verdict(f"None of {n} sections stands out; {left_out}.", "good")
    noun = "section stands" if found.n_bad == 1 else "sections stand"
    return Verdict(f"{found.n_bad} of {n} {noun} out: look at the worst below; {left_out}.", "warning")


def _n_tiles(found: QcReport) -> int:
    return found.stack.lattice(found.stack.info.box).size


def _summary(spec: QcSpec, found: QcReport) -> Section:
    info = found.stack.info
    z, y, x = info.grid.voxel_size_nm
    n, rows_, columns_ = info.shape
    text = f"{n} section{'s' * (n > 1)} of {rows_} x {columns_} voxels, {z:g} x {y:g} x {x:g} nm (z, y, x)."
    if max(z, y, x) < 1.5 * min(z, y, x):
        text += (
            " Voxels are isotropic: sections are taken to be those along z, as a FIB-SEM mills them; what is "
            "wrong along another axis is not looked for."
        )
    text += "".join(f"\n\nNote: {note}." for note in found.notes)
    text += (
        f"\n\nLater stages take this folder as a mask: {MASK} is 0 where nothing is wrong, else a defect's code."
    )
    by_section = {name: len({flag.z for flag in found.flags if flag.defect == name}) for name in DEFECTS}
    rows: list[list[Cell]] = [
        [
            name.replace("_", " "),
            meaning.code,
            by_section[name],
            found.tiles.get(name, 0),
            name in spec.masked,
            meaning.text,
        ]
        for name, meaning in DEFECTS.items()
        if by_section[name] or found.tiles.get(name, 0)
    ]
    columns = ["defect", "code", "sections", "tiles", "in the mask", "what it means"]
    tables = (
        [Table(columns, rows, "what was found; of several in one place, tiles count the worst")] if rows else []
    )
    return Section("What was found", text if rows else text + "\n\nNothing stands out.", [], tables)


def _worst(folder: Path, found: QcReport, worst: list[tuple[int, list[Flag]]]) -> Section:
    text = (
        "Each with the section before and after it, in one grey scale, and with the tiles that were found. "
        "A section stands out against those around it: look whether you agree."
        if worst
        else "No section stands out."
    )
    return Section("Worst sections", text, [_picture(folder, found, z, flags) for z, flags in worst])


def _places(folder: Path, found: QcReport) -> list[Section]:
    """Return the sections that are good as a whole, and have most bad tiles."""
    tiles = np.where(found.table["defects"] == "", found.table["bad_tiles"], 0)
    worst = [int(z) for z in np.argsort(-tiles, kind="stable")[:PLACES] if tiles[z]]
    if not worst:
        return []
    n = int(np.count_nonzero(tiles))
    text = (
        f"{n} section{'s are' if n > 1 else ' is'} good as a whole, but for some tiles; those with most of them:"
    )
    return [Section("Bad places in good sections", text, [_picture(folder, found, z, []) for z in worst])]


def _name_of(path: str) -> str:
    """Return the name of the file or folder that holds a volume."""
    parts = Path(path).parts
    return next((part for part in parts if Path(part).suffix and part != ".."), parts[-1])


def reason(flag: Flag) -> str:
    """Return a flag in words."""
    usual = f", usual here {flag.expected:.3g}" if np.isfinite(flag.expected) else ""
    statistic = flag.statistic.replace("_", " ")
    limit = f", limit {flag.limit:.3g}" if flag.limit else ""
    return f"{flag.defect.replace('_', ' ')}: {statistic} {flag.value:.3g}{usual}{limit}"


def _picture(folder: Path, found: QcReport, z: int, flags: list[Flag]) -> Figure:
    info = found.stack.info
    code = open_volume(folder / MAP / "code")
    tiles = code.read(Box((z, 0, 0), (1, *code.info.shape[1:])))[0]
    window = _window(found, tiles)
    factor = max(1, -(-max(window.shape[1:]) // _WIDE))
    spacing = (info.grid.voxel_size_nm[1] * factor, info.grid.voxel_size_nm[2] * factor)
    shown = {}
    for k, name in ((z - 1, "before"), (z, "section"), (z + 1, "after")):
        if 0 <= k < info.shape[0]:
            section = found.stack.volume.read(Box((k, *window.start[1:]), (1, *window.shape[1:])))
            shown[f"{name}: z = {k}" if k != z else f"z = {z}"] = downsample_mean(section, (1, factor, factor))[0]
    # One scale for all, so that a dark section looks dark.
    together = grey(np.concatenate([image.reshape(-1) for image in shown.values()])[None])[0]
    parts = np.split(together, np.cumsum([image.size for image in shown.values()])[:-1])
    images = [
        Tile(title, part.reshape(image.shape), spacing)
        for (title, image), part in zip(shown.items(), parts, strict=True)
    ]
    here = next(
        part.reshape(image.shape)
        for (title, image), part in zip(shown.items(), parts, strict=True)
        if title == f"z = {z}"
    )
    if tiles.any() and not (tiles == tiles[0, 0]).all():
        names = ", ".join(NAMES[code].replace("_", " ") for code in np.unique(tiles[tiles > 0]).tolist())
        marks = _on_picture(found, tiles, window, factor, here.shape)
        images.append(Tile(f"found: {names}", coloured(here, marks, max(NAMES)), spacing))
    names_here = np.unique(tiles[tiles > 0]).tolist()
    counts = ", ".join(f"{int((tiles == code).sum())} {NAMES[code].replace('_', ' ')}" for code in names_here)
    why = "; ".join(reason(flag) for flag in flags) or f"Tiles: {counts}"
    return mosaic(
        images, columns=4, alt=f"Section {z} with its neighbours: {why}.", caption=f"Section {z}. {why}."
    )


def _window(found: QcReport, tiles: NDArray[np.uint8]) -> Box:
    """Return the part of a section that is drawn: all of it, or what lies around its worst tile."""
    _, rows, columns = found.stack.info.shape
    if max(rows, columns) <= _WINDOW:
        return Box((0, 0, 0), (1, rows, columns))
    marks = np.where(tiles == 0, 255, tiles)
    y, x = (int(v) for v in np.unravel_index(int(np.argmin(marks)), marks.shape))
    if not tiles.any():
        y, x = tiles.shape[0] // 2, tiles.shape[1] // 2
    shape = (min(rows, _WINDOW), min(columns, _WINDOW))
    side = found.stack.tile_vox
    start = [
        int(np.clip(at * side - n // 2, 0, whole - n))
        for at, n, whole in zip((y, x), shape, (rows, columns), strict=True)
    ]
    return Box((0, start[0], start[1]), (1, *shape))


def _on_picture(
    found: QcReport, tiles: NDArray[np.uint8], window: Box, factor: int, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    y, x = (
        np.minimum((start + np.arange(n) * factor) // found.stack.tile_vox, m - 1)
        for start, n, m in zip(window.start[1:], shape, tiles.shape, strict=True)
    )
    return tiles[np.ix_(y, x)]


def _along_z(spec: QcSpec, found: QcReport) -> Section:
    table = dict(found.table) | {"shift": np.hypot(found.table["shift_y"], found.table["shift_x"])}
    table["bands"] = table["crack"] + table["fold"]
    z = table["z"].astype(np.int64)
    series = []
    for column, (title, defects) in _PLOTTED.items():
        values = table[column].astype(np.float64)
        if not np.isfinite(values).any() or (
            column in ("void", "saturated", "bands") and not np.nanmax(values) > 0
        ):
            continue
        marked = np.zeros(len(z), np.bool_)
        for flag in found.flags:
            if flag.defect in defects:
                # Pairs are plotted at their first section.
                marked[max(0, flag.z - (flag.statistic in ("like_previous", "shift")))] = True
        series.append(
            Series(title, values, running_median(values, spec.rules.reach), marked & np.isfinite(values))
        )
    if len(z) < 2:
        return Section("Along the stack", "There is one section only.")
    text = (
        "What was measured of every section (line), what is usual around it (dotted: the running median of "
        f"{spec.rules.reach} sections on either side), and what stands out (points)."
    )
    return Section("Along the stack", text, [series_plot(z, series)])


def _where(folder: Path, found: QcReport) -> Section:
    lattice = found.stack.lattice(found.stack.info.box).shape
    along = {axis: max(1, -(-n // _LONGEST)) for axis, n in zip("zyx", lattice, strict=True)}
    front, side = _projected(folder, found, along)
    occurring = {code: NAMES[code].replace("_", " ") for code in np.union1d(front, side).tolist() if code}
    maps = [
        Projection("seen along z, but for sections bad as a whole", "tiles, y", "tiles, x", front),
        Projection("seen along y", "section", "tiles, x", side),
    ]
    figure = defect_map(maps, occurring, max(NAMES), caption="The worst defect along each line of sight.")
    text = (
        f"One pixel per tile of {found.stack.tile_vox} voxels (or several, of a large stack). All codes are in "
        f"{MAP}/code, how close every tile comes to a limit in {MAP}/score: 128 is the limit."
    )
    return Section("Where", text, [figure])


def _projected(folder: Path, found: QcReport, along: dict[str, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the lowest codes along z, and along y, at a resolution that can be drawn; 0 where there is none."""
    code = open_volume(folder / MAP / "code")
    lattice = code.info.shape
    z, y, x = (np.arange(0, n, along[a]) for n, a in zip(lattice, "zyx", strict=True))
    front, side = np.full((len(y), len(x)), 255, np.uint8), np.full((len(z), len(x)), 255, np.uint8)
    depth = code.info.chunks[0] if code.info.chunks else 1
    for start in range(0, lattice[0], depth):
        part = code.read(Box((start, 0, 0), (min(depth, lattice[0] - start), *lattice[1:])))
        part = np.where(part == 0, np.uint8(255), part)
        small = np.minimum.reduceat(np.minimum.reduceat(part, y, axis=1), x, axis=2)
        good = found.table["code"][start : start + len(part)] == 0
        front = np.minimum(front, small[good].min(axis=0, initial=255))
        rows = (start + np.arange(len(part))) // along["z"]
        np.minimum.at(side, rows, small.min(axis=1))
    return np.where(front == 255, 0, front).astype(np.uint8), np.where(side == 255, 0, side).astype(np.uint8)


def _flags(found: QcReport, worst: list[tuple[int, list[Flag]]]) -> Section:
    flags = [flag for _, group in worst for flag in group]
    rows: list[list[Cell]] = [
        [
            f.z,
            f.defect.replace("_", " "),
            f.statistic.replace("_", " "),
            f.value,
            f.expected if np.isfinite(f.expected) else None,
            f.limit,
            f.severity,
        ]
        for f in flags[:LISTED]
    ]
    columns = ["section", "defect", "statistic", "measured", "usual", "limit", "severity"]
    text = (
        f"Worst first; {len(flags) - LISTED} more are in sections.csv." if len(flags) > LISTED else "Worst first."
    )
    tables = [
        Table(columns, rows, "every flag with its rule; severity is in distances of the limit from the usual")
    ]
    return Section("All flags", text if rows else "None.", [], tables if rows else [])
