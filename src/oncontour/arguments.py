"""From the words of a command line to the arguments of a typed function: its signature is the options, its docstring the help."""

from __future__ import annotations

from argparse import Action, _ArgumentGroup
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from oncontour.classes import allow
from oncontour.errors import ConfigError, nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Parser: TypeAlias = "ArgumentParser"

SHORT = {"-o": "--out", "-m": "--model", "-s": "--structures", "-j": "--threads", "-f": "--overwrite", "-c": "--config"}
"""Short flags of the options that are typed most; those that a command has."""
ALIASES = {"oncontour convert": {"--format": "--to"}}
"""Other words for an option of a command."""
GROUPS = (
    ("what goes in and comes out", ("config", "out", "overwrite", "about", "label", "add_to", "truth", "seg", "format", "to")),
    (
        "which models and structures",
        ("model", "structures", "quality", "risk", "contourer", "make", "protocol", "skip_absent", "any_region"),
    ),
    ("which files, where a folder holds several", ("series_uid", "structure_set_uid", "same_frame", "dose", "unit")),
    ("how it is computed", ("backend", "threads", "processes", "seed", "device", "trust", "allow_class", "tidy")),
)
"""Title -> options, as the help groups them; the rest stands under "options"."""
_FIRST = ("out", "model", "structures", "overwrite", "make", "protocol", "truth", "dose", "config")
"""What the short help shows beside what is required."""


def make_parser(
    name: str, function: Callable[..., object], *, loads_models: bool = False, takes_cohort: bool = False, trains: bool = False
) -> ArgumentParser:
    """The parser that ``function``'s signature and docstring spell; ``loads_models``: it builds nets from model files, and gets
    ``--allow_class``; ``takes_cohort``: it gets the options of ``Many``; ``trains``: it gets ``--engine``."""
    import inspect

    import jsonargparse

    class Help(jsonargparse.DefaultHelpFormatter):
        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return "".join(indent + line for line in text.splitlines(keepends=True))

        def _get_help_string(self, action: Action) -> str:
            """What the docstring says, and the default where there is one to know; no Python types."""
            told = str(action.help or "")
            if action.default is False or action.default in (None, "==SUPPRESS==", ()) or not action.option_strings:
                return told + (" (required)" if action.required and action.option_strings else "")
            return f"{told} (default: %(default)s)"

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    _limit_yaml()
    text = (inspect.getdoc(function) or "").split("\nArgs:")[0].rstrip()
    parser = jsonargparse.ArgumentParser(prog=f"oncontour {name}", description=text, exit_on_error=False, formatter_class=Help)
    parser.add_argument("--config", action="config", help="YAML file with the names below; the command line wins over it")
    parser.add_function_arguments(function, as_positional=True, as_group=False, skip={"progress", "many"}, fail_untyped="all")
    if takes_cohort:
        from oncontour.many import Many

        parser.add_class_arguments(Many, as_group=False)
    if trains:
        told = (
            "who trains; ray: training.devices x training.nodes workers of the cluster that RAY_ADDRESS names, entered with RAY_AUTH_TOKEN"
        )
        parser.add_argument("--engine", type=Literal["processes", "ray"], default="processes", help=told)
    if loads_models:
        told = "outside net or task (module:Class) that a model file names and that you trust to run; again for several"
        parser.add_argument("--allow_class", type=list[str] | None, help=told)
    parser.add_argument("--help-all", action="help", help="every option, and exit")
    for action in parser._actions:
        if action.dest == "help":
            action.help = "the command in a screen, and exit" if "-h" in action.option_strings else action.help
        if action.dest == "print_config":
            action.help = "show all settings as YAML, to be changed and given as --config, and exit"
        if isinstance(action.metavar, str):
            # What may be left out need not be offered as a word.
            action.metavar = action.metavar.replace(",null}", "}")
    _sort_into_groups(parser)
    return parser


