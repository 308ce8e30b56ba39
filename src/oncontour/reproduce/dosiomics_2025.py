"""Yu et al., Radiother Oncol 2025;212:111121: a dosiomics-guided network for radiation esophagitis, on *simulated outcomes* or real ones.

Rows, nested cross-validation at home, two hospitals apart, intervals by original patient; once with a spatial term in the simulated risk
and once without, where no row can beat the DVH model. What is faithful and what differs is said in ``papers/dosiomics-2025/README.md``.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from oncontour.commands.simulate import FACTS, record, simulate
from oncontour.commands.train import learned_from
from oncontour.core.case import Case
from oncontour.core.notes import grouped
from oncontour.errors import CohortError, OncontourError, OutputError, TrainingError
from oncontour.files import write_text
from oncontour.io.cohort import Cohort
from oncontour.learn.fit import fit
from oncontour.learn.train_settings import TrainSettings
from oncontour.metrics.classify import youden
from oncontour.nets.dosefusion import RESNET34
from oncontour.report.tripod import tripod
from oncontour.reproduce.risk_rows import FULL, Recipe, Row, chosen_rows, learn
from oncontour.reproduce.risk_tables import (
    Column,
    area,
    as_csv,
    auc_table,
    best_dvh,
    calibration_table,
    decision_table,
    pair_table,
    verdict,
)
from oncontour.reproduce.steps import slug
from oncontour.risk.baselines import grouped_folds
from oncontour.risk.cohort import gather
from oncontour.risk.feature_selection import Selection
from oncontour.risk.inputs import Patient, Region
from oncontour.risk.outcome_table import Outcomes, read_outcomes
from oncontour.risk.task import RiskSettings, RiskTask, prepared
from oncontour.risk.virtual_patients import HOSPITALS, TITLE, Toxicity

PUBLISHED = {"internal": (0.88, 0.76, 0.95), "external 1": (0.82, 0.65, 0.96), "external 2": (0.83, 0.74, 0.92)}
"""Their best row: AUC and 95 % interval; 101, 57 and 95 patients."""
MADE_UP = "**Simulated outcomes: nothing below is about patients.** The doses are real, the risk was made up."
STRUCTURE = "Esophagus"
NTCP = "esophagitis-g2-zehentmayr-2015"
SPATIAL, PLAIN, REAL = "with the spatial term", "without the spatial term", "real outcomes"


@dataclass(frozen=True)
class Scene:
    """One table to be made: its name, and each hospital's patients with the outcomes of this scene."""

    name: str
    outcomes: Outcomes
    patients: Mapping[str, tuple[Patient, ...]]


def reproduce(
    cohort: Path,
    out: Path,
    *,
    outcomes: str | None = None,
    toxicity: str = "esophagitis_g2",
    facts: Sequence[str] = FACTS,
    mode: Literal["fair", "paper"] = "fair",
    wall: float = 2.0,
    variants: int = 30,
    folds: int = 5,
    epochs: int = 15,
    members: int = 1,
    final_members: int = 3,
    batch: int = 32,
    learning_rate: float = 3e-3,
    rows: Sequence[str] = (),
    scenes: Sequence[str] = (SPATIAL, PLAIN),
    net_options: Mapping[str, object] | None = None,
    window: Sequence[int] = (20, 16, 16),
    spacing_mm: Sequence[float] = (6.0, 4.0, 4.0),
    region: Region = "structure",
    seed: int = 0,
    workers: int = 1,
    draws: int = 1000,
    patients: int | None = None,
) -> str:
    """Judge every row and write table.md, measured.csv, tripod.md and the full model, learned from all of home.

    Without ``outcomes`` they are simulated: ``variants`` virtual patients of each original with an oesophagus, three quarters of
    train/ at home, the rest in the second hospital, validation/ in the third; ``wall`` is the weight of the spatial term. ``outcomes`` is
    the CSV of real ones (columns patient, ``toxicity``, ``facts``, and hospital, the first of which is home).
    ``mode`` "paper" takes the ResNet34 of full size on windows of 32 x 48 x 48 at 3 mm (for a GPU); "fair" what ``net_options``,
    ``window`` and ``spacing_mm`` say. ``members`` nets from as many seeds answer together in every row, ``final_members`` in
    the model that is kept. ``workers`` processes share the folds; a run that was stopped goes on. ``patients`` takes the first
    so many originals (for a trial). Raises CohortError, ConfigError.
    """
    began = time.monotonic()
    settings = _settings(mode, net_options, window, spacing_mm, region, members)
    training = TrainSettings(epochs=epochs, batch=batch, learning_rate=learning_rate, weight_decay=1e-2, validation=0.0, threads=1)
    recipe = Recipe(toxicity, tuple(facts), settings, training, Selection(), NTCP)
    everyone = _everyone(cohort, patients)
    if outcomes is None:
        made = _simulated(everyone, out, wall, variants, seed, scenes, settings, toxicity)
    else:
        made = [_real(everyone, Path(outcomes), toxicity, facts, settings)]
    chosen = chosen_rows(rows)
    told = {"recipe": repr(recipe), "seed": seed, "folds": folds, "outcomes": outcomes, "wall": wall, "variants": variants}
    _same_run(out, told, {scene.name: _who(scene) for scene in made})
    found = {scene.name: _columns(scene, chosen, recipe, out, folds, seed, workers) for scene in made}
    text = tables(found, recipe, chosen, draws=draws, simulated=any(scene.outcomes.simulated for scene in made))
    write_text(out / "measured.csv", as_csv(found))
    write_text(out / "table.md", text)
    if any(row.name == FULL for row in chosen):
        _final(made[0], found[made[0].name], recipe, out, seed, draws, max(members, final_members))
    _tell(f"{(time.monotonic() - began) / 60:.1f} min")
    return text


