"""Elastic meshes: sections bent until they lie on their neighbours.

A section goes to the common frame by its mesh and then its affine map, ``T_z(p) = M_z(p + u_z(p))``; the mesh is
the displacement ``u_z`` at the nodes of a lattice on the source section, linear between them (a `Field`). What it
should be is a matter of springs::

    E_z = sum over places p of links to sections j    w |T_z(p) - T_j(p + d)|²     to where the neighbour is now
        + stiffness · sum over nodes                  |second differences of u|²   bends as little as it can
        + slack · sum over neighbouring nodes         |first differences of u|²    stretches as little as it can
        + anchor · sum over nodes                     |u|²                         stays near the affine solution

A place of ordinary weight counts 1, so where nothing was measured the springs alone decide. Distances are taken
back to the source section by the affine map, where y and x fall apart and E is quadratic: one sparse direct solution
for both. Weights are robust (Geman & McClure 1985) and found anew a few times.

One *round* relaxes every section against the meshes of the round before (Jacobi), so sections of a round may be
computed in any order, by any number of workers, with the same result. As all move at once each goes only part of
the way (`damping`), else neighbours would change places for ever. A section that is to stay is not relaxed.

A bent section can be bent back only where it does not fold. ``steepest`` is the largest stretch |grad u| allowed
anywhere; below 1 the mesh is invertible, its Jacobian nowhere below (1 - steepest)². A mesh that would exceed it
is made stiffer until it does not.

Elastic alignment by springs: Saalfeld et al. 2012 (doi:10.1038/nmeth.2072).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from emloom.errors import InputError
from emloom.geometry.planar import Affine, Field, PlanarMap, chain
from emloom.ops.sectionlinks import Link

F64 = NDArray[np.float64]

_REWEIGHTED = 3
_STIFFER, _TRIES = 4.0, 12
_TIMES = 3.0


@dataclass(frozen=True)
class Elasticity:
    """What meshes are made of.

    Attributes:
        stiffness: weight of second differences of the displacement.
        slack: weight of first differences.
        anchor: weight of the displacement itself.
        damping: part of the way that a section goes in a round, above 0, at most 1.
        steepest: largest stretch anywhere, below 1.
        least_px: residuals below this are never an outlier's.

    Raises:
        InputError: a number is out of its range.
    """

    stiffness: float = 0.05
    slack: float = 0.005
    anchor: float = 0.002
    damping: float = 0.6
    steepest: float = 0.5
    least_px: float = 1.0

    def __post_init__(self) -> None:
        if min(self.stiffness, self.slack, self.least_px) <= 0 or self.anchor < 0:
            raise InputError(
                f"stiffness {self.stiffness}, slack {self.slack}, {self.least_px} px: give more than 0"
            )
        if not (0 < self.damping <= 1 and 0 < self.steepest < 1):
            raise InputError(
                f"damping {self.damping} lies above 0, up to 1; steepest {self.steepest} above 0, below 1"
            )


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
        before: E of the mesh before, at the weights and stiffness of the end.
        after: E of the mesh found, before damping.
        residual_px: median distance of its places from where neighbours have them, after damping; NaN: no links.
        p95_px: that of the 95th percentile.
        stiffened: by how much stiffness had to grow; 1: not at all.
        least_area: smallest determinant of the Jacobian, of ``p + u(p)``.
    """

    mesh: Field
    before: float
    after: float
    residual_px: float
    p95_px: float
    stiffened: float
    least_area: float


def flat_mesh(shape_YX: tuple[int, int], spacing: float) -> Field:
    """Return a mesh that moves nothing, over a section.

    Args:
        shape_YX: pixels of the section.
        spacing: pixels between nodes.

    Raises:
        InputError: the spacing is not positive.
    """
    if spacing <= 0 or min(shape_YX) < 1:
        raise InputError(f"a mesh over {shape_YX} px with nodes every {spacing} px: both must be positive")
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
    own = stack[z]
    places, wanted, weights = _wishes(z, stack, [link for link in links if z in (link.first, link.second)])
    grip = _grip(own.mesh, places)
    old = own.mesh.displacement.reshape(2, -1).T.astype(np.float64)
    share = weights / max(float(weights.mean()), 1e-12) if len(weights) else weights
    for k in range(_TRIES + 1):
        stiffened = _STIFFER**k
        springs = _springs(own.mesh.displacement.shape[1:], how, stiffened)
        new, trust = _solved(grip, wanted, share, springs, (old, how.least_px))
        if k == _TRIES:
            new = np.zeros_like(new)
        if _steepest(_jacobians(_field(new, own.mesh))) <= how.steepest:
            break
    mesh = _field(old + how.damping * (new - old), own.mesh)
    moved = mesh.displacement.reshape(2, -1).T.astype(np.float64)
    left = np.hypot(*(grip @ moved - wanted).T)
    median, p95 = np.percentile(left, [50, 95]) if len(left) else (np.nan, np.nan)
    before, after = (_energy(u, grip, wanted, share * trust, springs) for u in (old, new))
    area = float(np.linalg.det(_jacobians(mesh)).min())
    return Relaxed(mesh, before, after, float(median), float(p95), stiffened, area)


