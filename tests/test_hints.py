"""Every way out that a message names is one that the product has: options and commands are looked up in the command line itself."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import oncontour
from oncontour.cli import COMMANDS, LOADS_MODELS, TAKE_COHORTS
from oncontour.core.notes import CHOOSE_DOSE
from oncontour.io.dicom.scan import PICK_ONE as PICK_SERIES
from oncontour.io.dicom.source import SAME_FRAME_WAY
from oncontour.io.dicom.structure_sets import PICK_ONE as PICK_SET
from oncontour.many import Many

SRC = Path(oncontour.__file__).parent
OPTION = re.compile(r"(?<![\w-])--([a-z][\w.]*(?:-[\w.]+)*)")
COMMAND = re.compile(r"oncontour ((?:train|simulate|models) [a-z]+|[a-z]+)")
GROUPS = {"train", "simulate", "models", "reproduce"}
OFTEN = {"help", "config", "debug", "version"}
READS_CARDS = {"info", "stamp"}
"""Commands that name a model and build no net."""


def options(command: str) -> set[str]:
    """What ``command`` takes, fields of its dataclasses as ``settings.facts``."""
    module, _, name = COMMANDS[command][0].partition(":")
    function = getattr(import_module(module), name)
    found, kinds = OFTEN | ({"allow_class"} if command in LOADS_MODELS else set()), typing.get_type_hints(function)
    found |= {field.name for field in dataclasses.fields(Many)} if command in TAKE_COHORTS else set()
    for parameter in set(inspect.signature(function).parameters) - {"many"}:
        found.add(parameter)
        if dataclasses.is_dataclass(kind := kinds[parameter]):
            found |= {f"{parameter}.{field.name}" for field in dataclasses.fields(kind)}
    return found


@pytest.fixture(scope="module")
def taken() -> dict[str, set[str]]:
    return {command: options(command) for command in COMMANDS}


def test_what_loads_a_model_may_be_allowed_a_class(taken: dict[str, set[str]]) -> None:
    """The way out of a model with an outside net is there in every command that can be given one."""
    given = {command for command, its in taken.items() if its & {"model", "quality", "risk", "contourer", "start"}}
    assert {command for command, its in taken.items() if "allow_class" in its} >= given - READS_CARDS
    assert {"run", "demo", "info"} <= given


def hints() -> Iterator[tuple[str, str]]:
    """(file and line, text) of every ``hint=`` in src that is spelled there, values in it left out."""
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                words = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                yield f"{path.relative_to(SRC)}:{node.value.lineno}", " ".join(words)


def test_options_and_commands_that_hints_name_are_there(taken: dict[str, set[str]]) -> None:
    every = set().union(*taken.values())
    spelled = [*hints(), *((text, text) for text in (PICK_SERIES, PICK_SET, SAME_FRAME_WAY, CHOOSE_DOSE))]
    assert len(spelled) > 150
    wrong = []
    for where, text in spelled:
        wrong += [f"{where}: --{name}" for name in OPTION.findall(text) if name.replace("-", "_") not in every]
        wrong += [f"{where}: oncontour {name}" for name in COMMAND.findall(text) if name not in COMMANDS and name.split()[0] not in GROUPS]
        bare = [name for name in every if "_" in name and "." not in name and re.search(rf"(?<![\w.-]){name}\b", text)]
        wrong += [f"{where}: {name} without its dashes" for name in bare]
    assert wrong == []


def test_a_command_s_own_hints_name_its_own_options(taken: dict[str, set[str]]) -> None:
    """A hint in the module of a command names options of that command, unless it says of which other."""
    of_module: dict[str, set[str]] = {}
    for command, (function, _) in COMMANDS.items():
        path = function.partition(":")[0].removeprefix("oncontour.").replace(".", "/")
        of_module.setdefault(path, set()).update(taken[command])
    wrong = []
    for where, text in hints():
        path = where.partition(".py:")[0].removesuffix("/__init__")
        if path in of_module and not COMMAND.search(text):
            wrong += [f"{where}: --{name}" for name in OPTION.findall(text) if name.replace("-", "_") not in of_module[path]]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "option"),
    [(PICK_SERIES, "series_uid"), (PICK_SET, "structure_set_uid"), (SAME_FRAME_WAY, "same_frame"), (CHOOSE_DOSE, "dose")],
)
def test_ways_out_of_the_readers_list_the_commands_that_have_them(text: str, option: str, taken: dict[str, set[str]]) -> None:
    """Readers do not know which command called them: they name every command that has the option, and no other."""
    assert f"--{option}" in text
    named = re.search(r"oncontour ([a-z, ]+?)(?:[;)]| takes)", text)
    assert named is not None
    commands = set(re.split(r", | and ", named[1]))
    assert commands == {command for command, its in taken.items() if option in its}
