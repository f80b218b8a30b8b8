"""How a patch is looked at: its section with some tissue around it, in one grey window for all patches.

The tissue around a patch (the *margin*) belongs to the picture and never to the patch: boxes, tables and tracings
are made from the patch alone. All pictures of a volume share one window of grey values, so that a faint section
looks faint; where the picture leaves the volume it is transparent, not invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.io.volume import Volume
from emloom.view.colours import RGB

MARGIN = 35
"""Voxels of tissue shown around a patch of 140, as genEM3's annotators saw it (210 x 210)."""

_SAMPLES = 16
_FRAME = (255, 90, 54)
_OUTSIDE = (128, 128, 128)
_FULL = 255


@dataclass(frozen=True)
class Window:
    """Grey values shown as black and as white.

    Attributes:
        black: this value and all below become 0.
        white: this value and all above become 255.
    """

    black: float
    white: float

    def grey(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return values as grey, uint8 of the same shape; NaN becomes 0."""
        scale = _FULL / (self.white - self.black)
        shown = (np.nan_to_num(np.asarray(values, np.float64), nan=self.black) - self.black) * scale
        grey: NDArray[np.uint8] = np.clip(np.rint(shown), 0, _FULL).astype(np.uint8)
        return grey


def window_of(raw: Volume, boxes: list[Box], percent: float = 0.3) -> Window:
    """Return the window between two percentiles of some of the boxes; those are spread over the list.

    Args:
        raw: a volume of one channel.
        boxes: voxels of it; at least one.
        percent: below and above which values become black and white.
    """
    step = max(1, len(boxes) // _SAMPLES)
    values = np.concatenate([raw.read(box).ravel() for box in boxes[::step]]).astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return Window(0.0, 1.0)
    black, white = np.percentile(values, [percent, 100 - percent]).tolist()
    return Window(black, white) if white > black else Window(black - 0.5, black + 0.5)


def shown_section(box: Box, step: int = 0) -> int:
    """Return the section in which a patch is looked at: its middle one, or so many behind it."""
    return box.start[0] + box.shape[0] // 2 + step


def context(raw: Volume, box: Box, margin: int, section: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return a section of a patch with its margin: values ``[Y, X]``, and where they lie inside the volume.

    Args:
        raw: a volume of one channel.
        box: voxels of the patch.
        margin: voxels around it, in the section.
        section: which, z.
    """
    wanted = Box((section, *box.start[1:]), (1, *box.shape[1:])).grow((0, margin, margin))
    values, inside = np.zeros(wanted.shape, raw.info.dtype), np.zeros(wanted.shape, np.bool_)
    there = wanted.intersect(raw.info.box)
    if not there.is_empty:
        at = there.slices(wanted.start)
        values[at], inside[at] = raw.read(there), True
    return values[0], inside[0]


def context_png(raw: Volume, box: Box, margin: int, section: int, window: Window) -> bytes:
    """Return the picture of `context` as PNG, grey with transparency where it leaves the volume."""
    from PIL import Image

    values, inside = context(raw, box, margin, section)
    pixels = np.stack([window.grey(values), np.where(inside, _FULL, 0).astype(np.uint8)], axis=-1)
    buffer = BytesIO()
    Image.fromarray(pixels, "LA").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def framed(raw: Volume, box: Box, margin: int, section: int, window: Window) -> RGB:
    """Return the picture of `context` with a frame around the patch, uint8 ``[Y, X, 3]``.

    The frame is drawn on the tissue around the patch and covers none of it; without a margin there is none. Where
    the picture leaves the volume it is hatched.
    """
    values, inside = context(raw, box, margin, section)
    picture = np.repeat(window.grey(values)[..., None], 3, axis=2)
    y, x = np.indices(inside.shape)
    picture[~inside] = 255
    picture[~inside & ((y + x) % 6 == 0)] = _OUTSIDE
    last_y, last_x = (margin + n for n in box.shape[1:])
    for at in range(margin - min(2, margin), margin):
        far_y, far_x = last_y + margin - at - 1, last_x + margin - at - 1
        picture[[at, far_y], at : far_x + 1] = _FRAME
        picture[at : far_y + 1, [at, far_x]] = _FRAME
    return picture
