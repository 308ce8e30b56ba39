"""An assessment as JSON: what ``report.json`` holds under ``assess``."""

from __future__ import annotations

import math
from collections.abc import Mapping

from oncontour.core.assessment import Finding, Reference, SliceScore
from oncontour.core.case import Case
from oncontour.quality.inputs import calibration_words
from oncontour.report.review import spots, strips


def assess_record(case: Case) -> dict[str, object]:
    """The case's assessment without its volumes, ready for JSON; empty where there is none. Each slice has its ``wrong_cm2`` as well, by
    which places are ordered; ``places``: the slices of each, the worst first, null for a structure as a whole. Numbers are rounded to four
    digits; those of the card's calibration too."""
    told = case.assessment
    if told is None:
        return {}
    table = strips(case)
    wrong = {strip.name: {cell.k: cell.wrong_cm2 for cell in strip.cells} for strip in table}
    structures = {
        name: {
            "scored": one.scored,
            "why": one.why,
            **({"inputs": one.inputs} if one.inputs else {}),
            "slices": [_slice(line, wrong[name][line.k]) for line in one.slices],
            "findings": [finding_words(finding) for finding in one.findings],
        }
        for name, one in told.structures.items()
    }
    return {
        "model": told.model,
        "sha256": told.sha256,
        **({} if told.model is None else {"opinion": reference_words(told.reference)}),
        "refused": told.refused,
        **({} if told.model is None else {"region": told.region}),
        "coverage": _short(told.coverage),
        "calibration": _rounded(calibration_words(told.calibration)),
        "structures": structures,
        "places": [{"structure": one.name, "first": one.first, "last": one.last, "worst": one.k} for one in spots(table)],
        "unchecked": list(told.unchecked),
    }


def finding_words(finding: Finding) -> dict[str, object]:
    """A finding as JSON: ``code``, ``text`` and ``slices``."""
    return {"code": finding.code, "text": finding.text, "slices": list(finding.slices)}


def reference_words(reference: Reference | None) -> dict[str, object] | None:
    """Whom the quality model asked, as JSON; None where it asked nobody."""
    if reference is None:
        return None
    used = {} if reference.calibrated_with is None else {"calibrated_with": reference.calibrated_with}
    return {"model": reference.model, "sha256": reference.sha256, "drew": reference.drew, **used}


def _slice(told: SliceScore, wrong_cm2: float | None) -> dict[str, object]:
    return {
        "k": told.k,
        "z_mm": _short(told.z_mm),
        "dsc": _short(told.dsc),
        "lower": _short(told.lower),
        "class": told.quality,
        "surface_mm": _short(told.surface_mm),
        **({} if told.surface_upper_mm is None else {"surface_upper_mm": _short(told.surface_upper_mm)}),
        **({} if told.present is None else {"present": _short(told.present)}),
        "findings": list(told.findings),
        "wrong_cm2": _short(wrong_cm2, 3),
        **({} if told.wrong_upper_cm2 is None else {"wrong_upper_cm2": _short(told.wrong_upper_cm2, 3)}),
    }


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return _short(value) if isinstance(value, float) else value


def _short(value: float | None, digits: int = 4) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)
