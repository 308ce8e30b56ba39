"""oncontour: from planning CT to outcome, with geometry that can be trusted.

    import oncontour as oc

    case = oc.read("CT_FOLDER")       # a patient: images, contours, dose; DICOM, NIfTI or OpenKBP
    drawn = oc.contour(case)          # with the contours of a shipped model, or model="..."
    judged = oc.assess(drawn)         # with a score for every slice
    print(oc.dvh(judged))             # what the dose gives to each structure
    oc.write(judged, "OUT")           # DICOM again, or format="nifti"
    oc.run("CT_FOLDER", "OUT")        # all of it at once, with the report, as the command line does

``Case``, ``Volume`` and ``Geometry`` are the nouns: arrays are indexed (k, j, i), points are (x, y, z) in LPS millimetres.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oncontour.api import assess, contour, dvh, read, run, write
    from oncontour.core.case import Case
    from oncontour.core.geometry import Geometry
    from oncontour.core.volume import Volume

__version__ = "0.1.0"
__all__ = ["Case", "Geometry", "Volume", "assess", "contour", "dvh", "read", "run", "write"]

_PLACES = {"Case": "core.case", "Geometry": "core.geometry", "Volume": "core.volume"}
"""Where a name is that is not in ``api``."""


def __getattr__(name: str) -> object:
    """A name of ``__all__`` when it is first asked for: importing oncontour itself loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'oncontour' has no attribute {name!r}; there are {', '.join(__all__)}")
    if name == "contour":
        return import_module("oncontour.contour")
    found = getattr(import_module(f"oncontour.{_PLACES.get(name, 'api')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _ContourPackage(ModuleType):
    """The package ``oncontour.contour``, which is called as the function of ``api``."""

    def __call__(self, *args: Any, **options: Any) -> Case:
        return import_module("oncontour.api").contour(*args, **options)  # type: ignore[no-any-return]


class _Package(ModuleType):
    """This package: the name ``contour`` is both that of a function and of a package, whichever came first."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "contour" and isinstance(value, ModuleType):
            value.__class__ = _ContourPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
