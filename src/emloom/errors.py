"""The one error a person should ever see.

An `InputError` says what is wrong with something the user gave us, in one paragraph that names the value, the
rule it breaks and the way out::

    voxel size is missing in raw.tif: pass --voxel-size 40,4,4 (nm, z,y,x)

The command line prints it without a traceback and exits with status 2. Anything else that escapes is a bug in
emloom: one line, and a file with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's data, job file or arguments break a stated rule.

    Attributes:
        exit_status: of the command line where it ends with this error.
    """

    exit_status: int = 2


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest valid word, or an empty string."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
