"""``oncontour structures``: new structures from those that a patient has: margins, union, difference, rings.

read (io) -> parse (algebra.words) -> make (algebra.make) -> RTSTRUCT with the new ones added, or masks; report.html, report.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncontour import report, result
from oncontour.core.case import Case
from oncontour.core.contours import Contours, Slices
from oncontour.core.volume import written_cc
from oncontour.errors import ConfigError, InputError, StructureError, did_you_mean
from oncontour.progress import Progress
from oncontour.result import MASKS, PAGE, RECORD

if TYPE_CHECKING:
    from oncontour.algebra.make import Made
    from oncontour.algebra.words import Line

RTSTRUCT = "rtstruct.dcm"
FILES = (RTSTRUCT, MASKS, PAGE, RECORD)
TOLD_BEYOND = 0.001
"""Part of a structure's volume beyond the image's slices from which on it is told."""


@dataclass(frozen=True)
class MadeRow:
    """One structure that was made: from what, the volume that its surface encloses, and that of its contours as they are written, which
    begin and end half-way between slices; ``beyond_cc``: what of it lies beyond the first and last slice of the image, in no file."""

    name: str
    text: str
    surface_cc: float
    written_cc: float
    beyond_cc: float = 0.0

    def __str__(self) -> str:
        if self.surface_cc == 0:
            return f"{self.text}: empty, nothing is left"
        one, other = written_cc(self.surface_cc), written_cc(self.written_cc)
        return f"{self.text}: {one} cc" + (f" ({other} cc as contours on these slices)" if one != other else "")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must be told of it."""
        if self.beyond_cc < TOLD_BEYOND * self.surface_cc or self.beyond_cc == 0:
            return ()
        lost = f"{written_cc(self.beyond_cc)} of {written_cc(self.surface_cc)} cc"
        return (f"{self.name} goes on beyond the first or last slice of the image: {lost} are in no file",)


@dataclass(frozen=True, eq=False)
class Structures:
    """What was made: the case with the new structures, a row for each, what is to be said (left out, cut off), and where it lies."""

    case: Case
    made: tuple[MadeRow, ...]
    notes: tuple[str, ...]
    record: Mapping[str, Any]
    out: Path

    def __str__(self) -> str:
        warnings = [f"warning: {text}" for text in self.record["warnings"]]
        files = f"{', '.join(self.record['files'])} and {RECORD} in {self.out}"
        return "\n".join([*map(str, self.made), *self.notes, *warnings, files])


