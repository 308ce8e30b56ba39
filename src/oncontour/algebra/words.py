"""What people write of a structure to be made: ``PTV_60 = CTV_60 + 5mm``; read by hand, nothing is evaluated.

    line        name "=" expression
    expression  part { ("+" or "or", "-" or "without", "&" or "and") part }       left to right
    part        name | "(" expression ")" | ring(expression, 10mm) | ring(expression, 5mm to 20mm) | crop(expression, 5mm)
                each followed by any number of margins: "+ 5mm", "- 3mm", "+ (5mm, 8mm superior, 3mm posterior)"

What can be read two ways is refused: a margin after several structures without parentheses, and "&" beside "+" or "-".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from oncontour.errors import ConfigError, did_you_mean

DIRECTIONS = ("left", "right", "anterior", "posterior", "superior", "inferior")
LARGEST_MM = 200.0
"""A margin beyond this is a slip of the pen."""
MOST_DEEP = 40
_TOKEN = re.compile(r"""\s*(?:(?P<number>\d+(?:\.\d*)?|\.\d+)|"(?P<quoted>[^"]*)"|(?P<name>[^\W\d][\w~^.]*)|(?P<sign>[-+&|(),=]))""")
Kind = Literal["or", "without", "and"]
_UNITS = {"mm": 1.0, "cm": 10.0}
_JOINS: dict[str, Kind] = {"+": "or", "|": "or", "or": "or", "-": "without", "without": "without", "&": "and", "and": "and"}
_WORDS = frozenset({"or", "and", "without", "to", "mm", "cm"})


@dataclass(frozen=True)
class Margin:
    """Millimetres (at least 0) towards each of DIRECTIONS."""

    left: float
    right: float
    anterior: float
    posterior: float
    superior: float
    inferior: float

    @classmethod
    def uniform(cls, mm: float) -> Margin:
        return cls(mm, mm, mm, mm, mm, mm)

    @property
    def each(self) -> tuple[float, ...]:
        """The six, in the order of DIRECTIONS."""
        return self.left, self.right, self.anterior, self.posterior, self.superior, self.inferior


@dataclass(frozen=True)
class Name:
    """A structure of the patient; ``column`` where it stands in the line, from 1."""

    name: str
    column: int


@dataclass(frozen=True)
class Body:
    """The outline of the patient."""


@dataclass(frozen=True)
class Moved:
    """``of`` grown by ``margin``, or shrunk by it."""

    of: Expression
    margin: Margin
    grow: bool


@dataclass(frozen=True)
class Join:
    """``left`` or ``right``, both, or the first without the second."""

    kind: Kind
    left: Expression
    right: Expression


Expression: TypeAlias = Name | Body | Moved | Join


@dataclass(frozen=True)
class Line:
    """A structure to be made, and from what; ``text`` as it was written."""

    name: str
    expression: Expression
    text: str


def names_in(expression: Expression) -> Iterator[Name]:
    """Every structure that ``expression`` asks for, in order."""
    if isinstance(expression, Name):
        yield expression
    elif isinstance(expression, Moved):
        yield from names_in(expression.of)
    elif isinstance(expression, Join):
        yield from names_in(expression.left)
        yield from names_in(expression.right)


def with_names(expression: Expression, called: Mapping[str, str | None]) -> Expression:
    """``expression`` with each structure by the name that ``called`` has for it."""
    if isinstance(expression, Name):
        return replace(expression, name=called[expression.name] or expression.name)
    if isinstance(expression, Moved):
        return replace(expression, of=with_names(expression.of, called))
    if isinstance(expression, Join):
        return replace(expression, left=with_names(expression.left, called), right=with_names(expression.right, called))
    return expression


