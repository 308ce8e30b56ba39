"""The same input gives the same bytes, whatever the seed of Python's hashes, the threads of the machine, and the processes at work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from oncontour.core.volume import Volume
from oncontour.io import read, write
from oncontour.io.onto import read_onto
from oncontour.phantom import head_neck
from tests.phantoms import cohort, patient

ROOT = Path(__file__).parents[1]
TIMES = ("created", "timings_s", "peak_memory_mb", "digest")
"""Of a record: what differs from run to run."""
Ran = Callable[[str, int, int, int, int], Path]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The folder of results of one process: its name, PYTHONHASHSEED, OMP_NUM_THREADS, --threads, --jobs."""
    folder = tmp_path_factory.mktemp("same")
    write(head_neck(0, (4.0, 4.0, 4.0), 1.0, (40, 56, 56)), folder / "dicom", format="dicom")
    for one in sorted(cohort(folder / "cohort", 3, shape=(24, 40, 40)).iterdir()):
        case = read(one)
        moved = {name: Volume(np.roll(mask.array, 1, axis=2), mask.geometry) for name, mask in case.masks.items()}
        patient(folder / "drawn" / one.name, case.without_structures().with_masks(moved))

    def run(name: str, seed: int, omp: int, threads: int, jobs: int) -> Path:
        out = folder / name
        if not out.exists():
            several = {"OMP_NUM_THREADS": str(omp), "OPENBLAS_NUM_THREADS": str(omp), "NUMBA_NUM_THREADS": str(omp)}
            env = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **several}
            words = [sys.executable, "-m", "tests.same_output", str(folder), str(out), str(threads), str(jobs)]
            ended = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr
        return out

    return run


def told(folder: Path) -> dict[str, bytes]:
    """Every file by its path, without the times and the hashes of files in records, new UIDs of DICOM numbered as they come; not what is
    kept to go on from (``.parts``, ``.cohort``), which tells of the work, its processes and times."""
    kept = (".parts", ".cohort")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not any(part.endswith(kept) for part in path.parts))
    return {str(path.relative_to(folder)): _plain(path) for path in files}


def _plain(path: Path) -> bytes:
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(path.read_text())), sort_keys=False).encode()
    if path.suffix == ".html":
        digest = json.loads((path.parent / "report.json").read_text())["digest"]  # of a record with its times
        page = path.read_bytes().replace(digest.encode(), b"DIGEST").replace(digest[:16].encode(), b"DIGEST")
        return re.sub(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d\S*)?|\b\d+(\.\d+)? (s|MB)\b|(?<=rtstruct\.dcm: )\w{64}", b"TIME", page)
    return _uidless(path) if path.suffix == ".dcm" else path.read_bytes()


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in record.items() if key not in TIMES}
    return kept | ({"files": sorted(record["files"])} if isinstance(record.get("files"), dict) else {})


def _uidless(path: Path) -> bytes:
    """The data set as text, its own UIDs numbered, without dates and times, and without the length of the file meta information, which goes
    with that of a new UID."""
    text = "\n".join(line for line in str(pydicom.dcmread(path)).splitlines() if not re.search(r" (DA|TM|DT): |^\(0002,0000\)", line))
    numbered: dict[str, str] = {}
    return re.sub(r"(?<= UI: ).+", lambda uid: numbered.setdefault(uid.group(), f"UID {len(numbered)}"), text).encode()


def test_hash_seed_threads_of_the_machine_and_processes_change_nothing(ran: Ran) -> None:
    first = told(ran("first", 0, 1, 1, 1))
    assert {"run/rtstruct.dcm", "run/scores.csv", "run/report.html", "run/report.json", "dvh/dvh.json", "features.csv"} <= set(first)
    second = told(ran("second", 1, 2, 1, 3))
    assert list(second) == list(first)
    assert [name for name in first if second[name] != first[name]] == []


def test_threads_of_the_nets_are_recorded_and_change_last_digits_alone(ran: Ran) -> None:
    """A voxel is inside from some probability on: two orders of a sum may put one on either side of it, and no more."""
    one, two = ran("first", 0, 1, 1, 1), ran("threads", 0, 1, 2, 1)
    records = [json.loads((out / "run" / "report.json").read_text()) for out in (one, two)]
    assert [[model["threads"] for model in record["models"]] for record in records] == [[1, 1], [2, 2]]
    assert {model["backend"] for record in records for model in record["models"]} == {"openvino"}
    case = read(one.parent / "dicom").without_structures()
    drawn = [read_onto(out / "run" / "rtstruct.dcm", case) for out in (one, two)]
    assert drawn[0].structures == drawn[1].structures
    for name in drawn[0].structures:
        assert np.count_nonzero(drawn[0].mask(name).array != drawn[1].mask(name).array) <= 2
    apart = {name for name, content in told(one).items() if told(two)[name] != content}
    assert {name.split("/")[0] for name in apart} == {"run"}
