"""How structures changed over the visits of a course: volume, place and dose of each, as three small charts.

svg([planning, week_1, week_2])      the charts as text for an HTML page
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncontour.core.structure_kinds import is_target
from oncontour.report.dvh import DASHES, as_svg, ink, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Figures:
    """Of a structure at a visit: its volume, how far it lies from where the set-up alone would have it, and its dose as if the whole plan
    were given on this anatomy: Dmean of an organ, D95% of a target. None: not known."""

    volume_cc: float | None
    moved_mm: float | None
    dose_gy: float | None


@dataclass(frozen=True)
class Point:
    """A visit: how many days after the planning CT (None: not told), and its structures."""

    day: int | None
    structures: Mapping[str, Figures]


def in_order(points: Sequence[Point]) -> list[Point]:
    """Planning, which is the first, and the visits by day where each has a day of its own, else as they came."""
    days = [one.day for one in points if one.day is not None]
    if len(set(days)) < len(points):
        return list(points)
    return [points[0], *sorted(points[1:], key=lambda one: one.day or 0)]


def draw(points: Sequence[Point]) -> Figure:
    """Volume in % of the first point, millimetres, and Gy over visits; the first point is planning, whose structures have the colours of
    their place in it. A structure that a visit has not leaves
    a gap."""
    from matplotlib.figure import Figure

    days = [one.day for one in points if one.day is not None]
    by_day = len(set(days)) == len(points)
    along = days if by_day else list(range(len(points)))
    with style():
        figure = Figure(figsize=(10.4, 3.0), layout="constrained")
        volume, moved, dose = figure.subplots(1, 3)
        names = list(points[0].structures)
        _lines(volume, along, names, lambda name: _percent([_of(one, name).volume_cc for one in points]))
        _lines(moved, along, names, lambda name: [_of(one, name).moved_mm for one in points])
        _lines(dose, along, names, lambda name: [_of(one, name).dose_gy for one in points])
        titles = ("Volume, % of planning", "Moved beyond the set-up, mm", "Dmean of organs, D95% of targets, Gy")
        for axis, title in zip((volume, moved, dose), titles, strict=True):
            axis.set_title(title, loc="left", fontsize=9, fontweight="bold")
            axis.set_xlabel("days after planning" if by_day else "visit (0: planning)")
            axis.set_xticks(along)
            axis.grid(color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
        moved.set_ylim(bottom=0)
        dose.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=7.5, handlelength=2.8)
    return figure


def svg(points: Sequence[Point]) -> str:
    """The charts as one ``<svg>`` element."""
    return as_svg(draw(points))


def _of(point: Point, name: str) -> Figures:
    return point.structures.get(name, Figures(None, None, None))


def _percent(volumes: Sequence[float | None]) -> list[float | None]:
    first = volumes[0]
    return [None if not first or one is None else 100 * one / first for one in volumes]


def _lines(axis: Axes, along: Sequence[int], names: Sequence[str], of: Callable[[str], Sequence[float | None]]) -> None:
    for n, name in enumerate(names):
        red, green, blue = ink(n)
        axis.plot(
            along,
            [float("nan") if one is None else one for one in of(name)],
            color=(red / 255, green / 255, blue / 255),
            linestyle="-" if is_target(name) else DASHES[n % len(DASHES)],
            linewidth=2.0 if is_target(name) else 1.5,
            marker="o",
            markersize=3.5,
            label=(" " if name.startswith("_") else "") + name.replace("$", r"\$"),
        )
