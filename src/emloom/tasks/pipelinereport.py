"""The page of a whole pipeline: what came in, what was found and mended, what came out, and how far to trust it.

Every section tells one stage in a few figures and links the page that the stage wrote itself. What the page says
is read from the files of the stages, so that it can be written again at any time.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.io.stackmaps import map_folder
from emloom.tasks.lookhere import read_places
from emloom.tasks.pipelineback import RESTORED, results
from emloom.tasks.pipelinenumbers import Numbers, edge_words
from emloom.tasks.pipelinestages import Layout
from emloom.tasks.pipelinethresholds import threshold_of
from emloom.tasks.qcspec import DEFECTS
from emloom.tasks.repairspec import GAP
from emloom.view.colours import grey, overlay
from emloom.view.figures import Figure, Tile, panel
from emloom.view.report import Cell, Command, Link, Report, Score, Section, Table, Verdict, show

LISTED = 10
_DRAWN_PX = 512


def write_pipeline_report(layout: Layout, provenance: Mapping[str, Any]) -> Path:
    """Write `report.html` into the folder of a pipeline; return its path."""
    numbers = Numbers.of(layout)
    report = Report(
        title=layout.job.name,
        subtitle=layout.job.raw,
        done=_done(layout),
        verdict=_verdict(numbers),
        scores=_cards(numbers),
        sections=[section for section in _sections(layout, numbers, provenance) if section is not None],
        provenance=provenance,
    )
    path = layout.path("report")
    report.write(path)
    return path


def _sections(layout: Layout, numbers: Numbers, provenance: Mapping[str, Any]) -> Iterator[Section | None]:
    job = layout.job
    yield _stack(layout, numbers)
    yield _qc(layout, numbers) if job.qc else None
    yield _moved(layout, numbers) if layout.moves else None
    yield from (_training(layout, name) for name in ("neurons", "synapses") if name in job.trained)
    yield _neurons(layout, numbers) if job.neurons else None
    yield _synapses(layout, numbers) if job.synapses else None
    yield _truth(layout, numbers) if numbers.neurons or numbers.synapses else None
    yield _trust(layout, numbers)
    yield _time(provenance)
    yield _look(layout) if job.neurons else None


def _done(layout: Layout) -> str:
    job = layout.job
    words = {
        "looked for bad sections": job.qc,
        "aligned": job.align,
        "repaired": job.repair,
        "segmented into neurons": job.neurons,
        "searched for synapses": job.synapses,
    }
    did = [text for text, stage in words.items() if stage]
    last = f" and {did[-1]}" if len(did) > 1 else ""
    return f"The stack was {', '.join(did[:-1] or did)}{last}."


def _verdict(numbers: Numbers) -> Verdict:
    if numbers.synapses:
        f1, how = _edge_f1(numbers.synapses)
        text = f"Against the true connections the edges{how} have an F1 of {show(f1)}, weighted by contacts"
        return Verdict(f"{text}: 1 is perfect.", "good" if f1 and f1 >= 0.7 else "warning")
    if numbers.neurons:
        return Verdict(f"Against the true neurons VOI is {show(numbers.neurons['voi_sum'])} bits: 0 is perfect.")
    return Verdict("Nothing here was held against a truth: look at the pictures before you build on it.")


def _edge_f1(row: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return the F1 of edges, and, where nobody knows which side sends, a word on that."""
    if "undirected_edge_weight_f1" in row:
        return row["undirected_edge_weight_f1"], ", whose direction is not known,"
    return row["connection_edge_weight_f1"], ""


