"""emloom turns a raw volume-electron-microscopy stack into segmented neurons.

Arrays are ``[C,]ZYX``, boxes are ZYX voxels, physical lengths are nanometres, intervals are half-open, and an
affinity at ``p`` with offset ``o`` is about the pair ``(p, p + o)``. Nothing heavy is imported here.
"""

__version__ = "0.1.0"
