"""Neuroglancer itself draws what emloom writes: every voxel in its place, in its size, with its value or id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import Kind, VolumeInfo
from emloom.tasks.pyramid import PyramidSpec, pyramid
from emloom.view.colours import id_colours
from tests.browser import Page, chromium_or_skip, shown
from tests.io.servers import serving_folder

neuroglancer = pytest.importorskip("neuroglancer", reason="the neuroglancer package is in the extra 'test'")

SHAPE = (20, 34, 41)
START = (5, -2, 100)
GRID = Grid((8, 6, 4), (5 * 8, -2 * 6, 100 * 4))
#: Pixels a voxel covers along z, y, x where one of the smallest covers 4.
EDGES = {"z": 8, "y": 6, "x": 4}
#: To the right (in yz to the left) and down in the picture, and the axis across.
SECTIONS = {"xy": "xyz", "xz": "xzy", "yz": "zyx"}

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "precomputed": ("em.precomputed", {}),
    "zarr2": ("em2.zarr", {"zarr_format": 2}),
    "zarr3": ("em3.zarr", {}),
    "zarr3-shards": ("sharded.zarr", {"shards": (32, 32, 32)}),
    "n5": ("em.n5", {}),
}
SHADER = "void main() { emitGrayscale(float(toRaw(getDataValue())) / 255.0); }"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving_folder(folder) as url:
        yield url


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = chromium_or_skip()
    neuroglancer.set_server_bind_address("127.0.0.1", 0)
    try:
        with shown(program, neuroglancer.Viewer(), tmp_path_factory.mktemp("browser") / "profile") as running:
            yield running
    finally:
        neuroglancer.stop()


def values_of(kind: Kind) -> np.ndarray:
    rng = np.random.default_rng(3)
    if kind == "raw":
        values = rng.integers(1, 256, SHAPE).astype(np.uint8)
    else:  # ids that only differ where a float holds nothing
        coarse = rng.integers(1, 9, [-(-n // 3) for n in SHAPE]).astype(np.uint64) + np.uint64(2**62)
        values = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(map(slice, SHAPE))]
        values[9:13, 5:11, 20:30] = 0
    values[:16, :16, :16] = 0  # a chunk that is not stored
    return values


def layer_of(source: Any, values: np.ndarray, kind: Kind) -> Any:
    if kind == "raw":
        return neuroglancer.ImageLayer(source=source, shader=SHADER)
    ids = [int(i) for i in np.unique(values) if i]
    colours = {i: "#" + bytes(id_colours(np.array([i], np.uint64))[0]).hex() for i in ids}
    return neuroglancer.SegmentationLayer(
        source=source, segments=ids, segment_colors=colours, selected_alpha=1, not_selected_alpha=0
    )


def source_of(url: str, form: str) -> Any:
    """Return the source; neuroglancer's N5 knows no offset, so the layer has to say it."""
    if form != "n5":
        return f"{form.removesuffix('-shards')}://{url}"
    space = neuroglancer.CoordinateSpace(names=["x", "y", "z"], units="m", scales=[4e-9, 6e-9, 8e-9])
    matrix = np.concatenate([np.eye(3), np.array(START[::-1])[:, None]], axis=1)
    transform = neuroglancer.CoordinateSpaceTransform(output_dimensions=space, matrix=matrix)
    return neuroglancer.LayerDataSource(url=f"n5://{url}", transform=transform)


def show(page: Page, layer: Any, grid: Grid = GRID) -> None:
    with page.viewer.txn() as state:
        state.layers.clear()
        scales = [size * 1e-9 for size in grid.voxel_size_nm]
        state.dimensions = neuroglancer.CoordinateSpace(names=["z", "y", "x"], units="m", scales=scales)
        state.display_dimensions = ["x", "y", "z"]
        state.layers["em"] = layer


def coloured(values: np.ndarray, kind: Kind) -> np.ndarray:
    return np.repeat(values[..., None], 3, -1) if kind == "raw" else id_colours(values)