def _wishes(z: int, stack: Mapping[int, Bent], links: Sequence[Link]) -> tuple[F64, F64, F64]:
    """Return places of a section, by how much each should move to meet its neighbours, and weights."""
    places, wanted, weights = [np.zeros((0, 2))], [np.zeros((0, 2))], [np.zeros(0)]
    back = stack[z].affine.inverse()
    for link in links:
        other, here, there = link.seen_from(z)
        if other not in stack:
            raise InputError(f"section {z} is linked to section {other}, whose mesh is not given")
        places.append(here)
        wanted.append(back(stack[other].map()(there)) - here)
        weights.append(link.weights)
    return np.concatenate(places), np.concatenate(wanted), np.concatenate(weights)


def _solved(grip: Any, wanted: F64, share: F64, springs: Any, begin: tuple[F64, float]) -> tuple[F64, F64]:
    """Return node displacements [K, 2] and the robust weights under which they are the best."""
    u, least = begin
    trust = np.ones(len(share))
    for _ in range(_REWEIGHTED):
        far = np.hypot(*(grip @ u - wanted).T)
        scale = max(_TIMES * float(np.median(far)), least) if len(far) else least
        trust = 1 / np.square(1 + np.square(far / scale))
        held = grip.multiply((share * trust)[:, None]).T.tocsr()
        u = splu((held @ grip + springs).tocsc()).solve(held @ wanted)
    return u, trust


def _energy(u: F64, grip: Any, wanted: F64, weights: F64, springs: Any) -> float:
    far = np.square(grip @ u - wanted).sum(1)
    return float((weights * far).sum() + (u * (springs @ u)).sum())


def _field(u: F64, like: Field) -> Field:
    shape = like.displacement.shape
    return Field(u.T.reshape(shape).astype(np.float32), like.spacing, like.origin)


def _grip(mesh: Field, places: F64) -> Any:
    """Return the matrix [N, J I] that takes node displacements to those of places, as `Field.at` does."""
    rows, columns = mesh.displacement.shape[1:]
    corner, part = [], []
    for axis, n in enumerate((rows, columns)):
        node = np.clip((places[:, axis] - mesh.origin[axis]) / mesh.spacing[axis], 0.0, n - 1.0)
        low = np.minimum(node.astype(np.int64), max(n - 2, 0))
        corner.append((low, np.minimum(low + 1, n - 1)))
        part.append((1 - (node - low), node - low))
    which = np.arange(len(places))
    rows_of, columns_of, values = [], [], []
    for j in range(2):
        for i in range(2):
            rows_of.append(which)
            columns_of.append(corner[0][j] * columns + corner[1][i])
            values.append(part[0][j] * part[1][i])
    entries = (np.concatenate(values), (np.concatenate(rows_of), np.concatenate(columns_of)))
    return sparse.csr_array(entries, shape=(len(places), rows * columns))


def _springs(shape: tuple[int, ...], how: Elasticity, stiffened: float) -> Any:
    """Return the matrix of the springs within a mesh."""
    bend, stretch = _differences(shape[0], shape[1])
    still = sparse.eye_array(shape[0] * shape[1]) * max(how.anchor, 1e-9)
    return (bend * how.stiffness + stretch * how.slack) * stiffened + still


@lru_cache(maxsize=4)
def _differences(rows: int, columns: int) -> tuple[Any, Any]:
    """Return the squares of second differences, mixed ones too, and of first differences, of a lattice."""
    line = {n: sparse.eye_array(n, format="csr") for n in {rows, columns}}
    first = {n: line[n][1:] - line[n][:-1] for n in line}
    second = {n: line[n][2:] - 2 * line[n][1:-1] + line[n][:-2] for n in line}
    stretch = [sparse.kron(first[rows], line[columns]), sparse.kron(line[rows], first[columns])]
    bend = [sparse.kron(second[rows], line[columns]), sparse.kron(line[rows], second[columns])]
    mixed = sparse.kron(first[rows], first[columns])
    squares = [sum((d.T @ d for d in group[1:]), group[0].T @ group[0]) for group in (bend, stretch)]
    return squares[0] + 2 * (mixed.T @ mixed), squares[1]


def _jacobians(mesh: Field) -> F64:
    """Return the Jacobian of ``p + u(p)`` at the four corners of every cell, [N, 2, 2].

    Within a cell, where u is bilinear, its determinant and its norm are largest and smallest at a corner.
    """
    u = mesh.displacement.astype(np.float64)
    down = np.diff(u, axis=1) / mesh.spacing[0]
    across = np.diff(u, axis=2) / mesh.spacing[1]
    corners = []
    for j in (slice(None, -1), slice(1, None)):
        for i in (slice(None, -1), slice(1, None)):
            corners.append(np.stack([down[:, :, i], across[:, j]], -1).reshape(2, -1, 2).transpose(1, 0, 2))
    out: F64 = np.concatenate(corners) + np.eye(2)
    return out


def _steepest(jacobians: F64) -> float:
    return float(np.linalg.svd(jacobians - np.eye(2), compute_uv=False).max())
