"""Augmented crops of raw and labels, by the nodes of gunpowder that published pipelines for serial sections use.

Options: `crop` (voxels), `start` (None: a random place), `elastic` (arguments of ElasticAugment), `grey` (whether
grey values are augmented), `oriented` (whether crops are flipped and transposed).
"""

from itertools import count

import gunpowder as gp

VOXEL = gp.Coordinate((40, 4, 4))


class Source(gp.BatchProvider):
    """Arrays in memory; like every source of gunpowder, it hands out copies."""

    def __init__(self, arrays):
        self.arrays = arrays

    def setup(self):
        for key, values in self.arrays.items():
            roi = gp.Roi((0, 0, 0), gp.Coordinate(values.shape) * VOXEL)
            self.provides(
                key, gp.ArraySpec(roi, VOXEL, interpolatable=key.identifier == "RAW", dtype=values.dtype)
            )

    def provide(self, request):
        batch = gp.Batch()
        for key, wanted in request.array_specs.items():
            begin, end = wanted.roi.begin / VOXEL, wanted.roi.end / VOXEL
            at = tuple(slice(int(a), int(b)) for a, b in zip(begin, end, strict=True))
            spec = self.spec[key].copy()
            spec.roi = wanted.roi
            batch[key] = gp.Array(self.arrays[key][at].copy(), spec)
        return batch


def prepare(inputs, options):
    raw, labels = gp.ArrayKey("RAW"), gp.ArrayKey("LABELS")
    pipeline = Source({raw: inputs["raw"], labels: inputs["labels"]})
    if options["start"] is None:
        pipeline += gp.RandomLocation()
    pipeline += gp.ElasticAugment(**options["elastic"])
    if options["oriented"]:
        pipeline += gp.SimpleAugment(transpose_only=[1, 2])
    if options["grey"]:
        pipeline += gp.Normalize(raw)
        pipeline += gp.IntensityAugment(raw, 0.9, 1.1, -0.1, 0.1, z_section_wise=True)
        pipeline += gp.DefectAugment(raw, prob_missing=0.03, prob_low_contrast=0.01, contrast_scale=0.5)
    pipeline.setup()
    roi = gp.Roi(gp.Coordinate(options["start"] or (0, 0, 0)) * VOXEL, gp.Coordinate(options["crop"]) * VOXEL)
    seeds = count()

    def run():
        request = gp.BatchRequest(random_seed=next(seeds))
        for key in (raw, labels):
            request[key] = gp.ArraySpec(roi=roi)
        batch = pipeline.request_batch(request)
        return {"raw": batch[raw].data, "labels": batch[labels].data}

    return run
