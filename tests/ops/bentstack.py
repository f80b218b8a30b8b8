"""Stacks that were bent by known maps, and the way through flow, affine maps and meshes that straightens them.

``python -m tests.ops.bentstack DATA FOLDER`` draws what that does to a real stack, before and after.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry.planar import IDENTITY, Affine, Field, PlanarMap, chain
from emloom.ops.elasticmesh import Bent, Relaxed, flat_mesh, relax
from emloom.ops.flowtexture import Texture, texture
from emloom.ops.meshsprings import Elasticity
from emloom.ops.meshstart import link_field, stack_meshes
from emloom.ops.patchflow import Patches, patch_flow
from emloom.ops.patchlinks import Link
from emloom.ops.sectionaffines import AffineStack, SectionAffines, section_affines

F64 = NDArray[np.float64]
FILES = {
    "isbi2012_cardona": "train_z00-19.h5",
    "vnc_sstem": "stack1_z00-14.h5",
    "snemi3d": "crop512_z00-29.h5",
}


def real_stack(folder: Path, name: str, sections: int, side: int = 512) -> NDArray[np.uint8]:
    with h5py.File(folder / name / FILES[name]) as file:
        out: NDArray[np.uint8] = file["volumes/raw"][:sections, :side, :side]
    return out


def planted_affine(rng: np.random.Generator, side: int, degrees: float = 3, scale: float = 0.02) -> Affine:
    """A turn, a scale, a shear and a shift, drawn evenly, about the middle of a section."""
    angle, shear = np.radians(rng.uniform(-degrees, degrees)), rng.uniform(-scale, scale)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[1 + rng.uniform(-scale, scale), shear], [0, 1 + rng.uniform(-scale, scale)]])
    middle = np.full(2, side / 2)
    return Affine.of(np.column_stack([linear, middle - linear @ middle + rng.uniform(-6, 6, 2)]))


def planted_field(rng: np.random.Generator, side: int, most: float = 15.0, wave: float = 340.0) -> Field:
    """Smooth displacements of up to `most` pixels, from a cubic spline through random nodes `wave` apart."""
    coarse = rng.normal(size=(2, *[int(np.ceil(side / wave)) + 3] * 2))
    at = np.arange(0, side + 8, 8) / wave + 1
    grid = np.stack(np.meshgrid(at, at, indexing="ij"))
    u = np.stack([ndimage.map_coordinates(c, grid, order=3) for c in coarse])
    return Field((u * most / np.hypot(*u).max()).astype(np.float32), (8.0, 8.0))


def seen_through(image: NDArray[Any], to_source: PlanarMap) -> NDArray[np.uint8]:
    """What is at `to_source` of every place; 0 outside."""
    y, x = image.shape
    at = np.stack(np.meshgrid(np.arange(y), np.arange(x), indexing="ij"), -1).reshape(-1, 2) + 0.5
    p = to_source(at)
    grey = ndimage.map_coordinates(image.astype(np.float32), (p - 0.5).T, order=1, cval=0.0)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8).reshape(y, x)


@dataclass
class Straightened:
    """What the way through left of a stack."""

    affines: SectionAffines
    bent: dict[int, Bent]
    links: list[Link]
    reports: dict[int, Relaxed] = field(default_factory=dict)

    def maps(self) -> list[PlanarMap]:
        return [self.bent[z].map() for z in sorted(self.bent)]


def flows(
    textures: Sequence[Texture], maps: Sequence[PlanarMap], patches: Patches, lags: Sequence[int]
) -> list[Link]:
    out = []
    for i in range(len(textures)):
        for j in (i + lag for lag in lags if i + lag < len(textures)):
            start = chain(maps[i], maps[j].inverse())
            out.append(Link.of(i, j, patch_flow(textures[i], textures[j], start, patches)))
    return out


def rounds(
    bent: dict[int, Bent], links: Sequence[Link], reference: int, count: int, elasticity: Elasticity
) -> tuple[dict[int, Bent], dict[int, Relaxed]]:
    reports: dict[int, Relaxed] = {}
    for _ in range(count):
        reports = {z: relax(z, bent, links, elasticity) for z in bent if z != reference}
        bent = {z: Bent(reports[z].mesh, b.affine) if z in reports else b for z, b in bent.items()}
    return bent, reports


def agreed(
    bent: dict[int, Bent], links: Sequence[Link], reference: int, elasticity: Elasticity
) -> dict[int, Bent]:
    fields = [one for link in links if (one := link_field(link, bent, elasticity)) is not None]
    meshes = stack_meshes([bent[z] for z in sorted(bent)], fields, reference, elasticity)
    return {z: Bent(mesh, bent[z].affine) for z, mesh in enumerate(meshes)}


SCHEDULE = (  # images made smaller by, patches of them, rounds of meshes then; none: affine maps
    (2, Patches(size=96, step=32, search=24), 0),
    (1, Patches(size=128, step=48, search=20), 0),
    (2, Patches(size=64, step=24, search=16), 8),
    (1, Patches(size=128, step=48, search=12), 12),
    (1, Patches(size=128, step=48, search=8), 12),
)


def straightened(
    stack: NDArray[Any],
    lags: Sequence[int] = (1, 2),
    schedule: Sequence[tuple[int, Patches, int]] = SCHEDULE,
    elasticity: Elasticity | None = None,
) -> Straightened:
    """Small images, affine maps; then meshes; then whole images from there."""
    sections, how = len(stack), elasticity or Elasticity()
    reference, solve = sections // 2, AffineStack(reference=sections // 2)
    images = {
        1: [texture(s) for s in stack],
        2: [texture(ndimage.uniform_filter(s, 2)[1::2, 1::2], factor=2) for s in stack],
    }
    bent = {z: Bent(flat_mesh(stack.shape[1:], 48.0), Affine.of(np.eye(3))) for z in range(sections)}
    reports: dict[int, Relaxed] = {}
    for factor, patches, count in schedule:
        links = flows(images[factor], [bent[z].map() for z in range(sections)], patches, lags)
        if not count:
            affines = section_affines(sections, links, how=solve)
            bent = {z: Bent(b.mesh, affines.maps[z]) for z, b in bent.items()}
            continue
        if not reports:
            bent = agreed(bent, links, reference, how)
        bent, reports = rounds(bent, links, reference, count, how)
    return Straightened(affines, bent, links, reports)


def places(side: int, margin: int = 40, step: int = 24) -> F64:
    at = np.arange(margin, side - margin, step, dtype=float)
    return np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)


def apart(
    bent: Sequence[PlanarMap], clean: Sequence[PlanarMap], planted: Sequence[PlanarMap], side: int
) -> tuple[F64, F64]:
    """How far the maps of a bent stack, after what was planted, are from those of the clean one.

    Returns:
        distances [Z, N] in pixels in the common frame, and the same of sections relative to the next; NaN where a
        place was not in the bent section.
    """
    p, out = places(side), []
    for a, b, m in zip(bent, clean, planted, strict=True):
        q = m(p)
        seen = ((q > 20) & (q < side - 20)).all(1)
        out.append(np.where(seen[:, None], a(p) - b(q), np.nan))
    e = np.stack(out)
    return np.hypot(*np.moveaxis(e, -1, 0)), np.hypot(*np.moveaxis(np.diff(e, axis=0), -1, 0))


def planted_stack(
    stack: NDArray[np.uint8], most: float, affine: bool, bad: Sequence[int], seed: int = 3
) -> tuple[NDArray[np.uint8], list[PlanarMap]]:
    """A stack of which all sections but the middle one are bent, and some black; and the maps to the clean one."""
    rng, sections, side = np.random.default_rng(seed), len(stack), stack.shape[1]
    maps: list[PlanarMap] = []
    for z in range(sections):
        field, turn = planted_field(rng, side, most), planted_affine(rng, side)
        maps.append(
            IDENTITY if z == sections // 2 else chain(*([field] if most else []), *([turn] if affine else []))
        )
    out = np.stack([seen_through(s, m) for s, m in zip(stack, maps, strict=True)])
    out[list(bad)] = 0
    return out, maps


def draw(stack: NDArray[np.uint8], maps: Sequence[PlanarMap], file: Path) -> None:
    """Cuts along z and two neighbours in red and green, before and after."""
    from matplotlib import pyplot as plt

    after = np.stack([seen_through(s, m.inverse()) for s, m in zip(stack, maps, strict=True)])
    figure, axes = plt.subplots(2, 2, figsize=(16, 12), height_ratios=(1, 2.5))
    z, side = len(stack) // 2, stack.shape[1]
    for column, (name, shown) in enumerate((("before", stack), ("after", after))):
        axes[0, column].imshow(np.repeat(shown[:, side // 2], 8, axis=0), cmap="gray")
        axes[1, column].imshow(np.stack([shown[z], shown[z + 1], shown[z]], -1))
        axes[0, column].set_title(f"{name}: cut along z; below, sections {z} (magenta) and {z + 1} (green)")
    figure.tight_layout()
    figure.savefig(file, dpi=70)


if __name__ == "__main__":
    whole, _ = planted_stack(real_stack(Path(sys.argv[1]), "snemi3d", 11), 10.0, True, [2])
    draw(whole, straightened(whole).maps(), Path(sys.argv[2]) / "straightened.png")
