"""Label maps of many cases: one file a case in one flat folder, as nnU-Net and TotalSegmentator write them.

What their numbers mean is in one JSON for all of them (``io/image/labelmap.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from oncontour.core.case import Case
from oncontour.core.notes import some
from oncontour.errors import CohortError, InputError, StructureError
from oncontour.files import readable
from oncontour.io.image.labelmap import Labels, split_labels
from oncontour.io.image.layout import alike, is_masks, map_names, noted, one_volume, stem
from oncontour.io.image.nifti import is_image, read_image_file
from oncontour.io.image.voxels import UNNAMED_SEGMENT, Segment


@dataclass(frozen=True)
class LabelFolder:
    """The label maps of a folder: case -> file; ``labels`` name their numbers."""

    paths: Mapping[str, Path]
    labels: Labels
    where: str = ""
    unnamed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """case that was read -> the numbers in it that ``labels`` does not name"""

    @classmethod
    def open(cls, folder: Path | str, labels: Labels) -> LabelFolder:
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
        anything but whole numbers from 0 to 65535, StructureError where a .seg.nrrd calls one of them otherwise than ``labels`` do, and
        what ``read_image`` raises.
        """
        if id not in self.paths:
            raise CohortError(f"no label map is called {id}", where=self.where, hint=f"there are {some(list(self.paths))}")
        path = self.paths[id]
        found = read_image_file(path)
        _check_segments(found.segments, self.labels, str(path))
        named, unmapped, notes = map_names(self.labels.numbers)
        labels = replace(self.labels, numbers={name: self.labels.numbers[original] for name, original in named.items()})
        split = split_labels(one_volume(found, path), labels, str(path))
        self.unnamed[id] = split.unnamed
        return Case(id, {}, split.masks, facts={"names": named, "unmapped": unmapped, "notes": (*notes, *noted(found, path))})

    def remarks(self, cases: Sequence[str], unnamed: Mapping[str, Sequence[int]] | None = None) -> list[str]:
        """What was read and is not used, of ``cases`` asked for: maps of other cases, and numbers without a name.

        ``unnamed``: case -> those numbers, of cases that others read; of those read here unless said.
        """
        others = [name for name in self.paths if name not in cases]
        lines = [f"label maps of no case here, not looked at: {some(others)} [{self.where}]"] if others else []
        holders: dict[int, list[str]] = {}
        for case, numbers in (self.unnamed if unnamed is None else unnamed).items():
            for number in numbers:
                holders.setdefault(number, []).append(case)
        where = f"has no name in {self.labels.where} and is left out"
        return [*lines, *(f"label {number} {where}; it is in {some(held)}" for number, held in sorted(holders.items()))]


def _check_segments(segments: Sequence[Segment], labels: Labels, where: str) -> None:
    """Raise StructureError where the header of a .seg.nrrd and ``labels`` give one number two names: sides may be swapped."""
    for segment in segments:
        theirs = [name for name, numbers in labels.numbers.items() if numbers == (segment.value,)]
        if theirs and not UNNAMED_SEGMENT.fullmatch(segment.name) and not alike(segment.name, theirs[0]):
            what = f"label {segment.value} is {segment.name} in the header of the file, {theirs[0]} in {labels.where}"
            raise StructureError(what, where=where, hint="correct the one that is wrong")


def flat_folder(folder: Path) -> str:
    """The image files that lie side by side in ``folder`` where it is no patient (none is called ct, and there is no folder of masks): what
    a folder of label maps looks like; "" where it does not."""
    if not is_masks(folder):
        return ""
    return some(sorted(readable(p.name) for p in folder.iterdir() if is_image(p) and not p.name.startswith(".")))
