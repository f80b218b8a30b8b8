"""What a tracing holds that no measure of skeletons sees, in words: for whoever opens a file and should know.

Nothing of it is lost: all is kept in the tracing, and written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from emloom.geometry.tracings import Tracing
from emloom.ops.tracingids import stray_ids

_KNOWN = {"meta", "volume", "things"}
_SECTIONS = {"comments", "branchpoints"}


def asides(tracing: Tracing) -> tuple[str, ...]:
    """Return one sentence for each kind of thing; empty where skeletons, and what is said of them, are all.

    Volume layers, whose voxels are not read; other files beside the tracing; comments and branch points without a
    node; trees in groups that are not listed; elements that emloom does not know.
    """
    return (*_volumes(tracing), *_files(tracing), *_strays(tracing), *_groups(tracing), *_unknown(tracing))


def _volumes(tracing: Tracing) -> list[str]:
    beside = {attachment.name for attachment in tracing.attachments}
    said = []
    for element in tracing.others.document:
        if element.tag == "volume":
            location = element.get("location")
            where = f"in {location}, " if location else ""
            there = "" if location in beside else "which is not beside it, " if location else ""
            name = element.get("name") or "without a name"
            said.append(f"the volume layer {name}: its voxels, {where}{there}are not read")
    return said


def _files(tracing: Tracing) -> list[str]:
    located = {e.get("location") for e in tracing.others.document if e.tag == "volume"}
    other = [attachment.name for attachment in tracing.attachments if attachment.name not in located]
    return [f"{len(other)} other files beside it in the archive: {_some(other)}"] if other else []


def _strays(tracing: Tracing) -> list[str]:
    ids = sorted(set(stray_ids(tracing)))
    if not ids:
        return []
    return [
        f"comments or branch points on {len(ids)} nodes that do not exist, or exist in several trees: "
        f"{_some(map(str, ids))}"
    ]


def _groups(tracing: Tracing) -> list[str]:
    listed = {group.id for group in tracing.groups}
    missing = sorted({group for group in tracing.tree_groups if group is not None} - listed)
    return [f"trees in groups that are not listed: {_some(map(str, missing))}"] if missing else []


def _unknown(tracing: Tracing) -> list[str]:
    inside = [*tracing.others.trees.values(), *tracing.others.nodes.values()]
    tags = Counter(element.tag for elements in inside for element in elements if element.tag != "metadata")
    tags += Counter(e.tag for e in tracing.others.document if e.tag not in _KNOWN | _SECTIONS)
    if not tags:
        return []
    return [f"{tags.total()} elements that emloom does not know: {_some(sorted(tags))}"]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (" ..." if len(listed) > 5 else "")
