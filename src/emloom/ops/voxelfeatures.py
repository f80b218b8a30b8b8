"""What a classifier of single voxels may look at: named features of the image around each of them.

A *feature set* answers for the inside of a box of raw, and says exactly how far around it looks::

    raw          |<- reach ->|<------ n ------>|<- reach ->|
    features                 |<------ n ------>|              float32 [F, Z, Y, X]

What it says of a voxel does not depend on the box: blockwise == whole, to the last bit.

`MultiScale` has, for every sigma, in grey values (see `emloom.ops.scalespace` for units and formulas):

* ``gaussian``: the smoothed image; ``difference``: less that of the next sigma (none for the last);
* ``laplacian``, ``gradient``: of the smoothed image, the length of the gradient;
* ``structure``: eigenvalues of the structure tensor, largest first; its outer sigma is half the inner;
* ``hessian``: eigenvalues of the Hessian, largest first;

and once, ``intensity``: the image itself. Sigmas are nm. In three dimensions a sigma below 0.7 voxels along z is
*flat*: within the section, for it could only mix a section with itself; its names say 2d. So on thick sections
fine scales are flat and coarse ones are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.ops.scalespace import (
    eigenvalues,
    gradient,
    inner,
    radius_of,
    second_derivatives,
    smooth,
    structure_tensor,
)
from emloom.ops.threads import Threads

F32 = NDArray[np.float32]

Family = Literal["intensity", "gaussian", "difference", "laplacian", "gradient", "structure", "hessian"]
FAMILIES: tuple[Family, ...] = get_args(Family)

FLAT_BELOW_VOX = 0.7
"""A sigma below this along z is flat."""
DEFAULT_SIGMAS_VOX = (0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
"""Of the finest axis."""


class FeatureSet(Protocol):
    """Features of voxels."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features, in their order."""

    @property
    def groups(self) -> dict[str, list[int]]:
        """Numbers of the features that are alike, by what they have in common: the family, or the scale."""

    @property
    def reach_vox(self) -> Vec:
        """Voxels (z, y, x) per side that a feature looks at."""

    def peak_bytes(self, shape: Vec) -> int:
        """Return the memory that the features of a box of this shape take, working space included."""

    def compute(self, raw_ZYX: F32, threads: Threads | None = None) -> F32:
        """Return float32 [F, Z, Y, X] of raw without its outer `reach_vox`.

        Raises:
            ValueError: the raw is not larger than twice the reach.
        """


@dataclass(frozen=True)
class Scale:
    """One sigma.

    Attributes:
        sigma_nm: of the Gaussian, along every axis.
        voxel_size_nm: (z, y, x).
        flat: within sections only.
    """

    sigma_nm: float
    voxel_size_nm: Vec3
    flat: bool

    @property
    def sigma_vox(self) -> tuple[float, float, float]:
        """(z, y, x), 0 along z where flat."""
        z, y, x = (self.sigma_nm / size for size in self.voxel_size_nm)
        return (0.0 if self.flat else z, y, x)

    @property
    def outer_vox(self) -> tuple[float, float, float]:
        """Sigma of the outer smoothing of the structure tensor."""
        z, y, x = (0.5 * sigma for sigma in self.sigma_vox)
        return (z, y, x)

    @property
    def radius(self) -> Vec:
        """Voxels per side that smoothing reaches."""
        return _radius(self.sigma_vox)

    @property
    def factors(self) -> NDArray[np.float64]:
        """What derivatives per voxel are multiplied by."""
        return np.array(self.sigma_vox)

    @property
    def step(self) -> Vec:
        """Voxels per side that a derivative looks at."""
        return (0 if self.flat else 1, 1, 1)

    @property
    def count(self) -> int:
        """Eigenvalues of a tensor."""
        return 2 if self.flat else 3

    def margin(self, families: Sequence[Family]) -> Vec:
        """Return the voxels per side that features look at in the smoothed image."""
        if "structure" in families:
            return _sum(self.step, _radius(self.outer_vox))
        return self.step if {"laplacian", "gradient", "hessian"} & set(families) else (0, 0, 0)


