"""What models leave on a case beside masks: how contours came about, and the risk of a toxicity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from oncontour.core.volume import Volume


@dataclass(frozen=True)
class Segmentation:
    """How one contour model drew: which one, on which working ``grid`` (in words), how windows were blended, what was tidied afterwards.

    ``mirror``: whether what the net says of the mirror image was averaged in, None where the model does not know of it. ``elsewhere``: what
    the CT shows, in words, where it is another part of the body than the model was made for; "" where it is not. ``notes``: what a person
    should know of these contours. ``synthetic``: true where the model saw an image that was made by a model, not acquired. ``kind`` and
    ``original_names`` (TG-263 name -> the model's own) are known of other people's models alone.
    """

    model: str
    sha256: str
    structures: tuple[str, ...]
    grid: str
    backend: str
    threads: int
    blend: str
    mirror: bool | None
    tidy: Mapping[str, object]
    tidied: tuple[str, ...] = ()
    kind: str = ""
    original_names: Mapping[str, str] = field(default_factory=dict)
    elsewhere: str = ""
    notes: tuple[str, ...] = ()
    synthetic: bool | None = None


@dataclass(frozen=True)
class Candidate:
    """What one segmenter drew in a patient whose truth is known: ``masks`` on the case's grid, and ``probabilities``: structure ->
    probability times 255 (uint8) on the segmenter's grid, where they were kept."""

    masks: Mapping[str, Volume]
    probabilities: Mapping[str, Volume] = field(default_factory=dict)


@dataclass(frozen=True)
class Toxicity:
    """The risk of one toxicity. ``low`` and ``high``: where the ``members`` agree, None from one member; ``threshold``: from which
    probability on a patient is ``flagged``, both None where none was set; ``recalibrated``: on how many patients."""

    probability: float
    low: float | None
    high: float | None
    members: tuple[float, ...]
    threshold: float | None
    flagged: bool | None
    recalibrated: int


@dataclass(frozen=True)
class PublishedRisk:
    """What a published model says of the same plan: probability, of what, and where it was published."""

    probability: float
    endpoint: str
    source: str


@dataclass(frozen=True, eq=False)
class RiskPrediction:
    """Probabilities of toxicities from a plan. ``simulated``: the model learned from outcomes that were made up.

    ``reference``: published models that apply; ``figures``: DVH figures of ``structure`` (Gy or %); ``features``: chosen feature -> value,
    None where it is not defined; ``sensitivity``: log odds of the first toxicity a Gy in each voxel of the window; ``region``: the map, 0
    to 1, that the model looked at.
    """

    model: str
    sha256: str
    simulated: bool
    structure: str
    toxicities: Mapping[str, Toxicity]
    reference: Mapping[str, PublishedRisk]
    figures: Mapping[str, float]
    features: Mapping[str, float | None]
    notes: tuple[str, ...]
    sensitivity: Volume
    region: Volume | None = None
