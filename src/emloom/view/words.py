"""What the words of a report mean: each is explained where it stands, and once more at the end of the page.

`explained` turns text into safe HTML in which known words are `<abbr>` elements, so that a mouse finds the
explanation; `used` tells which words a page holds, so that fingers, keyboards and paper find it too. Longer words
win: in "VOI split" it is VOI split that is explained, not VOI. A word is explained once in a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from markupsafe import Markup, escape

WORDS: Mapping[str, str] = {
    "ADF": "mean distance (nm) of cleft voxels of the truth from the nearest of the result; 0 is perfect",
    "ADGT": "mean distance (nm) of cleft voxels of the result from the nearest of the truth; 0 is perfect",
    "adapted Rand error": "1 minus the F-score of pairs of voxels in one object; 0 is perfect",
    "affinity": "how sure it is, from 0 to 1, that a voxel and its neighbour lie in the same object",
    "ARE": "adapted Rand error: 1 minus the F-score of pairs of voxels in one object; 0 is perfect",
    "average precision": "area under precision against recall; 1 is perfect, chance is the share of positives",
    "balanced accuracy": "mean over the classes of the part of each that is called right; 1 is perfect",
    "Brier score": "mean squared distance between probability and truth; 0 is perfect",
    "cleft": "the gap between the two membranes of a synapse",
    "Cohen's kappa": "agreement beyond what chance would give; 1 is perfect, 0 is chance",
    "coherence": "whether what is left at a wavelength is the same structure: 1 is the same, 0 is unrelated",
    "confidence": "share of the class that won minus that of the runner-up: not the probability of being right",
    "CREMI score": "root of VOI times adapted Rand error (of clefts: mean of both distances); 0 is perfect",
    "Dice": "twice the overlap over the sum of both sizes; 1 is perfect, 0 is no overlap",
    "ECE": "expected calibration error: how far probabilities are from what comes true; 0 is perfect",
    "ERL": "expected run length: how far one can follow a neurite from a random point before an error, in nm",
    "expected run length": "how far one can follow a neurite from a random point before an error, in nm",
    "F-score": "harmonic mean of precision and recall; 1 is perfect, 0 the worst",
    "F1": "harmonic mean of precision and recall; 1 is perfect, 0 the worst",
    "false positives per section": "what was called an artifact and is none, divided by the number of sections",
    "halo": "margin of voxels that a block reads and does not write, so that its borders leave no trace",
    "IoU": "intersection over union: overlap divided by what either covers; 1 is perfect, 0 is no overlap",
    "MCE": "maximum calibration error: the worst distance of a probability from the frequency that comes true",
    "merge error": "one segment that covers several true objects",
    "PSNR": "peak signal-to-noise ratio in dB: higher is closer to the raw; 6 dB more is half the error",
    "panoptic quality": "F1 of the matched objects times their mean IoU; 1 is perfect",
    "partner F-score": "F-score of pairs of pre and post site, as CREMI counts them; 1 is perfect",
    "post site": "place just inside the neurite that receives",
    "pre site": "place just inside the neurite that sends",
    "precision": "part of what was found that is true; 1 is perfect",
    "recall": "part of what is true that was found; 1 is perfect",
    "residual": "how far a matched place still is from where it should be, after everything was moved",
    "rmse": "root of the mean squared difference from the raw, in grey levels; 0 is perfect",
    "ROC AUC": "probability that a positive is scored above a negative; 1 is perfect, 0.5 is chance",
    "split error": "one true object that lies in several segments",
    "threshold": "where a score is cut: what is above is taken (of affinities: what is above is merged)",
    "VOI": "variation of information, split plus merge, in bits: how much is wrong; 0 is perfect",
    "VOI merge": "bits that are lost because segments cover several true objects; 0 is perfect",
    "VOI split": "bits that are lost because true objects lie in several segments; 0 is perfect",
}
"""Word -> what it means, in one phrase that says the unit and what is good."""


@cache
def _pattern() -> re.Pattern[str]:
    longest_first = sorted(WORDS, key=len, reverse=True)
    words = "|".join(re.escape(word) for word in longest_first)
    # Paths and names (VOI.csv, my_VOI) hold no words; those of other capitals do: "Precision".
    return re.compile(rf"(?<![\w./-])(?:{words})s?(?![\w/]|\.\w|-\w)", re.IGNORECASE)


@cache
def _key(found: str) -> str | None:
    """Return the word that was found; None where capitals say that it is another one."""
    for word in (found, found.removesuffix("s")):
        for key in WORDS:
            # An abbreviation is written as it is.
            if word == key or (not _is_abbreviation(key) and word.lower() == key.lower()):
                return key
    return None


def _is_abbreviation(word: str) -> bool:
    return sum(letter.isupper() for letter in word.partition(" ")[0]) > 1


def explained(text: str) -> Markup:
    """Return a text as HTML; the first of every known word carries its explanation."""
    out, end, seen = Markup(), 0, set()
    for match in _pattern().finditer(text):
        key = _key(match.group())
        if key is None or key in seen:
            continue
        seen.add(key)
        out += escape(text[end : match.start()])
        out += Markup('<abbr title="{}">{}</abbr>').format(WORDS[key], match.group())
        end = match.end()
    return out + escape(text[end:])


def used(texts: Iterable[str]) -> dict[str, str]:
    """Return the known words that texts hold, with what they mean, in the order of the alphabet."""
    keys = {key for text in texts for match in _pattern().finditer(text) if (key := _key(match.group()))}
    return {key: WORDS[key] for key in sorted(keys, key=str.lower)}
