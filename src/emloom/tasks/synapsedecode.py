"""From the sites of all cells to the table: what each decoder makes of them.

::

    candidates   all votes          -> sites, and pairs of them or points to look up
    check        a cell, segments   -> which pairs of segments touch; which segment lies at a point
    table        everything         -> the table of synapses

``candidates`` and ``table`` see all sites at once: memory grows with the number of sites, not with voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emloom.geometry import Block, Box, Vec
from emloom.geometry.synapses import SynapseTable
from emloom.ops.cellparts import Columns
from emloom.ops.gaps import nearest_other, touch
from emloom.ops.labels import Ids
from emloom.ops.partnering import distance_nm, group_sites, medoids, near_pairs, nearest, one_to_one
from emloom.ops.runs import I64
from emloom.run.blockjournal import name_of
from emloom.tasks.synapsecells import Cells, Known, Memory, index_of
from emloom.tasks.synapseclefts import cleft_contacts
from emloom.tasks.synapsedecoders import (
    CleanSpec,
    CleftsDecoder,
    PolarityDecoder,
    ProximityDecoder,
    SitesDecoder,
    VectorsDecoder,
)
from emloom.tasks.synapsepairs import (
    F64,
    Contacts,
    FoundSites,
    Notes,
    believed,
    centres,
    contacts_of,
    finished,
    found_sites,
    hull_of,
)
from emloom.tasks.synapsescene import Scene, layers_of, score_of

DEFAULT_SCALE_NM = 250.0
"""Length of the longest vector component, where nobody says otherwise."""


@dataclass(frozen=True, eq=False)
class Found:
    """A table of synapses, and what was counted on the way.

    Attributes:
        table: the synapses.
        notes: how many of what; only counts that are not 0.
        labels: by layer, components of rows of the table and how their voxels are labelled: post sites with the
            id of the synapse, pre sites and clefts with that of the polyad.
    """

    table: SynapseTable
    notes: dict[str, int]
    labels: Mapping[str, tuple[I64, Ids]]


def _label(layer: str, table: SynapseTable) -> Ids:
    return table.ids if layer == "post" else table.polyads


def decode(scene: Scene, clean: CleanSpec | None = None, cell: Vec | None = None) -> Found:
    """Decode predictions in memory: the table that `emloom synapses` writes.

    Args:
        scene: predictions and segmentation.
        clean: what is removed in the end.
        cell: voxels worked on at once; None: all. The table does not depend on it.
    """
    cells = Cells(scene, Memory(), cell or scene.shape)
    for block in cells.blocks():
        cells.find(block)
    cells.join()
    known = Known.of(cells.shelf)
    for block in cells.blocks():
        cells.measure(block, known)
    decoding = Decoding(cells, clean or CleanSpec())
    if decoding.asks:
        questions = decoding.candidates(known)
        for block in cells.blocks():
            decoding.check(block, questions)
    return decoding.table(known)


@dataclass(frozen=True)
class Decoding:
    """The steps from votes to the table.

    Attributes:
        cells: the steps before.
        clean: what is removed in the end.
    """

    cells: Cells
    clean: CleanSpec

    @property
    def scene(self) -> Scene:
        """What is decoded."""
        return self.cells.scene

    @property
    def asks(self) -> bool:
        """Whether the segmentation is asked about points or pairs."""
        decoder = self.scene.decoder
        if isinstance(decoder, SitesDecoder | ProximityDecoder):
            return decoder.contact_nm is not None
        return isinstance(decoder, VectorsDecoder)

    def _sites(self, known: Known, notes: Notes) -> dict[str, FoundSites]:
        """Return the sites of all layers that vote."""
        scene = self.scene
        sites = {}
        for layer in layers_of(scene.decoder):
            if layer.votes:
                votes = self.cells.all_votes(layer.name)
                found = found_sites(votes, known.components, score_of(scene.decoder), scene.grid, scene.shape)
                notes[f"{layer.name} components"] += len(found)
                sites[layer.name] = believed(found, notes, layer.spec.keep_background)
        return sites

    def _pairs(self, pre: FoundSites, post: FoundSites) -> tuple[I64, F64, F64]:
        """Return candidates (pre, post), their distances, and what decides between them."""
        decoder = self.scene.decoder
        if isinstance(decoder, SitesDecoder):
            pairs, distances = near_pairs(pre.points_nm, post.points_nm, decoder.max_distance_nm)
            costs = distances
        elif isinstance(decoder, ProximityDecoder):
            known, squares = self.cells.all_gaps()
            pairs, costs = _rows_of(known, pre, post, np.sqrt(squares))
            distances = distance_nm(pre.points_nm[pairs[:, 0]], post.points_nm[pairs[:, 1]])
            near = distances <= decoder.max_distance_nm
            pairs, costs, distances = pairs[near], costs[near], distances[near]
        else:
            pairs = _within_unions(pre, post)
            distances = costs = distance_nm(pre.points_nm[pairs[:, 0]], post.points_nm[pairs[:, 1]])
        a, b = pre.segments[pairs[:, 0]], post.segments[pairs[:, 1]]
        good = np.ones(len(pairs), np.bool_) if self.clean.autapses == "keep" else (a != b) | (a == 0)
        return pairs[good], distances[good], costs[good]

    def candidates(self, known: Known) -> Columns:
        """Return what the segmentation is asked: one row per question, with the cell that answers it."""
        sites = self._sites(known, Notes())
        if isinstance(self.scene.decoder, VectorsDecoder):
            post = sites["post"]
            voxels = self._pointed(post)
            return _question(voxels, voxels, np.zeros_like(post.segments), post.segments, self.cells)
        pre, post = sites["pre"], sites["post"]
        pairs, _, _ = self._pairs(pre, post)
        a, b = pairs[:, 0], pairs[:, 1]
        return _question(pre.voxels[a], post.voxels[b], pre.segments[a], post.segments[b], self.cells)

    def _pointed(self, post: FoundSites) -> I64:
        """Return the voxels at which post sites point."""
        decoder, grid = self.scene.decoder, self.scene.grid
        assert isinstance(decoder, VectorsDecoder)
        scale = decoder.scale_nm or DEFAULT_SCALE_NM
        if decoder.lookup == "mean":
            n = post.more["n"].astype(np.float64)
            at = np.stack([post.more[f"{axis}_sum"] / n for axis in "zyx"], axis=1)
            codes = np.stack([post.more[f"sum_{c}"] / n for c in range(3)], axis=1)
        else:
            at = post.voxels.astype(np.float64)
            codes = np.stack([post.more[f"value_{c}"] for c in range(3)], axis=1).astype(np.float64)
        points = centres(grid, at) + scale * (2 * codes / 255 - 1)
        return np.array([grid.containing(p) for p in points], np.int64).reshape(-1, 3)

    def check(self, block: Block, questions: Columns) -> None:
        """Answer the questions of a cell."""
        number = np.flatnonzero(questions["cell"] == name_of(block.index))
        a, b = (np.stack([questions[f"{side}_{axis}"] for axis in "zyx"], axis=1)[number] for side in "ab")
        margin = self.scene.grid.voxels(self._margin_nm())
        boxes = [hull_of(p, q, margin, self.scene.shape) for p, q in zip(a, b, strict=True)]
        whole = _hull([box for box in boxes if not box.is_empty])
        segments = self.scene.segments(whole)
        answers, owners = np.full((len(number), 4), -1, np.int64), np.zeros(len(number), np.uint64)
        for i, (row, box) in enumerate(zip(number, boxes, strict=True)):
            part = segments[box.shift([-v for v in whole.start]).slices()] if not box.is_empty else segments[:0]
            pair = int(questions["pre_segment"][row]), int(questions["post_segment"][row])
            if isinstance(self.scene.decoder, VectorsDecoder):
                at = self._segment_near(part, a[i] - np.array(box.start), pair[1])
                owners[i] = part[tuple(at)] if at[0] >= 0 else 0
                answers[i] = int(at[0] >= 0), *(at + np.array(box.start))
            else:
                answers[i, 0] = touch(part, *pair, self.scene.grid.voxel_size_nm, self._margin_nm())
        self.scene.require_ids(owners)
        columns: Columns = {"question": number, "yes": answers[:, 0], "segment": owners}
        columns |= {axis: answers[:, 1 + k] for k, axis in enumerate("zyx")}
        self.cells.shelf.put("answers", block.index, columns)

    def _segment_near(self, segments: Ids, at: I64, but: int) -> I64:
        """Return the voxel of a partner's segment that is nearest to where a post site points."""
        unwanted = 0 if self.clean.autapses == "keep" else but
        return nearest_other(segments, at, unwanted, self.scene.grid.voxel_size_nm, self._margin_nm())

    def _margin_nm(self) -> float:
        decoder = self.scene.decoder
        if isinstance(decoder, VectorsDecoder):
            return decoder.search_nm
        assert isinstance(decoder, SitesDecoder | ProximityDecoder)
        return decoder.contact_nm or 0.0

    def _answers(self, n: int) -> Columns:
        """Return the answers, in order of the questions; a question outside the volume has no answer: no."""
        tables = [self.cells.shelf.get("answers", block.index) for block in self.cells.blocks()]
        dtypes = {"yes": np.int64, "segment": np.uint64, "z": np.int64, "y": np.int64, "x": np.int64}
        out: Columns = {name: np.zeros(n, dtype) for name, dtype in dtypes.items()}
        for table in tables:
            for name, column in out.items():
                column[table["question"]] = table[name]
        return out

    def table(self, known: Known) -> Found:
        """Return the table, and what was counted."""
        notes = Notes()
        notes["components dropped by size"] += int(self.cells.shelf.get("dropped")["n"][0])
        decoder = self.scene.decoder
        if isinstance(decoder, CleftsDecoder):
            votes = self.cells.all_votes("cleft")
            contacts = cleft_contacts(votes, known.components, decoder, self.scene.shape, notes)
        elif isinstance(decoder, VectorsDecoder):
            contacts = self._pointing(self._sites(known, notes)["post"], notes)
        else:
            contacts = self._paired(self._sites(known, notes), notes)
        made, rows = finished(contacts, self.clean, self.scene.grid, notes)
        labels = {
            layer: (components[rows], _label(layer, made)) for layer, components in contacts.components.items()
        }
        return Found(made, {name: n for name, n in notes.items() if n}, labels)

    def _paired(self, sites: dict[str, FoundSites], notes: Notes) -> Contacts:
        pre, post = sites["pre"], sites["post"]
        pairs, distances, costs = self._pairs(pre, post)
        if self.asks:
            yes = self._answers(len(pairs))["yes"] == 1
            notes["candidates whose segments do not touch"] += int((~yes).sum())
            pairs, distances, costs = pairs[yes], distances[yes], costs[yes]
        decoder = self.scene.decoder
        if isinstance(decoder, SitesDecoder) and decoder.assign == "one_to_one":
            chosen = one_to_one(pairs, costs, decoder.max_distance_nm)
        else:
            chosen = nearest(pairs, costs, distances)
        if isinstance(decoder, PolarityDecoder) and not decoder.polyads:
            chosen = _strongest(chosen, pairs, pre, post)
        pairs = pairs[chosen]
        notes["post sites without a partner"] += len(post) - len(pairs)
        notes["pre sites without a partner"] += len(pre) - len(np.unique(pairs[:, 0]))
        return contacts_of(pre, post, pairs)

    def _pointing(self, post: FoundSites, notes: Notes) -> Contacts:
        decoder, grid = self.scene.decoder, self.scene.grid
        assert isinstance(decoder, VectorsDecoder)
        answers = self._answers(len(post))
        yes = answers["yes"] == 1
        inside = ((self._pointed(post) >= 0) & (self._pointed(post) < np.array(self.scene.shape))).all(axis=1)
        notes["post sites that point out of the volume"] += int((~inside & ~yes).sum())
        notes["post sites that point at no segment"] += int((inside & ~yes).sum())
        post = post.rows(yes)
        voxels = np.stack([answers[axis][yes] for axis in "zyx"], axis=1)
        segments = answers["segment"][yes]
        points = centres(grid, voxels)
        groups = group_sites(points, segments, decoder.polyad_nm)
        head = medoids(points, groups)[groups] if len(groups) else groups
        return Contacts(
            groups,
            voxels[head],
            post.voxels,
            segments,
            post.segments,
            post.sizes,
            post.scores,
            {"post": post.components},
        )


