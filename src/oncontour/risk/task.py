"""Risk: dose, contours and facts of a case become the probability of a toxicity. After Yu et al., Radiother Oncol 2025;212:111121.

``loss`` = cross-entropy of the outcomes that are known + region_weight x (1 - soft DSC of the region's map) + contrast_weight x contrast.
What is not known (an outcome, an organ, a target) takes part in nothing. A model is several nets of different beginnings (``members``);
their mean is the answer and their spread its interval, which tells how much chance there was in training and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from oncontour.classes import named_by_user
from oncontour.core.case import Case
from oncontour.errors import ConfigError
from oncontour.learn.build import check_grid, settings_from
from oncontour.learn.card import Card
from oncontour.learn.task import Batch, Draw, Task, seeded
from oncontour.metrics.classify import youden
from oncontour.metrics.probability import Recalibration
from oncontour.nets import make_net
from oncontour.nets.dosefusion import Fused
from oncontour.risk.contrastive import by_outcome, by_patient
from oncontour.risk.feature_selection import Selection, select
from oncontour.risk.inputs import Patient, View, patient_of

SIMULATED = "SIMULATED OUTCOMES: this model learned from outcomes that were made up. It says nothing about any patient."
Known = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Probabilities and outcomes (0, 1) of the patients whose outcome is known."""
MIN_EVENTS = 8
"""Events, and patients without, that a recalibration on held-back patients needs."""


@dataclass(frozen=True)
class RiskSettings:
    """What makes a risk model; kept in its card, so that the file alone rebuilds it."""

    toxicities: tuple[str, ...] = ()
    """columns of the table of outcomes, one head each"""
    structure: str = "Esophagus"
    """the organ whose dose it is about (TG-263): middle of the window, mask among the inputs, dosiomics"""
    net: str = "dosefusion"
    """a row of NETS whose net fuses"""
    net_options: dict[str, Any] = field(default_factory=dict)
    """the net's own: kind, blocks, widths, embedding, dropout"""
    ct: bool = False
    """CT among the inputs"""
    spacing_mm: tuple[float, float, float] = (6.0, 4.0, 4.0)
    """(k, j, i) of the window"""
    window: tuple[int, int, int] = (20, 16, 16)
    """voxels (k, j, i) the net sees"""
    region: Literal["none", "structure", "isodose", "ring"] = "structure"
    """what the auxiliary decoder finds: the organ, what receives isodose_gy, or 10 mm round the targets; none: no decoder"""
    isodose_gy: float = 40.0
    """of region isodose"""
    gate: bool = True
    """pool features over the map that the decoder finds"""
    dosiomics: bool = True
    """the branch of chosen features"""
    contrast: Literal["none", "outcome", "modal", "both"] = "both"
    """supervised by outcome; between image and dosiomics"""
    region_weight: float = 0.5
    """of the map's loss"""
    contrast_weight: float = 0.1
    """of each contrast"""
    temperature: float = 0.2
    """of contrast"""
    focal: float = 0.0
    """exponent of the focal loss (Lin 2017); 0 is cross-entropy"""
    members: int = 2
    """nets of different beginnings in one model"""
    draws: int = 0
    """patients an epoch; 0: each once"""
    shift: int = 1
    """augmentation: windows move by so many voxels at most"""
    noise_gy: float = 0.5
    """augmentation: noise on the dose, at most"""
    mirror: bool = False
    """augmentation: mirror left to right. Off, as risk may well know left from right (the heart does)"""
    features: tuple[str, ...] = ()
    """chosen in the training fold (filled in)"""
    feature_centre: tuple[float, ...] = ()
    """of the training patients (filled in)"""
    feature_scale: tuple[float, ...] = ()
    """of the training patients (filled in)"""
    facts: tuple[str, ...] = ()
    """of the patient: columns of the table of outcomes"""
    fact_centre: tuple[float, ...] = ()
    """of the training patients (filled in)"""
    fact_scale: tuple[float, ...] = ()
    """of the training patients (filled in)"""
    simulated: bool = False
    """outcomes were made up (filled in)"""

    def __post_init__(self) -> None:
        names = ("toxicities", "spacing_mm", "window", "features", "feature_centre", "feature_scale", "facts", "fact_centre", "fact_scale")
        for name in names:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(set(self.toxicities)) != len(self.toxicities):
            raise ConfigError(f"toxicities differ from each other, unlike {list(self.toxicities)}")
        if self.members < 1 or self.shift < 0 or self.draws < 0 or not self.temperature > 0:
            raise ConfigError(f"settings out of range: members {self.members}, shift {self.shift}, draws {self.draws}")
        if len(self.window) != 3 or len(self.spacing_mm) != 3 or min(self.window) < 1 or not min(self.spacing_mm) > 0:
            raise ConfigError(f"a window is (k, j, i) voxels of (k, j, i) mm, not {list(self.window)} of {list(self.spacing_mm)}")
        check_grid(self.spacing_mm, tuple(n + 2 * self.shift for n in self.window))
        weights = (self.region_weight, self.contrast_weight, self.focal, self.noise_gy, self.isodose_gy)
        if not all(np.isfinite(weights)) or min(weights) < 0:
            raise ConfigError(f"weights, focal, noise_gy and isodose_gy are 0 or more, not {list(weights)}")
        if len(self.feature_centre) != len(self.features) or len(self.feature_scale) != len(self.features):
            raise ConfigError("features come with a centre and a scale each")

    @property
    def view(self) -> View:
        region = "structure" if self.region == "none" else self.region
        return View(self.structure, self.spacing_mm, self.window, self.shift, self.ct, region, self.isodose_gy)


