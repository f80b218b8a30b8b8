"""Which slices to label next (`emloom suggest-slices`), with everything that labelling them needs.

::

    OUT/slices.csv                   one row per slice, the best first: where, how good, and why
    OUT/slice_1_raw.png, ..          the raw, to paint on
    OUT/slice_1_labels.png, ..       the predicted classes, to correct: a palette image; 0 is undefined
    OUT/labels.yaml                  the slices as pieces of sparse labels
    OUT/report.html                  pictures and reasons

The probabilities are read once, block by block (`emloom.tasks.slicecounts`); how slices are chosen from what was
counted: `emloom.ops.nextslices`.
"""

from __future__ import annotations

import csv
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import blocks
from emloom.io.open import open_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.ops.nextslices import Choice, Strategy, choose
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.machine import memory
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Stage
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.classify import open_probabilities
from emloom.tasks.classnames import class_names, provenance_of
from emloom.tasks.labelledplaces import labelled_places
from emloom.tasks.lattice import common_box
from emloom.tasks.predict import OnBlock
from emloom.tasks.slicecounts import CountSlices, Lattice, in_plane, read_windows, slices_file
from emloom.tasks.suggestions import Scene, Suggestion, write_suggestions

_PLANES = 128  # along an axis that are looked at, about

Extent = Annotated[int, Field(ge=1)]


class WindowSpec(Spec):
    """How large slices are, and how many."""

    count: Annotated[int, Field(ge=1, le=999)] = 5
    """How many are suggested."""
    size_vox: Annotated[int, Field(ge=8)] = 256
    """Voxels along a side."""
    step_vox: Extent | None = None
    """Voxels from one plane that is looked at to the next; default: about 128 planes along the longest axis."""
    spread_nm: Annotated[float, Field(gt=0)] | None = None
    """Slices nearer than this to labelled ones are worth less; default: half the side of a slice."""
    block_vox: tuple[Extent, Extent, Extent] = (64, 256, 256)
    """Voxels (z, y, x) that are counted at once."""


class SuggestJob(Spec):
    """Say which slices to label next (`emloom suggest-slices`)."""

    probabilities: str
    """Probabilities of the classes, one channel each, as `emloom predict` writes them."""
    output: str
    """Folder to be made."""
    labels: str | None = None
    """What is labelled already: a `labels.yaml` of pieces, or a volume of labels."""
    raw: str | None = None
    """Raw volume; default: what the probabilities were predicted from."""
    names: tuple[str, ...] = ()
    """What the classes are called, class 0 first; default: what the container of the probabilities says."""
    axis: Literal["any", "z", "y", "x"] = "any"
    """Axis that slices are across."""
    window: WindowSpec = WindowSpec()
    """How large slices are, and how many."""
    strategy: Strategy = "uncertainty"
    """`uncertainty`, `spread` (far from each other) or `random`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of `random`."""


def suggest_slices(
    job: SuggestJob,
    on_block: OnBlock | None = None,
    executor: Executor | None = None,
    discard: bool = False,
    again: bool = False,
) -> Path:
    """Choose slices and write everything that labelling them needs, into a folder that appears when it is whole.

    Args:
        job: what to choose from, and how.
        on_block: called with (blocks counted, blocks in all).
        executor: where blocks are counted; default in this process.
        discard: delete the result of another job in the output's place.
        again: go on with a finished result, too: blocks whose markers were removed are counted again.

    Returns:
        Path of the folder.

    Raises:
        InputError: an input is missing or none, no window fits the volume, or the output belongs to another job.
    """
    started = time.perf_counter()
    shares = open_probabilities(job.probabilities)
    info = shares.info
    assert info.channels is not None  # of probabilities
    raw_path, names, lattice = _looked_at(job, shares)
    raw = open_volume(raw_path, kind="raw")
    labelled = labelled_places(job.labels, shares, raw, names)
    space = Workspace(job.output)
    paths = {"probabilities": job.probabilities, "raw": raw_path, "labels": job.labels}
    inputs = space.claim("suggest", job, paths, discard)
    if again or not space.finished:
        key = key_of("suggest", asdict(lattice), inputs["probabilities"])
        cells = blocks(info.box, job.window.block_vox)
        work = CountSlices(job.probabilities, lattice, space.folder.absolute())
        run_stage(Stage("suggest", key, cells, work), space.folder, executor or Serial(), progress=on_block)
        windows = read_windows((slices_file(space.folder, cell.index) for cell in cells), lattice, len(names))
        if not len(windows):
            raise InputError(
                f"no slice of {lattice.size} x {lattice.size} voxels of {job.probabilities} is at least half "
                "predicted: take smaller ones (--size)"
            )
        how = choice_of(job, info)
        before = (labelled.boxes, np.array(labelled.voxels, np.int64))
        chosen = choose(windows, how, info.grid.voxel_size_nm, *before)
        suggestions = [Suggestion.of(rank, each, windows) for rank, each in enumerate(chosen, start=1)]
        seconds = {"suggest": time.perf_counter() - started}
        provenance = write_provenance(space.folder / "provenance.json", job.to_dict(), inputs, seconds)
        scene = Scene(shares, raw, raw_path, names, labelled, how)
        write_suggestions(space.folder, scene, suggestions, provenance)
        space.finish()
    return space.output


