"""``oncontour features``: IBSI features of a whole cohort, in parallel processes, resumable, and not stopped by one bad patient.

Each finished patient is a small file in the folder OUT.parts, written whole or not at all. A second run computes only those that are
missing, failed, or were made from other files, other settings or by another version; then the table is put together anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from oncontour.core.notes import NoteCode, because, grouped
from oncontour.errors import CohortError, ConfigError, DoseError, IncompleteError, OncontourError, OutputError
from oncontour.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from oncontour.core.case import Case
    from oncontour.core.volume import Volume
    from oncontour.io.cohort import Cohort
    from oncontour.radiomics.extract import Settings

SCHEMA = "oncontour-features-1"
MOST_GY = 300.0
"""A median dose above this in a structure is not in Gy."""
NOISE = {"dose": 0.3, "ct": 10.0}
"""Standard deviation of perturbing noise: Gy, HU."""
BEFORE = ("patient", "structure", "image", "voxels", "voxels_used", "remark")
"""Columns before the features: the structure's voxels, how many of them have a known intensity in range, and what is to be said."""

T = TypeVar("T")
Row = dict[str, Any]
Part = dict[str, Any]
Floats: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True)
class Plan:
    """What is computed of each patient; ``settings`` by image, in the order of the rows."""

    settings: dict[str, Settings]
    structures: tuple[str, ...] | None
    perturb: int
    seed: int

    def describe(self) -> dict[str, Any]:
        """As JSON holds it; equal plans give equal descriptions."""
        told = {"schema": SCHEMA, "version": _version(), "structures": self.structures, "perturb": self.perturb, "seed": self.seed}
        described: dict[str, Any] = json.loads(json.dumps({**told, "settings": {k: asdict(v) for k, v in self.settings.items()}}))
        return described


def features(
    cohort: Path,
    *,
    out: Path,
    images: list[str] | None = None,
    structures: list[str] | None = None,
    spacing_mm: float = 3.0,
    bin_gy: float = 1.0,
    bin_hu: float = 25.0,
    bins: int | None = None,
    families: list[str] | None = None,
    aggregations: list[str] | None = None,
    names: Literal["short", "code", "words"] = "short",
    perturb: int = 0,
    seed: int = 0,
    jobs: int = 0,
    progress: Progress | None = None,
) -> str:
    """IBSI features of every structure of every patient, on dose and on CT: one row a patient, structure and image.

    Definitions are those of the IBSI reference manual, and its consensus values are reproduced (docs/ibsi.md). Image and mask are
    interpolated to cubes of --spacing_mm; dose is binned from 0 Gy, CT from -1000 HU (what is below or above 3000 HU is left out).
    Beside OUT stand a table that translates the columns (OUT without its ending, .columns.csv) and, with --perturb, one that tells
    which features bear small changes (.robustness.csv: ICC(1,1) and ICC(3,1) with 95 % intervals over patients): shifts up to half a
    voxel, turns up to 5 degrees, noise of 0.3 Gy or 10 HU, contours that move by 1 mm (standard deviation).

    A feature that is not defined (elongation of a single voxel, autocorrelation of a constant dose) is an empty cell. A structure that
    a patient does not have has no row; one outside the dose has a row with a remark. A patient that cannot be used is named at the end,
    the exit code is then 2, and the others are in the table. A second run goes on where the first stopped: finished patients wait in
    the folder OUT.parts, which may be deleted when all is done.

    Examples:
        oncontour features COHORT --out features.csv
        oncontour features COHORT --out features.csv --structures Esophagus,Larynx --images dose --bin_gy 2
        oncontour features COHORT --out features.csv --perturb 10 --jobs 8
        oncontour features COHORT --out features.parquet --aggregations 2D_comb,3D_avg --names words

    Args:
        cohort: folder of patient folders, or a CSV with the columns patient,path
        out: the table, .csv or .parquet
        images: which of dose and ct; both where a patient has both unless said
        structures: only these (TG-263 names); every structure of each patient unless said
        spacing_mm: edge of the cubes that features are computed on; 0 keeps each image's own voxels
        bin_gy: width of a dose bin
        bin_hu: width of a CT bin
        bins: this many bins between least and greatest intensity, instead of bins of fixed width
        families: of morph, loc, stat, ih, ivh, cm, rlm, szm, dzm, ngt, ngl; all unless said
        aggregations: of 2D_avg, 2D_comb, 2_5D_avg, 2_5D_comb, 3D_avg, 3D_comb; 3D_comb (all directions merged) unless said
        names: what columns are called: short names, IBSI identifiers, or words
        perturb: repeat on so many perturbed copies of each patient (shift, turn, noise, contour) and report robustness
        seed: of the perturbations
        jobs: processes at once; as many as there are processors unless said
        progress: called with the fraction done
    """
    from oncontour.io.cohort import Cohort

    _check(out, perturb, jobs, spacing_mm)
    _check_replaces(out)
    plan = Plan(_settings(images, spacing_mm, bin_gy, bin_hu, bins, families, aggregations), _named(structures), perturb, seed)
    patients = Cohort.open(cohort)
    parts = out.with_name(out.name + ".parts")
    waiting, done = _waiting(patients, plan, parts)
    failed = dict(_computed(patients, plan, parts, waiting, jobs or _processors(), _reporter(progress, len(waiting))))
    found = {id: _read(_place(parts, id)) for id in patients.ids if id not in failed}
    if found:
        _write(out, plan, found, names)
    told = _told(out, plan, found, done)
    if failed:
        listed = "; ".join(f"{id}: {why}" for id, why in failed.items())
        rest = f"the other {len(found)} are in {out}" if found else "nothing was written"
        hint = "mend or leave out these patients and run it again: the others are not computed again"
        what = f"{len(failed)} of {len(patients)} patients could not be used ({listed}); {rest}"
        raise IncompleteError(what, where=str(cohort), hint=hint, done=told if found else "")
    return told


