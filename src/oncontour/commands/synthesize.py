"""``oncontour synthesize``: an image like an MR of a CT, as a DICOM series that says what it is, and how far it can be believed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oncontour.progress import Progress

if TYPE_CHECKING:
    from oncontour.core.case import Case
    from oncontour.learn.card import Card
    from oncontour.synthesize.predict import Made

SERIES, RECORD = "series", "synthesize.json"
"""Names inside the result folder: the DICOM files (of a CT that was no DICOM: series/smr.nii.gz), and the figures."""
SCHEMA = "oncontour-synthesize-1"


def synthesize(
    ct_folder: Path,
    *,
    out: Path,
    model: str,
    series_uid: str | None = None,
    any_region: bool = False,
    overwrite: bool = False,
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Make an image like a T1-weighted MR from a CT: OUT/series, a derived DICOM MR series, and OUT/synthesize.json, how like the CT.

    The series is marked as synthetic in every slice and in its description, which warnings stand in too. It lies on the CT's voxels and in
    its frame of reference, so that contours drawn on either belong to both. The image shows nothing that the CT does not: it serves
    contouring, is not for dose calculation and not for diagnosis. A CT that was no DICOM gives OUT/series/smr.nii.gz.

    Examples:
      oncontour synthesize CT_FOLDER --out OUT --model runs/limb-t1/limb-t1.safetensors
      oncontour synthesize CT_FOLDER --out OUT --model runs/limb-t1/limb-t1.safetensors --any_region

    Args:
        ct_folder: the CT: a folder of DICOM, or of ct.nii.gz
        out: folder for the result
        model: path of a synthesis model, as 'oncontour train synthesize' makes it
        series_uid: which CT series, where the folder has several
        any_region: make it of a CT of another part of the body than the model was made for too; series and record then say so
        overwrite: replace an earlier result in OUT
        backend: what computes the net
        threads: CPU threads for the net
        progress: called with the fraction done
    """
    from oncontour.io import read
    from oncontour.result import check_out, result_folder
    from oncontour.synthesize.predict import Synthesizer

    check_out(out, [ct_folder], (SERIES, RECORD), overwrite=overwrite, of="the CT")
    synthesizer = Synthesizer.load(model, backend=backend, threads=threads, any_region=any_region)
    case = read(ct_folder, series_uid=series_uid, lenient=True)
    made = synthesizer.make(case, progress)
    with result_folder(out, (SERIES, RECORD), overwrite=overwrite) as folder:
        _write_series(folder / SERIES, case, made, synthesizer.card)
        text = json.dumps(_record(case, ct_folder, made, synthesizer.card), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / RECORD).write_text(text + "\n", encoding="utf-8")
    figures = ", ".join(f"{name} {value:.3g}" for name, value in asdict(made.fidelity).items())
    return "\n".join([*(f"WARNING: {text}" for text in made.warnings), f"{out}: SYNTHETIC, not acquired. {figures}"])


def _write_series(folder: Path, case: Case, made: Made, card: Card) -> None:
    from oncontour import __version__
    from oncontour.io.dicom.derived import Derivation, write_derived
    from oncontour.io.dicom.source import DicomSource
    from oncontour.io.image.nifti import write_image

    if isinstance(case.source, DicomSource):
        write_derived(made.image, folder, case.source, Derivation(card.name, card.sha256, __version__, made.warnings))
        return
    folder.mkdir()
    write_image(made.image, folder / "smr.nii.gz")


def _record(case: Case, source: Path, made: Made, card: Card) -> dict[str, object]:
    """What synthesize.json holds; nothing in it names the patient."""
    from oncontour.learn.card import card_words
    from oncontour.result import anonymous, pseudonym, versions

    return {
        "schema": SCHEMA,
        "case": pseudonym(case),
        "synthetic": True,
        "limits": "made from the CT by a model, not acquired; not for dose calculation, not for diagnosis",
        "model": card_words(card),
        "fidelity": {name: value if math.isfinite(value) else None for name, value in asdict(made.fidelity).items()},
        "drift": None,
        "warnings": list(made.warnings),
        "notes": [anonymous(note, source, case) for note in case.notes],
        "versions": versions(),
    }