@dataclass(frozen=True, eq=False)
class Sample:
    """A patient ready for the net: numbers standardised, unknown outcomes NaN."""

    case_id: str
    patient: Patient
    features: NDArray[np.float32]
    facts: NDArray[np.float32]
    outcomes: NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """What was measured of one toxicity after training: the ``threshold`` from which a patient is flagged (Youden on the training
    patients, None where there is none), the ``prevalence`` among them, and the ``recalibration`` by so many ``patients`` held back."""

    threshold: float | None = None
    prevalence: float | None = None
    recalibration: Recalibration = field(default_factory=Recalibration)
    patients: int = 0

    @classmethod
    def of(cls, learned: Known, held_back: Known) -> Finding:
        """From (probabilities, outcomes) of the training patients, and of the others, where enough of them had it and enough had not."""
        (p, y), (q, z) = learned, held_back
        enough = len(z) > 0 and min(z.sum(), (1 - z).sum()) >= MIN_EVENTS
        again = Recalibration.fit(q, z) if enough else Recalibration()
        at = youden(again(p), y)
        return cls(None if np.isnan(at) else at, float(y.mean()) if len(y) else None, again, len(z) if enough else 0)

    def as_json(self) -> dict[str, object]:
        """As it stands in the card."""
        again = {"intercept": self.recalibration.intercept, "slope": self.recalibration.slope, "patients": self.patients}
        return {"threshold": self.threshold, "prevalence": self.prevalence, "recalibration": again}


def _findings(made: Mapping[str, Any]) -> dict[str, Finding]:
    """Toxicity -> finding, of the ``risk`` in a card's ``made``."""
    out = {}
    for name, one in made.get("toxicities", {}).items():
        again = one.get("recalibration", {})
        line = Recalibration(float(again.get("intercept", 0.0)), float(again.get("slope", 1.0)))
        out[name] = Finding(one.get("threshold"), one.get("prevalence"), line, int(again.get("patients", 0)))
    return out


