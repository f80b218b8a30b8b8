"""Pieces of a tracing's file as values: what is understood has a type, what is not is kept as it stands.

An `Element` is one element of XML: tag, attributes, children, text. The parameters of a tracing are elements, so
that one that emloom has never heard of is kept like any other; a `NamedBox` is made of one, and becomes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from emloom.errors import InputError
from emloom.geometry.box import Box

Attributes = tuple[tuple[str, str], ...]
_CORNER = ("topLeftZ", "topLeftY", "topLeftX")
_EXTENT = ("depth", "height", "width")
_COLOUR = ("color.r", "color.g", "color.b", "color.a")
BOX_TAGS = ("userBoundingBox", "taskBoundingBox")


@dataclass(frozen=True)
class Element:
    """An element of XML.

    Attributes:
        tag: its name.
        attributes: (name, text) in the order of the file; each name once.
        children: elements inside.
        text: characters inside, without the white space around them.
    """

    tag: str
    attributes: Attributes = ()
    children: tuple[Element, ...] = ()
    text: str = ""

    @classmethod
    def of(cls, tag: str, attributes: Mapping[str, str] | None = None, *children: Element) -> Self:
        """Return an element from a mapping of attributes and its children."""
        return cls(tag, tuple((attributes or {}).items()), children)

    def get(self, name: str) -> str | None:
        """Return the text of an attribute, None where there is none."""
        return dict(self.attributes).get(name)

    def replaced(self, **attributes: str) -> Element:
        """Return the element with attributes set; new ones stand last."""
        return replace(self, attributes=tuple({**dict(self.attributes), **attributes}.items()))

    def number(self, name: str) -> float:
        """Return an attribute as a number.

        Raises:
            InputError: it is missing or no number.
        """
        text = self.get(name)
        try:
            return float(text if text is not None else "")
        except ValueError:
            raise InputError(f"<{self.tag}> has {name}={text!r}: give a number") from None

    def whole(self, name: str) -> int:
        """Return an attribute as a whole number.

        Raises:
            InputError: it is missing or no whole number; 3.0 is one, 3.5 is not.
        """
        text = self.get(name) or ""
        if text.lstrip("-").isdecimal():
            return int(text)  # not through a float, which skips whole numbers above 2^53
        number = self.number(name)
        if not number.is_integer():
            raise InputError(f"<{self.tag}> has {name}={text!r}: give a whole number")
        return int(number)


def stands_last(element: Element) -> bool:
    """Whether an element of the whole file (`Others.document`) stands behind its trees; the others come first."""
    return element.tag in ("branchpoints", "comments", "groups", "volume")


@dataclass(frozen=True)
class Group:
    """A folder of trees, in another folder or in none.

    Attributes:
        id: each once in its tracing.
        name: may be empty, and may stand twice.
        parent: id of the group around it, None at the top.
        attributes: others, such as ``isExpanded``.
        others: elements inside that are no groups.
    """

    id: int
    name: str = ""
    parent: int | None = None
    attributes: Attributes = ()
    others: tuple[Element, ...] = ()


def nested(groups: Iterable[Group]) -> tuple[Group, ...]:
    """Return groups in the order of a file: each before those in it, and those before the next at its side."""
    inside: dict[int | None, list[Group]] = {}
    for group in groups:
        inside.setdefault(group.parent, []).append(group)
    order: list[Group] = []
    waiting = inside.get(None, [])[::-1]
    while waiting:
        order.append(waiting.pop())
        waiting += inside.get(order[-1].id, [])[::-1]
    return tuple(order)


@dataclass(frozen=True)
class NamedBox:
    """A bounding box that belongs to a tracing.

    Attributes:
        box: voxels (z, y, x) of the data set at full resolution.
        name: its name, empty where it has none.
        kind: "user" for one that the tracer drew, "task" for the one the tracer was given.
        id: number, None where it has none; several boxes may share one.
        colour: red, green, blue, opacity from 0 to 1; None where not stated.
        visible: whether it is shown; None where not stated.
    """

    box: Box
    name: str = ""
    kind: str = "user"
    id: int | None = None
    colour: tuple[float, float, float, float] | None = None
    visible: bool | None = None

    @classmethod
    def read(cls, element: Element) -> NamedBox:
        """Return the box that a ``<userBoundingBox>`` or ``<taskBoundingBox>`` describes.

        Raises:
            InputError: a corner or an extent is missing or no whole number, or an extent is negative.
        """
        start = tuple(element.whole(name) for name in _CORNER)
        shape = tuple(element.whole(name) for name in _EXTENT)
        red, green, blue = (element.get(name) for name in _COLOUR[:3])
        stated = red is not None and green is not None and blue is not None
        opacity = element.number("color.a") if element.get("color.a") is not None else 1.0
        visible = element.get("isVisible")
        return cls(
            Box((start[0], start[1], start[2]), (shape[0], shape[1], shape[2])),
            element.get("name") or "",
            element.tag.removesuffix("BoundingBox"),
            None if element.get("id") is None else element.whole("id"),
            (*(element.number(name) for name in _COLOUR[:3]), opacity) if stated else None,  # type: ignore[arg-type]
            None if visible is None else visible.lower() == "true",
        )

    def element(self) -> Element:
        """Return the element that describes this box.

        Raises:
            InputError: the kind is neither "user" nor "task".
        """
        if f"{self.kind}BoundingBox" not in BOX_TAGS:
            raise InputError(f"the box {self.name!r} is of kind {self.kind!r}: give 'user' or 'task'")
        values: dict[str, str] = {} if self.id is None else {"id": str(self.id)}
        if self.name:
            values["name"] = self.name
        if self.visible is not None:
            values["isVisible"] = "true" if self.visible else "false"
        if self.colour is not None:
            values |= {name: repr(float(part)) for name, part in zip(_COLOUR, self.colour, strict=True)}
        values |= {name: str(part) for name, part in zip(_CORNER[::-1], self.box.start[::-1], strict=True)}
        values |= {name: str(part) for name, part in zip(_EXTENT[::-1], self.box.shape[::-1], strict=True)}
        return Element.of(f"{self.kind}BoundingBox", values)


@dataclass(frozen=True)
class Attachment:
    """A file that came in the archive of a tracing and is not read: the voxels of a volume layer, say.

    Attributes:
        name: its path inside the archive.
        archive: path of the archive that holds it; it must still be there when the tracing is written.
        n_bytes: its size unpacked, as the archive states it.
    """

    name: str
    archive: str
    n_bytes: int
