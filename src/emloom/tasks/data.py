"""Labelled stacks and how they are split: what every job on real data starts from.

A split is a set of boxes. Validation and test boxes are held out; training may use whatever of the region keeps
the gap from them. So validation and test need not be slabs: several blocks, far apart, are more representative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import add
from emloom.geometry.grid import Vec3
from emloom.io.checks import require_labels
from emloom.io.open import open_volume
from emloom.io.volume import Volume, VolumeInfo, cached
from emloom.nn.crops import TrainingVolume, check_same_grid
from emloom.nn.objectives.semantic import SemanticClass
from emloom.spec import Spec
from emloom.tasks.qcmask import open_avoid, open_usable
from emloom.tasks.sparselabels import Sparse, open_sparse
from emloom.tasks.sparsespec import Labels, SparseLabels, is_sparse, sparse_labels
from emloom.tasks.synapsesource import read_any_sites

Part = Literal["validation", "test"]
PARTS: tuple[Part, ...] = ("validation", "test")


class BoxSpec(Spec):
    """A box of voxels, half-open, z, y, x."""

    start: Vec
    shape: Vec

    @property
    def box(self) -> Box:
        """The box itself."""
        return Box(self.start, self.shape)


class MarksSpec(Spec):
    """Other volumes on the grid of a stack that say where labels are known and where crops are wanted."""

    mask: str | None = None
    """Path of a mask, non-zero where the labels are known; default: everywhere."""
    background_vox: Vec | None = None
    """How far (z, y, x) from a label 0 still means background; beyond, unknown. Default: background everywhere."""
    avoid: str | None = None
    """Folder of `emloom qc`, or a mask, non-zero where crops are not wanted; see `sampling.max_avoided`."""
    foreground: str | None = None
    """Path of integers, non-zero where `sampling` finds its foreground; default: the labels."""
    sites: str | None = None
    """File of synapses whose sites `sampling` can draw crops around: a table, a CREMI file, a tracing; see
    `emloom.tasks.synapsesource`."""

    @property
    def paths(self) -> list[str]:
        """Every file that is named."""
        return [path for path in (self.mask, self.avoid, self.foreground, self.sites) if path is not None]


class SplitSpec(Spec):
    """A raw stack and its split."""

    raw: str
    """Path of the raw volume, e.g. `stack.h5/volumes/raw`."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the files do not state it."""
    region: BoxSpec | None = None
    """Where training may look; default: everywhere but near the held-out boxes."""
    validation: tuple[BoxSpec, ...] = Field(min_length=1)
    """Boxes that choose the checkpoint and the threshold."""
    test: tuple[BoxSpec, ...] = ()
    """Boxes that are scored once."""
    gap_nm: float = Field(default=0.0, ge=0)
    """Distance that training keeps from every held-out box."""

    @property
    def paths(self) -> list[str]:
        """Every file the stack refers to."""
        return [self.raw]

    def boxes(self, part: Part) -> tuple[Box, ...]:
        """Return the boxes of a part."""
        return tuple(spec.box for spec in (self.validation if part == "validation" else self.test))

    def room(self, whole: Box, voxel_size_nm: Vec3) -> tuple[Box, tuple[Box, ...]]:
        """Return where training may look, and the held-out boxes grown by the gap that it keeps off."""
        gap = gap_vox(self, voxel_size_nm)
        held_out = tuple(box.grow(gap) for part in PARTS for box in self.boxes(part))
        return whole if self.region is None else self.region.box, held_out


class HeldPieces(Spec):
    """Pieces of sparse labels that are held out, by their names or those of their groups."""

    validation: tuple[str, ...] = ()
    """Pieces that choose the checkpoint."""
    test: tuple[str, ...] = ()
    """Pieces that are scored once."""


