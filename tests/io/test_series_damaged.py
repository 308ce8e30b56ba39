"""Damaged files: one clear error that names the file, never another exception."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oncontour.errors import FormatError, InputError, OncontourError
from oncontour.io.dicom.scan import scan
from oncontour.io.dicom.series import read_series
from tests.dicom_cases import make_series


@pytest.mark.parametrize("keep", [0.999, 0.9, 0.5, 0.25])
@pytest.mark.parametrize("syntax", [None, "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"])
def test_a_file_cut_short_is_named(tmp_path: Path, keep: float, syntax: str | None) -> None:
    written = make_series(tmp_path, syntax=syntax)
    path = written.paths[4]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(FormatError, match=path.name):
        read_series(tmp_path)


@pytest.mark.parametrize("size", [132, 140, 200, 340, 500, 800, 1000, 1200])
def test_a_file_cut_within_its_header_never_passes_silently(tmp_path: Path, size: int) -> None:
    written = make_series(tmp_path)
    for path in (written.paths[4], written.paths[0]):
        content = path.read_bytes()
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=path.name):
            read_series(tmp_path)
        path.write_bytes(content)


def test_pixel_data_longer_than_the_matrix_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path, change=lambda d, n: setattr(d, "Rows", 16))
    with pytest.raises(FormatError, match="sizes do not fit"):
        read_series(tmp_path)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, bytes]]:
    """Series of two slices in several syntaxes: (folder, second file, its bytes)."""
    out = {}
    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"):
        folder = tmp_path_factory.mktemp("two")
        written = make_series(folder, rows=8, columns=8, offsets=[0, 2], syntax=syntax)
        out[syntax] = (folder, written.paths[1], written.paths[1].read_bytes())
    return out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_gives_a_volume_or_an_error_of_ours(two: dict[str, tuple[Path, Path, bytes]], data: st.DataObject) -> None:
    folder, path, content = two[data.draw(st.sampled_from(sorted(two)))]
    damaged = bytearray(content)
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=8)):
        damaged[at] = value
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    path.write_bytes(damaged)
    with suppress(OncontourError):
        scan(folder)
    with suppress(OncontourError):
        assert np.isfinite(read_series(folder)[0].array).all()
