"""How the synapses of a phantom look, and which voxels are their clefts.

From the pre neurite to the post neurite, through the middle of a cleft (nm, at a membrane of 8)::

      vesicles      |  pre membrane  | cleft |  post membrane  |  post density, fuzzy
    -175 ... -25    |  -14 ... -2    |       |    2 ... 10     |   10 ... 30
                    '------------ label of the cleft: -20 ... 20 -----------'

A zone is a disc around the contact on the membrane between the two. Where a pre site has several post sites, a
dense body (the T-bar of a fly: a stalk that bears a plate) stands at it. Vesicles are dark rings; a section shows
those within its thickness.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from emloom.testing.tissue import F64, noise

# A contact: point (3), normal towards the post neurite (3), pre neurite, post neurite, radius of the disc, half
# the thickness of the cleft's label, polyad, 1 where a dense body stands.
NORMAL, PRE, POST, RADIUS, HALF, POLYAD, BODY, CONTACT = 3, 6, 7, 8, 9, 10, 11, 12
# Nothing of a contact is farther from its point along the normal, nor of a vesicle from its centre.
ALONG_NM, VESICLE_REACH_NM = 80.0, 30.0
# The rim of a disc is uneven by up to this, and fades over this.
UNEVEN_NM, FADE_NM = 22.0, 10.0
EDGE_NM = UNEVEN_NM + FADE_NM
DARK = 44.0
# Stream of random numbers.
RIM, RIM_NM = 90, 65.0


class Zones(NamedTuple):
    """The synapses that matter in a box.

    Attributes:
        contacts: [N, CONTACT], nm.
        vesicles: centres [N, 3], nm.
    """

    contacts: F64
    vesicles: F64


def no_zones() -> Zones:
    """Return no synapses."""
    return Zones(np.empty((0, CONTACT)), np.empty((0, 3)))


@njit(cache=True, nogil=True)
def contacts_near(contacts: F64, centre: F64, radius: float, out: F64) -> int:
    """Copy the contacts that matter within a ball; return how many."""
    n = 0
    for i in range(len(contacts)):
        reach = radius + np.sqrt((contacts[i, RADIUS] + EDGE_NM) ** 2 + ALONG_NM**2)
        if _squared(contacts[i], centre) <= reach * reach:
            for k in range(CONTACT):
                out[n, k] = contacts[i, k]
            n += 1
    return n


@njit(cache=True, nogil=True)
def vesicles_near(vesicles: F64, centre: F64, radius: float, out: F64) -> int:
    """Copy the vesicles that matter within a ball; return how many."""
    n, reach = 0, radius + VESICLE_REACH_NM
    for i in range(len(vesicles)):
        if _squared(vesicles[i], centre) <= reach * reach:
            for k in range(3):
                out[n, k] = vesicles[i, k]
            n += 1
    return n


@njit(cache=True, nogil=True)
def _squared(a: F64, b: F64) -> float:
    return float((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2)


@njit(cache=True, nogil=True)
def _place(contact: F64, at: tuple[float, float, float]) -> tuple[float, float]:
    """Return how far a point is along the contact's normal, and across it."""
    z, y, x = at[0] - contact[0], at[1] - contact[1], at[2] - contact[2]
    along = z * contact[NORMAL] + y * contact[NORMAL + 1] + x * contact[NORMAL + 2]
    return along, np.sqrt(max(z * z + y * y + x * x - along * along, 0.0))


@njit(cache=True, nogil=True)
def cleft(contacts: F64, at: tuple[float, float, float], who: tuple[float, float], depth: float) -> int:
    """Return the polyad whose cleft holds a point, or 0. `who`: its neurite and the next; `depth`: see tissue."""
    best, polyad = np.inf, 0
    uneven = _uneven(at)
    for i in range(len(contacts)):
        contact = contacts[i]
        if depth <= contact[HALF] and _is_pair(contact, who):
            along, across = _place(contact, at)
            if across + uneven <= contact[RADIUS] and abs(along) <= ALONG_NM and across < best:
                best, polyad = across, int(contact[POLYAD])
    return polyad


@njit(cache=True, nogil=True)
def _uneven(at: tuple[float, float, float]) -> float:
    return UNEVEN_NM * noise(0, RIM, at[0] / RIM_NM, at[1] / RIM_NM, at[2] / RIM_NM)


@njit(cache=True, nogil=True)
def _is_pair(contact: F64, who: tuple[float, float]) -> bool:
    a, b = contact[PRE], contact[POST]
    return bool((who[0] == a and who[1] == b) or (who[0] == b and who[1] == a))


@njit(cache=True, nogil=True)
def shade(
    contacts: F64,
    at: tuple[float, float, float],
    who: tuple[float, float],
    seen: tuple[float, float, float],
) -> float:
    """Return how dark synapses make a point, 0..1. `seen`: depth, blur through the section (nm), membrane (nm)."""
    darkest = 0.0
    uneven = _uneven(at) if len(contacts) else 0.0
    for i in range(len(contacts)):
        contact = contacts[i]
        along, across = _place(contact, at)
        if abs(along) > ALONG_NM:
            continue
        if contact[BODY] > 0.0 and who[0] == contact[PRE]:
            darkest = max(darkest, _body(-along, across))
        if _is_pair(contact, who):
            window = (contact[RADIUS] + FADE_NM - across - uneven) / (2.0 * FADE_NM)
            darkest = max(darkest, min(1.0, window) * _density(who[0] == contact[POST], seen))
    return darkest


@njit(cache=True, nogil=True)
def _density(post: bool, seen: tuple[float, float, float]) -> float:
    """Return how dark the membranes of a synapse are at a depth below the middle of the cleft."""
    depth, blur, membrane = seen
    if depth < 0.4 * membrane:
        return 0.45
    end, fuzz, most = (3.5 * membrane, 3.5, 0.88) if post else (1.7 * membrane, 2.0, 0.62)
    fuzz = np.sqrt(fuzz * fuzz + blur * blur)
    return float(most / (1.0 + np.exp((depth - end) / fuzz)))


@njit(cache=True, nogil=True)
def _body(up: float, across: float) -> float:
    """Return how dark a dense body is: a stalk on the membrane and a plate on top of it."""
    stalk = max(across - 16.0, up - 52.0)
    plate = max(across - 44.0, abs(up - 50.0) - 9.0)
    return float(0.95 / (1.0 + np.exp(min(stalk, plate) / 2.5))) if up > 0.0 else 0.0


@njit(cache=True, nogil=True)
def rings(vesicles: F64, at: tuple[float, float, float], through: float) -> float:
    """Return how much darker vesicles make a point, grey levels; `through`: nm along z that are seen at once."""
    total = 0.0
    for i in range(len(vesicles)):
        z, y, x = abs(at[0] - vesicles[i, 0]), at[1] - vesicles[i, 1], at[2] - vesicles[i, 2]
        z = max(z - through, 0.0)
        away = np.sqrt(z * z + y * y + x * x)
        if away < VESICLE_REACH_NM:
            # A ring, and the haze of what is between vesicles.
            total += 62.0 * np.exp(-(((away - 15.0) / 5.5) ** 2)) + 14.0 * (1.0 - (away / VESICLE_REACH_NM) ** 2)
    return float(min(total, 80.0))
