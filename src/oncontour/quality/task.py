"""Contour quality: a CT and masks become, slice by slice, the DSC that each mask would have against a truth nobody has.

The net sees the CT slice and the mask under question with their neighbours, which structure it is meant to be, and where in the stack the
slice lies. Heads by configuration: ``dsc`` (with a quantile below it that the bound is made from), ordinal ``class``, ``errors`` (which
pixels are wrongly in or out), ``surface`` error in mm, and ``present`` (whether the structure is in this slice at all). The paper:
Wei et al., Chin J Med Phys 2026;43(5):675-681; *differs* as ``papers/quality-2026`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from oncontour.classes import named_by_user
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.errors import ConfigError, ModelError, TrainingError
from oncontour.learn.card import Card, find, shipped
from oncontour.learn.engine import Backend
from oncontour.learn.task import Batch, Draw, Progress, Task, check_grid, first_card, seeded
from oncontour.nets import make_net
from oncontour.ops.augment import Move, Ranges, mirrored
from oncontour.ops.intensity import window
from oncontour.quality.candidates import SEGMENTER, Chance, Claim, allowed, claims_of
from oncontour.quality.out_of_distribution import Gate
from oncontour.quality.simulated_errors import FAMILIES

if TYPE_CHECKING:
    from oncontour.contour.predict import Contourer

NUMBERS = {"dsc": 2, "class": 2, "surface": 1, "present": 1}
"""head -> how many numbers it takes: DSC and the quantile below it; at least medium, at least good; log(1 + mm); is it here."""
CUTS = (0.80, 0.95)
"""DSC from which a slice is medium, and good (Chen, Men et al., Front Oncol 2020;10:524)."""
BINS = 10
FACTS = 2
QUANTILE = 0.1
"""Part of slices that shall lie below the predicted lower quantile."""


@dataclass(frozen=True)
class AssessSettings:
    """What makes a quality model; kept in its card, so that the file alone rebuilds it."""

    structures: tuple[str, ...]
    """TG-263 names of what it scores; anything else is "not scored\""""
    net: str = "quality"
    """a row of NETS whose net gives numbers and maps: quality (transformer) or quality_cnn"""
    net_options: dict[str, Any] = field(default_factory=dict)
    """the net's own options, such as width or depth"""
    heads: tuple[str, ...] = ("dsc", "class", "errors", "surface", "present")
    """what is learned together; ("dsc",) is the single task"""
    inputs: Literal["both", "ct", "mask"] = "both"
    """what the net sees"""
    opinion: str = ""
    """contour model (a file or a shipped name) whose chances the net sees beside the mask; empty: none"""
    own: bool = False
    """whether the net also sees the chances of the very model that drew the mask; then only such masks are learned from and scored"""
    neighbours: int = 1
    """so many slices on either side ride along, about spacing_mm[0] apart"""
    spacing_mm: tuple[float, float, float] = (2.5, 4.0, 4.0)
    """(k, j, i): pixels the net sees; slices stay those of the CT"""
    spacing_tolerance: float = 0.35
    """a CT whose pixels are within this fraction of spacing_mm is taken as it is"""
    window: tuple[int, int] = (48, 48)
    """rows and columns the net sees at once, multiples of 8"""
    hu: tuple[float, float] = (-200.0, 300.0)
    """grey values from black to white"""
    beyond: int = 2
    """slices past a mask's ends that are looked at: is the structure still there?"""
    variants: int = 16
    """masks that the generator makes of each structure of each patient; 0: real segmenters alone"""
    generated: float = 0.4
    """part of an epoch's draws that come from the generator, where there are real segmenters' masks as well"""
    held_out_families: tuple[str, ...] = ()
    """families of errors that are never learned from, kept for the test"""
    flat: float = 1.0
    """part of an epoch's draws with an even histogram of DSC (10 bins); the rest comes as masks do"""
    draws: int = 6400
    """slices an epoch"""
    weights: dict[str, float] = field(default_factory=lambda: {"dsc": 1.0, "class": 0.3, "errors": 1.0, "surface": 0.1, "present": 0.2})
    """of each head's loss"""
    augment: Ranges = field(
        default_factory=lambda: Ranges(rotation_deg=12.0, tilt_deg=0.0, zoom=0.12, shift_mm=10.0, hu_shift=30.0, hu_scale=0.06)
    )
    """how far windows are turned, zoomed, shifted and shaded"""
    coverage: float = 0.9
    """part of slices that the lower bound holds for"""
    seed: int = 0
    """of the generator's masks"""

    def __post_init__(self) -> None:
        for name in ("structures", "heads", "spacing_mm", "window", "hu", "held_out_families"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        known = (*NUMBERS, "errors")
        if "dsc" not in self.heads or set(self.heads) - set(known) or len(set(self.heads)) != len(self.heads):
            raise ConfigError(f"heads are dsc and any of {', '.join(known[1:])}, not {list(self.heads)}")
        strange = sorted({*set(self.held_out_families) - set(FAMILIES), *set(self.weights) - set(known)})
        if strange:  # a family misspelt would be learned from, and be taken for one never seen
            raise ConfigError(
                f"no family of errors and no head {', '.join(map(repr, strange))}",
                hint=f"held_out_families: any of {', '.join(FAMILIES)}; weights: of {', '.join(known)}",
            )
        if min(self.neighbours, self.beyond, self.variants, self.seed) < 0 or self.draws < 1 or min(self.spacing_mm) <= 0:
            raise ConfigError(
                "neighbours, beyond, variants and seed are 0 or more, draws 1 or more, spacing_mm above 0, not "
                f"{self.neighbours}, {self.beyond}, {self.variants}, {self.seed}, {self.draws}, {list(self.spacing_mm)}"
            )
        if not self.structures or len(set(self.structures)) != len(self.structures):
            raise ConfigError(f"a model scores one or more different structures, not {list(self.structures)}")
        if any(n % 8 or n < 8 for n in self.window):
            raise ConfigError(f"a window is made of multiples of 8, not {self.window}")
        check_grid(self.spacing_mm, (1, *self.window), self.neighbours)
        if self.beyond > 1000:
            raise ConfigError(f"at most 1000 slices past a mask's ends are looked at, not {self.beyond}")
        if not (np.isfinite(self.hu).all() and self.hu[0] < self.hu[1]):
            raise ConfigError(f"the HU range runs from low to high, not {self.hu}")
        if not (0 <= self.generated <= 1 and 0 <= self.flat <= 1 and 0 < self.coverage < 1):
            raise ConfigError(f"generated, flat and coverage are parts of one, not {self.generated}, {self.flat}, {self.coverage}")

    @property
    def channels(self) -> int:
        """What the net sees of a slice: CT, mask and chances with their neighbours, and the plane of numbers."""
        return (2 + self.chances) * (2 * self.neighbours + 1) + 1

    @property
    def chances(self) -> int:
        """How many models' chances the net sees: of the one asked for an opinion, of the one that drew the mask, in this order."""
        return int(bool(self.opinion)) + int(self.own)

    @property
    def numbers(self) -> dict[str, slice]:
        """head -> where its numbers stand among the net's."""
        out, at = {}, 0
        for head in (h for h in self.heads if h in NUMBERS):
            out[head] = slice(at, at + NUMBERS[head])
            at += NUMBERS[head]
        return out


class AssessTask(Task[Claim]):
    """Quality of contours of ``settings.structures``; see the module's words and ``learn/task.py`` for the contract."""

    name = "assess"
    refuses_untaught = True

    def __init__(self, settings: AssessSettings, card: Card | None = None) -> None:
        super().__init__()
        self.settings = settings
        self._card = card
        if card is None:
            named_by_user(settings.net)
        maps, numbers = int("errors" in settings.heads), sum(NUMBERS.get(head, 0) for head in settings.heads)
        n, slices = settings.neighbours, 2 * settings.neighbours + 1
        told: dict[str, Any] = {"maps": maps, "structures": len(settings.structures), "facts": FACTS, "mask_channel": slices + n}
        told["chance_channels"] = tuple((2 + number) * slices + n for number in range(settings.chances))
        self.net = make_net(settings.net, settings.channels, maps + numbers, **{**settings.net_options, **told})
        if not hasattr(self.net, "answers"):
            raise ConfigError(f"net {settings.net!r} gives no numbers about a slice", hint="choose quality or quality_cnn")
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.gate = Gate(len(settings.structures), int(self.net.width))  # type: ignore[arg-type]
        self.net.add_module("gate", self.gate)
        self._mirror = mirrored(settings.structures)

    # ---- the contract

    @classmethod
    def from_card(cls, card: Card) -> AssessTask:
        """The task that a model's card describes, its net still without weights. Raises ModelError where the card is wrong."""
        from oncontour.learn.build import settings_from

        return cls(settings_from(card, AssessSettings), card)

    def card(self) -> Card:
        return self._card or first_card(self, self.settings)

    def working_grid(self, geometry: Geometry) -> Geometry:
        """The grid the net sees a case on: upright (S, P, L), the case's own slices, its pixels where they are near ``spacing_mm``."""
        upright = geometry.reorient()
        ratio = np.asarray(upright.spacing_mm[1:]) / np.asarray(self.settings.spacing_mm[1:])
        if (np.abs(ratio - 1) <= self.settings.spacing_tolerance).all():
            return upright
        return upright.resample([upright.spacing_mm[0], *self.settings.spacing_mm[1:]])

    def step(self, grid: Geometry) -> int:
        """Slices of ``grid`` between neighbours."""
        return max(1, round(self.settings.spacing_mm[0] / grid.spacing_mm[0]))

    def samples(self, case: Case) -> list[Claim]:
        s, grid = self.settings, self.working_grid(case.geometry)
        opinion = None
        if s.opinion and any(name in case.structures for name in s.structures):
            opinion = asked(s.opinion, "auto", None).opinion(case.without_structures())
        made = claims_of(
            case,
            grid,
            s.structures,
            step=self.step(grid),
            beyond=s.beyond,
            variants=0 if s.own else s.variants,
            families=allowed(s.held_out_families),
            seed=s.seed,
            opinion=opinion,
        )
        kept = self.usable(made)
        if s.own and not kept and any(name in case.structures for name in s.structures):
            raise TrainingError(
                "no mask comes with the chances of the model that drew it, which are to be learned from",
                where=case.id,
                hint="draw the --claims with oncontour predict --chances",
            )
        return kept

    def taught(self, samples: Sequence[Claim]) -> set[int]:
        return {claim.structure for claim in samples}

    def usable(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of ``claims`` that the net can learn from: where it is to know how sure the drawer was, those that came with it."""
        return [claim for claim in claims if claim.own is not None or not self.settings.own]

    def plan(self, samples: Sequence[Claim], rng: np.random.Generator, *, train: bool) -> list[Draw]:
        self._check(samples)
        table = Table.of(samples)
        count = self.settings.draws if train else max(16, self.settings.draws // 10)
        rng = rng if train else seeded(0)
        chosen = table.choose(count, rng, flat=self.settings.flat if train else 0.0, generated=self.settings.generated)
        rng.shuffle(chosen)
        return [self._draw(samples, table, int(row), int(rng.integers(2**62)) if train else None) for row in chosen]

    def _check(self, samples: Sequence[Claim]) -> None:
        """Raise TrainingError where a second opinion is to be learned from and no mask came with one: the net would see it empty."""
        if self.settings.opinion and not any(claim.chance is not None for claim in samples):
            raise TrainingError(
                f"no mask comes with the opinion of {self.settings.opinion}, which is to be learned from",
                hint="choose an opinion that knows some of the structures, or leave it out",
            )

    @staticmethod
    def _draw(samples: Sequence[Claim], table: Table, row: int, seed: int | None) -> Draw:
        sample, n = int(table.sample[row]), int(table.row[row])
        rows = samples[sample].rows
        return Draw(sample, (float(rows.k[n]), float(rows.centre[n, 0]), float(rows.centre[n, 1])), seed)

    def item(self, samples: Sequence[Claim], draw: Draw) -> dict[str, Tensor]:
        claim, s = samples[draw.sample], self.settings
        move = Move() if draw.seed is None else self._move(seeded(draw.seed))
        n = int(draw.centre[0]) - int(claim.rows.k[0])
        k = int(claim.rows.k[n])
        slices = [k + m * claim.scan.step for m in range(-s.neighbours, s.neighbours + 1)]
        frame = Frame.of(claim.scan.spacing_mm, len(slices), draw.centre[1:], s.window, move)
        hu, masks = cut(claim, slices, frame, move)
        said = [
            cut_chance(chance, claim.scan.spacing_mm, slices, frame, move)
            for chance, seen in ((claim.chance, s.opinion), (claim.own, s.own))
            if seen
        ]
        structure = claim.structure
        if move.flip_left_right and self._mirror is not None:
            structure = self._mirror[structure]
        image = pictures(hu, masks[0], structure, claim.rows.facts(n), s, said)
        wrong = masks[0, s.neighbours] ^ masks[1, s.neighbours]
        dsc, outline, claimed = float(claim.dsc[n]), float(claim.outline_mm[n]), bool(claim.rows.claimed[n])
        if draw.seed is not None and claimed:
            # Turned and zoomed, small masks share a little more or less: the label is that of what the net sees.
            dsc = seen_dsc(masks[:, s.neighbours])
        scored = claimed and not np.isnan(dsc)
        return {
            "image": torch.from_numpy(image),
            "wrong": torch.from_numpy(wrong[None].astype(np.float32)),
            "dsc": torch.tensor([dsc if scored else 0.0]),
            "scored": torch.tensor([float(scored)]),
            "outline": torch.tensor([0.0 if np.isnan(outline) else outline]),
            "measured": torch.tensor([float(not np.isnan(outline))]),
            "present": torch.tensor([float(claim.present[n])]),
        }

    def _move(self, rng: np.random.Generator) -> Move:
        move = self.settings.augment.draw(rng, flat=True)
        return move if self._mirror is not None else replace(move, flip_left_right=False)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        _, numbers, maps = self.net.answers(image)  # type: ignore[operator]
        losses = dict(self._number_losses(numbers, batch))
        if "errors" in self.settings.heads:
            losses["errors"] = map_loss(maps, batch["wrong"])
        total = sum((self.settings.weights.get(head, 1.0) * value for head, value in losses.items()), torch.zeros(()))
        figures = {head: float(value.detach()) for head, value in losses.items()}
        with torch.no_grad():
            guess = torch.sigmoid(numbers[:, self.settings.numbers["dsc"]][:, :1])
            figures["mae"] = float(_mean((guess - batch["dsc"]).abs(), batch["scored"]))
        return total, figures

    def _number_losses(self, numbers: Tensor, batch: Batch) -> list[tuple[str, Tensor]]:
        at, dsc, scored = self.settings.numbers, batch["dsc"], batch["scored"]
        guess, low = dsc_and_low(numbers[:, at["dsc"]])
        # The quantile's loss must not pull at the guess it is measured from.
        short = dsc - low
        pinball = torch.maximum(QUANTILE * short, (QUANTILE - 1) * short)
        out = [("dsc", _mean(F.smooth_l1_loss(guess, dsc, reduction="none", beta=0.02) + pinball, scored))]
        if "class" in at:
            reached = torch.cat([dsc >= cut for cut in CUTS], dim=1).float()
            out.append(("class", _mean(F.binary_cross_entropy_with_logits(numbers[:, at["class"]], reached, reduction="none"), scored)))
        if "surface" in at:
            apart = (numbers[:, at["surface"]] - torch.log1p(batch["outline"])).abs()
            out.append(("surface", _mean(apart, batch["measured"])))
        if "present" in at:
            out.append(("present", F.binary_cross_entropy_with_logits(numbers[:, at["present"]], batch["present"])))
        return out

    def finish(self, train: Sequence[Claim], held_back: Sequence[Claim]) -> dict[str, Any]:
        """Gate and bound after training, from patients held back; what the card keeps of it under ``made``."""
        from oncontour.quality.calibrate import calibrate_on_claims

        made = calibrate_on_claims(self, train, held_back)
        if self.settings.opinion:
            made["opinion"] = told_of(asked(self.settings.opinion, "auto", None).card)
        return made

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        from oncontour.quality.predict import Assessor

        return Assessor(self, "torch").predict(case, progress)


# ---- which slices make an epoch


@dataclass(frozen=True, eq=False)
class Table:
    """Every row of every claim: where it is, its DSC (NaN: nothing to score), its structure, and whether a real segmenter drew the mask."""

    sample: NDArray[np.int32]
    row: NDArray[np.int32]
    dsc: NDArray[np.float32]
    structure: NDArray[np.int32]
    real: NDArray[np.bool_]

    @classmethod
    def of(cls, samples: Sequence[Claim]) -> Table:
        lengths = [len(s.rows.k) for s in samples]
        dsc = np.concatenate([np.where(s.rows.claimed, s.dsc, np.nan) for s in samples])
        return cls(
            np.repeat(np.arange(len(samples), dtype=np.int32), lengths),
            np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
            dsc.astype(np.float32),
            np.repeat(np.array([s.structure for s in samples], np.int32), lengths),
            np.repeat(np.array([s.family == SEGMENTER for s in samples]), lengths),
        )

    def choose(self, count: int, rng: np.random.Generator, *, flat: float, generated: float) -> NDArray[np.intp]:
        """``count`` rows: an eighth without contour (gaps, beyond the ends), the part ``generated`` of the rest from the generator.

        Of either kind the part ``flat`` comes evenly over ten bins of DSC, then over structures; the others evenly over structures alone.
        """
        share = generated if self.real.any() else 1.0
        share = share if (~self.real).any() else 0.0
        out: list[NDArray[np.intp]] = []
        bare = np.isnan(self.dsc)
        empty = count // 8 if bare.any() else 0
        out.append(self._even(np.flatnonzero(bare), empty, rng, flat=False))
        for rows, part in ((self.real & ~bare, 1 - share), (~self.real & ~bare, share)):
            wanted = round((count - empty) * part)
            level = round(wanted * flat)
            out.append(self._even(np.flatnonzero(rows), level, rng, flat=True))
            out.append(self._even(np.flatnonzero(rows), wanted - level, rng, flat=False))
        return np.concatenate(out)

    def _even(self, rows: NDArray[np.intp], count: int, rng: np.random.Generator, *, flat: bool) -> NDArray[np.intp]:
        if not len(rows) or count <= 0:
            return np.zeros(0, np.intp)
        cell = self.structure[rows].astype(np.int64)
        if flat:
            cell += 1000 * np.minimum((self.dsc[rows] * BINS).astype(np.int64), BINS - 1)
        kinds, which, size = np.unique(cell, return_inverse=True, return_counts=True)
        bins = kinds // 1000
        weight = 1.0 / (np.unique(bins, return_counts=True)[1][np.unique(bins, return_inverse=True)[1]])
        chance = (weight / size)[which]
        return rows[rng.choice(len(rows), count, p=chance / chance.sum())]


# ---- from a claim to pictures


def asked(model: str, backend: Backend, threads: int | None) -> Contourer:
    """The contour model that gives second opinions, ready to be asked; compiled once. A shipped model comes before a file of its name.

    Raises ModelError where there is none, and for other people's models.
    """
    path = shipped().get(model) or find(model)
    return _compiled(path.resolve(), path.stat().st_mtime_ns, backend, threads)


def told_of(asked: Card) -> dict[str, str]:
    """What a quality model's card keeps of the model that it asked."""
    return {"model": asked.name, "sha256": asked.sha256}


@lru_cache(maxsize=2)
def _compiled(path: Path, changed: int, backend: Backend, threads: int | None) -> Contourer:
    from oncontour.contour.predict import Contourer, load_contourer

    found = load_contourer(path, backend=backend, threads=threads)
    if not isinstance(found, Contourer):
        raise ModelError("only a contour model of our own gives a second opinion", where=str(path))
    return found


@dataclass(frozen=True)
class Frame:
    """A window of ``size`` (slices, rows, columns) to be moved, and the part of the scan that it can reach: from row and column ``first``,
    ``box`` rows and columns; ``inside``: the window's middle in that part."""

    first: tuple[int, int]
    box: tuple[int, int]
    inside: tuple[float, float, float]
    size: tuple[int, int, int]

    @classmethod
    def of(
        cls, spacing_mm: tuple[float, float, float], count: int, centre: tuple[float, float], size: tuple[int, int], move: Move
    ) -> Frame:
        """The frame of ``count`` slices around ``centre`` (row, column)."""
        start = tuple(int(np.floor(c - (n - 1) / 2 + 0.5)) for c, n in zip(centre, size, strict=True))
        middle = np.array([0.0, *((n - 1) / 2 for n in size)])
        at = np.array([0.0, start[0] + middle[1], start[1] + middle[2]])
        corners = np.array([[0, j, i] for j in (0, size[0] - 1) for i in (0, size[1] - 1)]) - middle
        reached = at + np.asarray(move.shift_mm) / np.asarray(spacing_mm) + corners @ move.matrix(spacing_mm).T
        low, high = np.floor(reached.min(axis=0)).astype(int) - 1, np.ceil(reached.max(axis=0)).astype(int) + 2
        first, box = (int(low[1]), int(low[2])), (int(high[1] - low[1]), int(high[2] - low[2]))
        return cls(first, box, ((count - 1) / 2, float(at[1] - first[0]), float(at[2] - first[1])), (count, *size))


def cut(claim: Claim, slices: Sequence[int], frame: Frame, move: Move) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(HU (n, rows, columns), masks (2, n, rows, columns): claim and truth) in the frame on ``slices``, moved."""
    bits = claim.claim.window(slices, frame.first, frame.box).astype(np.uint32)
    bits |= claim.truth.window(slices, frame.first, frame.box).astype(np.uint32) << np.uint32(1)
    ct = claim.scan.window(slices, frame.first, frame.box)
    return move.take(ct, bits, 2, claim.scan.spacing_mm, frame.inside, frame.size)


def cut_chance(
    chance: Chance | None, spacing_mm: tuple[float, float, float], slices: Sequence[int], frame: Frame, move: Move
) -> NDArray[np.float32]:
    """Chances (n, rows, columns), 0 to 255, in the frame on ``slices``, moved; nothing where there are none."""
    if chance is None:
        return np.zeros(frame.size, np.float32)
    said = chance.window(slices, frame.first, frame.box).astype(np.int16)
    return move.carry(said, spacing_mm, frame.inside, frame.size)


def seen_dsc(masks: NDArray[np.bool_]) -> float:
    """DSC of claim and truth (2, rows, columns) in a window; NaN where nothing of the claim is left in it."""
    claim, truth = masks
    return 2 * float((claim & truth).sum()) / float(claim.sum() + truth.sum()) if claim.any() else float("nan")


def pictures(
    hu: NDArray[np.float32],
    mask: NDArray[np.bool_],
    structure: int,
    facts: tuple[float, ...],
    settings: AssessSettings,
    said: Sequence[NDArray[Any]] = (),
) -> NDArray[np.float32]:
    """(channels, rows, columns): CT slices, mask slices, slices of the chances ``said`` (0 to 255 each) that the model takes, and the plane
    whose first row holds the structure's number and the facts."""
    n = len(hu)
    image = np.zeros((settings.channels, *hu.shape[1:]), np.float32)
    image[:n], image[n : 2 * n] = window(hu, *settings.hu), mask
    for number, chances in enumerate(said, start=2):
        image[number * n : (number + 1) * n] = chances.astype(np.float32) / 255
    if settings.inputs == "mask":
        image[:n] = 0
    elif settings.inputs == "ct":
        image[n : 2 * n] = 0
    image[-1, 0, 0] = structure
    image[-1, 0, 1 : 1 + len(facts)] = facts
    return image


# ---- losses


def dsc_and_low(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 1) DSC in 0 to 1 and (n, 1) the quantile below it, from the head's two logits."""
    guess = numbers[:, :1]
    return torch.sigmoid(guess), torch.sigmoid(guess.detach() - F.softplus(numbers[:, 1:2]))


def map_loss(logits: Tensor, wrong: Tensor) -> Tensor:
    """Cross-entropy, wrong pixels weighing more as they are rare, and 1 - DSC over the batch."""
    rare = 1 + 4 * wrong
    bce = (F.binary_cross_entropy_with_logits(logits, wrong, reduction="none") * rare).mean()
    chance = torch.sigmoid(logits)
    return bce + 1 - (2 * (chance * wrong).sum() + 1) / ((chance + wrong).sum() + 1)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of (n, m) over the rows that count."""
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp(min=1)
