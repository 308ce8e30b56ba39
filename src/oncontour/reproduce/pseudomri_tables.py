"""The tables of the pseudo-MRI slides: theirs, our images beside the real MR, our contours; tests with the patient as the unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from oncontour.core.volume import Volume
from oncontour.evaluate.visit_claims import Difference, corrected, difference
from oncontour.metrics.stats import bootstrap_mean, p_text, smallest_p
from oncontour.reproduce.pseudomri_contour import ELLIPSOID, METRICS, Drawn
from oncontour.reproduce.pseudomri_rows import FAIR, GANS, IMPROVED, ORIGINAL, PAIRED, SMOOTHED, TEXTBOOK, Pair
from oncontour.synthesize.fidelity import agreement, fidelity

ABDOMEN = (
    ("bladder", 0.939, 0.944, "0.388"),
    ("rectum", 0.740, 0.779, "0.003"),
    ("left femoral head", 0.863, 0.834, "5e-6"),
    ("right femoral head", 0.866, 0.845, "6e-7"),
)
"""Their DSC on CT and on sMRI, and p."""
HEAD = (
    ("left lens", 0.652, 0.665, 0.752, "0.823", "0.010"),
    ("right lens", 0.637, 0.622, 0.671, "0.331", "0.331"),
    ("chiasm", 0.532, 0.546, 0.516, "0.575", "0.433"),
    ("left optic nerve", 0.664, 0.681, 0.710, "0.433", "0.037"),
    ("right optic nerve", 0.679, 0.634, 0.691, "0.003", "0.232"),
)
"""Their DSC on CT, sMRI and both, p of sMRI and p of both against CT."""
_COMPARED = ("mae", "ssim", "correlation", "gradient_correlation")
_SHOWN = {
    "mae": "MAE",
    "ssim": "SSIM",
    "psnr_db": "PSNR (dB)",
    "correlation": "r",
    "gradient_correlation": "gradient r",
    "sharpness": "sharpness",
    "body_dice": "outline, MR",
    "ct_body_dice": "outline, CT",
    "checkerboard": "checkerboard",
    "fat_over_muscle": "fat / muscle",
}


@dataclass(frozen=True)
class Judged:
    """A row's image of a patient: ``fidelity.Agreement`` with the real MR, and figures of ``fidelity.Fidelity`` that need none; of the real
    MR itself ``mr_checkerboard``."""

    method: str
    patient: str
    mae: float
    ssim: float
    psnr_db: float
    correlation: float
    gradient_correlation: float
    sharpness: float
    body_dice: float
    ct_body_dice: float
    checkerboard: float
    flicker: float
    fat_over_muscle: float
    mr_checkerboard: float

    @classmethod
    def read(cls, line: Mapping[str, str]) -> Judged:
        """Of a line of the table that was written."""
        return cls(line["method"], line["patient"], *(float(line[f.name]) for f in fields(cls)[2:]))


@dataclass(frozen=True)
class Told:
    """What stands above the tables: patients to learn from, kept apart, in all; CPU minutes of a row; updates of each; updates of an arm;
    whose images the arms saw; the structure."""

    train: int
    test: int
    patients: int
    minutes: float
    updates: Mapping[str, int]
    contour_updates: int
    images_of: str
    structure: str


def judged_pair(row: str, pair: Pair, made: Volume) -> Judged:
    """A row's figures of one patient."""
    found, alone = agreement(made, pair.real, pair.body), fidelity(pair.hu, made)
    return Judged(
        row,
        pair.case.id,
        **asdict(found),
        ct_body_dice=alone.body_dice,
        checkerboard=alone.checkerboard,
        flicker=alone.flicker,
        fat_over_muscle=alone.fat_over_muscle,
        mr_checkerboard=fidelity(pair.hu, pair.real).checkerboard,
    )


def tables(judged: Sequence[Judged], drawn: Sequence[Drawn], told: Told) -> str:
    """Everything as Markdown."""
    lines = [*_theirs(), *_images(judged, told), *_images_compared(judged)]
    if drawn:
        lines += [*_contours(drawn, told), *_contours_compared(drawn)]
    return "\n".join(lines)


def _theirs() -> list[str]:
    lines = [
        "## Theirs: DSC, and p of their test against CT",
        "",
        "| organ | CT | sMRI | CT + sMRI | p, sMRI | p, CT + sMRI |",
        "|---" * 6 + "|",
    ]
    lines += [f"| *published* {organ} (n = 14) | {ct:.3f} | {smri:.3f} | | {p} | |" for organ, ct, smri, p in ABDOMEN]
    lines += [f"| *published* {organ} (n = 10) | {a:.3f} | {b:.3f} | {c:.3f} | {p} | {q} |" for organ, a, b, c, p, q in HEAD]
    return [
        *lines,
        "",
        f"An exact two-sided signed-rank test of 14 patients cannot give less than {smallest_p(14):.1e}, of 10 not less than "
        f"{smallest_p(10):.1e}: their p of 5e-6 and 6e-7 are of slices, or of another test. With Holm's correction over the ten of the "
        "head one difference is left, and it is a loss: the right optic nerve on sMRI (0.03).",
        "",
    ]


# ---- images


