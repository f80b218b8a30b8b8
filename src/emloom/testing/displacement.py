"""How far an alignment lies from the truth: residual displacements of a stack whose damage is known.

An alignment is right up to one map common to all sections, its gauge: nobody knows where the stack lies on the
desk. So a place u of the undamaged stack is followed to the damaged one, by the found map to the aligned one, and
by the gauge G back::

    undamaged u --truth^-1--> damaged --found--> aligned --G--> u + e(u, z)

    error                |e(u, z)|                G: one shift, or one affine map, of all good sections
    between neighbours   |e(u, z) - e(u, z')|     z': the good section before z; drift that builds up slowly is
                                                  an error in the first, hardly one in the second
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.stackmap import StackMap

F64 = NDArray[np.float64]

_ROUNDS = 20
_FEWEST = 3


@dataclass(frozen=True, eq=False)
class Displacement:
    """What is left of the displacement of every section.

    Attributes:
        sections: those that were measured, in order.
        vectors_px: float64 [S, N, 2], (y, x) per section and place; NaN where the place is not in the picture.
    """

    sections: tuple[int, ...]
    vectors_px: F64

    @property
    def error_px(self) -> F64:
        """Lengths, [S, N]; NaN where there is none."""
        return np.asarray(np.linalg.norm(self.vectors_px, axis=-1))

    @property
    def neighbours_px(self) -> F64:
        """Lengths of the difference from the measured section before, [S - 1, N]."""
        return np.asarray(np.linalg.norm(np.diff(self.vectors_px, axis=0), axis=-1))

    def per_section(self) -> dict[int, float]:
        """Return the median error of every section, px; NaN where no place of it is found."""
        return {z: _quantile(e, 0.5) for z, e in zip(self.sections, self.error_px, strict=True)}

    def median(self, of: Literal["error", "neighbours"] = "error") -> float:
        """Return the median over all places and sections, px."""
        return _quantile(self.error_px if of == "error" else self.neighbours_px, 0.5)

    def p95(self, of: Literal["error", "neighbours"] = "error") -> float:
        """Return the 95th percentile over all places and sections, px."""
        return _quantile(self.error_px if of == "error" else self.neighbours_px, 0.95)


def displacement_error(
    found: StackMap,
    truth: StackMap,
    sections: Iterable[int] | None = None,
    *,
    gauge: Literal["none", "shift", "affine"] = "shift",
    step_px: float = 16.0,
) -> Displacement:
    """Return how far a found map is from the true one; see the module.

    Args:
        found: from the damaged stack to the aligned one.
        truth: from the damaged stack to the undamaged one.
        sections: of the damaged stack to measure; all. Leave out those that cannot be known: `Damaged.bad`.
        gauge: what all sections may have in common without being wrong.
        step_px: distance between places, along y and x of the undamaged stack.

    Raises:
        InputError: the maps do not begin at the same stack, or no place of any section is found.
    """
    if found.source.shape != truth.source.shape or not found.source.grid.matches(truth.source.grid):
        raise InputError(
            f"the found map begins at {found.source}, the true one at {truth.source}: give maps of the same stack"
        )
    chosen = tuple(sorted(range(truth.source.shape[0]) if sections is None else set(sections)))
    u = _places(truth.target.shape[1:], step_px)
    ends = np.stack([_followed(found, truth, z, u) for z in chosen]) if chosen else np.empty((0, len(u), 2))
    if np.isfinite(ends).all(-1).sum() < _FEWEST:
        raise InputError(f"no place of the sections {chosen} is in both stacks: nothing can be compared")
    return Displacement(chosen, _gauged(ends, u, gauge) - u)


def _places(shape: tuple[int, ...], step: float) -> F64:
    y, x = (np.arange(0.5 * min(step, n), n, step) for n in shape)
    return np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)


def _followed(found: StackMap, truth: StackMap, z: int, u: F64) -> F64:
    there, shown = truth.guest(z), found.guest(z)
    if there is None or shown is None:
        return np.full_like(u, np.nan)
    seen = truth.map(there).inverse()(u)
    seen[~((seen >= 0) & (seen < np.array(truth.source.shape[1:]))).all(1)] = np.nan
    return found.map(shown)(seen)


def _gauged(ends: F64, u: F64, gauge: str) -> F64:
    """Return places of the aligned stack in the undamaged one, by the map that most of them agree on."""
    if gauge == "none":
        return ends
    known = np.isfinite(ends).all(-1)
    a, b = ends[known], np.broadcast_to(u, ends.shape)[known]
    if gauge == "shift":
        return ends + np.median(b - a, axis=0)
    middle = a.mean(axis=0)
    columns = np.column_stack([a - middle, np.ones(len(a))])
    weight = np.ones(len(a))
    for _ in range(_ROUNDS):  # least absolute distances, by least squares reweighted
        root = np.sqrt(weight)[:, None]
        matrix = np.linalg.lstsq(columns * root, b * root, rcond=None)[0]
        weight = 1 / np.maximum(np.linalg.norm(columns @ matrix - b, axis=1), 1e-3)
    moved: F64 = (ends - middle) @ matrix[:2] + matrix[2]
    return moved


def _quantile(errors: F64, share: float) -> float:
    known = errors[np.isfinite(errors)]
    return float(np.quantile(known, share)) if known.size else float("nan")


__all__ = ["Displacement", "displacement_error"]
