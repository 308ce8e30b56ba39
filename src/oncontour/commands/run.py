"""The main job: a CT folder becomes contours, judged slice by slice, a report for people and one for programs, all or nothing.

read (io) -> choose models -> predict (contour) -> score (quality.score) -> dose and risk, where they are (dvh, risk)
    -> write RTSTRUCT (io), scores.csv, report.html, report.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from oncontour import report
from oncontour.core.case import Case
from oncontour.core.notes import DOSE_DOUBTS, NoteCode, about, except_about
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, GeometryError, InputError, ModelError, OncontourError, OutputError, did_you_mean
from oncontour.learn.card import card_words
from oncontour.learn.card import notes as card_notes
from oncontour.libraries import is_out_of_memory, why
from oncontour.ops.tidy import Tidy
from oncontour.progress import Progress
from oncontour.quality import score as scoring
from oncontour.result import MASKS, PAGE, RECORD, SCORES, Clock, anonymous, check_out, finish, pseudonym, record, result_folder

if TYPE_CHECKING:
    from oncontour.commands.dvh import Plan

RTSTRUCT = "rtstruct.dcm"
"""Name inside a result folder."""
FILES = (RTSTRUCT, MASKS, SCORES, PAGE, RECORD)

DEFAULT_MODELS: dict[str, str] = {"head_neck": "hn-organs"}
"""Region of the body (``ops.body.region``) -> the shipped model that is used without being asked for."""
WORST = 5
"""Places to look at that are told on the screen."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gave: the case with its masks and scores, a row a structure, what ``report.json`` holds, where it all lies, and what the
    plan gives to the structures, where there is a dose."""

    case: Case
    rows: list[report.Row]
    record: Mapping[str, Any]
    out: Path
    plan: Plan | None = None

    def __str__(self) -> str:
        blocks = [*(self.record[key] for key in ("banner", "about") if self.record.get(key)), report.table(self.rows)]
        if "assess" in self.case.scores:
            blocks.append("\n".join(report.worst(self.case, WORST)))
        if self.plan is not None:
            blocks.append(str(self.plan))
        if "risk" in self.case.scores:
            from oncontour.report.risk import text

            blocks.append(text(self.case))
        warnings = [f"warning: {text}" for text in self.record["warnings"]]
        blocks.append("\n".join([*warnings, f"{', '.join(self.record['files'])} and {RECORD} in {self.out}"]))
        return "\n\n".join(blocks)


def run(
    ct_folder: Path,
    *,
    out: Path,
    model: list[str] | None = None,
    structures: list[str] | None = None,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    truth: Path | None = None,
    add_to: Path | None = None,
    assess: bool = True,
    quality: str | None = None,
    risk: str | None = None,
    facts: dict[str, bool | float | str] | None = None,
    dose: list[str] | None = None,
    unit: Literal["Gy", "cGy"] = "Gy",
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    tidy: Tidy = Tidy(),  # noqa: B008  (frozen: one value for all calls; its fields become --tidy.NAME)
    any_region: bool = False,
    trust: bool = False,
    about: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Contour a CT and say where to look: an RTSTRUCT, report.html, scores.csv and report.json in a new folder.

    The CT folder may be messy: other series, localizers and stray files are left aside and named in the report. Without --model the
    shipped model for the region of the body is used. Every slice of every contour is then assessed: by the shipped quality model or
    --quality, or by the rules alone where there is none; --assess false leaves it out. With an RTDOSE of this CT in the folder there are
    DVHs too, and the risk by --risk MODEL; without a dose that can be used there are contours all the same, and a sentence why.

    OUT appears whole at the end or not at all; a folder that is there stays as it is unless --overwrite is given, and even then until
    the new one is complete. No result holds the patient's name or birth date except the RTSTRUCT, which must.

    Examples:
        oncontour run CT_FOLDER --out OUT
        oncontour run CT_FOLDER --out OUT --structures Parotid_L,Parotid_R
        oncontour run CT_FOLDER --out OUT --model hn-organs --model my-target.safetensors
        oncontour run CT_FOLDER --out OUT --truth RTSTRUCT_FOLDER --overwrite
        oncontour run CT_FOLDER --out OUT --quality our-quality.safetensors --risk our-risk.safetensors --facts '{"age": 64}'

    Args:
        ct_folder: folder with a CT series (DICOM), or a folder or file in NIfTI, NRRD or MetaImage
        out: folder to make, not within the CT folder
        model: name of a shipped model, path of a model file, or an nnU-Net v2 folder, MONAI bundle or ONNX file; again for several
        structures: only these of the models' structures (TG-263 names, separated by commas)
        series_uid: SeriesInstanceUID of the CT, where the folder holds several
        structure_set_uid: SOPInstanceUID of the RTSTRUCT or SEG with the targets that came with the CT, where the folder holds several
        same_frame: take structures (those of --truth too) that name another frame of reference than the images, where an export rewrote the
            UIDs: PatientID and every plane must agree with the images, and it is recorded
        truth: contours to compare with (a patient's folder, or an RTSTRUCT of this CT); DSC then stands in the tables
        add_to: an RTSTRUCT of this CT whose structures the new file keeps, byte for byte; the new ones come after them
        assess: how right is each slice? predicted, and looked at by rules
        quality: name of a shipped quality model or path of one; the shipped one by default
        risk: path of a risk model, made by 'oncontour train risk'; none by default
        facts: of the patient: numbers by the names that the risk model was trained with, and what published models ask for:
            baseline_xerostomia, baseline_dysphagia_grade, site
        dose: SOPInstanceUID or file of the RTDOSE that is meant, where there are several
        unit: what the numbers of the dose are; cGy where a file says Gy and holds centigray
        backend: what computes the nets
        threads: CPU threads for the nets; all by default
        tidy: what is cleaned up after the net, each switchable
        any_region: draw on a CT of another part of the body than the models were made for, which is refused otherwise; every result says it
        trust: let a TorchScript model run, which is a program; nothing else that could run code is ever loaded
        about: a sentence to be read before anything else, as "A phantom, not a patient."; on top of screen and page, and in report.json
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    if quality and not assess:
        raise ConfigError("a quality model is named, and --assess false leaves it out", hint="leave out one of the two")
    if facts and risk is None:
        raise ConfigError("facts of the patient are for a risk model, and none is named", hint="name one with --risk, or leave out --facts")
    from oncontour.contour.predict import anywhere

    clock = Clock()
    guard(out, ct_folder, overwrite, truth=truth, add_to=add_to)
    # What was mistyped is told before anything is read.
    loaded = [_load(name, {"backend": backend, "rules": tidy, "threads": threads}, trust) for name in model or []]
    _assign([list(one.card.structures) for one in loaded] or _offered_unasked(), structures)
    assessor = scoring.load(quality, backend=backend, threads=threads) if quality else None
    risk_model = None if risk is None else _load_risk(risk, facts)
    with clock("read"):
        case = _in_gy(_read(ct_folder, series_uid, dose, structure_set_uid, same_frame, of_truth=truth is not None), unit)
        known = None if truth is None else _read_truth(truth, case, same_frame)
        _check_addable(add_to, case)
    failed: list[str] = []
    with clock("choose"):
        chosen = model or [default_model(case)]
    loaded = loaded or [_load(name, {"backend": backend, "rules": tidy, "threads": threads}, trust) for name in chosen]
    banner, doubts = _region_words(case, loaded, any_region)
    if assess and assessor is None:
        judge_of = scoring.first_for(chosen, DEFAULT_MODELS.values())
        assessor = _load_shipped_assessor(failed, first=judge_of, backend=backend, threads=threads)
    settings: dict[str, Any] = {"structures": structures, "backend": backend, "threads": threads, "tidy": asdict(tidy), "assess": assess}
    settings |= {"facts": facts, "unit": unit, "any_region": any_region, "same_frame": same_frame}
    notes = _read_notes(case, ct_folder, known, truth)
    with clock("contour"):
        if not model:
            notes.append(f"{chosen[0]} was chosen because of the region that the CT shows.")
        drawn, models = contour(
            case,
            [anywhere(one, any_region) for one in loaded],
            structures,
            chances=assessor is not None and assessor.task.settings.own,
            progress=_part(progress, 0.0, 0.8 if assess else 1.0),
        )
    if assess:
        with clock("assess"):
            drawn, judges = judge(drawn, assessor, failed, _part(progress, 0.8, 1.0))
            models += judges
    dosed, figures = Dosed(drawn), {}
    if "dose" in case.images or risk_model is not None or _of_dose(case):
        with clock("dose"):
            dosed = look_at_dose(drawn, case, risk_model, facts)
            figures = draw(dosed, failed)
    if progress is not None:
        progress(1.0)
    notes += [anonymous(note, ct_folder, case) for note in _other_structures(case, drawn, dosed.plan)]
    rows = report.rows(dosed.case, truth=known)
    page = _page(dosed, case, rows, failed)
    told = record(dosed.case, rows, models, settings, notes)
    told["warnings"][:0] = [*([banner] if banner else []), *doubts]
    told |= {key: words for key, words in (("banner", banner), ("about", about)) if words}
    _complete(told, dosed, ct_folder, failed)
    told["warnings"] += [] if risk_model is None else [f"{risk_model.card().name}: {note}" for note in card_notes(risk_model.card())]
    told["warnings"] += _empty_between(dosed.case, [row.name for row in rows])
    _write(dosed.case, rows, told, out, page=page, figures=figures, add_to=add_to, overwrite=overwrite, clock=clock)
    return Result(dosed.case, rows, told, out, dosed.plan)


def guard(out: Path, source: Path, overwrite: bool, *, truth: Path | None = None, add_to: Path | None = None) -> None:
    """``check_out`` for a run's result: only what an earlier run made is ever replaced, nothing that the run reads lies in it, and it
    lies in nothing that is read: the next run would take this one's draft for the newest contours that came with the CT. Of a patient
    in image files no folder within is read but ``masks``."""
    for of, path in {"the CT": source, "the contours to compare with": truth, "the RTSTRUCT to add to": add_to}.items():
        if path is None:
            continue
        check_out(out, [path], FILES, overwrite=overwrite, of=of)
        if path.resolve() in out.resolve().parents and not _is_flat(path):
            raise OutputError(
                f"the result would lie within the folder of {of}, and be read with it the next time",
                where=str(out),
                hint="choose an --out elsewhere, beside that folder",
            )


def _read_notes(case: Case, ct_folder: Path, known: Case | None, truth: Path | None) -> list[str]:
    """What was remarked in reading the CT, and in reading the contours to compare with, without what may name the patient."""
    seen = case.facts.get("notes", ())
    notes = [anonymous(note, ct_folder, case) for note in seen]
    if truth is None or known is None:
        return notes
    more = [f"Of the contours to compare with: {note}" for note in known.facts.get("notes", ()) if note not in seen]
    return notes + [anonymous(anonymous(note, truth, case), truth, known) for note in more]


def _is_flat(path: Path) -> bool:
    """Whether ``path`` is a patient in image files, as ``io.read`` tells: what lies in other folders there is never read."""
    from oncontour.io.dicom.scan import holds_dicom
    from oncontour.io.image.layout import is_layout
    from oncontour.io.image.openkbp import is_openkbp

    return (is_layout(path) or is_openkbp(path)) and not holds_dicom(path)


def default_model(case: Case) -> str:
    """The shipped model for the region that the CT shows. Raises ModelError, naming what there is, where none fits."""
    from oncontour.learn.card import offered
    from oncontour.ops.body import in_words, region

    seen, contourers = region(case.ct), offered("contour")
    name = DEFAULT_MODELS.get(seen.name, "")
    if name in contourers:
        return name
    there, what = ", ".join(contourers) or "none", in_words(seen.name)
    raise ModelError(
        f"no shipped model is made for this CT, which shows: {what} ({'; '.join(seen.reasons)}); shipped models: {there}",
        where=f"case {pseudonym(case)}",
        hint="name a model that was made for it with --model NAME_OR_FILE, or train one with 'oncontour train contour'; "
        f"{_anyhow(contourers)}",
    )


def _anyhow(contourers: Sequence[str]) -> str:
    """How a shipped model draws on a CT that it was not made for."""
    return f"a shipped one draws all the same with both --model {contourers[0]} and --any_region" if contourers else "none is shipped"


def contour(
    case: Case,
    drawers: Sequence[Any],
    structures: Sequence[str] | None = None,
    *,
    chances: bool = False,
    progress: Progress | None = None,
) -> tuple[Case, list[dict[str, Any]]]:
    """The case with what the ``drawers`` (of ``load``) draw (and none of the contours it came with), and what is recorded of each model.

    ``scores["drawers"]`` has the hashes of those that drew. ``chances`` keeps what our own models thought before they decided, as
    ``scores["chances"]``: structure -> probability times 255. Where two models offer one structure the first has it. Raises ModelError
    for a structure that none offers, InputError for a CT of another part of the body than one of ours was made for.
    """
    from oncontour.contour.predict import keeping_chances

    wanted = _assign([list(one.card.structures) for one in drawers], structures)
    bare = scoring.without_drawers(case.without_structures())
    drawn, records = bare, list[dict[str, Any]]()
    for n, (one, names) in enumerate(zip(drawers, wanted, strict=True)):
        if not names:
            continue
        predicted = keeping_chances(one, chances).predict(bare, progress=_share(progress, n, len(drawers)))
        whole = len(names) == len(predicted.masks)
        drawn = drawn.with_masks(predicted.masks if whole else {name: predicted.masks[name] for name in names})
        if "chances" in predicted.scores:
            kept = {name: predicted.scores["chances"][name] for name in names}
            drawn = drawn.with_scores({"chances": {**drawn.scores.get("chances", {}), **kept}})
        told, done = card_words(asdict(one.card)), predicted.scores.get("contour", {})
        records.append({**told, **done, "structures": list(names), "notes": [*told["notes"], *done.get("notes", ())]})
    return drawn.with_scores({"drawers": [record["sha256"] for record in records]}), records


# ---- steps


def _read(
    folder: Path,
    series_uid: str | None,
    doses: Sequence[str] | None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    of_truth: bool = False,
) -> Case:
    """The CT with what came with it. ``of_truth``: ``same_frame`` may be meant for a truth, and what came with the CT need not fit it."""
    from oncontour.io import read

    case = read(
        folder,
        series_uid=series_uid,
        structure_set_uid=structure_set_uid,
        same_frame=same_frame,
        doses=doses or (),
        lenient=True,
        insist=not of_truth,
    )
    if "ct" not in case.images:
        raise InputError(
            f"no CT is here, only {', '.join(case.images) or 'contours'}", where=str(folder), hint="give the folder of a CT series"
        )
    if min(case.ct.geometry.shape) < 2:
        raise InputError("CT of 1 slice", where=str(folder), hint="a volume needs 2 or more")
    return case


def _in_gy(case: Case, unit: str) -> Case:
    """The case with its dose in Gy, where the numbers are told to be centigray."""
    if unit == "Gy" or "dose" not in case.images:
        return case
    notes = tuple(except_about(case.facts.get("notes", ()), NoteCode.DOSE_MAY_BE_CENTIGRAY))
    return replace(case.with_images({"dose": case.images["dose"].map(lambda gy: gy / 100)}), facts={**case.facts, "notes": notes})


def _read_truth(path: Path, case: Case, same_frame: bool) -> Case:
    from oncontour.io.dicom.patient import read_onto

    known = read_onto(path, case, same_frame=same_frame)
    if not known.structures:
        raise InputError(
            "there are no contours to compare with", where=str(path), hint="give a folder with masks or an RTSTRUCT as --truth"
        )
    for name in known.masks:
        try:
            known.own_mask(name, case.geometry)
        except GeometryError as error:
            raise GeometryError(error.what, where=str(path), hint=error.hint) from error
    return known


def _check_addable(add_to: Path | None, case: Case) -> None:
    """Refuse, before any contour is drawn, an RTSTRUCT that the new structures cannot be added to."""
    from oncontour.io.dicom.rtstruct import check_addable

    if add_to is None:
        return
    if case.source is None:
        raise ConfigError("there is no RTSTRUCT to write where the CT is no DICOM", where=str(add_to), hint="leave out --add_to")
    check_addable(add_to, case.source)


def _load(name: str, settings: Mapping[str, Any], trust: bool) -> Any:
    """Our own model (a file or a shipped name) or somebody else's; only ``trust`` lets one run that is a program.

    A ``contour.predict.Contours``; not named as a type, as the command line would import torch to look it up.
    """
    from oncontour.contour.predict import load_contourer

    if trust:
        from oncontour.contour.external.load import is_foreign, load_foreign

        if is_foreign(name):
            return load_foreign(name, trust=True, **settings)
    return load_contourer(name, **settings)


def _offered_unasked() -> list[list[str]]:
    """What the models draw that may be chosen for a CT."""
    from oncontour.learn.card import offered, read_card, shipped

    return [list(read_card(shipped()[name]).structures) for name in DEFAULT_MODELS.values() if name in offered("contour")]


def _region_words(case: Case, drawers: Sequence[Any], any_region: bool) -> tuple[str, list[str]]:
    """(what the page says first where a model draws on another part of the body than it was made for, "" where none does; doubts). Raises
    InputError for such a model without ``any_region``, before any has drawn."""
    from oncontour.ops.body import check_shown, in_words, region, region_of

    cards = [one.card for one in drawers if region_of(one.card.region)]
    if not any_region:
        for card in cards:
            check_shown(case.ct, card.region, card.name)
    seen = region(case.ct) if cards else None
    strangers = [card for card in cards if seen is not None and seen.excludes(region_of(card.region))]
    if seen is not None and strangers:
        models = " and ".join(f"{card.name} is for {card.region}" for card in strangers)
        return f"Drawn on a CT that the model was not made for: it shows {in_words(seen.name)}, and {models}.", []
    if seen is not None and seen.name == "unknown":
        models = " and ".join(f"{card.name} is for {card.region}" for card in cards)
        return "", [f"Which part of the body the CT shows cannot be told ({seen.reasons[0]}); {models}."]
    return "", []


def _assign(offered: Sequence[Sequence[str]], wanted: Sequence[str] | None) -> list[list[str]]:
    """Which structures each model draws."""
    every = list(dict.fromkeys(name for names in offered for name in names))
    missing = [name for name in wanted or () if name not in every]
    if missing:
        raise ConfigError(
            f"no model draws {', '.join(name or repr(name) for name in missing)}",
            hint=f"{did_you_mean(missing[0], every)}choose among {', '.join(every)}",
        )
    left = [name for name in every if wanted is None or name in wanted]
    out = []
    for names in offered:
        mine = [name for name in names if name in left]
        left = [name for name in left if name not in mine]
        out.append(mine)
    return out


def _share(progress: Progress | None, n: int, of: int) -> Progress | None:
    return _part(progress, n / of, (n + 1) / of)


def _part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """What tells ``progress`` of a step that is its part from ``begin`` to ``end``."""
    return None if progress is None else lambda fraction: progress(begin + (end - begin) * fraction)


def _other_structures(case: Case, drawn: Case, plan: Plan | None) -> list[str]:
    """What became of contours that came with the CT: targets that nobody drew anew stand in the DVH, where there is one."""
    targets = _given(case, drawn, plan)
    others = [name for name in case.structures if name not in targets]
    said = [f"Contours that came with the CT were left aside: {', '.join(others)}."] if others else []
    return said + ([f"Targets that came with the CT stand in the DVH as they were drawn: {', '.join(targets)}."] if targets else [])


def _given(case: Case, drawn: Case, plan: Plan | None) -> list[str]:
    """Targets that came with the CT, that nobody drew anew, and that the dose was looked at in."""
    return [] if plan is None else [name for name in _targets(case, drawn) if name in plan.dvhs]


def _targets(case: Case, drawn: Case) -> list[str]:
    """Targets that came with the CT and that nobody drew anew."""
    from oncontour.core.structure_kinds import is_target

    return [name for name in case.structures if is_target(name) and name not in drawn.structures]


# ---- quality


def _load_shipped_assessor(failed: list[str], *, first: str, backend: Literal["auto", "torch", "openvino"], threads: int | None) -> Any:
    """The shipped quality model; where it cannot be used the rules look alone, and ``failed`` gets why."""
    try:
        return scoring.load(first=first, backend=backend, threads=threads)
    except Exception as error:
        failed.append(_because("The shipped quality model could not be used, only the rules have looked", error))
        return None


def judge(drawn: Case, assessor: Any, failed: list[str], progress: Progress | None = None) -> tuple[Case, list[dict[str, Any]]]:
    """As ``quality.score.score``; contours that could not be judged, for whatever reason, are there all the same, and ``failed`` gets why.

    What a quality model cannot do the rules do alone.
    """
    bare = scoring.without_drawers(drawn)
    try:
        return scoring.score(drawn, assessor, progress)
    except Exception as error:
        failed.append(_because("No slice was judged by the quality model", error))
    try:
        return scoring.score(bare, None, without="The quality model failed: only the rules have looked at these contours.")
    except Exception as error:
        failed.append(_because("Not assessed", error))
        return bare, []


# ---- dose


@dataclass(frozen=True, eq=False)
class Dosed:
    """The case (with ``scores["risk"]`` where there is one), what the plan gives to its structures, and why something of that is not
    there."""

    case: Case
    plan: Plan | None = None
    why: tuple[str, ...] = ()


def look_at_dose(drawn: Case, came: Case, risk_model: Any = None, facts: Mapping[str, bool | float | str] | None = None) -> Dosed:
    """The DVHs of the structures in ``drawn`` and of the targets that ``came`` with the CT, and the risk by ``risk_model``, if any.

    Nothing is raised, whatever goes wrong: it is said, and the contours are there all the same.
    """
    from oncontour.commands.dvh import evaluate

    wanted = "No DVH" if risk_model is None else "No DVH and no risk"
    if "dose" not in came.images:
        return Dosed(drawn, why=(_sentence(f"{wanted}: {'; '.join(_of_dose(came)) or 'there is no dose with this CT'}"),))
    whole = _with_targets(drawn, came)
    plan, why = None, []
    try:
        plan = evaluate(whole)
    except Exception as error:
        why.append(_because("No DVH", error))
    if risk_model is not None:
        try:
            found = risk_model.predict(replace(whole, facts={**whole.facts, **(facts or {})})).scores["risk"]
            drawn = drawn.with_scores({"risk": found})
        except Exception as error:
            why.append(_because("No risk", error))
    return Dosed(drawn, plan, tuple(dict.fromkeys(why)))


def _load_risk(model: str, facts: Mapping[str, bool | float | str] | None = None) -> Any:
    from oncontour.commands.risk import check_facts, load

    task = load(model)
    check_facts(facts or {}, task.settings.facts, model)
    return task


def _with_targets(drawn: Case, came: Case) -> Case:
    """``drawn`` and the targets that ``came`` has and nobody drew anew; of the reader's remarks those that put the dose in doubt."""
    names = _targets(came, drawn)
    masks: dict[str, Volume] = {name: came.masks[name] for name in names if name in came.masks}
    contours = {name: came.contours[name] for name in names if name in came.contours}
    whole = (drawn.with_masks(masks) if masks else drawn).with_contours(contours)
    doubts = tuple(about(came.facts.get("notes", ()), *DOSE_DOUBTS))
    return replace(whole, facts={**whole.facts, "notes": doubts})


