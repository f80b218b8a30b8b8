"""Where 100 sections of 2048 x 2048 belong: emloom against scikit-image's phase correlation and OpenCV's ECC.

    make peers
    python benchmarks/align.py

The sections are of the phantom, and their true shifts are known: pictures of unrelated tissue fade into each other
over six sections, each at its place, so that neighbours resemble each other without any drift of their own; tissue
that no other section has, at seven tenths of the contrast, and noise are added to each. Planted are a random walk
of 6 pixels a section and, at one section in twenty, a jump of up to 150, by fractions of pixels. A second stack is
the same with ten defective sections: blank, black, faint, blurred away, noise, elsewhere.

emloom: everything from pictures to positions: links over 1, 2 and 3 sections and to the middle one, two threads.
Peers: a loop over consecutive pairs, over the first sections, scaled to all. Seconds are those of two cores: CPU
seconds by two, for peers as if they used both perfectly; emloom's wall time, which other work on the machine
lengthens, stands beside. Errors: of the displacement between consecutive sections that are not defective, for
peers the sum of what they found in between; pixels along an axis. The ratio is to the fastest peer that is about
as accurate on the stack without defects.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from peers import Peer
from scipy.ndimage import correlate1d, gaussian_filter
from skimage.registration import phase_cross_correlation

from emloom.geometry import Box
from emloom.ops.preparedsections import prepare
from emloom.ops.sectionpositions import solve_positions
from emloom.ops.sectionshifts import known_links, link, pairs
from emloom.testing.phantom import Phantom, PhantomSpec

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
COUNT, SIDE, TILE, FADE = 100, 2048, 1152, 6
PEER_SECTIONS, ECC_SECTIONS = 21, 11
LAGS, UPSAMPLE = (1, 2, 3), 10
ECC = {"iterations": 50, "tolerance": 1e-3}
AS_ACCURATE = 0.3  # pixels, or twice our error


def tissue() -> list[F32]:
    """Return pictures of unrelated tissue, mean 0, deviation 1; by mirroring, each repeats after 2304 pixels."""
    number = COUNT // FADE + 2
    phantom = Phantom(PhantomSpec.sections((12 * number, TILE, TILE), seed=3))
    out = []
    for k in range(number):
        picture = phantom.raw.read(Box((12 * k, 0, 0), (1, TILE, TILE)))[0].astype(np.float32)
        picture = (picture - picture.mean()) / picture.std()
        wide = np.concatenate([picture, picture[::-1]])
        out.append(np.concatenate([wide, wide[:, ::-1]], axis=1))
    return out


def moved(picture: F32, by: F64) -> F32:
    """Return the first SIDE x SIDE pixels of a picture that repeats, moved, by Lanczos's kernel of 10 taps."""
    for axis in (0, 1):
        whole = int(np.floor(by[axis]))
        at = np.arange(-4, 6) - (by[axis] - whole)
        kernel = np.sinc(at) * np.sinc(at / 5)
        # correlate1d: out[i] = sum kernel[k] in[i + k - 5]; content moves by `whole` and the fraction.
        picture = np.roll(picture, whole, axis)
        picture = correlate1d(picture, (kernel / kernel.sum())[::-1], axis=axis, origin=0, mode="wrap")
    return picture[:SIDE, :SIDE]


def planted(rng: np.random.Generator) -> F64:
    step = rng.normal(0, 6, (COUNT, 2))
    jumps = np.arange(6, COUNT, 20)
    step[jumps] += rng.uniform(-150, 150, (len(jumps), 2))
    return np.cumsum(step, axis=0)


