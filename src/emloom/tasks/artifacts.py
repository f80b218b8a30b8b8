"""A job that finds artifacts: train, predict what was held out, choose a threshold, score, report.

Everything of a job lives in one folder::

    job.yaml  provenance.json  report.html
    train/      model.safetensors, state, history, tensorboard
    predict/    <scene>.zarr/<class>      map of logits; <scene> = s0_validation_0, s0_test_0, ..., foreign names;
                                      of tissue without labels s0_test_0_planting_0, ...
                <scene>.zarr/raw, planted of tissue without labels: what was planted, and where
                <scene>.csv, <scene>.truth.csv   probability and label of every patch
    evaluate/   scores.json, scores.csv   all test boxes together, then each scene
                operating.json            threshold and calibration, from the validation boxes
                all/, <scene>/            scores, curves and a page of each
    markers/    one per finished step

How steps are skipped, gone on with and refused: `emloom.tasks.steps`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from emloom.geometry import Box, Grid
from emloom.geometry.patches import NO, YES, PatchLabels, joined
from emloom.geometry.patchscores import PatchScores
from emloom.io.files import staged, write_text_atomic
from emloom.io.open import create_volume
from emloom.io.patchscores import read_scores, write_scores
from emloom.io.patchtables import read_patches, write_patches
from emloom.io.volume import Volume, VolumeInfo
from emloom.nn.crops import TrainingVolume
from emloom.nn.patchpredict import PatchPredictor
from emloom.ops.logits import decode_probabilities, encode_logits
from emloom.run.journal import key_of
from emloom.tasks.artifactjob import ArtifactJob, Tissue, open_tissue
from emloom.tasks.artifactmap import class_names, patch_predictor
from emloom.tasks.artifactreport import Shown, write_artifact_report
from emloom.tasks.artifactscenes import Place, Scene, open_scene, places
from emloom.tasks.patchevaluation import PatchEvaluation
from emloom.tasks.patchreport import write_patch_report
from emloom.tasks.patchscoring import evaluate_patches
from emloom.tasks.patchspec import PatchSpec, ValidationSpec
from emloom.tasks.scorefiles import write_scores as write_rows
from emloom.tasks.trainingjob import Execution, Runner

Stage = Literal["train", "predict", "evaluate", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)
ALL = "all test boxes"
_APART = 1 << 20  # sections between scenes in tables of several


class Run(Execution[ArtifactJob]):
    """One execution of a job in a folder."""

    @cached_property
    def stacks(self) -> list[Tissue]:
        """The opened stacks."""
        return [open_tissue(spec, self.job) for spec in self.job.data]

    @property
    def volumes(self) -> list[TrainingVolume]:
        """Where samples are drawn."""
        return [stack.training for stack in self.stacks]

    @property
    def places(self) -> list[Place]:
        """Everything the detector is tried on."""
        return places(self.job)

    def keys(self) -> dict[str, str]:
        """Return the key of every step: parameters, inputs, and the keys of the steps before it."""
        job = self.job
        foreign = {path: self.inputs[path] for each in job.foreign for path in each.paths}
        trained = self.trained_key({path: mark for path, mark in self.inputs.items() if path not in foreign})
        named = [each.to_dict() for each in job.foreign]
        how = job.scoring
        predicted = key_of(trained, "predict", how.step_vox, how.plantings, how.seed, named, foreign)
        evaluated = key_of(predicted, job.scoring.content_hash())
        return {
            "train": trained,
            "predict": predicted,
            "evaluate": evaluated,
            "report": key_of(evaluated, job.name),
        }

    def table(self, place: Place) -> Path:
        """Return the table of a scene's probabilities."""
        return self.folder / "predict" / f"{place.name}.csv"

    def truth(self, place: Place) -> Path:
        """Return the table of a scene's labels."""
        return self.folder / "predict" / f"{place.name}.truth.csv"


# ---- predict ------------------------------------------------------------------------------------------------


def _predict(this: Run) -> None:
    device = this.hardware.torch_device
    _, predictor = patch_predictor(this.checkpoint, this.job.scoring.step_vox, device)
    (this.folder / "predict").mkdir(parents=True, exist_ok=True)
    for done, place in enumerate(this.places, start=1):
        scene = open_scene(this.job, this.stacks, place, predictor.lattice)
        coded = _scored(this, scene, predictor)
        probabilities = decode_probabilities(coded[:, 0]).astype(np.float64)
        scores = PatchScores(scene.truth.grid, scene.truth.shape, scene.truth.starts, probabilities)
        write_scores(this.table(place), scores, overwrite=True)
        write_patches(this.truth(place), scene.truth, overwrite=True)
        this.listener.advance("predict", done, len(this.places))


def _scored(this: Run, scene: Scene, predictor: PatchPredictor) -> Any:
    """Return coded logits of the patches of a scene, uint8 [N, C]; write their map, if they lie on the lattice."""
    stack_patches = scene.part != "foreign" and this.job.objective.labels == "patches" and scene.planted is None
    if stack_patches:
        return encode_logits(predictor.patches(scene.raw, scene.truth.starts))
    inside = predictor.lattice.inside(scene.box)
    coded = encode_logits(predictor.map(scene.raw, inside))
    grid = predictor.lattice.map_grid(scene.raw.info.grid, inside.start)
    info = VolumeInfo(inside.shape, np.dtype(np.uint8), grid, kind="logits")
    with staged(this.folder / "predict" / f"{scene.name}.zarr", overwrite=True) as folder:
        for name, of_class in zip(this.job.objective.names, coded, strict=True):
            create_volume(folder / name, info).write(info.box, of_class)
        if scene.planted is not None:
            _copy(scene.raw, folder / "raw")
            _copy(scene.planted, folder / "planted")
    return coded.reshape(len(coded), -1).T