def structures(
    patient: Path,
    *,
    out: Path,
    make: list[str] | None = None,
    protocol: Path | None = None,
    skip_absent: bool = False,
    series_uid: str | None = None,
    structure_set_uid: str | None = None,
    same_frame: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Structures:
    """Make structures from structures: margins, shrinking, union, intersection, difference, rings, from surfaces finer than voxels.

    PTV = CTV + 5mm grows, CTV - 3mm shrinks, CTV + (5mm, 8mm superior, 3mm posterior) has a margin for each direction; A + B is both
    together, A - B the first without the second, A & B what they share; ring(A, 5mm to 20mm) lies round A, crop(A, 5mm) is A cut back to
    5 mm under the skin. docs/structures.md has the grammar. A line may use what earlier lines made.

    OUT gets the RTSTRUCT with what it held, byte for byte, and the new structures after it (of a patient in NIfTI masks/, old and new), a
    page to look at them, report.html, and report.json.

    Examples:
        oncontour structures PATIENT --out OUT --make "PTV_60 = CTV_60 + 5mm" --make "Parotid_L_opt = Parotid_L - PTV_60"
        oncontour structures PATIENT --out OUT --make "PTV = CTV + (5mm, 8mm superior, 8mm inferior)"
        oncontour structures PATIENT --out OUT --protocol examples/structures.yaml --skip_absent

    Args:
        patient: folder with images and structures: DICOM with an RTSTRUCT or SEG, or NIfTI with masks
        out: folder to make
        make: a line "NAME = EXPRESSION"; again for several, in this order
        protocol: YAML file with such lines under "structures" (name: expression); they come before those of --make
        skip_absent: leave out, with a word, what is made of a structure that this patient does not have; refused otherwise
        series_uid: SeriesInstanceUID of the images, where the folder holds several
        structure_set_uid: SOPInstanceUID of the RTSTRUCT or SEG, where the folder holds several
        same_frame: take structures that name another frame of reference than the images, where an export rewrote the UIDs: PatientID and
            every plane must agree with the images, and it is recorded
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    from oncontour.algebra.words import parse
    from oncontour.io import read

    clock = result.Clock()
    lines = [parse(text) for text in (*_protocol(protocol), *(make or ()))]
    if not lines:
        raise ConfigError("nothing is to be made", hint='say what with --make "PTV = CTV + 5mm", or with --protocol FILE')
    sources = [patient, *([protocol] if protocol else [])]
    result.check_out(out, sources, FILES, overwrite=overwrite, of="what they are made from")
    with clock("read"):
        case = read(patient, series_uid=series_uid, structure_set_uid=structure_set_uid, same_frame=same_frame)
        if not case.structures:
            raise InputError(
                "this patient has no structures to make others from", where=str(patient), hint="give a folder with an RTSTRUCT"
            )
        base, apart = _addable(case, patient, same_frame)
    with clock("make"):
        workshop = _Workshop(case)
        lines, left_out = workshop.resolved(lines, skip_absent)
        made = []
        for n, line in enumerate(lines):
            made.append((line, workshop.make(line)))
            if progress is not None:
                progress((n + 1) / len(lines))
    drawn = case.with_contours({line.name: one.contours for line, one in made})
    rows = tuple(MadeRow(line.name, line.text, one.volume_cc, _in_file_cc(one.contours, case), one.beyond_cc) for line, one in made)
    told = (*left_out, *apart, *(note for row in rows for note in row.notes))
    record = _record(drawn, rows, told, patient, {"make": make, "protocol": [line.text for line in lines], "same_frame": same_frame})
    with result.result_folder(out, FILES, overwrite=overwrite) as folder:
        with clock("write"):
            written = _write(drawn, [row.name for row in rows], folder, base)
        result.finish(folder, record, drawn, report.rows(drawn), written, clock)
    return Structures(drawn, rows, told, record, out)


def _protocol(path: Path | None) -> list[str]:
    """The lines of a protocol file. Raises FormatError, ConfigError."""
    if path is None:
        return []
    from oncontour.documents import read_yaml

    told = read_yaml(path)
    lines = told.get("structures") if isinstance(told, dict) else None
    if not isinstance(lines, dict) or not lines or not all(isinstance(value, str) for value in lines.values()):
        raise ConfigError(
            "a protocol has a mapping 'structures' of names to expressions", where=str(path), hint="as in: structures: {PTV: CTV + 5mm}"
        )
    return [f'"{name}" = {text}' for name, text in lines.items()]


class _Workshop:
    """The structures of a patient, with those made so far, as contours to make others from."""

    def __init__(self, case: Case) -> None:
        self.case, self.made = case, dict[str, Contours]()

    @cached_property
    def slices(self) -> Slices:
        from oncontour.io.dicom.source import DicomSource, slices_of

        return slices_of(self.case.source) if isinstance(self.case.source, DicomSource) else Slices.of(self.case.geometry)

    @cached_property
    def body(self) -> Contours:
        """The outline that came with the patient, else what the CT shows."""
        from oncontour.algebra.outlines import contours_of
        from oncontour.io.names import interpreted_type
        from oncontour.ops.body import body_mask

        outline = next((name for name in self.case.structures if interpreted_type(name) == "EXTERNAL"), None)
        return self.contours(outline) if outline else contours_of(body_mask(self.case.ct))

    def contours(self, name: str) -> Contours:
        """As drawn where they lie along the slices of the image's grid; else as its voxels have them."""
        from oncontour.algebra.outlines import contours_of, is_across

        if name in self.made:
            return self.made[name]
        if name not in self.case.masks and is_across(self.case.contours[name], self.case.geometry):
            return self.case.contours[name]
        return contours_of(self.case.mask(name))

    def make(self, line: Line) -> Made:
        from oncontour.algebra.make import make
        from oncontour.algebra.words import names_in

        used = {one.name: self.contours(one.name) for one in names_in(line.expression)}
        made = make(line.expression, used, lambda: self.body, self.case.geometry, self.slices)
        self.made[line.name] = made.contours
        return made

    def resolved(self, lines: Sequence[Line], skip_absent: bool) -> tuple[list[Line], tuple[str, ...]]:
        """The lines with names as the patient has them, and a sentence for each that is left out. Raises ConfigError for a structure that
        is not there, and a name that is taken."""
        kept: list[Line] = []
        told: list[str] = []
        for line in lines:
            there = [*self.case.structures, *(one.name for one in kept)]
            if any(one.casefold() == line.name.casefold() for one in there):
                raise ConfigError(f"there is a {line.name} already", where=line.text, hint="call the new one otherwise")
            renamed, absent = _renamed(line, there)
            if not absent:
                kept.append(renamed)
            elif skip_absent:
                told.append(f"{line.name} was left out: this patient has no {', '.join(absent)}")
            else:
                raise _absent(line, absent[0], there)
        if not kept:
            raise ConfigError("nothing is left to be made", hint=f"this patient has {', '.join(self.case.structures)}")
        return kept, tuple(told)


def _renamed(line: Line, there: Sequence[str]) -> tuple[Line, list[str]]:
    """``line`` with the names of structures as they are called, and those that are not there."""
    from oncontour.algebra.words import names_in, with_names
    from oncontour.io.names import meant

    asked = {one.name: meant(one.name, there) for one in names_in(line.expression)}
    absent = [name for name, found in asked.items() if found is None]
    return (line, absent) if absent else (replace(line, expression=with_names(line.expression, asked)), [])


def _absent(line: Line, name: str, there: Sequence[str]) -> ConfigError:
    from oncontour.algebra.words import names_in

    column = next(one.column for one in names_in(line.expression) if one.name == name)
    return ConfigError(
        f"this patient has no {name}, in column {column}",
        where=line.text,
        hint=f"{did_you_mean(name, there)}choose among {', '.join(there)}, or leave it out with --skip_absent",
    )


def _in_file_cc(contours: Contours, case: Case) -> float:
    from oncontour.raster import rasterise

    return rasterise(contours, case.geometry).volume_cc if len(contours) else 0.0


def _record(case: Case, made: Sequence[MadeRow], said: Sequence[str], patient: Path, settings: Mapping[str, object]) -> dict[str, Any]:
    notes = [result.anonymous(note, patient, case) for note in case.notes]
    told = result.record(case, report.rows(case, [row.name for row in made]), [], settings, [*notes, *said])
    told["made"] = [{"name": row.name, "from": row.text, "surface_cc": row.surface_cc, "written_cc": row.written_cc} for row in made]
    return told


def _addable(case: Case, patient: Path, same_frame: bool) -> tuple[Path | None, tuple[str, ...]]:
    """The RTSTRUCT that the structures are of, to add to; None where there is none, or, with a sentence, where it names another
    frame of reference than the images, which ``same_frame`` allows. Raises StructureError before anything is made."""
    from oncontour.io.dicom.rtstruct import check_addable
    from oncontour.io.dicom.scan import scan
    from oncontour.io.dicom.source import DicomSource

    if not isinstance(case.source, DicomSource):
        return None, ()
    uids = case.facts.get("structure_sets", ())
    base = next((file.path for file in scan(patient) if file.kind == "RTSTRUCT" and file.sop_instance_uid in uids), None)
    if base is None:
        return None, ()
    try:
        check_addable(base, case.source)
    except StructureError:
        if not same_frame:
            raise
        why = "it names another frame of reference than the images"
        return None, (f"{RTSTRUCT} has the new structures alone: what {base.name} held was not taken over, as {why}",)
    return base, ()


def _write(case: Case, names: Sequence[str], folder: Path, base: Path | None) -> list[Path]:
    """``base`` with the new structures added, or an RTSTRUCT of them alone; masks where the patient is no DICOM."""
    from oncontour.io.dicom.source import DicomSource

    if not isinstance(case.source, DicomSource):
        from oncontour.io.image.layout import write_named

        return write_named(((name, case.mask(name)) for name in case.structures), folder / MASKS)
    from oncontour.io.dicom.rtstruct import write_rtstruct

    generation = f"oncontour {result.versions().get('oncontour', '')} structures"
    written = write_rtstruct(
        case,
        folder / RTSTRUCT,
        structures=names,
        generation=generation,
        algorithm="SEMIAUTOMATIC",
        existing=base,
        description="Structures made from others by oncontour.",
    )
    return [written]
