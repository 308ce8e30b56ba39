"""``oncontour``: a typed function is a command; its signature is the command line and the YAML file, its docstring the help.

    oncontour COMMAND [ARGUMENTS] [--config FILE.yaml] [--debug]

Only the module of the chosen command is imported. What a command returns is printed on stdout; progress and errors go to stderr.
An error is one sentence and an exit code (``oncontour.errors``); a surprise is one sentence and the place of a log with its traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

from oncontour import __version__
from oncontour.arguments import Parser, make_parser, parse, short_help
from oncontour.errors import ConfigError, IncompleteError, OncontourError, nearest
from oncontour.files import shown
from oncontour.libraries import is_out_of_memory, missing

if TYPE_CHECKING:
    from oncontour.many import Engine

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("oncontour.commands.run:run", "a CT folder in; RTSTRUCT, report.html and report.json out"),
    "convert": ("oncontour.commands.convert:convert", "a patient or a cohort between DICOM and NIfTI"),
    "assess": ("oncontour.commands.assess:assess", "how right is each slice of these contours? scores, bound, findings"),
    "feedback": ("oncontour.commands.feedback:feedback", "what people said of results, beside what was predicted of each slice"),
    "adapt": ("oncontour.commands.adapt:adapt", "contours and dose of the planning CT on the CT of the day"),
    "train contour": ("oncontour.commands.train:contour", "train a contouring model on a cohort"),
    "train assess": ("oncontour.commands.train:assess", "train a contour quality model on a cohort"),
    "train adapt": ("oncontour.commands.train:adapt", "train a model that carries contours to a new CT, on repeat visits"),
    "train synthesize": ("oncontour.commands.train:synthesize", "train a model that makes MR-like images of CT, from unpaired images"),
    "train risk": ("oncontour.commands.train:risk", "train a risk model on a cohort with dose and outcomes"),
    "predict": ("oncontour.commands.predict:predict", "contours of many patients by several models, as files"),
    "calibrate": ("oncontour.commands.calibrate:calibrate", "a quality model's bound and gate from one's own patients"),
    "evaluate": ("oncontour.commands.evaluate:evaluate", "judge contours against the truth: tidy CSV, statistics, figures"),
    "stamp": ("oncontour.commands.stamp:stamp", "put the figures of an evaluation into a model's card"),
    "reproduce": ("oncontour.commands.reproduce:reproduce", "repeat a paper on a cohort and print its table beside ours"),
    "models list": ("oncontour.commands.models:models", "the models that are there, and what each draws or judges"),
    "info": ("oncontour.commands.info:info", "what a model file says of itself"),
    "models add": ("oncontour.commands.models_add:add", "take an nnU-Net or TotalSegmentator's weights over, once, for run --model NAME"),
    "models export": ("oncontour.commands.models_export:export", "the net of a model as ONNX, for machines without torch"),
    "dvh": ("oncontour.commands.dvh:dvh", "what a plan gives to its structures: table, CSV, JSON and plot"),
    "risk": ("oncontour.commands.risk:risk", "the risk of a toxicity from a plan, and where it comes from"),
    "simulate outcomes": ("oncontour.commands.simulate:outcomes", "virtual patients with a known, made-up risk, from real doses"),
    "simulate visits": ("oncontour.commands.simulate_visits:visits", "repeat visits of a cohort with a known, made-up deformation"),
    "synthesize": ("oncontour.commands.synthesize:synthesize", "an MR-like image of a CT, as a DICOM series marked as synthetic"),
    "structures": ("oncontour.commands.structures:structures", "new structures from others: margins, union, difference, rings"),
    "features": ("oncontour.commands.features:features", "IBSI features of a cohort, on dose and CT: one table, with robustness"),
    "demo": ("oncontour.commands.demo:demo", "the main job on one patient whose truth is known"),
}
"""command -> ("module:function", what it gives in a line)."""
WIDEST = max(map(len, COMMANDS)) + 2

LOADS_MODELS = (
    "run",
    "assess",
    "train contour",
    "train assess",
    "train adapt",
    "train synthesize",
    "train risk",
    "predict",
    "calibrate",
    "evaluate",
    "reproduce",
    "risk",
    "synthesize",
    "demo",
    "adapt",
    "models export",
)
"""Commands that build nets from model files, and so have ``--allow_class``."""
TAKE_COHORTS = ("run", "assess", "adapt", "synthesize", "features", "predict", "dvh", "convert", "evaluate")
"""Commands that work on each patient of a cohort alone, and so have ``--jobs``, ``--shard`` and ``--engine``."""
TRAIN = tuple(name for name in COMMANDS if name.startswith("train "))
"""Commands that train, and so have ``--engine``: here, or on a Ray cluster."""
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
            sys.stdout.write(shown(text) + "\n")
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        _leave_pipe()
        return BROKEN_PIPE
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, IncompleteError) and error.done:
            _tell(error.done, sys.stdout)
        code, sentence = verdict(error, words)
        _tell(sentence)
        return code


def verdict(error: BaseException, words: Sequence[str] = ()) -> tuple[int, str]:
    """(exit code, the one sentence) for whatever ended a command; a surprise is logged with its traceback."""
    error = missing(error) or error
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
        return f"oncontour {__version__}"
    if words[0] == "--completion":
        return _completion()
    if words[0] == "models" and (len(words) == 1 or words[1] == "--json"):
        words = ["models", "list", *words[1:]]
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
        *(f"  {name:<{WIDEST}}{line}" for name, line in rows),
        "",
        "  oncontour COMMAND --help      what a command does, with examples; --help-all: every option",
        "  oncontour --version           the version",
        "  oncontour --completion        a script for bash and zsh that completes commands and options; it says where to put it",
        "",
        "Examples:",
        "  oncontour run CT_FOLDER --out OUT",
        "  oncontour demo",
    ]
    return "\n".join(lines)


def _completion() -> str:
    from oncontour.completion import script

    def options(name: str) -> list[str]:
        every = [option for action in parser_of(name)._actions for option in action.option_strings]
        return [option for option in every if option.startswith("--") and not option.endswith("+")]

    return script({name: options(name) for name in COMMANDS})


def find_command(words: Sequence[str]) -> str | None:
    """The command at the start of ``words``; None where they stop at a group or ask its help. Raises ConfigError for an unknown one."""
    two = " ".join(words[:2])
    if two in COMMANDS:
        return two
    if words[0] in COMMANDS:
        return words[0]
    group = [name for name in COMMANDS if name.split()[0] == words[0]]
    if group and (len(words) < 2 or words[1] in ("-h", "--help")):
        return None
    near = nearest(two if group else words[0], list(COMMANDS))
    hint = f"did you mean 'oncontour {near}'?" if near else "oncontour --help lists the commands"
    raise ConfigError(f"there is no command {two if group else words[0]!r}", hint=hint)


def call(name: str, words: Sequence[str]) -> object:
    """Call the function behind command ``name`` with what ``words`` (and a --config file) say."""
    import inspect

    function = load(name)
    parser = parser_of(name)
    if any(word in ("--help-all", "--help_all") for word in words):
        return parser.format_help()
    if any(word in ("-h", "--help") for word in words):
        return short_help(parser, name)
    settings = parse(parser, words, name)
    if name in TAKE_COHORTS:
        function, settings = _for_many(name, function, settings)
    if name in TRAIN and settings.pop("engine") == "ray":
        from oncontour.commands.train_ray import train

        return train(function, settings)
    if "progress" in inspect.signature(function).parameters:
        from oncontour.progress import ProgressLine

        with ProgressLine(name) as line:
            return function(**settings, progress=line)
    return function(**settings)


def _for_many(name: str, function: Callable[..., object], settings: dict[str, object]) -> tuple[Callable[..., object], dict[str, object]]:
    """What to call where patients may be many: ``function`` itself where it takes cohorts, or is given one patient."""
    import inspect

    from oncontour.many import Many

    jobs, shard, engine = (settings.pop(key) for key in ("jobs", "shard", "engine"))
    many = Many(int(str(jobs)), str(shard), cast("Engine", engine))
    if "many" in inspect.signature(function).parameters:
        return function, settings | {"many": many}
    if not (many.is_asked or _is_cohort(settings[next(iter(inspect.signature(function).parameters))], settings)):
        return function, settings
    from oncontour.commands.cohort import cohort

    return cohort, {"name": name, "function": function, "settings": settings, "many": many}


def _is_cohort(path: object, settings: Mapping[str, object]) -> bool:
    """Whether what a command for one patient is given are plainly many, none of whom is picked by the UID of a series."""
    from oncontour.io.patients import holds_patients

    return not settings.get("series_uid") and holds_patients(Path(str(path)))


def load(name: str) -> Callable[..., object]:
    """The function behind command ``name``; its module is imported now."""
    from importlib import import_module

    module, function = COMMANDS[name][0].split(":")
    loaded: Callable[..., object] = getattr(import_module(module), function)
    return loaded


def parser_of(name: str) -> Parser:
    """The parser of command ``name``."""
    return make_parser(name, load(name), loads_models=name in LOADS_MODELS, takes_cohort=name in TAKE_COHORTS, trains=name in TRAIN)


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
        stream.write(shown(sentence) + "\n")
        stream.flush()
    except OSError:
        return


def _surprise(error: BaseException) -> str:
    """What happened, in the error's own words; of one that a library raised its name and the library's alone: what libraries say is
    written for developers, and asks them to write to others."""
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
            file.write(f"oncontour {__version__}, Python {sys.version.split()[0]}, command {' '.join(words[:1])}\n{_story(error)}")
    except OSError:
        return "repeat it with --debug to see where"
    return f"where it happened is in {name}, without what it says of your files: please send it to us"


def _story(error: BaseException) -> str:
    """Where an error came from, and those that led to it: places in our code and kinds of errors. What they say may name a patient."""
    told: list[str] = []
    one: BaseException | None = error
    while one is not None and len(told) < 20:
        told.append("".join(traceback.format_tb(one.__traceback__)) + type(one).__name__ + "\n")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "which led to:\n".join(reversed(told))


if __name__ == "__main__":
    sys.exit(main())
