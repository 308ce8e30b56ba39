"""The DVH plot that a clinic expects: cumulative, % of the volume over Gy, targets solid, organs dashed, prescriptions marked.

figure = draw(dvhs, prescriptions_gy={"PTV_7000": 70.0})     a matplotlib figure
svg(dvhs)                                                    the same as text for an HTML page
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.core.structure_kinds import is_target
from oncontour.dose.dvh import DVH
from oncontour.files import writing
from oncontour.palette import Colour, colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ((0, (5, 1.6)), (0, (1.4, 1.2)), (0, (7, 1.5, 1.4, 1.5)), (0, (3, 1)), (0, (9, 2)))
"""Of organs: after twelve colours have been used up, and for eyes that see none, the dashes still differ."""
POINTS = 800
MOST_LIGHT = 0.62
"""Of a curve, where white is 1."""


def style() -> AbstractContextManager[None]:
    """How every chart of a page looks."""
    from matplotlib import rc_context

    return rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#555555",
            "svg.fonttype": "path",
            "svg.hashsalt": "oncontour",
            "figure.facecolor": "white",
        }
    )


def ink(position: int) -> Colour:
    """The colour of the curve at ``position``: that of the structure, dark enough for white paper."""
    red, green, blue = colour_of(position)
    light = (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255
    part = min(1.0, MOST_LIGHT / light)
    return round(part * red), round(part * green), round(part * blue)


def draw(
    dvhs: Mapping[str, DVH],
    *,
    prescriptions_gy: Mapping[str, float] | None = None,
    title: str = "",
    absolute: bool = False,
    before: Mapping[str, DVH] | None = None,
) -> Figure:
    """A matplotlib figure of all ``dvhs`` that have a dose; ``absolute`` in cc instead of %.

    ``prescriptions_gy`` by target are thin vertical lines. The legend gives volume and mean dose. ``before``: DVHs by the same names to
    compare with, as thin pale lines. Without any dose it says so.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(8.6, 4.8), layout="constrained")
        axis = figure.add_subplot()
        shown = {name: one for name, one in dvhs.items() if one.dosed_cc > 0}
        for position, (name, one) in enumerate(dvhs.items()):
            if name in shown:
                _curve(axis, name, one, position, absolute)
                if before and name in before and before[name].dosed_cc:
                    _pale(axis, before[name], position, absolute)
        for gy in sorted(set((prescriptions_gy or {}).values())):
            axis.axvline(gy, color="#777777", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
            axis.annotate(f"{gy:g} Gy", (gy, 1), (2, 2), ("data", "axes fraction"), "offset points", color="#555555", fontsize=7)
        _axes(axis, shown, absolute, title)
        return figure


def svg(
    dvhs: Mapping[str, DVH],
    *,
    prescriptions_gy: Mapping[str, float] | None = None,
    title: str = "",
    absolute: bool = False,
    before: Mapping[str, DVH] | None = None,
) -> str:
    """The figure as one ``<svg>`` element for an HTML page: no network, no fonts, no scripts.

    Its curves are the elements ``dvh-N``, N counting ``dvhs`` from 0; ``data-axes`` says where the axes lie (left, bottom, right, top, in
    parts of the picture, from below), ``data-most`` the Gy and the volume at their ends.
    """
    figure = draw(dvhs, prescriptions_gy=prescriptions_gy, title=title, absolute=absolute, before=before)
    text, (axis,) = as_svg(figure), figure.axes
    box = axis.get_position()
    where = f'data-axes="{box.x0:.6f} {box.y0:.6f} {box.x1:.6f} {box.y1:.6f}" data-most="{axis.get_xlim()[1]:.6f} {axis.get_ylim()[1]:.6f}"'
    return f"<svg {where}{text[len('<svg') :]}"


def as_svg(figure: Figure) -> str:
    """A figure as one ``<svg>`` element."""
    out = StringIO()
    _print(figure, out, "svg")
    text = out.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, stem: Path | str) -> list[Path]:
    """Write ``stem``.png and ``stem``.svg, each whole or not at all."""
    paths = [Path(f"{stem}.{kind}") for kind in ("png", "svg")]
    for path in paths:
        with writing(path) as temporary:
            _print(figure, temporary, path.suffix[1:])
    return paths


def _print(figure: Figure, out: Path | StringIO, kind: str) -> None:
    with style():
        figure.savefig(out, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": "oncontour"})


def _curve(axis: Axes, name: str, one: DVH, position: int, absolute: bool) -> None:
    target = is_target(name)
    axis.plot(
        *_points(one, absolute),
        color=_hex(position),
        linewidth=2.4 if target else 1.7,
        linestyle="-" if target else DASHES[position % len(DASHES)],
        label=f"{_as_is(name)}  {_cc(one.volume_cc)} cc, mean {one.mean_gy:.1f} Gy" + (" *" if one.note else ""),
        zorder=3 if target else 2,
        gid=f"dvh-{position}",
    )


def _pale(axis: Axes, one: DVH, position: int, absolute: bool) -> None:
    axis.plot(*_points(one, absolute), color=_hex(position), linewidth=0.8, alpha=0.7, zorder=1)


def _points(one: DVH, absolute: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gy and % (cc where ``absolute``) of a curve."""
    edges = np.linspace(one.min_gy, one.max_gy, POINTS)
    above = np.interp(edges, one.edges_gy, one.above_cc)
    whole = 1.0 if absolute else one.dosed_cc / 100
    return np.concatenate([[0.0], edges, edges[-1:]]), np.concatenate([[one.dosed_cc], above, [0.0]]) / whole


def _hex(position: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*ink(position))


def _as_is(text: str) -> str:
    """``text`` for matplotlib, which takes what is between two dollars for mathematics and leaves out what begins with an underscore."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _axes(axis: Axes, shown: Mapping[str, DVH], absolute: bool, title: str) -> None:
    bases = {one.basis for one in shown.values()} or {"physical"}
    basis = bases.pop()
    axis.set_xlabel("Dose [Gy]" if basis == "physical" else f"Dose [Gy, {basis}]")
    axis.set_ylabel("Volume [cc]" if absolute else "Volume [%]")
    axis.set_xlim(0, 1.04 * max([one.max_gy for one in shown.values()], default=1.0) or 1.0)
    axis.set_ylim(0, None if absolute and shown else 101)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    if title:
        axis.set_title(_as_is(title), loc="left", fontsize=10, fontweight="bold", pad=14)
    if not shown:
        axis.text(0.5, 0.5, "no structure has a dose", transform=axis.transAxes, ha="center", color="#555555")
        return
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=7.5, handlelength=3.2)
    if any(one.note for one in shown.values()):
        axis.annotate(
            "* partly outside the dose grid: the rest is shown", (1, 0), (0, -28), "axes fraction", "offset points", ha="right", fontsize=7
        )


def _cc(volume: float) -> str:
    return f"{volume:.2f}" if volume < 10 else f"{volume:.0f}"
