"""Label maps: one volume in which each whole number is a structure of its own, and the file that names them.

    masks/organs.nii.gz    voxels 0, 1, 2, ...
    masks/organs.json      {"1": "Parotid_L", "2": "Parotid_R", "3": null}, or {"Parotid_L": 1, ...}, or nnU-Net's dataset.json

0 is outside of every structure, and a number that stands for null is nobody's. A .seg.nrrd of 3D Slicer names its segments itself. Nothing
is merged and nothing is guessed: what nobody names is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from oncontour.core.case import BitMasks, LabelMasks
from oncontour.core.volume import Volume
from oncontour.documents import read_json
from oncontour.errors import FormatError, LimitError, StructureError
from oncontour.io.image.voxels import Array, Segment
from oncontour.io.names import to_tg263

MAX_LABEL = 65_535
"""The highest number of a label."""
MAX_NAMES = 10_000
"""Names in one file."""
_OUTSIDE = frozenset({"background", "unlabeled", "unlabelled", "clear label"})
_SHOWN = 8
_HINT = 'write it as {"Parotid_L": 1, "Parotid_R": 2}, {"1": "Parotid_L", "2": "Parotid_R"}, or nnU-Net\'s dataset.json'


@dataclass(frozen=True)
class Labels:
    """``numbers``: structure, as the file calls it -> the numbers of its voxels (several where it is a region of several labels);
    ``left_out`` numbers that are said to be no structure's; ``where`` they were read."""

    numbers: Mapping[str, tuple[int, ...]]
    where: str = ""
    left_out: frozenset[int] = frozenset()

    @property
    def known(self) -> frozenset[int]:
        """Every number of which is said what it is, 0 among them."""
        return self.left_out.union({0}, *self.numbers.values())


@dataclass(frozen=True, eq=False)
class Split:
    """The structures of a label map: ``masks`` in the order of their names, those without a voxel too, which are ``empty``;
    ``unnamed`` numbers that the map holds and nobody names."""

    masks: LabelMasks | BitMasks
    empty: tuple[str, ...]
    unnamed: tuple[int, ...]


@dataclass(frozen=True)
class _Entry:
    """One name and its numbers; ``name`` is None for numbers that are left out."""

    name: str | None
    numbers: tuple[int, ...]

    @property
    def outside(self) -> bool:
        """Whether it says what 0 is."""
        return self.numbers == (0,) and (self.name is None or self.name.lower() in _OUTSIDE)


def is_label_map(volume: Volume) -> bool:
    """Whether ``volume`` holds more than one structure: whole numbers, and several of them beside 0."""
    array = volume.array
    if np.issubdtype(array.dtype, np.floating) and not np.array_equal(array, np.rint(array)):
        return False
    most = array.max() or array.min()
    return bool(((array != 0) & (array != most)).any())


def label_values(volume: Volume) -> tuple[int, ...]:
    """The whole numbers beside 0 that ``volume`` holds, in growing order."""
    return tuple(int(value) for value in np.unique(volume.array) if value != 0)


def read_labels(path: Path | str) -> Labels:
    """The names of a label map's numbers: a JSON object of ``{name: number}``, ``{number: name}`` or, for a region of several labels,
    ``{name: [numbers]}``, or one that has such an object under ``labels``, as nnU-Net's dataset.json.

    A number that stands for null is left out, as are 0, which may be called background, and what nnU-Net calls ``ignore``.
    Raises FormatError for anything else (no name of a structure, a name or a number that comes twice, numbers that are no whole numbers
    from 0 to MAX_LABEL), LimitError beyond MAX_NAMES, what ``documents.read_json`` raises.
    """
    path = Path(path)
    labels = _labels(_entries(path)[0], str(path))
    if not labels.numbers:
        raise FormatError("no structure is named here", where=str(path), hint=_HINT)
    return labels


def labels_beside(path: Path, volume: Volume) -> Labels | None:
    """The names of labels in the JSON ``path`` beside the mask file of ``volume``, None where there is none.

    Beside a label map, which needs names, it raises what ``read_labels`` does. Beside a mask of one structure, which has the name of its
    file, JSON may be of any other kind: it counts where its table stands below ``labels``, where it gives the mask's value a name that
    TG-263 knows, or where it has no other names than such and the file's own name is none; else it is left alone. All numbers may be left
    out.
    """
    if not path.is_file():
        return None
    several = is_label_map(volume)
    try:
        entries, below = _entries(path)
    except (FormatError, LimitError):
        if several:
            raise
        return None
    if several or below or _meant(entries, int(volume.array.max() or volume.array.min()), path.stem):
        return _labels(entries, str(path))
    return None


