"""The page of a study: what each arm keeps, over all its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emloom.metrics.replicates import Replicated
from emloom.view.figures import Figure
from emloom.view.frequencyfigures import KeptLine, fidelity_plot, share_plot
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict

_LINES = 6  # of one plot: more cannot be told apart


@dataclass(frozen=True)
class Found:
    """What a study found about one arm and one test.

    Attributes:
        arm: its name.
        test: name of the test.
        values: by statistic, e.g. `psnr_db` or `ratio_1`: the mean over seeds and its interval.
    """

    arm: str
    test: str
    values: Mapping[str, Replicated]


def write_study_report(
    name: str,
    found: Sequence[Found],
    wavelengths_nm: Mapping[str, Sequence[float]],
    folder: Path,
    provenance: Mapping[str, Any],
) -> Path:
    """Write `report.html` into the folder of a study; return its path.

    Args:
        name: of the study.
        found: arm by arm.
        wavelengths_nm: of the levels, finest first, by test.
        folder: of the study.
        provenance: what the page shows at its end.
    """
    tests = list(dict.fromkeys(each.test for each in found))
    seeds = found[0].values["psnr_db"].n
    report = Report(
        title=name,
        subtitle=f"{seeds} seeds",
        done=f"The same job was trained in several ways, each with {seeds} seeds, and judged on the same boxes.",
        verdict=_verdict(found),
        scores=[
            Score(f"PSNR, {each.arm}", each.values["psnr_db"].value, f"dB on {each.test}; mean over seeds")
            for each in found[:4]
        ],
        sections=[_test(test, [f for f in found if f.test == test], wavelengths_nm[test]) for test in tests],
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _verdict(found: Sequence[Found]) -> Verdict:
    test = found[0].test
    best = max((each for each in found if each.test == test), key=lambda each: each.values["psnr_db"].value)
    return Verdict(f"PSNR on {test} is highest for {best.arm}, {said(best.values['psnr_db'], 2)} dB.")


def fidelity_figure(found: Sequence[Found], wavelengths_nm: Sequence[float]) -> Figure:
    """Return the ratios and coherences of several arms, with intervals over seeds."""
    levels = range(1, len(wavelengths_nm) + 1)
    lines = [
        KeptLine(
            each.arm,
            list(wavelengths_nm),
            [each.values[f"ratio_{level}"] for level in levels],
            [each.values[f"coherence_{level}"] for level in levels],
        )
        for each in found
    ]
    return fidelity_plot(
        lines, {}, caption="Means over seeds; bands are 95 % intervals of Student's t over seeds."
    )


def said(value: Replicated, digits: int = 3) -> str:
    """Return a mean and its interval in words."""
    if value.low != value.low:
        return f"{value.value:.{digits}f}"
    return f"{value.value:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def _test(test: str, found: Sequence[Found], wavelengths_nm: Sequence[float]) -> Section:
    levels = range(len(wavelengths_nm), 0, -1)
    rows: list[list[Cell]] = [
        [
            each.arm,
            said(each.values["psnr_db"], 2),
            *(each.values[f"ratio_{level}"].value for level in levels),
        ]
        for each in found
    ]
    coherences: list[list[Cell]] = [
        [each.arm, *(each.values[f"coherence_{level}"].value for level in levels)] for each in found
    ]
    names = [f"{wavelengths_nm[level - 1]:g} nm" for level in levels]
    text = (
        "Intervals say how much training varies from seed to seed, on these data; not how much data vary. "
        "Every run has a page of its own under runs/."
    )
    drawn = [found[at : at + _LINES] for at in range(0, len(found), _LINES)]
    figures = [fidelity_figure(part, wavelengths_nm) for part in drawn]
    shares = {"raw": [found[0].values[f"raw_share_{level}"].value for level in range(1, len(wavelengths_nm) + 1)]}
    for each in found[: _LINES - 1]:
        shares[each.arm] = [each.values[f"share_{level}"].value for level in range(1, len(wavelengths_nm) + 1)]
    figures.append(share_plot(wavelengths_nm, shares))
    return Section(
        f"On {test}",
        text,
        figures,
        [
            Table(["arm", "PSNR (dB)", *names], rows, "power kept (ratio), by wavelength; mean over seeds"),
            Table(["arm", *names], coherences, "coherence, by wavelength; mean over seeds"),
        ],
    )
