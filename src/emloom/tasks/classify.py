"""Probabilities of classes to one class per voxel, at any size, block by block.

::

    OUT.zarr/labels        uint8, the likeliest class (`emloom.ops.decide`); 255 undecided
    OUT.zarr/confidence    uint8, how clearly it won: 255 times the margin; 0 where a rule chose the class
    OUT.zarr/classes.yaml  what the classes are called
    OUT.zarr/counts/       what every block counted, from which report.html, classes.csv and rules.csv are made

A block reads as far around itself as the rules of enclosure look (`emloom.ops.enclosure`), so results do not
depend on the division, on workers or on crashes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec, blocks
from emloom.io.open import create_volume, open_volume
from emloom.io.room import require_room
from emloom.io.volume import Volume
from emloom.ops.decide import UNDECIDED, decide
from emloom.ops.enclosure import Enclosure, EnclosureRule, halo_of, repair, resolve
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.classcounts import BlockLabels, count_block, counts_file, read_counts
from emloom.tasks.classifyreport import write_classify_report
from emloom.tasks.classnames import class_names, write_names
from emloom.tasks.lattice import chunk_within, common_box
from emloom.tasks.predict import OnBlock

LABELS, CONFIDENCE = "labels", "confidence"
_ROUNDING = 1e-6  # a float32 softmax may exceed 1 by this

Extent = Annotated[int, Field(ge=1)]


class RulesSpec(Spec):
    """A file of rules (`--rules`)."""

    rules: tuple[EnclosureRule, ...] = Field(min_length=1)
    """What encloses what; applied in this order."""


class ClassifyJob(Spec):
    """Give every voxel its likeliest class (`emloom classify`)."""

    probabilities: str
    """Probabilities of the classes, one channel each, as `emloom predict` writes them."""
    output: str
    """Container (`.zarr`) to be made."""
    names: tuple[str, ...] = ()
    """What the classes are called, class 0 first; default: what the container of the probabilities says."""
    rules: tuple[EnclosureRule, ...] = ()
    """What encloses what: where the likeliest classes violate that, they are repaired."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """Voxels whose class won by less than this become 255, undecided, unless a rule chose it."""
    raw: str | None = None
    """Raw volume, only for the pictures of the report."""
    block_vox: tuple[Extent, Extent, Extent] = (64, 256, 256)
    """Voxels (z, y, x) that are worked on at once."""


@dataclass(frozen=True)
class ClassifyBlock:
    """Classifies one block; a small value that travels to workers.

    Attributes:
        job: what is classified.
        rules: about its labels.
        folder: container of the output.
    """

    job: ClassifyJob
    rules: tuple[Enclosure, ...]
    folder: Path

    def __call__(self, block: Block) -> list[Output]:
        """Write the block's voxels, and count them."""
        volume = open_probabilities(self.job.probabilities)
        seen = block.read.intersect(volume.info.box)
        found = classify_array(read_shares(volume, seen), self.rules, self.job.min_confidence)
        own = block.write.shift((-seen.start[0], -seen.start[1], -seen.start[2]))
        written = []
        for name, array in ((LABELS, found.labels), (CONFIDENCE, found.confidence)):
            kept = np.ascontiguousarray(array[own.slices()])
            open_volume(self.folder / name, writable=True).write(block.write, kept)
            written.append(Output.voxels(name, block.write, kept))
        path = counts_file(self.folder, block.index)
        count_block(path, found, own, block.write.start, self.rules)
        return [*written, Output.file(self.folder, str(path.relative_to(self.folder)))]


def classify_array(
    shares_CZYX: NDArray[Any], rules: tuple[Enclosure, ...] = (), min_confidence: float = 0.0
) -> BlockLabels:
    """Return labels and confidence of probabilities in memory, and the labels before the rules.

    Args:
        shares_CZYX: probabilities, see `emloom.ops.decide.decide`.
        rules: what encloses what.
        min_confidence: below it, voxels whose class no rule chose are undecided.
    """
    likeliest, confidence = decide(shares_CZYX)
    labels = repair(likeliest, shares_CZYX, rules)
    chosen = labels != likeliest
    labels[(confidence < min_confidence * 255) & ~chosen] = UNDECIDED
    confidence[chosen] = 0
    return BlockLabels(likeliest, labels, confidence)


