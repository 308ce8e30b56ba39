"""Where something is missing a test is skipped at home and fails in the CI."""

from __future__ import annotations

import pytest

from tests.needs import lacking


def test_missing_data_fail_in_the_ci_and_are_told_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="the CI must have this: no real patients"):
        lacking("no real patients")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no real patients"):
        lacking("no real patients")
