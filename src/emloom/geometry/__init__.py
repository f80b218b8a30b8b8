"""Where things are: boxes in voxels, grids in nanometres, blocks of work.

Everything is ordered z, y, x; every interval is half-open; every value is immutable and hashable.
"""

from emloom.geometry.box import Box, Vec
from emloom.geometry.grid import Grid
from emloom.geometry.tiling import Block, Fit, blocks, cells

__all__ = ["Block", "Box", "Fit", "Grid", "Vec", "blocks", "cells"]
