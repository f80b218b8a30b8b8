"""Surfaces of labels, made part by part and welded without a seam.

Marching cubes looks at eight voxel centres at a time; a *cube* is called by the lowest of its voxels. Each cube
belongs to one part, which reads one voxel more than it owns, so that parts make every triangle once, and the same
triangles wherever they are cut. On a mask all vertices lie in the middle between two centres: whole numbers of
half voxels. So a vertex is an integer, equal in both parts that touch it, and welding is exact::

    part A owns cubes 0-3    voxels 0 1 2 3 4
    part B owns cubes 4-7                   4 5 6 7 8        both see the same vertices on the face at 4

A corner is stored as one int64, ``(z * 2^21 + y) * 2^21 + x`` of half voxels (`packed`), so triangles are three
columns. `welded` brings them into one order, whatever the parts were: what is computed from it afterwards
(smoothing, fewer triangles) gives the same numbers for any cut.

Outside of the volume there is nothing: surfaces are closed at its faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.sparse import coo_matrix

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.ops.bioimage import Faces, Floats, fewer_triangles, iso_surface

Ids = NDArray[np.uint64]
Codes = NDArray[np.int64]

_BITS = 21
_SHIFT = 1  # the first half voxel is -1: surfaces are closed half a voxel outside of the volume
LARGEST_VOX = (1 << (_BITS - 1)) - 2
"""Voxels of an axis, at most: a corner fits into 63 bits."""
# Taubin, SIGGRAPH 1995 (doi:10.1145/218380.218473): a step that shrinks, a step that grows.
_SHRINK, _GROW = 0.5, -0.53


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface of triangles.

    Attributes:
        vertices_nm: float64 [V, 3], world positions z, y, x in nm.
        faces: int64 [F, 3], rows of vertices, counter-clockwise seen from outside when drawn as x, y, z.
    """

    vertices_nm: Floats
    faces: Faces

    @property
    def volume_nm3(self) -> float:
        """What the surface encloses, by the divergence theorem; right where it is closed."""
        if not len(self.faces):
            return 0.0
        corners = (self.vertices_nm - self.vertices_nm.mean(axis=0))[self.faces][..., ::-1]
        return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)

    @property
    def area_nm2(self) -> float:
        """Area of all triangles."""
        a, b, c = np.moveaxis(self.vertices_nm[self.faces], 1, 0)
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)

    @property
    def is_closed(self) -> bool:
        """Whether every edge is met as often in one direction as in the other: no crack, no border."""
        edges = np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        n = max(1, len(self.vertices_nm))
        there, back = edges[:, 0] * n + edges[:, 1], edges[:, 1] * n + edges[:, 0]
        return np.array_equal(np.sort(there), np.sort(back))


def label_triangles(labels_ZYX: NDArray[Any], start: Vec, wanted: Ids | None = None) -> tuple[Ids, Codes]:
    """Return the triangles of every label in the cubes of an array; see the module.

    Args:
        labels_ZYX: unsigned [Z, Y, X], 0 is background; one voxel more than there are cubes along each axis.
        start: voxel (z, y, x) of the array's first one in its volume; -1 where it begins before the volume.
        wanted: sorted ids whose surfaces are made; None: of all.

    Returns:
        (ids, corners): uint64 [n], ascending; int64 [n, 3], packed.

    Raises:
        InputError: the extra is not installed, or an axis is longer than a corner can say.
    """
    if max(a + n for a, n in zip(start, labels_ZYX.shape, strict=True)) > LARGEST_VOX:
        raise InputError(f"an axis is longer than {LARGEST_VOX} voxels: make meshes of a coarser level")
    dense, names = _dense(labels_ZYX, wanted)
    ids, corners = [], [np.zeros((0, 3), np.int64)]
    for number, where in enumerate(find_objects(dense), start=1):
        if where is None:
            continue
        # One voxel around the object, where the array has one: there its surface is.
        wide = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in where)
        vertices, faces = iso_surface(dense[wide] == number)
        corner = [2 * (a + s.start) for a, s in zip(start, wide, strict=True)]
        codes = packed(vertices + np.array(corner))
        ids.append(np.full(len(faces), names[number], np.uint64))
        corners.append(codes[faces])
    return np.concatenate(ids) if ids else np.zeros(0, np.uint64), np.concatenate(corners)


def _dense(labels_ZYX: NDArray[Any], wanted: Ids | None) -> tuple[NDArray[np.int32], Ids]:
    """Return (numbers 1, 2, ... in the order of ids; ids by number) of the wanted labels, 0 elsewhere."""
    found = fastremap.unique(labels_ZYX).astype(np.uint64)
    if wanted is not None:
        found = found[np.isin(found, wanted)]
    names = np.concatenate([np.zeros(1, np.uint64), found[found != 0]])
    numbers = np.searchsorted(names, labels_ZYX).astype(np.int32)
    numbers[numbers == len(names)] = 0
    numbers[names[numbers] != labels_ZYX] = 0
    return numbers, names


def packed(doubled: NDArray[np.int64]) -> Codes:
    """Return corners [n, 3], z, y, x in half voxels from the centre of voxel 0, as one number each."""
    z, y, x = (doubled + _SHIFT).T
    codes: Codes = (z << (2 * _BITS)) | (y << _BITS) | x
    return codes


def unpacked(codes: Codes) -> NDArray[np.int64]:
    """Return the corners [n, 3] that `packed` made numbers of."""
    mask = (1 << _BITS) - 1
    return np.stack([codes >> (2 * _BITS), (codes >> _BITS) & mask, codes & mask], axis=-1) - _SHIFT


def welded(corners: Codes, grid: Grid) -> Mesh:
    """Return the mesh of triangles, in an order that does not depend on theirs.

    Args:
        corners: int64 [n, 3], packed, of one object.
        grid: voxel size and offset of the voxels that they count.
    """
    codes, rows = np.unique(corners, return_inverse=True)
    faces = rows.reshape(-1, 3).astype(np.int64)
    # Each triangle begins with its smallest corner; then they are sorted.
    first = faces.argmin(axis=1)
    turned = faces[np.arange(len(faces))[:, None], (first[:, None] + np.arange(3)) % 3]
    ordered = turned[np.lexsort(turned.T[::-1])]
    size, offset = np.array(grid.voxel_size_nm), np.array(grid.offset_nm)
    # A centre lies half a voxel behind the corner that the offset is of.
    return Mesh((unpacked(codes) / 2 + 0.5) * size + offset, ordered)


def smoothed(mesh: Mesh, steps: int) -> Mesh:
    """Return a mesh without the staircase of its voxels; its volume stays nearly what it was (Taubin 1995)."""
    if not steps or not len(mesh.faces):
        return mesh
    n = len(mesh.vertices_nm)
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    joined = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(n, n)).tocsr()
    joined.data[:] = 1.0
    degree = np.maximum(1, np.diff(joined.indptr))[:, None]
    middle = mesh.vertices_nm.mean(axis=0)
    points = mesh.vertices_nm - middle
    for _ in range(steps):
        for factor in (_SHRINK, _GROW):
            points = points + factor * (joined @ points / degree - points)
    return Mesh(points + middle, mesh.faces)


def simplified(mesh: Mesh, keep: float) -> Mesh:
    """Return a mesh with about `keep` of its triangles; raises as `bioimage.fewer_triangles`."""
    return Mesh(*fewer_triangles(mesh.vertices_nm, mesh.faces, keep))
