"""Registration and segmentation of a daily CT with the planning CT's contours at hand: the nets of the paper, their inputs and losses.

Beljaards, Elmahdy et al., MIDL 2020; IEEE Access 2021;9:95551-95568. Two modes:

    paper   windows of 96 voxels of 1 mm without padding, the planning contours as one channel of label numbers, weights and units as theirs
    fair    whole volumes on a coarse grid, padded, a channel for each planning structure, units that start near the identity, and on
            simulated visits the error of the field as a further term

A case with a ``prior`` is a pair of visits; of a case alone ``settings.visits`` visits are simulated (``adapt.simulate``): the net then
learns from SIMULATED visits, and its card says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oncontour.adapt.balance import Balance, Weighting
from oncontour.adapt.deformation import Deformation
from oncontour.adapt.inputs import Pair, Size, Triple, View, paired
from oncontour.adapt.objective import Terms, losses, read
from oncontour.adapt.simulate import TITLE, Planning, VisitSettings
from oncontour.core.case import Case
from oncontour.errors import ConfigError, TrainingError
from oncontour.learn.build import check_grid, settings_from
from oncontour.learn.card import Card
from oncontour.learn.task import Batch, Draw, Task, first_card, seeded
from oncontour.nets import make_net
from oncontour.nets.crossstitch import MARGINS, SMALLEST, CrossStitch, Join, Stitch
from oncontour.ops.augment import mirrored
from oncontour.ops.intensity import window

Variant = Literal[
    "seg-a",
    "seg-b",
    "seg-c",
    "reg-a",
    "reg-b",
    "jrs-reg-a",
    "jrs-reg-b",
    "dense",
    "sedd",
    "crossstitch-a",
    "crossstitch-b",
    "crossstitch-c",
]


@dataclass(frozen=True)
class Design:
    """One row of the paper: how tasks are joined, what each U-Net sees (F daily CT, M planning CT, S its contours), what is learned."""

    join: Join
    sees: tuple[str, ...]
    losses: tuple[str, ...]


_ALL = ("seg", "reg", "dsc")
VARIANTS: dict[str, Design] = {
    "seg-a": Design("single", ("F",), ("seg",)),
    "seg-b": Design("single", ("FS",), ("seg",)),
    "seg-c": Design("single", ("FMS",), ("seg",)),
    "reg-a": Design("single", ("FM",), ("reg",)),
    "reg-b": Design("single", ("FMS",), ("reg",)),
    "jrs-reg-a": Design("single", ("FM",), ("reg", "dsc")),
    "jrs-reg-b": Design("single", ("FMS",), ("reg", "dsc")),
    "dense": Design("dense", ("FMS",), _ALL),
    "sedd": Design("sedd", ("FMS",), _ALL),
    "crossstitch-a": Design("stitch", ("F", "FM"), _ALL),
    "crossstitch-b": Design("stitch", ("F", "FMS"), _ALL),
    "crossstitch-c": Design("stitch", ("FS", "FMS"), _ALL),
}
WIDTHS = {
    ("paper", False): (16, 32, 64),
    ("paper", True): (23, 45, 91),
    ("fair", False): (8, 16, 32),
    ("fair", True): (11, 23, 45),
}
"""(mode, whether one U-Net does all) -> channels of each level, so that all variants have about as many weights."""
PAPER_TERMS = {"bending": 0.5, "field": 0.0, "window": 9}
FAIR_TERMS = {"bending": 2.0, "field": 0.3, "window": 5}


@dataclass(frozen=True)
class AdaptSettings:
    """What makes a model that adapts; kept in its card, so that the file alone rebuilds it."""

    structures: tuple[str, ...]
    """TG-263 names of what is carried and segmented"""
    variant: Variant = "crossstitch-c"
    """a row of the paper: net, what each stream sees, and losses"""
    mode: Literal["paper", "fair"] = "fair"
    """windows and settings of the paper, or whole volumes"""
    spacing_mm: Triple = (4.5, 4.5, 4.5)
    """working grid (k, j, i); the paper's is 1, 1, 1"""
    window: Size = (64, 48, 64)
    """voxels (k, j, i) of the volume about the structures; in mode paper of each window cut from ``volume``"""
    volume: Size = (256, 192, 256)
    """mode paper: voxels (k, j, i) of the volume that windows are cut from"""
    hu: tuple[float, float] = (-1000.0, 1000.0)
    """grey values from black to white, as in the paper"""
    weighting: Weighting = "equal"
    """how the losses are weighed against each other"""
    start: Literal["none", "optimised"] = "none"
    """what the field begins with: nothing, or the answer of a registration without training, which the net then corrects"""
    visits: int = 2
    """visits simulated of a case without an earlier one"""
    amplitude: tuple[float, float] = (0.5, 1.2)
    """of their motion, drawn between"""
    observer_mm: float = 1.5
    """SD of the second observer's contours on them"""
    seed: int = 0
    """of the simulation"""
    draws: int = 0
    """pairs (mode paper: windows) an epoch; 0: every pair once"""
    flip: bool = True
    """mirror half of the pairs; sides change names"""
    hu_shift: float = 15.0
    """added to all grey values of either visit, at most"""
    terms: dict[str, float] = field(default_factory=dict)
    """instead of the mode's: bending (per mm^-2), field (per mm of error), window (voxels of the local correlation)"""
    widths: tuple[int, ...] = ()
    """channels of the three levels instead of the mode's"""

    def __post_init__(self) -> None:
        for name in ("structures", "spacing_mm", "window", "volume", "hu", "amplitude", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_grid(self.spacing_mm, self.window)
        check_grid(self.spacing_mm, self.volume)
        least, count = SMALLEST if self.mode == "paper" else 8, len(self.structures)
        a, b = self.amplitude if len(self.amplitude) == 2 else (0.0, -1.0)
        inside = all(n <= whole for n, whole in zip(self.window, self.volume, strict=True))
        wrong = [
            told
            for bad, told in (
                (not 1 <= count <= 32 or len(set(self.structures)) < count, "1 to 32 different structures"),
                (min(self.window) < least or any(n % 4 for n in self.window), f"window {self.window}: {least} or more, multiples of 4"),
                (self.mode == "paper" and not inside, f"volume {self.volume}: at least the window {self.window}"),
                (not (len(self.hu) == 2 and self.hu[0] < self.hu[1]), f"hu {self.hu}: low to high"),
                (not 0 <= a <= b <= 3, f"amplitude {self.amplitude}: two of 0 to 3, the smaller first"),
                (self.visits < 1 or self.draws < 0 or not 0 <= self.hu_shift <= 200, "visits 1, draws 0, hu_shift 0 or more"),
                (bool(set(self.terms) - set(FAIR_TERMS)), f"terms {sorted(self.terms)}: any of {', '.join(FAIR_TERMS)}"),
                (bool(self.widths) and (len(self.widths) != 3 or not all(1 <= w <= 512 for w in self.widths)), f"widths {self.widths}"),
                (self.weighting != "equal" and len(VARIANTS[self.variant].losses) == 1, f"{self.variant} has one loss: weighting equal"),
            )
            if bad
        ]
        if wrong:
            raise ConfigError(f"settings that cannot be used: {'; '.join(wrong)}", hint="see `oncontour train adapt --help`")

    @property
    def view(self) -> View:
        """How the net sees a pair of visits."""
        size = self.volume if self.mode == "paper" else self.window
        return View(self.structures, self.spacing_mm, size, self.start == "optimised")


class AdaptNet(nn.Module):
    """The joint net and the weights of its losses, which are learned and kept with it."""

    def __init__(self, settings: AdaptSettings) -> None:
        super().__init__()
        design, paper, n = VARIANTS[settings.variant], settings.mode == "paper", len(settings.structures)
        channels = {"F": [0], "M": [1], "S": list(range(2, 3 if paper else 2 + n))}
        sees = [[c for letter in one for c in channels[letter]] for one in design.sees]
        used = sorted({c for one in sees for c in one})
        self.used = used
        outputs = [1 + n] * ("seg" in design.losses) + [3] * ("reg" in design.losses)
        widths = settings.widths or WIDTHS[settings.mode, design.join in ("single", "dense")]
        joint = make_net(
            "crossstitch",
            len(used),
            sum(outputs),
            join=design.join,
            outputs=outputs,
            inputs=[[used.index(c) for c in one] for one in sees],
            widths=widths,
            padded=not paper,
            deep=True,
            identity=not paper,
        )
        assert isinstance(joint, CrossStitch)
        self.joint = joint
        self.balance = Balance(design.losses, settings.weighting)

    def forward(self, image: Tensor) -> list[list[Tensor]]:
        answers: list[list[Tensor]] = self.joint.answers(image[:, self.used])
        return answers


class AdaptTask(Task[Pair]):
    """Adapting a planning CT's contours to a daily CT; see the module's words and ``learn/task.py`` for the contract."""

    name = "adapt"
    net: AdaptNet

    def __init__(self, settings: AdaptSettings, card: Card | None = None) -> None:
        super().__init__()
        self.settings, self._card = settings, card
        self.design = VARIANTS[settings.variant]
        self.net = AdaptNet(settings)
        defaults = PAPER_TERMS if settings.mode == "paper" else FAIR_TERMS
        weights = {**defaults, **settings.terms}
        self.terms = Terms(weights["bending"], weights["field"], int(weights["window"]), settings.hu[1] - settings.hu[0])
        self.margins = MARGINS if settings.mode == "paper" else (0, 0, 0)
        self._mirror = mirrored(settings.structures)

    @property
    def segments(self) -> bool:
        """Whether it segments the daily CT itself."""
        return "seg" in self.design.losses

    @property
    def registers(self) -> bool:
        """Whether it finds a field."""
        return "reg" in self.design.losses

    def start_afresh(self) -> None:
        super().start_afresh()
        paper = self.settings.mode == "paper"
        with torch.no_grad():
            for module in self.net.modules():
                if isinstance(module, nn.Conv3d) and (paper or (module.kernel_size == (1, 1, 1) and module.out_channels == 3)):
                    # The paper's N(0, 0.02); otherwise fields alone begin small, so that nothing folds before anything is learned.
                    nn.init.normal_(module.weight, 0.0, 0.02 if paper else 1e-3)
                    nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    # ---- the contract

    @classmethod
    def from_card(cls, card: Card) -> AdaptTask:
        """The task that a model's card describes, its net still without weights. Raises ModelError where the card is wrong."""
        return cls(settings_from(card, AdaptSettings), card)

    def card(self) -> Card:
        return self._card or first_card(self, self.settings)

    def taught(self, samples: Sequence[Pair]) -> set[int]:
        return {n for pair in samples for n, known in enumerate(pair.known) if known}

    def samples(self, case: Case) -> list[Pair]:
        """The pair of a case with an earlier visit; else pairs with visits simulated of it. None without any of the structures."""
        s = self.settings
        if not any(name in case.structures for name in s.structures):
            return []
        if case.prior is not None:
            truth = case.facts.get("deformation")
            return [paired(case, case.prior, s.view, truth if isinstance(truth, Deformation) else None).pair]
        planning = Planning(case)
        amplitudes = seeded(s.seed, 4, *case.id.encode()).uniform(*s.amplitude, s.visits)
        visits = (planning.visit(n + 1, VisitSettings(float(a), "course", s.observer_mm), s.seed) for n, a in enumerate(amplitudes))
        return [paired(visit.case, case, s.view, visit.deformation).pair for visit in visits]

    def plan(self, samples: Sequence[Pair], rng: np.random.Generator, *, train: bool) -> list[Draw]:
        """As ``Task.plan``; an epoch begins here, which the weights of the losses are told. Raises TrainingError where no pair has a voxel
        of any structure that both visits have."""
        if train:
            self.net.balance.epoch_begins()
        else:
            rng = seeded(0)
        usable = [n for n, pair in enumerate(samples) if _voxels(pair).any()]
        if not usable and train:
            raise TrainingError(
                f"no pair of visits has a voxel of {', '.join(self.settings.structures)} on the working grid",
                where=f"{len(samples)} pairs",
                hint="are the structures contoured on both visits?",
            )
        if not usable:
            return []
        count = self.settings.draws or len(usable)
        count = count if train or self.settings.mode == "fair" else max(8, count // 10)
        order = [n for _ in range(-(-count // len(usable))) for n in (rng.permutation(usable) if train else usable)]
        return [Draw(int(n), self._centre(samples[n], rng), int(rng.integers(2**62)) if train else None) for n in order[:count]]

    def _centre(self, pair: Pair, rng: np.random.Generator) -> tuple[float, float, float]:
        """Mode paper: a voxel of a structure, each structure as likely as any other; else the middle of the volume."""
        if self.settings.mode == "fair":
            k, j, i = ((n - 1) / 2 for n in pair.grid.shape)
            return k, j, i
        bits = _voxels(pair)
        there = [n for n in range(len(self.settings.structures)) if (bits & np.uint32(1 << n)).any()]
        where = np.argwhere(bits & np.uint32(1 << there[int(rng.integers(len(there)))]))
        k, j, i = (float(v) for v in where[int(rng.integers(len(where)))])
        return k, j, i

    def item(self, samples: Sequence[Pair], draw: Draw) -> dict[str, Tensor]:
        """Tensors of a pair, (c, k, j, i) each: image (the net's channels), fixed, moving, fixed_masks, moving_masks, inside, start, truth;
        known (structures) and has_truth ()."""
        pair, s = samples[draw.sample], self.settings
        rng = None if draw.seed is None else seeded(draw.seed)
        cut = _slices(draw.centre, s.window, pair.grid.shape)
        n = len(s.structures)
        shift = (0.0, 0.0) if rng is None else tuple(rng.uniform(-s.hu_shift, s.hu_shift, 2))
        fixed, moving = (
            window(hu[cut].astype(np.float32) + np.float32(by), *s.hu)[None]
            for hu, by in zip((pair.fixed, pair.moving), shift, strict=True)
        )
        nothing = np.zeros((3, *fixed.shape[1:]), np.float32)
        found = {
            "fixed": fixed,
            "moving": moving,
            "fixed_masks": _masks(pair.fixed_bits[cut], n),
            "moving_masks": _masks(pair.moving_bits[cut], n),
            "inside": pair.inside[cut][None].astype(np.float32),
            "start": nothing if pair.start is None else pair.start[:, *cut].astype(np.float32),
            "truth": nothing if pair.truth is None else pair.truth[:, *cut].astype(np.float32),
        }
        known = pair.known.astype(np.float32)
        if rng is not None and s.flip and self._mirror is not None and rng.random() < 0.5:
            found, known = _flipped(found, self._mirror), known[self._mirror]
        tensors = {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in found.items()}
        tensors |= {"known": torch.from_numpy(known), "has_truth": torch.tensor(float(pair.truth is not None))}
        return {"image": self._image(tensors), **tensors}

    def _image(self, one: dict[str, Tensor]) -> Tensor:
        """(c, k, j, i) what the net sees: the daily CT, and the planning CT and contours where ``start`` leads."""
        at = places(one["fixed"].shape[1:]) + one["start"] / torch.tensor(self.settings.spacing_mm[::-1]).reshape(3, 1, 1, 1)
        seen = torch.cat([one["moving"], one["moving_masks"]])
        seen = read(seen[None], at[None])[0] if bool(one["start"].any()) else seen
        if self.settings.mode == "fair":
            return torch.cat([one["fixed"], seen])
        labels = (one["moving_masks"] * torch.arange(1, len(one["moving_masks"]) + 1).reshape(-1, 1, 1, 1)).amax(dim=0, keepdim=True)
        return torch.cat([one["fixed"], seen[:1], labels])

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        answers = self.answers(batch["image"])
        with torch.autocast(batch["image"].device.type, enabled=False):  # displacements and correlations need float32
            each, figures = losses(batch, answers, self.margins, self.design.losses, self.terms, self.settings.spacing_mm)
            figures |= {f"loss_{name}": float(value.detach()) for name, value in each.items()}
            total = self.net.balance(each, self.net.joint.shared())
        if self.training:
            figures |= self.net.balance.figures() | self.flow()
        return total, figures

    def answers(self, image: Tensor) -> list[list[Tensor]]:
        """[resolution][task] of the net in float32, fields in mm: a net answers in voxels, mode paper in those of each resolution."""
        found = [[one.float() for one in tasks] for tasks in self.net(image)]
        if not self.registers:
            return found
        step = image.new_tensor(self.settings.spacing_mm[::-1]).reshape(1, 3, 1, 1, 1)
        strides = (1, 2, 4) if self.settings.mode == "paper" else (1, 1, 1)
        return [[*tasks[:-1], tasks[-1] * (step * stride)] for tasks, stride in zip(found, strides, strict=True)]

    def flow(self) -> dict[str, float]:
        """What flows between the tasks: for each cross-stitch unit the share of the other task in the weights of either, mean over maps."""
        told: dict[str, float] = {}
        for n, unit in enumerate(self.net.joint.stitches):
            assert isinstance(unit, Stitch)
            size = unit.weight.detach().abs()
            share = size / size.sum(dim=2, keepdim=True).clamp(min=1e-9)
            told |= {f"flow{n + 1}_into_seg": float(share[:, 0, 1].mean()), f"flow{n + 1}_into_reg": float(share[:, 1, 0].mean())}
        return told


def finish(task: AdaptTask, train: Sequence[Pair], held_back: Sequence[Pair]) -> dict[str, object]:
    """What a card tells of the visits that were learned from and watched: how many, and how many of them were simulated."""
    simulated = sum(pair.truth is not None for pair in (*train, *held_back))
    return {"visits": len(train) + len(held_back), "simulated_visits": simulated, **({"visits_note": TITLE} if simulated else {})}


def places(size: Sequence[int]) -> Tensor:
    """(3, k, j, i) the voxel of each place, in the order i, j, k."""
    along = [torch.arange(n, dtype=torch.float32) for n in size]
    return torch.stack(torch.meshgrid(*along, indexing="ij")[::-1])


def _voxels(pair: Pair) -> NDArray[np.uint32]:
    """The daily visit's bits of structures that both visits have."""
    both = np.uint32(sum(1 << n for n, known in enumerate(pair.known) if known))
    return pair.fixed_bits & both


def _masks(bits: NDArray[np.uint32], n: int) -> NDArray[np.float32]:
    return np.stack([(bits >> np.uint32(one)) & np.uint32(1) for one in range(n)]).astype(np.float32)


def _slices(centre: tuple[float, float, float], size: Sequence[int], shape: Sequence[int]) -> tuple[slice, slice, slice]:
    """The window about ``centre``, moved to lie within the volume."""
    starts = [min(max(0, round(c - (n - 1) / 2)), whole - n) for c, n, whole in zip(centre, size, shape, strict=True)]
    k, j, i = (slice(a, a + n) for a, n in zip(starts, size, strict=True))
    return k, j, i


def _flipped(found: dict[str, NDArray[np.float32]], mirror: list[int]) -> dict[str, NDArray[np.float32]]:
    """Mirrored left to right: organs of the two sides change places in the stack, and x components their sign."""
    out = {name: one[..., ::-1] for name, one in found.items()}
    for name in ("fixed_masks", "moving_masks"):
        out[name] = out[name][mirror]
    for name in ("start", "truth"):
        out[name] = out[name] * np.array([-1, 1, 1], np.float32)[:, None, None, None]
    return out
