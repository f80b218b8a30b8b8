"""`emloom view`: volumes and whole results in neuroglancer, named, coloured, on this machine only."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.synapses import SynapseTable
from emloom.io.open import inspect, open_volume
from emloom.io.synapsetable import read_synapse_table
from emloom.io.volume import Kind, Volume
from emloom.tasks.synapselines import lines_of
from emloom.tasks.viewfolder import Part, Role, holding_of
from emloom.tasks.viewscene import first_look, largest_neurons, look_of
from emloom.view.neuroglancer import Scene, serve
from emloom.view.ngllayers import PLAIN
from emloom.view.spot import START, Spot


@dataclass
class Gathered:
    """What the paths of a command line stand for.

    Attributes:
        volumes: (layer name, volume) pairs, lowest layer first.
        roles: of volumes that were found in a folder of results, by layer name.
        synapses: folder or table, None where there is none.
        neurons: folder of exported neurons, None where there is none.
    """

    volumes: list[tuple[str, Volume]] = field(default_factory=list)
    roles: dict[str, Role] = field(default_factory=dict)
    synapses: Path | None = None
    neurons: Path | None = None


def gather(paths: Sequence[str], labels: Collection[str] = ()) -> Gathered:
    """Open what paths stand for: volumes, ``name=path``, containers, and folders of results.

    Args:
        paths: of volumes and folders.
        labels: layers that are labels where their files do not say what they are.

    Raises:
        InputError: a path does not open, or two layers share a name.
    """
    found = Gathered()
    for text in paths:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = "", text
        holding = holding_of(path)
        if holding:
            prefix = f"{name} " if name else ""
            named = {volume.info.source for _, volume in found.volumes}
            for part in holding.parts:
                # A volume that was named by hand is not shown twice, nor is another stack beside it.
                if part.path in named or (part.role == "raw" and named):
                    continue
                for layer, volume in _of_part(part):
                    _add(found, f"{prefix}{layer}", volume)
                    found.roles[f"{prefix}{layer}"] = part.role
            found.synapses, found.neurons = found.synapses or holding.synapses, found.neurons or holding.neurons
            continue
        for layer, volume in _opened(name, path, labels):
            _add(found, layer, volume)
    return found


def named_volumes(paths: Sequence[str], labels: Collection[str] = ()) -> list[tuple[str, Volume]]:
    """Return (layer name, volume) of every path; ``name=path`` names a layer, a container shows all it holds.

    Raises:
        InputError: a path does not open, or two layers share a name.
    """
    return gather(paths, labels).volumes


def _of_part(part: Part) -> Iterator[tuple[str, Volume]]:
    """Yield (layer name, volume) of a part; one for each head where it is a container of several."""
    hits = inspect(part.path)
    for hit in hits:
        name = part.name if len(hits) == 1 else f"{part.name} {Path(hit.path).name}"
        # Only where the file does not say what it is.
        kind = None if hit.kind is not None else _KINDS.get(part.role)
        yield name, open_volume(hit.path, kind=kind)


_KINDS: dict[Role, Kind] = {"labels": "labels", "hidden labels": "labels", "defects": "labels", "raw": "raw"}


def _opened(name: str, path: str, labels: Collection[str]) -> Iterator[tuple[str, Volume]]:
    hits = inspect(path)
    for hit in hits:
        layer = name if name and len(hits) == 1 else layer_name(hit.path)
        volume = open_volume(hit.path)
        if layer in labels and volume.info.kind is None:
            volume = open_volume(hit.path, kind="labels")
        yield layer, volume


def _add(found: Gathered, layer: str, volume: Volume) -> None:
    if any(layer == name for name, _ in found.volumes):
        raise InputError(f"two layers are called {layer!r}: name them, like truth=a.h5/labels found=b.zarr/labels")
    found.volumes.append((layer, volume))


def layer_name(path: str) -> str:
    """Return a short name for a path: its last part, with the container where that is too common."""
    place = Path(path)
    return place.stem if place.suffix else f"{place.parent.stem}/{place.name}"


def composed(found: Gathered, spot: Spot, synapses: str | None) -> tuple[Scene, Spot]:
    """Return how everything is drawn, and where the page looks first."""
    source = synapses or found.synapses
    table: SynapseTable | None = None if source is None else read_synapse_table(source)
    lines = () if table is None else (lines_of(table),)
    at = spot.at if spot.at is not None else first_look(found.volumes, table, found.neurons)
    middle_nm = found.volumes[0][1].info.grid.to_world([v + 0.5 for v in at])
    looks = {
        name: look_of(volume, found.roles.get(name), _inside(volume, middle_nm)) for name, volume in found.volumes
    }
    neurons: dict[str, Path] = {}
    if found.neurons is not None:
        layer = _home_of(found)
        neurons[layer] = found.neurons
        looks[layer] = replace(looks.get(layer, PLAIN), selected=largest_neurons(found.neurons))
    return Scene(lines, looks, neurons), replace(spot, at=at)


def _home_of(found: Gathered) -> str:
    """Return the layer of labels that exported neurons belong to; a layer of their own where there is none."""
    segments = [
        name
        for name, volume in found.volumes
        if volume.info.kind == "labels" and found.roles.get(name, "labels") == "labels"
    ]
    return segments[-1] if segments else "neurons"


def _inside(volume: Volume, place_nm: Sequence[float]) -> Vec | None:
    voxel = [int(v) for v in np.floor(volume.info.grid.to_voxel(place_nm))]
    if all(0 <= v < n for v, n in zip(voxel, volume.info.shape, strict=True)):
        return (voxel[0], voxel[1], voxel[2])
    return None


def show(
    paths: Sequence[str],
    port: int,
    say: Callable[[str], None],
    *,
    spot: Spot = START,
    token: str | None = None,
    synapses: str | None = None,
) -> None:
    """Serve volumes until interrupted, telling the address.

    Args:
        paths: of volumes and of folders of results, see `gather`.
        port: to listen on; 0 picks a free one.
        say: is told the address, and what the layers are.
        spot: where to look first.
        token: secret part of the address; a random one by default.
        synapses: a table of synapses, or a folder that holds one, to be shown as lines.

    Raises:
        InputError: a path does not open, or there is no volume in it to place the others by.
    """
    found = gather(paths, {layer for layer, _ in spot.segments})
    if not found.volumes:
        raise InputError(f"{', '.join(paths)}: no volume is there to show; name one, like raw.zarr {paths[0]}")
    scene, spot = composed(found, spot, synapses)
    with serve(found.volumes, port=port, token=token, spot=spot, scene=scene) as viewer:
        say(f"{viewer.url}\nserving to this machine only; Ctrl-C stops")
        for line in said(found, scene):
            say(line)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("stopped")


def said(found: Gathered, scene: Scene) -> Iterator[str]:
    """Yield lines that tell a person which layers there are, and what would be needed for more."""
    for name, volume in found.volumes:
        hidden = "" if scene.looks[name].visible else " (hidden: click its name)"
        yield f"  {name}: {volume.info.source}{hidden}"
    for each in scene.lines:
        yield f"  {each.name}: {len(each)} lines from pre to post"
    if found.neurons is not None:
        yield f"  meshes and skeletons: {found.neurons}, of the segments that are selected"
    elif any(volume.info.kind == "labels" for _, volume in found.volumes):
        yield "  no meshes: `emloom export-neurons SEG -o neurons/` makes them; then add neurons/ to this command"
