"""One patient as a folder of images: ``ct.nii.gz``, ``dose.nii.gz``, ``mr.nii.gz`` and ``masks/NAME.nii.gz``.

Every image file (.nii, .nii.gz, .nrrd, .mha) at the top of the folder becomes an image of its name; every one in ``masks/`` becomes a mask
under its TG-263 name. A file that is not there is a structure that was not contoured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oncontour.case import Case
from oncontour.errors import InputError, OncontourError
from oncontour.files import readable, writing_folder
from oncontour.io.folders import name_of
from oncontour.io.names import to_tg263
from oncontour.io.nifti import SUFFIXES, is_image, read_image, write_image
from oncontour.volume import Volume

MASKS = "masks"
IMAGES = ("ct", "mr", "dose")
"""Images whose names mean something, in whatever case they are written."""
CHANCES = "chances"
"""Folder that ``predict`` makes beside ``masks`` (``io/claims.py``)."""
_ROUNDED = 1e-3
"""Voxels by which a contour may pass the image's edge and still end at it."""


def is_layout(folder: Path) -> bool:
    """Whether ``folder`` has image files at its top or in its ``masks``."""
    return folder.is_dir() and bool(_images(folder) or _images(folder / MASKS))


def check_not_both(folder: Path) -> None:
    """Raise InputError where a folder of DICOM is a patient in images too: nobody says which of the two is meant."""
    named = [path.name for path in _called(folder)]
    named += [MASKS] if _images(folder / MASKS) else []
    if named:
        raise InputError(
            f"DICOM and a patient in image files ({', '.join(named)}) are here, and it is not told which is meant",
            where=str(folder),
            hint="give a folder that holds one of them",
        )


def read_layout(folder: Path | str, *, id: str | None = None, lenient: bool = False) -> Case:
    """The patient in ``folder``; ``id`` is by default the folder's name.

    ``facts["names"]`` has the file's name of every mask (TG-263 name -> name in the file system), so that ``write_layout`` can give it
    back; ``facts["unmapped"]`` the masks whose names no TG-263 name is known for (they keep their own). In a mask, 0 (below 0.5 in
    files of real numbers) is outside. Raises InputError where there is no image, or two files of one name, what ``read_image`` raises, and
    GeometryError for a mask that is not on the CT's grid; with ``lenient`` a dose or a mask that cannot be
    used is left out and noted.
    """
    folder = Path(folder)
    if not is_layout(folder):
        raise InputError("no image files (ct.nii.gz, masks/NAME.nii.gz, ...)", where=str(folder))
    images, said = {}, _passed_over(folder)
    for name, path in _by_name(folder).items():
        try:
            images[image_name(name)] = read_image(path)
        except OncontourError as error:
            if not lenient or image_name(name) != "dose":
                raise
            said.append(f"the dose cannot be used: {error.what} [{path.name}]")
    return _with_masks(_by_name(folder / MASKS), id or readable(name_of(folder)), images, said, lenient)


def _passed_over(folder: Path) -> list[str]:
    """A note on folders of image files beside ``masks`` that nobody reads: they may be structures, under another name."""
    others = [path for path in folder.iterdir() if path.is_dir() and path.name not in (MASKS, CHANCES) and not path.name.startswith(".")]
    names = sorted(readable(path.name) for path in others if _images(path))
    return [f"passed over: image files in {', '.join(names)}; those of structures are read from {MASKS} alone"] if names else []


def is_masks(folder: Path) -> bool:
    """Whether ``folder`` holds masks alone: image files, none of them called ct, mr or dose, and no folder of masks."""
    return folder.is_dir() and bool(_images(folder)) and not _images(folder / MASKS) and not _called(folder)


def _called(folder: Path) -> list[Path]:
    """Image files at the top of ``folder`` whose names mean something (IMAGES)."""
    return [path for path in _images(folder) if image_name(stem(path)) in IMAGES]


def read_masks(folder: Path | str, *, id: str | None = None) -> Case:
    """The masks in ``folder`` itself, as ``read_layout`` reads those in ``masks/``: NAME.nii.gz and the like."""
    folder = Path(folder)
    return _with_masks(_by_name(folder), id or readable(name_of(folder)), {}, [], lenient=False)


