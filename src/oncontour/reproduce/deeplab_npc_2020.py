"""Xue et al., J Image Graphics 2020;25(10):2151-2158: DeepLabv3+ on MobileNetV2 against U-Net for a target on CT.

Faithful: nets, loss (1 - DSC), Adam 0.005 x0.8 after 5 epochs without gain, batch 8, flips, rotation, zoom, translation, 2D slices, the
four metrics of its equations 1 to 6, its paired t-test. What differs is said in ``papers/deeplab-npc-2020/README.md`` and in the table.
Two slice protocols: *target* judges on the slices that bear the target (what the paper's timing suggests it did), *all* on every slice.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from oncontour.commands.train import read_cases
from oncontour.contour import thresholds
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.files import csv_text, write_text
from oncontour.learn.fit import fit
from oncontour.learn.train_settings import TrainSettings
from oncontour.metrics.overlap import dsc, jaccard
from oncontour.metrics.stats import holm, p_text, paired_t, wilcoxon
from oncontour.metrics.surface import surfaces
from oncontour.ops.augment import Ranges
from oncontour.reproduce.steps import parts, slug

METRICS = ("dsc", "ji", "asd_mm", "hd_mm")
PUBLISHED = {
    "DeepLabv3+": {"dsc": (0.76, 0.11), "ji": (0.63, 0.13), "asd_mm": (3.4, 2.0), "hd_mm": (10.9, 8.6), "ms": 16.0},
    "U-Net": {"dsc": (0.73, 0.13), "ji": (0.59, 0.14), "asd_mm": (3.8, 3.3), "hd_mm": (11.1, 7.5), "ms": 14.0},
}
"""Their table: mean and SD over 15 patients; milliseconds for a slice of 512x512 on one Tesla P40."""
PUBLISHED_P = {"dsc": "<0.001", "ji": "<0.001", "asd_mm": "0.014", "hd_mm": "0.745"}


@dataclass(frozen=True)
class Arm:
    """One row of the table: a net, its options, and the slices it learned from."""

    name: str
    net: str
    options: dict[str, Any] = field(default_factory=dict)
    slices: str = "target"
    updates: int | None = None
    """instead of the run's; the ablations may be given fewer"""


ARMS = (
    Arm("DeepLabv3+", "deeplab"),
    Arm("U-Net", "unet"),
    Arm("DeepLabv3+, output stride 8", "deeplab", {"output_stride": 8}),
    Arm("DeepLabv3+, no ASPP", "deeplab", {"aspp": False}),
    Arm("DeepLabv3+, no decoder", "deeplab", {"decoder": False}),
    Arm("DeepLabv3+, trained on all slices", "deeplab", slices="all"),
)


def reproduce(
    cohort: Path,
    out: Path,
    *,
    mode: Literal["paper", "fair"] = "paper",
    structure: str = "PTV_7000",
    updates: int = 30000,
    epoch_updates: int = 50,
    window: Sequence[int] = (1, 80, 112),
    spacing_mm: Sequence[float] = (2.5, 4.0, 4.0),
    batch: int = 8,
    seed: int = 0,
    threads: int | None = None,
    arms: Sequence[str] = (),
    patients: int | None = None,
) -> str:
    """Train every arm with the paper's recipe for ``updates`` steps, judge it on the patients kept apart, write and give the table.

    ``mode`` "paper" keeps to the publication; "fair" gives every net our own recipe (DSC and cross-entropy, AdamW with a cosine, grey-value
    augmentation) and all slices. ``structure`` is the target (for OpenKBP ``PTV_7000``: a planning target volume, not the paper's gross
    tumour). ``updates`` counts optimiser steps, the same for every arm (the paper: 200 epochs of about 375); an "epoch", after which the
    learning rate may fall, is ``epoch_updates`` of them. ``arms`` names some of the rows; ``patients`` takes the first so many of each
    part (for a trial).
    Raises ConfigError for an unknown arm, CohortError when the cohort has no two parts.
    """
    chosen = [arm for arm in ARMS if not arms or arm.name in arms]
    if arms and len(chosen) != len(set(arms)):
        raise ConfigError(f"unknown arms among {list(arms)}", hint=f"choose from {[arm.name for arm in ARMS]}")
    train, test = parts(cohort, patients)
    learn = [case for case in read_cases(train) if structure in case.structures]
    rows: list[dict[str, Any]] = []
    speed: dict[str, float] = {}
    truth = [case for case in read_cases(test) if structure in case.structures]
    for arm in chosen:
        sys.stderr.write(f"{arm.name}\n")
        task = ContourTask(arm_settings(arm, structure, window, spacing_mm, epoch_updates * batch, mode))
        make = TrainSettings.paper if mode == "paper" else TrainSettings
        recipe = make(epochs=max(1, round((arm.updates or updates) / epoch_updates)), batch=batch, seed=seed, threads=threads)
        data = f"{len(learn)} patients, {structure}"
        fit(task, learn, out / slug(arm.name), recipe, name=slug(arm.name), data=data, finish=thresholds.finish)
        task.eval()
        rows += judge(arm.name, task, truth, structure)
        speed[arm.name] = milliseconds(task)
    write_text(out / "measured.csv", as_csv(rows))
    text = tables(rows, speed, structure=structure, n_train=len(learn), updates=updates, mode=mode)
    write_text(out / "table.md", text)
    return text