def _settings(
    mode: str, net_options: Mapping[str, object] | None, window: Sequence[int], spacing_mm: Sequence[float], region: Region, members: int
) -> RiskSettings:
    if mode == "paper":
        options = {**RESNET34, "kind": "2.5d", **(net_options or {})}
        spacing, size = (3.0, 3.0, 3.0), (32, 48, 48)
        return RiskSettings(("x",), STRUCTURE, net_options=options, spacing_mm=spacing, window=size, region=region, members=members)
    k, j, i = (int(n) for n in window)
    dk, dj, di = (float(s) for s in spacing_mm)
    return RiskSettings(
        ("x",),
        STRUCTURE,
        net_options=dict(net_options or {}),
        spacing_mm=(dk, dj, di),
        window=(k, j, i),
        region=region,
        members=members,
    )


# ---- who


def _everyone(cohort: Path, patients: int | None) -> Mapping[str, Cohort]:
    """Part -> patients: train and validation (or test) where the cohort has them, else all as train."""
    found = {part: Cohort.open(cohort / part) for part in ("train", "validation", "test") if (cohort / part).is_dir()}
    found = found or {"train": Cohort.open(cohort)}
    return {part: c.subset(c.ids[:patients]) for part, c in found.items()} if patients else found


def _organ_cases(everyone: Mapping[str, Cohort]) -> Iterator[tuple[str, Case]]:
    """(part, what is needed of each patient who has the organ and a dose)."""
    remarks: dict[str, tuple[str, ...]] = {}
    for part, cohort in everyone.items():
        for id in cohort.ids:
            try:
                case = cohort[id]
                remarks[id] = tuple(case.facts.get("notes", ()))
                if STRUCTURE in case.structures and "dose" in case.images:
                    kept = {name: case.images[name] for name in ("dose", "ct") if name in case.images}
                    targets = [name for name in case.structures if name.upper().startswith("PTV")]
                    yield part, Case(id, kept, {name: case.mask(name) for name in (STRUCTURE, *targets)}, facts={"part": part})
            except OncontourError as error:
                _tell(f"{id} was left out: {error}")
    _tell(*grouped(remarks))


def _tell(*lines: str) -> None:
    sys.stderr.writelines(f"{line}\n" for line in lines)


