"""A fully connected CRF by pydensecrf2 (Krähenbühl and Koltun's permutohedral lattice)."""

import numpy as np
import pydensecrf.densecrf as dcrf
from pydensecrf.utils import create_pairwise_gaussian


def features(shape, sigma, raw=None, sigma_intensity=None):
    if raw is None:
        return create_pairwise_gaussian((sigma,) * 3, shape)
    at = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) / sigma for n in shape], indexing="ij"))
    grey = raw[None].astype(np.float32) / sigma_intensity
    return np.ascontiguousarray(np.concatenate([at, grey]).reshape(4, -1))


def prepare(inputs, options):
    shares, raw = inputs["shares"], inputs["raw"]
    n, shape = len(shares), raw.shape
    field = dcrf.DenseCRF(raw.size, n)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(shares, 1e-5)).reshape(n, -1), np.float32))
    kind = {"kernel": dcrf.DIAG_KERNEL, "normalization": dcrf.NORMALIZE_SYMMETRIC}
    for kernel in options["kernels"]:
        grey = () if kernel["sigma_intensity"] is None else (raw, kernel["sigma_intensity"])
        what = features(shape, kernel["sigma"], *grey)
        field.addPairwiseEnergy(what, compat=kernel["weight"], **kind)
    q, one, two = field.startInference()
    first = np.array(q).copy()

    def run():
        for _ in range(options["iterations"]):
            field.stepInference(q, one, two)
        return {"q": np.array(q).reshape(n, *shape), "first": first}

    return run
