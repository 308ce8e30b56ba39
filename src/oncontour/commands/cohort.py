"""A cohort where one patient was asked for: ``run``, ``assess``, ``adapt``, ``synthesize`` and ``dvh`` once a patient, into OUT/PATIENT.

open the cohort and the table of OUT -> each patient by the command's own function in a worker (cohort_spread) -> the page (cohort_page)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oncontour.commands.cohort_spread import Spread, spread
from oncontour.commands.cohort_table import FOLDER, Table
from oncontour.commands.cohort_work import Outcome
from oncontour.core.notes import counted
from oncontour.errors import CohortError, ConfigError, OutputError
from oncontour.files import check_not_here, check_writable
from oncontour.many import Many
from oncontour.progress import Progress

if TYPE_CHECKING:
    from oncontour.io.cohort import Cohort

Settings = Mapping[str, object]


@dataclass(frozen=True)
class Kind:
    """How a command for one patient takes many. ``patients``: the argument that is the cohort; ``beside``: those that are then folders of
    the same patients; ``alone``: options that pick something of one patient; ``record``: the file of figures in each result."""

    patients: str
    beside: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    record: str = "report.json"


KINDS = {
    "run": Kind("ct_folder", ("truth",), ("series_uid", "structure_set_uid", "add_to", "facts", "dose")),
    "assess": Kind("ct", ("contours",), ("series_uid", "structure_set_uid")),
    "adapt": Kind("planning", ("daily",), ("reg", "landmarks", "dose", "daily_dose", "add")),
    "synthesize": Kind("ct_folder", (), ("series_uid",), "synthesize.json"),
    "dvh": Kind("patient", (), ("dose", "series_uid", "structure_set_uid"), "dvh.json"),
}


@dataclass(frozen=True)
class OneByOne:
    """The command's function for one patient after the other."""

    function: Callable[..., object]
    settings: Settings
    paths: Mapping[str, Mapping[str, Path]]
    """argument -> patient -> path"""
    out: Mapping[str, Path]
    record: str
    asked: str

    def __call__(self, id: str) -> Outcome:
        from oncontour.io.dicom.acquisition import acquired

        given = {name: _path(paths, id, name) for name, paths in self.paths.items()}
        self.function(**{**self.settings, **given, "out": self.out[id], "overwrite": True})
        return Outcome(id, facts=acquired(next(iter(given.values()))))

    def made_of(self, id: str) -> str:
        return made_of([paths[id] for paths in self.paths.values() if id in paths], self.asked)

    def is_there(self, id: str) -> bool:
        return (self.out[id] / self.record).exists()


@dataclass(frozen=True)
class Done:
    """What became of a cohort, and where."""

    spread: Spread
    out: Path
    where: str
    page: Path | None = None

    def __str__(self) -> str:
        """Raises IncompleteError where a patient failed."""
        done, earlier = len(self.spread.done), self.spread.earlier
        page = f"; {self.page.name} has a line a patient" if self.page else ""
        return self.spread.told(self.where, f"{counted(done, 'patient')} done ({earlier} of them by an earlier run) in {self.out}{page}")


def cohort(name: str, function: Callable[..., object], settings: Settings, many: Many, progress: Progress | None = None) -> str:
    """Command ``name`` for every patient of a cohort, resumable: OUT/PATIENT as for one patient each, and OUT/cohort.html.

    ``function`` is the command's own, ``settings`` its arguments. Raises ConfigError for options that are for one patient, OutputError for
    an OUT that holds other things, IncompleteError, when all others are done, where patients could not be.
    """
    from oncontour.commands.cohort_page import write_page
    from oncontour.io.cohort import Cohort

    kind = KINDS[name]
    _check_alone(name, kind, settings)
    patients = Cohort.open(Path(str(settings[kind.patients])))
    others = {one: Cohort.open(Path(str(settings[one]))) for one in kind.beside if settings.get(one) is not None}
    out = Path(str(settings["out"]))
    kept = {key: value for key, value in settings.items() if key not in (kind.patients, *kind.beside, "out", "overwrite")}
    if "threads" in kept:
        kept["threads"] = kept["threads"] or 1
    check_place(out, [Path(one.where) for one in (patients, *others.values())])
    plan = planned(name, kept)
    table = opened(out, plan, overwrite=bool(settings.get("overwrite")))
    places = {kind.patients: dict(patients.paths), **{one: dict(them.paths) for one, them in others.items()}}
    folders = {id: out / called for id, called in folder_names(patients).items()}
    work = OneByOne(function, kept, places, folders, kind.record, digest(plan))
    found = spread(work, patients.ids, many, table, progress)
    page = write_page(name, table, {id: folders[id] / kind.record for id in patients.ids})
    return str(Done(found, out, patients.where, page))