def _meant(entries: Sequence[_Entry], value: int, called: str) -> bool:
    """Whether ``entries`` name the structures of a mask ``called`` so whose voxels are ``value``, and are not anything else that JSON
    holds: {"version": 1}, {"volume_cc": 25}, {"Parotid_L": 25}."""
    told = [one for one in entries if not one.outside]
    known = [one.name is None or to_tg263(one.name) is not None for one in told]
    naming = any(value in one.numbers for one, of_tg263 in zip(told, known, strict=True) if of_tg263)
    return naming or (bool(told) and all(known) and to_tg263(called) is None)


def _entries(path: Path) -> tuple[list[_Entry], bool]:
    """What the file says, entry by entry, and whether it says it below ``labels``. Raises FormatError where it is no table of names and
    numbers."""
    told, where = read_json(path), str(path)
    if not isinstance(told, dict):
        raise FormatError(f"this is no table of names and numbers, but a {type(told).__name__}", where=where, hint=_HINT)
    below = isinstance(told.get("labels"), dict)
    table = told["labels"] if below else told
    if not table:
        raise FormatError("no structure is named here", where=where, hint=_HINT)
    if len(table) > MAX_NAMES:
        raise LimitError(f"{len(table)} names of labels, at most {MAX_NAMES} are read", where=where, hint="name those that are there")
    entries = [_entry(key, value, where) for key, value in table.items()]
    return [_Entry(None, one.numbers) if below and one.name == "ignore" else one for one in entries], below


def _entry(key: str, value: object, where: str) -> _Entry:
    """One entry of the JSON, whichever way round it is; a name of digits alone is none, as it could be the number."""
    name: str | None = key
    numbers = value
    if value is None or (isinstance(value, str) and _number(value) is None):
        name, numbers = value, key
    some = [_number(one) for one in (numbers if isinstance(numbers, list) else [numbers])]
    kept = tuple(one for one in some if one is not None)
    if not kept or len(set(kept)) != len(some) or not (name is None or _is_name(name)):
        raise FormatError(f"{key[:40]!r}: {json.dumps(value)[:80]} is no name and number of a label", where=where, hint=_HINT)
    return _Entry(name and name.strip(), kept)


def _is_name(text: str) -> bool:
    return bool(text.strip()) and text.isprintable() and not text.strip().isdecimal()


