"""The card of a model: what it is, read from the header of its .safetensors file without torch.

A model is one safetensors file. Its header holds the card as JSON under ``__metadata__["card"]``, and two hashes stand in the card:
``sha256`` of the tensor bytes, by which other cards and records know the weights, and ``file_sha256`` of the card, the table of tensors
and the tensor bytes. A file that was changed anywhere or cut short is refused. Files that were made before there was a ``file_sha256``
are read, and say so (``NOT_COVERED``). A hash finds damage and careless edits; it is no signature, and says nothing of who made a file.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from oncontour.documents import once
from oncontour.errors import ModelError, did_you_mean

_MAX_HEADER = 8 * 1024 * 1024
_DEEPEST = 32
"""Levels of lists and objects in a header."""
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8}
"""Number formats of tensors, and what a number takes."""
WEIGHTS = Path(__file__).parents[1] / "weights"
"""Folder of the shipped models."""
OTHERS = ("opinion", "made_by")
"""Settings that name another model: the reference model of a quality model, what makes an image that a contour model sees."""
NOT_COVERED = (
    "No hash covers the card of this model, whose file was made by an earlier version: it cannot be told whether anybody changed what it "
    "says of itself."
)
_MADE_BY = "use the version of oncontour that wrote it, or train the model again"


@dataclass(frozen=True)
class Card:
    """What a person and the program must know of a model before using it.

    ``task`` names a row of TASKS; ``settings`` rebuild the net; ``structures`` are its outputs (TG-263), ``spacing_mm`` (k, j, i) its
    grid; ``data`` and ``licence`` say what it learned from; ``metrics`` where and how well it was tested; ``limits`` what it is not for;
    ``made`` holds date, versions and settings of the training; ``sha256`` is the hash of the weights, ``file_sha256`` that of card and
    weights (empty: nothing covers the card).
    """

    name: str
    task: str
    settings: dict[str, Any]
    structures: list[str] = field(default_factory=list)
    spacing_mm: list[float] = field(default_factory=list)
    region: str = ""
    data: str = ""
    licence: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    limits: str = ""
    made: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    file_sha256: str = ""

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, sort_keys=False)


Shapes = Mapping[str, tuple[int, ...]]
"""Name -> shape of the tensors in a file."""


@dataclass(frozen=True)
class _Header:
    """The header of a safetensors file: its entries, and where the tensor bytes begin."""

    entries: dict[str, object]
    offset: int

    @property
    def tensors(self) -> dict[str, object]:
        return {name: entry for name, entry in self.entries.items() if name != "__metadata__"}


def shipped() -> dict[str, Path]:
    """Name -> file of every model that comes with the package."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


def offered(task: str = "") -> list[str]:
    """Names of the shipped models for ``task``, a row of TASKS; of all by default."""
    return sorted(name for name, path in shipped().items() if not task or _task_of(path) == task)


def _task_of(path: Path) -> str:
    """The task of a model file, "" where it cannot be read."""
    try:
        return read_card(path).task
    except ModelError:
        return ""


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file; a name that no file can have (too long, say) is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _exists(path: Path) -> bool:
    """Whether anything is at ``path``, as ``is_file``."""
    try:
        return path.exists()
    except OSError:
        return False


def is_ours(model: str | Path) -> bool:
    """Whether a model's file is called as one of ours is; anything else is somebody else's (``contour/external/load.py``)."""
    return Path(model).suffix == ".safetensors"


def find(model: str | Path, task: str = "") -> Path:
    """The file or folder of a model given by path, or by the name of a shipped or an added one. Raises ModelError when there is none,
    naming those that there are for ``task``."""
    path, name = Path(model), str(model)
    # A folder of the name (of contours that the model drew, say) hides no model that has a name; a file does.
    if is_file(path) or name in shipped():
        return path if is_file(path) else shipped()[name]
    from oncontour.learn.added import added  # what a run without such a model need not load

    if name in added() or _exists(path):
        return added().get(name, path)
    names = offered(task) + (sorted(added()) if task in ("", "contour") else [])
    way = "give the path of a model file" + (f", or the name of one that there is: {', '.join(names)}" if names else "")
    raise ModelError(f"no model {_shown(str(model))}", hint=did_you_mean(str(model), names) + way)


