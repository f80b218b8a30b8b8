"""One way to open tracings, whatever their format: NML and archives of it, SWC files and folders of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.io.nml import read_nml
from emloom.io.swc import read_swc

_NML = (".nml", ".zip", ".nmx")


def is_tracing(path: str | Path) -> bool:
    """Return whether a path names tracings, by its ending: NML and its archives, SWC, a folder with SWC files."""
    path = Path(path)
    ending = path.suffix.lower()
    return ending in (*_NML, ".swc") or (path.is_dir() and any(path.glob("*.[sS][wW][cC]")))


def read_skeletons(path: str | Path, *, unit_nm: float | Sequence[float] | None = None) -> Skeletons:
    """Read tracings by the ending of their name.

    Args:
        path: `.nml`, `.zip` or `.nmx` (`read_nml`); `.swc`, or a folder of SWC files (`read_swc`).
        unit_nm: nm per unit of SWC, one number or (z, y, x): required there, refused for NML, which states it.

    Raises:
        InputError: the ending is unknown, the unit is missing or superfluous, or as the readers.
    """
    path = Path(path)
    if path.suffix.lower() in _NML:
        if unit_nm is not None:
            raise InputError(f"{path} states its own scale: leave out the unit of {unit_nm} nm")
        return read_nml(path)
    if path.suffix.lower() == ".swc" or path.is_dir():
        if unit_nm is None:
            raise InputError(
                f"{path}: SWC does not say its unit: give unit_nm, 1000 for micrometres, 8 for voxels of 8 nm"
            )
        return read_swc(path, unit_nm=unit_nm)
    raise InputError(f"{path} is no tracing: give .nml, .zip, .nmx or .swc, or a folder of SWC files")
