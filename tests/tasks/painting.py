"""A small volume of three classes, and planes of it painted as a person would: with interfaces left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHAPE = (40, 48, 56)
VOXEL_SIZE, OFFSET = (10.0, 10.0, 10.0), (100.0, 0.0, 50.0)
CLASSES = {"dark": 1, "bright": 2, "middling": 3}
GREY = (60, 200, 130)


def truth() -> NDArray[np.uint8]:
    """Return the value of the class of every voxel: slanted columns along z."""
    _, y, x = np.indices(SHAPE)
    return ((x // 6 + y // 8) % 3 + 1).astype(np.uint8)


def painted() -> NDArray[np.uint8]:
    """Return the same as somebody paints it: 0, undefined, where another class is near."""
    values = truth()
    out = values.copy()
    for axis in (1, 2):
        for step in (-1, 1):
            out[np.roll(values, step, axis) != values] = 0
    return out


def write_raw(folder: Path, seed: int = 0, voxel_size: tuple[float, float, float] = VOXEL_SIZE) -> str:
    """Write the image; return its path."""
    raw = np.array(GREY)[truth() - 1] + np.random.default_rng(seed).integers(0, 20, SHAPE)
    with h5py.File(folder / "raw.h5", "w") as file:
        file["raw"] = raw.astype(np.uint8)
        file["raw"].attrs["resolution"] = voxel_size
        file["raw"].attrs["offset"] = OFFSET
    return f"{folder}/raw.h5/raw"


def save(path: Path, values: NDArray[Any]) -> str:
    """Write an image; return its name."""
    Image.fromarray(values).save(path)
    return path.name


def write_planes(folder: Path) -> dict[str, Any]:
    """Write three orthogonal planes, one to validate and two that cross to test; return the labels."""
    values = painted()
    held = {"group": "cube", "lacks": []}
    return {
        "classes": dict(CLASSES),
        "pieces": [
            plane("xy", save(folder / "xy.png", values[6]), "z", 6),
            plane("xz", save(folder / "xz.png", values[:, 4]), "y", 4),
            plane("yz", save(folder / "yz.png", values[:, :, 8]), "x", 8),
            plane("val", save(folder / "val.png", values[34, 8:, 12:]), "z", 34, start=[8, 12]),
            plane("t1", save(folder / "t1.png", values[20, 20:, 20:]), "z", 20, start=[20, 20], **held),
            plane("t2", save(folder / "t2.png", values[14:28, 28, 20:]), "y", 28, start=[14, 20], **held),
        ],
    }


def plane(name: str, image: str, axis: str, at: int, **more: Any) -> dict[str, Any]:
    """Return a painted plane."""
    return {"kind": "plane", "name": name, "image": image, "axis": axis, "at": at, **more}


def job(raw: str, labels: Any, **changes: Any) -> dict[str, Any]:
    """Return a job on one stack that takes seconds."""
    return {
        "name": "painted planes",
        "data": [{"raw": raw, "labels": labels, "pieces": {"validation": ["val"], "test": ["cube"]}}],
        "objective": {"classes": [{"name": name, "ids": [value]} for name, value in CLASSES.items()]},
        "network": {
            "kind": "unet_autoencoder",
            "features": [8, 8],
            "factors": [[1, 2, 2]],
            "kernels": [[[1, 3, 3]]] * 2,
        },
        "training": {
            "steps": 150,
            "crop_shape_vox": [4, 8, 8],
            "optimizer": {"learning_rate": 0.02},
            "validate_every": 75,
            "augment": {"noise": 0.0, "intensity": {"contrast": [1, 1], "brightness": [0, 0], "gamma": [1, 1]}},
        },
        "scoring": {"bootstrap": {"block_vox": [6, 12, 12], "resamples": 20}},
        **changes,
    }
