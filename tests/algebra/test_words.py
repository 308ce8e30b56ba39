"""The expressions that people write, and what they are told of a slip."""

import pytest

from oncontour.algebra.words import Body, Join, Line, Margin, Moved, Name, parse
from oncontour.errors import ConfigError


def of(text: str):
    return parse(f"X = {text}").expression


def test_a_line_names_what_it_makes() -> None:
    assert parse(' "PTV 60 (eval)" = CTV_60 ') == Line("PTV 60 (eval)", Name("CTV_60", 20), '"PTV 60 (eval)" = CTV_60')


def test_margins() -> None:
    assert of("A + 5mm") == Moved(Name("A", 5), Margin.uniform(5), grow=True)
    assert of("A - 0.3 cm") == Moved(Name("A", 5), Margin.uniform(3), grow=False)
    assert of("A + (5mm, 8mm superior, 3mm Posterior)") == Moved(Name("A", 5), Margin(5, 5, 5, 3, 8, 5), grow=True)
    assert of("A + (6mm left)") == Moved(Name("A", 5), Margin(6, 0, 0, 0, 0, 0), grow=True)


def test_signs_and_words_join_from_left_to_right() -> None:
    a, b = Name("A", 5), Name("B", 9)
    assert of("A - B") == Join("without", a, b)
    assert of("A & B") == Join("and", a, b)
    assert of("A + B - C") == Join("without", Join("or", a, b), Name("C", 13))
    assert of("A or (B and C)") == Join("or", a, Join("and", Name("B", 11), Name("C", 17)))
    assert of("A + 5mm - B") == Join("without", Moved(a, Margin.uniform(5), grow=True), Name("B", 15))


def test_a_ring_lies_round_and_a_crop_under_the_skin() -> None:
    a = Name("A", 10)
    wide, near = (Moved(a, Margin.uniform(mm), grow=True) for mm in (20, 5))
    assert of("ring(A, 20mm)") == Join("without", wide, a)
    assert of("ring(A, 5mm to 20mm)") == Join("without", wide, near)
    assert of("crop(A, 5mm)") == Join("and", a, Moved(Body(), Margin.uniform(5), grow=False))


@pytest.mark.parametrize(
    ("text", "what", "column", "way"),
    [
        ("X = A + 5", "5 has no unit", 9, "write 5mm"),
        ("X = A - B + 3mm", "two ways", 11, "(A - B) + 5mm, or A - (B + 5mm)"),
        ("X = A & B - C", "two ways", 11, "(A & B) - C"),
        ("X = A + 5mm left", "needs parentheses", 13, "+ (5mm left, ...)"),
        ("X = A + (5mm lefft)", "'lefft' is no direction", 14, "did you mean left?"),
        ("X = A + (5mm left, 3mm left)", "given twice", 24, "once"),
        ("X = A + (5mm left, 3mm)", "3 mm has no direction", 20, "name its direction"),
        ("X = A +", "a structure is missing", None, "name of a structure"),
        ("X A", '"=" should follow', 3, "into quotes"),
        ("X = (A", '")" is missing', None, "close"),
        ("X = A B", "'B' was not expected", 7, '"+", "-", "&"'),
        ("X = A % B", "'%' cannot be read", 7, "quotes"),
        ('X = "A', "a quote is not closed", 5, "close it"),
        ("X = rang(A, 5mm)", "'rang'", 5, "did you mean ring?"),
        ("X = ring(A, 20mm to 5mm)", "is empty", 13, "nearer distance first"),
        ("X = A + 900mm", "900 mm is more than the 200 mm", 9, "check the unit"),
        ("X = " + "(" * 50 + "A", "deep", 46, "several lines"),
    ],
)
def test_a_slip_is_told_with_its_column_and_the_way_out(text: str, what: str, column: int | None, way: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert what in caught.value.what
    assert way in caught.value.hint
    assert caught.value.what.endswith("at its end" if column is None else f"in column {column}")
