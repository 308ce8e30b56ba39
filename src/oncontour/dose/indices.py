"""How even a dose is in its target and how closely it follows it.

``Conformity`` is measured once from the DVH of the target and the volume that the isodose encloses, and read many times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from oncontour.core.contours import Contours
from oncontour.core.volume import Volume
from oncontour.dose.cells import check
from oncontour.dose.dvh import DVH, dvh
from oncontour.errors import ConfigError


def homogeneity(target: DVH) -> float:
    """(D2% - D98%) / D50%: 0 is even (ICRU Report 83, 2010, eq. 3.5 in 3.7.1). NaN without dose."""
    middle = target.dose_to_percent(50)
    return (target.dose_to_percent(2) - target.dose_to_percent(98)) / middle if middle else np.nan


@dataclass(frozen=True)
class Conformity:
    """``target_cc`` the target, ``isodose_cc`` all that receives ``isodose_gy``, ``both_cc`` what of the target does, ``half_cc`` all that
    receives half of it."""

    isodose_gy: float
    target_cc: float
    isodose_cc: float
    both_cc: float
    half_cc: float

    @property
    def rtog(self) -> float:
        """Isodose volume over target volume: 1 to 2 is per protocol, and it says nothing of where (Shaw et al. 1993)."""
        return _ratio(self.isodose_cc, self.target_cc)

    @property
    def paddick(self) -> float:
        """both^2 / (target * isodose): 1 is perfect (Paddick, J Neurosurg 2000;93 Suppl 3:219). 0 where the isodose misses the target."""
        return _ratio(self.both_cc**2, self.target_cc * self.isodose_cc) if self.isodose_cc else 0.0

    @property
    def coverage(self) -> float:
        """Part of the target that receives the isodose."""
        return _ratio(self.both_cc, self.target_cc)

    @property
    def gradient(self) -> float:
        """Volume of half the isodose over that of the isodose: small is steep (Paddick and Lippitz, J Neurosurg 2006;105 Suppl:194)."""
        return _ratio(self.half_cc, self.isodose_cc)


def conformity(dose: Volume, target: DVH, isodose_gy: float, within: Contours | Volume | None = None) -> Conformity:
    """How the isodose of ``isodose_gy`` lies on ``target``, a structure of this dose.

    The isodose is counted in the whole dose grid, or ``within`` a structure; with several targets it holds them all, and an index of one of
    them alone says little. Raises ConfigError for an isodose that is not positive, DoseError for a dose that is not finite or negative.
    """
    _positive(isodose_gy)
    both = target.cc_above(isodose_gy)
    if within is None:
        volumes = [isodose_cc(dose, gy) for gy in (isodose_gy, isodose_gy / 2)]
    else:
        body = dvh(dose, within)
        volumes = [body.cc_above(gy) for gy in (isodose_gy, isodose_gy / 2)]
    return Conformity(isodose_gy, target.volume_cc, volumes[0], both, volumes[1])


def isodose_cc(dose: Volume, gy: float) -> float:
    """cc of the dose grid that receive at least ``gy``, by the interpolated dose. Raises DoseError as ``conformity``."""
    check(dose.array)
    above = dose.array >= gy
    if not above.any():
        return 0.0
    reached = ndimage.binary_dilation(above, np.ones((3, 3, 3), bool))
    surely = ndimage.binary_erosion(above, np.ones((3, 3, 3), bool), border_value=1)
    shell = dvh(dose, Volume(reached & ~surely, dose.geometry), cells_wanted=2**16)
    return float(np.nan_to_num(shell.cc_above(gy))) + float(np.count_nonzero(surely)) * dose.geometry.voxel_mm3 / 1000


def _positive(gy: float) -> float:
    if not 0 < gy < np.inf:
        raise ConfigError(f"a dose to compare with is positive, not {gy} Gy")
    return gy


def _ratio(one: float, other: float) -> float:
    return one / other if other else np.nan