def _simulated(
    everyone: Mapping[str, Cohort],
    out: Path,
    wall: float,
    variants: int,
    seed: int,
    scenes: Sequence[str],
    settings: RiskSettings,
    toxicity: str,
) -> list[Scene]:
    """Windows and dosiomics are those of the virtual patients, whatever the scene; outcomes are the scene's."""
    cases = {case.id: (part, case) for part, case in _organ_cases(everyone)}
    places = _places({id: part for id, (part, _) in cases.items()}, seed)
    hospitals = [replace(h, variants=variants) for h in HOSPITALS]
    found: list[Scene] = []
    gathered: dict[str, Patient] = {}
    for name in scenes:
        _tell(f"{TITLE}, {name}")
        weight = wall if name == SPATIAL else 0.0
        made = simulate(
            [case for _, case in cases.values()], [Toxicity(toxicity, NTCP, STRUCTURE, wall=weight)], hospitals, seed, places=places
        )
        told = json.dumps(record(made, hospitals, seed), indent=1) + f"\n{made}"
        write_text(out / f"simulation, {name}.txt", told + "\n")
        if not gathered:
            usable = gather(made.outcomes, {id: case for id, (_, case) in cases.items()}, settings.view)
            gathered = {p.id: p for p in usable.patients}
            _tell(*usable.left_out, *usable.remarks)
        found.append(_scene(name, made.outcomes, gathered))
    return found


def _places(parts: Mapping[str, str], seed: int) -> dict[str, str]:
    """Original -> hospital: validation (or test) third; of train a quarter second, the rest home. One part alone: 60, 20 and 20 %."""
    ids = sorted(parts)
    order = [ids[n] for n in np.random.default_rng([seed, 23]).permutation(len(ids))]
    train = [id for id in order if parts[id] == "train"]
    away = {id: "third" for id in order if parts[id] != "train"}
    if len(order) < 3:
        raise CohortError(f"{len(order)} patients have a dose and {STRUCTURE}: three hospitals need three at least")
    if away:
        cut = max(1, round(0.25 * len(train)))
        return {**dict.fromkeys(train[:cut], "second"), **dict.fromkeys(train[cut:], "home"), **away}
    cut = max(1, round(0.2 * len(train)))
    return {id: "second" if n < cut else "third" if n < 2 * cut else "home" for n, id in enumerate(train)}


def _real(everyone: Mapping[str, Cohort], table: Path, toxicity: str, facts: Sequence[str], settings: RiskSettings) -> Scene:
    told = read_outcomes(table, [toxicity], facts)
    paths = {id: cohort.path(id) for cohort in everyone.values() for id in cohort.ids}
    usable = gather(told, Cohort(paths), settings.view)
    without = [p.id for p in usable.patients if not p.features]
    _tell(*usable.left_out, *usable.remarks)
    _tell(*(f"{id} was left out: {STRUCTURE} is not contoured, and the comparison needs its dose" for id in without))
    return _scene(REAL if not told.simulated else f"{TITLE} of a table", told, {p.id: p for p in usable.patients if p.features})


def _scene(name: str, outcomes: Outcomes, gathered: Mapping[str, Patient]) -> Scene:
    """Those of the table who can be used and whose outcome is known. Raises CohortError where a hospital has one kind of them only."""
    toxicity = outcomes.toxicities[0]
    people: dict[str, list[Patient]] = {}
    for person in outcomes.people:
        if person.id in gathered and toxicity in person.outcomes:
            people.setdefault(person.hospital or "home", []).append(replace(gathered[person.id], outcomes=person.outcomes))
    order = dict.fromkeys(person.hospital or "home" for person in outcomes.people)
    for hospital in order:
        had = [p.outcomes[toxicity] for p in people.get(hospital, [])]
        if len(set(had)) < 2:
            what = f"{sum(had)} of the {len(had)} patients of {hospital} who can be used had {toxicity}: no model can be judged there"
            raise CohortError(what, where=outcomes.where, hint="add patients, or leave the hospital out of the table")
    return Scene(name, outcomes, {hospital: tuple(people[hospital]) for hospital in order})


# ---- folds


@dataclass(frozen=True)
class _Job:
    scene: str
    row: Row
    fold: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class _Judged:
    """What a fold's model says: its training ``threshold``, and hospital -> patient -> probability."""

    threshold: float
    probabilities: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class _Work:
    """What every process has."""

    recipe: Recipe
    folds: int
    seed: int
    patients: Mapping[str, Mapping[str, tuple[Patient, ...]]]


_WORK: list[_Work] = []