def drawn_and_expected(
    page: Page, layout: str, colours_ZYXC: np.ndarray, start: tuple[float, ...] = START
) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture of a section through the middle, and the picture that its voxels make."""
    right, down, across = SECTIONS[layout]
    axis = "zyx".index(across)
    index = SHAPE[axis] // 2
    at = {name: low + n / 2 for name, low, n in zip("zyx", start, SHAPE, strict=True)}
    at[across] = start[axis] + index + 0.5
    section = colours_ZYXC.take(index, axis)
    if layout == "yz":
        section = section.swapaxes(0, 1)[:, ::-1]
    expected = section.repeat(EDGES[down], 0).repeat(EDGES[right], 1)
    return page.draw(layout, at, expected.shape[:2], 4), expected


@pytest.mark.parametrize("kind", ["raw", "labels"])
@pytest.mark.parametrize("form", FORMATS)
def test_neuroglancer_draws_ours(folder: Path, address: str, page: Page, form: str, kind: Kind) -> None:
    name, options = FORMATS[form]
    values = values_of(kind)
    info = VolumeInfo(SHAPE, values.dtype, GRID, None, (16, 16, 16), kind)
    create_volume(folder / kind / name, info, **options).write(info.box, values)
    show(page, layer_of(source_of(f"{address}/{kind}/{name}", form), values, kind))

    said = page.bounds("em")
    for axis, size, start, n in zip("zyx", GRID.voxel_size_nm, START, SHAPE, strict=True):
        assert said[axis] == (pytest.approx(size), start, start + n)
    for layout in SECTIONS:
        picture, expected = drawn_and_expected(page, layout, coloured(values, kind))
        np.testing.assert_array_equal(picture, expected, err_msg=layout)


def test_neuroglancer_draws_half_voxels_where_they_are(folder: Path, address: str, page: Page) -> None:
    """OME-NGFF places the centres of voxels, emloom their corners; half a voxel off would be seen."""
    start = (5.5, -2.5, 100.25)
    grid = Grid(GRID.voxel_size_nm, tuple(a * s for a, s in zip(start, GRID.voxel_size_nm, strict=True)))
    values = values_of("raw")
    info = VolumeInfo(SHAPE, values.dtype, grid, None, (16, 16, 16), "raw")
    create_volume(folder / "half.zarr", info).write(info.box, values)
    show(page, layer_of(f"zarr3://{address}/half.zarr", values, "raw"))
    for layout in SECTIONS:
        picture, expected = drawn_and_expected(page, layout, coloured(values, "raw"), start)
        np.testing.assert_array_equal(picture, expected, err_msg=layout)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_neuroglancer_draws_our_levels(folder: Path, address: str, page: Page, zarr_format: int) -> None:
    """Seen from afar the coarser level is drawn, and lies where the finer one does."""
    path = folder / f"levels{zarr_format}.zarr"
    values = np.random.default_rng(5).integers(1, 256, (4, 64, 64)).astype(np.uint8)
    info = VolumeInfo((4, 64, 64), values.dtype, Grid((40, 4, 4), (80, 40, 400)), None, (4, 16, 16), "raw")
    create_volume(path, info, zarr_format=zarr_format).write(info.box, values)
    pyramid(PyramidSpec(image=str(path), levels=1))
    coarse = open_volume(path / "1")
    assert coarse.info.grid.voxel_size_nm == (40, 8, 8)
    show(page, layer_of(f"zarr{zarr_format}://{address}/{path.name}", values, "raw"), info.grid)
    for level, pixels in ((values, 2.0), (coarse.read(coarse.info.box), 0.5)):
        # One voxel of the coarser level is one pixel there.
        edge = max(1, int(pixels))
        section = level[1].repeat(edge, 0).repeat(edge, 1)
        picture = page.draw("xy", {"z": 3.5, "y": 10 + 32, "x": 100 + 32}, section.shape, pixels)
        np.testing.assert_array_equal(picture, coloured(section, "raw"))


def test_neuroglancer_knows_no_offset_in_n5(folder: Path, address: str, page: Page) -> None:
    """Why the layer has to say it; the docs tell how. When this fails, neuroglancer has learned it."""
    info = VolumeInfo(SHAPE, np.dtype("uint8"), GRID, None, (16, 16, 16), "raw")
    create_volume(folder / "bare.n5", info)
    show(page, neuroglancer.ImageLayer(source=f"n5://{address}/bare.n5"))
    assert {axis: low for axis, (_, low, _) in page.bounds("em").items()} == {"z": 0, "y": 0, "x": 0}
