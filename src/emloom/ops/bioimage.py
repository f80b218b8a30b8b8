"""What emloom borrows for surfaces and centre lines, behind one door: marching cubes, TEASAR, fewer triangles.

`bioimage-cpp` (MIT) has marching cubes (Lewiner et al. 2003, doi:10.1080/10867651.2003.10487582) and TEASAR (Sato
et al., Pacific Graphics 2000, doi:10.1109/PCCGA.2000.883951); `fast-simplification` (MIT) collapses edges by
quadric errors (Garland & Heckbert 1997, doi:10.1145/258734.258849). Both are young, so nothing else in emloom
imports them, their results are checked here, and tests compare them with other implementations. They come with
the extra ``emloom[meshes]``; without it these functions, and nothing else, say so.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.grid import Vec3

Array = NDArray[Any]
Bits = NDArray[np.bool_]
Faces = NDArray[np.int64]
Floats = NDArray[np.float64]


def iso_surface(mask_ZYX: Bits) -> tuple[NDArray[np.int64], Faces]:
    """Return the surface between True and False voxels, by marching cubes.

    Args:
        mask_ZYX: bool [Z, Y, X], the samples; the surface is open where the object leaves the array.

    Returns:
        (vertices, faces): int64 [V, 3], z, y, x in *half* voxels from the centre of voxel (0, 0, 0), exact; int64
        [F, 3], rows of vertices, counter-clockwise seen from outside when drawn as x, y, z. Empty where the mask
        is all True or all False.

    Raises:
        InputError: the extra is not installed.
    """
    mesh = _module("bioimage_cpp.mesh")
    if mask_ZYX.all() or not mask_ZYX.any() or min(mask_ZYX.shape) < 2:
        return np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64)
    vertices, faces, _, _ = mesh.marching_cubes(mask_ZYX.astype(np.float32), 0.5, allow_degenerate=False)
    halves = np.asarray(vertices, np.float64) * 2
    doubled = np.rint(halves).astype(np.int64)
    if not np.array_equal(doubled, halves):
        raise AssertionError("a vertex of marching cubes on a mask lies between half voxels: bioimage-cpp changed")
    return doubled, np.asarray(faces, np.int64)


def fewer_triangles(vertices: Floats, faces: Faces, keep: float) -> tuple[Floats, Faces]:
    """Return a mesh with about `keep` of its triangles, collapsed where that moves the surface least.

    Args:
        vertices: float64 [V, 3], in one unit along all axes.
        faces: int64 [F, 3].
        keep: fraction of triangles, above 0; 1 changes nothing.

    Raises:
        InputError: the extra is not installed.
    """
    package = _module("fast_simplification")
    if keep >= 1 or len(faces) < 8:
        return vertices, faces
    middle = vertices.mean(axis=0)  # float32 has no digits to spare for a place in a large volume
    points, left = package.simplify(
        np.ascontiguousarray(vertices - middle, np.float32), np.ascontiguousarray(faces, np.int32), 1 - keep
    )
    return np.asarray(points, np.float64) + middle, np.asarray(left, np.int64)


def centre_lines(
    mask_ZYX: Bits, spacing_nm: Vec3, scale: float, constant_nm: float
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Return the centre lines of an object, by TEASAR: a tree for each 26-connected piece.

    Args:
        mask_ZYX: bool [Z, Y, X].
        spacing_nm: voxel size (z, y, x).
        scale: a node clears the voxels within ``scale * radius + constant_nm`` of it; the next path starts in
            what is left, so larger values give fewer, longer branches.
        constant_nm: see `scale`.

    Returns:
        (nodes, edges, radii): float64 [N, 3], z, y, x in nm from the *centre* of voxel (0, 0, 0); int64 [E, 2];
        float64 [N], nm from each node to the nearest voxel outside.

    Raises:
        InputError: the extra is not installed.
    """
    package = _module("bioimage_cpp.skeleton")
    nodes, edges, radii = package.teasar(
        np.ascontiguousarray(mask_ZYX), spacing=spacing_nm, scale=scale, constant=constant_nm, invalidation="ball"
    )
    return np.asarray(nodes, np.float64), np.asarray(edges, np.int64), np.asarray(radii, np.float64)


def require_extra() -> None:
    """Raise `InputError` where the extra is not installed: before anything is computed, not after."""
    for name in ("bioimage_cpp", "fast_simplification"):
        _module(name)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name != name.partition(".")[0]:
            raise
        raise InputError(
            f"meshes and centre lines need the package {problem.name}: pip install 'emloom[meshes]'"
        ) from None