# ---- reading


def read_card(path: Path | str) -> Card:
    """The card in a model file, its values checked for kind and range, its hashes not. Raises ModelError when the file is no model."""
    return _card_in(_header(Path(path)), str(path))


def shapes(path: Path | str) -> Shapes:
    """The shapes of the tensors in a safetensors file. Raises ModelError where its table of tensors contradicts itself or the file."""
    header = _header(Path(path))
    return _shapes(header.tensors, Path(path).stat().st_size - header.offset, str(path))


def checked_card(path: Path | str) -> Card:
    """The card, after file and card were found to have the hashes it states. Raises ModelError when they do not."""
    path = Path(path)
    header = _header(path)
    card, found = _card_in(header, str(path)), _digest(path, header.offset)
    if card.sha256 != found:
        raise ModelError(
            f"the weights hash to {found[:16]}..., the card says {card.sha256[:16] or 'nothing'}...",
            where=str(path),
            hint="copy the file again",
        )
    whole = _seal(card, header.tensors)
    if card.file_sha256 and card.file_sha256 != whole:
        raise ModelError(
            f"the model's card was changed: it hashes to {whole[:16]}... with the weights, and says {card.file_sha256[:16]}...",
            where=str(path),
            hint="get the file again from whoever made it",
        )
    return card


def notes(card: Card) -> list[str]:
    """What is to be known wherever a model is used: that no hash covers its card, and that it is for a region which no CT is checked for.

    Of hashes nothing is said of a model that was never saved, and of somebody else's, whose card is made when its files are read
    (``contour/external/base.py``).
    """
    from oncontour.ops.body import unknown_region

    uncovered = card.sha256 and not card.file_sha256 and "kind" not in card.settings
    unchecked = unknown_region(card.region)
    return [*([NOT_COVERED] if uncovered else []), *([unchecked] if unchecked else [])]


def of_task(path: Path | str, task: str, what: str) -> Card:
    """The card of a model for ``task``, a row of TASKS, or for one from outside. Raises ModelError for a model of another row; ``what`` is
    said of the one that was wanted."""
    from oncontour.learn import TASKS

    card = read_card(path)
    if card.task != task and card.task in TASKS:
        raise ModelError(f"this model does {card.task!r}, not {what}", where=str(path))
    return card


# ---- writing


def with_card(data: bytes, card: Card) -> tuple[Card, bytes]:
    """(``card`` with its two hashes, the safetensors file ``data`` with that card in its header); every tensor byte stays as it is."""
    header = _parsed(data[8 : 8 + _length(data[:8], "")], "")
    card = replace(card, sha256=hashlib.sha256(data[header.offset :]).hexdigest(), file_sha256="")
    card = replace(card, file_sha256=_seal(card, header.tensors))
    others = header.entries.get("__metadata__")
    entries = {"__metadata__": {**(others if isinstance(others, dict) else {}), "card": card.as_json()}, **header.tensors}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return card, struct.pack("<Q", len(text)) + text + data[header.offset :]


