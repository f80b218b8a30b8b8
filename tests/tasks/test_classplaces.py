"""Largest errors of classes: found whatever the blocks, and drawn where they are."""

from __future__ import annotations

import base64
import io
import re
import urllib.request
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.geometry import Box, Grid
from emloom.tasks import classplaces
from emloom.tasks.classpictures import CALLED_RGB, RING_RGB, TRUE_RGB, Scene, tiles, window_of
from emloom.tasks.classplaces import WORST, Largest, Piece, largest_pieces
from emloom.tasks.classreport import write_class_report
from emloom.tasks.classscoring import ClassEvaluation, evaluate_classes
from emloom.tasks.classspec import BootstrapSpec, ClassesSpec, ClassSpec, ReadingSpec
from tests.tasks.links import Links, here, started
from tests.tasks.test_classscoring import GRID, write

SHAPE = (8, 20, 20)
SIZE_NM = np.array(GRID.voxel_size_nm)


def spec_of(folder: Path, truth, predicted, cell=SHAPE, **more) -> ClassSpec:
    folder.mkdir(exist_ok=True)
    grid = more.pop("grid", GRID)
    paths = {name: write(folder / f"{name}.zarr", a, grid=grid) for name, a in (("t", truth), ("p", predicted))}
    classes = more.pop(
        "classes", ClassesSpec(n=3 if predicted.ndim == 3 and predicted.dtype.kind == "u" else None)
    )
    how = BootstrapSpec(resamples=0, block_vox=cell, by=more.pop("by", "block"))
    return ClassSpec(
        truth=paths["t"], predicted=paths["p"], output=str(folder / "out"), metrics=("f1",), classes=classes,
        bootstrap=how, **more,
    )  # fmt: skip


def found_of(spec: ClassSpec) -> tuple[ClassEvaluation, Largest]:
    found = evaluate_classes(spec)
    return found, largest_pieces(found.judged, found.judged.cells(), found.most_confused)


def plain(piece: Piece) -> tuple:
    return (piece.voxels, piece.truth, piece.called, piece.box, piece.at, piece.first, piece.inside.tobytes())


