"""From which probability on is a voxel inside? Chosen for each structure after training, from patients whose truth is known.

Trained with 1 - DSC and the hardest voxels' cross-entropy, a net draws thin structures too thick and bony ones too thin by a steady
factor; the probability at which the contour lies puts that right, and nothing else changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from oncontour.contour.predict import Contourer
from oncontour.contour.task import ContourTask, Sample
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.metrics.overlap import dsc

CHOICES = (0.5, 0.38, 0.62, 0.27, 0.73, 0.18, 0.82, 0.12, 0.88)
"""Even steps of half a logit, the one that needs no choosing first: of equals, the first wins."""
ENOUGH = 10
"""Patients with a structure; where fewer were held back, training patients are added."""
GAIN = 0.002
"""Mean DSC that a threshold must bring to be preferred to the common one."""


@dataclass
class Replay(Contourer):
    """A contourer that computes each window once and gives the kept scores on every later round through the same case."""

    kept: list[NDArray[np.float16]] = field(default_factory=list)
    at: int = 0

    def answer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.at == len(self.kept):
            self.kept.append(super().answer(images).astype(np.float16))
        self.at += 1
        return self.kept[self.at - 1].astype(np.float32)

    def again(self, case: Case, thresholds: float | tuple[float, ...]) -> Case:
        """The case contoured with these thresholds."""
        self.task.settings = replace(self.task.settings, threshold=thresholds)
        self.at = 0
        return self.predict(case)


def finish(task: ContourTask, train: Sequence[Sample], held_back: Sequence[Sample]) -> Mapping[str, object]:
    """What the card tells of a finished training: in how many patients a structure was too thin for the working grid, so that they taught
    nothing of it; and, with ``settings.tune_threshold``, by which thresholds are chosen and set, from how many patients and what they
    gain."""
    lost = Counter(name for sample in (*train, *held_back) for name in sample.lost)
    thin = {"too_thin": dict(sorted(lost.items()))} if lost else {}
    if not task.settings.tune_threshold:
        return thin
    task.eval()
    thresholds, told = tuned(task, train, held_back)
    task.settings = replace(task.settings, threshold=thresholds)
    return {**thin, "thresholds": told}


def tuned(task: ContourTask, train: Sequence[Sample], held_back: Sequence[Sample]) -> tuple[tuple[float, ...], dict[str, dict[str, float]]]:
    """(a threshold for each structure, what the card tells of each: patients, and mean DSC before and after on the training grid).

    Each structure's is the one of ``CHOICES`` with the largest mean DSC over patients; 0.5 stays where nothing gains more than
    ``GAIN`` or nobody has the structure. Tidying is part of what is judged. ``task.settings`` are as before afterwards.
    """
    names, before = task.settings.structures, task.settings
    asked = _asked(len(names), train, held_back)
    found: dict[int, list[list[float]]] = {n: [] for n in range(len(names))}
    try:
        for sample, structures in asked:
            images = {"ct": sample.ct, **sample.others}
            case = Case(sample.case_id, {name: Volume(values, sample.geometry) for name, values in images.items()})
            replay = Replay(task, "torch")
            rounds = [replay.again(case, threshold) for threshold in CHOICES]
            for n in structures:
                truth = Volume((sample.bits >> np.uint32(n)) & np.uint32(1) > 0, sample.geometry)
                found[n].append([dsc(truth, one.mask(names[n])) for one in rounds])
    finally:
        task.settings = before
    chosen, told = [], {}
    for n, name in enumerate(names):
        means = np.mean(found[n], axis=0) if found[n] else np.zeros(len(CHOICES))
        best = int(np.argmax(means)) if means.max() > means[0] + GAIN else 0
        chosen.append(CHOICES[best])
        told[name] = {"patients": len(found[n]), "at_half": round(float(means[0]), 4), "at_threshold": round(float(means[best]), 4)}
    return tuple(chosen), told


def _asked(count: int, train: Sequence[Sample], held_back: Sequence[Sample]) -> list[tuple[Sample, list[int]]]:
    """Which patients are asked about which structures."""
    wanted = dict.fromkeys(range(count), 0)
    out = []
    for number, sample in enumerate([*held_back, *train]):
        has = [n for n in range(count) if sample.known[n] and len(sample.places[n])]
        mine = [n for n in has if number < len(held_back) or wanted[n] < ENOUGH]
        for n in mine:
            wanted[n] += 1
        if mine:
            out.append((sample, mine))
    return out
