"""One patient as a folder of images: ``ct.nii.gz``, ``dose.nii.gz``, ``mr.nii.gz`` and ``masks/NAME.nii.gz``.

Every image file (.nii, .nii.gz, .nrrd, .mha) at the top of the folder becomes an image of its name; every one in ``masks/`` becomes a mask
under its TG-263 name; ``remarks.json``, where ``convert`` wrote one, says what is to be known of them. A file that is not there is a
structure that was not contoured. A file of several structures is a label map: a .seg.nrrd names them itself, any other one needs NAME.json
beside it (``io/image/labelmap.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from oncontour.core.case import BitMasks, Case, LabelMasks
from oncontour.core.notes import KEPT, Note, NoteCode, about
from oncontour.core.volume import Volume
from oncontour.documents import read_json
from oncontour.errors import FormatError, InputError, LimitError, OncontourError, StructureError
from oncontour.files import readable, write_text, writing_folder
from oncontour.io.folders import name_of
from oncontour.io.image.labelmap import Labels, check_all_named, is_label_map, labels_beside, mask_of_one, split_labels, split_segments
from oncontour.io.image.nifti import SUFFIXES, is_image, read_image_file, write_image
from oncontour.io.image.voxels import UNNAMED_SEGMENT, ImageFile
from oncontour.io.names import to_tg263

MASKS = "masks"
IMAGES = ("ct", "mr", "dose")
"""Images whose names mean something, in whatever case they are written."""
CHANCES = "chances"
"""Folder that ``predict`` makes beside ``masks`` (``quality/segmenters.py``)."""
REMARKS = "remarks.json"
"""File beside the images: what is to be known of where the structures come from, as ``{"remarks": [code, ...]}`` of ``notes.KEPT``."""
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
        what = f"DICOM and a patient in image files ({', '.join(named)}) are here, and it is not told which is meant"
        raise InputError(what, where=str(folder), hint="give a folder that holds one of them")


def read_layout(folder: Path | str, *, id: str | None = None, lenient: bool = False) -> Case:
    """The patient in ``folder``; ``id`` is by default the folder's name.

    ``facts["names"]`` has the file's name of every mask (TG-263 name -> name in the file system), so that ``write_layout`` can give it
    back; ``facts["unmapped"]`` the masks whose names no TG-263 name is known for (they keep their own). In a mask, 0 (below 0.5 in
    files of real numbers) is outside; several numbers are several structures, which NAME.json or the file itself names.
    Raises InputError where there is no image, or two files of one name, what ``read_image`` raises, StructureError for labels without a
    name, GeometryError for a mask that is not on the CT's grid; with ``lenient`` a dose or a mask that cannot be
    used is left out and noted.
    """
    folder = Path(folder)
    if not is_layout(folder):
        raise InputError("no image files (ct.nii.gz, masks/NAME.nii.gz, ...)", where=str(folder))
    images, said = {}, [*_remarks(folder / REMARKS), *_passed_over(folder)]
    for name, path in _by_name(folder).items():
        try:
            found = read_image_file(path)
            images[image_name(name)] = one_volume(found, path)
            said += noted(found, path)
        except OncontourError as error:
            if not lenient or image_name(name) != "dose":
                raise
            said.append(Note(NoteCode.DOSE_LEFT_OUT, f"the dose cannot be used: {error.what} [{path.name}]"))
    return _with_masks(_by_name(folder / MASKS), id or readable(name_of(folder)), images, said, lenient)


def _remarks(path: Path) -> list[str]:
    """What ``write_layout`` kept of the remarks on the structures' origin; nothing of JSON of another kind."""
    try:
        told = read_json(path) if path.is_file() else None
    except (FormatError, LimitError):
        return []
    codes = told.get("remarks") if isinstance(told, dict) else None
    return [Note(code, text) for code, text in KEPT.items() if code in codes] if isinstance(codes, list) else []


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


def read_mask_file(path: Path | str, *, id: str | None = None) -> Case:
    """The structures in one image file: the mask of one, called as the file is, or a label map. Raises what ``read_masks`` raises."""
    path = Path(path)
    return _with_masks({stem(path): path}, id or stem(path), {}, [], lenient=False)


def one_volume(found: ImageFile, path: Path) -> Volume:
    """The image in a file. Raises FormatError where it holds several layers of segments."""
    if found.volume.array.ndim != 3:
        raise FormatError("the file holds segments that overlap, and is no image", where=str(path), hint=f"put it into {MASKS}")
    return found.volume


