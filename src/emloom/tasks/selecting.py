"""`emloom artifacts select`: the few patches of a map that a person should look at: table, tracing, sheets."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.geometry.patches import UNKNOWN, PatchLabels
from emloom.geometry.patchtracings import names_of, question
from emloom.io.files import refuse_existing
from emloom.io.patchtables import read_patches
from emloom.io.volume import Volume
from emloom.metrics.agreement import common_rows
from emloom.spec import Spec
from emloom.tasks.annotating import PATCH, open_raw
from emloom.tasks.candidates import Question, candidates
from emloom.tasks.patchpicks import unknown_labels
from emloom.tasks.patchsheets import Listing, in_words, write_listing
from emloom.tasks.scoredmaps import MODEL, SCORE, ScoredPatches, logit, open_map, score_texts
from emloom.view.patchview import MARGIN

_TITLES = {
    "uncertain": "Patches the model is least sure about",
    "wrong": "Patches where the model contradicts the labels",
    "positive": "Patches the model is surest to hold an artifact",
    "random": "Patches at random",
}


class SelectSpec(Spec):
    """Choose patches of a map to look at."""

    map: str
    """The map, one voxel per patch."""
    raw: str
    """The volume that the patches are of."""
    output: str
    """Folder to be made."""
    question: Question
    """Which patches."""
    labels: str | None = None
    """Table of what is known."""
    patch_vox: Vec | None = None
    """Voxels (z, y, x) of a patch; none: as the labels say, or 1, 140, 140."""
    classes: tuple[str, ...] = ()
    """What is asked of the patches, what is looked for first; none: as the labels say, or `artifact`."""
    margin_vox: int = Field(default=MARGIN, ge=0, le=512)
    """Voxels of tissue shown around a patch; they belong to the pictures alone."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm, where the volume does not state it."""


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        patches: best first, labels unknown, with a column `score`.
        output: the folder.
    """

    patches: PatchLabels
    output: str


def select(spec: SelectSpec) -> Selection:
    """Choose patches and write them; see `emloom.tasks.candidates` and `emloom.tasks.patchsheets`.

    Raises:
        InputError: an input is missing or does not fit the others, the folder exists, or nothing is to be chosen.
    """
    refuse_existing(spec.output)
    raw = open_raw(spec.raw, spec.voxel_size_nm)
    labels = None if spec.labels is None else read_patches(spec.labels)
    shape = _shape(spec, labels)
    scored = open_map(spec.map, raw.info, shape)
    found = candidates(scored, spec.question, labels)
    if not len(found.starts):
        raise InputError(
            f"{spec.map} has no patch to look at ({spec.question.how}, threshold {spec.question.threshold:g}): "
            "choose another threshold, or other patches"
        )
    patches = _table(spec, raw, shape, found, labels)
    names, told = _names(spec, patches, found, labels)
    scores = in_words(patches.columns[SCORE])
    words = [", ".join(part for part in (score, more) if part) for score, more in zip(scores, told, strict=True)]
    text = "p is the probability that the model gives. Numbers are those of the table and of the tracing."
    listing = Listing(patches, names, words, _TITLES[spec.question.how], text, {"spec": spec.to_dict()})
    write_listing(spec.output, listing, raw, spec.margin_vox)
    return Selection(patches, spec.output)


def _shape(spec: SelectSpec, labels: PatchLabels | None) -> Vec:
    if labels is None:
        return spec.patch_vox or PATCH
    if spec.patch_vox is not None and spec.patch_vox != labels.shape:
        raise InputError(
            f"{spec.labels} has patches of {labels.shape} voxels, but {spec.patch_vox} were given: leave that out"
        )
    return labels.shape


def _table(
    spec: SelectSpec, raw: Volume, shape: Vec, found: ScoredPatches, labels: PatchLabels | None
) -> PatchLabels:
    classes = spec.classes or (("artifact",) if labels is None else labels.classes)
    bare = unknown_labels(raw.info, shape, found.starts, classes, f"{spec.output}")
    return replace(bare, columns={SCORE: score_texts(found.logits)})


def _names(
    spec: SelectSpec, patches: PatchLabels, found: ScoredPatches, labels: PatchLabels | None
) -> tuple[list[str], list[str]]:
    """Return the names of trees, and what the sheets say of labels."""
    if spec.question.how != "wrong" or labels is None:
        return names_of(patches), [""] * len(patches)
    agreed = labels.consensus()
    _, rows = common_rows(patches.starts, agreed.starts)
    known, above = agreed.labels[rows, 0].tolist(), (found.logits >= logit(spec.question.threshold)).tolist()
    name = labels.classes[0]
    who = labels.annotators[0] if len(labels.annotators) == 1 and labels.annotators[0] else "labels"
    names = [
        question(name, True, [(who, label), (MODEL, int(yes))]) for label, yes in zip(known, above, strict=True)
    ]
    assert UNKNOWN not in known  # only what is known can be contradicted
    return names, [f"labelled {'yes' if label else 'no'}" for label in known]