class StackSpec(SplitSpec):
    """A raw stack with labels, and its split."""

    labels: Labels
    """Path of labels on the same grid (of instances: 0 is background); or, to learn classes, painted pieces of it:
    the path of a `labels.yaml`, or the same here."""
    pieces: HeldPieces = HeldPieces()
    """Painted pieces that are held out, besides boxes."""
    marks: MarksSpec = MarksSpec()
    """Where labels are known, and where crops are wanted."""
    validation: tuple[BoxSpec, ...] = ()
    """Boxes that choose the checkpoint and the threshold."""
    references: dict[str, str] = Field(default_factory=dict)
    """Other segmentations of the same grid to score alongside: name -> path."""

    @property
    def paths(self) -> list[str]:
        """Every file the stack refers to."""
        return [self.raw, *self._label_paths, *self.marks.paths, *self.references.values()]

    @property
    def _label_paths(self) -> list[str]:
        if not is_sparse(self.labels):
            return [str(self.labels)]
        spec, folder, source = sparse_labels(self.labels)
        return [*([] if isinstance(self.labels, SparseLabels) else [source]), *spec.files(folder)]

    @model_validator(mode="after")
    def _is_split(self) -> Self:
        held = self.pieces.validation + self.pieces.test
        if held and not is_sparse(self.labels):
            raise ValueError(f"{', '.join(held)}: pieces are of sparse labels, and {self.labels} is a volume")
        for part in PARTS:
            if not self.boxes(part) and not getattr(self.pieces, part):
                raise ValueError(f"{part}: name at least one box, or a piece of sparse labels (pieces.{part})")
        return self


class RawStackSpec(SplitSpec):
    """A raw stack without labels, and its split."""

    avoid: str | None = None
    """Folder of `emloom qc`, or a mask, non-zero where crops are not wanted; see `sampling.max_avoided`."""
    transductive: bool = False
    """Whether training may see the raw of test boxes, too: their scores are then no longer of unseen tissue."""

    @property
    def paths(self) -> list[str]:
        """Every file the stack refers to."""
        return [self.raw] if self.avoid is None else [self.raw, self.avoid]

    def room(self, whole: Box, voxel_size_nm: Vec3) -> tuple[Box, tuple[Box, ...]]:
        """Return where training may look, and the grown boxes it keeps off: not those of tests if transductive."""
        if self.transductive:
            return self.model_copy(update={"test": (), "transductive": False}).room(whole, voxel_size_nm)
        return super().room(whole, voxel_size_nm)


@dataclass(frozen=True)
class HeldOut:
    """A validation or test box of one stack."""

    stack: int
    part: Part
    number: int
    box: Box

    @property
    def name(self) -> str:
        """File name of everything about this box."""
        return f"s{self.stack}_{self.part}_{self.number}"


def held_out(stacks: Sequence[SplitSpec], *parts: Part) -> list[HeldOut]:
    """Return the held-out boxes of the given parts, in that order; of all parts by default."""
    wanted: tuple[Part, ...] = parts or PARTS
    return [
        HeldOut(s, part, n, box)
        for part in wanted
        for s, stack in enumerate(stacks)
        for n, box in enumerate(stack.boxes(part))
    ]


@dataclass(frozen=True)
class Stack:
    """An opened `StackSpec`, whose held-out pieces have become boxes."""

    spec: StackSpec
    raw: Volume
    labels: Volume
    mask: Volume | None
    references: dict[str, Volume]
    avoid: Volume | None = None
    foreground: Volume | None = None
    sites_nm: NDArray[np.float64] | None = None
    sparse: Sparse | None = None
    held_pieces: tuple[Box, ...] = ()

    @property
    def labelled(self) -> TrainingVolume:
        """What training may draw from."""
        return self.labelled_off((0, 0, 0))

    def labelled_off(self, margin: Vec) -> TrainingVolume:
        """Return what training may draw from where crops keep a margin, besides the gap, off held-out pieces."""
        spec = self.spec
        region, held_out = spec.room(self.raw.info.box, self.raw.info.grid.voxel_size_nm)
        away = add(gap_vox(spec, self.raw.info.grid.voxel_size_nm), margin)
        held_out += tuple(box.grow(away) for box in self.held_pieces)
        hidden = tuple(box for part in PARTS for box in spec.boxes(part))
        return TrainingVolume(
            self.raw,
            self.labels,
            region,
            held_out,
            self.mask,
            background_vox=spec.marks.background_vox,
            hidden=hidden,
            avoid=self.avoid,
            foreground=self.foreground,
            sites_nm=self.sites_nm,
        )


def gap_vox(spec: SplitSpec, voxel_size_nm: Vec3) -> Vec:
    """Return the gap in whole voxels, rounded up."""
    z, y, x = (ceil(spec.gap_nm / size - 1e-9) for size in voxel_size_nm)
    return (z, y, x)