# ---- what is asked for


def _check(out: Path, perturb: int, jobs: int, spacing_mm: float) -> None:
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"a table is written as .csv or .parquet, not {out.suffix or out.name!r}", hint="--out features.csv")
    if perturb < 0 or perturb == 1:
        raise ConfigError(f"an agreement needs two perturbations or more (0 for none), not {perturb}")
    if jobs < 0:
        raise ConfigError(f"processes are counted from 1 (0 for as many as there are processors), not {jobs}")
    if not (math.isfinite(spacing_mm) and (spacing_mm == 0 or spacing_mm >= 0.1)):
        raise ConfigError(f"a spacing is 0.1 mm or more (0 for the image's own), not {spacing_mm}")


def _check_replaces(out: Path) -> None:
    """Raise OutputError where ``out`` is there and no earlier table of features: the cohort's own CSV, a table of outcomes."""
    if not out.exists():
        return
    try:
        if out.suffix == ".csv":
            with out.open(encoding="utf-8") as file:
                ours = file.readline().startswith(",".join(BEFORE))
        else:
            from pyarrow import parquet

            ours = b"oncontour" in (parquet.read_schema(out).metadata or {})
    except (OSError, ValueError):  # ArrowInvalid and UnicodeDecodeError are ValueErrors
        ours = False
    if not ours:
        raise OutputError("what is there is no table of features, and would be replaced", where=str(out), hint="name another file as --out")


def _settings(
    images: Sequence[str] | None,
    spacing_mm: float,
    bin_gy: float,
    bin_hu: float,
    bins: int | None,
    families: Sequence[str] | None,
    aggregations: Sequence[str] | None,
) -> dict[str, Settings]:
    from oncontour.radiomics.extract import CT, DOSE

    known = {"dose": (DOSE, bin_gy), "ct": (CT, bin_hu)}
    chosen = tuple(dict.fromkeys(images or known))
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ConfigError(f"features are computed on {' and '.join(known)}, not on {unknown[0]!r}")
    out = {}
    for image in chosen:
        base, width = known[image]
        if not (math.isfinite(width) and width > 0):
            raise ConfigError(f"a bin is wider than 0, not {width}", where=f"bins of {image}")
        processing = replace(base.processing, spacing_mm=(spacing_mm,) * 3 if spacing_mm else None)
        out[image] = replace(
            base,
            processing=processing,
            bin_width=None if bins else width,
            bins=bins,
            families=tuple(families or base.families),
            aggregations=tuple(aggregations or base.aggregations),
        )
    return out


def _named(structures: Sequence[str] | None) -> tuple[str, ...] | None:
    from oncontour.io.names import to_tg263

    return tuple(dict.fromkeys(to_tg263(name) or name for name in structures)) if structures else None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- one patient


