"""Names of DVH figures: what people write, and what cannot be meant."""

from __future__ import annotations

import pytest

from oncontour.dose.metric_names import parse
from oncontour.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *(("D95%", "D95%"), ("D95", "D95%"), ("d2cc", "D2cc"), ("D0.03 cc", "D0.03cc"), ("D2cm3", "D2cc"), ("D.5%", "D0.5%")),
        *(("V20Gy", "V20Gy"), ("V20", "V20Gy"), ("V2000cGy", "V20Gy"), ("V95%", "V95%"), ("V20Gy[cc]", "V20Gy[cc]")),
        *(("CV21Gy[cc]", "CV21Gy[cc]"), ("DC700cc", "DC700cc"), ("D95%[Gy]", "D95%"), ("D50%[%]", "D50%[%]")),
        *(("Dmean", "Dmean"), ("mean", "Dmean"), ("Max[Gy]", "Dmax"), ("Dmin", "Dmin"), ("Dmedian", "D50%"), ("near-max", "D2%")),
    ],
)
def test_names(name: str, shown: str) -> None:
    assert str(parse(name)) == shown
    assert parse(shown) == parse(name)


@pytest.mark.parametrize(
    "name", ["", "D", "95", "D2Gy", "V2cc", "V20Gy[Gy]", "D2cc[cc]", "D101%", "D-1%", "Dbest", "D95%%", "V20Gy[%", "D1e3cc"]
)
def test_mistakes(name: str) -> None:
    with pytest.raises(ConfigError, match="Way out: write D95%"):
        parse(name)


def test_what_needs_a_prescription() -> None:
    assert [parse(name).needs_prescription for name in ("V95%", "D50%[%]", "Max[%]", "V20Gy", "D95%", "Dmean")] == [True] * 3 + [False] * 3


def test_a_volume_that_may_be_at_gy_or_at_percent_says_which() -> None:
    """V95 of a target at 95 Gy would be 0 %, and the plan look as if it missed it."""
    for name in ("V95", "V107", "v100[cc]", "CV95"):
        with pytest.raises(ConfigError, match=r"may be .* Gy or .* % of the prescription. Way out: write V"):
            parse(name)
    assert [str(parse(name)) for name in ("V80", "V95Gy", "V95%")] == ["V80Gy", "V95Gy", "V95%"]
