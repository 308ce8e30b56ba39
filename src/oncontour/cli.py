"""``oncontour``: a typed function is a command; its signature is the command line and the YAML file, its docstring the help.

    oncontour COMMAND [ARGUMENTS] [--config FILE.yaml] [--debug]

Only the module of the chosen command is imported. What a command returns is printed on stdout; progress and errors go to stderr.
An error is one sentence and an exit code (``oncontour.errors``); a surprise is one sentence and the place of a log with its traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from oncontour.classes import allow
from oncontour.errors import ConfigError, IncompleteError, OncontourError, nearest
from oncontour.libraries import is_out_of_memory

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("oncontour.commands.run:run", "a CT folder in; RTSTRUCT, report.html and report.json out"),
    "convert": ("oncontour.commands.convert:convert", "a patient or a cohort between DICOM and NIfTI"),
    "assess": ("oncontour.commands.assess:assess", "how right is each slice of these contours? scores, bound, findings"),
    "train contour": ("oncontour.commands.train:contour", "train a contouring model on a cohort"),
    "train assess": ("oncontour.commands.train:assess", "train a contour quality model on a cohort"),
    "train risk": ("oncontour.commands.train:risk", "train a risk model on a cohort with dose and outcomes"),
    "predict": ("oncontour.commands.predict:predict", "contours of many patients by several models, as files"),
    "calibrate": ("oncontour.commands.assess:calibrate", "a quality model's bound and gate from one's own patients"),
    "evaluate": ("oncontour.evaluate:evaluate", "judge contours against the truth: tidy CSV, statistics, figures"),
    "stamp": ("oncontour.evaluate.stamp:stamp", "put the figures of an evaluation into a model's card"),
    "reproduce": ("oncontour.reproduce:reproduce", "repeat a paper on a cohort and print its table beside ours"),
    "info": ("oncontour.learn.card:info", "what a model file says of itself"),
    "dvh": ("oncontour.commands.dvh:dvh", "what a plan gives to its structures: table, CSV, JSON and plot"),
    "risk": ("oncontour.commands.risk:risk", "the risk of a toxicity from a plan, and where it comes from"),
    "simulate outcomes": ("oncontour.commands.simulate:outcomes", "virtual patients with a known, made-up risk, from real doses"),
    "features": ("oncontour.commands.features:features", "IBSI features of a cohort, on dose and CT: one table, with robustness"),
    "demo": ("oncontour.commands.demo:demo", "the main job on one patient whose truth is known"),
}
"""command -> ("module:function", what it gives in a line)."""

LOADS_MODELS = (
    "run",
    "assess",
    "train contour",
    "train assess",
    "train risk",
    "predict",
    "calibrate",
    "evaluate",
    "reproduce",
    "risk",
    "demo",
)
"""Commands that build nets from model files, and so have ``--allow_class``."""
_COMMANDS_OF_TERMINALS = {code: "?" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""What is written holds names that anybody may have given: none of them moves the cursor or hides a warning."""
UNEXPECTED, NO_MEMORY, INTERRUPTED, BROKEN_PIPE, TERMINATED = 70, 71, 130, 141, 143
"""Exit codes beside those of ``oncontour.errors``: a surprise, memory, Ctrl-C, a reader that left, SIGTERM."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default ``sys.argv``) and give its exit code. Raises nothing."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        _sum_in_one_order()
        _terminate_politely()
        _write_anything()
        text = _answer(words, quiet=not debug)
        if text:
            sys.stdout.write(text.translate(_COMMANDS_OF_TERMINALS) + "\n")
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        _leave_pipe()
        return BROKEN_PIPE
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException as error:
        if debug:
            _show_traceback()
        if isinstance(error, IncompleteError) and error.done:
            _tell(error.done, sys.stdout)
        code, sentence = verdict(error, words)
        _tell(sentence)
        return code


def verdict(error: BaseException, words: Sequence[str] = ()) -> tuple[int, str]:
    """(exit code, the one sentence) for whatever ended a command; a surprise is logged with its traceback."""
    if isinstance(error, OncontourError):
        return error.exit_code, f"oncontour: {error}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "oncontour: stopped by Ctrl-C; nothing half-written was left and what was there before is untouched"
    if isinstance(error, _Terminated):
        return TERMINATED, "oncontour: stopped by SIGTERM; nothing half-written was left and what was there before is untouched"
    if is_out_of_memory(error):
        told = "this needs more memory than there is; nothing half-written was left"
        return NO_MEMORY, f"oncontour: {told}. Way out: close other programs or use a larger machine"
    if isinstance(error, PermissionError):  # of a writer it is an OutputError already
        where = f" [{error.filename}]" if error.filename else ""
        return 2, f"oncontour: this may not be read ({error.strerror or 'permission denied'}){where}. Way out: ask whoever owns it"
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        from oncontour.files import as_output_error

        known = as_output_error(error, Path(str(error.filename or ".")))
        return known.exit_code, f"oncontour: {known}"
    if isinstance(error, OSError) and error.filename:
        return 2, f"oncontour: {error.strerror or error} [{error.filename}]. Way out: check the path"
    return UNEXPECTED, f"oncontour: an error nobody expected ({_surprise(error)}); {_logged(error, words)}"


# ---- from words to an answer


def _answer(words: list[str], quiet: bool) -> str:
    if not words or words[0] in ("-h", "--help", "help"):
        return overview()
    if words[0] in ("-V", "--version"):
        return f"oncontour {_version()}"
    name = find_command(words)
    if name is None:
        return overview(words[0])
    if quiet:
        _hush()
    result = call(name, words[len(name.split()) :])
    return "" if result is None else str(result)


def overview(group: str = "") -> str:
    """The list of commands, or of those that start with the word ``group``."""
    rows = [(name, line) for name, (_, line) in COMMANDS.items() if not group or name.split()[0] == group]
    lines = [
        "usage: oncontour COMMAND [ARGUMENTS] [--config FILE.yaml] [--debug]",
        "",
        "From planning CT to contours you can trust. Commands:",
        "",
        *(f"  {name:<15}{line}" for name, line in rows),
        "",
        "  oncontour COMMAND --help      everything about one command, with examples",
        "  oncontour --version           the version",
        "",
        "Examples:",
        "  oncontour run CT_FOLDER --out OUT",
        "  oncontour demo",
    ]
    return "\n".join(lines)


def find_command(words: Sequence[str]) -> str | None:
    """The command at the start of ``words``; None where they stop at a group or ask its help. Raises ConfigError for an unknown one."""
    if words[0] in COMMANDS:
        return words[0]
    two = " ".join(words[:2])
    if two in COMMANDS:
        return two
    group = [name for name in COMMANDS if name.split()[0] == words[0]]
    if group and (len(words) < 2 or words[1] in ("-h", "--help")):
        return None
    near = nearest(two if group else words[0], list(COMMANDS))
    hint = f"did you mean 'oncontour {near}'?" if near else "oncontour --help lists the commands"
    raise ConfigError(f"there is no command {two if group else words[0]!r}", hint=hint)


def call(name: str, words: Sequence[str]) -> Any:
    """Call the function behind command ``name`` with what ``words`` (and a --config file) say."""
    import inspect

    function = load(name)
    parser = make_parser(name, function)
    settings = parse(parser, words, name)
    if "progress" in inspect.signature(function).parameters:
        from oncontour.progress import ProgressLine

        with ProgressLine(name) as line:
            return function(**settings, progress=line)
    return function(**settings)


def load(name: str) -> Callable[..., Any]:
    """The function behind command ``name``; its module is imported now."""
    from importlib import import_module

    module, function = COMMANDS[name][0].split(":")
    loaded: Callable[..., Any] = getattr(import_module(module), function)
    return loaded


def make_parser(name: str, function: Callable[..., Any]) -> ArgumentParser:
    """The parser that ``function``'s signature and docstring spell."""
    import inspect

    import jsonargparse

    class Help(jsonargparse.DefaultHelpFormatter):
        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return "".join(indent + line for line in text.splitlines(keepends=True))

        def _get_help_string(self, action: Any) -> str:
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
    parser.add_function_arguments(function, as_positional=True, as_group=False, skip={"progress"}, fail_untyped="all")
    if name in LOADS_MODELS:
        told = "outside net or task (module:Class) that a model file names and that you trust to run; again for several"
        parser.add_argument("--allow_class", type=list[str] | None, help=told)
    for action in parser._actions:
        if action.dest == "print_config":
            action.help = "show all settings as YAML, to be changed and given as --config, and exit"
        if isinstance(action.metavar, str):
            # What may be left out need not be offered as a word.
            action.metavar = action.metavar.replace(",null}", "}")
    return parser


