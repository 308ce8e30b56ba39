"""What a contour model is where the user leaves it to the cohort: which structures, on which grid, in which window.

    structures   the organs (by their TG-263 names) that at least half of the patients have, at most 32, in the order in which they are met
    spacing_mm   the median of the patients' spacings, axis by axis
    window       as much of the median patient as WINDOW_VOXELS hold (FLAT_VOXELS for a net that sees slices), as near to a cube in mm as
                 the patient and the net's divisor allow

Targets are not chosen: what is drawn as a target is a decision, and overlaps organs. What is given is left as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from oncontour.contour.inputs import ContourSettings
from oncontour.core.case import Case
from oncontour.errors import ConfigError
from oncontour.io.names import interpreted_type

WINDOW_VOXELS, FLAT_VOXELS = 64**3, 256**2
_MOST = 32
_PART = 0.5
"""Of the patients have a structure that is chosen."""


@dataclass(frozen=True)
class ContourWishes(ContourSettings):
    """Settings of a contour model, of which some may be left to the cohort (``chosen``)."""

    structures: tuple[str, ...] = ()
    """TG-263 names, one output each; left out: the organs that at least half of the patients have"""
    spacing_mm: tuple[float, float, float] | None = None  # type: ignore[assignment]
    """working grid (k, j, i); left out: the median of the patients'"""
    window: tuple[int, int, int] | None = None  # type: ignore[assignment]
    """voxels (k, j, i) the net sees at once; k is 1 for 2D nets; left out: a cube in mm of about 64^3 voxels (2D nets: a square of
    256^2), no larger than the median patient"""

    def __post_init__(self) -> None:
        """Refuse, before patients are read, what could not be used whatever they are."""
        for name in ("structures", "spacing_mm", "window"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))
        thresholds = self.threshold if isinstance(self.threshold, tuple | list) else ()
        names = self.structures or tuple(f"structure {n}" for n in range(max(1, len(thresholds))))
        self._with(names, self.spacing_mm or ContourSettings.spacing_mm, self.window or (1, 1, 1))

    def _with(self, structures: Sequence[str], spacing_mm: Sequence[float], window: Sequence[int]) -> ContourSettings:
        values = {one.name: getattr(self, one.name) for one in fields(ContourSettings)}
        return ContourSettings(**{**values, "structures": tuple(structures), "spacing_mm": tuple(spacing_mm), "window": tuple(window)})

    def chosen(self, cases: Iterable[Case]) -> tuple[ContourSettings, tuple[str, ...]]:
        """(the settings with what was left out chosen from ``cases``, a sentence for each choice); ``cases`` are not looked at where
        nothing was. Raises ConfigError for no cases, and where no organ is in at least half of them."""
        if self.structures and self.spacing_mm and self.window:
            return self._with(self.structures, self.spacing_mm, self.window), ()
        seen = [_Patient.of(case) for case in cases]
        if not seen:
            raise ConfigError("there is no patient to choose structures and grid from", hint="give a cohort of patients with contours")
        structures, told = (self.structures, []) if self.structures else _structures(seen)
        if (spacing_mm := self.spacing_mm) is None:
            k, j, i = (round(float(mm), 3) for mm in np.median([one.spacing_mm for one in seen], axis=0))
            spacing_mm = (k, j, i)
            told.append(f"settings.spacing_mm {k:g},{j:g},{i:g}: the median of {len(seen)} patients")
        if (window := self.window) is None:
            extent_mm = np.median([one.extent_mm for one in seen], axis=0)
            shape = [max(1, round(float(mm / step))) for mm, step in zip(extent_mm, spacing_mm, strict=True)]
            divisor, flat = _net(self, structures)
            window = window_for(spacing_mm, shape, divisor, flat=flat)
            told.append(f"settings.window {','.join(map(str, window))}: of a median patient of {' x '.join(map(str, shape))} voxels")
        return self._with(structures, spacing_mm, window), tuple(told)


@dataclass(frozen=True)
class _Patient:
    structures: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    extent_mm: tuple[float, ...]

    @classmethod
    def of(cls, case: Case) -> _Patient:
        upright = case.geometry.reorient()
        extent = (n * mm for n, mm in zip(upright.shape, upright.spacing_mm, strict=True))
        return cls(case.structures, upright.spacing_mm, tuple(extent))


def _structures(seen: Sequence[_Patient]) -> tuple[tuple[str, ...], list[str]]:
    counts = Counter(name for one in seen for name in one.structures)
    organs = [name for name in counts if interpreted_type(name) == "ORGAN"]
    enough = [name for name in organs if counts[name] >= _PART * len(seen)]
    kept = set(sorted(enough, key=lambda name: -counts[name])[:_MOST])
    found = tuple(name for name in enough if name in kept)
    there = ", ".join(f"{name} ({count} of {len(seen)})" for name, count in counts.most_common(20))
    if not found:
        raise ConfigError(
            f"no organ with a TG-263 name is in at least half of the patients; there are {there or 'no structures'}",
            hint="name what is to be learned with --settings.structures",
        )
    told = [f"settings.structures {','.join(found)}: organs that at least half of {len(seen)} patients have"]
    left = [f"{name} ({count} of {len(seen)})" for name, count in counts.most_common() if name not in kept]
    return found, told + ([f"not chosen: {', '.join(left)}"] if left else [])


def _net(settings: ContourSettings, structures: Sequence[str]) -> tuple[int, bool]:
    """(the divisor of the net's windows, whether it sees slices)."""
    from oncontour.nets import make_net

    net = make_net(settings.net, 1 + 2 * settings.neighbours, len(structures), **settings.net_options)
    return int(getattr(net, "divisor", 1)), getattr(net, "dims", 3) == 2


def window_for(spacing_mm: Sequence[float], shape: Sequence[int], divisor: int, *, flat: bool) -> tuple[int, int, int]:
    """The window (k, j, i) of about WINDOW_VOXELS, or (1, j, i) of FLAT_VOXELS, for a patient of ``shape`` voxels of ``spacing_mm``.

    A cube in mm; an axis along which the patient is shorter than it gives what it does not need to the others. Sizes are the nearest
    multiples of ``divisor``, at least one, and one of them at least two.

    >>> window_for((3.0, 1.0, 1.0), (120, 512, 512), 16, flat=False)
    (32, 96, 96)
    """
    axes = [1, 2] if flat else [0, 1, 2]
    most = {axis: math.ceil(shape[axis] / divisor) * divisor for axis in axes}
    sizes = dict.fromkeys(axes, 0.0)
    free, left = list(axes), float(FLAT_VOXELS if flat else WINDOW_VOXELS)
    while free:
        side_mm = (left * math.prod(spacing_mm[axis] for axis in free)) ** (1 / len(free))
        short = [axis for axis in free if most[axis] <= side_mm / spacing_mm[axis]]
        if not short:
            sizes |= {axis: side_mm / spacing_mm[axis] for axis in free}
            break
        sizes |= {axis: float(most[axis]) for axis in short}
        left /= math.prod(most[axis] for axis in short)
        free = [axis for axis in free if axis not in short]
    whole = {axis: max(1, round(size / divisor)) * divisor for axis, size in sizes.items()}
    largest = max(axes, key=lambda axis: whole[axis])
    whole[largest] = max(whole[largest], 2 * divisor)
    return whole.get(0, 1), whole[1], whole[2]
