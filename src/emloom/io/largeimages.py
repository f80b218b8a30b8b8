"""Single images of any size, PNG and JPEG: sections of a hundred million pixels are usual, bombs are not.

Pillow refuses images beyond some 180 million pixels, because a small file can claim to be a large image. A section
of 16 000 x 16 000 pixels is refused with it. Here a claim is judged by the bytes behind it: neither format packs
more than about a thousand pixels into a byte (deflate: 1032 to 1), so a file that claims more is damaged or worse.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
from PIL import Image

from emloom.errors import InputError

MOST_PIXELS_PER_BYTE = 1032 * 8
"""Of one bit each, in deflated data."""
_ONE_OPENS = threading.Lock()


@contextmanager
def opened_image(path: Path) -> Iterator[Any]:
    """Open an image with imageio for the block: `properties()` and `read()` it.

    Raises:
        InputError: it claims more pixels than its bytes can hold.
    """
    with _ONE_OPENS:
        # Pillow's limit is a variable of the module, looked at only while a file is opened.
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            file = imageio.imopen(path, "r", plugin="pillow")
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with file:
        height, width = file.properties().shape[:2]
        if height * width > MOST_PIXELS_PER_BYTE * path.stat().st_size:
            raise InputError(
                f"{path} claims {height} x {width} pixels, and its {path.stat().st_size} bytes cannot hold them: "
                "copy it again"
            )
        yield file
