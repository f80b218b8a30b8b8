"""The phantom: same bits in any order, connected neurites, skeletons inside, dark membranes."""

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, cells
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.ops.affinities import affinities, neighborhood
from emloom.testing.neurites import FLESH, ROOT, grow_neurites, neighbour
from emloom.testing.phantom import NoiseSpec, Phantom, PhantomSpec, write_phantom

# Neurites thinner than the default, so that a small volume holds many.
SPECS = {
    "isotropic": PhantomSpec.isotropic((80, 90, 110), 3).model_copy(update={"neurite_nm": 90.0}),
    "sections": PhantomSpec.sections((14, 200, 190), 4).model_copy(update={"neurite_nm": 120.0}),
}


@pytest.fixture(scope="module", params=SPECS)
def sample(request):
    phantom = Phantom(SPECS[request.param])
    whole = Box.whole(phantom.spec.shape)
    return phantom, phantom.raw.read(whole), phantom.labels.read(whole)


def test_volumes_say_what_they_are(sample):
    phantom, raw, labels = sample
    assert isinstance(phantom.raw, Volume)
    assert (raw.dtype, labels.dtype) == (np.uint8, np.uint64)
    assert phantom.raw.info.grid.voxel_size_nm == phantom.spec.voxel_size_nm
    with pytest.raises(InputError, match="read-only"):
        phantom.raw.write(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.uint8))
    with pytest.raises(InputError, match="leaves"):
        phantom.labels.read(Box((-1, 0, 0), (1, 1, 1)))


@settings(deadline=None, max_examples=15)
@given(st.tuples(*[st.integers(0, 13)] * 3), st.tuples(*[st.integers(0, 40)] * 3), st.sampled_from(list(SPECS)))
def test_a_voxel_does_not_depend_on_the_box_that_asks(start, shape, name):
    phantom, raw, labels = _whole(name)
    box = Box(start, shape).intersect(Box.whole(phantom.spec.shape))
    np.testing.assert_array_equal(phantom.raw.read(box), raw[box.slices()])
    np.testing.assert_array_equal(phantom.labels.read(box), labels[box.slices()])


_KNOWN: dict[str, tuple] = {}


def _whole(name):
    if name not in _KNOWN:
        phantom = Phantom(SPECS[name])
        whole = Box.whole(phantom.spec.shape)
        _KNOWN[name] = (phantom, phantom.raw.read(whole), phantom.labels.read(whole))
    return _KNOWN[name]


def test_blocks_in_any_order_make_the_whole(sample):
    phantom, raw, labels = sample
    again, order = Phantom(phantom.spec), np.random.default_rng(0)
    blocks = [box for _, box in cells(Box.whole(raw.shape), (33, 50, 64))]
    out_raw, out_labels = np.zeros_like(raw), np.zeros_like(labels)
    for i in order.permutation(len(blocks)):
        out_raw[blocks[i].slices()] = again.raw.read(blocks[i])
        out_labels[blocks[i].slices()] = again.labels.read(blocks[i])
    np.testing.assert_array_equal(out_raw, raw)
    np.testing.assert_array_equal(out_labels, labels)


def test_another_seed_is_another_tissue(sample):
    phantom, raw, labels = sample
    box = Box.whole((8, 64, 64))
    other = Phantom(phantom.spec.model_copy(update={"seed": phantom.spec.seed + 1}))
    assert (other.raw.read(box) != raw[box.slices()]).mean() > 0.8
    same = affinities(labels[box.slices()], neighborhood(5))[0]
    assert (affinities(other.labels.read(box), neighborhood(5))[0] != same).any()


def test_neurites_fill_space_and_are_connected(sample):
    _, _, labels = sample
    assert labels.min() > 0
    ids = np.unique(labels)
    assert len(ids) > 5
    # In the continuum a neurite is one piece; on voxels a sliver at an edge may come off.
    pieces = np.bincount(cc3d.connected_components(labels, connectivity=6).ravel())[1:]
    assert len(pieces) - len(ids) <= 3
    assert np.sort(pieces)[: len(pieces) - len(ids)].sum() <= 20


