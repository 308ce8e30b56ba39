"""Anybody's contours judged without a truth: ``oncontour assess``; the bound redone on a clinic's own patients: ``oncontour calibrate``.

read (io) -> score (quality.score) -> scores.csv, report.html, report.json, all three or nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from oncontour import report, result
from oncontour.core.case import Case
from oncontour.core.notes import grouped
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError, OutputError, did_you_mean
from oncontour.files import check_writable
from oncontour.progress import Progress
from oncontour.quality import score as scoring
from oncontour.result import PAGE, RECORD, SCORES

if TYPE_CHECKING:
    from oncontour.contour.predict import Contours
    from oncontour.quality.calibrate import Observed
    from oncontour.quality.predict import Assessor

DEFAULT_CONTOURER = "hn-organs"
FILES = (SCORES, PAGE, RECORD)


@dataclass(frozen=True, eq=False)
class Assessment:
    """What an assessment gave: the case with ``scores["assess"]``, what ``report.json`` holds, and where it lies."""

    case: Case
    record: Mapping[str, Any]
    out: Path

    def __str__(self) -> str:
        of_models = [f"warning: {text}" for text in result.model_notes(self.record["models"])]
        return "\n".join([*of_models, *report.summary(self.case), f"{', '.join(self.record['files'])} and {RECORD} in {self.out}"])


def assess(
    ct: Path,
    contours: Path,
    *,
    out: Path,
    model: str | None = None,
    structures: list[str] | None = None,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Assessment:
    """How right is each slice of these contours? Predicted without a truth, for anybody's contours.

    OUT gets report.html (flagged slices first), scores.csv (structure, slice, z, DSC, lower bound, class, findings) and report.json.
    A structure that the model does not know, a CT of another part of the body, or an image unlike those it learned from is not scored,
    and the report says why; the rule checks are made all the same. The shipped model asks hn-organs for a second opinion; what hn-organs
    drew itself is judged without. Slices beyond a structure's ends are looked at for a few
    slices only: what was forgotten farther out, nothing here can see.

    Examples:
        oncontour assess CT_FOLDER RTSTRUCT --out OUT
        oncontour assess CT_FOLDER MASKS_FOLDER --out OUT --structures Parotid_L,Parotid_R --overwrite
        oncontour assess CT_FOLDER RTSTRUCT --out OUT --model our-quality.safetensors

    Args:
        ct: folder with a CT series (DICOM), or a folder or file in NIfTI, NRRD or MetaImage
        contours: RTSTRUCT or SEG of this CT, a folder with one, or a folder of masks on its grid
        out: folder to make
        model: name of a shipped quality model or path of a model file; hn-quality-opinion by default
        structures: only these of the contours (TG-263 names, separated by commas)
        series_uid: SeriesInstanceUID of the CT, where the folder holds several
        structure_set_uid: SOPInstanceUID of the RTSTRUCT or SEG, where the folder of the contours holds several
        same_frame: take structures that name another frame of reference than the images, where an export rewrote the UIDs: PatientID and
            every plane must agree with the images, and it is recorded
        backend: what computes the net
        threads: CPU threads for the net; all by default
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    clock = result.Clock()
    result.check_out(out, (ct, contours), FILES, overwrite=overwrite, of="what it is made from")
    assessor = scoring.load(model, first=scoring.OPINION_MODEL, backend=backend, threads=threads)
    with clock("read"):
        case = pick(read(ct, contours, series_uid, structure_set_uid, same_frame), structures)
    with clock("assess"):
        scored, models = scoring.score(case, assessor, progress)
    rows = report.rows(scored)
    notes = [result.anonymous(result.anonymous(note, ct, scored), contours, scored) for note in scored.facts.get("notes", ())]
    settings = {"structures": structures, "backend": backend, "threads": threads, "same_frame": same_frame}
    record = result.record(scored, rows, models, settings, notes)
    with result.result_folder(out, FILES, overwrite=overwrite) as folder:
        result.finish(folder, record, scored, rows, [report.write_scores(scored, folder / SCORES)], clock)
    return Assessment(scored, record, out)


