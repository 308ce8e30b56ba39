"""Label maps: one volume in which each whole number is a structure of its own, and the file that names them.

    masks/organs.nii.gz    voxels 0, 1, 2, ...
    masks/organs.json      {"1": "Parotid_L", "2": "Parotid_R", "3": null}, or {"Parotid_L": 1, ...}, or nnU-Net's dataset.json

A number that stands for null is nobody's. A .seg.nrrd of 3D Slicer names its segments itself. Nothing is merged and nothing is guessed:
where nobody names the numbers, they are told and the file is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncontour.case import LabelMasks
from oncontour.documents import read_json
from oncontour.errors import FormatError, StructureError
from oncontour.io.voxels import Segment
from oncontour.volume import Volume

MAX_LABELS = 10_000
_SHOWN = 8


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


def read_label_names(path: Path) -> dict[int, str | None]:
    """Number -> name of the structure, None where it is to be left out; the background, 0, is not among them.

    ``path`` is JSON: {"1": name, ...}, {name: 1, ...}, or either below "labels". Raises FormatError where it is something else, a number or
    a name comes twice, or a name stands for several numbers; what ``documents.read_json`` raises.
    """
    found = read_json(path)
    table = found.get("labels", found) if isinstance(found, dict) else found
    if not isinstance(table, dict) or not table or len(table) > MAX_LABELS:
        raise FormatError("this names no labels", where=str(path), hint='write {"1": "Parotid_L", "2": "Parotid_R"}')
    names: dict[int, str | None] = {}
    for key, value in table.items():
        number, name = _number_and_name(key, value, path)
        if number in names:
            what = f"label {number} is named twice, {names[number]!r} and {name!r}"
            raise FormatError(what, where=str(path), hint="name each label once")
        if name is not None and name in names.values():
            raise FormatError(f"two labels are called {name!r}", where=str(path), hint="call each by a name of its own")
        names[number] = name
    names.pop(0, None)
    return names


def _number_and_name(key: str, value: Any, path: Path) -> tuple[int, str | None]:
    if key.strip().isdecimal() and (value is None or (isinstance(value, str) and value.strip())):
        return int(key), value.strip() if value else None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0 and key.strip():
        return value, key.strip()
    what = f"{key[:40]!r} stands for {str(value)[:40]!r}, where a label is a number and a name"
    raise FormatError(what, where=str(path), hint='write {"1": "Parotid_L", "2": "Parotid_R"}')


def split_labels(volume: Volume, names: Mapping[int, str | None], where: str) -> LabelMasks:
    """The structures of the label map ``volume`` by name; one without a voxel is an empty mask, a number named None is left out.

    Raises StructureError where ``volume`` holds a number that ``names`` lacks, or no whole numbers at all.
    """
    array = volume.array
    if np.issubdtype(array.dtype, np.floating) and not np.array_equal(array, np.rint(array)):
        what = "the voxels of a label map are whole numbers, these are not"
        raise StructureError(what, where=where, hint="save the labels, not a probability map")
    values = np.unique(array)
    unknown = [int(value) for value in values if value != 0 and int(value) not in names]
    if unknown:
        raise StructureError(
            f"no name is known for the labels {_listed(unknown)}; named are {_listed(sorted(names))}",
            where=where,
            hint='name them too, or leave them out with null: {"7": null}',
        )
    kept = [(number, name) for number, name in names.items() if name is not None and number != 0]
    place = {number: n + 1 for n, (number, _) in enumerate(kept)}
    dtype = np.uint8 if len(kept) < 256 else np.uint16
    of_value = np.array([place.get(int(value), 0) for value in values], dtype)
    labels = of_value[np.searchsorted(values, array)]
    return LabelMasks(Volume(labels, volume.geometry), [name for _, name in kept])


def split_segments(volume: Volume, segments: Sequence[Segment], where: str) -> Mapping[str, Volume]:
    """The structures that a .seg.nrrd names, whose layers (if any) are the first axis of ``volume``.

    Raises StructureError where two bear one name, a layer is not there, or a voxel belongs to no segment.
    """
    layers = volume.array if volume.array.ndim == 4 else volume.array[None]
    names = [segment.name for segment in segments]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise StructureError(f"two segments are called {double!r}", where=where, hint="rename one of them")
    beyond = next((segment for segment in segments if segment.layer >= len(layers)), None)
    if beyond is not None:
        what = f"{beyond.name!r} lies in layer {beyond.layer}, and there are {len(layers)}"
        raise StructureError(what, where=where, hint="save the segmentation again")
    if len(layers) == 1:
        return split_labels(Volume(layers[0], volume.geometry), {segment.value: segment.name for segment in segments}, where)
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
        raise StructureError(
            f"the file holds {len(values)} labels ({_listed(values)}), where the mask of one structure was expected",
            where=where,
            hint=f"name them in {beside} beside it, as {{{example}}}, or save each as a file of its own",
        )
    array: NDArray[Any] = volume.array
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