def read_named(folder: Path | str) -> dict[str, Volume]:
    """The image files in ``folder`` by TG-263 name, as masks are named. Raises InputError where two have one name, and what ``read_image``
    raises."""
    found = _by_name(Path(folder))
    names, _, _ = map_names(found)
    return {name: read_image(found[original]) for name, original in names.items()}


def write_named(volumes: Iterable[tuple[str, Volume]], folder: Path) -> list[Path]:
    """Write each (name, volume) into ``folder``, the files called as ``file_names`` says; gives the files in that order."""
    pairs = list(volumes)
    stems = file_names([name for name, _ in pairs])
    return [write_image(volume, folder / f"{one}.nii.gz") for one, (_, volume) in zip(stems, pairs, strict=True)]


def _with_masks(found: Mapping[str, Path], id: str, images: Mapping[str, Volume], said: list[str], lenient: bool) -> Case:
    """The case of ``images`` with the mask files ``found``; what ``lenient`` leaves out is ``said``."""
    names, unmapped, notes = map_names(found)
    case = Case(id, images) if images else None
    masks = {}
    for name, original in names.items():
        try:
            image = read_image(found[original])
            mask = _as_mask(image)
            case = case or Case(id, masks={name: mask})
            case.with_masks({name: mask})  # raises for another grid
            masks[name] = mask
            said += _several_labels(name, image)
        except OncontourError as error:
            if not lenient:
                raise
            said.append(f"the structure {name} cannot be used: {error.what}")
    facts: dict[str, Any] = {"names": {name: names[name] for name in masks}, "unmapped": unmapped, "notes": (*notes, *said)}
    return Case(id, images, masks, facts=facts)


def write_layout(case: Case, folder: Path | str) -> list[Path]:
    """Write ``case`` as such a folder, replacing one that is there in one step; gives the files.

    Masks are named as ``facts["names"]`` says, else by their TG-263 names; contours without a mask are rasterised on the case's grid
    (see ``losses``). Raises OutputError where the folder cannot be written.
    """
    folder = Path(folder)
    with writing_folder(folder) as temporary:
        for name, image in case.images.items():
            write_image(image, temporary / f"{file_name(name)}.nii.gz")
        for name, called in zip(case.structures, file_names(_called_by(case)), strict=True):
            write_image(case.mask(name), temporary / MASKS / f"{called}.nii.gz")
        written = sorted(p.relative_to(temporary) for p in temporary.rglob("*") if p.is_file())
    return [folder / p for p in written]


def losses(case: Case) -> tuple[str, ...]:
    """What of ``case`` does not survive ``write_layout``, one sentence each."""
    notes = []
    drawn = [name for name in case.contours if name not in case.masks]
    if drawn:
        notes.append(f"contours became voxels (inside where at least half of the voxel is): {', '.join(drawn)}")
    notes += _lost_contours(case, drawn)
    names = _called_by(case)
    renamed = [f"{name!r} to {called!r}" for name, called in zip(names, file_names(names), strict=True) if called != name]
    if renamed:
        notes.append(f"names that no file can have, or that another has but for capitals, were changed: {', '.join(renamed)}")
    planned = [f"{key} {case.facts[key]:g}" for key in ("fractions", "prescription_gy") if key in case.facts]
    if planned:
        notes.append(f"what the plan says is not kept in NIfTI: {', '.join(planned)}")
    kind = case.facts.get("rtdose")
    if kind is not None and "dose" in case.images and (kind.type, kind.summation) != ("PHYSICAL", "PLAN"):
        what = " ".join(word for word in (kind.type, kind.summation) if word) or "of no known kind"
        notes.append(f"a file of images cannot say what the dose is: {what}")
    if case.source is not None:
        notes.append("DICOM identity (patient and study attributes, UIDs) is not kept in NIfTI")
    return tuple(notes)


def _called_by(case: Case) -> list[str]:
    """What the files that ``case`` was read from called each of its structures."""
    originals = case.facts.get("names", {})
    return [str(originals.get(name, name)) for name in case.structures]


