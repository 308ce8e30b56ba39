"""Tasks: what a Case can be made into. A visible table; a new task is one file and one row (``classes.allow`` lets in an outside one)."""

from __future__ import annotations

from oncontour.classes import class_of

TASKS: dict[str, str] = {
    "contour": "oncontour.contour.task:ContourTask",
    "assess": "oncontour.quality.task:AssessTask",
    "adapt": "oncontour.adapt.task:AdaptTask",
    "synthesize": "oncontour.synthesize.task:SynthesizeTask",
    "risk": "oncontour.risk.task:RiskTask",
}


def task_class(name: str) -> type:
    """The class of task ``name``: a row of TASKS, or an outside ``module:Class`` that the user named. Raises ModelError for any other."""
    return class_of(name, TASKS, "task")
