"""Imports point downwards, and the crafts stay strangers: the contracts of pyproject.toml hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from oncontour.core.case import Case
from oncontour.io import write
from oncontour.phantom import head_neck
from tests.phantoms import SMALL_GRID

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "oncontour"


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("pydicom", ("io",)),
        ("highdicom", ("io",)),
        ("SimpleITK", ()),
        ("gdcm", ()),
        ("lightning", ("learn/fit.py", "learn/lesson.py", "learn/callbacks.py", "learn/processes.py", "reproduce")),
        ("jsonargparse", ("arguments.py",)),
        ("jinja2", ("report",)),
        ("pickle", ()),
        ("socket", ()),
        ("urllib", ()),
        ("requests", ()),
    ],
)
def test_a_library_lives_in_one_place(library: str, allowed: tuple[str, ...]) -> None:
    strangers = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if library in _imports(path) and not path.relative_to(SOURCE).as_posix().startswith(allowed or ("none",))
    ]
    assert strangers == []


UNSEEN = {
    "pyjpegls": "pydicom's decoder of JPEG-LS",
    "pylibjpeg": "pydicom's decoder of JPEG 2000",
    "pylibjpeg-openjpeg": "the library behind it",
    "tensorboard": "Lightning writes training curves with it",
}
"""Needed, though no file of ours imports them."""


def test_what_is_imported_is_declared_and_what_is_declared_is_needed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared, optional = _names(project["dependencies"]), _names(_extras(project))
    known = {module: {_plain(name) for name in names} for module, names in packages_distributions().items()}
    imported = set().union(*(_imports(path) for path in SOURCE.rglob("*.py"))) - {"oncontour", "_typeshed", *sys.stdlib_module_names}
    assert sorted(module for module in imported if not known.get(module, set()) & (declared | optional)) == []
    used = set().union(*(known[module] for module in imported))
    assert (declared | optional) - used == set(UNSEEN)
    assert _names((ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()) >= declared | optional


def test_the_lowest_versions_are_the_declared_bounds() -> None:
    """``constraints-lowest.txt``, which the CI installs, has every dependency at the bound that pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = dict(line.split("==") for line in (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines() if "==" in line)
    pinned = {_plain(name): version for name, version in pinned.items()}
    asked = [*project["dependencies"], *_extras(project)]
    bounds = {_plain(name): bound for name, bound in (re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", one).groups() for one in asked)}
    assert len(bounds) == len(asked)
    assert {name: pinned[name] for name in bounds} == bounds


def test_predicting_loads_no_torch() -> None:
    code = (
        "import sys; from oncontour.contour.predict import load_contourer; from oncontour.quality.score import load; "
        "from oncontour.synthesize.predict import Synthesizer; from oncontour.commands import run, assess, synthesize; "
        "load_contourer('hn-organs').engine; load(); Synthesizer.load('limb-t1').engine; "
        "print([name for name in ('torch', 'lightning', 'monai', 'pyarrow', 'highdicom') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_predicting_by_torch_loads_nothing_of_training() -> None:
    code = (
        "import sys; from oncontour.contour.predict import load_contourer; from oncontour.quality.score import load; "
        "from oncontour.commands import run, assess, predict; "
        "load_contourer('hn-organs', backend='torch'); load(backend='torch'); "
        "learn = ('fit', 'callbacks', 'processes', 'resume', 'train_settings'); "
        "print([m for m in sys.modules if m.startswith('lightning') or m in [f'oncontour.learn.{one}' for one in learn]])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize(("format", "most"), [("nifti", 98), ("dicom", 124)])
def test_a_run_enters_few_modules(format: str, most: int, tmp_path: Path) -> None:
    """Of a CT alone, by the command line: nothing of training, of other commands, of formats that are neither read nor written."""
    ct = head_neck(0, *SMALL_GRID).images["ct"]
    write(Case("someone", {"ct": ct}), tmp_path / "ct", format=format)
    code = (
        "import sys; from oncontour.cli import main; "
        f"assert not main(['run', {str(tmp_path / 'ct')!r}, '--out', {str(tmp_path / 'out')!r}, '--model', 'hn-organs', '--any-region', "
        "'--assess', 'false', '--threads', '1']); "
        "print(*sorted(name for name in sys.modules if name.partition('.')[0] == 'oncontour'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    entered = ended.stdout.splitlines()[-1].split()
    assert [name for name in entered if UNUSED.search(name)] == []
    assert len(entered) <= most, entered


UNUSED = re.compile(
    r"oncontour\.(evaluate|phantom|radiomics|reproduce|risk|dose|contour\.external|io\.cohort|learn\.(fit|callbacks|resume|train_settings)"
    r"|commands\.(?!run|dvh)|quality\.(candidates|calibrate|task|predict)|io\.image\.textheader|io\.dicom\.(patient|rtdose|seg|series)_write)"
)
"""What a run of a CT alone, without assessment, does not enter."""


def _extras(project: Mapping[str, Any]) -> list[str]:
    """What ``pip install oncontour[NAME]`` adds, but for developers' tools and what benches measure against."""
    return [one for name, asked in project["optional-dependencies"].items() if name not in ("dev", "bench") for one in asked]


def _names(requirements: Iterable[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9][\w.-]*", one) for one in requirements)
    return {_plain(one.group()) for one in found if one}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("part", ["metrics", "io", "report", "ops", "dose"])
def test_needs_no_torch(part: str) -> None:
    assert [path.name for path in (SOURCE / part).rglob("*.py") if "torch" in _imports(path)] == []


RINGS = ({"oncontour.raster.fill", "oncontour.raster.planes"},)
"""Files that still import each other, in a ring or several that meet: each of these is to go, and none to come."""


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Imports inside functions count, those for type checkers alone do not."""
    assert [sorted(ring) for ring in _rings(_modules()) if not any(ring <= known for known in RINGS)] == []


def test_rings_are_found() -> None:
    assert _rings({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"d", "e"}, "e": set()}) == {frozenset("abc"), frozenset("d")}


def _modules() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports. That a package's file runs before its parts is no import that anybody wrote."""
    places = {path: path.relative_to(SOURCE.parent).with_suffix("").parts for path in SOURCE.rglob("*.py")}
    files = {".".join(parts).removesuffix(".__init__"): path for path, parts in places.items()}
    return {name: {found for said in _statements(path) for found in _ours(said, files)} - {name} for name, path in files.items()}


def _statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a file, wherever they stand, but for those below ``if TYPE_CHECKING``."""
    left: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    out = []
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            left += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            out.append(node)
        left += ast.iter_child_nodes(node)
    return out


def _ours(said: ast.Import | ast.ImportFrom, files: Mapping[str, Path]) -> set[str]:
    if isinstance(said, ast.Import):
        return {alias.name for alias in said.names} & set(files)
    assert not said.level, "imports are absolute"
    parts = {f"{said.module}.{alias.name}" for alias in said.names}
    whole = {str(said.module)} if any(part not in files for part in parts) else set()
    return (parts | whole) & set(files)


def _rings(imports: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The modules that reach themselves, grouped with those that they reach and are reached by."""
    reached = {name: _reached(name, imports) for name in imports}
    return {frozenset(other for other in reached[name] if name in reached[other]) for name in imports if name in reached[name]}


def _reached(name: str, imports: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = set(imports[name])
    while left:
        one = left.pop()
        found.add(one)
        left |= imports[one] - found
    return found


def _imports(path: Path) -> set[str]:
    """First words of everything a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("import_module", "__import__"):
            found |= {str(word.value).split(".")[0] for word in node.args[:1] if isinstance(word, ast.Constant)}
    return found
