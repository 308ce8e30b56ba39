"""What a model that somebody else made must say of itself to contour behind the same door as ours, and how its files are read safely.

No pickle is ever executed. A ``.pth`` or ``.pt`` of tensors is read by torch's weights-only reader, which knows tensors, containers,
numbers and text and refuses everything else; what it refuses is to be converted by whoever trusts the file (``CONVERT``).
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from oncontour import documents
from oncontour.contour.anatomy import anatomy_of
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.prediction import Segmentation
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, ModelError
from oncontour.learn.build import MAX_WINDOW
from oncontour.learn.card import Card
from oncontour.libraries import asks, memory_told, why
from oncontour.ops.tidy import Change, Tidy, tidy
from oncontour.ops.windows import Blend, Predict, stitch_labels
from oncontour.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
CONVERT = (
    "if you trust where the file comes from, keep its tensors alone, on a machine that holds no patients: "
    "python -c \"import sys, torch; d = torch.load(sys.argv[1], map_location='cpu', weights_only=False); "
    "d = d.get('network_weights', d.get('state_dict', d.get('model', d))); torch.save({'network_weights': dict(d)}, sys.argv[2])\" OLD NEW"
)
"""How a file that holds more than tensors is turned into one that does not."""

OWN_ORDER = (
    "which way the {}'s voxels ran in the patient was not said: they were given in the order of the case's image, and left and right "
    "may be swapped"
)
"""What is remarked where voxels are given as they lie, because that was asked for."""
Directions = tuple[tuple[int, int, int], ...]
_DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


@dataclass(frozen=True)
class Outside:
    """Somebody else's model in our terms.

    ``prepare`` makes the net's input (c, k, j, i) of a case, on whatever grid the net works; ``predict`` answers windows of it. ``labels``
    are the model's own names of classes 1..n (mode ``softmax``: class 0 is background) or 0..n-1 (``sigmoid``: they may overlap, each is
    drawn whole).
    """

    card: Card
    labels: tuple[str, ...]
    prepare: Callable[[Case], Volume]
    predict: Predict
    window: tuple[int, int, int]
    backend: str
    threads: int
    overlap: float = 0.5
    mode: str = "softmax"
    threshold: float = 0.5
    dims: int = 3
    context: int = 0
    pad: float | None = None
    blend: Blend = "auto"
    batch: int = 1
    notes: tuple[str, ...] = ()

    @property
    def n_classes(self) -> int:
        return len(self.labels) + (0 if self.mode.startswith("sigmoid") else 1)


@dataclass
class Foreign:
    """Somebody else's model as a contourer: ``predict(case)`` gives the case with its masks, as ours do."""

    model: Outside
    rules: Tidy = field(default_factory=Tidy)
    memory_mb: float = 1000

    @property
    def card(self) -> Card:
        """What could be found out about the model."""
        return self.model.card

    def predict(self, case: Case, progress: Progress | None = None) -> Case:
        """The case with packed masks of the model's structures on its own grid, and ``segmentation``: how they came about.

        Raises ModelError when the case lacks an image that the net needs, or the net answers in another shape than its labels say.
        """
        m = self.model
        image = m.prepare(case)
        stitched = stitch_labels(
            m.predict,
            image,
            m.n_classes,
            window=m.window,
            overlap=m.overlap,
            target=case.geometry,
            mode=m.mode,  # type: ignore[arg-type]
            threshold=m.threshold,
            blend=m.blend,
            memory_mb=self.memory_mb,
            batch=m.batch,
            dims=m.dims,
            context=m.context,
            pad=m.pad,
            shared=m.mode.startswith("sigmoid"),
            progress=None if progress is None else lambda done, total: progress(done / total),
        )
        masks, tidied = tidy(stitched.masks(m.card.structures), self.rules, anatomy_of(case.images.get("ct"), m.card.structures))
        return replace(case.with_masks(masks), segmentation=self._segmentation(image.geometry, stitched.blend, tidied))

    def _segmentation(self, grid: Geometry, blend: str, tidied: tuple[Change, ...]) -> Segmentation:
        m = self.model
        return Segmentation(
            model=m.card.name,
            sha256=m.card.sha256,
            structures=tuple(m.card.structures),
            grid=str(grid),
            backend=m.backend,
            threads=m.threads,
            blend=blend,
            mirror=None,
            tidy=asdict(self.rules),
            tidied=tuple(change.text for change in tidied),
            kind=str(m.card.settings["kind"]),
            original_names=dict(zip(m.card.structures, m.labels, strict=True)),
            notes=(*m.notes, *(change.text for change in tidied if change.warns)),
        )


# ---- what all kinds need


def card_of(name: str, kind: str, labels: Sequence[str], spacing_mm: Sequence[float], weights: Sequence[Path]) -> Card:
    """A card for a model that brought none: what its files say, and that it was not tested here."""
    return Card(
        name=name,
        task="contour",
        settings={"kind": kind, "labels": list(labels)},
        structures=tg263_names(labels),
        spacing_mm=[float(s) for s in spacing_mm],
        licence="not stated: ask whoever made the model",
        limits="Made by somebody else and not tested by oncontour: commission it before use.",
        sha256=sha256_of(weights),
    )


def tg263_names(labels: Sequence[str]) -> list[str]:
    """TG-263 names where one is known, else the model's own; a second label of one name keeps its own, so that all differ."""
    from oncontour.io.names import to_tg263

    out: list[str] = []
    for label in labels:
        name = to_tg263(label) or label
        out.append(name if name not in out else label if label not in out else f"{label} ({len(out) + 1})")
    return out


