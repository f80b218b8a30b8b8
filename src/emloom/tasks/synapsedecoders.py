"""How predictions become synapses, as values: one decoder per kind of prediction.

=============  =============================  ==========================================================
`SitesDecoder`      `sites`: pre, post        pre and post components, each post to a pre near by (SimpSyn)
`VectorsDecoder`    `post`, `vectors`         post components, which point at their pre site (Synful)
`ProximityDecoder`  `proximity`: signed       pre and post components close to each other (EMSynConn)
`PolarityDecoder`   `polarity`: pre, post,    the sides of one component of the union (polarity2instance)
                    union
`CleftsDecoder`     `clefts`                  the segments beside a cleft (VESICLE; Zetta's assignment)
=============  =============================  ==========================================================

Predictions are uint8; a share ``t`` of a probability is reached from ``ceil(255 t)`` on, so a signed distance
stored with its border at 127.5 is cut there by 0.5.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.geometry.grid import Vec3
from emloom.nn.shipped import ModelPath
from emloom.ops.cellparts import LayerRule
from emloom.ops.joining import ANY, SizeRule
from emloom.spec import Spec

Extent = Annotated[int, Field(ge=1)]
Length = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Location = Literal["centre", "peak"]
Measure = Literal["mean", "max", "sum"]


class EvidenceSpec(Spec):
    """How evidence becomes components."""

    threshold: Share = 0.5
    """Share of the highest evidence from which on a voxel counts."""
    smoothing_nm: tuple[Length, Length, Length] = (0.0, 0.0, 0.0)
    """Standard deviation (z, y, x) of the Gaussian that smooths a prediction first; 0: none along that axis."""
    connectivity: Literal[6, 18, 26] = 6
    """Voxels are connected by faces, also by edges, also by corners."""
    min_size_vox: int = Field(default=1, ge=1)
    """Smaller components are dropped."""
    max_size_vox: int | None = Field(default=None, ge=1)
    """Larger ones are, too."""
    min_sections: int = Field(default=1, ge=1)
    """Components that span fewer sections are dropped."""
    section_area_vox: tuple[Extent, Extent] | None = None
    """Least and largest area of the components of single sections, which are dropped before any are joined across
    sections; None: any area."""
    split_by_segment: bool = True
    """A component lies in one segment; else it belongs to the one that holds most of its voxels."""
    keep_background: bool = False
    """Evidence in segment 0 counts, as if that were a neuron."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_size_vox is not None and self.max_size_vox < self.min_size_vox:
            raise ValueError(
                f"components of at least {self.min_size_vox} and at most {self.max_size_vox} voxels: none are"
            )
        if self.section_area_vox is not None and self.section_area_vox[0] > self.section_area_vox[1]:
            raise ValueError(f"an area of {self.section_area_vox}: give the least first, then the largest")
        return self

    @property
    def level(self) -> int:
        """The threshold as stored in predictions."""
        return max(1, ceil(255 * self.threshold - 1e-6))

    @property
    def layer(self) -> LayerRule:
        """How cells cut it."""
        per_section = self.section_area_vox is not None
        return LayerRule(self.level, self.connectivity, self.split_by_segment, self.keep_background, per_section)

    @property
    def sizes(self) -> SizeRule:
        """What is kept."""
        return SizeRule(self.min_size_vox, self.max_size_vox or ANY, self.min_sections, self.section_area_vox)


class ScoreSpec(Spec):
    """How sure a component is, from 0 to 1."""

    measure: Measure = "mean"
    """Of its evidence: the mean, the highest, or the sum."""
    sum_full_vox: int = Field(default=500, ge=1)
    """Voxels of full evidence that make a sum 1; more stay 1."""
    location: Location = "centre"
    """The voxel at which it is: the one nearest its centroid, or of highest evidence."""


class SitesDecoder(Spec):
    """Pre and post components; each post site is given to a pre site near by."""

    kind: Literal["sites"] = "sites"
    pre: EvidenceSpec = EvidenceSpec(min_size_vox=5)
    post: EvidenceSpec = EvidenceSpec(min_size_vox=5)
    max_distance_nm: float = Field(default=400.0, gt=0)
    """From pre to post site, at most."""
    assign: Literal["nearest", "one_to_one"] = "nearest"
    """Every post site to the nearest pre site of another segment, so that a pre site may have several; or pairs
    of one each, of least distance in all."""
    contact_nm: float | None = Field(default=None, ge=0)
    """Only segments that touch between the two sites: voxels of both, at most so far apart (0: share a face)."""
    score: ScoreSpec = ScoreSpec()


class VectorsDecoder(Spec):
    """Post components, each of which points at its pre site."""

    kind: Literal["vectors"] = "vectors"
    post: EvidenceSpec = EvidenceSpec(min_size_vox=5)
    scale_nm: float | None = Field(default=None, gt=0)
    """Length of the longest vector component; None: as the model says, else 250."""
    lookup: Literal["mean", "location"] = "mean"
    """The pre site as the mean of where all voxels of a component point, or where the one at its site does."""
    search_nm: Length = 50.0
    """How far from there a segment is looked for, where there is none or only the post site's own."""
    polyad_nm: Length = 60.0
    """Pre sites of one segment are the same one if they are as near as this."""
    score: ScoreSpec = ScoreSpec()