@cache
def _limit_yaml() -> None:
    """Whatever is read as YAML (a --config file, a file that it names, a word of the command line) is looked at first."""
    import jsonargparse
    import yaml

    from oncontour.documents import check_yaml

    load = jsonargparse.get_loader("yaml")

    def limited(text: str) -> Any:
        check_yaml(text, "settings")
        return load(text)

    jsonargparse.set_loader("yaml", limited, (yaml.YAMLError,))


def _check_configs(words: Sequence[str]) -> None:
    """Raises LimitError for a --config file that is too large to be read."""
    from oncontour.documents import MAX_YAML_BYTES, check_size

    for n, word in enumerate(words):
        option, given, value = word.partition("=")
        path = Path(value if given else (words[n + 1] if n + 1 < len(words) else ""))
        if option == "--config" and path.is_file():
            check_size(path, MAX_YAML_BYTES)


def spread(words: Sequence[str], parser: ArgumentParser) -> list[str]:
    """``words`` as jsonargparse wants them: a bare switch gets its ``true``, ``a,b`` and repeated options become lists, ``-`` is ``_``."""
    from collections import deque

    kinds = {option: _kind(action) for action in parser._actions for option in action.option_strings}
    left, out = deque(words), []
    while left:
        word = left.popleft()
        option, given, value = word.partition("=")
        if option.startswith("--") and option not in kinds:
            option = "--" + option[2:].replace("-", "_")
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
    """The words of a list. Raises ConfigError for an empty one: it may be a variable of the shell that is not set."""
    parts = value.split(",")
    if not all(part.strip() for part in parts):
        raise ConfigError(f"there is an empty word between the commas of {option} {value}", hint="take away the comma that is too many")
    return parts


