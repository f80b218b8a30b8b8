"""The full chain of augmentation for serial sections, 24 x 256 x 256 raw and labels: emloom against gunpowder.

    make peers
    python benchmarks/augment.py

Raw (uint8) and labels (uint64) of the real `snemi3d`, mirrored to 60 x 640 x 640, else smooth noise and a mosaic,
with voxels of 40 x 4 x 4 nm. Both elastic fields move control points every 4 x 40 x 40 voxels by (0, 2, 2);
rotation by 0 to 90 degrees, slips and shifts of sections (5 % each, up to 10 voxels), flips and transposition,
contrast 0.9 to 1.1 and brightness +-0.1 per section, 3 % of sections missing, 1 % faint. gunpowder builds its
map at every eighth voxel (subsample 8, its fast setting).

emloom is timed as a training loader runs it: plan drawn, volume read, sample rendered, with a voxel of context
around the labels. gunpowder (ElasticAugment, SimpleAugment, IntensityAugment, DefectAugment) is timed from request
to batch. Both read volumes in memory. CPU seconds of one thread, interleaved, medians.

Before a time counts: crops that nothing befalls are equal at every voxel; crops turned by 30 degrees correlate
above 0.99 and 97 % of their labels agree; augmented labels are among the source's. The displacement of ramps is
printed for both: emloom's has the standard deviation asked for, gunpowder's is weaker between its control points.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import time
from math import radians
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from peers import Peer
from scipy import ndimage

from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.augment import AffineSpec, AugmentSpec, DefectSpec, ElasticSpec, IntensitySpec, SectionsSpec
from emloom.nn.crops import TrainingVolume
from emloom.nn.model import ModelSpec
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.samples import CropShape, SampleMaker, TrainingSamples
from emloom.nn.train import TrainingSpec

Arrays = dict[str, NDArray[Any]]
CROP = (24, 256, 256)
SHAPE = (60, 640, 640)
START = (18, 192, 192)
GRID = Grid((40, 4, 4))
ROUNDS = 25
RAMPS = 8
ANGLE = 30.0

STILL = AugmentSpec.none()
CHAIN = STILL.model_copy(
    update={
        "flip": True,
        "transpose": True,
        "affine": AffineSpec(rotation_deg=(0, 90)),
        "elastic": ElasticSpec(spacing_nm=(160, 160, 160), sigma_nm=(0, 8, 8)),
        "sections": SectionsSpec(slip=0.05, shift=0.05, largest_nm=40),
        # gunpowder's grey values are [0, 1], emloom's [-1, 1].
        "intensity": IntensitySpec(contrast=(0.9, 1.1), brightness=(-0.2, 0.2), gamma=(1, 1), scope="section"),
        "defects": DefectSpec(missing=0.03, low_contrast=0.01, contrast_scale=0.5),
    }
)
ELASTIC: dict[str, Any] = {
    "control_point_spacing": (4, 40, 40),
    "jitter_sigma": (0, 0, 0),
    "rotation_interval": (0, 0),
    "subsample": 8,
}
THEIR_CHAIN: dict[str, Any] = {
    "jitter_sigma": (0, 2, 2),
    "rotation_interval": (0, radians(90)),
    "prob_slip": 0.05,
    "prob_shift": 0.05,
    "max_misalign": 10,
}


def volumes() -> tuple[Arrays, str]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("EMLOOM_DATA", default)) / "snemi3d" / "crop512_z00-29.h5"
    if path.is_file():
        with h5py.File(path) as file:
            raw, labels = file["volumes/raw"][:], file["volumes/labels/neuron_ids"][:]
        pad = [(0, n - m) for n, m in zip(SHAPE, raw.shape, strict=True)]
        raw, labels = np.pad(raw, pad, "symmetric"), np.pad(labels, pad, "symmetric")
        return {"raw": raw, "labels": labels.astype(np.uint64)}, "snemi3d"
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal(SHAPE, np.float32), (1, 3, 3))
    raw = np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    coarse = rng.integers(1, 2**20, [n // f for n, f in zip(SHAPE, (4, 32, 32), strict=True)]).astype(np.uint64)
    return {"raw": raw, "labels": coarse.repeat(4, 0).repeat(32, 1).repeat(32, 2)}, "noise and a mosaic"


class Ours:
    """Samples as the training loader makes them, up to where targets are computed from labels."""

    def __init__(self, arrays: Arrays, augment: AugmentSpec, start: tuple[int, int, int] | None = None) -> None:
        region = Box(start, CROP) if start else Box.whole(SHAPE).grow((-1, -100, -100))
        volume = TrainingVolume(
            ArrayVolume(arrays["raw"], GRID, "raw"), ArrayVolume(arrays["labels"], GRID, "labels"), region
        )
        model = ModelSpec(
            objective=NeuronsObjective(variant="affinities", neighborhood=((0, 0, -1),), grow_boundary_vox=0),
            preprocessing=Preprocessing(low=0, high=255),
            voxel_size_nm=GRID.voxel_size_nm,
        )
        maker = SampleMaker(model, [volume], CropShape(CROP, CROP))
        self._samples = TrainingSamples(maker, TrainingSpec(steps=1, augment=augment), 1 << 30)
        self._index = 0

    def seconds(self) -> float:
        self.last = None  # or the next round would have to find other memory
        start = time.process_time()
        self.last = self._samples.maker.render(self._samples.plan(self._index))
        self._index += 1
        return time.process_time() - start

    def results(self) -> Arrays:
        assert self.last is not None
        return {"raw": (self.last.raw + 1) * 127.5, "labels": self.last.labels[self.last.output.slices()]}


def peer(arrays: Arrays, elastic: dict[str, Any], full: bool = False) -> Peer:
    return Peer(
        "gunpowder_chain.py",
        arrays,
        crop=CROP,
        start=None if full else START,
        elastic=ELASTIC | elastic,
        grey=full,
        oriented=full,
    )


def check_still(arrays: Arrays) -> str:
    ours = Ours(arrays, STILL, START)
    ours.seconds()
    with peer(arrays, {}) as other:
        other.seconds()
        theirs = other.results()
    at = Box(START, CROP).slices()
    for name, mine in ours.results().items():
        np.testing.assert_array_equal(np.rint(mine), arrays[name][at])
        np.testing.assert_array_equal(theirs[name], arrays[name][at])
    return "crops that nothing befalls are equal"


def check_turned(arrays: Arrays) -> str:
    turned = STILL.model_copy(update={"affine": AffineSpec(rotation_deg=(ANGLE, ANGLE))})
    ours = Ours(arrays, turned, START)
    ours.seconds()
    with peer(arrays, {"rotation_interval": (radians(ANGLE),) * 2}) as other:
        other.seconds()
        theirs = other.results()
    mine = ours.results()
    correlation = np.corrcoef(mine["raw"].ravel(), theirs["raw"].ravel())[0, 1]
    agree = (mine["labels"] == theirs["labels"]).mean()
    assert correlation > 0.99, f"crops turned by {ANGLE} degrees correlate by {correlation}"
    assert agree > 0.97, f"{agree} of the labels turned by {ANGLE} degrees agree"
    return f"turned by {ANGLE:g} degrees: raw correlates {correlation:.5f}, {agree:.3%} of labels agree"


def check_ramps(arrays: Arrays) -> str:
    """Return how far both elastic fields move voxels along y and x: ramps show where these came from."""
    out = []
    elastic = STILL.model_copy(update={"elastic": CHAIN.elastic})
    for axis in (1, 2):
        ramp = np.broadcast_to(np.indices(SHAPE, np.float32, sparse=True)[axis], SHAPE).copy()
        feed = {"raw": ramp, "labels": arrays["labels"]}
        at = ramp[Box(START, CROP).slices()]
        with peer(feed, {"jitter_sigma": (0, 2, 2)}) as other:
            moved: dict[str, list[float]] = {"emloom": [], "gunpowder": []}
            ours = Ours(feed, elastic, START)
            for _ in range(RAMPS):
                for name, source in (("emloom", ours), ("gunpowder", other)):
                    source.seconds()
                    moved[name].append(float(np.mean((source.results()["raw"] - at) ** 2)))
        out.append({name: np.sqrt(np.mean(values)) for name, values in moved.items()})
    assert all(abs(axis["emloom"] - 2) < 0.2 for axis in out), f"elastic displacement {out}, 2 voxels asked for"
    shown = (f"{name} {out[0][name]:.2f}, {out[1][name]:.2f}" for name in out[0])
    return "elastic displacement, rms of y and x in voxels, 2 asked for: " + "; ".join(shown)


def main() -> None:
    arrays, source = volumes()
    known = np.append(np.unique(arrays["labels"]), 0)  # gunpowder fills with 0 where it leaves the volume
    print(f"{source}: {CROP} of {SHAPE}, {known.size} labels")
    for check in (check_still, check_turned, check_ramps):
        print(check(arrays), flush=True)
    ours = Ours(arrays, CHAIN)
    seconds: dict[str, list[float]] = {"emloom": [], "gunpowder": []}
    with peer(arrays, THEIR_CHAIN, full=True) as other:
        for _ in range(3):
            ours.seconds()
        other.seconds()
        for _ in range(ROUNDS):
            seconds["emloom"].append(ours.seconds())
            seconds["gunpowder"].append(other.seconds())
        for results in (ours.results(), other.results()):
            assert results["raw"].shape == results["labels"].shape == CROP
            assert np.isin(results["labels"], known).all(), "augmented labels that the source does not have"
    mine = median(seconds["emloom"])
    for name, values in seconds.items():
        print(f"{name:<10}{1e3 * median(values):8.1f} ms   {median(values) / mine:6.1f}x")
    print(f"RATIO augment {median(seconds['gunpowder']) / mine:.1f}")


if __name__ == "__main__":
    main()
