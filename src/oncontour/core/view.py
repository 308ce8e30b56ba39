"""A case as a notebook shows it: three planes with the outlines of the structures, as one piece of HTML.

To look at, not to measure: each plane is sampled at square pixels through the middle of the structures. Seen as radiologists do: the
patient's left is on the right, anterior is up in the axial plane and left in the sagittal one, superior is up.
"""

from __future__ import annotations

import base64
import html as markup
import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.palette import Colour, colour_of

if TYPE_CHECKING:
    from oncontour.core.case import Case

PIXELS = 240
"""Along the longest side of the case."""
CT_HU = (-160.0, 240.0)
"""Black and white of a CT: soft tissue."""
_LEFT, _POSTERIOR, _SUPERIOR = np.eye(3)
PLANES = {
    "axial": (_SUPERIOR, _POSTERIOR, _LEFT),
    "coronal": (_POSTERIOR, -_SUPERIOR, _LEFT),
    "sagittal": (_LEFT, -_SUPERIOR, _POSTERIOR),
}
"""Plane -> LPS directions out of it, down the picture, and to its right."""

Picture = NDArray[np.uint8]


def html(case: Case) -> str:
    """Three planes side by side, and the names of the structures in their colours below."""
    colours = {name: colour_of(n) for n, name in enumerate(case.structures)}
    middle = _middle(case)
    shown = "".join(f'<img alt="{name}" src="{_png(picture(case, name, middle, colours))}" style="margin:2px">' for name in PLANES)
    names = " ".join(f'<span style="color:rgb{colour}">&#9632;</span> {markup.escape(name)}' for name, colour in colours.items())
    return f"<div><b>{markup.escape(case.id)}</b><br>{shown}<br>{names or 'no structures'}</div>"


def picture(case: Case, plane: str, middle: NDArray[np.float64], colours: dict[str, Colour]) -> Picture:
    """(rows, columns, 3) one of PLANES through ``middle`` (LPS mm) as RGB: the image in grey, each structure's outline in its colour."""
    grid = _grid(case.geometry, plane, middle)
    rgb = np.repeat(_grey(case, grid)[..., None], 3, axis=2)
    for name, colour in colours.items():
        inside = case.mask(name).to(grid, blur=False).array[0]
        rgb[inside & ~ndimage.binary_erosion(inside, border_value=1)] = colour
    return rgb


def _middle(case: Case) -> NDArray[np.float64]:
    """The mean of the middles of the structures that are not empty; of a case without, its middle (LPS mm)."""
    masks = [mask for name in case.structures if (mask := case.mask(name)).array.any()]
    if not masks:
        return np.asarray(case.geometry.corners_mm.mean(axis=0))
    return np.asarray(np.mean([(mask.geometry.affine @ [*ndimage.center_of_mass(mask.array), 1.0])[:3] for mask in masks], axis=0))


def _grid(case: Geometry, plane: str, middle: NDArray[np.float64]) -> Geometry:
    """Square pixels in one plane that hold the whole case."""
    axes = np.asarray(PLANES[plane])
    corners = np.asarray(case.corners_mm)
    step = float((corners.max(axis=0) - corners.min(axis=0)).max()) / PIXELS
    along = corners @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    first = low + step / 2
    first[0] = axes[0] @ middle
    shape = (1, *(max(1, round((b - a) / step)) for a, b in zip(low[1:], high[1:], strict=True)))
    return Geometry.regular(shape, (step,) * 3, (axes.T @ first).tolist(), axes)


def _grey(case: Case, grid: Geometry) -> Picture:
    """The CT in its window, else the first image from its 1st to its 99th percentile; black where there is no image."""
    name = next((one for one in ("ct", *case.images) if one in case.images), None)
    if name is None:
        return np.zeros(grid.shape[1:], np.uint8)
    volume = case.images[name]
    low, high = CT_HU if name == "ct" else (float(v) for v in np.percentile(volume.array[..., ::4, ::4, ::4], (1, 99)))
    values = Volume(volume.array.astype(np.float32), volume.geometry).to(grid, fill=low, blur=False).array[0]
    return np.asarray(255 * np.clip((values - low) / max(high - low, 1e-6), 0, 1), np.uint8)


def _png(rgb: Picture) -> str:
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(rgb).save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()
