"""Synapses of the phantom: a true table whose sites lie where it says, clefts that show, nothing else changed."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, cells
from emloom.io.open import open_volume
from emloom.io.synapsetable import read_synapse_table
from emloom.testing.phantom import NoiseSpec, Phantom, PhantomSpec, SynapsesSpec, write_phantom

NONE = SynapsesSpec(per_um3=1e-9)
"""Asks for synapses and gets none: the tissue in which others grow."""
SPECS = {
    "isotropic": PhantomSpec(
        shape=(88, 110, 120), seed=3, neurite_nm=90.0, synapses={"per_um3": 20, "polyads": 0.7}
    ),
    "sections": PhantomSpec(
        shape=(18, 220, 210), voxel_size_nm=(40, 4, 4), seed=4, neurite_nm=130.0, noise=9, synapses=20
    ),
    "coarse": PhantomSpec(shape=(40, 120, 130), voxel_size_nm=(24, 8, 8), seed=5, synapses=20),
}


class Grown:
    def __init__(self, spec: PhantomSpec) -> None:
        self.spec, self.phantom = spec, Phantom(spec)
        whole = Box.whole(spec.shape)
        volumes = self.phantom.raw, self.phantom.labels, self.phantom.clefts
        self.raw, self.labels, self.clefts = (volume.read(whole) for volume in volumes)
        self.table = self.phantom.synapses()

    def at(self, volume, points):
        grid = self.phantom.raw.info.grid
        return np.array([volume[grid.containing(point)] for point in points])

    def away(self, points):
        """Distance of every voxel's centre from the nearest of some points, nm."""
        size = self.spec.voxel_size_nm
        axes = [(np.arange(n) + 0.5) * v for n, v in zip(self.spec.shape, size, strict=True)]
        out = np.full(self.spec.shape, np.inf)
        for point in points:
            z, y, x = ((axis - p) ** 2 for axis, p in zip(axes, point, strict=True))
            np.minimum(out, z[:, None, None] + y[:, None] + x, out=out)
        return np.sqrt(out)


_KNOWN: dict[str, Grown] = {}


def grown(name: str) -> Grown:
    if name not in _KNOWN:
        _KNOWN[name] = Grown(SPECS[name])
    return _KNOWN[name]


@pytest.fixture(params=SPECS)
def sample(request) -> Grown:
    return grown(request.param)


# ---- what was there stays -------------------------------------------------------------------------------------


def test_without_synapses_tissue_is_that_of_before():
    """Taken before phantoms knew synapses. A library may round grey values otherwise: their sums."""
    for spec, total, squares, labels in (
        (PhantomSpec.isotropic((48, 56, 64), 5), 23435484, 3228866742, "d33ad114addba552"),
        (PhantomSpec.sections((8, 96, 112), 6), 13676313, 2206142455, "c4143456acdb41f0"),
        (
            PhantomSpec(shape=(20, 80, 90), neurite_nm=110, noise=16, seed=1),
            20993109,
            3207542579,
            "24de10c243a50c36",
        ),
    ):
        phantom, whole = Phantom(spec), Box.whole(spec.shape)
        raw = phantom.raw.read(whole).astype(np.int64)
        assert abs(raw.sum() - total) < 1e-6 * total
        assert abs((raw**2).sum() - squares) < 1e-6 * squares
        assert hashlib.sha256(phantom.labels.read(whole).tobytes()).hexdigest()[:16] == labels
        assert not phantom.clefts.read(whole).any()
        assert len(phantom.synapses()) == 0


def test_older_files_are_read():
    old = "shape: [32, 64, 64]\nvoxel_size_nm: [40, 4, 4]\nnoise: 9.0\nsection_jitter: 7.0\n"
    spec = PhantomSpec.from_yaml(old)
    assert spec.noise == NoiseSpec(sensor=9.0, sections=7.0)
    assert spec == PhantomSpec.sections((32, 64, 64))
    assert spec.synapses.per_um3 == 0
    assert PhantomSpec.from_yaml("section_jitter: 3\n").noise == NoiseSpec(sensor=7.0, sections=3.0)
    for each in (spec, *SPECS.values()):
        assert PhantomSpec.from_yaml(each.to_yaml()) == each


def test_labels_do_not_depend_on_synapses(sample):
    bare = Phantom(sample.spec.model_copy(update={"synapses": SynapsesSpec()}))
    np.testing.assert_array_equal(bare.labels.read(Box.whole(sample.spec.shape)), sample.labels)


# ---- a function of the voxel ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.tuples(*[st.floats(0, 1)] * 3), st.tuples(*[st.integers(1, 40)] * 3), st.sampled_from(list(SPECS)))
def test_a_voxel_does_not_depend_on_the_box_that_asks(at, shape, name):
    known = grown(name)
    start = tuple(int(f * (n - 1)) for f, n in zip(at, known.spec.shape, strict=True))
    box = Box(start, shape).intersect(Box.whole(known.spec.shape))
    for volume, whole in (
        (known.phantom.raw, known.raw), (known.phantom.labels, known.labels), (known.phantom.clefts, known.clefts),
    ):  # fmt: skip
        np.testing.assert_array_equal(volume.read(box), whole[box.slices()])


