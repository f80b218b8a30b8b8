"""Where the patches of sections lie in other sections, block by block, and the affine maps that lay them together.

::

    flows      raw, positions.npy -> flows/z_y_x.npz     per pair of sections: places, displacements, weights
    (solved)   flows              -> affine maps of all sections at once

Sections are compared at about 8 nm per pixel. Each pair is compared twice, the second time with the affine map as
the start that fits what was found on smaller images, so that turns and stretches of many pixels are followed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block
from emloom.geometry.planar import PlanarMap, Shift
from emloom.io.files import write_bytes_atomic
from emloom.ops.downsample import downsample_mean
from emloom.ops.flowtexture import Texture, texture
from emloom.ops.patchflow import Patches, patch_flow
from emloom.ops.sectionaffines import AffineStack, section_affines
from emloom.ops.sectionlinks import Link
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.alignsource import Source
from emloom.tasks.alignspec import AffineModel

STAGE = "flows"
POSITIONS = "positions.npy"
"""float64 [Z, 2]: by how much every section is moved before patches are looked for; NaN: compare it with none."""
PIXEL_NM = 8.0
"""Size of the pixels that are compared, about; smaller than the raw's they are not made."""
_COARSER = 4  # times, of the first look
_LEAST_PATCH, _LEAST_PATCHES = 24, 2


@dataclass(frozen=True)
class Sizes:
    """How sections are made smaller and cut, in pixels.

    Attributes:
        factor: pixels of the raw per pixel that is compared.
        patch: side of a patch, pixels that are compared.
        step: distance of patches, the same.
    """

    factor: int
    patch: int
    step: int

    @classmethod
    def of(cls, model: AffineModel, source: Source) -> Sizes:
        """Return the sizes for a stack.

        Raises:
            InputError: patches are smaller than can be compared, or larger than a section.
        """
        nm = source.frame.grid.voxel_size_nm[1]
        factor = max(1, int(PIXEL_NM / nm + 1e-6))
        patch, step = (max(1, round(length / (nm * factor))) for length in (model.patch_nm, model.step_nm))
        most = min(source.frame.shape[1:]) // factor
        if not _LEAST_PATCH <= patch <= most:
            raise InputError(
                f"patches of {model.patch_nm} nm are {patch} pixels of {nm * factor:g} nm: they must be at least "
                f"{_LEAST_PATCH}, and at most {most}, which is all of a section; choose another patch_nm"
            )
        return cls(factor, patch, step)

    @property
    def fine(self) -> Patches:
        """How patches are looked for when much is known."""
        return Patches(self.patch, self.step, max(4, self.patch // 8))

    @property
    def coarse(self) -> Patches:
        """How they are looked for on smaller images."""
        return Patches(self.patch, max(1, self.patch // 4), max(6, self.patch // 4))


@dataclass(frozen=True)
class FlowBlock:
    """Compares the sections of one block patch by patch; a small value that travels to workers.

    Attributes:
        source: the stack.
        folder: of the result.
        lags: how many sections further on those are that a section is compared with.
        sizes: of pixels and patches.
    """

    source: Source
    folder: Path
    lags: tuple[int, ...]
    sizes: Sizes

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the flows of a block."""
        start, stop = block.write.start[0], block.write.stop[0]
        positions = np.load(self.folder / POSITIONS)
        recent: deque[tuple[int, _Pair]] = deque(maxlen=max(self.lags) + 1)
        arrays: dict[str, NDArray[Any]] = {}
        for z, section, usable in self.source.sections(start, min(stop + max(self.lags), len(positions))):
            if np.isnan(positions[z]).any():
                continue
            here = _Pair.of(section, usable, self.sizes)
            recent.append((z, here))
            for before, other in recent:
                if z - before in self.lags and before < stop:
                    apart = positions[before] - positions[z]
                    link = linked(before, z, other, here, Shift(*apart.tolist()), self.sizes)
                    arrays |= _plain(link)
        place = f"{STAGE}/{name_of(block.index)}.npz"
        stream = BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type]
        write_bytes_atomic(self.folder / place, stream.getvalue())
        return [Output.file(self.folder, place)]


@dataclass(frozen=True)
class _Pair:
    """A section at two sizes; the coarse one is None where it has no room for patches."""

    fine: Texture
    coarse: Texture | None

    @classmethod
    def of(cls, section: NDArray[Any], usable: NDArray[np.bool_] | None, sizes: Sizes) -> _Pair:
        coarser = sizes.factor * _COARSER
        room = min(section.shape) // coarser >= _LEAST_PATCHES * sizes.patch
        return cls(_texture(section, usable, sizes.factor), _texture(section, usable, coarser) if room else None)


def _texture(section: NDArray[Any], usable: NDArray[np.bool_] | None, factor: int) -> Texture:
    rows, columns = (n // factor * factor for n in section.shape)
    image = section[:rows, :columns]
    small = image if factor == 1 else downsample_mean(image[None], (1, factor, factor))[0]
    if usable is None:
        return texture(small, factor=factor)
    inside = usable[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    good: NDArray[np.bool_] = np.asarray(inside.all(axis=(1, 3)))
    return texture(small, good, factor=factor)


def linked(first: int, second: int, a: _Pair, b: _Pair, start: PlanarMap, sizes: Sizes) -> Link:
    """Return where patches of one section lie in another, coarse ones first."""
    if a.coarse is not None and b.coarse is not None:
        rough = Link.of(first, second, patch_flow(a.coarse, b.coarse, start, sizes.coarse))
        start = fitted(rough) or start
    return Link.of(first, second, patch_flow(a.fine, b.fine, start, sizes.fine))


def fitted(link: Link) -> PlanarMap | None:
    """Return the affine map from the first section of a link to the second; None where too little agrees."""
    pair = Link(0, 1, link.places, link.moves, link.weights)
    try:
        found = section_affines(2, [pair], how=AffineStack(reference=1, drift_sections=None))
    except InputError:
        return None
    return found.maps[0]


def read_flows(folder: Path, cells: Iterable[Block]) -> Callable[[], Iterator[Link]]:
    """Return what iterates over all links, in order of blocks; nothing is held between two."""
    names = [name_of(block.index) for block in cells]

    def links() -> Iterator[Link]:
        for name in names:
            with np.load(folder / STAGE / f"{name}.npz", allow_pickle=False) as found:
                for key in sorted({key.rpartition("/")[0] for key in found}):
                    first, second = (int(part) for part in key.split("-"))
                    yield Link(first, second, *(found[f"{key}/{part}"] for part in ("places", "moves", "weights")))

    return links


def thinned(link: Link, most: int = 500) -> Link:
    """Return a link of at most so many places, evenly taken: six numbers do not need more."""
    n = len(link.places)
    if n <= most:
        return link
    rows = np.linspace(0, n - 1, most).astype(np.int64)
    return Link(link.first, link.second, link.places[rows], link.moves[rows], link.weights[rows])


def _plain(link: Link) -> dict[str, NDArray[Any]]:
    name = f"{link.first:08d}-{link.second:08d}"
    return {f"{name}/places": link.places, f"{name}/moves": link.moves, f"{name}/weights": link.weights}