def read(ct: Path, contours: Path, series_uid: str | None = None, structure_set_uid: str | None = None, same_frame: bool = False) -> Case:
    """The CT with the contours at the other path; other structures and doses beside the CT do not matter.

    Raises InputError where either is missing, GeometryError for masks on another grid, and what ``read_onto`` raises.
    """
    from oncontour.io import read as read_case
    from oncontour.io.dicom.patient import read_onto

    case = read_case(ct, series_uid=series_uid, lenient=True)
    if not case.images:
        raise InputError("there is no image here, only contours", where=str(ct), hint="give the folder of a CT series first")
    drawn = read_onto(contours, case, structure_set_uid=structure_set_uid, same_frame=same_frame)
    if not drawn.structures:
        raise InputError("there are no contours to assess", where=str(contours), hint="give an RTSTRUCT or a folder of masks")
    bare = case.without_structures()
    notes = tuple(dict.fromkeys((*case.facts.get("notes", ()), *drawn.facts.get("notes", ()))))
    bare = replace(bare, facts={**bare.facts, **drawn.facts, "notes": notes})
    return bare.with_masks(dict(drawn.masks)).with_contours(dict(drawn.contours)) if drawn.masks else bare.with_contours(drawn.contours)


def pick(case: Case, structures: Sequence[str] | None) -> Case:
    """The case with these structures alone. Raises ConfigError for one that it does not have."""
    if structures is None:
        return case
    missing = [name for name in structures if name not in case.structures]
    if missing:
        there = list(case.structures)
        hint = f"{did_you_mean(missing[0], there)}choose among {', '.join(there)}"
        raise ConfigError(f"there is no contour of {', '.join(missing)}", hint=hint)
    return replace(
        case,
        masks={name: case.masks[name] for name in structures if name in case.masks},
        contours={name: case.contours[name] for name in structures if name in case.contours},
    )


# ---- a clinic's own patients