def _looked_at(job: SuggestJob, shares: Volume) -> tuple[str, tuple[str, ...], Lattice]:
    """Return path of the raw, class names and windows; raises `InputError` with all that is wrong."""
    problems: list[str] = []
    raw, names, lattice = None, None, None
    try:
        raw = raw_of(job.probabilities, job.raw)
        common_box(shares, open_volume(raw, kind="raw"))
    except InputError as problem:
        problems.append(str(problem))
    try:
        names = class_names(job.probabilities, shares.info.channels or 0, job.names)
    except InputError as problem:
        problems.append(str(problem))
    try:
        lattice = lattice_of(job, shares.info)
    except InputError as problem:
        problems.append(str(problem))
    if job.labels is not None and not Path(job.labels).exists() and "://" not in job.labels:
        problems.append(f"there are no labels at {job.labels}: check the path, or leave out --labels")
    if problems or raw is None or names is None or lattice is None:
        raise InputError("\n".join(problems))
    return raw, names, lattice


def raw_of(probabilities: str, given: str | None) -> str:
    """Return the path of the raw volume that probabilities are about; raises `InputError` where nobody knows."""
    path = given or provenance_of(probabilities).get("spec", {}).get("raw")
    if path is None:
        raise InputError(f"{probabilities} does not say which raw volume it was predicted from: name it (--raw)")
    return str(path)


def lattice_of(job: SuggestJob, info: VolumeInfo) -> Lattice:
    """Return the windows that can be chosen.

    Raises:
        InputError: none fits the volume across the axes asked for, or their table does not fit into memory.
    """
    how = job.window
    wanted = (0, 1, 2) if job.axis == "any" else ("zyx".index(job.axis),)
    axes = tuple(axis for axis in wanted if all(info.shape[k] >= how.size_vox for k in in_plane(axis)))
    if not axes:
        raise InputError(
            f"slices of {how.size_vox} x {how.size_vox} voxels do not fit into {job.probabilities}, which has "
            f"{info.shape} voxels (z, y, x), across {'any axis' if job.axis == 'any' else job.axis}: take smaller "
            "ones (--size), or another axis"
        )
    step = how.step_vox or -(-max(info.shape) // _PLANES)
    lattice = Lattice(info.shape, how.size_vox, step, axes)
    need, free = lattice.n_bytes(info.channels or 0), memory().available
    if need > free:
        raise InputError(
            f"the table of all slices may need {need / 2**30:.1f} GiB of {free / 2**30:.1f} that are free: look "
            f"at fewer planes (--step above {step}), or take larger slices (--size)"
        )
    return lattice


def choice_of(job: SuggestJob, info: VolumeInfo) -> Choice:
    """Return how slices are chosen."""
    how = job.window
    spread = how.spread_nm or how.size_vox * min(info.grid.voxel_size_nm) / 2
    return Choice(how.count, how.size_vox**2, spread, job.strategy, job.seed)


def reasons(folder: Path) -> list[str]:
    """Return one line per suggested slice: where it is, and why."""
    lines = (folder / "slices.csv").read_text(encoding="utf-8").splitlines()
    return [
        f"{row['slice']}. {row['axis']} = {row['at']}, from row {row['start_row']}, column {row['start_column']}: "
        f"{row['reason']}"
        for row in csv.DictReader(lines)
    ]
