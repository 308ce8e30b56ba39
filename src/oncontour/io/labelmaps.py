"""Label maps: one file a case in one flat folder, as nnU-Net and TotalSegmentator write them, and the JSON that names their numbers.

A voxel of a label map holds one number; 0 is outside of every structure. What a number means is not in the file: it is in nnU-Net's
``dataset.json``, or in a JSON of names and numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.case import Case, LabelMasks
from oncontour.errors import CohortError, FormatError, InputError
from oncontour.files import readable
from oncontour.io.layout import is_masks, map_names, stem
from oncontour.io.nifti import is_image, read_image
from oncontour.volume import Volume

MAX_JSON_BYTES = 1 << 20
MAX_LABEL = 65_535
_OUTSIDE = frozenset({"background", "unlabeled", "unlabelled", "clear label"})
_FORMS = '{"Parotid_L": 1, "Parotid_R": 2}, {"1": "Parotid_L", "2": "Parotid_R"}, or nnU-Net\'s dataset.json'


@dataclass(frozen=True)
class Labels:
    """``numbers``: structure, as the JSON calls it -> the numbers of its voxels (several where it is a region of several labels);
    ``where`` they were read."""

    numbers: Mapping[str, tuple[int, ...]]
    where: str = ""


def read_labels(path: Path | str) -> Labels:
    """The names of a label map's numbers: a JSON object of ``{name: number}``, ``{number: name}``, or one that has such an object (or
    nnU-Net's regions, ``{name: [numbers]}``) under ``labels``.

    0 may be called background and is left out, as is what nnU-Net calls ``ignore``, which no prediction holds. Raises InputError where
    there is no such file, FormatError for anything else: no JSON, a name or a number that comes twice, numbers that are no whole numbers
    from 1 to 65535.
    """
    path = Path(path)
    told = _json(path)
    table = told["labels"] if isinstance(told.get("labels"), dict) else told
    numbers: dict[str, tuple[int, ...]] = {}
    for key, value in table.items():
        name, some = _entry(key, value, str(path))
        if some == (0,):
            if name.lower() not in _OUTSIDE:
                raise FormatError(f"{name!r} has number 0, which is what lies outside of every structure", where=str(path), hint=_hint())
        elif not (name == "ignore" and table is not told):
            if name in numbers:
                raise FormatError(f"{name!r} comes twice", where=str(path), hint=_hint())
            numbers[name] = some
    if not numbers:
        raise FormatError("no structure is named here", where=str(path), hint=_hint())
    _check_one_name_each(numbers, str(path))
    return Labels(numbers, str(path))


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of a folder: case -> file; ``labels`` name their numbers."""

    paths: Mapping[str, Path]
    labels: Labels
    where: str = ""
    unnamed: dict[int, list[str]] = field(default_factory=dict)
    """number that ``labels`` does not name -> the cases read so far that hold it"""

    @classmethod
    def open(cls, folder: Path | str, labels: Labels) -> LabelMaps:
        """The image files in ``folder`` (or that file alone), each a case of the file's name. Raises InputError where there is no such
        folder, CohortError where it holds no image file, or two of one name."""
        folder = Path(folder)
        if not folder.exists():
            raise InputError("there is no such file or folder", where=str(folder), hint="check the path of the label maps")
        files = [folder] if folder.is_file() else sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        found: dict[str, Path] = {}
        for path in filter(is_image, files):
            name = stem(path)
            if name in found:
                raise CohortError(
                    f"two label maps of {name!r}: {found[name].name} and {path.name}", where=str(folder), hint="take one away"
                )
            found[name] = path
        if not found:
            raise CohortError(
                "no label map is here", where=str(folder), hint="give the folder that holds one image file a case, named as the cases are"
            )
        return cls(found, labels, str(folder))

    def read(self, id: str) -> Case:
        """The structures of case ``id``, under TG-263 names where one is known; a structure without a voxel is an empty mask.

        ``facts`` are those of ``read_layout``. Raises CohortError for a case without a label map, FormatError where the file holds
        anything but whole numbers from 0 to 65535, and what ``read_image`` raises.
        """
        if id not in self.paths:
            raise CohortError(f"no label map is called {id}", where=self.where, hint=f"there are {_some(list(self.paths))}")
        path = self.paths[id]
        image = read_image(path)
        array = _whole(image.array, str(path))
        named, unmapped, notes = map_names(self.labels.numbers)
        case = _case(id, Volume(array, image.geometry), {name: self.labels.numbers[original] for name, original in named.items()})
        for number in self._not_named(array):
            self.unnamed.setdefault(number, []).append(id)
        return Case(id, {}, case.masks, facts={"names": named, "unmapped": unmapped, "notes": notes})

    def remarks(self, cases: Sequence[str]) -> list[str]:
        """What was read and is not used, of ``cases`` asked for: maps of other cases, and numbers without a name."""
        others = [name for name in self.paths if name not in cases]
        lines = [f"label maps of no case here, not looked at: {_some(others)} [{self.where}]"] if others else []
        for number, holders in sorted(self.unnamed.items()):
            lines.append(
                f"label {number} has no name in {self.labels.where} and is left out; it is in {_some(list(dict.fromkeys(holders)))}"
            )
        return lines

    def _not_named(self, array: NDArray[np.integer[Any]]) -> list[int]:
        known = {0, *(number for some in self.labels.numbers.values() for number in some)}
        return [int(n) for n in np.flatnonzero(np.bincount(array.ravel())) if int(n) not in known]