def test_blocks_in_any_order_make_the_whole(sample):
    again, order = Phantom(sample.spec), np.random.default_rng(0)
    blocks = [box for _, box in cells(Box.whole(sample.spec.shape), (17, 50, 64))]
    raw, clefts = np.zeros_like(sample.raw), np.zeros_like(sample.clefts)
    for i in order.permutation(len(blocks)):
        clefts[blocks[i].slices()] = again.clefts.read(blocks[i])
        raw[blocks[i].slices()] = again.raw.read(blocks[i])
    np.testing.assert_array_equal(raw, sample.raw)
    np.testing.assert_array_equal(clefts, sample.clefts)


# ---- the true table -------------------------------------------------------------------------------------------


def test_sites_lie_in_their_neurites(sample):
    table = sample.table
    assert len(table) >= 8
    np.testing.assert_array_equal(sample.at(sample.labels, table.pre_nm), table.pre_segments)
    np.testing.assert_array_equal(sample.at(sample.labels, table.post_nm), table.post_segments)
    assert (table.pre_segments != table.post_segments).all()
    extent = np.multiply(sample.spec.shape, sample.spec.voxel_size_nm)
    for points in (table.pre_nm, table.post_nm):
        assert points.min() > 60
        assert (extent - points).min() > 60
    apart = np.linalg.norm(table.pre_nm - table.post_nm, axis=1)
    assert apart.min() > 15
    assert apart.max() < 220


def test_rows_are_numbered_and_polyads_share_their_pre_site(sample):
    table = sample.table
    np.testing.assert_array_equal(table.ids, np.arange(1, len(table) + 1))
    assert (table.scores == 1).all()
    assert (np.diff(table.polyads.astype(int)) >= 0).all()
    np.testing.assert_array_equal(np.unique(table.polyads), np.arange(1, table.polyads.max() + 1))
    several = 0
    for polyad in np.unique(table.polyads):
        rows = table.rows(table.polyads == polyad)
        assert len(np.unique(rows.pre_nm, axis=0)) == 1
        assert len(set(rows.post_segments.tolist())) == len(rows) <= 5
        several += len(rows) > 1
    assert several


def test_clefts_are_the_polyads_and_touch_both_neurites(sample):
    table = sample.table
    sizes = np.bincount(sample.clefts.ravel().astype(np.int64))
    assert len(sizes) == table.polyads.max() + 1
    np.testing.assert_array_equal(table.sizes_vox, sizes[table.polyads.astype(np.int64)])
    assert table.sizes_vox.min() > 0
    for polyad, pre, post in zip(table.polyads, table.pre_segments, table.post_segments, strict=True):
        under = set(np.unique(sample.labels[sample.clefts == polyad]).tolist())
        assert {int(pre), int(post)} <= under
        assert under == {int(pre), *table.post_segments[table.polyads == polyad].tolist()}


def test_clefts_are_about_as_thick_as_they_say(sample):
    """Two sides of 20 nm, or more where voxels are coarse; a disc of 70 to 120 nm, cut off where neurites end."""
    voxel = float(np.prod(sample.spec.voxel_size_nm))
    most = np.pi * 150**2 * 110
    for polyad, n in Counter(sample.table.polyads.tolist()).items():
        volume = voxel * sample.table.sizes_vox[sample.table.polyads == polyad][0]
        assert 2e4 < volume < n * most


def test_density_is_what_was_asked_for():
    for per_um3 in (2.0, 12.0):
        spec = PhantomSpec(shape=(120, 160, 160), seed=2, synapses=per_um3)
        inner = np.prod(np.multiply(spec.shape, spec.voxel_size_nm) - 240.0) * 1e-9
        assert Phantom(spec).synapses().polyads.max() == round(per_um3 * inner)


def test_polyads_are_as_frequent_as_asked_for():
    alone = Phantom(PhantomSpec(shape=(110, 140, 140), seed=1, synapses=SynapsesSpec(per_um3=15, polyads=0)))
    several = Phantom(PhantomSpec(shape=(110, 140, 140), seed=1, synapses=SynapsesSpec(per_um3=15, polyads=1)))
    for phantom, low, high in ((alone, 1.0, 1.0), (several, 1.6, 5.0)):
        table = phantom.synapses()
        assert low <= len(table) / len(np.unique(table.polyads)) <= high


def test_the_connectome_is_worth_recovering():
    """Some pairs meet in several synapses, and some neurites receive many."""
    table = Phantom(PhantomSpec(shape=(128, 256, 256), seed=1, synapses=12.0)).synapses()
    edges = Counter(zip(table.pre_segments.tolist(), table.post_segments.tolist(), strict=True))
    assert sum(weight > 1 for weight in edges.values()) >= 3
    assert max(Counter(table.post_segments.tolist()).values()) >= 4
    assert len(edges) >= 20


