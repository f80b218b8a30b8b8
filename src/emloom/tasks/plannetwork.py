"""What `emloom plan` lets a network learn, and which network: every choice follows from what was measured.

====================  ============================================================================================
neighborhood          short (1 voxel), longest (0.6 of the median width, 60 to 90 nm), and one between
lsd_sigma_nm          half the median width, 40 to 80 nm
grow_boundary_vox     1 where neighbours are glued to each other, 0 where background lies between
background_vox        30 nm, where more than a tenth of the 0 lies far from any object: nobody painted there
network               isotropic or flat, as the voxels are; lean on processors, half as wide again on a GPU
crop                  five median widths, 48 to 64 voxels (flat: 14 sections of 96 to 112), more on a GPU
steps                 as many as the budget allows
====================  ============================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.nn.networks import BackboneSpec
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.unet import UNetSpec
from emloom.tasks.planlabels import LabelsLook
from emloom.tasks.planlook import is_flat
from emloom.tasks.planmachine import Machine
from emloom.tasks.planwords import Notes

DEFAULT_WIDTH_NM = 150.0
"""Taken where no width could be measured."""
SCALES = (1.0, 0.75, 0.5, 0.34)
_WIDER = (48, 96, 192)
_UNPAINTED, _BACKGROUND_NM = 0.1, 30.0
_GLUED = 0.5
_SIDES = {(False, False): (48, 64), (True, False): (96, 112), (False, True): (64, 96), (True, True): (128, 192)}
_SECTIONS = {False: 14, True: 16}


@dataclass(frozen=True)
class Scale:
    """How large things are.

    Attributes:
        size_nm: voxel size (z, y, x).
        width_nm: median width of neurites.
    """

    size_nm: Vec3
    width_nm: float

    @property
    def flat(self) -> bool:
        """Whether sections are much thicker than pixels."""
        return is_flat(self.size_nm)

    @property
    def lattice(self) -> Vec:
        """Voxels that crops are multiples of."""
        return (2, 8, 8) if self.flat else (8, 8, 8)


def scale_of(size_nm: Vec3, labels: LabelsLook) -> Scale:
    """Return how large things are in labelled tissue."""
    return Scale(size_nm, labels.width_nm or DEFAULT_WIDTH_NM)


def objective_for(scale: Scale, labels: LabelsLook) -> tuple[NeuronsObjective, Notes]:
    """Return what is learned, and why."""
    width, flat = scale.width_nm, scale.flat
    long_nm = min(max(0.6 * width, 60.0), 90.0)
    sigma = float(min(max(5 * round(width / 10), 40), 80))
    glued = labels.glued > _GLUED
    of = "profiles" if flat else "neurites"
    measured = "" if labels.width_nm else " (assumed: none could be measured)"
    notes = Notes({("variant",): "affinities, and local shape descriptors as a second task that helps the first"})
    notes["neighborhood",] = (
        f"one channel per offset (z, y, x): neighbours, then up to {long_nm:.0f} nm, "
        f"{long_nm / width:.2g} of the median width of your {of}, {width:.0f} nm{measured}"
    )
    notes["lsd_sigma_nm",] = f"about half the median width of your {of}, {width:.0f} nm, kept within 40 and 80"
    notes["lsd_downsample",] = (
        "descriptors are smooth: on every second voxel they are much faster, hardly different"
    )
    notes["grow_boundary_vox",] = (
        f"{labels.glued:.0%} of the borders between neighbours have no background between: "
        + ("one voxel is put there" if glued else "your labels leave membranes at 0 already")
    )
    if glued and flat:
        notes["grow_in_plane",] = "sections are thick: grown along z, thin neurites would vanish"
    spec = NeuronsObjective(
        neighborhood=neighborhood_for(scale, long_nm),
        lsd_sigma_nm=sigma,
        lsd_downsample=(1, 2, 2) if flat else (2, 2, 2),
        grow_boundary_vox=int(glued),
        grow_in_plane=glued and flat,
    )
    return spec, notes


def neighborhood_for(scale: Scale, long_nm: float) -> tuple[Vec, ...]:
    """Return offsets of about the same reach along every axis, short ones first."""
    reach = [max(1, round(long_nm / size)) for size in scale.size_nm]
    lags = []
    for axis, far in enumerate(reach):
        sections = scale.flat and axis == 0
        steps = {1, 2, max(2, far)} if sections else {1, max(1, round(0.4 * far)), far}
        lags.append(sorted(steps))
    offsets = [
        tuple(-lags[axis][k] if axis == at else 0 for axis in range(3))
        for k in range(3)
        for at in range(3)
        if k < len(lags[at])
    ]
    return tuple((o[0], o[1], o[2]) for o in offsets)


def background_for(scale: Scale, labels: LabelsLook) -> Vec | None:
    """Return how far from an object a 0 still means background; None: everywhere."""
    if labels.far_zeros <= _UNPAINTED:
        return None
    z, y, x = (ceil(_BACKGROUND_NM / size) for size in scale.size_nm)
    return (0 if scale.flat else z, y, x)


def network_for(scale: Scale, machine: Machine) -> tuple[BackboneSpec, Notes]:
    """Return the network, and why."""
    lean = UNetSpec.lean(isotropic=not scale.flat)
    ratio = scale.size_nm[0] / max(scale.size_nm[1:])
    shape = (
        f"a voxel is {ratio:.1f} times as long along z as in the plane: the first convolutions look within "
        f"sections"
        if scale.flat
        else f"voxels are cubes, or nearly so (z is {ratio:.2g} times y, x): all axes are treated alike"
    )
    notes = Notes({("stem",): f"{shape}; every second voxel goes into channels, which saves most of the time"})
    if machine.gpu is None:
        notes["features",] = "the lean network: a processor trains it in minutes"
        return lean, notes
    notes["features",] = f"half as wide again as the lean network: {machine.gpu} has the time and the memory"
    return lean.model_copy(update={"features": _WIDER}), notes


def crops_for(scale: Scale, region: Vec, machine: Machine) -> list[Vec]:
    """Return the shapes of training crops that may be, the best first."""
    least, most = _SIDES[scale.flat, machine.gpu is not None]
    side = [min(max(5 * scale.width_nm / size, least), most) for size in scale.size_nm]
    if scale.flat:
        side[0] = _SECTIONS[machine.gpu is not None]
    found: list[Vec] = []
    for factor in SCALES:
        wanted = [n if scale.flat and axis == 0 else factor * n for axis, n in enumerate(side)]
        z, y, x = (
            int(min(n + step / 2, extent)) // step * step
            for n, extent, step in zip(wanted, region, scale.lattice, strict=True)
        )
        if min(z, y, x) > 0 and (z, y, x) not in found:
            found.append((z, y, x))
    return found
