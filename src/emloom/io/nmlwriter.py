"""A `Tracing` becomes the text of an NML file, in the layout of webKnossos: one element per line.

What was read is written as it was spelled; see `emloom.geometry.tracings`. Trees are written in the order of
their rows, the nodes and edges of each in the order of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from emloom.errors import InputError
from emloom.geometry.columns import Columns, Texts, as_texts
from emloom.geometry.elements import Element, Group, stands_last
from emloom.geometry.skeletons import Rows
from emloom.geometry.tracings import Marks, Tracing
from emloom.io.coordinates import coordinate_texts
from emloom.io.nmlscale import with_scale

# Name of XML 1.0, fifth edition.
_FIRST = (
    ":A-Z_a-z\xc0-\xd6\xd8-\xf6\xf8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c\u200d\u2070-\u218f\u2c00-\u2fef"
    "\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff"
)
_NAME = re.compile(f"[{_FIRST}][{_FIRST}0-9.\xb7\u0300-\u036f\u203f\u2040-]*")
_SPECIAL = re.compile(r"[&<>\"\n\r\t]")
# What XML 1.0 cannot hold, not even escaped.
_IMPOSSIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ENTITIES = {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}


def nml_lines(tracing: Tracing) -> Iterator[str]:
    """Yield the text of the file, in pieces that end with a line.

    Raises:
        InputError: a text holds characters that XML cannot, an attribute has no valid name, or a comment or
            branch point is on a node whose id another tree has too.
    """
    _refuse_ambiguous(tracing)
    in_nm = _in_unit_of_scale(tracing)
    document = tracing.others.document
    root = [pair for element in document if element.tag == "things" for pair in element.attributes]
    inside = [element for element in document if element.tag != "things"]
    yield f'<?xml version="1.0" encoding="utf-8"?>\n<things{_attributes(root)}>\n'
    yield from (_element(element, 1) for element in inside if not stands_last(element))
    yield "  <parameters>\n"
    yield from (_element(element, 2) for element in in_nm.parameters)
    yield "  </parameters>\n"
    yield from _trees(in_nm)
    yield from _marks("branchpoint", "id", tracing.branchpoints, tracing)
    yield from _marks("comment", "node", tracing.comments, tracing)
    yield from _groups(tracing.groups)
    yield from (_element(element, 1) for element in inside if stands_last(element))
    yield "</things>\n"


def _refuse_ambiguous(tracing: Tracing) -> None:
    ids = tracing.skeletons.node_ids
    marked = np.concatenate([tracing.comments.rows, tracing.branchpoints.rows])
    if not marked.size:
        return
    values, counts = np.unique(ids, return_counts=True)
    repeated = marked[counts[np.searchsorted(values, ids[marked])] > 1]
    if repeated.size:
        raise InputError(
            f"{tracing.source} has a comment or branch point on node {ids[repeated[0]]}, an id that stands in "
            "several trees: give every node its own, emloom.ops.tracingedit.renumbered"
        )


def _in_unit_of_scale(tracing: Tracing) -> Tracing:
    """Return the tracing with a scale that means its voxel size, and radii in the unit of that scale."""
    parameters = with_scale(tracing.parameters, tracing.voxel_size_nm, tracing.radius_unit_nm)
    made = replace(tracing, parameters=parameters)
    if tracing.radius_unit_nm == 1 or parameters == tracing.parameters or "radius" not in tracing.nodes:
        return made
    return replace(made, nodes=made.nodes.replaced("radius", tracing.radii_nm), radius_unit_nm=1.0)


# ---- trees ----------------------------------------------------------------------------------------------------


def _trees(tracing: Tracing) -> Iterator[str]:
    skeletons = tracing.skeletons
    heads = _heads(_named(tracing), "id", skeletons.ids.tolist())
    nodes = _heads(_placed(tracing), "id", skeletons.node_ids.tolist())
    _close(nodes, tracing)
    source, target = (skeletons.node_ids[skeletons.edges[:, end]].tolist() for end in (0, 1))
    tails = _joined(tracing.edges)
    edges = as_texts(
        [f'source="{a}" target="{b}"{tail}' for a, b, tail in zip(source, target, tails, strict=True)]
    )
    k = len(skeletons.ids)
    of_node, first_node = _by_tree(skeletons.skeletons, k)
    of_edge, first_edge = _by_tree(skeletons.skeletons[skeletons.edges[:, 0]], k)
    sorted_nodes, sorted_edges = nodes[of_node].tolist(), edges[of_edge].tolist()
    for row, head in enumerate(heads):
        yield f"  <thing {head}>\n    <nodes>\n"
        yield _lines("      <node ", sorted_nodes[first_node[row] : first_node[row + 1]], ">\n")
        yield "    </nodes>\n    <edges>\n"
        yield _lines("      <edge ", sorted_edges[first_edge[row] : first_edge[row + 1]], " />\n")
        yield "    </edges>\n"
        yield from (_element(element, 2) for element in tracing.others.trees.get(row, ()))
        yield "  </thing>\n"


def _by_tree(whose: Rows, k: int) -> tuple[Rows, list[int]]:
    """Return the rows tree by tree, in their order within each, and where each tree starts."""
    order = np.argsort(whose, kind="stable")
    return order, np.searchsorted(whose[order], np.arange(k + 1)).tolist()


def _lines(before: str, bodies: list[str], after: str) -> str:
    return before + f"{after}{before}".join(bodies) + after if bodies else ""


def _close(nodes: Texts, tracing: Tracing) -> None:
    """End each node's text, with the elements inside it where it has some."""
    nodes += " /"
    for row, inside in tracing.others.nodes.items():
        body = "".join(_element(element, 4) for element in inside)
        nodes[row] = f"{nodes[row][:-2]}>\n{body}      </node"