def _lost_contours(case: Case, drawn: Iterable[str]) -> list[str]:
    """Which of the ``drawn`` structures have no voxel at all, and which reach beyond the image."""
    notes, gone, beyond = [], [], []
    last = np.asarray(case.geometry.shape) - 0.5
    for name in drawn:
        polygons = case.contours[name].polygons
        if not polygons:
            continue
        at = case.geometry.voxels(np.concatenate(polygons))
        if (at < -0.5 - _ROUNDED).any() or (at > last + _ROUNDED).any():
            beyond.append(name)
        if not case.mask(name).array.any():
            gone.append(name)
    if gone:
        notes.append(f"contours that no voxel lies in by one half became empty masks: {', '.join(gone)}")
    if beyond:
        notes.append(f"contours reach beyond the image, and what lies there is lost: {', '.join(beyond)}")
    return notes


def map_names(originals: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """(name -> original, originals that no TG-263 name is known for, notes).

    Of several that map to one name the one that is spelled so, else the first, gets it; the others keep their own.
    """
    listed = [(original, to_tg263(original)) for original in originals]
    owner: dict[str, str] = {}
    for original, name in sorted(listed, key=lambda pair: pair[0] != pair[1]):
        if name is not None:
            owner.setdefault(name, original)
    names: dict[str, str] = {}
    notes = []
    for original, name in listed:
        if name is not None and owner[name] == original:
            names[name] = original
            continue
        own = original if original not in owner else f"{original}^2"
        names[own] = original
        if name is not None:
            notes.append(f"{original!r} and {owner[name]!r} both mean {name}; the first is called {own!r} here")
    return names, tuple(original for original, name in listed if name is None), tuple(notes)


def stem(path: Path) -> str:
    """The name of an image file without its image suffix."""
    name = path.name
    ending = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return readable(name[: len(name) - len(ending)])


def image_name(name: str) -> str:
    """``name`` as a case calls an image: "ct", "mr" and "dose" in small letters, whatever the file says."""
    return name.lower() if name.lower() in IMAGES else name


def _by_name(folder: Path) -> dict[str, Path]:
    """Name -> image file. Raises InputError where two files have one name: neither of them is the right one by its ending."""
    found: dict[str, Path] = {}
    for path in _images(folder):
        name = stem(path)
        other = next((known for known in found if known.casefold() == name.casefold()), None)
        if other is not None:
            names = f"{found[other].name} and {path.name}"
            raise InputError(f"two files are called {name!r}: {names}", where=str(folder), hint="take one of them out of the folder")
        found[name] = path
    return found


def _free(name: str, taken: set[str]) -> str:
    """``name``, or with ^2 and so on where a file of that name is there already; added to ``taken``."""
    tried = (name if n == 1 else f"{name}^{n}" for n in range(1, len(taken) + 2))
    free = next(one for one in tried if one.casefold() not in taken)
    taken.add(free.casefold())
    return free


def file_names(names: Sequence[str]) -> list[str]:
    """What the file of each of ``names`` is called: no two alike, not even but for capitals.

    A name that a file can have as it is goes before one that has to be changed, so that no file bears the name of another structure.
    """
    taken: set[str] = set()
    order = sorted(range(len(names)), key=lambda n: file_name(names[n]) != names[n])
    found = {n: _free(file_name(names[n]), taken) for n in order}
    return [found[n] for n in range(len(names))]


def file_name(name: str) -> str:
    """``name`` as a file may be called: letters, digits and ``+-_~^. `` stay, anything else becomes an underscore."""
    safe = "".join(c if c.isalnum() or c in "+-_~^. " else "_" for c in name).strip(" .")
    return safe[:120] or "_"


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if is_image(p) and not p.name.startswith(".") and p.is_file())


def _several_labels(name: str, volume: Volume) -> list[str]:
    """A note where a mask file has several values beside 0, as a map of many labels has, which is no mask of one structure."""
    array = volume.array
    if not np.issubdtype(array.dtype, np.integer):
        return []
    most = int(array.max()) or int(array.min())
    if not ((array != 0) & (array != most)).any():
        return []
    values = np.unique(array[array != 0])
    shown = ", ".join(str(v) for v in values[:4]) + (", ..." if len(values) > 4 else "")
    return [
        f"the file of {name} has {len(values)} values beside 0 ({shown}), all of them taken as inside: make sure that it is one structure"
    ]


def _as_mask(volume: Volume) -> Volume:
    if volume.array.dtype == bool or np.issubdtype(volume.array.dtype, np.integer):
        return Volume(volume.array != 0, volume.geometry)
    return volume.binary()
