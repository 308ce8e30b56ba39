"""``oncontour features``: IBSI features of a whole cohort, in parallel processes, resumable, and not stopped by one bad patient.

Each finished patient is a small file in the folder OUT.parts, written whole or not at all. A second run computes only those that are
missing, failed, or were made from other files, other settings or by another version; then the table is put together anew.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from oncontour.commands.cohort import made_of
from oncontour.commands.cohort_spread import spread
from oncontour.commands.cohort_table import Table
from oncontour.commands.cohort_work import Outcome
from oncontour.core.notes import NoteCode, because, counted, grouped
from oncontour.errors import CohortError, ConfigError
from oncontour.libraries import need
from oncontour.many import Many
from oncontour.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from oncontour.radiomics.extract import Settings
    from oncontour.radiomics.filters.settings import Filter
    from oncontour.radiomics.rows import Plan
    from oncontour.radiomics.table import Part, Row

Floats: TypeAlias = "NDArray[np.float64]"


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
    filters: list[str] | None = None,
    names: Literal["short", "code", "words"] = "short",
    perturb: int = 0,
    seed: int = 0,
    many: Many = Many(),  # noqa: B008  (frozen: one value for all calls)
    progress: Progress | None = None,
) -> str:
    """IBSI features of every structure of every patient, on dose and on CT: one row a patient, structure and image.

    Definitions are those of the IBSI reference manual, and its consensus values are reproduced (docs/ibsi.md). Image and mask are
    interpolated to cubes of --spacing_mm; dose is binned from 0 Gy, CT from -1000 HU (what is below or above 3000 HU is left out).
    Beside OUT stand a table that translates the columns (OUT without its ending, .columns.csv) and, with --perturb, one that tells
    which features bear small changes (.robustness.csv: ICC(1,1) and ICC(3,1) with 95 % intervals over patients): shifts up to half a
    voxel, turns up to 5 degrees, noise of 0.3 Gy or 10 HU, contours that move by 1 mm (standard deviation).

    With --filters each image is also seen through these filters of IBSI-2, and has a row for each: mean, log (Laplacian of Gaussian),
    laws, gabor, wavelet, simoncelli, with settings after colons. A filter sees the whole interpolated image; its response is taken where
    the image itself is known and in range, in 32 bins (or --bins) between its least and greatest value there, and has no features of
    shape. The settings file holds every setting of each.

    A feature that is not defined (elongation of a single voxel, autocorrelation of a constant dose) is an empty cell. A structure that
    a patient does not have has no row; one outside the dose has a row with a remark. A patient that cannot be used is named at the end,
    the exit code is then 2, and the others are in the table. A second run goes on where the first stopped: finished patients wait in
    the folder OUT.parts, which may be deleted when all is done.

    Examples:
        oncontour features COHORT --out features.csv
        oncontour features COHORT --out features.csv --structures Esophagus,Larynx --images dose --bin_gy 2
        oncontour features COHORT --out features.csv --perturb 10 --jobs 8
        oncontour features COHORT --out features.parquet --aggregations 2D_comb,3D_avg --names words
        oncontour features COHORT --out features.csv --filters log:sigma_mm=3,laws:kernels=L5E5E5,wavelet:bands=HHH:family=coif1

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
        filters: filters of the image, such as log:sigma_mm=3 (docs/ibsi.md lists them); none unless said
        names: what columns are called: short names, IBSI identifiers, or words
        perturb: repeat on so many perturbed copies of each patient (shift, turn, noise, contour) and report robustness
        seed: of the perturbations
        many: processes, shard and engine
        progress: called with the fraction done
    """
    from oncontour.io.cohort import Cohort
    from oncontour.radiomics.rows import Plan
    from oncontour.radiomics.table import Part, check_replaces, write

    _check(out, perturb, spacing_mm)
    check_replaces(out)
    settings = _settings(images, spacing_mm, bin_gy, bin_hu, bins, families, aggregations)
    plan = Plan(settings, _named(structures), perturb, seed, _filters(filters, settings, perturb))
    patients = Cohort.open(cohort)
    parts = out.with_name(out.name + ".parts")
    work = _Rows(dict(patients.paths), plan, parts)
    became = spread(work, patients.ids, many, Table(parts), progress)
    done = set(became.done)
    found = {id: Part.read(_place(parts, id)) for id in patients.ids if id in done or (many.shard and work.is_there(id))}
    if found:
        write(out, plan.describe(), found, names, robust=plan.perturb > 0)
    told = _told(out, plan, found, became.earlier) if found else ""
    return became.told(str(cohort), told)


# ---- what is asked for


def _check(out: Path, perturb: int, spacing_mm: float) -> None:
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"a table is written as .csv or .parquet, not {out.suffix or out.name!r}", hint="--out features.csv")
    if out.suffix == ".parquet":
        need("pyarrow", "a table as .parquet")
    if perturb < 0 or perturb == 1:
        raise ConfigError(f"an agreement needs two perturbations or more (0 for none), not {perturb}")
    if not (math.isfinite(spacing_mm) and (spacing_mm == 0 or spacing_mm >= 0.1)):
        raise ConfigError(f"a spacing is 0.1 mm or more (0 for the image's own), not {spacing_mm}")


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


def _filters(words: Sequence[str] | None, settings: dict[str, Settings], perturb: int) -> tuple[Filter, ...]:
    from oncontour.radiomics.extract import of_response
    from oncontour.radiomics.filters.settings import parse

    found = tuple(dict.fromkeys(parse(word) for word in words or ()))
    if found and perturb:
        raise ConfigError(
            "robustness is told of features of the image itself, not of filtered ones", hint="leave out --filters or --perturb"
        )
    for one in settings.values() if found else ():
        of_response(one)
    return found


def _named(structures: Sequence[str] | None) -> tuple[str, ...] | None:
    from oncontour.io.names import to_tg263

    return tuple(dict.fromkeys(to_tg263(name) or name for name in structures)) if structures else None


# ---- one patient


def patient(path: Path, id: str, plan: Plan) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of one patient, perturbed copies after the plain one (``repetition`` 0), and what was remarked on reading it.

    Raises what ``io.read`` raises, and DoseError or CohortError for a patient without the images or structures that are asked for.
    """
    from oncontour.dose.cells import check
    from oncontour.io.cohort import Cohort
    from oncontour.radiomics.rows import rows_of_image

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
    rows = {image: rows_of_image(case, image, wanted, plan) for image in images}
    return [row for name in wanted for image in images for row in rows[image][name]], tuple(case.facts.get("notes", ()))


