"""emloom from Python: the verbs of the command line as plain functions, on one page.

Every verb takes paths (or volumes that were opened from one) and plain values, does what the command of its name
does, in the same folders, and gives back something to go on with: a volume, a `Result`, a path. Whatever it does
not name itself goes into `settings`, by the names of the task's Spec; where it runs goes into the arguments of
`Where`. The same call goes on after a crash, and returns at once where the result is there. ::

    import emloom

    raw = emloom.open("stack.h5/volumes/raw", voxel_size_nm=(40, 4, 4))
    found = emloom.qc(raw, "qc")
    fixed = emloom.repair(raw, "fixed", qc="qc", workers=4)
    heads = emloom.predict(fixed.volume, "model.safetensors", "pred.zarr", mask="fixed")
    neurons = emloom.segment(heads["affinities"], "seg.zarr", 0.6)

Bad input raises `emloom.InputError`, which names the value, the rule and the way out.
"""

from __future__ import annotations

from emloom.api.neurons import check, predict, run, segment, train
from emloom.api.parts import OnDevice, Result, Where, WhereAnew
from emloom.api.stacks import align, qc, repair
from emloom.api.synapses import connectome, evaluate, synapses
from emloom.api.volumes import open, save, view
from emloom.errors import InputError
from emloom.geometry import Box

VERBS = (
    "open", "save", "check", "qc", "align", "repair", "train", "predict", "segment", "synapses", "connectome",
    "evaluate", "view", "run",
)  # fmt: skip
"""The functions of this page, in the order of the pipeline."""

__all__ = [  # in the order of the pipeline
    "Box",
    "InputError",
    "OnDevice",
    "Result",
    "Where",
    "WhereAnew",
    "align",
    "check",
    "connectome",
    "evaluate",
    "open",
    "predict",
    "qc",
    "repair",
    "run",
    "save",
    "segment",
    "synapses",
    "train",
    "view",
]  # fmt: skip
