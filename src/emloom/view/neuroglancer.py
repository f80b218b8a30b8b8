"""Volumes in neuroglancer, served from this machine to this machine.

The `neuroglancer` package (Apache-2.0, extra ``emloom[view]``) runs a small web server that hands voxels to a
browser page on demand. It is bound to 127.0.0.1 and every address holds a random token, so nobody else on the
network or the machine can guess it; nothing is uploaded.

Dimensions are named z, y, x with the voxel size as scale, as stored; the view shows x to the right and y down.
World offsets are kept as the translation of each layer, so volumes with different grids line up, and offsets that
are no whole number of voxels stay exact. Voxels are read from the volume when the page asks for them; the whole
volume is never loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.volume import Volume, VolumeInfo

_LOOPBACK = "127.0.0.1"
_NM = 1e-9

# The first three affinities as red, green, blue: bright where voxels belong together.
_CHANNELS_SHADER = """void main() {{
  emitRGB(vec3({channels}));
}}
"""


@dataclass(frozen=True)
class Viewer:
    """A running neuroglancer page; close it, or use it as a context manager.

    Attributes:
        url: address to open in a browser on this machine.
        viewer: the `neuroglancer.Viewer`, to change the state of the page from Python.
    """

    url: str
    viewer: Any

    def close(self) -> None:
        """Stop the server; the page stops working."""
        _neuroglancer().stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(volumes: Sequence[tuple[str, Volume]], *, port: int = 0) -> Viewer:
    """Show volumes as layers of one neuroglancer page.

    Args:
        volumes: (layer name, volume) pairs, lowest layer first. Labels become segmentation layers, affinities and
            other channels an image in colour, everything else a grey image.
        port: to listen on; 0 picks a free one.

    Returns:
        The viewer; its `url` opens on this machine only.

    Raises:
        InputError: neuroglancer is not installed, there is no volume, two layers share a name, or one port serves
            two viewers.
    """
    names = [name for name, _ in volumes]
    if not names:
        raise InputError("there is nothing to show: give at least one volume")
    if len(set(names)) < len(names):
        raise InputError(f"layers are called {', '.join(names)}: give every layer a name of its own")
    package = _neuroglancer()
    if package.is_server_running():
        # The package has one server per process: a second port would be ignored in silence.
        raise InputError("this process already shows a viewer: close it first")
    package.set_server_bind_address(_LOOPBACK, port)
    try:
        viewer = package.Viewer()
    except OSError as problem:
        package.stop()
        raise InputError(
            f"cannot listen on port {port}: {problem.strerror}; choose another, or 0 for any"
        ) from None
    with viewer.txn() as state:
        first = volumes[0][1].info
        state.dimensions = _space(package, first)
        state.display_dimensions = ["x", "y", "z"]
        state.position = _centre(first)
        state.layout = "4panel"
        for name, volume in volumes:
            state.layers.append(name=name, layer=_layer(package, volume))
    return Viewer(viewer.get_viewer_url(), viewer)


class _Lazy:
    """What neuroglancer needs of an array, read from a volume box by box."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.shape = volume.info.array_shape
        # neuroglancer draws bool as nothing; a mask is 0 and 1.
        self.dtype = np.dtype(np.uint8) if volume.info.dtype == np.bool_ else volume.info.dtype

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        ranges = [range(*part.indices(size)) for part, size in zip(index, self.shape, strict=True)]
        box = Box.of([r.start for r in ranges[-3:]], [r.stop for r in ranges[-3:]])
        voxels = self._volume.read(box)
        if len(ranges) == 4:
            voxels = voxels[ranges[0].start : ranges[0].stop]
        return np.asarray(voxels, self.dtype)


def _neuroglancer() -> Any:
    try:
        return import_module("neuroglancer")
    except ModuleNotFoundError as problem:
        if problem.name != "neuroglancer":
            raise
        raise InputError("viewing needs the neuroglancer package: pip install 'emloom[view]'") from None


def _space(package: Any, info: VolumeInfo, *, channels: bool = False) -> Any:
    """Return the coordinate space of a volume; ``c^`` is neuroglancer's name for a channel dimension."""
    scales = [size * _NM for size in info.grid.voxel_size_nm]
    if channels:
        return package.CoordinateSpace(names=["c^", "z", "y", "x"], units=["", "m", "m", "m"], scales=[1, *scales])
    return package.CoordinateSpace(names=["z", "y", "x"], units="m", scales=scales)


def _offset_vox(info: VolumeInfo) -> list[float]:
    return [o / s for o, s in zip(info.grid.offset_nm, info.grid.voxel_size_nm, strict=True)]


def _centre(info: VolumeInfo) -> list[float]:
    return [o + n / 2 for o, n in zip(_offset_vox(info), info.shape, strict=True)]


def _layer(package: Any, volume: Volume) -> Any:
    info = volume.info
    channels = info.channels is not None
    segmentation = info.kind == "labels" and not channels
    space = _space(package, info, channels=channels)
    local = package.LocalVolume(
        _Lazy(volume),
        dimensions=space,
        volume_type="segmentation" if segmentation else "image",
        # On-the-fly downsampling reads whole chunks: 2d keeps thin section stacks sharp and reads the least.
        downsampling="3d" if _is_isotropic(info) else "2d",
    )
    rank = 4 if channels else 3
    shift = [0.0] * (rank - 3) + _offset_vox(info)
    matrix = np.concatenate([np.eye(rank), np.array(shift)[:, None]], axis=1)
    source = package.LayerDataSource(
        url=local, transform=package.CoordinateSpaceTransform(output_dimensions=space, matrix=matrix)
    )
    if segmentation:
        return package.SegmentationLayer(source=source)
    layer = package.ImageLayer(source=source)
    if channels:
        layer.shader = _shader(info.channels or 0)
    return layer


def _shader(channels: int) -> str:
    shown = [f"toNormalized(getDataValue({c}))" if c < channels else "0.0" for c in range(3)]
    return _CHANNELS_SHADER.format(channels=", ".join(shown))


def _is_isotropic(info: VolumeInfo) -> bool:
    return max(info.grid.voxel_size_nm) < 2 * min(info.grid.voxel_size_nm)
