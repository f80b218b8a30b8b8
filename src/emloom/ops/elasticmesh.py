"""Elastic meshes: sections bent until they lie on their neighbours.

A section goes to the common frame by its mesh and then its affine map, ``T_z(p) = M_z(p + u_z(p))``; the mesh is
the displacement ``u_z`` at the nodes of a lattice on the source section, linear between them (a `Field`). What it
should be is a matter of springs (`emloom.ops.meshsprings`)::

    E_z = sum over places p of links to sections j    w |T_z(p) - T_j(p + d)|²     to where the neighbour is now
        + stiffness · sum over nodes                  |second differences of u|²   bends as little as it can
        + slack · sum over neighbouring nodes         |first differences of u|²    stretches as little as it can
        + anchor · sum over nodes                     |u|²                         stays near the affine solution

Distances are taken back to the source section by the affine map, where y and x fall apart and E is quadratic.

One *round* relaxes every section against the meshes of the round before (Jacobi), so sections of a round may be
computed in any order, by any number of workers, with the same result. As all move at once each goes only part of
the way (`damping`), else neighbours would change places for ever. A section that is to stay is not relaxed. Rounds
carry news by a section or two each: begin with `emloom.ops.meshstart`, which solves the whole stack.

A bent section can be bent back only where it does not fold. ``steepest`` is the largest stretch |grad u| allowed
anywhere; below 1 the mesh is invertible, its Jacobian nowhere below (1 - steepest)². A mesh that would exceed it
is made stiffer until it does not.

Elastic alignment by springs: Saalfeld et al. 2012 (doi:10.1038/nmeth.2072).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.planar import Affine, Field, PlanarMap, chain
from emloom.ops.meshsprings import Elasticity, Pulls, jacobians, mesh_of, nodes_of, springs, unfolded
from emloom.ops.patchlinks import Link

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bent:
    """Where a section lies: its mesh, then its affine map.

    Attributes:
        mesh: displacement on the source section.
        affine: to the common frame.
    """

    mesh: Field
    affine: Affine

    def map(self) -> PlanarMap:
        """Return both, one after the other."""
        return chain(self.mesh, self.affine)


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A section after a round.

    Attributes:
        mesh: its mesh.
        before: E of the mesh before, at the robust weights and the stiffness of the mesh found.
        after: E of the mesh found, before damping.
        residual_px: median distance of its places from where neighbours have them, after damping; NaN: no links.
        p95_px: that of the 95th percentile.
        stiffened: by how much stiffness had to grow; 1: not at all; infinite: to no avail, it goes back to flat.
        least_area: smallest determinant of the Jacobian of ``p + u(p)``.
    """

    mesh: Field
    before: float
    after: float
    residual_px: float
    p95_px: float
    stiffened: float
    least_area: float


def flat_mesh(shape_YX: tuple[int, ...], spacing: float) -> Field:
    """Return a mesh that moves nothing, over a section.

    Args:
        shape_YX: pixels of the section.
        spacing: pixels between nodes.

    Raises:
        InputError: the spacing or an extent is not positive.
    """
    if spacing <= 0 or len(shape_YX) != 2 or min(shape_YX) < 1:
        raise InputError(f"a mesh over {shape_YX} px with nodes every {spacing} px: give two extents, all above 0")
    nodes = [max(2, int(np.ceil(n / spacing)) + 1) for n in shape_YX]
    return Field(np.zeros((2, *nodes), np.float32), (float(spacing), float(spacing)))


def relax(
    z: int, stack: Mapping[int, Bent], links: Sequence[Link], elasticity: Elasticity | None = None
) -> Relaxed:
    """Return the mesh of a section after one round.

    Args:
        z: the section.
        stack: section z and all that links join to it, as they were after the round before.
        links: those of section z; others are passed over.
        elasticity: what the mesh is made of.

    Raises:
        InputError: a section that a link leads to is missing.
    """
    how = elasticity or Elasticity()
    mesh = stack[z].mesh
    pulls = _pulls(z, stack, [link for link in links if z in (link.first, link.second)])
    old = nodes_of(mesh)
    new, stiffened = unfolded(
        lambda stiffer: pulls.solved(springs(mesh, how, stiffer), old, how.least_px)[0], mesh, how.steepest
    )
    at_end = springs(mesh, how, stiffened if np.isfinite(stiffened) else 1.0)
    trust = pulls.solved(at_end, old, how.least_px)[1]
    bent = mesh_of(old + how.damping * (new - old), mesh)
    left = pulls.far(nodes_of(bent))
    median, p95 = np.percentile(left, [50, 95]) if len(left) else (np.nan, np.nan)
    before, after = (pulls.energy(nodes, trust, at_end) for nodes in (old, new))
    area = float(np.linalg.det(jacobians(bent)).min())
    return Relaxed(bent, before, after, float(median), float(p95), stiffened, area)


def _pulls(z: int, stack: Mapping[int, Bent], links: Sequence[Link]) -> Pulls:
    """Return how neighbours pull at a section."""
    places, wanted, weights = [np.zeros((0, 2))], [np.zeros((0, 2))], [np.zeros(0)]
    back = stack[z].affine.inverse()
    for link in links:
        other, here, there = link.seen_from(z)
        if other not in stack:
            raise InputError(f"section {z} is linked to section {other}, whose mesh is not given")
        places.append(here)
        wanted.append(back(stack[other].map()(there)) - here)
        weights.append(link.weights)
    return Pulls.at(stack[z].mesh, np.concatenate(places), np.concatenate(wanted), np.concatenate(weights))
