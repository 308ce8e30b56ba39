"""What the page of ``oncontour adapt`` shows beside the contours: both CTs, the field, and the figures of the registration.

images = Images(...)                                   what the pictures are made of
section(told, pictures(images), compared(images))      the HTML that stands in the page; ``told`` is report.json's "adapt"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.adapt.deformation import Deformation
from oncontour.core.boxes import box_of, cropped
from oncontour.core.case import Case
from oncontour.core.geometry import Floats, Geometry
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.palette import Colour
from oncontour.report.dvh import as_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.quiver import Quiver

    from oncontour.report import Record
    from oncontour.report.compare import Compared

PIXELS = 300
"""Along the longest side of a picture."""
LEAST_MM = 1.0
GREY_HU = (-200.0, 300.0)
ARROWS = 28
"""Along the longer side."""
AIR_HU = -1000.0
_PLANES = ((0, False), (1, True), (2, True))
"""(the axis across it, whether superior is up): axial, coronal, sagittal"""


@dataclass(frozen=True, eq=False)
class Images:
    """What the pictures show: CTs ``today`` and of ``planning``, the ``deformation`` and the 4x4 ``set_up`` from the day to planning, the
    case ``planned``, the case ``propagated`` to today's CT, and the masks that a model drew there (``direct``); the ``colours`` of the
    structures to show, and the point (LPS mm) that the planes cut."""

    today: Volume
    planning: Volume
    deformation: Deformation
    set_up: Floats
    planned: Case
    propagated: Case
    direct: Mapping[str, Volume]
    colours: Mapping[str, Colour]
    point_mm: Sequence[float]
    body: Volume


@dataclass(frozen=True, eq=False)
class _Plane:
    """One plane of the pictures, two-dimensional and upright: grey values, the field, extent in mm."""

    today: NDArray[np.floating]
    jacobian: NDArray[np.floating]
    arrows: NDArray[np.floating]
    """(2, rows, columns) mm to the right and down, from where tissue lay after the set-up to where it lies today"""
    length: NDArray[np.floating]
    extent: tuple[float, float, float, float]


def pictures(images: Images) -> dict[str, str]:
    """ "field": arrows and Jacobian map; as SVG."""
    return {"field": as_svg(_fielded([_plane(images, *one) for one in _PLANES]))}


def section(told: Record, figures: Mapping[str, str], compared: Compared, inline: Callable[[str], str]) -> str:
    """The part of the page that tells of the registration, as HTML. ``inline`` makes an SVG fit to stand in a page."""
    from jinja2 import Environment, select_autoescape
    from markupsafe import Markup

    text, script = (files("oncontour.report").joinpath(name).read_text(encoding="utf-8") for name in ("adapt.html", "visits.js"))
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    shown = {name: Markup(inline(svg)) for name, svg in figures.items()}
    return environment.from_string(text).render(
        adapt=told,
        figures=shown,
        signed=_signed,
        side=_side,
        places=[told["structures"][name]["outline"] for name in told["places"]],
        compared=compared,
        compared_words=Markup(compared.words.replace("<", "\\u003c")),
        script=Markup(script),
    )


def _signed(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def _side(mm: Sequence[float] | None) -> str:
    """A shift in LPS mm in words, left out where it is less than half a millimetre."""
    if mm is None:
        return "–"
    names = (("left", "right"), ("posterior", "anterior"), ("superior", "inferior"))
    parts = [f"{abs(v):.1f} mm {names[n][v < 0]}" for n, v in enumerate(mm) if abs(v) >= 0.5]
    return ", ".join(parts) or "less than 0.5 mm each way"


# ---- planes


def _plane(images: Images, axis: int, upright: bool) -> _Plane:
    grid = _thin(images, axis)
    deformation = Deformation(Volume(_on(images.deformation, grid), grid), images.deformation.fixed, images.deformation.moving)

    def flat(array: Array) -> NDArray[np.floating]:
        picture = np.asarray(np.take(array, 0, axis=axis - 3), dtype=np.float32)
        return np.flip(picture, -2) if upright else picture

    back = np.linalg.inv(images.set_up)
    points = np.moveaxis(_points(grid), -1, 0)
    was = np.moveaxis(np.moveaxis(points + deformation.displacement.array, 0, -1) @ back[:3, :3].T + back[:3, 3], -1, 0)
    moved = points - was
    across, down = [n for n in (2, 1, 0) if n != axis]
    arrows = np.stack([flat(np.tensordot(grid.axes[n], moved, 1)) for n in (across, down)])
    steps = grid.spacing_mm
    return _Plane(
        flat(images.today.to(grid, fill=AIR_HU).array),
        flat(images.deformation.jacobian().to(grid, fill=1.0).array),
        np.stack([arrows[0], -arrows[1] if upright else arrows[1]]),
        flat(np.linalg.norm(moved, axis=0)),
        (0.0, grid.shape[across] * steps[across], grid.shape[down] * steps[down], 0.0),
    )


def _thin(images: Images, axis: int) -> Geometry:
    """The upright grid of one slice across ``axis`` through the point, about the body."""
    grid = images.today.geometry.reorient()
    box = box_of(images.body.array)
    if box is not None:
        grid = grid.around(cropped(images.body.geometry, box).corners_mm)
    longest = max(n * step for n, step in zip(grid.shape, grid.spacing_mm, strict=True))
    grid = grid.resample((max(LEAST_MM, longest / PIXELS),) * 3)
    at = int(np.clip(round(float(grid.voxels(images.point_mm)[axis])), 0, grid.shape[axis] - 1))
    low, high = [0, 0, 0], list(grid.shape)
    low[axis], high[axis] = at, at + 1
    return grid.crop(low, high)


def _points(grid: Geometry) -> Floats:
    return grid.points(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))


def _on(deformation: Deformation, grid: Geometry) -> Floats:
    return np.moveaxis(deformation.at(_points(grid)), -1, 0).copy()


# ---- figures


def _fielded(planes: Sequence[_Plane]) -> Figure:
    """Arrows on the left, the Jacobian map on the right, a row a plane."""
    most = max(1.0, float(np.percentile(np.concatenate([p.length.ravel() for p in planes]), 99)))
    figure, axes = _figure([plane.extent for plane in planes], 2, width=4.4)
    for row, plane in zip(axes, planes, strict=True):
        row[0].imshow(plane.today, cmap="gray", vmin=GREY_HU[0], vmax=GREY_HU[1], extent=plane.extent)
        quiver = _quiver(row[0], plane, most)
        shade = row[1].imshow(plane.jacobian, cmap="PuOr", vmin=0, vmax=2, extent=plane.extent)
        if (plane.jacobian <= 0).any():
            row[1].contour(plane.jacobian, levels=[0], colors="#d0021b", linewidths=1.5, extent=plane.extent, origin="upper")
    axes[0][0].set_title("set up to today, arrows twice as long", fontsize=9)
    axes[0][1].set_title("Jacobian determinant", fontsize=9)
    figure.colorbar(quiver, ax=[row[0] for row in axes], shrink=0.6, label="mm", location="left")
    figure.colorbar(shade, ax=[row[1] for row in axes], shrink=0.6, location="right")
    return figure


def _quiver(axis: Axes, plane: _Plane, most: float) -> Quiver:
    step = max(1, max(plane.today.shape) // ARROWS)
    every = np.s_[step // 2 :: step, step // 2 :: step]
    body = plane.today[every] > GREY_HU[0]
    y, x = (np.indices(plane.today.shape) + 0.5) * (plane.extent[1] / plane.today.shape[1])
    parts = [part[every][body] for part in (x, y, *plane.arrows, plane.length)]
    return axis.quiver(
        *parts, angles="xy", scale_units="xy", scale=0.5, pivot="tip", cmap="viridis", clim=(0, most), width=0.005, minlength=0
    )


def _figure(extents: Sequence[tuple[float, float, float, float]], columns: int, width: float = 3.0) -> tuple[Figure, NDArray[np.object_]]:
    """A figure of a row a plane, each as wide as ``width`` inches and as tall as its extent has it, to one scale at most."""
    from matplotlib.figure import Figure

    widest = max(extent[1] for extent in extents)
    heights = [width * extent[2] / widest for extent in extents]
    figure = Figure(figsize=(width * columns, sum(heights) + 0.4), layout="constrained")
    axes = figure.subplots(len(extents), columns, height_ratios=heights, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    return figure, axes
