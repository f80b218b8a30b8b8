"""What serial sections suffer between the knife and the disk: how far they move, tear and fail, as a value."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.spec import Spec

Kind = Literal["blank", "black", "constant", "faint", "blurred", "noisy", "folded"]
"""How a section fails: an empty film; a picture that does not exist, black or grey; poor pictures; a fold."""
LOST: tuple[Kind, ...] = ("blank", "black", "constant")
"""Kinds that show no tissue at all."""

_STEEPEST = 6.0


class ShiftDamage(Spec):
    """Where sections came to lie; pixels."""

    jitter_px: float = Field(default=0.0, ge=0)
    """Standard deviation along y and x, every section by itself."""
    walk_px: float = Field(default=0.0, ge=0)
    """Standard deviation of the step from one section to the next, which adds up: drift."""
    trend_px: tuple[float, float] = (0.0, 0.0)
    """(y, x) per section: a slow drift to one side."""
    whole: bool = False
    """Whether sections move by whole pixels, so that nothing is interpolated."""


class AffineDamage(Spec):
    """How sections were turned and squeezed, each by itself around the middle of the picture."""

    turn_deg: float = Field(default=0.0, ge=0, le=30)
    """Standard deviation of the rotation in degrees."""
    scale: float = Field(default=0.0, ge=0, le=0.1)
    """Standard deviation of the relative change of length along y and along x."""
    shear: float = Field(default=0.0, ge=0, le=0.1)
    """Standard deviation of the shear, pixels along x per pixel along y."""


class ElasticDamage(Spec):
    """How sections were bent smoothly, each by itself."""

    bend_px: float = Field(default=0.0, ge=0)
    """Standard deviation of the displacement along y and x."""
    cell_px: float = Field(default=96.0, ge=8)
    """Distance at which it changes."""

    @model_validator(mode="after")
    def _check(self) -> ElasticDamage:
        if self.bend_px > self.cell_px / _STEEPEST:
            raise ValueError(
                f"a bend of {self.bend_px} px over cells of {self.cell_px} px folds sections onto themselves: "
                f"bend at most a {_STEEPEST:.0f}th of the cell"
            )
        return self


class CrackDamage(Spec):
    """Sections torn in two along a wandering line, the halves moved apart, each by its own affine map."""

    sections: tuple[int, ...] = ()
    """Which; first section 0."""
    gap_px: float = Field(default=10.0, gt=0)
    """How far the halves part."""
    turn_deg: float = Field(default=0.4, ge=0, le=5)
    """How far each half turns at most, around the middle of the line."""
    slip_px: float = Field(default=2.0, ge=0)
    """How far the halves slip along the line at most."""
    wander_px: float = Field(default=12.0, ge=0)
    """How far the line strays from a straight one."""
    shows: Literal["film", "black"] = "film"
    """What the gap shows: the bright film beneath, or the black that a program filled in."""


class BadSections(Spec):
    """Sections whose picture is lost or poor."""

    sections: tuple[int, ...] = ()
    """Which; first section 0."""
    fraction: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the sections that fail besides; never two in a row, nor the first or last."""
    kinds: tuple[Kind, ...] = ("blank", "black", "constant", "faint", "blurred", "noisy", "folded")
    """How they fail, in turn."""

    @model_validator(mode="after")
    def _check(self) -> BadSections:
        if not self.kinds:
            raise ValueError("bad sections of no kind: name one")
        return self


class DamageSpec(Spec):
    """All that a stack suffers; nothing, unless it is named."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Another seed, other misfortunes."""
    margin_px: int = 0
    """Pixels by which the picture is wider than the tissue on every side; negative: narrower, so that every
    section is full although they are displaced."""
    outside: int = Field(default=0, ge=0, le=255)
    """Grey value where there is no tissue."""
    shift: ShiftDamage = ShiftDamage()
    """Where sections came to lie."""
    affine: AffineDamage = AffineDamage()
    """How they were turned and squeezed."""
    elastic: ElasticDamage = ElasticDamage()
    """How they were bent."""
    cracks: CrackDamage = CrackDamage()
    """Which are torn."""
    bad: BadSections = BadSections()
    """Which are lost or poor."""

    @classmethod
    def serial(cls, depth: int, seed: int = 0, margin_px: int = 0) -> DamageSpec:
        """Return what a stack of many sections goes through: jitter, drift, two cracks, a tenth of them bad.

        Args:
            depth: sections.
            seed: of all that is drawn.
            margin_px: see the field.

        Raises:
            InputError: fewer than 8 sections.
        """
        if depth < 8:
            raise InputError(f"{depth} sections are too few to damage in every way: give at least 8")
        return cls(
            seed=seed,
            margin_px=margin_px,
            shift=ShiftDamage(jitter_px=3.0, walk_px=1.0, trend_px=(0.2, -0.1)),
            cracks=CrackDamage(sections=(depth // 4, (3 * depth) // 4)),
            bad=BadSections(fraction=0.1),
        )


__all__ = ["LOST", "AffineDamage", "BadSections", "CrackDamage", "DamageSpec", "ElasticDamage", "ShiftDamage"]
