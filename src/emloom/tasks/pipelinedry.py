"""What a pipeline would do, and what it would cost, without doing it (`emloom run --dry-run`, `emloom status`).

Time: what a stage took here before; otherwise its network is timed on a piece (`emloom.tasks.pipelinecost`), or
`RATES`. Rates and bytes are rounded up from two runs in one process: the demo (2.5 million voxels of 8 nm, on a
core of 2.3 GHz that had other work), and ISBI-2012 (5.2 million of 50 x 4 x 4 nm). Memory per voxel is assumed.
All of it is an estimate: other data and disks differ by factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

from emloom.errors import InputError
from emloom.io.open import open_volume
from emloom.io.room import free_bytes
from emloom.io.volume import VolumeInfo
from emloom.tasks.info import bytes_text
from emloom.tasks.pipelinespec import PipelineJob
from emloom.tasks.pipelinestages import Layout, stages_of
from emloom.tasks.pipelinestatus import Record, Standing, to_do

BYTES: Mapping[str, float] = {
    "qc": 0.6,
    "align": 1.6,
    "carry": 0.1,
    "repair": 1.7,
    "mask": 0.1,
    "predict": 8.0,
    "segment": 2.0,
    "confidence": 1.0,
    "predict-synapses": 2.0,
    "synapses": 0.6,
    "connectome": 0.2,
    "restore": 0.5,
    "evaluate": 2.5,
}
"""Bytes on disk per voxel of the stack, compressed; trainings count as nothing."""
RATES: Mapping[str, float] = {
    "qc": 0.5,
    "align": 0.5,
    "carry": 0.05,
    "repair": 0.5,
    "mask": 0.05,
    "predict": 1.0,
    "segment": 0.3,
    "confidence": 1.0,
    "predict-synapses": 0.5,
    "synapses": 0.6,
    "connectome": 0.3,
    "restore": 0.1,
    "evaluate": 1.0,
}
"""Seconds of one core per million voxels, beside `_BEGIN_S`."""
MEMORY: Mapping[str, float] = {"predict": 120.0, "predict-synapses": 120.0, "segment": 60.0, "align": 40.0}
"""Bytes of memory per voxel of a block, assumed; others: 16."""
CELLS: Mapping[str, tuple[int, int, int]] = {
    "qc": (16, 512, 512),
    "align": (16, 512, 512),
    "carry": (64, 512, 512),
    "repair": (64, 512, 512),
    "mask": (64, 512, 512),
    "predict": (128, 128, 128),
    "segment": (256, 256, 256),
    "confidence": (256, 256, 256),
    "predict-synapses": (128, 128, 128),
    "synapses": (64, 256, 256),
    "connectome": (128, 512, 512),
    "restore": (64, 512, 512),
    "evaluate": (128, 512, 512),
}
"""Voxels that are worked on at once."""
_BEGIN_S = 2.0  # of a stage: compiled code is loaded, files are made
_BASE_BYTES = 600 * 2**20  # of a process with everything loaded
_RESERVE = 1.1  # of the disk estimate


@dataclass(frozen=True)
class Forecast:
    """What one stage would do.

    Attributes:
        stage: its name.
        state: as of `pipelinestages.Standing`.
        why: it would be done, or not.
        will_run: whether it would be done.
        blocks: pieces of work; None where that is not known before.
        voxels: of the stack that it looks at.
        disk_bytes: what it would write, about.
        memory_bytes: the most that one process would hold, about.
        seconds: it would take, or took where it is done; None where nobody knows.
        source: of the seconds: `here` (measured in this folder), `timed` (its network, on a piece), `table`, or
            empty.
    """

    stage: str
    state: str
    why: str
    will_run: bool
    blocks: int | None
    voxels: int
    disk_bytes: int
    memory_bytes: int
    seconds: float | None
    source: str

    @property
    def text(self) -> str:
        """What a person reads of the state."""
        if self.state == "done":
            return f"done ({self.why})" if self.why else "done"
        return {"new": "new", "interrupted": "interrupted: goes on"}.get(self.state, "") or (
            self.why if self.state == "after" else f"changed: {self.why}"
        )


@dataclass(frozen=True)
class DryRun:
    """What a pipeline would do; `fits`: whether the disk can take it."""

    folder: str
    stages: tuple[Forecast, ...]
    free_bytes: int

    @property
    def disk_bytes(self) -> int:
        """What would be written in all."""
        return sum(stage.disk_bytes for stage in self.stages if stage.will_run)

    @property
    def seconds(self) -> float:
        """What it would take in all, about."""
        return sum(stage.seconds or 0.0 for stage in self.stages if stage.will_run)

    @property
    def fits(self) -> bool:
        """Whether the disk can take it."""
        return self.disk_bytes * _RESERVE <= self.free_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "folder": self.folder,
            "stages": [{**asdict(stage), "text": stage.text} for stage in self.stages],
            "disk_bytes": self.disk_bytes,
            "free_bytes": self.free_bytes,
            "fits": self.fits,
            "seconds": round(self.seconds, 1),
            "estimate": True,
        }


def dry_run(job: PipelineJob, folder: str | Path, cores: int = 1) -> DryRun:
    """Return what `emloom run` would do in a folder; nothing is written.

    Args:
        job: the pipeline.
        folder: where it would run.
        cores: processes that would work on blocks.

    Raises:
        InputError: an input from outside does not exist, or the raw does not open.
    """
    layout = Layout(job, Path(folder).absolute())
    standings = Record(layout.folder).standings(stages_of(job))
    forecasts = forecast(layout, standings, to_do(standings), cores)
    return DryRun(str(folder), tuple(forecasts), free_bytes(layout.folder))


def forecast(layout: Layout, standings: Sequence[Standing], todo: set[str], cores: int = 1) -> list[Forecast]:
    """Return what every stage would do; raises `InputError` where the raw does not open."""
    job = layout.job
    raw = open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw").info
    n = prod(raw.shape)
    out = []
    for standing in standings:
        name = standing.stage.name
        works = name in CELLS
        found = _network(layout.job, name, raw) if standing.seconds is None else None
        seconds, source = _seconds(standing, found, n, cores)
        out.append(
            Forecast(
                stage=name,
                state=standing.state,
                why=standing.why,
                will_run=name in todo,
                blocks=_blocks(raw, name) if works else None,
                voxels=n if works else 0,
                disk_bytes=_disk(raw, name),
                memory_bytes=(found.memory_bytes if found else 0) or _memory(raw, name),
                seconds=seconds,
                source=source,
            )
        )
    return out


def require_disk(layout: Layout, standings: Sequence[Standing], todo: set[str]) -> None:
    """Raise `InputError` where the disk cannot take what would be written."""
    raw = open_volume(layout.job.raw, voxel_size_nm=layout.job.voxel_size_nm, kind="raw").info
    names = [s.stage.name for s in standings if s.stage.name in todo]
    needed = sum(_disk(raw, name) for name in names) * _RESERVE
    free = free_bytes(layout.folder)
    if needed > free:
        raise InputError(
            f"the pipeline would write about {bytes_text(needed)} into {layout.folder}, and {bytes_text(free)} "
            "are free there: choose a folder on a larger disk (-o), remove what you do not need, or run a part of "
            "the stack"
        )


def _blocks(raw: VolumeInfo, name: str) -> int:
    return prod(ceil(n / c) for n, c in zip(raw.shape, CELLS[name], strict=True))


def _disk(raw: VolumeInfo, name: str) -> int:
    return round(prod(raw.shape) * BYTES.get(name, 0.0))


def _memory(raw: VolumeInfo, name: str) -> int:
    if name not in CELLS:
        return _BASE_BYTES
    block = prod(min(n, c) for n, c in zip(raw.shape, CELLS[name], strict=True))
    return _BASE_BYTES + round(block * MEMORY.get(name, 16.0))


_NETWORKS = {
    "neurons": "neurons",
    "predict": "neurons",
    "synapses-model": "synapses",
    "predict-synapses": "synapses",
}


class _Cost(NamedTuple):
    """Seconds, None where nobody knows, and memory of a training, 0 of a prediction."""

    seconds: float | None
    memory_bytes: int


def _network(job: PipelineJob, name: str, raw: VolumeInfo) -> _Cost | None:
    """Return what a stage costs that is mostly a network; None for the others."""
    if name not in _NETWORKS:
        return None
    from emloom.tasks import pipelinecost as cost  # torch takes seconds to import

    stage = getattr(job, _NETWORKS[name])
    model = cost.model_of(stage.source, raw.grid.voxel_size_nm)
    if model is None:
        return None
    if name.startswith("predict"):
        return _Cost(cost.prediction_seconds(model, prod(raw.shape), stage.orientations), 0)
    training = stage.source.job.training
    return _Cost(cost.training_seconds(model, training), cost.training_bytes(model, training))


def _seconds(standing: Standing, network: _Cost | None, n: int, cores: int) -> tuple[float | None, str]:
    name = standing.stage.name
    if standing.seconds is not None:
        return standing.seconds, "here"
    if network is not None and network.seconds is not None:
        return network.seconds + _BEGIN_S, "timed"
    if name in RATES:
        return _BEGIN_S + RATES[name] * n / 1e6 / max(1, cores), "table"
    if name in ("check", "report"):
        return _BEGIN_S, "table"
    return None, ""


def table_of(found: DryRun) -> list[list[str]]:
    """Return the rows of a table of stages for a terminal, headings first."""
    rows = [["stage", "", "why", "blocks", "Mvoxel", "disk", "memory", "time"]]
    for f in found.stages:
        time = "?" if f.seconds is None else duration(f.seconds)
        rows.append([
            f.stage,
            "run" if f.will_run else "skip",
            f.text,
            "" if f.blocks is None else str(f.blocks),
            f"{f.voxels / 1e6:.1f}" if f.voxels else "",
            bytes_text(f.disk_bytes) if f.disk_bytes else "",
            bytes_text(f.memory_bytes),
            f"{time} ({f.source})" if f.source == "here" else f"~{time}" if f.will_run or f.seconds else "",
        ])  # fmt: skip
    return rows


def duration(seconds: float) -> str:
    """Return seconds for a person: ``42 s``, ``12 min``, ``3.1 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


__all__ = ["DryRun", "Forecast", "dry_run", "duration", "forecast", "require_disk", "table_of"]
