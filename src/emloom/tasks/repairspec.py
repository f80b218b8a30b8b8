"""What `emloom repair` is asked to do, and what it calls what it invents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.spec import Spec
from emloom.tasks.qcspec import Defect

MEASURED, REPLACED, BETWEEN, GAP, LEFT, BEYOND = range(6)
INVENTED: dict[int, str] = {
    MEASURED: "measured",
    REPLACED: "replaced by a neighbour",
    BETWEEN: "interpolated between two sections",
    GAP: "filled gap of a crack, with its feathered border",
    LEFT: "bad, but left as it is",
    BEYOND: "where the section does not reach: mirrored, or empty",
}
"""What the values of `invented.zarr` mean."""

BAD: tuple[Defect, ...] = ("blank", "unlike", "duplicate", "blurred", "low_contrast")
"""Defects of a whole section behind which its neighbours show more than it does itself."""

Sections = tuple[Annotated[int, Field(ge=0)], ...]
Filling = Literal["flow", "nearest", "mask"]


class BadSpec(Spec):
    """Which sections are bad, beside what is found."""

    bad: Sections = ()
    """Sections to be replaced, whatever they look like."""
    good: Sections = ()
    """Sections to be kept, whatever was found."""
    cracked: Sections = ()
    """Sections whose parts are to be put together, beside those in which cracks were found."""
    defects: tuple[Defect, ...] = BAD
    """Defects of `emloom qc` for which a whole section is replaced."""
    look: bool = True
    """Whether to look for bad sections and cracks; otherwise only those named here are repaired."""


class RepairJob(Spec):
    """Replace bad sections, put torn ones together, record what is invented (`emloom repair`)."""

    raw: str
    """A stack, or the folder of `emloom align`: then its raw, and its map goes first."""
    output: str
    """Folder to be made."""
    qc: str | None = None
    """Folder of `emloom qc` of that raw; default: it is made, in the output."""
    sections: BadSpec = BadSpec()
    fill: Filling = "flow"
    """Bad sections become: interpolated along the flow between their neighbours, the nearest of these, or nothing:
    they are left and marked."""
    longest_run: Annotated[int, Field(ge=1)] = 3
    """Bad sections in a row that are still filled; longer runs are left and marked."""
    feather_nm: Annotated[float, Field(ge=0)] = 40.0
    """Width of the border over which the fill of a gap fades into the section."""
    labels: str | None = None
    """Labels on the grid of the raw that are carried through the same repair, ids kept."""
    cell_shape_vox: Vec = (64, 512, 512)
    """Voxels of a block that is written at once."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the raw does not state it."""
