"""Contour quality: a CT and masks become, slice by slice, the DSC that each mask would have against a truth nobody has.

The net sees the CT slice and the mask under question with their neighbours, which structure it is meant to be, and where in the stack the
slice lies. Heads by configuration: ``dsc`` (with a quantile below it that the bound is made from), ordinal ``class``, ``errors`` (which
pixels are wrongly in or out), ``surface`` error in mm, and ``present`` (whether the structure is in this slice at all). The paper:
Wei et al., Chin J Med Phys 2026;43(5):675-681; *differs* as ``papers/quality-2026`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from oncontour.classes import named_by_user
from oncontour.core.case import Case
from oncontour.errors import ConfigError, TrainingError
from oncontour.learn.card import Card
from oncontour.learn.task import Batch, Draw, Task, first_card, seeded
from oncontour.nets import make_net
from oncontour.nets.quality import Packed as Row
from oncontour.ops.augment import Move, mirrored
from oncontour.quality.candidates import SEGMENTER, CandidateContour, ProbabilityMap, allowed, candidate_contours
from oncontour.quality.inputs import AREA_CM2, CUTS, NUMBERS, AssessSettings, facts_of, load_reference, pictures
from oncontour.quality.out_of_distribution import Detector

BINS = 10
QUANTILE = 0.1
"""Part of slices that shall lie below the predicted lower quantile."""


class Gate(nn.Module):
    """What a net keeps of its ``Detector``."""

    centre: Tensor
    root: Tensor
    limit: Tensor

    def __init__(self, structures: int, width: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(structures, width))
        self.register_buffer("root", torch.zeros(structures, width, width))
        self.register_buffer("limit", torch.zeros(structures))


class AssessTask(Task[CandidateContour]):
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
        told: dict[str, object] = {
            "maps": maps,
            "structures": len(settings.structures),
            "facts": settings.facts,
            "mask_channel": slices + n,
        }
        told |= {"areas": True} if settings.channel_dropout and maps else {}
        told["chance_channels"] = tuple((2 + number) * slices + n for number in range(settings.probability_maps))
        self.net = make_net(settings.net, settings.channels, maps + numbers, **{**settings.net_options, **told})
        if not hasattr(self.net, "answers"):
            raise ConfigError(f"net {settings.net!r} gives no numbers about a slice", hint="choose quality or quality_cnn")
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.width = int(self.net.width)  # type: ignore[arg-type]
        self.gate = Gate(len(settings.structures), self.width)
        self.net.add_module("gate", self.gate)
        self._mirror = mirrored(settings.structures)

    @property
    def detector(self) -> Detector:
        """The out-of-distribution detector, which lies in the net's own memory; files of weights and checkpoints call it ``gate``."""
        return Detector(self.gate.centre.numpy(), self.gate.root.numpy(), self.gate.limit.numpy())

    # ---- the contract

    def answering(self) -> nn.Module:
        """Features, numbers and maps in one row."""
        return Row(self.net)  # type: ignore[arg-type]

    def exported_shape(self) -> tuple[int, ...]:
        return (1, self.settings.channels, *self.settings.window)

    @classmethod
    def from_card(cls, card: Card) -> AssessTask:
        """The task that a model's card describes, its net still without weights. Raises ModelError where the card is wrong."""
        from oncontour.learn.build import settings_from

        return cls(settings_from(card, AssessSettings), card)

    def card(self) -> Card:
        return self._card or first_card(self, self.settings)

    def samples(self, case: Case) -> list[CandidateContour]:
        s, grid = self.settings, self.settings.working_grid(case.geometry)
        reference = None
        if s.opinion and any(name in case.structures for name in s.structures):
            reference = load_reference(s.opinion, "auto", None).reference(case.without_structures())
        made = candidate_contours(
            case,
            grid,
            s.structures,
            step=s.step(grid),
            beyond=s.beyond,
            variants=0 if s.needs_own else s.variants,
            families=allowed(s.held_out_families),
            seed=s.seed,
            reference=reference,
        )
        kept = self.usable(made)
        if s.needs_own and not kept and any(name in case.structures for name in s.structures):
            raise TrainingError(
                "no candidate contour comes with the probability map of the model that drew it, which is to be learned from",
                where=case.id,
                hint="draw the --claims with oncontour predict --chances",
            )
        return kept

    def taught(self, samples: Sequence[CandidateContour]) -> set[int]:
        return {candidate.structure for candidate in samples}

    def usable(self, candidates: Sequence[CandidateContour]) -> list[CandidateContour]:
        """Those of ``candidates`` that the net can learn from: with the segmenter's probability map, where it must see that."""
        return [candidate for candidate in candidates if candidate.own is not None or not self.settings.needs_own]

    def plan(self, samples: Sequence[CandidateContour], rng: np.random.Generator, *, train: bool) -> list[Draw]:
        self._check(samples)
        table = Table.of(samples)
        count = self.settings.draws if train else max(16, self.settings.draws // 10)
        rng = rng if train else seeded(0)
        chosen = table.choose(count, rng, flat=self.settings.flat if train else 0.0, generated=self.settings.generated)
        rng.shuffle(chosen)
        return [self._draw(samples, table, int(row), int(rng.integers(2**62)) if train else None) for row in chosen]

    def _check(self, samples: Sequence[CandidateContour]) -> None:
        """Raise TrainingError where reference probabilities are to be learned from and there are none: the net would see empty ones."""
        if self.settings.opinion and not any(candidate.reference is not None for candidate in samples):
            raise TrainingError(
                f"the reference model {self.settings.opinion} gave no probabilities of these structures, which are to be learned from",
                hint="choose as settings.opinion a model that draws some of the structures, or leave it out",
            )

    @staticmethod
    def _draw(samples: Sequence[CandidateContour], table: Table, row: int, seed: int | None) -> Draw:
        sample, n = int(table.sample[row]), int(table.row[row])
        rows = samples[sample].rows
        return Draw(sample, (float(rows.k[n]), float(rows.centre[n, 0]), float(rows.centre[n, 1])), seed)

    def item(self, samples: Sequence[CandidateContour], draw: Draw, given: tuple[bool, bool] = (True, True)) -> dict[str, Tensor]:
        """The tensors of one draw. ``given``: whether the net sees the reference model's probability map and the segmenter's own, where
        there are any; a draw with a seed decides that by itself."""
        candidate, s, rng = samples[draw.sample], self.settings, seeded(draw.seed or 0)
        move = Move() if draw.seed is None else self._move(rng)
        if draw.seed is not None and s.channel_dropout:
            reference, own = rng.random(2) >= s.channel_dropout
            given = bool(reference), bool(own)
        maps = candidate.reference if given[0] else None, candidate.own if given[1] else None
        n = int(draw.centre[0]) - int(candidate.rows.k[0])
        k = int(candidate.rows.k[n])
        slices = [k + m * candidate.scan.step for m in range(-s.neighbours, s.neighbours + 1)]
        frame = Frame.of(candidate.scan.spacing_mm, len(slices), draw.centre[1:], s.window, move)
        hu, masks = cut(candidate, slices, frame, move)
        said = [
            cut_map(chance, candidate.scan.spacing_mm, slices, frame, move)
            for chance, seen in zip(maps, (s.opinion, s.own), strict=True)
            if seen
        ]
        structure = candidate.structure
        if move.flip_left_right and self._mirror is not None:
            structure = self._mirror[structure]
        facts = facts_of(s, candidate.rows.facts(n), candidate.scan.spacing_mm, (maps[0] is not None, maps[1] is not None))
        image = pictures(hu, masks[0], structure, facts, s, said)
        wrong = masks[0, s.neighbours] ^ masks[1, s.neighbours]
        dsc, outline, contoured = float(candidate.dsc[n]), float(candidate.outline_mm[n]), bool(candidate.rows.contoured[n])
        if draw.seed is not None and contoured:
            # Turned and zoomed, small masks share a little more or less: the label is that of what the net sees.
            dsc = seen_dsc(masks[:, s.neighbours])
        scored = contoured and not np.isnan(dsc)
        return {
            "image": torch.from_numpy(image),
            "wrong": torch.from_numpy(wrong[None].astype(np.float32)),
            "dsc": torch.tensor([dsc if scored else 0.0]),
            "scored": torch.tensor([float(scored)]),
            "outline": torch.tensor([0.0 if np.isnan(outline) else outline]),
            "measured": torch.tensor([float(not np.isnan(outline))]),
            "present": torch.tensor([float(candidate.present[n])]),
            "area": torch.tensor([float(wrong.sum()) * candidate.scan.spacing_mm[1] * candidate.scan.spacing_mm[2] / 100]),
        }

    def _move(self, rng: np.random.Generator) -> Move:
        move = self.settings.augment.draw(rng, flat=True)
        return move if self._mirror is not None else replace(move, flip_left_right=False)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        _, numbers, maps = self.net.answers(image)  # type: ignore[operator]
        numbers = numbers.float()
        losses = dict(self._number_losses(numbers, batch))
        if "errors" in self.settings.heads:
            losses["errors"] = map_loss(maps.float(), batch["wrong"])
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
        if "surface_high" in at:
            high = outline_high(numbers[:, at["surface"]], numbers[:, at["surface_high"]])
            out.append(("surface_high", _mean(exceeded(torch.log1p(batch["outline"]) - high), batch["measured"])))
        if "area" in at:
            area, high = area_and_high(numbers[:, at["area"]])
            wrong = torch.log1p(batch["area"] / AREA_CM2)
            out.append(("area", (F.smooth_l1_loss(area, wrong, beta=0.5) + exceeded(wrong - high).mean())))
        if "present" in at:
            out.append(("present", F.binary_cross_entropy_with_logits(numbers[:, at["present"]], batch["present"])))
        return out


# ---- which slices make an epoch


@dataclass(frozen=True, eq=False)
class Table:
    """Every row of every candidate: where it is, its DSC (NaN: nothing to score), its structure, and whether a real segmenter drew it."""

    sample: NDArray[np.int32]
    row: NDArray[np.int32]
    dsc: NDArray[np.float32]
    structure: NDArray[np.int32]
    real: NDArray[np.bool_]

    @classmethod
    def of(cls, samples: Sequence[CandidateContour]) -> Table:
        lengths = [len(s.rows.k) for s in samples]
        dsc = np.concatenate([np.where(s.rows.contoured, s.dsc, np.nan) for s in samples])
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
        p = (weight / size)[which]
        return rows[rng.choice(len(rows), count, p=p / p.sum())]


# ---- from a candidate to pictures


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


def cut(candidate: CandidateContour, slices: Sequence[int], frame: Frame, move: Move) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(HU (n, rows, columns), masks (2, n, rows, columns): candidate and truth) in the frame on ``slices``, moved."""
    bits = candidate.contour.window(slices, frame.first, frame.box).astype(np.uint32)
    bits |= candidate.truth.window(slices, frame.first, frame.box).astype(np.uint32) << np.uint32(1)
    ct = candidate.scan.window(slices, frame.first, frame.box)
    return move.take(ct, bits, 2, candidate.scan.spacing_mm, frame.inside, frame.size)


def cut_map(
    probabilities: ProbabilityMap | None, spacing_mm: tuple[float, float, float], slices: Sequence[int], frame: Frame, move: Move
) -> NDArray[np.float32]:
    """Probabilities (n, rows, columns), 0 to 255, in the frame on ``slices``, moved; nothing where there are none."""
    if probabilities is None:
        return np.zeros(frame.size, np.float32)
    said = probabilities.window(slices, frame.first, frame.box).astype(np.int16)
    return move.carry(said, spacing_mm, frame.inside, frame.size)


def seen_dsc(masks: NDArray[np.bool_]) -> float:
    """DSC of candidate and truth (2, rows, columns) in a window; NaN where nothing of the candidate is left in it."""
    candidate, truth = masks
    return 2 * float((candidate & truth).sum()) / float(candidate.sum() + truth.sum()) if candidate.any() else float("nan")


# ---- losses


def dsc_and_low(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 1) DSC in 0 to 1 and (n, 1) the quantile below it, from the head's two logits."""
    guess = numbers[:, :1]
    return torch.sigmoid(guess), torch.sigmoid(guess.detach() - F.softplus(numbers[:, 1:2]))


def area_and_high(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 1) log(1 + wrong area / AREA_CM2) and (n, 1) the quantile above it, from the head's two numbers."""
    area = numbers[:, :1]
    return area, area.detach() + F.softplus(numbers[:, 1:2])


def outline_high(surface: Tensor, more: Tensor) -> Tensor:
    """(n, 1) the quantile above log(1 + outline error in mm), from the numbers of ``surface`` and ``surface_high``."""
    return surface.detach() + F.softplus(more)


def exceeded(short: Tensor) -> Tensor:
    """The quantile loss of an upper bound that the part QUANTILE shall exceed; ``short``: truth less bound."""
    return torch.maximum((1 - QUANTILE) * short, -QUANTILE * short)


def map_loss(logits: Tensor, wrong: Tensor) -> Tensor:
    """Cross-entropy, wrong pixels weighing more as they are rare, and 1 - DSC over the batch."""
    rare = 1 + 4 * wrong
    bce = (F.binary_cross_entropy_with_logits(logits, wrong, reduction="none") * rare).mean()
    likely = torch.sigmoid(logits)
    return bce + 1 - (2 * (likely * wrong).sum() + 1) / ((likely + wrong).sum() + 1)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of (n, m) over the rows that count."""
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp(min=1)
