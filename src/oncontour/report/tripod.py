"""What a reader must know of a prediction model, after TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), from the model's own card.

``tripod(card, patients)`` is Markdown: every item that the card and the cohort can answer is answered, the others say that they are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from oncontour.learn.card import Card

Told = Mapping[str, Any]
"""Settings or figures of a card, by name."""
TITLE = "Simulated outcomes"
_NOT = "Not answered by the model itself."


class Patientlike(Protocol):
    """What is counted of a patient."""

    @property
    def original(self) -> str: ...

    @property
    def outcomes(self) -> Mapping[str, bool]: ...

    @property
    def features(self) -> Mapping[str, float]: ...


def tripod(card: Card, patients: Sequence[Patientlike], performance: str = "") -> str:
    """The report as Markdown; its title says where outcomes were simulated. ``performance``: a table, where the model was judged."""
    s, made = card.settings, card.made
    simulated = bool(made.get("simulated_outcomes") or s.get("simulated"))
    head = f"# {TITLE}: risk model {card.name}" if simulated else f"# Risk model {card.name}"
    told = made.get("risk", {}).get("toxicities", {})
    training = made.get("training", {})
    rows = [
        ("1 Title", f"A prediction model for {', '.join(s['toxicities'])} from dose, structures and facts of the patient."),
        ("2 Abstract", _NOT),
        ("3 Background", "The outcomes were made up: nothing here is about patients." if simulated else _NOT),
        ("4 Objectives", _NOT),
        ("5 Data", card.data or _NOT),
        ("6 Participants", _participants(patients)),
        ("7 Data preparation", _preparation(s)),
        ("8 Outcome", _outcomes(s, patients, simulated)),
        ("9 Predictors", _predictors(s)),
        ("10 Sample size", f"{made.get('patients', '?')} original patients; no calculation was made beforehand."),
        (
            "11 Missing data",
            "Unknown outcomes and organs take part in nothing; unknown features count as the training median, facts as the mean.",
        ),
        ("12 Analytical methods", _model(s, training)),
        ("13 Class imbalance", _imbalance(s)),
        ("14 Fairness", _NOT),
        ("15 Model output", "; ".join(_output(name, one) for name, one in told.items()) or _NOT),
        ("16 Training versus evaluation", _held_back(made, told)),
        ("17 Ethical approval", "Not needed for outcomes that were made up." if simulated else _NOT),
        (
            "18 Open science",
            f"Weights SHA-256 {card.sha256[:16] or '?'}; licence {card.licence or 'not told'}; seed {training.get('seed', '?')}.",
        ),
        ("19 Patient and public involvement", _NOT),
        ("20 Participants (results)", _NOT),
        ("21 Model development", f"{len(made.get('trained_on', []))} original patients were learned from."),
        ("22 Model specification", "All weights and settings are in the model file; its card is printed by 'oncontour info'."),
        ("23 Model performance", performance or _NOT),
        ("24 Model updating", "; ".join(_updating(name, one) for name, one in told.items()) or _NOT),
        ("25 Interpretation", _NOT),
        ("26 Limitations", card.limits or _NOT),
        ("27 Usability", "For research. Not a medical device."),
    ]
    lines = [head, "", "Items of TRIPOD+AI, answered as far as a model and its card can.", "", "| item | answer |", "|---|---|"]
    return "\n".join([*lines, *(f"| {item} | {_cell(answer)} |" for item, answer in rows)]) + "\n"


def _participants(patients: Sequence[Patientlike]) -> str:
    originals = len({p.original for p in patients})
    return f"{len(patients)} patients of {originals} originals." if originals < len(patients) else f"{len(patients)} patients."


def _preparation(s: Told) -> str:
    k, j, i = s["spacing_mm"]
    return f"Windows of {'x'.join(str(n) for n in s['window'])} voxels (k, j, i) of {k:g} x {j:g} x {i:g} mm round {s['structure']}."


def _outcomes(s: Told, patients: Sequence[Patientlike], simulated: bool) -> str:
    parts = []
    for name in s["toxicities"]:
        known = [p.outcomes[name] for p in patients if name in p.outcomes]
        parts.append(f"{name}: {sum(known)} events among {len(known)} of whom it is known")
    return ("SIMULATED. " if simulated else "") + "; ".join(parts) + "."


def _predictors(s: Told) -> str:
    images = "dose, mask of the organ" + (", CT" if s["ct"] else "")
    features = f"; {len(s['features'])} features chosen in the training fold: {', '.join(s['features'])}" if s["features"] else ""
    facts = f"; facts: {', '.join(s['facts'])}" if s["facts"] else ""
    return images + features + facts + "."


def _model(s: Told, training: Told) -> str:
    options = f" with {s['net_options']}" if s["net_options"] else ""
    net = f"{_count(s['members'], 'net')} {s['net']}{options}; region {s['region']}, gate {s['gate']}, contrast {s['contrast']}"
    optimiser = "Adam" if training.get("schedule") == "plateau" else "AdamW"
    return f"{net}; {training.get('epochs', '?')} epochs of {optimiser}, rate {training.get('learning_rate', '?')}."


def _imbalance(s: Told) -> str:
    if s.get("focal"):
        return f"Focal loss, exponent {s['focal']:g}: probabilities are to be recalibrated before they are believed."
    return "None corrected for: probabilities are meant to be believed."


def _held_back(made: Told, told: Told) -> str:
    count = len(made.get("held_back_patients", []))
    if not count:
        return "Nobody was held back."
    used = any(one.get("recalibration", {}).get("patients") for one in told.values())
    what = " and recalibrate" if used else ""
    return f"{_count(count, 'original')} held back to watch the loss{what}: neither weights nor features come from there."


def _output(name: str, one: Told) -> str:
    at = "none" if one.get("threshold") is None else f"{one['threshold']:.3f}"
    return f"{name}: probability, threshold {at} (Youden, training patients)"


def _updating(name: str, one: Told) -> str:
    again = one.get("recalibration", {})
    if not again.get("patients"):
        return f"{name}: not recalibrated"
    return f"{name}: log odds x {again['slope']:.3f} {again['intercept']:+.3f}, by {again['patients']} patients held back"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "/").split())
