"""Springs of elastic meshes: displacements at the nodes of a lattice that fit those of places, and bend little.

::

    |grip u - wanted|²  weighted     + stiffness |second differences|² + slack |first differences|² + anchor |u|²

A place of ordinary weight counts 1, so where nothing was measured the springs alone decide. Displacements along y
and x share one sparse matrix and are solved directly. Weights are robust (those of a Cauchy distribution), found
anew a few times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from emloom.errors import InputError
from emloom.geometry.planar import Field

F64 = NDArray[np.float64]

_REWEIGHTED = 4
_STIFFER, _TRIES = 4.0, 12
_TIMES = 3.0


@dataclass(frozen=True)
class Elasticity:
    """What meshes are made of.

    Attributes:
        stiffness: weight of second differences of the displacement.
        slack: weight of first differences.
        anchor: weight of the displacement itself, that is of staying where the affine maps lead.
        damping: part of the way that a section goes in a round, above 0, at most 1.
        steepest: largest stretch, |grad u|, anywhere, below 1.
        least_px: residuals below this are never an outlier's.

    Raises:
        InputError: a number is out of its range.
    """

    stiffness: float = 0.1
    slack: float = 0.005
    anchor: float = 0.002
    damping: float = 0.6
    steepest: float = 0.5
    least_px: float = 1.0

    def __post_init__(self) -> None:
        if min(self.stiffness, self.slack, self.least_px) <= 0 or self.anchor < 0:
            raise InputError(
                f"stiffness {self.stiffness}, slack {self.slack}, {self.least_px} px: give numbers above 0"
            )
        if not (0 < self.damping <= 1 and 0 < self.steepest < 1):
            raise InputError(
                f"damping {self.damping} lies above 0, up to 1; steepest {self.steepest} above 0, below 1"
            )


@dataclass(frozen=True, eq=False)
class Pulls:
    """What pulls at a mesh.

    Attributes:
        grip: sparse [N, K], from node displacements to those of places, see `grip`.
        wanted: float64 [N, 2], displacement that every place should have.
        weights: float64 [N], around 1.
    """

    grip: Any
    wanted: F64
    weights: F64

    @classmethod
    def at(cls, mesh: Field, places: F64, wanted: F64, weights: F64) -> Pulls:
        """Return pulls at places [N, 2] of a mesh; weights are brought to a mean of 1."""
        ordinary = float(weights.mean()) if len(weights) else 1.0
        return cls(grip(mesh, places), wanted, weights / max(ordinary, 1e-12))

    def far(self, nodes: F64) -> F64:
        """Return how far places are from where they should be."""
        out: F64 = np.hypot(*(self.grip @ nodes - self.wanted).T)
        return out

    def energy(self, nodes: F64, trust: F64, springs: Any) -> float:
        """Return the energy of node displacements [K, 2]."""
        far = np.square(self.far(nodes))
        return float((self.weights * trust * far).sum() + (nodes * (springs @ nodes)).sum())

    def solved(self, springs: Any, begin: F64, least_px: float) -> tuple[F64, F64]:
        """Return node displacements [K, 2] of least energy, and the robust weights under which they are.

        Args:
            springs: sparse [K, K], see `springs`.
            begin: displacements by which outliers are judged first.
            least_px: residuals below this are never an outlier's.
        """
        nodes, trust = begin, np.ones(len(self.weights))
        for _ in range(_REWEIGHTED):
            far = self.far(nodes)
            scale = max(_TIMES * float(np.median(far)), least_px) if len(far) else least_px
            trust = 1 / (1 + np.square(far / scale))
            held = self.grip.multiply((self.weights * trust)[:, None]).T.tocsr()
            nodes = splu((held @ self.grip + springs).tocsc()).solve(held @ self.wanted)
        return nodes, trust


def nodes_of(mesh: Field) -> F64:
    """Return the displacements of a mesh, float64 [K, 2]."""
    return mesh.displacement.reshape(2, -1).T.astype(np.float64)


def mesh_of(nodes: F64, like: Field) -> Field:
    """Return the mesh of displacements [K, 2], on the lattice of another."""
    shape = like.displacement.shape
    return Field(np.ascontiguousarray(nodes.T.reshape(shape), np.float32), like.spacing, like.origin)


def places_of(mesh: Field) -> F64:
    """Return where the nodes of a mesh are, float64 [K, 2]."""
    axes = [
        o + s * np.arange(n)
        for o, s, n in zip(mesh.origin, mesh.spacing, mesh.displacement.shape[1:], strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def grip(mesh: Field, places: F64) -> Any:
    """Return the sparse matrix [N, K] that takes node displacements to those of places, as `Field.at` does."""
    rows, columns = mesh.displacement.shape[1:]
    corner, part = [], []
    for axis, n in enumerate((rows, columns)):
        node = np.clip((places[:, axis] - mesh.origin[axis]) / mesh.spacing[axis], 0.0, n - 1.0)
        low = np.minimum(node.astype(np.int64), max(n - 2, 0))
        corner.append((low, np.minimum(low + 1, n - 1)))
        part.append((1 - (node - low), node - low))
    which = np.arange(len(places))
    four = [(j, i) for j in range(2) for i in range(2)]
    nodes = np.concatenate([corner[0][j] * columns + corner[1][i] for j, i in four])
    values = np.concatenate([part[0][j] * part[1][i] for j, i in four])
    return sparse.csr_array((values, (np.tile(which, 4), nodes)), shape=(len(places), rows * columns))


def springs(mesh: Field, how: Elasticity, stiffened: float = 1.0) -> Any:
    """Return the sparse matrix [K, K] of the springs within a mesh, made stiffer by a factor."""
    rows, columns = mesh.displacement.shape[1:]
    bend, stretch = _differences(rows, columns)
    still = sparse.eye_array(rows * columns) * max(how.anchor, 1e-9)
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
    bent, stretched = (group[0].T @ group[0] + group[1].T @ group[1] for group in (bend, stretch))
    return bent + 2 * (mixed.T @ mixed), stretched


def jacobians(mesh: Field) -> F64:
    """Return the Jacobian of ``p + u(p)`` at the four corners of every cell, [N, 2, 2].

    Within a cell, where u is bilinear, its determinant and the norm of its gradient are extreme at corners.
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


def stretch(mesh: Field) -> float:
    """Return the largest |grad u| of a mesh."""
    return float(np.linalg.svd(jacobians(mesh) - np.eye(2), compute_uv=False).max())


def unfolded(solve: Callable[[float], F64], like: Field, steepest: float) -> tuple[F64, float]:
    """Return node displacements that stretch nothing by more than allowed, and how much stiffer they had to be.

    Args:
        solve: returns node displacements [K, 2] with springs made stiffer by a factor.
        like: a mesh of that lattice.
        steepest: largest stretch.
    """
    for k in range(_TRIES):
        nodes = solve(_STIFFER**k)
        if stretch(mesh_of(nodes, like)) <= steepest:
            return nodes, _STIFFER**k
    return np.zeros_like(nodes), float("inf")
