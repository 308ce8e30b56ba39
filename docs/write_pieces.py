"""In how many pieces each structure of a cohort comes, after the tidying that drops none, as the table that tidying goes by.

    python docs/write_pieces.py COHORT OUT.csv

The table that is shipped (src/oncontour/ops/pieces.csv) was made from the 140 training patients of OpenKBP. It holds counts,
the part that the largest second piece had of the first, and how far apart the two lay: nothing of a single patient's anatomy beyond that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from oncontour.core.geometry import Geometry
from oncontour.files import write_text
from oncontour.io.cohort import Cohort
from oncontour.ops.pieces import Mask, as_csv, pieces_of
from oncontour.ops.tidy import Tidy, tidy


def main() -> int:
    if len(sys.argv) != 3:
        sys.stdout.write(__doc__ or "")
        return 2
    cohort, out = Cohort.open(sys.argv[1]), Path(sys.argv[2])
    rows = pieces_of(masks(cohort))
    write_text(out, as_csv(rows))
    sys.stdout.write(f"{len(rows)} structures of {len(cohort)} patients: {out}\n")
    return 0


def masks(cohort: Cohort) -> Iterator[dict[str, tuple[Mask, Geometry]]]:
    for id in cohort:
        case = cohort[id]
        tidied, _ = tidy({name: case.mask(name) for name in case.structures}, Tidy(pieces=0, overlap="off"))
        yield {name: (mask.array, mask.geometry) for name, mask in tidied.items()}


if __name__ == "__main__":
    sys.exit(main())