@dataclass(frozen=True)
class MultiScale:
    """Features at several scales.

    Attributes:
        sigmas_nm: ascending.
        voxel_size_nm: (z, y, x).
        dimensions: 2, within sections; or 3, where a sigma is not flat.
        wanted: which families.

    Raises:
        ValueError: there is nothing to compute, sigmas do not ascend, or one is below half a voxel in plane, which
            no voxel could show.
    """

    sigmas_nm: tuple[float, ...]
    voxel_size_nm: Vec3
    dimensions: Literal[2, 3] = 3
    wanted: tuple[Family, ...] = FAMILIES

    def __post_init__(self) -> None:
        if list(self.sigmas_nm) != sorted(set(self.sigmas_nm)) or not self.wanted:
            raise ValueError(f"sigmas {self.sigmas_nm} nm: give each once, ascending, and at least one family")
        if not self.sigmas_nm and set(self.wanted) != {"intensity"}:
            raise ValueError(f"{', '.join(self.wanted)} need a sigma: give one in nm, or ask for intensity only")
        finest = min(self.sigmas_nm, default=np.inf)
        if finest < 0.5 * min(self.voxel_size_nm[1:]):
            raise ValueError(
                f"sigma {finest:g} nm is below half a voxel of {self.voxel_size_nm} nm (z, y, x): leave it out"
            )

    @classmethod
    def default_sigmas_nm(cls, voxel_size_nm: Vec3) -> tuple[float, ...]:
        """Return 0.7 to 10 voxels of the finest axis, in nm."""
        return tuple(round(sigma * min(voxel_size_nm), 6) for sigma in DEFAULT_SIGMAS_VOX)

    @cached_property
    def scales(self) -> tuple[Scale, ...]:
        """One per sigma."""
        depth = self.voxel_size_nm[0]
        return tuple(
            Scale(sigma, self.voxel_size_nm, self.dimensions == 2 or sigma < FLAT_BELOW_VOX * depth - 1e-9)
            for sigma in self.sigmas_nm
        )

    @cached_property
    def _listed(self) -> tuple[tuple[str, Family, str], ...]:
        """Name, family and scale of every feature."""
        found: list[tuple[str, Family, str]] = []
        if "intensity" in self.wanted:
            found.append(("intensity", "intensity", ""))
        for number, scale in enumerate(self.scales):
            at = f"{scale.sigma_nm:g} nm" + (" 2d" if scale.flat and self.dimensions == 3 else "")
            for family in FAMILIES[1:]:
                if family not in self.wanted or (family == "difference" and number + 1 == len(self.scales)):
                    continue
                many = range(1, scale.count + 1) if family in ("structure", "hessian") else ("",)
                found += [(f"{family} {at} {which}".rstrip(), family, at) for which in many]
        return tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features: family, sigma, and of eigenvalues the rank."""
        return tuple(name for name, _, _ in self._listed)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Numbers of the features of every family, then of every scale."""
        return _numbered([family for _, family, _ in self._listed]) | _numbered([at for *_, at in self._listed])

    @cached_property
    def reach_vox(self) -> Vec:
        """Voxels (z, y, x) per side that a feature looks at."""
        reaches = [_sum(scale.radius, scale.margin(self.wanted)) for scale in self.scales] or [(0, 0, 0)]
        z, y, x = (max(reach[axis] for reach in reaches) for axis in range(3))
        return (z, y, x)

    def peak_bytes(self, shape: Vec) -> int:
        """Return the memory that the features of a box of this shape take, working space included."""
        z, y, x = (n + 2 * r for n, r in zip(shape, self.reach_vox, strict=True))
        # The raw, two steps of its smoothing, the smoothed image, two steps of a product, six products.
        return 4 * (len(self.names) * shape[0] * shape[1] * shape[2] + (1 + 3 + 2 + 6) * z * y * x)

    def compute(self, raw_ZYX: F32, threads: Threads | None = None) -> F32:
        """Return float32 [F, Z, Y, X]; see `FeatureSet`."""
        shape = inside(raw_ZYX, self.reach_vox)
        out = np.empty((len(self.names), *shape), np.float32)
        rows = iter(out)
        if "intensity" in self.wanted:
            next(rows)[...] = inner(raw_ZYX, self.reach_vox)
        lacking: F32 | None = None  # the difference to the next sigma, of which only the first part is there
        before = np.empty((0, 0, 0), np.float32)
        for scale in self.scales:
            margin = scale.margin(self.wanted)
            spare = [a - b - c for a, b, c in zip(self.reach_vox, scale.radius, margin, strict=True)]
            source = inner(raw_ZYX, (spare[0], spare[1], spare[2]))
            smoothed = smooth(source, scale.sigma_vox, threads or Threads())
            if lacking is not None:
                lacking[...] = before - inner(smoothed, margin)
                lacking = None
            if "gaussian" in self.wanted:
                next(rows)[...] = inner(smoothed, margin)
            if "difference" in self.wanted and scale is not self.scales[-1]:
                lacking, before = next(rows), inner(smoothed, margin)
            count = sum(family in self.wanted for family in ("laplacian", "gradient"))
            count += scale.count * sum(family in self.wanted for family in ("structure", "hessian"))
            self._derive(scale, smoothed, [next(rows) for _ in range(count)], threads or Threads())
        return out

    def _derive(self, scale: Scale, smoothed: F32, rows: list[F32], threads: Threads) -> None:
        """Fill in what is made of derivatives, in the order of `FAMILIES`."""
        if not rows:
            return
        margin = scale.margin(self.wanted)
        spare = [m - s for m, s in zip(margin, scale.step, strict=True)]
        near = inner(smoothed, (spare[0], spare[1], spare[2]))
        given = iter(rows)
        nothing = np.empty((0, 0, 0), np.float32)
        laplacian = next(given) if "laplacian" in self.wanted else nothing
        if "gradient" in self.wanted:
            gradient(near, scale.factors, next(given), threads)
        if "structure" in self.wanted:
            tensor = structure_tensor(smoothed, scale.factors, scale.outer_vox, threads)
            found = np.empty((scale.count, *tensor.shape[1:]), np.float32)
            eigenvalues(tensor, found, threads)
            for each in found:
                next(given)[...] = each
        hessian = (
            np.empty((scale.count, *rows[0].shape), np.float32) if "hessian" in self.wanted else nothing[None]
        )
        if laplacian.size or hessian.size:
            second_derivatives(near, scale.factors, laplacian, hessian, threads)
        for each in hessian if hessian.size else ():
            next(given)[...] = each


