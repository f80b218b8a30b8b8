"""`emloom view`: open volumes together in neuroglancer, on this machine only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from emloom.errors import InputError
from emloom.io.open import inspect, open_volume
from emloom.io.volume import Volume
from emloom.view.neuroglancer import serve


def named_volumes(paths: Sequence[str]) -> list[tuple[str, Volume]]:
    """Return (layer name, volume) of every path; ``name=path`` names a layer, a container shows all it holds.

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
            layers.append((name if name and len(hits) == 1 else layer_name(hit.path), open_volume(hit.path)))
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


def show(paths: Sequence[str], port: int, say: Callable[[str], None]) -> None:
    """Serve volumes until interrupted, telling the address."""
    with serve(named_volumes(paths), port=port) as viewer:
        say(f"{viewer.url}\nserving to this machine only; Ctrl-C stops")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("stopped")
