"""``oncontour assess``: anybody's contours judged without a truth.

read (io) -> score (quality.score) -> scores.csv, report.html, report.json, all three or nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from oncontour import report, result
from oncontour.core.case import Case
from oncontour.errors import ConfigError, InputError, did_you_mean
from oncontour.progress import Progress
from oncontour.quality import score as scoring
from oncontour.result import PAGE, RECORD, SCORES

FILES = (SCORES, PAGE, RECORD)


@dataclass(frozen=True, eq=False)
class Assessment:
    """What an assessment gave: the case with its ``assessment``, what ``report.json`` holds, and where it lies."""

    case: Case
    record: Mapping[str, Any]
    out: Path
    rows: Sequence[report.Row] = ()

    def __str__(self) -> str:
        apart = [report.table(list(self.rows)), ""] if any(row.dsc is not None for row in self.rows) else []
        of_models = [f"warning: {text}" for text in result.model_notes(self.record["models"])]
        return "\n".join([*apart, *of_models, *report.summary(self.case), f"{', '.join(self.record['files'])} and {RECORD} in {self.out}"])


def assess(
    ct: Path,
    contours: Path,
    *,
    out: Path,
    model: str | None = None,
    structures: list[str] | None = None,
    compare: Path | None = None,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    label: str | None = None,
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Assessment:
    """How right is each slice of these contours? Predicted without a truth, for anybody's contours.

    OUT gets report.html (flagged slices first), scores.csv (structure, slice, z, DSC, lower bound, class, findings) and report.json.
    A structure that the model does not know, a CT of another part of the body, or an image unlike those it learned from is not scored,
    and the report says why; the rule checks are made all the same. The shipped model takes hn-organs as its reference model; what hn-organs
    drew itself is judged without. Slices beyond a structure's ends are looked at for a few
    slices only: what was forgotten farther out, nothing here can see.

    Examples:
        oncontour assess CT_FOLDER RTSTRUCT --out OUT
        oncontour assess CT_FOLDER MASKS_FOLDER --out OUT --structures Parotid_L,Parotid_R --overwrite
        oncontour assess CT_FOLDER RTSTRUCT --out OUT --compare OTHER_RTSTRUCT
        oncontour assess CT_FOLDER RTSTRUCT --out OUT --model our-quality.safetensors

    Args:
        ct: folder with a CT series (DICOM), or a folder or file in NIfTI, NRRD or MetaImage
        contours: RTSTRUCT or SEG of this CT, a folder with one, or a folder of masks on its grid
        out: folder to make
        model: name of a shipped quality model or path of a model file; hn-quality by default
        structures: only these of the contours (TG-263 names, separated by commas)
        compare: other contours of this CT (a patient's folder, an RTSTRUCT or a folder of masks), as the clinic's, another model's or
            yesterday's; DSC, HD95 and MSD then stand in the tables, and the page draws them dashed
        series_uid: SeriesInstanceUID of the CT, where the folder holds several
        structure_set_uid: SOPInstanceUID of the RTSTRUCT or SEG, where the folder of the contours holds several
        same_frame: take structures that name another frame of reference than the images, where an export rewrote the UIDs: PatientID and
            every plane must agree with the images, and it is recorded
        label: what the clinic calls this patient, on the page and in report.json; else only a pseudonym stands there
        backend: what computes the net
        threads: CPU threads for the net; all by default
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    clock = result.Clock()
    result.check_out(out, (ct, contours, *([compare] if compare else ())), FILES, overwrite=overwrite, of="what it is made from")
    assessor = scoring.load(model, backend=backend, threads=threads)
    with clock("read"):
        case = pick(read(ct, contours, series_uid, structure_set_uid, same_frame), structures)
        other = None if compare is None else others(compare, case, same_frame)
    with clock("assess"):
        scored, models = scoring.score(case, assessor, progress)
    rows = report.rows(scored, truth=other)
    notes = [result.anonymous(result.anonymous(note, ct, scored), contours, scored) for note in scored.notes]
    settings = {"structures": structures, "backend": backend, "threads": threads, "same_frame": same_frame}
    record = result.record(scored, rows, models, settings, notes) | ({"label": label} if label else {})
    beside = report.Beside(None if other is None else report.on_grid_of(scored, other, scored.structures), "the contours compared with")
    with result.result_folder(out, FILES, overwrite=overwrite) as folder:
        result.finish(folder, record, scored, rows, [report.write_scores(scored, folder / SCORES)], clock, beside=beside)
    return Assessment(scored, record, out, rows)


def read(ct: Path, contours: Path, series_uid: str | None = None, structure_set_uid: str | None = None, same_frame: bool = False) -> Case:
    """The CT with the contours at the other path; other structures and doses beside the CT do not matter.

    Raises InputError where either is missing, GeometryError for masks on another grid, and what ``read_onto`` raises.
    """
    from oncontour.io import read as read_case

    case = read_case(ct, series_uid=series_uid, lenient=True)
    if not case.images:
        raise InputError("there is no image here, only contours", where=str(ct), hint="give the folder of a CT series first")
    return of_case(case, contours, structure_set_uid, same_frame)


def of_case(case: Case, contours: str | Path | None, structure_set_uid: str | None = None, same_frame: bool = False) -> Case:
    """The images of ``case`` with the contours at this path, its own where there is no path; without doses.

    Raises InputError where there are none, GeometryError for masks on another grid, and what ``read_onto`` raises.
    """
    from oncontour.io.onto import read_onto

    drawn = case if contours is None else read_onto(Path(contours), case, structure_set_uid=structure_set_uid, same_frame=same_frame)
    if not drawn.structures:
        where = case.id if contours is None else str(contours)
        raise InputError("there are no contours to assess", where=where, hint="give an RTSTRUCT or a folder of masks")
    if drawn is case:
        return case
    bare = case.without_structures()
    notes = tuple(dict.fromkeys((*case.notes, *drawn.notes)))
    bare = replace(bare, facts={**bare.facts, **drawn.facts, "notes": notes})
    return bare.with_masks(dict(drawn.masks)).with_contours(dict(drawn.contours)) if drawn.masks else bare.with_contours(drawn.contours)


def others(path: Path, case: Case, same_frame: bool = False) -> Case:
    """The contours at ``path`` that those of ``case`` are compared with.

    Raises InputError where there are none, or none of the same name; GeometryError for masks on another grid; what ``read_onto`` raises.
    """
    from oncontour.errors import GeometryError
    from oncontour.io.onto import read_onto

    other = read_onto(path, case, same_frame=same_frame)
    shared = [name for name in case.structures if name in other.structures]
    if not shared:
        there, here = ", ".join(other.structures) or "none", ", ".join(case.structures)
        raise InputError(f"no contour to compare with: {there} there, {here} here", where=str(path), hint="names must be the same")
    try:
        for name in shared:
            other.own_mask(name, case.geometry)
    except GeometryError as error:
        raise GeometryError(error.what, where=str(path), hint=error.hint) from error
    return other


def pick(case: Case, structures: Sequence[str] | None) -> Case:
    """The case with these structures alone. Raises ConfigError for one that it does not have."""
    if structures is None:
        return case
    from oncontour.io.names import meant

    structures = [meant(name, case.structures) or name for name in structures]
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