def _of_dose(case: Case) -> list[str]:
    """Why the reader left out a dose that is there."""
    return about(case.facts.get("notes", ()), NoteCode.DOSE_LEFT_OUT)


def _because(what: str, error: Exception) -> str:
    """Why ``what``: in our own words, or by the name of an error that nobody foresaw and what is fit to be shown of it."""
    if isinstance(error, OncontourError):
        return _sentence(f"{what}: {error.what}", error.hint)
    if is_out_of_memory(error):
        return _sentence(f"{what}: it needs more memory than there is", "close other programs or use a larger machine")
    kind, told = type(error).__name__, why(error)
    return _sentence(f"{what}: {kind}" + (f" {told}" if told != kind else ""))


def _sentence(what: str, hint: str = "") -> str:
    return what + (f". Way out: {hint}" if hint else "") + "."


def _complete(told: dict[str, Any], dosed: Dosed, source: Path, failed: Sequence[str] = ()) -> None:
    """What the dose gives, and what ``failed``, into the record."""
    case = dosed.case
    if dosed.plan is not None:
        from oncontour.commands.dvh import record as plan_record

        found = plan_record(dosed.plan)
        told["dose"] = {**found, "id": told["case"], "notes": [anonymous(note, source, case) for note in found["notes"]]}
    if "risk" in case.scores:
        from oncontour.commands.risk import record as risk_record

        told["risk"] = risk_record(case)
    told["warnings"] += [anonymous(why, source, case) for why in (*failed, *dosed.why)]