def noted(found: ImageFile, path: Path) -> list[str]:
    """What was remarked when ``found`` was read, with the name of its file."""
    return [f"{readable(path.name)}: {note}" for note in found.notes]


def read_named(folder: Path | str) -> tuple[dict[str, Volume], list[str]]:
    """The image files in ``folder`` by TG-263 name, as masks are named, and what was remarked on reading them. Raises InputError where two
    have one name, and what ``read_image`` raises."""
    found = _by_name(Path(folder))
    names, _, notes = map_names(found)
    volumes, said = {}, [*notes]
    for name, original in names.items():
        read = read_image_file(found[original])
        volumes[name] = one_volume(read, found[original])
        said += noted(read, found[original])
    return volumes, said


def write_named(volumes: Iterable[tuple[str, Volume]], folder: Path) -> list[Path]:
    """Write each (name, volume) into ``folder``, the files called as ``file_names`` says; gives the files in that order."""
    pairs = list(volumes)
    stems = file_names([name for name, _ in pairs])
    return [write_image(volume, folder / f"{one}.nii.gz") for one, (_, volume) in zip(stems, pairs, strict=True)]


def _with_masks(found: Mapping[str, Path], id: str, images: Mapping[str, Volume], said: list[str], lenient: bool) -> Case:
    """The case of ``images`` with the mask files ``found``; what ``lenient`` leaves out is ``said``."""
    files: list[tuple[str, Mapping[str, Volume]]] = []
    holder: dict[str, str] = {}
    for name, path in found.items():
        with _or_said(to_tg263(name) or name, said, lenient):
            masks, notes = _structures_in(path, name)
            double = next((own for own in masks if own in holder), None)
            if double is not None:
                what = f"{readable(path.name)} and {holder[double]} both hold a structure called {double!r}"
                raise InputError(what, where=str(path.parent), hint="take one of them out of the folder")
            holder |= dict.fromkeys(masks, readable(path.name))
            files += [(name, masks)] if masks else []  # else all of its labels are left out
            said += notes
    names, unmapped, remarks = map_names(own for _, masks in files for own in masks)
    called = {original: name for name, original in names.items()}
    case = Case(id, images) if images else None
    plain: dict[str, Volume] = {}
    packed: list[LabelMasks | BitMasks] = []
    for name, masks in files:
        mine = _renamed(masks, called)
        with _or_said(to_tg263(name) or name, said, lenient):
            case = case or Case(id, masks=mine)
            case.with_masks(mine)  # raises for another grid
            if isinstance(mine, LabelMasks | BitMasks):
                packed.append(mine)
            else:
                plain |= mine
    held = [name for masks in (plain, *packed) for name in masks]
    kept = {name: original for name, original in names.items() if name in held}
    facts = {"names": kept, "unmapped": unmapped, "notes": (*remarks, *said)}
    first = plain or (packed.pop(0) if packed else {})
    out = Case(id, images, first, facts=facts)
    for masks in packed:
        out = out.with_masks(masks)
    return out


@contextmanager
def _or_said(name: str, said: list[str], lenient: bool) -> Iterator[None]:
    """With ``lenient`` an error inside becomes a note on the structure ``name``."""
    try:
        yield
    except OncontourError as error:
        if not lenient:
            raise
        said.append(Note(NoteCode.STRUCTURES_LEFT_OUT, f"the structure {name} cannot be used: {error.what}"))


def _renamed(masks: Mapping[str, Volume], called: Mapping[str, str]) -> Mapping[str, Volume]:
    if isinstance(masks, LabelMasks):
        return LabelMasks(masks.labels, [called[own] for own in masks])
    if isinstance(masks, BitMasks):
        return BitMasks(masks.planes, [called[own] for own in masks])
    return {called[own]: mask for own, mask in masks.items()}


def _structures_in(path: Path, name: str) -> tuple[Mapping[str, Volume], list[str]]:
    """(name in the file -> mask, notes) of a mask file called ``name``: one structure, or those of a label map."""
    found, where, beside = read_image_file(path), str(path), path.with_name(f"{name}.json")
    notes = noted(found, path)
    if len(found.segments) == 1:
        return {_only_name(found, name, where): next(iter(split_segments(found.volume, found.segments, where).values()))}, notes
    if found.segments:
        return split_segments(found.volume, found.segments, where), notes
    labels = labels_beside(beside, found.volume)
    if labels is None:
        return {name: mask_of_one(found.volume, where, beside.name)}, notes
    if not is_label_map(found.volume):
        notes += _renamed_by(labels, found.volume, name, path)
    split = split_labels(found.volume, labels, where)
    check_all_named(split, labels, where)
    if split.empty:
        notes.append(f"{readable(path.name)}: no voxel has the label of {', '.join(split.empty)}: empty masks")
    return split.masks, notes


