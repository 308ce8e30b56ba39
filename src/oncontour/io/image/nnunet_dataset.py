"""A dataset that nnU-Net v2 trains on: ``dataset.json``, ``imagesTr/ID_0000.nii.gz``, ``labelsTr/ID.nii.gz``.

Format: nnU-Net 2.8, documentation/dataset_format.md. Voxels stay as they lie in the patient's file; ``dataset.json`` asks for the reader
that turns all images to RAS, so that nnU-Net learns and draws the same way round whatever the files' order, and the trained model says so.

A label map holds one structure a voxel. Where several reach a voxel, the smallest of them has it, so that a tumour within its target and
a lens within its eye are there; what the others lost is told. A patient in whom a structure of the dataset was not contoured would teach
nnU-Net that it is not there, so no such patient is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import LimitError, OutputError, StructureError
from oncontour.io.image.nifti import write_image

DATASET = "dataset.json"
IMAGES, LABELS = "imagesTr", "labelsTr"
READER = "NibabelIOWithReorient"
"""nnU-Net's reader that turns images to RAS."""
MOST_LABELS = 255


def check_names(structures: Sequence[str]) -> None:
    """Raise LimitError for more structures than a label map of bytes holds."""
    if len(structures) > MOST_LABELS:
        raise LimitError(f"{len(structures)} structures, a label map holds {MOST_LABELS}", hint="name some with --structures")


def check_replaceable(folder: Path) -> None:
    """Raise OutputError where ``folder`` holds anything but such a dataset."""
    others = sorted(p.name for p in folder.iterdir() if p.name not in (DATASET, IMAGES, LABELS)) if folder.is_dir() else []
    if others:
        raise OutputError(f"the folder holds other things ({', '.join(others[:3])})", where=str(folder), hint="name a new folder")


def dataset_json(structures: Sequence[str], patients: int, image: str) -> str:
    """What ``dataset.json`` says of ``patients`` with one ``image`` (ct, mr) each; label n is the n-th of ``structures``, from 1 on."""
    said = {
        "channel_names": {"0": image.upper()},
        "labels": {"background": 0, **{name: n for n, name in enumerate(structures, 1)}},
        "numTraining": patients,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": READER,
    }
    return json.dumps(said, indent=1, ensure_ascii=False) + "\n"


def write_patient(case: Case, name: str, image: str, structures: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Write ``image`` and the labels of ``case`` into ``folder`` under ``name``; gives what structures lost where they overlap, a sentence
    each. Raises StructureError where one of ``structures`` was not contoured."""
    labels, lost = label_map(case, structures)
    for part in (IMAGES, LABELS):
        (folder / part).mkdir(exist_ok=True)
    write_image(case.images[image].to(case.geometry), folder / IMAGES / f"{name}_0000.nii.gz")
    write_image(labels, folder / LABELS / f"{name}.nii.gz")
    return lost


def label_map(case: Case, structures: Sequence[str]) -> tuple[Volume, tuple[str, ...]]:
    """(the structures on the case's grid as numbers from 1 on, uint8; what each lost to smaller ones)."""
    absent = [name for name in structures if name not in case.structures]
    if absent:
        raise StructureError(f"not contoured: {', '.join(absent)}", where=f"case {case.id}", hint="leave the patient or the structure out")
    masks = {name: case.mask(name).array for name in structures}
    count = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    labels = np.zeros(case.geometry.shape, np.uint8)
    for name in sorted(structures, key=lambda name: -count[name]):
        labels[masks[name]] = structures.index(name) + 1
    lost = []
    for n, name in enumerate(structures, 1):
        gone = count[name] - int(np.count_nonzero(labels == n))
        if gone:
            cc = gone * case.geometry.voxel_mm3 / 1000
            lost.append(f"{name} lost {cc:.1f} of {count[name] * case.geometry.voxel_mm3 / 1000:.1f} cc to smaller structures within it")
    return Volume(labels, case.geometry), tuple(lost)
