"""What alignment and repair make of planted damage: the pictures and figures of docs/alignment.md.

    python studies/planted_sections.py OUT [PICTURES]

Grows serial sections, shifts them, tears two, loses three, aligns and repairs them in OUT (half a minute on two
cores), prints how far sections lie from the truth, and writes `alignment-side.png` and `alignment-torn.png` to
PICTURES (default docs/img).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from emloom.io.open import open_volume
from emloom.io.stackmaps import read_stackmap
from emloom.tasks.align import align
from emloom.tasks.alignspec import AlignJob, ShiftModel
from emloom.tasks.repair import repair
from emloom.tasks.repairspec import RepairJob
from emloom.testing.damage import Damaged, write_damaged
from emloom.testing.damagespec import BadSections, CrackDamage, DamageSpec, ShiftDamage
from emloom.testing.displacement import displacement_error
from emloom.testing.phantom import Phantom, PhantomSpec

TISSUE = PhantomSpec(
    shape=(28, 320, 320),
    voxel_size_nm=(24.0, 8.0, 8.0),
    seed=2,
    neurite_nm=220.0,
    membrane_nm=12.0,
    tortuosity=0.8,
)
TORN, LOST = (6, 15), (3, 12, 22)
DAMAGE = DamageSpec(
    seed=1,
    margin_px=-32,
    shift=ShiftDamage(jitter_px=3.0, walk_px=1.0),
    cracks=CrackDamage(sections=TORN, gap_px=16.0),
    bad=BadSections(sections=LOST, kinds=("blank", "black", "constant")),
)
ROW = 130
GREY = 235
TINT = np.array([255, 140, 0], np.uint8)


def main(out: Path, pictures: Path) -> None:
    damaged = Damaged(Phantom(TISSUE), DAMAGE)
    write_damaged(damaged, out / "damaged")
    align(
        AlignJob(
            raw=str(out / "damaged" / "raw.zarr"), output=str(out / "aligned"), model=ShiftModel(subpixel=True)
        )
    )
    repair(RepairJob(raw=str(out / "aligned"), output=str(out / "fixed")))
    found = displacement_error(read_stackmap(out / "aligned"), damaged.truth, damaged.good)
    for of in ("neighbours", "error"):
        print(f"{of:>10}: median {found.median(of):.2f} px, 95 % {found.p95(of):.2f} px")
    raw, fixed = whole(out / "damaged" / "raw.zarr"), whole(out / "fixed" / "raw.zarr")
    invented = whole(out / "fixed" / "invented.zarr")
    fixed, invented = (middle(a, raw.shape) for a in (fixed, invented))
    truth = middle(damaged_free(), raw.shape)
    rows = [grey(a[:, ROW]) for a in (raw, fixed, truth)]
    save(pictures / "alignment-side.png", np.hstack(spaced([np.repeat(row, 9, 0) for row in rows], 1)), 1)
    z = TORN[0]
    shown = [
        grey(raw[z]),
        tinted(fixed[z], invented[z] == 3),
        grey(raw[LOST[1]]),
        tinted(fixed[LOST[1]], invented[LOST[1]] > 0),
    ]
    save(pictures / "alignment-torn.png", np.hstack(spaced(shown, 1)), 1)


def damaged_free() -> np.ndarray:
    raw = Phantom(TISSUE).raw
    return raw.read(raw.info.box)


def whole(path: Path) -> np.ndarray:
    volume = open_volume(path)
    return volume.read(volume.info.box)


def middle(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    y, x = ((have - want) // 2 for have, want in zip(volume.shape[1:], shape[1:], strict=True))
    return volume[:, y : y + shape[1], x : x + shape[2]]


def grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, -1)


def tinted(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    out = grey(image)
    edge = where & ~np.logical_and.reduce([np.roll(where, s, a) for a in (0, 1) for s in (2, -2)])
    if not where.all():
        out[edge] = TINT
    return out


def spaced(images: list[np.ndarray], axis: int) -> list[np.ndarray]:
    shape = list(images[0].shape)
    shape[axis] = 8
    gap = np.full(shape, GREY, np.uint8)
    return [part for image in images for part in (image, gap)][:-1]


def save(path: Path, image: np.ndarray, times: int) -> None:
    height, width = image.shape[:2]
    Image.fromarray(image).resize((width * times, height * times), Image.Resampling.BICUBIC).save(
        path, optimize=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "docs/img"))