def _renamed_by(labels: Labels, volume: Volume, name: str, path: Path) -> list[str]:
    """A note where ``labels`` call the mask of one value otherwise than its file ``name`` does. Raises StructureError where both name a
    known structure, and not the same."""
    value = int(volume.array.max() or volume.array.min())
    theirs = [one for one, numbers in labels.numbers.items() if value in numbers]
    if not theirs or any(alike(name, one) for one in theirs):
        return []
    table = readable(Path(labels.where).name)
    _check_no_other(name, theirs[0], f"{table} calls it", str(path))
    return [f"{readable(path.name)}: its voxels of value {value} are called {', '.join(theirs)} by {table}"]


def alike(one: str, other: str) -> bool:
    """Whether two names of structures mean one: the same TG-263 name, or the same word."""
    return (to_tg263(one) or one) == (to_tg263(other) or other)


def _check_no_other(own: str, theirs: str, said: str, where: str) -> None:
    """Raise StructureError where a file called ``own`` is told to hold ``theirs``, another known structure."""
    if to_tg263(own) and to_tg263(theirs) and not alike(own, theirs):
        raise StructureError(f"the file is called {own}, {said} {theirs}", where=where, hint="rename the one that is wrong")


def _only_name(found: ImageFile, name: str, where: str) -> str:
    """What a file of one segment is called: as the file where that is a name that TG-263 knows, else as its header says, but for the
    name that 3D Slicer gives by itself. Raises StructureError where both are known and not the same."""
    own, theirs = name.removesuffix(".seg"), found.segments[0].name
    _check_no_other(own, theirs, "its segment", where)
    return own if to_tg263(own) or UNNAMED_SEGMENT.fullmatch(theirs) else theirs


def write_layout(case: Case, folder: Path | str) -> list[Path]:
    """Write ``case`` as such a folder, replacing one that is there in one step; gives the files.

    Masks are named as ``facts["names"]`` says, else by their TG-263 names; contours without a mask are rasterised on the case's grid
    (see ``losses``). What of ``facts["notes"]`` is ``notes.KEPT`` stands in remarks.json, and ``read_layout`` tells it again. Raises
    OutputError where the folder cannot be written.
    """
    folder = Path(folder)
    with writing_folder(folder) as temporary:
        for name, image in case.images.items():
            write_image(image, temporary / f"{file_name(name)}.nii.gz")
        for name, called in zip(case.structures, file_names(_called_by(case)), strict=True):
            write_image(case.mask(name), temporary / MASKS / f"{called}.nii.gz")
        codes = [code.value for code in KEPT if about(case.facts.get("notes", ()), code)]
        if codes and case.structures:
            write_text(temporary / REMARKS, json.dumps({"remarks": codes}) + "\n")
        written = sorted(p.relative_to(temporary) for p in temporary.rglob("*") if p.is_file())
    return [folder / p for p in written]


def losses(case: Case) -> tuple[str, ...]:
    """What of ``case`` does not survive ``write_layout``, one sentence each."""
    notes = contours_lost(case)
    names = _called_by(case)
    renamed = [f"{name!r} to {called!r}" for name, called in zip(names, file_names(names), strict=True) if called != name]
    if renamed:
        notes.append(f"names that no file can have, or that another has but for capitals, were changed: {', '.join(renamed)}")
    other = [f"{called} is {name}" for name, called in zip(case.structures, names, strict=True) if called != name]
    if other:
        notes.append(f"mask files keep the names that the structures had: {', '.join(other)}")
    planned = [f"{key} {case.facts[key]:g}" for key in ("fractions", "prescription_gy") if key in case.facts]
    groups = case.facts.get("fraction_groups", ())
    planned += [f"which dose is given in which of {len(groups)} fraction groups"] if len(groups) > 1 else []
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


def contours_lost(case: Case) -> list[str]:
    """What becomes of structures that are contours alone where they are written as voxels: which have no voxel at all, and which reach
    beyond the image."""
    drawn = [name for name in case.contours if name not in case.masks]
    notes = [f"contours became voxels (inside where at least half of the voxel is): {', '.join(drawn)}"] if drawn else []
    gone, beyond = [], []
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
