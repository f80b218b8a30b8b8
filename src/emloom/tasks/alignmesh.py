"""Elastic meshes of all sections, relaxed in rounds: stages whose blocks read what the round before wrote.

A block needs the meshes of its own sections and of those that links reach, and the links that touch it: those of
its own block of flows and of the one before. The reference section stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emloom.geometry import Block
from emloom.geometry.planar import Affine, Field
from emloom.ops.elasticmesh import Bent, flat_mesh, relax
from emloom.ops.meshsprings import Elasticity
from emloom.ops.meshstart import link_field, stack_meshes
from emloom.ops.patchlinks import Link
from emloom.run.stage import Output
from emloom.tasks.alignflows import read_flows
from emloom.tasks.alignstate import State, write_meshes


@dataclass(frozen=True)
class RelaxBlock:
    """Relaxes the sections of one block; a small value that travels to workers.

    Attributes:
        before: where sections are.
        flows: name of the stage whose links pull them.
        reference: the section that stays.
        elasticity: what meshes are made of.
    """

    before: State
    flows: str
    reference: int
    elasticity: Elasticity

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the meshes of a block."""
        before, k = self.before, block.index[0]
        assert before.round is not None
        start, stop = block.write.start[0], block.write.stop[0]
        links = read_flows(before.folder, self.flows, before.cells[max(0, k - 1) : k + 1])()
        mine = [link for link in links if start <= link.first < stop or start <= link.second < stop]
        near = {z for link in mine for z in (link.first, link.second)} | set(range(start, stop))
        stack = before.bent(sorted(near))
        moving = [z for z in range(start, stop) if z != self.reference]
        said = {z: relax(z, stack, mine, self.elasticity) for z in moving}
        meshes = {z: said[z].mesh if z in said else stack[z].mesh for z in range(start, stop)}
        return [write_meshes(before.folder, before.round + 1, block, meshes, said)]


def first_meshes(
    state: State, shape: tuple[int, int], spacing: float, links: Iterable[Link], reference: int, how: Elasticity
) -> list[Field]:
    """Return the meshes to begin with: those on which all sections agree, section by section smooth.

    Args:
        state: sections with their affine maps.
        shape: pixels (y, x) of a section.
        spacing: pixels between nodes.
        links: between sections.
        reference: the section that stays.
        how: what meshes are made of.
    """
    flat = flat_mesh(shape, spacing)
    stack = [Bent(flat, Affine.of(matrix)) for matrix in state.affines]
    numbered = dict(enumerate(stack))
    fields = [one for link in links if (one := link_field(link, numbered, how)) is not None]
    return stack_meshes(stack, fields, reference, how)
