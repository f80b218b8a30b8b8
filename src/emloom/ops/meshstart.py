"""Where elastic meshes begin: all sections at once, node by node.

Rounds of relaxation carry news by a section or two each, so what a whole stack agrees on would take as many rounds
as the square of its length. Here it is solved directly; that nodes within a section hold together is left to
smooth fields, fitted link by link::

    f_ij(p)    smooth, = T_j(p + d) - T_i(p) at the places of link (i, j)             `link_field`, one link
    v_z(g)     minimises, at every node g of a lattice in the common frame,           `stack_meshes`, all sections

                 sum over links  c_ij |v_i - v_j - f_ij|²  +  anchor · sum over z |v_z + b_z|²

    u_z        that takes T_z(p) to T_z(p) + v_z: a mesh on the source section of z

``c_ij`` is how many places hold the field near a node, ``b_z`` by how much z is bent already; the reference stays.
One small banded system per node: memory is that of a few numbers per node, link and section. A few rounds
afterwards settle what the two steps, apart, cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from emloom.errors import InputError
from emloom.geometry.planar import Field
from emloom.ops.elasticmesh import Bent
from emloom.ops.meshsprings import Elasticity, Pulls, mesh_of, nodes_of, places_of, springs, unfolded
from emloom.ops.patchlinks import Link

F64 = NDArray[np.float64]

_HELD = 1e6  # weight of the reference
_LEAST_TRUST = 0.02  # places per node: fields go on smoothly where they were not measured
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class LinkField:
    """How far the second section of a link lies from the first.

    Attributes:
        first: number of the one section.
        second: number of the other.
        apart: displacement, in the common frame, on the lattice of the mesh of the first section.
        trust: float32 [J, I], how many places hold each node.
    """

    first: int
    second: int
    apart: Field
    trust: NDArray[np.float32]


def link_field(link: Link, stack: Mapping[int, Bent], elasticity: Elasticity | None = None) -> LinkField | None:
    """Return the smooth field of a link; None where it has too few places to hold one.

    Args:
        link: places of one section and where they lie in the other.
        stack: both sections.
        elasticity: how smooth.

    Raises:
        InputError: a section is missing.
    """
    if link.first not in stack or link.second not in stack:
        raise InputError(f"the link of sections {link.first} and {link.second} leads to one that is not given")
    if len(link.places) < 3 or link.weights.sum() <= 0:
        return None
    how = elasticity or Elasticity()
    mesh = stack[link.first].mesh
    wanted = stack[link.second].map()(link.places + link.moves) - stack[link.first].map()(link.places)
    pulls = Pulls.at(mesh, link.places, wanted, link.weights)
    begin = np.broadcast_to(np.median(wanted, axis=0), nodes_of(mesh).shape)
    free = Elasticity(how.stiffness, how.slack, 0.0, how.damping, how.steepest, how.least_px)
    nodes, trust = pulls.solved(springs(mesh, free), begin, how.least_px)
    count = pulls.grip.T @ (pulls.weights * trust)
    shape = mesh.displacement.shape[1:]
    return LinkField(link.first, link.second, mesh_of(nodes, mesh), count.reshape(shape).astype(np.float32))


def stack_meshes(
    stack: Sequence[Bent], fields: Sequence[LinkField], reference: int, elasticity: Elasticity | None = None
) -> list[Field]:
    """Return the meshes on which all sections of a stack agree.

    Args:
        stack: all sections, as the fields were made from.
        fields: of the links between them.
        reference: the section that stays.
        elasticity: its anchor and steepest stretch count.

    Raises:
        InputError: the reference, or a field, is not of the stack.
    """
    how = elasticity or Elasticity()
    last = max((max(field.first, field.second) for field in fields), default=0)
    if not 0 <= reference < len(stack) or last >= len(stack):
        raise InputError(
            f"the reference {reference} or the field of section {last} is not of {len(stack)} sections"
        )
    frame = _common(stack)
    at = places_of(frame)
    bands = 1 + max((abs(field.first - field.second) for field in fields), default=1)
    matrix, right = np.zeros((len(at), bands, len(stack))), np.zeros((len(at), len(stack), 2))
    for field in fields:
        _add(matrix, right, field, stack[field.first].map().inverse()(at))
    for z, bent in enumerate(stack):
        weight = max(how.anchor, _TINY) if z != reference else _HELD
        matrix[:, 0, z] += weight
        if z != reference:
            flat = bent.affine.inverse()(at)
            right[:, z] += weight * (bent.affine(flat) - bent.map()(flat))
    moved = np.stack([linalg.solveh_banded(m, r, lower=True) for m, r in zip(matrix, right, strict=True)])
    moved[:, reference] = 0.0
    return [_bent(bent, mesh_of(moved[:, z], frame), how) for z, bent in enumerate(stack)]


def _common(stack: Sequence[Bent]) -> Field:
    """Return a lattice that covers all sections in the common frame, moving nothing."""
    corners = []
    for bent in stack:
        at = places_of(bent.mesh)
        low, high = at.min(0), at.max(0)
        corners.append(bent.map()(np.array([low, high, [low[0], high[1]], [high[0], low[1]]])))
    low, high = np.concatenate(corners).min(0), np.concatenate(corners).max(0)
    spacing = stack[0].mesh.spacing
    nodes = [max(2, int(np.ceil((b - a) / s)) + 1) for a, b, s in zip(low, high, spacing, strict=True)]
    return Field(np.zeros((2, *nodes), np.float32), spacing, (float(low[0]), float(low[1])))


def _add(matrix: F64, right: F64, field: LinkField, places: F64) -> None:
    """Add the springs of a link to the systems of all nodes, which lie at places of its first section."""
    trust = Field(np.stack([field.trust, field.trust]), field.apart.spacing, field.apart.origin)
    weight = np.maximum(trust.at(places)[:, 0], _LEAST_TRUST)
    rim = np.array(field.apart.displacement.shape[1:]) - 1
    high = np.array(field.apart.origin) + rim * np.array(field.apart.spacing)
    inside = ((places >= field.apart.origin) & (places <= high)).all(1)
    weight = np.where(inside, weight, _TINY)
    apart = weight[:, None] * np.nan_to_num(field.apart.at(places))
    i, j = field.first, field.second
    matrix[:, 0, i] += weight
    matrix[:, 0, j] += weight
    matrix[:, abs(i - j), min(i, j)] -= weight
    right[:, i] += apart
    right[:, j] -= apart


def _bent(bent: Bent, moves: Field, how: Elasticity) -> Field:
    """Return the mesh of a section that is moved further, in the common frame; unfolded where need be."""
    at = places_of(bent.mesh)
    here = bent.map()(at)
    wanted = bent.affine.inverse()(moves(here)) - at
    pulls = Pulls.at(bent.mesh, at, wanted, np.ones(len(at)))

    def solve(stiffer: float) -> F64:
        if stiffer == 1:
            return wanted
        return pulls.solved(springs(bent.mesh, how, stiffer), wanted, how.least_px)[0]

    return mesh_of(unfolded(solve, bent.mesh, how.steepest)[0], bent.mesh)
