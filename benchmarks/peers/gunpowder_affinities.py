"""Affinities and where they are valid, by gunpowder's AddAffinities."""

import gunpowder as gp
import numpy as np


class Source(gp.BatchProvider):
    """The labels, as they are."""

    def __init__(self, key, values):
        self.key, self.values = key, values

    def setup(self):
        voxel = gp.Coordinate(1, 1, 1)
        roi = gp.Roi((0, 0, 0), self.values.shape)
        self.provides(self.key, gp.ArraySpec(roi, voxel, interpolatable=False, dtype=self.values.dtype))

    def provide(self, request):
        batch = gp.Batch()
        spec = self.spec[self.key].copy()
        spec.roi = request[self.key].roi
        batch[self.key] = gp.Array(self.values, self.spec[self.key]).crop(spec.roi)
        return batch


def prepare(inputs, options):
    labels, affinities, valid = (gp.ArrayKey(name) for name in ("LABELS", "AFFINITIES", "VALID"))
    # int32 is what the node compares, whatever it is given.
    values = np.ascontiguousarray(inputs["labels"], dtype=np.int32)
    node = gp.AddAffinities(options["neighborhood"], labels, affinities, affinities_mask=valid)
    pipeline = Source(labels, values) + node
    pipeline.setup()
    # Voxels with every partner inside the labels, which are therefore read as a whole.
    request = gp.BatchRequest()
    for key in (affinities, valid):
        request[key] = pipeline.spec[affinities].copy()

    def run():
        batch = pipeline.request_batch(request)
        return {"affinities": batch[affinities].data, "valid": batch[valid].data}

    return run
