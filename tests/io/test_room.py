"""What cannot fit on a disk is refused before the work, what may not is warned about."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io import room
from emloom.io.room import SHARES, free_bytes, require_room
from emloom.io.volume import Kind, VolumeInfo

LABELS = VolumeInfo((1000, 1000, 1000), np.dtype(np.uint64), Grid((8, 8, 8)), kind="labels")


def test_it_depends_on_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "deep" / "seg.zarr"
    least, usual = (round(2 * LABELS.nbytes * share) for share in SHARES["labels"])
    for free, warned in ((usual, False), (usual - 1, True), (least, True)):
        caplog.clear()
        monkeypatch.setattr(room, "free_bytes", lambda _, n=free: n)
        with caplog.at_level(logging.WARNING):
            require_room(output, [LABELS, LABELS], "take a part")
        assert bool(caplog.records) == warned
    monkeypatch.setattr(room, "free_bytes", lambda _: least - 1)
    with pytest.raises(InputError, match=rf"{output} needs at least {least} bytes.* free: .* or take a part"):
        require_room(output, [LABELS, LABELS], "take a part")
    require_room("s3://bucket/seg.zarr", [LABELS], "take a part")


def test_the_disk_is_that_of_the_nearest_folder_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Usage:
        free = 7

    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: asked.append(path) or Usage)
    assert free_bytes(tmp_path / "a" / "b" / "c.zarr") == 7
    assert asked == [tmp_path]


def test_every_kind_has_sensible_shares() -> None:
    assert set(SHARES) - {None} <= set(get_args(Kind))
    assert all(0 <= share.least < share.usual <= 1 for share in SHARES.values())
