"""Did the anatomy move? Organs of the CT, drawn by a frozen segmenter and followed into the image made of it; and from when on to warn.

The authors of the paper saw an optic nerve grow in 6 of 40 made images, and had no measure for it. A segmenter is any function from a CT to
masks; a command hands it in. How an organ is followed stands in ``aligned.py``. What is found on images that are known to be good sets the
limits (``bench/drift.py``); they hold for the segmenter that they were calibrated with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files

import numpy as np

from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.metrics.conformal import offset
from oncontour.synthesize.aligned import follow

Segment = Callable[[Volume], Mapping[str, Volume]]
"""CT -> structure -> bool mask on the CT's grid; empty where it sees none of it."""
LEAST_CC = 0.5
"""An organ of less than this counts as not there."""
_LEAST_GROWTH, _LEAST_MM, _LEAST_UNLIKE = 0.01, 0.15, 0.1
"""Scatter that is assumed at least: of the logarithm of a volume ratio, of a place in mm, of Fisher's z of a likeness."""
_MARGIN = 1.25
"""By which the limit is wider than the calibrated: the same patients gave the scatter."""
_NINETY = 1.645
"""SDs within which nine of ten of a normal distribution lie."""


@dataclass(frozen=True)
class Drift:
    """One organ in the made image: ``volume_ratio`` (made over CT), how far its centre lies away in mm, and ``likeness``: the correlation
    of what is there with what the CT makes expect, once moved; near 0 where the organ went."""

    organ: str
    volume_ratio: float
    shift_mm: float
    likeness: float


@dataclass(frozen=True)
class Usual:
    """What is usual of one organ on good images: median of the logarithm of the volume ratio and its scatter above and below, scatter of
    the shift in mm, median of Fisher's z (the inverse hyperbolic tangent) of the likeness and its scatter below.

    Above and below apart: of good images a brainstem seems up to a fifth too small, and hardly ever a twentieth too large.
    """

    growth: float
    growth_scatter: float
    shrink_scatter: float
    shift_mm: float
    alike: float
    alike_scatter: float

    def away(self, one: Drift) -> float:
        """How many scatters an organ lies away: in volume, in place, or in that it is less like what is expected."""
        more = math.log(one.volume_ratio) - self.growth
        grown = more / self.growth_scatter if more > 0 else -more / self.shrink_scatter
        return max(grown, one.shift_mm / self.shift_mm, (self.alike - _z(one.likeness)) / self.alike_scatter)


@dataclass(frozen=True)
class Limits:
    """What is usual on good images: ``organs``; ``most``: how many scatters away the worst organ of a good patient may be; from how many
    ``patients``, and with which chance of a false alarm (``error``); ``origin``: which patients and images."""

    organs: Mapping[str, Usual]
    most: float
    patients: int
    error: float
    origin: str = ""

    def within(self, organ: str) -> tuple[float, float, float, float]:
        """(least and greatest volume ratio, greatest shift in mm, least likeness) that are no reason to warn."""
        u = self.organs[organ]
        ends = math.exp(u.growth - self.most * u.shrink_scatter), math.exp(u.growth + self.most * u.growth_scatter)
        return *ends, self.most * u.shift_mm, math.tanh(u.alike - self.most * u.alike_scatter)


@dataclass(frozen=True)
class Verdict:
    """Whether organs drifted: ``flagged`` is None where no limits were calibrated, or they promise nothing (too few patients); ``reasons``
    are sentences, one an organ that lies beyond its limit."""

    flagged: bool | None
    reasons: tuple[str, ...]


def drift(ct: Volume, made: Volume, segment: Segment) -> tuple[Drift, ...]:
    """What became in ``made`` of each organ that ``segment`` draws on ``ct``; both lie on one grid. Raises what ``follow`` raises."""
    return followed(ct, made, segment(ct))


def followed(ct: Volume, made: Volume, organs: Mapping[str, Volume]) -> tuple[Drift, ...]:
    """What became in ``made`` of each of ``organs`` (masks on the CT's grid) that has LEAST_CC."""
    found = []
    for name, mask in organs.items():
        if mask.volume_cc >= LEAST_CC:
            one = follow(ct, made, mask)
            found.append(Drift(name, one.volume_ratio, one.shift_mm, one.likeness))
    return tuple(found)


def calibrated(good: Sequence[Sequence[Drift]], error: float = 0.1, origin: str = "") -> Limits:
    """Limits from patients whose images are known to be good, one sequence of drifts each: of a further such patient the flag fires with a
    chance of about ``error`` (split conformal over patients, ``metrics/conformal.py``, times _MARGIN).

    Raises InputError where nobody is there.
    """
    if not good:
        raise InputError("no patient to calibrate the drift of organs on")
    organs = {}
    for organ in sorted({one.organ for patient in good for one in patient}):
        of = [one for patient in good for one in patient if one.organ == organ]
        growth, below, above = _middle([math.log(one.volume_ratio) for one in of])
        alike, unlike, _ = _middle([_z(one.likeness) for one in of])
        shift = float(np.percentile([one.shift_mm for one in of], 90)) / _NINETY
        least = max(above, _LEAST_GROWTH), max(below, _LEAST_GROWTH), max(shift, _LEAST_MM)
        organs[organ] = Usual(growth, *least, alike, max(unlike, _LEAST_UNLIKE))
    worst = [max((organs[one.organ].away(one) for one in patient), default=0.0) for patient in good]
    return Limits(organs, max(1.0, _MARGIN * offset(worst, range(len(good)), 1 - error)), len(good), error, origin)


def judged(drifts: Sequence[Drift], limits: Limits | None) -> Verdict:
    """Whether any organ drifted further than it does on good images; of an organ that the limits do not know nothing is said."""
    if limits is None or math.isinf(limits.most):
        return Verdict(None, ())
    reasons = []
    for one in drifts:
        if one.organ not in limits.organs or limits.organs[one.organ].away(one) <= limits.most:
            continue
        low, high, shift, least = limits.within(one.organ)
        reasons.append(
            f"{one.organ} has {one.volume_ratio:.2f} times its volume ({low:.2f} to {high:.2f} in good images), lies {one.shift_mm:.1f} mm "
            f"away (at most {shift:.1f}) and correlates by {one.likeness:.2f} with what the CT makes expect (at least {least:.2f})"
        )
    return Verdict(bool(reasons), tuple(reasons))


def shipped_limits(sha256: str) -> Limits | None:
    """The limits that come with the package for the segmenter whose weights have this SHA-256; None where there are none."""
    known = json.loads(files("oncontour.synthesize").joinpath("drift_limits.json").read_text(encoding="utf-8"))
    return limits_from(json.dumps(known[sha256])) if sha256 in known else None


def limits_from(text: str) -> Limits:
    """What ``limits_words`` gave, from its JSON."""
    words = json.loads(text)
    organs = {organ: Usual(**usual) for organ, usual in words["organs"].items()}
    return Limits(organs, words["most"], words["patients"], words["error"], words["origin"])


def limits_words(limits: Limits) -> dict[str, object]:
    """As JSON holds it."""
    return asdict(limits)


def _middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, scatter below and scatter above it: of a normal distribution the SD, here from the distance that nine of ten on that side
    keep, as some organs (a brainstem of which the image shows little) are found far worse in some patients than in most."""
    middle = float(np.median(values))
    away = np.asarray(values) - middle
    below, above = (float(np.percentile(side, 90)) / _NINETY for side in (-away[away <= 0], away[away >= 0]))
    return middle, below, above


def _z(likeness: float) -> float:
    return math.atanh(min(max(likeness, -0.999), 0.999))
