"""Dose-volume histograms: computed once by ``dvh``, read many times.

    one = dvh(case.images["dose"], case.contours["SpinalCord"], name="SpinalCord")
    one.mean_gy, one.max_gy, one["D0.03cc"], one["V20Gy"], one.D95, one.geud_gy(8)

The structure is cut into a hundred thousand cells and more, however small it is (``dose.cells``); each receives the interpolated dose
(``dose.field``) and spreads its volume over the dose that it spans. So a structure of 0.1 cc is as exact as one of 1 l, and neither grid,
the dose's nor the CT's, shows in the curve. *Differs:* the usual way counts voxel centres on one of the two grids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oncontour.core.contours import Contours, Slices
from oncontour.core.volume import Volume, written_cc
from oncontour.dose.cells import cells
from oncontour.dose.metric_names import Figure, parse
from oncontour.errors import ConfigError, DoseError

Floats = NDArray[np.float64]
BINS = 4096
"""Steps between the least and the largest dose of a structure."""


@dataclass(frozen=True, eq=False)
class DVH:
    """What a structure receives: ``above_cc[n]`` of it at least ``edges_gy[n]``, in a straight line between.

    ``edges_gy`` rises from the least to the largest dose, ``above_cc`` falls from the volume that has a dose; both are empty for a
    structure that is empty or lies beyond the dose: every figure is then NaN. ``missing_cc`` lies beyond the dose grid, its dose is
    unknown: all figures, percentages too, are those of the part that has a dose (``note`` says so). ``basis`` says what kind of dose.
    """

    name: str
    edges_gy: Floats
    above_cc: Floats
    mean_gy: float
    missing_cc: float = 0.0
    basis: str = "physical"

    def __post_init__(self) -> None:
        for name in ("edges_gy", "above_cc"):
            value = np.array(getattr(self, name), dtype=np.float64)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        fits = self.edges_gy.ndim == 1 and self.edges_gy.shape == self.above_cc.shape
        if not fits or (np.diff(self.edges_gy) < 0).any() or (np.diff(self.above_cc) > 1e-9 * max(self.volume_cc, 1e-9)).any():
            raise DoseError("a DVH has rising doses and falling volumes, one each", where=self.name)

    # ---- whole figures

    @property
    def dosed_cc(self) -> float:
        """The volume that has a dose: 100 % of every percentage."""
        return float(self.above_cc[0]) if len(self.above_cc) else 0.0

    @property
    def volume_cc(self) -> float:
        """The whole structure, beyond the dose grid too."""
        return self.dosed_cc + self.missing_cc

    @property
    def min_gy(self) -> float:
        return float(self.edges_gy[0]) if len(self.edges_gy) else np.nan

    @property
    def max_gy(self) -> float:
        return float(self.edges_gy[-1]) if len(self.edges_gy) else np.nan

    @property
    def note(self) -> str | None:
        """One sentence where the figures are not those of the whole structure, else None."""
        if not self.volume_cc:
            return f"{self.name or 'the structure'} is empty: it has no dose figures"
        share = self.missing_cc / self.volume_cc
        if share <= 1e-6:
            return None
        name = self.name or "the structure"
        if not self.dosed_cc:
            return f"{name} lies outside the dose grid, all of its {written_cc(self.volume_cc)} cc: it has no dose figures"
        return f"{100 * share:.3g} % of {name} ({written_cc(self.missing_cc)} cc) lies outside the dose grid: the figures are of the rest"

    # ---- figures at a dose or a volume

    def dose_to_cc(self, cc: float) -> float:
        """Gy that the best irradiated ``cc`` receive at least; NaN where the structure is smaller."""
        if not len(self.edges_gy) or not 0 <= cc <= self.dosed_cc * (1 + 1e-12):
            return np.nan
        above, edges = self.above_cc, self.edges_gy
        at = int(np.searchsorted(-above, -min(cc, self.dosed_cc), "right")) - 1  # the last that holds so much
        if at >= len(above) - 1:
            return float(edges[-1])
        part = (above[at] - cc) / (above[at] - above[at + 1])
        return float(edges[at] + max(part, 0.0) * (edges[at + 1] - edges[at]))

    def dose_to_percent(self, percent: float) -> float:
        """Gy that the best irradiated ``percent`` of the volume receive at least: D95 for 95."""
        return self.dose_to_cc(percent / 100 * self.dosed_cc) if 0 <= percent <= 100 else np.nan

    def cc_above(self, gy: float) -> float:
        """cc that receive at least ``gy``."""
        return float(self._above(np.array([gy]), "left")[0]) if len(self.edges_gy) else np.nan

    def percent_above(self, gy: float) -> float:
        """% of the volume that receives at least ``gy``: V20 for 20."""
        return 100 * (self.cc_above(gy) / self.dosed_cc) if self.dosed_cc else np.nan

    def figure(self, name: str | Figure, prescription_gy: float | None = None) -> float:
        """The figure that ``name`` spells (``dose.metric_names``).

        Raises ConfigError for a name that spells none, and where it is told in percent of a prescription that is not given.
        """
        one = parse(name) if isinstance(name, str) else name
        if one.needs_prescription and not prescription_gy:
            raise ConfigError(
                f"{one} is told in percent of the prescription, which is not known", hint="say which with --prescription of oncontour dvh"
            )
        whole = float(prescription_gy or np.nan)
        if one.kind in ("V", "CV"):
            cc = self.cc_above(one.at / 100 * whole if one.at_unit == "%" else one.at)
            cc = self.dosed_cc - cc if one.kind == "CV" else cc
            return cc if one.unit == "cc" else 100 * (cc / self.dosed_cc) if self.dosed_cc else np.nan
        gy = self._dose(one)
        return gy if one.unit == "Gy" else 100 * gy / whole

    def _dose(self, one: Figure) -> float:
        if not one.at_unit:
            return float({"mean": self.mean_gy, "min": self.min_gy, "max": self.max_gy}[one.kind])
        cc = one.at / 100 * self.dosed_cc if one.at_unit == "%" else one.at
        return self.dose_to_cc(self.dosed_cc - cc if one.kind == "DC" else cc)

    def __getitem__(self, name: str) -> float:
        return self.figure(name)

    def __getattr__(self, name: str) -> float:
        """``D95``, ``D2cc``, ``V20Gy`` as attributes."""
        if name.startswith("_") or name[:1] not in "DVC":
            raise AttributeError(name)
        try:
            return self.figure(name)
        except ConfigError as error:
            raise AttributeError(str(error)) from None

    def _above(self, gy: Floats, side: Literal["left", "right"] = "left") -> Floats:
        """cc that receive at least ``gy`` ("left") or more than it ("right"): the two differ where the curve steps down."""
        edges, above = self.edges_gy, self.above_cc
        at = np.clip(np.searchsorted(edges, gy, side), 1, max(len(edges) - 1, 1))
        low, high = edges[at - 1], edges[np.minimum(at, len(edges) - 1)]
        part = np.where(high > low, (gy - low) / np.where(high > low, high - low, 1), 0)
        out = above[at - 1] + part * (above[np.minimum(at, len(edges) - 1)] - above[at - 1])
        below, beyond = (gy <= edges[0], gy > edges[-1]) if side == "left" else (gy < edges[0], gy >= edges[-1])
        return np.asarray(np.where(below, self.dosed_cc, np.where(beyond, 0.0, out)))

    # ---- curves

    def cumulative(self, width_gy: float = 0.1) -> tuple[Floats, Floats]:
        """(doses from 0 in steps of ``width_gy`` to beyond the largest, cc that receive at least each)."""
        edges = _grid(self.max_gy, width_gy)
        return edges, self._above(edges) if len(self.edges_gy) else np.zeros(len(edges))

    def differential(self, width_gy: float = 0.1) -> tuple[Floats, Floats]:
        """(edges from 0 in steps of ``width_gy``, cc that receive a dose between each two; the last edge belongs to the last bin)."""
        edges, above = self.cumulative(width_gy)
        return edges, -np.diff(above)

    # ---- dose and effect

    @cached_property
    def bins(self) -> tuple[Floats, Floats]:
        """(middle Gy, cc) of each step of the curve, and of what receives the largest dose throughout."""
        if not len(self.edges_gy):
            return np.empty(0), np.empty(0)
        middle = np.append((self.edges_gy[1:] + self.edges_gy[:-1]) / 2, self.edges_gy[-1])
        return middle, np.append(-np.diff(self.above_cc), self.above_cc[-1])

    def geud_gy(self, a: float) -> float:
        """Generalised equivalent uniform dose (sum v D^a)^(1/a) (Niemierko, Med Phys 1999;26:1100): 1 the mean, large the maximum.

        Negative ``a`` is for targets; it gives 0 where a part has no dose. ``a`` = 0 is the limit, the geometric mean.
        """
        middle, cc = self.bins
        kept = cc > 0
        if not kept.any() or np.isnan(a):
            return np.nan
        gy, share = middle[kept], cc[kept] / cc[kept].sum()
        top = float(gy.max())
        if top == 0 or (a <= 0 and gy.min() <= 0):
            return 0.0
        if np.isinf(a):
            return top if a > 0 else float(gy.min())
        if a == 0:
            return float(np.exp(share @ np.log(gy)))
        base = top if a > 0 else float(gy.min())  # powers of ratios: no overflow at a = 100
        return float(base * (share @ (gy / base) ** a) ** (1 / a))

    def eqd2(self, alpha_beta_gy: float, fractions: float) -> DVH:
        """The same volumes at the dose in 2 Gy fractions that has the same effect (linear-quadratic model; Withers 1983).

        Every voxel's dose D was given in ``fractions`` equal parts: D (D / n + alpha/beta) / (2 + alpha/beta). Raises ConfigError where
        either is not positive.
        """
        return self._in_effect(alpha_beta_gy, fractions, 2 + alpha_beta_gy, eqd2_basis(alpha_beta_gy))

    def bed(self, alpha_beta_gy: float, fractions: float) -> DVH:
        """The same volumes at the biologically effective dose D (1 + D / n / (alpha/beta)) (Fowler, Br J Radiol 1989;62:679)."""
        return self._in_effect(alpha_beta_gy, fractions, alpha_beta_gy, f"BED, alpha/beta {alpha_beta_gy:g} Gy")

    def _in_effect(self, alpha_beta_gy: float, fractions: float, divisor: float, basis: str) -> DVH:
        if not (0 < alpha_beta_gy < np.inf and 0 < fractions < np.inf):
            raise ConfigError(f"alpha/beta and the number of fractions are positive, not {alpha_beta_gy} Gy and {fractions}")
        if self.basis != "physical":
            raise ConfigError(f"the dose is {self.basis} already", where=self.name, hint="start from the physical dose")
        edges = self.edges_gy * (self.edges_gy / fractions + alpha_beta_gy) / divisor
        new = replace(self, edges_gy=edges, basis=basis)
        middle, cc = new.bins
        return replace(new, mean_gy=float(middle @ cc / cc.sum()) if cc.sum() else np.nan)


def eqd2_gy(total_gy: float, fractions: float, alpha_beta_gy: float) -> float:
    """EQD2 of ``total_gy`` given in ``fractions`` equal parts: 60 Gy in 20 at alpha/beta 3 are 72 Gy."""
    return total_gy * (total_gy / fractions + alpha_beta_gy) / (2 + alpha_beta_gy)


def eqd2_of_groups(groups: Sequence[tuple[Volume, float]], alpha_beta_gy: float) -> Volume:
    """EQD2 of every voxel of doses on one grid, each (Gy, its number of equal fractions), added up: 25 x 2 Gy and 5 x 3 Gy at alpha/beta 3
    are 50 + 18 = 68 Gy. Raises ConfigError for none, and where alpha/beta or a number of fractions is not positive."""
    if not groups or not all(0 < value < np.inf for value in (alpha_beta_gy, *(count for _, count in groups))):
        raise ConfigError(f"alpha/beta and numbers of fractions are positive, not {alpha_beta_gy} Gy and {[count for _, count in groups]}")
    first = groups[0][0]
    total = np.zeros(first.array.shape, np.float64)
    for dose, count in groups:
        gy = dose.array.astype(np.float64)
        total += gy * (gy / count + alpha_beta_gy) / (2 + alpha_beta_gy)
    return Volume(total.astype(np.float32), first.geometry)


def eqd2_basis(alpha_beta_gy: float) -> str:
    return f"EQD2, alpha/beta {alpha_beta_gy:g} Gy"


# ---- making one


def dvh(
    dose: Volume,
    structure: Contours | Volume,
    *,
    name: str = "",
    slices: Slices | None = None,
    slab_mm: float | None = None,
    cells_wanted: int = 2**17,
    curved: bool = True,
) -> DVH:
    """The DVH of ``structure`` (contours in LPS mm, or a mask: bool, or coverage in [0, 1]) in ``dose`` (Gy); each on its own grid.

    Contours fill slabs half-way to their neighbours as everywhere (``raster``); ``slices`` and ``slab_mm`` as there; one plane alone whose
    slices are not known is as thick as the dose grid's step. ``curved=False`` takes the dose as trilinear between its points, as planning
    systems do, instead of following its curvature (``dose.field``).

    Raises DoseError for a dose that is NaN, infinite or negative where the structure lies, StructureError for contours or a mask that
    cannot be filled.
    """
    where = f"structure {name}" if name else ""
    found = cells(dose, structure, slices=slices, slab_mm=slab_mm, count=cells_wanted, curved=curved, where=where)
    if not len(found.gy):
        return DVH(name, np.empty(0), np.empty(0), np.nan, found.missing_cc)
    from oncontour.dose import field

    low, high = found.least_gy, found.largest_gy
    counted = field.histogram(found.gy, found.width_gy, found.cc, low, high, BINS)
    above = np.cumsum(counted[::-1])[::-1]
    total = float(found.cc.sum())
    mean = float(found.gy @ found.cc) / total
    above = above * (total / above[0])
    if high - low <= 1e-9 * max(high, 1e-9):
        return DVH(name, np.array([high]), np.array([total]), high, found.missing_cc)
    return DVH(name, np.linspace(low, high, BINS + 1), above, float(min(max(mean, low), high)), found.missing_cc)


def together(parts: Iterable[DVH], name: str = "") -> DVH:
    """One DVH of several that do not overlap: both lungs, both parotids. Raises ConfigError for none, or for doses of different basis."""
    listed = list(parts)
    if len({one.basis for one in listed}) != 1:
        raise ConfigError(f"DVHs of one kind of dose can be put together, not of {sorted({one.basis for one in listed})}", where=name)
    full = [one for one in listed if len(one.edges_gy)]
    missing = sum(one.missing_cc for one in listed)
    if not full:
        return DVH(name, np.empty(0), np.empty(0), np.nan, missing, listed[0].basis)
    edges = np.unique(np.concatenate([one.edges_gy for one in full]))
    at_least, more = (np.sum([one._above(edges, side) for one in full], axis=0) for side in ("left", "right"))
    steps = np.stack([np.ones(len(edges), bool), (at_least - more > 1e-12 * at_least[0]) & (edges < edges[-1])], axis=1).ravel()
    above = np.minimum.accumulate(np.stack([at_least, more], axis=1).ravel()[steps])
    mean = sum(one.mean_gy * one.dosed_cc for one in full) / sum(one.dosed_cc for one in full)
    return DVH(name, np.repeat(edges, 2)[steps], above, mean, missing, listed[0].basis)


def _grid(highest: float, width_gy: float) -> Floats:
    if not 0 < width_gy < np.inf:
        raise ConfigError(f"bins have a positive width in Gy, not {width_gy}")
    steps = 0 if np.isnan(highest) else int(np.floor(highest / width_gy + 1e-9)) + 1
    return np.asarray(np.arange(steps + 1, dtype=np.float64) * width_gy)
