"""The list "look here first": places of a segmentation ordered by what a look at them is likely to mend.

========= =============================================== ====================================================
kind      the question                                    score
========= =============================================== ====================================================
merge?    should this segment be split here?              chance of being wrong x log2(1 + smaller side / least)
split?    should these two segments be one?               the same
orphan    where does a segment that touches no face of    one half, or the chance of its best contact, if larger,
          the volume go on?                               x log2(1 + voxels / least)
bad data  what is behind data that QC or repair marked?   one quarter x log2(1 + bad voxels / least)
========= =============================================== ====================================================

A place is a pair of touching voxels, one on either side: that of the largest contact of two fragments which is
nearest to the middle of the contact. Where there is no contact, both are the same voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec
from emloom.io.open import open_volume
from emloom.io.tables import Table, read_table, write_csv, write_table
from emloom.ops.contacts import Sums, nearest_of
from emloom.ops.mergechoices import Choices
from emloom.run.stage import Output
from emloom.tasks.confidenceblocks import Doubted
from emloom.tasks.confidencespec import ConfidenceJob

PlaceKind = Literal["merge?", "split?", "orphan", "bad data"]
NAME = "look_here"
BAD_PART = 4
"""At most one in so many places is about bad data."""

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Place:
    """A place to look at.

    Attributes:
        rank: 1 is first.
        kind: see the module.
        score: what the order goes by.
        at: voxel (z, y, x) of the segmentation, on one side.
        to: voxel on the other side.
        segments: the segments on both sides; 0 for none.
        fragments: the fragments on both sides; 0 for none.
        voxels: of the smaller side, the orphan or the bad data: what is at stake.
        doubt: 0 (sure) to 255.
        reason: in words.
    """

    rank: int
    kind: PlaceKind
    score: float
    at: Vec
    to: Vec
    segments: tuple[int, int]
    fragments: tuple[int, int]
    voxels: int
    doubt: int
    reason: str


_NAMES = tuple(field.name for field in fields(Place))


def wanted_contacts(found: Choices, sums: Sums) -> Columns:
    """Return, of each choice, its largest contact of two fragments: `edge` (row of the sums) and its middle."""
    rows = np.flatnonzero(found.of_edge >= 0)
    order = np.lexsort((sums["v"][rows], sums["u"][rows], -sums["n"][rows], found.of_edge[rows]))
    choice = found.of_edge[rows[order]]
    edge = rows[order[np.flatnonzero(np.r_[True, choice[1:] != choice[:-1]][: len(choice)])]]
    middle = {axis: sums[f"sum_{axis}"][edge] // sums["n"][edge] for axis in "zyx"}
    return {"edge": edge, "u": sums["u"][edge], "v": sums["v"][edge], **middle}


def candidates_of(
    found: Choices, choices: Columns, segments: Columns, contact: Columns, job: ConfidenceJob
) -> list[Columns]:
    """Return what may be listed: choices and orphans, each with `kind`, `score`, `choice` and what is at stake."""
    small = np.minimum(found.size_a, found.size_b)
    weight = np.log2(1 + small / job.least_vox)
    best = _orphans_best(found, segments, job)
    mine = np.setdiff1d(np.flatnonzero(small >= job.least_vox), best["choice"])
    score = choices["doubt"] / 255 * weight
    listed: Columns = {
        "kind": np.where(found.merged[mine], "merge?", "split?"),
        "score": score[mine],
        "choice": mine,
        "voxels": small[mine],
        "orphan": np.zeros(len(mine), np.uint64),
    }
    row = best["choice"]
    chance = np.where(row >= 0, choices["doubt"][np.maximum(row, 0)] / 255 if len(found) else 0.0, 0.0)
    orphans: Columns = {
        "kind": np.full(len(row), "orphan"),
        "score": np.maximum(chance, 0.5) * np.log2(1 + best["voxels"] / job.least_vox),
        **best,
    }
    tables = [listed, orphans]
    for table in tables:
        known = np.maximum(table["choice"], 0)
        for name in ("u", "v", "z", "y", "x"):
            table[name] = np.where(table["choice"] >= 0, contact[name][known], 0).astype(contact[name].dtype)
    return [_first(table, job.places) for table in tables]


def _orphans_best(found: Choices, segments: Columns, job: ConfidenceJob) -> Columns:
    """Return the orphans, and of each the pair with the highest score; -1 where it touches nothing."""
    rows = np.flatnonzero(segments["orphan"] & (segments["voxels"] >= job.least_vox))
    ids = segments["segment"][rows]
    pairs = np.flatnonzero(~found.merged)
    both = np.concatenate([found.segment_a[pairs], found.segment_b[pairs]])
    pairs = np.tile(pairs, 2)
    pairs, both = pairs[kept := np.isin(both, ids)], both[kept]
    order = np.lexsort((pairs, -found.scores[pairs], both))
    first = order[np.flatnonzero(np.r_[True, both[order][1:] != both[order][:-1]][: len(order)])]
    choice = np.full(len(ids), -1)
    choice[np.searchsorted(ids, both[first])] = pairs[first]
    return {"choice": choice, "voxels": segments["voxels"][rows], "orphan": ids}


def _first(table: Columns, count: int) -> Columns:
    order = np.lexsort((table["orphan"], table["choice"], -table["score"]))[:count]
    return {name: column[order] for name, column in table.items()}


@dataclass(frozen=True)
class ListPlaces:
    """Puts the places together, in order."""

    site: Doubted

    def __call__(self, block: Block) -> list[Output]:
        """Write the list as Parquet and CSV."""
        site, box = self.site, block.write
        found = [*self._of_choices(), *bad_places(site, box)]
        found.sort(key=lambda place: (-place.score, place.kind, place.at, place.fragments))
        ranked = [_ranked(place, rank) for rank, place in enumerate(found[: site.job.places], 1)]
        columns = place_columns(ranked, site)
        paths = [site.folder / f"{NAME}{ending}" for ending in (".parquet", ".csv")]
        write_table(paths[0], columns)
        write_csv(paths[1], columns)
        return site.told(*paths)

    def _of_choices(self) -> list[Place]:
        site = self.site
        candidates = read_table(site.folder / "candidates.parquet")
        wanted = read_table(site.folder / "wanted.parquet")
        choices = read_table(site.folder / "choices.parquet")
        parts = [dict(read_table(path).columns) for path in sorted((site.folder / "places").glob("*.parquet"))]
        nearest = nearest_of(parts)
        rows = {(int(u), int(v)): k for k, (u, v) in enumerate(zip(wanted["u"], wanted["v"], strict=True))}
        at_row = {int(row): k for k, row in enumerate(nearest["row"])}
        offsets = site.affinities()[0].info.neighborhood
        assert offsets is not None
        assert site.made_by.threshold is not None
        says = _Words(choices, site.made_by.threshold)
        boxes = read_table(site.folder / "segments.parquet")
        places = []
        for n in range(len(candidates)):
            row = {name: column[n] for name, column in candidates.columns.items()}
            choice = int(row["choice"])
            if choice < 0:
                places.append(_alone(row, boxes))
                continue
            k = at_row[rows[int(row["u"]), int(row["v"])]]
            p = tuple(int(nearest[axis][k]) for axis in "zyx")
            q = tuple(a + b for a, b in zip(p, offsets[int(nearest["channel"][k])], strict=True))
            ends = (q, p) if nearest["swapped"][k] else (p, q)
            sides = int(row["segment_u"]), int(row["segment_v"])
            doubt = int(choices["doubt"][choice])
            places.append(
                Place(
                    0, cast(PlaceKind, str(row["kind"])), round(float(row["score"]), 4), cast(Vec, ends[0]),
                    cast(Vec, ends[1]), sides, (int(row["u"]), int(row["v"])), int(row["voxels"]), doubt,
                    says.reason(row),
                )
            )  # fmt: skip
        return places


def _alone(row: dict[str, Any], boxes: Table) -> Place:
    """Return the place of an orphan that touches nothing: the middle of its bounding box."""
    k = int(np.searchsorted(boxes["segment"], row["orphan"]))
    z, y, x = ((int(boxes[f"{a}0"][k]) + int(boxes[f"{a}1"][k]) - 1) // 2 for a in "zyx")
    segment, voxels = int(row["orphan"]), int(row["voxels"])
    words = f"segment {segment} ({voxels:,} voxels) touches no face of the volume, and no other segment"
    return Place(
        0, "orphan", round(float(row["score"]), 4), (z, y, x), (z, y, x), (segment, 0), (0, 0), voxels, 128, words
    )


@dataclass(frozen=True)
class _Words:
    """Says why a place is listed."""

    choices: Table
    threshold: float

    def reason(self, row: dict[str, Any]) -> str:
        c = {name: column[int(row["choice"])] for name, column in self.choices.columns.items()}
        words = [f"affinity {c['score']:.2f} over {c['contacts']:,} contacts, threshold {self.threshold:g}"]
        if row["orphan"]:
            words.insert(0, f"segment {row['orphan']} ({row['voxels']:,} voxels) touches no face of the volume")
        else:
            words.append(f"sides of {c['size_a']:,} and {c['size_b']:,} voxels")
        if "mean_second" in c:
            words.append(f"another prediction has {c['mean_second'] - c['mean']:+.2f}")
        if c["neck"]:
            words.append("a thin neck between two bodies")
        if 4 * c["against"] >= c["contacts"]:
            words.append(f"{round(100 * c['against'] / c['contacts'])} % of the contact, alone, says otherwise")
        if c["bad"]:
            words.append(f"{c['bad']:,} contacts in bad data")
        return "; ".join(words)


def bad_places(site: Doubted, box: Box) -> list[Place]:
    """Return a place for every connected group of tiles with bad data, largest first, `BAD_PART` of the list."""
    from scipy import ndimage  # not at import: scipy takes its time

    _, shape = site.tiles_of(box)
    voxels = np.zeros(shape, np.int64)
    for path in sorted((site.folder / "bad").glob("*.parquet")):
        part = read_table(path)
        voxels[part["z"], part["y"], part["x"]] = part["voxels"]
    groups, count = ndimage.label(voxels)
    sizes = np.zeros(count + 1, np.int64)
    np.add.at(sizes, groups.reshape(-1), voxels.reshape(-1))
    order = np.lexsort((np.arange(1, count + 1), -sizes[1:]))[: max(1, site.job.places // BAD_PART)] + 1
    fragments = open_volume(Path(site.job.segmentation) / "segmentation")
    places = []
    for group in order.tolist():
        tiles = np.argwhere(groups == group)
        worst = tiles[np.argmax(voxels[tuple(tiles.T)])]
        z, y, x = (min(int(t) * s + s // 2, n - 1) for t, s, n in zip(worst, site.tile, box.shape, strict=True))
        near = Box((z, y, x), (1, 1, 1)).grow(site.tile).intersect(box)
        ids, counts = np.unique(fragments.read(near), return_counts=True)
        ids, counts = ids[ids > 0], counts[ids > 0]
        two = [*ids[np.lexsort((ids, -counts))][:2].tolist(), 0, 0][:2]
        size = int(sizes[group])
        score = round(0.25 * float(np.log2(1 + size / site.job.least_vox)), 4)
        words = f"{size:,} voxels of bad or invented data in {len(tiles):,} tiles"
        places.append(
            Place(0, "bad data", score, (z, y, x), (z, y, x), (two[0], two[1]), (0, 0), size, 128, words)
        )
    return places


def _ranked(place: Place, rank: int) -> Place:
    return Place(rank, *(getattr(place, name) for name in _NAMES[1:]))


def place_columns(places: list[Place], site: Doubted) -> Columns:
    """Return the columns of a list of places; positions are centres of voxels, in the world and counted."""
    grid = site.fragments().info.grid
    columns: Columns = {
        "rank": np.array([p.rank for p in places], np.int64),
        "kind": np.array([p.kind for p in places], np.str_),
        "score": np.array([p.score for p in places], np.float64),
    }
    for name in ("at", "to"):
        voxels = np.array([getattr(p, name) for p in places], np.int64).reshape(-1, 3)
        world = np.array([grid.centre(getattr(p, name)) for p in places]).reshape(-1, 3)
        columns |= {f"{name}_{axis}": voxels[:, k] for k, axis in enumerate("zyx")}
        columns |= {f"{name}_{axis}_nm": world[:, k] for k, axis in enumerate("zyx")}
    for name in ("segments", "fragments"):
        pairs = np.array([getattr(p, name) for p in places], np.uint64).reshape(-1, 2)
        columns |= {f"{name[:-1]}_{side}": pairs[:, k] for k, side in enumerate("ab")}
    columns["voxels"] = np.array([p.voxels for p in places], np.int64)
    columns["doubt"] = np.array([p.doubt for p in places], np.int64)
    return columns | {"reason": np.array([p.reason for p in places], np.str_)}


def read_places(path: str | Path) -> list[Place]:
    """Read a list that `emloom confidence` wrote: its folder, or the Parquet file in it.

    Raises:
        InputError: there is none.
    """
    file = Path(path)
    file = file / f"{NAME}.parquet" if file.is_dir() else file
    if not file.is_file():
        raise InputError(f"{path} holds no {NAME}.parquet: give a folder of `emloom confidence`")
    table = read_table(file)

    def whole(name: str) -> list[int]:
        return [int(v) for v in table[name]]

    at, to = (list(zip(*(whole(f"{name}_{a}") for a in "zyx"), strict=True)) for name in ("at", "to"))
    pairs = [list(zip(whole(f"{name}_a"), whole(f"{name}_b"), strict=True)) for name in ("segment", "fragment")]
    kinds = [cast(PlaceKind, str(v)) for v in table["kind"]]
    scores, reasons = [float(v) for v in table["score"]], [str(v) for v in table["reason"]]
    rows = zip(whole("rank"), kinds, scores, at, to, *pairs, whole("voxels"), whole("doubt"), reasons, strict=True)
    return [Place(*row) for row in rows]
