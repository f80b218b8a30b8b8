"""How labelled patches are drawn: a class first, then a patch of it, then a place a little beside it.

::

    yes with probability `positive`, else no ─► a volume by weight ─► a patch of it, all alike ─► s uniform in A_p

``A_p`` are the allowed starts at most `jitter_vox` from the patch's own (wiggling, drawn anew for every sample) of
which it is the nearest labelled patch, so that its label holds there. The share of yes can go from one value to
another in the course of a training: a network first learns what an artifact is, then how rare they are.

Patches of which the first class is unknown are not drawn; nor are those which held-out boxes hide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.nn.crops import TrainingVolume
from emloom.nn.patchvolume import PatchVolume, codes_of_labels
from emloom.nn.sampling import CropSampler, Draw
from emloom.nn.starts import Starts
from emloom.nn.strategies import Patches, SamplingSpec, Uniform

_NO, _YES = 0, 1
_NAMES = ("no", "yes")
_TRIES = 100


class PatchSampler(CropSampler):
    """Draws labelled patches; everything that takes long or can fail happens here, once.

    Args:
        volumes: where patches are drawn; their labels are `PatchVolume`s.
        spec: shares and jitter.
        crop_shape: voxels (z, y, x) of every patch.

    Raises:
        InputError: a volume has other labels, patches have another shape, or no patch of yes, or of no, can be
            drawn.
    """

    def __init__(self, volumes: Sequence[TrainingVolume], spec: Patches, crop_shape: Vec) -> None:
        super().__init__(volumes, Uniform(max_avoided=spec.max_avoided), crop_shape)
        self.patches = spec
        self._labels = [_patch_volume(volume, self.crop_shape) for volume in self.volumes]
        self._rows: dict[int, list[NDArray[np.int64]]] = {
            said: [self._drawable(source, said) for source in range(len(self.volumes))] for said in (_NO, _YES)
        }
        for said, rows in self._rows.items():
            if not any(len(found) for found in rows):
                names = ", ".join(volume.info.source for volume in self._labels)
                first = self._labels[0].patches.classes[0]
                raise InputError(
                    f"{names}: no patch says {_NAMES[said]!r} of {first!r} where training may look: label some, "
                    "or move the held-out boxes"
                )

    def draw(self, rng: np.random.Generator, at: float = 0.0) -> Draw:
        """Return a patch: a function of the generator's state and of `at` alone.

        Args:
            rng: of all decisions.
            at: share of the training that is done, 0 to 1.
        """
        said = int(rng.random() < self.patches.share_at(at))
        sources = [k for k, rows in enumerate(self._rows[said]) if len(rows) and self.volumes[k].weight > 0]
        weights = np.cumsum([self.volumes[k].weight for k in sources])
        source = sources[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]
        rows = self._rows[said][source]
        row = int(rows[int(rng.integers(len(rows)))])
        for tries in range(1, _TRIES + 1):
            start = self._beside(source, row).draw(rng)
            if self._is_nearest(source, row, start):
                return Draw(source, start, tries, _NAMES[said])
        z, y, x = self._labels[source].patches.starts[row].tolist()
        return Draw(source, (z, y, x), _TRIES, _NAMES[said])

    def _drawable(self, source: int, said: int) -> NDArray[np.int64]:
        patches = self._labels[source].patches
        rows = np.flatnonzero(patches.labels[:, 0] == said)
        free = self.allowed(source)
        inside = [row for row in rows.tolist() if free.within(patches.starts[row], patches.starts[row] + 1).count]
        return np.array(inside, np.int64)

    def _beside(self, source: int, row: int) -> Starts:
        start, reach = self._labels[source].patches.starts[row], np.array(self.patches.jitter_vox)
        return self.allowed(source).within(start - reach, start + reach + 1)

    def _is_nearest(self, source: int, row: int, start: Vec) -> bool:
        labels = self._labels[source]
        centre = tuple(s + n // 2 for s, n in zip(start, self.crop_shape, strict=True))
        code = labels.read(Box((centre[0], centre[1], centre[2]), (1, 1, 1)))[0, 0, 0]
        return bool(code == codes_of_labels(labels.patches.labels[row : row + 1])[0])


def sampler_of(volumes: Sequence[TrainingVolume], spec: SamplingSpec, crop_shape: Vec) -> CropSampler:
    """Return what draws crops of a shape as a job asks for; raises `InputError` as the samplers do."""
    if isinstance(spec, Patches):
        return PatchSampler(volumes, spec, crop_shape)
    return CropSampler(volumes, spec, crop_shape)


def _patch_volume(volume: TrainingVolume, crop_shape: Vec) -> PatchVolume:
    labels = volume.labels
    if not isinstance(labels, PatchVolume):
        raise InputError(
            f"{volume.raw.info.source} has no labelled patches, which sampling `patches` draws: name a table of "
            "them, or choose another sampling"
        )
    if labels.patches.shape != crop_shape:
        raise InputError(
            f"{labels.info.source} labels patches of {labels.patches.shape} voxels, and the network sees "
            f"{crop_shape}: choose an encoder with this patch, or label others"
        )
    return labels
