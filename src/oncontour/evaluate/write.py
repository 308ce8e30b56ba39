"""An evaluation as files: tables, box plots and overlays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from oncontour.evaluate import figures, tables
from oncontour.evaluate.found import Evaluation, Failure, Row
from oncontour.evaluate.panels import Panel
from oncontour.files import write_text


def write(
    evaluation: Evaluation,
    out: Path,
    *,
    overlays: Literal["none", "three", "all"] = "three",
    weights: Mapping[str, str] | None = None,
    remarks: Sequence[str] = (),
    panels: Mapping[str, Sequence[Panel]] | None = None,
) -> str:
    """Write tables and figures to folder ``out``, each file whole or not at all, and give the tables as text.

    ``weights``: method -> SHA-256 of its model's weights, "" for contours that came as they are; ``stamp`` goes by them. ``remarks``: what
    else is told below the tables. ``panels``: patient -> what its overlays show; those of the evaluation unless said.
    """
    summaries, comparisons = tables.summarise(evaluation), tables.compare(evaluation)
    write_text(out / "metrics.csv", tables.as_csv(evaluation.rows, Row))
    write_text(out / "summary.csv", tables.as_csv(summaries, tables.Summary))
    write_text(out / "failures.csv", tables.as_csv(evaluation.failures, Failure))
    if comparisons:
        write_text(out / "comparisons.csv", tables.as_csv(comparisons, tables.Comparison))
    else:
        (out / "comparisons.csv").unlink(missing_ok=True)  # of an earlier evaluation with several methods
    if weights:
        write_text(out / "methods.csv", tables.as_csv([tables.Method(*one) for one in weights.items()], tables.Method))
    else:
        (out / "methods.csv").unlink(missing_ok=True)
    figures.box_plots(evaluation, out / "boxplots")
    figures.box_plots(evaluation, out / "boxplots-more", ("surface_DSC", "HD95", "MSD", "APL"))
    _write_overlays(evaluation, _by_patient(evaluation.panels) if panels is None else panels, out / "overlays", overlays)
    said = "\n".join([tables.text(evaluation, summaries, comparisons), *(f"note: {note}" for note in (*evaluation.notes, *remarks))])
    write_text(out / "summary.txt", said + "\n")
    return f"{said}\n\nmetrics.csv, summary.csv and figures in {out}"


def _by_patient(panels: Sequence[Panel]) -> Mapping[str, Sequence[Panel]]:
    out: dict[str, list[Panel]] = {}
    for one in panels:
        out.setdefault(one.patient, []).append(one)
    return out


def _write_overlays(
    evaluation: Evaluation, panels: Mapping[str, Sequence[Panel]], folder: Path, which: Literal["none", "three", "all"]
) -> None:
    """Pictures of the chosen patients; those of an earlier evaluation into the same folder go."""
    chosen = figures.chosen_patients(evaluation) if which == "three" else dict.fromkeys(panels, "") if which == "all" else {}
    written = []
    for patient, rank in chosen.items():
        shown = [panel for panel in panels.get(patient, ()) if panel.structure in evaluation.structures]
        name = f"{rank}-{patient}" if rank else patient
        written += figures.overlays(shown, folder / name.replace("/", "_"), rank) if shown else []
    for old in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        if old not in written:
            old.unlink(missing_ok=True)  # another driver of the same cohort may clear it too
