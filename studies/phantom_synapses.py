"""Synapses as the phantom draws them: the picture of docs/phantom.md.

    python studies/phantom_synapses.py [PICTURES]

Grows one phantom at 8 nm and one of serial sections, cuts out synapses whose membrane stands upright in the plane,
and writes `phantom-synapses.png` to PICTURES (default docs/img); beside each cut cleft (red), pre (green), post
sites (blue).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from emloom.geometry import Box
from emloom.geometry.synapses import SynapseTable
from emloom.testing.phantom import Phantom, PhantomSpec

TISSUES = (
    PhantomSpec(shape=(96, 240, 240), seed=4, synapses=14),
    PhantomSpec(shape=(14, 420, 420), voxel_size_nm=(40, 4, 4), seed=2, noise=9, section_jitter=4, synapses=14),
)
HALF_NM, SIDE_PX, EACH = 200.0, 150, 4
CLEFT, PRE, POST = (230, 60, 60), (40, 220, 80), (80, 150, 255)


def main(pictures: Path) -> None:
    rows = [np.concatenate(cuts(Phantom(spec)), 1) for spec in TISSUES]
    Image.fromarray(np.concatenate(rows, 0)).save(pictures / "phantom-synapses.png", optimize=True)


def cuts(phantom: Phantom) -> list[np.ndarray]:
    table, size = phantom.synapses(), np.array(phantom.spec.voxel_size_nm)
    out: list[np.ndarray] = []
    for i in chosen(table):
        middle = np.floor((table.pre_nm[i] + table.post_nm[i]) / 2 / size).astype(int)
        half = int(HALF_NM / size[1])
        start = np.clip(middle[1:] - half, 0, np.array(phantom.spec.shape[1:]) - 2 * half)
        box = Box((int(middle[0]), int(start[0]), int(start[1])), (1, 2 * half, 2 * half))
        grey = np.repeat(phantom.raw.read(box)[0][..., None], 3, -1)
        marked = grey.copy()
        cleft = phantom.clefts.read(box)[0] > 0
        marked[cleft] = (marked[cleft] * 0.6 + np.array(CLEFT) * 0.4).astype(np.uint8)
        for points, color in ((table.pre_nm, PRE), (table.post_nm, POST)):
            mark(marked, points / size - box.start, int(10 / size[1]) + 1, color)
        out += [enlarged(grey), enlarged(marked)]
    return out


def chosen(table: SynapseTable) -> list[int]:
    """Return the synapses that stand most upright: two of polyads, two others."""
    towards = table.post_nm - table.pre_nm
    tilt = np.abs(towards[:, 0]) / np.linalg.norm(towards, axis=1)
    posts = np.array([(table.polyads == polyad).sum() for polyad in table.polyads])
    worst = {polyad: tilt[table.polyads == polyad].max() for polyad in np.unique(table.polyads)}
    firsts = [int(np.flatnonzero(table.polyads == polyad)[0]) for polyad in sorted(worst, key=worst.__getitem__)]
    return [i for i in firsts if posts[i] > 1][: EACH // 2] + [i for i in firsts if posts[i] == 1][: EACH // 2]


def mark(image: np.ndarray, places: np.ndarray, half: int, color: tuple[int, int, int]) -> None:
    for z, y, x in places:
        if -0.5 <= z < 1.5 and 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
            image[max(int(y) - half, 0) : int(y) + half, max(int(x) - half, 0) : int(x) + half] = color


def enlarged(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/img"))
