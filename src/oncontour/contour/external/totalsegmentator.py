"""What is known of the weights of TotalSegmentator (Wasserthal et al., Radiology: Artificial Intelligence 2023), by their dataset's name.

Its archives are nnU-Net v2 models that say neither which way their voxels ran nor what TG-263 calls their classes. TotalSegmentator turns
every image to RAS before nnU-Net sees it (``nnunet.py``: ``as_closest_canonical``). Names of its classes are those of its
``map_to_binary.py``, tasks those of its ``map_tasks_config.py`` (version 2). The table ``totalsegmentator.csv`` gives each class its name
of AAPM TG-263 (Mayo et al. 2018), or why it has none: what TG-263 calls otherwise than TotalSegmentator draws it keeps its own name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

AXES = "SAR"
"""Where k, j, i run to in an image turned to RAS."""
DATA = (
    "TotalSegmentator (Wasserthal et al., Radiology: Artificial Intelligence 2023), trained with nnU-Net (Isensee et al., Nat Methods 2021)"
)
OPEN = "open for any use, as TotalSegmentator's README says of this task; cite both papers"
ASK = "some tasks of TotalSegmentator need a licence: see its README before use"
_NAMED = {
    "Dataset291_TotalSegmentator_part1_organs_1559subj": "total_organs",
    "Dataset292_TotalSegmentator_part2_vertebrae_1532subj": "total_vertebrae",
    "Dataset293_TotalSegmentator_part3_cardiac_1559subj": "total_cardiac",
    "Dataset294_TotalSegmentator_part4_muscles_1559subj": "total_muscles",
    "Dataset295_TotalSegmentator_part5_ribs_1559subj": "total_ribs",
    "Dataset297_TotalSegmentator_total_3mm_1559subj": "total_fast",
    "Dataset298_TotalSegmentator_total_6mm_1559subj": "total_fastest",
    "Dataset299_body_1559subj": "body",
    "Dataset300_body_6mm_1559subj": "body_fast",
}
"""Dataset of the weights -> what the task is called."""
_MARK = "TotalSeg"
"""In the names of its other datasets."""


@dataclass(frozen=True)
class Weights:
    """One archive of TotalSegmentator: the model's ``name``, what its licence is, and a remark where the task is not known ("" else)."""

    name: str
    licence: str
    remark: str = ""


def weights_of(names: Iterable[str]) -> Weights | None:
    """TotalSegmentator's weights whose dataset is one of ``names``; None where none is."""
    every = list(names)
    for name in every:
        if name in _NAMED:
            return Weights(_NAMED[name], OPEN)
    for name in every:
        if _MARK in name:
            remark = f"{name} is no task that is known here: TotalSegmentator may crop or mask its images first, which is not done"
            return Weights(name.partition("_")[2].lower(), ASK, remark)
    return None


@cache
def tg263_of_classes() -> Mapping[str, str]:
    """Class of TotalSegmentator -> its TG-263 name, those that have one."""
    text = resources.files("oncontour.contour.external").joinpath("totalsegmentator.csv").read_text(encoding="utf-8")
    return {row["class"]: row["name"] for row in csv.DictReader(text.splitlines()) if row["name"]}
