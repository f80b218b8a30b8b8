"""Which formats can have coarser levels: one row each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emloom.errors import InputError
from emloom.io.levels import Image
from emloom.io.n5levels import image_of_n5
from emloom.io.precomputed import DRIVER, PrecomputedVolume
from emloom.io.precomputedlevels import image_of_precomputed
from emloom.io.tensors import StoreVolume
from emloom.io.volume import Volume
from emloom.io.wkw import WkwVolume
from emloom.io.wkwlevels import image_of_wkw
from emloom.io.zarrlevels import image_of_zarr

_BY_DRIVER: dict[str, Callable[[StoreVolume], Image]] = {
    "zarr": image_of_zarr,
    "zarr3": image_of_zarr,
    "n5": image_of_n5,
    DRIVER: image_of_precomputed,
}


def image_of(volume: Volume) -> Image:
    """Return a volume, its finest level, as an image that can have coarser ones.

    Raises:
        InputError: its format has no levels, it is remote, or it is itself a coarser level; formats add their own.
    """
    if isinstance(volume, WkwVolume):
        return image_of_wkw(volume)
    if isinstance(volume, PrecomputedVolume):
        return image_of_precomputed(volume)
    if isinstance(volume, StoreVolume) and isinstance(volume.array, Path):
        return _BY_DRIVER[volume.driver](volume)
    raise InputError(
        f"{volume.info.source} can have no coarser levels: these are made in zarr, N5, precomputed and wkw on a "
        "local disk; `emloom import` it to .zarr first"
    )
