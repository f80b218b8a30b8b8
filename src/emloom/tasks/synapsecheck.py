"""What `emloom check` says about annotated synapses: how many, how far apart, and whether neurons hold them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from emloom.nn.objectives.partners import PartnersObjective
from emloom.tasks.checktraining import Finding
from emloom.tasks.synapsedata import SynapseStack

_FAR_SHARE = 0.02


def site_findings(stack: SynapseStack, objective: PartnersObjective) -> Iterator[Finding]:
    """Look at the synapses of a stack: their number, sites that no neuron holds, and pairs beyond reach."""
    table = stack.table
    polyads = len(np.unique(table.polyads))
    yield Finding("ok", "synapses", f"{len(table)} contacts of {polyads} pre sites in {table.source}")
    apart = np.sqrt(((table.pre_nm - table.post_nm) ** 2).sum(axis=1))
    text = f"partners are {np.median(apart):.0f} nm apart, at most {apart.max():.0f} nm"
    if objective.variant == "vectors":
        along = np.abs(table.pre_nm - table.post_nm).max(axis=1)
        far = along > objective.vector_scale_nm
        text += (
            f"; {int(far.sum())} of them more than vector_scale_nm, {objective.vector_scale_nm:g} nm, on an axis"
        )
        yield Finding("warning" if far.mean() > _FAR_SHARE else "ok", "partners", text)
    else:
        yield Finding("ok", "partners", text)
    if stack.neurons is None:
        yield Finding("warning", "neurons", "none are named: balls around sites reach into other neurons")
        return
    for side, segments in (("pre", table.pre_segments), ("post", table.post_segments)):
        lost = int((segments == 0).sum())
        text = f"{lost} of {len(table)} {side} sites lie in the background of {stack.neurons.info.source}"
        yield Finding(
            "warning" if lost else "ok", "neurons", text + (", their balls are not clipped" * (lost > 0))
        )
    same = (table.pre_segments == table.post_segments) & (table.pre_segments != 0)
    if same.any():
        text = f"{int(same.sum())} contacts join a neuron with itself, e.g. synapse {int(table.ids[same][0])}"
        yield Finding("warning", "autapses", f"{text}: are sites placed on the wrong side of a membrane?")
