"""Meshes, skeletons and properties of segments on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.meshfiles import (
    read_precomputed_mesh,
    write_mesh_info,
    write_obj,
    write_ply,
    write_precomputed_mesh,
)
from emloom.io.precomputedskeletons import (
    read_precomputed_skeleton,
    write_precomputed_skeleton,
    write_segment_properties,
    write_skeleton_info,
)

VERTICES = np.array([[0, 0, 0], [40, 0, 0], [0, 8.5, 0], [0, 0, 4.25]])
FACES = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])


def test_a_mesh_comes_back(tmp_path: Path) -> None:
    write_mesh_info(tmp_path / "mesh")
    names = write_precomputed_mesh(tmp_path / "mesh", 2**63, VERTICES, FACES)
    assert names == (f"{2**63}:0", f"{2**63}.mesh")
    assert json.loads((tmp_path / "mesh/info").read_text()) == {"@type": "neuroglancer_legacy_mesh"}
    vertices, faces = read_precomputed_mesh(tmp_path / "mesh", 2**63)
    np.testing.assert_array_equal(vertices, VERTICES)
    np.testing.assert_array_equal(faces, FACES)
    with pytest.raises(InputError, match="holds no mesh of segment 3"):
        read_precomputed_mesh(tmp_path / "mesh", 3)
    (tmp_path / "mesh" / names[1]).write_bytes(b"\x04\0\0\0half")
    with pytest.raises(InputError, match="is damaged"):
        read_precomputed_mesh(tmp_path / "mesh", 2**63)


def test_ply_and_obj_say_x_y_z(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", VERTICES, FACES)
    head, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 4\n" in head
    np.testing.assert_array_equal(np.frombuffer(body, "<f4", 12).reshape(4, 3), VERTICES[:, ::-1])
    rows = np.frombuffer(body[48:], [("n", "u1"), ("rows", "<i4", (3,))])
    assert rows["n"].tolist() == [3] * 4
    np.testing.assert_array_equal(rows["rows"], FACES)
    write_obj(tmp_path / "a.obj", VERTICES, FACES)
    lines = (tmp_path / "a.obj").read_text().splitlines()
    assert lines[2] == "v 0 0 40"
    assert lines[5] == "f 1 2 3"


def test_a_skeleton_comes_back(tmp_path: Path) -> None:
    edges, radii = np.array([[0, 1], [1, 2], [1, 3]]), np.array([1.0, 2.5, 3.0, 0.0])
    write_skeleton_info(tmp_path / "s")
    write_precomputed_skeleton(tmp_path / "s", 9, VERTICES, edges, radii)
    for found, wanted in zip(read_precomputed_skeleton(tmp_path / "s", 9), (VERTICES, edges, radii), strict=True):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(InputError, match="holds no skeleton of segment 8"):
        read_precomputed_skeleton(tmp_path / "s", 8)
    (tmp_path / "s/9").write_bytes((tmp_path / "s/9").read_bytes()[:-1])
    with pytest.raises(InputError, match="is damaged"):
        read_precomputed_skeleton(tmp_path / "s", 9)


def test_properties_keep_what_fits(tmp_path: Path) -> None:
    numbers = {
        "voxels": ("how many", np.array([5, 2**31])),
        "many": ("more", np.array([5, 2**33])),
        "length_um": ("how long", np.array([0.5, 2.0])),
    }
    write_segment_properties(tmp_path / "p", [1, 2**60], numbers)
    said = json.loads((tmp_path / "p/info").read_text())
    assert said["@type"] == "neuroglancer_segment_properties"
    assert said["inline"]["ids"] == ["1", str(2**60)]
    kinds = {each["id"]: (each["data_type"], each["values"]) for each in said["inline"]["properties"]}
    assert kinds["voxels"] == ("uint32", [5, 2**31])
    assert kinds["many"] == ("float32", [5.0, float(2**33)])
    assert kinds["length_um"] == ("float32", [0.5, 2.0])
