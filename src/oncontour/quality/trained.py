"""A trained quality model as whoever scores needs it: a task with torch, or an exported net with the detector of its file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from oncontour.errors import ModelError
from oncontour.learn.exported import Exported
from oncontour.learn.predictor import Trained
from oncontour.libraries import why
from oncontour.quality.inputs import AssessSettings
from oncontour.quality.out_of_distribution import Detector


class Scoring(Trained[AssessSettings], Protocol):
    """A trained quality model."""

    @property
    def detector(self) -> Detector:
        """Has the net seen anything like it?"""


@dataclass
class ExportedScoring(Exported[AssessSettings]):
    """A quality model whose net runs from its ONNX file; the detector is read from the model file."""

    @cached_property
    def detector(self) -> Detector:
        names = [f"gate.{name}" for name in ("centre", "root", "limit")]
        try:
            with safe_open(self.file, framework="numpy") as held:
                centre, root, limit = (held.get_tensor(name).astype(np.float32) for name in names)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"the model holds no detector ({why(error)})", where=str(self.file)) from error
        count, width = len(self.settings.structures), centre.shape[-1]
        fits = (centre.shape, root.shape, limit.shape) == ((count, width), (count, width, width), (count,))
        if not fits or not all(np.isfinite(one).all() for one in (centre, root, limit)):
            raise ModelError(f"the model's detector is not that of {count} structures", where=str(self.file), hint="train the model again")
        return Detector(centre, root, limit)
