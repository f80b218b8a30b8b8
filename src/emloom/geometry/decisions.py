"""What a proofreader decided about two sides of a place: merge them, split them, or leave them as they are.

A side is a fragment or segment by its id, or a point of the world that lies in one::

    decision   a      b                       decision   at_z_nm  at_y_nm  at_x_nm  to_z_nm  to_y_nm  to_x_nm
    merge      812    1004                    split      400      1204     996      400      1204     1004
    ok         7      9                       merge      40       16       80       40       16       88
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from emloom.errors import InputError, did_you_mean
from emloom.geometry.grid import Vec3

Verb = Literal["merge", "split", "ok"]
VERBS: tuple[str, ...] = get_args(Verb)
Side = int | Vec3


@dataclass(frozen=True)
class Decision:
    """One decision.

    Attributes:
        verb: `merge` joins two segments, `split` cuts one between the sides, `ok` says that it is right as it is.
        a: one side: the id of a fragment or segment, or a point (z, y, x) in nm.
        b: the other side.
        row: where it stands, for messages: ``edits.csv, row 3``.
    """

    verb: Verb
    a: Side
    b: Side
    row: str = ""


def verb_of(text: str, row: str) -> Verb | None:
    """Return what a word means, None for no word; raises `InputError` where it is another one."""
    word = text.strip().lower()
    if not word:
        return None
    if word not in VERBS:
        hint = did_you_mean(word, VERBS)
        raise InputError(
            f"{row}: the decision {text.strip()!r} is unknown{hint}: write merge, split or ok, or nothing"
        )
    return cast(Verb, word)


def answer_of(comments: Sequence[str], row: str) -> Verb | None:
    """Return the decision in the comments of a tree: a word of its own, or what follows the last colon.

    Raises:
        InputError: behind the colon stands another word, or two comments decide differently.
    """
    said = set()
    for text in comments:
        alone = text.strip().lower()
        if alone in VERBS:
            said.add(verb_of(alone, row))
        elif ":" in text:
            said.add(verb_of(text.rpartition(":")[2], row))
    said.discard(None)
    if len(said) > 1:
        raise InputError(f"{row}: comments say {' and '.join(sorted(map(str, said)))}: keep one")
    return said.pop() if said else None
