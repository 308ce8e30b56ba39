"""``oncontour simulate outcomes``: a cohort of virtual patients with a known risk, made of real dose distributions
(``risk.virtual_patients``)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.core.notes import grouped, some
from oncontour.errors import CohortError, ConfigError, DoseError, OncontourError
from oncontour.progress import Progress
from oncontour.risk.virtual_patients import (
    DVH_FIGURES,
    HOSPITALS,
    TITLE,
    Anatomy,
    Exposure,
    Hospital,
    Toxicity,
    Truth,
    Virtual,
    bayes_auc,
    draw,
    exposure,
    seen_by_dvh,
)
from oncontour.risk.virtual_patients import record as recorded

if TYPE_CHECKING:
    from oncontour.core.case import Case
    from oncontour.io.cohort import Cohort
    from oncontour.risk.outcome_table import Outcomes, Person

TABLE, RECORD = "outcomes.csv", "simulation.json"
FILES = (TABLE, RECORD)
FACTS = ("chemo", "age")


@dataclass(frozen=True)
class Made:
    """A virtual patient with what is true of it."""

    hospital: Hospital
    virtual: Virtual
    facts: Mapping[str, float]
    exposures: Mapping[str, Exposure]
    """by toxicity"""


@dataclass(frozen=True)
class Simulation:
    """``outcomes`` as they would be recorded, ``truth`` behind them, ``made`` in the same order, what DVHs know of the spatial terms."""

    outcomes: Outcomes
    truths: tuple[Truth, ...]
    made: tuple[Made, ...]
    seen: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        from oncontour.metrics.classify import auc

        head = f"{'hospital':<10}{'originals':>10}{'patients':>10}{'known':>8}{'events':>8}{'Bayes AUC':>11}{'NTCP AUC':>10}"
        lines = []
        for truth in self.truths:
            name = truth.toxicity.name
            lines += [f"{TITLE.upper()}: {name}", "", head, "-" * len(head)]
            for hospital in self.outcomes.hospitals:
                rows = [(p, m) for p, m in zip(self.outcomes.people, self.made, strict=True) if p.hospital == hospital]
                known = [(p, m) for p, m in rows if name in p.outcomes]
                events = sum(p.outcomes[name] for p, _ in known)
                best = bayes_auc(_array(p.risks[name] for p, _ in rows))
                model = auc([m.exposures[name].ntcp for _, m in known], [p.outcomes[name] for p, _ in known]) if known else float("nan")
                originals = len({p.source for p, _ in rows})
                lines.append(f"{hospital:<10}{originals:>10}{len(rows):>10}{len(known):>8}{events:>8}{best:>11.3f}{model:>10.3f}")
            lines.append("")
        told = ", ".join(f"{term} {share:.2f}" for term, share in self.seen.items())
        lines.append(f"Part of the variance of each spatial term that DVH figures know (R squared): {told}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def outcomes(
    cohort: Path,
    *,
    out: Path,
    toxicities: list[Toxicity] | None = None,
    hospitals: list[Hospital] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Simulated outcomes: virtual patients from a cohort's real doses, with a risk that is known because it was made up.

    A published NTCP model gives the risk of a structure's dose; a spatial term that no DVH can see is added (dose to the left wall less
    that to the right), and clinical facts. Prescription, mirroring and set-up make many virtual patients of one original; hospitals differ
    in prescription, noise, dose grid, case mix and prevalence, and share no original patient. OUT gets outcomes.csv (which
    'oncontour train risk' takes like a table of real outcomes) and simulation.json (everything that was made up).

    Nothing learned from this may be used on patients.

    Examples:
        oncontour simulate outcomes COHORT --out OUT
        oncontour simulate outcomes COHORT --out OUT --seed 7 --config examples/simulation.yaml

    Args:
        cohort: folder (or CSV) of patients with dose and structures
        out: folder to make
        toxicities: what is simulated; esophagitis by default
        hospitals: where; a home hospital and two that differ by default
        seed: everything random follows from it
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    from oncontour.files import write_text
    from oncontour.io.cohort import Cohort
    from oncontour.result import check_out, result_folder
    from oncontour.risk.outcome_table import write_outcomes

    check_out(out, [cohort], FILES, overwrite=overwrite, of="the cohort")
    patients = Cohort.open(cohort)
    made = simulate(_cases(patients, progress), toxicities or [Toxicity()], hospitals or list(HOSPITALS), seed)
    with result_folder(out, FILES, overwrite=overwrite) as folder:
        write_outcomes(made.outcomes, folder / TABLE)
        write_text(folder / RECORD, json.dumps(record(made, hospitals or HOSPITALS, seed), indent=1) + "\n")
    return f"{made}\n\n{TABLE}, {RECORD} in {out}"


def simulate(
    cases: Iterable[Case],
    toxicities: Sequence[Toxicity],
    hospitals: Sequence[Hospital],
    seed: int,
    *,
    places: Mapping[str, str] | None = None,
) -> Simulation:
    """Virtual patients of ``cases``, each original in one hospital: by ``places`` (original -> hospital), else by the hospitals' shares.

    The first hospital is home: spatial terms are scaled on it. Originals without one of the structures, or whose structure has no dose, are
    named in the notes. Raises CohortError where a hospital would be without patients.
    """
    from oncontour.risk.outcome_table import Outcomes

    _check(toxicities, hospitals)
    usable, notes = _usable(cases, toxicities)
    place = dict(places) if places is not None else _places([patient.id for patient in usable], hospitals, seed)
    rows: dict[str, list[Made]] = {}
    for hospital in hospitals:
        mine = [patient for patient in usable if place.get(patient.id) == hospital.name]
        rows[hospital.name] = [one for patient in mine for one in _made(patient, hospital, toxicities, seed)]
        if not rows[hospital.name]:
            why = f" ({'; '.join(notes[:3])})" if notes else ""
            raise CohortError(
                f"hospital {hospital.name} would be without patients: {len(usable)} of the cohort can be used{why}",
                hint="add patients with dose and structure, or take fewer hospitals or other shares",
            )
        lost = len(mine) * hospital.variants - len(rows[hospital.name])
        notes += (
            [f"{hospital.name}: {lost} virtual patients were not made, as the set-up moved their organ out of the dose"] if lost else []
        )
    told = [_told(toxicity, hospitals, rows, seed + 7919 * number) for number, toxicity in enumerate(toxicities)]
    everyone = [m for hospital in hospitals for m in rows[hospital.name]]
    people = tuple(_person(m, [(t.toxicity.name, risk[n], known[n]) for t, risk, known in told]) for n, m in enumerate(everyone))
    made = Outcomes(people, tuple(t.name for t in toxicities), FACTS, simulated=True)
    return Simulation(
        made, tuple(truth for truth, _, _ in told), tuple(everyone), _seen(rows[hospitals[0].name], toxicities[0]), tuple(notes)
    )


def _usable(cases: Iterable[Case], toxicities: Sequence[Toxicity]) -> tuple[list[Anatomy], list[str]]:
    """(who can be treated, a sentence on each who cannot, and what was remarked on reading them)."""
    from oncontour.risk.inputs import usable_dose

    usable, notes = [], []
    remarks: dict[str, tuple[str, ...]] = {}
    without: dict[str, list[str]] = {}
    for case in cases:
        remarks[case.id] = tuple(case.facts.get("notes", ()))
        absent = [t.structure for t in toxicities if t.structure not in case.structures]
        if absent:
            without.setdefault(", ".join(dict.fromkeys(absent)), []).append(case.id)
            continue
        try:
            usable_dose(case)  # what no model could be trained on makes no outcomes either
            patient = Anatomy.of(case, [t.structure for t in toxicities])
            for toxicity in toxicities:
                exposure(patient, toxicity)
            usable.append(patient)
        except OncontourError as error:
            notes.append(f"{case.id} was left out: {error.what}")
    left_out = [f"{len(ids)} without {what} were left out: {some(ids)}" for what, ids in without.items()]
    return usable, [*left_out, *notes, *grouped(remarks)]


def _told(
    toxicity: Toxicity, hospitals: Sequence[Hospital], rows: Mapping[str, Sequence[Made]], seed: int
) -> tuple[Truth, list[float], list[float]]:
    """(truth scaled at home, risk of everybody, outcome of everybody: NaN where nobody recorded it)."""

    name = toxicity.name
    truth = Truth(toxicity).fitted([m.exposures[name] for m in rows[hospitals[0].name]])
    risks: list[float] = []
    known: list[float] = []
    for hospital in hospitals:
        truth, here = truth.at(hospital, _array(truth.predictor(m.exposures[name], m.facts) for m in rows[hospital.name]))
        risks += here.tolist()
        known += recorded(here, hospital, seed).tolist()
    return truth, risks, known


def _person(made: Made, told: Sequence[tuple[str, float, float]]) -> Person:
    from oncontour.risk.outcome_table import Person

    outcomes = {name: known > 0.5 for name, _, known in told if known == known}
    risks = {name: risk for name, risk, _ in told}
    v = made.virtual
    return Person(f"{made.hospital.name}-{v.id}", outcomes, made.facts, v.original, made.hospital.name, _how(v), risks)


def _seen(home: Sequence[Made], toxicity: Toxicity) -> dict[str, float]:
    """Spatial term -> R squared on DVH figures."""

    found = [m.exposures[toxicity.name] for m in home]
    table = _array([e.figures[name] for name in DVH_FIGURES] for e in found)
    return {
        "wall": seen_by_dvh(_array(e.wall_gy for e in found), table),
        "ring": seen_by_dvh(_array(e.ring_share for e in found), table),
    }


def record(simulation: Simulation, hospitals: Sequence[Hospital], seed: int) -> dict[str, object]:
    """Everything that was made up, for simulation.json."""

    people = simulation.outcomes.people
    best = {
        t.toxicity.name: {
            h: bayes_auc(_array(p.risks[t.toxicity.name] for p in people if p.hospital == h)) for h in simulation.outcomes.hospitals
        }
        for t in simulation.truths
    }
    return {
        "title": TITLE,
        "seed": seed,
        "patients": len(people),
        "hospitals": [asdict(h) for h in hospitals],
        "truth": [asdict(t) for t in simulation.truths],
        "bayes_auc": best,
        "r_squared_of_spatial_terms_on_dvh_figures": dict(simulation.seen),
        "notes": list(simulation.notes),
    }


def _cases(patients: Cohort, progress: Progress | None) -> Iterator[Case]:

    for n, id in enumerate(patients.ids):
        try:
            yield patients[id]
        except OncontourError as error:
            sys.stderr.write(f"{id} was left out: {error}\n")
        if progress is not None:
            progress((n + 1) / len(patients))


def _check(toxicities: Sequence[Toxicity], hospitals: Sequence[Hospital]) -> None:
    for what, names in (("toxicities", [t.name for t in toxicities]), ("hospitals", [h.name for h in hospitals])):
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"{what} need different names, one at least, not {names}")
    if sum(h.share for h in hospitals) > 1 + 1e-9:
        raise ConfigError(f"shares of the original patients sum to 1 at most, not {[h.share for h in hospitals]}")


def _places(ids: Sequence[str], hospitals: Sequence[Hospital], seed: int) -> dict[str, str]:

    order = [sorted(ids)[n] for n in np.random.default_rng([seed, 11]).permutation(len(ids))]
    ends = np.rint(np.cumsum([h.share for h in hospitals]) * len(ids)).astype(int)
    starts = [0, *ends[:-1]]
    return {id: h.name for h, a, b in zip(hospitals, starts, ends, strict=True) for id in order[a:b]}


def _made(patient: Anatomy, hospital: Hospital, toxicities: Sequence[Toxicity], seed: int) -> Iterator[Made]:

    for number in range(hospital.variants):
        virtual, facts = draw(hospital, patient.id, number, seed)
        treated = patient.treated(virtual)
        try:
            yield Made(hospital, virtual, facts, {t.name: exposure(treated, t) for t in toxicities})
        except DoseError:
            continue


def _how(virtual: Virtual) -> dict[str, float]:
    x, y, z = virtual.shift_mm
    return {
        "scale": virtual.scale,
        "shift_x_mm": x,
        "shift_y_mm": y,
        "shift_z_mm": z,
        "mirrored": float(virtual.mirrored),
        "noise_gy": virtual.noise_gy,
        "grid_mm": virtual.grid_mm,
        "seed": float(virtual.seed),
        "number": float(virtual.number),
    }


def _array(values: Iterable[float] | Iterable[Sequence[float]]) -> NDArray[np.float64]:

    return np.array(list(values), dtype=np.float64)