class ProximityDecoder(Spec):
    """Pre and post components close to each other, from a signed proximity."""

    kind: Literal["proximity"] = "proximity"
    evidence: EvidenceSpec = EvidenceSpec(threshold=0.3, min_size_vox=100)
    max_gap_nm: Length = 50.0
    """Between the nearest voxels of the two components."""
    max_distance_nm: float = Field(default=800.0, gt=0)
    """Between the two sites."""
    contact_nm: float | None = Field(default=None, ge=0)
    """As of `SitesDecoder`."""
    score: ScoreSpec = ScoreSpec()


class PolarityDecoder(Spec):
    """The sides of one component of the union."""

    kind: Literal["polarity"] = "polarity"
    sides: EvidenceSpec = EvidenceSpec(min_size_vox=128)
    union_threshold: Share = 0.5
    spread_nm: Length = 32.0
    """By how much the union grows before it is cut into components, so that what lies on either side of a membrane
    is one: a window of as many whole voxels either way, along z too unless sections are thicker than that."""
    polyads: bool = True
    """Every post component of a union is a partner of the nearest pre site there; else only the one with most
    evidence."""
    score: ScoreSpec = ScoreSpec()


class CleftsDecoder(Spec):
    """The segments beside a cleft; which of them is pre, a second prediction must say."""

    kind: Literal["clefts"] = "clefts"
    cleft: EvidenceSpec = EvidenceSpec(min_size_vox=50, connectivity=18, split_by_segment=False)
    reach_nm: Length = 40.0
    """How far around a cleft segments and predictions are looked at."""
    min_overlap_vox: int = Field(default=25, ge=1)
    """Voxels that a segment has there at least."""
    assign: Literal["dilate_nearest", "max", "threshold"] = "dilate_nearest"
    """The two segments with most voxels, orientation unknown; or by pre and post evidence: the two segments with
    most of either; or the one with most pre evidence, and all with as much post evidence as `post_threshold`."""
    sides: str | None = None
    """Pre and post evidence for `max` and `threshold`: a volume `sites`, `polarity` or `proximity`."""
    measure: Literal["sum", "mean"] = "sum"
    """Evidence of a segment: the sum around the cleft, or the mean."""
    post_threshold: Share = 0.5
    """Mean post evidence from which on a segment is a partner, for `threshold`."""
    score: ScoreSpec = ScoreSpec()

    @model_validator(mode="after")
    def _sided(self) -> Self:
        if self.assign != "dilate_nearest" and self.sides is None:
            raise ValueError(
                f"assign {self.assign!r} goes by pre and post evidence: give a volume that holds it as `sides`, "
                "or use dilate_nearest, which leaves the orientation unknown"
            )
        return self


Decoder = Annotated[
    SitesDecoder | VectorsDecoder | ProximityDecoder | PolarityDecoder | CleftsDecoder,
    Field(discriminator="kind"),
]


class CleanSpec(Spec):
    """What is removed from the table in the end."""

    autapses: Literal["remove", "keep"] = "remove"
    """Synapses of a segment with itself."""
    duplicates_nm: float | None = Field(default=None, ge=0)
    """Of synapses between the same two segments, those as near as this to one of a better score, at both sites."""
    min_score: float = Field(default=0.0, ge=0, le=1)
    """Those with less."""


class ModelSpecs(Spec):
    """How a model is applied first."""

    voxel_size_nm: Vec3 | None = None
    """Of the raw, where it does not say so."""
    tile_shape_vox: tuple[Extent, Extent, Extent] | None = None
    orientations: Literal[1, 4, 8, 16] = 1
    """Predictions averaged, see `emloom predict`."""
    any_voxel_size: bool = False


class SynapsesJob(Spec):
    """Find synapses (`emloom synapses`)."""

    segmentation: str
    """Segments, uint, 0 is background; covers the prediction, on its grid."""
    output: str
    """Folder to be made."""
    raw: str | None = None
    """Raw volume, to be predicted with `model`; with `prediction` only for pictures."""
    model: ModelPath | None = None
    prediction: str | None = None
    """What `emloom predict` wrote, with the heads that the decoder reads."""
    decoder: Decoder | None = None
    """None: that of the heads of the prediction, with its defaults."""
    clean: CleanSpec = CleanSpec()
    mask: str | None = None
    """0 where sites are not to be believed; or a folder of `emloom qc` or `emloom repair`."""
    cell_shape_vox: tuple[Extent, Extent, Extent] = (64, 256, 256)
    """Voxels (z, y, x) that are worked on at once; the result is the same for any."""
    predicting: ModelSpecs = ModelSpecs()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.model is None) == (self.prediction is None):
            raise ValueError("give either a model, with a raw volume, or a prediction")
        if self.model is not None and self.raw is None:
            raise ValueError("a model predicts a raw volume: give it, too")
        return self
