"""Local shape descriptors by lsds (Sheridan et al. 2023)."""

import gunpowder as gp
import numpy as np
from lsd.train import LsdExtractor


def prepare(inputs, options):
    labels = np.ascontiguousarray(inputs["labels"])
    # Keeps its grids of coordinates from round to round, as a training job's extractor does.
    extractor = LsdExtractor((options["sigma_nm"],) * 3, "gaussian", options["downsample"])
    voxel = gp.Coordinate(options["spacing_nm"])
    roi = gp.Roi(options["start"], options["shape"])

    def run():
        return {"lsds": extractor.get_descriptors(labels, voxel_size=voxel, roi=roi)}

    return run
