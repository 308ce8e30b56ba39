"""Every method on simulated visits of the patients kept apart: each visit, each fitted field and each judgement made once and kept.

OUT/visits/STRATUM/PATIENT/visit-N                 the simulated visit with its true field, as 'oncontour simulate visits' writes it
OUT/fields/STRATUM/PATIENT/visit-N/METHOD.npz      the field of a method that fits it to the visit
OUT/judged/STRATUM/PATIENT/METHOD.json             what came out of a patient's visits
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.adapt.inputs import TRUTH, Paired, View, paired, planning_of, read_displacement, write_displacement
from oncontour.adapt.predict import Adapted, Adapter
from oncontour.adapt.simulate import Planning, VisitSettings
from oncontour.adapt.unlearned import carried
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import CohortError
from oncontour.evaluate.found import Evaluation, Failure, FieldRow, Row
from oncontour.evaluate.judge import Predictor, judge
from oncontour.evaluate.visits import Adapts, Output, Visits, Watched, by_patient
from oncontour.files import write_text
from oncontour.io.cohort import Cohort
from oncontour.io.image.layout import write_layout
from oncontour.metrics.overlap import dsc

STRATA = {"usual": VisitSettings(0.8), "hard": VisitSettings(1.2), "unseen": VisitSettings(0.8, "unseen")}
"""How the visits are simulated that methods are judged on."""
METRICS = ("DSC", "MSD", "HD95")
SEGMENTED, ORACLE = ", segmentation", ", segmentation (oracle)"
"""After a row's name: what it segments directly; the same cleaned with the truth at hand (paper_compat)."""
OVERLAP_ENOUGH = 0.5
"""DSC above which the paper's code takes a component for the organ."""


@dataclass(frozen=True)
class Method:
    """One way to adapt: ``key`` names its files (with the weights' digest where it has any), ``name`` stands in the tables.

    ``keep``: whether its fields are fitted to a visit, and so kept. ``registers`` and ``segments``: which outputs it has.
    """

    key: str
    name: str
    adapts: Adapts
    keep: bool = False
    registers: bool = True
    segments: bool = False

    @classmethod
    def of(cls, name: str, adapter: Adapter, *, refine: bool | None) -> Method:
        """A trained net, its field refined or not (None: as ``Adapter`` does by itself); a refined one's segmentation, which is that of the
        net, is left out."""
        adapter = replace(adapter, refine=refine)
        key = "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split()) + "-" + adapter.card.sha256[:8]
        return cls(key, name, adapter, bool(refine), adapter.task.registers, adapter.task.segments and not refine)


class Wanted(Protocol):
    """What of a plan is asked for here."""

    @property
    def structures(self) -> tuple[str, ...]: ...
    @property
    def judged_visits(self) -> int: ...
    @property
    def paper_compat(self) -> bool: ...
    @property
    def seed(self) -> int: ...


@dataclass
class Judged:
    """What came out in one stratum: ``rows`` with the patient as the unit, a row for each field, and failures by name."""

    rows: list[Row] = field(default_factory=list)
    fields: list[FieldRow] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.method for row in self.rows))

    def evaluation(self, structures: Sequence[str]) -> Evaluation:
        """As the claims want it."""
        patients = len({row.patient for row in self.rows})
        return Evaluation(tuple(self.rows), tuple(self.failures), (), (), self.methods, tuple(structures), patients)


def judged(test: Cohort, methods: Sequence[Method], out: Path, stratum: str, plan: Wanted) -> Judged:
    """All methods on the visits of one stratum, in the methods' order; what is kept is not made again.

    Raises CohortError where no patient could be judged.
    """
    found = Judged()
    for n, id in enumerate(test.ids):
        place = Path(stratum) / id
        files = {
            one.key: out / "judged" / place / f"{one.key}{'-oracle' if plan.paper_compat and one.segments else ''}.json" for one in methods
        }
        missing = [one for one in methods if not files[one.key].exists()]
        if missing:
            sys.stderr.write(f"{stratum}: patient {n + 1} of {len(test)}, {len(missing)} methods\n")
            try:
                visits = simulated(test, id, out / "visits" / stratum, STRATA[stratum], plan)
            except CohortError as error:
                found.failures.append(Failure(id, "all", str(error)))
                continue
            cases = Kept({one: visits[one] for one in visits.ids})
            for one in missing:
                write_text(files[one.key], _as_json(_judge(one, cases, out / "fields" / stratum, plan)))
        for one in methods:
            _add(found, files[one.key])
    if not found.rows:
        first = f": {found.failures[0].reason}" if found.failures else ""
        raise CohortError(
            f"none of {len(test)} patients kept apart could be judged{first}", where=test.where, hint="give patients with organs"
        )
    return found