class RiskTask(Task[Sample]):
    """Risk of ``settings.toxicities``; see the module's words and ``learn/task.py`` for the contract."""

    name = "risk"

    def __init__(self, settings: RiskSettings, card: Card | None = None) -> None:
        super().__init__()
        if not settings.toxicities:
            raise ConfigError("a risk model needs a toxicity", hint="name a column of the table of outcomes")
        self.settings, self._card = settings, card
        if card is None:
            named_by_user(settings.net)
        with_region = settings.region != "none"
        told = {
            "features": len(settings.features),
            "facts": len(settings.facts),
            "region": with_region,
            "gate": settings.gate and with_region,
        }
        options = {**settings.net_options, **told}
        outputs = len(settings.toxicities) + int(with_region)
        members = [make_net(settings.net, 2 + int(settings.ct), outputs, **options) for _ in range(settings.members)]
        if not all(hasattr(member, "fuse") for member in members):
            raise ConfigError(f"net {settings.net!r} fuses nothing", hint="choose dosefusion")
        _check_window(settings.window, members[0])
        self.net = nn.ModuleList(members)
        self.found: dict[str, Finding] = _findings(card.made.get("risk", {})) if card else {}

    # ---- the contract

    @classmethod
    def from_card(cls, card: Card) -> RiskTask:
        """The task that a model's card describes, its nets still without weights. Raises ModelError where the card is wrong."""
        return cls(settings_from(card, RiskSettings), card)

    def card(self) -> Card:
        s = self.settings
        if self._card is not None:
            return self._card
        limits = SIMULATED if s.simulated else ""
        return Card(
            "risk", self.name, asdict(s), [s.structure], list(s.spacing_mm), limits=limits, made={"simulated_outcomes": s.simulated}
        )

    def samples(self, case: Case | Patient) -> list[Sample]:
        """Of a case, or of what ``patient_of`` made of one; none where no outcome is known."""
        patient = case if isinstance(case, Patient) else patient_of(case, self.settings.view, features=bool(self.settings.features))
        sample = self.sample(patient)
        return [sample] if np.isfinite(sample.outcomes).any() else []

    def sample(self, patient: Patient) -> Sample:
        """Standardised; what is not known of features and facts is average."""
        s = self.settings
        outcomes = [float(patient.outcomes[name]) if name in patient.outcomes else np.nan for name in s.toxicities]
        return Sample(
            patient.original,
            patient,
            _standard(patient.features, s.features, s.feature_centre, s.feature_scale),
            _standard(patient.facts, s.facts, s.fact_centre or (0.0,) * len(s.facts), s.fact_scale or (1.0,) * len(s.facts)),
            np.array(outcomes, np.float32),
        )

    def plan(self, samples: Sequence[Sample], rng: np.random.Generator, *, train: bool) -> list[Draw]:
        count = self.settings.draws or len(samples)
        if not train:
            return [Draw(n, (0.0, 0.0, 0.0), None) for n in range(len(samples))]
        order = np.concatenate([rng.permutation(len(samples)) for _ in range(-(-count // len(samples)))])[:count]
        return [Draw(int(n), (0.0, 0.0, 0.0), int(rng.integers(2**62))) for n in order]

    def item(self, samples: Sequence[Sample], draw: Draw) -> dict[str, Tensor]:
        sample, s = samples[draw.sample], self.settings
        patient, rng = sample.patient, None if draw.seed is None else seeded(draw.seed)
        off = np.full(3, s.shift) if rng is None else rng.integers(0, 2 * s.shift + 1, 3)
        cut = tuple(slice(int(o), int(o) + n) for o, n in zip(off, s.window, strict=True))
        image = patient.image[(slice(None), *cut)].astype(np.float32)
        region = np.zeros(s.window, np.float32) if patient.region is None else patient.region[cut].astype(np.float32)
        if rng is not None:
            if s.noise_gy:
                noise = rng.standard_normal(image.shape[1:], dtype=np.float32)
                image[0] += noise * np.float32(rng.random() * s.noise_gy / 80)
            if s.mirror and rng.random() < 0.5:
                image, region = image[..., ::-1].copy(), region[..., ::-1].copy()
        known = np.isfinite(sample.outcomes)
        return {
            "image": torch.from_numpy(image),
            "region": torch.from_numpy(region[None]),
            "region_known": torch.tensor([float(patient.region is not None)]),
            "features": torch.from_numpy(sample.features),
            "features_known": torch.tensor(float(bool(patient.features))),
            "facts": torch.from_numpy(sample.facts),
            "outcome": torch.from_numpy(np.where(known, sample.outcomes, 0).astype(np.float32)),
            "known": torch.from_numpy(known.astype(np.float32)),
        }

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        total, figures = torch.zeros((), device=batch["image"].device), dict[str, float]()
        for member in self.net.children():
            answer = member.fuse(batch["image"], batch["features"], batch["facts"])  # type: ignore[operator]
            with torch.autocast(total.device.type, enabled=False):
                parts = self._losses(answer._make(part if part is None else part.float() for part in answer), batch)
            total = total + sum(parts.values(), torch.zeros((), device=total.device))
            for name, value in parts.items():
                figures[name] = figures.get(name, 0.0) + float(value.detach()) / self.settings.members
        return total / self.settings.members, figures

    def _losses(self, answer: Fused, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        out = {"outcome": outcome_loss(answer.risk, batch["outcome"], batch["known"], s.focal)}
        if answer.region is not None:
            out["region"] = s.region_weight * region_loss(answer.region, batch["region"], batch["region_known"])
        if s.contrast in ("outcome", "both"):
            out["contrast"] = s.contrast_weight * by_outcome(answer.image, batch["outcome"], batch["known"], s.temperature)
        if s.contrast in ("modal", "both") and answer.features is not None:
            out["modal"] = s.contrast_weight * by_patient(answer.image, answer.features, s.temperature, batch["features_known"])
        return out

    def finish(self, train: Sequence[Sample], held_back: Sequence[Sample]) -> dict[str, object]:
        """The threshold (Youden) of the training patients; and, from enough patients held back, a recalibration."""
        self.eval()
        learned, kept = self.probabilities(train), self.probabilities(held_back)
        self.found = {
            name: Finding.of(_known(learned[:, t], train, t), _known(kept[:, t], held_back, t))
            for t, name in enumerate(self.settings.toxicities)
        }
        told = {"simulated": self.settings.simulated, "toxicities": {name: one.as_json() for name, one in self.found.items()}}
        return {"risk": told, "simulated_outcomes": self.settings.simulated}

    # ---- answers

    def probabilities(self, samples: Sequence[Sample], batch: int = 64) -> NDArray[np.float64]:
        """(n, toxicities): mean over members, not recalibrated."""
        return np.asarray(self.by_member(samples, batch).mean(axis=0))

    def by_member(self, samples: Sequence[Sample], batch: int = 64) -> NDArray[np.float64]:
        """(members, n, toxicities) probabilities, plain windows."""
        out = np.zeros((self.settings.members, len(samples), len(self.settings.toxicities)))
        was = self.training
        self.eval()
        device = next(self.net.parameters()).device
        with torch.no_grad():
            for start in range(0, len(samples), batch):
                some = range(start, min(start + batch, len(samples)))
                items = [self.item(samples, Draw(n, (0.0, 0.0, 0.0), None)) for n in some]
                stacked = {key: torch.stack([item[key] for item in items]).to(device) for key in ("image", "features", "facts")}
                for m, member in enumerate(self.net.children()):
                    answer = member.fuse(stacked["image"], stacked["features"], stacked["facts"])  # type: ignore[operator]
                    out[m, list(some)] = torch.sigmoid(answer.risk).double().cpu().numpy()
        self.train(was)
        return out


def prepared(
    settings: RiskSettings,
    patients: Sequence[Patient],
    selection: Selection = Selection(),  # noqa: B008  (frozen: one value for all calls)
) -> RiskSettings:
    """``settings`` with features chosen, and features and facts standardised, by these training patients and nobody else.

    The first toxicity chooses. Raises InputError where nothing can be chosen,
    ConfigError where a fact is not known of anybody or all these patients, or none, had a toxicity.
    """
    for name in settings.toxicities:
        events = [p.outcomes[name] for p in patients if name in p.outcomes]
        if len(set(events)) < 2:
            told = f"{sum(events)} of the {len(events)} training patients of whom it is known had it"
            raise ConfigError(f"{name}: {told}, which teaches nothing", hint="add patients, or hold fewer back (training.validation)")
    first = settings.toxicities[0]
    known = [p for p in patients if first in p.outcomes and p.features]
    out = replace(settings, simulated=settings.simulated or any(p.simulated for p in patients))
    if settings.dosiomics:
        chosen = select([p.features for p in known], [p.outcomes[first] for p in known], [p.original for p in known], selection)
        out = replace(out, features=chosen.names, feature_centre=chosen.centre, feature_scale=chosen.scale)
    if settings.facts:
        table = np.array([[p.facts.get(name, np.nan) for name in settings.facts] for p in patients], np.float64)
        absent = [name for name, column in zip(settings.facts, table.T, strict=True) if not np.isfinite(column).any()]
        if absent:
            raise ConfigError(f"{', '.join(absent)} is not known of anybody", hint="leave it out of --settings.facts")
        centre, scale = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        out = replace(out, fact_centre=tuple(float(v) for v in centre), fact_scale=tuple(float(v) for v in scale))
    return out


def _check_window(window: tuple[int, int, int], member: nn.Module) -> None:
    """Raise ConfigError where the net cannot halve the window as often as it wants to."""
    by = int(getattr(member, "divisor", 1))
    first = 0 if getattr(member, "kind", "3d") == "3d" else 1
    fits = (*window[:first], *(-(-n // by) * by for n in window[first:]))
    if fits != window:
        raise ConfigError(f"the net halves a window until multiples of {by} fit, not {list(window)}", hint=f"take {list(fits)}")


# ---- losses


def outcome_loss(logits: Tensor, outcome: Tensor, known: Tensor, focal: float = 0.0) -> Tensor:
    """Cross-entropy over the (patient, toxicity) pairs whose outcome is known; 0 where none is."""
    each = F.binary_cross_entropy_with_logits(logits, outcome, reduction="none")
    if focal:
        each = each * (1 - torch.exp(-each)) ** focal
    return (each * known).sum() / known.sum().clamp(min=1)


def region_loss(logits: Tensor, region: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy and 1 - soft DSC over the patients whose region is known; 0 where none is."""
    weight = known[:, :, None, None, None]
    pixels = weight.sum() * logits[0].numel()
    bce = (F.binary_cross_entropy_with_logits(logits, region, reduction="none") * weight).sum() / pixels.clamp(min=1)
    found = torch.sigmoid(logits) * weight
    truth = region * weight
    dice = 1 - (2 * (found * truth).sum() + 1) / (found.sum() + truth.sum() + 1)
    return (bce + dice) * (weight.sum() > 0)


def _standard(told: Mapping[str, float], names: Sequence[str], centre: Sequence[float], scale: Sequence[float]) -> NDArray[np.float32]:
    value = np.array([told.get(name, np.nan) for name in names], np.float64)
    value = np.where(np.isfinite(value), value, np.asarray(centre, np.float64))
    return np.asarray(np.clip((value - np.asarray(centre)) / np.asarray(scale), -8, 8), np.float32)


def _known(p: NDArray[np.float64], samples: Sequence[Sample], t: int) -> Known:
    y = np.array([s.outcomes[t] for s in samples], np.float64)
    there = np.isfinite(y)
    return p[there], y[there]
