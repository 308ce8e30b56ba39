"""Random series in any position, read by oncontour and by what is right about them: SimpleITK where it is (even and upright), else each
slice's own position and values as they were written, and a linear image for what lies between.

``check(seed, n)`` gives the failures among ``n`` series as sentences, each with the seed that makes it again.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.random import Generator
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation

from oncontour.core.volume import Volume
from oncontour.errors import OncontourError, SeriesError
from oncontour.io.dicom.series import AIR_HU, read_series
from tests.dicom_cases import PATIENT_POSITIONS, WrittenSeries, make_series, ramp

Floats = NDArray[np.float64]
NEAR_MM = 1e-4
"""How far a voxel may lie from where it was written: DICOM's decimal strings have 16 characters."""


@dataclass
class Plan:
    """How a series is written: ``kind`` of spacing, and the arguments of ``make_series``; ``values``: HU of each slice, None of a linear
    image."""

    kind: str
    written: dict[str, Any]
    values: NDArray[np.float64] | None
    slopes: Floats
    doubles: tuple[int, ...] = ()


def check(seed: int, n: int) -> list[str]:
    """What went wrong in ``n`` random series, one sentence each; empty where nothing did."""
    sitk.ProcessObject.GlobalWarningDisplayOff()
    failures = []
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        plan = KINDS[number % len(KINDS)](rng)
        with tempfile.TemporaryDirectory() as place:
            failures += [f"series {number} of seed {seed} ({plan.kind}): {said}" for said in _judged(plan, Path(place), rng)]
    return failures


def _judged(plan: Plan, folder: Path, rng: Generator) -> Iterator[str]:
    made, names = _written(plan, folder, rng)
    try:
        volume, source, notes = read_series(folder)
    except SeriesError as error:
        if plan.kind != "missing":
            yield f"refused: {error}"
        elif not error.what.startswith("slices are missing"):
            yield f"slices are missing, and it is said that {error}"
        return
    except OncontourError as error:
        yield f"refused: {error}"
        return
    if plan.kind == "missing":
        yield f"read, though slices are missing: {volume.geometry}"
        return
    if any("left out" in note for note in notes) != bool(plan.doubles):
        yield f"doubles {plan.doubles}, and it is noted: {notes}"
    if len(source.slices) != len(names) or any(one.sop_instance_uid not in its for one, its in zip(source.slices, names, strict=True)):
        yield "the source names other images than lie there"
    elif not np.allclose([one.position_mm for one in source.slices], made.positions_mm, atol=NEAR_MM):
        yield "the source has its slices in another order, or elsewhere"
    yield from _linear(volume, made, plan) if plan.values is None else _slice_by_slice(volume, made, plan)
    if plan.kind == "even":
        yield from _as_simpleitk(volume, folder)


# ---- three ways to be right


def _slice_by_slice(volume: Volume, made: WrittenSeries, plan: Plan) -> Iterator[str]:
    """Each written slice is in its place, to the value; what lies between two is their mean by distance."""
    grid, values = volume.geometry, np.asarray(plan.values)
    at = grid.voxels(made.positions_mm)
    index = np.rint(at[:, 0]).astype(int)
    if np.abs((at - np.stack([index, 0 * index, 0 * index], axis=1)) * grid.spacing_mm).max() > max(NEAR_MM, 0.02 * grid.spacing_mm[0]):
        yield f"slices lie at voxels {at.round(4).tolist()}"
        return
    corner = grid.points([(0, made.stored[0].shape[0] - 1, made.stored[0].shape[1] - 1)])[0]
    there = made.positions_mm[index.argmin()]
    there = there + made.column * plan.written["spacing_mm"][0] * (made.stored[0].shape[0] - 1)
    there = there + made.row * plan.written["spacing_mm"][1] * (made.stored[0].shape[1] - 1)
    if np.abs(corner - there).max() > NEAR_MM:
        yield f"the last pixel of the first slice lies at {corner}, written at {there}"
    got = volume.array[index].astype(np.float64)
    if not np.allclose(got, values, rtol=1e-6, atol=1e-4):
        yield f"values of slices differ by up to {np.abs(got - values).max():g}"
    for (low, one), (high, other) in zip(zip(index, values, strict=True), list(zip(index, values, strict=True))[1:], strict=False):
        for k in range(low + 1, high):
            mean = one + (other - one) * (k - low) / (high - low)
            rounding = 0.501 if volume.array.dtype == np.int16 else 1e-3 + 2e-7 * np.abs(values).max()
            if np.abs(volume.array[k] - mean).max() > rounding:
                yield f"between slices, at k = {k}, values are no mean by distance"


