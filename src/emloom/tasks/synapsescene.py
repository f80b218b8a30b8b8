"""What synapses are decoded from: the volumes, and the layers of evidence that a decoder makes of them.

A layer is uint8 evidence with the rule that cuts it into components. What decoders make of heads ``h[channel]``::

    sites       pre = sites[0]            post = sites[1]
    vectors     post = post[0]                                      votes: vectors[0..2]
    proximity   pre = 2 v - 255 above 127.5, post = 255 - 2 v below, v = proximity[0]
    polarity    pre = min(h[0], h[2])     post = min(h[1], h[2])    union = h[2], grown within sections
    clefts      cleft = clefts[0]                                   votes: pre and post of `sides`

Whatever is smoothed or grown reads as far around a cell as that looks, mirrored where the prediction ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.grid import TOLERANCE_VOX
from emloom.io.checks import MAX_ID, require_labels
from emloom.io.volume import Volume, VolumeInfo, borrow, read_padded
from emloom.ops.labels import Bits, Ids
from emloom.ops.smoothing import reach, smooth
from emloom.tasks.lattice import common_box
from emloom.tasks.synapsedecoders import (
    CleftsDecoder,
    Decoder,
    EvidenceSpec,
    PolarityDecoder,
    ProximityDecoder,
    ScoreSpec,
    SitesDecoder,
    VectorsDecoder,
)

HEADS: dict[str, dict[str, int]] = {
    "sites": {"sites": 2},
    "vectors": {"post": 1, "vectors": 3},
    "proximity": {"proximity": 1},
    "polarity": {"polarity": 3},
    "clefts": {"clefts": 1},
}
"""The heads that each kind of decoder reads, and their channels."""
_SIDES = {1: "proximity", 2: "sites", 3: "polarity"}


@dataclass(frozen=True)
class Layer:
    """One kind of evidence.

    Attributes:
        name: `pre`, `post`, `union` or `cleft`.
        spec: how it becomes components.
        reach_nm: how far around its components votes are taken.
        spread_nm: by how much it grows first.
        votes: whether segments under its components are asked for.
    """

    name: str
    spec: EvidenceSpec
    reach_nm: float = 0.0
    spread_nm: float = 0.0
    votes: bool = True


def layers_of(decoder: Decoder) -> tuple[Layer, ...]:
    """Return the layers of a decoder; the order is that of `evidence_of`."""
    if isinstance(decoder, SitesDecoder):
        return Layer("pre", decoder.pre), Layer("post", decoder.post)
    if isinstance(decoder, VectorsDecoder):
        return (Layer("post", decoder.post),)
    if isinstance(decoder, ProximityDecoder):
        return Layer("pre", decoder.evidence), Layer("post", decoder.evidence)
    if isinstance(decoder, PolarityDecoder):
        sides = decoder.sides
        union = EvidenceSpec(
            threshold=decoder.union_threshold,
            smoothing_nm=sides.smoothing_nm,
            connectivity=sides.connectivity,
            split_by_segment=False,
        )
        grown = Layer("union", union, spread_nm=decoder.spread_nm, votes=False)
        return Layer("pre", sides), Layer("post", sides), grown
    return (Layer("cleft", decoder.cleft, reach_nm=decoder.reach_nm),)


def score_of(decoder: Decoder) -> ScoreSpec:
    """Return how the decoder scores."""
    return decoder.score


def _evidence(decoder: Decoder, heads: Mapping[str, Sequence[Bits]]) -> list[Bits]:
    if isinstance(decoder, SitesDecoder):
        return [heads["sites"][0], heads["sites"][1]]
    if isinstance(decoder, VectorsDecoder):
        return [heads["post"][0]]
    if isinstance(decoder, ProximityDecoder):
        return list(_signed(heads["proximity"][0]))
    if isinstance(decoder, PolarityDecoder):
        pre, post, union = heads["polarity"]
        return [np.minimum(pre, union), np.minimum(post, union), union]
    return [heads["clefts"][0]]


def _signed(values: Bits) -> tuple[Bits, Bits]:
    """Return how far values are above and below 127.5, 0 to 255."""
    high = np.maximum(values, 127).astype(np.int32) * 2 - 255
    low = 255 - np.minimum(values, 128).astype(np.int32) * 2
    return np.maximum(high, 0).astype(np.uint8), np.maximum(low, 0).astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """The opened inputs of a decoding.

    Attributes:
        decoder: what is made of them.
        heads: the volumes it reads, by name; all of one box and grid.
        segmentation: ids.
        segments_start: voxel of the segmentation at which the heads begin.
        sides: pre and post evidence for clefts.
        mask: not 0 where sites are to be believed.
    """

    decoder: Decoder
    heads: Mapping[str, Volume]
    segmentation: Volume
    segments_start: Vec
    sides: Volume | None = None
    mask: Volume | None = None

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        heads: Mapping[str, Volume],
        segmentation: Volume,
        sides: Volume | None = None,
        mask: Volume | None = None,
    ) -> Scene:
        """Check that the inputs fit each other.

        Raises:
            InputError: a head is missing, or is not what the decoder reads; volumes are on different grids; the
                segmentation, the sides or the mask lack voxels of the prediction.
        """
        wanted = HEADS[decoder.kind]
        missing = [name for name in wanted if name not in heads]
        if missing:
            raise InputError(
                f"the prediction has no head {missing[0]!r}, which decoder {decoder.kind!r} reads (it has: "
                f"{', '.join(heads) or 'none'}): choose a decoder for what is there, or another model"
            )
        for name, channels in wanted.items():
            _require_head(heads[name].info, name, channels)
        used = {name: heads[name] for name in wanted}
        first, *others = used.values()
        for other in others:
            _require_same(first.info, other.info)
        require_labels(segmentation)
        start = common_box(first, segmentation).start
        if isinstance(decoder, CleftsDecoder) and decoder.assign != "dilate_nearest":
            if sides is None:
                raise InputError(f"assign {decoder.assign!r} goes by pre and post evidence: give `sides`")
            n = sides.info.channels or 1
            _require_head(sides.info, _SIDES.get(n, "sites"), n if n in _SIDES else 2)
            _require_same(first.info, sides.info)
        return cls(decoder, used, segmentation, start, sides, mask)

    @property
    def info(self) -> VolumeInfo:
        """Of the first head."""
        return next(iter(self.heads.values())).info

    @property
    def grid(self) -> Grid:
        """Where the heads lie."""
        return self.info.grid

    @property
    def shape(self) -> Vec:
        """How many voxels they have."""
        return self.info.shape

    def evidence(self, box: Box) -> list[Bits]:
        """Return the evidence of every layer in a box, uint8 [Z, Y, X] each."""
        layers = layers_of(self.decoder)
        sigmas = {layer.spec.smoothing_nm for layer in layers}
        spread = self._spread(max(layer.spread_nm for layer in layers))
        by_sigma = {}
        for sigma_nm in sigmas:
            sigma = [s / v for s, v in zip(sigma_nm, self.grid.voxel_size_nm, strict=True)]
            heads = {
                name: self._smoothed(volume, box.grow(spread), sigma)
                for name, volume in self.heads.items()
                if name != "vectors"
            }
            by_sigma[sigma_nm] = _evidence(self.decoder, heads)
        found = []
        for k, layer in enumerate(layers):
            values = by_sigma[layer.spec.smoothing_nm][k]
            if layer.spread_nm:
                window = [2 * n + 1 for n in self._spread(layer.spread_nm)]
                values = maximum_filter(values, window, mode="nearest")
            inner = tuple(slice(n, size - n) for n, size in zip(spread, values.shape, strict=True))
            found.append(np.ascontiguousarray(values[inner]))
        return found

    def _spread(self, length_nm: float) -> Vec:
        """Return the whole voxels within a length; along z none, where sections are thicker."""
        z, y, x = (int(length_nm / size + TOLERANCE_VOX) for size in self.grid.voxel_size_nm)
        return (z, y, x)

    def _smoothed(self, volume: Volume, box: Box, sigma_vox: list[float]) -> list[Bits]:
        read = box.grow(reach(sigma_vox))
        # Mirroring adds no evidence to what a window of the maximum sees, and no edge to what is smoothed.
        values = borrow(volume, read) if volume.info.box.contains(read) else read_padded(volume, read)
        return [smooth(channel, sigma_vox) for channel in _channels(values)]

    def channels(self, box: Box) -> Bits:
        """Return what is summed under components, uint8 [C, Z, Y, X]."""
        if isinstance(self.decoder, VectorsDecoder):
            return _channels(borrow(self.heads["vectors"], box))
        if isinstance(self.decoder, CleftsDecoder) and self.sides is not None:
            channels = _channels(borrow(self.sides, box))
            return np.stack(_signed(channels[0])) if len(channels) == 1 else np.ascontiguousarray(channels[:2])
        return np.zeros((0, *box.shape), np.uint8)

    def segments(self, box: Box) -> Ids:
        """Return the segments of a box, uint64, to look at."""
        ids: NDArray[Any] = borrow(self.segmentation, box.shift(self.segments_start))
        return ids.astype(np.uint64, copy=False)

    def require_ids(self, ids: Ids) -> None:
        """Raise `InputError` where segments that were met hold an id above 2^63 - 1."""
        if ids.size and int(ids.max()) > MAX_ID:
            raise InputError(
                f"{self.segmentation.info.source} holds the label {int(ids.max())}, above 2^63 - 1: ids are "
                "below; CREMI marks background so: make it 0 (`emloom import` does)"
            )

    def usable(self, box: Box) -> Bits | None:
        """Return where sites are to be believed; None: everywhere."""
        return None if self.mask is None else (self.mask.read(box) != 0).astype(np.uint8)


def _channels(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.ndim == 4 else values[None]


def _require_head(info: VolumeInfo, name: str, channels: int) -> None:
    if info.dtype != np.uint8:
        raise InputError(
            f"{info.source} stores {info.dtype}: predictions are uint8, as `emloom predict` writes them"
        )
    if (info.channels or 1) != channels:
        raise InputError(
            f"{info.source} has {info.channels or 1} channels, the head {name!r} has {channels}: it is another one"
        )


def _require_same(a: VolumeInfo, b: VolumeInfo) -> None:
    if a.shape != b.shape or not a.grid.matches(b.grid):
        own, other = (f"{i.shape} voxels of {i.grid.voxel_size_nm} nm at {i.grid.offset_nm} nm" for i in (b, a))
        raise InputError(
            f"{b.source} ({own}) is not on the grid of {a.source} ({other}): predict the same box with both"
        )
