"""Artifacts of sections as values, and what each does to a section.

An artifact is a frozen value: a kind, numbers in nm and grey values, and the seed of its textures. `apply` is a
pure function of it: the same value gives the same bytes. What is painted gets the noise that the section has
itself (a detector's noise does not stop at an artifact), so that nobody can tell an artifact by the lack of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from emloom.ops import blemishes, faults, tears
from emloom.ops.blemishes import Charging, Lumps, Stain
from emloom.ops.faults import Blur, Faint, Missing, Shift
from emloom.ops.section_effects import add_noise
from emloom.ops.tears import Crack, Fold, Scratch
from emloom.ops.textures import F32, Painted, Spacing
from emloom.ops.visibility import noise_of, visible

Kind = Literal[
    "fold", "crack", "scratch", "debris", "hole", "stain", "charging", "blur", "missing", "shift", "low_contrast"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

Artifact = Fold | Crack | Scratch | Lumps | Stain | Charging | Blur | Missing | Shift | Faint

Bits = NDArray[np.bool_]

_BOUND = 2.0  # grey values of a section are about [-1, 1]; paint may leave that range a little


def paint(artifact: Artifact, section_YX: F32, spacing_nm: Spacing) -> Painted:
    """Return a section with an artifact, as yet without grain.

    Args:
        artifact: what.
        section_YX: float32, about [-1, 1]; left as it is.
        spacing_nm: voxel size (y, x).
    """
    return _PAINT[type(artifact)](section_YX, artifact, spacing_nm)


_PAINT: Mapping[type, Callable[[F32, Any, Spacing], Painted]] = {
    Fold: tears.fold,
    Crack: tears.crack,
    Scratch: tears.scratch,
    Lumps: blemishes.lumps,
    Stain: blemishes.stain,
    Charging: blemishes.charging,
    Missing: faults.missing,
    Blur: faults.blur,
    Shift: faults.shift,
    Faint: faults.faint,
}


@dataclass(frozen=True, eq=False)
class Seen:
    """What can be seen of an artifact, by `emloom.ops.visibility`.

    Attributes:
        damage: bool ``[Y, X]``: the picture noticeably differs from that of undamaged tissue.
        moved: bool ``[Y, X]``: no damage, but tissue that a fold or crack beside it moved noticeably. It looks
            sound and lies elsewhere than in the next sections: a label here is a matter of taste, so count it as
            neither.
    """

    damage: Bits
    moved: Bits


def apply(artifact: Artifact, section_YX: F32, spacing_nm: Spacing, noise: float = 0.0) -> Seen:
    """Put an artifact on a section, in place; return where it can be seen.

    Args:
        artifact: what.
        section_YX: float32, about [-1, 1]; changed in place.
        spacing_nm: voxel size (y, x).
        noise: standard deviation of noise that will be added later: what it hides is not called visible.
    """
    own = noise_of(section_YX)
    hidden = float(np.hypot(own, noise))
    image, cover, tissue = paint(artifact, section_YX, spacing_nm)
    image = np.where(image == section_YX, section_YX, np.clip(image, -_BOUND, _BOUND))
    damage = visible(tissue, image, spacing_nm, hidden)
    moved = np.zeros_like(damage)
    if tissue is not section_YX:
        moved = visible(section_YX, tissue, spacing_nm, hidden) & ~damage
    if own > 0 and cover.any():
        grain = np.zeros((1, *section_YX.shape), np.float32)
        add_noise(grain, own, artifact.seed)
        image += grain[0] * np.sqrt(cover)
    section_YX[:] = image
    return Seen(damage, moved)