def patient(path: Path, id: str, plan: Plan) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of one patient, perturbed copies after the plain one (``repetition`` 0), and what was remarked on reading it.

    Raises what ``io.read`` raises, and DoseError or CohortError for a patient without the images or structures that are asked for.
    """
    from oncontour.dose.cells import check
    from oncontour.io.cohort import Cohort

    case = Cohort({id: path})[id]
    images = [name for name in plan.settings if name in case.images]
    if not images:
        why = because(case.facts.get("notes", ()), NoteCode.DOSE_LEFT_OUT) if "dose" in plan.settings else ""
        raise CohortError(f"neither {' nor '.join(plan.settings)} among the images {sorted(case.images)}{why}")
    wanted = case.structures if plan.structures is None else [name for name in plan.structures if name in case.structures]
    if not wanted:
        asked = "no structures" if plan.structures is None else f"none of {', '.join(plan.structures)}; there are {list(case.structures)}"
        raise CohortError(asked + because(case.facts.get("notes", ()), NoteCode.STRUCTURES_LEFT_OUT))
    if "dose" in images:
        check(case.images["dose"].array, "dose")
    return [row for name in wanted for image in images for row in _rows(case, name, image, plan)], tuple(case.facts.get("notes", ()))


def _check_unit(values: Floats, structure: str) -> None:
    """Raise DoseError for numbers that cannot be Gy."""
    import numpy as np

    middle = float(np.median(values)) if values.size else 0.0
    if middle > MOST_GY:
        what = f"{structure} would receive {middle:.0f} Gy in the median: the numbers look like centigray"
        raise DoseError(what, hint="export the dose in Gy")


def _doubt(dose: Volume) -> str:
    """What a structure of little dose does not show, and the whole dose does."""
    highest = float(dose.array.max(initial=0))
    return f"the dose reaches {highest:.0f} Gy elsewhere: is it centigray?" if highest > MOST_GY else ""


def _rows(case: Case, structure: str, image: str, plan: Plan) -> Iterator[Row]:
    from oncontour.radiomics.extract import measure
    from oncontour.radiomics.region import prepare
    from oncontour.radiomics.robustness import Perturbation, draws

    settings = plan.settings[image]
    volume, mask = case.images[image], case.mask(structure)
    doubt = _doubt(volume) if image == "dose" else ""
    changes = [Perturbation(), *(draws(plan.perturb, plan.seed, noise_sd=NOISE[image]) if plan.perturb else ())]
    for n, change in enumerate(changes):
        changed, moved, grid = change.apply(volume, mask, settings.processing.spacing_mm)
        region = prepare(changed, moved, settings.processing, grid)
        if image == "dose":
            _check_unit(region.values, structure)
        voxels, used = int(region.morphological.sum()), int(region.intensity.sum())
        yield {
            "structure": structure,
            "image": image,
            "repetition": n,
            "voxels": voxels,
            "voxels_used": used,
            "remark": _remark(voxels, used, image) or doubt,
            "values": {name: value if math.isfinite(value) else None for name, value in measure(region, settings).items()},
        }


def _remark(voxels: int, used: int, image: str) -> str:
    if not voxels:
        return "no voxel inside: the structure is empty, smaller than a voxel, or outside the image"
    if not used:
        return f"no voxel with a known {image} in range"
    return f"{100 * (1 - used / voxels):.0f} % of the structure has no known {image} in range" if used < 0.95 * voxels else ""


# ---- all of them


def _waiting(patients: Cohort, plan: Plan, parts: Path) -> tuple[list[str], int]:
    """Patients still to compute, and how many are finished."""
    waiting = [id for id in patients.ids if not _is_finished(_place(parts, id), _made_of(patients.path(id), plan))]
    return waiting, len(patients) - len(waiting)


def _computed(
    patients: Cohort, plan: Plan, parts: Path, waiting: Sequence[str], jobs: int, report: Callable[[], None]
) -> Iterator[tuple[str, str]]:
    """Compute and keep each patient of ``waiting``; gives those that failed, and why, in the order of the cohort."""
    failed: dict[str, str] = {}
    for id, found in spread(partial(_safely, dict(patients.paths), plan), waiting, jobs):
        if isinstance(found, str):
            failed[id] = found
        else:
            rows, notes = found
            _keep(_place(parts, id), {"made_of": _made_of(patients.path(id), plan), "patient": id, "rows": rows, "notes": notes})
        report()
    yield from ((id, failed[id]) for id in waiting if id in failed)


def spread(work: Callable[[str], T], ids: Sequence[str], jobs: int) -> Iterator[tuple[str, T | str]]:
    """(id, what ``work`` gives for it) as they come from ``jobs`` processes; ``work`` must not raise.

    A process that is killed takes its pool down with it: those left unfinished are done again one by one, each in a process of its own,
    so that only the one who kills it is lost; its result is a sentence.
    """
    if jobs == 1 or len(ids) < 2:
        yield from ((id, work(id)) for id in ids)
        return
    left = dict.fromkeys(ids)
    for id, found in _in_pool(work, ids, min(jobs, len(ids))):
        del left[id]
        yield id, found
    for id in left:
        alone = list(_in_pool(work, [id], 1))
        yield alone[0] if alone else (id, "the process that computed it was killed (is there enough memory?)")


def _in_pool(work: Callable[[str], T], ids: Sequence[str], jobs: int) -> Iterator[tuple[str, T]]:
    """Results of a pool of fresh processes until it breaks, if it does."""
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        running: dict[Future[T], str] = {pool.submit(work, id): id for id in ids}
        for future in as_completed(running):
            with suppress(BrokenProcessPool):
                yield running[future], future.result()
    except BrokenProcessPool:
        return
    finally:
        pool.shutdown(cancel_futures=True)


def _safely(paths: dict[str, Path], plan: Plan, id: str) -> tuple[list[Row], tuple[str, ...]] | str:
    """The rows of a patient, or in a sentence why there are none: whatever is wrong with one stops no other."""
    try:
        return patient(paths[id], id, plan)
    except OncontourError as error:
        return str(error)
    except MemoryError:
        return "needs more memory than there is"
    except Exception as error:
        return f"an error nobody expected ({type(error).__name__}: {str(error)[:200]})"


def _reporter(progress: Progress | None, total: int) -> Callable[[], None]:
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done / total)

    return report


# ---- finished patients


def _place(parts: Path, id: str) -> Path:
    """Where a patient's rows wait; ids of any characters, none of them a path."""
    return parts / f"{hashlib.sha256(id.encode()).hexdigest()[:24]}.json"


