"""`emloom confidence`: how far to trust a segmentation that has no truth, and where to look first.

Stages follow one another; the cells of a stage are independent::

    contacts -> rank -> places -> paint -> list            see `emloom.tasks.confidenceblocks`

Every contact of two fragments belongs to one choice of the segmentation (`emloom.ops.mergechoices`): a merge that
was made, or a pair of segments kept apart. The margin of the choice, another prediction and bad data there say
how likely it is wrong (`emloom.ops.doubts`). Nothing here knows the truth; how well the doubts tell where errors
are is measured in `docs/confidence.md`.

The same bits for any number of workers, any order, crash and resume, and for any cells: sums are of integers, and
the lattice of tiles is that of the volume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Block, Box, blocks
from emloom.io import graphstore
from emloom.io.open import create_volume
from emloom.io.tables import read_table, write_table
from emloom.ops.contacts import merge_sums
from emloom.ops.doubts import Evidence, doubts_of, is_neck, segment_table
from emloom.ops.mergechoices import Choices, Statistic, choices_of
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.tasks.confidenceblocks import VOLUME, Doubted, PaintTiles, PlaceContacts, SumContacts
from emloom.tasks.confidencereport import write_confidence_report
from emloom.tasks.confidencespec import ConfidenceJob
from emloom.tasks.graphfiles import load_graph, load_nodes, load_tree
from emloom.tasks.lookexport import write_look_files
from emloom.tasks.lookhere import ListPlaces, candidates_of, read_places, wanted_contacts
from emloom.tasks.qcmask import source_of
from emloom.tasks.segmentblocks import Site, read_final_lut, small_file
from emloom.tasks.segmentspec import MaxLinkage, QuantileLinkage

FORMAT = 2
"""Part of every key: counted up when a kernel changes."""

OnBlock = Callable[[str, int, int], None]


def confidence(
    job: ConfidenceJob,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
    discard: bool = False,
    again: bool = False,
) -> Path:
    """Say how far to trust a segmentation and where to look first, or go on where an earlier call stopped.

    Args:
        job: what to do.
        executor: where blocks run; default in this process.
        on_block: called with (stage, blocks done, blocks in all).
        discard: delete what another job left in the output's place.
        again: go on with a finished result, too: blocks whose markers were removed are made again.

    Returns:
        Path of the folder: `confidence.zarr`, `look_here.parquet` (and .csv, .nml, .json), `choices.parquet`,
        `segments.parquet` and `report.html`.

    Raises:
        InputError: the segmentation is not finished or has no threshold, a volume does not lie on its grid, the
            output exists or belongs to another job, or blocks failed.
    """
    started = time.perf_counter()
    space, executor = Workspace(job.output), executor or Serial()
    site = Doubted(job, space.folder.absolute())
    site.affinities()
    site.read_marks(Box((0, 0, 0), (1, 1, 1)))
    inputs = space.claim("confidence", job, _inputs(site), discard)
    if space.finished and not again:
        return space.output
    site = Doubted(job, space.folder.absolute())
    if not (site.folder / VOLUME).exists():
        create_volume(site.folder / VOLUME, site.volume_info())
    seconds: dict[str, float] = {}
    for stage in _stages(site, inputs):

        def tell(done: int, total: int, name: str = stage.name) -> None:
            if on_block is not None:
                on_block(name, done, total)

        seconds[stage.name] = run_stage(stage, site.folder, executor, progress=tell).seconds
    seconds["all"] = time.perf_counter() - started
    written = write_provenance(site.folder / "provenance.json", job.to_dict(), inputs, seconds)
    write_look_files(site.folder, read_places(site.folder), site.fragments().info.grid)
    write_confidence_report(site, written)
    space.finish()
    return space.output


def _inputs(site: Doubted) -> dict[str, str | None]:
    job = site.job
    folder = Path(job.segmentation)
    paths: dict[str, str | None] = {
        "segmentation": str(folder / "fragments"),
        "tree": str(graphstore.merges_file(folder)),
        "prediction": site.prediction,
        "second": job.second,
        "raw": job.raw,
    }
    return paths | {f"mask {k}": source_of(path) for k, path in enumerate(job.masks)}


def _stages(site: Doubted, inputs: dict[str, str]) -> Iterator[Stage[Any]]:
    job, info = site.job, site.fragments().info
    cells = blocks(info.box, job.cell(info.grid))
    one = [Block((0, 0, 0), info.box, info.box)]
    made = {name: mark for name, mark in inputs.items() if name != "raw"}
    key = key_of(FORMAT, job.to_dict() | {"output": ""}, made)
    yield Stage("contacts", key, cells, SumContacts(site))
    yield Stage("rank", key, one, RankChoices(site), False)
    yield Stage("places", key, cells, PlaceContacts(site, key))
    yield Stage("paint", key, cells, PaintTiles(site, key))
    yield Stage("list", key, one, ListPlaces(site), False)


@dataclass(frozen=True)
class RankChoices:
    """Judges every choice of the segmentation."""

    site: Doubted

    def __call__(self, block: Block) -> list[Output]:
        """Write the tables of choices and segments, the doubt in every contact, and what is to be placed."""
        site = self.site
        made, folder = site.made_by, Path(site.job.segmentation)
        assert made.threshold is not None
        nodes, graph = load_nodes(folder), load_graph(folder)
        graph = graph.take(graph.contacts > 0)
        dropped = read_table(small_file(folder, made.threshold))["segment"] if made.min_segment_vox else None
        found = choices_of(graph, load_tree(folder), made.threshold, nodes, rule=_rule(site), dropped=dropped)
        sums = merge_sums(
            [dict(read_table(path).columns) for path in sorted((site.folder / "contacts").glob("*.parquet"))]
        )
        if not (np.array_equal(sums["u"], graph.u) and np.array_equal(sums["v"], graph.v)):
            raise InputError(
                f"the graph of {site.job.segmentation} has other contacts than its fragments, by the offsets of "
                f"{site.prediction}: give the prediction that was segmented"
            )
        second = found.pooled(sums["total_second"]) if "total_second" in sums else None
        evidence = Evidence(found.pooled(sums["total"]), second, found.pooled(sums["bad"]))
        doubts = doubts_of(found, made.threshold, evidence)
        segment_of = _segments(site, nodes["id"])
        choices = choice_columns(found, evidence, doubts)
        rim = np.isin(nodes["id"], _at_rims(site))
        segments = segment_table(found, doubts, nodes, segment_of, block.write.shape, rim)
        parts = candidates_of(found, choices, segments, wanted_contacts(found, sums), site.job)
        candidates = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for end in "uv":
            row = np.minimum(np.searchsorted(nodes["id"], candidates[end]), len(segment_of) - 1)
            candidates[f"segment_{end}"] = segment_of[row]
        tables = {
            "choices": choices,
            "segments": segments,
            "doubts": self._painted(found, doubts, sums),
            "candidates": candidates,
            "wanted": _each_pair_once(candidates),
        }
        paths = []
        for name, columns in tables.items():
            paths.append(site.folder / f"{name}.parquet")
            write_table(paths[-1], columns)
        return site.told(*paths)

    def _painted(self, found: Choices, doubts: Any, sums: Any) -> dict[str, Any]:
        """Return the doubt in every contact; of choices about specks, none."""
        small = np.minimum(found.size_a, found.size_b) < self.site.job.least_vox
        told = np.where(small, 0, doubts).astype(np.uint8)
        rows = np.flatnonzero(found.of_edge >= 0)
        choice = found.of_edge[rows]
        return {**{name: sums[name][rows] for name in ("u", "v", "n")}, "choice": choice, "doubt": told[choice]}


def _at_rims(site: Doubted) -> Any:
    """Return the fragments that touch a place that the sections do not reach."""
    return np.concatenate([read_table(path)["fragment"] for path in (site.folder / "rims").glob("*.parquet")])


def _rule(site: Doubted) -> tuple[Statistic, int]:
    linkage = site.made_by.segmentation.linkage
    if isinstance(linkage, QuantileLinkage):
        return "quantile", linkage.quantile
    return ("max" if isinstance(linkage, MaxLinkage) else "mean"), 50


def _segments(site: Doubted, ids: Any) -> Any:
    """Return the segment of every fragment."""
    made = site.made_by
    assert made.threshold is not None
    fragment, segment = read_final_lut(Site(made, Path(site.job.segmentation)), made.threshold)
    if not len(fragment):
        return ids
    place = np.minimum(np.searchsorted(fragment, ids), len(fragment) - 1)
    return np.where(fragment[place] == ids, segment[place], ids)


def _each_pair_once(candidates: dict[str, Any]) -> dict[str, Any]:
    """Return the contacts that are to be placed, sorted by their fragments."""
    rows = np.flatnonzero(candidates["choice"] >= 0)
    rows = rows[np.lexsort((candidates["v"][rows], candidates["u"][rows]))]
    u, v = candidates["u"][rows], candidates["v"][rows]
    first = np.ones(len(rows), bool)
    first[1:] = (u[1:] != u[:-1]) | (v[1:] != v[:-1])
    return {name: candidates[name][rows[first]] for name in ("u", "v", "z", "y", "x")}


def choice_columns(found: Choices, evidence: Evidence, doubts: Any) -> dict[str, Any]:
    """Return the table of choices, a row for each."""
    names = ("merged", "a", "b", "segment_a", "segment_b", "size_a", "size_b", "contacts", "against")
    columns = {name: getattr(found, name) for name in names}
    columns |= {"score": found.scores, "doubt": doubts, "bad": evidence.bad, "neck": is_neck(found)}
    columns["mean"] = evidence.total / (255 * found.contacts)
    if evidence.total_second is not None:
        columns["mean_second"] = evidence.total_second / (255 * found.contacts)
    return columns
