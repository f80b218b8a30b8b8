"""Runs that are killed at random moments: ``python -m tests.run.crashing FOLDER SEED KILLS``.

This process loads everything once, starts no thread, and forks a driver per kill: kills are cheap. A driver goes
on where the one before was killed; where one finishes, the next begins in a new folder.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from emloom.run.executor import Serial
from emloom.run.runner import run_stage
from tests.run.painting import paint_stage


def paint(folder: Path) -> None:
    run_stage(paint_stage(folder), folder, Serial())


def main(root: Path, seed: int, kills: int) -> None:
    draw = random.Random(seed)
    killed = finished = 0
    while killed < kills:
        folder = root / str(finished)
        folder.mkdir(exist_ok=True)
        child = os.fork()
        if not child:
            paint(folder)
            os._exit(0)
        time.sleep(draw.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        _, ended = os.waitpid(child, 0)
        if os.WIFSIGNALED(ended):
            killed += 1
        elif os.WEXITSTATUS(ended):
            sys.exit(f"the driver failed with status {os.WEXITSTATUS(ended)}")
        else:
            finished += 1
    print(json.dumps({"killed": killed, "finished": finished}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
