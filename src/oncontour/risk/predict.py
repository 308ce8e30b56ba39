"""From a trained risk task and a case to probabilities, the published models beside them, and the map of where the risk comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from oncontour.core.case import Case
from oncontour.core.prediction import PublishedRisk, RiskPrediction, Toxicity
from oncontour.core.volume import Volume
from oncontour.dose.dvh import DVH, dvh
from oncontour.dose.ntcp import MODELS, applicable, dosed, organs
from oncontour.errors import LimitError, StructureError
from oncontour.learn.card import Card
from oncontour.learn.card import notes as notes_of
from oncontour.learn.task import Draw
from oncontour.metrics.probability import Recalibration, logit, sigmoid
from oncontour.progress import Progress
from oncontour.risk.inputs import FULL_GY, Patient, patient_of, usable_dose
from oncontour.risk.task import Finding, RiskSettings, RiskTask
from oncontour.risk.virtual_patients import DVH_FIGURES

Floats = NDArray[np.float64]
LEVEL = 0.9
"""Of the interval from the members' spread."""
FAR = 4.0
"""Standard deviations of the training patients beyond which a feature or a fact is doubted aloud."""


@dataclass(frozen=True)
class RiskPredictor:
    """A trained risk ``task`` made ready to tell the risk of a case."""

    task: RiskTask

    @property
    def card(self) -> Card:
        """What is known of the model."""
        return self.task.card()

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        """``case`` with ``risk``: probabilities with the spread of the members, published models, and where the risk comes from.

        Raises what ``patient_of`` raises, strictly.
        """
        task, s, card = self.task, self.task.settings, self.card
        patient = patient_of(case, s.view, features=True, strict=True)
        members = task.by_member([task.sample(patient)])[:, 0, :]
        if progress is not None:
            progress(0.5)
        sensitivity, region = maps(task, patient)
        published, doubts = reference(case)
        if progress is not None:
            progress(1.0)
        found = RiskPrediction(
            model=card.name,
            sha256=card.sha256,
            simulated=bool(s.simulated or card.made.get("simulated_outcomes", False)),
            structure=s.structure,
            toxicities={name: _toxicity(task.found.get(name, Finding()), members[:, t]) for t, name in enumerate(s.toxicities)},
            reference=published,
            figures={name: patient.features[name] for name in DVH_FIGURES if name in patient.features},
            features={name: _known(patient.features.get(name)) for name in s.features},
            notes=(*notes_of(card), *patient.notes, *_unknown(s, patient), *doubts, interval_told(s.members)),
            sensitivity=sensitivity,
            region=region,
        )
        return replace(case, risk=found)


def maps(task: RiskTask, patient: Patient) -> tuple[Volume, Volume | None]:
    """(d log odds / d Gy of the first toxicity in every voxel, mean over members; the region's map or None), on the window's grid.

    Features and facts stay as they are: it is what the image says.
    """
    s = task.settings
    task.eval()
    sample = task.sample(patient)
    item = {key: value[None] for key, value in task.item([sample], Draw(0, (0.0, 0.0, 0.0), None)).items()}
    slope, found = np.zeros(s.window), np.zeros(s.window)
    image = item["image"].requires_grad_(True)
    for member in task.net.children():
        answer = member.fuse(image, item["features"], item["facts"])  # type: ignore[operator]
        (grad,) = torch.autograd.grad(answer.risk[0, 0], image)
        slope += grad[0, 0].double().numpy() / FULL_GY / s.members
        if answer.region is not None:
            found += torch.sigmoid(answer.region)[0, 0].detach().double().numpy() / s.members
    first, last = [s.shift] * 3, [s.shift + n for n in s.window]
    grid = patient.grid.crop(first, last)
    return Volume(slope.astype(np.float32), grid), Volume(found.astype(np.float32), grid) if s.region != "none" else None


def reference(case: Case) -> tuple[dict[str, PublishedRisk], list[str]]:
    """(every published model that has all it needs: what a model is to be read beside; sentences on structures it goes without).

    A structure of which more than ``ntcp.MISSING`` has no dose, or that cannot be filled, is not used: its mean would be that of a part.
    """
    dose = usable_dose(case)
    found: dict[str, DVH] = {}
    notes = []
    for name in organs():
        if name not in case.structures:
            continue
        try:
            one = dvh(dose, case.masks[name] if name in case.masks else case.contours[name], name=name, cells_wanted=2**14)
        except (StructureError, LimitError) as error:
            notes.append(f"No published model of {name}: {error.what}.")
            continue
        if dosed({name: one}):
            found[name] = one
        else:
            notes.append(f"No published model of {name}: {one.note}.")
    risks = applicable(found, case.facts)
    told = {name: PublishedRisk(p, MODELS[name].endpoint, MODELS[name].source) for name, p in risks.items()}
    return told, notes


def interval_told(members: int) -> str:
    """What the interval beside a probability is, and what it is not."""
    if members < 2:
        return "One net answers: there is no interval."
    return (
        f"The interval is where {members} nets of different beginnings agree ({100 * LEVEL:.0f} %, Student's t on log odds): chance in "
        "training, not how far this patient may differ from those it learned from."
    )


def interval(members: Floats, again: Recalibration) -> tuple[float | None, float | None]:
    """LEVEL of Student's t on the log odds of the members, recalibrated; None from fewer than two."""
    z = again.intercept + again.slope * logit(members)
    n = len(z)
    if n < 2:
        return None, None
    wide = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(z.std(ddof=1)) / np.sqrt(n)
    low, high = sigmoid([z.mean() - wide, z.mean() + wide])
    return float(low), float(high)


def _toxicity(found: Finding, members: Floats) -> Toxicity:
    again = found.recalibration
    probability = float(again(members.mean()))
    low, high = interval(members, again)
    return Toxicity(
        probability=probability,
        low=None if low is None else min(low, probability),
        high=None if high is None else max(high, probability),
        members=tuple(float(v) for v in again(members)),
        threshold=found.threshold,
        flagged=None if found.threshold is None else probability >= found.threshold,
        recalibrated=found.patients,
    )


def _unknown(s: RiskSettings, patient: Patient) -> list[str]:
    """A sentence on what is not known of the patient, and on what lies far from all that the model learned from."""
    out = []
    for name in s.features:
        value = patient.features.get(name, np.nan)
        if not np.isfinite(value):
            out.append(f"Feature {name} is not defined here (NaN): the training patients' median stands in for it.")
    absent = [name for name in s.facts if name not in patient.facts]
    if absent:
        out.append(f"Not known of the patient: {', '.join(absent)}. The training patients' mean stands in.")
    seen = (
        (patient.features, s.features, s.feature_centre, s.feature_scale, "median"),
        (patient.facts, s.facts, s.fact_centre, s.fact_scale, "mean"),
    )
    for values, names, centres, scales, what in seen:
        for name, centre, scale in zip(names, centres, scales, strict=False):
            value = values.get(name, np.nan)
            if abs(value - centre) > FAR * scale:
                away = abs(value - centre) / scale
                where = f"{away:.1f} SD from the training patients' {what} ({centre:.4g})"
                out.append(f"{name} is {value:.4g}, {where}: nothing like it was learned.")
    return out


def _known(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
