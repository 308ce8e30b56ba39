"""Where a risk comes from: CT, dose and the model's sensitivity in three planes, and the sentence that belongs on top.

figure = draw(case)      a matplotlib figure of ``case.risk``;   text(case)   the same in words
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from oncontour.core.case import Case
from oncontour.core.prediction import RiskPrediction
from oncontour.core.resample import Array
from oncontour.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIMULATED = "SIMULATED OUTCOMES: the model learned from outcomes that were made up; it says nothing about this patient"
RESEARCH = "For research; not validated for this patient"
Cut = tuple[int | slice, int | slice, int | slice]
LINES_GY = (20, 30, 45, 60)
FINE_MM = 1.5
"""Of the picture's voxels: the model's own may be coarser."""


def predicted(case: Case) -> RiskPrediction:
    """The risk that a model told of ``case``. Raises InputError where none did."""
    if case.risk is None:
        raise InputError("no risk was predicted", where=f"case {case.id}")
    return case.risk


def headline(risk: RiskPrediction) -> str:
    """What must stand above every number of this risk."""
    return SIMULATED if risk.simulated else RESEARCH


def text(case: Case) -> str:
    """The risk as lines: headline, probabilities with intervals, published models, DVH figures, notes."""
    told = predicted(case)
    width = max([len("toxicity"), *(len(name) for name in told.toxicities)])
    lines = [headline(told), "", f"{'toxicity':<{width}}  {'risk':>7}  {'members agree within':<22}  flagged at"]
    lines.append("-" * len(lines[-1]))
    for name, one in told.toxicities.items():
        within = "-" if one.low is None or one.high is None else f"{100 * one.low:.1f} to {100 * one.high:.1f} %"
        at = "-" if one.threshold is None else f"{100 * one.threshold:.1f} %: {'yes' if one.flagged else 'no'}"
        lines.append(f"{name:<{width}}  {100 * one.probability:>5.1f} %  {within:<22}  {at}")
    published = [f"  {100 * one.probability:5.1f} %  {one.endpoint} ({one.source})" for one in told.reference.values()]
    figures = ", ".join(f"{name} {value:.1f}" for name, value in told.figures.items())
    lines += ["", "Published models beside it:", *(published or ["  none applies"])]
    lines += ["", f"{told.structure}: {figures}", *(f"note: {note}" for note in told.notes)]
    return "\n".join(lines)


def draw(case: Case) -> Figure:
    """Three planes through the organ: CT in grey, isodoses as lines, log odds a Gy in colour (red: more dose here, more risk), the
    stronger the less of the CT shines through."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    told = predicted(case)
    slope = told.sensitivity
    grid = slope.geometry.resample([min(FINE_MM, n) for n in slope.geometry.spacing_mm])
    dose = case.images["dose"].to(grid).array
    ct = case.images["ct"].to(grid, fill=-1024).array if "ct" in case.images else np.zeros(grid.shape)
    organ = case.mask(told.structure).map(lambda a: a.astype(np.float32)).to(grid).array
    odds = slope.to(grid).array
    inside = np.argwhere(organ >= 0.5)
    middle = [round(float(v)) for v in inside.mean(axis=0)] if len(inside) else [n // 2 for n in grid.shape]
    most = float(np.abs(odds).max()) or 1.0
    with rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(10.5, 4.4), layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, (name, cut, upright) in zip(axes, _planes(middle), strict=True):
            spacing = [grid.spacing_mm[n] for n in range(3) if not isinstance(cut[n], int)]
            extent = (0, ct[cut].shape[1] * spacing[1], ct[cut].shape[0] * spacing[0], 0)
            pictures = [np.asarray(a[cut], float)[::-1] if upright else np.asarray(a[cut], float) for a in (ct, odds, dose, organ)]
            axis.imshow(pictures[0], cmap="gray", vmin=-200, vmax=300, extent=extent)
            axis.imshow(pictures[1], cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.75 * np.sqrt(np.abs(pictures[1]) / most), extent=extent)
            _lines(axis, pictures[2], LINES_GY, extent, "#d98a00")
            _lines(axis, pictures[3], (0.5,), extent, "#00b283")
            axis.set_title(name, fontsize=9)
            axis.set_axis_off()
        _scale(figure, axes, most)
        risks = ", ".join(f"{name} {100 * one.probability:.0f} %" for name, one in told.toxicities.items())
        lines = f"orange: {', '.join(map(str, LINES_GY))} Gy; green: {told.structure}"
        figure.suptitle(f"{headline(told)}\n{risks}; {lines}", fontsize=9)
    return figure


def _scale(figure: Figure, axes: Sequence[Axes], most: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure.colorbar(ScalarMappable(Normalize(-most, most), "RdBu_r"), ax=axes, shrink=0.7, label="log odds a Gy and voxel")


def svg(case: Case) -> str:
    """The figure as one ``<svg>`` element for an HTML page."""
    import io

    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.hashsalt": "oncontour"}):  # the same risk gives the same page
        draw(case).savefig(out, format="svg")
    words = out.getvalue()
    return words[words.index("<svg") :]


def _planes(middle: list[int]) -> list[tuple[str, Cut, bool]]:
    k, j, i = middle
    every = slice(None)
    return [("axial", (k, every, every), False), ("coronal", (every, j, every), True), ("sagittal", (every, every, i), True)]


def _lines(axis: Axes, picture: Array, levels: Sequence[float], extent: tuple[float, float, float, float], colour: str) -> None:
    inside = [level for level in levels if picture.min() < level < picture.max()]
    if inside:
        axis.contour(picture, levels=inside, colors=colour, linewidths=0.8, extent=extent, origin="upper")
