"""Images that claim to be what their bytes cannot be, and large ones that are what they claim."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io import tiff
from emloom.io.open import open_volume

SIZE = (40, 4, 4)
VOXEL = Box((0, 0, 0), (1, 1, 1))


def png(width: int, height: int, rows: bytes = b"", depth: int = 8) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    pixels = zlib.compress(rows, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def section(folder: Path, data: bytes) -> Path:
    (folder / "s").mkdir()
    (folder / "s" / "s1.png").write_bytes(data)
    return folder / "s"


@pytest.mark.fault(
    "images",
    "a PNG of 65 bytes claims to be 15 000 x 15 000 pixels, or 2 147 483 647 x 2 147 483 647",
    "error: claims ... pixels, and its 65 bytes cannot hold them: copy it again; nothing is allocated",
)
@pytest.mark.parametrize("side", [15_000, 2**31 - 1])
def test_a_png_that_claims_more_than_it_holds(tmp_path: Path, side: int) -> None:
    with pytest.raises(InputError, match=rf"claims {side} x {side} pixels, and its \d\d bytes cannot hold them"):
        open_volume(section(tmp_path, png(side, side)), voxel_size_nm=SIZE)


@pytest.mark.fault(
    "images",
    "a section has more pixels than Pillow believes in (190 million)",
    "it is read: what counts is whether its bytes can hold them",
)
def test_sections_of_any_size_are_read(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    side = 13_800  # beyond twice the limit, above which Pillow refuses
    path = section(tmp_path, png(side, side, bytes((side // 8 + 1) * side), depth=1))
    assert limit is not None
    assert side * side > 2 * limit
    volume = open_volume(path, voxel_size_nm=SIZE)
    assert volume.info.shape == (1, side, side)
    assert not volume.read(VOXEL).any()
    assert limit == Image.MAX_IMAGE_PIXELS


def patched(path: Path, tags: Sequence[str], value: int, compression: str | None) -> Path:
    tifffile.imwrite(
        path, np.zeros((4, 5), np.uint8), photometric="minisblack", compression=compression, metadata=None
    )
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in tags:
            file.pages.first.tags[tag].overwrite(value, dtype=4)
    return path


@pytest.mark.fault(
    "images",
    "a TIFF of 200 bytes claims to be 60 000 or 2^31 pixels a side, compressed or not",
    "error: is truncated / claims ... pixels, which its bytes cannot hold: copy it again; nothing is allocated",
)
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("side", [60_000, 2**31])
def test_a_tiff_that_claims_more_than_it_holds(tmp_path: Path, side: int, compression: str | None) -> None:
    path = patched(tmp_path / "a.tif", ["ImageWidth", "ImageLength"], side, compression)
    with pytest.raises(InputError, match=r"a\.tif (is truncated|is not a readable|claims)"):
        open_volume(path, voxel_size_nm=SIZE).read(VOXEL)


@pytest.mark.fault(
    "images",
    "the pages of a TIFF go in a circle",
    "error: page 3 leads back to one before it: copy the file again",
)
def test_pages_in_a_circle_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(3):
            writer.write(np.zeros((4, 5), np.uint8), metadata=None, contiguous=False)
    with tifffile.TiffFile(path) as file:
        offsets = [page.offset for page in file.pages]
    data = bytearray(path.read_bytes())
    (n_tags,) = struct.unpack_from("<H", data, offsets[2])
    struct.pack_into("<I", data, offsets[2] + 2 + 12 * n_tags, offsets[0])
    path.write_bytes(data)
    with pytest.raises(InputError, match="page 3 leads back to one before it: copy the file again"):
        open_volume(path, voxel_size_nm=SIZE)


def ome(path: Path, words: str, before: str = "") -> Path:
    text = f'<?xml version="1.0"?>{before}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    tifffile.imwrite(
        path,
        np.zeros((3, 4, 5), np.uint8),
        description=f"{text}{words}</OME>",
        metadata=None,
        photometric="minisblack",
    )
    return path


LAUGHS = "<!DOCTYPE a [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
PIXELS = (
    '<Image><Pixels SizeX="5" SizeY="4" SizeZ="3" SizeC="1" SizeT="1" Type="uint8" DimensionOrder="XYZCT" '
    'PhysicalSizeX="{}"/></Image>'
)


@pytest.mark.fault(
    "images",
    "the OME header of a TIFF is a billion laughs, names a file of the disk, or is nested 20 000 deep",
    "error: the header is not believed; nothing expands, nothing is fetched",
)
@pytest.mark.parametrize(
    "make",
    [
        lambda path: ome(path, PIXELS.format("&a9;"), LAUGHS + "]>"),
        lambda path: ome(path, PIXELS.format("&a;"), '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
    ],
    ids=["laughs", "leak"],
)
def test_ome_headers_made_to_harm(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(InputError, match=r"a\.tif") as refused:
        open_volume(make(tmp_path / "a.tif"), voxel_size_nm=SIZE)
    assert "root:" not in str(refused.value)
    # Depth alone does no harm: nothing is said, so the voxel size is missing.
    with pytest.raises(InputError, match="voxel size is missing"):
        open_volume(ome(tmp_path / "deep.tif", "<a>" * 20_000 + "</a>" * 20_000))


@pytest.mark.fault(
    "environment",
    "an image does not fit into memory",
    "error: does not fit into memory: crop it first, or use a machine with more",
)
def test_images_larger_than_memory(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with (
        pytest.raises(InputError, match=r"does not fit into memory .*crop it first"),
        tiff.decoding(tmp_path / "a.png"),
    ):
        raise MemoryError("Unable to allocate 4 EiB")


@pytest.mark.fault(
    "images", "a TIFF is empty, a header alone, or of complex numbers", "error: names the file and what is wrong"
)
@pytest.mark.parametrize("data", [b"", b"II*\0", b"II*\0\0\0\0\0", b"MM\0*\xff\xff\xff\xff"])
def test_no_pages(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tif"):
        open_volume(tmp_path / "a.tif", voxel_size_nm=SIZE)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((3, 4, 5), np.complex64), photometric="minisblack")
    with pytest.raises(InputError, match="a volume holds integers"):
        open_volume(tmp_path / "b.tif", voxel_size_nm=SIZE)
