"""``oncontour dvh``: what a plan gives to its structures, on the screen, as tables, and as the plot that a clinic expects.

read (io) -> evaluate: a DVH a structure (dose) -> figures of the targets, published NTCP models -> files (report.dvh draws)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oncontour.commands.dvh_tables import as_csv, columns, curve_rows, goals_table, known, number, risk_table, table_rows
from oncontour.core.notes import CHOOSE_DOSE, NoteCode, all_anonymous, because, except_about
from oncontour.errors import ConfigError, DoseError, InputError, LimitError, StructureError, did_you_mean
from oncontour.progress import Progress

if TYPE_CHECKING:
    from oncontour.core.case import Case
    from oncontour.core.contours import Contours
    from oncontour.core.volume import Volume
    from oncontour.dose.dvh import DVH
    from oncontour.dose.goals import Goal, Judged
    from oncontour.dose.metric_names import Figure
    from oncontour.dose.targets import Target

TABLE, CURVES, RECORD, PLOT = "dvh.csv", "curves.csv", "dvh.json", "dvh"
FEW_VOXELS = 10
"""Of a structure of fewer voxels of the image the outline is hardly known."""
FILES = (TABLE, CURVES, RECORD, f"{PLOT}.png", f"{PLOT}.svg")
FIGURES = ("Dmean", "D98%", "D50%", "D2%", "D0.03cc")
"""What the table tells of every structure: the mean, the near-minimum, median and near-maximum of ICRU 83, and the hottest 0.03 cc."""
SCHEMA = "oncontour-dvh-1"


@dataclass(frozen=True, eq=False)
class Plan:
    """What ``evaluate`` finds: a DVH a structure, the figures asked for, what is said of targets, risks by published models, remarks."""

    id: str
    dvhs: Mapping[str, DVH]
    figures: tuple[str, ...]
    table: Mapping[str, Mapping[str, float]]
    targets: Mapping[str, Target]
    risks: Mapping[str, float]
    notes: tuple[str, ...]
    prescribed_gy: Mapping[str, float] = field(default_factory=dict)
    """by target, as the doses of ``dvhs`` are told: the EQD2 of the prescription where these are EQD2"""
    goals: tuple[Judged, ...] = ()
    files: tuple[Path, ...] = field(default=())

    def __str__(self) -> str:
        blocks = [columns(["structure", "cc", *self.figures], [[n, *(number(v) for v in row.values())] for n, row in self.table.items()])]
        basis = {one.basis for one in self.dvhs.values()} - {"physical"}
        blocks[0] += (
            f"\nThese doses are {basis.pop()}, and so are the prescriptions of their percents; targets below are told physically."
            if basis
            else ""
        )
        if self.targets:
            head = ["target", "Gy", "V95%", "D95% Gy", "HI", "CI Paddick", "CI RTOG", "GI"]
            rows = [
                (t.prescription_gy, t.v95_percent, t.d95_gy, t.homogeneity, t.paddick, t.rtog, t.gradient) for t in self.targets.values()
            ]
            blocks.append(columns(head, [[n, *(number(v) for v in row)] for n, row in zip(self.targets, rows, strict=True)]))
        if self.goals:
            blocks.append(goals_table(self.goals))
        if self.risks:
            blocks.append(risk_table(self.risks))
        blocks += ["\n".join(f"note: {note}" for note in self.notes)] if self.notes else []
        blocks += [f"{', '.join(path.name for path in self.files)} in {self.files[0].parent}"] if self.files else []
        return "\n\n".join(blocks)


def dvh(
    patient: Path,
    *,
    out: Path | None = None,
    structures: list[str] | None = None,
    figures: list[str] | None = None,
    goals: Path | None = None,
    dose: list[str] | None = None,
    prescription: float | None = None,
    fractions: float | None = None,
    alpha_beta: float | None = None,
    ntcp: bool = False,
    unit: Literal["Gy", "cGy"] = "Gy",
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """DVHs of a plan: a table of every structure on the screen; with --out also CSV, JSON and the plot (PNG, SVG).

    The folder holds a CT or MR, an RTSTRUCT (or SEG) and an RTDOSE; folders of NIfTI files and OpenKBP patients are read too. Beams or
    fraction groups are added up where there is no dose of the whole plan. With doses of several plans --dose says which one; several are
    added. Volumes are exact to the contour, doses to the interpolated dose, however small the structure.

    Figures are written as D95%, D2cc, V20Gy, V20Gy[cc], V95% (of the prescription), Dmean, Dmax. Targets named like PTV_7000, PTV_50p4Gy
    or PTV_2000x5 tell their prescription themselves (TG-263: in cGy unless Gy is said; x5: that dose in each of 5 fractions).

    Examples:
        oncontour dvh DICOM_FOLDER
        oncontour dvh DICOM_FOLDER --out OUT --structures SpinalCord,Parotid_L --figures Dmean,D0.03cc,V20Gy
        oncontour dvh DICOM_FOLDER --goals examples/goals-head-neck.yaml
        oncontour dvh DICOM_FOLDER --dose RTDOSE.dcm --prescription 66 --fractions 33 --alpha-beta 3

    Args:
        patient: folder with images, structures and dose
        out: folder to make for dvh.csv, curves.csv, dvh.json, dvh.png and dvh.svg
        structures: only these (separated by commas)
        figures: columns of the table (separated by commas)
        goals: YAML file of clinical goals (a list such as "Parotid_L Dmean < 26 Gy"); each then met, not met, or not to be judged, and why
        dose: SOPInstanceUID or file of the RTDOSE that is meant, where there are several; those of several plans are added up
        prescription: Gy, of targets whose name does not tell; that of the RTPLAN by default
        fractions: number of fractions; that of the RTPLAN by default
        alpha_beta: Gy; all doses, the prescription too, are then told as the dose in 2 Gy fractions of the same effect (EQD2)
        ntcp: tell the risk by every published model that has all it needs; none of an organ of which more than 5 % has no dose
        unit: what the numbers of the dose are; cGy where a file says Gy and holds centigray
        series_uid: SeriesInstanceUID of the images, where the folder holds several
        structure_set_uid: SOPInstanceUID of the RTSTRUCT or SEG, where the folder holds several
        same_frame: take structures that name another frame of reference than the images, where an export rewrote the UIDs: PatientID and
            every plane must agree with the images, and it is recorded
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    from oncontour.dose.goals import read_goals
    from oncontour.io import read
    from oncontour.result import check_out

    wanted = read_goals(goals) if goals else []
    if out is not None:
        check_out(out, [patient], FILES, overwrite=overwrite, of="the patient")
    case = read(patient, series_uid=series_uid, structure_set_uid=structure_set_uid, same_frame=same_frame, doses=dose or ())
    plan = evaluate(
        case,
        structures=structures,
        figures=figures or FIGURES,
        prescription_gy=prescription,
        fractions=fractions,
        alpha_beta_gy=alpha_beta,
        ntcp=ntcp,
        unit=unit,
        goals=wanted,
        progress=progress,
    )
    remarks = tuple(case.facts.get("notes", ()))
    shown = dict(zip(remarks, all_anonymous(remarks, patient, getattr(case.source, "patient", {})), strict=True))
    plan = replace(plan, notes=tuple(dict.fromkeys(shown.get(note, note) for note in plan.notes)))
    return plan if out is None else write(plan, out, overwrite=overwrite)


