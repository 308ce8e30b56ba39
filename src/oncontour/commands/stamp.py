"""``oncontour stamp``: an evaluation's figures into the card of the model that was judged."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from oncontour.errors import ConfigError, InputError


def stamp(model: str, evaluation: Path, *, out: Path, tested_on: str, limits: str | None = None) -> str:
    """Write a copy of a model whose card holds what ``oncontour evaluate`` found: DSC of every structure with its interval.

    EVALUATION is the folder that ``oncontour evaluate COHORT --model MODEL --out EVALUATION`` wrote. The weights stay as they are, byte for
    byte; earlier figures in the card are replaced. Fails when the evaluation did not judge these very weights (methods.csv; of an
    evaluation without that file: no model of this file's name).

    Examples:
      oncontour stamp hn-organs EVALUATION --out hn-organs.safetensors --tested_on "33 patients of our clinic, never trained on"

    Args:
        model: path of a model file, or the name of a shipped one
        evaluation: folder of the evaluation
        out: the model file to write
        tested_on: who the patients were, in a line
        limits: what the model is not for, instead of what its card says
    """
    from oncontour.files import writing
    from oncontour.learn.card import checked_card, find, with_card
    from oncontour.learn.named_models import at_home, portable

    path = find(model)
    if not tested_on.strip():
        raise ConfigError("figures without the patients they come from mean nothing: --tested_on is empty")
    card = checked_card(path)
    metrics = {"tested_on": tested_on, "DSC": figures(evaluation / "summary.csv", _judged_as(evaluation, path.stem, card.sha256))}
    settings = portable(at_home(card.settings, path.parent), out.parent)
    card = replace(card, metrics=metrics, limits=card.limits if limits is None else limits, settings=settings)
    written, data = with_card(path.read_bytes(), card)
    with writing(out) as temporary:
        temporary.write_bytes(data)
    return f"{out}: {written.name}, sha256 {written.sha256}"


def figures(summary: Path, method: str) -> dict[str, object]:
    """structure -> mean DSC, 95 % interval, patients and in how many of them it was missed, from a summary.csv.

    ``all`` and ``mean_of_structures`` are the plain mean of the structures' means; the former with its interval, and with how many
    patients there were and in how many of them a structure was missed. Raises InputError where the file is none, or has no such method.
    """
    try:
        with summary.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["method"] == method and row["metric"] == "DSC"]
        found: dict[str, object] = {
            row["structure"]: {
                "mean": round(float(row["mean"]), 3),
                "interval_95": [round(float(row["low"]), 3), round(float(row["high"]), 3)],
                "patients": int(row["n"]),
                "missed": int(row["missed"]),
            }
            for row in rows
        }
        means = [float(row["mean"]) for row in rows if row["structure"] != "all"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            "this is not the summary.csv of an evaluation", where=str(summary), hint="give the --out of oncontour evaluate"
        ) from error
    if not means:
        raise InputError(f"the evaluation judged no {method!r}", where=str(summary), hint="evaluate this very file first")
    return found | {"mean_of_structures": round(sum(means) / len(means), 3)}


def _judged_as(evaluation: Path, stem: str, sha256: str) -> str:
    """What the evaluation calls the model with these weights: two files called model.safetensors are "model" and "model-2" there.

    Raises InputError where it judged other weights; an evaluation without methods.csv is believed by the file's name.
    """
    file = evaluation / "methods.csv"
    if not file.exists():
        return stem
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            judged = {row["method"]: row["sha256"] for row in csv.DictReader(stream)}
    except (OSError, KeyError, ValueError) as error:
        raise InputError("the list of judged methods cannot be read", where=str(file), hint="evaluate again") from error
    same = [name for name, weights in judged.items() if weights == sha256]
    if not same:
        told = ", ".join(f"{name} {weights[:12] or '(no model)'}" for name, weights in judged.items())
        raise InputError(
            f"the evaluation judged {told}, not the weights {sha256[:12]} of this model",
            where=str(file),
            hint="evaluate this very file first",
        )
    return stem if stem in same else same[0]