def flat_folder(folder: Path) -> str:
    """The image files that lie side by side in ``folder`` where it is no patient (none is called ct, and there is no folder of masks): what
    a folder of label maps looks like; "" where it does not."""
    if not is_masks(folder):
        return ""
    return _some(sorted(readable(p.name) for p in folder.iterdir() if is_image(p) and not p.name.startswith(".")))


def _case(id: str, labels: Volume, numbers: Mapping[str, tuple[int, ...]]) -> Case:
    """Structures of one number share one volume; regions of several numbers are masks of their own."""
    single = {name: some[0] for name, some in numbers.items() if len(some) == 1}
    table = np.zeros(MAX_LABEL + 1, np.uint16)
    table[list(single.values())] = np.arange(1, len(single) + 1)
    shared = LabelMasks(Volume(table[labels.array], labels.geometry), list(single))
    regions = {name: Volume(np.isin(labels.array, some), labels.geometry) for name, some in numbers.items() if len(some) > 1}
    if not single:
        return Case(id, masks=regions)
    return Case(id, masks=shared).with_masks(regions) if regions else Case(id, masks=shared)


def _whole(array: NDArray[Any], where: str) -> NDArray[np.integer[Any]]:
    """The numbers of a label map, which some programs write as real ones."""
    wrong = (array != np.rint(array)) | (array < 0) | (array > MAX_LABEL)
    if wrong.any():
        raise FormatError(
            f"a label map holds whole numbers from 0 to {MAX_LABEL}, this has {array[wrong][0]:g}",
            where=where,
            hint="give label maps, no probabilities and no images",
        )
    return array.astype(np.uint16)


def _entry(key: str, value: Any, where: str) -> tuple[str, tuple[int, ...]]:
    """(name, numbers) of one entry of the JSON, whichever way round it is."""
    name, numbers = (value, key) if isinstance(value, str) and not _is_number(value) else (key, value)
    some = [_number(one) for one in (numbers if isinstance(numbers, list) else [numbers])]
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or not some or None in some or len(set(some)) != len(some):
        raise FormatError(f"{key!r}: {json.dumps(value)[:80]} is no name and number of a label", where=where, hint=_hint())
    kept = tuple(one for one in some if one is not None)
    if len(kept) > 1 and 0 in kept:
        raise FormatError(f"{name!r} holds number 0, which is what lies outside of every structure", where=where, hint=_hint())
    return name, kept


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(value: Any) -> int | None:
    """A label's number, None where it is none."""
    if isinstance(value, str) and _is_number(value) and len(value) <= 5:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LABEL else None


def _check_one_name_each(numbers: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise FormatError where two names have the same numbers: which of the two is meant cannot be told."""
    owner: dict[tuple[int, ...], str] = {}
    for name, some in numbers.items():
        other = owner.setdefault(tuple(sorted(some)), name)
        if other != name:
            raise FormatError(f"{other!r} and {name!r} have one number, {some[0]}", where=where, hint=_hint())


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError("there is no such file", where=str(path), hint=f"give a JSON: {_FORMS}")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise FormatError(f"{path.stat().st_size} bytes of JSON, at most {MAX_JSON_BYTES}", where=str(path), hint=_hint())
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=lambda pairs: _once(pairs, str(path)))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"this is no JSON ({error})", where=str(path), hint=_hint()) from error
    if not isinstance(told, dict):
        raise FormatError(f"this is no table of names and numbers, but a {type(told).__name__}", where=str(path), hint=_hint())
    return told


def _once(pairs: Sequence[tuple[str, Any]], where: str) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise FormatError(f"{next(key for key in keys if keys.count(key) > 1)!r} comes twice", where=where, hint=_hint())
    return dict(pairs)


def _hint() -> str:
    return f"write it as {_FORMS}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
