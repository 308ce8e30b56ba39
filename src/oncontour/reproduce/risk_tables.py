"""The tables of a comparison of risk models: AUC with intervals by original patient, pairs, calibration, decisions, a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from oncontour.files import csv_text
from oncontour.metrics.classify import auc, confusion, delong, paired_delong
from oncontour.metrics.probability import Recalibration, brier, calibration, decision_curve, ece
from oncontour.metrics.stats import Interval, bootstrap

Floats = NDArray[np.float64]
THRESHOLDS = (0.2, 0.3, 0.4)


@dataclass(frozen=True, eq=False)
class Column:
    """One hospital: who, what happened, the true risk (None: real outcomes), and each row's probabilities and training threshold."""

    hospital: str
    originals: tuple[str, ...]
    outcome: NDArray[np.bool_]
    risk: Floats | None
    rows: Mapping[str, Floats]
    thresholds: Mapping[str, float]

    @property
    def bayes(self) -> float:
        """AUC of the true risk on these very outcomes; NaN for real ones."""
        return float("nan") if self.risk is None else auc(self.risk, self.outcome)


def area(column: Column, row: str, draws: int) -> Interval:
    """AUC with the interval from resampling original patients."""
    p, y = column.rows[row], column.outcome
    found = widened(bootstrap(lambda n: auc(p[n], y[n]), column.originals, draws=draws))
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def difference(column: Column, row: str, against: str, draws: int, level: float = 0.95) -> Interval:
    """AUC of ``row`` less that of ``against``, both on the same resampled originals."""
    a, b, y = column.rows[row], column.rows[against], column.outcome
    return widened(bootstrap(lambda n: auc(a[n], y[n]) - auc(b[n], y[n]), column.originals, level=level, draws=draws))


def widened(one: Interval) -> Interval:
    """A percentile interval as wide as few clusters ask for: by sqrt(n / (n - 1)) and by Student's t with n - 1 degrees over the normal.

    After Hesterberg (Am Stat 2015;69:371, "expanded percentile"), whose new percentiles a thousand draws do not reach: the distances from
    the estimate are stretched instead. With 11 originals and nothing to find, 95 % intervals of a difference exclude 0 in 5 % of simulated
    cohorts instead of 9 %.
    """
    n = one.clusters
    if n < 2:
        return one
    tail = (1 + one.level) / 2
    by = float(np.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1) / stats.norm.ppf(tail))
    return replace(one, low=one.mean - by * (one.mean - one.low), high=one.mean + by * (one.high - one.mean))


def best_dvh(home: Column, dvh_rows: Sequence[str]) -> str:
    """The DVH model that is best at home: what the others are to beat."""
    return max((row for row in dvh_rows if row in home.rows), key=lambda row: auc(home.rows[row], home.outcome))