def calibrate(
    model: str,
    cohort: Path,
    *,
    out: Path,
    claims: list[Path] | None = None,
    contourer: list[str] | None = None,
    coverage: float = 0.9,
    method: Literal["hierarchical", "pooled"] = "hierarchical",
    by: Literal["all", "structure"] = "all",
    name: str | None = None,
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Redo a quality model's lower bound and its gate on a clinic's own patients, and write the model anew.

    COHORT holds patients with a CT and contours that somebody has reviewed: the truth. The contours in question come from --claims
    (a folder with one folder of patients a segmenter: what was drawn before the review) or are drawn now by --contourer (the shipped
    hn-organs where neither is given). The patients must be new to both models. A few dozen are needed: 9 at the very least
    for 90 %, and with 45 the bound is at most 2 % more careful than stated. The net's weights stay as they are.

    Examples:
        oncontour calibrate hn-quality COHORT --out our-quality.safetensors
        oncontour calibrate our.safetensors COHORT --claims CLAIMS --out our-quality.safetensors --coverage 0.95 --by structure

    Args:
        model: name of a shipped quality model or path of a model file
        cohort: folder (or CSV) of patients with a CT and reviewed contours
        out: model file to write; one that is there is never replaced
        claims: folder of segmenters' contours, SOURCE/PATIENT/masks/NAME.nii.gz or RTSTRUCT; again for several. A model that knows how sure
            a drawer was needs them drawn with `oncontour predict --chances`
        contourer: contour model that draws what is in question; again for several
        coverage: part of slices, averaged over patients, for which the bound shall hold
        method: hierarchical holds its promise with few patients; pooled is right on average only
        by: one offset for all structures, or one for each
        name: of the new model; the old one with "-calibrated" by default
        backend: what computes the nets
        threads: CPU threads for the nets
        progress: called with the fraction done
    """
    from oncontour.io.cohort import Cohort
    from oncontour.learn.card import notes as notes_of
    from oncontour.learn.task import save_model
    from oncontour.quality.calibrate import recalibrated
    from oncontour.quality.predict import load_assessor

    if not 0 < coverage < 1:
        raise ConfigError(f"a coverage lies between 0 and 1, not at {coverage}")
    if out.suffix != ".safetensors":
        raise ConfigError(f"a model file ends in .safetensors, not in {out.suffix!r}", where=str(out))
    if out.exists():
        raise OutputError("there is a model already", where=str(out), hint="choose another --out, or take that one away")
    check_writable(out.parent)
    assessor = load_assessor(model, backend=backend, threads=threads)
    patients = Cohort.open(cohort)
    asker = assessor.asker
    for who, one in (("the model", assessor.card), ("the model that it asks for an opinion", asker and asker.card)):
        seen = set(one.made.get("trained_on", ()) if one else ()) & set(patients.ids)
        if seen:
            raise InputError(f"{who} learned from {len(seen)} of these patients ({', '.join(sorted(seen)[:3])})", where=str(cohort))
    observed, notes = observe_cohort(assessor, patients, claims or [], contourer or ([] if claims else [DEFAULT_CONTOURER]), progress)
    notes = [*notes_of(assessor.card), *scoring.asker_notes(assessor), *notes]
    data = f"{len({s.patient for s in observed.scored()})} patients of one clinic"
    card, told = recalibrated(assessor, observed, coverage=coverage, method=method, by=by, data=data)
    card = save_model(assessor.task, out, replace(card, name=name or f"{card.name}-calibrated"))
    return "\n".join([*notes, *_calibration_words(card.made["calibration"], told, observed), f"written: {out}"])


def _check_strangers(assessor: Assessor, drawers: Mapping[str, Contours]) -> None:
    """Raise ConfigError where a model that takes a second opinion would be calibrated on what the asked model draws itself."""
    if assessor.asker is None:
        return
    asked = assessor.asker.card
    own = [name for name, drawer in drawers.items() if drawer.card.sha256 == asked.sha256]
    if own:
        raise ConfigError(
            f"{assessor.card.name} asks {asked.name} for a second opinion, and judges what others drew",
            where=own[0],
            hint="give what was drawn elsewhere as --claims, another --contourer, or calibrate "
            + f"{scoring.without_opinion(assessor)}, which takes no opinion",
        )


def observe_cohort(
    assessor: Assessor,
    patients: Any,
    claims: Sequence[Path],
    contourers: Sequence[str],
    progress: Progress | None = None,
) -> tuple[Observed, list[str]]:
    """What the model says of the claims about every patient of a cohort, a line for every patient left out, and what was remarked on
    reading the others."""
    from oncontour.contour.predict import Contourer, keeping_chances, load_contourer
    from oncontour.errors import OncontourError
    from oncontour.quality.calibrate import Observed, check_scored, observe
    from oncontour.quality.segmenters import chances_about, claims_about, sources

    segmenters = sources(claims)
    own = assessor.task.settings.own
    drawers = {name: keeping_chances(load_contourer(name), own) for name in contourers}
    _check_strangers(assessor, drawers)
    observed, notes, remarks = Observed(), list[str](), dict[str, tuple[str, ...]]()
    for n, id in enumerate(patients.ids):
        try:
            case = patients[id]
            check_scored(assessor, case)
            said = list(case.facts.get("notes", ()))
            found: dict[str, Mapping[str, Volume]] = claims_about(case, segmenters, said)
            chances = chances_about(case, segmenters, said) if own else {}
            remarks[id] = tuple(said)
            for name, drawer in drawers.items():
                drawn = drawer.predict(case.without_structures())
                found[Path(name).stem], chances[Path(name).stem] = drawn.masks, drawn.scores.get("chances", {})
            observe(assessor, case, found, observed, chances, as_predict=True)
        except OncontourError as error:
            notes.append(f"{id} was left out: {error}")
        if progress is not None:
            progress((n + 1) / len(patients))
    notes += [f"{id}: what {source} drew was left out: the model that is asked for an opinion drew it" for id, source in observed.own_work]
    if not observed.scored():
        silent = own and any(not isinstance(drawer, Contourer) for drawer in drawers.values())
        hint = _way_out(own and bool(claims), silent)
        raise InputError("no slice with both a contour in question and a truth", hint="; ".join(notes[:3]) or hint)
    return observed, [*notes, *grouped(remarks)]


def _way_out(claimed: bool, silent: bool) -> str:
    """What helps where nothing could be observed of claims that need chances, or of drawers that give none."""
    if claimed:
        return "draw the claims with oncontour predict --chances"
    if silent:
        return "other people's models do not say how sure they were: calibrate a model that need not know, as hn-quality-opinion"
    return "check names of structures"


def _calibration_words(made: Mapping[str, Any], told: Mapping[str, Any], observed: Observed) -> list[str]:
    lines = [
        f"{made['patients']} patients, {made['slices']} slices; {observed.both_empty} slices where neither contour is were left out",
        f"bound for {made['coverage']:.0%} of slices, {made['method']}: "
        + ", ".join(f"{name} {-value:+.3f}" for name, value in made["offsets"].items()),
    ]
    if told["before"] is not None:
        lines.append(f"the bound as it was held for {told['before'].mean:.1%} of these slices")
    return lines + [f"gate, {name}: {what}" for name, what in told["gate"].items()]