def _hull(boxes: Sequence[Box]) -> Box:
    low = np.array([box.start for box in boxes]).reshape(-1, 3).min(axis=0, initial=2**62)
    high = np.array([box.stop for box in boxes]).reshape(-1, 3).max(axis=0, initial=0)
    return Box.of(low.tolist(), high.tolist()) if boxes else Box((0, 0, 0), (0, 0, 0))


def _question(a: I64, b: I64, pre_segments: Ids, post_segments: Ids, cells: Cells) -> Columns:
    """Return questions about two voxels each, with the cell that holds the first; none does outside the volume."""
    columns: Columns = {f"a_{axis}": a[:, k] for k, axis in enumerate("zyx")}
    columns |= {f"b_{axis}": b[:, k] for k, axis in enumerate("zyx")}
    shape = np.array(cells.scene.shape)
    names = [name_of(index_of(v, cells.cell)) if ((v >= 0) & (v < shape)).all() else "" for v in a]
    columns["cell"] = np.array(names, dtype=str) if names else np.zeros(0, "U1")
    columns |= {"pre_segment": pre_segments, "post_segment": post_segments}
    return columns


def _rows_of(pairs: I64, pre: FoundSites, post: FoundSites, costs: F64) -> tuple[I64, F64]:
    """Return pairs of components as pairs of sites; those of sites that are gone are left out."""
    rows = []
    for k, sites in enumerate((pre, post)):
        at = np.searchsorted(sites.components, pairs[:, k])
        there = at < len(sites)
        there[there] = sites.components[at[there]] == pairs[there, k]
        rows.append(np.where(there, at, -1))
    good = (rows[0] >= 0) & (rows[1] >= 0)
    return np.stack(rows, axis=1)[good], costs[good]


def _within_unions(pre: FoundSites, post: FoundSites) -> I64:
    """Return the pairs of sites in one component of the union."""
    a, b = pre.more["union"], post.more["union"]
    order = np.argsort(b, kind="stable")
    low, high = np.searchsorted(b[order], a, "left"), np.searchsorted(b[order], a, "right")
    high = np.where(a < 0, low, high)
    first = np.repeat(np.arange(len(a)), high - low)
    within = np.arange(len(first)) - np.repeat(np.cumsum(high - low) - (high - low), high - low)
    return np.stack([first, order[low[first] + within]], axis=1)


def _strongest(chosen: I64, pairs: I64, pre: FoundSites, post: FoundSites) -> I64:
    """Return, of chosen pairs, the one of every union whose post site has most evidence."""
    a, b = pairs[chosen, 0], pairs[chosen, 1]
    order = np.lexsort((b, -post.more["evidence_sum"][b], pre.more["union"][a]))
    _, first = np.unique(pre.more["union"][a][order], return_index=True)
    return np.sort(chosen[order[first]])
