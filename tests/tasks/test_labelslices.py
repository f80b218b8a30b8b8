"""Images to paint: where they lie is what `labels.yaml` says, and painting them is all that is left to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.nn.objectives.semantic import SemanticClass
from emloom.tasks.labelslices import LabelSlicesSpec, label_slices, wanted_planes
from emloom.tasks.sparselabels import open_sparse
from tests.tasks.painting import CLASSES, SHAPE, truth, write_raw

BOX = Box((4, 6, 8), (20, 24, 30))


def test_what_is_painted_on_the_images_lies_where_they_were_cut(tmp_path: Path) -> None:
    path = write_raw(tmp_path)
    out = tmp_path / "slices"
    words = ["label-slices", path, "--plane", "z=9,12", "--plane", "y=20", "--plane", "x=17", "--group", "cube"]
    words += ["--box", "4:24,6:30,8:38", "--classes", ",".join(CLASSES), "-o", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    raw = open_volume(path)
    expected = np.zeros(SHAPE, np.uint8)
    for name, axis, at in (("z_0009", 0, 9), ("z_0012", 0, 12), ("y_0020", 1, 20), ("x_0017", 2, 17)):
        plane = [*BOX.slices()]
        plane[axis] = slice(at, at + 1)
        values = truth()[tuple(plane)]
        expected[tuple(plane)] = values
        shown = np.asarray(Image.open(out / f"{name}_raw.png"))
        assert (shown == raw.read(raw.info.box)[tuple(plane)].squeeze(axis)).all()
        blank = Image.open(out / f"{name}.png")
        assert blank.mode == "P"
        assert not np.asarray(blank).any()
        painted = Image.frombytes("P", blank.size, np.ascontiguousarray(values).tobytes())
        painted.putpalette(blank.getpalette() or [])
        painted.save(out / f"{name}.png")
    classes = [SemanticClass(name=name, ids=(value,)) for name, value in CLASSES.items()]
    found = open_sparse(str(out / "labels.yaml"), raw.info, classes)
    assert (found.volume.read(raw.info.box) == expected).all()
    assert {piece.spec.group for piece in found.pieces} == {"cube"}


def test_planes_outside_and_words_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    spec = LabelSlicesSpec(
        raw=write_raw(tmp_path), output=str(tmp_path / "s"), planes=wanted_planes(["z=40"]), classes=("a", "b")
    )
    with pytest.raises(InputError, match="the plane z = 40 leaves"):
        label_slices(spec)
    with pytest.raises(InputError, match="named twice"):
        label_slices(spec.model_copy(update={"planes": wanted_planes(["z=4", "z=4"])}))
    assert not (tmp_path / "s").exists()
    for word in ("q=3", "z", "z=1,", "z=-1"):
        with pytest.raises(InputError, match="is not understood"):
            wanted_planes([word])