def _kind(action: Any) -> str:
    """What ``spread`` must know of an option: "switch", "list", "tuple" or "value"."""
    from typing import get_args

    hint = getattr(action, "_typehint", None)
    names = [str(kind) for kind in (get_args(hint) if type(None) in get_args(hint) else (hint,))]
    if str(bool) in names:
        return "switch"
    return next((kind for kind in ("list", "tuple") if any(name.startswith(kind + "[") for name in names)), "value")


def parse(parser: ArgumentParser, words: Sequence[str], name: str) -> dict[str, Any]:
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


def _at_home(value: Any) -> Any:
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


# ---- manners


class _Terminated(BaseException):
    """SIGTERM, raised where the program stands so that temporary files go."""


def _sum_in_one_order() -> None:
    """One thread for the linear algebra of numpy and scipy, whose sums are cut into as many pieces as there are threads: a mean dose would
    differ in its last digits. Counts where numpy is imported after this, as in every command; nets have threads of their own."""
    os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"))


def _terminate_politely() -> None:
    def stop(number: int, frame: object) -> NoReturn:
        raise _Terminated

    if sys.platform != "win32" and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        try:
            signal.signal(signal.SIGTERM, stop)
        except ValueError:  # not the main thread: whoever runs us handles signals
            return


def _write_anything() -> None:
    """What this terminal has no letter for is written as its number: no result is lost for a name that cannot be shown."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _hush() -> None:
    """Libraries' warnings are for developers: --debug shows them."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    for library in ("pydicom", "lightning", "lightning.pytorch", "torch", "matplotlib", "highdicom"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _leave_pipe() -> None:
    """Nobody reads stdout any more: keep the interpreter from complaining about it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(sentence: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stderr
    try:
        stream.write(sentence.translate(_COMMANDS_OF_TERMINALS) + "\n")
        stream.flush()
    except OSError:
        return


def _show_traceback() -> None:
    import traceback

    traceback.print_exc()


def _surprise(error: BaseException) -> str:
    """What happened, in the error's own words; of one that a library raised its name and the library's alone: what libraries say is
    written for developers, and asks them to write to others."""
    import traceback

    kind, places = type(error).__name__, [Path(place.filename) for place in traceback.extract_tb(error.__traceback__)]
    parts = places[-1].parts if places and Path(__file__).parent not in places[-1].parents else ()
    if "site-packages" in parts[:-1]:
        return f"{kind} in {Path(parts[parts.index('site-packages') + 1]).stem}"
    return f"{kind}: {next(iter(str(error).splitlines()), 'no message')[:300]}"


def _logged(error: BaseException, words: Sequence[str]) -> str:
    """Write the traceback (without values: a log holds no patient) and say where; or how to see it."""
    import tempfile

    try:
        handle, name = tempfile.mkstemp(prefix="oncontour-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"oncontour {_version()}, Python {sys.version.split()[0]}, command {' '.join(words[:1])}\n{_story(error)}")
    except OSError:
        return "repeat it with --debug to see where"
    return f"where it happened is in {name}, without what it says of your files: please send it to us"


def _story(error: BaseException) -> str:
    """Where an error came from, and those that led to it: places in our code and kinds of errors. What they say may name a patient."""
    import traceback

    told: list[str] = []
    one: BaseException | None = error
    while one is not None and len(told) < 20:
        told.append("".join(traceback.format_tb(one.__traceback__)) + type(one).__name__ + "\n")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "which led to:\n".join(reversed(told))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("oncontour")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
