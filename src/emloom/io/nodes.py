"""The tree of a zarr container: groups, arrays and their attributes, as JSON files (zarr 2 and 3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from emloom.errors import InputError
from emloom.io.ngff import image_of, levels_of
from emloom.io.places import Place, Remote, above, children, exists, is_folder, read_bytes, stays_inside
from emloom.io.remote import finished, make_folder, write_metadata

MARKERS = ("zarr.json", ".zarray", ".zgroup")


@dataclass(frozen=True)
class Node:
    """One zarr group or array on disk."""

    folder: Place
    zarr_format: int
    is_array: bool
    attributes: Mapping[str, Any]
    metadata: Mapping[str, Any]

    @cached_property
    def image(self) -> Mapping[str, Any] | None:
        """The OME-NGFF image this group is; None where it is none, or where its finest level does not exist."""
        image = None if self.is_array else image_of(self.attributes)
        levels = [] if image is None else levels_of(image)
        for level in (name for name in levels if not stays_inside(name)):
            raise InputError(
                f"{self.folder}: its OME-NGFF metadata list the level {level!r}, which leads out of the image: "
                "levels lie inside; correct it, or open what it names itself"
            )
        return image if levels and is_store(self.folder / levels[0]) else None

    @cached_property
    def levels(self) -> list[str]:
        """Paths of the image's levels, finest first; empty where this node is no image."""
        return [] if self.image is None else levels_of(self.image)


def levels_said(node: Node) -> list[str]:
    """Return the paths of levels that a node's metadata list, whether they exist or not."""
    image = None if node.is_array else image_of(node.attributes)
    return [] if image is None else levels_of(image)


def is_store(folder: Place) -> bool:
    """Whether a folder is a zarr group or array."""
    return any(exists(folder / name) for name in MARKERS)


def node_at(folder: Place) -> Node | None:
    """Return the zarr node a folder is, or None."""
    meta = load_json(folder / "zarr.json")
    if meta is not None:
        attributes = meta.get("attributes") or {}
        return Node(folder, 3, meta.get("node_type") == "array", attributes, meta)
    for name in (".zarray", ".zgroup"):
        meta = load_json(folder / name)
        if meta is not None:
            return Node(folder, 2, name == ".zarray", load_json(folder / ".zattrs") or {}, meta)
    return None


def names_in(folder: Place, node: Node | None) -> list[str]:
    """Return the names of what may be nodes in a folder.

    Of a remote folder, the paths of all nodes below it that its consolidated metadata name; only the group at the
    top has such metadata.
    """
    listed = children(folder)
    if listed is not None or node is None:
        return listed or []
    if node.zarr_format == 3:
        whole: Any = node.metadata.get("consolidated_metadata")
    else:
        whole = load_json(folder / ".zmetadata")
    named = whole.get("metadata") if isinstance(whole, Mapping) else None
    if not isinstance(named, Mapping):
        return []
    paths = {str(key) for key in named}
    if node.zarr_format == 2:
        paths = {path.rpartition("/")[0] for path in paths}
    return sorted(path for path in paths if path and not path.startswith("."))


def load_json(place: Place) -> dict[str, Any] | None:
    """Return the mapping a JSON file holds, None where there is no such file.

    Raises:
        InputError: the file is damaged, or is no mapping.
    """
    text = read_bytes(place)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as problem:
        state = "is empty" if not text else f"is not valid JSON ({problem})"
        raise InputError(f"{place} {state}: the file is damaged; copy it again or write it anew") from None
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise InputError(f"{place} holds a {kind}, not a mapping: the file is damaged; copy it again")
    return data


def ensure_groups(container: Place, inner: str, zarr_format: int) -> None:
    """Make the container and the groups above `inner`, leaving those that exist.

    Above a volume that is unfinished they are only checked: they are made when it is finished.
    """
    draft = isinstance(container, Remote) and container.unfinished
    container = finished(container)
    folder = container
    for name in ["", *Path(inner).parts[:-1]]:
        folder = folder / name
        node = node_at(folder) if is_folder(folder) else None
        if node is None:
            make_folder(folder)
            if not draft:
                write_group(folder, {}, zarr_format)
        elif node.is_array:
            raise InputError(f"{folder} is an array, not a group: choose another name inside {container}")
        elif node.zarr_format != zarr_format:
            raise InputError(
                f"{container} is zarr {node.zarr_format}, and zarr {zarr_format} is asked for: one container "
                f"holds one format; pass zarr_format={node.zarr_format} or choose another container"
            )


def write_group(folder: Place, attributes: Mapping[str, Any], zarr_format: int) -> None:
    """Write the metadata of a group; existing metadata are replaced on a disk, and kept in a bucket."""
    if zarr_format == 3:
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        write_metadata(folder / "zarr.json", json.dumps(group, indent=2))
        return
    write_metadata(folder / ".zgroup", json.dumps({"zarr_format": 2}))
    if attributes:
        write_metadata(folder / ".zattrs", json.dumps(attributes, indent=2))


def image_around(node: Node) -> tuple[Node | None, str]:
    """Return the OME-NGFF image a node belongs to and the path of its level.

    The image itself stands for its finest level; an array belongs to the image that lists it. (None, "") for
    an array that is no level of any image.
    """
    if node.levels:
        return node, node.levels[0]
    if node.is_array:
        for depth, folder in enumerate(above(node.folder, 2), start=1):
            parent = node_at(folder)
            level = "/".join(node.folder.parts[-depth:])
            if parent is not None and level in parent.levels:
                return parent, level
    return None, ""


def is_unlisted(array: Node) -> bool:
    """Whether an array lies in a group whose OME-NGFF metadata describe only arrays that do not exist.

    Such metadata may have been meant for this array, so its axes and voxel size are in doubt.
    """
    parent = node_at(array.folder.parent)
    return parent is not None and not parent.levels and image_of(parent.attributes) is not None