def classify(
    job: ClassifyJob,
    on_block: OnBlock | None = None,
    executor: Executor | None = None,
    discard: bool = False,
    again: bool = False,
) -> Path:
    """Classify block by block into a container that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to classify.
        on_block: called with (blocks done, blocks in all).
        executor: where blocks run; default in this process.
        discard: delete the unfinished or finished result of another job in the output's place.
        again: go on with a finished result, too: blocks whose markers were removed are made again.

    Returns:
        Path of the report.

    Raises:
        InputError: the probabilities are missing or are none, names or rules do not fit them, the output exists or
            belongs to another job.
    """
    started = time.perf_counter()
    volume = open_probabilities(job.probabilities)
    info = volume.info
    assert info.channels is not None  # of probabilities
    names = class_names(job.probabilities, info.channels, job.names)
    rules = resolve(job.rules, names, info.grid.voxel_size_nm)
    if job.raw is not None:
        common_box(volume, open_volume(job.raw, kind="raw"))
    space = Workspace(job.output)
    stored = info.with_(channels=None, dtype=np.dtype(np.uint8), chunks=chunk_within(job.block_vox))
    made = {LABELS: stored.with_(kind="labels"), CONFIDENCE: stored.with_(kind=None)}
    if not space.folder.exists():
        require_room(space.draft, list(made.values()), "classify a part of it (emloom crop)")
    inputs = space.claim("classify", job, {"probabilities": job.probabilities, "raw": job.raw}, discard)
    if again or not space.finished:
        for name, what in made.items():
            if not (space.folder / name).exists():
                create_volume(space.folder / name, what)
        science = job.model_dump(mode="json", exclude={"output", "raw"})
        key = key_of("classify", science, names, inputs["probabilities"])
        cells = blocks(info.box, job.block_vox, _halo(rules))
        work = ClassifyBlock(job, rules, space.folder.absolute())
        run_stage(Stage("classify", key, cells, work), space.folder, executor or Serial(), progress=on_block)
        write_names(space.folder, names)
        seconds = {"classify": time.perf_counter() - started}
        provenance = write_provenance(space.folder / "provenance.json", job.to_dict(), inputs, seconds)
        counts = read_counts([counts_file(space.folder, cell.index) for cell in cells], len(rules))
        write_classify_report(job.raw, space.folder, names, rules, counts, provenance)
        space.finish()
    return space.output / "report.html"


def _halo(rules: tuple[Enclosure, ...]) -> Vec:
    # One more than the repair needs: faces are counted between a block and the repaired voxels after it.
    z, y, x = halo_of(rules)
    return (z + 1, y + 1, x + 1) if rules else (0, 0, 0)


def open_probabilities(path: str) -> Volume:
    """Open probabilities of classes; raises `InputError` where the volume holds anything else."""
    volume = open_volume(path)
    info = volume.info
    if info.kind not in (None, "probabilities"):
        raise InputError(
            f"{path} holds {info.kind}: give probabilities of classes, such as pred.zarr/classes of a semantic "
            "model"
        )
    if info.channels is None or info.channels < 2:
        raise InputError(
            f"{path} is {info.axes} with {info.channels or 'no'} channel{'s' if info.channels is None else ''}: "
            "classes have one channel each, two at least; one probability alone is cut at a threshold, not "
            "classified"
        )
    if info.channels > UNDECIDED:
        raise InputError(f"{path} has {info.channels} channels: up to {UNDECIDED} classes fit a byte")
    if info.dtype.kind != "f" and info.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path} stores {info.dtype}: probabilities are uint8, uint16 (of the highest value) or floats"
        )
    return volume


def read_shares(volume: Volume, box: Box) -> NDArray[Any]:
    """Return the probabilities of a box, [C, Z, Y, X].

    Raises:
        InputError: a floating value is no probability.
    """
    shares = volume.read(box)
    if shares.dtype.kind == "f":
        if not ((shares >= 0) & (shares <= 1 + _ROUNDING)).all():
            raise InputError(
                f"{volume.info.source} holds values that are no probabilities (NaN, below 0 or above 1) in {box}: "
                "apply a softmax to logits first"
            )
        np.clip(shares, 0, 1, out=shares)
    return shares
