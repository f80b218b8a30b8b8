"""One way to open and to write tracings with everything they hold, whatever the format: NML, its archives, SWC.

`emloom.io.skeletons.read_skeletons` is the short way to the bare skeletons.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emloom.errors import InputError
from emloom.geometry.tracings import Tracing
from emloom.io.nml import read_nml_tracings, write_nml
from emloom.io.swc import read_swc_tracings
from emloom.io.swcwriter import write_swc

_NML = (".nml", ".zip", ".nmx")


def read_tracings(
    path: str | Path,
    *,
    unit_nm: float | Sequence[float] | None = None,
    voxel_size_nm: Sequence[float] | None = None,
) -> dict[str, Tracing]:
    """Read all tracings of a file or a folder, by the ending of its name.

    Args:
        path: `.nml`, `.zip`, `.nmx`; `.swc`, or a folder of SWC files.
        unit_nm: nm per unit of SWC, one number or (z, y, x): required there, refused for NML.
        voxel_size_nm: of an NML file that does not state its scale, (z, y, x) in nm; refused for SWC.

    Returns:
        name of the file, in the archive or folder -> tracing. `emloom.ops.tracingmerge.merged` makes one of them.

    Raises:
        InputError: the ending is unknown, the unit is missing or superfluous, or as the readers.
    """
    path = Path(path)
    if path.suffix.lower() in _NML:
        if unit_nm is not None:
            raise InputError(f"{path} states its own scale: leave out the unit of {unit_nm} nm")
        return read_nml_tracings(path, voxel_size_nm=voxel_size_nm)
    if path.suffix.lower() == ".swc" or path.is_dir():
        if voxel_size_nm is not None:
            raise InputError(f"{path} is SWC, which has a unit, no voxels: give unit_nm, not voxel_size_nm")
        if unit_nm is None:
            raise InputError(
                f"{path}: SWC does not say its unit: give unit_nm, 1000 for micrometres, 8 for voxels of 8 nm"
            )
        listed = read_swc_tracings(path, unit_nm=unit_nm)
        return {Path(tracing.source).name: tracing for tracing in listed}
    raise InputError(f"{path} is no tracing: give .nml, .zip, .nmx or .swc, or a folder of SWC files")


def write_tracing(
    path: str | Path,
    tracing: Tracing,
    *,
    unit_nm: float | Sequence[float] | None = None,
    radius_nm: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write a tracing in the format that the ending of the name says.

    Args:
        path: `.nml`, `.zip`, `.nmx` or `.swc`; a name without ending is a folder of SWC files, one for each tree.
        tracing: what is written.
        unit_nm: nm per unit of SWC: required there, refused for NML, which is written in voxels and says so.
        radius_nm: radius of nodes that have none, for SWC.
        overwrite: replace what is there.

    Raises:
        InputError: the ending is unknown, the unit is missing or superfluous, or as the writers.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending in _NML:
        if unit_nm is not None or radius_nm is not None:
            raise InputError(f"{path} is written in voxels and may lack radii: leave out unit_nm and radius_nm")
        write_nml(path, tracing, overwrite=overwrite)
        return
    if ending not in ("", ".swc"):
        raise InputError(f"{path} is no name of a tracing: end it with .nml, .zip, .nmx or .swc, or name a folder")
    if unit_nm is None:
        raise InputError(f"{path}: SWC does not say its unit: give unit_nm, 1000 for micrometres, 1 for nm")
    write_swc(path, tracing, unit_nm=unit_nm, radius_nm=radius_nm, overwrite=overwrite)
