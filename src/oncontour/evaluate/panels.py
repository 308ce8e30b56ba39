"""Small pictures kept from each patient while it is in memory: one structure's best, median and worst slice, CT, truth and predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.core.boxes import box_of
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.metrics.overlap import Overlap

MARGIN_MM, LEAST_MM = 15.0, 70.0
RANKS = ("best", "median", "worst")


@dataclass(frozen=True, eq=False)
class Panel:
    """A cut-out of slice ``k`` (rows to posterior, columns to the patient's left for an axial CT) around one structure.

    ``image`` in HU or None, ``truth`` and ``predicted[method]`` bool, ``pixel_mm`` (row, column), ``dsc`` of this slice by method.
    """

    patient: str
    structure: str
    rank: str
    k: int
    image: NDArray[np.float32] | None
    truth: NDArray[np.bool_]
    predicted: Mapping[str, NDArray[np.bool_]]
    dsc: Mapping[str, float]
    pixel_mm: tuple[float, float]


def panels(case: Case, structure: str, truth: Volume, by_method: Mapping[str, tuple[Volume, Overlap]]) -> list[Panel]:
    """The best, median and worst slice by the first method's DSC, among the slices that the truth or that method has."""
    first = next(iter(by_method.values()))[1]
    each = first.slice_dsc
    judged = np.flatnonzero(~np.isnan(each))
    if not len(judged):
        return []
    order = judged[np.argsort(-each[judged], kind="stable")]
    slices = {"best": int(order[0]), "median": int(order[len(order) // 2]), "worst": int(order[-1])}
    masks = {method: mask for method, (mask, _) in by_method.items()}
    window = _window([truth, *masks.values()])
    scores = {method: shared.slice_dsc for method, (_, shared) in by_method.items()}
    return [
        _panel(case, structure, rank, k, window(k), truth, masks, {m: float(v[k]) for m, v in scores.items()}) for rank, k in slices.items()
    ]


def _panel(
    case: Case, structure: str, rank: str, k: int, window: Geometry, truth: Volume, masks: Mapping[str, Volume], dsc: Mapping[str, float]
) -> Panel:
    image = case.images.get("ct") or next(iter(case.images.values()), None)
    shown = window.reorient()
    flat = next(n for n, size in enumerate(shown.shape) if size == 1)
    pixel = [s for n, s in enumerate(shown.spacing_mm) if n != flat]
    return Panel(
        case.id,
        structure,
        rank,
        k,
        None if image is None else np.asarray(image.to(shown, fill=-1024).array, np.float32).squeeze(flat),
        truth.to(shown).binary().array.squeeze(flat),
        {method: mask.to(shown).binary().array.squeeze(flat) for method, mask in masks.items()},
        dsc,
        (pixel[0], pixel[1]),
    )


def _window(masks: list[Volume]) -> Callable[[int], Geometry]:
    """Slice k -> one square of it, the same for all: what is drawn in any slice, with a margin."""
    geometry = masks[0].geometry
    spacing = np.asarray(geometry.spacing_mm[1:])
    boxes = [box for mask in masks if (box := box_of(mask.binary().array))]
    low = np.min([[s.start for s in box[1:]] for box in boxes], axis=0)
    high = np.max([[s.stop - 1 for s in box[1:]] for box in boxes], axis=0)
    half = max(float(((high - low + 1) * spacing).max()) / 2 + MARGIN_MM, LEAST_MM / 2) / spacing
    start = np.floor((low + high) / 2 - half).astype(int)
    stop = np.ceil((low + high) / 2 + half).astype(int) + 1
    return lambda k: geometry.crop((k, int(start[0]), int(start[1])), (k + 1, int(stop[0]), int(stop[1])))
