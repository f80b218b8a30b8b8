"""A driver with two workers of its own: ``python -m tests.run.driving FOLDER``. Prints their process ids first."""

from __future__ import annotations

import sys
from pathlib import Path

from emloom.cli.main import main as cli_main
from emloom.run.cluster import Dask
from emloom.run.runner import run_stage
from tests.run.painting import paint_stage


def drive(**_: object) -> None:
    folder = Path(sys.argv[1])
    with Dask(workers=2) as dask:
        print(*dask.worker_pids(), flush=True)
        run_stage(paint_stage(folder, pause_s=0.3), folder, dask)


if __name__ == "__main__":
    import emloom.cli.main

    emloom.cli.main.app = drive  # type: ignore[assignment]  # its errors and Ctrl-C, as a user meets them
    cli_main()
