"""What the fuzzers once found, each as a small test of its own. (NRRD and MetaImage: ``tests/io/test_textheader.py``.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from oncontour.errors import CohortError
from oncontour.io.cohort import Cohort


def test_a_cohort_path_longer_than_the_system_takes(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text(f"patient,path\na,{'1' * 5000}\n")
    with pytest.raises(CohortError, match="no such file or folder: 1111"):
        Cohort.open(tmp_path / "cohort.csv")
