"""Coverage-guided fuzzing of the parsers, small enough to read: `make fuzz`, or `python -m tests.fuzzing nml 60`.

A target takes bytes and may return or raise `InputError`; anything else, and anything slow or large, is a finding.
Inputs are kept when they reach a pair of lines, one after the other, that no input reached before; new ones are
made by changing, cutting and joining those, and by putting in words of the format. The seeds are written out
below: no file of anybody is part of them. (The idea: Zalewski, AFL, 2013.)
"""

from __future__ import annotations

import json
import random
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from emloom.errors import InputError

SLOWEST_S = 10.0
LARGEST = 1 << 14
_HOME = str(Path(__file__).parents[1] / "src" / "emloom")


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        file: name of the file it reads.
        parse: reads it.
        seeds: inputs to begin with.
        words: what the format is made of.
    """

    file: str
    parse: Callable[[Path], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes]


def outcome(target: Target, data: bytes, folder: Path) -> str:
    """Return "value" or "refused"; whatever else the parser does is raised."""
    path = folder / target.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        target.parse(path)
    except InputError as problem:
        if len(str(problem)) > 100_000:
            raise AssertionError("a message of a hundred thousand letters") from problem
        return "refused"
    return "value"


def changed(data: bytes, others: Sequence[bytes], words: Sequence[bytes], draw: random.Random) -> bytes:
    """Return one to four random changes of an input."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at, kind = draw.randrange(len(out) + 1), draw.randrange(7)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = draw.choice((0, 9, 10, 34, 45, 48, 57, 91, 93, 123, 125, 127, 255, draw.randrange(256)))
        elif kind == 2:
            del out[at : at + draw.randint(1, 32)]
        elif kind == 3:
            out[at:at] = draw.choice(words)
        elif kind == 4:
            out[at : at + draw.randint(0, 16)] = draw.choice(words)
        elif kind == 5:
            out[at:at] = out[at : at + draw.randint(1, 64)] * draw.randint(1, 8)
        else:
            other = draw.choice(others)
            out[at:] = other[draw.randrange(len(other) + 1) :]
    return bytes(out[:LARGEST])


class Reached:
    """Pairs of lines of emloom that followed each other."""

    def __init__(self) -> None:
        self.pairs: set[int] = set()
        self._last = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_HOME):
            return None
        here = hash((frame.f_code.co_filename, frame.f_lineno))
        self.pairs.add(self._last * 31 ^ here)
        self._last = here
        return self

    def new(self, run: Callable[[], object]) -> bool:
        """Run, and return whether a pair was reached that none was before."""
        before, self._last = len(self.pairs), 0
        sys.settrace(self)
        try:
            run()
        finally:
            sys.settrace(None)
        return len(self.pairs) > before


def _in_time(target: Target, data: bytes, folder: Path) -> None:
    started = time.process_time()
    outcome(target, data, folder)
    took = time.process_time() - started
    if took > SLOWEST_S:
        raise TimeoutError(f"took {took:.0f} s of a processor")


def fuzz(target: Target, seconds: float, seed: int, tell: Callable[[str], object]) -> list[bytes]:
    """Look for inputs of a parser that are findings, and return them, at most one for each kind of error."""
    draw, reached = random.Random(seed), Reached()
    kept, findings, tried = list(target.seeds), dict[str, bytes](), 0
    with tempfile.TemporaryDirectory() as name:
        outcome(target, target.seeds[0], Path(name))  # loads what it needs
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            tried += 1
            old = tried <= len(target.seeds)
            data = target.seeds[tried - 1] if old else changed(draw.choice(kept), kept, target.words, draw)
            try:
                if reached.new(lambda data=data: _in_time(target, data, Path(name))) and not old:
                    kept.append(data)
            except Exception as problem:  # noqa: BLE001 (that is what is looked for)
                place = problem.__traceback__
                while place is not None and place.tb_next is not None:
                    place = place.tb_next
                where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
                if findings.setdefault(f"{type(problem).__name__} {where}", data) == data:
                    tell(f"FOUND {type(problem).__name__}: {str(problem)[:200]} ({where})\n  {data[:300]!r}")
    tell(f"{tried} inputs, {len(kept)} kept, {len(reached.pairs)} pairs of lines, {len(findings)} findings")
    return list(findings.values())


# ---- targets ---------------------------------------------------------------------------------------------------

_NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"0x7f",
    b"9" * 30,
    b"18446744073709551615",
    b"1_0",
    b"\xef\xbb\xbf",
    b"\0",
)
_JSON = (b"{", b"}", b"[", b"]", b":", b",", b'"', b"null", b"true", b'"a"', b"[" * 3000, *_NUMBERS)
_NML = (
    b'<things><parameters><scale x="10" y="20" z="30" unit="nanometer"/></parameters>'
    b'<thing id="1" name="a" groupId="2"><nodes><node id="1" x="1" y="2" z="3" radius="1.5"/>'
    b'<node id="2" x="4" y="5" z="6"/></nodes><edges><edge source="1" target="2"/></edges></thing>'
    b'<comments><comment node="1" content="c"/></comments><branchpoints><branchpoint id="1"/></branchpoints>'
    b'<groups><group id="2" name="g"/></groups></things>'
)
_JOB = (
    b"kind: neurons\nname: a\ndata: [{raw: a.h5, labels: b.h5, train: [{start: [0,0,0], shape: [1,2,3]}]}]\n"
    b"objective: {variant: affinities}\ntraining: &t {steps: 4, batch: 2}\nother: *t\n"
)
_INFO = json.dumps(
    {
        "type": "image", "data_type": "uint8", "num_channels": 1,
        "scales": [{"key": "4", "size": [5, 4, 3], "resolution": [4, 4, 40], "voxel_offset": [0, 0, 0],
                    "chunk_sizes": [[5, 4, 3]], "encoding": "raw"}],
    }
).encode()  # fmt: skip
_ZARR = json.dumps(
    {
        "zarr_format": 3, "node_type": "array", "shape": [3, 4, 5], "data_type": "uint8", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 4, 5]}},
        "chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "bytes"}],
        "attributes": {"resolution": [40, 4, 4], "units": "nm", "axis_names": ["z", "y", "x"]},
    }
).encode()  # fmt: skip
_NPY = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 3), }".ljust(127)
    + b"\n"
    + bytes(6)
)
_HEAD = json.dumps(
    {
        "__metadata__": {"format": "emloom-checkpoint-1", "spec": "a: 1", "info": "{}"},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
).encode()  # fmt: skip
_STATE = json.dumps(
    {
        "__metadata__": {"format": "emloom-training-state-1", "structure": '{"dict": [["a", {"tensor": "a"}]]}'},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
).encode()


def _nml(path: Path) -> object:
    from emloom.io.nml import read_nml_tracing

    return read_nml_tracing(path)


def _swc(path: Path) -> object:
    from emloom.io.swc import read_swc_tracings

    return read_swc_tracings(path, unit_nm=8)


def _points(path: Path) -> object:
    from emloom.io.pointtables import read_point_table

    return read_point_table(path)


def _shifts(path: Path) -> object:
    from emloom.io.shifttable import read_shift_table

    return read_shift_table(path)


def _job(path: Path) -> object:
    from emloom.tasks.job import NeuronsJob

    return NeuronsJob.load(path)


def _volume(path: Path) -> object:
    from emloom.io.open import open_volume

    place = path if path.suffix in (".npy", ".tif") else path.parent
    return open_volume(place, voxel_size_nm=(40, 4, 4)) if path.suffix else open_volume(place)


def _checkpoint(path: Path) -> object:
    from emloom.nn.checkpoint import load_checkpoint, load_training_state

    try:
        return load_checkpoint(path)
    except InputError:
        return load_training_state(path)


def _long(head: bytes) -> bytes:
    return struct.pack("<Q", len(head)) + head + bytes(8)


TARGETS: dict[str, Target] = {
    "nml": Target(
        "a.nml", _nml, (_NML, b"<things/>"),
        (b"<a>", b"</a>", b"<!DOCTYPE a>", b"&amp;", b"&b;", b' x="1"', *_NUMBERS),
    ),
    "swc": Target(
        "a.swc", _swc, (b"# c\n1 1 0 0 0 1 -1\n2 3 1.5 0 0 1 1 # d\n",), (b"\n", b" ", b"#", b"-1", *_NUMBERS)
    ),
    "points": Target(
        "a.csv", _points, (b"z,y,x,n\n1,2.5,3,a\n", b'"z","y","x"\r\n1,2,3\r\n'),
        (b",", b'"', b"\r", b"\n", b";", *_NUMBERS),
    ),
    "shifts": Target("a.csv", _shifts, (b"dx,dy\n0,0\n1.5,-2\n",), (b",", b"dy", b"\n", b";", *_NUMBERS)),
    "job": Target(
        "a.yaml", _job, (_JOB,),
        (b"&a", b"*a", b"<<: ", b"!!int ''", b"!!set", b"? ", b"- ", b"\n  ", b"---\n", b"[" * 2000, *_NUMBERS),
    ),
    "info": Target("a.precomputed/info", _volume, (_INFO,), (b"../", b"gs://", *_JSON)),
    "zarr": Target("a.zarr/zarr.json", _volume, (_ZARR,), (b"../", b'"emloom"', b'"ome"', *_JSON)),
    "npy": Target("a.npy", _volume, (_NPY,), (b"(", b")", b"'", b"<f8", b"O", b"PK\x03\x04", *_NUMBERS)),
    "safetensors": Target(
        "m.safetensors", _checkpoint, (_long(_HEAD), _long(_STATE)), (b"F64", b"-2", *_JSON)
    ),
}  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Fuzz one target, or all in turn; returns 1 where something was found, and keeps it in `fuzz-findings/`."""
    names = list(TARGETS) if words[0] == "all" else [words[0]]
    seconds, seed, status = float(words[1]), int(words[2]) if len(words) > 2 else int(time.time()), 0
    for name in names:
        found = fuzz(TARGETS[name], seconds, seed, lambda text, name=name: print(f"{name}: {text}", flush=True))
        for data in found:
            status = 1
            path = Path("fuzz-findings") / f"{name}-{zlib.crc32(data):08x}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
