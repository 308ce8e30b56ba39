"""An evaluation as files: tables, box plots and overlays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from oncontour.evaluate import figures, tables
from oncontour.evaluate.judge import Evaluation, Failure, Row
from oncontour.files import write_text


def write(
    evaluation: Evaluation,
    out: Path,
    *,
    overlays: Literal["none", "three", "all"] = "three",
    weights: Mapping[str, str] | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """Write tables and figures to folder ``out``, each file whole or not at all, and give the tables as text.

    ``weights``: method -> SHA-256 of its model's weights, "" for contours that came as they are; ``stamp`` goes by them. ``remarks``: what
    else is told below the tables.
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
    _write_overlays(evaluation, out / "overlays", overlays)
    said = "\n".join([tables.text(evaluation, summaries, comparisons), *(f"note: {note}" for note in (*evaluation.notes, *remarks))])
    write_text(out / "summary.txt", said + "\n")
    return f"{said}\n\nmetrics.csv, summary.csv and figures in {out}"


def _write_overlays(evaluation: Evaluation, folder: Path, which: Literal["none", "three", "all"]) -> None:
    """Pictures of the chosen patients; those of an earlier evaluation into the same folder go."""
    chosen = figures.chosen_patients(evaluation) if which == "three" else {p.patient: "" for p in evaluation.panels if which == "all"}
    written = []
    for patient, rank in chosen.items():
        panels = [panel for panel in evaluation.panels if panel.patient == patient]
        name = f"{rank}-{patient}" if rank else patient
        written += figures.overlays(panels, folder / name.replace("/", "_"), rank) if panels else []
    for old in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        if old not in written:
            old.unlink()
