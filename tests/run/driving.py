"""A driver with two workers of its own: ``python -m tests.run.driving FOLDER``. Prints their process ids first."""

from __future__ import annotations

import sys
from pathlib import Path

from emloom.cli.main import main as cli_main
from emloom.run.cluster import Dask
from emloom.run.runner import run_stage
from tests.run.painting import paint_stage


def drive() -> None:
    folder = Path(sys.argv[1])
    with Dask(workers=2) as dask:
        print(*dask.worker_pids(), flush=True)
        # Nine seconds: on a machine that is busy the blow may come late.
        run_stage(paint_stage(folder, pause_s=1.0), folder, dask)


if __name__ == "__main__":
    import emloom.cli.main

    emloom.cli.main.app = drive  # type: ignore[assignment]  # its errors and Ctrl-C, as a user meets them
    cli_main()