# ---- all of them


@dataclass(frozen=True)
class _Rows:
    """The rows of each patient, kept as a file in ``parts``."""

    paths: Mapping[str, Path]
    plan: Plan
    parts: Path

    def __call__(self, id: str) -> Outcome:
        from oncontour.radiomics.table import Part

        rows, notes = patient(self.paths[id], id, self.plan)
        Part(self.made_of(id), id, tuple(rows), notes).write(_place(self.parts, id))
        return Outcome(id)

    def made_of(self, id: str) -> str:
        return made_of([self.paths[id]], json.dumps(self.plan.describe()))

    def is_there(self, id: str) -> bool:
        from oncontour.radiomics.table import Part

        try:
            return Part.read(_place(self.parts, id)).made_of == self.made_of(id)
        except (OSError, ValueError, KeyError, TypeError):
            return False


def _place(parts: Path, id: str) -> Path:
    """Where a patient's rows wait; ids of any characters, none of them a path."""
    return parts / f"{hashlib.sha256(id.encode()).hexdigest()[:24]}.json"


def _told(out: Path, plan: Plan, found: dict[str, Part], done: int) -> str:
    from oncontour.radiomics.table import feature_names, notes

    rows = [row for part in found.values() for row in part.plain]
    lines = [
        f"{len(feature_names(found))} features of {counted(len(rows), 'region')} in {counted(len(found), 'patient')} "
        f"({done} of them from an earlier run) in {out}"
    ]
    remarks: dict[str, int] = {}
    for row in rows:
        if row.remark:
            key = f"{row.structure}, {row.image}: {row.remark}"
            remarks[key] = remarks.get(key, 0) + 1
    shown = list(remarks.items())[:20]
    lines += [f"  {text}" + (f" ({times} patients)" if times > 1 else "") for text, times in shown]
    if len(remarks) > len(shown):
        lines.append(f"  and {len(remarks) - len(shown)} more remarks, in the column 'remark'")
    lines += [f"  {line}" for line in grouped(notes(found))]
    for image in plan.settings:
        without = sum(all(row.image != image for row in part.rows) for part in found.values())
        if without:
            lines.append(f"  no {image}: {without} of {len(found)} patients")
    nowhere = [name for name in plan.structures or () if not any(row.structure == name for row in rows)]
    if not plan.perturb and (old := out.with_suffix(".robustness.csv")).exists():
        lines.append(f"  {old.name} is of an earlier run with --perturb, not of this table")
    if nowhere and rows:
        lines.append(f"  in no patient: {', '.join(nowhere)}")
    return "\n".join(lines)
