"""What `emloom evaluate` is told about synapses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from emloom.metrics.partnerpairs import Outside
from emloom.metrics.partners import PartnerOptions
from emloom.spec import Spec
from emloom.tasks.cleftobjects import ObjectsSpec

Length = Annotated[float, Field(ge=0)]


class CleftsSpec(Spec):
    """Volumes of clefts, where `found` and `truth` do not hold them, and what counts."""

    found: str | None = None
    """Clefts found, any labels or mask with background 0."""
    truth: str | None = None
    """True clefts, on the same voxels or more."""
    mask: str | None = None
    """Non-zero where voxels count, besides what the truth of a CREMI file ignores."""
    limit_nm: Length = 200.0
    """Voxels farther than this from the other side are false."""
    objects: ObjectsSpec = ObjectsSpec()
    """What `cleft_objects` counts."""


class PartnersSpec(Spec):
    """How partner pairs are matched; the defaults are CREMI's."""

    limit_nm: Length = 400.0
    """Sites farther apart than this never match."""
    outside: Outside = "refuse"
    """Found pairs with a site outside the segmentation are an error, or (`unmatched`) wrong."""
    drop_autapses: bool = False
    """Leave out found pairs within one segment; in connections those of the truth, too."""
    redundant_nm: Length = 0.0
    """Of found pairs between the same segments with post sites in steps of this, keep one."""
    beta: Annotated[float, Field(gt=0)] = 1.0
    """How much more recall weighs than precision, where a threshold of the scores is sought."""

    @property
    def options(self) -> PartnerOptions:
        """How pairs are matched."""
        return PartnerOptions(self.limit_nm, self.outside, self.drop_autapses, self.redundant_nm)


class SynapseSpec(Spec):
    """Score synapses against their truth."""

    found: str
    """What was found: a CREMI file, a table of synapses (.parquet, .csv) or a folder that holds one, as
    `emloom synapses` and `emloom connectome` write it; for clefts alone, any volume of them."""
    truth: str
    """The truth, in any of the same forms."""
    output: str
    metrics: tuple[str, ...] = ("partners", "connections")
    """Names of `emloom.metrics.synapsebook`: clefts, cleft_objects, partners, polyads, connections."""
    segmentation: str | None = None
    """True neurons, in which all sites are looked up; None: the neuron ids of `truth`, where that is a
    CREMI file."""
    found_segmentation: str | None = None
    """Neurons found: where given, connections found are between them, each as the true neuron it overlaps most."""
    raw: str | None = None
    """Raw volume, to be drawn behind what is wrong."""
    clefts: CleftsSpec = CleftsSpec()
    partners: PartnersSpec = PartnersSpec()
    minimum_weight: Annotated[int, Field(ge=1)] = 1
    """Synapses that make a connection."""
