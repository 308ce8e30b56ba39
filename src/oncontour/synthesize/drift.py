"""Did the anatomy move? Organs that one frozen segmenter draws on the CT and on the image made of it, compared; and from when on to warn.

The authors of the paper saw an optic nerve grow in 6 of 40 made images, and had no measure for it. A segmenter is any function from an
image to masks on its grid; a command hands it in. Its own scatter, without any drift, sets the limits: they are calibrated on patients
whose made images are known to be good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.metrics.conformal import offset
from oncontour.metrics.overlap import overlap

Segment = Callable[[Volume], Mapping[str, Volume]]
"""Image -> structure -> bool mask on the image's grid; empty where it sees none of it."""
_LEAST_GROWTH, _LEAST_MM = 0.05, 1.0
"""Scatter that is assumed at least, and drift that is never warned of: of the logarithm of a volume, and of a centre in mm."""


@dataclass(frozen=True)
class Drift:
    """One organ on the CT and on the made image: ``volume_ratio`` (made over CT), how far its centre lies away in mm, and their DSC.

    An organ that is in one of them alone has a ratio of 0 or inf and a shift of inf; one that is in neither is left out.
    """

    organ: str
    volume_ratio: float
    shift_mm: float
    dsc: float


@dataclass(frozen=True)
class Limits:
    """What is usual on good images: ``organs``: organ -> (median, scatter) of the logarithm of the volume ratio and scatter of the shift in
    mm; ``most``: how many scatters away the worst organ of a good patient may be; from how many ``patients``."""

    organs: Mapping[str, tuple[float, float, float]]
    most: float
    patients: int
    error: float


@dataclass(frozen=True)
class Verdict:
    """Whether organs drifted: ``flagged`` is None where no limits were calibrated, or they promise nothing (too few patients); ``reasons``
    are sentences, one an organ that lies beyond its limit."""

    flagged: bool | None
    reasons: tuple[str, ...]


def drift(ct: Volume, made: Volume, segment: Segment) -> tuple[Drift, ...]:
    """What ``segment`` draws on both images, which lie on one grid, compared organ by organ."""
    before, after = segment(ct), segment(made)
    return compared(before, after)


def compared(before: Mapping[str, Volume], after: Mapping[str, Volume]) -> tuple[Drift, ...]:
    """Each organ of ``before`` (on the CT) beside that of ``after`` (on the made image); one that ``after`` lacks is empty there."""
    found = []
    for organ, old in before.items():
        new = after.get(organ, old.map(np.zeros_like))
        ccs = old.volume_cc, new.volume_cc
        if not any(ccs):
            continue
        apart = float(np.linalg.norm(_centre_mm(old) - _centre_mm(new))) if all(ccs) else math.inf
        found.append(Drift(organ, ccs[1] / ccs[0] if ccs[0] else math.inf, apart, overlap(old, new).dsc))
    return tuple(found)


def calibrated(good: Sequence[Sequence[Drift]], error: float = 0.1) -> Limits:
    """Limits from patients whose images are known to be good, one sequence of drifts each: of a further such patient the flag fires with a
    chance of ``error`` at most (split conformal over patients, ``metrics/conformal.py``; the scatter is that of the same patients).

    Raises InputError where nobody is there, or an organ is lost in a patient who is called good.
    """
    if not good:
        raise InputError("no patient to calibrate the drift of organs on")
    lost = sorted({one.organ for patient in good for one in patient if not 0 < one.volume_ratio < math.inf})
    if lost:
        raise InputError(
            f"{', '.join(lost)}: drawn on the CT or on the made image alone in a patient who is to be good",
            hint="calibrate on images that were looked at, with organs that the segmenter finds in both",
        )
    organs = {}
    for organ in sorted({one.organ for patient in good for one in patient}):
        of = [one for patient in good for one in patient if one.organ == organ]
        growth, shift = np.log([one.volume_ratio for one in of]), np.array([one.shift_mm for one in of])
        middle = float(np.median(growth))
        scatter = max(1.4826 * float(np.median(np.abs(growth - middle))), _LEAST_GROWTH)
        organs[organ] = (middle, scatter, max(float(np.median(shift)), _LEAST_MM))
    limits = Limits(organs, math.inf, len(good), error)
    worst = [max((_away(one, limits) for one in patient), default=0.0) for patient in good]
    return Limits(organs, max(1.0, offset(worst, range(len(good)), 1 - error)), len(good), error)


def judged(drifts: Sequence[Drift], limits: Limits | None) -> Verdict:
    """Whether any organ drifted further than it does on good images. An organ that is lost or made up is told even without limits."""
    most = limits.most if limits is not None else math.inf
    reasons = []
    for one in drifts:
        if not 0 < one.volume_ratio < math.inf:
            reasons.append(f"{one.organ} is on the {'made image' if one.volume_ratio else 'CT'} alone")
        elif limits is not None and one.organ in limits.organs and (away := _away(one, limits)) > most:
            reasons.append(
                f"{one.organ} has {one.volume_ratio:.2f} times its volume and lies {one.shift_mm:.1f} mm away: {away:.1f} times its usual "
                f"scatter, at most {most:.1f}"
            )
    return Verdict(True if reasons else None if math.isinf(most) else False, tuple(reasons))


def _away(one: Drift, limits: Limits) -> float:
    """How many scatters an organ lies away, in volume or place."""
    middle, growth, shift = limits.organs[one.organ]
    return max(abs(math.log(one.volume_ratio) - middle) / growth, one.shift_mm / shift)


def _centre_mm(mask: Volume) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return mask.geometry.points(np.argwhere(mask.array).mean(axis=0))
