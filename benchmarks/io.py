"""zarr on disk: emloom (TensorStore) against zarr-python 3, side by side on the same data.

    python benchmarks/io.py [side]

512^3 voxels of uint8 (an image: smooth noise) and uint64 (labels: a mosaic), zarr 3, chunks of 64^3, compressed
with zstd (level 3) and with blosc (lz4, level 5, byte shuffle). Each library writes the whole volume to a new
folder, reads it whole, and reads 20 boxes of 160^3 at random places, the same for both; each opens its array anew
for every measurement, so neither can answer from a cache of its own. What emloom wrote is also read by zarr-
python and the other way round; all arrays must be equal. emloom's chunks carry a crc32c, which is checked at
every read; zarr-python's have none, because it writes none by default. Runs alternate; medians of 3.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy import ndimage
from zarr.codecs import BloscCodec, ZstdCodec

from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo

Array = NDArray[Any]
SIDE = int(sys.argv[1]) if len(sys.argv) > 1 else 512
CHUNK = (64, 64, 64)
BOX = min(160, SIDE // 2)
N_BOXES = 20
ROUNDS = 3
CODECS: dict[str, Any] = {
    "zstd": ZstdCodec(level=3),
    "blosc": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
}


def image() -> Array:
    noise = np.random.default_rng(0).random((SIDE, SIDE, SIDE), np.float32)
    smooth = ndimage.uniform_filter(noise, 5)
    return np.clip((smooth - 0.5) * 1500 + 128, 0, 255).astype(np.uint8)


def labels() -> Array:
    rng = np.random.default_rng(1)
    coarse = rng.choice(2**40, (SIDE // 16,) * 3).astype(np.uint64)
    wobble = [np.clip(np.arange(SIDE) + rng.integers(-3, 4, SIDE), 0, SIDE - 1) // 16 for _ in range(3)]
    return coarse[np.ix_(*wobble)]


class Emloom:
    name = "emloom"

    @staticmethod
    def write(path: Path, array: Array, codec: str) -> None:
        info = VolumeInfo(array.shape, array.dtype, Grid((8, 8, 8)), chunks=CHUNK, kind="raw")
        create_volume(path, info, encoding=codec).write(info.box, array)

    @staticmethod
    def read(path: Path, boxes: list[Box]) -> list[Array]:
        volume = open_volume(path)
        return [volume.read(box) for box in boxes]


class ZarrPython:
    name = "zarr-python"

    @staticmethod
    def write(path: Path, array: Array, codec: str) -> None:
        out = zarr.create_array(
            path / "0", shape=array.shape, dtype=array.dtype, chunks=CHUNK, compressors=CODECS[codec], fill_value=0
        )
        out[:] = array

    @staticmethod
    def read(path: Path, boxes: list[Box]) -> list[Array]:
        store = zarr.open_array(path / "0", mode="r")
        return [store[box.slices()] for box in boxes]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def compare(array: Array, codec: str, folder: Path) -> dict[str, tuple[float, float]]:
    """Return task -> seconds of (emloom, zarr-python)."""
    rng = np.random.default_rng(2)
    places = rng.integers(0, SIDE - BOX + 1, (N_BOXES, 3))
    boxes = [Box((int(z), int(y), int(x)), (BOX, BOX, BOX)) for z, y, x in places]
    whole = [Box.whole(array.shape)]
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(ROUNDS):
        for library in (Emloom, ZarrPython):
            path = folder / f"{library.name}.zarr"
            shutil.rmtree(path, ignore_errors=True)
            took = {"write": timed(lambda p=path, lib=library: lib.write(p, array, codec))[0]}
            took["read"], (got,) = timed(lambda p=path, lib=library: lib.read(p, whole))
            assert np.array_equal(got, array)
            del got
            took["boxes"], parts = timed(lambda p=path, lib=library: lib.read(p, boxes))
            assert all(np.array_equal(part, array[b.slices()]) for part, b in zip(parts, boxes, strict=True))
            for task, value in took.items():
                seconds.setdefault(task, {}).setdefault(library.name, []).append(value)
    crossed = zarr.open_array(folder / "emloom.zarr" / "0", mode="r")[boxes[0].slices()]
    assert np.array_equal(crossed, array[boxes[0].slices()])
    other = open_volume(folder / "zarr-python.zarr" / "0", voxel_size_nm=(8, 8, 8))
    assert np.array_equal(other.read(boxes[0]), array[boxes[0].slices()])
    return {task: (median(by["emloom"]), median(by["zarr-python"])) for task, by in seconds.items()}


def main() -> None:
    print(f"{SIDE}^3 voxels, chunks of 64^3, {N_BOXES} boxes of {BOX}^3; seconds, medians of {ROUNDS}")
    print(f"{'':<24}{'emloom':>10}{'zarr-python':>13}{'faster':>9}")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        warm = np.zeros((64, 64, 64), np.uint8)  # threads and imports are started outside the measurement
        for library in (Emloom, ZarrPython):
            library.write(Path(folder) / f"warm-{library.name}.zarr", warm, "zstd")
        for name, make in (("uint8 image", image), ("uint64 labels", labels)):
            array = make()
            for codec in CODECS:
                for task, (ours, theirs) in compare(array, codec, Path(folder)).items():
                    ratios.append(theirs / ours)
                    words = f"{name.split()[0]} {codec} {task}"
                    print(f"{words:<24}{ours:>10.3f}{theirs:>13.3f}{theirs / ours:>8.2f}x")
    print(f"RATIO io {exp(sum(map(log, ratios)) / len(ratios)):.2f}")


if __name__ == "__main__":
    main()
