"""Sparse labels as a file, `labels.yaml`: which pieces are painted, where they lie, and what they leave out.

::

    classes: {cytoplasm: 1, membrane: 2, synapse: 5}
    pieces:
      - {kind: plane, name: xy, image: xy.png, axis: z, at: 200, start: [200, 510]}
      - {kind: points, name: clicks, table: clicks.csv, units: nm, lacks: [synapse]}

Paths are relative to the file. What no piece paints is unknown, never background.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.nn.objectives.semantic import LabelId
from emloom.spec import Spec

Length = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]


class Piece(Spec):
    """What every piece says; its kind says where it lies."""

    file_field: ClassVar[str] = ""

    name: Name
    """Of the piece, to hold it out and in messages."""
    group: Name | None = None
    """Pieces that are held out together, such as three planes through one cube."""
    undefined: tuple[LabelId, ...] = (0,)
    """Values that mean that nobody knows."""
    lacks: tuple[Name, ...] | dict[Name, tuple[Name, ...]] = ()
    """Classes that nobody looked for here: they may hide in what is painted as any other class; or, as a mapping,
    each in the classes that are listed for it."""

    @property
    def hidden(self) -> dict[str, tuple[str, ...] | None]:
        """Class that nobody looked for -> the classes it may hide in, None for any other."""
        return dict(self.lacks) if isinstance(self.lacks, dict) else dict.fromkeys(self.lacks)

    @property
    def file(self) -> str:
        """The file it is painted in."""
        return str(getattr(self, self.file_field))


class PlanePiece(Piece):
    """A painted image of a plane of voxels."""

    file_field: ClassVar[str] = "image"

    kind: Literal["plane"]
    image: str
    """PNG, TIFF or NPY. Its rows and columns are the other two axes in the order z, y, x."""
    axis: Literal["z", "y", "x"] = "z"
    """The axis that is the same all over the plane."""
    at: int = Field(ge=0)
    """Voxel of the raw along `axis`."""
    start: tuple[int, int] = (0, 0)
    """Voxel of the raw, along the other two axes, of the image's first pixel."""
    transpose: bool = False
    """Swap rows and columns of the image first."""


class ObliquePiece(Piece):
    """A painted image of a plane at any angle: every pixel paints the voxel nearest to it."""

    file_field: ClassVar[str] = "image"

    kind: Literal["oblique"]
    image: str
    """PNG, TIFF or NPY."""
    origin_nm: Vec3
    """World position (z, y, x) of the centre of the first pixel."""
    row_nm: Vec3
    """World vector (z, y, x) from a pixel to the one in the next row."""
    column_nm: Vec3
    """World vector (z, y, x) from a pixel to the one in the next column."""


class PointsPiece(Piece):
    """Single voxels."""

    file_field: ClassVar[str] = "table"

    kind: Literal["points"]
    table: str
    """CSV or Parquet with the columns z, y, x and class, which is a name or a value."""
    units: Literal["nm", "voxels"]
    """Of the columns z, y, x: world positions in nm, or voxels of the raw."""


class ScribblesPiece(Piece):
    """Lines drawn freely, with a radius."""

    file_field: ClassVar[str] = "lines"

    kind: Literal["scribbles"]
    lines: str
    """CSV or Parquet as of points, with a column line, in the order they were drawn; or NML, .nmx, .zip of trees
    that are named after their class."""
    units: Literal["nm", "voxels"] = "nm"
    """Of the columns z, y, x; NML knows its own."""
    radius_nm: Length = 0.0
    """Voxels whose centre is at most so far from a line are painted, and those it passes through."""


class BlockPiece(Piece):
    """A volume of labels."""

    file_field: ClassVar[str] = "labels"

    kind: Literal["block"]
    labels: str
    """Path of the volume; it has the voxel size of the raw."""
    start: Vec | None = None
    """Voxel of the raw at which it starts; default: its own offset in nm says."""


PieceSpec = Annotated[
    PlanePiece | ObliquePiece | PointsPiece | ScribblesPiece | BlockPiece, Field(discriminator="kind")
]


class SparseLabels(Spec):
    """Painted pieces of one raw volume."""

    classes: dict[Name, LabelId | tuple[LabelId, ...]] | None = None
    """Name -> the value, or values, that stand for it; default: the classes of the job, with their ids."""
    pieces: tuple[PieceSpec, ...] = Field(min_length=1)
    """What is painted."""
    overlaps: Literal["error", "unknown"] = "error"
    """Where pieces contradict each other: refuse them, or take these voxels as unknown."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x) that was painted at; it must be the raw's."""

    def files(self, folder: Path) -> list[str]:
        """Return the path of every file; relative ones are relative to `folder`."""
        return list(dict.fromkeys(resolved(piece.file, folder) for piece in self.pieces))


def resolved(path: str, folder: Path) -> str:
    """Return a path that is relative to a folder; addresses and absolute paths stay as they are."""
    return path if "://" in path or Path(path).is_absolute() else str(folder / path)


def is_sparse(labels: object) -> bool:
    """Whether labels are sparse: pieces, or the path of a YAML file of them; not the path of a volume."""
    return isinstance(labels, SparseLabels | dict) or (
        isinstance(labels, str) and Path(labels).suffix.lower() in (".yaml", ".yml")
    )


def sparse_labels(labels: str | SparseLabels) -> tuple[SparseLabels, Path, str]:
    """Return pieces, the folder their paths are relative to, and what they are called in messages.

    Raises:
        InputError: a file of pieces is unreadable or invalid.
    """
    if isinstance(labels, SparseLabels):
        return labels, Path(), "labels"
    return SparseLabels.load(labels), Path(labels).parent, labels


def with_sparse_sampling(job: Any) -> Any:
    """Return the data of a job whose sampling is that of sparse labels where it leaves that open.

    Crops are balanced by class and centred on labelled voxels, and few of their voxels need to be known. What a
    job says itself stays; so does whatever is no job, for its validation to refuse.
    """
    stacks = _get(job, "data") if isinstance(job, dict) else None
    if not isinstance(stacks, list | tuple) or not any(is_sparse(_get(stack, "labels")) for stack in stacks):
        return job
    training = _plain(job.get("training"))
    if not isinstance(training, dict):
        return job
    sampling = _plain(training.get("sampling", {}))
    if not isinstance(sampling, dict):
        return job
    chosen = {"kind": "balanced", "min_known": 0.0, **sampling}
    if chosen["kind"] in ("balanced", "foreground"):
        chosen.setdefault("place", "centre")
    return {**job, "training": {**training, "sampling": chosen}}


def _plain(spec: Any) -> Any:
    """Return what a spec was given, with its kind; anything else as it is."""
    if not isinstance(spec, Spec):
        return spec
    said = {name: getattr(spec, name) for name in spec.model_fields_set}
    return said | ({"kind": spec.kind} if hasattr(spec, "kind") else {})


def _get(given: Any, name: str) -> Any:
    return given.get(name) if isinstance(given, dict) else getattr(given, name, None)