def _begin(work: _Work) -> None:
    _WORK[:] = [work]


def _do(job: _Job) -> _Judged:
    """Probabilities of who was kept apart and of everybody at the other hospitals; kept in the job's folder for the next start.

    Raises what the row's learning raises, with the name of row and fold.
    """
    path = job.folder / f"fold{job.fold}.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return _Judged(kept.pop("threshold"), kept)
    try:
        found = _judged(job, _WORK[0])
    except OncontourError as error:
        where = f"{job.scene}: {job.row.name}, fold {job.fold + 1}" + (f", {error.where}" if error.where else "")
        raise type(error)(error.what, where=where, hint=error.hint) from error
    write_text(path, json.dumps({"threshold": found.threshold, **found.probabilities}))
    return found


def _judged(job: _Job, work: _Work) -> _Judged:
    hospitals = work.patients[job.scene]
    home, *others = hospitals
    learned, apart = grouped_folds([p.original for p in hospitals[home]], work.folds, work.seed)[job.fold]
    train = [hospitals[home][int(n)] for n in learned]
    y = [p.outcomes[work.recipe.toxicity] for p in train]
    if len(set(y)) < 2:
        what = f"{sum(y)} of the {len(y)} training patients of this fold had {work.recipe.toxicity}: there is nothing to tell apart"
        raise CohortError(what, hint="take fewer folds, or more patients")
    predict = learn(job.row, work.recipe, train, job.folder / f"fold{job.fold}", job.seed + job.fold)
    judged = {home: [hospitals[home][int(n)] for n in apart], **{other: hospitals[other] for other in others}}
    found = {
        hospital: {patient.id: round(float(value), 6) for patient, value in zip(patients, predict(patients), strict=True)}
        for hospital, patients in judged.items()
    }
    return _Judged(youden(predict(train), y), found)


def _columns(scene: Scene, rows: Sequence[Row], recipe: Recipe, out: Path, folds: int, seed: int, workers: int) -> list[Column]:
    """Each hospital's column: home by what was kept apart, the others by the mean of the folds' models."""
    jobs = [_Job(scene.name, row, fold, seed, out / slug(scene.name) / slug(row.name)) for row in rows for fold in range(folds)]
    work = _Work(recipe, folds, seed, {scene.name: scene.patients})
    done: list[_Judged] = []
    started = time.monotonic()

    def told(n: int, job: _Job) -> None:
        if job.row.kind == "net":
            _tell(f"{scene.name}: {job.row.name}, fold {job.fold + 1}, {n + 1}/{len(jobs)}, {time.monotonic() - started:.0f} s")

    if workers > 1:
        try:
            with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (work,)) as pool:
                for n, (job, answer) in enumerate(zip(jobs, pool.map(_do, jobs), strict=True)):
                    told(n, job)
                    done.append(answer)
        except BrokenProcessPool as error:
            what = f"one of {workers} processes ended without an answer after {len(done)} of {len(jobs)} folds (out of memory, or killed)"
            raise TrainingError(what, where=scene.name, hint="start again, with fewer workers: finished folds are kept") from error
    else:
        _begin(work)
        for n, job in enumerate(jobs):
            done.append(_do(job))
            told(n, job)
    return [_column(scene, hospital, rows, jobs, done) for hospital in scene.patients]


def _column(scene: Scene, hospital: str, rows: Sequence[Row], jobs: Sequence[_Job], done: Sequence[_Judged]) -> Column:
    patients = scene.patients[hospital]
    name = scene.outcomes.toxicities[0]
    found = {}
    thresholds = {}
    for row in rows:
        mine = [answer for job, answer in zip(jobs, done, strict=True) if job.row.name == row.name]
        parts = [answer.probabilities[hospital] for answer in mine]
        found[row.name] = np.array([np.mean([part[p.id] for part in parts if p.id in part]) for p in patients], np.float64)
        thresholds[row.name] = float(np.mean([answer.threshold for answer in mine]))
    risks = {p.id: p.risks.get(name) for p in scene.outcomes.people}
    true = [risks[p.id] for p in patients]
    risk = None if any(v is None for v in true) else np.array(true, np.float64)
    outcome = np.array([p.outcomes[name] for p in patients], bool)
    return Column(hospital, tuple(p.original for p in patients), outcome, risk, found, thresholds)


