"""GraphML (http://graphml.graphdrawing.org), the format that Gephi, Cytoscape, igraph and networkx read.

Columns become attributes of nodes and edges; their types are GraphML's::

    whole numbers  long        floating point  double        text  string

A node's id is written as its text. GraphML has no unsigned numbers: ids are below 2^63 here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.io.files import staged

Columns = Mapping[str, NDArray[Any]]

_NAMESPACE = "http://graphml.graphdrawing.org/xmlns"
_TYPES = {"u": "long", "i": "long", "f": "double", "U": "string", "O": "string"}


def write_graphml(
    path: str | Path, nodes: Columns, edges: Columns, ends: tuple[str, str], *, overwrite: bool = False
) -> None:
    """Write a directed graph; a reader sees the whole file or none.

    Args:
        path: the file, by custom ``.graphml``.
        nodes: columns of one length, the first of them the ids of the nodes.
        edges: columns of one length.
        ends: which columns of the edges are ids of nodes: (from, to).
        overwrite: replace a file that is there.

    Raises:
        InputError: the file exists, an element type has no place in GraphML, an edge has an end that is no node,
            or the disk refuses.
    """
    key, *attributes = nodes
    _require_ends(path, nodes[key], [edges[end] for end in ends])
    of_edges = [name for name in edges if name not in ends]
    declared = [*((name, nodes[name], "node") for name in attributes), *((n, edges[n], "edge") for n in of_edges)]
    with (
        staged(path, overwrite=overwrite) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        xml = XMLGenerator(file, "utf-8", short_empty_elements=True)
        xml.startDocument()
        _start(xml, "graphml", xmlns=_NAMESPACE)
        for name, column, what in declared:
            xml.characters("\n  ")
            words = {"for": what, "attr.name": name, "attr.type": _type(name, column)}
            _start(xml, "key", id=f"{what}_{name}", **words)
            xml.endElement("key")
        xml.characters("\n  ")
        _start(xml, "graph", edgedefault="directed")
        for number, *values in _rows(nodes, [key, *attributes]):
            _element(xml, "node", {"id": str(number)}, [f"node_{name}" for name in attributes], values)
        for start, end, *values in _rows(edges, [*ends, *of_edges]):
            places = {"source": str(start), "target": str(end)}
            _element(xml, "edge", places, [f"edge_{name}" for name in of_edges], values)
        xml.characters("\n  ")
        xml.endElement("graph")
        xml.characters("\n")
        xml.endElement("graphml")
        xml.endDocument()
        file.write("\n")


def _rows(columns: Columns, names: Sequence[str]) -> Any:
    return zip(*(np.asarray(columns[name]).tolist() for name in names), strict=True)


def _element(xml: XMLGenerator, tag: str, attributes: dict[str, str], keys: Sequence[str], values: Any) -> None:
    xml.characters("\n    ")
    _start(xml, tag, **attributes)
    for key, value in zip(keys, values, strict=True):
        _start(xml, "data", key=key)
        xml.characters(str(value))
        xml.endElement("data")
    xml.endElement(tag)


def _start(xml: XMLGenerator, tag: str, **attributes: str) -> None:
    xml.startElement(tag, AttributesImpl(attributes))


def _type(name: str, column: NDArray[Any]) -> str:
    kind = np.asarray(column).dtype.kind
    if kind not in _TYPES:
        raise InputError(f"column {name!r} holds {np.asarray(column).dtype}: GraphML has numbers and text")
    return _TYPES[kind]


def _require_ends(path: str | Path, ids: NDArray[Any], ends: Sequence[NDArray[Any]]) -> None:
    for column in ends:
        strange = np.setdiff1d(column, ids)
        if strange.size:
            raise InputError(f"{path}: an edge ends at {strange[0]}, which is no node: list every node")
