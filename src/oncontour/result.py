"""A result folder: refused before any work where it would cost somebody something, and what every one holds: a page and a record.

check_out(out, ...)    is this folder ours to make?
result_folder(...)     it is made whole, and only where it is still ours to make
record(case, ...)      what report.json says; nothing in it names the patient
finish(folder, ...)    the page and the record themselves, with hashes and times
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oncontour import report
from oncontour.core import notes
from oncontour.core.case import Case
from oncontour.errors import InputError, OutputError
from oncontour.files import at_end_of_link, check_not_here, check_writable, sweep, writing_folder

PAGE, RECORD, SCORES, MASKS = "report.html", "report.json", "scores.csv", "masks"
"""Names inside a result folder; ``scores.csv`` holds the quality of each slice, ``masks`` NIfTI files where a CT came without DICOM."""
SCHEMA = "oncontour-report-2"


def check_out(out: Path, sources: Sequence[Path], names: Sequence[str], *, overwrite: bool, of: str) -> None:
    """Refuse, before any work is done, an OUT that would cost somebody something. Raises OutputError, InputError.

    Only what an earlier run made (``names``) is ever replaced, and nothing that one of ``sources`` lies in; ``of``: what these are.
    """
    sweep(out)
    for source in sources:
        if not source.exists():
            raise InputError("there is no such file or folder", where=str(source), hint=f"check the path of {of}")
        here, there = out.resolve(), source.resolve()
        if here == there or here in there.parents:
            raise OutputError(f"the result would replace {of} itself", where=str(out), hint="choose another --out")
    if out.exists() and not out.is_dir():
        raise OutputError("this is a file, not a folder", where=str(out), hint="choose another --out")
    check_not_here(out)
    check_writable(at_end_of_link(out).parent)
    found = sorted(file.name for file in out.iterdir()) if out.exists() else []
    strangers = [name for name in found if name not in names] + (_strangers_among_masks(out / MASKS) if MASKS in names else [])
    if strangers:
        raise OutputError(
            f"the folder holds other things ({', '.join(strangers[:3])})", where=str(out), hint="choose a new folder as --out"
        )
    if found and not overwrite:
        raise OutputError("there is a result already", where=str(out), hint="choose another --out, or replace it with --overwrite")


def _strangers_among_masks(folder: Path) -> list[str]:
    """What lies in the folder of masks of an earlier result and is no mask that was written there."""
    if not folder.is_dir():
        return []
    return sorted(f"{MASKS}/{file.name}" for file in folder.iterdir() if not (file.is_file() and file.name.endswith(".nii.gz")))


@contextmanager
def result_folder(out: Path, names: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """As ``files.writing_folder``, looking once more before the swap: another run may have finished, or somebody put something there."""
    with writing_folder(out) as folder:
        yield folder
        check_out(out, (), names, overwrite=overwrite, of="the result")


def record(
    case: Case, rows: Sequence[report.Row], models: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """What ``report.json`` holds; nothing in it names the patient. ``models``: of each its card, and what was tidied after it."""
    tidied = [line for one in models for line in one.get("tidied", ())]
    return {
        "schema": SCHEMA,
        "case": pseudonym(case),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": {
            "modality": "CT" if "ct" in case.images else next(iter(case.images)).upper(),
            "shape": list(case.geometry.shape),
            "spacing_mm": list(case.geometry.spacing_mm),
            "series_uid_sha256": sha256(_series(case).encode()),
            "voxels_sha256": sha256(_voxels(case)),
            "notes": list(notes),
        },
        "models": [{key: value for key, value in one.items() if key != "tidied"} for one in models],
        "settings": dict(settings),
        "tidy": tidied,
        "warnings": [*report.misplaced(case), *model_notes(models), *report.warnings(rows, report.found_sided(case))],
        "structures": [row.as_dict() for row in rows],
        **({} if case.assessment is None else {"assess": report.assess_record(case)}),
        "versions": versions(),
    }


def model_notes(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be known of the models of a record, each line with the model's name."""
    return [f"{one['name']}: {text}" for one in models for text in one.get("notes", ())]


def finish(
    folder: Path,
    record: dict[str, Any],
    case: Case,
    rows: list[report.Row],
    written: Sequence[Path],
    clock: Clock,
    figures: Mapping[str, str] | None = None,
    section: str = "",
    beside: report.Beside | None = None,
) -> None:
    """Write the page and the record into ``folder``; ``record`` gets hashes of all that was ``written``, times and memory."""
    record["files"] = {path.relative_to(folder).as_posix(): sha256(path.read_bytes()) for path in written}
    record["digest"] = report.digest(record)
    with clock("report"):
        record["timings_s"], record["peak_memory_mb"] = clock.so_far(), peak_memory_mb()
        report.write(record, case, rows, folder / PAGE, figures, section, beside)
    record["timings_s"], record["peak_memory_mb"] = clock.so_far(), peak_memory_mb()
    record["files"][PAGE] = sha256((folder / PAGE).read_bytes())
    (folder / RECORD).write_text(json.dumps(_known(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def pseudonym(case: Case) -> str:
    """A name for the case that says nothing of the patient: from the hash of the series' UID, which is unique and means nothing.

    Not from the patient's number: there are few enough of those to try them all.
    """
    return "P-" + sha256(_series(case).encode())[:10]


def anonymous(note: str, source: Path, case: Case) -> str:
    """A reader's remark without what may name the patient: ``notes.anonymous`` with the attributes that ``case`` came with."""
    return notes.anonymous(note, source, getattr(case.source, "patient", {}))


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("oncontour", "numpy", "scipy", "torch", "openvino", "pydicom", "monai"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_memory_mb() -> float:
    """The most memory this process has held at once, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(used / (1e6 if sys.platform == "darwin" else 1e3), 1)


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _known(value: Any) -> Any:
    """``value`` with null for every number that is none, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _known(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _series(case: Case) -> str:
    """What is unique to the image: its series' UID, else its voxels."""
    uid = str(getattr(case.source, "series_uid", "") or "")
    return uid or sha256(_voxels(case))


def _voxels(case: Case) -> bytes:
    image = case.images["ct"] if "ct" in case.images else next(iter(case.images.values()))
    return image.array.tobytes()


@dataclass
class Clock:
    """Seconds that each named step took."""

    started: float = field(default_factory=time.perf_counter)
    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.steps[step] = round(time.perf_counter() - begun, 3)

    def so_far(self) -> dict[str, float]:
        return {**self.steps, "total": round(time.perf_counter() - self.started, 3)}
