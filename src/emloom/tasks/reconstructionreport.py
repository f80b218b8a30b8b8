"""The page of a reconstruction job: how much comes through, at which wavelengths, and how it looks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emloom.geometry import Box
from emloom.tasks.frequency import Kept
from emloom.tasks.reconstructionjob import ReconstructionJob, TestItem
from emloom.view.colours import grey
from emloom.view.curves import training_curves
from emloom.view.figures import Figure, Tile, panel
from emloom.view.frequencyfigures import KeptLine, fidelity_plot
from emloom.view.report import Cell, Command, Link, Report, Score, Section, Table, page_below, summed_up

_SHOWN_VOX = 256


@dataclass(frozen=True)
class Judged:
    """What was found about one test."""

    item: TestItem
    kept: Kept


def write_reconstruction_report(
    job: ReconstructionJob, judged: Sequence[Judged], folder: Path, provenance: Mapping[str, Any]
) -> None:
    """Write `report.html` into the folder of a finished run."""
    cards = [
        Score(f"PSNR, {each.item.name}", each.kept.psnr_db, "dB; the range is that of the type")
        for each in judged[:4]
    ]
    report = Report(
        title=job.name,
        subtitle=", ".join(stack.raw for stack in job.data),
        done="A network was trained to give back what it sees, and judged on boxes that it had not seen.",
        verdict=summed_up(cards, "in dB, higher is closer; the raw holds noise, which nothing should give back"),
        scores=cards,
        sections=[
            _pictures(judged),
            _levels(job, judged),
            *([training_section(folder)] if job.weights is None else []),
            _next(folder),
        ],
        provenance=provenance,
    )
    report.write(folder / "report.html")


def training_section(folder: Path) -> Section:
    """Return the curves of the training in a folder of a run."""
    history = json.loads((folder / "train" / "history.json").read_text(encoding="utf-8"))
    figure = training_curves(
        [row["step"] for row in history],
        [row["loss"] for row in history],
        [(row["step"], row["validation"]) for row in history if "validation" in row],
        caption="Validation uses the averaged weights; the best are kept.",
    )
    return Section("Training", "", [figure])


def _pictures(judged: Sequence[Judged]) -> Section:
    text = (
        "The middle of every test: the raw, what the network gave back, and the difference, stretched by itself: "
        "what is structured there was lost."
    )
    return Section("What it looks like", text, [_picture(each) for each in judged])


def _picture(each: Judged) -> Figure:
    reference, output = each.kept.compared.volumes()
    box = output.info.box
    side = [min(_SHOWN_VOX, n) for n in box.shape[1:]]
    start = [n // 2 - s // 2 for n, s in zip(box.shape[1:], side, strict=True)]
    at = Box((box.shape[0] // 2, start[0], start[1]), (1, side[0], side[1]))
    raw, given = reference.read(at.shift(each.kept.compared.within.start))[0], output.read(at)[0]
    spacing = output.info.grid.voxel_size_nm[1:]
    difference = given.astype(np.float64) - raw
    tiles = [
        Tile("raw", grey(raw), spacing),
        Tile("given back", grey(given), spacing),
        Tile("difference", grey(difference), spacing),
    ]
    words = (
        f"{each.item.name}: section {at.start[0]}, {side[0]} x {side[1]} voxels; raw, reconstruction, difference."
    )
    return panel(tiles, columns=3, alt=words, caption=words)


def _levels(job: ReconstructionJob, judged: Sequence[Judged]) -> Section:
    lines = [
        KeptLine(
            each.item.name,
            [band.wavelength_nm for band in each.kept.levels],
            [band.ratio for band in each.kept.levels],
            [band.coherence for band in each.kept.levels],
        )
        for each in judged
    ]
    rows: list[list[Cell]] = [
        [each.item.name, band.level, band.wavelength_nm, band.ratio.value, band.coherence.value, band.error.value]
        for each in judged
        for band in each.kept.levels
    ]
    errors: list[list[Cell]] = [
        [each.item.name, each.item.raw, each.kept.rmse, each.kept.psnr_db] for each in judged
    ]
    text = (
        "The ratio is the power of the reconstruction over that of the raw, level by level of a wavelet "
        "transform; the coherence tells whether it is the same structure. Bands are 95 % intervals over tiles. "
        "Every test has a page of its own, with what an ideal denoiser would keep, "
        "Fourier rings, and maps of where content was replaced."
    )
    if any(each.item.foreign for each in judged):
        foreign = ", ".join(each.item.name for each in judged if each.item.foreign)
        text += f"\n\nForeign data, whose voxel size was not looked at: {foreign}."
    seen = [stack.raw for stack in job.data if stack.transductive]
    if seen:
        text += f"\n\nTransductive: training may have seen the raw of the test boxes of {', '.join(seen)}."
    return Section(
        "What is kept",
        text,
        [fidelity_plot(lines, {})],
        [
            Table(["test", "raw", "rmse (grey levels)", "PSNR (dB)"], errors, "over all whole tiles"),
            Table(["test", "level", "nm", "ratio", "coherence", "relative error"], rows, "by wavelength"),
        ],
        links=[Link(f"All of {each.item.name}", page_below("evaluate", each.item.name)) for each in judged],
    )


def _next(folder: Path) -> Section:
    commands = [
        Command("Reconstruct", f"emloom predict raw.zarr --model {folder}/train/model.safetensors -o out.zarr"),
        Command("Judge", "emloom frequency raw.zarr out.zarr/reconstruction -o fidelity/"),
    ]
    return Section("Apply it to another stack", commands=commands)
