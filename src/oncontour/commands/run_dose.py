"""What the dose gives to the contours of ``oncontour run``, and the risk: figures, pictures, and the sentence why something is not there.

Nothing is raised here, whatever goes wrong: the contours are there all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from oncontour import report
from oncontour.core.case import Case
from oncontour.core.notes import DOSE_DOUBTS, NoteCode, about
from oncontour.core.structure_kinds import is_target
from oncontour.core.volume import Volume
from oncontour.libraries import failure, sentence
from oncontour.palette import colour_of
from oncontour.result import Clock

if TYPE_CHECKING:
    from oncontour.commands.dvh import Plan
    from oncontour.dose.goals import Goal
    from oncontour.learn.predictor import Predictor


@dataclass(frozen=True, eq=False)
class Dosed:
    """The case (with its ``risk`` where there is one), what the plan gives to its structures, and why something of that is not
    there."""

    case: Case
    plan: Plan | None = None
    why: tuple[str, ...] = ()


def dose_and_risk(
    drawn: Case,
    came: Case,
    risk_model: Predictor | None,
    facts: Mapping[str, bool | float | str] | None,
    failed: list[str],
    clock: Clock,
    goals: Sequence[Goal] = (),
) -> tuple[Dosed, dict[str, str]]:
    """(``look_at_dose``, the pictures of it): where there is a dose, or one was left out, or a risk was asked for, or goals."""
    if "dose" not in came.images and risk_model is None and not goals and not _left_out(came):
        return Dosed(drawn), {}
    with clock("dose"):
        dosed = look_at_dose(drawn, came, risk_model, facts, goals)
        return dosed, draw(dosed, failed)


def look_at_dose(
    drawn: Case,
    came: Case,
    risk_model: Predictor | None = None,
    facts: Mapping[str, bool | float | str] | None = None,
    goals: Sequence[Goal] = (),
) -> Dosed:
    """The DVHs of the structures in ``drawn`` and of the targets that ``came`` with the CT, judged by ``goals``, and the risk by
    ``risk_model``, if any.

    Nothing is raised, whatever goes wrong: it is said, and the contours are there all the same.
    """
    from oncontour.commands.dvh import evaluate

    wanted = "No DVH" if risk_model is None else "No DVH and no risk"
    if "dose" not in came.images:
        return Dosed(drawn, why=(sentence(f"{wanted}: {'; '.join(_left_out(came)) or 'there is no dose with this CT'}"),))
    whole = _with_targets(drawn, came)
    plan, why = None, []
    try:
        plan = evaluate(whole, goals=goals)
    except Exception as error:
        why.append(failure("No DVH", error))
    if risk_model is not None:
        try:
            found = risk_model.predict(replace(whole, facts={**whole.facts, **(facts or {})}))
            drawn = replace(drawn, risk=found.risk)
        except Exception as error:
            why.append(failure("No risk", error))
    return Dosed(drawn, plan, tuple(dict.fromkeys(why)))


def _with_targets(drawn: Case, came: Case) -> Case:
    """``drawn`` and the targets that ``came`` and were not contoured anew; of the reader's remarks those that put the dose in doubt."""
    names = _targets(came, drawn)
    masks: dict[str, Volume] = {name: came.masks[name] for name in names if name in came.masks}
    contours = {name: came.contours[name] for name in names if name in came.contours}
    whole = (drawn.with_masks(masks) if masks else drawn).with_contours(contours)
    doubts = tuple(about(came.facts.get("notes", ()), *DOSE_DOUBTS))
    return replace(whole, facts={**whole.facts, "notes": doubts})


def _left_out(case: Case) -> list[str]:
    """Why the reader left out a dose that is there."""
    return about(case.facts.get("notes", ()), NoteCode.DOSE_LEFT_OUT)


def draw(dosed: Dosed, failed: list[str]) -> dict[str, str]:
    """The report's pictures of dose ("dvh") and risk ("risk"), as SVG; those that there is something to show in. One that cannot be
    drawn is left out, and ``failed`` gets why."""
    drawers = {}
    if dosed.plan is not None:
        drawers["dvh"] = partial(_dvh_svg, dosed.plan)
    if dosed.case.risk is not None:
        drawers["risk"] = partial(_risk_svg, dosed.case)
    figures = {}
    for name, drawer in drawers.items():
        try:
            figures[name] = drawer()
        except Exception as error:
            failed.append(failure(f"No picture of {name}", error))
    return figures


def _dvh_svg(plan: Plan) -> str:
    from oncontour.report.dvh import svg

    return svg(plan.dvhs, prescriptions_gy={name: target.prescription_gy for name, target in plan.targets.items()})


def _risk_svg(case: Case) -> str:
    from oncontour.report.risk import svg

    return svg(case)


def page_of(dosed: Dosed, came: Case, rows: list[report.Row], failed: list[str]) -> tuple[Case, list[report.Row]]:
    """What the page shows: what was drawn, and the targets that stand in the DVH as they came, in its colours. Where these cannot be
    shown, ``failed`` gets why."""
    plan, given = dosed.plan, given_targets(came, dosed)
    if plan is None or not given:
        return dosed.case, rows
    whole, order = replace(_with_targets(dosed.case, came), facts=dosed.case.facts), list(plan.dvhs)
    try:
        more = [replace(row, colour=colour_of(order.index(row.name))) for row in report.rows(whole, given)]
    except Exception as error:
        failed.append(failure("The targets that came with the CT are not shown", error))
        return dosed.case, rows
    return whole, [*rows, *more]


def beside(dosed: Dosed, came: Case, known: Case | None, failed: list[str]) -> report.Beside:
    """What the page shows beside the contours: the truth that is ``known``, and the dose. What cannot be shown is left out, and ``failed``
    gets why."""
    plan, compared = dosed.plan, None
    try:
        compared = None if known is None else report.on_grid_of(dosed.case, known, dosed.case.structures)
    except Exception as error:
        failed.append(failure("The truth is not shown", error))
    if plan is None:
        return report.Beside(compared, "the truth")
    prescribed = {name: target.prescription_gy for name, target in plan.targets.items()}
    return report.Beside(compared, "the truth", plan.dvhs, prescribed)


def given_targets(came: Case, dosed: Dosed) -> list[str]:
    """Targets that ``came`` with the CT, that were not contoured anew, and that the dose was looked at in."""
    return [] if dosed.plan is None else [name for name in _targets(came, dosed.case) if name in dosed.plan.dvhs]


def _targets(case: Case, drawn: Case) -> list[str]:
    """Targets that came with the CT and that were not contoured anew."""
    return [name for name in case.structures if is_target(name) and name not in drawn.structures]


def goals_of(path: Path | None) -> Sequence[Goal]:
    if path is None:
        return ()
    from oncontour.dose.goals import read_goals

    return read_goals(path)