def draw(dosed: Dosed, failed: list[str]) -> dict[str, str]:
    """The report's pictures of dose ("dvh") and risk ("risk"), as SVG; those that there is something to show in. One that cannot be
    drawn is left out, and ``failed`` gets why."""
    drawers = {}
    if dosed.plan is not None:
        drawers["dvh"] = partial(_dvh_svg, dosed.plan)
    if "risk" in dosed.case.scores:
        drawers["risk"] = partial(_risk_svg, dosed.case)
    figures = {}
    for name, drawer in drawers.items():
        try:
            figures[name] = drawer()
        except Exception as error:
            failed.append(_because(f"No picture of {name}", error))
    return figures


def _dvh_svg(plan: Plan) -> str:
    from oncontour.report.dvh import svg

    return svg(plan.dvhs, prescriptions_gy={name: target.prescription_gy for name, target in plan.targets.items()})


def _risk_svg(case: Case) -> str:
    from oncontour.report.risk import svg

    return svg(case)


# ---- writing


def _page(dosed: Dosed, came: Case, rows: list[report.Row], failed: list[str]) -> tuple[Case, list[report.Row]]:
    """What the page shows: what was drawn, and the targets that stand in the DVH as they came, in its colours. Where these cannot be
    shown, ``failed`` gets why."""
    from oncontour.palette import colour_of

    plan, given = dosed.plan, _given(came, dosed.case, dosed.plan)
    if plan is None or not given:
        return dosed.case, rows
    whole, order = replace(_with_targets(dosed.case, came), facts=dosed.case.facts), list(plan.dvhs)
    try:
        more = [replace(row, colour=colour_of(order.index(row.name))) for row in report.rows(whole, given)]
    except Exception as error:
        failed.append(_because("The targets that came with the CT are not shown", error))
        return dosed.case, rows
    return whole, [*rows, *more]


