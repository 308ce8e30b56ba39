"""``oncontour synthesize``: an image like an MR of a CT, as a DICOM series that says what it is, and how far it can be believed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oncontour.progress import Progress

if TYPE_CHECKING:
    from oncontour.commands.synthesize_drift import Drifted
    from oncontour.core.case import Case
    from oncontour.learn.card import Card
    from oncontour.synthesize.predict import Made

SERIES, RECORD, PAGE = "series", "synthesize.json", "report.html"
"""Names inside the result folder: the DICOM files (of a CT that was no DICOM: series/smr.nii.gz), the figures, and the page."""
FILES = (SERIES, RECORD, PAGE)
SCHEMA = "oncontour-synthesize-2"


def synthesize(
    ct_folder: Path,
    *,
    out: Path,
    model: str,
    series_uid: str | None = None,
    segmenter: str | None = None,
    any_region: bool = False,
    overwrite: bool = False,
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Make an image like a T1-weighted MR from a CT: OUT/series, a derived DICOM MR series, and OUT/report.html, how far to believe it.

    The series is marked as synthetic in every slice and in its description, which warnings stand in too. It lies on the CT's voxels and in
    its frame of reference, so that contours drawn on either belong to both. The image shows nothing that the CT does not: it serves
    contouring, is not for dose calculation and not for diagnosis. Organs that one segmenter draws on the CT and on what the made image
    shows are compared: one that grew, moved or went is flagged on the page, in the record and in the series' description (DRIFT). Where
    no segmenter draws organs of that region, page and record say that nobody looked. OUT/synthesize.json holds what the page says. A CT
    that was no DICOM gives OUT/series/smr.nii.gz.

    Examples:
      oncontour synthesize CT_FOLDER --out OUT --model runs/limb-t1/limb-t1.safetensors
      oncontour synthesize CT_FOLDER --out OUT --model runs/limb-t1/limb-t1.safetensors --any_region

    Args:
        ct_folder: the CT: a folder of DICOM, or of ct.nii.gz
        out: folder for the result
        model: path of a synthesis model, as 'oncontour train synthesize' makes it
        series_uid: which CT series, where the folder has several
        segmenter: name of a shipped contour model or path of one, of CT, whose organs are looked for in both images; by default the shipped
            one for the region that the CT shows
        any_region: make it of a CT of another part of the body than the model was made for too; series and record then say so
        overwrite: replace an earlier result in OUT
        backend: what computes the net
        threads: CPU threads for the net
        progress: called with the fraction done
    """
    from oncontour.commands.synthesize_drift import measured
    from oncontour.files import write_text
    from oncontour.io import read
    from oncontour.learn.resident import once
    from oncontour.report import synthesize as report
    from oncontour.result import check_out, result_folder
    from oncontour.synthesize.predict import Synthesizer

    check_out(out, [ct_folder], FILES, overwrite=overwrite, of="the CT")
    key = ("synthesize", model, backend, threads, any_region)
    synthesizer = once(key, lambda: Synthesizer.load(model, backend=backend, threads=threads, any_region=any_region))
    case = read(ct_folder, series_uid=series_uid, lenient=True)
    made = synthesizer.make(case, progress)
    drifted = measured(case, made.image, model=segmenter, backend=backend, threads=threads)
    told = _record(case, ct_folder, made, drifted, synthesizer.card)
    with result_folder(out, FILES, overwrite=overwrite) as folder:
        _write_series(folder / SERIES, case, made, drifted, synthesizer.card)
        write_text(folder / RECORD, json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        write_text(folder / PAGE, report.page(told, report.pictures(case.ct, made.image)))
    return "\n".join([*_said(made, drifted), f"{out}: SYNTHETIC, not acquired. {_figures(made)}"])


def _said(made: Made, drifted: Drifted) -> Sequence[str]:
    """What the screen says first."""
    lines = [f"WARNING: {text}" for text in (*made.warnings, *drifted.warnings)]
    if drifted.why:
        return [*lines, f"Drift of organs: {drifted.why}."]
    return [
        *lines,
        f"Drift of organs: {'FLAGGED' if drifted.verdict.flagged else 'none'} in {', '.join(one.organ for one in drifted.organs)}.",
    ]


def _figures(made: Made) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in asdict(made.fidelity).items())


def _write_series(folder: Path, case: Case, made: Made, drifted: Drifted, card: Card) -> None:
    from oncontour import __version__
    from oncontour.io.dicom.derived import Derivation, write_derived
    from oncontour.io.dicom.source import DicomSource
    from oncontour.io.image.nifti import write_image

    if isinstance(case.source, DicomSource):
        flags = ("DRIFT",) * bool(drifted.verdict.flagged) + ("OTHER REGION",) * bool(made.other_region)
        derivation = Derivation(card.name, card.sha256, __version__, (*drifted.warnings, *made.warnings), flags)
        write_derived(made.image, folder, case.source, derivation)
        return
    folder.mkdir()
    write_image(made.image, folder / "smr.nii.gz")


def _record(case: Case, source: Path, made: Made, drifted: Drifted, card: Card) -> dict[str, object]:
    """What synthesize.json holds; nothing in it names the patient."""
    from oncontour.learn.card import card_words
    from oncontour.result import anonymous, pseudonym, versions

    return {
        "schema": SCHEMA,
        "case": pseudonym(case),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "synthetic": True,
        "limits": "made from the CT by a model, not acquired; not for dose calculation, not for diagnosis",
        "model": card_words(card),
        "other_region": made.other_region,
        "fidelity": {name: _known(value) for name, value in asdict(made.fidelity).items()},
        "fidelity_usual": made.usual,
        "drift": _drift_words(drifted),
        "drift_why": drifted.why,
        "warnings": [*drifted.warnings, *made.warnings],
        "notes": [anonymous(note, source, case) for note in case.notes],
        "versions": versions(),
    }


def _drift_words(drifted: Drifted) -> Mapping[str, object] | None:
    """Null where nothing was measured; ``drift_why`` then says why."""
    if not drifted.organs or drifted.segmenter is None:
        return None
    limits, organs = drifted.limits, []
    for one in drifted.organs:
        known = limits is not None and one.organ in limits.organs and math.isfinite(limits.most)
        low, high, shift, alike = limits.within(one.organ) if limits is not None and known else (None, None, None, None)
        usual = {"ratio": [low, high], "shift_mm": shift, "likeness": alike} if known else None
        organs.append({**{name: value if name == "organ" else _known(value) for name, value in asdict(one).items()}, "usual": usual})
    return {
        "segmenter": {"name": drifted.segmenter.name, "sha256": drifted.segmenter.sha256},
        "flagged": drifted.verdict.flagged,
        "reasons": list(drifted.verdict.reasons),
        "organs": organs,
        "limits": None if limits is None else {"patients": limits.patients, "error": limits.error, "origin": limits.origin},
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