@dataclass(frozen=True)
class Original8:
    """Eight features of a section that a published baseline meant to use.

    Intensity; Sobel along y and x and their length; the Laplacian of nearest neighbours; Prewitt likewise. They
    are of the image, section by section. (The original filtered a column of all pixels, in which derivatives along
    the second axis are 0 and those along the first run in raster order.)
    """

    names: tuple[str, ...] = (
        "intensity",
        "sobel y",
        "sobel x",
        "sobel",
        "laplace",
        "prewitt y",
        "prewitt x",
        "prewitt",
    )
    reach_vox: Vec = (0, 1, 1)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Numbers of the features of every filter."""
        return _numbered([name.partition(" ")[0] for name in self.names])

    def peak_bytes(self, shape: Vec) -> int:
        """Return the memory that the features of a box of this shape take, working space included."""
        return 4 * (len(self.names) + 2) * shape[0] * (shape[1] + 2) * (shape[2] + 2)

    def compute(self, raw_ZYX: F32, threads: Threads | None = None) -> F32:
        """Return float32 [8, Z, Y, X]; see `FeatureSet`."""
        out = np.empty((len(self.names), *inside(raw_ZYX, self.reach_vox)), np.float32)
        for z, section in enumerate(raw_ZYX):
            found = [section]
            for derive in (ndimage.sobel, ndimage.prewitt):
                along_y, along_x = derive(section, axis=0), derive(section, axis=1)
                found += [along_y, along_x, np.hypot(along_y, along_x)]
                if derive is ndimage.sobel:
                    found.append(ndimage.laplace(section))
            out[:, z] = np.stack(found)[:, 1:-1, 1:-1]
        return out


def inside(raw_ZYX: F32, reach_vox: Vec) -> Vec:
    """Return the shape that features answer for; raises `ValueError` where there is nothing."""
    z, y, x = (n - 2 * r for n, r in zip(raw_ZYX.shape, reach_vox, strict=True))
    if min(z, y, x) < 1:
        raise ValueError(f"raw of {raw_ZYX.shape} has nothing inside of a reach of {reach_vox} voxels (z, y, x)")
    return (z, y, x)


def _numbered(names: Sequence[str]) -> dict[str, list[int]]:
    """Return where every name but the empty one occurs."""
    return {name: [n for n, each in enumerate(names) if each == name] for name in dict.fromkeys(names) if name}


def _radius(sigma_vox: Sequence[float]) -> Vec:
    z, y, x = (radius_of(sigma) for sigma in sigma_vox)
    return (z, y, x)


def _sum(one: Vec, other: Vec) -> Vec:
    z, y, x = (a + b for a, b in zip(one, other, strict=True))
    return (z, y, x)
