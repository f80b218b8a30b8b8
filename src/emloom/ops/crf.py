"""A fully connected conditional random field over the voxels of a volume, solved by mean field.

Krähenbühl and Koltun 2011 (arXiv:1210.5644). Classes l, voxels i; P are probabilities of some classifier::

    E(classes)  =  sum over i of  U_i(l_i)  +  sum over i < j of  mu(l_i, l_j) sum over kernels m of  w_m K^m_ij
    U_i(l)      =  -log max(P_i(l), floor) / temperature

mu is a symmetric matrix of *penalties*, 0 or more, 0 on its diagonal: two alike voxels near each other pay
mu(k, l) for being k and l. K^m are the normalised kernels of `emloom.ops.pairsums`, without their diagonals.

Mean field looks for independent distributions Q_i that come nearest to ``exp(-E)``, the minimum of::

    F(Q)  =  sum over i, l of  Q_i(l) (U_i(l) + log Q_i(l))  +  1/2 sum over i, l of  Q_i(l) M_i(l)
    M_i(l)  =  sum over k of  mu(l, k) sum over m of  w_m sum over j of  K^m_ij Q_j(k)

whose stationary points are ``Q = softmax(-U - M)``. The free energy F is the Kullback-Leibler divergence of Q from
the field, but for a constant. All voxels are updated at once, which may swing to and fro; hence damping::

    Q  <-  damping Q + (1 - damping) softmax(-U - M)

The step points downhill (its inner product with the gradient of F is never positive), so with enough damping F
falls at every update; `MeanField.energy` shows whether it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.ops.pairsums import Kernel, PairSums
from emloom.ops.rowmath import exp_below, log_above
from emloom.ops.threads import each, ranges

Array = NDArray[Any]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

FLOOR = 1e-5
"""Probabilities below this are taken for it: a classifier that says 0 does not know that."""
_NEVER = 1e4  # unary of the classes that only fill up a vector
_CONTRACT = {"contract", "nsz"}


@dataclass(frozen=True)
class Field:
    """The parameters of a field.

    Args:
        kernels: at least one.
        penalties: mu [L, L], symmetric, 0 or more, 0 on its diagonal.
        temperature: above 1 trusts the classifier less.
        iterations: updates at most.
        damping: part of the old Q that is kept, 0 to below 1.
        tolerance: stop when no probability changed by more; 0: do all updates.
        floor: the least probability.

    Raises:
        InputError: a value is out of its range.
    """

    kernels: tuple[Kernel, ...]
    penalties: tuple[tuple[float, ...], ...]
    temperature: float = 1.0
    iterations: int = 10
    damping: float = 0.5
    tolerance: float = 1e-3
    floor: float = FLOOR

    def __post_init__(self) -> None:
        mu = np.array(self.penalties, np.float64)
        n = len(self.penalties)
        if mu.shape != (n, n) or n < 2 or (mu != mu.T).any() or mu.diagonal().any():
            raise InputError(f"penalties of {n} classes: give a symmetric {n} x {n} matrix with 0 on its diagonal")
        if not (np.isfinite(mu).all() and (mu >= 0).all()):
            raise InputError(
                f"penalties {self.penalties} are not all finite and 0 or more: what is more is dearer"
            )
        problems = [
            text
            for text, bad in (
                (f"temperature {self.temperature}: above 0", not 0 < self.temperature < float("inf")),
                (f"{self.iterations} iterations: 1 or more", self.iterations < 1),
                (f"damping {self.damping}: 0 to below 1", not 0 <= self.damping < 1),
                (f"tolerance {self.tolerance}: 0 or more", not self.tolerance >= 0),
                (f"floor {self.floor}: above 0, below 0.5", not 0 < self.floor < 0.5),
                ("no kernel: give one or more", not self.kernels),
            )
            if bad
        ]
        if problems:
            raise InputError("a field's parameters are out of range: " + "; ".join(problems))


@dataclass(frozen=True)
class MeanField:
    """What mean field found.

    Attributes:
        probabilities: Q, float32 [L, Z, Y, X]; where the mask is 0, the softmax of the unaries.
        energy: free energy of Q before each update, summed over the counted voxels, in nats.
        change: the largest change of a probability in each update, over all voxels.
    """

    probabilities: F32
    energy: tuple[float, ...]
    change: tuple[float, ...]

    @property
    def rises(self) -> bool:
        """Whether the energy rose at some update, by more than rounding: damp more, or lower the penalties."""
        return rises(self.energy)


def rises(energy: Sequence[float]) -> bool:
    """Return whether an energy rises at some update, by more than rounding."""
    e = np.array(energy)
    return bool((np.diff(e) > 1e-6 * np.abs(e).max(initial=1e-300)).any())


def mean_field(
    probabilities_LZYX: Array,
    raw_ZYX: Array,
    field: Field,
    *,
    mask_ZYX: Array | None = None,
    start: Vec = (0, 0, 0),
    counted: Box | None = None,
    threads: int = 1,
) -> MeanField:
    """Return the mean field of a fully connected CRF; see the module.

    Args:
        probabilities_LZYX: floats within 0 and 1; they need not sum to 1.
        raw_ZYX: grey levels.
        field: the parameters.
        mask_ZYX: voxels where it is 0 neither send nor receive; what they get is the softmax of their unaries.
        start: absolute voxel at which the arrays begin; a block of a volume then finds the volume's own grid.
        counted: voxels of the arrays that `energy` is of; default: all.
        threads: how many work; the bits do not depend on it.

    Raises:
        InputError: shapes or numbers of classes differ, a probability is not within 0 and 1, or the raw is not
            finite where it counts.
    """
    known = _checked(probabilities_LZYX, raw_ZYX, field, mask_ZYX)
    raw = np.where(known, raw_ZYX, 0) if not known.all() else raw_ZYX
    n, shape = len(field.penalties), known.shape
    box = Box.whole(shape) if counted is None else counted
    width = -(-n // 4) * 4
    unary = np.full((*shape, width), _NEVER, np.float32)
    scale = -1 / field.temperature
    for k in range(n):
        unary[..., k] = scale * np.log(np.maximum(np.asarray(probabilities_LZYX[k], np.float32), field.floor))
    q, message = np.zeros_like(unary), np.zeros_like(unary)
    update = _Update(field, unary, known, box, threads)
    update(q, message, keep=0.0)  # no messages yet: the softmax of the unaries
    sums = [PairSums(kernel, raw, known, start, width, threads) for kernel in field.kernels]
    energy, change = [], []
    for _ in range(field.iterations):
        message[...] = 0
        for kernel in sums:
            kernel.add(q, message)
        before, largest = update(q, message, keep=field.damping)
        energy.append(before)
        change.append(largest)
        if largest < field.tolerance:
            break
    return MeanField(np.ascontiguousarray(np.moveaxis(q[..., :n], -1, 0)), tuple(energy), tuple(change))


def _checked(probabilities: Array, raw: Array, field: Field, mask: Array | None) -> NDArray[np.bool_]:
    n = len(field.penalties)
    if probabilities.ndim != 4 or probabilities.shape[0] != n or probabilities.shape[1:] != raw.shape:
        raise InputError(
            f"probabilities {probabilities.shape} and raw {raw.shape} with penalties of {n} classes: give "
            "(classes, z, y, x) and (z, y, x) of the same voxels"
        )
    if probabilities.dtype.kind != "f" or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise InputError(
            f"probabilities of {probabilities.dtype} are not all within 0 and 1: divide stored uint8 by 255"
        )
    if mask is not None and mask.shape != raw.shape:
        raise InputError(f"mask {mask.shape} and raw {raw.shape}: give one of the same voxels")
    known: NDArray[np.bool_] = np.ones(raw.shape, bool) if mask is None else mask != 0
    if raw.dtype.kind == "f" and not np.isfinite(raw[known]).all():
        raise InputError("the raw holds NaN or infinity where it counts: mask those voxels")
    return known


@dataclass
class _Update:
    field: Field
    unary: F32
    known: NDArray[np.bool_]
    counted: Box
    threads: int

    def __call__(self, q: F32, message: F32, keep: float) -> tuple[float, float]:
        """Replace q by its update; return the energy before, and the largest change."""
        n, width = len(self.field.penalties), q.shape[-1]
        mu = np.zeros((width, width), np.float32)
        mu[:n, :n] = self.field.penalties
        sections = len(q)
        energy, change = np.zeros(sections), np.zeros(sections)
        box = np.array([self.counted.start, self.counted.stop], np.int64)
        fixed = (self.unary, message, self.known, mu, np.float32(keep), q, box, energy, change, (0,) * width)
        each(partial(_update_range, fixed), ranges(sections, self.threads), self.threads)
        return float(sum(energy.tolist())), float(change.max(initial=0))


def _update_range(fixed: tuple[Any, ...], piece: tuple[int, int]) -> None:
    kernel: Any = _update
    kernel(*fixed, *piece)


@njit(cache=True, nogil=True, fastmath=_CONTRACT)
def _update(  # noqa: C901, PLR0913 (a kernel takes arrays, not objects)
    unary: F32,
    message: F32,
    known: NDArray[np.bool_],
    mu: F32,
    keep: np.float32,
    q: F32,
    box: NDArray[np.int64],
    energy: F64,
    change: F64,
    like: tuple[int, ...],
    first: int,
    last: int,
) -> None:
    """Update sections first .. last; rows at a time, so that the loops become vectors."""
    W = len(like)
    _, Y, X, _ = q.shape
    one, half, least = np.float32(1), np.float32(0.5), np.float32(1e-18)  # denormal numbers are slow
    new, paid, logs = np.empty(X * W, np.float32), np.empty(X * W, np.float32), np.empty(X * W, np.float32)
    bits = np.empty(X * W, np.int32)
    for z in range(first, last):
        total, most = 0.0, np.float32(0)
        for y in range(Y):
            u, s, old = unary[z, y].reshape(-1), message[z, y].reshape(-1), q[z, y].reshape(-1)
            paid[:] = 0
            for x in range(X):
                for m in range(W):
                    for k in range(W):
                        paid[x * W + k] += mu[m, k] * s[x * W + m]
            for x in range(X):
                lowest = np.float32(np.inf)
                for k in range(W):
                    new[x * W + k] = u[x * W + k] + paid[x * W + k]
                    lowest = min(lowest, new[x * W + k])
                for k in range(W):
                    new[x * W + k] -= lowest
            if box[0, 0] <= z < box[1, 0] and box[0, 1] <= y < box[1, 1]:
                log_above(old, logs)
                for x in range(box[0, 2], box[1, 2]):
                    if known[z, y, x]:
                        here = np.float32(0)
                        for i in range(x * W, x * W + W):
                            here += old[i] * (u[i] + logs[i] + half * paid[i])
                        total += float(here)
            exp_below(new, bits)
            for x in range(X):
                whole = np.float32(0)
                for i in range(x * W, x * W + W):
                    whole += new[i]
                share = (one - keep) / whole
                if known[z, y, x] or keep == 0:
                    for i in range(x * W, x * W + W):
                        after = keep * old[i] + share * new[i]
                        most = max(most, abs(after - old[i]))
                        old[i] = after if after > least else 0
        energy[z], change[z] = total, most
