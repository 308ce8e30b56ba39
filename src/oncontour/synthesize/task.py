"""From CT to an MR-like image, learned from the CT of some and the MR of other patients: the improved CycleGAN, and a fairer one.

Meng, Wu, Peng, Xu and Pei (slides, University of Science and Technology of China) on Zhu et al., ICCV 2017. Two modes:

    paper   two generators that begin at random; where the slides are silent (weights, noise, schedule) the reference's values or ours
    fair    generators that begin as a textbook's T1(HU) and learn what differs from it: one that begins at random may as well learn the
            inverted contrast (fat dark), and nothing unpaired tells it

Generators and discriminators learn in turns (``learn.task.InTurns``). The model file keeps the generator from CT to MR alone. What is
watched needs no pairs: how differently patches of made and of real MR are distributed, and edges that did not stay in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oncontour.core.case import Case
from oncontour.errors import InputError, TrainingError
from oncontour.learn.build import settings_from
from oncontour.learn.card import Card
from oncontour.learn.task import Batch, Draw, InTurns, seeded
from oncontour.nets.cyclegan import PatchGAN
from oncontour.ops.body import Mask
from oncontour.synthesize.generators import Generator, back, drawn, forth, textbook_image
from oncontour.synthesize.inputs import HU_RANGE, SIGNAL_RANGE, SynthesizeSettings, mr_of, seen_ct, seen_mr, to_net
from oncontour.synthesize.objective import Pool, edges_apart, frozen, judged, outside, textures_apart

_WATCHED_EDGES = 0.2
"""Weight of edges beside textures in what is watched."""


@dataclass(frozen=True, eq=False)
class Slices:
    """The CT or the MR of a patient as the nets see it: (k, j, i) in [-1, 1], where the patient is, and slices that show enough of it."""

    case_id: str
    kind: Literal["ct", "mr"]
    values: NDArray[np.float32]
    body: Mask
    shown: NDArray[np.intp]


class Rivals(nn.Module):
    """What serves the training alone: the generator from MR to CT, the discriminators, and the images that these were shown."""

    def __init__(self, settings: SynthesizeSettings) -> None:
        super().__init__()
        self.back = back(settings)
        self.judges = nn.ModuleDict({name: PatchGAN(width=settings.width) for name in ("mr", "ct")})
        if settings.denoise == "own":
            self.judges["denoise"] = PatchGAN(width=settings.width)
        self.pools = nn.ModuleDict({name: Pool(settings.pool, settings.window[1:]) for name in ("mr", "ct")})


class SynthesizeTask(InTurns[Slices]):
    """An MR-like image of a CT; see the module's words and ``learn/task.py`` for the contract."""

    name = "synthesize"
    betas = (0.5, 0.999)

    def __init__(self, settings: SynthesizeSettings, card: Card | None = None) -> None:
        super().__init__()
        self.settings, self._card = settings, card
        self.net: Generator = forth(settings)
        self.textbook = textbook_image(settings)
        self.rivals = Rivals(settings) if card is None else None  # a finished model has none, and nothing that its file does not hold

    # ---- the contract

    any_size = True

    def exported_shape(self) -> tuple[int, ...]:
        return (1, 1, *self.settings.window[1:])

    @classmethod
    def from_card(cls, card: Card) -> SynthesizeTask:
        """The task that a model's card describes, its net still without weights. Raises ModelError where the card is wrong."""
        return cls(settings_from(card, SynthesizeSettings), card)

    def card(self) -> Card:
        from dataclasses import asdict

        return self._card or Card(self.name, self.name, asdict(self.settings), [], list(self.settings.spacing_mm))

    def start_afresh(self) -> None:
        self.net.start_afresh()
        if self.rivals is not None:
            self.rivals.back.start_afresh()
            drawn(self.rivals.judges)

    def samples(self, case: Case) -> list[Slices]:
        """The case's CT, its MR, or both. Raises InputError where it has neither, or one that cannot be learned from."""
        s, mr = self.settings, mr_of(case)
        found = []
        if "ct" in case.images:
            ct, body = seen_ct(case.ct, s)
            found.append(_slices(case.id, "ct", to_net(ct.array, HU_RANGE), body))
        if mr is not None:
            signal, body = seen_mr(mr, s)
            found.append(_slices(case.id, "mr", to_net(signal.array, SIGNAL_RANGE), body))
        if not found:
            raise InputError(f"neither a CT nor an MR among the images {sorted(case.images)}", where=f"case {case.id}")
        return found

    def plan(self, samples: Sequence[Slices], rng: np.random.Generator, *, train: bool) -> list[Draw]:
        """As ``Task.plan``; a draw names a slice of CT, its MR is chosen by its seed. Raises TrainingError where no CT has an MR of another
        patient beside it."""
        usable = [n for n, one in enumerate(samples) if one.kind == "ct" and len(one.shown) and _others(samples, one)]
        if not usable:
            count = {kind: sum(one.kind == kind for one in samples) for kind in ("ct", "mr")}
            raise TrainingError(
                f"{'learning' if train else 'watching'} needs CT and MR of different patients: there are {count['ct']} CT and "
                f"{count['mr']} MR of {len({one.case_id for one in samples})} patients",
                hint="add patients; where only those held back lack one, hold back more or others (training.validation, training.seed)",
            )
        if not train:
            rng = seeded(0)
        draws = []
        for n in range(self.settings.draws if train else max(8, self.settings.draws // 10)):
            chosen = usable[int(rng.integers(len(usable)))] if train else usable[n % len(usable)]
            draws.append(Draw(chosen, _centre(samples[chosen], rng), int(rng.integers(2**62)) if train else None))
        return draws

    def item(self, samples: Sequence[Slices], draw: Draw) -> dict[str, Tensor]:
        """A window of CT (image, body) and one of another patient's MR (mr, mr_body), (1, j, i) each; in training half are mirrored."""
        ct, train = samples[draw.sample], draw.seed is not None
        rng = seeded(draw.sample, int(draw.centre[0])) if draw.seed is None else seeded(draw.seed)
        others = _others(samples, ct)
        mr = others[int(rng.integers(len(others)))]
        flips = rng.random(2) < 0.5 if train else (False, False)
        image, body = self._window(ct, draw.centre, bool(flips[0]))
        real, real_body = self._window(mr, _centre(mr, rng), bool(flips[1]))
        return {"image": image, "body": body, "mr": real, "mr_body": real_body}

    def _window(self, one: Slices, centre: tuple[float, float, float], mirrored: bool) -> tuple[Tensor, Tensor]:
        """The window about ``centre``, moved to lie within the slice; a slice that is smaller goes on as its mirror image."""
        k, size = int(centre[0]), self.settings.window[1:]
        starts = [max(0, min(round(c - n / 2), whole - n)) for c, n, whole in zip(centre[1:], size, one.values.shape[1:], strict=True)]
        j, i = (slice(a, a + n) for a, n in zip(starts, size, strict=True))
        values, body = one.values[k, j, i], one.body[k, j, i].astype(np.float32)
        short = [(0, n - m) for n, m in zip(size, values.shape, strict=True)]
        tensors = (torch.from_numpy(np.ascontiguousarray(np.pad(part, short, mode="symmetric"))) for part in (values, body))
        a, b = (part.flip(1)[None] if mirrored else part[None] for part in tensors)
        return a, b

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """What is watched: textures of made and real MR apart, and edges out of place; see the module's words."""
        made = self.net(batch["image"]).float()
        textures = textures_apart(made, batch["mr"], batch["body"], batch["mr_body"])
        edges = edges_apart(made, self.textbook(batch["image"]))
        beyond = outside(made, batch["body"])
        figures = {"textures": textures, "edges": edges, "outside": beyond}
        return textures + _WATCHED_EDGES * edges + beyond, {name: float(value.detach()) for name, value in figures.items()}

    # ---- turns

    def parts(self) -> list[list[nn.Parameter]]:
        """Of both generators, of all discriminators."""
        rivals = self._rivals()
        return [[*self.net.parameters(), *rivals.back.parameters()], [*rivals.judges.parameters()]]

    def turns(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """The generators' loss, then the discriminators'."""
        rivals, ct, mr = self._rivals(), batch["image"], batch["mr"]
        made_mr, made_ct = self.net(ct), rivals.back(mr)
        each = {name: loss for name, loss in self._of_generators(batch, made_mr, made_ct).items() if self.settings.weights[name]}
        total = torch.stack([self.settings.weights[name] * loss for name, loss in each.items()]).sum()
        yield total, {name: float(loss.detach()) for name, loss in each.items()}
        each = self._of_judges(ct, mr, made_mr.detach(), made_ct.detach())
        yield torch.stack(list(each.values())).sum(), {f"judge_{name}": float(loss.detach()) for name, loss in each.items()}

    def _of_generators(self, batch: Batch, made_mr: Tensor, made_ct: Tensor) -> dict[str, Tensor]:
        rivals, s, ct, mr = self._rivals(), self.settings, batch["image"], batch["mr"]
        judges = rivals.judges

        def fooled(judge: str, made: Tensor) -> Tensor:
            return frozen(judges, lambda: judged(judges[judge](made), True, s.adversarial))

        found = {"adversarial": fooled("mr", made_mr) + fooled("ct", made_ct)}
        found["cycle"] = _apart(rivals.back(made_mr), ct) + _apart(self.net(made_ct), mr)
        if s.denoise == "own":
            found["denoise"] = fooled("denoise", made_mr)
        if s.weights["identity"]:
            found["identity"] = _apart(self.net(mr), mr) + _apart(rivals.back(ct), ct)
        if s.weights["gradient"]:
            found["gradient"] = edges_apart(made_mr, self.textbook(ct)) + edges_apart(self.textbook(made_ct), mr)
        if s.weights["body"]:
            found["body"] = outside(made_mr, batch["body"]) + outside(made_ct, batch["mr_body"])
        return found

    def _of_judges(self, ct: Tensor, mr: Tensor, made_mr: Tensor, made_ct: Tensor) -> dict[str, Tensor]:
        """Half of what each discriminator gets wrong, as in the reference; of MR with a third set where noisy real MR counts as fake."""
        rivals, s = self._rivals(), self.settings
        found = {}
        for name, real, made in (("mr", mr, made_mr), ("ct", ct, made_ct)):
            judge, pool = rivals.judges[name], rivals.pools[name]
            assert isinstance(pool, Pool)
            found[name] = (judged(judge(real), True, s.adversarial) + judged(judge(pool.swap(made)), False, s.adversarial)) / 2
        if s.denoise != "none":
            size = torch.empty(len(mr), 1, 1, 1).uniform_(*s.noise).to(mr.device)
            noisy = mr + size * torch.randn(mr.shape).to(mr.device)
            if s.denoise == "fake":
                found["mr"] = found["mr"] + judged(rivals.judges["mr"](noisy), False, s.adversarial) / 2
            else:
                judge = rivals.judges["denoise"]
                found["denoise"] = (judged(judge(mr), True, s.adversarial) + judged(judge(noisy), False, s.adversarial)) / 2
        return found

    def _rivals(self) -> Rivals:
        if self.rivals is None:
            raise TrainingError(
                "a finished model has no discriminators to learn against", hint="train a new one, with --start for its weights"
            )
        return self.rivals


def _slices(case_id: str, kind: Literal["ct", "mr"], values: NDArray[np.float32], body: Mask) -> Slices:
    return Slices(case_id, kind, values, body, np.flatnonzero(body.mean(axis=(1, 2)) > 0.02))


def _others(samples: Sequence[Slices], ct: Slices) -> list[Slices]:
    """The MR of other patients than ``ct``'s."""
    return [one for one in samples if one.kind == "mr" and one.case_id != ct.case_id and len(one.shown)]


def _centre(one: Slices, rng: np.random.Generator) -> tuple[float, float, float]:
    """A voxel of the patient in a slice that shows enough of it."""
    k = int(one.shown[int(rng.integers(len(one.shown)))])
    where = np.argwhere(one.body[k])
    j, i = where[int(rng.integers(len(where)))]
    return float(k), float(j), float(i)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).abs().mean()


def finish(task: SynthesizeTask, train: Sequence[Slices], held_back: Sequence[Slices]) -> dict[str, object]:
    """What a card tells of the images that were learned from: how many CT and MR, and of how many patients both."""
    whose = {kind: {one.case_id for one in train if one.kind == kind} for kind in ("ct", "mr")}
    return {
        "ct": len(whose["ct"]),
        "mr": len(whose["mr"]),
        "both": len(whose["ct"] & whose["mr"]),
        "watched": len({one.case_id for one in held_back}),
    }
