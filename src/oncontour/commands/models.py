"""``oncontour models list``: the models that are there, and what each draws or judges."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelRow:
    """One model that is there: its task, the part of the body and the structures that it is for, size of its file, licence of what it
    learned from."""

    name: str
    task: str
    region: str
    structures: tuple[str, ...]
    size_mb: float
    licence: str

    def __str__(self) -> str:
        named = ", ".join(self.structures)
        about = [f"{self.task}, {self.region}" if self.region else self.task, f"{self.size_mb:.1f} MB"]
        lines = [
            f"{self.name}: {', '.join(about)}",
            f"  structures: {named}" if named else "",
            f"  licence: {self.licence}" if self.licence else "",
        ]
        return "\n".join(line for line in lines if line)


@dataclass(frozen=True)
class Models:
    """Every model that is there."""

    rows: tuple[ModelRow, ...]
    as_json: bool = False

    def __str__(self) -> str:
        if self.as_json:
            return json.dumps([asdict(row) for row in self.rows], indent=1, ensure_ascii=False)
        return "\n".join([*map(str, self.rows), "oncontour info NAME tells how each was tested, and what it is not for"])


def models(*, json: bool = False) -> Models:
    """List the models that come with oncontour and those that were added: task, part of the body, structures, size and licence.

    Examples:
        oncontour models list
        oncontour models list --json

    Args:
        json: for programs
    """
    from oncontour.learn.added import added
    from oncontour.learn.card import shipped

    ours, others = shipped(), added()
    return Models((*(_row(name, path) for name, path in ours.items()), *(_row_of_added(name, path) for name, path in others.items())), json)


def _row(name: str, path: Path) -> ModelRow:
    from oncontour.learn.card import read_card

    card = read_card(path)
    return ModelRow(name, card.task, card.region, tuple(card.structures), path.stat().st_size / 1e6, card.licence)


def _row_of_added(name: str, folder: Path) -> ModelRow:
    """A model that was added; where its folder is damaged its row says so."""
    from oncontour.contour.external.load import described
    from oncontour.errors import OncontourError

    size_mb = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    try:
        card = described(folder)
    except OncontourError as error:
        return ModelRow(name, f"added, and cannot be used ({error.what})", "", (), size_mb, "")
    return ModelRow(name, f"{card.task}, added", card.region, tuple(card.structures), size_mb, card.licence)
