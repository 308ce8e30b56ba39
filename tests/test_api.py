"""What ``import oncontour`` offers: as the commands do, with cases in and out; short words for what is large."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from docs import write_api

import oncontour as oc
from oncontour.core import view
from oncontour.errors import ConfigError, InputError
from oncontour.phantom import head_neck
from tests.phantoms import SMALL_GRID

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def case() -> oc.Case:
    return head_neck(0, *SMALL_GRID)


def test_importing_loads_nothing_and_names_are_there_when_asked_for() -> None:
    code = (
        "import sys, oncontour; print([m for m in sys.modules if m.startswith('oncontour.') or m == 'numpy']); "
        "import oncontour.contour.predict; print(callable(oncontour.contour), oncontour.contour.predict.__name__); "
        "print([getattr(oncontour, name).__name__ for name in oncontour.__all__])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    nothing, both, names = ended.stdout.splitlines()
    assert nothing == "[]"
    assert both == "True oncontour.contour.predict"
    assert names == str(["Case", "Geometry", "Volume", "assess", "oncontour.contour", "dvh", "read", "run", "write"])


def test_help_shows_what_there_is() -> None:
    ended = subprocess.run([sys.executable, "-c", "import oncontour; help(oncontour)"], capture_output=True, text=True, check=True)
    assert {"read(", "write(", "run(", "assess(", "dvh("} <= set(re.findall(r"\b\w+\(", ended.stdout))


def test_a_patient_is_read_contoured_assessed_measured_and_written(case: oc.Case, tmp_path: Path) -> None:
    oc.write(case, tmp_path / "ct")
    read = oc.read(str(tmp_path / "ct"))
    assert set(read.structures) == set(case.structures)
    drawn = oc.contour(str(tmp_path / "ct"), model="hn-organs", structures=["Parotid_L", "Parotid_R"], any_region=True, threads=1)
    assert drawn.structures == ("Parotid_L", "Parotid_R")
    assert drawn.segmented_by is not None
    judged = oc.assess(read, threads=1)
    assert judged.assessment is not None
    assert set(judged.assessment.structures) == set(read.structures)
    again = oc.assess(oc.read(tmp_path / "ct").without_structures(), tmp_path / "ct", threads=1)
    assert again.assessment is not None
    assert set(again.assessment.structures) == set(read.structures)
    assert "Dmean" in str(oc.dvh(judged, structures=["Parotid_L"]))


def test_run_takes_words_where_the_command_takes_paths(case: oc.Case, tmp_path: Path) -> None:
    oc.write(case, tmp_path / "ct")
    done = oc.run(
        str(tmp_path / "ct"),
        str(tmp_path / "out"),
        model="hn-organs",
        truth=str(tmp_path / "ct"),
        any_region=True,
        assess=False,
        threads=1,
    )
    assert (done.out / "rtstruct.dcm").exists()


def test_what_cannot_be_is_told(case: oc.Case) -> None:
    with pytest.raises(ConfigError, match="no model draws Spleen"):
        oc.contour(case, model="hn-organs", structures=["Spleen"], any_region=True)
    with pytest.raises(InputError, match="no contours to assess"):
        oc.assess(case.without_structures())
    with pytest.raises(AttributeError, match="there are Case, Geometry"):
        oc.segment  # noqa: B018  # type: ignore[attr-defined]


def test_a_case_says_what_it_holds_in_a_line(case: oc.Case) -> None:
    assert len(repr(case)) < 400
    assert "24x40x40 voxels of 6 x 5 x 5 mm" in repr(case)
    assert "Parotid_L" in repr(case)
    assert repr(case.ct).endswith("24x40x40 voxels of 6 x 5 x 5 mm)")


def test_a_notebook_shows_the_patients_left_on_the_right(case: oc.Case) -> None:
    """A structure left of the middle lies in the right half of the axial and the coronal picture, one that is superior in the upper half
    of the coronal and sagittal one."""
    grid = case.geometry
    points = grid.points(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))
    corner = (points[..., 0] > 40) & (points[..., 2] > points[..., 2].mean() + 30)
    marked = oc.Case("marked", {"ct": case.ct}, {"Corner": oc.Volume(corner, grid)})
    middle = points[corner].mean(axis=0)
    red = {"Corner": (255, 0, 0)}
    for plane, right, upper in (("axial", True, None), ("coronal", True, True), ("sagittal", None, True)):
        rgb = view.picture(marked, plane, middle, red)
        rows, columns = np.nonzero((rgb == (255, 0, 0)).all(axis=-1))
        assert len(rows)
        if right is not None:
            assert (columns.mean() > rgb.shape[1] / 2) is np.bool_(right)
        if upper is not None:
            assert (rows.mean() < rgb.shape[0] / 2) is np.bool_(upper)


def test_the_html_of_a_case_has_three_pictures_and_escapes_names(case: oc.Case) -> None:
    odd = oc.Case("<b>", {"ct": case.ct}, {"A<B": oc.Volume(case.ct.array > 100, case.geometry)})
    text = odd._repr_html_()
    assert text.count("<img") == 3
    assert "&lt;b&gt;" in text
    assert "A&lt;B" in text
    assert oc.Case("empty", {"ct": case.ct})._repr_html_().count("<img") == 3


def test_the_page_of_the_api_is_what_the_code_says() -> None:
    """``python docs/write_api.py`` brings it up to date."""
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == write_api.page()
