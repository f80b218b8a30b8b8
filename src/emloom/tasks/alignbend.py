"""Affine maps and elastic meshes of a stack whose translations are known: look, solve, look closer, solve again.

::

    positions -> flows-1 -> affines-1 -> flows-2 -> affines-2           the affine model ends here
              -> flows-3 -> meshes/000 .. N -> flows-4 -> .. meshes/2 N     the elastic one goes on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.planar import Affine, PlanarMap, chain
from emloom.ops.meshsprings import Elasticity
from emloom.ops.patchlinks import Link
from emloom.ops.sectionaffines import AffineStack, SectionAffines, section_affines
from emloom.ops.sectionpositions import Positions
from emloom.run.journal import key_of
from emloom.tasks.alignflows import FlowBlock, Look, looks, read_flows, thinned
from emloom.tasks.alignline import Found, Line, Table
from emloom.tasks.alignlinks import link_blocks
from emloom.tasks.alignmesh import RelaxBlock, first_meshes
from emloom.tasks.alignspec import AffineModel, ElasticModel
from emloom.tasks.alignstate import POSITIONS, State, read_meshes, save_array, write_meshes

F64 = NDArray[np.float64]
_FEWEST = 4.0  # places of a link, weights counted: those over three sections count a ninth

_SHRINKS = 0.005  # relative change of length that residuals may bring about


def bent(line: Line, model: AffineModel | ElasticModel, found: Found, positions: Positions) -> Found:
    """Return an alignment by affine maps, and meshes where they are asked for.

    Args:
        line: the alignment.
        model: what sections may do.
        found: by translations.
        positions: these.

    Raises:
        InputError: patches do not fit into sections, or no patches agree.
    """
    start = positions.shift.copy()
    seen = start.copy()
    seen[[state == "between" for state in positions.state]] = np.nan
    save_array(line.folder / POSITIONS, seen)
    affine = model.affine if isinstance(model, ElasticModel) else model
    first, second, third, fourth = looks(affine, line.source)
    state = State(line.folder, tuple(link_blocks(line.source)))
    for number, look in enumerate((first, second), 1):
        links = [thinned(link) for link in _look(line, state, f"flows-{number}", look)()]
        solved = _solved(line, affine.rigid_sections, links, start)
        name = f"affines-{number}.npy"
        save_array(line.folder / name, np.array([one.matrix for one in solved.maps]))
        state = replace(state, name=name)
    found = _with_affines(line, found, solved)
    return found if isinstance(model, AffineModel) else _meshes(line, model, found, state, (third, fourth))


def _solved(line: Line, rigid: float | None, links: Sequence[Link], start: F64) -> SectionAffines:
    """Return affine maps that what is left between sections has not shrunk.

    To shrink a run of sections makes distances between them smaller. With residuals r and places at rms distance D
    from the middle of a section, that gains as much as the pull to rotations holds at a scale of 1 - (L r / D)², L
    being `rigid`; so L is made so small that this is next to nothing. Large sections with small residuals need
    none of it.
    """
    how = AffineStack(line.reference, rigid, fewest=_FEWEST)
    solved = section_affines(len(start), links, start, how)
    rows, columns = line.source.frame.shape[1:]
    away = np.sqrt((rows**2 + columns**2) / 12.0)
    most = float(np.sqrt(_SHRINKS) * away / max(np.nanmedian(solved.residual_px), 1e-3))
    if rigid is not None and rigid > most:
        solved = section_affines(len(start), links, start, replace(how, drift_sections=most))
    return solved


def _look(line: Line, state: State, stage: str, look: Look) -> Any:
    """Look at the sections from where they are; return what iterates over the links that were found."""
    work = FlowBlock(line.source, state, stage, line.job.links.lags, look)
    key = key_of(line.key, stage, state.positions.tolist(), state.name, state.round)
    line.run(stage, key, list(state.cells), work)
    return read_flows(line.folder, stage, state.cells)


def _with_affines(line: Line, found: Found, solved: SectionAffines) -> Found:
    n = len(solved.maps)
    p95, used = np.full(n, np.nan), np.zeros(n, np.int64)
    for fit in solved.links:
        for z in (fit.first, fit.second) if fit.used else ():
            p95[z], used[z] = np.fmax(p95[z], fit.p95_px), used[z] + 1
    matrices = np.array([one.matrix for one in solved.maps])
    middle = np.array(line.source.frame.shape[1:]) / 2
    moved = np.array([one([middle])[0] - middle for one in solved.maps])
    table = found.table | {
        "shift_y": moved[:, 0],
        "shift_x": moved[:, 1],
        "links": used,
        "residual_px": solved.residual_px,
        "residual_p95_px": p95,
        **_shape_of(matrices[:, :, :2]),
    }
    lost = ~solved.linked & (table["bad"] == 0)
    words = "its patches agree with no other section: put between its neighbours"
    table["bad"] = np.where(solved.linked, table["bad"], 1)
    table["reason"] = np.where(lost, words, table["reason"])
    return replace(found, maps=solved.maps, table=table)


def _shape_of(linear: F64) -> Table:
    """Return scale, rotation and shear of linear maps [Z, 2, 2] on (y, x)."""
    scale = np.sqrt(np.linalg.det(linear))
    turn = np.arctan2(linear[:, 1, 0] - linear[:, 0, 1], linear[:, 0, 0] + linear[:, 1, 1])
    c, s = np.cos(turn), np.sin(turn)
    rest = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], 1) @ linear / scale[:, None, None]
    shear = np.hypot(rest[:, 0, 0] - rest[:, 1, 1], rest[:, 0, 1] + rest[:, 1, 0]) / 2
    return {"scale": scale, "rotation_deg": np.degrees(turn), "shear": shear}


def _meshes(line: Line, model: ElasticModel, found: Found, state: State, last: tuple[Look, Look]) -> Found:
    source = line.source
    _, rows, columns = source.frame.shape
    spacing = model.spacing_nm / source.frame.grid.voxel_size_nm[1]
    how = Elasticity(stiffness=model.stiffness, anchor=model.anchor)
    links = _look(line, state, "flows-3", last[0])
    begin = first_meshes(state, (rows, columns), spacing, links(), line.reference, how)
    for block in state.cells:
        here = range(block.write.start[0], block.write.stop[0])
        write_meshes(line.folder, 0, block, {z: begin[z] for z in here}, {})
    state = _relaxed(line, replace(state, round=0), "flows-3", model.rounds, how)
    _look(line, state, "flows-4", last[1])
    state = _relaxed(line, state, "flows-4", model.rounds, how)
    assert state.round is not None
    meshes = read_meshes(line.folder, state.round, state.cells, range(len(begin)))
    maps: list[PlanarMap] = [
        chain(mesh, Affine.of(matrix)) for (mesh, _), matrix in zip(meshes, state.affines, strict=True)
    ]
    facts = [said for _, said in meshes]
    table = found.table | {
        "residual_px": np.array([one["residual_px"] for one in facts]),
        "residual_p95_px": np.array([one["p95_px"] for one in facts]),
        "bend_px": np.array([float(np.hypot(*mesh.displacement).max()) for mesh, _ in meshes]),
    }
    return replace(found, maps=maps, table=table, notes=found.notes + _stiffened(facts))


def _relaxed(line: Line, state: State, flows: str, rounds: int, how: Elasticity) -> State:
    for _ in range(rounds):
        assert state.round is not None
        work = RelaxBlock(state, flows, line.reference, how)
        key = key_of(line.key, "mesh", state.round, flows)
        line.run(f"mesh-{state.round + 1:03d}", key, list(state.cells), work)
        state = replace(state, round=state.round + 1)
    return state


def _stiffened(facts: Sequence[dict[str, float]]) -> tuple[str, ...]:
    stiff = [z for z, one in enumerate(facts) if one["stiffened"] > 1]
    if not stiff:
        return ()
    listed = ", ".join(map(str, stiff[:10])) + (" ..." if len(stiff) > 10 else "")
    return (f"The meshes of {len(stiff)} sections would have folded and were made stiffer: {listed}.",)
