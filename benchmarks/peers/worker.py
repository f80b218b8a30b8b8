"""Runs a peer script, round by round, as the lines on stdin say: ``python worker.py SCRIPT FOLDER``.

FOLDER holds options.json and inputs/*.npy. One line of JSON answers when the script is ready and after every line:
``round`` runs once (its CPU seconds), ``save`` writes the last round's arrays to results/*.npy.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from pathlib import Path

import numpy as np


def main(script: str, folder: Path) -> None:
    # Libraries print: what they say goes to stderr, answers alone to the real stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    inputs = {path.stem: np.load(path) for path in sorted((folder / "inputs").glob("*.npy"))}
    options = json.loads((folder / "options.json").read_text())
    run = runpy.run_path(script)["prepare"](inputs, options)
    results, answer = {}, {"ready": True}
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "round":
            results = {}  # or the next round would have to find other memory
            start = time.process_time()
            results = run()
            answer = {"seconds": time.process_time() - start}
        else:
            for name, array in results.items():
                np.save(folder / "results" / f"{name}.npy", array)
            answer = {"saved": sorted(results)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
