"""What `emloom frequency` is asked to do."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.ops.wavelets import Decomposition, of_sections, of_volume
from emloom.spec import Spec

Statistic = Literal["ratio", "median_ratio", "coherence", "error"]


class LimitSpec(Spec):
    """What a statistic of every level in a range of wavelengths must keep to."""

    statistic: Statistic
    at_least: float | None = None
    at_most: float | None = None
    from_nm: float = 0.0
    """Levels of at least this wavelength."""
    to_nm: float | None = None
    """Levels of at most this wavelength; default: all."""

    def holds(self, wavelength_nm: float) -> bool:
        """Return whether a wavelength lies in its range."""
        return self.from_nm <= wavelength_nm and (self.to_nm is None or wavelength_nm <= self.to_nm)

    def keeps(self, value: float) -> bool:
        """Return whether a value keeps to it; NaN does not."""
        low = self.at_least is None or value >= self.at_least
        return low and (self.at_most is None or value <= self.at_most)

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"the limit of {self.statistic} limits nothing: give at_least, at_most or both")
        return self


class WaveletSpec(Spec):
    """How volumes are decomposed."""

    levels: Annotated[int, Field(ge=1, le=16)] = 8
    name: str = "db1"
    """An orthogonal wavelet of PyWavelets; db1 is Haar."""
    volume: bool = False
    """Decompose in three dimensions; else every section on its own."""
    tile_vox: tuple[int, ...] | None = None
    """Voxels of a tile, (y, x) of sections or (z, y, x); default: the smallest that can be halved so often."""

    def decomposition(self, voxel_size_nm: tuple[float, float, float]) -> Decomposition:
        """Return the decomposition; raises `InputError` where a tile cannot be halved so often."""
        wanted = 3 if self.volume else 2
        if self.tile_vox is not None and len(self.tile_vox) != wanted:
            raise InputError(f"tile {self.tile_vox} has {len(self.tile_vox)} extents: give {wanted}")
        if self.volume:
            return of_volume(voxel_size_nm, self.levels, self.tile_vox, self.name)
        return of_sections(self.levels, self.tile_vox, self.name)


class FrequencySpec(Spec):
    """Say which spatial frequencies of a reference its outputs keep (`emloom frequency`)."""

    reference: str
    outputs: Annotated[tuple[str, ...], Field(min_length=1)]
    """Volumes on the grid of the reference, or parts of it."""
    output: str
    """Folder of the report."""
    wavelet: WaveletSpec = WaveletSpec()
    names: tuple[str, ...] = ()
    """What the outputs are called; default: the last parts of their paths."""
    resamples: Annotated[int, Field(ge=1)] = 2000
    seed: int = 0
    together: tuple[int, int, int] = (1, 1, 1)
    """Tiles (z, y, x) that are resampled as one: more than structures extend, or intervals are too narrow."""
    rings: Annotated[int, Field(ge=0)] = 256
    """Tiles, evenly spread, whose Fourier rings are correlated; 0: none."""
    gate: tuple[LimitSpec, ...] = ()
    """Limits that every output has to keep."""
