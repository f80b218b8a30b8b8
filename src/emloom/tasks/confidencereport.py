"""The page of `emloom confidence`: how much is doubtful, where in the stack, and the first places in pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.io.tables import read_table
from emloom.io.volume import Volume
from emloom.ops.labels import apply_lut
from emloom.tasks.confidenceblocks import VOLUME, Doubted
from emloom.tasks.graphfiles import load_tree
from emloom.tasks.lattice import common_box
from emloom.tasks.lookhere import Place, read_places
from emloom.tasks.openings import Openings
from emloom.view.confidencefigures import where_figure
from emloom.view.figures import Figure
from emloom.view.marked import CROSS_RGB, RING_RGB, Marked, window_around
from emloom.view.mosaic import mosaic
from emloom.view.report import Cell, Report, Score, Section, Table, show

SHOWN = 12
"""Places in pictures."""
LISTED = 25
"""Places in the table of the page."""
_WINDOW_NM = 900.0
_QUESTIONS = {
    "merge?": "Should this segment be split here?",
    "split?": "Should these two segments be one?",
    "orphan": "Where does this segment go on?",
    "bad data": "What is behind the bad data?",
}


def question_of(place: Place) -> str:
    """Return what a person is asked about a place."""
    return _QUESTIONS[place.kind]


def openings_of(site: Doubted) -> Openings:
    """Return what shows places of the segmentation in a viewer, with raw where it is known."""
    folder = Path(site.job.segmentation)
    paths = {
        "raw": site.job.raw,
        "segmentation": str(folder / "segmentation"),
        "fragments": str(folder / "fragments"),
    }
    return Openings.of(paths, site.fragments(), "labels")


def write_confidence_report(site: Doubted, provenance: Mapping[str, Any]) -> Path:
    """Write `report.html` into the folder of a confidence; return its path."""
    places = read_places(site.folder)
    name = Path(site.job.segmentation).name
    report = Report(
        title=f"Where to look first: {name}",
        subtitle=f"{site.job.segmentation} · threshold {site.made_by.threshold:g}",
        scores=_cards(site, places),
        sections=[_where(site, places), _pictures(site, places), _list(places), _oddities(site)],
        provenance=provenance,
    )
    report.write(site.folder / "report.html")
    return site.folder / "report.html"


def _cards(site: Doubted, places: list[Place]) -> list[Score]:
    choices = read_table(site.folder / "choices.parquet")
    small = np.minimum(choices["size_a"], choices["size_b"]) < site.job.least_vox
    doubt = choices["doubt"][~small] / 255
    merged = choices["merged"][~small]
    return [
        Score("Places to look at", len(places), "ordered: the first are worth most"),
        Score("Merges judged", int(merged.sum()), f"about {doubt[merged].sum():.0f} of them wrong, as it seems"),
        Score("Gaps judged", int((~merged).sum()), f"about {doubt[~merged].sum():.0f} of them wrong, as it seems"),
        Score("Too small to list", int(small.sum()), f"a side below {show(site.job.least_vox)} voxels"),
    ]


def _where(site: Doubted, places: list[Place]) -> Section:
    info = site.fragments().info
    size = np.array(info.grid.voxel_size_nm)
    volume = open_volume(site.folder / VOLUME)
    worst = 255 - volume.read(volume.info.box).min(axis=0)
    shown = places[:LISTED]
    at = (np.array([p.at for p in shown]).reshape(-1, 3) + 0.5) * size / 1000
    z, y, x = (np.array(info.shape) * size / 1000).tolist()
    caption = (
        f"The first {len(shown)} places. Left: from above, with the largest doubt below every tile in orange. "
        f"Right: from the side. Numbers are ranks; the first {SHOWN} are shown below."
    )
    figure = where_figure(worst, (z, y, x), at, [p.kind for p in shown], caption)
    text = (
        "Nothing here knows the truth. Doubt is judged from how close every merge, and every gap, was to the "
        "threshold, from another prediction where there is one, and from bad data where the two touch."
    )
    return Section("Where in the stack", text, figures=[figure])


def _list(places: list[Place]) -> Section:
    columns = ("rank", "kind", "voxel (z, y, x)", "segments", "voxels at stake", "doubt", "why")
    rows: list[list[Cell]] = [
        [
            p.rank,
            p.kind,
            ", ".join(map(str, p.at)),
            " and ".join(str(s) for s in dict.fromkeys(p.segments) if s),
            p.voxels,
            round(p.doubt / 255, 2),
            p.reason,
        ]
        for p in places[:LISTED]
    ]
    text = (
        "The whole list is in look_here.parquet and look_here.csv; look_here.nml is for webKnossos, "
        "look_here.json a state of neuroglancer. Answers come back with `emloom proofread apply`."
    )
    return Section("Look here first", text, tables=[Table(columns, rows, f"The first {len(rows)} places.")])


def _oddities(site: Doubted) -> Section:
    t = read_table(site.folder / "segments.parquet")
    small = t["voxels"] < site.job.least_vox
    rows: list[list[Cell]] = [
        [f"tiny: below {site.job.least_vox} voxels", int(small.sum())],
        ["orphans: touch no face of the volume", int((t["orphan"] & ~small).sum())],
        ["end inside: touch one face", int((t["ends"] & ~small).sum())],
        ["giants: more than a quarter of all that is segmented", int(t["giant"].sum())],
        ["held together by a thin neck", int((t["necks"] > 0).sum())],
        ["touch themselves where the affinities say no", int((t["against"] > 0).sum())],
    ]
    text = f"Of {show(len(t))} segments; which, is in segments.parquet."
    return Section("What is odd about segments", text, tables=[Table(("what", "segments"), rows)])


def _pictures(site: Doubted, places: list[Place]) -> Section:
    draw, openings = _Drawing(site), openings_of(site)
    figures = []
    for place in places[:SHOWN]:
        ids = tuple(s for s in dict.fromkeys(place.segments) if s)
        pieces = tuple(f for f in place.fragments if f)
        chosen = (("segmentation", ids), ("fragments", pieces))
        opening = openings.opening(place.at, tuple((layer, each) for layer, each in chosen if each))
        figures.append(replace(draw(place), opening=opening))
    text = "Ring and cross: the two sides. Of a doubtful merge, colours are those of the sides before it was made."
    return Section("The first places", text if figures else "There is nothing to look at.", figures=figures)


class _Drawing:
    """Draws places."""

    def __init__(self, site: Doubted) -> None:
        self.site = site
        self.fragments = site.fragments()
        self.segments = open_volume(Path(site.job.segmentation) / "segmentation")
        self.tree = load_tree(site.job.segmentation)
        self.raw: Volume | None = None if site.job.raw is None else open_volume(site.job.raw, kind="raw")

    def __call__(self, place: Place) -> Figure:
        info = self.fragments.info
        layers = {"segments": self._sides(place)}
        window = window_around(place.at, info, _WINDOW_NM, np.zeros(3))
        marked = Marked(window, place.at, (place.at, place.to), info.grid.voxel_size_nm, self._read_raw(), layers)
        tiles = [tile for tile in marked.tiles() if not tile.title.endswith("yz")]
        reason = place.reason[0].upper() + place.reason[1:]
        caption = f"{place.rank}. {place.kind.rstrip('?').capitalize()}: {question_of(place)} {reason}."
        return mosaic(tiles, columns=4, alt=caption, caption=caption, exact=(RING_RGB, CROSS_RGB))

    def _read_raw(self) -> Callable[[Box], NDArray[Any]] | None:
        raw = self.raw
        if raw is None:
            return None
        start = common_box(self.fragments, raw).start
        return lambda box: raw.read(box.shift(start))

    def _sides(self, place: Place) -> Callable[[Box], NDArray[np.uint64]]:
        """Return what reads the segments of a place; of a merge, its two sides before it was made."""
        table = None
        if place.kind == "merge?":
            # The merge that joined the two fragments: the higher of the thresholds at which they still differ.
            table = self.tree.table(self._just_above(place))

        def read(box: Box) -> NDArray[np.uint64]:
            segments = self.segments.read(box)
            shown = segments if table is None else apply_lut(self.fragments.read(box), *table)
            kept: NDArray[np.uint64] = np.where(np.isin(segments, place.segments), shown, 0)
            return kept

        return read

    def _just_above(self, place: Place) -> float:
        """Return a threshold at which the two sides of a merge are still apart, as low as there is one."""
        scores = np.unique(self.tree.scores)
        pair = np.array(place.fragments, np.uint64)
        low, high = 0, len(scores)
        while low < high:  # apart from some score on upwards
            middle = (low + high) // 2
            one, other = self.tree.lut(pair, float(min(1.0, scores[middle] + 1e-12)))
            low, high = (middle + 1, high) if one == other else (low, middle)
        return float(min(1.0, scores[min(low, len(scores) - 1)] + 1e-12))
