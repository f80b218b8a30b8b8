"""Sections one after the other as a moving picture: what does not lie still between two sections is seen at once.

A GIF, because every browser and every chat plays it. It compresses noise badly, so it is bounded: first greys are
given up, then pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emloom.errors import InputError
from emloom.view.figures import INK, Figure
from emloom.view.mosaic import words_of

GREYS = (64, 32, 16)
"""Greys of a picture, from what is tried first."""
_GAP, _EDGE, _PLATE = 8, 4, 0.35
_LEAST_PX = 32
U8 = NDArray[np.uint8]


def flicker(
    sides: Sequence[tuple[str, U8]],
    numbers: Sequence[int],
    *,
    alt: str,
    caption: str = "",
    milliseconds: int = 280,
    most_bytes: int = 1_400_000,
) -> Figure:
    """Return stacks side by side, section after section, as a GIF; its first frame is the still picture.

    Args:
        sides: (title, uint8 [Z, Y, X]), all of one shape.
        numbers: of the sections, [Z]; drawn into the picture.
        alt: replaces the picture for people who cannot see it.
        caption: printed below.
        milliseconds: that a section is shown.
        most_bytes: of the GIF; a larger one is drawn again, with fewer greys, then with fewer pixels.

    Raises:
        InputError: there is no side or no section, shapes differ, or values are not uint8.
    """
    _require(sides, numbers)
    stacks = [stack for _, stack in sides]
    titles = [title for title, _ in sides]
    while True:
        for greys in GREYS:
            frames = [
                _frame([_with_words(s[k], f"{t}, z = {z}") for t, s in zip(titles, stacks, strict=True)], greys)
                for k, z in enumerate(numbers)
            ]
            motion = _gif(frames, milliseconds)
            if len(motion) <= most_bytes:
                return Figure(_png(frames[0]), alt, caption, motion=motion)
        if min(stacks[0].shape[1:]) < 2 * _LEAST_PX:
            return Figure(_png(frames[0]), alt, caption)  # too many sections for any motion: the first one, still
        stacks = [_halved(stack) for stack in stacks]


def _require(sides: Sequence[tuple[str, U8]], numbers: Sequence[int]) -> None:
    if not sides or not len(numbers):
        raise InputError("a flicker needs at least one stack and one section")
    shapes = {stack.shape for _, stack in sides}
    if len(shapes) > 1 or any(len(shape) != 3 or shape[0] != len(numbers) for shape in shapes):
        raise InputError(f"stacks of {sorted(shapes)} with {len(numbers)} numbers: give one [Z, Y, X], one each")
    if any(stack.dtype != np.uint8 for _, stack in sides):
        raise InputError("a flicker shows uint8 grey: stretch the sections first")


def _halved(stack: U8) -> U8:
    y, x = (n // 2 * 2 for n in stack.shape[1:])
    pairs = stack[:, :y, :x].reshape(len(stack), y // 2, 2, x // 2, 2)
    half: U8 = np.rint(pairs.mean(axis=(2, 4))).astype(np.uint8)
    return half


def _with_words(image: U8, text: str) -> U8:
    """Return an image with a line of text on a dark plate in its upper left corner; not where there is no room."""
    words = words_of(text)
    height, width = words.shape[0] + 2, words.shape[1] + 10
    if height + _EDGE > image.shape[0] or width + _EDGE > image.shape[1]:
        return image
    out = image.copy()
    plate = out[_EDGE : _EDGE + height, _EDGE : _EDGE + width]
    plate[:] = np.rint(plate * _PLATE).astype(np.uint8)
    plate[1:-1, 5:-5] = np.maximum(plate[1:-1, 5:-5], words)
    return out


def _frame(images: Sequence[U8], greys: int) -> Image.Image:
    """Return images side by side in a palette of greys; what lies between is transparent, the last index."""
    gap = np.full((images[0].shape[0], _GAP), greys, np.uint8)
    parts: list[U8] = []
    for image in images:
        parts += [gap, np.rint(image * ((greys - 1) / 255)).astype(np.uint8)]
    frame = Image.fromarray(np.concatenate(parts[1:], axis=1))
    palette = np.zeros((256, 3), np.uint8)
    palette[:greys] = np.rint(np.linspace(0, 255, greys))[:, None].astype(np.uint8)
    palette[greys:] = [int(INK[i : i + 2], 16) for i in (1, 3, 5)]
    frame.putpalette(palette.tobytes())
    frame.info["transparency"] = greys
    return frame


def _gif(frames: Sequence[Image.Image], milliseconds: int) -> bytes:
    buffer = BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, optimize=False
    )
    return buffer.getvalue()


def _png(frame: Image.Image) -> bytes:
    buffer = BytesIO()
    frame.save(buffer, "PNG", transparency=frame.info["transparency"], compress_level=9)
    return buffer.getvalue()
