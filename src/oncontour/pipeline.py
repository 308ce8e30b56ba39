"""The main job: a CT folder becomes contours, a report for people and a report for programs, all three or nothing.

read (io) -> choose models -> predict (tasks) -> write RTSTRUCT (io), report.html, report.json
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from oncontour import report
from oncontour.case import Case
from oncontour.errors import ConfigError, InputError, ModelError, OutputError
from oncontour.files import check_writable, sweep, writing_folder
from oncontour.ops.tidy import Tidy
from oncontour.progress import Progress

RTSTRUCT, PAGE, RECORD, MASKS, SCORES = "rtstruct.dcm", "report.html", "report.json", "masks", "scores.csv"
"""Names inside a result folder; ``masks`` holds NIfTI files where the CT came without DICOM, ``scores.csv`` the quality of each slice."""

DEFAULT_MODELS: dict[str, str] = {"head_neck": "hn-organs"}
"""Region of the body (``ops.body.region``) -> the shipped model that is used without being asked for."""

SCHEMA = "oncontour-report-1"


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gave: the case with its masks, a row a structure, what ``report.json`` holds, and where it all lies."""

    case: Case
    rows: list[report.Row]
    record: Mapping[str, Any]
    out: Path

    def __str__(self) -> str:
        lines = [report.table(self.rows), ""]
        lines += [f"warning: {text}" for text in self.record["warnings"]]
        lines.append(f"{', '.join(self.record['files'])} and {RECORD} in {self.out}")
        return "\n".join(lines)