def _seal(card: Card, tensors: Mapping[str, object]) -> str:
    """SHA-256 over the table of tensors and the card without this hash; that of the tensor bytes stands in the card."""
    told = json.loads(card.as_json())  # as it is read back: lists for tuples, text for numbers that name something
    del told["file_sha256"]
    text = json.dumps({"card": told, "tensors": tensors}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# ---- the header


def _header(path: Path) -> _Header:
    try:
        with path.open("rb") as file:
            length = _length(file.read(8), str(path))
            return _parsed(file.read(length), str(path))
    except OSError as error:
        raise ModelError(f"cannot read the model ({error.strerror})", where=str(path)) from error


def _length(first: bytes, where: str) -> int:
    """Bytes of the header, by the first eight of the file."""
    length = int.from_bytes(first, "little") if len(first) == 8 else _MAX_HEADER + 1
    if length > _MAX_HEADER:
        raise ModelError("this is not a safetensors file", where=where)
    return length


def _parsed(text: bytes, where: str) -> _Header:
    entries = _json(text, "the header of the model is damaged", where, "copy the file again")
    return _Header(entries, 8 + len(text))


def _json(text: bytes | str, what: str, where: str, hint: str) -> dict[str, Any]:
    """A JSON object of a few levels and no doubled names. Raises ModelError saying ``what`` and why."""
    try:
        words = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(words, object_pairs_hook=once)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a letter (a lone surrogate) could not be written anywhere
    except RecursionError as error:
        raise ModelError(f"{what} (nested too deeply)", where=where, hint=hint) from error
    except ValueError as error:
        raise ModelError(what, where=where, hint=hint) from error
    if not isinstance(value, dict) or _is_deep(value):
        raise ModelError(f"{what} (nested too deeply)" if isinstance(value, dict) else what, where=where, hint=hint)
    return value


def _is_deep(value: object) -> bool:
    """Whether lists and objects lie within each other more than _DEEPEST levels deep."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for one in level if isinstance(one, dict | list) for inner in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return False
    return True


def _shapes(tensors: Mapping[str, object], size: int, where: str) -> dict[str, tuple[int, ...]]:
    """Shapes by name, after formats, shapes and offsets were found to fill the file's ``size`` bytes of tensors without gap or overlap."""
    out: dict[str, tuple[int, ...]] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in tensors.items():
        told = entry if isinstance(entry, dict) else {}
        shape, span, each = _counts(told.get("shape")), _counts(told.get("data_offsets")), _BYTES.get(str(told.get("dtype")))
        if each is None or shape is None or span is None or len(span) != 2 or len(shape) > 8:
            raise ModelError(f"the tensor {name!r} is described wrongly", where=where, hint="copy the file again")
        if span[1] - span[0] != math.prod(shape) * each:
            raise ModelError(
                f"the tensor {name!r} of {math.prod(shape)} numbers lies in {span[1] - span[0]} bytes",
                where=where,
                hint="copy the file again",
            )
        out[name] = shape
        spans.append((span[0], span[1]))
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise ModelError("the tensors of the model overlap, or leave gaps", where=where, hint="copy the file again")
        end = stop
    if end != size:
        raise ModelError(f"the model's tensors take {end} bytes, the file has {size} for them", where=where, hint="copy the file again")
    return out


def _counts(value: object) -> tuple[int, ...] | None:
    """A list of whole numbers from 0; None for anything else."""
    return tuple(value) if isinstance(value, list) and all(type(n) is int and 0 <= n < 2**48 for n in value) else None


def _digest(path: Path, offset: int) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"cannot read the model ({error.strerror})", where=str(path)) from error
    return digest.hexdigest()


# ---- the card's values


def _card_in(header: _Header, where: str) -> Card:
    metadata = header.entries.get("__metadata__")
    text = metadata.get("card") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ModelError("a safetensors file without an oncontour card", where=where, hint="train with `oncontour train`")
    values = _json(text, "the model's card cannot be read", where, _MADE_BY)
    known = [one.name for one in fields(Card)]
    strange = [name for name in values if name not in known]
    missing = [name for name in ("name", "task", "settings") if name not in values]
    if strange or missing:
        told = [f"{word} {', '.join(map(repr, names))}" for word, names in (("it holds", strange), ("it lacks", missing)) if names]
        raise ModelError(f"the model's card cannot be read ({'; '.join(told)[:200]})", where=where, hint=_MADE_BY)
    for place, fits, wanted in _RULES:
        for value in _at(values, place.split(".")):
            if not fits(value):
                refuse(f"{place} is {wanted}", value, where)
    return Card(**values)


def refuse(rule: str, value: object, where: str) -> NoReturn:
    """Raise ModelError for a ``value`` in a card that breaks ``rule``."""
    raise ModelError(
        f"the model's card is wrong: {rule}, not {_shown(value)}",
        where=where,
        hint="get the file again from whoever made it",
    )


