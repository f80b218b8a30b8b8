"""The elements of one NML file become a `Tracing`: a stream of start and end tags, whatever their order.

Nothing is dropped. An element or attribute that is not understood is kept where it stood (`Others`); a comment or
branch point whose node does not exist, or exists in several trees, too, because nobody can say whom it is about.

Files of strangers are safe to read: a document type declaration, the only place where entities can be defined, is
refused, so nothing expands and nothing is fetched; an element of over `LARGEST_ELEMENT` bytes, elements nested
deeper than `DEEPEST`, more than `MOST_ATTRIBUTES` and more than `MOST_NODES` are refused while they are read, not
after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from xml.parsers import expat

import numpy as np

from emloom.errors import InputError
from emloom.geometry.columns import Columns, as_texts, stacked
from emloom.geometry.elements import Element, Group, stands_last
from emloom.geometry.grid import Vec3
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Others, Tracing
from emloom.io.nmlscale import read_scale

LARGEST_ELEMENT = 4 << 20
"""Bytes of one tag with its attributes: a comment may be a letter, not a library."""
DEEPEST = 100
"""Elements inside each other: groups nest, but a person can still find what is in them."""
MOST_ATTRIBUTES = 200
"""Different attributes of nodes, trees or edges: each is a column, with a place for every row."""
MOST_NODES = 50_000_000
"""Nodes of one file: more do not fit in the memory of most machines."""

_LARGEST_ID = 2**64 - 1
_AT_ONCE = 1 << 16
_UNKNOWN = "?"
_CONTAINERS = {"things": ("parameters", "branchpoints", "comments", "groups"), "thing": ("nodes", "edges")}
_INSIDE = {"branchpoints": "branchpoint", "comments": "comment", "groups": "group", "group": "group"}
Values = dict[str, str]


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


class _Rows:
    """Attributes of many elements, gathered into columns a batch at a time to save memory."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.batch: list[Values] = []
        self.parts: list[Columns] = []

    def add(self, values: Values) -> None:
        self.batch.append(values)
        if len(self.batch) == _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        names: dict[str, None] = {}
        keys: object = None
        for values in self.batch:
            if values.keys() != keys:
                keys = values.keys()
                names |= dict.fromkeys(values)
                _refuse_many(names, self.source)
        texts = {name: as_texts(_shared([values.get(name) for values in self.batch])) for name in names}
        self.parts.append(Columns(len(self.batch), texts))
        self.batch = []

    def columns(self) -> Columns:
        self.flush()
        _refuse_many(dict.fromkeys(name for part in self.parts for name in part.texts), self.source)
        return self.parts[0] if len(self.parts) == 1 else stacked(self.parts)


def _refuse_many(names: dict[str, None], source: str) -> None:
    if len(names) > MOST_ATTRIBUTES:
        raise InputError(
            f"the elements of {source} have more than {MOST_ATTRIBUTES} different attributes, {list(names)[-1]!r} "
            "the last: no tracing has; export it again"
        )


def _shared(column: list[str | None]) -> list[str | None]:
    """Return the column with equal texts as one object, where many are equal."""
    one_of = {text: text for text in column}
    return column if 4 * len(one_of) > len(column) else [one_of[text] for text in column]


class _Reader:
    """Receives the tags of one file, in order; `open_` says what each open one is, `_UNKNOWN` inside others."""

    def __init__(self, source: str, parser: expat.XMLParserType) -> None:
        self.source, self.parser = source, parser
        self.progress = False
        self.open_ = [""]
        self.kept: list[tuple[str, Values, list[Element], list[str]]] = []
        self.keep: Callable[[Element], None] = self._keep_in_document
        self.tree_ids: list[int] = []
        self.trees, self.nodes = _Rows(source), _Rows(source)
        self.node_ids: list[int] = []
        self.whose: list[int] = []
        self.xyz: list[tuple[float, float, float]] = []
        self.ends: list[tuple[int, int]] = []
        self.edge_tree: list[int] = []
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
        self.node_ids.append(self._id("node", values, "id"))
        number = self._number
        self.xyz.append((number(values, "x"), number(values, "y"), number(values, "z")))
        self.whose.append(len(self.tree_ids) - 1)
        self.nodes.add(values)
        if len(self.node_ids) > MOST_NODES:
            raise InputError(f"{self.source} has more than {MOST_NODES} nodes: split it into several files")

    def _edge(self, values: Values) -> None:
        self.ends.append((self._id("edge", values, "source"), self._id("edge", values, "target")))
        self.edge_tree.append(len(self.tree_ids) - 1)
        if len(values) > 2:
            del values["source"], values["target"]
            self.edge_values[len(self.ends) - 1] = values

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

    def _number(self, values: Values, key: str) -> float:
        try:
            return float(values[key])
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
        skeletons = Skeletons(
            np.array(self.tree_ids, np.uint64),
            np.array(self.whose, np.int64),
            np.array(self.node_ids, np.uint64),
            xyz[:, ::-1] * np.array(size),
            np.array(self._edge_rows(), np.int64).reshape(-1, 2),
            tuple(name or "" for name in trees["name"]),
            self.source,
        )
        comments, branchpoints = self._marks("comment", "node"), self._marks("branchpoint", "id")
        return Tracing(
            skeletons,
            size,
            self.nodes.columns().replaced("id", None),
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

    def _edge_rows(self) -> list[tuple[int, int]]:
        row_of: dict[int, dict[int, int]] = {}
        for row, (tree, node) in enumerate(zip(self.whose, self.node_ids, strict=True)):
            row_of.setdefault(tree, {})[node] = row
        none: dict[int, int] = {}
        rows = []
        for tree, (a, b) in zip(self.edge_tree, self.ends, strict=True):
            rows_of_tree = row_of.get(tree, none)
            if a not in rows_of_tree or b not in rows_of_tree:
                raise InputError(
                    f"{self.source}: tree {self.tree_ids[tree]} has an edge {a} to {b}, but no node "
                    f"{b if a in rows_of_tree else a}: remove the edge or add the node"
                )
            rows.append((rows_of_tree[a], rows_of_tree[b]))
        return rows

    def _edge_columns(self) -> Columns:
        names = dict.fromkeys(name for values in self.edge_values.values() for name in values)
        _refuse_many(names, self.source)
        n = len(self.ends)
        return Columns(
            n, {name: as_texts([self.edge_values.get(k, {}).get(name) for k in range(n)]) for name in names}
        )

    def _marks(self, tag: str, key: str) -> Marks:
        """Return the comments or branch points; those nobody can place are kept in the document."""
        listed = self.marks[tag]
        if not listed:
            return Marks()
        row_of: dict[str, int] = {}
        for row, node in enumerate(self.node_ids):
            row_of[str(node)] = -1 if str(node) in row_of else row
        rows, found = [], _Rows(self.source)
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