def simulated(test: Cohort, id: str, folder: Path, settings: VisitSettings, plan: Wanted) -> Visits:
    """The patient's visits of one stratum, simulated where they do not lie in FOLDER/PATIENT. Raises CohortError where none can be."""
    places = [folder / id / f"visit-{number}" for number in range(1, plan.judged_visits + 1)]
    if any(not (place / TRUTH).exists() for place in places):
        case = test[id]
        if not any(name in case.structures for name in plan.structures):
            raise CohortError(f"none of {', '.join(plan.structures)} is contoured", where=id)
        planning = Planning(case)
        for number, place in enumerate(places, start=1):
            if not (place / TRUTH).exists():
                visit = planning.visit(number, settings, plan.seed)
                write_layout(visit.case, place)
                write_displacement(visit.deformation, place / TRUTH)
    return Visits({id: [test.paths[id], *places]})


@dataclass
class Kept:
    """Cases of visits that were read, and each pair as nets see it, made once for all nets that see it alike."""

    cases: Mapping[str, Case]
    _seen: dict[tuple[str, View], Paired] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.cases)

    def __getitem__(self, id: str) -> Case:
        return self.cases[id]

    def seen(self, case: Case, view: View) -> Paired:
        """``case`` as a net of this view sees it."""
        if (case.id, view) not in self._seen:
            self._seen[case.id, view] = paired(case, planning_of(case), view)
        return self._seen[case.id, view]


@dataclass(frozen=True)
class _Keeping:
    """A method with its fields kept in ``folder`` where they are fitted, and its pairs where it is a net."""

    method: Method
    cases: Kept
    folder: Path

    def adapt(self, case: Case) -> Adapted:
        path = self.folder / case.id / f"{self.method.key}.npz"
        if self.method.keep and path.exists():
            return carried(case, read_displacement(path))
        adapts = self.method.adapts
        found = adapts.adapt(case, self.cases.seen(case, adapts.task.settings.view)) if isinstance(adapts, Adapter) else adapts.adapt(case)
        if self.method.keep and found.deformation is not None:
            write_displacement(found.deformation, path, half=True)
            return carried(case, read_displacement(path))  # what a run that goes on will find
        return found


def _judge(method: Method, cases: Kept, folder: Path, plan: Wanted) -> Judged:
    """A method on the visits of one patient; what fails is told by name."""
    watched = Watched(method.name, _Keeping(method, cases, folder))
    outputs: dict[str, Predictor] = {method.name: Output(watched, "carried")} if method.registers else {}
    if method.segments:
        outputs[method.name + SEGMENTED] = Output(watched, "direct", lambda _id, _name, mask: largest(mask))
        if plan.paper_compat:
            outputs[method.name + ORACLE] = Output(watched, "direct", _with_truth(cases))
    try:
        found = judge(cases, outputs, structures=plan.structures)
    except CohortError as error:
        return Judged(failures=[Failure(id, method.name, error.what) for id in cases.ids])
    rows = [row for row in by_patient(found).rows if row.metric in METRICS]
    return Judged(rows, watched.rows, list(found.failures))


def _with_truth(cases: Kept) -> Callable[[str, str, Volume], Volume]:
    return lambda id, name, mask: oracle(mask, cases[id].mask(name)) if name in cases[id].structures else mask


# ---- what is done to a segmentation


def largest(mask: Volume) -> Volume:
    """The largest piece of a mask (26 neighbours)."""
    pieces, sizes = _pieces(mask)
    return Volume(pieces == 1 + int(np.argmax(sizes)), mask.geometry) if len(sizes) else mask


def oracle(mask: Volume, truth: Volume) -> Volume:
    """The paper's code's choice: the first piece, from the largest down, whose DSC with the *truth* is above 0.5; where none is, the best.

    It looks at what it is judged by. *Differs:* their code tries pairs of pieces too, for seminal vesicles alone.
    """
    pieces, sizes = _pieces(mask)
    tried: list[tuple[float, Volume]] = []
    for number in np.argsort(-sizes, kind="stable") + 1:
        one = Volume(pieces == number, mask.geometry)
        tried.append((dsc(truth, one), one))
        if tried[-1][0] > OVERLAP_ENOUGH:
            return one
    return max(tried, key=lambda one: one[0])[1] if tried else mask


def _pieces(mask: Volume) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(each voxel's piece, from 1; the pieces' sizes)."""
    pieces, count = ndimage.label(mask.binary().array, np.ones((3, 3, 3)))
    return pieces, np.bincount(pieces.ravel(), minlength=count + 1)[1:]


# ---- kept judgements


def _as_json(found: Judged) -> str:
    return json.dumps({what: [asdict(row) for row in getattr(found, what)] for what in ("rows", "fields", "failures")}) + "\n"


def _add(found: Judged, path: Path) -> None:
    held = json.loads(path.read_text(encoding="utf-8"))
    found.rows += [Row(**row) for row in held["rows"]]
    found.fields += [FieldRow(**row) for row in held["fields"]]
    found.failures += [Failure(**row) for row in held["failures"]]
