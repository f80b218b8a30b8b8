"""NML, the tracings of webKnossos and KNOSSOS: trees of nodes and edges, read into nanometres.

::

    <things>
      <parameters> <scale x="11.24" y="11.24" z="32.0" unit="nanometer"/> ... </parameters>
      <thing id="1" name="axon 1" ...>
        <nodes> <node id="7" x="37484" y="43509" z="230" radius="1.5" .../> ... </nodes>
        <edges> <edge source="7" target="8"/> ... </edges>
      </thing>
    </things>

Coordinates are voxels x, y, z of the data set at full resolution, and the scale is the size of such a voxel; a
position is coordinate times scale, the corner of the voxel that was clicked, hence in that voxel. Without a unit
the scale is in nm. `<offset>` is not applied; webKnossos does not either. Comments, branch points and groups are
not read.

Archives (`.zip`, `.nmx`, `.k.zip`) hold any number of NML files. With more than one, tree ids repeat: the
skeletons are then numbered 1, 2, ... in the order of file names and trees, and are called ``file.nml: name``.

Files are read as a stream of elements. A document type declaration, the only place where entities can be defined,
is refused, so nothing expands and nothing is fetched.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO
from xml.parsers import expat

import numpy as np

from emloom.errors import InputError, did_you_mean
from emloom.geometry.grid import Vec3, as_nm
from emloom.geometry.skeletons import Skeletons, joined

_UNIT_NM = {
    "angstrom": 0.1,
    "picometer": 1e-3,
    "nanometer": 1.0,
    "micrometer": 1e3,
    "millimeter": 1e6,
    "centimeter": 1e7,
    "meter": 1e9,
}
_LARGEST_NML = 4 << 30  # bytes once unpacked: some ten million nodes; more is an archive made to fill the memory
_ARCHIVED = (".nml", ".xml")
_LARGEST_ID = 2**64 - 1


def read_nml(path: str | Path, *, voxel_size_nm: Sequence[float] | None = None) -> Skeletons:
    """Read the trees of an NML file, or of an archive of them.

    Args:
        path: `.nml`, or an archive: `.zip`, `.nmx`.
        voxel_size_nm: size of a full-resolution voxel (z, y, x) in nm, where the file does not state its scale.

    Returns:
        the trees as skeletons; ids are those of the trees (of an archive of several files: see the module).

    Raises:
        InputError: there is no such file, it is no NML, it declares a document type, a number is missing or
            wrong, a node id stands twice in its tree, an edge names a node that its tree does not have, or the
            scale is missing, in an unknown unit, or other than `voxel_size_nm`.
    """
    path = Path(path)
    given = None if voxel_size_nm is None else as_nm(voxel_size_nm, "voxel size")
    if not path.is_file():
        raise InputError(f"{path} is not a file: give an .nml file, or a .zip or .nmx of them")
    if zipfile.is_zipfile(path):
        return _read_archive(path, given)
    with path.open("rb") as file:
        return _parse(file, str(path), given)


def _read_archive(path: Path, given: Vec3 | None) -> Skeletons:
    try:
        return _read_members(path, given)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as problem:
        raise InputError(
            f"cannot unpack {path} ({problem}): copy or export it again, without a password"
        ) from problem


def _read_members(path: Path, given: Vec3 | None) -> Skeletons:
    with zipfile.ZipFile(path) as archive:
        members = sorted(
            (m for m in archive.infolist() if m.filename.lower().endswith(_ARCHIVED)), key=lambda m: m.filename
        )
        if not members:
            raise InputError(f"{path} holds no .nml file: give an archive of tracings")
        parts = []
        for member in members:
            if member.file_size > _LARGEST_NML:
                raise InputError(
                    f"{path}/{member.filename} is {member.file_size} bytes unpacked: at most {_LARGEST_NML} are "
                    "read; unpack it and split it"
                )
            with archive.open(member) as file:
                parts.append(_parse(file, f"{path}/{member.filename}", given))
    if len(parts) == 1:
        return parts[0]
    first, numbered = 1, []
    for member, part in zip(members, parts, strict=True):
        ids = np.arange(first, first + len(part.ids)).astype(np.uint64)
        first += len(ids)
        names = tuple(f"{Path(member.filename).name}: {name}" for name in part.names)
        numbered.append(replace(part, ids=ids, names=names))
    return joined(numbered, source=str(path))


def _parse(file: IO[bytes], source: str, given: Vec3 | None) -> Skeletons:
    reader = _Reader(source)
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    reader.parser = parser
    try:
        parser.ParseFile(file)
    except expat.ExpatError as problem:
        raise InputError(f"{source} is not readable as XML ({problem}): export the tracing again") from problem
    if not reader.root:
        raise InputError(f"{source} is not an NML file: its root element is not <things>")
    return reader.skeletons(given)


@dataclass
class _Tree:
    id: int
    name: str
    node_ids: list[int] = field(default_factory=list)
    xyz: list[tuple[float, float, float]] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)


class _Reader:
    """Receives the elements of one file, in order."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.parser: expat.XMLParserType | None = None
        self.root = False
        self.depth = 0
        self.scale: Vec3 | None = None
        self.trees: list[_Tree] = []
        self.tree: _Tree | None = None

    def refuse_doctype(self, *_: object) -> None:
        raise InputError(
            f"{self.source} declares a document type, which can define entities: an NML file has none; remove it"
        )

    def start(self, name: str, values: dict[str, str]) -> None:
        self.depth += 1
        if self.depth == 1:
            self.root = name == "things"
        elif self.tree is not None:
            self._inside_tree(self.tree, name, values)
        elif name == "thing":
            self.tree = _Tree(self._id(name, values, "id"), values.get("name", ""))
            self.trees.append(self.tree)
        elif name == "scale":
            self._read_scale(values)

    def end(self, name: str) -> None:
        self.depth -= 1
        if name == "thing":
            self.tree = None

    def _inside_tree(self, tree: _Tree, name: str, values: dict[str, str]) -> None:
        if name == "node":
            tree.node_ids.append(self._id(name, values, "id"))
            number = self._number
            tree.xyz.append((number(name, values, "x"), number(name, values, "y"), number(name, values, "z")))
        elif name == "edge":
            tree.edges.append((self._id(name, values, "source"), self._id(name, values, "target")))

    def _read_scale(self, values: dict[str, str]) -> None:
        unit = values.get("unit", "nanometer")
        if unit not in _UNIT_NM:
            raise InputError(
                f"{self.source} has its scale in {unit!r}{did_you_mean(unit, _UNIT_NM)}: units are "
                f"{', '.join(_UNIT_NM)}"
            )
        z, y, x = (self._number("scale", values, axis) * _UNIT_NM[unit] for axis in "zyx")
        if not min(z, y, x) > 0:
            raise InputError(
                f"{self.source} has the scale ({z}, {y}, {x}) nm (z, y, x): voxels have a positive size"
            )
        self.scale = (z, y, x)

    def _number(self, element: str, values: dict[str, str], key: str) -> float:
        try:
            return float(values[key])
        except (KeyError, ValueError):
            raise InputError(f"{self._wrong(element, values, key)}: give a number") from None

    def _id(self, element: str, values: dict[str, str], key: str) -> int:
        try:
            number = int(values[key])
        except (KeyError, ValueError):
            number = -1
        if not 0 <= number <= _LARGEST_ID:
            raise InputError(f"{self._wrong(element, values, key)}: give a whole number, at least 0")
        return number

    def _wrong(self, element: str, values: dict[str, str], key: str) -> str:
        line = self.parser.CurrentLineNumber if self.parser is not None else 0
        return f"{self.source}, line {line}: <{element}> has {key}={values.get(key)!r}"

    def skeletons(self, given: Vec3 | None) -> Skeletons:
        """Return what was read, in nm."""
        scale = self._agreed_scale(given)
        of_node = np.repeat(np.arange(len(self.trees)), [len(tree.node_ids) for tree in self.trees])
        xyz = np.array([p for tree in self.trees for p in tree.xyz], np.float64).reshape(-1, 3)
        return Skeletons(
            np.array([tree.id for tree in self.trees], np.uint64),
            of_node.astype(np.int64),
            np.array([i for tree in self.trees for i in tree.node_ids], np.uint64),
            xyz[:, ::-1] * np.array(scale),
            np.array(self._edge_rows(), np.int64).reshape(-1, 2),
            tuple(tree.name for tree in self.trees),
            self.source,
        )

    def _agreed_scale(self, given: Vec3 | None) -> Vec3:
        if self.scale is None and given is None:
            raise InputError(
                f"{self.source} states no scale: give the size of a voxel, voxel_size_nm=(z, y, x) in nm"
            )
        if self.scale is not None and given is not None and not np.allclose(self.scale, given, rtol=1e-6, atol=0):
            raise InputError(
                f"{self.source} has the scale {self.scale} nm (z, y, x), but {given} nm was given: leave it out, "
                "or mend the file"
            )
        scale = given if self.scale is None else self.scale
        assert scale is not None
        return scale

    def _edge_rows(self) -> list[tuple[int, int]]:
        rows: list[tuple[int, int]] = []
        first = 0
        for tree in self.trees:
            row = {node: first + k for k, node in enumerate(tree.node_ids)}
            first += len(tree.node_ids)
            for a, b in tree.edges:
                if a not in row or b not in row:
                    raise InputError(
                        f"{self.source}: tree {tree.id} has an edge {a} to {b}, but no node "
                        f"{b if a in row else a}: remove the edge or add the node"
                    )
                rows.append((row[a], row[b]))
        return rows
