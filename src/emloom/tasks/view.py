"""`emloom view`: open volumes together in neuroglancer, on this machine only."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from emloom.errors import InputError
from emloom.io.open import inspect, open_volume
from emloom.io.volume import Volume
from emloom.tasks.synapselines import read_lines
from emloom.view.neuroglancer import serve
from emloom.view.spot import START, Spot


def named_volumes(paths: Sequence[str], labels: Collection[str] = ()) -> list[tuple[str, Volume]]:
    """Return (layer name, volume) of every path; ``name=path`` names a layer, a container shows all it holds.

    Args:
        paths: of volumes.
        labels: layers that are labels where their files do not say what they are.

    Raises:
        InputError: a path does not open, or two layers share a name.
    """
    layers: list[tuple[str, Volume]] = []
    for text in paths:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = "", text
        hits = inspect(path)
        for hit in hits:
            layer = name if name and len(hits) == 1 else layer_name(hit.path)
            volume = open_volume(hit.path)
            if layer in labels and volume.info.kind is None:
                volume = open_volume(hit.path, kind="labels")
            layers.append((layer, volume))
    names = [name for name, _ in layers]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two layers are called {name!r}: name them, like truth=a.h5/labels found=b.zarr/labels"
            )
    return layers


def layer_name(path: str) -> str:
    """Return a short name for a path: its last part, with the container where that is too common."""
    place = Path(path)
    return place.stem if place.suffix else f"{place.parent.stem}/{place.name}"


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
        paths: of volumes, see `named_volumes`.
        port: to listen on; 0 picks a free one.
        say: is told the address.
        spot: where to look first.
        token: secret part of the address; a random one by default.
        synapses: a table of synapses, or a folder that holds one, to be shown as lines.
    """
    lines = [] if synapses is None else [read_lines(synapses)]
    named = {layer for layer, _ in spot.segments}
    with serve(named_volumes(paths, named), port=port, token=token, spot=spot, lines=lines) as viewer:
        say(f"{viewer.url}\nserving to this machine only; Ctrl-C stops")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("stopped")
