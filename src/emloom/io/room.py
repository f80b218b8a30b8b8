"""Whether a result will fit on its disk, asked before hours of work rather than told after them.

Chunks are compressed, and nobody knows how well before they are. So there are two figures per kind of volume, as
parts of the bytes before compression: the *least* that one could take (well below all that were measured, for
volumes that are masked for the most part), and what they *usually* take. Measured were 0.86 to 0.99 for the raw of
three real stacks, 0.4 to 0.9 for affinities, 0.009 to 0.017 for ids of two stacks. Less room than the least is
refused; less than usual is a warning, and the work begins: a full disk loses nothing, and the same command goes on
once there is room.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from emloom.errors import InputError
from emloom.io.volume import VolumeInfo

log = logging.getLogger(__name__)

_GB = 10**9


class Share(NamedTuple):
    """Part of the bytes before compression that a volume takes on disk."""

    least: float
    usual: float


SHARES: dict[str | None, Share] = {
    "raw": Share(0.1, 1.0),
    "affinities": Share(0.1, 0.9),
    "probabilities": Share(0.02, 0.5),
    "lsds": Share(0.1, 0.9),
    "labels": Share(0.002, 0.02),
    "mask": Share(0.0, 0.04),
    None: Share(0.002, 1.0),  # it may be labels
}
"""By kind of volume."""


def free_bytes(path: str | Path) -> int:
    """Return the free bytes of the disk on which something will be made."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def require_room(output: str | Path, volumes: Sequence[VolumeInfo], way_out: str) -> None:
    """Refuse work whose result cannot fit on its disk; warn where it may not.

    Args:
        output: the container to be made; addresses in buckets are not asked about.
        volumes: what it will hold.
        way_out: what a person can do besides making room, e.g. "predict a part of it (--box)".

    Raises:
        InputError: less is free than such volumes ever took.
    """
    if "://" in str(output):
        return
    free = free_bytes(output)
    shares = [SHARES.get(info.kind, SHARES[None]) for info in volumes]
    least = round(sum(info.nbytes * share.least for info, share in zip(volumes, shares, strict=True)))
    usual = round(sum(info.nbytes * share.usual for info, share in zip(volumes, shares, strict=True)))
    if free < least:
        raise InputError(
            f"{output} needs at least {_size(least)}, usually {_size(usual)}, and its disk has {_size(free)} "
            f"free: free some space, choose another disk, or {way_out}"
        )
    if free < usual:
        log.warning(
            "%s usually takes %s, and its disk has %s free: if it fills up, nothing is lost, and the same command "
            "goes on once there is room",
            output,
            _size(usual),
            _size(free),
        )


def _size(n: int) -> str:
    return f"{n / _GB:.1f} GB ({n} bytes)" if n >= _GB // 10 else f"{n} bytes"
