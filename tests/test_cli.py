"""The command line: help, errors in one sentence, exit codes, manners."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from oncontour import cli
from oncontour.arguments import parse
from oncontour.completion import script
from oncontour.errors import ConfigError, DoseError, InputError, ModelError, OutputError, TrainingError
from oncontour.progress import ProgressLine, duration, sentence

PATIENT = "^".join(("DOE", "JANE"))
SEEN: dict[str, object] = {}


def sample(
    folder: Path, *, out: Path, names: list[str] | None = None, swap: bool = False, way: Literal["a", "b"] = "a", times: int = 1
) -> str:
    """Do a thing.

    At length.

    Examples:
        oncontour sample FOLDER --out OUT

    Args:
        folder: where from
        out: where to
        names: 100 % of the names
        swap: the other way round
        way: which way
        times: how often
    """
    SEEN.clear()
    SEEN.update(folder=folder, out=out, names=names, swap=swap, way=way, times=times)
    return "done"


def failing(kind: str) -> None:
    """Fail as told."""
    if kind == "named":
        try:
            int(PATIENT)
        except ValueError as error:
            raise RuntimeError(f"no number in /patients/{PATIENT}") from error
    errors = {
        "memory": MemoryError(),
        "ctrl-c": KeyboardInterrupt(),
        "full": OSError(28, "No space left on device"),
        "pipe": BrokenPipeError(),
        "surprise": ZeroDivisionError("a b\nc"),
        "missing": FileNotFoundError(2, "No such file or directory", "x/y"),
        "exit": SystemExit(3),
    }
    raise errors[kind]


@pytest.fixture(autouse=True)
def _commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(cli.COMMANDS, "sample", (f"{__name__}:sample", "a sample"))
    monkeypatch.setitem(cli.COMMANDS, "fail", (f"{__name__}:failing", "a failure"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_signature_is_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", "F", "--out", "O", "--names", "a,b", "--names", "c", "--swap", "--way=b", "--times", "3"]) == 0
    assert {"folder": Path("F"), "out": Path("O"), "names": ["a", "b", "c"], "swap": True, "way": "b", "times": 3} == SEEN
    assert capsys.readouterr().out == "done\n"


def test_short_flags_hyphens_and_no(tmp_path: Path) -> None:
    assert cli.main(["sample", "F", "-o", "O", "--no-swap"]) == 0
    assert (SEEN["out"], SEEN["swap"]) == (Path("O"), False)
    assert cli.main(["sample", "F", "-o=O", "--swap", "--no_swap", "--names", 'a (b, c),"d,e"']) == 0
    assert (SEEN["out"], SEEN["swap"], SEEN["names"]) == (Path("O"), False, ["a (b, c)", '"d,e"'])


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("sample", "fail")])
def test_help_is_a_screen_and_help_all_has_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name.split(), "-h"]) == 0
    short = capsys.readouterr().out
    assert short.count("\n") <= 45
    assert "--help-all" in short
    assert cli.main([*name.split(), "--help-all"]) == 0
    every = capsys.readouterr().out
    options = [
        action.option_strings[-1]
        for action in cli.parser_of(name)._actions
        if action.option_strings and not action.option_strings[-1].endswith("+")
    ]
    assert [option for option in options if option not in every and "." not in option] == []


def test_config_file_and_command_line_say_the_same(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("out: O\nnames: [a, b]\nswap: true\ntimes: 2\n")
    assert cli.main(["sample", "F", "--config", str(config), "--times", "5"]) == 0
    assert {"folder": Path("F"), "out": Path("O"), "names": ["a", "b"], "swap": True, "way": "a", "times": 5} == SEEN


def test_a_tilde_is_the_users_folder_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / "run.yaml"
    config.write_text("folder: ~/ct\nout: ~\n".replace("~\n", "'~'\n"))
    assert cli.main(["sample", "--config", str(config)]) == 0
    assert (SEEN["folder"], SEEN["out"]) == (tmp_path / "ct", tmp_path)
    assert cli.main(["sample", "~nobody/ct", "--out=~/ö ut"]) == 0
    assert (SEEN["folder"], SEEN["out"]) == (Path("~nobody/ct"), tmp_path / "ö ut")


@pytest.mark.parametrize("words", [["F", "--out", ""], ["", "--out", "O"], ["F", "--out="]])
def test_an_empty_word_is_not_the_folder_we_are_in(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    SEEN.clear()
    assert cli.main(["sample", *words]) == ConfigError.exit_code
    assert "empty word" in capsys.readouterr().err
    assert not SEEN


def test_a_terminal_without_the_letters_loses_no_answer() -> None:
    code = "from oncontour import cli; cli.call = lambda name, words: 'Rückenmark ≥ 0.8 \\udcfc'; raise SystemExit(cli.main(['demo']))"
    environment = {**_env(), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == b"R\\xfcckenmark \\u2265 0.8 \\udcfc\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["smaple"], "did you mean 'oncontour sample'"),
        (["train", "contuor"], "did you mean 'oncontour train contour'"),
        (["xyzzy"], "oncontour --help lists the commands"),
        (["sample", "F"], "out"),
        (["sample", "F", "--out", "O", "--tmies", "3"], "did you mean --times?"),
        (["sample", "F", "--out", "O", "--times", "many"], "many"),
        (["sample", "F", "--out", "O", "--way", "c"], "way"),
        (["sample", "F", "--out", "O", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["sample", "F", "--out", "O", "--names", "a,"], "there is an empty word between the commas of --names a,"),
        (["sample", "F", "--out", "O", "--names=a,,b"], "there is an empty word between the commas of --names a,,b"),
    ],
)
def test_mistakes_get_one_sentence(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == ConfigError.exit_code
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "code", "says"),
    [
        ("memory", cli.NO_MEMORY, "more memory than there is; nothing half-written was left. Way out:"),
        ("ctrl-c", cli.INTERRUPTED, "Ctrl-C"),
        ("full", OutputError.exit_code, "the disk is full"),
        ("missing", InputError.exit_code, "x/y"),
        ("surprise", cli.UNEXPECTED, "ZeroDivisionError: a b"),
        ("exit", 3, ""),
    ],
)
def test_every_end_has_its_code(kind: str, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fail", kind]) == code
    told = capsys.readouterr().err
    assert says in told
    assert "Traceback" not in told
    assert told.count("\n") == (1 if says else 0)


def test_a_surprise_is_logged_and_shown_with_debug(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli.main(["fail", "surprise"])
    told = capsys.readouterr().err
    (log,) = tmp_path.glob("oncontour-*.log")
    assert str(log) in told
    assert "ZeroDivisionError" in log.read_text()
    cli.main(["fail", "surprise", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_no_name_from_a_file_commands_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "call", lambda name, words: "Larynx\x1b[2K\rall is well\n\tü\x9b1A")
    assert cli.main(["sample"]) == 0
    assert capsys.readouterr().out == "Larynx?[2K?all is well\n\tü?1A\n"


def test_a_log_names_no_patient(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What an error says may: ``int`` and ``float`` repeat what they were given, and so do files' names."""
    assert cli.main(["fail", "named"]) == cli.UNEXPECTED
    assert "no number in" in capsys.readouterr().err
    text = next(tmp_path.glob("oncontour-*.log")).read_text()
    assert PATIENT not in text
    assert text.index("ValueError") < text.index("which led to") < text.index("RuntimeError")
    assert "test_cli.py" in text


