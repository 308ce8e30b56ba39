"""What ``import oncontour`` offers to Python: a patient read, contoured, assessed, measured and written, a line each.

The commands of the same name do the same to folders; these take and give ``Case``. Paths may be ``str`` or ``Path``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncontour.core.case import Case
from oncontour.io import read, write

if TYPE_CHECKING:
    from oncontour.commands.dvh import Plan
    from oncontour.commands.run import Result
    from oncontour.progress import Progress

__all__ = ["assess", "contour", "dvh", "read", "run", "write"]

_PATHS = ("truth", "add_to")


def run(ct_folder: str | Path, out: str | Path, **options: Any) -> Result:
    """``oncontour run``: a CT folder becomes contours, scores of every slice and the report, in the new folder ``out``.

    ``options`` are those of the command, by the names of its help (``oncontour run --help``): ``model="hn-organs"`` or a list of models,
    ``structures``, ``truth``, ``assess=False``, ``overwrite=True``, ... The answer has ``case``, ``rows``, ``record`` and ``out``.
    Raises what the command raises, each an ``oncontour.errors.OncontourError`` with ``what``, ``where`` and ``hint``.
    """
    from oncontour.commands.run import run as command

    for name in _PATHS:
        if options.get(name) is not None:
            options[name] = Path(options[name])
    for name in ("model", "dose"):
        if isinstance(options.get(name), str):
            options[name] = [options[name]]
    return command(Path(ct_folder), out=Path(out), **options)


def contour(
    case: Case | str | Path,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    structures: Sequence[str] | None = None,
    any_region: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Case:
    """The case with what a model draws on its CT, in place of the contours it came with; a path is read first.

    ``model``: a shipped name, a file, or several, of which the first that offers a structure draws it; by default the shipped model for
    the region of the body. ``structures``: only these (TG-263 names). Raises ConfigError for a structure that no model draws, ModelError
    where no shipped model fits, InputError for a CT of another part of the body than the model was made for (``any_region=True`` draws).
    """
    from oncontour.commands.run_contours import contour as draw
    from oncontour.commands.run_contours import default_model, load_segmenters, region_words

    case = _case(case)
    named = [model] if isinstance(model, str | Path) else list(model or [default_model(case)])
    segmenters = load_segmenters([str(one) for one in named], structures, threads=threads, any_region=any_region)
    region_words(case, segmenters, any_region)  # refuses before anything is drawn
    drawn, _ = draw(case, segmenters, structures, chances=True, progress=progress)
    return drawn


def assess(
    case: Case | str | Path,
    contours: str | Path | None = None,
    *,
    model: str | Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Case:
    """The case with its ``assessment``: how right each slice of each contour is, by the shipped quality model or ``model``, and by rules.

    ``contours``: an RTSTRUCT, SEG or folder of masks to assess in place of those of the case. Raises InputError where there is nothing to
    assess or the contours do not lie on this image, ModelError for what is no quality model.
    """
    from oncontour.commands.assess import of_case
    from oncontour.quality import score as scoring

    assessor = scoring.load(None if model is None else str(model), threads=threads)
    return scoring.score(of_case(_case(case), contours), assessor, progress)[0]


def dvh(case: Case | str | Path, **options: Any) -> Plan:
    """What the dose of a case gives to its structures: ``str(plan)`` is the table, ``plan.dvhs`` has a curve a structure.

    ``options``: ``structures``, ``figures`` (``["Dmean", "D0.03cc", "V20Gy"]``), ``prescription_gy``, ``fractions``, ``alpha_beta_gy``,
    ``ntcp``, ``unit``. Raises DoseError where there is no dose, or none that can be used; ConfigError for figures that cannot be read.
    """
    from oncontour.commands.dvh import evaluate

    return evaluate(_case(case), **options)


def _case(case: Case | str | Path) -> Case:
    return case if isinstance(case, Case) else read(case, lenient=True)