def _write(
    case: Case,
    rows: list[report.Row],
    told: dict[str, Any],
    out: Path,
    *,
    page: tuple[Case, list[report.Row]],
    figures: Mapping[str, str],
    add_to: Path | None,
    overwrite: bool,
    clock: Clock,
) -> None:
    """All files into a hidden folder, which then becomes ``out`` in one step."""
    with result_folder(out, FILES, overwrite=overwrite) as folder:
        with clock("write"):
            written = _write_contours(case, rows, told, folder, add_to)
            if "assess" in case.scores:
                written.append(report.write_scores(case, folder / SCORES))
        finish(folder, told, *page, written, clock, figures)


def _empty_between(case: Case, names: Sequence[str]) -> list[str]:
    """What another program may make of the RTSTRUCT where slices between contours are empty: one sentence, or none."""
    from oncontour.io.dicom.patient import OTHERS_MAY_FILL
    from oncontour.io.dicom.rtstruct import slices_of
    from oncontour.io.dicom.rtstruct_write import left_empty_between
    from oncontour.io.dicom.source import DicomSource

    if not isinstance(case.source, DicomSource):
        return []
    found = [name for name in left_empty_between(case, slices_of(case.source)) if name in names]
    return [f"{OTHERS_MAY_FILL}: {', '.join(found)}"] if found else []