def _sort_into_groups(parser: ArgumentParser) -> None:
    """Short flags, and the options under the titles of GROUPS: for the help, nothing else changes."""
    titles = {name: title for title, names in GROUPS for name in names}
    groups: dict[str, _ArgumentGroup] = {}
    for short, option in SHORT.items():
        for action in parser._actions:
            if option in action.option_strings:
                action.option_strings = [short, *action.option_strings]
    for held in list(parser._action_groups):
        for action in list(held._group_actions):
            title = titles.get(action.dest.partition(".")[0]) if action.option_strings else None
            if title is not None:
                groups.setdefault(title, parser.add_argument_group(title) if title not in groups else groups[title])
                held._group_actions.remove(action)
                groups[title]._group_actions.append(action)


def short_help(parser: ArgumentParser, name: str) -> str:
    """A command in a screen: what it does, examples, what must be given and what is given most; the rest is behind ``--help-all``."""
    import textwrap

    told, _, examples = str(parser.description or "").partition("Examples:\n")
    shown = [one for one in parser._actions if not one.option_strings or one.required or one.dest in _FIRST]
    left = sum(one.dest not in ("help", "help_all") for one in parser._actions) - len(shown)
    lines = [f"usage: oncontour {name} {_usage(parser)}", "", told.strip().split("\n\n")[0], "", "Examples:", examples.rstrip(), ""]
    for action in sorted(shown, key=lambda one: bool(one.option_strings) + bool(one.option_strings and not one.required)):
        head = ", ".join(one for one in action.option_strings if not one.endswith("+")) or action.dest
        text = " ".join(str(action.help or "").split()).replace("%%", "%") + (
            " (required)" if action.required and action.option_strings else ""
        )
        lines += textwrap.wrap(text, 96, initial_indent=f"  {head:<22}  ", subsequent_indent=" " * 26)
    more = f"  --help-all              every option ({left} more)" if left > 0 else "  --help-all              the same with defaults"
    return "\n".join([*lines, more])


def _usage(parser: ArgumentParser) -> str:
    needed = [one for one in parser._actions if one.required or not one.option_strings]
    words = [f"--{one.dest} {one.dest.upper()}" if one.option_strings else one.dest.upper() for one in needed]
    return " ".join([*words, "[OPTIONS]"])


@cache
def _limit_yaml() -> None:
    """Whatever is read as YAML (a --config file, a file that it names, a word of the command line) is looked at first."""
    import jsonargparse
    import yaml

    from oncontour.documents import check_yaml

    load = jsonargparse.get_loader("yaml")

    def limited(text: str) -> object:
        check_yaml(text, "settings")
        return load(text)

    jsonargparse.set_loader("yaml", limited, (yaml.YAMLError,))


def _check_configs(words: Sequence[str]) -> None:
    """Raises LimitError for a --config file that is too large to be read."""
    from oncontour.documents import MAX_YAML_BYTES, check_size

    for n, word in enumerate(words):
        option, given, value = word.partition("=")
        path = Path(value if given else (words[n + 1] if n + 1 < len(words) else ""))
        if option in ("--config", "-c") and path.is_file():
            check_size(path, MAX_YAML_BYTES)


def spread(words: Sequence[str], parser: ArgumentParser) -> list[str]:
    """``words`` as jsonargparse wants them: a bare switch gets its ``true``, ``a,b`` and repeated options become lists, ``-`` is ``_``."""
    from collections import deque

    kinds = {option: _kind(action) for action in parser._actions for option in action.option_strings}
    left, out = deque(words), []
    while left:
        word = left.popleft()
        option, given, value = word.partition("=")
        if option in SHORT and SHORT[option] in kinds:
            option = SHORT[option]
        option = ALIASES.get(parser.prog, {}).get(option, option)
        if option.startswith("--") and option not in kinds:
            option = "--" + option[2:].replace("-", "_")
        positive = "--" + option[5:]
        if option.startswith("--no_") and option not in kinds and kinds.get(positive) == "switch" and not given:
            out += [positive, "false"]
            continue
        kind = kinds.get(option, "") if option.startswith("--") else ""
        if kind == "switch" and not given:
            out += [option, left.popleft() if left and left[0] in ("true", "false") else "true"]
        elif kind in ("list", "tuple") and (given or left):
            value = value if given else left.popleft()
            if value.startswith("["):
                out += [option, value]
            elif kind == "tuple":
                out += [option, f"[{value}]"]
            else:
                out += [piece for part in _parts(value, option) for piece in (option + "+", part)]
        else:
            out.append(option + given + value if kind else word)
    return out


