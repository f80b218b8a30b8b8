"""What a person gets of a list of patches: a table, a tracing, contact sheets and a page, in one folder.

::

    folder/candidates.csv    the patches, labels unknown, with what is known about them in columns
    folder/candidates.nml    a loop around each, to be named in webKnossos and read again (`artifacts adopt`)
    folder/sheet.png         the patches with some tissue around, framed; several sheets where there are many
    folder/index.html        the same as one page, with the numbers

The folder appears when it is whole. Everything but the sheets and the page is made from the patches alone; the
margin of a picture is nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emloom.geometry.patches import PatchLabels, Texts
from emloom.geometry.patchtracings import tracing_of
from emloom.io.files import staged, write_bytes_atomic
from emloom.io.nml import write_nml
from emloom.io.patchtables import write_patches
from emloom.io.volume import Volume
from emloom.tasks.annotating import require_inside
from emloom.view.contact_sheet import Entry, Strip, contact_sheet
from emloom.view.figures import Figure
from emloom.view.patchview import framed, shown_section, window_of
from emloom.view.report import Report, Section, Table

TABLE, TRACING, PAGE = "candidates.csv", "candidates.nml", "index.html"

_PER_SHEET = 48
_COLUMNS = 6


@dataclass(frozen=True)
class Listing:
    """Patches to be shown.

    Attributes:
        patches: each once; what the table holds.
        names: of the trees of the tracing.
        words: under the picture of each patch; empty for none.
        title: of the page.
        text: what the page says first.
        provenance: what the page says last.
        rows: the patch of each tree, as a row of `patches`; None: one tree per patch.
    """

    patches: PatchLabels
    names: Sequence[str]
    words: Sequence[str]
    title: str
    text: str
    provenance: dict[str, Any]
    rows: Sequence[int] | None = None


def write_listing(
    folder: str | Path, listing: Listing, raw: Volume | None, margin: int, table: PatchLabels | None = None
) -> None:
    """Write a folder; see the module.

    Args:
        folder: must not exist.
        listing: what is written.
        raw: the volume, for pictures; None: there are none, and no page.
        margin: voxels of tissue shown around a patch.
        table: written instead of the patches of the listing, where it says more of them.

    Raises:
        InputError: the folder exists, a patch leaves the volume, or the disk refuses.
    """
    if raw is not None:
        require_inside(listing.patches, raw)
    with staged(folder) as temporary:
        temporary.mkdir()
        write_patches(temporary / TABLE, listing.patches if table is None else table)
        comments = [f"{number} of {len(listing.names)}" for number in range(1, len(listing.names) + 1)]
        write_nml(
            temporary / TRACING, tracing_of(listing.patches, listing.names, rows=listing.rows, comments=comments)
        )
        if raw is not None:
            sheets = sheets_of(listing, raw, margin)
            for number, sheet in enumerate(sheets, 1):
                name = "sheet.png" if len(sheets) == 1 else f"sheet-{number}.png"
                write_bytes_atomic(temporary / name, sheet.png)
            _report(listing, sheets).write(temporary / PAGE)


def sheets_of(listing: Listing, raw: Volume, margin: int) -> list[Figure]:
    """Return contact sheets of all patches, in their order; none where there is no patch."""
    boxes = listing.patches.boxes()
    if not boxes:
        return []
    window = window_of(raw, boxes)
    entries = []
    for number, (box, words) in enumerate(zip(boxes, listing.words, strict=True), 1):
        section = shown_section(box)
        tile = framed(raw, box, margin, section, window)
        entries.append(Entry(f"patch {number}", words, [Strip("", [(f"z {section}", tile)])]))
    spacing = min(raw.info.grid.voxel_size_nm[1:])
    zoom = max(1, 210 // max(n + 2 * margin for n in listing.patches.shape[1:]))
    return [
        contact_sheet(entries[k : k + _PER_SHEET], spacing, columns=min(_COLUMNS, len(entries)), zoom=zoom)
        for k in range(0, len(entries), _PER_SHEET)
    ]


def _report(listing: Listing, sheets: Sequence[Figure]) -> Report:
    patches = listing.patches
    columns = ["patch", "z", "y", "x", *patches.columns]
    rows = [
        [number, *start, *(str(values[number - 1]) for values in patches.columns.values())]
        for number, start in enumerate(patches.starts.tolist(), 1)
    ]
    where = Table(columns, rows, "First voxel of every patch (z, y, x), and what is known about it.")
    sections = [Section("Patches", listing.text, sheets), Section("Where they are", "", tables=[where])]
    done = f"{len(patches)} patches were picked, for somebody to answer; tissue is shown around each."
    return Report(listing.title, done=done, sections=sections, provenance=listing.provenance)


def in_words(scores: Texts) -> list[str]:
    """Return ``p 0.931`` for every score, empty for an empty one."""
    return [f"p {float(text):.3f}" if text else "" for text in scores.tolist()]