def run(
    ct_folder: Path,
    *,
    out: Path,
    model: list[str] | None = None,
    structures: list[str] | None = None,
    series_uid: str | None = None,
    truth: Path | None = None,
    add_to: Path | None = None,
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    tidy: Tidy = Tidy(),  # noqa: B008  (frozen: one value for all calls; its fields become --tidy.NAME)
    trust: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Contour a CT: an RTSTRUCT, report.html and report.json in a new folder.

    The CT folder may be messy: other series, localizers and stray files are left aside and named in the report. Without --model the
    shipped model for the region of the body is used. OUT appears whole at the end or not at all; a folder that is there stays as it is
    unless --overwrite is given, and even then until the new one is complete. No result holds the patient's name or birth date except the
    RTSTRUCT, which must.

    Examples:
        oncontour run CT_FOLDER --out OUT
        oncontour run CT_FOLDER --out OUT --structures Parotid_L,Parotid_R
        oncontour run CT_FOLDER --out OUT --model hn-organs --model my-target.safetensors
        oncontour run CT_FOLDER --out OUT --truth RTSTRUCT_FOLDER --overwrite

    Args:
        ct_folder: folder with a CT series (DICOM), or a folder or file in NIfTI, NRRD or MetaImage
        out: folder to make
        model: name of a shipped model, path of a model file, or an nnU-Net v2 folder, MONAI bundle or ONNX file; again for several
        structures: only these of the models' structures (TG-263 names, separated by commas)
        series_uid: SeriesInstanceUID of the CT, where the folder holds several
        truth: contours to compare with (a patient's folder, or an RTSTRUCT of this CT); DSC then stands in the tables
        add_to: an RTSTRUCT of this CT whose structures the new file keeps, byte for byte; the new ones come after them
        backend: what computes the nets
        threads: CPU threads for the nets; all by default
        tidy: what is cleaned up after the net, each switchable
        trust: let a TorchScript model run, which is a program; nothing else that could run code is ever loaded
        overwrite: replace OUT where it is an earlier result
        progress: called with the fraction done
    """
    started = _Clock()
    check_out(out, ct_folder, overwrite)
    with started("read"):
        case = _read(ct_folder, series_uid)
        known = None if truth is None else _read_truth(truth, case)
    settings = {"structures": structures, "backend": backend, "threads": threads, "tidy": asdict(tidy)}
    notes = [_anonymous(note, ct_folder, case) for note in (*case.facts.get("notes", ()), *_other_structures(case))]
    with started("contour"):
        chosen = model or [default_model(case)]
        if not model:
            notes.append(f"{chosen[0]} was chosen because of the region that the CT shows.")
        contoured, models = contour(
            case, chosen, structures, settings={"backend": backend, "rules": tidy, "threads": threads}, trust=trust, progress=progress
        )
    rows = report.rows(contoured, truth=known)
    record = _record(case, rows, models, settings, notes)
    _write(contoured, rows, record, out, add_to=add_to, overwrite=overwrite, clock=started)
    return Result(contoured, rows, record, out)


def check_out(out: Path, source: Path, overwrite: bool) -> None:
    """Refuse, before any work is done, an OUT that would cost somebody something. Raises OutputError, InputError.

    Only what an earlier run made is ever replaced, and nothing that the CT folder lies in.
    """
    sweep(out)
    if not source.exists():
        raise InputError("there is no such file or folder", where=str(source), hint="check the path of the CT folder")
    here, there = out.resolve(), source.resolve()
    if here == there or here in there.parents:
        raise OutputError("the result would replace the CT itself", where=str(out), hint="choose another --out")
    if out.exists() and not out.is_dir():
        raise OutputError("this is a file, not a folder", where=str(out), hint="choose another --out")
    check_writable(out.parent)
    if not out.exists():
        return
    strangers = sorted(file.name for file in out.iterdir() if file.name not in (RTSTRUCT, PAGE, RECORD, MASKS, SCORES))
    if strangers:
        raise OutputError(
            f"the folder holds other things ({', '.join(strangers[:3])})", where=str(out), hint="choose a new folder as --out"
        )
    if not overwrite and any(out.iterdir()):
        raise OutputError("there is a result already", where=str(out), hint="choose another --out, or replace it with --overwrite")


def default_model(case: Case) -> str:
    """The shipped model for the region that the CT shows. Raises ModelError, naming what there is, where none fits."""
    from oncontour.card import shipped
    from oncontour.ops.body import region

    seen = region(case.ct)
    name = DEFAULT_MODELS.get(seen.name, "")
    if name in shipped():
        return name
    there, what = ", ".join(shipped()) or "none", seen.name.replace("_", " ")
    raise ModelError(
        f"no shipped model is made for this CT, which shows: {what} ({'; '.join(seen.reasons)}); shipped models: {there}",
        where=f"case {pseudonym(case)}",
        hint="choose one with --model NAME_OR_FILE, or train one with 'oncontour train contour'",
    )


def contour(
    case: Case,
    chosen: Sequence[str],
    structures: Sequence[str] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> tuple[Case, list[dict[str, Any]]]:
    """The case with what the ``chosen`` models draw (and none of the contours it came with), and what is recorded of each model.

    Where two models offer one structure the first has it. Raises ModelError for a structure that none offers.
    """
    loaded = [_load(name, settings or {}, trust) for name in chosen]
    wanted = _assign([list(one.card.structures) for one in loaded], structures)
    bare, drawn, records = case.without_structures(), case.without_structures(), []
    for n, (one, names) in enumerate(zip(loaded, wanted, strict=True)):
        if not names:
            continue
        predicted = one.predict(bare, progress=_share(progress, n, len(loaded)))
        whole = len(names) == len(predicted.masks)
        drawn = drawn.with_masks(predicted.masks if whole else {name: predicted.masks[name] for name in names})
        card = asdict(one.card)
        kept = {key: card[key] for key in ("name", "task", "spacing_mm", "region", "data", "licence", "metrics", "limits", "sha256")}
        records.append({**kept, **predicted.scores.get("contour", {}), "structures": list(names)})
    return drawn, records


def pseudonym(case: Case) -> str:
    """A name for the case that says nothing of the patient: from the hash of the series' UID, which is unique and means nothing.

    Not from the patient's number: there are few enough of those to try them all.
    """
    return "P-" + _sha256(_series(case).encode())[:10]


# ---- steps


def _read(folder: Path, series_uid: str | None) -> Case:
    from oncontour.io import read

    case = read(folder, series_uid=series_uid) if series_uid else read(folder)
    if "ct" not in case.images:
        raise InputError(
            f"no CT is here, only {', '.join(case.images) or 'contours'}", where=str(folder), hint="give the folder of a CT series"
        )
    return case


def _read_truth(path: Path, case: Case) -> Case:
    from oncontour.io.patient import read_onto

    known = read_onto(path, case)
    if not known.structures:
        raise InputError(
            "there are no contours to compare with", where=str(path), hint="give a folder with masks or an RTSTRUCT as --truth"
        )
    return known


def _load(name: str, settings: Mapping[str, Any], trust: bool) -> Any:
    """Our own model (a file or a shipped name) or somebody else's; only ``trust`` lets one run that is a program.

    A ``tasks.contouring.Contours``; not named as a type, as the command line would import torch to look it up.
    """
    from oncontour.tasks.contouring import load_contourer

    if trust:
        from oncontour.tasks.foreign import is_foreign, load_foreign

        if is_foreign(name):
            return load_foreign(name, trust=True, **settings)
    return load_contourer(name, **settings)


def _assign(offered: Sequence[Sequence[str]], wanted: Sequence[str] | None) -> list[list[str]]:
    """Which structures each model draws."""
    every = list(dict.fromkeys(name for names in offered for name in names))
    missing = [name for name in wanted or () if name not in every]
    if missing:
        raise ConfigError(f"no model draws {', '.join(missing)}", hint=f"choose among {', '.join(every)}")
    left = [name for name in every if wanted is None or name in wanted]
    out = []
    for names in offered:
        mine = [name for name in names if name in left]
        left = [name for name in left if name not in mine]
        out.append(mine)
    return out


def _share(progress: Progress | None, n: int, of: int) -> Progress | None:
    return None if progress is None else lambda fraction: progress((n + fraction) / of)


def _anonymous(note: str, source: Path, case: Case) -> str:
    """A reader's remark without what may name the patient: where the files lie, and the patient's own attributes."""
    import re

    attributes = getattr(case.source, "patient", {})
    told = [str(attributes.get(keyword, "")) for keyword in ("PatientName", "PatientID", "PatientBirthDate")]
    told += [part for value in told for part in re.split(r"[\^= ,]+", value)]
    told += [str(source.resolve()), str(source), *([source.name] if source.is_file() else ())]
    for word in sorted({word for word in told if len(word) > 2}, key=len, reverse=True):
        note = re.sub(re.escape(word), "[...]", note, flags=re.IGNORECASE)
    return note


def _other_structures(case: Case) -> list[str]:
    if not case.structures:
        return []
    return [f"Contours that came with the CT were left aside: {', '.join(case.structures)}."]


def _write(
    case: Case, rows: list[report.Row], record: dict[str, Any], out: Path, *, add_to: Path | None, overwrite: bool, clock: _Clock
) -> None:
    """All files into a hidden folder, which then becomes ``out`` in one step."""
    with writing_folder(out) as folder:
        with clock("write"):
            written = _write_contours(case, rows, record, folder, add_to)
            if "assess" in case.scores:
                written.append(report.write_scores(case, folder / SCORES))
        record["files"] = {path.relative_to(folder).as_posix(): _sha256(path.read_bytes()) for path in written}
        with clock("report"):
            record["timings_s"], record["peak_memory_mb"] = clock.so_far(), peak_memory_mb()
            report.write(record, case, rows, folder / PAGE)
        record["timings_s"], record["peak_memory_mb"] = clock.so_far(), peak_memory_mb()
        record["files"][PAGE] = _sha256((folder / PAGE).read_bytes())
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        check_out(out, folder, overwrite)  # another run may have finished meanwhile


def _write_contours(case: Case, rows: list[report.Row], record: Mapping[str, Any], folder: Path, add_to: Path | None) -> list[Path]:
    """The RTSTRUCT; where the CT was no DICOM, a mask file a structure."""
    if case.source is None:
        if add_to is not None:
            raise ConfigError("there is no RTSTRUCT to write where the CT is no DICOM", where=str(add_to), hint="leave out --add_to")
        from oncontour.io.layout import file_name
        from oncontour.io.nifti import write_image

        return [write_image(case.mask(row.name), folder / MASKS / f"{file_name(row.name)}.nii.gz") for row in rows]
    from oncontour.io.rtstruct import write_rtstruct

    described = "Draft by oncontour, to be reviewed. " + "; ".join(f"{one['name']} {one['sha256'][:12]}" for one in record["models"])
    written = write_rtstruct(
        case,
        folder / RTSTRUCT,
        structures=[row.name for row in rows],
        description=described,
        generation=f"oncontour {record['versions'].get('oncontour', '')}",
        existing=add_to,
        colours={row.name: row.colour for row in rows},
        observations=report.observations(case),
    )
    return [written]


def _record(
    case: Case, rows: Sequence[report.Row], models: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """What ``report.json`` holds; nothing in it names the patient."""
    tidied = [line for one in models for line in one.get("tidied", ())]
    return {
        "schema": SCHEMA,
        "case": pseudonym(case),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": {
            "modality": "CT",
            "shape": list(case.ct.geometry.shape),
            "spacing_mm": list(case.ct.geometry.spacing_mm),
            "series_uid_sha256": _sha256(_series(case).encode()),
            "voxels_sha256": _sha256(case.ct.array.tobytes()),
            "notes": list(notes),
        },
        "models": [{key: value for key, value in one.items() if key != "tidied"} for one in models],
        "settings": dict(settings),
        "tidy": tidied,
        "warnings": [f"{one['name']}: {text}" for one in models for text in one.get("notes", ())] + report.warnings(rows),
        "structures": [row.as_dict() for row in rows],
        **({"assess": report.scores_of(case)} if "assess" in case.scores else {}),
        "versions": versions(),
    }


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


def _series(case: Case) -> str:
    """What is unique to the image: its series' UID, else its voxels."""
    uid = str(getattr(case.source, "series_uid", "") or "")
    return uid or _sha256(case.ct.array.tobytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class _Clock:
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