def parse(text: str) -> Line:
    """The structure that a line describes. Raises ConfigError with the column of what cannot be read, and what to write instead.

    >>> parse("PTV_60 = CTV_60 + 5mm").expression
    Moved(of=Name(name='CTV_60', column=10), margin=Margin(left=5.0, right=5.0, anterior=5.0, posterior=5.0, superior=5.0, \
inferior=5.0), grow=True)
    """
    reader = _Reader(text)
    first = reader.take()
    if first.kind not in ("name", "quoted") or not first.text.strip():
        raise reader.error(first, "a line begins with the name of the new structure", "write it as in: PTV_60 = CTV_60 + 5mm")
    equals = reader.take()
    if equals.text != "=" or equals.kind != "sign":
        way = f'put a name with spaces or signs into quotes, and "=" after it: "{first.text}" = CTV_60 + 5mm'
        raise reader.error(equals, f'"=" should follow the name {first.text!r}', way)
    expression = reader.expression(0)
    rest = reader.peek()
    if rest.kind != "end":
        raise reader.error(rest, f"{rest.text!r} was not expected here", 'between two structures stands one of "+", "-", "&"')
    return Line(first.text.strip(), expression, text.strip())


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


class _Reader:
    """The words of one line, taken one after the other."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.at = text, list(_tokens(text)), 0

    def error(self, token: _Token, what: str, hint: str) -> ConfigError:
        where = "at its end" if token.kind == "end" else f"in column {token.column}"
        return ConfigError(f"{what}, {where}", where=self.text.strip(), hint=hint)

    def peek(self, ahead: int = 0) -> _Token:
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def take(self) -> _Token:
        token = self.peek()
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def expect(self, sign: str, hint: str) -> None:
        token = self.take()
        if token.kind != "sign" or token.text != sign:
            raise self.error(token, f'"{sign}" is missing', hint)

    # ---- the grammar

    def expression(self, depth: int) -> Expression:
        if depth > MOST_DEEP:
            raise self.error(self.peek(), f"parentheses within each other more than {MOST_DEEP} deep", "make it in several lines")
        made, kinds = self._part(depth), set[str]()
        while (kind := _join_of(self.peek())) is not None:
            sign = self.take()
            if self._margin_follows():  # a length after "&", "or", ...
                raise self.error(self.peek(), "a structure should stand here, not a length", "a margin follows + or -, as in A + 5mm")
            kinds.add("and" if kind == "and" else "other")
            if len(kinds) > 1:
                what = f'"{sign.text}" beside another sign can be read two ways'
                raise self.error(sign, what, "put parentheses round what belongs together: (A & B) - C, or A & (B - C)")
            made = Join(kind, made, self._single(depth))
            if self.peek().text in ("+", "-") and self._margin_follows(1):
                raise self.error(self.peek(), *_whose_margin(self.peek().text))
        return made

    def _part(self, depth: int) -> Expression:
        made = self._single(depth)
        while self.peek().kind == "sign" and self.peek().text in "+-" and self._margin_follows(1):
            grow = self.take().text == "+"
            made = Moved(made, self._margin(), grow)
        return made

    def _single(self, depth: int) -> Expression:
        token = self.take()
        if token.kind == "sign" and token.text == "(":
            made = self.expression(depth + 1)
            self.expect(")", "close the parenthesis")
            return made
        if token.kind == "name" and self.peek().text == "(" and self.peek().kind == "sign":
            return self._function(token, depth)
        if token.kind == "quoted" or (token.kind == "name" and token.text.lower() not in _WORDS):
            return Name(token.text.strip(), token.column)
        if token.kind == "number":
            raise self.error(token, f"a structure should stand here, not {token.text}", "write the structure first: CTV_60 + 5mm")
        what = "a structure is missing" if token.kind == "end" else f"a structure should stand here, not {token.text!r}"
        raise self.error(token, what, 'give the name of a structure; one with spaces or signs in quotes, as "PTV 60"')

    def _function(self, word: _Token, depth: int) -> Expression:
        known = ("ring", "crop")
        if word.text.lower() not in known:
            what = f"there is no {word.text!r} that takes parentheses"
            raise self.error(word, what, f"{did_you_mean(word.text, known)}there are ring(PTV_60, 5mm to 20mm) and crop(PTV_60, 5mm)")
        self.take()
        of = self.expression(depth + 1)
        self.expect(",", "write ring(PTV_60, 20mm), ring(PTV_60, 5mm to 20mm) or crop(PTV_60, 5mm)")
        begin = self.peek()
        first = self._length()
        if word.text.lower() == "crop":
            self.expect(")", "crop takes a structure and one margin: crop(PTV_60, 5mm)")
            skin: Expression = Body() if first == 0 else Moved(Body(), Margin.uniform(first), grow=False)
            return Join("and", of, skin)
        inner, outer = 0.0, first
        if self.peek().text.lower() == "to":
            self.take()
            inner, outer = first, self._length()
        self.expect(")", "a ring is ring(PTV_60, 20mm), or ring(PTV_60, 5mm to 20mm)")
        if outer <= inner:
            raise self.error(begin, f"a ring from {inner:g} mm to {outer:g} mm is empty", "give the nearer distance first, as 5mm to 20mm")
        hole = of if inner == 0 else Moved(of, Margin.uniform(inner), grow=True)
        return Join("without", Moved(of, Margin.uniform(outer), grow=True), hole)

    # ---- lengths

    def _margin_follows(self, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token.kind == "number" or (token.kind == "sign" and token.text == "(" and self.peek(ahead + 1).kind == "number")

    def _length(self) -> float:
        token = self.take()
        if token.kind != "number":
            raise self.error(
                token, "a length should stand here" + (f", not {token.text!r}" if token.text else ""), "write it as 5mm or 0.5cm"
            )
        unit = self.peek()
        if unit.kind != "name" or unit.text.lower() not in _UNITS:
            raise self.error(token, f"{token.text} has no unit", f"write {token.text}mm or {token.text}cm")
        self.take()
        mm = float(token.text) * _UNITS[unit.text.lower()]
        if mm > LARGEST_MM:
            raise self.error(token, f"{mm:g} mm is more than the {LARGEST_MM:g} mm that a margin may have", "check the unit")
        return mm

    def _margin(self) -> Margin:
        if self.peek().kind == "number":
            mm = self._length()
            self._no_bare_direction()
            return Margin.uniform(mm)
        self.take()
        all_round: float | None = None
        sides: dict[str, float] = {}
        while True:
            begin, mm = self.peek(), self._length()
            word = self.peek()
            if word.kind == "name":
                direction = self._direction(self.take())
                if direction in sides:
                    raise self.error(word, f"{direction} is given twice", "give each direction once")
                sides[direction] = mm
            elif all_round is not None or sides:
                way = "name its direction, as 8mm superior; a margin for all other directions stands first"
                raise self.error(begin, f"{mm:g} mm has no direction", way)
            else:
                all_round = mm
            if self.peek().text != "," or self.peek().kind != "sign":
                break
            self.take()
        self.expect(")", "separate the directions by commas: (5mm, 8mm superior, 3mm posterior)")
        return Margin(*(sides.get(side, all_round or 0.0) for side in DIRECTIONS))

    def _direction(self, token: _Token) -> str:
        if token.text.lower() not in DIRECTIONS:
            way = f"{did_you_mean(token.text, DIRECTIONS)}directions are {', '.join(DIRECTIONS)}"
            raise self.error(token, f"{token.text!r} is no direction", way)
        return token.text.lower()

    def _no_bare_direction(self) -> None:
        token = self.peek()
        if token.kind == "name" and token.text.lower() in DIRECTIONS:
            what = f"a margin by direction ({token.text}) needs parentheses"
            raise self.error(token, what, f"write + (5mm {token.text.lower()}, ...); a direction that is not named gets none")


def _join_of(token: _Token) -> Kind | None:
    return _JOINS.get(token.text.lower()) if token.kind in ("sign", "name") else None


def _whose_margin(sign: str) -> tuple[str, str]:
    way = f"put parentheses round it: (A - B) {sign} 5mm, or A - (B {sign} 5mm)"
    return "whether this margin is for the last structure or for all before can be read two ways", way


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if not found or found.lastgroup is None:
            column = at + len(text[at:]) - len(text[at:].lstrip()) + 1
            letter = text[column - 1]
            what = "a quote is not closed" if letter == '"' else f"{letter!r} cannot be read"
            way = 'close it with "' if letter == '"' else 'put a name that has other letters into quotes, as "PTV 60 [old]"'
            raise ConfigError(f"{what}, in column {column}", where=text.strip(), hint=way)
        group = found.lastgroup
        yield _Token(group, found.group(group), found.start(group) + 1)
        at = found.end()
    yield _Token("end", "", len(text) + 1)
