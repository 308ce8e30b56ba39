"""What a trained net must beat: leaving the planning contours where they are, and registering the pair of visits by itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from oncontour.adapt.deformation import Deformation, coarsely
from oncontour.adapt.inputs import planning_of, visit_of
from oncontour.adapt.levels import Settings
from oncontour.adapt.predict import Adapted
from oncontour.adapt.register import register
from oncontour.adapt.simulate import DAILY, PLANNING
from oncontour.adapt.start import find_start
from oncontour.core.case import Case


@dataclass(frozen=True)
class Nothing:
    """The planning contours where the set-up leaves them: as they lie on a simulated visit, whose rigid part was taken out when it was
    made; after rigid registration on a real one."""

    settings: Settings = field(default_factory=Settings)
    """how it registers rigidly"""

    def adapt(self, case: Case) -> Adapted:
        """Raises InputError where ``case`` has no planning visit."""
        planning = planning_of(case)
        matrix = np.eye(4)
        if not isinstance(case.facts.get("deformation"), Deformation):
            fixed, moving = visit_of(case, DAILY), visit_of(planning, PLANNING)
            matrix = find_start(fixed, moving, fixed.image.geometry, self.settings).matrix
        return carried(case, Deformation.from_matrix(matrix, coarsely(case.geometry), DAILY, PLANNING))


@dataclass(frozen=True)
class Optimised:
    """Registration of this very pair, without training: instance optimisation from a rigid start (``adapt.register``)."""

    settings: Settings = field(default_factory=Settings)

    def adapt(self, case: Case) -> Adapted:
        """Raises InputError where ``case`` has no planning visit, and what ``register`` raises of images."""
        found = register(visit_of(case, DAILY), visit_of(planning_of(case), PLANNING), self.settings)
        return carried(case, found.deformation)


def carried(case: Case, deformation: Deformation) -> Adapted:
    """The planning structures of ``case`` carried to it by ``deformation``, and nothing else. Raises InputError without planning visit."""
    planning = planning_of(case)
    masks = deformation.warp_masks({name: planning.mask(name) for name in planning.structures}, case.geometry)
    return Adapted(masks, {}, deformation, None, None)
