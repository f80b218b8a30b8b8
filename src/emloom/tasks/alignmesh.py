"""Elastic meshes of all sections, relaxed in rounds: stages whose blocks read what the round before wrote.

::

    mesh-000   meshes/000/z_y_x.npz   flat
    mesh-001   meshes/000, flows   -> meshes/001/z_y_x.npz   per section of a block: its mesh, what is left
    ...

A block needs the meshes of its own sections and of those that links reach, and the links that touch it: those of
its own block of flows and of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block
from emloom.geometry.planar import Affine, Field
from emloom.io.files import write_bytes_atomic
from emloom.ops.elasticmesh import Bent, Elasticity, Relaxed, flat_mesh, relax
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.alignflows import read_flows

AFFINES = "affines.npy"
"""float64 [Z, 2, 3]: affine map of every section to the common frame."""
FACTS = ("residual_px", "p95_px", "stiffened", "least_area")


@dataclass(frozen=True)
class RelaxBlock:
    """Relaxes the sections of one block; a small value that travels to workers.

    Attributes:
        folder: of the result.
        round: number of the round, 1 and up; the meshes before the first are flat.
        shape: pixels (y, x) of a section.
        spacing: pixels between nodes.
        elasticity: what meshes are made of.
        cells: all blocks of the flows.
    """

    folder: Path
    round: int
    shape: tuple[int, int]
    spacing: float
    elasticity: Elasticity
    cells: tuple[Block, ...]

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the meshes of a block."""
        k = block.index[0]
        links = list(read_flows(self.folder, self.cells[max(0, k - 1) : k + 1])())
        start, stop = block.write.start[0], block.write.stop[0]
        mine = [link for link in links if start <= link.first < stop or start <= link.second < stop]
        near = sorted({z for link in mine for z in (link.first, link.second)} | set(range(start, stop)))
        affines = np.load(self.folder / AFFINES)
        stack = {z: Bent(mesh, Affine.of(affines[z])) for z, mesh in zip(near, self._before(near), strict=True)}
        found = {z: relax(z, stack, mine, self.elasticity) for z in range(start, stop)}
        place = mesh_place(self.round, block)
        stream = BytesIO()
        np.savez(stream, **_plain(found))  # type: ignore[arg-type]
        write_bytes_atomic(self.folder / place, stream.getvalue())
        return [Output.file(self.folder, place)]

    def _before(self, sections: Sequence[int]) -> list[Field]:
        if self.round == 1:
            return [flat_mesh(self.shape, self.spacing)] * len(sections)
        return [mesh for mesh, _ in read_meshes(self.folder, self.round - 1, self.cells, sections)]


def read_meshes(
    folder: Path, round_: int, cells: Sequence[Block], sections: Sequence[int]
) -> list[tuple[Field, dict[str, float]]]:
    """Return the meshes of sections after a round, and what was said of them (`FACTS`)."""
    out: dict[int, tuple[Field, dict[str, float]]] = {}
    wanted = set(sections)
    for block in cells:
        here = wanted.intersection(range(block.write.start[0], block.write.stop[0]))
        if here:
            with np.load(folder / mesh_place(round_, block), allow_pickle=False) as found:
                for z in here:
                    sy, sx, oy, ox, *facts = found[f"{z}/facts"].tolist()
                    mesh = Field(found[f"{z}/mesh"], (sy, sx), (oy, ox))
                    out[z] = mesh, dict(zip(FACTS, facts, strict=True))
    return [out[z] for z in sections]


def mesh_place(round_: int, block: Block) -> str:
    """Return the file of the meshes of a block after a round."""
    return f"meshes/{round_:03d}/{name_of(block.index)}.npz"


def _plain(found: dict[int, Relaxed]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for z, one in found.items():
        facts = (one.residual_px, one.p95_px, one.stiffened, one.least_area)
        arrays[f"{z}/mesh"] = one.mesh.displacement
        arrays[f"{z}/facts"] = np.array([*one.mesh.spacing, *one.mesh.origin, *facts])
    return arrays