def arm_settings(arm: Arm, structure: str, window: Sequence[int], spacing_mm: Sequence[float], draws: int, mode: str) -> ContourSettings:
    """The paper's contouring settings for one arm. Grey values: -160 to 240 HU, as the paper names none."""
    depth, rows, columns = (int(n) for n in window)
    k, j, i = (float(s) for s in spacing_mm)
    moves = Ranges(rotation_deg=15, tilt_deg=0, zoom=0.15, shift_mm=20, flip_left_right=True, flip_front_back=mode == "paper")
    common: dict[str, Any] = {"structures": (structure,), "net": arm.net, "net_options": dict(arm.options), "spacing_mm": (k, j, i)}
    common |= {"window": (depth, rows, columns), "hu": (-160.0, 240.0), "draws": draws, "mask_body": False}
    if mode == "paper":
        still = replace(moves, hu_shift=0, hu_scale=0, noise_hu=0)
        return ContourSettings(**common, loss="paper", slices=arm.slices, augment=still)  # type: ignore[arg-type]
    return ContourSettings(**common, slices="all", augment=moves)


def judge(name: str, task: ContourTask, truth: Iterable[Case], structure: str) -> list[dict[str, Any]]:
    """One row a patient and protocol: the paper's four metrics, and what is claimed on slices without target."""
    from oncontour.contour.predict import Contourer
    from oncontour.ops.tidy import Tidy

    contourer = Contourer(task, rules=Tidy.off())
    rows = []
    for case in truth:
        true = case.mask(structure)
        claimed = contourer.predict(case.without_structures()).mask(structure)
        bearing = np.asarray(true.array.any(axis=(1, 2)))
        outside = claimed.array[~bearing].any(axis=(1, 2))
        for protocol in ("target", "all"):
            kept = claimed if protocol == "all" else Volume(claimed.array & bearing[:, None, None], claimed.geometry)
            distances = surfaces(true, kept)
            rows.append(
                {
                    "method": name,
                    "patient": case.id,
                    "protocol": protocol,
                    "dsc": dsc(true, kept),
                    "ji": jaccard(true, kept),
                    "asd_mm": distances.asd_mm,
                    "hd_mm": distances.hd_mm,
                    "false_slices": int(outside.sum()),
                    "empty_slices": int((~bearing).sum()),
                }
            )
    return rows


def milliseconds(task: ContourTask, size: int = 512, repeats: int = 3) -> float:
    """Milliseconds for one slice of ``size`` squared, the median of a few, as this machine's engine runs it."""
    from oncontour.learn.engine import Engine

    image = np.zeros((1, 1 + 2 * task.settings.neighbours, size, size), np.float32)
    engine = Engine.load(task.net, image.shape)
    engine(image)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        engine(image)
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1000)


# ---- tables