def auc_table(columns: Sequence[Column], draws: int) -> list[str]:
    """One line a row, one cell a hospital: AUC [bootstrap by original; DeLong], and the true risk's AUC beside it."""
    lines = [
        f"| model | {' | '.join(f'{c.hospital} ({len(c.outcome)}, {int(c.outcome.sum())} events)' for c in columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    for row in columns[0].rows:
        cells = []
        for c in columns:
            found, classic = area(c, row, draws), delong(c.rows[row], c.outcome)
            best = "" if c.risk is None else f"; Bayes {c.bayes:.3f}"
            cells.append(f"**{found.mean:.3f}** [{found.low:.3f}-{found.high:.3f}; DeLong {classic.low:.3f}-{classic.high:.3f}{best}]")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def pair_table(columns: Sequence[Column], against: str, draws: int) -> list[str]:
    """Every row less ``against``: difference with its paired bootstrap interval by original, and DeLong's p."""
    lines = [f"| less {against} | {' | '.join(c.hospital for c in columns)} |", "|---|" + "---|" * len(columns)]
    for row in columns[0].rows:
        if row == against:
            continue
        cells = []
        for c in columns:
            d, p = difference(c, row, against, draws), paired_delong(c.rows[row], c.rows[against], c.outcome).p
            cells.append(f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p {'< 0.001' if p < 0.001 else f'{p:.3f}'}")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def decision_table(columns: Sequence[Column]) -> list[str]:
    """Sensitivity and specificity at the training threshold, Brier, ECE, net benefit at THRESHOLDS."""
    benefit = ", ".join(f"{at:g}" for at in THRESHOLDS)
    lines = [
        f"| hospital | model | threshold | sensitivity | specificity | Brier | ECE | net benefit at {benefit} (treat all) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in columns:
        for row, p in c.rows.items():
            at = c.thresholds.get(row, np.nan)
            found = confusion(p >= at, c.outcome)
            curve = decision_curve(p, c.outcome, THRESHOLDS)
            worth = ", ".join(f"{one.model:.3f} ({one.all:.3f})" for one in curve)
            cells = f"{at:.2f} | {found.sensitivity:.2f} | {found.specificity:.2f} | {brier(p, c.outcome):.3f} | {ece(p, c.outcome):.3f}"
            lines.append(f"| {c.hospital} | {row} | {cells} | {worth} |")
    return lines


def calibration_table(columns: Sequence[Column], rows: Sequence[str], seed: int = 0) -> list[str]:
    """Slope and intercept of each row before and after recalibration at the hospital.

    It is learned on half of the originals and judged on the other, and the other way round.
    """
    lines = [
        "| hospital | model | slope | intercept | Brier | recalibrated: slope | intercept | Brier |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in columns:
        for row in rows:
            p = c.rows[row]
            again = recalibrated(p, c.outcome, c.originals, seed)
            cells = []
            for q in (p, again):
                found = calibration(q, c.outcome)
                cells.append(f"{found.slope:.2f} | {found.intercept:+.2f} | {brier(q, c.outcome):.3f}")
            lines.append(f"| {c.hospital} | {row} | {' | '.join(cells)} |")
    return lines


def recalibrated(p: Floats, y: NDArray[np.bool_], originals: Sequence[str], seed: int = 0) -> Floats:
    """Probabilities of each half of the originals, recalibrated by what happened to the other half."""
    from oncontour.risk.baselines import grouped_folds

    out = p.copy()
    for fit, judged in grouped_folds(originals, 2, seed):
        out[judged] = Recalibration.fit(p[fit], y[fit])(p[judged])
    return out


def verdict(columns: Sequence[Column], against: str, full: str, draws: int) -> list[str]:
    """What the table says, in sentences computed from it.

    ``full`` against the best DVH model is the one comparison planned beforehand: it is better where the paired 95 % interval lies above 0.
    Every other row is, where the interval corrected for as many rows (Bonferroni) does.
    """
    rows = [row for row in columns[0].rows if row not in (against, full)]
    each = partial(difference, against=against, draws=max(draws, 40 * len(rows)), level=1 - 0.05 / max(1, len(rows)))
    out = []
    for c in columns:
        said = []
        if full in c.rows and full != against:
            gain = difference(c, full, against, draws)
            word = "better than" if gain.low > 0 else "worse than" if gain.high < 0 else "no better than"
            said.append(f"the full network is {word} {against} ({gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], planned beforehand)")
            if c.risk is not None:
                said[-1] += f" and {c.bayes - auc(c.rows[full], c.outcome):.3f} below the Bayes AUC of {c.bayes:.3f}"
        if rows:
            better = [row for row in rows if each(c, row).low > 0]
            corrected = f"interval corrected for {len(rows)} rows"
            named = f"better than {against} are {', '.join(better)}" if better else f"none is better than {against}"
            said.append(f"of the others {named} ({corrected})")
        if said:
            out.append(f"- {c.hospital}: {'; '.join(said)}.")
    return out


def as_csv(found: Mapping[str, Sequence[Column]]) -> str:
    """One line a scene, hospital, row and original: how many, events, mean probability; names of originals are not told."""
    lines: list[list[object]] = [["scene", "hospital", "model", "original", "patients", "events", "mean_probability", "mean_true_risk"]]
    for scene, columns in found.items():
        for c in columns:
            order = {name: n for n, name in enumerate(dict.fromkeys(c.originals))}
            of = np.array([order[name] for name in c.originals])
            for row, p in c.rows.items():
                for n in order.values():
                    mine = of == n
                    risk = "" if c.risk is None else f"{c.risk[mine].mean():.4f}"
                    cells = [int(mine.sum()), int(c.outcome[mine].sum()), f"{p[mine].mean():.4f}", risk]
                    lines.append([scene, c.hospital, row, n, *cells])
    return csv_text(lines)