# ---- before any work


def _check_alone(name: str, kind: Kind, settings: Settings) -> None:
    if settings.get("out") is None:
        raise ConfigError(f"{name} of a cohort writes a folder a patient, and no --out says where", hint="name a new folder with --out")
    if told := [one for one in kind.alone if settings.get(one)]:
        raise ConfigError(
            f"--{told[0]} is of one patient, and this is a cohort",
            where=str(settings[kind.patients]),
            hint="leave it out, or do that patient alone",
        )


def check_place(out: Path, sources: Sequence[Path]) -> None:
    """Raise OutputError where the results of a cohort would lie in what they are made from, or the other way round."""
    for source in sources:
        here, there = out.resolve(), source.resolve()
        if here == there or here in there.parents or (there.is_dir() and there in here.parents):
            raise OutputError("patients and results lie within each other", where=str(out), hint="name a folder elsewhere as --out")
    if out.exists() and not out.is_dir():
        raise OutputError("this is a file, not a folder", where=str(out), hint="choose another --out")
    check_not_here(out)
    check_writable(out)


def opened(out: Path, plan: Mapping[str, object], *, overwrite: bool) -> Table:
    """The table of OUT, to go on with where an earlier run was asked for the same, and begun anew where there is none.

    Raises OutputError for a folder of other things, and for one of another plan without ``overwrite``.
    """
    table = Table(out)
    earlier = table.plan()
    if earlier is None:
        strangers = sorted(one.name for one in out.iterdir() if one.name != FOLDER) if out.exists() else []
        if strangers and not overwrite:
            what = f"the folder holds other things ({', '.join(strangers[:3])})"
            raise OutputError(what, where=str(out), hint="choose a new folder, or write into this one with --overwrite")
        table.begin(plan)
    elif earlier != plan:
        differs = sorted(key for key in {**earlier, **plan} if earlier.get(key) != plan.get(key))
        if not overwrite:
            what = f"the folder holds a cohort that was asked for otherwise (different: {', '.join(differs)})"
            raise OutputError(what, where=str(out), hint="choose another --out, or do all patients anew with --overwrite")
        table.begin(plan)
    return table


def planned(name: str, settings: Settings) -> dict[str, object]:
    """What makes the results what they are, as JSON: command, version, each setting, and what is in the files that settings name."""
    from oncontour import __version__

    told = {key: _plain(value) for key, value in settings.items()}
    made = {"command": name, "oncontour": __version__, **{key: value for key, value in told.items() if value is not None}}
    as_read: dict[str, object] = json.loads(json.dumps(made))
    return as_read


def digest(plan: Mapping[str, object]) -> str:
    """A hash of a plan."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def made_of(paths: Sequence[Path], asked: str) -> str:
    """Changes with what was asked for, and with the name, size or date of any file of the patient."""
    from oncontour.files import walk

    told: list[object] = [asked]
    for path in paths:
        below = (parent / name for parent, _, names in walk(path) for name in names)
        files = [path] if path.is_file() else sorted(file for file in below if file.is_file())
        told.append([(file.relative_to(path.parent).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def folder_names(patients: Cohort) -> dict[str, str]:
    """Patient -> what the folder of the results may be called. Raises CohortError where two would share one."""
    from oncontour.io.image.layout import file_name

    taken: dict[str, str] = {}
    out = {}
    for id in patients.ids:
        out[id] = file_name(id)
        other = taken.setdefault(out[id].casefold(), id)
        if other != id:
            raise CohortError(f"patients {other!r} and {id!r} would share the folder {out[id]!r}", where=patients.where)
    return out


def _path(paths: Mapping[str, Path], id: str, argument: str) -> Path:
    if id not in paths:
        raise CohortError(f"patient {id!r} is not among the {argument}", hint="name the folders there as the patients are named")
    return paths[id]


def _plain(value: object) -> object:
    """A setting as JSON; of one that names a file what is in it."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str | Path) and "\0" not in str(value) and len(str(value)) < 1000 and Path(value).is_file():
        with Path(value).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return str(value) if isinstance(value, Path) else value
