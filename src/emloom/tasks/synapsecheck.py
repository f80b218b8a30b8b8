"""What `emloom check` says about annotated synapses: how many, how far apart, whether neurons hold them, and
whether a perfect network would find them again.

::

    table -> balls -> targets -> stored as a prediction is -> decoder -> table     as much as comes back
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.box import Vec
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.io.volume import ArrayVolume, borrow, read_padded
from emloom.nn.objectives.partners import SIGNED, PartnersObjective
from emloom.tasks.checktraining import Finding
from emloom.tasks.synapsedata import SynapseStack
from emloom.tasks.synapsedecode import decode
from emloom.tasks.synapsedecoders import (
    Decoder,
    EvidenceSpec,
    PolarityDecoder,
    ProximityDecoder,
    SitesDecoder,
    VectorsDecoder,
)
from emloom.tasks.synapsescene import Scene

_FAR_SHARE = 0.02
_LARGEST: Vec = (96, 384, 384)
"""Voxels around the middle of all sites that are decoded: enough to see, and seconds of work."""
_COMES_BACK = 0.9


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
    yield decoded_finding(stack, objective)


def decoded_finding(stack: SynapseStack, objective: PartnersObjective) -> Finding:
    """Decode perfect targets around the middle of all sites, and compare who talks to whom with the table.

    Raises:
        InputError: the stack has no neurons to look sites up in.
    """
    if stack.neurons is None:
        raise InputError(f"{stack.raw.info.source} has no neurons: who talks to whom is looked up in them")
    box = _box_of(stack)
    radius = max(objective.pre_radius_nm, objective.post_radius_nm)
    grid = stack.raw.info.grid.crop(box)
    neurons = ArrayVolume(borrow(stack.neurons, box), grid, "labels", source=stack.neurons.info.source)
    scene = Scene.of(_decoder(objective), _perfect(stack, objective, box), neurons)
    found = decode(scene).table
    true, seen = (_pairs(_within(table, stack, box, radius)) for table in (stack.table, found))
    both, n_true, n_seen = (true & seen).total(), true.total(), seen.total()
    text = (
        f"of {n_true} contacts in {box}, perfect targets of variant {objective.variant!r} bring back {both}, and "
        f"invent {n_seen - both}"
    )
    good = 2 * both >= _COMES_BACK * (n_true + n_seen)
    hint = "" if good else ": balls may merge (a smaller radius), or the nearest pre site is another's (vectors)"
    return Finding("ok" if good else "warning", "decoded", text + hint)


def _box_of(stack: SynapseStack) -> Box:
    """Return the part of the raw around the middle of all sites."""
    whole = stack.raw.info.box
    shape = tuple(min(a, b) for a, b in zip(whole.shape, _LARGEST, strict=True))
    middle = np.median(voxels_containing(stack.raw.info.grid, stack.table.post_nm), axis=0)
    start = [
        int(np.clip(round(float(m) - n / 2), 0, w - n)) for m, n, w in zip(middle, shape, whole.shape, strict=True)
    ]
    z, y, x = shape
    return Box((start[0], start[1], start[2]), (z, y, x))


def _within(table: SynapseTable, stack: SynapseStack, box: Box, radius_nm: float) -> SynapseTable:
    """Return the contacts between two neurons whose balls lie wholly in a box."""
    info = stack.raw.info
    keep = (table.pre_segments != table.post_segments) & (table.pre_segments != 0) & (table.post_segments != 0)
    reach = np.array(info.grid.voxels(radius_nm))
    # At a face of the volume itself nothing is cut that the network would see.
    low = np.where(np.array(box.start) > 0, np.array(box.start) + reach, 0)
    high = np.where(np.array(box.stop) < info.shape, np.array(box.stop) - reach, info.shape)
    for points in (table.pre_nm, table.post_nm):
        voxels = voxels_containing(info.grid, points)
        keep &= ((voxels >= low) & (voxels < high)).all(axis=1)
    return table.rows(keep)


def _pairs(table: SynapseTable) -> Counter[tuple[int, int]]:
    return Counter(zip(table.pre_segments.tolist(), table.post_segments.tolist(), strict=True))


def _decoder(objective: PartnersObjective) -> Decoder:
    """Return the decoder of a variant; of perfect targets every component is one."""
    every = EvidenceSpec()
    if objective.variant == "sites":
        return SitesDecoder(pre=every, post=every)
    if objective.variant == "vectors":
        return VectorsDecoder(post=every, scale_nm=objective.vector_scale_nm)
    if objective.variant == "polarity":
        return PolarityDecoder(sides=every)
    # The balls alone: what is near them reaches into other neurons.
    return ProximityDecoder(evidence=EvidenceSpec(threshold=0.99))


def _perfect(stack: SynapseStack, objective: PartnersObjective, box: Box) -> dict[str, ArrayVolume]:
    """Return targets as a prediction stores them; what is not known as nothing."""
    grid = stack.raw.info.grid
    wide = box.grow(objective.context_vox(grid))
    inner = box.shift([-v for v in wide.start])
    labels = np.zeros(wide.shape, np.uint64)
    there = wide.intersect(stack.labels.info.box)
    labels[there.slices(wide.start)] = stack.labels.read(there)
    known = np.zeros(wide.shape, np.uint8)
    known[there.slices(wide.start)] = 1 if stack.mask is None else read_padded(stack.mask, there) != 0
    heads = {}
    for name, (target, weight) in objective.targets(labels, known, inner, grid).items():
        share = (np.asarray(target, np.float32) + 1) / 2 if name in SIGNED else np.asarray(target, np.float32)
        nothing = np.float32(0.5 if name in SIGNED else 0)
        stored: NDArray[np.uint8] = np.rint(255 * np.where(weight != 0, share, nothing)).astype(np.uint8)
        heads[name] = ArrayVolume(stored, grid.crop(box), source=name)
    return heads
