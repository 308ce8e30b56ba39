"""The main job: a CT folder becomes contours, judged slice by slice, a report for people and one for programs, all or nothing.

run, in this order: read (io) -> choose models, contour, judge (run_contours) -> dose and risk, where they are (run_dose)
    -> write RTSTRUCT (io), scores.csv, report.html, report.json (result)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from oncontour import report
from oncontour.commands.run_contours import (
    contour,
    default_model,
    judge,
    load_segmenters,
    region_words,
    sees_own,
    shipped_assessor,
)
from oncontour.commands.run_dose import Dosed, dose_and_risk, given_targets, goals_of, page_of
from oncontour.commands.run_dose import beside as beside_of
from oncontour.core.case import Case
from oncontour.core.notes import NoteCode, except_about
from oncontour.errors import ConfigError, GeometryError, InputError, OutputError
from oncontour.learn.card import notes as card_notes
from oncontour.libraries import need
from oncontour.ops.tidy import Tidy
from oncontour.progress import Progress, part, tell
from oncontour.quality import score as scoring
from oncontour.result import MASKS, PAGE, RECORD, SCORES, Clock, anonymous, check_out, finish, record, result_folder

if TYPE_CHECKING:
    from oncontour.commands.dvh import Plan
    from oncontour.learn.predictor import Predictor  # the command line imports what stands here: no kind of model

RTSTRUCT = "rtstruct.dcm"
"""Name inside a result folder."""
SEG = "seg.dcm"
"""The same contours as voxels, where they are asked for."""
FILES = (RTSTRUCT, SEG, MASKS, SCORES, PAGE, RECORD)

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
        if self.case.assessment is not None:
            blocks.append("\n".join(report.worst(self.case, WORST)))
        if self.plan is not None:
            blocks.append(str(self.plan))
        if self.case.risk is not None:
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
    seg: bool = False,
    assess: bool = True,
    quality: str | None = None,
    risk: str | None = None,
    facts: dict[str, bool | float | str] | None = None,
    dose: list[str] | None = None,
    goals: Path | None = None,
    unit: Literal["Gy", "cGy"] = "Gy",
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    tidy: Tidy = Tidy(),  # noqa: B008  (frozen: one value for all calls; its fields become --tidy.NAME)
    any_region: bool = False,
    trust: bool = False,
    about: str | None = None,
    label: str | None = None,
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
        truth: contours to compare with (a patient's folder, or an RTSTRUCT of this CT); DSC, HD95 and
            MSD then stand in the tables, and the page draws them dashed
        add_to: an RTSTRUCT of this CT whose structures the new file keeps, byte for byte; the new ones come after them
        seg: the contours as a DICOM Segmentation too, seg.dcm
        assess: how right is each slice? predicted, and looked at by rules
        quality: name of a shipped quality model or path of one; the shipped one by default
        risk: path of a risk model, made by 'oncontour train risk'; none by default
        facts: of the patient: numbers by the names that the risk model was trained with, and what published models ask for:
            baseline_xerostomia, baseline_dysphagia_grade, site
        dose: SOPInstanceUID or file of the RTDOSE that is meant, where there are several
        goals: YAML file of clinical goals (a list such as "Parotid_L Dmean < 26 Gy"), each then met, not met, or not to be judged, and why
        unit: what the numbers of the dose are; cGy where a file says Gy and holds centigray
        backend: what computes the nets
        threads: CPU threads for the nets; all by default
        tidy: what is cleaned up after the net, each switchable
        any_region: draw on a CT of another part of the body than the models were made for, which is refused otherwise; every result says it
        trust: let a TorchScript model run, which is a program; nothing else that could run code is ever loaded
        about: a sentence to be read before anything else, as "A phantom, not a patient."; on top of screen and page, and in report.json
        label: what the clinic calls this patient, on the page and in report.json; else only a pseudonym stands there
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    _check_options(quality, assess, facts, risk, seg)
    guard(out, ct_folder, overwrite, truth=truth, add_to=add_to)
    clock, failed = Clock(), list[str]()
    load = partial(load_segmenters, structures=structures, backend=backend, rules=tidy, threads=threads, trust=trust, any_region=any_region)
    segmenters, risk_model, wanted = load(model or []), _load_risk(risk, facts), goals_of(goals)  # mistyped: told before anything is read
    assessor = scoring.load(quality, backend=backend, threads=threads) if quality else None
    with clock("read"):
        case = _in_gy(_read(ct_folder, series_uid, dose, structure_set_uid, same_frame, of_truth=truth is not None), unit)
        known = _read_truth(truth, case, same_frame)
        _check_writable(case, ct_folder, add_to, seg)
    with clock("choose"):
        chosen = model or [default_model(case)]
    segmenters = segmenters or load(chosen)
    banner, doubts = region_words(case, segmenters, any_region)
    assessor = (assessor or shipped_assessor(failed, backend, threads)) if assess else None
    with clock("contour"):
        drawn, models = contour(case, segmenters, structures, chances=sees_own(assessor), progress=part(progress, 0, 0.8 if assess else 1))
    if assess:
        with clock("assess"):
            drawn, judges = judge(drawn, assessor, failed, part(progress, 0.8, 1))
        models += judges
    dosed, figures = dose_and_risk(drawn, case, risk_model, facts, failed, clock, wanted)
    tell(progress, 1.0)
    rows = report.rows(dosed.case, truth=known)
    page, others = page_of(dosed, case, rows, failed), beside_of(dosed, case, known, failed)
    settings: dict[str, object] = {"structures": structures, "backend": backend, "threads": threads, "tidy": asdict(tidy), "assess": assess}
    settings |= {"facts": facts, "unit": unit, "any_region": any_region, "same_frame": same_frame}
    told = record(dosed.case, rows, models, settings, _notes(case, ct_folder, known, truth, dosed, "" if model else chosen[0]))
    _complete(told, dosed, ct_folder, risk_model, banner, doubts, failed, {"about": about, "label": label})
    _write(dosed.case, rows, told, out, page=page, beside=others, figures=figures, add_to=add_to, seg=seg, overwrite=overwrite, clock=clock)
    return Result(dosed.case, rows, told, out, dosed.plan)


# ---- before anything is read


def _check_options(quality: str | None, assess: bool, facts: Mapping[str, object] | None, risk: str | None, seg: bool) -> None:
    """Raise ConfigError for options that contradict each other, or that this installation cannot serve."""
    if quality and not assess:
        raise ConfigError("a quality model is named, and --assess false leaves it out", hint="leave out one of the two")
    if facts and risk is None:
        raise ConfigError("facts of the patient are for a risk model, and none is named", hint="name one with --risk, or leave out --facts")
    if seg:
        from oncontour.io.dicom.seg_write import check_installed

        check_installed()


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


def _is_flat(path: Path) -> bool:
    """Whether ``path`` is a patient in image files, as ``io.read`` tells: what lies in other folders there is never read."""
    from oncontour.io.dicom.scan import holds_dicom
    from oncontour.io.image.layout import is_layout
    from oncontour.io.image.openkbp import is_openkbp

    return (is_layout(path) or is_openkbp(path)) and not holds_dicom(path)


def _load_risk(model: str | None, facts: Mapping[str, bool | float | str] | None) -> Predictor | None:
    if model is None:
        return None
    need("torch", "--risk")
    from oncontour.commands.risk import load

    return load(model, facts or {})


# ---- reading


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


def _read_truth(path: Path | None, case: Case, same_frame: bool) -> Case | None:
    if path is None:
        return None
    from oncontour.io.onto import read_onto

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


def _check_writable(case: Case, source: Path, add_to: Path | None, seg: bool) -> None:
    """Refuse, before any contour is drawn, an RTSTRUCT that the new structures cannot be added to, and a SEG of a CT without DICOM."""
    from oncontour.io.dicom.source import DicomSource

    if seg and case.source is None:
        raise ConfigError("there is no SEG to write where the CT is no DICOM", where=str(source), hint="leave out --seg")
    if add_to is None:
        return
    if not isinstance(case.source, DicomSource):
        raise ConfigError("there is no RTSTRUCT to write where the CT is no DICOM", where=str(add_to), hint="leave out --add_to")
    from oncontour.io.dicom.rtstruct import check_addable

    check_addable(add_to, case.source)


# ---- writing


def _notes(case: Case, ct_folder: Path, known: Case | None, truth: Path | None, dosed: Dosed, chosen: str) -> list[str]:
    """What was remarked in reading the CT, and in reading the contours to compare with, without what may name the patient; which model was
    ``chosen``, if any was; what became of contours that came with the CT: targets that were not contoured anew stand in the DVH."""
    seen = case.facts.get("notes", ())
    notes = [anonymous(note, ct_folder, case) for note in seen]
    if truth is not None and known is not None:
        more = [f"Of the contours to compare with: {note}" for note in known.facts.get("notes", ()) if note not in seen]
        notes += [anonymous(anonymous(note, truth, case), truth, known) for note in more]
    notes += [f"{chosen} was chosen because of the region that the CT shows."] if chosen else []
    targets = given_targets(case, dosed)
    others = [name for name in case.structures if name not in targets]
    came = [f"Contours that came with the CT were left aside: {', '.join(others)}."] if others else []
    came += [f"Targets that came with the CT stand in the DVH as they were drawn: {', '.join(targets)}."] if targets else []
    return notes + [anonymous(note, ct_folder, case) for note in came]


def _complete(
    told: dict[str, Any],
    dosed: Dosed,
    source: Path,
    risk_model: Predictor | None,
    banner: str,
    doubts: Sequence[str],
    failed: Sequence[str],
    given: Mapping[str, str | None],
) -> None:
    """What stands first (and what else the user has ``given``), what the dose gives, and what ``failed``, into the record."""
    case = dosed.case
    told |= {key: words for key, words in {"banner": banner, **given}.items() if words}
    if dosed.plan is not None:
        from oncontour.commands.dvh import record as plan_record

        notes = tuple(anonymous(note, source, case) for note in dosed.plan.notes)
        told["dose"] = plan_record(replace(dosed.plan, id=told["case"], notes=notes))
    if case.risk is not None:
        from oncontour.commands.risk import record as risk_record

        told["risk"] = risk_record(case)
    of_risk_model = [] if risk_model is None else [f"{risk_model.card.name}: {note}" for note in card_notes(risk_model.card)]
    told["warnings"] = [
        *([banner] if banner else []),
        *doubts,
        *told["warnings"],
        *(anonymous(why, source, case) for why in (*failed, *dosed.why)),
        *of_risk_model,
        *_empty_between(case, [row["name"] for row in told["structures"]]),
    ]


def _write(
    case: Case,
    rows: list[report.Row],
    told: dict[str, Any],
    out: Path,
    *,
    page: tuple[Case, list[report.Row]],
    beside: report.Beside,
    figures: Mapping[str, str],
    add_to: Path | None,
    seg: bool,
    overwrite: bool,
    clock: Clock,
) -> None:
    """All files into a hidden folder, which then becomes ``out`` in one step."""
    with result_folder(out, FILES, overwrite=overwrite) as folder:
        with clock("write"):
            written = _write_contours(case, rows, told, folder, add_to)
            written += [_write_seg(case, rows, told, folder)] if seg else []
            if case.assessment is not None:
                written.append(report.write_scores(case, folder / SCORES))
        finish(folder, told, *page, written, clock, figures, beside=beside)


def _empty_between(case: Case, names: Sequence[str]) -> list[str]:
    """What another program may make of the RTSTRUCT where slices between contours are empty: one sentence, or none."""
    from oncontour.io.dicom.source import DicomSource, slices_of

    if not isinstance(case.source, DicomSource):
        return []
    from oncontour.io.dicom.rtstruct_between import OTHERS_MAY_FILL, left_empty_between

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


def _write_seg(case: Case, rows: list[report.Row], told: Mapping[str, Any], folder: Path) -> Path:
    """The contours as a DICOM Segmentation of the CT."""
    from oncontour.io.dicom.seg_write import write_seg
    from oncontour.io.dicom.source import DicomSource

    assert isinstance(case.source, DicomSource), "checked before anything was drawn"
    drew = " and ".join(one["name"] for one in told["models"] if one["task"] == "contour")
    return write_seg({row.name: case.mask(row.name) for row in rows}, folder / SEG, source=case.source, algorithm=f"oncontour {drew}")