def slowly(truth, called, known, cell) -> list[tuple]:
    """Every piece of every block, largest first, one block, one kind of confusion and one piece after another."""
    pieces = []
    for start in np.ndindex(*(-(-n // c) for n, c in zip(truth.shape, cell, strict=True))):
        low = np.multiply(start, cell)
        block = tuple(slice(a, a + c) for a, c in zip(low, cell, strict=True))
        for i, j in np.ndindex(3, 3):
            here = known[block] & (truth[block] == i) & (called[block] == j)
            labels, n = ndimage.label(here) if i != j else (None, 0)
            for label in range(1, n + 1):
                voxels = np.argwhere(labels == label)
                inner = Box.of(voxels.min(axis=0).tolist(), (voxels.max(axis=0) + 1).tolist())
                relative = voxels - voxels.min(axis=0)
                away = (((relative - relative.mean(axis=0)) * SIZE_NM) ** 2).sum(axis=1)
                at, first = (tuple((voxels[k] + low).tolist()) for k in (int(away.argmin()), 0))
                inside = (labels == label)[inner.slices()].tobytes()
                pieces.append((len(voxels), i, j, inner.shift(low.tolist()), at, first, inside))
    return sorted(pieces, key=lambda piece: (-piece[0], piece[5]))


def coarse(rng, n=3, step=2):
    """Random classes in boxes of a few voxels."""
    small = rng.integers(0, n, [-(-k // step) for k in SHAPE])
    return np.kron(small, np.ones((step,) * 3, int))[tuple(slice(k) for k in SHAPE)].astype(np.uint8)


@given(
    seed=st.integers(0, 10**6),
    cell=st.tuples(st.integers(2, 9), st.integers(6, 21), st.integers(6, 21)),
    kind=st.sampled_from(["classes", "one", "several"]),
    by=st.sampled_from(["block", "section"]),
)
@settings(max_examples=8, phases=[Phase.generate], deadline=None)
def test_the_largest_pieces_of_blocks_are_those_that_a_search_of_everything_finds(
    tmp_path_factory, seed, cell, kind, by
) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("any")
    truth, usable = coarse(rng), rng.random(SHAPE) < 0.95
    truth[rng.random(SHAPE) < 0.05] = 255
    called = np.where(rng.random(SHAPE) < rng.choice([0.1, 0.5]), coarse(rng), np.where(truth == 255, 0, truth))
    more, predicted = {}, called.astype(np.uint8)
    if kind == "one":
        truth[truth == 2], called = 1, np.minimum(called, 1)
        predicted = np.where(called == 1, 0.70001, 0.69999).astype(np.float32)
        more["reading"] = ReadingSpec(threshold=0.7)
    if kind == "several":
        predicted = rng.random((3, *SHAPE)).astype(np.float32)
        predicted[:, ::2] = np.rint(predicted[:, ::2] * 3) / 3  # equals are common: the first is the class
        called = predicted.argmax(axis=0)
        predicted[:, ~usable] = np.nan
    mask = write(folder / "m.zarr", usable.astype(np.uint8))
    _, largest = found_of(spec_of(folder, truth, predicted, cell, mask=mask, by=by, **more))
    expected = slowly(truth, called, usable & (truth != 255), cell)
    assert [plain(piece) for piece in largest.pieces] == expected[:WORST]
    assert largest.left == 0


TILE = (4, 10, 10)


@given(
    seed=st.integers(0, 10**6),
    cells=st.lists(
        st.tuples(st.sampled_from([4, 8]), st.sampled_from([10, 20]), st.sampled_from([10, 20])),
        min_size=2, max_size=2, unique=True,
    ),
)  # fmt: skip
@settings(max_examples=4, phases=[Phase.generate], deadline=None)
def test_pieces_that_cross_no_block_are_the_same_in_all_blocks(tmp_path_factory, seed, cells) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("tiles")
    truth = coarse(rng)
    wrong = rng.random(SHAPE) < 0.5
    for axis, size in enumerate(TILE):
        np.moveaxis(wrong, axis, 0)[::size] = False  # right along one face of every tile: nothing crosses it
    called = np.where(wrong, (truth + 1) % 3, truth).astype(np.uint8)
    lists = []
    for number, cell in enumerate(cells):
        _, largest = found_of(spec_of(folder / str(number), truth, called, cell))
        lists.append([plain(piece) for piece in largest.pieces])
    assert lists[0] == lists[1]
    assert len(lists[0]) == WORST


PLANTED = {  # (true, called): box
    (1, 2): Box((1, 2, 3), (3, 8, 9)),
    (1, 0): Box((5, 12, 2), (3, 6, 6)),
    (2, 1): Box((4, 3, 14), (2, 4, 5)),
    (0, 2): Box((0, 14, 15), (1, 3, 2)),
}


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Truth and classes called, with four errors of known place and size."""
    truth = np.zeros(SHAPE, np.uint8)
    for (i, _), box in PLANTED.items():
        truth[box.slices()] = i
    called = truth.copy()
    for (_, j), box in PLANTED.items():
        called[box.slices()] = j
    return truth, called


def test_planted_errors_are_found_in_order(tmp_path: Path) -> None:
    _, largest = found_of(spec_of(tmp_path, *planted()))
    assert [((p.truth, p.called), p.box, p.voxels) for p in largest.pieces] == [
        (kind, box, box.size) for kind, box in PLANTED.items()
    ]
    for piece in largest.pieces:
        middle = [a + (n - 1) // 2 for a, n in zip(piece.box.start, piece.box.shape, strict=True)]
        assert list(piece.at) == middle
        assert piece.inside.all()


def test_a_piece_is_pointed_at_where_it_is(tmp_path: Path) -> None:
    truth, called = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    called[4, 2:15, 2:15] = 1
    called[4, 4:13, 4:13] = 0  # a frame: nothing of it is at its centre of mass
    _, largest = found_of(spec_of(tmp_path, truth, called))
    (piece,) = largest.pieces
    assert called[piece.at] == 1
    assert piece.voxels == np.count_nonzero(called)
    assert sorted(abs(v - 8) for v in piece.at[1:]) == [0, 5]  # the middle of a side


def test_of_equal_pieces_those_that_begin_first_are_listed(tmp_path: Path) -> None:
    truth, called = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    called[0:2, 0, 0] = 1  # begins first, and ends last
    for y in range(2, 2 + WORST):
        called[0, y, (y % 2) * 4 : (y % 2) * 4 + 2] = 1
    _, largest = found_of(spec_of(tmp_path, truth, called))
    assert [p.first[1] for p in largest.pieces] == [0, *range(2, 1 + WORST)]


@pytest.mark.parametrize("how", ["mask", "ignored"])
def test_what_does_not_count_is_no_error(tmp_path: Path, how: str) -> None:
    truth, called = planted()
    usable, more = np.ones(SHAPE, np.uint8), {}
    gone, cut = PLANTED[1, 2], PLANTED[1, 0]
    half = Box(cut.start, (cut.shape[0], cut.shape[1], cut.shape[2] // 2))
    for box in (gone, half):
        usable[box.slices()] = 0
    if how == "mask":
        more["mask"] = write(tmp_path / "m.zarr", usable)
    else:
        truth[usable == 0] = 7
        more["classes"] = ClassesSpec(n=3, ignore=(255, 7))
    _, largest = found_of(spec_of(tmp_path / "s", truth, called, **more))
    sizes = {(p.truth, p.called): p.voxels for p in largest.pieces}
    expected = {kind: box.size for kind, box in PLANTED.items() if box != gone} | {(1, 0): cut.size // 2}
    assert sizes == expected


def test_no_more_blocks_are_read_than_can_hold_a_large_piece(tmp_path: Path, monkeypatch) -> None:
    truth, called = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    called[0:4:2, 0:10:3, 0:10:2] = 1  # 40 voxels on their own in the first of 8 blocks of 4 x 10 x 10
    called[4, 0:10, 0:10:5] = 1  # two pieces of 10 in the next
    called[4:, 10:, 10:] = 2  # one of 400
    called[0, 10, 10] = 1
    found, largest = found_of(spec_of(tmp_path, truth, called, TILE))
    cells = found.judged.cells()
    assert sorted(found.most_confused.tolist(), reverse=True)[:5] == [400, 40, 20, 1, 0]
    assert [p.voxels for p in largest.pieces] == [400, 10, 10] + 7 * [1]
    # The block with one error could hold a piece as large as the tenth, and is read; those without are not.
    assert (largest.searched, largest.confused, largest.left) == (4, 4, 0)
    short = largest_pieces(found.judged, cells, found.most_confused, limit=2)
    assert (short.searched, short.left) == (2, 20)
    assert [plain(p) for p in short.pieces if p.voxels > short.left] == [plain(largest.pieces[0])]
    monkeypatch.setattr(classplaces, "WORST", 1)
    first = largest_pieces(found.judged, cells, found.most_confused)
    assert ([p.voxels for p in first.pieces], first.searched) == ([400], 1)


@pytest.mark.parametrize("with_raw", [True, False])
@pytest.mark.parametrize("kind", list(PLANTED))
def test_a_picture_shows_the_piece_where_it_is(tmp_path: Path, kind, with_raw: bool) -> None:
    truth, called = planted()
    truth[:, 18:], called[:, 18:] = 255, max(kind)  # does not count: no colour
    raw = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    found, largest = found_of(spec_of(tmp_path, truth, called))
    piece = next(p for p in largest.pieces if (p.truth, p.called) == kind)
    raw_volume = classplaces.open_volume(write(tmp_path / "raw.zarr", raw)) if with_raw else None
    scene = Scene(found.judged, raw_volume)
    assert window_of(scene, piece) == Box.whole(SHAPE)
    drawn = list(tiles(scene, piece))
    names = ["raw", "truth", "prediction"][not with_raw :]
    assert [t.title for t in drawn] == [f"{name}, {plane}" for plane in ("xy", "xz", "yz") for name in names]
    box = PLANTED[kind]
    for row, axis in enumerate(range(3)):
        images = dict(zip(names, drawn[row * len(names) :], strict=False))
        rows, columns = (k for k in range(3) if k != axis)
        times = [5 if k == 0 else 1 for k in (rows, columns)]  # voxels of 40 x 8 nm as square pixels
        assert images["truth"].spacing_nm == (8.0, 8.0)
        own = [slice(box.start[k] * n, box.stop[k] * n) for k, n in zip((rows, columns), times, strict=True)]
        for name, label, classes in (("truth", kind[0], truth), ("prediction", kind[1], called)):
            image = images[name].image
            section = (
                np.where(truth == 255, 255, classes)
                .take(piece.at[axis], axis)
                .repeat(times[0], 0)
                .repeat(times[1], 1)
            )
            ring = (image == RING_RGB).all(axis=2)
            inside = np.zeros(ring.shape, bool)
            inside[tuple(own)] = True
            np.testing.assert_array_equal(ring, ndimage.binary_dilation(inside, np.ones((3, 3))) & ~inside)
            # What else has a colour is of the two classes, and not 0.
            coloured = np.ptp(image.astype(int), axis=2) > 0
            np.testing.assert_array_equal(coloured & ~ring, np.isin(section, [k for k in kind if k]) & ~ring)
            blue = image[..., 2].astype(int) > image[..., 0]
            if label != 0:
                assert (blue[inside] == (label == piece.truth)).all()
        if with_raw:
            ground = images["raw"].image
            outside = ~ring & ~np.isin(section, [k for k in kind if k])
            np.testing.assert_array_equal(image[outside][:, 0], ground[outside])
    assert TRUE_RGB[2] > TRUE_RGB[0]
    assert CALLED_RGB[2] < CALLED_RGB[0]


def pictures(page: str) -> list[np.ndarray]:
    """Return the pictures of a page, RGBA."""
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    return [iio.imread(io.BytesIO(base64.b64decode(text)), mode="RGBA") for text in found]


def test_the_page_holds_the_pictures_with_their_words(tmp_path: Path) -> None:
    truth, called = planted()
    raw = write(tmp_path / "raw.zarr", np.full(SHAPE, 90, np.uint8))
    classes = ClassesSpec(names=("none", "<mito>", "wall"))
    spec = spec_of(tmp_path / "s", truth, called, raw=raw, classes=classes)
    page = write_class_report(spec, evaluate_classes(spec)).read_text(encoding="utf-8")
    drawn = pictures(page)
    assert len(drawn) == len(PLANTED) + 1  # and the confusion matrix
    words = [
        "&lt;mito&gt; called wall",
        "&lt;mito&gt; called none",
        "wall called &lt;mito&gt;",
        "none called wall",
    ]
    captions = re.findall(r"<figcaption[^>]*>\s*([^<]*?): (\d+) connected voxels", page)
    assert captions == [(w, str(box.size)) for w, box in zip(words, PLANTED.values(), strict=True)]
    assert "within blocks of 8 × 20 × 20 voxels" in page
    assert "z = 2, y = 5, x = 7, at 100, 44, 60 nm" in page
    # Pixels of the first picture: two rings in each of three planes, in the second and third column only.
    image = drawn[0][..., :3].astype(int)
    ring, n = ndimage.label((np.abs(image - RING_RGB).max(axis=2) < 40), np.ones((3, 3)))
    assert n == 6
    sizes = [(s[0].stop - s[0].start, s[1].stop - s[1].start) for s in ndimage.find_objects(ring)]
    zoom = 384 // 40  # pixels of 8 nm of the longest side: 8 sections of 40 nm
    box = PLANTED[1, 2].shape
    px = {"z": 5 * box[0] + 2, "y": box[1] + 2, "x": box[2] + 2}
    expected = [(px[a] * zoom, px[b] * zoom) for a, b in ("yx", "yx", "zx", "zx", "zy", "zy")]
    assert sizes == expected
    left = [s[1].start for s in ndimage.find_objects(ring)]
    assert min(left) > image.shape[1] / 3


def test_a_page_without_errors_says_so(tmp_path: Path) -> None:
    truth, _ = planted()
    spec = spec_of(tmp_path, truth, truth)
    page = write_class_report(spec, evaluate_classes(spec)).read_text(encoding="utf-8")
    assert "every voxel that counts was given its class" in page
    assert len(pictures(page)) == 1


@pytest.mark.parametrize("thin", [(0,), (0, 1), (2,)])
def test_of_a_single_section_that_section_is_drawn(tmp_path: Path, thin) -> None:
    shape = tuple(1 if k in thin else n for k, n in enumerate(SHAPE))
    truth, called = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    called[..., :1] = 1
    spec = spec_of(tmp_path, truth, called, shape)
    found = evaluate_classes(spec)
    page = write_class_report(spec, found).read_text(encoding="utf-8")
    assert "Sections that would be a line of voxels are not drawn" in page
    assert len(pictures(page)) == 2
    (piece,) = largest_pieces(found.judged, found.judged.cells(), found.most_confused).pieces
    planes = {tile.title for tile in tiles(Scene(found.judged, None), piece)}
    expected = {"xy", *(["yz"] if thin == (2,) else [])}
    assert planes == {f"{name}, {plane}" for name in ("truth", "prediction") for plane in expected - {"xz"}}


def test_unread_blocks_are_owned_up_to(tmp_path: Path, monkeypatch) -> None:
    spec = spec_of(tmp_path, *planted(), TILE)
    found = evaluate_classes(spec)
    search = classplaces.largest_pieces
    monkeypatch.setattr(
        "emloom.tasks.classpictures.largest_pieces", lambda *given: replace(search(*given), searched=3, left=12)
    )
    page = write_class_report(spec, found).read_text(encoding="utf-8")
    assert "the 3 with the most voxels of one confusion were searched" in page
    assert "elsewhere, a piece may have up to 12 voxels" in page


@pytest.mark.parametrize("stored", ["classes", "probabilities"])
def test_every_error_has_its_own_command_and_link(tmp_path: Path, stored, monkeypatch) -> None:
    truth, called = planted()
    # The prediction is a part of the others, so a voxel of it is another one of the first layer.
    part, whole = Box((2, 3, 4), SHAPE), (12, 26, 28)
    around, raw = np.zeros(whole, np.uint8), write(tmp_path / "raw.zarr", np.zeros(whole, np.uint8))
    around[part.slices()] = truth
    predicted = called if stored == "classes" else np.eye(3, dtype=np.float32)[called].transpose(3, 0, 1, 2)
    spec = spec_of(tmp_path / "s", around, predicted, raw=raw, grid=Grid(GRID.voxel_size_nm))
    inner = write(tmp_path / "inner.zarr", predicted, grid=GRID.crop(part))
    spec = spec.model_copy(update={"predicted": inner})
    found, largest = found_of(spec)
    links = Links(write_class_report(spec, found).read_text(encoding="utf-8"))
    assert len(links.commands) == len(links.addresses) == len(largest.pieces) == len(PLANTED)
    with started(links.commands[0], monkeypatch) as viewer:
        assert [layer.name for layer in viewer.viewer.state.layers] == ["raw", "truth", "prediction"]
        for link, piece in zip(links.addresses, largest.pieces, strict=True):
            with urllib.request.urlopen(here(viewer, link), timeout=20) as answer:
                assert b"<html" in answer.read().lower()
            state = viewer.viewer.state
            expected = [a + o + 0.5 for a, o in zip(piece.at, part.start, strict=True)]
            np.testing.assert_allclose(list(state.position), expected, atol=1e-3)
            for layer in ("truth", "prediction")[: 1 + (stored == "classes")]:
                assert set(state.layers[layer].layer.segments) == {piece.truth, piece.called} - {0}
