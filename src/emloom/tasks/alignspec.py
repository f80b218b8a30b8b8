"""What `emloom align` is asked to do: how sections may move, which are compared, and what the result covers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.geometry.grid import Vec3
from emloom.spec import Spec

FARTHEST = 16
"""Largest lag between sections that are compared."""
Nm = Annotated[float, Field(gt=0)]
Positive = Annotated[int, Field(ge=1)]


class ShiftModel(Spec):
    """Every section moves as a whole, sideways."""

    kind: Literal["shift"] = "shift"
    subpixel: bool = False
    """Move by parts of pixels, too: sections are interpolated. Otherwise by the nearest whole ones, and nothing is
    lost: raw and labels keep every value."""


class AffineModel(Spec):
    """Every section moves, turns, stretches and shears as a whole."""

    kind: Literal["affine"] = "affine"
    patch_nm: Nm = 640.0
    """Side of the patches that are looked up in other sections."""
    step_nm: Nm = 256.0
    """Distance between their centres."""
    rigid_sections: Annotated[float, Field(gt=0)] | None = 12.0
    """What one section does is its own; stretch and shear that build up over more than so many sections are held
    back. None: not at all."""


class ElasticModel(Spec):
    """Every section bends: an affine map, and an elastic mesh on top of it."""

    kind: Literal["elastic"] = "elastic"
    affine: AffineModel = AffineModel()
    spacing_nm: Nm = 320.0
    """Distance between the nodes of a mesh."""
    stiffness: Annotated[float, Field(gt=0)] = 0.05
    """How strongly a mesh resists to bend, against what links say."""
    anchor: Annotated[float, Field(ge=0)] = 0.002
    """How strongly it is held to where the affine map puts it, which keeps the stack from drifting."""
    rounds: Annotated[int, Field(ge=1, le=200)] = 8
    """How often all meshes are relaxed against their neighbours, after each of two looks."""


class TableModel(Spec):
    """Translations that are known already, section by section, relative to the one before."""

    kind: Literal["table"] = "table"
    path: str
    """Text, one row per section: pixels by which it is moved."""
    order: Literal["dx,dy", "dy,dx"] = "dx,dy"
    """What the two columns are."""
    meaning: Literal["relative", "absolute"] = "relative"
    """Whether a row moves its section relative to the one before, or says where it goes."""
    box_of: str | None = None
    """A volume on the raw's lattice, e.g. its labels: its box stays whole in every section. Default: all of it."""
    margin_vox: Annotated[int, Field(ge=0)] = 0
    """Pixels around that box."""
    margin_sections: Annotated[int, Field(ge=0)] = 0
    """Sections before and after that box, which have rows as well."""


Model = Annotated[ShiftModel | AffineModel | ElasticModel | TableModel, Field(discriminator="kind")]


class LinksSpec(Spec):
    """Which sections are compared, and what of it is believed."""

    lags: tuple[Positive, ...] = (1, 2, 3)
    """Every section is compared with those so many further on."""
    reference: Annotated[int, Field(ge=0)] | None = None
    """The section that stays where it is; default the middle one."""
    to_reference: Annotated[int, Field(ge=0)] = 12
    """Sections up to so far from the reference are compared with it, too; 0: none."""
    drift_sections: Annotated[int, Field(ge=4)] | None = None
    """Slow movements, over more than so many sections, stay as they are in the raw: tissue that runs obliquely is
    not to be straightened. Default: sections follow what they resemble."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 1 not in self.lags or len(set(self.lags)) < len(self.lags):
            raise ValueError(f"lags {self.lags} must hold 1, and each once: sections are compared with the next")
        if max(self.lags) > FARTHEST:
            raise ValueError(f"lag {max(self.lags)} is above {FARTHEST}: tissue has changed by then")
        return self


class AlignJob(Spec):
    """Lay the sections of a stack on each other (`emloom align`)."""

    raw: str
    """The stack."""
    output: str
    """Folder to be made."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the raw does not state it."""
    model: Model = ShiftModel()
    links: LinksSpec = LinksSpec()
    qc: str | None = None
    """Folder of `emloom qc`, or a mask of what is to be avoided: nothing is concluded from what is bad there."""
    canvas: Literal["grow", "keep"] = "grow"
    """Whether the result is as large as it must be to hold all that moved, or as large as the raw."""
    outside: Annotated[int, Field(ge=0, le=65535)] | Literal["symmetric"] = "symmetric"
    """Where a section does not reach: it is mirrored, so that networks see tissue, or it has this grey value. The
    folder, given as a mask, says which voxels these are."""
    cell_shape_vox: tuple[Positive, Positive, Positive] = (16, 512, 512)
    """Voxels of a block of the result."""
