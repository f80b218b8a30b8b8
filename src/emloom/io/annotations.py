"""Synaptic sites as points: who is where, and who talks to whom.

Everything refers to a site by its id: partners are pairs (pre, post) of ids, in no relation to the order of the
sites. Positions are absolute world positions in nm, whatever the file that held them counted from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

PRE = "presynaptic_site"
POST = "postsynaptic_site"


@dataclass(frozen=True, eq=False)
class Annotations:
    """Annotated sites, their partners and comments.

    Attributes:
        ids: uint64 [n], each once.
        types: n words, usually ``presynaptic_site`` or ``postsynaptic_site``.
        locations_nm: float64 [n, 3], world positions (z, y, x) in nm.
        partners: uint64 [m, 2], ids of (pre site, post site).
        comment_ids: uint64 [k], the sites that comments are about.
        comments: k texts.
        source: path shown in messages.

    Raises:
        InputError: lengths disagree, an id stands twice, a position is not finite, a partner or a comment is about
            a site that does not exist, or partners are not a pre and a post site.
    """

    ids: NDArray[np.uint64]
    types: tuple[str, ...]
    locations_nm: NDArray[np.float64]
    partners: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 2), np.uint64))
    comment_ids: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    comments: tuple[str, ...] = ()
    source: str = "annotations"

    def __post_init__(self) -> None:
        n = len(self.ids)
        lengths = {"types": len(self.types), "locations": len(self.locations_nm)}
        if set(lengths.values()) != {n} or len(self.comments) != len(self.comment_ids):
            raise InputError(
                f"{self.source} has {n} ids, {len(self.types)} types, {len(self.locations_nm)} locations, "
                f"{len(self.comment_ids)} ids of comments and {len(self.comments)} comments: one of each per "
                "site, and one id per comment"
            )
        shapes = (np.shape(self.ids), np.shape(self.locations_nm), np.shape(self.partners)[1:])
        if shapes != ((n,), (n, 3), (2,)):
            raise InputError(f"{self.source}: ids are [n], locations [n, 3] and partners [m, 2], got {shapes}")
        if not np.isfinite(self.locations_nm).all():
            raise InputError(f"{self.source} has locations that are not finite: give z, y, x in nm")
        twice = [i for i, count in Counter(self.ids.tolist()).items() if count > 1]
        if twice:
            raise InputError(f"{self.source}: the site {twice[0]} stands twice: an id names one site")
        self._check_references()

    def _check_references(self) -> None:
        kind = dict(zip(self.ids.tolist(), self.types, strict=True))
        for what, used in (("partners", self.partners.ravel()), ("comments", self.comment_ids)):
            strangers = [i for i in used.tolist() if i not in kind]
            if strangers:
                raise InputError(f"{self.source}: {what} name the site {strangers[0]}, which does not exist")
        for pre, post in self.partners.tolist():
            if (kind[pre], kind[post]) != (PRE, POST):
                raise InputError(
                    f"{self.source}: partners ({pre}, {post}) are ({kind[pre]}, {kind[post]}): a pair is ({PRE}, "
                    f"{POST}), in this order"
                )

    def location(self, site: int) -> NDArray[np.float64]:
        """Return the world position (z, y, x) in nm of a site; raises `InputError` where there is none."""
        (row,) = np.nonzero(self.ids == np.uint64(site))
        if len(row) == 0:
            raise InputError(f"{self.source} has no site {site}")
        position: NDArray[np.float64] = self.locations_nm[row[0]]
        return position
