"""Tasks: what a Case can be made into. A visible table; a new task is one file and one row (an outside ``module:Class`` works too)."""

from __future__ import annotations

from importlib import import_module

TASKS: dict[str, str] = {
    "contour": "oncontour.tasks.contour:ContourTask",
    "assess": "oncontour.tasks.assess:AssessTask",
    "risk": "oncontour.tasks.risk:RiskTask",
}


def task_class(name: str) -> type:
    """The class of task ``name``. Raises ConfigError for an unknown one."""
    from oncontour.errors import ConfigError

    target = TASKS.get(name, name if ":" in name else "")
    if not target:
        raise ConfigError(f"no task {name!r}", hint=f"choose one of {sorted(TASKS)} or give module:Class")
    module, _, attribute = target.partition(":")
    found: type = getattr(import_module(module), attribute)
    return found
