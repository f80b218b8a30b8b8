"""`emloom synapses`: from raw, or a prediction, and a segmentation to a table of synapses, cell by cell.

::

    OUT/synapses.parquet    the table (`emloom.geometry.synapses`)
    OUT/notes.json          what was counted on the way: components, autapses, sites in the mask, ...
    OUT/sites.zarr/         voxels of the sites: post/ labelled by synapse, pre/ and cleft/ by polyad
    OUT/prediction.zarr     the heads, where a model was given
    OUT/cells/              what cells told each other
    OUT/report.html, OUT/provenance.json

The table is the same, bit for bit, for any cells, workers, order, crash and resume.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.geometry.synapses import SynapseTable
from emloom.io.open import open_volume
from emloom.io.synapsetable import FINGERPRINT, SEGMENTATION, SYNAPSES, read_synapse_table
from emloom.nn.checkpoint import load_checkpoint
from emloom.nn.engine import Engine
from emloom.nn.model import ModelSpec
from emloom.run.executor import Executor, Serial
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.workspace import Workspace
from emloom.tasks.lattice import common_box
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.qcmask import source_of
from emloom.tasks.synapsedecode import DEFAULT_SCALE_NM
from emloom.tasks.synapsedecoders import (
    CleftsDecoder,
    Decoder,
    PolarityDecoder,
    ProximityDecoder,
    SitesDecoder,
    SynapsesJob,
    VectorsDecoder,
)
from emloom.tasks.synapsepage import write_synapses_page
from emloom.tasks.synapsescene import HEADS
from emloom.tasks.synapsestages import NOTES, Place, heads_in, open_scene, stages_of
from emloom.view.report import Section, Table

PREDICTION = "prediction.zarr"
OnBlock = Callable[[str, int, int], None]
_DECODERS: dict[str, type[Any]] = {
    "sites": SitesDecoder,
    "vectors": VectorsDecoder,
    "proximity": ProximityDecoder,
    "polarity": PolarityDecoder,
    "clefts": CleftsDecoder,
}


def find_synapses(
    job: SynapsesJob,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
    discard: bool = False,
    engine: Engine | None = None,
    again: bool = False,
) -> Path:
    """Find synapses, or go on where an earlier call stopped.

    Args:
        job: what to do.
        executor: where blocks run; default in this process.
        on_block: called with (stage, blocks done, blocks in all).
        discard: delete the unfinished or finished result of another job in the output's place.
        engine: what computes predictions.
        again: go on with a finished result, too: blocks whose markers were removed are made again.

    Returns:
        Path of the output folder.

    Raises:
        InputError: an input is missing, on another grid or no such thing; the prediction, or the model, has not
            the heads the decoder reads; the output exists or belongs to another job; blocks failed.
    """
    started = time.perf_counter()
    executor = executor or Serial()
    decoder = resolved(job)
    _look_first(job, decoder)
    space = Workspace(job.output)
    paths = {"prediction": job.prediction, "raw": job.raw, "model": job.model, "segmentation": job.segmentation}
    sides = decoder.sides if isinstance(decoder, CleftsDecoder) else None
    inputs = space.claim("synapses", job, {**paths, "mask": source_of(job.mask), "sides": sides}, discard)
    if space.finished and not again:
        return space.output
    folder = space.folder.absolute()
    seconds: dict[str, float] = {}
    prediction = job.prediction
    if prediction is None:
        prediction = str(folder / PREDICTION)
        _predict(job, prediction, executor, on_block, engine)
        seconds["predict"] = time.perf_counter() - started
    words = {
        "decoder": decoder.kind,
        SEGMENTATION: _anywhere(job.segmentation),
        FINGERPRINT: inputs["segmentation"],
        "oriented": "yes" if is_oriented(decoder) else "no",
    }
    place = Place(job, decoder, prediction, folder, words)
    for stage in stages_of(place, inputs):

        def tell(done: int, total: int, name: str = stage.name) -> None:
            if on_block is not None:
                on_block(name, done, total)

        report = run_stage(stage, folder, executor, progress=tell)
        seconds[stage.name] = report.seconds
    seconds["all"] = time.perf_counter() - started
    write_provenance(
        folder / "provenance.json", job.to_dict() | {"decoder": decoder.to_dict()}, inputs, seconds, words
    )
    _write_page(folder, place)
    space.finish()
    return space.output


def is_oriented(decoder: Decoder) -> bool:
    """Whether it is known which side of a contact is pre."""
    return not (isinstance(decoder, CleftsDecoder) and decoder.assign == "dilate_nearest")


def read_result(folder: str | Path) -> tuple[SynapseTable, dict[str, int]]:
    """Return the table of a finished result, and what was counted; raises `InputError` where there is none."""
    table = read_synapse_table(folder)
    notes: dict[str, int] = json.loads((Path(folder) / NOTES).read_text(encoding="utf-8"))
    return table, notes


def resolved(job: SynapsesJob) -> Decoder:
    """Return the decoder of a job with nothing left open.

    Raises:
        InputError: nothing decodes what the prediction or the model says, or several decoders could.
    """
    model = None if job.model is None else _model_of(job.model)
    there = sorted(model.objective.heads) if model is not None else heads_in(str(job.prediction))
    decoder = job.decoder
    if decoder is None:
        kinds = [kind for kind, heads in HEADS.items() if set(heads) <= set(there)]
        if len(kinds) != 1:
            raise InputError(
                f"{job.model or job.prediction} has {', '.join(there) or 'no head of synapses'}: "
                + ("say which decoder to use" if kinds else "decoders read " + ", ".join(HEADS))
                + (f" ({', '.join(kinds)})" if kinds else "; give a prediction or model of synapses")
            )
        decoder = _DECODERS[kinds[0]]()
    missing = [name for name in HEADS[decoder.kind] if name not in there]
    if missing:
        raise InputError(
            f"{job.model or job.prediction} has no head {missing[0]!r}, which decoder {decoder.kind!r} reads (it "
            f"has: {', '.join(there) or 'none that a decoder reads'}): choose a decoder for what is there"
        )
    if isinstance(decoder, VectorsDecoder) and decoder.scale_nm is None:
        decoder = decoder.model_copy(update={"scale_nm": _scale_nm(job, model)})
    assert isinstance(decoder, SitesDecoder | VectorsDecoder | ProximityDecoder | PolarityDecoder | CleftsDecoder)
    return decoder


def _anywhere(path: str) -> str:
    """Return a path that means the same in every folder."""
    return path if "://" in path else str(Path(path).resolve())


def _model_of(path: str) -> ModelSpec:
    _, text, _ = load_checkpoint(Path(path))
    return ModelSpec.from_yaml(text, f"the spec inside {path}")


def _scale_nm(job: SynapsesJob, model: ModelSpec | None) -> float:
    """Return the scale of vectors that the model was trained with; a prediction says which model that was."""
    if model is None:
        try:
            record = json.loads((Path(str(job.prediction)) / "provenance.json").read_text(encoding="utf-8"))
            model = _model_of(record["spec"]["model"])
        except (OSError, ValueError, KeyError, TypeError):
            return DEFAULT_SCALE_NM
    return float(getattr(model.objective, "vector_scale_nm", DEFAULT_SCALE_NM))


def _look_first(job: SynapsesJob, decoder: Decoder) -> None:
    """Raise `InputError` for what can be known before anything is computed."""
    if job.prediction is not None:
        open_scene(job, decoder, job.prediction)
        return
    raw = open_volume(str(job.raw), voxel_size_nm=job.predicting.voxel_size_nm, kind="raw")
    common_box(raw, open_volume(job.segmentation, kind="labels"))


def _predict(
    job: SynapsesJob, output: str, executor: Executor, on_block: OnBlock | None, engine: Engine | None
) -> None:
    options = job.predicting.to_dict()
    spec = PredictJob(raw=str(job.raw), model=str(job.model), output=output, **options)

    def tell(done: int, total: int) -> None:
        if on_block is not None:
            on_block("predict", done, total)

    predict_volume(spec, engine, tell, executor)


def _write_page(folder: Path, place: Place) -> None:
    table, notes = read_result(folder)
    counted = Section("What was counted", " ".join(told(len(table), place.decoder)), tables=[_counts(notes)])
    write_synapses_page(folder, place.job.raw, place.job.segmentation, None, counted)


def told(n: int, decoder: Decoder) -> list[str]:
    """Return what has to be said of a result, in sentences."""
    said = [f"{n} synapses by decoder {decoder.kind!r}; the table is {SYNAPSES}."]
    if not n:
        said.append("No synapse was found: the table is empty, and the counts say where sites were lost.")
    if not is_oriented(decoder):
        said.append("Orientation is not known: pre stands for the segment with more voxels beside the cleft.")
    return said


def _counts(notes: dict[str, int]) -> Table:
    return Table(("what", "how many"), list(notes.items()), "Counted on the way")