def _named(tracing: Tracing) -> Columns:
    """Return the attributes of trees with their names: absent stays absent where the name is empty."""
    spelled, names = tracing.trees["name"], tracing.skeletons.names
    texts = [old if (old or "") == name else name for old, name in zip(spelled, names, strict=True)]
    if "name" in tracing.trees or any(names):
        return _set(tracing.trees, "name", as_texts(texts))
    return tracing.trees


def _placed(tracing: Tracing) -> Columns:
    """Return the attributes of nodes with their coordinates."""
    columns = tracing.nodes
    for axis, name in ((2, "x"), (1, "y"), (0, "z")):
        texts = coordinate_texts(
            tracing.skeletons.positions_nm[:, axis], tracing.voxel_size_nm[axis], columns[name]
        )
        columns = _set(columns, name, texts)
    return columns


def _set(columns: Columns, name: str, texts: Texts) -> Columns:
    """Return the columns with one set where it stands, or last."""
    return Columns(columns.n, {**columns.texts, name: texts})


def _heads(columns: Columns, key: str, ids: Sequence[int]) -> Texts:
    """Return ``id="7" x="1" ...`` for each row."""
    if key in columns:
        raise InputError(f"the column {key!r} is written from the ids: remove it, or give it another name")
    return as_texts([f'{key}="{number}"{tail}' for number, tail in zip(ids, _joined(columns), strict=True)])


def _joined(columns: Columns) -> list[str]:
    """Return the attributes of each row, each with a blank before it."""
    if not columns.texts:
        return [""] * columns.n
    pieces = []
    for name, column in columns.texts.items():
        start = f' {_checked_name(name)}="'
        texts = _escaped(column.tolist(), name)
        pieces.append(["" if text is None else f'{start}{text}"' for text in texts])
    return list(map("".join, zip(*pieces, strict=True)))


# ---- the rest -------------------------------------------------------------------------------------------------


def _marks(tag: str, key: str, marks: Marks, tracing: Tracing) -> Iterator[str]:
    bodies = _heads(marks.columns, key, tracing.skeletons.node_ids[marks.rows].tolist())
    yield f"  <{tag}s>\n"
    yield _lines(f"    <{tag} ", bodies.tolist(), " />\n")
    yield f"  </{tag}s>\n"


def _groups(groups: tuple[Group, ...]) -> Iterator[str]:
    inside: dict[int | None, list[Group]] = {}
    for group in groups:
        inside.setdefault(group.parent, []).append(group)

    def element(group: Group) -> Element:
        children = tuple(element(child) for child in inside.get(group.id, ()))
        attributes = {**dict(group.attributes), "id": str(group.id), "name": group.name}
        return Element("group", tuple(attributes.items()), (*group.others, *children))

    yield "  <groups>\n"
    yield from (_element(element(group), 2) for group in inside.get(None, ()))
    yield "  </groups>\n"


def _element(element: Element, depth: int) -> str:
    blank = "  " * depth
    head = f"{blank}<{_checked_name(element.tag)}{_attributes(element.attributes)}"
    if not element.children:
        text = _escape(element.text, element.tag)
        return f"{head}>{text}</{element.tag}>\n" if text else f"{head} />\n"
    body = "".join(_element(child, depth + 1) for child in element.children)
    text = _escape(element.text, element.tag)
    return f"{head}>{text}\n{body}{blank}</{element.tag}>\n"


def _attributes(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f' {_checked_name(name)}="{_escape(text, name)}"' for name, text in dict(pairs).items())


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be the name of an attribute or element: start with a letter, no blanks")
    return name


def _escaped(column: list[str | None], name: str) -> list[str | None]:
    # One search in all texts at once: nearly always there is nothing to do.
    everything = "".join(text for text in column if text is not None)
    if _SPECIAL.search(everything) or _IMPOSSIBLE.search(everything):
        return [None if text is None else _escape(text, name) for text in column]
    return column


def _escape(text: str, name: str) -> str:
    wrong = _IMPOSSIBLE.search(text)
    if wrong:
        raise InputError(
            f"the {name} {text[:40]!r} holds the character {wrong.group()!r}, which XML cannot: remove it"
        )
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    for character, entity in _ENTITIES.items():
        escaped = escaped.replace(character, entity)
    return escaped