def _images(judged: Sequence[Judged], told: Told) -> list[str]:
    lines = [
        f"## Ours: made images beside the real MR, {told.train} patients to learn from, {told.test} to judge on",
        "",
        f"Mean over patients, inside both outlines. Each net trained here took {told.minutes:g} minutes of one CPU core.",
        "",
        f"| | {' | '.join(_SHOWN.values())} | updates |",
        "|---" * (len(_SHOWN) + 2) + "|",
    ]
    for row in dict.fromkeys(one.method for one in judged):
        means = {name: np.mean(list(_values(judged, row, name).values())) for name in _SHOWN}
        cells = [f"{value:.{4 if name == 'checkerboard' else 3}f}" for name, value in means.items()]
        lines.append(f"| {row} | {' | '.join(cells)} | {told.updates.get(row, '')} |")
    of_mr = np.mean([one.mr_checkerboard for one in judged]) if judged else float("nan")
    return [
        *lines,
        "",
        "MAE of signal in parts of the real image's 95th percentile. A sharpness of 1 is as sharp as the real MR. Checkerboard of the "
        f"real MR: {of_mr:.4f}. Fat over muscle below 1: the contrast is inverted. {PAIRED} alone learned from pairs: the ceiling.",
        "",
    ]


def _asked(judged: Sequence[Judged]) -> list[tuple[str, str]]:
    """(row, the row that it is compared with), of those that there are."""
    there = dict.fromkeys(one.method for one in judged)
    known = {*GANS, PAIRED, TEXTBOOK, SMOOTHED}
    asked = [(IMPROVED, ORIGINAL), *((row, ORIGINAL) for row in GANS if row.startswith("original +"))]
    finished = [row for row in there if row not in known and "curve" not in row and "histogram" not in row and "smoothed" not in row]
    asked += [(row, TEXTBOOK) for row in (IMPROVED, SMOOTHED, FAIR, *finished, PAIRED)] + [(row, SMOOTHED) for row in (FAIR, *finished)]
    return [pair for pair in asked if set(pair) <= set(there)]


def _images_compared(judged: Sequence[Judged]) -> list[str]:
    asked = [(*pair, name) for pair in _asked(judged) for name in _COMPARED]
    found = [difference(_values(judged, a, name), _values(judged, b, name)) for a, b, name in asked]
    return _differences("made images", [(a, b, _SHOWN[name]) for a, b, name in asked], found)


def _values(judged: Sequence[Judged], row: str, name: str) -> dict[str, float]:
    return {one.patient: float(getattr(one, name)) for one in judged if one.method == row}


def _differences(what: str, asked: Sequence[tuple[str, str, str]], found: Sequence[Difference | None]) -> list[str]:
    lines = [f"## Ours: {what} compared, paired by patient", ""]
    lines += ["| row | against | figure | mean difference [95 %] | p, exact Wilcoxon | after Holm | patients |", "|---" * 7 + "|"]
    count = 0
    for (row, against, name), one in zip(asked, corrected(found), strict=True):
        if one is not None:
            count += 1
            n = one.test.n
            cells = (
                f"{one.mean:+.3f} [{one.low:+.3f} to {one.high:+.3f}] | {p_text(one.test.p, n)} | {p_text(one.holm, n)} | {one.patients}"
            )
            lines.append(f"| {row} | {against} | {name} | {cells} |")
    return [*lines, "", f"Holm over all {count} comparisons; intervals resample patients.", ""]


# ---- contours


def _contours(drawn: Sequence[Drawn], told: Told) -> list[str]:
    patients = len({one.patient for one in drawn})
    lines = [
        f"## Ours: {told.structure} contoured, {patients} patients in four folds, {told.contour_updates} updates an arm and fold",
        "",
        f"The made images are those of: {told.images_of}. Mean over patients [95 %]; a patient in whom nothing was drawn has DSC 0 and no "
        "distance.",
        "",
        "| | DSC | HD95 (mm) | MSD (mm) | nothing drawn |",
        "|---" * 5 + "|",
    ]
    for method in _methods(drawn):
        cells = []
        for name in METRICS:
            its = {p: v for p, v in _drawn(drawn, method, name).items() if np.isfinite(v)}
            mean = bootstrap_mean(list(its.values()), list(its))
            digits = 3 if name == "dsc" else 1
            cells.append(f"{mean.mean:.{digits}f} [{mean.low:.{digits}f} to {mean.high:.{digits}f}]")
        nothing = sum(np.isinf(v) for v in _drawn(drawn, method, "hd95_mm").values())
        lines.append(f"| {method} | {' | '.join(cells)} | {nothing} |")
    return [*lines, ""]


def _contours_compared(drawn: Sequence[Drawn]) -> list[str]:
    there = _methods(drawn)
    pairs = [("sMRI", "CT"), ("CT + sMRI", "CT"), ("CT + sMRI", "CT twice"), ("CT twice", "CT")]
    pairs += [(method, ELLIPSOID) for method in there if method != ELLIPSOID]
    asked = [(a, b, "DSC") for a, b in pairs if {a, b} <= set(there)]
    found = [difference(_drawn(drawn, a, "dsc"), _drawn(drawn, b, "dsc")) for a, b, _ in asked]
    return _differences("contours", asked, found)


def _methods(drawn: Sequence[Drawn]) -> list[str]:
    return list(dict.fromkeys(one.method for one in drawn))


def _drawn(drawn: Sequence[Drawn], method: str, name: str) -> dict[str, float]:
    return {one.patient: float(getattr(one, name)) for one in drawn if one.method == method}
