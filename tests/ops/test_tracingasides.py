"""Whoever opens a file is told what lies in it beside its skeletons."""

from __future__ import annotations

from dataclasses import replace

from emloom.geometry.elements import Attachment, Element
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Others, Tracing
from emloom.ops.tracingasides import asides

BARE = Tracing.of(Skeletons.from_trees([(1, [[0, 0, 0]], [])]), (1, 1, 1))
VOLUME = Element.of("volume", {"name": "cells", "location": "data.zip"})
STRAYS = Element("comments", (), (Element.of("comment", {"node": "99", "content": "?"}),))


def test_bare_skeletons_have_no_asides() -> None:
    meta = Element.of("meta", {"name": "writer"})
    assert asides(BARE) == ()
    assert asides(replace(BARE, others=Others((meta,), {0: (Element("metadata"),)}))) == ()


def test_volume_layers_and_other_files_are_named() -> None:
    t = replace(BARE, others=Others((VOLUME,)), attachments=(Attachment("data.zip", "a.zip", 5),))
    assert asides(t) == ("the volume layer cells: its voxels, in data.zip, are not read",)
    assert asides(replace(t, attachments=())) == (
        "the volume layer cells: its voxels, in data.zip, which is not beside it, are not read",
    )
    more = replace(t, attachments=(*t.attachments, Attachment("readme", "a.zip", 5)))
    assert asides(more)[1] == "1 other files beside it in the archive: readme"
    assert asides(more.without_attachments()) == ()


def test_what_nobody_can_place_is_named() -> None:
    t = replace(
        BARE,
        others=Others((STRAYS, Element("layer")), {0: (Element("extra"),)}),
        trees=BARE.trees.replaced("groupId", [4]),
    )
    assert asides(t) == (
        "comments or branch points on 1 nodes that do not exist, or exist in several trees: 99",
        "trees in groups that are not listed: 4",
        "2 elements that emloom does not know: extra, layer",
    )
