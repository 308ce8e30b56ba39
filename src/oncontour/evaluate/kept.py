"""What was found of a patient, kept until all patients are judged: as text, every digit of it, and its panels in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oncontour.evaluate.found import Failure, FieldRow, Judged, Row, Swap
from oncontour.evaluate.panels import Panel
from oncontour.files import writing


def as_text(found: Judged) -> str:
    """JSON of all but the panels."""
    told = {
        "patient": found.patient,
        "rows": [[row.method, row.structure, row.metric, row.value] for row in found.rows],
        "failures": [[one.method, one.reason] for one in found.failures],
        "swaps": [[one.method, one.structure] for one in found.swaps],
        "drawn": found.drawn,
        "meant": found.meant,
        "remarks": found.remarks,
        "elsewhere": found.elsewhere,
        "why": found.why,
        "fields": [astuple(row) for row in found.fields],
        "unnamed": found.unnamed,
    }
    return json.dumps(told)


def of_text(text: str) -> Judged:
    """As ``as_text`` was given it, without panels. Raises ValueError, KeyError or TypeError for other text."""
    told = json.loads(text)
    patient = str(told["patient"])
    return Judged(
        patient,
        tuple(Row(patient, *row) for row in told["rows"]),
        tuple(Failure(patient, *one) for one in told["failures"]),
        tuple(Swap(patient, *one) for one in told["swaps"]),
        (),
        {method: tuple(names) for method, names in told["drawn"].items()},
        tuple(told["meant"]),
        tuple(told["remarks"]),
        told["elsewhere"],
        tuple((what, way) for what, way in told["why"]),
        tuple(FieldRow(*row) for row in told["fields"]),
        {method: tuple(numbers) for method, numbers in told["unnamed"].items()},
    )


# ---- panels


def write_panels(panels: Sequence[Panel], path: Path) -> None:
    """Write them to ``path`` (.npz), whole or not at all."""
    arrays: list[NDArray[np.generic]] = []
    told = []
    for one in panels:
        told.append([one.patient, one.structure, one.rank, one.k, one.pixel_mm, one.dsc, list(one.predicted), one.image is not None])
        arrays += [one.truth, *one.predicted.values(), *([] if one.image is None else [one.image])]
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, np.frombuffer(json.dumps(told).encode(), np.uint8), *arrays)


def read_panels(path: Path) -> tuple[Panel, ...]:
    """The panels in ``path``; none where there is no such file."""
    if not path.exists():
        return ()
    with np.load(path, allow_pickle=False) as file:
        told, *arrays = (file[f"arr_{n}"] for n in range(len(file.files)))
    left = iter(arrays)
    out = []
    for patient, structure, rank, k, pixel_mm, dsc, methods, has_image in json.loads(told.tobytes()):
        truth, predicted = next(left), {method: next(left) for method in methods}
        image = next(left) if has_image else None
        out.append(Panel(patient, structure, rank, k, image, truth, predicted, dsc, (pixel_mm[0], pixel_mm[1])))
    return tuple(out)


@dataclass(frozen=True, eq=False)
class KeptPanels(Mapping[str, Sequence[Panel]]):
    """Patient -> panels, each patient's read from its file when it is asked for."""

    files: Mapping[str, Path]

    def __getitem__(self, patient: str) -> Sequence[Panel]:
        return read_panels(self.files[patient])

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
