"""`emloom export-neurons`: the neurons of a segmentation as meshes and skeletons, block by block.

::

    survey ─► chosen ─► surfaces ─► neurons ─► OUT/neurons.parquet   a row for each neuron
    (blocks)            (blocks)    (groups)       mesh/             precomputed; ply/, obj/ if asked for
                                                   skeletons/        precomputed
                                                   swc/17.swc        x y z radius in nm
                                                   skeletons.nml     all, if asked for
                                                   segment_properties/, info, provenance.json

Neuroglancer can be pointed at the folders mesh, skeletons and segment_properties. The same files
come out for any blocks, workers and crashes: the same command goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec, blocks
from emloom.io.checks import require_labels
from emloom.io.meshfiles import write_mesh_info
from emloom.io.nml import write_nml
from emloom.io.precomputedskeletons import write_segment_properties, write_skeleton_info
from emloom.io.swc import read_swc_tracings
from emloom.io.synapsetable import SYNAPSES, write_synapse_table
from emloom.io.tables import read_arrow, read_table, write_table
from emloom.io.volume import Volume
from emloom.ops.bioimage import require_extra
from emloom.ops.tracingmerge import merged
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Stage
from emloom.run.workspace import Workspace
from emloom.tasks.exportneuronsspec import ExportNeuronsJob
from emloom.tasks.neuronblocks import Census, Labels, Surfaces, Survey, surface_part
from emloom.tasks.neuronfiles import MESHES, SKELETONS, Neurons, WriteNeurons, row_part
from emloom.tasks.synapsesource import read_any_synapses

OnBlock = Callable[[str, int, int], None]
NEURONS, NML, PROPERTIES = "neurons.parquet", "skeletons.nml", "segment_properties"
_FORMAT = 1
_MOST_IDS, _MOST_VOX = 16, 1 << 21  # of a group: small, so that many workers share a block of neurons
_CHOSEN, _TABLE = "run/chosen.parquet", f"run/{SYNAPSES}"


@dataclass(frozen=True)
class ExportedNeurons:
    """What was written.

    Attributes:
        folder: of the result.
        neurons: how many.
        segments: there are in the segmentation.
        coarser: neurons too large for a skeleton at full size.
        notes: what a person should know.
    """

    folder: Path
    neurons: int
    segments: int
    coarser: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.__dict__, "folder": str(self.folder)}

    def to_text(self) -> str:
        """Return lines for a person."""
        lines = [f"{self.folder}: {self.neurons} of {self.segments} segments"]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def export_neurons(
    job: ExportNeuronsJob,
    on_block: OnBlock | None = None,
    executor: Executor | None = None,
    discard: bool = False,
    again: bool = False,
) -> ExportedNeurons:
    """Write meshes and skeletons in a folder that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to write.
        on_block: called with (stage, blocks done, blocks in all).
        executor: where blocks run; default in this process.
        discard: delete the result of another job in the output's place.
        again: go on with a finished result, too: blocks whose markers were removed are made again.

    Raises:
        InputError: the extra `emloom[meshes]` is missing, the labels are none, a named segment does not exist,
            nothing is left to be written, or the output exists or belongs to another job.
    """
    require_extra()
    started = time.perf_counter()
    labels = Labels(labels_path(job.segmentation), job.voxel_size_nm)
    require_labels(labels.open())
    space = Workspace(job.output)
    inputs = space.claim("export-neurons", job, {"segmentation": labels.path, "synapses": job.synapses}, discard)
    if again or not space.finished:
        folder = space.folder.absolute()
        runner = _Runner(job, labels, folder, executor or Serial(), on_block, tuple(inputs.values()))
        runner.run()
        seconds = {"export-neurons": time.perf_counter() - started}
        write_provenance(folder / "provenance.json", job.to_dict(), inputs, seconds, runner.more)
        space.finish()
    return _reported(space.output)


def labels_path(path: str) -> str:
    """Return the labels of a path: those of a container of `emloom segment`, or the path itself.

    Raises:
        InputError: the container has no segmentation: it was never cut at a threshold.
    """
    if not (Path(path) / "fragments").is_dir():
        return path
    inside = Path(path) / "segmentation"
    if not inside.is_dir():
        raise InputError(
            f"{path} was made without a threshold, so there is no segmentation: give --threshold there"
        )
    return str(inside)


@dataclass
class _Runner:
    """The stages of one run."""

    job: ExportNeuronsJob
    labels: Labels
    folder: Path
    executor: Executor
    on_block: OnBlock | None
    marks: tuple[str, ...]

    def run(self) -> None:
        job = self.job
        volume = self.labels.open()
        cells = blocks(volume.info.box, job.block_vox)
        key = key_of("neurons-survey", _FORMAT, self.marks[0], job.block_vox, job.voxel_size_nm)
        self._stage(Stage("survey", key, cells, Survey(self.labels, self.folder)))
        census = Census.of(self.folder, cells)
        chosen = census.chosen(job.ids, job.min_size_vox, self.labels.path)
        write_table(self.folder / _CHOSEN, {"id": chosen.ids})
        key = key_of(key, job.ids, job.min_size_vox)
        homes: dict[int, list[Vec]] = {}
        if job.meshes is not None:
            made = Surfaces(self.labels, self.folder, _CHOSEN, job.meshes.factors)
            near = _near(cells, chosen)
            self._stage(Stage("surfaces", key_of(key, "surfaces", job.meshes.factors), near, made))
            homes = _homes(self.folder, near)
        table = self._synapses(volume)
        for folder in self._prepared():
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        key = key_of(key, "neurons", replace_output(job).to_dict(), self.marks, _MOST_IDS, _MOST_VOX)
        groups = list(_groups(chosen, homes))
        write = WriteNeurons(replace_output(job), self.labels, self.folder, table)
        # A neuron may be as large as the volume: no limit of time is right for all.
        self._stage(Stage("neurons", key, groups, write, bounded=False))
        self._finish(volume, chosen, groups)
        self.more = {"segments": str(len(census.ids))}

    def _stage(self, stage: Stage[Any]) -> None:
        tell = None if self.on_block is None else partial(self.on_block, stage.name)
        run_stage(stage, self.folder, self.executor, progress=tell)

    def _synapses(self, volume: Volume) -> str | None:
        if self.job.synapses is None:
            return None
        table = read_any_synapses(self.job.synapses, volume)
        write_synapse_table(self.folder / _TABLE, table, {}, overwrite=True)
        return _TABLE

    def _prepared(self) -> Iterator[str]:
        job = self.job
        if job.meshes is not None and "precomputed" in job.meshes.formats:
            write_mesh_info(self.folder / MESHES)
        if job.skeletons is not None and "precomputed" in job.skeletons.formats:
            write_skeleton_info(self.folder / SKELETONS)
        yield "run"

    def _finish(self, volume: Volume, chosen: Census, groups: Sequence[Neurons]) -> None:
        parts = [read_table(self.folder / row_part(group.index)) for group in groups]
        order = np.argsort(np.concatenate([part["id"] for part in parts]))
        size = np.prod(volume.info.grid.voxel_size_nm)
        columns: dict[str, NDArray[Any]] = {"id": chosen.ids, "voxels": chosen.voxels}
        columns["volume_um3"] = chosen.voxels * (size / 1e9)
        for axis, name in enumerate("zyx"):
            columns |= {f"{name}0": chosen.starts[:, axis], f"{name}1": chosen.stops[:, axis]}
        columns |= {n: np.concatenate([p[n] for p in parts])[order] for n in parts[0].columns if n != "id"}
        write_table(self.folder / NEURONS, columns)
        told = {name: (_WORDS[name], columns[name]) for name in _WORDS if name in columns}
        write_segment_properties(self.folder / PROPERTIES, chosen.ids.tolist(), told)
        if self.job.skeletons is not None and "nml" in self.job.skeletons.formats:
            self._nml(volume)

    def _nml(self, volume: Volume) -> None:
        where = next(path for path in (self.folder / "swc", self.folder / "run" / "swc") if path.is_dir())
        size = volume.info.grid.voxel_size_nm
        tracings = [replace(each, voxel_size_nm=size) for each in read_swc_tracings(where, unit_nm=1.0)]
        write_nml(self.folder / NML, merged(tracings) if len(tracings) > 1 else tracings[0], overwrite=True)


_WORDS = {
    "voxels": "voxels of the segment",
    "volume_um3": "volume in cubic micrometres",
    "area_um2": "area of the mesh in square micrometres",
    "length_um": "length of the skeleton in micrometres",
}


def replace_output(job: ExportNeuronsJob) -> ExportNeuronsJob:
    """Return a job without its output: workers are told where the result grows."""
    return job.model_copy(update={"output": ""})


def _near(cells: Sequence[Block], chosen: Census) -> list[Block]:
    """Return the blocks whose cubes may touch the chosen segments: their homes, and those just before."""
    homes = {home for each in chosen.homes for home in each}
    steps = [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    return [
        cell
        for cell in cells
        if any((cell.index[0] + z, cell.index[1] + y, cell.index[2] + x) in homes for z, y, x in steps)
    ]


def _homes(folder: Path, cells: Sequence[Block]) -> dict[int, list[Vec]]:
    """Return the blocks that hold triangles of each segment."""
    homes: dict[int, list[Vec]] = {}
    for cell in cells:
        ids = np.unique(read_arrow(folder / surface_part(cell.index), ["id"]).column("id").to_numpy())
        for segment in ids.tolist():
            homes.setdefault(segment, []).append(cell.index)
    return homes


def _groups(chosen: Census, surfaces: dict[int, list[Vec]]) -> Iterator[Neurons]:
    """Yield groups of neurons that begin near each other."""
    order = sorted(range(len(chosen.ids)), key=lambda row: (chosen.homes[row][0], int(chosen.ids[row])))
    group: list[int] = []
    number = held = 0
    for row in order:
        if group and (len(group) == _MOST_IDS or held + int(chosen.voxels[row]) > _MOST_VOX):
            yield _group(number, group, chosen, surfaces)
            group, held, number = [], 0, number + 1
        group.append(row)
        held += int(chosen.voxels[row])
    yield _group(number, group, chosen, surfaces)


def _group(number: int, rows: Sequence[int], chosen: Census, surfaces: dict[int, list[Vec]]) -> Neurons:
    rows = sorted(rows)
    ids = tuple(int(chosen.ids[row]) for row in rows)
    return Neurons(
        (number, 0, 0),
        ids,
        tuple(Box.of(chosen.starts[row].tolist(), chosen.stops[row].tolist()) for row in rows),
        tuple(chosen.homes[row] for row in rows),
        tuple(sorted({home for segment in ids for home in surfaces.get(segment, [])})),
    )


def _reported(folder: Path) -> ExportedNeurons:
    record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    table = read_table(folder / NEURONS)
    coarser = int(np.count_nonzero(table["coarser"] != "1,1,1")) if "coarser" in table.columns else 0
    notes = (
        [f"{coarser} neurons are large: their skeletons were made at coarser voxels (column `coarser`)"]
        if coarser
        else []
    )
    return ExportedNeurons(folder, len(table), int(record["segments"]), coarser, tuple(notes))
