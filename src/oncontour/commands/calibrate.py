"""``oncontour calibrate``: a quality model's lower bound and out-of-distribution limit redone on a clinic's own patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oncontour.core.notes import counted, grouped
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError, OutputError
from oncontour.files import check_writable
from oncontour.progress import Progress
from oncontour.quality import score as scoring
from oncontour.quality.inputs import GIVEN, GIVEN_WORDS

if TYPE_CHECKING:
    from oncontour.io.cohort import Cohort
    from oncontour.learn.predictor import Predictor
    from oncontour.quality.calibrate import Recalibrated
    from oncontour.quality.observe import Observed
    from oncontour.quality.predict import Assessor

DEFAULT_CONTOURER = "hn-organs"


def calibrate(
    model: str,
    cohort: Path,
    *,
    out: Path,
    claims: list[Path] | None = None,
    contourer: list[str] | None = None,
    coverage: float = 0.9,
    method: Literal["hierarchical", "pooled"] = "hierarchical",
    by: Literal["all", "structure"] = "all",
    name: str | None = None,
    backend: Literal["auto", "torch", "openvino"] = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Redo a quality model's lower bound and its out-of-distribution detector on a clinic's own patients, and write the model anew.

    COHORT holds patients with a CT and contours that somebody has reviewed: the truth. The contours in question come from --claims
    (a folder with one folder of patients a segmenter: what was drawn before the review) or are drawn now by --contourer (the shipped
    hn-organs where neither is given). The patients must be new to both models. A few dozen are needed: 9 at the very least
    for 90 %, and with 45 the bound is at most 2 % more careful than stated. The net's weights stay as they are.

    Examples:
        oncontour calibrate hn-quality COHORT --out our-quality.safetensors
        oncontour calibrate our.safetensors COHORT --claims CLAIMS --out our-quality.safetensors --coverage 0.95 --by structure

    Args:
        model: name of a shipped quality model or path of a model file
        cohort: folder (or CSV) of patients with a CT and reviewed contours
        out: model file to write; one that is there is never replaced
        claims: folder of segmenters' contours, SOURCE/PATIENT/masks/NAME.nii.gz or RTSTRUCT; again for several. The bound for contours
            that come with their segmenter's probability maps, as in `oncontour run`, is made anew from contours that were drawn with
            `oncontour predict --chances`
        contourer: contour model that draws what is in question; again for several
        coverage: part of slices, averaged over patients, for which the bound shall hold
        method: hierarchical holds its promise with few patients; pooled is right on average only
        by: one offset for all structures, or one for each
        name: of the new model; the old one with "-calibrated" by default
        backend: what computes the nets
        threads: CPU threads for the nets
        progress: called with the fraction done
    """
    from oncontour.io.cohort import Cohort
    from oncontour.learn.card import notes as notes_of
    from oncontour.learn.task import save_model
    from oncontour.quality.calibrate import recalibrated
    from oncontour.quality.predict import load_assess_task, load_assessor

    if not 0 < coverage < 1:
        raise ConfigError(f"a coverage lies between 0 and 1, not at {coverage}")
    if out.suffix != ".safetensors":
        raise ConfigError(f"a model file ends in .safetensors, not in {out.suffix!r}", where=str(out))
    if out.exists():
        raise OutputError("there is a model already", where=str(out), hint="choose another --out, or take that one away")
    check_writable(out.parent)
    task = load_assess_task(model)
    assessor = load_assessor(model, backend=backend, threads=threads, task=task)
    patients = Cohort.open(cohort)
    reference_model = assessor.reference_model
    for who, one in (("the model", assessor.card), ("its reference model", reference_model and reference_model.card)):
        seen = set(one.made.get("trained_on", ()) if one else ()) & set(patients.ids)
        if seen:
            raise InputError(f"{who} learned from {len(seen)} of these patients ({', '.join(sorted(seen)[:3])})", where=str(cohort))
    observed, notes = observe_cohort(assessor, patients, claims or [], contourer or ([] if claims else [DEFAULT_CONTOURER]), progress)
    notes = [*notes_of(assessor.card), *scoring.reference_notes(assessor), *notes]
    data = f"{len({s.patient for s in observed.scored()})} patients of one clinic"
    made = recalibrated(assessor, observed, coverage=coverage, method=method, by=by, data=data)
    save_model(task, out, replace(made.card, name=name or f"{made.card.name}-calibrated"))
    return "\n".join([*notes, *_calibration_words(made, observed), f"written: {out}"])


