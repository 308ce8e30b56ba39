"""What is told of contours without a truth: a score for every slice, what the rules found, and who judged.

A quality model and the rules (``quality``) make an ``Assessment``; commands, the page and ``report.json`` read it and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

from oncontour.core.volume import Volume


@dataclass(frozen=True)
class Finding:
    """One thing to look at: a ``code`` for programs, a sentence for people, and the slices (k, growing) where it is seen; no slices where
    it is about the structure as a whole."""

    code: str
    text: str
    slices: tuple[int, ...] = ()


@dataclass(frozen=True)
class SliceScore:
    """One slice of one structure; ``k`` counts planes of the case's grid from 0. None: not predicted.

    ``dsc`` predicted; ``lower`` what it is at least, with the assessment's ``coverage``; ``quality`` "good", "medium" or "bad";
    ``surface_mm`` predicted mean outline error, ``wrong_cm2`` predicted area that is wrongly in or out; ``surface_upper_mm`` and
    ``wrong_upper_cm2`` what they are at most, with that coverage each; ``present`` the probability that the structure is there, where no
    contour is; ``findings``: codes of the findings that name this slice.
    """

    k: int
    z_mm: float
    dsc: float | None = None
    lower: float | None = None
    quality: str | None = None
    _: KW_ONLY
    surface_mm: float | None = None
    present: float | None = None
    findings: tuple[str, ...] = ()
    surface_upper_mm: float | None = None
    wrong_cm2: float | None = None
    wrong_upper_cm2: float | None = None


@dataclass(frozen=True)
class StructureScore:
    """One structure: its slices in order of ``k`` and its findings. ``scored`` False: no model scored it, and ``why`` is a sentence.
    ``inputs``: what the model was given beside CT and contour, a key of ``quality.inputs.GIVEN``; "" where it takes nothing optional."""

    scored: bool
    why: str | None = None
    slices: tuple[SliceScore, ...] = ()
    findings: tuple[Finding, ...] = ()
    inputs: str = ""


@dataclass(frozen=True)
class Reference:
    """The contour model whose probability maps the quality model also saw. ``drew``: it drew these very contours itself;
    ``calibrated_with``: hash of the version that the bound was made with, where that is another one (there is then no bound)."""

    model: str
    sha256: str
    drew: bool = False
    calibrated_with: str | None = None


@dataclass(frozen=True)
class Calibration:
    """Where a lower bound comes from: ``offsets`` (structure or "all" -> how far the predicted quantile is lowered) hold for the part
    ``coverage`` of slices; made by ``method`` from so many ``patients`` and ``slices`` of ``data`` (in words); ``detector``: structure ->
    what was done to its out-of-distribution detector. None: not known. ``area`` and ``outline``: how far the quantiles above the wrong area
    and the outline error are raised, on their log scales. ``inputs``: a calibration for each set of inputs, where some are optional; the
    offsets then stand there alone."""

    offsets: Mapping[str, float] = field(default_factory=dict)
    coverage: float | None = None
    method: str | None = None
    patients: int | None = None
    slices: int | None = None
    data: str | None = None
    detector: Mapping[str, str] | None = None
    area: float | None = None
    outline: float | None = None
    inputs: Mapping[str, Calibration] | None = None


@dataclass(frozen=True, eq=False)
class Assessment:
    """How right the contours of a case are. ``model`` and ``sha256`` None: only the rules have looked.

    ``refused``: why the model scores nothing of this case; ``region``: the part of the body that the CT shows, "" where it is no CT that
    a model could look at;
    ``coverage``: the part of slices that ``lower`` holds for; ``error_maps``: structure -> probability times 255 (uint8) that a voxel is
    wrongly in or out; ``unchecked``: what the rules could not look at, a sentence each, None where that was not asked yet.
    """

    structures: Mapping[str, StructureScore]
    model: str | None = None
    sha256: str | None = None
    refused: str | None = None
    region: str = ""
    coverage: float | None = None
    calibration: Calibration | None = None
    reference: Reference | None = None
    error_maps: Mapping[str, Volume] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