def _number(value: object) -> int | None:
    """A label's number, None where it is none."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value.strip()) <= len(str(MAX_LABEL)):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LABEL else None


def _labels(entries: Sequence[_Entry], where: str) -> Labels:
    """What ``entries`` say together. Raises FormatError where they contradict each other, or a structure has number 0."""
    numbers: dict[str, tuple[int, ...]] = {}
    left_out: set[int] = set()
    owner: dict[tuple[int, ...], str] = {}
    for one in entries:
        shown, place = "null" if one.name is None else repr(one.name), tuple(sorted(one.numbers))
        if one.name in numbers:
            raise FormatError(f"two labels are called {shown}", where=where, hint="call each by a name of its own")
        if place in owner:
            what = f"label {_listed(place)} is named twice, {owner[place]} and {shown}"
            raise FormatError(what, where=where, hint="name each label once")
        owner[place] = shown
        if one.name is None or one.outside:
            left_out.update(one.numbers)
        elif 0 in one.numbers:
            what = f"{shown} has number 0, which is what lies outside of every structure"
            raise FormatError(what, where=where, hint=_HINT)
        else:
            numbers[one.name] = one.numbers
    for name, some in numbers.items():
        if both := left_out.intersection(some):
            what = f"label {_listed(sorted(both))} is left out, and belongs to {name!r}"
            raise FormatError(what, where=where, hint="name it or leave it out")
    return Labels(numbers, where, frozenset(left_out))


def split_labels(volume: Volume, labels: Labels, where: str) -> Split:
    """The structures of the label map ``volume`` by name; a voxel of several regions belongs to each of them.

    Raises FormatError where ``volume`` holds anything but whole numbers from 0 to MAX_LABEL.
    """
    array = _whole(volume.array, where)
    there = np.zeros(MAX_LABEL + 1, bool)
    for plane in array:
        there[plane] = True
    empty = tuple(name for name, some in labels.numbers.items() if not there[list(some)].any())
    known = labels.known
    unnamed = tuple(int(number) for number in np.flatnonzero(there) if int(number) not in known)
    return Split(_masks(Volume(array, volume.geometry), labels.numbers), empty, unnamed)


def check_all_named(split: Split, labels: Labels, where: str) -> None:
    """Raise StructureError where the label map holds a number that ``labels`` do not name."""
    if split.unnamed:
        named = sorted(labels.known - {0})
        what = f"no name is known for the labels {_listed(split.unnamed)}; named are {_listed(named)}"
        raise StructureError(what, where=where, hint='name them too, or leave them out with null: {"7": null}')


def _whole(array: Array, where: str) -> NDArray[np.uint16]:
    """The numbers of a label map, which some programs write as real ones."""
    real = np.issubdtype(array.dtype, np.floating)
    for plane in array:
        wrong = (plane < 0) | (plane > MAX_LABEL)
        if real:
            wrong |= plane != np.rint(plane)
        if wrong.any():
            what = f"a label map holds whole numbers from 0 to {MAX_LABEL}, this has {plane[wrong][0]:g}"
            raise FormatError(what, where=where, hint="give label maps, no probabilities and no images")
    return array.astype(np.uint16, copy=False)


def _masks(volume: Volume, numbers: Mapping[str, tuple[int, ...]]) -> LabelMasks | BitMasks:
    """Packed as labels where each number is of one structure at most, else one bit a structure."""
    names, every = list(numbers), [number for some in numbers.values() for number in some]
    if len(set(every)) == len(every):
        order = {number: n for n, some in enumerate(numbers.values(), 1) for number in some}
        return LabelMasks(_looked_up(volume, order, np.uint8 if len(names) < 256 else np.uint16), names)
    planes = []
    for first in range(0, len(names), 8):
        bits: dict[int, int] = {}
        for n, name in enumerate(names[first : first + 8]):
            for number in numbers[name]:
                bits[number] = bits.get(number, 0) | 1 << n
        planes.append(_looked_up(volume, bits, np.uint8).array)
    return BitMasks(Volume(np.stack(planes), volume.geometry), names)


def _looked_up(volume: Volume, values: Mapping[int, int], dtype: DTypeLike) -> Volume:
    """``volume`` with every number replaced by its value, 0 where it has none."""
    table = np.zeros(MAX_LABEL + 1, dtype)
    table[list(values)] = list(values.values())
    out = np.empty(volume.array.shape, dtype)
    for plane, found in zip(volume.array, out, strict=True):
        np.take(table, plane, out=found)
    return Volume(out, volume.geometry)


def split_segments(volume: Volume, segments: Sequence[Segment], where: str) -> Mapping[str, Volume]:
    """The structures that a .seg.nrrd names, whose layers (if any) are the first axis of ``volume``.

    Raises StructureError where two bear one name, a value is not from 1 to MAX_LABEL, a layer is not there, or a voxel belongs to no
    segment.
    """
    layers = volume.array if volume.array.ndim == 4 else volume.array[None]
    names = [segment.name for segment in segments]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise StructureError(f"two segments are called {double!r}", where=where, hint="rename one of them")
    odd = next((segment for segment in segments if not 1 <= segment.value <= MAX_LABEL), None)
    if odd is not None:
        what = f"{odd.name!r} has label {odd.value}; labels of segments are from 1 to {MAX_LABEL}"
        raise StructureError(what, where=where, hint="save the segmentation again")
    beyond = next((segment for segment in segments if segment.layer >= len(layers)), None)
    if beyond is not None:
        what = f"{beyond.name!r} lies in layer {beyond.layer}, and there are {len(layers)}"
        raise StructureError(what, where=where, hint="save the segmentation again")
    if len(layers) == 1:
        labels = Labels({segment.name: (segment.value,) for segment in segments}, where)
        split = split_labels(Volume(layers[0], volume.geometry), labels, where)
        check_all_named(split, labels, where)
        return split.masks
    for n, layer in enumerate(layers):
        of_it = [segment.value for segment in segments if segment.layer == n]
        stray = [int(value) for value in np.unique(layer) if value != 0 and value not in of_it]
        if stray:
            raise StructureError(f"no segment is the labels {_listed(stray)}", where=where, hint="save the segmentation again")
    return {segment.name: Volume(layers[segment.layer] == segment.value, volume.geometry) for segment in segments}


def mask_of_one(volume: Volume, where: str, beside: str) -> Volume:
    """``volume`` as the mask of one structure: any whole number beside 0, or a probability or coverage of one half and more.

    ``beside``: the file that would name its labels. Raises StructureError where it holds several labels, FormatError for numbers that are
    neither labels nor from 0 to 1.
    """
    if is_label_map(volume):
        values = label_values(volume)
        example = ", ".join(f'"{value}": "NAME"' for value in values[:2])
        what = f"the file holds {len(values)} labels ({_listed(values)}), where the mask of one structure was expected"
        hint = f"name them in {beside} beside it, as {{{example}}}, or save each as a file of its own"
        raise StructureError(what, where=where, hint=hint)
    array: Array = volume.array
    if not np.issubdtype(array.dtype, np.floating):
        return Volume(array != 0, volume.geometry)
    if np.array_equal(array, np.rint(array)):
        return Volume(array != 0, volume.geometry)
    low, high = float(array.min()), float(array.max())
    if low < -0.5 or high > 1.5:
        what = f"values from {low:.4g} to {high:.4g} are neither labels nor a probability or coverage from 0 to 1"
        raise FormatError(what, where=where, hint="save the mask as 0 and 1")
    return volume.binary()


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:_SHOWN])) + (", ..." if len(values) > _SHOWN else "")
