"""What to combine: masks in order of priority, the class of what is left, and the band between classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from emloom.geometry.grid import Vec3
from emloom.ops.combine import MOST_CLASSES
from emloom.spec import Spec

ClassId = Annotated[int, Field(ge=1, le=MOST_CLASSES)]


class MaskSpec(Spec):
    """One class, and where it is: a volume, and which of its values are inside.

    Without `above` or `values` the volume must hold 0 and one other value, 1 or 255, which is inside.
    """

    name: str = Field(min_length=1)
    """What the class is called."""
    mask: str
    """Path of a volume of integers; several classes may read one."""
    above: int | None = Field(default=None, ge=0)
    """Values above it are inside: 127 for masks whose edges were smoothed (anti-aliased)."""
    values: tuple[int, ...] | None = Field(default=None, min_length=1)
    """These values are inside, where one volume holds several classes."""
    id: ClassId | None = None
    """What the voxels of the class become; default: its place in the list, from 1."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.above is not None and self.values is not None:
            raise ValueError(f"{self.name}: `above` and `values` both say what is inside: keep one")
        return self


class RestSpec(Spec):
    """The class of voxels that no mask covers."""

    name: str = Field(min_length=1)
    """What it is called."""
    id: ClassId | None = None
    """What its voxels become; default: the number after the masks."""


class BandSpec(Spec):
    """Voxels near another class are undefined: where exactly a border runs, those who draw it do not agree."""

    reach_vox: int = Field(default=1, ge=0, le=16)
    """How near, in voxels, on either side; 0: no band."""
    in_plane: bool = True
    """Look within sections only; else in all directions."""


class CombineJob(Spec):
    """Combine masks into one volume of classes (`emloom combine-masks`)."""

    classes: tuple[MaskSpec, ...] = Field(min_length=1)
    """In order of priority: a voxel belongs to the first whose mask covers it. "Mitochondrion, but not its
    boundary" is the boundary before the mitochondrion."""
    output: str
    """Container (`.zarr`) to be made: `classes`, and the file `classes.yaml` for semantic jobs."""
    rest: RestSpec | None = None
    """The class of what no mask covers; None: it is undefined."""
    undefined: tuple[int, ...] = ()
    """Values of volumes read by `values` that say "unknown"; any other value that no class lists is an error."""
    known: str | None = None
    """Path of a volume that is 0 where nobody looked; None: somebody looked everywhere."""
    band: BandSpec = BandSpec()
    """What lies between classes."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm; needed where the masks do not state it, and must agree where they do."""

    @model_validator(mode="after")
    def _names_and_ids_differ(self) -> Self:
        for what, of in zip(("name", "id"), zip(*self._named(), strict=True), strict=True):
            twice = [str(one) for one, times in Counter(of).items() if times > 1]
            if twice:
                raise ValueError(f"two classes have the {what} {', '.join(twice)}: classes exclude each other")
        listed = {value for each in self.classes for value in each.values or ()} & set(self.undefined)
        if listed:
            raise ValueError(f"the values {sorted(listed)} are of a class and undefined: keep one")
        return self

    def _named(self) -> Iterator[tuple[str, int]]:
        for place, each in enumerate(self.classes, start=1):
            yield each.name, each.id or place
        if self.rest is not None:
            yield self.rest.name, self.rest.id or len(self.classes) + 1

    @property
    def ids(self) -> dict[str, int]:
        """Id of every class by name, in order of priority, the rest last."""
        return dict(self._named())

    @property
    def objective_classes(self) -> list[dict[str, Any]]:
        """The classes as a semantic job names them, in the order of their ids."""
        return [{"name": name, "ids": [i]} for name, i in sorted(self.ids.items(), key=lambda item: item[1])]

    @property
    def paths(self) -> dict[str, str]:
        """Every volume that is read, once, by what it is."""
        paths = {f"mask of {each.name}": each.mask for each in self.classes}
        once = {path: what for what, path in reversed(paths.items())}
        named = {what: path for what, path in paths.items() if once[path] == what}
        return named if self.known is None else named | {"known": self.known}