def _check_strangers(assessor: Assessor, contouring: Mapping[str, Predictor]) -> None:
    """Raise ConfigError where a quality model would be calibrated on what its reference model draws itself."""
    if assessor.reference_model is None or assessor.task.settings.channel_dropout:
        return
    asked = assessor.reference_model.card
    own = [name for name, one in contouring.items() if one.card.sha256 == asked.sha256]
    if own:
        raise ConfigError(
            f"{asked.name} is the reference model of {assessor.card.name}, which judges what others drew",
            where=own[0],
            hint=f"give what was drawn elsewhere as --claims, another --contourer, or calibrate {scoring.DEFAULT_MODEL}, which needs none",
        )


def observe_cohort(
    assessor: Assessor,
    patients: Cohort,
    claims: Sequence[Path],
    contourers: Sequence[str],
    progress: Progress | None = None,
) -> tuple[Observed, list[str]]:
    """What the model says of the contours in question of every patient (those below ``claims``, and what ``contourers`` draw), a line for
    every patient left out, and what was remarked on reading the others."""
    from oncontour.contour.predict import Contourer, keeping_probabilities, load_contourer
    from oncontour.errors import OncontourError
    from oncontour.quality.observe import Observed, check_scored, observe
    from oncontour.quality.segmenters import contours_about, probabilities_about, sources

    segmenters = sources(claims)
    own, needs_own = assessor.task.settings.own, assessor.task.settings.needs_own
    load = partial(load_contourer, backend=assessor.backend, threads=assessor.threads)
    contouring = {name: keeping_probabilities(load(name), own) for name in contourers}
    _check_strangers(assessor, contouring)
    drawn_by = {name: (one.card.sha256,) for name, one in contouring.items()}
    observed, notes, remarks = Observed(), list[str](), dict[str, tuple[str, ...]]()
    for n, id in enumerate(patients.ids):
        try:
            case = patients[id]
            check_scored(assessor, case)
            said = list(case.notes)
            found: dict[str, Mapping[str, Volume]] = contours_about(case, segmenters, said)
            maps = probabilities_about(case, segmenters, said) if own else {}
            remarks[id] = tuple(said)
            for name, one in contouring.items():
                drawn = one.predict(case.without_structures())
                found[name], maps[name] = drawn.masks, drawn.probabilities
            observe(assessor, case, found, observed, maps, as_predict=True, drawn_by=drawn_by)
        except OncontourError as error:
            notes.append(f"{id} was left out: {error}")
        if progress is not None:
            progress((n + 1) / len(patients))
    notes += [f"{id}: what {source} drew was left out: it is the reference model's own work" for id, source in observed.own_work]
    if not observed.scored():
        silent = needs_own and any(not isinstance(one, Contourer) for one in contouring.values())
        hint = _way_out(needs_own and bool(claims), silent)
        raise InputError("no slice with both a contour in question and a truth", hint="; ".join(notes[:3]) or hint)
    return observed, [*notes, *grouped(remarks)]


def _way_out(claimed: bool, silent: bool) -> str:
    """What helps where nothing could be observed of contours that need probability maps, or of segmenters that give none."""
    if claimed:
        return "draw the --claims with oncontour predict --chances"
    if silent:
        return "other people's models give no probability maps: calibrate a model that needs none, as hn-quality"
    return "check names of structures"


def _calibration_words(made: Recalibrated, observed: Observed) -> list[str]:
    new = made.calibration
    lines = [
        f"{counted(new.patients or 0, 'patient')}, {counted(new.slices or 0, 'slice')}; "
        f"{observed.both_empty} slices where neither contour is were left out"
    ]
    for name, one in made.bounds.items():
        given = f"given {GIVEN_WORDS[name]}: " if name else ""
        offsets = ", ".join(f"{structure} {-value:+.3f}" for structure, value in one.offsets.items())
        lines.append(f"{given}bound for {new.coverage:.0%} of slices, {new.method}: {offsets}")
    few = {name: f"{count} patient{'s' * (count > 1)} of these are too few, " for name, count in made.few.items()}
    for name in (set_of for set_of in GIVEN if new.inputs is not None and set_of not in made.bounds):
        stays = f"the bound stays that of {made.kept[name].data or 'before'}" if name in made.kept else "there is no bound"
        lines.append(f"given {GIVEN_WORDS[name]}: {few.get(name, 'none of these contours came with just that, ')}{stays}")
    if made.before is not None:
        lines.append(f"the bound as it was held for {made.before.mean:.1%} of these slices")
    return lines + [f"out-of-distribution detector, {name}: {what}" for name, what in (new.detector or {}).items()]
