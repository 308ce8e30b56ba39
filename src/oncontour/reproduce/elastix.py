"""elastix's B-spline registration as a row of a table, run by another Python that has it: nothing of it is imported here.

Klein et al., IEEE TMI 2010;29:196-205. Normalised correlation, B-splines of 20 mm at last, three resolutions of 250 steps, one thread.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oncontour.adapt.deformation import Deformation
from oncontour.adapt.inputs import planning_of, seen_of
from oncontour.adapt.predict import Adapted
from oncontour.adapt.simulate import DAILY, PLANNING
from oncontour.adapt.unlearned import carried
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.io.image.nifti import write_image

PYTHON = "ONCONTOUR_REGISTRATION"
"""Environment variable that names a Python with itk-elastix."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
_SCRIPT = """
import itk, numpy as np
fixed, moving = (itk.imread(name + ".mha", itk.F) for name in ("fixed", "moving"))
chosen = itk.ParameterObject.GetDefaultParameterMap("bspline", 3, 20.0)
chosen["Registration"], chosen["Metric"] = ["MultiResolutionRegistration"], ["AdvancedNormalizedCorrelation"]
chosen["MaximumNumberOfIterations"] = ["250"]
parameters = itk.ParameterObject.New()
parameters.AddParameterMap(chosen)
mask = itk.imread("mask.mha", itk.UC)
_, found = itk.elastix_registration_method(
    fixed, moving, parameter_object=parameters, fixed_mask=mask, number_of_threads=1, log_to_console=False
)
field = itk.transformix_deformation_field(moving, found)
np.savez("field.npz", u=itk.array_from_image(field), origin=field.GetOrigin(), spacing=field.GetSpacing(),
         direction=itk.array_from_matrix(field.GetDirection()))
"""
"""What the other Python runs in a folder of its own; its field holds, at each voxel x of the fixed image, T(x) - x in LPS mm."""


@dataclass(frozen=True)
class Elastix:
    """elastix, run by the interpreter ``python``; it begins where the images lie."""

    python: str

    def adapt(self, case: Case) -> Adapted:
        """Raises InputError where ``case`` has no planning visit, ConfigError where that Python runs no elastix."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_image(case.ct, folder / "fixed.mha")
            write_image(planning_of(case).ct, folder / "moving.mha")
            write_image(seen_of(case.ct).map(lambda a: a.astype(np.uint8)), folder / "mask.mha")
            self._run(folder)
            with np.load(folder / "field.npz", allow_pickle=False) as held:
                u, origin, spacing, direction = (held[name] for name in ("u", "origin", "spacing", "direction"))
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = (direction * spacing)[:, ::-1], origin
        field = Volume(np.ascontiguousarray(np.moveaxis(u, -1, 0), dtype=np.float32), Geometry(u.shape[:3], affine))
        return carried(case, Deformation(field, DAILY, PLANNING))

    def _run(self, folder: Path) -> None:
        try:
            command = [self.python, "-c", _SCRIPT]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | _ONE_THREAD)
            said = (done.stderr.strip().splitlines() or ["no word"])[-1] if done.returncode else ""
        except OSError as error:
            said = str(error)
        if said:
            raise ConfigError(f"elastix does not run ({said})", hint=f"unset {PYTHON}, or name a Python with itk-elastix")
