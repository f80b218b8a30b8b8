"""`emloom artifacts annotate`: a local page on which a person says what patches hold.

Which patches: a stratified random sample of the volume, a lattice, a table of candidates (`emloom artifacts
select`), the candidates of a map, or those of the table itself. They form a queue beside the table of answers; see
`emloom.tasks.labelsession`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.io.open import open_volume
from emloom.io.patchtables import read_patches
from emloom.io.volume import Volume, cached
from emloom.spec import Spec
from emloom.tasks.candidates import Question, candidates
from emloom.tasks.labelsession import JUDGED, LabelSession, extended_queue
from emloom.tasks.patchpicks import lattice_patches, random_patches, unknown_labels
from emloom.tasks.scoredmaps import SCORE, open_map, score_texts
from emloom.view.labelpage import Sights
from emloom.view.patchview import MARGIN, Window, context_png, shown_section, window_of

PATCH: Vec = (1, 140, 140)
"""Voxels (z, y, x) of the patches of genEM3."""

SECTIONS = 5
"""How many sections before and behind a patch can be looked at."""

_CACHE_BYTES = 256 << 20
_SPARE = 0.25  # of the grey window on either side, for those who want less contrast


class RandomPatches(Spec):
    """A stratified random sample of the volume."""

    kind: Literal["random"] = "random"
    count: int = Field(default=200, ge=1)
    """Patches, from about as many places."""
    seed: int = Field(default=0, ge=0)
    """Of the sample: the same seed gives the same patches."""
    patch_vox: Vec = PATCH
    """Voxels (z, y, x) of a patch."""
    blank: bool = False
    """Whether patches of one value throughout are asked about, too."""


class LatticePatches(Spec):
    """All patches at regular steps."""

    kind: Literal["lattice"] = "lattice"
    patch_vox: Vec = PATCH
    """Voxels (z, y, x) of a patch."""
    stride_vox: Vec = PATCH
    """Voxels (z, y, x) from one patch to the next."""
    origin_vox: Vec = (0, 0, 0)
    """First voxel (z, y, x) of one of the patches."""


class TablePatches(Spec):
    """The patches of a table."""

    kind: Literal["table"] = "table"
    path: str
    """`.csv` or `.json`; what it says of its patches is not shown."""


class MapPatches(Spec):
    """Candidates of a detector's map."""

    kind: Literal["map"] = "map"
    path: str
    """The map, one voxel per patch."""
    question: Question = Question(how="uncertain")
    """Which of its patches."""
    patch_vox: Vec = PATCH
    """Voxels (z, y, x) of a patch."""


class AnnotateSpec(Spec):
    """Say what patches hold."""

    raw: str
    """The volume."""
    labels: str
    """Table of answers; is made, or goes on."""
    annotator: str = Field(min_length=1)
    """Who answers."""
    patches: RandomPatches | LatticePatches | TablePatches | MapPatches | None = Field(
        default=None, discriminator="kind"
    )
    """What to look at, behind what is in the queue already; none: only that."""
    classes: tuple[str, ...] = ()
    """What is asked, what is looked for first; needed where no table says so."""
    margin_vox: int = Field(default=MARGIN, ge=0, le=512)
    """Voxels of tissue shown around a patch, in the section. It belongs to the picture, not to the patch."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm, where the volume does not state it."""


def session_of(spec: AnnotateSpec, raw: Volume) -> LabelSession:
    """Return the session of a spec; the queue beside the table grows by the patches it asks for.

    Raises:
        InputError: the patches are not of this volume, nothing says what is asked, or tables contradict.
    """
    queue = extended_queue(spec.labels, _wanted(spec, raw))
    if spec.classes and spec.classes != queue.classes:
        raise InputError(
            f"{queue.source} asks {', '.join(queue.classes)}, not {', '.join(spec.classes)}: leave out the "
            "classes, or write to another table"
        )
    require_inside(queue, raw)
    return LabelSession(spec.labels, queue, spec.annotator)


