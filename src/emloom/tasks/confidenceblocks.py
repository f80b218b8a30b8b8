"""What one block of `emloom confidence` does; `emloom.tasks.confidence` puts the stages in order.

::

    contacts   fragments, predictions, masks -> contacts/z_y_x.parquet   sums per pair of fragments
                                                bad/z_y_x.parquet        bad voxels per tile
                                                rims/z_y_x.parquet       fragments where sections end
    rank       all of those, the graph       -> choices.parquet, segments.parquet, doubts.parquet, wanted.parquet
    places     fragments, wanted             -> places/z_y_x.parquet     the contact in the middle of each
    paint      fragments, doubts             -> confidence.zarr          tiles of the cell
    list       everything                    -> look_here.*

Every class here is a small value that travels to a worker, with a function from a block to its outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec
from emloom.io.open import open_volume
from emloom.io.tables import Table, read_table, write_table
from emloom.io.volume import Volume, VolumeInfo
from emloom.ops.contacts import Contacts, contact_sums, contacts_of, ids_beside, nearest_contacts, rows_of_pairs
from emloom.ops.doubts import tile_counts, tile_worst
from emloom.run.blockjournal import name_of
from emloom.run.perworker import once
from emloom.run.stage import Output
from emloom.run.workspace import Workspace
from emloom.tasks.confidencespec import ConfidenceJob
from emloom.tasks.lattice import common_box
from emloom.tasks.qcmask import open_avoid, outside_code
from emloom.tasks.segmentblocks import with_neighbours
from emloom.tasks.segmentspec import SegmentJob

VOLUME = "confidence.zarr"


@dataclass(frozen=True)
class Doubted:
    """A segmentation that is looked at.

    Attributes:
        job: what is asked.
        folder: where the answer grows.
    """

    job: ConfidenceJob
    folder: Path

    @cached_property
    def made_by(self) -> SegmentJob:
        """The job of the segmentation; raises `InputError` where it has none, or no threshold."""
        path = self.job.segmentation
        space = Workspace(path)
        if not space.finished:
            raise InputError(f"{path} is not finished, or not there: `emloom retry {path}` goes on with it")
        record = space.record()
        if record["kind"] != "segment":
            raise InputError(f"{path} was made by `emloom {record['kind']}`: give what `emloom segment` wrote")
        job = SegmentJob.from_dict({**record["job"], "output": path}, f"the job of {path}")
        if job.threshold is None:
            raise InputError(f"{path} was made without a threshold, so nothing was chosen: give --threshold there")
        return job

    def fragments(self) -> Volume:
        """Open the fragments."""
        return open_volume(Path(self.job.segmentation) / "fragments")

    @property
    def prediction(self) -> str:
        """Path of the affinities that were segmented."""
        return self.job.prediction or self.made_by.affinities

    def affinities(self) -> list[Volume]:
        """Open the predictions: the one that was segmented, then the other one, if there is one.

        Raises:
            InputError: they are no uint8 affinities, differ in what their channels mean, or do not lie on the grid
                of the fragments.
        """
        paths = [self.prediction, *([self.job.second] if self.job.second else [])]
        volumes = [open_volume(path) for path in paths]
        fragments = self.fragments()
        for volume in volumes:
            info = volume.info
            if info.neighborhood is None or info.dtype != np.uint8:
                raise InputError(
                    f"{info.source} holds {info.kind or 'values'} of dtype {info.dtype}: give uint8 affinities, "
                    "as `emloom predict` writes them"
                )
            common_box(fragments, volume)
            if info.neighborhood != volumes[0].info.neighborhood:
                raise InputError(
                    f"{info.source} has other offsets than {volumes[0].info.source}: give predictions of one model"
                )
        return volumes

    def read_marks(self, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return where masks say that data are bad, and where sections do not reach, which is no data."""
        bad, outside = np.zeros(box.shape, bool), np.zeros(box.shape, bool)
        fragments = self.fragments()
        for path in self.job.masks:
            mask, code = open_avoid(path), outside_code(path)
            values = mask.read(box.shift(common_box(fragments, mask).start))
            bad |= values != 0
            if code is not None:
                outside |= values == code
        return bad & ~outside, outside

    @property
    def tile(self) -> Vec:
        """Voxels of a tile."""
        return self.job.tile(self.fragments().info.grid)

    def tiles_of(self, box: Box) -> tuple[Vec, Vec]:
        """Return the first tile of a box that begins with one, and how many tiles it has."""
        first = tuple(a // t for a, t in zip(box.start, self.tile, strict=True))
        last = tuple(-(-b // t) for b, t in zip(box.stop, self.tile, strict=True))
        z, y, x = (b - a for a, b in zip(first, last, strict=True))
        return (first[0], first[1], first[2]), (z, y, x)

    def volume_info(self) -> VolumeInfo:
        """Return what the volume of tiles says of itself."""
        info = self.fragments().info
        size = [s * t for s, t in zip(info.grid.voxel_size_nm, self.tile, strict=True)]
        grid = type(info.grid)((size[0], size[1], size[2]), info.grid.offset_nm)
        cell = [c // t for c, t in zip(self.job.cell(info.grid), self.tile, strict=True)]
        return VolumeInfo(self.tiles_of(info.box)[1], np.dtype(np.uint8), grid, chunks=(cell[0], cell[1], cell[2]))

    def contacts(self, write: Box) -> tuple[Contacts, Sequence[Vec]]:
        """Return the contacts that a box owns, and the offsets of their channels."""
        offsets = self.affinities()[0].info.neighborhood
        assert offsets is not None
        volume = self.fragments()
        read = with_neighbours(write, offsets).intersect(volume.info.box)
        owned = write.shift([-v for v in read.start])
        return contacts_of(volume.read(read), offsets, owned, read.start), offsets

    def table(self, part: str, block: Block) -> Path:
        """Return the file of a block's table."""
        return self.folder / part / f"{name_of(block.index)}.parquet"

    def told(self, *paths: Path) -> list[Output]:
        """Describe files that were written."""
        return [Output.file(self.folder, str(path.relative_to(self.folder))) for path in paths]


@dataclass(frozen=True)
class SumContacts:
    """Sums what predictions and masks say about the contacts of a cell."""

    site: Doubted

    def __call__(self, block: Block) -> list[Output]:
        """Write the sums per pair of fragments, and the bad voxels per tile."""
        site = self.site
        contacts, offsets = site.contacts(block.write)
        columns: dict[str, NDArray[Any]] = {}
        fragments = site.fragments()
        local = (contacts.channel, *(contacts.p - np.array(block.write.start)).T)
        for name, volume in zip(("total", "total_second"), site.affinities(), strict=False):
            values = volume.read(block.write.shift(common_box(fragments, volume).start))
            columns[name] = values[local]
        around = block.write.grow((1, 1, 1)).intersect(fragments.info.box)
        bad_voxels, outside = site.read_marks(around)
        owned = block.write.shift([-v for v in around.start])
        here = contacts.p - np.array(around.start)
        there = here + np.array(offsets)[contacts.channel]
        columns["bad"] = bad_voxels[tuple(here.T)] | bad_voxels[tuple(there.T)]
        counts = tile_counts(bad_voxels[owned.slices()], site.tile)
        first, _ = site.tiles_of(block.write)
        sums, bad, rims = (site.table(name, block) for name in ("contacts", "bad", "rims"))
        write_table(sums, contact_sums(contacts, columns))
        tiles = np.argwhere(counts > 0)
        places = {axis: tiles[:, k] + first[k] for k, axis in enumerate("zyx")}
        write_table(bad, {**places, "voxels": counts[tuple(tiles.T)]})
        write_table(rims, {"fragment": ids_beside(fragments.read(around), outside, owned)})
        return site.told(sums, bad, rims)


@dataclass(frozen=True)
class PlaceContacts:
    """Finds, of every contact that is to be shown, the voxel pair in its middle."""

    site: Doubted
    key: str

    def __call__(self, block: Block) -> list[Output]:
        """Write the nearest of the cell."""
        wanted = once(("wanted", str(self.site.folder), self.key), self._wanted)
        contacts, _ = self.site.contacts(block.write)
        targets = np.stack([wanted[axis] for axis in "zyx"], axis=1)
        path = self.site.table("places", block)
        write_table(path, nearest_contacts(contacts, wanted["u"], wanted["v"], targets))
        return self.site.told(path)

    def _wanted(self) -> Table:
        return read_table(self.site.folder / "wanted.parquet")


@dataclass(frozen=True)
class PaintTiles:
    """Writes the confidence of the tiles of a cell: 255 less the largest doubt among its contacts."""

    site: Doubted
    key: str

    def __call__(self, block: Block) -> list[Output]:
        """Write the tiles of the cell."""
        site = self.site
        doubts = once(("doubts", str(site.folder), self.key), self._doubts)
        contacts, _ = site.contacts(block.write)
        row = rows_of_pairs(doubts["u"], doubts["v"], contacts)
        values = np.where(row >= 0, doubts["doubt"][np.maximum(row, 0)] if len(doubts["doubt"]) else 0, 0)
        first, shape = site.tiles_of(block.write)
        sure = 255 - tile_worst(contacts, values.astype(np.uint8), site.tile, first, shape)
        box = Box(first, shape)
        open_volume(site.folder / VOLUME, writable=True).write(box, sure)
        return [Output.voxels(VOLUME, box, sure)]

    def _doubts(self) -> Table:
        return read_table(self.site.folder / "doubts.parquet")