def _parts(value: str, option: str) -> list[str]:
    """The words of a list, which commas part that stand outside parentheses and quotes. Raises ConfigError for an empty one: it may be a
    variable of the shell that is not set."""
    import re

    parts = [""]
    for piece in re.findall(r'"[^"]*"|[^"]', value):
        depth = parts[-1].count("(") - parts[-1].count(")")
        parts = [*parts, ""] if piece == "," and depth <= 0 else [*parts[:-1], parts[-1] + piece]
    if not all(part.strip() for part in parts):
        raise ConfigError(f"there is an empty word between the commas of {option} {value}", hint="take away the comma that is too many")
    return parts


def _kind(action: Action) -> str:
    """What ``spread`` must know of an option: "switch", "list", "tuple" or "value"."""
    from typing import get_args

    hint = getattr(action, "_typehint", None)
    names = [str(kind) for kind in (get_args(hint) if type(None) in get_args(hint) else (hint,))]
    if str(bool) in names:
        return "switch"
    return next((kind for kind in ("list", "tuple") if any(name.startswith(kind + "[") for name in names)), "value")


def parse(parser: ArgumentParser, words: Sequence[str], name: str) -> dict[str, object]:
    """The arguments that ``words`` spell for command ``name``. Raises ConfigError where they cannot be used."""
    from jsonargparse import ArgumentError

    empty = next((n for n, word in enumerate(words) if not word.partition("=")[2 if word.startswith("--") and "=" in word else 0]), None)
    if empty is not None:  # as a path it would be the folder we are in
        after = words[empty].rstrip("=") or (words[empty - 1] if empty else name)
        raise ConfigError(f"there is an empty word after {after}", hint="is a variable of the shell not set?")
    _check_configs(words)
    try:
        parsed = vars(parser.instantiate(parser.parse_args(spread(words, parser))))
        for one in parsed.pop("allow_class", None) or ():
            allow(one)
        return {key: _at_home(value) for key, value in parsed.items() if key != "config" and not key.startswith("__")}
    except ArgumentError as error:
        raise ConfigError(_plain(str(error), parser), hint=f"oncontour {name} --help shows the arguments") from error


def _at_home(value: object) -> object:
    """Paths with the user's folder for ``~``, which no shell puts there in a YAML file or after ``--out=``."""
    if isinstance(value, list):
        return [_at_home(one) for one in value]
    return value.expanduser() if isinstance(value, Path) and value.parts[:1] == ("~",) else value


def _plain(message: str, parser: ArgumentParser) -> str:
    """jsonargparse's complaint as one sentence; a mistyped option gets the nearest one."""
    import re

    options = [option for action in parser._actions for option in action.option_strings if not option.endswith("+")]
    flat = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(message.split()))
    flat = re.sub(r'^Parser key "(\w+)": ', r"\1: ", flat)
    flat = re.sub(r"(?<=arguments are required: ).*", lambda names: _as_typed(names.group(), options), flat)
    unknown = re.match(r"unrecognized arguments: (--[\w-]+)", flat)
    near = nearest(unknown.group(1), options) if unknown else None
    return flat + (f" (did you mean {near}?)" if near else "")


def _as_typed(names: str, options: Sequence[str]) -> str:
    """``ct_folder, out`` as they are typed: ``ct_folder, --out``."""
    return ", ".join(f"--{name}" if f"--{name}" in options else name for name in names.split(", "))