def open_raw(path: str, voxel_size_nm: Sequence[float] | None = None) -> Volume:
    """Open a volume to look at, in memory where it is small.

    Raises:
        InputError: it has several channels.
    """
    raw = open_volume(path, kind="raw", voxel_size_nm=voxel_size_nm)
    if raw.info.channels is not None:
        raise InputError(f"{path} has {raw.info.channels} channels: patches are of a volume of grey values")
    return cached(raw, _CACHE_BYTES)


def require_inside(patches: PatchLabels, raw: Volume) -> None:
    """Raise `InputError` unless all patches lie in the volume, on its grid."""
    info = raw.info
    if not patches.grid.matches(info.grid):
        raise InputError(
            f"{patches.source} is of voxels of {patches.grid.voxel_size_nm} nm at {patches.grid.offset_nm} nm, "
            f"{info.source} of {info.grid.voxel_size_nm} nm at {info.grid.offset_nm} nm: give the volume that the "
            "patches are of"
        )
    outside = np.flatnonzero(
        ((patches.starts < 0) | (patches.starts + np.array(patches.shape) > np.array(info.shape))).any(axis=1)
    )
    if outside.size:
        raise InputError(
            f"{patches.source}: the patch that begins at {patches.starts[outside[0]].tolist()} (z, y, x) leaves "
            f"{info.source}, {info.shape}: remove it, or give the volume that it is of"
        )


def sights_of(session: LabelSession, raw: Volume, margin_vox: int = MARGIN) -> Sights:
    """Return how the patches of a session are shown."""
    boxes = session.queue.boxes()
    window = window_of(raw, boxes)
    span = (window.white - window.black) * _SPARE
    wide = Window(window.black - span, window.white + span)
    notes = {name: values for name, values in session.queue.columns.items() if name != JUDGED}

    def sections(index: int) -> tuple[int, int, int]:
        own, depth = shown_section(boxes[index]), raw.info.shape[0]
        return max(0, own - SECTIONS), own, min(depth - 1, own + SECTIONS)

    def picture(index: int, section: int) -> bytes:
        first, _, last = sections(index)
        if not first <= section <= last:
            raise InputError(f"section {section} is not shown with patch {index}: {first} to {last} are")
        return context_png(raw, boxes[index], margin_vox, section, wide)

    return Sights(
        _called(raw.info.source),
        session.queue.shape,
        margin_vox,
        black=int(wide.grey(np.array(window.black))),
        white=int(wide.grey(np.array(window.white))),
        sections=sections,
        notes=lambda index: [(name, str(values[index])) for name, values in notes.items() if values[index]],
        picture=picture,
    )


def _wanted(spec: AnnotateSpec, raw: Volume) -> PatchLabels | None:
    match spec.patches:
        case TablePatches(path=path):
            return read_patches(path)
        case RandomPatches(count=count, seed=seed, patch_vox=shape, blank=blank):
            starts = random_patches(raw, shape, count, seed, blank=blank)
            source = f"a random sample of {raw.info.source}"
        case LatticePatches(patch_vox=shape, stride_vox=stride, origin_vox=origin):
            starts = lattice_patches(raw.info, Lattice(shape, stride, origin))
            source = f"a lattice over {raw.info.source}"
        case MapPatches(path=path, question=question, patch_vox=shape):
            # What is labelled is not left out: the same words shall ask for the same patches again.
            found = candidates(open_map(path, raw.info, shape), question)
            bare = unknown_labels(raw.info, shape, found.starts, _classes(spec), path)
            return replace(bare, columns={SCORE: score_texts(found.logits)})
        case None:
            return None
    return unknown_labels(raw.info, shape, starts, _classes(spec), source)


def _classes(spec: AnnotateSpec) -> tuple[str, ...]:
    """Return what is asked: as told, or as an existing table asks."""
    if spec.classes:
        return spec.classes
    if Path(spec.labels).exists():
        return read_patches(spec.labels).classes
    return ("artifact",)


def _called(path: str) -> str:
    """Return the name of a volume, with its container where it lies in one."""
    parts = Path(path).parts
    named = [k for k, part in enumerate(parts) if "." in part]
    return "/".join(parts[named[-1] :]) if named else parts[-1]
