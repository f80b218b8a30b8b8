"""Marks that tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def first_fast(values: Sequence[Any]) -> list[Any]:
    """Return parameters of a test that takes seconds: the first as it is, the others for `make test-slow`."""
    return [values[0], *(pytest.param(value, marks=pytest.mark.slow) for value in values[1:])]