def _linear(volume: Volume, made: WrittenSeries, plan: Plan) -> Iterator[str]:
    """A linear image is the same on any grid, but for the rounding of what was stored."""
    fill = AIR_HU if plan.written["modality"] == "CT" else 0
    grid = volume.geometry
    points = grid.points(np.stack(np.indices(volume.array.shape), axis=-1))
    rows, columns = made.stored[0].shape
    offsets, here = made.positions_mm @ made.normal, points @ made.normal
    nearest = np.abs(here[..., None] - offsets).argmin(axis=-1)
    down = ((points - made.positions_mm[nearest]) @ made.column) / plan.written["spacing_mm"][0]
    across = ((points - made.positions_mm[nearest]) @ made.row) / plan.written["spacing_mm"][1]
    on = np.abs(here - offsets[nearest]) < 0.02 * grid.spacing_mm[0]
    inside = on & (down > 0.01) & (down < rows - 1.01) & (across > -0.01) & (across < columns - 0.99)
    far = on & ((down < -0.51) | (down > rows - 0.49))
    if not inside.any():
        yield "no voxel of the grid lies inside an image"
    elif (off := float(np.abs(volume.array - ramp(points))[inside].max())) > plan.slopes.max() / 2 + 0.51:
        yield f"a linear image is off by {off:g}"
    if (volume.array[far] != fill).any():
        yield "beyond the images is something"


def _as_simpleitk(volume: Volume, folder: Path) -> Iterator[str]:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    reader.SetOutputPixelType(sitk.sitkFloat64)
    image = reader.Execute()
    grid = volume.geometry
    if not np.allclose(image.GetOrigin(), grid.origin_mm, atol=NEAR_MM):
        yield f"the origin is {grid.origin_mm}, of SimpleITK {image.GetOrigin()}"
    if not np.allclose(image.GetSpacing()[::-1], grid.spacing_mm, atol=NEAR_MM):
        yield f"the voxel size is {grid.spacing_mm}, of SimpleITK {image.GetSpacing()[::-1]}"
    if not np.allclose(np.reshape(image.GetDirection(), (3, 3)).T[::-1], grid.axes, atol=1e-5):
        yield f"the axes are {grid.axes.tolist()}, of SimpleITK {image.GetDirection()}"
    array = sitk.GetArrayFromImage(image)
    if array.shape != volume.array.shape or not np.allclose(array, volume.array, rtol=1e-6, atol=1e-3):
        yield "voxels differ from those of SimpleITK"


# ---- series


def _even(rng: Generator, kind: str = "even") -> Plan:
    return _noise(rng, kind, np.arange(rng.integers(2, 9)) * _step(rng))


def _uneven(rng: Generator) -> Plan:
    """Two or three stacks of different spacing, each a multiple of one step, every slice numbered."""
    step = float(rng.choice([0.5, 0.6, 0.75, 1.0, 1.25, 2.0]))
    while True:
        gaps = np.concatenate([np.full(rng.integers(1, 4), factor) for factor in rng.choice([1, 2, 3, 5], rng.integers(2, 4))]) * step
        if len(set(gaps.tolist())) > 1:
            return _noise(rng, "uneven", np.concatenate([[0.0], np.cumsum(gaps)]))


def _missing(rng: Generator) -> Plan:
    """An even series with holes, of which the numbers tell, or, where there are none, that are few."""
    count, step = int(rng.integers(7, 12)), _step(rng)
    numbered = bool(rng.random() < 0.7)
    while True:
        holes = rng.choice(np.arange(1, count - 1), rng.integers(1, 4) if numbered else 1, replace=False)
        left = np.setdiff1d(np.arange(count), holes)
        if len(set(np.diff(left).tolist())) > 1 and (numbered or len(left) > 4):
            break
    plan = _noise(rng, "missing", left * step)
    first, every = int(rng.integers(0, 50)), int(rng.choice([1, 1, 2]))
    plan.written["numbers"] = [first + every * int(n) for n in left] if numbered else None
    if not numbered:
        plan.written["change"] = _without_number
    return plan


def _tilted(rng: Generator) -> Plan:
    tilt = float(rng.choice([45.0, -45.0, float(rng.uniform(3, 30)), -float(rng.uniform(3, 30))]))
    step = float(rng.uniform(0.6, 3))
    offsets = np.arange(rng.integers(3, 7)) * step
    if rng.random() < 0.3:
        offsets = np.concatenate([offsets, offsets[-1] + 2 * step * np.arange(1, 4)])
    plan = _noise(rng, "tilted", offsets)
    plan.values, plan.slopes = None, rng.choice([0.5, 1.0, 2.0], len(offsets))
    plan.written |= {"image": ramp, "tilt_deg": tilt, "rows": int(rng.integers(8, 16)), "columns": int(rng.integers(4, 8))}
    plan.written |= {"centre_mm": rng.uniform(-20, 20, 3).tolist(), "slope": plan.slopes.tolist(), "intercept": -1024.0, "bits_stored": 16}
    return plan


