"""Volumes in neuroglancer, served from this machine to this machine.

The `neuroglancer` package (Apache-2.0, extra ``emloom[view]``) runs a small web server that hands voxels to a
browser page on demand. It is bound to 127.0.0.1 and every address holds a secret token, so nobody else on the
network or the machine can guess it; nothing is uploaded, and the page needs no network. The page and this process
share one state. What the server answers besides voxels is in `emloom.view.nglserver`, how layers look in
`emloom.view.ngllayers`.

Dimensions are named z, y, x with the voxel size as scale, as stored; the view shows x to the right and y down.
World offsets are kept as the translation of each layer, so volumes with different grids line up, and offsets that
are no whole number of voxels stay exact. Voxels are read from the volume when the page asks for them; the whole
volume is never loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.volume import Volume, VolumeInfo
from emloom.view.ngllayers import PLAIN, Look, files_layer, is_segmentation, layer_of, offset_vox, space
from emloom.view.nglserver import answer_links, hand_out, refuse_strangers
from emloom.view.partnerlines import PartnerLines
from emloom.view.spot import LOOPBACK, START, Spot, check_token, new_token

# Pixels of a panel that a small volume fills; and how far a large one is from one voxel per pixel, at most.
_PANEL_PX = 380
_FARTHEST, _NEAREST = 4.0, 1 / 16


@dataclass(frozen=True)
class Scene:
    """What a page shows besides volumes as they are.

    Attributes:
        lines: layers of lines, above the volumes.
        looks: how layers are drawn, by name.
        neurons: folders of `emloom export-neurons`, by the name of the layer of labels that they belong to; a
            name that no volume has makes a layer of meshes alone.
    """

    lines: tuple[PartnerLines, ...] = ()
    looks: Mapping[str, Look] = field(default_factory=dict)
    neurons: Mapping[str, Path] = field(default_factory=dict)


NOTHING_ELSE = Scene()


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
        self.look(spot)
        with self.viewer.txn() as state:
            for layer in state.layers:
                if layer.name in selected:
                    layer.layer.segments = selected[layer.name]

    def look(self, spot: Spot) -> None:
        """Show a place, and leave selected what is; raises `InputError` outside of the first volume."""
        if spot.at is not None:
            position = _position(spot.at, self.volumes[0][1].info)
            with self.viewer.txn() as state:
                state.position = position

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
    scene: Scene = NOTHING_ELSE,
) -> Viewer:
    """Show volumes as layers of one neuroglancer page.

    Args:
        volumes: (layer name, volume) pairs, lowest layer first. Labels become segmentation layers, affinities and
            other channels an image in colour, everything else a grey image.
        port: to listen on; 0 picks a free one.
        token: secret part of the address; a random one by default. With a port it makes an address that stays.
        spot: where to look first; the middle of the first volume by default.
        lines: layers of lines, above the volumes.
        scene: what else is shown, and how.

    Returns:
        The viewer; its `url` opens on this machine only.

    Raises:
        InputError: neuroglancer is not installed, there is no volume, two layers share a name, one port serves
            two viewers, the token is no secret, or the spot is not in these volumes.
    """
    lines = [*lines, *scene.lines]
    held = {name for name, _ in volumes}
    alone = [name for name in scene.neurons if name not in held]
    names = [*(name for name, _ in volumes), *alone, *(each.name for each in lines)]
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
    refuse_strangers()
    addresses = _addresses(token, scene)
    with viewer.txn() as state:
        first = volumes[0][1].info
        state.dimensions = space(package, first)
        state.display_dimensions = ["x", "y", "z"]
        state.position = _centre(first)
        state.cross_section_scale, state.projection_scale = _zoom(first)
        state.layout = "4panel"
        for name, volume in volumes:
            look = scene.looks.get(name, PLAIN)
            layer = layer_of(package, volume, look, addresses.get(name, ()))
            state.layers.append(name=name, layer=layer, visible=look.visible)
        for name in alone:
            look = scene.looks.get(name, PLAIN)
            state.layers.append(name=name, layer=files_layer(package, look, addresses[name]))
        for each in lines:
            state.layers.append(name=each.name, layer=package.AnnotationLayer(each.layer()))
    running = Viewer(viewer.get_viewer_url(), viewer, tuple(volumes))
    chosen = {name: look.selected for name, look in scene.looks.items() if look.selected}
    if spot.segments or not chosen:
        running.go(spot)
    else:
        running.look(spot)
    answer_links(token, running.go)
    return running


def _addresses(token: str, scene: Scene) -> dict[str, tuple[str, ...]]:
    """Return where the page finds meshes, skeletons and properties, by the name of their layer."""
    made = hand_out(token, list(scene.neurons.values()))
    return {
        name: tuple(
            f"precomputed://{place}/{part}"
            for part in ("mesh", "skeletons", "segment_properties")
            if (folder / part / "info").is_file()
        )
        for (name, folder), place in zip(scene.neurons.items(), made, strict=True)
    }


def _zoom(info: VolumeInfo) -> tuple[float, float]:
    """Return (voxels per pixel of sections, voxels across the view in space): a small volume fills its panel."""
    size = min(info.grid.voxel_size_nm)
    across = [n * s / size for n, s in zip(info.shape, info.grid.voxel_size_nm, strict=True)]
    per_pixel = max(across[1:]) / _PANEL_PX
    return min(_FARTHEST, max(_NEAREST, per_pixel)), 1.6 * max(across)


def _neuroglancer() -> Any:
    try:
        return import_module("neuroglancer")
    except ModuleNotFoundError as problem:
        if problem.name != "neuroglancer":
            raise
        raise InputError("viewing needs the neuroglancer package: pip install 'emloom[view]'") from None


def _position(at: Vec, info: VolumeInfo) -> list[float]:
    """Return the middle of a voxel of the first volume, in the coordinates of the page."""
    if not info.box.contains(Box(at, (1, 1, 1))):
        raise InputError(f"voxel {at} is outside of the first volume, {info.source}: it has {info.box}")
    return [o + v + 0.5 for o, v in zip(offset_vox(info), at, strict=True)]


def _selected(spot: Spot, volumes: Sequence[tuple[str, Volume]]) -> dict[str, list[int]]:
    """Return the ids to select in every layer of labels."""
    chosen: dict[str, list[int]] = {name: [] for name, volume in volumes if is_segmentation(volume.info)}
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


def _centre(info: VolumeInfo) -> list[float]:
    return [o + n / 2 for o, n in zip(offset_vox(info), info.shape, strict=True)]
