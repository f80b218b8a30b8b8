"""Pictures of reconstructions, as arrays that TensorBoard and image files take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

_GAP = 2  # voxels between pictures


def reconstruction_panel(
    shown_NYX: NDArray[Any], answer_NYX: NDArray[Any], span: tuple[float, float], *, colour: bool = False
) -> NDArray[np.uint8]:
    """Return input | output | difference, one row of pictures per sample, two white voxels between pictures.

    `span` is mapped to 0 ... 255, values outside are cut. The difference, output less input, is cut at plus and
    minus the width of the span: grey 128 where there is none, brighter where the output is; in colour white where
    there is none, red where the output is brighter, blue where it is darker.

    Args:
        shown_NYX: what the net was shown.
        answer_NYX: what it gave back.
        span: the values drawn black and white.
        colour: see above.

    Returns:
        uint8 [Y, X], or [Y, X, 3] (red, green, blue) in colour.

    Raises:
        InputError: shapes differ or are not [N, Y, X], there is no sample, values are not finite, or the span is
            empty.
    """
    shown, answer = (np.asarray(each, np.float64) for each in (shown_NYX, answer_NYX))
    low, high = span
    if shown.ndim != 3 or shown.shape != answer.shape or not shown.size:
        raise InputError(
            f"a panel needs inputs and outputs of one shape [N, Y, X], got {shown.shape}, {answer.shape}"
        )
    if not low < high:
        raise InputError(
            f"the span {span} is empty: give the values to be drawn black and white, the smaller first"
        )
    if not (np.isfinite(shown).all() and np.isfinite(answer).all()):
        raise InputError("inputs or outputs hold NaN or infinity, which have no grey value: replace them first")
    grey = [np.clip((each - low) / (high - low), 0, 1) for each in (shown, answer)]
    change = np.clip((answer - shown) / (high - low), -1, 1)
    if not colour:
        # 128 is no difference exactly: 127 steps above, 128 below.
        signed = np.where(change < 0, 128, 127) * change + 128
        return _tiled([np.rint(grey[0] * 255), np.rint(grey[1] * 255), np.rint(signed)])
    red, blue = 1 + np.minimum(change, 0), 1 - np.maximum(change, 0)
    pictures = [np.stack([each] * 3, axis=-1) for each in grey]
    pictures.append(np.stack([red, 1 - np.abs(change), blue], axis=-1))
    return _tiled([np.rint(each * 255) for each in pictures])


def _tiled(columns: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    """Return pictures ``[N, Y, X, ...]`` of every column side by side, samples below each other."""
    n, y, x, *rest = columns[0].shape
    panel = np.full((n * (y + _GAP) - _GAP, len(columns) * (x + _GAP) - _GAP, *rest), 255, np.uint8)
    for column, pictures in enumerate(columns):
        for row, picture in enumerate(pictures):
            top, left = row * (y + _GAP), column * (x + _GAP)
            panel[top : top + y, left : left + x] = picture
    return panel