def _doubled(rng: Generator) -> Plan:
    plan = _even(rng, "even") if rng.random() < 0.5 else _uneven(rng)
    count = len(plan.written["offsets"])
    plan.kind, plan.doubles = "doubled", tuple(int(n) for n in rng.choice(count, rng.integers(1, count + 1), replace=False))
    return plan


KINDS: tuple[Callable[[Generator], Plan], ...] = (_even, _uneven, _even, _missing, _tilted, _even, _uneven, _doubled)


def _step(rng: Generator) -> float:
    return float(np.round(rng.uniform(0.5, 6), int(rng.integers(1, 5))))


def _noise(rng: Generator, kind: str, offsets: Floats) -> Plan:
    """Noise of whole stored values on slices at ``offsets``, in any position, spacing, rescaling and sign."""
    ct, signed = bool(rng.random() < 0.7), bool(rng.random() < 0.5)
    rows, columns = (int(v) for v in rng.integers(2, 11, 2))
    slopes = np.full(len(offsets), float(rng.choice([1, 1, 1, 2, 0.5, 0.25, float(np.round(rng.uniform(0.1, 3), 4))])))
    if kind != "even" and rng.random() < 0.3:
        slopes = np.round(rng.uniform(0.1, 3, len(offsets)), 4)
    intercept = float(rng.choice([-1024, -1000.5, -8192])) if ct else float(rng.choice([0, 0, 12.5]))
    bits = int(rng.choice([12, 16]))
    top = 2 ** (bits - 1 if signed else bits)
    stored = rng.integers(-top if signed else 0, top, (len(offsets), rows, columns))
    slices = iter(stored * slopes[:, None, None] + intercept)
    values = stored * slopes[:, None, None] + intercept
    written = {
        "image": lambda points: next(slices),
        "rows": rows,
        "columns": columns,
        "spacing_mm": tuple(float(v) for v in np.round(rng.uniform(0.3, 4, 2), int(rng.integers(1, 6)))),
        "offsets": offsets.tolist(),
        "centre_mm": rng.uniform(-300, 300, 3).tolist(),
        "modality": "CT" if ct else "MR",
        "slope": slopes.tolist(),
        "intercept": intercept,
        "signed": signed,
        "bits_stored": bits,
        **_direction(rng),
    }
    return Plan(kind, written, values, slopes)


def _direction(rng: Generator) -> dict[str, Any]:
    """A patient position, turned a little, or any direction at all."""
    position = str(rng.choice(list(PATIENT_POSITIONS)))
    row, column = (np.array(v, dtype=float) for v in PATIENT_POSITIONS[position])
    turned = float(rng.choice([0.0, 0.0, 12.0, 180.0]))
    if turned:
        turn = Rotation.from_rotvec(rng.normal(size=3) * np.radians(turned) / 2)
        row, column = turn.apply(row), turn.apply(column)
    return {"patient_position": position, "row": row.tolist(), "column": column.tolist()}


# ---- files


def _written(plan: Plan, folder: Path, rng: Generator) -> tuple[WrittenSeries, list[set[str]]]:
    """The series on disk, files named and images numbered in any order; and of each place from the lowest on the SOPInstanceUIDs there."""
    count = len(plan.written["offsets"])
    numbers = plan.written.pop("numbers", None) or range(1, count + 1)
    numbers = rng.permutation(list(numbers)).tolist()
    made = make_series(folder, order=rng.permutation(count).tolist(), numbers=numbers, **plan.written)
    names = [{uid} for uid in made.sop_uids]
    for n in plan.doubles:
        names[n].add(_double(made.paths[n], folder / f"{rng.integers(10**6)}-{n}.dcm", int(rng.choice(numbers))))
    return made, names


def _double(path: Path, to: Path, number: int) -> str:
    """The same image as another instance, whose SOPInstanceUID is given."""
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.InstanceNumber = number
    dataset.save_as(to)
    return str(dataset.SOPInstanceUID)


def _without_number(dataset: Dataset, n: int) -> None:
    del dataset.InstanceNumber


if __name__ == "__main__":
    said = check(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write("\n".join([*said, f"{len(said)} failures"]) + "\n")
