"""Judges that are not ours: ome-zarr and cloud-volume open what we write, and we open what they write.

They live in an environment of their own (`make peers`, or the Python named by EMLOOM_PEERS) and speak through
files: see `judge.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emloom.geometry import Box, Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.tasks.pyramid import PyramidSpec, pyramid

ROOT = Path(__file__).parents[2]
GRID = Grid((40, 4.6, 4), (120, -2.3, 1000))
ON_LATTICE = Grid((40, 4.6, 4), (120, -13.8, 1000))
SHAPE = (20, 34, 41)


VARIANTS = [
    ("uint8", 1, "raw"),
    ("uint8", 3, "raw"),
    ("uint8", 1, "png"),
    ("uint64", 1, "compressed_segmentation"),
]

Judge = Callable[[str, Path], dict[str, Any]]


@pytest.fixture(scope="session")
def peers() -> Path:
    """The Python that has cloud-volume and ome-zarr."""
    python = Path(os.environ.get("EMLOOM_PEERS", ROOT / ".venv-peers/bin/python"))
    if not python.exists():
        pytest.skip(f"no cloud-volume and ome-zarr at {python}: run `make peers`")
    tried = subprocess.run(
        [python, "-I", "-c", "import cloudvolume, ome_zarr"], capture_output=True, text=True, timeout=120
    )
    if tried.returncode:
        pytest.skip(f"{python}: {tried.stderr.strip().splitlines()[-1]}: run `make peers`")
    return python


@pytest.fixture
def judge(peers: Path, tmp_path: Path) -> Judge:
    """Call a verb of judge.py; what it says comes back, what it read lies in `verdict/`."""
    folder = tmp_path / "verdict"
    folder.mkdir()

    def run(verb: str, path: Path, **facts: Any) -> dict[str, Any]:
        (folder / "facts.json").write_text(json.dumps(facts))
        command = [peers, "-I", Path(__file__).with_name("judge.py"), verb, path, folder]
        # Both libraries keep caches at home.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)}
        )
        assert done.returncode == 0, f"{verb} {path}\n{done.stderr}"
        said: dict[str, Any] = json.loads((folder / "facts.json").read_text())
        return said

    return run


def values_of(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    top = 250 if dtype == "uint8" else 60000
    values = np.random.default_rng(seed).integers(1, top, shape).astype(dtype)
    if dtype == "uint64":  # ids that no float holds
        values += np.uint64(2**62)
    return values


def write_ours(path: Path, values: np.ndarray, grid: Grid, kind: str, **options: Any) -> VolumeInfo:
    channels = values.shape[0] if values.ndim == 4 else None
    info = VolumeInfo(values.shape[-3:], values.dtype, grid, channels, (16, 16, 16), kind)  # type: ignore[arg-type]
    create_volume(path, info, **options).write(info.box, values)
    return info


def transforms_of(said: dict[str, Any], level: int) -> tuple[list[float], list[float]]:
    first, second = said["coordinateTransformations"][level]
    assert (first["type"], second["type"]) == ("scale", "translation")
    return first["scale"], second["translation"]


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shards": (32, 32, 64)},
        {"encoding": "blosc"},
        {"zarr_format": 2},
        {"zarr_format": 2, "encoding": "blosc"},
    ],
    ids=["3", "3-shards", "3-blosc", "2", "2-blosc"],
)
def test_ome_zarr_opens_our_images(
    tmp_path: Path, judge: Judge, options: dict[str, Any], channels: int | None
) -> None:
    values = values_of((*([channels] if channels else []), *SHAPE), "uint16")
    write_ours(tmp_path / "em.zarr", values, GRID, "raw", **options)
    said = judge("read-ome", tmp_path / "em.zarr")
    assert [axis["name"] for axis in said["axes"]] == list("czyx" if channels else "zyx")
    assert {axis["unit"] for axis in said["axes"] if axis["type"] == "space"} == {"nanometer"}
    assert (said["name"], said["levels"]) == ("em", 1)
    scale, translation = transforms_of(said, 0)
    outer = [1.0] if channels else []
    assert scale == [*outer, *GRID.voxel_size_nm]
    # Its voxel coordinates are centres, ours are corners.
    corner = np.subtract(translation, np.divide(scale, 2))[-3:]
    np.testing.assert_allclose(corner, GRID.offset_nm, atol=1e-9)
    np.testing.assert_array_equal(np.load(tmp_path / "verdict/0.npy"), values)


@pytest.mark.parametrize("kind", ["raw", "labels"])
@pytest.mark.parametrize("options", [{}, {"shards": (32, 32, 64)}, {"zarr_format": 2}], ids=["3", "3-shards", "2"])
def test_ome_zarr_opens_our_levels(tmp_path: Path, judge: Judge, options: dict[str, Any], kind: str) -> None:
    values = values_of(SHAPE, "uint64" if kind == "labels" else "uint8")
    path = tmp_path / "em.zarr"
    write_ours(path, values, GRID, kind, **options)
    pyramid(PyramidSpec(image=str(path), levels=2))
    said = judge("read-ome", path)
    assert said["levels"] == 3
    for k, sizes in enumerate([(40, 4.6, 4), (40, 9.2, 8), (40, 18.4, 16)]):
        scale, translation = transforms_of(said, k)
        np.testing.assert_allclose(scale, sizes)
        np.testing.assert_allclose(np.subtract(translation, np.divide(scale, 2)), GRID.offset_nm, atol=1e-9)
        theirs = np.load(tmp_path / f"verdict/{k}.npy")
        ours = open_volume(path / str(k))
        np.testing.assert_array_equal(theirs, ours.read(ours.info.box))
        assert theirs.dtype == values.dtype
    np.testing.assert_array_equal(np.load(tmp_path / "verdict/0.npy"), values)


@pytest.mark.parametrize(
    ("dtype", "kind", "channels", "encoding"),
    [
        ("uint8", "raw", None, "raw"),
        ("uint8", "raw", 3, "raw"),
        ("float32", "raw", None, "raw"),
        ("uint64", "labels", None, "compressed_segmentation"),
        ("uint32", "labels", None, "compressed_segmentation"),
        ("uint16", "labels", None, "raw"),
    ],
)
def test_cloud_volume_opens_ours(
    tmp_path: Path, judge: Judge, dtype: str, kind: str, channels: int | None, encoding: str
) -> None:
    values = values_of((*([channels] if channels else []), *SHAPE), dtype)
    values[..., :16, :16, :16] = 0  # a chunk of zeros, which is stored like any other
    write_ours(tmp_path / "em.precomputed", values, ON_LATTICE, kind)
    (said,) = judge("read-cloud", tmp_path / "em.precomputed")["scales"]
    assert (said["low"], said["resolution"]) == ([250, -3, 3], [4, 4.6, 40])
    assert said["high"] == [250 + 41, -3 + 34, 3 + 20]
    assert said["type"] == ("segmentation" if kind == "labels" else "image")
    assert (said["dtype"], said["encoding"]) == (dtype, encoding)
    theirs = np.load(tmp_path / "verdict/0.npy")
    assert theirs.dtype == values.dtype
    np.testing.assert_array_equal(theirs.T, values if channels else values[np.newaxis])


@pytest.mark.parametrize(
    ("dtype", "kind", "channels", "encoding"),
    [
        ("uint8", "raw", None, "raw"),
        ("uint16", "raw", 2, "raw"),
        ("uint64", "labels", None, "compressed_segmentation"),
    ],
)
def test_cloud_volume_opens_our_scales(
    tmp_path: Path, judge: Judge, dtype: str, kind: str, channels: int | None, encoding: str
) -> None:
    values = values_of((*([channels] if channels else []), *SHAPE), dtype)
    values[..., :16, :16, :20] = 0
    path = tmp_path / "em.precomputed"
    write_ours(path, values, ON_LATTICE, kind)
    pyramid(PyramidSpec(image=str(path), levels=2))
    scales = judge("read-cloud", path)["scales"]
    # The volume starts at voxel (250, -3, 3): coarse voxels are counted from the origin of the world.
    assert [scale["low"] for scale in scales] == [[250, -3, 3], [125, -2, 3], [62, -1, 3]]
    assert [scale["high"] for scale in scales] == [[291, 31, 23], [146, 16, 23], [73, 8, 23]]
    assert [scale["resolution"] for scale in scales] == [[4, 4.6, 40], [8, 9.2, 40], [16, 18.4, 40]]
    assert {(s["dtype"], s["encoding"]) for s in scales} == {(dtype, encoding)}
    whole = open_volume(path).info.grid
    for k, inner in enumerate(["", "8_9.2_40", "16_18.4_40"]):
        ours = open_volume(path / inner)
        expected = ours.read(ours.info.box)
        np.testing.assert_array_equal(
            np.load(tmp_path / f"verdict/{k}.npy").T, expected.reshape(-1, *ours.info.shape)
        )
        assert all(
            a <= b < a + s
            for a, b, s in zip(ours.info.grid.offset_nm, whole.offset_nm, (40, 18.4, 16), strict=True)
        )


@pytest.mark.parametrize(
    ("dtype", "channels", "encoding", "stored"),
    [
        *((*what, stored) for stored in ("", ".gz") for what in VARIANTS),
        # Shards are compressed inside.
        ("uint8", 1, "raw", ".shard"),
        ("uint64", 1, "compressed_segmentation", ".shard"),
    ],
)
def test_we_open_what_cloud_volume_writes(
    tmp_path: Path, judge: Judge, dtype: str, channels: int, encoding: str, stored: str
) -> None:
    values = values_of((channels, *SHAPE), dtype)
    np.save(tmp_path / "verdict/values.npy", values.T)
    kind = "labels" if dtype == "uint64" else None
    info = {
        "layer_type": "segmentation" if kind else "image",
        "encoding": encoding,
        "resolution": [4, 4.6, 40],
        "voxel_offset": [250, -3, 3],
        "chunk_size": [16, 16, 16],
    }
    path = tmp_path / "theirs"
    judge(
        "write-cloud", path, info=info, compress="gzip" if stored == ".gz" else False, sharded=stored == ".shard"
    )
    assert {p.suffix for p in path.glob("4*_40*/*")} == {stored}
    volume = open_volume(path)
    assert volume.info.grid.matches(ON_LATTICE)
    assert (volume.info.shape, volume.info.dtype, volume.info.kind) == (SHAPE, values.dtype, kind)
    wanted = values if channels > 1 else values[0]
    np.testing.assert_array_equal(volume.read(volume.info.box), wanted)
    box = Box.of((3, 15, 1), (20, 33, 40))
    np.testing.assert_array_equal(volume.read(box), wanted[..., *box.slices()])


@pytest.mark.parametrize(("version", "sharded"), [("0.4", False), ("0.5", False), ("0.5", True)])
@pytest.mark.parametrize("axes", ["zyx", "czyx"])
@pytest.mark.parametrize("shift", [None, (0.25, -0.01, 1.5)], ids=["at zero", "shifted"])
def test_we_open_what_ome_zarr_writes(
    tmp_path: Path, judge: Judge, version: str, sharded: bool, axes: str, shift: tuple[float, ...] | None
) -> None:
    values = values_of((3, *SHAPE)[-len(axes) :], "uint16")
    np.save(tmp_path / "verdict/values.npy", values)
    storage = {"chunks": [8] * len(axes)} | ({"shards": [16] * len(axes)} if sharded else {})
    micrometers = {"c": 1.0, "z": 0.04, "y": 0.0046, "x": 0.004}
    path = tmp_path / "theirs.zarr"
    said = judge(
        "write-ome",
        path,
        version=version,
        axes=axes,
        scale={a: micrometers[a] for a in axes},
        units=dict.fromkeys("zyx", "micrometer"),
        factors=[{"z": 1, "y": 2, "x": 2}],
        storage=storage,
        zoom=[1.0] * len(axes),
        shift=shift and [0.0] * (len(axes) - 3) + list(shift),
    )
    assert said["levels"] == 2
    # ome-zarr puts the centre of the first voxel at zero (then shifts), and lets the levels share its corner.
    corner = np.multiply(shift or (0, 0, 0), 1000) - np.divide((40, 4.6, 4), 2)
    for k, inner in enumerate(["", "s1"]):
        theirs = np.load(tmp_path / f"verdict/{k}.npy")
        volume = open_volume(path / inner)
        assert volume.info.axes == axes
        size = GRID.voxel_size_nm * np.divide(SHAPE, theirs.shape[-3:])
        np.testing.assert_allclose(volume.info.grid.voxel_size_nm, size)
        np.testing.assert_allclose(volume.info.grid.offset_nm, corner, atol=1e-9)
        np.testing.assert_array_equal(volume.read(volume.info.box), theirs)
    np.testing.assert_array_equal(np.load(tmp_path / "verdict/0.npy"), values)