def test_calibres_are_many():
    owner, _ = grow_neurites((24, 24, 24), 1, 0.35)
    cells_of = np.sort(np.bincount(owner.ravel())[1:])
    assert cells_of[-1] > 20 * cells_of[len(cells_of) // 2]
    assert cells_of[len(cells_of) // 2] > 2 * cells_of[0]


def test_skeletons_are_trees_inside_their_neurite(sample):
    phantom, _, labels = sample
    skeletons = phantom.skeletons()
    size = np.array(phantom.spec.voxel_size_nm)
    seen = 0
    for label, nodes, edges in skeletons:
        assert len(edges) == len(nodes) - 1
        assert len(np.unique(edges)) == len(nodes)
        reach = {0}
        for _ in nodes:
            reach |= {int(b) for a, b in edges if a in reach} | {int(a) for a, b in edges if b in reach}
        assert len(reach) == len(nodes)
        where = np.floor(nodes / size).astype(int)
        assert (labels[tuple(where.T)] == label).all()
        seen += len(nodes)
    assert seen > 100
    assert len({label for label, _, _ in skeletons}) == len(skeletons)


def test_membranes_are_darker_than_cytoplasm(sample):
    _, raw, labels = sample
    same, valid = affinities(labels, neighborhood((0, 1, 1)))
    border = ((same == 0) & (valid == 1)).any(axis=0)
    deep = affinities(labels, [(0, a * s, b * s) for s in (5, 2) for a, b in ((0, 1), (0, -1), (1, 0), (-1, 0))])
    inside = (deep[0] == 1).all(axis=0)
    assert raw[border].mean() < 0.75 * raw[inside].mean()
    assert raw[border].mean() + 1.5 * raw[inside].std() < raw[inside].mean()


def test_sections_differ_in_brightness_where_asked():
    box = Box((0, 0, 0), (8, 96, 96))
    spec = PhantomSpec(shape=box.shape, voxel_size_nm=(40, 4, 4), seed=1, noise=0, section_jitter=7, organelles=0)
    plain = Phantom(spec.model_copy(update={"noise": NoiseSpec(sensor=0.0)})).raw.read(box).astype(float)
    shifts = (Phantom(spec).raw.read(box) - plain).mean(axis=(1, 2))
    assert shifts.std() > 2


def test_lattice_is_full_of_face_connected_trees():
    owner, link = grow_neurites((9, 14, 11), 5, 0.4)
    assert owner.min() == 1
    assert len(np.unique(owner)) == owner.max()
    assert cc3d.connected_components(owner.astype(np.uint32), connectivity=6).max() == owner.max()
    for z, y, x in np.argwhere(link < ROOT):
        parent = neighbour(z, y, x, int(link[z, y, x]))
        assert owner[parent] == owner[z, y, x]
        assert link[parent] != FLESH


def test_written_phantom_reads_back(tmp_path):
    spec = PhantomSpec.isotropic((20, 40, 40), 2)
    write_phantom(spec, tmp_path / "p", block=(16, 32, 32))
    phantom, whole = Phantom(spec), Box.whole(spec.shape)
    for name, volume in (("raw", phantom.raw), ("labels", phantom.labels)):
        stored = open_volume(tmp_path / "p" / f"{name}.zarr")
        np.testing.assert_array_equal(stored.read(whole), volume.read(whole))
        assert stored.info.grid == volume.info.grid
    assert PhantomSpec.load(tmp_path / "p" / "phantom.yaml") == spec
    with pytest.raises(InputError):
        write_phantom(spec, tmp_path / "p")


@pytest.mark.parametrize(
    "bad",
    [{"shape": (0, 4, 4)}, {"voxel_size_nm": (80, 4, 4)}, {"voxel_size_nm": (8, 0, 8)}, {"thick_fraction": 1.0}],
)
def test_rejects_impossible_tissue(bad):
    with pytest.raises(InputError):
        PhantomSpec.from_dict(bad)
