"""The scale of an NML file: how many nanometres a voxel is, in which unit the file says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emloom.errors import InputError, did_you_mean
from emloom.geometry.columns import number_text
from emloom.geometry.elements import Element
from emloom.geometry.grid import Vec3

UNIT_NM = {
    "angstrom": 0.1,
    "picometer": 1e-3,
    "nanometer": 1.0,
    "micrometer": 1e3,
    "millimeter": 1e6,
    "centimeter": 1e7,
    "meter": 1e9,
}


def read_scale(parameters: Sequence[Element], given: Vec3 | None, source: str) -> tuple[Vec3, float]:
    """Return the voxel size (z, y, x) in nm, and how many nm the unit of the file is.

    Args:
        parameters: of the file; the first ``<scale>`` counts.
        given: the voxel size, for a file that does not state it.
        source: path shown in messages.

    Raises:
        InputError: the scale is missing, in an unknown unit, not positive, or other than `given`.
    """
    element = next((parameter for parameter in parameters if parameter.tag == "scale"), None)
    if element is None:
        if given is None:
            raise InputError(f"{source} states no scale: give the size of a voxel, voxel_size_nm=(z, y, x) in nm")
        return given, 1.0
    scale, unit = _stated(element, source)
    if given is not None and not np.allclose(scale, given, rtol=1e-6, atol=0):
        raise InputError(
            f"{source} has the scale {scale} nm (z, y, x), but {given} nm was given: leave it out, or mend "
            "the file"
        )
    return scale, unit


def _stated(element: Element, source: str) -> tuple[Vec3, float]:
    unit = element.get("unit") or "nanometer"
    if unit not in UNIT_NM:
        raise InputError(
            f"{source} has its scale in {unit!r}{did_you_mean(unit, UNIT_NM)}: units are {', '.join(UNIT_NM)}"
        )
    try:
        z, y, x = (element.number(axis) * UNIT_NM[unit] for axis in "zyx")
    except InputError as problem:
        raise InputError(f"{source}: {problem}") from None
    if not (min(z, y, x) > 0 and max(z, y, x) < np.inf):
        raise InputError(f"{source} has the scale ({z}, {y}, {x}) nm (z, y, x): voxels have a positive size")
    return (z, y, x), UNIT_NM[unit]


def with_scale(parameters: Sequence[Element], size: Vec3, unit_nm: float) -> tuple[Element, ...]:
    """Return the parameters with a scale that means `size`: the one they have where it does, else in nm.

    Args:
        parameters: of a tracing.
        size: voxel size (z, y, x) in nm.
        unit_nm: nm per unit of radii; a scale in another unit is replaced.
    """
    tags = [parameter.tag for parameter in parameters]
    at = tags.index("scale") if "scale" in tags else None
    if at is not None:
        try:
            if _stated(parameters[at], "scale") == (size, unit_nm):
                return tuple(parameters)
        except InputError:
            pass  # somebody edited it: it is replaced
    values = {axis: number_text(edge) for axis, edge in zip("xyz", size[::-1], strict=True)}
    element = Element.of("scale", {**values, "unit": "nanometer"})
    if at is None:
        at = tags.index("experiment") + 1 if "experiment" in tags else 0
        return (*parameters[:at], element, *parameters[at:])
    return (*parameters[:at], element, *parameters[at + 1 :])