def _made_of(path: Path, plan: Plan) -> str:
    """Changes with the plan and with the name, size or date of any file of the patient."""
    from oncontour.files import walk

    below = (parent / name for parent, _, names in walk(path) for name in names)
    files = [path] if path.is_file() else sorted(file for file in below if file.is_file())
    told = [(file.relative_to(path.parent).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([plan.describe(), told]).encode()).hexdigest()


def _is_finished(place: Path, made_of: str) -> bool:
    try:
        return bool(_read(place)["made_of"] == made_of)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read(place: Path) -> Part:
    part: Part = json.loads(place.read_text(encoding="utf-8"))
    return part


def _keep(place: Path, part: Part) -> None:
    from oncontour.files import write_text

    write_text(place, json.dumps(part))


# ---- tables


def _write(out: Path, plan: Plan, found: dict[str, Part], names: str) -> None:
    """The table, the translation of its columns, the settings, and robustness where it was asked for."""
    from oncontour.files import write_text
    from oncontour.radiomics.names import code, words

    tags = _tags(found)
    called = {tag: {"short": tag, "code": code(tag), "words": words(tag)}[names] for tag in tags}
    rows = [
        {"patient": id, **{key: row[key] for key in BEFORE[1:]}, **{called[tag]: row["values"].get(tag) for tag in tags}}
        for id, part in found.items()
        for row in part["rows"]
        if row["repetition"] == 0
    ]
    columns = [*BEFORE, *called.values()]
    if out.suffix == ".parquet":
        _write_parquet(out, rows, called, plan.describe())
    else:
        write_text(out, _as_csv(columns, rows))
    translated = [{"column": called[tag], "short": tag, "ibsi": code(tag), "words": words(tag)} for tag in tags]
    write_text(out.with_suffix(".columns.csv"), _as_csv(["column", "short", "ibsi", "words"], translated))
    write_text(
        out.with_suffix(".settings.json"), json.dumps({**plan.describe(), "notes": grouped(_notes(found), most=None)}, indent=2) + "\n"
    )
    if plan.perturb:
        robust = _robustness(found, tags, called)
        write_text(out.with_suffix(".robustness.csv"), _as_csv(ROBUST, robust))


def _notes(found: dict[str, Part]) -> dict[str, list[str]]:
    """Patient -> what was remarked on reading it."""
    return {id: part.get("notes", []) for id, part in found.items()}


def _tags(found: dict[str, Part]) -> list[str]:
    """Every feature that any row has, in the order of the first row (same settings, same features)."""
    return list(dict.fromkeys(tag for part in found.values() for row in part["rows"] for tag in row["values"]))


ROBUST = ("structure", "image", "column", "patients", "repetitions", "icc_1_1", "low_1_1", "high_1_1", "icc_3_1", "low_3_1", "high_3_1")


def _robustness(found: dict[str, Part], tags: Sequence[str], called: dict[str, str]) -> list[Row]:
    """Agreement of the perturbed repetitions (the plain one apart) over patients, for each structure, image and feature."""
    from oncontour.radiomics.robustness import agreements

    groups: dict[tuple[str, str], dict[str, list[dict[str, float]]]] = {}
    for id, part in found.items():
        for row in part["rows"]:
            if row["repetition"]:
                values = {tag: math.nan if row["values"].get(tag) is None else float(row["values"][tag]) for tag in tags}
                groups.setdefault((row["structure"], row["image"]), {}).setdefault(id, []).append(values)
    out = []
    for (structure, image), people in groups.items():
        agreed = agreements(list(people.values()))
        for tag in tags:
            one, three = agreed[tag]
            whole = sum(all(math.isfinite(row[tag]) for row in rows) for rows in people.values())
            numbers = (one.value, one.low, one.high, three.value, three.low, three.high)
            head = (structure, image, called[tag], whole, len(next(iter(people.values()))))
            out.append(dict(zip(ROBUST, (*head, *(n if math.isfinite(n) else None for n in numbers)), strict=True)))
    return out


def _as_csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """An undefined number is an empty cell; numbers are written so that they read back the same."""
    import csv
    import io

    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _write_parquet(out: Path, rows: Sequence[Row], called: dict[str, str], told: dict[str, Any]) -> None:
    """Text, whole numbers and double precision as such, null where a feature is not defined; columns know their identifier and words."""
    import pyarrow
    from pyarrow import parquet

    from oncontour.files import writing
    from oncontour.radiomics.names import code, words

    kinds = {"voxels": pyarrow.int64(), "voxels_used": pyarrow.int64()}
    before = [pyarrow.field(name, kinds.get(name, pyarrow.string())) for name in BEFORE]
    after = [pyarrow.field(called[tag], pyarrow.float64(), metadata={"ibsi": code(tag), "words": words(tag)}) for tag in called]
    schema = pyarrow.schema([*before, *after], metadata={"oncontour": json.dumps(told)})
    with writing(out) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), temporary)


