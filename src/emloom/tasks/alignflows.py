"""Where the patches of sections lie in other sections, block by block; each look starts from where sections are.

::

    flows-N    raw, where sections are -> flows-N/z_y_x.npz     per pair of sections: places, moves, weights

The first look is at small images and reaches far; after every look the sections are put where it says, and the
next one looks closer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block
from emloom.geometry.planar import PlanarMap, chain
from emloom.ops.downsample import downsample_mean
from emloom.ops.flowtexture import Texture, texture
from emloom.ops.patchflow import Patches, patch_flow
from emloom.ops.patchlinks import Link
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.alignsource import Source
from emloom.tasks.alignspec import AffineModel
from emloom.tasks.alignstate import State, save_arrays

PIXEL_NM = 4.0
"""Size of the pixels that are compared in the end, about; smaller than the raw's they are not made."""
_LEAST_PATCH = 24


@dataclass(frozen=True)
class Look:
    """One look at the sections: at which size, and how patches are cut and searched for.

    Attributes:
        factor: pixels of the raw per pixel that is compared.
        patches: in such pixels.
    """

    factor: int
    patches: Patches


def looks(model: AffineModel, source: Source) -> tuple[Look, Look, Look, Look]:
    """Return the looks at a stack: two for affine maps, then two for meshes, each from coarse to fine.

    Raises:
        InputError: patches are smaller than can be compared, or larger than a section.
    """
    nm = source.frame.grid.voxel_size_nm[1]
    fine = max(1, int(PIXEL_NM / nm + 1e-6))
    sizes = [(2 * fine, 1.2, 0.3), (fine, 1.0, 0.15), (2 * fine, 0.8, 0.25), (fine, 0.8, 0.1)]
    made = []
    for factor, share, reach in sizes:
        pixel = nm * factor
        patch, step = (max(1, round(share * length / pixel)) for length in (model.patch_nm, model.step_nm))
        most = min(source.frame.shape[1:]) // factor
        if not _LEAST_PATCH <= patch <= most:
            raise InputError(
                f"patches of {model.patch_nm:g} nm are {patch} pixels of {pixel:g} nm here: they must be at least "
                f"{_LEAST_PATCH}, and at most {most}, which is all of a section; choose another patch_nm"
            )
        made.append(Look(factor, Patches(patch, step, max(6, round(reach * patch)))))
    return made[0], made[1], made[2], made[3]


@dataclass(frozen=True)
class FlowBlock:
    """Compares the sections of one block patch by patch; a small value that travels to workers.

    Attributes:
        source: the stack.
        start: where its sections are as far as is known.
        stage: name of the stage, and of the folder of its files.
        lags: how many sections further on those are that a section is compared with.
        look: how.
    """

    source: Source
    start: State
    stage: str
    lags: tuple[int, ...]
    look: Look

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the flows of a block."""
        first, stop = block.write.start[0], block.write.stop[0]
        end = min(stop + max(self.lags), self.source.frame.shape[0])
        recent: deque[tuple[int, Texture, PlanarMap]] = deque(maxlen=max(self.lags))
        arrays: dict[str, NDArray[Any]] = {}
        for z, section, usable in self.source.sections(first, end):
            move = self.start.map(z)
            if move is None:
                continue
            here = _texture(section, usable, self.look.factor)
            for before, other, moved in recent:
                if z - before in self.lags and before < stop:
                    flow = patch_flow(other, here, chain(moved, move.inverse()), self.look.patches)
                    arrays |= _plain(Link.of(before, z, flow))
            recent.append((z, here, move))
        place = f"{self.stage}/{name_of(block.index)}.npz"
        save_arrays(self.start.folder / place, arrays)
        return [Output.file(self.start.folder, place)]


def _texture(section: NDArray[Any], usable: NDArray[np.bool_] | None, factor: int) -> Texture:
    rows, columns = (n // factor * factor for n in section.shape)
    image = section[:rows, :columns]
    small = image if factor == 1 else downsample_mean(image[None], (1, factor, factor))[0]
    if usable is None:
        return texture(small, factor=factor)
    inside = usable[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    good: NDArray[np.bool_] = np.asarray(inside.all(axis=(1, 3)))
    return texture(small, good, factor=factor)


def read_flows(folder: Path, stage: str, cells: Iterable[Block]) -> Callable[[], Iterator[Link]]:
    """Return what iterates over all links of a stage, in order of blocks; nothing is held between two.

    Places of a link weigh 1 on average, of one over n sections 1 / n²: tissue itself moves from one to the next.
    """
    names = [name_of(block.index) for block in cells]

    def links() -> Iterator[Link]:
        for name in names:
            with np.load(folder / stage / f"{name}.npz", allow_pickle=False) as found:
                for key in sorted({key.rpartition("/")[0] for key in found}):
                    first, second = (int(part) for part in key.split("-"))
                    places, moves, weights = (found[f"{key}/{part}"] for part in ("places", "moves", "weights"))
                    usual = float(weights.mean()) if len(weights) else 1.0
                    yield Link(first, second, places, moves, weights / (usual * (second - first) ** 2))

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
