"""How a volume looks in neuroglancer: its layer, its shader, and where its voxels come from.

=============  ==================================================================================================
raw            grey, from the darkest to the brightest hundredth of what was sampled; the range can be dragged
affinities     the first three channels red, green, blue, half transparent
probabilities  one channel in colours of heat, transparent where it is low
labels         each id in a colour of its own
codes          labels whose ids have fixed colours (kinds of defects)
mask           red, where it is not 0
=============  ==================================================================================================

Voxels are read from the volume when the page asks for them. Meshes, skeletons and properties of segments are not
made here: they are files of `emloom export-neurons`, which the page reads through the same server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.io.volume import Volume, VolumeInfo

_NM = 1e-9
# The first three affinities as red, green, blue: bright where voxels belong together.
_CHANNELS_SHADER = """void main() {{
  emitRGB(vec3({channels}));
}}
"""
_GREY_SHADER = """#uicontrol invlerp grey(range=[{low:g}, {high:g}])
void main() {{
  emitGrayscale(grey());
}}
"""
_HEAT_SHADER = """#uicontrol invlerp value(range=[{low:g}, {high:g}])
#uicontrol vec3 colour color(default="{colour}")
void main() {{
  emitRGBA(vec4(colour, value()));
}}
"""
_MASK_SHADER = """#uicontrol vec3 colour color(default="#e0453a")
void main() {
  emitRGBA(vec4(colour, toRaw(getDataValue()) == 0u ? 0.0 : 0.5));
}
"""


@dataclass(frozen=True)
class Look:
    """How a layer is drawn, where that is not what its kind says.

    Attributes:
        shader: of an image.
        opacity: of an image, 0 to 1.
        visible: whether it is shown from the start.
        colours: of ids, ``#rrggbb``.
        selected: ids that are selected from the start; others stay visible, but pale.
    """

    shader: str | None = None
    opacity: float | None = None
    visible: bool = True
    colours: Mapping[int, str] = field(default_factory=dict)
    selected: tuple[int, ...] = ()


PLAIN = Look()


def grey(low: float, high: float) -> str:
    """Return the shader of raw data with a contrast range."""
    return _GREY_SHADER.format(low=low, high=high if high > low else low + 1)


def heat(dtype: np.dtype[Any], colour: str = "#ffb000") -> str:
    """Return the shader of one channel that is transparent at 0 and a colour at its most."""
    high = 1.0 if dtype.kind in "fb" else float(np.iinfo(dtype).max)
    return _HEAT_SHADER.format(low=0.0, high=high, colour=colour)


MASK = _MASK_SHADER


class Lazy:
    """What neuroglancer needs of an array, read from a volume box by box."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.shape = volume.info.array_shape
        # neuroglancer draws bool as nothing; a mask is 0 and 1.
        self.dtype = np.dtype(np.uint8) if volume.info.dtype == np.bool_ else volume.info.dtype

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return the voxels of a box, and of some channels."""
        ranges = [range(*part.indices(size)) for part, size in zip(index, self.shape, strict=True)]
        box = Box.of([r.start for r in ranges[-3:]], [r.stop for r in ranges[-3:]])
        voxels = self._volume.read(box)
        if len(ranges) == 4:
            voxels = voxels[ranges[0].start : ranges[0].stop]
        return np.asarray(voxels, self.dtype)


def space(package: Any, info: VolumeInfo, *, channels: bool = False) -> Any:
    """Return the coordinate space of a volume; ``c^`` is neuroglancer's name for a channel dimension."""
    scales = [size * _NM for size in info.grid.voxel_size_nm]
    if channels:
        return package.CoordinateSpace(names=["c^", "z", "y", "x"], units=["", "m", "m", "m"], scales=[1, *scales])
    return package.CoordinateSpace(names=["z", "y", "x"], units="m", scales=scales)


def offset_vox(info: VolumeInfo) -> list[float]:
    """Return the offset of a volume in its own voxels (z, y, x)."""
    return [o / s for o, s in zip(info.grid.offset_nm, info.grid.voxel_size_nm, strict=True)]


def is_segmentation(info: VolumeInfo) -> bool:
    """Whether a volume is shown as segments."""
    return info.kind == "labels" and info.channels is None


def layer_of(package: Any, volume: Volume, look: Look = PLAIN, addresses: tuple[str, ...] = ()) -> Any:
    """Return the layer of a volume.

    Args:
        package: `neuroglancer`.
        volume: to be shown.
        look: how.
        addresses: of meshes, skeletons and properties that belong to its segments.
    """
    source = _source(package, volume)
    if is_segmentation(volume.info):
        layer = package.SegmentationLayer(source=[source, *addresses] if addresses else source)
        return _selected(layer, look)
    layer = package.ImageLayer(source=source)
    if look.shader is not None:
        layer.shader = look.shader
    elif volume.info.channels is not None:
        layer.shader = _shader(volume.info.channels or 0)
    if look.opacity is not None:
        layer.opacity = look.opacity
    return layer


def files_layer(package: Any, look: Look, addresses: tuple[str, ...]) -> Any:
    """Return a layer of segments that has meshes and skeletons, but no voxels."""
    return _selected(package.SegmentationLayer(source=list(addresses)), look)


def _selected(layer: Any, look: Look) -> Any:
    if look.colours:
        layer.segment_colors = dict(look.colours)
    if look.selected:
        layer.segments = list(look.selected)
        layer.not_selected_alpha = 0.15
    return layer


def _source(package: Any, volume: Volume) -> Any:
    info = volume.info
    channels = info.channels is not None
    where = space(package, info, channels=channels)
    local = package.LocalVolume(
        Lazy(volume),
        dimensions=where,
        volume_type="segmentation" if is_segmentation(info) else "image",
        # On-the-fly downsampling reads whole chunks: 2d keeps thin section stacks sharp and reads the least.
        downsampling="3d" if _is_isotropic(info) else "2d",
    )
    rank = 4 if channels else 3
    shift = [0.0] * (rank - 3) + offset_vox(info)
    matrix = np.concatenate([np.eye(rank), np.array(shift)[:, None]], axis=1)
    return package.LayerDataSource(
        url=local,
        transform=package.CoordinateSpaceTransform(output_dimensions=where, matrix=matrix),
        # No meshes: the package makes them of the whole volume in memory as soon as an id is selected.
        subsources={"default": True, "bounds": True},
        enable_default_subsources=False,
    )


def _shader(channels: int) -> str:
    shown = [f"toNormalized(getDataValue({c}))" if c < channels else "0.0" for c in range(3)]
    return _CHANNELS_SHADER.format(channels=", ".join(shown))


def _is_isotropic(info: VolumeInfo) -> bool:
    return max(info.grid.voxel_size_nm) < 2 * min(info.grid.voxel_size_nm)
