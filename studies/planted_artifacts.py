"""What a detector that learned from planted artifacts does on real ones: the table of docs/artifacts.md.

    python studies/planted_artifacts.py OUT [quick|three_sections|flattened]

Adds two foreign volumes to a recipe of `emloom.recipes.artifacts` and runs it in OUT (ten minutes on two cores,
a few more for `three_sections`): a torn section of CREMI, whose tear and border are exactly 0, and an overview
of multi-beam SEM, clean but for myelin, of which nothing is labelled. Neither file states a voxel size: 40, 4,
4 nm is assumed. The overview has 16 bits; its grey values are brought to 8 by their percentiles.

The second and third column of the table were trained with intensities of contrast 0.7 to 1.3, brightness up to 0.2
and gamma 0.8 to 1.25: give `narrow` as third argument.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import tifffile
from scipy import ndimage

from emloom.nn.augment import IntensitySpec
from emloom.recipes import artifacts
from emloom.recipes.paths import data_file
from emloom.tasks.artifactjob import ArtifactJob, ForeignTissueSpec
from emloom.tasks.artifacts import run

VOXEL_SIZE_NM = (40.0, 4.0, 4.0)
LEAST_TEAR_VOX = 500


def torn(folder: Path) -> ForeignTissueSpec:
    image = iio.imread(data_file("artifacts/cremi_crack/im015_warp0.png"))
    pieces, count = ndimage.label(image == 0)
    large = np.flatnonzero(np.bincount(pieces.ravel(), minlength=count + 1) > LEAST_TEAR_VOX)
    path = folder / "torn.h5"
    _write(path, raw=image, labels=np.isin(pieces, large[large > 0]).astype(np.uint8))
    return ForeignTissueSpec(name="torn", raw=f"{path}/volumes/raw", labels=f"{path}/volumes/labels")


def overview(folder: Path) -> ForeignTissueSpec:
    image = tifffile.imread(data_file("artifacts/genEM3_msem_uint16/overview_2.tif")).astype(float)
    low, high = np.percentile(image, [0.5, 99.5])
    path = folder / "overview.h5"
    _write(path, raw=np.clip((image - low) / (high - low) * 200 + 30, 0, 255).astype(np.uint8))
    return ForeignTissueSpec(name="overview", raw=f"{path}/volumes/raw")


def _write(path: Path, **images: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, image in images.items():
            file.create_dataset(f"volumes/{name}", data=image[None]).attrs["resolution"] = VOXEL_SIZE_NM


def narrow(job: ArtifactJob) -> ArtifactJob:
    intensity = IntensitySpec(contrast=(0.7, 1.3), brightness=(-0.2, 0.2), gamma=(0.8, 1.25))
    augment = job.training.augment.model_copy(update={"intensity": intensity})
    return job.model_copy(update={"training": job.training.model_copy(update={"augment": augment})})


def main() -> None:
    folder, recipe = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "quick"
    folder.mkdir(parents=True, exist_ok=True)
    job: ArtifactJob = getattr(artifacts, recipe)()
    job = job.model_copy(update={"foreign": (*job.foreign, torn(folder), overview(folder))})
    print(run(narrow(job) if "narrow" in sys.argv[3:] else job, folder / recipe))


if __name__ == "__main__":
    main()
