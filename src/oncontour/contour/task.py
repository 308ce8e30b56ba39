"""Contouring: a CT becomes masks of organs and targets.

One output channel and one sigmoid a structure. A structure that was not contoured in a patient has no say in that patient's loss:
absent is not background. Where structures may overlap (``settings.overlap``) each is drawn whole, else a voxel belongs to one alone.
Training windows are cut, moved and turned in one interpolation from arrays kept in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from oncontour.classes import named_by_user
from oncontour.contour.inputs import ContourSettings, image_of
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import written_cc
from oncontour.errors import ConfigError, TrainingError
from oncontour.learn.build import settings_from
from oncontour.learn.card import Card
from oncontour.learn.task import Batch, Draw, Task, first_card, seeded
from oncontour.nets import make_net
from oncontour.ops.augment import Move, mirrored
from oncontour.ops.intensity import AIR_HU, window


@dataclass(frozen=True)
class Clash:
    """Two structures of a patient that share more than the uncertainty of drawing them: both, their volumes, and what they share."""

    structures: tuple[str, str]
    volumes_cc: tuple[float, float]
    shared_cc: float

    def __str__(self) -> str:
        (a, b), (one, other) = self.structures, self.volumes_cc
        return f"{a} ({written_cc(one)} cc) and {b} ({written_cc(other)} cc) share {written_cc(self.shared_cc)} cc"


@dataclass(frozen=True, eq=False)
class Sample:
    """A case as training arrays on the working grid: HU (k, j, i), bit n of ``bits`` for structure n, which structures are known."""

    case_id: str
    ct: NDArray[np.int16]
    bits: NDArray[np.uint32]
    known: NDArray[np.bool_]
    geometry: Geometry
    places: tuple[NDArray[np.int32], ...]
    """for each structure (m, 3) of its voxels (at most 2000), to centre windows on"""
    clash: Clash | None = None
    """the two structures that overlap most, where any do"""
    lost: tuple[str, ...] = ()
    """structures that were contoured and are too thin for a voxel of the working grid: not known, as they are not absent"""
    others: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)
    """images beside the CT that the net sees, by name"""


class ContourTask(Task[Sample]):
    """Contours of ``settings.structures``; see the module's words and ``learn/task.py`` for the contract."""

    name = "contour"

    def __init__(self, settings: ContourSettings, card: Card | None = None) -> None:
        super().__init__()
        self.settings = settings
        self._card = card
        if card is None:
            named_by_user(settings.net)
        self.net = make_net(settings.net, settings.channels, len(settings.structures), **settings.net_options)
        flat = getattr(self.net, "dims", 3) == 2
        if flat != settings.flat:
            raise ConfigError(f"net {settings.net!r} has {2 if flat else 3} dimensions, its window {settings.window} does not")
        if settings.neighbours < 0 or (settings.neighbours and not flat):
            raise ConfigError(
                f"neighbours={settings.neighbours} with net {settings.net!r}: 0 or more slices ride along with a net in two dimensions",
                hint="a net in three sees its neighbours in the window: leave neighbours at 0",
            )
        # A third faster on a CPU (and with windows of one: without, 3D convolutions there fall back to a slow path); values are the same.
        self._format = torch.channels_last if flat else torch.channels_last_3d
        self.net.to(memory_format=self._format)  # type: ignore[call-overload]
        divisor = getattr(self.net, "divisor", 1)
        if any(n % divisor for n in settings.window[1 if flat else 0 :]):
            raise ConfigError(f"window {settings.window} must be made of multiples of {divisor} for net {settings.net!r}")
        if not flat and divisor > 1 and max(settings.window) == divisor:
            raise ConfigError(
                f"window {settings.window} is a single point to net {settings.net!r} at its coarsest: one side of {2 * divisor}"
            )
        self._mirror = mirrored(settings.structures)

    def start_afresh(self) -> None:
        super().start_afresh()
        head = getattr(self.net, "head", None)
        if self.settings.loss != "paper" and head is not None:
            # Organs are rare: starting at "nowhere" saves the first hundred steps.
            torch.nn.init.constant_(head.bias, -4.0)

    # ---- the contract

    def exported_shape(self) -> tuple[int, ...]:
        return self.settings.seen_shape

    def taught(self, samples: Sequence[Sample]) -> set[int]:
        return {n for sample in samples for n, known in enumerate(sample.known) if known and len(sample.places[n])}

    @classmethod
    def from_card(cls, card: Card) -> ContourTask:
        """The task that a model's card describes, its net still without weights. Raises ModelError where the card is wrong."""
        return cls(settings_from(card, ContourSettings), card)

    def card(self) -> Card:
        return self._card or first_card(self, self.settings)

    def samples(self, case: Case) -> list[Sample]:
        names = self.settings.structures
        known = np.array([name in case.structures for name in names])
        if not known.any():
            return []
        grid = self.settings.working_grid(case.geometry)
        ct = case.ct.to(grid, fill=AIR_HU).array
        bits, lost = np.zeros(grid.shape, np.uint32), np.zeros(len(names), bool)
        places = []
        for n, name in enumerate(names):
            inside = case.mask(name, grid).array if known[n] else np.zeros(grid.shape, bool)
            bits |= inside.astype(np.uint32) << np.uint32(n)
            where = np.argwhere(inside).astype(np.int32)
            lost[n] = known[n] and not len(where) and _drawn(case, name)
            places.append(where[:: max(1, len(where) // 2000)])
        hu = np.clip(ct, -32768, 32767).astype(np.int16)
        thin = tuple(name for name, gone in zip(names, lost, strict=True) if gone)
        others = {name: np.clip(image_of(case, name).to(grid).array, -32768, 32767).astype(np.int16) for name in self.settings.others}
        return [Sample(case.id, hu, bits, known & ~lost, grid, tuple(places), clash(names, bits, grid), thin, others)]

    def plan(self, samples: Sequence[Sample], rng: np.random.Generator, *, train: bool) -> list[Draw]:
        """As ``Task.plan``. Raises TrainingError where structures overlap and ``settings.overlap`` does not say what is to be done, and
        where no patient to learn from has a voxel of any structure."""
        if self.settings.overlap is None:
            _check_apart(samples)
        if self.settings.slices != "balanced":
            draws = [
                Draw(n, (float(k), (s.ct.shape[1] - 1) / 2, (s.ct.shape[2] - 1) / 2), int(rng.integers(2**62)) if train else None)
                for n, s in enumerate(samples)
                for k in self._slices(s)
            ]
            if train:
                rng.shuffle(draws)
                return draws[: self.settings.draws or None]
            # A tenth as many to watch, spread over all patients.
            return draws[:: max(1, len(draws) // max(8, self.settings.draws // 10))] if self.settings.draws else draws
        bearing = {o: [n for n, s in enumerate(samples) if len(s.places[o])] for o in range(len(self.settings.structures))}
        organs = [o for o, group in bearing.items() if group]
        if not organs and train:
            raise TrainingError(
                f"no patient has a voxel of {', '.join(self.settings.structures)} on the working grid of {self.settings.spacing_mm} mm",
                where=f"{len(samples)} patients",
                hint="are their masks empty, or smaller than a voxel?",
            )
        if not organs:  # to watch, patients who have none of it are still worth a look: nothing should be drawn there
            return [Draw(n, tuple((size - 1) / 2 for size in s.ct.shape), None) for n, s in enumerate(samples)]
        if not train:
            rng = seeded(0)
        draws = []
        for n in range(self.settings.draws if train else max(8, self.settings.draws // 10)):
            organ = organs[n % len(organs)]
            chosen = bearing[organ][int(rng.integers(len(bearing[organ])))]
            # Half of the windows stand on the organ itself: centred on any, a rare one at the end of the scan would hardly be seen.
            places = samples[chosen].places
            choices = [places[organ]] if rng.random() < 0.5 else [p for p in places if len(p)]
            place = choices[int(rng.integers(len(choices)))]
            place = place[int(rng.integers(len(place)))]
            k, j, i = (float(v) for v in place)
            draws.append(Draw(chosen, (k, j, i), int(rng.integers(2**62)) if train else None))
        return draws

    def _slices(self, sample: Sample) -> NDArray[np.intp]:
        if self.settings.slices == "all":
            return np.arange(len(sample.ct))
        return np.flatnonzero(sample.bits.any(axis=(1, 2)))

    def item(self, samples: Sequence[Sample], draw: Draw) -> dict[str, Tensor]:
        sample, s = samples[draw.sample], self.settings
        move = Move() if draw.seed is None else self._draw(seeded(draw.seed))
        size = (s.window[0] + 2 * s.neighbours, *s.window[1:])
        image, masks = move.take(sample.ct, sample.bits, len(s.structures), sample.geometry.spacing_mm, draw.centre, size)
        seen = {"ct": window(image, *s.hu)}
        for name in s.others:
            seen[name] = window(move.carry(sample.others[name], sample.geometry.spacing_mm, draw.centre, size), *s.signal)
        known = sample.known
        if move.flip_left_right and self._mirror is not None:
            masks, known = masks[self._mirror], known[self._mirror]
        x = torch.from_numpy(np.stack([seen[name] for name in s.images]))
        y = torch.from_numpy(np.ascontiguousarray(masks)).float()
        if s.flat:
            return {"image": x.flatten(0, 1), "masks": y[:, s.neighbours], "known": torch.from_numpy(known.astype(np.float32))}
        return {"image": x, "masks": y, "known": torch.from_numpy(known.astype(np.float32))}

    def _draw(self, rng: np.random.Generator) -> Move:
        move = self.settings.augment.draw(rng, flat=self.settings.flat)
        return move if self._mirror is not None else replace(move, flip_left_right=False)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        image = batch["image"].contiguous(memory_format=self._format)
        logits, masks, known = self.net(image).float(), batch["masks"], batch["known"]
        known = known.reshape(*known.shape, *[1] * (logits.ndim - 2))
        dsc, counted = soft_dice(torch.sigmoid(logits) * known, masks * known)
        mean_dsc = (dsc * counted).sum() / counted.sum().clamp(min=1)
        if self.settings.loss == "paper":
            return 1 - mean_dsc, {"dsc": float(mean_dsc.detach())}
        bce = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").flatten(2)
        if self.settings.hardest < 1:
            bce = bce.topk(max(1, round(self.settings.hardest * bce.shape[2])), sorted=False).values
        bce = (bce.mean(2) * known.flatten(1)).sum() / known.sum().clamp(min=1)
        return 1 - mean_dsc + bce, {"dsc": float(mean_dsc.detach()), "bce": float(bce.detach())}


def _drawn(case: Case, name: str) -> bool:
    """Whether anything was contoured under ``name``, however small."""
    return bool(case.masks[name].array.any()) if name in case.masks else bool(case.contours[name].polygons)


_SLIVER, _LARGE = 0.05, 1 / 3
"""Parts of the smaller of two structures. In 173 patients (OpenKBP) two organs share up to 0.30 of the smaller one, and up to 0.013 of it
lies deeper in both than a voxel: contours that do not quite meet. A PTV and a larynx share up to 1, and 0.58 lies deeper."""


def clash(names: Sequence[str], bits: NDArray[np.uint32], grid: Geometry) -> Clash | None:
    """Of the structures in ``bits`` (bit n is ``names[n]``) the two that share most of the smaller one; None where none share enough.

    Enough is a third of the smaller one's voxels, or a twentieth of them at least a voxel inside both: no boundary is drawn so badly.
    """
    kinds, counts = np.unique(bits[(bits & (bits - np.uint32(1))) != 0], return_counts=True)
    found: list[tuple[float, Clash]] = []
    for pair in combinations(range(len(names)), 2):
        both = np.uint32(sum(1 << n for n in pair))
        shared = int(counts[(kinds & both) == both].sum())
        if not shared:
            continue
        sizes = [int(np.count_nonzero(bits & np.uint32(1 << n))) for n in pair]
        part = shared / min(sizes)
        if part >= _LARGE or (part > _SLIVER and _deep((bits & both) == both) > _SLIVER * min(sizes)):
            one, other, common = (n * grid.voxel_mm3 / 1000 for n in (*sizes, shared))
            found.append((part, Clash((names[pair[0]], names[pair[1]]), (one, other), common)))
    return max(found, key=lambda each: each[0])[1] if found else None


def _deep(mask: NDArray[np.bool_]) -> int:
    """How many voxels of ``mask`` have all six neighbours in it; what lies beyond the image counts as in it."""
    (found,) = ndimage.find_objects(mask.astype(np.uint8))
    return int(np.count_nonzero(ndimage.binary_erosion(np.pad(mask, 1, mode="edge")[tuple(slice(p.start, p.stop + 2) for p in found)])))


def _check_apart(samples: Sequence[Sample]) -> None:
    """Raises TrainingError where two structures of any of ``samples`` overlap."""
    clashes = [(s.case_id, s.clash) for s in samples if s.clash is not None]
    if not clashes:
        return
    patient, worst = max(clashes, key=lambda each: each[1].shared_cc / min(each[1].volumes_cc))
    others = f" and {len(clashes) - 1} more" if len(clashes) > 1 else ""
    raise TrainingError(
        f"{worst}, and the model would give a voxel to one of them alone",
        where=f"patient {patient}{others} of {len(samples)}",
        hint="settings.overlap true draws each structure whole, false leaves what they share to the likelier one (with a new folder as "
        "--out); or train them apart, or mend the patient's contours",
    )


def soft_dice(probability: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """DSC of each structure over the whole batch, (n, c, ...) both, and which structures count: those with a voxel in the truth.

    Sums run over the batch as over one volume (Xue et al. 2020, eq. 1, on probabilities); 1 is added above and below, so that a
    structure with no voxel in either scores 1. A structure without truth in the batch counts only where it is the net's only one (the
    paper's loss); otherwise its cross-entropy alone teaches it.
    """
    axes = (0, *range(2, truth.ndim))
    overlap, total, voxels = (probability * truth).sum(axes), (probability + truth).sum(axes), truth.sum(axes)
    counted = torch.ones_like(voxels) if truth.shape[1] == 1 else (voxels > 0).float()
    return (2 * overlap + 1) / (total + 1), counted
