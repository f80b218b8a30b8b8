"""From a map of artifacts to artifacts: the single-section prior, hysteresis and persistence, slab by slab.

::

    found.zarr/filtered   uint8, logits after the prior, on the lattice of the map
    found.zarr/artifacts  uint8 mask, 1 where there is an artifact

Components reach as far as their section, so a block is a slab of whole sections, and sees the sections beside it
that decide about it (`emloom.ops.prior`): the result does not depend on the division.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Block, Box, blocks
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import Volume
from emloom.ops.prior import CleanSpec, FilterSpec, find_artifacts, halo_sections
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.run.workspace import Workspace
from emloom.spec import Spec
from emloom.tasks.lattice import chunk_within
from emloom.tasks.predict import OnBlock

FILTERED, FOUND = "filtered", "artifacts"
_SLAB = 64  # sections of one block


class CleanJob(Spec):
    """Find the artifacts of a map (`emloom artifacts clean`)."""

    map: str
    """A map of logits, written by `emloom artifacts predict`."""
    output: str
    """Container (`.zarr`) to be made."""
    filtering: FilterSpec = FilterSpec()
    """The single-section prior."""
    cleaning: CleanSpec = CleanSpec()
    """What makes an artifact; thresholds are of the filtered map."""


@dataclass(frozen=True)
class CleanBlock:
    """Cleans one slab; a small value that travels to workers.

    Attributes:
        job: what is cleaned.
        folder: container of the output.
    """

    job: CleanJob
    folder: Path

    def __call__(self, block: Block) -> list[Output]:
        """Filter and cut the slab's sections."""
        codes = open_map(self.job.map)
        reach = halo_sections(self.job.filtering, self.job.cleaning)
        seen = block.write.grow((reach, 0, 0)).intersect(codes.info.box)
        first = block.write.start[0] - seen.start[0]
        core = slice(first, first + block.write.shape[0])
        filtered, found = find_artifacts(codes.read(seen), self.job.filtering, self.job.cleaning, core)
        written = []
        for name, array in ((FILTERED, filtered), (FOUND, found.astype(np.uint8))):
            open_volume(self.folder / name, writable=True).write(block.write, array)
            written.append(Output.voxels(name, block.write, array))
        return written


def clean_map(
    job: CleanJob, on_block: OnBlock | None = None, executor: Executor | None = None, discard: bool = False
) -> str:
    """Clean a map into a container that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to clean.
        on_block: called with (blocks done, blocks in all).
        executor: where blocks run; default in this process.
        discard: delete the unfinished or finished result of another job in the output's place.

    Returns:
        Path of the mask of artifacts.

    Raises:
        InputError: the map is missing or is none, or the output exists or belongs to another job.
    """
    started = time.perf_counter()
    info = open_map(job.map).info
    shape = (min(_SLAB, info.shape[0]), *info.shape[1:])
    space = Workspace(job.output)
    inputs = space.claim("clean", job, {"map": job.map}, discard, {})
    if not space.finished:
        chunks = chunk_within(shape)
        for name, kind in ((FILTERED, "logits"), (FOUND, "mask")):
            if not (space.folder / name).exists():
                create_volume(space.folder / name, info.with_(chunks=chunks, kind=kind))
        key = key_of("clean", job.model_dump(mode="json", exclude={"output"}), inputs)
        stage = Stage("clean", key, blocks(Box.whole(info.shape), shape), CleanBlock(job, space.folder.absolute()))
        run_stage(stage, space.folder, executor or Serial(), progress=on_block)
        seconds = {"clean": time.perf_counter() - started}
        write_provenance(space.folder / "provenance.json", job.to_dict(), inputs, seconds)
        space.finish()
    return str(Path(job.output) / FOUND)


def open_map(path: str) -> Volume:
    """Open a map; raises `InputError` unless it is one of coded logits."""
    volume = open_volume(path)
    if volume.info.kind != "logits" or volume.info.channels is not None:
        raise InputError(
            f"{path} is {volume.info.kind or 'of no stated kind'} ({volume.info.axes}), not a map of logits: name "
            "one that `emloom artifacts predict` wrote, such as map.zarr/artifact"
        )
    return volume