def _copy(volume: Volume, path: Path) -> None:
    info = volume.info.with_(chunks=None)
    create_volume(path, info).write(info.box, volume.read(info.box))


# ---- evaluate -----------------------------------------------------------------------------------------------


def _evaluate(this: Run) -> None:
    folder = this.folder / "evaluate"
    folder.mkdir(parents=True, exist_ok=True)
    validation = _pooled(this, "validation", folder)
    together = _judged(this, ALL, _pooled(this, "test", folder), "all", validation)
    threshold = float(together.applied["threshold"])
    rows = [{"scene": ALL, **together.row()}]
    for place in this.places:
        if place.part != "validation":
            paths = ValidationSpec(found=str(this.table(place)), truth=str(this.truth(place)))
            rows.append({"scene": place.name, **_row(this, place, paths, validation, threshold)})
    lines = {each.name: each.line for each in together.calibrated}
    operating = {
        "threshold": threshold,
        "rule": together.applied["rule"],
        "calibration": {
            name: None if line is None else {"slope": line.slope, "intercept": line.intercept}
            for name, line in lines.items()
        },
    }
    write_text_atomic(folder / "operating.json", json.dumps(operating, indent=2), overwrite=True)
    write_rows(folder, _filled(rows))


def _row(
    this: Run, place: Place, paths: ValidationSpec, validation: ValidationSpec, threshold: float
) -> dict[str, Any]:
    """Return the scores of a scene; where it has not both yes and no, how much of it is called."""
    truth = read_patches(paths.truth)
    said = truth.labels[:, 0]
    scores = read_scores(paths.found, truth).scores
    counted = {
        "patches": len(truth),
        "n_positive": int((said == YES).sum()),
        "n_negative": int((said == NO).sum()),
        "called_share": float((scores >= threshold).mean()),
    }
    if not counted["n_positive"] or not counted["n_negative"]:
        return counted
    found = _judged(this, place.name, paths, place.name, validation)
    return counted | found.row()


def _judged(
    this: Run, name: str, paths: ValidationSpec, folder: str, validation: ValidationSpec
) -> PatchEvaluation:
    how = this.job.scoring
    spec = PatchSpec(
        found=paths.found,
        truth=paths.truth,
        output=str(this.folder / "evaluate" / folder),
        validation=validation if how.threshold.value is None else None,
        threshold=how.threshold,
        prevalence=how.prevalence,
        bootstrap=how.bootstrap,
    )
    found = evaluate_patches(spec)
    write_patch_report(spec, found)
    return found


def _pooled(this: Run, part: str, folder: Path) -> ValidationSpec:
    """Write the patches of all scenes of a part into one table, each scene's sections far from the others'."""
    labels, starts, scores = [], [], []
    for number, place in enumerate(each for each in this.places if each.part == part):
        truth = read_patches(this.truth(place))
        found = read_scores(this.table(place), truth)
        away = np.array([number * _APART, 0, 0])
        alone = Grid(truth.grid.voxel_size_nm, (0.0, 0.0, 0.0))
        labels.append(replace(truth, grid=alone, starts=truth.starts + away))
        starts.append(found.starts + away)
        scores.append(found.scores)
    together = joined(labels, source=part)
    paths = ValidationSpec(found=str(folder / f"{part}.csv"), truth=str(folder / f"{part}.truth.csv"))
    found = PatchScores(together.grid, together.shape, np.concatenate(starts), np.concatenate(scores))
    write_scores(paths.found, found, overwrite=True)
    write_patches(paths.truth, together, overwrite=True)
    return paths


def _filled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of the same columns."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


# ---- report -------------------------------------------------------------------------------------------------


def _report(this: Run) -> None:
    provenance = this.provenance(STAGES)
    device = this.hardware.torch_device
    spec, predictor = patch_predictor(this.checkpoint, this.job.scoring.step_vox, device)
    shown = []
    for place in this.places:
        if place.part != "validation":
            scene = open_scene(this.job, this.stacks, place, predictor.lattice)
            truth = read_patches(this.truth(place))
            shown.append(_shown(scene, truth, read_scores(this.table(place), truth)))
    write_artifact_report(this.job.name, class_names(spec)[0], this.folder, shown, provenance)


def _shown(scene: Scene, truth: PatchLabels, scores: PatchScores) -> Shown:
    """Return the section of a scene in which most was found, or is to be found."""
    z = scores.starts[:, 0]
    sections = np.unique(z)
    told = [
        float(scores.scores[z == k].max()) + float((truth.labels[truth.starts[:, 0] == k, 0] == YES).any())
        for k in sections
    ]
    section = int(sections[int(np.argmax(told))])
    box = Box((section, *scene.box.start[1:]), (1, *scene.box.shape[1:]))
    here, said = z == section, truth.starts[:, 0] == section
    return Shown(
        name=scene.name,
        section=section,
        raw=scene.raw.read(box)[0],
        spacing_nm=scene.raw.info.grid.voxel_size_nm[1:],
        corners=scores.starts[here, 1:] - np.array(box.start[1:]),
        probabilities=scores.scores[here],
        true_corners=truth.starts[said & (truth.labels[:, 0] == YES), 1:] - np.array(box.start[1:]),
        patch=(truth.shape[1], truth.shape[2]),
    )


run = Runner(Run, {"train": Run.train, "predict": _predict, "evaluate": _evaluate, "report": _report})
"""Runs a job in a folder, going on where an earlier call stopped."""
