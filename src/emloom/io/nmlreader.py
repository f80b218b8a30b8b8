"""The elements of one NML file become a `Tracing`: a stream of start and end tags, whatever their order.

Nothing is dropped. An element or attribute that is not understood is kept where it stood (`Others`); a comment or
branch point whose node does not exist, or exists in several trees, too, because nobody can say whom it is about.

Files of strangers are safe to read: a document type declaration, the only place where entities can be defined, is
refused, so nothing expands and nothing is fetched; an element of over `LARGEST_ELEMENT` bytes, elements nested
deeper than `DEEPEST`, too many different attributes (`emloom.io.nmlrows`) and more than `MOST_NODES` nodes are
refused while they are read, not after.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import replace
from xml.parsers import expat

import numpy as np

from emloom.errors import InputError
from emloom.geometry.columns import Columns, as_texts
from emloom.geometry.elements import Element, Group, stands_last
from emloom.geometry.grid import Vec3
from emloom.geometry.skeletons import Ids, Rows, Skeletons
from emloom.geometry.tracings import Marks, Others, Tracing
from emloom.io.nmlrows import AttributeRows, Values, refuse_many
from emloom.io.nmlscale import read_scale

LARGEST_ELEMENT = 4 << 20
"""Bytes of one tag with its attributes: a comment may be a letter, not a library."""
DEEPEST = 100
"""Elements inside each other: groups nest, but a person can still find what is in them."""
MOST_NODES = 50_000_000
"""Nodes of one file: more do not fit in the memory of most machines."""

_LARGEST_ID = 2**64 - 1
_UNKNOWN = "?"
_CONTAINERS = {"things": ("parameters", "branchpoints", "comments", "groups"), "thing": ("nodes", "edges")}
_INSIDE = {"branchpoints": "branchpoint", "comments": "comment", "groups": "group", "group": "group"}


def parse(chunks: Iterable[bytes], source: str, given: Vec3 | None) -> Tracing:
    """Read the tracing that the bytes of an NML file describe.

    Args:
        chunks: the bytes, in pieces.
        source: path shown in messages.
        given: voxel size (z, y, x) in nm, for a file that does not state its scale.

    Raises:
        InputError: as `emloom.io.nml.read_nml_tracing`.
    """
    parser = expat.ParserCreate()
    reader = _Reader(source, parser)
    since = 0
    try:
        for chunk in chunks:
            reader.progress = False
            parser.Parse(chunk, False)
            since = 0 if reader.progress else since + len(chunk)
            if since > LARGEST_ELEMENT:
                raise InputError(
                    f"{source}, line {parser.CurrentLineNumber}: an element is larger than {LARGEST_ELEMENT} "
                    "bytes: no tracing has such; shorten it"
                )
        parser.Parse(b"", True)
    except expat.ExpatError as problem:
        raise InputError(f"{source} is not readable as XML ({problem}): export the tracing again") from problem
    return reader.tracing(given)


class _Reader:
    """Receives the tags of one file, in order; `open_` says what each open one is, `_UNKNOWN` inside others."""

    def __init__(self, source: str, parser: expat.XMLParserType) -> None:
        self.source, self.parser = source, parser
        self.progress = False
        self.open_ = [""]
        self.kept: list[tuple[str, Values, list[Element], list[str]]] = []
        self.keep: Callable[[Element], None] = self._keep_in_document
        self.tree_ids: list[int] = []
        self.trees, self.nodes = AttributeRows(source), AttributeRows(source)
        # Of nodes and edges only numbers are kept, eight bytes each.
        self.node_ids, self.xyz, self.ends = array("Q"), array("d"), array("Q")
        self.first_node: list[int] = []
        self.first_edge: list[int] = []
        self.edge_values: dict[int, Values] = {}
        self.marks: dict[str, list[Values]] = {"comment": [], "branchpoint": []}
        self.groups: list[Group] = []
        self.inside_groups: list[int] = []
        self.parameters: list[Element] = []
        self.document: list[Element] = []
        self.of_tree: dict[int, list[Element]] = {}
        self.of_node: dict[int, list[Element]] = {}
        self.of_group: dict[int, list[Element]] = {}
        parser.buffer_text = True
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.text
        parser.StartDoctypeDeclHandler = self.refuse_doctype

    def refuse_doctype(self, *_: object) -> None:
        raise InputError(
            f"{self.source} declares a document type, which can define entities: an NML file has none; remove it"
        )

    # ---- tags -------------------------------------------------------------------------------------------------

    def start(self, tag: str, values: Values) -> None:
        self.progress = True
        where = self.open_[-1]
        if tag == "node" and where == "nodes":
            self._node(values)
        elif tag == "edge" and where == "edges":
            self._edge(values)
        elif len(self.open_) > DEEPEST:
            raise InputError(
                f"{self.source}, line {self.parser.CurrentLineNumber}: elements are nested deeper than {DEEPEST}: "
                "no tracing is; export it again"
            )
        else:
            tag = self._other(where, tag, values)
        self.open_.append(tag)

    def end(self, tag: str) -> None:
        self.progress = True
        where = self.open_.pop()
        if where == _UNKNOWN:
            name, values, children, texts = self.kept.pop()
            element = Element(name, tuple(values.items()), tuple(children), "".join(texts).strip())
            if self.kept:
                self.kept[-1][2].append(element)
            else:
                self.keep(element)
        elif where == "group":
            self.inside_groups.pop()

    def text(self, text: str) -> None:
        if self.open_[-1] == _UNKNOWN:
            self.kept[-1][3].append(text)
        elif not text.isspace():
            raise InputError(
                f"{self.source}, line {self.parser.CurrentLineNumber}: the text {text.strip()[:40]!r} stands "
                f"inside <{self.open_[-1] or 'nothing'}>, but NML has attributes only: remove it"
            )

    def _other(self, where: str, tag: str, values: Values) -> str:
        """Open an element that is no node and no edge; return what it is."""
        if where == "":
            return self._root(tag, values)
        if where == "things" and tag == "thing":
            self.tree_ids.append(self._id(tag, values, "id"))
            self.first_node.append(len(self.node_ids))
            self.first_edge.append(len(self.ends) // 2)
            self.trees.add(values)
            return tag
        if tag in _CONTAINERS.get(where, ()):
            if values:
                self._keep_for(where)(Element.of(tag, values))
            return tag
        if _INSIDE.get(where) == tag:
            if tag == "group":
                self._group(values)
            else:
                self.marks[tag].append(values)
            return tag
        if where == "thing" and tag in ("node", "edge"):
            raise InputError(
                f"{self.source}, line {self.parser.CurrentLineNumber}: a <{tag}> stands in <thing>, not in the "
                f"<{tag}s> of it: mend the file"
            )
        if where != _UNKNOWN:
            self.keep = self._keep_for(where)
        self.kept.append((tag, values, [], []))
        return _UNKNOWN

    def _root(self, tag: str, values: Values) -> str:
        if tag != "things":
            raise InputError(f"{self.source} is not an NML file: its root element is not <things>")
        if values:
            self._keep_in_document(Element.of(tag, values))
        return tag

    def _node(self, values: Values) -> None:
        try:
            self.node_ids.append(int(values["id"]))
            self.xyz.extend((float(values["x"]), float(values["y"]), float(values["z"])))
        except (KeyError, ValueError, OverflowError):
            self._id("node", values, "id")
            self._refuse_coordinates(values)
        del values["id"]
        self.nodes.add(values)
        if len(self.node_ids) > MOST_NODES:
            raise InputError(f"{self.source} has more than {MOST_NODES} nodes: split it into several files")

    def _edge(self, values: Values) -> None:
        try:
            self.ends.extend((int(values["source"]), int(values["target"])))
        except (KeyError, ValueError, OverflowError):
            self._id("edge", values, "source")
            self._id("edge", values, "target")
        if len(values) > 2:
            del values["source"], values["target"]
            self.edge_values[len(self.ends) // 2 - 1] = values

    def _group(self, values: Values) -> None:
        number = self._id("group", values, "id")
        name = values.pop("name", "")
        del values["id"]
        parent = self.groups[self.inside_groups[-1]].id if self.inside_groups else None
        self.inside_groups.append(len(self.groups))
        self.groups.append(Group(number, name, parent, tuple(values.items())))

    # ---- what is kept without being understood ----------------------------------------------------------------

    def _keep_for(self, where: str) -> Callable[[Element], None]:
        """Return who keeps an element inside a known one."""
        if where == "things":
            return self._keep_in_document
        if where == "parameters":
            return self.parameters.append
        if where == "thing":
            return self._keep_in_tree
        if where in ("nodes", "edges", "edge"):
            container = "nodes" if where == "nodes" else "edges"
            return lambda element: self._keep_in_tree(Element(container, (), (element,)))
        if where == "node":
            return self._keep_in_node
        if where == "group":
            return self._keep_in_group
        return lambda element: self._keep_in_document(Element(where, (), (element,)))

    def _keep_in_document(self, element: Element) -> None:
        self.document.append(element)

    def _keep_in_tree(self, element: Element) -> None:
        self.of_tree.setdefault(len(self.tree_ids) - 1, []).append(element)

    def _keep_in_node(self, element: Element) -> None:
        self.of_node.setdefault(len(self.node_ids) - 1, []).append(element)

    def _keep_in_group(self, element: Element) -> None:
        self.of_group.setdefault(self.inside_groups[-1], []).append(element)

    # ---- numbers ----------------------------------------------------------------------------------------------

    def _refuse_coordinates(self, values: Values) -> None:
        for key in "xyz":
            try:
                float(values[key])
            except (KeyError, ValueError):
                raise InputError(f"{self._wrong('node', values, key)}: give a number") from None

    def _id(self, element: str, values: Values, key: str) -> int:
        try:
            number = int(values[key])
        except (KeyError, ValueError):
            number = -1
        if not 0 <= number <= _LARGEST_ID:
            raise InputError(f"{self._wrong(element, values, key)}: give a whole number, at least 0")
        return number

    def _wrong(self, element: str, values: Values, key: str) -> str:
        given = values.get(key)
        shown = repr(given if given is None or len(given) < 60 else given[:57] + "...")
        return f"{self.source}, line {self.parser.CurrentLineNumber}: <{element}> has {key}={shown}"

    # ---- the whole --------------------------------------------------------------------------------------------

    def tracing(self, given: Vec3 | None) -> Tracing:
        """Return what was read, in nm."""
        size, unit = read_scale(self.parameters, given, self.source)
        trees = self.trees.columns()
        xyz = np.array(self.xyz, np.float64).reshape(-1, 3)
        node_ids = np.array(self.node_ids, np.uint64)
        whose = _repeated(self.first_node, len(node_ids))
        skeletons = Skeletons(
            np.array(self.tree_ids, np.uint64),
            whose,
            node_ids,
            xyz[:, ::-1] * np.array(size),
            self._edge_rows(whose, node_ids),
            tuple(name or "" for name in trees["name"]),
            self.source,
        )
        comments, branchpoints = (
            self._marks(tag, key, node_ids) for tag, key in (("comment", "node"), ("branchpoint", "id"))
        )
        return Tracing(
            skeletons,
            size,
            self.nodes.columns(),
            trees.replaced("id", None),
            self._edge_columns(),
            comments,
            branchpoints,
            tuple(replace(g, others=tuple(self.of_group.get(k, ()))) for k, g in enumerate(self.groups)),
            tuple(self.parameters),
            Others(tuple(sorted(self.document, key=stands_last)), _tuples(self.of_tree), _tuples(self.of_node)),
            (),
            unit,
        )

    def _edge_rows(self, whose: Rows, node_ids: Ids) -> Rows:
        """Return the rows [E, 2] of the nodes that edges name, each in the tree of its edge."""
        ends = np.array(self.ends, np.uint64).reshape(-1, 2)
        trees = _repeated(self.first_edge, len(ends))
        ids, code = np.unique(node_ids, return_inverse=True)
        # One number for each pair of tree and id; one more than there are stands for ids of no node.
        n = len(ids) + 1
        order = np.argsort(whose * n + code, kind="stable")
        known = (whose * n + code)[order]
        at = np.searchsorted(ids, ends)
        at[np.append(ids, 0).astype(np.uint64)[at] != ends] = len(ids)
        wanted = trees[:, None] * n + at
        place = np.searchsorted(known, wanted)
        missing = np.append(known, -1)[place] != wanted
        if missing.any():
            row, end = np.argwhere(missing)[0]
            a, b = ends[row]
            raise InputError(
                f"{self.source}: tree {self.tree_ids[trees[row]]} has an edge {a} to {b}, but no node "
                f"{ends[row, end]}: remove the edge or add the node"
            )
        rows: Rows = order[place]
        return rows

    def _edge_columns(self) -> Columns:
        names = dict.fromkeys(name for values in self.edge_values.values() for name in values)
        refuse_many(names, self.source)
        n = len(self.ends) // 2
        return Columns(
            n, {name: as_texts([self.edge_values.get(k, {}).get(name) for k in range(n)]) for name in names}
        )

    def _marks(self, tag: str, key: str, node_ids: Ids) -> Marks:
        """Return the comments or branch points; those nobody can place are kept in the document."""
        listed = self.marks[tag]
        if not listed:
            return Marks()
        ids, first, counts = np.unique(node_ids, return_index=True, return_counts=True)
        row_of = dict(zip(map(str, ids[counts == 1].tolist()), first[counts == 1].tolist(), strict=True))
        rows, found = [], AttributeRows(self.source)
        for values in listed:
            row = row_of.get(values.get(key, "").strip(), -1)
            if row == -1:
                self._keep_in_document(Element(f"{tag}s", (), (Element.of(tag, values),)))
            else:
                del values[key]
                rows.append(row)
                found.add(values)
        return Marks(np.array(rows, np.int64), found.columns())


def _tuples(lists: dict[int, list[Element]]) -> dict[int, tuple[Element, ...]]:
    return {row: tuple(elements) for row, elements in lists.items()}


def _repeated(first: list[int], n: int) -> Rows:
    """Return, for each of n rows, which of the parts it is in that start at these rows."""
    starts = np.array([*first, n], np.int64)
    return np.repeat(np.arange(len(first)), starts[1:] - starts[:-1]).astype(np.int64)