def sha256_of(paths: Sequence[Path]) -> str:
    """SHA-256 over the bytes of the files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file. Raises ModelError where there is none, FormatError or LimitError as ``documents.read_json`` does."""
    if not path.is_file():
        raise ModelError("a file of the model is missing", where=str(path), hint="copy the whole model folder")
    value = documents.read_json(path)
    if not isinstance(value, dict):
        raise FormatError(f"expected a JSON object, found {type(value).__name__}", where=str(path))
    return value


def said_beside(folder: Path) -> dict[str, object]:
    """What ``oncontour.json`` in a model's folder says of it; nothing where there is none."""
    path = folder / "oncontour.json"
    return read_json(path) if path.is_file() else {}


def load_tensors(path: Path) -> dict[str, object]:
    """What a ``.pth`` or ``.pt`` file holds, when that is tensors, containers, numbers and text. Raises ModelError otherwise.

    Scalars of numpy count as numbers (nnU-Net logs them): they are rebuilt from their bytes, which runs nothing. Texts of numpy do not: a
    file sets their size itself, and numpy reads beyond their bytes.
    """
    import torch

    kinds = [np.dtype(kind) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
    _check_unpacked(path)
    numbers: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        (_SCALAR, "numpy.core.multiarray.scalar"),
        (_SCALAR, "numpy._core.multiarray.scalar"),
        np.dtype,
    ]
    try:
        with torch.serialization.safe_globals(numbers + [type(kind) for kind in kinds]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on the pickle's protocol: what counts is whether it is refused
            with memory_told():
                held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    except MemoryError:
        raise
    except Exception as error:  # the reader raises many kinds; all mean that this is no file of tensors
        raise ModelError(f"this file holds more than tensors, or is damaged: {_reason(error)}", where=str(path), hint=CONVERT) from error
    if not isinstance(held, dict):
        raise ModelError(f"expected named tensors, found {type(held).__name__}", where=str(path))
    return held


def _check_unpacked(path: Path) -> None:
    """Raise ModelError for an archive of tensors that are packed: torch never packs them, and a small file could fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = sum(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist())
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return  # an older kind of file, or a damaged one: for torch's reader to say
    if packed:
        raise ModelError("the tensors in this file are packed, as torch never does", where=str(path), hint="copy the model again")


_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]


def _reason(error: BaseException) -> str:
    """What torch's reader says of the thing that it refuses, without its advice to switch the guard off or to write to torch."""
    refused = re.search(r"(?:Unsupported|rror:)\s*(.*?)(?: was not an allowed|\n|$)", str(error))
    return refused.group(1)[:200] if refused and refused.group(1) and not asks(refused.group(1)) else why(error)


def tensors_in(held: Mapping[str, object], path: Path) -> dict[str, Tensor]:
    """The named tensors in what ``load_tensors`` gave, under whatever of the usual keys they lie. Raises ModelError for none."""
    import torch

    for key in ("network_weights", "state_dict", "model", "network", "model_state_dict"):
        if isinstance(inner := held.get(key), Mapping):
            held = inner
            break
    found = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}
    if not held or len(found) < len(held):
        raise ModelError(f"no named tensors here, only {sorted(map(str, held))[:5]}", where=str(path))
    return found


def check_window(window: Sequence[int], where: str) -> None:
    """Raise ModelError for a window that no net can see."""
    if min(window) < 1 or math.prod(window) > MAX_WINDOW:
        raise ModelError(f"a net sees windows of 1 to {MAX_WINDOW} voxels, not {list(window)}", where=where)


def sized(make: Callable[[], T], weights: Mapping[str, Tensor]) -> T:
    """The net that ``make`` builds by what somebody's files say, never larger than its ``weights``. Raises ModelError where it would be."""
    from oncontour.nets.bounded import at_most

    with memory_told(), at_most({name: tuple(value.shape) for name, value in weights.items()}):
        return make()


def fit(net: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Put ``weights`` into ``net``, strictly. Raises ModelError naming what does not fit."""
    try:
        net.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in weights.items()})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise ModelError(f"the weights do not fit the net that the model describes: {' '.join(lines)[:300]}", where=str(path)) from error


def axes_of(letters: object, where: str) -> Directions:
    """Three letters of R, L, A, P, S, I as directions (rows, LPS): where each array axis runs to. Raises ModelError for others."""
    text = letters.upper() if isinstance(letters, str) else ""
    if len(text) != 3 or any(c not in _DIRECTIONS for c in text) or len({"RLAPSI".index(c) // 2 for c in text}) != 3:
        raise ModelError(f"axes are three letters, one each of R/L, A/P, S/I, not {letters!r}", where=where)
    return tuple(_DIRECTIONS[c] for c in text)


def permuted(grid: Geometry, order: Sequence[int]) -> Geometry:
    """The same voxels with the grid's axes in another order; moving a volume there copies them."""
    affine = grid.affine.copy()
    affine[:, :3] = grid.affine[:, list(order)]
    k, j, i = (grid.shape[axis] for axis in order)
    return Geometry((k, j, i), affine)


def image_of(case: Case, name: str) -> Volume:
    """The case's image ``name`` (ct, mr, ...) on the case's grid. Raises ModelError where it has none."""
    if name not in case.images:
        raise ModelError(f"the model needs an image {name!r}, the case has {sorted(case.images)}", where=f"case {case.id}")
    volume = case.images[name]
    return volume.map(lambda a: a.astype(np.float32)).to(case.geometry, fill=float(volume.array.min()))
