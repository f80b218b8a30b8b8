"""Things a process makes once and keeps, such as a loaded network, for functions that run block after block.

Block functions travel to their workers as small values; what is large is made there, for the first block::

    model = once(("model", path, device), lambda: load(path, device))
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

MOST = 2  # one in use, and one of the stage before while a late block of it still runs
_kept: OrderedDict[Hashable, Any] = OrderedDict()
_lock = threading.Lock()


def once(key: Hashable, make: Callable[[], T]) -> T:
    """Return what `make` returned when this process first asked for `key`.

    The `MOST` things asked for last are kept. Whatever decides the value belongs into the key.
    """
    with _lock:  # held while making: two threads must not load the same network twice
        if key not in _kept:
            while len(_kept) >= MOST:
                _kept.popitem(last=False)
            _kept[key] = make()
        _kept.move_to_end(key)
        found: T = _kept[key]
        return found


def worker_number() -> int:
    """Return the number of this process among the workers of a local cluster; 0 where it is none, or has a name.

    For what there is one of for each worker, such as a GPU.
    """
    if "distributed" not in sys.modules:
        return 0
    from distributed import get_worker

    try:
        name = get_worker().name
    except ValueError:
        return 0
    return name if isinstance(name, int) else 0


def forget_all() -> None:
    """Drop everything this process keeps."""
    with _lock:
        _kept.clear()