def _write_contours(case: Case, rows: list[report.Row], told: dict[str, Any], folder: Path, add_to: Path | None) -> list[Path]:
    """The RTSTRUCT; where the CT was no DICOM, a mask file a structure. A structure that gets another name there is a warning."""
    if case.source is None:
        from oncontour.io.image.layout import file_names
        from oncontour.io.image.nifti import write_image

        names = [row.name for row in rows]
        stems = zip(names, file_names(names), strict=True)
        return [write_image(case.mask(name), folder / MASKS / f"{stem}.nii.gz") for name, stem in stems]
    from oncontour.io.dicom.rtstruct import names_written, write_rtstruct

    names = [row.name for row in rows]
    why = "its name is too long, or has letters that DICOM has not" if add_to is None else "the RTSTRUCT of --add_to has that name already"
    written_as = names_written(names, existing=add_to).items()
    told["warnings"] += [f"{name} is called {called} in {RTSTRUCT}: {why}" for name, called in written_as if called != name]
    drawers = [one for one in told["models"] if one["task"] == "contour"]
    described = "Draft by oncontour, to be reviewed. " + "; ".join(f"{one['name']} {one['sha256'][:12]}" for one in drawers)
    written = write_rtstruct(
        case,
        folder / RTSTRUCT,
        structures=names,
        description=described,
        generation=f"oncontour {told['versions'].get('oncontour', '')}",
        existing=add_to,
        colours={row.name: row.colour for row in rows},
        observations=report.observations(case),
    )
    return [written]
