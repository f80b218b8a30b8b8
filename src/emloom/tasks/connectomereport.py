"""The page of a connectome: how many contacts make how many edges, the strongest, who is busy, and the matrix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emloom.ops.connectome import adjacency, busiest, clustered, strongest
from emloom.tasks.connectomegraph import Graph
from emloom.view.connectomefigures import adjacency_figure, distributions_figure
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict, show

DRAWN = 200
"""Neurons of the matrix, at most."""
LISTED = 20
"""Edges and neurons of the tables, at most."""

_REASONS = {
    "outside": "a site lies outside the segmentation",
    "background": "a site lies in background (segment 0)",
    "autapse": "both sites lie in one neuron, and autapses were not wanted",
    "score": "its score is below the minimum",
    "weight": "too few contacts between its two neurons",
}


def write_connectome_report(graph: Graph, folder: Path, provenance: Mapping[str, Any]) -> Path:
    """Write `report.html` into the folder of a connectome; return its path."""
    job = provenance["spec"]
    name = Path(job["segmentation"] or job["synapses"]).name
    sections = [_counts(graph)]
    if len(graph.edges):
        sections += [_strongest(graph), _neurons(graph), _matrix(graph), _distributions(graph)]
    report = Report(
        title=f"Connectome of {name}",
        subtitle=f"{job['segmentation'] or 'segments of the table'} · {job['synapses']}",
        done="Contacts were counted between neurons"
        + (", from the one that sends to the one that receives." if graph.directed else ", without a direction."),
        verdict=_verdict(graph),
        scores=_cards(graph),
        sections=sections,
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _cards(graph: Graph) -> list[Score]:
    away = sum(graph.reasons.values())
    total = len(graph.synapses)
    connected = int(((graph.neurons.outputs + graph.neurons.inputs) > 0).sum())
    return [
        Score(
            "Edges",
            len(graph.edges),
            "pairs of neurons, in one direction" if graph.directed else "pairs of neurons",
        ),
        Score("Contacts", total - away, f"of {show(total)} in the table"),
        Score("Neurons with contacts", connected, f"of {show(len(graph.neurons))} segments"),
        Score("Left out", away, "contacts that make no edge", "warning" if 2 * away > total else "plain"),
    ]


def _verdict(graph: Graph) -> Verdict:
    total, away = len(graph.synapses), sum(graph.reasons.values())
    if not len(graph.edges):
        return Verdict(f"None of {show(total)} contacts makes an edge: the graph is empty.", "warning")
    text = f"{show(total - away)} of {show(total)} contacts make {show(len(graph.edges))} edges"
    if 2 * away > total:
        return Verdict(f"{text}; most make none: see why before you count on the graph.", "warning")
    return Verdict(f"{text}.")


def _counts(graph: Graph) -> Section:
    rows: list[list[Cell]] = [[_REASONS[reason], count] for reason, count in graph.reasons.items()]
    text = (
        "Every contact of the table is in synapses.parquet; one that makes no edge stands there with the reason "
        "(column left_out)."
    )
    if graph.notes:
        text += "\n\nNote: " + ".\n\nNote: ".join(graph.notes) + "."
    return Section("Contacts", text, tables=[Table(("why a contact makes no edge", "contacts"), rows)])


def _strongest(graph: Graph) -> Section:
    top = strongest(graph.edges, LISTED)
    columns = ("pre neuron", "post neuron", "contacts", "size (voxels)", "mean score", "best score")
    values = (top.pre, top.post, top.counts, top.sizes_vox, top.mean_scores, top.max_scores.astype(float))
    rows = [[_id(a), _id(b), *rest] for a, b, *rest in zip(*(v.tolist() for v in values), strict=True)]
    table = Table(columns, rows, f"The {len(top)} edges with most contacts, of {show(len(graph.edges))}.")
    return Section("Strongest connections", tables=[table])


def _neurons(graph: Graph) -> Section:
    n = graph.neurons
    rows_at = busiest(n, LISTED)
    columns = ("neuron", "voxels", "pre sites", "outputs", "inputs", "partners out", "partners in")
    values = (n.ids, n.voxels, n.pre_sites, n.outputs, n.inputs, n.partners_out, n.partners_in)
    rows: list[list[Cell]] = [
        # Without a segmentation nobody has counted voxels.
        [_id(i), voxels or None, *rest]
        for i, voxels, *rest in zip(*(v[rows_at].tolist() for v in values), strict=True)
    ]
    text = (
        "A pre site counts once, however many partners it has; outputs and inputs are contacts, one for each "
        "pair of a pre and a post site."
    )
    table = Table(columns, rows, f"The {len(rows)} neurons with most contacts, sent and received.")
    return Section("Neurons", text, tables=[table])


def _matrix(graph: Graph) -> Section:
    ids = graph.neurons.ids[busiest(graph.neurons, DRAWN)]
    matrix = adjacency(graph.edges, ids)
    order = clustered(matrix)
    connected = int(((graph.neurons.outputs + graph.neurons.inputs) > 0).sum())
    which = (
        f"All {connected} neurons that have contacts"
        if connected <= DRAWN
        else f"The {DRAWN} neurons with most contacts, of {show(connected)}"
    )
    caption = (
        f"{which}, ordered so that neurons with like partners stand side by side. {graph.sides}; "
        "empty is no contact, pale blue one, orange the most (logarithmic scale)."
    )
    picture = adjacency_figure(matrix[order][:, order], ids[order].tolist(), caption, graph.directed)
    return Section("Adjacency matrix", figures=[picture])


def _distributions(graph: Graph) -> Section:
    n = graph.neurons
    caption = (
        "How many edges have at least so many contacts (left), and how many neurons at least so many partners "
        "(right); neurons without a partner are not counted."
    )
    partners = {"partners out": n.partners_out, "partners in": n.partners_in}
    return Section("Weights and degrees", figures=[distributions_figure(graph.edges.counts, partners, caption)])


def _id(number: int) -> str:
    # An id is a name: not grouped into thousands, and not summed.
    return str(number)
