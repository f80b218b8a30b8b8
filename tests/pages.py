"""Every kind of page that emloom writes, each made from a tiny volume: name -> what makes it in a folder.

A kind is here so that tests can look at all pages alike: open them in a browser, and hold them to one law. The
volumes are those of the tests of each kind. Kinds of `TRAINED` take a while: a model is trained on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from emloom.io.synapsetable import write_synapse_table
from emloom.nn.hardware import Hardware
from emloom.tasks import artifacts, forest, neurons, reconstruction, semantic
from emloom.tasks.alignreport import write_align_report
from emloom.tasks.anyjob import Where, carry_out
from emloom.tasks.artifactbaselines import compare_baselines
from emloom.tasks.artifactbaselinesreport import write_baselines_report
from emloom.tasks.artifactbaselinesspec import ArtifactBaselinesJob
from emloom.tasks.classify import ClassifyJob, classify
from emloom.tasks.classreport import write_class_report
from emloom.tasks.classscoring import evaluate_classes
from emloom.tasks.comparing import compare
from emloom.tasks.connectome import connectome
from emloom.tasks.frequency import measure_frequencies
from emloom.tasks.frequencyreport import write_frequency_report
from emloom.tasks.patchreport import write_patch_report
from emloom.tasks.patchscoring import evaluate_patches
from emloom.tasks.patchspec import PatchSpec
from emloom.tasks.qc import quality_control
from emloom.tasks.qcreport import write_qc_report
from emloom.tasks.qcspec import QcSpec
from emloom.tasks.refine import refine
from emloom.tasks.repairreport import write_repair_report
from emloom.tasks.scorereport import write_score_report
from emloom.tasks.scorespec import EvaluateSpec, SkeletonsSpec
from emloom.tasks.scoring import evaluate
from emloom.tasks.selecting import select
from emloom.tasks.study import run_study
from emloom.tasks.suggestslices import SuggestJob, suggest_slices
from emloom.tasks.synapsejob import PartnersJob
from emloom.tasks.synapsepage import write_synapses_page
from emloom.tasks.synapsereport import write_synapse_report
from emloom.tasks.synapsescoring import evaluate_synapses
from emloom.testing.phantom import Phantom, PhantomSpec
from tests.planted import crack, missing
from tests.tasks import (
    cubes,
    drawnsynapses,
    micrographs,
    synaptic,
    test_alignreport,
    test_artifactbaselines,
    test_artifacts,
    test_classscoring,
    test_connectome,
    test_forest,
    test_frequency,
    test_patchscoring,
    test_qc,
    test_refine,
    test_selecting,
    test_semantic,
    test_skeletonscoring,
    test_study,
    test_synapsejob,
    test_synapsepage,
    test_synapsescoring,
)
from tests.tasks.aligned import aligned_folder
from tests.tasks.repaired import repaired_folder
from tests.tasks.tracings import write_nml

HERE = Hardware("cpu", 1, 0)
Maker = Callable[[Path], Path]


def _qc(folder: Path) -> Path:
    raw = Phantom(PhantomSpec.sections((8, 256, 256), seed=11)).raw
    array = raw.read(raw.info.box).copy()
    for plant, z in ((missing, 2), (crack, 5)):
        plant(array, z, np.random.default_rng(4))
    path = test_qc.stored(folder / "raw.zarr", array, raw.info.grid)
    spec = QcSpec(raw=path, output=str(folder / "qc"))
    return write_qc_report(spec, quality_control(spec))


def _align(folder: Path) -> Path:
    aligned_folder(folder / "aligned", test_alignreport.tissue(), test_alignreport.PLANTED, bad=(4,))
    return write_align_report(folder / "aligned")


def _repair(folder: Path) -> Path:
    repaired_folder(folder / "fixed", test_alignreport.tissue((12, 150, 170)), left=(10,))
    return write_repair_report(folder / "fixed")


def _segmentation(folder: Path, name: str = "out") -> EvaluateSpec:
    """Slabs of which one is split and two are merged, and tracings through them."""
    write, slabs = test_skeletonscoring.write, test_skeletonscoring.slabs
    ids, raw = slabs(), np.arange(slabs().size).reshape(slabs().shape).astype(np.uint8)
    ids[:, :7, 8:] = 9
    ids[ids == 3] = 2
    return EvaluateSpec(
        segmentation=write(folder / "seg.zarr", ids),
        truth=write(folder / "truth.zarr", slabs()),
        output=str(folder / name),
        metrics=("voi", "arand", "nerl", "edges"),
        raw=write(folder / "raw.zarr", raw, "raw"),
        skeletons=SkeletonsSpec(path=write_nml(folder / "t.nml", test_skeletonscoring.ALONG_X)),
    )


def _evaluate(folder: Path) -> Path:
    spec = _segmentation(folder)
    return write_score_report(spec, evaluate(spec))


def _compare(folder: Path) -> Path:
    first = _segmentation(folder, "first")
    perfect = test_skeletonscoring.write(folder / "perfect.zarr", test_skeletonscoring.slabs())
    second = first.model_copy(update={"segmentation": perfect, "output": str(folder / "second")})
    evaluate(first)
    evaluate(second)
    return compare([first.output, second.output], str(folder / "both"))


def _classes(folder: Path) -> Path:
    truth, predicted = test_classscoring.tissue(0)
    spec = test_classscoring.spec_of(folder / "classes", truth, predicted)
    return write_class_report(spec, evaluate_classes(spec))


def _scored_synapses(folder: Path) -> Path:
    spec = test_synapsescoring.spec_of(folder)
    return write_synapse_report(spec, evaluate_synapses(spec))


def _patches(folder: Path) -> Path:
    found, truth, _, _ = test_patchscoring.made_up(folder / "test", 1)
    array = np.random.default_rng(0).integers(0, 255, (14, 40, 40)).astype(np.uint8)
    raw = test_patchscoring.write_volume(folder / "raw.zarr", array, test_patchscoring.GRID)
    spec = PatchSpec(found=found, truth=truth, output=str(folder / "scores"), raw=raw, bootstrap={"resamples": 20})
    return write_patch_report(spec, evaluate_patches(spec))


def _selected(folder: Path) -> Path:
    select(test_selecting.spec(folder))
    return folder / "out" / "index.html"


def _synapses(folder: Path) -> Path:
    truth = test_synapsepage.table(40)
    raw = test_synapsepage.volume(
        folder / "raw.zarr",
        np.random.default_rng(3).integers(80, 170, test_synapsepage.SHAPE).astype(np.uint8),
        "raw",
    )
    segments = test_synapsepage.volume(folder / "seg.zarr", test_synapsepage.neurons(), "labels")
    write_synapse_table(folder / "truth.csv", truth)
    found = test_synapsepage.folder_of(folder, truth.rows(np.arange(6, 40)))
    return write_synapses_page(found, raw, segments, str(folder / "truth.csv"))


def _connectome(folder: Path) -> Path:
    made = connectome(test_connectome.job(folder, drawnsynapses.drawn(10), drawnsynapses.labels(10)))
    return made.folder / "report.html"


def _classify(folder: Path) -> Path:
    raw, predicted, _ = test_refine.scene(folder)
    rule = {"inside": "mitochondrion", "wall": "membrane", "specks_nm": 9.0}
    job = {"probabilities": predicted, "raw": raw, "names": test_refine.NAMES, "rules": [rule]}
    return classify(ClassifyJob.from_dict({**job, "output": str(folder / "o.zarr")}))


def _refine(folder: Path) -> Path:
    return refine(test_refine.job(test_refine.scene(folder), folder / "out.zarr"))


def _suggest(folder: Path) -> Path:
    raw, predicted, _ = test_refine.scene(folder)
    job = {"probabilities": predicted, "raw": raw, "names": test_refine.NAMES, "output": str(folder / "next")}
    window = {"size_vox": 16, "count": 2, "step_vox": 2}
    return suggest_slices(SuggestJob.from_dict({**job, "window": window})) / "report.html"


def _frequency(folder: Path) -> Path:
    seen = test_frequency.image(0)
    spec = test_frequency.spec_of(folder, seen, test_frequency.noisy(seen), rings=7)
    return write_frequency_report(spec, measure_frequencies(spec))


def _baselines(folder: Path) -> Path:
    values, labels = test_artifactbaselines.tissue()
    job = ArtifactBaselinesJob.from_dict(
        {
            "raw": micrographs.write(folder / "raw.zarr", values),
            "labels": test_artifactbaselines.folder_of(folder / "splits", labels),
            "output": str(folder / "out"),
            "model": test_artifactbaselines.write_model(folder / "model.safetensors"),
            "bootstrap": {"resamples": 20},
            "baselines": test_artifactbaselines.FEW,
        }
    )
    return write_baselines_report(job, compare_baselines(job))


KINDS: Mapping[str, Maker] = {
    "qc": _qc,
    "align": _align,
    "repair": _repair,
    "evaluate": _evaluate,
    "compare": _compare,
    "classes": _classes,
    "scored synapses": _scored_synapses,
    "patches": _patches,
    "selected patches": _selected,
    "synapses": _synapses,
    "connectome": _connectome,
    "classify": _classify,
    "refine": _refine,
    "suggest": _suggest,
    "frequency": _frequency,
    "baselines": _baselines,
}


# ---- pages of a training --------------------------------------------------------------------------------------


def _neurons(folder: Path) -> Path:
    neurons.run(cubes.job(cubes.write_stack(folder / "stack.h5")), folder / "out", HERE)
    return folder / "out" / "report.html"


def _semantic(folder: Path) -> Path:
    semantic.run(test_semantic.job(test_semantic.write_stack(folder / "stack.h5")), folder / "out", HERE)
    return folder / "out" / "report.html"


def _forest(folder: Path) -> Path:
    forest.run(test_forest.job(test_forest.write_stack(folder / "stack.h5")), folder / "out")
    return folder / "out" / "report.html"


def _artifacts(folder: Path) -> Path:
    artifacts.run(test_artifacts.job_of(test_artifacts.write_tissue(folder / "tissue.h5")), folder / "out", HERE)
    return folder / "out" / "report.html"


def _reconstruction(folder: Path) -> Path:
    raw = micrographs.write(folder / "raw.zarr", micrographs.image())
    reconstruction.run(micrographs.job(raw), folder / "out", HERE)
    return folder / "out" / "report.html"


def _partners(folder: Path) -> Path:
    tissue = synaptic.write_tissue(folder / "tissue", synaptic.tissue())
    job = PartnersJob.from_dict(test_synapsejob.partners(tissue))
    return carry_out(job, folder / "out", Where(HERE))


def _study(folder: Path) -> Path:
    raw = micrographs.write(folder / "raw.zarr", micrographs.image())
    return run_study(test_study.study(raw), folder / "out", HERE)


TRAINED: Mapping[str, Maker] = {
    "neurons": _neurons,
    "semantic": _semantic,
    "forest": _forest,
    "artifacts": _artifacts,
    "reconstruction": _reconstruction,
    "partners": _partners,
    "study": _study,
}
