"""``oncontour simulate visits``: a cohort of repeat visits whose deformation is known, because it was made up (``adapt.simulate``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from oncontour.adapt.inputs import TRUTH, write_displacement
from oncontour.adapt.simulate import TITLE, Family, Planning, SimulatedVisit, VisitSettings
from oncontour.core.notes import counted
from oncontour.errors import CohortError, ConfigError, OncontourError
from oncontour.files import write_text
from oncontour.io.cohort import Cohort
from oncontour.io.image.layout import write_layout
from oncontour.progress import Progress
from oncontour.result import check_out, result_folder

README, RECORD = "README.md", "simulation.json"
MOST_VISITS = 100
_WORDS = """# {title}

These are SIMULATED visits; nothing measured on them is a figure of patients.

- `PATIENT/visit-0`: the planning visit, as it was given: CT, structures, dose where there is one.
- `PATIENT/visit-1`, ...: daily visits, simulated. `ct.nii.gz`: the planning CT deformed, with noise, blur, gain and offset of its own;
  where the planning CT was known in a region alone, masked by that region unmoved. `masks`: the structures as a second observer draws
  them, {observer} mm (SD) about the true ones.
- `deformation.npz`: `displacement` (3, k, j, i): u in mm, x, y and z in LPS, on a grid placed by `affine` (4 x 4, voxel k, j, i to LPS
  mm). A point x of the daily visit lies at x + u(x) in the planning visit. The true structures of the day are the planning ones carried by
  it; contours carried by the true field are perfect by construction.
- `simulation.json`: what was drawn, visit by visit.

Motion: family "{family}" at {amplitude} times what is published of patients; seed {seed}.
"""


@dataclass(frozen=True)
class _Row:
    """What is told of a visit."""

    patient: str
    visit: int
    mean_mm: float
    p95_mm: float
    least_jacobian: float
    course: float
    eased_percent: float

    @classmethod
    def of(cls, patient: str, number: int, visit: SimulatedVisit) -> _Row:
        mean, p95 = visit.displacement_mm
        return cls(patient, number, mean, p95, visit.least_jacobian, visit.course, visit.eased)


def visits(
    cohort: Path,
    *,
    out: Path,
    visits: int = 3,
    amplitude: float = 0.8,
    family: Family = "course",
    observer_mm: float = 1.5,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Simulated repeat visits: each patient's planning CT deformed as heads and necks are from day to day, by a field that is known.

    OUT gets a folder a patient with visit-0 (as it was given) and visit-1, visit-2, ... (simulated: CT, structures as a second observer
    draws them, and the true displacement in deformation.npz), README.md and simulation.json. 'oncontour train adapt' takes it like a cohort
    of real repeat visits. The same cohort and seed give the same visits, whoever else is in the cohort.

    Nothing measured on simulated visits is a figure of patients.

    Examples:
        oncontour simulate visits COHORT --out OUT
        oncontour simulate visits COHORT --out OUT --visits 1 --amplitude 1.2 --seed 7
        oncontour simulate visits COHORT --out OUT --family unseen

    Args:
        cohort: folder (or CSV) of patients with a CT and structures
        out: folder to make
        visits: simulated of each patient
        amplitude: times the motion published of patients; 0.5 to 1.2 is usual, 1.2 is hard
        family: "course": neck, jaw, parotids, skin and noise of a course of treatment; "unseen": random B-splines, a swallow and shoulders
        observer_mm: SD of a second observer's contours about the true ones; 0 for the true ones
        seed: everything random follows from it
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    settings = VisitSettings(amplitude, family, observer_mm)
    if not 1 <= visits <= MOST_VISITS or seed < 0:
        raise ConfigError(f"visits is 1 to {MOST_VISITS} and seed 0 or more, not {visits} and {seed}")
    patients = Cohort.open(cohort)
    names = (README, RECORD, *patients.ids)
    check_out(out, [cohort], names, overwrite=overwrite, of="the cohort")
    notes: list[str] = []
    with result_folder(out, names, overwrite=overwrite) as folder:
        rows = list(_written(patients, folder, visits, settings, seed, notes, progress))
        if not rows:
            raise CohortError(f"no patient can be visited ({'; '.join(notes[:3])})", where=str(cohort), hint="give patients with contours")
        words = {"title": TITLE, "observer": observer_mm, "family": family, "amplitude": amplitude, "seed": seed}
        write_text(folder / README, _WORDS.format(**words))
        record = {"simulated": True, "title": TITLE, "settings": asdict(settings), "seed": seed, "visits": [asdict(row) for row in rows]}
        write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return "\n".join([TITLE.upper(), "", *_summary(rows), *(f"note: {note}" for note in notes), "", f"{README}, {RECORD} in {out}"])


def _written(
    patients: Cohort, folder: Path, count: int, settings: VisitSettings, seed: int, notes: list[str], progress: Progress | None
) -> Iterator[_Row]:
    """What is told of each visit, once it is written; ``notes`` get a sentence on each patient who was left out."""
    for n, id in enumerate(patients.ids):
        try:
            case = patients[id]
            planning = Planning(case)
        except OncontourError as error:
            notes.append(f"{id} was left out: {error.what}")
            continue
        place = folder / id
        write_layout(case, place / "visit-0")
        for number in range(1, count + 1):
            visit = planning.visit(number, settings, seed)
            write_layout(visit.case, place / f"visit-{number}")
            write_displacement(visit.deformation, place / f"visit-{number}" / TRUTH)
            yield _Row.of(id, number, visit)
        if progress is not None:
            progress((n + 1) / len(patients))


def _summary(rows: Sequence[_Row]) -> list[str]:
    mean, p95 = (float(np.mean([getattr(row, name) for row in rows])) for name in ("mean_mm", "p95_mm"))
    least = min(row.least_jacobian for row in rows)
    return [
        f"{counted(len(rows), 'visit')} of {counted(len({row.patient for row in rows}), 'patient')}",
        f"displacement {mean:.1f} mm in the mean, {p95:.1f} mm at the 95th percentile; least Jacobian determinant {least:.2f}",
    ]