def _same_run(out: Path, recipe: Mapping[str, object], scenes: Mapping[str, str]) -> None:
    """Raise OutputError where OUT holds a run of other settings or patients, whose folds must not be mixed with these.

    Scenes may come one by one: "who" holds those of before, too.
    """
    path = out / "settings.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    differs = [key for key, value in recipe.items() if key in kept and kept[key] != json.loads(json.dumps(value))]
    who = kept.get("who", {})
    differs += [f"patients or outcomes {name}" for name, told in scenes.items() if who.get(name, told) != told]
    if differs:
        what = f"the folder holds a run of other settings (different: {', '.join(differs)})"
        raise OutputError(what, where=str(out), hint="choose another --out")
    write_text(path, json.dumps({**recipe, "who": {**who, **scenes}}, indent=1))


def _who(scene: Scene) -> str:
    """A digest of hospitals, patients and outcomes of a scene."""
    listed = sorted((hospital, p.id, sorted(p.outcomes.items())) for hospital, people in scene.patients.items() for p in people)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _final(scene: Scene, columns: Sequence[Column], recipe: Recipe, out: Path, seed: int, draws: int, members: int) -> None:
    """The full model of all of home, its card and its TRIPOD+AI report. Its ``members`` are nets from as many seeds: their range is what a
    patient's risk is told with."""
    (full,) = chosen_rows([FULL])
    home = next(iter(scene.patients.values()))
    settings = replace(recipe.settings, toxicities=(recipe.toxicity,), facts=recipe.facts, members=members, **full.changes)
    training = replace(recipe.training, seed=seed, validation=0.15)
    task = RiskTask(prepared(settings, learned_from(home, settings.toxicities, training), recipe.selection))
    data = f"{len(home)} patients of {len({p.original for p in home})} originals, {scene.name}"
    done = fit(task, list(home), out / "model", training, name="risk", data=data, limits=task.card().limits, finish=RiskTask.finish)  # type: ignore[arg-type]
    areas = [(c.hospital, area(c, FULL, draws)) for c in columns]
    judged = "; ".join(f"{hospital}: AUC {a.mean:.3f} [{a.low:.3f}-{a.high:.3f}]" for hospital, a in areas)
    judged = f"Not of this model but of the nets of the folds, each on patients it did not learn from ({scene.name}): {judged}."
    write_text(out / "tripod.md", tripod(done.card, home, judged))


# ---- tables


def tables(found: Mapping[str, Sequence[Column]], recipe: Recipe, rows: Sequence[Row], *, draws: int, simulated: bool) -> str:
    """The page: their numbers, then for each scene AUC, pairs, a verdict, decisions and calibration."""
    title = "Simulated outcomes: " if simulated else ""
    lines = [
        f"# {title}dosiomics-guided network, {recipe.toxicity}",
        "",
        *([MADE_UP, ""] if simulated else []),
        "Published (Yu et al. 2025, real patients, another disease site): "
        + "; ".join(f"{name} {a:.2f} [{low:.2f}-{high:.2f}]" for name, (a, low, high) in PUBLISHED.items()),
        "",
        "Intervals: 95 %, original patients resampled, and widened for how few they are (Student's t)"
        + ("; DeLong's, which takes virtual patients of one original for strangers, beside it." if simulated else "; DeLong's beside it."),
        "",
    ]
    dvh_rows = [row.name for row in rows if row.kind == "dvh"]
    for name, columns in found.items():
        head = f"{title}{name}"
        lines += [f"## {head}", "", *auc_table(columns, draws), ""]
        if dvh_rows and len(rows) > 1:
            against = best_dvh(columns[0], dvh_rows)
            lines += [f"### {head}: against the best DVH model, paired", "", *pair_table(columns, against, draws), ""]
            lines += [*verdict(columns, against, FULL, draws), ""]
        lines += [f"### {head}: decisions", "", *decision_table(columns), ""]
        shown = [row.name for row in rows if row.name in ("DVH logistic", FULL)] or [rows[-1].name]
        lines += [f"### {head}: calibration, before and after recalibration", "", *calibration_table(columns, shown), ""]
    return "\n".join(lines)