def _cards(numbers: Numbers) -> list[Score]:
    cards = [Score("stack", "{} × {} × {}".format(*numbers.shape), "voxels (z, y, x)")]
    if numbers.qc is not None:
        bad = numbers.qc["n_bad_sections"]
        cards.append(Score("bad sections", bad, f"of {numbers.shape[0]}", "warning" if bad else "good"))
    if numbers.sizes is not None:
        cards.append(Score("segments", len(numbers.sizes), "neurons, and pieces of them"))
    if numbers.graph is not None:
        cards.append(Score("contacts", numbers.graph["used"], f"in {show(numbers.graph['edges'])} edges"))
    if numbers.neurons:
        cards.append(Score("VOI of neurons", numbers.neurons["voi_sum"], "bits against the truth, 0 is perfect"))
    if numbers.synapses:
        f1, how = _edge_f1(numbers.synapses)
        note = "of connections against the truth, 1 is perfect"
        cards.append(Score("edge-weight F1", f1, note + (", whichever side sends" if how else "")))
    return cards


def _stack(layout: Layout, numbers: Numbers) -> Section:
    size = numbers.voxel_size_nm
    extent = " × ".join(f"{n * s / 1000:.3g}" for n, s in zip(numbers.shape, size, strict=True))
    text = (
        f"{layout.job.raw}: {' × '.join(map(str, numbers.shape))} voxels (z, y, x) of "
        f"{' × '.join(f'{s:g}' for s in size)} nm, which is {extent} µm."
    )
    return Section("The stack", text, figures=_pictures(layout))


def _pictures(layout: Layout) -> list[Figure]:
    """Return the middle section of the stack as it came, as networks saw it, and with its segments."""
    size = layout.job.voxel_size_nm
    raw = open_volume(layout.job.raw, voxel_size_nm=size, kind="raw")
    z = raw.info.shape[0] // 2
    spacing = raw.info.grid.voxel_size_nm[1:]
    seen = open_volume(layout.raw, voxel_size_nm=layout.voxel_size_nm, kind="raw")
    pictures = [("raw", grey(_middle(raw, z)))]
    if layout.moves:
        pictures.append((f"after {layout.moves}", grey(_middle(seen, z))))
    if layout.job.neurons:
        ids = open_volume(layout.path("segment") / "segmentation", kind="labels")
        pictures.append(("segments", overlay(_middle(seen, z), _middle(ids, z))))
    tiles = [Tile(title, picture, (spacing[0], spacing[1])) for title, picture in pictures]
    alt = f"The middle of section {z}: " + ", ".join(title for title, _ in pictures)
    return [panel(tiles, columns=3, alt=alt, caption=f"Section {z}; every segment has a colour of its own.")]


