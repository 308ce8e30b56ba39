"""The pictures people look at: box plots a metric, and contours on the CT. Colours are told apart by colour-blind eyes, and never alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oncontour.evaluate.found import METRICS, Evaluation, by_structure
from oncontour.evaluate.panels import RANKS, Panel
from oncontour.files import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType, RcKeyType

Floats = NDArray[np.float64]

METHOD_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
"""Okabe and Ito (2008), the dark ones first: on white paper."""
METHOD_MARKS = ("o", "s", "^", "D", "v", "P")
TRUTH_COLOUR = "#F7EC45"
OVERLAY_COLOURS = ("#56B4E9", "#FF7F50", "#00C897", "#F0A5CF", "#FFFFFF", "#B39DFF")
"""The same hues, light enough for a CT."""
OVERLAY_DASHES: tuple[LineStyleType, ...] = ("-", (0, (4, 1.2)), (0, (1.2, 1)), (0, (5, 1, 1, 1)), (0, (7, 2)), (0, (2, 2)))
_SHADE: dict[str, object] = {"facecolor": "#000000", "alpha": 0.55, "edgecolor": "none", "pad": 1.2}
WINDOW_HU = (-160.0, 240.0)
BOX_METRICS = ("DSC", "JI", "ASD", "HD")
STYLE: dict[RcKeyType, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "svg.fonttype": "path",
    "svg.hashsalt": "oncontour",
    "figure.facecolor": "white",
}


def box_plots(evaluation: Evaluation, out: Path, metrics: Sequence[str] = BOX_METRICS) -> list[Path]:
    """Write ``out``.png and .svg: a panel a metric, structures side by side, methods within them, a point a patient.

    Boxes run from the 25th to the 75th percentile with the median, whiskers from the 10th to the 90th, as in Xue et al. 2020, figure 3.
    A missed structure has no distance, nor has one that is drawn where the truth is empty: a cross at the upper edge, with their numbers.
    """
    single = len(evaluation.structures) == 1
    slots = len(evaluation.structures) * len(evaluation.methods)
    columns = min(4, len(metrics)) if single else 1 if slots > 24 else 2
    rows = -(-len(metrics) // columns)
    width = columns * (max(2.4, 0.8 * slots) if single else max(4.6, 0.36 * slots + 1.2))
    with _figure((width + 0.2, (3.3 if single else 2.9) * rows + 0.6)) as figure:
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for axis, metric in zip(axes, metrics, strict=False):
            _box_panel(axis, evaluation, metric)
        for axis in axes[len(metrics) :]:
            axis.set_visible(False)
        _legend(figure, evaluation)
        return _save(figure, out)


def overlays(panels: Sequence[Panel], out: Path, rank: str = "") -> list[Path]:
    """Write ``out``.png and .svg: one patient, a row a structure, its best, median and worst slice.

    The truth is yellow, methods have other colours and dashes of their own (Xue et al. 2020, figure 4). ``rank`` stands beside the
    patient's name ("best", "median", "worst" of the cohort).
    """
    structures = list(dict.fromkeys(p.structure for p in panels))
    table = {(p.structure, p.rank): p for p in panels}
    with _figure((9.4, 3.05 * len(structures) + 0.75)) as figure:
        figure.set_facecolor("#111111")
        axes = figure.subplots(len(structures), 3, squeeze=False)
        for row, structure in enumerate(structures):
            for column, which in enumerate(RANKS):
                _slice(axes[row, column], table[structure, which], first=column == 0)
        methods = list(panels[0].predicted)
        figure.suptitle(
            f"{panels[0].patient}{f' ({rank} patient)' if rank else ''}", color="white", x=0.012, ha="left", fontsize=11, fontweight="bold"
        )
        _overlay_legend(figure, methods)
        return _save(figure, out)


def chosen_patients(evaluation: Evaluation) -> dict[str, str]:
    """Patient -> "best", "median" or "worst" by the first method's mean DSC over structures; fewer where there are fewer patients."""
    own: dict[str, list[float]] = {}
    for method, _, values in by_structure(evaluation, "DSC"):
        if method == evaluation.methods[0]:
            for patient, value in values.items():
                if not np.isnan(value):
                    own.setdefault(patient, []).append(value)
    order = sorted(own, key=lambda patient: -float(np.mean(own[patient])))
    if not order:
        return {}
    named = {order[len(order) // 2]: "median", order[-1]: "worst", order[0]: "best"}
    return {patient: named[patient] for patient in order if patient in named}


# ---- box plots


def _box_panel(axis: Axes, evaluation: Evaluation, metric: str) -> None:
    table = {(m, s): values for m, s, values in by_structure(evaluation, metric)}
    finite = np.array([v for values in table.values() for v in values.values() if np.isfinite(v)])
    drawn = {(m, s, p): v for m, s, values in by_structure(evaluation, "volume_predicted") for p, v in values.items()}
    unit, step = METRICS[metric].unit, 0.8 / len(evaluation.methods)
    top = 1.0 if not unit else float(finite.max(initial=0.1)) * 1.06
    for place, structure in enumerate(evaluation.structures):
        for n, method in enumerate(evaluation.methods):
            found = table.get((method, structure), {})
            if found:
                without = [drawn.get((method, structure, patient), 0.0) for patient, value in found.items() if np.isinf(value)]
                missed = sum(volume == 0 for volume in without)
                told = [f"{count} {word}" for count, word in ((missed, "missed"), (len(without) - missed, "too many")) if count]
                _box(axis, np.array(list(found.values())), place - 0.4 + step * (n + 0.5), step * 0.78, n, top, "\n".join(told))
    axis.set_title(f"{metric.replace('_', ' ')}{' (mm)' if unit == 'mm' else ''}")
    axis.set_xlim(-0.6, len(evaluation.structures) - 0.4)
    axis.set_ylim(-0.03 * top, top * 1.04)
    if len(evaluation.structures) == 1 and len(evaluation.methods) > 1:
        axis.set_xticks([-0.4 + step * (n + 0.5) for n in range(len(evaluation.methods))], evaluation.methods)
    else:
        axis.set_xticks(range(len(evaluation.structures)), [_short(s) for s in evaluation.structures])
    if len(evaluation.structures) > 1 or len(evaluation.methods) > 3:
        axis.tick_params(axis="x", labelrotation=25, length=0)
        for label in axis.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)


def _box(axis: Axes, values: Floats, at: float, width: float, n: int, top: float, without: str) -> None:
    """A box of the finite ``values`` round ``at``; ``without``: what is said of the others."""
    colour, mark = METHOD_COLOURS[n % len(METHOD_COLOURS)], METHOD_MARKS[n % len(METHOD_MARKS)]
    judged = values[np.isfinite(values)]
    if len(judged) > 2:
        low, q1, median, q3, high = np.percentile(judged, (10, 25, 50, 75, 90))
        stats = [{"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "fliers": []}]
        line = {"color": colour, "linewidth": 1.1}
        axis.bxp(
            stats,
            positions=[at],
            widths=width,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": colour + "26", "edgecolor": colour, "linewidth": 1.1},
            whiskerprops=line,
            capprops=line,
            medianprops={"color": colour, "linewidth": 2.2},
            manage_ticks=False,
        )
    if len(judged):
        spread = np.random.default_rng(0).uniform(-0.28, 0.28, len(judged)) * width
        axis.plot(at + spread, judged, mark, color=colour, markersize=3.4, markeredgecolor="white", markeredgewidth=0.4, zorder=6)
    if without:
        axis.plot([at], [top], "x", color=colour, markersize=5, clip_on=False)
        axis.annotate(without, (at, top), (0, 4), textcoords="offset points", ha="center", fontsize=6.5, color=colour)


def _legend(figure: Figure, evaluation: Evaluation) -> None:
    from matplotlib.lines import Line2D

    single, several = len(evaluation.structures) == 1, len(evaluation.methods) > 1
    if several and not single:
        handles = [
            Line2D([], [], color=METHOD_COLOURS[n % 6], marker=METHOD_MARKS[n % 6], linewidth=2.2, markersize=5, label=method)
            for n, method in enumerate(evaluation.methods)
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    elif several:
        figure.suptitle(_short(evaluation.structures[0]), x=0.01, ha="left", fontsize=11, fontweight="bold")
    note = "boxes 25-75 %, whiskers 10-90 %, a point a patient"
    figure.supxlabel(note, fontsize=7.5, color="#666666", x=0.01, ha="left")


def _short(name: str) -> str:
    return name.removeprefix("Bone_").replace("_", " ")


# ---- overlays


def _slice(axis: Axes, panel: Panel, first: bool) -> None:
    from matplotlib import patheffects

    rows, columns = panel.truth.shape
    height, width = panel.pixel_mm
    extent = (0, columns * width, rows * height, 0)
    image = np.zeros(panel.truth.shape) if panel.image is None else panel.image
    axis.imshow(image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=extent, interpolation="bilinear")
    x, y = (np.arange(columns) + 0.5) * width, (np.arange(rows) + 0.5) * height
    halo: list[patheffects.AbstractPathEffect] = [patheffects.withStroke(linewidth=3.6, foreground="#00000080")]
    drawings: list[tuple[NDArray[np.bool_], str, LineStyleType, float]] = [
        (panel.truth, TRUTH_COLOUR, "-", 2.4)
    ]  # wider, so that it shows where a method agrees
    drawings += [(mask, OVERLAY_COLOURS[n % 6], OVERLAY_DASHES[n % 6], 1.5) for n, mask in enumerate(panel.predicted.values())]
    for mask, colour, dash, wide in drawings:
        if mask.any() and min(mask.shape) > 1:
            lines = axis.contour(x, y, mask.astype(float), [0.5], colors=colour, linestyles=[dash], linewidths=wide)
            if mask is panel.truth:
                lines.set_path_effects(halo)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_title(f"{panel.rank} slice ({panel.k})", color="#dddddd", fontsize=8.5, fontweight="normal", pad=3)
    for n, value in enumerate(panel.dsc.values()):
        said = "nothing here" if np.isnan(value) else f"DSC {value:.2f}"
        text = axis.text(
            0.97, 0.97 - 0.075 * n, said, transform=axis.transAxes, ha="right", va="top", color=OVERLAY_COLOURS[n % 6], fontsize=8.5
        )
        text.set_path_effects([patheffects.withStroke(linewidth=2, foreground="#000000b0")])
    side = min(columns * width, rows * height)
    axis.set_xlim(columns * width / 2 - side / 2, columns * width / 2 + side / 2)
    axis.set_ylim(rows * height / 2 + side / 2, rows * height / 2 - side / 2)
    if first:
        axis.set_ylabel(_short(panel.structure), color="white", fontsize=10, fontweight="bold")
    bar = 20.0
    left, low = axis.get_xlim()[0] + 0.05 * side, axis.get_ylim()[0] - 0.05 * side
    axis.plot([left, left + bar], [low, low], color="white", linewidth=1.8, solid_capstyle="butt", path_effects=halo)
    axis.annotate("2 cm", (left + bar / 2, low), (0, 4), textcoords="offset points", color="white", ha="center", fontsize=6.5, bbox=_SHADE)


def _overlay_legend(figure: Figure, methods: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=TRUTH_COLOUR, linewidth=2.6, label="truth")]
    handles += [
        Line2D([], [], color=OVERLAY_COLOURS[n % 6], linestyle=OVERLAY_DASHES[n % 6], linewidth=1.5, label=m) for n, m in enumerate(methods)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False, labelcolor="white", fontsize=9)


# ---- saving


@contextmanager
def _figure(size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of its own, drawn without a screen and without touching pyplot's state."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _save(figure: Figure, out: Path) -> list[Path]:
    written = []
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, saved twice
    for kind, dpi in (("png", 170), ("svg", 110)):
        path = out.with_name(f"{out.name}.{kind}")
        stamp = {"Date": None} if kind == "svg" else None  # the same evaluation gives the same file
        with writing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=dpi, facecolor=figure.get_facecolor(), metadata=stamp)
        written.append(path)
    return written
