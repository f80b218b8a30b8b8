"""The volumes of an evaluation as a viewer shows them together: what the links of a report open."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emloom.geometry import Vec
from emloom.io.open import open_volume
from emloom.tasks.lattice import common_box
from emloom.tasks.scorespec import EvaluateSpec, Subject
from emloom.view.figures import Opening
from emloom.view.spot import PORT, Spot, address, new_token


@dataclass(frozen=True)
class Viewed:
    """The volumes of an evaluation as a viewer shows them together.

    Attributes:
        volumes: (layer name, path) pairs, raw first; the segments are "segmentation".
        start: where the segmentation begins, in voxels of the first of them.
        token: secret part of the addresses of this report.
    """

    volumes: tuple[tuple[str, str], ...]
    start: Vec
    token: str

    @classmethod
    def of(cls, spec: EvaluateSpec, subject: Subject) -> Viewed:
        """Return what shows an evaluation."""
        # Of fragments and a look-up table there is a volume of segments: where the container was cut.
        segments = subject.labels if subject.lut is None else str(Path(subject.labels).parent / "segmentation")
        paths = {"raw": spec.raw, "truth": spec.truth, "segmentation": segments}
        volumes = tuple((name, _anywhere(path)) for name, path in paths.items() if path is not None)
        first = open_volume(volumes[0][1], kind="raw" if spec.raw is not None else "labels")
        start = common_box(open_volume(subject.labels, kind="labels"), first).start
        return cls(volumes, start, new_token())

    def opening(self, at: Vec, segments: Sequence[tuple[str, tuple[int, ...]]]) -> Opening:
        """Return the address and the command line that show a voxel of the segmentation, with ids selected."""
        z, y, x = (a + s for a, s in zip(at, self.start, strict=True))
        spot = Spot((z, y, x), tuple((layer, ids) for layer, ids in segments if ids))
        words = ["emloom", "view", *(f"{name}={path}" for name, path in self.volumes), *spot.words()]
        words += ["--port", str(PORT), "--token", self.token]
        return Opening(address(PORT, self.token, spot), shlex.join(words))


def _anywhere(path: str) -> str:
    """Return a path that means the same in every folder."""
    return path if "://" in path else str(Path(path).absolute())
