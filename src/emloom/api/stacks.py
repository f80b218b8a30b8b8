"""Before anything is learned: bad sections found, sections laid on each other, lost ones replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from emloom.api.parts import (
    Result,
    Source,
    Target,
    Where,
    WhereAnew,
    executor_for,
    maybe_path,
    path_of,
    stages_told,
    voxel_size_of,
    words_of,
)


def qc(
    raw: Source,
    output: Target,
    *,
    tile_vox: int | None = None,
    mask: Source | None = None,
    artifacts: Source | None = None,
    **where: Unpack[Where],
) -> Result:
    """Find bad sections and bad regions (`emloom qc`).

    Args:
        raw: the stack.
        output: folder to be made; may be the `mask` of later verbs.
        tile_vox: voxels along the side of a tile of the map.
        mask: volume, non-zero where there is tissue.
        artifacts: probabilities of a learned detector.
        where: see `Where`; `settings` are those of `QcSpec`.

    Returns:
        `table`: one row per section; `volume`: the mask; `summary`: what stands in qc.json.

    Raises:
        InputError: the stack does not open, or a mask is on another grid.
    """
    from emloom.tasks.qc import quality_control
    from emloom.tasks.qcreport import write_qc_report
    from emloom.tasks.qcspec import QcSpec

    given = {"raw": path_of(raw), "output": str(output), **voxel_size_of(raw), "tile_vox": tile_vox}
    given |= {"mask": maybe_path(mask), "artifacts": None if artifacts is None else {"path": path_of(artifacts)}}
    with executor_for(where, Where) as executor:
        spec = QcSpec.from_dict(words_of(given, where), "qc")
        write_qc_report(spec, quality_control(spec, executor, stages_told(where)))
    return Result.of(output, "qc.json", "mask.zarr", "sections.parquet")


def align(
    raw: Source,
    output: Target,
    *,
    model: Literal["shift", "affine", "elastic"] | None = None,
    qc: Target | None = None,
    **where: Unpack[WhereAnew],
) -> Result:
    """Lay the sections of a stack on each other (`emloom align`).

    Args:
        raw: the stack.
        output: folder to be made.
        model: how sections move.
        qc: folder of `qc`: nothing is concluded from bad sections.
        where: see `WhereAnew`; `settings` are those of `AlignJob`.

    Returns:
        `volume`: the aligned stack; `table`: one row per section; `summary`: what stands in align.json.

    Raises:
        InputError: the stack does not open or has one section, or the output belongs to another job.
    """
    from emloom.tasks.align import align as execute
    from emloom.tasks.alignspec import AlignJob

    given = {
        "raw": path_of(raw),
        "output": str(output),
        **voxel_size_of(raw),
        "qc": None if qc is None else str(qc),
    }
    given["model"] = None if model is None else {"kind": model}
    with executor_for(where, WhereAnew) as executor:
        job = AlignJob.from_dict(words_of(given, where), "align")
        execute(job, executor, stages_told(where), where.get("overwrite", False))
    return Result.of(output, "align.json", "raw.zarr", "sections.parquet")


def repair(
    raw: Source,
    output: Target,
    *,
    qc: Target | None = None,
    bad: Sequence[int] | None = None,
    fill: Literal["flow", "nearest", "mask"] | None = None,
    **where: Unpack[WhereAnew],
) -> Result:
    """Replace bad sections, put torn ones together, and say which voxels are made up (`emloom repair`).

    Args:
        raw: the stack, or the folder of `align`.
        output: folder to be made; may be the `mask` of later verbs.
        qc: folder of `qc` of that stack; it is made where none is given.
        bad: sections to be replaced, whatever they look like.
        fill: what bad sections become.
        where: see `WhereAnew`; `settings` are those of `RepairJob`.

    Returns:
        `volume`: the repaired stack; `summary`: what stands in repair.json.

    Raises:
        InputError: an input is missing or on another grid, no section is good, or the output is another job's.
    """
    from emloom.tasks.repair import repair as execute
    from emloom.tasks.repairspec import RepairJob

    given = {
        "raw": path_of(raw),
        "output": str(output),
        **voxel_size_of(raw),
        "qc": None if qc is None else str(qc),
    }
    given |= {"fill": fill, "sections": None if bad is None else {"bad": list(bad)}}
    with executor_for(where, WhereAnew) as executor:
        job = RepairJob.from_dict(words_of(given, where), "repair")
        execute(job, executor, stages_told(where), where.get("overwrite", False))
    return Result.of(output, "repair.json", "raw.zarr")
