"""What tidying may know of a model's structures: their TG-263 names, and in how many pieces each comes where the CT shows it."""

from __future__ import annotations

from collections.abc import Iterable

from oncontour.core.volume import Volume
from oncontour.io.names import to_tg263
from oncontour.ops.pieces import pieces_shown
from oncontour.ops.tidy import Anatomy


def anatomy_of(ct: Volume | None, structures: Iterable[str]) -> Anatomy:
    """For ``tidy``: whatever a model calls its structures ("Spinal_Cord"), and on whatever part of the body; without a CT nothing is known
    of pieces."""
    names = {name: found for name in structures if (found := to_tg263(name))}
    return Anatomy({} if ct is None else pieces_shown(ct), names)
