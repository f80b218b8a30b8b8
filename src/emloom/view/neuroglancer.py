"""Volumes in neuroglancer, served from this machine to this machine.

The `neuroglancer` package (Apache-2.0, extra ``emloom[view]``) runs a small web server that hands voxels to a
browser page on demand. It is bound to 127.0.0.1 and every address holds a secret token, so nobody else on the
network or the machine can guess it; nothing is uploaded. The page and this process share one state. Addresses that
end in ``/at?...`` move it to a place and select ids (see `emloom.view.spot`), then lead to the page: layout, zoom
and contrast stay as they are while somebody goes from one place to the next.

Dimensions are named z, y, x with the voxel size as scale, as stored; the view shows x to the right and y down.
World offsets are kept as the translation of each layer, so volumes with different grids line up, and offsets that
are no whole number of voxels stay exact. Voxels are read from the volume when the page asks for them; the whole
volume is never loaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.volume import Volume, VolumeInfo
from emloom.view.partnerlines import PartnerLines
from emloom.view.spot import LOOPBACK, START, Spot, check_token, new_token

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
        volumes: (layer name, volume) pairs, as they were given.
    """

    url: str
    viewer: Any
    volumes: tuple[tuple[str, Volume], ...]

    def go(self, spot: Spot) -> None:
        """Show a place with its ids selected; what was selected before is not any more.

        Layers that somebody has closed in the page stay closed.

        Raises:
            InputError: the place is outside of the first volume, or a layer is not there or holds no labels.
        """
        selected = _selected(spot, self.volumes)
        position = None if spot.at is None else _position(spot.at, self.volumes[0][1].info)
        with self.viewer.txn() as state:
            if position is not None:
                state.position = position
            for layer in state.layers:
                if layer.name in selected:
                    layer.layer.segments = selected[layer.name]

    def close(self) -> None:
        """Stop the server; the page stops working."""
        _neuroglancer().stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    volumes: Sequence[tuple[str, Volume]],
    *,
    port: int = 0,
    token: str | None = None,
    spot: Spot = START,
    lines: Sequence[PartnerLines] = (),
) -> Viewer:
    """Show volumes as layers of one neuroglancer page.

    Args:
        volumes: (layer name, volume) pairs, lowest layer first. Labels become segmentation layers, affinities and
            other channels an image in colour, everything else a grey image.
        port: to listen on; 0 picks a free one.
        token: secret part of the address; a random one by default. With a port it makes an address that stays.
        spot: where to look first; the middle of the first volume by default.
        lines: layers of lines, above the volumes.

    Returns:
        The viewer; its `url` opens on this machine only.

    Raises:
        InputError: neuroglancer is not installed, there is no volume, two layers share a name, one port serves
            two viewers, the token is no secret, or the spot is not in these volumes.
    """
    names = [*(name for name, _ in volumes), *(each.name for each in lines)]
    if not volumes:
        raise InputError("there is nothing to show: give at least one volume")
    if len(set(names)) < len(names):
        raise InputError(f"layers are called {', '.join(names)}: give every layer a name of its own")
    token = new_token() if token is None else check_token(token)
    _selected(spot, volumes)
    if spot.at is not None:
        _position(spot.at, volumes[0][1].info)
    package = _neuroglancer()
    if package.is_server_running():
        # The package has one server per process: a second port would be ignored in silence.
        raise InputError("this process already shows a viewer: close it first")
    package.set_server_bind_address(LOOPBACK, port)
    try:
        viewer = package.Viewer(token=token)
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
        for each in lines:
            state.layers.append(name=each.name, layer=package.AnnotationLayer(each.layer()))
    running = Viewer(viewer.get_viewer_url(), viewer, tuple(volumes))
    running.go(spot)
    _answer_links(running)
    return running


def _answer_links(running: Viewer) -> None:
    """Let the server of the package answer addresses that lead to a spot."""
    token, web = running.viewer.token, import_module("tornado.web")

    class Spots(web.RequestHandler):  # type: ignore[name-defined, misc]
        def get(self) -> None:
            self.set_header("Cache-Control", "no-store")
            try:
                running.go(Spot.of_query(self.request.query))
            except InputError as problem:
                self.set_status(400)
                self.set_header("Content-Type", "text/plain; charset=utf-8")
                self.set_header("X-Content-Type-Options", "nosniff")
                self.finish(f"{problem}\n")
            else:
                self.redirect(f"/v/{token}/")

    server = import_module("neuroglancer.server").global_server
    # Under no other host: names that others point at this machine are not answered.
    server.app.add_handlers(re.escape(LOOPBACK), [(f"/v/{re.escape(token)}/at", Spots)])


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


def _position(at: Vec, info: VolumeInfo) -> list[float]:
    """Return the middle of a voxel of the first volume, in the coordinates of the page."""
    if not info.box.contains(Box(at, (1, 1, 1))):
        raise InputError(f"voxel {at} is outside of the first volume, {info.source}: it has {info.box}")
    return [o + v + 0.5 for o, v in zip(_offset_vox(info), at, strict=True)]


def _selected(spot: Spot, volumes: Sequence[tuple[str, Volume]]) -> dict[str, list[int]]:
    """Return the ids to select in every layer of labels."""
    chosen: dict[str, list[int]] = {name: [] for name, volume in volumes if _is_segmentation(volume.info)}
    for layer, ids in spot.segments:
        if (layer and layer not in chosen) or not chosen:
            every, known = ", ".join(name for name, _ in volumes), ", ".join(chosen) or "none"
            what = f"no layer of labels is called {layer!r}" if layer else "no layer is known to hold labels"
            raise InputError(
                f"{what}: of the layers {every}, labels are {known}; name one, as in --segment LAYER=5"
            )
        for name in [layer] if layer else chosen:
            chosen[name] += ids
    return chosen


def _is_segmentation(info: VolumeInfo) -> bool:
    return info.kind == "labels" and info.channels is None


def _centre(info: VolumeInfo) -> list[float]:
    return [o + n / 2 for o, n in zip(_offset_vox(info), info.shape, strict=True)]


def _layer(package: Any, volume: Volume) -> Any:
    info = volume.info
    channels = info.channels is not None
    segmentation = _is_segmentation(info)
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
        url=local,
        transform=package.CoordinateSpaceTransform(output_dimensions=space, matrix=matrix),
        # No meshes: the package makes them of the whole volume in memory as soon as an id is selected.
        subsources={"default": True, "bounds": True},
        enable_default_subsources=False,
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
