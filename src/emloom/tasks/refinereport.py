"""The page of a refinement: what it looks like before and after, what changed, and whether the energy fell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.io.volume import Volume
from emloom.ops.crf import rises
from emloom.view.classcolours import class_colours
from emloom.view.colours import distinct_ids, grey, overlay
from emloom.view.curves import update_curve
from emloom.view.figures import Figure, Tile, panel
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict

_EDGE = 512


@dataclass(frozen=True)
class Told:
    """What a block tells about itself.

    Attributes:
        energy: free energy of its own voxels before each update, in nats.
        changes: voxels [before][after] of the likeliest class, before and after.
    """

    energy: Sequence[float]
    changes: Sequence[Sequence[int]]


def read_told(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the energy of every update and the changes [before, after] of all blocks together."""
    told = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "told").glob("*.json"))]
    energy = np.sum([one["energy"] for one in told], axis=0)
    return energy, np.sum([one["changes"] for one in told], axis=0, dtype=np.int64)


def write_refine_report(
    folder: Path,
    names: Sequence[str],
    volumes: tuple[Callable[[Box], NDArray[Any]], Volume, Volume],
    halo: Vec,
    provenance: Mapping[str, Any],
) -> None:
    """Write `report.html`.

    Args:
        folder: of the result.
        names: of the classes.
        volumes: what reads the raw of a box, the probabilities before, and after.
        halo: voxels read around a cell.
        provenance: of the result.
    """
    energy, changes = read_told(folder)
    changed, total = int(changes.sum() - np.trace(changes)), int(changes.sum())
    swings = rises(energy.tolist())
    report = Report(
        title="Refined classes",
        done="Probabilities of classes were refined by the raw around each voxel, as a CRF does.",
        verdict=_verdict(changed / max(total, 1), bool(swings)),
        scores=[
            Score("voxels changed", changed / max(total, 1), "part of all"),
            Score("energy", "rose" if swings else "fell", "at every update", "warning" if swings else "good"),
            Score("halo", " × ".join(map(str, halo)), "voxels z, y, x"),
        ],
        sections=[
            Section(
                "What it looks like",
                _WORDS.format(first=names[0]),
                [class_colours(names), _picture(volumes, len(names))],
            ),
            Section("What changed", tables=[_changes(names, changes)]),
            Section("Energy", _energy_text(swings), [update_curve(energy.tolist())]),
        ],
        provenance=provenance,
    )
    report.write(folder / "report.html")


def _verdict(share: float, swings: bool) -> Verdict:
    text = f"{share:.2%} of all voxels changed their likeliest class"
    if swings:
        return Verdict(f"{text}, but the energy rose: set damping nearer to 1, and run it again.", "warning")
    return Verdict(f"{text}; the energy fell at every update.", "good")


_WORDS = (
    "The middle of the middle section. {first} has no colour; the last picture shows voxels whose likeliest class "
    "changed, in the colour of the class they have now ({first}: as if it were one more class)."
)


def _energy_text(swings: bool) -> str:
    text = "Free energy before each update, in nats, summed over all blocks, each over its own voxels."
    if swings:
        text += " It rose at least once: all voxels are updated at once and overshoot. Set damping nearer to 1."
    return text


def _picture(volumes: tuple[Callable[[Box], NDArray[Any]], Volume, Volume], count: int) -> Figure:
    raw, before, after = volumes
    z, y, x = before.info.shape
    edge_y, edge_x = min(y, _EDGE), min(x, _EDGE)
    box = Box((z // 2, (y - edge_y) // 2, (x - edge_x) // 2), (1, edge_y, edge_x))
    seen, spacing = raw(box)[0], before.info.grid.voxel_size_nm[1:]
    was, now = before.read(box).argmax(0)[0], after.read(box).argmax(0)[0]
    # One more colour than classes: the first class is plain, but not where it is news.
    ids = np.concatenate([np.zeros(1, np.uint16), distinct_ids(count)])
    news = np.where(was == now, 0, np.where(now == 0, count, now))
    tiles = [Tile("raw", grey(seen), spacing)]
    for title, classes in (("before", was), ("after", now), ("changed", news)):
        tiles.append(Tile(title, overlay(seen, ids[classes]), spacing))
    words = f"z = {box.start[0]}, y from {box.start[1]}, x from {box.start[2]}"
    return panel(tiles, columns=2, alt=f"Raw, classes before, after, and what changed; {words}.", caption=words)


def _changes(names: Sequence[str], changes: NDArray[np.int64]) -> Table:
    rows: list[list[Cell]] = []
    for k, name in enumerate(names):
        before, after, kept = int(changes[k].sum()), int(changes[:, k].sum()), int(changes[k, k])
        to = changes[k].copy()
        to[k] = 0
        most = names[int(to.argmax())] if to.any() else None
        rows.append([name, before, after, before - kept, after - kept, most])
    columns = ["class", "before", "after", "lost", "gained", "lost most to"]
    return Table(columns, rows, "voxels whose likeliest class it is")
