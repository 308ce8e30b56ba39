"""Phantom patients on disk, for tests and the demo: the NIfTI layout (``ct.nii.gz``, ``dose.nii.gz``, ``masks/NAME.nii.gz``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oncontour.core.case import Case
from oncontour.io.image.nifti import write_image
from oncontour.phantom import head_neck, pelvis

BODIES = {"head_neck": head_neck, "pelvis": pelvis}

NECK = ("Bone_Mandible", "Parotid_L", "Parotid_R")
"""What a small phantom on SMALL_GRID (spacing in mm, noise, shape) is contoured for."""
SMALL_GRID = ((6, 5, 5), 1.0, (24, 40, 40))


def patient(folder: Path, case: Case) -> Path:
    """Write ``case`` in the NIfTI layout."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for name, image in case.images.items():
        write_image(image, folder / f"{name}.nii.gz")
    for name, mask in case.masks.items():
        write_image(mask, folder / "masks" / f"{name}.nii.gz")
    return folder


def cohort(
    folder: Path,
    n: int,
    *,
    body: str = "head_neck",
    spacing_mm: Sequence[float] = (6.0, 5.0, 5.0),
    shape: Sequence[int] | None = (32, 48, 48),
    seed: int = 0,
    jitter: float = 1.0,
) -> Path:
    """``n`` different patients as ``folder/phantom-000`` ..., small enough to train on in a minute; returns ``folder``."""
    for number in range(seed, seed + n):
        patient(folder / f"phantom-{number:03d}", BODIES[body](number, spacing_mm, jitter, shape))
    return folder
