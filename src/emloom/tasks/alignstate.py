"""Where the sections of a stack are while they are aligned: files that the blocks of the next stage read.

::

    positions.npy     float64 [Z, 2]      by how much every section is moved; NaN: it is compared with none
    affines.npy       float64 [Z, 2, 3]   its affine map to the common frame, once there is one
    meshes/N/*.npz    per section of a block: its mesh after round N, and what was said of it

The first place that is not there is where they are not yet: a `State` says how far they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block
from emloom.geometry.planar import Affine, Field, PlanarMap, Shift
from emloom.io.files import write_bytes_atomic
from emloom.ops.elasticmesh import Bent, Relaxed
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output

F64 = NDArray[np.float64]
FACTS = ("residual_px", "p95_px", "stiffened", "least_area")
"""What is said of a section with its mesh."""
POSITIONS, AFFINES = "positions.npy", "affines.npy"


@dataclass(frozen=True)
class State:
    """How far the sections of a stack have come; a small value that travels to workers.

    Attributes:
        folder: of the result.
        cells: the blocks of sections.
        name: of the affine maps, such as `affines-1.npy`; None: there are positions only.
        round: of the meshes; None: there are none.
    """

    folder: Path
    cells: tuple[Block, ...]
    name: str | None = None
    round: int | None = None

    @cached_property
    def positions(self) -> F64:
        """By how much sections are moved, [Z, 2]."""
        found: F64 = np.load(self.folder / POSITIONS)
        return found

    @cached_property
    def affines(self) -> F64:
        """Affine maps, [Z, 2, 3]."""
        assert self.name is not None
        found: F64 = np.load(self.folder / self.name)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (self.folder, self.cells, self.name, self.round)

    def map(self, z: int) -> PlanarMap | None:
        """Return the map of a section to the common frame; None where it is compared with none."""
        if np.isnan(self.positions[z]).any():
            return None
        if self.round is not None:
            return self.bent([z])[z].map()
        return Shift(*self.positions[z].tolist()) if self.name is None else Affine.of(self.affines[z])

    def bent(self, sections: Sequence[int]) -> dict[int, Bent]:
        """Return sections with their meshes."""
        assert self.round is not None
        meshes = read_meshes(self.folder, self.round, self.cells, sections)
        return {z: Bent(mesh, Affine.of(self.affines[z])) for z, (mesh, _) in zip(sections, meshes, strict=True)}


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


def write_meshes(
    folder: Path, round_: int, block: Block, meshes: Mapping[int, Field], said: Mapping[int, Relaxed]
) -> Output:
    """Write the meshes of a block, and what was said of them."""
    arrays: dict[str, NDArray[Any]] = {}
    for z, mesh in meshes.items():
        one = said.get(z)
        facts = (np.nan, np.nan, 1.0, 1.0) if one is None else tuple(getattr(one, name) for name in FACTS)
        arrays[f"{z}/mesh"] = mesh.displacement
        arrays[f"{z}/facts"] = np.array([*mesh.spacing, *mesh.origin, *facts])
    place = mesh_place(round_, block)
    save_arrays(folder / place, arrays)
    return Output.file(folder, place)


def mesh_place(round_: int, block: Block) -> str:
    """Return the file of the meshes of a block after a round."""
    return f"meshes/{round_:03d}/{name_of(block.index)}.npz"


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, whole or not at all."""
    stream = BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    write_bytes_atomic(path, stream.getvalue())


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array, whole or not at all."""
    stream = BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes_atomic(path, stream.getvalue())
