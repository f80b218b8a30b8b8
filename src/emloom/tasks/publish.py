"""`emloom publish`: a whole result in one folder that neuroglancer, or webKnossos, opens as it is.

::

    OUT/raw.precomputed/            with coarser levels
        segmentation.precomputed/   likewise; in it mesh/, skeletons/, segment_properties/, which its info names
        swc/17.swc, neurons.parquet
        synapses/                   annotations: lines from pre to post, related to segments
        connectome.graphml, neuprint/, cremi.h5
        neuroglancer.json           a state that opens all of it, where an address is given
        provenance.json

    OUT/dataset.wkw/                for webKnossos: color/, segmentation/, datasource-properties.json

What a result does not hold is left out, and said. Any web server that is allowed to answer other hosts' pages
(CORS) can hand the folder out. Steps that are done are skipped when the same command is given again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.io.annotationlayers import RELATIONSHIPS, write_annotation_layer
from emloom.io.files import write_text_atomic
from emloom.io.nodes import load_json
from emloom.io.open import open_volume
from emloom.run.executor import Executor, Serial
from emloom.run.provenance import write_provenance
from emloom.run.workspace import RECORD, Workspace
from emloom.spec import Spec
from emloom.tasks.connectomeexport import ExportGraphSpec, export_graph
from emloom.tasks.convert import Progress
from emloom.tasks.export import ExportSpec, export
from emloom.tasks.exportneurons import NEURONS, export_neurons, labels_path
from emloom.tasks.exportneuronsspec import CentreLineSpec, ExportNeuronsJob, MeshSpec
from emloom.tasks.pyramid import PyramidSpec, pyramid
from emloom.tasks.synapsesource import read_any_synapses
from emloom.tasks.viewfolder import holding_of

OnStep = Callable[[str, int, int], None]
RAW, SEGMENTATION, SYNAPSES, STATE = "raw.precomputed", "segmentation.precomputed", "synapses", "neuroglancer.json"
DATASET = "dataset.wkw"
_EDGES = "edges.parquet"


class PublishJob(Spec):
    """Publish a result (`emloom publish`)."""

    output: str
    """Folder to be made."""
    source: str | None = None
    """Folder of a pipeline, or of any result; what is given below comes first."""
    to: Literal["neuroglancer", "webknossos"] = "neuroglancer"
    """What it is for."""
    raw: str | None = None
    """The stack."""
    segmentation: str | None = None
    """Labels, or a container of `emloom segment`."""
    synapses: str | None = None
    """Table of synapses, or a folder that holds one."""
    min_size_vox: int = Field(default=0, ge=0)
    """Segments of fewer voxels get no mesh and no skeleton; their voxels stay."""
    meshes: MeshSpec | None = MeshSpec()
    """None: no meshes."""
    skeletons: CentreLineSpec | None = CentreLineSpec()
    """None: no skeletons."""
    address: str | None = None
    """Where the folder will be on the web, for the state of neuroglancer: ``https://example.org/mine``."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.source is None and self.raw is None and self.segmentation is None:
            raise ValueError("nothing to publish: give the folder of a result, or a raw, or a segmentation")
        if self.to == "webknossos" and self.address is not None:
            raise ValueError("address: webKnossos datasets have no state of neuroglancer; leave it out")
        return self


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        folder: of the result.
        parts: what is in it, by name: what was taken.
        missing: what the result does not hold.
    """

    folder: Path
    parts: dict[str, str]
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"folder": str(self.folder), "parts": self.parts, "missing": list(self.missing)}

    def to_text(self) -> str:
        """Return lines for a person."""
        lines = [f"{self.folder}:"] + [f"  {name}: of {source}" for name, source in self.parts.items()]
        return "\n".join(lines + [f"  not there: {name}" for name in self.missing])


@dataclass(frozen=True)
class Sources:
    """What is published; None where there is none."""

    raw: str | None
    segmentation: str | None
    synapses: str | None
    connectome: Path | None


def publish(
    job: PublishJob, on_step: OnStep | None = None, executor: Executor | None = None, discard: bool = False
) -> Published:
    """Publish a result in a folder that appears only when it is whole; go on where a crash stopped.

    Args:
        job: what to publish.
        on_step: called with (step, cells done, cells in all).
        executor: where the blocks of meshes and skeletons run; default in this process.
        discard: delete the result of another job in the output's place.

    Raises:
        InputError: there is nothing to publish, a volume cannot be said in the format, the extra `emloom[meshes]`
            is missing, or the output exists.
    """
    started = time.perf_counter()
    sources = sources_of(job)
    space = Workspace(job.output)
    paths = {"raw": sources.raw, "segmentation": sources.segmentation, "synapses": sources.synapses}
    if not (space.finished and not (space.output / RECORD).exists()):
        inputs = space.claim("publish", job, paths, discard)
    else:
        raise InputError(f"{space.output} exists: choose another output, or delete it")
    folder = space.folder
    step = _Step(job, sources, folder, executor or Serial(), on_step)
    parts = dict(step.for_webknossos() if job.to == "webknossos" else step.for_neuroglancer())
    write_provenance(folder / "provenance.json", job.to_dict(), inputs, {"publish": time.perf_counter() - started})
    space.finish()
    # It is given away: what only helps to go on stays behind.
    shutil.rmtree(space.output / "run", ignore_errors=True)
    wanted = {"raw": sources.raw, "segmentation": sources.segmentation, "synapses": sources.synapses}
    return Published(space.output, parts, tuple(name for name, path in wanted.items() if path is None))


def sources_of(job: PublishJob) -> Sources:
    """Return what a job publishes: what it names, else what the folder of the result holds.

    Raises:
        InputError: the folder holds nothing, or neither a raw nor a segmentation is left.
    """
    held: dict[str, str] = {}
    synapses, connectome = job.synapses, None
    if job.source is not None:
        holding = holding_of(job.source)
        if not holding:
            raise InputError(f"{job.source} holds no result to publish: give the folder of a pipeline, or --raw")
        held = {part.name: part.path for part in holding.parts}
        synapses = synapses or (None if holding.synapses is None else str(holding.synapses))
        homes = (Path(job.source), Path(job.source) / "connectome")
        connectome = next((home for home in homes if (home / _EDGES).is_file()), None)
    raw = job.raw or held.get("raw")
    segmentation = job.segmentation or held.get("segmentation") or held.get("labels")
    if raw is None and segmentation is None:
        raise InputError(f"{job.source} holds neither a raw nor a segmentation: give --raw or --segmentation")
    return Sources(raw, None if segmentation is None else labels_path(segmentation), synapses, connectome)


@dataclass(frozen=True)
class _Step:
    """The steps of one publication; each yields what it made."""

    job: PublishJob
    sources: Sources
    folder: Path
    executor: Executor
    on_step: OnStep | None

    def for_webknossos(self) -> Iterator[tuple[str, str]]:
        layers = (("color", self.sources.raw, "raw"), ("segmentation", self.sources.segmentation, "labels"))
        for name, source, kind in layers:
            if source is not None:
                self._volume(f"{DATASET}/{name}", source, kind, "wkw")
                yield f"{DATASET}/{name}", source

    def for_neuroglancer(self) -> Iterator[tuple[str, str]]:
        sources = self.sources
        for name, source, kind in ((RAW, sources.raw, "raw"), (SEGMENTATION, sources.segmentation, "labels")):
            if source is not None:
                self._volume(name, source, kind, "precomputed")
                yield name, source
        if sources.segmentation is not None and (self.job.meshes or self.job.skeletons):
            self._neurons(sources.segmentation)
            yield "meshes, skeletons, SWC", sources.segmentation
        if sources.synapses is not None:
            self._synapses(sources.synapses)
            yield SYNAPSES, sources.synapses
        if sources.connectome is not None:
            for name, form in (("connectome.graphml", "graphml"), ("neuprint", "neuprint"), ("cremi.h5", "cremi")):
                spec = {"graph": str(sources.connectome), "to": form, "output": str(self.folder / name)}
                export_graph(ExportGraphSpec.from_dict({**spec, "overwrite": True}, "publish"))
                yield name, str(sources.connectome)
        if self.job.address is not None:
            state = json.dumps(self._state(self.job.address.rstrip("/")), indent=1)
            write_text_atomic(self.folder / STATE, state)
            yield STATE, self.job.address

    def _tell(self, name: str) -> Progress | None:
        return None if self.on_step is None else partial(self.on_step, name)

    def _volume(self, name: str, source: str, kind: str, form: str) -> None:
        target = self.folder / name
        if not target.exists():
            given = {"source": source, "target": str(target), "to": form, "kind": kind}
            export(ExportSpec.from_dict(given, "publish"), self._tell(name))
        if not self._has_levels(target):
            pyramid(PyramidSpec(image=str(target)), self._tell(f"{name} pyramid"))

    def _has_levels(self, target: Path) -> bool:
        if target.suffix == ".precomputed":
            return len((load_json(target / "info") or {"scales": []})["scales"]) > 1
        return len([each for each in target.iterdir() if each.is_dir()]) > 1

    def _neurons(self, segmentation: str) -> None:
        home = self.folder / SEGMENTATION
        info = load_json(home / "info") or {}
        if "segment_properties" in info:
            return
        made = self.folder / "neurons"
        job = ExportNeuronsJob(
            segmentation=segmentation,
            output=str(made),
            min_size_vox=self.job.min_size_vox,
            meshes=self.job.meshes,
            skeletons=self.job.skeletons,
            synapses=self.sources.synapses if self.job.skeletons is not None else None,
        )
        if not (home / "segment_properties").exists():
            export_neurons(job, self.on_step, self.executor)
        for part in ("mesh", "skeletons", "segment_properties"):
            if (made / part).is_dir():
                (made / part).rename(home / part)
        for part in ("swc", "ply", "obj", NEURONS, "skeletons.nml"):
            if (made / part).exists():
                (made / part).rename(self.folder / part)
        named = {part: part for part in ("mesh", "skeletons", "segment_properties") if (home / part).is_dir()}
        # Last of all: an info that names a part has it.
        write_text_atomic(home / "info", json.dumps(info | named, indent=2))
        shutil.rmtree(made, ignore_errors=True)

    def _synapses(self, synapses: str) -> None:
        path = self.sources.segmentation
        volume = None if path is None else open_volume(path, kind="labels")
        table = read_any_synapses(synapses, volume)
        write_annotation_layer(self.folder / SYNAPSES, table, self._voxel_size(), overwrite=True)

    def _voxel_size(self) -> Vec3:
        path = self.sources.segmentation or self.sources.raw
        return (1.0, 1.0, 1.0) if path is None else open_volume(path).info.grid.voxel_size_nm

    def _state(self, address: str) -> dict[str, Any]:
        layers: list[dict[str, Any]] = []
        if self.sources.raw is not None:
            layers.append({"type": "image", "name": "raw", "source": f"precomputed://{address}/{RAW}"})
        if self.sources.segmentation is not None:
            source = f"precomputed://{address}/{SEGMENTATION}"
            layers.append({"type": "segmentation", "name": "segmentation", "source": source})
        if self.sources.synapses is not None:
            layer = {"type": "annotation", "name": "synapses", "source": f"precomputed://{address}/{SYNAPSES}"}
            if self.sources.segmentation is not None:
                layer["linkedSegmentationLayer"] = dict.fromkeys(RELATIONSHIPS, "segmentation")  # type: ignore[assignment]
            layers.append(layer)
        return {"layers": layers, "layout": "4panel"}