def open_stack(spec: StackSpec, classes: Sequence[SemanticClass] = ()) -> Stack:
    """Open and check a labelled stack; volumes of moderate size are read into memory.

    Args:
        spec: what to open.
        classes: that are learned; without them labels cannot be sparse.

    Raises:
        InputError: a file is missing or damaged, the grids differ, labels are not unsigned integers, or the
            boxes of the split leave the volume or come closer to each other than the gap.
    """
    raw = open_volume(spec.raw, voxel_size_nm=spec.voxel_size_nm, kind="raw")
    sparse = _open_sparse(spec, raw.info, classes) if is_sparse(spec.labels) else None
    pieces: tuple[Box, ...] = ()
    labels: Volume
    if sparse is None:
        labels = _open_labels(str(spec.labels), spec)
        mask = None if spec.marks.mask is None else open_usable(spec.marks.mask, spec.voxel_size_nm)
    else:
        labels, mask = sparse.volume, sparse.volume.known
        spec, pieces = _with_pieces(spec, sparse)
    avoid = avoided(spec.marks.avoid, spec)
    foreground = None if spec.marks.foreground is None else _open_labels(spec.marks.foreground, spec)
    references = {name: _open_labels(path, spec) for name, path in spec.references.items()}
    for other in (labels, mask, avoid, foreground, *references.values()):
        if other is not None:
            check_same_grid(raw, other)
    check_boxes(spec, raw.info.box, raw.info.grid.voxel_size_nm, may_overlap=sparse is not None)
    return Stack(
        spec,
        cached(raw),
        labels if sparse else cached(labels),
        mask if sparse or mask is None else cached(mask),
        {name: cached(volume) for name, volume in references.items()},
        cached(avoid) if avoid else None,
        cached(foreground) if foreground else None,
        None if spec.marks.sites is None else read_any_sites(spec.marks.sites, raw.info.grid.voxel_size_nm),
        sparse,
        pieces,
    )


def _open_sparse(spec: StackSpec, raw: VolumeInfo, classes: Sequence[SemanticClass]) -> Sparse:
    if not classes:
        raise InputError(
            f"the labels of {spec.raw} are painted pieces, which tell classes, not instances: use a job of "
            "kind semantic, or name a volume of instance labels"
        )
    if spec.marks.mask is not None or spec.marks.background_vox is not None:
        raise InputError(
            f"the labels of {spec.raw} are painted pieces, which say themselves where they are known: leave out "
            "marks.mask and marks.background_vox"
        )
    return open_sparse(spec.labels, raw, classes)


def _with_pieces(spec: StackSpec, sparse: Sparse) -> tuple[StackSpec, tuple[Box, ...]]:
    """Return the split with the boxes of its held-out pieces, and those boxes."""
    parts = {"validation": sparse.boxes(spec.pieces.validation), "test": sparse.boxes(spec.pieces.test)}
    held = {
        part: (*getattr(spec, part), *(BoxSpec(start=box.start, shape=box.shape) for box in boxes))
        for part, boxes in parts.items()
    }
    return spec.model_copy(update=held), (*parts["validation"], *parts["test"])


def avoided(path: str | None, spec: SplitSpec) -> Volume | None:
    """Open what quality control found in a stack; None where nobody looked."""
    return None if path is None else open_avoid(path, spec.voxel_size_nm)


def _open_labels(path: str, spec: StackSpec) -> Volume:
    volume = open_volume(path, voxel_size_nm=spec.voxel_size_nm, kind="labels")
    require_labels(volume)
    return volume


def check_boxes(spec: SplitSpec, whole: Box, voxel_size_nm: Vec3, may_overlap: bool = False) -> None:
    """Raise `InputError` where boxes of a split are empty, leave the volume or come too close to each other.

    Boxes of one part may overlap if `may_overlap`, as planes through one cube do.
    """
    named = [(part, box) for part in PARTS for box in spec.boxes(part)]
    region = [] if spec.region is None else [("region", spec.region.box)]
    for part, box in [*named, *region]:
        if box.is_empty or not whole.contains(box):
            raise InputError(f"the {part} {box} is empty or leaves {spec.raw}, which is {whole} (z, y, x)")
    gap = gap_vox(spec, voxel_size_nm)
    for (part_a, a), (part_b, b) in combinations(named, 2):
        if (a.meets(b) and not may_overlap) or (part_a != part_b and a.grow(gap).meets(b)):
            raise InputError(
                f"the {part_a} {a} and the {part_b} {b} overlap or are closer than the gap of {spec.gap_nm} nm: "
                "held-out boxes must be apart"
            )