def _shown(value: object) -> str:
    """A value as a message shows it, cut where it is long."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:80] + "..."


def _at(values: object, names: list[str]) -> Iterable[object]:
    """The value at a place in the card, if it is there; ``*`` is every entry. Who stands on the way is another rule's to judge."""
    if not names:
        return [values]
    if not isinstance(values, dict):
        return []
    here = list(values.values()) if names[0] == "*" else [values[names[0]]] if names[0] in values else []
    return [found for one in here for found in _at(one, names[1:])]


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_name, value)) and len(set(value)) == len(value)


def _is_spacing(value: object) -> bool:
    return value == [] or (isinstance(value, list) and len(value) == 3 and all(is_number(mm) and 0.01 <= mm <= 100 for mm in value))


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and (not value or (len(value) == 64 and set(value) <= set("0123456789abcdef")))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


_Rule = tuple[str, Callable[[object], bool], str]


def _calibration_rules(place: str) -> tuple[_Rule, ...]:
    """Rules for what a quality model's calibration at ``place`` holds."""
    return (
        *((one, _is_object, "values by name") for one in (place, f"{place}.offsets", f"{place}.gate")),
        (f"{place}.coverage", lambda value: is_number(value) and 0 < value < 1, "a part of one"),
        *((f"{place}.{one}", is_number, "a number") for one in ("offsets.*", "area", "outline")),
        *((f"{place}.{one}", _is_count, "a whole number from 0") for one in ("patients", "slices")),
        *((f"{place}.{one}", _is_text, "text") for one in ("method", "data", "gate.*")),
    )


_RULES: tuple[_Rule, ...] = (
    ("name", _is_name, "a name"),
    ("task", _is_name, "the name of a task"),
    ("settings", _is_object, "settings by name"),
    *((f"settings.{one}", lambda value: not isinstance(value, str) or len(value) <= 1000, "the name of a model") for one in OTHERS),
    ("structures", _are_names, "a list of different names"),
    ("spacing_mm", _is_spacing, "three spacings from 0.01 to 100 mm"),
    *((one, _is_text, "text") for one in ("region", "data", "licence", "limits")),
    *((one, _is_object, "values by name") for one in ("metrics", "made")),
    *((one, _is_hash, "64 digits, 0 to f") for one in ("sha256", "file_sha256", "made.opinion.sha256", "made.made_by.sha256")),
    *((f"made.{one}", _are_names, "a list of different names") for one in ("trained_on", "held_back_patients", "not_learned")),
    *((f"made.{one}", _is_object, "values by name") for one in ("calibration", "calibration.inputs", "opinion", "made_by", "training")),
    *_calibration_rules("made.calibration"),
    *_calibration_rules("made.calibration.inputs.*"),
    ("made.calibration.inputs.*.inputs", lambda value: False, "no part of a calibration for one set of inputs"),
    *((f"made.{one}.model", _is_name, "a name") for one in OTHERS),
    *((f"made.{one}", _is_object, "values by name") for one in ("chosen", "chosen.*")),
    ("made.chosen.*.way", lambda value: value in ("propagated", "direct", "score"), "propagated, direct or score"),
    *((f"made.chosen.*.{one}", is_number, "a number") for one in ("propagated", "direct", "visits")),
    ("made.simulated_outcomes", lambda value: isinstance(value, bool), "true or false"),
    *((f"made.{one}", _is_object, "values by name") for one in ("risk", "risk.toxicities", "risk.toxicities.*")),
    ("made.risk.toxicities.*.recalibration", _is_object, "values by name"),
    ("made.risk.toxicities.*.recalibration.*", is_number, "a number"),
    *(
        (f"made.risk.toxicities.*.{one}", lambda value: value is None or (is_number(value) and 0 <= value <= 1), "a part of one, or null")
        for one in ("threshold", "prevalence")
    ),
)
"""(place in the card, whether its value can be used, what it should be); what is not there is not asked for."""


def card_words(card: Card) -> dict[str, object]:
    """Of a model's card what a record keeps, and ``notes``: what is to be known of the file."""
    kept = ("name", "task", "structures", "spacing_mm", "region", "data", "licence", "metrics", "limits", "sha256", "file_sha256")
    return {key: getattr(card, key) for key in kept} | {"notes": notes(card)}
