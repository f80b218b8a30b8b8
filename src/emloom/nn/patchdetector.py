"""A fitted detector of patches and its file: features, what scores them, and of which encoder.

The file is small: one safetensors with the arrays of the scorer and a YAML spec, never pickle. The encoder is
not in it, but its fingerprint is, the hash of all its weights and of its spec: a detector refuses any other
encoder, whose features would mean something else.

::

    load_detector(path, model).scores(raw, starts) == the same of the detector that was saved       bit for bit
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.geometry.patches import Labels
from emloom.io.volume import Volume
from emloom.nn.anomaly import DeviationSpec, MemoryBank, Scorer, ScorerSpec, arrays_of, fit_scorer, scorer_of
from emloom.nn.checkpoint import load_checkpoint, save_checkpoint
from emloom.nn.model import ModelSpec, Network, load
from emloom.nn.patchfeatures import ErrorFeatures, FeatureSpec, LevelFeatures, PatchFeatures, PixelFeatures
from emloom.nn.preprocess import Preprocessing
from emloom.spec import Spec

F64 = NDArray[np.float64]
_SCORER = "scorer."  # before the names of arrays
_TOLERANCE = 0.01  # of a voxel size


class BaselineSpec(Spec):
    """What is looked at, and how that becomes a score."""

    features: FeatureSpec
    scorer: ScorerSpec

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if isinstance(self.scorer, DeviationSpec) != isinstance(self.features, ErrorFeatures):
            raise ValueError(
                f"{self.scorer.kind} of {self.features.kind}: a deviation is that of one number, a reconstruction "
                "error, and of an error nothing else is scored"
            )
        return self

    @property
    def name(self) -> str:
        """A short name, such as `linear probe of latent`."""
        words: str = self.features.kind
        if isinstance(self.features, LevelFeatures):
            words += " " + "+".join(map(str, self.features.levels))
        if isinstance(self.features, ErrorFeatures) and self.features.high_pass_nm is not None:
            words += f" finer than {self.features.high_pass_nm:g} nm"
        if isinstance(self.scorer, DeviationSpec) and self.scorer.sides == "both":
            words += ", both sides"
        return f"{self.scorer.kind.replace('_', ' ')} of {words}"


class DetectorSpec(Spec):
    """All of a detector but its arrays."""

    baseline: BaselineSpec
    shape: Vec
    """Voxels (z, y, x) of a patch."""
    voxel_size_nm: Vec3
    """Voxel size (z, y, x) of what it was fitted on."""
    preprocessing: Preprocessing
    encoder: str | None = None
    """Fingerprint of the model whose features these are; none: they need no model."""
    threshold: float | None = None
    """Scores of at least this are called artifacts; chosen on validation data."""


@dataclass(frozen=True, eq=False)
class PatchDetector:
    """A fitted detector.

    Attributes:
        spec: all but the arrays.
        features: what computes the features.
        scorer: what scores them.
    """

    spec: DetectorSpec
    features: PatchFeatures
    scorer: Scorer

    def scores(self, raw: Volume, starts: NDArray[np.int64]) -> F64:
        """Return the score of every patch, float64 [N].

        Args:
            raw: ``zyx`` volume of the voxel size that the detector was fitted on.
            starts: int64 [N, 3], first voxel (z, y, x) of every patch.

        Raises:
            InputError: the voxel size is another (1 % tolerance), or as `PatchFeatures.of`.
        """
        return self.scorer.scores(self._features(raw, starts))

    def anomaly_maps(self, raw: Volume, starts: NDArray[np.int64]) -> F64:
        """Return how far the cells of patches are from the memory bank, float64 [N, cells, cells].

        Raises:
            InputError: the detector has no memory bank of levels, or as `scores`.
        """
        if not isinstance(self.scorer, MemoryBank) or not isinstance(self.features.spec, LevelFeatures):
            raise InputError(f"a {self.spec.baseline.name} has no map: take a memory bank of levels")
        distances = self.scorer.distances(self._features(raw, starts))
        return distances.reshape(len(starts), self.features.spec.cells, -1)

    def _features(self, raw: Volume, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        own, size = self.spec.voxel_size_nm, raw.info.grid.voxel_size_nm
        if any(abs(a - b) > _TOLERANCE * a for a, b in zip(own, size, strict=True)):
            raise InputError(
                f"{raw.info.source} has voxel size {size} nm but the detector was fitted on {own} nm (z, y, x): "
                "resample the volume, or fit a detector at its voxel size"
            )
        return self.features.of(raw, starts)


def model_mark(model: ModelSpec, network: Network) -> str:
    """Return a fingerprint, 16 hex digits of sha256, of a model's spec and of all its weights."""
    digest = hashlib.sha256(model.content_hash().encode())
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def fit_detector(
    features: PatchFeatures, features_NPD: NDArray[np.float32], labels_N: Labels, spec: DetectorSpec
) -> PatchDetector:
    """Return a detector fitted to features of labelled patches.

    Args:
        features: what computed them.
        features_NPD: float32 [N, P, D].
        labels_N: int8 [N], 1 yes, 0 no, -1 unknown.
        spec: what its file will say.

    Raises:
        InputError: there are no patches it could learn from.
    """
    return PatchDetector(spec, features, fit_scorer(spec.baseline.scorer, features_NPD, labels_N))


def save_detector(path: str | Path, detector: PatchDetector) -> None:
    """Write a detector, atomically; the folder must exist."""
    arrays = {
        f"{_SCORER}{name}": torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
        for name, array in arrays_of(detector.scorer).items()
    }
    save_checkpoint(path, arrays, detector.spec)


def load_detector(path: str | Path, model: str | Path | None = None, device: str = "cpu") -> PatchDetector:
    """Return the detector of a file.

    Args:
        path: of the file.
        model: checkpoint of its encoder, where it has one.
        device: a torch device.

    Raises:
        InputError: a file is missing, damaged or no detector, or the model is missing or another one.
    """
    tensors, text, _ = load_checkpoint(path)
    if any(not name.startswith(_SCORER) for name in tensors):
        raise InputError(
            f"{path} is a checkpoint of a network, not a fitted detector: use `emloom artifacts predict`"
        )
    spec = DetectorSpec.from_yaml(text, f"the spec inside {path}")
    arrays: dict[str, NDArray[Any]] = {
        name.removeprefix(_SCORER): tensor.numpy() for name, tensor in tensors.items()
    }
    loaded = None
    if not isinstance(spec.baseline.features, PixelFeatures):
        if model is None:
            raise InputError(
                f"{path} scores features of a model ({spec.encoder}): name the checkpoint it was fitted on"
            )
        made, network, _ = load(Path(model))
        loaded = (made, network)
        if model_mark(*loaded) != spec.encoder:
            raise InputError(
                f"{path} was fitted on features of another model than {model} ({spec.encoder}, not "
                f"{model_mark(*loaded)}): name that one, or fit the detector again"
            )
    features = PatchFeatures(spec.baseline.features, spec.shape, loaded, spec.preprocessing, device)
    return PatchDetector(spec, features, scorer_of(spec.baseline.scorer, arrays))
