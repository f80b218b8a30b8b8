"""How the pictures of a report open in a viewer: all with one command line but for the place, and one secret."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from emloom.geometry import Vec
from emloom.geometry.box import add
from emloom.io.open import open_volume
from emloom.io.volume import Kind, Volume
from emloom.tasks.lattice import common_box
from emloom.view.figures import Opening
from emloom.view.spot import PORT, Spot, address, new_token


@dataclass(frozen=True)
class Openings:
    """The volumes of an evaluation as a viewer shows them together.

    Attributes:
        volumes: (layer name, path) pairs, raw first.
        start: where the result begins, in voxels of the first of them.
        token: secret part of the addresses of this report.
    """

    volumes: tuple[tuple[str, str], ...]
    start: Vec
    token: str

    @classmethod
    def of(cls, paths: Mapping[str, str | None], result: Volume, kind: Kind | None = None) -> Self:
        """Return what shows places of a result.

        Args:
            paths: by layer name, `raw` first; None where there is none.
            result: voxels of it are what `opening` is asked for.
            kind: of the first volume where that is not raw.

        Raises:
            InputError: the result is not on the lattice of the first volume.
        """
        volumes = tuple((name, _anywhere(path)) for name, path in paths.items() if path is not None)
        name, path = volumes[0]
        start = common_box(result, open_volume(path, kind="raw" if name == "raw" else kind)).start
        return cls(volumes, start, new_token())

    def opening(self, at: Vec, segments: tuple[tuple[str, tuple[int, ...]], ...]) -> Opening:
        """Return the address and the command line that show a voxel of the result, with ids selected by layer."""
        spot = Spot(add(at, self.start), segments)
        words = ["emloom", "view", *(f"{name}={path}" for name, path in self.volumes), *spot.words()]
        words += ["--port", str(PORT), "--token", self.token]
        return Opening(address(PORT, self.token, spot), shlex.join(words))


def _anywhere(path: str) -> str:
    """Return a path that means the same in every folder."""
    return path if "://" in path else str(Path(path).absolute())
