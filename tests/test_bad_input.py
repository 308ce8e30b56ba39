"""Bad input, seen from the command line: one clear sentence, an exit code, nothing half-written, nothing that was there lost."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from oncontour import cli
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.io.image.nifti import write_image
from oncontour.phantom import head_neck
from tests.commands.test_pipeline import make_model, whole
from tests.dicom_cases import make_series
from tests.phantoms import patient

PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer << /Root 1 0 R >>\n%%EOF\n"
SLICES = tuple(np.arange(-10.0, 11.0, 2.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "untrained.safetensors")


def empty(folder: Path) -> None:
    folder.mkdir()


def pdfs(folder: Path) -> None:
    folder.mkdir()
    for name in ("plan.pdf", "letter.pdf", "scan.dcm"):
        (folder / name).write_bytes(PDF)


def half_a_series(folder: Path) -> None:
    """Slices are missing in the middle, as after a transfer that broke off and went on."""
    for n, path in enumerate(make_series(folder, offsets=SLICES).paths):
        if 3 <= n <= 6:
            path.unlink()


def truncated(folder: Path) -> None:
    path = make_series(folder, offsets=SLICES).paths[4]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def one_slice(folder: Path) -> None:
    make_series(folder, offsets=(0.0,))


def other_than_ct(folder: Path) -> None:
    make_series(folder, offsets=SLICES, modality="MR")


def truncated_nifti(folder: Path) -> None:
    folder.mkdir()
    path = write_image(Volume(np.zeros((20, 20, 20), np.float32), Geometry.regular((20, 20, 20))), folder / "ct.nii")
    path.write_bytes(path.read_bytes()[:20_000])


def nan_ct(folder: Path) -> None:
    folder.mkdir()
    array = np.zeros((20, 20, 20), np.float32)
    array[3, 4, 5] = np.nan
    write_image(Volume(array, Geometry.regular((20, 20, 20))), folder / "ct.nii.gz")


BAD: dict[Callable[[Path], None], str] = {
    empty: "",
    pdfs: "",
    half_a_series: "mm",
    truncated: "0004.dcm",
    one_slice: "one slice|1 slice|single slice",
    other_than_ct: "no CT|MR",
    truncated_nifti: "ct.nii",
    nan_ct: "NaN",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_folder_that_is_no_ct(make: Callable[[Path], None], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "ct")
    code = cli.main(["run", str(tmp_path / "ct"), "--out", str(tmp_path / "out"), "--model", str(model)])
    told = one_sentence(capsys)
    assert code == 2, told
    assert any(word in told for word in BAD[make].split("|")), told
    assert str(tmp_path / "ct") in told
    assert sorted(os.listdir(tmp_path)) == ["ct"]


def test_an_earlier_result_survives_a_failing_run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = patient(tmp_path / "ct", head_neck(0, (9, 7, 7), 1.0, (16, 32, 32)))
    words = ["--out", str(tmp_path / "out"), "--model", str(model), "--backend", "torch", "--threads", "1"]
    assert cli.main(["run", str(source), *words]) == 0
    before = contents(tmp_path / "out")
    truncated(tmp_path / "bad")
    capsys.readouterr()
    assert cli.main(["run", str(tmp_path / "bad"), *words, "--overwrite"]) == 2
    one_sentence(capsys)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("ct", np.full((20, 20, 20), 1e6, np.float32), "1000000|1e+06|16"),
        ("dose", np.full((20, 20, 20), np.nan, np.float32), "NaN"),
        ("dose", np.full((20, 20, 20), -3.0, np.float32), "-3|negative"),
    ],
    ids=["16-bit overflow", "NaN dose", "negative dose"],
)
def test_values_that_a_format_cannot_hold(
    name: str, array: np.ndarray, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "patient"
    source.mkdir()
    grid = Geometry.regular((20, 20, 20), (3, 2, 2))
    write_image(Volume(np.zeros(grid.shape, np.int16), grid), source / "ct.nii.gz")
    write_image(Volume(array, grid), source / f"{name}.nii.gz")
    code = cli.main(["convert", str(source), str(tmp_path / "out")])
    told = one_sentence(capsys)
    assert code == 2, told
    assert any(word in told for word in says.split("|")), told
    assert sorted(os.listdir(tmp_path)) == ["patient"]


def test_a_model_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = patient(tmp_path / "ct", head_neck(0, (9, 7, 7), 1.0, (16, 32, 32)))
    (tmp_path / "model.safetensors").write_bytes(PDF)
    for name in (str(tmp_path / "model.safetensors"), "hn-organs-2"):
        assert cli.main(["run", str(source), "--out", str(tmp_path / "out"), "--model", name]) == 3
        assert name in one_sentence(capsys)
    assert not (tmp_path / "out").exists()


# ---- disks that fill up, users who stop


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("only root can mount a small disk; the limit on file size below needs no root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up(model: Path, tmp_path: Path, tiny_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = patient(tmp_path / "ct", head_neck(0, (3, 3, 3)))
    (tiny_disk / "precious").write_text("still here")
    words = ["--model", str(model), "--backend", "torch", "--threads", "1", "--structures", "Parotid_L", "--assess", "false"]
    code = cli.main(["run", str(source), "--out", str(tiny_disk / "out"), *words])
    assert code == 5
    assert "the disk is full" in one_sentence(capsys)
    assert os.listdir(tiny_disk) == ["precious"]
    assert (tiny_disk / "precious").read_text() == "still here"


def test_a_limit_on_the_size_of_files(model: Path, tmp_path: Path) -> None:
    source = patient(tmp_path / "ct", head_neck(0, (9, 7, 7), 1.0, (16, 32, 32)))
    ended = subprocess.run(
        command("run", source, "--out", tmp_path / "out", "--model", model, "--backend", "torch"),
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        check=False,
    )
    assert ended.returncode == 5, ended.stderr
    assert len(without_progress(ended.stderr)) == 1, ended.stderr
    assert sorted(os.listdir(tmp_path)) == ["ct"]


@pytest.mark.parametrize(
    ("number", "code", "after"), [(signal.SIGINT, cli.INTERRUPTED, "contour"), (signal.SIGTERM, cli.TERMINATED, "read")]
)
def test_stopping_a_run(number: int, code: int, after: str, model: Path, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM while the net works and while files are written: the earlier result stays as it was."""
    source = patient(tmp_path / "ct", head_neck(0, (9, 7, 7), 1.0, (16, 32, 32)))
    words = ["run", source, "--out", tmp_path / "out", "--model", model, "--backend", "torch", "--threads", "1", "--assess", "false"]
    assert cli.main([str(word) for word in words]) == 0
    before = contents(tmp_path / "out")
    # the clock of the steps tells when to send the signal: the run holds still there until it comes
    still = (
        "import sys, time; from oncontour import cli\nfrom oncontour.commands import run as pipeline\n"
        "class Clock(pipeline.Clock):\n"
        "    def __call__(self, step):\n"
        f"        if step != {after!r}: sys.stdout.write(step + '\\n'); sys.stdout.flush()\n"
        f"        if {after!r} in self.steps: time.sleep(30)\n"
        "        return super().__call__(step)\n"
        "pipeline.Clock = Clock\n"
        f"sys.exit(cli.main({[str(word) for word in words] + ['--overwrite']}))"
    )
    process = subprocess.Popen([sys.executable, "-c", still], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    following = {"read": "contour", "contour": "dose"}[after]
    assert following in (line.strip() for line in process.stdout)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == code, told
    assert len(without_progress(told)) == 1, told
    assert contents(tmp_path / "out") == before
    assert whole(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["ct", "out"]


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that everybody may enter; ``tmp_path`` lies below one that is root's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_read_is_not_passed_over(open_to_all: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a patient behind a closed door is no patient."""
    for n, name in enumerate(("open", "closed")):
        make_series(open_to_all / "ct" / name, offsets=SLICES[5 * n : 5 * n + 5], series_uid="1.2.3", frame_of_reference_uid="1.2.4")
    (open_to_all / "ct" / "closed").chmod(0)
    shutil.copy(model, open_to_all / "model.safetensors")
    (open_to_all / "model.safetensors").chmod(0o644)
    (open_to_all / "out").mkdir()
    (open_to_all / "out").chmod(0o777)
    with as_nobody():
        assert (
            cli.main(
                [
                    "run",
                    str(open_to_all / "ct"),
                    "--out",
                    str(open_to_all / "out" / "new"),
                    "--model",
                    str(open_to_all / "model.safetensors"),
                ]
            )
            == 2
        )
        told = one_sentence(capsys)
        (open_to_all / "out").exists()
    assert "a folder cannot be read (Permission denied)" in told
    assert "closed" in told


def test_a_folder_that_may_not_be_written_is_said_before_any_work(
    open_to_all: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_series(open_to_all / "ct", offsets=SLICES)
    with as_nobody():
        assert cli.main(["run", str(open_to_all / "ct"), "--out", str(open_to_all / "out"), "--model", str(model)]) == 5
        told = one_sentence(capsys)
    assert "cannot write (Permission denied)" in told


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    told = "".join(without_progress(capsys.readouterr().err))
    assert told.count("\n") == 1, told
    assert told.startswith("oncontour: ")
    assert "Traceback" not in told
    assert "nobody expected" not in told
    return told


def without_progress(told: str) -> list[str]:
    """The lines of ``told`` less those that a slow machine adds: how far the work has come."""
    return [line for line in told.splitlines(keepends=True) if not re.match(r"\w+: (\d+ %|reading$)", line)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "oncontour.cli", *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
