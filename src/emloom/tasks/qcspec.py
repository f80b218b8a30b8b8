"""What `emloom qc` is asked to do, and what it calls the defects it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from emloom.geometry.grid import Vec3
from emloom.spec import Spec

Defect = Literal[
    "outside",
    "blank",
    "crack",
    "fold",
    "blurred",
    "unlike",
    "duplicate",
    "saturated",
    "low_contrast",
    "dark",
    "bright",
    "shifted",
    "jump",
    "stripes",
    "seam",
    "artifact",
]


@dataclass(frozen=True)
class Meaning:
    """A kind of defect.

    Attributes:
        code: its value in maps and masks; where several are found, the lowest is written.
        text: what was seen, for a person.
    """

    code: int
    text: str


DEFECTS: dict[Defect, Meaning] = {
    "outside": Meaning(1, "outside of the mask that was given"),
    "blank": Meaning(2, "nothing was recorded, or it was cut away: windows of one value"),
    "crack": Meaning(3, "a long, narrow gap without tissue"),
    "fold": Meaning(4, "a long, dark band that neither neighbour has"),
    "blurred": Meaning(5, "fine structure is missing: out of focus"),
    "unlike": Meaning(6, "resembles neither neighbour"),
    "duplicate": Meaning(7, "the section before it again"),
    "saturated": Meaning(8, "many voxels at the ends of the grey scale"),
    "low_contrast": Meaning(9, "fainter than the sections around it"),
    "dark": Meaning(10, "darker than the sections around it"),
    "bright": Meaning(11, "brighter than the sections around it"),
    "shifted": Meaning(12, "moved sideways, and the next one back"),
    "jump": Meaning(13, "the stack does not go on here from the section before"),
    "stripes": Meaning(14, "lines that run along rows or columns"),
    "seam": Meaning(15, "a straight step of grey value, as between acquisition tiles"),
    "artifact": Meaning(16, "a learned detector says so"),
}
CODES = {name: meaning.code for name, meaning in DEFECTS.items()}
NAMES = {meaning.code: name for name, meaning in DEFECTS.items()}

UNUSABLE: tuple[Defect, ...] = (
    "outside",
    "blank",
    "crack",
    "fold",
    "blurred",
    "unlike",
    "duplicate",
    "artifact",
)
"""Defects behind which there is no tissue to be seen, and which therefore go into the mask."""


class RulesSpec(Spec):
    """When a section stands out; `docs/qc.md` gives every rule and its reason."""

    reach: Annotated[int, Field(ge=2, le=200)] = 10
    """Sections on either side that a section is compared with."""
    spreads: Annotated[float, Field(gt=0)] = 5.0
    """A value stands out where it differs by more than this many usual spreads, and by the effect below."""
    tone: Annotated[float, Field(gt=0)] = 0.75
    """Least effect of dark and bright: parts of the standard deviation of tissue."""
    loss: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Least effect of blurred and low contrast: at most this part of what is usual is left."""
    alike: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Least effect of unlike and jumps: the correlation is below this part of what is usual."""
    shift_nm: Annotated[float, Field(gt=0)] = 64.0
    """Least effect of shifts and jumps sideways."""
    extremes: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Least effect of saturated: part of the voxels, more than usual."""
    blank: Annotated[float, Field(gt=0, le=1)] = 0.9
    """A section is blank where at least this part of it is void; a tile, where half of it is."""
    band_nm: Annotated[float, Field(gt=0)] = 1000.0
    """Least length of cracks and folds."""


class ArtifactsSpec(Spec):
    """What a learned detector found."""

    path: str
    """Probabilities on any lattice in the world of the raw: floats of 0 to 1, or uint8 of 0 to 255."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class QcSpec(Spec):
    """Find bad sections and bad regions of a stack (`emloom qc`)."""

    raw: str
    output: str
    """Folder to be made."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the raw does not state it."""
    tile_vox: Annotated[int, Field(ge=16, le=1024, multiple_of=16)] = 64
    """Voxels along the side of a tile of the map."""
    rules: RulesSpec = RulesSpec()
    masked: tuple[Defect, ...] = UNUSABLE
    """Defects that go into the mask."""
    mask: str | None = None
    """Non-zero where there is tissue, on the grid of the raw; elsewhere the mask says `outside`."""
    artifacts: ArtifactsSpec | None = None
    """What a learned detector found, to be put into the same map and mask."""
