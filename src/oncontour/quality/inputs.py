"""What training and using a quality model share: settings, what the net sees, the reference model, and the calibration in the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from oncontour.core.assessment import Calibration
from oncontour.core.geometry import Geometry
from oncontour.errors import ConfigError, ModelError
from oncontour.learn.build import check_grid
from oncontour.learn.card import find, shipped
from oncontour.learn.engine import Backend
from oncontour.ops.augment import Ranges
from oncontour.ops.intensity import window
from oncontour.quality.simulated_errors import FAMILIES

if TYPE_CHECKING:
    from oncontour.contour.predict import Contourer
    from oncontour.learn.card import Card

NUMBERS = {"dsc": 2, "class": 2, "surface": 1, "present": 1, "area": 2, "surface_high": 1}
"""head -> how many numbers it takes: DSC and the quantile below it; at least medium, at least good; log(1 + mm); is it here; the log of
the wrong area and the quantile above it; the quantile above the log of the outline error."""
AREA_CM2 = 0.25
"""The wrong area is learned as log(1 + area / this)."""
GIVEN = {"mask": (False, False), "own": (False, True), "reference": (True, False), "both": (True, True)}
"""What a net with optional probability maps is given beside CT and mask: its name -> (the reference model's map, the segmenter's own)."""
GIVEN_WORDS = {
    "mask": "CT and contour alone",
    "own": "the segmenter's probability map",
    "reference": "the reference model's probability map",
    "both": "the segmenter's and the reference model's probability maps",
}
FACTS = 2
"""What the net is told of a slice in numbers: how far its mask goes on below and above. Where probability maps are optional three more:
the size of a pixel, and which maps are given."""
CUTS = (0.80, 0.95)
"""DSC from which a slice is medium, and good (Chen, Men et al., Front Oncol 2020;10:524)."""


LOSS_WEIGHTS = {"dsc": 1.0, "class": 0.3, "errors": 1.0, "surface": 0.1, "present": 0.2, "area": 0.3, "surface_high": 0.1}


@dataclass(frozen=True)
class AssessSettings:
    """What makes a quality model; kept in its card, so that the file alone rebuilds it."""

    structures: tuple[str, ...]
    """TG-263 names of what it scores; anything else is "not scored\""""
    net: str = "quality"
    """a row of NETS whose net gives numbers and maps: quality (transformer) or quality_cnn"""
    net_options: dict[str, Any] = field(default_factory=dict)
    """the net's own options, such as width or depth"""
    heads: tuple[str, ...] = ("dsc", "class", "errors", "surface", "present")
    """what is learned together; ("dsc",) is the single task"""
    inputs: Literal["both", "ct", "mask"] = "both"
    """what the net sees"""
    opinion: str = ""
    """reference model: a contour model (a file or a shipped name) whose probability maps the net sees beside the mask; empty: none"""
    own: bool = False
    """whether the net also sees the probability map of the model that drew the mask"""
    channel_dropout: float = 0.0
    """part of the draws in which a probability map is hidden from the net, each by itself: it learns to do without, and knows what it was
    given. 0: the maps must be there, and masks without the segmenter's own are neither learned from nor scored"""
    neighbours: int = 1
    """so many slices on either side ride along, about spacing_mm[0] apart"""
    spacing_mm: tuple[float, float, float] = (2.5, 4.0, 4.0)
    """(k, j, i): pixels the net sees; slices stay those of the CT"""
    spacing_tolerance: float = 0.35
    """a CT whose pixels are within this fraction of spacing_mm is taken as it is"""
    window: tuple[int, int] = (48, 48)
    """rows and columns the net sees at once, multiples of 8"""
    hu: tuple[float, float] = (-200.0, 300.0)
    """grey values from black to white"""
    beyond: int = 2
    """slices past a mask's ends that are looked at: is the structure still there?"""
    variants: int = 16
    """masks that the generator makes of each structure of each patient; 0: real segmenters alone"""
    generated: float = 0.4
    """part of an epoch's draws that come from the generator, where there are real segmenters' masks as well"""
    held_out_families: tuple[str, ...] = ()
    """families of errors that are never learned from, kept for the test"""
    flat: float = 1.0
    """part of an epoch's draws with an even histogram of DSC (10 bins); the rest comes as masks do"""
    draws: int = 6400
    """slices an epoch"""
    weights: dict[str, float] = field(default_factory=lambda: dict(LOSS_WEIGHTS))
    """of each head's loss"""
    augment: Ranges = field(
        default_factory=lambda: Ranges(rotation_deg=12.0, tilt_deg=0.0, zoom=0.12, shift_mm=10.0, hu_shift=30.0, hu_scale=0.06)
    )
    """how far windows are turned, zoomed, shifted and shaded"""
    coverage: float = 0.9
    """part of slices that the lower bound holds for"""
    seed: int = 0
    """of the generator's masks"""

    def __post_init__(self) -> None:
        for name in ("structures", "heads", "spacing_mm", "window", "hu", "held_out_families"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        known = (*NUMBERS, "errors")
        if "dsc" not in self.heads or set(self.heads) - set(known) or len(set(self.heads)) != len(self.heads):
            raise ConfigError(f"heads are dsc and any of {', '.join(known[1:])}, not {list(self.heads)}")
        strange = sorted({*set(self.held_out_families) - set(FAMILIES), *set(self.weights) - set(known)})
        if strange:  # a family misspelt would be learned from, and be taken for one never seen
            raise ConfigError(
                f"no family of errors and no head {', '.join(map(repr, strange))}",
                hint=f"held_out_families: any of {', '.join(FAMILIES)}; weights: of {', '.join(known)}",
            )
        if min(self.neighbours, self.beyond, self.variants, self.seed) < 0 or self.draws < 1 or min(self.spacing_mm) <= 0:
            raise ConfigError(
                "neighbours, beyond, variants and seed are 0 or more, draws 1 or more, spacing_mm above 0, not "
                f"{self.neighbours}, {self.beyond}, {self.variants}, {self.seed}, {self.draws}, {list(self.spacing_mm)}"
            )
        if not self.structures or len(set(self.structures)) != len(self.structures):
            raise ConfigError(f"a model scores one or more different structures, not {list(self.structures)}")
        if any(n % 8 or n < 8 for n in self.window):
            raise ConfigError(f"a window is made of multiples of 8, not {self.window}")
        check_grid(self.spacing_mm, (1, *self.window), self.neighbours)
        if self.beyond > 1000:
            raise ConfigError(f"at most 1000 slices past a mask's ends are looked at, not {self.beyond}")
        if not (np.isfinite(self.hu).all() and self.hu[0] < self.hu[1]):
            raise ConfigError(f"the HU range runs from low to high, not {self.hu}")
        if "surface_high" in self.heads and "surface" not in self.heads:
            raise ConfigError("the head surface_high is a quantile above surface, which is no head", hint="add surface to settings.heads")
        if not 0 <= self.channel_dropout < 1 or (self.channel_dropout and not self.probability_maps):
            raise ConfigError(
                f"channel_dropout is a part from 0 to below 1 of probability maps that the net sees, not {self.channel_dropout} of "
                f"{self.probability_maps}",
                hint="name a reference model (opinion), set own: true, or leave channel_dropout out",
            )
        if not (0 <= self.generated <= 1 and 0 <= self.flat <= 1 and 0 < self.coverage < 1):
            raise ConfigError(f"generated, flat and coverage are parts of one, not {self.generated}, {self.flat}, {self.coverage}")

    @property
    def channels(self) -> int:
        """What the net sees of a slice: CT, mask and probability maps with their neighbours, and the plane of numbers."""
        return (2 + self.probability_maps) * (2 * self.neighbours + 1) + 1

    @property
    def probability_maps(self) -> int:
        """How many probability maps the net sees: the reference model's, that of the model that drew the mask, in this order."""
        return int(bool(self.opinion)) + int(self.own)

    @property
    def facts(self) -> int:
        """How many facts of a slice the net is told."""
        return FACTS + 3 * bool(self.channel_dropout)

    @property
    def needs_own(self) -> bool:
        """Whether nothing is learned from and scored but masks that come with their segmenter's probability map."""
        return self.own and not self.channel_dropout

    @property
    def numbers(self) -> dict[str, slice]:
        """head -> where its numbers stand among the net's."""
        out, at = {}, 0
        for head in (h for h in self.heads if h in NUMBERS):
            out[head] = slice(at, at + NUMBERS[head])
            at += NUMBERS[head]
        return out

    def working_grid(self, geometry: Geometry) -> Geometry:
        """The grid the net sees a case on: upright (S, P, L), the case's own slices, its pixels where they are near ``spacing_mm``."""
        upright = geometry.reorient()
        ratio = np.asarray(upright.spacing_mm[1:]) / np.asarray(self.spacing_mm[1:])
        if (np.abs(ratio - 1) <= self.spacing_tolerance).all():
            return upright
        return upright.resample([upright.spacing_mm[0], *self.spacing_mm[1:]])

    def step(self, grid: Geometry) -> int:
        """Slices of ``grid`` between neighbours."""
        return max(1, round(self.spacing_mm[0] / grid.spacing_mm[0]))


# ---- what the net sees


def pictures(
    hu: NDArray[np.float32],
    mask: NDArray[np.bool_],
    structure: int,
    facts: tuple[float, ...],
    settings: AssessSettings,
    said: Sequence[NDArray[np.uint8] | NDArray[np.float32]] = (),
) -> NDArray[np.float32]:
    """(channels, rows, columns): CT slices, mask slices, slices of the probability maps ``said`` (0 to 255), and the plane
    whose first row holds the structure's number and the facts."""
    n = len(hu)
    image = np.zeros((settings.channels, *hu.shape[1:]), np.float32)
    image[:n], image[n : 2 * n] = window(hu, *settings.hu), mask
    for number, one in enumerate(said, start=2):
        image[number * n : (number + 1) * n] = one.astype(np.float32) / 255
    if settings.inputs == "mask":
        image[:n] = 0
    elif settings.inputs == "ct":
        image[n : 2 * n] = 0
    image[-1, 0, 0] = structure
    image[-1, 0, 1 : 1 + len(facts)] = facts
    return image


def facts_of(
    settings: AssessSettings, around: tuple[float, ...], spacing_mm: tuple[float, float, float], given: tuple[bool, bool]
) -> tuple[float, ...]:
    """What the net is told in numbers: ``around`` (``Rows.facts``); where maps are optional also the size of a pixel (log2, 0 at 4 mm) and
    which are ``given`` (the reference model's, the segmenter's own)."""
    if not settings.channel_dropout:
        return around
    return (*around, float(np.log2(spacing_mm[1] * spacing_mm[2] / 16) / 2), *map(float, given))


# ---- its reference model


def load_reference(model: str, backend: Backend, threads: int | None) -> Contourer:
    """The reference model, a contour model ready to be used; compiled once. A shipped model comes before a file of its name.

    Raises ModelError where there is none, and for other people's models.
    """
    path = shipped().get(model) or find(model)
    return _compiled(path.resolve(), path.stat().st_mtime_ns, backend, threads)


def told_of(reference: Card) -> dict[str, str]:
    """What a quality model's card keeps of its reference model."""
    return {"model": reference.name, "sha256": reference.sha256}


@lru_cache(maxsize=2)
def _compiled(path: Path, changed: int, backend: Backend, threads: int | None) -> Contourer:
    from oncontour.contour.predict import Contourer, load_contourer

    found = load_contourer(path, backend=backend, threads=threads)
    if not isinstance(found, Contourer):
        raise ModelError("only a contour model of our own can be the reference model", where=str(path))
    return found


# ---- its calibration, in the card


def calibration_of(made: Mapping[str, object]) -> Calibration | None:
    """The calibration that a card keeps under ``made`` (checked by ``learn.card``); None where nothing was calibrated."""
    told = made.get("calibration")
    if not isinstance(told, Mapping) or not told:
        return None
    known = {("detector" if key == "gate" else key): value for key, value in told.items()}
    kept = {key: value for key, value in known.items() if key in Calibration.__dataclass_fields__}
    if isinstance(inputs := kept.get("inputs"), Mapping):
        kept["inputs"] = {name: one for name in GIVEN if (one := calibration_of({"calibration": inputs.get(name)})) is not None}
    return Calibration(**kept)


def reference_sha256(made: Mapping[str, object]) -> str | None:
    """Hash of the reference model that the calibration was made with, as a card keeps it under ``made``; None where it names none."""
    told = made.get("opinion")
    return str(told["sha256"]) if isinstance(told, Mapping) and "sha256" in told else None


def calibration_words(calibration: Calibration | None) -> dict[str, object]:
    """``calibration`` as a card and ``report.json`` hold it; empty for None."""
    if calibration is None:
        return {}
    order = ("coverage", "method", "offsets", "area", "outline", "patients", "slices", "data", "detector")
    told = {("gate" if name == "detector" else name): getattr(calibration, name) for name in order}
    if calibration.inputs is not None:
        told |= {"offsets": None, "inputs": {name: calibration_words(one) for name, one in calibration.inputs.items()}}
    return {key: value for key, value in told.items() if value is not None}
