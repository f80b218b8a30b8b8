"""The parameters of a fully connected CRF as a person writes them: lengths in nm, classes by name.

What they mean: `emloom.ops.crf`. `docs/crf.md` shows a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field as Bounds
from pydantic import model_validator

from emloom.errors import InputError, did_you_mean
from emloom.geometry.grid import Vec3
from emloom.ops.crf import FLOOR, Field
from emloom.ops.pairsums import Kernel
from emloom.spec import Spec

Length = Annotated[float, Bounds(gt=0)]
Penalty = Annotated[float, Bounds(ge=0)]

FLATTEST = 3.0
"""An intensity sigma of more spreads of the raw than this sees no edges: usual voxels weigh 0.9 of equal ones."""


class SpatialKernelSpec(Spec):
    """Voxels near each other should be of one class."""

    kind: Literal["spatial"] = "spatial"
    sigma_nm: Length | tuple[Length, Length, Length]
    """Standard deviation, one for all axes or (z, y, x)."""
    weight: Penalty = 1.0


class BilateralKernelSpec(Spec):
    """Voxels near each other and alike in grey level should be of one class."""

    kind: Literal["bilateral"] = "bilateral"
    sigma_nm: Length | tuple[Length, Length, Length]
    """Standard deviation, one for all axes or (z, y, x)."""
    sigma_intensity: Length | Literal["auto"] = "auto"
    """Standard deviation in grey levels of the raw as it is stored; `auto`: that of the raw itself."""
    weight: Penalty = 1.0
    step: Annotated[float, Bounds(ge=0.25, le=1)] = 0.75
    """Standard deviations between vertices of the grid: less is more exact (0.5: 3 %, 0.75: 6 %) and slower."""


KernelSpec = Annotated[SpatialKernelSpec | BilateralKernelSpec, Bounds(discriminator="kind")]


class CrfSpec(Spec):
    """A fully connected CRF (`emloom refine --crf`)."""

    kernels: tuple[KernelSpec, ...] = Bounds(min_length=1)
    compatibility: dict[str, Penalty] = Bounds(default={})
    """Penalties of pairs of classes by name, `mitochondrion|membrane: 10`: what neighbours of these classes pay.
    0: they may touch as they like. The order of the two names does not matter."""
    other_pairs: Penalty = 1.0
    """Penalty of every pair of different classes that is not named."""
    temperature: Length = 1.0
    """Above 1, the classifier is trusted less; `emloom refine-search` fits it."""
    iterations: Annotated[int, Bounds(ge=1, le=1000)] = 10
    damping: Annotated[float, Bounds(ge=0, lt=1)] = 0.5
    """Part of the old answer that is kept at every iteration; more where the energy swings."""

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        problems, seen = [], set()
        for text in self.compatibility:
            pair = _pair(text)
            if len(pair) != 2 or not all(pair):
                problems.append(f"{text!r} is no pair: write two names, mitochondrion|membrane")
            elif pair[0] == pair[1]:
                problems.append(f"{text!r} is a class with itself, which never costs anything: remove it")
            elif frozenset(pair) in seen:
                problems.append(f"{text!r} is named twice: the order of names does not matter")
            seen.add(frozenset(pair))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def penalties(self, names: Sequence[str]) -> tuple[tuple[float, ...], ...]:
        """Return the matrix of penalties of named classes, in their order.

        Raises:
            InputError: pairs name classes that do not exist; all are listed.
        """
        unknown = [
            f"{word!r} in {text!r}{did_you_mean(word, names)}"
            for text in self.compatibility
            for word in _pair(text)
            if word not in names
        ]
        if unknown:
            raise InputError(
                f"compatibility names classes that do not exist: {', '.join(unknown)} (known: {', '.join(names)})"
            )
        mu = np.full((len(names), len(names)), self.other_pairs)
        np.fill_diagonal(mu, 0)
        for text, penalty in self.compatibility.items():
            a, b = (names.index(word) for word in _pair(text))
            mu[a, b] = mu[b, a] = penalty
        return tuple(tuple(row) for row in mu.tolist())

    def field(
        self,
        names: Sequence[str],
        voxel_size_nm: Vec3,
        spread: float,
        *,
        floor: float = FLOOR,
        tolerance: float = 0,
    ) -> Field:
        """Return the field on a grid.

        Args:
            names: of the classes, in the order of the channels.
            voxel_size_nm: (z, y, x).
            spread: standard deviation of the raw's grey levels.
            floor: the least probability.
            tolerance: see `Field`.

        Raises:
            InputError: a pair names an unknown class, or an intensity sigma is so wide that its kernel sees no
                edges.
        """
        kernels = tuple(_kernel(one, voxel_size_nm, spread) for one in self.kernels)
        return Field(
            kernels, self.penalties(names), self.temperature, self.iterations, self.damping, tolerance, floor
        )


def _pair(text: str) -> list[str]:
    return [word.strip() for word in text.split("|")]


def _kernel(spec: KernelSpec, voxel_size_nm: Vec3, spread: float) -> Kernel:
    nm = spec.sigma_nm if isinstance(spec.sigma_nm, tuple) else (spec.sigma_nm,) * 3
    z, y, x = (length / size for length, size in zip(nm, voxel_size_nm, strict=True))
    if isinstance(spec, SpatialKernelSpec):
        return Kernel((z, y, x), spec.weight)
    if not spread > 0:
        raise InputError(
            "the raw has one grey level only: a bilateral kernel has nothing to see; use kind: spatial"
        )
    sigma = spread if spec.sigma_intensity == "auto" else spec.sigma_intensity
    require_contrast(sigma, spread)
    return Kernel((z, y, x), spec.weight, sigma, spec.step)


def require_contrast(sigma: float, spread: float) -> None:
    """Raise `InputError` where an intensity sigma is more than `FLATTEST` times the raw's spread."""
    if sigma > FLATTEST * spread:
        raise InputError(
            f"sigma_intensity {sigma:g} is {sigma / spread:.3g} times the spread of the raw ({spread:.4g} grey "
            f"levels as stored), so the bilateral kernel would be a plain Gaussian: give {spread / 2:.3g} to "
            f"{spread:.3g}, or use kind: spatial"
        )
