"""A submission to the CREMI challenge (https://cremi.org): written whole or not at all, and validated.

A prediction is made on the padded raw, a submission covers the labels only. So the box of the labels is cut out of
what was predicted, by its place in the world, and stored as CREMI demands::

    prediction (any format)              submission.h5                      file_format "0.2"
    clefts        0, ids or a mask   ->  volumes/labels/clefts              uint64, background 0xffffffffffffffff
    neuron_ids    0, ids             ->  volumes/labels/neuron_ids          uint64
    annotations   CREMI file, table  ->  annotations                        sites, partners, comments

`SubmitSpec.offsets` says what the stored positions count from. CREMI's cropped files state no offset, its padded
ones do; locations are the same numbers in both (cremi.org/data). By default a submission is like cropped files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec, cells
from emloom.geometry.grid import TOLERANCE_VOX, Vec3
from emloom.io import cremi, cremicheck
from emloom.io.annotations import Annotations
from emloom.io.checks import require_labels
from emloom.io.cremicheck import Expected
from emloom.io.files import staged
from emloom.io.open import open_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.spec import Spec
from emloom.tasks.findings import Finding, Report
from emloom.tasks.info import bounded_cell
from emloom.tasks.submitpartners import partners_in
from emloom.tasks.thresholded import Thresholded

Progress = Callable[[int, int], None]
Extent = Annotated[int, Field(ge=1)]


class SubmitSpec(Spec):
    """Write a CREMI submission."""

    target: str
    """The HDF5 file to write."""
    clefts: str | None = None
    """Volume of predicted clefts: labels or a mask, background 0; or their probability, see `cleft_threshold`."""
    cleft_threshold: float | None = Field(default=None, gt=0, le=1)
    """Probability (0 to 1) from which on a voxel is cleft; only where `clefts` holds probabilities."""
    neuron_ids: str | None = None
    """Volume of segments."""
    annotations: str | None = None
    """Predicted sites and partners: folder of `emloom synapses` or `emloom connectome`, table, or CREMI file at
    absolute positions; see `tasks.submitpartners`."""
    shape: tuple[Extent, Extent, Extent] | None = None
    """Voxels (z, y, x) of the challenge's labels, (125, 1250, 1250) in CREMI; None: all of the prediction."""
    offset_nm: Vec3 | None = None
    """Where those labels begin in the world of the prediction (z, y, x; nm): their `offset` in the padded file;
    None: where the prediction begins."""
    voxel_size_nm: Vec3 = (40.0, 4.0, 4.0)
    """What the voxels of the challenge are (z, y, x; nm); predictions must have it."""
    offsets: Literal["zero", "kept"] = "zero"
    """`zero`: stored positions count from the first voxel of the submission, as in CREMI's cropped files; `kept`:
    from the world's origin, as in its padded files."""
    overwrite: bool = False
    """Replace a file that is there."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.clefts is None and self.neuron_ids is None and self.annotations is None:
            raise ValueError("a submission needs one of clefts, neuron_ids and annotations")
        if self.cleft_threshold is not None and self.clefts is None:
            raise ValueError("a threshold of clefts, and no clefts: give them, or leave it out")
        if self.clefts is None and self.neuron_ids is None and self.shape is None:
            raise ValueError("annotations alone need the shape of the volume they lie in, and its offset_nm")
        if not self.target.lower().endswith((".h5", ".hdf", ".hdf5")):
            raise ValueError(f"target {self.target!r} is no HDF5 file: name it .h5 or .hdf")
        return self


@dataclass(frozen=True)
class SubmitReport:
    """What was written.

    Attributes:
        target: the file.
        box: shape and place (z, y, x; nm) of the submission in the world of the prediction.
        validation: what the validator says about the file; without errors.
        left_out: which contacts were not submitted, and why; empty where all were.
    """

    target: str
    box: tuple[Vec, Vec3]
    validation: Report
    left_out: str = ""

    def to_text(self) -> str:
        """Return a short paragraph for a person."""
        shape, offset = self.box
        head = f"{self.target}: {' x '.join(map(str, shape))} voxels from {offset} nm on"
        return "\n".join([head, *([f"  {self.left_out}"] if self.left_out else []), self.validation.to_text()])


def submit(spec: SubmitSpec, progress: Progress | None = None) -> SubmitReport:
    """Write a submission; the file appears only when the validator finds no error in it.

    Args:
        spec: what to submit.
        progress: called with (cells done, cells in all).

    Raises:
        InputError: a prediction is no labels, has other voxels or does not cover the box; sites lie outside; the
            validator finds an error; the target exists or the disk refuses. Nothing is left behind.
    """
    wanted = ((cremi.CLEFTS, spec.clefts, spec.cleft_threshold), (cremi.NEURON_IDS, spec.neuron_ids, None))
    sources = {name: _opened(path, spec, threshold) for name, path, threshold in wanted if path is not None}
    grid, shape = _region(spec, list(sources.values()))
    stored = grid.offset_nm if spec.offsets == "kept" else (0.0, 0.0, 0.0)
    partners = None if spec.annotations is None else partners_in(spec.annotations, grid, shape)
    with staged(spec.target, overwrite=spec.overwrite) as file:
        if partners is not None:
            cremi.write_annotations(file, _moved(partners.sites, grid, stored), offset_nm=stored)
        _write_volumes(file, sources, Grid(grid.voxel_size_nm, stored), (grid, shape), progress)
        validation = _validated(file, Expected(shape, spec.voxel_size_nm, stored), spec.target)
        if not validation.ok:
            raise InputError(f"the submission would be wrong, so it was not written:\n{validation.to_text()}")
    left_out = "" if partners is None else partners.to_text()
    return SubmitReport(spec.target, (shape, grid.offset_nm), validation, left_out)


def validate_submission(
    path: str | Path,
    shape: Vec | None = None,
    voxel_size_nm: Vec3 = (40.0, 4.0, 4.0),
    offset_nm: Vec3 | None = None,
) -> Report:
    """Return everything that is wrong with a submission, by whomever it was written.

    Args:
        path: the HDF5 file.
        shape: voxels (z, y, x) of the challenge's labels; None: any.
        voxel_size_nm: what its voxels must be.
        offset_nm: where its volumes must begin; None: anywhere.

    Raises:
        InputError: the file does not exist or is no HDF5; what it holds is never raised, but listed.
    """
    return _validated(Path(path), Expected(shape, voxel_size_nm, offset_nm), str(path))


def _validated(file: Path, expected: Expected, shown: str) -> Report:
    return Report(shown, tuple(Finding(*remark) for remark in cremicheck.check(file, expected)))


# ---- what is submitted ------------------------------------------------------------------------------------------


def _opened(path: str, spec: SubmitSpec, threshold: float | None) -> Volume:
    stored = open_volume(path)
    volume: Volume = stored if threshold is None else Thresholded(stored, threshold)
    info = require_labels(volume)
    if info.kind not in (None, "labels", "mask"):
        raise InputError(
            f"{path} holds {info.kind}, and a submission labels or a mask: give clefts with --cleft-threshold, "
            "and make segments of affinities with emloom segment"
        )
    if not Grid(info.grid.voxel_size_nm).matches(Grid(spec.voxel_size_nm)):
        raise InputError(
            f"{path} has voxels of {info.grid.voxel_size_nm} nm, the challenge {spec.voxel_size_nm} nm: resample "
            "the prediction to them"
        )
    return volume


def _region(spec: SubmitSpec, sources: list[Volume]) -> tuple[Grid, Vec]:
    """Return the grid and the shape of what is submitted, in the world of the prediction."""
    first = sources[0].info if sources else None
    offset = spec.offset_nm or (first.grid.offset_nm if first else (0.0, 0.0, 0.0))
    grid = Grid(spec.voxel_size_nm, offset)
    if spec.shape is not None:
        return grid, spec.shape
    assert first is not None  # the Spec demands a shape where there is no volume
    rest = zip(first.shape, _start(first, grid), strict=True)
    z, y, x = (n - a for n, a in rest)
    if min(z, y, x) < 1:
        raise InputError(f"{first.source} ends before {offset} nm: give the offset of the labels in its world")
    return grid, (z, y, x)


def _start(info: VolumeInfo, grid: Grid) -> Vec:
    """Return the voxel of a volume at which a grid begins."""
    exact = info.grid.to_voxel(grid.offset_nm)
    z, y, x = (round(v) for v in exact)
    if max(abs(v - w) for v, w in zip(exact, (z, y, x), strict=True)) > TOLERANCE_VOX:
        raise InputError(
            f"{grid.offset_nm} nm lies between voxels of {info.source} (voxel {exact}): give an offset that is a "
            f"whole number of voxels of {info.grid.voxel_size_nm} nm from {info.grid.offset_nm} nm"
        )
    return (z, y, x)


def _moved(sites: Annotations, grid: Grid, stored: Vec3) -> Annotations:
    """Return sites in the world of the submission."""
    return replace(sites, locations_nm=sites.locations_nm - np.array(grid.offset_nm) + np.array(stored))


def _write_volumes(
    file: Path,
    sources: dict[str, Volume],
    stored: Grid,
    region: tuple[Grid, Vec],
    progress: Progress | None,
) -> None:
    grid, shape = region
    tell = progress or (lambda done, total: None)
    work: list[tuple[Any, Volume, Box, Vec]] = []
    for name, source in sources.items():
        start = _start(source.info, grid)
        if not source.info.box.contains(Box(start, shape)):
            raise InputError(
                f"{source.info.source} covers {source.info.box}, the submission {Box(start, shape)}: predict all "
                "of it, or mend shape and offset"
            )
        info = VolumeInfo(shape, np.dtype(np.uint64), stored, kind="labels", source=f"{file}/{name}")
        target = cremi.create(file, name, info)
        step = target.info.chunks or shape
        work += [(target, source, box, start) for _, box in cells(info.box, bounded_cell(target, step))]
    for done, (target, source, box, start) in enumerate(work, start=1):
        target.write(box, source.read(box.shift(start)).astype(np.uint64))
        tell(done, len(work))
