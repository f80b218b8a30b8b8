"""Making the sections that are not kept: one block per section, which reads it and its neighbours whole.

::

    fills/00012.npz              displacement float32 [2, J, I] in pixels, spacing and origin (`planar.Field`) of
                                 the flow from `before` to `after`, at the places of the section that lies at t
    fills/00012.json             what was done, in numbers and words; of a mended section its map, too
    filled/00012.grey.npy        the section [Y, X] as it goes into raw.zarr
    filled/00012.invented.npy    codes of `repairspec.INVENTED`, uint8 [Y, X]
    filled/00012.labels.npy      ids [Y, X], where labels were given
    filled/00012.parts-N.npy     parts of a mended section, uint8 [Y, X]

The work is that of whole sections, so no result depends on how the output is cut into blocks.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.planar import IDENTITY, Field, PlanarMap, from_plain
from emloom.io.files import write_bytes_atomic, write_text_atomic
from emloom.ops.feather import feather_weights, feathered
from emloom.ops.interpolate import between, nearest_between
from emloom.ops.mend import mend
from emloom.ops.opticalflow import FlowSettings, flow_between
from emloom.ops.tornparts import Parts
from emloom.ops.warp import Window, moved_section
from emloom.run.stage import Output
from emloom.tasks.badsections import Fill
from emloom.tasks.qcspec import CODES
from emloom.tasks.repairscene import RepairScene
from emloom.tasks.repairspec import BETWEEN, BEYOND, GAP, LEFT, MEASURED, REPLACED

FILLS, FILLED = "fills", "filled"
_FLOW_NM = 10.0  # pixels in which flow is looked for, about
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Section:
    """A section as a block of work."""

    fill: Fill

    @property
    def index(self) -> Vec:
        """Its number, and noughts."""
        return (self.fill.z, 0, 0)


@dataclass(frozen=True)
class Made:
    """A section that was made.

    Attributes:
        state: what was done at last: "left" where it could not be made, "measured" where nothing had to be.
        grey: [Y, X].
        codes: of `INVENTED`.
        ids: labels, None where there are none.
        flow: between its neighbours, None where none was needed.
        move: from the torn section to the mended one.
        words: numbers and notes for the table.
    """

    state: str
    grey: NDArray[Any]
    codes: Codes
    ids: NDArray[Any] | None
    flow: Field | None = None
    move: PlanarMap = IDENTITY
    words: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MakeSection:
    """Makes one section.

    Attributes:
        scene: the inputs.
        folder: of the result.
    """

    scene: RepairScene
    folder: Path

    def __call__(self, section: Section) -> Sequence[Output]:
        """Write the files of a section."""
        fill = section.fill
        make = {"replaced": self._copied, "between": self._between, "mended": self._mended, "left": self._left}
        made = self._with_rims(fill.z, make[fill.state](fill))
        places = [self._array(fill.z, "grey", made.grey), self._array(fill.z, "invented", made.codes)]
        if made.ids is not None:
            places.append(self._array(fill.z, "labels", made.ids))
        if made.flow is not None:
            places.append(self._flow(fill, made.flow))
        kept: list[str] = []

        def keep(parts: NDArray[Any]) -> str:
            kept.append(self._array(fill.z, f"parts-{len(kept)}", parts))
            return kept[-1]

        plain = made.move.to_plain(keep)
        words = {**fill.to_dict(), "state": made.state, "t": fill.t, "map": plain, **made.words}
        words["note"] = "; ".join(note for note in (fill.note, made.words.get("note", "")) if note)
        place = f"{FILLS}/{fill.z:05d}.json"
        write_text_atomic(self.folder / place, json.dumps(words, indent=1, allow_nan=False))
        return [Output.file(self.folder, one) for one in (*places, *kept, place)]

    def _with_rims(self, z: int, made: Made) -> Made:
        """Say where the section does not reach, and was not made of others either."""
        rims = ~self.scene.reached(self.scene.section_box(z))[0] & np.isin(made.codes, (LEFT, MEASURED))
        return replace(made, codes=np.where(rims, np.uint8(BEYOND), made.codes))

    # ---- what is made -----------------------------------------------------------------------------------------

    def _left(self, fill: Fill, note: str = "") -> Made:
        grey = self.scene.grey(fill.z)
        codes = np.full(grey.shape, LEFT, np.uint8)
        return Made("left", grey, codes, self.scene.ids(fill.z), words={"note": note})

    def _copied(self, fill: Fill) -> Made:
        grey = self.scene.grey(fill.nearest)
        return Made("replaced", grey, np.full(grey.shape, REPLACED, np.uint8), self.scene.ids(fill.nearest))

    def _between(self, fill: Fill) -> Made:
        grey, known, flow = self._interpolated(fill)
        # Where neither neighbour shows tissue, there is nothing to make it of.
        codes = np.where(known, BETWEEN, LEFT).astype(np.uint8)
        return Made("between", grey, codes, self._ids_between(fill, flow), flow, words=_told(flow))

    def _interpolated(self, fill: Fill) -> tuple[NDArray[Any], NDArray[np.bool_], Field]:
        """Return the section between two, where it is known, and the flow between them."""
        a, b = (self.scene.grey(z) for z in (fill.before, fill.after))
        usable = (self.scene.usable(fill.before), self.scene.usable(fill.after))
        flow = flow_between(a, b, fill.t, usable=usable, settings=self._settings())
        grey = between(a, b, flow, fill.t, usable=usable)
        ones = np.ones(a.shape, np.uint8)
        known = between(ones, ones, flow, fill.t, usable=usable) != 0
        if not known.all():
            grey = np.where(known, grey, between(a, b, flow, fill.t))
        return grey, known, flow

    def _settings(self) -> FlowSettings:
        _, y, x = self.scene.info.grid.voxel_size_nm
        return FlowSettings(bin=int(np.clip(round(_FLOW_NM / (y * x) ** 0.5), 1, 16)))

    def _ids_between(self, fill: Fill, flow: Field) -> NDArray[Any] | None:
        a, b = (self.scene.ids(z) for z in (fill.before, fill.after))
        return None if a is None or b is None else nearest_between(a, b, flow, fill.t)

    def _mended(self, fill: Fill) -> Made:
        torn = self.scene.grey(fill.z)
        near = sorted(fill.neighbours, key=lambda z: (abs(z - fill.z), z))
        try:
            found = mend(torn, [self.scene.grey(z) for z in near])
        except InputError as problem:  # no tissue: nothing that could be put together
            return self._not_mended(fill, str(problem)) or self._left(fill, str(problem))
        notes = "; ".join(found.notes)
        if found.parts.count < 2 and not found.parts.gap.any():
            if other := self._not_mended(fill, notes):
                return other
            codes = self._codes_of(fill.z, IDENTITY, void=False)
            return Made("measured", torn, codes, self.scene.ids(fill.z), words={"note": notes})
        if found.parts.count > 1 and not any(one.ok for one in found.fits):
            return self._not_mended(fill, notes) or self._unmended(fill, torn, found.parts, notes)
        move: PlanarMap = found.pieces
        gap, shown = found.gap, found.shown
        grey = np.where(shown != 0, found.section, torn)
        if found.parts.count < 2:  # nothing came apart: it stays where it is, and only its slit is filled
            move, grey, gap, shown = IDENTITY, torn, found.parts.gap, found.parts.parts
        patch, patch_ids, flow = self._patch(fill, bool(gap.any()))
        _, y, x = self.scene.info.grid.voxel_size_nm
        feather = self.scene.job.feather_nm / (y * x) ** 0.5
        codes = self._codes_of(fill.z, move)
        codes[shown == 0] = LEFT
        codes[feather_weights(gap, feather) > 0] = GAP
        words = {"parts": found.parts.count, "gap": float(gap.mean()), "note": notes}
        words |= {} if flow is None else _told(flow)
        mended = feathered(grey, patch, gap, feather)
        return Made("mended", mended, codes, self._ids_mended(fill.z, move, gap, patch_ids), flow, move, words)

    def _patch(self, fill: Fill, is_needed: bool) -> tuple[NDArray[Any], NDArray[Any] | None, Field | None]:
        """Return what goes into a gap: grey values, ids, and the flow along which they were made."""
        if is_needed and len(fill.neighbours) == 2:
            grey, _, flow = self._interpolated(fill)
            return grey, self._ids_between(fill, flow), flow
        return self.scene.grey(fill.nearest), self.scene.ids(fill.nearest), None

    def _not_mended(self, fill: Fill, notes: str) -> Made | None:
        """Return what a torn section is replaced by if it is bad otherwise, too, and has two neighbours."""
        if not fill.otherwise or min(fill.before, fill.after) < 0:
            return None
        made = self._between(fill)
        note = f"not mended ({notes}), and replaced: {fill.otherwise}"
        return replace(made, words={**made.words, "note": note, "reason": fill.otherwise})

    def _unmended(self, fill: Fill, torn: NDArray[Any], parts: Parts, notes: str) -> Made:
        """Return a torn section as it is, whose parts found no place: its void and what else is bad are marked."""
        codes = self._codes_of(fill.z, IDENTITY)
        codes[parts.parts == 0] = LEFT
        words = {"parts": parts.count, "note": f"not mended: {notes}"}
        return Made("left", torn, codes, self.scene.ids(fill.z), words=words)

    def _codes_of(self, z: int, move: PlanarMap, void: bool = True) -> Codes:
        """Return what is bad of a section, where it went; without its void, if that is known to the pixel."""
        box = self.scene.section_box(z)
        codes = None if z in self.scene.job.sections.good else self.scene.codes(box)
        if codes is None:
            return np.zeros(box.shape[1:], np.uint8)
        known = [0, CODES["crack"], CODES["blank"]] if void else [0]
        bad = (~np.isin(codes[0], known)).astype(np.uint8)
        moved = moved_section(bad, (0, 0), move, Window((0, 0), bad.shape), "nearest")
        return np.where(moved != 0, LEFT, MEASURED).astype(np.uint8)

    def _ids_mended(
        self, z: int, move: PlanarMap, gap: NDArray[np.bool_], patch: NDArray[Any] | None
    ) -> NDArray[Any] | None:
        own = self.scene.ids(z)
        if own is None or patch is None:
            return None
        y, x = own.shape
        return np.where(gap, patch, moved_section(own, (0, 0), move, Window((0, 0), (y, x)), "nearest"))

    # ---- files ------------------------------------------------------------------------------------------------

    def _array(self, z: int, what: str, array: NDArray[Any]) -> str:
        place = f"{FILLED}/{z:05d}.{what}.npy"
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
        write_bytes_atomic(self.folder / place, stream.getvalue())
        return place

    def _flow(self, fill: Fill, flow: Field) -> str:
        place = f"{FILLS}/{fill.z:05d}.npz"
        stream = io.BytesIO()
        np.savez(
            stream,
            displacement=flow.displacement,
            spacing=np.array(flow.spacing),
            origin=np.array(flow.origin),
            before=fill.before,
            after=fill.after,
            t=fill.t,
        )
        write_bytes_atomic(self.folder / place, stream.getvalue())
        return place


def _told(flow: Field) -> dict[str, float]:
    return {"flow_px": float(np.median(np.linalg.norm(flow.displacement.astype(np.float64), axis=0)))}


def read_flow(folder: str | Path, z: int) -> tuple[Field, int, int, float]:
    """Return the flow along which a section was filled, the sections before and after, and where it lies between.

    Raises:
        OSError: no flow was needed for it.
    """
    with np.load(Path(folder) / FILLS / f"{z:05d}.npz", allow_pickle=False) as saved:
        (sy, sx), (oy, ox) = saved["spacing"].tolist(), saved["origin"].tolist()
        flow = Field(saved["displacement"], (sy, sx), (oy, ox))
        return flow, int(saved["before"]), int(saved["after"]), float(saved["t"])


def read_made(folder: Path, z: int) -> dict[str, Any]:
    """Return what was done with a section, as `MakeSection` wrote it."""
    words: dict[str, Any] = json.loads((folder / FILLS / f"{z:05d}.json").read_text(encoding="utf-8"))
    return words


def read_move(folder: Path, words: Mapping[str, Any]) -> PlanarMap:
    """Return the map of a section that was made."""
    return from_plain(words["map"], lambda name: np.load(folder / name, allow_pickle=False))


def made_array(folder: Path, z: int, what: str) -> NDArray[Any]:
    """Return an array of a section that was made, on disk until it is read."""
    array: NDArray[Any] = np.load(folder / FILLED / f"{z:05d}.{what}.npy", mmap_mode="r", allow_pickle=False)
    return array
