"""The steps of MONAI's preprocessing that are understood: from a transform's settings to what is done to an image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from oncontour.contour.external.base import axes_of
from oncontour.contour.external.values import Values, listed, number, numbers
from oncontour.core.volume import Volume

Grey = NDArray[np.floating]
Step = Callable[[Volume], Volume]
NO_EFFECT = (
    "LoadImaged",
    "EnsureChannelFirstd",
    "AddChanneld",
    "AsChannelFirstd",
    "EnsureTyped",
    "ToTensord",
    "CastToTyped",
    "SpatialPadd",
    "DivisiblePadd",
)
HARMLESS = ("allow_missing_keys", "lazy", "dtype", "channel_wise", "ensure_same_shape")
"""Settings of any step that change nothing where there is one image of one channel."""


def oriented(a: Values) -> Step:
    axes = axes_of("RAS" if a.get("as_closest_canonical") else a["axcodes"], "Orientationd")
    if a.get("labels") is not None and [list(listed(pair)) for pair in listed(a["labels"])] != [["L", "R"], ["P", "A"], ["I", "S"]]:
        raise ValueError(f"labels {a['labels']} give the letters another meaning")
    return lambda volume: volume.to(volume.geometry.reorient(axes))


def _spaced(a: Values) -> Step:
    spacing = numbers(a["pixdim"])
    if a.get("diagonal"):
        raise ValueError("diagonal turns the image")
    if a.get("mode", "bilinear") not in ("bilinear", 1):
        raise ValueError(f"mode {a['mode']!r}; bilinear is what can be followed")

    def step(volume: Volume) -> Volume:
        wanted = [new if new > 0 else old for new, old in zip(spacing, volume.geometry.spacing_mm, strict=True)]
        return volume.to(volume.geometry.resample(wanted), fill=float(volume.array.min()))

    return step


def _ranged(a: Values) -> Step:
    low, high = number(a["a_min"]), number(a["a_max"])
    first, last = (number(a[key]) if a.get(key) is not None else None for key in ("b_min", "b_max"))
    if low >= high:
        raise ValueError(f"a_min {low}, a_max {high}")

    def step(values: Grey) -> Grey:
        out = (values - low) / (high - low)
        if first is not None and last is not None:
            out = out * (last - first) + first
            return np.clip(out, first, last) if a.get("clip") else out
        return out

    return lambda volume: volume.map(step)


def _of_one_channel(value: object) -> float | Grey | None:
    """A number, as such or as the only entry of a list; None for none."""
    if not isinstance(value, list):
        return None if value is None else number(value)
    if len(value) != 1:
        raise ValueError(f"{value}: the image has one channel")
    return np.asarray(numbers(value))


def _normalised(a: Values) -> Step:
    subtrahend, divisor = (_of_one_channel(a.get(name)) for name in ("subtrahend", "divisor"))

    def step(values: Grey) -> Grey:
        counted = values[values != 0] if a.get("nonzero") else values
        mean = counted.mean() if subtrahend is None else subtrahend
        spread = counted.std() if divisor is None else divisor
        out = (values - mean) / (spread or 1.0)
        return np.where(values != 0, out, values) if a.get("nonzero") else out

    return lambda volume: volume.map(step)


def _scaled(a: Values) -> Step:
    low, high = a.get("minv", 0.0), a.get("maxv", 1.0)
    if low is None and high is None:  # only then does a factor count
        factor = number(a.get("factor") or 0.0)
        return lambda volume: volume.map(lambda values: values * (1 + factor))
    least, most = number(low), number(high)

    def step(values: Grey) -> Grey:
        darkest, brightest = values.min(), values.max()
        return np.asarray((values - darkest) / ((brightest - darkest) or 1.0) * (most - least) + least)

    return lambda volume: volume.map(step)


def _cropped(a: Values) -> Step:
    margin = np.broadcast_to(np.asarray(a.get("margin", 0), int), (3,))
    divisor = np.broadcast_to(np.asarray(a.get("k_divisible", 1), int), (3,))

    def step(volume: Volume) -> Volume:
        there = np.argwhere(volume.array > 0)
        if not len(there):
            return volume
        start, stop = there.min(axis=0) - margin, there.max(axis=0) + 1 + margin
        if a.get("allow_smaller"):
            start, stop = np.maximum(start, 0), np.minimum(stop, volume.array.shape)
        size = -(-(stop - start) // divisor) * divisor
        start = start - (size - (stop - start)) // 2
        return volume.to(volume.geometry.crop(start, start + size))

    return step


STEPS: dict[str, tuple[Callable[[Values], Step], tuple[str, ...]]] = {
    "Orientationd": (oriented, ("axcodes", "as_closest_canonical", "labels")),
    "Spacingd": (_spaced, ("pixdim", "mode", "diagonal", "padding_mode", "align_corners", "scale_extent", "recompute_affine")),
    "ScaleIntensityRanged": (_ranged, ("a_min", "a_max", "b_min", "b_max", "clip")),
    "NormalizeIntensityd": (_normalised, ("subtrahend", "divisor", "nonzero")),
    "ScaleIntensityd": (_scaled, ("minv", "maxv", "factor")),
    "CropForegroundd": (_cropped, ("source_key", "margin", "allow_smaller", "k_divisible", "start_coord_key", "end_coord_key", "mode")),
}
"""Preprocessing that is understood: from the transform's settings to a step from Volume to Volume, and the settings it knows."""
