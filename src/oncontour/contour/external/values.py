"""Values out of somebody's JSON or YAML, each of the kind that is wanted; what is of another kind is a TypeError or ValueError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Values = Mapping[str, object]


def number(value: object) -> float:
    """A number, or a text that spells one."""
    if not isinstance(value, str | int | float):
        raise TypeError(f"a number is wanted, not {value!r}")
    return float(value)


def numbers(value: object) -> list[float]:
    """A list of numbers."""
    return [number(one) for one in listed(value)]


def wholes(value: object) -> list[int]:
    """A list of whole numbers."""
    return [int(one) for one in numbers(value)]


def listed(value: object) -> Sequence[object]:
    """A list."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"a list is wanted, not {value!r}")
    return value


def named(value: object) -> Values:
    """Values by name."""
    if not isinstance(value, Mapping):
        raise TypeError(f"values by name are wanted, not {value!r}")
    return value


def last_word(value: object) -> str:
    """The name of a class or function without its modules: "UNet" of "monai.networks.nets.UNet"."""
    return str(value).rsplit(".", 1)[-1]
