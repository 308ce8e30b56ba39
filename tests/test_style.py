"""Sizes that a person can hold: of files and functions, and how seldom a type is left open."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "oncontour"
FILES = {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py"))}

MOST_LINES, MOST_OF_A_FUNCTION = 450, 60

MOST_ANY = 155
"""Lines with the word Any: to be lowered, never raised."""


def test_no_file_is_too_large_for_one_concept() -> None:
    assert {name for name, text in FILES.items() if text.count("\n") > MOST_LINES} == set()


def test_no_function_is_too_long_to_be_read_at_once() -> None:
    found = set()
    for name, text in FILES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > MOST_OF_A_FUNCTION:
                found.add(f"{name}:{node.name}")
    assert found == set()


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From ``def`` to the end, without the docstring."""
    first = function.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if told else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_types_are_seldom_left_open() -> None:
    assert sum(len(re.findall(r"^.*\bAny\b", text, re.MULTILINE)) for text in FILES.values()) <= MOST_ANY
