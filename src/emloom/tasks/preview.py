"""`emloom augment-preview`: look at what augmentation does before a network learns from it.

The samples are those of training: sample ``i`` of a sheet is sample ``i`` of the job with that seed. What was
drawn can be written (`PlanSheet`) and rendered again, bit for bit; a digest stands beside every plan and says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.nn.augment import AugmentSpec
from emloom.nn.describe import describe, sections_hit
from emloom.nn.draw import Frame, Streams, draw_plan
from emloom.nn.model import build
from emloom.nn.objectives.base import Rendered
from emloom.nn.plan import Artifact, SamplePlan
from emloom.nn.samples import SampleMaker, TrainingSamples
from emloom.nn.train import crop_shape
from emloom.spec import Spec
from emloom.tasks.data import open_stack
from emloom.tasks.effects import one_at_a_time
from emloom.tasks.job import NeuronsJob
from emloom.tasks.library import open_library
from emloom.view.contact_sheet import Entry, Look, Strip, contact_sheet, strip
from emloom.view.figures import Figure

_WIDE = 1500  # screen pixels a sheet is allowed to take before its pixels are no longer magnified


class DumpedSample(Spec):
    """One plan, and the digest of what it gave."""

    digest: str
    """sha256 of raw, labels and known, as they were rendered."""
    plan: SamplePlan


class PlanSheet(Spec):
    """The plans of a sheet, and the frame they were drawn for."""

    output_vox: Vec
    """Voxels of a sample's output."""
    reach_vox: Vec
    """Voxels around it that raw and targets need."""
    voxel_size_nm: Vec3
    samples: tuple[DumpedSample, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Preview:
    """A job opened for looking at.

    Attributes:
        job: the job.
        maker: what makes its samples.
        frame: the extents of all of them.
    """

    job: NeuronsJob
    maker: SampleMaker
    frame: Frame

    @classmethod
    def of(cls, job: NeuronsJob) -> Preview:
        """Open the data and the artifact library of a job.

        Raises:
            InputError: something of it cannot be opened or does not fit the rest.
        """
        stacks = [open_stack(spec) for spec in job.data]
        size = stacks[0].raw.info.grid.voxel_size_nm
        model = job.model(size)
        crop = crop_shape(build(model), job.training.crop_shape_vox)
        spec = job.training.augment.defects.library
        library = None if spec is None else open_library(spec, job.preprocessing, size)
        maker = SampleMaker(model, [stack.labelled for stack in stacks], crop, library)
        return cls(job, maker, maker.frame(0))

    def plans(self, count: int, seed: int | None = None) -> list[SamplePlan]:
        """Return the first plans of training; `seed` replaces the job's.

        Raises:
            InputError: there is no room for a sample.
        """
        how = self.job.training
        how = how if seed is None else how.model_copy(update={"seed": seed})
        samples = TrainingSamples(self.maker, how, count)
        return [samples.plan(index) for index in range(count)]

    def dump(self, plans: Sequence[SamplePlan]) -> PlanSheet:
        """Return what `replay` needs."""
        samples = tuple(DumpedSample(digest=digest(self.maker.render(plan)), plan=plan) for plan in plans)
        frame = self.frame
        return PlanSheet(
            output_vox=frame.output, reach_vox=frame.reach, voxel_size_nm=frame.spacing_nm, samples=samples
        )

    def replay(self, sheet: PlanSheet) -> tuple[list[SamplePlan], list[int]]:
        """Return dumped plans, and the numbers of those that no longer give the same bytes.

        Raises:
            InputError: the plans belong to samples of another size, to volumes or artifacts that the job lacks, or
                were edited so that they cannot be carried out.
        """
        mine = (self.frame.output, self.frame.reach, self.frame.spacing_nm)
        theirs = (sheet.output_vox, sheet.reach_vox, sheet.voxel_size_nm)
        if mine != theirs:
            raise InputError(
                f"the plans are of samples with output, reach (voxels) and voxel size (nm) {theirs}, and those of "
                f"this job have {mine}: replay them with the job they were dumped from"
            )
        artifacts = 0 if self.maker.library is None else len(self.maker.library.images)
        for number, sample in enumerate(sheet.samples):
            self._require_sources(number, sample.plan, artifacts)
        changed = [i for i, s in enumerate(sheet.samples) if self._carried_out(i, s.plan) != s.digest]
        return [sample.plan for sample in sheet.samples], changed

    def _require_sources(self, number: int, plan: SamplePlan, artifacts: int) -> None:
        if not 0 <= plan.source < len(self.maker.volumes):
            raise InputError(f"sample {number} comes from stack {plan.source}: the job has {len(self.job.data)}")
        wanted = [defect.number for defect in plan.defects if isinstance(defect, Artifact)]
        if wanted and not 0 <= max(wanted) < artifacts:
            raise InputError(f"sample {number} uses artifact {max(wanted)}: the job's library has {artifacts}")

    def _carried_out(self, number: int, plan: SamplePlan) -> str:
        sections = self.frame.shape[0]
        tone = () if plan.tone is None else (plan.tone.contrast, plan.tone.brightness, plan.tone.gamma)
        moves = () if plan.moves is None else (plan.moves.raw, plan.moves.labels)
        for values in (*tone, *moves):
            if len(values) != sections:
                raise InputError(
                    f"sample {number} tells the tone or move of {len(values)} sections, and its frame has "
                    f"{sections}: one value per section is needed; dump the plans again"
                )
        try:
            return digest(self.maker.render(plan))
        except (ValueError, IndexError) as problem:
            raise InputError(
                f"the plan of sample {number} cannot be carried out ({problem}): dump the plans again"
            ) from problem

    def look(self, plan: SamplePlan) -> Look:
        """Return the output of a sample, raw and labels."""
        made = self.maker.render(plan)
        z, y, x = (slice(m, m + n) for m, n in zip(self.maker.crop.margin, self.frame.output, strict=True))
        at = made.output.slices()
        return Look(made.raw[z, y, x], made.labels[at], made.known[at])

    def sheet(self, plans: Sequence[SamplePlan], sections: int = 4) -> Figure:
        """Return a contact sheet: every sample as it lies in the volume, augmented, and augmented with labels."""
        spacing = self.frame.spacing_nm
        entries = []
        for number, plan in enumerate(plans):
            before, after = self.look(SamplePlan(source=plan.source, start=plan.start)), self.look(plan)
            shown = choose_sections(self.frame.output[0], sections, sections_hit(plan, self.frame))
            strips = (
                strip("in the volume", before, shown, spacing, labels=True),
                strip("augmented", after, shown, spacing, labels=False),
                strip("with labels", after, shown, spacing, labels=True),
            )
            where = f"sample {number}: stack {plan.source} at {plan.start} (z, y, x)"
            entries.append(Entry(where, "; ".join(describe(plan, self.frame)), strips))
        caption = (
            f"{self.job.name}: {self.frame.output} voxels of {spacing} nm. Grey values as the network sees them, "
            "-1 black, +1 white. Hatched: labels unknown. z counts the sections of the sample."
        )
        return contact_sheet(entries, min(spacing[1:]), zoom=self._zoom(sections + 1), caption=caption)

    def effects(self, seed: int | None = None) -> Figure:
        """Return a sheet of one effect at a time, each strong enough to be seen, on one sample of the job."""
        seed = self.job.training.seed if seed is None else seed
        still = self.job.training.model_copy(update={"seed": seed, "augment": AugmentSpec.none()})
        here = TrainingSamples(self.maker, still, 1).plan(0)
        specs = one_at_a_time(self.frame, self.job.training.augment.defects.library)
        middle = self.frame.output[0] // 2
        entries = []
        for title, spec in specs.items():
            plan = draw_plan(spec, Streams(seed, 0, 0), here.source, here.start, self.frame, self.maker.library)
            look = self.look(plan)
            z = min(sections_hit(plan, self.frame), key=lambda z: abs(z - middle), default=middle)
            raw = strip("", look, [z], self.frame.spacing_nm, labels=False)
            both = strip("", look, [z], self.frame.spacing_nm, labels=True)
            phrases = [words for words in describe(plan, self.frame) if not _elsewhere(words, z)]
            entries.append(Entry(title, "; ".join(phrases), [Strip("", [raw.tiles[0], *both.tiles])]))
        return contact_sheet(entries, min(self.frame.spacing_nm[1:]), columns=3, zoom=self._zoom(9))

    def _zoom(self, tiles: int) -> int:
        width = self.frame.output[2] * self.frame.spacing_nm[2] / min(self.frame.spacing_nm[1:])
        return max(1, round(_WIDE / (tiles * width)))


def _elsewhere(words: str, z: int) -> bool:
    """Whether a phrase is about a single section, and not section z."""
    parts = words.split(" ", 2)
    return parts[0] == "z" and parts[1] != str(z)


def choose_sections(available: int, wanted: int, preferred: Sequence[int]) -> list[int]:
    """Return `wanted` sections in order: preferred ones first, evenly thinned, then evenly spaced others."""
    wanted = min(wanted, available)
    chosen = _thinned(sorted(set(preferred)), wanted)
    rest = [z for z in range(available) if z not in chosen]
    return sorted([*chosen, *_thinned(rest, wanted - len(chosen))])


def _thinned(values: Sequence[int], count: int) -> list[int]:
    if count >= len(values):
        return list(values)
    return [values[int((i + 0.5) * len(values) / count)] for i in range(count)]


def digest(made: Rendered) -> str:
    """Return the sha256 of everything a network and its targets get."""
    out = hashlib.sha256()
    for array in (made.raw, made.labels, made.known):
        out.update(f"{array.dtype.str}{array.shape}".encode())
        out.update(np.ascontiguousarray(array).tobytes())
    return out.hexdigest()
