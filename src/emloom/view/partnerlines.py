"""Lines from pre to post sites in neuroglancer: an annotation layer, and a state file that anybody can load.

Points are world nm (z, y, x), so the layer has dimensions of 1 nm and lines up with volumes of any voxel size. A
line starts at the pre site. Its description holds what is known about the contact; where segments are known, they
are those a click selects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

_NM = 1e-9
_SHADER = """void main() {
  setColor(defaultColor());
  setEndpointMarkerColor(vec3(0.34, 0.71, 0.91), vec3(0.94, 0.89, 0.26));
  setEndpointMarkerSize(6.0, 6.0);
  setLineWidth(2.0);
}
"""  # the colours of the marks in pictures: the pre site blue, the post site yellow


@dataclass(frozen=True, eq=False)
class PartnerLines:
    """Lines of one layer.

    Attributes:
        name: of the layer.
        ids: n names, each once.
        start_nm: float64 [n, 3], pre sites.
        end_nm: float64 [n, 3], post sites.
        words: n descriptions.

    Raises:
        InputError: lengths differ.
    """

    name: str
    ids: Sequence[str]
    start_nm: NDArray[np.float64]
    end_nm: NDArray[np.float64]
    words: Sequence[str]

    def __post_init__(self) -> None:
        n = len(self.ids)
        if not (len(self.words) == n and self.start_nm.shape == self.end_nm.shape == (n, 3)):
            raise InputError(
                f"{self.name}: {n} lines with starts {self.start_nm.shape}, ends {self.end_nm.shape} and "
                f"{len(self.words)} descriptions: give one of each"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def annotations(self) -> list[dict[str, Any]]:
        """Return the lines as neuroglancer's JSON has them."""
        rows = zip(self.ids, self.start_nm.tolist(), self.end_nm.tolist(), self.words, strict=True)
        return [
            {"type": "line", "id": name, "pointA": a, "pointB": b, "description": words}
            for name, a, b, words in rows
        ]

    def layer(self) -> dict[str, Any]:
        """Return the layer as a neuroglancer state has it."""
        return {
            "type": "annotation",
            "name": self.name,
            "source": {"url": "local://annotations", "transform": {"outputDimensions": _dimensions()}},
            "annotations": self.annotations(),
            "annotationColor": "#ff9900",
            "shader": _SHADER,
            "tab": "annotations",
        }


def state_of(lines: PartnerLines) -> dict[str, Any]:
    """Return a neuroglancer state with the lines alone, looking at the middle of the first of them.

    Loaded into any neuroglancer (``{}`` at the top right of its page), it needs no server and no volume; other
    layers can be added there.
    """
    state: dict[str, Any] = {"dimensions": _dimensions(), "displayDimensions": ["x", "y", "z"]}
    if len(lines):
        state["position"] = ((lines.start_nm[0] + lines.end_nm[0]) / 2).tolist()
    return state | {"crossSectionScale": 4.0, "layout": "4panel", "layers": [lines.layer()]}


def _dimensions() -> dict[str, list[float | str]]:
    return {axis: [_NM, "m"] for axis in "zyx"}
