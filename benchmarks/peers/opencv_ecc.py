"""Translations between consecutive sections by OpenCV's findTransformECC (Evangelidis & Psarakis 2008)."""

from itertools import pairwise

import cv2
import numpy as np


def prepare(inputs, options):
    cv2.setNumThreads(1)
    stack = inputs["stack"]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, options["iterations"], options["tolerance"])

    def run():
        shifts = []
        for a, b in pairwise(stack):
            warp = np.eye(2, 3, dtype=np.float32)
            try:
                _, warp = cv2.findTransformECC(a, b, warp, cv2.MOTION_TRANSLATION, criteria, None, 5)
                shifts.append((warp[1, 2], warp[0, 2]))
            except cv2.error:  # it says so where it does not converge
                shifts.append((np.nan, np.nan))
        return {"shifts": np.array(shifts, np.float64)}

    return run