def test_another_seed_is_another_connectome(sample):
    other = Phantom(sample.spec.model_copy(update={"seed": sample.spec.seed + 1})).synapses()
    assert other.pre_nm.shape != sample.table.pre_nm.shape or (other.pre_nm != sample.table.pre_nm).any()


def test_tissue_without_room_has_none(tmp_path):
    spec = PhantomSpec(shape=(20, 40, 40), synapses=30)
    phantom = Phantom(spec)
    assert len(phantom.synapses()) == 0
    assert not phantom.clefts.read(Box.whole(spec.shape)).any()
    write_phantom(spec, tmp_path / "p")
    assert len(read_synapse_table(tmp_path / "p")) == 0


# ---- the picture ----------------------------------------------------------------------------------------------


def test_the_picture_changes_at_synapses_and_nowhere_else(sample):
    bare = Phantom(sample.spec.model_copy(update={"synapses": NONE})).raw.read(Box.whole(sample.spec.shape))
    away = sample.away([*sample.table.pre_nm, *sample.table.post_nm])
    assert (away > 300).any()
    np.testing.assert_array_equal(sample.raw[away > 300], bare[away > 300])
    for polyad in np.unique(sample.table.polyads):
        cleft = sample.clefts == polyad
        assert sample.raw[cleft].mean() < bare[cleft].mean() - 10


def test_pre_and_post_look_different():
    """Beside a synapse: dark behind the membrane on the post side, vesicles deeper in on the pre side."""
    spec = PhantomSpec(
        shape=(96, 128, 128), seed=2, noise=2, organelles=0, synapses=SynapsesSpec(per_um3=35, polyads=0)
    )
    got, table = Phantom(spec).raw.read(Box.whole(spec.shape)).astype(float), Phantom(spec).synapses()
    bare = Phantom(spec.model_copy(update={"synapses": NONE})).raw.read(Box.whole(spec.shape))
    grid = Grid(spec.voxel_size_nm)
    darker = {
        side: np.array([(got - bare)[grid.containing(point)] for point in points])
        for side, points in (("pre", table.pre_nm), ("post", table.post_nm))
    }
    assert len(table) > 5
    assert (darker["post"] < darker["pre"] - 15).mean() > 0.8
    towards = table.pre_nm - table.post_nm
    deep = table.pre_nm + 90 * towards / np.linalg.norm(towards, axis=1, keepdims=True)
    around = np.array([(got - bare)[tuple(slice(v - 5, v + 6) for v in grid.containing(p))].mean() for p in deep])
    assert (around < -2).mean() > 0.8


# ---- the page, files and bad input ----------------------------------------------------------------------------


def test_written_synapses_read_back(tmp_path):
    spec = PhantomSpec(shape=(64, 80, 90), seed=2, synapses=25)
    write_phantom(spec, tmp_path / "p", block=(16, 32, 32))
    phantom, stored = Phantom(spec), open_volume(tmp_path / "p" / "clefts.zarr")
    np.testing.assert_array_equal(stored.read(Box.whole(spec.shape)), phantom.clefts.read(Box.whole(spec.shape)))
    assert (stored.info.dtype, stored.info.grid) == (np.uint64, phantom.clefts.info.grid)
    got, table = read_synapse_table(tmp_path / "p"), phantom.synapses()
    assert len(got) == len(table) > 0
    for name in ("ids", "polyads", "pre_nm", "post_nm", "pre_segments", "post_segments", "sizes_vox", "scores"):
        np.testing.assert_array_equal(getattr(got, name), getattr(table, name))
    assert PhantomSpec.load(tmp_path / "p" / "phantom.yaml") == spec
    with pytest.raises(InputError):
        write_phantom(spec, tmp_path / "p")


def test_no_synapses_no_files(tmp_path):
    write_phantom(PhantomSpec(shape=(20, 40, 40)), tmp_path / "p")
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["labels.zarr", "phantom.yaml", "raw.zarr"]


def test_the_page_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "phantom.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M):
        exec(compile(block, "docs/phantom.md", "exec"), {})
    assert re.search(r"[1-9]\d* synapses between [1-9]\d* pairs", capsys.readouterr().out)


@pytest.mark.parametrize(
    "bad",
    [
        {"synapses": -1},
        {"synapses": 1000},
        {"synapses": "many"},
        {"synapses": True},
        {"synapses": {"per_um3": 1, "polyads": 1.5}},
        {"synapses": {"density": 1}},
        {"noise": -1},
        {"section_jitter": -1},
        {"noise": {"sensor": 1}, "section_jitter": 2},
    ],
)
def test_rejects_impossible_synapses(bad):
    with pytest.raises(InputError):
        PhantomSpec.from_dict(bad)