def stack_of(places: F64, rng: np.random.Generator) -> U8:
    pictures = tissue()
    out = np.empty((COUNT, SIDE, SIDE), np.uint8)
    for z in range(COUNT):
        k, share = z // FADE, np.float32(z % FADE / FADE)
        picture = (1 - share) * pictures[k] + share * pictures[k + 1]
        own = np.roll(pictures[rng.integers(len(pictures))], rng.integers(0, 2 * TILE, 2), (0, 1))
        picture = picture + np.float32(0.7) * own[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
        seen = 128 + 32 * moved(picture, places[z]) + 8 * rng.standard_normal((SIDE, SIDE), np.float32)
        out[z] = np.clip(np.rint(seen), 0, 255)
    return out


def damaged(stack: U8, rng: np.random.Generator) -> tuple[U8, list[int]]:
    """Return the stack with ten bad sections, spread so that the peers' part has its share, and which they are."""
    bad = [10 * k + int(rng.integers(2, 9)) for k in range(COUNT // 10)]
    out = stack.copy()
    kinds: list[Callable[[U8], NDArray[np.generic]]] = [
        lambda s: np.full_like(s, int(s.mean())),
        lambda s: rng.integers(0, 256, s.shape, np.uint8),
        lambda s: np.zeros_like(s),
        lambda s: (120 + 0.02 * (s - 128.0)).astype(np.uint8),
        lambda s: gaussian_filter(s, 30),
        lambda s: np.roll(s[::-1], 700, 0),
    ]
    for k, z in enumerate(bad):
        out[z] = kinds[k % len(kinds)](stack[z])
    return out, bad


def ours(stack: U8, lags: tuple[int, ...], reference: bool) -> tuple[float, float, F64]:
    """Return seconds of the clock and of processors, and positions."""
    began = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(2) as pool:
        sections = list(pool.map(prepare, stack))
        which = pairs(len(stack), lags, (len(stack) // 2,) if reference else ())
        found = list(pool.map(lambda pair: link(sections[pair[0]], sections[pair[1]]), which))
    positions = solve_positions(len(stack), known_links(which, found)[0])
    return time.perf_counter() - began[0], time.process_time() - began[1], positions.shift


def scikit(stack: U8) -> tuple[float, F64]:
    began = time.process_time()
    found = [-phase_cross_correlation(a, b, upsample_factor=UPSAMPLE)[0] for a, b in pairwise(stack)]
    return (time.process_time() - began) / (len(stack) - 1), np.array(found)


def opencv(stack: U8) -> tuple[float, F64]:
    with Peer("opencv_ecc.py", {"stack": stack}, home="", **ECC) as peer:
        return peer.seconds() / (len(stack) - 1), peer.results()["shifts"]


def errors(steps: F64, places: F64, bad: list[int]) -> tuple[float, float]:
    """Return the median and the 95th percentile of what displacements between consecutive sections miss."""
    found = np.concatenate([np.zeros((1, 2)), np.cumsum(np.nan_to_num(steps, nan=0.0), axis=0)])
    good = np.array([z for z in range(len(found)) if z not in bad])
    wrong = np.abs(np.diff(found[good] - (places[good] - places[0]), axis=0))
    return float(np.median(wrong)), float(np.quantile(wrong, 0.95))


def main() -> None:
    rng = np.random.default_rng(0)
    places = planted(rng)
    stack = stack_of(places, rng)
    broken, bad = damaged(stack, rng)
    ours(stack[:6], LAGS, True)  # compiles
    table: dict[str, list[str]] = {}
    medians, seconds, clock = {}, {}, {}
    for kind, seen, out in (("whole", stack, []), ("damaged", broken, bad)):
        for name, lags, reference in (("emloom, all links", LAGS, True), ("emloom, neighbours only", (1,), False)):
            wall, processors, shift = ours(seen, lags, reference)
            median, high = errors(-np.diff(shift, axis=0), places, out)
            table.setdefault(name, []).append(f"{median:8.3f} {high:8.3f}")
            if kind == "whole":
                medians[name], seconds[name], clock[name] = median, processors / 2, f"{wall:7.1f}"
        for name, peer, count in (("scikit-image", scikit, PEER_SECTIONS), ("OpenCV ECC", opencv, ECC_SECTIONS)):
            each, steps = peer(seen[:count])
            median, high = errors(steps, places, out)
            table.setdefault(name, []).append(f"{median:8.3f} {high:8.3f}")
            if kind == "whole":
                medians[name], seconds[name] = median, each * (COUNT - 1) / 2
    print(f"{COUNT} sections of {SIDE} x {SIDE}; peers on {PEER_SECTIONS} and {ECC_SECTIONS} sections, scaled")
    print(f"{'':26}{'seconds':>8}{'clock':>8}   errors, whole      with bad sections (median, 95 %; pixels)")
    for name, cells in table.items():
        print(f"{name:<26}{seconds[name]:8.1f}{clock.get(name, ''):>8} {'  '.join(cells)}")
    first, alone = "emloom, all links", "emloom, neighbours only"
    peers = [name for name in seconds if not name.startswith("emloom")]
    able = [name for name in peers if medians[name] <= max(AS_ACCURATE, 2 * medians[first])]
    best = min(able or peers, key=lambda name: seconds[name])
    if not able:
        print("no peer is as accurate: the ratio is to the fastest one")
    print(f"neighbours only, as the peers do it: {seconds[best] / seconds[alone]:.1f} times as fast as {best}")
    print(f"everything, against {best}:")
    print(f"RATIO align {seconds[best] / seconds[first]:.1f}")


if __name__ == "__main__":
    main()
