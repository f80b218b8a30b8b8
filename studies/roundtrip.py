"""What damage costs a small network once it is aligned and repaired: the table of docs/alignment.md.

    python studies/roundtrip.py OUT [STEPS [DRAWS [LESSON]]]

Trains a network for STEPS (default 300) on undamaged tissue of seed LESSON (1), plants DRAWS (8) draws of damage
in other tissue, aligns, repairs, segments, brings back, and prints the Rand F-scores: undamaged, repaired and
damaged; lost sections left out, and with them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from emloom.testing.roundtrip import RoundTrip, misfortunes, trained


def main(out: Path, steps: int = 300, draws: int = 8, lesson: int = 1) -> None:
    model = trained(out / f"lesson-{lesson}-{steps}", steps, lesson)
    lost = []
    names = ("draw", "undamaged", "repaired", "damaged", "lost", "repaired, all", "lost, all")
    print(f"| {' | '.join(names)} |\n" + "|---" * len(names) + "|")
    for seed in range(1, draws + 1):
        folder = out / f"draw-{lesson}-{steps}-{seed}"
        trip = RoundTrip(folder, damage=misfortunes(seed))
        _ = trip.fixed
        (folder / "net").mkdir()
        seen, everything = (trip.network_scores(model, folder / "net", only) for only in (True, False))
        lost.append((1 - seen[1] / seen[0], 1 - everything[1] / everything[0]))
        cells = [*seen, lost[-1][0], everything[1], lost[-1][1]]
        print(f"| {seed} | " + " | ".join(f"{value:.4f}" for value in cells) + " |", flush=True)
        shutil.rmtree(folder)
    of = np.array(lost)
    print(f"lost, seen: median {np.median(of[:, 0]):.4f}, most {of[:, 0].max():.4f}")
    print(f"lost, all: median {np.median(of[:, 1]):.4f}, most {of[:, 1].max():.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:]))