def test_a_reader_that_leaves_is_no_error() -> None:
    ended = subprocess.run(
        "oncontour --help | true; echo ${PIPESTATUS[0]}", shell=True, capture_output=True, text=True, env=_env(), executable="/bin/bash"
    )
    assert ended.stderr == ""
    assert ended.stdout.strip() in ("0", str(cli.BROKEN_PIPE))


@pytest.mark.parametrize("kind", [InputError, DoseError, ModelError, TrainingError, OutputError])
def test_errors_bring_their_own_code(kind: type[InputError]) -> None:
    code, told = cli.verdict(kind("what happened", where="there", hint="do this"))
    assert code == kind.exit_code != 0
    assert told == "oncontour: what happened [there]. Way out: do this"


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("sample", "fail")])
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    told = capsys.readouterr().out
    assert f"usage: oncontour {name}" in told
    assert "Examples:" in told
    assert re.search(rf"^ *oncontour {name}( |$)", told.split("Examples:")[1], re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("sample", "fail")])
def test_no_help_speaks_python(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([*name.split(), "--help"])
    told = capsys.readouterr().out
    for word in ("<class", "Optional[", "Literal[", "type:", "null"):
        assert word not in told


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("sample", "fail")])
def test_every_argument_is_explained(name: str) -> None:
    parser = cli.parser_of(name)
    silent = [action.dest for action in parser._actions if not action.help and "." not in action.dest]
    assert silent == []


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("sample", "fail")])
def test_every_example_can_be_typed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    function = cli.load(name)
    examples = re.findall(rf"^ *oncontour {name}\b(.*)$", function.__doc__ or "", re.MULTILINE)
    assert examples
    for words in examples:
        parse(cli.parser_of(name), shlex.split(words), name)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    for name, (_, line) in cli.COMMANDS.items():
        assert re.search(rf"^  {re.escape(name)}  +{re.escape(line)}$", told, re.MULTILINE)
    assert cli.main(["train", "--help"]) == 0
    assert "train contour" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["struct"], ["structures"]),
        (["train", "c"], ["contour"]),
        (["train", "contour", "--sett"], ["--settings.structures", "--settings.spacing_mm"]),
        (["sample", "F", "--ti"], ["--times"]),
        (["sample", "F", "--out", "O", "-"], ["--out", "--names", "--help-all"]),
        (["sample", "no-such-file"], []),
    ],
)
def test_the_shell_completes_commands_and_options(typed: list[str], offered: list[str]) -> None:
    contour = ["--settings.structures", "--settings.spacing_mm"]
    taken = {
        "structures": ["--out"],
        "train contour": contour,
        "train assess": ["--out"],
        "sample": ["--out", "--names", "--times", "--help-all"],
    }
    words = " ".join(shlex.quote(word) for word in ("oncontour", *typed))
    ask = f'COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _oncontour; printf "%s\n" "${{COMPREPLY[@]}}"'
    ended = subprocess.run(["bash", "-c", f"{script(taken)}\n{ask}"], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    found = ended.stdout.split()
    assert set(found) >= set(offered)
    assert all(one.startswith(typed[-1]) for one in found)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("oncontour 0")


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--help"], ("numpy", "jsonargparse", "torch", "pydicom")),
        (["info", "--help"], ("torch", "monai", "pydicom", "SimpleITK", "openvino")),
        (["run", "--help"], ("torch", "monai", "matplotlib", "lightning")),
        (["convert", "--help"], ("torch", "monai", "matplotlib", "lightning")),
    ],
)
def test_help_imports_nothing_heavy(words: list[str], heavy: tuple[str, ...]) -> None:
    code = f"import sys; from oncontour import cli; cli.main({words}); sys.stderr.write(' '.join(m for m in {heavy} if m in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_env(), check=True)
    assert ended.stderr == ""


