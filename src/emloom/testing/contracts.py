"""The promises of a `Volume`, as tests that any writable format inherits.

A format passes when a subclass of `VolumeContract` passes under pytest; this is all it takes (needs pytest and
hypothesis, which emloom itself never imports)::

    class TestZarr(VolumeContract):
        layouts = (Layout((8, 8, 16)), Layout((4, 8, 8), {"shards": (8, 16, 16)}))

        def suffix_path(self, folder: Path) -> Path:
            return folder / "out.zarr"

What is promised::

    round trip       what is written is read, for any box, element type, chunk, offset and voxel size
    metadata         the grid (to the bit), kind and neighborhood survive re-opening; what was never written is 0
    refusals         a box outside, another dtype or shape, read-only, existing path: InputError, nothing changes
    parallel         two processes write disjoint chunks, and nothing is lost
    crash_safe       a process killed in mid-write leaves every chunk as it was or as it was to be

A format that cannot keep one of the last two says so (`parallel = False`) and says why in its own documentation.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec, cells
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import Array, Kind, Volume, VolumeInfo

ALL_DTYPES = (
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
    "bool",
)
_KINDS: tuple[Kind | None, ...] = (None, "raw", "labels", "mask", "lsds", "probabilities", "logits")
_PATIENCE_S = 60.0
_few = settings(
    deadline=None,
    max_examples=10,
    # The tests are inherited: hypothesis sees one test run by several classes.
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Layout:
    """How a volume is cut up on disk: `info.chunks`, and what else `create_volume` is told (shards, ...)."""

    chunks: Vec | None
    options: Mapping[str, Any] = field(default_factory=dict)


class VolumeContract:
    """The suite: subclass it as ``Test...``, give `suffix_path`, and narrow what the format cannot hold.

    Attributes:
        dtypes: element types the format holds.
        kinds: kinds the format can state; None is "not stated".
        channels_allowed: whether it holds ``czyx``, and with them affinities.
        max_shape: largest shape drawn (z, y, x).
        layouts: chunks and options to draw from.
        whole_voxel_offsets: whether offsets are whole voxels (precomputed), else any nm.
        negative_offsets: whether an offset may be negative.
        parallel: whether two processes may write disjoint chunks at once.
        crash_safe: whether a killed writer leaves every chunk old or new.
        crash_layout: chunk of the crash test; large enough that writing one takes a while.
        example_grid: the grid of tests that draw none.
    """

    dtypes: Sequence[str] = ALL_DTYPES
    kinds: Sequence[Kind | None] = _KINDS
    channels_allowed: bool = True
    max_shape: Vec = (40, 40, 40)
    layouts: Sequence[Layout] = (Layout((8, 8, 16)), Layout((16, 16, 32)), Layout((4, 16, 8)))
    whole_voxel_offsets: bool = False
    negative_offsets: bool = True
    parallel: bool = True
    crash_safe: bool = True
    crash_layout: Layout = Layout((64, 64, 64))
    example_grid: Grid = Grid((40, 4, 4), (80, 4, 0))

    def suffix_path(self, folder: Path) -> str | Path:
        """Return the path of a new volume in an empty folder, with the suffix (and inner name) of the format.

        Formats that live elsewhere, as in a bucket, return an address that is different for every folder.
        """
        raise NotImplementedError

    def create(self, path: str | Path, info: VolumeInfo, layout: Layout, *, overwrite: bool = False) -> Volume:
        """Create an empty volume; by default through `create_volume`."""
        return create_volume(path, info.with_(chunks=layout.chunks), overwrite=overwrite, **layout.options)

    def open(self, path: str | Path, *, writable: bool = False) -> Volume:
        """Open what `create` made; by default through `open_volume`, with nothing said about it."""
        return open_volume(path, writable=writable)

    # ---- what is drawn ----------------------------------------------------------------------------------------

    def grids(self) -> st.SearchStrategy[Grid]:
        """Draw a grid that the format can state."""
        size = st.tuples(*[st.floats(0.01, 1e4)] * 3)
        low = -(10**6) if self.negative_offsets else 0
        if self.whole_voxel_offsets:
            whole = st.tuples(*[st.integers(max(low, -(10**4)), 10**4)] * 3)
            return st.builds(lambda s, w: Grid(s, Grid(s).to_world(w)), size, whole)
        return st.builds(Grid, size, st.tuples(*[st.floats(low, 1e6)] * 3))

    @st.composite
    @staticmethod
    def _infos(draw: st.DrawFn, contract: VolumeContract) -> VolumeInfo:
        shape = draw(st.tuples(*[st.integers(1, n) for n in contract.max_shape]))
        channels = draw(st.sampled_from([None, 1, 3])) if contract.channels_allowed else None
        kind = draw(st.sampled_from(contract.kinds))
        dtype = np.dtype(draw(st.sampled_from(contract.dtypes)))
        neighborhood = None
        if channels is not None and draw(st.booleans()):
            kind = "affinities"
            neighborhood = tuple(draw(st.tuples(*[st.integers(-9, 9)] * 3)) for _ in range(channels))
        return VolumeInfo(shape, dtype, draw(contract.grids()), channels, None, kind, neighborhood)

    # ---- promises ---------------------------------------------------------------------------------------------

    @_few
    @given(data=st.data(), seed=st.integers(0, 2**32 - 1))
    def test_what_is_written_is_read(self, data: st.DataObject, seed: int) -> None:
        """Values, box by box, and all metadata, through a file closed and opened again."""
        info = data.draw(VolumeContract._infos(self))
        layout = data.draw(st.sampled_from(self.layouts))
        expected = np.zeros(info.array_shape, info.dtype)
        with tempfile.TemporaryDirectory() as folder:
            path = self.suffix_path(Path(folder))
            made = self.create(path, info, layout)
            assert isinstance(made, Volume)
            for step in range(data.draw(st.integers(0, 3))):
                box = data.draw(_boxes(info.shape))
                values = random_values(info, box, seed + step)
                before = values.copy()
                made.write(box, values)
                np.testing.assert_array_equal(values, before, "write() changed the array it was given")
                expected[..., *box.slices()] = values
            volume = self.open(path)
            _same_meaning(volume.info, made.info)
            _same_meaning(volume.info, info)
            probe = data.draw(_boxes(info.shape))
            for box in (probe, info.box):
                got = volume.read(box)
                assert got.dtype == info.dtype
                assert got.dtype.isnative
                assert got.flags.c_contiguous
                np.testing.assert_array_equal(got, expected[..., *box.slices()])

    def test_an_array_of_any_memory_order_may_be_written(self, tmp_path: Path) -> None:
        """Strided views and Fortran order write the values they show."""
        info = self._example((9, 10, 11))
        values = random_values(info, info.box, 7)
        wide = np.zeros((*values.shape[:-1], 22), values.dtype)
        wide[..., ::2] = values
        for i, form in enumerate((np.asfortranarray(values), wide[..., ::2])):
            (tmp_path / str(i)).mkdir()
            volume = self.create(self.suffix_path(tmp_path / str(i)), info, self.layouts[0])
            volume.write(info.box, form)
            np.testing.assert_array_equal(volume.read(info.box), values)

    def test_an_empty_box_reads_as_an_empty_array(self, tmp_path: Path) -> None:
        """A box without voxels, inside the volume, is no error."""
        info = self._example()
        volume = self.create(self.suffix_path(tmp_path), info, self.layouts[0])
        assert volume.read(Box((1, 2, 3), (0, 4, 5))).shape == info.shape_of(Box((1, 2, 3), (0, 4, 5)))

    @pytest.mark.parametrize("low", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (20, 0, 0), (0, 23, 0), (0, 0, 29)])
    def test_a_box_outside_is_refused(self, tmp_path: Path, low: Vec) -> None:
        """Beyond any face, reading and writing."""
        volume, before = self._filled(tmp_path)
        box = Box(low, (2, 2, 2))
        with pytest.raises(InputError, match="leaves"):
            volume.read(box)
        with pytest.raises(InputError, match="leaves"):
            volume.write(box, np.ones(volume.info.shape_of(box), volume.info.dtype))
        np.testing.assert_array_equal(volume.read(volume.info.box), before)

    def test_a_wrong_dtype_or_shape_is_refused(self, tmp_path: Path) -> None:
        """Nothing is cast, cut or broadcast."""
        volume, before = self._filled(tmp_path)
        box, dtype = Box((0, 0, 0), (2, 3, 4)), volume.info.dtype
        other = np.dtype("float64" if dtype != np.dtype("float64") else "float32")
        for wrong in (np.ones((2, 3, 4), other), np.ones((2, 3, 5), dtype), np.ones((3, 4), dtype)):
            with pytest.raises(InputError):
                volume.write(box, wrong)
        with pytest.raises(InputError):
            volume.write(box, np.ones((1, 2, 3, 4), dtype))
        np.testing.assert_array_equal(self.open(self.suffix_path(tmp_path)).read(volume.info.box), before)

    def test_a_read_only_volume_refuses_to_be_written(self, tmp_path: Path) -> None:
        """Volumes open read-only unless asked otherwise."""
        volume, before = self._filled(tmp_path)
        box = Box((0, 0, 0), (1, 1, 1))
        one = np.ones(volume.info.shape_of(box), volume.info.dtype)
        with pytest.raises(InputError, match="read-only"):
            self.open(self.suffix_path(tmp_path)).write(box, one)
        np.testing.assert_array_equal(volume.read(volume.info.box), before)
        self.open(self.suffix_path(tmp_path), writable=True).write(box, one)
        before[..., 0, 0, 0] = one[..., 0, 0, 0]
        np.testing.assert_array_equal(self.open(self.suffix_path(tmp_path)).read(volume.info.box), before)

    def test_an_existing_volume_is_not_overwritten_by_accident(self, tmp_path: Path) -> None:
        """Only when asked to, and then nothing of the old one shows."""
        volume, before = self._filled(tmp_path)
        path = self.suffix_path(tmp_path)
        with pytest.raises(InputError, match="already exists"):
            self.create(path, self._example(), self.layouts[0])
        np.testing.assert_array_equal(self.open(path).read(volume.info.box), before)
        self.create(path, self._example((7, 8, 9)), self.layouts[0], overwrite=True)
        assert self.open(path).info.shape == (7, 8, 9)
        assert not self.open(path).read(Box.whole((7, 8, 9))).any()

    def test_it_survives_pickling_after_use(self, tmp_path: Path) -> None:
        """Volumes are sent to workers."""
        volume, before = self._filled(tmp_path)
        clone = pickle.loads(pickle.dumps(volume))
        assert clone.info == volume.info
        np.testing.assert_array_equal(clone.read(volume.info.box), before)

    def test_two_processes_write_disjoint_chunks(self, tmp_path: Path) -> None:
        """Each takes every other chunk; nothing is lost."""
        if not self.parallel:
            pytest.skip("this format has one writer at a time")
        info = self._example((33, 30, 40))
        volume = self.create(self.suffix_path(tmp_path), info, self.layouts[-1])
        boxes = [box for _, box in cells(info.box, volume.info.chunks or (8, 8, 8))]
        values = random_values(info, info.box, 3)
        workers = [_spawn(_write_boxes, volume, boxes[i::2], values) for i in range(2)]
        for worker in workers:
            worker.join(_PATIENCE_S)
            assert worker.exitcode == 0
        got = self.open(self.suffix_path(tmp_path)).read(info.box)
        np.testing.assert_array_equal(got, values)

    def test_a_killed_writer_leaves_every_chunk_old_or_new(self, tmp_path: Path) -> None:
        """SIGKILL at random moments while all chunks are rewritten, over and over, from one value to another."""
        if not self.crash_safe:
            pytest.skip("this format does not promise whole chunks after a crash")
        chunk = self.crash_layout.chunks or (64, 64, 64)
        info = self._example((chunk[0], chunk[1], 2 * chunk[2]), self._widest_integer())
        path = self.suffix_path(tmp_path)
        volume = self.create(path, info, self.crash_layout)
        old, new = (random_values(info, info.box, seed) for seed in (1, 2))
        volume.write(info.box, old)
        for seed in range(3):
            _kill_in_mid_write(volume, (old, new), tmp_path / f"begun{seed}", random.Random(seed).random() * 0.1)
            after = self.open(path)
            for _, box in cells(info.box, volume.info.chunks or chunk):
                got, at = after.read(box), box.slices()
                fine = np.array_equal(got, old[..., *at]) or np.array_equal(got, new[..., *at])
                assert fine, f"{box} is neither as it was nor as it was to be"

    # ---- helpers ----------------------------------------------------------------------------------------------

    def _widest_integer(self) -> np.dtype[Any]:
        return max((np.dtype(d) for d in self.dtypes if np.dtype(d).kind in "iu"), key=lambda d: d.itemsize)

    def _example(self, shape: Vec = (20, 23, 29), dtype: np.dtype[Any] | None = None) -> VolumeInfo:
        return VolumeInfo(shape, dtype or np.dtype(self.dtypes[0]), self.example_grid)

    def _filled(self, folder: Path) -> tuple[Volume, Array]:
        info = self._example()
        volume = self.create(self.suffix_path(folder), info, self.layouts[0])
        values = random_values(info, info.box, 5)
        volume.write(info.box, values)
        return volume, values


def random_values(info: VolumeInfo, box: Box, seed: int) -> Array:
    """Return incompressible values for a box, from the whole range of the type (labels below 2^63; no NaN)."""
    shape = info.shape_of(box)
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, info.dtype.itemsize), dtype=np.uint8)
    if info.dtype.kind == "b":
        flags: Array = noise[..., 0] > 127
        return flags
    values: Array = noise.view(info.dtype)[..., 0]
    if info.dtype == np.dtype("uint64") and info.kind == "labels":
        values >>= np.uint64(1)
    return np.nan_to_num(values) if info.dtype.kind == "f" else np.ascontiguousarray(values)


@st.composite
def _boxes(draw: st.DrawFn, shape: Vec) -> Box:
    """Draw a box with at least one voxel inside a shape."""
    start = [draw(st.integers(0, n - 1)) for n in shape]
    return Box.of(start, [draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)])


def _same_meaning(got: VolumeInfo, wanted: VolumeInfo) -> None:
    for name in ("shape", "dtype", "grid", "channels", "kind", "neighborhood"):
        assert getattr(got, name) == getattr(wanted, name), name


def _spawn(target: Any, *args: Any) -> Any:
    # TensorStore aborts a process that forks after using it.
    worker = multiprocessing.get_context("spawn").Process(target=target, args=args)
    worker.start()
    return worker


def _write_boxes(volume: Volume, boxes: Sequence[Box], values: Array) -> None:
    for box in boxes:
        volume.write(box, np.ascontiguousarray(values[..., *box.slices()]))


def _rewrite_forever(volume: Volume, states: tuple[Array, Array], begun: Path) -> None:
    # Where the parent dies the worker must not live on.
    parent = os.getppid()
    turn = 0
    while os.getppid() == parent:
        turn += 1
        volume.write(volume.info.box, states[turn % 2])
        begun.touch()


def _kill_in_mid_write(volume: Volume, states: tuple[Array, Array], begun: Path, after_s: float) -> None:
    worker = _spawn(_rewrite_forever, volume, states, begun)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not begun.exists():
            assert worker.is_alive(), "the writing process ended by itself"
            assert time.monotonic() < deadline, "the writing process never finished its first write"
            time.sleep(0.005)
        time.sleep(after_s)
        assert worker.is_alive(), "the writing process ended by itself"
    finally:
        worker.kill()
        worker.join()