def _told(out: Path, plan: Plan, found: dict[str, Part], done: int) -> str:
    rows = [row for part in found.values() for row in part["rows"] if row["repetition"] == 0]
    lines = [f"{len(_tags(found))} features of {len(rows)} regions in {len(found)} patients ({done} of them from an earlier run) in {out}"]
    remarks: dict[str, int] = {}
    for row in rows:
        if row["remark"]:
            key = f"{row['structure']}, {row['image']}: {row['remark']}"
            remarks[key] = remarks.get(key, 0) + 1
    shown = list(remarks.items())[:20]
    lines += [f"  {text}" + (f" ({times} patients)" if times > 1 else "") for text, times in shown]
    if len(remarks) > len(shown):
        lines.append(f"  and {len(remarks) - len(shown)} more remarks, in the column 'remark'")
    lines += [f"  {line}" for line in grouped(_notes(found))]
    for image in plan.settings:
        without = sum(all(row["image"] != image for row in part["rows"]) for part in found.values())
        if without:
            lines.append(f"  no {image}: {without} of {len(found)} patients")
    nowhere = [name for name in plan.structures or () if not any(row["structure"] == name for row in rows)]
    if not plan.perturb and (old := out.with_suffix(".robustness.csv")).exists():
        lines.append(f"  {old.name} is of an earlier run with --perturb, not of this table")
    if nowhere and rows:
        lines.append(f"  in no patient: {', '.join(nowhere)}")
    return "\n".join(lines)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("oncontour")
    except PackageNotFoundError:
        return "(not installed)"
