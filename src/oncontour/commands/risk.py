"""``oncontour risk``: a patient with dose and contours becomes probabilities, the published models beside them, and a map."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from oncontour.core.notes import all_anonymous
from oncontour.errors import ConfigError, ModelError
from oncontour.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncontour.core.case import Case
    from oncontour.risk.predict import RiskPredictor

RECORD, MAP, DVH = "risk.json", "risk.png", "dvh.png"
FILES = (RECORD, MAP, DVH)
SCHEMA = "oncontour-risk-1"


@dataclass(frozen=True, eq=False)
class Found:
    """The case with its ``risk``, and the files that were written."""

    case: Case
    files: tuple[Path, ...] = field(default=())

    def __str__(self) -> str:
        from oncontour.report.risk import text

        where = f"\n\n{', '.join(path.name for path in self.files)} in {self.files[0].parent}" if self.files else ""
        return text(self.case) + where


def risk(
    patient: Path,
    *,
    model: str,
    out: Path | None = None,
    facts: dict[str, bool | float | str] | None = None,
    dose: list[str] | None = None,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Found:
    """The risk of a toxicity from a plan: probability with the spread of the model's members, and the published models beside it.

    The folder holds a CT, an RTSTRUCT and an RTDOSE; folders of NIfTI files and OpenKBP patients are read too. With --out also risk.json,
    the map of where the risk comes from (log odds a Gy, over CT and dose), and the organ's DVH. There is no model by default: one that
    learned from simulated outcomes says so above every number.

    Examples:
        oncontour risk DICOM_FOLDER --model runs/risk/model.safetensors
        oncontour risk DICOM_FOLDER --model runs/risk/model.safetensors --out OUT --facts '{"chemo": 1, "age": 64}'

    Args:
        patient: folder with images, structures and dose
        model: path of a risk model, made by 'oncontour train risk'
        out: folder to make for risk.json, risk.png and dvh.png
        facts: of the patient: numbers by the names that the model was trained with (one that is not given counts as average), and what
            published models ask for: baseline_xerostomia, baseline_dysphagia_grade, site
        dose: SOPInstanceUID or file of the RTDOSE that is meant, where there are several
        series_uid: SeriesInstanceUID of the images, where the folder holds several
        structure_set_uid: SOPInstanceUID of the RTSTRUCT or SEG, where the folder holds several
        same_frame: take structures that name another frame of reference than the images, where an export rewrote the UIDs: PatientID and
            every plane must agree with the images, and it is recorded
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    from oncontour.io import read
    from oncontour.result import check_out

    if out is not None:
        check_out(out, [patient], FILES, overwrite=overwrite, of="the patient")
    predictor = load(model, facts or {})
    case = read(patient, series_uid=series_uid, structure_set_uid=structure_set_uid, same_frame=same_frame, doses=dose or ())
    case = replace(case, facts={**case.facts, **(facts or {})})
    notes = all_anonymous(case.facts.get("notes", ()), patient, getattr(case.source, "patient", {}))
    found = Found(_remarked(predictor.predict(case, progress), notes))
    return found if out is None else write(found, out, overwrite=overwrite)


def _remarked(case: Case, notes: Sequence[str]) -> Case:
    """``case`` with what was remarked on reading it before the notes on its risk."""
    from oncontour.report.risk import predicted

    told = predicted(case)
    return replace(case, risk=replace(told, notes=(*map(str, notes), *told.notes)))


def load(model: str | Path, facts: Mapping[str, bool | float | str] = MappingProxyType({})) -> RiskPredictor:
    """The risk model in a file, ready to predict. Raises ModelError where it is made for something else, ConfigError for ``facts`` of the
    patient that it cannot use (``check_facts``)."""
    from oncontour.learn.card import find, read_card
    from oncontour.learn.task import load_task
    from oncontour.risk.predict import RiskPredictor
    from oncontour.risk.task import RiskTask

    path = find(model, "risk")
    made_to, task = read_card(path).task, None
    if made_to == RiskTask.name:
        task = load_task(path)
    if not isinstance(task, RiskTask):
        raise ModelError(
            f"this model is made to {made_to}, not to tell a risk", where=str(path), hint="give one from 'oncontour train risk'"
        )
    check_facts(facts, task.settings.facts, str(model))
    return RiskPredictor(task)


def check_facts(given: Mapping[str, bool | float | str], known: Sequence[str], model: str) -> None:
    """Raise ConfigError for a fact that neither the model nor a published one asks for (a misspelt one would count as average unseen), for
    one of the model's own that is no number (NaN is one that is not known), and for one that a published model asks for with a value that
    it does not know.
    """
    from oncontour.dose.ntcp import asked_facts, fact_key

    asked = asked_facts()
    strange = [name for name in given if name not in known and name not in asked]
    if strange:
        told = f"it learned with {', '.join(known)}" if known else "it learned without any"
        raise ConfigError(f"the model knows no fact {', '.join(strange)}: {told}", where=model, hint="mend or leave out --facts")
    for name, value in given.items():
        if name in known and (isinstance(value, str) or math.isinf(value)):
            raise ConfigError(f"{name} is a number to this model, not {value!r}", where=model, hint="mend or leave out --facts")
        if name not in known and fact_key(value) not in asked[name]:
            raise ConfigError(f"{name} is one of {', '.join(asked[name])}, not {value!r}", where=model, hint="mend or leave out --facts")


def record(case: Case) -> dict[str, object]:
    """The risk for programs, titled as simulated where it is, and who computed it; without maps and the patient's name."""
    from oncontour.learn.engine import computed_with
    from oncontour.report.risk import headline, predicted

    found = predicted(case)
    return {
        "schema": SCHEMA,
        "title": headline(found),
        "model": found.model,
        "sha256": found.sha256,
        "simulated": found.simulated,
        "structure": found.structure,
        "toxicities": {name: asdict(one) for name, one in found.toxicities.items()},
        "reference": {name: asdict(one) for name, one in found.reference.items()},
        "structures": {found.structure: dict(found.figures)},
        "features": dict(found.features),
        "notes": list(found.notes),
        **computed_with("torch", None),
    }


def write(found: Found, out: Path, *, overwrite: bool = False) -> Found:
    """Write FILES into folder ``out``, which appears whole or not at all.

    Raises OutputError where ``out`` holds other things, or an earlier result that ``overwrite`` does not give up.
    """
    from oncontour.dose.dvh import dvh
    from oncontour.files import write_text, writing
    from oncontour.report.dvh import draw as draw_dvh
    from oncontour.report.risk import draw, headline, predicted
    from oncontour.result import result_folder

    case, told = found.case, predicted(found.case)
    name = told.structure
    with result_folder(out, FILES, overwrite=overwrite) as folder:
        write_text(folder / RECORD, json.dumps(record(case), indent=1, allow_nan=False) + "\n")
        curves = {name: dvh(case.images["dose"], case.mask(name), name=name)}
        for path, figure in ((folder / MAP, draw(case)), (folder / DVH, draw_dvh(curves, title=headline(told)))):
            with writing(path) as temporary:
                figure.savefig(temporary, format="png", dpi=130)
    return replace(found, files=tuple(out / file for file in FILES))
