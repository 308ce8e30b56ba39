"""What a quality model says of each slice of contours whose truth is known, beside the truth: what bounds and figures are made from.

check_scored    is this a case that the model scores at all?
observe         what it says of each slice of some masks of a case
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.errors import InputError
from oncontour.metrics.overlap import overlap
from oncontour.metrics.slices import slice_scores
from oncontour.quality.predict import Assessor, Work, blind, refusal
from oncontour.quality.slice_scores import Measured


@dataclass(frozen=True)
class Scored:
    """One slice of one mask: what was predicted and, where ``true`` is not NaN, the truth. ``contoured``: the mask has a voxel there;
    ``inside``: it lies between the mask's ends; ``area_mm2`` of the mask; ``place`` 0 at its lower end, 1 at its upper. ``wrong_cm2``:
    what is wrongly in or out, ``wrong_upper_cm2`` and ``outline_upper_mm`` the bounds above; ``area_high`` and ``outline_high`` the
    quantiles that they are made from, on their log scales; ``inputs``: a key of GIVEN."""

    patient: str
    source: str
    structure: str
    k: int
    true: float
    dsc: float
    low: float
    lower: float
    outline_mm: float
    true_outline_mm: float
    present: float
    contoured: bool
    inside: bool
    area_mm2: float
    place: float
    passed: bool
    wrong_cm2: float = float("nan")
    true_wrong_cm2: float = float("nan")
    wrong_upper_cm2: float = float("nan")
    outline_upper_mm: float = float("nan")
    area_high: float = float("nan")
    outline_high: float = float("nan")
    inputs: str = ""


@dataclass
class Observed:
    """Slices, the detector's view of each structure, and what was left out: ``both_empty`` slices (neither mask has a voxel) and ``unseen``
    (the truth has one, the mask has not, and the slice lies too far past its ends to be looked at; its DSC is 0, whoever judges)."""

    slices: list[Scored] = field(default_factory=list)
    features: dict[tuple[str, str, str], NDArray[np.float32]] = field(default_factory=dict)
    """(patient, source, structure) -> features of its slices"""
    far: dict[tuple[str, str, str], float] = field(default_factory=dict)
    both_empty: int = 0
    unseen: int = 0
    missed: int = 0
    """structures that the truth has and the mask has not at all"""
    too_small: int = 0
    """masks of which the net sees nothing, and which are not scored"""
    own_work: list[tuple[str, str]] = field(default_factory=list)
    """(patient, source) drawn by the reference model itself, left out as ``predict`` refuses it"""

    def scored(self) -> list[Scored]:
        """Slices with a contour and a truth: what the numbers are about."""
        return [s for s in self.slices if s.contoured and not np.isnan(s.true)]


def check_scored(assessor: Assessor, case: Case) -> None:
    """Raise InputError for a case that the model would refuse whole (another part of the body, no CT): nothing is to be learned from it."""
    refused, _ = refusal(case, assessor.card)
    if refused:
        raise InputError(refused, where=case.id, hint="such patients are not scored, so nothing is learned from them")


def observe(
    assessor: Assessor,
    case: Case,
    candidates: Mapping[str, Mapping[str, Volume]],
    into: Observed,
    probabilities: Mapping[str, Mapping[str, Volume]] | None = None,
    *,
    as_predict: bool = False,
    drawn_by: Mapping[str, tuple[str, ...]] | None = None,
) -> None:
    """Add to ``into`` what the model says of the ``candidates`` (source -> structure -> mask) of a case that holds the truth.

    ``probabilities`` (source -> structure -> probability times 255) of the segmenters; a model that needs them leaves out masks without.
    With ``as_predict`` it sees and scores what it would in ``Assessor.predict``: no structures that nothing taught it, and of what the
    reference model drew itself no reference (a model that must have one leaves it out); who drew a source is told by ``drawn_by`` (source
    -> hashes of the models' weights), or else by how the contours look. A case that the model would refuse whole is looked at all the same:
    see ``check_scored``.
    """
    known = [name for name in assessor.task.settings.structures if not (as_predict and assessor.untaught(name))]
    names = [name for name in known if name in case.structures]
    work = assessor.work(case.without_structures())
    truths = {name: case.mask(name) for name in names}
    settings, known_by = assessor.task.settings, drawn_by or {}
    for source, masks in candidates.items():
        reference = work.reference
        if as_predict and reference is not None and reference.drew(masks, known_by.get(source)):
            if not settings.channel_dropout:
                into.own_work.append((case.id, source))
                continue
            reference = None
        thought = (probabilities or {}).get(source, {})
        for name in (n for n in names if n in masks and truths[n].array.any() and (n in thought or not settings.needs_own)):
            mask = masks[name].binary().to(case.geometry)
            if not mask.array.any():
                into.missed += 1
                into.unseen += int(truths[name].array.any(axis=(1, 2)).sum())
                continue
            shown = replace(work, case=replace(work.case.with_masks({name: mask}), probabilities=thought), reference=reference)
            seen = assessor.measure(shown, name)
            if blind(seen, shown):
                into.too_small += 1
            else:
                _one(assessor, shown, seen, source, name, truths[name], mask, into)


def _one(assessor: Assessor, work: Work, seen: Measured, source: str, name: str, truth: Volume, mask: Volume, into: Observed) -> None:
    case = work.case
    shared = overlap(truth, mask)
    each = shared.slice_dsc
    _, apart = slice_scores(truth.array, mask.array, case.geometry.spacing_mm[1:])
    rows = seen.rows
    flipped = float(case.geometry.reorient().axes[0] @ case.geometry.axes[0]) < 0
    count, pixel = case.geometry.shape[0], case.geometry.spacing_mm[1] * case.geometry.spacing_mm[2]
    bounds, length = assessor.bounds(seen, name), float(rows.below_mm.max() + rows.above_mm.max())
    wrong_cm2 = (truth.array ^ mask.array).sum(axis=(1, 2)) * pixel / 100
    looked = set()
    for n, k in enumerate(rows.k):
        at = count - 1 - int(k) if flipped else int(k)
        looked.add(at)
        into.slices.append(
            Scored(
                patient=case.id,
                source=source,
                structure=name,
                k=at,
                true=float(each[at]),
                dsc=float(seen.dsc[n]),
                low=float(seen.low[n]),
                lower=float(bounds.lower[n]),
                outline_mm=float(seen.outline_mm[n]),
                true_outline_mm=float(apart[at]),
                present=float(seen.present[n]),
                contoured=bool(rows.contoured[n]),
                inside=bool(rows.below_mm[n] >= 0 and rows.above_mm[n] >= 0),
                area_mm2=float(shared.predicted[at]) * pixel,
                place=float(rows.below_mm[n]) / length if length > 0 else 0.5,
                passed=seen.known,
                wrong_cm2=float(seen.area_cm2[n]),
                true_wrong_cm2=float(wrong_cm2[at]),
                wrong_upper_cm2=float(bounds.area_cm2[n]),
                outline_upper_mm=float(bounds.outline_mm[n]),
                area_high=float(seen.area_high[n]),
                outline_high=float(seen.outline_high[n]),
                inputs=seen.inputs,
            )
        )
    has = np.asarray(shared.truth > 0)
    into.unseen += sum(1 for k in np.flatnonzero(has) if int(k) not in looked)
    into.both_empty += int(np.isnan(each).sum())
    key = (case.id, source, name)
    into.features[key], into.far[key] = seen.features[rows.contoured & seen.whole], seen.far
