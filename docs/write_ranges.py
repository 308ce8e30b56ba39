"""The volumes and positions that the rule checks call usual, measured on a cohort and written as JSON.

    python docs/write_ranges.py COHORT OUT.json [STRUCTURE ...]

The ranges that are shipped (src/oncontour/quality/rules/ranges.json) were made from the 140 training patients of OpenKBP, with Brainstem,
SpinalCord, Parotid_L, Parotid_R, Esophagus, Larynx, Bone_Mandible and PTV_7000 as structures. Without any named, all of the cohort's
structures are measured; those in fewer than 20 patients are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from oncontour.core.case import Case
from oncontour.io.cohort import Cohort
from oncontour.quality.rules import ranges_of, write_ranges


def main() -> int:
    if len(sys.argv) < 3:
        sys.stdout.write(__doc__ or "")
        return 2
    cohort, out, wanted = Cohort.open(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    ranges = ranges_of(cases(cohort, wanted), f"{cohort_name(sys.argv[1])}, {len(cohort)} patients")
    write_ranges(ranges, out)
    sys.stdout.write(f"{len(ranges.structures)} structures and {len(ranges.steps_mm)} pairs of {ranges.source}: {out}\n")
    return 0


def cases(cohort: Cohort, wanted: list[str]) -> Iterator[Case]:
    for id in cohort:
        case = cohort[id]
        names = [name for name in case.structures if not wanted or name in wanted]
        yield replace(case, masks={name: case.mask(name) for name in names}, contours={})


def cohort_name(path: str) -> str:
    """The last two folders of a path: openkbp/train."""
    return "/".join(Path(path).resolve().parts[-2:])


if __name__ == "__main__":
    sys.exit(main())
