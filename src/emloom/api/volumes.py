"""Volumes: open, save, view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emloom.api.parts import Source, Target, path_of
from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import open_volume, staged_volume
from emloom.io.volume import ArrayVolume, Kind, Volume

if TYPE_CHECKING:
    from emloom.view.neuroglancer import Viewer

Vec3 = Sequence[float]


def open(
    path: Target, *, voxel_size_nm: Vec3 | None = None, offset_nm: Vec3 | None = None, kind: Kind | None = None
) -> Volume:
    """Open a volume of any format; nothing is read until `.read(box)`.

    Args:
        path: file, folder or address, with the name inside it: ``stack.h5/volumes/raw``, ``raw.zarr``.
        voxel_size_nm: (z, y, x), only where the file does not state it.
        offset_nm: world position (z, y, x) of the corner of the first voxel.
        kind: what the values mean: raw, labels, mask, affinities, ...

    Raises:
        InputError: nothing or several arrays there, or what is known is not enough or contradicts itself.
    """
    return open_volume(path, voxel_size_nm=voxel_size_nm, offset_nm=offset_nm, kind=kind)


def save(
    volume: Volume | NDArray[Any], path: Target, *, voxel_size_nm: Vec3 | None = None, kind: Kind | None = None
) -> Volume:
    """Write an array or a volume that fits into memory, and return it opened from its file.

    Args:
        volume: a volume, or an array ``[C,]ZYX``.
        path: ``out.zarr``, ``out.zarr/name``, ``out.h5/name``; must not exist. The suffix chooses the format.
        voxel_size_nm: (z, y, x); needed for an array.
        kind: what the values mean: raw, labels, mask, ...

    Raises:
        InputError: the path exists, the voxel size is missing, or the format cannot hold it.
    """
    if not isinstance(volume, Volume):
        if voxel_size_nm is None:
            raise InputError(f"voxel size is missing for {path}: pass voxel_size_nm=(z, y, x) in nm")
        z, y, x = voxel_size_nm
        volume = ArrayVolume(np.asarray(volume), Grid((float(z), float(y), float(x))), kind)
    known = volume.info
    info = known.with_(chunks=None, kind=kind or known.kind)
    with staged_volume(Path(path), info) as written:
        written.write(info.box, volume.read(known.box))
    return open_volume(path)


def view(
    *volumes: Source,
    at: Sequence[int] | None = None,
    select: Mapping[str, Sequence[int]] | Sequence[int] = (),
    synapses: Target | None = None,
    port: int = 0,
    **layers: Source,
) -> Viewer:
    """Show volumes together in neuroglancer, served to this machine only (`emloom view`).

    Args:
        volumes: to show, lowest layer first; a container shows all it holds.
        at: voxel (z, y, x) of the first volume to look at.
        select: ids in every layer of labels, or by the name of the layer.
        synapses: table of synapses, or a folder that holds one: lines from pre to post.
        port: on this machine; 0 takes a free one.
        layers: more volumes, by the names of their layers: ``view(raw="raw.zarr", neurons=segmentation)``.

    Returns:
        The running viewer: open its `url` in a browser; `.close()` it, or use it in a ``with`` block.

    Raises:
        InputError: neuroglancer is not installed, or a volume does not open, or a layer is not there.
    """
    from emloom.geometry.box import as_vec
    from emloom.tasks.synapselines import read_lines
    from emloom.tasks.view import named_volumes
    from emloom.view.neuroglancer import serve
    from emloom.view.spot import Spot

    by_layer = select if isinstance(select, Mapping) else ({"": select} if len(select) else {})
    spot = Spot(
        None if at is None else as_vec(at),
        tuple((name, tuple(int(n) for n in ids)) for name, ids in by_layer.items()),
    )
    paths = [*map(path_of, volumes), *(f"{name}={path_of(volume)}" for name, volume in layers.items())]
    lines = [] if synapses is None else [read_lines(str(synapses))]
    return serve(named_volumes(paths, {name for name in by_layer if name}), port=port, spot=spot, lines=lines)
