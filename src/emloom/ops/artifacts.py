"""Artifacts of sections as values, and what each does to a section.

An artifact is a frozen value: a kind, numbers in nm and grey values, and the seed of its textures. `apply` is a pure
function of it: the same value gives the same bytes. What is painted gets the noise that the section has itself (a
detector's noise does not stop at an artifact), so that nobody can tell an artifact by the lack of it.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from emloom.ops import faults, tears
from emloom.ops.faults import Blur, Faint, Missing, Shift
from emloom.ops.section_effects import add_noise
from emloom.ops.tears import Crack, Fold, Scratch
from emloom.ops.textures import F32, Painted, Spacing
from emloom.ops.visibility import noise_of, visible

Kind = Literal["fold", "crack", "scratch", "blur", "missing", "shift", "low_contrast"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Artifact = Fold | Crack | Scratch | Blur | Missing | Shift | Faint

_BOUND = 2.0  # grey values of a section are about [-1, 1]; paint may leave that range a little


def paint(artifact: Artifact, section_YX: F32, spacing_nm: Spacing) -> Painted:
    """Return a section with an artifact, as yet without grain.

    Args:
        artifact: what.
        section_YX: float32, about [-1, 1]; left as it is.
        spacing_nm: voxel size (y, x).
    """
    match artifact:
        case Fold():
            return tears.fold(section_YX, artifact, spacing_nm)
        case Crack():
            return tears.crack(section_YX, artifact, spacing_nm)
        case Scratch():
            return tears.scratch(section_YX, artifact, spacing_nm)
        case Blur():
            return faults.blur(section_YX, artifact, spacing_nm)
        case Missing():
            return faults.missing(section_YX, artifact, spacing_nm)
        case Shift():
            return faults.shift(section_YX, artifact, spacing_nm)
        case Faint():
            return faults.faint(section_YX, artifact, spacing_nm)


def apply(artifact: Artifact, section_YX: F32, spacing_nm: Spacing, noise: float = 0.0) -> NDArray[np.bool_]:
    """Put an artifact on a section, in place; return where it can be seen, bool ``[Y, X]``.

    Args:
        artifact: what.
        section_YX: float32, about [-1, 1]; changed in place.
        spacing_nm: voxel size (y, x).
        noise: standard deviation of noise that will be added later: what it hides is not called visible.
    """
    own = noise_of(section_YX)
    image, cover = paint(artifact, section_YX, spacing_nm)
    image = np.where(image == section_YX, section_YX, np.clip(image, -_BOUND, _BOUND))
    seen = visible(section_YX, image, spacing_nm, float(np.hypot(own, noise)))
    if own > 0 and cover.any():
        grain = np.zeros((1, *section_YX.shape), np.float32)
        add_noise(grain, own, artifact.seed)
        image += grain[0] * np.sqrt(cover)
    section_YX[:] = image
    return seen
