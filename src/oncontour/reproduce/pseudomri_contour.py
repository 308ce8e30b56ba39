"""Does the made image help to contour? One tumour, four folds, four arms: CT, sMRI, both, and the CT twice; and an ellipsoid that looks at
nothing."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from oncontour.contour.inputs import ContourSettings
from oncontour.contour.predict import Contourer
from oncontour.contour.task import ContourTask, Sample
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.files import csv_text, write_text
from oncontour.io.image.nifti import read_image, write_image
from oncontour.learn.fit import fit
from oncontour.learn.task import load_weights, seeded
from oncontour.learn.train_settings import TrainSettings
from oncontour.metrics.overlap import dsc
from oncontour.metrics.surface import surfaces
from oncontour.ops.augment import Ranges
from oncontour.ops.tidy import Tidy
from oncontour.reproduce.steps import slug, stub

ARMS: dict[str, tuple[str, ...]] = {"CT": ("ct",), "sMRI": ("smr",), "CT + sMRI": ("ct", "smr"), "CT twice": ("ct", "ct")}
ELLIPSOID = "ellipsoid from the crop alone"
METRICS = ("dsc", "hd95_mm", "msd_mm")
FOLDS = 4
_MARGIN_MM = 50.0
"""The cohort's images were cropped so far round the tumour."""


@dataclass(frozen=True)
class Drawn:
    """What a method drew of a patient: distances are inf where it drew nothing."""

    method: str
    patient: str
    fold: int
    dsc: float
    hd95_mm: float
    msd_mm: float


def folds(ids: Sequence[str], seed: int) -> dict[str, int]:
    """Patient -> the fold in which it is judged."""
    order = seeded(seed, 4).permutation(len(ids))
    return {ids[int(n)]: at % FOLDS for at, n in enumerate(order)}


def ellipsoid(grid: Geometry) -> Volume:
    """In the middle of the image, as large as what is left of it without the margin that it was cropped with."""
    size = np.asarray(grid.shape) * np.asarray(grid.spacing_mm)
    axes = np.maximum(size / 2 - _MARGIN_MM, 5.0)
    at = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)), indexing="ij")
    return Volume(sum((a / axis) ** 2 for a, axis in zip(at, axes, strict=True)) <= 1, grid)


class Shared(ContourTask):
    """The task with its samples made once for all arms and folds."""

    def __init__(self, settings: ContourSettings, bank: Mapping[str, list[Sample]]) -> None:
        super().__init__(settings)
        self._bank = bank

    def samples(self, case: Case) -> list[Sample]:
        return self._bank[case.id]

    def start_afresh(self) -> None:
        """All arms begin as the arm of one image does, whose first filters are shared evenly among several: in so few updates another
        beginning tells more than another image."""
        if self.settings.channels == 1:
            super().start_afresh()
            return
        state = torch.get_rng_state()
        one = ContourTask(replace(self.settings, images=("ct",)))
        torch.set_rng_state(state)
        one.start_afresh()
        begun = one.net.state_dict()
        for name, own in self.net.state_dict().items():
            held = begun[name]
            own.copy_(held if held.shape == own.shape else held.expand_as(own) / self.settings.channels)


@dataclass(frozen=True)
class Contouring:
    """How the arms are trained: the structure, updates of each, and the net, the same but for its channels."""

    structure: str
    updates: int
    epoch_updates: int
    batch: int
    spacing_mm: tuple[float, float, float]
    window: tuple[int, int, int]
    widths: tuple[int, ...]
    precision: str
    seed: int
    threads: int | None

    def settings(self, images: tuple[str, ...]) -> ContourSettings:
        return ContourSettings(
            structures=(self.structure,),
            images=images,
            net_options={"widths": self.widths},
            spacing_mm=self.spacing_mm,
            window=self.window,
            draws=self.epoch_updates * self.batch,
            augment=Ranges(flip_left_right=True),
            overlap=False,
        )

    @property
    def training(self) -> TrainSettings:
        return TrainSettings(
            epochs=max(1, round(self.updates / self.epoch_updates)),
            batch=self.batch,
            validation=0.0,
            precision=self.precision,  # type: ignore[arg-type]  # checked there
            seed=self.seed,
            threads=self.threads,
        )


def with_smr(case: Case, folder: Path, make: Callable[[Case], Volume]) -> Case:
    """The case with its made image, from FOLDER where it was made before."""
    path = folder / f"{case.id}.nii.gz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_image(make(case), path)
    return case.with_images({"smr": read_image(path)})


def contoured(cases: Sequence[Case], out: Path, arms: Sequence[str], how: Contouring) -> list[Drawn]:
    """What every arm draws in every patient, learned from the other folds; made once and kept. ``cases`` have an smr."""
    fold_of = folds([case.id for case in cases], how.seed)
    bank: dict[str, list[Sample]] = {}
    rows = []
    for fold in range(FOLDS):
        judged = [case for case in cases if fold_of[case.id] == fold]
        rows += [_row(ELLIPSOID, case, fold, ellipsoid(case.geometry), how.structure) for case in judged]
        for arm in arms:
            file = out / f"fold-{fold}" / slug(arm) / "judged.csv"
            if not file.exists():
                bank = bank or {case.id: ContourTask(how.settings(("ct", "smr"))).samples(case) for case in cases}
                sys.stderr.write(f"fold {fold + 1} of {FOLDS}, {arm}: {how.updates} updates\n")
                write_text(file, _csv(_learned(judged, arm, fold, fold_of, bank, file.parent, how)))
            rows += _read(file)
    return rows


def _learned(
    judged: Sequence[Case],
    arm: str,
    fold: int,
    fold_of: Mapping[str, int],
    bank: Mapping[str, list[Sample]],
    folder: Path,
    how: Contouring,
) -> list[Drawn]:
    """An arm learned from the other folds, and what it draws in this one."""
    task = Shared(how.settings(ARMS[arm]), bank)
    done = fit(task, [stub(id) for id in fold_of if fold_of[id] != fold], folder, how.training, name="model")
    load_weights(task.net, done.model)  # as they are in the file, in 16 bits
    contourer = Contourer(task.eval(), rules=Tidy.off(), threads=how.threads)
    return [_row(arm, case, fold, contourer.predict(case).mask(how.structure), how.structure) for case in judged]


def _row(method: str, case: Case, fold: int, drawn: Volume, structure: str) -> Drawn:
    true = case.mask(structure)
    apart = surfaces(true, drawn)
    return Drawn(method, case.id, fold, dsc(true, drawn), apart.hd95_mm, apart.msd_mm)


def _csv(rows: Sequence[Drawn]) -> str:
    lines = [[r.method, r.patient, r.fold, *(f"{getattr(r, m):.5f}" for m in METRICS)] for r in rows]
    return csv_text([["method", "patient", "fold", *METRICS], *lines])


def _read(path: Path) -> list[Drawn]:
    with path.open(encoding="utf-8", newline="") as file:
        return [Drawn(r["method"], r["patient"], int(r["fold"]), *(float(r[m]) for m in METRICS)) for r in csv.DictReader(file)]