def tables(rows: Sequence[dict[str, Any]], speed: dict[str, float], *, structure: str, n_train: int, updates: int, mode: str) -> str:
    """Their table, ours under both protocols with tests against the first row, and the ablations, as Markdown."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    n = len({row["patient"] for row in rows})
    lines = [
        f"## Theirs and ours: {structure}, {n_train} patients to learn from, {n} to judge on, {updates} updates, {mode} mode",
        "",
        "| | DSC | JI | ASD (mm) | HD (mm) | ms a slice |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| *published* {name} (n = 15) | {_published(PUBLISHED[name])} |" for name in PUBLISHED]
    lines.append("| *published* p (paired t) | " + " | ".join(PUBLISHED_P[m] for m in METRICS) + " | |")
    for protocol in ("target", "all"):
        for method in methods:
            cells = " | ".join(_mean_sd(values(rows, method, protocol, metric)) for metric in METRICS)
            lines.append(f"| ours, {protocol} slices: {method} | {cells} | {speed[method]:.0f} |")
    lines += ["", f"Milliseconds: theirs on a Tesla P40, ours on a CPU for a slice of 512x512. Patients judged: {n}.", ""]
    if len(methods) > 1:
        lines += comparison(rows, methods)
    lines += ["", *false_slices(rows, methods)]
    return "\n".join(lines) + "\n"


def comparison(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> list[str]:
    """Every other method against the first: mean paired difference, p of the paired t-test and of the exact Wilcoxon test with Holm."""
    lines = [
        f"## {methods[0]} against each other row, paired by patient",
        "",
        "| against | slices | metric | mean difference | p, paired t | p, exact Wilcoxon | after Holm | patients |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found: list[tuple[str, str, str, float, float, float, int]] = []
    for method in methods[1:]:
        for protocol in ("target", "all"):
            for metric in METRICS:
                a, b = values(rows, methods[0], protocol, metric), values(rows, method, protocol, metric)
                both = np.isfinite(a) & np.isfinite(b)
                a, b = a[both], b[both]
                if len(a) > 1:
                    t, w = paired_t(a, b).p, wilcoxon(a, b).p
                    found.append((method, protocol, metric, float((a - b).mean()), t, w, len(a)))
    corrected = holm([row[5] for row in found])
    for (method, protocol, metric, difference, t, w, n), adjusted in zip(found, corrected, strict=True):
        cells = f"{difference:+.3f} | {p_text(t, n)} | {p_text(w, n)} | {p_text(adjusted, n)} | {n}"
        lines.append(f"| {method} | {protocol} | {metric} | {cells} |")
    lines += ["", f"Holm over all {len(found)} comparisons. Patients with an infinite distance (nothing contoured) are in DSC and JI only."]
    return lines


def false_slices(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> list[str]:
    """How often something was contoured on a slice that bears no target."""
    lines = ["## Slices without target on which something was contoured", "", "| | slices | of | part |", "|---|---|---|---|"]
    for method in methods:
        mine = [row for row in rows if row["method"] == method and row["protocol"] == "all"]
        false, empty = sum(row["false_slices"] for row in mine), sum(row["empty_slices"] for row in mine)
        lines.append(f"| {method} | {false} | {empty} | {false / max(1, empty):.1%} |")
    return lines


def values(rows: Sequence[dict[str, Any]], method: str, protocol: str, metric: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A metric of a method, one value a patient, in the patients' order."""
    mine = [row for row in rows if row["method"] == method and row["protocol"] == protocol]
    return np.array([row[metric] for row in sorted(mine, key=lambda row: str(row["patient"]))], dtype=np.float64)


def _mean_sd(found: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    finite = found[np.isfinite(found)]
    missed = len(found) - len(finite)
    if not len(finite):
        return "-"
    spread = f"{finite.mean():.2f} ± {finite.std(ddof=1):.2f}" if len(finite) > 1 else f"{finite[0]:.2f}"
    return spread + (f" ({missed} infinite)" if missed else "")


def _published(row: dict[str, Any]) -> str:
    return " | ".join(f"{row[m][0]:.2f} ± {row[m][1]:.2f}" if m in ("dsc", "ji") else f"{row[m][0]} ± {row[m][1]}" for m in METRICS) + (
        f" | {row['ms']:.0f}"
    )


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV text."""
    lines = ([f"{v:.5f}" if isinstance(v, float) else v for v in row.values()] for row in rows)
    return csv_text([list(rows[0]) if rows else ["method"], *lines])
