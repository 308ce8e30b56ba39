"""Which of the series in a folder is meant: chosen only where there is no doubt, else an error that lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from oncontour.errors import SeriesError
from oncontour.io.dicom.dicomfile import DicomFile
from oncontour.io.dicom.scan import SeriesFiles

PICK_ONE = "with --series_uid (oncontour assess, convert, dvh, risk, run; a patient of a cohort: convert it first)"


def choose(
    found: Sequence[SeriesFiles],
    where: str,
    *,
    series_uid: str | None = None,
    modality: str | None = None,
    prefer_referenced: bool = False,
) -> tuple[SeriesFiles, tuple[str, ...]]:
    """The one image series meant, and notes on those left out.

    Without ``modality`` a CT comes before an MR. Among several: with ``prefer_referenced`` those that an RTSTRUCT refers to; then original
    before derived images; then those of two or more slices. Raises SeriesError where none or several remain, or where the images are of
    several patients: none of these rules may decide who is meant.
    """
    images = [s for s in found if s.kind == "image"]
    if not images:
        raise _none(found, where)
    wanted = [s for s in images if series_uid in (None, s.series_uid) and modality in (None, s.modality)]
    if not wanted:
        asked = " ".join(str(v) for v in (modality, series_uid and f"series {series_uid}") if v)
        raise SeriesError(f"no {asked} here; there are {_listed(images)}", where=where, hint=f"give one of these, {PICK_ONE}")
    if (patients := len({s.patient_id for s in wanted} - {""})) > 1:
        hint = f"point at the folder of one patient, or choose one {PICK_ONE}"
        raise SeriesError(f"images of {patients} patients: {_listed(wanted)}", where=where, hint=hint)
    whole = [s for s in wanted if usable(s)[0]] or wanted
    if series_uid is None and modality is None and any(s.modality == "CT" for s in whole):
        whole = [s for s in whole if s.modality == "CT"]
    chosen = _narrowed(whole, found, prefer_referenced)
    if len(chosen) > 1:
        raise SeriesError(f"{len(chosen)} series could be meant: {_listed(chosen)}", where=where, hint=f"choose one {PICK_ONE}")
    return chosen[0], _left_out(found, chosen[0])


def _narrowed(series: list[SeriesFiles], found: Sequence[SeriesFiles], prefer_referenced: bool) -> list[SeriesFiles]:
    referenced = {uid for s in found if s.kind == "RTSTRUCT" for uid in s.referenced_series}
    rules: list[Callable[[SeriesFiles], bool]] = [
        lambda s: prefer_referenced and s.series_uid in referenced,
        lambda s: _holds_originals(s.files),
        lambda s: sum(f.whole("NumberOfFrames") or 1 for f in usable(s)[0]) > 1,
    ]
    for rule in rules:
        if len(series) > 1:
            series = [s for s in series if rule(s)] or series
    return series


def _none(found: Sequence[SeriesFiles], where: str) -> SeriesError:
    hint = "point at the folder that holds the CT or MR images"
    if not found:
        return SeriesError("no DICOM file here", where=where, hint=hint)
    if any(s.kind == "other" for s in found):
        hint += "; pictures made of them (screenshots, reports, fusions) have no place in the patient"
    return SeriesError(f"no CT or MR images here, only {_counted(found)}", where=where, hint=hint)


def _counted(found: Sequence[SeriesFiles]) -> str:
    """How many files there are of each kind of object."""
    counts: Counter[str] = Counter()
    for one in found:
        counts[one.what] += len(one.files)
    return ", ".join(f"{count} {'file' if count == 1 else 'files'} of {what}" for what, count in sorted(counts.items()))


def _listed(series: Sequence[SeriesFiles]) -> str:
    shown = "; ".join(str(s) for s in series[:12])
    return shown + (f"; and {len(series) - 12} more" if len(series) > 12 else "")


def _left_out(found: Sequence[SeriesFiles], chosen: SeriesFiles) -> tuple[str, ...]:
    notes = [f"left out: {s}" for s in found if s.kind == "image" and s is not chosen]
    others = [s for s in found if s.kind == "other"]
    if others:
        notes.append(f"left out, as they are no CT or MR slices: {_counted(others)}")
    return tuple(notes)


def usable(series: SeriesFiles) -> tuple[list[DicomFile], tuple[str, ...]]:
    """The files of an image series that are slices, and notes on localizers, colour images and derived images among originals left out."""
    kept, dropped = [], dict.fromkeys(("localizer", "colour", "derived"), 0)
    original = _holds_originals(series.files)
    for file in series.files:
        if _is_localizer(file):
            dropped["localizer"] += 1
        elif file.binary("SamplesPerPixel") not in (None, 1):
            dropped["colour"] += 1
        elif original and _is_derived(file):
            dropped["derived"] += 1
        else:
            kept.append(file)
    return kept, tuple(f"left out {count} {name} image(s) of series {series.series_uid}" for name, count in dropped.items() if count)


def _holds_originals(files: Sequence[DicomFile]) -> bool:
    return any(not _is_derived(file) for file in files if not _is_localizer(file))


def _is_localizer(file: DicomFile) -> bool:
    return "LOCALIZER" in file.words("ImageType")


def _is_derived(file: DicomFile) -> bool:
    return file.words("ImageType")[:1] == ("DERIVED",)
