"""Choose the real patient of the demo: near the median DSC of hn-organs, with usual voxels and every organ.

    oncontour evaluate VALIDATION --model hn-organs --out EVALUATION
    python docs/write_demo_patient.py VALIDATION EVALUATION

VALIDATION is the folder openkbp/validation. Writes docs/demo_patients.csv, a line a patient (the mean DSC of the organs that it has, the
voxel in mm, how many organs), and prints who is chosen: of the patients that have every organ, and pixels that are not among the largest or
the smallest tenth, the one whose DSC is nearest to the median of all patients. ``REAL`` in src/oncontour/commands/demo.py names it.
"""

from __future__ import annotations

import csv
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from oncontour.commands.demo import ORGANS
from oncontour.io.cohort import Cohort

TABLE = Path(__file__).with_name("demo_patients.csv")


@dataclass(frozen=True)
class Row:
    """One patient: mean DSC of its organs, distance of slices, size of a pixel, number of organs."""

    patient: str
    dsc: float
    slice_mm: float
    pixel_mm: float
    organs: int


def rows(validation: Path, evaluation: Path) -> list[Row]:
    """A row a patient, in the order of the cohort."""
    with (evaluation / "metrics.csv").open(encoding="utf-8", newline="") as file:
        scores = [line for line in csv.DictReader(file) if line["metric"] == "DSC" and line["value"] != "nan"]
    cohort, found = Cohort.open(validation), []
    for id in cohort:
        own = [float(line["value"]) for line in scores if line["patient"] == id and line["structure"] in ORGANS]
        slice_mm, pixel_mm, _ = cohort[id].geometry.spacing_mm
        found.append(Row(id, round(statistics.fmean(own), 4), round(slice_mm, 3), round(pixel_mm, 3), len(own)))
    return found


def chosen(table: list[Row]) -> Row:
    """The patient to show."""
    median = statistics.median(row.dsc for row in table)
    tenths = statistics.quantiles([row.pixel_mm for row in table], n=10, method="inclusive")
    usual = [row for row in table if row.organs == len(ORGANS) and tenths[0] <= row.pixel_mm <= tenths[-1]]
    return min(usual, key=lambda row: abs(row.dsc - median))


def read() -> list[Row]:
    """The committed table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [
            Row(line["patient"], float(line["dsc"]), float(line["slice_mm"]), float(line["pixel_mm"]), int(line["organs"]))
            for line in csv.DictReader(file)
        ]


def main() -> int:
    if len(sys.argv) != 3:
        sys.stdout.write(__doc__ or "")
        return 2
    table = rows(Path(sys.argv[1]), Path(sys.argv[2]))
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(table[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in table)
    median = statistics.median(row.dsc for row in table)
    sys.stdout.write(f"{TABLE.name}: {len(table)} patients, median DSC {median:.3f}; chosen: {chosen(table)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
