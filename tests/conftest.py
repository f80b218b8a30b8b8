"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Arrays of tests are small, and other test processes want the cores: threads that wait for one another take ten
# times as long as one thread alone. Read by torch when it is first imported, and by the processes of tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests never assert on time: a machine may be busy, and the first call of a kernel compiles it. The gate draws the
# same examples every time, so that it says the same of the same code; `make test-search` draws others.
settings.register_profile("emloom", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("EMLOOM_HYPOTHESIS", "emloom"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real EM data; the test is skipped, with the reason, where it is absent."""
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("EMLOOM_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"real EM data not found at {folder}: set EMLOOM_DATA to its folder")
    return folder


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command that runs inside of a test sets what is logged, and leaves a handler: others see nothing of it."""
    logs = logging.getLogger("emloom")
    level, handlers = logs.level, logs.handlers[:]
    yield
    logs.setLevel(level)
    logs.handlers[:] = handlers