def test_ctrl_c_anywhere_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "import sys, time; from oncontour import cli; "
        "cli.load = lambda name: (lambda: (sys.stdout.write('ready\\n'), sys.stdout.flush(), time.sleep(60)) and None); "
        "cli.call = lambda name, words: cli.load(name)(); sys.exit(cli.main(['demo']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_env())
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(2)
    _, told = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED
    assert told.count("\n") == 1
    assert "Ctrl-C" in told


def test_progress_is_plain_without_a_terminal_and_one_line_in_one() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, marks in ((io.StringIO(), ("\n", "contouring: 50 %, 14 s left")), (Terminal(), ("\r", "\x1b[K"))):
        now = iter([0.0, 0.0, 0.5, 12.0, 12.05])
        with ProgressLine("contouring", stream, lambda now=now: next(now)) as line:
            line(0.1)  # within the first second: nothing
            line(0.5)
            line(0.51)  # too soon after the last
        told = stream.getvalue()
        assert told.count("50 %") == 1
        assert "51 %" not in told
        assert all(mark in told for mark in marks)


def test_a_log_has_a_line_in_the_first_second_and_percents_as_soon_as_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and images are read before the first percent is known, which takes many seconds."""
    monkeypatch.setattr("oncontour.progress.FIRST_S", 0.0)
    stream, now = io.StringIO(), iter([0.0, 0.0, 3.0, 5.0])
    with ProgressLine("assess", stream, lambda: next(now)) as line:
        assert line._timer is not None
        line._timer.join()
        line(0.1)
        line(0.2)  # too soon after it
    assert stream.getvalue() == "assess: reading\nassess: 10 %\n"


def test_words_for_time() -> None:
    assert [duration(s) for s in (7.6, 200, 7500)] == ["8 s", "3 min 20 s", "2 h 5 min"]
    assert sentence("x", 0.0, 5.0) == "x: 0 %"
    assert sentence("x", 0.25, 10.0) == "x: 25 %, 30 s left"


def _env() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def test_a_format_is_another_word_for_what_convert_writes_and_for_nothing_else() -> None:
    from oncontour.arguments import spread

    assert spread(["--format", "nnunet"], cli.parser_of("convert")) == ["--to", "nnunet"]
    assert spread(["--format=nifti"], cli.parser_of("convert")) == ["--to=nifti"]
    assert spread(["--format", "x"], cli.parser_of("models add")) == ["--format", "x"]