def evaluate(
    case: Case,
    *,
    structures: Sequence[str] | None = None,
    figures: Sequence[str] = FIGURES,
    prescription_gy: float | None = None,
    fractions: float | None = None,
    alpha_beta_gy: float | None = None,
    ntcp: bool = False,
    unit: Literal["Gy", "cGy"] = "Gy",
    goals: Sequence[Goal] = (),
    progress: Progress | None = None,
) -> Plan:
    """The plan of ``case``: images["dose"] in its structures, as contours where they are drawn and there is no mask.

    Raises DoseError where there is no dose, where it is NaN or negative, in the wrong unit, or meets no structure; InputError for
    structures that are not there; ConfigError for figures that cannot be read, or that need what is not known.
    """
    from oncontour.dose.metric_names import parse
    from oncontour.dose.targets import check_unit, covered, doubts, prescribed

    parsed = list({str(one): one for one in map(parse, figures)}.values())  # Dmedian is D50%: one column
    for what, value in (("a prescription (Gy)", prescription_gy), ("a number of fractions", fractions)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{what} is above 0, not {value:g}")
    names = _chosen(case, structures)
    dose, notes = _dose(case, unit)
    known = case.facts
    prescription = prescription_gy if prescription_gy is not None else known.get("prescription_gy")
    physical, broken = _histograms(case, dose, names, strict=structures is not None, progress=progress)
    notes += broken
    names = list(physical)
    prescriptions = prescribed(names, prescription)
    check_unit(physical, prescriptions)
    notes += [one.note for one in physical.values() if one.note]
    notes += doubts(physical, prescriptions)
    notes += _too_small({name: one.volume_cc for name, one in physical.items()}, case.geometry.voxel_mm3)
    dvhs, told = physical, prescriptions
    is_prescribed = any(prescriptions.get(name, prescription) for name in names)
    if alpha_beta_gy is not None:
        effect = _effect(case, unit, alpha_beta_gy, fractions)
        notes += effect.notes
        dvhs = effect.of(case, physical)
        told = {name: gy for name, physical_gy in prescriptions.items() if (gy := effect.of_gy(physical_gy))}
        prescription = effect.of_gy(prescription) if prescription else None
    wanted = {name: told.get(name, prescription) for name in names}
    table = {name: {"cc": one.volume_cc, **_figures(one, parsed, wanted[name], is_prescribed)} for name, one in dvhs.items()}
    targets = covered(dose, physical, prescriptions)
    risks, left_out = _risks(physical, dvhs, known) if ntcp else ({}, [])
    notes += left_out
    if ntcp and not risks:
        notes.append("no published model has all that it needs here (structures, and facts of the patient)")
    judged = _judged(goals, case, dvhs, wanted)
    return Plan(case.id, dvhs, tuple(str(p) for p in parsed), table, targets, risks, tuple(dict.fromkeys(notes)), told, judged)


def _too_small(volumes_cc: Mapping[str, float], voxel_mm3: float) -> list[str]:
    """A sentence for each structure of fewer than FEW_VOXELS voxels of the image."""
    from oncontour.core.volume import written_cc

    voxels = {name: 1000 * cc / voxel_mm3 for name, cc in volumes_cc.items()}
    few = {name: round(n) for name, n in voxels.items() if 0 < n < FEW_VOXELS}
    size = {name: f"{written_cc(volumes_cc[name])} cc, {max(1, n)} {'voxels' if n > 1 else 'voxel'}" for name, n in few.items()}
    return [f"{name} is {text} of the image: too small for its doses to be trusted" for name, text in size.items()]


def write(plan: Plan, out: Path, *, overwrite: bool = False) -> Plan:
    """Write all FILES into folder ``out``, which appears whole or not at all; the plan that knows where they are.

    Raises OutputError where ``out`` holds other things, or an earlier result that ``overwrite`` does not give up.
    """
    from oncontour.files import write_text
    from oncontour.report.dvh import draw, save
    from oncontour.result import result_folder

    with result_folder(out, FILES, overwrite=overwrite) as temporary:
        write_text(temporary / TABLE, as_csv(table_rows(plan)))
        write_text(temporary / CURVES, as_csv(curve_rows(plan)))
        write_text(temporary / RECORD, json.dumps(record(plan), indent=1, allow_nan=False) + "\n")
        save(
            draw(plan.dvhs, prescriptions_gy={name: gy for name, gy in plan.prescribed_gy.items() if name in plan.targets}),
            temporary / PLOT,
        )
    return replace(plan, files=tuple(out / name for name in FILES))


def record(plan: Plan) -> dict[str, object]:
    """All of the plan for programs; a figure that does not exist is null."""
    return {
        "schema": SCHEMA,
        "id": plan.id,
        "structures": {
            name: {
                "volume_cc": plan.dvhs[name].volume_cc,
                "missing_cc": plan.dvhs[name].missing_cc,
                "basis": plan.dvhs[name].basis,
                "min_gy": known(plan.dvhs[name].min_gy),
                "mean_gy": known(plan.dvhs[name].mean_gy),
                "max_gy": known(plan.dvhs[name].max_gy),
                "figures": {key: known(value) for key, value in row.items() if key != "cc"},
            }
            for name, row in plan.table.items()
        },
        "targets": {name: {key: known(value) for key, value in asdict(target).items()} for name, target in plan.targets.items()},
        **({"goals": [goal_words(one) for one in plan.goals]} if plan.goals else {}),
        "ntcp": dict(plan.risks),
        "notes": list(plan.notes),
    }


def goal_words(one: Judged) -> dict[str, object]:
    """A goal for programs: what is wanted, its value (null where there is none), the verdict, why it cannot be judged, and whose it is."""
    return {"goal": str(one.goal), "value": known(one.value), "verdict": one.verdict, "why": one.why, "source": one.goal.source}


def _judged(goals: Sequence[Goal], case: Case, dvhs: Mapping[str, DVH], wanted: Mapping[str, float | None]) -> tuple[Judged, ...]:
    """The goals by these DVHs; a structure that reaches the first or last slice, and does not go on past it by nature, may be cut."""
    if not goals:
        return ()
    from oncontour.dose.goals import judge
    from oncontour.quality.rules import shipped_ranges
    from oncontour.report.structures import rows

    asked = [name for name in dict.fromkeys(one.structure for one in goals) if name in dvhs]
    cut = [row.name for row in rows(case, asked) if row.cut and not shipped_ranges().goes_on(row.name)] if asked else []
    return tuple(judge(goals, dvhs, wanted, cut))


# ---- what is there


def _chosen(case: Case, structures: Sequence[str] | None) -> list[str]:
    if not case.structures:
        why = because(case.facts.get("notes", ()), NoteCode.STRUCTURES_LEFT_OUT)
        hint = "add the RTSTRUCT of these images, or masks" + (", or name one with --structure_set_uid" if why else "")
        raise InputError(f"no structures here{why}", where=f"case {case.id}", hint=hint)
    if structures is not None:
        from oncontour.io.names import meant

        structures = [meant(name, case.structures) or name for name in structures]
    absent = [name for name in structures or () if name not in case.structures]
    if absent:
        what = f"no structure {', '.join(absent)}; there are {', '.join(case.structures)}"
        raise InputError(what, where=f"case {case.id}", hint=f"{did_you_mean(absent[0], case.structures)}choose among these")
    return list(structures or case.structures)


def _dose(case: Case, unit: str) -> tuple[Volume, list[str]]:
    from oncontour.core.volume import Volume
    from oncontour.dose.cells import check

    said = list(case.facts.get("notes", ()))
    if "dose" not in case.images:
        why = because(said, NoteCode.DOSE_LEFT_OUT)
        raise DoseError(f"no dose to use{why}", where=f"case {case.id}", hint=f"add the RTDOSE of this plan, or {CHOOSE_DOSE}")
    dose = case.images["dose"]
    check(dose.array, f"case {case.id}")
    if not dose.array.any():
        raise DoseError("the dose is 0 everywhere", where=f"case {case.id}")
    if unit == "cGy":
        said = except_about(said, NoteCode.DOSE_MAY_BE_CENTIGRAY)
        dose = Volume(dose.array / 100, dose.geometry)
    return dose, said


def _histograms(
    case: Case, dose: Volume, names: Sequence[str], *, strict: bool, progress: Progress | None
) -> tuple[dict[str, DVH], list[str]]:
    """A DVH a structure, and what is said of those that cannot be filled; ``strict`` raises instead."""
    from oncontour.dose import dvh as histograms

    found, broken = {}, []
    for n, name in enumerate(names):
        try:
            found[name] = histograms.dvh(dose, _solid(case, name), name=name)
        except (StructureError, LimitError) as error:
            if strict:
                raise
            broken.append(f"{name} is left out: {error.what}")
        if progress is not None:
            progress((n + 1) / len(names))
    if not any(one.dosed_cc for one in found.values()) and any(one.volume_cc for one in found.values()):
        raise DoseError(
            f"none of the {len(found)} structures meets the dose, which covers {dose.geometry}",
            where=f"case {case.id}",
            hint="make sure that dose and structures are of one patient and one frame of reference",
        )
    return found, broken


def _solid(case: Case, name: str) -> Contours | Volume:
    return case.masks[name] if name in case.masks else case.contours[name]


@dataclass(frozen=True, eq=False)
class _Effect:
    """How doses become EQD2: all of the dose in ``fractions`` equal ones, or, where there are several, the sum of its ``groups``: Gy of
    each, and in how many equal fractions it is given."""

    alpha_beta_gy: float
    fractions: float = 0.0
    groups: tuple[tuple[Volume, float], ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, case: Case, physical: Mapping[str, DVH]) -> dict[str, DVH]:
        """The DVHs as EQD2."""
        from oncontour.dose.dvh import dvh, eqd2_basis, eqd2_of_groups

        if not self.groups:
            return {name: one.eqd2(self.alpha_beta_gy, self.fractions) for name, one in physical.items()}
        dose, basis = eqd2_of_groups(self.groups, self.alpha_beta_gy), eqd2_basis(self.alpha_beta_gy)
        return {name: replace(dvh(dose, _solid(case, name), name=name), basis=basis) for name in physical}

    def of_gy(self, gy: float) -> float | None:
        """EQD2 of a prescription; None where several groups give it, as it is not told which part each of them gives."""
        from oncontour.dose.dvh import eqd2_gy

        return None if self.groups else eqd2_gy(gy, self.fractions, self.alpha_beta_gy)


def _effect(case: Case, unit: str, alpha_beta_gy: float, fractions: float | None) -> _Effect:
    """How the dose of ``case`` becomes EQD2: ``fractions`` goes before what the plan tells.

    Raises DoseError for a dose that is weighted by biology already; ConfigError where it is not known in which fractions it is given.
    """
    from oncontour.io.dicom.rtdose import DoseKind
    from oncontour.io.dicom.rtplan import FractionGroup

    kind = case.facts.get("rtdose")
    if isinstance(kind, DoseKind) and kind.type == "EFFECTIVE":
        hint = "leave out --alpha_beta, or export the physical dose"
        raise DoseError("the dose is EFFECTIVE: it is weighted by biology already", where=f"case {case.id}", hint=hint)
    groups = tuple(group for group in case.facts.get("fraction_groups", ()) if isinstance(group, FractionGroup))
    several = len(groups) > 1 or (isinstance(kind, DoseKind) and (kind.plans > 1 or kind.summation == "MULTI_PLAN"))
    count = fractions if fractions is not None else case.facts.get("fractions")
    if count:
        what = (
            f"EQD2 takes the dose of all plans and fraction groups as given in equal fractions, {count:g} in all: summed by group it is as "
            "much or more where that is how many are given in all, and may be less where it is not"
        )
        return _Effect(alpha_beta_gy, count, notes=(what,) if several else ())
    if len(groups) < 2 or any(group.fractions is None for group in groups):
        raise ConfigError(
            "EQD2 needs the number of fractions, which no RTPLAN tells here"
            + (f" of each of the {len(groups)} plans or fraction groups" if len(groups) > 1 else ""),
            hint="give it with --fractions",
        )
    listed = " and ".join(f"{group.fractions}" for group in groups)
    given = tuple((group.dose, float(group.fractions)) for group in groups if group.dose is not None and group.fractions)
    if len(given) < len(groups):
        raise ConfigError(
            f"EQD2 needs the dose of each fraction group, and no RTDOSE tells them apart: {len(groups)} groups of {listed} fractions",
            where=f"case {case.id}",
            hint="export the RTDOSE of each group (DoseSummationType FRACTION) or beam too, or say with --fractions that all are equal",
        )
    scale = 0.01 if unit == "cGy" else 1.0
    note = (
        f"EQD2 is the sum of {len(groups)} fraction groups, each in equal fractions of its own: {listed}; of a prescription it is not known"
    )
    return _Effect(alpha_beta_gy, groups=tuple((dose.map(lambda gy: gy * scale), n) for dose, n in given), notes=(note,))


def _figures(one: DVH, parsed: Sequence[Figure], prescription_gy: float | None, known: bool) -> dict[str, float]:
    """What ``one`` receives; percent of a prescription is NaN where only other structures have one (``known``)."""
    none = known and not prescription_gy
    return {str(p): math.nan if none and p.needs_prescription else one.figure(p, prescription_gy) for p in parsed}


def _risks(physical: Mapping[str, DVH], told: Mapping[str, DVH], facts: Mapping[str, object]) -> tuple[dict[str, float], list[str]]:
    """(risk by model, a sentence on each organ that none is told of: too much of it has no dose).

    Models fitted to physical doses get those; the others the doses as they are told.
    """
    from oncontour.dose.ntcp import MODELS, PHYSICAL, applicable, dosed, organs

    whole = dosed(physical)
    by_physical, by_told = applicable(whole, facts), applicable({name: told[name] for name in whole}, facts)
    risks = {name: (by_physical if MODELS[name].dose == PHYSICAL else by_told)[name] for name in by_told}
    return risks, [f"no published model of {name}: {physical[name].note}" for name in organs() if name in physical and name not in whole]