def _middle(volume: Any, z: int) -> Any:
    _, rows, columns = volume.info.shape
    y, x = (max(0, (n - _DRAWN_PX) // 2) for n in (rows, columns))
    box = Box((z, y, x), (1, min(rows, _DRAWN_PX), min(columns, _DRAWN_PX)))
    return volume.read(box)[0]


def _qc(layout: Layout, numbers: Numbers) -> Section:
    assert numbers.qc is not None
    qc = numbers.qc
    rows: list[list[Cell]] = [
        [name, n, DEFECTS[name].text] for name, n in qc["defects"].items() if name in DEFECTS
    ]
    assert layout.job.qc is not None
    text = (
        f"{qc['n_bad_sections']} of {numbers.shape[0]} sections stand out; {qc['masked_share']:.2%} of the voxels "
        f"are masked ({', '.join(layout.job.qc.masked)}), and every later stage obeys that mask."
    )
    notes = "".join(f"\n\nNote: {note}." for note in qc["notes"])
    tables = [Table(("defect", "sections", "what it means"), rows, "what was found")] if rows else []
    return Section("Quality control", text + notes, tables=tables, links=[Link("all of it", "qc/report.html")])


def _moved(layout: Layout, numbers: Numbers) -> Section:
    texts, tables, links = [], [], []
    if numbers.align is not None:
        a = numbers.align
        texts.append(
            f"Alignment ({a['model']}) moved sections by up to {a['largest_shift_px']:.1f} px; what remains "
            f"between neighbours is {a['residual_px'] or 0:.2f} px (median). {a['n_bad']} sections could not "
            "be placed by what they show."
        )
        links.append(Link("alignment", "align/report.html"))
    if numbers.repair is not None:
        r = numbers.repair
        made_up = sum(n for code, n in r["invented_voxels"].items() if int(code) <= GAP)
        texts.append(
            f"Repair made up {made_up / np.prod(r['shape']):.2%} of the voxels. Neurons go through sections that "
            "were filled in; synapses are not looked for there, and nothing is scored there."
        )
        rows: list[list[Cell]] = [[r["codes"][code], n] for code, n in r["invented_voxels"].items()]
        states: list[list[Cell]] = [[name, n] for name, n in r["states"].items()]
        tables = [
            Table(("state", "sections"), states, "sections"),
            Table(("voxels that", "how many"), rows, "voxels"),
        ]
        links.append(Link("repair", "repair/report.html"))
    restored = layout.path("restore") / RESTORED
    if restored.is_file():
        said = json.loads(restored.read_text(encoding="utf-8"))
        texts.append(
            "Segmentation and synapses were brought back to the grid of the raw, in restored/"
            + (f"; {said['lost']} synapses have no place there (restored/lost.csv)." if said.get("lost") else ".")
            if said["moved"]
            else "Nothing moved: results lie on the grid of the raw as they are."
        )
    return Section("Alignment and repair", "\n\n".join(texts), tables=tables, links=links)


def _training(layout: Layout, name: str) -> Section:
    place = "neurons" if name == "neurons" else "synapses-model"
    words = json.loads((layout.path(place) / "evaluate" / "scores.json").read_text(encoding="utf-8"))
    rows = words["rows"]
    columns: tuple[str, ...]
    if name == "neurons":
        columns = ("part", "method", "voi_split", "voi_merge", "voi_sum", "adapted_rand_error")
        text = f"Trained here; its validation boxes chose the threshold {threshold_of(layout):g}."
    else:
        columns = ("box", "channel", "average_precision", "threshold", "precision", "recall", "f1")
        text = "Trained here; scores are of voxels, in boxes that it never saw."
    cells: list[list[Cell]] = [[row.get(column) for column in columns] for row in rows]
    headings = tuple(column.replace("_", " ") for column in columns)
    table = Table(headings, cells, f"held-out boxes of the training of {name}")
    link = Link("the training", f"{place}/report.html")
    return Section(f"The network for {name}", text, tables=[table], links=[link])


def _neurons(layout: Layout, numbers: Numbers) -> Section:
    sizes = numbers.sizes
    assert sizes is not None
    volume = float(np.prod(numbers.voxel_size_nm)) / 1e9
    if not len(sizes):
        return Section("Neurons", "No segment was found: see the threshold, and the pictures of the prediction.")
    total = int(sizes.sum())
    text = (
        f"{show(len(sizes))} segments at threshold {threshold_of(layout):g}; the median has "
        f"{show(int(np.median(sizes)))} voxels, and the largest {min(LISTED, len(sizes))} hold "
        f"{sizes[:LISTED].sum() / total:.0%} of all."
    )
    rows: list[list[Cell]] = [
        [n, int(v), float(v * volume), float(v / total)] for n, v in enumerate(sizes[:LISTED], 1)
    ]
    return Section(
        "Neurons", text, tables=[Table(("rank", "voxels", "µm³", "share"), rows, "the largest segments")]
    )


def _synapses(layout: Layout, numbers: Numbers) -> Section:
    assert numbers.graph is not None
    text, figures = edge_words(layout, numbers.graph)
    links = [Link("synapses", "synapses/report.html"), Link("connectome", "connectome/report.html")]
    return Section("Synapses and connectome", text, figures=figures, links=links)


_TRUE_NEURONS = {
    "voi_split": "VOI split (bits, 0 is perfect)",
    "voi_merge": "VOI merge (bits, 0 is perfect)",
    "voi_sum": "VOI (bits, 0 is perfect)",
    "adapted_rand_error": "adapted Rand error (0 is perfect)",
    "n_truth": "true neurons",
    "n_segments": "segments",
    "n_voxels": "voxels compared",
}
_TRUE_SYNAPSES = {
    "partner_fscore": "partner F-score (1 is perfect)",
    "partner_precision": "partner precision",
    "partner_recall": "partner recall",
    "n_pairs_truth": "true partner pairs",
    "n_pairs_found": "partner pairs found",
    "connection_f1": "F1 of connections (1 is perfect)",
    "connection_edge_weight_f1": "edge-weight F1 of connections (1 is perfect)",
    "undirected_f1": "F1 of connections, whichever side sends",
    "undirected_edge_weight_f1": "edge-weight F1 of connections, whichever side sends",
    "n_connections_truth": "true connections",
    "n_connections_found": "connections found",
}


def _truth(layout: Layout, numbers: Numbers) -> Section:
    tables, links = [], []
    parts = (("neurons", numbers.neurons, _TRUE_NEURONS), ("synapses", numbers.synapses, _TRUE_SYNAPSES))
    for name, row, names in parts:
        if row:
            rows: list[list[Cell]] = [[text, row[key]] for key, text in names.items() if key in row]
            tables.append(Table(("score", "value"), rows, f"{name} against the truth"))
            links.append(Link(f"errors of {name}", f"evaluate/{name}/report.html"))
    text = (
        "On the grid of the raw, where it shows tissue that was measured: what quality control masked and what "
        "repair made up does not count. A pair of partners is found where both sites lie near the true ones in "
        "the right neurons; a connection is right where the same two neurons are connected in the same "
        "direction, each segment standing for the true neuron it overlaps most."
    )
    return Section("Against the truth", text, tables=tables, links=links)


def _trust(layout: Layout, numbers: Numbers) -> Section:
    known = numbers.neurons or numbers.synapses
    text = (
        "The scores above are what is known about this very stack."
        if known
        else "Nothing of this stack is known to be right. Scores of the network's own held-out boxes say how it "
        "does on data like those it learned; the pictures say whether this is such data."
    )
    if not layout.job.neurons:
        return Section("How far to trust it", text)
    places = read_places(layout.path("confidence"))
    text += (
        f" {show(len(places))} places are worth a look: merges that were made and contacts that were not, near "
        "the threshold, pieces that end inside the stack, and bad data. Those first, whose mending gains most:"
    )
    rows: list[list[Cell]] = [
        [p.rank, p.kind, "{}, {}, {}".format(*p.at), p.voxels, p.score, p.reason] for p in places[:LISTED]
    ]
    headings = ("rank", "question", "voxel (z, y, x)", "voxels at stake", "score", "why")
    table = Table(headings, rows, "where to look first, on the grid that was segmented")
    link = Link("all of them, with pictures", "confidence/report.html")
    return Section("How far to trust it", text, tables=[table] if rows else [], links=[link])


def _time(provenance: Mapping[str, Any]) -> Section:
    took = provenance["seconds"]
    rows: list[list[Cell]] = [[name, float(value)] for name, value in took.items()]
    rows.append(["all", float(sum(took.values()))])
    text = "Seconds by the clock, of the last time that a stage was done."
    return Section("Time", text, tables=[Table(("stage", "seconds"), rows, "seconds per stage")])


def _look(layout: Layout) -> Section:
    found = results(layout)
    ids = found.segmentation
    if (Path(ids) / "segmentation").is_dir():
        ids = str(Path(ids) / "segmentation")
    words = ["emloom", "view", f"raw={layout.job.raw}", f"neurons={ids}"]
    if found.synapses is not None:
        words += ["--synapses", found.synapses]
    lines = [Command("raw, neurons and synapses in neuroglancer", shlex.join(words))]
    if layout.moves:
        map_folder(layout.path(layout.moves))
        seen = ["emloom", "view", f"raw={layout.raw}", f"neurons={layout.path('segment') / 'segmentation'}"]
        if layout.job.synapses:
            seen += ["--synapses", str(layout.path("synapses"))]
        lines.append(Command("the same as networks saw it, aligned and repaired", shlex.join(seen)))
    lines.append(Command("what is done, and what would be done again", f"emloom status {layout.folder}"))
    return Section("How to look", commands=lines)


__all__ = ["write_pipeline_report"]
