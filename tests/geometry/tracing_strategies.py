"""Random tracings: every part of them, in small."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from emloom.geometry.columns import Columns, as_texts
from emloom.geometry.elements import Element, Group
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Others, Tracing

# What XML can hold: no control characters but tab and line breaks, no surrogates, no U+FFFE and U+FFFF.
TEXTS = st.text(
    st.one_of(
        st.sampled_from("ab1&<>\"'\n\r\t äß→😀"),
        st.characters(min_codepoint=32, exclude_categories=("Cs",), exclude_characters="\ufffe\uffff"),
    ),
    max_size=8,
)
COORDINATES = st.one_of(
    st.integers(-5, 10**6).map(str),
    st.floats(-1e6, 1e6, allow_nan=False).map(repr),
    st.sampled_from(["1.50", "007", "1e3", "-0.0", "0.1"]),
)
SCALES = st.tuples(*[st.sampled_from(["11.24", "1", "32.0", "0.3", "7.000000001"])] * 3)
_UNITS = {None: 1.0, "nanometer": 1.0, "micrometer": 1e3, "angstrom": 0.1}


def attributes(*names: str) -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    """Some of these attributes, with any texts."""
    return st.dictionaries(st.sampled_from(names), TEXTS).map(lambda found: tuple(found.items()))


def elements(*tags: str, depth: int = 2) -> st.SearchStrategy[Element]:
    """Elements nobody knows, with others inside."""
    inside = st.just(()) if depth == 0 else st.lists(elements("a", "b", depth=depth - 1), max_size=2).map(tuple)
    return st.builds(Element, st.sampled_from(tags), attributes("k", "v"), inside, TEXTS.map(str.strip))


@st.composite
def columns(draw: st.DrawFn, n: int, texts: dict[str, st.SearchStrategy[str]]) -> Columns:
    """Some of these columns, with texts missing here and there."""
    names = [name for name in texts if draw(st.booleans())]
    return Columns(n, {name: as_texts([draw(st.none() | texts[name]) for _ in range(n)]) for name in names})


@st.composite
def groups(draw: st.DrawFn) -> tuple[Group, ...]:
    """Nested groups, each after its parent and before the next group at its side."""
    ids = draw(st.lists(st.integers(0, 99), unique=True, max_size=4))
    made: list[Group] = []
    open_: list[int] = []
    for number in ids:
        open_ = open_[: draw(st.integers(0, len(open_)))]
        parent = open_[-1] if open_ else None
        others = tuple(draw(st.lists(elements("extra"), max_size=1)))
        made.append(Group(number, draw(TEXTS), parent, draw(attributes("isExpanded")), others))
        open_.append(number)
    return tuple(made)


@st.composite
def skeletons(draw: st.DrawFn, xyz: list[list[str]], size: tuple[float, ...]) -> Skeletons:
    """Trees, and things that are none: cycles, pieces, repeated edges, trees without a node."""
    n = len(xyz)
    k = draw(st.integers(1, 3)) if n else draw(st.integers(0, 2))
    whose = sorted(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))) if n else []
    ids = draw(st.lists(st.integers(0, 10**6), unique=True, min_size=k, max_size=k))
    node_ids = draw(st.lists(st.integers(0, 10**6), unique=True, min_size=n, max_size=n))
    pairs = draw(st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), max_size=8)) if n else []
    inside = sorted((p for p in pairs if whose[p[0]] == whose[p[1]]), key=lambda p: whose[p[0]])
    coordinates = np.array([[float(text) for text in row] for row in xyz], np.float64).reshape(-1, 3)
    return Skeletons(
        np.array(ids, np.uint64),
        np.array(whose, np.int64),
        np.array(node_ids, np.uint64),
        coordinates[:, ::-1] * np.array(size),
        np.array(inside, np.int64).reshape(-1, 2),
        tuple(draw(st.lists(TEXTS, min_size=k, max_size=k))),
    )


@st.composite
def marks(draw: st.DrawFn, n: int, **texts: st.SearchStrategy[str]) -> Marks:
    """Marks on some of n nodes, several on one perhaps."""
    rows = draw(st.lists(st.integers(0, n - 1), max_size=4)) if n else []
    return Marks(np.array(rows, np.int64), draw(columns(len(rows), texts)))


@st.composite
def tracings(draw: st.DrawFn) -> Tracing:
    """Tracings as a reader returns them: positions are coordinates times scale."""
    n = draw(st.integers(0, 6))
    xyz = [[draw(COORDINATES) for _ in "xyz"] for _ in range(n)]
    scale, unit = draw(SCALES), draw(st.sampled_from(list(_UNITS)))
    size = tuple(float(text) * _UNITS[unit] for text in reversed(scale))
    found = draw(skeletons(xyz, size))
    k = len(found.ids)
    spelled = {axis: as_texts([row[at] for row in xyz]) for at, axis in enumerate("xyz")} if n else {}
    numbers = st.floats(0, 1e3).map(repr)
    node = draw(columns(n, {"radius": numbers, "inVp": st.just("0"), "time": TEXTS, "rotX": numbers}))
    whole: dict[str, Any] = {"groupId": st.integers(0, 99).map(str), "color.r": numbers, "isVisible": TEXTS}
    values = dict(zip("xyz", scale, strict=True)) | ({} if unit is None else {"unit": unit})
    others = draw(st.lists(elements("meta", "volume", "layer"), max_size=3))
    active = [Element.of("activeNode", {"id": str(found.node_ids[0])})] if n and draw(st.booleans()) else []
    return Tracing(
        found,
        size,  # type: ignore[arg-type]
        Columns(n, {**spelled, **node.texts}),
        draw(columns(k, whole)),
        draw(columns(len(found.edges), {"kind": TEXTS})),
        draw(marks(n, content=TEXTS)),
        draw(marks(n, time=TEXTS)),
        draw(groups()),
        (Element.of("scale", values), *active, *draw(st.lists(elements("experiment", "time"), max_size=2))),
        Others(
            tuple(sorted(others, key=lambda element: element.tag == "volume")),
            {0: (draw(elements("metadata")),)} if k and draw(st.booleans()) else {},
            {n - 1: (draw(elements("note")),)} if n and draw(st.booleans()) else {},
        ),
        (),
        _UNITS[unit],
    )
