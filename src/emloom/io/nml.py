"""NML, the tracings of webKnossos and KNOSSOS: trees of nodes and edges, read into nanometres and written back.

::

    <things>
      <parameters> <scale x="11.24" y="11.24" z="32.0" unit="nanometer"/> ... </parameters>
      <thing id="1" name="axon 1" groupId="3" ...>
        <nodes> <node id="7" x="37484" y="43509" z="230" radius="1.5" .../> ... </nodes>
        <edges> <edge source="7" target="8"/> ... </edges>
      </thing>
      <branchpoints> <branchpoint id="7" .../> ... </branchpoints>
      <comments> <comment node="7" content="soma"/> ... </comments>
      <groups> <group id="3" name="axons"> ... </group> ... </groups>
    </things>

Coordinates are voxels x, y, z of the data set at full resolution, and the scale is the size of such a voxel; a
position is coordinate times scale, the corner of the voxel that was clicked, hence in that voxel. Radii are in the
unit of the scale. Without a unit the scale is in nm. `<offset>` is not applied; webKnossos does not either.

Round trip: every element and attribute that was read is written, spelled as it was, also those emloom does not
know (`emloom.geometry.tracings.Others`). White space, comments of XML and the order of unlike elements are not
kept.

Archives (`.zip`, `.nmx`, `.k.zip`) hold any number of NML files, and perhaps volume layers, whose voxels are not
read: the tracing refers to them (`Tracing.attachments`), and they are copied where it is written to an archive.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emloom.errors import InputError
from emloom.geometry.grid import Vec3, as_nm
from emloom.geometry.skeletons import Skeletons, joined
from emloom.geometry.tracings import Tracing
from emloom.io.files import staged
from emloom.io.nmlarchive import ENDINGS, LARGEST, Budget, attachments, members, opened, write_archive
from emloom.io.nmlreader import parse
from emloom.io.nmlwriter import nml_lines

_CHUNK = 1 << 18


def read_nml(path: str | Path, *, voxel_size_nm: Sequence[float] | None = None) -> Skeletons:
    """Read the trees of an NML file, or of an archive of them.

    Args:
        path: `.nml`, or an archive: `.zip`, `.nmx`.
        voxel_size_nm: size of a full-resolution voxel (z, y, x) in nm, where the file does not state its scale.

    Returns:
        the trees as skeletons; ids are those of the trees. Of an archive of several files, where tree ids repeat,
        they are numbered 1, 2, ... in the order of file names and trees, and called ``file.nml: name``.

    Raises:
        InputError: as `read_nml_tracings`.
    """
    tracings = read_nml_tracings(path, voxel_size_nm=voxel_size_nm)
    if len(tracings) == 1:
        return next(iter(tracings.values())).skeletons
    first, numbered = 1, []
    for member, tracing in tracings.items():
        part = tracing.skeletons
        ids = np.arange(first, first + len(part.ids)).astype(np.uint64)
        first += len(ids)
        numbered.append(replace(part, ids=ids, names=tuple(f"{Path(member).name}: {n}" for n in part.names)))
    return joined(numbered, source=str(path))


def read_nml_tracing(path: str | Path, *, voxel_size_nm: Sequence[float] | None = None) -> Tracing:
    """Read an NML file, or an archive of one, with everything it holds.

    Args:
        path: `.nml`, or an archive: `.zip`, `.nmx`.
        voxel_size_nm: size of a full-resolution voxel (z, y, x) in nm, where the file does not state its scale.

    Raises:
        InputError: it is an archive of several, or as `read_nml_tracings`.
    """
    tracings = read_nml_tracings(path, voxel_size_nm=voxel_size_nm)
    if len(tracings) > 1:
        raise InputError(
            f"{path} holds {len(tracings)} tracings, {', '.join(list(tracings)[:5])}: read them with "
            "read_nml_tracings, and merge them with emloom.ops.tracingmerge.merged if they belong together"
        )
    return next(iter(tracings.values()))


def read_nml_tracings(path: str | Path, *, voxel_size_nm: Sequence[float] | None = None) -> dict[str, Tracing]:
    """Read an NML file or an archive of any number, each tracing under its name in the archive.

    Args:
        path: `.nml`, or an archive: `.zip`, `.nmx`.
        voxel_size_nm: size of a full-resolution voxel (z, y, x) in nm, where a file does not state its scale.

    Returns:
        name of the file -> tracing, in the order of names.

    Raises:
        InputError: there is no such file, it is no NML or archive of it, it declares a document type, a number is
            missing or wrong, a node id stands twice in its tree, an edge names a node that its tree does not have,
            the scale is missing, in an unknown unit, or other than `voxel_size_nm`, or the file is made to harm
            (`emloom.io.nmlreader`, `emloom.io.nmlarchive`).
    """
    path = Path(path)
    given = None if voxel_size_nm is None else as_nm(voxel_size_nm, "voxel size")
    if not path.is_file():
        raise InputError(f"{path} is not a file: give an .nml file, or a .zip or .nmx of them")
    if zipfile.is_zipfile(path):
        return _read_members(path, given)
    return {path.name: parse(_chunks(path), str(path), given)}


def _read_members(path: Path, given: Vec3 | None) -> dict[str, Tracing]:
    with opened(path) as archive:
        infos, others = members(path, archive)
        beside, budget = attachments(path, others), Budget(path)
        found = {}
        for info in infos:
            tracing = parse(budget.chunks(archive, info), f"{path}/{info.filename}", given)
            found[info.filename] = replace(tracing, attachments=beside)
        return found


def _chunks(path: Path) -> Iterator[bytes]:
    left = LARGEST
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise InputError(f"{path} is larger than {LARGEST} bytes: split it into several files")
            yield chunk


def write_nml(path: str | Path, tracing: Tracing, *, overwrite: bool = False) -> None:
    """Write a tracing as an NML file, or as an archive of one; a reader sees the whole file or none.

    Args:
        path: `.nml`, or an archive: `.zip`, `.nmx`.
        tracing: what is written, with the files that lay beside it, which only an archive can hold.
        overwrite: replace a file that is there.

    Raises:
        InputError: `path` exists or has another ending, the tracing has attachments and `path` is no archive, or
            as `emloom.io.nmlwriter.nml_lines` and `emloom.io.nmlarchive.write_archive`.
    """
    path = Path(path)
    if path.suffix.lower() in ENDINGS:
        # KNOSSOS looks for this name.
        name = "annotation.xml" if path.name.lower().endswith(".k.zip") else f"{path.stem}.nml"
        write_nmls(path, {name: tracing}, overwrite=overwrite)
        return
    if path.suffix.lower() != ".nml":
        raise InputError(f"{path} is no name of an NML file: end it with .nml, .zip or .nmx")
    if tracing.attachments:
        raise InputError(
            f"{tracing.source} came with {len(tracing.attachments)} other files, such as "
            f"{tracing.attachments[0].name}, which an .nml cannot hold: write a .zip, or leave them and the "
            "volume layers out, tracing.without_attachments()"
        )
    with staged(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(nml_lines(tracing))


def write_nmls(path: str | Path, tracings: Mapping[str, Tracing], *, overwrite: bool = False) -> None:
    """Write several tracings into one archive; a reader sees the whole archive or none.

    Args:
        path: `.zip` or `.nmx`.
        tracings: name of each NML file in the archive, ending with ``.nml`` -> tracing.
        overwrite: replace a file that is there, perhaps the one the tracings were read from.

    Raises:
        InputError: `path` exists or has another ending, there is no tracing, or as `write_nml`.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path} is no archive: end it with .zip or .nmx")
    if not tracings:
        raise InputError(f"{path} would hold no tracing: give at least one")
    with staged(path, overwrite=overwrite) as temporary:
        write_archive(temporary, path, tracings)
