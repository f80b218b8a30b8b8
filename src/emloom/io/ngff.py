"""OME-NGFF: the metadata by which other tools find, name and place our zarr arrays, and we theirs.

Moore et al., Histochemistry and Cell Biology 2023 (doi:10.1007/s00418-023-02209-1); versions 0.4 (zarr 2) and
0.5 (zarr 3), https://ngff.openmicroscopy.org. An *image* is a group whose `multiscales` attribute lists arrays,
its levels, each with ``world = scale * voxel + translation``.

Trap: in OME-NGFF an integer voxel coordinate is the *centre* of the voxel, in emloom (`Grid`) its *corner*::

    corner (offset)   = translation - scale / 2
    translation       = offset + scale / 2

Many writers give no translation at any level and mean "starts at zero", not "starts half a voxel below zero". So
where no level has a translation, the offset is missing; where one has, the rule is applied to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.metadata import Statement, axis_letters, nm_per
from emloom.io.volume import VolumeInfo

Transform = tuple[list[float], list[float] | None]


def image_attributes(
    info: VolumeInfo, name: str, zarr_format: int, levels: Mapping[str, Grid] | None = None
) -> dict[str, Any]:
    """Return the attributes of an image group: version 0.5 for zarr 3, 0.4 for zarr 2.

    Args:
        info: of the finest level.
        name: what the image is called.
        zarr_format: 2 or 3.
        levels: path -> grid, finest first; default: one level, ``0``, on the grid of `info`.
    """
    space = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    channel = [] if info.channels is None else [{"name": "c", "type": "channel"}]
    image: dict[str, Any] = {
        "name": name,
        "axes": [*channel, *space],
        "datasets": [
            {"path": path, "coordinateTransformations": _steps(grid, len(channel))}
            for path, grid in (levels or {"0": info.grid}).items()
        ],
    }
    if zarr_format == 3:
        return {"ome": {"version": "0.5", "multiscales": [image]}}
    return {"multiscales": [{"version": "0.4", **image}]}


def _steps(grid: Grid, n_channel_axes: int) -> list[dict[str, Any]]:
    """Return the transformations of a level: its translation is the *centre* of its first voxel."""
    return [
        {"type": "scale", "scale": [1.0] * n_channel_axes + list(grid.voxel_size_nm)},
        {"type": "translation", "translation": [0.0] * n_channel_axes + list(grid.centre((0, 0, 0)))},
    ]


def image_of(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first image a group's attributes describe (0.4 or 0.5 style), or None."""
    ome = attributes.get("ome")
    listed = (ome if isinstance(ome, Mapping) else attributes).get("multiscales")
    if isinstance(listed, Sequence) and listed and isinstance(listed[0], Mapping):
        return listed[0]
    return None


def levels_of(image: Mapping[str, Any]) -> list[str]:
    """Return the paths of an image's levels, finest first; none where the metadata are malformed."""
    try:
        return [str(level["path"]).strip("/") for level in image["datasets"]]
    except (KeyError, TypeError):
        return []


def read_image(image: Mapping[str, Any], level: str) -> Statement:
    """Return what an image's metadata say about one of its levels."""
    try:
        axes = axis_letters([axis["name"] for axis in image["axes"]]) or "?" * len(image["axes"])
        units = {letter: axis.get("unit") for letter, axis in zip(axes, image["axes"], strict=True)}
        transforms = _transforms(image, len(axes))
        scale, translation = transforms[level]
        if not {"z", "y", "x"} <= set(axes):
            return Statement(axes=axes)
        return _place(axes, units, scale, translation)
    except InputError as problem:
        return Statement(problems=(f"its OME-NGFF {problem}",))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        return Statement(problems=(f"its OME-NGFF metadata are malformed ({problem!r}): rewrite them",))


def _place(
    axes: str, units: Mapping[str, object], scale: list[float], translation: list[float] | None
) -> Statement:
    factors = [nm_per(units[a]) for a in "zyx"]
    if None in factors:
        stated = {a: units[a] for a in "zyx"}
        return Statement(axes=axes, why_missing=f"its OME-NGFF units {stated} are missing or unknown")
    f = [factor for factor in factors if factor is not None]
    at = [axes.index(a) for a in "zyx"]
    size = [scale[i] * k for i, k in zip(at, f, strict=True)]
    if min(size) <= 0:
        return Statement(axes=axes, problems=(f"its OME-NGFF scale {size} is not positive: correct it",))
    offset = None
    if translation is not None:
        low = [translation[i] * k - s / 2 for i, k, s in zip(at, f, size, strict=True)]
        offset = (low[0], low[1], low[2])
    grid = Grid((size[0], size[1], size[2]), offset or (0.0, 0.0, 0.0))
    return Statement(axes=axes, voxel_size_nm=grid.voxel_size_nm, offset_nm=None if offset is None else offset)


def _transforms(image: Mapping[str, Any], n_axes: int) -> dict[str, Transform]:
    """Return (scale, translation) of every level, the whole image's own transform applied last.

    Translations are all None where no level states one.
    """
    outer_scale, outer_shift = _compose(image.get("coordinateTransformations"), n_axes)
    levels: dict[str, Transform] = {}
    for level in image["datasets"]:
        scale, shift = _compose(level.get("coordinateTransformations"), n_axes)
        total = None
        if shift is not None or outer_shift is not None:
            inner, outer = shift or [0.0] * n_axes, outer_shift or [0.0] * n_axes
            total = [s * t + o for s, t, o in zip(outer_scale, inner, outer, strict=True)]
        scaled = [a * b for a, b in zip(outer_scale, scale, strict=True)]
        levels[str(level["path"]).strip("/")] = (scaled, total)
    if any(shift is not None for _, shift in levels.values()):
        return {path: (scale, shift or [0.0] * n_axes) for path, (scale, shift) in levels.items()}
    return levels


def _compose(transforms: Any, n_axes: int) -> Transform:
    """Return (scale, translation or None) of a list of transformations applied in order."""
    scale, shift = [1.0] * n_axes, None
    for step in transforms or []:
        if step["type"] == "scale":
            by = [float(v) for v in step["scale"]]
            scale = [a * b for a, b in zip(scale, by, strict=True)]
            shift = None if shift is None else [a * b for a, b in zip(shift, by, strict=True)]
        elif step["type"] == "translation":
            by = [float(v) for v in step["translation"]]
            shift = [a + b for a, b in zip(shift or [0.0] * n_axes, by, strict=True)]
        elif step["type"] != "identity":
            raise ValueError(f"transformation {step['type']!r} is not scale, translation or identity")
    return scale, shift
