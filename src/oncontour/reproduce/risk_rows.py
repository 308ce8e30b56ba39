"""The rows of a comparison of risk models: each learns from training patients alone and gives probabilities for any others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.dose.ntcp import MODELS, Lkb, lkb
from oncontour.errors import ConfigError
from oncontour.learn.fit import fit
from oncontour.learn.task import load_task
from oncontour.learn.train_settings import TrainSettings
from oncontour.risk.baselines import Model, boosted, lasso, logistic, ridge
from oncontour.risk.feature_selection import Chosen, Selection, select
from oncontour.risk.inputs import Patient
from oncontour.risk.task import RiskSettings, RiskTask, prepared
from oncontour.risk.virtual_patients import DVH_FIGURES

Floats = NDArray[np.float64]
Predict = Callable[[Sequence[Patient]], Floats]
"""Patients -> probabilities (n,)."""


@dataclass(frozen=True)
class Recipe:
    """What all rows share: the toxicity, the facts every model but the published one may use, settings of net and training."""

    toxicity: str
    facts: tuple[str, ...]
    settings: RiskSettings
    training: TrainSettings
    selection: Selection
    published: str


@dataclass(frozen=True)
class Row:
    """A row of the table. ``kind``: "dvh" (what a DVH tells), "dosiomics", or "net"; ``changes`` of a net's settings."""

    name: str
    kind: str
    changes: Mapping[str, Any] = field(default_factory=dict)


_PLAIN = {"dosiomics": False, "contrast": "none", "region": "none"}
ROWS = (
    Row("mean dose", "dvh"),
    Row("LKB", "dvh"),
    Row("DVH logistic", "dvh"),
    Row("dosiomics + LASSO", "dosiomics"),
    Row("dosiomics + gradient boosting", "dosiomics"),
    Row("ResNet", "net", _PLAIN),
    Row("ResNet + dosiomics", "net", {**_PLAIN, "dosiomics": True}),
    Row("ResNet + dosiomics + contrastive", "net", {**_PLAIN, "dosiomics": True, "contrast": "both"}),
    Row("ResNet + dosiomics + segmentation", "net", {"dosiomics": True, "contrast": "none"}),
    Row("all", "net", {"dosiomics": True, "contrast": "both"}),
)
"""ResNet34, or what run.yaml makes of it."""
FULL = "all"


def chosen_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names, all by default. Raises ConfigError for an unknown one."""
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        raise ConfigError(f"unknown rows {sorted(unknown)}", hint=f"choose from {[row.name for row in ROWS]}")
    return tuple(row for row in ROWS if not names or row.name in names)


def learn(row: Row, recipe: Recipe, train: Sequence[Patient], folder: Path, seed: int) -> Predict:
    """The row's model, learned from ``train`` (patients whose outcome is known); nets keep their run in ``folder`` and go on from there."""
    if row.kind == "net":
        return _net(row, recipe, train, folder, seed)
    if row.name == "LKB":
        return _published(recipe)
    y = np.array([p.outcomes[recipe.toxicity] for p in train], np.float64)
    groups = [p.original for p in train]
    if row.name == "mean dose":
        return _tabular(["Dmean"], (), train, lambda x: logistic(x, y))
    if row.name == "DVH logistic":
        return _tabular(DVH_FIGURES, recipe.facts, train, lambda x: ridge(x, y, groups))
    rows = [p.features for p in train]
    if row.name == "dosiomics + LASSO":
        names = select(rows, y, groups, replace(recipe.selection, method="none")).names
        return _tabular(names, recipe.facts, train, lambda x: lasso(x, y, groups))
    names = select(rows, y, groups, replace(recipe.selection, method="mrmr", count=2 * recipe.selection.count)).names
    return _tabular(names, recipe.facts, train, lambda x: boosted(x, y, seed=seed))


def _tabular(names: Sequence[str], facts: Sequence[str], train: Sequence[Patient], make: Callable[[Floats], Model]) -> Predict:
    """A model of numbers, standardised by the training patients."""
    table = [_numbers(p, facts) for p in train]
    kept = [*names, *facts]
    x = np.array([[row.get(name, np.nan) for name in kept] for row in table], np.float64)
    centre = np.nanmedian(np.where(np.isfinite(x), x, np.nan), axis=0)
    scale = np.nanstd(np.where(np.isfinite(x), x, np.nan), axis=0)
    scaling = Chosen(tuple(kept), tuple(map(float, centre)), tuple(float(s) if s > 1e-12 else 1.0 for s in scale))
    model = make(scaling.apply(table)[0])
    return lambda patients: model.probability(scaling.apply([_numbers(p, facts) for p in patients])[0])


def _numbers(patient: Patient, facts: Sequence[str]) -> dict[str, float]:
    return {**patient.features, **{name: patient.facts.get(name, np.nan) for name in facts}}


def _published(recipe: Recipe) -> Predict:
    """The published model as it is, of the mean dose; nothing is fitted."""
    model = MODELS[recipe.published]
    if not isinstance(model, Lkb) or model.n != 1:
        raise ConfigError(f"{recipe.published} is no LKB model of the mean dose", hint="choose esophagitis-g2-zehentmayr-2015")
    return lambda patients: np.array([lkb(p.features["Dmean"], model.td50_gy, model.m) for p in patients], np.float64)


def _net(row: Row, recipe: Recipe, train: Sequence[Patient], folder: Path, seed: int) -> Predict:
    settings = replace(recipe.settings, toxicities=(recipe.toxicity,), facts=recipe.facts, **row.changes)
    model = folder / "model.safetensors"
    if model.exists():
        task = load_task(model)
    else:
        task = RiskTask(prepared(settings, train, recipe.selection))
        training = replace(recipe.training, seed=seed, validation=0.0)
        fit(task, list(train), folder, training, limits=task.card().limits, finish=RiskTask.finish)  # type: ignore[arg-type]
        task = load_task(model)
    assert isinstance(task, RiskTask)
    return lambda patients: task.probabilities([task.sample(p) for p in patients])[:, 0]
